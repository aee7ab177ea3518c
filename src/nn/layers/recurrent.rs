use super::{dropout::share, layer};
use crate::{
    graph::{Initialize, OpError, Value},
    nn::{Activation, Constraint, Initializer, Mode, Regularizer, Scope, WeightOptions},
    ops::{Cell, CellActivation, CellKind, Part, Recurrent},
    tensor::Philox,
};

layer! {
    /// Fully connected recurrent layer (Keras `SimpleRNN`): h = tanh(x·kernel + h·recurrent_kernel + bias), over
    /// sequences (N, T, features).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([20, 8]).add(SimpleRNN::new(16)).build()?;
    /// assert_eq!(model.count_params(), 8 * 16 + 16 * 16 + 16);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct SimpleRNN as "SimpleRNN" {
        new units: usize = 1,
        /// Returns the layer with this function of the state, tanh by default.
        set activation: Activation = Activation::Tanh,
        /// Returns the layer with or without biases.
        set use_bias: bool = true,
        /// Returns the layer with these first values of the input's kernel.
        set kernel_initializer: Initializer = Initializer::GlorotUniform,
        /// Returns the layer with these first values of the state's kernel.
        set recurrent_initializer: Initializer = Initializer::Orthogonal { gain: 1.0 },
        /// Returns the layer with these first biases.
        set bias_initializer: Initializer = Initializer::Zeros,
        /// Returns the layer with a penalty for large values of the input's kernel.
        into kernel_regularizer: Option<Regularizer> = None,
        /// Returns the layer with a penalty for large values of the state's kernel.
        into recurrent_regularizer: Option<Regularizer> = None,
        /// Returns the layer with a penalty for large biases.
        into bias_regularizer: Option<Regularizer> = None,
        /// Returns the layer with a penalty for large outputs.
        into activity_regularizer: Option<Regularizer> = None,
        /// Returns the layer with a constraint of the input's kernel.
        into kernel_constraint: Option<Constraint> = None,
        /// Returns the layer with a constraint of the state's kernel.
        into recurrent_constraint: Option<Constraint> = None,
        /// Returns the layer with a constraint of the biases.
        into bias_constraint: Option<Constraint> = None,
        /// Returns the layer that drops this share of its input's features in training, the same at all timesteps.
        set dropout: f32 = 0.0,
        /// Returns the layer whose result is the state at all timesteps (N, T, units), or at the last.
        set return_sequences: bool = false,
        /// Returns the layer with the last states as further results, or without.
        set return_state: bool = false,
        /// Returns the layer that runs from the last timestep to the first, or from the first.
        set go_backwards: bool = false,
    }
}

impl SimpleRNN {
    /// Returns a layer of `units` units.
    pub fn new(units: usize) -> Self {
        SimpleRNN { units, ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let run = Run {
            cell: "simple_rnn_cell",
            kind: CellKind::Simple,
            units: self.units,
            activation: self.activation,
            gate: Activation::Linear,
            kernel: (&self.kernel_initializer, &self.kernel_regularizer, &self.kernel_constraint).into(),
            recurrent: (&self.recurrent_initializer, &self.recurrent_regularizer, &self.recurrent_constraint).into(),
            bias: self.use_bias.then(|| (&self.bias_initializer, &self.bias_regularizer, &self.bias_constraint).into()),
            dropout: self.dropout,
            sequences: self.return_sequences,
            state: self.return_state,
            backwards: self.go_backwards,
        };
        let outputs = run.build(scope, inputs)?;
        scope.activity(&self.activity_regularizer, outputs[0])?;
        Ok(outputs)
    }
}

layer! {
    /// Long short-term memory (Hochreiter and Schmidhuber 1997; Keras `LSTM`), gates in the order i, f, c, o, over
    /// sequences (N, T, features).
    ///
    /// Further inputs are the first states h and c (N, units); with `return_state` the last ones are further results.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([20, 8]).add(LSTM::new(16).return_sequences(true)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 20, 16)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct LSTM as "LSTM" {
        new units: usize = 1,
        /// Returns the layer with this function of the state, tanh by default.
        set activation: Activation = Activation::Tanh,
        /// Returns the layer with this function of the gates, sigmoid by default.
        set recurrent_activation: Activation = Activation::Sigmoid,
        /// Returns the layer with or without biases.
        set use_bias: bool = true,
        /// Returns the layer with these first values of the input's kernel.
        set kernel_initializer: Initializer = Initializer::GlorotUniform,
        /// Returns the layer with these first values of the state's kernel.
        set recurrent_initializer: Initializer = Initializer::Orthogonal { gain: 1.0 },
        /// Returns the layer with these first biases.
        set bias_initializer: Initializer = Initializer::Zeros,
        /// Returns the layer with a penalty for large values of the input's kernel.
        into kernel_regularizer: Option<Regularizer> = None,
        /// Returns the layer with a penalty for large values of the state's kernel.
        into recurrent_regularizer: Option<Regularizer> = None,
        /// Returns the layer with a penalty for large biases.
        into bias_regularizer: Option<Regularizer> = None,
        /// Returns the layer with a penalty for large outputs.
        into activity_regularizer: Option<Regularizer> = None,
        /// Returns the layer with a constraint of the input's kernel.
        into kernel_constraint: Option<Constraint> = None,
        /// Returns the layer with a constraint of the state's kernel.
        into recurrent_constraint: Option<Constraint> = None,
        /// Returns the layer with a constraint of the biases.
        into bias_constraint: Option<Constraint> = None,
        /// Returns the layer that drops this share of its input's features in training, the same at all timesteps.
        set dropout: f32 = 0.0,
        /// Returns the layer whose result is the state at all timesteps (N, T, units), or at the last.
        set return_sequences: bool = false,
        /// Returns the layer with the last states as further results, or without.
        set return_state: bool = false,
        /// Returns the layer that runs from the last timestep to the first, or from the first.
        set go_backwards: bool = false,
        /// Returns the layer with biases of the forget gate that begin at 1, or as the others.
        set unit_forget_bias: bool = true,
    }
}

impl LSTM {
    /// Returns a layer of `units` units.
    pub fn new(units: usize) -> Self {
        LSTM { units, ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let forget = Initializer::custom(Forget(self.bias_initializer.clone()));
        let bias = if self.unit_forget_bias { &forget } else { &self.bias_initializer };
        let run = Run {
            cell: "lstm_cell",
            kind: CellKind::Lstm,
            units: self.units,
            activation: self.activation,
            gate: self.recurrent_activation,
            kernel: (&self.kernel_initializer, &self.kernel_regularizer, &self.kernel_constraint).into(),
            recurrent: (&self.recurrent_initializer, &self.recurrent_regularizer, &self.recurrent_constraint).into(),
            bias: self.use_bias.then(|| (bias, &self.bias_regularizer, &self.bias_constraint).into()),
            dropout: self.dropout,
            sequences: self.return_sequences,
            state: self.return_state,
            backwards: self.go_backwards,
        };
        let outputs = run.build(scope, inputs)?;
        scope.activity(&self.activity_regularizer, outputs[0])?;
        Ok(outputs)
    }
}

layer! {
    /// Gated recurrent unit (Cho et al. 2014; Keras `GRU`), gates in the order z, r, h, over sequences (N, T, features).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([20, 8]).add(GRU::new(16)).build()?;
    /// assert_eq!(model.count_params(), 3 * 16 * (8 + 16 + 2));
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct GRU as "GRU" {
        new units: usize = 1,
        /// Returns the layer with this function of the state, tanh by default.
        set activation: Activation = Activation::Tanh,
        /// Returns the layer with this function of the gates, sigmoid by default.
        set recurrent_activation: Activation = Activation::Sigmoid,
        /// Returns the layer with or without biases.
        set use_bias: bool = true,
        /// Returns the layer with these first values of the input's kernel.
        set kernel_initializer: Initializer = Initializer::GlorotUniform,
        /// Returns the layer with these first values of the state's kernel.
        set recurrent_initializer: Initializer = Initializer::Orthogonal { gain: 1.0 },
        /// Returns the layer with these first biases.
        set bias_initializer: Initializer = Initializer::Zeros,
        /// Returns the layer with a penalty for large values of the input's kernel.
        into kernel_regularizer: Option<Regularizer> = None,
        /// Returns the layer with a penalty for large values of the state's kernel.
        into recurrent_regularizer: Option<Regularizer> = None,
        /// Returns the layer with a penalty for large biases.
        into bias_regularizer: Option<Regularizer> = None,
        /// Returns the layer with a penalty for large outputs.
        into activity_regularizer: Option<Regularizer> = None,
        /// Returns the layer with a constraint of the input's kernel.
        into kernel_constraint: Option<Constraint> = None,
        /// Returns the layer with a constraint of the state's kernel.
        into recurrent_constraint: Option<Constraint> = None,
        /// Returns the layer with a constraint of the biases.
        into bias_constraint: Option<Constraint> = None,
        /// Returns the layer that drops this share of its input's features in training, the same at all timesteps.
        set dropout: f32 = 0.0,
        /// Returns the layer whose result is the state at all timesteps (N, T, units), or at the last.
        set return_sequences: bool = false,
        /// Returns the layer with the last states as further results, or without.
        set return_state: bool = false,
        /// Returns the layer that runs from the last timestep to the first, or from the first.
        set go_backwards: bool = false,
        /// Returns the layer whose reset gate acts after the state's product, with biases (2, 3·units), or before it.
        set reset_after: bool = true,
    }
}

impl GRU {
    /// Returns a layer of `units` units.
    pub fn new(units: usize) -> Self {
        GRU { units, ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let kind = if self.reset_after { CellKind::GruAfter } else { CellKind::GruBefore };
        let run = Run {
            cell: "gru_cell",
            kind,
            units: self.units,
            activation: self.activation,
            gate: self.recurrent_activation,
            kernel: (&self.kernel_initializer, &self.kernel_regularizer, &self.kernel_constraint).into(),
            recurrent: (&self.recurrent_initializer, &self.recurrent_regularizer, &self.recurrent_constraint).into(),
            bias: self.use_bias.then(|| (&self.bias_initializer, &self.bias_regularizer, &self.bias_constraint).into()),
            dropout: self.dropout,
            sequences: self.return_sequences,
            state: self.return_state,
            backwards: self.go_backwards,
        };
        let outputs = run.build(scope, inputs)?;
        scope.activity(&self.activity_regularizer, outputs[0])?;
        Ok(outputs)
    }
}

/// What the three layers have in common.
struct Run<'o> {
    cell: &'static str,
    kind: CellKind,
    units: usize,
    activation: Activation,
    gate: Activation,
    kernel: WeightOptions<'o>,
    recurrent: WeightOptions<'o>,
    bias: Option<WeightOptions<'o>>,
    dropout: f32,
    sequences: bool,
    state: bool,
    backwards: bool,
}

/// Returns what a cell calls an activation, or an error where it has none.
fn function(cell: &str, activation: Activation) -> Result<CellActivation, OpError> {
    Ok(match activation {
        Activation::Linear => CellActivation::Linear,
        Activation::Relu => CellActivation::Relu,
        Activation::Sigmoid => CellActivation::Sigmoid,
        Activation::HardSigmoid => CellActivation::HardSigmoid,
        Activation::Tanh => CellActivation::Tanh,
        other => {
            let wanted = "linear, relu, sigmoid, hard_sigmoid or tanh";
            return Err(OpError::new(cell, wanted, format!("{other:?}"), "choose one of those"));
        }
    })
}

impl Run<'_> {
    fn build(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let shape = scope.graph.shape(inputs[0]).clone();
        let &[_, steps, features] = shape.dims() else {
            let advice = "give samples a time axis and a feature axis";
            return Err(OpError::new(self.cell, "an input of shape (N, timesteps, features)", shape, advice));
        };
        share(self.cell, self.dropout)?;
        let cell = Cell {
            kind: self.kind,
            activation: function(self.cell, self.activation)?,
            gate: function(self.cell, self.gate)?,
        };
        let (units, width) = (self.units, self.units.saturating_mul(cell.gates()));
        let kernel = scope.weight(&format!("{}/kernel", self.cell), &[features, width], self.kernel)?;
        let recurrent = scope.weight(&format!("{}/recurrent_kernel", self.cell), &[units, width], self.recurrent)?;
        let after = self.kind == CellKind::GruAfter;
        let bias_shape: &[usize] = if after { &[2, width] } else { &[width] };
        let bias = self.bias.map(|options| scope.weight(&format!("{}/bias", self.cell), bias_shape, options));
        let bias = bias.transpose()?;
        let mut x = inputs[0];
        if self.backwards {
            x = scope.graph.slice_axis(x, 1, Part { start: steps - 1, size: steps, step: -1 })?;
        }
        if self.dropout > 0.0 && scope.mode == Mode::Training {
            let name = scope.layer().to_owned();
            let one = scope.graph.constant(1.0)?;
            let ones = scope.graph.expand(one, &shape.with_row(&[1, features]))?;
            let kept = scope.graph.dropout(ones, self.dropout, &name)?;
            x = scope.graph.mul(x, kept)?;
        }
        let part = |scope: &mut Scope, bias: Value, row: usize| {
            let part = scope.graph.slice_axis(bias, 0, Part::new(row, 1))?;
            scope.graph.reshape(part, [width])
        };
        let (bias, of_state) = match (bias, after) {
            (Some(bias), true) => (Some(part(scope, bias, 0)?), Some(part(scope, bias, 1)?)),
            (None, true) => (None, Some(scope.filled(&[width], 0.0)?)),
            (bias, false) => (bias, None),
        };
        let projected = scope.graph.project(x, kernel, bias)?;
        let mut operands: Vec<Value> = [projected, recurrent].into_iter().chain(of_state).collect();
        match inputs.len() - 1 {
            0 => {}
            n if n == cell.states() => operands.push(scope.graph.concat(&inputs[1..], 1)?),
            n => {
                let wanted = format!("a sequence and {} first states, or none", cell.states());
                return Err(OpError::new(self.cell, wanted, format!("{n} states"), "pass all states (N, units)"));
            }
        }
        let outputs = scope.graph.apply(Recurrent { cell }, &operands)?;
        let last = |scope: &mut Scope, states: Value| {
            let last = scope.graph.slice_axis(states, 1, Part::new(steps - 1, 1))?;
            scope.graph.reshape(last, shape.with_row(&[units]))
        };
        let mut results = vec![if self.sequences { outputs[0] } else { last(scope, outputs[0])? }];
        if self.state {
            for &states in &outputs[..cell.states()] {
                results.push(last(scope, states)?);
            }
        }
        Ok(results)
    }
}

/// Ones for the second of four gates, for the others what another initialiser gives (Jozefowicz et al. 2015).
#[derive(Debug)]
struct Forget(Initializer);

impl Initialize for Forget {
    fn fill(&self, shape: &[usize], rng: &mut Philox) -> Vec<f32> {
        let mut values = self.0.fill(shape, rng);
        let units = values.len() / 4;
        values[units..2 * units].fill(1.0);
        values
    }
}
