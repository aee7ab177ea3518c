//! Running sums of losses and metrics, kept on the device over an epoch.

use crate::{
    graph::{
        Bad, Candidate, Cost, DeviceClass, DeviceProfile, Epilogue, Family, Fill, Gradients, Graph, Grid, Io, Op,
        OpError, Sample, Slot, Step, TensorType, Value,
    },
    kernels::{Buffer, Core, Expr, Kernel, Layout, Schedule, Type, count, scalar},
    tensor::{Accuracy, Array, Batch, Count, DType, Philox},
};

/// Adds a batch to running sums in place: state (1 + k) and k values (N) → `s[0] + n`, `s[1 + j] + Σ vⱼ`.
///
/// Divided by the first, the others are means over samples, a partial batch included (Keras). Where host
/// number [`Accumulate::KEEP`] is 0 the sums start anew.
#[derive(Debug, Clone, PartialEq)]
pub struct Accumulate;

impl Accumulate {
    /// The host number that says whether earlier sums are kept.
    pub const KEEP: usize = Step::N_SCALARS - 1;
    /// The most values of one state: what portable adapters bind.
    pub const MOST: usize = 7;
}

impl Op for Accumulate {
    fn name(&self) -> &'static str {
        "accumulate"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let Some((state, values)) = inputs.split_first() else {
            return Err(OpError::new("accumulate", "a state and values", "nothing", "pass the state first"));
        };
        if values.len() > Self::MOST {
            let (wanted, advice) = (format!("at most {} values", Self::MOST), "use two states");
            return Err(OpError::new("accumulate", wanted, values.len(), advice));
        }
        if *state != TensorType::f32([1 + values.len()]) {
            let wanted = format!("a state f32({})", 1 + values.len());
            return Err(OpError::new("accumulate", wanted, state, "give it one element more than there are values"));
        }
        match values.iter().find(|v| **v != TensorType::f32([Batch])) {
            Some(v) => Err(OpError::new("accumulate", "values f32(N)", v, "reduce to one number per sample")),
            None => Ok(vec![state.clone()]),
        }
    }

    fn reference(&self, inputs: &[&Array], step: &Step) -> Vec<Array> {
        let kept = step.scalars[Self::KEEP] > 0.0;
        let mut state = inputs[0].map(|s| if kept { s } else { 0.0 });
        state.data[0] += step.n as f64;
        for (sum, values) in state.data[1..].iter_mut().zip(&inputs[1..]) {
            *sum += values.data.iter().sum::<f64>();
        }
        vec![state]
    }

    fn vjp(&self, _g: &mut Graph, inputs: &[Value], _outputs: &[Value], _dy: &[Option<Value>]) -> Gradients {
        Ok(vec![None; inputs.len()])
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, _epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let values = io.inputs.len() - 1;
        let group = match profile.class {
            DeviceClass::Cpu => 1,
            DeviceClass::Gpu => 256,
        };
        let mut k = Kernel::new("accumulate", group);
        let floats = Layout::Scalars(DType::F32);
        let state = k.bind_result("state", floats, Slot::InOut { inputs: 0..1, outputs: 0..1 });
        let values: Vec<Buffer> = (0..values).map(|j| k.bind(format!("v{j}"), floats, Slot::input(j + 1))).collect();
        let sums: Vec<Expr> = (0..values.len()).map(|j| k.var(format!("sum{j}"), 0.0)).collect();
        let (lane, samples) = (k.lane(), Count { fixed: 0, per_sample: 1 });
        k.for_("r", &lane, count(samples), group, |k, r| {
            sums.iter().zip(&values).for_each(|(sum, values)| k.add(sum, values.at(r)));
        });
        let mut totals = sums.clone();
        if group > 1 && !sums.is_empty() {
            let part = k.workgroup("part", Type::F32, (sums.len() * group) as u64);
            let share = |j: usize| &lane + j * group;
            (0..sums.len()).for_each(|j| k.store(&part, share(j), &sums[j]));
            k.tree(group as u32, |k, width| {
                let both = |at: Expr| (part.at(&at) + part.at(&at + width), at);
                (0..sums.len()).map(share).map(both).for_each(|(sum, at)| k.store(&part, at, sum));
            });
            totals = (0..sums.len()).map(|j| part.at(j * group)).collect();
        }
        k.return_if(lane.differs(0u32).or(k.workgroup_index().differs(0u32)));
        let kept = k.let_("kept", Expr::from(0.0).less(scalar(Self::KEEP)));
        for (j, sum) in [count(samples).f32()].into_iter().chain(totals).enumerate() {
            k.store(&state, j, kept.select(state.at(j), 0.0) + sum);
        }
        let kernel = k.launch(Grid::fixed(1));
        vec![Candidate::single(Schedule::of_width(if group > 1 { Core::Group } else { Core::Lane }, 1), kernel)]
    }

    fn cost(&self, io: &Io) -> Cost {
        let k = io.inputs.len() as u64 - 1;
        let count = |fixed, per_sample| Count { fixed, per_sample };
        Cost { flops: count(k + 1, k), bytes: count(8 * (k + 1), 4 * k) }
    }

    fn accuracy(&self, _io: &Io, n: usize) -> Vec<Accuracy> {
        vec![Accuracy::Products { terms: n as u64 + 1 }]
    }

    fn in_place(&self, _n_inputs: usize) -> Vec<(usize, usize)> {
        vec![(0, 0)]
    }
}

impl Graph {
    /// Returns `state` f32 (1 + k) with the batch added: the number of samples, then the sums of k values (N).
    ///
    /// The state is changed in place: pass the result to [`Graph::update`].
    pub fn accumulate(&mut self, state: Value, values: &[Value]) -> Result<Value, OpError> {
        self.apply1(Accumulate, &[&[state], values].concat())
    }
}

fn sample(rng: &mut Philox) -> Sample {
    let capacity = if rng.below(4) == 0 { rng.pick(&[1, 7, 15, 16, 17, 63, 64, 65]) } else { 1 + rng.below(3000) };
    let k = rng.pick(&[0, 1, 2, 3, 4, 5, 6, 7, 7, 6, 5, 4, 3, 2, 1]);
    let mut inputs = vec![(TensorType::f32([1 + k]), Fill::Uniform(0.0, 100.0))];
    inputs.extend((0..k).map(|_| (TensorType::f32([Batch]), Fill::Uniform(0.5, 3.0))));
    let n = 1 + rng.below(capacity);
    Sample::new(Accumulate, inputs, capacity).with_n(n)
}

fn benches() -> Vec<(&'static str, Sample)> {
    let values = (TensorType::f32([Batch]), Fill::Uniform(0.0, 3.0));
    let state = (TensorType::f32([3]), Fill::Uniform(0.0, 100.0));
    vec![("n64_k2", Sample::new(Accumulate, vec![state, values.clone(), values], 64))]
}

/// Running sums as a family.
pub static FAMILY: Family = Family {
    name: "accumulate",
    about: "running sums of losses and metrics and of the samples they come from, in place",
    sample,
    benches,
    bad: &[
        Bad {
            what: "a state of the wrong size",
            build: |g| {
                let (s, v) = (g.input("s", [3], DType::F32), g.input("v", [Batch], DType::F32));
                g.accumulate(s, &[v])
            },
        },
        Bad {
            what: "a value without a batch axis",
            build: |g| {
                let (s, v) = (g.input("s", [2], DType::F32), g.input("v", [5], DType::F32));
                g.accumulate(s, &[v])
            },
        },
        Bad {
            what: "more values than can be bound",
            build: |g| {
                let (s, v) = (g.input("s", [9], DType::F32), g.input("v", [Batch], DType::F32));
                g.accumulate(s, &[v; 8])
            },
        },
    ],
    equivalent: &[("leaves a term out at lane", "the launch has one workgroup")],
    differentiable: false,
    gradcheck: 1e-6,
};
