//! Ranges of remainders, which lanes tell without dividing.

use crate::kernels::language::Expr;

/// Numbers whose remainders by a period lie in a range, told without a division: a number times ⌈2³² / period⌉ is, in 32 bits, the
/// remainder as a fraction of the period.
pub struct Periodic {
    /// The period.
    pub period: u32,
    /// The first remainder of the range.
    pub first: Expr,
    /// Its end, at most the period.
    pub end: Expr,
}

impl Periodic {
    /// Returns whether this can be told of numbers below `numbers`: what the factor is rounded by adds up.
    pub fn can_tell(period: u64, numbers: u64) -> bool {
        period > 1 && numbers + 2 * period < (1 << 32) / period
    }

    fn factor(&self) -> u32 {
        (1u64 << 32).div_ceil(u64::from(self.period)) as u32
    }

    /// Returns a number as a fraction of the period.
    pub(super) fn fraction(&self, number: &Expr) -> Expr {
        match number.known() {
            Some(number) => (number as u32).wrapping_mul(self.factor()).into(),
            None => number * self.factor(),
        }
    }

    /// Returns the length of the range as a fraction of the period, less than what the factor is rounded by.
    pub(super) fn length(&self) -> Expr {
        let length = match (&self.end - &self.first).known() {
            Some(length) => (length as u32).wrapping_mul(self.factor()).wrapping_sub(self.period).into(),
            None => self.fraction(&(&self.end - &self.first)) - self.period,
        };
        self.first.less(&self.end).select(length, 0u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_remainders_are_told_up_to_the_most_numbers_of_which_they_can_be() {
        for period in [2u32, 3, 4, 7, 14, 49, 64, 196, 3136] {
            let most = ((1u64 << 32) / u64::from(period)) as u32 - 2 * period - 1;
            assert!(Periodic::can_tell(period.into(), most.into()));
            assert!(!Periodic::can_tell(period.into(), 1 + u64::from(most)));
            for [first, end] in
                [[0, period], [1, period], [0, period - 1], [period - 1, period], [0, 1], [period, period], [1, 0]]
            {
                let range = Periodic { period, first: first.into(), end: end.into() };
                let known = |e: Expr| e.known().expect("numbers that are known") as u32;
                let [start, length] = [range.fraction(&range.first), range.length()].map(known);
                for number in (0..3 * period).chain(most - 3 * period..most) {
                    let inside = known(range.fraction(&number.into())).wrapping_sub(start) < length;
                    assert_eq!(
                        inside,
                        (first..end).contains(&(number % period)),
                        "{number} in {first}..{end} of {period}"
                    );
                }
            }
        }
    }
}
