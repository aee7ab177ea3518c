//! The tile core without workgroup memory: each lane keeps a tile of sums in registers, of which the lane side has one
//! index for each lane and the shared side is the same for all lanes.

use super::gpu;
use super::product::{
    Bound, Cursor, LONG_BATCH, Loop, MAX_ITERATIONS, MIN_ITERATIONS, Operand, Product, broadcast, candidate,
    count_product, has_eight_lanes, of_workgroup, shared_columns, store_sums,
};
use crate::{
    graph::{Candidate, Counts, DeviceClass, DeviceProfile, Epilogue, NOMINAL_BATCH},
    kernels::{
        self, Axis, Schedule,
        cost::fastest,
        language::{Buffer, Expr, Kernel, count, loop_end},
    },
    tensor::Count,
};

/// Indices of the lane side and of the shared side.
const VECTORS: [usize; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 16];
const SHARED: [usize; 21] = [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 21, 24, 28, 32, 40, 48, 56, 64];
/// Workgroups that a processor's threads take at a time.
const THREADS: f64 = 4.0;
/// Iterations of the innermost loop that a part of a sum has at most.
const PART_ITERATIONS: usize = 64;

/// Returns the lane side, which has some indices for each lane, and the shared side, whose indices are the same for all lanes.
fn sides<'p, 'a>(product: &'p Product<'a>, s: &Schedule) -> [&'p Operand<'a>; 2] {
    swapped([&product.rows, &product.columns], s)
}

/// Returns two of rows and columns as those of the lane side and the shared side, or the other way round.
fn swapped<T>([a, b]: [T; 2], s: &Schedule) -> [T; 2] {
    if s.lanes == Some(Axis::M) { [a, b] } else { [b, a] }
}

/// Returns how many indices the lane side and the shared side have.
fn sizes(s: &Schedule) -> [usize; 2] {
    swapped([s.m, s.n], s)
}

/// Returns whether the lane side and the shared side are read as pairs, and whether as pairs of indices.
fn pairs(product: &Product, s: &Schedule) -> [[bool; 2]; 2] {
    let ([a, b], [lane, shared]) = (swapped(s.pairs, s), sides(product, s));
    [[a, b], [a && !lane.along_terms, b && !shared.along_terms]]
}

/// What a part of a sum is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Partial {
    /// [`PART_ITERATIONS`] of the innermost loop.
    Iterations,
    /// All of the loop of this level, which is not the outermost.
    Loop(usize),
}

impl Product<'_> {
    /// Returns what sums are made of, if not of their terms one by one.
    fn partial(&self, terms: usize) -> Option<Partial> {
        let last = self.loops.len() - 1;
        let mut iterations = 1;
        for (level, l) in self.loops.iter().enumerate().rev() {
            let at_once = (l.step * if level == last { terms } else { 1 }) as u64;
            let own = l.to.at(NOMINAL_BATCH).div_ceil(at_once);
            if level == last && own >= 2 * PART_ITERATIONS as u64 {
                return Some(Partial::Iterations);
            }
            iterations *= own;
            if iterations >= MIN_ITERATIONS {
                return (level > 0).then_some(Partial::Loop(level));
            }
        }
        None
    }
}

/// Returns the launches of register tiles without workgroup memory.
pub(super) fn lower(product: &Product, s: Schedule, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Candidate {
    let (lanes, subgroup) = (lanes(profile), has_eight_lanes(profile));
    let core = |k: &mut Kernel, io: &Bound| Core { product, s, lanes, subgroup, io }.write(k);
    candidate(product, s, lanes, profile, epilogue, core)
}

/// Returns the invocations of a workgroup.
pub(super) fn lanes(profile: &DeviceProfile) -> usize {
    if profile.class == DeviceClass::Cpu { 8 } else { 64 }
}

/// Returns how many terms a turn of the innermost loop has: its count must be a multiple.
fn turn_terms(product: &Product, profile: &DeviceProfile) -> usize {
    let fixed = |l: &&Loop| l.from.is_none() && l.step == 1 && l.to.per_sample == 0 && l.to.fixed > 0;
    let count = product.loops.last().filter(fixed).map_or(1, |l| l.to.fixed);
    [4, 2].into_iter().find(|&n| has_eight_lanes(profile) && count.is_multiple_of(n as u64)).unwrap_or(1)
}

fn counts(product: &Product, s: &Schedule, profile: &DeviceProfile) -> Counts {
    let (tiles, terms) =
        (product.tiles(of_workgroup(s, lanes(profile)), NOMINAL_BATCH) as f64, product.terms(NOMINAL_BATCH));
    let ([lane, shared], [vectors, n_shared]) = (sides(product, s), sizes(s));
    let [[lane_pairs, shared_pairs], index_pairs] = pairs(product, s);
    let loads = |side: &Operand, indices: usize, pairs: bool| match (pairs, side.along_terms) {
        (false, _) => indices * s.k,
        (true, true) => indices * s.k / 2,
        (true, false) => indices.div_ceil(2) * s.k,
    };
    let shared_vectors = match (has_eight_lanes(profile), index_pairs[1]) {
        (true, true) => n_shared.div_ceil(16) * 2,
        (true, false) => n_shared.div_ceil(8),
        (false, _) => n_shared,
    };
    let loads = loads(lane, vectors, lane_pairs) + loads(shared, shared_vectors, shared_pairs);
    let broadcasts = if has_eight_lanes(profile) { n_shared * s.k } else { 0 };
    let turn = Counts::load(loads) + Counts::broadcast(broadcasts) + Counts::instruction(8);
    let turn = turn + Counts::madd(s.m * s.n) + Counts::next_madd(s.m * s.n * (s.k - 1));
    let entries = match &product.loops[..] {
        [] | [_] => 0.0,
        [.., last] => terms / last.to.at(NOMINAL_BATCH).div_ceil(last.step as u64).max(1) as f64,
    };
    let places = vectors / (1 + usize::from(index_pairs[0])) + shared_vectors;
    let once = Counts::enter(places) * entries + Counts::store(s.m * s.n) + Counts::instruction(150);
    (turn * (terms / s.k as f64) + once) * (tiles * (4.0 / tiles).max(1.0).sqrt())
}

/// Returns the schedule for a device, and what it counts.
pub(super) fn choose(product: &Product, profile: &DeviceProfile) -> (Counts, Schedule) {
    let (terms, k) = (product.terms(NOMINAL_BATCH), turn_terms(product, profile));
    let subgroup = has_eight_lanes(profile);
    let size = count_product(*product.rows.extent, *product.columns.extent);
    let products = size.at(NOMINAL_BATCH) as f64 * product.batch.at(NOMINAL_BATCH) as f64 * terms;
    let most = match profile.class {
        // Compilers other than llvmpipe's choke on large tiles.
        DeviceClass::Cpu if !subgroup => 64,
        DeviceClass::Cpu if products > 1.5e7 => 512,
        DeviceClass::Cpu if products < 1e6 => 64,
        DeviceClass::Cpu if products < 5e6 => 128,
        DeviceClass::Cpu => 256,
        DeviceClass::Gpu => 32,
    };
    let fits = |side: &Operand, indices: usize| {
        let fits = if side.along_terms { k > 1 } else { indices.is_multiple_of(2) };
        profile.u64_loads && subgroup && side.run > 1 && fits
    };
    let schedule = |axis: Axis, vectors: usize, shared: usize| {
        let [m, n] = if axis == Axis::M { [vectors, shared] } else { [shared, vectors] };
        let pairs = [fits(&product.rows, m), fits(&product.columns, n)];
        Schedule { k, lanes: Some(axis), pairs, ..Schedule::new(kernels::Core::Registers, [m, n]) }
    };
    let ways = [Axis::N, Axis::M].into_iter().flat_map(|axis| VECTORS.map(|vectors| (axis, vectors)));
    let ways = ways.flat_map(|(axis, vectors)| SHARED.map(|shared| schedule(axis, vectors, shared)));
    // Each index of a lane takes a GPU several registers, for where it lies.
    let few = |s: &Schedule| profile.class == DeviceClass::Cpu || sizes(s)[0] <= 8;
    let ways = ways.filter(|s| s.m * s.n <= most && few(s));
    if profile.class == DeviceClass::Gpu {
        let outer = product.loops[0].to.at(profile.batch) as f64 / product.loops[0].step as f64;
        let ways = ways.map(|s| gpu::with_splits(product, s, (lanes(profile), outer), profile));
        let (_, s) = ways.min_by(|(a, _), (b, _)| a.total_cmp(b)).unwrap_or((0.0, schedule(Axis::N, 1, 8)));
        return (Counts::default(), s);
    }
    let best = fastest(ways, profile.class, |s| counts(product, s, profile));
    let (counts, s) = best.unwrap_or((Counts::default(), schedule(Axis::N, 1, 8)));
    // By terms, not by iterations: shorter sums are also more exact.
    let long = if product.whole { iterations(product, 1).at(LONG_BATCH).div_ceil(profile.max_iterations) } else { 1 };
    let tiles = product.tiles(of_workgroup(&s, lanes(profile)), NOMINAL_BATCH) as f64;
    let outer = product.loops[0].to.at(NOMINAL_BATCH) as f64;
    let heavy = product.whole && terms * (s.m * s.n) as f64 > 50_000.0;
    let splits = if heavy && tiles < THREADS { (THREADS / tiles).ceil().min(outer / 8.0).max(1.0) } else { 1.0 };
    (counts, Schedule { split: (splits as u64).max(long) as usize, ..s })
}

/// Returns the iterations of a product's loops and its stores, all together, where the innermost takes so many terms in an iteration.
fn iterations(product: &Product, terms: usize) -> Count {
    let mut level = Count { fixed: 1, per_sample: 0 };
    let last = product.loops.len() - 1;
    let stores = Count { fixed: MAX_ITERATIONS, per_sample: 0 };
    (product.loops.iter().enumerate()).fold(stores, |all, (i, l)| {
        let at_once = (l.step * if i == last { terms } else { 1 }) as u64;
        let outer = level;
        level = count_product(outer, l.to.div_ceil(at_once));
        let parts = match i == last && product.partial(terms) == Some(Partial::Iterations) {
            true => count_product(outer, l.to.div_ceil(at_once * PART_ITERATIONS as u64)),
            false => Count::default(),
        };
        // A loop costs an iteration more than it has, each time.
        let fixed = all.fixed + outer.fixed + 2 * parts.fixed + level.fixed;
        let per_sample = all.per_sample + outer.per_sample + 2 * parts.per_sample + level.per_sample;
        Count { fixed, per_sample }
    })
}

/// What lanes load at once: one index of a side, or a pair of them.
struct Read<'p, 'a> {
    side: &'p Operand<'a>,
    buffer: &'p Buffer,
    cursors: Vec<Cursor>,
    pair: bool,
}

impl Read<'_, '_> {
    /// Loads the elements of each index for `terms` values of the last loop variable.
    fn load(&self, k: &mut Kernel, vars: &[Expr], terms: usize) -> Vec<Vec<Expr>> {
        let of_terms = self.pair && self.cursors.len() == 1;
        let mut all = vec![Vec::new(); self.cursors.len()];
        for u in (0..terms).step_by(if of_terms { 2 } else { 1 }) {
            let mut vars = vars.to_vec();
            vars.last_mut().into_iter().for_each(|last| *last = &*last + u);
            let mut cursor = self.cursors[0].renamed(&u.to_string());
            (self.side.enter)(k, &mut cursor, &vars);
            let (index, inside) = (self.side.at)(&cursor, &vars);
            let value = k.let_(format!("{}_v", cursor.name), self.buffer.guarded(&index, &inside, self.pair));
            match (self.pair, of_terms) {
                (false, _) => all[0].push(value),
                (true, true) => all[0].extend([0, 1].map(|i| value.component(i))),
                (true, false) => all.iter_mut().enumerate().for_each(|(i, v)| v.push(value.component(i))),
            }
        }
        all
    }
}

/// The core, as it is written.
struct Core<'p, 'a> {
    product: &'p Product<'a>,
    s: Schedule,
    lanes: usize,
    /// Whether the lanes are one subgroup.
    subgroup: bool,
    io: &'p Bound,
}

/// What an invocation computes: its place, and its sums.
struct Invocation<'p, 'a> {
    shared0: Expr,
    /// The part of the reduction, where it is split.
    split: Option<Expr>,
    lane_reads: Vec<Read<'p, 'a>>,
    shared_reads: Vec<Read<'p, 'a>>,
    sums: Vec<Vec<Expr>>,
    column_sums: Vec<Expr>,
}

impl<'p, 'a> Core<'p, 'a> {
    /// Declares the sums of an invocation.
    fn sums(&self, k: &mut Kernel, name: &str) -> Vec<Vec<Expr>> {
        let [vectors, shared] = sizes(&self.s);
        (0..shared).map(|r| (0..vectors).map(|j| k.var(format!("{name}{r}_{j}"), 0.0)).collect()).collect()
    }

    fn write(&self, k: &mut Kernel) {
        let (mut at, lane0) = self.enter(k);
        at.sums = self.sums(k, "c");
        let n = if self.product.sums { self.s.n } else { 0 };
        at.column_sums = (0..n).map(|i| k.var(format!("sum{i}"), 0.0)).collect();
        self.reduce(k, &mut at, &mut Vec::new(), None);
        self.store(k, &at);
        self.store_column_sums(k, &at, &lane0);
    }

    /// Finds the place of the invocation. Each index past the end is the last one again; pairs stay whole.
    fn enter(&self, k: &mut Kernel) -> (Invocation<'p, 'a>, Expr) {
        let Core { product, ref s, lanes, subgroup, io } = *self;
        let ([lane, shared], [vectors, n_shared]) = (sides(product, s), sizes(s));
        let [pairs, [lane_pairs, shared_pairs]] = pairs(product, s);
        let buffers = swapped([&io.rows, &io.columns], s);
        let (lane_tile, lane_extent, shared_extent) = (vectors * lanes, lane.extent.expr(), shared.extent.expr());
        let number = k.let_("tile", k.workgroup_index());
        let lane_tiles = k.let_("lane_tiles", (&lane_extent + (lane_tile - 1)) / lane_tile);
        let shared_tiles = k.let_("shared_tiles", (&shared_extent + (n_shared - 1)) / n_shared);
        let tiles = &lane_tiles * &shared_tiles;
        let splits = if s.split > 1 { Expr::extent("splits", s.split as u64) } else { 1u32.into() };
        k.return_if(number.at_least(&tiles * &splits * count(product.batch)));
        let own = k.lane() * if lane_pairs { 2u32 } else { 1 };
        let lane0 = k.let_("lane0", &number % &lane_tiles * lane_tile + own);
        let shared0 = k.let_("shared0", &number / &lane_tiles % &shared_tiles * n_shared);
        let split = splits.known().is_none().then(|| k.let_("split", &number / &tiles % &splits));
        k.let_("batch", &number / (&tiles * &splits));
        let cursor = |k: &mut Kernel, name: String, index: Expr, extent: &Expr, pair: bool| {
            let first = Cursor::new(k, name.clone(), index.min(extent - (1 + u32::from(pair))));
            let second = pair.then(|| Cursor::new(k, format!("{name}_odd"), &first.index + 1u32));
            [first].into_iter().chain(second).collect::<Vec<Cursor>>()
        };
        let mut lane_reads = Vec::new();
        for j in (0..vectors).step_by(1 + usize::from(lane_pairs)) {
            let cursors = cursor(k, format!("l{j}"), &lane0 + j * lanes, &lane_extent, lane_pairs);
            lane_reads.push(Read { side: lane, buffer: buffers[0], cursors, pair: pairs[0] });
        }
        let mut shared_reads = Vec::new();
        let at_once = 1 + usize::from(shared_pairs);
        let per_read = if subgroup { 8 * at_once } else { 1 };
        for v in 0..n_shared.div_ceil(per_read) {
            let own = if subgroup { k.lane() * at_once } else { Expr::from(0u32) };
            let index = &shared0 + own + v * per_read;
            let cursors = cursor(k, format!("s{v}"), index, &shared_extent, shared_pairs);
            shared_reads.push(Read { side: shared, buffer: buffers[1], cursors, pair: pairs[1] });
        }
        let mut at = Invocation { shared0, split, lane_reads, shared_reads, sums: Vec::new(), column_sums: Vec::new() };
        at.enter(k, &[]);
        (at, lane0)
    }

    /// Writes the loops from the level on whose variables are known. `parts` are the sums of the part of the reduction that is being
    /// added up.
    fn reduce(&self, k: &mut Kernel, at: &mut Invocation, vars: &mut Vec<Expr>, parts: Option<&[Vec<Expr>]>) {
        let Core { product, s, .. } = *self;
        let level = vars.len();
        let Some(l) = product.loops.get(level) else {
            return self.multiply(k, at, vars, parts);
        };
        let last = level + 1 == product.loops.len();
        let at_once = if last { s.k } else { 1 };
        let step = l.step * at_once;
        let whole = l.to.expr();
        let (start, end) = match &at.split {
            Some(split) if level == 0 => {
                let all = k.let_("all_splits", Expr::extent("splits", s.split as u64) * at_once);
                let size = k.let_("chunk", (&whole + &all - 1u32) / all * at_once);
                let start = k.let_(format!("start_{}", l.var), split * &size);
                (start.clone(), k.let_(format!("end_{}", l.var), (start + size).min(whole)))
            }
            _ => (l.from.clone().unwrap_or(0u32.into()), k.let_(format!("end_{}", l.var), loop_end(whole))),
        };
        let partial = product.partial(s.k);
        if partial == Some(Partial::Loop(level)) {
            self.in_parts(k, at, |k, at, parts| self.each(k, at, vars, [&start, &end], step, parts));
        } else if last && partial == Some(Partial::Iterations) {
            let size = step * PART_ITERATIONS;
            k.for_(format!("from_{}", l.var), start, &end, size, |k, from| {
                let until = k.let_(format!("until_{}", l.var), (from + size).min(&end));
                self.in_parts(k, at, |k, at, parts| self.each(k, at, vars, [from, &until], step, parts));
            });
        } else {
            self.each(k, at, vars, [&start, &end], step, parts);
        }
    }

    /// Writes sums of their own around `body`, which are added to the whole sums behind it.
    fn in_parts(
        &self,
        k: &mut Kernel,
        at: &mut Invocation,
        body: impl FnOnce(&mut Kernel, &mut Invocation, Option<&[Vec<Expr>]>),
    ) {
        let parts = self.sums(k, "a");
        body(k, at, Some(&parts));
        at.sums.iter().flatten().zip(parts.iter().flatten()).for_each(|(sum, part)| k.add(sum, part));
    }

    /// Writes the loop of the next level.
    fn each(
        &self,
        k: &mut Kernel,
        at: &mut Invocation,
        vars: &mut Vec<Expr>,
        [start, end]: [&Expr; 2],
        step: usize,
        parts: Option<&[Vec<Expr>]>,
    ) {
        let var = self.product.loops[vars.len()].var;
        k.for_(var, start, end, step, |k, value| {
            vars.push(value.clone());
            if vars.len() < self.product.loops.len() {
                at.enter(k, vars);
            }
            self.reduce(k, at, vars, parts);
            vars.pop();
        });
    }

    /// Writes the loads of an iteration of the innermost loop and their products.
    fn multiply(&self, k: &mut Kernel, at: &Invocation, vars: &[Expr], parts: Option<&[Vec<Expr>]>) {
        let (s, lane_rows) = (&self.s, self.s.lanes == Some(Axis::M));
        let load = |k: &mut Kernel, reads: &[Read]| -> Vec<Vec<Expr>> {
            reads.iter().flat_map(|read| read.load(k, vars, s.k)).collect()
        };
        let (lane, shared) = (load(k, &at.lane_reads), load(k, &at.shared_reads));
        let at_once = 1 + usize::from(pairs(self.product, s)[1][1]);
        for r in 0..sizes(s)[1] {
            let factor = |u: usize| match self.subgroup {
                false => shared[r][u].clone(),
                true => broadcast(
                    &shared[r / (8 * at_once) * at_once + r % at_once][u],
                    (r % (8 * at_once) / at_once) as u64,
                ),
            };
            let factors: Vec<Expr> = (0..s.k).map(|u| k.let_(format!("b{r}_{u}"), factor(u))).collect();
            for (j, values) in lane.iter().enumerate() {
                let products = factors.iter().zip(values).map(|(b, v)| b * v).reduce(|sum, product| sum + product);
                let sum = parts.map_or(&at.sums[r][j], |parts| &parts[r][j]);
                products.into_iter().for_each(|products| k.add(sum, products));
            }
            if lane_rows && self.product.sums {
                factors.iter().for_each(|b| k.add(&at.column_sums[r], b));
            }
        }
        if !lane_rows {
            at.column_sums.iter().zip(&lane).for_each(|(sum, values)| values.iter().for_each(|v| k.add(sum, v)));
        }
    }

    /// Returns an index of the shared side, the last one past the end: with pairs, the last one at an even or odd distance.
    fn shared_index(&self, at: &Invocation, r: &Expr) -> Expr {
        let extent = sides(self.product, &self.s)[1].extent.expr();
        let last = if pairs(self.product, &self.s)[1][1] { extent - 2u32 + (r & 1u32) } else { extent - 1u32 };
        (&at.shared0 + r).min(last)
    }

    /// Indices past the end are those of the last row or column again: such lanes compute and store what the last
    /// one does, so that stores need no guard.
    fn store(&self, k: &mut Kernel, at: &Invocation) {
        let Core { product, ref s, io, .. } = *self;
        let (lane_rows, shared) = (s.lanes == Some(Axis::M), sizes(s)[1]);
        let lanes: Vec<&Expr> = at.lane_reads.iter().flat_map(|r| &r.cursors).map(|c| &c.index).collect();
        let row = |k: &mut Kernel, name: &str, row: &Expr| {
            let (start, inside) = product.row(row, at.split.as_ref());
            (k.let_(format!("row{name}"), start), k.let_(format!("row{name}_in_bounds"), inside))
        };
        // What an epilogue reads once for a column of the shared side is chosen like its sums.
        let how = [self.subgroup, pairs(product, s)[1][1]];
        let shared_extras = match lane_rows {
            true => shared_columns(k, &io.finish, (&at.shared0, shared as u64), product.columns.extent.expr(), how),
            false => Vec::new(),
        };
        let rows: Vec<(Expr, Expr)> = match lane_rows {
            true => lanes.iter().enumerate().map(|(j, index)| row(k, &j.to_string(), index)).collect(),
            false => Vec::new(),
        };
        let columns: Vec<Vec<Expr>> = match lane_rows {
            true => Vec::new(),
            false => lanes.iter().enumerate().map(|(j, i)| io.finish.columns(k, &j.to_string(), i)).collect(),
        };
        let n_sums = lanes.len();
        let value = |r: usize, j: usize| match j.checked_sub(n_sums) {
            None => at.sums[r][j].clone(),
            Some(extra) => shared_extras[extra][r].clone(),
        };
        store_sums(k, [shared, n_sums + shared_extras.len()], value, |k, name, r, values| {
            let (sums, extras) = values.split_at(n_sums);
            let index = self.shared_index(at, r);
            let shared_row = if lane_rows { None } else { Some(row(k, name, &index)) };
            let column = k.let_(format!("column{name}"), index);
            let at_shared = column.clone();
            for (j, sum) in sums.iter().enumerate() {
                let ((start, inside), column, extras) = match &shared_row {
                    None => (&rows[j], &column, extras),
                    Some(row) => (row, lanes[j], &columns[j][..]),
                };
                let index = start + column;
                let value = io.finish.apply(sum, &index, extras);
                k.if_(inside, |k| k.store(&io.y, &index, value));
                let row = if lane_rows { lanes[j] } else { &at_shared };
                product.store_zeros(k, &io.y, &format!("{name}_{j}"), row, &[(column, &true.into())], 1);
            }
        });
    }

    /// Writes output 1.
    fn store_column_sums(&self, k: &mut Kernel, at: &Invocation, lane0: &Expr) {
        if !self.product.sums {
            return;
        }
        let (to, start) = self.product.sums_at(self.io, at.split.as_ref());
        let lane_rows = self.s.lanes == Some(Axis::M);
        let first = if lane_rows { lane0 } else { &at.shared0 };
        k.if_(first.equals(0u32), |k| {
            let lanes: Vec<&Expr> = at.lane_reads.iter().flat_map(|r| &r.cursors).map(|c| &c.index).collect();
            for (i, sum) in at.column_sums.iter().enumerate() {
                let column = if lane_rows { self.shared_index(at, &Expr::from(i)) } else { lanes[i].clone() };
                k.store(to, &start + column, sum);
            }
        });
    }
}

impl Invocation<'_, '_> {
    /// Computes what stays the same in the loops inside those of these variables.
    fn enter(&mut self, k: &mut Kernel, vars: &[Expr]) {
        for read in self.lane_reads.iter_mut().chain(&mut self.shared_reads) {
            (read.side.enter)(k, &mut read.cursors[0], vars);
        }
    }
}
