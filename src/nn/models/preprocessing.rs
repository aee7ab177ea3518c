use crate::{
    graph::{Graph, OpError, Value},
    nn::{Layer, LayerError, Scope},
    ops::Conv2dOptions,
    tensor::HostTensor,
};

/// How a network preprocesses images: from red, green and blue of 0 to 255 to its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Preprocessing {
    /// x: the network has its own scaling (Keras's EfficientNet and MobileNetV3).
    Identity,
    /// x / 127.5 − 1 (Keras `preprocess_input`, mode `tf`).
    Tf,
    /// (x / 255 − mean) / deviation of ImageNet's channels (Keras mode `torch`; torchvision).
    Torch,
    /// Blue, green, red, minus ImageNet's means 103.939, 116.779, 123.68 (Keras mode `caffe`).
    Caffe,
    /// (x − 127) / 128 (EfficientNet-Lite).
    Lite,
    /// x / 255.
    Unit,
    /// (x / 255 − 0.1307) / 0.3081, with MNIST's mean and deviation, of one channel.
    Mnist,
}

/// Means and deviations of ImageNet's red, green and blue, of 1.
const IMAGENET: [[f32; 3]; 2] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];

impl Preprocessing {
    const NAMES: [(Preprocessing, &'static str); 7] = [
        (Preprocessing::Identity, "identity"),
        (Preprocessing::Tf, "tf"),
        (Preprocessing::Torch, "torch"),
        (Preprocessing::Caffe, "caffe"),
        (Preprocessing::Lite, "lite"),
        (Preprocessing::Unit, "unit"),
        (Preprocessing::Mnist, "mnist"),
    ];

    /// Returns the name for files and commands, in lower case.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(known, _)| *known == self).map_or("identity", |(_, name)| name)
    }

    /// Returns the preprocessing of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(preprocessing, _)| *preprocessing)
    }

    /// Preprocesses images (…, channels) of numbers from 0 to 255, bytes or floats, to f32 of the same shape; channels
    /// are red, green and blue, or one for [`Preprocessing::Mnist`].
    ///
    /// ```
    /// use hubel::{nn::models::Preprocessing, prelude::*};
    /// let pixel = HostTensor::u8([1, 1, 1, 3], vec![255, 0, 51])?;
    /// assert_eq!(Preprocessing::Tf.apply(&pixel)?.to_f32(), [1.0, -1.0, -0.6]);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn apply(self, images: &HostTensor) -> Result<HostTensor, LayerError> {
        let channels = images.shape().last().copied().unwrap_or(0);
        let wanted = match self {
            Preprocessing::Torch | Preprocessing::Caffe => Some(3),
            Preprocessing::Mnist => Some(1),
            _ => None,
        };
        let error = |wanted: String, got: String, advice: &str| LayerError {
            layer: "preprocessing".into(),
            kind: format!("{self:?}"),
            wanted,
            got,
            advice: advice.into(),
        };
        if let Some(n) = wanted.filter(|n| *n != channels) {
            let advice = "give images with their channels in the last axis";
            return Err(error(format!("{n} channels"), format!("shape {:?}", images.shape()), advice));
        }
        let mut x = images.to_f32();
        match self {
            Preprocessing::Identity => {}
            Preprocessing::Tf => x.iter_mut().for_each(|x| *x = *x / 127.5 - 1.0),
            Preprocessing::Lite => x.iter_mut().for_each(|x| *x = (*x - 127.0) / 128.0),
            Preprocessing::Unit => x.iter_mut().for_each(|x| *x /= 255.0),
            Preprocessing::Mnist => x.iter_mut().for_each(|x| *x = (*x / 255.0 - 0.1307) / 0.3081),
            Preprocessing::Torch => x.iter_mut().enumerate().for_each(|(i, x)| {
                *x = (*x / 255.0 - IMAGENET[0][i % 3]) / IMAGENET[1][i % 3];
            }),
            Preprocessing::Caffe => x.as_chunks_mut::<3>().0.iter_mut().for_each(|[r, g, b]| {
                (*r, *g, *b) = (*b - 103.939, *g - 116.779, *r - 123.68);
            }),
        }
        HostTensor::f32(images.shape(), x)
            .map_err(|e| error("as many numbers as the shape has".into(), e.to_string(), "give another tensor"))
    }

    /// [`Preprocessing::apply`] in a graph, for images (N, h, w, channels), with gradients.
    ///
    /// ```
    /// use hubel::{nn::models::Preprocessing, prelude::*};
    /// let mut g = Graph::new();
    /// let images = g.input("images", [Batch, 8, 8, 3], F32);
    /// let x = Preprocessing::Caffe.build(&mut g, images)?;
    /// assert_eq!(g.shape(x), g.shape(images));
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn build(self, g: &mut Graph, images: Value) -> Result<Value, OpError> {
        let c = g.shape(images).last();
        // It is affine, so its values on black and on each channel alone determine it.
        let mut pixels = vec![0.0; (c + 1) * c];
        (0..c).for_each(|i| pixels[(i + 1) * c + i] = 255.0);
        let refused = |e: String| OpError::new("preprocessing", "images that it accepts", e, "give other images");
        let pixels = HostTensor::f32([c + 1, c], pixels).map_err(|e| refused(e.to_string()))?;
        let made = self.apply(&pixels).map_err(|e| refused(e.to_string()))?.to_f32();
        let (black, alone) = made.split_at(c);
        let taps: Vec<f32> = alone.iter().zip(black.iter().cycle()).map(|(x, black)| (x - black) / 255.0).collect();
        let black = g.literal([c], black)?;
        let levels = match taps.iter().enumerate().any(|(i, &x)| i % (c + 1) > 0 && x != 0.0) {
            true => {
                let taps = g.literal([1, 1, c, c], taps)?;
                g.conv2d(images, taps, Conv2dOptions::valid())?
            }
            false => {
                let factors = g.literal([c], taps.into_iter().step_by(c + 1).collect::<Vec<_>>())?;
                g.mul(images, factors)?
            }
        };
        g.add(levels, black)
    }
}

/// Preprocesses images from 0 to 255 as a layer; it cannot be written to a file.
///
/// ```
/// use hubel::{nn::models::{Options, Preprocessing}, layers::*, prelude::*};
/// let base = models::mobilenet_v2(&Options::no_top().input_shape([32, 32, 3]).alpha(0.35))?;
/// let model = Sequential::new([32, 32, 3]).add(Preprocessing::Tf).add(base).add(GlobalAveragePooling2D::new()).build()?;
/// assert_eq!(model.output_shape().to_string(), "(N, 1280)");
/// # Ok::<(), hubel::Error>(())
/// ```
impl Layer for Preprocessing {
    fn kind(&self) -> &'static str {
        "Preprocessing"
    }

    fn build(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        Ok(vec![Preprocessing::build(*self, scope.graph, inputs[0])?])
    }
}
