//! Text helpers of the cores that are not ported yet.

use super::product::{MAX_ITERATIONS, MAX_STORES};
use crate::{
    graph::{Epilogue, Grid, Slot},
    kernels::{
        index::{broadcast_index, load, storage_type},
        wgsl::dispatch,
    },
    tensor::{Count, Shape},
};
use std::fmt::Write as _;

/// Returns a count as WGSL.
pub fn wgsl_count(count: Count) -> String {
    match (count.fixed, count.per_sample) {
        (fixed, 0) => format!("{fixed}u"),
        (0, 1) => "step.n".into(),
        (0, per_sample) => format!("({per_sample}u * step.n)"),
        (fixed, per_sample) => format!("({fixed}u + {per_sample}u * step.n)"),
    }
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

pub(super) fn declare_outputs(text: &mut String, slots: &mut Vec<Slot>, outputs: u64, first: usize) {
    for k in 0..outputs as usize {
        slots.push(Slot::output(k));
        let name = if k == 0 { "y" } else { "sums" };
        let _ = writeln!(text, "@group(0) @binding({}) var<storage, read_write> {name}: array<f32>;", first + k);
    }
}

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
