use super::layer;
use crate::{
    graph::{OpError, Value},
    nn::{Mode, Scope},
    ops::Draw,
};

layer! {
    /// Adds normal noise in training (Keras `GaussianNoise`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([10]).add(GaussianNoise::new(0.1)).build()?;
    /// assert_eq!(model.count_params(), 0);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct GaussianNoise as "GaussianNoise" {
        new stddev: f32 = 0.1,
    }
}

impl GaussianNoise {
    /// Returns a layer with noise of this standard deviation.
    pub fn new(stddev: f32) -> Self {
        GaussianNoise { stddev, ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        if !(0.0..=f32::MAX).contains(&self.stddev) {
            let advice = "give the standard deviation of the noise";
            return Err(OpError::new("gaussian_noise", "a standard deviation of at least 0", self.stddev, advice));
        }
        if scope.mode == Mode::Inference || self.stddev == 0.0 {
            return Ok(vec![inputs[0]]);
        }
        let (shape, name) = (scope.graph.shape(inputs[0]).clone(), scope.layer().to_owned());
        let noise = scope.graph.random(Draw::Normal { mean: 0.0, deviation: self.stddev }, &shape, &name)?;
        Ok(vec![scope.graph.add(inputs[0], noise)?])
    }
}
