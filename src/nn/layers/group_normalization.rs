use super::{layer, merge::axis};
use crate::{
    graph::{OpError, Value},
    nn::{Initializer, Scope},
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
        /// Sets the number of groups; −1 normalises each channel on its own.
        set groups: isize = 32,
        /// Sets the axis of the channels, counted from the batch, axis 0, or from the end if negative.
        set axis: isize = -1,
        /// Sets the number added to the variance.
        set epsilon: f32 = 1e-3,
        /// Sets whether an offset `beta` is added.
        set center: bool = true,
        /// Sets whether the result is multiplied by a factor `gamma`.
        set scale: bool = true,
    } weights { gamma = Initializer::Ones, beta = Initializer::Zeros }
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
            OpError::new("group_normalization", wanted, self.axis, "channels are one of the sample's axes")
        })?;
        let mut order: Vec<usize> = (0..rank).filter(|&a| a != at).collect();
        order.push(at);
        let x = if at == rank - 1 { inputs[0] } else { scope.graph.transpose(inputs[0], &order)? };
        let c = scope.graph.shape(x).last();
        let (gamma, beta) = (self.scale.then(|| self.gamma()), self.center.then(|| self.beta()));
        let [gamma, beta] = scope.gamma_beta(&[c], gamma, beta)?;
        let groups = if self.groups == -1 { c } else { usize::try_from(self.groups).unwrap_or(0) };
        let y = scope.graph.group_norm(x, gamma, beta, groups, self.epsilon)?;
        let back: Vec<usize> = (0..rank).map(|a| order.iter().position(|&o| o == a).unwrap_or(a)).collect();
        Ok(vec![if at == rank - 1 { y } else { scope.graph.transpose(y, &back)? }])
    }
}
