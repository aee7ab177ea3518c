use crate::{
    graph::TensorType,
    tensor::{DType, Shape, strides},
};

/// Returns the WGSL element type under which a tensor is bound.
pub fn storage_type(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "f32",
        DType::I32 => "i32",
        DType::U8 | DType::U32 | DType::F16 | DType::BF16 => "u32",
    }
}

/// Returns a WGSL expression for element `index` of a bound tensor as f32.
pub fn load(name: &str, dtype: DType, index: &str) -> String {
    match dtype {
        DType::F32 => format!("{name}[{index}]"),
        DType::U8 => format!("f32((({name}[({index}) >> 2u]) >> ((({index}) & 3u) * 8u)) & 255u)"),
        DType::F16 => format!("unpack2x16float({name}[({index}) >> 1u])[({index}) & 1u]"),
        DType::BF16 => format!("bitcast<f32>((({name}[({index}) >> 1u]) >> ((({index}) & 1u) * 16u)) << 16u)"),
        DType::I32 | DType::U32 => format!("f32({name}[{index}])"),
    }
}

/// Returns a WGSL expression for the flat index into a tensor of shape `from` that is broadcast to `to`,
/// where `at` is the flat index into `to`.
pub fn broadcast_index(to: &Shape, from: &Shape, at: &str) -> String {
    let rank = to.rank();
    let skip = rank - from.rank();
    let from_strides = strides(from.dims());
    let to_dims = to.dims();
    let to_strides = strides(to_dims);
    let moves = |i: usize| i >= skip && (from.dims()[i - skip] != 1 || (from.is_batched() && i == skip));
    let mut terms = Vec::new();
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
        let inner = to_strides[i];
        let mut term = if inner == 1 { at.to_owned() } else { format!("({at} / {inner}u)") };
        if start > 0 && to_dims[..start].iter().enumerate().any(|(k, &d)| d != 1 || (k == 0 && to.is_batched())) {
            let extent: usize = to_dims[start..=i].iter().product();
            term = format!("({term} % {extent}u)");
        }
        let stride = from_strides[i - skip];
        terms.push(if stride == 1 { term } else { format!("{term} * {stride}u") });
        i += 1;
    }
    if terms.is_empty() { "0u".into() } else { terms.join(" + ") }
}

/// Returns how many neighbouring elements of a tensor of shape `to` read the same element of one of shape `from` that is
/// broadcast to it, the first of them at a multiple of that number.
fn repeats(to: &Shape, from: &Shape) -> usize {
    let moves = |i: usize| from.dims()[i] != 1 || (from.is_batched() && i == 0);
    let still = (0..from.rank()).rev().take_while(|&i| !moves(i)).count();
    let still = if still == from.rank() { to.rank() } else { still };
    to.dims()[to.rank() - still..].iter().product()
}

/// How `width` neighbouring elements of a tensor are read that is broadcast to another.
pub struct Neighbours {
    /// WGSL storage type under which the tensor is bound: S where its elements are read as vectors.
    pub storage: &'static str,
    /// A statement that reads what several of them share; maybe none.
    pub head: String,
    /// The expression of each.
    pub values: Vec<String>,
}

/// Returns how the tensor `name` of type `from` is read at `width` places from flat index `at` of shape `to` on, a
/// multiple of `width`; `vector` is `at / width`. What they share is read as `local`.
pub fn neighbours(
    name: &str,
    local: &str,
    from: &TensorType,
    to: &Shape,
    width: usize,
    [at, vector]: [&str; 2],
) -> Neighbours {
    let element = |at: &str| load(name, from.dtype, &broadcast_index(to, &from.shape, at));
    let lanes = |value: &dyn Fn(usize) -> String| (0..width).map(value).collect();
    if width > 1 && from.shape == *to && from.dtype == DType::F32 {
        let head = format!("    let {local} = unpack({name}[{vector}]);\n");
        return Neighbours { storage: "S", head, values: lanes(&|lane| format!("{local}[{lane}]")) };
    }
    let storage = storage_type(from.dtype);
    if width > 1 && repeats(to, &from.shape).is_multiple_of(width) {
        let head = format!("    let {local} = {};\n", element(at));
        return Neighbours { storage, head, values: lanes(&|_| local.to_owned()) };
    }
    let value = |lane| if lane > 0 { element(&format!("({at} + {lane}u)")) } else { element(at) };
    Neighbours { storage, head: String::new(), values: lanes(&value) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Batch;

    #[test]
    fn a_broadcast_index_divides_once_per_run_of_axes() {
        let to = Shape::from([Batch, 4, 5, 6]);
        assert_eq!(broadcast_index(&to, &to, "i"), "i");
        assert_eq!(broadcast_index(&to, &Shape::fixed([6]), "i"), "(i % 6u)");
        assert_eq!(broadcast_index(&to, &Shape::scalar(), "i"), "0u");
        assert_eq!(broadcast_index(&to, &Shape::from([Batch, 1, 1, 6]), "i"), "(i / 120u) * 6u + (i % 6u)");
        assert_eq!(broadcast_index(&to, &Shape::fixed([4, 1, 1]), "i"), "((i / 30u) % 4u)");
        let repeats = |from: Shape| repeats(&to, &from);
        assert_eq!([repeats(to.clone()), repeats(Shape::fixed([6])), repeats(Shape::fixed([4, 1, 1]))], [1, 1, 30]);
        assert_eq!([repeats(Shape::from([Batch, 1, 1, 1])), repeats(Shape::fixed([5, 1]))], [120, 6]);
    }
}
