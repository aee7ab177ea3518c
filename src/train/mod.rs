//! Training, evaluation and prediction as in Keras, and explanations, style transfer and verification of a model's
//! kernels.
//!
//! It takes a [`Model`](crate::nn::Model), a [`Compile`] (optimiser, losses, metrics), an
//! [`Engine`](crate::runtime::Engine), data sets or iterators of batches, and a [`Fit`] with callbacks, and returns a
//! [`History`], [`Scores`], predictions, checkpoints, and the trained weights.
//!
//! Where to start: `trainer.rs` is the [`Trainer`] and what it owns. A step is built in `step_graph/` by functions that
//! each add one stage to a `Graph`, compiled and run by `runner.rs`, and kept for the next data of its kind as a
//! `PreparedStep`. `steps.rs` runs single training steps; `epoch_loop.rs` runs those of `fit` and `fit_batches` on what
//! `batches.rs` supplies, and tells the callbacks through `observers.rs`; `evaluation.rs` evaluates and predicts.
//! `state.rs` is everything that a checkpoint stores.
//!
//! The invariants:
//! - Files import downwards only: the step graph does not know the `Trainer`, which knows neither callbacks nor the
//!   epoch loop.
//! - Everything that training changes is in `DeviceState` and `Position`. A checkpoint that holds both, loaded into a
//!   trainer of the same model, continues to the same bits.
//! - The order of samples depends on seed and epoch alone, random numbers on seed and step: a step can be replayed.
//! - Losses and metrics are summed on the device. The host reads them a few times a second and once at the end of an
//!   epoch, and does not wait for steps in between.
//! - No step allocates device memory once its `PreparedStep` exists.
//! - Steps share one arena for activations, as no two of them run at the same time.

mod batches;
mod callback;
mod callbacks;
mod checkpoint;
mod config;
mod data_check;
mod epoch_loop;
mod epoch_order;
mod error;
mod evaluation;
mod explain;
mod fit;
mod history;
mod inference;
mod nan_trace;
mod not_finite;
mod observers;
#[cfg(feature = "plots")]
mod plot;
mod prepared_step;
#[cfg(feature = "cli")]
mod progress_bar;
mod runner;
mod saved;
mod state;
mod step_graph;
mod steps;
mod style;
mod template;
mod tensorboard;
mod trainer;
mod verify;
mod weights;

pub use callback::{Callback, Control, Progress};
pub use callbacks::{
    CsvLogger, Direction, EarlyStopping, LearningRateScheduler, ModelCheckpoint, ReduceLROnPlateau, TerminateOnNaN,
    Watch,
};
pub use config::Compile;
pub use error::TrainError;
pub use evaluation::Scores;
pub use explain::{Explained, Explainer};
pub use fit::Fit;
pub use history::History;
pub use inference::Inference;
pub use not_finite::NotFinite;
#[cfg(feature = "cli")]
pub use progress_bar::ProgressBar;
pub use state::CallbackState;
pub use style::{Style, StyleStep, Stylised};
pub use tensorboard::TensorBoard;
pub use trainer::Trainer;
pub use verify::{Checked, Verification};
