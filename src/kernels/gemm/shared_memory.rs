//! The tile core for graphics processors: a workgroup stages chunks of both operands in workgroup memory and multiplies
//! them from there in registers.
//!
//! Indices of a side lie in workgroup memory as vectors of four. Where neighbouring indices are neighbours in memory, vector `v`,
//! component `j` is index `4 · v + j`, and lanes read and write vectors. Elsewhere it is index `v + j · vectors`, so that
//! neighbouring lanes read and write neighbouring elements of the tensors, and whole vectors of workgroup memory. Where neighbouring
//! terms are neighbours in memory, vectors are of four terms of an index.
//!
//! Where a lane has few sums, the next chunks are loaded into registers while one is multiplied. Where there are few tiles, the lanes of a workgroup are
//! slices, each of which multiplies its share of a chunk's terms for the whole tile; they join their sums in the end.

use super::layout::{ahead, depth, lanes, lanes_of_slice, per, pitch};
use super::part_sums::{Parts, Tile};
use super::product::{Bound, Cursor, Loop, Operand, Product, candidate};
use super::tiles::{fills_chunks, first_inner, is_single, split_level};
use crate::{
    graph::{Candidate, DeviceProfile, Epilogue},
    kernels::{
        Schedule,
        language::{Buffer, Expr, Kernel, Loaded, Type, count, loop_end, never_constant},
    },
};

/// Returns the launches of a schedule.
pub(super) fn lower(product: &Product, s: Schedule, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Candidate {
    candidate(product, s, lanes(s), profile, epilogue, |k, io| write(k, product, s, io))
}

const VEC4: Type = Type { width: 4, ..Type::F32 };

/// The vectors that a lane keeps of what prologues read of indices alone, at most.
const MAX_EXTRA_VECTORS: usize = 8;

/// The core, as it is written.
struct Core<'p, 'a> {
    product: &'p Product<'a>,
    tile: Schedule,
    io: &'p Bound,
    first_row: Expr,
    first_column: Expr,
    /// The part of the reduction and their number, where it is split.
    split: Option<(Expr, Expr)>,
    /// The slice of a lane, where there are several.
    slice: Option<Expr>,
    /// The first vectors of rows and of columns of a lane.
    at: [Expr; 2],
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
    /// Where what is loaded is stored too: whether the tile is the first of those that load it.
    is_first: Option<Expr>,
    /// The first term in a chunk of an invocation.
    first_term: Expr,
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
    let a = Side::new(k, (product, io), 0, tile, [&first_row, &first_column]);
    let b = Side::new(k, (product, io), 1, tile, [&first_column, &first_row]);
    let sums = (0..4 * per(tile)[0])
        .map(|row| (0..per(tile)[1]).map(|column| k.var(format!("c{row}_{column}"), VEC4.zero())).collect())
        .collect();
    let n_sums = if product.sums { b.cursors.len() } else { 0 };
    let column_sums = (0..n_sums).map(|i| k.var(format!("sum{i}"), VEC4.zero())).collect();
    let slice = (tile.slices > 1).then(|| k.let_("slice", k.lane() / lanes_of_slice(tile)));
    let across = b.vectors / b.per;
    let lane = slice.as_ref().map_or(k.lane(), |_| k.lane() % lanes_of_slice(tile));
    let at = [k.let_("at_a", &lane / across), k.let_("at_b", lane % across)];
    let mut core = Core { product, tile, io, first_row, first_column, split, slice, at, a, b, sums, column_sums };
    core.reduce(k, &mut Vec::new());
    core.join(k);
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
            Some(split) if split_level(self.product) >= inner => part(k, "terms", &all, depth(self.tile), split),
            _ => [0u32.into(), k.let_("end_terms", loop_end(all))],
        };
        let (depth, ahead) = (depth(self.tile), ahead(self.tile));
        let sides = [&self.a, &self.b];
        let staged = sides.map(|side| side.first_staged(k, self.tile));
        let slice = self.slice.as_ref();
        let firsts = [0, 1].map(|i| sides[i].first_of_slice(k, self.tile, &self.at[i], slice));
        let sets = ahead.max(1);
        let next = (0..sets).map(|n| sides.map(|side| side.registers(k, self.tile, n))).collect();
        let full = fills_chunks(self.product, self.tile);
        let run = Run { end: &end, full, loops, counts: &counts, vars, next, staged, firsts };
        let mut first = k.let_("first_chunk", start);
        for n in 0..ahead {
            let chunk = k.let_(format!("first_chunk{n}"), &first + n * depth);
            k.if_(chunk.less(&end), |k| self.load(k, &run, &chunk, (n, full)));
        }
        // Where a loop loads full chunks alone, registers are not copied for those that are not, nor zeros chosen.
        let loaded = (sets + ahead) * depth - 1;
        if ahead > 0 && end.known().is_none_or(|end| end > loaded as i64) {
            let last = k.let_("end_loaded", never_constant(end.max(loaded) - loaded));
            self.repeat(k, &run, [&first, &last], true);
            let times = (last.max(&first) - &first + (sets * depth - 1)) / (sets * depth);
            first = k.let_("first_left", first + times * (sets * depth));
        }
        self.repeat(k, &run, [&first, &end], false);
    }

    /// Loads a chunk into registers.
    fn load(&self, k: &mut Kernel, run: &Run, chunk: &Expr, (n, full): (usize, bool)) {
        let terms = Terms { chunk, n, full, run };
        let sides = [&self.a, &self.b].into_iter().zip(&run.next[n]);
        sides.for_each(|(side, next)| side.load(k, self.tile, &terms, next));
    }

    /// Writes a loop over chunks: if it is `whole`, all that it loads are full.
    fn repeat(&self, k: &mut Kernel, run: &Run, [first, end]: [&Expr; 2], whole: bool) {
        let (depth, ahead, sides) = (depth(self.tile), ahead(self.tile), [&self.a, &self.b]);
        let full = whole || run.full;
        k.for_("chunks", first, end, run.next.len() * depth, |k, chunks| {
            for (n, next) in run.next.iter().enumerate() {
                let chunk = k.let_(format!("chunk{n}"), chunks + n * depth);
                let multiply = |k: &mut Kernel| {
                    if ahead == 0 {
                        self.load(k, run, &chunk, (n, full));
                    }
                    let sums = self.column_sums.iter().cycle();
                    next[1].iter().zip(sums).for_each(|(value, sum)| k.add(sum, Expr::vector(value.clone())));
                    k.barrier();
                    let staged = sides.iter().zip(next).zip(&run.staged);
                    staged.for_each(|((side, next), at)| side.stage(k, self.tile, at, next));
                    k.barrier();
                    if ahead > 0 {
                        let chunk = k.let_(format!("next_chunk{n}"), &chunk + ahead * depth);
                        let there = Expr::from(whole).or(chunk.less(run.end));
                        k.if_(there, |k| self.load(k, run, &chunk, (n, full)));
                    }
                    self.multiply(k, &run.firsts, n);
                };
                k.if_(Expr::from(whole || n == 0).or(chunk.less(run.end)), multiply);
            }
        });
    }

    /// Writes the products of a chunk, the one of this number on its way, unrolled.
    fn multiply(&self, k: &mut Kernel, firsts: &[Expr; 2], chunk: usize) {
        let sides = [&self.a, &self.b];
        let mut vectors = [Vec::new(), Vec::new()];
        for term in 0..self.tile.k {
            for ((side, first), vectors) in sides.into_iter().zip(firsts).zip(&mut vectors) {
                side.read(k, self.tile, (chunk, first, term), vectors);
            }
            let component = |side: usize, i: usize| match sides[side].of_terms {
                true => vectors[side][i].component(term % 4),
                false => vectors[side][i / 4].component(i % 4),
            };
            let column = |v: usize| Expr::vector((4 * v..4 * v + 4).map(|i| component(1, i)).collect());
            let columns: Vec<Expr> = match self.b.of_terms {
                true => (0..self.b.per).map(|v| k.let_(format!("b{chunk}_{term}_{v}_v"), column(v))).collect(),
                false => vectors[1].clone(),
            };
            for (row, sums) in self.sums.iter().enumerate() {
                sums.iter().zip(&columns).for_each(|(sum, column)| k.add(sum, component(0, row) * column));
            }
        }
    }

    /// Joins the sums of slices in the first of them: half of those that are left leave theirs in workgroup memory.
    fn join(&self, k: &mut Kernel) {
        let Some(slice) = &self.slice else { return };
        let sums: Vec<&Expr> = self.sums.iter().flatten().collect();
        let (lanes, each) = (lanes_of_slice(self.tile), sums.len() / 2);
        let of_slice = k.let_("of_slice", k.lane() % lanes);
        let staged = |i: usize| if i < each { &self.a.staged } else { &self.b.staged };
        let place = |slice: Expr, i: usize| (slice * each + i % each) * lanes + &of_slice;
        let mut half = self.tile.slices / 2;
        while half > 0 {
            k.barrier();
            k.if_(slice.at_least(half).and(slice.less(2 * half)), |k| {
                (sums.iter().enumerate()).for_each(|(i, sum)| k.store(staged(i), place(slice - half, i), *sum));
            });
            k.barrier();
            k.if_(slice.less(half), |k| {
                (sums.iter().enumerate()).for_each(|(i, sum)| k.add(sum, staged(i).at(place(slice.clone(), i))));
            });
            half /= 2;
        }
    }

    fn store(&self, k: &mut Kernel) {
        let Core { product, io, .. } = self;
        let columns = product.columns.extent.expr();
        let [at_a, at_b] = &self.at;
        let width = self.b.operand.width();
        let columns: Vec<(Expr, Expr, Vec<Expr>)> = (0..4 * self.b.per / width)
            .map(|i| {
                let column = k.let_(format!("column{i}_i"), &self.first_column + self.b.index(at_b, i * width));
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
            let row = k.let_(format!("row{i}_i"), &self.first_row + self.a.index(at_a, i));
            let (start, inside) = product.row(&row, self.split.as_ref().map(|s| &s.0));
            let start = k.let_(format!("row{i}"), start);
            let inside = row.less(product.rows.extent.expr()).and(inside);
            let inside = self.slice.iter().fold(inside, |inside, slice| inside.and(slice.equals(0u32)));
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
                let columns: Vec<(&Expr, &Expr)> = columns.iter().map(|(column, inside, _)| (column, inside)).collect();
                product.store_zeros(k, &io.y, &i.to_string(), &row, &columns, width);
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
            lanes: [lanes(self.tile), lanes_of_slice(self.tile)],
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
            k.for_("k", 0u32, n_terms, 4, |k, term| {
                (0..4u32).for_each(|i| k.add(&total, b.staged.at((term + i) * (b.vectors + 1) + &lane)));
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

/// Loops whose terms are one run, which is cut into chunks.
struct Run<'r> {
    end: &'r Expr,
    /// Whether no chunk goes past the end.
    full: bool,
    loops: &'r [Loop],
    /// Their iterations.
    counts: &'r [Expr],
    /// The variables of the loops around them.
    vars: &'r [Expr],
    /// The registers of chunks on their way, of rows and of columns.
    next: Vec<[Vec<Vec<Expr>>; 2]>,
    /// Where an invocation stages its first vector of rows and of columns, and where it reads them first.
    staged: [Expr; 2],
    firsts: [Expr; 2],
}

impl Run<'_> {
    /// Returns whether the loops are all there are.
    fn is_all(&self) -> bool {
        self.vars.iter().all(|var| var.known() == Some(0))
    }
}

/// The terms of a chunk.
struct Terms<'t> {
    chunk: &'t Expr,
    /// Its number among those on their way into registers.
    n: usize,
    /// Whether it does not go past the end.
    full: bool,
    run: &'t Run<'t>,
}

impl Terms<'_> {
    /// Returns whether each chunk is one run of the innermost loop: then the other loops' variables are the same for all lanes.
    fn is_one_run(&self, tile: Schedule) -> bool {
        let innermost = self.run.counts.last().and_then(Expr::known);
        self.run.full && innermost.is_some_and(|n| (n as usize).is_multiple_of(depth(tile)))
    }

    /// Returns the variables of all loops at a term, and those of the innermost one so much further.
    fn at(&self, term: &Expr, further: &Expr) -> Vec<Expr> {
        let mut rest = term.clone();
        let mut values = Vec::new();
        for (level, (l, count)) in self.run.loops.iter().zip(self.run.counts).enumerate().rev() {
            let iteration = if level == 0 { rest.clone() } else { &rest % count };
            let iteration = if values.is_empty() { iteration + further } else { iteration };
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
    fn new(
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
        };
        side.first_term = k.let_(format!("{name}_term"), side.place(k, tile, 0).0 * if of_terms { 4u32 } else { 1 });
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
        }
    }

    /// Returns how many floats are loaded at once.
    fn vector(&self) -> usize {
        if self.of_terms { 4 } else { self.operand.width() }
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
        self.vectors * depth(tile) / lanes(tile)
    }

    /// Returns the term in the chunk and the vector that an invocation stages as its `i`th; of vectors of terms the vector and the index.
    fn place(&self, k: &Kernel, tile: Schedule, i: usize) -> (Expr, Expr) {
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
    fn at(&self, tile: Schedule, (slow, fast): (Expr, Expr)) -> Expr {
        match self.of_terms {
            true => fast * pitch(tile) + slow,
            // The vector more spreads the terms of an index over the banks.
            false => slow * (self.vectors + 1) + fast,
        }
    }

    fn enter(&mut self, k: &mut Kernel, vars: &[Expr]) {
        self.cursors.iter_mut().flatten().for_each(|cursor| (self.operand.enter)(k, cursor, vars));
    }

    /// Declares the registers of what an invocation stages of one of the next chunks.
    fn registers(&self, k: &mut Kernel, tile: Schedule, chunk: usize) -> Vec<Vec<Expr>> {
        let width = self.vector();
        let mut register =
            |i: usize, j: usize| k.unset(format!("{}{i}_next{chunk}_{j}", self.name), Type::F32.vector(width));
        (0..self.loads(tile)).map(|i| (0..4 / width).map(|j| register(i, j)).collect()).collect()
    }

    /// Loads what an invocation stages of a chunk into registers; past the last term it is 0.
    fn load(&self, k: &mut Kernel, tile: Schedule, terms: &Terms, next: &[Vec<Expr>]) {
        for (i, next) in next.iter().enumerate() {
            let name = format!("{}{i}_{}", self.name, terms.n);
            // Of vectors of terms each has the same terms.
            let further = i * self.step(tile)[0];
            let offset = &self.first_term + further;
            let term = k.let_(format!("{name}_t"), terms.chunk + &offset);
            let (here, there) = match terms.full {
                true => (term, true.into()),
                false => (term.min(terms.run.end - 1u32), k.let_(format!("{name}_there"), term.less(terms.run.end))),
            };
            let one_run = terms.is_one_run(tile);
            let values = if one_run { terms.at(terms.chunk, &offset) } else { terms.at(&here, &0u32.into()) };
            let vars: Vec<Expr> =
                (values.into_iter().zip(0..)).map(|(value, n)| k.let_(format!("{name}_var{n}"), value)).collect();
            let apart = self.operand.apart.as_ref().map(|apart| {
                let unit = self.vector();
                let (from, place) = match terms.full && apart.of_all && terms.run.is_all() {
                    true => ("base", (terms.chunk + further) * &apart.step / unit),
                    false if one_run => ("base", (apart.terms)(&terms.at(terms.chunk, &further.into()), unit)),
                    false => ("start", (apart.terms)(&vars, unit)),
                };
                (from, k.let_(format!("{name}_terms"), place))
            });
            let cursors = &self.cursors[if self.differ() { i } else { 0 }];
            for (cursor, next) in cursors.iter().zip(next) {
                let mut cursor = cursor.renamed(&format!("{i}_{}", terms.n));
                for level in terms.run.vars.len() + 1..=vars.len() {
                    (self.operand.enter)(k, &mut cursor, &vars[..level]);
                }
                let (index, inside) = (self.operand.at)(&cursor, &vars);
                let place = match &apart {
                    Some((from, place)) => inside.select(cursor.get(from) + place, 0u32),
                    None => index / self.vector(),
                };
                let value = self.value(k, &cursor, &vars, (place, inside.and(&there)));
                k.set(next, value);
            }
        }
    }

    /// Returns what is loaded from a place, and computed of it; 0, where it is not `inside`.
    fn value(&self, k: &mut Kernel, cursor: &Cursor, vars: &[Expr], (place, inside): (Expr, Expr)) -> Expr {
        let Some(loaded) = self.loaded else { return self.buffer.guarded(&place, &inside, false) };
        let place = k.let_(format!("{}_place", cursor.name), place);
        let extras = self.extras(k, loaded, cursor, vars);
        let mut value = loaded.apply(self.buffer.at(&place), &(&place * self.vector()), &extras);
        if let Some(kept) = loaded.kept() {
            value = k.let_(format!("{}_kept", cursor.name), value);
            let stores = cursor.get("stores").and(&inside);
            k.if_(stores, |k| k.store(kept, &place, &value));
        }
        inside.select(value, Type::F32.vector(self.vector()).zero())
    }

    /// Returns the number of the vector of channels of an element: of the innermost term, or of an index.
    fn column(&self, loaded: &Loaded, cursor: &Cursor, vars: &[Expr]) -> Expr {
        let column = match vars.last().filter(|_| self.operand.along_terms) {
            Some(term) => term.clone(),
            None if self.operand.extent.fixed == loaded.n_columns() as u64 => cursor.index().clone(),
            None => cursor.index() % loaded.n_columns(),
        };
        column / self.vector()
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
        let extras = loaded.at_column(&self.column(loaded, cursor, &[]), None);
        let vectors = if self.differ() { self.loads(tile) } else { 1 };
        if extras.iter().flatten().count() * vectors <= MAX_EXTRA_VECTORS {
            let read = |(n, extra): (usize, Option<Expr>)| extra.map(|e| k.let_(format!("{}_e{n}", cursor.name), e));
            cursor.extras = extras.into_iter().enumerate().map(read).collect();
        }
    }

    /// Returns what a prologue needs of the channel of an element, and of its sample.
    fn extras(&self, k: &mut Kernel, loaded: &Loaded, cursor: &Cursor, vars: &[Expr]) -> Vec<Expr> {
        let first = match vars.last().filter(|_| !self.operand.along_terms) {
            Some(pixel) => loaded.first_of_sample(pixel).map(|e| k.let_(format!("{}_sample", cursor.name), e)),
            None => Some(cursor.get("sample").clone()),
        };
        let read = cursor.extras.iter().cloned().chain(std::iter::repeat(None));
        let extras = loaded.at_column(&self.column(loaded, cursor, vars), first.as_ref());
        extras.into_iter().zip(read).filter_map(|(extra, read)| read.or(extra)).collect()
    }

    /// Returns the place of the first vector of a lane, whose vectors in the tile are from `at` on, of the first term of its slice.
    fn first_of_slice(&self, k: &mut Kernel, tile: Schedule, at: &Expr, slice: Option<&Expr>) -> Expr {
        let terms = slice.map_or(0u32.into(), |slice| slice * tile.k);
        let terms = if self.of_terms { terms / 4u32 } else { terms };
        k.let_(format!("first_{}", self.name), self.at(tile, (terms, at.clone())))
    }

    /// Reads what a lane multiplies of a term; of vectors of terms every four terms anew.
    fn read(
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
    fn first_staged(&self, k: &mut Kernel, tile: Schedule) -> Expr {
        let place = self.place(k, tile, 0);
        k.let_(format!("staged_{}", self.name), self.at(tile, place))
    }

    fn stage(&self, k: &mut Kernel, tile: Schedule, first: &Expr, values: &[Vec<Expr>]) {
        for (i, value) in values.iter().enumerate() {
            let [slow, fast] = self.step(tile).map(|step| Expr::from(i * step));
            k.store(&self.staged, first + self.at(tile, (slow, fast)), Expr::vector(value.clone()));
        }
    }
}
