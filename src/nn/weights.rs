//! Weights from files whose names differ from the model's.

use super::model::as_model;
use super::{LayerError, Model, models::torchvision_name};
use crate::{
    Error,
    io::{Flaw, FormatError, weights},
    tensor::HostTensor,
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Bound,
    path::Path,
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
struct LayerWeights<'m> {
    path: &'m str,
    weights: Vec<usize>,
}

/// The classifiers' names in torchvision's and timm's networks.
const CLASSIFIERS: [&str; 3] = ["classifier", "fc", "head"];

/// Tensors by the layer that a file names, with their numbers; each layer with its position in the file.
type Groups = BTreeMap<String, (usize, Vec<(usize, HostTensor)>)>;

fn error(layer: &str, wanted: String, got: String, advice: &str) -> LayerError {
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
        let path = path.as_ref();
        let (file, budget) = weights::open_drawn(path, 0)?;
        let Some(config) = file.config else {
            let advice = "build the model, then load these weights into it; in Keras, `model.save` writes both";
            let error = FormatError::new(Flaw::Missing, "the file", "a model's configuration", "weights alone");
            return Err(error.of(path).advise(advice).into());
        };
        let mut model = Model::from_json_within(&config, &budget)?;
        model.set_weights_from(file.tensors)?;
        Ok(model)
    }

    /// Returns the layers that have weights, in order.
    fn by_layer(&self) -> Vec<LayerWeights<'_>> {
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
            let named = self.named_by_numbers(tensors)?;
            return self.set_weights(named);
        }
        let torch = tensors.iter().any(|(name, _)| name.ends_with(".weight"));
        let names: HashSet<&str> = self.weight_names().into_iter().collect();
        if !torch || tensors.iter().all(|(name, _)| names.contains(name.as_str())) {
            return self.set_weights(tensors);
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

    /// Returns tensors that a file numbers within layers, by name or by class, under the weights' names.
    fn named_by_numbers(&self, tensors: Vec<(String, HostTensor)>) -> Result<Vec<(String, HostTensor)>, LayerError> {
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
            Some(root) => self.by_class(root, &mut groups, &mut out)?,
            None => {
                let mut keys: Vec<(usize, String)> = groups.iter().map(|(key, g)| (g.0, key.clone())).collect();
                keys.sort_unstable();
                let weights = self.weights_by_name();
                for (_, key) in keys {
                    self.fill(&key, &key, &weights, &mut groups, &mut out)?;
                }
            }
        }
        match groups.iter().min_by_key(|(_, g)| g.0) {
            None => Ok(out),
            Some((key, _)) => {
                let advice = "use weights of the same network";
                Err(error(key, "layers of this model".into(), format!("`{key}`, which it does not have"), advice))
            }
        }
    }

    /// Returns the indices of the weights by name.
    fn weights_by_name(&self) -> BTreeMap<&str, usize> {
        self.weights().iter().enumerate().map(|(i, w)| (w.name.as_str(), i)).collect()
    }

    /// Assigns the weights below `root`: layers of each class are numbered in Keras's order.
    fn by_class(&self, root: &str, groups: &mut Groups, out: &mut Vec<(String, HostTensor)>) -> Result<(), LayerError> {
        let mut counts: HashMap<String, usize> = HashMap::new();
        let ranks = self.ranks();
        let weights = self.weights_by_name();
        let mut names = self.layer_names();
        names.sort_by_key(|name| ranks.get(name).copied());
        for name in names {
            let layer = self.layer(name)?;
            let classes = match as_model(&**layer) {
                // Both are functional models in Hubel.
                Some(_) => vec!["functional".to_owned(), "sequential".into(), "model".into()],
                None => vec![super::names::snake_case(layer.kind())],
            };
            let numbered = |class: &String| match counts.get(class) {
                None | Some(0) => class.clone(),
                Some(n) => format!("{class}_{n}"),
            };
            let there = |class: &&String| {
                let key = format!("{root}{}/", numbered(class));
                groups.range(key.clone()..).next().is_some_and(|(first, _)| first.starts_with(&key))
            };
            let class = classes.iter().find(there).unwrap_or(&classes[0]).clone();
            let numbered = numbered(&class);
            *counts.entry(class).or_insert(0) += 1;
            let key = format!("{root}{numbered}");
            match as_model(&**layer) {
                Some(model) => {
                    let mut inner = Vec::new();
                    model.by_class(&format!("{key}/layers/"), groups, &mut inner)?;
                    out.extend(inner.into_iter().map(|(weight, t)| (format!("{name}/{weight}"), t)));
                }
                None => self.fill(&key, name, &weights, groups, out)?,
            }
        }
        Ok(())
    }

    /// Assigns the groups of `key` and below to the weights of the layer at `path`, in order.
    fn fill(
        &self,
        key: &str,
        path: &str,
        weights: &BTreeMap<&str, usize>,
        groups: &mut Groups,
        out: &mut Vec<(String, HostTensor)>,
    ) -> Result<(), LayerError> {
        // A file lists the directions of a bidirectional layer in alphabetical order.
        let order = |(key, g): (&String, &(usize, _))| (key.contains("/backward_layer"), g.0, key.clone());
        let mut own: Vec<_> = keys_below(groups, key).map(order).collect();
        own.sort_unstable();
        let tensors = own.iter().filter_map(|(.., key)| groups.remove(key)).flat_map(|g| g.1).map(|(_, t)| t);
        let tensors: Vec<HostTensor> = tensors.collect();
        let mut indices: Vec<usize> = keys_below(weights, path).map(|(_, &i)| i).collect();
        indices.sort_unstable();
        let mut weights: Vec<&super::Weight> = indices.into_iter().map(|i| &self.weights()[i]).collect();
        if self.layer(path).is_ok_and(|l| as_model(&**l).is_some()) {
            // A model's trainable weights come first in files of Keras 2.
            weights.sort_by_key(|w| !w.trainable);
        }
        let whole = weights.len() == tensors.len() && weights.iter().zip(&tensors).all(|(w, t)| w.shape == t.shape());
        if !whole {
            let wanted: Vec<String> = weights.iter().map(|w| format!("{:?}", w.shape)).collect();
            let got: Vec<String> = tensors.iter().map(|t| format!("{:?}", t.shape())).collect();
            let advice = "build the model with the same options as the file's";
            return Err(error(path, wanted.join(", "), got.join(", "), advice));
        }
        out.extend(weights.into_iter().map(|w| w.name.clone()).zip(tensors));
        Ok(())
    }

    fn named_by_torch(&self, tensors: Vec<(String, HostTensor)>) -> Result<Vec<(String, HostTensor)>, LayerError> {
        let mut modules: Vec<(String, HashMap<String, HostTensor>)> = Vec::new();
        for (name, tensor) in tensors {
            let (module, part) = name.rsplit_once('.').unwrap_or(("", &name));
            if part == "num_batches_tracked" {
                continue;
            }
            match modules.last_mut().filter(|m| m.0 == module) {
                Some((_, parts)) => parts.insert(part.to_owned(), tensor),
                None => {
                    modules.push((module.to_owned(), HashMap::from([(part.to_owned(), tensor)])));
                    None
                }
            };
        }
        let layers = self.by_layer();
        if modules.len() != layers.len() {
            let (wanted, got) =
                (format!("weights of {} layers", layers.len()), format!("of {} modules", modules.len()));
            let advice = "build the model with the same options as the file's: classes, top, stride_in_1x1(false)";
            return Err(error("model", wanted, got, advice));
        }
        let mut out = Vec::new();
        let indices: HashMap<&str, usize> = layers.iter().enumerate().map(|(i, s)| (s.path, i)).collect();
        let rows: HashMap<&str, usize> = self.rows().iter().enumerate().map(|(i, r)| (r.name.as_str(), i)).collect();
        for (k, (module, parts)) in modules.into_iter().enumerate() {
            let named = torchvision_name(&module).and_then(|name| indices.get(&*name));
            let layer = &layers[named.copied().unwrap_or(k)];
            let flattened = rows.get(layer.path).and_then(|&row| self.flattened(row));
            out.extend(self.module(layer, flattened, &module, parts)?);
        }
        Ok(out)
    }

    /// Returns height, width and channels of the map that is flattened before a row's layer, if any.
    fn flattened(&self, row: usize) -> Option<[usize; 3]> {
        let before = &self.rows()[..row];
        let flatten = before.iter().rposition(|r| !["Dropout", "Activation", "ReLU"].contains(&r.kind))?;
        if before[flatten].kind != "Flatten" {
            return None;
        }
        before[..flatten].last()?.output.dims().get(1..)?.try_into().ok()
    }

    /// Returns one layer's weights from those of a module.
    fn module(
        &self,
        layer: &LayerWeights,
        flattened: Option<[usize; 3]>,
        module: &str,
        mut parts: HashMap<String, HostTensor>,
    ) -> Result<Vec<(String, HostTensor)>, LayerError> {
        let mut out = Vec::new();
        for &i in &layer.weights {
            let weight = &self.weights()[i];
            let own = weight.name.rsplit('/').next().unwrap_or_default();
            let part = match own {
                "beta" => "bias",
                "moving_mean" => "running_mean",
                "moving_variance" => "running_var",
                "bias" => "bias",
                _ => "weight",
            };
            let missing = |got: String| {
                let wanted = format!("`{}` {:?} as `{module}.{part}`", weight.name, weight.shape);
                error(layer.path, wanted, got, "use weights of the same network, or rename them to the model's names")
            };
            let Some(tensor) = parts.remove(part) else {
                let mut names: Vec<&String> = parts.keys().collect();
                names.sort();
                return Err(missing(format!("{names:?}")));
            };
            let tensor = match (own, tensor.shape().len()) {
                (_, 4) => match (tensor.shape(), &weight.shape[..]) {
                    // A depthwise convolution's (channels · multiplier, 1, kh, kw): the multiplier varies fastest.
                    (&[all, 1, ..], &[kh, kw, c, m]) if c > 1 && all == c * m => {
                        let got = format!("{:?}", tensor.shape());
                        let grouped = tensor.reshape([c, m, kh, kw]).map_err(|_| missing(got))?;
                        grouped.transposed(&[2, 3, 0, 1])
                    }
                    _ => tensor.transposed(&[2, 3, 1, 0]),
                },
                ("kernel", 3) => tensor.transposed(&[2, 1, 0]),
                ("kernel", 2) => match flattened {
                    // PyTorch flattens (c, h, w).
                    Some([h, w, c]) if tensor.shape() == [weight.shape[1], c * h * w] => {
                        let units = weight.shape[1];
                        let got = format!("{:?}", tensor.shape());
                        let map = tensor.reshape([units, c, h, w]).map_err(|_| missing(got.clone()))?;
                        map.transposed(&[2, 3, 1, 0]).reshape([h * w * c, units]).map_err(|_| missing(got))?
                    }
                    _ => tensor.transposed(&[1, 0]),
                },
                _ => tensor,
            };
            if tensor.shape() != weight.shape {
                return Err(missing(format!("{:?}", tensor.shape())));
            }
            out.push((weight.name.clone(), tensor));
        }
        match parts.keys().next() {
            None => Ok(out),
            Some(part) => {
                let wanted = format!("only the weights of `{}`", layer.path);
                Err(error(layer.path, wanted, format!("`{module}.{part}` too"), "build the same model as the file's"))
            }
        }
    }
}
