//! Ranges that the plan does not choose: states in their stores, and buffers of the caller.

use super::{
    error::PlanError,
    plan_types::{BufferRange, BufferRef, Entry},
    scheduled::Scheduled,
};
use crate::graph::{Kind, Value};
use std::collections::HashMap;

/// Returns the ranges of states, external inputs and external outputs.
pub(super) fn fixed_ranges(s: &Scheduled) -> Result<HashMap<Value, BufferRange>, PlanError> {
    let options = s.options;
    let entries = options.layouts.iter().map(|l| l.entries.iter().map(|e| (e.name.as_str(), e)));
    let stores: Vec<HashMap<&str, &Entry>> = entries.map(Iterator::collect).collect();
    let mut fixed = HashMap::new();
    for &i in &s.order {
        let node = s.node(i);
        let value = Value { node: i as u32, output: 0 };
        let range = match &node.kind {
            Kind::Op(_) => continue,
            Kind::Input => match options.external_inputs.iter().position(|n| *n == node.name) {
                None => continue,
                Some(k) => BufferRange { buffer: BufferRef::External(k), offset: 0, bytes: s.bytes(value) },
            },
            Kind::State { .. } => {
                let ty = &node.outputs[0];
                let found = stores.iter().enumerate().find_map(|(store, l)| {
                    let entry = l.get(node.name.as_str()).filter(|e| e.ty == *ty)?;
                    let buffer = BufferRef::Store { store, chunk: entry.chunk };
                    Some(BufferRange { buffer, offset: entry.offset, bytes: entry.bytes })
                });
                found.ok_or_else(|| PlanError::UnknownState { name: node.name.clone(), ty: ty.clone() })?
            }
        };
        fixed.insert(value, range);
    }
    for (name, value) in s.graph.outputs() {
        if let Some(k) = options.external_outputs.iter().position(|n| n == name) {
            let buffer = BufferRef::External(options.external_inputs.len() + k);
            fixed.insert(*value, BufferRange { buffer, offset: 0, bytes: s.bytes(*value) });
        }
    }
    for &(state, value) in s.graph.updates() {
        if s.root(value) != s.root(state) {
            return Err(PlanError::Update { name: s.graph.node(state).name.clone() });
        }
    }
    Ok(fixed)
}
