//! Models from ONNX files.
//!
//! A file's nodes become layers, each built from the operations of [`ops`]. Tensors are stored with channels last: a
//! transposition only renames the axes of what is stored, until an operator needs another order. What depends on shapes alone is
//! computed as the file is read, by the definitions of the same operations.

mod call;
mod constant;
mod export;
mod import;
mod inputs;
mod node;
mod ops;
mod options;
mod spec;
mod supported;

pub use export::OnnxExport;
pub use options::OnnxOptions;

use super::Model;
use crate::{
    Error,
    io::{Budget, FormatError, onnx},
};
use std::path::Path;

impl Model {
    /// Returns the model of an ONNX file, with its weights.
    ///
    /// Layers have the names of the file's nodes, with `.` for `/`; their weights are named below these: `kernel`, `bias`,
    /// `gamma`. Images are (N, height, width, channels), whatever the file has; the batch stays open. Memory and work are
    /// bounded by the file's size ([`crate::io::Budget`]).
    ///
    /// ```no_run
    /// let model = hubel::nn::Model::from_onnx("resnet18.onnx")?;
    /// println!("{}", model.summary());
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn from_onnx(path: impl AsRef<Path>) -> Result<Model, Error> {
        Self::from_onnx_with(path, &OnnxOptions::default())
    }

    /// [`Model::from_onnx`] with what the file leaves open: extents, values of inputs, outputs, external data.
    pub fn from_onnx_with(path: impl AsRef<Path>, options: &OnnxOptions) -> Result<Model, Error> {
        let path = path.as_ref();
        let of = |e: FormatError| e.of(path);
        let bytes = onnx::read(path)?;
        let budget = Budget::new(bytes.len() as u64);
        let folder = path.parent().filter(|_| options.external_data);
        let folder = folder.map(|f| if f.as_os_str().is_empty() { Path::new(".") } else { f });
        let file = onnx::decode(bytes, &budget).map_err(of)?;
        import::model(file, options, folder, &budget).map_err(|e| match e {
            Error::Format(e) if e.file.is_none() => e.of(path).into(),
            other => other,
        })
    }

    /// Returns the model of an ONNX file in memory; see [`Model::from_onnx`].
    pub fn from_onnx_bytes(bytes: &[u8], options: &OnnxOptions) -> Result<Model, Error> {
        let budget = Budget::new(bytes.len() as u64);
        let file = onnx::decode(bytes.to_vec(), &budget)?;
        import::model(file, options, None, &budget)
    }
}

/// Returns the names of the operators of ONNX that are read.
pub fn onnx_operators() -> Vec<&'static str> {
    let mut names: Vec<&str> = ops::names().chain(supported::CONTROL).collect();
    names.sort_unstable();
    names
}
