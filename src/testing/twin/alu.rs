//! Arithmetic on registers.

use half::f16;

/// Declares operations on 32-bit words, and how each runs on many.
macro_rules! operations {
    ($name:ident, $n:literal, $each:ident, $from:pat_param, $($op:ident => $value:expr,)+) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum $name { $($op),+ }

        impl $name {
            /// Sets each word of `to`.
            pub fn run(self, to: &mut [u32], from: [&[u32]; $n]) {
                match self { $($name::$op => $each(to, from, |$from| $value),)+ }
            }
        }
    };
}

#[inline(always)]
fn each1(to: &mut [u32], [x]: [&[u32]; 1], value: impl Fn([u32; 1]) -> u32) {
    for (to, &x) in to.iter_mut().zip(x) {
        *to = value([x]);
    }
}

#[inline(always)]
fn each2(to: &mut [u32], [x, y]: [&[u32]; 2], value: impl Fn([u32; 2]) -> u32) {
    for ((to, &x), &y) in to.iter_mut().zip(x).zip(y) {
        *to = value([x, y]);
    }
}

#[inline(always)]
fn each3(to: &mut [u32], [x, y, z]: [&[u32]; 3], value: impl Fn([u32; 3]) -> u32) {
    for (((to, &x), &y), &z) in to.iter_mut().zip(x).zip(y).zip(z) {
        *to = value([x, y, z]);
    }
}

#[inline(always)]
fn f(x: u32) -> f32 {
    f32::from_bits(x)
}

#[inline(always)]
fn i(x: u32) -> i32 {
    x as i32
}

fn sign(x: f32) -> f32 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        0.0
    }
}

operations! { Unary, 1, each1, [x],
    Same => x,
    FNegate => x ^ (1 << 31),
    INegate => x.wrapping_neg(),
    Not => u32::from(x == 0),
    Invert => !x,
    FAbs => x & !(1 << 31),
    IAbs => i(x).wrapping_abs() as u32,
    FSign => sign(f(x)).to_bits(),
    ISign => i(x).signum() as u32,
    Ceil => f(x).ceil().to_bits(),
    Floor => f(x).floor().to_bits(),
    Round => f(x).round_ties_even().to_bits(),
    Trunc => f(x).trunc().to_bits(),
    Fract => (f(x) - f(x).floor()).to_bits(),
    Saturate => f(x).clamp(0.0, 1.0).to_bits(),
    Sqrt => f(x).sqrt().to_bits(),
    InverseSqrt => (1.0 / f(x).sqrt()).to_bits(),
    Exp => f(x).exp().to_bits(),
    Exp2 => f(x).exp2().to_bits(),
    Log => f(x).ln().to_bits(),
    Log2 => f(x).log2().to_bits(),
    Sin => f(x).sin().to_bits(),
    Cos => f(x).cos().to_bits(),
    Tan => f(x).tan().to_bits(),
    Asin => f(x).asin().to_bits(),
    Acos => f(x).acos().to_bits(),
    Atan => f(x).atan().to_bits(),
    Sinh => f(x).sinh().to_bits(),
    Cosh => f(x).cosh().to_bits(),
    Tanh => f(x).tanh().to_bits(),
    Asinh => f(x).asinh().to_bits(),
    Acosh => f(x).acosh().to_bits(),
    Atanh => f(x).atanh().to_bits(),
    Radians => f(x).to_radians().to_bits(),
    Degrees => f(x).to_degrees().to_bits(),
    CountOnes => x.count_ones(),
    LeadingZeros => x.leading_zeros(),
    TrailingZeros => x.trailing_zeros(),
    Reverse => x.reverse_bits(),
    FirstTrailing => if x == 0 { u32::MAX } else { x.trailing_zeros() },
    UFirstLeading => 31u32.wrapping_sub(x.leading_zeros()),
    SFirstLeading => 31u32.wrapping_sub((x ^ (i(x) >> 31) as u32).leading_zeros()),
    IsNan => u32::from(f(x).is_nan()),
    IsInf => u32::from(f(x).is_infinite()),
    HalfLow => f16::from_bits(x as u16).to_f32().to_bits(),
    HalfHigh => f16::from_bits((x >> 16) as u16).to_f32().to_bits(),
    FToU => f(x) as u32,
    FToI => f(x) as i32 as u32,
    UToF => (x as f32).to_bits(),
    IToF => (i(x) as f32).to_bits(),
    FToBool => u32::from(f(x) != 0.0),
    IToBool => u32::from(x != 0),
}

operations! { Binary, 2, each2, [x, y],
    FAdd => (f(x) + f(y)).to_bits(),
    FSub => (f(x) - f(y)).to_bits(),
    FMul => (f(x) * f(y)).to_bits(),
    FDiv => (f(x) / f(y)).to_bits(),
    FRem => (f(x) % f(y)).to_bits(),
    FMin => f(x).min(f(y)).to_bits(),
    FMax => f(x).max(f(y)).to_bits(),
    FEqual => u32::from(f(x) == f(y)),
    FLess => u32::from(f(x) < f(y)),
    FLessEqual => u32::from(f(x) <= f(y)),
    IAdd => x.wrapping_add(y),
    ISub => x.wrapping_sub(y),
    IMul => x.wrapping_mul(y),
    // A division by zero gives its first operand.
    UDiv => x.checked_div(y).unwrap_or(x),
    URem => x.checked_rem(y).unwrap_or(0),
    SDiv => i(x).checked_div(i(y)).unwrap_or(i(x)) as u32,
    SRem => i(x).checked_rem(i(y)).unwrap_or(0) as u32,
    UMin => x.min(y),
    UMax => x.max(y),
    SMin => i(x).min(i(y)) as u32,
    SMax => i(x).max(i(y)) as u32,
    IEqual => u32::from(x == y),
    ULess => u32::from(x < y),
    ULessEqual => u32::from(x <= y),
    SLess => u32::from(i(x) < i(y)),
    SLessEqual => u32::from(i(x) <= i(y)),
    And => x & y,
    Or => x | y,
    Xor => x ^ y,
    Shl => x.wrapping_shl(y),
    UShr => x.wrapping_shr(y),
    SShr => i(x).wrapping_shr(y) as u32,
    Pow => f(x).powf(f(y)).to_bits(),
    Atan2 => f(x).atan2(f(y)).to_bits(),
    Step => if f(x) <= f(y) { 1f32.to_bits() } else { 0 },
    PackHalf => u32::from(f16::from_f32(f(x)).to_bits()) | u32::from(f16::from_f32(f(y)).to_bits()) << 16,
}

operations! { Ternary, 3, each3, [x, y, z],
    // y where x holds, else z.
    Select => if x != 0 { y } else { z },
    Fma => f(x).mul_add(f(y), f(z)).to_bits(),
    Mix => (f(x) * (1.0 - f(z)) + f(y) * f(z)).to_bits(),
    FClamp => f(x).max(f(y)).min(f(z)).to_bits(),
    UClamp => x.max(y).min(z),
    SClamp => i(x).max(i(y)).min(i(z)) as u32,
}

/// Operations on 64-bit words without sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wide {
    Add,
    Sub,
    Mul,
    Shl,
    Shr,
    Equal,
    Less,
    LessEqual,
}

impl Wide {
    /// Returns the low and the high word of the result.
    pub fn at(self, [x, x_high, y, y_high]: [u32; 4]) -> [u32; 2] {
        let word = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let (a, b) = (word(x, x_high), word(y, y_high));
        let result = match self {
            Wide::Add => a.wrapping_add(b),
            Wide::Sub => a.wrapping_sub(b),
            Wide::Mul => a.wrapping_mul(b),
            Wide::Shl => a.wrapping_shl(y),
            Wide::Shr => a.wrapping_shr(y),
            Wide::Equal => u64::from(a == b),
            Wide::Less => u64::from(a < b),
            Wide::LessEqual => u64::from(a <= b),
        };
        [result as u32, (result >> 32) as u32]
    }
}
