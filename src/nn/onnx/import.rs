//! From a file's graph to a model: node by node, with what is known computed at once.

use super::{
    call::{Build, Slot, channels_last},
    constant::Constant,
    inputs::{self, Described},
    node::{self, Node},
    ops::{self, known},
    options::OnnxOptions,
    spec::Spec,
    supported::{is_onnx, supported},
};
use crate::{
    Error,
    graph::OpError,
    io::{
        Budget, Flaw, FormatError,
        onnx::{
            load_external,
            messages::{AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto},
        },
    },
    nn::{DataFormat, Input, IntoLayer, Layer, LayerError, Model, Tensor, call_all, names::refused},
    tensor::{HostTensor, Shape},
};
use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::Arc,
};

/// The newest version of the operators.
const NEWEST_OPSET: i64 = 26;
/// The most nodes that are built, those of loops each time.
const MAX_NODES: usize = 1 << 16;
/// What a layer takes in memory, at most.
const LAYER_BYTES: u64 = 2048;

/// A value of the file.
#[derive(Clone)]
enum Entry {
    Known(Constant),
    Tensor { tensor: Tensor, axes: Vec<usize>, elem: i32, flat: Option<Vec<usize>> },
}

/// Returns the model of a file.
pub fn model(file: ModelProto, options: &OnnxOptions, folder: Option<&Path>, budget: &Budget) -> Result<Model, Error> {
    let ModelProto { graph, opset_import, metadata_props, functions, .. } = file;
    let Some(mut graph) = graph else {
        return Err(FormatError::new(Flaw::Missing, "the file", "a graph", "none").into());
    };
    let own = opset_import.iter().filter(|o| is_onnx(&o.domain)).map(|o| o.version).max();
    let opset = own.filter(|v| (1..=NEWEST_OPSET).contains(v)).ok_or_else(|| {
        let got = own.map_or("none".to_owned(), |v| v.to_string());
        FormatError::new(Flaw::Contradiction, "the file", format!("operators of version 1 to {NEWEST_OPSET}"), got)
            .advise("export the model with an opset from 7 on")
    })?;
    let functions: HashMap<(String, String), FunctionProto> =
        functions.into_iter().map(|f| ((f.domain.clone(), f.name.clone()), f)).collect();
    supported(&graph, &functions)?;
    for tensor in &mut graph.initializer {
        load_external(tensor, folder, budget)?;
    }
    let import = |with_batch: bool| {
        let described = inputs::described(&graph, options, with_batch)?;
        let importer = Importer::new(opset, options, (&functions, budget));
        Ok::<_, Error>((importer.run(&graph, &described)?, described))
    };
    let mut model = match import(true) {
        Ok((model, _)) => model,
        // A first extent of 1 need not be a batch.
        Err(first) => match may_be_fixed(&graph, options) {
            true => import(false).map(|(model, _)| model).map_err(|_| first)?,
            false => return Err(first),
        },
    };
    let metadata: HashMap<&str, &str> = metadata_props.iter().map(|e| (e.key.as_str(), e.value.as_str())).collect();
    model.set_class_names(inputs::class_names(&metadata));
    Ok(model)
}

/// Returns whether all inputs have extents without a batch.
fn may_be_fixed(graph: &GraphProto, options: &OnnxOptions) -> bool {
    let all = inputs::described(graph, options, true).unwrap_or_default();
    all.iter().any(|i| i.first_is_one) && inputs::described(graph, options, false).is_ok()
}

struct Importer<'o> {
    opset: i64,
    options: &'o OnnxOptions,
    functions: &'o HashMap<(String, String), FunctionProto>,
    budget: &'o Budget,
    taken: HashSet<String>,
    weights: Vec<(String, HostTensor)>,
    nodes: usize,
}

/// The values that nodes see, by name.
type Env = HashMap<String, Entry>;

impl<'o> Importer<'o> {
    fn new(
        opset: i64,
        options: &'o OnnxOptions,
        (functions, budget): (&'o HashMap<(String, String), FunctionProto>, &'o Budget),
    ) -> Self {
        Importer { opset, options, functions, budget, taken: HashSet::new(), weights: Vec::new(), nodes: 0 }
    }

    fn run(mut self, graph: &GraphProto, described: &[Described]) -> Result<Model, Error> {
        let mut env = Env::new();
        self.initialize(graph, &mut env)?;
        let mut inputs = Vec::new();
        for input in described {
            let tensor = self.input(input);
            let Described { axes, elem, .. } = input.clone();
            let entry = Entry::Tensor { tensor: tensor.clone(), axes, elem, flat: None };
            define(&mut env, &input.name, entry)?;
            inputs.push(tensor);
        }
        for (name, value) in &self.options.values {
            let numbers = value.to_array().data;
            let whole = !matches!(value.dtype(), crate::tensor::DType::F32);
            let elem = if whole { super::constant::INT64 } else { super::constant::FLOAT };
            env.insert(name.clone(), Entry::Known(Constant::numbers(value.shape().to_vec(), elem, numbers)));
        }
        if inputs.is_empty() {
            // A model has an input: of a file without, one that has no effect.
            inputs.push(Input::with_shape(self.unique("samples", "input"), Shape::batched(1, &[1])));
        }
        self.walk(&graph.node, &mut env)?;
        let names: Vec<String> = match self.options.outputs.is_empty() {
            true => graph.output.iter().map(|o| o.name.clone()).collect(),
            false => self.options.outputs.clone(),
        };
        let mut outputs = Vec::new();
        for name in &names {
            outputs.push(self.output(name, &env, &inputs)?);
        }
        let name = if graph.name.is_empty() { "onnx" } else { &graph.name };
        let mut model = Model::named(name, &inputs, &outputs)?;
        model.set_values(self.weights);
        Ok(model)
    }

    fn initialize(&mut self, graph: &GraphProto, env: &mut Env) -> Result<(), Error> {
        for tensor in &graph.initializer {
            let name = tensor.name.clone();
            let constant = Constant::of(tensor.clone())?.into_parameter();
            define(env, &name, Entry::Known(constant))?;
        }
        Ok(())
    }

    fn input(&mut self, input: &Described) -> Tensor {
        let name = self.unique(&input.name, "input");
        let dims: Vec<usize> = input.axes.iter().map(|&axis| input.dims[axis]).collect();
        let shape = if input.batched { Shape::batched(1, &dims[1..]) } else { Shape::fixed(dims) };
        Input::with_shape(name, shape)
    }

    /// Returns a name for a layer that no other has: those of nodes have `/` between their parts, which Hubel's have not.
    fn unique(&mut self, name: &str, op: &str) -> String {
        let plain = name.trim_matches('/').replace('/', ".");
        let plain = if plain.is_empty() { crate::nn::names::snake_case(op) } else { plain };
        let mut unique = plain.clone();
        let mut count = 0;
        while !self.taken.insert(unique.clone()) {
            count += 1;
            unique = format!("{plain}_{count}");
        }
        unique
    }

    /// Returns an output of the model, images with channels last unless the options want the file's order.
    fn output(&mut self, name: &str, env: &Env, inputs: &[Tensor]) -> Result<Tensor, Error> {
        let Some(entry) = env.get(name) else { return Err(unknown(name, "the model's outputs").into()) };
        let keeps = |axes: &[usize]| {
            self.options.data_format == DataFormat::ChannelsLast && axes.len() == 4 && axes == channels_last(4)
        };
        if let Entry::Tensor { tensor, axes, flat, .. } = entry
            && tensor.node.layer.is_some()
            && ((flat.is_none() && axes.is_sorted()) || keeps(axes))
        {
            return Ok(tensor.clone());
        }
        // Inputs, constants and what is stored in another order pass through a layer.
        let slots = match entry {
            Entry::Tensor { axes, elem, flat, .. } => {
                vec![Slot::Input { at: 0, axes: axes.clone(), elem: *elem, flat: flat.clone() }]
            }
            Entry::Known(constant) => vec![Slot::Const(constant.clone())],
        };
        let from = match entry {
            Entry::Tensor { tensor, .. } => vec![tensor.clone()],
            Entry::Known(_) => inputs.iter().take(1).cloned().collect(),
        };
        let build: Build = if matches!(entry, Entry::Tensor { axes, .. } if keeps(axes)) { stored } else { natural };
        let spec = Spec {
            op: "Identity",
            name: self.unique(&format!("output.{name}"), "output"),
            attributes: Vec::new(),
            opset: self.opset,
            outputs: vec![true],
        };
        Ok(self.layer((spec, build), slots, &from)?.0.swap_remove(0))
    }

    fn walk(&mut self, nodes: &[NodeProto], env: &mut Env) -> Result<(), Error> {
        let used: HashSet<&str> = nodes.iter().flat_map(|n| n.input.iter().map(String::as_str)).collect();
        for node in nodes {
            self.nodes += 1;
            if self.nodes > MAX_NODES {
                let wanted = format!("at most {MAX_NODES} nodes");
                return Err(FormatError::new(Flaw::TooLarge, "the graph", wanted, "more").into());
            }
            self.budget.take("a node", LAYER_BYTES)?;
            let function = self.functions.get(&(node.domain.clone(), node.op_type.clone()));
            let results = match (function, node.op_type.as_str()) {
                (Some(function), _) => self.function(function, node, env)?,
                (None, "If") => self.branch(node, env)?,
                (None, "Loop") => self.repeat(node, env)?,
                (None, _) => self.node(node, env, &used)?,
            };
            for (name, entry) in node.output.iter().zip(results) {
                if !name.is_empty() {
                    define(env, name, entry)?;
                }
            }
        }
        Ok(())
    }

    fn operands(&self, node: &NodeProto, env: &Env) -> Result<Vec<Option<Entry>>, Error> {
        let find = |name: &String| match (name.is_empty(), env.get(name)) {
            (true, _) => Ok(None),
            (false, Some(entry)) => Ok(Some(entry.clone())),
            (false, None) => Err(unknown(name, &format!("the node `{}`", node.name)).into()),
        };
        node.input.iter().map(find).collect()
    }

    fn spec(&self, node: &NodeProto, op: &'static str, used: &HashSet<&str>) -> Spec {
        let plain = |a: &AttributeProto| {
            let copy = |s: &prost::bytes::Bytes| prost::bytes::Bytes::copy_from_slice(s);
            let strings = a.strings.iter().map(copy).collect();
            AttributeProto { s: copy(&a.s), strings, t: None, g: None, ..a.clone() }
        };
        let outputs =
            node.output.iter().map(|o| !o.is_empty() && (used.contains(o.as_str()) || self.asks(o))).collect();
        let attributes = node.attribute.iter().map(plain).collect();
        Spec { op, name: node.name.clone(), attributes, opset: self.opset, outputs }
    }

    /// Returns whether the model may end at this value.
    fn asks(&self, name: &str) -> bool {
        self.options.outputs.iter().any(|o| o == name)
    }

    fn node(&mut self, node: &NodeProto, env: &Env, used: &HashSet<&str>) -> Result<Vec<Entry>, Error> {
        let operands = self.operands(node, env)?;
        let error = |e: OpError| LayerError {
            layer: node.name.clone(),
            kind: node.op_type.clone(),
            wanted: e.wanted,
            got: e.got,
            advice: e.advice,
        };
        if let Some(know) = known::find(&node.op_type) {
            if let Some(tensor) = node.attribute.iter().find(|a| a.name == "value").and_then(|a| a.t.as_deref())
                && node.op_type == "Constant"
            {
                return Ok(vec![Entry::Known(Constant::of(TensorProto {
                    name: node.name.clone(),
                    ..tensor.clone()
                })?)]);
            }
            let op = known::OPERATORS.iter().find(|(name, _)| *name == node.op_type).map_or("Constant", |o| o.0);
            let spec = self.spec(node, op, used);
            let found = know(&spec, &self.known_operands(node, &operands)?).map_err(error)?;
            return Ok(found.into_iter().map(Entry::Known).collect());
        }
        let Some((op, build)) = ops::find(&node.op_type) else {
            return Err(refused(&node.name, &node.op_type, "a known operator", "another", "export it again").into());
        };
        let mut spec = self.spec(node, op, used);
        let operands: Vec<Option<Entry>> = operands.into_iter().enumerate().map(|(i, e)| early(&spec, i, e)).collect();
        let known: Option<Vec<Constant>> = (operands.iter().flatten())
            .map(|e| match e {
                Entry::Known(constant) => Some(constant.clone()),
                Entry::Tensor { .. } => None,
            })
            .collect();
        let (mut slots, from) = slots(&operands);
        let empty = empty_parts(&spec, &mut slots);
        if let Some(known) = known.filter(|k| !k.is_empty()) {
            let all: Vec<Option<Constant>> = slots.iter().map(constant_of).collect();
            if let Some(list) = known::of_list(&spec, &all) {
                return Ok(vec![Entry::Known(list)]);
            }
            self.draw(&spec, &known)?;
            let found = node::computed(&spec, build, &slots).map_err(error)?;
            for constant in &found {
                self.budget.take("a constant", 8 * constant.count() as u64)?;
            }
            return Ok(found.into_iter().map(Entry::Known).collect());
        }
        spec.name = self.unique(&node.name, op);
        let (tensors, layer) = self.layer((spec, build), slots, &from)?;
        let entry = |(tensor, (axes, elem, flat))| Entry::Tensor { tensor, axes, elem, flat };
        let mut entries: Vec<Entry> = tensors.into_iter().zip(layer.results()).map(entry).collect();
        // Nothing but a Concat can take a part without elements.
        empty.into_iter().for_each(|at| entries.insert(at.min(entries.len()), Entry::Known(Constant::ints([]))));
        Ok(entries)
    }

    /// Refuses work at reading time that belongs to the device.
    fn draw(&self, spec: &Spec, operands: &[Constant]) -> Result<(), Error> {
        if !known::is_cheap(spec, operands) {
            let (wanted, advice) = ("an operand that is computed", "simplify the model before its export");
            return Err(refused(&spec.name, spec.op, wanted, "large constants alone", advice).into());
        }
        let elements: usize = operands.iter().map(Constant::count).sum();
        Ok(self.budget.work("a constant", elements as u64)?)
    }

    /// Returns operands for what is known of shapes: of a tensor only its extents.
    fn known_operands(&self, node: &NodeProto, operands: &[Option<Entry>]) -> Result<Vec<Option<Constant>>, Error> {
        let mut all = Vec::new();
        for (i, operand) in operands.iter().enumerate() {
            all.push(match operand {
                Some(Entry::Known(constant)) => Some(constant.clone()),
                Some(Entry::Tensor { tensor, axes, elem, .. }) => {
                    let of_shape = matches!(node.op_type.as_str(), "Shape" | "Size" | "EyeLike") && i == 0;
                    let stored = tensor.shape().dims();
                    let place = |axis: usize| axes.iter().position(|&a| a == axis).unwrap_or(axis);
                    let dims = (0..axes.len()).map(|axis| stored[place(axis)]).collect();
                    of_shape.then(|| Constant::fill(dims, *elem, 0.0))
                }
                None => {
                    let tensor = node.attribute.iter().find(|a| a.name == "value").and_then(|a| a.t.as_deref());
                    tensor.map(|t| Constant::of(t.clone())).transpose()?
                }
            });
        }
        // `ConstantOfShape` has its number as an attribute.
        if node.op_type == "ConstantOfShape" && all.len() == 1 {
            let tensor = node.attribute.iter().find(|a| a.name == "value").and_then(|a| a.t.as_deref());
            all.push(tensor.map(|t| Constant::of(t.clone())).transpose()?);
        }
        Ok(all)
    }

    fn layer(
        &mut self,
        (spec, build): (Spec, Build),
        slots: Vec<Slot>,
        from: &[Tensor],
    ) -> Result<(Vec<Tensor>, Arc<Node>), Error> {
        let name = spec.name.clone();
        let node = Arc::new(Node::new(spec, build, slots));
        let layer: Arc<dyn Layer> = node.clone();
        let tensors = call_all((&layer).into_layer(), from)?;
        let weights = node.take_weights();
        for (_, value) in &weights {
            self.budget.take("a weight", value.bytes().len() as u64)?;
        }
        self.weights.extend(weights.into_iter().map(|(weight, value)| (format!("{name}/{weight}"), value)));
        Ok((tensors, node))
    }

    /// Builds the branch that a known condition chooses.
    fn branch(&mut self, node: &NodeProto, env: &mut Env) -> Result<Vec<Entry>, Error> {
        let condition = self.operands(node, env)?;
        let Some(Some(Entry::Known(condition))) = condition.first() else {
            let advice = "bind the sizes that it depends on with `OnnxOptions::dim`";
            return Err(refused(&node.name, "If", "a condition that is known", "a computed one", advice).into());
        };
        let name = if condition.scalar().is_some_and(|v| v != 0.0) { "then_branch" } else { "else_branch" };
        let Some(graph) = body(node, name) else {
            return Err(refused(&node.name, "If", &format!("a {name}"), "none", "export the model again").into());
        };
        let mut inner = env.clone();
        self.initialize_again(graph, &mut inner)?;
        self.walk_again(&graph.node, &mut inner)?;
        results(graph, &inner)
    }

    /// Builds a body as often as a known count says.
    fn repeat(&mut self, node: &NodeProto, env: &mut Env) -> Result<Vec<Entry>, Error> {
        let operands = self.operands(node, env)?;
        let known = |i: usize| match operands.get(i) {
            Some(Some(Entry::Known(constant))) => Some(constant.scalar()),
            Some(Some(Entry::Tensor { .. })) => None,
            _ => Some(None),
        };
        let (count, condition, graph) = (known(0), known(1), body(node, "body"));
        let refuse = |wanted: &str, got: &str| {
            Err(refused(&node.name, "Loop", wanted, got, "export the model without the loop").into())
        };
        let (Some(Some(count)), Some(condition), Some(graph)) = (count, condition, graph) else {
            return refuse("a number of rounds that is known", "a computed one");
        };
        if !(0.0..=4096.0).contains(&count) {
            return refuse("0 to 4096 rounds", &count.to_string());
        }
        let mut carried: Vec<Option<Entry>> = operands.into_iter().skip(2).collect();
        let n_carried = carried.len();
        if graph.output.len() <= n_carried || graph.input.len() != n_carried + 2 {
            return refuse("a body that gives what it takes", &format!("{} results", graph.output.len()));
        }
        // What each round gives beside it is known before the model runs.
        let mut each: Vec<Vec<Constant>> = vec![Vec::new(); graph.output.len() - 1 - n_carried];
        let mut goes_on = condition.is_none_or(|v| v != 0.0);
        for round in 0..count as i64 {
            if !goes_on {
                break;
            }
            let mut inner = env.clone();
            let number = Constant::ints([round]).reshaped(Vec::new());
            let truth = Constant::numbers(Vec::new(), super::constant::BOOL, vec![1.0]);
            let first = [Some(Entry::Known(number)), Some(Entry::Known(truth))];
            for (value, entry) in graph.input.iter().zip(first.into_iter().chain(carried.clone())) {
                entry.map(|e| inner.insert(value.name.clone(), e));
            }
            self.initialize_again(graph, &mut inner)?;
            self.walk_again(&graph.node, &mut inner)?;
            let mut found = results(graph, &inner)?;
            match found.remove(0) {
                Entry::Known(constant) => goes_on = constant.scalar().is_some_and(|v| v != 0.0),
                Entry::Tensor { .. } => return refuse("a condition that is known", "a computed one"),
            }
            for (all, entry) in each.iter_mut().zip(found.split_off(n_carried)) {
                match entry {
                    Entry::Known(constant) => all.push(constant),
                    Entry::Tensor { .. } => return refuse("results of each round that are known", "computed ones"),
                }
            }
            carried = found.into_iter().map(Some).collect();
        }
        let each = each.iter().map(|all| Ok(Entry::Known(Constant::stack(all)?)));
        let each: Vec<Entry> = each.collect::<Result<_, OpError>>()?;
        Ok(carried.into_iter().flatten().chain(each).collect())
    }

    /// Builds the nodes of a function of the file.
    fn function(&mut self, function: &FunctionProto, node: &NodeProto, env: &Env) -> Result<Vec<Entry>, Error> {
        let operands = self.operands(node, env)?;
        let mut inner = Env::new();
        for (name, entry) in function.input.iter().zip(operands) {
            entry.map(|e| inner.insert(name.clone(), e));
        }
        let given = |name: &str| {
            let own = node.attribute.iter().find(|a| a.name == name);
            own.or_else(|| function.attribute.iter().find(|a| a.name == name))
        };
        let bound = |a: &AttributeProto| match a.ref_attr_name.is_empty() {
            true => Some(a.clone()),
            false => given(&a.ref_attr_name).map(|v| AttributeProto { name: a.name.clone(), ..v.clone() }),
        };
        let mut nodes = function.node.clone();
        for inner in &mut nodes {
            inner.attribute = inner.attribute.iter().filter_map(bound).collect();
            let calls_itself = inner.domain == function.domain && inner.op_type == function.name;
            if calls_itself {
                return Err(refused(&node.name, &function.name, "a function without cycles", "one", "").into());
            }
        }
        self.walk_again(&nodes, &mut inner)?;
        let find = |name: &String| inner.get(name).cloned().ok_or_else(|| unknown(name, &function.name).into());
        function.output.iter().map(find).collect()
    }

    /// Walks nodes whose values may be defined again.
    fn walk_again(&mut self, nodes: &[NodeProto], env: &mut Env) -> Result<(), Error> {
        for name in nodes.iter().flat_map(|n| &n.output) {
            env.remove(name);
        }
        self.walk(nodes, env)
    }

    fn initialize_again(&mut self, graph: &GraphProto, env: &mut Env) -> Result<(), Error> {
        for tensor in &graph.initializer {
            env.remove(&tensor.name);
        }
        self.initialize(graph, env)
    }
}

fn body<'n>(node: &'n NodeProto, name: &str) -> Option<&'n GraphProto> {
    node.attribute.iter().find(|a| a.name == name)?.g.as_deref()
}

fn results(graph: &GraphProto, env: &Env) -> Result<Vec<Entry>, Error> {
    let find = |name: &String| env.get(name).cloned().ok_or_else(|| unknown(name, "a graph's outputs").into());
    graph.output.iter().map(|o| find(&o.name)).collect()
}

fn define(env: &mut Env, name: &str, entry: Entry) -> Result<(), FormatError> {
    match env.insert(name.to_owned(), entry) {
        None => Ok(()),
        Some(_) => {
            Err(FormatError::new(Flaw::Duplicate, "the graph", "one value of each name", format!("two `{name}`")))
        }
    }
}

fn unknown(name: &str, of: &str) -> FormatError {
    let advice = "export the model again; its nodes must be in order";
    FormatError::new(Flaw::Missing, of, format!("the value `{name}` before it"), "none").advise(advice)
}

/// Returns the operands as a layer's, and the tensors among them.
fn slots(operands: &[Option<Entry>]) -> (Vec<Slot>, Vec<Tensor>) {
    let mut from: Vec<Tensor> = Vec::new();
    let mut slots: Vec<Slot> = Vec::new();
    for operand in operands {
        slots.push(match operand {
            None => Slot::Absent,
            Some(Entry::Known(constant)) => Slot::Const(constant.clone()),
            Some(Entry::Tensor { tensor, axes, elem, flat }) => {
                let same = |t: &Tensor| Arc::ptr_eq(&t.node, &tensor.node) && t.output == tensor.output;
                let at = from.iter().position(same).unwrap_or(from.len());
                if at == from.len() {
                    from.push(tensor.clone());
                }
                Slot::Input { at, axes: axes.clone(), elem: *elem, flat: flat.clone() }
            }
        });
    }
    while matches!(slots.last(), Some(Slot::Absent)) {
        slots.pop();
    }
    (slots, from)
}

fn constant_of(slot: &Slot) -> Option<Constant> {
    match slot {
        Slot::Const(constant) => Some(constant.clone()),
        _ => None,
    }
}

/// Takes the parts without elements from the sizes of a `Split`, and returns where they are.
fn empty_parts(spec: &Spec, slots: &mut [Slot]) -> Vec<usize> {
    let Some(Slot::Const(sizes)) = slots.get_mut(1).filter(|_| spec.op == "Split") else { return Vec::new() };
    let all = sizes.to_ints().unwrap_or_default();
    let empty: Vec<usize> = (0..all.len()).filter(|&i| all[i] == 0).collect();
    if !empty.is_empty() && empty.len() < all.len() {
        *sizes = Constant::ints(all.into_iter().filter(|&s| s != 0));
        return empty;
    }
    Vec::new()
}

/// Returns an operand with the axes that broadcasting up to opset 6 gives it: those from `axis` on.
fn early(spec: &Spec, i: usize, entry: Option<Entry>) -> Option<Entry> {
    const BROADCASTING: [&str; 10] = ["Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub"];
    match entry {
        Some(Entry::Known(constant))
            if spec.opset < 7 && i == 1 && spec.has("axis") && BROADCASTING.contains(&spec.op) =>
        {
            let mut dims = constant.dims.clone();
            // The first operand has at most four axes in such files: channels are axis 1.
            let behind = if spec.int("axis", 0) == 1 && dims.len() == 1 { 2 } else { 0 };
            dims.extend(vec![1; behind]);
            Some(Entry::Known(constant.reshaped(dims)))
        }
        other => other,
    }
}

/// Returns the only operand in ONNX's order.
fn natural(c: &mut super::call::Call) -> Result<Vec<super::call::T>, OpError> {
    Ok(vec![c.natural(0)?])
}

/// Returns the only operand as it is stored.
fn stored(c: &mut super::call::Call) -> Result<Vec<super::call::T>, OpError> {
    Ok(vec![c.t(0)?])
}
