//! What the launches of a step cost: times on the device, by launch and by layer; `text.rs` prints them, `trace.rs` draws them along
//! time, `limits.rs` measures what the device could do.

mod limits;
mod text;
mod trace;

pub use limits::Limits;

use serde::Serialize;
use std::collections::HashMap;

/// What times launches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Clock {
    /// The device's timestamps, between the launches of one pass.
    Launches,
    /// The device's timestamps at the beginning and end of a pass for each launch, which costs more than one pass for all.
    Passes,
    /// The host's clock, with a submit for each launch that is waited for: on a device without timestamps.
    Host,
}

/// The time of one launch on the device.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Timing {
    /// The node.
    pub node: String,
    /// Its kernel.
    pub kernel: String,
    /// The kernel's variant: how it is cut.
    pub variant: String,
    /// When it began, in milliseconds from the beginning of the step's first launch.
    pub start_ms: f64,
    /// Milliseconds.
    pub ms: f64,
    /// Floating-point operations, two for a multiply and add.
    pub flops: f64,
    /// Bytes read and written, if each value crosses memory once.
    pub bytes: f64,
}

impl Timing {
    /// Returns the layer that the launch belongs to, or the node's own name where it belongs to none, as the optimiser's.
    pub fn layer(&self) -> &str {
        let forward = self.node.strip_prefix(GRADIENT);
        // A gradient's name is that of its node's, under which it is another node.
        let drop = if forward.is_some() { 2 } else { 1 };
        let name = forward.unwrap_or(&self.node);
        let mut ends = name.rmatch_indices('/').map(|(end, _)| end);
        let end = ends.nth(drop - 1).or_else(|| name.find('/'));
        end.map_or(name, |end| &name[..end])
    }

    /// Returns what the launch is for.
    pub fn purpose(&self) -> Purpose {
        match self.node.contains('/') {
            false => Purpose::Step,
            true if self.node.starts_with(GRADIENT) => Purpose::Backward,
            true => Purpose::Forward,
        }
    }
}

/// What a launch is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// A layer's outputs.
    Forward,
    /// A layer's gradients.
    Backward,
    /// What belongs to no layer: loss, metrics, optimiser.
    Step,
}

/// What the names of gradients begin with.
const GRADIENT: &str = "grad/";

/// What the host did for a step.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct HostSpan {
    /// What.
    pub name: &'static str,
    /// When it began, in milliseconds from the step's beginning.
    pub start_ms: f64,
    /// Milliseconds.
    pub ms: f64,
}

/// The time of a layer's launches.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[non_exhaustive]
pub struct LayerTime {
    /// The layer, or the node of what belongs to none.
    pub layer: String,
    /// Milliseconds of its outputs.
    pub forward_ms: f64,
    /// Milliseconds of its gradients.
    pub backward_ms: f64,
    /// Milliseconds, where it is no layer.
    pub step_ms: f64,
    /// Launches.
    pub launches: usize,
    /// Floating-point operations.
    pub flops: f64,
    /// Bytes read and written.
    pub bytes: f64,
}

impl LayerTime {
    /// Returns the milliseconds of all its launches.
    pub fn ms(&self) -> f64 {
        self.forward_ms + self.backward_ms + self.step_ms
    }
}

/// The time of a step, launch by launch.
///
/// It prints as a table, layers first and then launches, the longest first.
///
/// ```no_run
/// use hubel::prelude::*;
/// let engine = Engine::new()?;
/// let model = models::lenet5()?;
/// let images = HostTensor::f32([8, 32, 32, 1], vec![0.5; 8 * 1024])?;
/// let profile = model.inference(&engine, Batch::up_to(8))?.profile(&[images], 5)?.with_limits(engine.limits()?);
/// println!("{profile}");
/// std::fs::write("trace.json", profile.trace())?;          // for ui.perfetto.dev
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Profile {
    /// What timed the launches.
    pub clock: Clock,
    /// The launches, in the order of the plan.
    pub launches: Vec<Timing>,
    /// What the host did, in order.
    pub host: Vec<HostSpan>,
    /// Milliseconds from the first submit until the device was done, by the host's clock.
    pub wall_ms: f64,
    /// The device's limits, if they were measured.
    pub limits: Option<Limits>,
}

impl Profile {
    /// Returns the milliseconds of all launches on the device.
    pub fn device_ms(&self) -> f64 {
        self.launches.iter().map(|t| t.ms).sum()
    }

    /// Adds the device's limits, with which rows have their share of the roofline.
    pub fn with_limits(self, limits: Limits) -> Self {
        Profile { limits: Some(limits), ..self }
    }

    /// Returns the time of each layer, in the order of the first launch of each.
    pub fn layers(&self) -> Vec<LayerTime> {
        let mut layers: Vec<LayerTime> = Vec::new();
        let mut known: HashMap<&str, usize> = HashMap::new();
        for launch in &self.launches {
            let i = *known.entry(launch.layer()).or_insert(layers.len());
            if i == layers.len() {
                let layer = launch.layer().to_owned();
                layers.push(LayerTime { layer, ..LayerTime::default() });
            }
            let layer = &mut layers[i];
            *match launch.purpose() {
                Purpose::Forward => &mut layer.forward_ms,
                Purpose::Backward => &mut layer.backward_ms,
                Purpose::Step => &mut layer.step_ms,
            } += launch.ms;
            layer.launches += 1;
            layer.flops += launch.flops;
            layer.bytes += launch.bytes;
        }
        layers
    }

    /// Returns the step of median time on the device.
    pub(crate) fn median(mut profiles: Vec<Profile>) -> Option<Profile> {
        profiles.sort_by(|a, b| a.device_ms().total_cmp(&b.device_ms()));
        let middle = profiles.len() / 2;
        profiles.into_iter().nth(middle)
    }

    /// Puts something that the host did in front of the step.
    pub(crate) fn after(mut self, name: &'static str, ms: f64) -> Self {
        self.host.iter_mut().for_each(|span| span.start_ms += ms);
        self.host.insert(0, HostSpan { name, start_ms: 0.0, ms });
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launches_belong_to_layers_and_gradients_to_those_of_their_nodes() {
        for (node, layer, purpose) in [
            ("conv1/conv2d", "conv1", Purpose::Forward),
            ("base/conv1/conv2d", "base/conv1", Purpose::Forward),
            ("grad/conv1/conv2d/conv2d_grad_weight", "conv1", Purpose::Backward),
            ("grad/base/conv1/conv2d/conv2d_grad_input", "base/conv1", Purpose::Backward),
            ("grad/conv1/relu", "conv1", Purpose::Backward),
            ("adam", "adam", Purpose::Step),
        ] {
            let (kernel, variant) = (String::new(), String::new());
            let t = Timing { node: node.into(), kernel, variant, start_ms: 0.0, ms: 1.0, flops: 0.0, bytes: 0.0 };
            assert_eq!((t.layer(), t.purpose()), (layer, purpose), "{node}");
        }
    }
}
