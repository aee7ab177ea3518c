//! Checkpoints: their contents, and how a run continues from them.

use super::{AtStep, Weights, kernel, one, ones, plain, points, says};
use crate::harness::engine;
use hubel::{
    Error, callbacks::*, io::safetensors, layers::*, losses::*, metrics::*, optimizers::*, prelude::*,
    train::CallbackState,
};
use std::fs;

#[test]
fn checkpoints_of_the_best_epochs_and_rows_of_all_are_written() {
    let folder = temp_dir::TempDir::new().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let data = points();
    let model = Sequential::new([1]).add(Dense::new(2).activation(Softmax)).build().expect("a model");
    let config = || Compile::new(Sgd::new(0.5), SparseCategoricalCrossentropy::new()).metric(Accuracy);
    let mut trainer = model.compile(engine(), config()).expect("a trainer");
    let fit = Fit::epochs(3)
        .callback(ModelCheckpoint::new(path("epoch{epoch}.safetensors")))
        .callback(ModelCheckpoint::new(path("best.safetensors")).best_only("loss").weights_only(true))
        .callback(TerminateOnNaN::new())
        .callback(CsvLogger::new(path("log.csv")));
    let history = trainer.fit(&data, fit).expect("training");
    let names = |file: &str| {
        let tensors = hubel::io::safetensors::open(path(file)).expect("a file");
        tensors.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!((names("best.safetensors").len(), trainer.not_finite()), (2, None));
    assert!(names("epoch3.safetensors").len() > 2);
    let mut resumed = model.compile(engine(), config()).expect("a trainer");
    resumed.load_checkpoint(path("epoch2.safetensors")).expect("a checkpoint");
    assert_eq!((resumed.steps(), trainer.steps()), (4, 6));
    resumed.fit(&data, Fit::until_epoch(3).callback(CsvLogger::new(path("log.csv")).append(true))).expect("training");
    assert_eq!(resumed.weights().expect("weights"), trainer.weights().expect("weights"));
    let mut best = model.clone();
    best.load_weights(path("best.safetensors")).expect("weights");
    let text = fs::read_to_string(path("log.csv")).expect("a log");
    let rows: Vec<&str> = text.lines().collect();
    assert_eq!((rows[0], rows.len()), ("epoch,accuracy,loss", 5));
    let last = format!("2,{},{}", history.last("accuracy").expect("a value"), history.last("loss").expect("a value"));
    assert_eq!([rows[3], rows[4]], [&last[..], &last[..]]);
}

#[test]
fn a_checkpoint_with_more_or_fewer_tensors_than_the_run_is_refused() {
    use hubel::io::safetensors;
    let folder = temp_dir::TempDir::new().expect("a folder");
    let path = folder.path().join("state.safetensors");
    let model = Sequential::new([1]).add(Dense::new(2).activation(Softmax)).build().expect("a model");
    let config = Compile::new(Adam::new(0.5), SparseCategoricalCrossentropy::new());
    let mut trainer = model.compile(engine(), config).expect("a trainer");
    trainer.save_checkpoint(&path).expect("a checkpoint");
    let bytes = fs::read(&path).expect("a file");
    let metadata = safetensors::metadata(&bytes).expect("metadata");
    let all = safetensors::read(&bytes).expect("tensors");
    let more = [&all[..], &[("other".to_owned(), HostTensor::f32([1], vec![0.0]).expect("a tensor"))]].concat();
    for tensors in [&more[..], &all[1..]] {
        let changed = safetensors::write(tensors.iter().map(|(n, t)| (n.as_str(), t)), &metadata).expect("a file");
        fs::write(&path, changed).expect("a file");
        let error = trainer.load_checkpoint(&path).expect_err("another run's").to_string();
        assert!(error.contains("does not fit this run"), "{error}");
    }
}

#[test]
fn a_resumed_run_goes_on_with_what_its_callbacks_remember() {
    let folder = temp_dir::TempDir::new().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    // Better, worse, worse, …: a run that is resumed after any epoch ends where the whole one does.
    const SERIES: &[f32] = &[0.2, 0.9, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0, 0.0];
    let fit = |name: &str, epochs: usize| {
        Fit::until_epoch(epochs)
            .validation(Box::leak(Box::new(ones(4))))
            .callback(Weights(SERIES))
            .callback(ModelCheckpoint::new(path("last.safetensors")))
            .callback(ModelCheckpoint::new(path(name)).best_only("val_loss").weights_only(true))
            .callback(ReduceLROnPlateau::new("val_loss").factor(0.5).patience(2).cooldown(1))
            .callback(EarlyStopping::new("val_loss").patience(4).restore_best_weights(true))
    };
    let mut whole = plain(0.01);
    let wanted = whole.fit(&ones(4), fit("whole.safetensors", 9)).expect("training");
    assert_eq!(wanted.epochs.len(), 6);
    for after in 1..6 {
        let name = format!("best{after}.safetensors");
        plain(0.01).fit(&ones(4), fit(&name, after)).expect("training");
        let mut resumed = plain(0.01);
        resumed.load_checkpoint(path("last.safetensors")).expect("a checkpoint");
        let history = resumed.fit(&ones(4), fit(&name, 9)).expect("training");
        assert_eq!(after + history.epochs.len(), 6, "resumed after {after}");
        assert_eq!(resumed.weights().expect("weights"), whole.weights().expect("weights"), "resumed after {after}");
        assert_eq!(resumed.learning_rate(), whole.learning_rate(), "resumed after {after}");
        let best = kernel(&safetensors::open(path(&name)).expect("weights"));
        assert_eq!(
            best,
            kernel(&safetensors::open(path("whole.safetensors")).expect("weights")),
            "resumed after {after}"
        );
    }
    // A callback of one's own, twice.
    #[derive(Default)]
    struct Counter(f64);
    impl Callback for Counter {
        fn epoch_end(&mut self, _: &Progress, _: &mut Trainer) -> Result<Control, Error> {
            self.0 += 1.0;
            Ok(Control::Continue)
        }
        fn state(&self) -> CallbackState {
            CallbackState { name: "counter".into(), numbers: vec![("n".into(), self.0)], weights: None }
        }
        fn set_state(&mut self, state: &CallbackState) {
            self.0 = state.get("n").expect("its number");
        }
        fn end(&mut self, _: &mut Trainer) -> Result<(), Error> {
            assert!(self.0 == 5.0 || self.0 == 105.0 || self.0 < 4.0 || self.0 == 103.0, "{}", self.0);
            Ok(())
        }
    }
    let counters = |n: usize| Fit::until_epoch(n).callback(Counter(0.0)).callback(Counter(100.0));
    let mut trainer = plain(0.01);
    trainer.fit(&ones(4), counters(3)).expect("training");
    trainer.save_checkpoint(path("counters.safetensors")).expect("a checkpoint");
    let mut resumed = plain(0.01);
    resumed.load_checkpoint(path("counters.safetensors")).expect("a checkpoint");
    resumed.fit(&ones(4), counters(5)).expect("training");
    // A later call starts again, as in Keras.
    resumed.fit(&ones(4), Fit::epochs(3).callback(Counter(0.0))).expect("training");
    let amid = path("amid.safetensors");
    let save = AtStep(|_: &Progress, trainer: &mut Trainer| {
        trainer.save_checkpoint(&amid).expect("a checkpoint");
        Control::Continue
    });
    resumed.fit(&ones(4), Fit::epochs(1).callback(save)).expect("training");
    let saved = fs::read(&amid).expect("a file");
    assert!(!String::from_utf8_lossy(&saved).contains("counter"), "what the callbacks of another call remembered");
}

#[test]
fn the_best_file_of_a_diverging_run_stays_the_best_when_the_run_is_resumed() {
    let folder = temp_dir::TempDir::new().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let data = ones(4);
    let go = |trainer: &mut Trainer, epochs: usize| {
        let fit = Fit::until_epoch(epochs).validation(&data);
        let best = ModelCheckpoint::new(path("best.st")).best_only("val_loss").weights_only(true);
        trainer.fit(&data, fit.callback(best).callback(ModelCheckpoint::new(path("last.st")))).expect("training");
        safetensors::open(path("best.st")).expect("weights")
    };
    let first = go(&mut plain(0.6), 3);
    let mut resumed = plain(0.6);
    resumed.load_checkpoint(path("last.st")).expect("a checkpoint");
    assert_eq!(go(&mut resumed, 5), first);
}

#[test]
fn a_checkpoint_gives_a_model_its_weights() {
    let folder = temp_dir::TempDir::new().expect("a folder");
    let path = folder.path().join("c.safetensors");
    let mut trainer = one().compile(engine(), Compile::new(Adam::new(0.01), MeanSquaredError)).expect("a trainer");
    let stop = EarlyStopping::new("loss").restore_best_weights(true);
    trainer.fit(&ones(4), Fit::epochs(2).callback(stop).callback(ModelCheckpoint::new(&path))).expect("training");
    let mut model = one();
    model.load_weights(&path).expect("the weights alone are taken");
    let again = model.compile(engine(), Compile::new(Sgd::new(0.1), MeanSquaredError)).expect("a trainer");
    assert_eq!(again.weights().expect("weights"), trainer.weights().expect("weights"));
    let mut other = Sequential::new([1]).add(Dense::new(1).name("e")).build().expect("a model");
    assert!(other.load_weights(&path).expect_err("another model").to_string().contains("e/kernel"));
}

#[test]
fn names_of_checkpoints_are_filled_in_or_refused_before_the_first_step() {
    let folder = temp_dir::TempDir::new().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let fit = |callback: ModelCheckpoint| {
        let mut trainer = plain(0.1);
        let done = trainer.fit(&ones(4), Fit::epochs(2).callback(callback.weights_only(true)));
        if done.is_err() {
            assert_eq!(trainer.steps(), 0);
        }
        done
    };
    fit(ModelCheckpoint::new(path("new/{epoch}/w.{epoch:02d}-{loss:.2f}.st"))).expect("training");
    let mut loaded = one();
    for name in ["new/1/w.01-1.00.st", "new/2/w.02-0.36.st"] {
        loaded.load_weights(path(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    for (name, word) in [("{val_loss}", "val_loss"), ("{epoch:x}", "{epoch:x}"), ("{loss:d}", "{loss:d}"), ("{", "{")] {
        says(fit(ModelCheckpoint::new(path(name))), &[word, "{epoch:02d}", "{val_loss:.2f}"]);
    }
    fs::write(path("file"), "").expect("a file");
    for lost in [path("file/w.st"), path("file/a/w.st")] {
        says(fit(ModelCheckpoint::new(&lost)), &["file"]);
        says(plain(0.1).fit(&ones(4), Fit::epochs(1).callback(CsvLogger::new(&lost))), &["file"]);
        says(plain(0.1).fit(&ones(4), Fit::epochs(1).callback(TensorBoard::new(&lost))), &["file"]);
    }
    says(fit(ModelCheckpoint::new(folder.path())), &["folder"]);
    #[cfg(unix)]
    {
        use std::os::unix::ffi::{OsStrExt, OsStringExt};
        let odd = |name: &[u8]| folder.path().join(std::ffi::OsString::from_vec(name.to_vec()));
        fit(ModelCheckpoint::new(odd(b"caf\xe9.st"))).expect("training");
        let names: Vec<_> =
            fs::read_dir(folder.path()).expect("a folder").map(|f| f.expect("a file").file_name()).collect();
        assert!(names.iter().any(|name| name.as_bytes() == b"caf\xe9.st"), "{names:?}");
        says(fit(ModelCheckpoint::new(odd(b"caf\xe9{epoch}.st"))), &["UTF-8"]);
    }
    let kept = fs::read_dir(folder.path()).expect("a folder").map(|f| f.expect("a file").file_name());
    assert!(kept.into_iter().all(|name| !name.to_string_lossy().contains(".try")));
}
