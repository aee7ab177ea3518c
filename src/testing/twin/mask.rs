//! Sets of lanes.

/// Lanes of a workgroup at most.
pub(super) const MAX_LANES: usize = 256;
const WORDS: usize = MAX_LANES / 64;

/// A set of lanes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Mask([u64; WORDS]);

/// The lanes from the first of a set to behind its last, and whether it has all of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Span {
    pub low: usize,
    pub high: usize,
    pub dense: bool,
}

impl Mask {
    /// Returns the first `n` lanes.
    pub fn first(n: usize) -> Self {
        Mask::of(0..n)
    }

    pub fn of(lanes: impl Iterator<Item = usize>) -> Self {
        let mut mask = Mask::default();
        lanes.for_each(|lane| mask.0[lane / 64] |= 1 << (lane % 64));
        mask
    }

    pub fn is_empty(&self) -> bool {
        self.0 == [0; WORDS]
    }

    pub fn has(&self, lane: usize) -> bool {
        self.0[lane / 64] >> (lane % 64) & 1 == 1
    }

    pub fn or(&self, other: &Mask) -> Mask {
        Mask(std::array::from_fn(|k| self.0[k] | other.0[k]))
    }

    pub fn without(&self, other: &Mask) -> Mask {
        Mask(std::array::from_fn(|k| self.0[k] & !other.0[k]))
    }

    pub fn span(&self) -> Span {
        let Some(first) = self.0.iter().position(|&w| w != 0) else { return Span { low: 0, high: 0, dense: true } };
        let last = self.0.iter().rposition(|&w| w != 0).unwrap_or(first);
        let low = first * 64 + self.0[first].trailing_zeros() as usize;
        let high = last * 64 + 64 - self.0[last].leading_zeros() as usize;
        let count: usize = self.0.iter().map(|w| w.count_ones() as usize).sum();
        Span { low, high, dense: count == high - low }
    }

    /// Returns the lanes in order.
    pub fn lanes(&self) -> Lanes {
        Lanes { mask: *self, word: 0 }
    }
}

/// The lanes of a set in order.
pub(super) struct Lanes {
    mask: Mask,
    word: usize,
}

impl Iterator for Lanes {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        while self.word < WORDS {
            let bits = self.mask.0[self.word];
            if bits != 0 {
                self.mask.0[self.word] = bits & (bits - 1);
                return Some(self.word * 64 + bits.trailing_zeros() as usize);
            }
            self.word += 1;
        }
        None
    }
}
