use super::{DataFormat, layer};
use crate::{
    graph::{OpError, Value},
    nn::{L1L2, Mode, Scope},
    ops::Draw,
    tensor::Shape,
};

layer! {
    /// Sets a share `rate` of the inputs to zero in training and scales the others by 1/(1 − rate)
    /// (Srivastava et al. 2014; Keras `Dropout`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([10]).add(Dropout::new(0.2)).build()?;
    /// assert_eq!(model.count_params(), 0);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct Dropout as "Dropout" {
        new rate: f32 = 0.5,
        /// Sets the shape of the random mask, batch first: one decision is shared along an axis of 1, and `None` in
        /// the shape is the input's extent. Without a shape every element has its own.
        into noise_shape: Option<Vec<Option<usize>>> = None,
    }
}

impl Dropout {
    /// Returns a layer that drops a share `rate` in [0, 1] of its inputs.
    pub fn new(rate: f32) -> Self {
        Dropout { rate, ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let y = match &self.noise_shape {
            None => drop(scope, inputs[0], self.rate, |shape| Ok(shape.clone()))?,
            Some(noise) => drop(scope, inputs[0], self.rate, |shape| {
                let dims = shape.dims();
                let fits = noise.len() == dims.len()
                    && noise.iter().zip(dims).skip(1).all(|(n, d)| n.is_none_or(|n| n == 1 || n == *d))
                    && noise[0].is_none();
                if !fits {
                    let wanted =
                        format!("an entry for each axis of {shape}: None, 1 or the extent, None for the batch");
                    return Err(OpError::new(
                        "dropout",
                        wanted,
                        format!("{noise:?}"),
                        "for example [None, 1, 1, channels]",
                    ));
                }
                let row: Vec<usize> = noise.iter().zip(dims).skip(1).map(|(n, d)| n.unwrap_or(*d)).collect();
                Ok(shape.with_row(&row))
            })?,
        };
        Ok(vec![y])
    }
}

/// Returns an error unless a rate is from 0 to 1.
pub(super) fn share(op: &str, rate: f32) -> Result<(), OpError> {
    match (0.0..=1.0).contains(&rate) {
        true => Ok(()),
        false => Err(OpError::new(op, "a rate from 0 to 1", rate, "give the fraction to drop")),
    }
}

/// Returns the input with a share dropped in training; the mask's shape is what `noise` makes of the input's.
fn drop(
    scope: &mut Scope,
    x: Value,
    rate: f32,
    noise: impl FnOnce(&Shape) -> Result<Shape, OpError>,
) -> Result<Value, OpError> {
    let shape = scope.graph.shape(x).clone();
    let noise = noise(&shape)?;
    share("dropout", rate)?;
    if scope.mode == Mode::Inference || rate == 0.0 {
        return Ok(x);
    }
    let name = scope.layer().to_owned();
    if noise == shape {
        return scope.graph.dropout(x, rate, &name);
    }
    let one = scope.graph.constant(1.0)?;
    let ones = scope.graph.expand(one, &noise)?;
    let factors = scope.graph.dropout(ones, rate, &name)?;
    scope.graph.mul(x, factors)
}

/// Declares a layer that drops whole channels.
macro_rules! spatial {
    ($($(#[$meta:meta])* $Layer:ident $kind:literal { $($options:tt)* })*) => {$(
        layer! {
            $(#[$meta])*
            pub struct $Layer as $kind {
                new rate: f32 = 0.5,
                $($options)*
            }
        }

        impl $Layer {
            /// Returns a layer that drops a share `rate` in [0, 1] of the channels.
            pub fn new(rate: f32) -> Self {
                $Layer { rate, ..Self::default() }
            }
        }
    )*};
}

spatial! {
    /// Drops whole channels of sequences in training (Keras `SpatialDropout1D`).
    SpatialDropout1D "SpatialDropout1D" {}
    /// Drops whole channels of images in training (Tompson et al. 2015; Keras `SpatialDropout2D`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([8, 8, 4]).add(SpatialDropout2D::new(0.2)).build()?;
    /// assert_eq!(model.count_params(), 0);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    SpatialDropout2D "SpatialDropout2D" {
        /// Sets the order of axes.
        into data_format: DataFormat = DataFormat::ChannelsLast,
    }
    /// Drops whole channels of volumes in training (Keras `SpatialDropout3D`).
    SpatialDropout3D "SpatialDropout3D" {
        /// Sets the order of axes.
        into data_format: DataFormat = DataFormat::ChannelsLast,
    }
}

impl SpatialDropout1D {
    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        channels(scope, inputs[0], self.rate, [3, 2])
    }
}

impl SpatialDropout2D {
    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        channels(scope, inputs[0], self.rate, [4, self.data_format.channels(4)])
    }
}

impl SpatialDropout3D {
    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        channels(scope, inputs[0], self.rate, [5, self.data_format.channels(5)])
    }
}

/// Returns tensors of `rank` axes with a share of their channels, the axis `at`, set to zero in training.
fn channels(scope: &mut Scope, x: Value, rate: f32, [rank, at]: [usize; 2]) -> Result<Vec<Value>, OpError> {
    let shape = scope.graph.shape(x).clone();
    if shape.rank() != rank {
        let advice = "put the layer before Flatten, or give the input its channel axis";
        return Err(OpError::new("spatial_dropout", format!("an input of {rank} axes"), shape, advice));
    }
    let row: Vec<usize> = (1..rank).map(|axis| if axis == at { shape.dims()[at] } else { 1 }).collect();
    Ok(vec![drop(scope, x, rate, |shape| Ok(shape.with_row(&row)))?])
}

layer! {
    /// Multiplies each input in training by a random number of mean 1 and standard deviation √(rate / (1 − rate))
    /// (Srivastava et al. 2014; Keras `GaussianDropout`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([10]).add(GaussianDropout::new(0.2)).build()?;
    /// assert_eq!(model.count_params(), 0);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct GaussianDropout as "GaussianDropout" {
        new rate: f32 = 0.5,
    }
}

impl GaussianDropout {
    /// Returns a layer of this rate, in [0, 1).
    pub fn new(rate: f32) -> Self {
        GaussianDropout { rate, ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        below_one("gaussian_dropout", self.rate)?;
        if scope.mode == Mode::Inference || self.rate == 0.0 {
            return Ok(vec![inputs[0]]);
        }
        let deviation = (self.rate / (1.0 - self.rate)).sqrt();
        let (shape, name) = (scope.graph.shape(inputs[0]).clone(), scope.layer().to_owned());
        let factors = scope.graph.random(Draw::Normal { mean: 1.0, deviation }, &shape, &name)?;
        Ok(vec![scope.graph.mul(inputs[0], factors)?])
    }
}

layer! {
    /// Sets a share `rate` of the inputs in training to the value that `Selu` tends to, and scales all so that mean and
    /// variance stay (Klambauer et al. 2017; Keras `AlphaDropout`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([10]).add(AlphaDropout::new(0.2)).build()?;
    /// assert_eq!(model.count_params(), 0);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct AlphaDropout as "AlphaDropout" {
        new rate: f32 = 0.5,
        /// Sets the shape of the random mask, batch first, as of [`Dropout`].
        into noise_shape: Option<Vec<Option<usize>>> = None,
    }
}

impl AlphaDropout {
    /// Returns a layer of this rate, in [0, 1).
    pub fn new(rate: f32) -> Self {
        AlphaDropout { rate, ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        // −alpha · scale of the self-normalising unit.
        const LOWEST: f32 = -1.758_099_3;
        below_one("alpha_dropout", self.rate)?;
        let x = inputs[0];
        if scope.mode == Mode::Inference || self.rate == 0.0 {
            return Ok(vec![x]);
        }
        if self.noise_shape.is_some() {
            let advice = "leave it out, or use Dropout";
            return Err(OpError::new("alpha_dropout", "no noise_shape in training", "one", advice));
        }
        let kept = 1.0 - self.rate;
        let factor = 1.0 / (kept * (1.0 + self.rate * LOWEST * LOWEST)).sqrt();
        let (shape, name) = (scope.graph.shape(x).clone(), scope.layer().to_owned());
        let g = &mut *scope.graph;
        let one = g.constant(1.0)?;
        let ones = g.expand(one, &shape)?;
        let flags = g.dropout(ones, self.rate, &name)?;
        let lowest = g.constant(LOWEST)?;
        let dropped = g.where_(flags, x, lowest)?;
        let (scaled, offset) = (g.scale(dropped, factor)?, g.constant(-factor * self.rate * LOWEST)?);
        Ok(vec![g.add(scaled, offset)?])
    }
}

/// Returns an error unless a rate is from 0 to below 1.
fn below_one(op: &str, rate: f32) -> Result<(), OpError> {
    match (0.0..1.0).contains(&rate) {
        true => Ok(()),
        false => Err(OpError::new(op, "a rate from 0 to below 1", rate, "give a smaller rate")),
    }
}

layer! {
    /// Passes its input on (Keras `Identity`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([10]).add(Identity::new()).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 10)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct Identity as "Identity" {}
}

impl Identity {
    /// Returns the layer.
    pub fn new() -> Self {
        Self::default()
    }

    fn call(&self, _scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        Ok(vec![inputs[0]])
    }
}

layer! {
    /// Passes its input on and adds a penalty on it to the loss (Keras `ActivityRegularization`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([10]).add(ActivityRegularization::new(0.0, 0.01)).build()?;
    /// assert_eq!(model.count_params(), 0);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct ActivityRegularization as "ActivityRegularization" {
        new l1: f32 = 0.0,
        new l2: f32 = 0.0,
    }
}

impl ActivityRegularization {
    /// Returns a layer that adds `l1` · Σ|x| + `l2` · Σx², as the mean over the batch.
    pub fn new(l1: f32, l2: f32) -> Self {
        ActivityRegularization { l1, l2, ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        scope.activity(&Some(L1L2(self.l1, self.l2)), inputs[0])?;
        Ok(vec![inputs[0]])
    }
}
