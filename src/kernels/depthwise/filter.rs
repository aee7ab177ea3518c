//! The gradient to the weights of a convolution of each channel alone.

use super::plan::{MAX_TAPS, NOMINAL_BATCH, Plan, Slide};
use crate::{
    graph::{Candidate, DeviceClass, DeviceProfile, Grid, Slot},
    kernels::{
        gemm::{Filter, Finish, LONG_BATCH, Window, split_sum, wgsl_count},
        wgsl::{Source, dispatch},
    },
    tensor::Count,
};
use std::fmt::Write as _;

impl Filter {
    /// Returns the launches for a convolution of each channel alone, where its taps fit into one loop body.
    pub fn depthwise(&self, profile: &DeviceProfile) -> Option<Candidate> {
        let few = self.kernel[0] * self.kernel[1] <= MAX_TAPS;
        (few && self.groups > 1 && self.groups == self.from_channels).then(|| filter(self, profile))
    }
}

/// Returns the way to compute the gradient to the weights of a convolution of each channel alone: every lane adds up
/// all taps of its channel over every `lanes`-th strip, and a second launch adds the lanes' sums in order.
fn filter(f: &Filter, profile: &DeviceProfile) -> Candidate {
    let w = Window {
        name: "conv2d_grad_weight",
        transposed: false,
        from: f.input,
        to: f.output,
        from_channels: f.from_channels,
        to_channels: f.to_channels,
        kernel: f.kernel,
        strides: f.strides,
        pads: f.pads,
        dilation: f.dilation,
        groups: f.from_channels,
        images: f.images,
    };
    let plan = Plan::new(&w, profile);
    let (rows, columns, m) = (&plan.rows, &plan.columns, plan.multiplier);
    let (vectors, strips) = (plan.vectors(), plan.strips());
    let wanted: usize = if profile.class == DeviceClass::Cpu { 64 } else { 16_384 };
    let iterations = f.images.times((strips * (plan.rows.size + plan.rows.back() + 1)) as u64);
    let long = iterations.at(LONG_BATCH).div_ceil(profile.max_iterations / 2) as usize;
    let parts = wanted.div_ceil(vectors).min(f.images.at(NOMINAL_BATCH) as usize * strips).max(long).max(1);
    let (row_products, products, whole) = (rows.row_products(), columns.products(), m == 1);
    let ([kh, kw], [p, q]) = (f.kernel, f.output);
    let elements = (kh * kw + usize::from(f.sums)) * vectors;
    let mut t = String::new();
    let _ = write!(
        t,
        "@group(0) @binding(1) var<storage, read> x: array<{x}>;
@group(0) @binding(2) var<storage, read> dy: array<S>;
@group(0) @binding(3) var<storage, read_write> y: array<S>;
@compute @workgroup_size({lanes})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {{
    let item = (id.x + id.y * counts.x) * {lanes}u + lane;
    let items = {}u;
    if (item >= items) {{ return; }}
    let c = item % {vectors}u;
    let part = item / {vectors}u;
    let end_strip = {};
",
        parts * vectors,
        wgsl_count(f.images.times(strips as u64)),
        x = if whole { "S" } else { "f32" },
        lanes = plan.lanes,
    );
    for r in 0..kh {
        for s in 0..kw {
            let _ = writeln!(t, "    var w{r}_{s} = V(0.0);");
        }
    }
    if f.sums {
        t.push_str("    var sum = V(0.0);\n");
    }
    let _ = writeln!(t, "    for (var strip = part; strip < end_strip; strip += {parts}u) {{");
    t.push_str(&plan.enter());
    let (back, reads) = (rows.back(), rows.steps().0);
    for e in 0..back {
        for o in 0..columns.size {
            let _ = writeln!(t, "    var d{e}_{o} = V(0.0);");
        }
    }
    let _ = writeln!(
        t,
        "    let end_t = {}u;\n    for (var t = 0u; t < end_t; t++) {{
    let p = u32(row_out) + t * {}u;
    let in_bounds = t < {}u && p < {p}u;
    let line = i32((image * {p}u + p) * {}u + c) + column_out * {vectors};",
        rows.size + back,
        rows.phases,
        rows.size,
        q * vectors
    );
    for o in 0..columns.size {
        let at = o * columns.phases;
        let in_bounds = match columns.inside(columns.place(), o, q) {
            (_, true) => "in_bounds".to_owned(),
            _ => format!("(in_bounds && u32(column_out + {at}) < {q}u)"),
        };
        let index = format!("u32(line + {})", at * vectors);
        let _ = writeln!(
            t,
            "    let d{back}_{o} = select(V(0.0), unpack(dy[select(0u, {index}, {in_bounds})]), {in_bounds});"
        );
        if f.sums {
            let _ = writeln!(t, "    sum += d{back}_{o};");
        }
    }
    let (channels, c) =
        if whole { (vectors, "c".to_owned()) } else { (f.from_channels, format!("c * {}u / {m}u", plan.width)) };
    for i in 0..reads {
        if row_products.iter().any(|p| p.0 == i) {
            t.push_str(&plan.load(i, &products, (channels, &c), whole, Slide::Weighted));
        }
    }
    for (i, e, r) in &row_products {
        for s in 0..kw {
            for (j, o, _) in products.iter().filter(|p| p.2 == s) {
                let _ = writeln!(t, "    w{r}_{s} += x{i}_{j} * d{e}_{o};");
            }
        }
    }
    for e in 0..back {
        for o in 0..columns.size {
            let _ = writeln!(t, "    d{e}_{o} = d{}_{o};", e + 1);
        }
    }
    t.push_str("    }\n    }\n");
    let _ = writeln!(t, "    let y_o = part * {elements}u + c;");
    for r in 0..kh {
        for s in 0..kw {
            let _ = writeln!(t, "    y[y_o + {}u] = pack(w{r}_{s});", (r * kw + s) * vectors);
        }
    }
    if f.sums {
        let _ = writeln!(t, "    y[y_o + {}u] = pack(sum);", kh * kw * vectors);
    }
    t.push_str("}\n");
    let source = Source::over_vectors(t, plan.width, profile);
    let slots = vec![Slot::input(0), Slot::input(1), Slot::Scratch(0)];
    let grid = Grid::new(Count { fixed: (parts * vectors) as u64, per_sample: 0 }, plan.lanes as u32);
    // The last strip of a part that has one more than others.
    let rest = parts * (plan.rows.size + plan.rows.back() + 1);
    let iterations = Count { fixed: iterations.fixed + rest as u64, ..iterations };
    let main = dispatch(w.name, source, &[], grid, slots, None).iterations(iterations, parts as u64);
    let sums = if f.sums { f.to_channels } else { 0 };
    let elements = Count { fixed: (elements * plan.width) as u64, per_sample: 0 };
    let sum = split_sum(sums as u64, elements, parts as u64, &Finish::new(None, f.to_channels as u64), None);
    let variant = format!("{}_split{parts}", plan.variant("strips"));
    let scratch_bytes = vec![elements.times(4 * parts as u64)];
    Candidate { variant, dispatches: vec![main, sum], scratch_bytes }
}
