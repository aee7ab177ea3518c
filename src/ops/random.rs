//! Random numbers by counters: functions of seed, step, stream, row and element.

use crate::kernels::shader;
use crate::{
    graph::{
        Bad, Candidate, Cost, DeviceProfile, Epilogue, Family, Gradients, Graph, Grid, Io, Op, OpError, Sample, Slot,
        Step, TensorType, Value,
    },
    kernels::{self, Core, Schedule},
    tensor::{
        Accuracy, Array, Batch, DType, Philox, Purpose, Shape, UNIT, philox_key, philox4x32, stream_id, unit_f32,
    },
};

/// What is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Draw {
    /// Uniform in [low, high).
    Uniform {
        /// Lower end.
        low: f32,
        /// Upper end.
        high: f32,
    },
    /// Normal (Box and Muller 1958).
    Normal {
        /// Mean.
        mean: f32,
        /// Deviation.
        deviation: f32,
    },
}

/// Random numbers of a shape, drawn anew each step; they do not depend on how a batch is split.
#[derive(Debug, Clone, PartialEq)]
pub struct Random {
    /// What is drawn.
    pub draw: Draw,
    /// The shape.
    pub shape: Shape,
    /// Number of the sequence, from [`stream_id`] of the layer's name.
    pub stream: u32,
}

impl Random {
    /// Returns what is added, and what the drawn number is multiplied with before.
    fn terms(&self) -> [f32; 2] {
        match self.draw {
            Draw::Uniform { low, high } => [low, high - low],
            Draw::Normal { mean, deviation } => [mean, deviation],
        }
    }

    /// Returns radius and turned number of Box and Muller for an element.
    fn normal(&self, step: &Step, row: usize, element: usize) -> [f64; 2] {
        let word = |high: u32| {
            let key = philox_key(step.seed, Purpose::Noise);
            let quad = (element / 4) as u32 | high;
            f64::from(unit_f32(philox4x32(key, [step.step, self.stream, row as u32, quad])[element % 4]))
        };
        let radius = (-2.0 * (1.0 - word(0)).ln()).sqrt();
        [radius, radius * (std::f64::consts::TAU * (word(1 << 31) - 0.5)).cos()]
    }

    fn elements(&self, step: &Step, value: impl Fn(usize, usize) -> f64) -> Array {
        let row = self.shape.row().max(1);
        Array::from_fn(self.shape.at(step.n), |i| value(i / row, i % row))
    }
}

impl Op for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn key(&self) -> String {
        format!("{:?} shape={} stream={}", self.draw, self.shape, self.stream)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        if !inputs.is_empty() {
            return Err(OpError::new("random", "no inputs", inputs.len(), "random numbers depend on the step alone"));
        }
        if !self.terms().iter().all(|t| t.is_finite()) {
            return Err(OpError::new("random", "finite bounds", format!("{:?}", self.draw), "give other numbers"));
        }
        Ok(vec![TensorType::f32(self.shape.clone())])
    }

    fn reference(&self, _inputs: &[&Array], step: &Step) -> Vec<Array> {
        let [low, scale] = self.terms().map(f64::from);
        let key = philox_key(step.seed, Purpose::Noise);
        vec![self.elements(step, |row, e| {
            low + scale
                * match self.draw {
                    Draw::Normal { .. } => self.normal(step, row, e)[1],
                    Draw::Uniform { .. } => {
                        let counter = [step.step, self.stream, row as u32, (e / 4) as u32];
                        f64::from(unit_f32(philox4x32(key, counter)[e % 4]))
                    }
                }
        })]
    }

    fn vjp(&self, _g: &mut Graph, _inputs: &[Value], _outputs: &[Value], _dy: &[Option<Value>]) -> Gradients {
        Ok(Vec::new())
    }

    fn lower(&self, _io: &Io, _profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let items = self.shape.with_row(&[self.shape.row().div_ceil(4)]).elements();
        let [low, scale] = self.terms();
        let constants = [
            ("LANES", 64.0),
            ("ITEMS", items.fixed as f64),
            ("ITEMS_PER_SAMPLE", items.per_sample as f64),
            ("ROW", self.shape.row() as f64),
            ("STREAM", f64::from(self.stream)),
            ("PURPOSE", f64::from(philox_key(0, Purpose::Noise)[1])),
            ("NORMAL", if matches!(self.draw, Draw::Normal { .. }) { 1.0 } else { 0.0 }),
            ("LOW", f64::from(low)),
            ("SCALE", f64::from(scale)),
        ];
        let source = shader!("random.wgsl");
        let dispatch =
            kernels::dispatch("random", source, &constants, Grid::new(items, 64), vec![Slot::output(0)], epilogue);
        vec![Candidate::single(Schedule::of_width(Core::Elements, 4), dispatch)]
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: io.outputs[0].shape.elements(), bytes: io.bytes() }
    }

    fn accuracy(&self, _io: &Io, _n: usize) -> Vec<Accuracy> {
        let [low, scale] = self.terms().map(f64::from);
        vec![match self.draw {
            Draw::Uniform { .. } => Accuracy::Absolute(2.0 * UNIT * (low.abs() + scale.abs())),
            Draw::Normal { .. } => Accuracy::Absolute(scale.abs() * 8e-3),
        }]
    }

    /// WGSL's logarithm is exact to 2⁻²¹ near 1 and its cosine to 2⁻¹¹.
    fn bounds(&self, io: &Io, _inputs: &[&Array], exact: &[Array], step: &Step) -> Vec<Array> {
        let Draw::Normal { mean, deviation } = self.draw else {
            let Some(Accuracy::Absolute(bound)) = self.accuracy(io, step.n).first().copied() else { return Vec::new() };
            return vec![exact[0].map(|_| bound)];
        };
        vec![self.elements(step, |row, e| {
            let [radius, _] = self.normal(step, row, e);
            let of_log = (radius * radius + 2f64.powi(-19)).sqrt() - radius;
            let bound = of_log + radius * (2f64.powi(-11) + 2f64.powi(-19));
            f64::from(deviation.abs()) * bound + 4.0 * UNIT * f64::from(mean.abs() + 6.0 * deviation.abs())
        })]
    }

    fn epilogue(&self) -> bool {
        true
    }
}

impl Graph {
    /// Returns random numbers of this shape, drawn anew each step. Equal names give equal numbers.
    ///
    /// ```
    /// use hubel::{ops::Draw, prelude::*};
    /// let mut g = Graph::new();
    /// let noise = g.random(Draw::Normal { mean: 0.0, deviation: 0.1 }, &Shape::from([Batch, 8]), "noise")?;
    /// assert_eq!(g.ty(noise).to_string(), "f32(N, 8)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn random(&mut self, draw: Draw, shape: &Shape, name: &str) -> Result<Value, OpError> {
        self.apply1(Random { draw, shape: shape.clone(), stream: stream_id(name) }, &[])
    }
}

fn sample(rng: &mut Philox) -> Sample {
    let row = [rng.pick(&[1, 2, 5, 7, 16]), rng.pick(&[1, 3, 4, 15, 17, 63, 64, 65])];
    let shape = match rng.below(4) {
        0 => Shape::fixed(row),
        1 => Shape::from([Batch, row[1]]),
        _ => Shape::batched(rng.pick(&[1, 1, 3]), &row),
    };
    let draw = match rng.below(2) {
        0 => Draw::Uniform { low: rng.pick(&[0.0, -1.0]), high: rng.pick(&[1.0, 0.5]) },
        _ => Draw::Normal { mean: rng.pick(&[0.0, 2.0]), deviation: rng.pick(&[1.0, 0.1]) },
    };
    let capacity = rng.pick(&[1, 2, 3, 8]);
    let n = 1 + rng.below(capacity);
    Sample::new(Random { draw, shape, stream: rng.next_u32() }, Vec::new(), capacity).with_n(n)
}

/// Random numbers as a family.
pub static FAMILY: Family = Family {
    name: "random",
    about: "uniform or normal numbers by Philox 4x32-10 (Salmon et al. 2011; Box and Muller 1958)",
    sample,
    benches: || {
        let shape = Shape::from([Batch, 56, 56, 64]);
        let draw = Draw::Normal { mean: 0.0, deviation: 1.0 };
        vec![("normal_n8_c64_56", Sample::new(Random { draw, shape, stream: 1 }, Vec::new(), 8))]
    },
    bad: &[
        Bad {
            what: "a bound that is no number",
            build: |g| g.random(Draw::Uniform { low: f32::NAN, high: 1.0 }, &Shape::from([3]), "r"),
        },
        Bad {
            what: "an input",
            build: |g| {
                let x = g.input("x", [Batch, 3], DType::F32);
                let draw = Draw::Uniform { low: 0.0, high: 1.0 };
                g.apply1(Random { draw, shape: Shape::from([3]), stream: 1 }, &[x])
            },
        },
    ],
    equivalent: &[("swaps operands at u", "the distribution is symmetric, and the reference too")],
    differentiable: false,
    gradcheck: 1e-6,
};
