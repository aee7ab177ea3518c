//! Random changes of images that move or replace pixels, different for each, in training only.

use super::{
    AutoContrast, DataFormat, Equalization, Factor, RandomBrightness, RandomColorDegeneration, RandomContrast,
    RandomPosterization, RandomRotation, RandomTranslation, Solarization,
    augmentation::{Draws, beside_pixels, images},
    layer,
};
use crate::{
    graph::{Graph, OpError, Value},
    nn::{Layer, Mode, Scope},
    ops::{Affine2d, Conv2dOptions, Draw, FillMode, Interpolation},
    tensor::Shape,
};
use serde::{Deserialize, Serialize};

/// What [`RandomErasing`] puts in the place of pixels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Fill {
    /// The same number for all channels.
    One(f32),
    /// One number for each of three channels.
    Each([f32; 3]),
}

layer! {
    /// Shears each image in training: columns by a random share of rows and rows by one of columns, both to one side or
    /// both to the other (Keras `RandomShear`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([32, 32, 3]).add(RandomShear::new([0.0, 0.2], [0.0, 0.1])).build()?;
    /// assert_eq!(model.count_params(), 0);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct RandomShear as "RandomShear" {
        new x_factor: Factor = Factor::Within(0.0),
        new y_factor: Factor = Factor::Within(0.0),
        /// Sets the order of axes; only `ChannelsLast` is supported.
        set data_format: DataFormat = DataFormat::ChannelsLast,
        /// Sets how pixels outside an image are filled.
        set fill_mode: FillMode = FillMode::Reflect,
        /// Sets the value outside an image for [`FillMode::Constant`].
        set fill_value: f32 = 0.0,
        /// Sets how pixels are interpolated.
        set interpolation: Interpolation = Interpolation::Bilinear,
        /// Sets a seed, which together with the layer's name selects the random numbers.
        into seed: Option<u64> = None,
    }
}

impl RandomShear {
    /// Returns a layer with these ranges along width and height.
    pub fn new(x_factor: impl Into<Factor>, y_factor: impl Into<Factor>) -> Self {
        RandomShear { x_factor: x_factor.into(), y_factor: y_factor.into(), ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let [h, w, _] = images(scope, "random_shear", self.data_format, inputs[0])?;
        if scope.mode == Mode::Inference {
            return Ok(inputs.to_vec());
        }
        let mut draws = Draws::new(scope, inputs[0], self.seed);
        let (zero, one, coin) = (draws.number(0.0)?, draws.number(1.0)?, draws.coin()?);
        let sign = draws.line(coin, 2.0, -1.0)?;
        let (y, x) = (draws.uniform(self.y_factor.range())?, draws.uniform(self.x_factor.range())?);
        let (x, y) = (draws.g().mul(x, sign)?, draws.g().mul(y, sign)?);
        let Self { interpolation, fill_mode, fill_value, .. } = *self;
        draws.map([one, x, zero, y, one, zero], Affine2d { size: [h, w], interpolation, fill_mode, fill_value })
    }
}

layer! {
    /// Replaces in training a random rectangle of each image, with a probability drawn from a range, by noise or a number
    /// (Keras `RandomErasing`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([32, 32, 3]).add(RandomErasing::new([0.0, 1.0]).scale([0.1, 0.2])).build()?;
    /// assert_eq!(model.count_params(), 0);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct RandomErasing as "RandomErasing" {
        new factor: [f32; 2] = [0.0, 1.0],
        /// Sets the range of the rectangle's share: its sides are the roots of two such shares of the image's.
        set scale: [f32; 2] = [0.02, 0.33],
        /// Sets what is put in its place; `None` is noise as large as the end of `value_range`.
        into fill_value: Option<Fill> = None,
        /// Sets the range of pixel values.
        set value_range: [f32; 2] = [0.0, 255.0],
        /// Sets the order of axes; only `ChannelsLast` is supported.
        set data_format: DataFormat = DataFormat::ChannelsLast,
        /// Sets a seed, which together with the layer's name selects the random numbers.
        into seed: Option<u64> = None,
    }
}

impl RandomErasing {
    /// Returns a layer with a probability from this range.
    pub fn new(factor: [f32; 2]) -> Self {
        RandomErasing { factor, ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let x = inputs[0];
        let [h, w, channels] = images(scope, "random_erasing", self.data_format, x)?;
        if self.scale[0] < 0.0 || matches!(self.fill_value, Some(Fill::Each(_)) if channels != 3) {
            let got = format!("a scale from {}, {:?} for {channels} channels", self.scale[0], self.fill_value);
            return Err(OpError::new("random_erasing", "shares from 0 and one number per channel", got, "change it"));
        }
        if scope.mode == Mode::Inference {
            return Ok(inputs.to_vec());
        }
        let chosen = chosen(&mut Draws::new(scope, x, self.seed), self.factor)?;
        let mut draws = Draws::after(scope, x, self.seed, 2);
        let across = self.inside(&mut draws, w, &[w, 1])?;
        let down = self.inside(&mut draws, h, &[h, 1, 1])?;
        let [low, high] = self.value_range;
        let g = draws.g();
        let shape = g.shape(x).clone();
        let fill = match &self.fill_value {
            Some(Fill::One(number)) => g.constant(number.clamp(low.min(high), high))?,
            Some(Fill::Each(numbers)) => g.literal([3], numbers.map(|n| n.clamp(low.min(high), high)).to_vec())?,
            None => {
                let name = format!("{}/noise/{}", scope.layer(), self.seed.unwrap_or(0));
                let noise = scope.graph.random(Draw::Normal { mean: 0.0, deviation: high }, &shape, &name)?;
                scope.graph.clip(noise, low, high)?
            }
        };
        let g = &mut *scope.graph;
        let inside = g.mul(across, down)?;
        let chosen = beside_pixels(g, x, chosen)?;
        let erased = g.mul(inside, chosen)?;
        Ok(vec![g.where_(erased, fill, x)?])
    }

    /// Returns 1 for the places along an axis that lie in a drawn part of it, and 0 for the others.
    fn inside(&self, draws: &mut Draws, extent: usize, axis: &[usize]) -> Result<Value, OpError> {
        let (share, start) = (draws.uniform(self.scale)?, draws.uniform([0.0, 1.0])?);
        let x = draws.x();
        let g = draws.g();
        let share = g.sqrt(share)?;
        let length = g.scale(share, extent as f32)?;
        let (rest, all) = (g.neg(length)?, g.constant(extent as f32)?);
        let rest = g.add(rest, all)?;
        let start = g.mul(start, rest)?;
        let end = g.add(start, length)?;
        let (start, end) = (beside_pixels(g, x, start)?, beside_pixels(g, x, end)?);
        let places = g.literal(axis, (0..extent).map(|i| i as f32).collect::<Vec<_>>())?;
        let (from, before) = (g.binary("greater_equal", places, start)?, g.binary("less", places, end)?);
        g.mul(from, before)
    }
}

/// Returns 1 for each image that a probability drawn from a range chooses, else 0.
fn chosen(draws: &mut Draws, factor: [f32; 2]) -> Result<Value, OpError> {
    let (probability, drawn) = (draws.uniform(factor)?, draws.uniform([0.0, 1.0])?);
    draws.g().binary("less", drawn, probability)
}

/// Returns images convolved with one kernel (rows, columns, 1, 1) for each channel, around it zeros.
fn filtered(g: &mut Graph, x: Value, kernel: Value) -> Result<Value, OpError> {
    let channels = g.shape(x).last();
    let taps = g.shape(kernel).dims()[..2].to_vec();
    let own = g.expand(kernel, &Shape::fixed([taps[0], taps[1], 1, channels]))?;
    g.conv2d(x, own, Conv2dOptions::same().groups(channels))
}

layer! {
    /// Blurs or sharpens each image in training by a factor drawn from a range: 0 is a blur, 0.5 the image, 1 sharper
    /// (Keras `RandomSharpness`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([32, 32, 3]).add(RandomSharpness::new([0.2, 0.8])).build()?;
    /// assert_eq!(model.count_params(), 0);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct RandomSharpness as "RandomSharpness" {
        new factor: [f32; 2] = [0.0, 1.0],
        /// Sets the range of pixel values.
        set value_range: [f32; 2] = [0.0, 255.0],
        /// Sets the order of axes; only `ChannelsLast` is supported.
        set data_format: DataFormat = DataFormat::ChannelsLast,
        /// Sets a seed, which together with the layer's name selects the random numbers.
        into seed: Option<u64> = None,
    }
}

impl RandomSharpness {
    /// Returns a layer with a factor from this range.
    pub fn new(factor: [f32; 2]) -> Self {
        RandomSharpness { factor, ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let x = inputs[0];
        images(scope, "random_sharpness", self.data_format, x)?;
        if scope.mode == Mode::Inference {
            return Ok(inputs.to_vec());
        }
        let mut draws = Draws::new(scope, x, self.seed);
        let drawn = draws.uniform(self.factor)?;
        let share = draws.line(drawn, -2.0, 1.0)?;
        let g = &mut *scope.graph;
        let share = beside_pixels(g, x, share)?;
        let taps: Vec<f32> = (0..9).map(|i| if i == 4 { 5.0 / 13.0 } else { 1.0 / 13.0 }).collect();
        let kernel = g.literal([3, 3, 1, 1], taps)?;
        let smooth = filtered(g, x, kernel)?;
        let distance = g.sub(smooth, x)?;
        let moved = g.mul(share, distance)?;
        let y = g.add(x, moved)?;
        Ok(vec![g.clip(y, self.value_range[0], self.value_range[1])?])
    }
}

layer! {
    /// Blurs images in training, each with a probability drawn from a range, by a Gaussian whose deviations are drawn for
    /// the batch (Keras `RandomGaussianBlur`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([32, 32, 3]).add(RandomGaussianBlur::new([0.0, 1.0]).kernel_size([5, 5])).build()?;
    /// assert_eq!(model.count_params(), 0);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct RandomGaussianBlur as "RandomGaussianBlur" {
        new factor: [f32; 2] = [0.0, 1.0],
        /// Sets the kernel's columns and rows, odd numbers.
        set kernel_size: [usize; 2] = [3, 3],
        /// Sets the range of the deviations.
        set sigma: [f32; 2] = [0.0, 1.0],
        /// Sets the range of pixel values.
        set value_range: [f32; 2] = [0.0, 255.0],
        /// Sets the order of axes; only `ChannelsLast` is supported.
        set data_format: DataFormat = DataFormat::ChannelsLast,
        /// Sets a seed, which together with the layer's name selects the random numbers.
        into seed: Option<u64> = None,
    }
}

impl RandomGaussianBlur {
    /// Returns a layer with a probability from this range.
    pub fn new(factor: [f32; 2]) -> Self {
        RandomGaussianBlur { factor, ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let x = inputs[0];
        images(scope, "random_gaussian_blur", self.data_format, x)?;
        let ([columns, rows], [low, high]) = (self.kernel_size, self.sigma);
        if self.kernel_size.iter().any(|n| n % 2 == 0 || *n > 255) || low < 0.0 || low > high {
            let got = format!("{columns} and {rows}, {low} to {high}");
            let wanted = "odd sizes of the kernel of at most 255 and a range of deviations";
            return Err(OpError::new("random_gaussian_blur", wanted, got, "change the option"));
        }
        if scope.mode == Mode::Inference {
            return Ok(inputs.to_vec());
        }
        let chosen = chosen(&mut Draws::new(scope, x, self.seed), self.factor)?;
        let [across, down] =
            ["across", "down"].map(|way| format!("{}/{way}/{}", scope.layer(), self.seed.unwrap_or(0)));
        let g = &mut *scope.graph;
        let mut kernel = |size: usize, name: &str| {
            let deviation = g.random(Draw::Uniform { low, high }, &Shape::fixed([1]), name)?;
            let least = g.constant(1e-6)?;
            let deviation = g.add(deviation, least)?;
            let middle = (size - 1) as f32 / 2.0;
            let places = g.literal([size], (0..size).map(|i| i as f32 - middle).collect::<Vec<_>>())?;
            let distances = g.div(places, deviation)?;
            let squares = g.unary("square", distances)?;
            let exponents = g.scale(squares, -0.5)?;
            let weights = g.unary("exp", exponents)?;
            let sum = g.sum(weights, &[0], true)?;
            g.div(weights, sum)
        };
        let (across, down) = (kernel(columns, &across)?, kernel(rows, &down)?);
        let across = g.reshape(across, Shape::fixed([1, columns, 1, 1]))?;
        let down = g.reshape(down, Shape::fixed([rows, 1, 1, 1]))?;
        let blurred = filtered(g, x, across)?;
        let blurred = filtered(g, blurred, down)?;
        let chosen = beside_pixels(g, x, chosen)?;
        let y = g.where_(chosen, blurred, x)?;
        Ok(vec![g.clip(y, self.value_range[0], self.value_range[1])?])
    }
}

layer! {
    /// Changes batches in training by some of eleven layers, drawn one after the other (Cubuk et al. 2019; Keras
    /// `RandAugment`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([32, 32, 3]).add(RandAugment::new().num_ops(1).factor([0.0, 0.3])).build()?;
    /// assert_eq!(model.count_params(), 0);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct RandAugment as "RandAugment" {
        /// Sets the range of pixel values.
        set value_range: [f32; 2] = [0.0, 255.0],
        /// Sets the number of changes.
        set num_ops: usize = 2,
        /// Sets the range of all changes' factors, within 0 and 1.
        set factor: [f32; 2] = [0.0, 0.5],
        /// Sets how pixels are interpolated.
        set interpolation: Interpolation = Interpolation::Bilinear,
        /// Sets the order of axes; only `ChannelsLast` is supported.
        set data_format: DataFormat = DataFormat::ChannelsLast,
        /// Sets a seed, which together with the layer's name selects the random numbers.
        into seed: Option<u64> = None,
    }
}

impl RandAugment {
    /// Returns a layer of two changes by factors up to 0.5.
    pub fn new() -> Self {
        Self::default()
    }

    fn layers(&self) -> [Box<dyn Layer>; 11] {
        let (factor, range, seed, interpolation) = (self.factor, self.value_range, self.seed, self.interpolation);
        let bits = ((8.0 * factor[1]) as usize).clamp(1, 8);
        [
            Box::new(RandomShear::new(factor, factor).interpolation(interpolation).seed(seed)),
            Box::new(RandomTranslation::new(factor, factor).interpolation(interpolation).seed(seed)),
            Box::new(RandomRotation::new(factor).interpolation(interpolation).seed(seed)),
            Box::new(RandomBrightness::new(factor).value_range(range).seed(seed)),
            Box::new(RandomColorDegeneration::new(factor).value_range(range).seed(seed)),
            Box::new(RandomContrast::new(factor).value_range(range).seed(seed)),
            Box::new(RandomSharpness::new(factor).value_range(range).seed(seed)),
            Box::new(RandomPosterization::new([bits, bits]).value_range(range).seed(seed)),
            Box::new(
                Solarization::new().addition_factor(factor).threshold_factor(factor).value_range(range).seed(seed),
            ),
            Box::new(AutoContrast::new().value_range(range)),
            Box::new(Equalization::new().value_range(range)),
        ]
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        images(scope, "rand_augment", self.data_format, inputs[0])?;
        if self.num_ops > 16 || self.factor.iter().any(|f| !(0.0..=1.0).contains(f)) {
            let got = format!("{} changes by {:?}", self.num_ops, self.factor);
            return Err(OpError::new("rand_augment", "at most 16 changes by factors from 0 to 1", got, "change it"));
        }
        if scope.mode == Mode::Inference {
            return Ok(inputs.to_vec());
        }
        let (layers, mut x) = (self.layers(), inputs[0]);
        for op in 0..self.num_ops {
            let name = format!("{}/{op}/{}", scope.layer(), self.seed.unwrap_or(0));
            let range = Draw::Uniform { low: 0.0, high: layers.len() as f32 };
            let drawn = scope.graph.random(range, &Shape::fixed([1]), &name)?;
            let drawn = scope.graph.unary("floor", drawn)?;
            for (index, layer) in layers.iter().enumerate() {
                let changed = scope.child(&format!("{op}_{index}"), &**layer, &[x])?.swap_remove(0);
                let g = &mut *scope.graph;
                let own = g.constant(index as f32)?;
                let chosen = g.binary("equal", drawn, own)?;
                x = g.where_(chosen, changed, x)?;
            }
        }
        Ok(vec![x])
    }
}
