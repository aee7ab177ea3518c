use crate::{
    graph::{Arg, Instr, OpError, Program, Value},
    nn::{Layer, Mode, Ones, Scope, Zeros, layer_common, layer_names},
    ops::{Elementwise, elementary},
};
use std::sync::Arc;

/// Normalises each channel over the batch (Ioffe and Szegedy 2015; Keras `BatchNormalization`):
/// momentum 0.99, epsilon 1e-3, moving statistics of the biased batch variance.
///
/// ```
/// use hubel::prelude::*;
/// let model = Sequential::new([8, 8, 4]).add(BatchNormalization::new()).build()?;
/// assert_eq!(model.count_params(), 16);
/// # Ok::<(), hubel::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct BatchNormalization {
    momentum: f32,
    epsilon: f32,
    trainable: bool,
    name: Option<String>,
}

impl Default for BatchNormalization {
    fn default() -> Self {
        BatchNormalization { momentum: 0.99, epsilon: 1e-3, trainable: true, name: None }
    }
}

impl BatchNormalization {
    /// Returns the layer with Keras's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    layer_common!();

    /// Returns the layer with this share of the old moving statistics kept at each step.
    pub fn momentum(mut self, momentum: f32) -> Self {
        self.momentum = momentum;
        self
    }

    /// Returns the layer with this number added to the variance.
    pub fn epsilon(mut self, epsilon: f32) -> Self {
        self.epsilon = epsilon;
        self
    }

    /// Returns the layer frozen or not; frozen it uses the moving statistics even in training.
    pub fn trainable(mut self, trainable: bool) -> Self {
        self.trainable = trainable;
        self
    }
}

impl Layer for BatchNormalization {
    layer_names!("BatchNormalization");

    fn build(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Value, OpError> {
        let c = scope.graph.shape(inputs[0]).last();
        let gamma = scope.weight("gamma", &[c], Arc::new(Ones));
        let beta = scope.weight("beta", &[c], Arc::new(Zeros));
        let mean = scope.state("moving_mean", &[c], Arc::new(Zeros));
        let variance = scope.state("moving_variance", &[c], Arc::new(Ones));
        if scope.mode == Mode::Inference || !self.trainable {
            return scope.graph.batch_norm_inference(inputs[0], [gamma, beta, mean, variance], self.epsilon);
        }
        let [y, batch_mean, batch_variance] = scope.graph.batch_norm(inputs[0], gamma, beta, self.epsilon)?;
        for (moving, batch) in [(mean, batch_mean), (variance, batch_variance)] {
            let new = scope.graph.apply1(blend(self.momentum)?, &[moving, batch])?;
            scope.graph.update(moving, new);
        }
        Ok(y)
    }
}

/// Returns moving · m + batch · (1 − m), in place on the first operand.
fn blend(momentum: f32) -> Result<Elementwise, OpError> {
    let (mul, add) = (elementary("mul")?, elementary("add")?);
    let instrs = vec![
        Instr { f: mul, args: vec![Arg::Input(0), Arg::Const(momentum)] },
        Instr { f: mul, args: vec![Arg::Input(1), Arg::Const(1.0 - momentum)] },
        Instr { f: add, args: vec![Arg::Instr(0), Arg::Instr(1)] },
    ];
    let program = Program { n_inputs: 2, instrs, result: Arg::Instr(2) };
    Ok(Elementwise { program, shape: None, in_place: true })
}
