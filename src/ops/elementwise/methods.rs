//! The functions as methods of the graph.

use super::op::Elementwise;
use crate::{
    graph::{Arg, Graph, OpError, Program, Value},
    tensor::Shape,
};

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
        let op = Elementwise { shape: Some(shape.clone()), ..Program::identity().into() };
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
