//! Whether a data set fits a model and its losses.

use super::{config::Compile, error::TrainError, step_graph::feeds::label_row};
use crate::{
    Error,
    data::{Dataset, are_classes},
    nn::{Bounds, Model, Number},
    tensor::{Data, Fnv, HostTensor, Shape},
};

/// Returns an error if a model cannot be trained or evaluated on this data.
pub(super) fn check_data(model: &Model, config: &Compile, data: &Dataset) -> Result<(), Error> {
    if data.is_empty() {
        return Err(TrainError::NoData.into());
    }
    data.check_weights()?;
    let used = |option, value: f32| Number::new("Dataset", option, value, Bounds::Finite);
    [used("scale", data.scale), used("offset", data.offset)]
        .iter()
        .try_for_each(Number::check)
        .map_err(TrainError::from)?;
    let (wanted, got) = (model.input_shape().dims()[1..].to_vec(), data.images.shape()[1..].to_vec());
    if wanted != got {
        return Err(TrainError::SampleShape { wanted, got }.into());
    }
    if data.targets().count() != config.targets.len() {
        return Err(TrainError::Outputs { wanted: config.targets.len(), got: data.targets().count() }.into());
    }
    if config.mix_up.is_some() && config.takes_classes().contains(&true) {
        let wanted = "numbers to mix, as Dataset::to_categorical returns them".into();
        return Err(TrainError::Labels { wanted, got: "class indices".into() }.into());
    }
    for ((output, target), labels) in model.outputs().iter().zip(&config.targets).zip(data.targets()) {
        check_labels(&output.shape, target.loss.takes_classes(), labels)?;
    }
    Ok(())
}

/// Returns an error if labels do not have the form that a loss compares with its output.
fn check_labels(output: &Shape, takes_classes: bool, labels: &HostTensor) -> Result<(), TrainError> {
    let (wanted, row) = (label_row(output, takes_classes), &labels.shape()[1..]);
    let got = || format!("{} {:?}", labels.dtype(), labels.shape());
    if takes_classes && !are_classes(labels) {
        let wanted = format!("class indices, u8, u32 or i32, {wanted:?} for each sample");
        return Err(TrainError::Labels { wanted, got: got() });
    }
    // An axis of extent 1 may be missing or present.
    let squeezed = |row: &[usize]| row.iter().rposition(|&d| d != 1).map_or(0, |last| last + 1);
    if wanted[..squeezed(wanted)] != row[..squeezed(row)] {
        return Err(TrainError::Labels { wanted: format!("{wanted:?} for each sample"), got: got() });
    }
    if !takes_classes {
        return Ok(());
    }
    let classes = output.last();
    let beyond = match labels.data() {
        Data::U8(all) => all.iter().position(|&l| usize::from(l) >= classes).map(|i| (i, u32::from(all[i]))),
        Data::U32(all) => all.iter().position(|&l| l as usize >= classes).map(|i| (i, all[i])),
        _ => None,
    };
    match beyond {
        Some((i, label)) => Err(TrainError::Label { sample: i / row.iter().product::<usize>().max(1), label, classes }),
        None => Ok(()),
    }
}

/// Returns an error if both data sets name their classes, but differently.
pub(super) fn same_classes(wanted: &[String], got: &[String]) -> Result<(), TrainError> {
    if wanted.is_empty() || got.is_empty() || wanted == got {
        return Ok(());
    }
    let not_in = |names: &[String], others: &[String]| names.iter().find(|name| !others.contains(name)).cloned();
    let advice = match (not_in(wanted, got), not_in(got, wanted)) {
        (Some(missing), _) => format!("`{missing}` is missing"),
        (None, Some(more)) => format!("`{more}` is one more"),
        (None, None) => "their order differs".into(),
    };
    Err(TrainError::ClassNames { wanted: wanted.join(", "), got: got.join(", "), advice })
}

/// Returns a hash of the number of samples, their shape and their labels, never 0.
pub(super) fn fingerprint(data: &Dataset) -> u64 {
    let mut hash = Fnv::default();
    let sizes = [data.len()].into_iter().chain(data.sample_shape().iter().copied());
    sizes.for_each(|n| hash.number(n as u64));
    let labels = data.labels.bytes();
    hash.bytes(&labels[..labels.len().min(1 << 20)]);
    hash.0.max(1)
}
