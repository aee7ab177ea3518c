//! Models written as Keras 3 reads them.

use super::{Layer, LayerError, Model, about::Training, below, layer::VECTOR};
use super::{layers::stacked_cells, model::as_model, names::snake_case, operation::as_operation};
use crate::{
    Error,
    io::{Flaw, FormatError, hdf5::Writer, safetensors, save},
    tensor::HostTensor,
};
use serde_json::{Value as Json, json};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
    sync::Arc,
};

/// The version of Keras whose files are written.
const KERAS_VERSION: &str = "3.15.1";

impl Model {
    /// Writes the model to a file that Keras 3 reads: `.keras` and the older `.h5` have layers and weights,
    /// `.weights.h5` has weights, and so has `.safetensors`, under their names.
    ///
    /// Class names and preprocessing go to a file with layers too;
    /// [`Trainer::save`](crate::train::Trainer::save) adds how the model is trained. Weights that have not been set are
    /// those that their initialisers draw with seed 0. A crash leaves the old file or the new.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let folder = temp_dir::TempDir::new()?;
    /// let model = Sequential::new([8, 8, 3]).add(Conv2D::new(4, 3)).add(Flatten::new()).add(Dense::new(2)).build()?;
    /// model.save(folder.path().join("flowers.keras"))?;
    /// let again = Model::from_keras(folder.path().join("flowers.keras"))?;
    /// assert_eq!(again.weight_names(), model.weight_names());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        self.save_with(path.as_ref(), None)
    }

    /// [`Model::save`], to a `.keras` or an `.h5` file with how the model is trained.
    pub(crate) fn save_with(&self, path: &Path, training: Option<&Training>) -> Result<(), Error> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let values: Vec<HostTensor> = self.weights().iter().map(|w| self.initial_value(w, 0)).collect();
        let ends = |end: &str| name.ends_with(end);
        let described = ends(".keras") || ends(".hdf5") || ends(".h5") && !ends(".weights.h5");
        if described {
            self.known_to_keras()?;
        }
        if training.is_some() && !described {
            let error = FormatError::new(Flaw::Type, "the file", "a name that ends in .keras or .h5", name).of(path);
            return Err(error.advise("or save the model alone: trainer.trained()?.save(path)?").into());
        }
        let bytes = if ends(".weights.h5") {
            self.weights_h5(&values, &[])?
        } else if ends(".h5") || ends(".hdf5") {
            self.legacy_h5(&values, training.unwrap_or(&Training::default()))?
        } else if ends(".safetensors") {
            let named = self.weights().iter().map(|w| w.name.as_str()).zip(&values);
            safetensors::write(named, &BTreeMap::new())?
        } else if ends(".keras") {
            self.archive(&values, training.unwrap_or(&Training::default()))?
        } else {
            let wanted = "a name that ends in .keras, .h5, .weights.h5 or .safetensors";
            return Err(FormatError::new(Flaw::Type, "the file", wanted, name).of(path).into());
        };
        Ok(save::save(path, &bytes, false)?)
    }

    /// Returns an error for what only Keras 2 has.
    fn known_to_keras(&self) -> Result<(), LayerError> {
        const OLD: [(&str, &str); 3] = [
            ("\"hard_sigmoid_keras2\"", "the hard sigmoid of Keras 2"),
            ("\"transpose_a\"", "a product of transposed tensors"),
            ("\"transpose_b\"", "a product of transposed tensors"),
        ];
        let config = self.config_object()?.to_string();
        match OLD.iter().find(|(written, _)| config.contains(written)) {
            None => Ok(()),
            Some((_, got)) => {
                let advice = "write .weights.h5 or .safetensors, or build the model of what Keras 3 has";
                Err(super::names::refused(self.name(), "Model", "a model that Keras 3 can read", *got, advice))
            }
        }
    }

    /// Returns what Keras does not have: class names, preprocessing, and more of the training.
    fn about_with(&self, own: &Json) -> Option<Json> {
        let (class_names, preprocessing) = (self.class_names(), self.preprocessing().map(|p| p.name()));
        let is_any = !class_names.is_empty() || preprocessing.is_some() || !own.is_null();
        is_any.then(|| json!({ "class_names": class_names, "preprocessing": preprocessing, "training": own }))
    }

    #[cfg(feature = "weights")]
    fn archive(&self, values: &[HostTensor], training: &Training) -> Result<Vec<u8>, Error> {
        let mut metadata = json!({ "keras_version": KERAS_VERSION, "date_saved": "" });
        let Training { compiled, own, state } = training;
        if let Some(about) = self.about_with(own) {
            metadata["hubel"] = about;
        }
        let mut config = self.config_object()?;
        if !compiled.is_null() {
            config["compile_config"] = compiled.clone();
        }
        let entries = [
            ("metadata.json", metadata.to_string().into_bytes()),
            ("config.json", config.to_string().into_bytes()),
            ("model.weights.h5", self.weights_h5(values, state)?),
        ];
        Ok(crate::io::archive::write(entries.iter().map(|(name, bytes)| (*name, bytes.as_slice())))?)
    }

    #[cfg(not(feature = "weights"))]
    fn archive(&self, _values: &[HostTensor], _training: &Training) -> Result<Vec<u8>, Error> {
        let error = FormatError::new(Flaw::Type, "the file", "a crate built with the feature `weights`", "none");
        Err(error.advise("build it with that, or write an .h5 file").into())
    }

    /// Returns Keras 3's file of weights: layers numbered within their class, and the optimiser's tensors.
    fn weights_h5(&self, values: &[HostTensor], state: &[HostTensor]) -> Result<Vec<u8>, Error> {
        let mut file = Writer::new();
        file.group("vars");
        for (i, tensor) in state.iter().enumerate() {
            file.dataset(&format!("optimizer/vars/{i}"), tensor);
        }
        let named: Vec<(&str, &HostTensor)> = self.weights().iter().map(|w| w.name.as_str()).zip(values).collect();
        self.write_layers("", &named, &mut file)?;
        Ok(file.finish()?)
    }

    /// Returns the names of the trainable weights in the order of Keras's `trainable_variables`.
    pub(crate) fn trained_names(&self) -> Result<Vec<String>, LayerError> {
        let mut names = Vec::new();
        self.add_names("", &mut names)?;
        let trained: HashSet<&str> = self.weights().iter().filter(|w| w.trainable).map(|w| w.name.as_str()).collect();
        names.retain(|name| trained.contains(name.as_str()));
        Ok(names)
    }

    /// Appends the names of all weights below `root`, layer by layer in Keras's order.
    fn add_names(&self, root: &str, names: &mut Vec<String>) -> Result<(), LayerError> {
        let ranks = self.ranks();
        let mut layers = self.layer_names();
        layers.sort_by_key(|name| ranks.get(name).copied());
        for name in layers {
            let layer = self.layer(name)?;
            let (path, model) = match layer.wrapped() {
                Some((inner, wrapped)) => (format!("{root}{name}/{inner}/"), as_model(&**wrapped)),
                None => (format!("{root}{name}/"), as_model(&**layer)),
            };
            match model {
                Some(model) => model.add_names(&path, names)?,
                None => {
                    let own = self.weights().iter().filter(|w| below(&w.name, name));
                    names.extend(own.map(|w| format!("{root}{}", w.name)));
                }
            }
        }
        Ok(())
    }

    /// Writes the weights of this model, whose names are relative to it, below `root`.
    fn write_layers<'t>(
        &self,
        root: &str,
        named: &[(&str, &'t HostTensor)],
        file: &mut Writer<'t>,
    ) -> Result<(), LayerError> {
        let ranks = self.ranks();
        let mut names = self.layer_names();
        names.sort_by_key(|name| ranks.get(name).copied());
        let mut counts: HashMap<String, usize> = HashMap::new();
        for name in names {
            let layer = self.layer(name)?;
            if as_operation(&**layer).is_some() {
                continue;
            }
            let class = snake_case(layer.kind());
            let count = counts.entry(class.clone()).or_insert(0);
            let key = if *count == 0 { class } else { format!("{class}_{count}") };
            *count += 1;
            let key = format!("{root}layers/{key}");
            let below = |path: &str| -> Vec<(&str, &'t HostTensor)> {
                let own = named.iter().filter_map(|(n, t)| Some((n.strip_prefix(path)?.strip_prefix('/')?, *t)));
                own.collect()
            };
            if layer.kind() == super::SpectralNormalization::KIND {
                let own = below(name);
                let kept = own.iter().find(|(name, _)| *name == VECTOR);
                for (i, (_, tensor)) in own.first().into_iter().chain(kept).enumerate() {
                    file.dataset(&format!("{key}/vars/{i}"), tensor);
                }
            }
            let (key, path, model) = match layer.wrapped() {
                Some((inner, wrapped)) => (format!("{key}/layer"), format!("{name}/{inner}"), as_model(&**wrapped)),
                None => (key, name.to_owned(), as_model(&**layer)),
            };
            file.group(&format!("{key}/vars"));
            match model {
                Some(model) => model.write_layers(&format!("{key}/"), &below(&path), file)?,
                None => write_layer(&key, wrapped_or(layer), &below(&path), file),
            }
        }
        Ok(())
    }

    /// Returns the file that Keras 2 wrote by default: layers by name, with the configuration.
    fn legacy_h5(&self, values: &[HostTensor], training: &Training) -> Result<Vec<u8>, Error> {
        let mut file = Writer::new();
        let ranks = self.ranks();
        let mut layers: Vec<String> = self.layer_names().into_iter().map(str::to_owned).collect();
        layers.sort_by_key(|name| ranks.get(name.as_str()).copied());
        for path in ["", "model_weights"] {
            file.text(path, "backend", "jax");
            file.text(path, "keras_version", KERAS_VERSION);
        }
        file.text("", "model_config", &self.config_object()?.to_string());
        for layer in &layers {
            let inside = |name: &str| name.strip_prefix(layer.as_str()).is_some_and(|rest| rest.starts_with('/'));
            let mut own: Vec<usize> = (0..values.len()).filter(|&i| inside(&self.weights()[i].name)).collect();
            // Keras reads trainable weights first.
            own.sort_by_key(|&i| !self.weights()[i].trainable);
            let names: Vec<String> = own.iter().map(|&i| self.weights()[i].name.clone()).collect();
            let group = format!("model_weights/{layer}");
            own.iter().zip(&names).for_each(|(&i, name)| file.dataset(&format!("{group}/{name}"), &values[i]));
            file.texts(&group, "weight_names", &names);
        }
        file.texts("model_weights", "layer_names", &layers);
        let Training { compiled, own, state } = training;
        if let Some(about) = self.about_with(own) {
            file.text("", "hubel", &json!({ "hubel": about }).to_string());
        }
        if !compiled.is_null() {
            let mut config = compiled.clone();
            config["optimizer_config"] = config["optimizer"].take();
            file.text("", "training_config", &config.to_string());
            let names: Vec<String> =
                (0..state.len()).map(|i| format!("{}{i}", if i == 0 { "iteration_" } else { "variable_" })).collect();
            names.iter().zip(state).for_each(|(name, t)| file.dataset(&format!("optimizer_weights/{name}"), t));
            file.texts("optimizer_weights", "weight_names", &names);
        }
        Ok(file.finish()?)
    }
}

/// Returns the layer whose weights are below a layer's path.
fn wrapped_or(layer: &Arc<dyn Layer>) -> &dyn Layer {
    layer.wrapped().map_or(&**layer, |(_, inner)| &**inner)
}

/// Writes a layer's own weights in order, and those of its parts where Keras keeps them.
fn write_layer<'t>(key: &str, layer: &dyn Layer, own: &[(&str, &'t HostTensor)], file: &mut Writer<'t>) {
    let (kind, cells) = (layer.kind(), stacked_cells(layer));
    let mut counts: HashMap<String, usize> = HashMap::new();
    let first = own.first().and_then(|(name, _)| name.split('/').next()).unwrap_or_default();
    for (name, tensor) in own {
        let parts: Vec<&str> = name.split('/').collect();
        let mut place: Vec<&str> = Vec::new();
        for part in &parts[..parts.len() - 1] {
            place.push(match (kind, *part) {
                ("Bidirectional", part) if part == first => "forward_layer",
                ("MultiHeadAttention", "query") => "query_dense",
                ("MultiHeadAttention", "key") => "key_dense",
                ("MultiHeadAttention", "value") => "value_dense",
                ("MultiHeadAttention", _) => "output_dense",
                ("RNN", _) if place.is_empty() && parts.len() > 2 => "cell/cells",
                ("RNN", part) if parts.len() > 2 => {
                    cells.iter().find(|(name, _)| name == part).map_or(part, |(_, key)| key.as_str())
                }
                ("RNN", _) | (_, "lstm_cell" | "gru_cell" | "simple_rnn_cell" | "conv_lstm_cell") => "cell",
                ("Bidirectional", _) => "backward_layer",
                _ => continue,
            });
        }
        place.dedup();
        let group = [&[key], &place[..], &["vars"]].concat().join("/");
        let number = counts.entry(group.clone()).or_insert(0);
        file.dataset(&format!("{group}/{number}"), tensor);
        *number += 1;
    }
}
