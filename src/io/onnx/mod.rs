//! ONNX files: protobuf messages, checked and drawn on a budget before they are decoded.
//!
//! A file holds a graph of nodes; [`crate::nn::Model::from_onnx`] makes a model of it. Elements of tensors stay where the file has
//! them until they are asked for.

pub(crate) mod messages;
mod scan;
mod tensor;

use super::{Budget, Flaw, FormatError, read_file};
use crate::tensor::HostTensor;
use messages::{ModelProto, TensorProto};
use prost::{Message, bytes::Bytes};
use std::path::{Component, Path};

pub(crate) use tensor::type_name;

/// The maximum size of a file, in bytes.
pub const FILE_CAP_BYTES: u64 = 16 << 30;

fn undecodable(e: prost::DecodeError) -> FormatError {
    FormatError::new(Flaw::Syntax, "the file", "messages of ONNX", e).advise("export the model again as .onnx")
}

/// Returns the model of a file.
pub(crate) fn decode(bytes: Vec<u8>, budget: &Budget) -> Result<ModelProto, FormatError> {
    if bytes.is_empty() {
        return Err(FormatError::new(Flaw::Empty, "the file", "an ONNX model", "an empty file"));
    }
    scan::model(&bytes, budget)?;
    let model = ModelProto::decode(Bytes::from(bytes)).map_err(undecodable)?;
    if model.graph.is_none() || model.ir_version == 0 {
        let error = FormatError::new(Flaw::Magic, "the file", "an ONNX model", "messages without a graph");
        return Err(error.advise("TFLite, TensorFlow.js graph models and others are converted with tf2onnx"));
    }
    Ok(model)
}

/// Returns the bytes of a file of this model, at most what protobuf can say.
pub(crate) fn encode(model: ModelProto) -> Result<Vec<u8>, FormatError> {
    const MAX_BYTES: usize = i32::MAX as usize;
    match model.encoded_len() {
        n if n > MAX_BYTES => {
            let error = FormatError::new(Flaw::TooLarge, "the model", "at most 2 GB", format!("{n} bytes"));
            Err(error.advise("write its weights as .safetensors"))
        }
        _ => Ok(model.encode_to_vec()),
    }
}

/// Returns the tensor of a file that holds one (`TensorProto`, as ONNX's test data do), with its name: floats as f32, whole
/// numbers and booleans as i32.
///
/// ```
/// // dims: 2; data_type: 1; float_data: 0.5, 1.5
/// let bytes = [&[0x08, 2, 0x10, 1, 0x22, 8][..], &0.5f32.to_le_bytes(), &1.5f32.to_le_bytes()].concat();
/// let (name, tensor) = hubel::io::onnx::tensor(&bytes)?;
/// assert_eq!((name.as_str(), tensor.to_f32()), ("", vec![0.5, 1.5]));
/// # Ok::<(), hubel::io::FormatError>(())
/// ```
pub fn tensor(bytes: &[u8]) -> Result<(String, HostTensor), FormatError> {
    scan::tensor(bytes, &Budget::new(bytes.len() as u64))?;
    let tensor = TensorProto::decode(Bytes::copy_from_slice(bytes)).map_err(undecodable)?;
    Ok((tensor.name.clone(), tensor.host()?))
}

/// Fills in the elements of a tensor that are in another file of the model's folder, or returns an error that says why not.
pub(crate) fn load_external(
    tensor: &mut TensorProto,
    folder: Option<&Path>,
    budget: &Budget,
) -> Result<(), FormatError> {
    if tensor.data_location != 1 {
        return Ok(());
    }
    let what = format!("the tensor `{}`", tensor.name);
    let entry = |key: &str| tensor.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
    let refused = |wanted: &str, got: &str| {
        Err(FormatError::new(Flaw::Missing, &what, wanted, got).advise("keep external data beside the model"))
    };
    let location = entry("location").unwrap_or_default();
    let Some(folder) = folder else {
        let advice = "allow it with `OnnxOptions::external_data`, if you trust the folder";
        let error =
            FormatError::new(Flaw::Missing, &what, "elements inside the file", format!("external `{location}`"));
        return Err(error.advise(advice));
    };
    let inside = Path::new(location).components().all(|part| matches!(part, Component::Normal(_)));
    if location.is_empty() || !inside {
        return refused("a file inside the model's folder", location);
    }
    // A link on the way could lead out of the folder.
    let mut path = folder.to_path_buf();
    for part in Path::new(location).components() {
        path.push(part);
        let metadata = std::fs::symlink_metadata(&path).map_err(|e| FormatError::io(&path, "external data", &e))?;
        if metadata.file_type().is_symlink() {
            return refused("a regular file", "a symbolic link");
        }
    }
    let metadata = std::fs::metadata(&path).map_err(|e| FormatError::io(&path, "external data", &e))?;
    if !metadata.is_file() || links(&metadata) > 1 {
        return refused("a regular file with one name", "another kind of file, or a hard link");
    }
    let number = |key: &str| match entry(key) {
        None => Ok(None),
        Some(text) => text.parse::<u64>().map(Some).map_err(|e| FormatError::new(Flaw::Syntax, &what, "a number", e)),
    };
    let (offset, size) = (number("offset")?.unwrap_or(0), metadata.len());
    let length = number("length")?.unwrap_or(size.saturating_sub(offset));
    if offset.checked_add(length).is_none_or(|end| end > size) {
        let got = format!("bytes {offset} + {length} of {size}");
        return Err(FormatError::new(Flaw::Truncated, &what, "a range inside the file", got).of(&path));
    }
    budget.add_file(length);
    budget.take(&what, length)?;
    tensor.raw_data = Bytes::from(range(&path, offset, length)?);
    tensor.data_location = 0;
    Ok(())
}

fn range(path: &Path, offset: u64, length: u64) -> Result<Vec<u8>, FormatError> {
    use std::io::{Read, Seek, SeekFrom};
    let io = |e: std::io::Error| FormatError::io(path, "external data", &e);
    let mut file = std::fs::File::open(path).map_err(io)?;
    file.seek(SeekFrom::Start(offset)).map_err(io)?;
    let mut bytes = vec![0; length as usize];
    file.read_exact(&mut bytes).map_err(io)?;
    Ok(bytes)
}

#[cfg(unix)]
fn links(metadata: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::nlink(metadata)
}

#[cfg(not(unix))]
fn links(_metadata: &std::fs::Metadata) -> u64 {
    1
}

/// Returns the bytes of the file at `path`.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FormatError> {
    read_file(path, FILE_CAP_BYTES)
}
