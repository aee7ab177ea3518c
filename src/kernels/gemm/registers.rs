//! The tile core without workgroup memory: each lane keeps a tile of sums in registers, of which the lane side has one
//! index for each lane and the shared side is the same for all lanes.

use super::product::{
    BROADCAST, Finish, LOAD, LONG_BATCH, Loop, MADD, MAX_ITERATIONS, MIN_ITERATIONS, NOMINAL_BATCH, Operand, Product,
    STORE, Tile, candidate, count_product, has_eight_lanes, loop_end, looped_store, sides, wgsl_count,
};
use crate::{
    graph::{Candidate, DeviceClass, DeviceProfile, Epilogue},
    tensor::Count,
};
use std::fmt::Write as _;

/// Another multiply and add to the same sum, in nanoseconds as the others.
const NEXT_MADD: f64 = 0.5;
/// What a lane computes for each place that it reads, before the innermost loop.
const ENTER: f64 = 20.0;
/// Turns of the innermost loop that a part of a sum takes at most.
const PART_TURNS: u64 = 64;

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
        let mut iterations = 1;
        for (level, l) in self.loops.iter().enumerate().rev() {
            let at_once = l.step as u64 * if level == last { terms } else { 1 };
            let own = l.to.at(NOMINAL_BATCH).div_ceil(at_once);
            if level == last && own >= 2 * PART_TURNS {
                return Some(Partial::Turns);
            }
            iterations *= own;
            if iterations >= MIN_ITERATIONS {
                return (level > 0).then_some(Partial::Loop(level));
            }
        }
        None
    }
}

/// Returns the estimated nanoseconds and the launches of register tiles without workgroup memory.
pub(super) fn register_tiles(
    product: &Product,
    profile: &DeviceProfile,
    epilogue: Option<&Epilogue>,
) -> (f64, Candidate) {
    let (time, tile) = choose(product, profile);
    let Tile { lane_rows, shared, vectors, splits, terms, pairs, .. } = tile;
    let side = if lane_rows { "rows" } else { "columns" };
    let wide = pairs.iter().filter(|&&p| p).count();
    let variant = format!("lanes_{side}_{shared}x{vectors}x{terms}_pairs{wide}_split{splits}");
    let inner: u64 = product.loops[1..].iter().map(|l| l.to.fixed).product();
    let iterations = iterations(product, terms);
    let rest = if splits > 1 { (2 * inner + MAX_ITERATIONS) * splits } else { 0 };
    let iterations = Count { fixed: iterations.fixed + rest, ..iterations };
    let kernel = |finish: &Finish, split| tile_kernel(product, tile, finish, split);
    (time, candidate(product, variant, tile, iterations, epilogue, kernel))
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
    [4, 2].into_iter().find(|&n| has_eight_lanes(profile) && count.is_multiple_of(n)).unwrap_or(1)
}

fn choose(product: &Product, profile: &DeviceProfile) -> (f64, Tile) {
    let terms = product.loops.iter().map(|l| l.to.at(NOMINAL_BATCH).div_ceil(l.step as u64) as f64).product::<f64>();
    let lanes = if profile.class == DeviceClass::Cpu { 8u64 } else { 64 };
    let subgroup = has_eight_lanes(profile);
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
    // By terms, not by iterations: shorter sums are also more exact.
    let long = if product.whole { iterations(product, 1).at(LONG_BATCH).div_ceil(profile.max_iterations) } else { 1 };
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
                    profile.u64_loads && subgroup && side.pairs.is_some() && fits
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

/// Returns the iterations of a product's loops and its stores, all together, where the innermost takes so many terms in an iteration.
fn iterations(product: &Product, terms: u64) -> Count {
    let mut level = Count { fixed: 1, per_sample: 0 };
    let last = product.loops.len() - 1;
    let stores = Count { fixed: MAX_ITERATIONS, per_sample: 0 };
    (product.loops.iter().enumerate()).fold(stores, |all, (i, l)| {
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
    /// Writes the loads for all terms of an iteration: term `u` of an index is `NAME_v{u}`.
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
    let sum = if partial.is_some() { "a" } else { "c" };
    let each_sum = |line: &dyn Fn(String) -> String| -> String {
        (0..n_shared).flat_map(|r| (0..vectors).map(move |j| format!("{r}_{j}"))).map(line).collect()
    };
    let zeros = each_sum(&|at| format!("    var {sum}{at} = 0.0;\n"));
    let totals = each_sum(&|at| format!("    c{at} += {sum}{at};\n"));
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
            writeln!(t, "    let start_{var} = {from};\n    let end_{var} = {};", loop_end(l.to))
        };
        if partial == Some(Partial::Loop(level)) {
            t.push_str(&zeros);
        }
        let (mut start, mut end) = (format!("start_{var}"), format!("end_{var}"));
        if level == last && partial == Some(Partial::Turns) {
            let iterations = step * PART_TURNS;
            let _ = writeln!(
                t,
                "    for (var from_{var} = {start}; from_{var} < {end}; from_{var} += {iterations}u) {{
    let until_{var} = min(from_{var} + {iterations}u, {end});"
            );
            (start, end) = (format!("from_{var}"), format!("until_{var}"));
            t.push_str(&zeros);
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
            t.push_str(&totals);
        } else if level == last && partial == Some(Partial::Turns) {
            t.push_str(&totals);
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
    let columns = product.columns.extent.fixed;
    let rows = wgsl_count(product.rows.extent);
    let elements = format!("({} * {rows} * {columns}u + {}u)", wgsl_count(product.batch), product.sums());
    let part = if split { format!("part * {elements} + ") } else { String::new() };
    let row = |t: &mut String, name: &str, row: &str| {
        let (place, in_bounds) = product.place.map_or((format!("(batch * {rows} + {row})"), None), |place| {
            let (place, in_bounds) = place(row);
            (place, Some(in_bounds))
        });
        let _ = writeln!(t, "    let row{name} = {part}{place} * {columns}u;");
        if let Some(in_bounds) = in_bounds {
            let _ = writeln!(t, "    let row{name}_in_bounds = {in_bounds};");
        }
    };
    // What an epilogue reads once for a column of the shared side is chosen like its sums.
    let extras: Vec<usize> = finish.column_extras().map(|(k, _)| k).filter(|_| lane_rows && !split).collect();
    if lane_rows && !split {
        t.push_str(&finish.load_shared("shared0", shared, subgroup, shared_pairs));
    }
    for j in 0..vectors {
        let (name, index) = (j.to_string(), format!("l{j}_i"));
        if lane_rows {
            row(t, &name, &index);
            continue;
        }
        let _ = writeln!(t, "    let column{name} = {index};");
        if !split {
            t.push_str(&finish.load_column(&name, &index));
        }
    }
    let extent = if lane_rows { format!("{columns}u") } else { rows.clone() };
    // With pairs, the last one at an even or odd distance from the first.
    let last = |k: &str| if shared_pairs { format!("2u + ({k} & 1u)") } else { "1u".into() };
    let clamped = |k: &str| format!("min(shared0 + {k}, {extent} - {})", last(k));
    let n_sums = vectors as usize;
    let value = |r: usize, j: usize| match j.checked_sub(n_sums) {
        None => format!("c{r}_{j}"),
        Some(extra) => format!("e{}_{r}", extras[extra]),
    };
    looped_store(t, [shared as usize, n_sums + extras.len()], value, |t, r, values| {
        let (sums, of_column) = values.split_at(n_sums);
        if lane_rows {
            let _ = writeln!(t, "    let column{r} = {};", clamped(r));
            for (k, value) in extras.iter().zip(of_column) {
                let _ = writeln!(t, "    let e{k}_{r} = {value};");
            }
        } else {
            row(t, r, &clamped(r));
        }
        for (j, sum) in sums.iter().enumerate() {
            let j = &*j.to_string();
            let (row, column) = if lane_rows { (j, r) } else { (r, j) };
            let index = format!("row{row} + column{column}");
            let value = if split { sum.clone() } else { finish.call(sum, &index, column) };
            let store = format!("y[{index}] = {value};");
            let _ = match product.place {
                None => writeln!(t, "    {store}"),
                Some(_) => writeln!(t, "    if (row{row}_in_bounds) {{ {store} }}"),
            };
        }
    });
    if product.sums {
        let at = if split {
            format!("y[(part + 1u) * {elements} - {}u + batch * {columns}u + ", product.sums())
        } else {
            format!("sums[batch * {columns}u + ")
        };
        let first = if lane_rows { "lane0 == 0u" } else { "shared0 == 0u" };
        let _ = writeln!(t, "    if ({first}) {{");
        for k in 0..if lane_rows { shared } else { vectors } {
            let column = if lane_rows { clamped(&format!("{k}u")) } else { format!("column{k}") };
            let _ = writeln!(t, "    {at}{column}] = sum{k};");
        }
        t.push_str("    }\n");
    }
}
