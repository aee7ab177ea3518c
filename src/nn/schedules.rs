//! Learning rates that change from step to step.

use super::{Bounds, Number, keras_object::described, layer::setter};
use serde_json::{Value as Json, json};
use std::fmt;

/// A learning rate for each step.
pub trait LearningRate: fmt::Debug + Send + Sync {
    /// Returns the rate of step `step`, from 0.
    fn at(&self, step: u64) -> f64;

    /// Returns whether it is a constant, which callbacks may change.
    fn is_constant(&self) -> bool {
        false
    }

    /// Returns its numbers with their bounds.
    fn numbers(&self) -> Vec<Number> {
        Vec::new()
    }

    /// Returns it as Keras writes it to a file, or `Null` for one that Keras does not have.
    fn config(&self) -> Json {
        Json::Null
    }
}

impl LearningRate for f64 {
    fn at(&self, _step: u64) -> f64 {
        *self
    }

    fn is_constant(&self) -> bool {
        true
    }

    fn numbers(&self) -> Vec<Number> {
        vec![Number::new("optimizer", "learning_rate", *self, Bounds::AtLeastZero)]
    }

    fn config(&self) -> Json {
        json!(self)
    }
}

/// Lists the numbers of a schedule, each with its bounds.
macro_rules! numbers {
    ($Name:ident: $($option:ident $bounds:ident),*) => {
        fn numbers(&self) -> Vec<Number> {
            vec![$(Number::new(stringify!($Name), stringify!($option), self.$option, Bounds::$bounds)),*]
        }
    };
}

fn schedule(class: &str, config: Json) -> Json {
    described("keras.optimizers.schedules", class, config)
}

/// Returns the value of a half cosine that falls from 1 to 0, at `t` from 0 to 1.
fn half_cosine(t: f64) -> f64 {
    0.5 * (1.0 + (std::f64::consts::PI * t).cos())
}

/// Declares a schedule that decays with step / steps.
macro_rules! decay {
    ($(#[$meta:meta])* $Name:ident |$rate:ident, $decay:ident, $times:ident| $at:expr) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub struct $Name {
            rate: f64,
            steps: u64,
            decay: f64,
            staircase: bool,
        }

        impl $Name {
            /// Returns the schedule that begins at `rate` and decays by `decay` over `steps` steps.
            pub fn new(rate: f64, steps: u64, decay: f64) -> Self {
                $Name { rate, steps: steps.max(1), decay, staircase: false }
            }

            setter!(set
                /// Sets whether the rate falls only at multiples of its steps; false by default.
                staircase: bool);
        }

        impl LearningRate for $Name {
            fn at(&self, step: u64) -> f64 {
                let times = step as f64 / self.steps as f64;
                let ($rate, $decay, $times) = (self.rate, self.decay, if self.staircase { times.floor() } else { times });
                $at
            }

            numbers!($Name: rate AtLeastZero, decay AtLeastZero);

            fn config(&self) -> Json {
                let (rate, steps, decay) = (self.rate, self.steps, self.decay);
                let config = json!({
                    "initial_learning_rate": rate, "decay_steps": steps, "decay_rate": decay, "staircase": self.staircase
                });
                schedule(stringify!($Name), config)
            }
        }
    };
}

decay! {
    /// rate · decay^(step / steps) (Keras `ExponentialDecay`).
    ///
    /// ```
    /// use hubel::optimizers::*;
    /// let rate = ExponentialDecay::new(0.1, 100, 0.5);
    /// assert_eq!((rate.at(0), rate.at(200)), (0.1, 0.025));
    /// ```
    ExponentialDecay |rate, decay, times| rate * decay.powf(times)
}

decay! {
    /// rate / (1 + decay · step / steps) (Keras `InverseTimeDecay`).
    ///
    /// ```
    /// use hubel::optimizers::*;
    /// assert_eq!(InverseTimeDecay::new(0.1, 100, 1.0).at(100), 0.05);
    /// ```
    InverseTimeDecay |rate, decay, times| rate / (1.0 + decay * times)
}

/// Falls along half a cosine to `alpha` times the rate, after an optional linear warm-up (Loshchilov and Hutter 2017;
/// Keras `CosineDecay`).
///
/// ```
/// use hubel::optimizers::*;
/// let rate = CosineDecay::new(0.0, 900).warmup(1e-2, 100);
/// assert_eq!((rate.at(0), rate.at(50), rate.at(100)), (0.0, 5e-3, 1e-2));
/// assert!(rate.at(1000) < 1e-9);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CosineDecay {
    rate: f64,
    steps: u64,
    alpha: f64,
    warmup: Option<(f64, u64)>,
}

impl CosineDecay {
    /// Returns the schedule that falls from `rate` over `steps` steps.
    pub fn new(rate: f64, steps: u64) -> Self {
        CosineDecay { rate, steps: steps.max(1), alpha: 0.0, warmup: None }
    }

    setter!(set
        /// Sets the final rate as a share of the highest; 0 by default.
        alpha: f64);

    /// Adds a warm-up from the initial rate to `target` over the first `steps` steps; the decay starts after it.
    pub fn warmup(mut self, target: f64, steps: u64) -> Self {
        self.warmup = Some((target, steps));
        self
    }
}

impl LearningRate for CosineDecay {
    fn at(&self, step: u64) -> f64 {
        let (top, first) = self.warmup.unwrap_or((self.rate, 0));
        if step < first {
            return self.rate + (top - self.rate) * step as f64 / first as f64;
        }
        let done = ((step - first) as f64 / self.steps as f64).min(1.0);
        top * ((1.0 - self.alpha) * half_cosine(done) + self.alpha)
    }

    fn numbers(&self) -> Vec<Number> {
        let of = |option, value| Number::new("CosineDecay", option, value, Bounds::AtLeastZero);
        let warmup = self.warmup.map(|(target, _)| of("warmup_target", target));
        [of("rate", self.rate), of("alpha", self.alpha)].into_iter().chain(warmup).collect()
    }

    fn config(&self) -> Json {
        let (target, first) = self.warmup.unzip();
        let config = json!({
            "initial_learning_rate": self.rate, "decay_steps": self.steps, "alpha": self.alpha,
            "warmup_target": target, "warmup_steps": first.unwrap_or(0)
        });
        schedule("CosineDecay", config)
    }
}

/// Cosine decay with restarts, each period `t_mul` times as long and `m_mul` times as high as the one before (Keras
/// `CosineDecayRestarts`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CosineDecayRestarts {
    rate: f64,
    steps: u64,
    t_mul: f64,
    m_mul: f64,
    alpha: f64,
}

impl CosineDecayRestarts {
    /// Returns the schedule whose first period has `steps` steps, and each following one twice as many.
    pub fn new(rate: f64, steps: u64) -> Self {
        CosineDecayRestarts { rate, steps: steps.max(1), t_mul: 2.0, m_mul: 1.0, alpha: 0.0 }
    }

    /// Sets the factors of length and height from one period to the next.
    pub fn growth(mut self, t_mul: f64, m_mul: f64) -> Self {
        (self.t_mul, self.m_mul) = (t_mul, m_mul);
        self
    }

    setter!(set
        /// Sets the lowest rate as a share of the initial one; 0 by default.
        alpha: f64);
}

impl LearningRate for CosineDecayRestarts {
    fn at(&self, step: u64) -> f64 {
        let done = step as f64 / self.steps as f64;
        let (restarts, within) = if self.t_mul == 1.0 {
            (done.floor(), done.fract())
        } else {
            let i = ((1.0 - done * (1.0 - self.t_mul)).ln() / self.t_mul.ln()).floor();
            let before = (1.0 - self.t_mul.powf(i)) / (1.0 - self.t_mul);
            (i, (done - before) / self.t_mul.powf(i))
        };
        let height = self.m_mul.powf(restarts) * half_cosine(within);
        self.rate * ((1.0 - self.alpha) * height + self.alpha)
    }

    numbers!(CosineDecayRestarts: rate AtLeastZero, t_mul Positive, m_mul AtLeastZero, alpha AtLeastZero);

    fn config(&self) -> Json {
        let config = json!({
            "initial_learning_rate": self.rate, "first_decay_steps": self.steps, "t_mul": self.t_mul,
            "m_mul": self.m_mul, "alpha": self.alpha
        });
        schedule("CosineDecayRestarts", config)
    }
}

/// Falls from `rate` to `end` along a polynomial (Keras `PolynomialDecay`), linearly by default.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PolynomialDecay {
    rate: f64,
    steps: u64,
    end: f64,
    power: f64,
    cycle: bool,
}

impl PolynomialDecay {
    /// Returns the schedule that reaches `end` after `steps` steps.
    pub fn new(rate: f64, steps: u64, end: f64) -> Self {
        PolynomialDecay { rate, steps: steps.max(1), end, power: 1.0, cycle: false }
    }

    setter!(set
        /// Sets the exponent; 1 by default.
        power: f64);

    setter!(set
        /// Sets whether the decay repeats, each time over more steps; false by default, which stays at `end`.
        cycle: bool);
}

impl LearningRate for PolynomialDecay {
    fn at(&self, step: u64) -> f64 {
        let (mut step, mut steps) = (step as f64, self.steps as f64);
        match self.cycle {
            true => steps *= (step / steps).ceil().max(1.0),
            false => step = step.min(steps),
        }
        (self.rate - self.end) * (1.0 - step / steps).powf(self.power) + self.end
    }

    numbers!(PolynomialDecay: rate AtLeastZero, end AtLeastZero, power AtLeastZero);

    fn config(&self) -> Json {
        let config = json!({
            "initial_learning_rate": self.rate, "decay_steps": self.steps, "end_learning_rate": self.end,
            "power": self.power, "cycle": self.cycle
        });
        schedule("PolynomialDecay", config)
    }
}

/// A constant rate for each interval of steps (Keras `PiecewiseConstantDecay`).
///
/// ```
/// use hubel::optimizers::*;
/// let rate = PiecewiseConstantDecay::new(0.1, [(100, 0.01), (150, 0.001)]);
/// assert_eq!([100, 101, 150, 151].map(|step| rate.at(step)), [0.1, 0.01, 0.01, 0.001]);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct PiecewiseConstantDecay {
    rate: f64,
    changes: Vec<(u64, f64)>,
}

impl PiecewiseConstantDecay {
    /// Returns the schedule that begins with `rate` and changes to each further rate after its step.
    pub fn new(rate: f64, changes: impl Into<Vec<(u64, f64)>>) -> Self {
        PiecewiseConstantDecay { rate, changes: changes.into() }
    }
}

impl LearningRate for PiecewiseConstantDecay {
    fn at(&self, step: u64) -> f64 {
        let passed = self.changes.iter().rev().find(|(after, _)| step > *after);
        passed.map_or(self.rate, |(_, rate)| *rate)
    }

    fn numbers(&self) -> Vec<Number> {
        let rates = [self.rate].into_iter().chain(self.changes.iter().map(|change| change.1));
        rates.map(|rate| Number::new("PiecewiseConstantDecay", "rate", rate, Bounds::AtLeastZero)).collect()
    }

    fn config(&self) -> Json {
        let (boundaries, rates): (Vec<u64>, Vec<f64>) = self.changes.iter().copied().unzip();
        let values = [&[self.rate], &rates[..]].concat();
        schedule("PiecewiseConstantDecay", json!({ "boundaries": boundaries, "values": values }))
    }
}

/// Rises to `max` over the first 30% of the steps and falls to almost nothing, both along half a cosine
/// (Smith and Topin 2018, *Super-convergence*; the form of PyTorch's `OneCycleLR`).
///
/// ```
/// use hubel::optimizers::*;
/// let rate = OneCycle::new(4e-3, 1000);
/// assert!(rate.at(0) < rate.at(300) && rate.at(999) < rate.at(0));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OneCycle {
    max: f64,
    steps: u64,
}

impl OneCycle {
    /// Returns the schedule of `steps` steps with the highest rate `max`.
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
        let between = |from: f64, to: f64, t: f64| to + (from - to) * half_cosine(t);
        if at <= top {
            between(start, self.max, at / top)
        } else {
            between(self.max, end, (at - top) / (last - top).max(1e-9))
        }
    }

    numbers!(OneCycle: max AtLeastZero);
}
