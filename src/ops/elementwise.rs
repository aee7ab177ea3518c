//! Functions of single elements with NumPy broadcasting: one table, one generator.
//!
//! A row of [`TABLE`] gives a function's WGSL, definition, gradient and accuracy. Chains of them are fused
//! into one [`Program`], which is either a kernel of its own or another kernel's epilogue.

use crate::{
    graph::{
        Arg, Bad, Candidate, Cost, DeviceProfile, Elementary, Epilogue, Family, Fault, Fill, Graph, Grid, Instr, Io,
        Op, OpError, Program, Sample, Slot, Step, TensorType, Value,
    },
    kernels,
    tensor::{Accuracy, Array, Batch, Count, DType, Philox, Shape, maximum, strides},
};
use std::{cmp::Ordering, fmt::Write as _};

/// An elementwise program on broadcast inputs; the result is f32.
#[derive(Debug, Clone, PartialEq)]
pub struct Elementwise {
    /// What is computed for each element.
    pub program: Program,
    /// A shape that the result is broadcast to, where the inputs alone do not give it.
    pub shape: Option<Shape>,
    /// Whether the result overwrites input 0.
    pub in_place: bool,
}

impl Elementwise {
    /// Returns the operation of one row of the table, by its name.
    pub fn named(name: &str) -> Result<Self, OpError> {
        Ok(Program::of(elementary(name)?).into())
    }
}

/// Returns a row of the table by its name.
pub fn elementary(name: &str) -> Result<&'static Elementary, OpError> {
    TABLE.iter().find(|f| f.name == name).ok_or_else(|| {
        let advice = "see OPS.md for the functions there are";
        OpError::new(name, "a function of the elementwise table", name, advice)
    })
}

impl From<Program> for Elementwise {
    fn from(program: Program) -> Self {
        Elementwise { program, shape: None, in_place: false }
    }
}

const STORAGE: &str = "alias V = f32;
alias S = f32;
fn unpack(s: S) -> V { return s; }
fn pack(v: V) -> S { return v; }
";

impl Op for Elementwise {
    fn name(&self) -> &'static str {
        match &self.program.instrs[..] {
            [one] => one.f.name,
            _ => "elementwise",
        }
    }

    fn key(&self) -> String {
        let shape = self.shape.as_ref().map(|s| format!(" to={s}")).unwrap_or_default();
        format!("{}{shape}{}", self.program, if self.in_place { " in_place" } else { "" })
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        if inputs.len() != self.program.n_inputs {
            let advice = "pass as many operands as the function has";
            return Err(OpError::new(self.name(), format!("{} inputs", self.program.n_inputs), inputs.len(), advice));
        }
        let mut shape = self.shape.clone().unwrap_or_else(Shape::scalar);
        for input in inputs {
            shape = shape.broadcast(&input.shape).ok_or_else(|| {
                let got: Vec<String> = inputs.iter().map(|t| t.shape.to_string()).collect();
                OpError::new(
                    self.name(),
                    "shapes that broadcast (equal extents or 1, aligned at the last axis)",
                    got.join(" and "),
                    "reshape an operand or give it axes of extent 1",
                )
            })?;
        }
        Ok(vec![TensorType::f32(shape)])
    }

    fn reference(&self, inputs: &[&Array], step: &Step) -> Vec<Array> {
        let shape = result_shape(self.shape.as_ref().map(|s| s.at(step.n)), inputs);
        let maps: Vec<Option<Vec<usize>>> = inputs.iter().map(|a| broadcast_strides(&shape, &a.shape)).collect();
        let out_strides = strides(&shape);
        let mut operands = vec![0.0; inputs.len()];
        let len: usize = shape.iter().product();
        let mut data = Vec::with_capacity(len);
        for i in 0..len {
            for ((operand, input), map) in operands.iter_mut().zip(inputs).zip(&maps) {
                *operand = input.data[map.as_ref().map_or(i, |map| index_at(i, &shape, &out_strides, map))];
            }
            data.push(self.program.eval(&operands, step));
        }
        vec![Array { shape, data }]
    }

    fn vjp(
        &self,
        g: &mut Graph,
        inputs: &[Value],
        outputs: &[Value],
        dy: &[Option<Value>],
    ) -> Result<Vec<Option<Value>>, OpError> {
        let Some(dy) = dy[0] else { return Ok(vec![None; inputs.len()]) };
        let mut grads: Vec<Option<Value>> = vec![None; inputs.len()];
        let mut add = |g: &mut Graph, i: usize, d: Value| -> Result<(), OpError> {
            let d = g.sum_to(d, &g.shape(inputs[i]).clone())?;
            grads[i] = Some(match grads[i] {
                None => d,
                Some(other) => g.add(other, d)?,
            });
            Ok(())
        };
        match &self.program.instrs[..] {
            [] => {
                if let Arg::Input(i) = self.program.result {
                    add(g, i, dy)?;
                }
            }
            [Instr { f, args }] => {
                let mut operands = Vec::with_capacity(args.len());
                for &arg in args {
                    operands.push(match arg {
                        Arg::Input(i) => inputs[i],
                        other => g.apply1(
                            Elementwise::from(Program { n_inputs: 0, instrs: Vec::new(), result: other }),
                            &[],
                        )?,
                    });
                }
                let partial = (f.grad)(g, &operands, outputs[0], dy)?;
                for (&arg, d) in args.iter().zip(partial) {
                    if let (Arg::Input(i), Some(d)) = (arg, d) {
                        add(g, i, d)?;
                    }
                }
            }
            _ => {
                let advice = "take gradients before fusion";
                return Err(OpError::new("elementwise", "a single function", &self.program, advice));
            }
        }
        Ok(grads)
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, _epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let out = &io.outputs[0].shape;
        let elements = out.elements();
        let width = kernels::width((elements.fixed | elements.per_sample) as usize % 4, profile);
        let mut text = STORAGE.to_owned();
        let mut values = String::new();
        let mut slots = Vec::new();
        let mut loads = vec![String::new(); width * io.inputs.len()];
        for (k, input) in io.inputs.iter().enumerate() {
            let in_place = self.in_place && k == 0;
            let name = if in_place { "y".to_owned() } else { format!("x{k}") };
            let at = if width > 1 { format!("(i * {width}u)") } else { "i".into() };
            let read = kernels::neighbours(&name, &format!("v{k}"), input, out, width, [&at, "i"]);
            if !in_place {
                slots.push(Slot::input(k));
                let (binding, element) = (slots.len(), read.storage);
                let _ = writeln!(text, "@group(0) @binding({binding}) var<storage, read> {name}: array<{element}>;");
            }
            values.push_str(&read.head);
            for (lane, value) in read.values.into_iter().enumerate() {
                loads[lane * io.inputs.len() + k] = value;
            }
        }
        slots.push(if self.in_place { Slot::InOut { inputs: 0..1, outputs: 0..1 } } else { Slot::output(0) });
        let _ = writeln!(text, "@group(0) @binding({}) var<storage, read_write> y: array<S>;", slots.len());
        let names: Vec<String> = (0..io.inputs.len()).map(|k| format!("a{k}")).collect();
        let parameters: Vec<String> = names.iter().map(|n| format!("{n}: f32")).collect();
        let (body, result) = self.program.wgsl(&names);
        let _ = writeln!(text, "fn f({}) -> f32 {{\n{body}    return {result};\n}}", parameters.join(", "));
        let calls: Vec<String> =
            loads.chunks(io.inputs.len().max(1)).take(width).map(|l| format!("f({})", l.join(", "))).collect();
        let value = if io.inputs.is_empty() { "V(f())".into() } else { format!("V({})", calls.join(", ")) };
        let (fixed, per_sample) = (elements.fixed / width as u64, elements.per_sample / width as u64);
        let _ = write!(
            text,
            "@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {{
    let i = (id.x + id.y * counts.x) * 64u + lane;
    if (i >= {fixed}u + {per_sample}u * step.n) {{ return; }}
{values}    y[i] = pack({value});
}}
"
        );
        let grid = Grid::new(Count { fixed, per_sample }, 64);
        let kernel = kernels::dispatch("elementwise", &kernels::widen(&text, width, profile), &[], grid, slots, None);
        vec![Candidate::single(format!("width{width}"), kernel)]
    }

    fn cost(&self, io: &Io) -> Cost {
        let elements = io.outputs[0].shape.elements();
        let bytes = io.inputs.iter().chain(&io.outputs).fold(Count::default(), |sum, t| {
            let b = t.shape.elements().times(t.dtype.bytes() as u64);
            Count { fixed: sum.fixed + b.fixed, per_sample: sum.per_sample + b.per_sample }
        });
        Cost { flops: elements.times(self.program.instrs.len() as u64), bytes }
    }

    fn accuracy(&self, _io: &Io, _n: usize) -> Vec<Accuracy> {
        vec![self.program.instrs.last().map_or(Accuracy::Exact, |i| i.f.accuracy)]
    }

    fn bounds(&self, _io: &Io, inputs: &[&Array], exact: &[Array], step: &Step) -> Vec<Array> {
        let shape = &exact[0].shape;
        let maps: Vec<Option<Vec<usize>>> = inputs.iter().map(|a| broadcast_strides(shape, &a.shape)).collect();
        let out_strides = strides(shape);
        vec![Array::from_fn(shape.clone(), |i| {
            let operands: Vec<f64> = (inputs.iter().zip(&maps))
                .map(|(a, map)| a.data[map.as_ref().map_or(i, |map| index_at(i, shape, &out_strides, map))])
                .collect();
            self.program.error_bound(&operands, step) + f64::from(f32::MIN_POSITIVE)
        })]
    }

    fn pointwise(&self) -> Option<&Program> {
        (!self.in_place).then_some(&self.program)
    }

    fn in_place(&self, _n_inputs: usize) -> Vec<(usize, usize)> {
        if self.in_place { vec![(0, 0)] } else { Vec::new() }
    }
}

fn result_shape(target: Option<Vec<usize>>, inputs: &[&Array]) -> Vec<usize> {
    let mut shape = target.unwrap_or_default();
    for input in inputs {
        let rank = shape.len().max(input.shape.len());
        let axis = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |k| s[k]);
        shape = (0..rank)
            .map(|i| match (axis(&shape, i), axis(&input.shape, i)) {
                (1, b) => b,
                (a, _) => a,
            })
            .collect();
    }
    shape
}

/// Returns the stride of each axis of `to` in `from`, or `None` where the shapes are equal.
fn broadcast_strides(to: &[usize], from: &[usize]) -> Option<Vec<usize>> {
    if to == from {
        return None;
    }
    let skip = to.len() - from.len();
    let inner = strides(from);
    Some((0..to.len()).map(|i| if i < skip || from[i - skip] == 1 { 0 } else { inner[i - skip] }).collect())
}

fn index_at(i: usize, shape: &[usize], out_strides: &[usize], map: &[usize]) -> usize {
    (0..shape.len()).map(|k| (i / out_strides[k] % shape[k]) * map[k]).sum()
}

const ANY: Fill = Fill::Uniform(-2.0, 2.0);
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

macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident ( $($x:ident),+ );)*) => {
        impl Graph {
            $($(#[$doc])*
            pub fn $name(&mut self, $($x: Value),+) -> Result<Value, OpError> {
                self.function(stringify!($name).trim_end_matches('_'), &[$($x),+])
            })*
        }
    };
}

methods! {
    /// Returns `a + b`, broadcast.
    add(a, b);
    /// Returns `a − b`, broadcast.
    sub(a, b);
    /// Returns `a · b`, broadcast.
    mul(a, b);
    /// Returns `a / b`, broadcast.
    div(a, b);
    /// Returns `−x`.
    neg(x);
    /// Returns `max(x, 0)`.
    relu(x);
    /// Returns the logistic function `1 / (1 + e⁻ˣ)`.
    sigmoid(x);
    /// Returns the hyperbolic tangent.
    tanh(x);
    /// Returns `eˣ`.
    exp(x);
    /// Returns the natural logarithm.
    log(x);
    /// Returns the square root.
    sqrt(x);
    /// Returns `|x|`.
    abs(x);
    /// Returns the larger of `a` and `b`, NaN where one is, broadcast; the gradient goes to `a` where they are equal.
    max(a, b);
    /// Returns the smaller of `a` and `b`, NaN where one is, broadcast; the gradient goes to `a` where they are equal.
    min(a, b);
    /// Returns `aᵇ` for `a` above 0, broadcast; NaN for `a` below 0 and where an operand is NaN.
    pow(a, b);
    /// Returns `a` where `condition` is above 0, else `b`, broadcast; NaN where the condition is NaN.
    where_(condition, a, b);
    /// Returns `min(max(x, 0), 6)`; at 0 and 6 the gradient is 0.
    relu6(x);
    /// Returns `x` above 0, else `slope · x`, broadcast (Keras `PReLU`); at 0 the gradient is the slope.
    prelu(x, slope);
    /// Returns the error function.
    erf(x);
    /// Returns `x · Φ(x)` with the normal distribution Φ (Keras `gelu` with `approximate=False`).
    gelu(x);
    /// Returns `x/2 · (1 + tanh(√(2/π) · (x + 0.044715 · x³)))` (Keras `gelu` with `approximate=True`).
    gelu_tanh(x);
    /// Returns `log(1 + eˣ)`.
    softplus(x);
    /// Returns `x / (1 + |x|)`.
    softsign(x);
    /// Returns `x · tanh(log(1 + eˣ))`.
    mish(x);
    /// Returns `x · sigmoid(x)` (Keras `silu`, `swish`).
    silu(x);
    /// Returns `relu6(x + 3) / 6`.
    hard_sigmoid(x);
    /// Returns `x · relu6(x + 3) / 6`.
    hard_swish(x);
    /// Returns the scaled exponential linear unit (Klambauer et al. 2017).
    selu(x);
}

impl Graph {
    fn function(&mut self, name: &str, inputs: &[Value]) -> Result<Value, OpError> {
        let op = Elementwise::named(name)?;
        self.apply1(op, inputs)
    }

    /// Returns a function of the elementwise table, by name, of one operand.
    pub fn unary(&mut self, name: &str, x: Value) -> Result<Value, OpError> {
        self.function(name, &[x])
    }

    /// Returns a function of the elementwise table, by name, of two operands.
    pub fn binary(&mut self, name: &str, a: Value, b: Value) -> Result<Value, OpError> {
        self.function(name, &[a, b])
    }

    /// Returns a number as a tensor of no axes.
    pub fn constant(&mut self, value: f32) -> Result<Value, OpError> {
        self.apply1(Elementwise::from(Program::constant(value)), &[])
    }

    /// Returns host number `index` of the step record as a tensor of no axes.
    pub fn scalar(&mut self, index: usize) -> Result<Value, OpError> {
        self.apply1(Elementwise::from(Program { n_inputs: 0, instrs: Vec::new(), result: Arg::Scalar(index) }), &[])
    }

    /// Returns one over the number of samples in the batch.
    pub fn inv_batch(&mut self) -> Result<Value, OpError> {
        self.apply1(Elementwise::from(Program { n_inputs: 0, instrs: Vec::new(), result: Arg::InvBatch }), &[])
    }

    /// Returns `x · factor`.
    pub fn scale(&mut self, x: Value, factor: f32) -> Result<Value, OpError> {
        let c = self.constant(factor)?;
        self.mul(x, c)
    }

    /// Returns `x` where it is above 0, else `slope · x` (Keras `LeakyReLU`; slope 0.2 in `ops.leaky_relu`).
    pub fn leaky_relu(&mut self, x: Value, slope: f32) -> Result<Value, OpError> {
        let slope = self.constant(slope)?;
        self.prelu(x, slope)
    }

    /// Returns `x` where it is above 0, else `alpha · (eˣ − 1)` (Keras `elu`, alpha 1).
    pub fn elu(&mut self, x: Value, alpha: f32) -> Result<Value, OpError> {
        let alpha = self.constant(alpha)?;
        self.binary("elu", x, alpha)
    }

    /// Returns `x` held between `low` and `high`; at both the gradient is still 1.
    pub fn clip(&mut self, x: Value, low: f32, high: f32) -> Result<Value, OpError> {
        let (low, high) = (self.constant(low)?, self.constant(high)?);
        self.function("clip", &[x, low, high])
    }

    /// Returns `x` repeated along axes so that it has this shape.
    pub fn expand(&mut self, x: Value, shape: &Shape) -> Result<Value, OpError> {
        if self.shape(x) == shape {
            return Ok(x);
        }
        let op = Elementwise { program: Program::identity(), shape: Some(shape.clone()), in_place: false };
        self.apply1(op, &[x])
    }

    /// Returns `x` summed over the axes along which a tensor of `shape` was repeated to give it.
    pub fn sum_to(&mut self, x: Value, shape: &Shape) -> Result<Value, OpError> {
        let from = self.shape(x).clone();
        if from == *shape {
            return Ok(x);
        }
        let skip = from.rank() - shape.rank();
        let stays = |i: usize| {
            i >= skip
                && from.dims()[i] == shape.dims()[i - skip]
                && (i > 0 || from.is_batched() == (shape.is_batched() && skip == 0))
        };
        let axes: Vec<usize> = (0..from.rank()).filter(|&i| !stays(i)).collect();
        let sum = self.sum(x, &axes, false)?;
        self.reshape(sum, shape.clone())
    }
}

fn sample(rng: &mut Philox) -> Sample {
    let f = &TABLE[rng.below(TABLE.len())];
    sample_of(f, rng)
}

/// Returns a random sample of one row of the table.
pub fn sample_of(f: &'static Elementary, rng: &mut Philox) -> Sample {
    let sizes = [1, 2, 3, 5, 7, 8, 15, 16, 17, 33, 64, 65];
    let capacity = rng.pick(&[1, 2, 3, 5, 8]);
    let full = [Batch, rng.pick(&sizes), rng.pick(&sizes), rng.pick(&[1, 3, 4, 6, 16])];
    let mut inputs = Vec::new();
    for k in 0..f.arity {
        let shape = match if k == 0 { 0 } else { rng.below(5) } {
            0 | 1 => Shape::from(full),
            2 => Shape::fixed([full[3]]),
            3 => Shape::scalar(),
            _ => Shape::from([Batch, 1, full[2], 1]),
        };
        inputs.push((TensorType::f32(shape), f.domain[k]));
    }
    let n = 1 + rng.below(capacity);
    Sample::new(Elementwise::from(Program::of(f)), inputs, capacity).with_n(n)
}

fn benches() -> Vec<(&'static str, Sample)> {
    let big = || TensorType::f32([Batch, 56, 56, 64]);
    let op = |name| Elementwise::named(name).unwrap_or_else(|_| Program::identity().into());
    vec![
        ("gelu_n8_c64_56", Sample::new(op("gelu"), vec![(big(), ANY)], 8)),
        ("relu_n8_c64_56", Sample::new(op("relu"), vec![(big(), ANY)], 8)),
        ("add_n8_c64_56", Sample::new(op("add"), vec![(big(), ANY), (big(), ANY)], 8)),
        ("bias_n8_c64_56", Sample::new(op("add"), vec![(big(), ANY), (TensorType::f32([64]), ANY)], 8)),
    ]
}

/// The elementwise table as a family.
pub static FAMILY: Family = Family {
    name: "elementwise",
    about: "functions of single elements with NumPy broadcasting, fused into chains and epilogues (ONNX)",
    sample,
    benches,
    bad: &[
        Bad {
            what: "shapes that do not broadcast",
            build: |g| {
                let a = g.input("a", [Batch, 3], DType::F32);
                let b = g.input("b", [Batch, 4], DType::F32);
                g.add(a, b)
            },
        },
        Bad {
            what: "one operand for a function of two",
            build: |g| {
                let a = g.input("a", [Batch, 3], DType::F32);
                g.unary("prelu", a)
            },
        },
        Bad {
            what: "an unknown function",
            build: |g| {
                let a = g.input("a", [Batch, 3], DType::F32);
                g.unary("no_such_function", a)
            },
        },
    ],
    faults: &[
        Fault { what: "skips the last tile", from: "* step.n) { return; }", to: "* step.n - 1u) { return; }" },
        Fault { what: "erf without its series", from: "let near = x * (1.1283791", to: "let near = x * (1.128" },
        Fault { what: "softplus with a short series", from: "0.33333333 + q * (0.2", to: "0.33333333 + q * (0.21" },
        Fault { what: "relu6 ends at 5", from: ", 0.0, 6.0)", to: ", 0.0, 5.0)" },
        Fault { what: "adds instead of multiplying", from: "(a0 * a1)", to: "(a0 + a1)" },
    ],
    differentiable: true,
    gradcheck: 1e-6,
};
