//! Turns a module of naga into [`Code`]: functions and statements.

use super::{
    alu::Binary,
    code::{Block, Case, Code, Declared, Gather, Instr, Loop, Place, Reg, Root, Scan, Site, Subgroup, Together},
    error::TwinError,
    layout::{self, Class},
    mask::MAX_LANES,
};
use naga::{
    AddressSpace, ArraySize, Barrier, Binding, CollectiveOperation, Expression, Function, FunctionArgument, GatherMode,
    GlobalVariable, Handle, Literal, Module, Span, Statement, StorageAccess, SubgroupOperation, SwitchValue, TypeInner,
    valid::{FunctionInfo, ModuleInfo},
};
use std::{collections::HashMap, mem};

/// What an expression is.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Registers(Vec<Reg>),
    Pointer(Pointer),
}

/// A pointer: always to a known variable.
#[derive(Debug, Clone)]
pub(super) struct Pointer {
    /// Where it leads, without the words.
    pub place: Place,
    pub ty: TypeInner,
    /// Whether WGSL lays it out.
    pub buffer: bool,
    /// The name of the variable.
    pub variable: String,
}

/// A function whose instructions are made.
pub(super) struct Frame<'m> {
    pub function: &'m Function,
    pub info: &'m FunctionInfo,
    pub values: Vec<Option<Value>>,
    pub arguments: Vec<Value>,
    pub locals: Vec<Pointer>,
    results: Vec<Reg>,
}

/// A function that others call.
struct Callee {
    number: usize,
    arguments: Vec<Value>,
    results: Vec<Reg>,
}

pub(super) struct Lowering<'m> {
    pub module: &'m Module,
    info: &'m ModuleInfo,
    source: &'m str,
    /// Registers of constant words.
    pub pool: HashMap<u32, Reg>,
    pub globals: HashMap<Handle<GlobalVariable>, Pointer>,
    callees: HashMap<Handle<Function>, Callee>,
    next: Reg,
    most: Reg,
    pub out: Block,
    code: Code,
}

/// Something that the twin does not know, and where.
pub(super) struct Unknown(pub String, pub Span);

pub(super) type Lowered<T> = Result<T, Unknown>;

impl Unknown {
    pub fn new<T>(what: impl Into<String>, span: Span) -> Lowered<T> {
        Err(Unknown(what.into(), span))
    }
}

/// Returns the instructions of a module's entry point `main`.
pub(super) fn lower(module: &Module, info: &ModuleInfo, source: &str) -> Result<Code, TwinError> {
    let Some(main) = module.entry_points.iter().position(|e| e.name == "main") else {
        return Err(TwinError::Source("there is no entry point `main`".into()));
    };
    let code = Code {
        workgroup: module.entry_points[main].workgroup_size,
        registers: 0,
        constants: Vec::new(),
        private: Vec::new(),
        builtins: Vec::new(),
        shared: 0,
        bindings: Vec::new(),
        functions: Vec::new(),
        main: Block::new(),
        sites: Vec::new(),
        dead: Vec::new(),
    };
    let mut lowering = Lowering {
        module,
        info,
        source,
        pool: HashMap::new(),
        globals: HashMap::new(),
        callees: HashMap::new(),
        next: 0,
        most: 0,
        out: Block::new(),
        code,
    };
    lowering.whole(main).map_err(|Unknown(what, span)| {
        let line = span.to_range().map_or(0, |_| span.location(source).line_number);
        TwinError::Unsupported { what, line }
    })?;
    Ok(lowering.code)
}

/// Returns the words of a literal.
pub(super) fn literal(literal: Literal) -> Option<Vec<u32>> {
    match literal {
        Literal::F32(x) => Some(vec![x.to_bits()]),
        Literal::U32(x) => Some(vec![x]),
        Literal::I32(x) => Some(vec![x as u32]),
        Literal::Bool(x) => Some(vec![u32::from(x)]),
        Literal::U64(x) => Some(vec![x as u32, (x >> 32) as u32]),
        _ => None,
    }
}

impl<'m> Lowering<'m> {
    fn whole(&mut self, main: usize) -> Lowered<()> {
        let entry = &self.module.entry_points[main];
        if entry.workgroup_size.iter().product::<u32>() as usize > MAX_LANES {
            return Unknown::new(format!("workgroups of more than {MAX_LANES} lanes"), Span::UNDEFINED);
        }
        self.constants(&entry.function);
        self.variables()?;
        for (handle, function) in self.module.functions.iter() {
            // A function of pointers is made anew for each call.
            let is_pointer = |a: &FunctionArgument| layout::pointee(self.module, self.type_of(a)).is_some();
            if !function.arguments.iter().any(is_pointer) {
                let arguments = (function.arguments.iter())
                    .map(|a| Ok(Value::Registers(self.registers_of(self.type_of(a), Span::UNDEFINED)?)))
                    .collect::<Lowered<Vec<_>>>()?;
                let callee = self.function(function, &self.info[handle], arguments)?;
                self.next = self.most;
                self.callees.insert(handle, callee);
            }
        }
        let mut arguments = Vec::new();
        for argument in &entry.function.arguments {
            let registers = self.registers_of(self.type_of(argument), Span::UNDEFINED)?;
            let mut rest = registers.clone();
            let members = match self.type_of(argument) {
                TypeInner::Struct { members, .. } => members.iter().map(|m| (m.ty, m.binding.clone())).collect(),
                _ => vec![(argument.ty, argument.binding.clone())],
            };
            for (ty, binding) in members {
                let n = layout::words(self.module, &self.module.types[ty].inner, false).map_or(0, |w| w.len());
                let of: Vec<Reg> = rest.drain(..n).collect();
                if let Some(Binding::BuiltIn(builtin)) = binding {
                    self.code.builtins.push((builtin, of));
                }
            }
            arguments.push(Value::Registers(registers));
        }
        let Callee { number, .. } = self.function(&entry.function, self.info.get_entry_point(main), arguments)?;
        self.code.main = mem::take(&mut self.code.functions[number]);
        self.code.registers = self.most as usize;
        Ok(())
    }

    fn type_of(&self, argument: &FunctionArgument) -> &'m TypeInner {
        &self.module.types[argument.ty].inner
    }

    /// Gives every constant word a register.
    fn constants(&mut self, main: &Function) {
        let functions = self.module.functions.iter().map(|(_, f)| f).chain([main]);
        let expressions = functions.flat_map(|f| f.expressions.iter()).chain(self.module.global_expressions.iter());
        let literals = expressions.filter_map(|(_, e)| match e {
            Expression::Literal(l) => literal(*l),
            _ => None,
        });
        // Some operations have constants of their own: 0, 1 and the neutral elements of folds.
        let own = [0, 1, f32::INFINITY.to_bits()];
        for word in own.into_iter().chain(literals.flatten()) {
            let constants = &mut self.code.constants;
            self.pool.entry(word).or_insert_with(|| {
                constants.push(word);
                constants.len() as Reg - 1
            });
        }
        (self.next, self.most) = (self.code.constants.len() as Reg, self.code.constants.len() as Reg);
    }

    /// Gives every variable of the module its place.
    fn variables(&mut self) -> Lowered<()> {
        for (handle, variable) in self.module.global_variables.iter() {
            let (ty, span) = (&self.module.types[variable.ty].inner, self.module.global_variables.get_span(handle));
            let buffer = layout::is_buffer(variable.space);
            let (root, offset) = match (variable.space, &variable.binding) {
                (AddressSpace::Private, _) => {
                    let registers = self.registers_of(ty, span)?;
                    let initial = match variable.init {
                        Some(init) => self.constant(init, span)?,
                        None => vec![self.pool[&0]; registers.len()],
                    };
                    let first = registers.first().copied().unwrap_or(0);
                    self.code.private.extend(registers.into_iter().zip(initial));
                    (Root::Registers(first), 0)
                }
                (AddressSpace::WorkGroup, _) => {
                    let first = self.code.shared;
                    self.code.shared += self.words(ty, false, span)?.len();
                    (Root::Shared, first as u32)
                }
                (space, Some(place)) if buffer => {
                    let number = place.binding as usize;
                    let bindings = &mut self.code.bindings;
                    bindings.resize(bindings.len().max(number + 1), None);
                    let writes =
                        matches!(space, AddressSpace::Storage { access } if access.contains(StorageAccess::STORE));
                    let last = match ty {
                        TypeInner::Struct { members, .. } => members.last().map(|m| &self.module.types[m.ty].inner),
                        ty => Some(ty),
                    };
                    let (mut bytes, mut stride) = (ty.size(self.module.to_ctx()) as usize, 0);
                    if let Some(TypeInner::Array { size: ArraySize::Dynamic, stride: of, .. }) = last {
                        stride = *of as usize;
                        bytes = match ty {
                            TypeInner::Struct { members, .. } => members.last().map_or(0, |m| m.offset as usize),
                            _ => 0,
                        };
                    }
                    bindings[number] = Some(Declared { writes, bytes, stride });
                    (Root::Buffer(number), 0)
                }
                _ => return Unknown::new("such a variable", span),
            };
            let place = Place { root, offset, indices: Vec::new(), words: Vec::new(), site: 0 };
            let name = variable.name.clone().unwrap_or_default();
            self.globals.insert(handle, Pointer { place, ty: ty.clone(), buffer, variable: name });
        }
        Ok(())
    }

    /// Returns the registers of a constant of the module.
    pub fn constant(&self, handle: Handle<Expression>, span: Span) -> Lowered<Vec<Reg>> {
        match &self.module.global_expressions[handle] {
            Expression::Literal(l) => match literal(*l) {
                Some(words) => Ok(words.iter().map(|w| self.pool[w]).collect()),
                None => Unknown::new(format!("{l:?}"), span),
            },
            Expression::Constant(constant) => self.constant(self.module.constants[*constant].init, span),
            Expression::ZeroValue(ty) => self.zero(&self.module.types[*ty].inner, span),
            Expression::Compose { components, .. } => {
                let parts = components.iter().map(|c| self.constant(*c, span)).collect::<Lowered<Vec<_>>>()?;
                Ok(parts.concat())
            }
            Expression::Splat { size, value } => Ok(self.constant(*value, span)?.repeat(layout::size(*size))),
            other => Unknown::new(format!("the constant {other:?}"), span),
        }
    }

    pub fn zero(&self, ty: &TypeInner, span: Span) -> Lowered<Vec<Reg>> {
        Ok(vec![self.pool[&0]; self.words(ty, false, span)?.len()])
    }

    pub fn words(&self, ty: &TypeInner, buffer: bool, span: Span) -> Lowered<Vec<u32>> {
        layout::words(self.module, ty, buffer).ok_or_else(|| Unknown(format!("the type {ty:?}"), span))
    }

    /// Returns new registers for a value of a type.
    pub fn registers_of(&mut self, ty: &TypeInner, span: Span) -> Lowered<Vec<Reg>> {
        let n = self.words(ty, false, span)?.len();
        Ok(self.registers(n))
    }

    pub fn registers(&mut self, n: usize) -> Vec<Reg> {
        let first = self.next;
        self.next += n as Reg;
        self.most = self.most.max(self.next);
        (first..self.next).collect()
    }

    /// Returns the number of a place in the text.
    pub fn site(&mut self, variable: &str, span: Span) -> usize {
        let variable = variable.to_owned();
        self.code.sites.push(Site { variable, span: span.to_range().unwrap_or_default() });
        self.code.sites.len() - 1
    }

    pub fn text(&self, span: Span) -> &'m str {
        span.to_range().and_then(|range| self.source.get(range)).unwrap_or_default()
    }

    fn function(&mut self, function: &'m Function, info: &'m FunctionInfo, arguments: Vec<Value>) -> Lowered<Callee> {
        let outside = mem::take(&mut self.out);
        let results = match &function.result {
            Some(result) => self.registers_of(&self.module.types[result.ty].inner, Span::UNDEFINED)?,
            None => Vec::new(),
        };
        let values = vec![None; function.expressions.len()];
        let mut frame = Frame { function, info, values, arguments, locals: Vec::new(), results };
        for (handle, local) in function.local_variables.iter() {
            let span = function.local_variables.get_span(handle);
            let ty = &self.module.types[local.ty].inner;
            let registers = self.registers_of(ty, span)?;
            let root = Root::Registers(registers.first().copied().unwrap_or(0));
            let place = Place { root, offset: 0, indices: Vec::new(), words: Vec::new(), site: 0 };
            let variable = local.name.clone().unwrap_or_default();
            frame.locals.push(Pointer { place, ty: ty.clone(), buffer: false, variable });
            let initial = match local.init {
                Some(init) => self.value(&mut frame, init)?,
                None => self.zero(ty, span)?,
            };
            self.out.extend(registers.into_iter().zip(initial).map(|(to, from)| Instr::Move(to, from)));
        }
        self.statements(&mut frame, &function.body)?;
        self.code.functions.push(mem::replace(&mut self.out, outside));
        let number = self.code.functions.len() - 1;
        Ok(Callee { number, arguments: frame.arguments, results: frame.results })
    }

    /// Returns the instructions of a block, whose registers are free behind it.
    fn block(&mut self, frame: &mut Frame<'m>, block: &'m naga::Block) -> Lowered<Block> {
        let (outside, first) = (mem::take(&mut self.out), self.next);
        self.statements(frame, block)?;
        self.next = first;
        Ok(mem::replace(&mut self.out, outside))
    }

    fn statements(&mut self, frame: &mut Frame<'m>, block: &'m naga::Block) -> Lowered<()> {
        block.span_iter().try_for_each(|(statement, span)| self.statement(frame, statement, *span))
    }

    fn statement(&mut self, frame: &mut Frame<'m>, statement: &'m Statement, span: Span) -> Lowered<()> {
        match statement {
            Statement::Emit(range) => range.clone().try_for_each(|handle| self.emit(frame, handle))?,
            Statement::Block(inner) => self.statements(frame, inner)?,
            Statement::If { condition, accept, reject } => {
                if let Expression::Literal(Literal::Bool(holds)) = frame.function.expressions[*condition] {
                    let spans = if holds { reject } else { accept }.span_iter().map(|(_, span)| *span);
                    self.code.dead.extend(spans.filter_map(|span| span.to_range()));
                }
                let condition = self.value(frame, *condition)?[0];
                let blocks = [self.block(frame, accept)?, self.block(frame, reject)?];
                self.out.push(Instr::If(condition, Box::new(blocks)));
            }
            Statement::Switch { selector, cases } => {
                let selector = self.value(frame, *selector)?[0];
                let cases = self.cases(frame, cases, span)?;
                self.out.push(Instr::Switch(selector, cases));
            }
            Statement::Loop { body, continuing, break_if } => {
                let (outside, first) = (mem::take(&mut self.out), self.next);
                self.statements(frame, body)?;
                let body = mem::take(&mut self.out);
                self.statements(frame, continuing)?;
                let continuing = mem::replace(&mut self.out, outside);
                let break_if = break_if.map(|b| self.value(frame, b)).transpose()?.map(|registers| registers[0]);
                self.next = first;
                let site = self.site("loop", span);
                self.out.push(Instr::Loop(Box::new(Loop { body, continuing, break_if, site })));
            }
            Statement::Break => self.out.push(Instr::Break),
            Statement::Continue => self.out.push(Instr::Continue),
            Statement::Return { value } => {
                if let Some(value) = value {
                    let from = self.value(frame, *value)?;
                    self.out.extend(frame.results.iter().zip(from).map(|(&to, from)| Instr::Move(to, from)));
                }
                self.out.push(Instr::Return);
            }
            Statement::ControlBarrier(barrier) => self.barrier(*barrier, span),
            Statement::MemoryBarrier(_) => {}
            Statement::Store { pointer, value } => {
                let (pointer, value) = (self.pointer(frame, *pointer)?, self.value(frame, *value)?);
                self.store(&pointer, value, span)?;
            }
            Statement::Call { function, arguments, result } => self.call(frame, *function, arguments, *result)?,
            Statement::WorkGroupUniformLoad { pointer, result } => {
                self.barrier(Barrier::WORK_GROUP, span);
                let pointer = self.pointer(frame, *pointer)?;
                let registers = self.load(&pointer, span)?;
                frame.values[result.index()] = Some(Value::Registers(registers));
                self.barrier(Barrier::WORK_GROUP, span);
            }
            Statement::SubgroupBallot { result, predicate } => {
                let from = predicate.map(|p| self.value(frame, p)).transpose()?.unwrap_or_default();
                self.together(frame, Together::Ballot, from, *result, span)?;
            }
            Statement::SubgroupGather { mode, argument, result } => {
                let from = self.value(frame, *argument)?;
                let gather = self.gather(frame, *mode, span)?;
                self.together(frame, Together::Gather(gather), from, *result, span)?;
            }
            Statement::SubgroupCollectiveOperation { op, collective_op, argument, result } => {
                let from = self.value(frame, *argument)?;
                let class = layout::components(frame.info[*argument].ty.inner_with(&self.module.types));
                let fold = class.and_then(|(class, _)| fold(*op, class));
                let Some((op, neutral)) = fold else { return Unknown::new(format!("subgroup operation {op:?}"), span) };
                let scan = match collective_op {
                    CollectiveOperation::Reduce => Scan::All,
                    CollectiveOperation::InclusiveScan => Scan::UpTo,
                    CollectiveOperation::ExclusiveScan => Scan::Before,
                };
                self.together(frame, Together::Fold(op, scan, neutral), from, *result, span)?;
            }
            other => {
                let text = format!("{other:?}");
                return Unknown::new(text.split([' ', '(']).next().unwrap_or_default(), span);
            }
        }
        Ok(())
    }

    fn barrier(&mut self, barrier: Barrier, span: Span) {
        let site = self.site("barrier", span);
        let [workgroup, storage] = [Barrier::WORK_GROUP, Barrier::STORAGE].map(|kind| barrier.contains(kind));
        if workgroup || storage {
            self.out.push(Instr::Barrier { workgroup, storage, site });
        }
    }

    fn cases(&mut self, frame: &mut Frame<'m>, cases: &'m [naga::SwitchCase], span: Span) -> Lowered<Vec<Case>> {
        let (mut all, mut values, mut default) = (Vec::new(), Vec::new(), false);
        let mut last = None;
        for case in cases {
            match case.value {
                SwitchValue::I32(value) => values.push(value as u32),
                SwitchValue::U32(value) => values.push(value),
                SwitchValue::Default => default = true,
            }
            if case.fall_through && !case.body.is_empty() {
                return Unknown::new("a case that falls through", span);
            }
            if !case.fall_through {
                let body = self.block(frame, &case.body)?;
                let values = mem::take(&mut values);
                match mem::take(&mut default) {
                    true => last = Some(Case { values: Vec::new(), body }),
                    false => all.push(Case { values, body }),
                }
            }
        }
        all.extend(last);
        Ok(all)
    }

    fn call(
        &mut self,
        frame: &mut Frame<'m>,
        function: Handle<Function>,
        arguments: &[Handle<Expression>],
        result: Option<Handle<Expression>>,
    ) -> Lowered<()> {
        let given = arguments.iter().map(|a| self.operand(frame, *a)).collect::<Lowered<Vec<_>>>()?;
        let to = match (&self.module.functions[function].result, result) {
            (Some(r), Some(_)) => self.registers_of(&self.module.types[r.ty].inner, Span::UNDEFINED)?,
            _ => Vec::new(),
        };
        let (number, results) = if let Some(callee) = self.callees.get(&function) {
            for (taken, given) in callee.arguments.iter().zip(&given) {
                if let (Value::Registers(taken), Value::Registers(given)) = (taken, given) {
                    self.out.extend(taken.iter().zip(given).map(|(&to, &from)| Instr::Move(to, from)));
                }
            }
            (callee.number, callee.results.clone())
        } else {
            let first = self.next;
            let callee = self.function(&self.module.functions[function], &self.info[function], given)?;
            self.next = first;
            (callee.number, callee.results)
        };
        self.out.push(Instr::Call(number));
        self.out.extend(to.iter().zip(results).map(|(&to, from)| Instr::Move(to, from)));
        if let Some(result) = result {
            frame.values[result.index()] = Some(Value::Registers(to));
        }
        Ok(())
    }

    fn gather(&mut self, frame: &mut Frame<'m>, mode: GatherMode, span: Span) -> Lowered<Gather> {
        let mut register = |handle| Ok(self.value(frame, handle)?[0]);
        Ok(match mode {
            GatherMode::BroadcastFirst => Gather::First,
            GatherMode::Broadcast(at) | GatherMode::Shuffle(at) => Gather::At(register(at)?),
            GatherMode::ShuffleDown(by) => Gather::Down(register(by)?),
            GatherMode::ShuffleUp(by) => Gather::Up(register(by)?),
            GatherMode::ShuffleXor(by) => Gather::Xor(register(by)?),
            _ => return Unknown::new(format!("subgroup operation {mode:?}"), span),
        })
    }

    fn together(
        &mut self,
        frame: &mut Frame<'m>,
        what: Together,
        from: Vec<Reg>,
        result: Handle<Expression>,
        span: Span,
    ) -> Lowered<()> {
        let ty = frame.info[result].ty.inner_with(&self.module.types);
        let to = self.registers_of(ty, span)?;
        let site = self.site("subgroup", span);
        frame.values[result.index()] = Some(Value::Registers(to.clone()));
        self.out.push(Instr::Subgroup(Box::new(Subgroup { what, to, from, site })));
        Ok(())
    }
}

/// Returns the operation of two lanes that a subgroup's is made of, and what it begins with.
fn fold(op: SubgroupOperation, class: Class) -> Option<(Binary, u32)> {
    use {Class::*, SubgroupOperation as Op};
    let infinity = f32::INFINITY.to_bits();
    Some(match (op, class) {
        (Op::All, Bool) => (Binary::And, 1),
        (Op::Any, Bool) => (Binary::Or, 0),
        (Op::Add, Float) => (Binary::FAdd, 0),
        (Op::Add, Signed | Unsigned) => (Binary::IAdd, 0),
        (Op::Mul, Float) => (Binary::FMul, 1f32.to_bits()),
        (Op::Mul, Signed | Unsigned) => (Binary::IMul, 1),
        (Op::Min, Float) => (Binary::FMin, infinity),
        (Op::Min, Signed) => (Binary::SMin, i32::MAX as u32),
        (Op::Min, Unsigned) => (Binary::UMin, u32::MAX),
        (Op::Max, Float) => (Binary::FMax, infinity | 1 << 31),
        (Op::Max, Signed) => (Binary::SMax, i32::MIN as u32),
        (Op::Max, Unsigned) => (Binary::UMax, 0),
        (Op::And, Signed | Unsigned) => (Binary::And, u32::MAX),
        (Op::Or, Signed | Unsigned) => (Binary::Or, 0),
        (Op::Xor, Signed | Unsigned) => (Binary::Xor, 0),
        _ => return None,
    })
}
