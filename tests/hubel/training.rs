//! Training: same seed, same bits; resume; nothing created after the first step; embedding.

use crate::{
    harness::{bits_printed_by, engine, objects, opened},
    worked_examples::lenet5,
};
use hubel::{
    callbacks::*,
    io::safetensors,
    layers::*,
    losses::*,
    metrics::*,
    optimizers::*,
    prelude::*,
    runtime::External,
    tensor::{Philox, Purpose},
    wgpu,
};
use std::{
    cell::RefCell,
    fs,
    io::Write,
    rc::Rc,
    sync::{Arc, Mutex},
};

/// Images of ten kinds of stripes with noise: learnable, and made here.
fn stripes(n: usize) -> Dataset {
    let mut rng = Philox::new(5, Purpose::Test, 0);
    let labels: Vec<u8> = (0..n).map(|_| rng.below(10) as u8).collect();
    let mut pixels = Vec::with_capacity(n * 1024);
    for &label in &labels {
        let (dx, dy) = (f64::from(label % 5) - 2.0, f64::from(label / 5) + 0.5);
        for i in 0..1024 {
            let wave = ((f64::from(i % 32) * dx + f64::from(i / 32) * dy) * 0.5).sin();
            pixels.push((127.0 + 90.0 * wave + rng.uniform(-30.0, 30.0)) as u8);
        }
    }
    let images = HostTensor::u8([n, 32, 32, 1], pixels).expect("pixels fit");
    let labels = HostTensor::u8([n], labels).expect("labels fit");
    let mut data = Dataset::new(images, labels).expect("a data set");
    data.scale = 1.0 / 255.0;
    data
}

fn config() -> Compile {
    Compile::new(Adam::new(2e-3), SparseCategoricalCrossentropy::new()).metric(Accuracy).seed(3)
}

fn trainer(engine: &Engine) -> Trainer {
    lenet5().compile(engine, config()).expect("a trainer")
}

/// Returns the bits of all weights.
fn bits(trainer: &Trainer) -> Vec<u32> {
    let weights = trainer.weights().expect("weights can be read");
    weights.iter().flat_map(|(_, t)| t.to_f32()).map(f32::to_bits).collect()
}

/// Records the running loss after every step.
#[derive(Clone, Default)]
struct Losses(Rc<RefCell<Vec<u64>>>);

impl Callback for Losses {
    fn step_end(&mut self, at: &Progress, _: &mut Trainer) -> Result<Control, hubel::Error> {
        self.0.borrow_mut().extend(at.values.first().map(|v| v.1.to_bits()));
        Ok(Control::Continue)
    }
}

/// Trains 200 steps of 32 with a read after each, and returns the losses' and the final weights' bits.
fn two_hundred_steps() -> (Vec<u64>, Vec<u32>) {
    let data = stripes(1000);
    let mut trainer = trainer(engine());
    let losses = Losses::default();
    let fit = Fit::epochs(99).batch(32).seed(1).max_steps(200).read_every_step().callback(losses.clone());
    trainer.fit(&data, fit).expect("training runs");
    let values = losses.0.borrow().clone();
    assert_eq!(values.len(), 200);
    (values, bits(&trainer))
}

#[test]
fn two_hundred_steps_give_the_same_bits_in_three_runs() {
    let first = two_hundred_steps();
    for _ in 0..2 {
        assert!(two_hundred_steps() == first, "another run gave other bits");
    }
}

/// Run by the test below in processes of their own, where the driver has another number of threads.
#[test]
fn bits_of_two_hundred_steps_as_text() {
    let (losses, weights) = two_hundred_steps();
    let fold = |h: u64, x: u64| (h ^ x).wrapping_mul(0x100_0000_01b3);
    let hash = losses.iter().copied().chain(weights.iter().map(|&w| u64::from(w))).fold(0xcbf2_9ce4_8422_2325, fold);
    println!("bits {hash:016x}");
}

#[test]
fn the_number_of_driver_threads_changes_no_bit() {
    let run = |threads| bits_printed_by("training::bits_of_two_hundred_steps_as_text", threads);
    let default = run(None);
    assert_eq!(run(Some("1")), default);
    assert_eq!(run(Some("2")), default);
}

#[test]
fn a_resumed_run_ends_in_the_same_bits() {
    let data = stripes(1000);
    let folder = temp_dir::TempDir::new().expect("a folder");
    let path = folder.path().join("state.safetensors");
    let fit = |steps| Fit::epochs(99).batch(32).seed(1).max_steps(steps);
    let mut whole = trainer(engine());
    whole.fit(&data, fit(200)).expect("training runs");

    let mut half = trainer(engine());
    half.fit(&data, fit(100)).expect("training runs");
    half.save_checkpoint(&path).expect("a checkpoint is written");
    drop(half);
    let mut rest = trainer(&opened());
    rest.load_checkpoint(&path).expect("the checkpoint is read");
    assert_eq!(rest.steps(), 100);
    rest.fit(&data, fit(100)).expect("training runs");
    assert!(bits(&rest) == bits(&whole), "100 steps, a checkpoint and 100 steps differ from 200");
}

/// What the log says, of all tests of this process.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_checkpoint_of_another_plan_is_loaded_and_the_log_says_so() {
    let said = Said::default();
    env_logger::Builder::new()
        .parse_filters("hubel::train=warn")
        .target(env_logger::Target::Pipe(Box::new(said.clone())))
        .init();
    let data = stripes(64);
    let folder = temp_dir::TempDir::new().expect("a folder");
    let path = folder.path().join("state.safetensors");
    let fit = || Fit::epochs(99).batch(32).seed(1).max_steps(2);
    let mut first = trainer(engine());
    first.fit(&data, fit()).expect("training runs");
    first.save_checkpoint(&path).expect("a checkpoint is written");
    let bytes = fs::read(&path).expect("a file");
    let (mut metadata, tensors) =
        (safetensors::metadata(&bytes).expect("metadata"), safetensors::read(&bytes).expect("tensors"));
    for (plan, warned) in [(metadata["plan"].clone(), false), ("17446744073709551557".to_owned(), true)] {
        metadata.insert("plan".into(), plan);
        let changed = safetensors::write(tensors.iter().map(|(n, t)| (n.as_str(), t)), &metadata).expect("a file");
        fs::write(&path, changed).expect("a file");
        let mut resumed = trainer(engine());
        resumed.load_checkpoint(&path).expect("a checkpoint");
        assert_eq!(resumed.steps(), 2);
        resumed.fit(&data, fit()).expect("training goes on");
        let log = String::from_utf8(said.0.lock().expect("no panic").clone()).expect("text");
        assert_eq!(log.contains("plan differs from the checkpoint's"), warned, "{log}");
    }
}

struct Counting {
    engine: Engine,
    step: usize,
    before: Option<[isize; 4]>,
    seen: Rc<RefCell<usize>>,
}

impl Callback for Counting {
    fn step_end(&mut self, _at: &Progress, _: &mut Trainer) -> Result<Control, hubel::Error> {
        self.step += 1;
        let now = objects(&self.engine);
        if self.step == 1 {
            self.before = Some(now);
        }
        assert_eq!(Some(now), self.before, "step {} created something", self.step);
        Ok(Control::Continue)
    }

    fn epoch_end(&mut self, _at: &Progress, _: &mut Trainer) -> Result<Control, hubel::Error> {
        assert_eq!(Some(objects(&self.engine)), self.before, "an evaluation created something");
        *self.seen.borrow_mut() = self.step;
        Ok(Control::Continue)
    }
}

#[test]
fn nothing_is_created_after_the_first_step_nor_by_an_evaluation_or_a_partial_batch() {
    let engine = Engine::new().expect("an adapter");
    // 25 steps and one of 7 samples in each of two epochs.
    let (data, validation) = (stripes(25 * 32 + 7), stripes(300));
    let seen = Rc::new(RefCell::new(0));
    let counting = Counting { engine: engine.clone(), step: 0, before: None, seen: seen.clone() };
    let mut trainer = trainer(&engine);
    let fit = Fit::epochs(2).batch(32).validation(&validation).callback(counting);
    let history = trainer.fit(&data, fit).expect("training runs");
    assert_eq!(*seen.borrow(), 52);
    let plan = trainer.plan().expect("a plan");
    assert!(plan.dispatches.len() <= 30, "{} launches\n{plan}", plan.dispatches.len());
    assert!(history.last("val_accuracy") > Some(0.5), "{history:?}");
}

#[test]
fn a_partial_batch_counts_as_keras_counts_it() {
    let (data, engine) = (stripes(70), engine());
    let mut a = trainer(engine);
    let whole = a.evaluate(&data).expect("an evaluation");
    let probabilities =
        a.predict(&data.rows(&(0..70).collect::<Vec<_>>()).expect("rows")).expect("a prediction").to_f32();
    let labels = data.labels.to_f32();
    let losses: f64 = (probabilities.chunks(10).zip(&labels)).map(|(p, &l)| -f64::from(p[l as usize]).ln()).sum();
    let difference = whole.get("loss").expect("a loss") - losses / 70.0;
    assert!(difference.abs() < 1e-5, "{difference}");
}

/// The same images in files, from which each step is fed.
fn fed_from_host(data: &Dataset) -> (temp_dir::TempDir, Dataset) {
    let folder = temp_dir::TempDir::new().expect("a folder");
    for i in 0..data.len() {
        let class = folder.path().join(format!("{}", data.labels.to_f32()[i]));
        std::fs::create_dir_all(&class).expect("a folder");
        let image = data.images.rows(i, 1).expect("an image").reshape([32, 32, 1]).expect("an image");
        let image = hubel::io::image::to_rgb(&image).expect("an image");
        hubel::io::image::save(&image, class.join(format!("{i:03}.png"))).expect("a file");
    }
    let reader = ImageFolder::new(folder.path()).image_size([32, 32]).color_mode(ColorMode::Grayscale);
    let streamed = reader.shuffle(false).stream(true).load().expect("images").train;
    (folder, Dataset { scale: 1.0 / 255.0, ..streamed })
}

#[test]
fn samples_fed_as_bytes_train_as_their_numbers_do_also_where_rows_end_within_a_word() {
    for engine in [engine().clone(), Engine::reference()] {
        let bytes: Vec<u8> = (0..7 * 35u32).map(|i| (i * 37 % 256) as u8).collect();
        let numbers = bytes.iter().map(|&x| f32::from(x) / 256.0 - 0.5).collect();
        let labels = HostTensor::u8([7], vec![0, 1, 2, 0, 1, 2, 0]).expect("labels");
        let data = |images: HostTensor| Dataset::new(images, labels.clone()).expect("a data set");
        let as_bytes =
            Dataset { scale: 1.0 / 256.0, offset: -0.5, ..data(HostTensor::u8([7, 5, 7, 1], bytes).expect("bytes")) };
        let as_numbers = data(HostTensor::f32([7, 5, 7, 1], numbers).expect("numbers"));
        let model = Sequential::new([5, 7, 1]).add(Flatten::new()).add(Dense::new(3).activation(Softmax));
        let model = model.build().expect("a model");
        let trainer = || model.compile(&engine, Compile::new(Sgd::new(0.1), SparseCategoricalCrossentropy::new()));
        let [mut a, mut b] = [trainer(), trainer()].map(|t| t.expect("a trainer"));
        for n in [7, 5, 1] {
            let part = |data: &Dataset| data.take(n);
            let losses = [
                a.train_on_batch(&part(&as_bytes)).expect("a step"),
                b.train_on_batch(&part(&as_numbers)).expect("a step"),
            ];
            // Scale and offset are powers of two: no rounding differs.
            assert_eq!(losses[0], losses[1], "{n} samples");
        }
        assert_eq!(bits(&a), bits(&b));
    }
}

/// Images sorted by class, so that folders number them alike.
fn mixed(n: usize) -> Dataset {
    let all = stripes(n + 200);
    let labels = all.labels.to_f32();
    let mut order: Vec<u32> = (0..n as u32 + 200).collect();
    order.sort_by_key(|&i| {
        let class = labels[i as usize];
        (labels[..i as usize].iter().filter(|&&l| l == class).count(), class as u32)
    });
    order.truncate(n);
    order.sort_by_key(|&i| (labels[i as usize] as u32, i));
    let part = all.select(&order).expect("samples");
    let bytes = part.images.to_f32().iter().map(|x| (x * 255.0).round() as u8).collect();
    let images = HostTensor::u8([n, 32, 32, 1], bytes).expect("pixels");
    Dataset { scale: 1.0 / 255.0, ..Dataset::new(images, part.labels).expect("a data set") }
}

/// A linear classifier, whose losses are computed here too.
fn linear(engine: &Engine, rate: f64) -> Trainer {
    let model = Sequential::new([32, 32, 1]).add(Flatten::new()).add(Dense::new(10).activation(Softmax).name("d"));
    let config = Compile::new(Sgd::new(rate), SparseCategoricalCrossentropy::new()).metric(Accuracy).seed(2);
    model.build().expect("a model").compile(engine, config).expect("a trainer")
}

/// Returns the probabilities of each sample by this formula, from weights, in 64 bits.
fn probabilities(weights: &[(String, HostTensor)], data: &Dataset) -> Vec<[f64; 10]> {
    let (kernel, bias) = (weights[0].1.to_f32(), weights[1].1.to_f32());
    let rows = data.rows(&(0..data.len() as u32).collect::<Vec<_>>()).expect("samples").to_f32();
    let of = |x: &[f32]| {
        let score = |k: usize| {
            let products = x.iter().enumerate().map(|(i, x)| f64::from(*x) * f64::from(kernel[i * 10 + k]));
            products.sum::<f64>() + f64::from(bias[k])
        };
        let scores: [f64; 10] = std::array::from_fn(score);
        let sum: f64 = scores.iter().map(|s| s.exp()).sum();
        scores.map(|s| s.exp() / sum)
    };
    rows.chunks(1024).map(of).collect()
}

#[test]
fn no_sample_of_a_partial_batch_is_left_out_in_training() {
    for n in [1, 7, 32, 39, 65] {
        let data = mixed(n);
        let (_folder, streamed) = fed_from_host(&data);
        for (engine, data) in [(engine(), &data), (engine(), &streamed), (&Engine::reference(), &data)] {
            let mut trainer = linear(engine, 0.01);
            let mut wanted = trainer.weights().expect("weights");
            let history = trainer.fit(data, Fit::epochs(1).batch(32).shuffle(false)).expect("training");
            assert_eq!(trainer.steps(), n.div_ceil(32) as u64);
            // Step after step, by the formula of the gradient: xᵀ(p − y) / n.
            let labels = data.labels.to_f32();
            let mut loss = 0.0;
            for start in (0..n).step_by(32) {
                let rows: Vec<u32> = (start as u32..(start + 32).min(n) as u32).collect();
                let part = data.select(&rows).expect("samples");
                let said = probabilities(&wanted, &part);
                let x = part.images.to_f32();
                let (mut kernel, mut bias) = (wanted[0].1.to_array().data, wanted[1].1.to_array().data);
                for (i, p) in said.iter().enumerate() {
                    let label = labels[start + i] as usize;
                    loss -= p[label].ln();
                    for k in 0..10 {
                        let d = 0.01 * (p[k] - f64::from(u8::from(k == label))) / rows.len() as f64;
                        bias[k] -= d;
                        (0..1024).for_each(|j| kernel[j * 10 + k] -= d * f64::from(x[i * 1024 + j]));
                    }
                }
                let f32s = |all: Vec<f64>| all.into_iter().map(|x| x as f32).collect();
                wanted[0].1 = HostTensor::f32([1024, 10], f32s(kernel)).expect("a kernel");
                wanted[1].1 = HostTensor::f32([10], f32s(bias)).expect("a bias");
            }
            let difference = history.last("loss").expect("a loss") - loss / n as f64;
            assert!(difference.abs() < 1e-4, "{n}: the loss is off by {difference}");
            for ((name, got), (_, wanted)) in trainer.weights().expect("weights").iter().zip(&wanted) {
                let off = got.to_f32().iter().zip(wanted.to_f32()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(off < 2e-5, "{n}: {name} is off by {off}");
            }
        }
    }
}

#[test]
fn no_sample_of_a_partial_batch_is_left_out_of_scores_predictions_and_features() {
    // More than the largest batch of an evaluation, and some.
    for n in [1, 7, 256, 256 + 39] {
        let data = mixed(n);
        let (_folder, streamed) = fed_from_host(&data);
        for (engine, data) in [(engine(), &data), (engine(), &streamed), (&Engine::reference(), &data)] {
            let mut trainer = linear(engine, 0.1);
            let said = probabilities(&trainer.weights().expect("weights"), data);
            let labels = data.labels.to_f32();
            let weights: Vec<f32> = (0..n).map(|i| (i % 3) as f32).collect();
            let (mut loss, mut weighted, mut hits) = (0.0, 0.0, 0);
            let mut matrix = vec![vec![0; 10]; 10];
            for (i, p) in said.iter().enumerate() {
                let label = labels[i] as usize;
                let best = (0..10).fold(0, |best, k| if p[k] > p[best] { k } else { best });
                loss -= p[label].ln() / n as f64;
                weighted -= f64::from(weights[i]) * p[label].ln() / n as f64;
                hits += usize::from(best == label);
                matrix[label][best] += 1;
            }
            let near = |what: &str, got: Option<f64>, wanted: f64| {
                assert!(got.is_some_and(|got| (got - wanted).abs() < 1e-5), "{n}: {what} {got:?}, wanted {wanted}");
            };
            let scores = trainer.evaluate(data).expect("scores");
            near("loss", scores.get("loss"), loss);
            near("accuracy", scores.get("accuracy"), hits as f64 / n as f64);
            let of_weighted = data.clone().sample_weights(weights).expect("weights");
            near("weighted loss", trainer.evaluate(&of_weighted).expect("scores").get("loss"), weighted);
            assert_eq!(trainer.confusion_matrix(data).expect("a matrix"), matrix, "{n}");
            let rows = data.rows(&(0..n as u32).collect::<Vec<_>>()).expect("samples");
            let mut net = trainer.inference(Batch::up_to(32), &[]).expect("an inference");
            let features = net.features(data, |_, _| {}).expect("features");
            for got in [trainer.predict(&rows), net.predict(&rows), Ok(features.images)] {
                let got = got.expect("predictions");
                assert_eq!(got.shape(), [n, 10]);
                let off = got
                    .to_array()
                    .data
                    .iter()
                    .zip(said.iter().flatten())
                    .map(|(a, b)| (a - b).abs())
                    .fold(0.0, f64::max);
                assert!(off < 1e-5, "{n}: off by {off}");
            }
            // A whole epoch's validation sees them all too.
            let one = mixed(1);
            let mut still = linear(engine, 0.0);
            let history = still.fit(&one, Fit::epochs(1).validation(data)).expect("training");
            near("val_loss", history.last("val_loss"), loss);
        }
    }
}

#[test]
fn gpu_and_reference_engine_learn_alike() {
    let data = stripes(96);
    let run = |engine: &Engine| {
        let mut trainer = trainer(engine);
        let fit = Fit::epochs(2).batch(32).seed(1);
        trainer.fit(&data, fit).expect("training runs").get("loss").expect("a loss").to_vec()
    };
    let (gpu, reference) = (run(engine()), run(&Engine::reference()));
    for (g, r) in gpu.iter().zip(&reference) {
        assert!((g - r).abs() <= 1e-3 * r.abs(), "{gpu:?} on the GPU, {reference:?} by reference");
    }
}

#[test]
fn a_pixel_that_is_nan_makes_the_loss_nan_and_ends_training() {
    let mut pixels = vec![0.5f32; 32];
    pixels[3] = f32::NAN;
    let images = HostTensor::f32([2, 4, 4, 1], pixels).expect("two images");
    let data = Dataset::new(images, HostTensor::u8([2], vec![0, 1]).expect("labels")).expect("a data set");
    let model = || {
        (Sequential::new([4, 4, 1]).add(Conv2D::new(4, 3).kernel_initializer(Ones).activation(Relu)))
            .add(MaxPooling2D::new(2))
            .add(Flatten::new())
            .add(Dense::new(2).activation(Softmax))
            .build()
            .expect("a model")
    };
    for engine in [engine(), &Engine::reference()] {
        let config = || Compile::new(Sgd::new(0.1), SparseCategoricalCrossentropy::new());
        let mut trainer = model().compile(engine, config()).expect("a trainer");
        let history = trainer.fit(&data, Fit::epochs(1)).expect("training");
        assert!(history.last("loss").is_some_and(f64::is_nan), "{:?}", history.get("loss"));
        assert!(trainer.weights().expect("weights")[0].1.to_f32().iter().all(|w| w.is_nan()));
        if engine.is_reference() {
            continue;
        }
        let mut trainer = model().compile(engine, config()).expect("a trainer");
        trainer.fit(&data, Fit::epochs(3).callback(TerminateOnNaN::new())).expect("training");
        assert!(trainer.not_finite().is_some() && trainer.steps() == 0);
        assert!(trainer.weights().expect("weights").iter().all(|w| w.1.to_f32().iter().all(|x| x.is_finite())));
    }
}

#[test]
fn thirty_two_images_are_learned_by_heart() {
    let data = stripes(32);
    let mut trainer = trainer(engine());
    trainer.fit(&data, Fit::epochs(200).batch(32).seed(1)).expect("training runs");
    let loss = trainer.evaluate(&data).expect("an evaluation").get("loss").expect("a loss");
    assert!(loss < 1e-3, "{loss}");
}

#[test]
fn dropout_and_batch_normalization_train() {
    let model = Sequential::new([32, 32, 1])
        .add(Conv2D::new(8, 3).strides(2).use_bias(false))
        .add(BatchNormalization::new().momentum(0.9))
        .add(Relu)
        .add(MaxPooling2D::new(2))
        .add(Flatten::new())
        .add(Dropout::new(0.2))
        .add(Dense::new(10).activation(Softmax))
        .build()
        .expect("a model");
    let data = stripes(300);
    let mut trainer = model.compile(engine(), config()).expect("a trainer");
    trainer.fit(&data, Fit::epochs(8).batch(32).seed(1)).expect("training runs");
    let scores = trainer.evaluate(&data).expect("an evaluation");
    assert!(scores.get("accuracy") > Some(0.9), "{scores:?}");
    let weights = trainer.weights().expect("weights");
    let moving = weights.iter().find(|(n, _)| n == "batch_normalization/moving_mean").expect("moving statistics");
    assert!(moving.1.to_f32().iter().any(|&m| m != 0.0), "the moving mean has not moved");
}

#[test]
fn wrong_data_is_refused_with_a_sentence() {
    let mut trainer = trainer(engine());
    let small = HostTensor::u8([2, 28, 28, 1], vec![0; 2 * 784]).expect("images");
    let data = Dataset::new(small, HostTensor::u8([2], vec![0, 1]).expect("labels")).expect("a data set");
    let error = trainer.fit(&data, Fit::epochs(1)).expect_err("28 is not 32").to_string();
    assert!(error.contains("[32, 32, 1]") && error.contains("[28, 28, 1]"), "{error}");
    let mut data = stripes(3);
    data.labels = HostTensor::u8([3], vec![1, 10, 2]).expect("labels");
    let error = trainer.evaluate(&data).expect_err("there is no class 10").to_string();
    assert!(error.contains("label 10 of sample 1"), "{error}");
    let error = Sequential::new([4, 4, 1]).add(Conv2D::new(2, 5).name("wide")).build().expect_err("5 is over 4");
    assert!(error.to_string().contains("layer `wide` (Conv2D)"), "{error}");
}

#[test]
fn a_network_runs_inside_the_callers_encoder_on_the_callers_device() {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };
    let instance = wgpu::Instance::default();
    let adapter = pollster::block_on(instance.request_adapter(&Default::default())).expect("an adapter");
    let need = Engine::required(&adapter);
    let descriptor =
        wgpu::DeviceDescriptor { required_features: need.features, required_limits: need.limits, ..Default::default() };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).expect("a device");
    let errors = Arc::new(AtomicUsize::new(0));
    let counted = errors.clone();
    device.on_uncaptured_error(Arc::new(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
    }));

    // Weights come from bytes, as an application ships them.
    let mut trainer = trainer(engine());
    trainer.fit(&stripes(64), Fit::epochs(1)).expect("training runs");
    let folder = temp_dir::TempDir::new().expect("a folder");
    let path = folder.path().join("w.safetensors");
    trainer.save_weights(&path).expect("weights are written");
    let bytes = std::fs::read(&path).expect("weights are there");
    let mut model = lenet5();
    model.load_weights_from_bytes(&bytes).expect("weights load from bytes");

    let kernels = engine().profile().clone();
    let engine =
        Engine::from_wgpu(&adapter, &device, &queue).expect("an engine on a borrowed device").with_profile(kernels);
    let mut net = model.inference(&engine, Batch::up_to(4)).expect("an inference");
    let data = stripes(4);
    let samples = data.rows(&[0, 1, 2, 3]).expect("rows");
    let buffer = |bytes: u64, usage| {
        device.create_buffer(&wgpu::BufferDescriptor { label: None, size: bytes, usage, mapped_at_creation: false })
    };
    let storage = wgpu::BufferUsages::STORAGE;
    let input = buffer(4 * 4096, storage | wgpu::BufferUsages::COPY_DST);
    let output = buffer(4 * 40, storage | wgpu::BufferUsages::COPY_SRC);
    let readback = buffer(4 * 40, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
    queue.write_buffer(&input, 0, samples.bytes());
    for _ in 0..2 {
        let mut encoder = device.create_command_encoder(&Default::default());
        net.record(&mut encoder, &[External::from(&input)], &[External::from(&output)]).expect("recording works");
        encoder.copy_buffer_to_buffer(&output, 0, &readback, 0, 160);
        queue.submit([encoder.finish()]);
    }
    readback.slice(..).map_async(wgpu::MapMode::Read, |r| r.expect("mapping works"));
    device.poll(wgpu::PollType::wait_indefinitely()).expect("the device answers");
    let view = readback.slice(..).get_mapped_range().expect("mapped");
    let inside: Vec<f32> = bytemuck::cast_slice(&view).to_vec();
    let outside = trainer.predict(&samples).expect("a prediction").to_f32();
    assert!(inside == outside, "{inside:?}\n{outside:?}");

    // The application's handler still fires.
    assert_eq!(errors.load(Ordering::SeqCst), 0);
    let _ = buffer(u64::MAX / 4, storage);
    let _ = device.poll(wgpu::PollType::Poll);
    assert_eq!(errors.load(Ordering::SeqCst), 1, "the application's own error handler no longer fires");
}
