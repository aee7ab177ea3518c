//! Local response normalisation across channels and its gradient.

use super::{arity::arity, conv2d::ANY};
use crate::{
    graph::{
        Bad, Candidate, Cost, DeviceClass, DeviceProfile, Epilogue, Family, Fill, Gradients, Graph, Grid, Io, Op,
        OpError, Sample, Slot, Step, TensorType, Value,
    },
    kernels::{Buffer, Core, Expr, Finish, Kernel, Layout, Schedule, Stored, Type},
    tensor::{Accuracy, Array, Batch, DType, Philox, UNIT, ulp},
};

/// Local response normalisation (Krizhevsky et al. 2012; ONNX LRN): `y[c] = x[c] · s[c]^−beta` with
/// `s[c] = bias + alpha / size · Σ x[j]²` over the `size` channels j from c − ⌊(size − 1) / 2⌋ on that exist.
///
/// AlexNet has size 5, alpha 5e-4 (1e-4 without the division by the size), beta 0.75, bias 2.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LocalResponseNorm {
    /// Channels that are summed.
    pub size: usize,
    /// Factor of the mean square.
    pub alpha: f32,
    /// Exponent.
    pub beta: f32,
    /// What is added to the mean square.
    pub bias: f32,
}

/// Gradient of [`LocalResponseNorm`]: inputs x and dy, output dx.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LocalResponseNormGrad {
    /// The normalisation.
    pub norm: LocalResponseNorm,
}

const MOST: usize = 64;

impl LocalResponseNorm {
    fn check(&self, op: &str, x: &TensorType) -> Result<(), OpError> {
        if x.dtype != DType::F32 || x.shape.rank() < 2 || x.shape.last() == 0 {
            return Err(OpError::new(op, "f32 of rank 2 or more, channels last", x, "reshape or convert it"));
        }
        let Self { size, alpha, beta, bias } = *self;
        let positive = alpha >= 0.0 && bias > 0.0 && [alpha, beta, bias].iter().all(|v| v.is_finite());
        if !(1..=MOST).contains(&size) || !positive {
            let wanted = format!("1 to {MOST} channels, an alpha from 0 and a bias above 0");
            return Err(OpError::new(op, wanted, format!("{self:?}"), "AlexNet has 5, 5e-4 and 2, and a beta of 0.75"));
        }
        Ok(())
    }

    /// Returns how many channels before its own a result sees, and behind.
    fn reach(&self) -> (usize, usize) {
        let before = (self.size - 1) / 2;
        (before, self.size - 1 - before)
    }

    fn share(&self) -> f64 {
        f64::from(self.alpha) / self.size as f64
    }

    /// Returns s for each element.
    fn sums(&self, x: &Array) -> Vec<f64> {
        let c = x.shape.last().copied().unwrap_or(1).max(1);
        let (before, behind) = self.reach();
        (0..x.data.len())
            .map(|i| {
                let (row, k) = (i / c * c, i % c);
                let squares = (k.saturating_sub(before)..(k + behind + 1).min(c)).map(|j| x.data[row + j].powi(2));
                f64::from(self.bias) + self.share() * squares.sum::<f64>()
            })
            .collect()
    }

    /// Returns the relative error of s^−`power`: s has rounded terms, then come logarithm and exponential.
    fn power_error(&self, s: f64, power: f64) -> f64 {
        let log = if (0.5..=2.0).contains(&s) { 2f64.powi(-21) } else { 3.0 * ulp(s.ln()) };
        power * (log + (self.size + 8) as f64 * UNIT) + (8.0 + 2.0 * (power * s.ln()).abs()) * 2.0 * UNIT
    }

    /// Returns a kernel whose lanes do strips of channels, loading each channel once. `body` returns the results of so many
    /// channels; it gets what loads `n` channels of an input from `before` in front of the strip on.
    fn candidate(
        &self,
        name: &'static str,
        io: &Io,
        profile: &DeviceProfile,
        epilogue: Option<&Epilogue>,
        body: impl Fn(&mut Kernel, usize, &Load) -> Vec<Expr>,
    ) -> Candidate {
        let (x, c) = (&io.inputs[0].shape, io.inputs[0].shape.last());
        let strip = c.min(8);
        let strips = c.div_ceil(strip);
        let items = x.rows().times(strips as u64);
        let lanes = if profile.class == DeviceClass::Cpu { 16 } else { 64 };
        let mut k = Kernel::new(name, lanes);
        let floats = Layout::Scalars(DType::F32);
        let names = ["x", "dy"];
        let inputs: Vec<Buffer> = (0..io.inputs.len()).map(|n| k.bind(names[n], floats, Slot::input(n))).collect();
        let y = k.bind_result("y", floats, Slot::output(0));
        let finish = Finish::bind(&mut k, epilogue, Stored { width: 1, words: false, columns: 0 });
        k.function("power", &[("s", Type::F32)], Type::F32, |_, s| {
            let log = Expr::call("log", Type::F32, [s[0].clone()]);
            let power = Expr::call("exp", Type::F32, [log * -self.beta]);
            Expr::call("nan_or_f32", Type::F32, [s[0].clone(), power])
        });
        let i = k.item(items);
        let (first, row) = (k.let_("first", &i % strips * strip), k.let_("row", i / strips * c));
        let load = |k: &mut Kernel, input: usize, n: usize, before: usize| -> Vec<Expr> {
            let channel = |j: usize| {
                let inside = match j.checked_sub(before) {
                    None => (&first + j).at_least(before),
                    Some(behind) => (&first + behind).less(c),
                };
                let value = inputs[input].at(inside.select(&row + &first + j - before, 0u32));
                k.let_(format!("{}{j}", names[input]), inside.select(value, 0.0))
            };
            (0..n).map(channel).collect()
        };
        for (o, value) in body(&mut k, strip, &load).into_iter().enumerate() {
            let at = &row + &first + o;
            k.if_((&first + o).less(c), |k| k.store(&y, &at, finish.apply(value, &at, &[])));
        }
        Candidate::single(Schedule::new(Core::Lane, [1, strip]), k.launch(Grid::new(items, lanes as u32)))
    }

    /// Writes s of `n` channels, from the values of as many and size − 1 more.
    fn squares(&self, k: &mut Kernel, x: &[Expr], n: usize) -> Vec<Expr> {
        let sum = |m: usize| x[m..m + self.size].iter().map(|x| x * x).sum::<Expr>();
        let s = |m| Expr::from(self.bias) + Expr::from(self.share() as f32) * sum(m);
        (0..n).map(|m| k.let_(format!("s{m}"), s(m))).collect()
    }
}

/// Writes loads: of which input, of how many channels, how many of them in front of the strip.
type Load<'a> = dyn Fn(&mut Kernel, usize, usize, usize) -> Vec<Expr> + 'a;

/// Returns s^−beta.
fn power(s: &Expr) -> Expr {
    Expr::call("power", Type::F32, [s.clone()])
}

impl Op for LocalResponseNorm {
    fn name(&self) -> &'static str {
        "local_response_norm"
    }

    fn key(&self) -> String {
        format!("{self:?}")
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let [x] = arity(self.name(), inputs, "pass the tensor to normalise")?;
        self.check(self.name(), x)?;
        Ok(vec![x.clone()])
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let s = self.sums(inputs[0]);
        let y = |i: usize| inputs[0].data[i] * s[i].powf(-f64::from(self.beta));
        vec![Array::from_fn(inputs[0].shape.clone(), y)]
    }

    fn vjp(&self, g: &mut Graph, inputs: &[Value], _outputs: &[Value], dy: &[Option<Value>]) -> Gradients {
        let Some(dy) = dy[0] else { return Ok(vec![None]) };
        Ok(vec![Some(g.apply1(LocalResponseNormGrad { norm: *self }, &[inputs[0], dy])?)])
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let (before, _) = self.reach();
        vec![self.candidate(self.name(), io, profile, epilogue, |k, strip, load| {
            let x = load(k, 0, strip + self.size - 1, before);
            self.squares(k, &x, strip).iter().zip(&x[before..]).map(|(s, x)| x * power(s)).collect()
        })]
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: io.outputs[0].shape.elements().times(2 * self.size as u64 + 4), bytes: io.bytes() }
    }

    fn accuracy(&self, _io: &Io, _n: usize) -> Vec<Accuracy> {
        vec![Accuracy::Pow]
    }

    fn bounds(&self, _io: &Io, inputs: &[&Array], exact: &[Array], _step: &Step) -> Vec<Array> {
        let s = self.sums(inputs[0]);
        let y = &exact[0];
        let error = |i: usize| self.power_error(s[i], f64::from(self.beta).abs()) * y.data[i].abs();
        vec![Array::from_fn(y.shape.clone(), |i| error(i) + f64::from(f32::MIN_POSITIVE))]
    }

    fn epilogue(&self) -> bool {
        true
    }
}

impl LocalResponseNormGrad {
    /// Returns for each element dy · s^−beta and the terms of the sum that is subtracted, with the relative error of both.
    fn terms(&self, x: &Array, dy: &Array) -> Vec<[f64; 3]> {
        let beta = f64::from(self.norm.beta);
        (self.norm.sums(x).iter().zip(&x.data).zip(&dy.data))
            .map(|((s, x), dy)| {
                let own = dy * s.powf(-beta);
                [own, own * x / s, self.norm.power_error(*s, beta.abs()) + (self.norm.size + 8) as f64 * 2.0 * UNIT]
            })
            .collect()
    }

    /// Returns the elements whose results see element `i`.
    fn seen_by(&self, i: usize, c: usize) -> std::ops::Range<usize> {
        let (before, behind) = self.norm.reach();
        let (row, k) = (i / c * c, i % c);
        row + k.saturating_sub(behind)..row + (k + before + 1).min(c)
    }

    fn factor(&self) -> f64 {
        2.0 * self.norm.share() * f64::from(self.norm.beta)
    }
}

impl Op for LocalResponseNormGrad {
    fn name(&self) -> &'static str {
        "local_response_norm_grad"
    }

    fn key(&self) -> String {
        self.norm.key()
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let [x, dy] = arity(self.name(), inputs, "pass x and dy")?;
        self.norm.check(self.name(), x)?;
        match x == dy {
            true => Ok(vec![x.clone()]),
            false => Err(OpError::new(self.name(), format!("dy of {x}"), dy, "pass the gradient to the result")),
        }
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let (x, terms) = (inputs[0], self.terms(inputs[0], inputs[1]));
        let c = x.shape.last().copied().unwrap_or(1).max(1);
        vec![Array::from_fn(x.shape.clone(), |i| {
            let sum: f64 = self.seen_by(i, c).map(|j| terms[j][1]).sum();
            terms[i][0] - self.factor() * x.data[i] * sum
        })]
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let (norm, size) = (&self.norm, self.norm.size);
        let (before, behind) = norm.reach();
        vec![norm.candidate(self.name(), io, profile, epilogue, |k, strip, load| {
            let n = strip + size - 1;
            let (x, dy) = (load(k, 0, n + size - 1, size - 1), load(k, 1, n, behind));
            let s = norm.squares(k, &x, n);
            let own: Vec<Expr> = (0..n).map(|m| k.let_(format!("own{m}"), &dy[m] * power(&s[m]))).collect();
            let t: Vec<Expr> = (0..n).map(|m| k.let_(format!("t{m}"), &own[m] * &x[m + before] / &s[m])).collect();
            let sum = |o: usize| t[o..o + size].iter().cloned().sum::<Expr>();
            let factor = Expr::from(self.factor() as f32);
            (0..strip).map(|o| &own[o + behind] - &factor * &x[o + size - 1] * sum(o)).collect()
        })]
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: io.outputs[0].shape.elements().times(3 * self.norm.size as u64 + 8), bytes: io.bytes() }
    }

    fn accuracy(&self, _io: &Io, _n: usize) -> Vec<Accuracy> {
        vec![Accuracy::Pow]
    }

    fn bounds(&self, _io: &Io, inputs: &[&Array], _exact: &[Array], _step: &Step) -> Vec<Array> {
        let (x, terms) = (inputs[0], self.terms(inputs[0], inputs[1]));
        let c = x.shape.last().copied().unwrap_or(1).max(1);
        vec![Array::from_fn(x.shape.clone(), |i| {
            let sum: f64 = self.seen_by(i, c).map(|j| (terms[j][1] * terms[j][2]).abs()).sum();
            (terms[i][0] * terms[i][2]).abs() + (self.factor() * x.data[i]).abs() * sum + f64::from(f32::MIN_POSITIVE)
        })]
    }

    fn epilogue(&self) -> bool {
        true
    }
}

impl Graph {
    /// Returns `x` (…, c) divided by a power of the mean square of neighbouring channels.
    ///
    /// ```
    /// use hubel::{ops::LocalResponseNorm, prelude::*};
    /// let mut g = Graph::new();
    /// let x = g.input("x", [Batch, 27, 27, 96], F32);
    /// let y = g.local_response_norm(x, LocalResponseNorm { size: 5, alpha: 5e-4, beta: 0.75, bias: 2.0 })?;
    /// assert_eq!(g.shape(y), g.shape(x));
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn local_response_norm(&mut self, x: Value, norm: LocalResponseNorm) -> Result<Value, OpError> {
        self.apply1(norm, &[x])
    }
}

fn any_case(rng: &mut Philox) -> (LocalResponseNorm, TensorType, usize, usize) {
    let norm = LocalResponseNorm {
        size: rng.pick(&[1, 2, 3, 4, 5, 5, 7]),
        alpha: rng.pick(&[1e-4, 5e-4, 0.1, 1.0]),
        beta: rng.pick(&[0.5, 0.75, 1.0]),
        bias: rng.pick(&[0.5, 1.0, 2.0]),
    };
    let c = rng.pick(&[1, 2, 4, 7, 8, 9, 15, 16, 17, 63, 64, 65]);
    let dims = match rng.below(3) {
        0 => vec![rng.pick(&[1, 3, 7]), c],
        1 => vec![Batch, c],
        _ => vec![Batch, rng.pick(&[1, 5]), rng.pick(&[1, 3, 7]), c],
    };
    let capacity = rng.pick(&[1, 2, 5, 17]);
    let n = 1 + rng.below(capacity);
    (norm, TensorType::f32(&dims[..]), capacity, n)
}

fn of(norm: LocalResponseNorm, x: TensorType, capacity: usize) -> Sample {
    Sample::new(norm, vec![(x, Fill::Uniform(-2.0, 2.0))], capacity)
}

fn grad_of(norm: LocalResponseNorm, x: TensorType, capacity: usize) -> Sample {
    Sample::new(LocalResponseNormGrad { norm }, vec![(x.clone(), Fill::Uniform(-2.0, 2.0)), (x, ANY)], capacity)
}

fn random(rng: &mut Philox, of: fn(LocalResponseNorm, TensorType, usize) -> Sample) -> Sample {
    let (norm, x, capacity, n) = any_case(rng);
    of(norm, x, capacity).with_n(n)
}

fn benches(of: fn(LocalResponseNorm, TensorType, usize) -> Sample) -> Vec<(&'static str, Sample)> {
    let norm = LocalResponseNorm { size: 5, alpha: 5e-4, beta: 0.75, bias: 2.0 };
    vec![("lrn5_n8_c96_27", of(norm, TensorType::f32([Batch, 27, 27, 96]), 8))]
}

/// Local response normalisation as a family.
pub static FAMILY: Family = Family {
    name: "local_response_norm",
    about: "division by a power of the mean square of neighbouring channels (ONNX LRN)",
    sample: |rng| random(rng, of),
    benches: || benches(of),
    bad: &[
        Bad {
            what: "a window of no channel",
            build: |g| {
                let x = g.input("x", [Batch, 4, 4, 8], DType::F32);
                g.local_response_norm(x, LocalResponseNorm { size: 0, alpha: 1e-4, beta: 0.75, bias: 1.0 })
            },
        },
        Bad {
            what: "a bias of 0",
            build: |g| {
                let x = g.input("x", [Batch, 4, 4, 8], DType::F32);
                g.local_response_norm(x, LocalResponseNorm { size: 5, alpha: 1e-4, beta: 0.75, bias: 0.0 })
            },
        },
        Bad {
            what: "bytes",
            build: |g| {
                let x = g.input("x", [Batch, 4, 4, 8], DType::U8);
                g.local_response_norm(x, LocalResponseNorm { size: 5, alpha: 1e-4, beta: 0.75, bias: 1.0 })
            },
        },
    ],
    equivalent: &[
        ("moves a boundary at first", "a strip starts within the channels"),
        ("moves a boundary at x", "a strip starts within the channels"),
        ("takes for true at first", "a strip starts within the channels"),
    ],
    differentiable: true,
    gradcheck: 1e-5,
};

/// The gradient of local response normalisation as a family.
pub static FAMILY_GRAD: Family = Family {
    name: "local_response_norm_grad",
    about: "gradient of local_response_norm to its input",
    sample: |rng| random(rng, grad_of),
    benches: || benches(grad_of),
    bad: &[Bad {
        what: "a gradient of another shape",
        build: |g| {
            let [x, dy] = [("x", 8), ("dy", 7)].map(|(name, c)| g.input(name, [Batch, c], DType::F32));
            let norm = LocalResponseNorm { size: 5, alpha: 1e-4, beta: 0.75, bias: 1.0 };
            g.apply1(LocalResponseNormGrad { norm }, &[x, dy])
        },
    }],
    equivalent: &[
        ("adds 1 to a constant at dy", "multiplied by 0 outside the channels"),
        ("adds 1 to a constant at x", "multiplied by 0 outside the channels"),
        ("moves a boundary at first", "a strip starts within the channels"),
        ("takes for true at first", "a strip starts within the channels"),
    ],
    differentiable: false,
    gradcheck: 1e-5,
};
