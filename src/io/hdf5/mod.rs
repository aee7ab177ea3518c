//! HDF5, as far as Keras and h5py use it for weights: groups, datasets of numbers, attributes of strings.
//!
//! Read are superblocks 0 to 3, object headers 1 and 2, groups with symbol tables or links in their headers, datasets
//! stored contiguously, in their header or in chunks (deflate, shuffle), and attributes in headers. Every address and
//! size is checked against the file, objects are visited once, depth and counts are bounded, and shared content (a
//! string, a name, a block, a chunk) is drawn on the budget for each use. Strings and names stay in the file's bytes.

mod dataset;
mod write;

pub use write::Writer;

use super::{Budget, Flaw, FormatError, Reader};
use crate::tensor::{DType, HostTensor};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    io::Read,
};

/// The signature.
pub const MAGIC: &[u8] = b"\x89HDF\r\n\x1a\n";
/// The maximum number of groups and datasets of a file.
pub const MAX_OBJECTS: usize = 1 << 17;
const MAX_DEPTH: usize = 64;
const MAX_BLOCKS: usize = 1 << 12;
const MAX_MESSAGES: usize = 1 << 16;
const MAX_RANK: usize = 32;
const MAX_CHUNKS: usize = 1 << 20;
/// The maximum ratio of a chunk's unpacked to packed size: deflate reaches 1032.
const MAX_EXPANSION: u64 = 1040;
/// The maximum memory of a table per entry, with spare capacity and the old copy while it grows.
const ENTRY_BYTES: u64 = 160;
const UNDEFINED: u64 = u64::MAX;

/// A file in memory, its tree walked, nothing decoded yet.
pub struct File<'a> {
    bytes: &'a [u8],
    budget: &'a Budget,
    objects: BTreeMap<String, Object<'a>>,
    order: Vec<String>,
}

/// The attributes of an object.
pub struct Attributes<'f, 'a> {
    file: &'f File<'a>,
    /// Type, extents and elements by name.
    found: HashMap<&'a [u8], [&'a [u8]; 3]>,
}

/// Messages of an object's header: kind and contents.
type Object<'a> = Vec<(u16, &'a [u8])>;

fn unsupported(what: &str, got: impl std::fmt::Display) -> FormatError {
    let wanted = "what Keras and h5py write by default";
    FormatError::new(Flaw::Type, what, wanted, got)
        .advise("write the file again with h5py, or convert it to safetensors")
}

fn broken(what: &str, wanted: &str, got: impl std::fmt::Display) -> FormatError {
    FormatError::new(Flaw::Syntax, what, wanted, got)
}

fn number(r: &mut Reader, bytes: u64, what: &str) -> Result<u64, FormatError> {
    Ok(r.take(bytes, what)?.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b)))
}

/// The types of numbers in a file.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Type {
    Float(u64),
    Int {
        bytes: u64,
        signed: bool,
    },
    /// Two bytes that HDF5 does not know, as which Keras writes bfloat16.
    Brain,
    Text(u64),
    /// Strings in a heap.
    Texts,
}

impl Type {
    fn read(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut r = Reader::new(bytes);
        let class = number(&mut r, 1, "a type")?;
        let bits = number(&mut r, 3, "a type")?;
        let size = number(&mut r, 4, "a type")?;
        if !(1..=1 << 16).contains(&size) {
            return Err(unsupported("a type", format!("elements of {size} bytes")));
        }
        let big = bits & 1 == 1;
        match class & 15 {
            0 | 1 if big => Err(unsupported("a type", "big-endian numbers")),
            0 if [1, 2, 4, 8].contains(&size) => Ok(Type::Int { bytes: size, signed: bits & 8 != 0 }),
            1 if [2, 4, 8].contains(&size) => Ok(Type::Float(size)),
            3 => Ok(Type::Text(size)),
            5 if size == 2 => Ok(Type::Brain),
            // h5py's booleans.
            8 if size == 1 => Ok(Type::Int { bytes: 1, signed: false }),
            9 if bits & 15 == 1 && size == 16 => Ok(Type::Texts),
            other => Err(unsupported("a type", format!("class {other} of {size} bytes"))),
        }
    }

    fn bytes(self) -> u64 {
        match self {
            Type::Float(n) | Type::Int { bytes: n, .. } | Type::Text(n) => n,
            Type::Brain => 2,
            Type::Texts => 16,
        }
    }
}

fn extents(bytes: &[u8]) -> Result<Vec<u64>, FormatError> {
    let mut r = Reader::new(bytes);
    let version = number(&mut r, 1, "extents")?;
    let rank = number(&mut r, 1, "extents")? as usize;
    if rank > MAX_RANK {
        return Err(FormatError::new(Flaw::Rank, "extents", format!("at most {MAX_RANK} axes"), rank));
    }
    r.take(if version == 1 { 6 } else { 2 }, "extents")?;
    (0..rank).map(|_| number(&mut r, 8, "extents")).collect()
}

impl<'a> Attributes<'_, 'a> {
    /// Returns the strings of an attribute, one or a list, or `None` if there is no such attribute.
    pub fn texts(&self, attribute: &str) -> Result<Option<Vec<&'a str>>, FormatError> {
        let what = "an attribute";
        let Some(&[ty, dims, elements]) = self.found.get(attribute.as_bytes()) else { return Ok(None) };
        let ty = Type::read(ty)?;
        let count = extents(dims)?.iter().try_fold(1u64, |n, &d| n.checked_mul(d)).unwrap_or(u64::MAX);
        let mut r = Reader::new(elements);
        if count > r.left() as u64 / ty.bytes() {
            let (wanted, got) = (format!("{count} elements"), format!("{} bytes", r.left()));
            return Err(FormatError::new(Flaw::Truncated, format!("the attribute `{attribute}`"), wanted, got));
        }
        let mut texts = Vec::new();
        for _ in 0..count {
            let element = r.take(ty.bytes(), what)?;
            let text = match ty {
                Type::Text(_) => self.file.text(element.split(|&b| b == 0).next().unwrap_or_default())?,
                Type::Texts => self.file.heap_text(element)?,
                _ => return Err(unsupported(what, "numbers instead of strings")),
            };
            self.file.budget.push(what, &mut texts, text)?;
        }
        Ok(Some(texts))
    }
}

/// The location of a dataset's bytes.
enum Layout<'a> {
    Inside(&'a [u8]),
    Whole { at: u64, size: u64 },
    Chunks { tree: u64, dims: Vec<u64> },
    One { at: u64, size: u64, dims: Vec<u64> },
}

impl<'a> File<'a> {
    /// Returns the file's tree, which draws on the file's budget, or an error if it is broken.
    pub fn new(bytes: &'a [u8], budget: &'a Budget) -> Result<Self, FormatError> {
        if !bytes.starts_with(MAGIC) {
            return Err(FormatError::new(Flaw::Magic, "the file", "HDF5", "other bytes"));
        }
        let mut r = Reader::new(&bytes[8..]);
        let what = "the superblock";
        let version = number(&mut r, 1, what)?;
        let sizes = match version {
            0 | 1 => {
                r.take(4, what)?;
                let sizes = [number(&mut r, 1, what)?, number(&mut r, 1, what)?];
                // Ranks of trees, flags, four addresses, the name of the root.
                r.take(if version == 0 { 9 } else { 13 } + 32 + 8, what)?;
                sizes
            }
            2 | 3 => {
                let sizes = [number(&mut r, 1, what)?, number(&mut r, 1, what)?];
                r.take(1 + 24, what)?;
                sizes
            }
            _ => return Err(unsupported(what, format!("version {version}"))),
        };
        if sizes != [8, 8] {
            return Err(unsupported(what, format!("addresses and lengths of {sizes:?} bytes")));
        }
        let root = number(&mut r, 8, what)?;
        let what = "the tree";
        let mut file = File { bytes, budget, objects: BTreeMap::new(), order: Vec::new() };
        let mut visited = HashSet::new();
        // The group's index in the order, the name in it, the address, the depth.
        let mut stack = vec![(0, "", root, 0)];
        while let Some((group, name, at, depth)) = stack.pop() {
            // A second path to an object would allow endless cycles.
            if !visited.insert(at) {
                continue;
            }
            if depth > MAX_DEPTH || visited.len() > MAX_OBJECTS {
                let wanted = format!("at most {MAX_OBJECTS} objects, {MAX_DEPTH} deep");
                return Err(FormatError::new(Flaw::TooLarge, what, wanted, "more"));
            }
            let group: &str = file.order.get(group).map_or("", String::as_str);
            // The path is stored twice.
            budget.take(what, 2 * (group.len() + name.len() + 1) as u64 + ENTRY_BYTES)?;
            let path = if group.is_empty() { name.to_owned() } else { format!("{group}/{name}") };
            let object = file.header(at)?;
            let children = file.children(&object)?;
            let own = file.order.len();
            budget.reserve(what, &mut stack, children.len())?;
            stack.extend(children.iter().rev().map(|&(name, at)| (own, name, at, depth + 1)));
            budget.push(what, &mut file.order, path.clone())?;
            file.objects.insert(path, object);
        }
        Ok(file)
    }

    fn at(&self, at: u64, what: &str) -> Result<Reader<'a>, FormatError> {
        match usize::try_from(at).ok().and_then(|at| self.bytes.get(at..)) {
            Some(rest) => Ok(Reader::new(rest)),
            None => Err(broken(what, "an address inside the file", at)),
        }
    }

    /// Returns the messages of an object's header and of the blocks that continue it.
    fn header(&self, at: u64) -> Result<Object<'a>, FormatError> {
        let what = "an object's header";
        let mut r = self.at(at, what)?;
        let first = r.take(4, what)?;
        let new = first == b"OHDR";
        let (mut blocks, ordered) = if new {
            let [version, flags] = [number(&mut r, 1, what)?, number(&mut r, 1, what)?];
            if version != 2 {
                return Err(unsupported(what, format!("version {version}")));
            }
            r.take(if flags & 0x20 != 0 { 16 } else { 0 } + if flags & 0x10 != 0 { 4 } else { 0 }, what)?;
            let size = number(&mut r, 1 << (flags & 3), what)?;
            (vec![r.take(size, what)?], flags & 4 != 0)
        } else {
            if first[0] != 1 {
                return Err(unsupported(what, format!("version {}", first[0])));
            }
            r.take(4, what)?;
            let size = number(&mut r, 4, what)?;
            r.take(4, what)?;
            (vec![r.take(size, what)?], false)
        };
        let mut messages: Object = Vec::new();
        let mut next = 0;
        while let Some(&block) = blocks.get(next) {
            next += 1;
            let mut r = Reader::new(block);
            let head = if new { 4 + 2 * usize::from(ordered) } else { 8 };
            while r.left() >= head {
                let (kind, size) = match new {
                    true => {
                        let found = (number(&mut r, 1, what)? as u16, number(&mut r, 2, what)?);
                        r.take(1 + 2 * u64::from(ordered), what)?;
                        found
                    }
                    false => {
                        let found = (number(&mut r, 2, what)? as u16, number(&mut r, 2, what)?);
                        r.take(4, what)?;
                        found
                    }
                };
                let contents = r.take(size, what)?;
                if kind == 0x10 {
                    let mut c = Reader::new(contents);
                    let (at, size) = (number(&mut c, 8, what)?, number(&mut c, 8, what)?);
                    let mut block = self.at(at, what)?.take(size, what)?;
                    if new {
                        // A signature first, a checksum last.
                        block = block.get(4..block.len().saturating_sub(4)).unwrap_or_default();
                    }
                    self.budget.push(what, &mut blocks, block)?;
                }
                self.budget.push(what, &mut messages, (kind, contents))?;
                if messages.len() > MAX_MESSAGES || blocks.len() > MAX_BLOCKS {
                    let wanted = format!("at most {MAX_MESSAGES} messages in {MAX_BLOCKS} blocks");
                    return Err(FormatError::new(Flaw::TooLarge, what, wanted, "more"));
                }
            }
        }
        Ok(messages)
    }

    /// Returns names and addresses of a group's members; none for a dataset.
    fn children(&self, object: &Object<'a>) -> Result<Vec<(&'a str, u64)>, FormatError> {
        let mut children = Vec::new();
        for &(kind, contents) in object {
            let mut r = Reader::new(contents);
            match kind {
                0x11 => {
                    let (tree, heap) = (number(&mut r, 8, "a group")?, number(&mut r, 8, "a group")?);
                    self.symbols(tree, heap, &mut children)?;
                }
                0x06 => {
                    if let Some(link) = self.link(r)? {
                        self.budget.push("a group", &mut children, link)?;
                    }
                }
                0x02 => {
                    r.take(1, "a group")?;
                    let flags = number(&mut r, 1, "a group")?;
                    r.take(if flags & 1 != 0 { 8 } else { 0 }, "a group")?;
                    if number(&mut r, 8, "a group")? != UNDEFINED {
                        return Err(unsupported("a group", "links in a fractal heap"));
                    }
                }
                _ => {}
            }
        }
        Ok(children)
    }

    fn link(&self, mut r: Reader<'a>) -> Result<Option<(&'a str, u64)>, FormatError> {
        let what = "a link";
        r.take(1, what)?;
        let flags = number(&mut r, 1, what)?;
        let kind = if flags & 8 != 0 { number(&mut r, 1, what)? } else { 0 };
        r.take(if flags & 4 != 0 { 8 } else { 0 } + if flags & 0x10 != 0 { 1 } else { 0 }, what)?;
        let length = number(&mut r, 1 << (flags & 3), what)?;
        let name = self.text(r.take(length, what)?)?;
        // Soft and external links are not supported; weights have none.
        Ok(if kind == 0 { Some((name, number(&mut r, 8, what)?)) } else { None })
    }

    /// Walks a group's tree of symbol tables.
    fn symbols(&self, tree: u64, heap: u64, out: &mut Vec<(&'a str, u64)>) -> Result<(), FormatError> {
        let what = "a group";
        let mut r = self.at(heap, what)?;
        if r.take(4, what)? != b"HEAP" {
            return Err(broken(what, "a heap of names", "other bytes"));
        }
        r.take(4, what)?;
        let size = number(&mut r, 8, what)?;
        r.take(8, what)?;
        let names = number(&mut r, 8, what)?;
        let names = self.at(names, what)?.take(size, what)?;
        let mut visited = HashSet::new();
        let mut stack = vec![tree];
        while let Some(at) = stack.pop() {
            if !visited.insert(at) || visited.len() > MAX_OBJECTS {
                return Err(broken(what, "a tree of symbols", "a cycle"));
            }
            let mut r = self.at(at, what)?;
            match r.take(4, what)? {
                b"TREE" => {
                    r.take(2, what)?;
                    let n = number(&mut r, 2, what)?;
                    r.take(16, what)?;
                    let mut nodes = Vec::new();
                    for _ in 0..n {
                        r.take(8, what)?;
                        nodes.push(number(&mut r, 8, what)?);
                    }
                    stack.extend(nodes.into_iter().rev());
                }
                b"SNOD" => {
                    r.take(2, what)?;
                    for _ in 0..number(&mut r, 2, what)? {
                        let name = number(&mut r, 8, what)?;
                        let at = number(&mut r, 8, what)?;
                        r.take(24, what)?;
                        let name = usize::try_from(name).ok().and_then(|n| names.get(n..));
                        let name = name.ok_or_else(|| broken(what, "a name in the heap", "an offset beyond it"))?;
                        let end = name.iter().position(|&b| b == 0).unwrap_or(name.len());
                        self.budget.push(what, out, (self.text(&name[..end])?, at))?;
                        if out.len() > MAX_OBJECTS {
                            let wanted = format!("at most {MAX_OBJECTS} objects");
                            return Err(FormatError::new(Flaw::TooLarge, what, wanted, "more"));
                        }
                    }
                }
                _ => return Err(broken(what, "a tree of symbols", "other bytes")),
            }
        }
        Ok(())
    }

    fn message(object: &Object<'a>, kind: u16) -> Option<&'a [u8]> {
        object.iter().find(|m| m.0 == kind).map(|m| m.1)
    }

    /// Returns the paths of all datasets, without a leading slash, each group's in the order of the file.
    pub fn datasets(&self) -> impl Iterator<Item = &str> {
        self.order.iter().map(String::as_str).filter(|p| Self::message(&self.objects[*p], 0x08).is_some())
    }

    /// Returns whether a group or dataset has this path.
    pub fn has(&self, path: &str) -> bool {
        self.objects.contains_key(path)
    }

    fn object(&self, path: &str) -> Result<&Object<'a>, FormatError> {
        let missing = || FormatError::new(Flaw::Missing, format!("`{path}`"), "an object of the file", "none");
        self.objects.get(path).ok_or_else(missing)
    }

    /// Returns the attributes of an object.
    pub fn attributes(&self, path: &str) -> Result<Attributes<'_, 'a>, FormatError> {
        let what = "an attribute";
        let mut found = HashMap::new();
        let object = self.object(path)?;
        self.budget.work(what, object.len() as u64)?;
        for &(kind, contents) in object {
            if kind != 0x0c {
                continue;
            }
            let mut r = Reader::new(contents);
            let version = number(&mut r, 1, what)?;
            if !(1..=3).contains(&version) {
                return Err(unsupported(what, format!("version {version}")));
            }
            r.take(1, what)?;
            let sizes = [number(&mut r, 2, what)?, number(&mut r, 2, what)?, number(&mut r, 2, what)?];
            r.take(if version == 3 { 1 } else { 0 }, what)?;
            let padded = |n: u64| if version == 1 { n.next_multiple_of(8) } else { n };
            let name = r.take(padded(sizes[0]), what)?;
            let name = name.split(|&b| b == 0).next().unwrap_or_default();
            let ty = r.take(padded(sizes[1]), what)?;
            let dims = r.take(padded(sizes[2]), what)?;
            let elements = r.take(r.left() as u64, what)?;
            self.budget.work(what, name.len() as u64)?;
            self.budget.take(what, ENTRY_BYTES)?;
            found.entry(name).or_insert([ty, dims, elements]);
        }
        // They live while the caller uses them.
        self.budget.give(found.len() as u64 * ENTRY_BYTES);
        Ok(Attributes { file: self, found })
    }

    fn text(&self, bytes: &'a [u8]) -> Result<&'a str, FormatError> {
        self.budget.work("a text", bytes.len() as u64)?;
        std::str::from_utf8(bytes).map_err(|e| FormatError::new(Flaw::Utf8, "a text", "UTF-8", e))
    }

    /// Returns a string from a global heap: length, address of the collection, number in it.
    fn heap_text(&self, element: &[u8]) -> Result<&'a str, FormatError> {
        let what = "a heap of strings";
        let mut e = Reader::new(element);
        let (length, at, wanted) = (number(&mut e, 4, what)?, number(&mut e, 8, what)?, number(&mut e, 4, what)?);
        if length == 0 {
            return Ok("");
        }
        let mut r = self.at(at, what)?;
        if r.take(4, what)? != b"GCOL" {
            return Err(broken(what, "a collection", "other bytes"));
        }
        r.take(4, what)?;
        let size = number(&mut r, 8, what)?.saturating_sub(16);
        let mut r = Reader::new(r.take(size, what)?);
        while r.left() >= 16 {
            self.budget.work(what, 16)?;
            let index = number(&mut r, 2, what)?;
            r.take(6, what)?;
            let size = number(&mut r, 8, what)?;
            if index == wanted {
                return self.text(r.take(length.min(size), what)?);
            }
            if index == 0 {
                break;
            }
            r.take(size.checked_next_multiple_of(8).unwrap_or(u64::MAX), what)?;
        }
        Err(broken(what, "a string of this number", wanted))
    }
}
