//! The implicit-GEMM generator: operand loaders × tile core × epilogue.
//!
//! `y[row, column] = Σ a(row, k) · b(column, k)`, where loaders say what `a` and `b` are. The tile core for processors
//! keeps a register tile per workgroup and needs neither barriers nor workgroup memory: one side of the tile (the
//! lane side) has one index per lane, the other (the shared side) is the same for all lanes. The one for graphics
//! processors (`shared`) stages both sides in workgroup memory.

mod filter;
mod row;
mod shared;
mod spread;
mod strip;
mod window;

pub use filter::Filter;
pub use window::{Window, window};

use super::{broadcast_index, dispatch, load, storage_type};
use crate::{
    graph::{Candidate, DeviceClass, DeviceProfile, Epilogue, Grid, Slot},
    tensor::{Count, Shape},
};
use std::fmt::Write as _;

/// The batch for which tiles are chosen; every batch runs.
const NOMINAL_BATCH: usize = 64;

/// Up to this batch at least, sums are cut into parts so short that a driver does not end their loops.
pub const LONG_BATCH: usize = 128;

/// One level of the reduction, outermost first.
pub struct Loop {
    /// Name of the loop variable.
    pub var: &'static str,
    /// How often it runs.
    pub to: Count,
    /// WGSL expression of its first value, where that is not 0.
    pub from: Option<String>,
    /// Its step.
    pub step: usize,
    /// Statements at the head of the body.
    pub head: String,
}

impl Loop {
    /// Returns a loop over `0..to`.
    pub fn new(var: &'static str, to: Count) -> Self {
        Loop { var, to, from: None, step: 1, head: String::new() }
    }
}

/// How one side of a product is read.
pub struct Operand<'a> {
    /// Number of indices.
    pub extent: Count,
    /// Statements, before the loops (level 0) or at the head of loop `level - 1`, for the index expression
    /// `index` under the name prefix `name`.
    pub enter: &'a dyn Fn(usize, &str, &str) -> String,
    /// The element at the current place of the reduction, for a name prefix, as [`read`] reads it: alone, or with the
    /// one behind it in memory as a vector.
    pub value: &'a dyn Fn(&str, bool) -> String,
    /// The input that is read, where pairs of neighbours in memory start at even places and are there together.
    pub pairs: Option<&'static str>,
    /// Whether neighbours in memory are neighbouring terms of the innermost loop, else neighbouring indices.
    pub along_terms: bool,
}

/// Where a row of the result lies, if not row after row.
///
/// Gets a row expression; returns the WGSL expressions of the row's place and of whether it is there.
pub type Place<'a> = &'a dyn Fn(&str) -> (String, String);

/// A product to generate a kernel for.
pub struct Product<'a> {
    /// Name of the kernel.
    pub name: &'static str,
    /// Declarations of the inputs, bound at 1, 2, ….
    pub declarations: String,
    /// What they are bound to.
    pub slots: Vec<Slot>,
    /// Independent products; loaders find the number in `batch`.
    pub batch: Count,
    /// Statements that need `batch` and nothing else.
    pub head: String,
    /// The rows of the result.
    pub rows: Operand<'a>,
    /// The columns of the result: contiguous, fixed in number.
    pub columns: Operand<'a>,
    /// The reduction, outermost first; the outermost can be split.
    pub loops: Vec<Loop>,
    /// Where rows lie.
    pub place: Option<Place<'a>>,
    /// Whether every row of the product is a row of the result, so that the reduction can be split.
    pub whole: bool,
    /// Whether output 1 is the sum of `columns` over the reduction.
    pub sums: bool,
}

/// Turns of the innermost loop that a part of a sum takes at most, and a part's at least: partial sums that are added
/// in turn round less than one long sum.
const PART_TURNS: u64 = 64;
const LEAST_TURNS: u64 = 16;

/// What a part of a sum is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Partial {
    /// [`PART_TURNS`] of the innermost loop.
    Turns,
    /// All of the loop of this level, which is not the outermost.
    Loop(usize),
}

impl Product<'_> {
    /// Returns what sums are made of, if not of their terms one by one.
    fn partial(&self, terms: u64) -> Option<Partial> {
        let last = self.loops.len() - 1;
        let mut turns = 1;
        for (level, l) in self.loops.iter().enumerate().rev() {
            let at_once = l.step as u64 * if level == last { terms } else { 1 };
            let own = l.to.at(NOMINAL_BATCH).div_ceil(at_once);
            if level == last && own >= 2 * PART_TURNS {
                return Some(Partial::Turns);
            }
            turns *= own;
            if turns >= LEAST_TURNS {
                return (level > 0).then_some(Partial::Loop(level));
            }
        }
        None
    }

    /// Returns how many values output 1 has.
    fn sums(&self) -> u64 {
        if self.sums { self.columns.extent.fixed * self.batch.fixed } else { 0 }
    }
}

/// The shape of a register tile.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Tile {
    lanes: u64,
    lane_rows: bool,
    shared: u64,
    vectors: u64,
    subgroup: bool,
    splits: u64,
    /// Terms in one turn of the innermost loop.
    terms: u64,
    /// Whether the lane side and the shared side are read as pairs.
    pairs: [bool; 2],
}

impl Tile {
    /// Returns whether pairs of indices of the lane side and of the shared side are read at once.
    fn index_pairs(self, product: &Product) -> [bool; 2] {
        let (lane, shared) = sides(product, self.lane_rows);
        [self.pairs[0] && !lane.along_terms, self.pairs[1] && !shared.along_terms]
    }
}

/// Returns a count as WGSL.
pub fn wgsl_count(count: Count) -> String {
    match (count.fixed, count.per_sample) {
        (fixed, 0) => format!("{fixed}u"),
        (0, 1) => "step.n".into(),
        (0, per_sample) => format!("({per_sample}u * step.n)"),
        (fixed, per_sample) => format!("({fixed}u + {per_sample}u * step.n)"),
    }
}

/// Returns the count of pairs of two counts, of which at most one grows with the batch.
pub fn count_product(a: Count, b: Count) -> Count {
    let fixed = a.fixed * b.fixed;
    Count { fixed, per_sample: a.per_sample * b.fixed + a.fixed * b.per_sample }
}

/// The part of an epilogue that a core can hoist: extras that depend on the column alone.
pub(super) struct Finish<'a> {
    epilogue: Option<&'a Epilogue>,
    columns: u64,
}

impl<'a> Finish<'a> {
    pub(super) fn new(epilogue: Option<&'a Epilogue>, columns: u64) -> Self {
        Finish { epilogue, columns }
    }

    fn by_column(&self, shape: &Shape) -> bool {
        !shape.is_batched() && shape.last() as u64 == self.columns && shape.elements().fixed == self.columns
    }

    /// Returns the function `finish(value, flat index, column extras …)`.
    fn function(&self) -> String {
        let Some(epilogue) = self.epilogue else {
            return "fn finish(v: f32, i: u32) -> f32 { return v; }\n".into();
        };
        let mut inputs = vec!["v".to_owned()];
        let mut parameters = String::from("v: f32, i: u32");
        for (k, extra) in epilogue.extras.iter().enumerate() {
            inputs.push(if self.by_column(&extra.shape) {
                let _ = write!(parameters, ", e{k}: f32");
                format!("e{k}")
            } else {
                load(&format!("extra{k}"), extra.dtype, &broadcast_index(&epilogue.shape, &extra.shape, "i"))
            });
        }
        let (body, result) = epilogue.program.wgsl(&inputs);
        format!("fn finish({parameters}) -> f32 {{\n{body}    return {result};\n}}\n")
    }

    /// Returns statements that load the column extras of a column, under names with `suffix`.
    fn load_column(&self, suffix: &str, column: &str) -> String {
        let mut text = String::new();
        for (k, extra) in self.column_extras() {
            let _ = writeln!(text, "    let e{k}_{suffix} = {};", load(&format!("extra{k}"), extra, column));
        }
        text
    }

    /// Returns statements that load the column extras of `count` columns from `first` on, the same for all lanes.
    ///
    /// Past the end it is the last column, or with `pairs` the last one at an even or odd distance from `first`.
    fn load_shared(&self, first: &str, count: u64, subgroup: bool, pairs: bool) -> String {
        let (mut text, last) = (String::new(), self.columns - 1);
        let lane_last = if pairs { format!("{}u + (lane & 1u)", last - 1) } else { format!("{last}u") };
        for (k, dtype) in self.column_extras() {
            for c in 0..count {
                if subgroup && c % 8 == 0 {
                    let at = load(&format!("extra{k}"), dtype, &format!("min({first} + {c}u + lane, {lane_last})"));
                    let _ = writeln!(text, "    let v{k}_{c} = {at};");
                }
                let value = if subgroup {
                    format!("subgroupBroadcast(v{k}_{}, {}u)", c / 8 * 8, c % 8)
                } else {
                    load(&format!("extra{k}"), dtype, &format!("min({first} + {c}u, {last}u)"))
                };
                let _ = writeln!(text, "    let e{k}_{c} = {value};");
            }
        }
        text
    }

    /// Returns the call of `finish`.
    fn call(&self, value: &str, index: &str, suffix: &str) -> String {
        let mut text = format!("finish({value}, {index}");
        for (k, _) in self.column_extras() {
            let _ = write!(text, ", e{k}_{suffix}");
        }
        text + ")"
    }

    fn column_extras(&self) -> impl Iterator<Item = (usize, crate::tensor::DType)> {
        let extras = self.epilogue.map_or(&[][..], |e| &e.extras);
        extras.iter().enumerate().filter(|(_, e)| self.by_column(&e.shape)).map(|(k, e)| (k, e.dtype))
    }
}

/// Returns ways to compute a product, the one that needs no timing first.
pub fn lower(product: &Product, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
    lower_with([], product, profile, epilogue)
}

/// Returns the estimated nanoseconds and the launches of register tiles without workgroup memory.
fn register_tiles(product: &Product, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> (f64, Candidate) {
    let (time, tile) = choose(product, profile);
    let Tile { lane_rows, shared, vectors, splits, terms, pairs, .. } = tile;
    let side = if lane_rows { "rows" } else { "columns" };
    let wide = pairs.iter().filter(|&&p| p).count();
    let variant = format!("lanes_{side}_{shared}x{vectors}x{terms}_pairs{wide}_split{splits}");
    let inner: u64 = product.loops[1..].iter().map(|l| l.to.fixed).product();
    let turns = turns(product, terms);
    let rest = if splits > 1 { 2 * inner * splits } else { 0 };
    let turns = Count { fixed: turns.fixed + rest, ..turns };
    let kernel = |finish: &Finish, split| tile_kernel(product, tile, finish, split);
    (time, candidate(product, variant, tile, turns, epilogue, kernel))
}

/// Returns the launches of a kernel, given by its text behind its declarations for whether the reduction is split.
fn candidate(
    product: &Product,
    variant: String,
    tile: Tile,
    turns: Count,
    epilogue: Option<&Epilogue>,
    kernel: impl Fn(&Finish, bool) -> String,
) -> Candidate {
    let splits = tile.splits;
    let columns = product.columns.extent.fixed;
    let finish = Finish::new(epilogue, columns);
    let n_inputs = product.slots.len();
    let split = splits > 1;
    let outputs = 1 + u64::from(product.sums);
    let mut slots = product.slots.clone();
    let mut declarations = product.declarations.clone();
    let (lane, shared) = sides(product, tile.lane_rows);
    for name in [lane, shared].into_iter().zip(tile.pairs).filter_map(|(o, pairs)| o.pairs.filter(|_| pairs)) {
        declarations = declarations.replace(&format!(" {name}: array<f32>"), &format!(" {name}: array<u64>"));
        declarations.push_str(&pair(name));
    }
    if split {
        slots.push(Slot::Scratch(0));
        let _ = writeln!(declarations, "@group(0) @binding({}) var<storage, read_write> y: array<f32>;", n_inputs + 1);
    } else {
        declare_outputs(&mut declarations, &mut slots, outputs, n_inputs + 1);
    }
    let body = declarations + &kernel(&finish, split);
    let main = dispatch(product.name, &body, &[], grid(product, tile), slots, epilogue.filter(|_| !split));
    let main = main.turns(turns, splits);
    if !split {
        return Candidate::single(variant, main);
    }
    let elements = count_product(product.rows.extent, product.columns.extent);
    let elements = count_product(elements, product.batch);
    let sums = product.sums();
    let elements = Count { fixed: elements.fixed + sums, ..elements };
    let sum = split_sum(sums, elements, splits, &finish, epilogue);
    let scratch = Count { fixed: elements.fixed * 4 * splits, per_sample: elements.per_sample * 4 * splits };
    Candidate { variant, dispatches: vec![main, sum], scratch_bytes: vec![scratch] }
}

fn declare_outputs(text: &mut String, slots: &mut Vec<Slot>, outputs: u64, first: usize) {
    for k in 0..outputs as usize {
        slots.push(Slot::output(k));
        let name = if k == 0 { "y" } else { "sums" };
        let _ = writeln!(text, "@group(0) @binding({}) var<storage, read_write> {name}: array<f32>;", first + k);
    }
}

fn grid(product: &Product, tile: Tile) -> Grid {
    let (lane, shared) = sides(product, tile.lane_rows);
    let lane_tile = tile.vectors * tile.lanes;
    let tiles = |extent: Count, size: u64| -> (Count, u64) {
        match extent.per_sample {
            0 => (Count { fixed: extent.fixed.div_ceil(size), per_sample: 0 }, 1),
            per_sample => (Count { fixed: size - 1, per_sample }, size),
        }
    };
    let (lane_tiles, a) = tiles(lane.extent, lane_tile);
    let (shared_tiles, b) = tiles(shared.extent, tile.shared);
    let all = count_product(count_product(lane_tiles, shared_tiles), product.batch).times(tile.splits);
    Grid::new(all, (a * b) as u32)
}

fn sides<'p, 'a>(product: &'p Product<'a>, lane_rows: bool) -> (&'p Operand<'a>, &'p Operand<'a>) {
    if lane_rows { (&product.rows, &product.columns) } else { (&product.columns, &product.rows) }
}

/// Nanoseconds on lavapipe: a load of one element by each of 8 lanes from a storage or uniform buffer, a broadcast, a multiply and add in and
/// out of registers, a store.
pub(super) const LOAD: f64 = 50.0;
const UNIFORM_LOAD: f64 = 5.0;
const BROADCAST: f64 = 1.2;
pub(super) const MADD: f64 = 1.0;
/// Another multiply and add to the same sum.
const NEXT_MADD: f64 = 0.5;
pub(super) const STORE: f64 = 20.0;
/// What a lane computes for each place that it reads, before the innermost loop.
const ENTER: f64 = 20.0;
/// A launch.
const LAUNCH: f64 = 7_000.0;

/// Returns the way that takes the least time, the first of equal ones, with its time.
fn fastest<T>(ways: impl Iterator<Item = T>, time: impl Fn(&T) -> f64) -> Option<(f64, T)> {
    ways.map(|way| (time(&way), way)).min_by(|(a, _), (b, _)| a.total_cmp(b))
}

/// Returns whether a workgroup of 8 is one subgroup on a processor: there a broadcast costs less than a load.
fn lanes_of_eight(profile: &DeviceProfile) -> bool {
    profile.class == DeviceClass::Cpu && profile.subgroup_lanes == 8
}

/// Returns the nanoseconds of one turn of the innermost loop, and the different places that it reads.
fn turn_time(product: &Product, tile: Tile) -> (f64, u64) {
    let (lane, shared) = sides(product, tile.lane_rows);
    let loads = |side: &Operand, indices: u64, pairs: bool| match (pairs, side.along_terms) {
        (false, _) => indices * tile.terms,
        (true, true) => indices * tile.terms / 2,
        (true, false) => indices.div_ceil(2) * tile.terms,
    };
    let shared_vectors = match (tile.subgroup, tile.index_pairs(product)[1]) {
        (true, true) => tile.shared.div_ceil(16) * 2,
        (true, false) => tile.shared.div_ceil(8),
        (false, _) => tile.shared,
    };
    let loads = loads(lane, tile.vectors, tile.pairs[0]) + loads(shared, shared_vectors, tile.pairs[1]);
    let broadcasts = if tile.subgroup { (tile.shared * tile.terms) as f64 * BROADCAST } else { 0.0 };
    let sums = (tile.vectors * tile.shared) as f64;
    let places = tile.vectors / (1 + u64::from(tile.index_pairs(product)[0])) + shared_vectors;
    let time = loads as f64 * LOAD + broadcasts + sums * (MADD + (tile.terms - 1) as f64 * NEXT_MADD) + 8.0;
    (time, places)
}

/// Returns how many terms a turn of the innermost loop has: its count must be a multiple.
fn turn_terms(product: &Product, profile: &DeviceProfile) -> u64 {
    let fixed = |l: &&Loop| l.from.is_none() && l.step == 1 && l.to.per_sample == 0 && l.to.fixed > 0;
    let count = product.loops.last().filter(fixed).map_or(1, |l| l.to.fixed);
    [4, 2].into_iter().find(|&n| lanes_of_eight(profile) && count.is_multiple_of(n)).unwrap_or(1)
}

fn choose(product: &Product, profile: &DeviceProfile) -> (f64, Tile) {
    let terms = product.loops.iter().map(|l| l.to.at(NOMINAL_BATCH).div_ceil(l.step as u64) as f64).product::<f64>();
    let lanes = if profile.class == DeviceClass::Cpu { 8u64 } else { 64 };
    let subgroup = lanes_of_eight(profile);
    let per_turn = turn_terms(product, profile);
    let entries = match &product.loops[..] {
        [_] => 0.0,
        [.., last] => terms / last.to.at(NOMINAL_BATCH).div_ceil(last.step as u64).max(1) as f64,
        [] => 0.0,
    };
    let size = count_product(product.rows.extent, product.columns.extent);
    let products = size.at(NOMINAL_BATCH) as f64 * product.batch.at(NOMINAL_BATCH) as f64 * terms;
    let most = match profile.class {
        // Compilers other than llvmpipe's choke on large tiles.
        DeviceClass::Cpu if !subgroup => 64,
        DeviceClass::Cpu if products > 1.5e7 => 512,
        DeviceClass::Cpu => 256,
        DeviceClass::Gpu => 32,
    };
    let batch = product.batch.at(NOMINAL_BATCH);
    // By terms, not by turns: shorter sums are also more exact.
    let long = if product.whole { turns(product, 1).at(LONG_BATCH).div_ceil(profile.max_turns) } else { 1 };
    let mut best: Option<(f64, Tile)> = None;
    for lane_rows in [false, true] {
        let (lane, shared_side) = sides(product, lane_rows);
        let (n_lane, n_shared) = (lane.extent.at(NOMINAL_BATCH), shared_side.extent.at(NOMINAL_BATCH));
        for vectors in [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 16] {
            for shared in [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 21, 24, 28, 32, 40, 48, 56, 64] {
                if vectors * shared > most {
                    continue;
                }
                let pairs = [(lane, vectors), (shared_side, shared)].map(|(side, indices)| {
                    let fits = if side.along_terms { per_turn > 1 } else { indices % 2 == 0 };
                    profile.wide_words && subgroup && side.pairs.is_some() && fits
                });
                let mut tile = Tile { lanes, lane_rows, shared, vectors, subgroup, splits: 1, terms: per_turn, pairs };
                let tiles = (n_lane.div_ceil(vectors * lanes) * n_shared.div_ceil(shared) * batch) as f64;
                let (turn, places) = turn_time(product, tile);
                let term = turn / per_turn as f64;
                let enter = entries * places as f64 * ENTER;
                let time = tiles * (terms * term + enter + (vectors * shared) as f64 * STORE + 150.0);
                let time = time * (4.0 / tiles).max(1.0).sqrt();
                if best.as_ref().is_none_or(|(t, _)| time < *t) {
                    let want = if profile.class == DeviceClass::Cpu { 4.0 } else { 256.0 };
                    let heavy = product.whole && terms * (vectors * shared) as f64 > 50_000.0;
                    let outer = product.loops[0].to.at(NOMINAL_BATCH) as f64;
                    let splits =
                        if heavy && tiles < want { (want / tiles).ceil().min(outer / 8.0).max(1.0) } else { 1.0 };
                    tile.splits = (splits as u64).max(long);
                    best = Some((time, tile));
                }
            }
        }
    }
    let rest = Tile {
        lanes,
        lane_rows: false,
        shared: 8,
        vectors: 1,
        subgroup,
        splits: 1,
        terms: per_turn,
        pairs: [false; 2],
    };
    best.unwrap_or((0.0, rest))
}

/// Returns the turns of a product's loops, all together, where the innermost takes so many terms in a turn.
fn turns(product: &Product, terms: u64) -> Count {
    let mut level = Count { fixed: 1, per_sample: 0 };
    let last = product.loops.len() - 1;
    (product.loops.iter().enumerate()).fold(Count::default(), |all, (i, l)| {
        let at_once = l.step as u64 * if i == last { terms } else { 1 };
        let outer = level;
        level = count_product(outer, l.to.div_ceil(at_once));
        let parts = match i == last && product.partial(terms) == Some(Partial::Turns) {
            true => count_product(outer, l.to.div_ceil(at_once * PART_TURNS)),
            false => Count::default(),
        };
        let fixed = all.fixed + parts.fixed + level.fixed;
        Count { fixed, per_sample: all.per_sample + parts.per_sample + level.per_sample }
    })
}

/// What lanes load at once: one index of a side, or a pair of them.
struct Read<'p, 'a> {
    side: &'p Operand<'a>,
    /// Name prefixes of the indices.
    names: Vec<String>,
    pair: bool,
}

impl Read<'_, '_> {
    /// Writes the loads for all terms of a turn: term `u` of an index is `NAME_v{u}`.
    fn load(&self, t: &mut String, level: usize, var: &str, terms: u64) {
        let first = &self.names[0];
        let of_terms = self.pair && self.names.len() == 1;
        for name in &self.names {
            for u in 0..terms {
                let _ = writeln!(t, "    var {name}_v{u}: f32;");
            }
        }
        for u in (0..terms).step_by(if of_terms { 2 } else { 1 }) {
            let _ = writeln!(t, "    {{\n    let {var} = {var} + {u}u;");
            t.push_str(&(self.side.enter)(level, first, &format!("{first}_i")));
            let value = (self.side.value)(first, self.pair);
            let _ = match &self.names[..] {
                _ if of_terms => {
                    writeln!(t, "    let pair = {value};\n    {first}_v{u} = pair.x;\n    {first}_v{} = pair.y;", u + 1)
                }
                [a, b] => writeln!(t, "    let pair = {value};\n    {a}_v{u} = pair.x;\n    {b}_v{u} = pair.y;"),
                _ => writeln!(t, "    {first}_v{u} = {value};"),
            };
            t.push_str("    }\n");
        }
    }
}

fn tile_kernel(product: &Product, tile: Tile, finish: &Finish, split: bool) -> String {
    let Tile { lanes, lane_rows, shared: n_shared, vectors, subgroup, splits, terms, pairs } = tile;
    let (lane, shared) = sides(product, lane_rows);
    let [lane_pairs, shared_pairs] = tile.index_pairs(product);
    let (lane_tile, n_lane) = (vectors * lanes, wgsl_count(lane.extent));
    let n_shared_all = wgsl_count(shared.extent);
    let mut t = if split { String::new() } else { finish.function() };
    let _ = write!(
        t,
        "@compute @workgroup_size({lanes})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {{
    let tile = id.x + id.y * counts.x;
    let lane_tiles = ({n_lane} + {}u) / {lane_tile}u;
    let shared_tiles = ({n_shared_all} + {}u) / {n_shared}u;
    let tiles = lane_tiles * shared_tiles * {splits}u * {};
    if (tile >= tiles) {{ return; }}
    let lane0 = (tile % lane_tiles) * {lane_tile}u + lane{};
    let shared0 = ((tile / lane_tiles) % shared_tiles) * {n_shared}u;
    let part = (tile / (lane_tiles * shared_tiles)) % {splits}u;
    let batch = tile / (lane_tiles * shared_tiles * {splits}u);
",
        lane_tile - 1,
        n_shared - 1,
        wgsl_count(product.batch),
        if lane_pairs { " * 2u" } else { "" },
    );
    t.push_str(&product.head);
    let mut reads: Vec<Read> = Vec::new();
    // Each index past the end is the last one again; pairs stay whole.
    let place = |t: &mut String, name: &str, index: String, extent: &str, pair: bool| {
        let _ = writeln!(t, "    let {name}_i = min({index}, {extent} - {}u);", 1 + u64::from(pair));
    };
    for j in (0..vectors).step_by(1 + usize::from(lane_pairs)) {
        let mut names = vec![format!("l{j}")];
        place(&mut t, &names[0], format!("lane0 + {}u", j * lanes), &n_lane, lane_pairs);
        if lane_pairs {
            names.push(format!("l{}", j + 1));
            let _ = writeln!(t, "    let l{}_i = l{j}_i + 1u;", j + 1);
        }
        reads.push(Read { side: lane, names, pair: pairs[0] });
    }
    let per_vector = if !subgroup { 1 } else { 8 * (1 + u64::from(shared_pairs)) };
    for v in 0..n_shared.div_ceil(per_vector) {
        let mut names = vec![format!("s{v}")];
        let scale = match (subgroup, shared_pairs) {
            (false, _) => "",
            (true, false) => " + lane",
            (true, true) => " + lane * 2u",
        };
        place(&mut t, &names[0], format!("shared0{scale} + {}u", v * per_vector), &n_shared_all, shared_pairs);
        if shared_pairs {
            names.push(format!("s{v}odd"));
        }
        reads.push(Read { side: shared, names, pair: pairs[1] });
    }
    for read in &reads {
        let name = &read.names[0];
        t.push_str(&(read.side.enter)(0, name, &format!("{name}_i")));
    }
    for r in 0..n_shared {
        for j in 0..vectors {
            let _ = writeln!(t, "    var c{r}_{j} = 0.0;");
        }
    }
    let n_sums = if !product.sums {
        0
    } else if lane_rows {
        n_shared
    } else {
        vectors
    };
    for k in 0..n_sums {
        let _ = writeln!(t, "    var sum{k} = 0.0;");
    }
    let last = product.loops.len() - 1;
    let partial = product.partial(terms);
    let (sum, part) = if partial.is_some() { ("a", "c") } else { ("c", "") };
    let each_sum = |t: &mut String, line: &dyn Fn(String) -> String| {
        for r in 0..n_shared {
            (0..vectors).for_each(|j| t.push_str(&line(format!("{r}_{j}"))));
        }
    };
    let zeros = |t: &mut String| each_sum(t, &|at| format!("    var {sum}{at} = 0.0;\n"));
    let totals = |t: &mut String| each_sum(t, &|at| format!("    {part}{at} += {sum}{at};\n"));
    for (level, l) in product.loops.iter().enumerate() {
        let (var, whole, from) = (l.var, wgsl_count(l.to), l.from.as_deref().unwrap_or("0u"));
        let step = l.step as u64 * if level == last { terms } else { 1 };
        let _ = if level == 0 && splits > 1 {
            let per_turn = if level == last { terms } else { 1 };
            writeln!(
                t,
                "    let chunk = ({whole} + {}u) / {}u * {per_turn}u;\n    let start_{var} = part * chunk;\n    \
                 let end_{var} = min(start_{var} + chunk, {whole});",
                splits * per_turn - 1,
                splits * per_turn
            )
        } else {
            writeln!(t, "    let start_{var} = {from};\n    let end_{var} = {whole};")
        };
        if partial == Some(Partial::Loop(level)) {
            zeros(&mut t);
        }
        let (mut start, mut end) = (format!("start_{var}"), format!("end_{var}"));
        if level == last && partial == Some(Partial::Turns) {
            let turns = step * PART_TURNS;
            let _ = writeln!(
                t,
                "    for (var from_{var} = {start}; from_{var} < {end}; from_{var} += {turns}u) {{
    let until_{var} = min(from_{var} + {turns}u, {end});"
            );
            (start, end) = (format!("from_{var}"), format!("until_{var}"));
            zeros(&mut t);
        }
        let step = if step == 1 { format!("{var}++") } else { format!("{var} += {step}u") };
        let _ = writeln!(t, "    for (var {var} = {start}; {var} < {end}; {step}) {{");
        t.push_str(&l.head);
        for read in reads.iter().filter(|_| level < last) {
            let name = &read.names[0];
            t.push_str(&(read.side.enter)(level + 1, name, &format!("{name}_i")));
        }
    }
    for read in &reads {
        read.load(&mut t, last + 1, product.loops[last].var, terms);
    }
    for r in 0..n_shared {
        let factors: Vec<String> = (0..terms)
            .map(|u| match (subgroup, shared_pairs) {
                (false, _) => format!("s{r}_v{u}"),
                (true, false) => format!("subgroupBroadcast(s{}_v{u}, {}u)", r / 8, r % 8),
                (true, true) => {
                    let odd = if r % 2 == 1 { "odd" } else { "" };
                    format!("subgroupBroadcast(s{}{odd}_v{u}, {}u)", r / 16, r % 16 / 2)
                }
            })
            .collect();
        for (u, factor) in factors.iter().enumerate() {
            let _ = writeln!(t, "    let b{r}_{u} = {factor};");
        }
        for j in 0..vectors {
            let terms: Vec<String> = (0..terms).map(|u| format!("b{r}_{u} * l{j}_v{u}")).collect();
            let _ = writeln!(t, "    {sum}{r}_{j} += {};", terms.join(" + "));
        }
        if lane_rows && product.sums {
            for u in 0..terms {
                let _ = writeln!(t, "    sum{r} += b{r}_{u};");
            }
        }
    }
    if !lane_rows {
        for j in 0..n_sums {
            for u in 0..terms {
                let _ = writeln!(t, "    sum{j} += l{j}_v{u};");
            }
        }
    }
    for level in (0..product.loops.len()).rev() {
        t.push_str("    }\n");
        if partial == Some(Partial::Loop(level)) {
            totals(&mut t);
        } else if level == last && partial == Some(Partial::Turns) {
            totals(&mut t);
            t.push_str("    }\n");
        }
    }
    stores(&mut t, product, tile, finish, split);
    t.push_str("}\n");
    t
}

/// Indices past the end are those of the last row or column again: such lanes compute and store what the last
/// one does, so that stores need no guard.
fn stores(t: &mut String, product: &Product, tile: Tile, finish: &Finish, split: bool) {
    let Tile { lane_rows, shared, vectors, subgroup, .. } = tile;
    let shared_pairs = tile.index_pairs(product)[1];
    // With pairs, the last one at an even or odd distance from the first.
    let past = |k: u64| if shared_pairs { 2 - k % 2 } else { 1 };
    let (n_rows, n_columns) = if lane_rows { (vectors, shared) } else { (shared, vectors) };
    let columns = product.columns.extent.fixed;
    let rows = wgsl_count(product.rows.extent);
    let batches = wgsl_count(product.batch);
    let elements = format!("({batches} * {rows} * {columns}u + {}u)", product.sums());
    let part = if split { format!("part * {elements} + ") } else { String::new() };
    for k in 0..n_rows {
        let row = if lane_rows { format!("l{k}_i") } else { format!("min(shared0 + {k}u, {rows} - {}u)", past(k)) };
        let (place, there) = product.place.map_or((format!("(batch * {rows} + {row})"), None), |place| {
            let (place, there) = place(&row);
            (place, Some(there))
        });
        let _ = writeln!(t, "    let row{k} = {part}{place} * {columns}u;");
        if let Some(there) = there {
            let _ = writeln!(t, "    let row{k}_there = {there};");
        }
    }
    for k in 0..n_columns {
        let column = if lane_rows { format!("min(shared0 + {k}u, {}u)", columns - past(k)) } else { format!("l{k}_i") };
        let _ = writeln!(t, "    let column{k} = {column};");
    }
    if !split {
        if lane_rows {
            t.push_str(&finish.load_shared("shared0", shared, subgroup, shared_pairs));
        } else {
            (0..vectors).for_each(|j| t.push_str(&finish.load_column(&j.to_string(), &format!("column{j}"))));
        }
    }
    for r in 0..shared {
        for j in 0..vectors {
            let (row, column) = if lane_rows { (j, r) } else { (r, j) };
            let index = format!("row{row} + column{column}");
            let value = format!("c{r}_{j}");
            let value = if split { value } else { finish.call(&value, &index, &column.to_string()) };
            let store = format!("y[{index}] = {value};");
            let _ = match product.place {
                None => writeln!(t, "    {store}"),
                Some(_) => writeln!(t, "    if (row{row}_there) {{ {store} }}"),
            };
        }
    }
    if product.sums {
        let at = if split {
            format!("y[(part + 1u) * {elements} - {}u + batch * {columns}u + ", product.sums())
        } else {
            format!("sums[batch * {columns}u + ")
        };
        let first = if lane_rows { "lane0 == 0u" } else { "shared0 == 0u" };
        let _ = writeln!(t, "    if ({first}) {{");
        for k in 0..n_columns {
            let _ = writeln!(t, "    {at}column{k}] = sum{k};");
        }
        t.push_str("    }\n");
    }
}

/// Returns the launch that adds the parts of a split reduction in order; the last `sums` elements are output 1.
pub(super) fn split_sum(
    sums: u64,
    elements: Count,
    splits: u64,
    finish: &Finish,
    epilogue: Option<&Epilogue>,
) -> crate::graph::Dispatch {
    let columns = finish.columns;
    let mut slots = vec![Slot::Scratch(0)];
    let mut t = "@group(0) @binding(1) var<storage, read> parts: array<f32>;\n".to_owned();
    declare_outputs(&mut t, &mut slots, if sums > 0 { 2 } else { 1 }, 2);
    t.push_str(&finish.function());
    let total = wgsl_count(elements);
    let value = finish.call("sum", "i", "0");
    let store = if sums > 0 {
        let fixed = elements.fixed - sums;
        format!("if (i < {fixed}u) {{ y[i] = {value}; }} else {{ sums[i - {fixed}u] = sum; }}")
    } else {
        format!("y[i] = {value};")
    };
    let _ = write!(
        t,
        "@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {{
    let i = (id.x + id.y * counts.x) * 64u + lane;
    let total = {total};
    if (i >= total) {{ return; }}
    var sum = 0.0;
    for (var part = 0u; part < {splits}u; part++) {{ sum += parts[part * total + i]; }}
{}    {store}
}}
",
        finish.load_column("0", &format!("i % {columns}u"))
    );
    let turns = Count { fixed: splits, per_sample: 0 };
    dispatch("split_sum", &t, &[], Grid::new(elements, 64), slots, epilogue).turns(turns, 1)
}

/// Returns the candidates of a product and its rivals with their estimated nanoseconds, the fastest first.
pub fn lower_with(
    rivals: impl IntoIterator<Item = (f64, Candidate)>,
    product: &Product,
    profile: &DeviceProfile,
    epilogue: Option<&Epilogue>,
) -> Vec<Candidate> {
    let own = [register_tiles(product, profile, epilogue)];
    let mut candidates: Vec<(f64, Candidate)> = own.into_iter().chain(rivals).collect();
    candidates.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let mut candidates = candidates.into_iter().map(|(_, c)| c).collect();
    shared::add(&mut candidates, product, profile, epilogue);
    candidates
}

/// Returns the declaration of an input of `elements` 32-bit floats as a uniform buffer, and a function `NAME_at` that
/// reads one.
pub(super) fn declare_uniform(binding: usize, name: &str, elements: u64) -> String {
    let vectors = elements.div_ceil(4);
    format!(
        "@group(0) @binding({binding}) var<uniform> {name}: array<vec4<f32>, {vectors}>;
fn {name}_at(i: u32) -> f32 {{ return {name}[i >> 2u][i & 3u]; }}\n"
    )
}

/// Returns the function `NAME_pair` that reads two neighbours, the first at an even place, of an input of 64-bit words.
fn pair(name: &str) -> String {
    format!(
        "fn {name}_pair(i: u32) -> vec2<f32> {{
    let word = {name}[i >> 1u];
    return bitcast<vec2<f32>>(vec2<u32>(u32(word), u32(word >> 32u)));
}}\n"
    )
}

/// Returns the declaration of an input as 64-bit words, and the function `NAME_pair` that reads two of its elements.
pub(super) fn declare_pair(binding: usize, name: &str) -> String {
    format!("@group(0) @binding({binding}) var<storage, read> {name}: array<u64>;\n{}", pair(name))
}

/// Returns an element of an input, 0 where it is not there; with `pair` as a vector of it and the next one.
pub fn read(input: &str, index: &str, there: Option<&str>, pair: bool) -> String {
    let (value, zero) =
        if pair { (format!("{input}_pair({index})"), "vec2<f32>()") } else { (format!("{input}[{index}]"), "0.0") };
    there.map_or(value.clone(), |there| format!("select({zero}, {value}, {there})"))
}

/// Returns the declaration of a read-only input of 32-bit floats.
pub fn declare(binding: usize, name: &str, dtype: crate::tensor::DType) -> String {
    format!("@group(0) @binding({binding}) var<storage, read> {name}: array<{}>;\n", storage_type(dtype))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_has_a_workgroup_for_every_tile_at_every_batch() {
        let nothing = |_: usize, _: &str, _: &str| String::new();
        let zero = |_: &str, _: bool| String::new();
        let count = |fixed, per_sample| Count { fixed, per_sample };
        let product = Product {
            name: "test",
            declarations: String::new(),
            slots: Vec::new(),
            batch: count(1, 0),
            head: String::new(),
            rows: Operand { extent: count(0, 7), enter: &nothing, value: &zero, pairs: None, along_terms: false },
            columns: Operand { extent: count(33, 0), enter: &nothing, value: &zero, pairs: None, along_terms: false },
            loops: vec![Loop::new("k", count(5, 0))],
            place: None,
            whole: true,
            sums: false,
        };
        for (lane_rows, shared, vectors) in [(false, 5, 2), (true, 4, 3), (true, 33, 1)] {
            let tile =
                Tile { lanes: 8, lane_rows, shared, vectors, subgroup: true, splits: 1, terms: 1, pairs: [false; 2] };
            let (rows, columns) = if lane_rows { (8 * vectors, shared) } else { (shared, 8 * vectors) };
            for n in 1..20 {
                let [x, y] = grid(&product, tile).at(n, 65_535);
                assert!(u64::from(x * y) >= (7 * n as u64).div_ceil(rows) * 33u64.div_ceil(columns));
            }
        }
    }
}
