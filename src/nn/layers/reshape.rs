use super::{layer, merge::axis};
use crate::{
    graph::{OpError, Value},
    nn::Scope,
};

layer! {
    /// Reshapes samples (Keras `Reshape`); one extent may be −1 and follows from the others.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([12]).add(Reshape::new([2, -1, 3])).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 2, 2, 3)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct Reshape as "Reshape" {
        new target_shape: Vec<isize> = Vec::new(),
    }
}

impl Reshape {
    /// Returns a layer with this output shape, without the batch.
    pub fn new(target_shape: impl Into<Vec<isize>>) -> Self {
        Reshape { target_shape: target_shape.into(), ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let shape = scope.graph.shape(inputs[0]).clone();
        let elements: usize = shape.dims()[1..].iter().product();
        let known: Option<usize> = self
            .target_shape
            .iter()
            .filter(|&&d| d != -1)
            .try_fold(1usize, |p, &d| p.checked_mul(usize::try_from(d).ok()?));
        let open = self.target_shape.iter().filter(|&&d| d == -1).count();
        let fits = known.filter(|&k| match open {
            0 => k == elements,
            1 => k > 0 && elements.is_multiple_of(k),
            _ => false,
        });
        let known = fits.ok_or_else(|| {
            let (wanted, got) = (format!("a shape of {elements} elements"), format!("{:?}", self.target_shape));
            OpError::new("reshape", wanted, got, "choose extents whose product is the sample's; one of them may be -1")
        })?;
        let rest = elements / known.max(1);
        let dims: Vec<usize> = self.target_shape.iter().map(|&d| usize::try_from(d).unwrap_or(rest)).collect();
        Ok(vec![scope.graph.reshape(inputs[0], shape.with_row(&dims))?])
    }
}

layer! {
    /// Permutes a sample's axes (Keras `Permute`), counted from 1.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([10, 64]).add(Permute::new([2, 1])).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 64, 10)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct Permute as "Permute" {
        new dims: Vec<usize> = Vec::new(),
    }
}

impl Permute {
    /// Returns a layer whose output axis k is the input axis `dims[k − 1]`.
    pub fn new(dims: impl Into<Vec<usize>>) -> Self {
        Permute { dims: dims.into(), ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let order: Vec<usize> = [0].into_iter().chain(self.dims.iter().copied()).collect();
        Ok(vec![scope.graph.transpose(inputs[0], &order)?])
    }
}

layer! {
    /// Repeats each sample to a sequence (Keras `RepeatVector`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([8]).add(RepeatVector::new(3)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 3, 8)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct RepeatVector as "RepeatVector" {
        new n: usize = 1,
    }
}

impl RepeatVector {
    /// Returns a layer that repeats its input `n` times.
    pub fn new(n: usize) -> Self {
        RepeatVector { n, ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let shape = scope.graph.shape(inputs[0]).clone();
        if shape.rank() != 2 {
            return Err(OpError::new("repeat_vector", "an input of shape (N, features)", shape, "flatten it first"));
        }
        let row = scope.graph.reshape(inputs[0], shape.with_row(&[1, shape.last()]))?;
        Ok(vec![scope.graph.expand(row, &shape.with_row(&[self.n, shape.last()]))?])
    }
}

layer! {
    /// eˣ over its sum along an axis (Keras `Softmax`), by default the last.
    ///
    /// ```
    /// use hubel::prelude::*;
    /// let model = Sequential::new([4]).add(hubel::nn::SoftmaxLayer::new(-1)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 4)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct SoftmaxLayer as "Softmax" {
        new axis: isize = -1,
    }
}

impl SoftmaxLayer {
    /// Returns a layer for this axis, counted from the batch, axis 0, or from the end if negative.
    pub fn new(axis: isize) -> Self {
        SoftmaxLayer { axis, ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let rank = scope.graph.shape(inputs[0]).rank();
        let at = axis(self.axis, rank).filter(|&a| a > 0).ok_or_else(|| {
            let wanted = format!("an axis from 1 to {}", rank - 1);
            OpError::new("softmax", wanted, self.axis, "choose one of the sample's axes")
        })?;
        if at == rank - 1 {
            let y = scope.graph.softmax(inputs[0])?;
            scope.softmax_of(y, inputs[0]);
            return Ok(vec![y]);
        }
        let mut order: Vec<usize> = (0..rank).collect();
        order.swap(at, rank - 1);
        let x = scope.graph.transpose(inputs[0], &order)?;
        let y = scope.graph.softmax(x)?;
        Ok(vec![scope.graph.transpose(y, &order)?])
    }
}
