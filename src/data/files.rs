//! Images in files, decoded to one size and the same channels.

use crate::io::{
    Flaw, FormatError,
    image::{self, CAP_BYTES},
    read_file,
};
use rayon::prelude::*;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// The channels of a data set's images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColorMode {
    /// One channel, colour as .299 r + .587 g + .114 b, blended with white by opacity.
    Grayscale,
    /// Red, green and blue, blended with white by opacity.
    Rgb,
    /// Red, green, blue and opacity as they are stored; 255 is opaque.
    Rgba,
}

impl ColorMode {
    /// Returns the number of channels.
    pub fn channels(self) -> usize {
        match self {
            ColorMode::Grayscale => 1,
            ColorMode::Rgb => 3,
            ColorMode::Rgba => 4,
        }
    }

    /// Returns the pixels of a PNG or JPEG file in these channels, with height and width, and any damage that does not
    /// prevent reading.
    pub(super) fn decode(self, bytes: &[u8]) -> Result<(Vec<u8>, [usize; 2], Option<FormatError>), FormatError> {
        if self == ColorMode::Rgba {
            let (image, damage) = image::decode(bytes)?;
            let image = image.into_rgba8();
            let (w, h) = image.dimensions();
            return Ok((image.into_raw(), [h as usize, w as usize], damage));
        }
        let (image, damage) = image::read_damaged(bytes)?;
        let (stored, shape) = (image.bytes(), image.shape());
        let grey = |p: &[u8]| (0.299 * f32::from(p[0]) + 0.587 * f32::from(p[1]) + 0.114 * f32::from(p[2])).round();
        let pixels = match (shape[2], self) {
            (3, ColorMode::Grayscale) => stored.chunks_exact(3).map(|p| grey(p) as u8).collect(),
            (1, ColorMode::Rgb) => stored.iter().flat_map(|&x| [x; 3]).collect(),
            _ => stored.to_vec(),
        };
        Ok((pixels, [shape[0], shape[1]], damage))
    }
}

/// How an image is fitted to another aspect ratio.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fit {
    Squeeze,
    Crop,
    Pad(u8),
}

/// Decodes files to images of one size, with the same channels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Resizer {
    pub size: [usize; 2],
    pub mode: ColorMode,
    pub fit: Fit,
}

/// Images in files that are decoded when a step takes them; see [`super::ImageFolder::stream`].
///
/// ```
/// use hubel::{data::ImageFolder, io::image, prelude::*};
///
/// let folder = temp_dir::TempDir::new().expect("a folder");
/// for class in ["cat", "dog"] {
///     std::fs::create_dir(folder.path().join(class)).expect("a folder");
///     let image = image::to_rgb(&HostTensor::u8([9, 12, 1], vec![40; 108])?)?;
///     image::save(&image, folder.path().join(class).join("0.png"))?;
/// }
/// let data = ImageFolder::new(folder.path()).image_size([8, 8]).stream(true).load()?.train;
/// assert_eq!((data.len(), data.images.shape()), (2, &[0, 8, 8, 3][..]));
/// assert_eq!(data.rows(&[1])?.shape(), [1, 8, 8, 3]);
/// # Ok::<(), hubel::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Files {
    pub(super) paths: Arc<[PathBuf]>,
    pub(super) resizer: Resizer,
}

impl Files {
    /// Returns those from `start` on, at most `n`.
    pub(super) fn range(&self, start: usize, n: usize) -> Files {
        let paths = self.paths.iter().skip(start).take(n).cloned().collect();
        Files { paths, ..self.clone() }
    }

    /// Returns the pixels of these images, or an error that names the first unreadable one.
    pub(super) fn read(&self, indices: &[u32]) -> Result<Vec<u8>, FormatError> {
        let image = self.resizer.bytes();
        let mut bytes = vec![0; indices.len() * image];
        let parts = bytes.par_chunks_exact_mut(image).zip(indices);
        parts.try_for_each(|(out, &i)| match self.paths.get(i as usize) {
            Some(path) => self.resizer.read(path, out).map(drop),
            None => Err(FormatError::new(Flaw::Contradiction, "an image's index", self.paths.len(), i)),
        })?;
        Ok(bytes)
    }
}

impl Resizer {
    /// Returns the bytes of an image in the target size.
    pub fn bytes(&self) -> usize {
        self.size[0] * self.size[1] * self.mode.channels()
    }

    /// Writes the image of a file in the target size to `out`; returns any damage that does not prevent reading.
    pub fn read(&self, path: &Path, out: &mut [u8]) -> Result<Option<FormatError>, FormatError> {
        let file = read_file(path, CAP_BYTES)?;
        let (pixels, size, damage) = self.mode.decode(&file).map_err(|e| e.of(path))?;
        self.resize(&pixels, size, out);
        Ok(damage.map(|e| e.of(path)))
    }

    /// Writes an image in the target size to `out`: half-pixel centres, the formulas of `tf.image.resize` and, for
    /// crops, of Keras's `smart_resize`.
    pub fn resize(&self, pixels: &[u8], [h, w]: [usize; 2], out: &mut [u8]) {
        let ([to_h, to_w], c) = (self.size, self.mode.channels());
        let same = [w * to_h / to_w, h * to_w / to_h];
        let ([kept_h, kept_w], fill) = match self.fit {
            Fit::Squeeze => ([h, w], 0),
            Fit::Crop => ([same[0].clamp(1, h), same[1].clamp(1, w)], 0),
            Fit::Pad(fill) => ([same[0].max(h), same[1].max(w)], fill),
        };
        let (rows, columns) = (taps(kept_h, to_h), taps(kept_w, to_w));
        let place = |at: usize, kept: usize, all: usize| {
            (at + all.saturating_sub(kept) / 2).checked_sub(kept.saturating_sub(all) / 2).filter(|&at| at < all)
        };
        for (line, &(y0, y1, ty)) in out.chunks_exact_mut(to_w * c).zip(&rows) {
            let row = |y| place(y, kept_h, h).map(|y| &pixels[y * w * c..][..w * c]);
            let (upper, lower) = (row(y0), row(y1));
            for (pixel, &(x0, x1, tx)) in line.chunks_exact_mut(c).zip(&columns) {
                let [x0, x1] = [x0, x1].map(|x| place(x, kept_w, w));
                for (k, value) in pixel.iter_mut().enumerate() {
                    let at = |row: Option<&[u8]>, x| f32::from(row.zip(x).map_or(fill, |(row, x)| row[x * c + k]));
                    let between = |row| at(row, x0) + (at(row, x1) - at(row, x0)) * tx;
                    let (a, b) = (between(upper), between(lower));
                    *value = (a + (b - a) * ty).round() as u8;
                }
            }
        }
    }
}

/// Returns, for each of `to` positions, the two neighbouring ones of `from` and the share of the second.
fn taps(from: usize, to: usize) -> Vec<(usize, usize, f32)> {
    let scale = from as f32 / to as f32;
    let taps = (0..to).map(|i| {
        let at = (i as f32 + 0.5) * scale - 0.5;
        let low = at.floor();
        ((low.max(0.0) as usize).min(from - 1), (at.ceil().max(0.0) as usize).min(from - 1), at - low)
    });
    taps.collect()
}
