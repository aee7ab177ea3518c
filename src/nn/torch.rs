//! Weights in PyTorch's names and orders.

use super::{
    LayerError, Model,
    models::torchvision_name,
    torch_order::{Input, orders},
    weights::{LayerWeights, error},
};
use crate::tensor::HostTensor;
use std::collections::HashMap;

impl Model {
    pub(super) fn named_by_torch(
        &self,
        tensors: Vec<(String, HostTensor)>,
    ) -> Result<Vec<(String, HostTensor)>, LayerError> {
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
        let orders = orders(self);
        for (k, (module, parts)) in modules.into_iter().enumerate() {
            let named = torchvision_name(&module).and_then(|name| indices.get(&*name));
            let layer = &layers[named.copied().unwrap_or(k)];
            out.extend(self.module(layer, orders.get(layer.path), &module, parts)?);
        }
        Ok(out)
    }

    /// Returns one layer's weights from those of a module.
    fn module(
        &self,
        layer: &LayerWeights,
        input: Option<&Input>,
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
                ("kernel", 2) => tensor.transposed(&[1, 0]),
                _ => tensor,
            };
            if tensor.shape() != weight.shape {
                return Err(missing(format!("{:?}", tensor.shape())));
            }
            out.push((weight.name.clone(), self.reordered(layer, input, own, tensor)?));
        }
        match parts.keys().next() {
            None => Ok(out),
            Some(part) => {
                let wanted = format!("only the weights of `{}`", layer.path);
                Err(error(layer.path, wanted, format!("`{module}.{part}` too"), "build the same model as the file's"))
            }
        }
    }

    /// Returns a weight with its rows in the order of the features that the layer gets here.
    fn reordered(
        &self,
        layer: &LayerWeights,
        input: Option<&Input>,
        own: &str,
        tensor: HostTensor,
    ) -> Result<HostTensor, LayerError> {
        let (Some(input), rank) = (input, tensor.shape().len()) else { return Ok(tensor) };
        let by_features = (own == "kernel" && rank == 2) || (own != "kernel" && own != "bias" && rank == 1);
        if !by_features {
            return Ok(tensor);
        }
        let rows = match input.order() {
            Ok(None) => return Ok(tensor),
            Ok(Some(rows)) if rows.len() == tensor.shape()[0] => rows,
            _ => {
                let wanted = "a path from the last convolution on which the order of features can be followed";
                let advice = "flatten the map itself, or save the weights under the names and in the order of Keras";
                return Err(error(layer.path, wanted.into(), format!("{input}"), advice));
            }
        };
        let (shape, width) = (tensor.shape().to_vec(), tensor.shape()[1..].iter().product::<usize>());
        let values = tensor.to_f32();
        let sorted = rows.iter().flat_map(|&row| &values[row as usize * width..][..width]).copied().collect();
        HostTensor::f32(shape, sorted).map_err(|e| error(layer.path, "a whole tensor".into(), e.to_string(), ""))
    }
}
