//! The pickles that PyTorch writes state dictionaries as, read by a machine that knows their few opcodes and names.
//!
//! Nothing is executed or imported: a name that is not a tensor's or a dictionary's is refused. Values lie in one list
//! and refer to each other by number, so that neither depth nor cycles matter.

use super::{Flaw, FormatError, Reader};
use std::collections::HashMap;

/// A tensor as a pickle describes it: part of a storage that lies elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// PyTorch's type of the storage, as in `FloatStorage`.
    pub storage: String,
    /// Name of the storage's bytes.
    pub key: String,
    /// Elements of the storage.
    pub elements: u64,
    /// First element.
    pub offset: u64,
    /// Extents.
    pub shape: Vec<u64>,
    /// Elements between neighbours along each axis.
    pub strides: Vec<u64>,
}

/// A value by its number.
type Id = usize;

#[derive(Debug, Clone)]
enum Value {
    Nothing,
    Mark,
    Int(i64),
    Text(String),
    Global(&'static Known),
    Storage { kind: String, key: String, elements: u64 },
    Tensor(Box<Tensor>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
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

/// The most opcodes that are read: each makes one value at most.
pub const MAX_OPCODES: usize = 1 << 22;
const MAX_RANK: usize = 8;

fn wrong(wanted: &str, got: impl std::fmt::Display) -> FormatError {
    let advice = "save the tensors alone: torch.save(model.state_dict(), path), or as safetensors";
    FormatError::new(Flaw::Type, "the pickle", wanted, got).advise(advice)
}

struct Machine<'a> {
    bytes: Reader<'a>,
    values: Vec<Value>,
    stack: Vec<Id>,
    memo: HashMap<u64, Id>,
}

impl<'a> Machine<'a> {
    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn pop(&mut self) -> Result<Id, FormatError> {
        self.stack.pop().ok_or_else(|| FormatError::new(Flaw::Syntax, "the pickle", "a value on the stack", "none"))
    }

    fn top(&self) -> Result<Id, FormatError> {
        let none = || FormatError::new(Flaw::Syntax, "the pickle", "a value on the stack", "none");
        self.stack.last().copied().ok_or_else(none)
    }

    /// Returns the values above the last mark, which goes too.
    fn marked(&mut self) -> Result<Vec<Id>, FormatError> {
        let mark = self.stack.iter().rposition(|&id| matches!(self.values[id], Value::Mark));
        let mark = mark.ok_or_else(|| FormatError::new(Flaw::Syntax, "the pickle", "a mark on the stack", "none"))?;
        let above = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(above)
    }

    fn number(&mut self, bytes: u64) -> Result<u64, FormatError> {
        Ok(self.bytes.take(bytes, "the pickle")?.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b)))
    }

    fn text(&mut self, length: u64) -> Result<String, FormatError> {
        let bytes = self.bytes.take(length, "a text in the pickle")?;
        let text = std::str::from_utf8(bytes);
        Ok(text.map_err(|e| FormatError::new(Flaw::Utf8, "a text in the pickle", "UTF-8", e))?.to_owned())
    }

    fn line(&mut self) -> Result<String, FormatError> {
        let mut line = Vec::new();
        loop {
            match self.bytes.take(1, "a name in the pickle")?[0] {
                b'\n' => break,
                b if line.len() < 256 => line.push(b),
                _ => return Err(FormatError::new(Flaw::Syntax, "the pickle", "names up to 256 bytes", "a longer one")),
            }
        }
        String::from_utf8(line).map_err(|e| FormatError::new(Flaw::Utf8, "a name in the pickle", "UTF-8", e))
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), FormatError> {
        let known = GLOBALS.iter().find(|(m, n, _)| (*m, *n) == (module, name));
        match known {
            Some((_, _, known)) => {
                self.push(Value::Global(known));
                Ok(())
            }
            None => Err(wrong("tensors and dictionaries only", format!("the name `{module}.{name}`"))),
        }
    }

    fn int(&self, id: Id) -> Result<u64, FormatError> {
        match self.values[id] {
            Value::Int(n) if n >= 0 => Ok(n as u64),
            _ => Err(wrong("a number from 0 up", "another value")),
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

    /// Returns the result of a call of a known name.
    fn reduce(&mut self) -> Result<Value, FormatError> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Value::Global(known) = self.values[function] else {
            return Err(wrong("calls of known names only", "a call of something else"));
        };
        let arguments = self.list(arguments)?.to_vec();
        match (known, &arguments[..]) {
            (Known::Dict, []) => Ok(Value::Dict(Vec::new())),
            (Known::Parameter, [data, ..]) => Ok(self.values[*data].clone()),
            (Known::Rebuild, [storage, offset, shape, strides, ..]) => {
                let Value::Storage { kind, key, elements } = self.values[*storage].clone() else {
                    return Err(wrong("a tensor of a storage", "another value"));
                };
                let (offset, shape, strides) = (self.int(*offset)?, self.ints(*shape)?, self.ints(*strides)?);
                if shape.len() != strides.len() {
                    return Err(wrong("as many strides as extents", format!("{strides:?} for {shape:?}")));
                }
                Ok(Value::Tensor(Box::new(Tensor { storage: kind, key, elements, offset, shape, strides })))
            }
            _ => Err(wrong("calls of known names only", format!("{known:?} with {} arguments", arguments.len()))),
        }
    }

    /// Returns what a persistent name stands for: ('storage', type, key, device, number of elements).
    fn persistent(&mut self) -> Result<Value, FormatError> {
        let id = self.pop()?;
        let items = self.list(id)?.to_vec();
        if let [tag, kind, key, _, elements, ..] = items[..]
            && let (Value::Text(tag), Value::Global(Known::Storage(kind)), Value::Text(key)) =
                (&self.values[tag], &self.values[kind], &self.values[key])
            && tag == "storage"
        {
            return Ok(Value::Storage { kind: (*kind).into(), key: key.clone(), elements: self.int(elements)? });
        }
        Err(wrong("a storage of numbers", "another persistent name"))
    }

    fn set(&mut self, items: &[Id]) -> Result<(), FormatError> {
        let dict = self.top()?;
        match &mut self.values[dict] {
            Value::Dict(entries) if items.len().is_multiple_of(2) => {
                entries.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
                Ok(())
            }
            // What OrderedDict carries beside its entries.
            _ => Err(wrong("entries of a dictionary", "entries of something else")),
        }
    }

    fn append(&mut self, items: &[Id]) -> Result<(), FormatError> {
        let list = self.top()?;
        match &mut self.values[list] {
            Value::List(all) => {
                all.extend_from_slice(items);
                Ok(())
            }
            _ => Err(wrong("items of a list", "items of something else")),
        }
    }

    fn run(&mut self) -> Result<Id, FormatError> {
        for _ in 0..MAX_OPCODES {
            match self.bytes.take(1, "the pickle")?[0] {
                0x80 => {
                    let version = self.number(1)?;
                    if !(2..=5).contains(&version) {
                        return Err(wrong("protocol 2 to 5", version));
                    }
                }
                0x95 => {
                    self.number(8)?;
                }
                b'.' => return self.pop(),
                b'(' => self.push(Value::Mark),
                b'N' => self.push(Value::Nothing),
                0x88 => self.push(Value::Int(1)),
                0x89 => self.push(Value::Int(0)),
                b'K' => {
                    let n = self.number(1)?;
                    self.push(Value::Int(n as i64));
                }
                b'M' => {
                    let n = self.number(2)?;
                    self.push(Value::Int(n as i64));
                }
                b'J' => {
                    let n = self.number(4)? as u32 as i32;
                    self.push(Value::Int(n.into()));
                }
                0x8a => {
                    let length = self.number(1)?;
                    if length > 8 {
                        // The magic number in front of old files.
                        self.bytes.take(length, "a number in the pickle")?;
                        self.push(Value::Nothing);
                        continue;
                    }
                    let unused = 64 - 8 * length as u32;
                    let n = self.number(length)?;
                    self.push(Value::Int(n.checked_shl(unused).map_or(0, |n| n as i64 >> unused)));
                }
                b'G' => {
                    self.number(8)?;
                    self.push(Value::Nothing);
                }
                b'X' => {
                    let length = self.number(4)?;
                    let text = self.text(length)?;
                    self.push(Value::Text(text));
                }
                0x8c => {
                    let length = self.number(1)?;
                    let text = self.text(length)?;
                    self.push(Value::Text(text));
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.global(&module, &name)?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Value::Text(module), Value::Text(name)) = (&self.values[module], &self.values[name]) else {
                        return Err(wrong("a name of two texts", "other values"));
                    };
                    let (module, name) = (module.clone(), name.clone());
                    self.global(&module, &name)?;
                }
                b'}' => self.push(Value::Dict(Vec::new())),
                b']' | b')' => self.push(Value::List(Vec::new())),
                b't' => {
                    let items = self.marked()?;
                    self.push(Value::List(items));
                }
                n @ 0x85..=0x87 => {
                    let count = usize::from(n - 0x84);
                    if self.stack.len() < count {
                        return Err(FormatError::new(Flaw::Syntax, "the pickle", "values on the stack", "too few"));
                    }
                    let items = self.stack.split_off(self.stack.len() - count);
                    self.push(Value::List(items));
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(&[item])?;
                }
                b'e' => {
                    let items = self.marked()?;
                    self.append(&items)?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.set(&[key, value])?;
                }
                b'u' => {
                    let items = self.marked()?;
                    self.set(&items)?;
                }
                b'R' => {
                    let value = self.reduce()?;
                    self.push(value);
                }
                b'Q' => {
                    let value = self.persistent()?;
                    self.push(value);
                }
                // The attributes of a dictionary: versions of its modules.
                b'b' => {
                    self.pop()?;
                    self.top()?;
                }
                b'q' => {
                    let (at, id) = (self.number(1)?, self.top()?);
                    self.memo.insert(at, id);
                }
                b'r' => {
                    let (at, id) = (self.number(4)?, self.top()?);
                    self.memo.insert(at, id);
                }
                0x94 => {
                    let id = self.top()?;
                    self.memo.insert(self.memo.len() as u64, id);
                }
                code @ (b'h' | b'j') => {
                    let at = self.number(if code == b'h' { 1 } else { 4 })?;
                    let known = self.memo.get(&at).copied();
                    let none = || FormatError::new(Flaw::Syntax, "the pickle", "a value kept before", at);
                    self.stack.push(known.ok_or_else(none)?);
                }
                code => return Err(wrong("the opcodes of a state dictionary", format!("opcode {code:#04x}"))),
            }
        }
        Err(FormatError::new(Flaw::TooLarge, "the pickle", format!("at most {MAX_OPCODES} opcodes"), "more"))
    }

    /// Returns the tensors of a dictionary by name, those of dictionaries in it under `outer.`.
    fn tensors(&self, id: Id, prefix: &str, depth: usize, out: &mut Vec<(String, Tensor)>) -> Result<(), FormatError> {
        let Value::Dict(entries) = &self.values[id] else { return Ok(()) };
        for &(key, value) in entries {
            let Value::Text(key) = &self.values[key] else { continue };
            match &self.values[value] {
                Value::Tensor(tensor) => out.push((format!("{prefix}{key}"), (**tensor).clone())),
                // A checkpoint holds the state beside other things.
                Value::Dict(_) if depth == 0 && ["state_dict", "model", "model_state_dict"].contains(&key.as_str()) => {
                    self.tensors(value, prefix, 1, out)?;
                }
                _ => {}
            }
            if out.len() > super::safetensors::MAX_TENSORS {
                let wanted = format!("at most {} tensors", super::safetensors::MAX_TENSORS);
                return Err(FormatError::new(Flaw::TooLarge, "the pickle", wanted, "more"));
            }
        }
        Ok(())
    }
}

/// How files of `torch.save` began before they became zip archives.
pub const LEGACY: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

/// Returns the tensors that a file from before PyTorch 1.6 describes, and for each storage where its bytes lie.
///
/// The file is five pickles (magic number, version, system, state, keys), then each storage's length and bytes.
pub fn read_legacy(
    bytes: &[u8],
) -> Result<(Vec<(String, Tensor)>, HashMap<String, std::ops::Range<usize>>), FormatError> {
    let (values, stack, memo) = (Vec::new(), Vec::new(), HashMap::new());
    let mut machine = Machine { bytes: Reader::new(bytes), values, stack, memo };
    let mut tensors = Vec::new();
    let mut keys = 0;
    for part in 0..5 {
        machine.stack.clear();
        machine.memo.clear();
        let result = machine.run()?;
        match part {
            3 => machine.tensors(result, "", 0, &mut tensors)?,
            4 => keys = result,
            _ => {}
        }
    }
    let mut widths: HashMap<&str, u64> = HashMap::new();
    for value in &machine.values {
        if let Value::Storage { kind, key, .. } = value {
            widths.insert(key, element_bytes(kind)?);
        }
    }
    let mut places = HashMap::new();
    let mut rest = machine.bytes.clone();
    for &key in machine.list(keys)? {
        let Value::Text(key) = &machine.values[key] else { return Err(wrong("names of storages", "another value")) };
        let width = widths.get(key.as_str()).copied();
        let width = width.ok_or_else(|| wrong("storages of tensors", format!("the storage `{key}`")))?;
        let elements = rest.u64_le("a storage's length")?;
        let start = bytes.len() - rest.left();
        let taken = rest.take(elements.saturating_mul(width), "a storage")?;
        places.insert(key.clone(), start..start + taken.len());
    }
    match tensors.is_empty() {
        true => Err(wrong("a dictionary of tensors", "no tensor")),
        false => Ok((tensors, places)),
    }
}

/// Returns the bytes of an element of a storage.
pub fn element_bytes(storage: &str) -> Result<u64, FormatError> {
    Ok(match storage {
        "DoubleStorage" | "LongStorage" => 8,
        "FloatStorage" | "IntStorage" => 4,
        "HalfStorage" | "BFloat16Storage" | "ShortStorage" => 2,
        _ => 1,
    })
}

/// Returns the tensors that a pickled state dictionary describes, in its order.
///
/// It may lie under `state_dict`, `model` or `model_state_dict` of a dictionary; what is no tensor is left out.
pub fn read(bytes: &[u8]) -> Result<Vec<(String, Tensor)>, FormatError> {
    let (values, stack, memo) = (Vec::new(), Vec::new(), HashMap::new());
    let mut machine = Machine { bytes: Reader::new(bytes), values, stack, memo };
    let result = machine.run()?;
    let mut tensors = Vec::new();
    machine.tensors(result, "", 0, &mut tensors)?;
    match tensors.is_empty() {
        true => Err(wrong("a dictionary of tensors", "no tensor")),
        false => Ok(tensors),
    }
}
