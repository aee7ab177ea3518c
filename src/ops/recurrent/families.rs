//! Samples, benches, mistakes of each cell.

use super::op::{Recurrent, RecurrentGrad, keras};
use crate::ops::conv2d::ANY;
use crate::{
    graph::{Bad, Family, Fill, Graph, OpError, Sample, TensorType, Value},
    kernels::recurrent::{Cell, CellActivation, CellKind},
    tensor::{Batch, DType, Philox, Shape},
};

fn of(cell: Cell, sequence: Shape, initial: bool, capacity: usize) -> Sample {
    let (steps, u) = (sequence.dims()[1], sequence.last());
    let row = cell.gates() * u;
    // So that no state grows from step to step.
    let bound = 0.8 / (u as f64).sqrt();
    let mut inputs = vec![
        (TensorType::f32(sequence.with_row(&[steps, row])), ANY),
        (TensorType::f32(Shape::fixed([u, row])), Fill::Uniform(-bound, bound)),
    ];
    if cell.kind == CellKind::GruAfter {
        inputs.push((TensorType::f32(Shape::fixed([row])), ANY));
    }
    if initial {
        inputs.push((TensorType::f32(sequence.with_row(&[cell.states() * u])), ANY));
    }
    Sample::new(Recurrent { cell }, inputs, capacity)
}

fn grad_of(cell: Cell, sequence: Shape, of_cells: bool, capacity: usize) -> Sample {
    let (steps, u) = (sequence.dims()[1], sequence.last());
    let row = cell.gates() * u;
    let bound = 0.8 / (u as f64).sqrt();
    let narrow = (TensorType::f32(sequence.clone()), ANY);
    let wide = (TensorType::f32(sequence.with_row(&[steps, row])), ANY);
    let kernel = (TensorType::f32(Shape::fixed([row, u])), Fill::Uniform(-bound, bound));
    let mut inputs = match cell.kind {
        CellKind::Simple => vec![narrow.clone(), kernel],
        CellKind::Lstm | CellKind::GruBefore => vec![wide, kernel, narrow.clone()],
        CellKind::GruAfter => vec![wide.clone(), wide, kernel, narrow.clone()],
    };
    inputs.push(narrow.clone());
    if of_cells && cell.kind == CellKind::Lstm {
        inputs.push(narrow);
    }
    Sample::new(RecurrentGrad { cell }, inputs, capacity)
}

type Make = fn(Cell, Shape, bool, usize) -> Sample;

/// Units of a sample. All else that makes another kernel follows from its place here: samples share what takes long to compile.
const UNITS: [usize; 14] = [1, 2, 3, 4, 7, 8, 15, 16, 17, 33, 63, 64, 65, 260];

fn random(rng: &mut Philox, kinds: &[CellKind], make: Make) -> Sample {
    use CellActivation::{HardSigmoid, Linear, Relu, Sigmoid};
    let place = rng.below(UNITS.len());
    let u = UNITS[place];
    let steps = if u > 65 { rng.pick(&[1, 2]) } else { rng.pick(&[1, 2, 3, 4, 7, 16]) };
    let capacity = if u > 65 { 2 } else { rng.pick(&[1, 2, 3, 5, 9, 17]) };
    let mut cell = keras(rng.pick(kinds));
    if place % 4 == 1 {
        cell.activation = [Linear, Relu, Sigmoid, Linear][place / 4];
        cell.gate = if cell.kind == CellKind::Simple { Linear } else { [Sigmoid, HardSigmoid][place / 4 % 2] };
    }
    let first = if place % 5 == 2 { [1, 3, 9][place / 5] } else { Batch };
    let n = 1 + rng.below(capacity);
    make(cell, Shape::from([first, steps, u]), (place / 2).is_multiple_of(2), capacity).with_n(n)
}

fn benches(kind: CellKind, make: Make) -> Vec<(&'static str, Sample)> {
    let case = |u, steps| make(keras(kind), Shape::from([Batch, steps, u]), false, 32);
    vec![
        ("n32_t50_u16", case(16, 50)),
        ("n32_t50_u64", case(64, 50)),
        ("n32_t50_u128", case(128, 50)),
        ("n32_t20_u256", case(256, 20)),
    ]
}

const GRUS: &[CellKind] = &[CellKind::GruBefore, CellKind::GruAfter];

/// What no test of a cell's kernels can notice.
const IDLE: &[(&str, &str)] = &[
    ("takes for true at live", "nobody reads what lanes without a sample compute"),
    ("takes for true at own", "nobody reads what lanes without a unit compute"),
];

/// The simple recurrent cell as a family.
pub static SIMPLE: Family = Family {
    name: "simple_rnn",
    about: "all timesteps of a simple recurrent cell in one launch (Keras SimpleRNN; Elman 1990)",
    sample: |rng| random(rng, &[CellKind::Simple], of),
    benches: || benches(CellKind::Simple, of),
    bad: &[
        Bad {
            what: "a kernel that is not square",
            build: |g| {
                let (x, kernel) = (g.input("x", [Batch, 5, 8], DType::F32), g.input("kernel", [8, 9], DType::F32));
                g.simple_rnn(x, kernel, None)
            },
        },
        Bad {
            what: "no timesteps",
            build: |g| {
                let (x, kernel) = (g.input("x", [Batch, 8], DType::F32), g.input("kernel", [8, 8], DType::F32));
                g.simple_rnn(x, kernel, None)
            },
        },
        Bad {
            what: "more units than workgroup memory holds",
            build: |g| {
                let x = g.input("x", [Batch, 5, 1025], DType::F32);
                let kernel = g.input("kernel", [1025, 1025], DType::F32);
                g.simple_rnn(x, kernel, None)
            },
        },
    ],
    equivalent: IDLE,
    differentiable: true,
    gradcheck: 1e-6,
};

/// The LSTM as a family.
pub static LSTM: Family = Family {
    name: "lstm",
    about: "all timesteps of a long short-term memory in one launch (Keras LSTM; Hochreiter and Schmidhuber 1997)",
    sample: |rng| random(rng, &[CellKind::Lstm], of),
    benches: || benches(CellKind::Lstm, of),
    bad: &[
        Bad {
            what: "the projection of another number of gates",
            build: |g| {
                let (x, kernel) = (g.input("x", [Batch, 5, 24], DType::F32), g.input("kernel", [8, 32], DType::F32));
                Ok(g.lstm(x, kernel, None)?[0])
            },
        },
        Bad {
            what: "initial states of other units",
            build: |g| {
                let (x, kernel) = (g.input("x", [Batch, 5, 32], DType::F32), g.input("kernel", [8, 32], DType::F32));
                let h = g.input("h", [Batch, 9], DType::F32);
                Ok(g.lstm(x, kernel, Some([h, h]))?[0])
            },
        },
    ],
    equivalent: IDLE,
    differentiable: true,
    gradcheck: 1e-6,
};

/// The gated recurrent unit as a family.
pub static GRU: Family = Family {
    name: "gru",
    about: "all timesteps of a gated recurrent unit in one launch, the reset gate before or after the product (Keras GRU; Cho et al. 2014)",
    sample: |rng| random(rng, GRUS, of),
    benches: || benches(CellKind::GruAfter, of),
    bad: &[
        Bad {
            what: "a recurrent bias of another length",
            build: |g| {
                let (x, kernel) = (g.input("x", [Batch, 5, 24], DType::F32), g.input("kernel", [8, 24], DType::F32));
                let bias = g.input("bias", [8], DType::F32);
                g.gru(x, kernel, Some(bias), None)
            },
        },
        Bad {
            what: "an initial state with timesteps",
            build: |g| {
                let (x, kernel) = (g.input("x", [Batch, 5, 24], DType::F32), g.input("kernel", [8, 24], DType::F32));
                let h = g.input("h", [Batch, 1, 8], DType::F32);
                g.gru(x, kernel, None, Some(h))
            },
        },
    ],
    equivalent: IDLE,
    differentiable: true,
    gradcheck: 1e-6,
};

fn grad_bad(g: &mut Graph, kind: CellKind, rest: usize) -> Result<Value, OpError> {
    let (wide, kernel) = (g.input("gates", [Batch, 5, 24], DType::F32), g.input("kernel", [8, 24], DType::F32));
    let narrow = g.input("before", [Batch, 5, 8], DType::F32);
    let mut operands = vec![wide, kernel];
    operands.extend(vec![narrow; rest]);
    Ok(g.apply(RecurrentGrad { cell: keras(kind) }, &operands)?[0])
}

/// The gradient of the simple recurrent cell as a family.
pub static SIMPLE_GRAD: Family = Family {
    name: "simple_rnn_grad",
    about: "gradient of simple_rnn through all timesteps in one launch",
    sample: |rng| random(rng, &[CellKind::Simple], grad_of),
    benches: || benches(CellKind::Simple, grad_of),
    bad: &[Bad { what: "a kernel that is not transposed", build: |g| grad_bad(g, CellKind::Simple, 1) }],
    equivalent: IDLE,
    differentiable: false,
    gradcheck: 1e-6,
};

/// The gradient of the LSTM as a family.
pub static LSTM_GRAD: Family = Family {
    name: "lstm_grad",
    about: "gradient of lstm through all timesteps in one launch",
    sample: |rng| random(rng, &[CellKind::Lstm], grad_of),
    benches: || benches(CellKind::Lstm, grad_of),
    bad: &[Bad { what: "a kernel that is not transposed", build: |g| grad_bad(g, CellKind::Lstm, 2) }],
    equivalent: IDLE,
    differentiable: false,
    gradcheck: 1e-6,
};

/// The gradient of the gated recurrent unit as a family.
pub static GRU_GRAD: Family = Family {
    name: "gru_grad",
    about: "gradient of gru through all timesteps in one launch",
    sample: |rng| random(rng, GRUS, grad_of),
    benches: || benches(CellKind::GruAfter, grad_of),
    bad: &[Bad { what: "a kernel that is not transposed", build: |g| grad_bad(g, CellKind::GruBefore, 2) }],
    equivalent: IDLE,
    differentiable: false,
    gradcheck: 1e-6,
};
