//! Samples, benches, mistakes.

use super::op::{GroupNorm, GroupNormGrad};
use crate::ops::conv2d::ANY;
use crate::{
    graph::{Bad, Family, Fill, Sample, TensorType},
    tensor::{Batch, DType, Philox, Shape},
};

fn any_case(rng: &mut Philox) -> (GroupNorm, TensorType, usize, usize) {
    let groups = rng.pick(&[1, 1, 2, 3, 4, 16]);
    let channels = groups * rng.pick(&[1, 2, 4, 6, 7, 8, 15, 16, 17, 63, 64, 65]);
    let mut dims = vec![Batch];
    match rng.below(4) {
        0 => dims = vec![rng.pick(&[1, 2, 3]), 5],
        1 => {}
        2 => dims.push(rng.pick(&[1, 7, 15, 16, 17, 63])),
        _ => dims.extend([rng.pick(&[1, 3, 7, 8]), rng.pick(&[1, 5, 16])]),
    }
    if dims.len() == 1 && rng.below(2) == 0 {
        dims.push(1);
    }
    // A group of one number is its own mean: its result is beta, and its gradient nothing but rounding.
    let several = dims[1..].iter().product::<usize>() * channels / groups >= 4;
    dims.push(if several { channels } else { 8 * groups });
    let capacity = rng.pick(&[1, 2, 5, 70]);
    let n = 1 + rng.below(capacity);
    let epsilon = rng.pick(&[1e-3, 1e-5]);
    (GroupNorm { groups, epsilon }, TensorType::f32(&dims[..]), capacity, n)
}

fn of(norm: GroupNorm, x: TensorType, capacity: usize) -> Sample {
    let c = TensorType::f32([x.shape.last()]);
    let inputs = vec![(x, Fill::Uniform(-1.0, 3.0)), (c.clone(), Fill::Uniform(0.5, 1.5)), (c, ANY)];
    Sample::new(norm, inputs, capacity)
}

fn grad_of(norm: GroupNorm, x: TensorType, capacity: usize) -> Sample {
    let c = TensorType::f32([x.shape.last()]);
    let statistics = norm.statistics(&x.shape);
    let inputs = vec![
        (x.clone(), Fill::Uniform(-1.0, 3.0)),
        (c, Fill::Uniform(0.5, 1.5)),
        (statistics.clone(), Fill::Uniform(0.5, 1.5)),
        (statistics, Fill::Uniform(0.5, 2.0)),
        (x, ANY),
    ];
    Sample::new(GroupNormGrad { norm }, inputs, capacity)
}

fn benches(of: fn(GroupNorm, TensorType, usize) -> Sample) -> Vec<(&'static str, Sample)> {
    let norm = |groups| GroupNorm { groups, epsilon: 1e-3 };
    vec![
        ("groupnorm32_n8_c64_56", of(norm(32), TensorType::f32([Batch, 56, 56, 64]), 8)),
        ("layernorm_n1568_c384", of(norm(1), TensorType::f32(Shape::batched(196, &[384])), 8)),
    ]
}

fn random(rng: &mut Philox, of: fn(GroupNorm, TensorType, usize) -> Sample) -> Sample {
    let (norm, x, capacity, n) = any_case(rng);
    of(norm, x, capacity).with_n(n)
}

/// Group normalisation as a family.
pub static FAMILY: Family = Family {
    name: "group_norm",
    about: "each sample and group of channels normalised; layer normalisation is one group per row (Keras GroupNormalization, LayerNormalization)",
    sample: |rng| random(rng, of),
    benches: || benches(of),
    bad: &[
        Bad {
            what: "groups of unlike size",
            build: |g| {
                let x = g.input("x", [Batch, 4, 4, 6], DType::F32);
                let [gamma, beta] = ["gamma", "beta"].map(|name| g.input(name, [6], DType::F32));
                g.group_norm(x, gamma, beta, 4, 1e-3)
            },
        },
        Bad {
            what: "an epsilon of 0",
            build: |g| {
                let x = g.input("x", [Batch, 4, 4, 6], DType::F32);
                let [gamma, beta] = ["gamma", "beta"].map(|name| g.input(name, [6], DType::F32));
                g.group_norm(x, gamma, beta, 3, 0.0)
            },
        },
        Bad {
            what: "gamma of another length",
            build: |g| {
                let x = g.input("x", [Batch, 4, 4, 6], DType::F32);
                let [gamma, beta] = ["gamma", "beta"].map(|name| g.input(name, [3], DType::F32));
                g.group_norm(x, gamma, beta, 3, 1e-3)
            },
        },
        Bad {
            what: "a layer over other axes than gamma's",
            build: |g| {
                let x = g.input("x", [Batch, 4, 6], DType::F32);
                let [gamma, beta] = ["gamma", "beta"].map(|name| g.input(name, [4], DType::F32));
                g.layer_norm(x, gamma, beta, 1e-3)
            },
        },
    ],
    equivalent: &[
        ("adds 1 to a constant at shift", "lanes without a group do not use it"),
        ("reads the first at x", "any shift near the numbers will do"),
        ("takes for false at T", "the sum over one lane is its own"),
        ("takes for true at t", "all lanes of a group write the same"),
    ],
    differentiable: true,
    gradcheck: 1e-5,
};

/// The gradient of group normalisation as a family.
pub static FAMILY_GRAD: Family = Family {
    name: "group_norm_grad",
    about: "gradient of group_norm to its input, gamma and beta",
    sample: |rng| random(rng, grad_of),
    benches: || benches(grad_of),
    bad: &[Bad {
        what: "statistics of one group only",
        build: |g| {
            let x = g.input("x", [Batch, 4, 4, 6], DType::F32);
            let gamma = g.input("gamma", [6], DType::F32);
            let [mean, variance] = ["mean", "variance"].map(|name| g.input(name, [Batch, 1], DType::F32));
            let norm = GroupNorm { groups: 3, epsilon: 1e-3 };
            Ok(g.apply(GroupNormGrad { norm }, &[x, gamma, mean, variance, x])?[0])
        },
    }],
    equivalent: &[
        ("adds 1 to a constant at r", "lanes without a group do not use it"),
        ("takes for false at T", "the sum over one lane is its own"),
    ],
    differentiable: false,
    gradcheck: 1e-5,
};
