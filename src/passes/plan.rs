//! Memory and launches: a graph becomes a [`Plan`], pure data that a session runs.

use super::{
    Binding, BufferRef, Entry, Layout, Place, Plan, PlannedDispatch, Port,
    schedule::{homes, schedule},
};
use crate::{
    graph::{Candidate, DeviceProfile, Dispatch, Graph, Kind, Node, Program, Slot, TensorType, UNIFORM_BYTES, Value},
    kernels::Access,
    ops::Elementwise,
};
use std::{
    collections::{BTreeMap, HashMap},
    fmt::{self, Write as _},
    ops::Range,
};

/// A graph cannot become a plan.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// A tensor does not fit one binding.
    #[error(
        "{tensor} takes {bytes} bytes for {capacity} samples, but this adapter binds at most {limit}; use a smaller batch \
         or picture"
    )]
    TooLarge {
        /// The node that makes it.
        tensor: String,
        /// The plan's batch.
        capacity: usize,
        /// Its size.
        bytes: u64,
        /// The adapter's limit.
        limit: u64,
    },
    /// A state of the graph is in none of the stores.
    #[error("state `{name}` ({ty}) is in none of the stores; add it to a layout")]
    UnknownState {
        /// The state's name.
        name: String,
        /// Its type.
        ty: TensorType,
    },
    /// An update does not overwrite its state.
    #[error("the update of `{name}` must come from an operation that overwrites it in place")]
    Update {
        /// The state's name.
        name: String,
    },
    /// Nodes overwrite values that others still need.
    #[error("a value is overwritten by two nodes, or before its last reader")]
    Overwritten,
    /// Values that one binding must cover do not lie one behind the other.
    #[error("node `{node}`: its operands do not lie one behind the other; keep them in layout order")]
    Group {
        /// The node.
        node: String,
    },
    /// An operation offers no kernel.
    #[error("node `{node}` ({op}) has no kernel for this adapter")]
    NoKernel {
        /// The node.
        node: String,
        /// The operation.
        op: String,
    },
    /// A loop is longer than the driver runs it.
    #[error(
        "node `{node}` ({op}): its loops take {turns} turns for {capacity} samples, and this adapter's driver ends \
         them after {limit}; use a smaller batch or picture"
    )]
    TooLong {
        /// The node.
        node: String,
        /// The operation.
        op: String,
        /// Turns of one invocation's loops.
        turns: u64,
        /// The plan's batch.
        capacity: usize,
        /// The adapter's limit.
        limit: u64,
    },
    /// A kernel binds more buffers than the adapter allows.
    #[error("node `{node}`: kernel {kernel} binds {got} storage buffers, the adapter allows {limit}")]
    Bindings {
        /// The node.
        node: String,
        /// The kernel.
        kernel: String,
        /// Buffers bound.
        got: usize,
        /// The adapter's limit.
        limit: usize,
    },
}

/// How a plan is made.
#[derive(Debug, Clone)]
pub struct PlanOptions<'a> {
    /// The largest batch.
    pub capacity: usize,
    /// What the adapter can do.
    pub profile: DeviceProfile,
    /// Where states lie, in the order in which a session gets its stores.
    pub layouts: Vec<&'a Layout>,
    /// Names of inputs that the caller binds.
    pub external_inputs: Vec<String>,
    /// Names of outputs that the caller binds.
    pub external_outputs: Vec<String>,
    /// Whether nodes are simplified and fused.
    pub optimize: bool,
    /// Bytes of untouched memory around every tensor; nothing is reused then. For tests.
    pub guard_bytes: u64,
    /// Variant to take for an operation, by name, instead of its first.
    pub force: Option<(String, String)>,
    /// Where a plan would have more launches than this, operations that cut themselves into several take a way
    /// of one instead, those of most launches first.
    pub max_launches: usize,
}

impl PlanOptions<'_> {
    /// Returns options for a batch of `capacity` on an adapter, everything else as usual.
    pub fn new(capacity: usize, profile: DeviceProfile) -> Self {
        PlanOptions {
            capacity,
            profile,
            layouts: Vec::new(),
            external_inputs: Vec::new(),
            external_outputs: Vec::new(),
            optimize: true,
            guard_bytes: 0,
            force: None,
            max_launches: usize::MAX,
        }
    }
}

const ALIGN: u64 = 256;

/// Memory that lives from one scheduled node to another.
struct Block {
    bytes: u64,
    first: usize,
    last: usize,
    place: Option<(usize, u64)>,
    conflicts: Vec<usize>,
}

struct Planner<'a> {
    graph: Graph,
    homes: HashMap<Value, Value>,
    options: &'a PlanOptions<'a>,
    order: Vec<usize>,
    chosen: HashMap<usize, Candidate>,
    fixed: HashMap<Value, Place>,
    blocks: Vec<Block>,
    block_of: HashMap<Value, (usize, u64)>,
    scratch_of: HashMap<(usize, usize), usize>,
}

/// Returns the plan of a graph: simplified, fused, scheduled, laid out in memory.
pub fn plan(graph: &Graph, options: &PlanOptions) -> Result<Plan, PlanError> {
    let graph = if options.optimize {
        super::optimize(graph, &options.profile)
    } else {
        graph.rebuild(|out, _, node| out.push_node(node))
    };
    let graph = copy_for_callers(&graph, options);
    let order = schedule(&graph)?;
    let mut planner = Planner {
        homes: homes(&graph, true),
        graph,
        options,
        order,
        chosen: HashMap::new(),
        fixed: HashMap::new(),
        blocks: Vec::new(),
        block_of: HashMap::new(),
        scratch_of: HashMap::new(),
    };
    planner.check_sizes()?;
    planner.choose()?;
    planner.place_leaves()?;
    planner.make_blocks()?;
    let arenas = planner.color();
    planner.emit(arenas)
}

/// An output bound by the caller must be a node's own result: views, inputs and states are copied.
fn copy_for_callers(graph: &Graph, options: &PlanOptions) -> Graph {
    let mut copy = graph.clone();
    let mut taken: Vec<Value> = Vec::new();
    let outputs = graph.outputs().to_vec();
    let roots = homes(graph, false);
    let mut renamed = Vec::new();
    for (name, value) in outputs {
        let source = roots[&value];
        let node = graph.node(source);
        let own = node.op().is_some_and(|op| op.in_place(node.inputs.len()).is_empty());
        if options.external_outputs.contains(&name) && (source != value || !own || taken.contains(&value)) {
            let op = Elementwise::from(Program::identity());
            renamed.push((name, copy.apply1(op, &[value]).unwrap_or(value)));
        } else {
            taken.push(value);
            renamed.push((name, value));
        }
    }
    copy.set_outputs(renamed);
    copy
}

impl Planner<'_> {
    /// Returns an error where a value is larger than a binding. Nothing is made for a batch before that is known.
    fn check_sizes(&self) -> Result<(), PlanError> {
        for &i in &self.order {
            let node = &self.graph.nodes()[i];
            let all = if matches!(node.kind, Kind::State { .. }) { &[][..] } else { &node.outputs };
            let capacity = self.options.capacity;
            let largest = all.iter().map(|ty| ty.bytes(capacity)).max().unwrap_or(0);
            self.check_binding(&node.name, largest)?;
        }
        Ok(())
    }

    fn check_binding(&self, tensor: &str, bytes: u64) -> Result<(), PlanError> {
        let (capacity, limit) = (self.options.capacity, self.options.profile.max_binding_bytes);
        match bytes <= limit {
            true => Ok(()),
            false => Err(PlanError::TooLarge { tensor: tensor.into(), capacity, bytes, limit }),
        }
    }

    fn choose(&mut self) -> Result<(), PlanError> {
        let mut cut: Vec<(usize, usize, Candidate)> = Vec::new();
        for &i in &self.order {
            let node = &self.graph.nodes()[i];
            let Some(op) = node.op().filter(|op| !op.view()) else { continue };
            let mut candidates = op.lower(&self.graph.io(node), &self.options.profile, None);
            candidates.retain(|c| self.binds(i, c));
            let most = self.options.profile.max_storage_buffers as usize;
            let fits = |c: &Candidate| c.dispatches.iter().all(|d| d.n_storage() <= most);
            if candidates.iter().any(fits) {
                candidates.retain(fits);
            }
            let (capacity, limit) = (self.options.capacity, self.options.profile.max_turns);
            let turns = |c: &Candidate| c.dispatches.iter().map(|d| d.turns_at(capacity)).max().unwrap_or(0);
            let fewest = candidates.iter().map(turns).min().unwrap_or(0);
            if fewest > limit {
                let (node, op) = (node.name.clone(), op.name().into());
                return Err(PlanError::TooLong { node, op, turns: fewest, capacity, limit });
            }
            candidates.retain(|c| turns(c) <= limit);
            let at = match &self.options.force {
                Some((name, variant)) if name == op.name() => candidates.iter().position(|c| c.variant == *variant),
                _ => None,
            };
            if candidates.is_empty() {
                return Err(PlanError::NoKernel { node: node.name.clone(), op: op.name().into() });
            }
            let whole = candidates.iter().find(|c| self.launches(c) == c.dispatches.len()).cloned();
            let chosen = candidates.swap_remove(at.unwrap_or(0));
            let is_cut = at.is_none() && self.launches(&chosen) > chosen.dispatches.len();
            if let Some(whole) = whole.filter(|_| is_cut) {
                cut.push((self.launches(&chosen), i, whole));
            }
            self.chosen.insert(i, chosen);
        }
        let mut all: usize = self.chosen.values().map(|c| self.launches(c)).sum();
        cut.sort_by_key(|(launches, i, _)| (std::cmp::Reverse(*launches), *i));
        for (launches, i, whole) in cut {
            if all > self.options.max_launches {
                all = all - launches + whole.dispatches.len();
                self.chosen.insert(i, whole);
            }
        }
        Ok(())
    }

    /// Returns the launches of a candidate, with those that read a part of the pictures each.
    fn launches(&self, candidate: &Candidate) -> usize {
        candidate.dispatches.iter().map(|d| parts(d, self.options.capacity).len()).sum()
    }

    /// Returns whether what a candidate reads as uniform buffers lies where the plan can bind it so.
    fn binds(&self, i: usize, candidate: &Candidate) -> bool {
        let options = self.options;
        candidate.dispatches.iter().flat_map(|d| &d.slots).all(|slot| {
            let Slot::Uniform { input, samples } = *slot else { return true };
            let home = self.home(self.graph.nodes()[i].inputs[input]);
            let node = self.graph.node(home);
            match node.kind {
                Kind::Input => !options.external_inputs.contains(&node.name),
                Kind::State { .. } => samples.is_none(),
                Kind::Op(_) => {
                    let mut outputs = self.graph.outputs().iter();
                    !outputs.any(|(name, v)| options.external_outputs.contains(name) && self.home(*v) == home)
                }
            }
        })
    }

    fn bytes(&self, v: Value) -> u64 {
        self.graph.ty(v).bytes(self.options.capacity)
    }

    fn place_leaves(&mut self) -> Result<(), PlanError> {
        let entries = self.options.layouts.iter().map(|l| l.entries.iter().map(|e| (e.name.as_str(), e)));
        let stores: Vec<HashMap<&str, &Entry>> = entries.map(Iterator::collect).collect();
        for &i in &self.order {
            let node = &self.graph.nodes()[i];
            let value = Value { node: i as u32, output: 0 };
            let place = match &node.kind {
                Kind::Op(_) => continue,
                Kind::Input => match self.options.external_inputs.iter().position(|n| *n == node.name) {
                    None => continue,
                    Some(k) => Place { buffer: BufferRef::External(k), offset: 0, bytes: self.bytes(value) },
                },
                Kind::State { .. } => {
                    let found = stores.iter().enumerate().find_map(|(store, l)| {
                        let entry = l.get(node.name.as_str()).filter(|e| e.ty == node.outputs[0])?;
                        let buffer = BufferRef::Store { store, chunk: entry.chunk };
                        Some(Place { buffer, offset: entry.offset, bytes: entry.bytes })
                    });
                    found.ok_or_else(|| PlanError::UnknownState {
                        name: node.name.clone(),
                        ty: node.outputs[0].clone(),
                    })?
                }
            };
            self.fixed.insert(value, place);
        }
        let first = self.options.external_inputs.len();
        for (name, value) in self.graph.outputs().iter().cloned() {
            if let Some(k) = self.options.external_outputs.iter().position(|n| *n == name) {
                let place = Place { buffer: BufferRef::External(first + k), offset: 0, bytes: self.bytes(value) };
                self.fixed.insert(value, place);
            }
        }
        for &(state, value) in self.graph.updates() {
            if self.home(value) != self.home(state) {
                return Err(PlanError::Update { name: self.graph.node(state).name.clone() });
            }
        }
        Ok(())
    }

    /// Returns the value whose memory this one has, through views and overwriting nodes.
    fn home(&self, v: Value) -> Value {
        self.homes[&v]
    }

    /// Makes one block for each value, group or scratch that needs memory of the plan's own.
    fn make_blocks(&mut self) -> Result<(), PlanError> {
        let mut first: BTreeMap<Value, usize> = BTreeMap::new();
        let mut last: HashMap<Value, usize> = HashMap::new();
        for (at, &i) in self.order.iter().enumerate() {
            let node = &self.graph.nodes()[i];
            let leaf = matches!(node.kind, Kind::Input | Kind::State { .. });
            for output in 0..node.outputs.len() as u32 {
                let home = self.home(Value { node: i as u32, output });
                first.entry(home).or_insert(if leaf { 0 } else { at });
                last.entry(home).or_insert(at);
            }
            for &v in &node.inputs {
                last.insert(self.home(v), at);
            }
        }
        for (_, v) in self.graph.outputs() {
            last.insert(self.home(*v), usize::MAX);
        }
        let mut grouped: Vec<(String, Vec<Value>)> = Vec::new();
        for &i in &self.order {
            let Some(candidate) = self.chosen.get(&i) else { continue };
            let node = &self.graph.nodes()[i];
            for slot in candidate.dispatches.iter().flat_map(|d| &d.slots) {
                let members = self.slot_values(i, slot);
                if members.len() > 1 && !members.iter().any(|v| self.fixed.contains_key(&self.home(*v))) {
                    let homes: Vec<Value> = members.iter().map(|v| self.home(*v)).collect();
                    grouped.push((node.name.clone(), homes));
                }
            }
        }
        let guard = self.options.guard_bytes.next_multiple_of(ALIGN);
        for (node, members) in grouped {
            if members.iter().all(|v| self.block_of.contains_key(v)) {
                continue;
            }
            if members.iter().any(|v| self.block_of.contains_key(v)) {
                return Err(PlanError::Group { node });
            }
            let mut offset = guard;
            for &v in &members {
                self.block_of.insert(v, (self.blocks.len(), offset));
                offset += self.bytes(v).next_multiple_of(ALIGN);
            }
            let span = (
                members.iter().filter_map(|v| first.get(v)).min().copied().unwrap_or(0),
                members.iter().filter_map(|v| last.get(v)).max().copied().unwrap_or(usize::MAX),
            );
            self.push_block(offset + guard, span);
        }
        for (v, at) in first {
            if self.fixed.contains_key(&v) || self.block_of.contains_key(&v) {
                continue;
            }
            self.block_of.insert(v, (self.blocks.len(), guard));
            self.push_block(self.bytes(v).next_multiple_of(ALIGN) + 2 * guard, (at, last[&v]));
        }
        for (at, &i) in self.order.clone().iter().enumerate() {
            let scratch = self.chosen.get(&i).map(|c| c.scratch_bytes.clone()).unwrap_or_default();
            for (k, bytes) in scratch.into_iter().enumerate() {
                self.scratch_of.insert((i, k), self.blocks.len());
                let bytes = bytes.at(self.options.capacity);
                self.check_binding(&self.graph.nodes()[i].name, bytes)?;
                let bytes = bytes.next_multiple_of(ALIGN) + 2 * guard;
                self.push_block(bytes, (at, at));
            }
        }
        self.find_conflicts();
        Ok(())
    }

    fn push_block(&mut self, bytes: u64, (first, last): (usize, usize)) {
        self.blocks.push(Block { bytes, first, last, place: None, conflicts: Vec::new() });
    }

    fn slot_values(&self, i: usize, slot: &Slot) -> Vec<Value> {
        let node = &self.graph.nodes()[i];
        match slot {
            Slot::In(range) => node.inputs[range.clone()].to_vec(),
            Slot::InOut { inputs, .. } => node.inputs[inputs.clone()].to_vec(),
            Slot::Out(range) => range.clone().map(|k| Value { node: i as u32, output: k as u32 }).collect(),
            Slot::Uniform { input, .. } => vec![node.inputs[*input]],
            Slot::Scratch(_) | Slot::Part => Vec::new(),
        }
    }

    fn slot_block(&self, i: usize, slot: &Slot) -> Option<usize> {
        if let Slot::Scratch(k) = slot {
            return self.scratch_of.get(&(i, *k)).copied();
        }
        let v = *self.slot_values(i, slot).first()?;
        self.block_of.get(&self.home(v)).map(|b| b.0)
    }

    /// A dispatch must not bind one buffer both for reading and for writing.
    fn find_conflicts(&mut self) {
        let mut pairs = Vec::new();
        for (&i, candidate) in &self.chosen {
            for (k, dispatch) in candidate.dispatches.iter().enumerate() {
                let side = |write: bool| {
                    let is_write = |s: &&Slot| (access(candidate, k, s) == Access::ReadWrite) == write;
                    let blocks = dispatch.slots.iter().filter(is_write).filter_map(|s| self.slot_block(i, s));
                    blocks.collect::<Vec<usize>>()
                };
                for &r in &side(false) {
                    pairs.extend(side(true).iter().map(|&w| (r, w)));
                }
            }
        }
        for (a, b) in pairs {
            if a != b {
                self.blocks[a].conflicts.push(b);
                self.blocks[b].conflicts.push(a);
            }
        }
    }

    /// Gives every block an arena that none of its conflicts has, and a range that no live block has.
    fn color(&mut self) -> Vec<u64> {
        let mut arenas: Vec<u64> = Vec::new();
        let mut placed: Vec<Vec<usize>> = Vec::new();
        let forgets = self.options.guard_bytes == 0;
        let mut by_time: Vec<usize> = (0..self.blocks.len()).collect();
        by_time.sort_by_key(|&b| (self.blocks[b].first, std::cmp::Reverse(self.blocks[b].bytes), b));
        for b in by_time {
            let taken: Vec<usize> =
                self.blocks[b].conflicts.iter().filter_map(|&c| self.blocks[c].place.map(|p| p.0)).collect();
            let limit = self.options.profile.max_buffer_bytes.max(self.blocks[b].bytes);
            let mut arena = 0;
            let offset = loop {
                if arena == arenas.len() {
                    arenas.push(0);
                    placed.push(Vec::new());
                }
                // What is no more at this block's start is no more for those that follow.
                placed[arena].retain(|&p| !forgets || self.blocks[p].last >= self.blocks[b].first);
                let offset = self.first_fit(b, &placed[arena]);
                if !taken.contains(&arena) && offset + self.blocks[b].bytes <= limit {
                    break offset;
                }
                arena += 1;
            };
            arenas[arena] = arenas[arena].max(offset + self.blocks[b].bytes);
            placed[arena].push(b);
            self.blocks[b].place = Some((arena, offset));
        }
        arenas
    }

    /// Returns the bytes of the blocks that are alive together at the moment when these are most.
    fn fullest(&self) -> u64 {
        let mut changes = vec![[0u64; 2]; self.order.len() + 1];
        for block in self.blocks.iter().filter(|b| b.first < self.order.len()) {
            changes[block.first][0] += block.bytes;
            changes[block.last.min(self.order.len() - 1) + 1][1] += block.bytes;
        }
        let mut alive = 0;
        let at = |[more, less]: &[u64; 2]| {
            alive = alive + more - less;
            alive
        };
        changes.iter().map(at).max().unwrap_or(0)
    }

    fn first_fit(&self, b: usize, placed: &[usize]) -> u64 {
        let block = &self.blocks[b];
        let mut busy: Vec<(u64, u64)> = placed
            .iter()
            .map(|&p| &self.blocks[p])
            .filter(|p| self.options.guard_bytes > 0 || (p.first <= block.last && block.first <= p.last))
            .filter_map(|p| p.place.map(|(_, offset)| (offset, offset + p.bytes)))
            .collect();
        busy.sort_unstable();
        let mut at = 0;
        for (start, end) in busy {
            if at + block.bytes <= start {
                break;
            }
            at = at.max(end);
        }
        at
    }

    fn place(&self, v: Value) -> Option<Place> {
        let home = self.home(v);
        let bytes = self.bytes(v);
        if let Some(place) = self.fixed.get(&home).or_else(|| self.fixed.get(&v)) {
            return Some(Place { bytes, ..*place });
        }
        let &(block, inner) = self.block_of.get(&home)?;
        let (arena, offset) = self.blocks[block].place?;
        Some(Place { buffer: BufferRef::Arena(arena), offset: offset + inner, bytes })
    }

    fn bind(&self, i: usize, slot: &Slot, access: Access, part: usize) -> Result<Binding, PlanError> {
        let node = &self.graph.nodes()[i];
        let group = || PlanError::Group { node: node.name.clone() };
        let guard = self.options.guard_bytes.next_multiple_of(ALIGN);
        if let Slot::Scratch(k) = slot {
            let block = self.scratch_of.get(&(i, *k)).map(|&b| &self.blocks[b]).ok_or_else(group)?;
            let (arena, offset) = block.place.ok_or_else(group)?;
            let place = Place { buffer: BufferRef::Arena(arena), offset: offset + guard, bytes: block.bytes - guard };
            return Ok(Binding { place, access });
        }
        if *slot == Slot::Part {
            let place = Place { buffer: BufferRef::Parts, offset: part as u64 * ALIGN, bytes: 16 };
            return Ok(Binding { place, access });
        }
        let places: Vec<Place> = self.slot_values(i, slot).into_iter().filter_map(|v| self.place(v)).collect();
        let mut place = places.first().cloned().ok_or_else(group)?;
        let mut end = place.offset;
        for next in &places {
            if next.buffer != place.buffer || next.offset != end {
                return Err(group());
            }
            end = next.offset + next.bytes.next_multiple_of(ALIGN);
        }
        let own = !matches!(place.buffer, BufferRef::External(_));
        if places.len() > 1 {
            place.bytes = end - place.offset;
        } else if own {
            // Kernels may see the tensor as an array of vec4.
            place.bytes = place.bytes.next_multiple_of(16);
        }
        if guard > 0 && matches!(place.buffer, BufferRef::Arena(_)) {
            place.bytes = place.bytes.next_multiple_of(ALIGN) + guard;
        }
        if let Slot::Uniform { input, samples } = *slot {
            place.bytes = place.bytes.min(UNIFORM_BYTES);
            if let Some(samples) = samples {
                place.bytes = self.graph.ty(node.inputs[input]).bytes(samples);
                place.offset += part as u64 * place.bytes;
            }
        }
        Ok(Binding { place, access })
    }

    fn emit(&self, mut arenas: Vec<u64>) -> Result<Plan, PlanError> {
        let mut dispatches = Vec::new();
        let mut text = String::new();
        let limit = self.options.profile.max_storage_buffers as usize;
        for &i in &self.order {
            let node = &self.graph.nodes()[i];
            let Some(candidate) = self.chosen.get(&i) else { continue };
            let parts = candidate.dispatches.iter().enumerate().flat_map(|(k, d)| {
                let parts = parts(d, self.options.capacity).into_iter().enumerate();
                parts.map(move |(part, samples)| (k, d, part, samples))
            });
            for (k, dispatch, part, samples) in parts {
                let bind = |s| self.bind(i, s, access(candidate, k, s), part);
                let bindings: Vec<Binding> = dispatch.slots.iter().map(bind).collect::<Result<_, _>>()?;
                let got = bindings.iter().filter(|b| b.access != Access::Uniform).count();
                if got > limit {
                    let (node, kernel) = (node.name.clone(), dispatch.kernel.clone());
                    return Err(PlanError::Bindings { node, kernel, got, limit });
                }
                for Binding { place, .. } in &bindings {
                    // The last part of a uniform buffer may be longer than the tensor.
                    if let BufferRef::Arena(a) = place.buffer {
                        arenas[a] = arenas[a].max(place.offset + place.bytes);
                    }
                }
                let largest = bindings.iter().map(|b| b.place.bytes).max().unwrap_or(0);
                self.check_binding(&node.name, largest)?;
                let [x, y] =
                    dispatch.grid.at(samples.len().min(self.options.capacity), self.options.profile.max_groups);
                let _ = write!(
                    text,
                    "{:3} {} = {} [{}] {x}x{y}",
                    dispatches.len(),
                    node.name,
                    describe(node),
                    candidate.variant
                );
                for b in &bindings {
                    let mark = if b.access == Access::ReadWrite { "*" } else { "" };
                    let _ = write!(text, " {mark}{}", b.place);
                }
                text.push('\n');
                dispatches.push(PlannedDispatch {
                    node: node.name.clone(),
                    kernel: dispatch.kernel.clone(),
                    variant: candidate.variant.clone(),
                    source: dispatch.source.clone(),
                    constants: dispatch.constants.clone(),
                    grid: dispatch.grid,
                    samples,
                    bindings,
                });
            }
        }
        let port = |name: &str, v: Value| {
            let ty = self.graph.ty(v).clone();
            self.place(v).map(|place| Port { name: name.to_owned(), ty, place })
        };
        let inputs: Vec<Port> = (self.graph.nodes().iter().enumerate())
            .filter(|(_, n)| matches!(n.kind, Kind::Input))
            .filter_map(|(i, n)| port(&n.name, Value { node: i as u32, output: 0 }))
            .collect();
        let outputs: Vec<Port> = self.graph.outputs().iter().filter_map(|(name, v)| port(name, *v)).collect();
        let stores: u64 = self.options.layouts.iter().flat_map(|l| &l.chunks).sum();
        let peak_bytes = arenas.iter().sum::<u64>() + stores;
        let lower_bound_bytes = self.fullest() + stores;
        let mut head = format!("plan for up to {} samples: {} dispatches", self.options.capacity, dispatches.len());
        let _ = writeln!(head, ", {peak_bytes} bytes ({} activations, {stores} kept)", arenas.iter().sum::<u64>());
        for port in &inputs {
            let _ = writeln!(head, "input {}: {} at {}", port.name, port.ty, port.place);
        }
        for port in &outputs {
            let _ = writeln!(head, "output {}: {} at {}", port.name, port.ty, port.place);
        }
        let text = head + &text;
        let mut hash = fnv(text.as_bytes(), 0xcbf2_9ce4_8422_2325);
        for d in &dispatches {
            hash = fnv(d.source.as_bytes(), hash);
            hash = fnv(format!("{:?}{:?}", d.constants, d.grid).as_bytes(), hash);
        }
        let capacity = self.options.capacity;
        Ok(Plan { capacity, arenas, dispatches, inputs, outputs, peak_bytes, lower_bound_bytes, hash, text })
    }
}

/// Returns how launch `k` of a candidate reaches a slot: scratch is written by the first launch that binds it
/// and read by those after.
fn access(candidate: &Candidate, k: usize, slot: &Slot) -> Access {
    match slot {
        Slot::In(_) => Access::Read,
        Slot::Uniform { .. } | Slot::Part => Access::Uniform,
        Slot::Scratch(_) if candidate.dispatches[..k].iter().any(|d| d.slots.contains(slot)) => Access::Read,
        _ => Access::ReadWrite,
    }
}

/// Returns the samples that each launch of a dispatch does.
fn parts(dispatch: &Dispatch, capacity: usize) -> Vec<Range<usize>> {
    let samples = dispatch.slots.iter().find_map(|s| match s {
        Slot::Uniform { samples, .. } => *samples,
        _ => None,
    });
    match samples {
        None => vec![Range { start: 0, end: usize::MAX }],
        Some(samples) => (0..capacity).step_by(samples.max(1)).map(|start| start..start + samples).collect(),
    }
}

fn describe(node: &Node) -> String {
    let Some(op) = node.op() else { return String::new() };
    let key = op.key();
    if key.is_empty() { op.name().to_owned() } else { format!("{}({key})", op.name()) }
}

fn fnv(bytes: &[u8], seed: u64) -> u64 {
    bytes.iter().fold(seed, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3))
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.buffer {
            BufferRef::Arena(i) => write!(f, "arena{i}")?,
            BufferRef::Store { store, chunk } => write!(f, "store{store}.{chunk}")?,
            BufferRef::External(i) => write!(f, "external{i}")?,
            BufferRef::Parts => write!(f, "parts")?,
        }
        write!(f, "[{}..{}]", self.offset, self.offset + self.bytes)
    }
}
