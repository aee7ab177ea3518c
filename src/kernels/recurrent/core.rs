//! What the forward and the backward kernel share: tiles, and the values that an invocation has of its units and samples.

use super::cell::Cell;
use crate::{
    graph::{DeviceClass, DeviceProfile, Dispatch, Grid, Slot, UNIFORM_BYTES},
    kernels::{
        self, Axis, Schedule,
        language::{Buffer, Expr, Kernel, Layout, Type, count},
    },
    tensor::{Count, DType},
};

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

impl Extents {
    /// Returns the timesteps, one kernel for any number of them.
    pub(super) fn steps(&self) -> Expr {
        Expr::extent("steps", self.steps as u64)
    }
}

/// How a workgroup is cut up: `tiles` blocks of lanes, which have `m` samples in vectors of `width`, and `n` units, each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tile {
    schedule: Schedule,
    /// Lanes of a block.
    lanes: usize,
    /// Numbers held for each sample.
    held: usize,
}

impl Tile {
    fn new(units: usize, held: usize, (lanes, m, width): (usize, usize, usize), least: usize) -> Self {
        let n = units.div_ceil(lanes);
        let lanes = units.div_ceil(n);
        let tiles = (least / lanes).clamp(1, (HELD / (held * m).max(1)).max(1));
        let schedule =
            Schedule { tiles, lanes: Some(Axis::N), width, ..Schedule::new(kernels::Core::Recurrent, [m, n]) };
        Tile { schedule, lanes, held }
    }

    /// Returns how many vectors of samples a lane has.
    fn vectors(&self) -> usize {
        self.schedule.m / self.schedule.width
    }

    fn value(&self) -> Type {
        Type::F32.vector(self.schedule.width)
    }

    /// Returns the tiles for a recurrence that holds so many numbers for each sample and takes sums for so many gates at a
    /// time, the best guess first.
    pub(super) fn all(units: usize, held: usize, sums: usize, profile: &DeviceProfile) -> Vec<Tile> {
        // Processors read what is held lane by lane: four sums share a read.
        let few = units.div_ceil(4usize.div_ceil(sums)).clamp(8, 256);
        let (shapes, least): (&[_], _) = match profile.class {
            DeviceClass::Cpu if !profile.large_shaders() => (&[(256, 1, 1)], 8),
            DeviceClass::Cpu => (&[(few, if sums > 2 { 8 } else { 4 }, 4), (256, 4, 4), (256, 1, 1)], 8),
            DeviceClass::Gpu => (&[(256, 1, 1), (256, 4, 4)], 64),
        };
        let tiles = shapes.iter().map(|&shape| Tile::new(units, held, shape, least));
        let mut tiles: Vec<Tile> = tiles.filter(|t| t.schedule.tiles * t.schedule.m * held <= HELD).collect();
        tiles.dedup_by_key(|t| t.schedule);
        tiles
    }
}

/// What a kernel reads and writes: names of its inputs and outputs in order; `kernel` is the recurrent kernel's.
pub(super) struct Bindings {
    pub(super) inputs: Vec<&'static str>,
    pub(super) outputs: Vec<&'static str>,
}

/// A kernel over all timesteps, as it is written.
pub(super) struct Core {
    tile: Tile,
    extents: Extents,
    buffers: Vec<Buffer>,
    held: Buffer,
    /// Where the block's part of what is held begins.
    pub(super) base: Expr,
    /// The sample of each component of each vector, and whether there is one; past the end it is the last one again.
    samples: Vec<(Expr, Expr)>,
    /// The units of the lane, and whether they are its own; past the end the last one again.
    units: Vec<(Expr, Expr)>,
    /// How many products a timestep has.
    products: usize,
}

impl Core {
    /// Returns the schedule of a tile and the launch of its kernel, whose statements `write` adds.
    pub(super) fn launch(
        tile: Tile,
        (name, cell, extents): (&str, &Cell, &Extents),
        bindings: &Bindings,
        profile: &DeviceProfile,
        write: impl FnOnce(&mut Kernel, &mut Core),
    ) -> (Schedule, Dispatch) {
        let Schedule { m: samples, tiles: blocks, width, .. } = tile.schedule;
        let mut k = Kernel::new(name, tile.lanes * blocks);
        let elements = extents.units * cell.gates() * extents.units;
        // Processors read uniform buffers in a tenth of the time.
        let uniform =
            profile.class == DeviceClass::Cpu && elements.is_multiple_of(4) && 4 * elements as u64 <= UNIFORM_BYTES;
        let float = Layout::Scalars(DType::F32);
        let mut buffers = Vec::new();
        for (i, &name) in bindings.inputs.iter().enumerate() {
            buffers.push(match name == "kernel" && uniform {
                true => k.bind(name, Layout::Uniform(elements as u64), Slot::Uniform { input: i, samples: None }),
                false => k.bind(name, float, Slot::input(i)),
            });
        }
        for (i, &name) in bindings.outputs.iter().enumerate() {
            buffers.push(k.bind_result(name, float, Slot::output(i)));
        }
        functions(&mut k, cell, width);
        let held = k.workgroup("held", tile.value(), (blocks * tile.vectors() * tile.held) as u64);
        let mut core = Core::enter(&mut k, tile, *extents, (buffers, held));
        write(&mut k, &mut core);
        let grid = Grid::new(extents.samples, (blocks * samples) as u32);
        (tile.schedule, k.launch(grid))
    }

    fn enter(k: &mut Kernel, tile: Tile, extents: Extents, (buffers, held): (Vec<Buffer>, Buffer)) -> Core {
        let Schedule { m: samples, n: units, tiles: blocks, .. } = tile.schedule;
        let block = k.let_("block", k.lane() / tile.lanes);
        let own = k.let_("l", k.lane() % tile.lanes);
        let first = k.let_("first", (k.workgroup_index() * blocks + &block) * samples);
        let base = k.let_("base", block * (tile.vectors() * tile.held));
        let all = k.let_("samples", count(extents.samples));
        let samples = (0..samples)
            .map(|i| {
                let sample = &first + i;
                let live = k.let_(format!("live{i}"), sample.less(&all));
                (k.let_(format!("n{i}"), sample.min(all.max(1u32) - 1u32)), live)
            })
            .collect();
        let units = (0..units)
            .map(|u| {
                let unit = &own + u * tile.lanes;
                let live = k.let_(format!("own{u}"), unit.less(extents.units));
                (k.let_(format!("j{u}"), unit.min(extents.units - 1)), live)
            })
            .collect();
        Core { tile, extents, buffers, held, base, samples, units, products: 0 }
    }

    /// Returns the numbers of the values that a lane has: units by vectors of samples.
    fn values(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let vectors = self.vectors();
        (0..self.tile.schedule.n).flat_map(move |u| (0..vectors).map(move |v| (u, v)))
    }

    /// Returns how many vectors of samples a lane has.
    pub(super) fn vectors(&self) -> usize {
        self.tile.vectors()
    }

    /// Declares variables, one for each value of the lane.
    pub(super) fn vars(&self, k: &mut Kernel, name: &str, value: impl Fn(usize) -> Expr) -> Vec<Expr> {
        (self.values().enumerate()).map(|(i, (u, v))| k.var(format!("{name}_{u}_{v}"), value(i))).collect()
    }

    /// Names a value of each.
    pub(super) fn lets(&self, k: &mut Kernel, name: &str, value: impl Fn(usize) -> Expr) -> Vec<Expr> {
        (self.values().enumerate()).map(|(i, (u, v))| k.let_(format!("{name}_{u}_{v}"), value(i))).collect()
    }

    /// Declares variables that are zeros, which no compiler knows.
    pub(super) fn zeros(&self, k: &mut Kernel, name: &str) -> Vec<Expr> {
        self.vars(k, name, |_| self.tile.value().splat(Expr::name("step.zero", Type::F32)))
    }

    /// Returns the unit of value `i`.
    pub(super) fn unit(&self, i: usize) -> &Expr {
        &self.units[i / self.vectors()].0
    }

    /// Returns a number as a value.
    pub(super) fn splat(&self, number: impl Into<Expr>) -> Expr {
        self.tile.value().splat(number)
    }

    /// Returns the buffer of a name.
    pub(super) fn buffer(&self, name: &str) -> &Buffer {
        self.buffers.iter().find(|b| b.name() == name).unwrap_or(&self.held)
    }

    /// Returns where a sample's unit lies in a tensor of rows of `row` numbers: (samples, steps, row) at step `t`, or
    /// (samples, row) without.
    fn index(&self, sample: usize, unit: usize, (row, first): (usize, usize), t: Option<&Expr>) -> Expr {
        let sample = &self.samples[sample].0;
        let at = t.map_or(sample.clone(), |t| sample * self.extents.steps() + t);
        at * row + &self.units[unit].0 + first
    }

    /// Declares variables with what a tensor holds, in rows of some numbers from the first on.
    pub(super) fn load(
        &self,
        k: &mut Kernel,
        (name, tensor): (&str, &str),
        rows: (usize, usize),
        t: Option<&Expr>,
    ) -> Vec<Expr> {
        let (tensor, width) = (self.buffer(tensor), self.tile.schedule.width);
        let sample = |u: usize, v: usize, i: usize| tensor.at(self.index(v * width + i, u, rows, t));
        let values: Vec<Expr> =
            self.values().map(|(u, v)| Expr::vector((0..width).map(|i| sample(u, v, i)).collect())).collect();
        self.vars(k, name, |i| values[i].clone())
    }

    /// Stores values where [`Core::load`] would read them.
    pub(super) fn store(
        &self,
        k: &mut Kernel,
        (values, tensor): (&[Expr], &str),
        rows: (usize, usize),
        t: Option<&Expr>,
    ) {
        let width = self.tile.schedule.width;
        for (value, (u, v)) in values.iter().zip(self.values()) {
            for i in 0..width {
                let live = self.samples[v * width + i].1.and(&self.units[u].1);
                let index = self.index(v * width + i, u, rows, t);
                k.if_(live, |k| k.store(self.buffer(tensor), index, value.component(i)));
            }
        }
    }

    /// Puts values where all lanes of the block see them: `terms` for each vector of samples.
    pub(super) fn hold(&self, k: &mut Kernel, values: &[Expr], place: &Expr, terms: usize) {
        for (value, (u, v)) in values.iter().zip(self.values()) {
            let (unit, own) = &self.units[u];
            k.if_(own, |k| k.store(&self.held, place + unit + v * terms, value));
        }
    }

    /// Writes a product: to each of `into` is added the sum over `terms` numbers from the first on, of `row` numbers held for each
    /// vector of samples from `place` on, times the recurrent kernel's, in rows of `columns` from the given column on.
    pub(super) fn product(
        &mut self,
        k: &mut Kernel,
        (place, row): (&Expr, usize),
        (first, terms): (usize, usize),
        columns: usize,
        into: &[(&[Expr], usize)],
    ) {
        let unrolled = unrolled(terms);
        let whole = terms / unrolled * unrolled;
        self.products += 1;
        let kernel = self.buffer("kernel");
        let term = |k: &mut Kernel, name: usize, term: &Expr| {
            let name = format!("{}_{name}", self.products);
            let held: Vec<Expr> = (0..self.vectors())
                .map(|v| k.let_(format!("s{v}_{name}"), self.held.at(place + term + (v * row + first))))
                .collect();
            for (u, (unit, _)) in self.units.iter().enumerate() {
                for (n, (sums, column)) in into.iter().enumerate() {
                    let weight = kernel.at((term + first) * columns + unit + *column);
                    let weight = k.let_(format!("w{n}_{u}_{name}"), weight);
                    for (v, held) in held.iter().enumerate() {
                        k.add(&sums[u * self.vectors() + v], &weight * held);
                    }
                }
            }
        };
        if whole > 0 {
            k.for_("k", 0u32, whole, unrolled, |k, first| (0..unrolled).for_each(|d| term(k, d, &(first + d))));
        }
        (whole..terms).for_each(|t| term(k, t, &Expr::from(t)));
    }
}

/// Declares the functions of a cell, of vectors of `width`: `act`, `gate` and their slopes where they have a value.
fn functions(k: &mut Kernel, cell: &Cell, width: usize) {
    let vector = Type::F32.vector(width);
    for (name, activation) in [("act", cell.activation), ("gate", cell.gate)] {
        let (value, slope) = activation.wgsl();
        for (name, text) in [(name.to_owned(), value), (format!("{name}_slope"), slope)] {
            let one = format!("{name}1");
            k.function(&one, &[("v", Type::F32)], Type::F32, |_, _| Expr::text(text, Type::F32));
            k.function(&name, &[("v", vector)], vector, |_, v| {
                let component = |i: usize| Expr::call(&one, Type::F32, [v[0].component(i)]);
                Expr::vector((0..width).map(component).collect())
            });
        }
    }
}

/// Returns a function of a cell at a value.
pub(super) fn of(function: &str, value: impl Into<Expr>) -> Expr {
    let value = value.into();
    Expr::call(function, value.ty(), [value])
}

fn unrolled(terms: usize) -> usize {
    match terms {
        0..64 => 4,
        64..512 => 8,
        _ => 16,
    }
}
