//! Products.

use crate::{
    graph::{OpError, Value},
    nn::onnx::call::{Arrangement, Build, Call, Kind, T},
    ops::MatmulOptions,
    tensor::Shape,
};

pub const OPERATORS: &[(&str, Build)] = &[("Einsum", einsum), ("Gemm", gemm), ("MatMul", matmul)];

/// Returns how a matrix (K, N) of a file, or (N, K) transposed, becomes a kernel for rows: flattened maps are stored with
/// channels last.
fn kernel(dims: [usize; 2], transposed: bool, maps: Option<&[usize]>) -> Arrangement {
    let [k, n] = if transposed { [dims[1], dims[0]] } else { dims };
    let maps = maps.map_or(vec![k], <[usize]>::to_vec);
    let rank = maps.len();
    let (read, order): (Vec<usize>, Vec<usize>) = match transposed {
        true => (std::iter::once(n).chain(maps).collect(), (2..=rank).chain([1, 0]).collect()),
        false => (maps.into_iter().chain([n]).collect(), (1..rank).chain([0, rank]).collect()),
    };
    Arrangement { read, order, dims: vec![k, n] }
}

fn gemm(c: &mut Call) -> Result<Vec<T>, OpError> {
    let (alpha, beta) = (c.node.float("alpha", 1.0), c.node.float("beta", 1.0));
    let (turn_a, turn_b) = (c.node.int("transA", 0) == 1, c.node.int("transB", 0) == 1);
    let mut a = c.t(0)?;
    let b_dims = c.dims(1)?;
    let &[r, s] = &b_dims[..] else {
        return Err(c.wrong("a matrix", format!("{b_dims:?}"), "use MatMul for stacks"));
    };
    if a.rank() != 2 {
        // Early files flatten here.
        let dims = c.dims_of(&a);
        let rows = dims.first().copied().unwrap_or(1);
        a = c.reshape(a, &[rows, dims.iter().skip(1).product()])?;
    }
    if turn_a {
        a = c.natural_of(a)?;
        a.axes = vec![1, 0];
    }
    let kept = a.flat.is_some() && a.axes == [0, 1] && c.constant(1).is_some();
    let maps = a.flat.clone().filter(|_| kept);
    let a = if kept { a } else { c.natural_of(a)? };
    let b = c.weight(1, "kernel", Kind::Trainable, &kernel([r, s], turn_b, maps.as_deref()))?;
    let mut y = c.g().matmul(a.value, b)?;
    if alpha != 1.0 {
        y = c.g().scale(y, alpha)?;
    }
    let n = if turn_b { r } else { s };
    if c.has(2) {
        let is_row = c.constant(2).is_some_and(|k| k.count() == n && k.dims.last() == Some(&n));
        let mut bias = if is_row { c.vector(2, "bias", Kind::Trainable)? } else { c.natural(2)?.value };
        if beta != 1.0 {
            bias = c.g().scale(bias, beta)?;
        }
        y = c.g().add(y, bias)?;
    }
    Ok(vec![T::natural(y, 2, a.elem)])
}

fn matmul(c: &mut Call) -> Result<Vec<T>, OpError> {
    let b_dims = c.dims(1)?;
    let x = c.t(0)?;
    if let (Some(_), &[k, n]) = (c.constant(1), &b_dims[..]) {
        let maps = x.flat.clone().filter(|_| x.axes == [0, 1]);
        if x.rank() > 1 {
            // Only the summed axis must be stored last.
            let last = x.rank() - 1;
            let axes: Vec<usize> = x.axes.iter().copied().filter(|&a| a != last).chain([last]).collect();
            let x = if maps.is_some() { x } else { c.arranged(x, &axes)? };
            let b = c.weight(1, "kernel", Kind::Trainable, &kernel([k, n], false, maps.as_deref()))?;
            let y = c.g().project(x.value, b, None)?;
            return Ok(vec![T { value: y, axes, elem: x.elem, flat: None }]);
        }
    }
    let (a, b) = (c.t(0)?, c.t(1)?);
    Ok(vec![product(c, a, b)?])
}

/// Returns the product of stacks of matrices, with NumPy's rules.
pub fn product(c: &mut Call, a: T, b: T) -> Result<T, OpError> {
    let (mut a_dims, mut b_dims) = (c.dims_of(&a), c.dims_of(&b));
    let (row, column) = (a_dims.len() == 1, b_dims.len() == 1);
    let mut a = a;
    let mut b = b;
    if row {
        a_dims.insert(0, 1);
        a = c.reshape(a, &a_dims)?;
    }
    if column {
        b_dims.push(1);
        b = c.reshape(b, &b_dims)?;
    }
    if a_dims.len() < 2 || b_dims.len() < 2 {
        return Err(c.wrong("vectors, matrices or stacks of them", "a number", "multiply by it"));
    }
    let (m, n) = (a_dims[a_dims.len() - 2], b_dims[b_dims.len() - 1]);
    let outer = broadcast(c, &a_dims[..a_dims.len() - 2], &b_dims[..b_dims.len() - 2])?;
    let y = match b_dims.len() == 2 && !c.g().shape(b.value).is_batched() {
        true => {
            let (a, b) = (c.natural_of(a)?, c.natural_of(b)?);
            c.g().project(a.value, b.value, None)?
        }
        false => stacked(c, a, b, &outer)?,
    };
    let mut dims = outer;
    dims.extend((!row).then_some(m));
    dims.extend((!column).then_some(n));
    let rank = c.g().shape(y).rank();
    let y = T::natural(y, rank, 1);
    if c.dims_of(&y) == dims { Ok(y) } else { c.reshape(y, &dims) }
}

fn broadcast(c: &Call, a: &[usize], b: &[usize]) -> Result<Vec<usize>, OpError> {
    let shape = Shape::fixed(a).broadcast(&Shape::fixed(b));
    let shape =
        shape.ok_or_else(|| c.wrong("stacks of as many matrices", format!("{a:?} and {b:?}"), "reshape one"))?;
    Ok(shape.dims().to_vec())
}

/// Returns the products of two stacks of matrices, of which the second may be stored transposed.
fn stacked(c: &mut Call, a: T, b: T, outer: &[usize]) -> Result<Value, OpError> {
    let count: usize = outer.iter().product();
    let rank = b.rank();
    let turned: Vec<usize> = (0..rank - 2).chain([rank - 1, rank - 2]).collect();
    let transpose_b = b.axes == turned;
    let a = c.natural_of(a)?;
    let mut b = if transpose_b { T { axes: (0..rank).collect(), ..b } } else { c.natural_of(b)? };
    let mut stack = |t: &mut T| -> Result<(), OpError> {
        let dims = c.dims_of(t);
        let (own, inner) = dims.split_at(dims.len() - 2);
        let mut whole = outer.to_vec();
        whole.extend(inner);
        let own_batch = c.g().shape(t.value).is_batched();
        if own != outer {
            let shape = if own_batch { Shape::batched(whole[0], &whole[1..]) } else { Shape::fixed(whole.clone()) };
            t.value = c.g().expand(t.value, &shape)?;
            t.axes = (0..whole.len()).collect();
        }
        *t = c.reshape(t.clone(), &[count, inner[0], inner[1]])?;
        Ok(())
    };
    let mut a = a;
    stack(&mut a)?;
    stack(&mut b)?;
    // One side alone may have the batch.
    let (of_a, of_b) = (c.g().shape(a.value).clone(), c.g().shape(b.value).clone());
    if of_a.is_batched() != of_b.is_batched() {
        if of_b.is_batched() {
            a.value = c.g().expand(a.value, &Shape::batched(count, &of_a.dims()[1..]))?;
        } else {
            b.value = c.g().expand(b.value, &Shape::batched(count, &of_b.dims()[1..]))?;
        }
    }
    let y = c.g().matmul_with(a.value, b.value, MatmulOptions { transpose_a: false, transpose_b })?;
    let shape = c.g().shape(y).clone();
    let mut dims = outer.to_vec();
    dims.extend(&shape.dims()[1..]);
    let shape = if shape.is_batched() { Shape::batched(dims[0], &dims[1..]) } else { Shape::fixed(dims) };
    c.g().reshape(y, shape)
}

/// Returns a sum over products of one or two tensors, whose axes letters name: axes that both have and keep are stacks, those that
/// both have and lose are summed.
fn einsum(c: &mut Call) -> Result<Vec<T>, OpError> {
    let equation: String = c.node.text("equation", "").chars().filter(|ch| !ch.is_whitespace()).collect();
    let refused = |c: &Call| {
        let advice = "write it with MatMul, Transpose and ReduceSum";
        Err(c.wrong("an equation of one or two tensors with letters, each once in a tensor", &equation, advice))
    };
    let (inputs, output) = match equation.split_once("->") {
        Some((inputs, output)) => (inputs.to_owned(), Some(output.to_owned())),
        None => (equation.clone(), None),
    };
    let terms: Vec<Vec<char>> = inputs.split(',').map(|t| t.chars().collect()).collect();
    let repeats = |t: &[char]| (1..t.len()).any(|i| t[..i].contains(&t[i]));
    let plain = terms.iter().all(|t| t.iter().all(|ch| ch.is_ascii_alphabetic()) && !repeats(t));
    let output: Vec<char> = match output {
        Some(output) => output.chars().collect(),
        None => {
            let mut all: Vec<char> = terms.iter().flatten().copied().collect();
            all.sort_unstable();
            let once: Vec<char> =
                all.iter().copied().filter(|ch| all.iter().filter(|o| *o == ch).count() == 1).collect();
            once
        }
    };
    let ranks = (0..terms.len()).all(|i| c.rank(i) == terms[i].len());
    let known = output.iter().all(|ch| terms.iter().any(|t| t.contains(ch)));
    if !plain || !ranks || !known || repeats(&output) || terms.len() > 2 || terms.len() != c.slots.len() {
        return refused(c);
    }
    let mut parts = Vec::new();
    for (i, term) in terms.iter().enumerate() {
        let other: &[char] = if terms.len() == 2 { &terms[1 - i] } else { &[] };
        parts.push(summed(c, i, term, |ch| other.contains(&ch) || output.contains(&ch))?);
    }
    let (y, letters) = match &parts[..] {
        [(x, letters)] => (x.clone(), letters.clone()),
        [a, b] => contracted(c, a, b, &output)?,
        _ => return refused(c),
    };
    let axes: Vec<usize> = output.iter().filter_map(|ch| letters.iter().position(|l| l == ch)).collect();
    // Stored axis i is letter i, which is axis number `place` of the result.
    let mut stored = vec![0; axes.len()];
    axes.iter().enumerate().for_each(|(to, &from)| stored[from] = to);
    Ok(vec![T { axes: stored, ..y }])
}

/// Returns an operand in ONNX's order, summed over the axes that nothing else has.
fn summed(c: &mut Call, i: usize, term: &[char], keep: impl Fn(char) -> bool) -> Result<(T, Vec<char>), OpError> {
    let x = c.natural(i)?;
    let gone: Vec<usize> = (0..term.len()).filter(|&a| !keep(term[a])).collect();
    let letters: Vec<char> = term.iter().copied().filter(|&ch| keep(ch)).collect();
    if gone.is_empty() {
        return Ok((x, letters));
    }
    if gone[0] == 0 && c.g().shape(x.value).is_batched() {
        return Err(c.batch("a sum over the batch"));
    }
    let y = c.g().sum(x.value, &gone, false)?;
    Ok((T::natural(y, letters.len(), x.elem), letters))
}

/// Returns the product of two tensors as stacks of matrices.
fn contracted(
    c: &mut Call,
    (a, of_a): &(T, Vec<char>),
    (b, of_b): &(T, Vec<char>),
    output: &[char],
) -> Result<(T, Vec<char>), OpError> {
    let both = |ch: &&char| of_a.contains(ch) && of_b.contains(ch);
    let stack: Vec<char> = of_a.iter().filter(both).filter(|ch| output.contains(ch)).copied().collect();
    let inner: Vec<char> = of_a.iter().filter(both).filter(|ch| !output.contains(ch)).copied().collect();
    let rows: Vec<char> = of_a.iter().filter(|ch| !of_b.contains(ch)).copied().collect();
    let columns: Vec<char> = of_b.iter().filter(|ch| !of_a.contains(ch)).copied().collect();
    let mut extents: Vec<(char, usize)> = of_a.iter().copied().zip(c.dims_of(a)).collect();
    extents.extend(of_b.iter().copied().zip(c.dims_of(b)));
    let size = |letters: &[char]| -> Vec<usize> {
        letters.iter().filter_map(|ch| extents.iter().find(|(l, _)| l == ch).map(|(_, n)| *n)).collect()
    };
    let mut matrices = |t: &T, letters: &[char], order: [&[char]; 3]| -> Result<T, OpError> {
        let axes: Vec<usize> = order.concat().iter().filter_map(|ch| letters.iter().position(|l| l == ch)).collect();
        let t = c.arranged(t.clone(), &axes)?;
        let t = T { axes: (0..axes.len()).collect(), ..t };
        let dims = order.map(|part| size(part).iter().product());
        c.reshape(t, &dims)
    };
    let a = matrices(a, of_a, [&stack, &rows, &inner])?;
    let b = matrices(b, of_b, [&stack, &inner, &columns])?;
    let y = product(c, a, b)?;
    let letters = [&stack[..], &rows, &columns].concat();
    let y = c.reshape(y, &size(&letters))?;
    Ok((y, letters))
}
