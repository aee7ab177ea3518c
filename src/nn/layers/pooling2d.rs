use super::{DataFormat, Pair, Strides, layer};
use crate::{
    graph::{Graph, OpError, Value},
    nn::Scope,
    ops::{Padding, Pool2dOptions},
};

/// Declares a layer that pools windows by a method of the graph.
macro_rules! pooling {
    ($(#[$meta:meta])* $Layer:ident $kind:literal $pool:ident) => {
        layer! {
            $(#[$meta])*
            pub struct $Layer as $kind {
                new pool_size: Pair = Pair([2, 2]),
                /// Sets the strides; `None` is the size of the window.
                into strides: Strides = Strides(None),
                /// Sets the padding.
                set padding: Padding = Padding::Valid,
                /// Sets the order of axes.
                into data_format: DataFormat = DataFormat::ChannelsLast,
            }
        }

        impl $Layer {
            /// Returns a layer with windows of `pool_size` × `pool_size`, or of (height, width).
            pub fn new(pool_size: impl Into<Pair>) -> Self {
                $Layer { pool_size: pool_size.into(), ..Self::default() }
            }

            fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
                let (pool, strides) = (self.pool_size.0, self.strides.0.unwrap_or(self.pool_size).0);
                let options = Pool2dOptions { pool, strides, padding: self.padding };
                let y = self.data_format.last(scope, inputs[0], |scope, x| Graph::$pool(scope.graph, x, options))?;
                Ok(vec![y])
            }
        }
    };
}

pooling! {
    /// Largest value of each window (Keras `MaxPooling2D`): the strides are the window's size unless given.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([28, 28, 6]).add(MaxPooling2D::new(2)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 14, 14, 6)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    MaxPooling2D "MaxPooling2D" max_pool2d
}

pooling! {
    /// Mean of each window (Keras `AveragePooling2D`), padding not counted: the strides are the window's size unless
    /// given.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([28, 28, 6]).add(AveragePooling2D::new(2)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 14, 14, 6)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    AveragePooling2D "AveragePooling2D" avg_pool2d
}

pooling! {
    /// Root of the sum of squares of each window, y = √Σx² (ONNX LpPool with p = 2; Keras has none): the strides are the
    /// window's size unless given, padding counts as zeros, and the gradient of a window of zeros is 0.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([28, 28, 6]).add(LpPooling2D::new(2)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 14, 14, 6)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    LpPooling2D "LpPooling2D" lp_pool2d
}
