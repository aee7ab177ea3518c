//! Style transfer: an image with the content of one image and the style of another.

use super::{
    Control, Inference, TrainError,
    inference::{Assembled, INPUT, layer_map, layer_output},
    runner::Compiled,
    weights::with_weights,
};
use crate::{
    Error,
    graph::{Graph, OpError, Step, TensorType, Value},
    nn::{self, Adam, Bounds, Mode, Model, Number, Optimizer, check_numbers, models::Preprocessing},
    ops::{Elementwise, Part},
    passes::Layout,
    runtime::Engine,
    tensor::{Batch, DType, HostTensor, Shape},
};
use std::sync::Arc;

const IMAGE: &str = "image";
const LOSSES: &str = "losses";

/// Style transfer (Gatys et al. 2016): an image is optimised until its features match the content of one image and the
/// style of another.
///
/// The loss is the sum of three terms times their weights. Content: Σ(F − P)² / ΣP² of a layer's features F and those
/// of the content P. Style: the mean over layers of Σ(G − A)² / ΣA² of the Gram matrices G = FᵀF ([`Graph::gram`]) and
/// those of the style A. Total variation: the mean square of the differences between neighbouring pixels, of 255. The
/// first two are 1 for features of 0, for any network, so that the same weights suit different networks.
///
/// ```
/// use hubel::{nn::models::Preprocessing, train::Style, layers::*, prelude::*};
/// let base = Sequential::new([8, 8, 3])
///     .add(Conv2D::new(4, 3).padding(Same).activation(Relu).name("low"))
///     .add(Conv2D::new(4, 3).padding(Same).activation(Relu).name("high"))
///     .build()?;
/// let [content, style] = [5, 7].map(|k| HostTensor::u8([1, 8, 8, 3], (0..192).map(|i| (i * k % 251) as u8).collect()));
/// let made = Style::new(&base, Preprocessing::Caffe).content("high", 1.0).style(&["low"], 10.0).steps(5);
/// let result = made.run(&Engine::reference(), &content?, &style?)?;
/// assert_eq!((result.image.shape(), result.history.len()), (&[1, 8, 8, 3][..], 5));
/// assert!(result.history[4].total < result.history[0].total);
/// # Ok::<(), hubel::Error>(())
/// ```
pub struct Style<'c> {
    model: Model,
    preprocessing: Preprocessing,
    content: Option<(String, f32)>,
    style: (Vec<String>, f32),
    variation: f32,
    start: Option<HostTensor>,
    optimizer: Arc<dyn Optimizer>,
    steps: u64,
    on_step: Box<dyn FnMut(&StyleStep) -> Control + 'c>,
}

/// The loss of one step of [`Style`], before the image is updated, and its unweighted terms.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct StyleStep {
    /// The step, from 0.
    pub step: u64,
    /// The loss: the sum of the terms times their weights.
    pub total: f32,
    /// The content term.
    pub content: f32,
    /// The style term.
    pub style: f32,
    /// The total variation.
    pub variation: f32,
}

/// The result of [`Style::run`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Stylised {
    /// The image, f32 (1, h, w, c), from 0 to 255.
    pub image: HostTensor,
    /// The losses of all steps.
    pub history: Vec<StyleStep>,
}

impl<'c> Style<'c> {
    /// Returns a transfer through a network with one input, images (N, h, w, c), and its preprocessing of images from 0
    /// to 255: 300 steps of Adam at a rate of 5, starting from the content, and a weight of 30 on the total variation.
    ///
    /// Layers must be named by [`Style::content`], [`Style::style`] or both; weights of 1 and 100 are a good start.
    pub fn new(model: &Model, preprocessing: Preprocessing) -> Self {
        Style {
            model: model.clone(),
            preprocessing,
            content: None,
            style: (Vec::new(), 0.0),
            variation: 30.0,
            start: None,
            optimizer: Arc::new(Adam::new(5.0).epsilon(1e-12)),
            steps: 300,
            on_step: Box::new(|_| Control::Continue),
        }
    }

    /// Matches this layer's features of the content, with this weight.
    pub fn content(mut self, layer: &str, weight: f32) -> Self {
        self.content = Some((layer.to_owned(), weight));
        self
    }

    /// Matches the Gram matrices of these layers of the style, with this weight on their mean.
    pub fn style(mut self, layers: &[&str], weight: f32) -> Self {
        self.style = (layers.iter().map(|&layer| layer.to_owned()).collect(), weight);
        self
    }

    nn::setter!(set
        /// Sets the weight of the total variation, which makes images smooth; 30 by default.
        variation: f32);

    /// Starts from this image, (1, h, w, c) from 0 to 255, instead of the content.
    pub fn start(mut self, image: HostTensor) -> Self {
        self.start = Some(image);
        self
    }

    /// Sets the optimiser, whose rates are in levels of 255; Adam at a rate of 5 by default.
    pub fn optimizer(mut self, optimizer: impl Optimizer + 'static) -> Self {
        self.optimizer = Arc::new(optimizer);
        self
    }

    nn::setter!(set
        /// Sets the number of steps; 300 by default.
        steps: u64);

    /// Calls `callback` with the losses of each step, and ends if it returns [`Control::Stop`].
    pub fn on_step(mut self, callback: impl FnMut(&StyleStep) -> Control + 'c) -> Self {
        self.on_step = Box::new(callback);
        self
    }

    /// Returns an image with `content`'s content and `style`'s style, both u8 or f32 (1, h, w, c) from 0 to 255 in the
    /// model's size, or an error if an image or a layer does not fit.
    pub fn run(mut self, engine: &Engine, content: &HostTensor, style: &HostTensor) -> Result<Stylised, Error> {
        let (inputs, outputs) = (self.model.inputs(), self.model.outputs().len());
        let [(_, input)] = inputs else {
            return Err(TrainError::Branches { inputs: inputs.len(), outputs }.into());
        };
        if self.content.is_none() && self.style.0.is_empty() {
            return Err(TrainError::NoTarget { known: self.model.layer_names().join(", ") }.into());
        }
        let weight = |option, value: f32| Number::new("Style", option, value, Bounds::AtLeastZero);
        let content_weight = self.content.as_ref().map_or(0.0, |content| content.1);
        let weights = [("content", content_weight), ("style", self.style.1), ("variation", self.variation)];
        let weights = weights.map(|(option, value)| weight(option, value));
        check_numbers(self.optimizer.numbers().into_iter().chain(weights)).map_err(TrainError::from)?;
        let (shape, input) = (input.shape.at(1), input.clone());
        let start = self.start.as_ref().unwrap_or(content);
        if let Some(wrong) = [content, style, start].into_iter().find(|t| t.shape() != shape) {
            return Err(TrainError::SampleShape { wanted: shape, got: wrong.shape().to_vec() }.into());
        }

        let mut g = Graph::new();
        let image = g.input(INPUT, input.shape.clone(), input.dtype);
        let targets = self.features(&mut g, image)?;
        let names: Vec<String> = (0..targets.len()).map(|i| format!("target/{i}")).collect();
        names.iter().zip(&targets).for_each(|(name, target)| g.output(name, target.value));
        let (graph, params) = with_weights(&self.model, engine, &g)?;
        let assembled = Assembled { graph, names: names.clone(), inputs: vec![(INPUT.to_owned(), input)] };
        let mut net = Inference::of(assembled, engine, params.clone(), Batch::up_to(1));
        let [of_content, of_style] = [net.predict_all(content)?, net.predict_all(style)?];
        let wanted: Vec<(String, HostTensor)> = (of_content.into_iter().zip(of_style).zip(&targets))
            .map(|((content, style), target)| if target.is_style { style } else { content })
            .collect();

        let shape = TensorType::f32(shape);
        let moments = self.optimizer.moments().into_iter().map(|moment| (format!("{moment}/{IMAGE}"), shape.clone()));
        let fixed = wanted.iter().map(|(name, t)| (name.clone(), TensorType::f32(t.shape())));
        let entries = [(IMAGE.to_owned(), shape.clone())].into_iter().chain(moments).chain(fixed);
        let store = engine.store(Arc::new(Layout::new(entries, engine.profile().max_binding_bytes)))?;
        store.write(IMAGE, &start.to_array().to_host(DType::F32))?;
        for moment in self.optimizer.moments() {
            let first = vec![self.optimizer.initial(); start.len()];
            store.write(&format!("{moment}/{IMAGE}"), &HostTensor::f32(start.shape(), first)?)?;
        }
        wanted.iter().try_for_each(|(name, t)| store.write(name, t))?;

        let graph = self.step(&shape, &wanted)?;
        let stores = vec![params, store.clone()];
        let mut runner = Compiled::new(engine, graph, 1, stores)?.runner(engine, None)?;
        let mut history = Vec::new();
        for step in 0..self.steps {
            let scalars = self.optimizer.scalars(self.optimizer.rate(step), step);
            runner.run(&Step { step: step as u32, scalars, ..Step::of(1) }, &[])?;
            let losses = runner.read(LOSSES, 1)?.to_f32();
            let [total, content, style, variation] = [0, 1, 2, 3].map(|i| losses.get(i).copied().unwrap_or(f32::NAN));
            let at = StyleStep { step, total, content, style, variation };
            history.push(at);
            if (self.on_step)(&at) == Control::Stop {
                break;
            }
        }
        Ok(Stylised { image: store.read(IMAGE)?, history })
    }

    /// Returns the layers' features of images in the graph.
    fn features(&self, g: &mut Graph, images: Value) -> Result<Vec<Target>, Error> {
        let x = self.preprocessing.build(g, images)?;
        let built = self.model.assemble(g, &[x], Mode::Inference)?;
        let mut targets = Vec::new();
        if let Some((layer, _)) = &self.content {
            targets.push(Target { value: layer_output(&self.model, &built, layer)?, is_style: false });
        }
        for layer in &self.style.0 {
            let map = layer_map(&self.model, &built, g, layer)?;
            targets.push(Target { value: g.gram(map)?, is_style: true });
        }
        Ok(targets)
    }

    /// Returns the graph of a step.
    fn step(&self, ty: &TensorType, wanted: &[(String, HostTensor)]) -> Result<Graph, Error> {
        let mut g = Graph::new();
        let image = g.state(IMAGE, ty.clone(), None);
        let batch = g.expand(image, &Shape::batched(1, &ty.shape.dims()[1..]))?;
        let targets = self.features(&mut g, batch)?;
        let zero = g.constant(0.0)?;
        let mut terms = [zero, zero, variation(&mut g, image)?];
        for (target, (name, wanted)) in targets.iter().zip(wanted) {
            let there = g.state(name, TensorType::f32(wanted.shape()), None);
            let off = g.sub(target.value, there)?;
            let squares: f64 = wanted.to_array().data.iter().map(|x| x * x).sum();
            let off = g.scale(off, 1.0 / (squares.sqrt() as f32).max(f32::MIN_POSITIVE))?;
            let axes: Vec<usize> = (0..g.shape(off).rank()).collect();
            let loss = g.sum_squares(off, &axes, false)?;
            let (term, share) = if target.is_style { (1, 1.0 / self.style.0.len() as f32) } else { (0, 1.0) };
            let loss = g.scale(loss, share)?;
            terms[term] = g.add(terms[term], loss)?;
        }
        let mut total = zero;
        let weights = [self.content.as_ref().map_or(0.0, |c| c.1), self.style.1, self.variation];
        for (&term, weight) in terms.iter().zip(weights) {
            let weighted = g.scale(term, weight)?;
            total = g.add(total, weighted)?;
        }
        let losses = [&[total][..], &terms].concat();
        let losses = losses.into_iter().map(|v| g.reshape(v, [1])).collect::<Result<Vec<_>, _>>()?;
        let losses = g.concat(&losses, 0)?;
        g.output(LOSSES, losses);

        let gradient = g.gradients(total, &[image])?;
        let gradient = self.optimizer.clip(&mut g, &gradient)?;
        let moments = self.optimizer.moments().into_iter();
        let moments: Vec<Vec<Value>> =
            moments.map(|moment| vec![g.state(&format!("{moment}/{IMAGE}"), ty.clone(), None)]).collect();
        for (state, mut new) in self.optimizer.build(&mut g, &[image], &gradient, &moments, 1.0)? {
            if state == image {
                let (black, white) = (g.constant(0.0)?, g.constant(255.0)?);
                let shape = Some(ty.shape.clone());
                let clip = Elementwise { shape, in_place: true, ..Elementwise::named("clip")? };
                new = g.apply1(clip, &[new, black, white])?;
            }
            g.update(state, new);
        }
        Ok(g)
    }
}

/// A layer's features.
struct Target {
    value: Value,
    is_style: bool,
}

/// Returns the mean square of the differences between neighbours, in units of 255, vertical plus horizontal.
fn variation(g: &mut Graph, image: Value) -> Result<Value, OpError> {
    let mut sum = g.constant(0.0)?;
    for axis in [1, 2] {
        let n = g.shape(image).dims()[axis];
        if n > 1 {
            let (ahead, behind) = (Part::new(1, n - 1), Part::new(0, n - 1));
            let (ahead, behind) = (g.slice_axis(image, axis, ahead)?, g.slice_axis(image, axis, behind)?);
            let steps = g.sub(ahead, behind)?;
            let steps = g.scale(steps, 1.0 / 255.0)?;
            let squares = g.unary("square", steps)?;
            let mean = g.mean(squares)?;
            sum = g.add(sum, mean)?;
        }
    }
    Ok(sum)
}
