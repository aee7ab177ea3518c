//! Augmentation: Keras's results with the same factors (tests/golden/augmentation.py), and randomness.

use crate::harness::{Run, engine, plan_for, run_graph};
use hubel::{
    graph::Step,
    io::safetensors,
    layers::*,
    losses::*,
    metrics::*,
    nn::{Factor, Fill, FlipMode, Mode},
    optimizers::*,
    prelude::*,
};
use serde_json::{Value as Json, json};
use std::{fs, sync::Arc};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/");

/// Returns the output of a model of these layers for images in a training step.
fn trained(model: &Model, images: &HostTensor, step: u32, seed: u64) -> Vec<f32> {
    trained_of(model, images, step, seed, images.shape()[0])
}

/// Returns the same of a plan that is built for a batch of `capacity`.
fn trained_of(model: &Model, images: &HostTensor, step: u32, seed: u64, capacity: usize) -> Vec<f32> {
    let mut g = Graph::new();
    let x = g.input("x", model.input_shape(), F32);
    let built = model.assemble(&mut g, &[x], Mode::Training).expect("the model fits");
    g.output("y", built.outputs[0]);
    let step = Step { step, seed, ..Step::of(images.shape()[0]) };
    let feeds = [("x".to_owned(), images.clone())];
    let run = Run { optimize: true, ..Run::default() };
    run_graph(&g, &feeds, &step, capacity, &run).expect("the graph runs")[0].to_f32()
}

fn single(layer: impl IntoLayer, shape: &[usize]) -> Model {
    Sequential::new(shape).add(layer).build().expect("a model")
}

fn refused(layer: impl IntoLayer) -> String {
    Sequential::new([4, 4, 1]).add(layer).build().expect_err("a part of nothing").to_string()
}

fn images(n: usize) -> HostTensor {
    let value = |i: usize| (i * 7919 % 251) as f32;
    HostTensor::f32([n, 12, 10, 3], (0..n * 360).map(value).collect()).expect("images")
}

fn layers() -> Vec<Model> {
    let shape = [12, 10, 3];
    vec![
        single(RandomFlip::new(FlipMode::HorizontalAndVertical), &shape),
        single(RandomRotation::new(0.2), &shape),
        single(RandomTranslation::new(0.3, 0.3), &shape),
        single(RandomZoom::new(0.3).width_factor(Factor::from(0.2)), &shape),
        single(RandomCrop::new(7, 5), &shape),
        single(RandomContrast::new([0.5, 0.5]), &shape),
        single(RandomBrightness::new(0.3), &shape),
        single(RandomGrayscale::new(0.5), &shape),
        single(RandomInvert::new([0.5, 0.5]), &shape),
        single(RandomColorDegeneration::new([0.1, 0.9]), &shape),
        single(RandomPosterization::new([1, 8]), &shape),
        single(RandomSaturation::new([0.2, 0.8]), &shape),
        single(RandomHue::new([0.1, 0.9]), &shape),
        single(Solarization::new().addition_factor([0.0, 0.3]).threshold_factor([0.0, 0.8]), &shape),
        single(RandomShear::new(0.2, 0.3), &shape),
        single(RandomErasing::new([0.5, 1.0]), &shape),
        single(RandomErasing::new([0.3, 0.9]).scale([0.1, 0.5]).fill_value(Fill::One(8.0)), &shape),
        single(RandomSharpness::new([0.1, 0.9]), &shape),
        single(RandomGaussianBlur::new([0.5, 0.5]).kernel_size([5, 3]).sigma([0.5, 0.9]), &shape),
        single(RandomColorJitter::new().brightness_factor(Factor::from(0.2)).hue_factor(Factor::from(0.3)), &shape),
    ]
}

#[test]
fn layers_of_fixed_factors_do_what_keras_does() {
    let cases: Vec<Json> =
        serde_json::from_slice(&fs::read(format!("{GOLDEN}augmentation.json")).expect("a file")).expect("JSON");
    let tensors = safetensors::open(format!("{GOLDEN}augmentation.safetensors")).expect("a file");
    let tensor = |name: &str| &tensors.iter().find(|t| t.0 == name).unwrap_or_else(|| panic!("no {name}")).1;
    let mut wrong = Vec::new();
    for case in &cases {
        let name = case["name"].as_str().expect("a name");
        for kind in ["colour", "grey"] {
            // A grey image has no hue.
            if !tensors.iter().any(|t| t.0 == format!("{name}/{kind}")) {
                assert!(kind == "grey" || name.starts_with("Equalization"), "{name}");
                continue;
            }
            let x = tensor(kind);
            let text = json!({
                "class_name": "Sequential",
                "config": { "name": "m", "layers": [
                    { "class_name": "InputLayer", "config": { "batch_shape": [null, x.shape()[1], x.shape()[2], x.shape()[3]], "name": "x" } },
                    { "class_name": case["class"], "config": case["config"] },
                ] },
            });
            let model = Model::from_json(&text.to_string()).unwrap_or_else(|e| panic!("{name}: {e}"));
            let got = trained(&model, x, 3, 5);
            let wanted = tensor(&format!("{name}/{kind}")).to_f32();
            assert_eq!(got.len(), wanted.len(), "{name}");
            // What goes to one side may go to the other.
            let other = tensors.iter().find(|t| t.0 == format!("{name}/{kind}/other")).map(|t| t.1.to_f32());
            let row = got.len() / x.shape()[0];
            let offs = (0..got.len()).step_by(row).map(|at| {
                let off = |wanted: &[f32]| {
                    got[at..].iter().zip(&wanted[at..at + row]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
                };
                other.as_ref().map_or(f32::INFINITY, |other| off(other)).min(off(&wanted))
            });
            let off = offs.fold(0.0, f32::max);
            if off > 1e-4 * 255.0 {
                wrong.push(format!("{name} {kind} {}: off by {off}", case["config"]));
            }
        }
    }
    assert!(wrong.is_empty() && cases.len() >= 60, "{}", wrong.join("\n"));
}

#[test]
fn a_seed_gives_the_same_bits_whatever_the_batch_and_each_image_its_own_change() {
    let all = images(8);
    for model in layers() {
        let row = model.output_shape().row();
        let whole = trained(&model, &all, 4, 9);
        assert_eq!(whole, trained(&model, &all, 4, 9));
        assert_ne!(whole, trained(&model, &all, 4, 10), "another seed");
        assert_ne!(whole, trained(&model, &all, 5, 9), "another step");
        let few = all.rows(0, 3).expect("rows");
        assert_eq!(whole[..3 * row], trained(&model, &few, 4, 9), "a smaller batch");
        assert_eq!(whole[..3 * row], trained_of(&model, &few, 4, 9, 8), "a larger plan");
        // The same image eight times: eight results, of which some differ.
        let same = HostTensor::f32([8, 12, 10, 3], all.to_f32()[..360].repeat(8)).expect("images");
        let made = trained(&model, &same, 4, 9);
        assert!(made.chunks(row).skip(1).any(|p| *p != made[..row]), "{}", model.layer_names().join(" "));
        let mut net = model.inference(engine(), Batch::up_to(8)).expect("a net");
        let kept = net.predict(&all).expect("a result").to_f32();
        let wanted = match model.output_shape() == model.input_shape() {
            true => all.to_f32(),
            false => trained(&single(CenterCrop::new(7, 5), &[12, 10, 3]), &all, 4, 9),
        };
        assert_eq!(kept, wanted, "off in evaluation");
    }
}

#[test]
fn flips_are_mirror_images_and_as_likely_as_not() {
    let n = 64;
    let x = images(n);
    let pixels = x.to_f32();
    let at = |b: usize, r: usize, c: usize, k: usize| pixels[((b * 12 + r) * 10 + c) * 3 + k];
    for (mode, kinds) in [(FlipMode::Horizontal, 2), (FlipMode::Vertical, 2), (FlipMode::HorizontalAndVertical, 4)] {
        let made = trained(&single(RandomFlip::new(mode), &[12, 10, 3]), &x, 1, 2);
        let mut seen = [0; 4];
        for b in 0..n {
            let kind = (0..4).find(|kind| {
                (0..360).all(|i| {
                    let (r, c, k) = (i / 30, i / 3 % 10, i % 3);
                    let (r, c) = (if kind & 1 > 0 { 11 - r } else { r }, if kind & 2 > 0 { 9 - c } else { c });
                    made[b * 360 + i] == at(b, r, c, k)
                })
            });
            seen[kind.expect("a mirror image")] += 1;
        }
        let used: Vec<_> = seen.iter().filter(|s| **s > 0).collect();
        assert!(used.len() == kinds && used.iter().all(|s| **s > n / kinds / 2), "{mode:?} {seen:?}");
    }
}

#[test]
fn crops_are_parts_of_their_images_and_places_differ() {
    let x = images(32);
    let pixels = x.to_f32();
    let made = trained(&single(RandomCrop::new(7, 5), &[12, 10, 3]), &x, 1, 2);
    let mut places = std::collections::HashSet::new();
    for b in 0..32 {
        let there = |(top, left): &(usize, usize)| {
            (0..105).all(|i| {
                let (r, c, k) = (top + i / 15, left + i / 3 % 5, i % 3);
                made[b * 105 + i] == pixels[((b * 12 + r) * 10 + c) * 3 + k]
            })
        };
        let place = (0..6).flat_map(|top| (0..6).map(move |left| (top, left))).find(there);
        places.insert(place.expect("a part of the image"));
    }
    assert!(places.len() > 12 && places.iter().any(|p| p.0 == 5) && places.iter().any(|p| p.1 == 0), "{places:?}");
}

#[test]
fn erased_rectangles_have_the_given_share_and_any_place() {
    let x = images(32);
    let layer = RandomErasing::new([1.0, 1.0]).scale([0.25, 0.25]).fill_value(Fill::Each([255.0, 254.0, 300.0]));
    let made = trained(&single(layer, &[12, 10, 3]), &x, 1, 2);
    let mut places = std::collections::HashSet::new();
    for (made, own) in made.chunks(360).zip(x.to_f32().chunks(360)) {
        let erased: Vec<usize> = (0..120).filter(|p| made[3 * p..3 * p + 3] == [255.0, 254.0, 255.0]).collect();
        let (top, left) = (erased[0] / 10, erased.iter().map(|p| p % 10).min().expect("a pixel"));
        let is_inside = |p: &usize| (top..top + 6).contains(&(p / 10)) && (left..left + 5).contains(&(p % 10));
        assert!(erased.len() == 30 && erased.iter().all(is_inside), "{erased:?}");
        assert!((0..120).filter(|p| !erased.contains(p)).all(|p| made[3 * p..3 * p + 3] == own[3 * p..3 * p + 3]));
        places.insert((top, left));
    }
    assert!(places.len() > 12, "{places:?}");
}

#[test]
fn drawn_changes_are_those_of_the_eleven_layers() {
    let x = images(4);
    let range = [0.0, 255.0];
    // With a factor of 0 each layer has one result.
    let layers: [Arc<dyn Layer>; 6] = [
        RandomShear::new([0.0, 0.0], [0.0, 0.0]).into_layer(),
        RandomSharpness::new([0.0, 0.0]).into_layer(),
        RandomPosterization::new([1, 1]).into_layer(),
        Solarization::new().into_layer(),
        AutoContrast::new().value_range(range).into_layer(),
        Equalization::new().into_layer(),
    ];
    let alone = layers.map(|layer| trained(&single(&layer, &[12, 10, 3]), &x, 1, 2));
    let mut seen = std::collections::HashSet::new();
    for seed in 0..24 {
        let drawn = single(RandAugment::new().num_ops(1).factor([0.0, 0.0]), &[12, 10, 3]);
        let made = trained(&drawn, &x, 1, seed);
        let near = |wanted: &Vec<f32>| made.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-2);
        seen.insert(alone.iter().position(near).expect("one of the layers"));
    }
    assert!(seen.len() > 4, "{seen:?}");
}

/// Images of a data set on the device: its rows are read as they are resampled, so that they are moved once.
#[test]
fn images_of_a_table_of_bytes_are_changed_as_they_are_taken_from_it() {
    let (all, rows) = (images(7), [5u32, 0, 5, 6]);
    let bytes = HostTensor::u8(all.shape().to_vec(), all.to_f32().iter().map(|&x| x as u8).collect()).expect("bytes");
    let taken: Vec<f32> = rows.iter().flat_map(|&r| all.to_f32()[r as usize * 360..][..360].to_vec()).collect();
    let taken = HostTensor::f32([4, 12, 10, 3], taken).expect("images");
    for model in layers() {
        let mut g = Graph::new();
        let (table, at) =
            (g.input("table", Shape::fixed(all.shape()), DType::U8), g.input("rows", [Batch], DType::U32));
        let x = g.gather(table, at).expect("rows of it");
        let built = model.assemble(&mut g, &[x], Mode::Training).expect("the model fits");
        g.output("y", built.outputs[0]);
        let feeds = [
            ("table".to_owned(), bytes.clone()),
            ("rows".to_owned(), HostTensor::u32([4], rows.to_vec()).expect("rows")),
        ];
        let (step, run) = (Step { seed: 9, ..Step::of(4) }, Run { optimize: true, ..Run::default() });
        let got = run_graph(&g, &feeds, &step, 4, &run).expect("the graph runs")[0].to_f32();
        assert_eq!(got, trained(&model, &taken, 0, 9), "{:?}", model.layer_names());
        let plan = plan_for(&g, 4, &run);
        let launched = |kernel: &str| plan.dispatches.iter().any(|d| d.kernel.starts_with(kernel));
        assert_ne!(launched("affine2d"), launched("gather"), "{:?}", model.layer_names());
    }
}

#[test]
fn images_decoded_when_they_are_needed_train_the_same_network() {
    let folder = temp_dir::TempDir::new().expect("a folder");
    for i in 0..24u8 {
        let class = folder.path().join(if i % 2 == 0 { "dark" } else { "light" });
        fs::create_dir_all(&class).expect("a folder");
        let pixels = (0..108).map(|k| (i % 2) * 120 + k + i).collect();
        let image = HostTensor::u8([6, 6, 3], pixels).expect("an image");
        let image = hubel::io::image::to_rgb(&image).expect("colour");
        hubel::io::image::save(&image, class.join(format!("{i}.png"))).expect("a file");
    }
    let weights = |stream| {
        let images = hubel::data::ImageFolder::new(folder.path()).image_size([8, 8]).seed(1).stream(stream);
        let mut data = images.validation_split(0.25).load().expect("images");
        assert_eq!(data.train.images.shape()[0], if stream { 0 } else { 18 });
        data.train.scale = 1.0 / 255.0;
        data.validation.scale = 1.0 / 255.0;
        let net = Sequential::new([8, 8, 3]).add(RandomFlip::new(FlipMode::Vertical)).add(Conv2D::new(4, 3));
        let model = net.add(Flatten::new()).add(Dense::new(2).activation(Softmax)).build().expect("a model");
        let config = Compile::new(Adam::new(0.01), SparseCategoricalCrossentropy::new()).metric(Accuracy);
        let mut trainer = model.compile(engine(), config).expect("a trainer");
        let history = trainer.fit(&data.train, Fit::epochs(4).batch(4).validation(&data.validation)).expect("training");
        assert!(history.last("val_accuracy") == Some(1.0), "{history:?}");
        trainer.weights().expect("weights")
    };
    assert_eq!(weights(true), weights(false));
}

#[test]
fn networks_train_behind_augmentation_and_mistakes_are_told() {
    let model = Sequential::new([12, 10, 3])
        .add(RandomFlip::new(FlipMode::Horizontal))
        .add(RandomRotation::new(0.02))
        .add(RandomContrast::new([0.1, 0.1]))
        .add(Rescaling::new(1.0 / 255.0))
        .add(Conv2D::new(4, 3).activation(Relu))
        .add(GlobalAveragePooling2D::new())
        .add(Dense::new(2).activation(Softmax))
        .build()
        .expect("a model");
    let images: Vec<u8> = (0..40).flat_map(|i| vec![if i % 2 == 0 { 40 } else { 200 }; 360]).collect();
    let labels = HostTensor::u8([40], (0..40).map(|i| i % 2).collect()).expect("labels");
    let data = Dataset::new(HostTensor::u8([40, 12, 10, 3], images).expect("images"), labels).expect("a data set");
    let config = || Compile::new(Adam::new(0.02), SparseCategoricalCrossentropy::new()).metric(Accuracy);
    let fit = |trainer: &mut Trainer| trainer.fit(&data, Fit::epochs(12).batch(8).seed(3)).expect("training");
    let mut trainer = model.compile(engine(), config()).expect("a trainer");
    let history = fit(&mut trainer);
    assert!(history.last("loss") < history.get("loss").map(|l| l[0] * 0.7), "{:?}", history.get("loss"));
    let mut again = model.compile(engine(), config()).expect("a trainer");
    fit(&mut again);
    assert_eq!(trainer.weights().expect("weights"), again.weights().expect("weights"));

    let mistakes = [refused(RandomCrop::new(5, 0)), refused(CenterCrop::new(0, 2))];
    for told in mistakes {
        assert!(told.contains("at least 1") && told.contains('0'), "{told}");
    }
    let behind = Sequential::new([12, 10, 3])
        .add(Conv2D::new(3, 1))
        .add(RandomZoom::new(0.1))
        .add(Flatten::new())
        .add(Dense::new(2).activation(Softmax))
        .build()
        .expect("a model");
    let mut trainer = behind.compile(engine(), config()).expect("a trainer");
    let refused = trainer.fit(&data, Fit::epochs(1)).expect_err("no gradient passes").to_string();
    assert!(refused.contains("in front of the layers that learn"), "{refused}");
}
