//! Index arithmetic of broadcasting.

use super::{
    expr::{Expr, Type},
    kernel::{Buffer, Kernel, Layout},
};
use crate::{
    graph::TensorType,
    tensor::{DType, Shape, strides},
};

/// Returns the flat index into a tensor of shape `from` that is broadcast to `to`, where `at` is the flat index into `to`.
pub fn broadcast_index(to: &Shape, from: &Shape, at: &Expr) -> Expr {
    let rank = to.rank();
    let skip = rank - from.rank();
    let from_strides = strides(from.dims());
    let to_dims = to.dims();
    let to_strides = strides(to_dims);
    let moves = |i: usize| i >= skip && (from.dims()[i - skip] != 1 || (from.is_batched() && i == skip));
    let mut sum = Expr::from(0u32);
    let mut i = 0;
    while i < rank {
        if !moves(i) || (to_dims[i] == 1 && !(to.is_batched() && i == 0)) {
            i += 1;
            continue;
        }
        // A run of neighbouring axes that all move keeps its order, so that one division serves it.
        let start = i;
        while i + 1 < rank && (moves(i + 1) || to_dims[i + 1] == 1) {
            i += 1;
        }
        let mut term = at / to_strides[i];
        if start > 0 && to_dims[..start].iter().enumerate().any(|(k, &d)| d != 1 || (k == 0 && to.is_batched())) {
            term = term % to_dims[start..=i].iter().product::<usize>();
        }
        sum = sum + term * from_strides[i - skip];
        i += 1;
    }
    sum
}

/// Returns how many neighbouring elements of a tensor of shape `to` read the same element of one of shape `from` that is
/// broadcast to it, the first of them at a multiple of that number.
fn repeats(to: &Shape, from: &Shape) -> usize {
    let moves = |i: usize| from.dims()[i] != 1 || (from.is_batched() && i == 0);
    let still = (0..from.rank()).rev().take_while(|&i| !moves(i)).count();
    let still = if still == from.rank() { to.rank() } else { still };
    to.dims()[to.rank() - still..].iter().product()
}

/// Returns height and width of images.
fn pixels(images: &Shape) -> [usize; 2] {
    match images.dims() {
        &[.., h, w, _] => [h, w],
        _ => [1, 1],
    }
}

/// How `width` neighbouring elements of a tensor are read that is broadcast to another.
#[derive(Debug, Clone, Copy)]
pub struct Neighbours<'a> {
    /// The tensor.
    pub from: &'a TensorType,
    /// The shape that it is broadcast to.
    pub to: &'a Shape,
    /// How many elements are read.
    pub width: usize,
    /// The first column that is read of each of its rows, where these are longer than those of `to`.
    pub start: Option<usize>,
    /// How many pixels of `to`, images, are from one of the tensor's to the next, along height and width; between them it is 0.
    pub steps: [usize; 2],
}

impl Neighbours<'_> {
    /// Returns the shape of what is read of the tensor.
    fn shape(&self) -> Shape {
        let shape = &self.from.shape;
        self.start.map_or(shape.clone(), |_| shape.with_last(self.to.last()))
    }

    /// Returns whether the elements are read as one vector.
    fn is_vector(&self) -> bool {
        if self.steps != [1, 1] {
            return self.width > 1 && self.to.last().is_multiple_of(self.width);
        }
        let sizes = [self.to.last(), self.from.shape.last(), self.start.unwrap_or(0)];
        let even = sizes.iter().all(|n| n.is_multiple_of(self.width));
        let fits = match self.shape() {
            shape if shape == *self.to => even || self.start.is_none(),
            shape => even && shape.rank() > 0 && shape.last() == self.to.last(),
        };
        self.width > 1 && self.from.dtype == DType::F32 && fits
    }

    /// Returns where an element of what is read lies in the tensor, both counted in vectors of `width`.
    fn place(&self, at: Expr, width: usize) -> Expr {
        let Some(start) = self.start else { return at };
        let [own, all] = [self.to.last() / width, self.from.shape.last() / width];
        &at / own * all + at % own + start / width
    }

    /// Returns the element, or vector, that lies at a place of the result, both counted in vectors of `width`, or 0 between pixels.
    fn among_zeros(&self, buffer: &Buffer, at: &Expr, width: usize) -> Expr {
        let [[down, right], own, all] = [self.steps, pixels(&self.from.shape), pixels(self.to)];
        let per_pixel = self.to.last() / width;
        let pixel = at / per_pixel;
        let (y, x) = (&pixel / all[1] % all[0], &pixel % all[1]);
        let place = (pixel / (all[0] * all[1]) * own[0] + &y / down) * own[1] + &x / right;
        let there = (y % down).equals(0u32).and((x % right).equals(0u32));
        there.select(buffer.at(place * per_pixel + at % per_pixel), floats(width).zero())
    }

    /// Returns how the tensor is bound, where vectors are read as `words`.
    pub fn layout(&self, words: bool) -> Layout {
        match self.is_vector() {
            true => Layout::Vectors { width: self.width, words },
            false => Layout::Scalars(self.from.dtype),
        }
    }

    /// Returns the elements for the flat indices of `to` from `number` times `unit` on, a multiple of the width; the unit is 1, or the
    /// width. What they share is read once, under the name `local`.
    pub fn read(&self, k: &mut Kernel, buffer: &Buffer, local: &str, (number, unit): (&Expr, usize)) -> Vec<Expr> {
        let [at, vector] = &[number * unit, number / (self.width / unit)];
        if self.steps != [1, 1] {
            if !self.is_vector() {
                return (0..self.width).map(|lane| self.among_zeros(buffer, &(at + lane), 1)).collect();
            }
            let value = k.let_(local, self.among_zeros(buffer, vector, self.width));
            return (0..self.width).map(|lane| value.component(lane)).collect();
        }
        let shape = self.shape();
        let element = |at: &Expr| buffer.at(self.place(broadcast_index(self.to, &shape, at), 1));
        let vectors = |shape: &Shape| shape.with_last(shape.last() / self.width);
        if self.is_vector() {
            let at = match shape == *self.to {
                true => vector.clone(),
                false => broadcast_index(&vectors(self.to), &vectors(&shape), vector),
            };
            let value = k.let_(local, buffer.at(self.place(at, self.width)));
            return (0..self.width).map(|lane| value.component(lane)).collect();
        }
        if self.width > 1 && repeats(self.to, &shape).is_multiple_of(self.width) {
            let by_vector =
                unit > 1 && self.start.is_none() && shape.last() == 1 && self.to.last().is_multiple_of(unit);
            let index = || broadcast_index(&vectors(self.to), &shape, vector);
            let value = k.let_(local, if by_vector { buffer.at(index()) } else { element(at) });
            return vec![value; self.width];
        }
        (0..self.width).map(|lane| element(&(at + lane))).collect()
    }
}

/// Returns the type of `width` floats.
pub(super) fn floats(width: usize) -> Type {
    Type::F32.vector(width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Batch;

    #[test]
    fn a_broadcast_index_divides_once_per_run_of_axes() {
        let to = Shape::from([Batch, 4, 5, 6]);
        let index = |from: Shape| broadcast_index(&to, &from, &Expr::name("i", Type::U32)).to_string();
        assert_eq!(index(to.clone()), "i");
        assert_eq!(index(Shape::fixed([6])), "i % 6u");
        assert_eq!(index(Shape::scalar()), "0u");
        assert_eq!(index(Shape::from([Batch, 1, 1, 6])), "i / 120u * 6u + i % 6u");
        assert_eq!(index(Shape::fixed([4, 1, 1])), "i / 30u % 4u");
        let repeats = |from: Shape| repeats(&to, &from);
        assert_eq!([repeats(to.clone()), repeats(Shape::fixed([6])), repeats(Shape::fixed([4, 1, 1]))], [1, 1, 30]);
        assert_eq!([repeats(Shape::from([Batch, 1, 1, 1])), repeats(Shape::fixed([5, 1]))], [120, 6]);
    }
}
