/// Training was asked for something that cannot be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TrainError {
    /// The data set has no samples.
    #[error("the data set is empty; give at least one sample")]
    NoData,
    /// Samples do not fit the model.
    #[error("the model takes samples of shape {wanted:?}, the data set has {got:?}; resize or pad the samples")]
    SampleShape {
        /// What the model takes.
        wanted: Vec<usize>,
        /// What was given.
        got: Vec<usize>,
    },
    /// A model has more inputs, or outputs, than were given.
    #[error("the model has {wanted} inputs, {got} were given; pass samples for each, in the model's order")]
    Inputs {
        /// The model's.
        wanted: usize,
        /// Those given.
        got: usize,
    },
    /// A model cannot be trained by a single data set.
    #[error(
        "training takes a model of one input and one output, this one has {inputs} and {outputs}; train a part of it"
    )]
    Branches {
        /// The model's inputs.
        inputs: usize,
        /// The model's outputs.
        outputs: usize,
    },
    /// Labels are not what the loss compares the model's output with.
    #[error(
        "the loss compares the model's output with {wanted}, the labels are {got}; choose another loss or convert them"
    )]
    Labels {
        /// What the loss takes.
        wanted: String,
        /// What was given.
        got: String,
    },
    /// No layer that is trained has this name.
    #[error("no trained layer is called `{got}`; there are {wanted}")]
    NoLayer {
        /// The name given.
        got: String,
        /// Names that there are.
        wanted: String,
    },
    /// A callback watches a value that training does not give.
    #[error("no value is called `{got}`: there are {wanted}; values that begin with val_ need validation data")]
    NoValue {
        /// The name given.
        got: String,
        /// Names that there are.
        wanted: String,
    },
    /// A label names no class.
    #[error("label {label} of sample {sample} names no class: the model has {classes} outputs, labels run from 0")]
    Label {
        /// Index of the sample.
        sample: usize,
        /// Its label.
        label: u32,
        /// Number of classes.
        classes: usize,
    },
    /// A checkpoint belongs to another run.
    #[error("the checkpoint does not fit this run: {what}: wanted {wanted}, got {got}")]
    Checkpoint {
        /// What differs.
        what: String,
        /// What this run has.
        wanted: String,
        /// What the checkpoint has.
        got: String,
    },
}
