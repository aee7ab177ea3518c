//! The trainer: a model, its optimiser and the state of training.

use super::{
    config::Compile,
    error::TrainError,
    history::History,
    not_finite::NotFinite,
    prepared_step::StepCache,
    state::{CallbackState, DeviceState, Position},
    step_graph::{
        activation_stats::Norm,
        metrics::{self, MetricSums},
    },
};
use crate::{
    Error,
    graph::TensorType,
    nn::{Bounds, Model, Number, below},
    passes::Plan,
    runtime::{Arena, Engine},
    tensor::HostTensor,
};
use std::sync::Arc;

/// A model with weights on a device, an optimiser and its moments.
///
/// ```no_run
/// use hubel::{layers::*, losses::*, metrics::*, optimizers::*, prelude::*};
/// let engine = Engine::new()?;
/// let mnist = data::mnist("examples/data/mnist")?;
/// let model = Sequential::new([28, 28, 1])
///     .add(Flatten::new())
///     .add(Dense::new(10).activation(Softmax))
///     .build()?;
/// let config = Compile::new(Adam::new(1e-3), SparseCategoricalCrossentropy::new()).metric(Accuracy);
/// let mut trainer = model.compile(&engine, config)?;
/// let history = trainer.fit(&mnist.train, Fit::epochs(2).batch(64).validation(&mnist.test))?;
/// println!("{:?}", history.last("val_accuracy"));
/// # Ok::<(), hubel::Error>(())
/// ```
pub struct Trainer {
    pub(super) model: Model,
    pub(super) engine: Engine,
    pub(super) config: Compile,
    pub(super) state: DeviceState,
    pub(super) position: Position,
    pub(super) metrics: Vec<MetricSums>,
    pub(super) norms: Vec<Norm>,
    /// The activations of steps that do not run at the same time.
    pub(super) arena: Arena,
    pub(super) cache: StepCache,
    pub(super) history: History,
    /// The plan of the last call of fit.
    pub(super) plan: Option<Arc<Plan>>,
    /// The value that ended the last call of fit.
    pub(super) not_finite: Option<NotFinite>,
    /// The states of the callbacks of the last call of fit, or of a checkpoint.
    pub(super) callback_states: Vec<CallbackState>,
    /// Whether the next call of fit continues from a checkpoint.
    pub(super) resumed: bool,
    pub(super) fitting: bool,
    /// Names of the classes of the last training data.
    pub(super) classes: Vec<String>,
}

impl Model {
    /// Returns a trainer with this model's weights on the engine's device.
    ///
    /// Weights that were set keep their values, the others are initialised. The trainer has a copy of the model: later
    /// changes to this one do not affect it; see [`Trainer::set_trainable`] and [`Trainer::set_weights`].
    pub fn compile(&self, engine: &Engine, config: Compile) -> Result<Trainer, Error> {
        config.check()?;
        let trained = |prefix: &str| self.weights().iter().any(|w| w.trainable && below(&w.name, prefix));
        if let Some((prefix, _)) = config.factors.iter().find(|(prefix, _)| !trained(prefix)) {
            let wanted = self.layer_names().join(", ");
            return Err(TrainError::NoLayer { got: prefix.clone(), wanted }.into());
        }
        Trainer::new(self.clone(), engine, config)
    }
}

impl Trainer {
    fn new(model: Model, engine: &Engine, config: Compile) -> Result<Self, Error> {
        if model.inputs().len() != 1 {
            return Err(TrainError::ManyInputs(model.inputs().len()).into());
        }
        if model.outputs().len() != config.targets.len() {
            return Err(TrainError::Outputs { wanted: model.outputs().len(), got: config.targets.len() }.into());
        }
        let metrics = MetricSums::all(&model, &config)?;
        let norms = if config.norms { Norm::all(&model)? } else { Vec::new() };
        let norm_states = norms.iter().map(|norm| (norm.name.clone(), TensorType::f32([1])));
        let sums = metrics::states(&metrics).into_iter().chain(norm_states);
        let state = DeviceState::new(&model, engine, &config, sums)?;
        Ok(Trainer {
            model,
            engine: engine.clone(),
            config,
            state,
            position: Position::default(),
            metrics,
            norms,
            arena: engine.arena(),
            cache: StepCache::default(),
            history: History::default(),
            plan: None,
            not_finite: None,
            callback_states: Vec::new(),
            resumed: false,
            fitting: false,
            classes: Vec::new(),
        })
    }

    /// Returns the learning rate of the next step.
    pub fn learning_rate(&self) -> f64 {
        self.position.rate.unwrap_or_else(|| self.config.optimizer.rate(self.position.step))
    }

    /// Uses this learning rate from the next step on, instead of the optimiser's own. An error if it is not a finite
    /// number of at least 0, or if the optimiser's rate is a schedule (Keras).
    pub fn set_learning_rate(&mut self, rate: f64) -> Result<(), TrainError> {
        self.check_settable("set_learning_rate")?;
        self.position.rate = Some(Self::checked_rate(rate)?);
        Ok(())
    }

    /// Returns an error if the learning rate is a schedule.
    pub(super) fn check_settable(&self, by: &'static str) -> Result<(), TrainError> {
        if self.config.optimizer.has_schedule() { Err(TrainError::Schedule(by)) } else { Ok(()) }
    }

    /// Returns a learning rate, or an error if it is not a finite number of at least 0.
    pub(super) fn checked_rate(rate: f64) -> Result<f64, TrainError> {
        Number::new("optimizer", "learning_rate", rate, Bounds::AtLeastZero).check()?;
        Ok(rate)
    }

    /// Freezes a layer, or trains it again, from the next [`Trainer::fit`] or [`Trainer::train_on_batch`] on; layers of
    /// nested models by path. Weights are kept, and so are the moments of weights that stay trainable. An error if
    /// there is no such layer, or while `fit` runs.
    ///
    /// ```
    /// use hubel::{layers::*, losses::*, optimizers::*, prelude::*};
    /// let model = Sequential::new([1]).add(Dense::new(2).name("base")).add(Dense::new(1).name("head")).build()?;
    /// let mut trainer = model.compile(&Engine::reference(), Compile::new(Adam::new(0.1), MeanSquaredError))?;
    /// let data = Dataset::new(HostTensor::f32([1, 1], vec![1.0])?, HostTensor::f32([1, 1], vec![2.0])?)?;
    /// trainer.set_trainable("base", false)?;
    /// let before = trainer.weights()?;
    /// trainer.train_on_batch(&data)?;
    /// let after = trainer.weights()?;
    /// assert!(before[0] == after[0] && before[2] != after[2]);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn set_trainable(&mut self, path: &str, trainable: bool) -> Result<(), Error> {
        if self.fitting {
            return Err(TrainError::InFit("Trainer::set_trainable").into());
        }
        let mut model = self.trained()?;
        model.set_trainable(path, trainable)?;
        let new = Self::new(model, &self.engine, self.config.clone())?;
        new.state.copy_from(&self.state)?;
        (self.model, self.state, self.metrics, self.norms) = (new.model, new.state, new.metrics, new.norms);
        self.position.plan = 0;
        self.cache = StepCache::default();
        Ok(())
    }

    /// Returns the model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Returns optimiser, losses and metrics.
    pub fn config(&self) -> &Compile {
        &self.config
    }

    /// Returns the number of steps taken so far.
    pub fn steps(&self) -> u64 {
        self.position.step
    }

    /// Returns loss and metrics of all epochs so far.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Returns the value that ended the last [`Trainer::fit`] with [`super::TerminateOnNaN`], if one did.
    pub fn not_finite(&self) -> Option<&NotFinite> {
        self.not_finite.as_ref()
    }

    /// Returns the plan of a training step, once [`Trainer::fit`] has begun on a device.
    pub fn plan(&self) -> Option<&Plan> {
        self.plan.as_deref()
    }

    /// Sets weights of the model by name; the others are unchanged.
    pub fn set_weights(&mut self, tensors: &[(String, HostTensor)]) -> Result<(), Error> {
        tensors.iter().try_for_each(|(name, tensor)| Ok(self.state.params.write(name, tensor)?))
    }

    /// Returns the model with its trained weights.
    pub fn trained(&self) -> Result<Model, Error> {
        let mut model = self.model.clone();
        model.set_weights(self.weights()?)?;
        Ok(model)
    }

    /// Returns the model's weights by name, in the order of the layers.
    pub fn weights(&self) -> Result<Vec<(String, HostTensor)>, Error> {
        let names = self.model.weights().iter().map(|w| w.name.clone());
        names.map(|name| Ok((name.clone(), self.state.params.read(&name)?))).collect()
    }
}
