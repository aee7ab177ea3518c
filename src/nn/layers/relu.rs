use super::layer;
use crate::{
    graph::{OpError, Value},
    nn::{Initializer, Scope},
};

layer! {
    /// Rectifier with options (Keras `ReLU`): `max_value` for x ≥ `max_value`, x for x ≥ `threshold`, else
    /// `negative_slope` · (x − `threshold`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([4]).add(ReLU::new().max_value(6.0)).build()?;
    /// assert_eq!(model.layer_names(), ["re_lu"]);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct ReLU as "ReLU" {
        /// Sets the largest output; `None` is no limit.
        into max_value: Option<f32> = None,
        /// Sets the slope below the threshold.
        set negative_slope: f32 = 0.0,
        /// Sets the threshold.
        set threshold: f32 = 0.0,
    }
}

impl ReLU {
    /// Returns the layer with Keras's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let (g, x) = (&mut *scope.graph, inputs[0]);
        let y = match (self.threshold, self.negative_slope, self.max_value) {
            (0.0, 0.0, Some(6.0)) => return Ok(vec![g.unary("relu6", x)?]),
            (0.0, 0.0, _) => g.relu(x)?,
            (0.0, slope, _) => g.leaky_relu(x, slope)?,
            (threshold, slope, _) => {
                let threshold = g.constant(threshold)?;
                let (above, rest) = (g.binary("greater_equal", x, threshold)?, g.sub(x, threshold)?);
                let rest = g.scale(rest, slope)?;
                let shape = g.shape(x).clone();
                let rest = g.expand(rest, &shape)?;
                g.where_(above, x, rest)?
            }
        };
        Ok(vec![match self.max_value {
            None => y,
            Some(max) => {
                let max = g.constant(max)?;
                g.binary("min", y, max)?
            }
        }])
    }
}

layer! {
    /// x, or `negative_slope` · x below 0 (Keras `LeakyReLU`; Maas et al. 2013).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([4]).add(LeakyReLU::new(0.1)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 4)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct LeakyReLU as "LeakyReLU" {
        new negative_slope: f32 = 0.3,
    }
}

impl LeakyReLU {
    /// Returns a layer with this slope below 0; Keras's default is 0.3.
    pub fn new(negative_slope: f32) -> Self {
        LeakyReLU { negative_slope, ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        Ok(vec![scope.graph.leaky_relu(inputs[0], self.negative_slope)?])
    }
}

layer! {
    /// x, or `alpha` · (eˣ − 1) below 0 (Keras `ELU`; Clevert et al. 2016).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([4]).add(ELU::new(1.0)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 4)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct ELU as "ELU" {
        new alpha: f32 = 1.0,
    }
}

impl ELU {
    /// Returns a layer with outputs above −`alpha`; Keras's default is 1.
    pub fn new(alpha: f32) -> Self {
        ELU { alpha, ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        Ok(vec![scope.graph.elu(inputs[0], self.alpha)?])
    }
}

layer! {
    /// x, or `alpha` · x below 0 (Keras `PReLU`; He et al. 2015), with a learned `alpha` for each element of a sample
    /// unless axes share it.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([8, 8, 4]).add(PReLU::new().shared_axes([1, 2])).build()?;
    /// assert_eq!(model.count_params(), 4);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct PReLU as "PReLU" {
        /// Sets the axes that share one slope, counted from the batch, axis 0.
        into shared_axes: Vec<usize> = Vec::new(),
    } weights { alpha = Initializer::Zeros }
}

impl PReLU {
    /// Returns the layer with Keras's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let dims = scope.graph.shape(inputs[0]).dims()[1..].to_vec();
        if let Some(axis) = self.shared_axes.iter().find(|axis| !(1..=dims.len()).contains(axis)) {
            let wanted = format!("shared axes from 1 to {}", dims.len());
            return Err(OpError::new("prelu", wanted, axis, "choose axes of the sample"));
        }
        let shape: Vec<usize> =
            dims.iter().zip(1..).map(|(&d, axis)| if self.shared_axes.contains(&axis) { 1 } else { d }).collect();
        let alpha = scope.weight("alpha", &shape, self.alpha())?;
        Ok(vec![scope.graph.prelu(inputs[0], alpha)?])
    }
}
