//! Pooling to a given size: window i of n along an axis of length L is from ⌊i·L/n⌋ to before ⌈(i + 1)·L/n⌉.

use super::{DataFormat, Pair, Single, Triple, layer};
use crate::{
    graph::{Graph, OpError, Value},
    nn::Scope,
    ops::Part,
};

/// Each uneven window is an operation of its own.
const MAX_WINDOWS: usize = 1 << 10;

type Reduced = fn(&mut Graph, Value, &[usize], bool) -> Result<Value, OpError>;

/// Returns a tensor with the windows along its positions reduced to one number each.
fn pooled(g: &mut Graph, mut x: Value, sizes: &[usize], reduce: Reduced) -> Result<Value, OpError> {
    let shape = g.shape(x).clone();
    let positions = shape.dims().get(1..shape.rank() - 1).unwrap_or_default();
    if positions.len() != sizes.len() || sizes.iter().zip(positions).any(|(to, from)| *to == 0 || to > from) {
        let wanted = format!("{} positions and an output size of at most theirs, from 1 up", sizes.len());
        let got = format!("{sizes:?} for {shape}");
        return Err(OpError::new("adaptive_pooling", wanted, got, "resize the input, or choose a smaller output"));
    }
    for (axis, (&to, &from)) in (1..).zip(sizes.iter().zip(positions)) {
        let mut row = g.shape(x).dims()[1..].to_vec();
        if from.is_multiple_of(to) {
            row.splice(axis - 1..axis, [to, from / to]);
            let windows = g.reshape(x, shape.with_row(&row))?;
            x = reduce(g, windows, &[axis + 1], false)?;
            continue;
        }
        if to > MAX_WINDOWS {
            let advice = "choose a size that divides the input's";
            return Err(OpError::new("adaptive_pooling", format!("at most {MAX_WINDOWS} uneven windows"), to, advice));
        }
        let windows = (0..to).map(|i| {
            let (start, end) = (i * from / to, ((i + 1) * from).div_ceil(to));
            let window = g.slice_axis(x, axis, Part::new(start, end - start))?;
            reduce(g, window, &[axis], true)
        });
        let windows = windows.collect::<Result<Vec<_>, _>>()?;
        x = g.concat(&windows, axis)?;
    }
    Ok(x)
}

/// Declares a layer that pools to a given size.
macro_rules! adaptive {
    ($($(#[$meta:meta])* $Layer:ident $kind:literal $Size:ident = $one:expr, $sizes:expr, $reduce:ident;)*) => {$(
        layer! {
            $(#[$meta])*
            pub struct $Layer as $kind {
                new output_size: $Size = $one,
                /// Sets the order of axes.
                into data_format: DataFormat = DataFormat::ChannelsLast,
            }
        }

        impl $Layer {
            /// Returns a layer with this output size.
            pub fn new(output_size: impl Into<$Size>) -> Self {
                $Layer { output_size: output_size.into(), ..Self::default() }
            }

            fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
                let sizes: Vec<usize> = $sizes(&self.output_size);
                let pool = |scope: &mut Scope, x| pooled(scope.graph, x, &sizes, Graph::$reduce);
                Ok(vec![self.data_format.last(scope, inputs[0], pool)?])
            }
        }
    )*};
}

adaptive! {
    /// Mean of as many windows of a sequence as the result has steps (Keras `AdaptiveAveragePooling1D`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([8, 3]).add(AdaptiveAveragePooling1D::new(5)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 5, 3)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    AdaptiveAveragePooling1D "AdaptiveAveragePooling1D" Single = Single(1), |size: &Single| vec![size.0], mean_axes;
    /// Mean of as many windows of an image as the result has pixels (Keras `AdaptiveAveragePooling2D`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([8, 6, 3]).add(AdaptiveAveragePooling2D::new([4, 3])).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 4, 3, 3)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    AdaptiveAveragePooling2D "AdaptiveAveragePooling2D" Pair = Pair([1; 2]), |size: &Pair| size.0.to_vec(), mean_axes;
    /// Mean of as many windows of a volume as the result has voxels (Keras `AdaptiveAveragePooling3D`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([4, 8, 6, 3]).add(AdaptiveAveragePooling3D::new([2, 4, 3])).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 2, 4, 3, 3)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    AdaptiveAveragePooling3D "AdaptiveAveragePooling3D" Triple = Triple([1; 3]), |size: &Triple| size.0.to_vec(), mean_axes;
    /// Largest value of as many windows of a sequence as the result has steps (Keras `AdaptiveMaxPooling1D`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([8, 3]).add(AdaptiveMaxPooling1D::new(5)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 5, 3)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    AdaptiveMaxPooling1D "AdaptiveMaxPooling1D" Single = Single(1), |size: &Single| vec![size.0], max_axes;
    /// Largest value of as many windows of an image as the result has pixels (Keras `AdaptiveMaxPooling2D`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([8, 6, 3]).add(AdaptiveMaxPooling2D::new(2)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 2, 2, 3)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    AdaptiveMaxPooling2D "AdaptiveMaxPooling2D" Pair = Pair([1; 2]), |size: &Pair| size.0.to_vec(), max_axes;
    /// Largest value of as many windows of a volume as the result has voxels (Keras `AdaptiveMaxPooling3D`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([4, 8, 6, 3]).add(AdaptiveMaxPooling3D::new(2)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 2, 2, 2, 3)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    AdaptiveMaxPooling3D "AdaptiveMaxPooling3D" Triple = Triple([1; 3]), |size: &Triple| size.0.to_vec(), max_axes;
}
