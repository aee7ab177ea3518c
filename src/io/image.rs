//! PNG and JPEG images to and from tensors.

use super::{Budget, Flaw, FormatError, checked_bytes, read_file};
use crate::tensor::{Data, HostTensor};
use image::{DynamicImage, GrayImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};
use std::{io::Cursor, path::Path};

/// The maximum width and height of an image, in pixels.
pub const MAX_SIDE: u32 = 8192;
/// The maximum memory for decoding an image, in bytes.
pub const CAP_BYTES: u64 = 256 << 20;

fn wrong(what: &str, wanted: &str, got: impl std::fmt::Display) -> FormatError {
    FormatError::new(Flaw::Image, what, wanted, got)
}

/// Returns the image in a PNG or JPEG file, identified by its first bytes: u8 (h, w, 1) if it is grey, else (h, w, 3),
/// blended with white by opacity.
///
/// An image over [`MAX_SIDE`] or [`CAP_BYTES`] is refused before its pixels are decoded. EXIF's orientation is not
/// applied. A JPEG that lacks only its end marker is read; [`read_damaged`] reports that.
pub fn read(bytes: &[u8]) -> Result<HostTensor, FormatError> {
    Ok(read_damaged(bytes)?.0)
}

/// [`read`], with any damage that does not prevent reading.
pub fn read_damaged(bytes: &[u8]) -> Result<(HostTensor, Option<FormatError>), FormatError> {
    let (image, damage) = decode(bytes)?;
    let (w, h) = (image.width() as usize, image.height() as usize);
    let image = if image.color().has_alpha() { on_white(image) } else { image };
    let result = match image.color().has_color() {
        true => HostTensor::u8([h, w, 3], image.into_rgb8().into_raw()),
        false => HostTensor::u8([h, w, 1], image.into_luma8().into_raw()),
    };
    Ok((result.map_err(|e| wrong("the image", "as many pixels as its size has", e))?, damage))
}

/// Returns the image in a PNG or JPEG file with its own channels, with the errors of [`read`], and its damage.
pub(crate) fn decode(bytes: &[u8]) -> Result<(DynamicImage, Option<FormatError>), FormatError> {
    if bytes.is_empty() {
        return Err(FormatError::new(Flaw::Empty, "the image", "PNG or JPEG", "an empty file"));
    }
    let format = image::guess_format(bytes)
        .ok()
        .filter(|f| matches!(f, ImageFormat::Png | ImageFormat::Jpeg))
        .ok_or_else(|| FormatError::new(Flaw::Magic, "the image", "PNG or JPEG", "other bytes"))?;
    let budget = Budget::new(bytes.len() as u64).at_least(CAP_BYTES);
    if format != ImageFormat::Jpeg || has_end(bytes) {
        return Ok((pixels(bytes, format, &budget)?, None));
    }
    // Bytes after the last pixel change no pixel, but bytes read instead of missing pixels do.
    let [plain, other] = [&[0xFF, 0xD9][..], &[[0x5A; 64], [0xC3; 64]].concat()].map(|end| {
        // Half of the marker may be present.
        let whole = bytes.strip_suffix(b"\xFF").unwrap_or(bytes);
        pixels(&[whole, end, b"\xFF\xD9"].concat(), format, &budget)
    });
    let truncated = |got| FormatError::new(Flaw::Truncated, "the image", "a JPEG with its end marker", got);
    match (plain?, other) {
        (image, Ok(other)) if image == other => Ok((image, Some(truncated("one without, but with all pixels")))),
        _ => Err(truncated("the file's end before the image's")),
    }
}

fn pixels(bytes: &[u8], format: ImageFormat, budget: &Budget) -> Result<DynamicImage, FormatError> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(CAP_BYTES);
    reader.limits(limits);
    let wrong = |e| {
        let flaw = if matches!(e, image::ImageError::Limits(_)) { Flaw::TooLarge } else { Flaw::Image };
        let wanted = format!("an intact one of at most {MAX_SIDE}×{MAX_SIDE} pixels");
        FormatError::new(flaw, "the image", wanted, e)
    };
    let decoder = reader.into_decoder().map_err(wrong)?;
    budget.take("the image", decoder.total_bytes())?;
    DynamicImage::from_decoder(decoder).map_err(wrong)
}

/// Returns whether a JPEG has its end marker; the decoder fills missing parts with grey.
fn has_end(jpeg: &[u8]) -> bool {
    let mut at = 2;
    while let Some(rest) = jpeg.get(at..) {
        // Zeros, fill bytes and restarts occur among the coded pixels.
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

fn on_white(image: DynamicImage) -> DynamicImage {
    let over = |x: u8, a: u8| ((u32::from(x) * u32::from(a) + 255 * (255 - u32::from(a)) + 127) / 255) as u8;
    let (w, h) = (image.width(), image.height());
    // In place, since an image with opacity may need all of its memory limit.
    if image.color().has_color() {
        let mut bytes = image.into_rgba8().into_raw();
        for i in 0..bytes.len() / 4 {
            (0..3).for_each(|k| bytes[3 * i + k] = over(bytes[4 * i + k], bytes[4 * i + 3]));
        }
        bytes.truncate(bytes.len() / 4 * 3);
        DynamicImage::ImageRgb8(RgbImage::from_raw(w, h, bytes).unwrap_or_default())
    } else {
        let mut bytes = image.into_luma_alpha8().into_raw();
        for i in 0..bytes.len() / 2 {
            bytes[i] = over(bytes[2 * i], bytes[2 * i + 1]);
        }
        bytes.truncate(bytes.len() / 2);
        DynamicImage::ImageLuma8(GrayImage::from_raw(w, h, bytes).unwrap_or_default())
    }
}

/// Returns the image at `path` as [`read`] does; errors name the file.
pub fn open(path: impl AsRef<Path>) -> Result<HostTensor, FormatError> {
    let path = path.as_ref();
    read(&read_file(path, CAP_BYTES)?).map_err(|e| e.of(path))
}

/// Returns a tensor (h, w, 1) or (h, w, 3), or a batch of one, as colours: bytes unchanged, floats from 0 to 1.
pub fn to_rgb(image: &HostTensor) -> Result<RgbImage, FormatError> {
    let wanted = "a tensor (h, w, 1) or (h, w, 3)";
    let got = || format!("{:?}", image.shape());
    let ([h, w, c @ (1 | 3)] | [1, h, w, c @ (1 | 3)]) = *image.shape() else {
        return Err(wrong("the image", wanted, got()));
    };
    let cap = u64::from(MAX_SIDE) * u64::from(MAX_SIDE) * 3;
    checked_bytes("the image", &[h as u64, w as u64, 3], 1, cap)?;
    let bytes = match image.data() {
        Data::U8(v) => v.clone(),
        _ => image.to_f32().iter().map(|x| (x.clamp(0.0, 1.0) * 255.0).round() as u8).collect(),
    };
    let rgb = if c == 3 { bytes } else { bytes.iter().flat_map(|&x| [x; 3]).collect() };
    RgbImage::from_raw(w as u32, h as u32, rgb).ok_or_else(|| wrong("the image", wanted, got()))
}

/// Returns the bytes of a PNG file.
pub fn png(image: &RgbImage) -> Result<Vec<u8>, FormatError> {
    let mut bytes = Vec::new();
    match image.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png) {
        Ok(()) => Ok(bytes),
        Err(e) => Err(wrong("the image", "to write it as PNG", e)),
    }
}

/// Writes an image to `path` as PNG.
pub fn save(image: &RgbImage, path: impl AsRef<Path>) -> Result<(), FormatError> {
    super::save::save(path, &png(image)?, false)
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
    fn images_come_back_and_transparency_is_white() {
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
        let whole = read(&cut).unwrap();
        for n in cut.len() - 2..cut.len() {
            let (image, damage) = read_damaged(&cut[..n]).unwrap();
            assert!(image == whole && damage.is_some_and(|e| e.flaw == Flaw::Truncated));
        }
        assert!((1..cut.len() - 2).all(|n| read(&cut[..n]).is_err()));
        assert_eq!(read(b"").unwrap_err().flaw, Flaw::Empty);
        let floats = HostTensor::f32([1, 3, 1], vec![-1.0, 0.5, 2.0]).unwrap();
        assert_eq!(to_rgb(&floats).unwrap().as_raw()[..], [0, 0, 0, 128, 128, 128, 255, 255, 255]);
    }

    #[test]
    fn hostile_images_give_errors() {
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
        assert_eq!(read(&damaged).unwrap_err().flaw, Flaw::Image);
        assert_eq!(read(b"BM, an unsupported format").unwrap_err().flaw, Flaw::Magic);
    }
}
