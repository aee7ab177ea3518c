//! Functions of single elements with NumPy's broadcasting.

use crate::{
    graph::{Graph, OpError, Value},
    nn::onnx::{
        call::{Build, Call, T},
        constant::{BOOL, FLOAT, is_whole},
    },
};

pub const OPERATORS: &[(&str, Build)] = &[
    ("Abs", unary),
    ("Acos", angle),
    ("Acosh", hyperbolic),
    ("Add", binary),
    ("And", binary),
    ("Asin", angle),
    ("Asinh", hyperbolic),
    ("Atan", angle),
    ("Atanh", hyperbolic),
    ("Cast", cast),
    ("CastLike", cast),
    ("Ceil", unary),
    ("Cos", unary),
    ("Cosh", hyperbolic),
    ("Div", binary),
    ("Equal", binary),
    ("Erf", unary),
    ("Exp", unary),
    ("Floor", unary),
    ("Greater", binary),
    ("GreaterOrEqual", binary),
    ("IsInf", is_infinite),
    ("IsNaN", is_nan),
    ("Less", binary),
    ("LessOrEqual", binary),
    ("Log", unary),
    ("Max", variadic),
    ("Mean", variadic),
    ("Min", variadic),
    ("Mod", modulo),
    ("Mul", binary),
    ("Neg", unary),
    ("Not", not),
    ("Or", binary),
    ("Pow", power),
    ("Reciprocal", reciprocal),
    ("Round", unary),
    ("Sign", unary),
    ("Sin", unary),
    ("Sinh", hyperbolic),
    ("Sqrt", unary),
    ("Sub", binary),
    ("Sum", variadic),
    ("Tan", angle),
    ("Where", choose),
    ("Xor", binary),
];

/// The graph's names of functions, where they differ from ONNX's in lower case.
const NAMES: [(&str, &str); 7] = [
    ("And", "mul"),
    ("GreaterOrEqual", "greater_equal"),
    ("LessOrEqual", "less_equal"),
    ("Mean", "add"),
    ("Or", "max"),
    ("Sum", "add"),
    ("Xor", "not_equal"),
];

/// Operators whose results are booleans.
const TRUTHS: [&str; 8] = ["And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Or", "Xor"];

fn name(op: &str) -> String {
    let special = NAMES.iter().find(|(onnx, _)| *onnx == op).map(|(_, name)| (*name).to_owned());
    special.unwrap_or_else(|| op.to_lowercase())
}

/// Returns a function of the only operand, stored as that is.
pub fn mapped(c: &mut Call, f: impl FnOnce(&mut Graph, Value) -> Result<Value, OpError>) -> Result<Vec<T>, OpError> {
    let x = c.t(0)?;
    let y = f(c.g(), x.value)?;
    Ok(vec![x.with(y)])
}

fn unary(c: &mut Call) -> Result<Vec<T>, OpError> {
    let name = name(c.node.op);
    mapped(c, |g, x| g.unary(&name, x))
}

fn binary(c: &mut Call) -> Result<Vec<T>, OpError> {
    let (values, like) = c.aligned(&[0, 1])?;
    let (op, elem) = (c.node.op, c.elem(0));
    let mut y = c.g().binary(&name(op), values[0], values[1])?;
    if op == "Div" && is_whole(elem) {
        y = truncated(c.g(), y)?;
    }
    let elem = if TRUTHS.contains(&op) { BOOL } else { elem };
    Ok(vec![T { elem, ..like.with(y) }])
}

/// Returns numbers rounded towards 0.
pub fn truncated(g: &mut Graph, x: Value) -> Result<Value, OpError> {
    let (sign, size) = (g.unary("sign", x)?, g.abs(x)?);
    let whole = g.unary("floor", size)?;
    g.mul(sign, whole)
}

fn variadic(c: &mut Call) -> Result<Vec<T>, OpError> {
    let operands: Vec<usize> = (0..c.slots.len()).collect();
    let (values, like) = c.aligned(&operands)?;
    let (name, n, op) = (name(c.node.op), values.len(), c.node.op);
    let g = c.g();
    let mut y = values[1..].iter().try_fold(values[0], |y, &x| g.binary(&name, y, x))?;
    if op == "Mean" {
        y = g.scale(y, 1.0 / n as f32)?;
    }
    Ok(vec![like.with(y)])
}

fn modulo(c: &mut Call) -> Result<Vec<T>, OpError> {
    let (values, like) = c.aligned(&[0, 1])?;
    let like_c = c.node.int("fmod", 0) == 1;
    let g = c.g();
    let quotient = g.div(values[0], values[1])?;
    let whole = if like_c { truncated(g, quotient)? } else { g.unary("floor", quotient)? };
    let product = g.mul(whole, values[1])?;
    let y = g.sub(values[0], product)?;
    Ok(vec![like.with(y)])
}

/// Returns a power: of a known whole exponent by products; of others through the base's magnitude, NaN where a negative base has
/// an exponent that is not whole.
fn power(c: &mut Call) -> Result<Vec<T>, OpError> {
    let known = c.constant(1).and_then(|e| e.scalar());
    if let Some(n) = known.filter(|n| *n == 0.5 || *n == -0.5 || (n.fract() == 0.0 && (1.0..=16.0).contains(&n.abs())))
    {
        return mapped(c, |g, x| {
            if n.fract() != 0.0 {
                return if n > 0.0 { g.sqrt(x) } else { g.unary("rsqrt", x) };
            }
            let y = (1..n.abs() as usize).try_fold(x, |y, _| g.mul(y, x))?;
            if n > 0.0 { Ok(y) } else { inverse(g, y) }
        });
    }
    let (values, like) = c.aligned(&[0, 1])?;
    let (x, e) = (values[0], values[1]);
    let g = c.g();
    let size = g.abs(x)?;
    let y = g.pow(size, e)?;
    let zero = g.constant(0.0)?;
    // 0 to the power of 0 is 1, and whole powers of negative bases change their sign.
    let half = g.scale(e, 0.5)?;
    let (floor, whole) = (g.unary("floor", half)?, g.unary("floor", e)?);
    let odd = g.binary("not_equal", half, floor)?;
    let fraction = g.binary("not_equal", e, whole)?;
    let not_a_number = g.div(zero, zero)?;
    let negated = g.neg(y)?;
    let of_negative = g.where_(odd, negated, y)?;
    let of_negative = g.where_(fraction, not_a_number, of_negative)?;
    let is_negative = g.binary("less", x, zero)?;
    let y = g.where_(is_negative, of_negative, y)?;
    let one = g.constant(1.0)?;
    let no_exponent = g.binary("equal", e, zero)?;
    let y = g.where_(no_exponent, one, y)?;
    Ok(vec![like.with(y)])
}

pub fn inverse(g: &mut Graph, x: Value) -> Result<Value, OpError> {
    let one = g.constant(1.0)?;
    g.div(one, x)
}

fn reciprocal(c: &mut Call) -> Result<Vec<T>, OpError> {
    mapped(c, inverse)
}

fn hyperbolic(c: &mut Call) -> Result<Vec<T>, OpError> {
    let op = c.node.op;
    mapped(c, |g, x| {
        let one = g.constant(1.0)?;
        match op {
            "Sinh" | "Cosh" => {
                let up = g.exp(x)?;
                let minus = g.neg(x)?;
                let down = g.exp(minus)?;
                let sum = if op == "Sinh" { g.sub(up, down)? } else { g.add(up, down)? };
                g.scale(sum, 0.5)
            }
            "Asinh" | "Acosh" => {
                let (size, square) = (g.abs(x)?, g.unary("square", x)?);
                let under = if op == "Asinh" { g.add(square, one)? } else { g.sub(square, one)? };
                let root = g.sqrt(under)?;
                let sum = g.add(size, root)?;
                let log = g.log(sum)?;
                if op == "Acosh" {
                    return Ok(log);
                }
                let sign = g.unary("sign", x)?;
                g.mul(sign, log)
            }
            _ => {
                let (over, under) = (g.add(one, x)?, g.sub(one, x)?);
                let quotient = g.div(over, under)?;
                let log = g.log(quotient)?;
                g.scale(log, 0.5)
            }
        }
    })
}

fn angle(c: &mut Call) -> Result<Vec<T>, OpError> {
    let op = c.node.op;
    mapped(c, |g, x| match op {
        "Tan" => {
            let (sine, cosine) = (g.unary("sin", x)?, g.unary("cos", x)?);
            g.div(sine, cosine)
        }
        "Atan" => arc_tangent(g, x),
        _ => {
            let one = g.constant(1.0)?;
            let (below, above) = (g.sub(one, x)?, g.add(one, x)?);
            let square = g.mul(below, above)?;
            let root = g.sqrt(square)?;
            let tangent = g.div(x, root)?;
            let sine = arc_tangent(g, tangent)?;
            if op == "Asin" {
                return Ok(sine);
            }
            let right = g.constant(std::f32::consts::FRAC_PI_2)?;
            g.sub(right, sine)
        }
    })
}

/// Returns the arc tangent to 2·10⁻⁷: its argument is brought below tan π/8, where a polynomial (Cephes) is exact enough.
fn arc_tangent(g: &mut Graph, x: Value) -> Result<Value, OpError> {
    const TERMS: [f32; 4] = [8.053_744_5e-2, -1.387_768_6e-1, 1.997_771_1e-1, -3.333_295e-1];
    let (size, sign, one) = (g.abs(x)?, g.unary("sign", x)?, g.constant(1.0)?);
    let is_large = g.binary("greater", size, one)?;
    let inverse = g.div(one, size)?;
    let z = g.where_(is_large, inverse, size)?;
    let bound = g.constant(0.414_213_57)?;
    let is_wide = g.binary("greater", z, bound)?;
    let (over, under) = (g.sub(z, one)?, g.add(z, one)?);
    let turned = g.div(over, under)?;
    let z = g.where_(is_wide, turned, z)?;
    let square = g.unary("square", z)?;
    let mut sum = g.constant(TERMS[0])?;
    for &term in &TERMS[1..] {
        let (product, term) = (g.mul(sum, square)?, g.constant(term)?);
        sum = g.add(product, term)?;
    }
    let cube = g.mul(square, z)?;
    let rest = g.mul(sum, cube)?;
    let y = g.add(rest, z)?;
    let quarter = g.constant(std::f32::consts::FRAC_PI_4)?;
    let wide = g.add(y, quarter)?;
    let y = g.where_(is_wide, wide, y)?;
    let right = g.constant(std::f32::consts::FRAC_PI_2)?;
    let large = g.sub(right, y)?;
    let y = g.where_(is_large, large, y)?;
    g.mul(sign, y)
}

fn not(c: &mut Call) -> Result<Vec<T>, OpError> {
    mapped(c, |g, x| {
        let zero = g.constant(0.0)?;
        g.binary("equal", x, zero)
    })
}

fn is_infinite(c: &mut Call) -> Result<Vec<T>, OpError> {
    let (up, down) = (c.node.int("detect_positive", 1) == 1, c.node.int("detect_negative", 1) == 1);
    let x = c.t(0)?;
    let g = c.g();
    let value = match (up, down) {
        (true, true) => g.abs(x.value)?,
        (true, false) => x.value,
        (false, true) => g.neg(x.value)?,
        (false, false) => g.scale(x.value, 0.0)?,
    };
    let largest = g.constant(f32::MAX)?;
    let y = g.binary("greater", value, largest)?;
    Ok(vec![T { elem: BOOL, ..x.with(y) }])
}

fn is_nan(c: &mut Call) -> Result<Vec<T>, OpError> {
    let x = c.t(0)?;
    let g = c.g();
    let y = g.binary("equal", x.value, x.value)?;
    let zero = g.constant(0.0)?;
    let y = g.binary("equal", y, zero)?;
    Ok(vec![T { elem: BOOL, ..x.with(y) }])
}

fn choose(c: &mut Call) -> Result<Vec<T>, OpError> {
    let (values, like) = c.aligned(&[0, 1, 2])?;
    let elem = c.elem(1);
    let y = c.g().where_(values[0], values[1], values[2])?;
    Ok(vec![T { elem, ..like.with(y) }])
}

fn cast(c: &mut Call) -> Result<Vec<T>, OpError> {
    let to = if c.node.op == "Cast" { c.node.int("to", i64::from(FLOAT)) as i32 } else { c.elem(1) };
    let from = c.elem(0);
    if to == 8 || from == 8 || crate::io::onnx::type_name(to).starts_with("type") {
        let got = crate::io::onnx::type_name(to);
        return Err(c.wrong("a cast between numbers", got, "convert the model to float32"));
    }
    let x = c.t(0)?;
    let g = c.g();
    let y = match to {
        BOOL if from != BOOL => {
            let zero = g.constant(0.0)?;
            g.binary("not_equal", x.value, zero)?
        }
        to if is_whole(to) && !is_whole(from) && from != BOOL => truncated(g, x.value)?,
        _ => x.value,
    };
    Ok(vec![T { elem: to, ..x.with(y) }])
}
