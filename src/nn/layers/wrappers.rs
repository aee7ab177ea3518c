use super::layer;
use crate::{
    graph::{OpError, Value},
    nn::{
        IntoLayer, Layer, Mode, Scope,
        config::{Reading, layer_to_json},
        graph_config::layer_from_json,
        model::as_model,
        names::snake_case,
    },
    ops::Part,
    tensor::Shape,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::Error as _};
use std::sync::Arc;

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

/// A recurrent layer that a file describes by its cell: `LSTM` by `LSTMCell`.
#[derive(Debug, Clone)]
pub struct OfCell(Inner);

impl Serialize for OfCell {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut object = serde_json::to_value(&self.0).map_err(S::Error::custom)?;
        object["class_name"] = format!("{}Cell", self.0.0.kind()).into();
        if let Some(config) = object["config"].as_object_mut() {
            config
                .retain(|key, _| !key.starts_with("return_") && key != "go_backwards" && key != "zero_output_for_mask");
        }
        object.serialize(s)
    }
}

impl<'de> Deserialize<'de> for OfCell {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let mut object = serde_json::Value::deserialize(d)?;
        let class = object["class_name"].as_str().unwrap_or_default();
        let Some(layer) = ["LSTM", "GRU", "SimpleRNN"].iter().find(|layer| format!("{layer}Cell") == class) else {
            let text = format!("the cell `{class}`, wanted LSTMCell, GRUCell or SimpleRNNCell; stack layers instead");
            return Err(D::Error::custom(text));
        };
        object["class_name"] = (*layer).into();
        Ok(OfCell(Inner(layer_from_json(object, Reading::default()).map_err(D::Error::custom)?)))
    }
}

layer! {
    /// A recurrent layer given by its cell (Keras `RNN`): the same as `LSTM`, `GRU` or `SimpleRNN`.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([20, 8]).add(RNN::new(LSTM::new(16))).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 16)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct RNN as "RNN" {
        new cell: OfCell = OfCell(nothing()),
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
        RNN { cell: OfCell(Inner(layer.into_layer())), ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let layer = self.cell.0.changed(|config| {
            config["cell_name"] = config["name"].clone();
            config["return_sequences"] = self.return_sequences.into();
            config["return_state"] = self.return_state.into();
            config["go_backwards"] = self.go_backwards.into();
            config["zero_output_for_mask"] = self.zero_output_for_mask.into();
        })?;
        layer.0.build(scope, inputs)
    }
}
