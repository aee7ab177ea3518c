//! Which operations on words the operators and functions of WGSL are.

use super::{
    alu::{Binary, Ternary, Unary, Wide},
    code::Reg,
    layout::Class,
    lower::Lowering,
};
use naga::{BinaryOperator, MathFunction};

/// How a comparison is made of another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flip {
    pub swapped: bool,
    pub negated: bool,
}

/// Returns an operator's operation, whether its operands are swapped, and whether its result is negated.
pub(super) fn binary(op: BinaryOperator, class: Class) -> Option<(Binary, bool, bool)> {
    use {BinaryOperator as Op, Class::*};
    let pick = |float: Binary, signed: Binary, unsigned: Binary| match class {
        Float => float,
        Signed => signed,
        _ => unsigned,
    };
    let equal = pick(Binary::FEqual, Binary::IEqual, Binary::IEqual);
    let less = pick(Binary::FLess, Binary::SLess, Binary::ULess);
    let less_equal = pick(Binary::FLessEqual, Binary::SLessEqual, Binary::ULessEqual);
    let is_number = matches!(class, Float | Signed | Unsigned);
    Some(match op {
        Op::Equal => (equal, false, false),
        Op::NotEqual => (equal, false, true),
        Op::And | Op::LogicalAnd => (Binary::And, false, false),
        Op::InclusiveOr | Op::LogicalOr => (Binary::Or, false, false),
        Op::ExclusiveOr => (Binary::Xor, false, false),
        _ if !is_number => return None,
        Op::Less => (less, false, false),
        Op::Greater => (less, true, false),
        Op::LessEqual => (less_equal, false, false),
        Op::GreaterEqual => (less_equal, true, false),
        Op::Add => (pick(Binary::FAdd, Binary::IAdd, Binary::IAdd), false, false),
        Op::Subtract => (pick(Binary::FSub, Binary::ISub, Binary::ISub), false, false),
        Op::Multiply => (pick(Binary::FMul, Binary::IMul, Binary::IMul), false, false),
        Op::Divide => (pick(Binary::FDiv, Binary::SDiv, Binary::UDiv), false, false),
        Op::Modulo => (pick(Binary::FRem, Binary::SRem, Binary::URem), false, false),
        Op::ShiftLeft => (Binary::Shl, false, false),
        Op::ShiftRight => (pick(Binary::UShr, Binary::SShr, Binary::UShr), false, false),
    })
}

/// Returns an operator's operation on 64-bit numbers.
pub(super) fn wide(op: BinaryOperator) -> Option<(Wide, Flip)> {
    use BinaryOperator as Op;
    let (wide, swapped, negated) = match op {
        Op::Add => (Wide::Add, false, false),
        Op::Subtract => (Wide::Sub, false, false),
        Op::Multiply => (Wide::Mul, false, false),
        Op::ShiftLeft => (Wide::Shl, false, false),
        Op::ShiftRight => (Wide::Shr, false, false),
        Op::Equal => (Wide::Equal, false, false),
        Op::NotEqual => (Wide::Equal, false, true),
        Op::Less => (Wide::Less, false, false),
        Op::Greater => (Wide::Less, true, false),
        Op::LessEqual => (Wide::LessEqual, false, false),
        Op::GreaterEqual => (Wide::LessEqual, true, false),
        _ => return None,
    };
    Some((wide, Flip { swapped, negated }))
}

/// Returns the function of one number that a function is.
fn one(fun: MathFunction, class: Class) -> Option<Unary> {
    use {Class::*, MathFunction as Fn};
    if class != Float {
        return Some(match (fun, class) {
            (Fn::Abs, Unsigned) => Unary::Same,
            (Fn::Abs, Signed) => Unary::IAbs,
            (Fn::Sign, Signed) => Unary::ISign,
            (Fn::CountOneBits, _) => Unary::CountOnes,
            (Fn::CountLeadingZeros, _) => Unary::LeadingZeros,
            (Fn::CountTrailingZeros, _) => Unary::TrailingZeros,
            (Fn::ReverseBits, _) => Unary::Reverse,
            (Fn::FirstTrailingBit, _) => Unary::FirstTrailing,
            (Fn::FirstLeadingBit, Unsigned) => Unary::UFirstLeading,
            (Fn::FirstLeadingBit, Signed) => Unary::SFirstLeading,
            _ => return None,
        });
    }
    Some(match fun {
        Fn::Abs => Unary::FAbs,
        Fn::Sign => Unary::FSign,
        Fn::Ceil => Unary::Ceil,
        Fn::Floor => Unary::Floor,
        Fn::Round => Unary::Round,
        Fn::Trunc => Unary::Trunc,
        Fn::Fract => Unary::Fract,
        Fn::Saturate => Unary::Saturate,
        Fn::Sqrt => Unary::Sqrt,
        Fn::InverseSqrt => Unary::InverseSqrt,
        Fn::Exp => Unary::Exp,
        Fn::Exp2 => Unary::Exp2,
        Fn::Log => Unary::Log,
        Fn::Log2 => Unary::Log2,
        Fn::Sin => Unary::Sin,
        Fn::Cos => Unary::Cos,
        Fn::Tan => Unary::Tan,
        Fn::Asin => Unary::Asin,
        Fn::Acos => Unary::Acos,
        Fn::Atan => Unary::Atan,
        Fn::Sinh => Unary::Sinh,
        Fn::Cosh => Unary::Cosh,
        Fn::Tanh => Unary::Tanh,
        Fn::Asinh => Unary::Asinh,
        Fn::Acosh => Unary::Acosh,
        Fn::Atanh => Unary::Atanh,
        Fn::Radians => Unary::Radians,
        Fn::Degrees => Unary::Degrees,
        _ => return None,
    })
}

/// Returns the function of two numbers that a function is.
fn two(fun: MathFunction, class: Class) -> Option<Binary> {
    use {Class::*, MathFunction as Fn};
    Some(match (fun, class) {
        (Fn::Min, Float) => Binary::FMin,
        (Fn::Min, Signed) => Binary::SMin,
        (Fn::Min, Unsigned) => Binary::UMin,
        (Fn::Max, Float) => Binary::FMax,
        (Fn::Max, Signed) => Binary::SMax,
        (Fn::Max, Unsigned) => Binary::UMax,
        (Fn::Pow, Float) => Binary::Pow,
        (Fn::Atan2, Float) => Binary::Atan2,
        (Fn::Step, Float) => Binary::Step,
        _ => return None,
    })
}

/// Returns the function of three numbers that a function is.
fn three(fun: MathFunction, class: Class) -> Option<Ternary> {
    use {Class::*, MathFunction as Fn};
    Some(match (fun, class) {
        (Fn::Clamp, Float) => Ternary::FClamp,
        (Fn::Clamp, Signed) => Ternary::SClamp,
        (Fn::Clamp, Unsigned) => Ternary::UClamp,
        (Fn::Fma, Float) => Ternary::Fma,
        (Fn::Mix, Float) => Ternary::Mix,
        _ => return None,
    })
}

/// Makes the instructions of a function, and returns its result.
pub(super) fn math(to: &mut Lowering, fun: MathFunction, class: Class, values: &[Vec<Reg>]) -> Option<Vec<Reg>> {
    match (fun, values) {
        (MathFunction::Dot, [x, y]) => {
            let (multiply, add) = match class {
                Class::Float => (Binary::FMul, Binary::FAdd),
                _ => (Binary::IMul, Binary::IAdd),
            };
            let products = x.iter().zip(y).map(|(&x, &y)| to.two(multiply, x, y)).collect();
            Some(to.folded(add, products))
        }
        (MathFunction::Length, [x]) => {
            let squares = x.iter().map(|&x| to.two(Binary::FMul, x, x)).collect();
            let sum = to.folded(Binary::FAdd, squares);
            Some(vec![to.one(Unary::Sqrt, *sum.first()?)])
        }
        (MathFunction::Unpack2x16float, [x]) => {
            Some([Unary::HalfLow, Unary::HalfHigh].map(|half| to.one(half, x[0])).to_vec())
        }
        (MathFunction::Pack2x16float, [x]) => Some(vec![to.two(Binary::PackHalf, x[0], x[1])]),
        (_, [x]) => {
            let op = one(fun, class)?;
            Some(x.iter().map(|&x| to.one(op, x)).collect())
        }
        (_, [x, y]) => {
            let op = two(fun, class)?;
            Some(x.iter().zip(y).map(|(&x, &y)| to.two(op, x, y)).collect())
        }
        (_, [x, y, z]) => {
            let op = three(fun, class)?;
            // The last operand of a mix may be one number for all.
            let z = |k: usize| if z.len() == 1 { z[0] } else { z[k] };
            Some(x.iter().zip(y).enumerate().map(|(k, (&x, &y))| to.ternary(op, [x, y, z(k)])).collect())
        }
        _ => None,
    }
}
