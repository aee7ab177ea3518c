//! The definitions of the major operations against Keras's results; tests/golden/make.py writes the files.

use hubel::{
    graph::{Graph, OpError, Step, Value, evaluate},
    ops::{
        Cell, CellActivation, CellKind, Conv2dOptions, Interpolation, MatmulOptions, Optimizer, PadMode, Padding, Part,
        Pool2dOptions, Recurrent, Rule,
    },
    tensor::{Array, Batch, DType, HostTensor, Shape},
};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value as Json;
use std::collections::HashMap;

/// One vector: attributes and named tensors.
struct Case {
    name: String,
    attributes: Json,
    tensors: HashMap<String, HostTensor>,
}

/// Returns the cases of a file, at least 20.
fn cases(file: &str) -> Vec<Case> {
    let bytes = std::fs::read(format!("{}/tests/golden/{file}.safetensors", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let attributes = header.metadata().as_ref().and_then(|m| m.get("cases")).unwrap();
    let Json::Object(attributes) = serde_json::from_str(attributes).unwrap() else { panic!("{file}: no cases") };
    let all = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |name: &str| {
        let view = all.tensor(name).unwrap();
        let dtype = if view.dtype() == Dtype::I32 { DType::I32 } else { DType::F32 };
        HostTensor::from_bytes(view.shape(), dtype, view.data()).unwrap()
    };
    let cases: Vec<Case> = (attributes.into_iter())
        .map(|(case, attributes)| {
            let prefix = format!("{case}/");
            let names = all.names().into_iter().filter_map(|n| Some((n, n.strip_prefix(&prefix)?)));
            let tensors = names.map(|(full, short)| (short.to_owned(), tensor(full))).collect();
            Case { name: format!("{file} {case}"), attributes, tensors }
        })
        .collect();
    assert!(cases.len() >= 20, "{file} holds {} cases", cases.len());
    cases
}

impl Case {
    fn pair(&self, key: &str) -> [usize; 2] {
        serde_json::from_value(self.attributes[key].clone()).unwrap()
    }

    fn flag(&self, key: &str) -> bool {
        self.attributes[key].as_bool().unwrap()
    }

    fn number(&self, key: &str) -> f32 {
        self.attributes[key].as_f64().unwrap() as f32
    }

    fn array(&self, name: &str) -> Result<Array, String> {
        Ok(self.tensors.get(name).ok_or(format!("{}: the file has no {name}", self.name))?.to_array())
    }

    fn padding(&self) -> Padding {
        match &self.attributes["padding"] {
            Json::String(s) if s == "same" => Padding::Same,
            Json::String(s) if s == "valid" => Padding::Valid,
            pads => Padding::Explicit(serde_json::from_value(pads.clone()).unwrap()),
        }
    }

    /// Adds a tensor to the graph as an input; those named in `batched` have the batch as first axis.
    fn input(&self, g: &mut Graph, name: &str, batched: &[&str]) -> Value {
        let t = self.tensors.get(name).unwrap_or_else(|| panic!("{} has no {name}", self.name));
        let mut shape = t.shape().to_vec();
        if batched.contains(&name) {
            shape[0] = Batch;
        }
        g.input(name, shape, t.dtype())
    }

    /// Builds the operation on the inputs `given` and compares what `build` returns with `wanted`; where that begins
    /// with `y`, also the gradient to each input, given `dy` for `y`, with d<input>.
    fn check(
        &self,
        given: &[&str],
        batched: &[&str],
        wanted: &[&str],
        build: impl Fn(&mut Graph, &[Value]) -> Result<Vec<Value>, OpError>,
    ) -> Result<(), String> {
        let mut g = Graph::new();
        let inputs: Vec<Value> = given.iter().map(|name| self.input(&mut g, name, batched)).collect();
        let outputs = build(&mut g, &inputs).map_err(|e| format!("{}: {e}", self.name))?;
        let mut results: Vec<(String, Value)> =
            wanted.iter().zip(&outputs).map(|(name, &v)| (name.to_string(), v)).collect();
        if wanted[0] == "y" {
            let (y, dy) = (outputs[0], self.input(&mut g, "dy", batched));
            let context = |e: OpError| format!("{}: {e}", self.name);
            let product = g.mul(y, dy).map_err(context)?;
            let axes: Vec<usize> = (0..g.shape(product).rank()).collect();
            let loss = g.sum(product, &axes, false).map_err(context)?;
            let grads = g.gradients(loss, &inputs).map_err(context)?;
            results.extend(given.iter().map(|name| format!("d{name}")).zip(grads));
        }
        self.compare(g, &results)
    }

    /// Evaluates the graph on the case's tensors and compares the results with those of the same names.
    fn compare(&self, mut g: Graph, results: &[(String, Value)]) -> Result<(), String> {
        results.iter().for_each(|(name, value)| g.output(name, *value));
        let feeds = (self.tensors.iter()).filter_map(|(name, t)| Some((g.find(name)?, t.to_array()))).collect();
        let n = ["x", "logits"].iter().find_map(|name| self.tensors.get(*name)).map_or(1, |t| t.shape()[0]);
        let evaluation = evaluate(&g, feeds, &Step::of(n), false);
        for (name, value) in results {
            let got = evaluation.get(*value).ok_or(format!("{}: {name} was not computed", self.name))?;
            close(got, &self.array(name)?).map_err(|e| format!("{}, {name}: {e}", self.name))?;
        }
        Ok(())
    }
}

/// Returns an error if an element is off by more than 1e-5 of the largest (or 1e-12, if all cancels).
fn close(got: &Array, wanted: &Array) -> Result<(), String> {
    if got.shape != wanted.shape {
        return Err(format!("shape {:?}, wanted {:?}", got.shape, wanted.shape));
    }
    let allowed = 1e-12 + 1e-5 * wanted.data.iter().fold(0.0f64, |m, w| m.max(w.abs()));
    match got.data.iter().zip(&wanted.data).position(|(g, w)| !((g - w).abs() <= allowed)) {
        None => Ok(()),
        Some(i) => Err(format!("element {i} is {}, wanted {} within {allowed:e}", got.data[i], wanted.data[i])),
    }
}

/// Fails with all the cases that fail.
fn all(file: &str, check: impl Fn(&Case) -> Result<(), String>) {
    let failed: Vec<String> = cases(file).iter().filter_map(|case| check(case).err()).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn conv2d(case: &Case, strides: [usize; 2], padding: Padding) -> Result<(), String> {
    let options = Conv2dOptions::new(padding).strides(strides);
    case.check(&["x", "w"], &["x", "dy"], &["y"], |g, v| Ok(vec![g.conv2d(v[0], v[1], options)?]))
}

#[test]
fn conv2d_is_keras() {
    all("conv2d", |case| conv2d(case, case.pair("stride"), case.padding()));
}

#[test]
fn wrong_convolutions_are_noticed() {
    for case in cases("conv2d") {
        let ([down, right], padding) = (case.pair("stride"), case.padding());
        if down != right {
            assert!(conv2d(&case, [right, down], padding).is_err(), "{}: strides swapped", case.name);
        }
        if let Padding::Explicit([[t, b], [l, r]]) = padding
            && (t, l) != (b, r)
        {
            let turned = Padding::Explicit([[b, t], [r, l]]);
            assert!(conv2d(&case, [down, right], turned).is_err(), "{}: padding on the other side", case.name);
        }
    }
}

#[test]
fn matmul_is_keras() {
    all("matmul", |case| {
        let options = MatmulOptions { transpose_a: case.flag("transpose_a"), transpose_b: case.flag("transpose_b") };
        case.check(&["a", "b"], &[], &["y"], |g, v| Ok(vec![g.matmul_with(v[0], v[1], options)?]))
    });
}

fn of_windows(case: &Case) -> Conv2dOptions {
    Conv2dOptions::new(case.padding()).strides(case.pair("stride")).dilation(case.pair("dilation"))
}

#[test]
fn grouped_and_depthwise_convolution_is_keras() {
    all("conv2d_groups", |case| {
        let options = of_windows(case).groups(case.number("groups") as usize);
        case.check(&["x", "w"], &["x", "dy"], &["y"], |g, v| Ok(vec![g.conv2d(v[0], v[1], options)?]))
    });
    all("depthwise", |case| {
        case.check(&["x", "w"], &["x", "dy"], &["y"], |g, v| {
            let &[kh, kw, c, multiplier] = g.shape(v[1]).dims() else { panic!("weights have four axes") };
            let w = g.reshape(v[1], [kh, kw, 1, c * multiplier])?;
            Ok(vec![g.conv2d(v[0], w, of_windows(case).groups(c))?])
        })
    });
}

#[test]
fn conv2d_transpose_is_keras() {
    all("conv2d_transpose", |case| {
        let more = (!case.attributes["output_padding"].is_null()).then(|| case.pair("output_padding"));
        case.check(&["x", "w"], &["x", "dy"], &["y"], |g, v| {
            Ok(vec![g.conv2d_transpose(v[0], v[1], of_windows(case), more)?])
        })
    });
}

#[test]
fn conv1d_is_keras() {
    all("conv1d", |case| {
        case.check(&["x", "w"], &["x", "dy"], &["y"], |g, v| Ok(vec![g.conv1d(v[0], v[1], of_windows(case))?]))
    });
}

#[test]
fn average_and_global_pooling_is_keras() {
    all("avg_pool2d", |case| {
        let options = Pool2dOptions { pool: case.pair("size"), strides: case.pair("stride"), padding: case.padding() };
        case.check(&["x"], &["x", "dy"], &["y"], |g, v| Ok(vec![g.avg_pool2d(v[0], options)?]))
    });
    all("global_pool", |case| {
        let max = case.attributes["rule"] == "max";
        case.check(&["x"], &["x", "dy"], &["y"], |g, v| {
            Ok(vec![if max { g.global_max_pool2d(v[0])? } else { g.global_avg_pool2d(v[0])? }])
        })
    });
}

#[test]
fn layer_and_group_norm_is_keras() {
    let given = ["x", "gamma", "beta"];
    all("layer_norm", |case| {
        case.check(&given, &["x", "dy"], &["y"], |g, v| {
            Ok(vec![g.layer_norm(v[0], v[1], v[2], case.number("epsilon"))?])
        })
    });
    all("group_norm", |case| {
        let groups = case.number("groups") as usize;
        case.check(&given, &["x", "dy"], &["y"], |g, v| {
            Ok(vec![g.group_norm(v[0], v[1], v[2], groups, case.number("epsilon"))?])
        })
    });
}

#[test]
fn max_pool2d_is_keras() {
    all("max_pool2d", |case| {
        let options = Pool2dOptions { pool: case.pair("size"), strides: case.pair("stride"), padding: case.padding() };
        case.check(&["x"], &["x", "dy"], &["y"], |g, v| Ok(vec![g.max_pool2d(v[0], options)?]))
    });
}

#[test]
fn batch_norm_is_keras() {
    all("batch_norm", |case| {
        case.check(&["x", "gamma", "beta"], &["x", "dy"], &["y", "mean", "variance"], |g, v| {
            Ok(g.batch_norm(v[0], v[1], v[2], case.number("epsilon"))?.to_vec())
        })
    });
}

#[test]
fn batch_norm_inference_is_keras() {
    all("batch_norm", |case| {
        let given = ["x", "gamma", "beta", "moving_mean", "moving_variance"];
        case.check(&given, &["x"], &["y_inference"], |g, v| {
            Ok(vec![g.batch_norm_inference(v[0], [v[1], v[2], v[3], v[4]], case.number("epsilon"))?])
        })
    });
}

#[test]
fn softmax_is_keras() {
    all("softmax", |case| case.check(&["x"], &["x", "dy"], &["y"], |g, v| Ok(vec![g.softmax(v[0])?])));
}

#[test]
fn log_softmax_is_keras() {
    all("log_softmax", |case| case.check(&["x"], &["x", "dy"], &["y"], |g, v| Ok(vec![g.log_softmax(v[0])?])));
}

#[test]
fn softmax_cross_entropy_is_keras() {
    all("cross_entropy", |case| {
        let given = ["logits", "labels"];
        case.check(&given, &given, &["loss", "dlogits"], |g, v| {
            let losses = g.softmax_cross_entropy(v[0], v[1])?;
            Ok(vec![losses, Value { output: 0, ..losses }])
        })
    });
}

#[test]
fn activations_are_keras() {
    all("activation", |case| {
        let name = case.attributes["function"].as_str().unwrap();
        let arguments: Vec<f32> = serde_json::from_value(case.attributes["arguments"].clone()).unwrap();
        case.check(&["x"], &[], &["y"], |g, v| {
            Ok(vec![match name {
                "leaky_relu" => g.leaky_relu(v[0], arguments[0])?,
                "elu" => g.elu(v[0], arguments[0])?,
                "clip" => g.clip(v[0], arguments[0], arguments[1])?,
                _ => g.unary(name, v[0])?,
            }])
        })
    });
}

#[test]
fn concat_is_keras() {
    all("concat", |case| {
        let names: Vec<String> = (0..case.number("count") as usize).map(|k| format!("x{k}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        case.check(&names, &[], &["y"], |g, v| Ok(vec![g.concat(v, case.number("axis") as usize)?]))
    });
}

#[test]
fn resize2d_is_keras() {
    all("resize", |case| {
        let bilinear = case.attributes["interpolation"] == "bilinear";
        let interpolation = if bilinear { Interpolation::Bilinear } else { Interpolation::Nearest };
        let size = case.pair("size");
        case.check(&["x"], &["x", "dy"], &["y"], |g, v| Ok(vec![g.resize2d(v[0], size, interpolation)?]))
    });
}

#[test]
fn pad2d_is_keras() {
    all("pad", |case| {
        let mode = match case.attributes["mode"].as_str() {
            Some("reflect") => PadMode::Reflect,
            Some("replicate") => PadMode::Replicate,
            _ => PadMode::Constant(case.number("value")),
        };
        let pads: [[isize; 2]; 2] = serde_json::from_value(case.attributes["pads"].clone()).unwrap();
        case.check(&["x"], &["x", "dy"], &["y"], |g, v| Ok(vec![g.pad2d_with(v[0], pads, mode)?]))
    });
}

#[test]
fn top_k_and_argmax_are_keras() {
    all("top_k", |case| {
        let k = case.number("k") as usize;
        case.check(&["x"], &["x", "dy"], &["y"], |g, v| Ok(g.top_k(v[0], k)?.to_vec()))?;
        case.check(&["ties"], &["ties"], &["indices", "first"], |g, v| {
            Ok(vec![g.top_k(v[0], k)?[1], g.argmax(v[0], 1)?])
        })
    });
}

fn recurrent(case: &Case, order: [usize; 4]) -> Result<(), String> {
    let layer = case.attributes["layer"].as_str().unwrap();
    let activation = match case.attributes["activation"].as_str() {
        Some("linear") => CellActivation::Linear,
        Some("relu") => CellActivation::Relu,
        Some("sigmoid") => CellActivation::Sigmoid,
        _ => CellActivation::Tanh,
    };
    let (kind, gate) = match layer {
        "simple_rnn" => (CellKind::Simple, CellActivation::Linear),
        "lstm" => (CellKind::Lstm, CellActivation::Sigmoid),
        "gru_before" => (CellKind::GruBefore, CellActivation::Sigmoid),
        _ => (CellKind::GruAfter, CellActivation::Sigmoid),
    };
    let given: Vec<&str> =
        ["x", "w", "u", "bias", "h0", "c0"].into_iter().filter(|name| case.tensors.contains_key(*name)).collect();
    case.check(&given, &["x", "h0", "c0", "dy"], &["y"], |g, v| {
        let of = |name: &str| given.iter().position(|n| *n == name).map(|i| v[i]);
        let (mut bias, mut recurrent_bias) = (of("bias"), None);
        if kind == CellKind::GruAfter {
            let width = g.shape(v[1]).last();
            recurrent_bias = Some(match bias {
                Some(both) => {
                    let [input, recurrent] = [0, 1].map(|row| {
                        let part = g.slice_axis(both, 0, Part::new(row, 1))?;
                        g.reshape(part, [width])
                    });
                    bias = Some(input?);
                    recurrent?
                }
                None => {
                    let zero = g.constant(0.0)?;
                    g.expand(zero, &Shape::fixed([width]))?
                }
            });
        }
        let mut x = g.project(v[0], v[1], bias)?;
        if kind == CellKind::Lstm && order != [0, 1, 2, 3] {
            let u = g.shape(x).last() / 4;
            let gates: Result<Vec<Value>, OpError> =
                order.iter().map(|&k| g.slice_axis(x, 2, Part::new(k * u, u))).collect();
            x = g.concat(&gates?, 2)?;
        }
        let initial = match (of("h0"), of("c0")) {
            (Some(h), Some(c)) => Some(g.concat(&[h, c], 1)?),
            (h, _) => h,
        };
        let operands: Vec<Value> = [x, v[2]].into_iter().chain(recurrent_bias).chain(initial).collect();
        let states = g.apply(Recurrent { cell: Cell { kind, activation, gate } }, &operands)?;
        let Some(&cells) = states.get(1) else { return Ok(states) };
        let last = g.slice_axis(cells, 1, Part::new(g.shape(cells).dims()[1] - 1, 1))?;
        Ok(vec![g.concat(&[states[0], last], 1)?])
    })
}

#[test]
fn recurrent_layers_are_keras() {
    all("recurrent", |case| recurrent(case, [0, 1, 2, 3]));
}

#[test]
fn another_order_of_gates_is_noticed() {
    for case in cases("recurrent").iter().filter(|case| case.attributes["layer"] == "lstm") {
        assert!(recurrent(case, [1, 0, 2, 3]).is_err(), "{}: input and forget gates swapped", case.name);
    }
}

#[test]
fn embedding_is_keras() {
    all("embedding", |case| {
        let given = ["table"];
        case.check(&given, &["x", "dy"], &["y"], |g, v| {
            let indices = case.input(g, "x", &["x"]);
            Ok(vec![g.embedding(v[0], indices)?])
        })
    });
}

#[test]
fn gradient_clipping_is_keras() {
    all("clip", |case| {
        let limit = case.number("limit");
        case.check(&["g0", "g1", "g2"], &[], &["c0", "c1", "c2"], |g, v| match case.attributes["rule"].as_str() {
            Some("norm") => v.iter().map(|&v| g.clip_by_norm(v, limit)).collect(),
            Some("value") => v.iter().map(|&v| g.clip(v, -limit, limit)).collect(),
            _ => g.clip_by_global_norm(v, limit),
        })
    });
}

/// Compares the moves of a weight over the file's steps; rates are the host's, as the rule's definition says.
fn optimizer(case: &Case) -> Result<(), String> {
    let (start, gradients) = (case.array("w")?, case.array("g")?);
    let number = |key| case.number(key);
    let betas = || (number("beta_1"), number("beta_2"), number("epsilon"));
    let rule = match case.attributes["rule"].as_str() {
        Some("sgd") => Rule::Sgd { momentum: number("momentum"), nesterov: case.flag("nesterov") },
        Some("adam" | "adamw") => {
            let (beta_1, beta_2, epsilon) = betas();
            Rule::Adam { beta_1, beta_2, epsilon, amsgrad: false }
        }
        Some("nadam") => {
            let (beta_1, beta_2, epsilon) = betas();
            Rule::Nadam { beta_1, beta_2, epsilon }
        }
        Some("rmsprop") => {
            let (rho, momentum, epsilon) = (number("rho"), number("momentum"), number("epsilon"));
            Rule::Rmsprop { rho, momentum, epsilon, centered: case.flag("centered") }
        }
        _ => Rule::Adagrad { epsilon: number("epsilon") },
    };
    let weight_decay = case.attributes.get("weight_decay").map_or(0.0, |_| number("weight_decay"));
    let mut g = Graph::new();
    let mut ty = |name: &str| g.input(name, &start.shape[..], DType::F32);
    let (w, dw) = (ty("w"), ty("dw"));
    let mut states = vec![w];
    states.extend((0..rule.n_moments()).map(|m| ty(&format!("m{m}"))));
    let moments: Vec<[Value; 1]> = states[1..].iter().map(|&m| [m]).collect();
    let moments: Vec<&[Value]> = moments.iter().map(|m| &m[..]).collect();
    let results =
        g.optimize(Optimizer { rule, weight_decay, factor: 1.0 }, &[w], &[dw], &moments).map_err(|e| e.to_string())?;
    results.iter().enumerate().for_each(|(i, &v)| g.output(&i.to_string(), v));
    let first = if matches!(rule, Rule::Adagrad { .. }) { 0.1 } else { 0.0 };
    let mut values = vec![Array::full(start.shape.clone(), first); states.len()];
    values[0] = start.clone();
    states.push(dw);
    let mut moves = Array { shape: gradients.shape.clone(), data: Vec::new() };
    for (t, gradient) in gradients.data.chunks(start.data.len()).enumerate() {
        let mut step = Step::of(1);
        step.scalars = rule.scalars(f64::from(number("learning_rate")), t as u64);
        values.push(Array { shape: start.shape.clone(), data: gradient.to_vec() });
        let feeds = states.iter().copied().zip(values).collect();
        let mut evaluation = evaluate(&g, feeds, &step, false);
        values = results.iter().map(|&v| evaluation.take(v)).collect::<Option<_>>().ok_or("a result is missing")?;
        moves.data.extend(values[0].data.iter().zip(&start.data).map(|(w, s)| w - s));
    }
    close(&moves, &case.array("moves")?).map_err(|e| format!("{}: {e}", case.name))
}

#[test]
fn optimizers_are_keras() {
    all("optimizer", optimizer);
}
