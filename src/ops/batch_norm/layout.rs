//! How the launches of batch normalisation share rows and channels.

use crate::{
    graph::{Candidate, ColumnParts, DeviceClass, DeviceProfile, Dispatch, Epilogue, Grid, Slot},
    kernels::{self, Core, Schedule, shader},
    tensor::{Count, Shape},
};

/// Parts of which a workgroup merges those of one vector of channels alone, so that no lane has many.
const MANY_PARTS: u64 = 128;

/// How the launches share the work.
#[derive(Clone, Copy)]
pub(super) struct Layout<'a> {
    width: usize,
    lanes: usize,
    c: usize,
    span: usize,
    t: usize,
    tiles: usize,
    groups: usize,
    gather: bool,
    merge_span: usize,
    merge_lanes: usize,
    /// Vectors of channels of which the statistics are known, in front of those of x.
    before: usize,
    n_rows: Count,
    epsilon: f32,
    /// What takes the place of chunks, if another kernel has left parts.
    parts: Option<ColumnParts>,
    profile: &'a DeviceProfile,
}

impl<'a> Layout<'a> {
    pub(super) fn new(x: &Shape, epsilon: f32, class: DeviceClass, profile: &'a DeviceProfile) -> Self {
        let width = kernels::width(x.last(), profile);
        let c = x.last() / width;
        let (lanes, gather) = match class {
            DeviceClass::Cpu => (64, false),
            DeviceClass::Gpu => (256, true),
        };
        let (span, rows) = (c.min(lanes), x.rows());
        // Two workgroups for each multiprocessor, unless lanes would have fewer than four rows.
        let full = (2 * profile.multiprocessors as usize).div_ceil(c.div_ceil(span));
        let groups = if gather { full.min(rows.at(profile.batch) as usize / (4 * (lanes / span))).max(1) } else { 32 };
        let groups = if rows.per_sample == 0 { groups.min(rows.fixed as usize).max(1) } else { groups };
        let (merge_span, merge_lanes) = if gather { (4, 256) } else { (8, 8) };
        Layout {
            width,
            lanes,
            c,
            span,
            t: lanes / span,
            tiles: c.div_ceil(span),
            groups,
            gather,
            merge_span,
            merge_lanes,
            before: 0,
            n_rows: rows,
            epsilon,
            parts: None,
            profile,
        }
    }

    pub(super) fn profile(&self) -> &'a DeviceProfile {
        self.profile
    }

    /// Returns the layout of a launch that merges what another kernel has left.
    pub(super) fn of_parts(self, parts: Option<&ColumnParts>) -> Self {
        let many = parts.is_some_and(|p| p.rows.at(self.profile.batch) / p.rows_per_part * p.stacks > MANY_PARTS);
        Layout { parts: parts.copied(), merge_span: if many { 1 } else { self.merge_span }, ..self }
    }

    /// Returns the layout of a launch that merges, of whose channels so many are known.
    pub(super) fn behind(self, channels: usize) -> Self {
        let width = if channels.is_multiple_of(self.width) { self.width } else { 1 };
        Layout { width, c: self.c * self.width / width, before: channels / width, ..self }
    }

    fn partials(&self) -> usize {
        if self.gather { self.groups } else { self.groups * self.t }
    }

    /// A launch over all rows, in chunks.
    pub(super) fn rows(&self, kernel: &str, source: &str, slots: Vec<Slot>, epilogue: Option<&Epilogue>) -> Dispatch {
        let grid = Grid::fixed((self.groups * self.tiles) as u64);
        self.dispatch(kernel, source, grid, slots, epilogue)
    }

    pub(super) fn merge(&self, kernel: &str, source: &str, slots: Vec<Slot>) -> Dispatch {
        let grid = Grid::fixed((self.c.div_ceil(self.merge_span) + self.before.div_ceil(self.merge_lanes)) as u64);
        let merged = Layout { lanes: self.merge_lanes, span: self.merge_span, ..*self };
        merged.dispatch(kernel, source, grid, slots, None)
    }

    fn dispatch(
        &self,
        kernel: &str,
        source: &str,
        grid: Grid,
        slots: Vec<Slot>,
        epilogue: Option<&Epilogue>,
    ) -> Dispatch {
        let constants = [
            ("LANES", self.lanes as f64),
            ("SPAN", self.span as f64),
            ("SHARERS", (self.lanes / self.span) as f64),
            ("LEVELS", f64::from((self.lanes / self.span).next_power_of_two().ilog2())),
            ("T", self.t as f64),
            ("GATHER", f64::from(u8::from(self.gather))),
            ("EPSILON", f64::from(self.epsilon)),
        ];
        let rows = self.parts.map_or(self.n_rows, |parts| parts.rows);
        let extents = [
            ("rows", rows.fixed),
            ("rows_per_sample", rows.per_sample),
            ("all_rows", self.n_rows.fixed),
            ("all_rows_per_sample", self.n_rows.per_sample),
            ("channels", self.c as u64),
            ("tiles", self.tiles as u64),
            ("chunks", if self.parts.is_some() { 0 } else { self.groups as u64 }),
            ("partials", self.partials() as u64),
            ("rows_per_part", self.parts.map_or(1, |parts| parts.rows_per_part)),
            ("stacks", self.parts.map_or(1, |parts| parts.stacks)),
            ("before", self.before as u64),
        ];
        let source = kernels::Source::over_vectors(source, self.width, self.profile);
        let source = source.with(shader!("shared/batch_norm.wgsl")).extents(&extents);
        kernels::dispatch(kernel, source, &constants, grid, slots, epilogue)
    }

    /// Returns the candidate whose partials have so many values, and channels so many coefficients.
    pub(super) fn candidate(&self, [n_values, n_coefficients]: [usize; 2], dispatches: Vec<Dispatch>) -> Candidate {
        let floats = |n: usize| Count { fixed: (n * self.c * self.width * 4) as u64, per_sample: 0 };
        let core = if self.gather { Core::Group } else { Core::Lane };
        let variant = Schedule::of_width(core, self.width);
        Candidate::new(variant, dispatches, vec![floats(n_values * self.partials()), floats(n_coefficients)])
    }
}

/// The layout for the device and, second, the other one: what is best on one may be close on the other.
pub(super) fn layouts<'a>(x: &Shape, epsilon: f32, profile: &'a DeviceProfile) -> [Layout<'a>; 2] {
    let (first, second) = match profile.class {
        DeviceClass::Cpu => (DeviceClass::Cpu, DeviceClass::Gpu),
        DeviceClass::Gpu => (DeviceClass::Gpu, DeviceClass::Cpu),
    };
    [first, second].map(|class| Layout::new(x, epsilon, class, profile))
}
