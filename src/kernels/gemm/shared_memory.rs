//! The tile core for graphics processors: a workgroup stages chunks of both operands in workgroup memory and multiplies
//! them from there in registers.
//!
//! Indices of a side lie in workgroup memory as vectors of four: vector `v`, component `j` is index `v + j · vectors`, so
//! that neighbouring lanes read and write neighbouring elements of the tensors, and whole vectors of workgroup memory.

use super::product::{
    self, Finish, LONG_BATCH, Loop, NOMINAL_BATCH, Operand, Product, candidate, count_product, loop_end, wgsl_count,
};
use crate::{
    graph::{Candidate, DeviceClass, DeviceProfile, Epilogue},
    tensor::Count,
};
use std::fmt::Write as _;

/// What a workgroup computes: rows and columns of the result, terms of the reduction at a time, and how many vectors
/// of four rows and of four columns each invocation has.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Tile {
    rows: u64,
    columns: u64,
    terms: u64,
    per: [u64; 2],
}

/// The tiles with the share of the peak that each reaches where there is enough to do: what it multiplies for each
/// element that it stages.
const TILES: [(Tile, f64); 5] = [
    (Tile { rows: 128, columns: 128, terms: 8, per: [2, 2] }, 1.0),
    (Tile { rows: 128, columns: 64, terms: 16, per: [2, 1] }, 0.85),
    (Tile { rows: 64, columns: 64, terms: 16, per: [1, 1] }, 0.7),
    (Tile { rows: 64, columns: 32, terms: 16, per: [1, 1] }, 0.5),
    (Tile { rows: 32, columns: 32, terms: 16, per: [1, 1] }, 0.35),
];

/// Workgroups that fill a graphics processor.
const MIN_GROUPS: u64 = 256;
/// Parts of a reduction at most, and terms of each at least.
const MAX_SPLITS: u64 = 64;
const PART_TERMS: u64 = 128;
/// Chunks may be filled with zeros up to this much of their terms, before more loops become one.
const MAX_FILLED: f64 = 1.2;
/// Below so many rows, columns or terms the core without workgroup memory comes first.
const LARGE: u64 = 32;

/// One operand on its way through workgroup memory.
struct Side<'p, 'a> {
    operand: &'p Operand<'a>,
    name: &'static str,
    /// Vectors in the tile.
    vectors: u64,
}

impl Tile {
    fn lanes(self) -> u64 {
        self.rows * self.columns / (16 * self.per[0] * self.per[1])
    }
}

/// Returns a loop's number of iterations as a count, for any batch and any first value at most.
fn extent(l: &Loop) -> Count {
    l.to.div_ceil(l.step as u64)
}

fn is_single(l: &Loop) -> bool {
    l.from.is_none() && extent(l) == Count { fixed: 1, per_sample: 0 }
}

/// Returns the first of the inner loops that are flattened into one range of K, which is cut into chunks; chosen so that chunks are nearly full.
fn first_inner(product: &Product, tile: Tile) -> usize {
    let mut terms = 1;
    for (level, l) in product.loops.iter().enumerate().rev() {
        terms *= extent(l).at(NOMINAL_BATCH);
        if (terms.next_multiple_of(tile.terms) as f64) <= terms as f64 * MAX_FILLED {
            return level;
        }
    }
    0
}

/// Returns the loop that is cut where the reduction is.
fn split_level(product: &Product) -> usize {
    product.loops.iter().position(|l| !is_single(l)).unwrap_or(product.loops.len() - 1)
}

fn all(counts: impl Iterator<Item = Count>) -> Count {
    counts.fold(Count { fixed: 1, per_sample: 0 }, count_product)
}

/// Returns the iterations of the loops of one invocation, where nothing is cut.
fn iterations(product: &Product, tile: Tile) -> Count {
    let inner = first_inner(product, tile);
    let chunks = all(product.loops[inner..].iter().map(extent)).div_ceil(tile.terms);
    let mut level = Count { fixed: 1, per_sample: 0 };
    let levels = product.loops[..inner].iter().map(extent).chain([chunks]);
    levels.fold(Count::default(), |sum, l| {
        level = count_product(level, l);
        Count { fixed: sum.fixed + level.fixed, per_sample: sum.per_sample + level.per_sample }
    })
}

/// Returns the parts of the reduction that fill a graphics processor, and that no driver ends.
fn splits(product: &Product, tile: Tile, profile: &DeviceProfile) -> u64 {
    if !product.whole {
        return 1;
    }
    let terms = all(product.loops.iter().map(extent)).at(NOMINAL_BATCH);
    let cut = split_level(product);
    let most = if cut >= first_inner(product, tile) { u64::MAX } else { extent(&product.loops[cut]).at(NOMINAL_BATCH) };
    let wanted = MIN_GROUPS.div_ceil(groups(product, tile));
    let long = iterations(product, tile).at(LONG_BATCH).div_ceil(profile.max_iterations);
    wanted.min(most).min(terms / PART_TERMS).clamp(1, MAX_SPLITS).max(long)
}

fn groups(product: &Product, tile: Tile) -> u64 {
    let [rows, columns] = [&product.rows, &product.columns].map(|o| o.extent.at(NOMINAL_BATCH));
    (rows.div_ceil(tile.rows) * columns.div_ceil(tile.columns) * product.batch.at(NOMINAL_BATCH)).max(1)
}

/// Returns the share of the peak that a tile reaches for a product.
fn score(product: &Product, tile: Tile, peak: f64, splits: u64) -> f64 {
    let groups = groups(product, tile);
    let results = count_product(product.rows.extent, product.columns.extent).at(NOMINAL_BATCH) as f64;
    let used = results * product.batch.at(NOMINAL_BATCH) as f64 / (groups * tile.rows * tile.columns) as f64;
    let busy = (groups * splits) as f64 / MIN_GROUPS as f64;
    let terms = all(product.loops.iter().map(extent)).at(NOMINAL_BATCH) as f64;
    let unsplit = if splits > 1 { terms / (terms + 16.0 * splits as f64) } else { 1.0 };
    peak * used * busy.min(1.0) * unsplit
}

/// Returns whether this core comes before the one without workgroup memory.
fn is_first(product: &Product, profile: &DeviceProfile) -> bool {
    let terms = all(product.loops.iter().map(extent));
    let sizes = [product.rows.extent, product.columns.extent, terms];
    profile.class == DeviceClass::Gpu && sizes.iter().all(|s| s.at(NOMINAL_BATCH) >= LARGE)
}

/// Adds the ways through workgroup memory to the others: the best one first where the device and the product are for
/// it, the rest behind.
pub(super) fn add(
    candidates: &mut Vec<Candidate>,
    product: &Product,
    profile: &DeviceProfile,
    epilogue: Option<&Epilogue>,
) {
    // Column sums are taken of columns that lie along the lanes.
    if product.sums && product.columns.along_terms {
        return;
    }
    let mut tiles = TILES.map(|(tile, peak)| {
        let splits = splits(product, tile, profile);
        (score(product, tile, peak, splits), tile, splits)
    });
    tiles.sort_by(|(a, ..), (b, ..)| b.total_cmp(a));
    for (rank, (_, tile, splits)) in tiles.into_iter().enumerate() {
        let Tile { rows, columns, terms, .. } = tile;
        let variant = format!("shared_{rows}x{columns}x{terms}_split{splits}");
        let whole = iterations(product, tile);
        // A part is rounded up to whole iterations and whole chunks.
        let inner = all(product.loops[split_level(product) + 1..].iter().map(extent)).fixed + 2;
        let rest = if splits > 1 { 2 * inner * splits } else { 0 };
        let iterations = Count { fixed: whole.fixed + rest, ..whole };
        let as_grid = product::Tile {
            lanes: 1,
            lane_rows: true,
            shared: columns,
            vectors: rows,
            subgroup: false,
            splits,
            terms: 1,
            pairs: [false; 2],
        };
        let kernel = |finish: &Finish, split| kernel(product, tile, splits, finish, split);
        let candidate = candidate(product, variant, as_grid, iterations, epilogue, kernel);
        let at = if rank == 0 && is_first(product, profile) { 0 } else { candidates.len() };
        candidates.insert(at, candidate);
    }
}

/// Returns the kernel behind the declarations of its buffers.
fn kernel(product: &Product, tile: Tile, splits: u64, finish: &Finish, split: bool) -> String {
    let lanes = tile.lanes();
    let sides = [
        Side { operand: &product.rows, name: "a", vectors: tile.rows / 4 },
        Side { operand: &product.columns, name: "b", vectors: tile.columns / 4 },
    ];
    let (rows, columns) = (wgsl_count(product.rows.extent), product.columns.extent.fixed);
    let mut t = if split { String::new() } else { finish.function() };
    for Side { name, vectors, .. } in &sides {
        // The vector more spreads the terms of an index over the banks.
        let _ = writeln!(t, "var<workgroup> tile_{name}: array<vec4<f32>, {}>;", tile.terms * (vectors + 1));
    }
    let _ = write!(
        t,
        "@compute @workgroup_size({lanes})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {{
    let tile = id.x + id.y * counts.x;
    let row_tiles = ({rows} + {}u) / {}u;
    let column_tiles = {}u;
    let tiles = row_tiles * column_tiles * {splits}u * {};
    if (tile >= tiles) {{ return; }}
    let first_column = tile % column_tiles * {}u;
    let first_row = tile / column_tiles % row_tiles * {}u;
    let part = tile / (column_tiles * row_tiles) % {splits}u;
    let batch = tile / (column_tiles * row_tiles * {splits}u);
",
        tile.rows - 1,
        tile.rows,
        columns.div_ceil(tile.columns),
        wgsl_count(product.batch),
        tile.columns,
        tile.rows,
    );
    t.push_str(&product.head);
    for (side, first) in sides.iter().zip(["first_row", "first_column"]) {
        side.places(&mut t, tile, first);
    }
    for (row, column) in results(tile) {
        let _ = writeln!(t, "    var c{row}_{column} = vec4<f32>();");
    }
    if product.sums {
        t.push_str("    var sum = vec4<f32>();\n");
    }
    let inner = first_inner(product, tile);
    let cut = split_level(product);
    let part_of = |t: &mut String, var: &str, whole: &str, chunk: u64| {
        let size = format!("({whole} + {}u) / {}u * {chunk}u", splits * chunk - 1, splits * chunk);
        let _ = writeln!(
            t,
            "    let size_{var} = {size};\n    let start_{var} = part * size_{var};
    let end_{var} = min(start_{var} + size_{var}, {whole});"
        );
    };
    let mut open = 0;
    for (level, l) in product.loops[..inner].iter().enumerate() {
        let var = l.var;
        if is_single(l) {
            let _ = writeln!(t, "    let {var} = 0u;");
        } else {
            if splits > 1 && level == cut {
                part_of(&mut t, var, &wgsl_count(l.to), l.step as u64);
            } else {
                let from = l.from.as_deref().unwrap_or("0u");
                let _ = writeln!(t, "    let start_{var} = {from};\n    let end_{var} = {};", loop_end(l.to));
            }
            let _ = writeln!(t, "    for (var {var} = start_{var}; {var} < end_{var}; {var} += {}u) {{", l.step);
            open += 1;
        }
        t.push_str(&l.head);
        sides.iter().for_each(|side| side.enter(&mut t, tile, level + 1, 0));
    }
    let counts: Vec<String> = product.loops[inner..].iter().map(|l| count(&mut t, l)).collect();
    let _ = writeln!(t, "    let all_terms = {};", counts.join(" * "));
    if splits > 1 && cut >= inner {
        part_of(&mut t, "terms", "all_terms", tile.terms);
    } else {
        let grows = product.loops[inner..].iter().any(|l| l.to.per_sample > 0);
        let end = if grows { "all_terms * counts.z" } else { "all_terms" };
        let _ = writeln!(t, "    let start_terms = 0u;\n    let end_terms = {end};");
    }
    let _ = writeln!(t, "    for (var chunk = start_terms; chunk < end_terms; chunk += {}u) {{", tile.terms);
    for side in &sides {
        side.load(&mut t, tile, &product.loops[inner..], &counts, inner);
    }
    if product.sums {
        (0..sides[1].loads(tile)).for_each(|i| t.push_str(&format!("    sum += b{i}_v;\n")));
    }
    t.push_str("    workgroupBarrier();\n");
    for side in &sides {
        for i in 0..side.loads(tile) {
            let (term, vector) = side.staged(tile, i);
            let Side { name, vectors, .. } = side;
            let _ = writeln!(t, "    tile_{name}[({term}) * {}u + {vector}] = {name}{i}_v;", vectors + 1);
        }
    }
    t.push_str("    workgroupBarrier();\n");
    multiply(&mut t, tile, &sides);
    t.push_str("    }\n");
    t.push_str(&"    }\n".repeat(open));
    stores(&mut t, product, tile, finish, split);
    if product.sums {
        sums(&mut t, product, tile, &sides[1], split);
    }
    t.push_str("}\n");
    t
}

/// Returns the vectors of rows and of columns of each invocation, in pairs.
fn results(tile: Tile) -> impl Iterator<Item = (u64, u64)> {
    (0..4 * tile.per[0]).flat_map(move |row| (0..tile.per[1]).map(move |column| (row, column)))
}

/// Returns the number of iterations of a loop as WGSL, which `t` computes where it is no literal.
fn count(t: &mut String, l: &Loop) -> String {
    let to = wgsl_count(l.to);
    match (&l.from, l.step) {
        (None, 1) => to,
        (from, step) => {
            let from = from.as_deref().unwrap_or("0u");
            let _ = writeln!(t, "    let iterations_{} = ({to} - {from} + {}u) / {step}u;", l.var, step - 1);
            format!("iterations_{}", l.var)
        }
    }
}

impl Side<'_, '_> {
    /// Returns how many vectors an invocation stages.
    fn loads(&self, tile: Tile) -> u64 {
        self.vectors * tile.terms / tile.lanes()
    }

    /// Returns the term in the chunk and the vector that an invocation stages as its `i`th.
    fn staged(&self, tile: Tile, i: u64) -> (String, String) {
        let (fast, lanes) = (if self.operand.along_terms { tile.terms } else { self.vectors }, tile.lanes());
        let (fast, slow) = (format!("lane % {fast}u"), format!("lane / {fast}u + {}u", i * (lanes / fast)));
        if self.operand.along_terms { (fast, slow) } else { (slow, fast) }
    }

    /// Returns the prefixes of the four indices of an invocation's `i`th vector.
    fn names(&self, i: u64) -> [String; 4] {
        let i = if self.operand.along_terms { i } else { 0 };
        [0, 1, 2, 3].map(|j| format!("{}{i}_{j}", self.name))
    }

    /// Returns the prefixes of all different indices of an invocation, with their vector and component.
    fn indices(&self, tile: Tile) -> impl Iterator<Item = (String, u64, u64)> {
        let loads = if self.operand.along_terms { self.loads(tile) } else { 1 };
        (0..loads).flat_map(|i| self.names(i).into_iter().zip(0..).map(move |(name, j)| (name, i, j)))
    }

    /// Writes the indices of an invocation. Past the end they are the last one again: it is read, and not stored.
    fn places(&self, t: &mut String, tile: Tile, first: &str) {
        let extent = wgsl_count(self.operand.extent);
        for (name, i, j) in self.indices(tile) {
            let (_, vector) = self.staged(tile, i);
            let index = format!("min({first} + {vector} + {}u, {extent} - 1u)", j * self.vectors);
            let _ = writeln!(t, "    let {name}_i = {index};");
        }
        self.enter(t, tile, 0, 0);
    }

    fn enter(&self, t: &mut String, tile: Tile, level: usize, from: u64) {
        for (name, ..) in self.indices(tile).skip(from as usize) {
            t.push_str(&(self.operand.enter)(level, &name, &format!("{name}_i")));
        }
    }

    /// Writes the loads of what an invocation stages; past the last term it is 0.
    fn load(&self, t: &mut String, tile: Tile, loops: &[Loop], counts: &[String], inner: usize) {
        for i in 0..self.loads(tile) {
            let name = self.name;
            let (term, _) = self.staged(tile, i);
            let _ = writeln!(t, "    let {name}{i}_t = chunk + {term};\n    var {name}{i}_v = vec4<f32>();\n    {{");
            let mut rest = format!("min({name}{i}_t, end_terms - 1u)");
            let mut values = Vec::new();
            for (k, (l, count)) in loops.iter().zip(counts).enumerate().rev() {
                let turn = if k == 0 { rest.clone() } else { format!("{rest} % {count}") };
                let turn = if l.step == 1 { turn } else { format!("({turn}) * {}u", l.step) };
                let from = l.from.as_ref().map_or(String::new(), |from| format!("{from} + "));
                values.push(format!("    let {} = {from}{turn};\n", l.var));
                rest = format!("{rest} / {count}");
            }
            for (k, l) in loops.iter().enumerate() {
                t.push_str(&values[loops.len() - 1 - k]);
                t.push_str(&l.head);
                for name in self.names(i) {
                    t.push_str(&(self.operand.enter)(inner + k + 1, &name, &format!("{name}_i")));
                }
            }
            let values = self.names(i).map(|name| (self.operand.value)(&name, false)).join(", ");
            let _ = writeln!(
                t,
                "    {name}{i}_v = select(vec4<f32>(), vec4<f32>({values}), {name}{i}_t < end_terms);\n    }}"
            );
        }
    }
}

/// Writes the products of a chunk, unrolled.
fn multiply(t: &mut String, tile: Tile, [a, b]: &[Side; 2]) {
    let [across, down] = [b.vectors / tile.per[1], a.vectors / tile.per[0]];
    let _ = writeln!(t, "    let at_a = lane / {across}u;\n    let at_b = lane % {across}u;");
    for term in 0..tile.terms {
        for (side, per, pitch) in [(a, tile.per[0], down), (b, tile.per[1], across)] {
            for v in 0..per {
                let (name, at) = (side.name, term * (side.vectors + 1) + v * pitch);
                let _ = writeln!(t, "    let {name}{term}_{v} = tile_{name}[at_{name} + {at}u];");
            }
        }
        for (row, column) in results(tile) {
            let factor = ["x", "y", "z", "w"][row as usize % 4];
            let _ = writeln!(t, "    c{row}_{column} += a{term}_{}.{factor} * b{term}_{column};", row / 4);
        }
    }
}

/// Returns where in `y` the values of output 0 and those of output 1 begin.
fn starts(product: &Product, split: bool) -> [String; 2] {
    let (rows, columns) = (wgsl_count(product.rows.extent), product.columns.extent.fixed);
    let elements = format!("({} * {rows} * {columns}u + {}u)", wgsl_count(product.batch), product.sums());
    match split {
        true => [
            format!("part * {elements} + "),
            format!("y[(part + 1u) * {elements} - {}u + batch * {columns}u + ", product.sums()),
        ],
        false => [String::new(), format!("sums[batch * {columns}u + ")],
    }
}

fn stores(t: &mut String, product: &Product, tile: Tile, finish: &Finish, split: bool) {
    let (rows, columns) = (wgsl_count(product.rows.extent), product.columns.extent.fixed);
    let [across, down] = [tile.columns / 4 / tile.per[1], tile.rows / 4 / tile.per[0]];
    let [start, _] = starts(product, split);
    for k in 0..4 * tile.per[1] {
        let at = k / 4 * across + k % 4 * (tile.columns / 4);
        let _ = writeln!(
            t,
            "    let column{k}_in_bounds = first_column + lane % {across}u + {at}u < {columns}u;
    let column{k} = min(first_column + lane % {across}u + {at}u, {}u);",
            columns - 1
        );
        if !split {
            t.push_str(&finish.load_column(&k.to_string(), &format!("column{k}")));
        }
    }
    for k in 0..4 * tile.per[0] {
        let at = k / 4 * down + k % 4 * (tile.rows / 4);
        let _ = writeln!(t, "    let row{k}_i = first_row + lane / {across}u + {at}u;");
        let (place, in_bounds) = match product.place {
            None => (format!("(batch * {rows} + row{k}_i)"), String::new()),
            Some(place) => {
                let (place, in_bounds) = place(&format!("row{k}_i"));
                (place, format!(" && {in_bounds}"))
            }
        };
        let _ = writeln!(t, "    let row{k} = {start}{place} * {columns}u;\n    if (row{k}_i < {rows}{in_bounds}) {{");
        for column in 0..4 * tile.per[1] {
            let index = format!("row{k} + column{column}");
            let value = format!("c{k}_{}.{}", column / 4, ["x", "y", "z", "w"][column as usize % 4]);
            let value = if split { value } else { finish.call(&value, &index, &column.to_string()) };
            let _ = writeln!(t, "    if (column{column}_in_bounds) {{ y[{index}] = {value}; }}");
        }
        t.push_str("    }\n");
    }
}

/// Writes output 1: invocations have summed the columns that they staged, the first ones add these sums in order.
fn sums(t: &mut String, product: &Product, tile: Tile, side: &Side, split: bool) {
    let (vectors, columns) = (side.vectors, product.columns.extent.fixed);
    let [_, start] = starts(product, split);
    let (term, vector) = side.staged(tile, 0);
    let _ = write!(
        t,
        "    workgroupBarrier();
    tile_b[({term}) * {}u + {vector}] = sum;
    workgroupBarrier();
    if (first_row == 0u && lane < {vectors}u) {{
    var total = vec4<f32>();
    for (var k = 0u; k < {}u; k++) {{ total += tile_b[k * {}u + lane]; }}
",
        vectors + 1,
        tile.lanes() / vectors,
        vectors + 1,
    );
    for (j, component) in ["x", "y", "z", "w"].iter().enumerate() {
        let column = format!("first_column + lane + {}u", j as u64 * vectors);
        let _ = writeln!(t, "    if ({column} < {columns}u) {{ {start}{column}] = total.{component}; }}");
    }
    t.push_str("    }\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_fit_into_portable_limits_and_share_their_staging_evenly() {
        for (tile, _) in TILES {
            let (lanes, vectors) = (tile.lanes(), [tile.rows / 4, tile.columns / 4]);
            assert!((64..=256).contains(&lanes), "{tile:?}");
            assert!(tile.terms * (vectors[0] + vectors[1] + 2) * 16 <= 16_384, "{tile:?}");
            for v in vectors {
                let even = (v * tile.terms).is_multiple_of(lanes) && lanes.is_multiple_of(v);
                assert!(even && lanes.is_multiple_of(tile.terms), "{tile:?}");
            }
        }
    }
}
