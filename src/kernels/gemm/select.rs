//! Which tile cores compute a product or slide a window, the fastest by their estimates first.

use super::{
    dgrad_strided, direct_channels, direct_rows, gpu, layout,
    product::{Apart, Cursor, Loop, Operand, Product, parts_of, run},
    registers, shared_memory, tiles,
    window::Window,
};
use crate::{
    graph::{Candidate, Declined, DeviceClass, DeviceProfile, Epilogue},
    kernels::{
        Core, Schedule, coefficients,
        language::{Divisor, Expr, Extent, Kernel},
        window::{MAX_TAPS, Reduction, reduce_window},
    },
    tensor::Count,
};

/// How much longer a product may take that leaves column sums, beside the launch that it saves.
const MOST_FOR_SUMS: f64 = 1.1;

/// Returns ways to compute a product, the one that needs no timing first.
pub fn lower(product: &Product, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
    lower_with([], product, profile, epilogue)
}

/// Returns the candidates of a product and its rivals, the fastest by their estimates first.
pub fn lower_with(
    rivals: impl IntoIterator<Item = Candidate>,
    product: &Product,
    profile: &DeviceProfile,
    epilogue: Option<&Epilogue>,
) -> Vec<Candidate> {
    let (counts, in_registers) = registers::choose(product, profile);
    let own = registers::lower(product, in_registers, profile, epilogue);
    let mut shared = tiles::schedules(product, true, profile);
    // Column sums are worth a little more time: they save a launch, and reading the result once more.
    if let Some(whole) = parts_of(product, epilogue).map(|_| tiles::schedules(product, false, profile)) {
        let worth = |whole: f64, best: f64| whole < best * MOST_FOR_SUMS + gpu::LAUNCH;
        if whole.first().zip(shared.first()).is_some_and(|((whole, _), (best, _))| worth(*whole, *best)) {
            shared = whole;
        }
    }
    let lower_shared = |&(score, s): &(f64, Schedule)| {
        let cycles = gpu::first_launch(product, &s, layout::lanes(s), profile);
        let candidate = shared_memory::lower(product, s, profile, epilogue).with_cycles(cycles);
        if profile.class == DeviceClass::Gpu { candidate.with_score(score) } else { candidate }
    };
    if profile.class == DeviceClass::Gpu {
        let lanes = registers::lanes(profile);
        let own = own.with_cycles(gpu::first_launch(product, &in_registers, lanes, profile));
        let cycles = gpu::cycles(product, &in_registers, lanes, profile);
        let own = own.with_score(cycles);
        let slower = shared.partition_point(|&(shared, _)| shared < cycles);
        let (before, after) = shared.split_at(slower);
        return before.iter().map(lower_shared).chain([own]).chain(after.iter().map(lower_shared)).collect();
    }
    let mut candidates: Vec<Candidate> = [own.with_counts(counts)].into_iter().chain(rivals).collect();
    let time = |c: &Candidate| c.counts.unwrap_or_default().time(coefficients(profile.class));
    candidates.sort_by(|a, b| time(a).total_cmp(&time(b)));
    candidates.iter_mut().for_each(|c| c.score = Some(time(c)));
    candidates.extend(shared.iter().map(lower_shared));
    candidates
}

/// Returns ways to slide a window, the one that needs no timing first.
pub fn window(w: &Window, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
    if is_depthwise(w) {
        return vec![reduce_window(w, Reduction::Weighted, profile, epilogue)];
    }
    let rivals = direct_rows::candidates(w, profile, epilogue).into_iter();
    let rivals = rivals.chain(dgrad_strided::candidate(w, profile, epilogue));
    let rivals = rivals.chain(direct_channels::candidate(w, profile, epilogue));
    if let Some(matrices) = w.matrices() {
        return matrices.product(|product| lower_with(rivals, product, profile, epilogue));
    }
    let pixels = w.pixels().filter(|_| profile.class == DeviceClass::Gpu && epilogue.is_none_or(|e| e.keeps_zero));
    if let Some(pixels) = pixels {
        return w.among_zeros(&pixels, |product| lower_with(rivals, product, profile, epilogue));
    }
    sliding(w, profile, |product| lower_with(rivals, product, profile, epilogue))
}

/// Returns the cores that do not offer to slide a window, and why.
pub fn window_declines(w: &Window, profile: &DeviceProfile) -> Vec<Declined> {
    if is_depthwise(w) {
        let why = "each channel has a filter of its own: a window over each channel alone needs no product";
        return [Core::Registers, Core::Shared].map(|core| declined(core, why)).into();
    }
    let of = [
        (Core::Rows, direct_rows::declines(w, profile)),
        (Core::Strided, dgrad_strided::declines(w, profile)),
        (Core::Channels, direct_channels::declines(w, profile)),
    ];
    of.into_iter().filter_map(|(core, why)| why.map(|why| declined(core, why))).collect()
}

pub(super) fn declined(core: Core, why: &str) -> Declined {
    Declined { core: core.word(), why: why.into() }
}

fn is_depthwise(w: &Window) -> bool {
    let alone = w.groups > 1 && w.groups == if w.transposed { w.to_channels } else { w.from_channels };
    alone && w.kernel[0] * w.kernel[1] <= MAX_TAPS
}

/// Calls `f` with the product that a window is, whose rows are the pixels of the result and whose terms the channels under its taps.
fn sliding<R>(w: &Window, profile: &DeviceProfile, f: impl FnOnce(&Product) -> R) -> R {
    let [phase_h, phase_w] = [w.phases(0), w.phases(1)];
    let [per_h, per_w] = [w.per_phase(0), w.per_phase(1)];
    // Divisions by extents take 64-bit integers. The place of a single row or column is known, and what it is compared with must be too.
    let by_extents = profile.class == DeviceClass::Cpu && profile.u64_loads && per_h > 1 && per_w > 1;
    let divisor = |names, n: usize| if by_extents { Divisor::new(names, n) } else { Divisor::constant(n) };
    let extent = |name, n: usize| if by_extents { Expr::extent(name, n as u64) } else { n.into() };
    let area = divisor(["area", "area_magic", "area_shift"], per_h * per_w);
    let row_width = divisor(["row_width", "row_width_magic", "row_width_shift"], per_w);
    let [from_h, from_w] = [extent("from_h", w.from[0]), extent("from_w", w.from[1])];
    let [to_h, to_w] = [extent("to_h", w.to[0]), extent("to_w", w.to[1])];
    let rows = Extent::new(["rows", "rows_per_sample"], w.images.times((per_h * per_w) as u64));
    let (groups, pitch) = (w.groups, w.from_channels);
    let (channels, to_channels) = (pitch / groups, w.to_channels / groups);
    let columns = Extent::new(["columns", ""], count(to_channels));
    let terms = match profile.class {
        DeviceClass::Cpu => Extent::new(["channels", ""], count(channels)),
        // Here taps and channels are flattened into one range, which is divided in the innermost loop.
        DeviceClass::Gpu => Extent::constant(count(channels)),
    };
    let grouped = groups > 1;
    let of_group = |group: &Expr, per: &Expr| if grouped { group * per } else { 0u32.into() };
    let pitch_of = |per: &Expr| if grouped { per * groups } else { per.clone() };
    let (to_channels_e, channels_e) = (columns.expr(), terms.expr());
    let batch = Product::batch_index();
    let group = &batch % groups;
    let phase = [&batch / (phase_w * groups) % phase_h, &batch / groups % phase_w];
    let position = |index: &Expr| {
        let of_image = area.remainder(index);
        let h = row_width.quotient(&of_image) * phase_h + &phase[0];
        (h, row_width.remainder(&of_image) * phase_w + &phase[1])
    };
    // Without phases a tap is as many pixels from the first one for each index.
    let apart = profile.class == DeviceClass::Gpu && phase_h * phase_w == 1;
    let all_inside = apart && w.inside(0) && w.inside(1);
    let by_bits = apart && w.has_tap_bits() && !all_inside;
    let beyond = |axis: usize, tap: &Expr| {
        let tap = tap * w.dilation[axis];
        if w.transposed { Expr::from(0u32) - tap } else { tap }
    };
    let pixel_enter = |k: &mut Kernel, at: &mut Cursor, vars: &[Expr]| match vars {
        [] => {
            let (h, width) = position(at.index());
            at.set(k, "n", area.quotient(at.index()));
            if !apart {
                at.set(k, "h", h);
                return at.set(k, "w", width);
            }
            let h = k.let_(format!("{}_row", at.name), h);
            let width = k.let_(format!("{}_column", at.name), width);
            at.set(k, "h", w.source(0, &h, &0u32.into()).u32());
            at.set(k, "w", w.source(1, &width, &0u32.into()).u32());
            at.set(k, "p", (at.get("n") * &from_h + at.get("h")) * &from_w + at.get("w"));
            if by_bits {
                at.set(k, "taps", w.tap_bits([&h, &width]));
            }
        }
        [_, _] if all_inside => {}
        [r, s] if by_bits => {
            let bits = k.let_(format!("{}_tap", at.name), w.bits_of_tap([r, s]));
            at.set(k, "in_bounds", (at.get("taps") & &bits).equals(bits));
        }
        [r, s] if apart => {
            at.set(k, "y", at.get("h") + beyond(0, r));
            at.set(k, "x", at.get("w") + beyond(1, s));
            at.set(k, "in_bounds", at.get("y").less(&from_h).and(at.get("x").less(&from_w)));
        }
        [r, s] => {
            at.set(k, "y", w.source(0, at.get("h"), r).u32());
            at.set(k, "x", w.source(1, at.get("w"), s).u32());
            at.set(k, "in_bounds", at.get("y").less(&from_h).and(at.get("x").less(&from_w)));
            let pixel = ((at.get("n") * &from_h + at.get("y")) * &from_w + at.get("x")) * pitch_of(&channels_e)
                + of_group(&group, &channels_e);
            at.set(k, "o", at.get("in_bounds").select(pixel, 0u32));
        }
        _ => {}
    };
    let pixel_index = |at: &Cursor, unit: usize| {
        at.get("p") * (pitch_of(&channels_e) / unit) + of_group(&group, &(&channels_e / unit))
    };
    let pixel_terms = |vars: &[Expr], unit: usize| {
        let tap = beyond(0, &vars[0]) * &from_w + beyond(1, &vars[1]);
        tap * (pitch_of(&channels_e) / unit) + &vars[2] / unit
    };
    let pixel_at = |at: &Cursor, vars: &[Expr]| {
        let inside = if all_inside { true.into() } else { at.get("in_bounds").clone() };
        match apart {
            true => (inside.select(pixel_index(at, 1) + pixel_terms(vars, 1), 0u32), inside),
            false => (at.get("o") + &vars[2], inside),
        }
    };
    let weight_index = |at: &Cursor, unit: usize| match w.transposed {
        true => (at.index() * pitch_of(&channels_e) + of_group(&group, &channels_e)) / unit,
        false => (at.index() + of_group(&group, &to_channels_e)) / unit,
    };
    let tap_offset =
        |r: &Expr, s: &Expr| (r * w.kernel[1] + s) * Expr::extent("weights_per_tap", (pitch * to_channels) as u64);
    let weight_step = if w.transposed { 1u32.into() } else { pitch_of(&to_channels_e) };
    let weight_terms = |vars: &[Expr], unit: usize| (tap_offset(&vars[0], &vars[1]) + &vars[2] * &weight_step) / unit;
    let weight_enter = |k: &mut Kernel, at: &mut Cursor, vars: &[Expr]| {
        if let [r, s] = vars {
            at.set(k, "o", tap_offset(r, s) + weight_index(at, 1));
        }
    };
    let weight_at = |at: &Cursor, vars: &[Expr]| (at.get("o") + &vars[2] * &weight_step, Expr::from(true));
    let place = |row: &Expr| {
        let (h, width) = position(row);
        let pixel = (area.quotient(row) * &to_h + &h) * &to_w + &width;
        let inside = row.less(rows.expr()).and(h.less(&to_h)).and(width.less(&to_w));
        (pixel * groups + &group, inside)
    };
    let taps = |var: &'static str, axis: usize| Loop {
        from: w.first_tap(axis, &phase[axis]),
        step: w.taps(axis, 0).1,
        ..Loop::new(var, Extent::constant(count(w.kernel[axis])))
    };
    let phased = phase_h * phase_w > 1;
    let product = Product {
        name: w.name,
        batch: count(phase_h * phase_w * groups),
        rows: Operand {
            buffer: "x",
            extent: rows,
            enter: &pixel_enter,
            at: &pixel_at,
            apart: apart.then(|| Apart {
                index: &pixel_index,
                terms: &pixel_terms,
                step: 1u32.into(),
                of_all: false,
                there: None,
            }),
            run: run(channels),
            along_terms: true,
        },
        columns: Operand {
            buffer: "w",
            extent: columns,
            enter: &weight_enter,
            at: &weight_at,
            apart: apart.then(|| Apart {
                index: &weight_index,
                terms: &weight_terms,
                step: weight_step.clone(),
                of_all: !w.transposed,
                there: None,
            }),
            run: run(if w.transposed { channels } else { to_channels }),
            along_terms: w.transposed,
        },
        loops: vec![taps("r", 0), taps("s", 1), Loop::new("c", terms)],
        position: if phased || grouped { Some(&place) } else { None },
        zeros: None,
        whole: !phased,
        sums: false,
    };
    f(&product)
}

fn count(n: usize) -> Count {
    Count { fixed: n as u64, per_sample: 0 }
}
