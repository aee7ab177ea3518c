use crate::io::{Flaw, FormatError};
use crate::tensor::HostTensor;

/// Converts a photo of one digit to the form of MNIST's images, u8 (28, 28, 1), ink 255 on paper 0.
///
/// The photo is (h, w, 1) or (h, w, 3), with dark ink on light or light on dark. It is converted to grey, the paper's
/// level at the rim is subtracted, the ink's bounding box is scaled into 20×20 pixels with its aspect ratio, and its
/// centre of mass is moved to the middle (LeCun et al. 1998).
pub fn prepare(photo: &HostTensor) -> Result<HostTensor, FormatError> {
    let wrong = |wanted: &str, got: String| Err(FormatError::new(Flaw::Image, "the photo", wanted, got));
    let [h, w, c @ (1 | 3)] = *photo.shape() else {
        return wrong("a tensor (h, w, 1) or (h, w, 3)", format!("{:?}", photo.shape()));
    };
    if h < 3 || w < 3 {
        return wrong("at least 3×3 pixels", format!("{w}×{h}"));
    }
    let values = photo.to_f32();
    let mut grey: Vec<f32> = match c {
        3 => values.chunks_exact(3).map(|p| 0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2]).collect(),
        _ => values,
    };
    let on_rim = |i: usize| i / w == 0 || i / w == h - 1 || i.is_multiple_of(w) || i % w == w - 1;
    let mut rim: Vec<f32> = (0..h * w).filter(|&i| on_rim(i)).map(|i| grey[i]).collect();
    let paper = quantile(&mut rim, 0.5);
    let (darker, lighter) = grey.iter().fold((0.0, 0.0), |(d, l), &x| {
        let square = f64::from((x - paper) * (x - paper));
        if x < paper { (d + square, l) } else { (d, l + square) }
    });
    let sign = if darker > lighter { -1.0 } else { 1.0 };
    grey.iter_mut().for_each(|x| *x = ((*x - paper) * sign).max(0.0));
    let peak = quantile(&mut grey.clone(), 0.999);
    let peak = if peak > 0.0 { peak } else { grey.iter().copied().fold(0.0, f32::max) };
    rim.iter_mut().for_each(|x| *x = (*x - paper).abs());
    // A shadow or the paper's grain must not count as ink.
    let floor = (2.0 * quantile(&mut rim, 0.95)).min(peak / 2.0);
    if peak - floor < 8.0 {
        return wrong("a digit that differs from its background", "an even image".into());
    }
    grey.iter_mut().for_each(|x| *x = ((*x - floor) / (peak - floor)).clamp(0.0, 1.0));

    let inked = |i: usize| grey[i] > 0.0;
    let rows: Vec<usize> = (0..h).filter(|y| (0..w).any(|x| inked(y * w + x))).collect();
    let columns: Vec<usize> = (0..w).filter(|x| (0..h).any(|y| inked(y * w + x))).collect();
    let (Some(&top), Some(&bottom), Some(&left), Some(&right)) =
        (rows.first(), rows.last(), columns.first(), columns.last())
    else {
        return wrong("a digit that differs from its background", "an even image".into());
    };
    let (box_h, box_w) = (bottom + 1 - top, right + 1 - left);
    let scale = 20.0 / box_h.max(box_w) as f64;
    let side = |n: usize| ((n as f64 * scale).round() as usize).clamp(1, 20);
    let (small_h, small_w) = (side(box_h), side(box_w));
    let (vertical, horizontal) = (weights(box_h, small_h), weights(box_w, small_w));
    let mut small = vec![0.0; small_h * small_w];
    for (y, rows) in vertical.iter().enumerate() {
        for (x, columns) in horizontal.iter().enumerate() {
            for &(from_y, wy) in rows {
                for &(from_x, wx) in columns {
                    small[y * small_w + x] += wy * wx * f64::from(grey[(top + from_y) * w + left + from_x]);
                }
            }
        }
    }
    let mass: f64 = small.iter().sum();
    let centre =
        |axis: &dyn Fn(usize) -> usize| small.iter().enumerate().map(|(i, m)| m * axis(i) as f64).sum::<f64>() / mass;
    // In MNIST's own images the centre of mass is at 14 ± 0.5 along both axes, pixels counted from 0.
    let start = |centre: f64, n: usize| ((14.0 - centre).round() as usize).min(28 - n);
    let (y0, x0) = (start(centre(&|i| i / small_w), small_h), start(centre(&|i| i % small_w), small_w));
    let mut out = vec![0; 28 * 28];
    for (i, &v) in small.iter().enumerate() {
        out[(y0 + i / small_w) * 28 + x0 + i % small_w] = (v * 255.0).round() as u8;
    }
    HostTensor::u8([28, 28, 1], out).map_err(|e| FormatError::new(Flaw::Image, "the digit", "28×28 pixels", e))
}

/// Returns the quantile `q` of values.
fn quantile(values: &mut [f32], q: f64) -> f32 {
    let at = ((values.len() as f64 * q) as usize).min(values.len().saturating_sub(1));
    *values.select_nth_unstable_by(at, f32::total_cmp).1
}

/// Returns for each of `to` pixels the pixels of `from` that it covers, with weights.
fn weights(from: usize, to: usize) -> Vec<Vec<(usize, f64)>> {
    let step = from as f64 / to as f64;
    let cover = |i: usize| {
        let (begin, end) = (i as f64 * step, (i + 1) as f64 * step);
        let last = (end.ceil() as usize).min(from);
        let share = |j: usize| (end.min((j + 1) as f64) - begin.max(j as f64)).max(0.0) / step;
        (begin as usize..last).map(|j| (j, share(j))).collect()
    };
    (0..to).map(cover).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bar of `ink` on `paper`, grey or in colour.
    fn photo(paper: u8, ink: u8, c: usize) -> HostTensor {
        let mut v = vec![paper; 100 * 60 * c];
        for y in 5..65 {
            for x in 20..30 {
                v[(y * 60 + x) * c..][..c].fill(ink);
            }
        }
        HostTensor::u8([100, 60, c], v).unwrap()
    }

    #[test]
    fn a_stroke_is_scaled_to_20_pixels_and_centred_whatever_its_colours() {
        let expected = prepare(&photo(0, 255, 1)).unwrap();
        let at = |y: usize, x: usize| expected.bytes()[y * 28 + x];
        assert_eq!((at(5, 14), at(24, 14), at(4, 14), at(25, 14)), (255, 255, 0, 0));
        assert_eq!(expected.bytes().iter().filter(|&&x| x > 0).count(), 20 * 3);
        for (paper, ink, c) in [(255, 0, 1), (240, 30, 3), (110, 40, 3), (20, 200, 3)] {
            assert_eq!(prepare(&photo(paper, ink, c)).unwrap(), expected, "{ink} on {paper}");
        }
    }

    #[test]
    fn an_even_image_is_refused() {
        assert_eq!(prepare(&photo(90, 90, 3)).unwrap_err().flaw, Flaw::Image);
        assert!(prepare(&HostTensor::u8([2, 2, 1], vec![0, 1, 2, 3]).unwrap()).is_err());
        assert!(prepare(&HostTensor::u8([5, 5], vec![0; 25]).unwrap()).is_err());
    }

    #[test]
    fn mnist_images_stay_as_they_are() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/mnist/t10k-images-idx3-ubyte.gz");
        if !std::path::Path::new(file).exists() {
            return;
        }
        let images = crate::io::idx::open(file).unwrap();
        let same = (0..200).filter(|&i| {
            let image = images.rows(i, 1).unwrap().reshape([28, 28, 1]).unwrap();
            let made = prepare(&image).unwrap();
            let off: u32 = made.bytes().iter().zip(image.bytes()).map(|(&a, &b)| u32::from(a.abs_diff(b))).sum();
            off < 784 * 4
        });
        assert!(same.count() >= 190);
    }
}
