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
    /// The number itself, of [`IntegerLookup`] alone.
    Int,
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
            EncodingMode::Int => {
                let advice = "choose one_hot, multi_hot or count";
                return Err(OpError::new("category_encoding", "a form of encoding", "int", advice));
            }
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

layer! {
    /// Replaces whole numbers by their places in a vocabulary (Keras `IntegerLookup`), behind that of all others.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([3]).add(IntegerLookup::new([10, 20])).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 3)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct IntegerLookup as "IntegerLookup" {
        new vocabulary: Option<Vec<i32>> = None,
        /// Sets the number of places for numbers outside the vocabulary: 0 or 1. Without one they become −1.
        set num_oov_indices: usize = 1,
        /// Sets a number for what is missing, whose place is 0.
        into mask_token: Option<i32> = None,
        /// Sets what is made of the places.
        set output_mode: EncodingMode = EncodingMode::Int,
        /// Sets the largest size of a vocabulary that Keras finds in data.
        into max_tokens: Option<usize> = None,
        /// Sets the number that Keras puts for others when it looks up backwards.
        set oov_token: i32 = -1,
        /// Sets whether places are replaced by numbers; only `false` is supported.
        set invert: bool = false,
        /// Sets whether encodings have `max_tokens` columns; only `false` is supported.
        set pad_to_max_tokens: bool = false,
        /// Sets the type of the vocabulary in Keras.
        into vocabulary_dtype: String = "int64".to_owned(),
    }
}

impl IntegerLookup {
    /// Returns a layer with this vocabulary.
    pub fn new(vocabulary: impl Into<Vec<i32>>) -> Self {
        IntegerLookup { vocabulary: Some(vocabulary.into()), ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let error = |wanted: &str, got: String, advice: &str| Err(OpError::new("integer_lookup", wanted, got, advice));
        let known = self.vocabulary.as_deref().unwrap_or_default();
        if known.is_empty() || known.len() > 1 << 16 {
            let advice = "give the layer its `vocabulary` in Keras, where `adapt` keeps it outside the configuration";
            return error("a vocabulary of 1 to 65536 numbers", known.len().to_string(), advice);
        }
        if known.iter().chain(&self.mask_token).any(|n| n.unsigned_abs() > 1 << 24) {
            return error("numbers of at most 2²⁴", "larger ones".into(), "renumber them");
        }
        let encoded = self.output_mode != EncodingMode::Int;
        if self.num_oov_indices > 1 || self.invert || self.pad_to_max_tokens || (encoded && self.mask_token.is_some()) {
            let got = format!(
                "{} of them, invert {}, padding {}, mask {:?}",
                self.num_oov_indices, self.invert, self.pad_to_max_tokens, self.mask_token
            );
            return error("at most one place for other numbers, and no mask in encodings", got, "change the option");
        }
        let first = usize::from(self.mask_token.is_some());
        let places = (0..known.len()).map(|i| (first + self.num_oov_indices + i) as f32);
        let other = if self.num_oov_indices == 0 { -1.0 } else { first as f32 };
        let (mut numbers, mut places): (Vec<i32>, Vec<f32>) = known.iter().copied().zip(places).unzip();
        if let Some(mask) = self.mask_token {
            numbers.push(mask);
            places.push(0.0);
        }
        let (g, n) = (&mut *scope.graph, numbers.len());
        let shape = g.shape(inputs[0]).clone();
        let x = g.reshape(inputs[0], shape.with_row(&[&shape.dims()[1..], &[1]].concat()))?;
        let numbers = g.literal([n], numbers.into_iter().map(|n| n as f32).collect::<Vec<_>>())?;
        let hits = g.binary("equal", x, numbers)?;
        // Each hit moves the place from that of others to its own.
        let moves = g.literal([n], places.into_iter().map(|place| place - other).collect::<Vec<_>>())?;
        let moved = g.mul(hits, moves)?;
        let moved = g.sum(moved, &[shape.rank()], false)?;
        let other = g.constant(other)?;
        let places = g.add(moved, other)?;
        if !encoded {
            return Ok(vec![places]);
        }
        let depth = known.len() + self.num_oov_indices;
        CategoryEncoding::new(depth).output_mode(self.output_mode).call(scope, &[places])
    }
}
