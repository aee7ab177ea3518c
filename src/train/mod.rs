//! Training, evaluation and prediction as in Keras: compile, fit, evaluate, predict, callbacks, history; explanations and
//! style transfer.

mod callback;
mod callbacks;
mod checkpoint;
mod error;
mod explain;
mod history;
mod inference;
mod mix_up;
mod norms;
mod numbers;
mod observers;
mod options;
#[cfg(feature = "plots")]
mod plot;
#[cfg(feature = "cli")]
mod progress_bar;
mod runner;
mod step;
mod style;
mod template;
mod tensorboard;
mod trainer;
mod verify;

pub use callback::{Callback, CallbackState, Control, Progress};
pub use callbacks::{
    CsvLogger, Direction, EarlyStopping, LearningRateScheduler, ModelCheckpoint, ReduceLROnPlateau, TerminateOnNaN,
    Watch,
};
pub use error::TrainError;
pub use explain::{Explained, Explainer};
pub use history::History;
pub use inference::Inference;
pub use numbers::NotFinite;
pub use options::{Compile, Fit};
#[cfg(feature = "cli")]
pub use progress_bar::ProgressBar;
pub use style::{Style, StyleStep, Stylised};
pub use tensorboard::TensorBoard;
pub use trainer::{Scores, Trainer};
pub use verify::{Checked, Verification};
