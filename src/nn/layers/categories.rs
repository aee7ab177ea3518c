use super::layer;
use crate::{
    graph::{OpError, Value},
    nn::Scope,
};
use serde::{Deserialize, Serialize};

/// What [`CategoryEncoding`] makes of whole numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EncodingMode {
    /// One at the number, for each number.
    OneHot,
    /// One at each of a sample's numbers.
    #[default]
    MultiHot,
    /// How often each number is in a sample.
    Count,
}

layer! {
    /// Encodes whole numbers below `num_tokens` (Keras `CategoryEncoding`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([3]).add(CategoryEncoding::new(5)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 5)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct CategoryEncoding as "CategoryEncoding" {
        new num_tokens: usize = 1,
        /// Sets what is made of them.
        set output_mode: EncodingMode = EncodingMode::MultiHot,
    }
}

impl CategoryEncoding {
    /// Returns a layer for numbers below `num_tokens`.
    pub fn new(num_tokens: usize) -> Self {
        CategoryEncoding { num_tokens, ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let (g, x) = (&mut *scope.graph, inputs[0]);
        let shape = g.shape(x).clone();
        if shape.rank() < 2 || self.num_tokens > 1 << 20 {
            return Err(OpError::new("category_encoding", "samples with an axis", shape, "reshape them"));
        }
        let numbers: Vec<f32> = (0..self.num_tokens).map(|n| n as f32).collect();
        let numbers = g.literal([self.num_tokens], numbers)?;
        let mut dims = shape.dims()[1..].to_vec();
        // An axis of one number becomes the encoding.
        if self.output_mode == EncodingMode::OneHot && dims.last() == Some(&1) {
            dims.pop();
        }
        dims.push(1);
        let x = g.reshape(x, shape.with_row(&dims))?;
        let hot = g.binary("equal", x, numbers)?;
        let axis = dims.len() - 1;
        Ok(vec![match self.output_mode {
            EncodingMode::OneHot => hot,
            EncodingMode::MultiHot => g.max_axes(hot, &[axis], false)?,
            EncodingMode::Count => g.sum(hot, &[axis], false)?,
        }])
    }
}

layer! {
    /// Counts how many boundaries a number reaches (Keras `Discretization`): its bin.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([3]).add(Discretization::new([0.0, 1.0])).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 3)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct Discretization as "Discretization" {
        new bin_boundaries: Vec<f32> = Vec::new(),
        /// Sets the form of the result; only `int` is supported.
        into output_mode: String = "int".to_owned(),
        /// Sets how exactly boundaries are found from data, which happens in Keras.
        set epsilon: f32 = 0.01,
    }
}

impl Discretization {
    /// Returns a layer with these boundaries between bins, in order.
    pub fn new(bin_boundaries: impl Into<Vec<f32>>) -> Self {
        Discretization { bin_boundaries: bin_boundaries.into(), ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        if self.output_mode != "int" || self.bin_boundaries.is_empty() {
            let advice = "give bin_boundaries, and encode the bins by CategoryEncoding";
            return Err(OpError::new("discretization", "boundaries and the mode int", &self.output_mode, advice));
        }
        let (g, x) = (&mut *scope.graph, inputs[0]);
        let shape = g.shape(x).clone();
        let x = g.reshape(x, shape.with_row(&[&shape.dims()[1..], &[1]].concat()))?;
        let borders = g.literal([self.bin_boundaries.len()], self.bin_boundaries.clone())?;
        let reached = g.binary("greater_equal", x, borders)?;
        Ok(vec![g.sum(reached, &[shape.rank()], false)?])
    }
}
