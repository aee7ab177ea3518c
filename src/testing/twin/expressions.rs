//! Turns expressions of naga into instructions.

use super::{
    alu::{Binary, Ternary, Unary, Wide},
    code::{From, Index, Instr, Length, Pick, Reg, Root},
    layout::{self, Class},
    lower::{Frame, Lowered, Lowering, Pointer, Unknown, Value, literal},
    operators,
};
use naga::{
    ArraySize, BinaryOperator, Expression, Handle, RelationalFunction, ScalarKind, Span, TypeInner, UnaryOperator,
};

impl<'m> Lowering<'m> {
    /// Returns the registers of a value.
    pub fn value(&mut self, frame: &mut Frame<'m>, handle: Handle<Expression>) -> Lowered<Vec<Reg>> {
        match self.operand(frame, handle)? {
            Value::Registers(registers) => Ok(registers),
            Value::Pointer(_) => Unknown::new("a pointer as a value", frame.function.expressions.get_span(handle)),
        }
    }

    /// Returns a pointer.
    pub fn pointer(&mut self, frame: &mut Frame<'m>, handle: Handle<Expression>) -> Lowered<Pointer> {
        match self.operand(frame, handle)? {
            Value::Pointer(pointer) => Ok(pointer),
            Value::Registers(_) => Unknown::new("a value as a pointer", frame.function.expressions.get_span(handle)),
        }
    }

    /// Returns what an expression is; one that no statement emits is made here.
    pub fn operand(&mut self, frame: &mut Frame<'m>, handle: Handle<Expression>) -> Lowered<Value> {
        if frame.values[handle.index()].is_none() {
            self.emit(frame, handle)?;
        }
        match &frame.values[handle.index()] {
            Some(value) => Ok(value.clone()),
            None => Unknown::new("such an expression", frame.function.expressions.get_span(handle)),
        }
    }

    /// Makes the instructions of an expression.
    pub fn emit(&mut self, frame: &mut Frame<'m>, handle: Handle<Expression>) -> Lowered<()> {
        let span = frame.function.expressions.get_span(handle);
        let value = self.expression(frame, handle, span)?;
        frame.values[handle.index()] = Some(value);
        Ok(())
    }

    fn inner(&self, frame: &Frame<'m>, handle: Handle<Expression>) -> TypeInner {
        frame.info[handle].ty.inner_with(&self.module.types).clone()
    }

    /// Returns the class of an expression and the number of its components.
    fn components(&self, frame: &Frame<'m>, handle: Handle<Expression>, span: Span) -> Lowered<(Class, u32)> {
        let ty = self.inner(frame, handle);
        layout::components(&ty).ok_or_else(|| Unknown(format!("operations on {ty:?}"), span))
    }

    fn expression(&mut self, frame: &mut Frame<'m>, handle: Handle<Expression>, span: Span) -> Lowered<Value> {
        let registers = match &frame.function.expressions[handle] {
            Expression::Literal(l) => match literal(*l) {
                Some(words) => words.iter().map(|w| self.pool[w]).collect(),
                None => return Unknown::new(format!("{l:?}"), span),
            },
            Expression::Constant(constant) => self.constant(self.module.constants[*constant].init, span)?,
            Expression::ZeroValue(ty) => self.zero(&self.module.types[*ty].inner, span)?,
            Expression::Compose { components, .. } => {
                let parts = components.iter().map(|c| self.value(frame, *c)).collect::<Lowered<Vec<_>>>()?;
                parts.concat()
            }
            Expression::Splat { size, value } => self.value(frame, *value)?.repeat(layout::size(*size)),
            Expression::Swizzle { size, vector, pattern } => {
                let (from, words) = (self.value(frame, *vector)?, self.components(frame, *vector, span)?.0.words());
                let of = |c: &naga::SwizzleComponent| from[*c as usize * words as usize..][..words as usize].to_vec();
                pattern[..layout::size(*size)].iter().flat_map(of).collect()
            }
            Expression::Access { base, index } => return self.access(frame, *base, *index, span),
            Expression::AccessIndex { base, index } => return self.access_index(frame, *base, *index, span),
            Expression::FunctionArgument(i) => return Ok(frame.arguments[*i as usize].clone()),
            Expression::GlobalVariable(global) => return Ok(Value::Pointer(self.globals[global].clone())),
            Expression::LocalVariable(local) => return Ok(Value::Pointer(frame.locals[local.index()].clone())),
            Expression::Load { pointer } => {
                let pointer = self.pointer(frame, *pointer)?;
                self.load(&pointer, span)?
            }
            Expression::Unary { op, expr } => self.unary(frame, *op, *expr, span)?,
            Expression::Binary { op, left, right } => self.binary(frame, *op, [*left, *right], span)?,
            Expression::Select { condition, accept, reject } => {
                let [condition, accept, reject] =
                    [self.value(frame, *condition)?, self.value(frame, *accept)?, self.value(frame, *reject)?];
                // A number of two words has one condition.
                let each = accept.len() / condition.len();
                let choose = |(k, (&y, &z)): (usize, (&Reg, &Reg))| (condition[k / each], y, z);
                let all: Vec<_> = accept.iter().zip(&reject).enumerate().map(choose).collect();
                all.into_iter().map(|(x, y, z)| self.ternary(Ternary::Select, [x, y, z])).collect()
            }
            Expression::Relational { fun, argument } => self.relational(frame, *fun, *argument, span)?,
            Expression::Math { fun, arg, arg1, arg2, arg3 } => {
                let arguments: Vec<_> = [Some(*arg), *arg1, *arg2, *arg3].into_iter().flatten().collect();
                let (class, _) = self.components(frame, *arg, span)?;
                let values = arguments.iter().map(|a| self.value(frame, *a)).collect::<Lowered<Vec<_>>>()?;
                match operators::math(self, *fun, class, &values) {
                    Some(registers) => registers,
                    None => return Unknown::new(format!("the function {fun:?} of such numbers"), span),
                }
            }
            Expression::As { expr, kind, convert } => self.convert(frame, *expr, (*kind, *convert), span)?,
            Expression::ArrayLength(pointer) => {
                let Pointer { place, .. } = self.pointer(frame, *pointer)?;
                let Root::Buffer(binding) = place.root else { return Unknown::new("the length of no buffer", span) };
                let to = self.registers(1);
                self.out.push(Instr::Length(to[0], binding));
                to
            }
            // Their statements make them.
            Expression::CallResult(_)
            | Expression::SubgroupBallotResult
            | Expression::SubgroupOperationResult { .. } => {
                return Unknown::new("a result before its statement", span);
            }
            other => {
                let text = format!("{other:?}");
                return Unknown::new(text.split([' ', '(']).next().unwrap_or_default(), span);
            }
        };
        Ok(Value::Registers(registers))
    }

    /// Returns the registers of what a pointer leads to.
    pub fn load(&mut self, pointer: &Pointer, span: Span) -> Lowered<Vec<Reg>> {
        let mut place = pointer.place.clone();
        place.words = self.words(&pointer.ty, pointer.buffer, span)?;
        let to = self.registers(place.words.len());
        match place.root {
            Root::Registers(first) if place.indices.is_empty() => {
                let from = place.words.iter().map(|w| first + place.offset + w);
                self.out.extend(to.iter().zip(from).map(|(&to, from)| Instr::Unary(Unary::Same, to, [from])));
            }
            _ => {
                place.site = self.site(&pointer.variable, span);
                self.out.push(Instr::Load(Box::new(place), to[0]));
            }
        }
        Ok(to)
    }

    /// Writes what a pointer leads to.
    pub fn store(&mut self, pointer: &Pointer, values: Vec<Reg>, span: Span) -> Lowered<()> {
        let mut place = pointer.place.clone();
        place.words = self.words(&pointer.ty, pointer.buffer, span)?;
        match place.root {
            Root::Registers(first) if place.indices.is_empty() => {
                let to = place.words.iter().map(|w| first + place.offset + w);
                self.out.extend(to.zip(values).map(|(to, from)| Instr::Move(to, from)));
            }
            _ => {
                place.site = self.site(&pointer.variable, span);
                self.out.push(Instr::Store(Box::new(place), values));
            }
        }
        Ok(())
    }

    fn access(
        &mut self,
        frame: &mut Frame<'m>,
        base: Handle<Expression>,
        index: Handle<Expression>,
        span: Span,
    ) -> Lowered<Value> {
        let at = self.value(frame, index)?[0];
        match self.operand(frame, base)? {
            Value::Pointer(pointer) => Ok(Value::Pointer(self.element(pointer, From::Register(at), span)?)),
            Value::Registers(from) => {
                let ty = self.inner(frame, base);
                let size =
                    layout::stride(self.module, &ty, false).ok_or(Unknown(format!("indices of {ty:?}"), span))?;
                let to = self.registers(size as usize);
                let text = self.text(frame.function.expressions.get_span(base));
                let site = self.site(frame.function.named_expressions.get(&base).map_or(text, |name| name), span);
                let pick = Pick { to: to[0], index: at, from, size: size as usize, site };
                self.out.push(Instr::Pick(Box::new(pick)));
                Ok(Value::Registers(to))
            }
        }
    }

    /// Returns a pointer to an element of an array or vector.
    fn element(&mut self, mut pointer: Pointer, from: From, span: Span) -> Lowered<Pointer> {
        let unknown = || Unknown(format!("indices of {:?}", pointer.ty), span);
        let length = match pointer.ty {
            TypeInner::Vector { size, .. } => Length::Fixed(size as u32),
            TypeInner::Array { size: ArraySize::Constant(n), .. } => Length::Fixed(n.get()),
            TypeInner::Array { size: ArraySize::Dynamic, .. } => match pointer.place.root {
                Root::Buffer(binding) => Length::Buffer(binding),
                _ => return Err(unknown()),
            },
            _ => return Err(unknown()),
        };
        let stride = layout::stride(self.module, &pointer.ty, pointer.buffer).ok_or_else(unknown)?;
        let ty = layout::part(self.module, &pointer.ty, 0).ok_or_else(unknown)?;
        match (from, length) {
            (From::Fixed(i), Length::Fixed(n)) if i < n => pointer.place.offset += i * stride,
            _ => pointer.place.indices.push(Index { from, stride, length }),
        }
        pointer.ty = ty;
        Ok(pointer)
    }

    fn access_index(
        &mut self,
        frame: &mut Frame<'m>,
        base: Handle<Expression>,
        index: u32,
        span: Span,
    ) -> Lowered<Value> {
        match self.operand(frame, base)? {
            Value::Pointer(mut pointer) => {
                if !matches!(pointer.ty, TypeInner::Struct { .. }) {
                    return Ok(Value::Pointer(self.element(pointer, From::Fixed(index), span)?));
                }
                let offset = layout::offset(self.module, &pointer.ty, index as usize, pointer.buffer);
                let part = layout::part(self.module, &pointer.ty, index as usize);
                let (Some(offset), Some(part)) = (offset, part) else { return Unknown::new("such a member", span) };
                pointer.place.offset += offset;
                pointer.ty = part;
                Ok(Value::Pointer(pointer))
            }
            Value::Registers(from) => {
                let ty = self.inner(frame, base);
                let first = match &ty {
                    TypeInner::Struct { .. } => layout::offset(self.module, &ty, index as usize, false),
                    ty => layout::stride(self.module, ty, false).map(|stride| stride * index),
                };
                let words = layout::part(self.module, &ty, index as usize)
                    .and_then(|part| layout::words(self.module, &part, false));
                let (Some(first), Some(words)) = (first, words) else { return Unknown::new("such a part", span) };
                Ok(Value::Registers(from[first as usize..][..words.len()].to_vec()))
            }
        }
    }

    pub fn one(&mut self, op: Unary, x: Reg) -> Reg {
        let to = self.registers(1)[0];
        self.out.push(Instr::Unary(op, to, [x]));
        to
    }

    pub fn two(&mut self, op: Binary, x: Reg, y: Reg) -> Reg {
        let to = self.registers(1)[0];
        self.out.push(Instr::Binary(op, to, [x, y]));
        to
    }

    pub fn ternary(&mut self, op: Ternary, from: [Reg; 3]) -> Reg {
        let to = self.registers(1)[0];
        self.out.push(Instr::Ternary(op, to, from));
        to
    }

    fn unary(
        &mut self,
        frame: &mut Frame<'m>,
        op: UnaryOperator,
        expr: Handle<Expression>,
        span: Span,
    ) -> Lowered<Vec<Reg>> {
        let (class, _) = self.components(frame, expr, span)?;
        let from = self.value(frame, expr)?;
        let op = match (op, class) {
            (UnaryOperator::Negate, Class::Float) => Unary::FNegate,
            (UnaryOperator::Negate, Class::Signed) => Unary::INegate,
            (UnaryOperator::LogicalNot, _) => Unary::Not,
            (UnaryOperator::BitwiseNot, _) => Unary::Invert,
            _ => return Unknown::new(format!("{op:?} of such numbers"), span),
        };
        Ok(from.into_iter().map(|x| self.one(op, x)).collect())
    }

    fn binary(
        &mut self,
        frame: &mut Frame<'m>,
        op: BinaryOperator,
        sides: [Handle<Expression>; 2],
        span: Span,
    ) -> Lowered<Vec<Reg>> {
        let [(class, n), (_, m)] = [self.components(frame, sides[0], span)?, self.components(frame, sides[1], span)?];
        let [x, y] = [self.value(frame, sides[0])?, self.value(frame, sides[1])?];
        let bits = matches!(op, BinaryOperator::And | BinaryOperator::InclusiveOr | BinaryOperator::ExclusiveOr);
        if class == Class::Wide && !bits {
            let Some(operator) = operators::wide(op) else {
                return Unknown::new(format!("{op:?} of 64-bit numbers"), span);
            };
            return Ok((0..n as usize).flat_map(|k| self.wide(operator, &x[2 * k..], &y, k)).collect());
        }
        let Some((operator, swapped, negated)) = operators::binary(op, class) else {
            return Unknown::new(format!("{op:?} of {class:?}"), span);
        };
        // One of them may be a number for all components of the other.
        let count = (n.max(m) * class.words()) as usize;
        let at = |side: &[Reg], k: usize| if side.len() == 1 { side[0] } else { side[k] };
        let pairs: Vec<_> = (0..count).map(|k| (at(&x, k), at(&y, k))).collect();
        let result = |(x, y): (Reg, Reg)| {
            let to = if swapped { self.two(operator, y, x) } else { self.two(operator, x, y) };
            if negated { self.one(Unary::Not, to) } else { to }
        };
        Ok(pairs.into_iter().map(result).collect())
    }

    /// Returns the result for component `k` of two 64-bit numbers; the second of a shift has 32 bits.
    fn wide(&mut self, (op, flip): (Wide, operators::Flip), x: &[Reg], y: &[Reg], k: usize) -> Vec<Reg> {
        let zero = self.pool[&0];
        let y = match op {
            Wide::Shl | Wide::Shr => [y[k.min(y.len() - 1)], zero],
            _ => [y[2 * k], y[2 * k + 1]],
        };
        let to = self.registers(2);
        let x = [x[0], x[1]];
        let [x, y] = if flip.swapped { [y, x] } else { [x, y] };
        self.out.push(Instr::Wide(op, to[0], [x[0], x[1], y[0], y[1]]));
        match op {
            Wide::Equal | Wide::Less | Wide::LessEqual if flip.negated => vec![self.one(Unary::Not, to[0])],
            Wide::Equal | Wide::Less | Wide::LessEqual => vec![to[0]],
            _ => to,
        }
    }

    fn relational(
        &mut self,
        frame: &mut Frame<'m>,
        fun: RelationalFunction,
        argument: Handle<Expression>,
        span: Span,
    ) -> Lowered<Vec<Reg>> {
        self.components(frame, argument, span)?;
        let from = self.value(frame, argument)?;
        Ok(match fun {
            RelationalFunction::IsNan => from.into_iter().map(|x| self.one(Unary::IsNan, x)).collect(),
            RelationalFunction::IsInf => from.into_iter().map(|x| self.one(Unary::IsInf, x)).collect(),
            RelationalFunction::All => self.folded(Binary::And, from),
            RelationalFunction::Any => self.folded(Binary::Or, from),
        })
    }

    /// Returns the one number that an operation makes of several.
    pub fn folded(&mut self, op: Binary, from: Vec<Reg>) -> Vec<Reg> {
        from.into_iter().reduce(|x, y| self.two(op, x, y)).into_iter().collect()
    }

    fn convert(
        &mut self,
        frame: &mut Frame<'m>,
        expr: Handle<Expression>,
        (kind, bytes): (ScalarKind, Option<u8>),
        span: Span,
    ) -> Lowered<Vec<Reg>> {
        let (from, _) = self.components(frame, expr, span)?;
        let value = self.value(frame, expr)?;
        let Some(width) = bytes else { return Ok(value) };
        let Some(to) = Class::of(naga::Scalar { kind, width }) else { return Unknown::new(format!("{kind:?}"), span) };
        let zero = self.pool[&0];
        let op = match (from, to) {
            (a, b) if a == b => None,
            (Class::Wide, Class::Unsigned | Class::Signed) => return Ok(value.into_iter().step_by(2).collect()),
            (Class::Unsigned | Class::Bool, Class::Wide) => {
                return Ok(value.into_iter().flat_map(|low| [low, zero]).collect());
            }
            (Class::Float, Class::Unsigned) => Some(Unary::FToU),
            (Class::Float, Class::Signed) => Some(Unary::FToI),
            (Class::Unsigned | Class::Bool, Class::Float) => Some(Unary::UToF),
            (Class::Signed, Class::Float) => Some(Unary::IToF),
            (Class::Float, Class::Bool) => Some(Unary::FToBool),
            (Class::Signed | Class::Unsigned, Class::Bool) => Some(Unary::IToBool),
            (Class::Signed | Class::Unsigned | Class::Bool, Class::Signed | Class::Unsigned) => None,
            _ => return Unknown::new(format!("{from:?} as {to:?}"), span),
        };
        Ok(match op {
            None => value,
            Some(op) => value.into_iter().map(|x| self.one(op, x)).collect(),
        })
    }
}
