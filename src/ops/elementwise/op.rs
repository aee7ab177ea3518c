//! The operation: its broadcasting, its kernel and its gradient.

use super::table::TABLE;
use crate::{
    graph::{
        Arg, Candidate, Cost, DeviceProfile, Elementary, Epilogue, Gradients, Graph, Grid, Instr, Io, Op, OpError,
        Program, Slot, Step, TensorType, Value,
    },
    kernels::{self, Buffer, Core, Expr, Kernel, Layout, Neighbours, Schedule, Type},
    tensor::{Accuracy, Array, Count, Shape, strides},
};

/// An elementwise program on broadcast inputs; the result is f32.
#[derive(Debug, Clone, PartialEq)]
pub struct Elementwise {
    /// What is computed for each element.
    pub program: Program,
    /// A shape that the result is broadcast to, where the inputs alone do not give it.
    pub shape: Option<Shape>,
    /// Whether the result overwrites input 0.
    pub in_place: bool,
    /// For each input the first column that is read of its rows, where these are longer than those of `shape`; empty where none are.
    pub starts: Vec<Option<usize>>,
}

impl Elementwise {
    /// Returns the first column that is read of the rows of an input, and how many, if not all are.
    fn window(&self, input: usize) -> Option<[usize; 2]> {
        let start = *self.starts.get(input)?;
        Some([start?, self.shape.as_ref()?.last()])
    }

    /// Returns the shape of what is read of an input.
    fn read_of(&self, input: usize, shape: &Shape) -> Shape {
        self.window(input).map_or(shape.clone(), |[_, n]| shape.with_last(n))
    }

    /// Returns what is read of all inputs.
    fn operands(&self, inputs: &[&Array]) -> Vec<Array> {
        let narrow = |(i, a): (usize, &&Array)| match (self.window(i), a.shape.last()) {
            (Some([start, n]), Some(&all)) => {
                let mut shape = a.shape.clone();
                shape.pop();
                shape.push(n);
                Array::from_fn(shape, |i| a.data[i / n * all + start + i % n])
            }
            _ => (*a).clone(),
        };
        inputs.iter().enumerate().map(narrow).collect()
    }

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
        Elementwise { program, shape: None, in_place: false, starts: Vec::new() }
    }
}

impl Op for Elementwise {
    fn name(&self) -> &'static str {
        match &self.program.instrs[..] {
            [one] => one.f.name,
            _ => "elementwise",
        }
    }

    fn key(&self) -> String {
        let shape = self.shape.as_ref().map(|s| format!(" to={s}")).unwrap_or_default();
        let starts = if self.starts.is_empty() { String::new() } else { format!(" from={:?}", self.starts) };
        format!("{}{shape}{}{starts}", self.program, if self.in_place { " in_place" } else { "" })
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        if inputs.len() != self.program.n_inputs {
            let advice = "pass as many operands as the function has";
            return Err(OpError::new(self.name(), format!("{} inputs", self.program.n_inputs), inputs.len(), advice));
        }
        let mut shape = self.shape.clone().unwrap_or_else(Shape::scalar);
        for (i, input) in inputs.iter().enumerate() {
            if let Some(&[start, n]) = self.window(i).as_ref()
                && (input.shape.rank() == usize::from(input.shape.is_batched()) || start + n > input.shape.last())
            {
                let wanted = format!("rows of {n} columns from {start} on");
                return Err(OpError::new(self.name(), wanted, input, "begin earlier or pass longer rows"));
            }
            shape = shape.broadcast(&self.read_of(i, &input.shape)).ok_or_else(|| {
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
        let operands = self.operands(inputs);
        let inputs = &operands.iter().collect::<Vec<_>>()[..];
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

    fn vjp(&self, g: &mut Graph, inputs: &[Value], outputs: &[Value], dy: &[Option<Value>]) -> Gradients {
        let Some(dy) = dy[0] else { return Ok(vec![None; inputs.len()]) };
        if !self.starts.is_empty() {
            return Err(OpError::new("elementwise", "whole rows", "columns", "take gradients before fusion"));
        }
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
        let items = Count { fixed: elements.fixed / width as u64, per_sample: elements.per_sample / width as u64 };
        let words = profile.u64_loads;
        let mut k = Kernel::new("elementwise", 64);
        let neighbours = |n: usize| {
            let start = self.window(n).map(|w| w[0]);
            Neighbours { from: &io.inputs[n], to: out, width, start, steps: [1, 1] }
        };
        let read = |n: &usize| *n > 0 || !self.in_place;
        let bind = |n| (n, k.bind(format!("x{n}"), neighbours(n).layout(words), Slot::input(n)));
        let mut buffers: Vec<(usize, Buffer)> = (0..io.inputs.len()).filter(read).map(bind).collect();
        let slot = if self.in_place { Slot::InOut { inputs: 0..1, outputs: 0..1 } } else { Slot::output(0) };
        let y = k.bind_result("y", Layout::Vectors { width, words }, slot);
        if self.in_place {
            buffers.insert(0, (0, y.clone()));
        }
        let names: Vec<String> = (0..io.inputs.len()).map(|n| format!("a{n}")).collect();
        let parameters: Vec<(&str, Type)> = names.iter().map(|name| (name.as_str(), Type::F32)).collect();
        k.function("f", &parameters, Type::F32, |k, arguments| kernels::apply(k, &self.program, arguments));
        let i = k.item(items);
        let values: Vec<Vec<Expr>> =
            buffers.iter().map(|(n, x)| neighbours(*n).read(&mut k, x, &format!("v{n}"), (&i, width))).collect();
        let f = |lane: usize| Expr::call("f", Type::F32, values.iter().map(|lanes| lanes[lane].clone()));
        k.store(&y, &i, Expr::vector((0..width).map(f).collect()));
        let kernel = k.launch(Grid::new(items, 64));
        vec![Candidate::single(Schedule::of_width(Core::Elements, width), kernel)]
    }

    fn cost(&self, io: &Io) -> Cost {
        let elements = io.outputs[0].shape.elements();
        let bytes = io.inputs.iter().chain(&io.outputs).fold(Count::default(), |sum, t| {
            let b = t.shape.elements().times(t.dtype.bytes() as u64);
            Count { fixed: sum.fixed + b.fixed, per_sample: sum.per_sample + b.per_sample }
        });
        Cost { flops: elements.times(self.program.instrs.len() as u64), bytes }
    }

    fn read(&self, io: &Io, input: usize) -> Count {
        self.read_of(input, &io.inputs[input].shape).elements()
    }

    fn accuracy(&self, _io: &Io, _n: usize) -> Vec<Accuracy> {
        vec![self.program.instrs.last().map_or(Accuracy::Exact, |i| i.f.accuracy)]
    }

    fn bounds(&self, _io: &Io, inputs: &[&Array], exact: &[Array], step: &Step) -> Vec<Array> {
        let operands = self.operands(inputs);
        let inputs = &operands.iter().collect::<Vec<_>>()[..];
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
        (!self.in_place && self.starts.is_empty()).then_some(&self.program)
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
