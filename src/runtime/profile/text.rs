//! A profile as text: a table of layers and one of launches, the longest first.

use super::{Clock, Limits, Profile};
use std::fmt;

/// The columns of a bar.
const BAR: f64 = 24.0;
/// The rows of each table.
const MAX_ROWS: usize = 40;

/// Returns a bar for a share of the longest row.
fn bar(share: f64) -> String {
    let eighths = (share.clamp(0.0, 1.0) * BAR * 8.0).round() as usize;
    let part = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
    "█".repeat(eighths / 8) + part
}

/// What a row did, in how many milliseconds.
struct Work {
    ms: f64,
    flops: f64,
    bytes: f64,
}

impl Work {
    /// Returns GFLOP/s, GB/s and the share of the roofline.
    fn rates(&self, limits: Option<Limits>) -> String {
        let rate = |of: f64, unit: f64| if self.ms > 0.0 { of / self.ms / unit } else { 0.0 };
        let share = limits
            .map_or("-".into(), |limits| format!("{:.0}%", 100.0 * limits.share(self.flops, self.bytes, self.ms)));
        format!("{:9.1} {:7.1} {share:>8}", rate(self.flops, 1e6), rate(self.bytes, 1e6))
    }
}

const RATES: &str = "  GFLOP/s    GB/s roofline";

impl Profile {
    fn write_layers(&self, f: &mut fmt::Formatter<'_>, total: f64) -> fmt::Result {
        let mut layers = self.layers();
        layers.sort_by(|a, b| b.ms().total_cmp(&a.ms()));
        let longest = layers.first().map_or(0.0, |l| l.ms()).max(f64::MIN_POSITIVE);
        let widest = layers.iter().take(MAX_ROWS).map(|l| l.layer.chars().count()).max().unwrap_or(0).max(5);
        writeln!(f, "{:widest$} forward ms backward ms   step ms  share launches {RATES}", "layer")?;
        for layer in layers.iter().take(MAX_ROWS) {
            let work = Work { ms: layer.ms(), flops: layer.flops, bytes: layer.bytes };
            writeln!(
                f,
                "{:widest$} {:10.3} {:11.3} {:9.3} {:5.1}% {:8} {}  {}",
                layer.layer,
                layer.forward_ms,
                layer.backward_ms,
                layer.step_ms,
                100.0 * work.ms / total,
                layer.launches,
                work.rates(self.limits),
                bar(work.ms / longest)
            )?;
        }
        rest(f, layers.iter().skip(MAX_ROWS).map(|l| l.ms()), "layers")
    }

    fn write_launches(&self, f: &mut fmt::Formatter<'_>, total: f64) -> fmt::Result {
        let mut launches: Vec<_> = self.launches.iter().collect();
        launches.sort_by(|a, b| b.ms.total_cmp(&a.ms));
        let longest = launches.first().map_or(0.0, |t| t.ms).max(f64::MIN_POSITIVE);
        writeln!(f, "        ms  share {RATES}  {:24}  launch", "")?;
        for t in launches.iter().take(MAX_ROWS) {
            let work = Work { ms: t.ms, flops: t.flops, bytes: t.bytes };
            writeln!(
                f,
                "{:10.3} {:5.1}% {}  {:24}  {} {} [{}]",
                t.ms,
                100.0 * t.ms / total,
                work.rates(self.limits),
                bar(t.ms / longest),
                t.node,
                t.kernel,
                t.variant
            )?;
        }
        rest(f, launches.iter().skip(MAX_ROWS).map(|t| t.ms), "launches")
    }
}

/// Writes how many rows are left out, and their time.
fn rest(f: &mut fmt::Formatter<'_>, times: impl Iterator<Item = f64>, of: &str) -> fmt::Result {
    let (n, ms) = times.fold((0, 0.0), |(n, sum), ms| (n + 1, sum + ms));
    if n > 0 { writeln!(f, "… {n} further {of}: {ms:.3} ms") } else { Ok(()) }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.device_ms();
        let clock = match self.clock {
            Clock::Launches => "timestamps between the launches of one pass",
            Clock::Passes => "timestamps, with a pass for each launch: a step takes less",
            Clock::Host => {
                "the host's clock, with a submit for each launch, as the device has no timestamps: a step takes less"
            }
        };
        writeln!(
            f,
            "{total:.3} ms on the device, {:.3} ms by the host, {} launches; {clock}",
            self.wall_ms,
            self.launches.len()
        )?;
        if let Some(Limits { gflops, gb_per_s }) = self.limits {
            writeln!(f, "roofline: {gflops:.1} GFLOP/s and {gb_per_s:.1} GB/s, measured here")?;
        }
        let total = total.max(f64::MIN_POSITIVE);
        writeln!(f)?;
        self.write_layers(f, total)?;
        writeln!(f)?;
        self.write_launches(f, total)
    }
}
