//! Boxes of detectors: which of them remain, and what maps hold inside them.

use crate::{
    graph::{Graph, OpError, Value},
    nn::onnx::{
        call::{Build, Call, T, channels_last},
        constant::INT64,
    },
    ops::{NonMaxSuppression, Part},
    tensor::Shape,
};

pub const OPERATORS: &[(&str, Build)] = &[("NonMaxSuppression", suppressed), ("RoiAlign", regions)];

/// Returns rows of sample, class and box. ONNX's result has no rows where fewer remain; here they are −1, for extents are fixed.
fn suppressed(c: &mut Call) -> Result<Vec<T>, OpError> {
    let number = |c: &Call, i: usize, what: &str| match c.has(i) {
        true => c.numbers(i, what).map(|n| n.first().copied()),
        false => Ok(None),
    };
    let max = number(c, 2, "a number of boxes")?.unwrap_or(0.0);
    let iou_threshold = number(c, 3, "a threshold")?.unwrap_or(0.0) as f32;
    let score_threshold = number(c, 4, "a threshold")?.map(|t| t as f32);
    if max < 1.0 {
        let advice = "export the model with max_output_boxes_per_class; empty tensors are not supported";
        return Err(c.wrong("at least one box of each class", max, advice));
    }
    let (boxes, scores) = (c.natural(0)?, c.natural(1)?);
    let count = c.dims_of(&boxes).get(1).copied().unwrap_or(0);
    let center = c.node.int("center_point_box", 0) == 1;
    let options = NonMaxSuppression { max: count.min(max as usize), iou_threshold, score_threshold, center };
    let g = c.g();
    let rows = g.non_max_suppression(boxes.value, scores.value, options)?;
    let shape = g.shape(rows).clone();
    let count = shape.dims()[0] * shape.dims()[1];
    let flat = if shape.is_batched() { Shape::batched(count, &[3]) } else { Shape::fixed([count, 3]) };
    Ok(vec![T::natural(g.reshape(rows, flat)?, 2, INT64)])
}

/// Places along an axis of a map, for each region.
struct Places {
    low: Value,
    high: Value,
    /// The part that the element at `high` has.
    share: Value,
    rest: Value,
}

/// Returns where regions from `start` (R, 1) of these sizes are sampled: `bins` parts with `ratio` places each.
fn places(g: &mut Graph, (start, size): (Value, Value), [bins, ratio, n]: [usize; 3]) -> Result<Places, OpError> {
    let count = bins * ratio;
    let fractions: Vec<f32> = (0..count).map(|i| (i as f32 + 0.5) / count as f32).collect();
    let fractions = g.literal([1, count], fractions)?;
    let along = g.mul(size, fractions)?;
    let at = g.add(start, along)?;
    // Outside by more than 1 there is nothing.
    let (below, above) = (g.constant(-1.0)?, g.constant(n as f32)?);
    let (after, before) = (g.binary("less_equal", below, at)?, g.binary("less_equal", at, above)?);
    let inside = g.mul(after, before)?;
    let last = n as f32 - 1.0;
    let at = g.clip(at, 0.0, last)?;
    let low = g.unary("floor", at)?;
    let one = g.constant(1.0)?;
    let (next, part) = (g.add(low, one)?, g.sub(at, low)?);
    let high = g.clip(next, 0.0, last)?;
    let rest = g.sub(one, part)?;
    Ok(Places { low, high, share: g.mul(part, inside)?, rest: g.mul(rest, inside)? })
}

/// Returns `RoiAlign`: means or maxima of places inside regions.
fn regions(c: &mut Call) -> Result<Vec<T>, OpError> {
    let node = c.node;
    let side = |name: &str| node.int(name, 1).clamp(1, 1 << 12) as usize;
    let (rows, columns) = (side("output_height"), side("output_width"));
    let ratio = node.int("sampling_ratio", 0);
    if !(1..=64).contains(&ratio) {
        let advice = "export the model with sampling_ratio; 0 makes it depend on each region";
        return Err(c.wrong("a sampling_ratio from 1 to 64", ratio, advice));
    }
    let ratio = ratio as usize;
    let default = if node.opset < 16 { "output_half_pixel" } else { "half_pixel" };
    let half = node.text("coordinate_transformation_mode", default) == "half_pixel";
    let (scale, offset) = (node.float("spatial_scale", 1.0), if half { -0.5 } else { 0.0 });
    let is_max = node.text("mode", "avg") == "max";
    let x = c.t(0)?;
    let x = c.arranged(x, &channels_last(4))?;
    let (regions, samples) = (c.natural(1)?, c.natural(2)?);
    let g = c.g();
    let shapes = [x.value, regions.value, samples.value].map(|v| g.shape(v).clone());
    let (&[n, h, w, channels], &[count, 4]) = (shapes[0].dims(), shapes[1].dims()) else {
        return Err(c.wrong("maps (N, C, H, W) and regions (R, 4)", format!("{} and {}", shapes[0], shapes[1]), ""));
    };
    if shapes.iter().any(Shape::is_batched) {
        return Err(c.batch("regions of chosen samples"));
    }
    let column = |g: &mut Graph, k: usize| {
        let own = g.slice_axis(regions.value, 1, Part::new(k, 1))?;
        let own = g.scale(own, scale)?;
        let offset = g.constant(offset)?;
        g.add(own, offset)
    };
    let mut along = Vec::new();
    for (axis, bins, n) in [(1, rows, h), (0, columns, w)] {
        let (start, end) = (column(g, axis)?, column(g, axis + 2)?);
        let mut size = g.sub(end, start)?;
        if !half {
            let one = g.constant(1.0)?;
            size = g.max(size, one)?;
        }
        along.push(places(g, (start, size), [bins, ratio, n])?);
    }
    let (down, across) = (rows * ratio, columns * ratio);
    let table = g.reshape(x.value, Shape::fixed([n * h * w, channels]))?;
    let sample = g.reshape(samples.value, Shape::fixed([count, 1, 1]))?;
    let first = g.scale(sample, (h * w) as f32)?;
    let mut corners = Vec::new();
    for (row, of_row) in [(along[0].low, along[0].rest), (along[0].high, along[0].share)] {
        for (place, of_place) in [(along[1].low, along[1].rest), (along[1].high, along[1].share)] {
            let tall = |g: &mut Graph, v: Value| g.reshape(v, Shape::fixed([count, down, 1]));
            let wide = |g: &mut Graph, v: Value| g.reshape(v, Shape::fixed([count, 1, across]));
            let (row, place) = (g.scale(row, w as f32)?, wide(g, place)?);
            let row = tall(g, row)?;
            let row = g.add(row, first)?;
            let at = g.add(row, place)?;
            let at = g.reshape(at, Shape::fixed([count * down * across]))?;
            let chosen = g.gather(table, at)?;
            let (of_row, of_place) = (tall(g, of_row)?, wide(g, of_place)?);
            let weight = g.mul(of_row, of_place)?;
            let weight = g.reshape(weight, Shape::fixed([count * down * across, 1]))?;
            corners.push(g.mul(chosen, weight)?);
        }
    }
    let mut sum = corners[0];
    for &corner in &corners[1..] {
        // The maximum is that of the weighted elements, as ONNX has it.
        sum = if is_max { g.max(sum, corner)? } else { g.add(sum, corner)? };
    }
    let bins = g.reshape(sum, Shape::fixed([count, rows, ratio, columns, ratio, channels]))?;
    let y = if is_max { g.max_axes(bins, &[2, 4], false)? } else { g.mean_axes(bins, &[2, 4], false)? };
    Ok(vec![x.with(y)])
}
