//! In which order PyTorch keeps what a layer gets: channels come first there, and a map that is flattened keeps that order.
//!
//! The order is followed through a model's calls from its inputs on.

use super::{Layer, Model, layers::DataFormat, model::as_model};
use std::{collections::HashMap, fmt};

/// How the elements of a sample lie in PyTorch.
#[derive(Debug, Clone, PartialEq)]
enum Order {
    /// As here.
    Same,
    /// The last axis here is the first there.
    ChannelsFirst,
    /// For each element here, in order, its index in PyTorch's flattened map.
    At(Vec<u32>),
    /// Unknown since this layer.
    Unknown(String),
}

/// What a layer gets: the extents of a sample and their order in PyTorch.
#[derive(Debug, Clone)]
pub(super) struct Input {
    dims: Vec<usize>,
    order: Order,
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.order {
            Order::Unknown(layer) => write!(f, "a path through `{layer}`"),
            _ => write!(f, "features of {:?}", self.dims),
        }
    }
}

impl Input {
    /// Returns the index in PyTorch of each feature, of the last axis; `None` if they are in the same order.
    pub fn order(&self) -> Result<Option<Vec<u32>>, ()> {
        let features = self.dims.last().copied().unwrap_or(1).max(1);
        match &self.order {
            Order::Unknown(_) => Err(()),
            Order::Same | Order::ChannelsFirst => Ok(None),
            Order::At(at) if self.dims.len() == 1 => Ok(Some(at.clone())),
            // Several vectors of features: each must be evenly spaced there.
            Order::At(at) => {
                let even = |row: &[u32]| row.windows(2).all(|w| w[1].checked_sub(w[0]) == at[1].checked_sub(at[0]));
                let rises = features == 1 || at[1] > at[0];
                if rises && at.chunks(features).all(even) { Ok(None) } else { Err(()) }
            }
        }
    }

    /// Returns the index in PyTorch's flattened sample of each element here.
    fn at(&self) -> Option<Vec<u32>> {
        let n: usize = self.dims.iter().product();
        match &self.order {
            Order::Unknown(_) => None,
            Order::At(at) => Some(at.clone()),
            Order::Same => Some((0..n as u32).collect()),
            Order::ChannelsFirst => {
                let channels = self.dims.last().copied().unwrap_or(1).max(1);
                let positions = n / channels;
                Some((0..n).map(|i| (i % channels * positions + i / channels) as u32).collect())
            }
        }
    }

    /// Returns whether at most one axis has more than one element, which is the last.
    fn is_vector(&self) -> bool {
        self.dims.iter().rev().skip(1).all(|&d| d == 1)
    }
}

/// Returns what each layer of a model gets on its first use, by path.
pub(super) fn orders(model: &Model) -> HashMap<String, Input> {
    let mut found = HashMap::new();
    let inputs = model.inputs().iter().map(|(_, ty)| {
        let dims = ty.shape.dims()[1..].to_vec();
        // Images have channels in front; sequences have not, as in PyTorch with `batch_first`.
        let order = if dims.len() == 3 { Order::ChannelsFirst } else { Order::Same };
        Input { dims, order }
    });
    walk(model, "", inputs.collect(), &mut found);
    found
}

fn walk(model: &Model, prefix: &str, inputs: Vec<Input>, found: &mut HashMap<String, Input>) -> Vec<Input> {
    let mut values = inputs;
    for (name, layer, from, first) in model.steps() {
        let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
        let given: Vec<Input> = from.iter().map(|&v| values[v].clone()).collect();
        if let Some(inner) = as_model(&**layer) {
            values.extend(walk(inner, &path, given, found));
            continue;
        }
        if let Some(input) = given.first() {
            let wrapped = layer.wrapped().map(|(inner, _)| (format!("{path}/{inner}"), of_steps(input, &path)));
            let (path, input) = wrapped.unwrap_or_else(|| (path.clone(), input.clone()));
            found.entry(path).or_insert(input);
        }
        let next = (model.steps().map(|step| step.3)).find(|&n| n > first).unwrap_or(model.types().len());
        for ty in &model.types()[first..next] {
            let dims = ty.shape.dims()[1..].to_vec();
            let order = after(&**layer, &path, &given, &dims);
            values.push(Input { dims, order });
        }
    }
    model.output_numbers().iter().map(|&v| values[v].clone()).collect()
}

/// Returns what a layer gets that is applied to each timestep.
fn of_steps(input: &Input, path: &str) -> Input {
    let dims = input.dims.get(1..).unwrap_or_default().to_vec();
    let order = match &input.order {
        Order::At(_) => Order::Unknown(path.to_owned()),
        other => other.clone(),
    };
    Input { dims, order }
}

/// Returns the order of a layer's result.
fn after(layer: &dyn Layer, path: &str, inputs: &[Input], dims: &[usize]) -> Order {
    let unknown = || Order::Unknown(path.to_owned());
    let Some(x) = inputs.first() else { return unknown() };
    let config = layer.config();
    let last = config["data_format"] != serde_json::json!(DataFormat::ChannelsFirst);
    let kind = layer.kind();
    let of_maps = ["Conv", "SeparableConv", "DepthwiseConv", "MaxPooling", "AveragePooling", "LpPooling", "Global"];
    let of_sizes = ["UpSampling", "ZeroPadding", "Cropping", "Resizing", "CenterCrop", "LocalResponse"];
    if of_maps.iter().chain(&of_sizes).any(|prefix| kind.starts_with(prefix)) {
        return if last && dims.len() > 1 { Order::ChannelsFirst } else { Order::Same };
    }
    match kind {
        "Flatten" | "Reshape" => match (&x.order, kind == "Flatten" && !last) {
            (Order::Unknown(_), _) => x.order.clone(),
            (Order::Same, false) => Order::Same,
            (_, false) => x.at().map_or_else(unknown, Order::At),
            // Flatten moves the channels behind the rest.
            (_, true) => x.at().map_or_else(unknown, |at| {
                let (channels, n) = (x.dims.first().copied().unwrap_or(1).max(1), at.len());
                Order::At((0..n).map(|i| at[i % channels * (n / channels) + i / channels]).collect())
            }),
        },
        "Permute" => match (&x.order, x.at()) {
            (Order::Same, _) => Order::Same,
            (_, Some(at)) => permuted(&at, &x.dims, &config["dims"]).map_or_else(unknown, Order::At),
            (_, None) => x.order.clone(),
        },
        "Concatenate" => concatenated(inputs, dims).unwrap_or_else(unknown),
        "Dense" | "Embedding" | "LSTM" | "GRU" | "SimpleRNN" | "Bidirectional" | "RepeatVector" => Order::Same,
        "TimeDistributed" => match layer.wrapped() {
            Some((_, inner)) => after(&**inner, path, &[of_steps(x, path)], dims.get(1..).unwrap_or_default()),
            None => unknown(),
        },
        // Elementwise: all inputs are in one order, but for vectors that are repeated.
        _ if x.dims == dims || inputs.len() > 1 => {
            let mut orders = inputs.iter().filter(|i| !i.is_vector() || i.dims == dims).map(|i| &i.order);
            match orders.next() {
                Some(first) if orders.all(|order| order == first) => first.clone(),
                None => Order::Same,
                Some(_) => unknown(),
            }
        }
        _ => unknown(),
    }
}

/// Returns indices with a sample's axes permuted as `Permute` does.
fn permuted(at: &[u32], dims: &[usize], order: &serde_json::Value) -> Option<Vec<u32>> {
    let order: Option<Vec<usize>> = order.as_array()?.iter().map(|n| (n.as_u64()? as usize).checked_sub(1)).collect();
    let strides = crate::tensor::strides(dims);
    let (shape, strides): (Vec<usize>, Vec<usize>) = order?.into_iter().map(|a| (dims[a], strides[a])).unzip();
    let own = crate::tensor::strides(&shape);
    let index = |i: usize| (0..shape.len()).map(|a| i / own[a] % shape[a] * strides[a]).sum::<usize>();
    Some((0..at.len()).map(|i| at[index(i)]).collect())
}

/// Returns the order of maps joined by channels, or of flattened ones one behind the other.
fn concatenated(inputs: &[Input], dims: &[usize]) -> Option<Order> {
    if inputs.iter().all(|i| i.order == inputs[0].order) && !matches!(inputs[0].order, Order::At(_)) {
        return Some(inputs[0].order.clone());
    }
    if dims.len() != 1 {
        return None;
    }
    let (mut all, mut before) = (Vec::new(), 0);
    for input in inputs {
        all.extend(input.at()?.into_iter().map(|at| at + before));
        before += input.dims.iter().product::<usize>() as u32;
    }
    Some(Order::At(all))
}
