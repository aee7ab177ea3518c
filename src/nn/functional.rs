use super::{IntoLayer, Layer, LayerError, Mode, Scope, layer::Built};
use crate::{
    graph::{Graph, OpError, TensorType, Value},
    tensor::{DType, Shape},
};
use std::{
    collections::HashSet,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// A value between layers of a functional model (Keras `KerasTensor`).
///
/// ```
/// use hubel::{layers::*, prelude::*};
/// let x = Input::new([32, 32, 3]);
/// let y = x.apply(Conv2D::new(8, 3).padding(Same))?.apply(BatchNormalization::new())?.apply(Relu)?;
/// let shortcut = x.apply(Conv2D::new(8, 1).name("shortcut"))?;
/// let model = Model::new(&[x], &[add(&[y, shortcut])?])?;
/// assert_eq!(model.output_shape().to_string(), "(N, 32, 32, 8)");
/// # Ok::<(), hubel::Error>(())
/// ```
#[derive(Clone)]
pub struct Tensor {
    pub(super) node: Arc<Node>,
    pub(super) output: usize,
}

impl fmt::Debug for Tensor {
    /// Shows the type and the layer, without the whole history of the tensor.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layer = self.node.layer.as_ref().map_or("Input", |l| l.given_name().unwrap_or(l.kind()));
        write!(f, "{} of {layer}", self.ty())
    }
}

/// One use of a layer, or an input.
pub(super) struct Node {
    /// Rises with each node created.
    pub id: u64,
    pub layer: Option<Arc<dyn Layer>>,
    pub name: Option<String>,
    pub inputs: Vec<Tensor>,
    pub outputs: Vec<TensorType>,
}

/// Makes the inputs of functional models (Keras `Input`).
#[derive(Debug, Clone, Copy)]
pub struct Input;

static NEXT: AtomicU64 = AtomicU64::new(0);

impl Drop for Node {
    /// Drops the nodes that only this one holds in a loop: recursion over a long chain would overflow the stack.
    fn drop(&mut self) {
        let mut inputs = std::mem::take(&mut self.inputs);
        while let Some(input) = inputs.pop() {
            if let Some(mut node) = Arc::into_inner(input.node) {
                inputs.append(&mut node.inputs);
            }
        }
    }
}

impl Node {
    fn tensors(self) -> Vec<Tensor> {
        let node = Arc::new(self);
        (0..node.outputs.len()).map(|output| Tensor { node: node.clone(), output }).collect()
    }
}

fn id() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Input {
    /// Returns an input of f32 samples of this shape, NHWC without the batch.
    #[expect(clippy::new_ret_no_self, reason = "Keras's Input is a function that returns a tensor")]
    pub fn new(shape: impl Into<Vec<usize>>) -> Tensor {
        Self::of(None, &shape.into(), DType::F32)
    }

    /// Returns an input with a name, for samples of this shape and type.
    pub fn named(name: &str, shape: impl Into<Vec<usize>>, dtype: DType) -> Tensor {
        Self::of(Some(name.to_owned()), &shape.into(), dtype)
    }

    /// Returns an input of f32 with a name, of this shape with or without a batch.
    #[cfg(feature = "onnx")]
    pub(super) fn with_shape(name: String, shape: Shape) -> Tensor {
        let outputs = vec![TensorType::f32(shape)];
        Tensor {
            node: Arc::new(Node { id: id(), layer: None, name: Some(name), inputs: Vec::new(), outputs }),
            output: 0,
        }
    }

    pub(super) fn of(name: Option<String>, shape: &[usize], dtype: DType) -> Tensor {
        let outputs = vec![TensorType::new(Shape::batched(1, shape), dtype)];
        let node = Arc::new(Node { id: id(), layer: None, name, inputs: Vec::new(), outputs });
        Tensor { node, output: 0 }
    }
}

impl Tensor {
    /// Returns the shape, with the batch in front.
    pub fn shape(&self) -> &Shape {
        &self.ty().shape
    }

    pub(super) fn ty(&self) -> &TensorType {
        &self.node.outputs[self.output]
    }

    /// Returns the layer's result on this tensor, or an error that names the layer.
    pub fn apply(&self, layer: impl IntoLayer) -> Result<Tensor, LayerError> {
        call(layer, std::slice::from_ref(self))
    }
}

/// Returns the first result of a layer on several tensors.
///
/// ```
/// use hubel::{nn::{Layer, call}, layers::*, prelude::*};
/// let (a, b) = (Input::new([4]), Input::new([4]));
/// let shared = Dense::new(2).into_layer();
/// let sum = call(Add::new().name("sum"), &[a.apply(&shared)?, b.apply(&shared)?])?;
/// assert_eq!(Model::new(&[a, b], &[sum])?.count_params(), 10);
/// # Ok::<(), hubel::Error>(())
/// ```
pub fn call(layer: impl IntoLayer, inputs: &[Tensor]) -> Result<Tensor, LayerError> {
    Ok(call_all(layer, inputs)?.swap_remove(0))
}

/// Returns all results of a layer on several tensors, at least one.
pub fn call_all(layer: impl IntoLayer, inputs: &[Tensor]) -> Result<Vec<Tensor>, LayerError> {
    Ok(call_counted(layer, inputs)?.0)
}

/// [`call_all`], with the number of nodes and weights that the layer added.
pub(super) fn call_counted(layer: impl IntoLayer, inputs: &[Tensor]) -> Result<(Vec<Tensor>, usize), LayerError> {
    let layer = layer.into_layer();
    let mut graph = Graph::new();
    let values: Vec<_> = (inputs.iter().enumerate())
        .map(|(i, t)| graph.input(&format!("input{i}"), t.shape().clone(), t.ty().dtype))
        .collect();
    let mut built = Built::default();
    let name = layer.given_name().map_or_else(|| super::names::snake_case(layer.kind()), str::to_owned);
    let wrong = |wanted: &str, got: String, advice: &str| {
        Err(error(&name, layer.as_ref(), OpError::new(layer.kind(), wanted, got, advice)))
    };
    if inputs.is_empty() {
        return wrong("at least one input", "none".into(), "apply the layer to a tensor");
    }
    if let Some(input) = inputs.iter().find(|t| t.shape().dims().contains(&0) || !t.shape().is_countable()) {
        let advice = "give the `Input` other extents";
        return wrong(
            "an input with extents of at least 1 and at most 2³² − 1 elements",
            input.shape().to_string(),
            advice,
        );
    }
    let outputs = Scope::new(&mut graph, Mode::Inference, &mut built)
        .child(&name, layer.as_ref(), &values)
        .and_then(|outputs| match outputs.is_empty() {
            true => Err(OpError::new(&name, "at least one result", "none", "return one from the layer's `build`")),
            false => Ok(outputs),
        })
        .map_err(|e| error(&name, layer.as_ref(), e))?;
    let used: HashSet<&Value> = outputs.iter().chain(graph.nodes().iter().flat_map(|n| &n.inputs)).collect();
    if let Some(value) = values.iter().find(|v| !used.contains(v)).filter(|_| layer.nested().is_none()) {
        let (wanted, got) = (format!("at most {} input(s)", value.node), inputs.len().to_string());
        return wrong(&wanted, got, "apply the layer to fewer tensors, or combine them first");
    }
    let outputs = outputs.into_iter().map(|v| graph.ty(v).clone()).collect();
    let count = graph.nodes().len() - inputs.len() + built.weights.len();
    Ok((Node { id: id(), layer: Some(layer), name: None, inputs: inputs.to_vec(), outputs }.tensors(), count))
}

/// Returns an operation's error as an error of its layer.
pub(super) fn error(name: &str, layer: &dyn Layer, e: OpError) -> LayerError {
    // An inner layer, of a wrapper or a model, is the one that the user must look for.
    let inner = e.node.strip_prefix(name).and_then(|rest| rest.strip_prefix('/')?.rsplit_once('/'));
    let path = inner.map_or_else(|| name.to_owned(), |(inner, _)| format!("{name}/{inner}"));
    LayerError { layer: path, kind: layer.kind().into(), wanted: e.wanted, got: e.got, advice: e.advice }
}
