//! Samples, benches, mistakes of the poolings, from one description for all.

use super::{
    op::{Pool2d, Pool2dGrad, Pooling},
    window::{Pool2dOptions, any_options},
};
use crate::{
    graph::{Bad, Family, Fill, Op, Sample, TensorType},
    ops::{conv2d::ANY, window::Padding},
    tensor::{Batch, DType, Philox},
};

const KERAS: Pooling = Pooling::Average { count_padding: false };

/// Returns a pooling of images.
fn forward(pool: Pool2d, x: [usize; 4], capacity: usize, fill: Fill) -> Sample {
    Sample::new(pool, vec![(TensorType::f32(x), fill)], capacity)
}

/// Returns the gradient of a pooling of images.
fn backward(pool: Pool2d, x: [usize; 4], capacity: usize, fill: Fill) -> Sample {
    let (input, x) = ([x[1], x[2]], TensorType::f32(x));
    let y = pool.infer(std::slice::from_ref(&x)).map_or_else(|_| x.clone(), |mut y| y.swap_remove(0));
    let gradient = Pool2dGrad { pool, input };
    if gradient.is_linear() {
        return Sample::new(gradient, vec![(y, ANY)], capacity);
    }
    Sample::new(gradient, vec![(x, fill), (y.clone(), ANY), (y, ANY)], capacity).derived(1, pool)
}

type Make = fn(Pool2d, [usize; 4], usize, Fill) -> Sample;

/// Returns a sample of a pooling that selects; `large` windows are too many pixels for a kernel that names each.
fn select(rng: &mut Philox, make: Make, large: bool) -> Sample {
    let (mut options, mut x, capacity, n) = any_options(rng);
    if large && rng.below(8) == 0 {
        (options.pool, options.strides, x) = ([9, 8], [3, 2], [Batch, 16, 17, rng.pick(&[1, 6, 8])]);
    }
    let fill = if large && rng.below(3) == 0 { Fill::Index(4) } else { Fill::Distinct };
    make(Pool2d { pooling: Pooling::Max, options }, x, capacity, fill).with_n(n)
}

/// Returns a sample of a pooling that adds up.
fn sum(rng: &mut Philox, make: Make, of: fn(&mut Philox) -> (Pooling, Fill)) -> Sample {
    let (mut options, mut x, capacity, n) = any_options(rng);
    if rng.below(8) == 0 {
        (options.pool, x) = ([9, 8], [Batch, 16, 17, rng.pick(&[1, 6, 8])]);
    }
    let (pooling, fill) = of(rng);
    make(Pool2d { pooling, options }, x, capacity, fill).with_n(n)
}

fn average(rng: &mut Philox) -> (Pooling, Fill) {
    (Pooling::Average { count_padding: rng.below(2) == 1 }, ANY)
}

/// Returns windows side by side on images of VGG's size and, under a second name, of LeNet's, then overlapping ones of
/// ResNet.
fn benches(pooling: Pooling, make: Make, names: [Option<&'static str>; 3]) -> Vec<(&'static str, Sample)> {
    let side_by_side = Pool2dOptions::new(2);
    let overlapping = Pool2dOptions::new(3).strides(2).padding(Padding::Same);
    let cases = [
        (side_by_side, [Batch, 112, 112, 64], 8),
        (side_by_side, [Batch, 28, 28, 6], 64),
        (overlapping, [Batch, 112, 112, 64], 8),
    ];
    let sample = |(options, x, n)| make(Pool2d { pooling, options }, x, n, ANY);
    names.into_iter().zip(cases).filter_map(|(name, case)| Some((name?, sample(case)))).collect()
}

/// What every pooling method of the graph refuses.
macro_rules! mistakes {
    ($pool:ident $(, $more:expr)*) => {
        &[
            $($more,)*
            Bad {
                what: "a window larger than the image",
                build: |g| {
                    let x = g.input("x", [Batch, 2, 5, 1], DType::F32);
                    g.$pool(x, Pool2dOptions::new(3))
                },
            },
            Bad {
                what: "a stride of 0",
                build: |g| {
                    let x = g.input("x", [Batch, 4, 4, 1], DType::F32);
                    g.$pool(x, Pool2dOptions::new(2).strides(0))
                },
            },
            Bad {
                what: "a window of 0",
                build: |g| {
                    let x = g.input("x", [Batch, 4, 4, 1], DType::F32);
                    g.$pool(x, Pool2dOptions::new(0).strides(1))
                },
            },
            Bad {
                what: "padding as large as the window",
                build: |g| {
                    let x = g.input("x", [Batch, 4, 4, 1], DType::F32);
                    g.$pool(x, Pool2dOptions::new(2).padding(Padding::Explicit([[2, 0], [0, 0]])))
                },
            },
            Bad {
                what: "a tensor that is no image",
                build: |g| {
                    let x = g.input("x", [Batch, 4], DType::F32);
                    g.$pool(x, Pool2dOptions::new(2))
                },
            },
            Bad {
                what: "bytes",
                build: |g| {
                    let x = g.input("x", [Batch, 4, 4, 1], DType::U8);
                    g.$pool(x, Pool2dOptions::new(2))
                },
            },
        ]
    };
}

/// Gradients of a shape that is not the result's.
const WRONG_DY: Bad = Bad {
    what: "a gradient of another size",
    build: |g| {
        let dy = g.input("dy", [Batch, 3, 2, 1], DType::F32);
        let pool = Pool2d { pooling: KERAS, options: Pool2dOptions::new(2) };
        g.apply1(Pool2dGrad { pool, input: [4, 4] }, &[dy])
    },
};

macro_rules! wrong_shapes {
    ($pool:ident, $pooling:expr) => {
        &[Bad {
            what: "a gradient of another shape than the output",
            build: |g| {
                let x = g.input("x", [Batch, 4, 4, 1], DType::F32);
                let pool = Pool2d { pooling: $pooling, options: Pool2dOptions::new(2) };
                let y = g.$pool(x, pool.options)?;
                g.apply1(Pool2dGrad { pool, input: [4, 4] }, &[x, y, x])
            },
        }]
    };
}

/// Max pooling as a family.
pub static MAX: Family = Family {
    name: "max_pool2d",
    about: "the largest value of each window, padding never wins, NaN always does (Keras MaxPooling2D, ONNX MaxPool)",
    sample: |rng| select(rng, forward, false),
    benches: || {
        let names = ["maxpool2_n8_c64_112", "maxpool2_n64_c6_28", "maxpool3s2_n8_c64_112"];
        benches(Pooling::Max, forward, names.map(Some))
    },
    bad: mistakes!(max_pool2d),
    equivalent: &[],
    differentiable: true,
    gradcheck: 1e-6,
};

/// The gradient of max pooling as a family.
pub static MAX_GRAD: Family = Family {
    name: "max_pool2d_grad",
    about: "gradient of max_pool2d to its input; the first of equal values in row-major order gets it, or the first NaN",
    sample: |rng| select(rng, backward, true),
    benches: || {
        let names = ["maxpool2_grad_n8_c64_112", "maxpool2_grad_n64_c6_28", "maxpool3s2_grad_n8_c64_112"];
        benches(Pooling::Max, backward, names.map(Some))
    },
    bad: wrong_shapes!(max_pool2d, Pooling::Max),
    equivalent: &[
        ("does not write at input", "read by an epilogue that takes the input, which tests of fusion have"),
        ("leaves a term out at input", "read by an epilogue that takes the input, which tests of fusion have"),
        ("leaves a term out at w", "needs equal numbers outside a window's first column, which few samples have"),
        ("leaves a term out at values", "read by an epilogue that takes the input, which tests of fusion have"),
        ("reads the first at values", "read by an epilogue that takes the input, which tests of fusion have"),
    ],
    differentiable: false,
    gradcheck: 1e-6,
};

/// Average pooling as a family.
pub static AVERAGE: Family = Family {
    name: "avg_pool2d",
    about: "the average of each window, padding counted or not (Keras AveragePooling2D, ONNX AveragePool)",
    sample: |rng| sum(rng, forward, average),
    benches: || benches(KERAS, forward, [Some("avgpool2_n8_c64_112"), None, Some("avgpool3s2_n8_c64_112")]),
    bad: mistakes! {
        avg_pool2d,
        Bad {
            what: "rows as images",
            build: |g| {
                let x = g.input("x", [Batch, 4, 1], DType::F32);
                g.global_avg_pool2d(x)
            },
        }
    },
    equivalent: &[],
    differentiable: true,
    gradcheck: 1e-6,
};

/// The gradient of average pooling as a family.
pub static AVERAGE_GRAD: Family = Family {
    name: "avg_pool2d_grad",
    about: "gradient of avg_pool2d to its input",
    sample: |rng| sum(rng, backward, average),
    benches: || benches(KERAS, backward, [Some("avgpool2_n8_c64_112"), None, Some("avgpool3s2_n8_c64_112")]),
    bad: &[WRONG_DY],
    equivalent: &[],
    differentiable: true,
    gradcheck: 1e-6,
};

/// L2 pooling as a family.
pub static L2: Family = Family {
    name: "lp_pool2d",
    about: "the square root of the sum of squares of each window (ONNX LpPool with p = 2)",
    sample: |rng| sum(rng, forward, |_| (Pooling::L2, Fill::Away(0.1, 1.0))),
    benches: || benches(Pooling::L2, forward, [Some("lppool2_n8_c64_112"), None, Some("lppool3s2_n8_c64_112")]),
    bad: mistakes!(lp_pool2d),
    equivalent: &[],
    differentiable: true,
    gradcheck: 1e-5,
};

/// The gradient of L2 pooling as a family.
pub static L2_GRAD: Family = Family {
    name: "lp_pool2d_grad",
    about: "gradient of lp_pool2d to its input: dy · x / y, and 0 where y is 0",
    sample: |rng| sum(rng, backward, |_| (Pooling::L2, Fill::Ranges(&[(0.0, 0.0), (-1.0, 1.0)]))),
    benches: || {
        benches(Pooling::L2, backward, [Some("lppool2_grad_n8_c64_112"), None, Some("lppool3s2_grad_n8_c64_112")])
    },
    bad: wrong_shapes!(lp_pool2d, Pooling::L2),
    equivalent: &[],
    differentiable: false,
    gradcheck: 1e-6,
};
