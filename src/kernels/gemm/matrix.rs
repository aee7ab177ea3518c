//! Products of matrices in memory: what matmul, and convolutions by a kernel of one pixel, are.

use super::product::{Apart, Cursor, Loop, Operand, Position, Product, Zeros, run};
use crate::{
    kernels::language::{Expr, Extent, Kernel},
    tensor::Count,
};

/// A product of two matrices, (M, K) · (K, N), or of two stacks of as many.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Matrices {
    /// Name of the kernel.
    pub name: &'static str,
    /// Names of the operands.
    pub buffers: [&'static str; 2],
    /// The number of products, if the operands are stacks.
    pub stack: Option<Count>,
    /// Rows of the result.
    pub m: Count,
    /// Terms of a sum.
    pub k: Count,
    /// Columns of the result.
    pub n: usize,
    /// Whether the first operand is (K, M), and the second (N, K).
    pub transposed: [bool; 2],
    /// Whether output 1 is the sum of the second operand over K.
    pub sums: bool,
}

impl Matrices {
    /// Calls `f` with the product.
    pub fn product<R>(&self, f: impl FnOnce(&Product) -> R) -> R {
        self.placed(None, None, f)
    }

    /// Calls `f` with the product whose rows lie where these say.
    pub(super) fn placed<R>(
        &self,
        position: Option<Position>,
        zeros: Option<Zeros>,
        f: impl FnOnce(&Product) -> R,
    ) -> R {
        let [transpose_a, transpose_b] = self.transposed;
        let count = |n: usize| Count { fixed: n as u64, per_sample: 0 };
        let rows = Extent::new(["rows", "rows_per_sample"], self.m);
        let columns = Extent::new(["columns", ""], count(self.n));
        let terms = Extent::new(["terms", "terms_per_sample"], self.k);
        let (m, k, n) = (rows.expr(), terms.expr(), columns.expr());
        let start = |size: Expr| if self.stack.is_some() { Product::batch_index() * size } else { 0u32.into() };
        let a_enter = |kernel: &mut Kernel, at: &mut Cursor, vars: &[Expr]| {
            if vars.is_empty() {
                let row = if transpose_a { at.index().clone() } else { at.index() * &k };
                at.set(kernel, "o", start(&m * &k) + row);
            }
        };
        let b_enter = |kernel: &mut Kernel, at: &mut Cursor, vars: &[Expr]| {
            if vars.is_empty() {
                let column = if transpose_b { at.index() * &k } else { at.index().clone() };
                at.set(kernel, "o", start(&k * &n) + column);
            }
        };
        let a_step = if transpose_a { m.clone() } else { 1u32.into() };
        let b_step = if transpose_b { 1u32.into() } else { n.clone() };
        let a_at = |at: &Cursor, vars: &[Expr]| (at.get("o") + &vars[0] * &a_step, Expr::from(true));
        let b_at = |at: &Cursor, vars: &[Expr]| (at.get("o") + &vars[0] * &b_step, Expr::from(true));
        let index = |at: &Cursor, unit: usize| at.get("o") / unit;
        let a_terms = |vars: &[Expr], unit: usize| &vars[0] * &a_step / unit;
        let b_terms = |vars: &[Expr], unit: usize| &vars[0] * &b_step / unit;
        let run = |c: Count| if c.per_sample == 0 { run(c.fixed as usize) } else { 1 };
        f(&Product {
            name: self.name,
            batch: self.stack.unwrap_or(count(1)),
            rows: Operand {
                buffer: self.buffers[0],
                extent: rows,
                enter: &a_enter,
                at: &a_at,
                apart: Some(Apart { index: &index, terms: &a_terms, step: a_step.clone(), of_all: true, there: None }),
                run: run(if transpose_a { self.m } else { self.k }),
                along_terms: !transpose_a,
            },
            columns: Operand {
                buffer: self.buffers[1],
                extent: columns,
                enter: &b_enter,
                at: &b_at,
                apart: Some(Apart { index: &index, terms: &b_terms, step: b_step.clone(), of_all: true, there: None }),
                run: run(if transpose_b { self.k } else { count(self.n) }),
                along_terms: transpose_b,
            },
            loops: vec![Loop::new("k", terms)],
            position,
            zeros,
            whole: zeros.is_none(),
            sums: self.sums,
        })
    }
}
