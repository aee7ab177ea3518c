//! safetensors: an 8-byte header length, a JSON header of names, types, shapes and byte ranges, then
//! the elements.
//!
//! The header is read by a parser of exactly its grammar, which does not recurse and copies only names. Files written
//! here carry a CRC-32 of the whole file.

use super::{Budget, Flaw, FormatError, Reader, checked_bytes, read_file};
use crate::tensor::{DType, HostTensor};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
    fmt::Write,
    path::Path,
};

/// The maximum bytes of a header.
pub const HEADER_CAP_BYTES: u64 = 100_000_000;
/// The maximum number of tensors of a file.
pub const MAX_TENSORS: usize = 8192;
/// The maximum number of axes of a tensor.
pub const MAX_RANK: usize = 8;
/// The maximum number of metadata entries.
pub const MAX_METADATA: usize = 1024;
/// The maximum size of a file that [`open`] reads, in bytes.
pub const FILE_CAP_BYTES: u64 = 16 << 30;

/// The metadata entry with the checksum: eight hexadecimal digits, which count as zeros while it is computed.
const CHECKSUM: &str = "hubel.crc32";
const NO_CHECKSUM: &[u8] = b"00000000";

/// Returns the tensors of a file in the order of their bytes.
///
/// Memory is at most twice the file plus 1 MiB. If the file has a checksum, it must match.
pub fn read(bytes: &[u8]) -> Result<Vec<(String, HostTensor)>, FormatError> {
    read_within(bytes, &Budget::new(bytes.len() as u64))
}

/// [`read`] within a file's budget.
pub fn read_within(bytes: &[u8], budget: &Budget) -> Result<Vec<(String, HostTensor)>, FormatError> {
    budget.take("the tensors", 2 * bytes.len() as u64 + (1 << 20))?;
    let file = File::parse(bytes)?;
    file.check(bytes, false)?;
    let mut tensors = Vec::with_capacity(file.entries.len());
    for e in file.entries {
        let (rank, dims) = Parser { text: file.header, at: e.shape_at }.numbers::<MAX_RANK>()?;
        let shape: Vec<usize> = dims[..rank].iter().map(|&d| d as usize).collect();
        let elements = &file.data[e.begin as usize..e.end as usize];
        let tensor = HostTensor::from_bytes(shape, e.dtype, elements)
            .map_err(|why| FormatError::new(Flaw::ByteCount, quoted(&e.name), "elements that fit the shape", why))?;
        tensors.push((e.name.into_owned(), tensor));
    }
    Ok(tensors)
}

/// Returns the file's metadata, without the checksum.
pub fn metadata(bytes: &[u8]) -> Result<BTreeMap<String, String>, FormatError> {
    let file = File::parse(bytes)?;
    let entries = file.metadata.into_iter().filter(|(k, _)| k != CHECKSUM);
    Ok(entries.map(|(k, v)| (k.into_owned(), v.into_owned())).collect())
}

/// Returns an error unless the bytes are a whole file with a matching checksum.
pub fn verify(bytes: &[u8]) -> Result<(), FormatError> {
    File::parse(bytes)?.check(bytes, true)
}

/// Returns the tensors of the file at `path`; errors name the file.
pub fn open(path: impl AsRef<Path>) -> Result<Vec<(String, HostTensor)>, FormatError> {
    let path = path.as_ref();
    read(&read_file(path, FILE_CAP_BYTES)?).map_err(|e| e.of(path))
}

/// Returns the bytes of a file of these tensors and metadata, with a checksum.
///
/// Tensors are in the given order, larger elements first, so that each starts at a multiple of its element's size. The
/// same input gives the same bytes.
pub fn write<'a>(
    tensors: impl IntoIterator<Item = (&'a str, &'a HostTensor)>,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, FormatError> {
    let mut tensors: Vec<_> = tensors.into_iter().collect();
    let mut names = HashSet::new();
    if let Some((name, _)) = tensors.iter().find(|(name, _)| *name == "__metadata__" || !names.insert(*name)) {
        return Err(FormatError::new(Flaw::Duplicate, "a tensor's name", "an unused one", quoted(name)));
    }
    if let Some((name, t)) = tensors.iter().find(|(_, t)| t.shape().len() > MAX_RANK) {
        let got = format!("{} axes", t.shape().len());
        return Err(FormatError::new(Flaw::Rank, quoted(name), format!("at most {MAX_RANK} axes"), got));
    }
    for (what, max, got) in
        [("tensors", MAX_TENSORS, tensors.len()), ("text entries", MAX_METADATA - 1, metadata.len())]
    {
        if got > max {
            return Err(FormatError::new(Flaw::TooLarge, what, format!("at most {max}"), got));
        }
    }
    tensors.sort_by_key(|(_, t)| std::cmp::Reverse(t.dtype().bytes()));

    let mut header = format!("{{\"__metadata__\":{{\"{CHECKSUM}\":\"");
    let checksum_at = 8 + header.len();
    header.push_str("00000000\"");
    for (key, value) in metadata.iter().filter(|(key, _)| *key != CHECKSUM) {
        header.push(',');
        quote(&mut header, key);
        header.push(':');
        quote(&mut header, value);
    }
    header.push('}');
    let mut end = 0;
    for (name, t) in &tensors {
        let begin = end;
        end += t.bytes().len();
        header.push(',');
        quote(&mut header, name);
        let _ = write!(header, ":{{\"dtype\":\"{}\",\"shape\":[", tag(t.dtype()));
        for (i, d) in t.shape().iter().enumerate() {
            let _ = write!(header, "{}{d}", if i > 0 { "," } else { "" });
        }
        let _ = write!(header, "],\"data_offsets\":[{begin},{end}]}}");
    }
    header.push('}');
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    if header.len() as u64 > HEADER_CAP_BYTES {
        let (wanted, got) = (format!("at most {HEADER_CAP_BYTES} bytes"), format!("{} bytes", header.len()));
        return Err(FormatError::new(Flaw::TooLarge, "the header", wanted, got));
    }

    let mut bytes = Vec::with_capacity(8 + header.len() + end);
    bytes.extend((header.len() as u64).to_le_bytes());
    bytes.extend(header.as_bytes());
    for (_, t) in &tensors {
        bytes.extend(t.bytes());
    }
    let sum = format!("{:08x}", checksum(&bytes, checksum_at));
    bytes[checksum_at..checksum_at + 8].copy_from_slice(sum.as_bytes());
    Ok(bytes)
}

fn checksum(bytes: &[u8], at: usize) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(&bytes[..at]);
    crc.update(NO_CHECKSUM);
    crc.update(&bytes[at + NO_CHECKSUM.len()..]);
    crc.sum()
}

fn tag(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "F32",
        DType::F16 => "F16",
        DType::BF16 => "BF16",
        DType::U8 => "U8",
        DType::I32 => "I32",
        DType::U32 => "U32",
    }
}

/// Returns a name for an error message: quoted, escaped and shortened.
fn quoted(name: &str) -> String {
    let mut short: String = name.chars().take(64).collect();
    if short.len() < name.len() {
        short.push('…');
    }
    format!("{short:?}")
}

fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if (c as u32) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

struct Entry<'a> {
    name: Cow<'a, str>,
    dtype: DType,
    /// The position of its shape in the header.
    shape_at: usize,
    begin: u64,
    end: u64,
}

impl Entry<'_> {
    fn error(&self, flaw: Flaw, wanted: impl std::fmt::Display) -> FormatError {
        FormatError::new(flaw, quoted(&self.name), wanted, format!("bytes {}..{}", self.begin, self.end))
    }
}

/// A parsed file: entries in the order of their bytes, which they cover without overlaps or gaps.
struct File<'a> {
    entries: Vec<Entry<'a>>,
    metadata: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// The position of the checksum's digits.
    checksum_at: Option<usize>,
    header: &'a str,
    data: &'a [u8],
}

impl<'a> File<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let mut r = Reader::new(bytes);
        let header_bytes = r.u64_le("the header's length")?;
        if header_bytes > HEADER_CAP_BYTES {
            let (wanted, got) = (format!("at most {HEADER_CAP_BYTES}"), format!("{header_bytes} bytes"));
            return Err(FormatError::new(Flaw::TooLarge, "the header's length", wanted, got));
        }
        let header = r.take(header_bytes, "the header")?;
        let header = std::str::from_utf8(header)
            .map_err(|e| FormatError::new(Flaw::Utf8, "the header", "UTF-8", format!("{e}")))?;
        let data = r.take(r.left() as u64, "the elements")?;
        let mut file = File { entries: Vec::new(), metadata: Vec::new(), checksum_at: None, header, data };
        let mut p = Parser { text: header, at: 0 };
        p.expect(b'{')?;
        let mut first = true;
        let mut has_metadata = false;
        while p.more(b'}', &mut first)? {
            let name = p.string()?;
            p.expect(b':')?;
            if name == "__metadata__" {
                if std::mem::replace(&mut has_metadata, true) {
                    return Err(duplicate(&name));
                }
                file.parse_metadata(&mut p)?;
            } else {
                if file.entries.len() == MAX_TENSORS {
                    let wanted = format!("at most {MAX_TENSORS} tensors");
                    return Err(FormatError::new(Flaw::TooLarge, "the header", wanted, "more"));
                }
                file.entries.push(p.entry(name)?);
            }
        }
        p.end()?;
        file.validate()?;
        Ok(file)
    }

    fn parse_metadata(&mut self, p: &mut Parser<'a>) -> Result<(), FormatError> {
        p.expect(b'{')?;
        let mut first = true;
        while p.more(b'}', &mut first)? {
            let key = p.string()?;
            p.expect(b':')?;
            p.space();
            let value_at = 8 + p.at + 1;
            let value = p.string()?;
            if self.metadata.len() == MAX_METADATA {
                let wanted = format!("at most {MAX_METADATA} text entries");
                return Err(FormatError::new(Flaw::TooLarge, "the metadata", wanted, "more"));
            }
            if key == CHECKSUM && matches!(value, Cow::Borrowed(v) if v.len() == NO_CHECKSUM.len()) {
                self.checksum_at = Some(value_at);
            }
            self.metadata.push((key, value));
        }
        let keys: Vec<&str> = self.metadata.iter().map(|(k, _)| &**k).collect();
        unique(keys)
    }

    fn validate(&mut self) -> Result<(), FormatError> {
        unique(self.entries.iter().map(|e| &*e.name).collect())?;
        for e in &self.entries {
            if e.end > self.data.len() as u64 {
                let wanted = format!("a range inside the {} bytes of elements", self.data.len());
                return Err(e.error(Flaw::Truncated, wanted));
            }
        }
        self.entries.sort_by_key(|e| (e.begin, e.end));
        let mut at = 0;
        for e in &self.entries {
            let flaw = match e.begin.cmp(&at) {
                std::cmp::Ordering::Less => Flaw::Overlap,
                std::cmp::Ordering::Equal => {
                    at = e.end;
                    continue;
                }
                std::cmp::Ordering::Greater => Flaw::Hole,
            };
            let wanted = format!("a range that starts at {at}, where the one before ends");
            return Err(e.error(flaw, wanted));
        }
        match self.data.len() as u64 - at {
            0 => Ok(()),
            n => {
                let got = format!("{n} bytes more");
                Err(FormatError::new(Flaw::Trailing, "after the last tensor", "the end of the file", got))
            }
        }
    }

    fn check(&self, bytes: &[u8], required: bool) -> Result<(), FormatError> {
        let stated = self.metadata.iter().find(|(k, _)| k == CHECKSUM).map(|(_, v)| &**v);
        match (stated, self.checksum_at) {
            (None, _) if !required => Ok(()),
            (None, _) => {
                Err(FormatError::new(Flaw::Checksum, "the metadata", format!("an entry {CHECKSUM:?}"), "none"))
            }
            (Some(stated), at) => {
                let sum = at.map(|at| format!("{:08x}", checksum(bytes, at)));
                if sum.as_deref() == Some(stated) {
                    return Ok(());
                }
                let got = sum.unwrap_or_else(|| "not eight hexadecimal digits".into());
                Err(FormatError::new(Flaw::Checksum, "the contents", format!("checksum {}", quoted(stated)), got)
                    .advise("the file is damaged; use an earlier copy"))
            }
        }
    }
}

fn duplicate(name: &str) -> FormatError {
    FormatError::new(Flaw::Duplicate, "the header", "names that differ", format!("{} twice", quoted(name)))
}

fn unique(mut names: Vec<&str>) -> Result<(), FormatError> {
    names.sort_unstable();
    match names.windows(2).find(|w| w[0] == w[1]) {
        None => Ok(()),
        Some(w) => Err(duplicate(w[0])),
    }
}

/// Reads the subset of JSON that a header consists of, which has no nesting, so the reader does not recurse.
struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn error(&self, wanted: &str) -> FormatError {
        let got = match self.text.get(self.at..).and_then(|rest| rest.chars().next()) {
            Some(c) => format!("{c:?} at byte {}", self.at),
            None => "its end".into(),
        };
        FormatError::new(Flaw::Syntax, "the header", wanted, got)
    }

    fn expect(&mut self, byte: u8) -> Result<(), FormatError> {
        self.space();
        if self.peek() != Some(byte) {
            return Err(self.error(&format!("{:?}", char::from(byte))));
        }
        self.at += 1;
        Ok(())
    }

    /// Skips the comma before a further member or the closing bracket; returns whether a member follows.
    fn more(&mut self, closer: u8, first: &mut bool) -> Result<bool, FormatError> {
        self.space();
        if self.peek() == Some(closer) {
            self.at += 1;
            return Ok(false);
        }
        if !std::mem::replace(first, false) {
            self.expect(b',')?;
            self.space();
        }
        Ok(true)
    }

    fn end(&mut self) -> Result<(), FormatError> {
        self.space();
        if self.peek().is_none() { Ok(()) } else { Err(self.error("the end of the header")) }
    }

    fn string(&mut self) -> Result<Cow<'a, str>, FormatError> {
        self.expect(b'"')?;
        let start = self.at;
        let mut owned: Option<String> = None;
        loop {
            let run = self.at;
            while !matches!(self.peek(), None | Some(b'"' | b'\\' | 0..0x20)) {
                self.at += 1;
            }
            let piece = &self.text[run..self.at];
            if let Some(text) = &mut owned {
                text.push_str(piece);
            }
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(owned.map_or(Cow::Borrowed(piece), Cow::Owned));
                }
                Some(b'\\') => {
                    self.at += 1;
                    let c = self.escape()?;
                    owned.get_or_insert_with(|| self.text[start..run + piece.len()].into()).push(c);
                }
                _ => return Err(self.error("a string's closing quote")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, FormatError> {
        let c = match self.peek() {
            Some(c @ (b'"' | b'\\' | b'/')) => char::from(c),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                let high = self.hex()?;
                if !(0xd800..0xdc00).contains(&high) {
                    return char::from_u32(high).ok_or_else(|| self.error("a whole surrogate pair"));
                }
                if self.text.as_bytes().get(self.at..self.at + 2) != Some(b"\\u") {
                    return Err(self.error("the second half of a surrogate pair"));
                }
                self.at += 2;
                let low = self.hex()?;
                if !(0xdc00..0xe000).contains(&low) {
                    return Err(self.error("the second half of a surrogate pair"));
                }
                let joined = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                return char::from_u32(joined).ok_or_else(|| self.error("a whole surrogate pair"));
            }
            _ => return Err(self.error("an escape sequence")),
        };
        self.at += 1;
        Ok(c)
    }

    fn hex(&mut self) -> Result<u32, FormatError> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4).filter(|d| d.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.ok_or_else(|| self.error("four hexadecimal digits"))?;
        self.at += 4;
        Ok(digits.iter().fold(0, |n, &d| n << 4 | char::from(d).to_digit(16).unwrap_or(0)))
    }

    fn number(&mut self) -> Result<u64, FormatError> {
        self.space();
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        let digits = &self.text[start..self.at];
        if digits.is_empty()
            || (digits.len() > 1 && digits.starts_with('0'))
            || matches!(self.peek(), Some(b'.' | b'e' | b'E'))
        {
            self.at = start;
            return Err(self.error("an integer of at least 0"));
        }
        digits.parse().map_err(|_| {
            let got = format!("a number of {} digits at byte {start}", digits.len());
            FormatError::new(Flaw::Overflow, "the header", "a number that fits in 64 bits", got)
        })
    }

    fn numbers<const N: usize>(&mut self) -> Result<(usize, [u64; N]), FormatError> {
        self.expect(b'[')?;
        let (mut n, mut first, mut numbers) = (0, true, [0; N]);
        while self.more(b']', &mut first)? {
            if n == N {
                return Err(FormatError::new(Flaw::Rank, "the header", format!("at most {N} numbers"), "more"));
            }
            numbers[n] = self.number()?;
            n += 1;
        }
        Ok((n, numbers))
    }

    fn entry(&mut self, name: Cow<'a, str>) -> Result<Entry<'a>, FormatError> {
        self.expect(b'{')?;
        let (mut dtype, mut shape, mut range) = (None, None, None);
        let mut first = true;
        while self.more(b'}', &mut first)? {
            let field = self.string()?;
            self.expect(b':')?;
            let again = match &*field {
                "dtype" => {
                    let tag_text = self.string()?;
                    let known = [DType::F32, DType::F16, DType::BF16, DType::U8, DType::I32, DType::U32];
                    let ty = known.into_iter().find(|&ty| tag(ty) == tag_text).ok_or_else(|| {
                        let wanted = "F32, F16, BF16, U8, I32 or U32";
                        FormatError::new(Flaw::Type, quoted(&name), wanted, quoted(&tag_text))
                    })?;
                    dtype.replace(ty).is_some()
                }
                "shape" => shape.replace((self.at, self.numbers::<MAX_RANK>()?)).is_some(),
                "data_offsets" => range.replace(self.numbers::<2>()?).is_some(),
                _ => {
                    let wanted = "dtype, shape or data_offsets";
                    return Err(FormatError::new(Flaw::Syntax, quoted(&name), wanted, quoted(&field)));
                }
            };
            if again {
                return Err(duplicate(&field));
            }
        }
        let (Some(dtype), Some((shape_at, (rank, dims))), Some((2, [begin, end]))) = (dtype, shape, range) else {
            let wanted = "a dtype, a shape and two data_offsets";
            return Err(FormatError::new(Flaw::Syntax, quoted(&name), wanted, "not all of them"));
        };
        let bytes = checked_bytes(&quoted(&name), &dims[..rank], dtype.bytes() as u64, u64::MAX)?;
        let entry = Entry { name, dtype, shape_at, begin, end };
        match end.checked_sub(begin) {
            Some(n) if n == bytes as u64 => Ok(entry),
            Some(_) => Err(entry.error(Flaw::ByteCount, format!("{bytes} bytes for {dtype} {:?}", &dims[..rank]))),
            None => Err(entry.error(Flaw::Reversed, "a range that ends after it starts")),
        }
    }
}
