//! Boxes joined by arrows, from the top down, as SVG and as images.

use super::canvas::{BLUE, Canvas, FONT, INK, LINE, MARGIN, ORANGE, PALE, PAPER, TEXT, mask};
use crate::io::FormatError;
use image::RgbImage;
use plotters::style::{RGBColor, text_anchor::HPos};
use std::{collections::HashMap, fmt::Write as _};

/// A box: two lines with a text at each end, and the earlier boxes that arrows lead from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Block {
    pub lines: [[String; 2]; 2],
    pub inputs: Vec<usize>,
}

const HEIGHT: f64 = 58.0;
const GAP: f64 = 44.0;
const LANE: f64 = 26.0;
const BETWEEN: f64 = 22.0;
const STRIP: f64 = 5.0;
const PAD: f64 = 14.0;
const FIRST: f64 = 19.0;
const SECOND: f64 = 41.0;
const SMALL: f64 = TEXT - 3.0;

/// Positions of boxes and lines, in dots.
pub(crate) struct Diagram<'b> {
    blocks: &'b [Block],
    /// Left and top of the boxes.
    corners: Vec<(f64, f64)>,
    box_width: f64,
    /// Lines from a point down to another, and whether they end in an arrow.
    lines: Vec<[(f64, f64); 2]>,
    arrows: Vec<[(f64, f64); 2]>,
    width: f64,
    height: f64,
}

/// A box, or the lane in which an arrow passes a row.
struct Item {
    row: usize,
    width: f64,
    from: Vec<usize>,
    x: f64,
}

impl<'b> Diagram<'b> {
    /// Returns the layout: a box's row is its longest path from the top, its position in the row the mean of its
    /// predecessors'.
    pub fn new(blocks: &'b [Block]) -> Result<Self, FormatError> {
        let mut box_width: f64 = 120.0;
        for block in blocks {
            for (line, size) in block.lines.iter().zip([TEXT, SMALL]) {
                let ends = [width(&line[0], size)?, width(&line[1], SMALL)?];
                box_width = box_width.max(ends[0] + ends[1] + 22.0 + 2.0 * PAD + STRIP);
            }
        }
        let mut items: Vec<Item> = Vec::new();
        for block in blocks {
            let row = block.inputs.iter().map(|&i| items[i].row + 1).max().unwrap_or(0);
            items.push(Item { row, width: box_width, from: Vec::new(), x: 0.0 });
        }
        let mut lanes: HashMap<(usize, usize), usize> = HashMap::new();
        for (i, block) in blocks.iter().enumerate() {
            for &source in &block.inputs {
                let mut last = source;
                for row in items[source].row + 1..items[i].row {
                    last = *lanes.entry((source, row)).or_insert_with(|| {
                        items.push(Item { row, width: LANE, from: vec![last], x: 0.0 });
                        items.len() - 1
                    });
                }
                items[i].from.push(last);
            }
        }
        let n_rows = items.iter().map(|i| i.row + 1).max().unwrap_or(0);
        for row in 0..n_rows {
            let mut members: Vec<(f64, usize)> = (0..items.len())
                .filter(|&i| items[i].row == row)
                .map(|i| {
                    let from = &items[i].from;
                    (from.iter().map(|&f| items[f].x).sum::<f64>() / from.len().max(1) as f64, i)
                })
                .collect();
            members.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            let widths: Vec<f64> = members.iter().map(|m| items[m.1].width).collect();
            let wanted: Vec<f64> = members.iter().map(|m| m.0).collect();
            for (x, (_, i)) in spread(&wanted, &widths).into_iter().zip(members) {
                items[i].x = x;
            }
        }
        let margin = f64::from(MARGIN);
        let left = items.iter().map(|i| i.x - i.width / 2.0).fold(0.0, f64::min) - margin;
        let right = items.iter().map(|i| i.x + i.width / 2.0).fold(0.0, f64::max) + margin;
        items.iter_mut().for_each(|i| i.x = (i.x - left).round());
        let top = |row: usize| margin + row as f64 * (HEIGHT + GAP);
        let (mut lines, mut arrows) = (Vec::new(), Vec::new());
        for (i, item) in items.iter().enumerate() {
            let end = top(item.row);
            let mut from = item.from.clone();
            from.sort_by(|&a, &b| items[a].x.total_cmp(&items[b].x));
            for (port, &source) in from.iter().enumerate() {
                let start = (items[source].x, top(items[source].row) + HEIGHT);
                let x = item.x + 22.0 * (port as f64 - (from.len() - 1) as f64 / 2.0);
                if i < blocks.len() {
                    arrows.push([start, (x, end)]);
                } else {
                    lines.extend([[start, (x, end)], [(x, end), (x, end + HEIGHT)]]);
                }
            }
        }
        let corners = items[..blocks.len()].iter().map(|i| (i.x - box_width / 2.0, top(i.row))).collect();
        let height = top(n_rows) - GAP + margin;
        Ok(Diagram { blocks, corners, box_width, lines, arrows, width: right - left, height })
    }

    /// Returns the texts of a box as (text, x, y of the middle, size, colour, end at x).
    fn texts(&self, i: usize) -> [(&str, f64, f64, f64, RGBColor, HPos); 4] {
        let ((x, y), [[a, b], [c, d]]) = (self.corners[i], &self.blocks[i].lines);
        let (left, right) = (x + STRIP + PAD, x + self.box_width - PAD);
        [
            (a, left, y + FIRST, TEXT, INK, HPos::Left),
            (b, right, y + FIRST, SMALL, BLUE, HPos::Right),
            (c, left, y + SECOND, SMALL, PALE, HPos::Left),
            (d, right, y + SECOND, SMALL, PALE, HPos::Right),
        ]
    }

    /// Returns the colour of a box's left side: inputs, boxes with a fourth text, others.
    fn strip(&self, i: usize) -> RGBColor {
        let block = &self.blocks[i];
        match (block.inputs.is_empty(), block.lines[1][1].is_empty()) {
            (true, _) => ORANGE,
            (false, false) => BLUE,
            (false, true) => RGBColor(190, 196, 206),
        }
    }

    /// Returns the diagram as SVG.
    pub fn svg(&self) -> String {
        let (w, h) = (self.width.ceil(), self.height.ceil());
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\" \
             font-family=\"{FONT}, Verdana, sans-serif\">\n<rect width=\"100%\" height=\"100%\" fill=\"{}\"/>\n",
            hex(PAPER)
        );
        let _ = writeln!(
            out,
            "<defs><marker id=\"arrow\" viewBox=\"0 0 10 10\" refX=\"10\" refY=\"5\" markerWidth=\"10\" markerHeight=\"10\" \
             markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path d=\"M0 0L10 5L0 10z\" fill=\"{}\"/></marker></defs>",
            hex(PALE)
        );
        for (ends, marker) in [(&self.lines, ""), (&self.arrows, " marker-end=\"url(#arrow)\"")] {
            for [(x0, y0), (x1, y1)] in ends {
                let middle = (y0 + y1) / 2.0;
                let _ = writeln!(
                    out,
                    "<path d=\"M{x0} {y0}C{x0} {middle} {x1} {middle} {x1} {y1}\" fill=\"none\" stroke=\"{}\" \
                     stroke-width=\"1.6\"{marker}/>",
                    hex(PALE)
                );
            }
        }
        for (i, (x, y)) in self.corners.iter().enumerate() {
            let _ = writeln!(
                out,
                "<rect x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{HEIGHT}\" fill=\"{}\" stroke=\"{}\"/>\
                 <rect x=\"{x}\" y=\"{y}\" width=\"{STRIP}\" height=\"{HEIGHT}\" fill=\"{}\"/>",
                self.box_width,
                hex(BOX),
                hex(EDGE),
                hex(self.strip(i))
            );
            for (text, x, y, size, ink, end) in self.texts(i).into_iter().filter(|t| !t.0.is_empty()) {
                let anchor = if matches!(end, HPos::Right) { " text-anchor=\"end\"" } else { "" };
                // Capitals are 0.73 sizes high.
                let (baseline, text) = (y + 0.365 * size, escape(text));
                let _ = writeln!(
                    out,
                    "<text x=\"{x}\" y=\"{baseline:.1}\" font-size=\"{size}\" fill=\"{}\"{anchor}>{text}</text>",
                    hex(ink)
                );
            }
        }
        out.push_str("</svg>\n");
        out
    }

    /// Returns the diagram as an image, or an error if it is too large.
    pub fn image(&self) -> Result<RgbImage, FormatError> {
        let mut canvas = Canvas::new(self.width.ceil() as i32, self.height.ceil() as i32)
            .map_err(|e| e.advise("write it as .svg, which has no size limit"))?;
        for &[start, end] in &self.lines {
            curve(&mut canvas, start, end);
        }
        for &[start, end] in &self.arrows {
            curve(&mut canvas, start, (end.0, end.1 - 5.0));
            let (x, y) = (end.0 as i32 - 8, end.1 as i32 - 10);
            let head: Vec<u8> = (0..160)
                .map(|i| {
                    let (dx, dy) = (f64::from(x + i % 16) + 0.5 - end.0, f64::from(y + i / 16) + 0.5 - end.1);
                    share(0.5 - dy * 0.5 - dx.abs())
                })
                .collect();
            canvas.ink(&head, (16, 10), (x, y), PALE);
        }
        for (i, &(x, y)) in self.corners.iter().enumerate() {
            let (x, y, w, h) = (x as i32, y as i32, self.box_width as i32, HEIGHT as i32);
            canvas.fill(x, y, w, h, EDGE);
            canvas.fill(x + 1, y + 1, w - 2, h - 2, BOX);
            canvas.fill(x, y, STRIP as i32, h, self.strip(i));
            for (text, x, y, size, ink, end) in self.texts(i).into_iter().filter(|t| !t.0.is_empty()) {
                canvas.text(text, x as i32, y as i32, size, ink, end)?;
            }
        }
        canvas.finish()
    }
}

const BOX: RGBColor = RGBColor(248, 249, 251);
const EDGE: RGBColor = mid(LINE, PALE);

const fn mid(a: RGBColor, b: RGBColor) -> RGBColor {
    RGBColor(a.0 / 2 + b.0 / 2, a.1 / 2 + b.1 / 2, a.2 / 2 + b.2 / 2)
}

fn hex(c: RGBColor) -> String {
    format!("#{:02x}{:02x}{:02x}", c.0, c.1, c.2)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn width(text: &str, size: f64) -> Result<f64, FormatError> {
    if text.is_empty() { Ok(0.0) } else { mask(text, size).map(|m| f64::from(m.1)) }
}

fn share(x: f64) -> u8 {
    (x.clamp(0.0, 1.0) * 255.0) as u8
}

/// Returns the positions nearest to the wanted ones at which boxes of these widths do not overlap.
///
/// Minus the preceding widths, positions must not decrease: pooling neighbours to their mean gives the least squares.
fn spread(wanted: &[f64], widths: &[f64]) -> Vec<f64> {
    let mut offsets = vec![0.0; wanted.len()];
    for i in 1..wanted.len() {
        offsets[i] = offsets[i - 1] + (widths[i - 1] + widths[i]) / 2.0 + BETWEEN;
    }
    let mut pools: Vec<(f64, usize)> = Vec::new();
    for (w, offset) in wanted.iter().zip(&offsets) {
        let mut pool = (w - offset, 1);
        while let Some(&(sum, n)) = pools.last().filter(|p| p.0 / p.1 as f64 >= pool.0 / pool.1 as f64) {
            pool = (pool.0 + sum, pool.1 + n);
            pools.pop();
        }
        pools.push(pool);
    }
    let means = pools.iter().flat_map(|&(sum, n)| std::iter::repeat_n(sum / n as f64, n));
    means.zip(&offsets).map(|(mean, offset)| mean + offset).collect()
}

/// Draws a line that leaves and arrives vertically.
fn curve(canvas: &mut Canvas, (x0, y0): (f64, f64), (x1, y1): (f64, f64)) {
    const STEPS: usize = 24;
    let points: Vec<(f64, f64)> = (0..=STEPS)
        .map(|k| {
            let t = k as f64 / STEPS as f64;
            let s = t * t * (3.0 - 2.0 * t);
            let bezier = |a: f64, m: f64, b: f64| {
                let u = 1.0 - t;
                u * u * u * a + 3.0 * u * t * m + t * t * t * b
            };
            (x0 + (x1 - x0) * s, bezier(y0, (y0 + y1) / 2.0, y1))
        })
        .collect();
    let (left, right) = (x0.min(x1) as i32 - 2, x0.max(x1) as i32 + 3);
    let (top, bottom) = (y0 as i32, y1.ceil() as i32);
    let (w, h) = (right - left, bottom - top);
    let distance = |x: f64, y: f64| {
        let to = |(a, b): (&(f64, f64), &(f64, f64))| {
            let (dx, dy) = (b.0 - a.0, b.1 - a.1);
            let t = (((x - a.0) * dx + (y - a.1) * dy) / (dx * dx + dy * dy).max(1e-9)).clamp(0.0, 1.0);
            (x - a.0 - t * dx).hypot(y - a.1 - t * dy)
        };
        points.iter().zip(&points[1..]).map(to).fold(f64::MAX, f64::min)
    };
    let at = |i: i32| share(1.3 - distance(f64::from(left + i % w) + 0.5, f64::from(top + i / w) + 0.5));
    let mask: Vec<u8> = (0..w * h).map(at).collect();
    canvas.ink(&mask, (w, h), (left, top), PALE);
}
