//! Random changes of images' colours, different for each, in training only.

use super::{
    DataFormat, Factor, RandomBrightness, RandomContrast,
    augmentation::{Draws, beside_pixels, images},
    layer,
};
use crate::{
    graph::{Graph, OpError, Value},
    nn::{Layer, Mode, Scope},
    ops::Part,
};

/// Declares a layer that changes images in training by `change`, a function of the scope and the images.
macro_rules! colors {
    ($($(#[$meta:meta])* $Layer:ident $kind:literal { $($options:tt)* })*) => {$(
        layer! {
            $(#[$meta])*
            pub struct $Layer as $kind {
                $($options)*
                /// Sets the range of pixel values.
                set value_range: [f32; 2] = [0.0, 255.0],
                /// Sets the order of axes; only `ChannelsLast` is supported.
                set data_format: DataFormat = DataFormat::ChannelsLast,
                /// Sets a seed, which together with the layer's name selects the random numbers.
                into seed: Option<u64> = None,
            }
        }

        impl $Layer {
            fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
                let [.., channels] = images(scope, $kind, self.data_format, inputs[0])?;
                if ![1, 3].contains(&channels) {
                    let advice = "give images of one channel or of red, green and blue";
                    return Err(OpError::new($kind, "1 or 3 channels", channels, advice));
                }
                match scope.mode {
                    Mode::Inference => Ok(inputs.to_vec()),
                    Mode::Training => Ok(vec![self.change(scope, inputs[0])?]),
                }
            }
        }
    )*};
}

colors! {
    /// Makes images grey in training with this probability (Keras `RandomGrayscale`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([32, 32, 3]).add(RandomGrayscale::new(0.3)).build()?;
    /// assert_eq!(model.count_params(), 0);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    RandomGrayscale "RandomGrayscale" { new factor: f32 = 0.5, }
    /// Replaces pixels in training by `value_range`'s end less them, with a probability drawn from a range (Keras
    /// `RandomInvert`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([32, 32, 3]).add(RandomInvert::new([0.0, 0.5])).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 32, 32, 3)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    RandomInvert "RandomInvert" { new factor: [f32; 2] = [0.0, 1.0], }
    /// Moves colours in training towards grey, by a share drawn from a range (Keras `RandomColorDegeneration`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([32, 32, 3]).add(RandomColorDegeneration::new([0.0, 0.5])).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 32, 32, 3)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    RandomColorDegeneration "RandomColorDegeneration" { new factor: [f32; 2] = [0.0, 0.5], }
    /// Keeps in training the highest bits of pixels, as many as drawn from a range of 1 to 8 without its end (Keras
    /// `RandomPosterization`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([32, 32, 3]).add(RandomPosterization::new([3, 8])).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 32, 32, 3)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    RandomPosterization "RandomPosterization" { new factor: [usize; 2] = [4, 4], }
    /// Multiplies saturation in training by f / (1 − f), where f is drawn from a range (Keras `RandomSaturation`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([32, 32, 3]).add(RandomSaturation::new([0.4, 0.6])).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 32, 32, 3)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    RandomSaturation "RandomSaturation" { new factor: [f32; 2] = [0.4, 0.6], }
    /// Turns hues in training by half a fraction drawn from a range, one way or the other (Keras `RandomHue`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([32, 32, 3]).add(RandomHue::new([0.0, 0.1])).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 32, 32, 3)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    RandomHue "RandomHue" { new factor: [f32; 2] = [0.0, 0.1], }
    /// Adds in training a drawn number to pixels, of 0 to 255, and replaces by 255 less them those that are not below
    /// another (Keras `Solarization`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([32, 32, 3]).add(Solarization::new().threshold_factor([0.5, 0.5])).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 32, 32, 3)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    Solarization "Solarization" {
        /// Sets the range that is added: from the first to 255 times the second.
        set addition_factor: [f32; 2] = [0.0, 0.0],
        /// Sets the range of the threshold: from the first to 255 times the second.
        set threshold_factor: [f32; 2] = [0.0, 0.0],
    }
    /// Changes brightness, contrast, saturation and hue in training, each where it has a factor (Keras
    /// `RandomColorJitter`).
    ///
    /// ```
    /// use hubel::{nn::Factor, layers::*, prelude::*};
    /// let model = Sequential::new([32, 32, 3]).add(RandomColorJitter::new().hue_factor(Factor::from(0.1))).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 32, 32, 3)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    RandomColorJitter "RandomColorJitter" {
        /// Sets the factor of [`RandomBrightness`].
        into brightness_factor: Option<Factor> = None,
        /// Sets the factor of [`RandomContrast`].
        into contrast_factor: Option<Factor> = None,
        /// Sets the factor of [`RandomSaturation`]; a number x is the range −x to x.
        into saturation_factor: Option<Factor> = None,
        /// Sets the factor of [`RandomHue`]; a number x is the range 0 to x.
        into hue_factor: Option<Factor> = None,
    }
}

macro_rules! of_factor {
    ($($Layer:ident $ty:ty;)*) => {$(
        impl $Layer {
            /// Returns a layer with this factor.
            pub fn new(factor: $ty) -> Self {
                $Layer { factor, ..Self::default() }
            }
        }
    )*};
}

of_factor! {
    RandomGrayscale f32;
    RandomInvert [f32; 2];
    RandomColorDegeneration [f32; 2];
    RandomPosterization [usize; 2];
    RandomSaturation [f32; 2];
    RandomHue [f32; 2];
}

impl Solarization {
    /// Returns a layer that adds nothing and has the threshold 0.
    pub fn new() -> Self {
        Self::default()
    }
}

impl RandomColorJitter {
    /// Returns a layer that changes nothing until it has factors.
    pub fn new() -> Self {
        Self::default()
    }
}

/// Returns channel `index` of images.
fn channel(g: &mut Graph, x: Value, index: usize) -> Result<Value, OpError> {
    g.slice_axis(x, 3, Part::new(index, 1))
}

/// Returns images in grey, of one channel.
fn grey(g: &mut Graph, x: Value) -> Result<Value, OpError> {
    if g.shape(x).last() == 1 {
        return Ok(x);
    }
    let weights = g.literal([3], vec![0.2989, 0.5870, 0.1140])?;
    let parts = g.mul(x, weights)?;
    g.sum(parts, &[3], true)
}

/// Returns `factor · x + offset`.
fn line(g: &mut Graph, x: Value, factor: f32, offset: f32) -> Result<Value, OpError> {
    let (x, offset) = (g.scale(x, factor)?, g.constant(offset)?);
    g.add(x, offset)
}

/// Returns pixels of one range in another.
pub(super) fn ranged(g: &mut Graph, x: Value, from: [f32; 2], to: [f32; 2]) -> Result<Value, OpError> {
    if from == to {
        return Ok(x);
    }
    let factor = (to[1] - to[0]) / (from[1] - from[0]);
    line(g, x, factor, to[0] - from[0] * factor)
}

/// Returns hue, saturation and value of red, green and blue.
fn to_hsv(g: &mut Graph, x: Value) -> Result<[Value; 3], OpError> {
    let (red, green, blue) = (channel(g, x, 0)?, channel(g, x, 1)?, channel(g, x, 2)?);
    let value = g.max_axes(x, &[3], true)?;
    let least = g.min_axes(x, &[3], true)?;
    let range = g.sub(value, least)?;
    let (zero, one) = (g.constant(0.0)?, g.constant(1.0)?);
    let (positive, ranges) = (g.binary("greater", value, zero)?, g.binary("greater", range, zero)?);
    let divisor = g.where_(positive, value, one)?;
    let share = g.div(range, divisor)?;
    let saturation = g.where_(positive, share, zero)?;
    let divisor = g.where_(ranges, range, one)?;
    let mut sixth = |a: Value, b: Value, offset: f32| {
        let distance = g.sub(a, b)?;
        let part = g.div(distance, divisor)?;
        line(g, part, 1.0 / 6.0, offset)
    };
    let (of_green, of_blue) = (sixth(blue, red, 1.0 / 3.0)?, sixth(red, green, 2.0 / 3.0)?);
    let of_red = sixth(green, blue, 0.0)?;
    let (is_green, is_red) = (g.binary("equal", value, green)?, g.binary("equal", value, red)?);
    let other = g.where_(is_green, of_green, of_blue)?;
    let hue = g.where_(is_red, of_red, other)?;
    let below = g.binary("less", hue, zero)?;
    let hue = g.where_(ranges, hue, zero)?;
    Ok([g.add(hue, below)?, saturation, value])
}

/// Returns red, green and blue of hue, saturation and value.
fn to_rgb(g: &mut Graph, [hue, saturation, value]: [Value; 3]) -> Result<Value, OpError> {
    let whole = g.unary("floor", hue)?;
    let turn = g.sub(hue, whole)?;
    let turn = g.scale(turn, 6.0)?;
    let one = g.constant(1.0)?;
    let rest = g.sub(one, saturation)?;
    let mut channels = Vec::new();
    for (middle, factor, offset) in [(3.0, 1.0, -1.0), (2.0, -1.0, 2.0), (4.0, -1.0, 2.0)] {
        let distance = line(g, turn, 1.0, -middle)?;
        let distance = g.abs(distance)?;
        let share = line(g, distance, factor, offset)?;
        let share = g.clip(share, 0.0, 1.0)?;
        let colored = g.mul(saturation, share)?;
        let sum = g.add(rest, colored)?;
        channels.push(g.mul(value, sum)?);
    }
    g.concat(&channels, 3)
}

impl RandomGrayscale {
    fn change(&self, scope: &mut Scope, x: Value) -> Result<Value, OpError> {
        let drawn = Draws::new(scope, x, self.seed).uniform([0.0, 1.0])?;
        let g = &mut *scope.graph;
        let (limit, drawn) = (g.constant(self.factor)?, beside_pixels(g, x, drawn)?);
        let (chosen, grey) = (g.binary("less", drawn, limit)?, grey(g, x)?);
        g.where_(chosen, grey, x)
    }
}

impl RandomInvert {
    fn change(&self, scope: &mut Scope, x: Value) -> Result<Value, OpError> {
        let mut draws = Draws::new(scope, x, self.seed);
        let (probability, drawn) = (draws.uniform(self.factor)?, draws.uniform([0.0, 1.0])?);
        let g = &mut *scope.graph;
        let chosen = g.binary("less", drawn, probability)?;
        let (chosen, inverse) = (beside_pixels(g, x, chosen)?, line(g, x, -1.0, self.value_range[1])?);
        g.where_(chosen, inverse, x)
    }
}

impl RandomColorDegeneration {
    fn change(&self, scope: &mut Scope, x: Value) -> Result<Value, OpError> {
        let share = Draws::new(scope, x, self.seed).uniform(self.factor)?;
        let g = &mut *scope.graph;
        let (share, grey) = (beside_pixels(g, x, share)?, grey(g, x)?);
        let distance = g.sub(grey, x)?;
        let moved = g.mul(share, distance)?;
        let y = g.add(x, moved)?;
        g.clip(y, self.value_range[0], self.value_range[1])
    }
}

impl RandomPosterization {
    fn change(&self, scope: &mut Scope, x: Value) -> Result<Value, OpError> {
        let [low, high] = self.factor;
        if low == 0 || low > high || high > 8 {
            let got = format!("{:?}", self.factor);
            return Err(OpError::new(
                "random_posterization",
                "numbers of bits from 1 to 8",
                got,
                "swap or change them",
            ));
        }
        let bits = if low == high { [low as f32; 2] } else { [low as f32, high as f32] };
        let bits = Draws::new(scope, x, self.seed).uniform(bits)?;
        let g = &mut *scope.graph;
        let bits = g.unary("floor", bits)?;
        let numbers: Vec<f32> = (1..=8).map(|n| n as f32).collect();
        let (numbers, steps) = (g.literal([8], numbers)?, (1..=8).map(|n| f32::from(1u16 << (8 - n))));
        let (hits, steps) = (g.binary("equal", bits, numbers)?, g.literal([8], steps.collect::<Vec<_>>())?);
        let steps = g.mul(hits, steps)?;
        let step = g.sum(steps, &[1], true)?;
        let step = beside_pixels(g, x, step)?;
        let bytes = ranged(g, x, self.value_range, [0.0, 255.0])?;
        let whole = g.unary("floor", bytes)?;
        let parts = g.div(whole, step)?;
        let parts = g.unary("floor", parts)?;
        let kept = g.mul(parts, step)?;
        ranged(g, kept, [0.0, 255.0], self.value_range)
    }
}

/// Returns an error unless images have colours.
fn colored(g: &Graph, op: &str, x: Value) -> Result<(), OpError> {
    match g.shape(x).last() {
        3 => Ok(()),
        other => Err(OpError::new(op, "images of red, green and blue", other, "leave the layer out")),
    }
}

impl RandomSaturation {
    fn change(&self, scope: &mut Scope, x: Value) -> Result<Value, OpError> {
        colored(scope.graph, "random_saturation", x)?;
        let share = Draws::new(scope, x, self.seed).uniform(self.factor)?;
        let g = &mut *scope.graph;
        let rest = line(g, share, -1.0, 1.0 + 1e-7)?;
        let factor = g.div(share, rest)?;
        let [hue, saturation, value] = to_hsv(g, x)?;
        let factor = beside_pixels(g, x, factor)?;
        let saturation = g.mul(saturation, factor)?;
        let saturation = g.clip(saturation, self.value_range[0], self.value_range[1])?;
        to_rgb(g, [hue, saturation, value])
    }
}

impl RandomHue {
    fn change(&self, scope: &mut Scope, x: Value) -> Result<Value, OpError> {
        colored(scope.graph, "random_hue", x)?;
        let mut draws = Draws::new(scope, x, self.seed);
        let (coin, share) = (draws.coin()?, draws.uniform(self.factor)?);
        let g = &mut *scope.graph;
        let sign = line(g, coin, -1.0, 0.5)?;
        let turn = g.mul(sign, share)?;
        let turn = beside_pixels(g, x, turn)?;
        let unit = ranged(g, x, self.value_range, [0.0, 1.0])?;
        let [hue, saturation, value] = to_hsv(g, unit)?;
        // Whole turns are left out on the way back.
        let hue = g.add(hue, turn)?;
        let y = to_rgb(g, [hue, saturation, value])?;
        let y = g.clip(y, 0.0, 1.0)?;
        ranged(g, y, [0.0, 1.0], self.value_range)
    }
}

impl Solarization {
    fn change(&self, scope: &mut Scope, x: Value) -> Result<Value, OpError> {
        let mut draws = Draws::new(scope, x, self.seed);
        let range = |factor: [f32; 2]| [factor[0], factor[1] * 255.0];
        let (added, threshold) =
            (draws.uniform(range(self.addition_factor))?, draws.uniform(range(self.threshold_factor))?);
        let g = &mut *scope.graph;
        let (added, threshold) = (beside_pixels(g, x, added)?, beside_pixels(g, x, threshold)?);
        let bytes = ranged(g, x, self.value_range, [0.0, 255.0])?;
        let moved = g.add(bytes, added)?;
        let moved = g.clip(moved, 0.0, 255.0)?;
        let (below, inverse) = (g.binary("less", moved, threshold)?, line(g, moved, -1.0, 255.0)?);
        let y = g.where_(below, moved, inverse)?;
        ranged(g, y, [0.0, 255.0], self.value_range)
    }
}

impl RandomColorJitter {
    fn change(&self, scope: &mut Scope, mut x: Value) -> Result<Value, OpError> {
        let (range, seed) = (self.value_range, self.seed);
        let mut apply = |name: &str, layer: &dyn Layer| -> Result<(), OpError> {
            x = scope.child(name, layer, &[x])?.swap_remove(0);
            Ok(())
        };
        if let Some(factor) = self.brightness_factor {
            apply("brightness", &RandomBrightness::new(factor).value_range(range).seed(seed))?;
        }
        if let Some(factor) = self.contrast_factor {
            apply("contrast", &RandomContrast::new(factor).value_range(range).seed(seed))?;
        }
        if let Some(factor) = self.saturation_factor {
            apply("saturation", &RandomSaturation::new(factor.range()).value_range(range).seed(seed))?;
        }
        if let Some(factor) = self.hue_factor {
            let [low, high] = factor.range();
            apply("hue", &RandomHue::new([low.max(0.0), high]).value_range(range).seed(seed))?;
        }
        Ok(x)
    }
}
