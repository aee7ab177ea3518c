//! Photos preprocessed for networks: one size, one number of channels.

use crate::io::{Flaw, FormatError, checked_bytes, image::CAP_BYTES};
use crate::tensor::HostTensor;
use image::{RgbImage, imageops};

/// The share of the shorter side that is kept: networks were evaluated on such crops.
const KEPT: f64 = 0.875;

/// How a photo is resized; both average when shrinking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Filter {
    /// Bilinear, as torchvision's networks were evaluated.
    #[default]
    Bilinear,
    /// Bicubic (Catmull-Rom), as EfficientNets were evaluated.
    Bicubic,
}

fn wrong(wanted: &str, got: impl std::fmt::Display) -> FormatError {
    FormatError::new(Flaw::Image, "the photo", wanted, got)
}

/// Returns the centre of a photo, u8 (h, w, 1 or 3), resized: f32 (1, height, width, channels), 0 to 255.
///
/// 87.5% of the largest part with the target aspect ratio is kept. Grey becomes three equal channels, colour becomes
/// grey by .299 r + .587 g + .114 b.
pub fn crop(photo: &HostTensor, shape: [usize; 3], filter: Filter) -> Result<HostTensor, FormatError> {
    let side = |n: usize| n.max(1) as f64;
    let [h, w] = [0, 1].map(|axis| photo.shape().get(axis).copied().unwrap_or(0));
    let scale = KEPT * f64::min(h as f64 / side(shape[0]), w as f64 / side(shape[1]));
    let kept = |n: usize, all: usize| ((n as f64 * scale).round() as usize).clamp(1, all.max(1));
    resized(photo, [kept(shape[0], h), kept(shape[1], w)], shape, filter)
}

/// Returns a whole photo resized; [`crop`] keeps the aspect ratio instead.
pub fn squeeze(photo: &HostTensor, shape: [usize; 3], filter: Filter) -> Result<HostTensor, FormatError> {
    resized(photo, [0, 1].map(|axis| photo.shape().get(axis).copied().unwrap_or(0)), shape, filter)
}

fn resized(
    photo: &HostTensor,
    [kept_h, kept_w]: [usize; 2],
    [height, width, channels]: [usize; 3],
    filter: Filter,
) -> Result<HostTensor, FormatError> {
    let [h, w, c @ (1 | 3)] = *photo.shape() else {
        return Err(wrong("a tensor (h, w, 1) or (h, w, 3)", format!("{:?}", photo.shape())));
    };
    if ![1, 3].contains(&channels) || [height, width].iter().any(|d| !(1..=1 << 14).contains(d)) {
        let got = format!("{height}×{width} with {channels}");
        return Err(wrong("a size up to 16384 with 1 or 3 channels", got));
    }
    let bytes: Vec<u8> = photo.to_f32().iter().map(|&x| x as u8).collect();
    let rgb = if c == 3 { bytes } else { bytes.iter().flat_map(|&x| [x; 3]).collect() };
    let image =
        RgbImage::from_raw(w as u32, h as u32, rgb).ok_or_else(|| wrong("a photo that is not empty", "none"))?;
    let (x, y) = ((w - kept_w) / 2, (h - kept_h) / 2);
    let filter = match filter {
        Filter::Bilinear => imageops::FilterType::Triangle,
        Filter::Bicubic => imageops::FilterType::CatmullRom,
    };
    let part = imageops::crop_imm(&image, x as u32, y as u32, kept_w as u32, kept_h as u32).to_image();
    let part = imageops::resize(&part, width as u32, height as u32, filter);
    let values: Vec<f32> = match channels {
        3 => part.as_raw().iter().map(|&x| f32::from(x)).collect(),
        _ => {
            part.pixels().map(|p| 0.299 * f32::from(p[0]) + 0.587 * f32::from(p[1]) + 0.114 * f32::from(p[2])).collect()
        }
    };
    HostTensor::f32([1, height, width, channels], values).map_err(|e| wrong("as many pixels as the size has", e))
}

/// Returns an image (h, w, c) centred in zeros: f32 (1, height, width, c).
pub fn pad(image: &HostTensor, [height, width]: [usize; 2]) -> Result<HostTensor, FormatError> {
    let [h, w, c] = *image.shape() else {
        return Err(wrong("a tensor (h, w, c)", format!("{:?}", image.shape())));
    };
    if h > height || w > width {
        return Err(wrong(&format!("at most {height}×{width} pixels"), format!("{h}×{w}")));
    }
    let bytes = checked_bytes("the image", &[height, width, c].map(|d| d as u64), 4, CAP_BYTES)?;
    let (values, mut out) = (image.to_f32(), vec![0.0; bytes / 4]);
    let (top, left) = ((height - h) / 2, (width - w) / 2);
    for (y, row) in values.chunks_exact((w * c).max(1)).enumerate() {
        let at = ((top + y) * width + left) * c;
        out[at..at + row.len()].copy_from_slice(row);
    }
    HostTensor::f32([1, height, width, c], out).map_err(|e| wrong("as many pixels as the size has", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_kept_whatever_the_aspect() {
        // Black, with a white middle column of 40 pixels.
        let bytes = (0..100 * 200).flat_map(|i| [if (80..120).contains(&(i % 200)) { 255 } else { 0 }; 3]).collect();
        let photo = HostTensor::u8([100, 200, 3], bytes).unwrap();
        let out = crop(&photo, [32, 32, 3], Filter::Bicubic).unwrap();
        assert_eq!(out.shape(), [1, 32, 32, 3]);
        let row = &out.to_f32()[..32 * 3];
        assert!(row[16 * 3] > 250.0 && row[0] < 5.0 && row[31 * 3] < 5.0, "{row:?}");
        let white = row.iter().step_by(3).filter(|x| **x > 127.0).count();
        // 40 of 87.5 pixels.
        assert!((14..=15).contains(&white), "{white}");
        let grey = crop(&HostTensor::u8([1, 1, 1], vec![9]).unwrap(), [4, 2, 1], Filter::Bicubic).unwrap();
        assert_eq!((grey.shape(), &grey.to_f32()[..]), (&[1, 4, 2, 1][..], &[9.0; 8][..]));
        assert!(crop(&HostTensor::u8([2, 2], vec![0; 4]).unwrap(), [4, 4, 3], Filter::Bicubic).is_err());
        assert!(crop(&photo, [0, 4, 3], Filter::Bicubic).is_err() && crop(&photo, [4, 4, 2], Filter::Bicubic).is_err());
    }

    #[test]
    fn padding_centres() {
        let out = pad(&HostTensor::u8([1, 2, 1], vec![5, 6]).unwrap(), [3, 4]).unwrap();
        assert_eq!(out.to_f32(), [0.0, 0.0, 0.0, 0.0, 0.0, 5.0, 6.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert!(pad(&out, [3, 4]).is_err());
    }
}
