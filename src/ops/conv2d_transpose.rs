//! Transposed convolution: the gradient of a convolution to its images as an operation of its own.

use super::{
    conv2d::{ANY, Conv2dOptions, Geometry, image, kernel},
    conv2d_grad::Conv2dGradInput,
    window::{Padding, lift, lift_weights, lower_rank},
};
use crate::{
    graph::{Bad, Family, Graph, OpError, Sample, TensorType, Value},
    tensor::{Batch, DType, Philox, Shape},
};

/// Returns the convolution whose gradient takes images of `input` pixels to the result, by Keras' rules, or `None`
/// where there is none.
///
/// Zeros between the pixels make (input − 1) · stride + 1 of them, over which the turned kernel slides; `Valid`
/// extends them so that each pixel meets all taps, `Same` so that there are input · stride results, `Explicit` so
/// that as many less than `Valid` are left at each edge. Padding of the output goes to the end.
fn transposed(
    input: [usize; 2],
    kernel: [usize; 2],
    options: Conv2dOptions,
    output_padding: Option<[usize; 2]>,
) -> Option<Geometry> {
    let (mut output, mut pads) = ([0; 2], [[0; 2]; 2]);
    for axis in 0..2 {
        let int = |v: usize| i64::try_from(v).ok().filter(|v| *v < 1 << 31);
        let (n, s, d) = (int(input[axis])?, int(options.strides[axis])?, int(options.dilation[axis])?);
        let extent = (int(kernel[axis])? - 1).checked_mul(d)? + 1;
        let more = match output_padding {
            None => None,
            Some(more) => Some(int(more[axis])?),
        };
        let [before, behind] = match options.padding {
            // A transposed convolution has no causal form; Keras has none either.
            Padding::Causal => return None,
            Padding::Valid => [extent - 1, extent - 1 + more.unwrap_or((s - extent).max(0))],
            Padding::Same => {
                let total = more.map_or(s + extent - 2, |more| extent + extent % 2 - 2 + more);
                let before = ((total + 1) / 2).min(extent - 1);
                [before, total - before]
            }
            Padding::Explicit(p) => [extent - 1 - int(p[axis][0])?, extent - 1 - int(p[axis][1])? + more.unwrap_or(0)],
        };
        let first = usize::try_from(extent - 1 - before).ok()?;
        output[axis] = usize::try_from((n - 1).checked_mul(s)? + before + behind + 2 - extent).ok()?;
        pads[axis] = [first, usize::try_from((extent - 1 - behind).max(0)).ok()?];
    }
    let forward = Conv2dOptions { padding: Padding::Explicit(pads), ..options };
    Geometry::new(output, kernel, forward).filter(|g| g.output == input)
}

impl Conv2dOptions {
    /// Returns the convolution whose gradient is this transposed one of images of `input` pixels, or `None` where there
    /// is none.
    pub(crate) fn transposed(
        self,
        input: [usize; 2],
        kernel: [usize; 2],
        output_padding: Option<[usize; 2]>,
    ) -> Option<Geometry> {
        transposed(input, kernel, self, output_padding)
    }
}

impl Graph {
    /// Returns the transposed convolution (Keras `Conv2DTranspose` without bias, ONNX ConvTranspose) of images `x`
    /// (N, H, W, C) with weights `w` (R, S, K / groups, C): (N, P, Q, K).
    ///
    /// P is H · stride with `Same`, (H − 1) · stride + max(extent, stride) with `Valid`; with `output_padding`
    /// (H − 1) · stride + extent mod 2 + padding and (H − 1) · stride + extent + padding.
    ///
    /// ```
    /// use hubel::{ops::Conv2dOptions, layers::*, prelude::*};
    /// let mut g = Graph::new();
    /// let x = g.input("x", [Batch, 14, 14, 64], F32);
    /// let w = g.parameter("w", [3, 3, 32, 64], GlorotUniform);
    /// let y = g.conv2d_transpose(x, w, Conv2dOptions::same().strides([2, 2]), None)?;
    /// assert_eq!(g.shape(y).to_string(), "(N, 28, 28, 32)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn conv2d_transpose(
        &mut self,
        x: Value,
        w: Value,
        options: Conv2dOptions,
        output_padding: Option<[usize; 2]>,
    ) -> Result<Value, OpError> {
        let [h, width, _] = image("conv2d_transpose", "images", self.ty(x))?;
        let [r, s, ..] = kernel("conv2d_transpose", "weights", self.ty(w))?;
        let geometry = transposed([h, width], [r, s], options, output_padding).ok_or_else(|| {
            let wanted = "strides and dilation from 1 up and less output padding than the stride";
            let got = format!("{options:?} and {output_padding:?} for {h}×{width} pixels and {r}×{s} taps");
            OpError::new("conv2d_transpose", wanted, got, "leave the output padding out, or pad the result")
        })?;
        self.apply1(Conv2dGradInput { geometry }, &[x, w])
    }

    /// Returns the transposed convolution of rows `x` (N, L, C) with weights `w` (S, K / groups, C): (N, Q, K).
    ///
    /// Of the options, those along the width count.
    pub fn conv1d_transpose(
        &mut self,
        x: Value,
        w: Value,
        options: Conv2dOptions,
        output_padding: Option<usize>,
    ) -> Result<Value, OpError> {
        let (x, w) = (lift(self, "conv1d_transpose", x)?, lift_weights(self, "conv1d_transpose", w)?);
        let y = self.conv2d_transpose(x, w, options.across(), output_padding.map(|p| [0, p]))?;
        lower_rank(self, y)
    }
}

fn sample(rng: &mut Philox) -> Sample {
    loop {
        let groups = rng.pick(&[1, 1, 1, 2, 3, 16]);
        let channels = [1, 2, 3, 4, 7, 16, 17];
        let (c, k) = (groups * rng.pick(&channels), rng.pick(&channels));
        let size = [1, 2, 3, 5, 7, 8, 9, 15, 16, 17];
        let taps = [1, 2, 3, 3, 4, 5];
        let kernel = [rng.pick(&taps), rng.pick(&taps)];
        let padding = rng.pick(&[Padding::Valid, Padding::Same, Padding::Explicit([[1, 0], [0, 1]])]);
        let strides = rng.pick(&[[1, 1], [2, 2], [2, 2], [1, 2], [3, 1], [4, 3]]);
        let dilation = rng.pick(&[[1, 1], [1, 1], [2, 1], [2, 2]]);
        let options = Conv2dOptions { strides, padding, dilation, groups };
        let output_padding = rng.pick(&[None, None, Some([0, 0]), Some([1, 0]), Some([0, 1])]);
        let input = [rng.pick(&size), rng.pick(&size)];
        let Some(geometry) = transposed(input, kernel, options, output_padding) else { continue };
        let terms = input[0] * input[1] * c * k * kernel[0] * kernel[1];
        if terms > 1_000_000 {
            continue;
        }
        let capacity = rng.pick(&[1, 2, 3]);
        let inputs = vec![
            (TensorType::f32(Shape::from([Batch, input[0], input[1], c])), ANY),
            (TensorType::f32([kernel[0], kernel[1], k, c]), ANY),
        ];
        let n = 1 + rng.below(capacity);
        return Sample::new(Conv2dGradInput { geometry }, inputs, capacity).with_n(n);
    }
}

fn benches() -> Vec<(&'static str, Sample)> {
    let options = Conv2dOptions::same().strides([2, 2]);
    let inputs = vec![(TensorType::f32([Batch, 28, 28, 64]), ANY), (TensorType::f32([4, 4, 32, 64]), ANY)];
    transposed([28, 28], [4, 4], options, None)
        .map(|geometry| ("upconv4x4s2_n8_c64_28", Sample::new(Conv2dGradInput { geometry }, inputs, 8)))
        .into_iter()
        .collect()
}

/// Transposed convolution as a family.
pub static FAMILY: Family = Family {
    name: "conv2d_transpose",
    about: "transposed convolution with weights (height, width, out / groups, in) (Keras Conv2DTranspose, ONNX ConvTranspose)",
    sample,
    benches,
    bad: &[
        Bad {
            what: "as much output padding as the stride",
            build: |g| {
                let x = g.input("x", [Batch, 4, 4, 2], DType::F32);
                let w = g.input("w", [3, 3, 3, 2], DType::F32);
                g.conv2d_transpose(x, w, Conv2dOptions::valid().strides([2, 2]), Some([2, 0]))
            },
        },
        Bad {
            what: "a stride of 0",
            build: |g| {
                let x = g.input("x", [Batch, 4, 4, 2], DType::F32);
                let w = g.input("w", [3, 3, 3, 2], DType::F32);
                g.conv2d_transpose(x, w, Conv2dOptions::valid().strides([0, 1]), None)
            },
        },
        Bad {
            what: "weights of a convolution",
            build: |g| {
                let x = g.input("x", [Batch, 4, 4, 2], DType::F32);
                let w = g.input("w", [3, 3, 2, 3], DType::F32);
                g.conv2d_transpose(x, w, Conv2dOptions::valid(), None)
            },
        },
        Bad {
            what: "a kernel without taps",
            build: |g| {
                let x = g.input("x", [Batch, 4, 2], DType::F32);
                let w = g.input("w", [0, 3, 2], DType::F32);
                g.conv1d_transpose(x, w, Conv2dOptions::valid(), None)
            },
        },
    ],
    equivalent: &[
        ("moves a boundary at lane_tiles", "rows and columns are guarded as well"),
        ("takes for false at lane_tiles", "rows and columns are guarded as well"),
        ("takes for true at row_in_bounds", "the pixels of a row are guarded as well"),
    ],
    differentiable: true,
    gradcheck: 1e-6,
};
