//! Grad-CAM and saliency: which parts of images a class's score depends on.

use super::{
    Inference, TrainError,
    inference::{Assembled, INPUT, layer_map},
    weights::with_weights,
};
use crate::{
    Error,
    graph::{Graph, TensorType},
    nn::{Bounds, Mode, Model, Number},
    ops::Interpolation,
    passes::split_rows,
    runtime::{Engine, Store},
    tensor::{Batch, DType, HostTensor, Philox, Purpose, Shape, stream_id},
};

/// Added to the scores: 0 for classes that may be chosen, [`NEVER`] for others.
const ALLOWED: &str = "allowed";
const NEVER: f32 = -1e38;
const CLASS: &str = "class";
const RESULT: &str = "result";

/// A classifier ready to show which parts of images a class's score depends on.
///
/// A class's score is its logit if the model ends in softmax, else the model's output.
///
/// ```
/// use hubel::{layers::*, prelude::*};
/// let conv = Conv2D::new(4, 3).activation(Relu).name("conv");
/// let model = Sequential::new([8, 8, 1]).add(conv).add(Flatten::new()).add(Dense::new(3).activation(Softmax)).build()?;
/// let mut explainer = model.explain(&Engine::reference(), Batch::up_to(2))?;
/// let images = HostTensor::f32([2, 8, 8, 1], (0..128).map(|i| (i % 7) as f32).collect())?;
/// let said = explainer.grad_cam("conv", &images, None)?;
/// assert_eq!((said.maps.shape(), said.classes.len()), (&[2, 8, 8][..], 2));
/// let of_class_1 = explainer.saliency(&images, Some(&[1]))?;
/// assert_eq!(of_class_1.classes, [1, 1]);
/// # Ok::<(), hubel::Error>(())
/// ```
pub struct Explainer {
    model: Model,
    engine: Engine,
    params: Store,
    batch: Batch,
    /// Height, width and channels of the images.
    image: [usize; 3],
    n_classes: usize,
    /// The layers requested so far, `None` for the images themselves.
    nets: Vec<(Option<String>, Inference)>,
}

/// Heat maps for a class in each of some images.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Explained {
    /// The importance of each pixel for the class, f32 (n, h, w), at least 0, in the scores' units.
    pub maps: HostTensor,
    /// The class of each image: the requested one, else the one with the largest score.
    pub classes: Vec<usize>,
}

impl Model {
    /// Returns the model ready to explain its scores for at most `batch.capacity` images at once, or an error if it is
    /// not an image classifier: (N, h, w, c) in, (N, classes) out.
    pub fn explain(&self, engine: &Engine, batch: Batch) -> Result<Explainer, Error> {
        let (inputs, outputs) = (self.inputs(), self.outputs());
        if (inputs.len(), outputs.len()) != (1, 1) {
            return Err(TrainError::Branches { inputs: inputs.len(), outputs: outputs.len() }.into());
        }
        let (input, output) = (&inputs[0].1, &outputs[0].shape);
        let (&[_, h, w, c], &[_, n_classes], DType::F32) = (input.shape.dims(), output.dims(), input.dtype) else {
            return Err(TrainError::NoClassifier { input: input.to_string(), output: output.to_string() }.into());
        };
        let mut graph = Graph::new();
        let images = graph.input(INPUT, input.shape.clone(), input.dtype);
        let built = self.assemble(&mut graph, &[images], Mode::Inference)?;
        graph.output(RESULT, built.outputs[0]);
        let (_, params) = with_weights(self, engine, &graph)?;
        let (model, engine, image, nets) = (self.clone(), engine.clone(), [h, w, c], Vec::new());
        Ok(Explainer { model, engine, params, batch, image, n_classes, nets })
    }
}

impl Explainer {
    /// Returns the graph of one target's results: a heat map for a layer, the score's gradient for the images.
    fn graph(&self, layer: Option<&str>) -> Result<Assembled, Error> {
        let mut g = Graph::new();
        let input = self.model.inputs()[0].1.clone();
        let allowed = TensorType::f32(Shape::batched(1, &[self.n_classes]));
        let images = g.input(INPUT, input.shape.clone(), input.dtype);
        let allow = g.input(ALLOWED, allowed.shape.clone(), allowed.dtype);
        let built = self.model.assemble(&mut g, &[images], Mode::Inference)?;
        let scores = g.add(built.logits[0].unwrap_or(built.outputs[0]), allow)?;
        let largest = g.max_axes(scores, &[1], false)?;
        let all = g.sum(largest, &[0], false)?;
        let result = match layer {
            None => g.gradients(all, &[images])?[0],
            Some(layer) => {
                let features = layer_map(&self.model, &built, &g, layer)?;
                let slopes = g.gradients(all, &[features])?[0];
                let weights = g.mean_axes(slopes, &[1, 2], true)?;
                let weighted = g.mul(features, weights)?;
                let sum = g.sum(weighted, &[3], true)?;
                let heat = g.relu(sum)?;
                let [h, w, _] = self.image;
                let large = g.resize2d(heat, [h, w], Interpolation::Bilinear)?;
                g.reshape(large, Shape::batched(1, &[h, w]))?
            }
        };
        let class = g.argmax(scores, 1)?;
        g.output(RESULT, result);
        g.output(CLASS, class);
        let inputs = vec![(INPUT.to_owned(), input), (ALLOWED.to_owned(), allowed)];
        Ok(Assembled { graph: g, names: vec![RESULT.into(), CLASS.into()], inputs })
    }

    fn run(
        &mut self,
        layer: Option<&str>,
        images: &HostTensor,
        classes: Option<&[usize]>,
    ) -> Result<(HostTensor, Vec<usize>), Error> {
        let (n, all) = (images.shape().first().copied().unwrap_or(0), self.n_classes);
        let wanted = [&[n][..], &self.image].concat();
        if images.shape() != wanted {
            return Err(TrainError::SampleShape { wanted, got: images.shape().to_vec() }.into());
        }
        let mut allowed = vec![if classes.is_some() { NEVER } else { 0.0 }; n * all];
        if let Some(given) = classes {
            if given.len() != n && given.len() != 1 {
                return Err(TrainError::Classes { wanted: n, got: given.len() }.into());
            }
            if let Some(&got) = given.iter().find(|&&class| class >= all) {
                return Err(TrainError::NoClass { got, classes: all }.into());
            }
            (0..n).zip(given.iter().cycle()).for_each(|(i, class)| allowed[i * all + class] = 0.0);
        }
        let at = match self.nets.iter().position(|(target, _)| target.as_deref() == layer) {
            Some(at) => at,
            None => {
                let assembled = self.graph(layer)?;
                let (graph, _) = split_rows(&assembled.graph, self.engine.profile().max_binding_bytes);
                let assembled = Assembled { graph, ..assembled };
                let net = Inference::of(assembled, &self.engine, self.params.clone(), self.batch);
                self.nets.push((layer.map(str::to_owned), net));
                self.nets.len() - 1
            }
        };
        let allowed = HostTensor::f32([n, all], allowed)?;
        let mut results = self.nets[at].1.predict_many(&[images.clone(), allowed])?.into_iter();
        let mut next = || results.next().map(|(_, tensor)| tensor).ok_or(TrainError::NoData);
        let (result, chosen) = (next()?, next()?);
        Ok((result, chosen.to_f32().into_iter().map(|class| class as usize).collect()))
    }

    /// Returns heat maps by Grad-CAM (Selvaraju et al. 2017) for images (n, h, w, c): ReLU(Σₖ αₖ·Aₖ) of a layer's
    /// channels Aₖ, αₖ being the mean over all positions of d score / d Aₖ, resized bilinearly to the images' size.
    ///
    /// `classes` holds one class for each image or one for all; without it, each image's most probable class is used.
    /// The layer (one inside a model by path) must have outputs (N, h, w, c); the last such layer is the usual choice.
    pub fn grad_cam(
        &mut self,
        layer: &str,
        images: &HostTensor,
        classes: Option<&[usize]>,
    ) -> Result<Explained, Error> {
        let (maps, classes) = self.run(Some(layer), images, classes)?;
        Ok(Explained { maps, classes })
    }

    /// Returns the largest |d score / d pixel| of each pixel's channels (Simonyan et al. 2014) for images
    /// (n, h, w, c); see [`Explainer::grad_cam`] for `classes`.
    pub fn saliency(&mut self, images: &HostTensor, classes: Option<&[usize]>) -> Result<Explained, Error> {
        let (slopes, classes) = self.run(None, images, classes)?;
        self.largest(&slopes.to_f32(), classes)
    }

    /// Returns saliency as [`Explainer::saliency`] does, from the mean gradient of `copies` copies with noise
    /// (SmoothGrad, Smilkov et al. 2017).
    ///
    /// `noise` is the noise's standard deviation as a share of each image's range, 0.1 to 0.2 in the paper. The classes
    /// are those of the images without noise.
    pub fn smooth_grad(
        &mut self,
        images: &HostTensor,
        classes: Option<&[usize]>,
        noise: f32,
        copies: usize,
        seed: u64,
    ) -> Result<Explained, Error> {
        Number::new("smooth_grad", "noise", noise, Bounds::AtLeastZero).check().map_err(TrainError::from)?;
        let (_, classes) = self.run(None, images, classes)?;
        let (clean, row) = (images.to_f32(), self.image.iter().product());
        let mut rng = Philox::new(seed, Purpose::Noise, stream_id("smooth_grad"));
        let mut mean = vec![0.0; clean.len()];
        for _ in 0..copies.max(1) {
            let mut noisy = clean.clone();
            for image in noisy.chunks_mut(row) {
                let (low, high) = image.iter().fold((f32::MAX, f32::MIN), |(l, h), &x| (l.min(x), h.max(x)));
                let deviation = f64::from(noise * (high - low));
                image.iter_mut().for_each(|x| *x += (deviation * rng.normal()) as f32);
            }
            let (slopes, _) = self.run(None, &HostTensor::f32(images.shape(), noisy)?, Some(&classes))?;
            mean.iter_mut().zip(slopes.to_f32()).for_each(|(m, s)| *m += s / copies.max(1) as f32);
        }
        self.largest(&mean, classes)
    }

    fn largest(&self, slopes: &[f32], classes: Vec<usize>) -> Result<Explained, Error> {
        let [h, w, c] = self.image;
        let maps = slopes.chunks(c).map(|pixel| pixel.iter().fold(0f32, |m, x| m.max(x.abs()))).collect();
        Ok(Explained { maps: HostTensor::f32([classes.len(), h, w], maps)?, classes })
    }
}
