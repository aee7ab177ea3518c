//! The gradient of max pooling whose windows overlap, in strips: a lane finds the first largest pixel of each window, NaN being
//! the largest, that touches its strip and adds the window's gradient to it.

use super::{
    axis::Axis,
    plan::{KEPT_OF_INPUT, MAX_MADDS, Plan, lowest, rank},
    strip_sums::{self, StripSums},
};
use crate::{
    graph::{Candidate, DeviceProfile, Epilogue, Slot},
    kernels::{
        column_parts::PartSums,
        gemm::Window,
        language::{Expr, Kernel},
    },
};

/// Returns the launch for the transposed window `w`; inputs 0 and 2 are the images and the gradient to the result.
pub fn max_pool_grad(w: &Window, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Candidate {
    let kind = epilogue.and_then(|e| e.sums);
    let prologues = epilogue.map_or(0, |e| e.prologues.len());
    let more = KEPT_OF_INPUT * prologues + if kind.is_some() { strip_sums::KEPT } else { 0 };
    let mut plan = Plan::new(w, profile, more);
    let ([kh, kw], [sh, sw]) = (w.kernel, w.strides);
    // Windows that touch a strip.
    let windows = |c: &Axis| c.size / sw + c.halo();
    let most = plan.columns.per_phase();
    let pixels = |c: &Axis| (windows(c) - 1) * sw + kw;
    let kept = |plan: &Plan, c: &Axis| kh * pixels(c) + c.size * plan.rows.under_way() + 6 + more;
    let four = plan.columns.in_strips(most.div_ceil(4));
    plan.narrow(|plan| plan.keeps(kept(plan, &four)));
    let fits = |c: &Axis| c.size <= 8 && windows(c) * kh * kw <= MAX_MADDS && plan.keeps(kept(&plan, c));
    let columns = (1..=most).map(|n| plan.columns.in_strips(n)).find(fits);
    plan.columns = columns.unwrap_or(plan.columns.in_strips(most));
    let (rows, columns, channels) = (plan.rows, plan.columns, plan.channels());
    let (windows, pixels) = (windows(&columns), pixels(&columns));

    let (mut k, x) = plan.kernel();
    let dy = k.bind("dy", plan.layout(), Slot::input(2));
    let [floats, ranks] = plan.vectors();
    let zero = floats.splat(0.0);
    let mut output = plan.output(&mut k, zero.clone(), epilogue);
    let bound = kind.map(|kind| (kind, PartSums::bind(&mut k, kind, plan.layout())));
    let mut x = plan.input(&mut k, (0, x), epilogue);
    let [channel, number] = plan.item(&mut k, plan.items());
    x.enter(&mut k, &channel);
    let number = k.let_("strip", number);
    output.sums = bound.map(|to| StripSums::new(&mut k, to, (floats, &channel)));
    let strip = plan.strip(&mut k, [&channel, &number]);
    let none = k.let_("none", ranks.splat(lowest() - 1));
    let first_column = k.let_("first_column", &strip.read[1] * sw - w.pads[1]);
    let read = |k: &mut Kernel, r: usize, step: Expr| -> Vec<Expr> {
        let row = k.let_(format!("h{r}"), (&strip.read[0] + step) * sh + r - w.pads[0]);
        let line = k.let_(format!("line{r}"), strip.index(w.to, channels, [&row, &first_column, &channel]));
        let pixel = |i: usize| {
            let inside = row.u32().less(w.to[0]).and((&first_column + i).u32().less(w.to[1]));
            let inside = k.let_(format!("in_bounds{r}_{i}"), inside);
            inside.select(rank(x.at(&inside.select((&line + i * channels).u32(), 0u32))), &none)
        };
        (0..pixels).map(pixel).collect()
    };
    // Rows that the next windows see too stay.
    let mut kept = |r: usize| -> Vec<Expr> {
        let row = read(&mut k, r, 0i32.into()).into_iter().enumerate();
        row.map(|(i, x)| k.var(format!("x{r}_{i}"), x)).collect()
    };
    let kept: Vec<Vec<Expr>> = (0..kh.saturating_sub(sh)).map(&mut kept).collect();
    plan.for_steps(&mut k, rows.steps(), |k| {
        let mut new = |r: usize| -> Vec<Expr> {
            let row = read(k, r, Plan::step().i32()).into_iter().enumerate();
            row.map(|(i, x)| k.let_(format!("x{r}_{i}"), x)).collect()
        };
        let new: Vec<Vec<Expr>> = (kept.len()..kh).map(&mut new).collect();
        let seen: Vec<&Vec<Expr>> = kept.iter().chain(&new).collect();
        let row = k.let_("p", &strip.read[0] + Plan::step().i32());
        let row_inside = rows.reads().inside(&row, 0..rows.steps());
        let line = k.let_("line_dy", strip.index(w.from, channels, [&row, &strip.read[1], &channel]));
        for j in 0..windows {
            let inside = row_inside.and(columns.reads().inside(&(&strip.read[1] + j), j..j + 1));
            let inside = k.let_(format!("inside{j}"), inside);
            let at = inside.select((&line + j * channels).u32(), 0u32);
            let d = k.let_(format!("d{j}"), inside.select(dy.at(at), &zero));
            let best = k.var(format!("best{j}"), &none);
            let first = k.var(format!("first{j}"), floats.splat(-1.0));
            let taps =
                || (0..kh).flat_map(|r| (0..kw).map(move |s| (r, j * sw + s, floats.splat((r * kw + s) as f32))));
            for (r, i, tap) in taps() {
                k.set(&first, best.less(&seen[r][i]).select(tap, &first));
                k.set(&best, best.max(&seen[r][i]));
            }
            for (r, i, tap) in taps() {
                if let Some(sum) = i.checked_sub(columns.halo() * sw).and_then(|o| output.rows[r].get(o)) {
                    k.add(sum, first.equals(tap).select(&d, &zero));
                }
            }
        }
        plan.complete(k, &strip, &output, |_, e, _| output.rows[e].clone());
        for (r, row) in kept.iter().enumerate() {
            row.iter().zip(seen[r + sh]).for_each(|(x, later)| k.set(x, later));
        }
    });
    let sums = output.sums.as_ref().map(|sums| {
        sums.write(&mut k, &number, channels, &channel);
        sums.parts(w.images.times(plan.strips() as u64), w.to_channels)
    });
    Candidate { prologues: prologues > 0, ..plan.candidate(k, sums) }
}
