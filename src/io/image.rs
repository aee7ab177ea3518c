//! PNG and JPEG pictures to and from tensors.

use super::{Flaw, FormatError, checked_bytes, read_file};
use crate::tensor::{Data, HostTensor};
use image::{DynamicImage, GrayImage, ImageFormat, ImageReader, Limits, RgbImage};
use std::{io::Cursor, path::Path};

/// The largest width and height of a picture that is decoded, in pixels.
pub const MAX_SIDE: u32 = 8192;
/// The most memory that decoding a picture may take, in bytes.
pub const CAP_BYTES: u64 = 256 << 20;

fn wrong(what: &str, wanted: &str, got: impl std::fmt::Display) -> FormatError {
    FormatError::new(Flaw::Picture, what, wanted, got)
}

/// Returns the picture in a PNG or JPEG file, which its first bytes tell: u8 (h, w, 1) where it is
/// grey, else (h, w, 3); what is transparent becomes white.
///
/// A picture over [`MAX_SIDE`] or [`CAP_BYTES`] is refused before its pixels are decoded. EXIF's orientation is not
/// applied.
pub fn read(bytes: &[u8]) -> Result<HostTensor, FormatError> {
    let picture = decode(bytes)?;
    let (w, h) = (picture.width() as usize, picture.height() as usize);
    let picture = if picture.color().has_alpha() { on_white(&picture) } else { picture };
    let result = match picture.color().has_color() {
        true => HostTensor::u8([h, w, 3], picture.into_rgb8().into_raw()),
        false => HostTensor::u8([h, w, 1], picture.into_luma8().into_raw()),
    };
    result.map_err(|e| wrong("the picture", "as many pixels as its size says", e))
}

/// Returns the picture in a PNG or JPEG file with the channels that it has, refused as [`read`] refuses.
pub(crate) fn decode(bytes: &[u8]) -> Result<DynamicImage, FormatError> {
    let mut reader = ImageReader::new(Cursor::new(bytes));
    let format = image::guess_format(bytes)
        .ok()
        .filter(|f| matches!(f, ImageFormat::Png | ImageFormat::Jpeg))
        .ok_or_else(|| FormatError::new(Flaw::Magic, "the picture", "PNG or JPEG", "other bytes"))?;
    reader.set_format(format);
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(CAP_BYTES);
    reader.limits(limits);
    let wanted = format!("an intact one of at most {MAX_SIDE}×{MAX_SIDE} pixels");
    let picture = reader.decode().map_err(|e| {
        let flaw = if matches!(e, image::ImageError::Limits(_)) { Flaw::TooLarge } else { Flaw::Picture };
        FormatError::new(flaw, "the picture", &wanted, e)
    })?;
    if format == ImageFormat::Jpeg && !has_end(bytes) {
        return Err(FormatError::new(Flaw::Truncated, "the picture", wanted, "the file's end before the picture's"));
    }
    Ok(picture)
}

/// Returns whether a JPEG's end marker is there; the decoder paints what is missing grey.
fn has_end(jpeg: &[u8]) -> bool {
    let mut at = 2;
    while let Some(rest) = jpeg.get(at..) {
        // Zeros, fill bytes and restarts stand among the coded pixels.
        let marker = rest.windows(2).position(|b| b[0] == 0xFF && !matches!(b[1], 0 | 1 | 0xD0..=0xD8 | 0xFF));
        match marker.map(|i| &rest[i..]) {
            Some([_, 0xD9, ..]) => return true,
            Some([_, _, high, low, ..]) => {
                at = jpeg.len() - rest.len() + marker.unwrap_or(0) + 2 + usize::from(u16::from_be_bytes([*high, *low]));
            }
            _ => return false,
        }
    }
    false
}

fn on_white(picture: &DynamicImage) -> DynamicImage {
    let rgba = picture.to_rgba8();
    let over = |x: u8, a: u8| ((u32::from(x) * u32::from(a) + 255 * (255 - u32::from(a)) + 127) / 255) as u8;
    let pixels = rgba.pixels().map(|p| [over(p[0], p[3]), over(p[1], p[3]), over(p[2], p[3])]);
    let (w, h) = rgba.dimensions();
    if picture.color().has_color() {
        DynamicImage::ImageRgb8(RgbImage::from_raw(w, h, pixels.flatten().collect()).unwrap_or_default())
    } else {
        DynamicImage::ImageLuma8(GrayImage::from_raw(w, h, pixels.map(|p| p[0]).collect()).unwrap_or_default())
    }
}

/// Returns the picture at `path` as [`read`] does; errors name the file.
pub fn open(path: impl AsRef<Path>) -> Result<HostTensor, FormatError> {
    let path = path.as_ref();
    read(&read_file(path, CAP_BYTES)?).map_err(|e| e.of(path))
}

/// Returns a tensor (h, w, 1) or (h, w, 3), or a batch of one such, as colours; bytes are taken as they
/// are, floats from 0 to 1.
pub fn to_rgb(picture: &HostTensor) -> Result<RgbImage, FormatError> {
    let wanted = "a tensor (h, w, 1) or (h, w, 3)";
    let got = || format!("{:?}", picture.shape());
    let ([h, w, c @ (1 | 3)] | [1, h, w, c @ (1 | 3)]) = *picture.shape() else {
        return Err(wrong("the picture", wanted, got()));
    };
    let cap = u64::from(MAX_SIDE) * u64::from(MAX_SIDE) * 3;
    checked_bytes("the picture", &[h as u64, w as u64, 3], 1, cap)?;
    let bytes = match picture.data() {
        Data::U8(v) => v.clone(),
        _ => picture.to_f32().iter().map(|x| (x.clamp(0.0, 1.0) * 255.0).round() as u8).collect(),
    };
    let rgb = if c == 3 { bytes } else { bytes.iter().flat_map(|&x| [x; 3]).collect() };
    RgbImage::from_raw(w as u32, h as u32, rgb).ok_or_else(|| wrong("the picture", wanted, got()))
}

/// Returns the bytes of a PNG file.
pub fn png(picture: &RgbImage) -> Result<Vec<u8>, FormatError> {
    let mut bytes = Vec::new();
    match picture.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png) {
        Ok(()) => Ok(bytes),
        Err(e) => Err(wrong("the picture", "to write it as PNG", e)),
    }
}

/// Returns nothing once the picture lies at `path` as PNG.
pub fn save(picture: &RgbImage, path: impl AsRef<Path>) -> Result<(), FormatError> {
    let path = path.as_ref();
    std::fs::write(path, png(picture)?).map_err(|e| FormatError::io(path, "to write it", &e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::ExtendedColorType;

    fn encode(bytes: &[u8], w: u32, h: u32, colour: ExtendedColorType, format: ImageFormat) -> Vec<u8> {
        let mut out = Vec::new();
        image::write_buffer_with_format(&mut Cursor::new(&mut out), bytes, w, h, colour, format).unwrap();
        out
    }

    #[test]
    fn pictures_come_back_and_transparency_is_white() {
        let rgb: Vec<u8> = (0..2 * 3 * 3).map(|i| i * 9).collect();
        let t = HostTensor::u8([2, 3, 3], rgb.clone()).unwrap();
        assert_eq!(read(&png(&to_rgb(&t).unwrap()).unwrap()).unwrap(), t);
        let grey = read(&encode(&[0, 99], 2, 1, ExtendedColorType::L8, ImageFormat::Png)).unwrap();
        assert_eq!((grey.shape(), grey.bytes()), (&[1, 2, 1][..], &[0, 99][..]));
        let clear = encode(&[10, 20, 30, 0, 10, 20, 30, 255], 2, 1, ExtendedColorType::Rgba8, ImageFormat::Png);
        assert_eq!(read(&clear).unwrap().bytes(), [255, 255, 255, 10, 20, 30]);
        let jpeg = read(&encode(&[128; 8 * 8 * 3], 8, 8, ExtendedColorType::Rgb8, ImageFormat::Jpeg)).unwrap();
        assert!(jpeg.shape() == [8, 8, 3] && jpeg.bytes().iter().all(|x| x.abs_diff(128) < 3));
        let cut = encode(
            &(0..=255).cycle().take(8 * 8 * 3).collect::<Vec<_>>(),
            8,
            8,
            ExtendedColorType::Rgb8,
            ImageFormat::Jpeg,
        );
        assert!(read(&[&cut[..], b"\xFF\xDA"].concat()).is_ok());
        assert!((3..cut.len()).all(|n| read(&cut[..n]).is_err()));
        let floats = HostTensor::f32([1, 3, 1], vec![-1.0, 0.5, 2.0]).unwrap();
        assert_eq!(to_rgb(&floats).unwrap().as_raw()[..], [0, 0, 0, 128, 128, 128, 255, 255, 255]);
    }

    #[test]
    fn hostile_pictures_give_errors() {
        let good = encode(&[7; 300], 10, 10, ExtendedColorType::Rgb8, ImageFormat::Png);
        for n in 0..good.len() - 12 {
            assert!(read(&good[..n]).is_err(), "{n} bytes");
        }
        let mut huge = good.clone();
        huge[16..24].copy_from_slice(&[0, 0, 255, 255, 0, 0, 255, 255]);
        let crc = {
            let mut c = flate2::Crc::new();
            c.update(&huge[12..29]);
            c.sum()
        };
        huge[29..33].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(read(&huge).unwrap_err().flaw, Flaw::TooLarge);
        let mut damaged = good;
        damaged[31] ^= 1;
        assert_eq!(read(&damaged).unwrap_err().flaw, Flaw::Picture);
        assert_eq!(read(b"BM, a picture of a kind that is not read").unwrap_err().flaw, Flaw::Magic);
    }
}
