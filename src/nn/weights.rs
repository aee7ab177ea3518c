//! Weights from files whose names differ from the model's.

use super::about::{About, Training};
use super::layer::VECTOR;
use super::layers::stacked_cells;
use super::{KerasOptions, Layer, LayerError, Model};
use super::{model::as_model, operation::as_operation};
use crate::{
    Error,
    io::{Flaw, FormatError, weights},
    tensor::{DType, HostTensor},
};
use serde_json::Value as Json;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Bound,
    path::Path,
    sync::Arc,
};

/// Returns the keys at a path or below it.
fn keys_below<'m, K: Ord + std::borrow::Borrow<str>, V>(
    map: &'m BTreeMap<K, V>,
    path: &str,
) -> impl Iterator<Item = (&'m K, &'m V)> + use<'m, K, V> {
    // `0` comes after `/`.
    let (first, end) = (format!("{path}/"), format!("{path}0"));
    let inside = map.range::<str, _>((Bound::Included(first.as_str()), Bound::Excluded(end.as_str())));
    map.get_key_value(path).into_iter().chain(inside)
}

/// Returns whether a name is a path or below it.
pub(crate) fn below(name: &str, path: &str) -> bool {
    name.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The tensor that marks a trainer's checkpoint: sums of its loss and metrics.
pub(crate) const CHECKPOINT_SUMS: &str = "metrics";

/// The weights of one layer of a model: its path, and indices of its weights.
pub(super) struct LayerWeights<'m> {
    pub path: &'m str,
    pub weights: Vec<usize>,
}

/// The classifiers' names in torchvision's and timm's networks.
const CLASSIFIERS: [&str; 3] = ["classifier", "fc", "head"];

/// Returns a layer's weights with those of Keras's int8 quantisation as numbers: the first over its scales, the last.
fn dequantized(mut tensors: Vec<HostTensor>) -> Vec<HostTensor> {
    let (Some(first), Some(scales)) = (tensors.first(), tensors.last()) else { return tensors };
    let (shape, n) = (first.shape().to_vec(), scales.to_f32().len());
    if first.dtype() != DType::I32 || scales.dtype() != DType::F32 || tensors.len() < 2 || scales.shape().len() != 1 {
        return tensors;
    }
    // A kernel has a scale for each column, a table of embeddings for each row.
    let (columns, scales) = (shape.last().copied().unwrap_or(1), scales.to_f32());
    let scale = |i: usize| if n == columns { scales[i % n] } else { scales[i / columns.max(1)] };
    if shape.len() != 2 || (n != columns && n != shape[0]) {
        return tensors;
    }
    let values = first.to_f32().iter().enumerate().map(|(i, q)| q / scale(i)).collect();
    if let Ok(whole) = HostTensor::f32(shape, values) {
        tensors.pop();
        tensors[0] = whole;
    }
    tensors
}

/// Tensors by the layer that a file names, with their numbers; each layer with its position in the file.
type Groups = BTreeMap<String, (usize, Vec<(usize, HostTensor)>)>;

pub(super) fn error(layer: &str, wanted: String, got: String, advice: &str) -> LayerError {
    LayerError { layer: layer.into(), kind: "weights".into(), wanted, got, advice: advice.into() }
}

impl Model {
    /// Loads weights from a file: safetensors, .npz, a Keras file, PyTorch's .pth, TensorFlow.js's model.json.
    ///
    /// Names are the model's own, Keras's or PyTorch's; see [`Model::set_weights_from`]. The format is detected from
    /// the contents. Memory and work are bounded by the file's size ([`crate::io::Budget`]); [`weights::open_within`]
    /// raises the bound.
    pub fn load_weights(&mut self, path: impl AsRef<Path>) -> Result<(), Error> {
        Ok(self.set_weights_from(weights::open(path)?.tensors)?)
    }

    /// Loads those weights of a file that this model has too, and returns their names; the others keep their values
    /// (Keras `load_weights` with `skip_mismatch`).
    ///
    /// Layers are found by name, in a `.weights.h5` file by class and order. A layer of other shapes is left out; an error
    /// if none is left.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let folder = temp_dir::TempDir::new()?;
    /// let network = |classes| {
    ///     Sequential::new([4]).add(Dense::new(8).name("base")).add(Dense::new(classes).name("head")).build()
    /// };
    /// network(10)?.save(folder.path().join("ten.keras"))?;
    /// let loaded = network(3)?.load_weights_by_name(folder.path().join("ten.keras"))?;
    /// assert_eq!(loaded, ["base/kernel", "base/bias"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn load_weights_by_name(&mut self, path: impl AsRef<Path>) -> Result<Vec<String>, Error> {
        let path = path.as_ref();
        let weights::Contents { config, mut tensors, .. } = weights::open(path)?;
        let got: Vec<String> = tensors.iter().take(3).map(|(name, t)| format!("`{name}` {:?}", t.shape())).collect();
        let any = |is: &dyn Fn(&str) -> bool| tensors.iter().any(|(name, _)| is(name));
        if config.is_some() && any(&|name| name.starts_with("layers/")) {
            // Such a file numbers the layers, and its configuration names them.
            let file = Self::from_keras(path)?;
            tensors = file.weights().iter().map(|w| (w.name.clone(), file.initial_value(w, 0))).collect();
        } else if any(&|name| name.contains("/vars/")) {
            tensors = self.named_by_numbers(tensors, true)?;
        } else if any(&|name| name.ends_with(".weight")) {
            tensors = self.named_by_torch(tensors)?;
        } else if !any(&|name| name == CHECKPOINT_SUMS) {
            let layer = |name: &str| name.rsplit('/').nth(1).map(str::to_owned);
            let layers: Vec<Option<String>> = tensors.iter().map(|(name, _)| layer(name)).collect();
            let renamed = self.named_by_ends(tensors).into_iter().zip(layers);
            // A layer of another name may end alike.
            tensors = renamed.filter(|((name, _), own)| layer(name) == *own).map(|(tensor, _)| tensor).collect();
        }
        let loaded = self.set_some(tensors);
        if loaded.is_empty() {
            let wanted: Vec<String> =
                self.weights().iter().take(3).map(|w| format!("`{}` {:?}", w.name, w.shape)).collect();
            let (wanted, got) = (format!("{}, …", wanted.join(", ")), format!("{}, …", got.join(", ")));
            return Err(error(self.name(), wanted, got, "name the layers as in the file").into());
        }
        Ok(loaded)
    }

    /// Loads weights from a file in memory; see [`Model::load_weights`].
    pub fn load_weights_from_bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        Ok(self.set_weights_from(weights::read(bytes)?.tensors)?)
    }

    /// Returns the model that a file describes, with its weights: .keras, .h5 or TensorFlow.js's model.json.
    ///
    /// ```no_run
    /// let model = hubel::nn::Model::from_keras("flowers.keras")?;
    /// println!("{}", model.summary());
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn from_keras(path: impl AsRef<Path>) -> Result<Model, Error> {
        Self::from_keras_with(path, &KerasOptions::default())
    }

    /// [`Model::from_keras`] with what the file does not say: open extents, layers of the user's own classes.
    pub fn from_keras_with(path: impl AsRef<Path>, options: &KerasOptions) -> Result<Model, Error> {
        Ok(Self::from_file(path.as_ref(), options)?.0)
    }

    /// Returns everything that [`Model::save`] wrote: layers, weights, class names, preprocessing. The counterpart of
    /// [`Trainer::save`](crate::train::Trainer::save) is [`Trainer::load`](crate::train::Trainer::load).
    pub fn load(path: impl AsRef<Path>) -> Result<Model, Error> {
        Self::from_keras(path)
    }

    /// Returns the model of a file, with how it is trained but for the optimiser's tensors.
    pub(crate) fn from_file(path: &Path, options: &KerasOptions) -> Result<(Model, Training), Error> {
        let (file, budget) = weights::open_drawn(path, 0)?;
        let Some(config) = file.config else {
            let advice = "build the model, then load these weights into it; in Keras, `model.save` writes both";
            let error = FormatError::new(Flaw::Missing, "the file", "a model's configuration", "weights alone");
            return Err(error.of(path).advise(advice).into());
        };
        let mut model = Model::from_json_within(&config, file.keras_version.as_deref(), &budget, options)?;
        model.set_weights_from(file.tensors)?;
        let mut metadata: Json = file.metadata.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        model.set_about(About::from_metadata(&metadata));
        let mut config: Json = serde_json::from_str(&config).unwrap_or_default();
        let take = |value: Option<&mut Json>| value.map(Json::take).unwrap_or_default();
        let mut compiled = take(config.get_mut("compile_config"));
        if let Some(training) = file.training {
            compiled = serde_json::from_str(&training).unwrap_or_default();
            if let Some(object) = compiled.as_object_mut() {
                let optimizer = object.remove("optimizer_config").unwrap_or_default();
                object.insert("optimizer".into(), optimizer);
            }
        }
        let own = take(metadata.get_mut("hubel").and_then(|own| own.get_mut("training")));
        Ok((model, Training { compiled, own, state: Vec::new() }))
    }

    /// Returns the layers that have weights, in order.
    pub(super) fn by_layer(&self) -> Vec<LayerWeights<'_>> {
        let mut layers: Vec<LayerWeights> = Vec::new();
        let mut indices: HashMap<&str, usize> = HashMap::new();
        for (i, weight) in self.weights().iter().enumerate() {
            let path = weight.name.rsplit_once('/').map_or("", |(path, _)| path);
            let index = *indices.entry(path).or_insert(layers.len());
            match layers.get_mut(index) {
                Some(layer) => layer.weights.push(i),
                None => layers.push(LayerWeights { path, weights: vec![i] }),
            }
        }
        layers
    }

    /// Sets weights from a file's tensors under the model's own names (Keras's), or under PyTorch's, whose modules are
    /// in the order of the model's layers or named as in torchvision's ResNets.
    ///
    /// PyTorch's kernels are transposed from (out, in, kh, kw) to (kh, kw, in, out). Errors name the first weight that
    /// is missing, left over, or of another shape. From a trainer's checkpoint, only the weights are used.
    pub fn set_weights_from(&mut self, mut tensors: Vec<(String, HostTensor)>) -> Result<(), LayerError> {
        if tensors.iter().any(|(name, _)| name == CHECKPOINT_SUMS) {
            let own: HashSet<&str> = self.weight_names().into_iter().collect();
            tensors.retain(|(name, _)| own.contains(name.as_str()));
        }
        if tensors.iter().any(|(name, _)| name.contains("/vars/")) {
            let named = self.named_by_numbers(tensors, false)?;
            return self.set_weights(named);
        }
        let torch = tensors.iter().any(|(name, _)| name.ends_with(".weight"));
        let names: HashSet<&str> = self.weight_names().into_iter().collect();
        if tensors.iter().all(|(name, _)| names.contains(name.as_str())) {
            return self.set_weights(tensors);
        }
        if !torch {
            let renamed = self.named_by_ends(tensors);
            return self.set_weights(renamed);
        }
        let renamed = self.named_by_torch(tensors)?;
        self.set_weights(renamed)
    }

    /// Sets weights from a file of the same network with a classifier, which this model does not have.
    pub(super) fn load_base_weights(&mut self, path: impl AsRef<Path>) -> Result<(), Error> {
        let mut tensors = weights::open(path)?.tensors;
        let own: HashSet<&str> = self.weight_names().into_iter().collect();
        match tensors.iter().any(|(name, _)| own.contains(name.as_str())) {
            true => tensors.retain(|(name, _)| own.contains(name.as_str())),
            false => {
                tensors.retain(|(name, _)| !name.split('.').next().is_some_and(|part| CLASSIFIERS.contains(&part)));
            }
        }
        Ok(self.set_weights_from(tensors)?)
    }

    /// Returns tensors under the names of the weights that they can only mean: names of Keras 2 and TensorFlow.js have
    /// neither the models around a layer nor a recurrent layer's cell.
    fn named_by_ends(&self, tensors: Vec<(String, HostTensor)>) -> Vec<(String, HostTensor)> {
        let plain = |name: &str| -> Vec<String> {
            let own = name.split('/').filter(|part| !part.contains("_cell"));
            own.map(|part| if part == "depthwise_kernel" { "kernel" } else { part }.to_owned()).collect()
        };
        // Two weights that end alike leave none.
        let mut ends: HashMap<String, Option<&str>> = HashMap::new();
        for name in self.weight_names() {
            let parts = plain(name);
            for from in 0..parts.len() {
                let end = ends.entry(parts[from..].join("/")).or_insert(Some(name));
                *end = end.filter(|known| *known == name);
            }
            ends.insert(parts.join("_"), Some(name));
        }
        let whole: HashSet<&str> = self.weight_names().into_iter().collect();
        let renamed = |name: String| {
            let parts = plain(&name);
            let mut found = (0..parts.len()).filter_map(|from| ends.get(&parts[from..].join("/")).copied().flatten());
            let found = found.next().or_else(|| ends.get(&parts.join("_")).copied().flatten());
            found.filter(|_| !whole.contains(name.as_str())).map_or(name, str::to_owned)
        };
        tensors.into_iter().map(|(name, tensor)| (renamed(name), tensor)).collect()
    }

    /// Returns tensors that a file numbers within layers, by name or by class, under the weights' names; with `partly` without
    /// layers that differ.
    fn named_by_numbers(
        &self,
        tensors: Vec<(String, HostTensor)>,
        partly: bool,
    ) -> Result<Vec<(String, HostTensor)>, LayerError> {
        const ROOTS: [&str; 2] = ["layers/", "_layer_checkpoint_dependencies/"];
        let mut groups = Groups::new();
        for (name, tensor) in tensors {
            let Some((key, number)) = name.rsplit_once("/vars/") else { continue };
            let number = number.parse().unwrap_or(usize::MAX);
            let index = groups.len();
            groups.entry(key.to_owned()).or_insert((index, Vec::new())).1.push((number, tensor));
        }
        groups.values_mut().for_each(|g| g.1.sort_by_key(|(number, _)| *number));
        let mut out = Vec::new();
        match ROOTS.iter().find(|root| groups.keys().any(|key| key.starts_with(*root))) {
            Some(root) => self.by_class(root, &mut groups, &mut out, partly)?,
            None => {
                let mut keys: Vec<(usize, String)> = groups.iter().map(|(key, g)| (g.0, key.clone())).collect();
                keys.sort_unstable();
                let weights = self.weights_by_name();
                for (_, key) in keys {
                    // Keras 3 has no `/` in names, and models with them are renamed as they are read.
                    let path = if self.layer(&key).is_ok() { key.clone() } else { key.replace('/', "_") };
                    self.fill((&key, &path), &weights, &mut groups, &mut out, partly)?;
                }
            }
        }
        match groups.iter().min_by_key(|(_, g)| g.0) {
            Some((key, _)) if !partly => {
                let advice = "use weights of the same network";
                Err(error(key, "layers of this model".into(), format!("`{key}`, which it does not have"), advice))
            }
            _ => Ok(out),
        }
    }

    /// Returns the indices of the weights by name.
    fn weights_by_name(&self) -> BTreeMap<&str, usize> {
        self.weights().iter().enumerate().map(|(i, w)| (w.name.as_str(), i)).collect()
    }

    /// Assigns the weights below `root`: layers of each class are numbered in Keras's order.
    fn by_class(
        &self,
        root: &str,
        groups: &mut Groups,
        out: &mut Vec<(String, HostTensor)>,
        partly: bool,
    ) -> Result<(), LayerError> {
        let mut counts: HashMap<String, usize> = HashMap::new();
        let (ranks, classes) = (self.ranks(), self.classes_of_models(root, groups));
        let weights = self.weights_by_name();
        let mut names = self.layer_names();
        names.sort_by_key(|name| ranks.get(name).copied());
        for name in names {
            let layer = self.layer(name)?;
            let class = match as_model(&**layer) {
                Some(model) => classes[usize::from(model.is_sequential())].to_owned(),
                None if as_operation(&**layer).is_some() => continue,
                None => super::names::snake_case(layer.kind()),
            };
            let count = counts.entry(class.clone()).or_insert(0);
            let numbered = if *count == 0 { class } else { format!("{class}_{count}") };
            *count += 1;
            let key = format!("{root}{numbered}");
            if layer.kind() == super::SpectralNormalization::KIND {
                // Behind the wrapped layer's kernel, which is there too.
                let vector = groups.remove(&key).and_then(|mut g| g.1.pop());
                out.extend(vector.map(|(_, tensor)| (format!("{name}/{VECTOR}"), tensor)));
            }
            let (key, path, model) = match layer.wrapped() {
                Some(inner) => (format!("{key}/layer"), format!("{name}/{}", inner.0), as_model(&**inner.1)),
                None => (key, name.to_owned(), as_model(&**layer)),
            };
            match model {
                Some(model) => {
                    let mut inner = Vec::new();
                    model.by_class(&format!("{key}/layers/"), groups, &mut inner, partly)?;
                    out.extend(inner.into_iter().map(|(weight, t)| (format!("{path}/{weight}"), t)));
                }
                None => self.fill((&key, &path), &weights, groups, out, partly)?,
            }
        }
        Ok(())
    }

    /// Returns the class that a file gives to functional models and that it gives to Sequential ones, which it numbers
    /// apart. Where all models are of one class, here and in the file, the classes may differ.
    fn classes_of_models(&self, root: &str, groups: &Groups) -> [&'static str; 2] {
        const CLASSES: [&str; 3] = ["functional", "sequential", "model"];
        let models = || self.layer_names().into_iter().filter_map(|n| as_model(&**self.layer(n).ok()?));
        let there = |class: &&&str| {
            let key = format!("{root}{class}");
            let numbered = |rest: &str| rest.starts_with('/') || rest.starts_with('_');
            groups.range(key.clone()..).next().is_some_and(|(k, _)| k.strip_prefix(&key).is_some_and(numbered))
        };
        let found: Vec<&str> = CLASSES.iter().filter(there).copied().collect();
        let alike = models().all(|m| m.is_sequential()) || models().all(|m| !m.is_sequential());
        match found[..] {
            [one] if alike => [one; 2],
            _ => ["functional", "sequential"],
        }
    }

    /// Assigns the groups of `key` and below to the weights of the layer at `path`, in order; with `partly` nothing if they
    /// differ.
    fn fill(
        &self,
        (key, path): (&str, &str),
        weights: &BTreeMap<&str, usize>,
        groups: &mut Groups,
        out: &mut Vec<(String, HostTensor)>,
        partly: bool,
    ) -> Result<(), LayerError> {
        // A file lists the parts of a layer in alphabetical order.
        const PARTS: [&str; 6] =
            ["query_dense", "key_dense", "value_dense", "output_dense", "forward_layer", "backward_layer"];
        let cells = self.layer(path).map(|layer| stacked_cells(&**layer)).unwrap_or_default();
        let cell = |key: &str| cells.iter().position(|(_, cell)| key.ends_with(&format!("/cells/{cell}")));
        let part = |key: &str| PARTS.iter().position(|part| key.contains(part)).or_else(|| cell(key));
        let order = |(key, g): (&String, &(usize, _))| (part(key), g.0, key.clone());
        let mut own: Vec<_> = keys_below(groups, key).map(order).collect();
        own.sort_unstable();
        let tensors = own.iter().filter_map(|(.., key)| groups.remove(key)).flat_map(|g| g.1).map(|(_, t)| t);
        let tensors: Vec<HostTensor> = dequantized(tensors.collect());
        let mut indices: Vec<usize> = keys_below(weights, path).map(|(_, &i)| i).collect();
        indices.sort_unstable();
        let mut weights: Vec<&super::Weight> = indices.into_iter().map(|i| &self.weights()[i]).collect();
        let is_model = |layer: &Arc<dyn Layer>| {
            as_model(&**layer).is_some() || layer.wrapped().is_some_and(|(_, inner)| as_model(&**inner).is_some())
        };
        if self.layer(path).is_ok_and(is_model) {
            // A model's trainable weights come first in files of Keras 2.
            weights.sort_by_key(|w| !w.trainable);
        }
        let whole = weights.len() == tensors.len() && weights.iter().zip(&tensors).all(|(w, t)| w.shape == t.shape());
        if !whole && partly {
            return Ok(());
        }
        if !whole {
            let wanted: Vec<String> = weights.iter().map(|w| format!("{:?}", w.shape)).collect();
            let got: Vec<String> = tensors.iter().map(|t| format!("{:?}", t.shape())).collect();
            let advice = "build the model with the same options as the file's";
            return Err(error(path, wanted.join(", "), got.join(", "), advice));
        }
        out.extend(weights.into_iter().map(|w| w.name.clone()).zip(tensors));
        Ok(())
    }
}
