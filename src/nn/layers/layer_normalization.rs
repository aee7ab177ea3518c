use super::{layer, merge::axis};
use crate::{
    graph::{OpError, Value},
    nn::{Axis, Initializer, Scope},
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
        /// Sets the axes, counted from the batch, axis 0, or from the end if negative.
        into axis: Axis = Axis::One(-1),
        /// Sets the number added to the variance.
        set epsilon: f32 = 1e-3,
        /// Sets whether an offset `beta` is added.
        set center: bool = true,
        /// Sets whether the result is multiplied by a factor `gamma`.
        set scale: bool = true,
    } weights { gamma = Initializer::Ones, beta = Initializer::Zeros }
}

impl LayerNormalization {
    /// Returns the layer with Keras's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let shape = scope.graph.shape(inputs[0]).clone();
        let rank = shape.rank();
        let axes: Option<Vec<usize>> = self.axis.list().iter().map(|&a| axis(a, rank).filter(|&a| a > 0)).collect();
        let mut axes = axes.ok_or_else(|| {
            let (wanted, got) = (format!("axes from 1 to {}", rank - 1), format!("{:?}", self.axis.list()));
            OpError::new("layer_normalization", wanted, got, "choose axes of the sample")
        })?;
        axes.sort_unstable();
        let order: Vec<usize> = (0..rank).filter(|a| !axes.contains(a)).chain(axes.iter().copied()).collect();
        let extents: Vec<usize> = axes.iter().map(|&a| shape.dims()[a]).collect();
        let (gamma, beta) = (self.scale.then(|| self.gamma()), self.center.then(|| self.beta()));
        let [gamma, beta] = scope.gamma_beta(&extents, gamma, beta)?;
        let sorted = order.iter().enumerate().all(|(i, &a)| i == a);
        let x = if sorted { inputs[0] } else { scope.graph.transpose(inputs[0], &order)? };
        let y = scope.graph.layer_norm(x, gamma, beta, self.epsilon)?;
        let back: Vec<usize> = (0..rank).map(|a| order.iter().position(|&o| o == a).unwrap_or(a)).collect();
        Ok(vec![if sorted { y } else { scope.graph.transpose(y, &back)? }])
    }
}
