//! Random changes of images, different for each, in training only.

use super::{DataFormat, image, layer, resizing::of_aspect};
use crate::{
    graph::{Graph, OpError, Value},
    nn::{Mode, Scope},
    ops::{Affine2d, Draw, FillMode, Interpolation, Part},
};
use serde::{Deserialize, Serialize};
use std::f32::consts::TAU;

/// A range that a factor is drawn from; a single number x is the range −x to x.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Factor {
    /// From −x to x.
    Within(f32),
    /// From the first to the second.
    Range([f32; 2]),
}

impl Factor {
    pub(super) fn range(self) -> [f32; 2] {
        match self {
            Factor::Within(x) => [-x.abs(), x.abs()],
            Factor::Range(range) => range,
        }
    }
}

impl From<f32> for Factor {
    fn from(x: f32) -> Self {
        Factor::Within(x)
    }
}

impl From<[f32; 2]> for Factor {
    fn from(range: [f32; 2]) -> Self {
        Factor::Range(range)
    }
}

/// The direction in which images are mirrored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlipMode {
    /// Left and right.
    Horizontal,
    /// Top and bottom.
    Vertical,
    /// Both, independently.
    HorizontalAndVertical,
}

/// Returns height, width and channels of images with their channels last.
pub(super) fn images(scope: &Scope, op: &str, format: DataFormat, x: Value) -> Result<[usize; 3], OpError> {
    if format == DataFormat::ChannelsFirst {
        return Err(OpError::new(op, "channels_last", "channels_first", "permute the images before this layer"));
    }
    let shape = image(scope.graph, op, x)?;
    Ok([shape.dims()[1], shape.dims()[2], shape.dims()[3]])
}

/// Draws numbers for the images of a layer, (N, 1) each.
pub(super) struct Draws<'s, 'g> {
    scope: &'s mut Scope<'g>,
    x: Value,
    seed: Option<u64>,
    drawn: usize,
}

impl<'s, 'g> Draws<'s, 'g> {
    pub(super) fn new(scope: &'s mut Scope<'g>, x: Value, seed: Option<u64>) -> Self {
        Draws::after(scope, x, seed, 0)
    }

    /// Returns draws that differ from the first `drawn`.
    pub(super) fn after(scope: &'s mut Scope<'g>, x: Value, seed: Option<u64>, drawn: usize) -> Self {
        Draws { scope, x, seed, drawn }
    }

    pub(super) fn x(&self) -> Value {
        self.x
    }

    pub(super) fn g(&mut self) -> &mut Graph {
        self.scope.graph
    }

    /// Returns a uniform random number for each image; each call draws new ones.
    pub(super) fn uniform(&mut self, [low, high]: [f32; 2]) -> Result<Value, OpError> {
        if low > high {
            let got = format!("{low} to {high}");
            return Err(OpError::new("random", "a range with its lower end first", got, "swap its ends"));
        }
        let name = format!("{}/{}/{}", self.scope.layer(), self.drawn, self.seed.unwrap_or(0));
        self.drawn += 1;
        let shape = self.scope.graph.shape(self.x).with_row(&[1]);
        self.scope.graph.random(Draw::Uniform { low, high }, &shape, &name)
    }

    /// Returns 1 or 0 for each image, with equal probability.
    pub(super) fn coin(&mut self) -> Result<Value, OpError> {
        let u = self.uniform([0.0, 1.0])?;
        let half = self.g().constant(0.5)?;
        self.g().binary("less_equal", u, half)
    }

    pub(super) fn number(&mut self, x: f32) -> Result<Value, OpError> {
        let shape = self.scope.graph.shape(self.x).with_row(&[1]);
        let x = self.g().constant(x)?;
        self.g().expand(x, &shape)
    }

    /// Returns `x · factor + offset`.
    pub(super) fn line(&mut self, x: Value, factor: f32, offset: f32) -> Result<Value, OpError> {
        let x = self.g().scale(x, factor)?;
        let offset = self.g().constant(offset)?;
        self.g().add(x, offset)
    }

    pub(super) fn map(&mut self, numbers: [Value; 6], how: Affine2d) -> Result<Vec<Value>, OpError> {
        let x = self.x;
        let maps = self.g().concat(&numbers, 1)?;
        Ok(vec![self.g().affine2d(x, maps, how)?])
    }
}

layer! {
    /// Mirrors each image with a probability of one half in training (Keras `RandomFlip`).
    ///
    /// ```
    /// use hubel::{nn::FlipMode, layers::*, prelude::*};
    /// let model = Sequential::new([32, 32, 3]).add(RandomFlip::new(FlipMode::Horizontal)).build()?;
    /// assert_eq!(model.count_params(), 0);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct RandomFlip as "RandomFlip" {
        new mode: FlipMode = FlipMode::HorizontalAndVertical,
        /// Sets the order of axes; only `ChannelsLast` is supported.
        set data_format: DataFormat = DataFormat::ChannelsLast,
        /// Sets a seed, which together with the layer's name selects the random numbers.
        into seed: Option<u64> = None,
    }
}

impl RandomFlip {
    /// Returns a layer that mirrors in this direction.
    pub fn new(mode: FlipMode) -> Self {
        RandomFlip { mode, ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let [h, w, _] = images(scope, "random_flip", self.data_format, inputs[0])?;
        if scope.mode == Mode::Inference {
            return Ok(inputs.to_vec());
        }
        let mut draws = Draws::new(scope, inputs[0], self.seed);
        let zero = draws.number(0.0)?;
        let mut axis = |on: bool, extent: usize| {
            let coin = if on { draws.coin()? } else { zero };
            Ok::<_, OpError>([draws.line(coin, -2.0, 1.0)?, draws.line(coin, extent as f32 - 1.0, 0.0)?])
        };
        let across = axis(self.mode != FlipMode::Vertical, w)?;
        let down = axis(self.mode != FlipMode::Horizontal, h)?;
        let (interpolation, fill_mode) = (Interpolation::Nearest, FillMode::Nearest);
        let config = Affine2d { size: [h, w], interpolation, fill_mode, fill_value: 0.0 };
        draws.map([across[0], zero, across[1], zero, down[0], down[1]], config)
    }
}

layer! {
    /// Rotates each image about its centre in training by a random fraction of a full turn, counter-clockwise if
    /// positive (Keras `RandomRotation`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([32, 32, 3]).add(RandomRotation::new(0.1)).build()?;
    /// assert_eq!(model.count_params(), 0);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct RandomRotation as "RandomRotation" {
        new factor: Factor = Factor::Within(0.1),
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

impl RandomRotation {
    /// Returns a layer that rotates by up to this fraction of a full turn, or by one from a range.
    pub fn new(factor: impl Into<Factor>) -> Self {
        RandomRotation { factor: factor.into(), ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let [h, w, _] = images(scope, "random_rotation", self.data_format, inputs[0])?;
        if scope.mode == Mode::Inference {
            return Ok(inputs.to_vec());
        }
        let mut draws = Draws::new(scope, inputs[0], self.seed);
        let angle = draws.uniform(self.factor.range().map(|x| x * TAU))?;
        let (sin, cos) = (draws.g().unary("sin", angle)?, draws.g().unary("cos", angle)?);
        let (x, y) = ((w as f32 - 1.0) / 2.0, (h as f32 - 1.0) / 2.0);
        let back = draws.g().neg(sin)?;
        // The centre stays: offset = centre − map · centre.
        let mut offset = |along: (Value, f32), across: (Value, f32), middle: f32| {
            let along = draws.line(along.0, -along.1, middle)?;
            let across = draws.line(across.0, -across.1, 0.0)?;
            draws.g().add(along, across)
        };
        let (to_x, to_y) = (offset((cos, x), (back, y), x)?, offset((cos, y), (sin, x), y)?);
        let Self { interpolation, fill_mode, fill_value, .. } = *self;
        draws.map([cos, back, to_x, sin, cos, to_y], Affine2d { size: [h, w], interpolation, fill_mode, fill_value })
    }
}

layer! {
    /// Shifts each image in training by random fractions of its height and width, down and right if positive (Keras
    /// `RandomTranslation`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([32, 32, 3]).add(RandomTranslation::new(0.1, [0.0, 0.2])).build()?;
    /// assert_eq!(model.count_params(), 0);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct RandomTranslation as "RandomTranslation" {
        new height_factor: Factor = Factor::Within(0.1),
        new width_factor: Factor = Factor::Within(0.1),
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

impl RandomTranslation {
    /// Returns a layer that shifts by up to these fractions of height and width, or by fractions from ranges.
    pub fn new(height_factor: impl Into<Factor>, width_factor: impl Into<Factor>) -> Self {
        let (height_factor, width_factor) = (height_factor.into(), width_factor.into());
        RandomTranslation { height_factor, width_factor, ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let [h, w, _] = images(scope, "random_translation", self.data_format, inputs[0])?;
        if scope.mode == Mode::Inference {
            return Ok(inputs.to_vec());
        }
        let mut draws = Draws::new(scope, inputs[0], self.seed);
        let (zero, one) = (draws.number(0.0)?, draws.number(1.0)?);
        let (down, right) = (draws.uniform(self.height_factor.range())?, draws.uniform(self.width_factor.range())?);
        let (down, right) = (draws.line(down, -(h as f32), 0.0)?, draws.line(right, -(w as f32), 0.0)?);
        let Self { interpolation, fill_mode, fill_value, .. } = *self;
        draws.map([one, zero, right, zero, one, down], Affine2d { size: [h, w], interpolation, fill_mode, fill_value })
    }
}

layer! {
    /// Zooms each image about its centre in training: a factor of 0.2 shrinks it to 1/1.2, −0.2 enlarges it to 1/0.8
    /// (Keras `RandomZoom`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([32, 32, 3]).add(RandomZoom::new(0.2)).build()?;
    /// assert_eq!(model.count_params(), 0);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct RandomZoom as "RandomZoom" {
        new height_factor: Factor = Factor::Within(0.1),
        /// Sets a separate factor for the width; `None` keeps the aspect ratio.
        into width_factor: Option<Factor> = None,
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

impl RandomZoom {
    /// Returns a layer that zooms by up to this factor, or by one from a range, in height and width alike.
    pub fn new(height_factor: impl Into<Factor>) -> Self {
        RandomZoom { height_factor: height_factor.into(), ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let [h, w, _] = images(scope, "random_zoom", self.data_format, inputs[0])?;
        if scope.mode == Mode::Inference {
            return Ok(inputs.to_vec());
        }
        let mut draws = Draws::new(scope, inputs[0], self.seed);
        let zero = draws.number(0.0)?;
        let rows = draws.uniform(self.height_factor.range().map(|x| 1.0 + x))?;
        let columns = match self.width_factor {
            None => rows,
            Some(factor) => draws.uniform(factor.range().map(|x| 1.0 + x))?,
        };
        let [x, y] = [w, h].map(|n| (n as f32 - 1.0) / 2.0);
        let (to_x, to_y) = (draws.line(columns, -x, x)?, draws.line(rows, -y, y)?);
        let Self { interpolation, fill_mode, fill_value, .. } = *self;
        let config = Affine2d { size: [h, w], interpolation, fill_mode, fill_value };
        draws.map([columns, zero, to_x, zero, rows, to_y], config)
    }
}

/// Returns crops of images, enlarged if they are smaller than `size`.
fn cut(g: &mut Graph, op: &str, x: Value, parts: [Part; 2], size: [usize; 2]) -> Result<Vec<Value>, OpError> {
    if size.contains(&0) {
        let got = format!("{}×{}", size[0], size[1]);
        return Err(OpError::new(op, "a height and a width of at least 1", got, "give the size of the crop"));
    }
    let rows = g.slice_axis(x, 1, parts[0])?;
    let part = g.slice_axis(rows, 2, parts[1])?;
    Ok(vec![if parts.map(|p| p.size) == size { part } else { g.resize2d(part, size, Interpolation::Bilinear)? }])
}

/// Returns the centre of images; of smaller ones the largest central part with the aspect ratio of `size`, enlarged.
fn middle(g: &mut Graph, op: &str, x: Value, [h, w]: [usize; 2], size: [usize; 2]) -> Result<Vec<Value>, OpError> {
    let parts = match (h.checked_sub(size[0]), w.checked_sub(size[1])) {
        (Some(rows), Some(columns)) => [Part::new(rows / 2, size[0]), Part::new(columns / 2, size[1])],
        _ => of_aspect([h, w], size),
    };
    cut(g, op, x, parts, size)
}

layer! {
    /// Crops each image: in training at a random position if images are larger along both axes, else at the centre.
    /// Smaller images are enlarged. (Keras `RandomCrop` draws one position per batch, and passes whole images in
    /// evaluation.)
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([36, 36, 3]).add(RandomCrop::new(32, 32)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 32, 32, 3)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct RandomCrop as "RandomCrop" {
        new height: usize = 1,
        new width: usize = 1,
        /// Sets the order of axes; only `ChannelsLast` is supported.
        set data_format: DataFormat = DataFormat::ChannelsLast,
        /// Sets a seed, which together with the layer's name selects the random numbers.
        into seed: Option<u64> = None,
    }
}

impl RandomCrop {
    /// Returns a layer with crops of this height and width.
    pub fn new(height: usize, width: usize) -> Self {
        RandomCrop { height, width, ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let [h, w, _] = images(scope, "random_crop", self.data_format, inputs[0])?;
        let size = [self.height, self.width];
        if scope.mode == Mode::Inference {
            return middle(scope.graph, "random_crop", inputs[0], [h, w], size);
        }
        if h <= size[0] || w <= size[1] {
            // Keras crops at the position of the part with this aspect ratio, but everything that fits from there on.
            let [rows, columns] = of_aspect([h, w], size).map(|p| p.start);
            let parts = [Part::new(rows, size[0].min(h - rows)), Part::new(columns, size[1].min(w - columns))];
            return cut(scope.graph, "random_crop", inputs[0], parts, size);
        }
        let margins = [h - size[0], w - size[1]];
        let mut draws = Draws::new(scope, inputs[0], self.seed);
        let (zero, one) = (draws.number(0.0)?, draws.number(1.0)?);
        let mut offset = |margin: usize| {
            let at = draws.uniform([0.0, margin as f32 + 1.0])?;
            let at = draws.g().unary("floor", at)?;
            draws.g().clip(at, 0.0, margin as f32)
        };
        let (down, right) = (offset(margins[0])?, offset(margins[1])?);
        let (interpolation, fill_mode) = (Interpolation::Nearest, FillMode::Nearest);
        let config = Affine2d { size, interpolation, fill_mode, fill_value: 0.0 };
        draws.map([one, zero, right, zero, one, down], config)
    }
}

layer! {
    /// Crops the centre of images (Keras `CenterCrop`); of smaller ones the largest central part with the aspect ratio
    /// of the result, enlarged.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([36, 36, 3]).add(CenterCrop::new(32, 32)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 32, 32, 3)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct CenterCrop as "CenterCrop" {
        new height: usize = 1,
        new width: usize = 1,
        /// Sets the order of axes; only `ChannelsLast` is supported.
        set data_format: DataFormat = DataFormat::ChannelsLast,
    }
}

impl CenterCrop {
    /// Returns a layer with crops of this height and width.
    pub fn new(height: usize, width: usize) -> Self {
        CenterCrop { height, width, ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let [h, w, _] = images(scope, "center_crop", self.data_format, inputs[0])?;
        middle(scope.graph, "center_crop", inputs[0], [h, w], [self.height, self.width])
    }
}

/// Returns the numbers of each image, (N, 1), broadcast over its pixels.
pub(super) fn beside_pixels(g: &mut Graph, x: Value, numbers: Value) -> Result<Value, OpError> {
    let shape = g.shape(x).with_row(&[1, 1, 1]);
    g.reshape(numbers, shape)
}

layer! {
    /// Multiplies in training each channel's deviation from its mean by a random factor for each image, from 1 − lower
    /// to 1 + upper, and clips to `value_range` (Keras `RandomContrast`). As in Keras 3.15, a single number is `upper`,
    /// with `lower` 0.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([32, 32, 3]).add(RandomContrast::new([0.3, 0.3])).build()?;
    /// assert_eq!(model.count_params(), 0);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct RandomContrast as "RandomContrast" {
        new factor: Factor = Factor::Range([0.0, 0.1]),
        /// Sets the order of axes; only `ChannelsLast` is supported.
        set data_format: DataFormat = DataFormat::ChannelsLast,
        /// Sets the range of pixel values.
        set value_range: [f32; 2] = [0.0, 255.0],
        /// Sets a seed, which together with the layer's name selects the random numbers.
        into seed: Option<u64> = None,
    }
}

impl RandomContrast {
    /// Returns a layer with this `upper`, or with both, lower and upper.
    pub fn new(factor: impl Into<Factor>) -> Self {
        RandomContrast { factor: factor.into(), ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let x = inputs[0];
        images(scope, "random_contrast", self.data_format, x)?;
        if scope.mode == Mode::Inference {
            return Ok(inputs.to_vec());
        }
        let [lower, upper] = match self.factor {
            Factor::Within(upper) => [0.0, upper],
            Factor::Range(range) => range,
        };
        let factor = Draws::new(scope, x, self.seed).uniform([1.0 - lower, 1.0 + upper])?;
        let g = &mut *scope.graph;
        let factor = beside_pixels(g, x, factor)?;
        let mean = g.mean_axes(x, &[1, 2], true)?;
        let distance = g.sub(x, mean)?;
        let scaled = g.mul(distance, factor)?;
        let moved = g.add(scaled, mean)?;
        Ok(vec![g.clip(moved, self.value_range[0], self.value_range[1])?])
    }
}

layer! {
    /// Adds in training a random fraction of the extent of `value_range` to all pixels of each image, and clips to it
    /// (Keras `RandomBrightness`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([32, 32, 3]).add(RandomBrightness::new(0.2)).build()?;
    /// assert_eq!(model.count_params(), 0);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct RandomBrightness as "RandomBrightness" {
        new factor: Factor = Factor::Within(0.1),
        /// Sets the order of axes; only `ChannelsLast` is supported.
        set data_format: DataFormat = DataFormat::ChannelsLast,
        /// Sets the range of pixel values.
        set value_range: [f32; 2] = [0.0, 255.0],
        /// Sets a seed, which together with the layer's name selects the random numbers.
        into seed: Option<u64> = None,
    }
}

impl RandomBrightness {
    /// Returns a layer that adds up to this fraction, or one from a range.
    pub fn new(factor: impl Into<Factor>) -> Self {
        RandomBrightness { factor: factor.into(), ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let x = inputs[0];
        images(scope, "random_brightness", self.data_format, x)?;
        if scope.mode == Mode::Inference {
            return Ok(inputs.to_vec());
        }
        let [low, high] = self.value_range;
        let delta = Draws::new(scope, x, self.seed).uniform(self.factor.range().map(|f| f * (high - low)))?;
        let g = &mut *scope.graph;
        let delta = beside_pixels(g, x, delta)?;
        let moved = g.add(x, delta)?;
        Ok(vec![g.clip(moved, low, high)?])
    }
}
