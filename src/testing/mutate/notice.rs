//! Plants faults in the kernels of an operation and runs its samples.

use super::{find::mutants, mutant::Mutant};
use crate::{
    graph::{Candidate, DeviceProfile, Dispatch, Family, Sample},
    kernels::Schedule,
    tensor::{Fnv, Philox},
    testing::{
        Failure,
        case::rng,
        run::sample_graph,
        twin::{CandidateError, Trial, TwinError},
    },
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
};

/// Samples, those that are too large left out.
const SAMPLES: usize = 256;
/// Floating-point operations of a sample at most.
const MAX_FLOPS: u64 = 400_000;
/// Instructions that a fault may take in all samples of one variant, until which it is tried again: by 48 to 96 samples.
const STEPS: u64 = 20_000_000;
/// Faults of one kind at one variable at most.
const REPEATED: usize = 3;
/// Faults of one kernel at most.
const MAX_FAULTS: usize = 40;

/// The name of a fault, and how many of this name stand before it.
type Key = (String, usize);

/// What an operation's samples notice of the faults of its kernels.
#[derive(Debug)]
pub struct Noticed {
    /// The faults said to be equivalent.
    equivalent: &'static [(&'static str, &'static str)],
    /// The faults by kernel.
    kernels: BTreeMap<String, BTreeMap<Key, Planted>>,
    /// The texts whose faults are entered.
    read: HashSet<u64>,
}

/// What became of one fault.
#[derive(Debug, Default)]
struct Planted {
    /// How many samples ran it.
    tries: usize,
    /// The instructions it took, by variant, and those it may take.
    steps: HashMap<String, u64>,
    max_steps: u64,
    noticed: bool,
    /// The text last changed, and what it was changed to.
    example: [String; 2],
}

impl Planted {
    fn charge(&mut self, variant: &str, steps: u64) {
        *self.steps.entry(variant.to_owned()).or_default() += steps.clamp(STEPS / 96, STEPS / 48);
    }

    fn is_done(&self, variant: &str) -> bool {
        self.noticed || self.steps.get(variant).is_some_and(|&steps| steps >= self.max_steps)
    }
}

/// A fault that no sample notices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unnoticed {
    /// The kernel.
    pub kernel: String,
    /// The change and its place.
    pub fault: String,
    /// How many samples ran it.
    pub tries: usize,
    /// A text that was changed, and what it was changed to.
    pub example: [String; 2],
}

impl fmt::Display for Unnoticed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unnoticed { kernel, fault, tries, example: [from, to] } = self;
        write!(f, "`{fault}` in kernel {kernel}: `{from}` as `{to}` passed {tries} samples unnoticed")
    }
}

impl Noticed {
    /// Runs an operation's samples, with small batches and full ones, on the kernels for these kinds of adapters.
    pub fn of(family: &Family, profiles: &[DeviceProfile]) -> Result<Self, Failure> {
        let (mut noticed, mut shapes) =
            (Noticed { equivalent: family.equivalent, kernels: BTreeMap::new(), read: HashSet::new() }, rng(family, 1));
        for i in 0..SAMPLES {
            let mut sample = (family.sample)(&mut shapes);
            // A smaller batch leaves room behind its tensors.
            sample.n = if i % 2 == 0 { sample.capacity } else { sample.n };
            // Grids are folded into two axes.
            let folded = profiles.iter().map(|p| DeviceProfile { max_groups: 1 + i as u32 % 3, ..p.clone() });
            noticed.sample(&sample, &folded.collect::<Vec<_>>(), i % 4 == 0, &mut rng(family, 1000 + i as u32))?;
        }
        Ok(noticed)
    }

    /// Returns how many faults ran.
    pub fn len(&self) -> usize {
        self.kernels.values().flat_map(|faults| faults.values()).filter(|p| p.tries > 0).count()
    }

    /// Returns whether no fault ran.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the faults that no sample notices.
    pub fn unnoticed(&self) -> Vec<Unnoticed> {
        let all = self.kernels.iter().flat_map(|(kernel, faults)| faults.iter().map(move |f| (kernel, f)));
        all.filter(|(_, (_, planted))| planted.tries > 0 && !planted.noticed)
            .map(|(kernel, ((fault, _), planted))| Unnoticed {
                kernel: kernel.clone(),
                fault: fault.clone(),
                tries: planted.tries,
                example: planted.example.clone(),
            })
            .collect()
    }

    /// Plants what was not noticed yet in the candidates of a sample, some with more to do as they store.
    fn sample(
        &mut self,
        sample: &Sample,
        profiles: &[DeviceProfile],
        fused: bool,
        rng: &mut Philox,
    ) -> Result<(), Failure> {
        let (graph, _, outputs) = sample_graph(sample)?;
        let io = graph.io(graph.node(outputs[0]));
        if sample.op.cost(&io).flops.at(sample.n) > MAX_FLOPS {
            return Ok(());
        }
        let (mut trial, mut done) = (None, Vec::new());
        for profile in profiles {
            for candidate in sample.op.lower(&io, profile, None) {
                // Kinds of adapters share candidates.
                if done.contains(&candidate) || !self.enter(&candidate)? {
                    continue;
                }
                if trial.is_none() {
                    trial = Some(Trial::new(sample, rng)?);
                }
                if let Some(trial) = &trial {
                    self.candidate(trial, profile, &candidate)?;
                }
                done.push(candidate);
            }
            let Some(trial) = trial.as_ref().filter(|_| fused) else { continue };
            if let Some(trial) = trial.fused(profile, rng)? {
                for candidate in trial.candidates(profile) {
                    if self.enter(&candidate)? {
                        self.candidate(&trial, profile, &candidate)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Enters the faults of a candidate's kernels while there is room, and returns whether some were not noticed yet.
    fn enter(&mut self, candidate: &Candidate) -> Result<bool, Failure> {
        let (variant, mut wanted) = (variant(candidate), false);
        for Dispatch { kernel, source, .. } in &candidate.dispatches {
            let known = self.kernels.entry(kernel.clone()).or_default();
            let mut hash = Fnv::default();
            hash.bytes(source.as_bytes());
            if known.len() < MAX_FAULTS && self.read.insert(hash.0) {
                let mut keys: Vec<Key> = keyed(source)?.into_iter().map(|(key, _)| key).collect();
                keys.sort_by_key(order);
                for key in keys {
                    if known.len() < MAX_FAULTS || known.contains_key(&key) {
                        // What cannot be noticed need not be tried long.
                        let rare = self.equivalent.iter().any(|(name, _)| *name == key.0);
                        let max_steps = if rare { STEPS / 8 } else { STEPS };
                        known.entry(key).or_insert_with(|| Planted { max_steps, ..Planted::default() });
                    }
                }
            }
            wanted |= known.values().any(|planted| !planted.is_done(&variant));
        }
        Ok(wanted)
    }

    fn candidate(&mut self, trial: &Trial, profile: &DeviceProfile, candidate: &Candidate) -> Result<(), Failure> {
        let (variant, mut run) = (variant(candidate), None);
        for (k, Dispatch { kernel, source, .. }) in candidate.dispatches.iter().enumerate() {
            let Some(known) = self.kernels.get_mut(kernel) else { continue };
            let all = keyed(source)?;
            // Faults that stand in other texts of this variant need not be looked for in each.
            for (_, planted) in known.iter_mut().filter(|(key, _)| all.iter().all(|(k, _)| k != *key)) {
                planted.charge(&variant, 0);
            }
            for (key, mutant) in all {
                let Some(planted) = known.get_mut(&key).filter(|p| !p.is_done(&variant)) else { continue };
                if run.is_none() {
                    let fails = |e: CandidateError| Failure(format!("{} without a fault: {e}", candidate.variant));
                    run = Some(trial.run(candidate, profile).map_err(fails)?);
                }
                let (Some(run), changed) = (&run, mutant.apply(source)) else { continue };
                // Constants may decide that a branch is never taken.
                if run.is_dead(k, &mutant.range) {
                    planted.charge(&variant, 0);
                    continue;
                }
                let outcome = run.with(k, &changed);
                planted.charge(&variant, run.steps(k));
                // A change that is no kernel is none; constants may refuse one that is.
                if outcome.as_ref().is_err_and(is_refused) && naga::front::wgsl::parse_str(&changed).is_err() {
                    continue;
                }
                planted.tries += 1;
                planted.noticed = outcome.is_err();
                planted.example = [source[mutant.range.clone()].to_owned(), mutant.text];
            }
        }
        Ok(())
    }
}

/// Returns the kind of a variant, without the numbers of tiles.
fn variant(candidate: &Candidate) -> String {
    match candidate.variant.parse::<Schedule>() {
        Ok(Schedule { core, lanes, uniform, .. }) => Schedule { lanes, uniform, ..Schedule::new(core, [1; 2]) }.into(),
        Err(_) => candidate.variant.clone(),
    }
}

fn is_refused(error: &CandidateError) -> bool {
    matches!(error, CandidateError::Kernel { error, .. } if !matches!(error, TwinError::Fault(_)))
}

/// Returns the faults of a kernel with their keys, some of each name.
fn keyed(source: &str) -> Result<Vec<(Key, Mutant)>, Failure> {
    let (mut counts, mut all) = (HashMap::<String, usize>::new(), Vec::new());
    for mutant in mutants(source)? {
        let name = mutant.name();
        let count = counts.entry(name.clone()).or_default();
        if *count < REPEATED {
            all.push(((name, *count), mutant));
        }
        *count += 1;
    }
    Ok(all)
}

/// First one of each name, in an order that favours none.
fn order((name, count): &Key) -> (usize, u64) {
    let mut hash = Fnv::default();
    hash.bytes(name.as_bytes());
    (*count, hash.0)
}
