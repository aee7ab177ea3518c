//! One operand of a product on its way from memory through registers into workgroup memory, chunk after chunk.

use super::layout::{depth, lanes, per, pitch};
use super::periodic::Periodic;
use super::product::{Bound, Cursor, Loop, Operand, Product};
use crate::kernels::{
    Schedule,
    language::{Buffer, Expr, Kernel, Loaded, Type},
};

pub(super) const VEC4: Type = Type { width: 4, ..Type::F32 };

/// The vectors that a lane keeps of what prologues read of indices alone, at most.
const MAX_EXTRA_VECTORS: usize = 8;

/// The names of where ranges of terms begin, and of how long they are.
const RANGES: [[&str; 2]; 2] = [["from0", "length0"], ["from1", "length1"]];

/// One operand on its way through workgroup memory.
pub(super) struct Side<'p, 'a> {
    pub(super) operand: &'p Operand<'a>,
    buffer: &'p Buffer,
    loaded: Option<&'p Loaded>,
    name: &'static str,
    /// Whether vectors are of terms.
    pub(super) of_terms: bool,
    /// Whether an invocation stages vectors of one term, which then is found once for both sides.
    of_one_term: bool,
    /// Vectors of indices in the tile, and of an invocation.
    pub(super) vectors: usize,
    pub(super) per: usize,
    pub(super) staged: Buffer,
    /// The indices of the vectors that an invocation stages: of each one, or, where they are all the same, of the first. Of indices that
    /// lie in memory as a vector the first.
    pub(super) cursors: Vec<Vec<Cursor>>,
    /// Where what is loaded is stored too: whether the tile is the first of those that load it.
    is_first: Option<Expr>,
    /// The first term in a chunk of an invocation, and the vector of terms that it is in.
    first_term: Expr,
    first_vector: Expr,
}

/// Loops whose terms are one run, which is cut into chunks.
pub(super) struct Run<'r> {
    pub(super) end: &'r Expr,
    /// Whether no chunk goes past the end.
    pub(super) full: bool,
    pub(super) loops: &'r [Loop],
    /// Their iterations.
    pub(super) counts: &'r [Expr],
    /// The variables of the loops around them.
    pub(super) vars: &'r [Expr],
    /// The registers of chunks on their way, of rows and of columns.
    pub(super) next: Vec<[Vec<Vec<Expr>>; 2]>,
    /// Where an invocation stages its first vector of rows and of columns, and where it reads them first.
    pub(super) staged: [Expr; 2],
    pub(super) firsts: [Expr; 2],
}

impl Run<'_> {
    /// Returns whether the loops are all there are.
    pub(super) fn is_all(&self) -> bool {
        self.vars.iter().all(|var| var.known() == Some(0))
    }
}

/// The terms of a chunk.
pub(super) struct Terms<'t> {
    pub(super) chunk: &'t Expr,
    /// Its number among those on their way into registers.
    pub(super) n: usize,
    /// Whether it does not go past the end.
    pub(super) full: bool,
    /// Whether it is to be loaded: if not, it is 0.
    pub(super) there: Expr,
    pub(super) run: &'t Run<'t>,
}

impl Terms<'_> {
    /// Returns whether the chunk is one run of the innermost loop: then the other loops' variables are the same for all lanes.
    fn is_one_run(&self, tile: Schedule) -> bool {
        let innermost = self.run.counts.last().and_then(Expr::known);
        let always = self.run.full && innermost.is_some_and(|n| (n as usize).is_multiple_of(depth(tile)));
        always || (self.full && self.run.loops.len() == 1)
    }

    /// Returns the variables of all loops at a term.
    fn at(&self, term: &Expr) -> Vec<Expr> {
        let mut rest = term.clone();
        let mut values = Vec::new();
        for (level, (l, count)) in self.run.loops.iter().zip(self.run.counts).enumerate().rev() {
            let iteration = if level == 0 { rest.clone() } else { &rest % count };
            let from = l.from.clone().unwrap_or(0u32.into());
            values.push(from + iteration * l.step);
            rest = rest / count;
        }
        values.extend(self.run.vars.iter().rev().cloned());
        values.reverse();
        values
    }
}

impl<'p, 'a> Side<'p, 'a> {
    /// Returns a side whose first index is `first`, and the other side's `others`. Past the end, indices are the last one again: it is read, and not stored.
    pub(super) fn new(
        k: &mut Kernel,
        (product, io): (&'p Product<'a>, &'p Bound),
        i: usize,
        tile: Schedule,
        [first, others]: [&Expr; 2],
    ) -> Self {
        let (operand, buffer) = ([&product.rows, &product.columns][i], [&io.rows, &io.columns][i]);
        let (name, vectors) = (["a", "b"][i], [tile.m, tile.n][i] / 4);
        let of_terms = product.of_terms(tile)[i];
        let size = if of_terms { 4 * vectors * pitch(tile) } else { depth(tile) * (vectors + 1) };
        let mut side = Side {
            operand,
            buffer,
            loaded: io.loaded[i].as_ref(),
            name,
            of_terms,
            of_one_term: product.rows.width() == 4 && product.columns.width() == 4,
            vectors,
            per: per(tile)[i],
            staged: k.workgroup(format!("tile_{name}"), VEC4, size as u64),
            cursors: Vec::new(),
            is_first: None,
            first_term: 0u32.into(),
            first_vector: 0u32.into(),
        };
        let vector = side.place(k, tile, 0).0;
        side.first_vector = k.let_(format!("{name}_vector"), vector);
        side.first_term = k.let_(format!("{name}_term"), &side.first_vector * if of_terms { 4u32 } else { 1 });
        let kept = io.loaded[i].as_ref().and_then(Loaded::kept);
        side.is_first = kept.map(|_| k.let_(format!("first_of_{name}"), others.equals(0u32)));
        let extent = operand.extent.expr();
        for i in 0..if side.differ() { side.loads(tile) } else { 1 } {
            let (_, vector) = side.place(k, tile, i);
            let width = operand.width();
            let cursor = |j: usize| {
                let own = if of_terms { vector.clone() } else { side.index(&vector, j) };
                let own = first + own;
                let mut cursor = Cursor::new(k, format!("{name}{i}_{j}"), own.min(&extent - width as u32));
                if let Some(is_first) = &side.is_first {
                    cursor.set(k, "stores", is_first.and(own.less(&extent)));
                }
                side.read_extras(k, tile, &mut cursor);
                cursor
            };
            let cursors = (0..if of_terms { 1 } else { 4 / width }).map(cursor).collect();
            side.cursors.push(cursors);
        }
        side.enter(k, &[]);
        side.find_bases(k);
        side
    }

    /// Finds where each index lies, and there the first term of an invocation.
    fn find_bases(&mut self, k: &mut Kernel) {
        let (Some(apart), unit) = (&self.operand.apart, self.vector()) else { return };
        for cursor in self.cursors.iter_mut().flatten() {
            let index = (apart.index)(cursor, unit);
            cursor.set(k, "start", index);
            cursor.set(k, "base", cursor.get("start") + &self.first_term * &apart.step / unit);
            for (periodic, [from, length]) in apart.there.map_or(Vec::new(), |there| there(cursor)).iter().zip(RANGES) {
                cursor.set(k, from, periodic.fraction(&self.first_term) - periodic.fraction(&periodic.first));
                cursor.set(k, length, periodic.length());
            }
        }
    }

    /// Returns how many floats are loaded at once.
    fn vector(&self) -> usize {
        if self.of_terms { 4 } else { self.operand.width() }
    }

    /// Returns index `i` of those of an invocation whose first vector is `at`: component i % 4 of its vector i / 4.
    pub(super) fn index(&self, at: &Expr, i: usize) -> Expr {
        match self.operand.width() {
            _ if self.of_terms => at + i * (self.vectors / self.per),
            4 => at * 4u32 + (i / 4 * (self.vectors / self.per) * 4 + i % 4),
            _ => at + (i / 4 * (self.vectors / self.per) + i % 4 * self.vectors),
        }
    }

    /// Returns whether the vectors that an invocation stages are of different indices.
    fn differ(&self) -> bool {
        self.operand.along_terms || self.of_one_term
    }

    /// Returns how many vectors an invocation stages.
    fn loads(&self, tile: Schedule) -> usize {
        self.vectors * depth(tile) / lanes(tile)
    }

    /// Returns the term in the chunk and the vector that an invocation stages as its `i`th; of vectors of terms the vector and the index.
    pub(super) fn place(&self, k: &Kernel, tile: Schedule, i: usize) -> (Expr, Expr) {
        let (lane, [slow, fast]) = (k.lane(), self.step(tile).map(|step| i * step));
        if self.operand.along_terms {
            let per_row = depth(tile) / if self.of_terms { 4 } else { 1 };
            return (&lane % per_row + slow, lane / per_row + fast);
        }
        let per_row = if self.of_one_term { lanes(tile) / depth(tile) } else { self.vectors };
        (&lane / per_row + slow, lane % per_row + fast)
    }

    /// Returns how far it is from one [place](Self::place) of an invocation to the next.
    fn step(&self, tile: Schedule) -> [usize; 2] {
        let lanes = lanes(tile);
        match (self.operand.along_terms, self.of_one_term) {
            (true, _) => [0, lanes * if self.of_terms { 4 } else { 1 } / depth(tile)],
            (false, true) => [0, lanes / depth(tile)],
            (false, false) => [lanes / self.vectors, 0],
        }
    }

    /// Returns where the vector of a [place](Self::place) lies in workgroup memory.
    pub(super) fn at(&self, tile: Schedule, (slow, fast): (Expr, Expr)) -> Expr {
        match self.of_terms {
            true => fast * pitch(tile) + slow,
            // The vector more spreads the terms of an index over the banks.
            false => slow * (self.vectors + 1) + fast,
        }
    }

    pub(super) fn enter(&mut self, k: &mut Kernel, vars: &[Expr]) {
        self.cursors.iter_mut().flatten().for_each(|cursor| (self.operand.enter)(k, cursor, vars));
    }

    /// Declares the registers of what an invocation stages of one of the next chunks.
    pub(super) fn registers(&self, k: &mut Kernel, tile: Schedule, chunk: usize) -> Vec<Vec<Expr>> {
        let width = self.vector();
        let mut register =
            |i: usize, j: usize| k.unset(format!("{}{i}_next{chunk}_{j}", self.name), Type::F32.vector(width));
        (0..self.loads(tile)).map(|i| (0..4 / width).map(|j| register(i, j)).collect()).collect()
    }

    /// Loads what an invocation stages of a chunk into registers; past the last term it is 0.
    pub(super) fn load(&self, k: &mut Kernel, tile: Schedule, terms: &Terms, next: &[Vec<Expr>]) {
        for (i, next) in next.iter().enumerate() {
            let name = format!("{}{i}_{}", self.name, terms.n);
            // How many terms behind the first one of the invocation.
            let further = i * self.step(tile)[0];
            let term = k.let_(format!("{name}_t"), terms.chunk + (&self.first_term + further));
            let (here, there) = match terms.full {
                true => (term, terms.there.clone()),
                false => (term.min(terms.run.end - 1u32), k.let_(format!("{name}_there"), term.less(terms.run.end))),
            };
            let common = terms.is_one_run(tile).then(|| terms.at(&(terms.chunk + further)));
            let mut values = common.clone().unwrap_or_else(|| terms.at(&here));
            if common.is_some()
                && let Some(last) = values.last_mut()
            {
                *last = &*last + &self.first_term;
            }
            let vars: Vec<Expr> =
                (values.into_iter().zip(0..)).map(|(value, n)| k.let_(format!("{name}_var{n}"), value)).collect();
            let unit = self.vector();
            let cursors = &self.cursors[if self.differ() { i } else { 0 }];
            let linear = self.operand.apart.as_ref().filter(|a| a.of_all && terms.full && terms.run.is_all());
            let ranges = linear.and_then(|apart| apart.there).map(|there| there(&cursors[0]));
            let ranges: Option<Vec<Expr>> = ranges.map(|ranges| {
                let fraction = |(n, range): (usize, &Periodic)| {
                    k.let_(format!("{name}_fraction{n}"), range.fraction(&(terms.chunk + further)))
                };
                ranges.iter().enumerate().map(fraction).collect()
            });
            let apart = self.operand.apart.as_ref().map(|apart| {
                let (from, place) = match &common {
                    _ if linear.is_some() => ("base", (terms.chunk + further) * &apart.step / unit),
                    Some(common) => ("base", (apart.terms)(common, unit)),
                    None => ("start", (apart.terms)(&vars, unit)),
                };
                (from, k.let_(format!("{name}_terms"), place))
            });
            let term = match &common {
                Some(common) => common.last().map(|term| term / unit + &self.first_vector),
                None => vars.last().map(|term| term / unit),
            };
            let term = term.filter(|_| self.operand.along_terms);
            for (cursor, next) in cursors.iter().zip(next) {
                let mut cursor = cursor.renamed(&format!("{i}_{}", terms.n));
                for level in terms.run.vars.len() + 1..=vars.len() {
                    (self.operand.enter)(k, &mut cursor, &vars[..level]);
                }
                let (index, mut inside) = (self.operand.at)(&cursor, &vars);
                if let Some(ranges) = &ranges {
                    let inside_of =
                        |(at, [from, length]): (&Expr, [&str; 2])| (cursor.get(from) + at).less(cursor.get(length));
                    let all = ranges.iter().zip(RANGES).map(inside_of).reduce(|a, b| a.and(b));
                    inside = k.let_(format!("{}_there", cursor.name), all.unwrap_or(true.into()));
                }
                let place = match &apart {
                    Some((from, place)) => inside.select(cursor.get(from) + place, 0u32),
                    None => index / unit,
                };
                let value = self.value(k, &cursor, (&vars, term.as_ref()), (place, inside.and(&there)));
                k.set(next, value);
            }
        }
    }

    /// Returns what is loaded from a place, and computed of it; 0, where it is not `inside`.
    fn value(
        &self,
        k: &mut Kernel,
        cursor: &Cursor,
        (vars, term): (&[Expr], Option<&Expr>),
        (place, inside): (Expr, Expr),
    ) -> Expr {
        let Some(loaded) = self.loaded else { return self.buffer.guarded(&place, &inside, false) };
        let place = k.let_(format!("{}_place", cursor.name), place);
        let extras = self.extras(k, loaded, cursor, (vars, term));
        let mut value = loaded.apply(self.buffer.at(&place), &place, &extras);
        if let Some(kept) = loaded.kept() {
            value = k.let_(format!("{}_kept", cursor.name), value);
            let stores = cursor.get("stores").and(&inside);
            k.if_(stores, |k| k.store(kept, &place, &value));
        }
        inside.select(value, Type::F32.vector(self.vector()).zero())
    }

    /// Returns the number of the vector of channels of an element: of the innermost term, or of an index.
    fn column(&self, loaded: &Loaded, cursor: &Cursor, term: Option<&Expr>) -> Expr {
        match term {
            Some(term) => term.clone(),
            None if self.operand.extent.fixed == loaded.n_columns() as u64 => cursor.index() / self.vector(),
            None => cursor.index() % loaded.n_columns() / self.vector(),
        }
    }

    /// Reads what a prologue needs of an index alone, if a lane has registers for it.
    fn read_extras(&self, k: &mut Kernel, tile: Schedule, cursor: &mut Cursor) {
        let Some(loaded) = self.loaded else { return };
        if self.operand.along_terms {
            if let Some(first) = loaded.first_of_sample(cursor.index()) {
                cursor.set(k, "sample", first);
            }
            return;
        }
        let extras = loaded.at_column(&self.column(loaded, cursor, None), None);
        let vectors = if self.differ() { self.loads(tile) } else { 1 };
        if extras.iter().flatten().count() * vectors <= MAX_EXTRA_VECTORS {
            let read = |(n, extra): (usize, Option<Expr>)| extra.map(|e| k.let_(format!("{}_e{n}", cursor.name), e));
            cursor.extras = extras.into_iter().enumerate().map(read).collect();
        }
    }

    /// Returns what a prologue needs of the channel of an element, and of its sample.
    fn extras(
        &self,
        k: &mut Kernel,
        loaded: &Loaded,
        cursor: &Cursor,
        (vars, term): (&[Expr], Option<&Expr>),
    ) -> Vec<Expr> {
        let first = match vars.last().filter(|_| !self.operand.along_terms) {
            Some(pixel) => loaded.first_of_sample(pixel).map(|e| k.let_(format!("{}_sample", cursor.name), e)),
            None => Some(cursor.get("sample").clone()),
        };
        let read = cursor.extras.iter().cloned().chain(std::iter::repeat(None));
        let extras = loaded.at_column(&self.column(loaded, cursor, term), first.as_ref());
        extras.into_iter().zip(read).filter_map(|(extra, read)| read.or(extra)).collect()
    }

    /// Returns the place of the first vector of a lane, whose vectors in the tile are from `at` on, of the first term of its slice.
    pub(super) fn first_of_slice(&self, k: &mut Kernel, tile: Schedule, at: &Expr, slice: Option<&Expr>) -> Expr {
        let terms = slice.map_or(0u32.into(), |slice| slice * tile.k);
        let terms = if self.of_terms { terms / 4u32 } else { terms };
        k.let_(format!("first_{}", self.name), self.at(tile, (terms, at.clone())))
    }

    /// Reads what a lane multiplies of a term; of vectors of terms every four terms anew.
    pub(super) fn read(
        &self,
        k: &mut Kernel,
        tile: Schedule,
        (chunk, first, term): (usize, &Expr, usize),
        vectors: &mut Vec<Expr>,
    ) {
        let slow = if self.of_terms { term / 4 } else { term };
        let place = |i: usize| first + self.at(tile, (slow.into(), (i * (self.vectors / self.per)).into()));
        if !self.of_terms || term.is_multiple_of(4) {
            let n = if self.of_terms { 4 * self.per } else { self.per };
            let load = |i: usize| k.let_(format!("{}{chunk}_{term}_{i}", self.name), self.staged.at(place(i)));
            *vectors = (0..n).map(load).collect();
        }
    }

    /// Returns the place of the first vector that an invocation stages.
    pub(super) fn first_staged(&self, k: &mut Kernel, tile: Schedule) -> Expr {
        let place = self.place(k, tile, 0);
        k.let_(format!("staged_{}", self.name), self.at(tile, place))
    }

    pub(super) fn stage(&self, k: &mut Kernel, tile: Schedule, first: &Expr, values: &[Vec<Expr>]) {
        for (i, value) in values.iter().enumerate() {
            let [slow, fast] = self.step(tile).map(|step| Expr::from(i * step));
            k.store(&self.staged, first + self.at(tile, (slow, fast)), Expr::vector(value.clone()));
        }
    }
}
