//! Candidates of an operation on samples: all their launches, one after the other.

use super::{error::TwinError, machine::Work, memory::Buffer, twin::Twin};
use crate::{
    graph::{ALIGN_BYTES, Candidate, DeviceProfile, Dispatch, Io, Sample, Slot, Step, UNIFORM_BYTES},
    tensor::{Array, HostTensor, Mismatch, Philox, compare},
    testing::{Failure, run},
};

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
        let (mut memory, mut works) = (Memory::new(self, candidate), Vec::new());
        for dispatch in &candidate.dispatches {
            let kernel = |error| CandidateError::Kernel { kernel: dispatch.kernel.clone(), error };
            works.push(self.launch(dispatch, profile, &mut memory).map_err(kernel)?);
        }
        let all = memory.outputs.iter().zip(&self.io.outputs).zip(self.exact.iter().zip(&self.bounds));
        for (k, ((buffer, ty), (exact, bound))) in all.enumerate() {
            let shape = ty.shape.at(self.sample.n);
            let bytes = shape.iter().product::<usize>() * ty.dtype.bytes();
            let got = HostTensor::from_bytes(shape, ty.dtype, &buffer.bytes()[..bytes]);
            compare(k, &got.map(|t| t.to_f32()).unwrap_or_default(), exact, bound)?;
        }
        Ok(works)
    }

    fn launch(&self, dispatch: &Dispatch, profile: &DeviceProfile, memory: &mut Memory) -> Result<Work, TwinError> {
        let Sample { n, capacity, .. } = self.sample;
        let (twin, mut work) = (Twin::new(&dispatch.source, &dispatch.constants)?, Work::default());
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
            let Work { turns, repeated } = twin.run(groups, profile.subgroup_lanes, &mut buffers)?;
            work = Work { turns: work.turns.max(turns), repeated: work.repeated + repeated };
            for (slot, buffer) in dispatch.slots.iter().zip(&buffers[1..]) {
                memory.keep(slot, buffer);
            }
        }
        Ok(work)
    }
}

/// What the launches of a candidate share.
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
