//! The front of a model, up to one of its layers.

use super::{Call, Model, NamedLayer};
use crate::nn::LayerError;
use std::collections::HashMap;

impl Model {
    /// Returns the model up to the layer of this name, whose results are the new outputs; its weights keep their names and
    /// values. What the layer does not need goes: other layers, inputs, the names of the classes.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let whole = Sequential::new([8]).add(Dense::new(4).name("body")).add(Dense::new(2)).build()?;
    /// let mut base = whole.cut_at("body")?;
    /// base.set_all_trainable(false)?;
    /// let x = Input::new([8]);
    /// let y = x.apply(base)?.apply(Dense::new(3).name("head"))?;
    /// assert_eq!(Model::new(&[x], &[y])?.output_shape().to_string(), "(N, 3)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn cut_at(&self, layer: &str) -> Result<Model, LayerError> {
        let at = *self.by_name.get(layer).ok_or_else(|| self.unknown(layer))?;
        let Some(last) = self.calls.iter().rposition(|c| c.layer == at) else { return Err(self.unknown(layer)) };
        let mut needed = vec![false; self.calls.len()];
        let mut inputs = vec![false; self.inputs.len()];
        let mut stack = vec![last];
        while let Some(call) = stack.pop() {
            if std::mem::replace(&mut needed[call], true) {
                continue;
            }
            for &value in &self.calls[call].inputs {
                match self.maker(value) {
                    Some(before) => stack.push(before),
                    None => inputs[value] = true,
                }
            }
        }
        let mut cut = Model { calls: Vec::new(), layers: Vec::new(), outputs: Vec::new(), ..self.clone() };
        let kept = (0..self.inputs.len()).filter(|&i| inputs[i]);
        let mut values: HashMap<usize, usize> = kept.enumerate().map(|(new, old)| (old, new)).collect();
        cut.inputs =
            self.inputs.iter().zip(&inputs).filter(|(_, kept)| **kept).map(|(input, _)| input.clone()).collect();
        let (mut layers, mut next) = (HashMap::new(), cut.inputs.len());
        for (i, call) in self.calls.iter().enumerate().filter(|(i, _)| needed[*i]) {
            let end = self.calls.get(i + 1).map_or(self.types.len(), |c| c.outputs);
            let index = *layers.entry(call.layer).or_insert_with(|| {
                cut.layers.push(self.layers[call.layer].clone());
                cut.layers.len() - 1
            });
            let uses = cut.calls.iter().filter(|c: &&Call| c.layer == index).count();
            let from = call.inputs.iter().filter_map(|v| values.get(v).copied()).collect();
            cut.calls.push(Call { layer: index, at: uses, inputs: from, outputs: next });
            values.extend((call.outputs..end).zip(next..));
            next += end - call.outputs;
            if i == last {
                cut.outputs = (next + call.outputs - end..next).collect();
            }
        }
        let names = cut.layers.iter().enumerate().map(|(i, NamedLayer { name, .. })| (name.clone(), i));
        cut.by_name = names.collect();
        cut.values.retain(|name, _| name.split('/').next().is_some_and(|layer| cut.by_name.contains_key(layer)));
        cut.about.class_names.clear();
        cut.refresh()?;
        Ok(cut)
    }
}
