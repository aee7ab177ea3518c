//! Trainers as Keras files, and parts of files.

use hubel::{
    layers::*,
    losses::*,
    metrics::*,
    nn::{Curve, models::Preprocessing},
    optimizers::*,
    prelude::*,
    train::Trainer,
};
use std::fmt::Debug;

fn network() -> Model {
    let layers = Sequential::new([4])
        .add(Dense::new(5).activation(Tanh).name("first"))
        .add(BatchNormalization::new().name("norm"))
        .add(Dense::new(3).activation(Softmax).name("head"));
    let mut model = layers.build().unwrap();
    model.set_class_names(["a", "b", "c"]);
    model.set_preprocessing(Preprocessing::Tf);
    model
}

fn data() -> Dataset {
    let images = HostTensor::f32([6, 4], (0..24).map(|i| ((i * 7 % 11) as f32 - 5.0) / 3.0).collect()).unwrap();
    Dataset::new(images, HostTensor::u8([6], vec![0, 1, 2, 2, 1, 0]).unwrap()).unwrap()
}

fn goes_on(config: Compile) {
    for name in ["trained.keras", "trained.h5"] {
        goes_on_from(name, config.clone());
    }
}

fn goes_on_from(name: &str, config: Compile) {
    let folder = temp_dir::TempDir::new().unwrap();
    let path = folder.path().join(name);
    let engine = Engine::reference();
    let mut trainer = network().compile(&engine, config).unwrap();
    for _ in 0..3 {
        trainer.train_on_batch(&data()).unwrap();
    }
    trainer.save(&path).unwrap();
    let mut again = Trainer::load(&path, &engine).unwrap();
    assert_eq!((again.steps(), again.learning_rate() as f32), (3, trainer.learning_rate() as f32));
    for _ in 0..3 {
        assert_eq!(again.train_on_batch(&data()).unwrap(), trainer.train_on_batch(&data()).unwrap());
    }
    assert_eq!(again.weights().unwrap(), trainer.weights().unwrap());
    assert_eq!(again.evaluate(&data()).unwrap(), trainer.evaluate(&data()).unwrap());
    let model = Model::load(&path).unwrap();
    assert_eq!((model.class_names().len(), model.preprocessing()), (3, Some(Preprocessing::Tf)));
}

fn with(optimizer: impl Optimizer + 'static) -> Compile {
    Compile::new(optimizer, SparseCategoricalCrossentropy::new())
}

#[test]
fn training_goes_on_from_a_file_as_if_it_had_never_ended() {
    goes_on(with(Sgd::new(0.1)));
    goes_on(with(Sgd::new(0.1).momentum(0.9).nesterov(true).clipnorm(0.5)));
    goes_on(with(Adam::new(1e-2).beta_1(0.8).amsgrad(true)).metric(Accuracy).metric(TopKAccuracy::new(2)));
    goes_on(with(AdamW::new(CosineDecay::new(1e-2, 20).warmup(2e-2, 2))).metric_named("hits", Accuracy));
    goes_on(with(Nadam::new(1e-2).global_clipnorm(1.0)));
    goes_on(with(RmsProp::new(1e-2).momentum(0.5).centered(true)).rate_factor("head", 0.5));
    goes_on(with(Adagrad::new(PiecewiseConstantDecay::new(0.1, [(2, 0.05), (4, 0.01)])).weight_decay(0.01)).seed(3));
    goes_on(with(Sgd::new(ExponentialDecay::new(0.1, 2, 0.5).staircase(true))).norms(true));
    goes_on(with(Sgd::new(PolynomialDecay::new(0.1, 5, 0.01).power(2.0))));
    goes_on(with(Sgd::new(InverseTimeDecay::new(0.1, 2, 0.5))));
    goes_on(with(Sgd::new(CosineDecayRestarts::new(0.1, 2).alpha(0.1))));
}

#[test]
fn a_rate_that_was_set_is_kept() {
    let folder = temp_dir::TempDir::new().unwrap();
    let path = folder.path().join("trained.keras");
    let mut trainer = network().compile(&Engine::reference(), with(Adam::new(1e-2))).unwrap();
    trainer.train_on_batch(&data()).unwrap();
    trainer.set_learning_rate(0.5).unwrap();
    trainer.save(&path).unwrap();
    assert_eq!(Trainer::load(&path, &Engine::reference()).unwrap().learning_rate(), 0.5);
}

#[test]
fn losses_and_metrics_come_back_with_their_options() {
    let folder = temp_dir::TempDir::new().unwrap();
    let path = folder.path().join("trained.keras");
    let kept = |config: Compile, wanted: &[&dyn Debug]| {
        let x = Input::new([2]);
        let y = x.apply(Dense::new(1)).unwrap();
        let model = Model::new(std::slice::from_ref(&x), &[y.clone(), y.apply(Sigmoid).unwrap()]).unwrap();
        model.compile(&Engine::reference(), config).unwrap().save(&path).unwrap();
        let text = format!("{:?}", Trainer::load(&path, &Engine::reference()).unwrap().config());
        for part in wanted.iter().map(|part| format!("{part:?}")) {
            assert!(text.contains(&part), "{part} is not in {text}");
        }
    };
    let rate = || Sgd::new(0.1);
    let (smooth, huber) = (BinaryCrossentropy::new().from_logits(true).label_smoothing(0.25), Huber::new().delta(0.5));
    kept(Compile::new(rate(), huber).loss_weight(0.5).output(smooth), &[&huber, &smooth, &0.5]);
    let (auc, precision) = (Auc::new().curve(Curve::PrecisionRecall).thresholds(50), Precision::new().threshold(0.75));
    let config = Compile::new(rate(), MeanSquaredError).metric(RootMeanSquaredError).metric(MeanAbsoluteError);
    let config = config.output(CategoricalHinge).metric(auc).metric(precision).metric(Recall::new().class_id(0));
    let recall = Recall::new().class_id(0);
    kept(config, &[&RootMeanSquaredError, &MeanAbsoluteError, &CategoricalHinge, &auc, &precision, &recall]);
    let config = Compile::new(rate(), LogCosh).output(Poisson).metric(BinaryAccuracy::new().threshold(0.25));
    kept(config, &[&LogCosh, &Poisson, &BinaryAccuracy::new().threshold(0.25)]);
    let config = Compile::new(rate(), CosineSimilarity).output(KLDivergence).metric(Hinge).metric(SquaredHinge);
    kept(config, &[&CosineSimilarity, &KLDivergence, &Hinge, &SquaredHinge]);
}

#[test]
fn what_keras_does_not_have_and_what_was_never_compiled_is_refused() {
    let folder = temp_dir::TempDir::new().unwrap();
    let refused = |config: Compile, file: &str| {
        let trainer = network().compile(&Engine::reference(), config).unwrap();
        trainer.save(folder.path().join(file)).unwrap_err().to_string()
    };
    let error = refused(with(Sgd::new(OneCycle::new(0.1, 10))), "a.keras");
    assert!(error.contains("OneCycle") && error.contains("Keras has"), "{error}");
    let error = refused(with(Sgd::new(0.1)), "a.weights.h5");
    assert!(error.contains(".keras") && error.contains("trained()"), "{error}");
    network().save(folder.path().join("bare.keras")).unwrap();
    let error = Trainer::load(folder.path().join("bare.keras"), &Engine::reference()).err().unwrap().to_string();
    assert!(error.contains("compile_config"), "{error}");
}

#[test]
fn layers_of_the_same_name_and_shape_are_loaded_from_every_format() {
    let folder = temp_dir::TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let mut source = network();
    let drawn: Vec<(String, HostTensor)> =
        source.weights().iter().map(|w| (w.name.clone(), source.initial_value(w, 7))).collect();
    source.set_weights(drawn).unwrap();
    let trainer = source.compile(&Engine::reference(), with(Adam::new(1e-3))).unwrap();
    trainer.save_checkpoint(path("w.checkpoint")).unwrap();
    trainer.save(path("t.keras")).unwrap();
    for name in ["w.keras", "w.h5", "w.weights.h5", "w.safetensors"] {
        source.save(path(name)).unwrap();
    }
    let other = Sequential::new([4])
        .add(Dense::new(5).activation(Tanh).name("first"))
        .add(BatchNormalization::new().name("norm"))
        .add(Dense::new(7).name("head"));
    for name in ["w.keras", "w.h5", "w.weights.h5", "w.safetensors", "w.checkpoint", "t.keras"] {
        let mut model = other.clone().build().unwrap();
        let loaded = model.load_weights_by_name(path(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(loaded.len(), 6, "{name}: {loaded:?}");
        for weight in model.weights() {
            let same = source.weights().iter().find(|w| w.name == weight.name && w.shape == weight.shape);
            let from = same.map_or_else(
                || other.clone().build().unwrap().initial_value(weight, 0),
                |w| source.initial_value(w, 0),
            );
            assert_eq!(model.initial_value(weight, 0), from, "{name}: {}", weight.name);
        }
    }
    let mut strange = Sequential::new([4]).add(Dense::new(1).name("own")).build().unwrap();
    let error = strange.load_weights_by_name(path("w.safetensors")).unwrap_err().to_string();
    assert!(error.contains("own/kernel") && error.contains("first/kernel"), "{error}");
    // Weights alone are read from a trainer's file and from its checkpoint.
    for name in ["t.keras", "w.checkpoint"] {
        let mut whole = network();
        whole.load_weights(path(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let kernel = &whole.weights()[0];
        assert_eq!(whole.initial_value(kernel, 0), source.initial_value(&source.weights()[0], 0));
    }
}

#[test]
fn settings_of_training_that_are_no_object_do_not_stop_the_model_from_being_read() {
    let folder = temp_dir::TempDir::new().unwrap();
    let path = folder.path().join("trained.h5");
    let engine = Engine::reference();
    network().compile(&engine, Compile::new(Sgd::new(0.1), MeanSquaredError)).unwrap().save(&path).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let settings = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(b"{\"")).find_map(|at| {
        let mut values = serde_json::Deserializer::from_slice(&bytes[at..]).into_iter::<serde_json::Value>();
        let value = values.next()?.ok()?;
        value.get("optimizer_config").map(|_| at..at + values.byte_offset())
    });
    let settings = settings.expect("the settings of training");
    bytes[settings.clone()].fill(b' ');
    bytes[settings.start] = b'7';
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(Model::load(&path).unwrap().count_params(), network().count_params());
    assert!(Trainer::load(&path, &engine).is_err());
}
