//! Runs a kernel: the lanes of a workgroup together, one workgroup after the other.

use super::{
    code::{Block, Code, From, Index, Instr, Length, Loop, Pick, Place, Reg, Root, Subgroup},
    error::{Fault, FaultKind},
    mask::{Mask, Span},
    memory::{Buffer, Mark, Who, Written},
    subgroup,
};
use naga::BuiltIn;

/// Turns of an invocation's loops after which they are said not to end.
pub(super) const MAX_TURNS: u32 = 1 << 20;

/// What a launch did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// The turns of one invocation's loops at most, all loops together.
    pub turns: u32,
    /// Words that a lane wrote where another had written the same bits.
    pub repeated: u64,
    /// Instructions of all lanes.
    pub steps: u64,
}

/// A fault whose place is known by its number.
pub(super) struct Found {
    kind: FaultKind,
    site: usize,
    lane: usize,
}

/// What runs.
pub(super) struct Machine<'a> {
    code: &'a Code,
    lanes: usize,
    /// Each register has a word for each lane.
    registers: Vec<u32>,
    shared: Buffer,
    shared_marks: Vec<Mark>,
    buffers: &'a mut [Buffer],
    /// For each binding that the kernel writes, who reached each word.
    marks: Vec<Vec<Mark>>,
    /// Elements of each binding's array of any length.
    lengths: Vec<u32>,
    subgroup_lanes: usize,
    group: u32,
    /// Numbers of the times since the last barriers of workgroup and storage memory.
    epochs: [u32; 2],
    clock: u32,
    turns: Vec<u32>,
    max_turns: u32,
    repeated: u64,
    steps: u64,
}

/// Lanes that left a loop, and those that wait for its next turn.
#[derive(Default)]
struct Flow {
    broken: Mask,
    continued: Mask,
}

type Run = Result<(), Found>;

impl<'a> Machine<'a> {
    pub fn new(code: &'a Code, buffers: &'a mut [Buffer], subgroup_lanes: u32) -> Self {
        let lanes = code.workgroup.iter().product::<u32>() as usize;
        let mut registers = vec![0; code.registers * lanes];
        for (row, &word) in registers.chunks_mut(lanes).zip(&code.constants) {
            row.fill(word);
        }
        let (mut marks, mut lengths) = (Vec::new(), Vec::new());
        for (buffer, declared) in buffers.iter().zip(&code.bindings) {
            let writes = declared.as_ref().is_some_and(|d| d.writes);
            marks.push(vec![Mark::default(); if writes { buffer.words.len() } else { 0 }]);
            let of = |d: &super::code::Declared| (buffer.len() - d.bytes).div_ceil(d.stride);
            lengths.push(declared.as_ref().filter(|d| d.stride > 0).map_or(0, of) as u32);
        }
        let subgroup_lanes = if subgroup_lanes == 0 { lanes } else { subgroup_lanes as usize };
        Machine {
            code,
            lanes,
            registers,
            shared: Buffer::unwritten(4 * code.shared),
            shared_marks: vec![Mark::default(); code.shared],
            buffers,
            marks,
            lengths,
            subgroup_lanes,
            group: 0,
            epochs: [0; 2],
            clock: 0,
            turns: vec![0; lanes],
            max_turns: 0,
            repeated: 0,
            steps: 0,
        }
    }

    /// Runs all workgroups, whose loops are said not to end after so many turns of an invocation.
    pub fn run(mut self, groups: [u32; 2], max_turns: u32, source: &str) -> Result<Work, Box<Fault>> {
        self.max_turns = max_turns;
        let mut turns = 0;
        for group in 0..groups[0] * groups[1] {
            self.group = group;
            self.enter(groups);
            let code = self.code;
            let all = Mask::first(self.lanes);
            self.block(&code.main, &mut { all }, &mut Flow::default()).map_err(|found| self.fault(found, source))?;
            turns = self.turns.iter().copied().max().unwrap_or(0).max(turns);
        }
        Ok(Work { turns, repeated: self.repeated, steps: self.steps })
    }

    fn fault(&self, found: Found, source: &str) -> Box<Fault> {
        let site = &self.code.sites[found.site];
        let before = source.get(..site.span.start).unwrap_or_default();
        Box::new(Fault {
            kind: found.kind,
            variable: site.variable.clone(),
            line: before.matches('\n').count() as u32 + 1,
            text: source.get(site.span.clone()).unwrap_or_default().to_owned(),
            group: self.group,
            lane: found.lane as u32,
        })
    }

    /// Begins a workgroup.
    fn enter(&mut self, groups: [u32; 2]) {
        let (code, lanes) = (self.code, self.lanes);
        self.tick([true, true]);
        self.turns.fill(0);
        if code.shared > 0 {
            self.shared.clear();
        }
        for &(to, from) in &code.private {
            let from = from as usize * lanes;
            self.registers.copy_within(from..from + lanes, to as usize * lanes);
        }
        let id = [self.group % groups[0], self.group / groups[0], 0];
        let size = code.workgroup;
        for (builtin, to) in &code.builtins {
            for lane in 0..lanes as u32 {
                let local = [lane % size[0], lane / size[0] % size[1], lane / (size[0] * size[1])];
                let subgroup = self.subgroup_lanes as u32;
                let value = match builtin {
                    BuiltIn::WorkGroupId => id,
                    BuiltIn::NumWorkGroups => [groups[0], groups[1], 1],
                    BuiltIn::LocalInvocationId => local,
                    BuiltIn::GlobalInvocationId => std::array::from_fn(|k| id[k] * size[k] + local[k]),
                    BuiltIn::WorkGroupSize => size,
                    BuiltIn::SubgroupSize => [subgroup; 3],
                    BuiltIn::SubgroupId => [lane / subgroup; 3],
                    BuiltIn::SubgroupInvocationId => [lane % subgroup; 3],
                    BuiltIn::NumSubgroups => [(lanes as u32).div_ceil(subgroup); 3],
                    _ => [lane; 3],
                };
                for (&to, value) in to.iter().zip(value) {
                    self.registers[to as usize * lanes + lane as usize] = value;
                }
            }
        }
    }

    /// Begins the time after a barrier of workgroup or storage memory.
    fn tick(&mut self, memories: [bool; 2]) {
        self.clock += 1;
        for (epoch, _) in self.epochs.iter_mut().zip(memories).filter(|(_, affected)| *affected) {
            *epoch = self.clock;
        }
    }

    fn get(&self, register: Reg, lane: usize) -> u32 {
        self.registers[register as usize * self.lanes + lane]
    }

    /// Returns a register to write and those before it to read, at the lanes of a span.
    fn operands<const N: usize>(&mut self, to: Reg, from: [Reg; N], span: Span) -> (&mut [u32], [&[u32]; N]) {
        let (lanes, n) = (self.lanes, span.high - span.low);
        let (before, rest) = self.registers.split_at_mut(to as usize * lanes);
        let read = |register: Reg| {
            let at = register as usize * lanes + span.low;
            &before[at..at + n]
        };
        (&mut rest[span.low..span.high], from.map(read))
    }

    /// Runs instructions for the active lanes, and leaves those active that reach their end.
    fn block(&mut self, block: &Block, active: &mut Mask, flow: &mut Flow) -> Run {
        let mut span = active.span();
        self.steps += (block.len() * (span.high - span.low)) as u64;
        for instr in block {
            match instr {
                Instr::Unary(op, to, from) => {
                    let (to, from) = self.operands(*to, *from, span);
                    op.run(to, from);
                }
                Instr::Binary(op, to, from) => {
                    let (to, from) = self.operands(*to, *from, span);
                    op.run(to, from);
                }
                Instr::Ternary(op, to, from) => {
                    let (to, from) = self.operands(*to, *from, span);
                    op.run(to, from);
                }
                Instr::Wide(op, to, from) => {
                    for lane in span.low..span.high {
                        let words = op.at(from.map(|r| self.get(r, lane)));
                        self.set([*to, *to + 1], words, lane);
                    }
                }
                Instr::Move(to, from) => self.copy(*to, *from, active, span),
                Instr::Load(place, to) => self.load(place, *to, active)?,
                Instr::Store(place, values) => self.store(place, values, active)?,
                Instr::Pick(pick) => self.pick(pick, active)?,
                Instr::Length(to, binding) => {
                    let at = *to as usize * self.lanes;
                    self.registers[at..at + self.lanes].fill(self.lengths[*binding]);
                }
                Instr::Barrier { workgroup, storage, site } => {
                    let whole = *active == Mask::first(self.lanes);
                    let found = || Found { kind: FaultKind::Barrier, site: *site, lane: span.low };
                    whole.then_some(()).ok_or_else(found)?;
                    self.tick([*workgroup, *storage]);
                }
                Instr::Subgroup(operation) => self.subgroup(operation, active)?,
                control => {
                    self.control(control, active, flow)?;
                    span = active.span();
                    if active.is_empty() {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    fn set(&mut self, to: [Reg; 2], words: [u32; 2], lane: usize) {
        for (to, word) in to.into_iter().zip(words) {
            self.registers[to as usize * self.lanes + lane] = word;
        }
    }

    fn copy(&mut self, to: Reg, from: Reg, active: &Mask, span: Span) {
        let [to, from] = [to, from].map(|r| r as usize * self.lanes);
        if span.dense {
            self.registers.copy_within(from + span.low..from + span.high, to + span.low);
        } else {
            active.lanes().for_each(|lane| self.registers[to + lane] = self.registers[from + lane]);
        }
    }

    /// Returns the active lanes where a register is not 0.
    fn where_true(&self, register: Reg, active: &Mask) -> Mask {
        Mask::of(active.lanes().filter(|&lane| self.get(register, lane) != 0))
    }

    fn control(&mut self, instr: &Instr, active: &mut Mask, flow: &mut Flow) -> Run {
        match instr {
            Instr::If(condition, blocks) => {
                let mut accept = self.where_true(*condition, active);
                let mut reject = active.without(&accept);
                for (lanes, block) in [&mut accept, &mut reject].into_iter().zip(blocks.iter()) {
                    if !lanes.is_empty() {
                        self.block(block, lanes, flow)?;
                    }
                }
                *active = accept.or(&reject);
            }
            Instr::Switch(selector, cases) => {
                let (mut rest, mut after) = (*active, Mask::default());
                let mut inner = Flow { continued: flow.continued, ..Flow::default() };
                // The default comes last.
                for case in cases {
                    let is = |&lane: &usize| case.values.contains(&self.get(*selector, lane));
                    let mut lanes = if case.values.is_empty() { rest } else { Mask::of(rest.lanes().filter(is)) };
                    rest = rest.without(&lanes);
                    self.block(&case.body, &mut lanes, &mut inner)?;
                    after = after.or(&lanes);
                }
                *active = after.or(&inner.broken).or(&rest);
                flow.continued = inner.continued;
            }
            Instr::Loop(l) => self.turn(l, active)?,
            Instr::Break => {
                flow.broken = flow.broken.or(active);
                *active = Mask::default();
            }
            Instr::Continue => {
                flow.continued = flow.continued.or(active);
                *active = Mask::default();
            }
            Instr::Call(function) => {
                let code = self.code;
                self.block(&code.functions[*function], &mut { *active }, &mut Flow::default())?;
            }
            _ => *active = Mask::default(),
        }
        Ok(())
    }

    fn turn(&mut self, l: &Loop, active: &mut Mask) -> Run {
        let mut flow = Flow::default();
        while !active.is_empty() {
            self.block(&l.body, active, &mut flow)?;
            *active = active.or(&std::mem::take(&mut flow.continued));
            if active.is_empty() {
                break;
            }
            self.block(&l.continuing, active, &mut flow)?;
            for lane in active.lanes() {
                self.turns[lane] += 1;
                if self.turns[lane] > self.max_turns {
                    return Err(Found { kind: FaultKind::Endless, site: l.site, lane });
                }
            }
            if let Some(end) = l.break_if {
                let ended = self.where_true(end, active);
                flow.broken = flow.broken.or(&ended);
                *active = active.without(&ended);
            }
        }
        *active = flow.broken;
        Ok(())
    }

    /// Returns the first word of a place for a lane.
    fn address(&self, place: &Place, lane: usize) -> Result<usize, Found> {
        let mut at = place.offset;
        for Index { from, stride, length } in &place.indices {
            let index = match *from {
                From::Register(register) => self.get(register, lane),
                From::Fixed(index) => index,
            };
            let length = match *length {
                Length::Fixed(length) => length,
                Length::Buffer(binding) => self.lengths[binding],
            };
            if index >= length {
                return Err(Found { kind: FaultKind::Outside { index, length }, site: place.site, lane });
            }
            at += index * stride;
        }
        Ok(at as usize)
    }

    fn who(&self, shared: bool, lane: usize) -> Who {
        let invocation = self.group * self.lanes as u32 + lane as u32 + 1;
        Who { invocation, lanes: self.lanes as u32, epoch: self.epochs[usize::from(!shared)], shared }
    }

    fn load(&mut self, place: &Place, to: Reg, active: &Mask) -> Run {
        let lanes = self.lanes;
        for lane in active.lanes() {
            let first = self.address(place, lane)?;
            let found = |kind| Found { kind, site: place.site, lane };
            let who = self.who(place.root == Root::Shared, lane);
            for (k, &word) in place.words.iter().enumerate() {
                let word = first + word as usize;
                let (memory, marks) = match place.root {
                    Root::Registers(base) => {
                        let value = self.registers[(base as usize + word) * lanes + lane];
                        self.registers[(to as usize + k) * lanes + lane] = value;
                        continue;
                    }
                    Root::Shared => (&self.shared, &mut self.shared_marks),
                    Root::Buffer(binding) => (&self.buffers[binding], &mut self.marks[binding]),
                };
                if !memory.written[word] {
                    return Err(found(FaultKind::Unwritten));
                }
                if let Some(kind) = marks.get_mut(word).and_then(|mark| mark.read(who)) {
                    return Err(found(kind));
                }
                self.registers[(to as usize + k) * lanes + lane] = memory.words[word];
            }
        }
        Ok(())
    }

    fn store(&mut self, place: &Place, values: &[Reg], active: &Mask) -> Run {
        let lanes = self.lanes;
        for lane in active.lanes() {
            let first = self.address(place, lane)?;
            let who = self.who(place.root == Root::Shared, lane);
            for (&word, &value) in place.words.iter().zip(values) {
                let word = first + word as usize;
                let value = self.registers[value as usize * lanes + lane];
                let (memory, marks) = match place.root {
                    Root::Registers(base) => {
                        self.registers[(base as usize + word) * lanes + lane] = value;
                        continue;
                    }
                    Root::Shared => (&mut self.shared, &mut self.shared_marks),
                    Root::Buffer(binding) => (&mut self.buffers[binding], &mut self.marks[binding]),
                };
                match marks[word].write(who, memory.words[word] == value) {
                    Written::Alone => {}
                    Written::Again => self.repeated += 1,
                    Written::Wrong(kind) => return Err(Found { kind, site: place.site, lane }),
                }
                memory.words[word] = value;
                memory.written[word] = true;
            }
        }
        Ok(())
    }

    fn pick(&mut self, pick: &Pick, active: &Mask) -> Run {
        for lane in active.lanes() {
            let (index, length) = (self.get(pick.index, lane), (pick.from.len() / pick.size) as u32);
            if index >= length {
                return Err(Found { kind: FaultKind::Outside { index, length }, site: pick.site, lane });
            }
            for k in 0..pick.size {
                let value = self.get(pick.from[index as usize * pick.size + k], lane);
                self.registers[(pick.to as usize + k) * self.lanes + lane] = value;
            }
        }
        Ok(())
    }

    fn subgroup(&mut self, operation: &Subgroup, active: &Mask) -> Run {
        let lanes = self.lanes;
        for low in (0..lanes).step_by(self.subgroup_lanes) {
            let high = lanes.min(low + self.subgroup_lanes);
            let n = (low..high).filter(|&lane| active.has(lane)).count();
            if n == 0 {
                continue;
            }
            let found = |(kind, lane)| Found { kind, site: operation.site, lane };
            if n < high - low {
                let lane = (low..high).find(|&lane| active.has(lane)).unwrap_or(low);
                return Err(found((FaultKind::Subgroup, lane)));
            }
            subgroup::run(operation, &mut self.registers, lanes, low..high).map_err(found)?;
        }
        Ok(())
    }
}
