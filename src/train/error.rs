//! Errors of training, evaluation and prediction.

use crate::nn::NumberError;

/// Training was asked for something that cannot be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
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
    /// A model of several inputs was to be trained.
    #[error("training takes a model of one input, this one has {0}; train a part of it, or concatenate the samples")]
    ManyInputs(usize),
    /// An option is a number out of its bounds.
    #[error(transparent)]
    Number(#[from] NumberError),
    /// The learning rate was to be set, but it is a schedule.
    #[error(
        "the optimiser's learning rate is a schedule, {0} cannot set it; give the optimiser a number as its rate, or leave \
         that out"
    )]
    Schedule(&'static str),
    /// Two metrics of an output were given one name, or one that stands for something else.
    #[error(
        "`{0}` is not a name that a metric can have here; give each metric a name of its own, not `loss` or `val_…`"
    )]
    MetricName(String),
    /// What is trained was to be changed in the middle of a call of fit.
    #[error("{0} while `fit` runs; call it before or after")]
    InFit(&'static str),
    /// Training and validation data name other classes.
    #[error(
        "the classes of the data differ: wanted {wanted}, got {got}; {advice}: bring them into one order by \
         Dataset::class_names or ImageFolder::class_names"
    )]
    ClassNames {
        /// Those that the model was trained on.
        wanted: String,
        /// Those of the other data.
        got: String,
        /// What is missing or differs.
        advice: String,
    },
    /// A file's name asks for what cannot be put into it.
    #[error("the path {path}: wanted {wanted}, got {got}; write braces twice where they belong to the name")]
    Template {
        /// The path.
        path: String,
        /// What a field may be.
        wanted: String,
        /// What it is.
        got: String,
    },
    /// One sample was given without a batch axis.
    #[error(
        "the model takes samples with a batch axis in front, {wanted:?} for one, and got {got:?}; add the axis: \
         `x.reshape({wanted:?})`"
    )]
    NoBatchAxis {
        /// The shape of one sample with its batch axis.
        wanted: Vec<usize>,
        /// What was given.
        got: Vec<usize>,
    },
    /// A model has more or fewer outputs than there are losses or labels.
    #[error(
        "there are {wanted} outputs and {got} with a loss and labels; give one to each: Compile::output, Dataset::and_labels"
    )]
    Outputs {
        /// The model's, or those with a loss.
        wanted: usize,
        /// Those that were given something.
        got: usize,
    },
    /// A model has not one input and one output, as training and explaining want it.
    #[error("wanted a model of one input and one output, this one has {inputs} and {outputs}; take a part of it")]
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
    /// An explanation of a class score was requested for a model that is not an image classifier.
    #[error(
        "wanted a classifier, images f32(N, h, w, c) in, scores (N, classes) out, got one of {input} and {output}; take such a part of it"
    )]
    NoClassifier {
        /// What the model takes.
        input: String,
        /// What it gives.
        output: String,
    },
    /// A layer gives no map.
    #[error("layer `{layer}`: wanted maps (N, h, w, c), got {got}; maps come from {known}")]
    NoMap {
        /// The layer.
        layer: String,
        /// What it gives.
        got: String,
        /// Layers that give maps.
        known: String,
    },
    /// Style transfer has nothing to match.
    #[error("no layer is to be matched; name some by `content`, `style` or both: {known}")]
    NoTarget {
        /// Layers that there are.
        known: String,
    },
    /// There is no such class.
    #[error("there is no class {got}: the model has {classes} outputs, classes run from 0")]
    NoClass {
        /// The class given.
        got: usize,
        /// Number of classes.
        classes: usize,
    },
    /// There are as many classes neither as images nor as one.
    #[error("{got} classes for {wanted} images; give one for each, one for all, or none")]
    Classes {
        /// Number of images.
        wanted: usize,
        /// Number of classes given.
        got: usize,
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
