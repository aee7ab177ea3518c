//! A profile as a trace of events, the format that Perfetto and Chrome's `about:tracing` read.

use super::{Clock, Profile, Purpose};
use serde_json::{Value, json};

/// The rows of a trace: what the host did, and what the device did.
const PROCESS: u32 = 1;
const HOST: u32 = 1;
const DEVICE: u32 = 2;

/// Returns what names a row.
fn name(thread: u32, name: &str) -> Value {
    json!({ "name": "thread_name", "ph": "M", "pid": PROCESS, "tid": thread, "args": { "name": name } })
}

/// Returns an event that is over; times are in microseconds.
fn event(thread: u32, name: &str, category: &str, [start_ms, ms]: [f64; 2], args: Value) -> Value {
    json!({
        "name": name, "cat": category, "ph": "X", "pid": PROCESS, "tid": thread,
        "ts": start_ms * 1e3, "dur": ms * 1e3, "args": args,
    })
}

impl Profile {
    /// Returns the step as JSON in the trace-event format, which [Perfetto](https://ui.perfetto.dev) and Chrome's `about:tracing`
    /// open: a row of what the host did, and one of the launches on the device.
    ///
    /// Host and device have clocks of their own: the last launch is drawn to end when the host saw the step's end.
    pub fn trace(&self) -> String {
        let end = self.host.iter().map(|span| span.start_ms + span.ms).fold(0.0, f64::max);
        let device_end = self.launches.iter().map(|t| t.start_ms + t.ms).fold(0.0, f64::max);
        let offset = (end - device_end).max(0.0);
        let device = match self.clock {
            Clock::Launches => "device (timestamps between launches)",
            Clock::Passes => "device (timestamps, a pass for each launch)",
            Clock::Host => "device (host's clock, a submit for each launch)",
        };
        let process =
            json!({ "name": "process_name", "ph": "M", "pid": PROCESS, "tid": HOST, "args": { "name": "hubel" } });
        let mut events = vec![process, name(HOST, "host"), name(DEVICE, device)];
        events.extend(self.host.iter().map(|s| event(HOST, s.name, "host", [s.start_ms, s.ms], json!({}))));
        events.extend(self.launches.iter().map(|t| {
            let category = match t.purpose() {
                Purpose::Forward => "forward",
                Purpose::Backward => "backward",
                Purpose::Step => "step",
            };
            let args = json!({
                "layer": t.layer(), "kernel": t.kernel, "variant": t.variant, "gflop": t.flops / 1e9, "mb": t.bytes / 1e6,
            });
            event(DEVICE, &t.node, category, [t.start_ms + offset, t.ms], args)
        }));
        json!({ "traceEvents": events, "displayTimeUnit": "ms" }).to_string()
    }
}
