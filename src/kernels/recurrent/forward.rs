//! The kernel that runs a cell over all timesteps.

use super::{
    cell::{Cell, CellKind},
    core::{Bindings, Core, Extents, Tile, of},
};
use crate::{
    graph::{DeviceProfile, Dispatch},
    kernels::{
        Schedule,
        language::{Expr, Kernel, loop_end},
    },
};

/// Returns the ways to run a cell over all timesteps: inputs x (samples, steps, gates·u), kernel (u, gates·u), the bias
/// (gates·u) of a GRU that resets after the product, initial states (samples, states·u) where `state`; outputs y
/// (samples, steps, u) and an LSTM's cell states of the same shape.
pub fn forward(cell: &Cell, extents: &Extents, state: bool, profile: &DeviceProfile) -> Vec<(Schedule, Dispatch)> {
    let mut bindings = Bindings { inputs: vec!["x", "kernel"], outputs: vec!["y"] };
    if cell.kind == CellKind::GruAfter {
        bindings.inputs.push("bias");
    }
    if state {
        bindings.inputs.push("initial");
    }
    if cell.kind == CellKind::Lstm {
        bindings.outputs.push("cells");
    }
    let name = match cell.kind {
        CellKind::Simple => "simple_rnn",
        CellKind::Lstm => "lstm",
        CellKind::GruBefore | CellKind::GruAfter => "gru",
    };
    let u = extents.units;
    let gates_at_once = if cell.kind == CellKind::GruBefore { 2 } else { cell.gates() };
    let tiles = Tile::all(u, 2 * u, gates_at_once, profile);
    let launch = |tile| {
        Core::launch(tile, (name, cell, extents), &bindings, profile, |k, core| write(k, core, (cell, extents, state)))
    };
    tiles.into_iter().map(launch).collect()
}

fn write(k: &mut Kernel, core: &mut Core, (cell, extents, state): (&Cell, &Extents, bool)) {
    let (u, states) = (extents.units, cell.states());
    let start = |k: &mut Kernel, core: &Core, name: &str, n: usize| match state {
        true => core.load(k, (name, "initial"), (states * u, n * u), None),
        false => core.zeros(k, name),
    };
    let h = start(k, core, "h", 0);
    let c = if cell.kind == CellKind::Lstm { start(k, core, "c", 1) } else { Vec::new() };
    let base = core.base.clone();
    core.hold(k, &h, &base, u);
    k.barrier();
    let end = k.let_("end", loop_end(extents.steps()));
    k.for_("t", 0u32, end, 1, |k, t| {
        let buffer = core.vectors() * u;
        let odd = k.let_("odd", t & 1u32);
        let now = k.let_("now", &base + &odd * buffer);
        let next = k.let_("next", &base + (Expr::from(1u32) - odd) * buffer);
        let row = cell.gates() * u;
        let x: Vec<Vec<Expr>> =
            (0..cell.gates()).map(|g| core.load(k, (&format!("a{g}"), "x"), (row, g * u), Some(t))).collect();
        let mut held = &next;
        match cell.kind {
            CellKind::Simple => {
                core.product(k, (&now, u), (0, u), row, &[(&x[0], 0)]);
                (0..h.len()).for_each(|i| k.set(&h[i], of("act", &x[0][i])));
            }
            CellKind::Lstm => {
                let into: Vec<(&[Expr], usize)> = x.iter().enumerate().map(|(g, x)| (&x[..], g * u)).collect();
                core.product(k, (&now, u), (0, u), row, &into);
                for i in 0..h.len() {
                    let kept = of("gate", &x[1][i]) * &c[i];
                    k.set(&c[i], kept + of("gate", &x[0][i]) * of("act", &x[2][i]));
                    k.set(&h[i], of("gate", &x[3][i]) * of("act", &c[i]));
                }
                core.store(k, (&c, "cells"), (u, 0), Some(t));
            }
            CellKind::GruAfter => gru_after(k, core, (&x, &h), (&now, u)),
            CellKind::GruBefore => {
                held = &base;
                gru_before(k, core, (&x, &h), (&base, buffer, u));
            }
        }
        core.store(k, (&h, "y"), (u, 0), Some(t));
        core.hold(k, &h, held, u);
        k.barrier();
    });
}

/// h = z · h + (1 − z) · candidate.
fn blend(k: &mut Kernel, h: &Expr, z: &Expr, candidate: Expr) {
    k.set(h, z * h + (Expr::from(1.0) - z) * candidate);
}

fn gru_after(k: &mut Kernel, core: &mut Core, (x, h): (&[Vec<Expr>], &[Expr]), (now, u): (&Expr, usize)) {
    let bias = core.buffer("bias").clone();
    let m: Vec<Vec<Expr>> =
        (0..3).map(|g| core.vars(k, &format!("m{g}"), |i| core.splat(bias.at(core.unit(i) + g * u)))).collect();
    let into: Vec<(&[Expr], usize)> = m.iter().enumerate().map(|(g, m)| (&m[..], g * u)).collect();
    core.product(k, (now, u), (0, u), 3 * u, &into);
    let z = core.lets(k, "z", |i| of("gate", &x[0][i] + &m[0][i]));
    let candidate = core.lets(k, "g", |i| of("act", &x[2][i] + of("gate", &x[1][i] + &m[1][i]) * &m[2][i]));
    (0..h.len()).for_each(|i| blend(k, &h[i], &z[i], candidate[i].clone()));
}

fn gru_before(
    k: &mut Kernel,
    core: &mut Core,
    (x, h): (&[Vec<Expr>], &[Expr]),
    (base, buffer, u): (&Expr, usize, usize),
) {
    let reset = k.let_("reset", base + buffer);
    core.product(k, (base, u), (0, u), 3 * u, &[(&x[0], 0), (&x[1], u)]);
    let z = core.lets(k, "z", |i| of("gate", &x[0][i]));
    let kept = core.lets(k, "rh", |i| of("gate", &x[1][i]) * &h[i]);
    core.hold(k, &kept, &reset, u);
    k.barrier();
    core.product(k, (&reset, u), (0, u), 3 * u, &[(&x[2], 2 * u)]);
    (0..h.len()).for_each(|i| blend(k, &h[i], &z[i], of("act", &x[2][i])));
}
