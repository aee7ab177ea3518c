//! Finds the branches and loops of a kernel that are decided by uniform buffers alone.

use super::Failure;
use crate::kernels::reflect;
use naga::{AddressSpace, Block, Expression, Function, Handle, LocalVariable, Module, Statement};
use std::collections::HashMap;

/// Returns the text of the conditions in a kernel's WGSL that are decided by uniform buffers alone, or an error if it
/// is not valid WGSL.
///
/// lavapipe of Mesa 22 treats the values of such buffers as constants: it compiles the kernel again for each launch and
/// never frees the versions. It does not know `step.n * counts.z`, which equals `step.n`, with `counts` being
/// `num_workgroups`.
///
/// ```
/// use hubel::testing::decided_by_uniforms;
/// let kernel = "@group(0) @binding(0) var<uniform> n: u32;
///     @group(0) @binding(1) var<storage, read_write> y: array<u32>;
///     @compute @workgroup_size(64)
///     fn main(@builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
///         for (var i = 0u; i < n; i++) { y[lane] += i; }
///     }";
/// assert_eq!(decided_by_uniforms(kernel)?, ["i < n"]);
/// assert!(decided_by_uniforms(&kernel.replace("i < n", "i < n * counts.z"))?.is_empty());
/// # Ok::<(), hubel::testing::Failure>(())
/// ```
pub fn decided_by_uniforms(source: &str) -> Result<Vec<String>, Failure> {
    let (_, module) = reflect("a kernel", source).map_err(|e| Failure(e.to_string()))?;
    Ok(Decided::of(&module, source))
}

/// What decides an expression: 0 constants alone, 1 uniform buffers at fixed offsets too, 2 anything else.
type Known = u8;

/// Finds the branches and loops of a module that are decided by uniform buffers alone.
struct Decided<'m> {
    module: &'m Module,
    source: &'m str,
    arguments: HashMap<Handle<Function>, Vec<Known>>,
    results: HashMap<Handle<Function>, Known>,
    found: Vec<String>,
}

impl<'m> Decided<'m> {
    fn of(module: &'m Module, source: &'m str) -> Vec<String> {
        let mut all = Decided { module, source, arguments: HashMap::new(), results: HashMap::new(), found: Vec::new() };
        // Each iteration refines what is known of functions' arguments and results; calls are no deeper than this.
        for _ in 0..4 {
            all.found.clear();
            for (handle, function) in module.functions.iter() {
                let arguments = all.arguments.get(&handle).cloned().unwrap_or(vec![0; function.arguments.len()]);
                let result = all.function(function, &arguments);
                all.results.insert(handle, result);
            }
            for entry in &module.entry_points {
                all.function(&entry.function, &vec![2; entry.function.arguments.len()]);
            }
        }
        all.found
    }

    /// Returns what decides a function's result.
    fn function(&mut self, function: &Function, arguments: &[Known]) -> Known {
        let mut variables: HashMap<Handle<LocalVariable>, Known> = HashMap::new();
        loop {
            let known = self.expressions(function, arguments, &variables);
            let (mut after, mut result) = (variables.clone(), 0);
            for (handle, variable) in function.local_variables.iter() {
                let first = variable.init.map_or(0, |init| known[&init]);
                after.entry(handle).and_modify(|k| *k = first.max(*k)).or_insert(first);
            }
            let found = self.found.len();
            self.block(function, &function.body, &known, &mut after, &mut result);
            if after == variables {
                return result;
            }
            self.found.truncate(found);
            variables = after;
        }
    }

    fn expressions(
        &self,
        function: &Function,
        arguments: &[Known],
        variables: &HashMap<Handle<LocalVariable>, Known>,
    ) -> HashMap<Handle<Expression>, Known> {
        let mut known: HashMap<Handle<Expression>, Known> = HashMap::new();
        for (handle, expression) in function.expressions.iter() {
            let of = |handle: &Handle<Expression>| known[handle];
            let any = |handles: &[Handle<Expression>]| handles.iter().map(of).max().unwrap_or(0);
            let is = match expression {
                Expression::Literal(_) | Expression::Constant(_) | Expression::Override(_) => 0,
                Expression::ZeroValue(_) => 0,
                Expression::Compose { components, .. } => any(components),
                Expression::Splat { value, .. } => of(value),
                Expression::Swizzle { vector, .. } => of(vector),
                Expression::AccessIndex { base, .. } => of(base),
                Expression::Access { base, index } if of(index) == 0 => of(base),
                Expression::Load { pointer } => of(pointer),
                Expression::Unary { expr, .. } | Expression::As { expr, .. } => of(expr),
                Expression::Binary { left, right, .. } => any(&[*left, *right]),
                Expression::Select { condition, accept, reject } => any(&[*condition, *accept, *reject]),
                Expression::Relational { argument, .. } => of(argument),
                Expression::Math { arg, arg1, arg2, arg3, .. } => {
                    [Some(*arg), *arg1, *arg2, *arg3].iter().flatten().map(of).max().unwrap_or(0)
                }
                Expression::GlobalVariable(global) => {
                    1 + Known::from(self.module.global_variables[*global].space != AddressSpace::Uniform)
                }
                Expression::LocalVariable(variable) => variables.get(variable).copied().unwrap_or(0),
                Expression::FunctionArgument(i) => arguments[*i as usize],
                Expression::CallResult(function) => self.results.get(function).copied().unwrap_or(0),
                _ => 2,
            };
            known.insert(handle, is);
        }
        known
    }

    fn block(
        &mut self,
        function: &Function,
        block: &Block,
        known: &HashMap<Handle<Expression>, Known>,
        variables: &mut HashMap<Handle<LocalVariable>, Known>,
        result: &mut Known,
    ) {
        for statement in block.iter() {
            let mut decides = |condition: &Handle<Expression>| {
                if known[condition] == 1 {
                    let place = function.expressions.get_span(*condition).to_range();
                    self.found.push(place.and_then(|r| self.source.get(r)).unwrap_or_default().to_owned());
                }
            };
            let mut inside: Vec<&Block> = Vec::new();
            match statement {
                Statement::Block(block) => inside.push(block),
                Statement::If { condition, accept, reject } => {
                    decides(condition);
                    inside.extend([accept, reject]);
                }
                Statement::Switch { selector, cases } => {
                    decides(selector);
                    inside.extend(cases.iter().map(|case| &case.body));
                }
                Statement::Loop { body, continuing, break_if } => {
                    break_if.iter().for_each(decides);
                    inside.extend([body, continuing]);
                }
                Statement::Return { value: Some(value) } => *result = (*result).max(known[value]),
                Statement::Store { pointer, value } => {
                    let mut at = *pointer;
                    while let Expression::Access { base, .. } | Expression::AccessIndex { base, .. } =
                        function.expressions[at]
                    {
                        at = base;
                    }
                    if let Expression::LocalVariable(variable) = function.expressions[at] {
                        variables.entry(variable).and_modify(|k| *k = (*k).max(known[value]));
                    }
                }
                Statement::Call { function: callee, arguments, .. } => {
                    let before = self.arguments.entry(*callee).or_insert(vec![0; arguments.len()]);
                    before.iter_mut().zip(arguments).for_each(|(k, argument)| *k = (*k).max(known[argument]));
                }
                _ => {}
            }
            for block in inside {
                self.block(function, block, known, variables, result);
            }
        }
    }
}
