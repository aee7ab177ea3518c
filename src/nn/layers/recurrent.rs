use super::{dropout::share, layer, stepped::stepped};
use crate::{
    graph::{Initialize, OpError, Value},
    nn::{Activation, Initializer, Mode, Regularizer, Scope, WeightOptions, masks::Kept},
    ops::{Cell, CellActivation, CellKind, Part, Recurrent},
    tensor::Philox,
};

/// Declares a recurrent layer: the options that all have, and those of its own.
macro_rules! recurrent {
    ($(#[$meta:meta])* $Layer:ident $kind:literal { $($own:tt)* }) => {
        layer! {
            $(#[$meta])*
            pub struct $Layer as $kind {
                new units: usize = 1,
                /// Sets the function of the state.
                set activation: Activation = Activation::Tanh,
                /// Sets whether biases are added.
                set use_bias: bool = true,
                /// Adds a penalty on the outputs to the loss.
                into activity_regularizer: Option<Regularizer> = None,
                /// Sets the share of the input's features that training drops, the same at all timesteps.
                set dropout: f32 = 0.0,
                /// Sets the share of the state's features that training drops, the same at all timesteps. Training with it runs
                /// one timestep after another, which is slower.
                set recurrent_dropout: f32 = 0.0,
                /// Sets whether the output is the state at all timesteps (N, T, units), or only the last one.
                set return_sequences: bool = false,
                /// Sets whether the last states are further outputs.
                set return_state: bool = false,
                /// Sets whether the layer runs from the last timestep to the first.
                set go_backwards: bool = false,
                /// Sets the name of the cell, under which its weights are; by default that of its class.
                into cell_name: Option<String> = None,
                /// Sets whether the output is zeros where the input is masked, instead of the output before.
                set zero_output_for_mask: bool = false,
                $($own)*
            } weights {
                kernel = Initializer::GlorotUniform,
                recurrent_kernel = Initializer::Orthogonal { gain: 1.0 },
                bias = Initializer::Zeros
            }
        }

        impl $Layer {
            /// Returns a layer of `units` units.
            pub fn new(units: usize) -> Self {
                $Layer { units, ..Self::default() }
            }

            /// Returns the layer's options, with the cell of `SimpleRNN`.
            fn run(&self) -> Run<'_> {
                Run {
                    cell: self.cell_name.as_deref().unwrap_or("simple_rnn_cell"),
                    kind: CellKind::Simple,
                    units: self.units,
                    activation: self.activation,
                    gate: Activation::Linear,
                    kernel: self.kernel(),
                    recurrent: self.recurrent_kernel(),
                    bias: self.use_bias.then(|| self.bias()),
                    activity: &self.activity_regularizer,
                    dropout: [self.dropout, self.recurrent_dropout],
                    sequences: self.return_sequences,
                    state: self.return_state,
                    backwards: self.go_backwards,
                    zero_masked: self.zero_output_for_mask,
                }
            }
        }
    };
}

recurrent! {
    /// Fully connected recurrent layer (Keras `SimpleRNN`): h = tanh(x·kernel + h·recurrent_kernel + bias), over
    /// sequences (N, T, features).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([20, 8]).add(SimpleRNN::new(16)).build()?;
    /// assert_eq!(model.count_params(), 8 * 16 + 16 * 16 + 16);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    SimpleRNN "SimpleRNN" {}
}

impl SimpleRNN {
    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        self.run().build(scope, inputs)
    }
}

recurrent! {
    /// Long short-term memory (Hochreiter and Schmidhuber 1997; Keras `LSTM`), gates in the order i, f, c, o, over
    /// sequences (N, T, features).
    ///
    /// Further inputs are the initial states h and c (N, units); with `return_state` the last ones are further outputs.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([20, 8]).add(LSTM::new(16).return_sequences(true)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 20, 16)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    LSTM "LSTM" {
        /// Sets the function of the gates.
        set recurrent_activation: Activation = Activation::Sigmoid,
        /// Sets whether the biases of the forget gate begin at 1.
        set unit_forget_bias: bool = true,
    }
}

impl LSTM {
    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let forget = Initializer::custom(Forget(self.bias_initializer.clone()));
        let mut run = Run {
            cell: self.cell_name.as_deref().unwrap_or("lstm_cell"),
            kind: CellKind::Lstm,
            gate: self.recurrent_activation,
            ..self.run()
        };
        if self.unit_forget_bias {
            run.bias = run.bias.map(|bias| WeightOptions { initializer: &forget, ..bias });
        }
        run.build(scope, inputs)
    }
}

recurrent! {
    /// Gated recurrent unit (Cho et al. 2014; Keras `GRU`), gates in the order z, r, h, over sequences (N, T, features).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([20, 8]).add(GRU::new(16)).build()?;
    /// assert_eq!(model.count_params(), 3 * 16 * (8 + 16 + 2));
    /// # Ok::<(), hubel::Error>(())
    /// ```
    GRU "GRU" {
        /// Sets the function of the gates.
        set recurrent_activation: Activation = Activation::Sigmoid,
        /// Sets whether the reset gate acts after the state's product, with biases (2, 3·units), or before it.
        set reset_after: bool = true,
    }
}

impl GRU {
    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let kind = if self.reset_after { CellKind::GruAfter } else { CellKind::GruBefore };
        Run {
            cell: self.cell_name.as_deref().unwrap_or("gru_cell"),
            kind,
            gate: self.recurrent_activation,
            ..self.run()
        }
        .build(scope, inputs)
    }
}

/// What the three layers have in common.
struct Run<'o> {
    cell: &'o str,
    kind: CellKind,
    units: usize,
    activation: Activation,
    gate: Activation,
    kernel: WeightOptions<'o>,
    recurrent: WeightOptions<'o>,
    bias: Option<WeightOptions<'o>>,
    activity: &'o Option<Regularizer>,
    dropout: [f32; 2],
    sequences: bool,
    state: bool,
    backwards: bool,
    zero_masked: bool,
}

/// Returns the cell's form of an activation, or an error if it has none.
fn function(cell: &str, activation: Activation) -> Result<CellActivation, OpError> {
    Ok(match activation {
        Activation::Linear => CellActivation::Linear,
        Activation::Relu => CellActivation::Relu,
        Activation::Sigmoid => CellActivation::Sigmoid,
        Activation::HardSigmoid | Activation::HardSigmoidKeras2 => CellActivation::HardSigmoid,
        Activation::Tanh => CellActivation::Tanh,
        other => {
            let wanted = "linear, relu, sigmoid, hard_sigmoid or tanh";
            return Err(OpError::new(cell, wanted, format!("{other:?}"), "choose one of those"));
        }
    })
}

impl Run<'_> {
    /// Returns the factors of the columns whose function is Keras 2's hard sigmoid: it is Keras 3's of 1.2·x.
    fn factors(&self, scope: &mut Scope) -> Result<Option<Value>, OpError> {
        let old = |activation| activation == Activation::HardSigmoidKeras2;
        let (gate, state) = (old(self.gate), old(self.activation));
        if self.kind == CellKind::Lstm && state {
            let advice = "choose `hard_sigmoid` and train the model again";
            return Err(OpError::new(self.cell, "another activation than Keras 2's hard sigmoid", "it", advice));
        }
        if !gate && !state {
            return Ok(None);
        }
        let columns: &[bool] = match self.kind {
            CellKind::Simple => &[state],
            CellKind::Lstm => &[gate, gate, state, gate],
            CellKind::GruAfter | CellKind::GruBefore => &[gate, gate, state],
        };
        let factor = |&old: &bool| std::iter::repeat_n(if old { 1.2 } else { 1.0 }, self.units);
        let factors: Vec<f32> = columns.iter().flat_map(factor).collect();
        scope.graph.literal([factors.len()], factors).map(Some)
    }

    fn build(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let shape = scope.graph.shape(inputs[0]).clone();
        let &[_, steps, features] = shape.dims() else {
            let advice = "give samples a time axis and a feature axis";
            return Err(OpError::new(self.cell, "an input of shape (N, timesteps, features)", shape, advice));
        };
        let [dropout, recurrent_dropout] = self.dropout;
        share(self.cell, dropout)?;
        share(self.cell, recurrent_dropout)?;
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
        let (mut x, mut mask) = (inputs[0], scope.mask(inputs[0]));
        if self.backwards {
            let mirrored = Part { start: steps - 1, size: steps, step: -1 };
            x = scope.graph.slice_axis(x, 1, mirrored)?;
            mask = mask.map(|mask| scope.graph.slice_axis(mask, 1, mirrored)).transpose()?;
        }
        let kept = mask.map(|mask| Kept::new(scope.graph, mask)).transpose()?;
        if let Some(kept) = &kept {
            x = kept.to_front(scope.graph, x)?;
        }
        if dropout > 0.0 && scope.mode == Mode::Training {
            let name = scope.layer().to_owned();
            let one = scope.graph.constant(1.0)?;
            let ones = scope.graph.expand(one, &shape.with_row(&[1, features]))?;
            let kept = scope.graph.dropout(ones, dropout, &name)?;
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
        let mut projected = scope.graph.project(x, kernel, bias)?;
        let (mut recurrent, mut of_state) = (recurrent, of_state);
        if let Some(factors) = self.factors(scope)? {
            projected = scope.graph.mul(projected, factors)?;
            recurrent = scope.graph.mul(recurrent, factors)?;
            of_state = of_state.map(|bias| scope.graph.mul(bias, factors)).transpose()?;
        }
        let mut operands: Vec<Value> = [projected, recurrent].into_iter().chain(of_state).collect();
        match inputs.len() - 1 {
            0 => {}
            n if n == cell.states() => operands.push(scope.graph.concat(&inputs[1..], 1)?),
            n => {
                let wanted = format!("a sequence, alone or with {} initial states", cell.states());
                return Err(OpError::new(self.cell, wanted, format!("{n} of them"), "pass all states (N, units)"));
            }
        }
        let mut outputs = match recurrent_dropout > 0.0 && scope.mode == Mode::Training {
            false => scope.graph.apply(Recurrent { cell }, &operands)?,
            true => {
                let initial = if inputs.len() > 1 { operands.pop() } else { None };
                stepped(scope, cell, &operands, initial, recurrent_dropout)?
            }
        };
        if let Some(kept) = &kept {
            for states in &mut outputs[..cell.states()] {
                *states = kept.back(scope.graph, *states)?;
            }
        }
        let states = &outputs[..cell.states()];
        let results = self.results(scope, states, (&kept, mask), &inputs[1..])?;
        scope.activity(self.activity, results[0])?;
        Ok(results)
    }

    /// Returns the output and the last states, from those of all timesteps and the first ones.
    fn results(
        &self,
        scope: &mut Scope,
        all: &[Value],
        (kept, mask): (&Option<Kept>, Option<Value>),
        first: &[Value],
    ) -> Result<Vec<Value>, OpError> {
        let shape = scope.graph.shape(all[0]).clone();
        let (steps, units) = (shape.dims()[1], self.units);
        let last = |scope: &mut Scope, states: Value| {
            let last = scope.graph.slice_axis(states, 1, Part::new(steps - 1, 1))?;
            scope.graph.reshape(last, shape.with_row(&[units]))
        };
        let mut sequence = all[0];
        if let (Some(mask), true) = (mask, self.zero_masked) {
            let counts = scope.graph.reshape(mask, shape.with_row(&[steps, 1]))?;
            sequence = scope.graph.mul(sequence, counts)?;
        }
        let mut results = vec![if self.sequences { sequence } else { last(scope, all[0])? }];
        if self.state {
            for (i, &states) in all.iter().enumerate() {
                let (state, first) = (last(scope, states)?, first.get(i).copied());
                results.push(kept.as_ref().map_or(Ok(state), |kept| kept.or_first(scope.graph, state, first))?);
            }
        }
        Ok(results)
    }
}

/// Ones for the second of four gates, values of another initialiser for the others (Jozefowicz et al. 2015).
#[derive(Debug)]
pub(super) struct Forget(pub Initializer);

impl Initialize for Forget {
    fn fill(&self, shape: &[usize], rng: &mut Philox) -> Vec<f32> {
        let mut values = self.0.fill(shape, rng);
        let units = values.len() / 4;
        values[units..2 * units].fill(1.0);
        values
    }
}
