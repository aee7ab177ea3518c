//! PyTorch's pickled state dictionaries, read by an interpreter that knows only their opcodes and names.
//!
//! Nothing is executed or imported: a name that is not a tensor's or a dictionary's is refused. Values are in one list
//! and refer to each other by index, so that neither depth nor cycles matter; strings stay in the file's bytes.

use super::{Budget, Flaw, FormatError, Reader};
use std::{collections::HashMap, ops::Range};

/// A tensor as a pickle describes it: a view of a storage outside the pickle.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Tensor<'a> {
    /// PyTorch's type of the storage, as in `FloatStorage`.
    pub storage: &'static str,
    /// Name of the storage's bytes.
    pub key: &'a str,
    /// Elements of the storage.
    pub elements: u64,
    /// First element.
    pub offset: u64,
    /// Extents.
    pub shape: Vec<u64>,
    /// Elements between neighbours along each axis.
    pub strides: Vec<u64>,
}

/// The index of a value.
type Id = usize;

#[derive(Debug)]
enum Value<'a> {
    Nothing,
    Mark,
    Int(i64),
    Text(&'a str),
    Global(&'static Known),
    Storage(Box<Storage<'a>>),
    Tensor(Box<Tensor<'a>>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
}

#[derive(Debug, Clone, Copy)]
struct Storage<'a> {
    kind: &'static str,
    key: &'a str,
    elements: u64,
}

#[derive(Debug, PartialEq)]
enum Known {
    Dict,
    Rebuild,
    Parameter,
    Storage(&'static str),
}

const GLOBALS: [(&str, &str, Known); 14] = [
    ("collections", "OrderedDict", Known::Dict),
    ("torch._utils", "_rebuild_tensor_v2", Known::Rebuild),
    ("torch._utils", "_rebuild_parameter", Known::Parameter),
    ("torch", "FloatStorage", Known::Storage("FloatStorage")),
    ("torch", "DoubleStorage", Known::Storage("DoubleStorage")),
    ("torch", "HalfStorage", Known::Storage("HalfStorage")),
    ("torch", "BFloat16Storage", Known::Storage("BFloat16Storage")),
    ("torch", "LongStorage", Known::Storage("LongStorage")),
    ("torch", "IntStorage", Known::Storage("IntStorage")),
    ("torch", "ShortStorage", Known::Storage("ShortStorage")),
    ("torch", "CharStorage", Known::Storage("CharStorage")),
    ("torch", "ByteStorage", Known::Storage("ByteStorage")),
    ("torch", "BoolStorage", Known::Storage("BoolStorage")),
    ("__builtin__", "dict", Known::Dict),
];

/// The maximum number of opcodes: each makes at most one value.
pub const MAX_OPCODES: usize = 1 << 22;
const MAX_RANK: usize = 8;

fn wrong(wanted: &str, got: impl std::fmt::Display) -> FormatError {
    let advice = "save only the tensors: torch.save(model.state_dict(), path), or as safetensors";
    FormatError::new(Flaw::Type, "the pickle", wanted, got).advise(advice)
}

fn none() -> FormatError {
    FormatError::new(Flaw::Syntax, "the pickle", "a value on the stack", "none")
}

/// The maximum memory of the tables per entry, with spare capacity and the old copy while they grow.
const ENTRY_BYTES: u64 = 96;
/// Memory of a tensor or storage besides its list entry.
const BOXED_BYTES: u64 = 256;

struct Machine<'a> {
    bytes: Reader<'a>,
    budget: &'a Budget,
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    memo: HashMap<u64, Id>,
}

impl<'a> Machine<'a> {
    fn new(bytes: &'a [u8], budget: &'a Budget) -> Self {
        let (values, stack, memo) = (Vec::new(), Vec::new(), HashMap::new());
        Machine { bytes: Reader::new(bytes), budget, values, stack, memo }
    }

    fn push(&mut self, value: Value<'a>) -> Result<(), FormatError> {
        self.push_known(self.values.len())?;
        self.budget.push("the pickle", &mut self.values, value)
    }

    /// Pushes a value that is already in the list.
    fn push_known(&mut self, id: Id) -> Result<(), FormatError> {
        self.budget.push("the pickle", &mut self.stack, id)
    }

    fn pop(&mut self) -> Result<Id, FormatError> {
        self.stack.pop().ok_or_else(none)
    }

    fn top(&self) -> Result<Id, FormatError> {
        self.stack.last().copied().ok_or_else(none)
    }

    /// Pops the values from a position of the stack on.
    fn above(&mut self, at: usize) -> Result<Vec<Id>, FormatError> {
        self.budget.take("the pickle", 8 * (self.stack.len() - at) as u64)?;
        Ok(self.stack.drain(at..).collect())
    }

    /// Pops the values above the last mark, and the mark.
    fn marked(&mut self) -> Result<Vec<Id>, FormatError> {
        let mark = self.stack.iter().rposition(|&id| matches!(self.values[id], Value::Mark));
        let mark = mark.ok_or_else(|| FormatError::new(Flaw::Syntax, "the pickle", "a mark on the stack", "none"))?;
        let above = self.above(mark + 1)?;
        self.stack.pop();
        Ok(above)
    }

    fn keep(&mut self, at: u64) -> Result<(), FormatError> {
        let id = self.top()?;
        if self.memo.insert(at, id).is_none() {
            self.budget.take("the pickle", ENTRY_BYTES)?;
        }
        Ok(())
    }

    fn number(&mut self, bytes: u64) -> Result<u64, FormatError> {
        Ok(self.bytes.take(bytes, "the pickle")?.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b)))
    }

    fn text(&mut self, length: u64) -> Result<&'a str, FormatError> {
        let bytes = self.bytes.take(length, "a string in the pickle")?;
        std::str::from_utf8(bytes).map_err(|e| FormatError::new(Flaw::Utf8, "a string in the pickle", "UTF-8", e))
    }

    fn line(&mut self) -> Result<&'a str, FormatError> {
        const MOST: usize = 256;
        let mut ahead = self.bytes.clone();
        let rest = ahead.take(ahead.left().min(MOST + 1) as u64, "a name in the pickle")?;
        let Some(length) = rest.iter().position(|&b| b == b'\n') else {
            let wanted = format!("names up to {MOST} bytes");
            return Err(match rest.len() > MOST {
                true => FormatError::new(Flaw::Syntax, "the pickle", wanted, "a longer one"),
                false => FormatError::new(Flaw::Truncated, "a name in the pickle", "its end", "the end of the file"),
            });
        };
        let line = self.text(length as u64)?;
        self.bytes.take(1, "a name in the pickle")?;
        Ok(line)
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), FormatError> {
        let known = GLOBALS.iter().find(|(m, n, _)| (*m, *n) == (module, name));
        match known {
            Some((_, _, known)) => self.push(Value::Global(known)),
            None => Err(wrong("tensors and dictionaries only", format!("the name `{module}.{name}`"))),
        }
    }

    fn int(&self, id: Id) -> Result<u64, FormatError> {
        match self.values[id] {
            Value::Int(n) if n >= 0 => Ok(n as u64),
            _ => Err(wrong("a number of at least 0", "another value")),
        }
    }

    fn list(&self, id: Id) -> Result<&[Id], FormatError> {
        match &self.values[id] {
            Value::List(items) => Ok(items),
            _ => Err(wrong("a tuple", "another value")),
        }
    }

    fn ints(&self, id: Id) -> Result<Vec<u64>, FormatError> {
        let items = self.list(id)?;
        if items.len() > MAX_RANK {
            let wanted = format!("at most {MAX_RANK} axes");
            return Err(FormatError::new(Flaw::Rank, "a tensor in the pickle", wanted, items.len()));
        }
        items.iter().map(|&i| self.int(i)).collect()
    }

    /// Pushes the result of a call of a known name.
    fn reduce(&mut self) -> Result<(), FormatError> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Value::Global(known) = self.values[function] else {
            return Err(wrong("calls of known names only", "a call of something else"));
        };
        let arguments = self.list(arguments)?;
        match (known, arguments) {
            (Known::Dict, []) => self.push(Value::Dict(Vec::new())),
            (Known::Parameter, &[data, ..]) => self.push_known(data),
            (Known::Rebuild, &[storage, offset, shape, strides, ..]) => {
                let Value::Storage(storage) = &self.values[storage] else {
                    return Err(wrong("a tensor of a storage", "another value"));
                };
                let Storage { kind, key, elements } = **storage;
                let (offset, shape, strides) = (self.int(offset)?, self.ints(shape)?, self.ints(strides)?);
                if shape.len() != strides.len() {
                    return Err(wrong("as many strides as extents", format!("{strides:?} for {shape:?}")));
                }
                self.budget.take("the pickle", BOXED_BYTES)?;
                let tensor = Tensor { storage: kind, key, elements, offset, shape, strides };
                self.push(Value::Tensor(Box::new(tensor)))
            }
            _ => Err(wrong("calls of known names only", format!("{known:?} with {} arguments", arguments.len()))),
        }
    }

    /// Pushes the storage of a persistent name: ('storage', type, key, device, number of elements).
    fn persistent(&mut self) -> Result<(), FormatError> {
        let id = self.pop()?;
        if let &[tag, kind, key, _, elements, ..] = self.list(id)?
            && let (&Value::Text("storage"), &Value::Global(&Known::Storage(kind)), &Value::Text(key)) =
                (&self.values[tag], &self.values[kind], &self.values[key])
        {
            let elements = self.int(elements)?;
            self.budget.take("the pickle", BOXED_BYTES)?;
            return self.push(Value::Storage(Box::new(Storage { kind, key, elements })));
        }
        Err(wrong("a storage of numbers", "another persistent name"))
    }

    fn set(&mut self, items: &[Id]) -> Result<(), FormatError> {
        let dict = self.top()?;
        match &mut self.values[dict] {
            Value::Dict(entries) if items.len().is_multiple_of(2) => {
                self.budget.reserve("the pickle", entries, items.len() / 2)?;
                entries.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
                Ok(())
            }
            // OrderedDict's further state, besides its entries.
            _ => Err(wrong("entries of a dictionary", "entries of something else")),
        }
    }

    fn append(&mut self, items: &[Id]) -> Result<(), FormatError> {
        let list = self.top()?;
        match &mut self.values[list] {
            Value::List(all) => {
                self.budget.reserve("the pickle", all, items.len())?;
                all.extend_from_slice(items);
                Ok(())
            }
            _ => Err(wrong("items of a list", "items of something else")),
        }
    }

    fn run(&mut self) -> Result<Id, FormatError> {
        for _ in 0..MAX_OPCODES {
            let code = self.bytes.take(1, "the pickle")?[0];
            if code == b'.' {
                return self.pop();
            }
            if !self.literal(code)? && !self.combine(code)? {
                return Err(wrong("the opcodes of a state dictionary", format!("opcode {code:#04x}")));
            }
        }
        Err(FormatError::new(Flaw::TooLarge, "the pickle", format!("at most {MAX_OPCODES} opcodes"), "more"))
    }

    /// Runs an opcode that reads a value from the file; false for any other opcode.
    fn literal(&mut self, code: u8) -> Result<bool, FormatError> {
        match code {
            0x80 => {
                let version = self.number(1)?;
                if !(2..=5).contains(&version) {
                    return Err(wrong("protocol 2 to 5", version));
                }
            }
            0x95 => {
                self.number(8)?;
            }
            b'(' => self.push(Value::Mark)?,
            b'N' => self.push(Value::Nothing)?,
            0x88 => self.push(Value::Int(1))?,
            0x89 => self.push(Value::Int(0))?,
            b'K' => {
                let n = self.number(1)?;
                self.push(Value::Int(n as i64))?;
            }
            b'M' => {
                let n = self.number(2)?;
                self.push(Value::Int(n as i64))?;
            }
            b'J' => {
                let n = self.number(4)? as u32 as i32;
                self.push(Value::Int(n.into()))?;
            }
            0x8a => {
                let length = self.number(1)?;
                if length > 8 {
                    // The magic number of old files.
                    self.bytes.take(length, "a number in the pickle")?;
                    self.push(Value::Nothing)?;
                    return Ok(true);
                }
                let unused = 64 - 8 * length as u32;
                let n = self.number(length)?;
                self.push(Value::Int(n.checked_shl(unused).map_or(0, |n| n as i64 >> unused)))?;
            }
            b'G' => {
                self.number(8)?;
                self.push(Value::Nothing)?;
            }
            b'X' => {
                let length = self.number(4)?;
                let text = self.text(length)?;
                self.push(Value::Text(text))?;
            }
            0x8c => {
                let length = self.number(1)?;
                let text = self.text(length)?;
                self.push(Value::Text(text))?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (&Value::Text(module), &Value::Text(name)) = (&self.values[module], &self.values[name]) else {
                    return Err(wrong("a name of two strings", "other values"));
                };
                self.global(module, name)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Runs an opcode that makes a value from those on the stack; false for any other opcode.
    fn combine(&mut self, code: u8) -> Result<bool, FormatError> {
        match code {
            b'}' => self.push(Value::Dict(Vec::new()))?,
            b']' | b')' => self.push(Value::List(Vec::new()))?,
            b't' => {
                let items = self.marked()?;
                self.push(Value::List(items))?;
            }
            n @ 0x85..=0x87 => {
                let count = usize::from(n - 0x84);
                if self.stack.len() < count {
                    return Err(FormatError::new(Flaw::Syntax, "the pickle", "values on the stack", "too few"));
                }
                let items = self.above(self.stack.len() - count)?;
                self.push(Value::List(items))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' => {
                let items = self.marked()?;
                self.append(&items)?;
                self.budget.give(8 * items.len() as u64);
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(&[key, value])?;
            }
            b'u' => {
                let items = self.marked()?;
                self.set(&items)?;
                self.budget.give(8 * items.len() as u64);
            }
            b'R' => self.reduce()?,
            b'Q' => self.persistent()?,
            // The attributes of a dictionary: versions of its modules.
            b'b' => {
                self.pop()?;
                self.top()?;
            }
            b'q' => {
                let at = self.number(1)?;
                self.keep(at)?;
            }
            b'r' => {
                let at = self.number(4)?;
                self.keep(at)?;
            }
            0x94 => self.keep(self.memo.len() as u64)?,
            code @ (b'h' | b'j') => {
                let at = self.number(if code == b'h' { 1 } else { 4 })?;
                let known = self.memo.get(&at).copied();
                let none = || FormatError::new(Flaw::Syntax, "the pickle", "a memoised value", at);
                self.push_known(known.ok_or_else(none)?)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Returns the tensors of a dictionary by name, or of the model's state inside it.
    fn tensors(&self, id: Id, depth: usize, out: &mut Vec<(String, Tensor<'a>)>) -> Result<(), FormatError> {
        let what = "the pickle";
        let Value::Dict(entries) = &self.values[id] else { return Ok(()) };
        self.budget.work(what, entries.len() as u64)?;
        for &(key, value) in entries {
            let Value::Text(key) = self.values[key] else { continue };
            match &self.values[value] {
                Value::Tensor(tensor) => {
                    self.budget.take(what, key.len() as u64 + BOXED_BYTES)?;
                    self.budget.push(what, out, (key.to_owned(), (**tensor).clone()))?;
                }
                // A checkpoint contains the state among other entries.
                Value::Dict(_) if depth == 0 && ["state_dict", "model", "model_state_dict"].contains(&key) => {
                    self.tensors(value, 1, out)?;
                }
                _ => {}
            }
            if out.len() > super::safetensors::MAX_TENSORS {
                let wanted = format!("at most {} tensors", super::safetensors::MAX_TENSORS);
                return Err(FormatError::new(Flaw::TooLarge, what, wanted, "more"));
            }
        }
        Ok(())
    }
}

/// The start of `torch.save`'s files before they became zip archives.
pub const LEGACY: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

/// Returns the tensors that a file from before PyTorch 1.6 describes, and the range of each storage's bytes.
///
/// The file is five pickles (magic number, version, system, state, keys), then each storage's length and bytes.
pub fn read_legacy<'a>(
    bytes: &'a [u8],
    budget: &'a Budget,
) -> Result<(Vec<(String, Tensor<'a>)>, HashMap<&'a str, Range<usize>>), FormatError> {
    let what = "the storages";
    let mut machine = Machine::new(bytes, budget);
    let mut tensors = Vec::new();
    let mut keys = 0;
    for part in 0..5 {
        machine.stack.clear();
        machine.memo.clear();
        let result = machine.run()?;
        match part {
            3 => machine.tensors(result, 0, &mut tensors)?,
            4 => keys = result,
            _ => {}
        }
    }
    let draw = |key: &str| {
        budget.work(what, key.len() as u64)?;
        budget.take(what, ENTRY_BYTES)
    };
    let mut widths: HashMap<&str, u64> = HashMap::new();
    for value in &machine.values {
        if let Value::Storage(storage) = value {
            draw(storage.key)?;
            widths.insert(storage.key, element_bytes(storage.kind));
        }
    }
    let mut places = HashMap::new();
    let mut rest = machine.bytes.clone();
    for &key in machine.list(keys)? {
        let Value::Text(key) = machine.values[key] else { return Err(wrong("names of storages", "another value")) };
        draw(key)?;
        let width = widths.get(key).copied();
        let width = width.ok_or_else(|| wrong("storages of tensors", format!("the storage `{key}`")))?;
        let elements = rest.u64_le("a storage's length")?;
        let start = bytes.len() - rest.left();
        let taken = rest.take(elements.saturating_mul(width), "a storage")?;
        places.insert(key, start..start + taken.len());
    }
    match tensors.is_empty() {
        true => Err(wrong("a dictionary of tensors", "no tensor")),
        false => Ok((tensors, places)),
    }
}

/// Returns the bytes of an element of a storage.
pub fn element_bytes(storage: &str) -> u64 {
    match storage {
        "DoubleStorage" | "LongStorage" => 8,
        "FloatStorage" | "IntStorage" => 4,
        "HalfStorage" | "BFloat16Storage" | "ShortStorage" => 2,
        _ => 1,
    }
}

/// Returns the tensors that a pickled state dictionary describes, in its order.
///
/// It may be under `state_dict`, `model` or `model_state_dict` of a dictionary; entries that are not tensors are
/// skipped.
pub fn read<'a>(bytes: &'a [u8], budget: &'a Budget) -> Result<Vec<(String, Tensor<'a>)>, FormatError> {
    let mut machine = Machine::new(bytes, budget);
    let result = machine.run()?;
    let mut tensors = Vec::new();
    machine.tensors(result, 0, &mut tensors)?;
    match tensors.is_empty() {
        true => Err(wrong("a dictionary of tensors", "no tensor")),
        false => Ok(tensors),
    }
}
