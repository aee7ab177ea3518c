//! Sizes out of range, under an allocator that refuses more than 512 MiB at once: each is refused before memory is
//! allocated for it.

use hubel::{
    data::{preprocess, to_categorical},
    layers::*,
    losses::*,
    metrics::*,
    nn::models::Options,
    optimizers::*,
    passes::PlanError,
    prelude::*,
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    fmt::Display,
    ptr,
    sync::OnceLock,
};

/// The maximum bytes of one request. Larger ones end the process.
const MOST: usize = 512 << 20;

struct Refusing;

// SAFETY: every call is passed on to the system's allocator, or answered as one that failed.
unsafe impl GlobalAlloc for Refusing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `GlobalAlloc`, which is also the system's.
        if layout.size() > MOST { ptr::null_mut() } else { unsafe { System.alloc(layout) } }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `GlobalAlloc`, which is also the system's.
        if layout.size() > MOST { ptr::null_mut() } else { unsafe { System.alloc_zeroed(layout) } }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `GlobalAlloc`, which is also the system's.
        if size > MOST { ptr::null_mut() } else { unsafe { System.realloc(at, layout, size) } }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `GlobalAlloc`, which is also the system's.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Refusing = Refusing;

const HUGE: [usize; 4] = [1 << 32, 1 << 40, 1 << 62, usize::MAX];

fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::new().expect("an adapter"))
}

fn model() -> Model {
    let conv = Conv2D::new(4, 3).activation(Relu).name("conv");
    let model = Sequential::new([8, 8, 1]).add(conv).add(Flatten::new());
    model.add(Dense::new(3).activation(Softmax)).build().expect("a model")
}

fn images(n: usize) -> HostTensor {
    HostTensor::f32([n, 8, 8, 1], (0..n * 64).map(|i| (i % 7) as f32).collect()).expect("images")
}

fn data(n: usize) -> Dataset {
    let labels = HostTensor::u8([n], (0..n).map(|i| (i % 3) as u8).collect()).expect("labels");
    Dataset::new(images(n), labels).expect("a data set")
}

fn trainer(engine: &Engine) -> Trainer {
    model().compile(engine, Compile::new(Sgd::new(0.1), SparseCategoricalCrossentropy::new())).expect("a trainer")
}

/// Asserts that a result is an error that contains each of these.
fn says<T, E: Display>(answer: Result<T, E>, words: &[&str]) {
    let text = answer.err().expect("it is refused").to_string();
    assert!(words.iter().all(|word| text.contains(word)), "{words:?} in: {text}");
}

#[test]
fn a_plan_for_more_samples_than_a_binding_holds_is_refused() {
    for batch in HUGE {
        let number = batch.to_string();
        let mut net = model().inference(engine(), Batch::up_to(batch)).expect("nothing is planned yet");
        says(net.plan(), &[&number, "samples"]);
        says(net.predict(&images(2)), &[&number, "samples"]);
        for engine in [engine().clone(), Engine::reference()] {
            let answer = trainer(&engine).plan_for(&data(2), batch);
            let typed =
                matches!(answer, Err(hubel::Error::Plan(PlanError::TooLarge { capacity, .. })) if capacity == batch);
            assert!(typed, "{batch}");
        }
        let mut explainer = model().explain(engine(), Batch::up_to(batch)).expect("nothing is planned yet");
        says(explainer.saliency(&images(1), None), &[&number]);
        // The reference allocates no memory for missing samples.
        let mut net = model().inference(&Engine::reference(), Batch::up_to(batch)).expect("an inference");
        assert_eq!(net.predict(&images(2)).expect("a prediction").shape(), [2, 3]);
    }
}

#[test]
fn a_batch_larger_than_the_data_is_the_data() {
    for engine in [engine().clone(), Engine::reference()] {
        let mut wanted = trainer(&engine);
        wanted.fit(&data(10), Fit::epochs(1).batch(10)).expect("training");
        for batch in [11, 100_000].into_iter().chain(HUGE) {
            let mut trainer = trainer(&engine);
            trainer.fit(&data(10), Fit::epochs(1).batch(batch).validation(&data(3))).expect("training");
            assert_eq!(trainer.steps(), 1, "{batch}");
            assert_eq!(trainer.weights().expect("weights"), wanted.weights().expect("weights"), "{batch}");
        }
    }
}

#[test]
fn samples_without_elements_are_refused_whatever_their_number() {
    for n in HUGE {
        let none = HostTensor::f32([n, 0], Vec::new()).expect("no elements");
        let mut net = model().inference(&Engine::reference(), Batch::up_to(2)).expect("an inference");
        says(net.predict(&none), &["8, 8, 1"]);
        says(trainer(engine()).predict(&none), &["8, 8, 1"]);
        let mut explainer = model().explain(&Engine::reference(), Batch::up_to(2)).expect("an explainer");
        says(explainer.saliency(&none, Some(&[1])), &["8, 8, 1"]);
        says(explainer.grad_cam("conv", &none, None), &["8, 8, 1"]);
        let empty = Dataset::new(none.clone(), none).expect("as many samples as labels");
        says(trainer(engine()).evaluate(&empty), &["8, 8, 1"]);
        says(trainer(engine()).fit(&empty, Fit::epochs(1)), &["8, 8, 1"]);
    }
}

#[test]
fn sizes_of_images_labels_and_metrics_are_checked() {
    for n in HUGE {
        says(data(3).pad(n), &["padded"]);
        says(preprocess::pad(&HostTensor::u8([1, 1, 3], vec![0; 3]).expect("an image"), [n, n]), &["image"]);
        says(to_categorical(&data(3).labels, n), &["labels"]);
        says(ImageFolder::new("images").image_size([n, 8]).load(), &["image_size", &n.to_string()]);
        let config = || Compile::new(Sgd::new(0.1), CategoricalCrossentropy::new());
        let net = Sequential::new([1]).add(Dense::new(4).activation(Softmax)).build().expect("a model");
        net.compile(engine(), config().metric(TopKAccuracy::new(n))).expect("all classes are among the likeliest");
        says(net.compile(engine(), config().metric(Auc::new().thresholds(n))), &["auc", &n.to_string()]);
        says((hubel::nn::models::find("VGG16").expect("a network").build)(&Options::default().classes(n)), &[]);
    }
    for few in [0, 1, 2] {
        let config = Compile::new(Sgd::new(0.1), BinaryCrossentropy::new()).metric(Auc::new().thresholds(few));
        let model = Sequential::new([1]).add(Dense::new(1).activation(Sigmoid)).build().expect("a model");
        says(model.compile(engine(), config), &["thresholds"]);
    }
}

#[test]
fn weights_that_no_device_holds_are_refused() {
    let wide = Sequential::new([1 << 16]).add(Dense::new((1 << 16) - 1).name("wide")).build().expect("a model");
    let engine = Engine::builder().memory_budget(1 << 30).build().expect("an engine");
    says(wide.inference(&engine, Batch::up_to(1)), &["wide/kernel"]);
    says(wide.compile(&engine, Compile::new(Sgd::new(0.1), MeanSquaredError)), &["wide/kernel"]);
}
