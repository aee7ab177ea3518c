//! Data sets, folders of images, and drawings of results.
//!
//! **In**: files and host tensors. **Out**: a [`Dataset`] for [`Trainer`](crate::train::Trainer): images or other samples and as many
//! labels, with classes and weights.
//!
//! - [`mnist()`] reads the digits, `ImageFolder` (feature `images`) a folder for each class, into memory or as a stream.
//! - `preprocess` and `prepare` convert single images to a network's size, `plots` (feature `plots`) draws curves, maps and confusion
//!   matrices.
//!
//! Invariants: there are as many labels as samples; the order of an epoch is a function of seed and epoch ([`shuffled`]).

#[cfg(feature = "images")]
mod digit;
#[cfg(feature = "images")]
mod files;
#[cfg(feature = "images")]
mod folder;
mod mnist;
#[cfg(feature = "plots")]
pub mod plots;
#[cfg(feature = "images")]
pub mod preprocess;

#[cfg(feature = "images")]
pub use digit::prepare;
#[cfg(feature = "images")]
pub use files::{ColorMode, Files};
#[cfg(feature = "images")]
pub use folder::{DATASET_CAP_BYTES, ImageFolder, Images, Subset};
pub use mnist::{Mnist, mnist};

use crate::io::{Flaw, FormatError, checked_bytes, npy::FILE_CAP_BYTES};
use crate::tensor::{Data, HostTensor, Philox, Purpose};

/// Samples with labels. A stored value x is used as `x · scale + offset`.
///
/// Bytes stay bytes, on the device too.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// Samples, u8 or f32 (n, …): images (n, h, w, c), sequences (n, timesteps, features), vectors (n, features).
    pub images: HostTensor,
    /// Class indices, u8 or u32, one for each sample (n) or for each position (n, …) as in masks; or the target
    /// outputs, f32 (n, …), for which integers are accepted too, such as 0 and 1.
    pub labels: HostTensor,
    /// Labels of a model's further outputs, each in one of these forms.
    pub more_labels: Vec<HostTensor>,
    /// The factor on stored values.
    pub scale: f32,
    /// The number added after scaling.
    pub offset: f32,
    /// Names of the classes; empty without names.
    pub classes: Vec<String>,
    /// The factor on each sample's loss, f32 (n), if samples are weighted (Keras `sample_weight`).
    pub weights: Option<HostTensor>,
    /// Images that are decoded on demand, instead of `images`, which then has no rows.
    #[cfg(feature = "images")]
    pub files: Option<Files>,
}

impl Dataset {
    /// Returns a data set whose values are used as stored, or an error unless samples are (n, …) of u8 or f32, and
    /// labels (n, …) of u8, u32, f32, or i32 of at least 0.
    ///
    /// From NumPy's arrays: `Dataset::new(npy::open("x.npy")?, npy::open("y.npy")?)?`.
    pub fn new(images: HostTensor, labels: HostTensor) -> Result<Self, FormatError> {
        let wrong = |what: &str, wanted: &str, t: &HostTensor| {
            let got = format!("{} {:?}", t.dtype(), t.shape());
            Err(FormatError::new(Flaw::Contradiction, what, wanted, got))
        };
        if images.shape().len() < 2 || !matches!(images.data(), Data::U8(_) | Data::F32(_)) {
            return wrong("the samples", "u8 or f32 (n, …), images (n, h, w, c)", &images);
        }
        let labels = checked_labels(labels, images.shape()[0])?;
        Ok(Self::of(images, labels))
    }

    /// Returns a data set of samples, or none if they are in files, and their labels.
    pub(crate) fn of(images: HostTensor, labels: HostTensor) -> Self {
        Dataset {
            images,
            labels,
            more_labels: Vec::new(),
            scale: 1.0,
            offset: 0.0,
            classes: Vec::new(),
            weights: None,
            #[cfg(feature = "images")]
            files: None,
        }
    }

    /// Returns the number of samples.
    pub fn len(&self) -> usize {
        self.labels.shape().first().copied().unwrap_or(0)
    }

    /// Returns whether the data set is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the shape of a sample.
    pub fn sample_shape(&self) -> &[usize] {
        self.images.shape().get(1..).unwrap_or_default()
    }

    /// Adds labels for a model's next output, or returns an error unless there is one for each sample.
    ///
    /// ```
    /// use hubel::prelude::*;
    /// let x = HostTensor::f32([2, 1], vec![0.5, 1.5])?;
    /// let data = Dataset::new(x, HostTensor::u8([2], vec![0, 1])?)?.and_labels(HostTensor::f32([2, 1], vec![0.1, 0.9])?)?;
    /// assert_eq!(data.more_labels.len(), 1);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn and_labels(mut self, labels: HostTensor) -> Result<Dataset, FormatError> {
        self.more_labels.push(checked_labels(labels, self.len())?);
        Ok(self)
    }

    /// Returns the labels of each of a model's outputs.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &HostTensor> {
        [&self.labels].into_iter().chain(&self.more_labels)
    }

    /// Returns whether labels are integers, one for each sample: its class.
    pub fn has_classes(&self) -> bool {
        are_classes(&self.labels) && self.labels.shape().len() == 1
    }

    /// Converts labels by [`to_categorical`], for categorical cross-entropy, with as many classes as have names, or,
    /// without names, one more than the largest label.
    ///
    /// ```
    /// use hubel::prelude::*;
    /// let x = HostTensor::f32([3, 1], vec![0.5, 1.5, 2.5])?;
    /// let data = Dataset::new(x, HostTensor::u8([3], vec![2, 0, 1])?)?.to_categorical()?;
    /// assert_eq!(data.labels, HostTensor::f32([3, 3], vec![0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0])?);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn to_categorical(self) -> Result<Dataset, FormatError> {
        let classes = match (self.classes.len(), self.labels.data()) {
            (0, Data::U8(v)) => v.iter().max().map_or(0, |&x| usize::from(x) + 1),
            (0, Data::U32(v)) => v.iter().max().map_or(0, |&x| x as usize + 1),
            (n, _) => n,
        };
        Ok(Dataset { labels: to_categorical(&self.labels, classes)?, ..self })
    }

    /// Reorders the classes by name and renumbers the labels, or returns an error if labels are not class indices, if
    /// classes have no names, or if one of them is not listed. Further names are allowed, so that validation data can
    /// match training data with more classes.
    ///
    /// ```
    /// use hubel::prelude::*;
    /// let mut data = Dataset::new(HostTensor::f32([2, 1], vec![0.5, 1.5])?, HostTensor::u8([2], vec![0, 1])?)?;
    /// data.classes = vec!["cat".into(), "fox".into()];
    /// let data = data.class_names(&["cat", "dog", "fox"])?;
    /// assert_eq!(data.labels, HostTensor::u32([2], vec![0, 2])?);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn class_names(self, names: &[impl AsRef<str>]) -> Result<Dataset, FormatError> {
        let wrong = |wanted: &str, got: String| FormatError::new(Flaw::Contradiction, "the class names", wanted, got);
        let all: Vec<String> = names.iter().map(|name| name.as_ref().to_owned()).collect();
        if !are_classes(&self.labels) || self.classes.is_empty() {
            let got = format!("{} labels and {} names", self.labels.dtype(), self.classes.len());
            return Err(wrong("labels that are class indices, and names of the classes", got));
        }
        let place = |name: &String| all.iter().position(|n| n == name).ok_or_else(|| name.clone());
        let places = self.classes.iter().map(place).collect::<Result<Vec<_>, _>>();
        let places = places.map_err(|name| wrong(&format!("names among {}", all.join(", ")), format!("`{name}`")))?;
        let renamed = |label: f32| match places.get(label as usize) {
            Some(&place) => Ok(place as u32),
            None => Err(wrong("a name for each label", format!("none for label {label}"))),
        };
        let labels = self.labels.to_f32().into_iter().map(renamed).collect::<Result<_, _>>()?;
        let labels = HostTensor::u32(self.labels.shape(), labels)
            .map_err(|e| FormatError::new(Flaw::Contradiction, "the labels", "as many as their shape has", e))?;
        Ok(Dataset { labels, classes: all, ..self })
    }

    /// Returns the first `n` samples, or all if there are fewer.
    pub fn take(&self, n: usize) -> Dataset {
        self.range(0, n.min(self.len()))
    }

    /// Splits off the last `share` of the samples for validation, in their order (Keras `validation_split`), or returns
    /// an error unless it is from 0 to 1.
    pub fn split(&self, share: f64) -> Result<(Dataset, Dataset), FormatError> {
        if !(0.0..=1.0).contains(&share) {
            return Err(FormatError::new(
                Flaw::Contradiction,
                "the share to validate on",
                "a number from 0 to 1",
                share,
            ));
        }
        let n = (self.len() as f64 * (1.0 - share)).floor() as usize;
        Ok((self.range(0, n), self.range(n, self.len() - n)))
    }

    fn range(&self, start: usize, n: usize) -> Dataset {
        let cut = |t: &HostTensor| t.rows(start, n).unwrap_or_else(|| t.clone());
        let (weights, more_labels) = (self.weights.as_ref().map(cut), self.more_labels.iter().map(cut).collect());
        Dataset {
            weights,
            more_labels,
            #[cfg(feature = "images")]
            files: self.files.as_ref().map(|files| files.range(start, n)),
            ..self.with(cut(&self.images), cut(&self.labels))
        }
    }

    /// Returns whether samples are in memory, not decoded on demand.
    pub(crate) fn in_memory(&self) -> bool {
        self.images.shape().first() == Some(&self.len())
    }

    fn with(&self, images: HostTensor, labels: HostTensor) -> Dataset {
        Dataset {
            more_labels: self.more_labels.clone(),
            scale: self.scale,
            offset: self.offset,
            classes: self.classes.clone(),
            weights: self.weights.clone(),
            ..Self::of(images, labels)
        }
    }

    /// Sets the weight of each sample (Keras `sample_weight`), or returns an error unless there is a number of at least
    /// 0 for each.
    ///
    /// The loss is the sum of the weighted losses over the number of samples; metrics are not weighted.
    ///
    /// ```
    /// use hubel::prelude::*;
    /// let x = HostTensor::f32([2, 1], vec![0.5, 1.5])?;
    /// let data = Dataset::new(x, HostTensor::u8([2], vec![0, 1])?)?.sample_weights(vec![1.0, 3.0])?;
    /// assert!(data.clone().sample_weights(vec![1.0]).is_err());
    /// assert_eq!(data.class_weights(&[1.0, 0.5])?.weights.map(|w| w.to_f32()), Some(vec![1.0, 1.5]));
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn sample_weights(mut self, weights: Vec<f32>) -> Result<Dataset, FormatError> {
        let n = weights.len();
        self.weights = HostTensor::f32([n], weights).ok();
        self.check_weights()?;
        Ok(self)
    }

    /// Returns an error if there are weights, but not a finite one of at least 0 for each sample.
    pub(crate) fn check_weights(&self) -> Result<(), FormatError> {
        let Some(weights) = &self.weights else { return Ok(()) };
        let wrong = |got: String| {
            let wanted = format!("{} finite numbers of at least 0", self.len());
            Err(FormatError::new(Flaw::Contradiction, "the samples' weights", wanted, got))
        };
        match weights.data() {
            Data::F32(all) if weights.shape() == [self.len()] => {
                let bad = all.iter().find(|w| !(**w >= 0.0 && w.is_finite()));
                bad.map_or(Ok(()), |bad| wrong(bad.to_string()))
            }
            _ => wrong(format!("{} {:?}", weights.dtype(), weights.shape())),
        }
    }

    /// Multiplies the weight of each sample by that of its class (Keras `class_weight`), or returns an error if labels
    /// are not class indices or a class has no weight.
    pub fn class_weights(self, of_class: &[f32]) -> Result<Dataset, FormatError> {
        let wrong =
            |wanted: &str, got: String| FormatError::new(Flaw::Contradiction, "the classes' weights", wanted, got);
        if !self.has_classes() {
            let got = format!("{} {:?}", self.labels.dtype(), self.labels.shape());
            return Err(wrong("labels that are class indices (n)", got));
        }
        let mut weights = self.weights.as_ref().map_or_else(|| vec![1.0; self.len()], HostTensor::to_f32);
        for (weight, label) in weights.iter_mut().zip(self.labels.to_f32()) {
            let own = of_class.get(label as usize);
            *weight *= own.ok_or_else(|| wrong("a weight for each class", format!("none for class {label}")))?;
        }
        self.sample_weights(weights)
    }

    /// Pads each image with `p` stored zeros on every side; other samples are unchanged. It is an error if the images
    /// are not in memory or would exceed 16 GiB.
    pub fn pad(&self, p: usize) -> Result<Dataset, FormatError> {
        let &[h, w, c] = self.sample_shape() else { return Ok(self.clone()) };
        let wider = |side: usize| side.saturating_add(p.saturating_mul(2));
        let shape = [self.len(), wider(h), wider(w), c];
        let width = self.images.dtype().bytes() as u64;
        checked_bytes("the padded images", &shape.map(|d| d as u64), width, FILE_CAP_BYTES)?;
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
        };
        let images = images.map_err(|e| FormatError::new(Flaw::Contradiction, "the padded images", "pixels", e))?;
        Ok(self.with(images, self.labels.clone()))
    }

    /// Normalises values to `(x · scale + offset − mean) / deviation` on use.
    pub fn standardize(mut self, mean: f32, deviation: f32) -> Dataset {
        self.scale /= deviation;
        self.offset = (self.offset - mean) / deviation;
        self
    }

    /// Returns these samples as used, f32 (indices, …), or an error if an index is out of range.
    pub fn rows(&self, indices: &[u32]) -> Result<HostTensor, FormatError> {
        let row: usize = self.sample_shape().iter().product();
        let used = |x: f32| x * self.scale + self.offset;
        let at = indices.iter().map(|&i| self.checked(i)).collect::<Result<Vec<_>, _>>()?;
        let mut out = Vec::with_capacity(indices.len() * row);
        if self.in_memory() {
            for range in at.into_iter().map(|i| i * row..(i + 1) * row) {
                match self.images.data() {
                    Data::U8(v) => out.extend(v[range].iter().map(|&x| used(x.into()))),
                    Data::F32(v) => out.extend(v[range].iter().map(|&x| used(x))),
                    _ => out.extend(self.images.to_f32()[range].iter().map(|&x| used(x))),
                }
            }
        } else {
            out.extend(self.decoded_rows(indices)?.bytes().iter().map(|&x| used(x.into())));
        }
        let shape: Vec<usize> = [indices.len()].into_iter().chain(self.sample_shape().iter().copied()).collect();
        HostTensor::f32(shape, out)
            .map_err(|e| FormatError::new(Flaw::Contradiction, "the samples", "as many values as their shape has", e))
    }

    /// Returns the labels of these samples, u32 (indices) or f32 (indices, …), with the errors of [`Dataset::rows`].
    pub fn labels_of(&self, indices: &[u32]) -> Result<HostTensor, FormatError> {
        self.part_of(&self.labels, indices)
    }

    /// Returns the labels of an output for these samples.
    pub(crate) fn part_of(&self, labels: &HostTensor, indices: &[u32]) -> Result<HostTensor, FormatError> {
        let shape: Vec<usize> = [indices.len()].into_iter().chain(labels.shape()[1..].iter().copied()).collect();
        let row: usize = shape[1..].iter().product();
        let at = indices.iter().map(|&i| self.checked(i)).collect::<Result<Vec<_>, _>>()?;
        let part = match labels.data() {
            Data::U8(v) => HostTensor::u32(shape, taken(&at, row).map(|i| u32::from(v[i])).collect()),
            Data::U32(v) => HostTensor::u32(shape, taken(&at, row).map(|i| v[i]).collect()),
            Data::F32(v) => HostTensor::f32(shape, taken(&at, row).map(|i| v[i]).collect()),
            _ => HostTensor::f32(shape, vec![0.0; at.len() * row]),
        };
        part.map_err(|e| FormatError::new(Flaw::Contradiction, "the labels", "as many values as their shape has", e))
    }

    /// Returns the data set of these samples, in this order, with values as used, and the errors of [`Dataset::rows`].
    ///
    /// ```
    /// use hubel::prelude::*;
    /// let x = HostTensor::u8([3, 1], vec![0, 51, 255])?;
    /// let data = Dataset::new(x, HostTensor::u8([3], vec![0, 1, 2])?)?;
    /// assert_eq!(data.select(&[2, 0])?.labels, HostTensor::u32([2], vec![2, 0])?);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn select(&self, indices: &[u32]) -> Result<Dataset, FormatError> {
        let wrong = |e| FormatError::new(Flaw::Contradiction, "the weights", "one for each sample", e);
        let weights = self.weights_of(indices).map(|w| HostTensor::f32([indices.len()], w)).transpose();
        let (images, labels) = (self.rows(indices)?, self.labels_of(indices)?);
        let weights = weights.map_err(wrong)?;
        let more_labels = self.more_labels.iter().map(|l| self.part_of(l, indices)).collect::<Result<_, _>>()?;
        Ok(Dataset { weights, more_labels, scale: 1.0, offset: 0.0, ..self.with(images, labels) })
    }

    /// Returns the weights of these samples, if samples are weighted.
    pub(crate) fn weights_of(&self, indices: &[u32]) -> Option<Vec<f32>> {
        let Data::F32(all) = self.weights.as_ref()?.data() else { return None };
        Some(indices.iter().map(|&i| all.get(i as usize).copied().unwrap_or(1.0)).collect())
    }

    /// Returns an error unless these are numbers of samples.
    pub(crate) fn check_rows(&self, indices: &[u32]) -> Result<(), FormatError> {
        indices.iter().try_for_each(|&i| self.checked(i).map(drop))
    }

    /// Returns samples that are decoded on demand, as stored.
    pub(crate) fn decoded_rows(&self, indices: &[u32]) -> Result<HostTensor, FormatError> {
        let shape: Vec<usize> = [indices.len()].into_iter().chain(self.sample_shape().iter().copied()).collect();
        let bytes = Vec::new();
        #[cfg(feature = "images")]
        let bytes = self.files.as_ref().map_or(Ok(bytes), |files| files.read(indices))?;
        HostTensor::u8(shape, bytes)
            .map_err(|e| FormatError::new(Flaw::Contradiction, "the samples", "as many values as their shape has", e))
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

/// Returns the index ranges of the rows' elements.
fn taken(rows: &[usize], row: usize) -> impl Iterator<Item = usize> {
    rows.iter().flat_map(move |&i| i * row..(i + 1) * row)
}

/// Returns whether labels are integers.
pub(crate) fn are_classes(labels: &HostTensor) -> bool {
    !matches!(labels.data(), Data::F32(_))
}

/// Returns labels in the form that data sets store, or an error unless there is one for each of `n` samples.
fn checked_labels(labels: HostTensor, n: usize) -> Result<HostTensor, FormatError> {
    let labels = match labels.data() {
        Data::I32(v) => {
            let index = |x: &i32| {
                let wanted = "integers of at least 0";
                u32::try_from(*x).map_err(|_| FormatError::new(Flaw::Contradiction, "the labels", wanted, x))
            };
            HostTensor::u32(labels.shape(), v.iter().map(index).collect::<Result<_, _>>()?)
        }
        _ => Ok(labels),
    };
    let labels = match labels {
        Ok(labels) if are_classes(&labels) && labels.shape() == [n, 1] => labels.reshape([n]),
        labels => labels,
    };
    let labels = labels.map_err(|e| FormatError::new(Flaw::Contradiction, "the labels", "one for each sample", e))?;
    let known = matches!(labels.data(), Data::U8(_) | Data::U32(_) | Data::F32(_));
    if !known || labels.shape().first() != Some(&n) {
        let (wanted, got) =
            (format!("u8, u32, i32 or f32 ({n}, …)"), format!("{} {:?}", labels.dtype(), labels.shape()));
        return Err(FormatError::new(Flaw::Contradiction, "the labels", wanted, got));
    }
    Ok(labels)
}

/// Returns one-hot labels, f32 (…, classes), from labels (…) or (…, 1) of u8, u32 or i32 (Keras `to_categorical`), or
/// an error if a label is not the index of a class.
///
/// ```
/// use hubel::{data::to_categorical, prelude::*};
/// let labels = HostTensor::u8([2], vec![2, 0])?;
/// assert_eq!(to_categorical(&labels, 3)?, HostTensor::f32([2, 3], vec![0.0, 0.0, 1.0, 1.0, 0.0, 0.0])?);
/// assert!(to_categorical(&labels, 2).is_err());
/// # Ok::<(), hubel::Error>(())
/// ```
pub fn to_categorical(labels: &HostTensor, classes: usize) -> Result<HostTensor, FormatError> {
    let wrong = |got: String| {
        let wanted = format!("class indices from 0 to below {classes}, u8, u32 or i32");
        FormatError::new(Flaw::Contradiction, "the labels", wanted, got)
    };
    let indices: Vec<i64> = match labels.data() {
        Data::U8(v) => v.iter().map(|&x| x.into()).collect(),
        Data::U32(v) => v.iter().map(|&x| x.into()).collect(),
        Data::I32(v) => v.iter().map(|&x| x.into()).collect(),
        _ => return Err(wrong(labels.dtype().to_string())),
    };
    checked_bytes("the labels", &[indices.len() as u64, classes as u64], 4, FILE_CAP_BYTES)?;
    let mut out = vec![0.0; indices.len() * classes];
    for (i, &label) in indices.iter().enumerate() {
        let class = usize::try_from(label).ok().filter(|&c| c < classes);
        out[i * classes + class.ok_or_else(|| wrong(format!("{label} for sample {i}")))?] = 1.0;
    }
    let shape = match labels.shape() {
        [rest @ .., 1] if !rest.is_empty() => rest,
        shape => shape,
    };
    HostTensor::f32([shape, &[classes]].concat(), out)
        .map_err(|e| FormatError::new(Flaw::Contradiction, "the labels", "as many as their shape has", e))
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
        assert_eq!(d.labels_of(&[2, 0]).unwrap().to_f32(), [1.0, 2.0]);
        assert!(d.rows(&[3]).is_err() && d.labels_of(&[3]).is_err());
        let p = d.pad(1).unwrap();
        assert_eq!(p.images.shape(), [3, 4, 4, 1]);
        assert_eq!(p.images.bytes()[16..32], [0, 0, 0, 0, 0, 4, 5, 0, 0, 6, 7, 0, 0, 0, 0, 0]);
        assert_eq!(p.rows(&[1]).unwrap().to_f32()[5], d.rows(&[1]).unwrap().to_f32()[0]);
    }

    #[test]
    fn parts_keep_their_order() {
        let d = tiny();
        let (train, validation) = d.split(0.34).unwrap();
        assert!([f64::NAN, -0.1, 1.1].iter().all(|share| d.split(*share).is_err()));
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
    fn integers_are_labels_and_become_categories() {
        let new = |labels| Dataset::new(tiny().images, labels);
        let d = new(HostTensor::i32([3, 1], vec![2, 0, 1]).unwrap()).unwrap();
        assert_eq!(d.labels, HostTensor::u32([3], vec![2, 0, 1]).unwrap());
        assert_eq!(new(HostTensor::u8([3, 1], vec![2, 0, 1]).unwrap()).unwrap(), tiny());
        assert_eq!(new(HostTensor::i32([3], vec![2, 0, -1]).unwrap()).unwrap_err().got, "-1");
        let mask = new(HostTensor::i32([3, 2], vec![0, 1, 2, 3, 4, 5]).unwrap()).unwrap();
        assert!(!mask.has_classes() && mask.clone().class_weights(&[1.0; 6]).is_err());
        assert_eq!(mask.labels_of(&[2, 0]).unwrap(), HostTensor::u32([2, 2], vec![4, 5, 0, 1]).unwrap());
        assert_eq!(mask.take(1).labels, HostTensor::u32([1, 2], vec![0, 1]).unwrap());
        assert!(new(HostTensor::i32([2, 3], vec![0; 6]).unwrap()).is_err());
        let hot = vec![0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0];
        assert_eq!(d.clone().to_categorical().unwrap().labels, HostTensor::f32([3, 3], hot).unwrap());
        let named = |n: usize| Dataset { classes: vec!["x".into(); n], ..d.clone() }.to_categorical();
        assert_eq!(named(5).unwrap().labels.shape(), [3, 5]);
        let e = named(2).unwrap_err();
        assert!(e.flaw == Flaw::Contradiction && e.got == "2 for sample 0", "{e}");
        assert!(named(5).unwrap().to_categorical().is_err());
        let of = |labels: HostTensor| to_categorical(&labels, 2);
        assert!(of(HostTensor::i32([1], vec![-1]).unwrap()).is_err());
        assert_eq!(of(HostTensor::i32([2, 2, 1], vec![0, 1, 1, 0]).unwrap()).unwrap().shape(), [2, 2, 2]);
        assert_eq!(of(HostTensor::i32([1], vec![1]).unwrap()).unwrap().to_f32(), [0.0, 1.0]);
        let huge = to_categorical(&tiny().labels, usize::MAX).unwrap_err();
        assert!(matches!(huge.flaw, Flaw::Overflow | Flaw::TooLarge), "{huge}");
    }

    #[test]
    fn contradicting_tensors_are_refused() {
        let images = HostTensor::u8([3, 2, 2, 1], vec![0; 12]).unwrap();
        assert!(Dataset::new(images.clone(), HostTensor::u8([2], vec![0; 2]).unwrap()).is_err());
        assert!(Dataset::new(images.clone(), HostTensor::f32([2, 1], vec![0.0; 2]).unwrap()).is_err());
        assert!(Dataset::new(images.reshape([12]).unwrap(), HostTensor::u8([12], vec![0; 12]).unwrap()).is_err());
    }
}
