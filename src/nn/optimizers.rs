//! How gradients change weights, as in Keras.

use super::LearningRate;
use crate::{
    graph::{Graph, OpError, Step, Value},
    ops::Rule,
};
use std::{fmt, sync::Arc};

/// A rule that changes weights by their gradients.
pub trait Optimizer: fmt::Debug + Send + Sync {
    /// Returns the names of the tensors that it keeps for each weight.
    fn slots(&self) -> &'static [&'static str];

    /// Appends one step to the graph and returns what each state becomes.
    ///
    /// `slots[s][i]` is the tensor of slot `s` for weight `i`.
    fn build(
        &self,
        g: &mut Graph,
        weights: &[Value],
        gradients: &[Value],
        slots: &[Vec<Value>],
    ) -> Result<Vec<(Value, Value)>, OpError>;

    /// Returns the host numbers of step `step`, from 0.
    fn scalars(&self, step: u64) -> [f32; Step::N_SCALARS];

    /// Returns the learning rate of step `step`.
    fn rate(&self, step: u64) -> f64;
}

/// Stochastic gradient descent (Keras `SGD`): v = μv − lr·g, w += v; Nesterov w += μv − lr·g.
///
/// ```
/// use hubel::prelude::*;
/// let optimizer = Sgd::new(0.01).momentum(0.9).nesterov(true);
/// assert_eq!(optimizer.slots(), ["velocity"]);
/// ```
#[derive(Debug, Clone)]
pub struct Sgd {
    rate: Arc<dyn LearningRate>,
    momentum: f32,
    nesterov: bool,
}

impl Sgd {
    /// Returns plain gradient descent at this rate.
    pub fn new(rate: impl LearningRate + 'static) -> Self {
        Sgd { rate: Arc::new(rate), momentum: 0.0, nesterov: false }
    }

    /// Returns the optimiser with this momentum.
    pub fn momentum(mut self, momentum: f32) -> Self {
        self.momentum = momentum;
        self
    }

    /// Returns the optimiser with or without Nesterov's form of momentum.
    pub fn nesterov(mut self, nesterov: bool) -> Self {
        self.nesterov = nesterov;
        self
    }
}

impl Optimizer for Sgd {
    fn slots(&self) -> &'static [&'static str] {
        if self.momentum == 0.0 { &[] } else { &["velocity"] }
    }

    fn build(
        &self,
        g: &mut Graph,
        weights: &[Value],
        gradients: &[Value],
        slots: &[Vec<Value>],
    ) -> Result<Vec<(Value, Value)>, OpError> {
        let velocity = slots.first().map(Vec::as_slice).unwrap_or(&[]);
        let new = g.sgd(weights, gradients, velocity, self.momentum, self.nesterov)?;
        Ok(weights.iter().chain(velocity).copied().zip(new).collect())
    }

    fn scalars(&self, step: u64) -> [f32; Step::N_SCALARS] {
        let mut scalars = [0.0; Step::N_SCALARS];
        scalars[0] = self.rate(step) as f32;
        scalars
    }

    fn rate(&self, step: u64) -> f64 {
        self.rate.at(step)
    }
}

/// Adam (Kingma and Ba 2015; Keras `Adam`): α = lr·√(1−β₂ᵗ)/(1−β₁ᵗ), w −= α·m/(√v + ε), ε = 1e-7.
///
/// ```
/// use hubel::prelude::*;
/// assert_eq!(Adam::new(1e-3).slots(), ["m", "v"]);
/// ```
#[derive(Debug, Clone)]
pub struct Adam {
    rate: Arc<dyn LearningRate>,
    beta_1: f32,
    beta_2: f32,
    epsilon: f32,
}

impl Adam {
    /// Returns Adam with β₁ = 0.9, β₂ = 0.999 at this rate.
    pub fn new(rate: impl LearningRate + 'static) -> Self {
        Adam { rate: Arc::new(rate), beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7 }
    }

    /// Returns the optimiser with these decay rates of the moments.
    pub fn betas(mut self, beta_1: f32, beta_2: f32) -> Self {
        (self.beta_1, self.beta_2) = (beta_1, beta_2);
        self
    }

    /// Returns the optimiser with this number added to the root of the second moment.
    pub fn epsilon(mut self, epsilon: f32) -> Self {
        self.epsilon = epsilon;
        self
    }
}

impl Optimizer for Adam {
    fn slots(&self) -> &'static [&'static str] {
        &["m", "v"]
    }

    fn build(
        &self,
        g: &mut Graph,
        weights: &[Value],
        gradients: &[Value],
        slots: &[Vec<Value>],
    ) -> Result<Vec<(Value, Value)>, OpError> {
        let new = g.adam(weights, gradients, &slots[0], &slots[1], self.beta_1, self.beta_2, self.epsilon)?;
        Ok(weights.iter().chain(&slots[0]).chain(&slots[1]).copied().zip(new).collect())
    }

    fn scalars(&self, step: u64) -> [f32; Step::N_SCALARS] {
        let rule = Rule::Adam { beta_1: self.beta_1, beta_2: self.beta_2, epsilon: self.epsilon };
        rule.scalars(self.rate(step), step)
    }

    fn rate(&self, step: u64) -> f64 {
        self.rate.at(step)
    }
}
