use super::layer;
use crate::{
    graph::{Graph, OpError, Value},
    nn::{LayerError, Scope, Tensor, call},
};

/// Declares a layer that combines tensors by a binary function, and the function on tensors.
macro_rules! merging {
    ($($(#[$meta:meta])* $Layer:ident $kind:literal $function:ident $binary:literal $min:literal..=$max:expr, $mean:literal;)*) => {$(
        layer! {
            $(#[$meta])*
            pub struct $Layer as $kind {}
        }

        impl $Layer {
            /// Returns the layer.
            pub fn new() -> Self {
                Self::default()
            }

            fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
                if !($min..=$max).contains(&inputs.len()) {
                    let prefix = if $min == $max { "" } else { "at least " };
                    let (wanted, advice) = (format!("{prefix}{} inputs", $min), "list the tensors to combine");
                    return Err(OpError::new(stringify!($function), wanted, inputs.len(), advice));
                }
                let y = combine(scope.graph, stringify!($function), $binary, inputs)?;
                Ok(vec![if $mean { scope.graph.scale(y, 1.0 / inputs.len() as f32)? } else { y }])
            }
        }

        /// Applies the layer of this name to tensors.
        pub fn $function(tensors: &[Tensor]) -> Result<Tensor, LayerError> {
            call($Layer::new(), tensors)
        }
    )*};
}

merging! {
    /// Sum of tensors (Keras `Add`); axes of extent 1 are repeated.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let x = Input::new([8, 8, 4]);
    /// let y = x.apply(Conv2D::new(4, 3).padding(Same))?;
    /// assert_eq!(add(&[x, y])?.shape().to_string(), "(N, 8, 8, 4)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    Add "Add" add "add" 2..=usize::MAX, false;
    /// Difference of two tensors (Keras `Subtract`).
    Subtract "Subtract" subtract "sub" 2..=2, false;
    /// Product of tensors (Keras `Multiply`); axes of extent 1 are repeated, as in squeeze-and-excitation.
    Multiply "Multiply" multiply "mul" 2..=usize::MAX, false;
    /// Mean of tensors (Keras `Average`).
    Average "Average" average "add" 2..=usize::MAX, true;
    /// Elementwise maximum (Keras `Maximum`).
    Maximum "Maximum" maximum "max" 2..=usize::MAX, false;
    /// Elementwise minimum (Keras `Minimum`).
    Minimum "Minimum" minimum "min" 2..=usize::MAX, false;
}

/// Returns the inputs combined from the left; each axis is equal or 1.
fn combine(g: &mut Graph, op: &str, function: &str, inputs: &[Value]) -> Result<Value, OpError> {
    let first = g.shape(inputs[0]).clone();
    for &input in &inputs[1..] {
        let shape = g.shape(input);
        let equal = |(a, b): (&usize, &usize)| a == b || *a == 1 || *b == 1;
        if shape.rank() != first.rank() || !first.dims().iter().zip(shape.dims()).all(equal) {
            let advice = "give the branches the same shape: a 1×1 convolution changes channels, strides change sizes";
            return Err(OpError::new(op, format!("inputs of shape {first}"), shape, advice));
        }
    }
    inputs[1..].iter().try_fold(inputs[0], |y, &x| g.binary(function, y, x))
}

layer! {
    /// The first tensor plus `scale` times the second: the residual sum of Keras's `InceptionResNetV2`.
    ///
    /// ```
    /// use hubel::{nn::{CustomScaleLayer, call}, layers::*, prelude::*};
    /// let x = Input::new([8, 8, 4]);
    /// let y = call(CustomScaleLayer::new(0.17), &[x.clone(), x.apply(Conv2D::new(4, 1))?])?;
    /// assert_eq!(y.shape().to_string(), "(N, 8, 8, 4)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct CustomScaleLayer as "CustomScaleLayer" {
        new scale: f32 = 1.0,
    }
}

impl CustomScaleLayer {
    /// Returns a layer with this factor on the second tensor.
    pub fn new(scale: f32) -> Self {
        CustomScaleLayer { scale, ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let &[x, y] = inputs else {
            let advice = "list the shortcut and the residual";
            return Err(OpError::new("custom_scale_layer", "2 inputs", inputs.len(), advice));
        };
        let scaled = scope.graph.scale(y, self.scale)?;
        Ok(vec![combine(scope.graph, "custom_scale_layer", "add", &[x, scaled])?])
    }
}

layer! {
    /// Concatenates tensors along an axis (Keras `Concatenate`), by default the last.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let (a, b) = (Input::new([8, 8, 4]), Input::new([8, 8, 2]));
    /// assert_eq!(concatenate(&[a, b])?.shape().to_string(), "(N, 8, 8, 6)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct Concatenate as "Concatenate" {
        /// Sets the axis, counted from the batch, axis 0, or from the end if negative.
        set axis: isize = -1,
    }
}

impl Concatenate {
    /// Returns a layer for the last axis.
    pub fn new() -> Self {
        Self::default()
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let rank = scope.graph.shape(inputs[0]).rank();
        let axis = axis(self.axis, rank).filter(|&a| a > 0).ok_or_else(|| {
            let wanted = format!("an axis from 1 to {} or from -{} to -1", rank - 1, rank - 1);
            OpError::new("concatenate", wanted, self.axis, "choose another axis than the batch's")
        })?;
        Ok(vec![scope.graph.concat(inputs, axis)?])
    }
}

/// Returns an axis counted from the front, or `None` out of range.
pub(crate) fn axis(axis: isize, rank: usize) -> Option<usize> {
    let at = if axis < 0 { axis + rank as isize } else { axis };
    usize::try_from(at).ok().filter(|&a| a < rank)
}

/// Concatenates tensors along the last axis; see [`Concatenate`].
pub fn concatenate(tensors: &[Tensor]) -> Result<Tensor, LayerError> {
    call(Concatenate::new(), tensors)
}
