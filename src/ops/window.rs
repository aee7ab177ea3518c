//! Sliding windows over the two image axes: padding and output sizes, by Keras' rules; rows as images of height 1.

use crate::{
    graph::{Graph, OpError, Value},
    tensor::Shape,
};

/// How an image is extended before windows slide over it.
///
/// ```
/// use hubel::ops::Padding;
/// assert_eq!(Padding::Same.resolve([6, 6], [3, 3], [2, 2]), Some(([[0, 1], [0, 1]], [3, 3])));
/// assert_eq!(Padding::Valid.resolve([2, 2], [3, 3], [1, 1]), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// Not at all.
    #[default]
    Valid,
    /// So that there are ⌈size / stride⌉ windows along each axis; an odd pixel goes to the end.
    Same,
    /// In front alone, so that no window sees what comes after its place.
    Causal,
    /// By `[[top, bottom], [left, right]]` pixels.
    Explicit([[usize; 2]; 2]),
}

impl Padding {
    /// Returns this padding and as many pixels more on each side, or `None` where it depends on the size.
    pub(super) fn and(self, pads: [[usize; 2]; 2]) -> Option<Self> {
        match self {
            Padding::Valid => Some(Padding::Explicit(pads)),
            Padding::Explicit(own) => {
                Some(Padding::Explicit([0, 1].map(|axis| [0, 1].map(|side| own[axis][side] + pads[axis][side]))))
            }
            Padding::Same | Padding::Causal => None,
        }
    }

    /// Returns what of it concerns the width.
    pub(super) fn across(self) -> Self {
        match self {
            Padding::Explicit([_, sides]) => Padding::Explicit([[0, 0], sides]),
            other => other,
        }
    }

    /// Returns `[[top, bottom], [left, right]]` and the number of windows along each axis, or `None` where a
    /// size or stride is 0 or over 2²⁴, or a window does not fit.
    ///
    /// `extent` is the window's size (with dilation, from its first to its last tap).
    pub fn resolve(
        self,
        size: [usize; 2],
        extent: [usize; 2],
        strides: [usize; 2],
    ) -> Option<([[usize; 2]; 2], [usize; 2])> {
        let mut pads = [[0; 2]; 2];
        let mut windows = [0; 2];
        for axis in 0..2 {
            let (n, k, s) = (size[axis], extent[axis], strides[axis]);
            if [n, k, s].iter().any(|size| !(1..=1 << 24).contains(size)) {
                return None;
            }
            pads[axis] = match self {
                Padding::Valid => [0, 0],
                Padding::Same => {
                    let total = ((n.div_ceil(s) - 1) * s + k).saturating_sub(n);
                    [total / 2, total - total / 2]
                }
                Padding::Causal => [k - 1, 0],
                Padding::Explicit(pads) => pads[axis],
            };
            windows[axis] = (pads[axis].iter().try_fold(n, |sum, &p| sum.checked_add(p))?.checked_sub(k)?) / s + 1;
        }
        Some((pads, windows))
    }
}

/// Returns rows (N, L, C) as images (N, 1, L, C).
pub(super) fn lift(g: &mut Graph, op: &str, x: Value) -> Result<Value, OpError> {
    let shape = g.shape(x).clone();
    match *shape.dims() {
        [_, l, c] => g.reshape(x, shape.with_row(&[1, l, c])),
        _ => Err(OpError::new(op, "rows (N, length, channels)", g.ty(x), "reshape them")),
    }
}

/// Returns weights (S, in, out) as (1, S, in, out).
pub(super) fn lift_weights(g: &mut Graph, op: &str, w: Value) -> Result<Value, OpError> {
    match (g.shape(w).dims(), g.shape(w).is_batched()) {
        (&[s, i, o], false) => g.reshape(w, Shape::fixed([1, s, i, o])),
        _ => Err(OpError::new(op, "weights (taps, in, out)", g.ty(w), "reshape them")),
    }
}

/// Returns images of height 1 as rows.
pub(super) fn lower_rank(g: &mut Graph, y: Value) -> Result<Value, OpError> {
    let shape = g.shape(y).clone();
    let from = shape.dims().len().saturating_sub(2);
    g.reshape(y, shape.with_row(&shape.dims()[from..]))
}
