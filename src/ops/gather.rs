//! Rows of a table by their numbers: how a batch is taken from a data set on the device.

use super::arity::arity;
use crate::kernels::shader;
use crate::{
    graph::{
        Bad, Candidate, Cost, DeviceProfile, Epilogue, Family, Fill, Gradients, Graph, Grid, Io, Op, OpError, Sample,
        Slot, Step, TensorType, Value,
    },
    kernels::{self, Core, Schedule},
    tensor::{Accuracy, Array, Batch, Count, DType, Philox, Shape},
};

/// Gather along axis 0 (ONNX Gather): table (R, …), indices (k) or (N) → (k, …) or (N, …).
///
/// An index outside `0..R` gives a row of zeros; of a float the fraction is cut off. Bytes become numbers from 0 to 255.
#[derive(Debug, Clone, PartialEq)]
pub struct Gather {
    /// Type of the result: f32, or u32 for labels.
    pub dtype: DType,
}

/// Gradient of [`Gather`] to its table: indices (N), gradient (N, …) → (`rows`, …), the sum for each table row of
/// the batch rows that name it.
#[derive(Debug, Clone, PartialEq)]
pub struct GatherGrad {
    /// Rows of the table.
    pub rows: usize,
}

/// Returns the row that an index names.
fn row_of(index: f64, rows: usize) -> Option<usize> {
    (index > -1.0 && index < rows as f64).then_some(index as usize)
}

/// Returns an error unless these are the numbers of rows.
fn check_indices(op: &str, indices: &TensorType) -> Result<(), OpError> {
    if indices.shape.rank() == 1 && matches!(indices.dtype, DType::I32 | DType::U32 | DType::F32) {
        return Ok(());
    }
    Err(OpError::new(op, "indices i32, u32 or f32 with one axis", indices, "pass one number per row"))
}

impl Op for Gather {
    fn name(&self) -> &'static str {
        "gather"
    }

    fn key(&self) -> String {
        self.dtype.to_string()
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let [table, indices] = arity("gather", inputs, "pass the table and the indices")?;
        check_indices("gather", indices)?;
        let fits = match self.dtype {
            DType::F32 => matches!(table.dtype, DType::F32 | DType::U8),
            DType::U32 => matches!(table.dtype, DType::U32 | DType::U8),
            _ => false,
        };
        if !fits {
            let got = format!("{} → {}", table.dtype, self.dtype);
            return Err(OpError::new(
                "gather",
                "f32 or u8 → f32, u32 or u8 → u32",
                got,
                "choose the type of the result",
            ));
        }
        if table.shape.is_batched() || table.shape.rank() == 0 || table.shape.dims().contains(&0) {
            let wanted = "a table with rows and without a batch axis";
            return Err(OpError::new("gather", wanted, &table.shape, "gather from a state or a fixed input"));
        }
        Ok(vec![TensorType { shape: indices.shape.with_row(&table.shape.dims()[1..]), dtype: self.dtype }])
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let (table, indices) = (inputs[0], inputs[1]);
        let mut shape = table.shape.clone();
        shape[0] = indices.data.len();
        let row: usize = shape[1..].iter().product();
        vec![Array::from_fn(shape, |i| {
            row_of(indices.data[i / row], table.shape[0]).map_or(0.0, |index| table.data[index * row + i % row])
        })]
    }

    fn vjp(&self, g: &mut Graph, inputs: &[Value], _outputs: &[Value], dy: &[Option<Value>]) -> Gradients {
        let table = g.ty(inputs[0]).clone();
        let dy = dy[0].filter(|_| self.dtype == DType::F32 && table.dtype == DType::F32);
        let rows = table.shape.dims()[0];
        Ok(vec![dy.map(|dy| g.apply1(GatherGrad { rows }, &[inputs[1], dy])).transpose()?, None])
    }

    fn lower(&self, io: &Io, _profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let (table, elements) = (&io.inputs[0], io.outputs[0].shape.elements());
        let (row, flag) = (table.shape.row(), |on: bool| f64::from(u8::from(on)));
        let mut constants = vec![("ROWS", table.shape.dims()[0] as f64), ("BYTES", flag(table.dtype == DType::U8))];
        constants.push(("FLOATS", flag(io.inputs[1].dtype == DType::F32)));
        let (kernel, source, width) = if self.dtype == DType::F32 && row.is_multiple_of(4) {
            constants.push(("QUADS", (row / 4) as f64));
            ("gather4", shader!("gather4.wgsl"), 4)
        } else {
            constants.extend([("ROW", row as f64), ("WHOLE", flag(self.dtype == DType::U32))]);
            ("gather", shader!("gather.wgsl"), 1)
        };
        let items = Count { fixed: elements.fixed / width, per_sample: elements.per_sample / width };
        constants.extend([("FIXED", items.fixed as f64), ("PER_SAMPLE", items.per_sample as f64)]);
        let slots = vec![Slot::input(0), Slot::input(1), Slot::output(0)];
        let source = kernels::Source::of_width(source, width as usize);
        let launch = kernels::dispatch(kernel, source, &constants, Grid::new(items, 64), slots, epilogue);
        vec![Candidate::single(Schedule::of_width(Core::Elements, width as usize), launch)]
    }

    fn cost(&self, io: &Io) -> Cost {
        let (y, indices) = (io.outputs[0].shape.elements(), io.inputs[1].shape.elements().times(4));
        let moved = y.times(4 + io.inputs[0].dtype.bytes() as u64);
        let bytes = Count { fixed: moved.fixed + indices.fixed, per_sample: moved.per_sample + indices.per_sample };
        Cost { flops: Count::default(), bytes }
    }

    fn accuracy(&self, _io: &Io, _n: usize) -> Vec<Accuracy> {
        vec![Accuracy::Exact]
    }

    fn epilogue(&self) -> bool {
        self.dtype == DType::F32
    }
}

impl Op for GatherGrad {
    fn name(&self) -> &'static str {
        "gather_grad"
    }

    fn key(&self) -> String {
        format!("rows={}", self.rows)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let [indices, dy] = arity("gather_grad", inputs, "pass the indices and the gradient")?;
        check_indices("gather_grad", indices)?;
        let row = dy.shape.dims().get(1..).unwrap_or_default();
        if dy.dtype != DType::F32 || dy.shape != indices.shape.with_row(row) || row.contains(&0) || self.rows == 0 {
            let wanted = format!("an f32 gradient with a row for each of {}", indices.shape);
            return Err(OpError::new("gather_grad", wanted, dy, "pass the gradient to what was gathered"));
        }
        Ok(vec![TensorType::f32(Shape::fixed([&[self.rows], row].concat()))])
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let (indices, dy) = (inputs[0], inputs[1]);
        let mut shape = dy.shape.clone();
        shape[0] = self.rows;
        let row: usize = shape[1..].iter().product();
        let mut y = Array::zeros(shape);
        for (&index, dy) in indices.data.iter().zip(dy.data.chunks(row)) {
            if let Some(index) = row_of(index, self.rows) {
                let y = &mut y.data[index * row..][..row];
                y.iter_mut().zip(dy).for_each(|(y, dy)| *y += dy);
            }
        }
        vec![y]
    }

    fn vjp(&self, g: &mut Graph, inputs: &[Value], _outputs: &[Value], dy: &[Option<Value>]) -> Gradients {
        Ok(vec![None, dy[0].map(|dy| g.gather(dy, inputs[0])).transpose()?])
    }

    fn lower(&self, io: &Io, _profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let (rows, y) = (io.inputs[0].shape.elements(), &io.outputs[0].shape);
        let row = y.row() as u64;
        let count = ("COUNT", y.elements().fixed as f64);
        let of_rows = [
            ("FIXED", rows.fixed as f64),
            ("PER_SAMPLE", rows.per_sample as f64),
            ("ROWS", self.rows as f64),
            ("FLOATS", f64::from(u8::from(io.inputs[0].dtype == DType::F32))),
        ];
        let slots = vec![Slot::input(0), Slot::input(1), Slot::output(0)];
        let elements = {
            let constants = [&of_rows[..], &[count, ("ROW", row as f64)]].concat();
            let source = shader!("gather_grad.wgsl");
            let grid = Grid::new(y.elements(), 64);
            let dispatch = kernels::dispatch("gather_grad", source, &constants, grid, slots.clone(), epilogue);
            Candidate::single(Schedule::of_width(Core::Elements, 1), dispatch)
        };
        // Places of equal indices are linked, so that only rows that an index names take sums.
        let source = shader!("gather_grad_chain.wgsl");
        let chain_slots = vec![Slot::input(0), Slot::Scratch(0)];
        let chain = kernels::dispatch("gather_grad_chain", source, &of_rows, Grid::new(rows, 64), chain_slots, None);
        let source = shader!("gather_grad_zero.wgsl");
        let (grid, zero_slots) = (Grid::new(y.elements(), 64), vec![Slot::output(0)]);
        let zero = kernels::dispatch("gather_grad_zero", source, &[count], grid, zero_slots, epilogue);
        let source = shader!("gather_grad_rows.wgsl");
        let constants = [&of_rows[..], &[("ROW", row as f64)]].concat();
        let slots = slots.into_iter().chain([Slot::Scratch(0)]).collect();
        let grid = Grid::new(rows.times(row), 64);
        let sums = kernels::dispatch("gather_grad_rows", source, &constants, grid, slots, epilogue);
        let schedule = Schedule::of_width(Core::Chains, 1);
        let chains = Candidate::new(schedule, vec![chain, zero, sums], vec![rows.times(8)]);
        let (table, named) = (y.elements().fixed, rows.at(32));
        if table * named > 2 * (named * named + table + named * row) {
            vec![chains, elements]
        } else {
            vec![elements, chains]
        }
    }

    fn accuracy(&self, io: &Io, n: usize) -> Vec<Accuracy> {
        vec![Accuracy::Products { terms: io.inputs[0].shape.elements().at(n) }]
    }

    fn epilogue(&self) -> bool {
        true
    }
}

impl Graph {
    /// Returns the rows of `table` (R, …; f32 or u8) that `indices` (k) or (N) name, as f32 (k, …) or (N, …).
    ///
    /// An index outside `0..R` gives zeros. The gradient goes to a table of f32.
    pub fn gather(&mut self, table: Value, indices: Value) -> Result<Value, OpError> {
        self.apply1(Gather { dtype: DType::F32 }, &[table, indices])
    }

    /// Returns the rows of `table` (R, width) that `indices` (N, …; i32, u32 or f32) name: (N, …, width) (Keras
    /// `Embedding`).
    ///
    /// An index outside `0..R` gives zeros.
    pub fn embedding(&mut self, table: Value, indices: Value) -> Result<Value, OpError> {
        let (shape, width) = (self.shape(indices).clone(), self.shape(table).row());
        let rows = shape.dims().iter().product();
        let flat = if shape.is_batched() { Shape::batched(rows, &[]) } else { Shape::fixed([rows]) };
        let indices = self.reshape(indices, flat)?;
        let y = self.gather(table, indices)?;
        let inner: Vec<usize> = shape.dims().iter().skip(1).copied().chain([width]).collect();
        self.reshape(y, shape.with_row(&inner))
    }

    /// Returns the rows of a table of labels (R, …; u8 or u32) that `indices` name, as u32.
    ///
    /// An index outside `0..R` gives zeros.
    pub fn gather_labels(&mut self, table: Value, indices: Value) -> Result<Value, OpError> {
        self.apply1(Gather { dtype: DType::U32 }, &[table, indices])
    }
}

fn sample(rng: &mut Philox) -> Sample {
    let capacity = rng.pick(&[1, 7, 15, 16, 17, 64]);
    let n = 1 + rng.below(capacity);
    let rows = rng.pick(&[1, 2, 7, 17, 63, 64, 65]);
    let row = [rng.pick(&[1, 3, 4, 7, 16]), rng.pick(&[1, 2, 5, 8, 17])];
    let shape = [&[rows], &row[..rng.below(3)]].concat();
    let batch = match rng.below(4) {
        0 => Shape::fixed([rng.pick(&[1, 7, 16])]),
        1 => Shape::batched(rng.pick(&[2, 3]), &[]),
        _ => Shape::from([Batch]),
    };
    // Two numbers past the end: rows of zeros.
    let indices =
        (TensorType::new(batch.clone(), rng.pick(&[DType::I32, DType::U32, DType::F32])), Fill::Index(rows + 2));
    let values = Fill::Uniform(-1.0, 1.0);
    let table = |dtype, fill| (TensorType::new(shape.clone(), dtype), fill);
    let sample = match rng.below(5) {
        0 => Sample::new(Gather { dtype: DType::U32 }, vec![table(DType::U8, Fill::Index(256)), indices], capacity),
        1 => {
            Sample::new(Gather { dtype: DType::U32 }, vec![table(DType::U32, Fill::Index(1 << 20)), indices], capacity)
        }
        2 => Sample::new(Gather { dtype: DType::F32 }, vec![table(DType::U8, Fill::Index(256)), indices], capacity),
        3 => Sample::new(Gather { dtype: DType::F32 }, vec![table(DType::F32, values), indices], capacity),
        _ => {
            let dy = TensorType::f32(batch.with_row(&shape[1..]));
            Sample::new(GatherGrad { rows }, vec![indices, (dy, values)], capacity)
        }
    };
    sample.with_n(n)
}

fn benches() -> Vec<(&'static str, Sample)> {
    let mnist = (TensorType::new([10_000, 28, 28, 1], DType::U8), Fill::Index(256));
    let table = (TensorType::f32([1000, 256]), Fill::Uniform(-1.0, 1.0));
    let rows = |k| (TensorType::new([Batch], DType::U32), Fill::Index(k));
    let images = |dtype| (TensorType::new([64, 96, 96, 3], dtype), Fill::Index(256));
    let op = || Gather { dtype: DType::F32 };
    vec![
        ("mnist_n64", Sample::new(op(), vec![mnist, rows(10_000)], 64)),
        ("f32_n64_256", Sample::new(op(), vec![table, rows(1000)], 64)),
        ("f32_n32_c3_96", Sample::new(op(), vec![images(DType::F32), rows(64)], 32)),
        ("u8_n32_c3_96", Sample::new(op(), vec![images(DType::U8), rows(64)], 32)),
    ]
}

/// Gather and its gradient as a family.
pub static FAMILY: Family = Family {
    name: "gather",
    about: "rows of a table by their numbers, zeros for a number outside, and its gradient (ONNX Gather on axis 0)",
    sample,
    benches,
    bad: &[
        Bad {
            what: "indices of bytes",
            build: |g| {
                let (t, i) = (g.input("t", [5, 3], DType::F32), g.input("i", [Batch], DType::U8));
                g.gather(t, i)
            },
        },
        Bad {
            what: "indices of two axes",
            build: |g| {
                let (t, i) = (g.input("t", [5, 3], DType::F32), g.input("i", [Batch, 2], DType::U32));
                g.gather(t, i)
            },
        },
        Bad {
            what: "a table with a batch axis",
            build: |g| {
                let (t, i) = (g.input("t", [Batch, 3], DType::F32), g.input("i", [Batch], DType::U32));
                g.gather(t, i)
            },
        },
        Bad {
            what: "labels from floats",
            build: |g| {
                let (t, i) = (g.input("t", [5], DType::F32), g.input("i", [Batch], DType::U32));
                g.gather_labels(t, i)
            },
        },
    ],
    equivalent: &[
        ("adds for a product at k", "a chain ends before its loop does"),
        ("leaves a term out at j", "one workgroup links the rows of a sample"),
        ("reads the first at extra", "multiplied by the 0 of a row that nobody named"),
    ],
    differentiable: true,
    gradcheck: 1e-6,
};
