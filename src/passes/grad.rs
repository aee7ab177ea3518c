//! Reverse-mode differentiation: graph in, the same graph with gradient nodes appended.

use crate::graph::{Graph, OpError, Value};
use std::collections::HashMap;

impl Graph {
    /// Returns the gradient of the scalar `loss` with respect to each value of `wrt`; zeros without a path.
    ///
    /// An operation on the path that has no gradient is an error, which names it.
    pub fn gradients(&mut self, loss: Value, wrt: &[Value]) -> Result<Vec<Value>, OpError> {
        if self.shape(loss).rank() != 0 {
            let advice = "reduce it with `mean` or `sum`";
            return Err(OpError {
                node: self.node(loss).name.clone(),
                ..OpError::new("gradients", "a loss of shape ()", self.shape(loss), advice)
            });
        }
        let last = loss.node as usize;
        let mut depends = vec![false; last + 1];
        for value in wrt {
            if let Some(d) = depends.get_mut(value.node as usize) {
                *d = true;
            }
        }
        for i in 0..=last {
            depends[i] |= self.nodes()[i].inputs.iter().any(|v| depends[v.node as usize]);
        }
        let mut grads: HashMap<Value, Value> = HashMap::new();
        let one = self.constant(1.0)?;
        grads.insert(loss, one);
        for i in (0..=last).rev() {
            let node = self.nodes()[i].clone();
            let Some(op) = node.op().filter(|_| depends[i]) else { continue };
            let outputs: Vec<Value> =
                (0..node.outputs.len() as u32).map(|output| Value { node: i as u32, output }).collect();
            let dy: Vec<Option<Value>> = outputs.iter().map(|v| grads.get(v).copied()).collect();
            if dy.iter().all(Option::is_none) {
                continue;
            }
            let partial = self
                .scoped(&format!("grad/{}", node.name), |g| op.vjp(g, &node.inputs, &outputs, &dy))
                .map_err(|e| if e.node.is_empty() { OpError { node: node.name.clone(), ..e } } else { e })?;
            for (&input, d) in node.inputs.iter().zip(partial) {
                let Some(d) = d.filter(|_| depends[input.node as usize]) else { continue };
                let sum = match grads.get(&input) {
                    None => d,
                    Some(&other) => self.add(other, d)?,
                };
                grads.insert(input, sum);
            }
        }
        wrt.iter()
            .map(|&v| match grads.get(&v) {
                Some(&d) => Ok(d),
                None => {
                    let shape = self.shape(v).clone();
                    let zero = self.constant(0.0)?;
                    self.expand(zero, &shape)
                }
            })
            .collect()
    }
}
