//! Division by a number of the launch.

use super::expr::{Expr, Type};

/// A number by which kernels divide: a constant of the text, or an extent with the magic numbers by which a multiplication
/// divides (Granlund and Montgomery 1994, "Division by invariant integers using multiplication").
///
/// ```
/// use hubel::kernels::{Divisor, Expr, Type};
/// let i = Expr::name("i", Type::U32);
/// assert_eq!(Divisor::constant(7).remainder(&i).to_string(), "i % 7u");
/// let width = Divisor::new(["width", "width_magic", "width_shift"], 7);
/// assert_eq!(width.quotient(&i).to_string(), "quotient(i, width_magic, width_shift)");
/// ```
#[derive(Debug, Clone)]
pub struct Divisor {
    value: Expr,
    /// Multiplier and shift of an extent.
    magic: Option<[Expr; 2]>,
}

impl Divisor {
    /// Returns a number that is part of the text.
    pub fn constant(value: usize) -> Divisor {
        Divisor { value: value.into(), magic: None }
    }

    /// Returns a number that the launch gives, by the names of the number, its multiplier and its shift. What is divided is below
    /// 2³¹, and the device has 64-bit integers.
    pub fn new(names: [&'static str; 3], value: usize) -> Divisor {
        if value < 2 {
            return Divisor::constant(value);
        }
        // 2^shift < value <= 2^(shift + 1), so that the multiplier has 32 bits and errs by less than 2^(shift + 1).
        let shift = (value as u64 - 1).ilog2();
        let magic = (1u128 << (32 + shift)).div_ceil(value as u128) as u64;
        let [value, magic, shift] =
            [(names[0], value as u64), (names[1], magic), (names[2], shift.into())].map(|(n, v)| Expr::extent(n, v));
        Divisor { value, magic: Some([magic, shift]) }
    }

    /// Returns the number.
    pub fn expr(&self) -> &Expr {
        &self.value
    }

    /// Returns `i` divided by the number, rounded down.
    pub fn quotient(&self, i: &Expr) -> Expr {
        match &self.magic {
            None => i / &self.value,
            Some([magic, shift]) => Expr::call("quotient", Type::U32, [i.clone(), magic.clone(), shift.clone()]),
        }
    }

    /// Returns what is left of `i`.
    pub fn remainder(&self, i: &Expr) -> Expr {
        match &self.magic {
            None => i % &self.value,
            Some(_) => i - self.quotient(i) * &self.value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_magic_numbers_divide_every_number_below_two_to_the_31() {
        for d in (2..2000).chain([4095, 4096, 4097, 65_535, 65_537, (1 << 20) + 7, (1 << 30) - 1, 1 << 30]) {
            let mut numbers = Vec::new();
            let Some(magic) = Divisor::new(["d", "magic", "shift"], d).magic else { panic!("{d} has magic numbers") };
            magic.iter().for_each(|e| e.extents(&mut numbers));
            let [(_, magic), (_, shift)] = numbers[..] else { panic!("two numbers") };
            let multiples = (1..50).map(|k| k * d as u64).chain([(1 << 31) / d as u64 * d as u64]);
            for i in multiples.flat_map(|i| [i - 1, i, i + 1]).filter(|&i| i < 1 << 31).chain([(1 << 31) - 1]) {
                assert_eq!(((i * u64::from(magic)) >> 32) >> shift, i / d as u64, "{i} / {d}");
            }
        }
    }
}
