use super::layer;
use crate::{
    graph::{OpError, Value},
    nn::{Initializer, Regularizer, Scope},
};

layer! {
    /// Looks up rows of a learned table by integers (Keras `Embedding`): (N, length) → (N, length, output_dim).
    ///
    /// Integers outside `0..input_dim` give zeros.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([10]).add(Embedding::new(1000, 16)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 10, 16)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct Embedding as "Embedding" {
        new input_dim: usize = 1,
        new output_dim: usize = 1,
        /// Sets whether 0 marks what does not count; see [`Masking`](super::Masking).
        set mask_zero: bool = false,
        /// Adds a penalty on the outputs to the loss.
        into activity_regularizer: Option<Regularizer> = None,
    } weights { embeddings = Initializer::RandomUniform { minval: -0.05, maxval: 0.05 } }
}

impl Embedding {
    /// Returns a layer with a table of `input_dim` rows of `output_dim` values.
    pub fn new(input_dim: usize, output_dim: usize) -> Self {
        Embedding { input_dim, output_dim, ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let table = scope.weight("embeddings", &[self.input_dim, self.output_dim], self.embeddings())?;
        let y = scope.graph.embedding(table, inputs[0])?;
        if self.mask_zero {
            let zero = scope.graph.constant(0.0)?;
            let mask = scope.graph.binary("not_equal", inputs[0], zero)?;
            scope.set_mask(y, mask);
        }
        scope.activity(&self.activity_regularizer, y)?;
        Ok(vec![y])
    }
}
