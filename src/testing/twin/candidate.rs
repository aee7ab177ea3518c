//! Candidates of an operation on samples: all their launches, one after the other.

use super::{
    error::TwinError,
    machine::{MAX_TURNS, Work},
    memory::Buffer,
    twin::Twin,
};
use crate::{
    graph::{ALIGN_BYTES, Candidate, DeviceProfile, Dispatch, Fill, Io, Sample, Slot, Step, TensorType, UNIFORM_BYTES},
    passes::optimize,
    tensor::{Array, DType, HostTensor, Mismatch, Philox, compare},
    testing::{Failure, run},
};
use std::ops::Range;

/// How a candidate does otherwise than its operation says.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CandidateError {
    /// A kernel did not run to its end.
    #[error("{kernel}: {error}")]
    Kernel {
        /// The kernel's name.
        kernel: String,
        /// Why.
        error: TwinError,
    },
    /// A result lies outside its bound.
    #[error("{0}")]
    Result(#[from] Mismatch),
}

/// An operation on inputs, with the results that it must give.
///
/// ```
/// use hubel::{graph::{DeviceClass, DeviceProfile}, ops::FAMILIES, tensor::{Philox, Purpose}, testing::twin::Trial};
/// let mut rng = Philox::new(1, Purpose::Test, 0);
/// let trial = Trial::new(&(FAMILIES[0].sample)(&mut rng), &mut rng)?;
/// let profile = DeviceProfile::portable(DeviceClass::Cpu);
/// for candidate in trial.candidates(&profile) {
///     trial.check(&candidate, &profile)?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Trial {
    sample: Sample,
    io: Io,
    step: Step,
    inputs: Vec<HostTensor>,
    exact: Vec<Array>,
    bounds: Vec<Array>,
}

impl Trial {
    /// Returns a sample with random inputs, or an error where it cannot be built.
    pub fn new(sample: &Sample, rng: &mut Philox) -> Result<Self, Failure> {
        let (graph, _, outputs) = run::sample_graph(sample)?;
        let arrays = run::sample_inputs(sample, rng);
        let step = run::step_of(sample, rng);
        let io = graph.io(graph.node(outputs[0]));
        let refs: Vec<&Array> = arrays.iter().collect();
        let exact = sample.op.reference(&refs, &step);
        let bounds = sample.op.bounds(&io, &refs, &exact, &step);
        let inputs = arrays.iter().zip(&io.inputs).map(|(a, ty)| a.to_host(ty.dtype)).collect();
        Ok(Trial { sample: sample.clone(), io, step, inputs, exact, bounds })
    }

    /// Returns the sample.
    pub fn sample(&self) -> &Sample {
        &self.sample
    }

    /// Returns the trial of the operation with its first result times an input plus a row and cut at 0, which its kernels
    /// do as they store; none for operations that do not.
    pub fn fused(&self, profile: &DeviceProfile, rng: &mut Philox) -> Result<Option<Self>, Failure> {
        let (mut g, _, outputs) = run::sample_graph(&self.sample)?;
        let ty = g.ty(outputs[0]).clone();
        if !self.sample.op.epilogue() || ty.dtype != DType::F32 || ty.shape.rank() == 0 {
            return Ok(None);
        }
        let row = TensorType::f32([ty.shape.last()]);
        let factor = g.input("factor", ty.shape.clone(), DType::F32);
        let term = g.input("term", row.shape.clone(), DType::F32);
        let Ok(y) = g.mul(outputs[0], factor).and_then(|product| g.add(product, term)).and_then(|sum| g.relu(sum))
        else {
            return Ok(None);
        };
        let others = outputs.iter().enumerate().skip(1).map(|(k, &v)| (format!("out{k}"), v));
        g.set_outputs([("out0".to_owned(), y)].into_iter().chain(others).collect());
        let g = optimize(&g, profile);
        let live = g.live();
        let mut nodes = g.nodes().iter().zip(live).filter(|(n, live)| *live && n.op().is_some()).map(|(n, _)| n);
        let (Some(node), None) = (nodes.next(), nodes.next()) else { return Ok(None) };
        let any = Fill::Uniform(-1.0, 1.0);
        let inputs = node.inputs.iter().enumerate().map(|(i, &v)| match g.node(v).name.as_str() {
            "factor" => Some((ty.clone(), any)),
            "term" => Some((row.clone(), any)),
            name => (name == format!("in{i}")).then(|| self.sample.inputs[i].clone()),
        });
        let (Some(op), Some(inputs)) = (node.op(), inputs.collect::<Option<_>>()) else { return Ok(None) };
        Trial::new(&Sample { op: op.clone(), inputs, ..self.sample.clone() }, rng).map(Some)
    }

    /// Returns the floating-point operations of the batch.
    pub fn flops(&self) -> u64 {
        self.sample.op.cost(&self.io).flops.at(self.sample.n)
    }

    /// Returns the ways to run the operation on a kind of adapter.
    pub fn candidates(&self, profile: &DeviceProfile) -> Vec<Candidate> {
        self.sample.op.lower(&self.io, profile, None)
    }

    /// Returns what each launch of a candidate did, where the twin finds no fault and the results lie within the
    /// operation's bounds; chunks of the batch are one launch.
    pub fn check(&self, candidate: &Candidate, profile: &DeviceProfile) -> Result<Vec<Work>, CandidateError> {
        Ok(self.run(candidate, profile)?.launches.into_iter().map(|(.., work)| work).collect())
    }

    /// Does what [`Trial::check`] does, and returns the run.
    pub fn run<'t>(
        &'t self,
        candidate: &'t Candidate,
        profile: &'t DeviceProfile,
    ) -> Result<Checked<'t>, CandidateError> {
        let (mut memory, mut launches) = (Memory::new(self, candidate), Vec::new());
        for dispatch in &candidate.dispatches {
            let failed = |error| CandidateError::Kernel { kernel: dispatch.kernel.clone(), error };
            let (twin, before) = (Twin::new(&dispatch.source, &dispatch.constants).map_err(failed)?, memory.clone());
            let work = self.launch((&twin, MAX_TURNS), dispatch, profile, &mut memory).map_err(failed)?;
            launches.push((twin, before, work));
        }
        self.compare(&memory)?;
        Ok(Checked { trial: self, candidate, profile, launches })
    }

    /// Compares the results with the reference.
    fn compare(&self, memory: &Memory) -> Result<(), Mismatch> {
        let all = memory.outputs.iter().zip(&self.io.outputs).zip(self.exact.iter().zip(&self.bounds));
        for (k, ((buffer, ty), (exact, bound))) in all.enumerate() {
            let shape = ty.shape.at(self.sample.n);
            let bytes = shape.iter().product::<usize>() * ty.dtype.bytes();
            let got = HostTensor::from_bytes(shape, ty.dtype, &buffer.bytes()[..bytes]);
            compare(k, &got.map(|t| t.to_f32()).unwrap_or_default(), exact, bound)?;
        }
        Ok(())
    }

    fn launch(
        &self,
        (twin, max_turns): (&Twin, u32),
        dispatch: &Dispatch,
        profile: &DeviceProfile,
        memory: &mut Memory,
    ) -> Result<Work, TwinError> {
        let Sample { n, capacity, .. } = self.sample;
        let mut work = Work::default();
        let samples = dispatch.slots.iter().find_map(|slot| match slot {
            Slot::Uniform { samples, .. } => *samples,
            _ => None,
        });
        for (chunk, start) in (0..n).step_by(samples.unwrap_or(capacity).max(1)).enumerate() {
            let n = samples.map_or(n, |samples| samples.min(n - start));
            let step: Vec<u8> = self.step.words().iter().flat_map(|word| word.to_le_bytes()).collect();
            let mut buffers = vec![Buffer::filled(&step)];
            let extents: Vec<u8> = dispatch.extents_at(chunk).iter().flat_map(|e| e.1.to_le_bytes()).collect();
            buffers.extend(dispatch.slots.iter().map(|slot| match slot {
                Slot::Extents => Buffer::filled(&extents),
                _ => memory.bound(slot, self, chunk),
            }));
            let groups = dispatch.grid.at(n, profile.max_groups);
            let Work { turns, repeated, steps } =
                twin.run_within(max_turns, groups, profile.subgroup_lanes, &mut buffers)?;
            work.turns = work.turns.max(turns);
            (work.repeated, work.steps) = (work.repeated + repeated, work.steps + steps);
            for (slot, buffer) in dispatch.slots.iter().zip(&buffers[1..]) {
                memory.keep(slot, buffer);
            }
        }
        Ok(work)
    }
}

/// A candidate that ran as its operation says.
#[derive(Debug)]
pub struct Checked<'t> {
    trial: &'t Trial,
    candidate: &'t Candidate,
    profile: &'t DeviceProfile,
    /// Each launch, what was in memory before it, and what it did.
    launches: Vec<(Twin, Memory, Work)>,
}

impl Checked<'_> {
    /// Returns the instructions of launch `k` and those behind it.
    pub fn steps(&self, k: usize) -> u64 {
        self.launches[k..].iter().map(|(.., work)| work.steps).sum()
    }

    /// Returns whether a place in the text of launch `k` belongs to a branch that its constants decide against.
    pub fn is_dead(&self, k: usize, place: &Range<usize>) -> bool {
        self.launches[k].0.is_dead(place)
    }

    /// Runs the candidate with another text of launch `k`, whose loops may take several times the turns.
    pub fn with(&self, k: usize, source: &str) -> Result<(), CandidateError> {
        let changed = Twin::new(source, &self.candidate.dispatches[k].constants);
        let error =
            |k: usize, error| CandidateError::Kernel { kernel: self.candidate.dispatches[k].kernel.clone(), error };
        let changed = changed.map_err(|e| error(k, e))?;
        let mut memory = self.launches[k].1.clone();
        for (i, dispatch) in self.candidate.dispatches.iter().enumerate().skip(k) {
            let (twin, _, work) = &self.launches[i];
            let twin = if i == k { &changed } else { twin };
            let launch = (twin, 4 * work.turns + 64);
            self.trial.launch(launch, dispatch, self.profile, &mut memory).map_err(|e| error(i, e))?;
        }
        Ok(self.trial.compare(&memory)?)
    }
}

/// What the launches of a candidate share.
#[derive(Debug, Clone)]
struct Memory {
    inputs: Vec<Buffer>,
    outputs: Vec<Buffer>,
    scratch: Vec<Buffer>,
}

/// Returns buffers next to each other, and the first word of each.
fn row(buffers: &[Buffer]) -> Vec<(&Buffer, usize)> {
    let mut at = 0;
    (buffers.iter())
        .map(|buffer| {
            let first = at / 4;
            at += buffer.len().next_multiple_of(ALIGN_BYTES as usize);
            (buffer, first)
        })
        .collect()
}

fn joined(buffers: &[Buffer]) -> Buffer {
    let row = row(buffers);
    let len = row.last().map_or(0, |(last, first)| 4 * first + last.len());
    let mut all = Buffer::unwritten(len);
    row.into_iter().for_each(|(buffer, first)| all.copy(first, buffer, 0));
    all
}

fn divide(all: &Buffer, buffers: &mut [Buffer]) {
    let firsts: Vec<usize> = row(buffers).into_iter().map(|(_, first)| first).collect();
    buffers.iter_mut().zip(firsts).for_each(|(buffer, first)| buffer.copy(0, all, first));
}

impl Memory {
    fn new(trial: &Trial, candidate: &Candidate) -> Self {
        let capacity = trial.sample.capacity;
        let input = |(tensor, ty): (&HostTensor, &crate::graph::TensorType)| {
            let mut buffer = Buffer::unwritten(ty.bytes(capacity) as usize);
            buffer.put(0, tensor.bytes());
            // Samples that are not of this batch hold what earlier steps left there.
            buffer.trust();
            buffer
        };
        Memory {
            inputs: trial.inputs.iter().zip(&trial.io.inputs).map(input).collect(),
            outputs: trial.io.outputs.iter().map(|ty| Buffer::unwritten(ty.bytes(capacity) as usize)).collect(),
            scratch: candidate.scratch_bytes.iter().map(|b| Buffer::unwritten(b.at(capacity) as usize)).collect(),
        }
    }

    /// Returns what a launch binds.
    fn bound(&self, slot: &Slot, trial: &Trial, chunk: usize) -> Buffer {
        match slot {
            Slot::In(range) | Slot::InOut { inputs: range, .. } => {
                let mut all = joined(&self.inputs[range.clone()]);
                all.trust();
                all
            }
            Slot::Out(range) => joined(&self.outputs[range.clone()]),
            Slot::Scratch(k) => self.scratch[*k].clone(),
            Slot::Extents => Buffer::filled(&[]),
            Slot::Uniform { input, samples: None } => {
                let whole = &self.inputs[*input];
                let mut part = Buffer::unwritten(whole.len().next_multiple_of(16).min(UNIFORM_BYTES as usize));
                part.copy(0, whole, 0);
                part.trust();
                part
            }
            Slot::Uniform { input, samples: Some(samples) } => {
                let bytes = trial.io.inputs[*input].bytes(*samples) as usize;
                let mut part = Buffer::unwritten(bytes);
                part.copy(0, &self.inputs[*input], chunk * bytes / 4);
                part.trust();
                part
            }
        }
    }

    /// Keeps what a launch wrote.
    fn keep(&mut self, slot: &Slot, buffer: &Buffer) {
        match slot {
            Slot::Out(range) => divide(buffer, &mut self.outputs[range.clone()]),
            Slot::InOut { inputs, outputs } => {
                divide(buffer, &mut self.inputs[inputs.clone()]);
                divide(buffer, &mut self.outputs[outputs.clone()]);
            }
            Slot::Scratch(k) => self.scratch[*k] = buffer.clone(),
            Slot::In(_) | Slot::Uniform { .. } | Slot::Extents => {}
        }
    }
}
