//! Sums of losses and metrics over an epoch, kept on the device.

use super::feeds::{label_row, labels_name};
use crate::{
    Error,
    graph::{Arg, Graph, Instr, OpError, Program, TensorType, Value},
    nn::{Assembled, CHECKPOINT_SUMS, Metric, Model},
    ops::{Accumulate, Elementwise, elementary},
    tensor::{Batch, DType},
    train::{config::Compile, runner::Runner},
};
use std::sync::Arc;

/// The state with the number of samples, the sum of their losses, and the sums of metrics that are one number.
const METRICS: &str = CHECKPOINT_SUMS;

/// A metric of one output, and its sums.
pub(crate) struct MetricSums {
    /// Its name in a history.
    pub name: String,
    output: usize,
    metric: Arc<dyn Metric>,
    sums: Sums,
}

enum Sums {
    /// One number, summed by the loss's kernel.
    WithLoss,
    /// `len` numbers in a state of their own.
    Own { state: String, len: usize },
}

impl MetricSums {
    /// Returns all metrics with their sums, whose shapes come from a graph built only for this.
    pub fn all(model: &Model, config: &Compile) -> Result<Vec<Self>, Error> {
        let mut g = Graph::new();
        let mut pairs = Vec::new();
        for (k, (ty, target)) in model.outputs().iter().zip(&config.targets).enumerate() {
            let classes = target.loss.takes_classes();
            let dtype = if classes { DType::U32 } else { DType::F32 };
            let dims = [&[Batch][..], label_row(&ty.shape, classes)].concat();
            let output = g.input(&format!("output/{k}"), ty.shape.clone(), DType::F32);
            pairs.push((output, g.input(&labels_name(k), dims, dtype)));
        }
        let (mut metrics, mut with_loss) = (Vec::new(), 1);
        for (i, (output, name, metric)) in config.metrics().into_iter().enumerate() {
            let (value, labels) = pairs[output];
            let each = metric.build(&mut g, value, labels)?;
            let row = &g.shape(each).dims()[1..];
            let sums = if row.is_empty() && with_loss < Accumulate::MOST {
                with_loss += 1;
                Sums::WithLoss
            } else {
                Sums::Own { state: format!("{METRICS}/{i}"), len: row.iter().product() }
            };
            metrics.push(MetricSums { name, output, metric, sums });
        }
        Ok(metrics)
    }
}

/// Returns names and types of the states that hold the sums.
pub(crate) fn states(metrics: &[MetricSums]) -> Vec<(String, TensorType)> {
    let with_loss = metrics.iter().filter(|metric| matches!(metric.sums, Sums::WithLoss)).count();
    let own = metrics.iter().filter_map(|metric| match &metric.sums {
        Sums::WithLoss => None,
        Sums::Own { state, len } => Some((state.clone(), TensorType::f32([*len]))),
    });
    [(METRICS.to_owned(), TensorType::f32([2 + with_loss]))].into_iter().chain(own).collect()
}

/// Adds the sums of a step to its graph.
pub(super) fn build(
    g: &mut Graph,
    metrics: &[MetricSums],
    built: &Assembled,
    labels: &[Value],
    losses: Value,
) -> Result<(), Error> {
    let mut rows = vec![losses];
    for MetricSums { output: k, metric, sums, .. } in metrics {
        let output = built.logits[*k].filter(|_| metric.takes_logits()).unwrap_or(built.outputs[*k]);
        let each = metric.build(g, output, labels[*k])?;
        let Sums::Own { state: name, len } = sums else {
            rows.push(each);
            continue;
        };
        let each = g.reshape(each, [Batch, *len])?;
        let sum = g.sum(each, &[0], false)?;
        let state = g.state(name, TensorType::f32([*len]), None);
        let new = accumulated(g, state, sum)?;
        g.update(state, new);
        g.output(name, new);
    }
    let counters = g.state(METRICS, TensorType::f32([1 + rows.len()]), None);
    let counted = g.accumulate(counters, &rows)?;
    g.update(counters, counted);
    g.output(METRICS, counted);
    Ok(())
}

/// Returns sums added to a state in place; if [`Accumulate::KEEP`] is 0, the state restarts from 0.
pub(super) fn accumulated(g: &mut Graph, state: Value, sums: Value) -> Result<Value, OpError> {
    let instrs = vec![
        Instr { f: elementary("where_positive")?, args: vec![Arg::Input(0), Arg::Scalar(Accumulate::KEEP)] },
        Instr { f: elementary("add")?, args: vec![Arg::Instr(0), Arg::Input(1)] },
    ];
    let program = Program { n_inputs: 2, instrs, result: Arg::Instr(1) };
    g.apply1(Elementwise { in_place: true, ..program.into() }, &[state, sums])
}

/// Returns loss and metrics over the steps since the sums restarted, by name.
pub(crate) fn read(metrics: &[MetricSums], runner: &mut Runner) -> Result<Vec<(String, f64)>, Error> {
    let counters = runner.read(METRICS, 1)?.to_f32();
    let seen = f64::from(counters[0]).max(1.0);
    let mut values = vec![("loss".to_owned(), f64::from(counters[1]) / seen)];
    let mut with_loss = counters[2..].iter();
    for MetricSums { name, metric, sums, .. } in metrics {
        let sums: Vec<f64> = match sums {
            Sums::WithLoss => with_loss.next().map(|&x| f64::from(x)).into_iter().collect(),
            Sums::Own { state, .. } => runner.read(state, 1)?.to_f32().into_iter().map(f64::from).collect(),
        };
        values.push((name.clone(), metric.result(&sums, seen)));
    }
    Ok(values)
}
