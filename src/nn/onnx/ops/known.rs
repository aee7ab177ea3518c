//! Operators whose results are known before anything runs.

use crate::{
    graph::OpError,
    nn::onnx::{
        constant::{Constant, FLOAT, INT64},
        spec::Spec,
    },
};

/// Returns an operator's results.
type Know = fn(&Spec, &[Option<Constant>]) -> Result<Vec<Constant>, OpError>;

pub const OPERATORS: &[(&str, Know)] = &[
    ("Constant", constant),
    ("ConstantOfShape", filled),
    ("EyeLike", eye),
    ("NonZero", non_zero),
    ("Range", range),
    ("Shape", shape),
    ("Size", shape),
];

/// The most elements of a computed constant.
pub const MAX_ELEMENTS: usize = 1 << 24;

/// Returns how an operator's results are computed, if it is one of these.
pub fn find(op: &str) -> Option<Know> {
    OPERATORS.iter().find(|(name, _)| *name == op).map(|(_, know)| *know)
}

fn wrong(spec: &Spec, wanted: &str, got: impl std::fmt::Display) -> OpError {
    let advice = "bind the sizes that it depends on with `OnnxOptions::dim`, or its value with `OnnxOptions::value`";
    OpError::new(spec.op, wanted, got, advice)
}

fn operand<'k>(spec: &Spec, operands: &'k [Option<Constant>], i: usize) -> Result<&'k Constant, OpError> {
    let found = operands.get(i).and_then(Option::as_ref);
    found.ok_or_else(|| wrong(spec, &format!("operand {i} known before the model runs"), "one that is computed"))
}

fn constant(spec: &Spec, _operands: &[Option<Constant>]) -> Result<Vec<Constant>, OpError> {
    let result = if let Some(ints) = spec.ints("value_ints") {
        Constant::ints(ints.iter().copied())
    } else if let Some(floats) = spec.floats("value_floats") {
        Constant::numbers(vec![floats.len()], FLOAT, floats.iter().map(|&v| f64::from(v)).collect())
    } else if spec.has("value_int") {
        Constant::numbers(Vec::new(), INT64, vec![spec.int("value_int", 0) as f64])
    } else if spec.has("value_float") {
        Constant::numbers(Vec::new(), FLOAT, vec![f64::from(spec.float("value_float", 0.0))])
    } else {
        return Err(wrong(spec, "a value of numbers", "text or a sparse tensor"));
    };
    Ok(vec![result])
}

/// Returns extents, or an error where they are negative or the tensor is too large.
fn extents(spec: &Spec, dims: &[i64]) -> Result<Vec<usize>, OpError> {
    let dims: Option<Vec<usize>> = dims.iter().map(|&d| usize::try_from(d).ok()).collect();
    let count = |d: &Vec<usize>| d.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    // Weights of equal numbers are stored as one.
    dims.filter(|d| count(d).is_some_and(|n| n <= 1 << 30)).ok_or_else(|| wrong(spec, "extents from 0 up", "others"))
}

fn filled(spec: &Spec, operands: &[Option<Constant>]) -> Result<Vec<Constant>, OpError> {
    let dims = extents(spec, &operand(spec, operands, 0)?.to_ints()?)?;
    let value = operands.get(1).and_then(Option::as_ref);
    let (elem, number) = value.map_or((FLOAT, 0.0), |v| (v.elem, v.scalar().unwrap_or(0.0)));
    Ok(vec![Constant::fill(dims, elem, number)])
}

fn range(spec: &Spec, operands: &[Option<Constant>]) -> Result<Vec<Constant>, OpError> {
    let number = |i: usize| -> Result<f64, OpError> {
        operand(spec, operands, i)?.scalar().ok_or_else(|| wrong(spec, "a number", "a tensor"))
    };
    let (start, limit, step) = (number(0)?, number(1)?, number(2)?);
    let n = ((limit - start) / step).ceil().max(0.0);
    if !n.is_finite() || n > MAX_ELEMENTS as f64 {
        return Err(wrong(spec, &format!("at most {MAX_ELEMENTS} numbers"), n));
    }
    let elem = operand(spec, operands, 0)?.elem;
    let numbers = (0..n as usize).map(|i| start + i as f64 * step).collect();
    Ok(vec![Constant::numbers(vec![n as usize], elem, numbers)])
}

/// Returns the extents of operand 0, which alone needs to be known here.
fn shape(spec: &Spec, operands: &[Option<Constant>]) -> Result<Vec<Constant>, OpError> {
    let dims: Vec<i64> = operand(spec, operands, 0)?.dims.iter().map(|&d| d as i64).collect();
    if spec.op == "Size" {
        return Ok(vec![Constant::numbers(Vec::new(), INT64, vec![dims.iter().product::<i64>() as f64])]);
    }
    let n = dims.len() as i64;
    let held = |v: i64| (if v < 0 { v.saturating_add(n) } else { v }).clamp(0, n) as usize;
    let (start, end) = (held(spec.int("start", 0)), held(spec.int("end", n)));
    Ok(vec![Constant::ints(dims[start.min(end)..end].iter().copied())])
}

fn eye(spec: &Spec, operands: &[Option<Constant>]) -> Result<Vec<Constant>, OpError> {
    let like = operand(spec, operands, 0)?;
    let &[rows, columns] = &like.dims[..] else { return Err(wrong(spec, "a matrix", format!("{:?}", like.dims))) };
    extents(spec, &[rows as i64, columns as i64])?;
    if rows.saturating_mul(columns) > MAX_ELEMENTS {
        return Err(wrong(spec, &format!("at most {MAX_ELEMENTS} elements"), rows.saturating_mul(columns)));
    }
    let k = spec.int("k", 0);
    let on = |i: usize| f64::from(u8::from((i % columns) as i64 - (i / columns) as i64 == k));
    let elem = spec.int("dtype", i64::from(like.elem)) as i32;
    let numbers = (0..rows * columns).map(on).collect();
    Ok(vec![Constant::numbers(vec![rows, columns], elem, numbers)])
}

fn non_zero(spec: &Spec, operands: &[Option<Constant>]) -> Result<Vec<Constant>, OpError> {
    let x = operand(spec, operands, 0)?;
    let strides = crate::tensor::strides(&x.dims);
    let places: Vec<usize> = x.values()?.iter().enumerate().filter(|(_, v)| **v != 0.0).map(|(i, _)| i).collect();
    let mut numbers = Vec::with_capacity(places.len() * x.dims.len());
    for (axis, &stride) in strides.iter().enumerate() {
        numbers.extend(places.iter().map(|&i| (i / stride % x.dims[axis]) as f64));
    }
    Ok(vec![Constant::numbers(vec![x.dims.len(), places.len()], INT64, numbers)])
}

/// Returns what becomes of a list, which may be empty, as no tensor of the graph is: parts, products, sums.
pub fn of_list(spec: &Spec, operands: &[Option<Constant>]) -> Option<Constant> {
    let list = operands.first()?.as_ref().filter(|k| k.dims.len() == 1 && k.count() <= 64)?;
    let numbers = list.values().ok()?;
    let whole = |result: Vec<f64>, dims: Vec<usize>| Some(Constant::numbers(dims, list.elem, result));
    match spec.op {
        "Slice" => {
            let number = |i: usize, name: &str| match operands.get(i).and_then(Option::as_ref) {
                Some(constant) => constant.to_ints().ok()?.first().copied(),
                None => spec.ints(name).and_then(|all| all.first().copied()),
            };
            let (start, end) = (number(1, "starts")?, number(2, "ends")?);
            if number(4, "steps").unwrap_or(1) != 1 {
                return None;
            }
            let n = numbers.len() as i64;
            let held = |v: i64| (if v < 0 { v.saturating_add(n) } else { v }).clamp(0, n) as usize;
            let part = numbers.get(held(start)..held(end)).unwrap_or_default().to_vec();
            let dims = vec![part.len()];
            whole(part, dims)
        }
        "ReduceProd" | "ReduceSum" => {
            let dims = if spec.int("keepdims", 1) == 1 { vec![1] } else { Vec::new() };
            let result = if spec.op == "ReduceProd" { numbers.iter().product() } else { numbers.iter().sum() };
            whole(vec![result], dims)
        }
        "Identity" if numbers.is_empty() => Some(list.clone()),
        _ => None,
    }
}

/// Returns whether results are worth computing at once: moves of elements and arithmetic on few of them.
pub fn is_cheap(spec: &Spec, operands: &[Constant]) -> bool {
    let heavy = ["Conv", "ConvTranspose", "MatMul", "Gemm", "Einsum", "LSTM", "GRU", "RNN", "Resize", "CumSum"];
    let count: usize = operands.iter().map(Constant::count).sum();
    count <= if heavy.contains(&spec.op) { 1 << 12 } else { MAX_ELEMENTS }
}
