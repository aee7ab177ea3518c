//! Images of results: learning curves, confusion matrix, mistakes, feature maps, filters, a
//! prediction, heat maps, times of layers.

mod canvas;
pub(crate) mod diagram;
mod layer_times;

pub use layer_times::layer_times;

use crate::io::{Flaw, FormatError};
use crate::tensor::HostTensor;
use image::RgbImage;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use canvas::{
    BLUE, Canvas, FONT, INK, LINE, MARGIN, ORANGE, PALE, PAPER, TEXT, TITLE, cannot_draw, diverging, fit, mix, range,
    shown, viridis,
};

/// The maximum of feature maps, filters, or inputs of filters that one layer's image shows.
const MAX_TILES: usize = 64;

/// Returns curves over the epochs: one panel for the series with `loss` in their names, one for the
/// others (`learning_rate` left out); `val_` series are orange.
///
/// Series that are neither loss nor learning rate are shown in per cent.
pub fn curves(history: &[(String, Vec<f64>)]) -> Result<RgbImage, FormatError> {
    let (losses, others): (Vec<_>, Vec<_>) = history
        .iter()
        .filter(|(name, v)| name != "learning_rate" && v.iter().any(|x| x.is_finite()))
        .partition(|(name, _)| name.contains("loss"));
    let panels: Vec<_> = [("Loss", losses, false), ("Accuracy", others, true)]
        .into_iter()
        .filter(|(_, series, _)| !series.is_empty())
        .collect();
    let n = panels.len().max(1) as i32;
    let mut canvas = Canvas::new(n * 640, 460)?;
    for (i, (title, series, percent)) in panels.iter().enumerate() {
        canvas.text(title, i as i32 * 640 + MARGIN + 62, 30, TITLE, INK, HPos::Left)?;
        let (left, right) = (i as i32 * 640 + 12, (n - 1 - i as i32) * 640 + 20);
        panel(&canvas.area().margin(48, 12, left, right), series, *percent).map_err(cannot_draw)?;
        for (k, (name, values)) in series.iter().enumerate() {
            let (x, y) = (i as i32 * 640 + 640 - MARGIN, 30 + 22 * k as i32 - 11 * (series.len() as i32 - 1));
            let last = values.iter().rfind(|x| x.is_finite()).copied().unwrap_or(0.0);
            let last = if *percent { format!("{:.2}%", last * 100.0) } else { format!("{last:.4}") };
            canvas.text(&format!("{name}  {last}"), x, y, TEXT, colour(name), HPos::Right)?;
        }
    }
    canvas.finish()
}

const PALETTE: [RGBColor; 6] =
    [BLUE, ORANGE, RGBColor(46, 139, 87), RGBColor(142, 68, 173), RGBColor(192, 57, 43), PALE];

/// Returns curves over integers from 0 on, one colour for each of up to six series, without values that are not finite.
pub fn lines(title: &str, across: &str, series: &[(&str, &[f64])]) -> Result<RgbImage, FormatError> {
    let finite = || series.iter().flat_map(|(_, v)| v.iter().copied()).filter(|x| x.is_finite());
    let (low, high) = finite().fold((f64::MAX, f64::MIN), |(l, h), x| (l.min(x), h.max(x)));
    let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
    let room = ((high - low) * 0.06).max(1e-6);
    let n = series.iter().map(|(_, v)| v.len()).max().unwrap_or(1).max(2);
    let mut canvas = Canvas::new(960, 520)?;
    canvas.text(title, MARGIN, 30, TITLE, INK, HPos::Left)?;
    let colour = |k: usize| PALETTE[k % PALETTE.len()];
    for (k, (name, _)) in series.iter().enumerate() {
        canvas.text(name, 960 - MARGIN - 150 * (series.len() - 1 - k) as i32, 30, TEXT, colour(k), HPos::Right)?;
    }
    let draw = |canvas: &mut Canvas| -> Drawing<()> {
        let area = canvas.area().margin(56, 12, 12, 20);
        let mut chart = ChartBuilder::on(&area)
            .x_label_area_size(46)
            .y_label_area_size(74)
            .build_cartesian_2d(0.0..(n - 1) as f64, low - room..high + room)?;
        let label = |size: f64| (FONT, size).into_font().color(&PALE);
        let digits = ((0.5 / (high - low + room)).log10().ceil() + 1.0).clamp(1.0, 5.0) as usize;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(LINE)
            .axis_style(PALE)
            .x_labels(11)
            .y_labels(6)
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| format!("{y:.digits$}"))
            .x_desc(across)
            .label_style(label(TEXT - 1.0))
            .axis_desc_style(label(TEXT))
            .draw()?;
        for (k, (_, values)) in series.iter().enumerate() {
            let points = values.iter().enumerate().filter(|(_, y)| y.is_finite()).map(|(i, &y)| (i as f64, y));
            chart.draw_series(LineSeries::new(points, colour(k).stroke_width(3)))?;
        }
        Ok(())
    };
    draw(&mut canvas).map_err(cannot_draw)?;
    canvas.finish()
}

fn colour(series: &str) -> RGBColor {
    if series.starts_with("val_") || series.starts_with("test") { ORANGE } else { BLUE }
}

type Drawing<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn panel(area: &DrawingArea<BitMapBackend<'_>, Shift>, series: &[&(String, Vec<f64>)], percent: bool) -> Drawing<()> {
    let finite = || series.iter().flat_map(|(_, v)| v.iter().copied()).filter(|x| x.is_finite());
    let (low, high) = finite().fold((f64::MAX, f64::MIN), |(l, h), x| (l.min(x), h.max(x)));
    let room = ((high - low) * 0.08).max(high.abs() * 1e-3).max(1e-6);
    let low = if low >= 0.0 { (low - room).max(0.0) } else { low - room };
    let high = if percent && high <= 1.0 { (high + room).min(1.0) } else { high + room };
    let n = series.iter().map(|(_, v)| v.len()).max().unwrap_or(1);
    let side = if n == 1 { 0.5 } else { 0.0 };
    let mut chart = ChartBuilder::on(area)
        .x_label_area_size(46)
        .y_label_area_size(74)
        .build_cartesian_2d(1.0 - side..n as f64 + side, low..high)?;
    let label = |size: f64| (FONT, size).into_font().color(&PALE);
    let digits = if percent { ((0.06 / (high - low)).log10().ceil().clamp(0.0, 2.0)) as usize } else { 0 };
    let loss_digits = ((0.5 / (high - low)).log10().ceil() + 1.0).clamp(1.0, 5.0) as usize;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(LINE)
        .axis_style(PALE)
        .x_labels(n.min(11))
        .y_labels(6)
        .x_label_formatter(&|x| if (x - x.round()).abs() < 1e-6 { format!("{x:.0}") } else { String::new() })
        .y_label_formatter(&|y| match percent {
            true => format!("{:.digits$}%", y * 100.0),
            false => format!("{y:.loss_digits$}"),
        })
        .x_desc("epoch")
        .label_style(label(TEXT - 1.0))
        .axis_desc_style(label(TEXT))
        .draw()?;
    for (name, values) in series {
        let points = || values.iter().enumerate().filter(|(_, y)| y.is_finite()).map(|(i, &y)| ((i + 1) as f64, y));
        let style = colour(name).stroke_width(3);
        chart.draw_series(LineSeries::new(points(), style))?;
        if n <= 50 {
            chart.draw_series(points().map(|p| Circle::new(p, 5, colour(name).filled())))?;
        }
    }
    Ok(())
}

/// Returns the counts of a confusion matrix, a row for each true class, a column for each predicted
/// one; hits are blue and mistakes orange, darker the larger their share of the row.
pub fn confusion(matrix: &[Vec<u64>], classes: &[String]) -> Result<RgbImage, FormatError> {
    let n = matrix.len();
    if n == 0 || matrix.iter().any(|row| row.len() != n) {
        return Err(FormatError::new(Flaw::Image, "the confusion matrix", "a square of counts", format!("{n} rows")));
    }
    let cell = (600 / n as i32).clamp(2, 56);
    let named = cell >= 14 && classes.len() == n;
    let size = (f64::from(cell) * 0.34).clamp(9.0, TEXT);
    let label = |c: &String| c.chars().take(14).collect::<String>();
    let longest = if named { classes.iter().map(|c| label(c).chars().count()).max().unwrap_or(0) as i32 } else { 0 };
    let left = MARGIN + 30 + longest * (size * 0.62) as i32 + 14;
    let short = longest * (size * 0.62) as i32 <= cell;
    let top = 96 + if named && short { 26 } else { 0 };
    let side = cell * n as i32;
    let mut canvas = Canvas::new(left + side.max(390) + MARGIN + 10, top + side + MARGIN)?;
    let all: u64 = matrix.iter().flatten().sum();
    let hits: u64 = (0..n).map(|i| matrix[i][i]).sum();
    let share = 100.0 * hits as f64 / all.max(1) as f64;
    canvas.text(&format!("{hits} of {all} right ({share:.2}%)"), left, 34, TITLE, INK, HPos::Left)?;
    canvas.text("predicted →", left, 70, TEXT, PALE, HPos::Left)?;
    canvas.turned_text("← true", MARGIN + 4, top + side / 2, TEXT, PALE)?;
    for (i, row) in matrix.iter().enumerate() {
        let y = top + i as i32 * cell;
        if named {
            canvas.text(&label(&classes[i]), left - 12, y + cell / 2, size, INK, HPos::Right)?;
            if short {
                canvas.text(
                    &label(&classes[i]),
                    left + i as i32 * cell + cell / 2,
                    top - 16,
                    size,
                    INK,
                    HPos::Center,
                )?;
            }
        }
        let sum = row.iter().sum::<u64>().max(1) as f64;
        for (j, &count) in row.iter().enumerate() {
            let x = left + j as i32 * cell;
            let share = count as f64 / sum;
            let depth = 0.12 + 0.88 * if i == j { share.powi(3) } else { share.sqrt() };
            let hue = if i == j { BLUE } else { ORANGE };
            let gap = i32::from(cell > 8);
            let shade = if count == 0 { RGBColor(246, 247, 249) } else { mix(PAPER, hue, depth) };
            canvas.fill(x, y, cell - gap, cell - gap, shade);
            if cell >= 22 && count > 0 {
                let ink = if depth > 0.55 { PAPER } else { INK };
                canvas.text(&count.to_string(), x + cell / 2, y + cell / 2, size, ink, HPos::Center)?;
            }
        }
    }
    canvas.finish()
}

/// Returns up to 25 mistakes, five in a row: image (h, w, 1) or (h, w, 3), predicted class, true class, probability of
/// the prediction.
pub fn mistakes(items: &[(HostTensor, usize, usize, f32)], classes: &[String]) -> Result<RgbImage, FormatError> {
    const TILE: i32 = 140;
    let items = &items[..items.len().min(25)];
    let (columns, rows) = (5, (items.len() as i32 + 4) / 5);
    let mut canvas = Canvas::new(2 * MARGIN + columns * (TILE + 20) - 20, 70 + rows * (TILE + 64) + 8)?;
    let title = if items.is_empty() { "No mistakes" } else { "The worst mistakes" };
    canvas.text(title, MARGIN, 36, TITLE, INK, HPos::Left)?;
    let name = |class: usize| match classes.get(class) {
        Some(name) => name.chars().take(14).collect(),
        None => class.to_string(),
    };
    for (i, (image, predicted, actual, probability)) in items.iter().enumerate() {
        let (x, y) = (MARGIN + i as i32 % columns * (TILE + 20), 70 + i as i32 / columns * (TILE + 64));
        canvas.image(image, x, y, TILE)?;
        let said = format!("says {}, {:.0}%", name(*predicted), probability * 100.0);
        canvas.text(&said, x + TILE / 2, y + TILE + 14, TEXT - 1.0, ORANGE, HPos::Center)?;
        let is = format!("is {}", name(*actual));
        canvas.text(&is, x + TILE / 2, y + TILE + 34, TEXT - 1.0, INK, HPos::Center)?;
    }
    canvas.finish()
}

/// Returns an image and the feature maps of each layer: the first sample's channels of (n, h, w, c) or (n, c) tensors,
/// from dark at a layer's minimum to bright at its maximum.
pub fn feature_maps(input: &HostTensor, layers: &[(String, HostTensor)]) -> Result<RgbImage, FormatError> {
    const WIDTH: i32 = 1000;
    const LEFT: i32 = 200;
    const GAP: i32 = 4;
    let mut blocks = Vec::new();
    for (name, t) in layers {
        let [h, w, c] = match *t.shape() {
            [n, h, w, c] if n > 0 => [h, w, c],
            [n, c] if n > 0 => [1, 1, c],
            _ => {
                let wanted = "a tensor (n, h, w, c) or (n, c)";
                return Err(FormatError::new(Flaw::Image, name, wanted, format!("{:?}", t.shape())));
            }
        };
        let shown = c.min(MAX_TILES * if h * w == 1 { 4 } else { 1 });
        // Few channels get large tiles, many get small ones; a pixel is a whole number of dots.
        let room = WIDTH - LEFT - MARGIN;
        let target = if h * w == 1 { 14 } else { ((room + GAP) / shown.clamp(1, 8) as i32 - GAP).clamp(40, 112) };
        let (tile_w, tile_h) = fit(h, w, target);
        let columns = ((room + GAP) / (tile_w + GAP)).max(1);
        let rows = (shown as i32 + columns - 1) / columns;
        blocks.push((name, t, [h, w, c], shown, (tile_w, tile_h), columns, (rows * (tile_h + GAP)).max(64)));
    }
    let height = 70 + 130 + blocks.iter().map(|b| b.6 + 22).sum::<i32>() + 6;
    let mut canvas = Canvas::new(WIDTH, height)?;
    canvas.text("What each layer sees", MARGIN, 36, TITLE, INK, HPos::Left)?;
    canvas.image(input, LEFT, 70, 112)?;
    canvas.text("input", MARGIN, 70 + 14, TEXT, INK, HPos::Left)?;
    let mut y = 70 + 112 + 22;
    for (name, t, [h, w, c], shown, (tile_w, tile_h), columns, height) in blocks {
        let short: String = name.chars().take(20).collect();
        canvas.text(&short, MARGIN, y + 12, TEXT, INK, HPos::Left)?;
        let shape = if h * w == 1 { c.to_string() } else { format!("{h}×{w}×{c}") };
        canvas.text(&shape, MARGIN, y + 34, TEXT - 2.0, PALE, HPos::Left)?;
        if shown < c {
            canvas.text(&format!("the first {shown}"), MARGIN, y + 54, TEXT - 2.0, PALE, HPos::Left)?;
        }
        let values = &t.to_f32()[..h * w * c];
        let (low, high) = range(values);
        for k in 0..shown {
            let (tx, ty) = (LEFT + k as i32 % columns * (tile_w + GAP), y + k as i32 / columns * (tile_h + GAP));
            canvas.tile(tx, ty, (tile_w, tile_h), (h, w), |i| viridis((values[i * c + k] - low) / (high - low)));
        }
        y += height + 22;
    }
    canvas.finish()
}

/// Returns the filters of convolutions, tensors (kh, kw, in, out): a column for each filter, a row
/// for each input channel, blue below zero, white at zero, orange above. Filters on three channels
/// are shown as colour.
pub fn filters(layers: &[(String, HostTensor)]) -> Result<RgbImage, FormatError> {
    const GAP: i32 = 4;
    let mut blocks = Vec::new();
    for (name, t) in layers {
        let [kh, kw, ic, oc] = *t.shape() else {
            let wanted = "a tensor (kh, kw, in, out)";
            return Err(FormatError::new(Flaw::Image, name, wanted, format!("{:?}", t.shape())));
        };
        let rows = if ic == 3 { 1 } else { ic.min(16) };
        let columns = oc.min(if rows == 1 { MAX_TILES } else { 32 });
        let target = (960 / columns.clamp(1, MAX_TILES) as i32 - GAP).clamp(if rows > 1 { 24 } else { 40 }, 84);
        let (tile_w, tile_h) = fit(kh, kw, target);
        // A long single row of filters is wrapped.
        let across = ((1000 + GAP) / (tile_w + GAP)).max(1) as usize;
        let (lines, width) = if rows == 1 { (columns.div_ceil(across), columns.min(across)) } else { (rows, columns) };
        let (width, height) = (width as i32 * (tile_w + GAP), lines as i32 * (tile_h + GAP));
        blocks.push((name, t, [kh, kw, ic, oc], (rows, columns, across), (tile_w, tile_h), width, height));
    }
    let width = blocks.iter().map(|b| b.5).max().unwrap_or(0).max(420);
    let height = 60 + blocks.iter().map(|b| b.6 + 56).sum::<i32>();
    let mut canvas = Canvas::new(width + 2 * MARGIN, height)?;
    canvas.text("Filters", MARGIN, 36, TITLE, INK, HPos::Left)?;
    let mut y = 66;
    for (name, t, [kh, kw, ic, oc], (rows, columns, across), (tile_w, tile_h), _, height) in blocks {
        let more = if columns < oc || (rows < ic && ic != 3) {
            format!(", the first {rows} inputs of {columns} filters")
        } else {
            String::new()
        };
        let plural = if ic == 1 { "" } else { "s" };
        let text = format!("{name}: {oc} filters of {kh}×{kw} on {ic} channel{plural}{more}");
        canvas.text(&text, MARGIN, y + 8, TEXT, PALE, HPos::Left)?;
        let values = t.to_f32();
        let max = values.iter().filter(|x| x.is_finite()).fold(f32::MIN_POSITIVE, |m, x| m.max(x.abs()));
        let level = |i: usize, ci: usize, co: usize| values[(i * ic + ci) * oc + co] / max;
        for row in 0..rows {
            for k in 0..columns {
                let (gx, gy) = if rows == 1 { (k % across, k / across) } else { (k, row) };
                let (tx, ty) = (MARGIN + gx as i32 * (tile_w + GAP), y + 26 + gy as i32 * (tile_h + GAP));
                canvas.fill(tx - 1, ty - 1, tile_w + 2, tile_h + 2, RGBColor(196, 201, 210));
                canvas.tile(tx, ty, (tile_w, tile_h), (kh, kw), |i| match ic {
                    3 => {
                        let byte = |ci| ((level(i, ci, k) * 0.5 + 0.5) * 255.0) as u8;
                        RGBColor(byte(0), byte(1), byte(2))
                    }
                    _ => diverging(level(i, row, k)),
                });
            }
        }
        y += height + 56;
    }
    canvas.finish()
}

/// Returns an image beside bars of the classes' probabilities, at most the ten most probable.
pub fn prediction(image: &HostTensor, classes: &[String], probabilities: &[f32]) -> Result<RgbImage, FormatError> {
    if classes.len() != probabilities.len() || classes.is_empty() {
        let (wanted, got) = (format!("{} probabilities", classes.len().max(1)), probabilities.len());
        return Err(FormatError::new(Flaw::Image, "the prediction", wanted, got));
    }
    let by_size = |a: &usize, b: &usize| probabilities[*b].total_cmp(&probabilities[*a]);
    let best = (0..classes.len()).min_by(by_size).unwrap_or(0);
    let mut shown: Vec<usize> = (0..classes.len()).collect();
    if shown.len() > 10 {
        shown.sort_by(by_size);
        shown.truncate(10);
    }
    const TILE: i32 = 336;
    const BARS: i32 = 260;
    let label = |i: usize| classes[i].chars().take(24).collect::<String>();
    let longest = shown.iter().map(|&i| label(i).chars().count()).max().unwrap_or(1) as i32;
    let bars_x = MARGIN + TILE + 28 + longest * 12 + 12;
    let mut canvas = Canvas::new(bars_x + BARS + 92 + MARGIN, 64 + TILE + MARGIN)?;
    let title = format!("{}, {:.1}% sure", label(best), probabilities[best] * 100.0);
    canvas.text(&title, MARGIN, 34, TITLE, INK, HPos::Left)?;
    canvas.image(image, MARGIN, 64, TILE)?;
    let step = TILE / shown.len().max(6) as i32;
    for (row, &i) in shown.iter().enumerate() {
        let (y, p) = (64 + row as i32 * step, f64::from(probabilities[i].clamp(0.0, 1.0)));
        let hue = if i == best { BLUE } else { mix(PAPER, BLUE, 0.45) };
        canvas.text(&label(i), bars_x - 12, y + step / 2, TEXT + 2.0, INK, HPos::Right)?;
        canvas.fill(bars_x, y + 4, BARS, step - 8, RGBColor(243, 245, 248));
        canvas.fill(bars_x, y + 4, ((f64::from(BARS) * p) as i32).max(2), step - 8, hue);
        let ink = if i == best { INK } else { PALE };
        canvas.text(&format!("{:.1}%", p * 100.0), bars_x + BARS + 10, y + step / 2, TEXT, ink, HPos::Left)?;
    }
    canvas.finish()
}

/// Returns an image (h, w, 1 or 3) blended half and half with a heat map (h, w), from dark violet at 0 to yellow at the
/// map's maximum (viridis). A batch of one is accepted too.
///
/// ```
/// use hubel::{data::plots, prelude::*};
/// let photo = HostTensor::u8([2, 2, 3], vec![90; 12])?;
/// let map = HostTensor::f32([2, 2], vec![0.0, 0.0, 0.0, 1.0])?;
/// let shown = plots::heat(&photo, &map)?;
/// assert!(shown.get_pixel(1, 1)[1] > shown.get_pixel(0, 0)[1]);
/// # Ok::<(), hubel::Error>(())
/// ```
pub fn heat(image: &HostTensor, map: &HostTensor) -> Result<RgbImage, FormatError> {
    let mut rgb = shown(image)?;
    let (w, h) = (rgb.width() as usize, rgb.height() as usize);
    if !matches!(*map.shape(), [mh, mw] | [1, mh, mw] if (mh, mw) == (h, w)) {
        let got = format!("{:?}", map.shape());
        return Err(FormatError::new(Flaw::Image, "the heat map", format!("the image's size, ({h}, {w})"), got));
    }
    let values = map.to_f32();
    let max = values.iter().filter(|x| x.is_finite()).fold(f32::MIN_POSITIVE, |m, &x| m.max(x));
    for (pixel, value) in rgb.pixels_mut().zip(values) {
        let mixed = mix(RGBColor(pixel[0], pixel[1], pixel[2]), viridis(value / max), 0.5);
        pixel.0 = [mixed.0, mixed.1, mixed.2];
    }
    Ok(rgb)
}

/// Returns an image, and beside it the image under each of these heat maps, drawn by [`heat`], with their names.
pub fn heats(image: &HostTensor, maps: &[(String, HostTensor)]) -> Result<RgbImage, FormatError> {
    let plain = shown(image)?;
    let longest = plain.width().max(plain.height()).max(1) as i32;
    let side = longest * (336 / longest).max(1);
    let mut tiles = vec![("the image", plain)];
    for (name, map) in maps {
        tiles.push((name, heat(image, map)?));
    }
    let mut canvas = Canvas::new(MARGIN + tiles.len() as i32 * (side + MARGIN), 56 + side + MARGIN)?;
    for (k, (name, rgb)) in tiles.iter().enumerate() {
        let x = MARGIN + k as i32 * (side + MARGIN);
        canvas.text(name, x, 32, TEXT, INK, HPos::Left)?;
        canvas.framed(rgb, x, 56, side);
    }
    canvas.finish()
}

#[cfg(test)]
mod tests;
