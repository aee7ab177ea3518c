//! What a product is, and what all tile cores share: its loops, its loads and stores, its second launch.

use super::layout::lanes_of_slice;
use super::periodic::Periodic;
use crate::{
    graph::{Candidate, ColumnParts, DeviceClass, DeviceProfile, Dispatch, Epilogue, Grid, Prologue, Slot, SumKind},
    kernels::{
        Axis, Core, Schedule,
        column_parts::PartSums,
        language::{Buffer, Expr, Extent, Finish, Kernel, Layout, Loaded, Stored, Type, loop_end},
    },
    tensor::{Count, DType},
};

/// Iterations of loops that a part of a sum takes at least: partial sums that are added in turn round less than one long sum.
pub(super) const MIN_ITERATIONS: u64 = 16;

/// The sums of a lane up to which both sides are staged as vectors of terms.
const MAX_SUMS_OF_TERMS: usize = 32;

/// Up to this batch at least, sums are cut into parts so short that a driver does not end their loops.
pub const LONG_BATCH: usize = 128;

/// One level of the reduction, outermost first.
pub struct Loop {
    /// Name of the loop variable.
    pub var: &'static str,
    /// Its end.
    pub to: Extent,
    /// Its first value, where that is not 0.
    pub from: Option<Expr>,
    /// Its step.
    pub step: usize,
}

impl Loop {
    /// Returns a loop over `0..to`.
    pub fn new(var: &'static str, to: Extent) -> Self {
        Loop { var, to, from: None, step: 1 }
    }
}

/// An index of one side of a product, and what has been computed of it.
#[derive(Debug, Clone)]
pub struct Cursor {
    pub(super) name: String,
    pub(super) index: Expr,
    values: Vec<(&'static str, Expr)>,
    /// What a prologue reads of the index alone, where a lane has registers for it.
    pub(super) extras: Vec<Option<Expr>>,
}

impl Cursor {
    pub(super) fn new(k: &mut Kernel, name: String, index: Expr) -> Self {
        let index = k.let_(format!("{name}_i"), index);
        Cursor { name, index, values: Vec::new(), extras: Vec::new() }
    }

    /// Returns the cursor under another name, for values that are computed once more.
    pub(super) fn renamed(&self, suffix: &str) -> Self {
        Cursor { name: format!("{}_{suffix}", self.name), ..self.clone() }
    }

    /// Returns the index.
    pub fn index(&self) -> &Expr {
        &self.index
    }

    /// Computes a value once, under this name.
    pub fn set(&mut self, k: &mut Kernel, what: &'static str, value: Expr) {
        let value = k.let_(format!("{}_{what}", self.name), value);
        self.values.push((what, value));
    }

    /// Returns the value that was computed last under this name.
    pub fn get(&self, what: &str) -> &Expr {
        self.values.iter().rev().find(|(name, _)| *name == what).map_or(&self.index, |(_, value)| value)
    }
}

/// How one side of a product is read.
pub struct Operand<'a> {
    /// Name of the input.
    pub buffer: &'static str,
    /// Number of indices.
    pub extent: Extent,
    /// Computes what stays the same in the inner loops: called before the loops, without terms, and at the head of each loop, with
    /// the variables of the loops down to it.
    pub enter: &'a dyn Fn(&mut Kernel, &mut Cursor, &[Expr]),
    /// Where the element for an index and the variables of all loops lies in memory, and whether it is there: if not, it is 0.
    pub at: &'a dyn Fn(&Cursor, &[Expr]) -> (Expr, Expr),
    /// The same place as a sum, where it is one.
    pub apart: Option<Apart<'a>>,
    /// How many neighbours in memory, 1, 2 or 4, start at a multiple of as many and are there together.
    pub run: usize,
    /// Whether neighbours in memory are neighbouring terms of the innermost loop, else neighbouring indices.
    pub along_terms: bool,
}

/// Where an element lies, as a sum of what depends on its index and of what depends on its terms. Both are counted in vectors of so
/// many floats as the last argument says, of which each is a multiple.
pub struct Apart<'a> {
    /// Of the index; before the loops.
    pub index: &'a dyn Fn(&Cursor, usize) -> Expr,
    /// Of the variables of all loops.
    pub terms: &'a dyn Fn(&[Expr], usize) -> Expr,
    /// How many floats neighbouring terms of the innermost loop are apart.
    pub step: Expr,
    /// Whether the terms of all loops, one after the other, are as far apart.
    pub of_all: bool,
    /// Then which of them are there, for an index: those that are in all of these; `None` where all are.
    pub there: Option<&'a dyn Fn(&Cursor) -> Vec<Periodic>>,
}

impl Operand<'_> {
    /// Returns how many neighbouring indices lie in memory as a vector.
    pub(super) fn width(&self) -> usize {
        if self.along_terms || self.run < 4 { 1 } else { 4 }
    }
}

/// Returns how many neighbours of rows of `n` start at a multiple of as many.
pub fn run(n: usize) -> usize {
    [4, 2].into_iter().find(|&run| n.is_multiple_of(run)).unwrap_or(1)
}

/// Where a row of the result lies, if not row after row: gets the row, returns its position and whether it is there.
pub type Position<'a> = &'a dyn Fn(&Expr) -> (Expr, Expr);

/// Where 0 is stored beside a row of the result: gets the row, returns positions and whether they are there.
pub type Zeros<'a> = &'a dyn Fn(&Expr) -> Vec<(Expr, Expr)>;

/// A product to generate a kernel for.
pub struct Product<'a> {
    /// Name of the kernel.
    pub name: &'static str,
    /// Independent products; operands find the number in [`Product::batch_index`].
    pub batch: Count,
    /// The rows of the result, input 0.
    pub rows: Operand<'a>,
    /// The columns of the result, input 1: contiguous, fixed in number.
    pub columns: Operand<'a>,
    /// The reduction, outermost first; the outermost can be split.
    pub loops: Vec<Loop>,
    /// Where rows lie.
    pub position: Option<Position<'a>>,
    /// Where rows of zeros lie.
    pub zeros: Option<Zeros<'a>>,
    /// Whether every row of the product is a row of the result, so that the reduction can be split.
    pub whole: bool,
    /// Whether output 1 is the sum of `columns` over the reduction.
    pub sums: bool,
}

impl Product<'_> {
    /// Returns which sides lie in workgroup memory as vectors of four terms: of so many indices as a lane has registers for.
    pub(super) fn of_terms(&self, s: Schedule) -> [bool; 2] {
        let can = |side: &Operand| s.smem[0] && side.along_terms && side.run == 4;
        [can(&self.rows), can(&self.columns) && s.m * s.n <= MAX_SUMS_OF_TERMS * lanes_of_slice(s)]
    }

    /// Returns whether vectors of terms are read of the rows, and any vectors of the columns.
    pub(super) fn is_of_vectors(&self) -> bool {
        self.rows.along_terms && self.rows.run == 4 && self.columns.run == 4
    }

    /// Returns the number of the product in the batch.
    pub fn batch_index() -> Expr {
        Expr::name("batch", Type::U32)
    }

    /// Returns the terms of a sum for a batch of `n`; where phases of strides have different ones, at most.
    pub(super) fn terms(&self, n: usize) -> f64 {
        self.loops.iter().map(|l| l.to.at(n).div_ceil(l.step as u64) as f64).product()
    }

    /// Returns the share of these terms that phases of strides have on average.
    pub(super) fn share(&self) -> f64 {
        let share = |l: &Loop| l.to.fixed as f64 / (l.step as u64 * l.to.fixed.div_ceil(l.step as u64)).max(1) as f64;
        self.loops.iter().filter(|l| l.from.is_some()).map(share).product()
    }

    /// Returns the number of tiles of so many rows and columns for a batch of `n`.
    pub(super) fn tiles(&self, size: [usize; 2], n: usize) -> u64 {
        let [rows, columns] = [self.rows.extent.at(n), self.columns.extent.at(n)];
        rows.div_ceil(size[0] as u64) * columns.div_ceil(size[1] as u64) * self.batch.at(n)
    }

    /// Returns how many values output 1 has.
    pub(super) fn n_sums(&self) -> u64 {
        if self.sums { self.columns.extent.fixed * self.batch.fixed } else { 0 }
    }

    /// Returns the elements of the result, and of output 1 behind them.
    pub(super) fn elements(&self) -> Count {
        let elements = count_product(*self.rows.extent, *self.columns.extent);
        let elements = count_product(elements, self.batch);
        Count { fixed: elements.fixed + self.n_sums(), ..elements }
    }

    /// Returns where a row's first column lies in y, and whether the row is there.
    pub(super) fn row(&self, row: &Expr, split: Option<&Expr>) -> (Expr, Expr) {
        let batch = if self.batch == one() { Expr::from(0u32) } else { Self::batch_index() };
        let (position, inside) = match self.position {
            Some(position) => position(row),
            None => (batch * self.rows.extent.expr() + row, Expr::from(true)),
        };
        let start = split.map_or(Expr::from(0u32), |split| split * elements_of(self.elements()));
        (start + position * self.columns.extent.expr(), inside)
    }

    /// Writes the zeros beside a row, in the vectors of so many columns that `columns` says, with whether they are there.
    pub(super) fn store_zeros(
        &self,
        k: &mut Kernel,
        y: &Buffer,
        name: &str,
        row: &Expr,
        columns: &[(&Expr, &Expr)],
        width: usize,
    ) {
        let zeros = self.zeros.map_or(Vec::new(), |zeros| zeros(row));
        for (n, (position, there)) in zeros.into_iter().enumerate() {
            k.if_(there, |k| {
                let start = k.let_(format!("zeros{name}_{n}"), position * self.columns.extent.expr());
                for (column, inside) in columns {
                    let zero = Type::F32.vector(width).zero();
                    k.if_(*inside, |k| k.store(y, (&start + *column) / width, zero));
                }
            });
        }
    }

    /// Returns the buffer of output 1 and where its values begin.
    pub(super) fn sums_at<'b>(&self, io: &'b Bound, split: Option<&Expr>) -> (&'b Buffer, Expr) {
        let first = Self::batch_index() * self.columns.extent.expr();
        match (&io.sums, split) {
            (Some(sums), None) => (sums, first),
            (_, split) => {
                let next = split.map_or(Expr::from(1u32), |split| split + 1u32);
                (&io.y, next * elements_of(self.elements()) - Expr::extent("n_sums", self.n_sums()) + first)
            }
        }
    }
}

/// Returns the elements of a result.
fn elements_of(elements: Count) -> Expr {
    Extent::new(["elements", "elements_per_sample"], elements).expr()
}

fn one() -> Count {
    Count { fixed: 1, per_sample: 0 }
}

/// What a tile core reads and writes.
pub(super) struct Bound {
    pub(super) rows: Buffer,
    pub(super) columns: Buffer,
    pub(super) y: Buffer,
    sums: Option<Buffer>,
    pub(super) finish: Finish,
    pub(super) parts: Option<PartSums>,
    /// What is applied to rows and columns as they are loaded.
    pub(super) loaded: [Option<Loaded>; 2],
}

/// Returns the column sums that a core is to leave, if it can: of rows that lie in one stack without others, or for plain sums in several.
pub(super) fn parts_of(product: &Product, epilogue: Option<&Epilogue>) -> Option<SumKind> {
    let Epilogue { sums, shape, .. } = epilogue?;
    let one_group = shape.last() as u64 == product.columns.extent.fixed && product.batch.per_sample == 0;
    let fits = |kind: &SumKind| *kind != SumKind::Moments || (product.batch == one() && product.zeros.is_none());
    sums.filter(|kind| one_group && !product.sums && fits(kind))
}

/// Returns the count of pairs of two counts, of which at most one grows with the batch.
pub fn count_product(a: Count, b: Count) -> Count {
    let fixed = a.fixed * b.fixed;
    Count { fixed, per_sample: a.per_sample * b.fixed + a.fixed * b.per_sample }
}

/// Returns the launches of a tile core with so many lanes, whose statements `write` adds to a kernel.
pub(super) fn candidate(
    product: &Product,
    schedule: Schedule,
    lanes: usize,
    profile: &DeviceProfile,
    epilogue: Option<&Epilogue>,
    write: impl FnOnce(&mut Kernel, &Bound),
) -> Candidate {
    let pairs = schedule.pairs;
    let columns = product.columns.extent.fixed;
    let (splits, split) = (schedule.split as u64, schedule.split > 1);
    let tile = of_workgroup(&schedule, lanes).map(|size| size as u64);
    let float = Layout::Scalars(DType::F32);
    let mut k = Kernel::new(product.name, lanes);
    let vectors = |width| if width > 1 { Layout::Vectors { width, words: false } } else { float };
    let of_terms = product.of_terms(schedule);
    let b = if schedule.smem[0] { product.columns.width() } else { 1 };
    let a = if schedule.smem[0] { product.rows.width() } else { 1 };
    let layout = |pairs, width| if pairs { Layout::Pairs } else { vectors(width) };
    let rows = k.bind(product.rows.buffer, layout(pairs[0], if of_terms[0] { 4 } else { a }), Slot::input(0));
    let columns_read =
        k.bind(product.columns.buffer, layout(pairs[1], if of_terms[1] { 4 } else { b }), Slot::input(1));
    let y = k.bind_result("y", vectors(b), if split { Slot::Scratch(0) } else { Slot::output(0) });
    let sums = (product.sums && !split).then(|| k.bind_result("sums", vectors(b), Slot::output(1)));
    let stored = Stored { width: b, words: false, columns };
    let finish = Finish::bind(&mut k, epilogue.filter(|_| !split), stored);
    let kind = parts_of(product, epilogue).filter(|_| schedule.core == Core::Shared && !split);
    let parts = kind.map(|kind| PartSums::bind(&mut k, kind, vectors(b)));
    let width = |side: usize, width: usize| if of_terms[side] { 4 } else { width };
    let prologues = epilogue.map_or(&[][..], |e| &e.prologues);
    let mut load = |side: usize, width: usize| {
        let prologue = prologues.iter().find(|p| p.input == side && schedule.core == Core::Shared);
        // Where channels are of one group, an index or a term is one.
        let columns = |p: &Prologue| if product.batch == one() { p.shape.last() as u64 } else { 0 };
        // Indices or terms of a product of matrices are pixels.
        let of_matrices = product.loops.len() == 1;
        prologue.map(|p| Loaded::bind(&mut k, p, Stored { width, words: false, columns: columns(p) }, of_matrices))
    };
    let loaded = [load(0, width(0, a)), load(1, width(1, b))];
    let applied = loaded.iter().flatten().count() == prologues.len();
    write(&mut k, &Bound { rows, columns: columns_read, y, sums, finish, parts, loaded });
    let main = k.launch(grid(product, tile, splits));
    let applies = |candidate: Candidate| Candidate { prologues: applied, ..candidate };
    if let Some(kind) = kind {
        let (rows, stacks) = (*product.rows.extent, product.batch.fixed);
        let [fixed, per_sample] = [rows.fixed, rows.per_sample].map(|n| n.div_ceil(tile[0]));
        let bytes = Count { fixed, per_sample }.times(4 * kind.n_values() as u64 * columns * stacks);
        let parts = ColumnParts { rows, rows_per_part: tile[0], stacks };
        let candidate = Candidate { parts: Some(parts), ..Candidate::new(schedule, vec![main], vec![bytes]) };
        return applies(candidate);
    }
    if !split {
        return applies(Candidate::single(schedule, main));
    }
    applies(split_sum(schedule, main, product.elements(), [columns, product.n_sums()], profile, epilogue))
}

/// Returns the rows and columns of a workgroup, whose lanes have a tile each.
pub(super) fn of_workgroup(s: &Schedule, lanes: usize) -> [usize; 2] {
    let along = |axis| if s.lanes == Some(axis) { lanes } else { 1 };
    [s.m * along(Axis::M), s.n * along(Axis::N)]
}

/// Returns the workgroups for tiles of so many rows and columns.
fn grid(product: &Product, tile: [u64; 2], splits: u64) -> Grid {
    let tiles = |extent: Count, size: u64| -> (Count, u64) {
        match extent.per_sample {
            0 => (Count { fixed: extent.fixed.div_ceil(size), per_sample: 0 }, 1),
            per_sample => (Count { fixed: size - 1, per_sample }, size),
        }
    };
    let (rows, a) = tiles(*product.rows.extent, tile[0]);
    let (columns, b) = tiles(*product.columns.extent, tile[1]);
    let all = count_product(count_product(rows, columns), product.batch).times(splits);
    Grid::new(all, (a * b) as u32)
}

/// Why cores decline a product or a window.
pub(super) const EIGHT_LANES: &str = "it needs subgroups of eight lanes, which software adapters have";
pub(super) const LONG_TEXT: &str = "its text would be too long for the driver's compiler";
pub(super) const FEW_CHANNELS: &str = "the result has fewer than eight channels, one for each lane";

/// Returns whether a workgroup of 8 is one subgroup on a processor: there a broadcast costs less than a load.
pub(super) fn has_eight_lanes(profile: &DeviceProfile) -> bool {
    profile.class == DeviceClass::Cpu && profile.subgroup_lanes == 8
}

/// Returns component `lane` of a value of the subgroup.
pub(super) fn broadcast(value: &Expr, lane: u64) -> Expr {
    Expr::call("subgroupBroadcast", value.ty(), [value.clone(), Expr::from(lane)])
}

/// Returns what the epilogue reads of the `n` columns from `first` on, which all lanes share, each extra's columns in turn; past the
/// end it is the last column, or with `pairs` the last one at an even or odd distance from `first`.
pub(super) fn shared_columns(
    k: &mut Kernel,
    finish: &Finish,
    (first, n): (&Expr, u64),
    columns: impl Into<Expr>,
    [subgroup, pairs]: [bool; 2],
) -> Vec<Vec<Expr>> {
    let columns = columns.into();
    let last = &columns - 1u32;
    let extra = |e: usize| -> Vec<Expr> {
        if !subgroup {
            let at = |c: u64| finish.column(e, (first + c).min(&last));
            return (0..n).map(|c| k.let_(format!("e{e}_{c}"), at(c))).collect();
        }
        let last = if pairs { (k.lane() & 1u32) + (&columns - 2u32) } else { last.clone() };
        let vector = |v: u64| (first + k.lane() + v * 8).min(&last);
        let vectors: Vec<Expr> = (0..n.div_ceil(8)).map(vector).collect();
        let vectors: Vec<Expr> = (vectors.iter().enumerate())
            .map(|(v, column)| k.let_(format!("v{e}_{v}"), finish.column(e, column)))
            .collect();
        (0..n).map(|c| k.let_(format!("e{e}_{c}"), broadcast(&vectors[c as usize / 8], c % 8))).collect()
    };
    (0..finish.n_columns()).map(extra).collect()
}

/// Most stores of a kernel's text: more of them are made by at most [`MAX_ITERATIONS`] iterations of a loop.
pub(super) const MAX_STORES: usize = 32;
/// Between how many sums an iteration of that loop chooses.
pub(super) const MAX_ITERATIONS: u64 = 8;

/// Writes the stores of sums, given by their numbers along the outer and the inner axis; `store` gets a name's suffix, the number
/// along the outer axis and the values along the inner one.
///
/// llvmpipe makes several blocks of a store, and its compiler takes quadratic time for blocks: many sums are stored by a
/// loop that chooses them, whose end the compiler does not know, else it would unroll it.
pub(in crate::kernels) fn store_sums(
    k: &mut Kernel,
    [outer, inner]: [usize; 2],
    sum: impl Fn(usize, usize) -> Expr,
    store: impl Fn(&mut Kernel, &str, &Expr, &[Expr]),
) {
    let iterations = if outer * inner <= MAX_STORES { 1 } else { outer.min(MAX_ITERATIONS as usize) };
    let each = outer.div_ceil(iterations);
    let iterations = outer.div_ceil(each);
    if iterations == 1 {
        for o in 0..outer {
            let values: Vec<Expr> = (0..inner).map(|i| sum(o, i)).collect();
            store(k, &o.to_string(), &Expr::from(o), &values);
        }
        return;
    }
    let end = k.let_("end_step", Expr::name("counts.z", Type::U32) * iterations);
    k.for_("slice", 0u32, end, 1, |k, slice| {
        let bits: Vec<Expr> = (0..iterations.next_power_of_two().ilog2())
            .map(|bit| k.let_(format!("slice_{bit}"), (slice & (1u32 << bit)).differs(0u32)))
            .collect();
        for o in 0..each {
            let at = k.let_(format!("o_{o}"), (slice * each + o).min(outer - 1));
            let chosen = |i: usize| {
                let all = (0..iterations).map(|slice| sum((slice * each + o).min(outer - 1), i)).collect();
                let halve = |level: Vec<Expr>, bit: &Expr| {
                    let one = |pair: &[Expr]| pair.get(1).map_or(pair[0].clone(), |b| bit.select(b, &pair[0]));
                    level.chunks(2).map(one).collect()
                };
                bits.iter().fold(all, halve).swap_remove(0)
            };
            let values: Vec<Expr> = (0..inner).map(|i| k.let_(format!("v_{o}_{i}"), chosen(i))).collect();
            store(k, &o.to_string(), &at, &values);
        }
    });
}

/// Returns a split reduction, of which `main` writes the parts into scratch 0: a second launch adds them in order. Of the result's
/// columns there are `columns`, and the last `sums` elements are output 1.
pub(in crate::kernels) fn split_sum(
    schedule: Schedule,
    main: Dispatch,
    elements: Count,
    [columns, sums]: [u64; 2],
    profile: &DeviceProfile,
    epilogue: Option<&Epilogue>,
) -> Candidate {
    let splits = schedule.split as u64;
    let float = Layout::Scalars(DType::F32);
    // Lanes that share an element, so that none of them adds more than 64 of up to 2,048 parts.
    let sharers = match profile.class {
        DeviceClass::Gpu if splits > 256 => 32,
        DeviceClass::Gpu if splits > 16 => 8,
        _ => 1,
    };
    let lanes = if sharers > 1 || profile.class == DeviceClass::Gpu { 256 } else { 64 };
    let per_group = (lanes / sharers) as u64;
    let mut k = Kernel::new("split_sum", lanes);
    let parts = k.bind("parts", float, Slot::Scratch(0));
    let y = k.bind_result("y", float, Slot::output(0));
    let sums_to = (sums > 0).then(|| k.bind_result("sums", float, Slot::output(1)));
    let finish = Finish::bind(&mut k, epilogue, Stored { width: 1, words: false, columns });
    let (i, all) = (k.let_("i", k.workgroup_index() * per_group + k.lane() % per_group), elements_of(elements));
    let sum = k.var("sum", 0.0);
    let end = loop_end(Expr::extent("splits", splits));
    if sharers == 1 {
        k.return_if(i.at_least(&all));
        k.for_("part", 0u32, end, 1, |k, part| k.add(&sum, parts.at(part * &all + &i)));
    } else {
        let of_lanes = k.workgroup("of_lanes", Type::F32, lanes as u64);
        let at = k.let_("at", i.min(&all - 1u32));
        let first = k.let_("first", k.lane() / per_group);
        k.for_("part", first, end, sharers, |k, part| k.add(&sum, parts.at(part * &all + &at)));
        let lane = k.lane();
        k.store(&of_lanes, &lane, &sum);
        k.barrier();
        k.return_if(lane.at_least(per_group).or(i.at_least(&all)));
        k.for_("sharer", 1u32, sharers as u32, 1, |k, sharer| k.add(&sum, of_lanes.at(sharer * per_group + &lane)));
    }
    let extras = finish.columns(&mut k, "0", &(&i % Expr::extent("columns", columns)));
    let value = finish.apply(&sum, &i, &extras);
    match sums_to {
        None => k.store(&y, &i, value),
        Some(sums_to) => {
            let before = Expr::extent("before_sums", elements.fixed - sums);
            k.if_(i.less(&before), |k| k.store(&y, &i, value));
            k.if_(i.at_least(&before), |k| k.store(&sums_to, &i - &before, &sum));
        }
    }
    Candidate::new(
        schedule,
        vec![main, k.launch(Grid::new(elements, per_group as u32))],
        vec![elements.times(4 * splits)],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_has_a_workgroup_for_every_tile_at_every_batch() {
        let count = |fixed, per_sample| Count { fixed, per_sample };
        let operand = |extent: Count| Operand {
            buffer: "x",
            extent: Extent::constant(extent),
            enter: &|_, _, _| {},
            at: &|cursor, _| (cursor.index().clone(), Expr::from(true)),
            apart: None,
            run: 1,
            along_terms: false,
        };
        let product = Product {
            name: "test",
            batch: count(1, 0),
            rows: operand(count(0, 7)),
            columns: operand(count(33, 0)),
            loops: vec![Loop::new("k", Extent::constant(count(5, 0)))],
            position: None,
            zeros: None,
            whole: true,
            sums: false,
        };
        for [rows, columns] in [[5, 16], [24, 4], [8, 33]] {
            let grid = grid(&product, [rows, columns], 1);
            for n in 1..20 {
                let [x, y] = grid.at(n, 65_535);
                assert!(u64::from(x * y) >= (7 * n as u64).div_ceil(rows) * 33u64.div_ceil(columns));
            }
        }
    }
}
