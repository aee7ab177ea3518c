use super::{DataFormat, layer};
use crate::{
    graph::{Graph, OpError, Value},
    nn::Scope,
};

/// Declares a layer that reduces all positions of images or sequences.
macro_rules! pooling {
    ($($(#[$meta:meta])* $Layer:ident $kind:literal $reduce:ident $rank:literal;)*) => {$(
        layer! {
            $(#[$meta])*
            pub struct $Layer as $kind {
                /// Sets the order of axes.
                into data_format: DataFormat = DataFormat::ChannelsLast,
                /// Sets whether the reduced axes are kept, of extent 1.
                set keepdims: bool = false,
            }
        }

        impl $Layer {
            /// Returns the layer.
            pub fn new() -> Self {
                Self::default()
            }

            fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
                let shape = scope.graph.shape(inputs[0]);
                if shape.rank() != $rank {
                    let wanted = format!("an input of {} axes", $rank);
                    return Err(OpError::new("global_pooling", wanted, shape, "put the layer before Flatten"));
                }
                let axes: Vec<usize> = (1..$rank - 1).collect();
                if let (Some(mask), "mean_axes") = (scope.mask(inputs[0]), stringify!($reduce)) {
                    return Ok(vec![counted_mean(scope.graph, inputs[0], mask, self.keepdims)?]);
                }
                let y = self.data_format.last(scope, inputs[0], |scope, x| {
                    Graph::$reduce(scope.graph, x, &axes, self.keepdims)
                })?;
                Ok(vec![y])
            }
        }
    )*};
}

pooling! {
    /// Mean of each channel of an image (Keras `GlobalAveragePooling2D`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([7, 7, 512]).add(GlobalAveragePooling2D::new()).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 512)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    GlobalAveragePooling2D "GlobalAveragePooling2D" mean_axes 4;
    /// Largest value of each channel of an image (Keras `GlobalMaxPooling2D`).
    GlobalMaxPooling2D "GlobalMaxPooling2D" max_axes 4;
    /// Mean of each channel of a sequence (Keras `GlobalAveragePooling1D`).
    GlobalAveragePooling1D "GlobalAveragePooling1D" mean_axes 3;
    /// Largest value of each channel of a sequence (Keras `GlobalMaxPooling1D`).
    GlobalMaxPooling1D "GlobalMaxPooling1D" max_axes 3;
    /// Mean of each channel of a volume (Keras `GlobalAveragePooling3D`).
    GlobalAveragePooling3D "GlobalAveragePooling3D" mean_axes 5;
    /// Largest value of each channel of a volume (Keras `GlobalMaxPooling3D`).
    GlobalMaxPooling3D "GlobalMaxPooling3D" max_axes 5;
}

/// Returns the mean of the timesteps that count.
fn counted_mean(g: &mut Graph, x: Value, mask: Value, keepdims: bool) -> Result<Value, OpError> {
    let shape = g.shape(x).clone();
    let counts = g.reshape(mask, shape.with_row(&[shape.dims()[1], 1]))?;
    let counted = g.mul(x, counts)?;
    let (sum, n) = (g.sum(counted, &[1], true)?, g.sum(counts, &[1], true)?);
    let mean = g.div(sum, n)?;
    if keepdims { Ok(mean) } else { g.reshape(mean, shape.with_row(&[shape.last()])) }
}
