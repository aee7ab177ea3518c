//! The samples, labels and weights that a step is fed: as inputs of its graph, and as tensors.

use crate::{
    Error,
    data::Dataset,
    graph::{Arg, Graph, Instr, OpError, Program, TensorType, Value},
    nn::Model,
    ops::{Elementwise, elementary},
    passes::Layout,
    runtime::{Engine, Store},
    tensor::{Batch, DType, HostTensor, Shape},
};
use std::{borrow::Cow, sync::Arc};

const WEIGHTS: &str = "data/weights";
const IMAGES: &str = "data/images";
const ROWS: &str = "rows";
const SAMPLES: &str = "x";

/// Returns the name of the labels of an output.
pub(crate) fn labels_name(output: usize) -> String {
    format!("data/labels/{output}")
}

/// Returns the extents of a sample's labels for an output of this shape.
pub(crate) fn label_row(output: &Shape, takes_classes: bool) -> &[usize] {
    let row = output.dims().get(1..).unwrap_or_default();
    if takes_classes { &row[..row.len().saturating_sub(1)] } else { row }
}

/// Where samples come from.
pub(crate) enum Source {
    /// A data set in device memory; steps name its rows.
    Device(Store),
    /// Host memory; steps carry the samples.
    Host,
}

impl Source {
    /// Copies a data set into device memory if it fits into one binding; `classes` says which labels are indices.
    pub fn upload(engine: &Engine, data: &Dataset, classes: &[bool]) -> Result<Self, Error> {
        let limit = engine.profile().max_binding_bytes;
        if engine.is_reference() || !data.in_memory() || data.images.bytes().len() as u64 > limit {
            return Ok(Source::Host);
        }
        let tensors = stored(data, classes)?;
        let entries =
            tensors.iter().map(|(name, t)| (name.clone(), TensorType::new(Shape::fixed(t.shape()), t.dtype())));
        let store = engine.store(Arc::new(Layout::new(entries, limit)))?;
        tensors.iter().try_for_each(|(name, t)| store.write(name, t))?;
        Ok(Source::Device(store))
    }

    /// Overwrites the data set in device memory, if any, with another one of the same shapes and types.
    pub fn replace(&self, data: &Dataset, classes: &[bool]) -> Result<(), Error> {
        let Source::Device(store) = self else { return Ok(()) };
        Ok(stored(data, classes)?.iter().try_for_each(|(name, t)| store.write(name, t))?)
    }

    /// Returns the store in device memory.
    pub fn store(&self) -> Option<&Store> {
        match self {
            Source::Device(store) => Some(store),
            Source::Host => None,
        }
    }
}

/// Returns a data set's tensors as device memory holds them: 32-bit integers as floats if the loss compares numbers.
fn stored<'d>(data: &'d Dataset, classes: &[bool]) -> Result<Vec<(String, Cow<'d, HostTensor>)>, Error> {
    let mut tensors = vec![(IMAGES.to_owned(), Cow::Borrowed(&data.images))];
    for (k, (labels, &classes)) in data.targets().zip(classes).enumerate() {
        let labels = match labels.dtype() {
            DType::U32 if !classes => Cow::Owned(HostTensor::f32(labels.shape(), labels.to_f32())?),
            _ => Cow::Borrowed(labels),
        };
        tensors.push((labels_name(k), labels));
    }
    tensors.extend(data.weights.iter().map(|t| (WEIGHTS.to_owned(), Cow::Borrowed(t))));
    Ok(tensors)
}

/// The samples of a step in its graph, with the labels of each output.
pub(super) struct Samples {
    pub x: Value,
    pub labels: Vec<Value>,
    pub weights: Option<Value>,
}

/// Adds samples, labels and weights to a graph.
pub(super) fn build(g: &mut Graph, data: &Dataset, source: &Source, classes: &[bool]) -> Result<Samples, OpError> {
    let (x, labels) = labelled(g, data, source, classes, "")?;
    let weights = match (&data.weights, source) {
        (None, _) => None,
        (Some(_), Source::Host) => Some(g.input(WEIGHTS, [Batch], DType::F32)),
        (Some(_), Source::Device(store)) => {
            let (all, rows) = (table(g, store, WEIGHTS), rows_input(g, ""));
            Some(g.gather(all, rows)?)
        }
    };
    Ok(Samples { x, labels, weights })
}

/// Adds samples and labels to a graph; `prefix` begins the names of its inputs, `classes` says which labels are indices.
pub(super) fn labelled(
    g: &mut Graph,
    data: &Dataset,
    source: &Source,
    classes: &[bool],
    prefix: &str,
) -> Result<(Value, Vec<Value>), OpError> {
    let Source::Device(store) = source else {
        let batched = |shape: &[usize]| [Batch].into_iter().chain(shape[1..].iter().copied()).collect::<Vec<usize>>();
        let bytes = is_fed_as_bytes(data);
        let dtype = if bytes { DType::U8 } else { DType::F32 };
        let x = g.input(&format!("{prefix}{SAMPLES}"), batched(data.images.shape()), dtype);
        let x = if bytes { g.cast(x)? } else { x };
        let labels = data.targets().zip(classes).enumerate().map(|(k, (labels, &classes))| {
            let dtype = if classes { DType::U32 } else { DType::F32 };
            g.input(&format!("{prefix}{}", labels_name(k)), batched(labels.shape()), dtype)
        });
        let labels = labels.collect();
        return Ok((rescale(g, x, data.scale, data.offset)?, labels));
    };
    let rows = rows_input(g, prefix);
    let images = table(g, store, IMAGES);
    let x = g.gather(images, rows)?;
    let mut labels = Vec::new();
    for (k, &classes) in classes.iter().enumerate() {
        let all = table(g, store, &labels_name(k));
        labels.push(if classes { g.gather_labels(all, rows) } else { g.gather(all, rows) }?);
    }
    Ok((rescale(g, x, data.scale, data.offset)?, labels))
}

/// Returns the labels in the shapes of the losses: an axis of extent 1 may be missing, or be present.
pub(super) fn reshape_labels(
    g: &mut Graph,
    model: &Model,
    classes: &[bool],
    labels: &[Value],
) -> Result<Vec<Value>, OpError> {
    let mut reshaped = Vec::new();
    for ((output, &classes), &labels) in model.outputs().iter().zip(classes).zip(labels) {
        let shape = Shape::from([&[Batch][..], label_row(&output.shape, classes)].concat());
        reshaped.push(if *g.shape(labels) == shape { labels } else { g.reshape(labels, shape)? });
    }
    Ok(reshaped)
}

fn rows_input(g: &mut Graph, prefix: &str) -> Value {
    let name = format!("{prefix}{ROWS}");
    g.find(&name).unwrap_or_else(|| g.input(&name, [Batch], DType::U32))
}

fn table(g: &mut Graph, store: &Store, name: &str) -> Value {
    g.find(name).unwrap_or_else(|| {
        let ty = store.layout().find(name).map(|e| e.ty.clone());
        g.state(name, ty.unwrap_or_else(|| TensorType::f32([0])), None)
    })
}

fn rescale(g: &mut Graph, x: Value, scale: f32, offset: f32) -> Result<Value, OpError> {
    if (scale, offset) == (1.0, 0.0) {
        return Ok(x);
    }
    let (mul, add) = (elementary("mul")?, elementary("add")?);
    let instrs = vec![
        Instr { f: mul, args: vec![Arg::Input(0), Arg::Const(scale)] },
        Instr { f: add, args: vec![Arg::Instr(0), Arg::Const(offset)] },
    ];
    g.apply1(Elementwise::from(Program { n_inputs: 1, instrs, result: Arg::Instr(1) }), &[x])
}

/// Returns whether steps that are fed from the host get samples as bytes, which the device makes floats of.
fn is_fed_as_bytes(data: &Dataset) -> bool {
    data.images.dtype() == DType::U8
}

/// What an input of a step is fed.
pub(crate) enum Feed<'d> {
    /// A tensor.
    Tensor(HostTensor),
    /// Rows of a data set's tensor, which need not be gathered before they are staged.
    Rows(&'d HostTensor, Vec<u32>),
}

impl Feed<'_> {
    /// Returns the bytes, in parts.
    pub fn parts(&self) -> Vec<&[u8]> {
        match self {
            Feed::Tensor(tensor) => vec![tensor.bytes()],
            Feed::Rows(tensor, rows) => {
                let size = tensor.bytes().len() / tensor.shape()[0].max(1);
                rows.iter().map(|&row| &tensor.bytes()[row as usize * size..][..size]).collect()
            }
        }
    }

    /// Returns the tensor.
    pub fn tensor(&self) -> Result<HostTensor, Error> {
        Ok(match self {
            Feed::Tensor(tensor) => tensor.clone(),
            Feed::Rows(tensor, rows) => {
                let shape = [&[rows.len()], &tensor.shape()[1..]].concat();
                HostTensor::from_bytes(shape, tensor.dtype(), &self.parts().concat())?
            }
        })
    }
}

/// Returns the samples, labels and weights of these rows, by input name.
pub(super) fn tensors<'d>(
    data: &'d Dataset,
    source: &Source,
    classes: &[bool],
    rows: &[u32],
) -> Result<Vec<(String, Feed<'d>)>, Error> {
    let mut tensors = labelled_tensors(data, source, classes, rows)?;
    if let (Source::Host, Some(weights)) = (source, data.weights_of(rows)) {
        tensors.push((WEIGHTS.into(), Feed::Tensor(HostTensor::f32([rows.len()], weights)?)));
    }
    Ok(tensors)
}

/// Returns the samples and labels of these rows, or the rows' numbers if the data set is on the device, by input name.
pub(super) fn labelled_tensors<'d>(
    data: &'d Dataset,
    source: &Source,
    classes: &[bool],
    rows: &[u32],
) -> Result<Vec<(String, Feed<'d>)>, Error> {
    if let Source::Device(_) = source {
        return Ok(vec![(ROWS.to_owned(), Feed::Tensor(HostTensor::u32([rows.len()], rows.to_vec())?))]);
    }
    let mut tensors = vec![(SAMPLES.to_owned(), samples(data, rows)?)];
    for (k, (labels, &classes)) in data.targets().zip(classes).enumerate() {
        let labels = data.part_of(labels, rows)?;
        let labels = if classes { labels } else { HostTensor::f32(labels.shape(), labels.to_f32())? };
        tensors.push((labels_name(k), Feed::Tensor(labels)));
    }
    Ok(tensors)
}

/// Returns the samples of these rows as they are stored.
fn samples<'d>(data: &'d Dataset, rows: &[u32]) -> Result<Feed<'d>, Error> {
    data.check_rows(rows)?;
    if !data.in_memory() {
        return Ok(Feed::Tensor(data.decoded_rows(rows)?));
    }
    Ok(match data.images.dtype() {
        DType::U8 | DType::F32 => Feed::Rows(&data.images, rows.to_vec()),
        _ => {
            let stored = data.part_of(&data.images, rows)?;
            Feed::Tensor(HostTensor::f32(stored.shape(), stored.to_f32())?)
        }
    })
}
