//! Convolutions.

use super::window::{Window, images, maps};
use crate::{
    graph::{OpError, Value},
    nn::onnx::call::{Arrangement, Call, Kind, T},
    ops::{Conv2dOptions, Padding},
};
use std::ops::Range;

/// Returns weights (out, in / groups, …) as a kernel (height, width, in / groups, out), and its taps along the spatial axes.
pub fn kernel(c: &mut Call, i: usize) -> Result<(Value, Vec<usize>), OpError> {
    let dims = c.dims(i)?;
    let (whole, taps) = match dims[..] {
        [out, channels, length] => ([out, channels, 1, length], vec![length]),
        [out, channels, height, width] => ([out, channels, height, width], vec![height, width]),
        _ => return Err(c.wrong("weights of one or two spatial axes", format!("{dims:?}"), "Hubel has no volumes")),
    };
    let arrangement = Arrangement::order(&whole, &[2, 3, 1, 0]);
    Ok((c.weight(i, "kernel", Kind::Trainable, &arrangement)?, taps))
}

/// Returns the options of a convolution with these windows.
pub fn options(window: &Window, groups: usize) -> Conv2dOptions {
    let Window { strides, dilation, pads, .. } = *window;
    Conv2dOptions { strides, padding: Padding::Explicit(pads), dilation, groups }
}

pub fn groups(c: &Call) -> Result<usize, OpError> {
    let groups = c.node.int("group", 1);
    usize::try_from(groups)
        .ok()
        .filter(|g| (1..1 << 24).contains(g))
        .ok_or_else(|| c.wrong("at least 1 group", groups, "export the model again"))
}

pub fn with_bias(c: &mut Call, y: Value) -> Result<Value, OpError> {
    if !c.has(2) {
        return Ok(y);
    }
    let bias = c.vector(2, "bias", Kind::Trainable)?;
    c.g().add(y, bias)
}

/// Returns a convolution of maps with one or two spatial axes.
pub fn conv(c: &mut Call) -> Result<Vec<T>, OpError> {
    let (x, size, rank) = images(c)?;
    let (kernel, taps) = kernel(c, 1)?;
    let (window, groups) = (Window::of(c, &size, Some(&taps))?, groups(c)?);
    let y = c.g().conv2d(x.value, kernel, options(&window, groups))?;
    let y = with_bias(c, y)?;
    Ok(vec![maps(c, &x, y, rank)?])
}

/// Returns a transposed convolution: of all results, then those that padding takes away are cut off and zeros added.
pub fn conv_transpose(c: &mut Call) -> Result<Vec<T>, OpError> {
    let (x, size, rank) = images(c)?;
    // ONNX's weights are (in, out / groups, …), which the kernel's last axes are too.
    let (kernel, taps) = kernel(c, 1)?;
    let (window, groups) = (Window::of(c, &size, Some(&taps))?, groups(c)?);
    let (pads, more) = transposed_pads(c, &window, 0..rank - 2, rank - 2)?;
    let plain = Conv2dOptions { padding: Padding::Explicit(pads), ..options(&window, groups) };
    let fits = (0..2).all(|a| more[a] < window.strides[a] && pads[a].iter().all(|&p| p < window.extent(a)));
    let y = match fits {
        true => c.g().conv2d_transpose(x.value, kernel, plain, Some(more))?,
        false => {
            let whole = Conv2dOptions { padding: Padding::Explicit([[0; 2]; 2]), ..plain };
            let y = c.g().conv2d_transpose(x.value, kernel, whole, Some([0, 0]))?;
            let edges = [0, 1].map(|a| [-(pads[a][0] as isize), more[a] as isize - pads[a][1] as isize]);
            c.g().pad2d(y, edges)?
        }
    };
    let y = with_bias(c, y)?;
    Ok(vec![maps(c, &x, y, rank)?])
}

/// Returns the paddings of a transposed convolution, and what is added behind, along one or two of all spatial axes.
pub fn transposed_pads(
    c: &Call,
    window: &Window,
    own: Range<usize>,
    all_axes: usize,
) -> Result<([[usize; 2]; 2], [usize; 2]), OpError> {
    let axes = own.len();
    let listed = |name: &str| match c.node.ints(name) {
        Some(all) if all.len() >= all_axes && all.iter().all(|v| (0..1 << 24).contains(v)) => {
            let own = &all[all.len() - all_axes..][own.clone()];
            Ok(Some(if axes == 1 { [0, own[0] as usize] } else { [own[0] as usize, own[1] as usize] }))
        }
        Some(all) => Err(c.wrong(
            format!("{all_axes} numbers from 0 up as {name}"),
            format!("{all:?}"),
            "export the model again",
        )),
        None => Ok(None),
    };
    let more = listed("output_padding")?.unwrap_or([0, 0]);
    let mode = c.node.text("auto_pad", "NOTSET");
    let same = mode.starts_with("SAME");
    let wanted = match listed("output_shape")? {
        Some(shape) if axes == 1 => Some([1, shape[1]]),
        Some(shape) => Some(shape),
        None if same => Some([0, 1].map(|a| window.size[a] * window.strides[a])),
        None => None,
    };
    let Some(wanted) = wanted else { return Ok((window.pads, more)) };
    let (mut pads, mut behind) = ([[0; 2]; 2], more);
    for a in 0..2 {
        let whole = (window.size[a] - 1) * window.strides[a] + window.extent(a) + more[a];
        match whole.checked_sub(wanted[a]) {
            Some(total) if mode == "SAME_UPPER" => pads[a] = [total / 2, total - total / 2],
            Some(total) => pads[a] = [total - total / 2, total / 2],
            None => behind[a] = more[a] + wanted[a] - whole,
        }
    }
    Ok((pads, behind))
}
