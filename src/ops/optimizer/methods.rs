//! Optimisers and clipping as methods of the graph.

use super::{op::Optimizer, rule::Rule};
use crate::graph::{Graph, OpError, Value};

impl Graph {
    /// Returns new weights, then each kind of new moments.
    ///
    /// `moments` holds for each kind one tensor per weight. All are changed in place: pass each result to
    /// [`Graph::update`] with its state.
    pub fn optimize(
        &mut self,
        optimizer: impl Into<Optimizer>,
        weights: &[Value],
        gradients: &[Value],
        moments: &[&[Value]],
    ) -> Result<Vec<Value>, OpError> {
        self.apply(optimizer.into(), &[&[weights, gradients], moments].concat().concat())
    }

    /// Returns new weights, then new velocities, of gradient descent at the learning rate in host number 0.
    ///
    /// `velocities` is empty where `momentum` is 0. All are changed in place: pass each result to
    /// [`Graph::update`] with its state.
    pub fn sgd(
        &mut self,
        weights: &[Value],
        gradients: &[Value],
        velocities: &[Value],
        momentum: f32,
        nesterov: bool,
    ) -> Result<Vec<Value>, OpError> {
        self.optimize(Rule::Sgd { momentum, nesterov }, weights, gradients, &[velocities])
    }

    /// Returns new weights, then new means `m`, then new mean squares `v`, of Adam at the rate α in host number 1.
    ///
    /// All are changed in place: pass each result to [`Graph::update`] with its state.
    pub fn adam(
        &mut self,
        weights: &[Value],
        gradients: &[Value],
        moments: [&[Value]; 2],
        [beta_1, beta_2]: [f32; 2],
        epsilon: f32,
    ) -> Result<Vec<Value>, OpError> {
        let amsgrad = false;
        self.optimize(Rule::Adam { beta_1, beta_2, epsilon, amsgrad }, weights, gradients, &moments)
    }

    /// Returns a gradient scaled down to the norm `limit` where its own is larger (Keras `clipnorm`).
    pub fn clip_by_norm(&mut self, gradient: Value, limit: f32) -> Result<Value, OpError> {
        Ok(self.clip_by_global_norm(&[gradient], limit)?[0])
    }

    /// Returns gradients scaled down by one factor to the norm `limit` of all of them together, where that is
    /// larger (Keras `global_clipnorm`).
    pub fn clip_by_global_norm(&mut self, gradients: &[Value], limit: f32) -> Result<Vec<Value>, OpError> {
        if !(limit > 0.0 && limit.is_finite()) {
            return Err(OpError::new("clip_by_norm", "a limit above 0", limit, "start from 1"));
        }
        let mut total = self.constant(0.0)?;
        for &gradient in gradients {
            let axes: Vec<usize> = (0..self.shape(gradient).rank()).collect();
            let squares = self.sum_squares(gradient, &axes, false)?;
            total = self.add(total, squares)?;
        }
        let (norm, least) = (self.sqrt(total)?, self.constant(1e-30)?);
        let norm = self.max(norm, least)?;
        let (limit, one) = (self.constant(limit)?, self.constant(1.0)?);
        let factor = self.div(limit, norm)?;
        let factor = self.min(factor, one)?;
        gradients.iter().map(|&gradient| self.mul(gradient, factor)).collect()
    }
}
