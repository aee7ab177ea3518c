//! Which tile cores compute a product or slide a window, the fastest by their estimates first.

use super::{
    dgrad_strided::Spread,
    direct_channels::Row,
    direct_rows::Strip,
    product::{Cursor, Loop, Operand, Product},
    registers, shared_memory,
    window::Window,
};
use crate::{
    graph::{Candidate, DeviceProfile, Epilogue},
    kernels::{
        depthwise::{self, Slide},
        language::{self, Expr, Kernel},
    },
    tensor::Count,
};

/// Returns ways to compute a product, the one that needs no timing first.
pub fn lower(product: &Product, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
    lower_with([], product, profile, epilogue)
}

/// Returns the candidates of a product and its rivals with their estimated nanoseconds, the fastest first.
pub fn lower_with(
    rivals: impl IntoIterator<Item = (f64, Candidate)>,
    product: &Product,
    profile: &DeviceProfile,
    epilogue: Option<&Epilogue>,
) -> Vec<Candidate> {
    let own = [registers::register_tiles(product, profile, epilogue)];
    let mut candidates: Vec<(f64, Candidate)> = own.into_iter().chain(rivals).collect();
    candidates.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let mut candidates = candidates.into_iter().map(|(_, c)| c).collect();
    shared_memory::add(&mut candidates, product, profile, epilogue);
    candidates
}

/// Returns ways to slide a window, the one that needs no timing first.
pub fn window(w: &Window, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
    let depthwise = w.groups > 1 && w.groups == if w.transposed { w.to_channels } else { w.from_channels };
    if depthwise && w.kernel[0] * w.kernel[1] <= depthwise::MAX_TAPS {
        return vec![depthwise::slide(w, Slide::Weighted, profile, epilogue)];
    }
    let [phase_h, phase_w] = [w.phases(0), w.phases(1)];
    let [per_h, per_w] = [w.per_phase(0), w.per_phase(1)];
    let [from_h, from_w] = w.from;
    let [to_h, to_w] = w.to;
    let (groups, pitch) = (w.groups, w.from_channels);
    let (channels, to_channels) = (pitch / groups, w.to_channels / groups);
    let grouped = groups > 1;
    let batch = Product::batch_index();
    let group = &batch % groups;
    let phase = [&batch / (phase_w * groups) % phase_h, &batch / groups % phase_w];
    let position = |index: &Expr| {
        let h = index / per_w % per_h * phase_h + &phase[0];
        let w = index % per_w * phase_w + &phase[1];
        (h, w)
    };
    let pixel_enter = |k: &mut Kernel, at: &mut Cursor, vars: &[Expr]| match vars {
        [] => {
            let (h, w) = position(at.index());
            at.set(k, "n", at.index() / (per_h * per_w));
            at.set(k, "h", h);
            at.set(k, "w", w);
        }
        [r, s] => {
            at.set(k, "y", w.source(0, at.get("h"), r).u32());
            at.set(k, "x", w.source(1, at.get("w"), s).u32());
            at.set(k, "in_bounds", at.get("y").less(from_h).and(at.get("x").less(from_w)));
            let pixel = ((at.get("n") * from_h + at.get("y")) * from_w + at.get("x")) * pitch + &group * channels;
            at.set(k, "o", at.get("in_bounds").select(pixel, 0u32));
        }
        _ => {}
    };
    let pixel_at = |at: &Cursor, vars: &[Expr]| (at.get("o") + &vars[2], at.get("in_bounds").clone());
    let weight_enter = |k: &mut Kernel, at: &mut Cursor, vars: &[Expr]| {
        if let [r, s] = vars {
            let (scale, per_group) = if w.transposed { (pitch, channels) } else { (1, to_channels) };
            at.set(k, "o", w.tap_offset(r, s) + at.index() * scale + &group * per_group);
        }
    };
    let weight_at = |at: &Cursor, vars: &[Expr]| {
        let pitch = if w.transposed { 1 } else { w.to_channels };
        (at.get("o") + &vars[2] * pitch, Expr::from(true))
    };
    let even_from = channels.is_multiple_of(2);
    let even_weights = if w.transposed { even_from } else { to_channels.is_multiple_of(2) };
    let place = |row: &Expr| {
        let (h, width) = position(row);
        let n = per_h * per_w;
        let pixel = (row / n * to_h + &h) * to_w + &width;
        let inside = row.less(language::count(w.images.times(n as u64))).and(h.less(to_h)).and(width.less(to_w));
        (pixel * groups + &group, inside)
    };
    let count = |n: usize| Count { fixed: n as u64, per_sample: 0 };
    let taps = |var: &'static str, axis: usize| Loop {
        from: w.first_tap(axis, &phase[axis]),
        step: w.taps(axis, 0).1,
        ..Loop::new(var, count(w.kernel[axis]))
    };
    let phased = phase_h * phase_w > 1;
    let product = Product {
        name: w.name,
        batch: count(phase_h * phase_w * groups),
        rows: Operand {
            buffer: "x",
            extent: w.images.times((per_h * per_w) as u64),
            enter: &pixel_enter,
            at: &pixel_at,
            pairs: even_from,
            along_terms: true,
        },
        columns: Operand {
            buffer: "w",
            extent: count(to_channels),
            enter: &weight_enter,
            at: &weight_at,
            pairs: even_weights,
            along_terms: w.transposed,
        },
        loops: vec![taps("r", 0), taps("s", 1), Loop::new("c", count(channels))],
        position: if phased || grouped { Some(&place) } else { None },
        whole: !phased,
        sums: false,
    };
    let strips = if grouped { Vec::new() } else { Strip::choose(w, profile) };
    let strips = strips.into_iter().map(|(time, strip)| (time, strip.lower(w, epilogue)));
    let spread = Spread::choose(w, profile).map(|(time, spread)| (time, spread.lower(w, epilogue)));
    let row = Row::choose(w, profile).map(|(time, row)| (time, row.lower(w, epilogue)));
    lower_with(strips.chain(spread).chain(row), &product, profile, epilogue)
}
