//! Weights in any supported file; its first bytes, not its name, decide the format.

#[cfg(feature = "weights")]
use super::archive::Archive;
use super::{Budget, Flaw, FormatError, hdf5, npy, pickle, read_file, safetensors, tfjs};
use crate::tensor::{DType, Data, HostTensor};
#[cfg(feature = "weights")]
use std::sync::Arc;
use std::{collections::HashMap, path::Path};

/// The maximum size of a file, in bytes.
pub const FILE_CAP_BYTES: u64 = 16 << 30;

/// The contents of a file of weights.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Contents {
    /// The model's configuration as Keras's JSON, if the file has one.
    pub config: Option<String>,
    /// The version of Keras that the configuration is of, if the file states it.
    pub keras_version: Option<String>,
    /// What the file says of the model besides: the metadata of a .keras file, JSON.
    pub metadata: Option<String>,
    /// How the model is trained, which an .h5 file says beside its configuration, JSON.
    pub training: Option<String>,
    /// Tensors under the file's names, in its order.
    pub tensors: Vec<(String, HostTensor)>,
}

impl From<Vec<(String, HostTensor)>> for Contents {
    fn from(tensors: Vec<(String, HostTensor)>) -> Self {
        Contents { tensors, ..Contents::default() }
    }
}

/// Returns what a file of another program is, by its first bytes or the names in an archive, and how to convert it.
fn foreign(bytes: &[u8], names: &[String]) -> Option<(&'static str, &'static str)> {
    let has = |part: &str| names.iter().any(|name| name.contains(part));
    let to_keras =
        "load it with the program that wrote it and save it by Keras as .keras, or its weights as safetensors";
    Some(match bytes {
        [_, _, _, _, b'T', b'F', b'L', b'3', ..] => {
            ("a TensorFlow Lite model", "it holds no layers: save the Keras model that it was converted from as .keras")
        }
        [0x08, version, ..] if *version < 20 && bytes.windows(4).take(4096).any(|w| w == b"onnx" || w == b"pyto") => {
            ("an ONNX model", "read it with `Model::from_onnx`; of the command, name it as MODEL")
        }
        [0x80, 2..=5, ..] => ("a pickle of Python objects", "save only weights: torch.save(model.state_dict(), …)"),
        _ if has("saved_model.pb") => ("a TensorFlow SavedModel", to_keras),
        _ if has("Manifest.json") && has("model.mlmodel") => ("a CoreML package", to_keras),
        _ if has("/code/") && has("constants.pkl") => {
            ("a TorchScript module", "save its weights: torch.save(module.state_dict(), …)")
        }
        [0x08, 1..=9, b'\x12', ..] => ("a CoreML model", to_keras),
        [0x0a | 0x08, ..] if bytes.windows(11).take(1 << 16).any(|w| w == b"Placeholder") => {
            ("a TensorFlow graph", to_keras)
        }
        _ => return None,
    })
}

fn unknown_of(bytes: &[u8], names: &[String]) -> FormatError {
    match foreign(bytes, names) {
        None => unknown(),
        Some((what, advice)) => FormatError { got: what.to_owned(), advice: advice.to_owned(), ..unknown() },
    }
}

fn unknown() -> FormatError {
    let wanted = "safetensors, .npz, .npy, .keras, .h5, .pth or model.json";
    FormatError::new(Flaw::Magic, "the file", wanted, "other bytes").advise("convert the weights to safetensors")
}

/// Returns the contents of the file of weights at `path`, or of a folder's model.json.
///
/// Errors name the file. Elements keep their type, except that f64 and i64 become f32 and i32. Memory and work are
/// bounded by the file's [`Budget`]; [`open_within`] raises that.
pub fn open(path: impl AsRef<Path>) -> Result<Contents, FormatError> {
    open_within(path, 0)
}

/// [`open`] with a budget of at least `min_bytes` bytes, for tightly packed arrays.
pub fn open_within(path: impl AsRef<Path>, min_bytes: u64) -> Result<Contents, FormatError> {
    Ok(open_drawn(path.as_ref(), min_bytes)?.0)
}

/// [`open_within`], with the file's budget as it was left.
pub(crate) fn open_drawn(path: &Path, min_bytes: u64) -> Result<(Contents, Budget), FormatError> {
    if path.is_dir() {
        if path.join("saved_model.pb").is_file() {
            let error = unknown_of(&[], &["saved_model.pb".to_owned()]);
            return Err(FormatError { what: "the folder".into(), ..error }.of(path));
        }
        return open_drawn(&path.join("model.json"), min_bytes);
    }
    let bytes = read_file(path, FILE_CAP_BYTES)?;
    let budget = Budget::new(bytes.len() as u64).at_least(min_bytes);
    if bytes.first() == Some(&b'{') {
        drop(bytes);
        let tfjs::Contents { config, keras_version, tensors } = tfjs::open(path, &budget)?;
        return Ok((Contents { config, keras_version, tensors, ..Contents::default() }, budget));
    }
    Ok((read_within(&bytes, &budget).map_err(|e| e.of(path))?, budget))
}

/// Returns the tensors of the optimiser in a .keras, a .weights.h5 or an .h5 file, in Keras 3's order; none if it has none.
pub(crate) fn optimizer_state(path: &Path) -> Result<Vec<HostTensor>, FormatError> {
    let bytes = read_file(path, FILE_CAP_BYTES)?;
    let budget = Budget::new(bytes.len() as u64);
    #[cfg(feature = "weights")]
    if Archive::is(&bytes) {
        let weights = Archive::new(&bytes, &budget).and_then(|mut archive| archive.read("model.weights.h5"));
        let state = weights.and_then(|weights| weights.map_or(Ok(Vec::new()), |bytes| optimizer(&bytes, &budget)));
        return state.map_err(|e| e.of(path));
    }
    match bytes.starts_with(hdf5::MAGIC) {
        true => optimizer(&bytes, &budget).map_err(|e| e.of(path)),
        false => Ok(Vec::new()),
    }
}

fn optimizer(bytes: &[u8], budget: &Budget) -> Result<Vec<HostTensor>, FormatError> {
    let what = "the optimiser";
    let file = hdf5::File::new(bytes, budget)?;
    let mut tensors = Vec::new();
    if file.has("optimizer_weights") {
        let names = listed(&file, "optimizer_weights", "weight_names")?.unwrap_or_default();
        // Before 2.0 of TensorFlow the order was another, and names had numbers.
        let known = names.first().is_some_and(|n| n.contains("iter") && !n.starts_with("training"));
        for name in if known { weight_by_weight(names) } else { Vec::new() } {
            budget.take(what, name.len() as u64 + 256)?;
            budget.push(what, &mut tensors, file.dataset(&format!("optimizer_weights/{name}"))?)?;
        }
        return Ok(tensors);
    }
    for i in 0.. {
        let path = format!("optimizer/vars/{i}");
        if !file.has(&path) {
            break;
        }
        budget.take(what, 256)?;
        budget.push(what, &mut tensors, file.dataset(&path)?)?;
    }
    Ok(tensors)
}

/// Returns the names of an optimiser's tensors in Keras 3's order: up to 2.10 all first moments came before the second.
fn weight_by_weight(mut names: Vec<&str>) -> Vec<&str> {
    let of = |name: &'_ str| name.strip_suffix("/m:0").or(name.strip_suffix("/v:0")).unwrap_or(name).to_owned();
    let firsts: HashMap<String, usize> = names.iter().enumerate().rev().map(|(i, name)| (of(name), i)).collect();
    names.sort_by_key(|name| firsts.get(&of(name)).copied());
    names
}

/// Returns the contents of a file of weights in memory; a model.json, whose shards are other files, needs [`open`].
pub fn read(bytes: &[u8]) -> Result<Contents, FormatError> {
    read_within(bytes, &Budget::new(bytes.len() as u64))
}

/// [`read`] within a budget.
pub fn read_within(bytes: &[u8], budget: &Budget) -> Result<Contents, FormatError> {
    if bytes.is_empty() {
        return Err(FormatError { flaw: Flaw::Empty, got: "an empty file".into(), ..unknown() });
    }
    #[cfg(feature = "weights")]
    if Archive::is(bytes) {
        return archive(bytes, budget);
    }
    if bytes.starts_with(hdf5::MAGIC) {
        return keras(bytes, budget);
    }
    if bytes.starts_with(b"\x93NUMPY") {
        return Ok(vec![("array".to_owned(), npy::read_within(bytes, budget)?)].into());
    }
    if bytes.starts_with(pickle::LEGACY) {
        let (described, places) = pickle::read_legacy(bytes, budget)?;
        return tensors(described, budget, |what, t| {
            let place = places.get(t.key).cloned();
            let missing = || FormatError::new(Flaw::Missing, what, format!("the storage `{}`", t.key), "none");
            place.map(|place| &bytes[place]).ok_or_else(missing)
        });
    }
    // A length of 8 bytes, then JSON.
    if bytes.get(8) == Some(&b'{') {
        return Ok(safetensors::read_within(bytes, budget)?.into());
    }
    Err(unknown_of(bytes, &[]))
}

#[cfg(feature = "weights")]
fn archive(bytes: &[u8], budget: &Budget) -> Result<Contents, FormatError> {
    let mut archive = Archive::new(bytes, budget)?;
    let names = archive.names();
    if foreign(&[], &names).is_some() {
        return Err(unknown_of(&[], &names));
    }
    if let Some(pickle) = names.iter().find(|n| n.ends_with("data.pkl")) {
        return torch(&mut archive, pickle, budget);
    }
    if let Some(weights) = archive.read("model.weights.h5")? {
        let config = archive.read("config.json")?.map(String::from_utf8).transpose();
        let config = config.map_err(|e| FormatError::new(Flaw::Utf8, "config.json", "UTF-8", e))?;
        let metadata = archive.read("metadata.json")?.unwrap_or_default();
        budget.take_json("metadata.json", &metadata)?;
        let parsed: serde_json::Value = serde_json::from_slice(&metadata).unwrap_or_default();
        let keras_version = parsed["keras_version"].as_str().map(str::to_owned);
        let metadata = String::from_utf8(metadata).ok();
        return Ok(Contents { config, keras_version, metadata, ..keras(&weights, budget)? });
    }
    if !names.is_empty() && names.iter().all(|n| n.ends_with(".npy")) {
        let mut tensors = Vec::new();
        for name in names {
            let bytes = archive.read(&name)?.ok_or_else(unknown)?;
            let tensor = npy::read_within(&bytes, budget);
            let tensor = tensor.map_err(|e| FormatError { what: format!("`{name}`: {}", e.what), ..e })?;
            budget.give(bytes.len() as u64);
            budget.push("the archive", &mut tensors, (name.trim_end_matches(".npy").to_owned(), tensor))?;
        }
        return Ok(tensors.into());
    }
    Err(unknown_of(&[], &names))
}

/// Returns an attribute, which Keras splits into several with numbered names if it is long.
fn listed<'a>(file: &hdf5::File<'a>, path: &str, attribute: &str) -> Result<Option<Vec<&'a str>>, FormatError> {
    let attributes = file.attributes(path)?;
    if let Some(texts) = attributes.texts(attribute)? {
        return Ok(Some(texts));
    }
    let mut all = Vec::new();
    for part in 0.. {
        match attributes.texts(&format!("{attribute}{part}"))? {
            Some(texts) => all.extend(texts),
            None if part == 0 => return Ok(None),
            None => break,
        }
    }
    Ok(Some(all))
}

/// Returns the weights of one of Keras's HDF5 files: `LAYER/vars/NUMBER` of the layers that a file of `model.save` or
/// Keras 2 names, and `layers/CLASS/vars/NUMBER` of Keras 3's weights, whose layers are numbered within their class.
fn keras(bytes: &[u8], budget: &Budget) -> Result<Contents, FormatError> {
    let what = "the weights";
    let file = hdf5::File::new(bytes, budget)?;
    let config = file.attributes("")?.texts("model_config")?.and_then(|t| t.into_iter().next());
    budget.take(what, config.map_or(0, str::len) as u64)?;
    let config = config.map(str::to_owned);
    let version = file.attributes("")?.texts("keras_version")?.and_then(|t| t.into_iter().next());
    let text = |name: &str| -> Result<Option<String>, FormatError> {
        let text = file.attributes("")?.texts(name)?.and_then(|t| t.into_iter().next());
        budget.take(what, text.map_or(0, str::len) as u64)?;
        Ok(text.map(str::to_owned))
    };
    let (training, metadata) = (text("training_config")?, text("hubel")?);
    let base = if file.has("model_weights") { "model_weights" } else { "" };
    let mut tensors = Vec::new();
    let mut add = |name: String, path: &str| {
        // A tensor has extents besides its elements.
        budget.take(what, name.capacity() as u64 + 256)?;
        budget.push(what, &mut tensors, (name, file.dataset(path)?))
    };
    if let Some(layers) = listed(&file, base, "layer_names")? {
        for layer in layers {
            let group = if base.is_empty() { layer.to_owned() } else { format!("{base}/{layer}") };
            for (i, weight) in listed(&file, &group, "weight_names")?.unwrap_or_default().iter().enumerate() {
                budget.work(what, (group.len() + weight.len()) as u64)?;
                add(format!("{layer}/vars/{i}"), &format!("{group}/{weight}"))?;
            }
        }
    } else {
        // Keras 2 keeps the optimiser's state and metrics beside the layers.
        for path in file.datasets().filter(|p| !["optimizer/", "metrics/"].iter().any(|other| p.starts_with(other))) {
            add(path.to_owned(), path)?;
        }
    }
    Ok(Contents { config, keras_version: version.map(str::to_owned), metadata, training, tensors })
}

/// Returns the tensors of a state dictionary: described by a pickle, with their bytes in other entries.
#[cfg(feature = "weights")]
fn torch(archive: &mut Archive, pickle: &str, budget: &Budget) -> Result<Contents, FormatError> {
    let folder = pickle.trim_end_matches("data.pkl").to_owned();
    let order = archive.read(&format!("{folder}byteorder"))?;
    if order.is_some_and(|o| o != b"little") {
        return Err(FormatError::new(Flaw::Type, "the tensors", "little-endian numbers", "big-endian ones"));
    }
    let described = archive.read(pickle)?.ok_or_else(unknown)?;
    // Tensors of one storage are consecutive.
    let mut last: (&str, Arc<[u8]>) = ("", Arc::new([]));
    tensors(pickle::read(&described, budget)?, budget, |what, t| {
        if last.0 != t.key {
            let entry = format!("{folder}data/{}", t.key);
            let missing = || FormatError::new(Flaw::Missing, what, format!("`{entry}` in the archive"), "none");
            budget.give(last.1.len() as u64);
            last = ("", Arc::new([]));
            let bytes = archive.read(&entry)?.ok_or_else(missing)?;
            // Both exist during the copy.
            budget.take(what, bytes.len() as u64)?;
            last = (t.key, bytes.into());
            budget.give(last.1.len() as u64);
        }
        Ok(last.1.clone())
    })
}

/// Returns the tensors of a state dictionary, whose storages `storage` returns.
fn tensors<'a, B: AsRef<[u8]>>(
    described: Vec<(String, pickle::Tensor<'a>)>,
    budget: &Budget,
    mut storage: impl FnMut(&str, &pickle::Tensor<'a>) -> Result<B, FormatError>,
) -> Result<Contents, FormatError> {
    let mut tensors = Vec::new();
    for (name, t) in described {
        let what = format!("`{name}`");
        let width = pickle::element_bytes(t.storage);
        let dtype = match t.storage {
            "FloatStorage" => Some(DType::F32),
            "HalfStorage" => Some(DType::F16),
            "BFloat16Storage" => Some(DType::BF16),
            "IntStorage" => Some(DType::I32),
            "ByteStorage" | "BoolStorage" => Some(DType::U8),
            "DoubleStorage" | "LongStorage" => None,
            other => return Err(FormatError::new(Flaw::Type, what, "floats, bytes, 32- or 64-bit integers", other)),
        };
        let size = super::checked_bytes(&what, &t.shape, width, FILE_CAP_BYTES)? as u64;
        // The elements as stored, then as a tensor.
        budget.take(&what, 2 * size)?;
        let raw = gather(&what, &t, width, storage(&what, &t)?.as_ref())?;
        let shape: Vec<usize> = t.shape.iter().map(|&d| d as usize).collect();
        let words = || raw.chunks_exact(8).map(|c| <[u8; 8]>::try_from(c).unwrap_or_default());
        let tensor = match (dtype, t.storage) {
            (Some(dtype), _) => HostTensor::from_bytes(shape, dtype, &raw),
            (None, "DoubleStorage") => {
                HostTensor::new(shape, Data::F32(words().map(|w| f64::from_le_bytes(w) as f32).collect()))
            }
            _ => {
                let fit = |w: [u8; 8]| {
                    let n = i64::from_le_bytes(w);
                    let wanted = "integers that fit in 32 bits";
                    i32::try_from(n).map_err(|_| FormatError::new(Flaw::Type, &what, wanted, n))
                };
                HostTensor::new(shape, Data::I32(words().map(fit).collect::<Result<_, _>>()?))
            }
        };
        budget.give(size);
        let tensor = tensor.map_err(|e| FormatError::new(Flaw::ByteCount, what, "whole elements", e))?;
        budget.push("the tensors", &mut tensors, (name, tensor))?;
    }
    Ok(tensors.into())
}

/// Returns the elements of a tensor from its storage, last axis contiguous.
fn gather(what: &str, t: &pickle::Tensor, width: u64, storage: &[u8]) -> Result<Vec<u8>, FormatError> {
    let outside = || {
        let got = format!("extents {:?}, strides {:?}, offset {}", t.shape, t.strides, t.offset);
        FormatError::new(Flaw::Contradiction, what, format!("a tensor inside its {} bytes", storage.len()), got)
    };
    if t.shape.contains(&0) {
        return Ok(Vec::new());
    }
    let reach =
        t.shape.iter().zip(&t.strides).try_fold(t.offset, |at, (d, s)| at.checked_add((d - 1).checked_mul(*s)?));
    let end = reach.and_then(|last| last.checked_add(1)?.checked_mul(width));
    if end.is_none_or(|end| end > storage.len() as u64) {
        return Err(outside());
    }
    let count: u64 = t.shape.iter().product();
    let mut contiguous = 1;
    let plain = t.shape.iter().zip(&t.strides).rev().all(|(&d, &s)| {
        let ok = d == 1 || s == contiguous;
        contiguous *= d;
        ok
    });
    let bytes = |at: u64, n: u64| &storage[(at * width) as usize..((at + n) * width) as usize];
    if plain {
        return Ok(bytes(t.offset, count).to_vec());
    }
    // A stride of 0 would allow endless repetition.
    if count > storage.len() as u64 / width {
        return Err(outside());
    }
    let [shape, strides] = [&t.shape, &t.strides].map(|v| v.iter().map(|&n| n as usize).collect::<Vec<_>>());
    Ok(crate::tensor::gather(storage, width as usize, &shape, &strides, t.offset as usize))
}

#[cfg(test)]
mod tests {
    #[test]
    fn moments_of_an_older_optimiser_follow_one_another_weight_by_weight() {
        let old = ["Adam/iter:0", "Adam/a/kernel/m:0", "Adam/a/bias/m:0", "Adam/a/kernel/v:0", "Adam/a/bias/v:0"];
        let wanted = ["Adam/iter:0", "Adam/a/kernel/m:0", "Adam/a/kernel/v:0", "Adam/a/bias/m:0", "Adam/a/bias/v:0"];
        assert_eq!(super::weight_by_weight(old.to_vec()), wanted);
        let new = ["iteration:0", "Adam/m/a/kernel:0", "Adam/v/a/kernel:0", "Adam/m/a/bias:0", "Adam/v/a/bias:0"];
        assert_eq!(super::weight_by_weight(new.to_vec()), new);
    }
}
