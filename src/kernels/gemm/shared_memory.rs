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

use super::layout::{ahead, depth, lanes, lanes_of_slice, per};
use super::part_sums::{Parts, Tile};
use super::product::{Bound, Loop, Product, candidate};
use super::side::{Run, Side, Terms, VEC4};
use super::tiles::{fills_chunks, first_inner, is_single, split_level};
use crate::{
    graph::{Candidate, DeviceProfile, Epilogue},
    kernels::{
        Schedule,
        language::{Expr, Kernel, count, loop_end, never_constant},
    },
};

/// Returns the launches of a schedule.
pub(super) fn lower(product: &Product, s: Schedule, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Candidate {
    candidate(product, s, lanes(s), profile, epilogue, |k, io| write(k, product, s, io))
}

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
        let first = k.let_("first_chunk", start);
        let load = |k: &mut Kernel, n: usize, is_full: bool| {
            let chunk = k.let_(format!("first_chunk{n}"), &first + n * depth);
            // A part of the reduction may have no chunk.
            let there = Expr::from(is_full || (n == 0 && self.split.is_none())).or(chunk.less(&end));
            let at = if full && there.known_bool() != Some(true) { chunk.min(&end - depth) } else { chunk };
            // Phases of strides may have no taps, of which none can be read.
            let any = Expr::from(loops.iter().all(|l| l.from.is_none())).or(first.less(&end));
            k.if_(any, |k| self.load(k, &run, &at, (n, full || is_full), there));
        };
        if ahead > 0 {
            load(k, 0, false);
            self.stage(k, &run, (0, !run.is_all()));
        }
        // Where a loop loads full chunks alone, registers are not copied for those that are not, nor zeros chosen.
        let loaded = (sets + ahead) * depth - 1;
        let (mut left, mut none_is_full) = (first.clone(), Expr::from(true));
        if ahead > 0 && end.known().is_none_or(|end| end > loaded as i64) {
            let last = k.let_("end_loaded", never_constant(end.max(loaded) - loaded));
            k.if_(first.less(&last), |k| {
                (1..ahead).for_each(|n| load(k, n, true));
                self.repeat(k, &run, [&first, &last], true);
            });
            let times = (last.max(&first) - &first + (sets * depth - 1)) / (sets * depth);
            left = k.let_("first_left", &first + times * (sets * depth));
            none_is_full = first.at_least(&last);
        }
        k.if_(none_is_full, |k| (1..ahead).for_each(|n| load(k, n, false)));
        // With one set of registers the loop above has left the last of chunks that are all full, which is staged.
        match full && ahead == 1 {
            true => k.if_(left.less(&end), |k| self.multiply(k, &run.firsts, 0)),
            false => self.repeat(k, &run, [&left, &end], false),
        }
    }

    /// Loads a chunk into registers, or, if it is not `there`, 0.
    fn load(&self, k: &mut Kernel, run: &Run, chunk: &Expr, (n, full): (usize, bool), there: Expr) {
        let terms = Terms { chunk, n, full, there, run };
        let sides = [&self.a, &self.b].into_iter().zip(&run.next[n]);
        sides.for_each(|(side, next)| side.load(k, self.tile, &terms, next));
    }

    /// Stages the chunk that is in these registers; if there is one `before` it, once all lanes have multiplied that.
    fn stage(&self, k: &mut Kernel, run: &Run, (n, before): (usize, bool)) {
        let next = &run.next[n];
        let sums = self.column_sums.iter().cycle();
        next[1].iter().zip(sums).for_each(|(value, sum)| k.add(sum, Expr::vector(value.clone())));
        if before {
            k.barrier();
        }
        let staged = [&self.a, &self.b].into_iter().zip(next).zip(&run.staged);
        staged.for_each(|((side, next), at)| side.stage(k, self.tile, at, next));
        k.barrier();
    }

    /// Writes a loop over chunks: if it is `whole`, all that it loads are full. Where chunks are loaded ahead, the first one is staged.
    fn repeat(&self, k: &mut Kernel, run: &Run, [first, end]: [&Expr; 2], whole: bool) {
        let (depth, ahead, sets) = (depth(self.tile), ahead(self.tile), run.next.len());
        let full = whole || run.full;
        let inside = |chunk: &Expr| Expr::from(whole).or(chunk.less(run.end));
        k.for_("chunks", first, end, sets * depth, |k, chunks| {
            for n in 0..sets {
                let chunk = k.let_(format!("chunk{n}"), chunks + n * depth);
                let multiply = |k: &mut Kernel| {
                    if ahead == 0 {
                        self.load(k, run, &chunk, (n, full), true.into());
                    }
                    if ahead == 0 || n > 0 {
                        self.stage(k, run, (n, true));
                    }
                    if ahead > 0 {
                        if n == 0 && !whole {
                            run.next[0].iter().flatten().flatten().for_each(|r| k.set(r, r.ty().zero()));
                        }
                        let chunk = k.let_(format!("next_chunk{n}"), &chunk + ahead * depth);
                        k.if_(inside(&chunk), |k| self.load(k, run, &chunk, (n, full), true.into()));
                    }
                    self.multiply(k, &run.firsts, n);
                };
                k.if_(Expr::from(n == 0).or(inside(&chunk)), multiply);
            }
            if ahead > 0 {
                let chunk = k.let_(format!("chunk{sets}"), chunks + sets * depth);
                k.if_(inside(&chunk), |k| self.stage(k, run, (0, true)));
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
