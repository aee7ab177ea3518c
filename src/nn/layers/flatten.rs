use super::{DataFormat, layer};
use crate::{
    graph::{OpError, Value},
    nn::Scope,
};

layer! {
    /// Merges all axes of a sample (Keras `Flatten`), row-major over (H, W, C).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([5, 5, 16]).add(Flatten::new()).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 400)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct Flatten as "Flatten" {
        /// Sets the order of the input's axes; the output always has that of `ChannelsLast`.
        into data_format: DataFormat = DataFormat::ChannelsLast,
    }
}

impl Flatten {
    /// Returns the layer.
    pub fn new() -> Self {
        Self::default()
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let y = self.data_format.last(scope, inputs[0], |scope, x| scope.graph.flatten(x))?;
        Ok(vec![y])
    }
}
