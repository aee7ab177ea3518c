//! What is known of the expressions of a function, found when it is asked for.

use super::{
    bound::{Atom, Linear},
    value::{Arithmetic, Truth, Value, map, range_of},
};
use crate::graph::{CHUNK_INDEX, Dispatch};
use naga::{
    BuiltIn, Expression, Function, Handle, Literal, LocalVariable, MathFunction, Module, Override, ScalarKind, Type,
    TypeInner, UnaryOperator,
};
use std::collections::HashMap;

/// How a variable changes in each pass of a loop, once.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// It grows by a number of this range, above 0.
    Up([i128; 2]),
    Down([i128; 2]),
    Over(i128),
}

/// A variable that counts the passes of a loop.
#[derive(Debug, Clone)]
pub(super) struct Counter {
    /// Its value in a pass.
    pub atom: Atom,
    pub first: Linear,
    pub range: [i128; 2],
    pub step: Step,
}

/// A loop that is being walked.
#[derive(Debug, Default)]
pub(super) struct Loop {
    pub counters: Vec<Counter>,
    pub passes: Option<u64>,
    /// Whether a pass may have ended before this place.
    pub continued: bool,
    /// Whether other loops lie before this place.
    pub looped: bool,
}

/// A function with its arguments.
pub(super) struct Frame<'m> {
    pub function: &'m Function,
    pub arguments: Vec<Value>,
    pub memo: HashMap<Handle<Expression>, Value>,
    pub locals: HashMap<Handle<LocalVariable>, Value>,
    pub returned: Vec<Value>,
    pub loops: Vec<Loop>,
    /// The calls so far, by their results.
    pub calls: HashMap<Handle<Expression>, (Handle<Function>, &'m [Handle<Expression>])>,
}

impl<'m> Frame<'m> {
    pub fn new(function: &'m Function, arguments: Vec<Value>) -> Self {
        let (memo, locals, returned, loops, calls) = Default::default();
        Frame { function, arguments, memo, locals, returned, loops, calls }
    }

    /// Returns the local variable that a pointer leads to, and whether to all of it.
    pub fn local(&self, mut pointer: Handle<Expression>) -> Option<(Handle<LocalVariable>, bool)> {
        let mut whole = true;
        loop {
            match self.function.expressions[pointer] {
                Expression::LocalVariable(variable) => return Some((variable, whole)),
                Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => {
                    (pointer, whole) = (base, false)
                }
                _ => return None,
            }
        }
    }
}

/// A kernel, its launch, and what is known of its values.
pub(super) struct Kernel<'m> {
    pub module: &'m Module,
    pub dispatch: &'m Dispatch,
    pub n: usize,
    pub groups: [u32; 2],
    pub arithmetic: Arithmetic,
}

impl<'m> Kernel<'m> {
    /// Returns a member of a uniform buffer whose value is known before the launch.
    fn uniform(&self, variable: &str, member: &str) -> Option<u64> {
        match (variable, member) {
            ("step", "n") => Some(self.n as u64),
            ("extents", CHUNK_INDEX) => None,
            ("extents", name) => self.dispatch.extents.iter().find(|e| e.0 == name).map(|e| u64::from(e.1)),
            _ => None,
        }
    }

    /// Returns what is known of an expression.
    pub fn value(&mut self, frame: &mut Frame<'m>, at: Handle<Expression>) -> Value {
        if let Some(value) = frame.memo.get(&at) {
            return value.clone();
        }
        let value = self.expression(frame, at);
        frame.memo.insert(at, value.clone());
        value
    }

    /// Returns what is known of a condition.
    pub fn truth(&mut self, frame: &mut Frame<'m>, at: Handle<Expression>) -> Truth {
        match self.value(frame, at) {
            Value::Truth(truth) => truth,
            _ => Truth::default(),
        }
    }

    fn expression(&mut self, frame: &mut Frame<'m>, at: Handle<Expression>) -> Value {
        match frame.function.expressions[at] {
            Expression::FunctionArgument(i) => frame.arguments.get(i as usize).cloned().unwrap_or(Value::Unknown),
            Expression::Load { pointer } => self.load(frame, pointer),
            Expression::AccessIndex { base, index } => match self.value(frame, base) {
                Value::Vector(all) => all.get(index as usize).cloned().unwrap_or(Value::Unknown),
                _ => Value::Unknown,
            },
            Expression::Unary { op, expr } => {
                let value = self.value(frame, expr);
                map(value, &mut |value| match (op, value) {
                    (UnaryOperator::LogicalNot, Value::Truth(truth)) => Value::Truth(truth.not()),
                    (UnaryOperator::Negate, Value::Int(form, range)) => self.arithmetic.fit(form.times(-1, 1), range),
                    (_, Value::Int(_, range)) => self.arithmetic.any(range),
                    _ => Value::Unknown,
                })
            }
            Expression::Binary { op, left, right } => {
                let (left, right) = (self.value(frame, left), self.value(frame, right));
                self.arithmetic.binary(op, left, right)
            }
            Expression::Select { condition, accept, reject } => {
                let truth = self.truth(frame, condition);
                let (accept, reject) = (self.value(frame, accept), self.value(frame, reject));
                self.arithmetic.select(&truth, accept, reject)
            }
            Expression::Math { fun, arg, arg1, arg2, .. } => {
                let mut of = |at: Option<Handle<Expression>>| at.map(|at| self.value(frame, at));
                match (fun, of(Some(arg)), of(arg1), of(arg2)) {
                    (MathFunction::Min, Some(a), Some(b), _) => self.arithmetic.extreme(false, a, b),
                    (MathFunction::Max, Some(a), Some(b), _) => self.arithmetic.extreme(true, a, b),
                    (MathFunction::Clamp, Some(a), Some(lo), Some(hi)) => {
                        let a = self.arithmetic.extreme(true, a, lo);
                        self.arithmetic.extreme(false, a, hi)
                    }
                    (_, Some(Value::Int(_, range)), ..) => self.arithmetic.any(range),
                    _ => Value::Unknown,
                }
            }
            Expression::As { expr, kind, convert } => {
                let range = range_of(naga::Scalar { kind, width: convert.unwrap_or(4) });
                let value = self.value(frame, expr);
                map(value, &mut |value| match (value, range) {
                    (Value::Int(form, _), Some(range)) => self.arithmetic.fit(Some(form), range),
                    (Value::Truth(truth), Some(range)) => {
                        let [yes, no] = [1, 0].map(|n: i128| Value::Int(n.into(), range));
                        self.arithmetic.select(&truth, yes, no)
                    }
                    (truth @ Value::Truth(_), None) if kind == ScalarKind::Bool => truth,
                    (_, Some(range)) => self.arithmetic.any(range),
                    _ => Value::Unknown,
                })
            }
            Expression::SubgroupOperationResult { ty } => self.unknown(ty),
            Expression::CallResult(_) => {
                let Some((function, arguments)) = frame.calls.get(&at).copied() else { return Value::Unknown };
                let values = arguments.iter().map(|&at| self.value(frame, at)).collect();
                // Functions with loops are walked where they are called.
                self.call(&self.module.functions[function], values).map_or(Value::Unknown, |(_, value)| value)
            }
            _ => {
                let expression = &frame.function.expressions[at];
                self.plain(expression, &mut |kernel, at| kernel.value(frame, at))
            }
        }
    }

    /// Returns what is known of an expression that may be outside functions.
    fn plain(&mut self, expression: &Expression, of: &mut dyn FnMut(&mut Self, Handle<Expression>) -> Value) -> Value {
        match *expression {
            Expression::Literal(literal) => match literal {
                Literal::Bool(known) => Value::Truth(known.into()),
                Literal::U32(n) => integer(n.into(), literal),
                Literal::I32(n) => integer(n.into(), literal),
                Literal::U64(n) => integer(n.into(), literal),
                Literal::I64(n) | Literal::AbstractInt(n) => integer(n.into(), literal),
                _ => Value::Unknown,
            },
            Expression::Constant(constant) => self.global(self.module.constants[constant].init),
            Expression::Override(constant) => self.constant(constant),
            Expression::ZeroValue(ty) => zero(&self.module.types[ty].inner),
            Expression::Compose { ref components, .. } => {
                let mut all = Vec::new();
                for &component in components {
                    match of(self, component) {
                        Value::Vector(inner) => all.extend(inner),
                        one => all.push(one),
                    }
                }
                Value::Vector(all)
            }
            Expression::Splat { size, value } => Value::Vector(vec![of(self, value); size as usize]),
            Expression::Swizzle { size, vector, pattern } => match of(self, vector) {
                Value::Vector(all) => {
                    let one = |i: &naga::SwizzleComponent| all.get(*i as usize).cloned().unwrap_or(Value::Unknown);
                    Value::Vector(pattern.iter().take(size as usize).map(one).collect())
                }
                _ => Value::Unknown,
            },
            Expression::Binary { op, left, right } => {
                let (left, right) = (of(self, left), of(self, right));
                self.arithmetic.binary(op, left, right)
            }
            _ => Value::Unknown,
        }
    }

    /// Returns what is known of an expression outside functions.
    pub fn global(&mut self, at: Handle<Expression>) -> Value {
        self.plain(&self.module.global_expressions[at], &mut |kernel, at| kernel.global(at))
    }

    fn constant(&mut self, constant: Handle<Override>) -> Value {
        let constant = &self.module.overrides[constant];
        let given = self.dispatch.constants.iter().find(|c| Some(c.0) == constant.name.as_deref()).map(|c| c.1);
        match (given, &self.module.types[constant.ty].inner) {
            (Some(given), TypeInner::Scalar(scalar)) if scalar.kind == ScalarKind::Bool => {
                Value::Truth((given != 0.0).into())
            }
            (Some(given), TypeInner::Scalar(scalar)) => {
                range_of(*scalar).map_or(Value::Unknown, |range| Value::Int((given as i128).into(), range))
            }
            _ => constant.init.map_or(Value::Unknown, |init| self.global(init)),
        }
    }

    /// Returns a value of a type of which nothing is known.
    fn unknown(&mut self, ty: Handle<Type>) -> Value {
        match self.module.types[ty].inner {
            TypeInner::Scalar(scalar) => range_of(scalar).map_or(Value::Unknown, |range| self.arithmetic.any(range)),
            TypeInner::Vector { size, scalar } => {
                let Some(range) = range_of(scalar) else { return Value::Unknown };
                Value::Vector((0..size as usize).map(|_| self.arithmetic.any(range)).collect())
            }
            _ => Value::Unknown,
        }
    }

    /// Returns what is known of what a pointer leads to.
    pub fn load(&mut self, frame: &mut Frame<'m>, pointer: Handle<Expression>) -> Value {
        let expressions = &frame.function.expressions;
        if let Some((local, whole)) = frame.local(pointer) {
            let value = self.local(frame, local);
            return match (value, &expressions[pointer]) {
                (value, _) if whole => value,
                (Value::Vector(all), Expression::AccessIndex { index, base })
                    if frame.local(*base) == Some((local, true)) =>
                {
                    all.get(*index as usize).cloned().unwrap_or(Value::Unknown)
                }
                _ => Value::Unknown,
            };
        }
        if let Expression::AccessIndex { base, index } = expressions[pointer]
            && let Expression::GlobalVariable(variable) = expressions[base]
        {
            let variable = &self.module.global_variables[variable];
            if let (TypeInner::Struct { members, .. }, Some(name)) =
                (&self.module.types[variable.ty].inner, &variable.name)
                && let Some(member) = members.get(index as usize)
            {
                let known = member.name.as_ref().and_then(|member| self.uniform(name, member));
                return match known {
                    Some(known) => Value::Int(i128::from(known).into(), [0, u32::MAX.into()]),
                    None => self.unknown(member.ty),
                };
            }
        }
        self.pointed(frame, pointer).map_or(Value::Unknown, |ty| self.unknown(ty))
    }

    /// Returns the type of what a pointer to a global variable leads to.
    fn pointed(&self, frame: &Frame<'m>, pointer: Handle<Expression>) -> Option<Handle<Type>> {
        let inner = |base| Some(&self.module.types[self.pointed(frame, base)?].inner);
        match frame.function.expressions[pointer] {
            Expression::GlobalVariable(variable) => Some(self.module.global_variables[variable].ty),
            Expression::Access { base, .. } => match inner(base)? {
                TypeInner::Array { base, .. } => Some(*base),
                _ => None,
            },
            Expression::AccessIndex { base, index } => match inner(base)? {
                TypeInner::Array { base, .. } => Some(*base),
                TypeInner::Struct { members, .. } => members.get(index as usize).map(|member| member.ty),
                _ => None,
            },
            _ => None,
        }
    }

    /// Returns what is known of a local variable here.
    pub fn local(&mut self, frame: &mut Frame<'m>, local: Handle<LocalVariable>) -> Value {
        match frame.locals.get(&local) {
            Some(value) => value.clone(),
            None => match frame.function.local_variables[local].init {
                None => zero(&self.module.types[frame.function.local_variables[local].ty].inner),
                Some(init) => self.value(frame, init),
            },
        }
    }

    /// Returns whether anything can be known of a local variable: integers and truths, and vectors of them.
    pub fn is_followed(&self, frame: &Frame<'m>, local: Handle<LocalVariable>) -> bool {
        match self.module.types[frame.function.local_variables[local].ty].inner {
            TypeInner::Scalar(scalar) | TypeInner::Vector { scalar, .. } => {
                scalar.kind == ScalarKind::Bool || range_of(scalar).is_some()
            }
            _ => false,
        }
    }

    /// Makes a local variable any value.
    pub fn forget(&mut self, frame: &mut Frame<'m>, local: Handle<LocalVariable>) {
        let value = self.unknown(frame.function.local_variables[local].ty);
        frame.locals.insert(local, value);
    }

    /// Returns what is known of an argument of the entry point.
    pub fn built_in(&mut self, built_in: BuiltIn, size: [i128; 3]) -> Value {
        let range = [0, u32::MAX.into()];
        let ids = |kernel: &mut Self, sizes: [i128; 3]| -> Vec<Value> {
            sizes.map(|n| Value::Int(kernel.arithmetic.atoms.any([0, n - 1]), range)).to_vec()
        };
        let groups = [self.groups[0].into(), self.groups[1].into(), 1];
        match built_in {
            BuiltIn::NumWorkGroups => Value::Vector(groups.map(|n| Value::Int(n.into(), range)).to_vec()),
            BuiltIn::WorkGroupId => Value::Vector(ids(self, groups)),
            BuiltIn::LocalInvocationId => Value::Vector(ids(self, size)),
            BuiltIn::GlobalInvocationId => Value::Vector(ids(self, [0, 1, 2].map(|i: usize| size[i] * groups[i]))),
            BuiltIn::LocalInvocationIndex => {
                Value::Int(self.arithmetic.atoms.any([0, size.iter().product::<i128>() - 1]), range)
            }
            _ => self.arithmetic.any(range),
        }
    }
}

fn integer(n: i128, literal: Literal) -> Value {
    range_of(literal.scalar()).map_or(Value::Unknown, |range| Value::Int(n.into(), range))
}

fn zero(ty: &TypeInner) -> Value {
    match *ty {
        TypeInner::Scalar(scalar) if scalar.kind == ScalarKind::Bool => Value::Truth(false.into()),
        TypeInner::Scalar(scalar) => range_of(scalar).map_or(Value::Unknown, |range| Value::Int(0.into(), range)),
        TypeInner::Vector { size, scalar } => Value::Vector(vec![zero(&TypeInner::Scalar(scalar)); size as usize]),
        _ => Value::Unknown,
    }
}
