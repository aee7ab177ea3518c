//! Which tile cores compute a product or slide a window, the fastest by their estimates first.

use super::{
    dgrad_strided::Spread,
    direct_channels::Row,
    direct_rows::Strip,
    product::{Loop, Operand, Product, declare, read, wgsl_count},
    registers, shared_memory,
    window::Window,
};
use crate::{
    graph::{Candidate, DeviceProfile, Epilogue, Slot},
    kernels::depthwise::{self, Slide},
    tensor::{Count, DType},
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
    let group = |size: usize| if grouped { format!(" + group * {size}u") } else { String::new() };
    let position = |index: &str| {
        let h = format!("(({index} / {per_w}u) % {per_h}u * {phase_h}u + phase_h)");
        let w = format!("(({index} % {per_w}u) * {phase_w}u + phase_w)");
        (h, w)
    };
    let pixel_enter = |level: usize, name: &str, index: &str| match level {
        0 => {
            let (h, w) = position(index);
            format!(
                "    let {name}_n = {index} / {}u;\n    let {name}_h = {h};\n    let {name}_w = {w};\n",
                per_h * per_w
            )
        }
        2 => {
            let ih = w.source(0, &format!("{name}_h"), "r");
            let iw = w.source(1, &format!("{name}_w"), "s");
            format!(
                "    let {name}_y = u32({ih});\n    let {name}_x = u32({iw});
    let {name}_in_bounds = {name}_y < {from_h}u && {name}_x < {from_w}u;
    let {name}_o = select(0u, (({name}_n * {from_h}u + {name}_y) * {from_w}u + {name}_x) * {pitch}u{}, {name}_in_bounds);\n",
                group(channels)
            )
        }
        _ => String::new(),
    };
    let pixel_value = |name: &str, pair| read("x", &format!("{name}_o + c"), Some(&format!("{name}_in_bounds")), pair);
    let weight_enter = |level: usize, name: &str, index: &str| match (level, w.transposed) {
        (2, false) => format!("    let {name}_o = tap_offset(r, s) + {index}{};\n", group(to_channels)),
        (2, true) => format!("    let {name}_o = tap_offset(r, s) + {index} * {pitch}u{};\n", group(channels)),
        _ => String::new(),
    };
    let weight_value = |name: &str, pair| {
        let pitch = if w.transposed { String::new() } else { format!(" * {}u", w.to_channels) };
        read("w", &format!("{name}_o + c{pitch}"), None, pair)
    };
    let even_from = channels.is_multiple_of(2);
    let even_weights = if w.transposed { even_from } else { to_channels.is_multiple_of(2) };
    let place = |row: &str| {
        let (h, width) = position(row);
        let n = per_h * per_w;
        let place = format!("((({row} / {n}u) * {to_h}u + {h}) * {to_w}u + {width})");
        let place = if grouped { format!("({place} * {groups}u + group)") } else { place };
        let rows = wgsl_count(w.images.times(n as u64));
        (place, format!("{row} < {rows} && {h} < {to_h}u && {width} < {to_w}u"))
    };
    let count = |n: usize| Count { fixed: n as u64, per_sample: 0 };
    let taps = |var: &'static str, axis: usize, phase: &str| Loop {
        from: w.first_tap(axis, phase),
        step: w.taps(axis, 0).1,
        ..Loop::new(var, count(w.kernel[axis]))
    };
    let phased = phase_h * phase_w > 1;
    let product = Product {
        name: w.name,
        declarations: declare(1, "x", DType::F32) + &declare(2, "w", DType::F32) + &w.weights(),
        slots: vec![Slot::input(0), Slot::input(1)],
        batch: count(phase_h * phase_w * groups),
        head: format!(
            "    let group = batch % {groups}u;\n    let phase_h = batch / {}u;\n    let phase_w = batch / {groups}u % {phase_w}u;\n",
            phase_w * groups
        ),
        rows: Operand {
            extent: w.images.times((per_h * per_w) as u64),
            enter: &pixel_enter,
            value: &pixel_value,
            pairs: even_from.then_some("x"),
            along_terms: true,
        },
        columns: Operand {
            extent: count(to_channels),
            enter: &weight_enter,
            value: &weight_value,
            pairs: even_weights.then_some("w"),
            along_terms: w.transposed,
        },
        loops: vec![taps("r", 0, "phase_h"), taps("s", 1, "phase_w"), Loop::new("c", count(channels))],
        place: if phased || grouped { Some(&place) } else { None },
        whole: !phased,
        sums: false,
    };
    let strips = if grouped { Vec::new() } else { Strip::choose(w, profile) };
    let strips = strips.into_iter().map(|(time, strip)| (time, strip.lower(w, epilogue)));
    let spread = Spread::choose(w, profile).map(|(time, spread)| (time, spread.lower(w, epilogue)));
    let row = Row::choose(w, profile).map(|(time, row)| (time, row.lower(w, epilogue)));
    lower_with(strips.chain(spread).chain(row), &product, profile, epilogue)
}
