use super::{Activation, Single, layer, merge::axis};
use crate::{
    graph::{Graph, OpError, Value},
    nn::{Initializer, Layer as _, Mode, Regularizer, Scope},
    ops::MatmulOptions,
    tensor::Shape,
};
use serde::{Deserialize, Serialize};

/// How [`Attention`] compares a query and a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScoreMode {
    /// By their product.
    #[default]
    Dot,
    /// By the hyperbolic tangent of their sum.
    Concat,
}

layer! {
    /// Sums values (N, T, features) weighted by how much a query (N, S, features) resembles their keys (Luong et al.
    /// 2015; Keras `Attention`): of inputs query, value and perhaps key.
    ///
    /// ```
    /// use hubel::{nn::call, layers::*, prelude::*};
    /// let (query, value) = (Input::new([4, 8]), Input::new([6, 8]));
    /// assert_eq!(call(Attention::new(), &[query, value])?.shape().to_string(), "(N, 4, 8)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct Attention as "Attention" {
        /// Sets whether scores are multiplied by a learned number.
        set use_scale: bool = false,
        /// Sets how query and key are compared.
        set score_mode: ScoreMode = ScoreMode::Dot,
        /// Sets the share of the weights that training drops.
        set dropout: f32 = 0.0,
    }
}

impl Attention {
    /// Returns the layer with Keras's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let [query, value, key] = three("attention", scope, inputs)?;
        let scale = self.use_scale.then(|| scope.weight("scale", &[], &Initializer::Ones)).transpose()?;
        if self.score_mode == ScoreMode::Concat {
            let factor = scope.weight("concat_score_weight", &[], &Initializer::Ones)?;
            let scores = additive(scope.graph, query, key, scale, true)?;
            let scores = scope.graph.mul(scores, factor)?;
            return weighted(scope, scores, [query, value], self.dropout);
        }
        let options = MatmulOptions { transpose_a: false, transpose_b: true };
        let mut scores = scope.graph.matmul_with(query, key, options)?;
        if let Some(scale) = scale {
            scores = scope.graph.mul(scores, scale)?;
        }
        weighted(scope, scores, [query, value], self.dropout)
    }
}

layer! {
    /// Sums values weighted by Σ scale · tanh(query + key) (Bahdanau et al. 2015; Keras `AdditiveAttention`): of inputs
    /// query, value and perhaps key.
    ///
    /// ```
    /// use hubel::{nn::call, layers::*, prelude::*};
    /// let (query, value) = (Input::new([4, 8]), Input::new([6, 8]));
    /// assert_eq!(call(AdditiveAttention::new(), &[query, value])?.shape().to_string(), "(N, 4, 8)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct AdditiveAttention as "AdditiveAttention" {
        /// Sets whether each feature has a learned factor.
        set use_scale: bool = true,
        /// Sets the share of the weights that training drops.
        set dropout: f32 = 0.0,
    }
}

impl AdditiveAttention {
    /// Returns the layer with Keras's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let [query, value, key] = three("additive_attention", scope, inputs)?;
        let features = scope.graph.shape(query).last();
        let scale = self.use_scale.then(|| scope.weight("scale", &[features], &Initializer::GlorotUniform));
        let scores = additive(scope.graph, query, key, scale.transpose()?, false)?;
        weighted(scope, scores, [query, value], self.dropout)
    }
}

/// Returns query, value and key, which is the value without a third input.
fn three(op: &str, scope: &Scope, inputs: &[Value]) -> Result<[Value; 3], OpError> {
    let found = match *inputs {
        [query, value] => Some([query, value, value]),
        [query, value, key] => Some([query, value, key]),
        _ => None,
    };
    let of_three = |x: &Value| scope.graph.shape(*x).rank() == 3;
    found.filter(|all| all.iter().all(of_three)).ok_or_else(|| {
        let wanted = "query, value and perhaps key, each (N, timesteps, features)";
        OpError::new(op, wanted, format!("{} inputs", inputs.len()), "apply the layer to a list of those")
    })
}

/// Returns the sums of tanh of each query and key, times a factor within it or in front of it.
fn additive(g: &mut Graph, q: Value, k: Value, scale: Option<Value>, within: bool) -> Result<Value, OpError> {
    let (of_query, of_key) = (g.shape(q).clone(), g.shape(k).clone());
    let q = g.reshape(q, of_query.with_row(&[of_query.dims()[1], 1, of_query.last()]))?;
    let k = g.reshape(k, of_key.with_row(&[1, of_key.dims()[1], of_key.last()]))?;
    let mut sum = g.add(q, k)?;
    if let (Some(scale), true) = (scale, within) {
        sum = g.mul(sum, scale)?;
    }
    let mut terms = g.tanh(sum)?;
    if let (Some(scale), false) = (scale, within) {
        terms = g.mul(terms, scale)?;
    }
    g.sum(terms, &[3], false)
}

/// Returns the values weighted by the softmax of scores (N, S, T), over what masks let count.
fn weighted(
    scope: &mut Scope,
    mut scores: Value,
    [query, value]: [Value; 2],
    dropout: f32,
) -> Result<Vec<Value>, OpError> {
    if let Some(mask) = scope.mask(value) {
        let g = &mut *scope.graph;
        let shape = g.shape(mask).clone();
        let counts = g.reshape(mask, shape.with_row(&[1, shape.last()]))?;
        let far = g.constant(-1e9)?;
        let below = g.add(scores, far)?;
        scores = g.where_(counts, scores, below)?;
    }
    let mut weights = scope.graph.softmax(scores)?;
    super::dropout::share("attention", dropout)?;
    if scope.mode == Mode::Training && dropout > 0.0 {
        let name = scope.layer().to_owned();
        weights = scope.graph.dropout(weights, dropout, &name)?;
    }
    let mut y = scope.graph.matmul(weights, value)?;
    if let Some(mask) = scope.mask(query) {
        let shape = scope.graph.shape(mask).clone();
        let counts = scope.graph.reshape(mask, shape.with_row(&[shape.last(), 1]))?;
        y = scope.graph.mul(y, counts)?;
        scope.set_mask(y, mask);
    }
    Ok(vec![y])
}

layer! {
    /// Attention of several heads, each on its own projections (Vaswani et al. 2017; Keras `MultiHeadAttention`): of
    /// inputs query, value and perhaps key, each (N, timesteps, features).
    ///
    /// ```
    /// use hubel::{nn::call, layers::*, prelude::*};
    /// let x = Input::new([4, 8]);
    /// assert_eq!(call(MultiHeadAttention::new(2, 4), &[x.clone(), x])?.shape().to_string(), "(N, 4, 8)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct MultiHeadAttention as "MultiHeadAttention" {
        new num_heads: usize = 1,
        new key_dim: usize = 1,
        /// Sets the features of each head's values; by default those of its keys.
        into value_dim: Option<usize> = None,
        /// Sets the share of the weights that training drops.
        set dropout: f32 = 0.0,
        /// Sets whether projections have biases.
        set use_bias: bool = true,
        /// Sets the features of the result; by default those of the query.
        into output_shape: Option<Single> = None,
        /// Sets the axes that attention is along; only the first of a sample is supported.
        into attention_axes: Option<Vec<usize>> = None,
    } weights { kernel = Initializer::GlorotUniform, bias = Initializer::Zeros }
}

impl MultiHeadAttention {
    /// Returns a layer of `num_heads` heads with keys of `key_dim` features.
    pub fn new(num_heads: usize, key_dim: usize) -> Self {
        MultiHeadAttention { num_heads, key_dim, ..Self::default() }
    }

    /// Returns a tensor's projection for all heads, (N · heads, timesteps, features).
    fn heads(&self, scope: &mut Scope, name: &str, x: Value, features: usize) -> Result<Value, OpError> {
        let (shape, heads) = (scope.graph.shape(x).clone(), self.num_heads);
        let (steps, width) = (shape.dims()[1], heads.saturating_mul(features));
        let kernel = scope.weight(&format!("{name}/kernel"), &[shape.last(), heads, features], self.kernel())?;
        let bias = self.use_bias.then(|| scope.weight(&format!("{name}/bias"), &[heads, features], self.bias()));
        let g = &mut *scope.graph;
        let kernel = g.reshape(kernel, [shape.last(), width])?;
        let bias = bias.transpose()?.map(|bias| g.reshape(bias, [width])).transpose()?;
        let y = g.project(x, kernel, bias)?;
        let y = g.reshape(y, shape.with_row(&[steps, heads, features]))?;
        let y = g.transpose(y, &[0, 2, 1, 3])?;
        g.reshape(y, Shape::batched(heads * shape.dims()[0], &[steps, features]))
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let [query, value, key] = three("multi_head_attention", scope, inputs)?;
        if let Some(axes) = self.attention_axes.as_ref().filter(|axes| **axes != [1]) {
            let (got, advice) = (format!("{axes:?}"), "put the axis first by Permute");
            return Err(OpError::new("multi_head_attention", "attention_axes [1]", got, advice));
        }
        if inputs.iter().any(|&x| scope.mask(x).is_some()) {
            let advice = "leave the mask out, or use `Attention`";
            return Err(OpError::new("multi_head_attention", "inputs without masks", "a mask", advice));
        }
        super::dropout::share("multi_head_attention", self.dropout)?;
        let (shape, value_dim) = (scope.graph.shape(query).clone(), self.value_dim.unwrap_or(self.key_dim));
        let (steps, heads) = (shape.dims()[1], self.num_heads);
        let q = self.heads(scope, "query", query, self.key_dim)?;
        let k = self.heads(scope, "key", key, self.key_dim)?;
        let v = self.heads(scope, "value", value, value_dim)?;
        let q = scope.graph.scale(q, 1.0 / (self.key_dim as f32).sqrt())?;
        let scores = scope.graph.matmul_with(q, k, MatmulOptions { transpose_a: false, transpose_b: true })?;
        let mut weights = scope.graph.softmax(scores)?;
        if scope.mode == Mode::Training && self.dropout > 0.0 {
            let name = scope.layer().to_owned();
            weights = scope.graph.dropout(weights, self.dropout, &name)?;
        }
        let y = scope.graph.matmul(weights, v)?;
        let y = scope.graph.reshape(y, shape.with_row(&[heads, steps, value_dim]))?;
        let y = scope.graph.transpose(y, &[0, 2, 1, 3])?;
        let y = scope.graph.reshape(y, shape.with_row(&[steps, heads * value_dim]))?;
        let out = self.output_shape.map_or(shape.last(), |n| n.0);
        let kernel = scope.weight("attention_output/kernel", &[heads, value_dim, out], self.kernel())?;
        let bias = self.use_bias.then(|| scope.weight("attention_output/bias", &[out], self.bias())).transpose()?;
        let kernel = scope.graph.reshape(kernel, [heads * value_dim, out])?;
        let y = scope.graph.project(y, kernel, bias)?;
        Ok(vec![y])
    }
}

layer! {
    /// Product of two tensors along an axis of each (Keras `Dot`).
    ///
    /// ```
    /// use hubel::{nn::call, layers::*, prelude::*};
    /// let (a, b) = (Input::new([8]), Input::new([8]));
    /// assert_eq!(call(Dot::new(1), &[a, b])?.shape().to_string(), "(N, 1)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct Dot as "Dot" {
        new axes: super::Axis = super::Axis::One(-1),
        /// Sets whether both are divided by their length along the axis first, so that the result is a cosine.
        set normalize: bool = false,
    }
}

impl Dot {
    /// Returns a layer for an axis of both tensors, or for one of each.
    pub fn new(axes: impl Into<super::Axis>) -> Self {
        Dot { axes: axes.into(), ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let &[a, b] = inputs else {
            return Err(OpError::new("dot", "2 inputs", inputs.len(), "list the two tensors"));
        };
        let listed = self.axes.list();
        let own = [listed.first(), listed.last()];
        let (mut matrices, mut vectors) = (Vec::new(), Vec::new());
        for (mut x, own) in [a, b].into_iter().zip(own) {
            let shape = scope.graph.shape(x).clone();
            let at = own.and_then(|&n| axis(n, shape.rank())).filter(|&at| at > 0 && [2, 3].contains(&shape.rank()));
            let at = at.ok_or_else(|| {
                let wanted = "an axis of samples of one or two axes";
                OpError::new("dot", wanted, format!("{listed:?} of {shape}"), "reshape the tensors, or choose axes")
            })?;
            if self.normalize {
                x = super::UnitNormalization::new().axis(at as isize).build(scope, &[x])?.swap_remove(0);
            }
            let g = &mut *scope.graph;
            vectors.push(shape.rank() == 2);
            // The axis is the last of each.
            matrices.push(match (shape.rank(), at) {
                (2, _) => g.reshape(x, shape.with_row(&[1, shape.last()]))?,
                (_, 1) => g.transpose(x, &[0, 2, 1])?,
                _ => x,
            });
        }
        let options = MatmulOptions { transpose_a: false, transpose_b: true };
        let y = scope.graph.matmul_with(matrices[0], matrices[1], options)?;
        let shape = scope.graph.shape(y).clone();
        let row: Vec<usize> = match vectors[..] {
            [true, _] => vec![shape.dims()[2]],
            [_, true] => vec![shape.dims()[1]],
            _ => return Ok(vec![y]),
        };
        Ok(vec![scope.graph.reshape(y, shape.with_row(&row))?])
    }
}

layer! {
    /// A dense layer along several axes at once, as an equation says (Keras `EinsumDense`), such as `abc,cd->abd`: the
    /// last axes of the input are multiplied by the first of the kernel.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let layer = EinsumDense::new("abc,cde->abde", [None, Some(2), Some(5)]).bias_axes("de".to_owned());
    /// let model = Sequential::new([4, 8]).add(layer).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 4, 2, 5)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct EinsumDense as "EinsumDense" {
        new equation: String = String::new(),
        new output_shape: Vec<Option<usize>> = Vec::new(),
        /// Sets the activation, applied after the bias.
        set activation: Activation = Activation::Linear,
        /// Sets the axes of the result along which the bias differs; without any there is none.
        into bias_axes: Option<String> = None,
        /// Adds a penalty on the outputs to the loss.
        into activity_regularizer: Option<Regularizer> = None,
    } weights { kernel = Initializer::GlorotUniform, bias = Initializer::Zeros }
}

impl EinsumDense {
    /// Returns a layer for an equation; the shape of the result is without the batch, `None` where it is the input's.
    pub fn new(equation: impl Into<String>, output_shape: impl Into<Vec<Option<usize>>>) -> Self {
        EinsumDense { equation: equation.into(), output_shape: output_shape.into(), ..Self::default() }
    }

    /// Returns the names of the input's, the kernel's and the result's axes.
    fn names(&self) -> Option<[Vec<char>; 3]> {
        let (from, to) = self.equation.split_once("->")?;
        let (x, kernel) = from.split_once(',')?;
        let names = [x, kernel, to].map(|part| part.replace("...", "").trim().chars().collect::<Vec<_>>());
        let [x, kernel, to] = &names;
        let once = |part: &Vec<char>| part.iter().enumerate().all(|(i, name)| !part[..i].contains(name));
        if !names.iter().all(once) {
            return None;
        }
        let shared = x.iter().filter(|name| kernel.contains(name)).count();
        let own = [&x[..x.len() - shared], &kernel[shared..]].concat();
        (x[x.len() - shared..] == kernel[..shared] && own == *to && shared > 0).then_some(names)
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let shape = scope.graph.shape(inputs[0]).clone();
        let names = self.names().filter(|[x, kernel, to]| {
            let open = usize::from(self.equation.contains("...")) * (shape.rank() - x.len().min(shape.rank()));
            let is_batch_kept = x.iter().filter(|name| kernel.contains(name)).count() < shape.rank();
            x.len() + open == shape.rank() && to.len() >= self.output_shape.len() && is_batch_kept
        });
        let Some([x_names, kernel, to]) = names else {
            let wanted = "an equation whose kernel begins with the input's last axes, such as abc,cd->abd";
            let advice = "use Dense, or Permute before and after it";
            return Err(OpError::new("einsum_dense", wanted, format!("{} for {shape}", self.equation), advice));
        };
        let shared = x_names.iter().filter(|name| kernel.contains(name)).count();
        let (kept, contracted) = shape.dims().split_at(shape.rank() - shared);
        let units = kernel.len() - shared;
        let last: Option<Vec<usize>> = self.output_shape.iter().rev().take(units).rev().copied().collect();
        let units = last.filter(|l| l.len() == units).ok_or_else(|| {
            let got = format!("{:?}", self.output_shape);
            OpError::new("einsum_dense", "an output_shape with the kernel's extents", got, "write them as numbers")
        })?;
        let weight = scope.weight("kernel", &[contracted, &units[..]].concat(), self.kernel())?;
        let (n, width) = (contracted.iter().product::<usize>(), units.iter().product::<usize>());
        let flat = scope.graph.reshape(inputs[0], shape.with_row(&[&kept[1..], &[n]].concat()))?;
        let weight = scope.graph.reshape(weight, [n, width])?;
        let y = scope.graph.project(flat, weight, None)?;
        let row = [&kept[1..], &units[..]].concat();
        let mut y = scope.graph.reshape(y, shape.with_row(&row))?;
        if let Some(axes) = &self.bias_axes {
            let offset = row.len() + 1 - to.len();
            let extent = |(i, name): (usize, &char)| if axes.contains(*name) { row[i + offset - 1] } else { 1 };
            let first = to.iter().position(|name| axes.contains(*name)).unwrap_or(0).max(usize::from(offset == 0));
            let extents: Vec<usize> = to.iter().enumerate().skip(first).map(extent).collect();
            let bias = scope.weight("bias", &extents, self.bias())?;
            y = scope.graph.add(y, bias)?;
        }
        let y = self.activation.apply(scope, y)?;
        scope.activity(&self.activity_regularizer, y)?;
        Ok(vec![y])
    }
}
