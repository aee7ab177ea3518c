//! A variant of kernels that reports indices outside their arrays.

use super::Failure;
use crate::{
    kernels::{Access, reflect},
    passes::{Binding, BufferRange, BufferRef, Plan},
};
use naga::{
    AddressSpace, ArraySize, BinaryOperator, Block, Expression, Function, GlobalVariable, Handle, Literal, Module,
    Range, ResourceBinding, Scalar, ScalarKind, Span, Statement, StorageAccess, Type, TypeInner,
    back::{PipelineConstants, pipeline_constants::process_overrides, wgsl},
    proc::TypeResolution,
    valid::{Capabilities, FunctionInfo, ModuleInfo, ValidationFlags, Validator},
};
use std::sync::Arc;

/// The reports of a plan's kernels on their indices: the arena in which each launch has a word, and the text of each
/// index expression.
pub(super) struct Asserted {
    arena: usize,
    /// For each launch, its node and the index expressions, numbered from 1.
    places: Vec<(String, Vec<String>)>,
}

impl Asserted {
    /// Makes every kernel of a plan compare each index into an array with the array's length, and write the number of
    /// an expression that is too large or negative into the launch's word.
    pub fn of(plan: &mut Plan) -> Result<Self, Failure> {
        let (arena, mut places) = (plan.arenas.len(), Vec::new());
        let bytes = (plan.dispatches.len() as u64 * 4).max(256);
        for (number, dispatch) in plan.dispatches.iter_mut().enumerate() {
            let context = |e: Failure| Failure(format!("{} ({}): {e}", dispatch.node, dispatch.kernel));
            let binding = dispatch.bindings.len() as u32 + 1;
            let constants = dispatch.constants.drain(..).map(|(name, value)| (name.to_owned(), value)).collect();
            let (source, found) = rewrite(&dispatch.source, &constants, binding, number as u32).map_err(context)?;
            dispatch.source = Arc::from(source);
            let range = BufferRange { buffer: BufferRef::Arena(arena), offset: 0, bytes };
            dispatch.bindings.push(Binding { range, access: Access::ReadWrite });
            places.push((dispatch.node.clone(), found));
        }
        plan.arenas.push(bytes);
        Ok(Asserted { arena, places })
    }

    /// Returns an error that names the first index outside its array, from the words of an arena.
    pub fn check(&self, words: impl FnOnce(usize) -> Result<Vec<u32>, Failure>) -> Result<(), Failure> {
        for ((node, places), word) in self.places.iter().zip(words(self.arena)?) {
            if let Some(place) = (word as usize).checked_sub(1) {
                let text = places.get(place).map_or("", String::as_str);
                return Err(Failure(format!("`{node}` has an index outside its array: {text}")));
            }
        }
        Ok(())
    }
}

fn validate(module: &Module) -> Result<ModuleInfo, Failure> {
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
    validator.validate(module).map_err(|e| Failure(format!("{e:?}")))
}

/// Returns a kernel that checks its indices, with its constants filled in, and the text of each index.
fn rewrite(
    source: &str,
    constants: &PipelineConstants,
    binding: u32,
    word: u32,
) -> Result<(String, Vec<String>), Failure> {
    let (bindings, module) = reflect("a kernel", source).map_err(|e| Failure(e.to_string()))?;
    let info = validate(&module)?;
    let filled = process_overrides(&module, &info, None, constants).map_err(|e| Failure(e.to_string()))?;
    let (mut module, info) = (filled.0.into_owned(), filled.1.into_owned());
    let bound: Vec<u32> = module.global_variables.iter().filter_map(|(_, v)| Some(v.binding?.binding)).collect();
    let mut insert = |inner| module.types.insert(Type { name: None, inner }, Span::UNDEFINED);
    let unsigned = insert(TypeInner::Scalar(Scalar::U32));
    let words = insert(TypeInner::Array { base: unsigned, size: ArraySize::Dynamic, stride: 4 });
    let mut declare = |name: &str, space, binding, ty| {
        let name = Some(name.to_owned());
        let variable = GlobalVariable { name, space, binding, ty, init: None, memory_decorations: Default::default() };
        module.global_variables.append(variable, Span::UNDEFINED)
    };
    let at = |binding| Some(ResourceBinding { group: 0, binding });
    let storage = |access| AddressSpace::Storage { access: StorageAccess::LOAD | access };
    // Unused parts of a kernel were removed when its constants were filled in.
    for b in bindings.iter().filter(|b| !bound.contains(&b.binding)) {
        match b.access {
            Access::Uniform => declare("unused", AddressSpace::Uniform, at(b.binding), unsigned),
            Access::Read => declare("unused", storage(StorageAccess::empty()), at(b.binding), words),
            Access::ReadWrite => declare("unused", storage(StorageAccess::STORE), at(b.binding), words),
        };
    }
    let words = declare("outside_words", storage(StorageAccess::STORE), at(binding), words);
    let outside = declare("outside_place", AddressSpace::Private, None, unsigned);
    let mut rewriter = Rewriter { module: &module, source, outside, end: None, places: Vec::new() };
    let (mut functions, mut entries) = (Vec::new(), Vec::new());
    for (handle, function) in module.functions.iter() {
        functions.push((handle, rewriter.function(function, &info[handle])));
    }
    rewriter.end = Some((words, word));
    for (i, entry) in module.entry_points.iter().enumerate() {
        entries.push(rewriter.function(&entry.function, info.get_entry_point(i)));
    }
    let places = rewriter.places;
    functions.into_iter().for_each(|(handle, function)| module.functions[handle] = function);
    module.entry_points.iter_mut().zip(entries).for_each(|(entry, function)| entry.function = function);
    let info = validate(&module)?;
    let text = wgsl::write_string(&module, &info, wgsl::WriterFlags::empty()).map_err(|e| Failure(e.to_string()))?;
    Ok((text, places))
}

struct Rewriter<'m> {
    module: &'m Module,
    source: &'m str,
    /// The invocation's variable for the number of an index that was outside.
    outside: Handle<GlobalVariable>,
    /// The word to which an entry point writes that number before it returns.
    end: Option<(Handle<GlobalVariable>, u32)>,
    places: Vec<String>,
}

/// The length of the array that an index selects from.
enum Length {
    Fixed(u32),
    Dynamic,
}

impl Rewriter<'_> {
    fn function(&mut self, function: &Function, info: &FunctionInfo) -> Function {
        let mut changed = function.clone();
        let body = std::mem::take(&mut changed.body);
        changed.body = self.block(&mut changed, body, info);
        // Names of values would clash with those that the writer generates.
        changed.named_expressions.clear();
        changed
    }

    fn block(&mut self, function: &mut Function, block: Block, info: &FunctionInfo) -> Block {
        let mut changed = Block::new();
        for (mut statement, span) in block.span_into_iter() {
            match &mut statement {
                Statement::Block(inner) => *inner = self.block(function, std::mem::take(inner), info),
                Statement::If { accept, reject, .. } => {
                    *accept = self.block(function, std::mem::take(accept), info);
                    *reject = self.block(function, std::mem::take(reject), info);
                }
                Statement::Switch { cases, .. } => {
                    for case in cases {
                        case.body = self.block(function, std::mem::take(&mut case.body), info);
                    }
                }
                Statement::Loop { body, continuing, .. } => {
                    *body = self.block(function, std::mem::take(body), info);
                    *continuing = self.block(function, std::mem::take(continuing), info);
                }
                Statement::Return { .. } => self.tell(function, &mut changed),
                _ => {}
            }
            let emitted: Vec<Handle<Expression>> = match &statement {
                Statement::Emit(range) => range.clone().collect(),
                _ => Vec::new(),
            };
            changed.push(statement, span);
            emitted.into_iter().for_each(|handle| self.compare(function, &mut changed, handle, info));
        }
        changed
    }

    /// Writes the number of the index that was outside before an entry point returns.
    fn tell(&self, function: &mut Function, block: &mut Block) {
        let Some((words, word)) = self.end else { return };
        let mut add = |expression| function.expressions.append(expression, Span::UNDEFINED);
        let pointer = add(Expression::GlobalVariable(self.outside));
        let zero = add(Expression::Literal(Literal::U32(0)));
        let base = add(Expression::GlobalVariable(words));
        let value = add(Expression::Load { pointer });
        let condition = add(Expression::Binary { op: BinaryOperator::NotEqual, left: value, right: zero });
        block.push(Statement::Emit(Range::new_from_bounds(value, condition)), Span::UNDEFINED);
        let place = add(Expression::AccessIndex { base, index: word });
        let mut accept = Block::new();
        accept.push(Statement::Emit(Range::new_from_bounds(place, place)), Span::UNDEFINED);
        accept.push(Statement::Store { pointer: place, value }, Span::UNDEFINED);
        block.push(Statement::If { condition, accept, reject: Block::new() }, Span::UNDEFINED);
    }

    /// Compares the index of an expression that has just been computed, if it has one.
    fn compare(&mut self, function: &mut Function, block: &mut Block, at: Handle<Expression>, info: &FunctionInfo) {
        let Expression::Access { base, index } = function.expressions[at] else { return };
        let Some(length) = self.length(&info[base].ty) else { return };
        let text = function.expressions.get_span(at).to_range().and_then(|range| self.source.get(range));
        self.places.push(text.unwrap_or_default().to_owned());
        let place = Literal::U32(self.places.len() as u32);
        let mut add = |expression| function.expressions.append(expression, Span::UNDEFINED);
        let pointer = add(Expression::GlobalVariable(self.outside));
        let place = add(Expression::Literal(place));
        let fixed = if let Length::Fixed(n) = length { Some(add(Expression::Literal(Literal::U32(n)))) } else { None };
        // A negative index is large as an unsigned number.
        let first = add(Expression::As { expr: index, kind: ScalarKind::Uint, convert: None });
        let end = fixed.unwrap_or_else(|| add(Expression::ArrayLength(base)));
        let condition = add(Expression::Binary { op: BinaryOperator::GreaterEqual, left: first, right: end });
        let before = add(Expression::Load { pointer });
        let value = add(Expression::Select { condition, accept: place, reject: before });
        block.push(Statement::Emit(Range::new_from_bounds(first, value)), Span::UNDEFINED);
        block.push(Statement::Store { pointer, value }, Span::UNDEFINED);
    }

    /// Returns the length of the array that a value or a pointer of this type refers to.
    fn length(&self, ty: &TypeResolution) -> Option<Length> {
        let types = &self.module.types;
        let inner = match ty.inner_with(types) {
            TypeInner::Pointer { base, .. } => &types[*base].inner,
            inner => inner,
        };
        match *inner {
            TypeInner::Array { size: ArraySize::Constant(n), .. } => Some(Length::Fixed(n.get())),
            TypeInner::Array { size: ArraySize::Dynamic, .. } => Some(Length::Dynamic),
            TypeInner::Vector { size, .. } | TypeInner::ValuePointer { size: Some(size), .. } => {
                Some(Length::Fixed(size as u32))
            }
            TypeInner::Matrix { columns, .. } => Some(Length::Fixed(columns as u32)),
            _ => None,
        }
    }
}
