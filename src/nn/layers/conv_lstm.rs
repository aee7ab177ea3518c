use super::{
    DataFormat, Pair, Single, Triple,
    dropout::share,
    layer,
    recurrent::Forget,
    stepped::{few_steps, kept, long_short, part},
    volumes::Windows,
};
use crate::{
    graph::{Graph, OpError, Value},
    nn::{Activation, Initializer, Mode, Regularizer, Scope, WeightOptions},
    ops::{Conv2dOptions, Padding, Part},
    tensor::Shape,
};

/// Declares a convolutional long short-term memory: the options that all have, with the form of its sizes.
macro_rules! conv_lstm {
    ($(#[$meta:meta])* $Layer:ident $kind:literal $Size:ident = $one:expr, $of:expr) => {
        layer! {
            $(#[$meta])*
            pub struct $Layer as $kind {
                new filters: usize = 1,
                new kernel_size: $Size = $one,
                /// Sets the strides of the convolution of the input.
                into strides: $Size = $one,
                /// Sets the padding of the convolution of the input; that of the state keeps its size.
                set padding: Padding = Padding::Valid,
                /// Sets the order of axes.
                into data_format: DataFormat = DataFormat::ChannelsLast,
                /// Sets the distance between the taps of the input's kernel.
                into dilation_rate: $Size = $one,
                /// Sets the function of the state.
                set activation: Activation = Activation::Tanh,
                /// Sets the function of the gates.
                set recurrent_activation: Activation = Activation::Sigmoid,
                /// Sets whether biases are added.
                set use_bias: bool = true,
                /// Sets whether the biases of the forget gate begin at 1.
                set unit_forget_bias: bool = true,
                /// Adds a penalty on the outputs to the loss.
                into activity_regularizer: Option<Regularizer> = None,
                /// Sets the share of the input's elements that training drops, the same at all timesteps.
                set dropout: f32 = 0.0,
                /// Sets the share of the state's elements that training drops, the same at all timesteps.
                set recurrent_dropout: f32 = 0.0,
                /// Sets whether the output is the state at all timesteps, or only the last one.
                set return_sequences: bool = false,
                /// Sets whether the last states are further outputs.
                set return_state: bool = false,
                /// Sets whether the layer runs from the last timestep to the first.
                set go_backwards: bool = false,
            } weights {
                kernel = Initializer::GlorotUniform,
                recurrent_kernel = Initializer::Orthogonal { gain: 1.0 },
                bias = Initializer::Zeros
            }
        }

        impl $Layer {
            /// Returns a layer of `filters` filters of this size.
            pub fn new(filters: usize, kernel_size: impl Into<$Size>) -> Self {
                $Layer { filters, kernel_size: kernel_size.into(), ..Self::default() }
            }

            fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
                let sizes = |size: &$Size| -> Vec<usize> { $of(size) };
                let forget = Initializer::custom(Forget(self.bias_initializer.clone()));
                let mut bias = self.bias();
                if self.unit_forget_bias {
                    bias.initializer = &forget;
                }
                let run = Run {
                    filters: self.filters,
                    kernel_size: sizes(&self.kernel_size),
                    windows: Windows {
                        padding: self.padding,
                        strides: deep(&sizes(&self.strides)),
                        dilation: deep(&sizes(&self.dilation_rate)),
                        groups: 1,
                    },
                    format: self.data_format,
                    functions: [self.recurrent_activation, self.activation],
                    weights: [self.kernel(), self.recurrent_kernel()],
                    bias: self.use_bias.then_some(bias),
                    dropout: [self.dropout, self.recurrent_dropout],
                    backwards: self.go_backwards,
                };
                let mut results = run.build(scope, inputs)?;
                if !self.return_sequences {
                    results[0] = results[1];
                }
                results.truncate(if self.return_state { 3 } else { 1 });
                scope.activity(&self.activity_regularizer, results[0])?;
                Ok(results)
            }
        }
    };
}

conv_lstm! {
    /// Long short-term memory whose products are convolutions (Shi et al. 2015; Keras `ConvLSTM2D`), gates in the order
    /// i, f, c, o, over sequences of images (N, T, height, width, channels).
    ///
    /// Further inputs are the initial states h and c; with `return_state` the last ones are further outputs.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([10, 16, 16, 3]).add(ConvLSTM2D::new(8, 3).padding(Same)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 16, 16, 8)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    ConvLSTM2D "ConvLSTM2D" Pair = Pair([1; 2]), |pair: &Pair| pair.0.to_vec()
}

conv_lstm! {
    /// Long short-term memory whose products are convolutions of rows (Keras `ConvLSTM1D`), over sequences of them
    /// (N, T, length, channels); see [`ConvLSTM2D`].
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([10, 16, 3]).add(ConvLSTM1D::new(8, 3).return_sequences(true)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 10, 14, 8)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    ConvLSTM1D "ConvLSTM1D" Single = Single(1), |single: &Single| vec![single.0]
}

conv_lstm! {
    /// Long short-term memory whose products are convolutions of volumes (Keras `ConvLSTM3D`), over sequences of them
    /// (N, T, depth, height, width, channels); see [`ConvLSTM2D`].
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([4, 6, 8, 8, 3]).add(ConvLSTM3D::new(2, 3).padding(Same)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 6, 8, 8, 2)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    ConvLSTM3D "ConvLSTM3D" Triple = Triple([1; 3]), |triple: &Triple| triple.0.to_vec()
}

/// Returns sizes of rows or images as those of volumes of one row or plane.
fn deep(sizes: &[usize]) -> [usize; 3] {
    let mut all = [1; 3];
    all[3 - sizes.len()..].copy_from_slice(sizes);
    all
}

/// What the layers have in common.
struct Run<'o> {
    filters: usize,
    kernel_size: Vec<usize>,
    windows: Windows,
    format: DataFormat,
    /// Of the gates and of the state.
    functions: [Activation; 2],
    weights: [WeightOptions<'o>; 2],
    bias: Option<WeightOptions<'o>>,
    dropout: [f32; 2],
    backwards: bool,
}

/// Returns the convolution of images or volumes.
fn convolution(g: &mut Graph, x: Value, kernel: Value, windows: Windows) -> Result<Value, OpError> {
    if g.shape(kernel).rank() == 5 {
        return windows.convolve(g, x, kernel);
    }
    let Windows { strides: [_, strides @ ..], dilation: [_, dilation @ ..], padding, groups } = windows;
    g.conv2d(x, kernel, Conv2dOptions { padding, strides, dilation, groups })
}

/// Returns the convolution with the kernels of all gates, each of elements that it keeps itself.
fn convolved(g: &mut Graph, x: Value, kernel: Value, windows: Windows, kept: &[Value]) -> Result<Value, OpError> {
    if kept.is_empty() {
        return convolution(g, x, kernel, windows);
    }
    let mut all = Vec::new();
    for (gate, &factors) in kept.iter().enumerate() {
        let (x, kernel) = (g.mul(x, factors)?, part(g, kernel, gate, kept.len())?);
        all.push(convolution(g, x, kernel, windows)?);
    }
    g.concat(&all, g.shape(all[0]).rank() - 1)
}

impl Run<'_> {
    /// Returns the order of axes that puts the channels last, or back before the positions.
    fn order(&self, first: usize, rank: usize, back: bool) -> Vec<usize> {
        let before = 0..first;
        match back {
            false => before.chain(first + 1..rank).chain([first]).collect(),
            true => before.chain([rank - 1]).chain(first..rank - 1).collect(),
        }
    }

    /// Returns a tensor of sequences (`time`) or states as one of images with their channels last.
    fn images(&self, g: &mut Graph, x: Value, time: bool) -> Result<Value, OpError> {
        let (first, positions) = (1 + usize::from(time), self.kernel_size.len());
        let shape = g.shape(x).clone();
        if shape.rank() != first + positions + 1 {
            let wanted = format!(
                "{} axes: batch, {}positions, channels",
                first + positions + 1,
                if time { "time, " } else { "" }
            );
            return Err(OpError::new("conv_lstm", wanted, shape, "give samples a time axis and a channel axis"));
        }
        let x = match self.format {
            DataFormat::ChannelsLast => x,
            DataFormat::ChannelsFirst => g.transpose(x, &self.order(first, shape.rank(), false))?,
        };
        let mut row = g.shape(x).dims()[1..].to_vec();
        if positions == 1 {
            row.insert(first - 1, 1);
        }
        g.reshape(x, shape.with_row(&row))
    }

    /// Returns images as the layer's results.
    fn results(&self, g: &mut Graph, x: Value, time: bool) -> Result<Value, OpError> {
        let (first, shape) = (1 + usize::from(time), g.shape(x).clone());
        let mut row = shape.dims()[1..].to_vec();
        if self.kernel_size.len() == 1 {
            row.remove(first - 1);
        }
        let x = g.reshape(x, shape.with_row(&row))?;
        match self.format {
            DataFormat::ChannelsLast => Ok(x),
            DataFormat::ChannelsFirst => g.transpose(x, &self.order(first, row.len() + 1, true)),
        }
    }

    /// Returns the initial states h and c, if they are given.
    fn first_states(&self, g: &mut Graph, given: &[Value]) -> Result<Option<[Value; 2]>, OpError> {
        match *given {
            [] => Ok(None),
            [h, c] => Ok(Some([self.images(g, h, false)?, self.images(g, c, false)?])),
            _ => {
                let got = format!("{} of them", given.len());
                Err(OpError::new("conv_lstm", "a sequence, alone or with 2 initial states", got, "pass both"))
            }
        }
    }

    /// Returns the states h of all timesteps, the last h and the last c.
    fn build(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let [dropout, recurrent_dropout] = self.dropout;
        share("conv_lstm", dropout)?;
        share("conv_lstm", recurrent_dropout)?;
        let [gate, activation] = self.functions;
        let gate = |scope: &mut Scope, x: Value| gate.apply(scope, x);
        let activation = |scope: &mut Scope, x: Value| activation.apply(scope, x);
        if scope.mask(inputs[0]).is_some() {
            return Err(OpError::new("conv_lstm", "a sequence without a mask", "one", "leave the Masking layer out"));
        }
        let mut x = self.images(scope.graph, inputs[0], true)?;
        let shape = scope.graph.shape(x).clone();
        let (steps, row, channels) = (shape.dims()[1], shape.dims()[2..].to_vec(), shape.last());
        few_steps("conv_lstm", steps)?;
        let width = self.filters.saturating_mul(4);
        let all_taps = deep(&self.kernel_size);
        let taps = &all_taps[usize::from(self.kernel_size.len() < 3)..];
        let mut weight = |name: &str, from: usize, options| {
            let own = [&self.kernel_size[..], &[from, width]].concat();
            let kernel = scope.weight(name, &own, options)?;
            scope.graph.reshape(kernel, [taps, &[from, width]].concat())
        };
        let kernel = weight("conv_lstm_cell/kernel", channels, self.weights[0])?;
        let recurrent = weight("conv_lstm_cell/recurrent_kernel", self.filters, self.weights[1])?;
        let bias = self.bias.map(|options| scope.weight("conv_lstm_cell/bias", &[width], options));
        let bias = bias.transpose()?;
        if self.backwards {
            x = scope.graph.slice_axis(x, 1, Part { start: steps - 1, size: steps, step: -1 })?;
        }
        let training = scope.mode == Mode::Training;
        let factors = |scope: &mut Scope, rate: f32, row: &[usize], what: &str| match training && rate > 0.0 {
            true => kept(scope, &shape.with_row(row), rate, 4, what),
            false => Ok(Vec::new()),
        };
        let of_input = factors(scope, dropout, &[&[1], &row[..]].concat(), "input")?;
        // All timesteps are images of one convolution; what is dropped is the same at each.
        let flat = |g: &mut Graph, x: Value| g.reshape(x, Shape::batched(steps, &row));
        let mut of_planes = Vec::new();
        for &factor in &of_input {
            let all = scope.graph.expand(factor, &shape)?;
            of_planes.push(flat(scope.graph, all)?);
        }
        let planes = flat(scope.graph, x)?;
        let projected = convolved(scope.graph, planes, kernel, self.windows, &of_planes)?;
        let projected = bias.map_or(Ok(projected), |bias| scope.graph.add(projected, bias))?;
        let wide = [&[steps], &scope.graph.shape(projected).dims()[1..]].concat();
        let state = [&wide[1..wide.len() - 1], &[self.filters]].concat();
        let projected = scope.graph.reshape(projected, shape.with_row(&wide))?;
        let of_h = factors(scope, recurrent_dropout, &state, "recurrent")?;
        let mut states = self.first_states(scope.graph, &inputs[1..])?;
        let mut all = Vec::new();
        for step in 0..steps {
            let g = &mut *scope.graph;
            let x = g.slice_axis(projected, 1, Part::new(step, 1))?;
            let mut sums = g.reshape(x, shape.with_row(&wide[1..]))?;
            let before = match states {
                Some([h, c]) => {
                    let own = Windows { strides: [1; 3], dilation: [1; 3], padding: Padding::Same, groups: 1 };
                    let product = convolved(g, h, recurrent, own, &of_h)?;
                    sums = g.add(sums, product)?;
                    c
                }
                None => {
                    let zero = g.constant(0.0)?;
                    g.expand(zero, &shape.with_row(&state))?
                }
            };
            let sums = [part(g, sums, 0, 4)?, part(g, sums, 1, 4)?, part(g, sums, 2, 4)?, part(g, sums, 3, 4)?];
            let next = long_short(scope, [&gate, &activation], sums, before)?;
            all.push(scope.graph.reshape(next[0], shape.with_row(&[&[1], &state[..]].concat()))?);
            states = Some(next);
        }
        let sequence = scope.graph.concat(&all, 1)?;
        let mut results = vec![self.results(scope.graph, sequence, true)?];
        for state in states.into_iter().flatten() {
            results.push(self.results(scope.graph, state, false)?);
        }
        Ok(results)
    }
}
