use super::{layer, merge::axis};
use crate::{
    graph::{Graph, OpError, Value},
    nn::{Axis, Initializer, Scope},
};

layer! {
    /// Divides by the Euclidean length along axes (Keras `UnitNormalization`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([10]).add(UnitNormalization::new()).build()?;
    /// assert_eq!(model.count_params(), 0);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct UnitNormalization as "UnitNormalization" {
        /// Sets the axes, counted from the batch, axis 0, or from the end if negative.
        into axis: Axis = Axis::One(-1),
    }
}

impl UnitNormalization {
    /// Returns the layer for the last axis.
    pub fn new() -> Self {
        Self::default()
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let (g, x) = (&mut *scope.graph, inputs[0]);
        let axes = sorted_axes("unit_normalization", &self.axis, g.shape(x).rank())?;
        let squares = g.sum_squares(x, &axes, true)?;
        // Keras's 1e-12 squared is 0 in f32.
        let least = g.constant(1e-24)?;
        let held = g.max(squares, least)?;
        let length = g.unary("rsqrt", held)?;
        Ok(vec![g.mul(x, length)?])
    }
}

layer! {
    /// Divides by the root of the mean square along an axis, and multiplies by a learned `scale` (Zhang and Sennrich
    /// 2019; Keras `RMSNormalization`): epsilon 1e-6.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([10]).add(RMSNormalization::new()).build()?;
    /// assert_eq!(model.count_params(), 10);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct RMSNormalization as "RMSNormalization" {
        /// Sets the axes, counted from the batch, axis 0, or from the end if negative.
        into axis: Axis = Axis::One(-1),
        /// Sets the number added to the mean square.
        set epsilon: f32 = 1e-6,
    }
}

impl RMSNormalization {
    /// Returns the layer for the last axis.
    pub fn new() -> Self {
        Self::default()
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let shape = scope.graph.shape(inputs[0]).clone();
        let axes = sorted_axes("rms_normalization", &self.axis, shape.rank())?;
        let extents: Vec<usize> = axes.iter().map(|&a| shape.dims()[a]).collect();
        let spread: Vec<usize> =
            (1..shape.rank()).map(|a| if axes.contains(&a) { shape.dims()[a] } else { 1 }).collect();
        let scale = scope.weight("scale", &extents, &Initializer::Ones)?;
        let g = &mut *scope.graph;
        let (scale, factor) = (g.reshape(scale, spread)?, inverse_root(g, inputs[0], &axes, self.epsilon)?);
        let y = g.mul(inputs[0], factor)?;
        Ok(vec![g.mul(y, scale)?])
    }
}

/// Returns one over the root of the mean square along axes and `epsilon`.
fn inverse_root(g: &mut Graph, x: Value, axes: &[usize], epsilon: f32) -> Result<Value, OpError> {
    let (square, epsilon) = (g.unary("square", x)?, g.constant(epsilon)?);
    let mean = g.mean_axes(square, axes, true)?;
    let held = g.add(mean, epsilon)?;
    g.unary("rsqrt", held)
}

/// Returns axes of samples in order.
fn sorted_axes(op: &str, axes: &Axis, rank: usize) -> Result<Vec<usize>, OpError> {
    let found: Option<Vec<usize>> = axes.list().iter().map(|&a| axis(a, rank).filter(|&a| a > 0)).collect();
    let mut found = found.ok_or_else(|| {
        let (wanted, got) = (format!("axes from 1 to {}", rank - 1), format!("{:?}", axes.list()));
        OpError::new(op, wanted, got, "choose axes of the sample")
    })?;
    found.sort_unstable();
    Ok(found)
}
