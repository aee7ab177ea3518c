//! The graph of a step: samples by their rows, the model, loss and metrics, gradients, new weights.

use super::{Compile, TrainError, Trainer, mix_up, norms};
use crate::{
    Error,
    data::Dataset,
    graph::{Arg, Graph, Instr, OpError, Program, TensorType, Value},
    nn::{CHECKPOINT_SUMS, Mode, Model, below},
    ops::{Accumulate, Elementwise, elementary},
    passes::Layout,
    runtime::Store,
    tensor::{Batch, DType, HostTensor, Shape},
};
use std::{borrow::Cow, ops::Range, sync::Arc};

pub(super) const METRICS: &str = CHECKPOINT_SUMS;
pub(super) const WEIGHTS: &str = "data/weights";
const IMAGES: &str = "data/images";
pub(super) const ROWS: &str = "rows";
pub(super) const SAMPLES: &str = "x";

/// Returns the name of the labels of an output.
pub(super) fn labels_name(output: usize) -> String {
    format!("data/labels/{output}")
}

pub(super) fn sums_name(metric: usize) -> String {
    format!("{METRICS}/{metric}")
}

/// Returns sums added to a state in place, which starts anew where [`Accumulate::KEEP`] is 0.
pub(super) fn kept_and(g: &mut Graph, state: Value, sums: Value) -> Result<Value, OpError> {
    let instrs = vec![
        Instr { f: elementary("where_positive")?, args: vec![Arg::Input(0), Arg::Scalar(Accumulate::KEEP)] },
        Instr { f: elementary("add")?, args: vec![Arg::Instr(0), Arg::Input(1)] },
    ];
    let program = Program { n_inputs: 2, instrs, result: Arg::Instr(1) };
    g.apply1(Elementwise { program, shape: None, in_place: true }, &[state, sums])
}

/// Where samples come from.
pub(super) enum Source {
    /// A data set in device memory; steps name its rows.
    Device(Store),
    /// Host memory; steps carry the samples.
    Host,
}

impl Trainer {
    /// Returns how many sums each metric takes, `None` for a number that the loss's kernel adds up too.
    pub(super) fn sums(model: &Model, how: &Compile) -> Result<Vec<Option<usize>>, Error> {
        let mut g = Graph::new();
        let mut pairs = Vec::new();
        for (k, (ty, target)) in model.outputs().iter().zip(&how.targets).enumerate() {
            let classes = target.loss.takes_classes();
            let dtype = if classes { DType::U32 } else { DType::F32 };
            let dims = [&[Batch][..], label_row(&ty.shape, classes)].concat();
            let output = g.input(&format!("output/{k}"), ty.shape.clone(), DType::F32);
            pairs.push((output, g.input(&labels_name(k), dims, dtype)));
        }
        let mut sums = Vec::new();
        for (k, _, metric) in how.metrics() {
            let (output, labels) = pairs[k];
            let built = metric.build(&mut g, output, labels)?;
            let with_loss = sums.iter().filter(|k: &&Option<usize>| k.is_none()).count() + 1;
            let row = &g.shape(built).dims()[1..];
            sums.push((!row.is_empty() || with_loss == Accumulate::MOST).then(|| row.iter().product()));
        }
        Ok(sums)
    }

    pub(super) fn stores(&self, data: &Source) -> Vec<Store> {
        let mut stores = vec![self.params.clone(), self.metrics.clone()];
        stores.extend(self.moments.clone());
        if let Source::Device(store) = data {
            stores.push(store.clone());
        }
        stores
    }

    /// Puts a data set into device memory where it fits, as it is stored.
    pub(super) fn source(&self, data: &Dataset) -> Result<Source, Error> {
        let limit = self.engine.profile().max_binding_bytes;
        if self.engine.is_reference() || !data.in_memory() || data.images.bytes().len() as u64 > limit {
            return Ok(Source::Host);
        }
        let tensors = self.stored(data)?;
        let entries =
            tensors.iter().map(|(name, t)| (name.clone(), TensorType::new(Shape::fixed(t.shape()), t.dtype())));
        let store = self.engine.store(Arc::new(Layout::new(entries, limit)))?;
        tensors.iter().try_for_each(|(name, t)| store.write(name, t))?;
        Ok(Source::Device(store))
    }

    /// Returns a data set's tensors as they lie on the device: whole numbers of 32 bits as floats, where the loss compares
    /// numbers.
    pub(super) fn stored<'d>(&self, data: &'d Dataset) -> Result<Vec<(String, Cow<'d, HostTensor>)>, Error> {
        let mut tensors = vec![(IMAGES.to_owned(), Cow::Borrowed(&data.images))];
        for (k, (labels, classes)) in data.targets().zip(self.how.takes_classes()).enumerate() {
            let labels = match labels.dtype() {
                DType::U32 if !classes => Cow::Owned(HostTensor::f32(labels.shape(), labels.to_f32())?),
                _ => Cow::Borrowed(labels),
            };
            tensors.push((labels_name(k), labels));
        }
        tensors.extend(data.weights.iter().map(|t| (WEIGHTS.to_owned(), Cow::Borrowed(t))));
        Ok(tensors)
    }

    /// Builds the graph of a training or evaluation step.
    pub(super) fn graph(&self, data: &Dataset, source: &Source, mode: Mode) -> Result<Graph, Error> {
        Ok(self.watched_graph(data, source, mode)?.0)
    }

    /// Builds the graph of a step and returns with it what [`norms::watched`] names in training.
    pub(super) fn watched_graph(
        &self,
        data: &Dataset,
        source: &Source,
        mode: Mode,
    ) -> Result<(Graph, Vec<(String, Value)>), Error> {
        let mut watched = Vec::new();
        let mut g = Graph::new();
        let classes = self.how.takes_classes();
        let (x, ys, weights) = match source {
            Source::Host => {
                let (x, ys) = fed(&mut g, data, &classes, "");
                (x, ys, data.weights.as_ref().map(|_| g.input(WEIGHTS, [Batch], DType::F32)))
            }
            Source::Device(store) => {
                let rows = g.input(ROWS, [Batch], DType::U32);
                let (x, ys) = gathered(&mut g, store, data, &classes, rows)?;
                let weights = match &data.weights {
                    None => None,
                    Some(_) => {
                        let all = table(&mut g, store, WEIGHTS);
                        Some(g.gather(all, rows)?)
                    }
                };
                (x, ys, weights)
            }
        };
        let (x, ys) = match self.how.mix_up.filter(|_| mode == Mode::Training) {
            None => (x, ys),
            Some(_) => mix_up::build(&mut g, source, data, x, &ys)?,
        };
        // One number for each sample may lie along an axis of its own, or not.
        let shapes = self.model.outputs().iter().zip(&classes);
        let shapes = shapes.map(|(output, &classes)| [&[Batch][..], label_row(&output.shape, classes)].concat());
        let ys = ys.iter().zip(shapes).map(|(&y, shape)| reshaped(&mut g, y, Shape::from(shape)));
        let ys = ys.collect::<Result<Vec<_>, _>>()?;
        let built = self.model.assemble(&mut g, &[x], mode)?;
        let mut sum = None;
        for (k, target) in self.how.targets.iter().enumerate() {
            let mut losses = target.loss.build(&mut g, built.outputs[k], built.logits[k], ys[k])?;
            if target.weight != 1.0 {
                losses = g.scale(losses, target.weight)?;
            }
            sum = Some(match sum {
                None => losses,
                Some(sum) => g.add(sum, losses)?,
            });
        }
        let mut losses = sum.ok_or(TrainError::NoData)?;
        if let Some(weights) = weights {
            losses = g.mul(losses, weights)?;
        }
        for &penalty in &built.penalties {
            losses = g.add(losses, penalty)?;
        }
        let mut rows = vec![losses];
        for (i, ((at, _, metric), &k)) in self.how.metrics().iter().zip(&self.sums).enumerate() {
            let output = built.logits[*at].filter(|_| metric.takes_logits()).unwrap_or(built.outputs[*at]);
            let each = metric.build(&mut g, output, ys[*at])?;
            let Some(k) = k else {
                rows.push(each);
                continue;
            };
            let each = g.reshape(each, [Batch, k])?;
            let sum = g.sum(each, &[0], false)?;
            let state = g.state(&sums_name(i), TensorType::f32([k]), None);
            let new = kept_and(&mut g, state, sum)?;
            g.update(state, new);
            g.output(&sums_name(i), new);
        }
        let counters = g.state(METRICS, TensorType::f32([1 + rows.len()]), None);
        let counted = g.accumulate(counters, &rows)?;
        g.update(counters, counted);
        g.output(METRICS, counted);
        if mode == Mode::Training {
            let loss = g.mean(losses)?;
            let weights: Vec<&crate::nn::Weight> = built.weights.iter().filter(|w| w.trainable).collect();
            let values: Vec<Value> = weights.iter().map(|w| w.value).collect();
            let gradients = g.gradients(loss, &values)?;
            watched = norms::watched(&g, &built.layers, &weights, &gradients);
            if self.how.norms {
                norms::build(&mut g, &watched)?;
            }
            let gradients = self.how.optimizer.clip(&mut g, &gradients)?;
            for (run, factor) in self.runs(weights.iter().map(|w| w.name.as_str())) {
                let mut slots: Vec<Vec<Value>> = Vec::new();
                for slot in self.how.optimizer.slots() {
                    let names = weights[run.clone()].iter();
                    let slot = names
                        .map(|w| g.state(&format!("{slot}/{}", w.name), TensorType::f32(w.shape.clone()), None))
                        .collect();
                    slots.push(slot);
                }
                for (state, mut new) in
                    self.how.optimizer.build(&mut g, &values[run.clone()], &gradients[run], &slots, factor)?
                {
                    let weight = weights.iter().find(|w| w.value == state);
                    if let Some(constraint) = weight.and_then(|w| w.constraint.as_ref()) {
                        new = constraint.build(&mut g, new)?;
                    }
                    g.update(state, new);
                }
            }
        }
        Ok((g, watched))
    }

    /// Cuts weights into runs that lie one behind the other, moments too, and have one factor of the learning rate, so
    /// that one kernel updates a run.
    fn runs<'n>(&self, names: impl Iterator<Item = &'n str>) -> Vec<(Range<usize>, f32)> {
        let slots = self.how.optimizer.slots();
        let mut runs: Vec<(Range<usize>, f32)> = Vec::new();
        let mut ends: Vec<(usize, u64)> = Vec::new();
        for (i, name) in names.enumerate() {
            let moments = slots.iter().filter_map(|s| self.moments.as_ref()?.layout().find(&format!("{s}/{name}")));
            let entries: Vec<_> = self.params.layout().find(name).into_iter().chain(moments).collect();
            let starts = entries.iter().map(|e| (e.chunk, e.offset));
            let factor = self.how.factors.iter().rev().find(|(p, _)| below(name, p)).map_or(1.0, |f| f.1);
            match runs.last_mut() {
                Some((run, before)) if *before == factor && starts.eq(ends.iter().copied()) => run.end = i + 1,
                _ => runs.push((i..i + 1, factor)),
            }
            ends = entries.iter().map(|e| (e.chunk, e.offset + e.bytes.next_multiple_of(256).max(256))).collect();
        }
        runs
    }
}

/// Returns the extents of a sample's labels for an output of this shape.
pub(super) fn label_row(output: &Shape, takes_classes: bool) -> &[usize] {
    let row = output.dims().get(1..).unwrap_or_default();
    if takes_classes { &row[..row.len().saturating_sub(1)] } else { row }
}

fn reshaped(g: &mut Graph, x: Value, shape: Shape) -> Result<Value, OpError> {
    if *g.shape(x) == shape { Ok(x) } else { g.reshape(x, shape) }
}

/// Returns samples and labels as inputs, with `mark` in front of their names; `classes` says which labels are indices.
pub(super) fn fed(g: &mut Graph, data: &Dataset, classes: &[bool], mark: &str) -> (Value, Vec<Value>) {
    let batched = |shape: &[usize]| [Batch].into_iter().chain(shape[1..].iter().copied()).collect::<Vec<usize>>();
    let x = g.input(&format!("{mark}{SAMPLES}"), batched(data.images.shape()), DType::F32);
    let ys = data.targets().zip(classes).enumerate().map(|(k, (labels, &classes))| {
        let dtype = if classes { DType::U32 } else { DType::F32 };
        g.input(&format!("{mark}{}", labels_name(k)), batched(labels.shape()), dtype)
    });
    let ys = ys.collect();
    (x, ys)
}

fn table(g: &mut Graph, store: &Store, name: &str) -> Value {
    match g.find(name) {
        Some(table) => table,
        None => {
            let ty = store.layout().find(name).map(|e| e.ty.clone());
            g.state(name, ty.unwrap_or_else(|| TensorType::f32([0])), None)
        }
    }
}

/// Returns these rows of the samples and labels on the device.
pub(super) fn gathered(
    g: &mut Graph,
    store: &Store,
    data: &Dataset,
    classes: &[bool],
    rows: Value,
) -> Result<(Value, Vec<Value>), OpError> {
    let images = table(g, store, IMAGES);
    let x = g.gather(images, rows)?;
    let mut ys = Vec::new();
    for (k, &classes) in classes.iter().enumerate() {
        let all = table(g, store, &labels_name(k));
        ys.push(if classes { g.gather_labels(all, rows) } else { g.gather(all, rows) }?);
    }
    Ok((rescale(g, x, data.scale, data.offset)?, ys))
}

fn rescale(g: &mut Graph, x: Value, scale: f32, offset: f32) -> Result<Value, OpError> {
    if (scale, offset) == (1.0, 0.0) {
        return Ok(x);
    }
    let (mul, add) = (elementary("mul")?, elementary("add")?);
    let instrs = vec![
        Instr { f: mul, args: vec![Arg::Input(0), Arg::Const(scale)] },
        Instr { f: add, args: vec![Arg::Instr(0), Arg::Const(offset)] },
    ];
    g.apply1(Elementwise::from(Program { n_inputs: 1, instrs, result: Arg::Instr(1) }), &[x])
}
