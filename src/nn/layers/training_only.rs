//! Random changes of images that predictions do not make. Files that have them are read; training with them is refused.

use crate::{
    graph::{OpError, Value},
    nn::{Layer, Mode, Scope},
};
use serde_json::{Map, Value as Json};

/// Keras's classes of such layers.
pub(in crate::nn) const CLASSES: [&str; 12] = [
    "AugMix",
    "CutMix",
    "MixUp",
    "RandAugment",
    "RandomElasticTransform",
    "RandomErasing",
    "RandomGaussianBlur",
    "RandomHeight",
    "RandomPerspective",
    "RandomSharpness",
    "RandomShear",
    "RandomWidth",
];

/// A layer of one of these classes, with its options as they are in the file.
#[derive(Debug)]
pub(in crate::nn) struct TrainingOnly {
    class: &'static str,
    config: Map<String, Json>,
}

impl TrainingOnly {
    /// Returns the layer, or `None` for another class.
    pub fn new(class: &str, config: Map<String, Json>) -> Option<Self> {
        CLASSES.iter().find(|known| **known == class).map(|class| TrainingOnly { class, config })
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
                Err(OpError::new(self.class, "random changes that Hubel has", self.class, advice))
            }
        }
    }
}
