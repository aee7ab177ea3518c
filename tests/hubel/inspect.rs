//! Looking inside networks: Grad-CAM, saliency and style transfer against definitions, differences and Keras.

use crate::harness::{engine, reference};
use hubel::{
    Error,
    graph::{DeviceClass, DeviceProfile, Kind, Step, TensorType},
    layers::*,
    nn::{Mode, models::Preprocessing},
    passes::{Layout, PlanOptions, plan, split_rows},
    prelude::*,
    runtime::RuntimeError,
    tensor::{Array, Philox, Purpose},
    train::{Explained, Style, TrainError},
};
use serde_json::Value as Json;

fn noise(seed: u64, shape: &[usize], high: f64) -> HostTensor {
    let mut rng = Philox::new(seed, Purpose::Test, 32);
    let data = (0..shape.iter().product()).map(|_| rng.uniform(0.0, high) as f32).collect();
    HostTensor::f32(shape, data).expect("as many numbers as the shape has")
}

fn near(what: &str, got: &[f32], wanted: &[f64], share: f64) {
    assert_eq!(got.len(), wanted.len(), "{what}");
    let bound = share * wanted.iter().fold(1e-6f64, |m, x| m.max(x.abs()));
    let worst = got.iter().zip(wanted).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
    assert!(worst <= bound, "{what}: off by {worst}, {bound} is allowed");
}

/// A small classifier of 6×7 images in two parts, so that the second can be fed with what the first gives.
fn parts() -> [Model; 2] {
    let build = || {
        let x = Input::new([6, 7, 2]);
        let y = x.apply(Conv2D::new(3, 3).padding(Same).activation(Tanh).name("a"))?;
        let front = Model::named("front", &[x], &[y.apply(Conv2D::new(4, 2).strides(2).activation(Tanh).name("b"))?])?;
        let x = Input::new([3, 3, 4]);
        let y = x.apply(Conv2D::new(3, 2).activation(Tanh))?.apply(Flatten::new())?;
        Ok([front, Model::named("back", &[x], &[y.apply(Dense::new(5).activation(Softmax))?])?])
    };
    build().map_err(|e: LayerError| e.to_string()).expect("models")
}

/// The scores of a model in 64 bits.
fn scores(model: &Model, images: &Array) -> Vec<f64> {
    let mut g = Graph::new();
    let x = g.input("x", model.input_shape(), F32);
    let built = model.assemble(&mut g, &[x], Mode::Inference).expect("the model assembles");
    g.output("y", built.logits[0].unwrap_or(built.outputs[0]));
    let weights = model.weights().iter().map(|w| (w.name.clone(), model.initial_value(w, 0).to_array()));
    let feeds: Vec<_> = weights.chain([("x".to_owned(), images.clone())]).collect();
    reference(&g, &feeds, &Step::of(images.shape[0])).swap_remove(0).data
}

/// d score / d x by central differences, for a class in each image.
fn slopes(x: &Array, classes: &[usize], score: impl Fn(&Array) -> Vec<f64>) -> Vec<f64> {
    let (n, h) = (classes.len(), 1e-5);
    let of = |x: &Array, i: usize| {
        let all = score(x);
        all[i * all.len() / n + classes[i]]
    };
    let each = |k: usize| {
        let moved = |by: f64| Array {
            shape: x.shape.clone(),
            data: {
                let mut d = x.data.clone();
                d[k] += by;
                d
            },
        };
        let i = k * n / x.data.len();
        (of(&moved(h), i) - of(&moved(-h), i)) / (2.0 * h)
    };
    (0..x.data.len()).map(each).collect()
}

#[test]
fn heat_and_saliency_are_what_central_differences_say() {
    let [front, back] = parts();
    let x = Input::new([6, 7, 2]);
    let y = x.apply(front.clone()).and_then(|y| y.apply(back.clone())).expect("both parts fit");
    let model = Model::new(&[x], &[y]).expect("a model");
    let images = noise(1, &[3, 6, 7, 2], 1.0);
    let exact = images.to_array();
    let renamed = |part: &Model, prefix: &str| {
        let mut part = part.clone();
        let all = part.weights().iter().map(|w| {
            let whole = model.weights().iter().find(|o| o.name == format!("{prefix}/{}", w.name)).expect("its weight");
            (w.name.clone(), model.initial_value(whole, 0))
        });
        let all = all.collect();
        part.set_weights(all).expect("weights fit");
        part
    };
    let (front, back) = (renamed(&front, "front"), renamed(&back, "back"));
    let features = |x: &Array| Array { shape: vec![3, 3, 3, 4], data: scores(&front, x) };
    let all = scores(&back, &features(&exact));
    let best = |i: usize| (0..5).fold(0, |b, c| if all[i * 5 + c] > all[i * 5 + b] { c } else { b });
    let likeliest: Vec<usize> = (0..3).map(best).collect();

    // Two at once, so that the last batch is not full.
    let mut explainer = model.explain(engine(), Batch::up_to(2)).expect("an explainer");
    for classes in [None, Some(vec![4, 0, 2]), Some(vec![3])] {
        let asked: Vec<usize> = match &classes {
            None => likeliest.clone(),
            Some(some) => some.iter().copied().cycle().take(3).collect(),
        };
        let said = explainer.saliency(&images, classes.as_deref()).expect("a map");
        assert_eq!((said.maps.shape(), &said.classes), (&[3, 6, 7][..], &asked));
        let slope = slopes(&exact, &asked, |x| scores(&back, &features(x)));
        let wanted: Vec<f64> = slope.chunks(2).map(|pixel| pixel[0].abs().max(pixel[1].abs())).collect();
        near("saliency", &said.maps.to_f32(), &wanted, 1e-4);

        let said = explainer.grad_cam("front/b", &images, classes.as_deref()).expect("a map");
        assert_eq!((said.maps.shape(), &said.classes), (&[3, 6, 7][..], &asked));
        let maps = features(&exact);
        let slope = slopes(&maps, &asked, |maps| scores(&back, maps));
        let mut wanted = Vec::new();
        for (map, slope) in maps.data.chunks(36).zip(slope.chunks(36)) {
            let weight = |k: usize| slope.iter().skip(k).step_by(4).sum::<f64>() / 9.0;
            let heat: Vec<f64> =
                map.chunks(4).map(|at| (0..4).map(|k| weight(k) * at[k]).sum::<f64>().max(0.0)).collect();
            // Half-pixel centres, held between the first and the last.
            let between = |o: usize, m: usize| {
                let at = ((o as f64 + 0.5) * 3.0 / m as f64 - 0.5).clamp(0.0, 2.0);
                (at.floor() as usize, (at.floor() as usize + 1).min(2), at.fract())
            };
            for (p, q) in (0..42).map(|i| (i / 7, i % 7)) {
                let ((top, bottom, v), (left, right, u)) = (between(p, 6), between(q, 7));
                let row = |r: usize| heat[r * 3 + left] * (1.0 - u) + heat[r * 3 + right] * u;
                wanted.push(row(top) * (1.0 - v) + row(bottom) * v);
            }
        }
        assert!(wanted.iter().any(|&h| h > 1e-3), "heat somewhere");
        near("heat", &said.maps.to_f32(), &wanted, 1e-4);
    }
    // Without noise, SmoothGrad is saliency.
    let plain = explainer.saliency(&images, None).expect("a map");
    let smooth = explainer.smooth_grad(&images, None, 0.0, 3, 1).expect("a map");
    near("smooth", &smooth.maps.to_f32(), &plain.maps.to_array().data, 1e-5);
    let noisy = explainer.smooth_grad(&images, None, 0.2, 3, 1).expect("a map");
    // The noise is a share of an image's range: one colour has none.
    let grey = HostTensor::f32(images.shape(), vec![0.5; images.to_f32().len()]).expect("images");
    let [with, without] = [0.2, 0.0].map(|noise| explainer.smooth_grad(&grey, None, noise, 1, 1).expect("a map"));
    assert_eq!(with, without);
    assert!(noisy.maps != plain.maps && noisy.classes == plain.classes);
    assert_eq!(noisy, explainer.smooth_grad(&images, None, 0.2, 3, 1).expect("a map"), "one seed, one map");
}

fn numbers(golden: &Json) -> Vec<f64> {
    serde_json::from_value(golden.clone()).expect("numbers")
}

#[test]
fn heat_and_saliency_are_keras_s() {
    let golden: Json = serde_json::from_str(include_str!("../golden/explain.json")).expect("JSON");
    let mut model = Model::from_json(&golden["model"].to_string()).expect("Keras's model");
    let floats = |json: &Json| numbers(json).into_iter().map(|x| x as f32).collect::<Vec<_>>();
    let weights: Vec<(String, HostTensor)> = (golden["weights"].as_array().expect("a list").iter())
        .map(|w| {
            let shape: Vec<usize> = serde_json::from_value(w[1].clone()).expect("a shape");
            (w[0].as_str().expect("a name").to_owned(), HostTensor::f32(shape, floats(&w[2])).expect("a weight"))
        })
        .collect();
    model.set_weights(weights).expect("the model's weights");
    let images = HostTensor::f32([3, 12, 11, 2], floats(&golden["images"])).expect("images");
    let classes: Vec<usize> = serde_json::from_value(golden["classes"].clone()).expect("classes");
    let mut explainer = model.explain(engine(), Batch::up_to(3)).expect("an explainer");
    let said = explainer.grad_cam("conv2", &images, Some(&classes)).expect("a map");
    near("heat", &said.maps.to_f32(), &numbers(&golden["heat"]), 1e-4);
    let said = explainer.saliency(&images, Some(&classes)).expect("a map");
    near("saliency", &said.maps.to_f32(), &numbers(&golden["saliency"]), 1e-4);
    let likeliest: Vec<usize> = serde_json::from_value(golden["likeliest"].clone()).expect("classes");
    assert_eq!(explainer.saliency(&images, None).expect("a map").classes, likeliest);
}

#[test]
fn what_a_class_does_not_depend_on_stays_cold() {
    // Class 0 counts red, class 1 green; class 2 looks at nothing.
    let mut model = Sequential::new([8, 8, 2])
        .add(Conv2D::new(2, 1).use_bias(false).activation(Relu).name("colours"))
        .add(GlobalAveragePooling2D::new())
        .add(Dense::new(3).use_bias(false).name("class"))
        .build()
        .expect("a model");
    let tensor = |shape: &[usize], data: &[f32]| HostTensor::f32(shape, data.to_vec()).expect("a tensor");
    let weights = vec![
        ("colours/kernel".to_owned(), tensor(&[1, 1, 2, 2], &[1.0, 0.0, 0.0, 1.0])),
        ("class/kernel".to_owned(), tensor(&[2, 3], &[2.0, 0.0, 0.0, 0.0, 3.0, 0.0])),
    ];
    model.set_weights(weights).expect("the model's weights");
    // Red above the middle on the left, green below it on the right.
    let inside = |y: usize, x: usize, channel: usize| match channel {
        0 => y < 4 && x < 4,
        _ => y >= 4 && x >= 4,
    };
    let pixels = (0..128).map(|i| f32::from(u8::from(inside(i / 16, i / 2 % 8, i % 2)))).collect::<Vec<_>>();
    let image = tensor(&[1, 8, 8, 2], &pixels);
    let mut explainer = model.explain(engine(), Batch::up_to(1)).expect("an explainer");
    for (class, factor) in [(0, 2.0), (1, 3.0), (2, 0.0)] {
        let Explained { maps, .. } = explainer.grad_cam("colours", &image, Some(&[class])).expect("a map");
        let hot = |i: usize| class < 2 && inside(i / 8, i % 8, class);
        let wanted: Vec<f64> = (0..64).map(|i| if hot(i) { factor / 64.0 } else { 0.0 }).collect();
        near("heat", &maps.to_f32(), &wanted, 1e-6);
        let Explained { maps, .. } = explainer.saliency(&image, Some(&[class])).expect("a map");
        near("saliency", &maps.to_f32(), &wanted, 1e-6);
    }
}

#[test]
fn what_cannot_be_explained_is_said() {
    let [front, back] = parts();
    let fails = |result: Result<Explained, Error>| result.map(drop).expect_err("a mistake");
    let explain = |model: &Model| model.explain(engine(), Batch::up_to(1)).map(drop).expect_err("no classifier");
    assert!(matches!(explain(&front), Error::Train(TrainError::NoClassifier { .. })), "maps come out");
    let (a, b) = (Input::new([4, 4, 1]), Input::new([4, 4, 1]));
    let sum = add(&[a.clone(), b.clone()]).expect("a sum");
    let two = Model::new(&[a, b], &[sum]).expect("a model");
    assert!(matches!(explain(&two), Error::Train(TrainError::Branches { inputs: 2, outputs: 1 })));

    let mut explainer = back.explain(engine(), Batch::up_to(1)).expect("an explainer");
    let image = noise(1, &[1, 3, 3, 4], 1.0);
    let error = fails(explainer.grad_cam("conv", &image, None));
    assert!(matches!(&error, Error::Runtime(RuntimeError::UnknownName { kind: "layer", .. })), "{error}");
    assert!(error.to_string().contains("conv2d, flatten, dense"), "{error}");
    let error = fails(explainer.grad_cam("dense", &image, None)).to_string();
    assert_eq!(error, "layer `dense`: wanted maps (N, h, w, c), got (N, 5); layers with maps are conv2d");
    let error = fails(explainer.saliency(&image, Some(&[5]))).to_string();
    assert_eq!(error, "class 5 is out of range; the model has 5 outputs, and classes count from 0");
    let error = fails(explainer.saliency(&image, Some(&[1, 2])));
    assert!(matches!(error, Error::Train(TrainError::Classes { wanted: 1, got: 2 })), "{error}");
    let error = fails(explainer.saliency(&noise(1, &[1, 3, 4, 4], 1.0), None));
    assert!(matches!(error, Error::Train(TrainError::SampleShape { .. })), "{error}");
    let error = fails(explainer.saliency(&HostTensor::f32([0, 3, 3, 4], Vec::new()).expect("none"), None));
    assert!(matches!(error, Error::Train(TrainError::NoData)), "{error}");

    let style = |style: Style| style.run(&Engine::reference(), &image, &image).map(drop).expect_err("a mistake");
    let new = || Style::new(&back, Preprocessing::Unit);
    assert!(matches!(style(new()), Error::Train(TrainError::NoTarget { .. })));
    assert!(matches!(style(new().style(&["dense"], 1.0)), Error::Train(TrainError::NoMap { .. })));
    assert!(matches!(style(new().content("b", 1.0)), Error::Runtime(RuntimeError::UnknownName { .. })));
    let start = noise(1, &[1, 4, 3, 4], 1.0);
    assert!(matches!(style(new().content("conv2d", 1.0).start(start)), Error::Train(TrainError::SampleShape { .. })));
    let style = Style::new(&back, Preprocessing::Torch).content("conv2d", 1.0);
    let error = style.run(&Engine::reference(), &image, &image).map(drop).expect_err("four channels");
    assert!(matches!(error, Error::Op(_)), "{error}");
}

#[test]
fn preprocessing_in_a_graph_is_that_on_the_host() {
    use Preprocessing::{Caffe, Identity, Lite, Mnist, Tf, Torch, Unit};
    for (preprocessing, c) in [(Identity, 3), (Tf, 3), (Torch, 3), (Caffe, 3), (Lite, 1), (Unit, 2), (Mnist, 1)] {
        let images = noise(4, &[2, 3, 5, c], 255.0);
        let mut g = Graph::new();
        let x = g.input("x", [Batch, 3, 5, c], F32);
        let y = preprocessing.build(&mut g, x).expect("images of its channels");
        g.output("y", y);
        let got = reference(&g, &[("x".into(), images.to_array())], &Step::of(2)).swap_remove(0).to_host(F32);
        let wanted = preprocessing.apply(&images).expect("images of its channels");
        near(&format!("{preprocessing:?}"), &got.to_f32(), &wanted.to_array().data, 1e-6);
    }
}

#[test]
fn gram_matrices_and_their_gradients_are_those_of_the_definition() {
    // 300 rows of 260 are more terms than a loop of a software adapter may have.
    for (h, w, c) in [(5, 7, 3), (300, 260, 2)] {
        let maps = noise(5, &[2, h, w, c], 1.0);
        let mut g = Graph::new();
        let x = g.input("x", [Batch, h, w, c], F32);
        let gram = g.gram(x).expect("maps");
        let squares = g.sum_squares(gram, &[0, 1, 2], false).expect("a number");
        let slope = g.gradients(squares, &[x]).expect("gradients")[0];
        g.output("gram", gram);
        g.output("slope", slope);
        let feeds = [("x".to_owned(), maps.clone())];
        let run = crate::harness::run_graph(&g, &feeds, &Step::of(2), 2, &Default::default()).expect("the graph runs");
        let f = maps.to_array().data;
        let (mut wanted, mut slopes) = (vec![0.0; 2 * c * c], vec![0.0; f.len()]);
        for (i, row) in f.chunks(c).enumerate() {
            for (k, l) in (0..c * c).map(|k| (k / c, k % c)) {
                wanted[i / (h * w) * c * c + k * c + l] += row[k] * row[l];
            }
        }
        for (i, row) in f.chunks(c).enumerate() {
            for (k, l) in (0..c * c).map(|k| (k / c, k % c)) {
                slopes[i * c + k] += 4.0 * wanted[i / (h * w) * c * c + k * c + l] * row[l];
            }
        }
        assert_eq!(run[0].shape(), [2, c, c]);
        near("gram", &run[0].to_f32(), &wanted, 1e-5);
        near("slope", &run[1].to_f32(), &slopes, 1e-5);
    }
    let mut g = Graph::new();
    let x = g.input("x", [Batch, 7], F32);
    assert!(g.gram(x).is_err());
}

/// Two convolutions with the names that the tests below use.
fn base(side: usize) -> Model {
    let conv = |filters, name: &str| Conv2D::new(filters, 3).padding(Same).activation(Relu).name(name);
    let low = Sequential::new([side, side, 3]).add(conv(6, "low")).add(MaxPooling2D::new(2));
    low.add(conv(8, "high")).build().expect("a model")
}

#[test]
fn style_transfer_lowers_its_loss_and_leaves_a_image_that_is_its_own_style() {
    let model = base(16);
    let [content, style] = [6, 7].map(|seed| noise(seed, &[1, 16, 16, 3], 255.0));
    let transfer =
        || Style::new(&model, Preprocessing::Caffe).content("high", 1.0).style(&["low", "high"], 10.0).variation(0.05);
    let mut told = Vec::new();
    let result = transfer().steps(40).on_step(|at| {
        told.push(*at);
        Control::Continue
    });
    let result = result.run(engine(), &content, &style).expect("an image");
    assert_eq!((told.len(), &told), (40, &result.history));
    let (first, last) = (&told[0], &told[39]);
    assert!(last.total < 0.5 * first.total && last.style < 0.5 * first.style, "{first:?} {last:?}");
    assert!(first.content < 1e-9 && last.content > 0.0, "it begins with the content");
    for at in &told {
        let total = at.content + 10.0 * at.style + 0.05 * at.variation;
        assert!((at.total - total).abs() <= 1e-4 * at.total, "{at:?}");
    }
    assert!(result.image.to_f32().iter().all(|x| (0.0..=255.0).contains(x)));

    // The first style and variation terms, by the definition in 64 bits.
    let prepared = |image: &HostTensor| Preprocessing::Caffe.apply(image).expect("an image of three channels");
    let grams = |image: &HostTensor, layer: &str| {
        let mut net = model.inference_with(engine(), Batch::up_to(1), &[layer]).expect("a net");
        let (_, maps) = net.predict_all(&prepared(image)).expect("maps").swap_remove(1);
        let c = maps.shape()[3];
        let f = maps.to_array().data;
        (0..c * c).map(|k| f.chunks(c).map(|row| row[k / c] * row[k % c]).sum::<f64>()).collect::<Vec<_>>()
    };
    let off = |layer: &str| {
        let (g, a) = (grams(&content, layer), grams(&style, layer));
        let squares: f64 = g.iter().zip(&a).map(|(g, a)| (g - a).powi(2)).sum();
        squares / a.iter().map(|a| a * a).sum::<f64>()
    };
    near("style", &[first.style], &[(off("low") + off("high")) / 2.0], 1e-3);
    let x = content.to_array().data;
    let at = |y: usize, z: usize, c: usize| x[(y * 16 + z) * 3 + c] / 255.0;
    let steps: f64 = (0..16 * 15 * 3)
        .map(|i| (i / 45, i / 3 % 15, i % 3))
        .map(|(y, z, c)| (at(y, z + 1, c) - at(y, z, c)).powi(2) + (at(z + 1, y, c) - at(z, y, c)).powi(2))
        .sum();
    near("variation", &[first.variation], &[steps / 720.0], 1e-4);

    let own = transfer().variation(0.0).steps(3).run(engine(), &style, &style).expect("an image");
    assert!(own.history.iter().all(|at| at.total < 1e-6), "{:?}", own.history);
    near("own image", &own.image.to_f32(), &style.to_array().data, 0.05);
    let stopped = transfer().on_step(|at| if at.step == 1 { Control::Stop } else { Control::Continue });
    assert_eq!(stopped.run(engine(), &content, &style).expect("an image").history.len(), 2);
    // The same on the reference evaluator.
    let exact = transfer().steps(2).run(&Engine::reference(), &content, &style).expect("an image");
    near("total", &[told[1].total], &[f64::from(exact.history[1].total)], 1e-3);
}

#[test]
fn gradients_pass_matrices_that_are_cut_by_rows() {
    let model = models::vgg16(&Default::default()).expect("VGG16");
    let mut g = Graph::new();
    let x = g.input("x", model.input_shape(), F32);
    let built = model.assemble(&mut g, &[x], Mode::Inference).expect("a graph");
    let map = built.layers.iter().find(|l| l.0 == "block5_conv3").expect("its layer").1;
    let sum = g.sum(built.logits[0].expect("logits"), &[0, 1], false).expect("a number");
    let slope = g.gradients(sum, &[map]).expect("gradients")[0];
    g.output("slope", slope);
    let profile = DeviceProfile::portable(DeviceClass::Cpu);
    let (graph, parts) = split_rows(&g, profile.max_binding_bytes);
    assert_eq!(parts["fc1/kernel"].len(), 4);
    let states = graph.nodes().iter().filter(|n| matches!(n.kind, Kind::State { .. }));
    let layout = Layout::new(states.map(|n| (n.name.clone(), n.outputs[0].clone())), profile.max_binding_bytes);
    plan(&graph, &PlanOptions { layouts: vec![&layout], ..PlanOptions::new(1, profile) }).expect("a plan");

    let mut g = Graph::new();
    let x = g.input("x", [Batch, 6], F32);
    let w = g.state("w", TensorType::f32([6, 40]), None);
    let y = g.matmul(x, w).expect("a product");
    let squares = g.sum_squares(y, &[0, 1], false).expect("a number");
    let slope = g.gradients(squares, &[x]).expect("gradients")[0];
    g.output("slope", slope);
    let (cut, parts) = split_rows(&g, 400);
    let parts = &parts["w"];
    assert!(parts.len() == 3, "{parts:?}");
    let (x, w) = (noise(8, &[3, 6], 1.0), noise(9, &[6, 40], 1.0));
    let whole = reference(&g, &[("x".into(), x.to_array()), ("w".into(), w.to_array())], &Step::of(3));
    let rows = |rows: &std::ops::Range<usize>| w.rows(rows.start, rows.len()).expect("rows").to_array();
    let mut feeds: Vec<_> = parts.iter().map(|(name, at)| (name.clone(), rows(at))).collect();
    feeds.push(("x".into(), x.to_array()));
    let got = reference(&cut, &feeds, &Step::of(3)).swap_remove(0).to_host(F32);
    near("slope", &got.to_f32(), &whole[0].data, 1e-6);
    let keys: Vec<String> = cut.nodes().iter().filter_map(|n| n.op()).map(|op| op.key()).collect();
    assert!(keys.iter().any(|k| k == "tb"), "{keys:?}");
}
