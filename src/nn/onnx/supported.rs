//! Whether all operators of a file are read.

use super::ops::{self, known};
use crate::{
    io::onnx::messages::{FunctionProto, GraphProto, NodeProto},
    nn::{LayerError, names::refused},
};
use std::collections::{BTreeMap, HashMap};

/// Operators with graphs of their own, which are built in their place.
pub const CONTROL: [&str; 2] = ["If", "Loop"];

pub fn is_onnx(domain: &str) -> bool {
    matches!(domain, "" | "ai.onnx")
}

/// Returns an error that lists all operators that are not read, each with how often it occurs and some nodes.
pub fn supported(graph: &GraphProto, functions: &HashMap<(String, String), FunctionProto>) -> Result<(), LayerError> {
    let mut missing: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut graphs: Vec<&[NodeProto]> = vec![&graph.node];
    graphs.extend(functions.values().map(|f| &f.node[..]));
    while let Some(nodes) = graphs.pop() {
        for node in nodes {
            let own = functions.contains_key(&(node.domain.clone(), node.op_type.clone()));
            let op = node.op_type.as_str();
            let read = ops::find(op).is_some() || known::find(op).is_some() || CONTROL.contains(&op);
            if !(own || is_onnx(&node.domain) && read) {
                let domain = if is_onnx(&node.domain) { String::new() } else { format!("{}.", node.domain) };
                let name = node.output.first().filter(|_| node.name.is_empty()).unwrap_or(&node.name);
                missing.entry(format!("{domain}{op}")).or_default().push(name.clone());
            }
            graphs.extend(node.attribute.iter().filter_map(|a| a.g.as_ref()).map(|g| &g.node[..]));
        }
    }
    let Some((first, nodes)) = missing.iter().next() else { return Ok(()) };
    let line = |(op, nodes): (&String, &Vec<String>)| {
        let shown = nodes.iter().take(3).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
        format!("{op} × {} ({shown}{})", nodes.len(), if nodes.len() > 3 { ", …" } else { "" })
    };
    let got: Vec<String> = missing.iter().map(line).collect();
    let advice = "export the model without them, or take an output in front of them with `OnnxOptions::output`";
    let name = nodes.first().map_or("", String::as_str);
    Err(refused(name, first, "operators of `hubel::nn::onnx_operators`", got.join("; "), advice))
}
