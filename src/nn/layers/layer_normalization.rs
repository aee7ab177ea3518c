use super::{layer, merge::axis};
use crate::{
    graph::{OpError, Value},
    nn::{Axis, Constraint, Initializer, Regularizer, Scope},
};

layer! {
    /// Normalises each sample along axes (Ba et al. 2016; Keras `LayerNormalization`): epsilon 1e-3.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([10, 8]).add(LayerNormalization::new()).build()?;
    /// assert_eq!(model.count_params(), 16);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct LayerNormalization as "LayerNormalization" {
        /// Returns the layer for these axes, by default the last; negative ones count from the end.
        into axis: Axis = Axis::One(-1),
        /// Returns the layer with this number added to the variance.
        set epsilon: f32 = 1e-3,
        /// Returns the layer with or without an offset `beta`.
        set center: bool = true,
        /// Returns the layer with or without a factor `gamma`.
        set scale: bool = true,
        /// Returns the layer with these first offsets.
        set beta_initializer: Initializer = Initializer::Zeros,
        /// Returns the layer with a penalty for large offsets.
        into beta_regularizer: Option<Regularizer> = None,
        /// Returns the layer with a constraint of the offsets.
        into beta_constraint: Option<Constraint> = None,
        /// Returns the layer with these first factors.
        set gamma_initializer: Initializer = Initializer::Ones,
        /// Returns the layer with a penalty for large factors.
        into gamma_regularizer: Option<Regularizer> = None,
        /// Returns the layer with a constraint of the factors.
        into gamma_constraint: Option<Constraint> = None,
    }
}

impl LayerNormalization {
    /// Returns the layer with Keras's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let shape = scope.graph.shape(inputs[0]).clone();
        let rank = shape.rank();
        let axes: Option<Vec<usize>> =
            self.axis.list().iter().map(|&a| axis(a, rank).filter(|&a| a > 0)).collect();
        let mut axes = axes.ok_or_else(|| {
            let (wanted, got) = (format!("axes from 1 to {}", rank - 1), format!("{:?}", self.axis.list()));
            OpError::new("layer_normalization", wanted, got, "choose axes of the sample")
        })?;
        axes.sort_unstable();
        let order: Vec<usize> = (0..rank).filter(|a| !axes.contains(a)).chain(axes.iter().copied()).collect();
        let extents: Vec<usize> = axes.iter().map(|&a| shape.dims()[a]).collect();
        let (beta, gamma) = (
            (&self.beta_initializer, &self.beta_regularizer, &self.beta_constraint),
            (&self.gamma_initializer, &self.gamma_regularizer, &self.gamma_constraint),
        );
        let gamma = match self.scale {
            true => scope.weight("gamma", &extents, gamma)?,
            false => scope.filled(&extents, 1.0)?,
        };
        let beta = match self.center {
            true => scope.weight("beta", &extents, beta)?,
            false => scope.filled(&extents, 0.0)?,
        };
        let sorted = order.iter().enumerate().all(|(i, &a)| i == a);
        let x = if sorted { inputs[0] } else { scope.graph.transpose(inputs[0], &order)? };
        let y = scope.graph.layer_norm(x, gamma, beta, self.epsilon)?;
        let back: Vec<usize> = (0..rank).map(|a| order.iter().position(|&o| o == a).unwrap_or(a)).collect();
        Ok(vec![if sorted { y } else { scope.graph.transpose(y, &back)? }])
    }
}
