//! The time of each layer of a network's step.

use super::canvas::{BLUE, Canvas, INK, LINE, MARGIN, ORANGE, PALE, TEXT, TITLE};
use crate::io::FormatError;
use image::RgbImage;
use plotters::style::text_anchor::HPos;

/// The layers that have rows of their own.
const MAX_LAYERS: usize = 70;
const WIDTH: i32 = 1000;
const ROW: i32 = 19;
const TOP: i32 = 92;

/// Returns a row for each layer, in the given order: its name, and bars of its times in milliseconds, in one scale: forward to the left,
/// backward to the right, and to the left in grey what belongs to no layer. The layers of the least times beyond 70 share the last row.
pub fn layer_times(title: &str, layers: &[(String, [f64; 3])]) -> Result<RgbImage, FormatError> {
    let mut longest: Vec<f64> = layers.iter().map(|(_, times)| times.iter().sum()).collect();
    longest.sort_by(|a, b| b.total_cmp(a));
    let least = longest.get(MAX_LAYERS - 1).copied().unwrap_or(0.0);
    let (shown, others): (Vec<_>, Vec<_>) = layers.iter().partition(|(_, times)| times.iter().sum::<f64>() >= least);
    let mut rows: Vec<(String, [f64; 3])> = shown.into_iter().cloned().collect();
    if !others.is_empty() {
        let sum = |side: usize| others.iter().map(|(_, times)| times[side]).sum();
        rows.push((format!("{} others", others.len()), [sum(0), sum(1), sum(2)]));
    }
    let sides = rows.iter().flat_map(|(_, [forward, backward, step])| [forward + step, *backward]);
    let most = sides.fold(f64::MIN_POSITIVE, f64::max);
    let mut canvas = Canvas::new(WIDTH, TOP + ROW * rows.len() as i32 + MARGIN)?;
    canvas.text(title, MARGIN, 34, TITLE, INK, HPos::Left)?;
    // Names lie in the middle, bars grow away from them.
    let names = 130;
    let [left, right] = [WIDTH / 2 - names, WIDTH / 2 + names];
    let room = left - MARGIN - 76;
    let totals = [0, 1, 2].map(|side| layers.iter().map(|(_, times)| times[side]).sum::<f64>());
    canvas.text(&format!("forward {:.1} ms", totals[0]), left, 70, TEXT, BLUE, HPos::Right)?;
    if totals[2] > 0.0 {
        canvas.text(&format!("loss, metrics, optimizer {:.1} ms", totals[2]), MARGIN, 70, TEXT, PALE, HPos::Left)?;
    }
    canvas.text(&format!("backward {:.1} ms", totals[1]), right, 70, TEXT, ORANGE, HPos::Left)?;
    for (i, (name, [forward, backward, step])) in rows.iter().enumerate() {
        let y = TOP + ROW * i as i32;
        let name: String = match name.char_indices().rev().nth(31) {
            Some((from, _)) if from > 0 => format!("..{}", &name[from..]),
            _ => name.clone(),
        };
        canvas.text(&name, WIDTH / 2, y + ROW / 2, TEXT - 2.0, INK, HPos::Center)?;
        let width = |ms: f64| (ms / most * f64::from(room)).round() as i32;
        let [a, b, c] = [width(*forward), width(*backward), width(*step)];
        canvas.fill(left - a, y + 2, a, ROW - 4, BLUE);
        canvas.fill(left - a - c, y + 2, c, ROW - 4, PALE);
        canvas.fill(right, y + 2, b, ROW - 4, ORANGE);
        let label = |ms: f64| format!("{ms:.2}");
        if forward + step > 0.0 {
            canvas.text(&label(forward + step), left - a - c - 6, y + ROW / 2, TEXT - 3.0, PALE, HPos::Right)?;
        }
        if *backward > 0.0 {
            canvas.text(&label(*backward), right + b + 6, y + ROW / 2, TEXT - 3.0, PALE, HPos::Left)?;
        }
    }
    let height = ROW * rows.len() as i32;
    canvas.fill(left, TOP, 1, height, LINE);
    canvas.fill(right - 1, TOP, 1, height, LINE);
    canvas.finish()
}
