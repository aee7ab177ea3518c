//! Pooling.

use super::window::{Window, images, maps};
use crate::{
    graph::{Graph, OpError, Value},
    nn::onnx::call::{Build, Call, T},
    ops::{PadMode, Padding, Part, Pool2d, Pool2dOptions, Pooling},
};

pub const OPERATORS: &[(&str, Build)] =
    &[("GlobalAveragePool", global), ("GlobalLpPool", global), ("GlobalMaxPool", global)];

/// Returns the windows of a pooling, and the images.
fn pooled(c: &mut Call) -> Result<(T, Window, usize), OpError> {
    let (x, size, rank) = images(c)?;
    let mut window = Window::of(c, &size, None)?;
    if c.node.int("ceil_mode", 0) == 1 {
        window.ceil();
    }
    if window.windows().is_none() {
        let got = format!("{:?} on {:?}", window.kernel, window.size);
        return Err(c.wrong("windows that fit in the image", got, "use larger images"));
    }
    Ok((x, window, rank))
}

pub fn maximum(c: &mut Call) -> Result<Vec<T>, OpError> {
    if c.node.outputs.get(1) == Some(&true) {
        return Err(c.wrong("the maxima alone", "their indices too", "export the model without MaxUnpool"));
    }
    let (x, window, rank) = pooled(c)?;
    let y = match whole_pads(&window) {
        Some(pads) => pool(c.g(), x.value, Pooling::Max, &window, pads)?,
        None => {
            let padded = bordered(c.g(), x.value, &window, f32::MIN)?;
            over_taps(c.g(), padded, &window, "max")?
        }
    };
    Ok(vec![maps(c, &x, y, rank)?])
}

/// Returns the paddings where the pooling kernels take them: less than a window, which has no gaps.
pub fn whole_pads(window: &Window) -> Option<[[usize; 2]; 2]> {
    let pads = [0, 1].map(|a| [window.pads[a][0], window.pads[a][1] + window.more[a]]);
    let fits = (0..2).all(|a| pads[a].iter().all(|&p| p < window.kernel[a]));
    (fits && window.dilation == [1, 1]).then_some(pads)
}

fn pool(g: &mut Graph, x: Value, pooling: Pooling, window: &Window, pads: [[usize; 2]; 2]) -> Result<Value, OpError> {
    let options = Pool2dOptions { pool: window.kernel, strides: window.strides, padding: Padding::Explicit(pads) };
    g.apply1(Pool2d { pooling, options }, &[x])
}

/// Returns images with a number as their padding.
fn bordered(g: &mut Graph, x: Value, window: &Window, number: f32) -> Result<Value, OpError> {
    let pads = [0, 1].map(|a| [window.pads[a][0] as isize, (window.pads[a][1] + window.more[a]) as isize]);
    if pads == [[0; 2]; 2] { Ok(x) } else { g.pad2d_with(x, pads, PadMode::Constant(number)) }
}

/// Returns padded images combined over the taps of windows.
pub fn over_taps(g: &mut Graph, x: Value, window: &Window, function: &str) -> Result<Value, OpError> {
    let [h, w] = window.windows().unwrap_or([1, 1]);
    let mut all: Option<Value> = None;
    for i in 0..window.kernel[0] {
        for j in 0..window.kernel[1] {
            let part = |tap: usize, n: usize, axis: usize| Part {
                start: tap * window.dilation[axis],
                size: n,
                step: window.strides[axis] as isize,
            };
            let channels = g.shape(x).last();
            let taps = g.slice(x, &[part(i, h, 0), part(j, w, 1), Part::all(channels)])?;
            all = Some(match all {
                None => taps,
                Some(all) => g.binary(function, all, taps)?,
            });
        }
    }
    all.ok_or_else(|| OpError::new("pool", "a window", "none", "choose another"))
}

pub fn average(c: &mut Call) -> Result<Vec<T>, OpError> {
    let (x, window, rank) = pooled(c)?;
    let counts = c.node.int("count_include_pad", 0) == 1;
    let y = average_of(c.g(), x.value, &window, counts)?;
    Ok(vec![maps(c, &x, y, rank)?])
}

/// Returns the mean of windows; what `ceil_mode` adds never counts.
pub fn average_of(g: &mut Graph, x: Value, window: &Window, counts_padding: bool) -> Result<Value, OpError> {
    let pooling = Pooling::Average { count_padding: counts_padding };
    if let Some(pads) = whole_pads(window).filter(|_| !counts_padding || window.more == [0, 0]) {
        return pool(g, x, pooling, window, pads);
    }
    let padded = bordered(g, x, window, 0.0)?;
    let sum = over_taps(g, padded, window, "add")?;
    let [h, w] = window.windows().unwrap_or([1, 1]);
    let counted = |a: usize, at: usize| {
        let [before, after] = window.pads[a];
        let inside = |tap: &usize| {
            let place = at * window.strides[a] + tap * window.dilation[a];
            let (from, to) =
                if counts_padding { (0, window.size[a] + before + after) } else { (before, before + window.size[a]) };
            (from..to).contains(&place)
        };
        (0..window.kernel[a]).filter(inside).count().max(1)
    };
    let shares: Vec<f32> = (0..h * w).map(|i| 1.0 / (counted(0, i / w) * counted(1, i % w)) as f32).collect();
    let shares = g.literal([h, w, 1], shares)?;
    g.mul(sum, shares)
}

pub fn lp(c: &mut Call) -> Result<Vec<T>, OpError> {
    let (x, window, rank) = pooled(c)?;
    let p = c.node.int("p", 2);
    let y = match whole_pads(&window).filter(|_| p == 2) {
        Some(pads) => pool(c.g(), x.value, Pooling::L2, &window, pads)?,
        None => {
            let g = c.g();
            let powers = magnitude(g, x.value, p)?;
            let padded = bordered(g, powers, &window, 0.0)?;
            let sum = over_taps(g, padded, &window, "add")?;
            root(g, sum, p)?
        }
    };
    Ok(vec![maps(c, &x, y, rank)?])
}

/// Returns |x|ᵖ.
pub fn magnitude(g: &mut Graph, x: Value, p: i64) -> Result<Value, OpError> {
    if p == 2 {
        return g.unary("square", x);
    }
    let size = g.abs(x)?;
    if p == 1 {
        return Ok(size);
    }
    (1..p.clamp(1, 64)).try_fold(size, |y, _| g.mul(y, size))
}

/// Returns the root of degree p.
pub fn root(g: &mut Graph, x: Value, p: i64) -> Result<Value, OpError> {
    match p {
        1 => Ok(x),
        2 => g.sqrt(x),
        _ => {
            let exponent = g.constant(1.0 / p as f32)?;
            g.pow(x, exponent)
        }
    }
}

fn global(c: &mut Call) -> Result<Vec<T>, OpError> {
    let t = c.t(0)?;
    if t.rank() < 3 {
        return Err(c.wrong("maps with spatial axes", format!("{} axes", t.rank()), "reshape the input"));
    }
    let p = c.node.int("p", 2);
    let op = c.node.op;
    let mut axes: Vec<usize> = (2..t.rank()).map(|axis| t.place(axis)).collect();
    axes.sort_unstable();
    let g = c.g();
    let y = match op {
        "GlobalAveragePool" => g.mean_axes(t.value, &axes, true)?,
        "GlobalMaxPool" => g.max_axes(t.value, &axes, true)?,
        _ => {
            let powers = magnitude(g, t.value, p)?;
            let sum = g.sum(powers, &axes, true)?;
            root(g, sum, p)?
        }
    };
    Ok(vec![t.with(y)])
}
