//! Files in and out. Every size that a file states goes through one bounded [`Reader`], and all that a file takes is
//! drawn on one [`Budget`] before it is taken.
//!
//! **In**: bytes that may be hostile. **Out**: host tensors by name, or a [`FormatError`] that names the file, the place, what was wanted
//! and what came.
//!
//! - [`weights`] reads every format and tells them apart by their first bytes; [`safetensors`] also writes.
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
pub mod pickle;
pub mod safetensors;
pub mod save;
pub mod tfjs;
pub mod weights;

use std::{cell::Cell, fmt, path::Path};

/// What is wrong with a file, for programs that decide by it.
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
    /// It is no file of this format.
    Magic,
    /// Its header does not follow the grammar.
    Syntax,
    /// Its header is no UTF-8.
    Utf8,
    /// A stated size exceeds the cap.
    TooLarge,
    /// A product of extents does not fit in 64 bits.
    Overflow,
    /// The number of axes is not supported.
    Rank,
    /// Two entries have one name.
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
    /// The contents do not give the checksum that is stated.
    Checksum,
    /// The compressed stream is damaged.
    Compression,
    /// Two parts contradict each other.
    Contradiction,
    /// An image cannot be decoded, encoded or drawn.
    Image,
    /// It holds nothing that can be used.
    Empty,
}

/// A file cannot be read or written as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub struct FormatError {
    /// The file's path, where it came from one.
    pub file: Option<Box<Path>>,
    /// The part of the file.
    pub what: String,
    /// What is wrong, as a value.
    pub flaw: Flaw,
    /// What the format or the caller demands there.
    pub wanted: String,
    /// What is there.
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
    /// Returns an error of bytes whose file is not known here.
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

    /// Returns the error with a piece of advice.
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }
}

/// Returns a file's bytes, or an error where it is larger than `cap_bytes` or cannot be read.
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

/// What reading one file may take: bytes of memory beside the file's own, and units of work.
///
/// Readers draw on it before they take. It allows the greater of 64 MiB and 20 times the file in bytes, and four times
/// as many units of work, a unit being a byte that is unpacked, copied or compared, or an entry that is looked at. So a
/// small file that describes endless memory or work ends in an error ([`Flaw::TooLarge`]), however it does so.
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
    least: u64,
    file: Cell<u64>,
    taken: Cell<u64>,
    worked: Cell<u64>,
}

impl Budget {
    /// The bytes that any file may take.
    pub const MIN_BYTES: u64 = 64 << 20;
    /// How many times its size a larger file may take.
    pub const TIMES: u64 = 20;
    const WORK: u64 = 4;

    /// Returns the budget of a file of so many bytes.
    pub fn new(file_bytes: u64) -> Self {
        let [taken, worked] = [Cell::new(0), Cell::new(0)];
        Budget { least: Self::MIN_BYTES, file: Cell::new(file_bytes), taken, worked }
    }

    /// Returns the budget with at least so many bytes, for a file that is known to need them.
    pub fn at_least(mut self, bytes: u64) -> Self {
        self.least = self.least.max(bytes);
        self
    }

    /// Returns the bytes that may be taken in all.
    pub fn bytes(&self) -> u64 {
        self.least.max(self.file.get().saturating_mul(Self::TIMES))
    }

    /// Counts a further file of so many bytes that belongs to the first.
    pub fn add_file(&self, bytes: u64) {
        self.file.set(self.file.get().saturating_add(bytes));
    }

    /// Returns nothing where so many bytes may be taken for `what`, and an error where they exceed the budget.
    pub fn take(&self, what: &str, bytes: u64) -> Result<(), FormatError> {
        let taken = self.taken.get().saturating_add(bytes);
        if taken > self.bytes() {
            return Err(self.exceeded(what, "bytes", self.bytes(), taken));
        }
        self.taken.set(taken);
        self.work(what, bytes)
    }

    /// Returns bytes that were taken and are free again.
    pub fn give(&self, bytes: u64) {
        self.taken.set(self.taken.get().saturating_sub(bytes));
    }

    /// Returns nothing where so many units of work may be done for `what`, and an error where they exceed the budget.
    pub fn work(&self, what: &str, units: u64) -> Result<(), FormatError> {
        let (worked, most) = (self.worked.get().saturating_add(units), self.bytes().saturating_mul(Self::WORK));
        if worked > most {
            return Err(self.exceeded(what, "units of work", most, worked));
        }
        self.worked.set(worked);
        Ok(())
    }

    /// Appends to a list, whose growth is drawn on the budget.
    pub(crate) fn push<T>(&self, what: &str, list: &mut Vec<T>, item: T) -> Result<(), FormatError> {
        self.reserve(what, list, 1)?;
        list.push(item);
        Ok(())
    }

    /// Makes room for `n` items more in a list.
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

    /// Draws what serde_json takes at most for a text's values: a map has nodes of eleven entries, a list begins with
    /// four places and doubles.
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

    fn exceeded(&self, what: &str, unit: &str, most: u64, got: u64) -> FormatError {
        let wanted = format!("at most {most} {unit} for a file of {} bytes", self.file.get());
        FormatError::new(Flaw::TooLarge, what, wanted, format!("{got} and maybe more"))
            .advise("read it with a larger `io::Budget` where it can be trusted")
    }
}

/// Returns the number of bytes of a tensor of `dims` with elements of `element_bytes`, or an error
/// where the product overflows or exceeds `cap_bytes`.
pub fn checked_bytes(what: &str, dims: &[u64], element_bytes: u64, cap_bytes: u64) -> Result<usize, FormatError> {
    // An extent of 0 hides no others that overflow.
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
    /// Returns a reader that stands before the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    /// Returns how many bytes are left.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Returns the next `n` bytes, or an error where fewer are left.
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

    /// Returns nothing at the end, and an error where bytes are left.
    pub fn finish(&self, what: &str) -> Result<(), FormatError> {
        match self.left() {
            0 => Ok(()),
            n => Err(FormatError::new(Flaw::Trailing, what, "the end of the file", format!("{n} bytes more"))),
        }
    }
}
