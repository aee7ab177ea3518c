//! Optimisers with each of their options against Keras on given gradients: tests/golden/optimizers.py.

use crate::harness::engine;
use hubel::{
    graph::{OpError, Value},
    io::safetensors,
    layers::*,
    nn::Scope,
    optimizers::*,
    prelude::*,
};
use serde_json::Value as Json;
use std::fs;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/");

/// Returns its two weights, concatenated, along with its input of zeros.
#[derive(Debug)]
struct Weights;

impl Layer for Weights {
    fn kind(&self) -> &'static str {
        "Weights"
    }

    fn build(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let (a, b) = (scope.weight("a", &[3, 4], &Zeros)?, scope.weight("b", &[5], &Zeros)?);
        let a = scope.graph.reshape(a, [12])?;
        let both = scope.graph.concat(&[a, b], 0)?;
        Ok(vec![scope.graph.add(inputs[0], both)?])
    }
}

/// Its gradient to the output is the label.
#[derive(Debug)]
struct Given;

impl Loss for Given {
    fn name(&self) -> &'static str {
        "given"
    }

    fn build(&self, g: &mut Graph, output: Value, _: Option<Value>, labels: Value) -> Result<Value, OpError> {
        let product = g.mul(output, labels)?;
        g.sum(product, &[1], false)
    }
}

fn compile(case: &Json) -> Compile {
    let given = |key: &str| case["options"][key].as_f64().map(|x| x as f32);
    macro_rules! with {
        ($Optimizer:ident: $($option:ident),* $(; $($flag:ident),*)?) => {{
            let mut o = match case["decayed"] == true {
                true => $Optimizer::new(ExponentialDecay::new(0.05, 2, 0.5)),
                false => $Optimizer::new(0.05),
            };
            let mut known = 0;
            $(if let Some(x) = given(stringify!($option)) { o = o.$option(x); known += 1; })*
            $($(if case["options"][stringify!($flag)] == true { o = o.$flag(true); known += 1; })*)?
            if let Some(x) = given("weight_decay") { o = o.weight_decay(x); known += 1; }
            if let Some(x) = given("clipnorm") { o = o.clipnorm(x); known += 1; }
            if let Some(x) = given("clipvalue") { o = o.clipvalue(x); known += 1; }
            if let Some(x) = given("global_clipnorm") { o = o.global_clipnorm(x); known += 1; }
            assert_eq!(known, case["options"].as_object().expect("options").len(), "{case}");
            Compile::new(o, Given)
        }};
    }
    match case["class"].as_str().expect("a class") {
        "SGD" => with!(Sgd: momentum; nesterov),
        "Adam" => with!(Adam: beta_1, beta_2, epsilon; amsgrad),
        "AdamW" => with!(AdamW: beta_1, beta_2, epsilon; amsgrad),
        "RMSprop" => with!(RmsProp: rho, momentum; centered),
        "Adagrad" => with!(Adagrad: initial_accumulator_value, epsilon),
        "Nadam" => with!(Nadam: beta_1, beta_2, epsilon),
        other => panic!("{other}"),
    }
}

#[test]
fn optimizers_with_every_option_go_where_keras_goes() {
    let text = fs::read(format!("{GOLDEN}optimizers.json")).expect("a file");
    let cases: Vec<Json> = serde_json::from_slice(&text).expect("JSON");
    let tensors = safetensors::open(format!("{GOLDEN}optimizers.safetensors")).expect("a file");
    let tensor = |name: &str| tensors.iter().find(|t| t.0 == name).unwrap_or_else(|| panic!("no {name}")).1.clone();
    let model = Sequential::new([17]).add(Weights).build().expect("a model");
    let mut wrong = Vec::new();
    for case in &cases {
        let name = case["name"].as_str().expect("a name");
        let mut trainer = model.compile(engine(), compile(case)).expect("a trainer");
        let names: Vec<String> = trainer.model().weight_names().iter().map(|n| (*n).to_owned()).collect();
        let first = names.iter().enumerate().map(|(k, n)| (n.clone(), tensor(&format!("w{k}"))));
        trainer.set_weights(&first.collect::<Vec<_>>()).expect("weights");
        for step in 0..5 {
            let of = |name: &str, row: usize| tensor(name).to_f32()[step * row..(step + 1) * row].to_vec();
            let labels = HostTensor::f32([1, 17], [of("g0", 12), of("g1", 5)].concat()).expect("labels");
            let zeros = HostTensor::f32([1, 17], vec![0.0; 17]).expect("samples");
            trainer.train_on_batch(&Dataset::new(zeros, labels).expect("a data set")).expect("a step");
            for (k, (_, weight)) in trainer.weights().expect("weights").iter().enumerate() {
                let wanted = of(&format!("{name}/{k}"), [12, 5][k]);
                let max = wanted.iter().fold(0f32, |m, x| m.max(x.abs()));
                let off = weight.to_f32().iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                if off.is_nan() || off > 1e-4 * max {
                    wrong.push(format!("{case} step {step} weight {k}: off by {off} of {max}"));
                }
            }
        }
    }
    assert!(wrong.is_empty() && cases.len() >= 50, "{} wrong\n{}", wrong.len(), wrong.join("\n"));
}
