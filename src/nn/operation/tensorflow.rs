//! Functions of TensorFlow in files of Keras 2, as operations of Keras 3.

use super::*;

/// A function: its name in TensorFlow, the operation's class, and its arguments' names there and here. The first one
/// here is the function's first.
type Row = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const AXES: &[(&str, &str)] = &[("axis", "axis"), ("keepdims", "keepdims")];
const SECOND: &[(&str, &str)] = &[("y", "x2")];

#[rustfmt::skip]
const FUNCTIONS: &[Row] = &[
    ("__operators__.add", "Add", SECOND),
    ("__operators__.getitem", "GetItem", &[("slice_spec", "key")]),
    ("cast", "Cast", &[("dtype", "dtype")]),
    ("clip_by_value", "Clip", &[("clip_value_min", "x_min"), ("clip_value_max", "x_max")]),
    ("compat.v1.transpose", "Transpose", &[("perm", "axes")]),
    ("compat.v1.floor_div", "FloorDivide", SECOND),
    ("compat.v1.pad", "Pad", &[("paddings", "pad_width"), ("mode", "mode"), ("constant_values", "constant_values")]),
    ("compat.v1.squeeze", "Squeeze", &[("axis", "axis")]),
    ("concat", "Concatenate", &[("axis", "axis")]),
    ("expand_dims", "ExpandDims", &[("axis", "axis")]),
    ("identity", "Copy", &[]),
    ("image.resize", "Resize", &[("size", "size"), ("method", "interpolation"), ("antialias", "antialias")]),
    ("linalg.matmul", "Matmul", &[("b", "x2"), ("transpose_a", "transpose_a"), ("transpose_b", "transpose_b")]),
    ("math.abs", "Absolute", &[]),
    ("math.add", "Add", SECOND),
    ("math.ceil", "Ceil", &[]),
    ("math.divide", "TrueDivide", SECOND),
    ("math.divide_no_nan", "DivideNoNan", SECOND),
    ("math.equal", "Equal", SECOND),
    ("math.erf", "Erf", &[]),
    ("math.exp", "Exp", &[]),
    ("math.floor", "Floor", &[]),
    ("math.floordiv", "FloorDivide", SECOND),
    ("math.floormod", "Mod", SECOND),
    ("math.greater", "Greater", SECOND),
    ("math.greater_equal", "GreaterEqual", SECOND),
    ("math.l2_normalize", "Normalize", &[("axis", "axis"), ("epsilon", "epsilon")]),
    ("math.less", "Less", SECOND),
    ("math.less_equal", "LessEqual", SECOND),
    ("math.log", "Log", &[]),
    ("math.log1p", "Log1p", &[]),
    ("math.maximum", "Maximum", SECOND),
    ("math.minimum", "Minimum", SECOND),
    ("math.multiply", "Multiply", SECOND),
    ("math.negative", "Negative", &[]),
    ("math.pow", "Power", SECOND),
    ("math.reciprocal", "Reciprocal", &[]),
    ("math.reduce_logsumexp", "Logsumexp", AXES),
    ("math.reduce_max", "Max", AXES),
    ("math.reduce_mean", "Mean", AXES),
    ("math.reduce_min", "Min", AXES),
    ("math.reduce_prod", "Prod", AXES),
    ("math.reduce_std", "Std", AXES),
    ("math.reduce_sum", "Sum", AXES),
    ("math.reduce_variance", "Var", AXES),
    ("math.round", "Round", &[]),
    ("math.rsqrt", "Rsqrt", &[]),
    ("math.sigmoid", "Sigmoid", &[]),
    ("math.sign", "Sign", &[]),
    ("math.softplus", "Softplus", &[]),
    ("math.sqrt", "Sqrt", &[]),
    ("math.square", "Square", &[]),
    ("math.subtract", "Subtract", SECOND),
    ("math.tanh", "Tanh", &[]),
    ("math.truediv", "TrueDivide", SECOND),
    ("nn.bias_add", "Add", &[("bias", "x2")]),
    ("nn.depth_to_space", "DepthToSpace", &[("block_size", "block_size")]),
    ("nn.elu", "Elu", &[]),
    ("nn.gelu", "Gelu", &[("approximate", "approximate")]),
    ("nn.leaky_relu", "LeakyRelu", &[("alpha", "negative_slope")]),
    ("nn.log_softmax", "LogSoftmax", &[("axis", "axis")]),
    ("nn.relu", "Relu", &[]),
    ("nn.relu6", "Relu6", &[]),
    ("nn.selu", "Selu", &[]),
    ("nn.silu", "Silu", &[]),
    ("nn.softmax", "Softmax", &[("axis", "axis")]),
    ("nn.softsign", "Softsign", &[]),
    ("nn.space_to_depth", "SpaceToDepth", &[("block_size", "block_size")]),
    ("ones_like", "OnesLike", &[]),
    ("pad", "Pad", &[("paddings", "pad_width"), ("mode", "mode"), ("constant_values", "constant_values")]),
    ("reshape", "Reshape", &[("shape", "newshape")]),
    ("reverse", "Flip", &[("axis", "axis")]),
    ("space_to_depth", "SpaceToDepth", &[("block_size", "block_size")]),
    ("split", "Split", &[("num_or_size_splits", "indices_or_sections"), ("axis", "axis")]),
    ("squeeze", "Squeeze", &[("axis", "axis")]),
    ("stack", "Stack", &[("axis", "axis")]),
    ("tile", "Tile", &[("multiples", "repeats")]),
    ("transpose", "Transpose", &[("perm", "axes")]),
    ("unstack", "Unstack", &[("axis", "axis"), ("num", "num")]),
    ("where", "Where", &[("x", "x1"), ("y", "x2")]),
    ("zeros_like", "ZerosLike", &[]),
];

/// Returns the call of a TensorFlow function as an operation of Keras 3: its object and its named arguments.
pub(in crate::nn) fn translated(
    name: &str,
    object: &Json,
    kwargs: &Map<String, Json>,
) -> Result<(Json, Map<String, Json>), LayerError> {
    let kind = object["class_name"].as_str().unwrap_or_default();
    let function = object["config"]["function"].as_str().unwrap_or_default();
    let function = function.strip_prefix("tf.").unwrap_or(function);
    let Some((_, class, renamed)) = FUNCTIONS.iter().find(|row| row.0 == function) else {
        let known: Vec<&str> = FUNCTIONS.iter().map(|row| row.0).collect();
        let wanted = format!("a function that is supported: {}", known.join(", "));
        return Err(refused(name, kind, &wanted, format!("`{function}`"), "build the model from layers and those"));
    };
    let mut arguments = Map::new();
    for (key, value) in kwargs.iter().filter(|(key, value)| *key != "name" && !value.is_null()) {
        let Some((_, here)) = renamed.iter().find(|(there, _)| there == key) else {
            // What says that nothing is done is no option.
            let off = *value == false || value.as_str().is_some_and(|s| s == "NHWC" || s == "float32");
            if off {
                continue;
            }
            let wanted =
                format!("{} as options of {function}", renamed.iter().map(|r| r.0).collect::<Vec<_>>().join(", "));
            return Err(refused(name, kind, &wanted, format!("`{key}`"), "call the function without it"));
        };
        arguments.insert((*here).to_owned(), value.clone());
    }
    if *class == "Gelu" {
        arguments.entry("approximate").or_insert(false.into());
    }
    if *class == "Pad" {
        let mode = arguments.get("mode").and_then(Json::as_str).map(str::to_lowercase);
        arguments.extend(mode.map(|mode| ("mode".to_owned(), mode.into())));
    }
    if let Some(Json::Array(sizes)) = arguments.get("indices_or_sections") {
        // TensorFlow gives sizes, Keras the borders between them.
        let sizes: Vec<u64> = sizes.iter().filter_map(Json::as_u64).collect();
        let borders = sizes.iter().scan(0u64, |at, &n| {
            *at = at.saturating_add(n);
            Some(*at)
        });
        let borders: Vec<u64> = borders.take(sizes.len().saturating_sub(1)).collect();
        arguments.insert("indices_or_sections".into(), borders.into());
    }
    Ok((json!({ "class_name": class, "config": {} }), arguments))
}
