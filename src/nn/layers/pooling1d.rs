use super::{DataFormat, Single, SingleStrides, layer};
use crate::{
    graph::{Graph, OpError, Value},
    nn::Scope,
    ops::{Padding, Pool2dOptions},
};

/// Declares a layer that pools windows of sequences by a method of the graph.
macro_rules! pooling {
    ($(#[$meta:meta])* $Layer:ident $kind:literal $pool:ident) => {
        layer! {
            $(#[$meta])*
            pub struct $Layer as $kind {
                new pool_size: Single = Single(2),
                /// Sets the stride; `None` is the size of the window.
                into strides: SingleStrides = SingleStrides(None),
                /// Sets the padding.
                set padding: Padding = Padding::Valid,
                /// Sets the order of axes.
                into data_format: DataFormat = DataFormat::ChannelsLast,
            }
        }

        impl $Layer {
            /// Returns a layer with windows of `pool_size` timesteps.
            pub fn new(pool_size: usize) -> Self {
                $Layer { pool_size: Single(pool_size), ..Self::default() }
            }

            fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
                let (pool, stride) = (self.pool_size.0, self.strides.0.unwrap_or(self.pool_size).0);
                let options = Pool2dOptions { pool: [1, pool], strides: [1, stride], padding: self.padding };
                let y = self.data_format.last(scope, inputs[0], |scope, x| Graph::$pool(scope.graph, x, options))?;
                Ok(vec![y])
            }
        }
    };
}

pooling! {
    /// Largest value of each window of a sequence (N, length, channels) (Keras `MaxPooling1D`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([28, 6]).add(MaxPooling1D::new(2)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 14, 6)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    MaxPooling1D "MaxPooling1D" max_pool1d
}

pooling! {
    /// Mean of each window of a sequence (N, length, channels) (Keras `AveragePooling1D`), padding not counted.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([28, 6]).add(AveragePooling1D::new(2)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 14, 6)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    AveragePooling1D "AveragePooling1D" avg_pool1d
}
