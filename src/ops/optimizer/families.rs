//! Samples, benches, mistakes of each rule.

use super::{op::Optimizer, rule::Rule};
use crate::{
    graph::{Bad, Family, Fill, Sample, TensorType},
    tensor::{Batch, DType, Philox},
};

fn inputs(op: Optimizer, weights: &[Vec<usize>]) -> Vec<(TensorType, Fill)> {
    let any = Fill::Uniform(-1.0, 1.0);
    let fills = match op.rule {
        Rule::Sgd { .. } | Rule::MovingAverage { .. } => vec![any; 3],
        Rule::Adam { .. } | Rule::Nadam { .. } => {
            let square = Fill::Uniform(0.0, 1.0);
            vec![Fill::Uniform(-0.2, 0.2), any, any, square, square]
        }
        // A mean square is at least the square of the mean.
        Rule::Rmsprop { .. } => {
            let mean = Fill::Uniform(-0.5, 0.5);
            vec![Fill::Uniform(-0.2, 0.2), any, Fill::Uniform(0.5, 1.5), mean, mean]
        }
        Rule::Adagrad { .. } => vec![Fill::Uniform(-0.2, 0.2), any, Fill::Uniform(0.1, 1.0)],
    };
    (0..2 + op.rule.n_moments())
        .flat_map(|group| {
            let fill = fills[group];
            weights.iter().map(move |w| (TensorType::f32(w.as_slice()), fill))
        })
        .collect()
}

fn weights(rng: &mut Philox) -> Vec<Vec<usize>> {
    let sizes = [1, 3, 7, 15, 16, 17, 63, 64, 65];
    (0..1 + rng.below(5)).map(|_| (0..1 + rng.below(3)).map(|_| rng.pick(&sizes[..])).collect()).collect()
}

fn sample(rng: &mut Philox, rule: Rule) -> Sample {
    let op = Optimizer { rule, weight_decay: rng.pick(&[0.0, 0.004, 2.0]), factor: rng.pick(&[1.0, 0.1]) };
    let capacity = rng.pick(&[1, 5]);
    Sample::new(op, inputs(op, &weights(rng)), capacity)
}

fn sample_sgd(rng: &mut Philox) -> Sample {
    let rule = Rule::Sgd { momentum: rng.pick(&[0.0, 0.5, 0.9]), nesterov: rng.below(2) == 0 };
    sample(rng, rule)
}

const EPSILONS: [f32; 3] = [1e-7, 1e-3, 0.1];

fn sample_adam(rng: &mut Philox) -> Sample {
    let (beta_1, beta_2) = (rng.pick(&[0.9, 0.5]), rng.pick(&[0.999, 0.9]));
    let rule = Rule::Adam { beta_1, beta_2, epsilon: rng.pick(&EPSILONS), amsgrad: rng.below(3) == 0 };
    sample(rng, rule)
}

fn sample_nadam(rng: &mut Philox) -> Sample {
    let (beta_1, beta_2) = (rng.pick(&[0.9, 0.5]), rng.pick(&[0.999, 0.9]));
    let rule = Rule::Nadam { beta_1, beta_2, epsilon: rng.pick(&EPSILONS) };
    sample(rng, rule)
}

fn sample_rmsprop(rng: &mut Philox) -> Sample {
    let (rho, momentum) = (rng.pick(&[0.9, 0.5]), rng.pick(&[0.0, 0.9]));
    let rule = Rule::Rmsprop { rho, momentum, epsilon: rng.pick(&EPSILONS), centered: rng.below(2) == 0 };
    sample(rng, rule)
}

fn sample_adagrad(rng: &mut Philox) -> Sample {
    let rule = Rule::Adagrad { epsilon: rng.pick(&EPSILONS) };
    sample(rng, rule)
}

fn sample_moving_average(rng: &mut Philox) -> Sample {
    let op = Optimizer::from(Rule::MovingAverage { momentum: rng.pick(&[0.5, 0.9, 0.99]) });
    Sample::new(op, inputs(op, &weights(rng)), 1)
}

/// The weights of LeNet-5 (61,706 numbers).
fn lenet() -> Vec<Vec<usize>> {
    let shapes: [&[usize]; 10] =
        [&[5, 5, 1, 6], &[6], &[5, 5, 6, 16], &[16], &[400, 120], &[120], &[120, 84], &[84], &[84, 10], &[10]];
    shapes.iter().map(|s| s.to_vec()).collect()
}

fn bench(name: &'static str, rule: Rule, weights: &[Vec<usize>]) -> (&'static str, Sample) {
    let op = rule.into();
    (name, Sample::new(op, inputs(op, weights), 1))
}

const ADAM_RULE: Rule = Rule::Adam { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7, amsgrad: false };
const NADAM_RULE: Rule = Rule::Nadam { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7 };
const RMSPROP_RULE: Rule = Rule::Rmsprop { rho: 0.9, momentum: 0.0, epsilon: 1e-7, centered: false };

/// What no test of a rule's kernel can notice.
const PADDING: &[(&str, &str)] = &[
    ("leaves a term out at inside", "nobody reads what lies between two weights"),
    ("moves a boundary at inside", "nobody reads what lies between two weights"),
];

/// Gradient descent as a family.
pub static SGD: Family = Family {
    name: "sgd",
    about: "gradient descent with momentum and Nesterov's rule, all weights in one launch, in place (Keras SGD)",
    sample: sample_sgd,
    benches: || vec![bench("momentum_lenet5", Rule::Sgd { momentum: 0.9, nesterov: false }, &lenet())],
    bad: &[
        Bad {
            what: "a weight without a gradient",
            build: |g| {
                let w = g.input("w", [3, 4], DType::F32);
                Ok(g.sgd(&[w], &[], &[], 0.0, false)?[0])
            },
        },
        Bad {
            what: "a gradient of another shape",
            build: |g| {
                let (w, d) = (g.input("w", [3, 4], DType::F32), g.input("d", [4, 3], DType::F32));
                Ok(g.sgd(&[w], &[d], &[], 0.0, false)?[0])
            },
        },
        Bad {
            what: "a weight with a batch axis",
            build: |g| {
                let (w, d) = (g.input("w", [Batch, 4], DType::F32), g.input("d", [Batch, 4], DType::F32));
                Ok(g.sgd(&[w], &[d], &[], 0.0, false)?[0])
            },
        },
        Bad {
            what: "a negative momentum",
            build: |g| {
                let (w, d) = (g.input("w", [4], DType::F32), g.input("d", [4], DType::F32));
                Ok(g.sgd(&[w], &[d], &[d], -0.9, false)?[0])
            },
        },
    ],
    equivalent: &[
        PADDING[0],
        PADDING[1],
        ("adds for a product at inside", "the weights of a sample have at least eight elements together"),
    ],
    differentiable: false,
    gradcheck: 1e-6,
};

/// Adam as a family.
pub static ADAM: Family = Family {
    name: "adam",
    about: "Adam, with weight decay AdamW, all weights in one launch, in place (Keras Adam, AdamW; Kingma and Ba 2015, Loshchilov and Hutter 2019)",
    sample: sample_adam,
    benches: || vec![bench("lenet5", ADAM_RULE, &lenet()), bench("4m", ADAM_RULE, &[vec![2048, 2048]])],
    bad: &[
        Bad {
            what: "a moment missing",
            build: |g| {
                let (w, d) = (g.input("w", [4], DType::F32), g.input("d", [4], DType::F32));
                Ok(g.adam(&[w], &[d], [&[d], &[]], [0.9, 0.999], 1e-7)?[0])
            },
        },
        Bad {
            what: "an epsilon of zero",
            build: |g| {
                let (w, d) = (g.input("w", [4], DType::F32), g.input("d", [4], DType::F32));
                Ok(g.adam(&[w], &[d], [&[d]; 2], [0.9, 0.999], 0.0)?[0])
            },
        },
    ],
    equivalent: PADDING,
    differentiable: false,
    gradcheck: 1e-6,
};

/// Nadam as a family.
pub static NADAM: Family = Family {
    name: "nadam",
    about: "Adam with Nesterov's momentum, all weights in one launch, in place (Keras Nadam; Dozat 2016)",
    sample: sample_nadam,
    benches: || vec![bench("lenet5", NADAM_RULE, &lenet())],
    bad: &[Bad {
        what: "a moment missing",
        build: |g| {
            let (w, d) = (g.input("w", [4], DType::F32), g.input("d", [4], DType::F32));
            Ok(g.optimize(NADAM_RULE, &[w], &[d], &[&[d]])?[0])
        },
    }],
    equivalent: PADDING,
    differentiable: false,
    gradcheck: 1e-6,
};

/// RMSprop as a family.
pub static RMSPROP: Family = Family {
    name: "rmsprop",
    about: "RMSprop, plain or centered, with or without momentum, all weights in one launch, in place (Keras RMSprop)",
    sample: sample_rmsprop,
    benches: || vec![bench("lenet5", RMSPROP_RULE, &lenet())],
    bad: &[
        Bad {
            what: "a rho of one",
            build: |g| {
                let (w, d) = (g.input("w", [4], DType::F32), g.input("d", [4], DType::F32));
                let rule = Rule::Rmsprop { rho: 1.0, momentum: 0.0, epsilon: 1e-7, centered: false };
                Ok(g.optimize(rule, &[w], &[d], &[&[d]])?[0])
            },
        },
        Bad {
            what: "a negative weight decay",
            build: |g| {
                let (w, d) = (g.input("w", [4], DType::F32), g.input("d", [4], DType::F32));
                let optimizer = Optimizer { rule: RMSPROP_RULE, weight_decay: -1.0, factor: 1.0 };
                Ok(g.optimize(optimizer, &[w], &[d], &[&[d]])?[0])
            },
        },
    ],
    equivalent: PADDING,
    differentiable: false,
    gradcheck: 1e-6,
};

/// Adagrad as a family.
pub static ADAGRAD: Family = Family {
    name: "adagrad",
    about: "Adagrad, all weights in one launch, in place (Keras Adagrad; Duchi et al. 2011)",
    sample: sample_adagrad,
    benches: || vec![bench("lenet5", Rule::Adagrad { epsilon: 1e-7 }, &lenet())],
    bad: &[
        Bad {
            what: "an epsilon of zero",
            build: |g| {
                let (w, d) = (g.input("w", [4], DType::F32), g.input("d", [4], DType::F32));
                Ok(g.optimize(Rule::Adagrad { epsilon: 0.0 }, &[w], &[d], &[&[d]])?[0])
            },
        },
        Bad {
            what: "a norm limited to zero",
            build: |g| {
                let d = g.input("d", [4], DType::F32);
                g.clip_by_norm(d, 0.0)
            },
        },
    ],
    equivalent: PADDING,
    differentiable: false,
    gradcheck: 1e-6,
};

/// Moving averages as a family.
pub static MOVING_AVERAGE: Family = Family {
    name: "moving_average",
    about: "moving averages of statistics, all of them in one launch, in place (Keras BatchNormalization)",
    sample: sample_moving_average,
    benches: || vec![bench("lenet5", Rule::MovingAverage { momentum: 0.99 }, &lenet())],
    bad: &[Bad {
        what: "a momentum above one",
        build: |g| {
            let (w, d) = (g.input("w", [4], DType::F32), g.input("d", [4], DType::F32));
            Ok(g.optimize(Rule::MovingAverage { momentum: 1.1 }, &[w], &[d], &[])?[0])
        },
    }],
    equivalent: &[
        PADDING[0],
        PADDING[1],
        ("adds for a product at inside", "the weights of a sample have at least eight elements together"),
    ],
    differentiable: false,
    gradcheck: 1e-6,
};
