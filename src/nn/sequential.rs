use super::{Input, IntoLayer, Layer, LayerError, Model, Tensor};
use std::sync::Arc;

/// A linear stack of layers (Keras `Sequential`).
///
/// ```
/// use hubel::{layers::*, prelude::*};
/// let model = Sequential::new([28, 28, 1])
///     .add(Conv2D::new(8, 3).activation(Relu))
///     .add(Flatten::new())
///     .add(Dense::new(10).activation(Softmax))
///     .build()?;
/// println!("{}", model.summary());
/// # Ok::<(), hubel::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Sequential {
    input: Option<Tensor>,
    layers: Vec<Arc<dyn Layer>>,
}

impl Sequential {
    /// Returns an empty model for samples of this shape, NHWC without the batch.
    pub fn new(input: impl Into<Vec<usize>>) -> Self {
        Self::from_input(Input::new(input))
    }

    /// Returns an empty model on an input made with [`Input`].
    pub fn from_input(input: Tensor) -> Self {
        Sequential { input: Some(input), layers: Vec::new() }
    }

    /// Appends a layer.
    #[expect(clippy::should_implement_trait, reason = "Keras's name")]
    pub fn add(mut self, layer: impl IntoLayer) -> Self {
        self.layers.push(layer.into_layer());
        self
    }

    /// Checks all shapes and returns the model, or an error that names the layer.
    ///
    /// The shape of a sample is the one given to [`Sequential::new`], else the first layer's `input_shape`.
    pub fn build(self) -> Result<Model, LayerError> {
        let first = self.layers.first().and_then(|l| l.input_shape()).map(Input::new);
        let Some(input) = self.input.or(first) else {
            return Err(LayerError {
                layer: "sequential".into(),
                kind: "Sequential".into(),
                wanted: "the shape of a sample".into(),
                got: "none".into(),
                advice:
                    "begin with `Sequential::new([height, width, channels])`, or give the first layer an `input_shape`"
                        .into(),
            });
        };
        let mut x = input.clone();
        for (at, layer) in self.layers.iter().enumerate() {
            // An error must name the layer as the model would, with its number.
            x = x.apply(layer).map_err(|e| {
                let earlier = |l: &&Arc<dyn Layer>| l.given_name().is_none() && l.kind() == layer.kind();
                let n = self.layers[..at].iter().filter(earlier).count();
                let name = if layer.given_name().is_none() && n > 0 { format!("{}_{n}", e.layer) } else { e.layer };
                LayerError { layer: name, ..e }
            })?;
        }
        Ok(Model::named("sequential", &[input], &[x])?.sequential())
    }
}
