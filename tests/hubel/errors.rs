//! Every mistake of a user gives an error that names the layer, what was wanted and given, and what to do; nothing
//! panics.

use crate::{harness::engine, repository::is_generated};
use hubel::{
    Error,
    layers::*,
    nn::{call, call_all},
    prelude::*,
};
use serde_json::{Value as Json, json};
use std::{fmt::Write as _, panic::AssertUnwindSafe};

type Mistake = (&'static str, Box<dyn FnOnce() -> Result<(), Error>>);

/// One layer on samples of this shape.
fn on(shape: impl Into<Vec<usize>>, layer: impl IntoLayer + 'static) -> Box<dyn FnOnce() -> Result<(), Error>> {
    let shape = shape.into();
    Box::new(move || Ok(Sequential::new(shape).add(layer).build().map(drop)?))
}

fn on_two(
    a: impl Into<Vec<usize>>,
    b: impl Into<Vec<usize>>,
    layer: impl IntoLayer + 'static,
) -> Box<dyn FnOnce() -> Result<(), Error>> {
    let (a, b) = (a.into(), b.into());
    Box::new(move || Ok(call(layer, &[Input::new(a), Input::new(b)]).map(drop)?))
}

fn small() -> Model {
    let model = Sequential::new([8, 8, 3]).add(Conv2D::new(4, 3).name("conv")).add(Flatten::new());
    model.add(Dense::new(2).name("head")).build().expect("a model")
}

/// The small model as a functional one, whose JSON has the calls of layers.
fn functional() -> Result<Model, Error> {
    let x = Input::new([8, 8, 3]);
    let y = x.apply(Conv2D::new(4, 3).name("conv"))?.apply(Flatten::new())?.apply(Dense::new(2).name("head"))?;
    Ok(Model::new(&[x], &[y])?)
}

/// The small model's JSON with a change.
fn changed(change: impl FnOnce(&mut Json) + 'static) -> Box<dyn FnOnce() -> Result<(), Error>> {
    Box::new(move || {
        let mut json: Json = serde_json::from_str(&functional()?.to_json()?).expect("JSON");
        change(&mut json);
        Ok(Model::from_json(&json.to_string()).map(drop)?)
    })
}

/// A change of the convolution's entry.
fn conv(change: impl FnOnce(&mut Json) + 'static) -> Box<dyn FnOnce() -> Result<(), Error>> {
    changed(|json| change(&mut json["config"]["layers"][1]))
}

fn text(json: &'static str) -> Box<dyn FnOnce() -> Result<(), Error>> {
    Box::new(move || Ok(Model::from_json(json).map(drop)?))
}

fn weights(change: impl FnOnce(&mut Vec<(String, HostTensor)>) + 'static) -> Box<dyn FnOnce() -> Result<(), Error>> {
    Box::new(move || {
        let mut model = small();
        let mut tensors: Vec<_> = model.weights().iter().map(|w| (w.name.clone(), model.initial_value(w, 1))).collect();
        change(&mut tensors);
        Ok(model.set_weights(tensors)?)
    })
}

const HUGE: usize = 1 << 40;

fn shapes() -> Vec<Mistake> {
    vec![
        ("image layer on vectors", on([10], Conv2D::new(4, 3))),
        (
            "image layer after Flatten",
            Box::new(|| {
                let model = Sequential::new([8, 8, 3]).add(Flatten::new()).add(Conv2D::new(4, 3).name("late"));
                Ok(model.build().map(drop)?)
            }),
        ),
        (
            "second layer of a type",
            Box::new(|| {
                let model = Sequential::new([4, 4, 3]).add(Conv2D::new(4, 3)).add(Conv2D::new(4, 3));
                Ok(model.build().map(drop)?)
            }),
        ),
        ("sequence layer on images", on([8, 8, 3], LSTM::new(4))),
        ("sequence layer on vectors", on([8], GRU::new(4))),
        ("convolution over sequences on vectors", on([8], Conv1D::new(4, 3))),
        ("pooling on vectors", on([8], MaxPooling2D::new(2))),
        ("pooling over sequences on images", on([8, 8, 3], MaxPooling1D::new(2))),
        ("global pooling on vectors", on([8], GlobalAveragePooling2D::new())),
        ("dense layer on scalars", on([], Dense::new(4))),
        ("time distributed layer on vectors", on([8], TimeDistributed::new(Dense::new(4)))),
        ("kernel larger than the image", on([5, 5, 1], Conv2D::new(4, 7))),
        ("dilated kernel larger than the image", on([5, 5, 1], Conv2D::new(4, 3).dilation_rate(3))),
        ("kernel larger than the sequence", on([5, 1], Conv1D::new(4, 7))),
        ("separable kernel larger than the image", on([5, 5, 1], SeparableConv2D::new(4, 7))),
        ("pooling larger than the image", on([5, 5, 1], MaxPooling2D::new(6))),
        ("pooling larger than the sequence", on([5, 1], AveragePooling1D::new(6))),
        ("groups that do not divide the channels", on([8, 8, 3], Conv2D::new(4, 3).groups(2))),
        ("groups that do not divide the filters", on([8, 8, 4], Conv2D::new(3, 3).groups(2))),
        ("more groups than channels", on([8, 4], Conv1D::new(8, 3).groups(8))),
        ("no groups", on([8, 8, 3], Conv2D::new(4, 3).groups(0))),
        ("normalisation groups that do not divide", on([8, 8, 6], GroupNormalization::new().groups(4))),
        ("cropping the whole image", on([8, 8, 3], Cropping2D::new(4))),
        ("no size", on([8, 8, 3], Resizing::new(0, 4))),
        ("a scale for other channels", on([8, 8, 3], Rescaling::new([1.0, 2.0]))),
        ("a noise shape of another rank", on([8, 8, 3], Dropout::new(0.5).noise_shape(vec![None, Some(1)]))),
        ("reshape that does not fit", on([12], Reshape::new([5, 2]))),
        ("reshape with two open extents", on([12], Reshape::new([-1, -1]))),
        ("reshape that does not divide", on([12], Reshape::new([-1, 5]))),
        ("permutation that names an axis twice", on([3, 4], Permute::new([1, 1]))),
        ("axis beyond the rank: batch normalisation", on([8, 8, 3], BatchNormalization::new().axis(4))),
        ("axis beyond the rank: layer normalisation", on([8, 8, 3], LayerNormalization::new().axis(4))),
        ("axis beyond the rank: softmax", on([3], SoftmaxLayer::new(2))),
        ("axis beyond the rank: normalization", on([3], Normalization::new().axis(Some(5.into())))),
        ("axis beyond the rank: PReLU", on([3], PReLU::new().shared_axes(vec![2]))),
        (
            "axis beyond the rank: constraint",
            on(
                [3],
                Dense::new(2).bias_constraint(Constraint::MaxNorm { max_value: 1.0, axis: hubel::nn::Axes::One(1) }),
            ),
        ),
        ("concatenation along the batch", on_two([3], [3], Concatenate::new().axis(0))),
        ("sum of different sizes", on_two([8, 8, 4], [8, 8, 3], Add::new().name("sum"))),
        ("sum of different ranks", on_two([8, 8, 4], [4], Add::new())),
        ("concatenation of different sizes", on_two([8, 8, 4], [4, 4, 4], Concatenate::new())),
        (
            "difference of three",
            Box::new(|| {
                let x = Input::new([3]);
                Ok(subtract(&[x.clone(), x.clone(), x]).map(drop)?)
            }),
        ),
        ("sum of one", on([3], Add::new())),
        ("one input too many", on_two([3], [3], Dense::new(4))),
        ("no input", Box::new(|| Ok(call_all(Dense::new(4), &[]).map(drop)?))),
        (
            "initial states that do not fit",
            Box::new(|| {
                let inputs = [Input::new([5, 3]), Input::new([4])];
                Ok(call(LSTM::new(4), &inputs).map(drop)?)
            }),
        ),
        ("an activation that cells do not support", on([5, 3], LSTM::new(4).activation(Gelu))),
        ("bidirectional dense layer", on([5, 3], Bidirectional::new(Dense::new(4)))),
        ("error inside a layer of a layer", on([5, 8, 8], TimeDistributed::new(Conv2D::new(4, 3).name("inner")))),
        ("a model as layer on other samples", on([4, 4, 3], small())),
    ]
}

fn numbers() -> Vec<Mistake> {
    vec![
        ("no filters", on([8, 8, 3], Conv2D::new(0, 3))),
        ("no units", on([8], Dense::new(0))),
        ("no recurrent units", on([8, 3], SimpleRNN::new(0))),
        ("no taps", on([8, 8, 3], Conv2D::new(4, 0))),
        ("no strides", on([8, 8, 3], Conv2D::new(4, 3).strides(0))),
        ("no strides of a transposed convolution", on([8, 8, 3], Conv2DTranspose::new(4, 3).strides(0))),
        (
            "as much output padding as the stride",
            on([8, 8, 3], Conv2DTranspose::new(4, 3).strides(2).output_padding(2)),
        ),
        ("no dilation", on([8, 8, 3], DepthwiseConv2D::new(3).dilation_rate(0))),
        ("no strides of a pooling", on([8, 8, 3], AveragePooling2D::new(2).strides(0))),
        ("no window", on([8, 8, 3], MaxPooling2D::new(0))),
        ("no repetitions", on([8], RepeatVector::new(0))),
        ("an input without pixels", on([0, 8, 3], Conv2D::new(4, 3).padding(Same))),
        ("an empty embedding", on([8], Embedding::new(0, 4))),
        ("dropout rate above 1", on([8], Dropout::new(1.5))),
        ("dropout of NaN", on([8, 8, 3], SpatialDropout2D::new(f32::NAN))),
        ("negative recurrent dropout", on([8, 3], LSTM::new(4).dropout(-0.1))),
        ("noise of a negative deviation", on([8], GaussianNoise::new(-1.0))),
        ("not finite: slope", on([8], LeakyReLU::new(f32::NAN))),
        ("not finite: largest output", on([8], ReLU::new().max_value(f32::INFINITY))),
        ("not finite: scale", on([8], Rescaling::new(f32::NAN))),
        ("not finite: one of the means", on([2], Normalization::new().mean(hubel::nn::Numbers::from([0.0, f32::NAN])))),
        ("not finite: rotation", on([8, 8, 3], RandomRotation::new([0.0, f32::NAN]))),
        ("not finite: fill", on([8, 8, 3], RandomZoom::new(0.1).fill_value(f32::INFINITY))),
        (
            "not finite: epsilon inside a layer",
            on([3, 8], TimeDistributed::new(LayerNormalization::new().epsilon(f32::NAN))),
        ),
        ("not finite: L2", on([8], Dense::new(2).kernel_regularizer(L2(f32::NAN)))),
        ("negative L1 of outputs", on([8], Dense::new(2).activity_regularizer(L1(-0.1)))),
        ("not finite: largest norm", on([8], Dense::new(2).kernel_constraint(Constraint::max_norm(f32::NAN)))),
        (
            "a rate above 1 of a constraint",
            on(
                [8],
                Dense::new(2).kernel_constraint(Constraint::MinMaxNorm {
                    min_value: 0.0,
                    max_value: 1.0,
                    rate: 1.5,
                    axis: hubel::nn::Axes::One(0),
                }),
            ),
        ),
        (
            "not finite: initial value",
            on([8], Dense::new(2).bias_initializer(Initializer::Constant { value: f32::NAN })),
        ),
        (
            "negative deviation of initial values",
            on([8], Dense::new(2).kernel_initializer(Initializer::RandomNormal { mean: 0.0, stddev: -1.0 })),
        ),
        (
            "not finite: initial moving variance",
            on(
                [8],
                BatchNormalization::new().moving_variance_initializer(Initializer::Constant { value: f32::INFINITY }),
            ),
        ),
        ("momentum above 1", on([8], BatchNormalization::new().momentum(1.5))),
        ("not finite: momentum", on([8], BatchNormalization::new().momentum(f32::NAN))),
        ("negative epsilon", on([8], BatchNormalization::new().epsilon(-1.0))),
        ("huge: filters", on([8, 8, 3], Conv2D::new(HUGE, 3))),
        ("huge: filters of size 1", on([8, 8, 1], Conv2D::new(HUGE, 1))),
        ("huge: kernel", on([8, 8, 3], Conv2D::new(4, HUGE).padding(Same))),
        ("huge: strides", on([8, 8, 3], Conv2D::new(HUGE, 3).strides(usize::MAX))),
        ("huge: steps", on([8, 8, 3], Conv2D::new(4, 3).strides(usize::MAX))),
        ("huge: dilation", on([8, 8, 3], Conv2D::new(4, 3).dilation_rate(usize::MAX))),
        ("huge: groups", on([8, 8, 3], Conv2D::new(4, 3).groups(HUGE))),
        ("huge: taps of a row", on([8, 3], Conv1D::new(4, usize::MAX))),
        ("huge: multiplier", on([8, 8, 3], DepthwiseConv2D::new(3).depth_multiplier(usize::MAX))),
        ("huge: separable multiplier", on([8, 8, 3], SeparableConv2D::new(4, 3).depth_multiplier(HUGE))),
        ("huge: transposed strides", on([8, 8, 3], Conv2DTranspose::new(4, 3).strides(HUGE))),
        ("huge: units", on([8], Dense::new(usize::MAX))),
        ("huge: recurrent units", on([8, 3], LSTM::new(usize::MAX))),
        ("huge: embedding", on([8], Embedding::new(HUGE, 4))),
        ("huge: window", on([8, 8, 3], MaxPooling2D::new(HUGE))),
        ("huge: window in Same padding", on([8, 8, 3], MaxPooling2D::new(usize::MAX).padding(Same))),
        ("huge: padding", on([8, 8, 3], ZeroPadding2D::new(usize::MAX))),
        ("huge: padding of a sequence", on([8, 3], ZeroPadding1D::new(HUGE))),
        ("huge: cropping", on([8, 3], Cropping1D::new(usize::MAX))),
        ("huge: upsampling", on([8, 8, 3], UpSampling2D::new(HUGE))),
        ("huge: upsampling of a sequence", on([8, 3], UpSampling1D::new(usize::MAX))),
        ("huge: size", on([8, 8, 3], Resizing::new(usize::MAX, 4).crop_to_aspect_ratio(true))),
        ("huge: repetitions", on([8], RepeatVector::new(HUGE))),
        ("huge: reshape", on([8], Reshape::new([isize::MAX, isize::MAX]))),
        ("huge: axis", on([8, 8, 3], BatchNormalization::new().axis(isize::MIN))),
        ("huge: permutation", on([8, 8], Permute::new([usize::MAX, 1]))),
        ("huge: normalisation groups", on([8, 8, 3], GroupNormalization::new().groups(isize::MAX))),
        ("huge: input", on([HUGE, HUGE, HUGE], Relu)),
        (
            "huge: growth over several layers",
            Box::new(|| {
                let grow = || UpSampling2D::new(16);
                Ok(Sequential::new([1024, 1024, 64]).add(grow()).add(grow()).build().map(drop)?)
            }),
        ),
    ]
}

fn models() -> Vec<Mistake> {
    vec![
        ("unknown layer", Box::new(|| Ok(small().layer("haed").map(drop)?))),
        ("layer inside one that is not a model", Box::new(|| Ok(small().layer("conv/kernel").map(drop)?))),
        ("freezing an unknown layer", Box::new(|| Ok(small().set_trainable("haed", false)?))),
        ("freezing inside a layer that is not a model", Box::new(|| Ok(small().set_trainable("conv/x", false)?))),
        (
            "an unknown intermediate output",
            Box::new(|| small().inference_with(engine(), Batch::up_to(1), &["haed"]).map(drop)),
        ),
        (
            "equal names",
            Box::new(|| {
                let model = Sequential::new([8]).add(Dense::new(4).name("a")).add(Dense::new(4).name("a"));
                Ok(model.build().map(drop)?)
            }),
        ),
        (
            "an input that is not listed",
            Box::new(|| {
                let (a, b) = (Input::named("left", [4], F32), Input::named("right", [4], F32));
                Ok(Model::new(std::slice::from_ref(&a), &[add(&[a.clone(), b])?]).map(drop)?)
            }),
        ),
        (
            "an input that is listed twice",
            Box::new(|| {
                let x = Input::named("left", [4], F32);
                Ok(Model::new(&[x.clone(), x.clone()], &[x.apply(Relu)?]).map(drop)?)
            }),
        ),
        ("neither inputs nor outputs", Box::new(|| Ok(Model::new(&[], &[]).map(drop)?))),
        (
            "another output of the layer that a model begins with",
            Box::new(|| {
                let states = call_all(LSTM::new(4).return_state(true), &[Input::named("x", [5, 3], F32)])?;
                Ok(Model::new(&states[..1], &states[1..]).map(drop)?)
            }),
        ),
        ("no shape of a sample", Box::new(|| Ok(Sequential::default().add(Dense::new(4)).build().map(drop)?))),
        ("weights with another shape", weights(|t| t[0].1 = HostTensor::f32([1], vec![0.0]).expect("a number"))),
        ("weights with another name", weights(|t| t[0].0 = "conv/kernels".into())),
        ("a weight too few", weights(|t| drop(t.pop()))),
        (
            "weights larger than the memory budget",
            Box::new(|| {
                let model = Sequential::new([1 << 12]).add(Dense::new(1 << 12)).build()?;
                let small = Engine::builder().memory_budget(1 << 25).build()?;
                model.inference(&small, Batch::up_to(1)).map(drop)
            }),
        ),
        (
            "samples of another shape",
            Box::new(|| {
                let mut net = small().inference(engine(), Batch::up_to(1))?;
                net.predict(&HostTensor::f32([1, 7, 8, 3], vec![0.0; 168]).expect("an image")).map(drop)
            }),
        ),
    ]
}

fn files() -> Vec<Mistake> {
    vec![
        ("not JSON", text("keras")),
        ("JSON that ends early", text("{\"class_name\": \"Functional\", \"config\": {")),
        ("a number", text("3")),
        ("an empty object", text("{}")),
        ("no layers", text("{\"class_name\": \"Functional\", \"config\": {}}")),
        ("an empty sequence of layers", text("{\"class_name\": \"Sequential\", \"config\": {\"layers\": []}}")),
        ("layers that are not objects", text("{\"class_name\": \"Sequential\", \"config\": {\"layers\": [1, []]}}")),
        (
            "deeply nested layers",
            Box::new(|| {
                let json = "{\"class_name\":\"Sequential\",\"config\":{\"layers\":[".repeat(10_000);
                Ok(Model::from_json(&json).map(drop)?)
            }),
        ),
        ("unknown class", conv(|c| c["class_name"] = "Conv9D".into())),
        ("unknown activation", conv(|c| c["config"]["activation"] = "rrelu".into())),
        ("unknown padding", conv(|c| c["config"]["padding"] = "sane".into())),
        ("a layer named as its input", conv(|c| c["name"] = "input_layer".into())),
        ("unknown option", conv(|c| c["config"]["padded"] = "same".into())),
        ("unknown initialiser", conv(|c| c["config"]["kernel_initializer"] = json!({"class_name": "Best"}))),
        ("unknown regulariser", conv(|c| c["config"]["kernel_regularizer"] = json!({"class_name": "L3"}))),
        ("unknown constraint", conv(|c| c["config"]["kernel_constraint"] = json!({"class_name": "Least"}))),
        ("an option of another type", conv(|c| c["config"]["filters"] = "many".into())),
        ("three strides", conv(|c| c["config"]["strides"] = json!([1, 2, 3]))),
        ("negative filters", conv(|c| c["config"]["filters"] = json!(-4))),
        ("half a filter", conv(|c| c["config"]["filters"] = json!(0.5))),
        ("huge filters", conv(|c| c["config"]["filters"] = json!(HUGE))),
        ("huge kernel", conv(|c| c["config"]["kernel_size"] = json!([u64::MAX, u64::MAX]))),
        ("larger than any integer", conv(|c| c["config"]["filters"] = json!(1e300))),
        ("options that are not an object", conv(|c| c["config"] = json!([1, 2]))),
        ("no options", conv(|c| c["config"] = Json::Null)),
        ("no nodes", conv(|c| drop(c.as_object_mut().expect("an object").remove("inbound_nodes")))),
        ("a node that is not an object", conv(|c| c["inbound_nodes"] = json!([3]))),
        ("a node without inputs", conv(|c| c["inbound_nodes"] = json!([{"args": [], "kwargs": {}}]))),
        (
            "a history without a layer",
            conv(|c| {
                c["inbound_nodes"][0]["args"][0]["config"]["keras_history"] = json!([1, 2]);
            }),
        ),
        (
            "a missing layer",
            conv(|c| {
                c["inbound_nodes"][0]["args"][0]["config"]["keras_history"] = json!(["nowhere", 0, 0]);
            }),
        ),
        (
            "an output that the layer does not have",
            conv(|c| {
                c["inbound_nodes"][0]["args"][0]["config"]["keras_history"] = json!(["input_layer", 0, 7]);
            }),
        ),
        (
            "a cycle",
            conv(|c| {
                c["inbound_nodes"][0]["args"][0]["config"]["keras_history"] = json!(["head", 0, 0]);
            }),
        ),
        (
            "a layer that is its own input",
            conv(|c| {
                c["inbound_nodes"][0]["args"][0]["config"]["keras_history"] = json!(["conv", 0, 0]);
            }),
        ),
        ("keywords", conv(|c| c["inbound_nodes"][0]["kwargs"] = json!({"mask": 1}))),
        ("an unknown output", changed(|j| j["config"]["output_layers"] = json!([["tail", 0, 0]]))),
        ("no outputs", changed(|j| j["config"]["output_layers"] = json!([]))),
        ("outputs that are not a list", changed(|j| j["config"]["output_layers"] = json!({"a": 1}))),
        (
            "an input of unknown extents",
            changed(|j| {
                j["config"]["layers"][0]["config"]["batch_shape"] = json!([null, null, null, 3]);
            }),
        ),
        (
            "an input of a huge extent",
            changed(|j| {
                j["config"]["layers"][0]["config"]["batch_shape"] = json!([null, HUGE, 8, 3]);
            }),
        ),
        ("an input without a shape", changed(|j| j["config"]["layers"][0]["config"] = json!({"name": "x"}))),
        (
            "a custom layer in a file",
            Box::new(|| {
                #[derive(Debug)]
                struct Own;
                impl Layer for Own {
                    fn kind(&self) -> &'static str {
                        "Own"
                    }
                    fn build(
                        &self,
                        _: &mut hubel::nn::Scope,
                        inputs: &[hubel::graph::Value],
                    ) -> Result<Vec<hubel::graph::Value>, hubel::graph::OpError> {
                        Ok(inputs.to_vec())
                    }
                }
                Ok(Sequential::new([8]).add(Own).build()?.to_json().map(drop)?)
            }),
        ),
    ]
}

/// Returns each mistake with its answer; panics and acceptance are answers, too.
fn answers(mistakes: Vec<Mistake>) -> String {
    let mut out = String::new();
    for (what, mistake) in mistakes {
        let answer = match std::panic::catch_unwind(AssertUnwindSafe(mistake)) {
            Ok(Ok(())) => "ACCEPTED".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "PANIC".to_owned(),
        };
        let _ = writeln!(out, "{what}:\n    {answer}");
    }
    out
}

#[test]
fn every_mistake_names_the_layer_what_was_wanted_and_what_to_do() {
    let lists = [("Shapes", shapes()), ("Numbers", numbers()), ("Models", models()), ("Files", files())];
    let text = lists.map(|(title, mistakes)| format!("{title}\n\n{}", answers(mistakes))).join("\n");
    let wrong: Vec<&str> = text.lines().filter(|l| ["    ACCEPTED", "    PANIC"].contains(l)).collect();
    assert!(wrong.is_empty(), "{text}");
    is_generated("tests/hubel/mistakes.txt", &text);
}
