use super::layer;
use crate::{
    graph::{OpError, Value},
    nn::{
        IntoLayer, Layer, Mode, Scope,
        config::{Reading, layer_to_json, take_list},
        graph_config::layer_from_json,
        keras_object::described,
        model::as_model,
        names::snake_case,
    },
    ops::Part,
    tensor::Shape,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::Error as _};
use serde_json::json;
use std::{collections::HashMap, sync::Arc};

/// A layer inside a layer.
#[derive(Debug, Clone)]
pub struct Inner(Arc<dyn Layer>);

impl Inner {
    fn name(&self) -> String {
        self.0.given_name().map_or_else(|| snake_case(self.0.kind()), str::to_owned)
    }

    /// Returns the layer with `change` applied to its configuration.
    fn changed(&self, change: impl FnOnce(&mut serde_json::Value)) -> Result<Self, OpError> {
        let error = |e: crate::nn::LayerError| OpError::new(&e.kind, e.wanted, e.got, e.advice);
        let mut object = layer_to_json(self.0.as_ref(), &self.name(), self.0.trainable()).map_err(error)?;
        change(&mut object["config"]);
        Ok(Inner(layer_from_json(object, Reading::default()).map_err(error)?))
    }
}

impl Serialize for Inner {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        layer_to_json(self.0.as_ref(), &self.name(), self.0.trainable()).map_err(S::Error::custom)?.serialize(s)
    }
}

impl<'de> Deserialize<'de> for Inner {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let object = serde_json::Value::deserialize(d)?;
        Ok(Inner(layer_from_json(object, Reading::default()).map_err(D::Error::custom)?))
    }
}

fn nothing() -> Inner {
    Inner(super::Activation::Linear.into_layer())
}

layer! {
    /// A layer applied to each timestep with the same weights (Keras `TimeDistributed`): (N, T, …) → (N, T, …).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([10, 8, 8, 3]).add(TimeDistributed::new(Conv2D::new(4, 3))).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 10, 6, 6, 4)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct TimeDistributed as "TimeDistributed" {
        new layer: Inner = nothing(),
    }
}

impl TimeDistributed {
    /// Returns a layer that applies another to each timestep.
    pub fn new(layer: impl IntoLayer) -> Self {
        TimeDistributed { layer: Inner(layer.into_layer()), ..Self::default() }
    }

    fn wrapped_layer(&self) -> Option<(String, &Arc<dyn Layer>)> {
        Some((self.layer.name(), &self.layer.0))
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let shape = scope.graph.shape(inputs[0]).clone();
        if shape.rank() < 3 {
            let advice = "give samples a time axis first";
            return Err(OpError::new("time_distributed", "an input of shape (N, timesteps, …)", shape, advice));
        }
        let steps = shape.dims()[1];
        if scope.mode == Mode::Training && takes_batch_statistics(&*self.layer.0) {
            return self.each_step(scope, inputs[0]);
        }
        let x = scope.graph.reshape(inputs[0], Shape::batched(steps, &shape.dims()[2..]))?;
        let outputs = scope.child(&self.layer.name(), self.layer.0.as_ref(), &[x])?;
        (outputs.into_iter())
            .map(|y| {
                let row: Vec<usize> = [steps].into_iter().chain(scope.graph.shape(y).dims()[1..].to_vec()).collect();
                scope.graph.reshape(y, shape.with_row(&row))
            })
            .collect()
    }

    /// Applies the layer to one timestep after another, whose batches have statistics of their own.
    fn each_step(&self, scope: &mut Scope, x: Value) -> Result<Vec<Value>, OpError> {
        let dims = scope.graph.shape(x).dims().to_vec();
        let mut outputs: Vec<Vec<Value>> = Vec::new();
        for t in 0..dims[1] {
            let step = scope.graph.slice_axis(x, 1, Part::new(t, 1))?;
            let step = scope.graph.reshape(step, Shape::batched(1, &dims[2..]))?;
            let results = scope.child(&self.layer.name(), self.layer.0.as_ref(), &[step])?;
            outputs.resize(results.len(), Vec::new());
            for (all, y) in outputs.iter_mut().zip(results) {
                let row: Vec<usize> = [1].into_iter().chain(scope.graph.shape(y).dims()[1..].to_vec()).collect();
                let shape = scope.graph.shape(y).with_row(&row);
                all.push(scope.graph.reshape(y, shape)?);
            }
        }
        outputs.into_iter().map(|steps| scope.graph.concat(&steps, 1)).collect()
    }
}

/// Returns whether a layer computes with statistics of its batch in training.
fn takes_batch_statistics(layer: &dyn Layer) -> bool {
    let inner = as_model(layer).map(|model| model.steps().any(|(_, layer, ..)| takes_batch_statistics(&**layer)));
    let wrapped = layer.wrapped().map(|(_, layer)| takes_batch_statistics(&**layer));
    layer.kind() == super::BatchNormalization::KIND || inner == Some(true) || wrapped == Some(true)
}

/// How the outputs of the two directions are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MergeMode {
    /// Their sum.
    Sum,
    /// Their product.
    Mul,
    /// Concatenated along the last axis.
    Concat,
    /// Their mean.
    Ave,
}

layer! {
    /// A recurrent layer and its copy that runs backwards (Schuster and Paliwal 1997; Keras `Bidirectional`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([20, 8]).add(Bidirectional::new(LSTM::new(16))).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 32)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct Bidirectional as "Bidirectional" {
        new layer: Inner = nothing(),
        new backward_layer: Option<Inner> = None,
        /// Sets how the two directions are merged; `None` returns both. [`Bidirectional::new`] sets `Concat`.
        into merge_mode: Option<MergeMode> = None,
    }
}

impl Bidirectional {
    /// Returns a layer that runs a recurrent layer in both directions.
    pub fn new(layer: impl IntoLayer) -> Self {
        let layer = Inner(layer.into_layer());
        let renamed = layer.changed(|config| {
            let name = format!("forward_{}", config["name"].as_str().unwrap_or_default());
            config["name"] = name.into();
        });
        // A layer without a configuration is refused when built.
        let layer = renamed.unwrap_or(layer);
        Bidirectional { layer, merge_mode: Some(MergeMode::Concat), ..Self::default() }
    }

    /// Sets another layer for the backward direction, which must have `go_backwards`. By default it is a copy of the
    /// first.
    pub fn backward_layer(mut self, layer: impl IntoLayer) -> Self {
        self.backward_layer = Some(Inner(layer.into_layer()));
        self
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let backward = match &self.backward_layer {
            Some(layer) => layer.clone(),
            None => self.layer.changed(|config| {
                let name = config["name"].as_str().unwrap_or_default();
                config["name"] = format!("backward_{}", name.strip_prefix("forward_").unwrap_or(name)).into();
                config["go_backwards"] = (config["go_backwards"] != true).into();
            })?,
        };
        // Initial states: those of the forward direction, then those of the backward one.
        let (x, states) = (inputs[0], &inputs[1..]);
        let halves = states.split_at(states.len() / 2);
        let mut run = |layer: &Inner, states: &[Value]| {
            let operands: Vec<Value> = [x].into_iter().chain(states.iter().copied()).collect();
            scope.child(&layer.name(), layer.0.as_ref(), &operands)
        };
        let there = run(&self.layer, halves.0)?;
        let mut back = run(&backward, halves.1)?;
        let g = &mut *scope.graph;
        let shape = g.shape(back[0]).clone();
        if let &[_, steps, _] = shape.dims() {
            back[0] = g.slice_axis(back[0], 1, Part { start: steps - 1, size: steps, step: -1 })?;
        }
        let mut results = match self.merge_mode {
            None => vec![there[0], back[0]],
            Some(MergeMode::Sum) => vec![g.add(there[0], back[0])?],
            Some(MergeMode::Mul) => vec![g.mul(there[0], back[0])?],
            Some(MergeMode::Concat) => vec![g.concat(&[there[0], back[0]], shape.rank() - 1)?],
            Some(MergeMode::Ave) => {
                let sum = g.add(there[0], back[0])?;
                vec![g.scale(sum, 0.5)?]
            }
        };
        results.extend(there[1..].iter().chain(&back[1..]));
        Ok(results)
    }
}

/// Recurrent layers that a file describes by their cells, `LSTM` by `LSTMCell`: one, or several in `StackedRNNCells`.
#[derive(Debug, Clone)]
pub struct OfCell {
    layers: Vec<Inner>,
    /// The name of the stack, if there is one.
    stack: Option<String>,
}

fn cell_to_json(layer: &Inner) -> serde_json::Result<serde_json::Value> {
    let mut object = serde_json::to_value(layer)?;
    object["class_name"] = format!("{}Cell", layer.0.kind()).into();
    if let Some(config) = object["config"].as_object_mut() {
        config.retain(|key, _| !key.starts_with("return_") && key != "go_backwards" && key != "zero_output_for_mask");
    }
    Ok(object)
}

fn cell_from_json(mut object: serde_json::Value) -> Result<Inner, String> {
    let class = object["class_name"].as_str().unwrap_or_default();
    let Some(layer) = ["LSTM", "GRU", "SimpleRNN"].iter().find(|layer| format!("{layer}Cell") == class) else {
        return Err(format!("the cell `{class}`, wanted LSTMCell, GRUCell, SimpleRNNCell or a stack of them"));
    };
    object["class_name"] = (*layer).into();
    layer_from_json(object, Reading::default()).map(Inner).map_err(|e| e.to_string())
}

impl Serialize for OfCell {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let cells = self.layers.iter().map(cell_to_json).collect::<Result<Vec<_>, _>>().map_err(S::Error::custom)?;
        match (&self.stack, &cells[..]) {
            (None, [cell]) => cell.serialize(s),
            (name, _) => described("keras.layers", STACK, json!({ "name": name, "cells": cells })).serialize(s),
        }
    }
}

const STACK: &str = "StackedRNNCells";

impl<'de> Deserialize<'de> for OfCell {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let mut object = serde_json::Value::deserialize(d)?;
        let (cells, stack) = match object["class_name"] == STACK {
            true => {
                let name = object["config"]["name"].as_str().unwrap_or("stacked_rnn_cells").to_owned();
                (take_list(&mut object["config"], "cells").map_err(D::Error::custom)?, Some(name))
            }
            false => (vec![object], None),
        };
        let layers = cells.into_iter().map(cell_from_json).collect::<Result<Vec<_>, _>>().map_err(D::Error::custom)?;
        if layers.is_empty() {
            return Err(D::Error::custom("no cells, wanted at least one"));
        }
        Ok(OfCell { layers, stack })
    }
}

layer! {
    /// A recurrent layer given by its cell (Keras `RNN`): the same as `LSTM`, `GRU` or `SimpleRNN`; or by several,
    /// each of which takes the states of the one before (Keras `StackedRNNCells`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([20, 8]).add(RNN::new(LSTM::new(16))).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 16)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct RNN as "RNN" {
        new cell: OfCell = OfCell { layers: vec![nothing()], stack: None },
        /// Sets whether the output is the state at all timesteps (N, T, units), or only the last one.
        set return_sequences: bool = false,
        /// Sets whether the last states are further outputs.
        set return_state: bool = false,
        /// Sets whether the layer runs from the last timestep to the first.
        set go_backwards: bool = false,
        /// Sets whether the output is zeros where the input is masked, instead of the output before.
        set zero_output_for_mask: bool = false,
    }
}

impl RNN {
    /// Returns the layer of a recurrent layer's cell.
    pub fn new(layer: impl IntoLayer) -> Self {
        RNN { cell: OfCell { layers: vec![Inner(layer.into_layer())], stack: None }, ..Self::default() }
    }

    /// Returns the layer of the cells of several recurrent layers, the first of which takes the input.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let stack = RNN::stacked([LSTM::new(16).into_layer(), GRU::new(8).into_layer()]);
    /// let model = Sequential::new([20, 8]).add(stack).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 8)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn stacked(layers: impl IntoIterator<Item = Arc<dyn Layer>>) -> Self {
        let layers = layers.into_iter().map(Inner).collect();
        RNN { cell: OfCell { layers, stack: Some("stacked_rnn_cells".into()) }, ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let (count, mut states) = (self.cell.layers.len(), &inputs[1..]);
        let (mut x, mut last_states) = (inputs[0], Vec::new());
        for (i, cell) in self.cell.layers.iter().enumerate() {
            let last = i + 1 == count;
            let layer = cell.changed(|config| {
                let name = config["name"].as_str().unwrap_or_default();
                config["cell_name"] =
                    self.cell.stack.as_ref().map_or(name.to_owned(), |s| format!("{s}/{name}")).into();
                config["return_sequences"] = (self.return_sequences || !last).into();
                config["return_state"] = (self.return_state).into();
                config["go_backwards"] = (self.go_backwards && i == 0).into();
                config["zero_output_for_mask"] = (self.zero_output_for_mask && last).into();
            })?;
            let own = if cell.0.kind() == super::LSTM::KIND { 2 } else { 1 };
            let (first, rest) = states.split_at_checked(own).unwrap_or((states, &[]));
            states = rest;
            let mut results = layer.0.build(scope, &[&[x], first].concat())?;
            if let (Some(mask), false) = (scope.mask(x), last) {
                let steps = scope.graph.shape(mask).last();
                let mirrored = Part { start: steps - 1, size: steps, step: -1 };
                let turned = self.go_backwards && i == 0;
                let mask = if turned { scope.graph.slice_axis(mask, 1, mirrored)? } else { mask };
                scope.set_mask(results[0], mask);
            }
            x = results.remove(0);
            last_states.extend(results);
        }
        if !states.is_empty() {
            let wanted = "a sequence, alone or with the initial states of all cells";
            return Err(OpError::new("rnn", wanted, format!("{} more", states.len()), "pass all states (N, units)"));
        }
        Ok([&[x], &last_states[..]].concat())
    }
}

layer! {
    /// Divides in training another layer's kernel, or its embeddings, by an estimate of its largest singular value
    /// (Miyato et al. 2018; Keras `SpectralNormalization`).
    ///
    /// As Keras does on JAX, the weight itself is not divided: predictions use it as the optimiser left it.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([8, 8, 3]).add(SpectralNormalization::new(Conv2D::new(4, 3))).build()?;
    /// assert_eq!(model.weight_names().last(), Some(&"spectral_normalization/vector_u"));
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct SpectralNormalization as "SpectralNormalization" {
        new layer: Inner = nothing(),
        /// Sets how often the estimate is improved in each step.
        set power_iterations: usize = 1,
    }
}

impl SpectralNormalization {
    /// Returns a layer that divides the kernel of another.
    pub fn new(layer: impl IntoLayer) -> Self {
        SpectralNormalization { layer: Inner(layer.into_layer()), ..Self::default() }
    }

    fn wrapped_layer(&self) -> Option<(String, &Arc<dyn Layer>)> {
        Some((self.layer.name(), &self.layer.0))
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        if !(1..=100).contains(&self.power_iterations) {
            let (wanted, got) = ("1 to 100 iterations in each step", self.power_iterations);
            return Err(OpError::new("spectral_normalization", wanted, got, "leave power_iterations out"));
        }
        let outputs = scope.child_of_norm(&self.layer.name(), self.layer.0.as_ref(), inputs, self.power_iterations)?;
        outputs.ok_or_else(|| {
            let advice = "wrap a convolution, a dense layer or an embedding";
            OpError::new("spectral_normalization", "a layer with a kernel or embeddings", self.layer.0.kind(), advice)
        })
    }
}

/// Returns the cells of an `RNN` of several: their names, and what files call them, which number the classes.
pub(in crate::nn) fn stacked_cells(layer: &dyn Layer) -> Vec<(String, String)> {
    if layer.kind() != RNN::KIND {
        return Vec::new();
    }
    let mut counts: HashMap<String, usize> = HashMap::new();
    let config = layer.config();
    let cells = config["cell"]["config"]["cells"].as_array().map(Vec::as_slice).unwrap_or_default();
    let named = cells.iter().map(|cell| {
        let class = snake_case(cell["class_name"].as_str().unwrap_or_default());
        let count = counts.entry(class.clone()).or_insert(0);
        *count += 1;
        let key = if *count == 1 { class } else { format!("{class}_{}", *count - 1) };
        (cell["config"]["name"].as_str().unwrap_or_default().to_owned(), key)
    });
    named.collect()
}
