//! Finds what can be changed in a kernel.

use super::{
    mutant::{Change, Mutant},
    text,
};
use crate::{
    kernels::{common, shader},
    testing::Failure,
};
use naga::{BinaryOperator, Block, Expression, Function, Handle, Literal, LocalVariable, Module, Span, Statement};
use std::{collections::HashSet, ops::Range};

/// Returns the faults of a kernel's own statements, in their order, or an error if it is not valid WGSL.
pub fn mutants(source: &str) -> Result<Vec<Mutant>, Failure> {
    let module = naga::front::wgsl::parse_str(source).map_err(|e| Failure(e.emit_to_string(source)))?;
    Ok(Finder::of(&module, source))
}

/// Finds the changes of a module's functions.
struct Finder<'m> {
    module: &'m Module,
    source: &'m str,
    found: Vec<Mutant>,
}

/// What the statements of a function say of its expressions.
#[derive(Default)]
struct Seen {
    /// Conditions that end loops.
    ends: HashSet<Handle<Expression>>,
    /// Those of the step from one turn to the next.
    steps: HashSet<Handle<Expression>>,
    /// Pointers that are written through.
    written: HashSet<Handle<Expression>>,
    called: Vec<Handle<Function>>,
}

/// Returns whether a branch ends a loop where its condition does not hold.
fn ends(accept: &Block, reject: &Block) -> bool {
    accept.is_empty() && matches!(reject.first(), Some(Statement::Break))
}

/// Returns whether kernels share a function.
fn is_shared(name: &str) -> bool {
    let files = [
        common(),
        shader!("shared/vector1.wgsl"),
        shader!("shared/vector4.wgsl"),
        shader!("shared/floats.wgsl"),
        shader!("shared/words4.wgsl"),
    ];
    files.iter().any(|text| text.contains(&format!("fn {name}(")))
}

impl<'m> Finder<'m> {
    /// Returns the changes of the functions that `main` reaches, without those that all kernels share.
    fn of(module: &'m Module, source: &'m str) -> Vec<Mutant> {
        let mut finder = Finder { module, source, found: Vec::new() };
        let mut rest: Vec<Handle<Function>> = Vec::new();
        for entry in &module.entry_points {
            rest.extend(finder.function(&entry.function));
        }
        let mut done = HashSet::new();
        while let Some(handle) = rest.pop() {
            let function = &module.functions[handle];
            if done.insert(handle) && !is_shared(function.name.as_deref().unwrap_or_default()) {
                rest.extend(finder.function(function));
            }
        }
        finder.found.sort_by_key(|m| (m.range.start, m.range.end, m.change));
        finder.found.dedup_by(|a, b| (a.change, &a.range, &a.text) == (b.change, &b.range, &b.text));
        finder.found
    }

    fn function(&mut self, function: &'m Function) -> Vec<Handle<Function>> {
        let mut seen = Seen::default();
        self.block(function, &function.body, &mut seen);
        for (handle, expression) in function.expressions.iter() {
            if !seen.steps.contains(&handle) {
                self.expression(function, handle, expression, &seen);
            }
        }
        seen.called
    }

    fn text(&self, span: Span) -> Option<(Range<usize>, &'m str)> {
        let range = span.to_range()?;
        Some((range.clone(), self.source.get(range)?))
    }

    fn add(&mut self, change: Change, place: &str, range: Range<usize>, text: String) {
        if self.source.get(range.clone()).is_some_and(|from| from != text) {
            self.found.push(Mutant { change, place: place.to_owned(), range, text });
        }
    }

    fn name(&self, range: &Range<usize>) -> &'m str {
        text::name(self.source, range.start)
    }

    /// Returns the name of the variable that a pointer leads to, none for those that the text does not name.
    fn variable(&self, function: &Function, mut at: Handle<Expression>) -> Option<String> {
        loop {
            at = match function.expressions[at] {
                Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => base,
                Expression::Load { pointer } => pointer,
                Expression::GlobalVariable(global) => return self.module.global_variables[global].name.clone(),
                Expression::LocalVariable(local) => return function.local_variables[local].name.clone(),
                Expression::FunctionArgument(i) => return function.arguments[i as usize].name.clone(),
                _ => return function.named_expressions.get(&at).cloned(),
            }
        }
    }

    fn block(&mut self, function: &'m Function, block: &'m Block, seen: &mut Seen) {
        for (statement, span) in block.span_iter() {
            let inside: Vec<&Block> = match statement {
                Statement::ControlBarrier(_) => {
                    // The span of a call ends before its parentheses.
                    if let Some((range, _)) = self.text(*span) {
                        self.add(Change::NoBarrier, "barrier", range.start..range.end + 2, String::new());
                    }
                    Vec::new()
                }
                Statement::Store { pointer, .. } => {
                    seen.written.insert(*pointer);
                    self.store(function, *pointer, *span);
                    Vec::new()
                }
                Statement::If { condition, accept, reject } => {
                    if !seen.ends.contains(condition) {
                        self.guard(function.expressions.get_span(*condition), &function.expressions[*condition]);
                    }
                    vec![accept, reject]
                }
                Statement::Loop { body, continuing, .. } => {
                    let end = body.iter().find_map(|statement| match statement {
                        Statement::If { condition, accept, reject } if ends(accept, reject) => Some(*condition),
                        _ => None,
                    });
                    if let Some(condition) = end.filter(|condition| seen.ends.insert(*condition)) {
                        self.end(function, condition, continuing);
                    }
                    for statement in continuing.iter() {
                        if let Statement::Emit(range) = statement {
                            seen.steps.extend(range.clone());
                        }
                    }
                    vec![body]
                }
                Statement::Switch { cases, .. } => cases.iter().map(|case| &case.body).collect(),
                Statement::Block(inner) => vec![inner],
                Statement::Call { function, .. } => {
                    seen.called.push(*function);
                    Vec::new()
                }
                _ => Vec::new(),
            };
            inside.into_iter().for_each(|inner| self.block(function, inner, seen));
        }
    }

    fn store(&mut self, function: &Function, pointer: Handle<Expression>, span: Span) {
        let (Some(name), Some((range, text))) = (self.variable(function, pointer), self.text(span)) else { return };
        // A declaration must stay.
        if !text.starts_with("var") {
            self.add(Change::NoStore, &name, range, String::new());
        }
    }

    /// Changes the loop that goes on while a condition holds.
    fn end(&mut self, function: &Function, condition: Handle<Expression>, continuing: &Block) {
        let Expression::Binary { op, left, .. } = function.expressions[condition] else { return };
        let Some((range, text)) = self.text(function.expressions.get_span(condition)) else { return };
        let steps = continuing.span_iter().filter(|(statement, _)| matches!(statement, Statement::Store { .. }));
        let steps = steps.filter_map(|(_, span)| self.text(*span)?.1.split_once(" += "));
        let step = steps.map(|(_, step)| step).last().unwrap_or("1");
        let changed = match op {
            BinaryOperator::Less => text::operands(text, "<").map(|[a, b]| format!("{a} + {step} < {b}")),
            BinaryOperator::LessEqual => text::operands(text, "<=").map(|[a, b]| format!("{a} + {step} <= {b}")),
            BinaryOperator::Greater => text::operands(text, ">").map(|[a, b]| format!("{a} > {b} + 1")),
            BinaryOperator::GreaterEqual => text::operands(text, ">=").map(|[a, b]| format!("{a} >= {b} + 1")),
            _ => None,
        };
        let Some(name) = self.variable(function, left) else { return };
        if let Some(changed) = changed {
            self.add(Change::EndsEarly, &name, range, changed);
        }
        if let Expression::Load { pointer } = function.expressions[left]
            && let Expression::LocalVariable(local) = function.expressions[pointer]
        {
            self.start(function, local);
        }
    }

    fn start(&mut self, function: &Function, local: Handle<LocalVariable>) {
        let Some((range, text)) = self.text(function.local_variables.get_span(local)) else { return };
        let name = function.local_variables[local].name.clone().unwrap_or_default();
        if let Some((declared, initial)) = text.trim_end_matches(';').split_once('=') {
            let range = range.start..range.start + text.trim_end_matches(';').len();
            self.add(Change::StartsLate, &name, range, format!("{declared}= ({}) + 1", initial.trim()));
        }
    }

    /// Takes a condition for true and for false.
    fn guard(&mut self, span: Span, condition: &Expression) {
        let declared =
            matches!(condition, Expression::FunctionArgument(_) | Expression::Constant(_) | Expression::Literal(_));
        if let Some((range, _)) = self.text(span).filter(|(_, text)| !declared && !text.is_empty()) {
            let name = self.name(&range).to_owned();
            self.add(Change::Always, &name, range.clone(), "true".into());
            self.add(Change::Never, &name, range, "false".into());
        }
    }

    fn expression(&mut self, function: &Function, at: Handle<Expression>, expression: &Expression, seen: &Seen) {
        let Some((range, text)) = self.text(function.expressions.get_span(at)) else { return };
        match expression {
            Expression::Access { .. } | Expression::AccessIndex { .. } => {
                let Some((name, [array, index])) = self.variable(function, at).zip(text::access(text)) else { return };
                let further = format!("{array}[({index}) + 1]");
                if seen.written.contains(&at) {
                    self.add(Change::WritesFurther, &name, range, further);
                } else {
                    self.add(Change::ReadsFurther, &name, range.clone(), further);
                    if !["0", "0u", "0i"].contains(&index) {
                        self.add(Change::ReadsFirst, &name, range, format!("{array}[0]"));
                    }
                }
            }
            Expression::Binary { op, .. } if !seen.ends.contains(&at) => self.binary(*op, range, text),
            Expression::Select { .. } => {
                let arguments = text::arguments(text);
                let Some((first, condition)) = arguments.get(2) else { return };
                let (name, at) = (self.name(&range).to_owned(), range.start + first);
                for (change, value) in [(Change::Always, "true"), (Change::Never, "false")] {
                    self.add(change, &name, at..at + condition.len(), format!(" {value}"));
                }
            }
            Expression::Literal(Literal::F32(_)) if text.trim_end_matches('f').parse::<f32>().is_ok() => {
                let name = self.name(&range).to_owned();
                self.add(Change::OneMore, &name, range, format!("({text} + 1.0)"));
            }
            _ => {}
        }
    }

    fn binary(&mut self, op: BinaryOperator, range: Range<usize>, text: &str) {
        use BinaryOperator as Op;
        let name = self.name(&range).to_owned();
        let sign = match op {
            Op::Add => "+",
            Op::Subtract => "-",
            Op::Multiply => "*",
            Op::Divide => "/",
            Op::Modulo => "%",
            Op::Less => "<",
            Op::LessEqual => "<=",
            Op::Greater => ">",
            Op::GreaterEqual => ">=",
            _ => return,
        };
        if let Some((target, value)) = text.split_once(&format!(" {sign}= ")) {
            let (change, other) = match op {
                Op::Add => (Change::OtherSign, "-"),
                Op::Subtract => (Change::OtherSign, "+"),
                Op::Multiply => (Change::SumForProduct, "+"),
                Op::Divide => (Change::OtherAxis, "%"),
                _ => return,
            };
            return self.add(change, &name, range, format!("{target} {other}= {value}"));
        }
        let Some([left, right]) = text::operands(text, sign) else { return };
        let with = |sign: &str| format!("(({left}) {sign} ({right}))");
        let changes = match op {
            Op::Add => vec![(Change::TermLeftOut, format!("({left})"))],
            Op::Subtract => vec![(Change::OtherSign, with("+"))],
            Op::Multiply => vec![(Change::SumForProduct, with("+"))],
            Op::Divide => vec![(Change::OtherAxis, with("%"))],
            Op::Modulo => vec![(Change::OtherAxis, with("/"))],
            Op::Less => vec![(Change::Boundary, with("<="))],
            Op::LessEqual => vec![(Change::Boundary, with("<"))],
            Op::Greater => vec![(Change::Boundary, with(">="))],
            _ => vec![(Change::Boundary, with(">"))],
        };
        for (change, text) in changes {
            self.add(change, &name, range.clone(), text);
        }
        if matches!(op, Op::Subtract | Op::Divide | Op::Modulo) {
            self.add(Change::Swapped, &name, range, format!("(({right}) {sign} ({left}))"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const KERNEL: &str = "
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
var<workgroup> part: array<f32, 4>;
fn is_nan_f32(v: f32) -> bool { return v - 1.0 > 2.0; }
fn unused(v: f32) -> f32 { return v * 3.0; }
@compute @workgroup_size(4)
fn main(@builtin(local_invocation_index) lane: u32) {
    let first = lane % 2u;
    var sum = 0.0;
    for (var k = first; k < 8u; k += 2u) {
        if (k < 7u && !is_nan_f32(x[k])) { sum += x[k + 1u] * 0.5; }
    }
    part[lane] = sum - 1.0;
    workgroupBarrier();
    y[lane] = select(0.0, part[3u - lane], first == 0u);
}";

    #[test]
    fn every_kind_of_change_is_found_in_the_kernels_own_functions() {
        let all = mutants(KERNEL).expect("a kernel");
        let kinds: BTreeSet<Change> = all.iter().map(|m| m.change).collect();
        assert_eq!(kinds.len(), 16, "{kinds:?}");
        let ends = all.iter().find(|m| m.change == Change::EndsEarly).expect("there is a loop");
        assert_eq!((ends.text.as_str(), ends.name().as_str()), ("k + 2u < 8u", "ends a loop early at k"));
        for mutant in &all {
            let changed = mutant.apply(KERNEL);
            assert!(naga::front::wgsl::parse_str(&changed).is_ok(), "{mutant:?}");
            assert!(changed.contains("v - 1.0 > 2.0; }\nfn unused(v: f32) -> f32 { return v * 3.0; }"), "{mutant:?}");
        }
    }
}
