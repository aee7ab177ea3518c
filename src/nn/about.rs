//! What a file says of a model besides its layers and weights.

use super::models::Preprocessing;
use crate::tensor::HostTensor;
use serde_json::Value as Json;

/// What a file says of a model besides its layers and weights.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct About {
    pub class_names: Vec<String>,
    pub preprocessing: Option<Preprocessing>,
}

impl About {
    /// Returns what the metadata of a .keras file say.
    pub fn from_metadata(metadata: &Json) -> Self {
        let about = &metadata["hubel"];
        let names = about["class_names"].as_array().map(Vec::as_slice).unwrap_or_default();
        let class_names = names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect();
        let preprocessing = about["preprocessing"].as_str().and_then(Preprocessing::named);
        About { class_names, preprocessing }
    }
}

/// How a model is trained: Keras's `compile_config`, what Keras does not have, and the optimiser's tensors in Keras's order.
#[derive(Debug, Default)]
pub(crate) struct Training {
    pub compiled: Json,
    pub own: Json,
    pub state: Vec<HostTensor>,
}
