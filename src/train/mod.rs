//! Training, evaluation and prediction as in Keras: compile, fit, evaluate, predict, callbacks, history.

mod callback;
mod checkpoint;
mod history;
mod inference;
#[cfg(feature = "cli")]
mod progress_bar;
mod runner;
mod trainer;

pub use callback::{Callback, Control, Progress};
pub use history::History;
pub use inference::Inference;
#[cfg(feature = "cli")]
pub use progress_bar::ProgressBar;
pub use trainer::{Compile, Fit, Scores, TrainError, Trainer};
