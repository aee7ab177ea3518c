//! What is known of WGSL expressions: integers as linear forms, truths as what is at least 0 then.

use super::bound::{Atoms, Known, Linear, Made};
use naga::{BinaryOperator as Op, Scalar, ScalarKind};

/// What is known of an expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// An integer, and the range of its type.
    Int(Linear, [i128; 2]),
    Truth(Truth),
    Vector(Vec<Value>),
    Unknown,
}

/// A condition: whether it holds, if that is known, and what is at least 0 where it does not hold and where it does.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Truth {
    pub known: Option<bool>,
    pub facts: [Vec<Linear>; 2],
}

impl From<bool> for Truth {
    fn from(known: bool) -> Self {
        Truth { known: Some(known), facts: Default::default() }
    }
}

impl Truth {
    pub fn not(self) -> Truth {
        let [a, b] = self.facts;
        Truth { known: self.known.map(|k| !k), facts: [b, a] }
    }

    pub fn and(self, other: Truth) -> Truth {
        match (self.known, other.known) {
            (Some(false), _) | (_, Some(true)) => self,
            (_, Some(false)) | (Some(true), _) => other,
            _ => {
                let both = self.facts.into_iter().zip(other.facts).nth(1);
                let both = both.map(|(a, b)| [a, b].concat()).unwrap_or_default();
                Truth { known: None, facts: [Vec::new(), both] }
            }
        }
    }

    fn or(self, other: Truth) -> Truth {
        self.not().and(other.not()).not()
    }

    /// Returns what is at least 0 where the condition has this value.
    pub fn facts_where(&self, holds: bool) -> &[Linear] {
        let [no, yes] = &self.facts;
        if holds { yes } else { no }
    }
}

/// Returns the range of an integer type.
pub(super) fn range_of(scalar: Scalar) -> Option<[i128; 2]> {
    let bits = u32::from(scalar.width) * 8;
    match scalar.kind {
        ScalarKind::Uint if bits <= 64 => Some([0, (1 << bits) - 1]),
        ScalarKind::Sint | ScalarKind::AbstractInt if (1..=64).contains(&bits) => {
            Some([-(1 << (bits - 1)), (1 << (bits - 1)) - 1])
        }
        _ => None,
    }
}

/// Returns what `f` makes of a value, of a vector by component.
pub(super) fn map(value: Value, f: &mut dyn FnMut(Value) -> Value) -> Value {
    match value {
        Value::Vector(all) => Value::Vector(all.into_iter().map(|v| map(v, f)).collect()),
        one => f(one),
    }
}

/// Returns what `f` makes of two values, of vectors by component.
pub(super) fn zip(a: Value, b: Value, f: &mut dyn FnMut(Value, Value) -> Value) -> Value {
    match (a, b) {
        (Value::Vector(a), Value::Vector(b)) => {
            Value::Vector(a.into_iter().zip(b).map(|(a, b)| zip(a, b, f)).collect())
        }
        (Value::Vector(_), _) | (_, Value::Vector(_)) => Value::Unknown,
        (a, b) => f(a, b),
    }
}

/// The arithmetic of values: atoms, and what is at least 0 at the place that is looked at.
#[derive(Debug, Default)]
pub(super) struct Arithmetic {
    pub atoms: Atoms,
    pub facts: Vec<Linear>,
}

impl Arithmetic {
    /// Returns an integer of which nothing is known.
    pub fn any(&mut self, range: [i128; 2]) -> Value {
        Value::Int(self.atoms.any(range), range)
    }

    /// Returns a form as an integer of its type: unknown, where it may wrap round.
    pub fn fit(&mut self, form: Option<Linear>, range: [i128; 2]) -> Value {
        let Some(form) = form else { return self.any(range) };
        let [lo, hi] = self.atoms.range(&form);
        let fits = (lo >= range[0] || self.atoms.lower(&form, &self.facts) >= range[0])
            && (hi <= range[1] || self.atoms.upper(&form, &self.facts) <= range[1]);
        if fits { Value::Int(form, range) } else { self.any(range) }
    }

    /// Returns a value in the range that it has here.
    pub fn here(&mut self, value: Value) -> Value {
        let (atoms, facts) = (&mut self.atoms, &self.facts);
        map(value, &mut |value| match value {
            Value::Int(form, range) if !facts.is_empty() && form.known().is_none() => {
                let range_of = [atoms.lower(&form, facts), atoms.upper(&form, facts)];
                let same = vec![form];
                let known = Known { range: range_of, uppers: same.clone(), lowers: same, choice: None };
                Value::Int(atoms.new_atom(known), range)
            }
            other => other,
        })
    }

    /// Returns the operator's result.
    pub fn binary(&mut self, op: Op, a: Value, b: Value) -> Value {
        zip(a, b, &mut |a, b| match (a, b) {
            (Value::Truth(a), Value::Truth(b)) => match op {
                Op::LogicalAnd | Op::And => Value::Truth(a.and(b)),
                Op::LogicalOr | Op::InclusiveOr => Value::Truth(a.or(b)),
                _ => Value::Truth(Truth::default()),
            },
            (Value::Int(a, range), Value::Int(b, _)) => self.integers(op, [&a, &b], range),
            (Value::Int(a, range), Value::Unknown) => {
                let b = self.atoms.any(range);
                self.integers(op, [&a, &b], range)
            }
            (Value::Unknown, Value::Int(b, range)) => {
                let a = self.atoms.any(range);
                self.integers(op, [&a, &b], range)
            }
            _ if matches!(op, Op::Less | Op::LessEqual | Op::Greater | Op::GreaterEqual | Op::Equal | Op::NotEqual) => {
                Value::Truth(Truth::default())
            }
            _ => Value::Unknown,
        })
    }

    fn integers(&mut self, op: Op, [a, b]: [&Linear; 2], range: [i128; 2]) -> Value {
        let power = |by: &Linear| by.known().and_then(|by| 1i128.checked_shl(u32::try_from(by).ok()?));
        let bits = |hi: i128| (1i128 << (128 - hi.max(0).leading_zeros()).min(126)) - 1;
        let ([a_lo, a_hi], [b_lo, b_hi]) = (self.atoms.range(a), self.atoms.range(b));
        let positive = a_lo >= 0 && b_lo >= 0;
        match op {
            Op::Add => self.fit(a.plus(b, 1, 1), range),
            Op::Subtract => self.fit(a.plus(b, -1, 1), range),
            Op::Multiply => self.product([a, b], range),
            Op::ShiftLeft => match power(b) {
                Some(power) => self.product([a, &power.into()], range),
                None => self.any(range),
            },
            Op::Divide => self.quotient([a, b], range),
            Op::ShiftRight => match power(b) {
                Some(power) if a_lo >= 0 => self.quotient([a, &power.into()], range),
                _ if a_lo >= 0 => Value::Int(self.atoms.any([0, a_hi]), range),
                _ => self.any(range),
            },
            Op::Modulo if positive && b_lo > a_hi => Value::Int(a.clone(), range),
            Op::Modulo if positive && b_lo > 0 => {
                let less = b.shifted(-1).into_iter().chain([a.clone()]).collect();
                let range_of = [0, a_hi.min(b_hi - 1)];
                let known = || Some(Known { range: range_of, uppers: less, lowers: Vec::new(), choice: None });
                self.made(Made::Remainder, [a, b], known, range)
            }
            Op::Modulo if b_lo > 0 => Value::Int(self.atoms.any([1 - b_hi, b_hi - 1]), range),
            Op::And if positive => Value::Int(self.atoms.any([0, a_hi.min(b_hi)]), range),
            Op::And if b_lo >= 0 => Value::Int(self.atoms.any([0, b_hi]), range),
            Op::InclusiveOr | Op::ExclusiveOr if positive => {
                Value::Int(self.atoms.any([0, bits(a_hi.max(b_hi))]), range)
            }
            Op::Less => self.less(a, b, 1),
            Op::LessEqual => self.less(a, b, 0),
            Op::Greater => self.less(b, a, 1),
            Op::GreaterEqual => self.less(b, a, 0),
            Op::Equal | Op::NotEqual => {
                let equal = self.equal(a, b);
                Value::Truth(if op == Op::Equal { equal } else { equal.not() })
            }
            _ => self.any(range),
        }
    }

    fn made(
        &mut self,
        made: Made,
        operands: [&Linear; 2],
        known: impl FnOnce() -> Option<Known>,
        range: [i128; 2],
    ) -> Value {
        let form = self.atoms.make(made, operands, known);
        self.fit(form, range)
    }

    fn product(&mut self, [a, b]: [&Linear; 2], range: [i128; 2]) -> Value {
        if let Some((form, by)) = b.known().map(|by| (a, by)).or(a.known().map(|by| (b, by))) {
            return self.fit(form.times(by, 1), range);
        }
        let (of_a, of_b) = (self.atoms.range(a), self.atoms.range(b));
        let known = || {
            let all = of_a.map(|a| of_b.map(|b| a.saturating_mul(b))).concat();
            let (lo, hi) = all.iter().fold((i128::MAX, i128::MIN), |(lo, hi), &p| (lo.min(p), hi.max(p)));
            Some(Known { range: [lo, hi], uppers: Vec::new(), lowers: Vec::new(), choice: None })
        };
        self.made(Made::Product, [a, b], known, range)
    }

    fn quotient(&mut self, [a, b]: [&Linear; 2], range: [i128; 2]) -> Value {
        let ([lo, hi], [b_lo, b_hi]) = (self.atoms.range(a), self.atoms.range(b));
        if b_lo <= 0 {
            return self.any(range);
        }
        if let Some(exact) = b.known().and_then(|by| a.times(1, by)).filter(|exact| exact.is_whole()) {
            return Value::Int(exact, range);
        }
        if let (Some(a), Some(b)) = (a.known(), b.known()) {
            return Value::Int((a / b).into(), range);
        }
        // Quotients are cut towards 0.
        let range_of = [if lo < 0 { lo / b_lo } else { lo / b_hi }, if hi < 0 { hi / b_hi } else { hi / b_lo }];
        let known = || {
            let part = |shift: i128| b.known().and_then(|by| a.shifted(shift * (by - 1))?.times(1, by));
            let (uppers, lowers) = (part(i128::from(lo < 0)), part(-1));
            Some(Known {
                range: range_of,
                uppers: uppers.into_iter().collect(),
                lowers: lowers.into_iter().collect(),
                choice: None,
            })
        };
        self.made(Made::Quotient, [a, b], known, range)
    }

    /// Returns a + by ≤ b.
    fn less(&mut self, a: &Linear, b: &Linear, by: i128) -> Value {
        let mut truth = Truth::default();
        if let Some(rest) = b.plus(a, -1, 1) {
            let [lo, hi] = self.atoms.range(&rest);
            truth.known = if lo >= by { Some(true) } else { (hi < by).then_some(false) };
            let no = rest.times(-1, 1).and_then(|r| r.shifted(by - 1));
            truth.facts = [no.into_iter().collect(), rest.shifted(-by).into_iter().collect()];
        }
        Value::Truth(truth)
    }

    fn equal(&mut self, a: &Linear, b: &Linear) -> Truth {
        let Some(rest) = b.plus(a, -1, 1) else { return Truth::default() };
        let [lo, hi] = self.atoms.range(&rest);
        let known = if lo > 0 || hi < 0 { Some(false) } else { (rest.known() == Some(0)).then_some(true) };
        Truth { known, facts: [Vec::new(), rest.times(-1, 1).into_iter().chain([rest]).collect()] }
    }

    /// Returns the smaller or the larger of two values.
    pub fn extreme(&mut self, larger: bool, a: Value, b: Value) -> Value {
        zip(a, b, &mut |a, b| {
            let (a, b, range) = match (a, b) {
                (Value::Int(a, range), Value::Int(b, _)) => (a, b, range),
                (Value::Int(a, range), Value::Unknown) | (Value::Unknown, Value::Int(a, range)) => {
                    (a, self.atoms.any(range), range)
                }
                _ => return Value::Unknown,
            };
            let ([a_lo, a_hi], [b_lo, b_hi]) = (self.atoms.range(&a), self.atoms.range(&b));
            if a == b || (if larger { b_lo >= a_hi } else { b_hi <= a_lo }) {
                return Value::Int(b, range);
            }
            if if larger { a_lo >= b_hi } else { a_hi <= b_lo } {
                return Value::Int(a, range);
            }
            let bounds = vec![a.clone(), b.clone()];
            let rest = |x: &Linear, y: &Linear| x.plus(y, -1, 1).into_iter().collect();
            let choice = match larger {
                true => [(a.clone(), rest(&a, &b)), (b.clone(), rest(&b, &a))],
                false => [(a.clone(), rest(&b, &a)), (b.clone(), rest(&a, &b))],
            };
            let (made, ends, [uppers, lowers]) = match larger {
                true => (Made::Larger, [a_lo.max(b_lo), a_hi.max(b_hi)], [Vec::new(), bounds]),
                false => (Made::Smaller, [a_lo.min(b_lo), a_hi.min(b_hi)], [bounds, Vec::new()]),
            };
            let known = Known { range: ends, uppers, lowers, choice: Some(choice) };
            self.made(made, [&a, &b], || Some(known), range)
        })
    }

    /// Returns `yes` where the condition holds, else `no`.
    pub fn select(&mut self, truth: &Truth, yes: Value, no: Value) -> Value {
        match (truth.known, yes, no) {
            (Some(true), yes, _) => yes,
            (Some(false), _, no) => no,
            (_, yes, no) if yes == no => yes,
            (_, Value::Vector(yes), Value::Vector(no)) => {
                Value::Vector(yes.into_iter().zip(no).map(|(yes, no)| self.select(truth, yes, no)).collect())
            }
            (_, Value::Truth(yes), Value::Truth(no)) => match (yes.known, no.known) {
                (_, Some(false)) => Value::Truth(truth.clone().and(yes)),
                (Some(true), _) => Value::Truth(truth.clone().or(no)),
                (Some(false), _) => Value::Truth(truth.clone().not().and(no)),
                (_, Some(true)) => Value::Truth(truth.clone().not().or(yes)),
                _ => Value::Truth(Truth::default()),
            },
            (_, Value::Int(yes, range), Value::Int(no, _)) => {
                let ([a, b], [c, d]) = (self.atoms.range(&yes), self.atoms.range(&no));
                let [when_not, when] = truth.facts.clone();
                let choice = Some([(yes, when), (no, when_not)]);
                let known = Known { range: [a.min(c), b.max(d)], uppers: Vec::new(), lowers: Vec::new(), choice };
                Value::Int(self.atoms.new_atom(known), range)
            }
            (_, Value::Int(_, range), _) | (_, _, Value::Int(_, range)) => self.any(range),
            _ => Value::Unknown,
        }
    }
}
