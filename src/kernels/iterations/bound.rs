//! Linear forms over unknown integers, and the largest value that one can have.

use std::{cell::Cell, collections::HashMap};

/// An unknown integer.
pub(super) type Atom = usize;

/// The steps that one search may take.
const FUEL: u32 = 500;

/// (offset + Σ factor · atom) / over.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Linear {
    offset: i128,
    /// By atom.
    terms: Vec<(Atom, i128)>,
    over: i128,
}

impl From<i128> for Linear {
    fn from(offset: i128) -> Self {
        Linear { offset, terms: Vec::new(), over: 1 }
    }
}

impl Linear {
    pub fn atom(atom: Atom) -> Self {
        Linear { offset: 0, terms: vec![(atom, 1)], over: 1 }
    }

    /// Returns the number that the form is, where it has no atom.
    pub fn known(&self) -> Option<i128> {
        (self.terms.is_empty() && self.over == 1).then_some(self.offset)
    }

    /// Returns whether the form is a whole number whatever its atoms are.
    pub fn is_whole(&self) -> bool {
        self.over == 1
    }

    /// Returns the numerator's factor of an atom.
    pub fn factor(&self, atom: Atom) -> i128 {
        self.terms.iter().find(|t| t.0 == atom).map_or(0, |t| t.1)
    }

    /// Returns self + other · by / over, or none where numbers become too large.
    pub fn plus(&self, other: &Linear, by: i128, over: i128) -> Option<Linear> {
        let (left, right) = (other.over.checked_mul(over)?, self.over);
        let by = by.checked_mul(right)?;
        let add = |a: i128, b: i128| a.checked_mul(left)?.checked_add(b.checked_mul(by)?);
        let mut terms = Vec::with_capacity(self.terms.len() + other.terms.len());
        let (mut a, mut b) = (self.terms.iter().peekable(), other.terms.iter().peekable());
        loop {
            let atom = match (a.peek(), b.peek()) {
                (Some(a), Some(b)) => a.0.min(b.0),
                (Some(one), None) | (None, Some(one)) => one.0,
                (None, None) => break,
            };
            let factor = |t: Option<&(Atom, i128)>| t.map_or(0, |t| t.1);
            let sum = add(factor(a.next_if(|t| t.0 == atom)), factor(b.next_if(|t| t.0 == atom)))?;
            if sum != 0 {
                terms.push((atom, sum));
            }
        }
        let mut all = Linear { offset: add(self.offset, other.offset)?, terms, over: left.checked_mul(right)? };
        let shared = all.terms.iter().fold(gcd(all.offset, all.over), |g, t| gcd(g, t.1));
        if shared > 1 {
            all.offset /= shared;
            all.over /= shared;
            all.terms.iter_mut().for_each(|t| t.1 /= shared);
        }
        Some(all)
    }

    pub fn shifted(&self, by: i128) -> Option<Linear> {
        self.plus(&by.into(), 1, 1)
    }

    /// Returns self · by / over.
    pub fn times(&self, by: i128, over: i128) -> Option<Linear> {
        Linear::from(0).plus(self, by, over)
    }

    /// Returns the form with an atom replaced.
    pub fn with(&self, atom: Atom, by: &Linear) -> Option<Linear> {
        let factor = self.factor(atom);
        self.plus(&Linear::atom(atom), -factor, self.over)?.plus(by, factor, self.over)
    }
}

fn gcd(a: i128, b: i128) -> i128 {
    if b == 0 { a.abs() } else { gcd(b, a % b) }
}

/// What is known of an atom.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub range: [i128; 2],
    /// Forms that it does not exceed.
    pub uppers: Vec<Linear>,
    /// Forms below which it does not lie.
    pub lowers: Vec<Linear>,
    /// Two forms one of which it is, each with what is at least 0 then.
    pub choice: Option<[(Linear, Vec<Linear>); 2]>,
}

/// An operation that makes an atom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Made {
    Product,
    Quotient,
    Remainder,
    Smaller,
    Larger,
}

/// All atoms.
#[derive(Debug, Default)]
pub(super) struct Atoms {
    pub known: Vec<Known>,
    made: HashMap<(Made, Linear, Linear), Atom>,
}

impl Atoms {
    pub fn new_atom(&mut self, known: Known) -> Linear {
        self.known.push(known);
        Linear::atom(self.known.len() - 1)
    }

    /// Returns an atom of which nothing but its range is known.
    pub fn any(&mut self, range: [i128; 2]) -> Linear {
        if range[0] == range[1] {
            return range[0].into();
        }
        self.new_atom(Known { range, uppers: Vec::new(), lowers: Vec::new(), choice: None })
    }

    /// Returns what an operation makes of two forms: always the same atom.
    pub fn make(&mut self, made: Made, [a, b]: [&Linear; 2], known: impl FnOnce() -> Option<Known>) -> Option<Linear> {
        let key = (made, a.clone(), b.clone());
        if let Some(&atom) = self.made.get(&key) {
            return Some(Linear::atom(atom));
        }
        let new = self.new_atom(known()?);
        self.made.insert(key, self.known.len() - 1);
        Some(new)
    }

    /// Returns the range of a form by the ranges of its atoms.
    pub fn range(&self, form: &Linear) -> [i128; 2] {
        let mut ends = [form.offset; 2];
        for &(atom, factor) in &form.terms {
            let [lo, hi] = self.known.get(atom).map_or([i128::MIN / 4, i128::MAX / 4], |k| k.range);
            let (a, b) = (factor.saturating_mul(lo), factor.saturating_mul(hi));
            ends = [ends[0].saturating_add(a.min(b)), ends[1].saturating_add(a.max(b))];
        }
        // Whole numbers lie between.
        [-(-ends[0]).div_euclid(form.over), ends[1].div_euclid(form.over)]
    }

    /// Returns a number that a form does not exceed where the facts are at least 0.
    pub fn upper(&self, form: &Linear, facts: &[Linear]) -> i128 {
        self.search(form, &mut facts.to_vec(), &Cell::new(FUEL))
    }

    /// Returns a number below which a form does not lie where the facts are at least 0.
    pub fn lower(&self, form: &Linear, facts: &[Linear]) -> i128 {
        form.times(-1, 1).map_or(i128::MIN, |form| self.upper(&form, facts).saturating_neg())
    }

    /// Replaces the newest atom by what bounds it, all ways in turn: bounds are of older atoms mostly.
    fn search(&self, form: &Linear, facts: &mut Vec<Linear>, fuel: &Cell<u32>) -> i128 {
        let mut best = self.range(form)[1];
        let Some(&(atom, factor)) = form.terms.last() else { return best };
        let Some(known) = self.known.get(atom).filter(|_| fuel.get() > 0) else { return best };
        fuel.set(fuel.get() - 1);
        let mut next = |form: Option<Linear>, facts: &mut Vec<Linear>| {
            best = best.min(form.map_or(i128::MAX, |form| self.search(&form, facts, fuel)));
        };
        for bound in if factor > 0 { &known.uppers } else { &known.lowers } {
            next(form.with(atom, bound), facts);
        }
        for i in 0..facts.len() {
            let other = facts[i].factor(atom);
            if other.signum() == -factor.signum() {
                // What is at least 0 may be added as often as one likes.
                next(form.plus(&facts[i], facts[i].over * factor.abs(), form.over * other.abs()), facts);
            }
        }
        next(form.with(atom, &known.range[usize::from(factor > 0)].into()), facts);
        if let Some(choice) = &known.choice {
            let depth = facts.len();
            let most = choice.iter().map(|(value, when)| {
                facts.extend(when.iter().cloned());
                let most = form.with(atom, value).map_or(i128::MAX, |form| self.search(&form, facts, fuel));
                facts.truncate(depth);
                most
            });
            best = best.min(most.max().unwrap_or(i128::MAX));
        }
        best
    }
}
