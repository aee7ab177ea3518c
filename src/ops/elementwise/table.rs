//! The functions: WGSL, definition, gradient, accuracy and the numbers that tests try, a row each.

use crate::{
    graph::{Elementary, Fill, Graph, OpError, Value},
    tensor::{Accuracy, maximum},
};
use std::cmp::Ordering;

pub(super) const ANY: Fill = Fill::Uniform(-2.0, 2.0);
const POSITIVE: Fill = Fill::Uniform(0.1, 3.0);
const AWAY: Fill = Fill::Away(0.05, 2.0);
const WIDE: Fill = Fill::Ranges(&[(-4.0, 4.0), (-30.0, 30.0)]);
/// Both sides of three.
const THREE: Fill = Fill::Ranges(&[(-6.0, -3.05), (-2.95, 2.95), (3.05, 6.0)]);
/// Outside and inside of what [`INNER`] gives.
const OUTER: Fill = Fill::Ranges(&[(-1.0, -0.6), (0.6, 1.0)]);
const INNER: Fill = Fill::Uniform(-0.4, 0.4);
const INDEX: Fill = Fill::Index(3);
const ANGLES: Fill = Fill::Uniform(-7.0, 7.0);
/// Halfway between whole numbers, on them and elsewhere.
const HALVES: Fill = Fill::Ranges(&[(-2.5, -2.5), (-0.5, -0.5), (0.5, 0.5), (1.5, 1.5), (-3.0, -3.0), (-9.0, 9.0)]);
const SELU: (f32, f32) = (1.050_701, 1.673_263_2);

/// Error function by its series (Abramowitz and Stegun 7.1.6) and continued fraction (7.1.14).
fn erf(x: f64) -> f64 {
    let (a, s) = (x.abs(), 2.0 * x * x);
    if a < 3.0 {
        let (mut term, mut sum) = (x, x);
        for n in 1..80 {
            term *= s / f64::from(2 * n + 1);
            sum += term;
        }
        std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
    } else {
        let fraction = (1..60).rev().fold(0.0, |f, n| f64::from(n) / 2.0 / (a + f));
        x.signum() * (1.0 - (-x * x).exp() / (a + fraction) * std::f64::consts::FRAC_2_SQRT_PI / 2.0)
    }
}

/// Returns `b` where `a` is above 0, else `c`, and NaN where `a` is NaN.
fn chosen(a: f64, b: f64, c: f64) -> f64 {
    match a.partial_cmp(&0.0) {
        None => f64::NAN,
        Some(Ordering::Greater) => b,
        _ => c,
    }
}

fn minimum(a: f64, b: f64) -> f64 {
    -maximum(-a, -b)
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn flag(on: bool) -> f64 {
    f64::from(u8::from(on))
}

macro_rules! row {
    (positive $name:literal, $($rest:tt)*) => {
        Elementary { positive: true, ..row!($name, $($rest)*) }
    };
    ($name:literal, $arity:literal, $wgsl:literal, $eval:expr, $accuracy:expr, [$a:expr, $b:expr, $c:expr], $grad:expr) => {
        Elementary {
            positive: false,
            name: $name,
            arity: $arity,
            wgsl: $wgsl,
            eval: $eval,
            grad: $grad,
            accuracy: $accuracy,
            domain: [$a, $b, $c],
        }
    };
}

/// A comparison: 1 where it holds, else 0; no gradient.
macro_rules! compare {
    ($name:literal, $wgsl:literal, $eval:expr) => {
        row!($name, 2, $wgsl, $eval, Accuracy::Exact, [INDEX, INDEX, ANY], |_, _, _, _| Ok(vec![None, None]))
    };
}

/// All elementwise functions; definitions as in ONNX where it has them.
pub static TABLE: &[Elementary] = &[
    row!("add", 2, "($a + $b)", |a, b, _| a + b, Accuracy::Ulp(1.0), [ANY, ANY, ANY], |_, _, _, dy| {
        Ok(vec![Some(dy), Some(dy)])
    }),
    row!("sub", 2, "($a - $b)", |a, b, _| a - b, Accuracy::Ulp(1.0), [ANY, ANY, ANY], |g, _, _, dy| {
        Ok(vec![Some(dy), Some(g.neg(dy)?)])
    }),
    row!("mul", 2, "($a * $b)", |a, b, _| a * b, Accuracy::Ulp(1.0), [ANY, ANY, ANY], |g, x, _, dy| {
        Ok(vec![Some(g.mul(dy, x[1])?), Some(g.mul(dy, x[0])?)])
    }),
    row!("div", 2, "($a / $b)", |a, b, _| a / b, Accuracy::Ulp(2.5), [ANY, AWAY, ANY], |g, x, y, dy| {
        let da = g.div(dy, x[1])?;
        let db = g.mul(da, y)?;
        Ok(vec![Some(da), Some(g.neg(db)?)])
    }),
    row!("neg", 1, "(-$a)", |a, _, _| -a, Accuracy::Exact, [ANY, ANY, ANY], |g, _, _, dy| Ok(vec![Some(g.neg(dy)?)])),
    row!(positive "abs", 1, "abs($a)", |a, _, _| a.abs(), Accuracy::Exact, [AWAY, ANY, ANY], |g, x, _, dy| {
        let s = g.unary("sign", x[0])?;
        Ok(vec![Some(g.mul(dy, s)?)])
    }),
    row!(
        "sign",
        1,
        "nan_or_f32($a, sign($a))",
        |a, _, _| if a == 0.0 { 0.0 } else { a.signum() },
        Accuracy::Exact,
        [AWAY, ANY, ANY],
        |_, _, _, _| { Ok(vec![None]) }
    ),
    row!(positive "relu", 1, "relu_f32($a)", |a, _, _| maximum(a, 0.0), Accuracy::Exact, [AWAY, ANY, ANY], |g, _, y, dy| {
        Ok(vec![Some(g.binary("where_positive", dy, y)?)])
    }),
    row!(
        "where_positive",
        2,
        "nan_or_f32($b, select(0.0, $a, positive_f32($b)))",
        |a, b, _| chosen(b, a, 0.0),
        Accuracy::Exact,
        [ANY, AWAY, ANY],
        |g, x, _, dy| { Ok(vec![Some(g.binary("where_positive", dy, x[1])?), None]) }
    ),
    row!("max", 2, "max_f32($a, $b)", |a, b, _| maximum(a, b), Accuracy::Exact, [OUTER, INNER, ANY], |g, x, _, dy| {
        Ok(split_at(g, x[0], x[1], dy)?.map(Some).into())
    }),
    row!("min", 2, "min_f32($a, $b)", |a, b, _| minimum(a, b), Accuracy::Exact, [OUTER, INNER, ANY], |g, x, _, dy| {
        Ok(split_at(g, x[1], x[0], dy)?.map(Some).into())
    }),
    row!(positive "exp", 1, "exp_f32($a)", |a, _, _| a.exp(), Accuracy::Exp, [ANY, ANY, ANY], |g, _, y, dy| Ok(vec![Some(
        g.mul(dy, y)?
    )])),
    row!("log", 1, "log_f32($a)", |a, _, _| a.ln(), Accuracy::Log, [POSITIVE, ANY, ANY], |g, x, _, dy| {
        Ok(vec![Some(g.div(dy, x[0])?)])
    }),
    row!("sqrt", 1, "sqrt($a)", |a, _, _| a.sqrt(), Accuracy::Ulp(5.0), [POSITIVE, ANY, ANY], |g, _, y, dy| {
        let half = g.scale(dy, 0.5)?;
        Ok(vec![Some(g.div(half, y)?)])
    }),
    row!(
        "rsqrt",
        1,
        "inverseSqrt($a)",
        |a, _, _| 1.0 / a.sqrt(),
        Accuracy::Ulp(2.0),
        [POSITIVE, ANY, ANY],
        |g, x, y, dy| {
            let d = g.div(y, x[0])?;
            let d = g.mul(dy, d)?;
            Ok(vec![Some(g.scale(d, -0.5)?)])
        }
    ),
    row!(positive "square", 1, "($a * $a)", |a, _, _| a * a, Accuracy::Ulp(1.0), [ANY, ANY, ANY], |g, x, _, dy| {
        let d = g.mul(dy, x[0])?;
        Ok(vec![Some(g.scale(d, 2.0)?)])
    }),
    row!("tanh", 1, "tanh_f32($a)", |a, _, _| a.tanh(), Accuracy::Relative(4e-6), [ANY, ANY, ANY], |g, _, y, dy| {
        let square = g.unary("square", y)?;
        let d = g.mul(dy, square)?;
        Ok(vec![Some(g.sub(dy, d)?)])
    }),
    row!(positive "sigmoid", 1, "sigmoid_f32($a)", |a, _, _| logistic(a), Accuracy::Sigmoid, [ANY, ANY, ANY], |g, _, y, dy| {
        let d = g.mul(dy, y)?;
        let square = g.mul(d, y)?;
        Ok(vec![Some(g.sub(d, square)?)])
    }),
    row!(
        "pow",
        2,
        "pow_f32($a, $b)",
        |a, b, _| if a >= 0.0 && !b.is_nan() { a.powf(b) } else { f64::NAN },
        Accuracy::Pow,
        [POSITIVE, ANY, ANY],
        |g, x, y, dy| {
            let less = plus(g, x[1], -1.0)?;
            let power = g.pow(x[0], less)?;
            let da = g.mul(x[1], power)?;
            let log = g.log(x[0])?;
            let db = g.mul(y, log)?;
            let db = g.binary("where_positive", db, x[0])?;
            Ok(vec![Some(g.mul(dy, da)?), Some(g.mul(dy, db)?)])
        }
    ),
    row!("sin", 1, "sin_f32($a)", |a, _, _| a.sin(), Accuracy::Absolute(2e-6), [ANGLES, ANY, ANY], |g, x, _, dy| {
        let cos = g.unary("cos", x[0])?;
        Ok(vec![Some(g.mul(dy, cos)?)])
    }),
    row!(
        "cos",
        1,
        "sin_f32($a + 1.5707964)",
        |a, _, _| a.cos(),
        Accuracy::Absolute(2e-6),
        [ANGLES, ANY, ANY],
        |g, x, _, dy| {
            let sin = g.unary("sin", x[0])?;
            let back = g.mul(dy, sin)?;
            Ok(vec![Some(g.neg(back)?)])
        }
    ),
    row!("floor", 1, "floor($a)", |a, _, _| a.floor(), Accuracy::Exact, [HALVES, ANY, ANY], |_, _, _, _| Ok(vec![
        None
    ])),
    row!("ceil", 1, "ceil($a)", |a, _, _| a.ceil(), Accuracy::Exact, [HALVES, ANY, ANY], |_, _, _, _| Ok(vec![None])),
    row!("round", 1, "round($a)", |a, _, _| a.round_ties_even(), Accuracy::Exact, [HALVES, ANY, ANY], |_, _, _, _| Ok(
        vec![None]
    )),
    compare!("greater", "select(0.0, 1.0, $a > $b && ordered_f32($a, $b))", |a, b, _| flag(a > b)),
    compare!("greater_equal", "select(0.0, 1.0, $a >= $b && ordered_f32($a, $b))", |a, b, _| flag(a >= b)),
    compare!("less", "select(0.0, 1.0, $a < $b && ordered_f32($a, $b))", |a, b, _| flag(a < b)),
    compare!("less_equal", "select(0.0, 1.0, $a <= $b && ordered_f32($a, $b))", |a, b, _| flag(a <= b)),
    compare!("equal", "select(0.0, 1.0, $a == $b && ordered_f32($a, $b))", |a, b, _| flag(a == b)),
    compare!("not_equal", "select(1.0, 0.0, $a == $b && ordered_f32($a, $b))", |a, b, _| flag(a != b)),
    row!(
        "at_least",
        2,
        "nan_or_f32($a, nan_or_f32($b, select(0.0, 1.0, $a >= $b)))",
        |a, b, _| a.partial_cmp(&b).map_or(f64::NAN, |order| flag(order != Ordering::Less)),
        Accuracy::Exact,
        [INDEX, INDEX, ANY],
        |_, _, _, _| Ok(vec![None, None])
    ),
    row!(
        "where",
        3,
        "nan_or_f32($a, select($c, $b, positive_f32($a)))",
        |a, b, c| chosen(a, b, c),
        Accuracy::Exact,
        [Fill::Ranges(&[(-1.0, -0.1), (0.0, 0.0), (0.1, 1.0)]), ANY, ANY],
        |g, x, _, dy| {
            let zero = g.constant(0.0)?;
            Ok(vec![None, Some(g.binary("where_positive", dy, x[0])?), Some(g.where_(x[0], zero, dy)?)])
        }
    ),
    row!(
        "clip",
        3,
        "min_f32(max_f32($a, $b), $c)",
        |a, b, c| minimum(maximum(a, b), c),
        Accuracy::Exact,
        [Fill::Ranges(&[(-1.0, -0.6), (-0.4, 0.4), (0.6, 1.0)]), Fill::Uniform(-0.6, -0.4), Fill::Uniform(0.4, 0.6)],
        |g, x, _, dy| {
            let [above, below] = split_at(g, x[0], x[1], dy)?;
            let [inside, beyond] = split_at(g, x[2], x[0], above)?;
            Ok(vec![Some(inside), Some(below), Some(beyond)])
        }
    ),
    row!(
        positive "relu6",
        1,
        "nan_or_f32($a, clamp($a, 0.0, 6.0))",
        |a, _, _| a.clamp(0.0, 6.0),
        Accuracy::Exact,
        [Fill::Ranges(&[(-2.0, -0.05), (0.05, 5.95), (6.05, 8.0)]), ANY, ANY],
        |g, _, y, dy| {
            let six = g.constant(6.0)?;
            let (above, below) = (g.binary("where_positive", dy, y)?, g.sub(six, y)?);
            Ok(vec![Some(g.binary("where_positive", above, below)?)])
        }
    ),
    row!(
        "prelu",
        2,
        "select($b * $a, $a, $a > 0.0)",
        |a, b, _| if a > 0.0 { a } else { b * a },
        Accuracy::Ulp(1.0),
        [AWAY, ANY, ANY],
        |g, x, _, dy| {
            let (one, zero) = (g.constant(1.0)?, g.constant(0.0)?);
            let (slope, below) = (g.where_(x[0], one, x[1])?, g.where_(x[0], zero, x[0])?);
            Ok(vec![Some(g.mul(dy, slope)?), Some(g.mul(dy, below)?)])
        }
    ),
    row!(
        "elu",
        2,
        "select($b * expm1_f32(min_f32($a, 0.0)), $a, $a > 0.0)",
        |a, b, _| if a > 0.0 { a } else { b * a.exp_m1() },
        Accuracy::Exps { exps: 2.0, ulps: 18.0 },
        [Fill::Away(0.001, 9.0), POSITIVE, ANY],
        |g, x, y, dy| {
            let (one, below) = (g.constant(1.0)?, g.add(y, x[1])?);
            let slope = g.where_(x[0], one, below)?;
            Ok(vec![Some(g.mul(dy, slope)?), None])
        }
    ),
    row!(
        "selu",
        1,
        "select(1.7580993 * expm1_f32(min_f32($a, 0.0)), 1.050701 * $a, $a > 0.0)",
        |a, _, _| 1.0507009873554805 * if a > 0.0 { a } else { 1.6732632423543772 * a.exp_m1() },
        Accuracy::Exps { exps: 2.0, ulps: 20.0 },
        [Fill::Away(0.001, 9.0), ANY, ANY],
        |g, _, y, dy| {
            let (above, below) = (g.constant(SELU.0)?, plus(g, y, SELU.0 * SELU.1)?);
            let slope = g.where_(y, above, below)?;
            Ok(vec![Some(g.mul(dy, slope)?)])
        }
    ),
    row!("erf", 1, "erf_f32($a)", |a, _, _| erf(a), Accuracy::Absolute(5e-7), [WIDE, ANY, ANY], |g, x, _, dy| {
        let slope = bell(g, x[0], -1.0, std::f32::consts::FRAC_2_SQRT_PI)?;
        Ok(vec![Some(g.mul(dy, slope)?)])
    }),
    row!(
        "gelu",
        1,
        "(0.5 * $a * (1.0 + erf_f32(0.70710678 * $a)))",
        |a, _, _| 0.5 * a * (1.0 + erf(a * std::f64::consts::FRAC_1_SQRT_2)),
        Accuracy::PerInput(5e-7),
        [WIDE, ANY, ANY],
        |g, x, _, dy| {
            let scaled = g.scale(x[0], std::f32::consts::FRAC_1_SQRT_2)?;
            let curve = g.erf(scaled)?;
            let curve = g.scale(curve, 0.5)?;
            let share = plus(g, curve, 0.5)?;
            let density = bell(g, x[0], -0.5, 0.398_942_3)?;
            let moved = g.mul(x[0], density)?;
            let slope = g.add(share, moved)?;
            Ok(vec![Some(g.mul(dy, slope)?)])
        }
    ),
    row!(
        "gelu_tanh",
        1,
        "($a * sigmoid_f32($a * (1.5957692 + 0.071354814 * $a * $a)))",
        |a, _, _| a * logistic(a * (1.5957691216057308 + 0.07135481627159538 * a * a)),
        Accuracy::PerInput(1e-6),
        [WIDE, ANY, ANY],
        |g, x, y, dy| {
            let square = g.unary("square", x[0])?;
            let curved = g.scale(square, 0.071_354_814)?;
            let sum = plus(g, curved, 1.595_769_2)?;
            let u = g.mul(x[0], sum)?;
            let tripled = g.scale(square, 0.214_064_45)?;
            let du = plus(g, tripled, 1.595_769_2)?;
            Ok(vec![Some(gated(g, x[0], y, u, Some(du), dy)?)])
        }
    ),
    row!(
        "silu",
        1,
        "($a * sigmoid_f32($a))",
        |a, _, _| a * logistic(a),
        Accuracy::Exps { exps: 2.0, ulps: 9.0 },
        [WIDE, ANY, ANY],
        |g, x, y, dy| Ok(vec![Some(gated(g, x[0], y, x[0], None, dy)?)])
    ),
    row!(
        "mish",
        1,
        "($a * tanh_softplus_f32($a))",
        |a, _, _| a * softplus(a).tanh(),
        Accuracy::Exps { exps: 2.0, ulps: 16.0 },
        [WIDE, ANY, ANY],
        |g, x, y, dy| {
            let curve = g.softplus(x[0])?;
            let t = g.tanh(curve)?;
            let bent = g.mul(t, y)?;
            let rest = g.sub(x[0], bent)?;
            let gate = g.sigmoid(x[0])?;
            let moved = g.mul(gate, rest)?;
            let slope = g.add(t, moved)?;
            Ok(vec![Some(g.mul(dy, slope)?)])
        }
    ),
    row!(
        positive "softplus",
        1,
        "softplus_f32($a)",
        |a, _, _| softplus(a),
        Accuracy::Exps { exps: 2.0, ulps: 12.0 },
        [WIDE, ANY, ANY],
        |g, x, _, dy| {
            let slope = g.sigmoid(x[0])?;
            Ok(vec![Some(g.mul(dy, slope)?)])
        }
    ),
    row!(
        "softsign",
        1,
        "($a / (1.0 + abs($a)))",
        |a, _, _| a / (1.0 + a.abs()),
        Accuracy::Ulp(4.0),
        [AWAY, ANY, ANY],
        |g, _, y, dy| {
            let size = g.abs(y)?;
            let rest = plus(g, size, -1.0)?;
            let slope = g.unary("square", rest)?;
            Ok(vec![Some(g.mul(dy, slope)?)])
        }
    ),
    row!(
        "hard_sigmoid",
        1,
        "nan_or_f32($a, clamp($a + 3.0, 0.0, 6.0) * 0.16666667)",
        |a, _, _| (a + 3.0).clamp(0.0, 6.0) / 6.0,
        Accuracy::Ulp(3.0),
        [THREE, ANY, ANY],
        |g, x, _, dy| {
            let part = g.scale(dy, 1.0 / 6.0)?;
            Ok(vec![Some(within(g, x[0], 3.0, part)?)])
        }
    ),
    row!(
        "hard_swish",
        1,
        "($a * clamp($a + 3.0, 0.0, 6.0) * 0.16666667)",
        |a, _, _| a * (a + 3.0).clamp(0.0, 6.0) / 6.0,
        Accuracy::Ulp(4.0),
        [THREE, ANY, ANY],
        |g, x, _, dy| {
            let gate = g.hard_sigmoid(x[0])?;
            let part = g.scale(x[0], 1.0 / 6.0)?;
            let moved = within(g, x[0], 3.0, part)?;
            let slope = g.add(gate, moved)?;
            Ok(vec![Some(g.mul(dy, slope)?)])
        }
    ),
];

/// Returns `dy` where `a` is at least `b`, else 0, and the rest of it: a tie is the first operand's, as in TensorFlow.
/// Both are NaN where an operand is.
fn split_at(g: &mut Graph, a: Value, b: Value, dy: Value) -> Result<[Value; 2], OpError> {
    let (left, zero) = (g.binary("at_least", a, b)?, g.constant(0.0)?);
    Ok([g.binary("where_positive", dy, left)?, g.where_(left, zero, dy)?])
}

/// Returns `dy` where `|x|` is below `limit`, else 0.
fn within(g: &mut Graph, x: Value, limit: f32, dy: Value) -> Result<Value, OpError> {
    let (size, limit) = (g.abs(x)?, g.constant(limit)?);
    Ok(split_at(g, size, limit, dy)?[1])
}

/// Returns `x + c`.
fn plus(g: &mut Graph, x: Value, c: f32) -> Result<Value, OpError> {
    let c = g.constant(c)?;
    g.add(x, c)
}

/// Returns `factor · e^(scale · x²)`.
fn bell(g: &mut Graph, x: Value, scale: f32, factor: f32) -> Result<Value, OpError> {
    let square = g.unary("square", x)?;
    let power = g.scale(square, scale)?;
    let bell = g.exp(power)?;
    g.scale(bell, factor)
}

/// Returns the gradient of `y = x · σ(u)` with `u' = du`: `σ(u) · (1 + (x − y) · u')`.
fn gated(g: &mut Graph, x: Value, y: Value, u: Value, du: Option<Value>, dy: Value) -> Result<Value, OpError> {
    let mut rest = g.sub(x, y)?;
    if let Some(du) = du {
        rest = g.mul(rest, du)?;
    }
    let rest = plus(g, rest, 1.0)?;
    let gate = g.sigmoid(u)?;
    let slope = g.mul(gate, rest)?;
    g.mul(dy, slope)
}
