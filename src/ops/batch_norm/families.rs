//! Samples, benches and mistakes of batch normalisation.

use super::{
    op::{BatchNorm, BatchNormGrad},
    statistics::{BatchNormStatistics, BatchNormSums},
};
use crate::{
    graph::{Bad, Family, Fill, Sample, TensorType},
    tensor::{Batch, DType, Philox, Shape},
};
use std::sync::Arc;

fn any_shape(rng: &mut Philox) -> (Shape, usize, usize, f32) {
    let c = rng.pick(&[1, 3, 4, 6, 7, 8, 15, 16, 17, 63, 64, 65, 256, 260]);
    let side = if c > 20 { rng.pick(&[1, 2, 3, 7]) } else { rng.pick(&[1, 2, 5, 7, 15, 16, 17]) };
    let other = if c < 20 && rng.below(4) == 0 { 63 } else { rng.pick(&[1, 3, side]) };
    let capacity = rng.pick(&[1, 2, 3, 5, 8]);
    let shape = match rng.below(4) {
        0 => Shape::from([Batch, c]),
        1 if c < 20 => Shape::fixed([rng.pick(&[9, 700, 2500]) + capacity, c]),
        1 => Shape::fixed([capacity + 1, side, c]),
        _ => Shape::from([Batch, side, other, c]),
    };
    // A few rows may be nearly equal: a small epsilon would then make the finite difference meaningless.
    let n = 1 + rng.below(capacity);
    let epsilon = if shape.rows().at(n) < 8 { 0.1 } else { 1e-3 };
    (shape, capacity, n, epsilon)
}

fn training(x: Shape, capacity: usize, epsilon: f32) -> Sample {
    let c = TensorType::f32([x.last()]);
    let inputs = vec![
        (TensorType::f32(x), Fill::Uniform(-1.0, 3.0)),
        (c.clone(), Fill::Away(0.5, 1.5)),
        (c, Fill::Uniform(-1.0, 1.0)),
    ];
    Sample::new(BatchNorm { epsilon }, inputs, capacity)
}

fn gradient(x: Shape, capacity: usize, epsilon: f32) -> Sample {
    let c = TensorType::f32([x.last()]);
    let x = TensorType::f32(x);
    let inputs = vec![
        (x.clone(), Fill::Uniform(-1.0, 3.0)),
        (c.clone(), Fill::Away(0.5, 1.5)),
        (c.clone(), Fill::Uniform(0.5, 1.5)),
        (c, Fill::Uniform(0.5, 2.0)),
        (x, Fill::Uniform(-1.0, 1.0)),
    ];
    Sample::new(BatchNormGrad { epsilon }, inputs, capacity)
}

const OWN_PARTS: &str = "here an operation has parts of its own; those of other kernels have a test of their own";

/// Batch normalisation in training as a family.
pub static FAMILY: Family = Family {
    name: "batch_norm",
    about: "normalisation by the batch's mean and biased variance over all axes but the last (Keras BatchNormalization)",
    sample: |rng| {
        let (x, capacity, n, epsilon) = any_shape(rng);
        training(x, capacity, epsilon).with_n(n)
    },
    benches: || vec![("bn_train_n8_c64_56", training(Shape::from([Batch, 56, 56, 64]), 8, 1e-3))],
    bad: &[
        Bad {
            what: "a gamma of another number of channels",
            build: |g| {
                let x = g.input("x", [Batch, 4, 4, 3], DType::F32);
                let c = g.input("c", [4], DType::F32);
                Ok(g.batch_norm(x, c, c, 1e-3)?[0])
            },
        },
        Bad {
            what: "an epsilon of 0",
            build: |g| {
                let x = g.input("x", [Batch, 4], DType::F32);
                let c = g.input("c", [4], DType::F32);
                Ok(g.batch_norm(x, c, c, 0.0)?[0])
            },
        },
        Bad {
            what: "a vector",
            build: |g| {
                let x = g.input("x", [4], DType::F32);
                Ok(g.batch_norm(x, x, x, 1e-3)?[0])
            },
        },
        Bad {
            what: "inference with a variance of bytes",
            build: |g| {
                let x = g.input("x", [Batch, 4], DType::F32);
                let c = g.input("c", [4], DType::F32);
                let v = g.input("v", [4], DType::U8);
                g.batch_norm_inference(x, [c, c, c, v], 1e-3)
            },
        },
    ],
    equivalent: &[
        ("moves a boundary at g", "lanes behind the last chunk find no row"),
        ("takes for false at g", "lanes without a row of their own write what others write"),
        ("takes the other sign at chunk", "chunks may have any size that covers all rows"),
        ("adds 1 to a constant at variance", "a single row has no deviation"),
    ],
    differentiable: true,
    gradcheck: 1e-5,
};

/// The gradient of batch normalisation as a family.
pub static FAMILY_GRAD: Family = Family {
    name: "batch_norm_grad",
    about: "gradient of batch_norm to its input, gamma and beta",
    sample: |rng| {
        let (x, capacity, n, epsilon) = any_shape(rng);
        gradient(x, capacity, epsilon).with_n(n)
    },
    benches: || vec![("bn_grad_n8_c64_56", gradient(Shape::from([Batch, 56, 56, 64]), 8, 1e-3))],
    bad: &[Bad {
        what: "a gradient of another shape than x",
        build: |g| {
            let x = g.input("x", [Batch, 4], DType::F32);
            let c = g.input("c", [4], DType::F32);
            g.apply1(BatchNormGrad { epsilon: 1e-3 }, &[x, c, c, c, c])
        },
    }],
    equivalent: &[
        ("moves a boundary at g", "lanes behind the last chunk find no row"),
        ("takes for false at g", "lanes without a row of their own write what others write"),
        ("takes the other sign at chunk", "chunks may have any size that covers all rows"),
    ],
    differentiable: false,
    gradcheck: 1e-5,
};

/// The statistics of a batch as a family.
pub static FAMILY_STATISTICS: Family = Family {
    name: "batch_norm_statistics",
    about: "mean, biased variance, scale and shift of batch_norm alone, which leaves the rest to elementwise functions",
    sample: |rng| {
        let (x, capacity, n, epsilon) = any_shape(rng);
        let c = x.last();
        let mut sample = training(x, capacity, epsilon).with_n(n);
        if rng.below(3) == 0 {
            let before = rng.pick(&[1, 4, 63, 64, 300, 1100]);
            let known = |fill| (TensorType::f32([before]), fill);
            sample.inputs[1..].iter_mut().for_each(|(ty, _)| *ty = TensorType::f32([before + c]));
            sample.inputs.extend([known(Fill::Uniform(-1.0, 1.0)), known(Fill::Uniform(0.5, 2.0))]);
        }
        Sample { op: Arc::new(BatchNormStatistics { epsilon }), ..sample }
    },
    benches: Vec::new,
    bad: &[Bad {
        what: "a gamma of another number of channels",
        build: |g| {
            let x = g.input("x", [Batch, 4, 4, 3], DType::F32);
            let c = g.input("c", [4], DType::F32);
            Ok(g.apply(BatchNormStatistics { epsilon: 1e-3 }, &[x, c, c])?[0])
        },
    }],
    equivalent: &[
        ("adds 1 to a constant at variance", "a single row has no deviation"),
        ("adds for a product at select", OWN_PARTS),
        ("leaves a term out at per_stack", OWN_PARTS),
        ("leaves a term out at rows", OWN_PARTS),
        ("takes the other sign at per_stack", OWN_PARTS),
    ],
    differentiable: false,
    gradcheck: 1e-5,
};

/// The sums of the gradient of batch normalisation as a family.
pub static FAMILY_SUMS: Family = Family {
    name: "batch_norm_sums",
    about: "gradients of batch_norm to gamma and beta, and what the gradient to x needs of them",
    sample: |rng| {
        let (x, capacity, n, epsilon) = any_shape(rng);
        Sample { op: Arc::new(BatchNormSums { epsilon }), ..gradient(x, capacity, epsilon).with_n(n) }
    },
    benches: Vec::new,
    bad: &[Bad {
        what: "a gradient of another shape than x",
        build: |g| {
            let x = g.input("x", [Batch, 4], DType::F32);
            let c = g.input("c", [4], DType::F32);
            Ok(g.apply(BatchNormSums { epsilon: 1e-3 }, &[x, c, c, c, c])?[0])
        },
    }],
    equivalent: &[
        ("adds for a product at select", OWN_PARTS),
        ("leaves a term out at per_stack", OWN_PARTS),
        ("leaves a term out at rows", OWN_PARTS),
        ("takes the other sign at per_stack", OWN_PARTS),
    ],
    differentiable: false,
    gradcheck: 1e-5,
};
