//! Errors of training, evaluation and prediction.

use crate::nn::NumberError;

/// An error of training, evaluation or prediction.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The data set has no samples.
    #[error("the data set is empty; give at least one sample")]
    NoData,
    /// Samples do not fit the model.
    #[error("the model takes samples of shape {wanted:?}, but the data set has {got:?}; resize or pad the samples")]
    SampleShape {
        /// The type of the model's input.
        wanted: Vec<usize>,
        /// What was given.
        got: Vec<usize>,
    },
    /// A model has more inputs, or outputs, than were given.
    #[error("the model has {wanted} inputs, but {got} were given; pass samples for each, in the model's order")]
    Inputs {
        /// The model's.
        wanted: usize,
        /// Those given.
        got: usize,
    },
    /// A model with several inputs cannot be trained.
    #[error("training needs a model with one input, this one has {0}; train a part of it, or concatenate the samples")]
    ManyInputs(usize),
    /// An option's number is out of bounds.
    #[error(transparent)]
    Number(#[from] NumberError),
    /// The learning rate cannot be set, because it is a schedule.
    #[error(
        "the optimiser's learning rate is a schedule, {0} cannot set it; give the optimiser a number as its rate, or leave \
         that out"
    )]
    Schedule(&'static str),
    /// A metric's name is taken or reserved.
    #[error("the name `{0}` is taken or reserved; give each metric a unique name, not `loss` or `val_…`")]
    MetricName(String),
    /// The trained weights cannot be changed during a call of fit.
    #[error("{0} while `fit` runs; call it before or after")]
    InFit(&'static str),
    /// Training and validation data name different classes.
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
    /// A file's name has a field that cannot be filled in.
    #[error("the path {path}: wanted {wanted}, got {got}; double the braces that belong to the name")]
    Template {
        /// The path.
        path: String,
        /// The fields that are possible.
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
        "{wanted} outputs, but {got} with a loss and labels; give each output both: Compile::output, Dataset::and_labels"
    )]
    Outputs {
        /// The number of outputs, or of outputs with a loss.
        wanted: usize,
        /// The number given.
        got: usize,
    },
    /// A model does not have one input and one output, which this needs.
    #[error("wanted a model with one input and one output, this one has {inputs} and {outputs}; use a part of it")]
    Branches {
        /// The model's inputs.
        inputs: usize,
        /// The model's outputs.
        outputs: usize,
    },
    /// Labels do not have the form that the loss compares with the model's output.
    #[error("the labels do not fit the loss: wanted {wanted}, got {got}; choose another loss or convert them")]
    Labels {
        /// What the loss takes.
        wanted: String,
        /// What was given.
        got: String,
    },
    /// No trained layer has this name.
    #[error("no trained layer is called `{got}`; the trained layers are {wanted}")]
    NoLayer {
        /// The name given.
        got: String,
        /// The existing names.
        wanted: String,
    },
    /// A callback watches a value that training does not have.
    #[error("no value is called `{got}`, the values are {wanted}; those that begin with val_ need validation data")]
    NoValue {
        /// The name given.
        got: String,
        /// The existing names.
        wanted: String,
    },
    /// A label is not the index of a class.
    #[error(
        "label {label} of sample {sample} is out of range; the model has {classes} outputs, and labels count from 0"
    )]
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
        "wanted a classifier from images f32(N, h, w, c) to scores (N, classes), got a model from {input} to {output}; use such a part of it"
    )]
    NoClassifier {
        /// The type of the model's input.
        input: String,
        /// The type of its output.
        output: String,
    },
    /// A layer's output is not a map.
    #[error("layer `{layer}`: wanted maps (N, h, w, c), got {got}; layers with maps are {known}")]
    NoMap {
        /// The layer.
        layer: String,
        /// The type of its output.
        got: String,
        /// Layers whose outputs are maps.
        known: String,
    },
    /// Style transfer was given no layers to match.
    #[error("no layer to match; name some by `content`, `style` or both, out of {known}")]
    NoTarget {
        /// The model's layers.
        known: String,
    },
    /// A class is out of range.
    #[error("class {got} is out of range; the model has {classes} outputs, and classes count from 0")]
    NoClass {
        /// The class given.
        got: usize,
        /// Number of classes.
        classes: usize,
    },
    /// The number of classes is neither that of the images nor one.
    #[error("{got} classes for {wanted} images; give one for each, one for all, or none")]
    Classes {
        /// Number of images.
        wanted: usize,
        /// Number of classes given.
        got: usize,
    },
    /// A file of a trainer cannot be written or read.
    #[error("training as a file: {what}: wanted {wanted}, got {got}; save and load the model alone, and compile it")]
    Saved {
        /// What cannot be kept.
        what: String,
        /// What can.
        wanted: String,
        /// What there is.
        got: String,
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
