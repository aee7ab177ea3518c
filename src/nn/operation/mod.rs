//! Operations on tensors in Keras's files: `x / 255`, `ops.mean(x)`, `x[..., :2]`.
//!
//! Keras 3 writes the class of an operation, its options and the arguments of its call; Keras 2 writes the name of a
//! TensorFlow function, which [`tensorflow`] translates. Both become an [`Operation`], a layer without weights.

mod compute;
mod shapes;
mod tensorflow;

pub(super) use tensorflow::translated;

use super::{
    Layer, LayerError, Scope,
    layers::{self, axis},
    names::{refused, snake_case},
};
use crate::graph::{Graph, OpError, Value};
use serde_json::{Map, Value as Json, json};
use std::{any::Any, cell::RefCell, collections::HashSet};

/// The key of an object that stands for the input of this number among an operation's arguments.
pub(super) const INPUT: &str = "__input__";

/// The most elements of a constant among the arguments.
const MAX_CONSTANT: usize = 1 << 20;

/// The modules of Keras's operations, with the classes that are supported, each with the names of its call's arguments.
const MODULES: [(&str, &[(&str, &[&str])]); 5] = [
    (
        "numpy",
        &[
            ("Absolute", &["x"]),
            ("Abs", &["x"]),
            ("Add", &["x1", "x2"]),
            ("Amax", &["x"]),
            ("Amin", &["x"]),
            ("Any", &["x"]),
            ("Argmax", &["x"]),
            ("Average", &["x"]),
            ("BroadcastTo", &["x"]),
            ("Ceil", &["x"]),
            ("Clip", &["x"]),
            ("Concatenate", &["xs"]),
            ("Copy", &["x"]),
            ("Cos", &["x"]),
            ("Divide", &["x1", "x2"]),
            ("Cumsum", &["x"]),
            ("DivideNoNan", &["x1", "x2"]),
            ("Einsum", &["x1", "x2"]),
            ("Equal", &["x1", "x2"]),
            ("Exp", &["x"]),
            ("ExpandDims", &["x"]),
            ("Expm1", &["x"]),
            ("Flip", &["x"]),
            ("Floor", &["x"]),
            ("FloorDivide", &["x1", "x2"]),
            ("GetItem", &["x", "key"]),
            ("Greater", &["x1", "x2"]),
            ("GreaterEqual", &["x1", "x2"]),
            ("Less", &["x1", "x2"]),
            ("LessEqual", &["x1", "x2"]),
            ("Log", &["x"]),
            ("Log10", &["x"]),
            ("Log1p", &["x"]),
            ("Log2", &["x"]),
            ("LogicalAnd", &["x1", "x2"]),
            ("LogicalNot", &["x"]),
            ("LogicalOr", &["x1", "x2"]),
            ("Matmul", &["x1", "x2"]),
            ("Max", &["x"]),
            ("Maximum", &["x1", "x2"]),
            ("Mean", &["x"]),
            ("Min", &["x"]),
            ("Minimum", &["x1", "x2"]),
            ("Mod", &["x1", "x2"]),
            ("Moveaxis", &["x"]),
            ("Multiply", &["x1", "x2"]),
            ("Negative", &["x"]),
            ("NotEqual", &["x1", "x2"]),
            ("OnesLike", &["x"]),
            ("Pad", &["x", "constant_values"]),
            ("Power", &["x1", "x2"]),
            ("Prod", &["x"]),
            ("Reciprocal", &["x"]),
            ("Repeat", &["x"]),
            ("Reshape", &["x"]),
            ("Round", &["x"]),
            ("Sign", &["x"]),
            ("Sin", &["x"]),
            ("Split", &["x"]),
            ("Sqrt", &["x"]),
            ("Square", &["x"]),
            ("Squeeze", &["x"]),
            ("Stack", &["x"]),
            ("Std", &["x"]),
            ("Subtract", &["x1", "x2"]),
            ("Sum", &["x"]),
            ("Swapaxes", &["x"]),
            ("Tanh", &["x"]),
            ("Tile", &["x"]),
            ("Transpose", &["x"]),
            ("TrueDivide", &["x1", "x2"]),
            ("Var", &["x"]),
            ("Where", &["condition", "x1", "x2"]),
            ("ZerosLike", &["x"]),
        ],
    ),
    (
        "nn",
        &[
            ("Celu", &["x"]),
            ("DepthToSpace", &["x"]),
            ("Elu", &["x"]),
            ("Gelu", &["x"]),
            ("Glu", &["x"]),
            ("HardShrink", &["x"]),
            ("HardSigmoid", &["x"]),
            ("HardSilu", &["x"]),
            ("HardTanh", &["x"]),
            ("LeakyRelu", &["x"]),
            ("LogSigmoid", &["x"]),
            ("LogSoftmax", &["x"]),
            ("Normalize", &["x"]),
            ("OneHot", &["x"]),
            ("Relu", &["x"]),
            ("Relu6", &["x"]),
            ("Selu", &["x"]),
            ("Sigmoid", &["x"]),
            ("Silu", &["x"]),
            ("SoftShrink", &["x"]),
            ("Softmax", &["x"]),
            ("Softplus", &["x"]),
            ("Softsign", &["x"]),
            ("SpaceToDepth", &["x"]),
            ("SparsePlus", &["x"]),
            ("SparseSigmoid", &["x"]),
            ("Squareplus", &["x"]),
            ("TanhShrink", &["x"]),
            ("AveragePool", &["inputs"]),
            ("MaxPool", &["inputs"]),
        ],
    ),
    ("core", &[("Cast", &["x"]), ("Unstack", &["x"])]),
    ("math", &[("Erf", &["x"]), ("Logsumexp", &["x"]), ("Rsqrt", &["x"])]),
    ("image", &[("Resize", &["images"])]),
];

/// Returns the class, its module and the names of its call's arguments.
fn find(class: &str) -> Option<(&'static str, &'static str, &'static [&'static str])> {
    MODULES.iter().find_map(|(module, classes)| {
        classes.iter().find(|(name, _)| *name == class).map(|(name, call)| (*name, *module, *call))
    })
}

/// Returns whether a layer's object is an operation: Keras says so by its module, or it has no options of a layer.
pub(super) fn is_operation(object: &Json) -> bool {
    match object["module"].as_str() {
        Some(module) => module.starts_with("keras.src.ops") || module.starts_with("keras.ops"),
        None => {
            let class = object["class_name"].as_str().unwrap_or_default();
            let layer = |key: &str| object["config"].get(key).is_some();
            let is_layer = layers::layer_classes().any(|known| known == class);
            find(class).is_some() && (!is_layer || (!layer("trainable") && !layer("dtype")))
        }
    }
}

/// A call of an operation: everything that is no tensor is in its arguments.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    class: &'static str,
    module: &'static str,
    call: &'static [&'static str],
    name: String,
    arguments: Map<String, Json>,
}

impl Operation {
    /// Returns the call of an operation with these positional and named arguments, besides the options in its object.
    pub fn new(name: &str, object: &Json, args: &[Json], kwargs: &Map<String, Json>) -> Result<Self, LayerError> {
        let class = object["class_name"].as_str().unwrap_or_default();
        let Some((class, module, call)) = find(class) else {
            let known: Vec<&str> = MODULES.iter().flat_map(|(_, classes)| classes.iter().map(|c| c.0)).collect();
            let wanted = format!("an operation that is supported: {}", known.join(", "));
            return Err(refused(name, class, &wanted, class, "build the model from those"));
        };
        let mut arguments = object["config"].as_object().cloned().unwrap_or_default();
        arguments.retain(|key, _| key != "name" && key != "dtype" || key == "dtype" && class == "Cast");
        arguments.extend(call.iter().map(|key| (*key).to_owned()).zip(args.iter().cloned()));
        arguments.extend(kwargs.clone());
        if args.len() > call.len() {
            let (wanted, got) = (format!("at most {} arguments", call.len()), args.len().to_string());
            return Err(refused(name, class, &wanted, got, "write the file again with Keras 3.15"));
        }
        Ok(Operation { class, module, call, name: name.to_owned(), arguments })
    }

    /// Returns the operation as Keras's JSON, with its call on these tensors.
    pub fn to_json(&self, tensors: &[Json]) -> Json {
        let (mut config, mut args) = (self.arguments.clone(), Vec::new());
        for name in self.call {
            if let Some(argument) = config.remove(*name) {
                let argument = match *name {
                    "key" => {
                        let shape = tensors.first().and_then(|t| t["config"]["shape"].as_array());
                        spelled(&argument, shape.map_or(0, Vec::len))
                    }
                    "xs" => argument,
                    _ if self.class == "Stack" || !argument.is_array() => argument,
                    // Keras takes a list for several tensors.
                    _ => json!({ "class_name": "__numpy__", "config": { "value": argument, "dtype": "float32" } }),
                };
                args.push(filled(&argument, tensors));
            }
        }
        config.insert("name".into(), self.name.as_str().into());
        json!({
            "module": format!("keras.src.ops.{}", self.module), "class_name": self.class, "config": config,
            "registered_name": self.class, "name": self.name, "inbound_nodes": [{ "args": args, "kwargs": {} }],
        })
    }

    fn wrong(&self, wanted: &str, got: impl ToString, advice: &str) -> OpError {
        OpError::new(&snake_case(self.class), wanted, got.to_string(), advice)
    }
}

/// Returns an index of a tensor with slices in Keras 3's form, and `...` as the slices that it stands for.
fn spelled(key: &Json, rank: usize) -> Json {
    let slice = |start: &Json, stop: &Json, step: &Json| json!({ "class_name": "__slice__", "config": { "start": start, "stop": stop, "step": step } });
    let whole = slice(&Json::Null, &Json::Null, &Json::Null);
    let keys = match key {
        Json::Array(keys) => keys.clone(),
        one => vec![one.clone()],
    };
    let is_rest = |key: &Json| key["class_name"] == "__ellipsis__";
    let of_axes = keys.iter().filter(|key| !key.is_null() && !is_rest(key)).count();
    let mut all = Vec::new();
    for key in keys {
        match &key {
            rest if is_rest(rest) => all.extend(vec![whole.clone(); rank.saturating_sub(of_axes)]),
            Json::Object(map) if !map.contains_key("class_name") => {
                all.push(slice(&key["start"], &key["stop"], &key["step"]))
            }
            _ => all.push(key),
        }
    }
    all.into()
}

/// Returns an argument with the tensors in place of their numbers.
fn filled(argument: &Json, tensors: &[Json]) -> Json {
    match argument {
        Json::Object(map) => match map.get(INPUT).and_then(Json::as_u64) {
            Some(k) => tensors.get(k as usize).cloned().unwrap_or_default(),
            None => map.iter().map(|(key, value)| (key.clone(), filled(value, tensors))).collect(),
        },
        Json::Array(items) => items.iter().map(|item| filled(item, tensors)).collect(),
        other => other.clone(),
    }
}

/// Returns the operation that a layer is, if it is one.
pub(super) fn as_operation(layer: &dyn Layer) -> Option<&Operation> {
    layer.nested()?.downcast_ref()
}

impl Layer for Operation {
    fn kind(&self) -> &'static str {
        self.class
    }

    fn given_name(&self) -> Option<&str> {
        Some(&self.name)
    }

    fn nested(&self) -> Option<&dyn Any> {
        Some(self)
    }

    fn build(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        Call { operation: self, scope, inputs, read: RefCell::default() }.results()
    }
}

/// An operation that is built in a scope.
struct Call<'c, 's> {
    operation: &'c Operation,
    scope: &'c mut Scope<'s>,
    inputs: &'c [Value],
    /// The names of the arguments that have been read.
    read: RefCell<HashSet<String>>,
}

impl Call<'_, '_> {
    fn graph(&mut self) -> &mut Graph {
        self.scope.graph
    }

    fn argument(&self, name: &str) -> &Json {
        self.read.borrow_mut().insert(name.to_owned());
        self.operation.arguments.get(name).unwrap_or(&Json::Null)
    }

    /// Returns the operand of this name: an input, or a constant.
    fn operand(&mut self, name: &str) -> Result<Value, OpError> {
        let argument = self.argument(name).clone();
        self.value(&argument)
    }

    /// Returns the operand of a function of one tensor.
    fn only(&mut self) -> Result<Value, OpError> {
        self.operand(self.operation.call[0])
    }

    fn value(&mut self, argument: &Json) -> Result<Value, OpError> {
        if let Some(k) = argument[INPUT].as_u64() {
            let value = self.inputs.get(k as usize).copied();
            return value.ok_or_else(|| self.operation.wrong("an input for each tensor", "fewer", "pass all tensors"));
        }
        let constant = match argument["class_name"].as_str() {
            Some("__tensor__" | "__numpy__") => &argument["config"]["value"],
            _ => argument,
        };
        let (mut shape, mut numbers) = (Vec::new(), Vec::new());
        if !elements(constant, 0, &mut shape, &mut numbers) || numbers.len() > MAX_CONSTANT {
            let advice = "give a number or a list of numbers";
            return Err(self.operation.wrong("a tensor or a constant", shortened(argument), advice));
        }
        match numbers[..] {
            [one] => self.graph().constant(one),
            _ => {
                // An axis of 1 in front would be the batch's.
                let shape: Vec<usize> = shape.iter().skip_while(|&&d| d == 1).copied().collect();
                self.graph().literal(shape, numbers)
            }
        }
    }

    /// Returns the operands of a function of a list of tensors.
    fn list(&mut self, name: &str) -> Result<Vec<Value>, OpError> {
        let items = self.argument(name).as_array().cloned().unwrap_or_default();
        items.iter().map(|item| self.value(item)).collect()
    }

    fn rank(&self, x: Value) -> usize {
        self.scope.graph.shape(x).rank()
    }

    /// Returns the axis of this option, which must not be the batch's.
    fn axis(&self, name: &str, rank: usize, default: isize) -> Result<usize, OpError> {
        let number = self.argument(name).as_i64().map_or(default, |n| n as isize);
        axis(number, rank).filter(|&a| a > 0).ok_or_else(|| {
            let wanted = format!("an axis from 1 to {} or from -{0} to -1", rank.max(2) - 1);
            self.operation.wrong(&wanted, number, "samples are computed apart: choose one of their axes")
        })
    }

    /// Returns the axes of this option, in order; without one all of a sample's.
    fn axes(&self, name: &str, rank: usize) -> Result<Vec<usize>, OpError> {
        let listed = match self.argument(name) {
            Json::Null => {
                let advice = "name the axes: over all of them the batch is reduced too";
                return Err(self.operation.wrong("axes of samples", "none", advice));
            }
            Json::Array(items) => items.clone(),
            one => vec![one.clone()],
        };
        let at = |n: &Json| n.as_i64().and_then(|n| axis(n as isize, rank)).filter(|&a| a > 0);
        let mut axes = listed.iter().map(at).collect::<Option<Vec<_>>>().ok_or_else(|| {
            let got = shortened(self.argument(name));
            self.operation.wrong("axes of samples", got, "samples are computed apart: choose their axes")
        })?;
        axes.sort_unstable();
        Ok(axes)
    }

    /// Returns a list of whole numbers, from one or several.
    fn integers(&self, name: &str) -> Result<Vec<i64>, OpError> {
        let found = match self.argument(name) {
            Json::Array(items) => items.iter().map(Json::as_i64).collect(),
            one => one.as_i64().map(|n| vec![n]),
        };
        found.ok_or_else(|| {
            let got = shortened(self.argument(name));
            self.operation.wrong(&format!("whole numbers as `{name}`"), got, "write them as a list")
        })
    }

    fn flag(&self, name: &str) -> bool {
        *self.argument(name) == true
    }

    fn number(&self, name: &str, default: f32) -> f32 {
        self.argument(name).as_f64().map_or(default, |x| x as f32)
    }
}

/// Collects the numbers of nested lists of equal lengths and their extents; returns whether they are such.
fn elements(value: &Json, depth: usize, shape: &mut Vec<usize>, out: &mut Vec<f32>) -> bool {
    match value {
        Json::Array(items) => {
            if shape.len() == depth {
                shape.push(items.len());
            }
            shape[depth] == items.len() && items.iter().all(|item| elements(item, depth + 1, shape, out))
        }
        _ if shape.len() > depth => false,
        Json::Bool(flag) => {
            out.push(f32::from(u8::from(*flag)));
            true
        }
        _ => value.as_f64().map(|x| out.push(x as f32)).is_some(),
    }
}

/// Returns JSON short enough for a message.
fn shortened(value: &Json) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
