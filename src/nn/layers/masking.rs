use super::layer;
use crate::{
    graph::{OpError, Value},
    nn::Scope,
};

layer! {
    /// Masks timesteps all of whose features are `mask_value` (Keras `Masking`): recurrent layers and the mean over time
    /// pass over them.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([10, 3]).add(Masking::new(0.0)).add(LSTM::new(4)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 4)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct Masking as "Masking" {
        new mask_value: f32 = 0.0,
    }
}

impl Masking {
    /// Returns a layer for this value.
    pub fn new(mask_value: f32) -> Self {
        Masking { mask_value, ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let (g, x) = (&mut *scope.graph, inputs[0]);
        let shape = g.shape(x).clone();
        let &[_, steps, _] = shape.dims() else {
            let advice = "give samples a time axis and a feature axis";
            return Err(OpError::new("masking", "an input of shape (N, timesteps, features)", shape, advice));
        };
        let value = g.constant(self.mask_value)?;
        let differs = g.binary("not_equal", x, value)?;
        let counts = g.max_axes(differs, &[2], true)?;
        let y = g.mul(x, counts)?;
        let mask = g.reshape(counts, shape.with_row(&[steps]))?;
        scope.set_mask(y, mask);
        Ok(vec![y])
    }
}
