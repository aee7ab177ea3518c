//! A kernel as the twin runs it: every number of 32 bits that an expression gives has a register of its own, with a
//! number for each lane; vectors, arrays and structs are lists of registers.

use super::alu::{Binary, Ternary, Unary, Wide};
use naga::BuiltIn;
use std::ops::Range;

/// Number of a register.
pub(super) type Reg = u32;

/// Instructions in order.
pub(super) type Block = Vec<Instr>;

/// One instruction. A register that is computed is larger than those it is computed from; `Move` alone goes any way.
#[derive(Debug)]
pub(super) enum Instr {
    Unary(Unary, Reg, [Reg; 1]),
    Binary(Binary, Reg, [Reg; 2]),
    Ternary(Ternary, Reg, [Reg; 3]),
    /// 64-bit numbers, low words first; the result has two registers.
    Wide(Wide, Reg, [Reg; 4]),
    /// Sets a register of the active lanes alone.
    Move(Reg, Reg),
    /// Sets registers to an element of a value.
    Pick(Box<Pick>),
    Load(Box<Place>, Reg),
    Store(Box<Place>, Vec<Reg>),
    /// The length of a buffer's array.
    Length(Reg, usize),
    If(Reg, Box<[Block; 2]>),
    Switch(Reg, Vec<Case>),
    Loop(Box<Loop>),
    Break,
    Continue,
    Return,
    Call(usize),
    Barrier {
        workgroup: bool,
        storage: bool,
        site: usize,
    },
    Subgroup(Box<Subgroup>),
}

#[derive(Debug)]
pub(super) struct Case {
    /// The values; none for the default.
    pub values: Vec<u32>,
    pub body: Block,
}

#[derive(Debug)]
pub(super) struct Loop {
    pub body: Block,
    pub continuing: Block,
    pub break_if: Option<Reg>,
    pub site: usize,
}

#[derive(Debug)]
pub(super) struct Pick {
    pub to: Reg,
    pub index: Reg,
    pub from: Vec<Reg>,
    /// Registers of an element.
    pub size: usize,
    pub site: usize,
}

/// Where a variable lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Root {
    /// In registers from this one on.
    Registers(Reg),
    /// In the memory of the workgroup.
    Shared,
    /// In the buffer of a binding.
    Buffer(usize),
}

/// What an index is.
#[derive(Debug, Clone, Copy)]
pub(super) enum From {
    Register(Reg),
    Fixed(u32),
}

/// How many elements an array has.
#[derive(Debug, Clone, Copy)]
pub(super) enum Length {
    Fixed(u32),
    /// As many as the buffer of this binding has room for.
    Buffer(usize),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Index {
    pub from: From,
    /// Words from one element to the next.
    pub stride: u32,
    pub length: Length,
}

/// Part of a variable.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub root: Root,
    /// The first word without the indices.
    pub offset: u32,
    pub indices: Vec<Index>,
    /// The words of the value, from the first.
    pub words: Vec<u32>,
    pub site: usize,
}

/// What lanes of a subgroup do together.
#[derive(Debug)]
pub(super) enum Together {
    /// Bits of the lanes where the value is not 0, in four registers.
    Ballot,
    /// The value of all lanes, of those up to each, or of those before each, and what it begins with.
    Fold(Binary, Scan, u32),
    /// The value of another lane.
    Gather(Gather),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scan {
    All,
    UpTo,
    Before,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Gather {
    First,
    At(Reg),
    Down(Reg),
    Up(Reg),
    Xor(Reg),
}

#[derive(Debug)]
pub(super) struct Subgroup {
    pub what: Together,
    pub to: Vec<Reg>,
    pub from: Vec<Reg>,
    pub site: usize,
}

/// A place in the text.
#[derive(Debug)]
pub(super) struct Site {
    pub variable: String,
    pub span: Range<usize>,
}

/// What a kernel binds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Declared {
    pub writes: bool,
    /// Bytes without the array at the end whose length the buffer decides.
    pub bytes: usize,
    /// Bytes of an element of that array; 0 without one.
    pub stride: usize,
}

/// A whole kernel.
#[derive(Debug)]
pub(super) struct Code {
    pub workgroup: [u32; 3],
    pub registers: usize,
    /// What the first registers always hold.
    pub constants: Vec<u32>,
    /// Registers that each invocation begins with, and those that hold what is in them.
    pub private: Vec<(Reg, Reg)>,
    pub builtins: Vec<(BuiltIn, Vec<Reg>)>,
    /// Words of workgroup memory.
    pub shared: usize,
    pub bindings: Vec<Option<Declared>>,
    pub functions: Vec<Block>,
    pub main: Block,
    pub sites: Vec<Site>,
    /// The places of branches that constants decide against.
    pub dead: Vec<Range<usize>>,
}
