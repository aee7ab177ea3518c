//! The gradient of max pooling whose windows overlap, in the strips of [`slide`](super::slide): a lane finds the
//! first largest pixel of each window, NaN being the largest, that touches its strip and adds the window's gradient to it.

use super::{
    depthwise::{MAX_MADDS, Plan},
    gemm::{Window, wgsl_count},
    wgsl::{Source, dispatch},
};
use crate::{
    graph::{Candidate, DeviceProfile, Epilogue, Grid, Slot},
    tensor::Count,
};
use std::fmt::Write as _;

/// Returns the launch for the transposed window `w`; inputs 0 and 2 are the images and the gradient to the result.
pub fn largest_back(w: &Window, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Candidate {
    let mut plan = Plan::new(w, profile);
    let [kh, kw] = w.kernel;
    let [sh, sw] = w.strides;
    for n in 1..=plan.columns.results() {
        plan.columns = plan.columns.cut(n);
        let windows = plan.columns.size / sw + plan.columns.back();
        if plan.columns.size <= 8 && windows * kh * kw <= MAX_MADDS {
            break;
        }
    }
    let (rows, columns) = (&plan.rows, &plan.columns);
    let (vectors, strips) = (plan.vectors(), plan.strips());
    let windows = columns.size / sw + columns.back();
    let pixels = (windows - 1) * sw + kw;
    let ([h, width], [p, q]) = (w.to, w.from);
    let mut t = String::new();
    let items = w.images.times((vectors * strips) as u64);
    let _ = write!(
        t,
        "@group(0) @binding(1) var<storage, read> x: array<S>;
@group(0) @binding(2) var<storage, read> dy: array<S>;
@group(0) @binding(3) var<storage, read_write> dx: array<S>;
@compute @workgroup_size({lanes})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {{
    let item = (id.x + id.y * counts.x) * {lanes}u + lane;
    let items = {};
    if (item >= items) {{ return; }}
    let c = item % {vectors}u;
    let strip = item / {vectors}u;
",
        wgsl_count(items),
        lanes = plan.lanes,
    );
    t.push_str(&plan.enter());
    let _ = writeln!(t, "    let first_x = column_in * {sw} - {};", w.pads[1]);
    let row = |r: usize, keyword: &str, step: &str| {
        let mut t = format!(
            "    let h{r} = u32((row_in + {step}) * {sh} + {r} - {});
    let line{r} = i32(image * {h}u + h{r}) * {width};\n",
            w.pads[0]
        );
        for i in 0..pixels {
            let _ = writeln!(
                t,
                "    let in_bounds{r}_{i} = h{r} < {h}u && u32(first_x + {i}) < {width}u;
    let at{r}_{i} = select(0u, u32(line{r} + first_x + {i}) * {vectors}u + c, in_bounds{r}_{i});
    {keyword} x{r}_{i} = select(I(LOWEST - 1), rank(unpack(x[at{r}_{i}])), in_bounds{r}_{i});"
            );
        }
        t
    };
    // Rows that the next windows see too stay.
    let kept = kh.saturating_sub(sh);
    (0..kept).for_each(|r| t.push_str(&row(r, "var", "0")));
    let open = rows.open();
    for e in 0..open {
        for o in 0..columns.size {
            let _ = writeln!(t, "    var a{e}_{o} = V(0.0);");
        }
    }
    let back = rows.back();
    let steps = rows.size / sh + back;
    let _ = writeln!(t, "    let end_t = {steps}u;\n    for (var t = 0u; t < end_t; t++) {{");
    (kept..kh).for_each(|r| t.push_str(&row(r, "let", "i32(t)")));
    let _ = writeln!(t, "    let p = u32(row_in + i32(t));");
    for j in 0..windows {
        let _ = writeln!(
            t,
            "    let seen{j} = p < {p}u && u32(column_in + {j}) < {q}u;
    let d{j}_at = select(0u, ((image * {p}u + p) * {q}u + u32(column_in + {j})) * {vectors}u + c, seen{j});
    let d{j} = select(V(0.0), unpack(dy[d{j}_at]), seen{j});
    var best{j} = I(LOWEST - 1);
    var first{j} = V(-1.0);"
        );
        let taps = || (0..kh).flat_map(|r| (0..kw).map(move |s| (r, s)));
        for (r, s) in taps() {
            let (value, number) = (format!("x{r}_{}", j * sw + s), r * kw + s);
            let _ = writeln!(
                t,
                "    first{j} = select(first{j}, V({number}.0), {value} > best{j});
    best{j} = max(best{j}, {value});"
            );
        }
        for (r, s) in taps() {
            let Some(o) = (j * sw + s).checked_sub(columns.back() * sw).filter(|o| *o < columns.size) else { continue };
            let number = r * kw + s;
            let _ = writeln!(t, "    a{r}_{o} += select(V(0.0), d{j}, first{j} == V({number}.0));");
        }
    }
    for e in 0..sh {
        let _ = writeln!(
            t,
            "    let o{e} = u32(row_out + (i32(t) - {back}) * {sh} + {e});
    if (t >= {back}u && o{e} < {h}u) {{"
        );
        for o in 0..columns.size {
            let _ = writeln!(
                t,
                "    let to{o} = u32(column_out + {o});
    if (to{o} < {width}u) {{
    let i{o} = ((image * {h}u + o{e}) * {width}u + to{o}) * {vectors}u + c;
    dx[i{o}] = pack(epilogue(a{e}_{o}, i{o} * WIDTH));
    }}"
            );
        }
        t.push_str("    }\n");
    }
    for e in 0..open {
        for o in 0..columns.size {
            let next = if e + sh < open { format!("a{}_{o}", e + sh) } else { "V(0.0)".into() };
            let _ = writeln!(t, "    a{e}_{o} = {next};");
        }
    }
    for r in 0..kept {
        (0..pixels).for_each(|i| t.push_str(&format!("    x{r}_{i} = x{}_{i};\n", r + sh)));
    }
    t.push_str("    }\n}\n");
    let source = Source::over_vectors(t, plan.width, profile);
    let slots = vec![Slot::input(0), Slot::input(2), Slot::output(0)];
    let iterations = Count { fixed: steps as u64, per_sample: 0 };
    let dispatch =
        dispatch(w.name, source, &[], Grid::new(items, plan.lanes as u32), slots, epilogue).iterations(iterations, 1);
    Candidate::single(plan.variant("strips"), dispatch)
}
