use super::{Axis, DataFormat, layer, merge::axis};
use crate::{
    graph::{OpError, Value},
    nn::{Initializer, LayerError, Scope},
    tensor::HostTensor,
};
use serde::{Deserialize, Serialize};

/// One number, or one for each channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Numbers {
    /// The same for all.
    One(f32),
    /// One for each.
    Each(Vec<f32>),
    /// One for each, nested in axes of extent 1, as Keras writes them.
    Nested(Vec<Numbers>),
}

impl Numbers {
    fn flat(&self) -> Vec<f32> {
        match self {
            Numbers::One(x) => vec![*x],
            Numbers::Each(all) => all.clone(),
            Numbers::Nested(parts) => parts.iter().flat_map(Numbers::flat).collect(),
        }
    }
}

impl From<f32> for Numbers {
    fn from(x: f32) -> Self {
        Numbers::One(x)
    }
}

impl<const N: usize> From<[f32; N]> for Numbers {
    fn from(each: [f32; N]) -> Self {
        Numbers::Each(each.to_vec())
    }
}

impl From<Vec<f32>> for Numbers {
    fn from(each: Vec<f32>) -> Self {
        Numbers::Each(each)
    }
}

/// Returns numbers in a graph: one, or one for each element of `shape`.
fn numbers(scope: &mut Scope, layer: &str, numbers: &Numbers, shape: &[usize]) -> Result<Value, OpError> {
    let flat = numbers.flat();
    match flat[..] {
        [one] => scope.graph.constant(one),
        _ if flat.len() == shape.iter().product::<usize>() => scope.graph.literal(shape, flat),
        _ => {
            let wanted = format!("one number or {shape:?}");
            Err(OpError::new(layer, wanted, format!("{} numbers", flat.len()), "give one for each channel"))
        }
    }
}

layer! {
    /// x · scale + offset (Keras `Rescaling`), with numbers for all channels or for each.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([224, 224, 3]).add(Rescaling::new(1.0 / 127.5).offset(-1.0)).build()?;
    /// assert_eq!(model.count_params(), 0);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct Rescaling as "Rescaling" {
        new scale: Numbers = Numbers::One(1.0),
        /// Sets the offset.
        into offset: Numbers = Numbers::One(0.0),
    }
}

impl Rescaling {
    /// Returns a layer with this factor.
    pub fn new(scale: impl Into<Numbers>) -> Self {
        Rescaling { scale: scale.into(), ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let channels = [scope.graph.shape(inputs[0]).last()];
        let factor = numbers(scope, "rescaling", &self.scale, &channels)?;
        let offset = numbers(scope, "rescaling", &self.offset, &channels)?;
        let y = scope.graph.mul(inputs[0], factor)?;
        Ok(vec![scope.graph.add(y, offset)?])
    }
}

layer! {
    /// (x − mean) / max(√variance, 1e-7) (Keras `Normalization`), with statistics from [`Normalization::adapt`] or a
    /// file.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let samples = HostTensor::f32([2, 3], vec![0.0, 2.0, 4.0, 2.0, 4.0, 8.0])?;
    /// let layer = Normalization::new().adapt(&samples)?;
    /// let model = Sequential::new([3]).add(layer).build()?;
    /// assert_eq!(model.count_params(), 0);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct Normalization as "Normalization" {
        /// Sets the axes that have a mean and a variance for each index.
        into axis: Option<Axis> = Some(Axis::One(-1)),
        /// Sets the means; `None` reads them from weights.
        into mean: Option<Numbers> = None,
        /// Sets the variances; `None` reads them from weights.
        into variance: Option<Numbers> = None,
        /// Sets whether the layer undoes the normalisation.
        set invert: bool = false,
    }
}

impl Normalization {
    /// Returns a layer for the last axis, which reads means and variances from weights unless they are given.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the kept axes of a tensor of this rank.
    fn kept(&self, rank: usize) -> Result<Vec<usize>, OpError> {
        let listed = self.axis.iter().flat_map(|a| a.list()).map(|&a| axis(a, rank).filter(|&a| a > 0));
        let mut kept = listed.collect::<Option<Vec<_>>>().ok_or_else(|| {
            let (wanted, got) = (
                format!("axes from 1 to {}", rank - 1),
                format!("{:?}", self.axis.as_ref().map_or(&[][..], |a| a.list())),
            );
            OpError::new("normalization", wanted, got, "choose axes of the sample")
        })?;
        kept.sort_unstable();
        Ok(kept)
    }

    /// Sets mean and variance to those of samples (n, …).
    pub fn adapt(mut self, samples: &HostTensor) -> Result<Self, LayerError> {
        let (dims, values) = (samples.shape(), samples.to_f32());
        let kept = self.kept(dims.len()).map_err(|e| crate::nn::functional::error("normalization", &self, e))?;
        let count: usize = kept.iter().map(|&a| dims[a]).product();
        let index = |i: usize| {
            kept.iter().fold(0, |at, &a| at * dims[a] + i / dims[a + 1..].iter().product::<usize>() % dims[a])
        };
        let mut sums = vec![(0.0f64, 0.0f64, 0u64); count];
        for (i, &x) in values.iter().enumerate() {
            // Welford's method: mean, sum of squares about it, number.
            let (mean, squares, n) = &mut sums[index(i)];
            *n += 1;
            let from = f64::from(x) - *mean;
            *mean += from / *n as f64;
            *squares += from * (f64::from(x) - *mean);
        }
        self.mean = Some(Numbers::Each(sums.iter().map(|s| s.0 as f32).collect()));
        self.variance = Some(Numbers::Each(sums.iter().map(|s| (s.1 / s.2.max(1) as f64) as f32).collect()));
        Ok(self)
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let shape = scope.graph.shape(inputs[0]).clone();
        let kept = self.kept(shape.rank())?;
        let own: Vec<usize> = kept.iter().map(|&a| shape.dims()[a]).collect();
        let broadcast: Vec<usize> =
            (1..shape.rank()).map(|a| if kept.contains(&a) { shape.dims()[a] } else { 1 }).collect();
        let (mean, variance) = match (&self.mean, &self.variance) {
            (Some(mean), Some(variance)) => {
                let mean = numbers(scope, "normalization", mean, &broadcast)?;
                (mean, numbers(scope, "normalization", variance, &broadcast)?)
            }
            _ => {
                let mean = scope.state("mean", &own, &Initializer::Zeros);
                let variance = scope.state("variance", &own, &Initializer::Ones);
                scope.state("count", &[], &Initializer::Zeros);
                (scope.graph.reshape(mean, broadcast.clone())?, scope.graph.reshape(variance, broadcast)?)
            }
        };
        let (g, x) = (&mut *scope.graph, inputs[0]);
        let (root, min) = (g.unary("sqrt", variance)?, g.constant(1e-7)?);
        let deviation = g.binary("max", root, min)?;
        Ok(vec![match self.invert {
            true => {
                let y = g.mul(x, deviation)?;
                g.add(y, mean)?
            }
            false => {
                let y = g.sub(x, mean)?;
                g.div(y, deviation)?
            }
        }])
    }
}

layer! {
    /// Stretches each channel of an image over the range of values (Keras `AutoContrast`); a channel of one value stays.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([32, 32, 3]).add(AutoContrast::new()).build()?;
    /// assert_eq!(model.count_params(), 0);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct AutoContrast as "AutoContrast" {
        /// Sets the range of pixel values.
        set value_range: [f32; 2] = [0.0, 255.0],
        /// Sets the order of axes; only `ChannelsLast` is supported.
        set data_format: DataFormat = DataFormat::ChannelsLast,
    }
}

impl AutoContrast {
    /// Returns the layer.
    pub fn new() -> Self {
        Self::default()
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let x = inputs[0];
        super::image(scope.graph, "auto_contrast", x)?;
        if self.data_format == DataFormat::ChannelsFirst {
            let advice = "permute the images before this layer";
            return Err(OpError::new("auto_contrast", "channels_last", "channels_first", advice));
        }
        let (g, [low, high]) = (&mut *scope.graph, self.value_range);
        let (least, most) = (g.min_axes(x, &[1, 2], true)?, g.max_axes(x, &[1, 2], true)?);
        let (span, above) = (g.sub(most, least)?, g.sub(x, least)?);
        let (zero, one) = (g.constant(0.0)?, g.constant(1.0)?);
        let flat = g.binary("equal", span, zero)?;
        let divisor = g.where_(flat, one, span)?;
        let share = g.div(above, divisor)?;
        let (scaled, offset) = (g.scale(share, high - low)?, g.constant(low)?);
        let stretched = g.add(scaled, offset)?;
        Ok(vec![g.where_(flat, x, stretched)?])
    }
}
