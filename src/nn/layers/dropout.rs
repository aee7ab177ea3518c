use super::layer;
use crate::{
    graph::{OpError, Value},
    nn::{Mode, Scope},
};

layer! {
    /// Sets a share `rate` of the inputs to zero in training and scales the others by 1/(1 − rate)
    /// (Srivastava et al. 2014; Keras `Dropout`).
    ///
    /// ```
    /// use hubel::prelude::*;
    /// let model = Sequential::new([10]).add(Dropout::new(0.2)).build()?;
    /// assert_eq!(model.count_params(), 0);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct Dropout as "Dropout" {
        new rate: f32 = 0.5,
    }
}

impl Dropout {
    /// Returns a layer that drops a share `rate` in [0, 1) of its inputs.
    pub fn new(rate: f32) -> Self {
        Dropout { rate, ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        Ok(vec![match scope.mode {
            Mode::Training => {
                let name = scope.layer().to_owned();
                scope.graph.dropout(inputs[0], self.rate, &name)?
            }
            Mode::Inference => inputs[0],
        }])
    }
}
