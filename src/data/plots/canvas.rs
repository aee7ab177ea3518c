//! Colours, text and tiles on a bitmap.

use crate::io::{Flaw, FormatError, image::to_rgb};
use crate::tensor::{Data, HostTensor};
use image::RgbImage;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;
use std::sync::OnceLock;

pub(in crate::data) const INK: RGBColor = RGBColor(38, 42, 51);
pub(in crate::data) const PALE: RGBColor = RGBColor(120, 126, 138);
pub(in crate::data) const LINE: RGBColor = RGBColor(226, 229, 234);
pub(in crate::data) const PAPER: RGBColor = RGBColor(255, 255, 255);
pub(in crate::data) const BLUE: RGBColor = RGBColor(37, 99, 180);
pub(in crate::data) const ORANGE: RGBColor = RGBColor(226, 112, 42);
pub(in crate::data) const FONT: &str = "DejaVu Sans";
pub(in crate::data) const MARGIN: i32 = 24;
pub(in crate::data) const TITLE: f64 = 24.0;
pub(in crate::data) const TEXT: f64 = 17.0;

/// Returns width and height of a tile of w × h pixels, each a whole number of dots, near `target`.
pub(super) fn fit(h: usize, w: usize, target: i32) -> (i32, i32) {
    let scale = (target / h.max(w).max(1) as i32).max(1);
    (w as i32 * scale, h as i32 * scale)
}

pub(super) fn range(values: &[f32]) -> (f32, f32) {
    let finite = values.iter().filter(|x| x.is_finite());
    let (low, high) = finite.fold((f32::MAX, f32::MIN), |(l, h), &x| (l.min(x), h.max(x)));
    if low < high { (low, high) } else { (low.min(0.0), low.min(0.0) + 1.0) }
}

pub(super) fn mix(a: RGBColor, b: RGBColor, t: f64) -> RGBColor {
    let channel = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * t.clamp(0.0, 1.0)).round() as u8;
    RGBColor(channel(a.0, b.0), channel(a.1, b.1), channel(a.2, b.2))
}

/// Returns the colour of a value from −1 (blue) over 0 (white) to 1 (orange).
pub(super) fn diverging(x: f32) -> RGBColor {
    let end = if x < 0.0 { RGBColor(24, 72, 148) } else { RGBColor(206, 84, 16) };
    mix(PAPER, end, f64::from(x.abs()))
}

/// Returns the colour of viridis (Smith and van der Walt), stored at every eighth entry, for a value from 0 to 1.
pub(super) fn viridis(x: f32) -> RGBColor {
    const STOPS: [RGBColor; 9] = [
        RGBColor(68, 1, 84),
        RGBColor(71, 44, 122),
        RGBColor(59, 81, 139),
        RGBColor(44, 113, 142),
        RGBColor(33, 144, 141),
        RGBColor(39, 173, 129),
        RGBColor(92, 200, 99),
        RGBColor(170, 220, 50),
        RGBColor(253, 231, 37),
    ];
    let at = if x.is_finite() { f64::from(x.clamp(0.0, 1.0)) * 8.0 } else { 0.0 };
    let i = (at as usize).min(7);
    mix(STOPS[i], STOPS[i + 1], at - i as f64)
}

pub(super) fn cannot_draw(why: impl std::fmt::Display) -> FormatError {
    FormatError::new(Flaw::Image, "the image", "to draw it", why)
}

/// Returns a line of text as coverage, with its width and height; capitals are centred vertically.
///
/// The backend rounds each letter to a whole dot; drawing four times as large and averaging spaces them evenly.
pub(super) fn mask(text: &str, size: f64) -> Result<(Vec<u8>, i32, i32), FormatError> {
    const TIMES: i32 = 4;
    if !register_font() {
        return Err(cannot_draw("no font"));
    }
    let large = size * f64::from(TIMES);
    let face = if size >= TITLE { FontStyle::Bold } else { FontStyle::Normal };
    let font = (FONT, large, face).into_font().color(&BLACK);
    let (w, _) = font.font.box_size(text).map_err(cannot_draw)?;
    let (w, h) = (w as i32 / TIMES + 2, (size * 1.6) as i32);
    let mut canvas = Canvas { w: w * TIMES, h: h * TIMES, rgb: vec![255; (w * h * TIMES * TIMES * 3) as usize] };
    // The backend's baseline is half a size below the position; capitals are 0.63 sizes high.
    let y = h * TIMES / 2 - (0.187 * large) as i32;
    canvas.area().draw_text(text, &font, (0, y)).map_err(cannot_draw)?;
    let dark = |x: i32, y: i32| 255 - u32::from(canvas.rgb[((y * canvas.w + x) * 3) as usize]);
    let average = |i: i32| {
        let dots = (0..TIMES * TIMES).map(|k| dark(i % w * TIMES + k % TIMES, i / w * TIMES + k / TIMES));
        (dots.sum::<u32>() / (TIMES * TIMES) as u32) as u8
    };
    Ok(((0..w * h).map(average).collect(), w, h))
}

pub(super) fn register_font() -> bool {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    *REGISTERED.get_or_init(|| {
        let plain: &[u8] = include_bytes!("font/DejaVuSans-ascii.ttf");
        let bold: &[u8] = include_bytes!("font/DejaVuSans-Bold-ascii.ttf");
        plotters::style::register_font(FONT, FontStyle::Normal, plain).is_ok()
            && plotters::style::register_font(FONT, FontStyle::Bold, bold).is_ok()
    })
}

pub(super) struct Canvas {
    w: i32,
    h: i32,
    rgb: Vec<u8>,
}

impl Canvas {
    pub(super) fn new(w: i32, h: i32) -> Result<Self, FormatError> {
        let max = i64::from(crate::io::image::MAX_SIDE);
        let fits = w > 0 && h > 0 && i64::from(w) * i64::from(h) <= max * max / 2;
        if !register_font() || !fits {
            return Err(cannot_draw(format!("{w}×{h} pixels")));
        }
        Ok(Canvas { w, h, rgb: vec![255; w as usize * h as usize * 3] })
    }

    pub(super) fn area(&mut self) -> DrawingArea<BitMapBackend<'_>, Shift> {
        BitMapBackend::with_buffer(&mut self.rgb, (self.w as u32, self.h as u32)).into_drawing_area()
    }

    /// Writes one line whose capitals are centred at `y`; titles are bold.
    pub(super) fn text(
        &mut self,
        text: &str,
        x: i32,
        y: i32,
        size: f64,
        ink: RGBColor,
        h: HPos,
    ) -> Result<(), FormatError> {
        let (mask, w, height) = mask(text, size)?;
        let x = match h {
            HPos::Left => x,
            HPos::Center => x - w / 2,
            HPos::Right => x - w,
        };
        self.ink(&mask, (w, height), (x, y - height / 2), ink);
        Ok(())
    }

    /// Writes one line from bottom to top, centred at `x` and `y`.
    pub(super) fn turned_text(
        &mut self,
        text: &str,
        x: i32,
        y: i32,
        size: f64,
        ink: RGBColor,
    ) -> Result<(), FormatError> {
        let (mask, w, h) = mask(text, size)?;
        let turned: Vec<u8> = (0..w * h).map(|i| mask[(i % h * w + (w - 1 - i / h)) as usize]).collect();
        self.ink(&turned, (h, w), (x - h / 2, y - w / 2), ink);
        Ok(())
    }

    /// Blends a colour by a mask of `w` × `h` coverages from 0 to 255.
    pub(super) fn ink(&mut self, mask: &[u8], (w, h): (i32, i32), (x, y): (i32, i32), ink: RGBColor) {
        for i in 0..w * h {
            let (dx, dy) = (x + i % w, y + i / w);
            if mask[i as usize] > 0 && (0..self.w).contains(&dx) && (0..self.h).contains(&dy) {
                let at = ((dy * self.w + dx) * 3) as usize;
                let under = RGBColor(self.rgb[at], self.rgb[at + 1], self.rgb[at + 2]);
                self.fill(dx, dy, 1, 1, mix(under, ink, f64::from(mask[i as usize]) / 255.0));
            }
        }
    }

    pub(super) fn fill(&mut self, x: i32, y: i32, w: i32, h: i32, colour: RGBColor) {
        for row in y.max(0)..(y + h).min(self.h) {
            let at = |x: i32| ((row * self.w + x.clamp(0, self.w)) * 3) as usize;
            for dot in self.rgb[at(x)..at(x + w.max(0))].chunks_exact_mut(3) {
                dot.copy_from_slice(&[colour.0, colour.1, colour.2]);
            }
        }
    }

    /// Fills a tile with `h` × `w` pixels, whose colours `colour` returns by row-major index.
    pub(super) fn tile(
        &mut self,
        x: i32,
        y: i32,
        (tile_w, tile_h): (i32, i32),
        (h, w): (usize, usize),
        colour: impl Fn(usize) -> RGBColor,
    ) {
        let edge = |i: usize, n: usize, size: i32| (i as i64 * i64::from(size) / n as i64) as i32;
        for i in 0..h {
            for j in 0..w {
                let (top, left) = (edge(i, h, tile_h), edge(j, w, tile_w));
                let (bottom, right) = (edge(i + 1, h, tile_h), edge(j + 1, w, tile_w));
                self.fill(x + left, y + top, right - left, bottom - top, colour(i * w + j));
            }
        }
    }

    /// Draws an image into a framed square of `side` dots, keeping its aspect ratio.
    pub(super) fn image(&mut self, image: &HostTensor, x: i32, y: i32, side: i32) -> Result<(), FormatError> {
        self.framed(&shown(image)?, x, y, side);
        Ok(())
    }

    pub(super) fn framed(&mut self, rgb: &RgbImage, x: i32, y: i32, side: i32) {
        let (w, h) = (rgb.width().max(1) as usize, rgb.height().max(1) as usize);
        let scale = f64::from(side) / w.max(h) as f64;
        let scale = if scale >= 1.0 { scale.floor() } else { scale };
        let size = ((w as f64 * scale) as i32, (h as f64 * scale) as i32);
        let (left, top) = (x + (side - size.0) / 2, y + (side - size.1) / 2);
        self.fill(left - 1, top - 1, size.0 + 2, size.1 + 2, LINE);
        self.tile(left, top, size, (h, w), |i| {
            let p = rgb.get_pixel((i % w) as u32, (i / w) as u32);
            RGBColor(p[0], p[1], p[2])
        });
    }

    pub(super) fn finish(self) -> Result<RgbImage, FormatError> {
        RgbImage::from_raw(self.w as u32, self.h as u32, self.rgb)
            .ok_or_else(|| cannot_draw("a buffer of another size"))
    }
}

/// Returns an image's colours; floats are scaled from their range.
pub(super) fn shown(image: &HostTensor) -> Result<RgbImage, FormatError> {
    if matches!(image.data(), Data::U8(_)) {
        return to_rgb(image);
    }
    let values = image.to_f32();
    let (low, high) = range(&values);
    let spread = values.iter().map(|x| (x - low) / (high - low)).collect();
    to_rgb(&HostTensor::f32(image.shape(), spread).map_err(cannot_draw)?)
}
