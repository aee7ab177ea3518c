//! Random changes of images that predictions do not make. Files that have them are read; training with them is refused.

use crate::{
    graph::{OpError, Value},
    nn::{Layer, Mode, Scope},
};
use serde_json::{Map, Value as Json};

const LABELS: &str = "labels would have to be mixed too: `Compile::mix_up` mixes both";
const SIZES: &str = "images change their size from step to step, and a plan has one";

/// Keras's classes of such layers, and why training does not have them.
pub(in crate::nn) const CLASSES: [(&str, &str); 7] = [
    ("AugMix", "dozens of changes of a batch would be computed for each that is kept"),
    ("CutMix", LABELS),
    ("MixUp", LABELS),
    ("RandomElasticTransform", "each pixel has a place of its own, and images are resampled by affine maps alone"),
    ("RandomHeight", SIZES),
    ("RandomPerspective", "the maps are not affine"),
    ("RandomWidth", SIZES),
];

/// A layer of one of these classes, with its options as they are in the file.
#[derive(Debug)]
pub(in crate::nn) struct TrainingOnly {
    class: &'static str,
    reason: &'static str,
    config: Map<String, Json>,
}

impl TrainingOnly {
    /// Returns the layer, or `None` for another class.
    pub fn new(class: &str, config: Map<String, Json>) -> Option<Self> {
        let (class, reason) = CLASSES.into_iter().find(|known| known.0 == class)?;
        Some(TrainingOnly { class, reason, config })
    }
}

impl Layer for TrainingOnly {
    fn kind(&self) -> &'static str {
        self.class
    }

    fn given_name(&self) -> Option<&str> {
        self.config.get("name")?.as_str()
    }

    fn config(&self) -> Json {
        self.config.clone().into()
    }

    fn build(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        match scope.mode {
            Mode::Inference => Ok(vec![inputs[0]]),
            Mode::Training => {
                let advice = "the model predicts as it is; to train it, build it without this layer";
                let got = format!("{}: {}", self.class, self.reason);
                Err(OpError::new(self.class, "random changes that Hubel has", got, advice))
            }
        }
    }
}
