//! Kernels of recurrent cells: one launch runs all timesteps, forward or back.
//!
//! A workgroup has blocks of lanes; a block has some samples and a lane for each unit (or every so many units). Hidden
//! states, and on the way back the gradients to the gates, lie in workgroup memory as vectors over the block's samples,
//! so that one number of the recurrent kernel serves them all. Timesteps are iterations of a loop.

use super::wgsl::dispatch;
use crate::{
    graph::{DeviceClass, DeviceProfile, Dispatch, Grid, Slot, UNIFORM_BYTES},
    tensor::{Count, maximum},
};
use std::fmt::Write as _;

/// Returns 1 where `on` holds, else 0, or NaN where `y` is.
fn step_at(y: f64, on: bool) -> f64 {
    if y.is_nan() { y } else { f64::from(on) }
}

/// A function of a recurrent cell whose slope follows from its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CellActivation {
    /// x.
    Linear,
    /// max(x, 0).
    Relu,
    /// The hyperbolic tangent.
    Tanh,
    /// The logistic function.
    Sigmoid,
    /// min(max(x / 6 + 1/2, 0), 1).
    HardSigmoid,
}

impl CellActivation {
    /// Returns the function's value.
    pub fn at(self, x: f64) -> f64 {
        match self {
            CellActivation::Linear => x,
            CellActivation::Relu => maximum(x, 0.0),
            CellActivation::Tanh => x.tanh(),
            CellActivation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            CellActivation::HardSigmoid => (x / 6.0 + 0.5).clamp(0.0, 1.0),
        }
    }

    /// Returns the slope where the function's value is `y`.
    pub fn slope(self, y: f64) -> f64 {
        match self {
            CellActivation::Linear => 1.0,
            CellActivation::Relu => step_at(y, y > 0.0),
            CellActivation::Tanh => 1.0 - y * y,
            CellActivation::Sigmoid => y * (1.0 - y),
            CellActivation::HardSigmoid => step_at(y, y > 0.0 && y < 1.0) / 6.0,
        }
    }

    /// Returns the function's name in the elementwise table, if it is one.
    pub fn name(self) -> Option<&'static str> {
        match self {
            CellActivation::Linear => None,
            CellActivation::Relu => Some("relu"),
            CellActivation::Tanh => Some("tanh"),
            CellActivation::Sigmoid => Some("sigmoid"),
            CellActivation::HardSigmoid => Some("hard_sigmoid"),
        }
    }

    /// Returns WGSL of the value at `v` and of the slope at the value `v`, both of one number.
    fn wgsl(self) -> (&'static str, &'static str) {
        match self {
            CellActivation::Linear => ("v", "1.0"),
            CellActivation::Relu => ("relu_f32(v)", "nan_or_f32(v, select(0.0, 1.0, v > 0.0))"),
            CellActivation::Tanh => ("tanh_f32(v)", "1.0 - v * v"),
            CellActivation::Sigmoid => ("sigmoid_f32(v)", "v * (1.0 - v)"),
            CellActivation::HardSigmoid => (
                "nan_or_f32(v, clamp(v / 6.0 + 0.5, 0.0, 1.0))",
                "nan_or_f32(v, select(0.0, 1.0 / 6.0, v > 0.0 && v < 1.0))",
            ),
        }
    }
}

/// Which recurrent cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CellKind {
    /// h = activation(x + h·U) (Elman 1990).
    Simple,
    /// Long short-term memory (Hochreiter and Schmidhuber 1997; Gers et al. 2000), gates in the order i, f, c, o.
    Lstm,
    /// Gated recurrent unit with the reset gate on the state (Cho et al. 2014), gates in the order z, r, h.
    GruBefore,
    /// Gated recurrent unit with the reset gate on the state's product, which has a bias of its own.
    GruAfter,
}

/// A recurrent cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cell {
    /// Which.
    pub kind: CellKind,
    /// Function of the new state (and of an LSTM's cell state on the way out).
    pub activation: CellActivation,
    /// Function of the gates; a simple cell has none.
    pub gate: CellActivation,
}

impl Cell {
    /// Returns how many products of the state a step has.
    pub fn gates(&self) -> usize {
        match self.kind {
            CellKind::Simple => 1,
            CellKind::Lstm => 4,
            CellKind::GruBefore | CellKind::GruAfter => 3,
        }
    }

    /// Returns how many states go from step to step.
    pub fn states(&self) -> usize {
        1 + usize::from(self.kind == CellKind::Lstm)
    }
}

/// The most units of a cell: what workgroup memory holds of one sample's gates.
pub const MAX_UNITS: usize = 1024;
/// Numbers in 16 KiB of workgroup memory.
const HELD: usize = 4096;

/// Extents of a recurrence.
#[derive(Debug, Clone, Copy)]
pub struct Extents {
    /// Samples.
    pub samples: Count,
    /// Timesteps.
    pub steps: usize,
    /// Units of the cell.
    pub units: usize,
}

/// How a workgroup is cut up.
#[derive(Debug, Clone, Copy)]
struct Tile {
    /// Lanes of a block.
    lanes: usize,
    /// Blocks of a workgroup.
    blocks: usize,
    /// Units of a lane.
    units: usize,
    /// Vectors of samples that a lane has, and samples in a vector.
    vectors: usize,
    width: usize,
    /// Numbers held for each sample.
    held: usize,
}

impl Tile {
    fn new(units: usize, held: usize, (lanes, vectors, width): (usize, usize, usize), least: usize) -> Self {
        let of_lane = units.div_ceil(lanes);
        let lanes = units.div_ceil(of_lane);
        let room = HELD / (held * vectors * width).max(1);
        Tile { lanes, blocks: (least / lanes).clamp(1, room.max(1)), units: of_lane, vectors, width, held }
    }

    fn samples(&self) -> usize {
        self.vectors * self.width
    }

    fn fits(&self) -> bool {
        self.blocks * self.samples() * self.held <= HELD
    }

    /// Returns the tiles for a recurrence that holds so many numbers for each sample and takes sums for so many gates at a
    /// time, the best guess first.
    fn all(units: usize, held: usize, sums: usize, profile: &DeviceProfile) -> Vec<Tile> {
        // Processors read what is held lane by lane: four sums share a read.
        let few = units.div_ceil(4usize.div_ceil(sums)).clamp(8, 256);
        let (shapes, least): (&[_], _) = match profile.class {
            DeviceClass::Cpu if !profile.large_shaders() => (&[(256, 1, 1)], 8),
            DeviceClass::Cpu => (&[(few, if sums > 2 { 2 } else { 1 }, 4), (256, 1, 4), (256, 1, 1)], 8),
            DeviceClass::Gpu => (&[(256, 1, 1), (256, 1, 4)], 64),
        };
        shapes.iter().map(|&shape| Tile::new(units, held, shape, least)).filter(Tile::fits).collect()
    }

    /// Returns `text` once for each unit and vector of a lane, with their numbers for `$u` and `$v` and both as a name's
    /// end for `$`.
    fn each(&self, text: &str) -> String {
        let mut all = String::new();
        for u in 0..self.units {
            for v in 0..self.vectors {
                let both = format!("_{u}_{v}");
                all += &text.replace("$u", &u.to_string()).replace("$v", &v.to_string()).replace('$', &both);
            }
        }
        all
    }

    /// Returns declarations, by `name$`, of what a tensor (samples, steps, `row`) holds at t from `first` on, or one
    /// (samples, `row`) of states.
    fn load(&self, variable: &str, tensor: &str, row: usize, first: usize, of_step: bool) -> String {
        let mut all = String::new();
        for u in 0..self.units {
            for v in 0..self.vectors {
                let of = |i: usize| {
                    let sample = v * self.width + i;
                    let at = if of_step { format!("(b{sample} + t)") } else { format!("n{sample}") };
                    format!("{tensor}[{at} * {row}u + {first}u + j{u}]")
                };
                let values: Vec<String> = (0..self.width).map(of).collect();
                let _ = writeln!(all, "    var {variable}_{u}_{v} = V({});", values.join(", "));
            }
        }
        all
    }

    /// Returns statements that store `variable$` where [`Tile::load`] would read it.
    fn store(&self, variable: &str, tensor: &str, row: usize, first: usize, of_step: bool) -> String {
        let mut all = String::new();
        for v in 0..self.vectors {
            for i in 0..self.width {
                let sample = v * self.width + i;
                let at = if of_step { format!("(b{sample} + t)") } else { format!("n{sample}") };
                for u in 0..self.units {
                    let component = if self.width > 1 { ["x", "y", "z", "w"][i] } else { "" };
                    let dot = if self.width > 1 { "." } else { "" };
                    let _ = writeln!(
                        all,
                        "    if (live{sample} && own{u}) {{ {tensor}[{at} * {row}u + {first}u + j{u}] = {variable}_{u}_{v}{dot}{component}; }}"
                    );
                }
            }
        }
        all
    }

    /// Returns statements that put `variable$` where all lanes of the block see it.
    fn hold(&self, variable: &str, place: &str, terms: usize) -> String {
        self.each(&format!("    if (own$u) {{ held[{place} + $vu * {terms}u + j$u] = {variable}$; }}\n"))
    }

    /// Returns a product: to each of `into`, a variable's name, is added Σ over `terms` numbers k from `first_term` on,
    /// held from `place` on, of held[k] · kernel[k, first + j], for (variable, first) and rows of `row` numbers. Each
    /// vector of samples holds `held_terms` numbers.
    fn product(
        &self,
        place: &str,
        held_terms: usize,
        (first_term, terms): (usize, usize),
        row: usize,
        into: &[(&str, usize)],
    ) -> String {
        let unrolled = unrolled(terms);
        let whole = terms / unrolled * unrolled;
        let term = |k: &str| {
            let mut text = "    {\n".to_owned();
            for v in 0..self.vectors {
                let _ = writeln!(text, "    let s{v} = held[{place} + {}u + {k}];", v * held_terms + first_term);
            }
            for u in 0..self.units {
                for (name, first) in into {
                    let at = format!("({k} + {first_term}u) * {row}u + {first}u + j{u}");
                    let _ = writeln!(text, "    let {name}w{u} = kernel_at({at});");
                    for v in 0..self.vectors {
                        let _ = writeln!(text, "    {name}_{u}_{v} += {name}w{u} * s{v};");
                    }
                }
            }
            text + "    }\n"
        };
        let mut text = String::new();
        if whole > 0 {
            let _ = writeln!(text, "    for (var k = 0u; k < {whole}u; k += {unrolled}u) {{");
            (0..unrolled).for_each(|d| text += &term(&format!("(k + {d}u)")));
            text += "    }\n";
        }
        (whole..terms).for_each(|k| text += &term(&format!("{k}u")));
        text
    }

    /// Returns the start of a kernel up to the loop over timesteps.
    fn head(&self, cell: &Cell, bindings: &[(&str, bool)], uniform: Option<usize>) -> String {
        let mut text = format!("alias V = {};\n", if self.width > 1 { "vec4<f32>" } else { "f32" });
        text += "override T: u32;\noverride FIXED: u32;\noverride PER_SAMPLE: u32;\n";
        for (i, (name, written)) in bindings.iter().enumerate() {
            let (space, element) = match (*name, uniform, *written) {
                ("kernel", Some(vectors), _) => ("uniform", format!("vec4<f32>, {vectors}")),
                (.., true) => ("storage, read_write", "f32".into()),
                _ => ("storage, read", "f32".into()),
            };
            let _ = writeln!(text, "@group(0) @binding({}) var<{space}> {name}: array<{element}>;", i + 1);
        }
        let value = if uniform.is_some() { "kernel[at >> 2u][at & 3u]" } else { "kernel[at]" };
        let _ = writeln!(text, "fn kernel_at(i: u32) -> f32 {{ let at = i; return {value}; }}");
        let vectors = self.blocks * self.vectors * self.held;
        let _ = writeln!(text, "var<workgroup> held: array<V, {vectors}>;");
        for (name, activation) in [("act", cell.activation), ("gate", cell.gate)] {
            let (value, slope) = activation.wgsl();
            for (name, body) in [(name.to_owned(), value), (format!("{name}_slope"), slope)] {
                let _ = writeln!(text, "fn {name}1(v: f32) -> f32 {{ return {body}; }}");
                let values: Vec<String> = match self.width {
                    1 => vec![format!("{name}1(v)")],
                    _ => ["x", "y", "z", "w"].map(|c| format!("{name}1(v.{c})")).to_vec(),
                };
                let _ = writeln!(text, "fn {name}(v: V) -> V {{ return V({}); }}", values.join(", "));
            }
        }
        let (lanes, blocks, samples) = (self.lanes, self.blocks, self.samples());
        let _ = write!(
            text,
            "@compute @workgroup_size({})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {{
    let first = ((id.x + id.y * counts.x) * {blocks}u + lane / {lanes}u) * {samples}u;
    let l = lane % {lanes}u;
    let base = lane / {lanes}u * {}u;
    let samples = FIXED + PER_SAMPLE * step.n;
",
            lanes * blocks,
            self.vectors * self.held,
        );
        for i in 0..samples {
            let _ = writeln!(text, "    let n{i} = min(first + {i}u, max(samples, 1u) - 1u);");
            let _ = writeln!(text, "    let live{i} = first + {i}u < samples;\n    let b{i} = n{i} * T;");
        }
        text
    }

    /// Returns the declarations of a lane's units of `units`.
    fn own(&self, units: usize) -> String {
        (0..self.units).fold(String::new(), |mut text, u| {
            let at = format!("l + {}u", u * self.lanes);
            let _ = writeln!(text, "    let j{u} = min({at}, {}u);\n    let own{u} = {at} < {units}u;", units - 1);
            text
        })
    }

    fn dispatch(&self, name: &str, body: &str, extents: &Extents, slots: Vec<Slot>, products: &[usize]) -> Dispatch {
        let constants = [
            ("T", extents.steps as f64),
            ("FIXED", extents.samples.fixed as f64),
            ("PER_SAMPLE", extents.samples.per_sample as f64),
        ];
        let grid = Grid::new(extents.samples, (self.blocks * self.samples()) as u32);
        let of_step: usize = products.iter().map(|terms| terms / unrolled(*terms) + 1).sum();
        let iterations = Count { fixed: (extents.steps * (of_step + 1)) as u64, per_sample: 0 };
        dispatch(name, body, &constants, grid, slots, None).iterations(iterations, 1)
    }

    fn variant(&self) -> String {
        format!("lanes{}x{}_units{}_samples{}", self.lanes, self.blocks, self.units, self.samples())
    }
}

fn unrolled(terms: usize) -> usize {
    match terms {
        0..64 => 4,
        64..512 => 8,
        _ => 16,
    }
}

/// Returns the slots of so many inputs and outputs, the input `uniform` as a uniform buffer.
fn slots(inputs: usize, outputs: usize, uniform: Option<usize>) -> Vec<Slot> {
    let input = |i: usize| match uniform {
        Some(k) if k == i => Slot::Uniform { input: i, samples: None },
        _ => Slot::input(i),
    };
    (0..inputs).map(input).chain((0..outputs).map(Slot::output)).collect()
}

/// Returns the vectors of a kernel that is read as a uniform buffer: processors read these in a tenth of the time.
fn uniform(elements: usize, profile: &DeviceProfile) -> Option<usize> {
    let fits = elements.is_multiple_of(4) && 4 * elements as u64 <= UNIFORM_BYTES;
    (fits && profile.class == DeviceClass::Cpu).then_some(elements / 4)
}

const BARRIER: &str = "    workgroupBarrier();\n";

/// Returns the ways to run a cell over all timesteps: inputs x (samples, steps, gates·u), kernel (u, gates·u), the bias
/// (gates·u) of a GRU that resets after the product, initial states (samples, states·u) where `state`; outputs y
/// (samples, steps, u) and an LSTM's cell states of the same shape.
pub fn forward(cell: &Cell, extents: &Extents, state: bool, profile: &DeviceProfile) -> Vec<(String, Dispatch)> {
    let (u, row, states) = (extents.units, cell.gates() * extents.units, cell.states());
    let mut bindings = vec![("x", false), ("kernel", false)];
    if cell.kind == CellKind::GruAfter {
        bindings.push(("bias", false));
    }
    if state {
        bindings.push(("initial", false));
    }
    let inputs = bindings.len();
    bindings.push(("y", true));
    if cell.kind == CellKind::Lstm {
        bindings.push(("cells", true));
    }
    let name = match cell.kind {
        CellKind::Simple => "simple_rnn",
        CellKind::Lstm => "lstm",
        CellKind::GruBefore | CellKind::GruAfter => "gru",
    };
    let (vectors, place) = (uniform(u * row, profile), bindings.iter().position(|b| b.0 == "kernel"));
    let of = |tile: Tile| {
        let start = |variable: &str, k: usize| match state {
            true => tile.load(variable, "initial", states * u, k * u, false),
            false => tile.each(&format!("    var {variable}$ = V(step.zero);\n")),
        };
        let x = |g: usize| tile.load(&format!("a{g}"), "x", row, g * u, true);
        let mut text = tile.head(cell, &bindings, vectors) + &tile.own(u) + &start("h", 0);
        if cell.kind == CellKind::Lstm {
            text += &start("c", 1);
        }
        text += &tile.hold("h", "base", u);
        text += BARRIER;
        text += "    for (var t = 0u; t < T; t++) {\n";
        let buffer = tile.vectors * u;
        let _ = writeln!(text, "    let now = base + (t & 1u) * {buffer}u;");
        let _ = writeln!(text, "    let next = base + (1u - (t & 1u)) * {buffer}u;");
        let mut products = vec![u];
        match cell.kind {
            CellKind::Simple => {
                text += &(x(0) + &tile.product("now", u, (0, u), row, &[("a0", 0)]));
                text += &tile.each("    h$ = act(a0$);\n");
            }
            CellKind::Lstm => {
                (0..4).for_each(|g| text += &x(g));
                let into = [("a0", 0), ("a1", u), ("a2", 2 * u), ("a3", 3 * u)];
                text += &tile.product("now", u, (0, u), row, &into);
                text += &tile.each("    c$ = gate(a1$) * c$ + gate(a0$) * act(a2$);\n    h$ = gate(a3$) * act(c$);\n");
                text += &tile.store("c", "cells", u, 0, true);
            }
            CellKind::GruAfter => {
                for g in 0..3 {
                    text += &x(g);
                    text += &tile.each(&format!("    var m{g}$ = V(bias[{}u + j$u]);\n", g * u));
                }
                text += &tile.product("now", u, (0, u), row, &[("m0", 0), ("m1", u), ("m2", 2 * u)]);
                text += &tile.each(
                    "    let z$ = gate(a0$ + m0$);\n    let g$ = act(a2$ + gate(a1$ + m1$) * m2$);\n    h$ = z$ * h$ + (1.0 - z$) * g$;\n",
                );
            }
            CellKind::GruBefore => {
                products.push(u);
                (0..3).for_each(|g| text += &x(g));
                let reset = format!("base + {buffer}u");
                text += &tile.product("base", u, (0, u), row, &[("a0", 0), ("a1", u)]);
                text += &tile.each("    let z$ = gate(a0$);\n    let rh$ = gate(a1$) * h$;\n");
                text += &(tile.hold("rh", &reset, u) + BARRIER);
                text += &tile.product(&reset, u, (0, u), row, &[("a2", 2 * u)]);
                text += &tile.each("    h$ = z$ * h$ + (1.0 - z$) * act(a2$);\n");
            }
        }
        text += &tile.store("h", "y", u, 0, true);
        text += &tile.hold("h", if cell.kind == CellKind::GruBefore { "base" } else { "next" }, u);
        text += BARRIER;
        text += "    }\n}\n";
        let slots = slots(inputs, bindings.len() - inputs, vectors.and(place));
        (tile.variant(), tile.dispatch(name, &text, extents, slots, &products))
    };
    let gates_at_once = if cell.kind == CellKind::GruBefore { 2 } else { cell.gates() };
    Tile::all(u, 2 * u, gates_at_once, profile).into_iter().map(of).collect()
}

/// Returns the ways to run a cell's gradient from the last timestep to the first.
///
/// Inputs, with the recurrent kernel transposed (gates·u, u) and what was before each step (samples, steps, u):
/// simple: y, kernel, dy; LSTM: gates before their functions, kernel, cell states before, dy, where `of_cells` the
/// gradient to the cell states too; GRU that resets before: gates before their functions, kernel, states before, dy;
/// after: x, the state's product, kernel, states before, dy. Outputs: gradient to the gates before their functions (to
/// x), for the last cell the one to the state's product too, and the one to the initial states (samples, states·u).
pub fn backward(cell: &Cell, extents: &Extents, of_cells: bool, profile: &DeviceProfile) -> Vec<(String, Dispatch)> {
    let (u, gates, states) = (extents.units, cell.gates(), cell.states());
    let row = gates * u;
    let (name, mut bindings) = match cell.kind {
        CellKind::Simple => ("simple_rnn_grad", vec!["y", "kernel", "dy"]),
        CellKind::Lstm => ("lstm_grad", vec!["a", "kernel", "before", "dy"]),
        CellKind::GruBefore => ("gru_grad", vec!["a", "kernel", "before", "dy"]),
        CellKind::GruAfter => ("gru_grad", vec!["a", "m", "kernel", "before", "dy"]),
    };
    if of_cells {
        bindings.push("dcells");
    }
    let inputs = bindings.len();
    bindings.push("da");
    if cell.kind == CellKind::GruAfter {
        bindings.push("dm");
    }
    bindings.push("dinitial");
    let bindings: Vec<(&str, bool)> = bindings.into_iter().enumerate().map(|(i, b)| (b, i >= inputs)).collect();
    let (vectors, place) = (uniform(u * row, profile), bindings.iter().position(|b| b.0 == "kernel"));
    let of = |tile: Tile| {
        let load = |variable: &str, tensor: &str| tile.load(variable, tensor, u, 0, true);
        let gate = |variable: &str, tensor: &str, g: usize| tile.load(variable, tensor, row, g * u, true);
        let back = |variable: &str, first: usize, terms: usize| {
            tile.product("base", row, (first * u, terms * u), u, &[(variable, 0)])
        };
        let mut text = tile.head(cell, &bindings, vectors) + &tile.own(u);
        text += &tile.each("    var h$ = V(step.zero);\n    var c$ = V(step.zero);\n");
        text += "    for (var s = 0u; s < T; s++) {\n    let t = T - 1u - s;\n";
        text += &load("d", "dy");
        let hold = |g: usize| tile.hold(&format!("d{g}"), &format!("base + {}u", g * u), row);
        let store = |g: usize| tile.store(&format!("d{g}"), "da", row, g * u, true);
        let mut products = vec![row];
        match cell.kind {
            CellKind::Simple => {
                text += &load("y", "y");
                text += &tile.each("    let d0$ = (d$ + h$) * act_slope(y$);\n");
                text += &(store(0) + &hold(0) + BARRIER);
                text += &tile.each("    h$ = V(0.0);\n");
                text += &back("h", 0, 1);
            }
            CellKind::Lstm => {
                (0..4).for_each(|g| text += &gate(&format!("a{g}"), "a", g));
                text += &load("p", "before");
                if of_cells {
                    text += &load("e", "dcells");
                    text += &tile.each("    c$ += e$;\n");
                }
                text += &tile.each(
                    "    let i$ = gate(a0$);
    let f$ = gate(a1$);
    let g$ = act(a2$);
    let o$ = gate(a3$);
    let w$ = act(f$ * p$ + i$ * g$);
    let dh$ = d$ + h$;
    let dc$ = c$ + dh$ * o$ * act_slope(w$);
    let d0$ = dc$ * g$ * gate_slope(i$);
    let d1$ = dc$ * p$ * gate_slope(f$);
    let d2$ = dc$ * i$ * act_slope(g$);
    let d3$ = dh$ * w$ * gate_slope(o$);
    c$ = dc$ * f$;
    h$ = V(0.0);
",
                );
                (0..4).for_each(|g| text += &(store(g) + &hold(g)));
                text += BARRIER;
                text += &back("h", 0, 4);
            }
            CellKind::GruAfter => {
                for g in 0..3 {
                    text += &gate(&format!("a{g}"), "a", g);
                    text += &gate(&format!("m{g}"), "m", g);
                }
                text += &load("p", "before");
                text += &tile.each(
                    "    let z$ = gate(a0$ + m0$);
    let r$ = gate(a1$ + m1$);
    let g$ = act(a2$ + r$ * m2$);
    let dh$ = d$ + h$;
    let d0$ = dh$ * (p$ - g$) * gate_slope(z$);
    let da$ = dh$ * (1.0 - z$) * act_slope(g$);
    let d1$ = da$ * m2$ * gate_slope(r$);
    let d2$ = da$ * r$;
    h$ = dh$ * z$;
",
                );
                (0..3).for_each(|g| text += &(tile.store(&format!("d{g}"), "dm", row, g * u, true) + &hold(g)));
                text += &(store(0) + &store(1) + &tile.store("da", "da", row, 2 * u, true) + BARRIER);
                text += &back("h", 0, 3);
            }
            CellKind::GruBefore => {
                products = vec![u, 2 * u];
                (0..3).for_each(|g| text += &gate(&format!("a{g}"), "a", g));
                text += &load("p", "before");
                text += &tile.each(
                    "    let z$ = gate(a0$);
    let r$ = gate(a1$);
    let g$ = act(a2$);
    let dh$ = d$ + h$;
    let d0$ = dh$ * (p$ - g$) * gate_slope(z$);
    let d2$ = dh$ * (1.0 - z$) * act_slope(g$);
    var dr$ = V(0.0);
",
                );
                text += &(hold(0) + &hold(2) + BARRIER + &back("dr", 2, 1));
                text += &tile.each("    let d1$ = dr$ * p$ * gate_slope(r$);\n    h$ = dh$ * z$ + dr$ * r$;\n");
                text += &(hold(1) + BARRIER + &back("h", 0, 2));
                (0..3).for_each(|g| text += &store(g));
            }
        }
        text += BARRIER;
        text += "    }\n";
        text += &tile.store("h", "dinitial", states * u, 0, false);
        if cell.kind == CellKind::Lstm {
            text += &tile.store("c", "dinitial", states * u, u, false);
        }
        text += "}\n";
        let slots = slots(inputs, bindings.len() - inputs, vectors.and(place));
        (tile.variant(), tile.dispatch(name, &text, extents, slots, &products))
    };
    Tile::all(u, row, 1, profile).into_iter().map(of).collect()
}
