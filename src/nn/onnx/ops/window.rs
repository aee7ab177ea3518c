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

impl Window {
    /// Returns the window of a node on images of `size`, with this kernel or that of the attribute.
    pub fn of(c: &Call, size: &[usize], kernel: Option<&[usize]>) -> Result<Self, OpError> {
        let axes = size.len();
        if !(1..=2).contains(&axes) {
            return Err(c.wrong("one or two spatial axes", axes, "Hubel has no volumes"));
        }
        let kernel = match (kernel, c.node.ints("kernel_shape")) {
            (Some(kernel), _) => kernel.iter().map(|&k| k as i64).collect(),
            (None, Some(kernel)) => kernel.to_vec(),
            (None, None) => return Err(c.wrong("kernel_shape", "none", "export the model again")),
        };
        let listed = |name: &str| c.node.ints(name).map_or(vec![1; axes], <[i64]>::to_vec);
        let (strides, dilation) = (listed("strides"), listed("dilations"));
        let in_range = |all: &[i64]| all.len() == axes && all.iter().all(|v| (1..1 << 24).contains(v));
        if ![&kernel, &strides, &dilation].iter().all(|all| in_range(all)) {
            let got = format!("kernel {kernel:?}, strides {strides:?}, dilations {dilation:?}");
            return Err(c.wrong(format!("{axes} numbers of at least 1 each"), got, "export the model again"));
        }
        let pair = |all: &[i64]| if axes == 1 { [1, all[0] as usize] } else { [all[0] as usize, all[1] as usize] };
        let (kernel, strides, dilation) = (pair(&kernel), pair(&strides), pair(&dilation));
        let size = if axes == 1 { [1, size[0]] } else { [size[0], size[1]] };
        let mut window = Window { size, kernel, strides, dilation, pads: [[0; 2]; 2], more: [0; 2] };
        window.pads = window.paddings(c, axes)?;
        Ok(window)
    }

    pub fn extent(&self, axis: usize) -> usize {
        (self.kernel[axis] - 1) * self.dilation[axis] + 1
    }

    fn paddings(&self, c: &Call, axes: usize) -> Result<[[usize; 2]; 2], OpError> {
        let mode = c.node.text("auto_pad", "NOTSET");
        match mode.as_str() {
            "VALID" => Ok([[0; 2]; 2]),
            "SAME_UPPER" | "SAME_LOWER" => Ok([0, 1].map(|axis| {
                let (n, s) = (self.size[axis], self.strides[axis]);
                let total = ((n.div_ceil(s).max(1) - 1) * s + self.extent(axis)).saturating_sub(n);
                let less = total / 2;
                if mode == "SAME_UPPER" { [less, total - less] } else { [total - less, less] }
            })),
            "NOTSET" | "" => {
                let pads = c.node.ints("pads").map_or(vec![0; 2 * axes], <[i64]>::to_vec);
                if pads.len() != 2 * axes || pads.iter().any(|p| !(0..1 << 24).contains(p)) {
                    let wanted = format!("{} paddings from 0 up", 2 * axes);
                    return Err(c.wrong(wanted, format!("{pads:?}"), "use a Pad node for negative ones"));
                }
                let of = |axis: usize| [pads[axis] as usize, pads[axis + axes] as usize];
                Ok(if axes == 1 { [[0, 0], of(0)] } else { [of(0), of(1)] })
            }
            other => Err(c.wrong("auto_pad NOTSET, VALID, SAME_UPPER or SAME_LOWER", other, "export the model again")),
        }
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
            "Hubel has no volumes",
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
