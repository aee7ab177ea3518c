use super::{DataFormat, augmentation::images, colors::ranged, layer};
use crate::{
    graph::{Graph, OpError, Value},
    nn::{Mode, Scope},
    tensor::Shape,
};

/// Bins whose pixels are counted at once.
const BINS_AT_ONCE: usize = 4;
const MAX_BINS: usize = 1024;

layer! {
    /// Replaces in training each channel's values so that all are about equally frequent in the batch (Keras
    /// `Equalization`); a channel of one bin stays.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([32, 32, 3]).add(Equalization::new()).build()?;
    /// assert_eq!(model.count_params(), 0);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct Equalization as "Equalization" {
        /// Sets the range of pixel values.
        set value_range: [f32; 2] = [0.0, 255.0],
        /// Sets the number of bins that values are counted in.
        set bins: usize = 256,
        /// Sets the order of axes; only `ChannelsLast` is supported.
        set data_format: DataFormat = DataFormat::ChannelsLast,
    }
}

impl Equalization {
    /// Returns a layer of 256 bins.
    pub fn new() -> Self {
        Self::default()
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let [.., channels] = images(scope, "equalization", self.data_format, inputs[0])?;
        let [low, high] = self.value_range;
        if !(2..=MAX_BINS).contains(&self.bins) || low == high {
            let got = format!("{} bins from {low} to {high}", self.bins);
            return Err(OpError::new("equalization", "2 to 1024 bins of a range", got, "change the option"));
        }
        if scope.mode == Mode::Inference {
            return Ok(inputs.to_vec());
        }
        let (g, last) = (&mut *scope.graph, (self.bins - 1) as f32);
        let own = [low.min(high), low.max(high)];
        let x = ranged(g, inputs[0], own, [0.0, 255.0])?;
        let bin = g.scale(x, last / 255.0)?;
        let bin = g.clip(bin, 0.0, last)?;
        let bin = g.unary("floor", bin)?;
        let (table, is_flat) = self.table(g, bin, channels)?;
        let firsts: Vec<f32> = (0..channels).map(|c| (c * self.bins) as f32).collect();
        let firsts = g.literal([channels], firsts)?;
        let places = g.add(bin, firsts)?;
        let equal = g.embedding(table, places)?;
        let equal = g.reshape(equal, g.shape(x).clone())?;
        let y = g.where_(is_flat, x, equal)?;
        Ok(vec![ranged(g, y, [0.0, 255.0], own)?])
    }

    /// Returns the new value of each bin of each channel, and whether a channel has but one bin.
    fn table(&self, g: &mut Graph, bin: Value, channels: usize) -> Result<(Value, Value), OpError> {
        let shape = g.shape(bin).clone();
        let beside = g.reshape(bin, shape.with_row(&[&shape.dims()[1..], &[1]].concat()))?;
        let mut counts = Vec::new();
        for first in (0..self.bins).step_by(BINS_AT_ONCE) {
            let ends: Vec<f32> = (first..self.bins.min(first + BINS_AT_ONCE)).map(|b| b as f32).collect();
            let ends = g.literal([ends.len()], ends)?;
            let below = g.binary("less_equal", beside, ends)?;
            counts.push(g.sum(below, &[0, 1, 2], false)?);
        }
        // How many pixels of a channel are in a bin or those before it.
        let counts = g.concat(&counts, 1)?;
        let all = g.max_axes(counts, &[1], true)?;
        let zero = g.constant(0.0)?;
        let some = g.binary("greater", counts, zero)?;
        let some = g.where_(some, counts, all)?;
        let first = g.min_axes(some, &[1], true)?;
        let (others, above) = (g.sub(all, first)?, g.sub(counts, first)?);
        let (is_flat, one) = (g.binary("equal", others, zero)?, g.constant(1.0)?);
        let divisor = g.where_(is_flat, one, others)?;
        let scaled = g.scale(above, 255.0)?;
        let values = g.div(scaled, divisor)?;
        let values = g.unary("round", values)?;
        let values = g.clip(values, 0.0, 255.0)?;
        let table = g.reshape(values, Shape::fixed([channels * self.bins, 1]))?;
        Ok((table, g.reshape(is_flat, Shape::fixed([channels]))?))
    }
}
