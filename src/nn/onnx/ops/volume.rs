//! Convolutions and pooling of volumes, slice by slice: those that a tap along the depth reads become images of the batch.

use super::{
    conv::{groups, options, transposed_pads},
    pool::{average_of, magnitude, over_taps, root, whole_pads},
    window::{Window, attributes},
};
use crate::{
    graph::{Graph, OpError, Value},
    nn::{
        layers::{Depth, convolution, convolution_transposed, planes_of_tap},
        onnx::call::{Arrangement, Build, Call, Kind, T, channels_last},
    },
    ops::{Conv2dOptions, PadMode, Padding, Pool2d, Pool2dOptions, Pooling},
};

pub const OPERATORS: &[(&str, Build)] = &[
    ("AveragePool", pool_of),
    ("Conv", conv_of),
    ("ConvTranspose", conv_transpose_of),
    ("LpPool", pool_of),
    ("MaxPool", pool_of),
];

fn conv_of(c: &mut Call) -> Result<Vec<T>, OpError> {
    if c.rank(0) == 5 { conv(c) } else { super::conv::conv(c) }
}

fn conv_transpose_of(c: &mut Call) -> Result<Vec<T>, OpError> {
    if c.rank(0) == 5 { conv_transpose(c) } else { super::conv::conv_transpose(c) }
}

fn pool_of(c: &mut Call) -> Result<Vec<T>, OpError> {
    match (c.rank(0), c.node.op) {
        (5, _) => pool(c),
        (_, "AveragePool") => super::pool::average(c),
        (_, "LpPool") => super::pool::lp(c),
        _ => super::pool::maximum(c),
    }
}

/// Returns volumes (N, depth, h, w, c) of operand 0.
fn volumes(c: &mut Call) -> Result<(T, [usize; 3]), OpError> {
    let x = c.t(0)?;
    let x = c.arranged(x, &channels_last(5))?;
    match *c.g().shape(x.value).dims() {
        [_, d, h, w, _] => Ok((x, [d, h, w])),
        _ => Err(c.wrong("volumes (N, C, D, H, W)", "another shape", "reshape them")),
    }
}

fn along_depth(depth: &Window, planes: usize) -> Depth {
    Depth { planes, stride: depth.strides[1], dilation: depth.dilation[1] }
}

/// Returns volumes with a number before and behind along the depth.
fn deepened(g: &mut Graph, x: Value, depth: &Window, number: f32) -> Result<Value, OpError> {
    let [before, after] = depth.pads[1];
    let after = after + depth.more[1];
    if before == 0 && after == 0 {
        return Ok(x);
    }
    let shape = g.shape(x).clone();
    let dims = shape.dims().to_vec();
    let rows = g.reshape(x, shape.with_row(&[dims[1], dims[2..].iter().product()]))?;
    let padded = g.pad1d(rows, [before as isize, after as isize], PadMode::Constant(number))?;
    g.reshape(padded, shape.with_row(&[&[dims[1] + before + after], &dims[2..]].concat()))
}

/// Returns images as volumes of this depth.
fn stacked(c: &mut Call, like: &T, value: Value, n: usize) -> Result<T, OpError> {
    let (whole, shape) = (c.g().shape(like.value).clone(), c.g().shape(value).clone());
    let value = c.g().reshape(value, whole.with_row(&[&[n], &shape.dims()[1..]].concat()))?;
    Ok(like.with(value))
}

/// Returns volumes with a kernel (depth, height, width, in, out), and its windows along the depth and on planes.
fn convolved(c: &mut Call) -> Result<(T, Value, Window, Window), OpError> {
    let (x, size) = volumes(c)?;
    let dims = c.dims(1)?;
    let &[_, _, taps, h, w] = &dims[..] else { return Err(c.wrong("weights of five axes", format!("{dims:?}"), "")) };
    let kernel = c.weight(1, "kernel", Kind::Trainable, &Arrangement::order(&dims, &[2, 3, 4, 1, 0]))?;
    let along = attributes(c, &size, Some(&[taps, h, w]))?;
    Ok((x, kernel, Window::of_rows(along[0]), Window::along(along[1], along[2])))
}

fn conv(c: &mut Call) -> Result<Vec<T>, OpError> {
    let (x, kernel, depth, window) = convolved(c)?;
    let groups = groups(c)?;
    let Some([_, n]) = depth.windows() else {
        return Err(c.wrong("a kernel that fits", format!("{:?}", window.size), ""));
    };
    let g = c.g();
    let padded = deepened(g, x.value, &depth, 0.0)?;
    let mut y = convolution(g, [padded, kernel], along_depth(&depth, n), options(&window, groups))?;
    if c.has(2) {
        let bias = c.vector(2, "bias", Kind::Trainable)?;
        y = c.g().add(y, bias)?;
    }
    Ok(vec![stacked(c, &x, y, n)?])
}

fn conv_transpose(c: &mut Call) -> Result<Vec<T>, OpError> {
    let (x, kernel, depth, window) = convolved(c)?;
    let groups = groups(c)?;
    let (of_depth, more_depth) = transposed_pads(c, &depth, 0..1, 3)?;
    let (pads, more) = transposed_pads(c, &window, 1..3, 3)?;
    let plain = Conv2dOptions { padding: Padding::Explicit(pads), ..options(&window, groups) };
    let down = Conv2dOptions {
        strides: [depth.strides[1], 1],
        padding: Padding::Explicit([of_depth[1], [0; 2]]),
        dilation: [depth.dilation[1], 1],
        groups: 1,
    };
    let Some(down) = down.transposed([depth.size[1], 1], [depth.kernel[1], 1], Some([more_depth[1], 0])) else {
        let wanted = "paddings smaller than the kernel, and less behind than the strides";
        return Err(c.wrong(wanted, format!("{of_depth:?}"), "pad the result"));
    };
    let y = convolution_transposed(c.g(), [x.value, kernel], down, |g, x, kernel| {
        g.conv2d_transpose(x, kernel, plain, Some(more))
    })?;
    let y = super::conv::with_bias(c, y)?;
    Ok(vec![x.with(y)])
}

/// Returns the largest values or the means of volumes.
fn pool(c: &mut Call) -> Result<Vec<T>, OpError> {
    let (x, size) = volumes(c)?;
    let along = attributes(c, &size, None)?;
    let (mut depth, mut window) = (Window::of_rows(along[0]), Window::along(along[1], along[2]));
    if c.node.int("ceil_mode", 0) == 1 {
        depth.ceil();
        window.ceil();
    }
    let (Some([_, n]), Some(_)) = (depth.windows(), window.windows()) else {
        return Err(c.wrong("windows that fit in the volume", format!("{size:?}"), "use larger volumes"));
    };
    let (is_max, p) = (c.node.op == "MaxPool", c.node.int("p", 2));
    let is_lp = c.node.op == "LpPool";
    let counts = c.node.int("count_include_pad", 0) == 1;
    let g = c.g();
    let whole = if is_lp { magnitude(g, x.value, p)? } else { x.value };
    let padded = deepened(g, whole, &depth, if is_max { f32::MIN } else { 0.0 })?;
    let mut all: Option<Value> = None;
    for tap in 0..depth.kernel[1] {
        let image = planes_of_tap(g, padded, along_depth(&depth, n), tap)?;
        all = Some(match all {
            None => image,
            Some(all) => g.binary(if is_max { "max" } else { "add" }, all, image)?,
        });
    }
    let Some(all) = all else { return Err(c.wrong("at least one tap", "none", "export the model again")) };
    if is_lp {
        let edges = [0, 1].map(|a| [window.pads[a][0] as isize, (window.pads[a][1] + window.more[a]) as isize]);
        let bordered = g.pad2d_with(all, edges, PadMode::Constant(0.0))?;
        let sum = over_taps(g, bordered, &window, "add")?;
        let y = root(g, sum, p)?;
        return Ok(vec![stacked(c, &x, y, n)?]);
    }
    if !is_max {
        let mean = average_of(g, all, &window, counts)?;
        let y = stacked(c, &x, mean, n)?;
        let shares = shares(&depth, n, counts);
        let g = c.g();
        let shares = g.literal([n, 1, 1, 1], shares)?;
        let value = g.mul(y.value, shares)?;
        return Ok(vec![y.with(value)]);
    }
    let y = match whole_pads(&window) {
        Some(pads) => {
            let options =
                Pool2dOptions { pool: window.kernel, strides: window.strides, padding: Padding::Explicit(pads) };
            g.apply1(Pool2d { pooling: Pooling::Max, options }, &[all])?
        }
        None => {
            let edges = [0, 1].map(|a| [window.pads[a][0] as isize, (window.pads[a][1] + window.more[a]) as isize]);
            let bordered = g.pad2d_with(all, edges, PadMode::Constant(f32::MIN))?;
            over_taps(g, bordered, &window, "max")?
        }
    };
    Ok(vec![stacked(c, &x, y, n)?])
}

/// Returns one over the number of slices that each window counts.
fn shares(depth: &Window, n: usize, counts_padding: bool) -> Vec<f32> {
    let [before, after] = depth.pads[1];
    let (from, to) =
        if counts_padding { (0, depth.size[1] + before + after) } else { (before, before + depth.size[1]) };
    let inside = |at: usize, tap: usize| (from..to).contains(&(at * depth.strides[1] + tap * depth.dilation[1]));
    (0..n).map(|at| 1.0 / (0..depth.kernel[1]).filter(|&tap| inside(at, tap)).count().max(1) as f32).collect()
}
