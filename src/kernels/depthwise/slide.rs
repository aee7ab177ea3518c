//! The kernel that slides a window over each channel alone, forward or transposed.

use super::plan::{Plan, Slide};
use crate::{
    graph::{Candidate, DeviceProfile, Epilogue, Grid, Slot},
    kernels::{
        gemm::{Window, wgsl_count},
        wgsl::{Source, dispatch},
    },
    tensor::Count,
};
use std::{collections::BTreeSet, fmt::Write as _};

/// Returns the way to slide a window over each channel alone.
pub fn slide(w: &Window, how: Slide, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Candidate {
    let plan = Plan::new(w, profile);
    let (rows, columns, m) = (&plan.rows, &plan.columns, plan.multiplier);
    let (vectors, strips) = (plan.vectors(), plan.strips());
    let row_products = rows.row_products();
    let products = columns.products();
    let (whole, weighted) = (m == 1, how == Slide::Weighted);
    // Averages over the pixels inside the image divide sums, or shares where transposed, by their number.
    let counted = how == Slide::Average { padding: false };
    let mut t = String::new();
    let _ = write!(
        t,
        "@group(0) @binding(1) var<storage, read> x: array<{x}>;
{weights}@group(0) @binding({last}) var<storage, read_write> y: array<S>;
@compute @workgroup_size({lanes})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {{
    let item = (id.x + id.y * counts.x) * {lanes}u + lane;
    let items = {items};
    if (item >= items) {{ return; }}
    let c = item % {vectors}u;
    let strip = item / {vectors}u;
",
        x = if whole { "S" } else { "f32" },
        weights = if weighted { "@group(0) @binding(2) var<storage, read> w: array<S>;\n" } else { "" },
        last = if weighted { 3 } else { 2 },
        lanes = plan.lanes,
        items = wgsl_count(w.images.times((vectors * strips) as u64)),
    );
    t.push_str(&plan.enter());
    // Several channels for each result: their weights do not fit into registers.
    let many = m > 1 && w.transposed;
    if weighted && !many {
        t.push_str(&plan.load_weights("c"));
    }
    if counted {
        let positions: BTreeSet<usize> =
            if w.transposed { products.iter().map(|p| p.0).collect() } else { (0..columns.size).collect() };
        let from = if w.transposed { "column_in" } else { "column_out" };
        for k in positions {
            let n = plan.inside_window(1, &format!("({from} + {k})"));
            let _ = writeln!(t, "    let column_n{k} = {n};");
        }
    }
    let (n_open, (reads, closes)) = (rows.open(), rows.steps());
    for e in 0..n_open {
        for o in 0..columns.size {
            let _ = writeln!(t, "    var a{e}_{o} = {};", how.start());
        }
    }
    let back = rows.back();
    let steps = rows.size / closes + back;
    let _ = writeln!(t, "    let end_t = {steps}u;\n    for (var t = 0u; t < end_t; t++) {{");
    let (channels, c) = match (whole, w.transposed) {
        (true, _) => (vectors, "c".to_owned()),
        (_, false) => (w.from_channels, format!("c * {}u / {m}u", plan.width)),
        (_, true) => (w.from_channels, format!("c * {m}u + m")),
    };
    if many {
        let _ = writeln!(t, "    for (var m = 0u; m < {m}u; m++) {{\n    let k = c * {m}u + m;");
        t.push_str(&plan.load_weights("k"));
    }
    for i in 0..reads {
        if row_products.iter().any(|p| p.0 == i) {
            t.push_str(&plan.load(i, &products, (channels, &c), whole, how));
        }
    }
    // All products of one sum together: it stays in a register.
    for e in 0..n_open {
        for o in 0..columns.size {
            for (i, _, r) in row_products.iter().filter(|p| p.1 == e) {
                for (j, _, s) in products.iter().filter(|p| p.1 == o) {
                    let _ = match how {
                        Slide::Weighted => writeln!(t, "    a{e}_{o} += x{i}_{j} * w{r}_{s};"),
                        Slide::Average { .. } => writeln!(t, "    a{e}_{o} += x{i}_{j};"),
                        Slide::Largest => writeln!(t, "    a{e}_{o} = max(a{e}_{o}, x{i}_{j});"),
                        Slide::Root => writeln!(t, "    a{e}_{o} += x{i}_{j} * x{i}_{j};"),
                    };
                }
            }
        }
    }
    if many {
        t.push_str("    }\n");
    }
    let [to_h, to_w] = w.to;
    for e in 0..closes {
        let _ = writeln!(
            t,
            "    let p{e} = u32(row_out + (i32(t) - {back}) * {} + {});
    if (t >= {back}u && p{e} < {to_h}u) {{
    let line_out{e} = i32((image * {to_h}u + p{e}) * {}u + c) + column_out * {vectors};",
            closes * rows.phases,
            e * rows.phases,
            to_w * vectors
        );
        if counted && !w.transposed {
            let _ = writeln!(t, "    let row_n{e} = {};", plan.inside_window(0, &format!("i32(p{e})")));
        }
        for o in 0..columns.size {
            let at = o * columns.phases;
            let share = match how {
                Slide::Average { padding: false } if !w.transposed => {
                    format!(" * (1.0 / f32(max(row_n{e} * column_n{o}, 1)))")
                }
                Slide::Average { padding: true } if !w.transposed => plan.share(),
                _ => String::new(),
            };
            let sum = match how {
                Slide::Largest => format!("of_rank(a{e}_{o})"),
                Slide::Root => format!("sqrt(a{e}_{o})"),
                _ => format!("a{e}_{o}{share}"),
            };
            let store = format!(
                "let at{o} = u32(line_out{e} + {}); y[at{o}] = pack(epilogue({sum}, at{o} * WIDTH));",
                at * vectors
            );
            let _ = match columns.inside(columns.place(), o, to_w) {
                (_, true) => writeln!(t, "    {store}"),
                _ => writeln!(t, "    if (u32(column_out + {at}) < {to_w}u) {{ {store} }}"),
            };
        }
        t.push_str("    }\n");
    }
    for e in 0..n_open {
        for o in 0..columns.size {
            let next = if e + closes < n_open { format!("a{}_{o}", e + closes) } else { how.start().into() };
            let _ = writeln!(t, "    a{e}_{o} = {next};");
        }
    }
    t.push_str("    }\n}\n");
    let source = Source::over_vectors(t, plan.width, profile);
    let grid = Grid::new(w.images.times((vectors * strips) as u64), plan.lanes as u32);
    let mut slots = vec![Slot::input(0), Slot::output(0)];
    if weighted {
        slots.insert(1, Slot::input(1));
    }
    let iterations = Count { fixed: (steps * if many { m + 1 } else { 1 }) as u64, per_sample: 0 };
    let dispatch = dispatch(w.name, source, &[], grid, slots, epilogue).iterations(iterations, 1);
    Candidate::single(plan.variant("strips"), dispatch)
}
