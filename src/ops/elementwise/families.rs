//! Samples, benches, mistakes.

use super::{
    op::Elementwise,
    table::{ANY, TABLE},
};
use crate::{
    graph::{Bad, Elementary, Family, Program, Sample, TensorType},
    tensor::{Batch, DType, Philox, Shape},
};

fn sample(rng: &mut Philox) -> Sample {
    let f = &TABLE[rng.below(TABLE.len())];
    sample_of(f, rng)
}

/// Returns a random sample of one row of the table.
pub fn sample_of(f: &'static Elementary, rng: &mut Philox) -> Sample {
    let sizes = [1, 2, 3, 5, 7, 8, 15, 16, 17, 33, 64, 65];
    let capacity = rng.pick(&[1, 2, 3, 5, 8]);
    let full = [Batch, rng.pick(&sizes), rng.pick(&sizes), rng.pick(&[1, 3, 4, 6, 16])];
    let mut inputs = Vec::new();
    for k in 0..f.arity {
        let shape = match if k == 0 { 0 } else { rng.below(5) } {
            0 | 1 => Shape::from(full),
            2 => Shape::fixed([full[3]]),
            3 => Shape::scalar(),
            _ => Shape::from([Batch, 1, full[2], 1]),
        };
        inputs.push((TensorType::f32(shape), f.domain[k]));
    }
    let n = 1 + rng.below(capacity);
    Sample::new(Elementwise::from(Program::of(f)), inputs, capacity).with_n(n)
}

fn benches() -> Vec<(&'static str, Sample)> {
    let big = || TensorType::f32([Batch, 56, 56, 64]);
    let op = |name| Elementwise::named(name).unwrap_or_else(|_| Program::identity().into());
    vec![
        ("gelu_n8_c64_56", Sample::new(op("gelu"), vec![(big(), ANY)], 8)),
        ("relu_n8_c64_56", Sample::new(op("relu"), vec![(big(), ANY)], 8)),
        ("add_n8_c64_56", Sample::new(op("add"), vec![(big(), ANY), (big(), ANY)], 8)),
        ("bias_n8_c64_56", Sample::new(op("add"), vec![(big(), ANY), (TensorType::f32([64]), ANY)], 8)),
    ]
}

/// The elementwise table as a family.
pub static FAMILY: Family = Family {
    name: "elementwise",
    about: "functions of single elements with NumPy broadcasting, fused into chains and epilogues (ONNX)",
    sample,
    benches,
    bad: &[
        Bad {
            what: "shapes that do not broadcast",
            build: |g| {
                let a = g.input("a", [Batch, 3], DType::F32);
                let b = g.input("b", [Batch, 4], DType::F32);
                g.add(a, b)
            },
        },
        Bad {
            what: "one operand for a function of two",
            build: |g| {
                let a = g.input("a", [Batch, 3], DType::F32);
                g.unary("prelu", a)
            },
        },
        Bad {
            what: "an unknown function",
            build: |g| {
                let a = g.input("a", [Batch, 3], DType::F32);
                g.unary("no_such_function", a)
            },
        },
    ],
    equivalent: &[],
    differentiable: true,
    gradcheck: 1e-6,
};
