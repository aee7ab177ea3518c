//! The definitions of the major operations against what Keras computes: tests/golden/make.py says what the files hold.

use hubel::{
    graph::{Graph, OpError, Step, Value, evaluate},
    ops::{Conv2dOptions, MatmulOptions, Padding, Pool2dOptions},
    tensor::{Array, Batch, DType, HostTensor},
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
            let node = g.node(y).clone();
            let outputs: Vec<Value> = (0..node.outputs.len() as u32).map(|output| Value { output, ..y }).collect();
            let dys: Vec<Option<Value>> = outputs.iter().map(|&v| (v == y).then_some(dy)).collect();
            let op = node.op().ok_or("the output is no operation's")?;
            let grads = op.vjp(&mut g, &node.inputs, &outputs, &dys).map_err(|e| format!("{}: {e}", self.name))?;
            for (name, grad) in given.iter().zip(grads) {
                results.push((format!("d{name}"), grad.ok_or(format!("{}: no gradient to {name}", self.name))?));
            }
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

/// Returns an error where an element is farther off than 1e-5 of the largest (or 1e-12, where all cancels).
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

/// Compares the moves of a weight over the file's steps; rates are the host's, as the rule's definition says.
fn optimizer(case: &Case) -> Result<(), String> {
    let (start, gradients) = (case.array("w")?, case.array("g")?);
    let adam = case.attributes["rule"] == "adam";
    let number = |key| case.number(key);
    let mut g = Graph::new();
    let mut ty = |name| g.input(name, &start.shape[..], DType::F32);
    let (w, dw, m, v) = (ty("w"), ty("dw"), ty("m"), ty("v"));
    let (results, mut states) = if adam {
        let results = g.adam(&[w], &[dw], &[m], &[v], number("beta_1"), number("beta_2"), number("epsilon"));
        (results, vec![w, m, v])
    } else if number("momentum") == 0.0 {
        (g.sgd(&[w], &[dw], &[], 0.0, case.flag("nesterov")), vec![w])
    } else {
        (g.sgd(&[w], &[dw], &[m], number("momentum"), case.flag("nesterov")), vec![w, m])
    };
    let results = results.map_err(|e| e.to_string())?;
    results.iter().enumerate().for_each(|(i, &v)| g.output(&i.to_string(), v));
    let mut values = vec![Array::zeros(start.shape.clone()); states.len()];
    values[0] = start.clone();
    states.push(dw);
    let mut moves = Array { shape: gradients.shape.clone(), data: Vec::new() };
    for (t, gradient) in gradients.data.chunks(start.data.len()).enumerate() {
        let mut step = Step::of(1);
        step.scalars[0] = number("learning_rate");
        if adam {
            let power = |key| 1.0 - f64::from(number(key)).powi(t as i32 + 1);
            step.scalars[1] = (f64::from(number("learning_rate")) * power("beta_2").sqrt() / power("beta_1")) as f32;
        }
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
