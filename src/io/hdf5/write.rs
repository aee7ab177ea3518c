//! Writes HDF5 as h5py does by default: superblock 0, symbol tables, contiguous data.

use crate::io::{Flaw, FormatError};
use crate::tensor::{DType, HostTensor};
use std::collections::BTreeMap;

const UNDEFINED: u64 = u64::MAX;
/// Entries of a group's tree that HDF5 allocates, as the superblock states.
const TREE: usize = 16;
/// The largest attribute inside an object's header.
const MAX_ATTRIBUTE: usize = 60_000;

/// An attribute's value.
#[derive(Debug, Clone)]
enum Attribute {
    /// A text of any length.
    Text(String),
    /// A list of texts, stored one after another with equal lengths.
    Texts(Vec<String>),
}

/// A group or a dataset, with its attributes by name.
#[derive(Debug, Default)]
struct Node<'t> {
    children: BTreeMap<String, Node<'t>>,
    tensor: Option<&'t HostTensor>,
    attributes: BTreeMap<String, Attribute>,
}

/// A file that is put together in memory.
#[derive(Debug, Default)]
pub struct Writer<'t> {
    root: Node<'t>,
}

impl<'t> Writer<'t> {
    /// Returns an empty file.
    pub fn new() -> Self {
        Self::default()
    }

    fn node(&mut self, path: &str) -> &mut Node<'t> {
        let parts = path.split('/').filter(|part| !part.is_empty());
        parts.fold(&mut self.root, |node, part| node.children.entry(part.to_owned()).or_default())
    }

    /// Adds a group, and those above it.
    pub fn group(&mut self, path: &str) {
        self.node(path);
    }

    /// Adds a dataset, and the groups above it.
    pub fn dataset(&mut self, path: &str, tensor: &'t HostTensor) {
        self.node(path).tensor = Some(tensor);
    }

    /// Sets a text as an attribute of an object.
    pub fn text(&mut self, path: &str, name: &str, text: &str) {
        self.node(path).attributes.insert(name.into(), Attribute::Text(text.to_owned()));
    }

    /// Sets a list of texts as an attribute, split into several with numbered names if it is long, as Keras does.
    pub fn texts(&mut self, path: &str, name: &str, texts: &[String]) {
        let width = texts.iter().map(String::len).max().unwrap_or(1).max(1);
        let per_part = (MAX_ATTRIBUTE / width).max(1);
        if texts.len() <= per_part {
            self.node(path).attributes.insert(name.into(), Attribute::Texts(texts.to_vec()));
            return;
        }
        for (i, part) in texts.chunks(per_part).enumerate() {
            self.node(path).attributes.insert(format!("{name}{i}"), Attribute::Texts(part.to_vec()));
        }
    }

    /// Returns the bytes of the file, or an error for a tensor of another type than f32 and i32.
    pub fn finish(self) -> Result<Vec<u8>, FormatError> {
        let mut out = Out { bytes: vec![0; 96] };
        let leaf = largest(&self.root).div_ceil(2).max(4) as u16;
        let root = out.node(&self.root, leaf)?;
        let mut head = b"\x89HDF\r\n\x1a\n\0\0\0\0\0\x08\x08\0".to_vec();
        head.extend(leaf.to_le_bytes());
        head.extend((TREE as u16).to_le_bytes());
        head.extend([0; 4]);
        for address in [0, UNDEFINED, out.bytes.len() as u64, UNDEFINED, 0, root] {
            head.extend(address.to_le_bytes());
        }
        head.resize(96, 0);
        out.bytes[..96].copy_from_slice(&head);
        Ok(out.bytes)
    }
}

/// Returns the largest number of members of a group.
fn largest(node: &Node) -> usize {
    node.children.values().map(largest).max().unwrap_or(0).max(node.children.len())
}

fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

fn numbers(all: &[u64]) -> Vec<u8> {
    all.iter().flat_map(|n| n.to_le_bytes()).collect()
}

/// Returns the message of a dataset's or an attribute's extents.
fn extents(dims: &[usize]) -> Vec<u8> {
    let mut bytes = vec![1, dims.len() as u8, 0, 0, 0, 0, 0, 0];
    bytes.extend(numbers(&dims.iter().map(|&d| d as u64).collect::<Vec<_>>()));
    bytes
}

/// Returns the message of a type of numbers: little-endian f32 or i32.
fn number_type(dtype: DType) -> Option<Vec<u8>> {
    Some(match dtype {
        DType::F32 => vec![0x11, 0x20, 31, 0, 4, 0, 0, 0, 0, 0, 32, 0, 23, 8, 0, 23, 127, 0, 0, 0],
        DType::I32 => vec![0x10, 8, 0, 0, 4, 0, 0, 0, 0, 0, 32, 0],
        _ => return None,
    })
}

struct Out {
    bytes: Vec<u8>,
}

impl Out {
    fn push(&mut self, bytes: &[u8]) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        let at = self.bytes.len() as u64;
        self.bytes.extend_from_slice(bytes);
        at
    }

    /// Writes an object and what is in it, and returns its address.
    fn node(&mut self, node: &Node, leaf: u16) -> Result<u64, FormatError> {
        let mut messages: Vec<(u16, Vec<u8>)> = Vec::new();
        match node.tensor {
            Some(tensor) => {
                let ty = number_type(tensor.dtype()).ok_or_else(|| {
                    FormatError::new(Flaw::Type, "a dataset", "f32 or i32", tensor.dtype()).advise("convert the weight")
                })?;
                let size = tensor.bytes().len() as u64;
                let at = if size == 0 { UNDEFINED } else { self.push(tensor.bytes()) };
                messages.push((0x01, extents(tensor.shape())));
                messages.push((0x03, ty));
                // No value fills what is not written.
                messages.push((0x05, vec![2, 2, 2, 0]));
                messages.push((0x08, [vec![3, 1], numbers(&[at, size])].concat()));
            }
            None => messages.push((0x11, self.table(node, leaf)?)),
        }
        for (name, attribute) in &node.attributes {
            let message = self.attribute(name, attribute);
            messages.push((0x0c, message));
        }
        let mut body = Vec::new();
        for (kind, contents) in &messages {
            let contents = padded(contents.clone());
            body.extend(kind.to_le_bytes());
            body.extend((contents.len() as u16).to_le_bytes());
            body.extend([0; 4]);
            body.extend(contents);
        }
        let mut head = vec![1, 0];
        head.extend((messages.len() as u16).to_le_bytes());
        head.extend(1u32.to_le_bytes());
        head.extend((body.len() as u32).to_le_bytes());
        head.extend([0; 4]);
        head.extend(body);
        Ok(self.push(&head))
    }

    /// Writes the members of a group and returns the addresses of its tree and of the heap with their names.
    fn table(&mut self, node: &Node, leaf: u16) -> Result<Vec<u8>, FormatError> {
        // The empty name is first.
        let (mut names, mut entries, mut last) = (vec![0; 8], Vec::new(), 0);
        for (name, child) in &node.children {
            let at = self.node(child, leaf)?;
            last = names.len() as u64;
            names.extend(padded([name.as_bytes(), &[0]].concat()));
            entries.extend(numbers(&[last, at, 0, 0, 0]));
        }
        let data = self.push(&names);
        let heap = self.push(&[b"HEAP\0\0\0\0".to_vec(), numbers(&[names.len() as u64, 1, data])].concat());
        let count = node.children.len() as u16;
        let mut symbols = [b"SNOD\x01\0".to_vec(), count.to_le_bytes().to_vec(), entries].concat();
        symbols.resize(8 + 40 * 2 * usize::from(leaf), 0);
        let symbols = if count == 0 { 0 } else { self.push(&symbols) };
        let used = u16::from(count > 0).to_le_bytes();
        let mut tree = [b"TREE\0\0".to_vec(), used.to_vec(), numbers(&[UNDEFINED; 2])].concat();
        tree.extend(numbers(&[0, symbols, last]));
        tree.resize(24 + 8 * (4 * TREE + 1), 0);
        Ok(numbers(&[self.push(&tree), heap]))
    }

    fn attribute(&mut self, name: &str, value: &Attribute) -> Vec<u8> {
        let (ty, dims, data) = match value {
            Attribute::Text(text) => {
                // A heap holds the text: an object's header is at most 64 KiB.
                let mut heap = [1u16.to_le_bytes(), 1u16.to_le_bytes()].concat();
                heap.extend([0; 4]);
                heap.extend((text.len() as u64).to_le_bytes());
                heap.extend(padded(text.as_bytes().to_vec()));
                let size = (16 + heap.len() + 16).max(4096) as u64;
                let free = size - 16 - heap.len() as u64;
                heap = [b"GCOL\x01\0\0\0".to_vec(), size.to_le_bytes().to_vec(), heap].concat();
                heap.extend(numbers(&[0, free]));
                heap.resize(size as usize, 0);
                let at = self.push(&heap);
                let data = [&(text.len() as u32).to_le_bytes()[..], &at.to_le_bytes(), &1u32.to_le_bytes()].concat();
                let ty = vec![0x19, 1, 1, 0, 16, 0, 0, 0, 0x13, 0x10, 0, 0, 1, 0, 0, 0];
                (ty, extents(&[]), data)
            }
            Attribute::Texts(texts) => {
                let width = texts.iter().map(String::len).max().unwrap_or(1).max(1);
                let cell = |text: &String| [text.as_bytes(), &vec![0; width - text.len()]].concat();
                let ty = [&[0x13, 0x11, 0, 0][..], &(width as u32).to_le_bytes()].concat();
                (ty, extents(&[texts.len()]), texts.iter().flat_map(cell).collect())
            }
        };
        let name = [name.as_bytes(), &[0]].concat();
        let mut message = vec![1, 0];
        for part in [&name, &ty, &dims] {
            message.extend((part.len() as u16).to_le_bytes());
        }
        [message, padded(name), padded(ty), padded(dims), data].concat()
    }
}
