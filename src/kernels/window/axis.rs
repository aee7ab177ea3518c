//! One axis of a window that slides in strips: what a strip reads, and which results that belongs to.

use crate::kernels::{gemm::Window, language::Expr};
use std::{collections::BTreeSet, ops::Range};

/// A position that is read, a result that it belongs to, and by which tap.
#[derive(Debug, Clone, Copy)]
pub(super) struct Term {
    pub(super) read: usize,
    pub(super) result: usize,
    pub(super) tap: usize,
}

/// Positions along an axis: the one numbered `at` lies at `first + strip · per_strip + phase + at · phases`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Positions {
    first: i64,
    per_strip: usize,
    strips: usize,
    phases: usize,
    /// The extent of the image.
    extent: usize,
}

impl Positions {
    /// Returns position 0 for a number of strip and phase, the phases of a strip in turn.
    pub(super) fn origin(&self, number: &Expr) -> Expr {
        (number / self.phases * self.per_strip + number % self.phases).i32() + self.first
    }

    /// Returns whether `position`, whose number is one of `at`, lies in the image: a constant where that holds of all strips or none.
    pub(super) fn inside(&self, position: &Expr, at: Range<usize>) -> Expr {
        let Positions { first, per_strip, strips, phases, extent } = *self;
        let origins = (0..strips * phases).map(|n| first + (n / phases * per_strip + n % phases) as i64);
        let positions = origins.flat_map(|origin| at.clone().map(move |at| origin + (at * phases) as i64));
        let inside: BTreeSet<bool> = positions.map(|p| (0..extent as i64).contains(&p)).collect();
        match inside.len() {
            1 => inside.contains(&true).into(),
            _ => position.u32().less(extent),
        }
    }
}

/// One axis of a window; positions are numbered within a phase of a strip.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    taps: usize,
    stride: usize,
    dilation: usize,
    pad: usize,
    from: usize,
    to: usize,
    transposed: bool,
    pub(super) phases: usize,
    /// Results of one phase of a strip; where transposed a multiple of the stride.
    pub(super) size: usize,
}

impl Axis {
    pub(super) fn new(w: &Window, axis: usize) -> Self {
        let (stride, dilation) = (w.strides[axis], w.dilation[axis]);
        let phases = if stride == 1 { dilation } else { 1 };
        Axis {
            taps: w.kernel[axis],
            stride,
            dilation: dilation / phases,
            pad: w.pads[axis],
            from: w.from[axis],
            to: w.to[axis],
            transposed: w.transposed,
            phases,
            size: 1,
        }
    }

    /// Returns how many steps before its own a result needs.
    pub(super) fn halo(&self) -> usize {
        (self.taps - 1) * self.dilation / self.stride
    }

    /// Results in front of the image: strips begin at a multiple of the stride.
    fn before(&self) -> usize {
        if self.transposed { self.pad % self.stride } else { 0 }
    }

    /// Returns the results of one phase.
    pub(super) fn per_phase(&self) -> usize {
        (self.to + self.before()).div_ceil(self.phases)
    }

    /// Returns the axis in at most `n` strips.
    pub(super) fn in_strips(self, n: usize) -> Self {
        let size = self.per_phase().div_ceil(n.max(1)).max(1);
        Axis { size: if self.transposed { size.next_multiple_of(self.stride) } else { size }, ..self }
    }

    pub(super) fn strips(&self) -> usize {
        self.per_phase().div_ceil(self.size)
    }

    /// Returns the positions that are read.
    pub(super) fn reads(&self) -> Positions {
        let Axis { stride, pad, from: extent, phases, size, .. } = *self;
        let (per_strip, first) = match self.transposed {
            true => (phases * size / stride, (pad / stride) as i64 - (phases * self.halo()) as i64),
            false => (phases * size * stride, -(pad as i64)),
        };
        Positions { first, per_strip, strips: self.strips(), phases, extent }
    }

    /// Returns the positions of results.
    pub(super) fn results(&self) -> Positions {
        let per_strip = self.phases * self.size;
        let first = -(self.before() as i64);
        Positions { first, per_strip, strips: self.strips(), phases: self.phases, extent: self.to }
    }

    /// Returns which positions of a strip belong to which results, by result.
    pub(super) fn terms(&self) -> Vec<Term> {
        let term = |result: usize, tap: usize| {
            if !self.transposed {
                return Some(Term { read: result * self.stride + tap * self.dilation, result, tap });
            }
            let at = (result + self.halo() * self.stride).checked_sub(tap * self.dilation)?;
            at.is_multiple_of(self.stride).then_some(Term { read: at / self.stride, result, tap })
        };
        (0..self.size).flat_map(|result| (0..self.taps).filter_map(move |tap| term(result, tap))).collect()
    }

    /// Returns how many positions of a strip are read, with those between them.
    pub(super) fn n_reads(&self) -> usize {
        self.terms().iter().map(|term| term.read + 1).max().unwrap_or(0)
    }

    /// Returns how many positions a step reads.
    pub(super) fn reads_per_step(&self) -> usize {
        if self.transposed { 1 } else { self.stride }
    }

    /// Returns how many results a step completes.
    pub(super) fn results_per_step(&self) -> usize {
        if self.transposed { self.stride } else { 1 }
    }

    /// Returns the steps of a strip.
    pub(super) fn steps(&self) -> usize {
        self.size / self.results_per_step() + self.halo()
    }

    /// Returns how many results are under way at a time.
    pub(super) fn under_way(&self) -> usize {
        if self.transposed { ((self.taps - 1) * self.dilation + 1).max(self.stride) } else { self.halo() + 1 }
    }

    /// Returns which positions of a step belong to which results under way, by tap.
    pub(super) fn step_terms(&self) -> Vec<Term> {
        let term = |tap: usize| match (tap * self.dilation, self.transposed) {
            (result, true) => Term { read: 0, result, tap },
            (at, false) => Term { read: at % self.stride, result: self.halo() - at / self.stride, tap },
        };
        (0..self.taps).map(term).collect()
    }
}
