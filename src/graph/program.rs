use super::{Gradients, Graph, Step, Value};
use crate::tensor::Accuracy;
use std::fmt;

/// Builds the gradients of an elementary function to its operands, from the operands, its result and the gradient to
/// the result.
pub type ElementaryGrad = fn(&mut Graph, &[Value], Value, Value) -> Gradients;

/// A function of up to three numbers: one row of the elementwise table.
pub struct Elementary {
    /// Name in the graph's text, as in ONNX.
    pub name: &'static str,
    /// Number of operands.
    pub arity: usize,
    /// WGSL expression over `$a`, `$b`, `$c`.
    pub wgsl: &'static str,
    /// The definition.
    pub eval: fn(f64, f64, f64) -> f64,
    /// The gradient.
    pub grad: ElementaryGrad,
    /// How exact the WGSL is.
    pub accuracy: Accuracy,
    /// Whether no result is below 0.
    pub positive: bool,
    /// How samples fill each operand.
    pub domain: [super::Fill; 3],
}

impl Elementary {
    /// Returns the WGSL of the function for operands that are names.
    fn expression(&self, operands: &[String]) -> String {
        let mut pieces = self.wgsl.split('$');
        let mut text = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let operand = piece.bytes().next().map(|mark| usize::from(mark.wrapping_sub(b'a')));
            text.push_str(operand.and_then(|i| operands.get(i)).map_or("", String::as_str));
            text.push_str(piece.get(1..).unwrap_or_default());
        }
        text
    }
}

impl fmt::Debug for Elementary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Elementary {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// An operand of an instruction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arg {
    /// The program's input.
    Input(usize),
    /// The result of an earlier instruction.
    Instr(usize),
    /// A number.
    Const(f32),
    /// A host number of the step record.
    Scalar(usize),
    /// One over the number of samples in the batch.
    InvBatch,
}

/// One application of an elementary function.
#[derive(Debug, Clone, PartialEq)]
pub struct Instr {
    /// The function.
    pub f: &'static Elementary,
    /// Its operands.
    pub args: Vec<Arg>,
}

/// A straight-line elementwise program of one result.
///
/// ```
/// use hubel::graph::{Arg, Program};
/// assert_eq!(Program::constant(2.0).result, Arg::Const(2.0));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    /// Number of inputs.
    pub n_inputs: usize,
    /// Instructions in order.
    pub instrs: Vec<Instr>,
    /// The result.
    pub result: Arg,
}

impl Program {
    /// Returns the program that applies one function to its inputs.
    pub fn of(f: &'static Elementary) -> Self {
        let args = (0..f.arity).map(Arg::Input).collect();
        Program { n_inputs: f.arity, instrs: vec![Instr { f, args }], result: Arg::Instr(0) }
    }

    /// Returns the program that returns its only input.
    pub fn identity() -> Self {
        Program { n_inputs: 1, instrs: Vec::new(), result: Arg::Input(0) }
    }

    /// Returns the program without inputs that returns a number.
    pub fn constant(value: f32) -> Self {
        Program { n_inputs: 0, instrs: Vec::new(), result: Arg::Const(value) }
    }

    /// Returns whether the last step is a function whose results are never below 0.
    pub fn is_positive(&self) -> bool {
        matches!(self.result, Arg::Instr(i) if self.instrs.get(i).is_some_and(|i| i.f.positive))
    }

    /// Returns the result for these inputs in 64-bit floats.
    pub fn eval(&self, inputs: &[f64], step: &Step) -> f64 {
        let mut values = [0.0f64; 64];
        let mut long;
        let values = if self.instrs.len() <= 64 {
            &mut values[..]
        } else {
            long = vec![0.0; self.instrs.len()];
            &mut long[..]
        };
        let get = |values: &[f64], arg: Arg| match arg {
            Arg::Input(i) => inputs[i],
            Arg::Instr(i) => values[i],
            Arg::Const(c) => f64::from(c),
            Arg::Scalar(i) => f64::from(step.scalars[i]),
            Arg::InvBatch => 1.0 / step.n.max(1) as f64,
        };
        for (i, instr) in self.instrs.iter().enumerate() {
            let operand = |k: usize| instr.args.get(k).map_or(0.0, |&a| get(values, a));
            values[i] = (instr.f.eval)(operand(0), operand(1), operand(2));
        }
        get(values, self.result)
    }

    /// Returns whether the result is 0 wherever these inputs are, whatever numbers the others are.
    pub fn keeps_zero(&self, zeros: &dyn Fn(usize) -> bool) -> bool {
        let any = [f64::NEG_INFINITY, -2.0, -0.0, 0.0, 0.5, 3.0, f64::INFINITY];
        let mut known: Vec<Option<f64>> = Vec::with_capacity(self.instrs.len());
        let get = |known: &[Option<f64>], arg: Arg| match arg {
            Arg::Input(i) => zeros(i).then_some(0.0),
            Arg::Instr(i) => known[i],
            Arg::Const(c) => Some(f64::from(c)),
            Arg::Scalar(_) | Arg::InvBatch => None,
        };
        for instr in &self.instrs {
            let operand = |k: usize| match instr.args.get(k) {
                Some(&arg) => get(&known, arg).map_or(any.to_vec(), |value| vec![value]),
                None => vec![0.0],
            };
            let [a, b, c] = [operand(0), operand(1), operand(2)];
            let of_c = |a: f64, b: f64| c.iter().map(move |&c| (instr.f.eval)(a, b, c)).collect::<Vec<f64>>();
            let results = a.iter().flat_map(|&a| b.iter().flat_map(move |&b| of_c(a, b)));
            let mut results = results.collect::<Vec<f64>>().into_iter();
            let first = results.next().filter(|&first| results.all(|result| result == first));
            known.push(first);
        }
        get(&known, self.result) == Some(0.0)
    }

    /// Returns an upper bound of the 32-bit error of the result, by following the error of each
    /// instruction through the ones after it.
    pub fn error_bound(&self, inputs: &[f64], step: &Step) -> f64 {
        let mut values: Vec<(f64, f64)> = Vec::with_capacity(self.instrs.len());
        let get = |values: &[(f64, f64)], arg: Arg| match arg {
            Arg::Input(i) => (inputs[i], 0.0),
            Arg::Instr(i) => values[i],
            Arg::Const(c) => (f64::from(c), 0.0),
            Arg::Scalar(i) => (f64::from(step.scalars[i]), 0.0),
            Arg::InvBatch => (1.0 / step.n.max(1) as f64, crate::tensor::ulp(1.0 / step.n.max(1) as f64)),
        };
        for instr in &self.instrs {
            let operands: Vec<(f64, f64)> = instr.args.iter().map(|&a| get(&values, a)).collect();
            let x = |k: usize, sign: f64| operands.get(k).map_or(0.0, |&(v, e)| v + sign * e);
            let exact = (instr.f.eval)(x(0, 0.0), x(1, 0.0), x(2, 0.0));
            let carried = (0..operands.len())
                .filter(|&k| operands[k].1 > 0.0)
                .map(|k| {
                    let moved = |sign: f64| {
                        let at = |j: usize| x(j, if j == k { sign } else { 0.0 });
                        ((instr.f.eval)(at(0), at(1), at(2)) - exact).abs()
                    };
                    1.5 * moved(1.0).max(moved(-1.0))
                })
                .sum::<f64>();
            let plain: Vec<f64> = operands.iter().map(|o| o.0).collect();
            values.push((exact, carried + instr.f.accuracy.bound(&plain, exact, exact)));
        }
        get(&values, self.result).1
    }

    /// Returns the WGSL expression of each instruction, whose result is named `t0`, `t1`, …, and the name of the program's result.
    /// Inputs are names, too.
    pub fn wgsl(&self, inputs: &[String]) -> (Vec<String>, String) {
        let name = |arg: Arg| match arg {
            Arg::Input(i) => inputs[i].clone(),
            Arg::Instr(i) => format!("t{i}"),
            Arg::Const(c) => wgsl_f32(c),
            Arg::Scalar(i) => format!("step.scalars[{}][{}]", i / 4, i % 4),
            Arg::InvBatch => "step.inv_n".into(),
        };
        let instr = |instr: &Instr| {
            let factor = |arg| arg == Arg::Const(0.0) && instr.f.name == "mul";
            let args: Vec<String> =
                instr.args.iter().map(|&arg| if factor(arg) { "step.zero".into() } else { name(arg) }).collect();
            instr.f.expression(&args)
        };
        (self.instrs.iter().map(instr).collect(), name(self.result))
    }

    /// Returns the statements as text.
    pub fn wgsl_text(&self, inputs: &[String]) -> (String, String) {
        let (lines, result) = self.wgsl(inputs);
        (lines.iter().enumerate().map(|(i, t)| format!("    let t{i} = {t};\n")).collect(), result)
    }

    /// Returns this program with its input `at` computed by `producer`.
    ///
    /// The inputs of the result are this program's without `at`, followed by the producer's.
    pub fn compose(&self, at: usize, producer: &Program) -> Program {
        let shift = producer.instrs.len();
        let from = self.n_inputs - 1;
        let inner = |arg: Arg| match arg {
            Arg::Input(i) => Arg::Input(from + i),
            other => other,
        };
        let outer = |arg: Arg| match arg {
            Arg::Input(i) if i == at => inner(producer.result),
            Arg::Input(i) if i > at => Arg::Input(i - 1),
            Arg::Instr(i) => Arg::Instr(i + shift),
            other => other,
        };
        let mut instrs = Vec::with_capacity(shift + self.instrs.len());
        let mapped = |instr: &Instr, f: &dyn Fn(Arg) -> Arg| Instr {
            f: instr.f,
            args: instr.args.iter().map(|&a| f(a)).collect(),
        };
        instrs.extend(producer.instrs.iter().map(|i| mapped(i, &inner)));
        instrs.extend(self.instrs.iter().map(|i| mapped(i, &outer)));
        Program { n_inputs: from + producer.n_inputs, instrs, result: outer(self.result) }
    }

    /// Returns the program with input `i` mapped to `map[i]`, for `n_inputs` inputs.
    pub fn remap(&self, map: &[usize], n_inputs: usize) -> Program {
        let arg = |a: Arg| match a {
            Arg::Input(i) => Arg::Input(map[i]),
            other => other,
        };
        let instrs =
            (self.instrs.iter()).map(|i| Instr { f: i.f, args: i.args.iter().map(|&a| arg(a)).collect() }).collect();
        Program { n_inputs, instrs, result: arg(self.result) }
    }
}

/// Returns a WGSL literal of exactly this number.
pub fn wgsl_f32(c: f32) -> String {
    if c == c.trunc() && c.abs() < 1e6 { format!("{c:.1}") } else { format!("bitcast<f32>({:#x}u)", c.to_bits()) }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |arg: Arg| match arg {
            Arg::Input(i) => format!("x{i}"),
            Arg::Instr(i) => format!("t{i}"),
            Arg::Const(c) => format!("{c:?}"),
            Arg::Scalar(i) => format!("s{i}"),
            Arg::InvBatch => "1/n".into(),
        };
        for (i, instr) in self.instrs.iter().enumerate() {
            let args: Vec<String> = instr.args.iter().map(|&a| name(a)).collect();
            write!(f, "{}t{i}={}({})", if i > 0 { ";" } else { "" }, instr.f.name, args.join(","))?;
        }
        match self.result {
            Arg::Instr(i) if i + 1 == self.instrs.len() => Ok(()),
            other => write!(f, ";{}", name(other)),
        }
    }
}
