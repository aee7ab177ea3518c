//! The tile core for graphics processors: a workgroup stages chunks of both operands in workgroup memory and multiplies
//! them from there in registers.
//!
//! Indices of a side lie in workgroup memory as vectors of four. Where neighbouring indices are neighbours in memory, vector `v`,
//! component `j` is index `4 · v + j`, and lanes read and write vectors. Elsewhere it is index `v + j · vectors`, so that
//! neighbouring lanes read and write neighbouring elements of the tensors, and whole vectors of workgroup memory. Where neighbouring
//! terms are neighbours in memory, vectors are of four terms of an index.

use super::gpu;
use super::part_sums::{Parts, Tile};
use super::product::{Bound, Cursor, LONG_BATCH, Loop, Operand, Product, candidate, count_product};
use crate::{
    graph::{Candidate, DeviceProfile, Epilogue, NOMINAL_BATCH},
    kernels::{
        self, Schedule,
        cost::SHARED,
        language::{Buffer, Expr, Kernel, Loaded, Type, count, loop_end},
    },
    tensor::Count,
};

/// Chunks may be filled with zeros up to this much of their terms, before more loops become one.
const MAX_FILLED: f64 = 1.2;
/// Most schedules that are offered for a product.
const MAX_OFFERED: usize = 5;
/// The elements that a lane stages at most of a side whose elements have a place each.
const MAX_SCATTERED: usize = 8;
/// The sums of a lane that has few registers.
const MAX_FEW: usize = 32;

/// Returns the vectors of four rows and of four columns of each lane.
fn per(tile: Schedule) -> [usize; 2] {
    [tile.m, tile.n].map(|n| (n / 64).max(1))
}

pub(super) fn lanes(tile: Schedule) -> usize {
    tile.m * tile.n / (16 * per(tile)[0] * per(tile)[1])
}

/// Returns a loop's number of iterations as a count, for any batch and any first value at most.
fn extent(l: &Loop) -> Count {
    l.to.div_ceil(l.step as u64)
}

fn is_single(l: &Loop) -> bool {
    l.from.is_none() && extent(l) == Count { fixed: 1, per_sample: 0 }
}

/// Returns the first of the inner loops that are flattened into one range of K, which is cut into chunks; chosen so that chunks are nearly full.
/// A reduction that is cut into more parts than its outermost loop has iterations is cut anywhere: there all loops are one.
fn first_inner(product: &Product, tile: Schedule) -> usize {
    let (mut terms, cut) = (1, split_level(product));
    let most = if extent(&product.loops[cut]).at(NOMINAL_BATCH) < tile.split as u64 { cut } else { usize::MAX };
    for (level, l) in product.loops.iter().enumerate().rev() {
        terms *= extent(l).at(NOMINAL_BATCH);
        if (terms.next_multiple_of(tile.k as u64) as f64) <= terms as f64 * MAX_FILLED {
            return level.min(most);
        }
    }
    0
}

/// Returns whether the inner loops fill their chunks, for any batch.
fn fills_chunks(product: &Product, tile: Schedule) -> bool {
    let loops = &product.loops[first_inner(product, tile)..];
    let Count { fixed, per_sample } = all(loops.iter().map(extent));
    let whole = |n: u64| n.is_multiple_of(tile.k as u64);
    loops.iter().all(|l| l.from.is_none()) && whole(fixed) && whole(per_sample)
}

/// Returns the loop that is cut where the reduction is.
fn split_level(product: &Product) -> usize {
    product.loops.iter().position(|l| !is_single(l)).unwrap_or(product.loops.len() - 1)
}

fn all(counts: impl Iterator<Item = Count>) -> Count {
    counts.fold(Count { fixed: 1, per_sample: 0 }, count_product)
}

/// Returns the iterations of the loops of one invocation, where nothing is cut.
fn iterations(product: &Product, tile: Schedule) -> Count {
    let inner = first_inner(product, tile);
    let chunks = all(product.loops[inner..].iter().map(extent)).div_ceil(tile.k as u64);
    let mut level = Count { fixed: 1, per_sample: 0 };
    let levels = product.loops[..inner].iter().map(extent).chain([chunks]);
    levels.fold(Count::default(), |sum, l| {
        let outer = level;
        level = count_product(outer, l);
        // A loop costs an iteration more than it has, each time.
        let fixed = sum.fixed + outer.fixed + level.fixed;
        Count { fixed, per_sample: sum.per_sample + outer.per_sample + level.per_sample }
    })
}

/// Returns the schedules that take the least time on a graphics processor, with their cycles, the fastest first; of those that split
/// the reduction only with `split`.
pub(super) fn schedules(product: &Product, split: bool, profile: &DeviceProfile) -> Vec<(f64, Schedule)> {
    // Column sums are taken of columns that lie along the lanes.
    if product.sums && product.columns.along_terms {
        return Vec::new();
    }
    let tiles = SHARED.iter().map(|&([m, n, k], _)| Schedule {
        k,
        smem: [true; 2],
        ..Schedule::new(kernels::Core::Shared, [m, n])
    });
    // Each of these elements has a place of its own.
    let scattered = |tile: &Schedule, side: &Operand, size: usize| {
        if side.along_terms && side.run < 4 { size * tile.k / lanes(*tile) } else { 0 }
    };
    let fits = |tile: &Schedule| {
        let sums = tile.m * tile.n / lanes(*tile);
        let scattered = [(&product.rows, tile.m), (&product.columns, tile.n)].map(|(s, n)| scattered(tile, s, n));
        (!profile.few_registers || sums <= MAX_FEW) && scattered.into_iter().all(|n| n <= MAX_SCATTERED)
    };
    let most = if split { f64::INFINITY } else { 1.0 };
    let mut ways: Vec<(f64, Schedule)> = (tiles.filter(fits))
        .map(|tile| {
            let (cycles, tile) = gpu::with_splits(product, tile, (lanes(tile), most), profile);
            let long = iterations(product, tile).at(LONG_BATCH).div_ceil(profile.max_iterations) as usize;
            (cycles, Schedule { split: if product.whole { tile.split.max(long) } else { 1 }, ..tile })
        })
        .collect();
    ways.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    ways.truncate(MAX_OFFERED);
    ways
}

/// Returns the launches of a schedule.
pub(super) fn lower(product: &Product, s: Schedule, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Candidate {
    candidate(product, s, lanes(s), profile, epilogue, |k, io| write(k, product, s, io))
}

const VEC4: Type = Type { width: 4, ..Type::F32 };

/// The core, as it is written.
struct Core<'p, 'a> {
    product: &'p Product<'a>,
    tile: Schedule,
    io: &'p Bound,
    first_row: Expr,
    first_column: Expr,
    /// The part of the reduction and their number, where it is split.
    split: Option<(Expr, Expr)>,
    a: Side<'p, 'a>,
    b: Side<'p, 'a>,
    sums: Vec<Vec<Expr>>,
    /// Sums of the columns that an invocation stages, of each of its vectors where they differ.
    column_sums: Vec<Expr>,
}

/// One operand on its way through workgroup memory.
struct Side<'p, 'a> {
    operand: &'p Operand<'a>,
    buffer: &'p Buffer,
    loaded: Option<&'p Loaded>,
    name: &'static str,
    /// Whether vectors are of terms.
    of_terms: bool,
    /// Whether an invocation stages vectors of one term, which then is found once for both sides.
    of_one_term: bool,
    /// Vectors of indices in the tile, and of an invocation.
    vectors: usize,
    per: usize,
    staged: Buffer,
    /// The indices of the vectors that an invocation stages: of each one, or, where they are all the same, of the first. Of indices that
    /// lie in memory as a vector the first.
    cursors: Vec<Vec<Cursor>>,
}

fn write(k: &mut Kernel, product: &Product, tile: Schedule, io: &Bound) {
    let (rows, columns) = (product.rows.extent.expr(), product.columns.extent.expr());
    let number = k.let_("tile", k.workgroup_index());
    let row_tiles = k.let_("row_tiles", (&rows + (tile.m - 1)) / tile.m);
    let column_tiles = k.let_("column_tiles", (columns + (tile.n - 1)) / tile.n);
    let tiles = &row_tiles * &column_tiles;
    let splits = if tile.split > 1 { Expr::extent("splits", tile.split as u64) } else { 1u32.into() };
    k.return_if(number.at_least(&tiles * &splits * count(product.batch)));
    let first_column = k.let_("first_column", &number % &column_tiles * tile.n);
    let first_row = k.let_("first_row", &number / column_tiles % &row_tiles * tile.m);
    let split = splits.known().is_none().then(|| (k.let_("split", &number / &tiles % &splits), splits.clone()));
    k.let_("batch", number / (tiles * splits));
    let a = Side::new(k, (product, io), 0, tile, &first_row);
    let b = Side::new(k, (product, io), 1, tile, &first_column);
    let sums = (0..4 * per(tile)[0])
        .map(|row| (0..per(tile)[1]).map(|column| k.var(format!("c{row}_{column}"), VEC4.zero())).collect())
        .collect();
    let n_sums = if product.sums { b.cursors.len() } else { 0 };
    let column_sums = (0..n_sums).map(|i| k.var(format!("sum{i}"), VEC4.zero())).collect();
    let mut core = Core { product, tile, io, first_row, first_column, split, a, b, sums, column_sums };
    core.reduce(k, &mut Vec::new());
    core.store(k);
    core.store_column_sums(k);
}

impl Core<'_, '_> {
    /// Writes the loops from the level on whose variables are known; those that are one run of terms as one loop of chunks.
    fn reduce(&mut self, k: &mut Kernel, vars: &mut Vec<Expr>) {
        let (level, inner) = (vars.len(), first_inner(self.product, self.tile));
        if level == inner {
            return self.chunks(k, vars);
        }
        let l = &self.product.loops[level];
        let inside = |core: &mut Self, k: &mut Kernel, var: &Expr, vars: &mut Vec<Expr>| {
            vars.push(var.clone());
            core.a.enter(k, vars);
            core.b.enter(k, vars);
            core.reduce(k, vars);
            vars.pop();
        };
        if is_single(l) {
            return inside(self, k, &0u32.into(), vars);
        }
        let [start, end] = match &self.split {
            Some(split) if level == split_level(self.product) => part(k, l.var, &l.to.expr(), l.step, split),
            _ => [l.from.clone().unwrap_or(0u32.into()), k.let_(format!("end_{}", l.var), loop_end(l.to.expr()))],
        };
        k.for_(l.var, start, end, l.step, |k, var| inside(self, k, var, vars));
    }

    /// Writes the loop over chunks of terms.
    fn chunks(&mut self, k: &mut Kernel, vars: &[Expr]) {
        let inner = vars.len();
        let loops = &self.product.loops[inner..];
        let counts: Vec<Expr> = loops.iter().map(|l| iterations_of(k, l)).collect();
        let all = counts.iter().fold(Expr::from(1u32), |all, count| all * count);
        let all = k.let_("all_terms", all);
        let [start, end] = match &self.split {
            Some(split) if split_level(self.product) >= inner => part(k, "terms", &all, self.tile.k, split),
            _ => [0u32.into(), k.let_("end_terms", loop_end(all))],
        };
        k.for_("chunk", start, &end, self.tile.k, |k, chunk| {
            let full = fills_chunks(self.product, self.tile);
            let terms = Terms { chunk, end: &end, full, loops, counts: &counts, vars };
            let [a, b] = [&self.a, &self.b].map(|side| side.load(k, self.tile, &terms));
            let sums = self.column_sums.iter().cycle();
            b.iter().zip(sums).for_each(|(value, sum)| k.add(sum, value));
            k.barrier();
            self.a.stage(k, self.tile, a);
            self.b.stage(k, self.tile, b);
            k.barrier();
            self.multiply(k);
        });
    }

    /// Writes the products of a chunk, unrolled.
    fn multiply(&self, k: &mut Kernel) {
        let at = self.lane_vectors(k);
        let sides = [&self.a, &self.b];
        let mut vectors = [Vec::new(), Vec::new()];
        for term in 0..self.tile.k {
            for ((side, at), vectors) in sides.into_iter().zip(&at).zip(&mut vectors) {
                side.read(k, self.tile, (at, term), vectors);
            }
            let component = |side: usize, i: usize| match sides[side].of_terms {
                true => vectors[side][i].component(term % 4),
                false => vectors[side][i / 4].component(i % 4),
            };
            let column = |v: usize| Expr::vector((4 * v..4 * v + 4).map(|i| component(1, i)).collect());
            let columns: Vec<Expr> = match self.b.of_terms {
                true => (0..self.b.per).map(|v| k.let_(format!("b{term}_{v}_v"), column(v))).collect(),
                false => vectors[1].clone(),
            };
            for (row, sums) in self.sums.iter().enumerate() {
                sums.iter().zip(&columns).for_each(|(sum, column)| k.add(sum, component(0, row) * column));
            }
        }
    }

    /// Returns the first vectors of rows and of columns of an invocation.
    fn lane_vectors(&self, k: &mut Kernel) -> [Expr; 2] {
        let across = self.b.vectors / self.b.per;
        let lane = k.lane();
        [k.let_("at_a", &lane / across), k.let_("at_b", lane % across)]
    }

    fn store(&self, k: &mut Kernel) {
        let Core { product, io, .. } = self;
        let columns = product.columns.extent.expr();
        let [at_a, at_b] = self.lane_vectors(k);
        let width = self.b.operand.width();
        let columns: Vec<(Expr, Expr, Vec<Expr>)> = (0..4 * self.b.per / width)
            .map(|i| {
                let column = k.let_(format!("column{i}_i"), &self.first_column + self.b.index(&at_b, i * width));
                let inside = k.let_(format!("column{i}_in_bounds"), column.less(&columns));
                let column = k.let_(format!("column{i}"), column.min(&columns - width as u32));
                let extras = io.finish.columns(k, &i.to_string(), &(&column / width));
                (column, inside, extras)
            })
            .collect();
        let mut parts = io.parts.as_ref().map(|to| {
            let columns: Vec<Expr> = columns.iter().map(|(column, ..)| column.clone()).collect();
            Parts::new(k, product, to, self.tile_of_sums(), &columns)
        });
        for (i, sums) in self.sums.iter().enumerate() {
            let row = k.let_(format!("row{i}_i"), &self.first_row + self.a.index(&at_a, i));
            let (start, inside) = product.row(&row, self.split.as_ref().map(|s| &s.0));
            let start = k.let_(format!("row{i}"), start);
            let inside = row.less(product.rows.extent.expr()).and(inside);
            let inside = if parts.is_some() { k.let_(format!("row{i}_in_bounds"), inside) } else { inside };
            k.if_(&inside, |k| {
                for (j, (column, inside, extras)) in columns.iter().enumerate() {
                    let index = &start + column;
                    let sum = if width == 4 { sums[j].clone() } else { sums[j / 4].component(j % 4) };
                    let value = io.finish.apply(&sum, &index, extras);
                    match &parts {
                        None => k.if_(inside, |k| k.store(&io.y, &index / width, value)),
                        Some(parts) => {
                            k.set(&sum, value);
                            parts.add_product(k, j, &sum, &(&index / width));
                            k.if_(inside, |k| k.store(&io.y, &index / width, &sum));
                        }
                    }
                }
            });
            parts.iter_mut().for_each(|parts| parts.row(&inside));
        }
        let columns: Vec<(Expr, Expr)> = columns.into_iter().map(|(column, inside, _)| (column, inside)).collect();
        parts.iter().for_each(|parts| parts.write(k, &columns));
    }

    /// Returns the tile as column sums are taken of it.
    fn tile_of_sums(&self) -> Tile {
        Tile {
            m: self.tile.m,
            lanes: lanes(self.tile),
            across: self.b.vectors / self.b.per,
            width: self.b.operand.width(),
            first_row: self.first_row.clone(),
            sums: self.sums.clone(),
            staged: [self.a.staged.clone(), self.b.staged.clone()],
        }
    }

    /// Writes output 1: invocations have summed the columns that they staged, the first ones add these sums in order.
    fn store_column_sums(&self, k: &mut Kernel) {
        if self.column_sums.is_empty() {
            return;
        }
        let (b, columns) = (&self.b, self.product.columns.extent.expr());
        let (to, start) = self.product.sums_at(self.io, self.split.as_ref().map(|s| &s.0));
        k.barrier();
        for (i, sum) in self.column_sums.iter().enumerate() {
            k.store(&b.staged, b.at(self.tile, b.place(k, self.tile, i)), sum);
        }
        k.barrier();
        let lane = k.lane();
        k.if_(self.first_row.equals(0u32).and(lane.less(b.vectors)), |k| {
            let total = k.var("total", VEC4.zero());
            let n_terms = self.column_sums.len() * lanes(self.tile) / b.vectors;
            k.for_("k", 0u32, n_terms, 1, |k, term| {
                k.add(&total, b.staged.at(term * (b.vectors + 1) + &lane));
            });
            let width = b.operand.width();
            for j in 0..4 / width {
                let column = k.let_(format!("column{j}"), &self.first_column + b.index(&lane, j));
                let value = if width == 4 { total.clone() } else { total.component(j) };
                k.if_(column.less(&columns), |k| k.store(to, (&start + &column) / width, value));
            }
        });
    }
}

/// Returns the start and the end of a part of `whole`, in units of `unit`.
fn part(k: &mut Kernel, name: &str, whole: &Expr, unit: usize, (split, splits): &(Expr, Expr)) -> [Expr; 2] {
    let all = k.let_("all_splits", splits * unit);
    let size = k.let_(format!("size_{name}"), (whole + &all - 1u32) / all * unit);
    let start = k.let_(format!("start_{name}"), split * &size);
    let end = k.let_(format!("end_{name}"), (&start + size).min(whole));
    [start, end]
}

/// Returns the number of iterations of a loop.
fn iterations_of(k: &mut Kernel, l: &Loop) -> Expr {
    match (&l.from, l.step) {
        (None, 1) => l.to.expr(),
        (from, step) => {
            let from = from.clone().unwrap_or(0u32.into());
            k.let_(format!("iterations_{}", l.var), (l.to.expr() - from + (step - 1)) / step)
        }
    }
}

/// The terms of a chunk: loops that are one run, with their iterations and the variables of the loops around them.
struct Terms<'t> {
    chunk: &'t Expr,
    end: &'t Expr,
    /// Whether no chunk goes past the end.
    full: bool,
    loops: &'t [Loop],
    counts: &'t [Expr],
    vars: &'t [Expr],
}

impl Terms<'_> {
    /// Returns whether each chunk is one run of the innermost loop: then the other loops' variables are the same for all lanes.
    fn is_one_run(&self, tile: Schedule) -> bool {
        let innermost = self.counts.last().and_then(Expr::known);
        self.full && innermost.is_some_and(|n| (n as usize).is_multiple_of(tile.k))
    }

    /// Returns the variables of all loops at a term, and those of the innermost one so much further.
    fn at(&self, term: &Expr, further: &Expr) -> Vec<Expr> {
        let mut rest = term.clone();
        let mut values = Vec::new();
        for (level, (l, count)) in self.loops.iter().zip(self.counts).enumerate().rev() {
            let iteration = if level == 0 { rest.clone() } else { &rest % count };
            let iteration = if values.is_empty() { iteration + further } else { iteration };
            let from = l.from.clone().unwrap_or(0u32.into());
            values.push(from + iteration * l.step);
            rest = rest / count;
        }
        values.extend(self.vars.iter().rev().cloned());
        values.reverse();
        values
    }
}

impl<'p, 'a> Side<'p, 'a> {
    /// Returns a side whose first index is `first`. Past the end, indices are the last one again: it is read, and not stored.
    fn new(
        k: &mut Kernel,
        (product, io): (&'p Product<'a>, &'p Bound),
        i: usize,
        tile: Schedule,
        first: &Expr,
    ) -> Self {
        let (operand, buffer) = ([&product.rows, &product.columns][i], [&io.rows, &io.columns][i]);
        let (name, vectors) = (["a", "b"][i], [tile.m, tile.n][i] / 4);
        let of_terms = product.of_terms(tile, lanes(tile))[i];
        let size = if of_terms { 4 * vectors * Self::pitch(tile) } else { tile.k * (vectors + 1) };
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
        };
        let extent = operand.extent.expr();
        for i in 0..if side.differ() { side.loads(tile) } else { 1 } {
            let (_, vector) = side.place(k, tile, i);
            let width = operand.width();
            let cursor = |j: usize| {
                let own = if of_terms { vector.clone() } else { side.index(&vector, j) };
                let index = (first + own).min(&extent - width as u32);
                Cursor::new(k, format!("{name}{i}_{j}"), index)
            };
            let cursors = (0..if of_terms { 1 } else { 4 / width }).map(cursor).collect();
            side.cursors.push(cursors);
        }
        side.enter(k, &[]);
        side
    }

    /// Returns index `i` of those of an invocation whose first vector is `at`: component i % 4 of its vector i / 4.
    fn index(&self, at: &Expr, i: usize) -> Expr {
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
        self.vectors * tile.k / lanes(tile)
    }

    /// Returns how many vectors apart two indices are whose vectors are of terms: an odd number, which spreads them over the banks.
    fn pitch(tile: Schedule) -> usize {
        (tile.k / 4) | 1
    }

    /// Returns the term in the chunk and the vector that an invocation stages as its `i`th; of vectors of terms the vector and the index.
    fn place(&self, k: &Kernel, tile: Schedule, i: usize) -> (Expr, Expr) {
        let (lane, lanes) = (k.lane(), lanes(tile));
        if self.operand.along_terms {
            let fast = tile.k / if self.of_terms { 4 } else { 1 };
            return (&lane % fast, lane / fast + i * (lanes / fast));
        }
        let fast = if self.of_one_term { lanes / tile.k } else { self.vectors };
        let [term, vector] = [&lane / fast, lane % fast];
        match self.of_one_term {
            true => (term, vector + i * fast),
            false => (term + i * (lanes / fast), vector),
        }
    }

    /// Returns where the vector of a [place](Self::place) lies in workgroup memory.
    fn at(&self, tile: Schedule, (slow, fast): (Expr, Expr)) -> Expr {
        match self.of_terms {
            true => fast * Self::pitch(tile) + slow,
            // The vector more spreads the terms of an index over the banks.
            false => slow * (self.vectors + 1) + fast,
        }
    }

    fn enter(&mut self, k: &mut Kernel, vars: &[Expr]) {
        self.cursors.iter_mut().flatten().for_each(|cursor| (self.operand.enter)(k, cursor, vars));
    }

    /// Returns what an invocation stages of a chunk; past the last term it is 0.
    fn load(&self, k: &mut Kernel, tile: Schedule, terms: &Terms) -> Vec<Expr> {
        let load = |i: usize| {
            let offset = self.place(k, tile, i).0 * if self.of_terms { 4u32 } else { 1 };
            let term = k.let_(format!("{}{i}_t", self.name), terms.chunk + &offset);
            let (here, there) = match terms.full {
                true => (term, true.into()),
                false => (term.min(terms.end - 1u32), k.let_(format!("{}{i}_there", self.name), term.less(terms.end))),
            };
            let values =
                if terms.is_one_run(tile) { terms.at(terms.chunk, &offset) } else { terms.at(&here, &0u32.into()) };
            let vars: Vec<Expr> = (values.into_iter().zip(0..))
                .map(|(value, n)| k.let_(format!("{}{i}_var{n}", self.name), value))
                .collect();
            let cursors = &self.cursors[if self.differ() { i } else { 0 }];
            let values = cursors.iter().map(|cursor| {
                let mut cursor = cursor.renamed(i as u64);
                for level in terms.vars.len() + 1..=vars.len() {
                    (self.operand.enter)(k, &mut cursor, &vars[..level]);
                }
                let (index, inside) = (self.operand.at)(&cursor, &vars);
                let (inside, width) = (inside.and(&there), if self.of_terms { 4 } else { self.operand.width() });
                match self.loaded {
                    None => self.buffer.guarded(&(index / width), &inside, false),
                    Some(loaded) => {
                        let index = k.let_(format!("{}_at{i}", cursor.name), index);
                        let value = loaded.apply(self.buffer.at(&index / width), &index);
                        let zero = if width == 1 { Expr::from(0.0) } else { VEC4.zero() };
                        inside.select(value, zero)
                    }
                }
            });
            let mut values: Vec<Expr> = values.collect();
            let value = if values.len() == 1 { values.swap_remove(0) } else { Expr::vector(values) };
            k.let_(format!("{}{i}_v", self.name), value)
        };
        (0..self.loads(tile)).map(load).collect()
    }

    /// Reads what a lane multiplies of a term; of vectors of terms every four terms anew.
    fn read(&self, k: &mut Kernel, tile: Schedule, (at, term): (&Expr, usize), vectors: &mut Vec<Expr>) {
        let place = |i: usize| match self.of_terms {
            true => self.at(tile, ((term / 4).into(), self.index(at, i))),
            false => at + (term * (self.vectors + 1) + i * (self.vectors / self.per)),
        };
        if !self.of_terms || term.is_multiple_of(4) {
            let n = if self.of_terms { 4 * self.per } else { self.per };
            let load = |i: usize| k.let_(format!("{}{term}_{i}", self.name), self.staged.at(place(i)));
            *vectors = (0..n).map(load).collect();
        }
    }

    fn stage(&self, k: &mut Kernel, tile: Schedule, values: Vec<Expr>) {
        for (i, value) in values.into_iter().enumerate() {
            let place = self.place(k, tile, i);
            k.store(&self.staged, self.at(tile, place), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Core;

    #[test]
    fn tiles_fit_into_portable_limits_and_share_their_staging_evenly() {
        for ([m, n, k], _) in SHARED {
            let tile = Schedule { k, ..Schedule::new(Core::Shared, [m, n]) };
            let (lanes, vectors) = (lanes(tile), [m / 4, n / 4]);
            assert!((64..=256).contains(&lanes), "{tile}");
            let staged = |v: usize| (k * (v + 1)).max(4 * v * Side::pitch(tile));
            assert!((staged(vectors[0]) + staged(vectors[1])) * 16 + 4 * lanes <= 16_384, "{tile}");
            for v in vectors {
                let even = (v * k).is_multiple_of(lanes) && lanes.is_multiple_of(v);
                assert!(even && lanes.is_multiple_of(k), "{tile}");
                assert!(k * (v + 1) >= lanes, "{tile}: column sums need a vector of each lane");
            }
        }
    }
}
