//! Models as ONNX files: the graph for inference, operation by operation.
//!
//! Hubel's axes are channels last, ONNX's operators want them second. A value is written in the order of its operator, and a Transpose
//! stands only where an operator needs another order.

mod elementwise;
mod moves;
mod products;
mod windows;
mod writer;

use crate::{
    Error,
    graph::{Graph, Kind, Node, OpError, Value},
    io::{FormatError, onnx, save},
    nn::{DataFormat, LayerError, Mode, Model},
};
use std::path::Path;
use writer::Writer;

/// How a model is written as ONNX.
///
/// ```
/// use hubel::{layers::*, nn::OnnxExport, prelude::*};
/// let model = Sequential::new([8, 8, 3]).add(Conv2D::new(4, 3).activation(Relu)).build()?;
/// let bytes = model.to_onnx_bytes(&OnnxExport::new().data_format(ChannelsFirst))?;
/// assert!(bytes.len() > 400);
/// # Ok::<(), hubel::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct OnnxExport {
    data_format: DataFormat,
    opset: i64,
}

impl Default for OnnxExport {
    fn default() -> Self {
        OnnxExport { data_format: DataFormat::ChannelsLast, opset: 17 }
    }
}

impl OnnxExport {
    /// Returns the defaults: images with channels last, opset 17.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the order of axes of inputs and outputs with four axes.
    ///
    /// Default: [`DataFormat::ChannelsLast`], as the model has them.
    pub fn data_format(mut self, format: DataFormat) -> Self {
        self.data_format = format;
        self
    }

    /// Sets the version of the operators, from 17 to 22.
    ///
    /// Default: `17`.
    pub fn opset(mut self, opset: i64) -> Self {
        self.opset = opset;
        self
    }
}

/// Writes one operation, if it is its kind.
type Write = fn(&mut Writer, &Node, Value) -> Option<Result<(), OpError>>;

/// The writers of operations; the first that knows an operation writes it.
const WRITERS: [Write; 4] = [elementwise::write, moves::write, products::write, windows::write];

impl Model {
    /// Writes the model for inference as an ONNX file (opset 17), which ONNX Runtime, browsers and phones run; the batch stays
    /// open. See [`Model::to_onnx_with`].
    ///
    /// Weights that have not been set are those that their initialisers draw with seed 0. A crash leaves the old file or the new.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let folder = temp_dir::TempDir::new()?;
    /// let model = Sequential::new([4]).add(Dense::new(2).activation(Softmax)).build()?;
    /// model.to_onnx(folder.path().join("dense.onnx"))?;
    /// let again = Model::from_onnx(folder.path().join("dense.onnx"))?;
    /// assert_eq!(again.output_shape(), model.output_shape());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn to_onnx(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        self.to_onnx_with(path, &OnnxExport::default())
    }

    /// [`Model::to_onnx`] with another order of axes or version of the operators.
    ///
    /// An operation that ONNX does not have, such as an image's rotation by a computed angle, is an error that names the layer.
    pub fn to_onnx_with(&self, path: impl AsRef<Path>, options: &OnnxExport) -> Result<(), Error> {
        let path = path.as_ref();
        let bytes = self.to_onnx_bytes(options)?;
        Ok(save::save(path, &bytes, false)?)
    }

    /// Returns the bytes of [`Model::to_onnx_with`]'s file, at most 2 GB.
    pub fn to_onnx_bytes(&self, options: &OnnxExport) -> Result<Vec<u8>, Error> {
        let mut graph = Graph::new();
        let inputs: Vec<Value> =
            self.inputs().iter().map(|(name, ty)| graph.input(name, ty.shape.clone(), ty.dtype)).collect();
        let built = self.assemble(&mut graph, &inputs, Mode::Inference)?;
        let outputs = built.outputs.clone();
        let mut writer = Writer::new(&graph, options.opset);
        for (value, (name, _)) in inputs.iter().zip(self.inputs()) {
            writer.input(*value, name, options.data_format == DataFormat::ChannelsFirst);
        }
        let needed = needed(&graph, &outputs);
        for (i, node) in graph.nodes().iter().enumerate().filter(|(i, _)| needed[*i]) {
            let value = Value { node: i as u32, output: 0 };
            match &node.kind {
                Kind::Input => {}
                Kind::State { .. } => {
                    let weight = self.weights().iter().find(|w| w.value == value || w.name == node.name);
                    let Some(weight) = weight else {
                        return Err(unwritable(&node.name, "a weight of the model", "another state").into());
                    };
                    writer.weight(value, &node.name, self.initial_value(weight, 0));
                }
                Kind::Op(op) => {
                    let written = WRITERS.iter().find_map(|write| write(&mut writer, node, value));
                    let missing =
                        || Err(OpError::new(op.name(), "an operation that ONNX has", op.name(), "leave it out"));
                    written.unwrap_or_else(missing).map_err(|e| unwritable(&node.name, &e.wanted, &e.got))?;
                }
            }
        }
        let single = outputs.len() == 1;
        for (k, &output) in outputs.iter().enumerate() {
            let name = if single { "output".to_owned() } else { format!("output_{k}") };
            let first = options.data_format == DataFormat::ChannelsFirst;
            writer.output(output, &name, first).map_err(|e| unwritable(&name, &e.wanted, &e.got))?;
        }
        let bytes = onnx::encode(writer.finish(self.name(), self.class_names()));
        bytes.map_err(|e: FormatError| e.into())
    }
}

fn unwritable(node: &str, wanted: &str, got: &str) -> LayerError {
    let layer = node.rsplit_once('/').map_or(node, |(layer, _)| layer);
    crate::nn::names::refused(layer, "ONNX", wanted, got, "take an output in front of it with `Model::cut_at`")
}

/// Returns for each node whether the outputs need it, batch normalisations taken as one.
fn needed(graph: &Graph, outputs: &[Value]) -> Vec<bool> {
    let mut needed = vec![false; graph.nodes().len()];
    outputs.iter().for_each(|v| needed[v.node as usize] = true);
    for i in (0..needed.len()).rev().filter(|i| *i < graph.nodes().len()) {
        if needed[i] {
            let value = Value { node: i as u32, output: 0 };
            match elementwise::batch_norm(graph, value) {
                Some((operands, _)) => operands.iter().for_each(|v| needed[v.node as usize] = true),
                None => graph.nodes()[i].inputs.iter().for_each(|v| needed[v.node as usize] = true),
            }
        }
    }
    needed
}
