//! IDX, the format of MNIST: two zero bytes, element type, rank, big-endian extents, elements.

use super::{Budget, Flaw, FormatError, Reader, checked_bytes, read_file};
use crate::tensor::HostTensor;
use flate2::bufread::GzDecoder;
use std::{io::Read, path::Path};

/// The maximum size of an IDX file, unpacked, in bytes.
pub const CAP_BYTES: u64 = 1 << 30;

/// The maximum compression ratio of DEFLATE is 1,032.
const MAX_PER_BYTE: u64 = 1032;

/// Returns the tensor of bytes in an IDX file, plain or gzipped, of 1 to 4 axes.
///
/// Memory is at most the stated size, which is checked against [`CAP_BYTES`], the file's length, and its [`Budget`].
pub fn read(bytes: &[u8]) -> Result<HostTensor, FormatError> {
    let budget = Budget::new(bytes.len() as u64);
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        let mut r = Reader::new(bytes);
        let (shape, n) = header(&mut r)?;
        let elements = r.take(n as u64, "the elements")?;
        budget.take("the elements", n as u64)?;
        let elements = elements.to_vec();
        r.finish("after the elements")?;
        return tensor(shape, elements);
    }
    let mut packed = bytes;
    let mut decoder = GzDecoder::new(&mut packed);
    let mut head = [0; 20];
    let read = fill(&mut decoder, &mut head[..4])?;
    let axes = usize::from(if read == 4 { head[3] } else { 0 }).min(4);
    let read = read + fill(&mut decoder, &mut head[4..4 + 4 * axes])?;
    let (shape, n) = header(&mut Reader::new(&head[..read]))?;
    if n as u64 > (bytes.len() as u64).saturating_mul(MAX_PER_BYTE) {
        let got = format!("a gzip file of {} bytes, which cannot hold them", bytes.len());
        return Err(FormatError::new(Flaw::Truncated, "the elements", format!("{n} bytes"), got));
    }
    budget.take("the elements", n as u64)?;
    let mut elements = vec![0; n];
    let got = fill(&mut decoder, &mut elements)?;
    if got < n {
        let got = format!("{got} bytes before the file ends");
        return Err(FormatError::new(Flaw::Truncated, "the elements", format!("{n} bytes"), got));
    }
    if fill(&mut decoder, &mut [0])? != 0 {
        return Err(FormatError::new(Flaw::Trailing, "after the elements", "the end of the file", "more bytes"));
    }
    drop(decoder);
    Reader::new(packed).finish("after the gzip stream")?;
    tensor(shape, elements)
}

/// Returns the tensor in an IDX file; errors name the file.
pub fn open(path: impl AsRef<Path>) -> Result<HostTensor, FormatError> {
    let path = path.as_ref();
    read(&read_file(path, CAP_BYTES)?).map_err(|e| e.of(path))
}

fn tensor(shape: Vec<usize>, elements: Vec<u8>) -> Result<HostTensor, FormatError> {
    HostTensor::u8(shape, elements).map_err(|e| FormatError::new(Flaw::ByteCount, "the elements", "a full tensor", e))
}

fn header(r: &mut Reader<'_>) -> Result<(Vec<usize>, usize), FormatError> {
    let magic = r.u32_be("the magic number")?;
    if magic >> 16 != 0 {
        return Err(FormatError::new(Flaw::Magic, "the magic number", "two zero bytes", format!("{magic:#010x}")));
    }
    let (ty, rank) = (magic >> 8 & 0xff, magic & 0xff);
    if ty != 8 {
        let got = format!("type {ty:#04x}");
        return Err(FormatError::new(Flaw::Type, "the element type", "0x08 (unsigned bytes)", got));
    }
    if !(1..=4).contains(&rank) {
        return Err(FormatError::new(Flaw::Rank, "the rank", "1 to 4 axes", format!("{rank} axes")));
    }
    let dims = (0..rank).map(|_| r.u32_be("the extents").map(u64::from)).collect::<Result<Vec<_>, _>>()?;
    let n = checked_bytes("the extents", &dims, 1, CAP_BYTES)?;
    Ok((dims.iter().map(|&d| d as usize).collect(), n))
}

/// Reads until the buffer is full or the stream ends; returns the number of bytes read.
fn fill(decoder: &mut impl Read, buffer: &mut [u8]) -> Result<usize, FormatError> {
    let mut n = 0;
    while n < buffer.len() {
        match decoder.read(&mut buffer[n..]) {
            Ok(0) => break,
            Ok(k) => n += k,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(FormatError::new(Flaw::Truncated, "the gzip stream", "its end", "the end of the file"));
            }
            Err(e) => return Err(FormatError::new(Flaw::Compression, "the gzip stream", "an intact one", e)),
        }
    }
    Ok(n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    fn file(head: [u8; 4], dims: &[u32], elements: &[u8]) -> Vec<u8> {
        let dims = dims.iter().flat_map(|d| d.to_be_bytes());
        head.into_iter().chain(dims).chain(elements.iter().copied()).collect()
    }

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn flaw(bytes: &[u8]) -> Flaw {
        read(bytes).unwrap_err().flaw
    }

    #[test]
    fn plain_and_gzipped_files_give_their_tensor() {
        let good = file([0, 0, 8, 3], &[2, 2, 3], &(0..12).collect::<Vec<_>>());
        for bytes in [good.clone(), gz(&good)] {
            let t = read(&bytes).unwrap();
            assert_eq!((t.shape(), t.bytes()), (&[2, 2, 3][..], &(0..12).collect::<Vec<u8>>()[..]));
        }
        assert_eq!(read(&file([0, 0, 8, 1], &[0], &[])).unwrap().len(), 0);
    }

    #[test]
    fn hostile_files_give_exact_errors() {
        let gzip_or_not: [fn(Vec<u8>) -> Vec<u8>; 2] = [|b| b, |b| gz(&b)];
        for wrap in gzip_or_not {
            let flaw = |bytes: Vec<u8>| flaw(&wrap(bytes));
            assert_eq!(flaw(file([1, 0, 8, 1], &[1], &[1])), Flaw::Magic);
            assert_eq!(flaw(file([0, 0, 13, 1], &[1], &[1, 2, 3, 4])), Flaw::Type);
            assert_eq!(flaw(file([0, 0, 8, 0], &[], &[])), Flaw::Rank);
            assert_eq!(flaw(file([0, 0, 8, 255], &[1; 255], &[1])), Flaw::Rank);
            assert_eq!(flaw(file([0, 0, 8, 4], &[u32::MAX; 4], &[1])), Flaw::Overflow);
            assert_eq!(flaw(file([0, 0, 8, 2], &[1 << 20, 1 << 20], &[1])), Flaw::TooLarge);
            assert_eq!(flaw(file([0, 0, 8, 2], &[1 << 10, 1 << 20], &[1])), Flaw::Truncated);
            assert_eq!(flaw(file([0, 0, 8, 1], &[2], &[1, 2, 3])), Flaw::Trailing);
            assert_eq!(flaw(Vec::new()), Flaw::Truncated);
        }
    }

    #[test]
    fn every_truncation_and_every_flipped_byte_of_a_gzip_file_is_noticed() {
        let good = file([0, 0, 8, 2], &[3, 4], &[7; 12]);
        for n in 0..good.len() {
            assert_eq!(flaw(&good[..n]), Flaw::Truncated, "{n} bytes");
        }
        let packed = gz(&good);
        for n in 0..packed.len() {
            assert_eq!(flaw(&packed[..n]), Flaw::Truncated, "{n} bytes");
        }
        let reference = read(&packed).unwrap();
        for i in 0..packed.len() {
            let mut damaged = packed.clone();
            damaged[i] ^= 0x10;
            // A time stamp or the bits after the stream's end may change, but not the elements.
            assert!(read(&damaged).is_ok_and(|t| t == reference) || read(&damaged).is_err(), "byte {i}");
        }
        let mut trailing = packed.clone();
        trailing.push(0);
        assert_eq!(flaw(&trailing), Flaw::Trailing);
    }
}
