//! The windows of pooling and their sizes.

use crate::{
    graph::{OpError, TensorType},
    kernels::gemm::Window,
    ops::window::Padding,
    tensor::{Batch, Count, DType, Philox},
};

/// Size, distance and border of pooling windows, each as `[along height, along width]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pool2dOptions {
    /// Size of a window.
    pub pool: [usize; 2],
    /// Distance between neighbouring windows.
    pub strides: [usize; 2],
    /// What lies outside the image never wins. Explicit padding must be smaller than the window.
    pub padding: Padding,
}

impl Pool2dOptions {
    /// Returns windows of `pool` × `pool` side by side without padding (Keras' default).
    pub fn new(pool: usize) -> Self {
        Pool2dOptions { pool: [pool; 2], strides: [pool; 2], padding: Padding::Valid }
    }

    /// Returns the same windows `stride` pixels apart.
    pub fn strides(self, stride: usize) -> Self {
        Pool2dOptions { strides: [stride; 2], ..self }
    }

    /// Returns the same windows on an extended image.
    pub fn padding(self, padding: Padding) -> Self {
        Pool2dOptions { padding, ..self }
    }

    /// Returns what of it concerns the width, for images of height 1.
    pub(super) fn across(self) -> Self {
        let Pool2dOptions { pool: [_, k], strides: [_, s], padding } = self;
        Pool2dOptions { pool: [1, k], strides: [1, s], padding: padding.across() }
    }

    pub(super) fn geometry(&self, op: &str, x: &TensorType) -> Result<Geometry, OpError> {
        let &[_, h, w, c] = x.shape.dims() else {
            return Err(OpError::new(op, "a tensor of rank 4, (N, h, w, c)", &x.shape, "reshape to NHWC"));
        };
        if x.dtype != DType::F32 {
            return Err(OpError::new(op, "f32 elements", x, "convert the input to f32"));
        }
        let refuse = |wanted: &str, advice: &str| {
            let ([kh, kw], [sh, sw]) = (self.pool, self.strides);
            let got = format!("{kh}×{kw} windows by strides of {sh}×{sw}, {:?} padding, on {h}×{w}", self.padding);
            Err(OpError::new(op, wanted, got, advice))
        };
        let Some((pads, [oh, ow])) = self.padding.resolve([h, w], self.pool, self.strides) else {
            return refuse(
                "windows and strides from 1 to 2²⁴ that fit in the image",
                "choose a smaller pool or Same padding",
            );
        };
        if (0..2).any(|axis| pads[axis].iter().any(|&p| p >= self.pool[axis])) {
            return refuse("padding smaller than the window", "a window that lies in the padding alone has no maximum");
        }
        Ok(Geometry {
            h,
            w,
            c,
            oh,
            ow,
            pool: self.pool,
            strides: self.strides,
            top: pads[0][0],
            left: pads[1][0],
            pads,
        })
    }
}

/// The sizes around a pooling.
pub(super) struct Geometry {
    pub h: usize,
    pub w: usize,
    pub c: usize,
    pub oh: usize,
    pub ow: usize,
    pub pool: [usize; 2],
    pub strides: [usize; 2],
    pub top: usize,
    pub left: usize,
    pub pads: [[usize; 2]; 2],
}

impl Geometry {
    /// Calls `f` for each window with its flat index and those of its taps in row-major order.
    pub(super) fn windows(&self, images: usize, mut f: impl FnMut(usize, &[usize])) {
        let mut taps = Vec::with_capacity(self.pool[0] * self.pool[1]);
        for b in 0..images {
            for p in 0..self.oh {
                for q in 0..self.ow {
                    for c in 0..self.c {
                        taps.clear();
                        for i in 0..self.pool[0] {
                            for j in 0..self.pool[1] {
                                let (row, column) = (p * self.strides[0] + i, q * self.strides[1] + j);
                                let inside = (self.top..self.top + self.h).contains(&row)
                                    && (self.left..self.left + self.w).contains(&column);
                                if inside {
                                    let pixel = (b * self.h + row - self.top) * self.w + column - self.left;
                                    taps.push(pixel * self.c + c);
                                }
                            }
                        }
                        f(((b * self.oh + p) * self.ow + q) * self.c + c, &taps);
                    }
                }
            }
        }
    }

    /// Returns the sliding of the windows over images, or of images' gradients back.
    pub(super) fn window(&self, name: &'static str, transposed: bool, images: Count) -> Window {
        let (x, y) = ([self.h, self.w], [self.oh, self.ow]);
        let (from, to) = if transposed { (y, x) } else { (x, y) };
        Window {
            name,
            transposed,
            from,
            to,
            from_channels: self.c,
            to_channels: self.c,
            kernel: self.pool,
            strides: self.strides,
            pads: [self.top, self.left],
            dilation: [1, 1],
            groups: self.c,
            images,
        }
    }

    /// Returns whether a window is small enough for a kernel that names each of its pixels.
    pub(super) fn unrolls(&self) -> bool {
        self.pool[0] * self.pool[1] <= 64
    }

    pub(super) fn overlaps(&self) -> bool {
        self.pool[0] > self.strides[0] || self.pool[1] > self.strides[1]
    }

    /// Returns the constants of `shaders/shared/pool2d.wgsl`; `padding`: pixels outside count.
    pub(super) fn constants(&self, items: Count, width: usize, lanes: u32, padding: bool) -> Vec<(&'static str, f64)> {
        [
            ("LANES", lanes as usize),
            ("ITEMS", items.fixed as usize),
            ("ITEMS_PER_SAMPLE", items.per_sample as usize),
            ("H", self.h),
            ("W", self.w),
            ("C", self.c / width),
            ("OH", self.oh),
            ("OW", self.ow),
            ("KH", self.pool[0]),
            ("KW", self.pool[1]),
            ("SH", self.strides[0]),
            ("SW", self.strides[1]),
            ("TOP", self.top),
            ("LEFT", self.left),
            ("PADDED", usize::from(self.pads != [[0; 2]; 2])),
            ("PADDING", usize::from(padding)),
        ]
        .map(|(name, value)| (name, value as f64))
        .to_vec()
    }
}

/// Returns random windows with an image, a capacity and a batch.
pub(super) fn any_options(rng: &mut Philox) -> (Pool2dOptions, [usize; 4], usize, usize) {
    let pool = [rng.pick(&[1, 2, 2, 3, 3, 5]), rng.pick(&[1, 2, 2, 3, 3, 5])];
    let strides = match rng.below(3) {
        0 => pool,
        1 => [rng.pick(&[1, 2, 3]), rng.pick(&[1, 2, 3])],
        _ => [pool[0] + rng.below(3), pool[1] + rng.below(3)],
    };
    let mut side = || rng.below(pool[0].min(pool[1]));
    let explicit = [[side(), side()], [side(), side()]];
    let padding = rng.pick(&[Padding::Valid, Padding::Same, Padding::Explicit(explicit)]);
    let size = |rng: &mut Philox, k: usize| rng.pick(&[1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 21]).max(k);
    let (h, w) = (size(rng, pool[0]), size(rng, pool[1]));
    let c =
        if h * w > 100 { rng.pick(&[1, 3, 4, 6, 7, 8, 16]) } else { rng.pick(&[1, 2, 4, 6, 15, 16, 17, 63, 64, 65]) };
    let capacity = rng.pick(&[1, 2, 3, 5]);
    let n = 1 + rng.below(capacity);
    (Pool2dOptions { pool, strides, padding }, [Batch, h, w, c], capacity, n)
}
