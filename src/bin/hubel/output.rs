//! What an output of a network is for a person: likely classes, a picture of a map, or numbers.

use anyhow::Result;
use hubel::{io::image, nn::models::imagenet_classes, prelude::*};
use serde_json::{Value as Json, json};
use std::path::Path;

/// The most numbers that are printed.
const MAX_NUMBERS: usize = 16;

/// An output of one sample, with the names of its classes if they are known, and where a picture goes.
pub struct Output<'o> {
    pub values: &'o HostTensor,
    pub names: &'o [String],
    pub top: usize,
    pub picture: &'o Path,
}

/// Returns whether numbers are probabilities of classes that exclude each other.
fn are_shares(values: &[f32]) -> bool {
    values.iter().all(|p| (0.0..=1.0).contains(p)) && (values.iter().sum::<f32>() - 1.0).abs() < 1e-3
}

/// Returns the colour of a class: black for the first, which is usually the background.
fn colour(class: usize) -> [f32; 3] {
    if class == 0 {
        return [0.0; 3];
    }
    // Hues a golden angle apart differ however many there are.
    let hue = (class as f32 * 137.508).to_radians();
    [0.0, 2.094, 4.189].map(|shift: f32| 0.5 + 0.5 * (hue - shift).cos())
}

impl Output<'_> {
    /// Returns the lines and the JSON of the output; a map is written as a picture.
    pub fn show(&self) -> Result<(Vec<String>, Json)> {
        let values = self.values.to_f32();
        match self.values.shape()[1..] {
            [h, w, c] if h * w > 1 => self.map(&values, [h, w, c]),
            _ if values.len() > 1 && (self.names.len() == values.len() || are_shares(&values)) => {
                Ok(self.classes(&values))
            }
            _ => Ok(self.numbers(&values)),
        }
    }

    fn name(&self, class: usize, of: usize) -> String {
        if self.names.is_empty() && of == 1000 {
            return imagenet_classes().get(class).copied().unwrap_or_default().to_owned();
        }
        self.names.get(class).cloned().unwrap_or_else(|| format!("class {class}"))
    }

    fn classes(&self, values: &[f32]) -> (Vec<String>, Json) {
        let n = values.len();
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
        order.truncate(self.top.max(1));
        let width = order.iter().map(|&i| self.name(i, n).chars().count()).max().unwrap_or(0);
        let probable = values.iter().all(|p| (0.0..=1.0).contains(p));
        let line = |&i: &usize| match probable {
            true => {
                let bar = "█".repeat((values[i] * 40.0).round() as usize);
                format!("  {:width$} {:5.1}% {bar}", self.name(i, n), 100.0 * values[i])
            }
            false => format!("  {:width$} {:.4}", self.name(i, n), values[i]),
        };
        let key = if probable { "probability" } else { "value" };
        let top = order.iter().map(|&i| json!({ "class": i, "name": self.name(i, n), key: values[i] }));
        (order.iter().map(line).collect(), json!({ "top": top.collect::<Vec<_>>() }))
    }

    fn numbers(&self, values: &[f32]) -> (Vec<String>, Json) {
        let mut line: Vec<String> = values.iter().take(MAX_NUMBERS).map(|v| format!("{v:.4}")).collect();
        if values.len() > MAX_NUMBERS {
            line.push(format!("… of {:?}", &self.values.shape()[1..]));
        }
        let json = json!({ "shape": self.values.shape()[1..], "numbers": values });
        (vec![format!("  {}", line.join(" "))], json)
    }

    /// A map of one channel is grey, of three an image, unless they are shares of classes; of others the most probable
    /// class of each pixel has a colour.
    fn map(&self, values: &[f32], [h, w, c]: [usize; 3]) -> Result<(Vec<String>, Json)> {
        let (min, max) = values.iter().fold((f32::MAX, f32::MIN), |(min, max), v| (min.min(*v), max.max(*v)));
        let scaled = if min >= 0.0 && max <= 1.0 { (0.0, 1.0) } else { (min, max - min) };
        let unit: Vec<f32> = values.iter().map(|v| (v - scaled.0) / scaled.1.max(f32::MIN_POSITIVE)).collect();
        let is_image = c == 3 && self.names.len() != 3 && !values.chunks(3).all(are_shares);
        let mut counts = vec![0usize; c];
        let pixels = if c == 1 || is_image {
            HostTensor::f32([h, w, c], unit)?
        } else {
            let colours = values.chunks(c).flat_map(|pixel| {
                let class = (0..c).max_by(|&a, &b| pixel[a].total_cmp(&pixel[b])).unwrap_or(0);
                counts[class] += 1;
                colour(class)
            });
            HostTensor::f32([h, w, 3], colours.collect())?
        };
        image::save(&image::to_rgb(&pixels)?, self.picture)?;
        let picture = self.picture.display().to_string();
        let mut lines = vec![format!("  {h} × {w} pixels of {c} channels from {min:.4} to {max:.4}: {picture}")];
        let share = |class: usize| counts[class] as f64 / (h * w) as f64;
        let mut seen: Vec<usize> = (0..c).filter(|&class| counts[class] > 0).collect();
        seen.sort_by_key(|&class| std::cmp::Reverse(counts[class]));
        seen.truncate(self.top.max(1));
        lines.extend(seen.iter().map(|&class| format!("  {} {:.1}%", self.name(class, c), 100.0 * share(class))));
        let classes = seen.iter().map(|&i| json!({ "class": i, "name": self.name(i, c), "share": share(i) }));
        let json = json!({ "shape": [h, w, c], "picture": picture, "classes": classes.collect::<Vec<_>>() });
        Ok((lines, json))
    }
}
