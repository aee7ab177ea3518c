//! Resizing of maps.

use super::reduce::matrix;
use crate::{
    graph::{OpError, Value},
    nn::onnx::call::{Build, Call, T, channels_last},
    ops::Interpolation,
};

pub const OPERATORS: &[(&str, Build)] = &[("Resize", resize), ("Upsample", resize)];

/// How the places of a resized axis are found, and what they are made of.
#[derive(Debug, Clone)]
struct Rule {
    mode: String,
    transformation: String,
    nearest: String,
    cubic: f64,
    excludes_outside: bool,
    extrapolation: f64,
    /// Whether filters are stretched where an axis shrinks.
    antialias: bool,
}

/// One axis: from `n` to `m` elements by a scale, of the part from `start` to `end`.
#[derive(Debug, Clone, Copy)]
struct Axis {
    n: usize,
    m: usize,
    scale: f64,
    roi: [f64; 2],
}

/// Returns the weight of an element at a distance of at most 2, by the cubic kernel with `a`.
fn cubic(a: f64, d: f64) -> f64 {
    match d <= 1.0 {
        true => ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0,
        false => ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a,
    }
}

impl Rule {
    /// Returns where an element of the result lies in the operand.
    fn place(&self, axis: &Axis, o: usize) -> f64 {
        let (n, m, x) = (axis.n as f64, axis.m as f64, o as f64);
        match self.transformation.as_str() {
            "asymmetric" => x / axis.scale,
            "align_corners" => {
                // The extent before it is rounded down.
                let whole = axis.scale * n;
                if whole == 1.0 { 0.0 } else { x * (n - 1.0) / (whole - 1.0) }
            }
            "pytorch_half_pixel" if axis.m == 1 => 0.0,
            "tf_half_pixel_for_nn" => (x + 0.5) / axis.scale,
            "half_pixel_symmetric" => {
                let adjustment = m / (axis.scale * n);
                n / 2.0 * (1.0 - adjustment) + (x + 0.5) / axis.scale - 0.5
            }
            "tf_crop_and_resize" => {
                let [start, end] = axis.roi;
                match axis.m {
                    1 => 0.5 * (start + end) * (n - 1.0),
                    _ => start * (n - 1.0) + x * (end - start) * (n - 1.0) / (m - 1.0),
                }
            }
            _ => (x + 0.5) / axis.scale - 0.5,
        }
    }

    /// Returns the elements that make one of the result, with their weights; none where it lies outside.
    fn taps(&self, axis: &Axis, o: usize) -> Option<Vec<(usize, f64)>> {
        let (at, last) = (self.place(axis, o), axis.n as i64 - 1);
        if self.transformation == "tf_crop_and_resize" && !(0.0..=last as f64).contains(&at) {
            return None;
        }
        let held = |i: i64| i.clamp(0, last) as usize;
        let low = at.floor();
        if self.stretches(axis) {
            return Some(self.stretched(axis, at));
        }
        match self.mode.as_str() {
            "nearest" => {
                let i = match self.nearest.as_str() {
                    "round_prefer_ceil" => (at + 0.5).floor(),
                    "floor" => low,
                    "ceil" => at.ceil(),
                    _ => (at - 0.5).ceil(),
                };
                Some(vec![(held(i as i64), 1.0)])
            }
            "cubic" => {
                let share = at - low;
                let mut weights = [1.0 + share, share, 1.0 - share, 2.0 - share].map(|d| cubic(self.cubic, d));
                if self.excludes_outside {
                    let places = [-1, 0, 1, 2].map(|k| low as i64 + k);
                    weights.iter_mut().zip(places).filter(|(_, i)| !(0..=last).contains(i)).for_each(|(w, _)| *w = 0.0);
                    let sum: f64 = weights.iter().sum();
                    weights.iter_mut().for_each(|w| *w /= sum);
                }
                Some(weights.into_iter().zip(-1..).map(|(w, k)| (held(low as i64 + k), w)).collect())
            }
            _ => {
                let share = at - low;
                Some(vec![(held(low as i64), 1.0 - share), (held(low as i64 + 1), share)])
            }
        }
    }

    fn stretches(&self, axis: &Axis) -> bool {
        self.antialias && axis.scale < 1.0 && self.mode != "nearest"
    }

    /// Returns the elements under the filter stretched by the factor by which the axis shrinks.
    fn stretched(&self, axis: &Axis, at: f64) -> Vec<(usize, f64)> {
        let last = axis.n as i64 - 1;
        let reach = if self.mode == "cubic" { 2.0 } else { 1.0 };
        let weight = |d: f64| match d.abs() {
            d if d >= reach => 0.0,
            d if self.mode == "cubic" => cubic(self.cubic, d),
            d => 1.0 - d,
        };
        let half = (reach / axis.scale).ceil() as i64;
        let before = at.ceil() as i64 - 1;
        let places = before - half + 1..=before + half;
        let taps = places.map(|i| (i, weight((i as f64 - at) * axis.scale)));
        let taps: Vec<(i64, f64)> = taps.filter(|(i, _)| !self.excludes_outside || (0..=last).contains(i)).collect();
        let sum: f64 = taps.iter().map(|(_, w)| w).sum();
        taps.into_iter().map(|(i, w)| (i.clamp(0, last) as usize, w / sum)).collect()
    }
}

fn rule(c: &Call) -> Result<Rule, OpError> {
    let node = c.node;
    // Up to opset 10 there was one rule.
    let (transformation, nearest) = match node.op == "Upsample" || node.opset < 11 {
        true => ("asymmetric", "floor"),
        false => ("half_pixel", "round_prefer_floor"),
    };
    let rule = Rule {
        mode: match node.text("mode", "nearest").as_str() {
            "bilinear" => "linear".to_owned(),
            other => other.to_owned(),
        },
        transformation: node.text("coordinate_transformation_mode", transformation),
        nearest: node.text("nearest_mode", nearest),
        cubic: f64::from(node.float("cubic_coeff_a", -0.75)),
        excludes_outside: node.int("exclude_outside", 0) == 1,
        extrapolation: f64::from(node.float("extrapolation_value", 0.0)),
        antialias: node.int("antialias", 0) == 1,
    };
    if !["nearest", "linear", "cubic"].contains(&rule.mode.as_str()) {
        return Err(c.wrong("nearest, linear or cubic", &rule.mode, "choose one of those"));
    }
    Ok(rule)
}

/// Returns for each axis its new extent and its scale.
fn sizes(c: &Call, dims: &[usize], axes: &[usize]) -> Result<Vec<(usize, f64)>, OpError> {
    let old = c.node.op == "Upsample" || c.node.opset < 11;
    let (scales_at, sizes_at) = if old { (1, 9) } else { (2, 3) };
    let scales: Vec<f64> = match (c.has(scales_at), c.node.floats("scales")) {
        (true, _) => c.numbers(scales_at, "scales")?,
        (false, Some(scales)) => scales.iter().map(|&s| f64::from(s)).collect(),
        (false, None) => Vec::new(),
    };
    let mut all: Vec<(usize, f64)> = dims.iter().map(|&d| (d, 1.0)).collect();
    let policy = c.node.text("keep_aspect_ratio_policy", "stretch");
    if c.has(sizes_at) && scales.is_empty() {
        let sizes = c.ints(sizes_at, "sizes")?;
        let ratio = |(&axis, &size): (&usize, &i64)| size as f64 / dims[axis].max(1) as f64;
        let ratios: Vec<f64> = axes.iter().zip(&sizes).map(ratio).collect();
        let one = match policy.as_str() {
            "not_larger" => ratios.iter().copied().reduce(f64::min),
            "not_smaller" => ratios.iter().copied().reduce(f64::max),
            _ => None,
        };
        for ((&axis, &size), &ratio) in axes.iter().zip(&sizes).zip(&ratios) {
            all[axis] = match one {
                Some(scale) => ((dims[axis] as f64 * scale + 0.5).floor() as usize, scale),
                None => (size.max(0) as usize, ratio),
            };
        }
    } else {
        for (&axis, &scale) in axes.iter().zip(&scales) {
            // As others have it, in 32 bits, where 5 · 1.4 is 7.
            all[axis] = ((dims[axis] as f32 * scale as f32).floor().max(0.0) as usize, scale);
        }
    }
    match all.iter().any(|(m, s)| !(1..=1 << 16).contains(m) || !s.is_finite() || *s <= 0.0) {
        true => Err(c.wrong("extents from 1 to 65536", format!("{all:?}"), "choose other scales")),
        false => Ok(all),
    }
}

fn resize(c: &mut Call) -> Result<Vec<T>, OpError> {
    let rule = rule(c)?;
    let mut x = c.t(0)?;
    if x.flat.is_some() {
        x = c.natural_of(x)?;
    }
    let dims = c.dims_of(&x);
    let axes = match c.node.ints("axes") {
        Some(axes) => c.axes(axes, dims.len())?,
        None => (0..dims.len()).collect(),
    };
    let new = sizes(c, &dims, &axes)?;
    let mut roi = vec![[0.0, 1.0]; dims.len()];
    if rule.transformation == "tf_crop_and_resize" {
        let numbers = c.numbers(1, "a region")?;
        for (k, &axis) in axes.iter().enumerate() {
            roi[axis] = [numbers.get(k).copied().unwrap_or(0.0), numbers.get(k + axes.len()).copied().unwrap_or(1.0)];
        }
    }
    let of = |axis: usize| Axis { n: dims[axis], m: new[axis].0, scale: new[axis].1, roi: roi[axis] };
    let is_whole = |a: usize| of(a).n == of(a).m && rule.transformation != "tf_crop_and_resize";
    let changed: Vec<usize> = (0..dims.len()).filter(|&a| !is_whole(a)).collect();
    let of_maps = dims.len() == 4 && changed.iter().all(|&a| a > 1);
    if let Some(kind) = of_maps.then(|| plain(&rule, &[of(2), of(3)])).flatten() {
        let x = c.arranged(x, &channels_last(4))?;
        let value = c.g().resize2d(x.value, [new[2].0, new[3].0], kind)?;
        return Ok(vec![x.with(value)]);
    }
    for axis in changed {
        x.value = resized(c, &x, axis, &rule, &of(axis))?;
    }
    Ok(vec![x])
}

/// Returns the interpolation of the graph's own operation, if it makes the same elements of the same.
fn plain(rule: &Rule, axes: &[Axis]) -> Option<Interpolation> {
    // Stretched filters are as long as the axis, which only `resized` bounds.
    if axes.iter().any(|axis| rule.stretches(axis)) {
        return None;
    }
    let kind = match rule.mode.as_str() {
        "nearest" => Interpolation::Nearest,
        "linear" => Interpolation::Bilinear,
        _ => return None,
    };
    let same = |axis: &Axis| {
        (0..axis.m).all(|o| {
            let place = (o as f64 + 0.5) * axis.n as f64 / axis.m as f64;
            let Some(taps) = rule.taps(axis, o) else { return false };
            match kind {
                Interpolation::Nearest => taps[0].0 == place as usize,
                Interpolation::Bilinear => {
                    let own = (place - 0.5).clamp(0.0, axis.n as f64 - 1.0);
                    let theirs: f64 = taps.iter().map(|(i, w)| *i as f64 * w).sum();
                    (own - theirs).abs() < 1e-4
                }
            }
        })
    };
    axes.iter().all(same).then_some(kind)
}

/// Returns a tensor with one axis resized, as a product with the taps' weights.
fn resized(c: &mut Call, x: &T, axis: usize, rule: &Rule, of: &Axis) -> Result<Value, OpError> {
    let at = x.place(axis);
    let shape = c.g().shape(x.value).clone();
    if at == 0 && shape.is_batched() {
        return Err(c.batch("a resized batch"));
    }
    // A stretched filter is as long as a few axes.
    if of.n > 1 << 16 || of.n * of.m > 1 << 22 {
        return Err(c.wrong("smaller axes", format!("{} to {}", of.n, of.m), "use nearest or linear with half_pixel"));
    }
    let mut weights = vec![0f32; of.n * of.m];
    let mut outside = vec![0f32; of.m];
    for o in 0..of.m {
        match rule.taps(of, o) {
            Some(taps) => taps.into_iter().for_each(|(i, w)| weights[i * of.m + o] += w as f32),
            None => outside[o] = rule.extrapolation as f32,
        }
    }
    let matrix = matrix(c, &format!("resize_{axis}"), [of.n, of.m], &|i| weights[i])?;
    let rank = shape.rank();
    let mut order: Vec<usize> = (0..rank).collect();
    order.swap(at, rank - 1);
    let g = c.g();
    let moved = if at == rank - 1 { x.value } else { g.transpose(x.value, &order)? };
    let mut y = g.project(moved, matrix, None)?;
    if outside.iter().any(|&v| v != 0.0) {
        let outside = g.literal([of.m], outside)?;
        y = g.add(y, outside)?;
    }
    if at == rank - 1 { Ok(y) } else { g.transpose(y, &order) }
}
