use crate::tensor::{DType, Shape, strides};

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
    }
}
