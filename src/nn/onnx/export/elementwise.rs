//! Elementwise programs, and batch normalisations, which are made of them.

use super::writer::{Attr, Writer};
use crate::{
    graph::{Arg, Graph, Node, OpError, Program, Value},
    ops::Elementwise,
};

/// Functions that ONNX has under another name, with the same operands.
const SAME: [(&str, &str); 26] = [
    ("abs", "Abs"),
    ("add", "Add"),
    ("ceil", "Ceil"),
    ("cos", "Cos"),
    ("div", "Div"),
    ("erf", "Erf"),
    ("exp", "Exp"),
    ("floor", "Floor"),
    ("hard_swish", "HardSwish"),
    ("log", "Log"),
    ("max", "Max"),
    ("min", "Min"),
    ("mul", "Mul"),
    ("neg", "Neg"),
    ("pow", "Pow"),
    ("prelu", "PRelu"),
    ("relu", "Relu"),
    ("round", "Round"),
    ("selu", "Selu"),
    ("sigmoid", "Sigmoid"),
    ("sign", "Sign"),
    ("sin", "Sin"),
    ("softplus", "Softplus"),
    ("softsign", "Softsign"),
    ("sqrt", "Sqrt"),
    ("tanh", "Tanh"),
];

/// Comparisons, which give booleans in ONNX.
const COMPARISONS: [(&str, &str); 5] = [
    ("equal", "Equal"),
    ("greater", "Greater"),
    ("greater_equal", "GreaterOrEqual"),
    ("less", "Less"),
    ("less_equal", "LessOrEqual"),
];

fn program(graph: &Graph, value: Value) -> Option<&Program> {
    let op = graph.node(value).op()?.downcast::<Elementwise>()?;
    op.shape.is_none().then_some(&op.program)
}

/// Returns the operands of the one function that a node applies.
fn applied(graph: &Graph, value: Value, name: &str) -> Option<Vec<Value>> {
    let program = program(graph, value)?;
    let [instr] = &program.instrs[..] else { return None };
    let plain = instr.args.iter().enumerate().all(|(i, arg)| *arg == Arg::Input(i));
    (instr.f.name == name && plain).then(|| graph.node(value).inputs.clone())
}

fn constant(graph: &Graph, value: Value) -> Option<f32> {
    match program(graph, value)? {
        Program { result: Arg::Const(number), instrs, .. } if instrs.is_empty() => Some(*number),
        _ => None,
    }
}

/// Returns x, gamma, beta, mean and variance of the batch normalisation that ends in a value, with its epsilon.
pub fn batch_norm(graph: &Graph, value: Value) -> Option<([Value; 5], f32)> {
    if !graph.node(value).name.contains("batch_norm_inference") {
        return None;
    }
    let pair = |value: Value, name: &str| <[Value; 2]>::try_from(applied(graph, value, name)?).ok();
    let [scaled, beta] = pair(value, "add")?;
    let [offset, scale] = pair(scaled, "mul")?;
    let [x, mean] = pair(offset, "sub")?;
    let [gamma, root] = pair(scale, "mul")?;
    let [shifted] = applied(graph, root, "rsqrt")?[..] else { return None };
    let [variance, epsilon] = pair(shifted, "add")?;
    let is_image = graph.shape(x).rank() >= 2;
    is_image.then_some(([x, gamma, beta, mean, variance], constant(graph, epsilon)?))
}

pub fn write(w: &mut Writer, node: &Node, value: Value) -> Option<Result<(), OpError>> {
    let op = node.op()?.downcast::<Elementwise>()?;
    Some(match batch_norm(w.graph, value) {
        Some((operands, epsilon)) => normalization(w, value, operands, epsilon),
        None => elementwise(w, node, value, op),
    })
}

fn normalization(w: &mut Writer, value: Value, [x, rest @ ..]: [Value; 5], epsilon: f32) -> Result<(), OpError> {
    let order = super::writer::channels_first(w.rank(x));
    let mut names = vec![w.get(x, &order)?];
    for v in rest {
        names.push(w.plain(v)?);
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let y = w.node_of(value, "BatchNormalization", &names, &[("epsilon", Attr::Float(epsilon))]);
    w.set(value, y, order);
    Ok(())
}

fn elementwise(w: &mut Writer, node: &Node, value: Value, op: &Elementwise) -> Result<(), OpError> {
    let rank = node.inputs.iter().map(|&v| w.rank(v)).max().unwrap_or(0);
    let leader = node.inputs.iter().copied().filter(|&v| w.rank(v) == rank);
    let leader = leader.max_by_key(|&v| (w.shape(v).is_batched(), !w.is_weight(v)));
    let order = leader.map_or_else(Vec::new, |v| w.order(v));
    let mut inputs = Vec::new();
    for &v in &node.inputs {
        inputs.push(w.aligned(v, rank, &order)?);
    }
    let mut results: Vec<String> = Vec::new();
    for instr in &op.program.instrs {
        let mut args = Vec::new();
        for &arg in &instr.args {
            args.push(argument(w, arg, &inputs, &results)?);
        }
        results.push(function(w, instr.f.name, &args, &instr.args)?);
    }
    let mut y = argument(w, op.program.result, &inputs, &results)?;
    if let Some(shape) = &op.shape {
        // A batch is repeated where the result is used.
        let mut dims: Vec<i64> = shape.dims().iter().map(|&d| d as i64).collect();
        if let Some(first) = dims.first_mut().filter(|_| shape.is_batched()) {
            *first = 1;
        }
        if leader.is_some_and(|v| w.rank(v) != shape.rank()) && !order.is_sorted() {
            return Err(OpError::new("expand", "a tensor in its own order", "another", "report this as a bug"));
        }
        let whole = w.whole(&if order.len() == dims.len() { order.iter().map(|&a| dims[a]).collect() } else { dims });
        y = w.node("Expand", &[&y, &whole], &[]);
    }
    let order = if order.len() == w.rank(value) { order } else { super::writer::natural(w.rank(value)) };
    let name = w.named(value, &y);
    w.set(value, name, order);
    Ok(())
}

fn argument(w: &mut Writer, arg: Arg, inputs: &[String], results: &[String]) -> Result<String, OpError> {
    match arg {
        Arg::Input(i) => Ok(inputs[i].clone()),
        Arg::Instr(i) => Ok(results[i].clone()),
        Arg::Const(number) => Ok(w.floats(&[], vec![number])),
        Arg::Scalar(_) | Arg::InvBatch => Err(OpError::new(
            "elementwise",
            "a function of tensors",
            "a number of the step",
            "export a model for inference",
        )),
    }
}

fn function(w: &mut Writer, name: &str, args: &[String], raw: &[Arg]) -> Result<String, OpError> {
    let operands: Vec<&str> = args.iter().map(String::as_str).collect();
    if let Some((_, op)) = SAME.iter().find(|(own, _)| *own == name) {
        return Ok(w.node(op, &operands, &[]));
    }
    if let Some((_, op)) = COMPARISONS.iter().find(|(own, _)| *own == name) {
        let truth = w.node(op, &operands, &[]);
        return Ok(w.node("Cast", &[&truth], &[("to", Attr::Int(1))]));
    }
    let number = |w: &mut Writer, v: f32| w.floats(&[], vec![v]);
    let x = operands[0];
    Ok(match name {
        "sub" => w.node("Sub", &operands, &[]),
        "square" => w.node("Mul", &[x, x], &[]),
        "rsqrt" => {
            let root = w.node("Sqrt", &[x], &[]);
            w.node("Reciprocal", &[&root], &[])
        }
        "not_equal" => {
            let same = w.node("Equal", &operands, &[]);
            let other = w.node("Not", &[&same], &[]);
            w.node("Cast", &[&other], &[("to", Attr::Int(1))])
        }
        "at_least" => {
            let truth = w.node("GreaterOrEqual", &operands, &[]);
            w.node("Cast", &[&truth], &[("to", Attr::Int(1))])
        }
        "where" => {
            let zero = number(w, 0.0);
            let truth = w.node("Greater", &[x, &zero], &[]);
            w.node("Where", &[&truth, operands[1], operands[2]], &[])
        }
        "where_positive" => {
            let zero = number(w, 0.0);
            let truth = w.node("Greater", &[operands[1], &zero], &[]);
            w.node("Where", &[&truth, x, &zero], &[])
        }
        "clip" => {
            let above = w.node("Max", &[x, operands[1]], &[]);
            w.node("Min", &[&above, operands[2]], &[])
        }
        "relu6" => {
            let (low, high) = (number(w, 0.0), number(w, 6.0));
            w.node("Clip", &[x, &low, &high], &[])
        }
        "elu" | "hard_sigmoid" | "silu" | "mish" | "gelu" | "gelu_tanh" => activation(w, name, &operands, raw),
        other => return Err(OpError::new(other, "a function that ONNX has", other, "use another")),
    })
}

fn activation(w: &mut Writer, name: &str, operands: &[&str], raw: &[Arg]) -> String {
    let number = |w: &mut Writer, v: f32| w.floats(&[], vec![v]);
    let x = operands[0];
    match name {
        "elu" => match raw.get(1) {
            Some(Arg::Const(alpha)) => w.node("Elu", &[x], &[("alpha", Attr::Float(*alpha))]),
            _ => {
                // max(x, 0) + alpha · (exp(min(x, 0)) − 1)
                let (zero, one) = (number(w, 0.0), number(w, 1.0));
                let (above, below) = (w.node("Max", &[x, &zero], &[]), w.node("Min", &[x, &zero], &[]));
                let power = w.node("Exp", &[&below], &[]);
                let less = w.node("Sub", &[&power, &one], &[]);
                let scaled = w.node("Mul", &[&less, operands[1]], &[]);
                w.node("Add", &[&above, &scaled], &[])
            }
        },
        "hard_sigmoid" => {
            let attributes = [("alpha", Attr::Float(1.0 / 6.0)), ("beta", Attr::Float(0.5))];
            w.node("HardSigmoid", &[x], &attributes)
        }
        "silu" => {
            let gate = w.node("Sigmoid", &[x], &[]);
            w.node("Mul", &[x, &gate], &[])
        }
        "mish" => {
            let soft = w.node("Softplus", &[x], &[]);
            let gate = w.node("Tanh", &[&soft], &[]);
            w.node("Mul", &[x, &gate], &[])
        }
        "gelu" => {
            let (root, one, half) = (number(w, std::f32::consts::FRAC_1_SQRT_2), number(w, 1.0), number(w, 0.5));
            let scaled = w.node("Mul", &[x, &root], &[]);
            let erf = w.node("Erf", &[&scaled], &[]);
            let sum = w.node("Add", &[&erf, &one], &[]);
            let share = w.node("Mul", &[&sum, &half], &[]);
            w.node("Mul", &[x, &share], &[])
        }
        _ => {
            let [cubic, width, one, half] = [0.044_715, 0.797_884_6, 1.0, 0.5].map(|v| number(w, v));
            let square = w.node("Mul", &[x, x], &[]);
            let cube = w.node("Mul", &[&square, x], &[]);
            let term = w.node("Mul", &[&cube, &cubic], &[]);
            let sum = w.node("Add", &[x, &term], &[]);
            let inner = w.node("Mul", &[&sum, &width], &[]);
            let tanh = w.node("Tanh", &[&inner], &[]);
            let sum = w.node("Add", &[&tanh, &one], &[]);
            let share = w.node("Mul", &[&sum, &half], &[]);
            w.node("Mul", &[x, &share], &[])
        }
    }
}
