//! Nodes, initialisers and the names of values of a file under construction.

use crate::{
    graph::{Graph, OpError, Value},
    io::onnx::messages::{
        AttributeProto, Dimension, Entry, GraphProto, ModelProto, NodeProto, OperatorSetId, ShapeProto, TensorProto,
        TensorTypeProto, TypeProto, ValueInfo,
    },
    tensor::{DType, HostTensor, Shape},
};
use prost::bytes::Bytes;
use std::collections::{HashMap, HashSet};

/// A value of the file.
#[derive(Debug, Clone)]
struct Written {
    name: String,
    /// Which of Hubel's axes each of ONNX's is.
    order: Vec<usize>,
}

/// A file under construction.
pub struct Writer<'g> {
    pub graph: &'g Graph,
    pub opset: i64,
    proto: GraphProto,
    /// The values, each in every order in which it exists.
    values: HashMap<Value, Vec<Written>>,
    weights: HashMap<Value, (String, HostTensor)>,
    names: HashMap<String, usize>,
    /// Sequences of which the last step alone is written.
    pub lasts: HashSet<Value>,
}

/// An attribute's value.
pub enum Attr {
    Int(i64),
    Float(f32),
    Text(&'static str),
    Ints(Vec<i64>),
    Texts(Vec<&'static str>),
}

/// Returns the order that ONNX's operators on maps want.
pub fn channels_first(rank: usize) -> Vec<usize> {
    if rank < 3 { (0..rank).collect() } else { [0, rank - 1].into_iter().chain(1..rank - 1).collect() }
}

pub fn natural(rank: usize) -> Vec<usize> {
    (0..rank).collect()
}

pub fn ints(values: &[usize]) -> Attr {
    Attr::Ints(values.iter().map(|&v| v as i64).collect())
}

impl<'g> Writer<'g> {
    pub fn new(graph: &'g Graph, opset: i64) -> Self {
        Writer {
            graph,
            opset,
            proto: GraphProto::default(),
            values: HashMap::new(),
            weights: HashMap::new(),
            names: HashMap::new(),
            lasts: HashSet::new(),
        }
    }

    pub fn shape(&self, value: Value) -> &'g Shape {
        self.graph.shape(value)
    }

    pub fn rank(&self, value: Value) -> usize {
        self.shape(value).rank()
    }

    fn unique(&mut self, name: &str) -> String {
        let count = self.names.entry(name.to_owned()).or_insert(0);
        *count += 1;
        if *count == 1 { name.to_owned() } else { format!("{name}__{}", *count - 1) }
    }

    fn info(&self, name: &str, value: Value, order: &[usize], elem_type: i32) -> ValueInfo {
        let shape = self.shape(value);
        let dim = |&axis: &usize| match (axis == 0 && shape.is_batched(), shape.dims()[axis]) {
            (true, 1) => Dimension { value: None, param: Some("N".into()) },
            (true, _) => Dimension { value: None, param: None },
            (false, n) => Dimension { value: Some(n as i64), param: None },
        };
        let shape = ShapeProto { dim: order.iter().map(dim).collect() };
        let tensor = TensorTypeProto { elem_type, shape: Some(shape) };
        ValueInfo { name: name.to_owned(), ty: Some(TypeProto { tensor: Some(tensor) }) }
    }

    pub fn input(&mut self, value: Value, name: &str, first: bool) {
        let rank = self.rank(value);
        let order = if first && rank == 4 { channels_first(4) } else { natural(rank) };
        let elem = match self.graph.ty(value).dtype {
            DType::U8 => 2,
            DType::I32 | DType::U32 => 6,
            _ => 1,
        };
        let mut own = self.unique(name);
        let info = self.info(&own, value, &order, elem);
        self.proto.input.push(info);
        if elem != 1 {
            own = self.node("Cast", &[&own], &[("to", Attr::Int(1))]);
        }
        self.values.insert(value, vec![Written { name: own, order }]);
    }

    pub fn output(&mut self, value: Value, name: &str, first: bool) -> Result<(), OpError> {
        let rank = self.rank(value);
        let order = if first && rank == 4 { channels_first(4) } else { natural(rank) };
        let from = self.get(value, &order)?;
        let own = self.unique(name);
        let is_whole = matches!(self.graph.ty(value).dtype, DType::U32 | DType::I32);
        let (op, attributes) = if is_whole { ("Cast", vec![("to", Attr::Int(7))]) } else { ("Identity", Vec::new()) };
        self.node_named(op, &[&from], &own, &attributes);
        let info = self.info(&own, value, &order, if is_whole { 7 } else { 1 });
        self.proto.output.push(info);
        Ok(())
    }

    pub fn weight(&mut self, value: Value, name: &str, tensor: HostTensor) {
        self.weights.insert(value, (name.to_owned(), tensor));
    }

    pub fn is_weight(&self, value: Value) -> bool {
        self.weights.contains_key(&value)
    }

    /// Names a node's result, written in this order.
    pub fn set(&mut self, value: Value, name: String, order: Vec<usize>) {
        self.values.entry(value).or_default().push(Written { name, order });
    }

    /// Returns the order in which a value exists.
    pub fn order(&self, value: Value) -> Vec<usize> {
        let found = self.values.get(&value).and_then(|all| all.first());
        found.map_or_else(|| natural(self.rank(value)), |written| written.order.clone())
    }

    /// Returns the name of a value in this order, after a Transpose where it does not exist yet.
    pub fn get(&mut self, value: Value, order: &[usize]) -> Result<String, OpError> {
        if let Some(found) = self.values.get(&value).and_then(|all| all.iter().find(|w| w.order == order)) {
            return Ok(found.name.clone());
        }
        if let Some((name, tensor)) = self.weights.get(&value) {
            let (name, tensor) = (name.clone(), tensor.transposed(order));
            let name = self.initializer(&name, &tensor);
            self.set(value, name.clone(), order.to_vec());
            return Ok(name);
        }
        let first = self.values.get(&value).and_then(|all| all.first()).cloned();
        let missing = || OpError::new("onnx", "a value that is written", &self.graph.node(value).name, "report this");
        let first = first.ok_or_else(missing)?;
        let permutation: Vec<usize> =
            order.iter().map(|axis| first.order.iter().position(|a| a == axis).unwrap_or(*axis)).collect();
        let name = self.node("Transpose", &[&first.name], &[("perm", ints(&permutation))]);
        self.set(value, name.clone(), order.to_vec());
        Ok(name)
    }

    /// Returns the name of a value in Hubel's own order.
    pub fn plain(&mut self, value: Value) -> Result<String, OpError> {
        self.get(value, &natural(self.rank(value)))
    }

    pub fn node(&mut self, op: &str, inputs: &[&str], attributes: &[(&str, Attr)]) -> String {
        let output = self.unique(&format!("{}_out", op.to_lowercase()));
        self.node_named(op, inputs, &output, attributes);
        output
    }

    /// Adds a node whose result has the name of the graph's node.
    pub fn node_of(&mut self, value: Value, op: &str, inputs: &[&str], attributes: &[(&str, Attr)]) -> String {
        let name = match value.output {
            0 => self.graph.node(value).name.clone(),
            k => format!("{}.{k}", self.graph.node(value).name),
        };
        let output = self.unique(&name);
        self.node_named(op, inputs, &output, attributes);
        output
    }

    fn node_named(&mut self, op: &str, inputs: &[&str], output: &str, attributes: &[(&str, Attr)]) {
        self.nodes(op, inputs, &[output.to_owned()], attributes);
    }

    /// Adds a node with several results.
    pub fn nodes(&mut self, op: &str, inputs: &[&str], outputs: &[String], attributes: &[(&str, Attr)]) {
        let attribute = |(name, value): &(&str, Attr)| {
            let mut a = AttributeProto { name: (*name).to_owned(), ..AttributeProto::default() };
            match value {
                Attr::Float(f) => (a.f, a.kind) = (*f, 1),
                Attr::Int(i) => (a.i, a.kind) = (*i, 2),
                Attr::Text(s) => (a.s, a.kind) = (Bytes::from_static(s.as_bytes()), 3),
                Attr::Ints(all) => (a.ints, a.kind) = (all.clone(), 7),
                Attr::Texts(all) => {
                    let bytes = |s: &&'static str| Bytes::from_static(s.as_bytes());
                    (a.strings, a.kind) = (all.iter().map(bytes).collect(), 8);
                }
            }
            a
        };
        let name = outputs.iter().find(|o| !o.is_empty()).cloned().unwrap_or_default();
        self.proto.node.push(NodeProto {
            input: inputs.iter().map(|i| (*i).to_owned()).collect(),
            output: outputs.to_vec(),
            name,
            op_type: op.to_owned(),
            attribute: attributes.iter().map(attribute).collect(),
            domain: String::new(),
        });
    }

    /// Gives the result of the node written last the name of the graph's node.
    pub fn named(&mut self, value: Value, result: &str) -> String {
        let own = self.result_name(value);
        match self.proto.node.last_mut().filter(|n| n.output.len() == 1 && n.output[0] == result) {
            Some(node) => (node.name, node.output) = (own.clone(), vec![own.clone()]),
            None => self.node_named("Identity", &[result], &own, &[]),
        }
        own
    }

    /// Returns a weight with other extents as a weight, if it is one.
    pub fn reshaped_weight(&mut self, x: Value, value: Value) -> bool {
        let dims = self.shape(value).dims().to_vec();
        let Some((name, tensor)) = self.weights.get(&x).cloned() else { return false };
        let Ok(tensor) = tensor.reshape(dims) else { return false };
        self.weights.insert(value, (name, tensor));
        true
    }

    pub fn result_name(&mut self, value: Value) -> String {
        let name = match value.output {
            0 => self.graph.node(value).name.clone(),
            k => format!("{}.{k}", self.graph.node(value).name),
        };
        self.unique(&name)
    }

    /// Adds a tensor of floats and returns its name.
    pub fn initializer(&mut self, name: &str, tensor: &HostTensor) -> String {
        let name = self.unique(name);
        self.proto.initializer.push(TensorProto {
            dims: tensor.shape().iter().map(|&d| d as i64).collect(),
            data_type: 1,
            name: name.clone(),
            raw_data: Bytes::copy_from_slice(tensor.bytes()),
            ..TensorProto::default()
        });
        name
    }

    /// Adds floats and returns their name.
    pub fn floats(&mut self, dims: &[usize], values: Vec<f32>) -> String {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.raw(dims, 1, bytes)
    }

    /// Adds whole numbers along one axis and returns their name.
    pub fn whole(&mut self, values: &[i64]) -> String {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.raw(&[values.len()], 7, bytes)
    }

    fn raw(&mut self, dims: &[usize], data_type: i32, bytes: Vec<u8>) -> String {
        let name = self.unique("constant");
        self.proto.initializer.push(TensorProto {
            dims: dims.iter().map(|&d| d as i64).collect(),
            data_type,
            name: name.clone(),
            raw_data: bytes.into(),
            ..TensorProto::default()
        });
        name
    }

    /// Returns a value with these extents in ONNX's order; the first of a batch's stays open.
    pub fn reshaped(&mut self, name: &str, dims: &[usize], batched: bool) -> String {
        let mut target: Vec<i64> = dims.iter().map(|&d| d as i64).collect();
        if let Some(first) = target.first_mut().filter(|_| batched) {
            *first = -1;
        }
        let shape = self.whole(&target);
        self.node("Reshape", &[name, &shape], &[])
    }

    /// Returns the name of an operand that broadcasting aligns with a tensor of `rank` in this order.
    pub fn aligned(&mut self, value: Value, rank: usize, order: &[usize]) -> Result<String, OpError> {
        let own = self.rank(value);
        if own == rank {
            return self.get(value, order);
        }
        let shape = self.shape(value).clone();
        if own == 0 || order.is_sorted() {
            return self.plain(value);
        }
        // Ones in front, then the same order.
        let mut whole = vec![1; rank - own];
        whole.extend(shape.dims());
        let arranged: Vec<usize> = order.iter().map(|&axis| whole[axis]).collect();
        if let Some((name, tensor)) = self.weights.get(&value).cloned()
            && let Ok(tensor) = tensor.reshape(whole.clone())
        {
            return Ok(self.initializer(&name, &tensor.transposed(order)));
        }
        let wide: Vec<usize> = order.iter().copied().filter(|&a| whole[a] != 1).collect();
        let plain = self.plain(value)?;
        if wide.is_sorted() {
            return Ok(self.reshaped(&plain, &arranged, false));
        }
        let reshaped = self.reshaped(&plain, &whole, false);
        Ok(self.node("Transpose", &[&reshaped], &[("perm", ints(order))]))
    }

    pub fn finish(mut self, name: &str, class_names: &[String]) -> ModelProto {
        self.proto.name = name.to_owned();
        let mut metadata = Vec::new();
        if !class_names.is_empty() {
            let value = serde_json::to_string(class_names).unwrap_or_default();
            metadata.push(Entry { key: "class_names".into(), value });
        }
        ModelProto {
            ir_version: 8,
            producer_name: "hubel".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            graph: Some(self.proto),
            opset_import: vec![OperatorSetId { domain: String::new(), version: self.opset }],
            metadata_props: metadata,
            functions: Vec::new(),
        }
    }
}

/// Returns which of ONNX's axes an axis of Hubel is in this order.
pub fn place(order: &[usize], axis: usize) -> usize {
    order.iter().position(|&a| a == axis).unwrap_or(axis)
}
