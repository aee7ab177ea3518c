//! Common subexpressions, constants, identities: a smaller graph with the same numbers.

use crate::{
    graph::{Arg, Graph, Instr, Kind, Node, Program, Value},
    ops::Elementwise,
};
use std::{collections::HashMap, sync::Arc};

/// Returns the live part of a graph without repeated, constant and no-op nodes.
pub fn simplify(graph: &Graph) -> Graph {
    let mut seen: HashMap<(String, Vec<Value>), Vec<Value>> = HashMap::new();
    let mut constants: HashMap<Value, Arg> = HashMap::new();
    graph.rebuild(|out, _, mut node| {
        let Some(mut op) = node.op().cloned() else { return out.push_node(node) };
        // A reshaped scalar is the same scalar.
        if let (true, Some(&constant)) = (op.view(), node.inputs.first().and_then(|v| constants.get(v))) {
            let program = Program { n_inputs: 0, instrs: Vec::new(), result: constant };
            op = Arc::new(Elementwise::from(program));
            node.inputs.clear();
        }
        if op.view() && out.ty(node.inputs[0]) == &node.outputs[0] {
            return vec![node.inputs[0]];
        }
        if let Some(program) = op.pointwise() {
            let (inputs, program) = inline_constants(&node.inputs, program, &constants);
            if let (Arg::Input(i), true) = (program.result, program.instrs.is_empty())
                && out.ty(inputs[i]) == &node.outputs[0]
            {
                return vec![inputs[i]];
            }
            let shape = Some(node.outputs[0].shape.clone());
            node = Node { inputs, kind: Kind::Op(Arc::new(Elementwise { shape, ..program.into() })), ..node };
        } else if op.view() {
            // A view of a view is a view of the first.
            let source = out.node(node.inputs[0]);
            if source.op().is_some_and(|o| o.view()) {
                node.inputs = source.inputs.clone();
                if out.ty(node.inputs[0]) == &node.outputs[0] {
                    return vec![node.inputs[0]];
                }
            }
        }
        if let Some(kept) = node.op() {
            op = kept.clone();
        }
        if !op.in_place(node.inputs.len()).is_empty() {
            return out.push_node(node);
        }
        let key = (format!("{} {}", op.name(), op.key()), node.inputs.clone());
        if let Some(values) = seen.get(&key) {
            return values.clone();
        }
        let values = out.push_node(node);
        if let Some(program) = op.pointwise()
            && let (true, constant) = (program.instrs.is_empty(), program.result)
            && !matches!(constant, Arg::Input(_))
        {
            constants.insert(values[0], constant);
        }
        seen.insert(key, values.clone());
        values
    })
}

fn inline_constants(inputs: &[Value], program: &Program, constants: &HashMap<Value, Arg>) -> (Vec<Value>, Program) {
    let mut kept = Vec::new();
    let operands: Vec<Arg> = inputs
        .iter()
        .map(|v| {
            constants.get(v).copied().unwrap_or_else(|| {
                let at = kept.iter().position(|k| k == v).unwrap_or_else(|| {
                    kept.push(*v);
                    kept.len() - 1
                });
                Arg::Input(at)
            })
        })
        .collect();
    let mut instrs: Vec<Instr> = Vec::new();
    let mut results: Vec<Arg> = Vec::new();
    for instr in &program.instrs {
        let args: Vec<Arg> = instr
            .args
            .iter()
            .map(|&a| match a {
                Arg::Input(i) => operands[i],
                Arg::Instr(i) => results[i],
                other => other,
            })
            .collect();
        let number = |k: usize| match args.get(k) {
            Some(Arg::Const(c)) => Some(f64::from(*c)),
            None => Some(0.0),
            _ => None,
        };
        let folded = match (instr.f.name, number(0), number(1), number(2)) {
            (_, Some(a), Some(b), Some(c)) => Some(Arg::Const((instr.f.eval)(a, b, c) as f32)),
            ("mul", Some(1.0), ..) | ("add", Some(0.0), ..) => Some(args[1]),
            ("mul" | "div", _, Some(1.0), _) | ("add" | "sub", _, Some(0.0), _) => Some(args[0]),
            _ => None,
        };
        results.push(folded.unwrap_or_else(|| {
            instrs.push(Instr { f: instr.f, args });
            Arg::Instr(instrs.len() - 1)
        }));
    }
    let result = match program.result {
        Arg::Input(i) => operands[i],
        Arg::Instr(i) => results[i],
        other => other,
    };
    (kept.clone(), Program { n_inputs: kept.len(), instrs, result })
}
