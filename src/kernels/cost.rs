//! The cost model: nanoseconds of what kernels count, for each class of device. `cargo bench -- --fit` fits them anew.

use crate::graph::{Counts, DeviceClass};

/// Lavapipe of Mesa 22.3. GPUs have the same until one has been measured.
const MEASURED: Counts = Counts {
    load: 50.0,
    uniform_load: 5.0,
    broadcast: 1.2,
    madd: 1.0,
    next_madd: 0.5,
    store: 20.0,
    enter: 20.0,
    instruction: 1.0,
    launch: 7_000.0,
};

/// Rows, columns, terms and slices of the tiles of workgroups through workgroup memory, with the share of the peak that each reaches
/// where there is enough to do: what it multiplies for each element that it stages.
pub(super) const SHARED: [([usize; 4], f64); 17] = [
    ([128, 128, 8, 1], 0.9),
    ([128, 64, 16, 1], 0.8),
    ([64, 128, 16, 1], 0.8),
    ([128, 32, 16, 1], 0.75),
    ([32, 128, 16, 1], 0.75),
    ([64, 64, 16, 1], 0.6),
    ([64, 32, 16, 1], 0.5),
    ([32, 32, 16, 1], 0.35),
    ([64, 16, 16, 1], 0.35),
    ([16, 64, 16, 1], 0.35),
    ([64, 32, 16, 2], 0.35),
    ([32, 32, 8, 4], 0.35),
    ([64, 16, 16, 2], 0.35),
    ([16, 64, 16, 2], 0.35),
    ([16, 32, 8, 8], 0.35),
    ([16, 16, 4, 16], 0.35),
    ([8, 16, 4, 16], 0.28),
];

/// Returns the nanoseconds of each thing that kernels count on a class of device.
pub fn coefficients(class: DeviceClass) -> &'static Counts {
    match class {
        DeviceClass::Cpu | DeviceClass::Gpu => &MEASURED,
    }
}

/// Returns the way that takes the least time, the first of equal ones, with what it counts.
pub(super) fn fastest<T>(
    ways: impl Iterator<Item = T>,
    class: DeviceClass,
    count: impl Fn(&T) -> Counts,
) -> Option<(Counts, T)> {
    let ways = ways.map(|way| (count(&way), way)).map(|(counts, way)| (counts.time(coefficients(class)), counts, way));
    ways.min_by(|(a, ..), (b, ..)| a.total_cmp(b)).map(|(_, counts, way)| (counts, way))
}
