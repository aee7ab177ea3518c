//! Maps and volumes sampled at places that a grid gives.

use crate::{
    graph::{Graph, OpError, Value},
    nn::onnx::call::{Build, Call, T, channels_last},
    ops::Part,
    tensor::Shape,
};

pub const OPERATORS: &[(&str, Build)] = &[("GridSample", grid_sample)];

/// What stands outside of the map.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Outside {
    Zeros,
    Border,
    /// The map mirrored at these places.
    Mirror,
}

/// An axis of the map.
#[derive(Debug, Clone, Copy)]
struct Axis {
    n: usize,
    aligned: bool,
    outside: Outside,
}

impl Axis {
    /// Returns places from −1 to 1 as those of elements.
    fn places(&self, g: &mut Graph, x: Value) -> Result<Value, OpError> {
        let n = self.n as f32;
        let (factor, offset) =
            if self.aligned { ((n - 1.0) / 2.0, (n - 1.0) / 2.0) } else { (n / 2.0, (n - 1.0) / 2.0) };
        let (scaled, offset) = (g.scale(x, factor)?, g.constant(offset)?);
        let at = g.add(scaled, offset)?;
        self.inside(g, at)
    }

    /// Returns places held inside, or mirrored there.
    fn inside(&self, g: &mut Graph, x: Value) -> Result<Value, OpError> {
        let last = self.n as f32 - 1.0;
        match self.outside {
            Outside::Zeros => Ok(x),
            Outside::Border => g.clip(x, 0.0, last),
            Outside::Mirror => {
                let (low, high) = if self.aligned { (0.0, last) } else { (-0.5, last + 0.5) };
                let range = high - low;
                if range == 0.0 {
                    return g.scale(x, 0.0);
                }
                // A wave of period 2 · range.
                let low = g.constant(low)?;
                let from = g.sub(x, low)?;
                let periods = g.scale(from, 0.5 / range)?;
                let whole = g.unary("floor", periods)?;
                let whole = g.scale(whole, 2.0 * range)?;
                let (rest, range) = (g.sub(from, whole)?, g.constant(range)?);
                let off = g.sub(rest, range)?;
                let off = g.abs(off)?;
                let back = g.sub(range, off)?;
                g.add(back, low)
            }
        }
    }

    /// Returns the elements that places are made of, each with its weight, which is 0 outside.
    fn taps(&self, g: &mut Graph, at: Value, mode: &str) -> Result<Vec<(Value, Value)>, OpError> {
        let one = g.constant(1.0)?;
        if mode == "nearest" {
            let place = g.unary("round", at)?;
            return Ok(vec![self.tap(g, place, one)?]);
        }
        let low = g.unary("floor", at)?;
        let share = g.sub(at, low)?;
        let rest = g.sub(one, share)?;
        if mode != "cubic" && mode != "bicubic" {
            let next = g.add(low, one)?;
            return Ok(vec![self.tap(g, low, rest)?, self.tap(g, next, share)?]);
        }
        let mut taps = Vec::new();
        for k in -1..=2 {
            let step = g.constant(k as f32)?;
            let place = g.add(low, step)?;
            let distance = g.sub(at, place)?;
            let distance = g.abs(distance)?;
            let weight = cubic(g, distance, k == 0 || k == 1)?;
            taps.push(self.tap(g, place, weight)?);
        }
        Ok(taps)
    }

    fn tap(&self, g: &mut Graph, place: Value, weight: Value) -> Result<(Value, Value), OpError> {
        let last = self.n as f32 - 1.0;
        if self.outside != Outside::Zeros {
            let inside = self.inside(g, place)?;
            let whole = g.unary("round", inside)?;
            return Ok((g.clip(whole, 0.0, last)?, weight));
        }
        let held = g.clip(place, 0.0, last)?;
        let is_inside = g.binary("equal", held, place)?;
        Ok((held, g.mul(weight, is_inside)?))
    }
}

/// Returns the weight of an element at a distance, by the cubic kernel with −0.75.
fn cubic(g: &mut Graph, d: Value, near: bool) -> Result<Value, OpError> {
    const A: f32 = -0.75;
    let terms = if near { [A + 2.0, -(A + 3.0), 0.0, 1.0] } else { [A, -5.0 * A, 8.0 * A, -4.0 * A] };
    let mut sum = g.constant(terms[0])?;
    for &term in &terms[1..] {
        let (product, term) = (g.mul(sum, d)?, g.constant(term)?);
        sum = g.add(product, term)?;
    }
    Ok(sum)
}

fn grid_sample(c: &mut Call) -> Result<Vec<T>, OpError> {
    let mode = c.node.text("mode", "linear");
    let outside = match c.node.text("padding_mode", "zeros").as_str() {
        "zeros" => Outside::Zeros,
        "border" => Outside::Border,
        "reflection" => Outside::Mirror,
        other => return Err(c.wrong("zeros, border or reflection", other, "choose one of those")),
    };
    let aligned = c.node.int("align_corners", 0) == 1;
    let rank = c.rank(0);
    if !(4..=5).contains(&rank) {
        return Err(c.wrong("maps (N, C, H, W) or volumes (N, C, D, H, W)", format!("{rank} axes"), "reshape it"));
    }
    let x = c.t(0)?;
    let x = c.arranged(x, &channels_last(rank))?;
    let grid = c.natural(1)?;
    let g = c.g();
    let (shape, of_grid) = (g.shape(x.value).clone(), g.shape(grid.value).clone());
    let (&[n, ref extents @ .., channels], &[_, ref places @ .., axes]) = (shape.dims(), of_grid.dims()) else {
        return Err(c.wrong("a grid (N, H, W, 2)", &of_grid, "reshape it"));
    };
    if axes != rank - 2 || places.len() != axes {
        return Err(c.wrong(
            format!("a grid with a place of {} numbers for each result", rank - 2),
            &of_grid,
            "reshape it",
        ));
    }
    if shape.is_batched() || of_grid.is_batched() {
        return Err(c.batch("elements chosen by computed places"));
    }
    let table = g.reshape(x.value, Shape::fixed([n * extents.iter().product::<usize>(), channels]))?;
    let samples =
        g.literal([[n].as_slice(), &vec![1; rank - 1]].concat(), (0..n).map(|i| i as f32).collect::<Vec<_>>())?;
    // Rows of the table, from axis to axis, with their weights. A place names the last axis first.
    let mut chosen: Vec<(Value, Option<Value>)> = vec![(samples, None)];
    for (k, &extent) in extents.iter().enumerate() {
        let axis = Axis { n: extent, aligned, outside };
        let own = g.slice_axis(grid.value, rank - 1, Part::new(axes - 1 - k, 1))?;
        let at = axis.places(g, own)?;
        let taps = axis.taps(g, at, &mode)?;
        let mut more = Vec::new();
        for &(row, weight) in &chosen {
            let start = g.scale(row, extent as f32)?;
            for &(tap, share) in &taps {
                more.push((g.add(start, tap)?, Some(weight.map_or(Ok(share), |weight| g.mul(weight, share))?)));
            }
        }
        chosen = more;
    }
    let mut sum: Option<Value> = None;
    for (row, weight) in chosen {
        let rows = g.reshape(row, Shape::fixed([n * places.iter().product::<usize>()]))?;
        let mut term = g.gather(table, rows)?;
        term = g.reshape(term, Shape::fixed([&[n], places, &[channels]].concat()))?;
        if let Some(weight) = weight {
            term = g.mul(term, weight)?;
        }
        sum = Some(sum.map_or(Ok(term), |sum| g.add(sum, term))?);
    }
    let missing = || OpError::new("GridSample", "a mode", "none", "choose linear, nearest or cubic");
    Ok(vec![x.with(sum.ok_or_else(missing)?)])
}
