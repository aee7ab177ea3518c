//! What a product is, and what all tile cores share: its loops, its epilogue, its stores, its second launch.

use crate::{
    graph::{Candidate, DeviceClass, DeviceProfile, Epilogue, Grid, Slot},
    kernels::{
        index::{broadcast_index, load, storage_type},
        wgsl::dispatch,
    },
    tensor::{Count, Shape},
};
use std::fmt::Write as _;

/// Turns of loops that a part of a sum takes at least: partial sums that are added in turn round less than one long sum.
pub(super) const MIN_ITERATIONS: u64 = 16;

/// The batch for which tiles are chosen; every batch runs.
pub(super) const NOMINAL_BATCH: usize = 64;

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

impl Product<'_> {
    /// Returns how many values output 1 has.
    pub(super) fn sums(&self) -> u64 {
        if self.sums { self.columns.extent.fixed * self.batch.fixed } else { 0 }
    }
}

/// The shape of a register tile.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Tile {
    pub(super) lanes: u64,
    pub(super) lane_rows: bool,
    pub(super) shared: u64,
    pub(super) vectors: u64,
    pub(super) subgroup: bool,
    pub(super) splits: u64,
    /// Terms in one turn of the innermost loop.
    pub(super) terms: u64,
    /// Whether the lane side and the shared side are read as pairs.
    pub(super) pairs: [bool; 2],
}

impl Tile {
    /// Returns whether pairs of indices of the lane side and of the shared side are read at once.
    pub(super) fn index_pairs(self, product: &Product) -> [bool; 2] {
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

/// Returns the end of a loop as WGSL, one that no driver takes for a constant (see common.wgsl).
pub fn loop_end(count: Count) -> String {
    match count.per_sample {
        0 => wgsl_count(count),
        _ => format!("{} * counts.z", wgsl_count(count)),
    }
}

/// Returns the count of pairs of two counts, of which at most one grows with the batch.
pub fn count_product(a: Count, b: Count) -> Count {
    let fixed = a.fixed * b.fixed;
    Count { fixed, per_sample: a.per_sample * b.fixed + a.fixed * b.per_sample }
}

/// The part of an epilogue that a core can hoist: extras that depend on the column alone.
pub(in crate::kernels) struct Finish<'a> {
    pub(super) epilogue: Option<&'a Epilogue>,
    pub(super) columns: u64,
}

impl<'a> Finish<'a> {
    pub(in crate::kernels) fn new(epilogue: Option<&'a Epilogue>, columns: u64) -> Self {
        Finish { epilogue, columns }
    }

    pub(super) fn by_column(&self, shape: &Shape) -> bool {
        !shape.is_batched() && shape.last() as u64 == self.columns && shape.elements().fixed == self.columns
    }

    /// Returns the function `finish(value, flat index, column extras …)`.
    pub(super) fn function(&self) -> String {
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
        let (body, result) = epilogue.program.wgsl_text(&inputs);
        format!("fn finish({parameters}) -> f32 {{\n{body}    return {result};\n}}\n")
    }

    /// Returns statements that load the column extras of a column, under names with `suffix`.
    pub(super) fn load_column(&self, suffix: &str, column: &str) -> String {
        let mut text = String::new();
        for (k, extra) in self.column_extras() {
            let _ = writeln!(text, "    let e{k}_{suffix} = {};", load(&format!("extra{k}"), extra, column));
        }
        text
    }

    /// Returns statements that load the column extras of `count` columns from `first` on, the same for all lanes.
    ///
    /// Past the end it is the last column, or with `pairs` the last one at an even or odd distance from `first`.
    pub(super) fn load_shared(&self, first: &str, count: u64, subgroup: bool, pairs: bool) -> String {
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
    pub(super) fn call(&self, value: &str, index: &str, suffix: &str) -> String {
        let mut text = format!("finish({value}, {index}");
        for (k, _) in self.column_extras() {
            let _ = write!(text, ", e{k}_{suffix}");
        }
        text + ")"
    }

    pub(super) fn column_extras(&self) -> impl Iterator<Item = (usize, crate::tensor::DType)> {
        let extras = self.epilogue.map_or(&[][..], |e| &e.extras);
        extras.iter().enumerate().filter(|(_, e)| self.by_column(&e.shape)).map(|(k, e)| (k, e.dtype))
    }
}

/// Returns the launches of a kernel, given by its text behind its declarations for whether the reduction is split.
pub(super) fn candidate(
    product: &Product,
    variant: String,
    tile: Tile,
    iterations: Count,
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
    let main = main.iterations(iterations, splits);
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

pub(super) fn declare_outputs(text: &mut String, slots: &mut Vec<Slot>, outputs: u64, first: usize) {
    for k in 0..outputs as usize {
        slots.push(Slot::output(k));
        let name = if k == 0 { "y" } else { "sums" };
        let _ = writeln!(text, "@group(0) @binding({}) var<storage, read_write> {name}: array<f32>;", first + k);
    }
}

pub(super) fn grid(product: &Product, tile: Tile) -> Grid {
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

pub(super) fn sides<'p, 'a>(product: &'p Product<'a>, lane_rows: bool) -> (&'p Operand<'a>, &'p Operand<'a>) {
    if lane_rows { (&product.rows, &product.columns) } else { (&product.columns, &product.rows) }
}

/// Nanoseconds on lavapipe: a load of one element by each of 8 lanes from a storage or uniform buffer, a broadcast, a multiply and add in and
/// out of registers, a store.
pub(in crate::kernels) const LOAD: f64 = 50.0;
pub(super) const UNIFORM_LOAD: f64 = 5.0;
pub(super) const BROADCAST: f64 = 1.2;
pub(in crate::kernels) const MADD: f64 = 1.0;
pub(in crate::kernels) const STORE: f64 = 20.0;
/// A launch.
pub(super) const LAUNCH: f64 = 7_000.0;

/// Returns the way that takes the least time, the first of equal ones, with its time.
pub(super) fn fastest<T>(ways: impl Iterator<Item = T>, time: impl Fn(&T) -> f64) -> Option<(f64, T)> {
    ways.map(|way| (time(&way), way)).min_by(|(a, _), (b, _)| a.total_cmp(b))
}

/// Returns whether a workgroup of 8 is one subgroup on a processor: there a broadcast costs less than a load.
pub(super) fn has_eight_lanes(profile: &DeviceProfile) -> bool {
    profile.class == DeviceClass::Cpu && profile.subgroup_lanes == 8
}

/// Most stores of a kernel's text: more of them are made by at most [`MAX_ITERATIONS`] iterations of a loop.
pub(super) const MAX_STORES: usize = 32;
/// Between how many sums a turn of that loop chooses; a launch states them with its own.
pub(super) const MAX_ITERATIONS: u64 = 8;

/// Writes the stores of sums, which `store` makes of an expression of their number along the outer axis and of the values
/// along the inner one.
///
/// llvmpipe makes several blocks of a store, and its compiler takes quadratic time for blocks: many sums are stored by a
/// loop that chooses them, whose end the compiler does not know, else it would unroll it.
pub(in crate::kernels) fn looped_store(
    t: &mut String,
    [outer, inner]: [usize; 2],
    sum: impl Fn(usize, usize) -> String,
    store: impl Fn(&mut String, &str, &[String]),
) {
    let iterations = if outer * inner <= MAX_STORES { 1 } else { outer.min(MAX_ITERATIONS as usize) };
    let each = outer.div_ceil(iterations);
    let iterations = outer.div_ceil(each);
    let bits = iterations.next_power_of_two().ilog2();
    if iterations > 1 {
        let _ = writeln!(t, "    let end_turn = {iterations}u * counts.z;");
        t.push_str("    for (var turn = 0u; turn < end_turn; turn++) {\n");
        for bit in 0..bits {
            let _ = writeln!(t, "    let turn_{bit} = (turn & {}u) != 0u;", 1 << bit);
        }
    }
    for o in 0..each {
        let _ = match iterations {
            1 => writeln!(t, "    let o_{o} = {o}u;"),
            _ => writeln!(t, "    let o_{o} = min(turn * {each}u + {o}u, {}u);", outer - 1),
        };
        let chosen = |i: usize| {
            let all = (0..iterations).map(|turn| sum((turn * each + o).min(outer - 1), i)).collect();
            (0..bits).fold(all, |level: Vec<String>, bit| {
                let one = |pair: &[String]| match pair {
                    [a, b] => format!("select({a}, {b}, turn_{bit})"),
                    _ => pair.concat(),
                };
                level.chunks(2).map(one).collect()
            })
        };
        let values: Vec<String> = (0..inner).map(|i| format!("v_{o}_{i}")).collect();
        for (i, value) in values.iter().enumerate() {
            let _ = writeln!(t, "    let {value} = {};", chosen(i).concat());
        }
        store(t, &format!("o_{o}"), &values);
    }
    if iterations > 1 {
        t.push_str("    }\n");
    }
}

/// Returns the launch that adds the parts of a split reduction in order; the last `sums` elements are output 1.
pub(in crate::kernels) fn split_sum(
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
    let iterations = Count { fixed: splits, per_sample: 0 };
    dispatch("split_sum", &t, &[], Grid::new(elements, 64), slots, epilogue).iterations(iterations, 1)
}

/// Returns the declaration of an input of `elements` 32-bit floats as a uniform buffer, and a function `NAME_at` that
/// reads one.
pub(in crate::kernels) fn declare_uniform(binding: usize, name: &str, elements: u64) -> String {
    let vectors = elements.div_ceil(4);
    format!(
        "@group(0) @binding({binding}) var<uniform> {name}: array<vec4<f32>, {vectors}>;
fn {name}_at(i: u32) -> f32 {{ return {name}[i >> 2u][i & 3u]; }}\n"
    )
}

/// Returns the function `NAME_pair` that reads two neighbours, the first at an even place, of an input of 64-bit words.
pub(super) fn pair(name: &str) -> String {
    format!(
        "fn {name}_pair(i: u32) -> vec2<f32> {{
    let word = {name}[i >> 1u];
    return bitcast<vec2<f32>>(vec2<u32>(u32(word), u32(word >> 32u)));
}}\n"
    )
}

/// Returns the declaration of an input as 64-bit words, and the function `NAME_pair` that reads two of its elements.
pub(in crate::kernels) fn declare_pair(binding: usize, name: &str) -> String {
    format!("@group(0) @binding({binding}) var<storage, read> {name}: array<u64>;\n{}", pair(name))
}

/// Returns an element of an input, 0 where it is not there; with `pair` as a vector of it and the next one.
pub fn read(input: &str, index: &str, in_bounds: Option<&str>, pair: bool) -> String {
    let (value, zero) =
        if pair { (format!("{input}_pair({index})"), "vec2<f32>()") } else { (format!("{input}[{index}]"), "0.0") };
    in_bounds.map_or(value.clone(), |in_bounds| format!("select({zero}, {value}, {in_bounds})"))
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
