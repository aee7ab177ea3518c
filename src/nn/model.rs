use super::{Layer, LayerError, Mode, Scope, Weight};
use crate::{
    graph::{Graph, Value},
    tensor::{DType, HostTensor, Philox, Purpose, Shape, stream_id},
};
use std::{collections::HashMap, fmt, sync::Arc};

/// Layers one behind the other (Keras `Sequential`).
///
/// ```
/// use hubel::prelude::*;
/// let model = Sequential::new([28, 28, 1])
///     .add(Conv2D::new(8, 3).activation(Relu))
///     .add(Flatten::new())
///     .add(Dense::new(10).activation(Softmax))
///     .build()?;
/// println!("{}", model.summary());
/// # Ok::<(), hubel::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Sequential {
    input: Vec<usize>,
    layers: Vec<Arc<dyn Layer>>,
}

impl Sequential {
    /// Returns an empty model for samples of this shape, NHWC without the batch.
    pub fn new(input: impl Into<Vec<usize>>) -> Self {
        Sequential { input: input.into(), layers: Vec::new() }
    }

    /// Returns the model with a layer more.
    #[allow(clippy::should_implement_trait)]
    pub fn add(mut self, layer: impl Layer + 'static) -> Self {
        self.layers.push(Arc::new(layer));
        self
    }

    /// Returns the model with all shapes checked, or an error that names the layer.
    pub fn build(self) -> Result<Model, LayerError> {
        let chain = self.layers.into_iter().enumerate().map(|(i, layer)| (layer, vec![i])).collect();
        Model::new(self.input, chain)
    }
}

/// A layer in its place.
#[derive(Debug, Clone)]
struct Step {
    layer: Arc<dyn Layer>,
    name: String,
    inputs: Vec<usize>,
}

/// One line of a summary.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The layer's name.
    pub name: String,
    /// Its Keras type.
    pub kind: &'static str,
    /// Shape of its output.
    pub output: Shape,
    /// Number of weights.
    pub params: usize,
}

/// A checked network: layers, shapes, names of weights; it holds no device memory.
///
/// ```
/// use hubel::prelude::*;
/// let model = Sequential::new([4]).add(Dense::new(2).name("head")).build()?;
/// assert_eq!(model.weight_names(), ["head/kernel", "head/bias"]);
/// # Ok::<(), hubel::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Model {
    input: Vec<usize>,
    steps: Vec<Step>,
    rows: Vec<Row>,
    weights: Vec<Weight>,
    values: HashMap<String, HostTensor>,
}

/// A model in a graph.
#[derive(Debug, Clone)]
pub struct Assembled {
    /// The output of each layer, by name, in order.
    pub layers: Vec<(String, Value)>,
    /// The model's output.
    pub output: Value,
    /// What the output is the softmax of, where that is known.
    pub logits: Option<Value>,
    /// The model's weights.
    pub weights: Vec<Weight>,
}

impl Model {
    /// Each layer names its inputs by index: 0 is the model's input, k + 1 the output of layer k.
    fn new(input: Vec<usize>, layers: Vec<(Arc<dyn Layer>, Vec<usize>)>) -> Result<Self, LayerError> {
        let mut steps: Vec<Step> = Vec::with_capacity(layers.len());
        let mut counts: HashMap<String, usize> = HashMap::new();
        for (layer, inputs) in layers {
            let name = match layer.given_name() {
                Some(name) => name.to_owned(),
                None => {
                    let stem = snake_case(layer.kind());
                    let count = counts.entry(stem.clone()).or_insert(0);
                    *count += 1;
                    if *count == 1 { stem } else { format!("{stem}_{}", *count - 1) }
                }
            };
            if steps.iter().any(|s| s.name == name) {
                return Err(LayerError {
                    kind: layer.kind().into(),
                    wanted: "a name of its own".into(),
                    got: "a name that another layer has".into(),
                    advice: "rename one of them".into(),
                    layer: name,
                });
            }
            steps.push(Step { layer, name, inputs });
        }
        let mut model = Model { input, steps, rows: Vec::new(), weights: Vec::new(), values: HashMap::new() };
        let mut graph = Graph::new();
        let x = graph.input("x", model.input_shape(), DType::F32);
        let assembled = model.assemble(&mut graph, x, Mode::Inference)?;
        let prefix = |w: &Weight, name: &str| w.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'));
        model.rows = (model.steps.iter().zip(&assembled.layers))
            .map(|(step, (name, value))| Row {
                name: name.clone(),
                kind: step.layer.kind(),
                output: graph.shape(*value).clone(),
                params: assembled.weights.iter().filter(|w| prefix(w, name)).map(count).sum(),
            })
            .collect();
        model.weights = assembled.weights;
        Ok(model)
    }

    /// Appends the model to a graph, from `x` on.
    pub fn assemble(&self, graph: &mut Graph, x: Value, mode: Mode) -> Result<Assembled, LayerError> {
        let mut values = vec![x];
        let mut weights = Vec::new();
        let mut softmax = None;
        for step in &self.steps {
            let inputs: Vec<Value> = step.inputs.iter().map(|&i| values[i]).collect();
            let built = graph.scoped(&step.name, |graph| {
                let mut scope = Scope { graph, mode, layer: step.name.clone(), weights: &mut weights, logits: softmax };
                let value = step.layer.build(&mut scope, &inputs);
                softmax = scope.logits;
                value
            });
            values.push(built.map_err(|e| LayerError {
                layer: step.name.clone(),
                kind: step.layer.kind().into(),
                wanted: e.wanted,
                got: e.got,
                advice: e.advice,
            })?);
        }
        let output = values[values.len() - 1];
        let logits = softmax.filter(|(p, _)| *p == output).map(|(_, logits)| logits);
        let layers = self.steps.iter().map(|s| s.name.clone()).zip(values[1..].iter().copied()).collect();
        Ok(Assembled { layers, output, logits, weights })
    }

    /// Returns the shape of the model's input.
    pub fn input_shape(&self) -> Shape {
        Shape::batched(1, &self.input)
    }

    /// Returns the shape of the model's output.
    pub fn output_shape(&self) -> Shape {
        self.rows.last().map_or_else(|| self.input_shape(), |row| row.output.clone())
    }

    /// Returns the number of weights, trainable or not.
    pub fn count_params(&self) -> usize {
        self.weights.iter().map(count).sum()
    }

    /// Returns the names of all weights in the order of the layers.
    pub fn weight_names(&self) -> Vec<&str> {
        self.weights.iter().map(|w| w.name.as_str()).collect()
    }

    /// Returns all weights in the order of the layers.
    pub fn weights(&self) -> &[Weight] {
        &self.weights
    }

    /// Returns the names of the layers.
    pub fn layer_names(&self) -> Vec<&str> {
        self.steps.iter().map(|s| s.name.as_str()).collect()
    }

    /// Returns the first value of a weight: what was set, else what its initialiser draws for this seed.
    pub fn initial_value(&self, weight: &Weight, seed: u64) -> HostTensor {
        if let Some(value) = self.values.get(&weight.name) {
            return value.clone();
        }
        let mut rng = Philox::new(seed, Purpose::Initialize, stream_id(&weight.name));
        let data = weight.initial.fill(&weight.shape, &mut rng);
        HostTensor::f32(weight.shape.clone(), data)
            .unwrap_or_else(|_| crate::tensor::Array::zeros(weight.shape.clone()).to_host(DType::F32))
    }

    /// Gives weights their values by name; every weight of the model must be there with its shape.
    ///
    /// Tensors of other names are refused too, so that a wrong file is noticed.
    pub fn set_weights(&mut self, tensors: Vec<(String, HostTensor)>) -> Result<(), LayerError> {
        let mut values: HashMap<String, HostTensor> = HashMap::new();
        let error = |name: &str, wanted: String, got: String, advice: &str| LayerError {
            layer: name.split('/').next().unwrap_or(name).to_owned(),
            kind: "weights".into(),
            wanted,
            got,
            advice: advice.into(),
        };
        for (name, tensor) in tensors {
            let Some(weight) = self.weights.iter().find(|w| w.name == name) else {
                let known = self.weight_names().join(", ");
                return Err(error(
                    &name,
                    format!("one of {known}"),
                    format!("`{name}`"),
                    "use this model's own weights",
                ));
            };
            if weight.shape != tensor.shape() {
                let (wanted, got) = (format!("`{name}` of shape {:?}", weight.shape), format!("{:?}", tensor.shape()));
                return Err(error(&name, wanted, got, "use weights of a model of the same sizes"));
            }
            let tensor = match tensor.dtype() {
                DType::F32 => tensor,
                _ => tensor.to_array().to_host(DType::F32),
            };
            values.insert(name, tensor);
        }
        if let Some(weight) = self.weights.iter().find(|w| !values.contains_key(&w.name)) {
            let wanted = format!("`{}` of shape {:?}", weight.name, weight.shape);
            return Err(error(&weight.name, wanted, "no such tensor".into(), "use this model's own weights"));
        }
        self.values = values;
        Ok(())
    }

    /// Returns what Keras's `summary` shows, as text through `Display` and as rows.
    pub fn summary(&self) -> Summary {
        let trainable = self.weights.iter().filter(|w| w.trainable).map(count).sum();
        Summary { rows: self.rows.clone(), trainable, non_trainable: self.count_params() - trainable }
    }
}

fn count(weight: &Weight) -> usize {
    weight.shape.iter().product()
}

/// Returns `max_pooling2d` for `MaxPooling2D`, as Keras does.
fn snake_case(kind: &str) -> String {
    let mut out = String::new();
    let mut lower = false;
    for c in kind.chars() {
        if c.is_uppercase() && lower {
            out.push('_');
        }
        lower = c.is_lowercase();
        out.extend(c.to_lowercase());
    }
    out
}

/// A model's layers, shapes and parameter counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// One row for each layer.
    pub rows: Vec<Row>,
    /// Number of trainable weights.
    pub trainable: usize,
    /// Number of other weights.
    pub non_trainable: usize,
}

/// Returns a number with a comma between groups of three digits.
fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = |f: &mut fmt::Formatter<'_>, l: char, m: char, r: char| {
            writeln!(f, "{l}{0}{m}{1}{m}{2}{r}", "─".repeat(36), "─".repeat(24), "─".repeat(14))
        };
        rule(f, '┌', '┬', '┐')?;
        writeln!(f, "│ {:34} │ {:22} │ {:>12} │", "Layer (type)", "Output Shape", "Param #")?;
        rule(f, '├', '┼', '┤')?;
        for row in &self.rows {
            let name = format!("{} ({})", row.name, row.kind);
            writeln!(f, "│ {name:34} │ {:22} │ {:>12} │", row.output.to_string(), grouped(row.params))?;
        }
        rule(f, '└', '┴', '┘')?;
        writeln!(f, "Total params: {}", grouped(self.trainable + self.non_trainable))?;
        writeln!(f, "Trainable params: {}", grouped(self.trainable))?;
        write!(f, "Non-trainable params: {}", grouped(self.non_trainable))
    }
}
