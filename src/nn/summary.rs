//! A model's layers and costs: Keras's `summary` with more columns.

use super::Weight;
use crate::{
    graph::{Field, Graph, TensorType, Value},
    tensor::Shape,
};
use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
};

/// One line of a summary.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Row {
    /// The layer's name.
    pub name: String,
    /// Its Keras type.
    pub kind: &'static str,
    /// Shape of its first output.
    pub output: Shape,
    /// Number of weights.
    pub params: usize,
    /// Multiply-adds of convolutions and matrix products for one sample.
    pub macs: u64,
    /// Bytes of all its outputs for one sample.
    pub activation_bytes: u64,
    /// Height and width of the receptive field of an output pixel; `None` if it is the whole input.
    pub receptive_field: Option<[usize; 2]>,
    /// The layers that its inputs come from.
    pub inputs: Vec<String>,
}

/// A model's layers, shapes, costs and parameter counts.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Summary {
    /// The model's name.
    pub name: String,
    /// One row for each layer, and for each input of a model that is not a chain.
    pub rows: Vec<Row>,
    /// Number of trainable weights.
    pub trainable: usize,
    /// Number of other weights.
    pub non_trainable: usize,
}

/// Layers of ONNX files that count in whole numbers of few bits there.
const QUANTISED: [&str; 7] = [
    "ConvInteger",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "MatMulInteger",
    "QLinearConv",
    "QLinearMatMul",
    "QuantizeLinear",
];

/// A value's receptive field: extent along height and width, and the stride between neighbours; `None` is the whole
/// input.
type Sight = Option<[[f64; 2]; 2]>;

/// Returns the receptive field of each value of a graph.
fn sights(graph: &Graph) -> HashMap<Value, Sight> {
    let mut sights: HashMap<Value, Sight> = HashMap::new();
    for (i, node) in graph.nodes().iter().enumerate() {
        let mut sight: Sight = Some([[1.0; 2]; 2]);
        for input in &node.inputs {
            // Weights do not depend on the image.
            if !graph.shape(*input).is_batched() {
                continue;
            }
            let theirs = sights.get(input).copied().flatten();
            sight = match (sight, theirs) {
                (Some(a), Some(b)) => Some([0, 1].map(|k| [0, 1].map(|axis: usize| f64::max(a[k][axis], b[k][axis])))),
                _ => None,
            };
            if graph.shape(*input).rank() > 2 && node.outputs.iter().any(|t| t.shape.rank() <= 2) {
                sight = None;
            }
        }
        let field = node.op().map_or(Field::Point, |op| op.field(&graph.io(node)));
        sight = match (sight, field) {
            (None, _) | (_, Field::Whole) => None,
            (own, Field::Point) => own,
            (Some([see, apart]), Field::Window { extent, strides }) => Some([
                [0, 1].map(|k| see[k] + (extent[k] - 1) as f64 * apart[k]),
                [0, 1].map(|k| apart[k] * strides[k] as f64),
            ]),
            (Some([see, apart]), Field::Spread { extent, factor }) => Some([
                [0, 1].map(|k| see[k] + (extent[k] - 1) as f64 * apart[k]),
                [0, 1].map(|k| apart[k] / factor[k] as f64),
            ]),
        };
        for output in 0..node.outputs.len() as u32 {
            sights.insert(Value { node: i as u32, output }, sight);
        }
    }
    sights
}

/// Returns the rows of a model's uses of layers, given as (name, type, sources of its inputs, number of nodes in the
/// graph after it, results).
pub(super) fn rows(
    graph: &Graph,
    inputs: &[Value],
    named: &[(String, TensorType)],
    calls: Vec<(&str, &'static str, Vec<String>, usize, &[Value])>,
    weights: &[Weight],
) -> Vec<Row> {
    let sights = sights(graph);
    let one = |ty: &TensorType| ty.bytes(1);
    let mut rows: Vec<Row> = Vec::new();
    let mut last = named.first().filter(|_| named.len() == 1).map(|n| n.0.as_str());
    let chain = calls.iter().all(|(name, _, from, ..)| {
        let follows = from.len() == 1 && last == Some(from[0].as_str());
        last = Some(name);
        follows
    });
    if !chain {
        rows.extend(named.iter().map(|(name, ty)| Row {
            name: name.clone(),
            kind: "InputLayer",
            output: ty.shape.clone(),
            params: 0,
            macs: 0,
            activation_bytes: one(ty),
            receptive_field: Some([1, 1]),
            inputs: Vec::new(),
        }));
    }
    let mut counts: Vec<(&str, usize)> = weights.iter().map(|w| (w.name.as_str(), w.count())).collect();
    counts.sort_unstable();
    let mut indices: HashMap<&str, usize> = HashMap::new();
    let mut start = inputs.len();
    for (name, kind, from, end, values) in calls {
        let macs = (graph.nodes()[start..end].iter())
            .filter_map(|n| Some(n.op()?.macs(&graph.io(n)).at(1)))
            .fold(0, u64::saturating_add);
        let activation_bytes = values.iter().map(|&v| one(graph.ty(v))).sum();
        start = end;
        match indices.entry(name) {
            Entry::Occupied(index) => {
                let row = &mut rows[*index.get()];
                row.macs = macs.saturating_add(row.macs);
                row.activation_bytes += activation_bytes;
                row.inputs.extend(from);
                continue;
            }
            Entry::Vacant(index) => index.insert(rows.len()),
        };
        let below = format!("{name}/");
        let first = counts.partition_point(|w| w.0 < below.as_str());
        let sight = values.first().and_then(|v| sights.get(v).copied().flatten());
        rows.push(Row {
            name: name.to_owned(),
            kind,
            output: values.first().map_or_else(Shape::scalar, |&v| graph.shape(v).clone()),
            params: counts[first..].iter().take_while(|w| w.0.starts_with(&below)).map(|w| w.1).sum(),
            macs,
            activation_bytes,
            receptive_field: sight.map(|[see, _]| see.map(|s| s.round() as usize)),
            inputs: if chain { Vec::new() } else { from },
        });
    }
    rows
}

/// Returns a number with thousands separators.
fn grouped(n: u64) -> String {
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

impl Summary {
    /// Returns the multiply-adds of convolutions and matrix products for one sample.
    pub fn macs(&self) -> u64 {
        self.rows.iter().map(|r| r.macs).fold(0, u64::saturating_add)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut heads = vec!["Layer (type)", "Output Shape", "Param #", "MACs", "Bytes", "Sees"];
        let branched = self.rows.iter().any(|r| !r.inputs.is_empty());
        if branched {
            heads.push("Connected to");
        }
        let lines: Vec<Vec<String>> = (self.rows.iter())
            .map(|r| {
                let mut line = vec![
                    format!("{} ({})", r.name, r.kind),
                    r.output.to_string(),
                    grouped(r.params as u64),
                    grouped(r.macs),
                    grouped(r.activation_bytes),
                    r.receptive_field.map_or_else(|| "all".into(), |[h, w]| format!("{h}×{w}")),
                ];
                if branched {
                    line.push(r.inputs.join(", "));
                }
                line
            })
            .collect();
        let width = |k: usize| lines.iter().map(|l| l[k].chars().count()).chain([heads[k].chars().count()]).max();
        let widths: Vec<usize> = (0..heads.len()).map(|k| width(k).unwrap_or(0)).collect();
        let rule = |f: &mut fmt::Formatter<'_>, l: char, m: char, r: char| {
            let cells: Vec<String> = widths.iter().map(|w| "─".repeat(w + 2)).collect();
            writeln!(f, "{l}{}{r}", cells.join(&m.to_string()))
        };
        let text = |k: usize| !(2..=5).contains(&k);
        rule(f, '┌', '┬', '┐')?;
        for (i, line) in std::iter::once(heads.iter().map(ToString::to_string).collect()).chain(lines).enumerate() {
            for (k, cell) in line.iter().enumerate() {
                let w = widths[k];
                if text(k) { write!(f, "│ {cell:w$} ")? } else { write!(f, "│ {cell:>w$} ")? }
            }
            writeln!(f, "│")?;
            if i == 0 {
                rule(f, '├', '┼', '┤')?;
            }
        }
        rule(f, '└', '┴', '┘')?;
        writeln!(f, "Total params: {}", grouped((self.trainable + self.non_trainable) as u64))?;
        writeln!(f, "Trainable params: {}", grouped(self.trainable as u64))?;
        writeln!(f, "Non-trainable params: {}", grouped(self.non_trainable as u64))?;
        let quantised = self.rows.iter().filter(|r| QUANTISED.contains(&r.kind)).count();
        if quantised > 0 {
            writeln!(f, "Quantised layers, computed in f32: {quantised}")?;
        }
        write!(f, "MACs: {}", grouped(self.macs()))
    }
}
