use super::layer;
use crate::{
    graph::{OpError, Value},
    nn::Scope,
    ops::LocalResponseNorm,
};

layer! {
    /// x / (`bias` + `alpha` / `size` · Σ x²)^`beta`, the sum over `size` neighbouring channels (Krizhevsky et al. 2012;
    /// with the names, defaults and meaning of PyTorch's `LocalResponseNorm`, whose k is `bias`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([27, 27, 96]).add(LocalResponseNormalization::new(5).bias(2.0)).build()?;
    /// assert_eq!(model.count_params(), 0);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct LocalResponseNormalization as "LocalResponseNormalization" {
        new size: usize = 5,
        /// Sets the factor on the mean square.
        set alpha: f32 = 1e-4,
        /// Sets the exponent.
        set beta: f32 = 0.75,
        /// Sets the number added to the squares.
        set bias: f32 = 1.0,
    }
}

impl LocalResponseNormalization {
    /// Returns a layer that sums over `size` channels.
    pub fn new(size: usize) -> Self {
        LocalResponseNormalization { size, ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let norm = LocalResponseNorm { size: self.size, alpha: self.alpha, beta: self.beta, bias: self.bias };
        Ok(vec![scope.graph.local_response_norm(inputs[0], norm)?])
    }
}
