//! Optimisers: how gradients change weights, as in Keras.

use super::{Bounds, LearningRate, Number, keras_object::described, layer::setter};
use crate::{
    graph::{Graph, OpError, Step, Value},
    ops::{self, Rule},
};
use serde_json::{Map, Value as Json, json};
use std::{fmt, sync::Arc};

/// A rule that changes weights by their gradients.
pub trait Optimizer: fmt::Debug + Send + Sync {
    /// Returns the names of its moments: the tensors kept for each weight.
    fn moments(&self) -> Vec<&'static str>;

    /// Returns the initial values of the moments.
    fn initial(&self) -> f32 {
        0.0
    }

    /// Returns the gradients of all weights, clipped.
    fn clip(&self, _g: &mut Graph, gradients: &[Value]) -> Result<Vec<Value>, OpError> {
        Ok(gradients.to_vec())
    }

    /// Appends one update of some weights, at `factor` times the learning rate, and returns the new value of each
    /// state.
    ///
    /// `moments[s][i]` is the tensor of moment `s` for weight `i`.
    fn build(
        &self,
        g: &mut Graph,
        weights: &[Value],
        gradients: &[Value],
        moments: &[Vec<Value>],
        factor: f32,
    ) -> Result<Vec<(Value, Value)>, OpError>;

    /// Returns the host numbers of step `step`, from 0, at this learning rate.
    fn scalars(&self, rate: f64, step: u64) -> [f32; Step::N_SCALARS];

    /// Returns the learning rate of step `step`.
    fn rate(&self, step: u64) -> f64;

    /// Returns whether the learning rate is a schedule, which callbacks may not change.
    fn has_schedule(&self) -> bool {
        false
    }

    /// Returns the numbers among its options with their bounds, which [`Model::compile`](super::Model::compile) checks.
    fn numbers(&self) -> Vec<Number> {
        Vec::new()
    }

    /// Returns it as Keras writes it to a file, or `Null` for one that Keras does not have.
    fn config(&self) -> Json {
        Json::Null
    }
}

/// Clipping of gradients.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
enum Clip {
    #[default]
    None,
    /// Each element to ± this.
    Value(f32),
    /// Each weight's gradient scaled down to this norm.
    Norm(f32),
    /// All gradients scaled down by one factor to this global norm.
    GlobalNorm(f32),
}

impl Clip {
    fn number(self, of: &'static str) -> Option<Number> {
        let (option, limit) = match self {
            Clip::None => return None,
            Clip::Value(limit) => ("clipvalue", limit),
            Clip::Norm(limit) => ("clipnorm", limit),
            Clip::GlobalNorm(limit) => ("global_clipnorm", limit),
        };
        Some(Number::new(of, option, limit, Bounds::Positive))
    }

    fn of(config: &Map<String, Json>) -> Clip {
        let limit = |option: &str| config.get(option).and_then(Json::as_f64).map(|limit| limit as f32);
        let value = limit("clipvalue").map(Clip::Value);
        value
            .or(limit("clipnorm").map(Clip::Norm))
            .or(limit("global_clipnorm").map(Clip::GlobalNorm))
            .unwrap_or_default()
    }

    fn build(self, g: &mut Graph, gradients: &[Value]) -> Result<Vec<Value>, OpError> {
        match self {
            Clip::None => Ok(gradients.to_vec()),
            Clip::Value(limit) => gradients.iter().map(|&d| g.clip(d, -limit, limit)).collect(),
            Clip::Norm(limit) => gradients.iter().map(|&d| g.clip_by_norm(d, limit)).collect(),
            Clip::GlobalNorm(limit) => g.clip_by_global_norm(gradients, limit),
        }
    }
}

/// Declares optimisers of one rule: their names with the default weight decay of each; the options with their defaults
/// and the bounds of numbers; the initial value of the moments; the rule; the names of the moments.
macro_rules! optimizer {
    ($($(#[$meta:meta])* $Name:ident $class:literal decay $decay:literal,)+ =
     $options:tt initial $initial:expr, |$this:ident| $rule:expr, $moments:expr) => {
        $(optimizer! { @one $(#[$meta])* $Name $class $decay, $options $initial, $this $rule, $moments })+
    };
    (@one $(#[$meta:meta])* $Name:ident $class:literal $decay:literal,
     { $($(#[$doc:meta])* $option:ident: $ty:ty = $default:expr $(, $bounds:ident)?;)* }
     $initial:expr, $this:ident $rule:expr, $moments:expr) => {
        $(#[$meta])*
        #[derive(Debug, Clone)]
        pub struct $Name {
            rate: Arc<dyn LearningRate>,
            weight_decay: f32,
            clip: Clip,
            $($option: $ty,)*
        }

        impl $Name {
            /// Returns the optimiser with this learning rate and Keras's other defaults.
            pub fn new(rate: impl LearningRate + 'static) -> Self {
                $Name { rate: Arc::new(rate), weight_decay: $decay, clip: Clip::None, $($option: $default,)* }
            }

            $(setter!(set $(#[$doc])* $option: $ty = $default);)*

            setter!(set
                /// Sets the decoupled weight decay: each step first subtracts this share of each weight, times the
                /// learning rate.
                weight_decay: f32);

            /// Scales each weight's gradient down to this norm. The last kind of clipping that is set replaces the
            /// others.
            pub fn clipnorm(self, limit: f32) -> Self {
                $Name { clip: Clip::Norm(limit), ..self }
            }

            /// Clips each element of a gradient to ± `limit`.
            pub fn clipvalue(self, limit: f32) -> Self {
                $Name { clip: Clip::Value(limit), ..self }
            }

            /// Scales all gradients down by one factor to this global norm.
            pub fn global_clipnorm(self, limit: f32) -> Self {
                $Name { clip: Clip::GlobalNorm(limit), ..self }
            }

            fn rule(&self) -> Rule {
                let $this = self;
                $rule
            }

            /// Returns the optimiser with the options of a file.
            pub(super) fn from_config(
                rate: Arc<dyn LearningRate>,
                config: &Map<String, Json>,
            ) -> serde_json::Result<Arc<dyn Optimizer>> {
                let mut new = $Name { rate, clip: Clip::of(config), ..$Name::new(0.0) };
                let given = |option: &str| config.get(option).filter(|value| !value.is_null()).cloned();
                $(if let Some(value) = given(stringify!($option)) {
                    new.$option = serde_json::from_value(value)?;
                })*
                new.weight_decay = given("weight_decay").map_or(Ok(0.0), serde_json::from_value)?;
                Ok(Arc::new(new))
            }
        }

        impl Optimizer for $Name {
            fn moments(&self) -> Vec<&'static str> {
                #[allow(unused_variables, reason = "not every expression that the macro takes uses it")]
                let $this = self;
                $moments
            }

            fn initial(&self) -> f32 {
                #[allow(unused_variables, reason = "not every expression that the macro takes uses it")]
                let $this = self;
                $initial
            }

            fn clip(&self, g: &mut Graph, gradients: &[Value]) -> Result<Vec<Value>, OpError> {
                self.clip.build(g, gradients)
            }

            fn build(
                &self,
                g: &mut Graph,
                weights: &[Value],
                gradients: &[Value],
                moments: &[Vec<Value>],
                factor: f32,
            ) -> Result<Vec<(Value, Value)>, OpError> {
                let op = ops::Optimizer { rule: self.rule(), weight_decay: self.weight_decay, factor };
                let by_moment: Vec<&[Value]> = moments.iter().map(Vec::as_slice).collect();
                let new = g.optimize(op, weights, gradients, &by_moment)?;
                Ok(weights.iter().chain(moments.iter().flatten()).copied().zip(new).collect())
            }

            fn scalars(&self, rate: f64, step: u64) -> [f32; Step::N_SCALARS] {
                self.rule().scalars(rate, step)
            }

            fn rate(&self, step: u64) -> f64 {
                self.rate.at(step)
            }

            fn has_schedule(&self) -> bool {
                !self.rate.is_constant()
            }

            fn numbers(&self) -> Vec<Number> {
                let of = stringify!($Name);
                let mut numbers = self.rate.numbers();
                numbers.push(Number::new(of, "weight_decay", self.weight_decay, Bounds::AtLeastZero));
                numbers.extend(self.clip.number(of));
                $($(numbers.push(Number::new(of, stringify!($option), self.$option, Bounds::$bounds));)?)*
                numbers
            }

            fn config(&self) -> Json {
                let rate = self.rate.config();
                if rate.is_null() {
                    return rate;
                }
                let mut config = json!({ "learning_rate": rate, "weight_decay": self.weight_decay });
                $(config[stringify!($option)] = json!(self.$option);)*
                if let Some(clip) = self.clip.number($class) {
                    config[clip.option] = json!(clip.value);
                }
                described("keras.optimizers", $class, config)
            }
        }
    };
}

optimizer! {
    /// Stochastic gradient descent (Keras `SGD`): v = μv − lr·g, w += v; Nesterov w += μv − lr·g.
    ///
    /// ```
    /// use hubel::optimizers::*;
    /// let optimizer = Sgd::new(0.01).momentum(0.9).nesterov(true);
    /// assert_eq!(optimizer.moments(), ["velocity"]);
    /// ```
    Sgd "SGD" decay 0.0,
    = {
        /// Sets the momentum.
        momentum: f32 = 0.0, Share;
        /// Sets whether the momentum is Nesterov's.
        nesterov: bool = false;
    }
    initial 0.0, |o| Rule::Sgd { momentum: o.momentum, nesterov: o.nesterov },
    if o.momentum == 0.0 { vec![] } else { vec!["velocity"] }
}

optimizer! {
    /// Adam (Kingma and Ba 2015; Keras `Adam`): α = lr·√(1−β₂ᵗ)/(1−β₁ᵗ), w −= α·m/(√v + ε), ε = 1e-7.
    ///
    /// ```
    /// use hubel::optimizers::*;
    /// assert_eq!(Adam::new(1e-3).moments(), ["m", "v"]);
    /// assert_eq!(Adam::new(1e-3).amsgrad(true).global_clipnorm(1.0).moments(), ["m", "v", "largest_v"]);
    /// ```
    Adam "Adam" decay 0.0,
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019; Keras `AdamW`), 0.004 by default.
    ///
    /// ```
    /// use hubel::optimizers::*;
    /// let optimizer = AdamW::new(CosineDecay::new(1e-3, 1000)).weight_decay(0.05);
    /// assert!(optimizer.rate(999) < 1e-5);
    /// ```
    AdamW "AdamW" decay 0.004,
    = {
        /// Sets the decay rate of the first moment.
        beta_1: f32 = 0.9, BelowOne;
        /// Sets the decay rate of the second moment.
        beta_2: f32 = 0.999, BelowOne;
        /// Sets the number added to the root of the second moment.
        epsilon: f32 = 1e-7, AtLeastZero;
        /// Sets whether to divide by the largest second moment so far (AMSGrad).
        amsgrad: bool = false;
    }
    initial 0.0,
    |o| Rule::Adam { beta_1: o.beta_1, beta_2: o.beta_2, epsilon: o.epsilon, amsgrad: o.amsgrad },
    if o.amsgrad { vec!["m", "v", "largest_v"] } else { vec!["m", "v"] }
}

optimizer! {
    /// Adam with Nesterov's momentum (Dozat 2016; Keras `Nadam`).
    ///
    /// ```
    /// use hubel::optimizers::*;
    /// assert_eq!(Nadam::new(1e-3).moments(), ["m", "v"]);
    /// ```
    Nadam "Nadam" decay 0.0,
    = {
        /// Sets the decay rate of the first moment.
        beta_1: f32 = 0.9, BelowOne;
        /// Sets the decay rate of the second moment.
        beta_2: f32 = 0.999, BelowOne;
        /// Sets the number added to the root of the second moment.
        epsilon: f32 = 1e-7, AtLeastZero;
    }
    initial 0.0,
    |o| Rule::Nadam { beta_1: o.beta_1, beta_2: o.beta_2, epsilon: o.epsilon },
    vec!["m", "v"]
}

optimizer! {
    /// The gradient over the root of its mean square (Tieleman and Hinton 2012; Keras `RMSprop`).
    ///
    /// ```
    /// use hubel::optimizers::*;
    /// assert_eq!(RmsProp::new(1e-3).momentum(0.9).moments(), ["velocity", "momentum"]);
    /// ```
    RmsProp "RMSprop" decay 0.0,
    = {
        /// Sets the decay rate of the second moment.
        rho: f32 = 0.9, BelowOne;
        /// Sets the momentum.
        momentum: f32 = 0.0, Share;
        /// Sets the number added to the second moment.
        epsilon: f32 = 1e-7, AtLeastZero;
        /// Sets whether the square of the mean gradient is subtracted from the second moment.
        centered: bool = false;
    }
    initial 0.0,
    |o| Rule::Rmsprop { rho: o.rho, momentum: o.momentum, epsilon: o.epsilon, centered: o.centered },
    [("velocity", true), ("momentum", o.momentum != 0.0), ("average_gradient", o.centered)]
        .into_iter().filter(|moment| moment.1).map(|moment| moment.0).collect()
}

optimizer! {
    /// The gradient over the root of the sum of all its squares (Duchi et al. 2011; Keras `Adagrad`).
    ///
    /// ```
    /// use hubel::optimizers::*;
    /// assert_eq!(Adagrad::new(1e-2).initial_accumulator_value(0.5).initial(), 0.5);
    /// ```
    Adagrad "Adagrad" decay 0.0,
    = {
        /// Sets the initial value of the sums.
        initial_accumulator_value: f32 = 0.1, AtLeastZero;
        /// Sets the number added to the sum.
        epsilon: f32 = 1e-7, AtLeastZero;
    }
    initial o.initial_accumulator_value, |o| Rule::Adagrad { epsilon: o.epsilon },
    vec!["accumulator"]
}
