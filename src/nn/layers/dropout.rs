use crate::{
    graph::{OpError, Value},
    nn::{Layer, Mode, Scope, layer_common, layer_names},
};

/// Sets a share `rate` of the inputs to zero in training and scales the others by 1/(1 − rate)
/// (Srivastava et al. 2014; Keras `Dropout`).
///
/// ```
/// use hubel::prelude::*;
/// let model = Sequential::new([10]).add(Dropout::new(0.2)).build()?;
/// assert_eq!(model.count_params(), 0);
/// # Ok::<(), hubel::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Dropout {
    rate: f32,
    name: Option<String>,
}

impl Dropout {
    /// Returns a layer that drops a share `rate` in [0, 1) of its inputs.
    pub fn new(rate: f32) -> Self {
        Dropout { rate, name: None }
    }

    layer_common!();
}

impl Layer for Dropout {
    layer_names!("Dropout");

    fn build(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Value, OpError> {
        match scope.mode {
            Mode::Training => {
                let name = scope.layer().to_owned();
                scope.graph.dropout(inputs[0], self.rate, &name)
            }
            Mode::Inference => Ok(inputs[0]),
        }
    }
}
