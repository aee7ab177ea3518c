//! Pooling as methods of the graph.

use super::{
    op::{Pool2d, Pooling},
    window::Pool2dOptions,
};
use crate::{
    graph::{Graph, OpError, Value},
    ops::{
        conv2d::image,
        window::{lift, lower_rank},
    },
};

impl Graph {
    /// Returns the largest value of each window of `x` (N, h, w, c), as (N, h', w', c).
    ///
    /// ```
    /// use hubel::{ops::Pool2dOptions, prelude::*};
    /// let mut g = Graph::new();
    /// let x = g.input("x", [Batch, 28, 28, 6], F32);
    /// let y = g.max_pool2d(x, Pool2dOptions::new(2))?;
    /// assert_eq!(g.shape(y).to_string(), "(N, 14, 14, 6)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn max_pool2d(&mut self, x: Value, options: Pool2dOptions) -> Result<Value, OpError> {
        self.apply1(Pool2d { pooling: Pooling::Max, options }, &[x])
    }

    /// Returns the largest value of each window of rows `x` (N, l, c), as (N, l', c); of the options, those along the
    /// width count.
    pub fn max_pool1d(&mut self, x: Value, options: Pool2dOptions) -> Result<Value, OpError> {
        let x = lift(self, "max_pool1d", x)?;
        let y = self.max_pool2d(x, options.across())?;
        lower_rank(self, y)
    }

    /// Returns the largest value of each channel of images `x` (N, h, w, c), as (N, c) (Keras
    /// GlobalMaxPooling2D); equal values share their gradient.
    pub fn global_max_pool2d(&mut self, x: Value) -> Result<Value, OpError> {
        image("global_max_pool2d", "images", self.ty(x))?;
        self.max_axes(x, &[1, 2], false)
    }

    /// Returns the average of each window of `x` (N, h, w, c), as (N, h', w', c); pixels outside the image do not
    /// count (Keras).
    ///
    /// ```
    /// use hubel::{ops::Pool2dOptions, prelude::*};
    /// let mut g = Graph::new();
    /// let x = g.input("x", [Batch, 28, 28, 6], F32);
    /// let y = g.avg_pool2d(x, Pool2dOptions::new(2))?;
    /// assert_eq!(g.shape(y).to_string(), "(N, 14, 14, 6)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn avg_pool2d(&mut self, x: Value, options: Pool2dOptions) -> Result<Value, OpError> {
        self.apply1(Pool2d { pooling: Pooling::Average { count_padding: false }, options }, &[x])
    }

    /// Returns the average of each window of rows `x` (N, l, c), as (N, l', c); of the options, those along the width
    /// count.
    pub fn avg_pool1d(&mut self, x: Value, options: Pool2dOptions) -> Result<Value, OpError> {
        let x = lift(self, "avg_pool1d", x)?;
        let y = self.avg_pool2d(x, options.across())?;
        lower_rank(self, y)
    }

    /// Returns the average of each channel of images `x` (N, h, w, c), as (N, c) (Keras GlobalAveragePooling2D).
    pub fn global_avg_pool2d(&mut self, x: Value) -> Result<Value, OpError> {
        image("global_avg_pool2d", "images", self.ty(x))?;
        self.mean_axes(x, &[1, 2], false)
    }

    /// Returns the square root of the sum of squares of each window of `x` (N, h, w, c), as (N, h', w', c) (ONNX LpPool
    /// with p = 2); its gradient where all pixels of a window are 0 is 0.
    ///
    /// ```
    /// use hubel::{ops::Pool2dOptions, prelude::*};
    /// let mut g = Graph::new();
    /// let x = g.input("x", [Batch, 28, 28, 6], F32);
    /// let y = g.lp_pool2d(x, Pool2dOptions::new(2))?;
    /// assert_eq!(g.shape(y).to_string(), "(N, 14, 14, 6)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn lp_pool2d(&mut self, x: Value, options: Pool2dOptions) -> Result<Value, OpError> {
        self.apply1(Pool2d { pooling: Pooling::L2, options }, &[x])
    }
}
