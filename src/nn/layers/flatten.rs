use crate::{
    graph::{OpError, Value},
    nn::{Layer, Scope, layer_common, layer_names},
};

/// All axes but the batch as one, row-major over (height, width, channels) (Keras `Flatten`).
///
/// ```
/// use hubel::prelude::*;
/// let model = Sequential::new([5, 5, 16]).add(Flatten::new()).build()?;
/// assert_eq!(model.output_shape().to_string(), "(N, 400)");
/// # Ok::<(), hubel::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Flatten {
    name: Option<String>,
}

impl Flatten {
    /// Returns the layer.
    pub fn new() -> Self {
        Self::default()
    }

    layer_common!();
}

impl Layer for Flatten {
    layer_names!("Flatten");

    fn build(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Value, OpError> {
        scope.graph.flatten(inputs[0])
    }
}
