//! Typed WGSL expressions: built by operators and methods, folded where they are known, printed with few parentheses.

use crate::graph::wgsl_f32;
use std::{fmt, sync::Arc};

/// A scalar of WGSL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scalar {
    /// true or false.
    Bool,
    /// A 32-bit float.
    F32,
    /// A 32-bit integer.
    I32,
    /// A 32-bit integer without a sign.
    U32,
    /// A 64-bit integer without a sign.
    U64,
}

/// The type of a value: a scalar, or a vector of 2 or 4 of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Type {
    /// Of what.
    pub scalar: Scalar,
    /// How many: 1, 2 or 4.
    pub width: usize,
}

impl Type {
    /// bool
    pub const BOOL: Type = Type { scalar: Scalar::Bool, width: 1 };
    /// f32
    pub const F32: Type = Type { scalar: Scalar::F32, width: 1 };
    /// i32
    pub const I32: Type = Type { scalar: Scalar::I32, width: 1 };
    /// u32
    pub const U32: Type = Type { scalar: Scalar::U32, width: 1 };
    /// u64
    pub const U64: Type = Type { scalar: Scalar::U64, width: 1 };

    /// Returns the vector of `width` of this scalar, or with 1 the scalar.
    pub fn vector(self, width: usize) -> Type {
        Type { width, ..self }
    }

    /// Returns a vector whose components are all `value`; `value` itself, if it has as many already.
    pub fn splat(self, value: impl Into<Expr>) -> Expr {
        let value = value.into();
        if self.width == value.ty.width { value } else { Expr::call(&self.to_string(), self, [value]) }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scalar = match self.scalar {
            Scalar::Bool => "bool",
            Scalar::F32 => "f32",
            Scalar::I32 => "i32",
            Scalar::U32 => "u32",
            Scalar::U64 => "u64",
        };
        if self.width == 1 { f.write_str(scalar) } else { write!(f, "vec{}<{scalar}>", self.width) }
    }
}

/// A binary operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
    Shl,
    Shr,
    BitAnd,
    BitOr,
    BitXor,
    Less,
    LessEqual,
    Equal,
    NotEqual,
    And,
    Or,
}

impl Op {
    /// Returns the operator, how tightly it binds, and how tightly its operands must.
    ///
    /// WGSL has no order between the groups of operators that bind 0 to 3; they need parentheses within one another.
    fn syntax(self) -> (&'static str, u8, [u8; 2]) {
        match self {
            Op::Mul => ("*", 8, [8, 9]),
            Op::Div => ("/", 8, [8, 9]),
            Op::Rem => ("%", 8, [8, 9]),
            Op::Add => ("+", 7, [7, 8]),
            Op::Sub => ("-", 7, [7, 8]),
            Op::Shl => ("<<", 6, [9, 9]),
            Op::Shr => (">>", 6, [9, 9]),
            Op::Less => ("<", 4, [6, 6]),
            Op::LessEqual => ("<=", 4, [6, 6]),
            Op::Equal => ("==", 4, [6, 6]),
            Op::NotEqual => ("!=", 4, [6, 6]),
            Op::And => ("&&", 3, [3, 4]),
            Op::Or => ("||", 2, [2, 4]),
            Op::BitAnd => ("&", 0, [9, 9]),
            Op::BitOr => ("|", 0, [9, 9]),
            Op::BitXor => ("^", 0, [9, 9]),
        }
    }
}

#[derive(Debug)]
pub(super) enum Node {
    Int(i64),
    Float(f32),
    Bool(bool),
    Name(String),
    /// A number of the launch, by its name.
    Extent(&'static str, u32),
    /// WGSL that is no name, such as a row of the elementwise table.
    Text(String),
    Not(Expr),
    Negate(Expr),
    Binary(Op, Expr, Expr),
    Call(String, Vec<Expr>),
    Index(Expr, Expr),
    Component(Expr, usize),
}

/// A value in a kernel: its type and how it is computed.
///
/// Integers that are known are folded, so that generators need no special cases for strides of 1 or offsets of 0.
///
/// ```
/// use hubel::kernels::{Expr, Type};
/// let row = Expr::name("row", Type::U32);
/// assert_eq!((&row * 1u32 + 0u32).to_string(), "row");
/// assert_eq!(((&row + 2u32) * 3u32 % 7u32).to_string(), "(row + 2u) * 3u % 7u");
/// ```
#[derive(Debug, Clone)]
pub struct Expr {
    pub(super) node: Arc<Node>,
    pub(super) ty: Type,
}

impl Expr {
    fn new(ty: Type, node: Node) -> Expr {
        Expr { node: Arc::new(node), ty }
    }

    /// Returns a variable, parameter or constant that the kernel declares.
    pub fn name(name: impl Into<String>, ty: Type) -> Expr {
        Expr::new(ty, Node::Name(name.into()))
    }

    /// Returns a number that differs between launches of one kernel: the kernel reads it from the launch's uniform buffer of extents.
    /// A kernel has one extent of a name.
    pub fn extent(name: &'static str, value: u64) -> Expr {
        Expr::new(Type::U32, Node::Extent(name, u32::try_from(value).unwrap_or(u32::MAX)))
    }

    /// Returns an expression that is WGSL already.
    pub fn text(text: impl Into<String>, ty: Type) -> Expr {
        Expr::new(ty, Node::Text(text.into()))
    }

    /// Returns a call of a function of WGSL, of `shaders/shared` or of the kernel.
    pub fn call(function: &str, ty: Type, arguments: impl IntoIterator<Item = Expr>) -> Expr {
        Expr::new(ty, Node::Call(function.to_owned(), arguments.into_iter().collect()))
    }

    /// Returns the vector of these components; the component itself, if it is one.
    pub fn vector(components: Vec<Expr>) -> Expr {
        let ty = components.first().map_or(Type::F32, |c| c.ty).vector(components.len());
        match <[Expr; 1]>::try_from(components) {
            Ok([one]) => one,
            Err(components) => Expr::call(&ty.to_string(), ty, components),
        }
    }

    fn int(value: i64, ty: Type) -> Expr {
        Expr::new(ty, Node::Int(value))
    }

    /// Returns the type.
    pub fn ty(&self) -> Type {
        self.ty
    }

    /// Returns the value, if it is an integer that is known.
    pub fn known(&self) -> Option<i64> {
        if let Node::Int(value) = *self.node { Some(value) } else { None }
    }

    /// Returns whether this is no more than a name.
    pub(super) fn is_name(&self) -> bool {
        matches!(*self.node, Node::Name(_))
    }

    /// Returns the value, if it is a condition that is known.
    pub(in crate::kernels) fn known_bool(&self) -> Option<bool> {
        if let Node::Bool(value) = *self.node { Some(value) } else { None }
    }

    /// Returns element `index` of an array or component of a vector.
    pub fn at(&self, index: impl Into<Expr>) -> Expr {
        Expr::new(self.ty.vector(1), Node::Index(self.clone(), index.into()))
    }

    /// Returns element `index` of an array of elements of type `ty`.
    pub(super) fn element(&self, index: impl Into<Expr>, ty: Type) -> Expr {
        Expr::new(ty, Node::Index(self.clone(), index.into()))
    }

    /// Returns component `i` of a vector; a scalar is its own component 0.
    pub fn component(&self, i: usize) -> Expr {
        if self.ty.width == 1 { self.clone() } else { Expr::new(self.ty.vector(1), Node::Component(self.clone(), i)) }
    }

    /// Returns the number as another type of 32 bits, converted.
    pub fn cast(&self, ty: Type) -> Expr {
        match (self.known(), ty.scalar) {
            _ if self.ty == ty => self.clone(),
            (Some(value), Scalar::U32) => Expr::int(i64::from(value as u32), ty),
            (Some(value), Scalar::I32) => Expr::int(i64::from(value as i32), ty),
            _ => Expr::call(&ty.to_string(), ty, [self.clone()]),
        }
    }

    /// Returns the number as u32.
    pub fn u32(&self) -> Expr {
        self.cast(Type::U32)
    }

    /// Returns the number as i32.
    pub fn i32(&self) -> Expr {
        self.cast(Type::I32)
    }

    /// Returns the number as f32.
    pub fn f32(&self) -> Expr {
        self.cast(Type::F32)
    }

    /// Returns the smaller of two numbers.
    pub fn min(&self, other: impl Into<Expr>) -> Expr {
        let (a, b) = matched(self.clone(), other.into());
        match (a.known(), b.known()) {
            (Some(x), Some(y)) => {
                if x <= y {
                    a
                } else {
                    b
                }
            }
            (Some(0), _) if a.ty == Type::U32 => a,
            (_, Some(0)) if b.ty == Type::U32 => b,
            _ => Expr::call("min", a.ty, [a.clone(), b]),
        }
    }

    /// Returns the larger of two numbers.
    pub fn max(&self, other: impl Into<Expr>) -> Expr {
        let (a, b) = matched(self.clone(), other.into());
        match (a.known(), b.known()) {
            (Some(x), Some(y)) => {
                if x >= y {
                    a
                } else {
                    b
                }
            }
            (Some(0), _) if a.ty == Type::U32 => b,
            (_, Some(0)) if b.ty == Type::U32 => a,
            _ => Expr::call("max", a.ty, [a.clone(), b]),
        }
    }

    /// Returns `yes` where this condition holds, else `no`.
    pub fn select(&self, yes: impl Into<Expr>, no: impl Into<Expr>) -> Expr {
        let (yes, no) = matched(yes.into(), no.into());
        match self.known_bool() {
            Some(true) => yes,
            Some(false) => no,
            None => Expr::call("select", yes.ty, [no, yes.clone(), self.clone()]),
        }
    }

    /// Returns whether this number is less than the other.
    pub fn less(&self, other: impl Into<Expr>) -> Expr {
        compare(Op::Less, self.clone(), other.into())
    }

    /// Returns whether this number is at least the other.
    pub fn at_least(&self, other: impl Into<Expr>) -> Expr {
        compare(Op::LessEqual, other.into(), self.clone())
    }

    /// Returns whether two numbers are equal.
    pub fn equals(&self, other: impl Into<Expr>) -> Expr {
        compare(Op::Equal, self.clone(), other.into())
    }

    /// Returns whether two numbers differ.
    pub fn differs(&self, other: impl Into<Expr>) -> Expr {
        compare(Op::NotEqual, self.clone(), other.into())
    }

    /// Returns whether both conditions hold.
    pub fn and(&self, other: impl Into<Expr>) -> Expr {
        let other = other.into();
        match (self.known_bool(), other.known_bool()) {
            (Some(true), _) | (_, Some(false)) => other,
            (Some(false), _) | (_, Some(true)) => self.clone(),
            _ => Expr::new(Type::BOOL, Node::Binary(Op::And, self.clone(), other)),
        }
    }

    /// Returns whether one of two conditions holds.
    pub fn or(&self, other: impl Into<Expr>) -> Expr {
        let other = other.into();
        match (self.known_bool(), other.known_bool()) {
            (Some(false), _) | (_, Some(true)) => other,
            (Some(true), _) | (_, Some(false)) => self.clone(),
            _ => Expr::new(Type::BOOL, Node::Binary(Op::Or, self.clone(), other)),
        }
    }

    /// Calls `f` with every name that the expression reads; of WGSL text, with every identifier.
    pub(super) fn names(&self, f: &mut dyn FnMut(&str)) {
        match &*self.node {
            Node::Name(name) => f(name),
            Node::Text(text) => super::link::identifiers(text).for_each(f),
            Node::Not(a) | Node::Negate(a) | Node::Component(a, _) => a.names(f),
            Node::Binary(_, a, b) | Node::Index(a, b) => {
                a.names(f);
                b.names(f);
            }
            Node::Call(name, arguments) => {
                f(name);
                arguments.iter().for_each(|a| a.names(f));
            }
            Node::Extent(name, _) => f(name),
            Node::Int(_) | Node::Float(_) | Node::Bool(_) => {}
        }
    }

    /// Adds the extents that the expression reads and that are not there.
    pub(super) fn extents(&self, all: &mut Vec<(&'static str, u32)>) {
        match &*self.node {
            Node::Extent(name, value) if !all.contains(&(name, *value)) => all.push((name, *value)),
            Node::Not(a) | Node::Negate(a) | Node::Component(a, _) => a.extents(all),
            Node::Binary(_, a, b) | Node::Index(a, b) => {
                a.extents(all);
                b.extents(all);
            }
            Node::Call(_, arguments) => arguments.iter().for_each(|a| a.extents(all)),
            _ => {}
        }
    }

    /// Writes the expression where what it stands in binds as tightly as `within`.
    fn write(&self, out: &mut String, within: u8) {
        match &*self.node {
            Node::Int(value) if self.ty.scalar == Scalar::U32 => *out += &format!("{value}u"),
            Node::Int(value) => *out += &value.to_string(),
            Node::Float(value) => *out += &wgsl_f32(*value),
            Node::Bool(value) => *out += &value.to_string(),
            Node::Name(name) => *out += name,
            Node::Extent(name, _) => *out += name,
            Node::Text(text) if within == 0 => *out += text,
            Node::Text(text) => *out += &format!("({text})"),
            Node::Not(a) => {
                out.push('!');
                a.write(out, 9);
            }
            Node::Negate(a) => {
                out.push('-');
                a.write(out, 10);
            }
            Node::Binary(op, a, b) => {
                let (text, binds, [left, right]) = op.syntax();
                let open = binds < within;
                if open {
                    out.push('(');
                }
                let left = if matches!(op, Op::Or) && a.is(Op::And) { 4 } else { left };
                a.write(out, left);
                *out += &format!(" {text} ");
                b.write(out, right);
                if open {
                    out.push(')');
                }
            }
            Node::Call(name, arguments) => {
                *out += name;
                out.push('(');
                for (i, argument) in arguments.iter().enumerate() {
                    if i > 0 {
                        *out += ", ";
                    }
                    argument.write(out, 0);
                }
                out.push(')');
            }
            Node::Index(a, index) => {
                a.write(out, 10);
                out.push('[');
                index.write(out, 0);
                out.push(']');
            }
            Node::Component(a, i) => {
                a.write(out, 10);
                *out += [".x", ".y", ".z", ".w"][*i];
            }
        }
    }

    fn is(&self, op: Op) -> bool {
        matches!(*self.node, Node::Binary(o, ..) if o == op)
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write(&mut text, 0);
        f.write_str(&text)
    }
}

/// Returns two operands with a known integer in the type of the other operand.
pub(super) fn matched(a: Expr, b: Expr) -> (Expr, Expr) {
    match (a.known(), b.known()) {
        _ if a.ty == b.ty => (a, b),
        (_, Some(value)) => (a.clone(), Expr::int(value, a.ty)),
        (Some(value), _) => (Expr::int(value, b.ty), b),
        _ => (a, b),
    }
}

fn compare(op: Op, a: Expr, b: Expr) -> Expr {
    let (a, b) = matched(a, b);
    let known = match (a.known(), b.known(), op) {
        (Some(x), Some(y), Op::Less) => Some(x < y),
        (Some(x), Some(y), Op::LessEqual) => Some(x <= y),
        (Some(x), Some(y), Op::Equal) => Some(x == y),
        (Some(x), Some(y), _) => Some(x != y),
        (Some(0), _, Op::LessEqual) if b.ty == Type::U32 => Some(true),
        _ => None,
    };
    known.map_or_else(|| Expr::new(Type::BOOL, Node::Binary(op, a, b)), Expr::from)
}

fn binary(op: Op, a: Expr, b: Expr) -> Expr {
    let (a, b) = matched(a, b);
    let ty = if a.ty.width >= b.ty.width { a.ty } else { b.ty };
    let int = |value: i64| Expr::int(value, ty);
    if let (Some(x), Some(y)) = (a.known(), b.known()) {
        let value = match op {
            Op::Add => Some(x + y),
            Op::Sub => Some(x - y).filter(|v| *v >= 0 || ty == Type::I32),
            Op::Mul => Some(x * y),
            Op::Div => x.checked_div(y),
            Op::Rem => x.checked_rem(y),
            _ => None,
        };
        if let Some(value) = value {
            return int(value);
        }
    }
    match (op, a.known(), b.known()) {
        (Op::Add, Some(0), _) | (Op::Mul, Some(1), _) => b,
        (Op::Add | Op::Sub | Op::Shl | Op::Shr, _, Some(0)) | (Op::Mul | Op::Div, _, Some(1)) => a,
        (Op::Mul, Some(0), _) | (Op::Mul, _, Some(0)) | (Op::Rem, _, Some(1)) => int(0),
        (Op::Add, Some(_), None) => binary(Op::Add, b, a),
        (Op::Add | Op::Sub, _, Some(y)) => offset(a, if op == Op::Add { y } else { -y }, ty),
        _ => Expr::new(ty, Node::Binary(op, a, b)),
    }
}

/// Returns `a + by`, with the constants of a sum together.
fn offset(a: Expr, by: i64, ty: Type) -> Expr {
    if let Node::Binary(inner @ (Op::Add | Op::Sub), x, y) = &*a.node
        && let Some(y) = y.known()
    {
        let all = by + if *inner == Op::Add { y } else { -y };
        return match all {
            0 => x.clone(),
            _ => offset(x.clone(), all, ty),
        };
    }
    let (op, by) = if by < 0 { (Op::Sub, -by) } else { (Op::Add, by) };
    Expr::new(ty, Node::Binary(op, a, Expr::int(by, ty)))
}

macro_rules! operators {
    ($($name:ident $method:ident)*) => { $(
        impl<T: Into<Expr>> std::ops::$name<T> for Expr {
            type Output = Expr;
            fn $method(self, other: T) -> Expr {
                binary(Op::$name, self, other.into())
            }
        }
        impl<T: Into<Expr>> std::ops::$name<T> for &Expr {
            type Output = Expr;
            fn $method(self, other: T) -> Expr {
                binary(Op::$name, self.clone(), other.into())
            }
        }
    )* };
}
operators! { Add add Sub sub Mul mul Div div Rem rem Shl shl Shr shr BitAnd bitand BitOr bitor BitXor bitxor }

impl std::iter::Sum for Expr {
    fn sum<I: Iterator<Item = Expr>>(terms: I) -> Expr {
        terms.fold(Expr::from(0u32), |sum, term| sum + term)
    }
}

impl std::ops::Not for Expr {
    type Output = Expr;
    fn not(self) -> Expr {
        Expr::new(self.ty, Node::Not(self))
    }
}

impl std::ops::Neg for Expr {
    type Output = Expr;
    fn neg(self) -> Expr {
        Expr::new(self.ty, Node::Negate(self))
    }
}

impl From<&Expr> for Expr {
    fn from(e: &Expr) -> Expr {
        e.clone()
    }
}

impl From<bool> for Expr {
    fn from(value: bool) -> Expr {
        Expr::new(Type::BOOL, Node::Bool(value))
    }
}

impl From<f32> for Expr {
    fn from(value: f32) -> Expr {
        Expr::new(Type::F32, Node::Float(value))
    }
}

macro_rules! integers {
    ($($from:ty => $ty:ident)*) => { $(
        impl From<$from> for Expr {
            fn from(value: $from) -> Expr {
                Expr::int(value as i64, Type::$ty)
            }
        }
    )* };
}
integers! { u32 => U32 u64 => U32 usize => U32 i32 => I32 i64 => I32 }
