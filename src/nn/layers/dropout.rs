use super::{DataFormat, image, layer};
use crate::{
    graph::{OpError, Value},
    nn::{Mode, Scope},
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

layer! {
    /// Drops whole channels of images in training (Tompson et al. 2015; Keras `SpatialDropout2D`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([8, 8, 4]).add(SpatialDropout2D::new(0.2)).build()?;
    /// assert_eq!(model.count_params(), 0);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct SpatialDropout2D as "SpatialDropout2D" {
        new rate: f32 = 0.5,
        /// Sets the order of axes.
        into data_format: DataFormat = DataFormat::ChannelsLast,
    }
}

impl SpatialDropout2D {
    /// Returns a layer that drops a share `rate` in [0, 1] of the channels.
    pub fn new(rate: f32) -> Self {
        SpatialDropout2D { rate, ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let dims = image(scope.graph, "spatial_dropout2d", inputs[0])?;
        let row = match self.data_format {
            DataFormat::ChannelsLast => [1, 1, dims.dims()[3]],
            DataFormat::ChannelsFirst => [dims.dims()[1], 1, 1],
        };
        Ok(vec![drop(scope, inputs[0], self.rate, |shape| Ok(shape.with_row(&row)))?])
    }
}
