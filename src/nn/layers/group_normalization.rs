use super::{layer, merge::axis};
use crate::{
    graph::{OpError, Value},
    nn::{Constraint, Initializer, Regularizer, Scope},
};

layer! {
    /// Normalises groups of channels of each sample (Wu and He 2018; Keras `GroupNormalization`): 32 groups,
    /// epsilon 1e-3.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([8, 8, 64]).add(GroupNormalization::new()).build()?;
    /// assert_eq!(model.count_params(), 128);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct GroupNormalization as "GroupNormalization" {
        /// Returns the layer with so many groups; −1 normalises each channel alone.
        set groups: isize = 32,
        /// Returns the layer for channels in this axis, the last by default.
        set axis: isize = -1,
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

impl GroupNormalization {
    /// Returns the layer with Keras's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let rank = scope.graph.shape(inputs[0]).rank();
        let at = axis(self.axis, rank).filter(|&a| a > 0).ok_or_else(|| {
            let wanted = format!("an axis from 1 to {}", rank - 1);
            OpError::new("group_normalization", wanted, self.axis, "channels stand in one of the sample's axes")
        })?;
        let mut order: Vec<usize> = (0..rank).filter(|&a| a != at).collect();
        order.push(at);
        let x = if at == rank - 1 { inputs[0] } else { scope.graph.transpose(inputs[0], &order)? };
        let c = scope.graph.shape(x).last();
        let gamma = match self.scale {
            true => scope.weight("gamma", &[c], (&self.gamma_initializer, &self.gamma_regularizer, &self.gamma_constraint))?,
            false => scope.filled(&[c], 1.0)?,
        };
        let beta = match self.center {
            true => scope.weight("beta", &[c], (&self.beta_initializer, &self.beta_regularizer, &self.beta_constraint))?,
            false => scope.filled(&[c], 0.0)?,
        };
        let groups = if self.groups == -1 { c } else { usize::try_from(self.groups).unwrap_or(0) };
        let y = scope.graph.group_norm(x, gamma, beta, groups, self.epsilon)?;
        let back: Vec<usize> = (0..rank).map(|a| order.iter().position(|&o| o == a).unwrap_or(a)).collect();
        Ok(vec![if at == rank - 1 { y } else { scope.graph.transpose(y, &back)? }])
    }
}
