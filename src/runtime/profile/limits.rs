//! What a device can do at most, measured: multiply-adds in registers, and a copy.

use crate::{
    Error,
    graph::{Candidate, DeviceClass, DeviceProfile, Epilogue, Graph, Grid, Io, Op, OpError, Slot, Step, TensorType},
    kernels,
    ops::Elementwise,
    passes::{PlanOptions, plan},
    runtime::Engine,
    tensor::{Accuracy, Array, Batch, DType},
};
use serde::Serialize;
use std::sync::Arc;

/// The limits of a device, as measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Limits {
    /// Billions of floating-point operations a second, of multiply-adds on registers alone.
    pub gflops: f64,
    /// Billions of bytes a second, read and written by a copy.
    pub gb_per_s: f64,
}

impl Limits {
    /// Returns the share of what these limits allow that so many operations and bytes in so many milliseconds are.
    pub fn share(&self, flops: f64, bytes: f64, ms: f64) -> f64 {
        if ms > 0.0 { (flops / self.gflops).max(bytes / self.gb_per_s) / ms / 1e6 } else { 0.0 }
    }
}

/// Multiply-adds on registers only.
#[derive(Debug)]
struct Peak {
    iterations: usize,
}

const CHAINS: usize = 16;
/// Multiply-adds of each chain in an iteration.
const UNROLLED: usize = 4;
const RUNS: usize = 5;

impl Op for Peak {
    fn name(&self) -> &'static str {
        "peak"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        Ok(inputs.to_vec())
    }

    fn reference(&self, inputs: &[&Array], _: &Step) -> Vec<Array> {
        inputs.iter().map(|&x| x.clone()).collect()
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, _: Option<&Epilogue>) -> Vec<Candidate> {
        let lanes = if profile.class == DeviceClass::Cpu { 8 } else { 256 };
        let each = |text: &dyn Fn(usize) -> String| (0..CHAINS).map(text).collect::<String>();
        let body = format!(
            "@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size({lanes})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {{
    let i = (id.x + id.y * counts.x) * {lanes}u + lane;
    if (i >= step.n) {{ return; }}
    let a = x[i];
    let b = 1.0 - a;
{}    for (var k = 0u; k < {}u; k++) {{
{}    }}
    y[i] = {};
}}
",
            each(&|c| format!("    var c{c} = a + {c}.0;\n")),
            self.iterations,
            each(&|c| format!("        c{c} = c{c} * a + b;\n").repeat(UNROLLED)),
            (0..CHAINS).map(|c| format!("c{c}")).collect::<Vec<_>>().join(" + "),
        );
        let grid = Grid::new(io.outputs[0].shape.elements(), lanes);
        let dispatch = kernels::dispatch("peak", &body, &[], grid, vec![Slot::input(0), Slot::output(0)], None);
        vec![Candidate::single("peak", dispatch)]
    }

    fn accuracy(&self, _: &Io, _: usize) -> Vec<Accuracy> {
        vec![Accuracy::Exact]
    }
}

impl Engine {
    /// Measures the device's limits, in less than a second on a GPU and in some seconds on a processor.
    ///
    /// An error on the reference engine.
    pub fn limits(&self) -> Result<Limits, Error> {
        let software = self.profile().class == DeviceClass::Cpu;
        let (lanes, iterations, floats) = if software { (256, 2_000, 2 << 20) } else { (1 << 20, 1_000, 16 << 20) };
        let peak = self.seconds(Arc::new(Peak { iterations }), lanes)?;
        let copy = self.seconds(Arc::new(Elementwise::named("neg")?), floats)?;
        let flops = (lanes * iterations * CHAINS * UNROLLED * 2) as f64;
        Ok(Limits { gflops: flops / peak / 1e9, gb_per_s: (floats * 8) as f64 / copy / 1e9 })
    }

    /// Returns the least of the times of an operation on `n` floats.
    fn seconds(&self, op: Arc<dyn Op>, n: usize) -> Result<f64, Error> {
        let mut g = Graph::new();
        let x = g.input("x", [Batch], DType::F32);
        g.apply_arc(op, &[x])?.iter().for_each(|&y| g.output("y", y));
        let plan = plan(&g, &PlanOptions::new(n, self.profile().clone()))?;
        let mut session = self.session(Arc::new(plan), &[], None)?;
        let values = vec![0.5f32; n];
        let mut least = f64::INFINITY;
        for _ in 0..RUNS {
            let profile = session.profile(&Step::of(n), &[("x", bytemuck::cast_slice(&values))])?;
            least = least.min(profile.device_ms() / 1e3);
        }
        Ok(least)
    }
}
