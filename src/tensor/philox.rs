/// Returns the four words of Philox 4x32-10 for a key and a counter (Salmon et al. 2011, *Parallel random numbers: as
/// easy as 1, 2, 3*).
pub fn philox4x32(mut key: [u32; 2], mut counter: [u32; 4]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
        }
        let a = u64::from(counter[0]) * 0xD251_1F53;
        let b = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
    }
    counter
}

/// The purpose of random numbers; streams of different purposes are independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum Purpose {
    /// Initial values of weights.
    Initialize = 1,
    /// The order of samples in an epoch.
    Shuffle = 2,
    /// Dropout masks.
    Dropout = 3,
    /// Test data.
    Test = 4,
    /// Random numbers in a graph.
    Noise = 5,
}

/// Returns the Philox key of a seed and a purpose.
pub fn philox_key(seed: u64, purpose: Purpose) -> [u32; 2] {
    [seed as u32, (seed >> 32) as u32 ^ (purpose as u32).wrapping_mul(0x85EB_CA6B)]
}

/// Returns a number in [0, 1) with 24 random bits, the same in shaders and on the host.
pub fn unit_f32(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// Returns the 32-bit FNV-1a hash of a name: the stream id of a node.
pub fn stream_id(name: &str) -> u32 {
    name.bytes().fold(0x811C_9DC5, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193))
}

/// A sequence of random numbers from one key and stream.
///
/// ```
/// use hubel::tensor::{Philox, Purpose};
/// let mut a = Philox::new(1, Purpose::Test, 0);
/// let mut b = Philox::new(1, Purpose::Test, 0);
/// assert_eq!(a.next_u32(), b.next_u32());
/// ```
#[derive(Debug, Clone)]
pub struct Philox {
    key: [u32; 2],
    stream: u32,
    block: u64,
    words: [u32; 4],
    used: usize,
}

impl Philox {
    /// Returns the sequence of a seed, a purpose and a stream number.
    pub fn new(seed: u64, purpose: Purpose, stream: u32) -> Self {
        Philox { key: philox_key(seed, purpose), stream, block: 0, words: [0; 4], used: 4 }
    }

    /// Returns the next 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            self.words = philox4x32(self.key, [self.block as u32, (self.block >> 32) as u32, self.stream, 0]);
            self.block += 1;
            self.used = 0;
        }
        self.used += 1;
        self.words[self.used - 1]
    }

    /// Returns a number in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (f64::from(self.next_u32()) + f64::from(self.next_u32()) / 4_294_967_296.0) / 4_294_967_296.0
    }

    /// Returns a number in [low, high).
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Returns a normal number with mean 0 and standard deviation 1 (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Returns an integer in `0..n` (0 for `n` = 0).
    pub fn below(&mut self, n: usize) -> usize {
        ((u64::from(self.next_u32()) * n as u64) >> 32) as usize
    }

    /// Returns one of the items; the slice must not be empty.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// Returns `0..n` in random order.
    pub fn permutation(&mut self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_vectors_of_its_authors() {
        assert_eq!(philox4x32([0; 2], [0; 4]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox4x32([!0; 2], [!0; 4]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox4x32([0xa409_3822, 0x299f_31d0], [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }
}
