//! Files in and out. Every size that a file states goes through one bounded [`Reader`], and memory and work are drawn
//! on one [`Budget`] before they are spent.
//!
//! **In**: bytes that may be hostile. **Out**: host tensors by name, or a [`FormatError`] that names the file, the part, what was wanted
//! and what was found.
//!
//! - [`weights`] reads every format and distinguishes them by their first bytes; [`safetensors`] also writes.
//! - [`save`] replaces a file so that the old or the new one survives a crash.
//! - `image` (feature `images`) decodes PNG and JPEG, `fetch` (feature `fetch`) downloads published weights.
//!
//! Invariants: no panic on any input; nothing in a file is executed; no file names another one outside its folder; memory and work are
//! bounded before they are spent.

#[cfg(feature = "weights")]
pub mod archive;
pub mod events;
#[cfg(feature = "fetch")]
pub mod fetch;
pub mod hdf5;
pub mod idx;
#[cfg(feature = "images")]
pub mod image;
pub mod npy;
#[cfg(feature = "onnx")]
pub mod onnx;
pub mod pickle;
pub mod safetensors;
pub mod save;
pub mod tfjs;
pub mod weights;

use std::{cell::Cell, fmt, path::Path};

/// What is wrong with a file, for programs to match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Flaw {
    /// It does not exist.
    Missing,
    /// The system could not read or write it.
    Io,
    /// It ends before its contents do.
    Truncated,
    /// Bytes follow the end of its contents.
    Trailing,
    /// It is not a file of this format.
    Magic,
    /// Its header does not follow the grammar.
    Syntax,
    /// Its header is not UTF-8.
    Utf8,
    /// A stated size exceeds the cap.
    TooLarge,
    /// A product of extents does not fit in 64 bits.
    Overflow,
    /// The number of axes is not supported.
    Rank,
    /// Two entries have the same name.
    Duplicate,
    /// Two entries share bytes.
    Overlap,
    /// Bytes belong to no entry.
    Hole,
    /// An entry ends before it starts.
    Reversed,
    /// An entry's bytes do not fit its shape and type.
    ByteCount,
    /// The element type is unknown or not supported.
    Type,
    /// The contents do not have the stated checksum.
    Checksum,
    /// The compressed stream is damaged.
    Compression,
    /// Two parts contradict each other.
    Contradiction,
    /// An image cannot be decoded, encoded or drawn.
    Image,
    /// It contains nothing usable.
    Empty,
}

/// A file cannot be read or written as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub struct FormatError {
    /// The file's path, if known.
    pub file: Option<Box<Path>>,
    /// The part of the file, or what was read.
    pub what: String,
    /// What is wrong.
    pub flaw: Flaw,
    /// What was wanted there.
    pub wanted: String,
    /// What was found.
    pub got: String,
    /// What to do.
    pub advice: String,
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        write!(f, "{}: wanted {}, got {}", self.what, self.wanted, self.got)?;
        if self.advice.is_empty() { Ok(()) } else { write!(f, "; {}", self.advice) }
    }
}

impl FormatError {
    /// Returns an error about bytes whose file is unknown.
    pub fn new(flaw: Flaw, what: impl fmt::Display, wanted: impl fmt::Display, got: impl fmt::Display) -> Self {
        FormatError {
            file: None,
            what: what.to_string(),
            flaw,
            wanted: wanted.to_string(),
            got: got.to_string(),
            advice: String::new(),
        }
    }

    /// Returns the error of a system call on `path`.
    pub fn io(path: &Path, wanted: impl fmt::Display, error: &std::io::Error) -> Self {
        let flaw = if error.kind() == std::io::ErrorKind::NotFound { Flaw::Missing } else { Flaw::Io };
        FormatError::new(flaw, "the file", wanted, error).of(path)
    }

    /// Returns the error with the file's path.
    pub fn of(mut self, path: &Path) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Returns the error with advice.
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }
}

/// Returns a file's bytes, or an error if it is larger than `cap_bytes` or cannot be read.
pub fn read_file(path: impl AsRef<Path>, cap_bytes: u64) -> Result<Vec<u8>, FormatError> {
    use std::io::Read;
    let path = path.as_ref();
    let io = |e: std::io::Error| FormatError::io(path, "a readable file", &e);
    let file = std::fs::File::open(path).map_err(io)?;
    let stated = file.metadata().map_err(io)?.len();
    let too_large = |got: u64| {
        FormatError::new(Flaw::TooLarge, "the file", format!("at most {cap_bytes} bytes"), format!("{got} bytes"))
            .of(path)
    };
    if stated > cap_bytes {
        return Err(too_large(stated));
    }
    let mut bytes = Vec::with_capacity(stated as usize);
    file.take(cap_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > cap_bytes { Err(too_large(bytes.len() as u64)) } else { Ok(bytes) }
}

/// Limits on reading one file: bytes of memory besides the file's own, and units of work.
///
/// Readers draw on it before they allocate. It allows the larger of 64 MiB and 20 times the file in bytes, and four
/// times as many units of work: a unit is a byte that is unpacked, copied or compared, or an entry that is visited. So
/// a small file that describes endless memory or work, in whatever way, ends in an error ([`Flaw::TooLarge`]).
///
/// ```
/// use hubel::io::{Budget, Flaw};
/// let budget = Budget::new(1000);
/// budget.take("an array", 60 << 20)?;
/// assert_eq!(budget.take("another", 60 << 20).unwrap_err().flaw, Flaw::TooLarge);
/// budget.give(60 << 20);
/// budget.take("another", 60 << 20)?;
/// assert!(Budget::new(1000).at_least(1 << 30).take("a trusted array", 1 << 30).is_ok());
/// # Ok::<(), hubel::io::FormatError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Budget {
    min_bytes: u64,
    file: Cell<u64>,
    taken: Cell<u64>,
    worked: Cell<u64>,
}

impl Budget {
    /// The bytes that any file may use.
    pub const MIN_BYTES: u64 = 64 << 20;
    /// How many times its size a larger file may use.
    pub const TIMES: u64 = 20;
    const WORK: u64 = 4;

    /// Returns the budget of a file of `bytes` bytes.
    pub fn new(file_bytes: u64) -> Self {
        let [taken, worked] = [Cell::new(0), Cell::new(0)];
        Budget { min_bytes: Self::MIN_BYTES, file: Cell::new(file_bytes), taken, worked }
    }

    /// Raises the budget to at least `bytes` bytes, for a file that is known to need them.
    pub fn at_least(mut self, bytes: u64) -> Self {
        self.min_bytes = self.min_bytes.max(bytes);
        self
    }

    /// Returns the total bytes of the budget.
    pub fn bytes(&self) -> u64 {
        self.min_bytes.max(self.file.get().saturating_mul(Self::TIMES))
    }

    /// Adds the budget of a further file of `bytes` bytes that belongs to the first.
    pub fn add_file(&self, bytes: u64) {
        self.file.set(self.file.get().saturating_add(bytes));
    }

    /// Takes bytes for `what`, or returns an error if they exceed the budget.
    pub fn take(&self, what: &str, bytes: u64) -> Result<(), FormatError> {
        let taken = self.taken.get().saturating_add(bytes);
        if taken > self.bytes() {
            return Err(self.exceeded(what, "bytes", self.bytes(), taken));
        }
        self.taken.set(taken);
        self.work(what, bytes)
    }

    /// Returns freed bytes to the budget.
    pub fn give(&self, bytes: u64) {
        self.taken.set(self.taken.get().saturating_sub(bytes));
    }

    /// Takes units of work for `what`, or returns an error if they exceed the budget.
    pub fn work(&self, what: &str, units: u64) -> Result<(), FormatError> {
        let (worked, max) = (self.worked.get().saturating_add(units), self.bytes().saturating_mul(Self::WORK));
        if worked > max {
            return Err(self.exceeded(what, "units of work", max, worked));
        }
        self.worked.set(worked);
        Ok(())
    }

    /// Appends to a list, drawing its growth on the budget.
    pub(crate) fn push<T>(&self, what: &str, list: &mut Vec<T>, item: T) -> Result<(), FormatError> {
        self.reserve(what, list, 1)?;
        list.push(item);
        Ok(())
    }

    /// Reserves room for `n` more items in a list.
    pub(crate) fn reserve<T>(&self, what: &str, list: &mut Vec<T>, n: usize) -> Result<(), FormatError> {
        self.work(what, n as u64)?;
        let (old, needed) = (list.capacity(), list.len() + n);
        if needed > old {
            let (new, size) = (needed.max(2 * old).max(4), size_of::<T>() as u64);
            self.take(what, new as u64 * size)?;
            list.reserve_exact(new - list.len());
            self.give(old as u64 * size);
        }
        Ok(())
    }

    /// Draws the maximum memory of serde_json's values of a text: a map has nodes of eleven entries, a list starts with
    /// four entries and doubles.
    pub(crate) fn take_json(&self, what: &str, text: &[u8]) -> Result<(), FormatError> {
        const NODE: u64 = 640;
        const PLACES: u64 = 128;
        const DEEPEST: usize = 128;
        let (mut bytes, mut open, mut quoted, mut escaped) = (text.len() as u64, Vec::new(), false, false);
        for &b in text {
            match b {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                _ if quoted => {}
                b'{' | b'[' => {
                    bytes += if b == b'{' { NODE } else { PLACES };
                    open.push((b, 0));
                    // serde_json goes no deeper.
                    if open.len() > DEEPEST {
                        break;
                    }
                }
                b'}' | b']' => drop(open.pop()),
                b',' => match open.last_mut() {
                    Some((b'{', n @ 0..10) | (b'[', n @ 0..3)) => *n += 1,
                    _ => bytes += PLACES,
                },
                _ => {}
            }
        }
        self.take(what, bytes)
    }

    fn exceeded(&self, what: &str, unit: &str, max: u64, got: u64) -> FormatError {
        let wanted = format!("at most {max} {unit} for a file of {} bytes", self.file.get());
        FormatError::new(Flaw::TooLarge, what, wanted, format!("{got} or more"))
            .advise("read it with a larger `io::Budget` if you trust it")
    }
}

/// Returns the number of bytes of a tensor of `dims` with elements of `element_bytes`, or an error if the product
/// overflows or exceeds `cap_bytes`.
pub fn checked_bytes(what: &str, dims: &[u64], element_bytes: u64, cap_bytes: u64) -> Result<usize, FormatError> {
    // An extent of 0 must not hide others that overflow.
    let whole = dims.iter().filter(|&&d| d > 0).try_fold(element_bytes, |p, &d| p.checked_mul(d));
    let whole = whole.ok_or_else(|| {
        FormatError::new(Flaw::Overflow, what, "a size that fits in 64 bits", format!("extents {dims:?}"))
    })?;
    let product = if dims.contains(&0) { 0 } else { whole };
    if product > cap_bytes || usize::try_from(product).is_err() {
        return Err(FormatError::new(
            Flaw::TooLarge,
            what,
            format!("at most {cap_bytes} bytes"),
            format!("{product} bytes for extents {dims:?}"),
        ));
    }
    Ok(product as usize)
}

/// Reads bytes front to back and never past the end.
///
/// ```
/// use hubel::io::{Flaw, Reader};
/// let mut r = Reader::new(&[0, 0, 1, 2, 9]);
/// assert_eq!(r.u32_be("a number")?, 258);
/// assert_eq!(r.u32_be("another").unwrap_err().flaw, Flaw::Truncated);
/// # Ok::<(), hubel::io::FormatError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Returns a reader at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    /// Returns the number of bytes left.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Returns the next `n` bytes, or an error if fewer are left.
    pub fn take(&mut self, n: u64, what: &str) -> Result<&'a [u8], FormatError> {
        if n > self.left() as u64 {
            let got = format!("{} bytes before the file ends", self.left());
            return Err(FormatError::new(Flaw::Truncated, what, format!("{n} bytes"), got));
        }
        let taken = &self.bytes[self.at..self.at + n as usize];
        self.at += n as usize;
        Ok(taken)
    }

    /// Returns the next big-endian 32-bit number.
    pub fn u32_be(&mut self, what: &str) -> Result<u32, FormatError> {
        Ok(self.take(4, what)?.iter().fold(0, |n, &b| n << 8 | u32::from(b)))
    }

    /// Returns the next little-endian 64-bit number.
    pub fn u64_le(&mut self, what: &str) -> Result<u64, FormatError> {
        Ok(self.take(8, what)?.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b)))
    }

    /// Returns an error unless all bytes have been read.
    pub fn finish(&self, what: &str) -> Result<(), FormatError> {
        match self.left() {
            0 => Ok(()),
            n => Err(FormatError::new(Flaw::Trailing, what, "the end of the file", format!("{n} bytes more"))),
        }
    }
}
