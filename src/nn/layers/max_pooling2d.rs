use crate::{
    graph::{OpError, Value},
    nn::{Layer, Scope, layer_common, layer_names},
    ops::{Padding, Pool2dOptions},
};

/// Largest value of each window (Keras `MaxPooling2D`): the strides are the window's size unless given.
///
/// ```
/// use hubel::prelude::*;
/// let model = Sequential::new([28, 28, 6]).add(MaxPooling2D::new(2)).build()?;
/// assert_eq!(model.output_shape().to_string(), "(N, 14, 14, 6)");
/// # Ok::<(), hubel::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct MaxPooling2D {
    size: [usize; 2],
    strides: Option<[usize; 2]>,
    padding: Padding,
    name: Option<String>,
}

impl MaxPooling2D {
    /// Returns a layer with windows of `size` × `size`, or of (height, width).
    pub fn new(size: impl Into<super::Pair>) -> Self {
        MaxPooling2D { size: size.into().0, strides: None, padding: Padding::Valid, name: None }
    }

    layer_common!();

    /// Returns the layer with these steps between windows.
    pub fn strides(mut self, strides: impl Into<super::Pair>) -> Self {
        self.strides = Some(strides.into().0);
        self
    }

    /// Returns the layer with this padding.
    pub fn padding(mut self, padding: Padding) -> Self {
        self.padding = padding;
        self
    }
}

impl Layer for MaxPooling2D {
    layer_names!("MaxPooling2D");

    fn build(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Value, OpError> {
        let options =
            Pool2dOptions { pool: self.size, strides: self.strides.unwrap_or(self.size), padding: self.padding };
        scope.graph.max_pool2d(inputs[0], options)
    }
}
