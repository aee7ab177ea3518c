//! Matrix products, plain and batched, with either operand transposed.

use super::{Part, arity::arity, reduce::column_sums_of};
use crate::{
    graph::{
        Bad, Candidate, Cost, DeviceProfile, Epilogue, Family, Fill, Gradients, Graph, Io, Op, OpError, Patch,
        RewriteCx, Sample, Step, TensorType, Value,
    },
    kernels::gemm::{self, Matrices},
    tensor::{Accuracy, Array, Batch, Count, DType, Philox, Shape},
};
use rayon::prelude::*;

/// Which operands of a matrix product are transposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct MatmulOptions {
    /// Whether the first operand is (K, M) instead of (M, K).
    pub transpose_a: bool,
    /// Whether the second operand is (N, K) instead of (K, N).
    pub transpose_b: bool,
}

/// Matrix product (ONNX MatMul, Gemm): `y[m, n] = Σₖ a[m, k] · b[k, n]`; rank 3 multiplies matrix by matrix
/// along the first axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Matmul {
    /// Which operands are transposed.
    pub options: MatmulOptions,
    /// Whether a second output holds the column sums of the second operand.
    pub column_sums: bool,
}

/// The extents of a product.
struct Extents {
    batch: Count,
    m: Count,
    k: Count,
    n: usize,
    out: Shape,
}

fn fixed(count: usize) -> Count {
    Count { fixed: count as u64, per_sample: 0 }
}

fn leading(shape: &Shape) -> Count {
    let d = shape.dims()[0] as u64;
    if shape.is_batched() { Count { fixed: 0, per_sample: d } } else { Count { fixed: d, per_sample: 0 } }
}

impl Matmul {
    fn extents(&self, a: &Shape, b: &Shape) -> Option<Extents> {
        let MatmulOptions { transpose_a, transpose_b } = self.options;
        let rank = a.rank();
        if rank != b.rank() || !(2..=3).contains(&rank) {
            return None;
        }
        let axis = |s: &Shape, i: usize| if rank == 2 && i == 0 { leading(s) } else { fixed(s.dims()[rank - 2 + i]) };
        let (m, k) = if transpose_a { (axis(a, 1), axis(a, 0)) } else { (axis(a, 0), axis(a, 1)) };
        let (kb, n) = if transpose_b { (axis(b, 1), axis(b, 0)) } else { (axis(b, 0), axis(b, 1)) };
        let batch = if rank == 3 { leading(a) } else { fixed(1) };
        let same_batch = rank == 2 || leading(a) == leading(b);
        if k != kb || n.per_sample > 0 || !same_batch {
            return None;
        }
        let n = n.fixed as usize;
        let m_dim = (m.fixed + m.per_sample) as usize;
        let out = match (rank, m.per_sample > 0) {
            (2, true) => Shape::batched(m_dim, &[n]),
            (2, false) => Shape::fixed([m_dim, n]),
            _ => a.with_row(&[m_dim, n]),
        };
        Some(Extents { batch, m, k, n, out })
    }
}

impl Op for Matmul {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn key(&self) -> String {
        let flag = |on: bool, text: &'static str| if on { text } else { "" };
        let MatmulOptions { transpose_a, transpose_b } = self.options;
        let text = [flag(transpose_a, "ta"), flag(transpose_b, "tb"), flag(self.column_sums, "sums")];
        text.iter().filter(|t| !t.is_empty()).copied().collect::<Vec<_>>().join(" ")
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let [a, b] = arity("matmul", inputs, "pass both matrices")?;
        if a.dtype != DType::F32 || b.dtype != DType::F32 {
            return Err(OpError::new("matmul", "f32 operands", format!("{a} and {b}"), "convert them"));
        }
        let e = self.extents(&a.shape, &b.shape).ok_or_else(|| {
            let MatmulOptions { transpose_a, transpose_b } = self.options;
            let wanted = format!(
                "two matrices, or two stacks of as many, {} and {}, where only M, or K of both, or the stack is the batch",
                if transpose_a { "(K, M)" } else { "(M, K)" },
                if transpose_b { "(N, K)" } else { "(K, N)" },
            );
            let got = format!("{} and {}", a.shape, b.shape);
            OpError::new("matmul", wanted, got, "reshape or transpose an operand so that the K extents agree")
        })?;
        let mut outputs = vec![TensorType::f32(e.out)];
        if self.column_sums {
            if a.shape.rank() != 2 || self.options.transpose_b {
                return Err(OpError::new(
                    "matmul",
                    "column sums of a plain (K, N) operand",
                    &b.shape,
                    "sum separately",
                ));
            }
            outputs.push(TensorType::f32([e.n]));
        }
        Ok(outputs)
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let (a, b) = (inputs[0], inputs[1]);
        let rank = a.shape.len();
        let batch = if rank == 3 { a.shape[0] } else { 1 };
        let [a0, a1] = [a.shape[rank - 2], a.shape[rank - 1]];
        let [b0, b1] = [b.shape[rank - 2], b.shape[rank - 1]];
        let MatmulOptions { transpose_a, transpose_b } = self.options;
        let (m, k) = if transpose_a { (a1, a0) } else { (a0, a1) };
        let n = if transpose_b { b0 } else { b1 };
        let mut y = Array::zeros(if rank == 3 { vec![batch, m, n] } else { vec![m, n] });
        y.data.par_chunks_mut(n.max(1)).enumerate().for_each(|(row, y)| {
            let (z, i) = (row / m, row % m);
            let (a, b) = (&a.data[z * m * k..][..m * k], &b.data[z * k * n..][..k * n]);
            let a_at = |t: usize| if transpose_a { a[t * m + i] } else { a[i * k + t] };
            if transpose_b {
                for (y, b) in y.iter_mut().zip(b.chunks(k.max(1))) {
                    *y = b.iter().enumerate().map(|(t, &b)| a_at(t) * b).sum();
                }
            } else {
                for t in 0..k {
                    let factor = a_at(t);
                    y.iter_mut().zip(&b[t * n..][..n]).for_each(|(y, &b)| *y += factor * b);
                }
            }
        });
        let mut outputs = vec![y];
        if self.column_sums {
            outputs.push(column_sums(b));
        }
        outputs
    }

    fn vjp(&self, g: &mut Graph, inputs: &[Value], _outputs: &[Value], dy: &[Option<Value>]) -> Gradients {
        if self.column_sums {
            return Err(OpError::new(
                "matmul",
                "a product without column sums",
                "column sums",
                "take gradients before fusion",
            ));
        }
        let Some(dy) = dy[0] else { return Ok(vec![None, None]) };
        let (a, b) = (inputs[0], inputs[1]);
        let with = |transpose_a, transpose_b| MatmulOptions { transpose_a, transpose_b };
        let MatmulOptions { transpose_a, transpose_b } = self.options;
        let da = if transpose_a {
            g.matmul_with(b, dy, with(transpose_b, true))?
        } else {
            g.matmul_with(dy, b, with(false, !transpose_b))?
        };
        let db = if transpose_b {
            g.matmul_with(dy, a, with(true, transpose_a))?
        } else {
            g.matmul_with(a, dy, with(!transpose_a, false))?
        };
        Ok(vec![Some(da), Some(db)])
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let Some(e) = self.extents(&io.inputs[0].shape, &io.inputs[1].shape) else { return Vec::new() };
        let matrices = Matrices {
            name: "matmul",
            buffers: ["a", "b"],
            stack: (io.inputs[0].shape.rank() == 3).then_some(e.batch),
            m: e.m,
            k: e.k,
            n: e.n,
            transposed: [self.options.transpose_a, self.options.transpose_b],
            sums: self.column_sums,
        };
        matrices.product(|product| gemm::lower(product, profile, epilogue))
    }

    fn macs(&self, io: &Io) -> Count {
        self.cost(io).flops.over(2)
    }

    fn cost(&self, io: &Io) -> Cost {
        let Some(e) = self.extents(&io.inputs[0].shape, &io.inputs[1].shape) else { return Cost::default() };
        let mul = gemm::count_product;
        Cost { flops: mul(mul(e.batch, e.m), e.k).times(2 * e.n as u64), bytes: io_bytes(io) }
    }

    fn accuracy(&self, io: &Io, n: usize) -> Vec<Accuracy> {
        let terms = self.extents(&io.inputs[0].shape, &io.inputs[1].shape).map_or(1, |e| e.k.at(n));
        vec![Accuracy::Products { terms }; io.outputs.len()]
    }

    fn epilogue(&self) -> bool {
        !self.column_sums
    }

    fn rewrite(&self, cx: &RewriteCx) -> Option<Patch> {
        let MatmulOptions { transpose_a, transpose_b } = self.options;
        if let Some(shards) = cx.shards(1).filter(|_| !transpose_a && !self.column_sums) {
            let mut patch = Patch::default();
            let x = patch.tap(cx.graph(), cx.node().inputs[0]);
            let shards: Vec<Value> = shards.iter().map(|&w| patch.tap(cx.graph(), w)).collect();
            let y = sharded(&mut patch.graph, x, &shards, transpose_b).ok()?;
            patch.replace(cx.output(0), y);
            return Some(patch);
        }
        let sums = column_sums_of(cx, 1).filter(|_| transpose_a && !transpose_b && !self.column_sums)?;
        cx.patch(Matmul { column_sums: true, ..*self }, &cx.node().inputs, &[cx.output(0), sums])
    }
}

/// Returns x · W = Σ x\[columns of shard i\] · shard i, in order, for W cut by rows; transposed, x · Wᵀ has x · (shard i)ᵀ
/// as its columns.
fn sharded(g: &mut Graph, x: Value, shards: &[Value], transposed: bool) -> Result<Value, OpError> {
    if transposed {
        let options = MatmulOptions { transpose_a: false, transpose_b: true };
        let columns = shards.iter().map(|&w| g.matmul_with(x, w, options)).collect::<Result<Vec<_>, _>>()?;
        return g.concat(&columns, 1);
    }
    let (mut sum, mut start) = (None, 0);
    for &w in shards {
        let rows = g.shape(w).dims()[0];
        let columns = g.slice_axis(x, 1, Part::new(start, rows))?;
        let y = g.matmul(columns, w)?;
        sum = Some(match sum {
            None => y,
            Some(before) => g.add(before, y)?,
        });
        start += rows;
    }
    sum.ok_or_else(|| OpError::new("matmul", "at least one shard", "none", "give the weight rows"))
}

/// Returns the sum over all axes but the last.
pub(super) fn column_sums(x: &Array) -> Array {
    let n = x.shape.last().copied().unwrap_or(1);
    let mut sums = Array::zeros([n]);
    for row in x.data.chunks(n.max(1)) {
        sums.data.iter_mut().zip(row).for_each(|(s, &v)| *s += v);
    }
    sums
}

/// Returns the bytes of all operands and results.
pub(super) fn io_bytes(io: &Io) -> Count {
    io.inputs.iter().chain(&io.outputs).fold(Count::default(), |sum, t| {
        let b = t.shape.elements().times(t.dtype.bytes() as u64);
        Count { fixed: sum.fixed + b.fixed, per_sample: sum.per_sample + b.per_sample }
    })
}

impl Graph {
    /// Returns the matrix product `a · b`: (M, K) · (K, N) → (M, N), or stacks of as many matrices.
    pub fn matmul(&mut self, a: Value, b: Value) -> Result<Value, OpError> {
        self.matmul_with(a, b, MatmulOptions::default())
    }

    /// Returns the matrix product of operands that may be transposed.
    pub fn matmul_with(&mut self, a: Value, b: Value, options: MatmulOptions) -> Result<Value, OpError> {
        self.apply1(Matmul { options, column_sums: false }, &[a, b])
    }

    /// Returns FᵀF, (N, C, C), of each sample's features F (h·w, C), given as maps (N, h, w, C): their Gram matrix, which
    /// holds an image's style (Gatys et al. 2016). It is not divided by anything.
    ///
    /// ```
    /// use hubel::prelude::*;
    /// let mut g = Graph::new();
    /// let maps = g.input("maps", [Batch, 14, 14, 32], F32);
    /// let gram = g.gram(maps)?;
    /// assert_eq!(g.shape(gram).to_string(), "(N, 32, 32)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn gram(&mut self, maps: Value) -> Result<Value, OpError> {
        let shape = self.shape(maps).clone();
        let &[_, h, w, c] = shape.dims() else {
            return Err(OpError::new("gram", "maps (N, h, w, C)", shape, "reshape them"));
        };
        let features = self.reshape(maps, shape.with_row(&[h * w, c]))?;
        self.matmul_with(features, features, MatmulOptions { transpose_a: true, transpose_b: false })
    }
}

const ANY: Fill = Fill::Uniform(-1.0, 1.0);

fn sample(rng: &mut Philox) -> Sample {
    let sizes = [1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 120];
    let (m, k, n) = (rng.pick(&sizes), rng.pick(&sizes), rng.pick(&sizes));
    let options = MatmulOptions { transpose_a: rng.below(2) == 1, transpose_b: rng.below(2) == 1 };
    let capacity = rng.pick(&[1, 2, 3, 5, 8, 17, 33]);
    let pair = |on: bool, a: usize, b: usize| if on { [b, a] } else { [a, b] };
    let stack = |first: usize, [a, b]: [usize; 2]| Shape::from([first, a, b]);
    let (mut options, mut column_sums) = (options, false);
    let (a, b) = match rng.below(5) {
        0 => (Shape::fixed(pair(options.transpose_a, m, k)), Shape::fixed(pair(options.transpose_b, k, n))),
        1 => {
            options.transpose_a = false;
            (Shape::batched(rng.pick(&[1, 1, 3]), &[k]), Shape::fixed(pair(options.transpose_b, k, n)))
        }
        2 => {
            options = MatmulOptions { transpose_a: true, transpose_b: false };
            column_sums = rng.below(2) == 1;
            let rows = rng.pick(&[1, 1, 3]);
            (Shape::batched(rows, &[m]), Shape::batched(rows, &[n]))
        }
        3 => {
            let pairs = (pair(options.transpose_a, m.min(33), k), pair(options.transpose_b, k, n.min(33)));
            (stack(Batch, pairs.0), stack(Batch, pairs.1))
        }
        _ => {
            let pairs = (pair(options.transpose_a, m.min(33), k), pair(options.transpose_b, k, n.min(33)));
            (stack(3, pairs.0), stack(3, pairs.1))
        }
    };
    let n = 1 + rng.below(capacity);
    Sample::new(Matmul { options, column_sums }, vec![(TensorType::f32(a), ANY), (TensorType::f32(b), ANY)], capacity)
        .with_n(n)
}

fn benches() -> Vec<(&'static str, Sample)> {
    let of = |a: Shape, b: Shape, options: MatmulOptions, column_sums| {
        Sample::new(Matmul { options, column_sums }, vec![(TensorType::f32(a), ANY), (TensorType::f32(b), ANY)], 64)
    };
    let square = |n: usize| of(Shape::fixed([n, n]), Shape::fixed([n, n]), MatmulOptions::default(), false);
    let x = |k: usize| Shape::from([Batch, k]);
    let dense = |k: usize, n: usize| of(x(k), Shape::fixed([k, n]), MatmulOptions::default(), false);
    let tb = MatmulOptions { transpose_a: false, transpose_b: true };
    let ta = MatmulOptions { transpose_a: true, transpose_b: false };
    let dx = |k: usize, n: usize| of(x(n), Shape::fixed([k, n]), tb, false);
    let dw = |k: usize, n: usize| of(x(k), x(n), ta, true);
    vec![
        ("matmul_256", square(256)),
        ("matmul_512", square(512)),
        ("matmul_1024", square(1024)),
        ("dense_n64_400_120", dense(400, 120)),
        ("dense_n64_120_84", dense(120, 84)),
        ("dense_n64_84_10", dense(84, 10)),
        ("dense_n64_400_120_dx", dx(400, 120)),
        ("dense_n64_120_84_dx", dx(120, 84)),
        ("dense_n64_84_10_dx", dx(84, 10)),
        ("dense_n64_400_120_dw", dw(400, 120)),
        ("dense_n64_120_84_dw", dw(120, 84)),
        ("dense_n64_84_10_dw", dw(84, 10)),
    ]
}

/// Matrix products as a family.
pub static FAMILY: Family = Family {
    name: "matmul",
    about: "matrix products, plain and batched, either operand transposed (ONNX MatMul and Gemm)",
    sample,
    benches,
    bad: &[
        Bad {
            what: "inner extents that differ",
            build: |g| {
                let a = g.input("a", [Batch, 3], DType::F32);
                let b = g.input("b", [4, 5], DType::F32);
                g.matmul(a, b)
            },
        },
        Bad {
            what: "a vector",
            build: |g| {
                let a = g.input("a", [3], DType::F32);
                let b = g.input("b", [3, 5], DType::F32);
                g.matmul(a, b)
            },
        },
        Bad {
            what: "the batch as columns",
            build: |g| {
                let a = g.input("a", [5, 3], DType::F32);
                let b = g.input("b", [Batch, 3], DType::F32);
                g.matmul_with(a, b, MatmulOptions { transpose_a: false, transpose_b: true })
            },
        },
        Bad {
            what: "stacks of different heights",
            build: |g| {
                let a = g.input("a", [2, 4, 3], DType::F32);
                let b = g.input("b", [3, 3, 4], DType::F32);
                g.matmul(a, b)
            },
        },
        Bad {
            what: "bytes",
            build: |g| {
                let a = g.input("a", [Batch, 3], DType::U8);
                let b = g.input("b", [3, 4], DType::F32);
                g.matmul(a, b)
            },
        },
    ],
    equivalent: &[],
    differentiable: true,
    gradcheck: 1e-6,
};
