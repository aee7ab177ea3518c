use super::{layer, merge::axis};
use crate::{
    graph::{OpError, Value},
    nn::{Bounds, Initializer, Mode, Number, Scope},
    ops::Rule,
};

layer! {
    /// Normalises each channel over the batch (Ioffe and Szegedy 2015; Keras `BatchNormalization`):
    /// momentum 0.99, epsilon 1e-3, moving statistics of the biased batch variance.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([8, 8, 4]).add(BatchNormalization::new()).build()?;
    /// assert_eq!(model.count_params(), 16);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct BatchNormalization as "BatchNormalization" {
        /// Sets the axis of the channels, counted from the batch, axis 0, or from the end if negative.
        set axis: isize = -1,
        /// Sets the share of the moving statistics that each step keeps.
        set momentum: f32 = 0.99,
        /// Sets the number added to the variance.
        set epsilon: f32 = 1e-3,
        /// Sets whether an offset `beta` is added.
        set center: bool = true,
        /// Sets whether the result is multiplied by a factor `gamma`.
        set scale: bool = true,
        /// Sets how `moving_mean` is initialised.
        set moving_mean_initializer: Initializer = Initializer::Zeros,
        /// Sets how `moving_variance` is initialised.
        set moving_variance_initializer: Initializer = Initializer::Ones,
    } weights { gamma = Initializer::Ones, beta = Initializer::Zeros }
}

impl BatchNormalization {
    /// Returns the layer with Keras's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let rank = scope.graph.shape(inputs[0]).rank();
        Number::new(Self::KIND, "momentum", self.momentum, Bounds::Share).check()?;
        let at = axis(self.axis, rank).filter(|&a| a > 0).ok_or_else(|| {
            let wanted = format!("an axis from 1 to {}", rank - 1);
            OpError::new("batch_norm", wanted, self.axis, "channels are one of the sample's axes")
        })?;
        let mut order: Vec<usize> = (0..rank).filter(|&a| a != at).collect();
        order.push(at);
        if at == rank - 1 {
            return Ok(vec![self.normalize(scope, inputs[0])?]);
        }
        let x = scope.graph.transpose(inputs[0], &order)?;
        let y = self.normalize(scope, x)?;
        let back: Vec<usize> = (0..rank).map(|a| order.iter().position(|&o| o == a).unwrap_or(a)).collect();
        Ok(vec![scope.graph.transpose(y, &back)?])
    }

    fn normalize(&self, scope: &mut Scope, x: Value) -> Result<Value, OpError> {
        let c = [scope.graph.shape(x).last()];
        let (gamma, beta) = (self.scale.then(|| self.gamma()), self.center.then(|| self.beta()));
        let [gamma, beta] = scope.gamma_beta(&c, gamma, beta)?;
        let mean = scope.state("moving_mean", &c, &self.moving_mean_initializer);
        let variance = scope.state("moving_variance", &c, &self.moving_variance_initializer);
        if scope.mode == Mode::Inference || !scope.trainable() {
            return scope.graph.batch_norm_inference(x, [gamma, beta, mean, variance], self.epsilon);
        }
        let [y, batch_mean, batch_variance] = scope.graph.batch_norm(x, gamma, beta, self.epsilon)?;
        for (moving, batch) in [(mean, batch_mean), (variance, batch_variance)] {
            let rule = Rule::MovingAverage { momentum: self.momentum };
            // A layer that is used again goes on from where its last use left the average.
            let before =
                scope.graph.updates().iter().find(|update| update.0 == moving).map_or(moving, |update| update.1);
            let new = scope.graph.optimize(rule, &[before], &[batch], &[])?;
            scope.graph.update(moving, new[0]);
        }
        Ok(y)
    }
}
