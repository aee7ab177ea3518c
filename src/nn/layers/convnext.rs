//! Layers of Keras's ConvNeXt.

use super::layer;
use crate::{
    graph::{OpError, Value},
    nn::{Initializer, Mode, Scope},
};

layer! {
    /// Scales each channel by a trained number (Touvron et al. 2021; `LayerScale` of Keras's ConvNeXt).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([7, 7, 96]).add(LayerScale::new(1e-6, 96)).build()?;
    /// assert_eq!(model.count_params(), 96);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct LayerScale as "LayerScale" {
        new init_values: f32 = 1e-6,
        new projection_dim: usize = 1,
    }
}

impl LayerScale {
    /// Returns a layer of `projection_dim` channels, whose factors begin at `init_values`.
    pub fn new(init_values: f32, projection_dim: usize) -> Self {
        LayerScale { init_values, projection_dim, ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let gamma =
            scope.weight("gamma", &[self.projection_dim], &Initializer::Constant { value: self.init_values })?;
        Ok(vec![scope.graph.mul(inputs[0], gamma)?])
    }
}

layer! {
    /// Drops whole samples in training and scales the others by 1/(1 − rate) (Huang et al. 2016; `StochasticDepth` of
    /// Keras's ConvNeXt), before they are added to a shortcut.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([7, 7, 96]).add(StochasticDepth::new(0.1)).build()?;
    /// assert_eq!(model.count_params(), 0);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct StochasticDepth as "StochasticDepth" {
        new drop_path_rate: f32 = 0.0,
    }
}

impl StochasticDepth {
    /// Returns a layer that drops a share `drop_path_rate` of the samples.
    pub fn new(drop_path_rate: f32) -> Self {
        StochasticDepth { drop_path_rate, ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        super::dropout::share("stochastic_depth", self.drop_path_rate)?;
        if scope.mode == Mode::Inference || self.drop_path_rate == 0.0 {
            return Ok(vec![inputs[0]]);
        }
        let shape = scope.graph.shape(inputs[0]).clone();
        let row = shape.with_row(&vec![1; shape.rank() - 1]);
        let factors = super::stepped::kept(scope, &row, self.drop_path_rate, 1, "depth")?;
        Ok(vec![scope.graph.mul(inputs[0], factors[0])?])
    }
}
