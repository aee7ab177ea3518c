//! A file's inputs as the model's: their extents, the batch, and how images are stored.

use super::{
    call::channels_last,
    constant::{BOOL, is_whole},
    options::OnnxOptions,
};
use crate::{
    io::{
        Flaw, FormatError,
        onnx::messages::{Dimension, GraphProto, ValueInfo},
    },
    nn::DataFormat,
};
use std::collections::{HashMap, HashSet};

/// An input of a model.
#[derive(Debug, Clone)]
pub struct Described {
    pub name: String,
    /// ONNX's extents, 1 for a batch.
    pub dims: Vec<usize>,
    pub elem: i32,
    pub batched: bool,
    /// How it is stored.
    pub axes: Vec<usize>,
    /// Whether the first extent is 1 in the file, which may be a batch or not.
    pub first_is_one: bool,
}

/// Operators that want channels last, and those that a search for them goes through.
const CHANNELS: [&str; 16] = [
    "AveragePool",
    "BatchNormalization",
    "Conv",
    "ConvInteger",
    "ConvTranspose",
    "DepthToSpace",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "GroupNormalization",
    "InstanceNormalization",
    "LRN",
    "LpPool",
    "MaxPool",
    "QLinearConv",
    "SpaceToDepth",
    "Upsample",
];
const THROUGH: [&str; 14] = [
    "Add",
    "Cast",
    "Clip",
    "DequantizeLinear",
    "Div",
    "DynamicQuantizeLinear",
    "Identity",
    "Mul",
    "Pad",
    "QuantizeLinear",
    "Relu",
    "Resize",
    "Sub",
    "Concat",
];

/// Returns the values from which an operator on channels is reached, each with the file's nodes in order.
fn of_maps(graph: &GraphProto) -> HashSet<&str> {
    let mut found: HashSet<&str> = HashSet::new();
    for node in graph.node.iter().rev() {
        let through =
            THROUGH.contains(&node.op_type.as_str()) && node.output.iter().any(|o| found.contains(o.as_str()));
        if let Some(first) = node.input.first().filter(|_| CHANNELS.contains(&node.op_type.as_str()) || through) {
            found.insert(first);
        }
    }
    found
}

/// Returns the inputs of a graph that the caller feeds.
pub fn described(graph: &GraphProto, options: &OnnxOptions, with_batch: bool) -> Result<Vec<Described>, FormatError> {
    let known: HashSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    let fed = |v: &&ValueInfo| !known.contains(v.name.as_str()) && !options.values.contains_key(&v.name);
    let maps = of_maps(graph);
    let mut open: Vec<String> = Vec::new();
    let mut all = Vec::new();
    for value in graph.input.iter().filter(fed) {
        let tensor = value.ty.as_ref().and_then(|t| t.tensor.as_ref());
        let Some((elem, shape)) = tensor.and_then(|t| Some((t.elem_type, t.shape.as_ref()?))) else {
            let what = format!("the input `{}`", value.name);
            let advice = "give its value with `OnnxOptions::value`, or export the model again with shapes";
            return Err(FormatError::new(Flaw::Type, what, "a tensor with a shape", "another type").advise(advice));
        };
        if !matches!(elem, 1..=7 | BOOL | 10..=13 | 16) {
            let got = crate::io::onnx::type_name(elem);
            return Err(FormatError::new(Flaw::Type, format!("the input `{}`", value.name), "numbers", got));
        }
        all.push(input(value, elem, &shape.dim, (options, with_batch), &mut open)?);
    }
    if !open.is_empty() {
        let (what, got) = ("the model's inputs", format!("open dimensions {}", open.join(", ")));
        let advice = "bind each with `OnnxOptions::dim`, or --dim NAME=EXTENT of the command";
        return Err(FormatError::new(Flaw::Missing, what, "extents for all axes but the batch", got).advise(advice));
    }
    for input in &mut all {
        let is_map = input.dims.len() == 4 && !is_whole(input.elem) && maps.contains(input.name.as_str());
        if is_map && options.data_format == DataFormat::ChannelsLast {
            input.axes = channels_last(4);
        }
    }
    Ok(all)
}

fn input(
    value: &ValueInfo,
    elem: i32,
    dims: &[Dimension],
    (options, with_batch): (&OnnxOptions, bool),
    open: &mut Vec<String>,
) -> Result<Described, FormatError> {
    let mut extents = Vec::new();
    let (mut batched, mut first_is_one) = (false, false);
    for (axis, dim) in dims.iter().enumerate() {
        let own = format!("{}.{axis}", value.name);
        let name = dim.param.clone().filter(|p| !p.is_empty()).unwrap_or(own.clone());
        let bound = options.dims.get(&own).or_else(|| options.dims.get(&name)).copied();
        let known = bound.or(dim.value.filter(|d| *d > 0).and_then(|d| usize::try_from(d).ok()));
        let is_first = axis == 0 && with_batch;
        match known {
            Some(1) if is_first && bound.is_none() && dims.len() > 1 => (batched, first_is_one) = (true, true),
            None if is_first => batched = true,
            None if !open.contains(&format!("`{name}`")) => open.push(format!("`{name}`")),
            _ => {}
        }
        extents.push(known.unwrap_or(1));
    }
    let too_large = extents.iter().try_fold(1u32, |n, &d| n.checked_mul(u32::try_from(d).ok()?)).is_none();
    if too_large || dims.len() > 8 {
        let what = format!("the input `{}`", value.name);
        return Err(FormatError::new(
            Flaw::TooLarge,
            what,
            "at most 8 axes and 2³² − 1 elements",
            format!("{extents:?}"),
        ));
    }
    let axes = (0..extents.len()).collect();
    Ok(Described { name: value.name.clone(), dims: extents, elem, batched, axes, first_is_one })
}

/// Returns the names of classes that the metadata of a file have.
pub fn class_names(metadata: &HashMap<&str, &str>) -> Vec<String> {
    const KEYS: [&str; 5] = ["names", "class_names", "classes", "labels", "character"];
    let Some(text) = KEYS.iter().find_map(|key| metadata.get(key)) else { return Vec::new() };
    if let Ok(names) = serde_json::from_str::<Vec<String>>(text) {
        return names;
    }
    let quoted = if text.trim_start().starts_with(['{', '[']) { texts_of(text) } else { Vec::new() };
    let lines = || text.lines().map(str::to_owned).collect();
    let commas = || text.split(',').map(|name| name.trim().to_owned()).collect();
    match (quoted.is_empty(), text.contains('\n')) {
        (false, _) => quoted,
        (true, true) => lines(),
        (true, false) => commas(),
    }
}

/// Returns the texts in quotes of a list or dictionary in Python's form, without its keys' numbers.
fn texts_of(text: &str) -> Vec<String> {
    let (mut texts, mut rest) = (Vec::new(), text);
    while let Some(start) = rest.find(['\'', '"']) {
        let quote = rest.as_bytes()[start] as char;
        let Some(length) = rest[start + 1..].find(quote) else { break };
        texts.push(rest[start + 1..start + 1 + length].to_owned());
        rest = &rest[start + length + 2..];
    }
    texts
}
