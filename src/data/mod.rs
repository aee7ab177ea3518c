//! Data sets, pictures of digits, and pictures of results.

#[cfg(feature = "plots")]
pub(crate) mod diagram;
#[cfg(feature = "images")]
mod digit;
mod mnist;
#[cfg(feature = "plots")]
pub mod picture;

#[cfg(feature = "images")]
pub use digit::prepare;
pub use mnist::{Mnist, mnist};

use crate::io::{Flaw, FormatError};
use crate::tensor::{Data, HostTensor, Philox, Purpose, TensorError};

/// Samples with labels; a picture's value on use is `x · scale + offset`.
///
/// Pictures of bytes stay bytes, on the device too.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// Pictures, u8 or f32 (n, h, w, c).
    pub images: HostTensor,
    /// Class indices, u8 or u32 (n).
    pub labels: HostTensor,
    /// What stored values are multiplied with.
    pub scale: f32,
    /// What is added then.
    pub offset: f32,
    /// Names of the classes; empty where they have none.
    pub classes: Vec<String>,
}

impl Dataset {
    /// Returns a data set whose values are used as they are stored, or an error where pictures are
    /// not (n, h, w, c) of u8 or f32, or labels not (n) of u8 or u32.
    pub fn new(images: HostTensor, labels: HostTensor) -> Result<Self, FormatError> {
        let wrong = |what: &str, wanted: &str, t: &HostTensor| {
            let got = format!("{} {:?}", t.dtype(), t.shape());
            Err(FormatError::new(Flaw::Contradiction, what, wanted, got))
        };
        if images.shape().len() != 4 || !matches!(images.data(), Data::U8(_) | Data::F32(_)) {
            return wrong("the pictures", "u8 or f32 (n, h, w, c)", &images);
        }
        if labels.shape() != &images.shape()[..1] || !matches!(labels.data(), Data::U8(_) | Data::U32(_)) {
            return wrong("the labels", &format!("u8 or u32 ({})", images.shape()[0]), &labels);
        }
        Ok(Dataset { images, labels, scale: 1.0, offset: 0.0, classes: Vec::new() })
    }

    /// Returns the number of samples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Returns whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns height, width and channels of the pictures.
    pub fn sample_shape(&self) -> [usize; 3] {
        match *self.images.shape() {
            [_, h, w, c] => [h, w, c],
            _ => [0; 3],
        }
    }

    /// Returns the first `n` samples, or all where there are fewer.
    pub fn take(&self, n: usize) -> Dataset {
        self.range(0, n.min(self.len()))
    }

    /// Returns samples to train on and, of all in their order, the last `share` to validate on (as
    /// Keras's `validation_split`).
    pub fn split(&self, share: f64) -> (Dataset, Dataset) {
        let n = (self.len() as f64 * (1.0 - share.clamp(0.0, 1.0))).floor() as usize;
        (self.range(0, n), self.range(n, self.len() - n))
    }

    fn range(&self, start: usize, n: usize) -> Dataset {
        let cut = |t: &HostTensor| t.rows(start, n).unwrap_or_else(|| t.clone());
        self.with(cut(&self.images), cut(&self.labels))
    }

    fn with(&self, images: HostTensor, labels: HostTensor) -> Dataset {
        Dataset { images, labels, scale: self.scale, offset: self.offset, classes: self.classes.clone() }
    }

    /// Returns the data set with `p` stored zeros around each picture.
    pub fn pad(&self, p: usize) -> Result<Dataset, TensorError> {
        let [h, w, c] = self.sample_shape();
        let shape = [self.len(), h + 2 * p, w + 2 * p, c];
        fn padded<T: Copy + Default>(v: &[T], [n, ho, wo, c]: [usize; 4], p: usize) -> Vec<T> {
            let (h, row) = (ho - 2 * p, (wo - 2 * p) * c);
            let mut out = vec![T::default(); n * ho * wo * c];
            for (i, from) in v.chunks_exact(row.max(1)).enumerate() {
                let at = ((i / h * ho + i % h + p) * wo + p) * c;
                out[at..at + row].copy_from_slice(from);
            }
            out
        }
        let images = match self.images.data() {
            Data::U8(v) => HostTensor::u8(shape, padded(v, shape, p)),
            _ => HostTensor::f32(shape, padded(&self.images.to_f32(), shape, p)),
        }?;
        Ok(self.with(images, self.labels.clone()))
    }

    /// Returns the data set with values `(x · scale + offset − mean) / deviation` on use.
    pub fn standardize(mut self, mean: f32, deviation: f32) -> Dataset {
        self.scale /= deviation;
        self.offset = (self.offset - mean) / deviation;
        self
    }

    /// Returns the pictures of these samples as they are used, f32 (indices, h, w, c), or an error
    /// where an index is not below the number of samples.
    pub fn rows(&self, indices: &[u32]) -> Result<HostTensor, FormatError> {
        let [h, w, c] = self.sample_shape();
        let row = h * w * c;
        let mut out = Vec::with_capacity(indices.len() * row);
        for &i in indices {
            let range = self.checked(i)? * row..(i as usize + 1) * row;
            match self.images.data() {
                Data::U8(v) => out.extend(v[range].iter().map(|&x| f32::from(x) * self.scale + self.offset)),
                Data::F32(v) => out.extend(v[range].iter().map(|&x| x * self.scale + self.offset)),
                _ => out.extend(self.images.to_f32()[range].iter().map(|&x| x * self.scale + self.offset)),
            }
        }
        HostTensor::f32([indices.len(), h, w, c], out)
            .map_err(|e| FormatError::new(Flaw::Contradiction, "the pictures", "as many values as their shape has", e))
    }

    /// Returns the classes of these samples, u32 (indices), or an error as [`Dataset::rows`] does.
    pub fn classes_of(&self, indices: &[u32]) -> Result<HostTensor, FormatError> {
        let class = |i: usize| match self.labels.data() {
            Data::U8(v) => u32::from(v[i]),
            Data::U32(v) => v[i],
            _ => self.labels.to_f32()[i] as u32,
        };
        let classes = indices.iter().map(|&i| self.checked(i).map(class)).collect::<Result<Vec<_>, _>>()?;
        HostTensor::u32([classes.len()], classes)
            .map_err(|e| FormatError::new(Flaw::Contradiction, "the labels", "one each", e))
    }

    fn checked(&self, index: u32) -> Result<usize, FormatError> {
        let i = index as usize;
        if i < self.len() {
            return Ok(i);
        }
        let wanted = format!("an index below {}", self.len());
        Err(FormatError::new(Flaw::Contradiction, "a sample's index", wanted, index))
    }
}

/// Returns the order of `n` samples in an epoch: a permutation that depends on seed and epoch alone.
///
/// ```
/// use hubel::data::shuffled;
/// assert_eq!(shuffled(1, 0, 100), shuffled(1, 0, 100));
/// assert_ne!(shuffled(1, 0, 100), shuffled(1, 1, 100));
/// ```
pub fn shuffled(seed: u64, epoch: u32, n: usize) -> Vec<u32> {
    Philox::new(seed, Purpose::Shuffle, epoch).permutation(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny() -> Dataset {
        let images = HostTensor::u8([3, 2, 2, 1], (0..12).collect()).unwrap();
        Dataset::new(images, HostTensor::u8([3], vec![2, 0, 1]).unwrap()).unwrap()
    }

    #[test]
    fn values_are_scaled_on_use_and_padding_is_zero() {
        let mut d = tiny();
        d.scale = 0.5;
        let d = d.standardize(1.0, 2.0);
        assert_eq!(d.rows(&[2, 0]).unwrap().to_f32(), [1.5, 1.75, 2.0, 2.25, -0.5, -0.25, 0.0, 0.25]);
        assert_eq!(d.classes_of(&[2, 0]).unwrap().to_f32(), [1.0, 2.0]);
        assert!(d.rows(&[3]).is_err() && d.classes_of(&[3]).is_err());
        let p = d.pad(1).unwrap();
        assert_eq!(p.images.shape(), [3, 4, 4, 1]);
        assert_eq!(p.images.bytes()[16..32], [0, 0, 0, 0, 0, 4, 5, 0, 0, 6, 7, 0, 0, 0, 0, 0]);
        assert_eq!(p.rows(&[1]).unwrap().to_f32()[5], d.rows(&[1]).unwrap().to_f32()[0]);
    }

    #[test]
    fn parts_keep_their_order() {
        let d = tiny();
        let (train, validation) = d.split(0.34);
        assert_eq!((train.labels.bytes(), validation.labels.bytes()), (&[2][..], &[0, 1][..]));
        assert_eq!(d.take(2).images.bytes(), &(0..8).collect::<Vec<u8>>()[..]);
        assert_eq!(d.take(9), d);
        assert!(d.take(0).is_empty());
    }

    #[test]
    fn an_order_is_a_permutation() {
        let mut order = shuffled(7, 3, 1000);
        assert_ne!(order, shuffled(8, 3, 1000));
        order.sort_unstable();
        assert!(order.iter().enumerate().all(|(i, &x)| i == x as usize));
    }

    #[test]
    fn contradicting_tensors_are_refused() {
        let images = HostTensor::u8([3, 2, 2, 1], vec![0; 12]).unwrap();
        assert!(Dataset::new(images.clone(), HostTensor::u8([2], vec![0; 2]).unwrap()).is_err());
        assert!(Dataset::new(images.reshape([3, 4]).unwrap(), HostTensor::u8([3], vec![0; 3]).unwrap()).is_err());
    }
}
