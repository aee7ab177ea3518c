//! NumPy's .npy: a magic word, a header that is a Python dictionary of three entries, then the elements.

use super::{Budget, Flaw, FormatError, Reader, checked_bytes, read_file};
use crate::tensor::{DType, Data, HostTensor, TensorError};
use std::path::Path;

const MAGIC: &[u8] = b"\x93NUMPY";
/// The maximum number of axes of an array.
pub const MAX_RANK: usize = 32;
/// The maximum size of a file that [`open`] reads, in bytes.
pub const FILE_CAP_BYTES: u64 = 16 << 30;
const HEADER_CAP_BYTES: u64 = 1 << 16;

/// The contents of a header.
struct Header<'a> {
    descr: &'a str,
    fortran: bool,
    shape: Vec<u64>,
}

fn syntax(wanted: &str, rest: &str) -> FormatError {
    let got: String = rest.chars().take(24).collect();
    FormatError::new(Flaw::Syntax, "the header", wanted, format!("`{got}`"))
}

/// Reads exactly what NumPy writes: keys and types in single or double quotes, a tuple of numbers, `True` or `False`.
struct Parser<'a>(&'a str);

impl<'a> Parser<'a> {
    fn skip(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\n', '\t']);
    }

    fn has(&mut self, token: &str) -> bool {
        self.skip();
        let rest = self.0.strip_prefix(token);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn must(&mut self, token: &str) -> Result<(), FormatError> {
        if self.has(token) { Ok(()) } else { Err(syntax(&format!("`{token}`"), self.0)) }
    }

    fn text(&mut self) -> Result<&'a str, FormatError> {
        self.skip();
        let quote = self.0.chars().next().filter(|c| matches!(c, '\'' | '"'));
        let end = quote.and_then(|q| Some((q, self.0[1..].find(q)?)));
        let Some((_, end)) = end else { return Err(syntax("a string in quotes", self.0)) };
        let text = &self.0[1..=end];
        self.0 = &self.0[end + 2..];
        Ok(text)
    }

    fn number(&mut self) -> Result<u64, FormatError> {
        self.skip();
        let end = self.0.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.0.len());
        let number = self.0[..end].parse().map_err(|_| syntax("a number below 2⁶⁴", self.0))?;
        self.0 = &self.0[end..];
        // Python 2's suffix of long integers.
        self.has("L");
        Ok(number)
    }

    fn header(mut self) -> Result<Header<'a>, FormatError> {
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        self.must("{")?;
        while !self.has("}") {
            match self.text()? {
                "descr" => {
                    self.must(":")?;
                    self.skip();
                    if self.0.starts_with('[') {
                        let got = "an array of structures";
                        return Err(FormatError::new(Flaw::Type, "the array", "elements that are numbers", got));
                    }
                    descr = Some(self.text()?);
                }
                "fortran_order" => {
                    self.must(":")?;
                    fortran = Some(self.has("True"));
                    if fortran == Some(false) {
                        self.must("False")?;
                    }
                }
                "shape" => {
                    self.must(":")?;
                    self.must("(")?;
                    let mut dims = Vec::new();
                    while !self.has(")") {
                        if dims.len() == MAX_RANK {
                            let wanted = format!("at most {MAX_RANK} axes");
                            return Err(FormatError::new(Flaw::Rank, "the array", wanted, "more"));
                        }
                        dims.push(self.number()?);
                        if !self.has(",") {
                            self.must(")")?;
                            break;
                        }
                    }
                    shape = Some(dims);
                }
                _ => return Err(syntax("the keys descr, fortran_order and shape", self.0)),
            }
            if !self.has(",") {
                self.must("}")?;
                break;
            }
        }
        self.skip();
        match (descr, fortran, shape) {
            (Some(descr), Some(fortran), Some(shape)) if self.0.is_empty() => Ok(Header { descr, fortran, shape }),
            _ => Err(syntax("descr, fortran_order and shape, nothing more", self.0)),
        }
    }
}

/// Returns the array in a .npy file.
///
/// 64-bit floats are rounded to 32 bits; 64-bit integers must fit in 32 bits; `bool` and 8-bit integers become bytes,
/// which negative ones cannot. Arrays of objects, which contain pickles, are refused, as are big-endian ones and those
/// in Fortran order.
///
/// ```
/// use hubel::{io::npy, prelude::*};
/// let x = HostTensor::f32([2, 1], vec![1.5, -2.0])?;
/// assert_eq!(npy::read(&npy::write(&x))?, x);
/// # Ok::<(), hubel::Error>(())
/// ```
pub fn read(bytes: &[u8]) -> Result<HostTensor, FormatError> {
    read_within(bytes, &Budget::new(bytes.len() as u64))
}

const ADVICE: &str = "convert it to float32 with astype";

/// [`read`] within a file's budget.
pub fn read_within(bytes: &[u8], budget: &Budget) -> Result<HostTensor, FormatError> {
    let mut r = Reader::new(bytes);
    let magic = r.take(6, "the magic word");
    if !magic.is_ok_and(|m| m == MAGIC) {
        return Err(FormatError::new(Flaw::Magic, "the file", "a NumPy array (.npy)", "other bytes"));
    }
    let version = r.take(2, "the version")?[0];
    let length = match version {
        1 => r.take(2, "the header's length")?.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b)),
        2 | 3 => r.take(4, "the header's length")?.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b)),
        _ => return Err(FormatError::new(Flaw::Type, "the version", "1, 2 or 3", version)),
    };
    if length > HEADER_CAP_BYTES {
        let wanted = format!("at most {HEADER_CAP_BYTES} bytes");
        return Err(FormatError::new(Flaw::TooLarge, "the header", wanted, format!("{length} bytes")));
    }
    let header = std::str::from_utf8(r.take(length, "the header")?);
    let header = header.map_err(|e| FormatError::new(Flaw::Utf8, "the header", "UTF-8", e))?;
    let header = Parser(header).header()?;
    if header.fortran && header.shape.len() > 1 {
        let error = FormatError::new(Flaw::Type, "the array", "the last axis contiguous", "Fortran order");
        return Err(error.advise("write it with numpy.ascontiguousarray"));
    }
    let wrong = || {
        let wanted = "little-endian f2, f4, f8, u1, i1, b1, i4, u4, i8 or u8 elements";
        FormatError::new(Flaw::Type, "the array", wanted, format!("`{}`", header.descr)).advise(ADVICE)
    };
    let (order, kind) = header.descr.split_at_checked(1).ok_or_else(wrong)?;
    let width = match kind {
        "b1" | "u1" | "i1" => 1,
        "f2" => 2,
        "f4" | "i4" | "u4" => 4,
        "f8" | "i8" | "u8" => 8,
        _ => return Err(wrong()),
    };
    if order != "<" && !(width == 1 && order == "|") {
        return Err(wrong());
    }
    let size = checked_bytes("the array", &header.shape, width, FILE_CAP_BYTES)?;
    let elements = r.take(size as u64, "the elements")?;
    r.finish("the elements")?;
    budget.take("the elements", size as u64)?;
    let shape: Vec<usize> = header.shape.iter().map(|&d| d as usize).collect();
    decode(kind, shape, elements)
}

/// Returns the tensor of little-endian elements; `kind` is NumPy's type without the byte order.
fn decode(kind: &str, shape: Vec<usize>, elements: &[u8]) -> Result<HostTensor, FormatError> {
    let range = |got: String| {
        let wanted = "integers that fit in 32 bits, and bytes of at least 0";
        FormatError::new(Flaw::Type, "an element", wanted, got).advise(ADVICE)
    };
    let wide = |signed: bool| -> Result<Data, FormatError> {
        let words = elements.chunks_exact(8).map(|c| u64::from_le_bytes(std::array::from_fn(|i| c[i])));
        let fit = |w: u64| match signed {
            true => i32::try_from(w as i64).map_err(|_| range((w as i64).to_string())),
            false => i32::try_from(w).map_err(|_| range(w.to_string())),
        };
        Ok(Data::I32(words.map(fit).collect::<Result<_, _>>()?))
    };
    let data = match kind {
        "f8" => {
            let words = elements.chunks_exact(8).map(|c| f64::from_le_bytes(std::array::from_fn(|i| c[i])));
            Data::F32(words.map(|x| x as f32).collect())
        }
        "i8" => wide(true)?,
        "u8" => wide(false)?,
        "i1" => {
            if let Some(&b) = elements.iter().find(|&&b| b > 127) {
                return Err(range((b as i8).to_string()));
            }
            Data::U8(elements.to_vec())
        }
        _ => {
            let dtype = match kind {
                "f4" => DType::F32,
                "f2" => DType::F16,
                "i4" => DType::I32,
                "u4" => DType::U32,
                _ => DType::U8,
            };
            return fits(HostTensor::from_bytes(shape, dtype, elements));
        }
    };
    fits(HostTensor::new(shape, data))
}

fn fits(tensor: Result<HostTensor, TensorError>) -> Result<HostTensor, FormatError> {
    tensor.map_err(|e| FormatError::new(Flaw::ByteCount, "the elements", "as many as the shape", e))
}

/// Returns the array in the file at `path`; errors name the file.
pub fn open(path: impl AsRef<Path>) -> Result<HostTensor, FormatError> {
    let path = path.as_ref();
    read(&read_file(path, FILE_CAP_BYTES)?).map_err(|e| e.of(path))
}

/// Returns the bytes of a .npy file of a tensor; bfloat16, which NumPy does not have, becomes 32-bit floats.
pub fn write(tensor: &HostTensor) -> Vec<u8> {
    let (descr, wide) = match tensor.dtype() {
        DType::F32 => ("<f4", None),
        DType::F16 => ("<f2", None),
        DType::BF16 => ("<f4", Some(tensor.to_f32())),
        DType::U8 => ("|u1", None),
        DType::I32 => ("<i4", None),
        DType::U32 => ("<u4", None),
    };
    let mut shape: String = tensor.shape().iter().map(|d| format!("{d}, ")).collect();
    if tensor.shape().len() != 1 {
        shape.truncate(shape.len().saturating_sub(2));
    } else {
        shape.truncate(shape.len() - 1);
    }
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    let whole = (MAGIC.len() + 4 + header.len() + 1).next_multiple_of(64);
    header.extend(std::iter::repeat_n(' ', whole - MAGIC.len() - 5 - header.len()));
    header.push('\n');
    let mut bytes = [MAGIC, &[1, 0], &(header.len() as u16).to_le_bytes(), header.as_bytes()].concat();
    bytes.extend_from_slice(wide.as_deref().map_or(tensor.bytes(), bytemuck::cast_slice));
    bytes
}
