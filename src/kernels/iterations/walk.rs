//! The statements of a kernel in order, and the passes of its loops.

use super::{
    bound::{Known, Linear},
    expressions::{Counter, Frame, Kernel, Loop, Step},
    value::Value,
};
use naga::{BinaryOperator as Op, Block, Expression, Function, Handle, LocalVariable, Span, Statement};
use std::collections::BTreeMap;

/// The stores to a local variable: what each stores, if it is known to run once in each pass.
type Stores = BTreeMap<Handle<LocalVariable>, Vec<Option<Handle<Expression>>>>;

/// The passes of loops, and whether the statements end before their last; or the place of a loop whose passes have no bound.
type Walked = Result<(u64, bool), Span>;

impl<'m> Kernel<'m> {
    /// Walks a function and returns the passes of its loops.
    pub fn call(&mut self, function: &'m Function, arguments: Vec<Value>) -> Result<(u64, Value), Span> {
        let mut frame = Frame::new(function, arguments);
        let facts = self.arithmetic.facts.len();
        let (count, _) = self.block(&mut frame, &function.body, true)?;
        self.arithmetic.facts.truncate(facts);
        let join = |a: Value, b: Value| self.arithmetic.select(&Default::default(), a, b);
        Ok((count, frame.returned.into_iter().reduce(join).unwrap_or(Value::Unknown)))
    }

    /// Walks statements; those that are `always` run run in each pass of the innermost loop.
    fn block(&mut self, frame: &mut Frame<'m>, block: &'m Block, always: bool) -> Walked {
        let (facts, mut all, mut ended) = (self.arithmetic.facts.len(), 0u64, false);
        // What is found by what holds in here does not hold behind it.
        let memo = (!always).then(|| frame.memo.clone());
        for (statement, &span) in block.span_iter() {
            let (count, ends) = self.statement(frame, statement, span, always)?;
            all = all.saturating_add(count);
            if ends {
                ended = true;
                break;
            }
        }
        if !always || ended {
            self.arithmetic.facts.truncate(facts);
        }
        if let Some(memo) = memo {
            frame.memo = memo;
        }
        Ok((all, ended))
    }

    fn statement(&mut self, frame: &mut Frame<'m>, statement: &'m Statement, span: Span, always: bool) -> Walked {
        match statement {
            Statement::Emit(range) => {
                for at in range.clone() {
                    if let Expression::Load { pointer } = frame.function.expressions[at]
                        && frame.local(pointer).is_some()
                    {
                        let value = self.load(frame, pointer);
                        frame.memo.insert(at, value);
                    }
                }
            }
            Statement::Store { pointer, value } => match frame.local(*pointer) {
                Some((local, true)) => {
                    let value = if self.is_followed(frame, local) { self.value(frame, *value) } else { Value::Unknown };
                    frame.locals.insert(local, value);
                }
                Some((local, false)) => self.forget(frame, local),
                None => {}
            },
            Statement::Block(block) => return self.block(frame, block, always),
            Statement::If { condition, accept, reject } => {
                let calm = |block| !self.matters(frame, block);
                if !(calm(accept) && calm(reject)) {
                    return self.branches(frame, *condition, [reject, accept], always);
                }
            }
            Statement::Switch { cases, .. } => {
                let (before, mut all) = (frame.locals.clone(), 0u64);
                for case in cases {
                    all = all.saturating_add(self.block(frame, &case.body, false)?.0);
                    frame.locals.clone_from(&before);
                }
                let mut stored = Stores::new();
                cases.iter().for_each(|case| stores(frame, &case.body, false, &mut stored));
                stored.keys().for_each(|&local| self.forget(frame, local));
                return Ok((all, false));
            }
            Statement::Loop { body, continuing, break_if } => {
                let count = self.passes(frame, [body, continuing], *break_if, span)?;
                frame.loops.last_mut().into_iter().for_each(|l| l.looped = true);
                return Ok((count, false));
            }
            Statement::Break | Statement::Kill => {
                let inner = frame.loops.last_mut().filter(|l| always && !l.continued);
                inner.into_iter().for_each(|l| l.passes = Some(l.passes.map_or(1, |p| p.min(1))));
                return Ok((0, true));
            }
            Statement::Continue => {
                frame.loops.last_mut().into_iter().for_each(|l| l.continued = true);
                return Ok((0, true));
            }
            Statement::Return { value } => {
                if let Some(value) = value.map(|value| self.value(frame, value)) {
                    let value = self.arithmetic.here(value);
                    frame.returned.push(value);
                }
                return Ok((0, true));
            }
            Statement::Call { function, arguments, result } => {
                return self.called(frame, (*function, arguments), *result).map(|count| (count, false));
            }
            _ => {}
        }
        Ok((0, false))
    }

    /// Walks a function where it has loops.
    fn called(
        &mut self,
        frame: &mut Frame<'m>,
        (function, arguments): (Handle<Function>, &'m [Handle<Expression>]),
        result: Option<Handle<Expression>>,
    ) -> Result<u64, Span> {
        frame.calls.extend(result.map(|result| (result, (function, arguments))));
        let (function, mut count) = (&self.module.functions[function], 0);
        if self.loops(&function.body) > 0 {
            let values = arguments.iter().map(|&at| self.value(frame, at)).collect();
            let (passes, value) = self.call(function, values)?;
            frame.memo.extend(result.map(|result| (result, value)));
            frame.loops.last_mut().into_iter().for_each(|l| l.looped = true);
            count = passes;
        }
        let locals: Vec<_> = arguments.iter().filter_map(|&at| frame.local(at)).collect();
        locals.into_iter().for_each(|(local, _)| self.forget(frame, local));
        Ok(count)
    }

    /// Walks both branches of a condition, of which llvmpipe runs the other's loops once.
    fn branches(
        &mut self,
        frame: &mut Frame<'m>,
        condition: Handle<Expression>,
        [no, yes]: [&'m Block; 2],
        always: bool,
    ) -> Walked {
        let truth = self.truth(frame, condition);
        if let Some(known) = truth.known {
            let (taken, other) = if known { (yes, no) } else { (no, yes) };
            let (count, ends) = self.block(frame, taken, always)?;
            return Ok((count.saturating_add(self.loops(other)), ends));
        }
        let branch = |kernel: &mut Self, frame: &mut Frame<'m>, block, holds| {
            let facts = kernel.arithmetic.facts.len();
            kernel.arithmetic.facts.extend_from_slice(truth.facts_where(holds));
            let walked = kernel.block(frame, block, false);
            kernel.arithmetic.facts.truncate(facts);
            walked
        };
        let before = frame.locals.clone();
        let (count_yes, ends_yes) = branch(self, frame, yes, true)?;
        let mut after = std::mem::replace(&mut frame.locals, before);
        let (count_no, ends_no) = branch(self, frame, no, false)?;
        let count = count_yes.saturating_add(count_no);
        if ends_yes != ends_no {
            let ending = if ends_yes { yes } else { no };
            if always && matches!(ending.last(), Some(Statement::Break | Statement::Return { .. } | Statement::Kill)) {
                self.exit(frame, truth.facts_where(ends_no), false);
            }
            self.arithmetic.facts.extend_from_slice(truth.facts_where(ends_no));
        }
        if ends_no {
            frame.locals = after;
        } else if !ends_yes {
            let mut changed: Vec<_> = after.keys().chain(frame.locals.keys()).copied().collect();
            changed.sort();
            changed.dedup();
            for local in changed {
                let value_no = self.local(frame, local);
                let rest = std::mem::replace(&mut frame.locals, after);
                let value_yes = self.local(frame, local);
                after = std::mem::replace(&mut frame.locals, rest);
                let value = self.arithmetic.select(&truth, value_yes, value_no);
                frame.locals.insert(local, value);
            }
        }
        Ok((count, ends_yes && ends_no))
    }

    /// Returns the passes of a loop and of those inside. llvmpipe counts the pass that finds the end too, and runs the loops inside it
    /// once.
    fn passes(
        &mut self,
        frame: &mut Frame<'m>,
        [body, continuing]: [&'m Block; 2],
        break_if: Option<Handle<Expression>>,
        span: Span,
    ) -> Result<u64, Span> {
        let mut stored = Stores::new();
        let once = !continues(body);
        stores(frame, body, once, &mut stored);
        stores(frame, continuing, true, &mut stored);
        let firsts: Vec<Value> = stored.keys().map(|&local| self.local(frame, local)).collect();
        stored.keys().for_each(|&local| self.forget(frame, local));
        let mut inner = Loop::default();
        for ((&local, values), first) in stored.iter().zip(firsts) {
            let (Value::Int(first, range), &[Some(value)]) = (first, &values[..]) else { continue };
            if let Some(step) = self.step(frame, local, value) {
                let counter = self.counter(first, range, step);
                frame.locals.insert(local, Value::Int(Linear::atom(counter.atom), range));
                inner.counters.push(counter);
            }
        }
        frame.loops.push(inner);
        let (facts, memo) = (self.arithmetic.facts.len(), frame.memo.clone());
        let mut count = self.block(frame, body, true)?.0;
        count = count.saturating_add(self.block(frame, continuing, true)?.0);
        if let Some(condition) = break_if {
            let truth = self.truth(frame, condition);
            self.exit(frame, truth.facts_where(false), true);
        }
        self.arithmetic.facts.truncate(facts);
        frame.memo = memo;
        // Data bounds no loop but by its type.
        let passes = frame.loops.pop().and_then(|l| l.passes).filter(|&passes| passes < 1 << 31).ok_or(span)?;
        stored.keys().for_each(|&local| self.forget(frame, local));
        let last = 1 + self.loops(body) + self.loops(continuing);
        Ok(passes.saturating_mul(count.saturating_add(1)).saturating_add(last))
    }

    /// Returns how a variable changes by what is stored in it.
    fn step(&mut self, frame: &mut Frame<'m>, local: Handle<LocalVariable>, value: Handle<Expression>) -> Option<Step> {
        let Expression::Binary { op, left, right } = frame.function.expressions[value] else { return None };
        let is_own = |at: Handle<Expression>| match frame.function.expressions[at] {
            Expression::Load { pointer } => frame.local(pointer) == Some((local, true)),
            _ => false,
        };
        let by = match op {
            _ if is_own(left) => right,
            Op::Add if is_own(right) => left,
            _ => return None,
        };
        // What is found here does not hold inside the loop.
        let memo = frame.memo.clone();
        let by = self.value(frame, by);
        frame.memo = memo;
        let Value::Int(by, _) = by else { return None };
        let [lo, hi] = self.arithmetic.atoms.range(&by);
        match op {
            Op::Add if lo > 0 => Some(Step::Up([lo, hi])),
            Op::Add if hi < 0 => Some(Step::Down([-hi, -lo])),
            Op::Subtract if lo > 0 => Some(Step::Down([lo, hi])),
            Op::Divide => by.known().filter(|&by| by > 1).map(Step::Over),
            Op::ShiftRight => by.known().filter(|by| (1..64).contains(by)).map(|by| Step::Over(1 << by)),
            _ => None,
        }
    }

    /// Returns a counter, which does not wrap round.
    fn counter(&mut self, first: Linear, range: [i128; 2], step: Step) -> Counter {
        let [lo, hi] = self.arithmetic.atoms.range(&first);
        let mut known = Known { range, uppers: Vec::new(), lowers: Vec::new(), choice: None };
        match step {
            Step::Over(_) if lo < 0 => {}
            Step::Up([_, most]) => {
                (known.range, known.lowers) = ([lo, (range[1] - most).max(lo)], vec![first.clone()]);
            }
            Step::Down([_, most]) => {
                (known.range, known.uppers) = ([(range[0] + most).min(hi), hi], vec![first.clone()]);
            }
            Step::Over(_) => (known.range, known.uppers) = ([0, hi], vec![first.clone()]),
        }
        let atom = self.arithmetic.atoms.known.len();
        self.arithmetic.atoms.new_atom(known);
        Counter { atom, first, range, step }
    }

    /// Notes that the innermost loop goes on only where the facts are at least 0.
    fn exit(&mut self, frame: &mut Frame<'m>, facts: &[Linear], at_end: bool) {
        let Some(inner) = frame.loops.last_mut().filter(|l| at_end || !l.continued) else { return };
        for counter in &inner.counters {
            for fact in facts {
                if let Some(passes) = self.passes_where(counter, fact) {
                    let passes = u64::try_from(passes).unwrap_or(u64::MAX);
                    let passes = passes.saturating_add(u64::from(at_end || inner.looped));
                    inner.passes = Some(inner.passes.map_or(passes, |p| p.min(passes)));
                }
            }
        }
    }

    /// Returns how often a fact holds, if the counter ends it.
    fn passes_where(&mut self, counter: &Counter, fact: &Linear) -> Option<i128> {
        let Counter { atom, ref first, range, step } = *counter;
        let factor = fact.factor(atom);
        let size = factor.abs();
        // The counter's last value.
        let rest = fact.plus(&Linear::atom(atom), -factor, 1)?;
        let bound = rest.times(if factor < 0 { 1 } else { -1 }, size.max(1))?;
        let all = &mut self.arithmetic;
        let [_, hi] = all.atoms.range(first);
        let end = match factor.signum() {
            -1 => all.atoms.upper(&bound, &all.facts),
            1 => all.atoms.lower(&bound, &all.facts),
            _ => return None,
        };
        let passes = match step {
            Step::Up([least, most]) if factor < 0 && end.saturating_add(most) <= range[1] => {
                by_steps(all.atoms.upper(&fact.with(atom, first)?, &all.facts), size * least)
            }
            Step::Down([least, most]) if factor > 0 && end.saturating_sub(most) >= range[0] => {
                by_steps(all.atoms.upper(&fact.with(atom, first)?, &all.facts), size * least)
            }
            Step::Over(by) if factor > 0 && end > 0 => {
                std::iter::successors(Some(hi), |v| Some(v / by)).take_while(|&v| v >= end).count() as i128
            }
            _ => return None,
        };
        let known = all.atoms.known.get_mut(atom)?;
        if factor < 0 {
            known.range[1] = known.range[1].min(end.max(known.range[0]));
            known.uppers.push(bound);
        } else {
            known.range[0] = known.range[0].max(end.min(known.range[1]));
            known.lowers.push(bound);
        }
        Some(passes)
    }

    /// Returns whether statements have loops, change what is known of variables, or end.
    fn matters(&self, frame: &Frame<'m>, block: &Block) -> bool {
        block.iter().any(|statement| match statement {
            Statement::Store { pointer, .. } => frame.local(*pointer).is_some_and(|(l, _)| self.is_followed(frame, l)),
            Statement::If { accept, reject, .. } => self.matters(frame, accept) || self.matters(frame, reject),
            Statement::Block(block) => self.matters(frame, block),
            Statement::Call { function, arguments, .. } => {
                self.loops(&self.module.functions[*function].body) > 0
                    || arguments.iter().any(|&at| frame.local(at).is_some())
            }
            Statement::Emit(_) | Statement::ControlBarrier(_) | Statement::MemoryBarrier(_) => false,
            _ => true,
        })
    }

    /// Returns the number of loops in a text, those of functions that it calls too.
    fn loops(&self, block: &Block) -> u64 {
        let loops = |statement: &Statement| match statement {
            Statement::Loop { body, continuing, .. } => 1 + self.loops(body) + self.loops(continuing),
            Statement::If { accept, reject, .. } => self.loops(accept) + self.loops(reject),
            Statement::Switch { cases, .. } => cases.iter().map(|case| self.loops(&case.body)).sum(),
            Statement::Block(block) => self.loops(block),
            Statement::Call { function, .. } => self.loops(&self.module.functions[*function].body),
            _ => 0,
        };
        block.iter().map(loops).sum()
    }
}

/// Returns how many of rest, rest - step, rest - 2 · step, … are at least 0.
fn by_steps(rest: i128, step: i128) -> i128 {
    if rest < 0 { 0 } else { rest / step.max(1) + 1 }
}

/// Returns whether a pass of the loop with this body may end early and be followed by another.
fn continues(block: &Block) -> bool {
    block.iter().any(|statement| match statement {
        Statement::Continue => true,
        Statement::Block(block) => continues(block),
        Statement::If { accept, reject, .. } => continues(accept) || continues(reject),
        Statement::Switch { cases, .. } => cases.iter().any(|case| continues(&case.body)),
        _ => false,
    })
}

/// Notes the stores to local variables of statements, which run `once` in each pass or not.
fn stores(frame: &Frame, block: &Block, once: bool, all: &mut Stores) {
    for statement in block.iter() {
        match statement {
            Statement::Store { pointer, value } => {
                if let Some((local, whole)) = frame.local(*pointer) {
                    all.entry(local).or_default().push(Some(*value).filter(|_| once && whole));
                }
            }
            Statement::Block(block) => stores(frame, block, once, all),
            Statement::If { accept, reject, .. } => {
                [accept, reject].map(|b| stores(frame, b, false, all)).into_iter().collect()
            }
            Statement::Switch { cases, .. } => cases.iter().for_each(|case| stores(frame, &case.body, false, all)),
            Statement::Loop { body, continuing, .. } => {
                [body, continuing].map(|b| stores(frame, b, false, all)).into_iter().collect()
            }
            Statement::Call { arguments, .. } => {
                let locals = arguments.iter().filter_map(|&at| frame.local(at));
                locals.for_each(|(local, _)| all.entry(local).or_default().push(None));
            }
            _ => {}
        }
    }
}
