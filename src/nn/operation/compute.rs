//! What each operation computes, as methods of the graph.

use super::*;
use crate::nn::{Activation, layers};

impl Call<'_, '_> {
    /// Returns the operation's results, or an error for an argument that has no effect here.
    pub(super) fn results(mut self) -> Result<Vec<Value>, OpError> {
        let results = match self.operation.class {
            "Split" => self.split()?,
            "Unstack" => self.unstack()?,
            _ => vec![self.result()?],
        };
        let read = self.read.into_inner();
        match self.operation.arguments.iter().find(|(key, value)| !value.is_null() && !read.contains(key.as_str())) {
            None => Ok(results),
            Some((key, value)) => {
                let (wanted, got) = (format!("no `{key}`"), shortened(value));
                Err(self.operation.wrong(&wanted, got, "leave it out: it is not supported"))
            }
        }
    }

    fn result(&mut self) -> Result<Value, OpError> {
        let class = self.operation.class;
        if let Some(activation) = self.activation()? {
            let x = self.only()?;
            return activation.apply(self.scope, x);
        }
        if let Some(name) = function(class) {
            return match self.operation.call {
                [a, b] => {
                    let (a, b) = (self.operand(a)?, self.operand(b)?);
                    self.graph().binary(name, a, b)
                }
                _ => {
                    let x = self.only()?;
                    self.graph().unary(name, x)
                }
            };
        }
        match class {
            "Copy" | "Cast" => self.cast(),
            "Power" => self.power(),
            "Clip" => {
                let x = self.only()?;
                let (low, high) = (self.number("x_min", f32::MIN), self.number("x_max", f32::MAX));
                self.graph().clip(x, low, high)
            }
            "Where" => {
                let [condition, a, b] = ["condition", "x1", "x2"].map(|name| self.operand(name));
                let (condition, a, b) = (condition?, a?, b?);
                self.graph().where_(condition, a, b)
            }
            "Matmul" => self.matmul(),
            "Einsum" => self.einsum(),
            "Softmax" => {
                let (x, axis) = (self.only()?, self.argument("axis").as_i64().unwrap_or(-1) as isize);
                Ok(layers::SoftmaxLayer::new(axis).build(self.scope, &[x])?.swap_remove(0))
            }
            "LeakyRelu" => {
                let (x, slope) = (self.only()?, self.number("negative_slope", 0.2));
                self.graph().leaky_relu(x, slope)
            }
            "Elu" | "Celu" => {
                let (x, alpha) = (self.only()?, self.number("alpha", 1.0));
                if class == "Celu" && alpha != 1.0 {
                    return Err(self.operation.wrong("alpha 1", alpha, "use elu"));
                }
                self.graph().elu(x, alpha)
            }
            "Mean" | "Average" | "Sum" | "Any" | "Max" | "Amax" | "Min" | "Amin" | "Prod" | "Var" | "Std"
            | "Logsumexp" => self.reduced(),
            "Normalize" => self.normalized(),
            "AveragePool" | "MaxPool" => self.pooled(),
            "Log2" | "Log10" | "Log1p" | "Expm1" | "Reciprocal" | "OnesLike" | "ZerosLike" | "LogicalNot" => {
                self.of_number()
            }
            "Mod" | "FloorDivide" | "DivideNoNan" => self.quotient(),
            "Argmax" | "Cumsum" | "OneHot" | "Round" => self.along(),
            _ => self.rearranged(),
        }
    }

    /// Returns what depends on places along an axis, and rounded numbers.
    fn along(&mut self) -> Result<Value, OpError> {
        match self.operation.class {
            "Argmax" => {
                let x = self.only()?;
                let (axis, keep) = (self.axis("axis", self.rank(x), -1)?, self.flag("keepdims"));
                let y = self.graph().argmax(x, axis)?;
                if keep { self.with_axes(y, &[axis]) } else { Ok(y) }
            }
            "OneHot" => {
                let (x, n) = (self.only()?, self.argument("num_classes").as_u64().unwrap_or(0) as usize);
                let last = self.argument("axis").as_i64().unwrap_or(-1) == -1;
                self.read.borrow_mut().insert("dtype".to_owned());
                if !(1..=1 << 20).contains(&n) || !last || self.flag("sparse") {
                    return Err(self.operation.wrong("classes along the last axis", n, "transpose the result"));
                }
                let x = self.with_axes(x, &[self.rank(x)])?;
                let classes = self.graph().literal([n], (0..n).map(|i| i as f32).collect::<Vec<_>>())?;
                self.graph().binary("equal", x, classes)
            }
            "Cumsum" => {
                let x = self.only()?;
                let (axis, last) = (self.axis("axis", self.rank(x), 0)?, self.rank(x) - 1);
                let mut order: Vec<usize> = (0..=last).collect();
                order.swap(axis, last);
                let g = self.graph();
                let n = g.shape(x).dims()[axis];
                if n > 1 << 11 {
                    return Err(self.operation.wrong("an axis of at most 2048", n, "sum in two steps"));
                }
                let upper: Vec<f32> = (0..n * n).map(|i| f32::from(u8::from(i / n <= i % n))).collect();
                let (x, upper) = (g.transpose(x, &order)?, g.literal([n, n], upper)?);
                let y = g.project(x, upper, None)?;
                g.transpose(y, &order)
            }
            _ => {
                let x = self.only()?;
                if self.number("decimals", 0.0) != 0.0 {
                    return Err(self.operation.wrong(
                        "decimals 0",
                        self.argument("decimals"),
                        "scale before and after",
                    ));
                }
                self.graph().unary("round", x)
            }
        }
    }

    /// Returns the activation that the operation is, with its options.
    fn activation(&mut self) -> Result<Option<Activation>, OpError> {
        let usual = |key: &str, value: f32| self.number(key, value) == value;
        let (activation, fits) = match self.operation.class {
            "LogSoftmax" => (Activation::LogSoftmax, usual("axis", -1.0)),
            "LogSigmoid" => (Activation::LogSigmoid, true),
            "HardTanh" => (Activation::HardTanh, true),
            "TanhShrink" => (Activation::TanhShrink, true),
            "SoftShrink" => (Activation::SoftShrink, usual("threshold", 0.5)),
            "HardShrink" => (Activation::HardShrink, usual("threshold", 0.5)),
            "SparsePlus" => (Activation::SparsePlus, true),
            "SparseSigmoid" => (Activation::SparseSigmoid, true),
            "Squareplus" => (Activation::Squareplus, usual("b", 4.0)),
            "Glu" => (Activation::Glu, usual("axis", -1.0)),
            "Gelu" if self.flag("approximate") || self.argument("approximate").is_null() => return Ok(None),
            "Gelu" => (Activation::Gelu, true),
            _ => return Ok(None),
        };
        match fits {
            true => Ok(Some(activation)),
            false => Err(self.operation.wrong("the usual options", "others", "build the function from operations")),
        }
    }

    /// Returns the operand as numbers of a type: whole ones are rounded towards 0.
    fn cast(&mut self) -> Result<Value, OpError> {
        let x = self.only()?;
        let dtype = self.argument("dtype").as_str().unwrap_or("float32").to_owned();
        if dtype.starts_with("float") || dtype == "bfloat16" || self.operation.class == "Copy" {
            let shape = self.graph().shape(x).clone();
            return match self.graph().ty(x).dtype {
                crate::tensor::DType::F32 => Ok(x),
                _ => self.graph().scale(x, 1.0).and_then(|y| self.graph().expand(y, &shape)),
            };
        }
        if dtype == "bool" {
            let zero = self.graph().constant(0.0)?;
            return self.graph().binary("not_equal", x, zero);
        }
        if !dtype.starts_with("int") {
            return Err(self.operation.wrong("a type of floats, int8 to int64 or bool", dtype, "cast to float32"));
        }
        let (sign, size) = (self.graph().unary("sign", x)?, self.graph().abs(x)?);
        let whole = self.graph().unary("floor", size)?;
        self.graph().mul(sign, whole)
    }

    /// Returns a power: of whole exponents by products, since others want a base above 0.
    fn power(&mut self) -> Result<Value, OpError> {
        let exponent = self.argument("x2").as_f64();
        let base = self.operand("x1")?;
        match exponent {
            Some(0.5) => self.graph().sqrt(base),
            Some(n) if n.fract() == 0.0 && (1.0..=16.0).contains(&n.abs()) => {
                let mut y = base;
                for _ in 1..n.abs() as usize {
                    y = self.graph().mul(y, base)?;
                }
                if n > 0.0 {
                    return Ok(y);
                }
                let one = self.graph().constant(1.0)?;
                self.graph().div(one, y)
            }
            _ => {
                let exponent = self.operand("x2")?;
                self.graph().pow(base, exponent)
            }
        }
    }

    /// Returns the sums of products of two tensors that an equation names: one product of matrices for each of the axes
    /// that all three have.
    fn einsum(&mut self) -> Result<Value, OpError> {
        let (a, b) = (self.operand("x1")?, self.operand("x2")?);
        let text = self.argument("subscripts").as_str().unwrap_or_default().replace(' ', "");
        let parts = text.split_once("->").and_then(|(from, to)| Some((from.split_once(',')?, to)));
        let ((left, right), to) = parts.unwrap_or_default();
        let [left, right, to] = [left, right, to].map(|part| part.chars().collect::<Vec<_>>());
        let all = |names: &[char], with: &[char], kept: bool| -> Vec<char> {
            names.iter().copied().filter(|n| with.contains(n) && to.contains(n) == kept).collect()
        };
        let alone = |names: &[char], without: &[char]| -> Vec<char> {
            names.iter().copied().filter(|n| !without.contains(n)).collect()
        };
        let (shared, summed) = (all(&left, &right, true), all(&left, &right, false));
        let (rows, columns) = (alone(&left, &right), alone(&right, &left));
        let result = [&shared[..], &rows, &columns].concat();
        let once =
            |names: &[char]| (1..names.len()).all(|i| names[i].is_alphabetic() && !names[..i].contains(&names[i]));
        let batch = [&left, &right, &to].map(|names| names.first());
        let fits = batch[0].is_some_and(|n| n.is_alphabetic() && batch == [Some(n); 3])
            && [&left, &right, &to].iter().all(|names| once(names))
            && [left.len(), right.len()] == [self.rank(a), self.rank(b)]
            && result.len() == to.len()
            && result.iter().all(|n| to.contains(n));
        if !fits {
            let wanted = "two tensors whose first axis is the batch, such as abc,acd->abd";
            return Err(self.operation.wrong(wanted, text, "use matmul, transpose and sum"));
        }
        let g = self.graph();
        let (x, y) = (g.shape(a).clone(), g.shape(b).clone());
        let extent = |names: &[char], name: &char| names.iter().position(|n| n == name).unwrap_or(0);
        let of_x = |names: &[char]| names.iter().map(|n| x.dims()[extent(&left, n)]).collect::<Vec<_>>();
        let of_y = |names: &[char]| names.iter().map(|n| y.dims()[extent(&right, n)]).collect::<Vec<_>>();
        if of_x(&shared[1..]) != of_y(&shared[1..]) || of_x(&summed) != of_y(&summed) {
            let got = format!("{x} and {y}");
            return Err(self.operation.wrong("equal extents of an axis of both", got, "name other axes"));
        }
        let order = |from: &[char], parts: [&[char]; 3]| -> Vec<usize> {
            parts.concat().iter().map(|n| extent(from, n)).collect()
        };
        let stack: usize = of_x(&shared[1..]).iter().product();
        let [m, k, n] = [of_x(&rows), of_x(&summed), of_y(&columns)].map(|dims| dims.iter().product::<usize>());
        let g = self.graph();
        let a = g.transpose(a, &order(&left, [&shared, &rows, &summed]))?;
        let b = g.transpose(b, &order(&right, [&shared, &summed, &columns]))?;
        let a = g.reshape(a, crate::tensor::Shape::batched(stack, &[m, k]))?;
        let b = g.reshape(b, crate::tensor::Shape::batched(stack, &[k, n]))?;
        let product = g.matmul(a, b)?;
        let row = [of_x(&shared[1..]), of_x(&rows), of_y(&columns)].concat();
        let product = g.reshape(product, x.with_row(&row))?;
        let back: Vec<usize> = to.iter().map(|name| extent(&result, name)).collect();
        g.transpose(product, &back)
    }

    /// Returns the product of matrices, or of each sample's along the last axes.
    fn matmul(&mut self) -> Result<Value, OpError> {
        let (mut a, mut b) = (self.operand("x1")?, self.operand("x2")?);
        for (x, flag) in [(&mut a, "transpose_a"), (&mut b, "transpose_b")] {
            let rank = self.rank(*x);
            if self.flag(flag) && rank > 1 {
                let order: Vec<usize> = (0..rank - 2).chain([rank - 1, rank - 2]).collect();
                *x = self.graph().transpose(*x, &order)?;
            }
        }
        let g = self.graph();
        let (left, right) = (g.shape(a).clone(), g.shape(b).clone());
        if !right.is_batched() && right.rank() == 2 {
            return g.project(a, b, None);
        }
        let [outer, stack] = [&left, &right].map(|s| s.rank().saturating_sub(2));
        if outer < 2 || stack != outer || left.dims()[..outer] != right.dims()[..outer] {
            return g.matmul(a, b);
        }
        // Heads and the like become rows of the batch.
        let flat = |shape: &crate::tensor::Shape| {
            let rows = shape.dims()[..outer].iter().product();
            crate::tensor::Shape::batched(rows, &shape.dims()[outer..])
        };
        let (a, b) = (g.reshape(a, flat(&left))?, g.reshape(b, flat(&right))?);
        let y = g.matmul(a, b)?;
        let row = [&left.dims()[1..left.rank() - 1], &[right.last()]].concat();
        g.reshape(y, left.with_row(&row))
    }

    fn reduced(&mut self) -> Result<Value, OpError> {
        let x = self.only()?;
        let (axes, keep) = (self.axes("axis", self.rank(x))?, self.flag("keepdims"));
        let class = self.operation.class;
        let g = self.graph();
        match class {
            "Mean" | "Average" => g.mean_axes(x, &axes, keep),
            "Sum" => g.sum(x, &axes, keep),
            "Any" | "Max" | "Amax" => g.max_axes(x, &axes, keep),
            "Min" | "Amin" => g.min_axes(x, &axes, keep),
            "Prod" => g.prod(x, &axes, keep),
            "Logsumexp" => {
                let top = g.max_axes(x, &axes, true)?;
                let below = g.sub(x, top)?;
                let powers = g.exp(below)?;
                let sum = g.sum(powers, &axes, true)?;
                let log = g.log(sum)?;
                let y = g.add(log, top)?;
                if keep { Ok(y) } else { g.max_axes(y, &axes, false) }
            }
            _ => {
                let mean = g.mean_axes(x, &axes, true)?;
                let off = g.sub(x, mean)?;
                let square = g.unary("square", off)?;
                let variance = g.mean_axes(square, &axes, keep)?;
                if class == "Var" { Ok(variance) } else { g.sqrt(variance) }
            }
        }
    }

    /// Returns the operand over its Euclidean length along axes.
    fn normalized(&mut self) -> Result<Value, OpError> {
        let x = self.only()?;
        let axes = match self.argument("axis") {
            Json::Null => vec![self.rank(x) - 1],
            _ => self.axes("axis", self.rank(x))?,
        };
        let (order, epsilon) = (self.number("order", 2.0), self.argument("epsilon").as_f64().unwrap_or(1e-12));
        if order != 2.0 {
            return Err(self.operation.wrong("order 2", order, "divide by the norm that you want"));
        }
        let g = self.graph();
        let sum = g.sum_squares(x, &axes, true)?;
        // Epsilon squared may be below the smallest f32.
        let least = g.constant((epsilon * epsilon).max(f64::from(f32::MIN_POSITIVE)) as f32)?;
        let held = g.max(sum, least)?;
        let length = g.sqrt(held)?;
        g.div(x, length)
    }

    fn pooled(&mut self) -> Result<Value, OpError> {
        let x = self.only()?;
        let mut config = self.operation.arguments.clone();
        self.read.borrow_mut().extend(config.keys().cloned());
        config.remove("inputs");
        config.retain(|_, value| !value.is_null());
        let error = |e: serde_json::Error| self.operation.wrong("options of pooling", e, "use a pooling layer");
        let options = Json::Object(config);
        let layer: Box<dyn Layer> = match self.operation.class {
            "MaxPool" => Box::new(serde_json::from_value::<layers::MaxPooling2D>(options).map_err(error)?),
            _ => Box::new(serde_json::from_value::<layers::AveragePooling2D>(options).map_err(error)?),
        };
        Ok(layer.build(self.scope, &[x])?.swap_remove(0))
    }

    fn of_number(&mut self) -> Result<Value, OpError> {
        let x = self.only()?;
        let class = self.operation.class;
        let g = self.graph();
        let (zero, one) = (g.constant(0.0)?, g.constant(1.0)?);
        match class {
            "Log2" | "Log10" => {
                let log = g.log(x)?;
                let base = if class == "Log2" { std::f32::consts::LN_2 } else { std::f32::consts::LN_10 };
                g.scale(log, 1.0 / base)
            }
            "Log1p" => {
                let sum = g.add(x, one)?;
                g.log(sum)
            }
            "Expm1" => {
                let power = g.exp(x)?;
                g.sub(power, one)
            }
            "Reciprocal" => g.div(one, x),
            "LogicalNot" => g.binary("equal", x, zero),
            _ => {
                let shape = g.shape(x).clone();
                g.expand(if class == "OnesLike" { one } else { zero }, &shape)
            }
        }
    }

    fn quotient(&mut self) -> Result<Value, OpError> {
        let (a, b) = (self.operand("x1")?, self.operand("x2")?);
        let class = self.operation.class;
        let g = self.graph();
        let quotient = g.div(a, b)?;
        if class == "DivideNoNan" {
            let zero = g.constant(0.0)?;
            let defined = g.binary("not_equal", b, zero)?;
            return g.where_(defined, quotient, zero);
        }
        let whole = g.unary("floor", quotient)?;
        if class == "FloorDivide" {
            return Ok(whole);
        }
        let product = g.mul(whole, b)?;
        g.sub(a, product)
    }
}

/// Returns the elementwise function that a class is.
fn function(class: &str) -> Option<&'static str> {
    Some(match class {
        "Absolute" | "Abs" => "abs",
        "Add" => "add",
        "Ceil" => "ceil",
        "Cos" => "cos",
        "Divide" | "TrueDivide" => "div",
        "Equal" => "equal",
        "Erf" => "erf",
        "Exp" => "exp",
        "Floor" => "floor",
        "Gelu" => "gelu_tanh",
        "Greater" => "greater",
        "GreaterEqual" => "greater_equal",
        "HardSigmoid" => "hard_sigmoid",
        "HardSilu" => "hard_swish",
        "Less" => "less",
        "LessEqual" => "less_equal",
        "Log" => "log",
        "LogicalAnd" => "mul",
        "LogicalOr" | "Maximum" => "max",
        "Minimum" => "min",
        "Multiply" => "mul",
        "Negative" => "neg",
        "NotEqual" => "not_equal",
        "Relu" => "relu",
        "Relu6" => "relu6",
        "Rsqrt" => "rsqrt",
        "Selu" => "selu",
        "Sigmoid" => "sigmoid",
        "Sign" => "sign",
        "Silu" => "silu",
        "Sin" => "sin",
        "Softplus" => "softplus",
        "Softsign" => "softsign",
        "Sqrt" => "sqrt",
        "Square" => "square",
        "Subtract" => "sub",
        "Tanh" => "tanh",
        _ => return None,
    })
}
