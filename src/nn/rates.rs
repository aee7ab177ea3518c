//! Learning rates that change from step to step.

use std::fmt;

/// A learning rate for each step.
pub trait LearningRate: fmt::Debug + Send + Sync {
    /// Returns the rate of step `step`, from 0.
    fn at(&self, step: u64) -> f64;
}

impl LearningRate for f64 {
    fn at(&self, _step: u64) -> f64 {
        *self
    }
}

/// Rises to `max` over the first 30% of the steps and falls to almost nothing, both along half a cosine
/// (Smith and Topin 2018, *Super-convergence*; the form of PyTorch's `OneCycleLR`).
///
/// ```
/// use hubel::prelude::*;
/// let rate = OneCycle::new(4e-3, 1000);
/// assert!(rate.at(0) < rate.at(300) && rate.at(999) < rate.at(0));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OneCycle {
    max: f64,
    steps: u64,
}

impl OneCycle {
    /// Returns the schedule of `steps` steps with highest rate `max`.
    pub fn new(max: f64, steps: u64) -> Self {
        OneCycle { max, steps: steps.max(2) }
    }
}

impl LearningRate for OneCycle {
    fn at(&self, step: u64) -> f64 {
        let (start, end) = (self.max / 25.0, self.max / 25.0 / 1e4);
        let last = (self.steps - 1) as f64;
        let top = (0.3 * self.steps as f64 - 1.0).clamp(1e-9, last);
        let at = (step as f64).min(last);
        let half_cosine =
            |from: f64, to: f64, t: f64| to + (from - to) / 2.0 * (1.0 + (std::f64::consts::PI * t).cos());
        if at <= top {
            half_cosine(start, self.max, at / top)
        } else {
            half_cosine(self.max, end, (at - top) / (last - top).max(1e-9))
        }
    }
}
