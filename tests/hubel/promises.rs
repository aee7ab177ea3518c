//! The promised accuracies, stated a second time, independently of the operations: each operation's own bounds must
//! keep them, so that no bound can be widened in the operation's file alone.

use crate::harness::{reference, sample_graph, sample_inputs, step_of};
use hubel::{
    graph::{Elementary, Graph, Io, Program, Sample, Step, Value},
    ops::{Accumulate, Elementwise, FAMILIES, TABLE},
    prelude::{DType, F32},
    tensor::{Accuracy, Array, Philox, Purpose, stream_id},
};

const UNIT: f64 = 1.0 / 16_777_216.0;
const LEAST: f64 = f32::MIN_POSITIVE as f64;

/// The promise for a family's results.
enum Promise {
    /// The same number.
    Exact,
    /// Sums of products: max(8, 2·√K)·2⁻²⁴·Σ|a·b| with K terms; K from shapes and batch.
    Sums(fn(&Io, usize) -> u64),
    /// A product of K factors: a rounding for each.
    Factors(fn(&Io, usize) -> u64),
    /// A sum of at most this number of elements of the last input, selected by the others.
    Chosen(u64),
    /// The exponential's bound and that of a sum of K, at the distance from the row's largest element.
    Softmax,
    /// Several roundings in sequence: an error relative to the largest operand or result, or to 1.
    Composed(f64),
    /// To gamma and beta, sums of K products of which one factor carries inverseSqrt's error; to x, composed.
    NormalizationGradient,
    /// Sums of the gradient of a normalisation, by their magnitudes.
    NormalizationSums,
    /// Held row by row of the table of functions.
    Functions,
}

fn fixed(io: &Io, input: usize, axes: &[usize]) -> u64 {
    axes.iter().map(|&a| io.inputs[input].shape.dims()[a] as u64).product()
}

fn elements(io: &Io, input: usize, n: usize) -> u64 {
    io.inputs[input].shape.elements().at(n)
}

fn promise(family: &str) -> Option<Promise> {
    use Promise::*;
    Some(match family {
        "accumulate" => Sums(|_, n| n as u64 + 1),
        "accuracy"
        | "argmax"
        | "cast"
        | "concat"
        | "literal"
        | "non_max_suppression"
        | "slice"
        | "slice_grad"
        | "top_k"
        | "gather"
        | "max_pool2d"
        | "pad2d"
        | "reshape"
        | "transpose" => Exact,
        // A window has at most 72 pixels.
        "avg_pool2d" | "avg_pool2d_grad" => Sums(|_, _| 72),
        "lp_pool2d" => Composed(32.0 * UNIT),
        // A quotient may be off by as much as two products.
        "lp_pool2d_grad" => Sums(|_, _| 3 * 72),
        "batch_norm" | "batch_norm_statistics" | "group_norm" => Composed(1e-4),
        "batch_norm_grad" | "group_norm_grad" => NormalizationGradient,
        "batch_norm_sums" => NormalizationSums,
        "conv2d" => Sums(|io, _| fixed(io, 1, &[0, 1, 2])),
        "conv2d_grad_input" => Sums(|io, _| fixed(io, 1, &[0, 1, 3])),
        // Terms are images times output positions: what dy holds for each output channel.
        "conv2d_grad_weight" => Sums(|io, n| elements(io, 1, n) / io.inputs[1].shape.last() as u64),
        // Roundings of places up to a hundred, with slopes between pixels.
        "affine2d" => Composed(1e-4),
        "dropout" => Composed(2.0 * UNIT),
        // A logarithm near 1, its root, a cosine that WGSL lets be off by 2⁻¹¹.
        "random" => Composed(8e-3),
        "elementwise" => Functions,
        "gather_grad" => Sums(|io, n| elements(io, 0, n)),
        "matmul" => Sums(|io, n| elements(io, 0, n)),
        "max_pool2d_grad" => Chosen(25),
        "top_k_grad" => Chosen(65),
        "resize2d" => Sums(|_, _| 4),
        // At most all results of an image and channel are read from one pixel.
        "pad2d_grad" | "resize2d_grad" => Sums(|io, _| fixed(io, 0, &[1, 2])),
        "nadam" => Composed(64.0 * UNIT),
        "adagrad" | "adam" | "moving_average" | "rmsprop" | "sgd" => Composed(32.0 * UNIT),
        "reduce_prod" => Factors(|io, n| elements(io, 0, n) / io.outputs[0].shape.elements().at(n).max(1)),
        "reduce" => Sums(|io, n| elements(io, 0, n) / io.outputs[0].shape.elements().at(n).max(1)),
        // Roundings pass from step to step.
        "simple_rnn" | "lstm" | "gru" | "simple_rnn_grad" | "lstm_grad" | "gru_grad" => Composed(1e-5),
        "local_response_norm" => Composed(1e-5),
        "local_response_norm_grad" => Composed(1e-4),
        "log_softmax" => Composed(1e-5),
        "softmax" => Softmax,
        "softmax_cross_entropy" => Composed(2e-5),
        _ => return None,
    })
}

fn allowed(
    promise: &Promise,
    (sample, io, step): (&Sample, &Io, &Step),
    inputs: &[&Array],
    exact: &Array,
    k: usize,
) -> Vec<f64> {
    let ulp = |x: f64| 2f64.powi(x.abs().max(LEAST).log2().floor() as i32 - 23);
    match promise {
        Promise::Exact => vec![LEAST; exact.data.len()],
        Promise::Sums(_) | Promise::Chosen(_) => {
            let (terms, kept) = match promise {
                Promise::Sums(terms) => (terms(io, sample.n), 0),
                Promise::Chosen(terms) => (*terms, inputs.len() - 1),
                _ => unreachable!("the outer arm"),
            };
            let mut absolute: Vec<Array> = inputs.iter().map(|&a| a.clone()).collect();
            absolute[kept..].iter_mut().for_each(|a| *a = a.map(f64::abs));
            let sums = sample.op.reference(&absolute.iter().collect::<Vec<_>>(), step).swap_remove(k);
            let factor = (2.0 * (terms as f64).sqrt()).max(8.0) * UNIT;
            sums.data.iter().map(|s| factor * s.abs() + LEAST).collect()
        }
        Promise::Factors(terms) => {
            exact.data.iter().map(|y| terms(io, sample.n) as f64 * UNIT * y.abs() + LEAST).collect()
        }
        Promise::Softmax => {
            let c = exact.shape.last().copied().unwrap_or(1).max(1);
            let sum = 2.0 * (c as f64).sqrt().max(4.0);
            (exact.data.iter().enumerate())
                .map(|(i, y)| {
                    let row = &inputs[0].data[i / c * c..][..c];
                    let below = row.iter().fold(f64::MIN, |m, x| m.max(*x)) - inputs[0].data[i];
                    (7.0 + 2.0 * below + sum) * ulp(*y).max(UNIT * UNIT) + 2.0 * LEAST
                })
                .collect()
        }
        Promise::Composed(relative) => {
            let all = inputs.iter().copied().chain([exact]).flat_map(|a| &a.data);
            vec![relative * all.fold(1f64, |m, e| m.max(e.abs())) + LEAST; exact.data.len()]
        }
        Promise::NormalizationGradient if k == 0 => {
            allowed(&Promise::Composed(1e-4), (sample, io, step), inputs, exact, k)
        }
        Promise::NormalizationGradient | Promise::NormalizationSums => {
            // The sums go through two more products each, the last one through a third and a difference.
            let more = match promise {
                Promise::NormalizationSums if k == 3 => 28.0,
                Promise::NormalizationSums => 24.0,
                _ => 8.0,
            };
            // Below 0, so that what is multiplied by it is added, not taken away, and counts by its magnitude.
            let (mean, c) = (inputs[2].map(|mean| -mean.abs()), inputs[1].data.len());
            // Means are those of channels, or of samples and groups of channels.
            let (of_sample, groups) = match mean.shape[..] {
                [samples, groups] => (inputs[0].data.len() / samples, groups),
                _ => (usize::MAX, c),
            };
            let of = |i: usize| i / of_sample * groups + i % c / (c / groups);
            let deviation = |i: usize| (inputs[0].data[i] - inputs[2].data[of(i)]).abs();
            let away = Array::from_fn(inputs[0].shape.clone(), |i| mean.data[of(i)] + deviation(i));
            let magnitudes = [&away, inputs[1], &mean, inputs[3], &inputs[4].map(f64::abs)];
            let sums = sample.op.reference(&magnitudes, step).swap_remove(k);
            let rows = away.data.len() as f64 / c as f64;
            sums.data.iter().map(|s| ((2.0 * rows.sqrt()).max(8.0) + more) * UNIT * s.abs() + 2.0 * LEAST).collect()
        }
        Promise::Functions => vec![f64::INFINITY; exact.data.len()],
    }
}

#[test]
fn no_operation_allows_itself_more_than_is_promised() {
    let mut failed = Vec::new();
    for family in FAMILIES {
        let mut rng = Philox::new(u64::from(stream_id(family.name)), Purpose::Test, 9);
        'samples: for _ in 0..64 {
            let sample = (family.sample)(&mut rng);
            let Some(promise) = promise(sample.op.name()).or_else(|| promise(family.name)) else {
                failed.push(format!("{}: state its promise here", family.name));
                break;
            };
            let (graph, _, outputs) = sample_graph(&sample);
            let io = graph.io(graph.node(outputs[0]));
            let arrays = sample_inputs(&sample, &mut rng);
            let inputs: Vec<&Array> = arrays.iter().collect();
            let step = step_of(&sample, &mut rng);
            let exact = sample.op.reference(&inputs, &step);
            for (k, bounds) in sample.op.bounds(&io, &inputs, &exact, &step).iter().enumerate() {
                let allowed = allowed(&promise, (&sample, &io, &step), &inputs, &exact[k], k);
                let over = (bounds.data.iter().zip(&allowed)).map(|(b, a)| b / a).fold(0.0, f64::max);
                if !(over <= 1.0 + 1e-6) {
                    failed.push(format!("{} {:?} output {k}: {over} of what is promised", family.name, sample.op));
                    break 'samples;
                }
            }
        }
    }
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
}

#[test]
fn no_function_allows_itself_more_than_is_promised() {
    let promised = |f: &Elementary| {
        Some(match f.name {
            "add" | "sub" | "mul" | "square" => Accuracy::Ulp(1.0),
            "div" => Accuracy::Ulp(2.5),
            "rsqrt" => Accuracy::Ulp(2.0),
            "sqrt" => Accuracy::Ulp(5.0),
            "exp" => Accuracy::Exp,
            "log" => Accuracy::Log,
            "sin" | "cos" => Accuracy::Absolute(2e-6),
            "tanh" => Accuracy::Relative(4e-6),
            "sigmoid" => Accuracy::Sigmoid,
            "pow" => Accuracy::Pow,
            "prelu" => Accuracy::Ulp(1.0),
            "erf" => Accuracy::Absolute(5e-7),
            "gelu" => Accuracy::PerInput(5e-7),
            "gelu_tanh" => Accuracy::PerInput(1e-6),
            // Twice the exponential's bound, and a unit or two for each further rounding.
            "silu" => Accuracy::Exps { exps: 2.0, ulps: 9.0 },
            "softplus" => Accuracy::Exps { exps: 2.0, ulps: 12.0 },
            "mish" => Accuracy::Exps { exps: 2.0, ulps: 16.0 },
            "elu" => Accuracy::Exps { exps: 2.0, ulps: 18.0 },
            "selu" => Accuracy::Exps { exps: 2.0, ulps: 20.0 },
            "hard_sigmoid" => Accuracy::Ulp(3.0),
            "softsign" | "hard_swish" => Accuracy::Ulp(4.0),
            "floor" | "ceil" | "round" | "less" | "less_equal" | "not_equal" | "clip" | "relu6" | "neg" | "abs"
            | "sign" | "relu" | "where_positive" | "at_least" | "max" | "min" | "equal" | "greater"
            | "greater_equal" | "where" => Accuracy::Exact,
            _ => return None,
        })
    };
    let failed: Vec<_> =
        TABLE.iter().filter(|f| promised(f) != Some(f.accuracy)).map(|f| (f.name, f.accuracy)).collect();
    assert!(failed.is_empty(), "{failed:?}: other than promised, or not promised here");
}

/// How NaN in an input is met again.
#[derive(PartialEq)]
enum Nan {
    /// NaN in any element gives NaN in some result.
    Everywhere,
    /// There are elements that no result is made of; NaN in all gives NaN.
    InAll,
    /// The operation decides by comparing, names places by the input, or chooses another operand.
    Nowhere,
}

fn nan_in(op: &str, input: usize, inputs: usize) -> Nan {
    match (op, input) {
        ("greater" | "greater_equal" | "less" | "less_equal" | "equal" | "not_equal", _) => Nan::Nowhere,
        ("argmax" | "non_max_suppression" | "categorical_accuracy" | "sparse_categorical_accuracy", _) => Nan::Nowhere,
        ("prelu" | "elu", 1) | ("where", 1 | 2) | ("where_positive", 0) => Nan::Nowhere,
        // Numbers of rows.
        ("gather" | "gather_grad", _) => Nan::Nowhere,
        // Bytes.
        ("cast", _) => Nan::Nowhere,
        ("affine2d", i) if i + 1 < inputs => Nan::Nowhere,
        // The places of maxima.
        ("max_pool2d_grad", 0 | 1) => Nan::Nowhere,
        // The states of a linear cell, and the kernel of a single timestep.
        ("simple_rnn_grad", 0 | 1) => Nan::Nowhere,
        // Elements that are cropped, skipped by strides, or used only by taps on padding.
        ("slice" | "pad2d" | "pad2d_grad" | "resize2d", _) => Nan::InAll,
        ("conv2d" | "conv2d_grad_input" | "conv2d_grad_weight" | "avg_pool2d" | "max_pool2d", _) => Nan::InAll,
        ("lp_pool2d" | "lp_pool2d_grad", _) => Nan::InAll,
        _ => Nan::Everywhere,
    }
}

#[test]
fn nan_in_is_nan_out_of_every_operation() {
    let mut failed = Vec::new();
    for family in FAMILIES {
        let mut rng = Philox::new(u64::from(stream_id(family.name)), Purpose::Test, 14);
        'samples: for _ in 0..64 {
            let sample = (family.sample)(&mut rng);
            let (arrays, mut step) = (sample_inputs(&sample, &mut rng), step_of(&sample, &mut rng));
            // Sums that begin anew forget what was before.
            step.scalars[Accumulate::KEEP] = 1.0;
            let before = sample.op.reference(&arrays.iter().collect::<Vec<_>>(), &step);
            let padding_alone = before[0].data.iter().all(|y| *y == 0.0);
            for (input, (ty, _)) in sample.inputs.iter().enumerate() {
                let computed = sample.derived.iter().any(|(i, _)| *i == input);
                let wanted = nan_in(sample.op.name(), input, arrays.len());
                if ty.dtype != DType::F32
                    || computed
                    || wanted == Nan::Nowhere
                    || (wanted == Nan::InAll && padding_alone)
                {
                    continue;
                }
                let mut planted = arrays.clone();
                let at = rng.below(planted[input].data.len());
                planted[input].data[at] = f64::NAN;
                if wanted == Nan::InAll {
                    planted[input].data.fill(f64::NAN);
                }
                let outputs = sample.op.reference(&planted.iter().collect::<Vec<_>>(), &step);
                if !outputs.iter().any(|y| y.data.iter().any(|y| y.is_nan())) {
                    failed.push(format!("{} {:?} input {input} at {at}", family.name, sample.op));
                    break 'samples;
                }
            }
        }
    }
    assert!(failed.is_empty(), "NaN is lost in\n{}", failed.join("\n"));
}

#[test]
fn functions_at_infinity_are_what_ieee_and_keras_make_of_it() {
    const INF: f64 = f64::INFINITY;
    const NAN: f64 = f64::NAN;
    // At +inf and -inf.
    let wanted = |name: &str| {
        Some(match name {
            "neg" => [-INF, INF],
            "abs" | "square" => [INF, INF],
            "sign" | "tanh" | "erf" => [1.0, -1.0],
            "relu" | "exp" | "softplus" => [INF, 0.0],
            "relu6" => [6.0, 0.0],
            "log" | "sqrt" => [INF, NAN],
            "rsqrt" => [0.0, NAN],
            "sigmoid" | "hard_sigmoid" => [1.0, 0.0],
            "sin" | "cos" | "softsign" => [NAN, NAN],
            "floor" | "ceil" | "round" => [INF, -INF],
            "selu" => [INF, -1.7580993408473766],
            // Infinity times 0.
            "gelu" | "gelu_tanh" | "silu" | "mish" | "hard_swish" => [INF, NAN],
            _ => return None,
        })
    };
    let same = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan());
    for f in TABLE.iter().filter(|f| f.arity == 1) {
        let wanted = wanted(f.name).unwrap_or_else(|| panic!("{}: state its limits here", f.name));
        let got = [INF, -INF].map(|x| (f.eval)(x, 0.0, 0.0));
        assert!(same(got[0], wanted[0]) && same(got[1], wanted[1]), "{}: {got:?}", f.name);
        assert!((f.eval)(NAN, 0.0, 0.0).is_nan() && (f.eval)(-NAN, 0.0, 0.0).is_nan(), "{}", f.name);
    }
    let at =
        |name: &str, a: f64, b: f64, c: f64| (TABLE.iter().find(|f| f.name == name).expect("a function").eval)(a, b, c);
    for (name, on_nan) in [
        ("greater", 0.0),
        ("greater_equal", 0.0),
        ("less", 0.0),
        ("less_equal", 0.0),
        ("equal", 0.0),
        ("not_equal", 1.0),
    ] {
        assert!([(NAN, 1.0), (1.0, NAN), (NAN, NAN)].iter().all(|&(a, b)| at(name, a, b, 0.0) == on_nan), "{name}");
    }
    assert_eq!(at("equal", INF, INF, 0.0), 1.0);
    for name in ["max", "min", "at_least", "pow", "add", "sub", "mul", "div"] {
        assert!(at(name, NAN, 1.0, 0.0).is_nan() && at(name, 0.5, NAN, 0.0).is_nan(), "{name}");
    }
    assert!(["clip", "where"].iter().all(|name| at(name, NAN, 0.0, 1.0).is_nan()));
    assert_eq!([at("clip", INF, 0.0, 1.0), at("clip", -INF, 0.0, 1.0), at("elu", -INF, 2.0, 0.0)], [1.0, 0.0, -2.0]);
}

#[test]
fn the_gradient_at_nan_is_nan() {
    // Functions whose gradient does not depend on where it is taken.
    let constant = ["add", "sub", "neg"];
    for f in TABLE.iter().filter(|f| !constant.contains(&f.name)) {
        for input in 0..f.arity {
            let mut g = Graph::new();
            let x: Vec<Value> = (0..f.arity).map(|i| g.input(&format!("x{i}"), [1], F32)).collect();
            let y = g.apply1(Elementwise::from(Program::of(f)), &x).expect("as many operands as it has");
            let dy = g.input("dy", [1], F32);
            let gradients = (f.grad)(&mut g, &x, y, dy).expect("gradients");
            gradients.iter().flatten().enumerate().for_each(|(i, d)| g.output(&format!("d{i}"), *d));
            if gradients.iter().flatten().next().is_none() || nan_in(f.name, input, f.arity) == Nan::Nowhere {
                continue;
            }
            let number = |x: f64| Array { shape: vec![1], data: vec![x] };
            let at = |i: usize| number(if i == input { f64::NAN } else { 0.5 });
            let mut feeds: Vec<_> = (0..f.arity).map(|i| (format!("x{i}"), at(i))).collect();
            feeds.push(("dy".into(), number(1.0)));
            let got = reference(&g, &feeds, &Step::of(1));
            assert!(got.iter().any(|d| d.data[0].is_nan()), "{} at NaN in operand {input}: {got:?}", f.name);
        }
    }
}

#[test]
fn the_promised_numbers_are_what_the_names_mean() {
    let at = |a: Accuracy, inputs: &[f64], exact: f64, magnitude: f64| a.bound(inputs, exact, magnitude) - LEAST;
    let ulp = 2.0 * UNIT;
    let cases = [
        (at(Accuracy::Exact, &[3.0], 3.0, 3.0), 0.0),
        (at(Accuracy::Ulp(2.5), &[1.0], 1.5, 1.5), 2.5 * ulp),
        (at(Accuracy::Exp, &[-3.0], (-3f64).exp(), 0.0), 9.0 * ulp / 32.0),
        (at(Accuracy::Log, &[1.5], 1.5f64.ln(), 0.0), 2f64.powi(-21)),
        (at(Accuracy::Log, &[8.0], 8f64.ln(), 0.0), 6.0 * ulp),
        (at(Accuracy::Relative(4e-6), &[0.0], -0.5, 0.0), 2e-6),
        (at(Accuracy::Sigmoid, &[2.0], 0.88, 0.0), 11.0 * ulp / 2.0),
        (at(Accuracy::Products { terms: 9 }, &[], 1.0, 5.0), 40.0 * UNIT),
        (at(Accuracy::Products { terms: 100 }, &[], 1.0, 5.0), 100.0 * UNIT),
    ];
    for (i, (got, wanted)) in cases.iter().enumerate() {
        assert!((got - wanted).abs() <= 1e-12 * wanted, "case {i}: {got:e} instead of {wanted:e}");
    }
}
