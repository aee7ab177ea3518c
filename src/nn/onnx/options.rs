//! What a file does not say.

use crate::{nn::DataFormat, tensor::HostTensor};
use std::collections::BTreeMap;

/// What an ONNX file leaves open, for [`Model::from_onnx_with`](crate::nn::Model::from_onnx_with).
///
/// ```
/// use hubel::nn::OnnxOptions;
/// let options = OnnxOptions::new().dim("height", 640).dim("width", 640).output("scores");
/// ```
#[derive(Debug, Clone, Default)]
pub struct OnnxOptions {
    pub(super) dims: BTreeMap<String, usize>,
    pub(super) values: BTreeMap<String, HostTensor>,
    pub(super) outputs: Vec<String>,
    pub(super) external_data: bool,
    pub(super) data_format: DataFormat,
}

impl OnnxOptions {
    /// Returns the defaults: all outputs of the file, no other files, images with channels last.
    pub fn new() -> Self {
        Self::default()
    }

    /// Binds a dimension that the file names to an extent. One without a name is the input's name, a point and the
    /// number of the axis: `images.2`.
    ///
    /// The first dimension of an input, if it is named or 1, is the batch, which stays open unless it is bound.
    pub fn dim(mut self, name: &str, extent: usize) -> Self {
        self.dims.insert(name.to_owned(), extent);
        self
    }

    /// Gives an input a value, which is then known before the model runs; such as a shape that a file has as an input.
    /// A model whose inputs all have one takes `samples` (N, 1), of no effect.
    pub fn value(mut self, input: &str, value: HostTensor) -> Self {
        self.values.insert(input.to_owned(), value);
        self
    }

    /// Adds an output by the name of its value in the file, which may be an inner one; without any the file's own are taken.
    pub fn output(mut self, name: &str) -> Self {
        self.outputs.push(name.to_owned());
        self
    }

    /// Sets whether weights may be in other files: regular ones inside the model's folder, without links.
    ///
    /// Default: `false`.
    pub fn external_data(mut self, allowed: bool) -> Self {
        self.external_data = allowed;
        self
    }

    /// Sets the order of axes of the model's images and maps, inputs and outputs of four axes: channels last, as everywhere
    /// in Hubel, or as the file has them, which moves them once at the edge.
    ///
    /// Default: [`DataFormat::ChannelsLast`].
    pub fn data_format(mut self, format: DataFormat) -> Self {
        self.data_format = format;
        self
    }
}
