//! Names of layers, numbered as in Keras.

use super::LayerError;
use std::collections::{HashMap, HashSet};

pub(super) fn refused(layer: &str, kind: &str, wanted: &str, got: impl Into<String>, advice: &str) -> LayerError {
    let (layer, kind) = (layer.to_owned(), kind.to_owned());
    LayerError { layer, kind, wanted: wanted.into(), got: got.into(), advice: advice.into() }
}

/// The names of a model's layers.
#[derive(Default)]
pub(super) struct Names {
    counts: HashMap<String, usize>,
    taken: HashSet<String>,
}

impl Names {
    /// Returns the given name, else one made from the layer's kind and a number; an error if the name is taken.
    pub(super) fn of(&mut self, given: Option<&str>, kind: &str) -> Result<String, LayerError> {
        let numbered = || {
            let stem = snake_case(kind);
            let count = self.counts.entry(stem.clone()).or_insert(0);
            *count += 1;
            if *count == 1 { stem } else { format!("{stem}_{}", *count - 1) }
        };
        let name = given.map_or_else(numbered, str::to_owned);
        let advice = "rename one of them, or share one layer by `&Arc<dyn Layer>`";
        match self.taken.insert(name.clone()) {
            true => Ok(name),
            false => Err(refused(&name, kind, "a unique name", "one that another layer has", advice)),
        }
    }
}

/// Returns `max_pooling2d` for `MaxPooling2D`, as Keras does.
pub(super) fn snake_case(kind: &str) -> String {
    let chars: Vec<char> = kind.chars().collect();
    let mut out = String::new();
    for (i, &c) in chars.iter().enumerate() {
        let border = i > 0 && (chars[i - 1].is_lowercase() || chars.get(i + 1).is_some_and(|n| n.is_lowercase()));
        if c.is_uppercase() && border {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}
