use std::fmt;

/// Stands for the batch axis in a shape: `[Batch, 28, 28, 1]`.
///
/// Only the outermost axis may be symbolic. The type of the same name, [`struct@Batch`], is the number of samples that
/// a plan is built for.
#[allow(non_upper_case_globals, reason = "named as the type that gives the size of the batch")]
pub const Batch: usize = usize::MAX;

/// The maximum number of samples in one run of a plan.
///
/// ```
/// use hubel::prelude::*;
/// assert_eq!(Batch::up_to(8).capacity, 8);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Batch {
    /// The maximum number of samples; any smaller number runs too.
    pub capacity: usize,
}

impl Batch {
    /// Returns a batch of at most `capacity` samples (at least 1).
    pub fn up_to(capacity: usize) -> Self {
        Batch { capacity: capacity.max(1) }
    }
}

/// A count that grows with the batch: `fixed + per_sample · n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Count {
    /// The part that does not depend on the batch.
    pub fixed: u64,
    /// The part that every sample adds.
    pub per_sample: u64,
}

impl Count {
    /// Returns the count for `n` samples.
    pub fn at(self, n: usize) -> u64 {
        self.fixed.saturating_add(self.per_sample.saturating_mul(n as u64))
    }

    /// Returns this count divided by `k`, which divides both parts.
    pub fn over(self, k: u64) -> Count {
        Count { fixed: self.fixed / k.max(1), per_sample: self.per_sample / k.max(1) }
    }

    /// Returns this count divided by `k`, both parts rounded up.
    pub fn div_ceil(self, k: u64) -> Count {
        Count { fixed: self.fixed.div_ceil(k.max(1)), per_sample: self.per_sample.div_ceil(k.max(1)) }
    }

    /// Returns this count times `k`.
    pub fn times(self, k: u64) -> Count {
        Count { fixed: self.fixed.saturating_mul(k), per_sample: self.per_sample.saturating_mul(k) }
    }
}

/// The extents of a tensor, outermost first, with an optional symbolic batch axis in front.
///
/// A batched first axis holds `k · n` rows: `k` is kept in `dims()[0]`, the number of samples `n` is
/// known only when a step runs.
///
/// ```
/// use hubel::prelude::*;
/// let s = Shape::from([Batch, 28, 28, 1]);
/// assert_eq!(s.to_string(), "(N, 28, 28, 1)");
/// assert_eq!(s.at(2), [2, 28, 28, 1]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shape {
    batched: bool,
    dims: Vec<usize>,
}

impl Shape {
    /// Returns the shape of one number.
    pub fn scalar() -> Self {
        Shape { batched: false, dims: Vec::new() }
    }

    /// Returns a shape without a batch axis.
    pub fn fixed(dims: impl Into<Vec<usize>>) -> Self {
        Shape { batched: false, dims: dims.into() }
    }

    /// Returns a shape whose first axis holds `rows_per_sample · n` rows of extent `rest`.
    pub fn batched(rows_per_sample: usize, rest: &[usize]) -> Self {
        let mut dims = vec![rows_per_sample];
        dims.extend_from_slice(rest);
        Shape { batched: true, dims }
    }

    /// Returns whether the first axis is the batch.
    pub fn is_batched(&self) -> bool {
        self.batched
    }

    /// Returns the number of axes.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// Returns the extents; in a batched shape the first is the number of rows per sample.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// Returns the extents for a batch of `n`.
    pub fn at(&self, n: usize) -> Vec<usize> {
        let mut dims = self.dims.clone();
        if self.batched {
            dims[0] = dims[0].saturating_mul(n);
        }
        dims
    }

    /// Returns whether a sample has at most 2³² − 1 elements, which kernels can count.
    pub fn is_countable(&self) -> bool {
        let count = self.dims.iter().try_fold(1u32, |n, &d| n.checked_mul(u32::try_from(d).ok()?));
        count.is_some() || self.dims.contains(&0)
    }

    /// Returns the number of elements.
    pub fn elements(&self) -> Count {
        let product = self.dims.iter().map(|&d| d as u64).product();
        if self.batched { Count { fixed: 0, per_sample: product } } else { Count { fixed: product, per_sample: 0 } }
    }

    /// Returns the number of rows along the last axis.
    pub fn rows(&self) -> Count {
        self.elements().over(self.last() as u64)
    }

    /// Returns the number of elements in all axes but the first (1 for a vector or a scalar).
    pub fn row(&self) -> usize {
        self.dims.iter().skip(1).product()
    }

    /// Returns the shape with the same leading axis and other inner axes.
    pub fn with_row(&self, rest: &[usize]) -> Shape {
        let mut dims = vec![self.dims.first().copied().unwrap_or(1)];
        dims.extend_from_slice(rest);
        Shape { batched: self.batched, dims }
    }

    /// Returns the same shape with so many elements along the last axis, which is not the batch.
    pub fn with_last(&self, n: usize) -> Shape {
        let mut dims = self.dims().to_vec();
        dims.last_mut().into_iter().for_each(|last| *last = n);
        if self.is_batched() { self.with_row(&dims[1..]) } else { Shape::fixed(dims) }
    }

    /// Returns the last extent (1 for a scalar).
    pub fn last(&self) -> usize {
        self.dims.last().copied().unwrap_or(1)
    }

    /// Returns the common shape of two tensors by NumPy's broadcasting, or `None` if there is none.
    pub fn broadcast(&self, other: &Shape) -> Option<Shape> {
        let rank = self.rank().max(other.rank());
        let batched = (self.batched && self.rank() == rank) || (other.batched && other.rank() == rank);
        if (self.batched && self.rank() != rank) || (other.batched && other.rank() != rank) {
            return None;
        }
        let axis = |s: &Shape, i: usize| -> (usize, bool) {
            let skip = rank - s.rank();
            if i < skip { (1, false) } else { (s.dims[i - skip], s.batched && i == skip) }
        };
        let mut dims = Vec::with_capacity(rank);
        for i in 0..rank {
            let ((a, ab), (b, bb)) = (axis(self, i), axis(other, i));
            dims.push(match (ab, bb) {
                (true, true) | (false, false) if a == b => a,
                (true, false) if b == 1 => a,
                (false, true) if a == 1 => b,
                (false, false) if a == 1 => b,
                (false, false) if b == 1 => a,
                _ => return None,
            });
        }
        Some(Shape { batched, dims })
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(")?;
        for (i, d) in self.dims.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            match (self.batched && i == 0, *d) {
                (true, 1) => f.write_str("N")?,
                (true, d) => write!(f, "{d}N")?,
                (false, d) => write!(f, "{d}")?,
            }
        }
        f.write_str(")")
    }
}

impl From<&[usize]> for Shape {
    fn from(dims: &[usize]) -> Self {
        match dims.split_first() {
            Some((&first, rest)) if first == Batch => Shape::batched(1, rest),
            _ => Shape::fixed(dims),
        }
    }
}

impl From<Vec<usize>> for Shape {
    fn from(dims: Vec<usize>) -> Self {
        Shape::from(dims.as_slice())
    }
}

impl<const R: usize> From<[usize; R]> for Shape {
    fn from(dims: [usize; R]) -> Self {
        Shape::from(dims.as_slice())
    }
}

/// Returns the row-major strides of a shape.
pub fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for i in (0..shape.len().saturating_sub(1)).rev() {
        strides[i] = strides[i + 1] * shape[i + 1];
    }
    strides
}
