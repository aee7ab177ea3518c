//! Recurrent cells as methods of the graph.

use super::op::{Recurrent, keras, two};
use crate::{
    graph::{Graph, OpError, Value},
    kernels::recurrent::CellKind,
    tensor::Shape,
};

impl Graph {
    /// Returns `x` (N, …, k) times `kernel` (k, m), plus `bias` (m) if there is one: (N, …, m), one product whose rows are
    /// all but the last axis.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let mut g = Graph::new();
    /// let x = g.input("x", [Batch, 20, 5], F32);
    /// let kernel = g.parameter("kernel", [5, 32], GlorotUniform);
    /// let y = g.project(x, kernel, None)?;
    /// assert_eq!(g.ty(y).to_string(), "f32(N, 20, 32)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn project(&mut self, x: Value, kernel: Value, bias: Option<Value>) -> Result<Value, OpError> {
        let (shape, width) = (self.shape(x).clone(), self.shape(kernel).last());
        let Some((last, outer)) = shape.dims().split_last() else {
            return Err(OpError::new("matmul", "a tensor of rank 1 or more", &shape, "reshape it"));
        };
        let rows = outer.iter().product();
        let flat = if shape.is_batched() { Shape::batched(rows, &[*last]) } else { Shape::fixed([rows, *last]) };
        let x = self.reshape(x, flat)?;
        let mut y = self.matmul(x, kernel)?;
        if let Some(bias) = bias {
            y = self.add(y, bias)?;
        }
        let inner: Vec<usize> = outer.iter().skip(1).copied().chain([width]).collect();
        self.reshape(y, if outer.is_empty() { Shape::fixed([width]) } else { shape.with_row(&inner) })
    }

    /// Returns the states (N, T, u) of a simple recurrent cell, h = tanh(x + h·kernel): `x` (N, T, u) is the projected
    /// input with its bias, `kernel` (u, u) the recurrent kernel, `initial` (N, u) the state before the first step, zeros
    /// where it is none.
    ///
    /// [`Recurrent`] takes other functions than tanh.
    pub fn simple_rnn(&mut self, x: Value, kernel: Value, initial: Option<Value>) -> Result<Value, OpError> {
        let operands: Vec<Value> = [x, kernel].into_iter().chain(initial).collect();
        Ok(self.apply(Recurrent { cell: keras(CellKind::Simple) }, &operands)?[0])
    }

    /// Returns the states h and c, each (N, T, u), of an LSTM with gates in the order i, f, c, o: `x` (N, T, 4u) is the
    /// projected input with its bias, `kernel` (u, 4u) the recurrent kernel, `initial` h and c (N, u) before the first
    /// step, zeros where they are none.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let mut g = Graph::new();
    /// let x = g.input("x", [Batch, 20, 5], F32);
    /// let kernel = g.parameter("kernel", [5, 4 * 32], GlorotUniform);
    /// let recurrent = g.parameter("recurrent", [32, 4 * 32], GlorotUniform);
    /// let bias = g.parameter("bias", [4 * 32], Zeros);
    /// let x = g.project(x, kernel, Some(bias))?;
    /// let [h, _] = g.lstm(x, recurrent, None)?;
    /// assert_eq!(g.ty(h).to_string(), "f32(N, 20, 32)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn lstm(&mut self, x: Value, kernel: Value, initial: Option<[Value; 2]>) -> Result<[Value; 2], OpError> {
        let initial = initial.map(|states| self.concat(&states, 1)).transpose()?;
        let operands: Vec<Value> = [x, kernel].into_iter().chain(initial).collect();
        Ok(two(self.apply(Recurrent { cell: keras(CellKind::Lstm) }, &operands)?))
    }

    /// Returns the states (N, T, u) of a GRU with gates in the order z, r, h: `x` (N, T, 3u) is the projected input with
    /// its bias, `kernel` (u, 3u) the recurrent kernel, `bias` (3u) what is added to the state's product before the reset
    /// gate acts on it (Keras `reset_after = true`; zeros for a layer without bias), none where the gate acts before the
    /// product, `initial` (N, u) the state before the first step, zeros where it is none.
    pub fn gru(
        &mut self,
        x: Value,
        kernel: Value,
        bias: Option<Value>,
        initial: Option<Value>,
    ) -> Result<Value, OpError> {
        let kind = if bias.is_some() { CellKind::GruAfter } else { CellKind::GruBefore };
        let operands: Vec<Value> = [x, kernel].into_iter().chain(bias).chain(initial).collect();
        Ok(self.apply(Recurrent { cell: keras(kind) }, &operands)?[0])
    }
}
