//! The kernel that runs a cell's gradient from the last timestep to the first.

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

/// Returns the ways to run a cell's gradient from the last timestep to the first.
///
/// Inputs, with the recurrent kernel transposed (gates·u, u) and what was before each step (samples, steps, u):
/// simple: y, kernel, dy; LSTM: gates before their functions, kernel, cell states before, dy, where `of_cells` the
/// gradient to the cell states too; GRU that resets before: gates before their functions, kernel, states before, dy;
/// after: x, the state's product, kernel, states before, dy. Outputs: gradient to the gates before their functions (to
/// x), for the last cell the one to the state's product too, and the one to the initial states (samples, states·u).
pub fn backward(cell: &Cell, extents: &Extents, of_cells: bool, profile: &DeviceProfile) -> Vec<(Schedule, Dispatch)> {
    let (name, mut inputs, mut outputs) = match cell.kind {
        CellKind::Simple => ("simple_rnn_grad", vec!["y", "kernel", "dy"], vec!["da"]),
        CellKind::Lstm => ("lstm_grad", vec!["a", "kernel", "before", "dy"], vec!["da"]),
        CellKind::GruBefore => ("gru_grad", vec!["a", "kernel", "before", "dy"], vec!["da"]),
        CellKind::GruAfter => ("gru_grad", vec!["a", "m", "kernel", "before", "dy"], vec!["da", "dm"]),
    };
    if of_cells {
        inputs.push("dcells");
    }
    outputs.push("dinitial");
    let bindings = Bindings { inputs, outputs };
    let tiles = Tile::all(extents.units, cell.gates() * extents.units, 1, profile);
    let launch = |tile| {
        Core::launch(tile, (name, cell, extents), &bindings, profile, |k, core| {
            write(k, core, (cell, extents), of_cells);
        })
    };
    tiles.into_iter().map(launch).collect()
}

/// A timestep on the way back.
struct Back<'a> {
    t: &'a Expr,
    u: usize,
    /// Numbers of all gates.
    row: usize,
    base: Expr,
    /// The gradient to the result.
    d: Vec<Expr>,
    /// The gradients to the states, from the step behind.
    h: &'a [Expr],
    c: &'a [Expr],
}

impl Back<'_> {
    /// Returns what a tensor holds for gate `g`.
    fn gate(&self, k: &mut Kernel, core: &Core, tensor: &str, g: usize) -> Vec<Expr> {
        core.load(k, (&format!("{tensor}{g}"), tensor), (self.row, g * self.u), Some(self.t))
    }

    /// Returns what a tensor of one number for each unit holds.
    fn load(&self, k: &mut Kernel, core: &Core, names: (&str, &str)) -> Vec<Expr> {
        core.load(k, names, (self.u, 0), Some(self.t))
    }

    fn store(&self, k: &mut Kernel, core: &Core, of: (&[Expr], &str), g: usize) {
        core.store(k, of, (self.row, g * self.u), Some(self.t));
    }

    fn hold(&self, k: &mut Kernel, core: &Core, values: &[Expr], g: usize) {
        core.hold(k, values, &(&self.base + g * self.u), self.row);
    }

    /// Adds to `into` the product of the gradients that are held of some gates with the kernel.
    fn product(&self, k: &mut Kernel, core: &mut Core, into: &[Expr], (first, gates): (usize, usize)) {
        core.product(k, (&self.base, self.row), (first * self.u, gates * self.u), self.u, &[(into, 0)]);
    }

    fn simple(&self, k: &mut Kernel, core: &mut Core) {
        let y = self.load(k, core, ("y", "y"));
        let d0 = core.lets(k, "d0", |i| (&self.d[i] + &self.h[i]) * of("act_slope", &y[i]));
        self.store(k, core, (&d0, "da"), 0);
        self.hold(k, core, &d0, 0);
        k.barrier();
        self.h.iter().for_each(|h| k.set(h, core.splat(0.0)));
        self.product(k, core, self.h, (0, 1));
    }

    fn lstm(&self, k: &mut Kernel, core: &mut Core, of_cells: bool) {
        let a: Vec<Vec<Expr>> = (0..4).map(|g| self.gate(k, core, "a", g)).collect();
        let p = self.load(k, core, ("p", "before"));
        if of_cells {
            let e = self.load(k, core, ("e", "dcells"));
            self.c.iter().zip(&e).for_each(|(c, e)| k.add(c, e));
        }
        let gate = |k: &mut Kernel, name: &str, f: &str, g: usize| core.lets(k, name, |i| of(f, &a[g][i]));
        let (input, forget) = (gate(k, "i", "gate", 0), gate(k, "f", "gate", 1));
        let (candidate, output) = (gate(k, "g", "act", 2), gate(k, "o", "gate", 3));
        let w = core.lets(k, "w", |i| of("act", &forget[i] * &p[i] + &input[i] * &candidate[i]));
        let dh = core.lets(k, "dh", |i| &self.d[i] + &self.h[i]);
        let dc = core.lets(k, "dc", |i| &self.c[i] + &dh[i] * &output[i] * of("act_slope", &w[i]));
        let d = [
            core.lets(k, "d0", |i| &dc[i] * &candidate[i] * of("gate_slope", &input[i])),
            core.lets(k, "d1", |i| &dc[i] * &p[i] * of("gate_slope", &forget[i])),
            core.lets(k, "d2", |i| &dc[i] * &input[i] * of("act_slope", &candidate[i])),
            core.lets(k, "d3", |i| &dh[i] * &w[i] * of("gate_slope", &output[i])),
        ];
        for i in 0..dc.len() {
            k.set(&self.c[i], &dc[i] * &forget[i]);
            k.set(&self.h[i], core.splat(0.0));
        }
        for (g, d) in d.iter().enumerate() {
            self.store(k, core, (d, "da"), g);
            self.hold(k, core, d, g);
        }
        k.barrier();
        self.product(k, core, self.h, (0, 4));
    }

    fn gru_after(&self, k: &mut Kernel, core: &mut Core) {
        let [a, m] = ["a", "m"].map(|tensor| (0..3).map(|g| self.gate(k, core, tensor, g)).collect::<Vec<_>>());
        let p = self.load(k, core, ("p", "before"));
        let z = core.lets(k, "z", |i| of("gate", &a[0][i] + &m[0][i]));
        let r = core.lets(k, "r", |i| of("gate", &a[1][i] + &m[1][i]));
        let g = core.lets(k, "g", |i| of("act", &a[2][i] + &r[i] * &m[2][i]));
        let dh = core.lets(k, "dh", |i| &self.d[i] + &self.h[i]);
        let d0 = core.lets(k, "d0", |i| &dh[i] * (&p[i] - &g[i]) * of("gate_slope", &z[i]));
        let da = core.lets(k, "da", |i| &dh[i] * (Expr::from(1.0) - &z[i]) * of("act_slope", &g[i]));
        let d1 = core.lets(k, "d1", |i| &da[i] * &m[2][i] * of("gate_slope", &r[i]));
        let d2 = core.lets(k, "d2", |i| &da[i] * &r[i]);
        (0..dh.len()).for_each(|i| k.set(&self.h[i], &dh[i] * &z[i]));
        for (g, d) in [&d0, &d1, &d2].into_iter().enumerate() {
            self.store(k, core, (d, "dm"), g);
            self.hold(k, core, d, g);
        }
        for (g, d) in [&d0, &d1, &da].into_iter().enumerate() {
            self.store(k, core, (d, "da"), g);
        }
        k.barrier();
        self.product(k, core, self.h, (0, 3));
    }

    fn gru_before(&self, k: &mut Kernel, core: &mut Core) {
        let a: Vec<Vec<Expr>> = (0..3).map(|g| self.gate(k, core, "a", g)).collect();
        let p = self.load(k, core, ("p", "before"));
        let z = core.lets(k, "z", |i| of("gate", &a[0][i]));
        let r = core.lets(k, "r", |i| of("gate", &a[1][i]));
        let g = core.lets(k, "g", |i| of("act", &a[2][i]));
        let dh = core.lets(k, "dh", |i| &self.d[i] + &self.h[i]);
        let d0 = core.lets(k, "d0", |i| &dh[i] * (&p[i] - &g[i]) * of("gate_slope", &z[i]));
        let d2 = core.lets(k, "d2", |i| &dh[i] * (Expr::from(1.0) - &z[i]) * of("act_slope", &g[i]));
        let dr = core.vars(k, "dr", |_| core.splat(0.0));
        self.hold(k, core, &d0, 0);
        self.hold(k, core, &d2, 2);
        k.barrier();
        self.product(k, core, &dr, (2, 1));
        let d1 = core.lets(k, "d1", |i| &dr[i] * &p[i] * of("gate_slope", &r[i]));
        (0..dh.len()).for_each(|i| k.set(&self.h[i], &dh[i] * &z[i] + &dr[i] * &r[i]));
        self.hold(k, core, &d1, 1);
        k.barrier();
        self.product(k, core, self.h, (0, 2));
        for (g, d) in [&d0, &d1, &d2].into_iter().enumerate() {
            self.store(k, core, (d, "da"), g);
        }
    }
}

fn write(k: &mut Kernel, core: &mut Core, (cell, extents): (&Cell, &Extents), of_cells: bool) {
    let (u, states, base) = (extents.units, cell.states(), core.base.clone());
    let (h, c) = (core.zeros(k, "h"), core.zeros(k, "c"));
    let end = k.let_("end", loop_end(extents.steps()));
    k.for_("s", 0u32, end, 1, |k, s| {
        let t = k.let_("t", extents.steps() - 1u32 - s);
        let d = core.load(k, ("d", "dy"), (u, 0), Some(&t));
        let step = Back { t: &t, u, row: cell.gates() * u, base, d, h: &h, c: &c };
        match cell.kind {
            CellKind::Simple => step.simple(k, core),
            CellKind::Lstm => step.lstm(k, core, of_cells),
            CellKind::GruAfter => step.gru_after(k, core),
            CellKind::GruBefore => step.gru_before(k, core),
        }
        k.barrier();
    });
    core.store(k, (&h, "dinitial"), (states * u, 0), None);
    if cell.kind == CellKind::Lstm {
        core.store(k, (&c, "dinitial"), (states * u, u), None);
    }
}
