//! Windows of convolutions and pooling along the spatial axes: attributes, paddings, and rows as images of height 1.

use crate::{
    graph::{OpError, Value},
    nn::onnx::call::{Call, T, channels_last},
};

/// A window along height and width; rows of one axis have height 1.
#[derive(Debug, Clone)]
pub struct Window {
    pub size: [usize; 2],
    pub kernel: [usize; 2],
    pub strides: [usize; 2],
    pub dilation: [usize; 2],
    /// `[[top, bottom], [left, right]]`.
    pub pads: [[usize; 2]; 2],
    /// What `ceil_mode` adds behind the padding.
    pub more: [usize; 2],
}

/// What the attributes say of one spatial axis.
#[derive(Debug, Clone, Copy)]
pub struct Along {
    size: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    pads: [usize; 2],
}

impl Along {
    /// An axis of extent 1, on which nothing moves.
    const NONE: Along = Along { size: 1, kernel: 1, stride: 1, dilation: 1, pads: [0; 2] };

    fn extent(&self) -> usize {
        (self.kernel - 1) * self.dilation + 1
    }
}

/// Returns what the attributes say of each axis of images of `size`, with this kernel or that of the attribute.
pub fn attributes(c: &Call, size: &[usize], kernel: Option<&[usize]>) -> Result<Vec<Along>, OpError> {
    let axes = size.len();
    let kernel = match (kernel, c.node.ints("kernel_shape")) {
        (Some(kernel), Some(stated)) if !stated.iter().copied().eq(kernel.iter().map(|&k| k as i64)) => {
            let wanted = format!("the kernel_shape {kernel:?} of the weights");
            return Err(c.wrong(wanted, format!("{stated:?}"), "export the model again"));
        }
        (Some(kernel), _) => kernel.iter().map(|&k| k as i64).collect(),
        (None, Some(kernel)) => kernel.to_vec(),
        (None, None) => return Err(c.wrong("kernel_shape", "none", "export the model again")),
    };
    let listed = |name: &str| c.node.ints(name).map_or(vec![1; axes], <[i64]>::to_vec);
    let (strides, dilation) = (listed("strides"), listed("dilations"));
    let in_range = |all: &[i64]| all.len() == axes && all.iter().all(|v| (1..1 << 16).contains(v));
    if ![&kernel, &strides, &dilation].iter().all(|all| in_range(all)) {
        let got = format!("kernel {kernel:?}, strides {strides:?}, dilations {dilation:?}");
        let wanted = format!("{axes} numbers from 1 to 65535 each");
        return Err(c.wrong(wanted, got, "export the model again"));
    }
    let mode = c.node.text("auto_pad", "NOTSET");
    let pads = c.node.ints("pads").map_or(vec![0; 2 * axes], <[i64]>::to_vec);
    if pads.len() != 2 * axes || pads.iter().any(|p| !(0..1 << 24).contains(p)) {
        let wanted = format!("{} paddings from 0 up", 2 * axes);
        return Err(c.wrong(wanted, format!("{pads:?}"), "use a Pad node for negative ones"));
    }
    let along = |a: usize| {
        let (kernel, stride, dilation) = (kernel[a] as usize, strides[a] as usize, dilation[a] as usize);
        let mut along = Along { size: size[a], kernel, stride, dilation, pads: [0; 2] };
        along.pads = match mode.as_str() {
            "VALID" => [0, 0],
            "SAME_UPPER" | "SAME_LOWER" => {
                let total = ((size[a].div_ceil(stride).max(1) - 1) * stride + along.extent()).saturating_sub(size[a]);
                let less = total / 2;
                if mode == "SAME_UPPER" { [less, total - less] } else { [total - less, less] }
            }
            "NOTSET" | "" => [pads[a] as usize, pads[a + axes] as usize],
            other => return Err(c.wrong("auto_pad NOTSET, VALID, SAME_UPPER or SAME_LOWER", other, "export again")),
        };
        Ok(along)
    };
    (0..axes).map(along).collect()
}

impl Window {
    /// Returns the window of a node on images of `size`, with this kernel or that of the attribute.
    pub fn of(c: &Call, size: &[usize], kernel: Option<&[usize]>) -> Result<Self, OpError> {
        match attributes(c, size, kernel)?[..] {
            [across] => Ok(Self::along(Along::NONE, across)),
            [down, across] => Ok(Self::along(down, across)),
            _ => Err(c.wrong("one or two spatial axes", size.len(), "split the volumes")),
        }
    }

    /// Returns the window along two axes.
    pub fn along(down: Along, across: Along) -> Self {
        let [size, kernel, strides, dilation] = [
            [down.size, across.size],
            [down.kernel, across.kernel],
            [down.stride, across.stride],
            [down.dilation, across.dilation],
        ];
        Window { size, kernel, strides, dilation, pads: [down.pads, across.pads], more: [0; 2] }
    }

    /// Returns the window along one axis, as that of rows.
    pub fn of_rows(across: Along) -> Self {
        Self::along(Along::NONE, across)
    }

    pub fn extent(&self, axis: usize) -> usize {
        (self.kernel[axis] - 1) * self.dilation[axis] + 1
    }

    /// Extends the windows so that the last one may begin before the end, as `ceil_mode` has it.
    pub fn ceil(&mut self) {
        for axis in [0, 1] {
            let [before, after] = self.pads[axis];
            let (n, k, s) = (self.size[axis], self.extent(axis), self.strides[axis]);
            let Some(room) = (n + before + after).checked_sub(k) else { continue };
            let mut windows = room.div_ceil(s) + 1;
            // A window that begins behind the image and the padding in front of it does not count.
            if (windows - 1) * s >= n + before {
                windows -= 1;
            }
            self.more[axis] = ((windows - 1) * s + k).saturating_sub(n + before + after);
        }
    }

    /// Returns the number of windows along height and width, if they fit.
    pub fn windows(&self) -> Option<[usize; 2]> {
        let along = |axis: usize| {
            let [before, after] = self.pads[axis];
            let room = (self.size[axis] + before + after + self.more[axis]).checked_sub(self.extent(axis))?;
            Some(room / self.strides[axis] + 1)
        };
        Some([along(0)?, along(1)?])
    }
}

/// Returns operand 0 as images (N, h, w, c), its spatial extents and its number of axes.
pub fn images(c: &mut Call) -> Result<(T, Vec<usize>, usize), OpError> {
    let x = c.t(0)?;
    let rank = x.rank();
    if !(3..=4).contains(&rank) {
        let got = format!("{rank} axes");
        return Err(c.wrong(
            "maps of one or two spatial axes, (N, C, length) or (N, C, H, W)",
            got,
            "split the volumes",
        ));
    }
    let x = c.arranged(x, &channels_last(rank))?;
    let shape = c.g().shape(x.value).clone();
    let size = shape.dims()[1..rank - 1].to_vec();
    let value = match size[..] {
        [length] => c.g().reshape(x.value, shape.with_row(&[1, length, shape.last()]))?,
        _ => x.value,
    };
    Ok((x.with(value), size, rank))
}

/// Returns images (N, h, w, c) as a result with so many axes.
pub fn maps(c: &mut Call, like: &T, value: Value, rank: usize) -> Result<T, OpError> {
    let shape = c.g().shape(value).clone();
    let value = match rank {
        3 => c.g().reshape(value, shape.with_row(&shape.dims()[2..]))?,
        _ => value,
    };
    Ok(T { value, axes: channels_last(rank), elem: like.elem, flat: None })
}
