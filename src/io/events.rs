//! TensorBoard's event files: records of length, checksum, contents and checksum, whose contents are the protocol
//! buffers `Event`, `Summary` and `HistogramProto` of TensorFlow.

use super::FormatError;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    process,
    time::{SystemTime, UNIX_EPOCH},
};

/// The number of buckets of a histogram, equally wide from the minimum to the maximum.
pub const BUCKETS: usize = 30;

/// Writes scalars and histograms that TensorBoard shows: `tensorboard --logdir` on the folder or one above it.
///
/// ```
/// use hubel::io::events::EventWriter;
/// # let folder = temp_dir::TempDir::new().expect("a folder");
/// # let logs = folder.path().join("logs");
/// let mut events = EventWriter::create(&logs)?;
/// for (epoch, loss) in [0.9, 0.4, 0.2].into_iter().enumerate() {
///     events.scalar("epoch_loss", epoch as u64, loss)?;
/// }
/// events.histogram("dense/kernel", 2, &[-0.1, 0.0, 0.3])?;
/// events.flush()?;
/// # Ok::<(), hubel::io::FormatError>(())
/// ```
#[derive(Debug)]
pub struct EventWriter {
    file: BufWriter<File>,
    path: PathBuf,
}

impl EventWriter {
    /// Creates a new file `events.out.tfevents.…` in a folder, which is created if missing, and returns its writer, or
    /// an error if either cannot be created. Each run should have its own folder.
    pub fn create(dir: impl AsRef<Path>) -> Result<Self, FormatError> {
        let dir = dir.as_ref();
        fs::create_dir_all(dir).map_err(|e| FormatError::io(dir, "to create the folder", &e))?;
        let (seconds, process) = (now() as u64, process::id());
        let mut count = 0;
        let (file, path) = loop {
            let path = dir.join(format!("events.out.tfevents.{seconds:010}.hubel.{process}.{count}"));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => break (file, path),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => count += 1,
                Err(e) => return Err(FormatError::io(&path, "to make it", &e)),
            }
        };
        let mut writer = EventWriter { file: BufWriter::new(file), path };
        writer.record(&event(0, |event| event.bytes(3, b"brain.Event:2")))?;
        writer.flush()?;
        Ok(writer)
    }

    /// Returns the file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a value of a curve, which may be infinite or NaN. A slash in a tag groups curves.
    pub fn scalar(&mut self, tag: &str, step: u64, value: f32) -> Result<(), FormatError> {
        self.summary(tag, step, |v| v.fixed32(2, value))
    }

    /// Writes the histogram of values, without those that are infinite or NaN.
    pub fn histogram(&mut self, tag: &str, step: u64, values: &[f32]) -> Result<(), FormatError> {
        let histogram = histogram(values);
        self.summary(tag, step, |v| v.bytes(5, &histogram.0))
    }

    /// Passes everything written to the system, so that TensorBoard can see it.
    pub fn flush(&mut self) -> Result<(), FormatError> {
        self.file.flush().map_err(|e| FormatError::io(&self.path, "to write it", &e))
    }

    fn summary(&mut self, tag: &str, step: u64, fill: impl FnOnce(&mut Message)) -> Result<(), FormatError> {
        let mut value = Message::default();
        value.bytes(1, tag.as_bytes());
        fill(&mut value);
        let mut summary = Message::default();
        summary.bytes(1, &value.0);
        self.record(&event(step, |event| event.bytes(5, &summary.0)))
    }

    fn record(&mut self, event: &Message) -> Result<(), FormatError> {
        let length = (event.0.len() as u64).to_le_bytes();
        let parts: [&[u8]; 4] =
            [&length, &masked(crc32c(&length)).to_le_bytes(), &event.0, &masked(crc32c(&event.0)).to_le_bytes()];
        // A single write, so that a killed process usually leaves whole records.
        self.file.write_all(&parts.concat()).map_err(|e| FormatError::io(&self.path, "to write it", &e))
    }
}

/// Returns the seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

fn event(step: u64, fill: impl FnOnce(&mut Message)) -> Message {
    let mut event = Message::default();
    event.fixed64(1, now());
    event.key(2, 0);
    event.varint(step);
    fill(&mut event);
    event
}

/// Returns a `HistogramProto`.
fn histogram(values: &[f32]) -> Message {
    let finite = || values.iter().filter(|x| x.is_finite()).map(|&x| f64::from(x));
    let (mut num, mut sum, mut squares, mut min, mut max) = (0, 0.0, 0.0, f64::INFINITY, f64::NEG_INFINITY);
    for x in finite() {
        num += 1;
        sum += x;
        squares += x * x;
        min = x.min(min);
        max = x.max(max);
    }
    let mut message = Message::default();
    if num == 0 {
        return message;
    }
    let n = if min < max { BUCKETS } else { 1 };
    let width = (max - min) / n as f64;
    let mut buckets = vec![0.0; n];
    // Zero by zero is NaN, which becomes 0.
    finite().for_each(|x| buckets[(((x - min) / width) as usize).min(n - 1)] += 1.0);
    let limits: Vec<f64> = (1..=n).map(|i| if i == n { max } else { min + width * i as f64 }).collect();
    for (field, value) in (1..).zip([min, max, f64::from(num), sum, squares]) {
        message.fixed64(field, value);
    }
    for (field, list) in [(6, limits), (7, buckets)] {
        message.bytes(field, &list.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>());
    }
    message
}

/// A protocol buffer's fields in sequence.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value > 0x7F {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(&mut self, field: u64, kind: u64) {
        self.varint(field << 3 | kind);
    }

    fn fixed32(&mut self, field: u64, value: f32) {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
    }

    fn fixed64(&mut self, field: u64, value: f64) {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.key(field, 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
    }
}

/// The checksum's change by one byte, Castagnoli's polynomial with its bits reversed.
const CRC: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let (mut crc, mut bit) = (i as u32, 0);
        while bit < 8 {
            crc = (crc >> 1) ^ (0x82F6_3B78 * (crc & 1));
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, &b| CRC[usize::from(crc as u8 ^ b)] ^ (crc >> 8))
}

/// Returns the masked checksum that records store, which stays effective on bytes that contain checksums.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xA282_EAD8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Reader;

    /// Returns the CRC-32C by division with the polynomial's bits in their order (RFC 3720).
    fn by_division(bytes: &[u8]) -> u32 {
        let mut crc = !0u32;
        for byte in bytes {
            crc ^= u32::from(byte.reverse_bits()) << 24;
            for _ in 0..8 {
                crc = if crc >> 31 == 1 { crc << 1 ^ 0x1EDC_6F41 } else { crc << 1 };
            }
        }
        !crc.reverse_bits()
    }

    /// A protocol buffer's field.
    #[derive(Debug, Clone, PartialEq)]
    enum Field {
        Number(u64),
        Bytes(Vec<u8>),
    }

    fn varint(r: &mut Reader) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = r.take(1, "a byte").unwrap()[0];
            value |= u64::from(byte & 0x7F) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }

    fn fields(bytes: &[u8]) -> Vec<(u64, Field)> {
        let mut r = Reader::new(bytes);
        let mut out = Vec::new();
        while r.left() > 0 {
            let key = varint(&mut r);
            let value = match key & 7 {
                0 => Field::Number(varint(&mut r)),
                1 => Field::Number(r.u64_le("a number").unwrap()),
                5 => Field::Number(u64::from(r.u32_be("a number").unwrap().swap_bytes())),
                2 => {
                    let n = varint(&mut r);
                    Field::Bytes(r.take(n, "bytes").unwrap().to_vec())
                }
                other => panic!("{other}"),
            };
            out.push((key >> 3, value));
        }
        out
    }

    fn inner(fields: &[(u64, Field)], field: u64) -> Vec<u8> {
        match fields.iter().find(|f| f.0 == field) {
            Some((_, Field::Bytes(bytes))) => bytes.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn events(path: &Path) -> Vec<Vec<(u64, Field)>> {
        let bytes = fs::read(path).unwrap();
        let mut r = Reader::new(&bytes);
        let mut out = Vec::new();
        while r.left() > 0 {
            let mut checked = |n| {
                let part = r.take(n, "a part").unwrap();
                let unmasked = r.u32_be("its checksum").unwrap().swap_bytes().wrapping_sub(0xA282_EAD8);
                assert_eq!(unmasked.rotate_left(15), by_division(part));
                part
            };
            let length = u64::from_le_bytes(checked(8).try_into().unwrap());
            out.push(fields(checked(length)));
        }
        out
    }

    #[test]
    fn checksums_are_those_of_others() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46DD_794E);
        let noise: Vec<u8> = (0..1000u32).map(|i| ((i * i) >> 3) as u8).collect();
        assert!((0..1000).all(|n| crc32c(&noise[..n]) == by_division(&noise[..n])));
        // The first record of every event file of TensorFlow is 24 bytes long, which has this checksum.
        assert_eq!(masked(crc32c(&24u64.to_le_bytes())).to_le_bytes(), [0xA3, 0x7F, 0x4B, 0x22]);
    }

    #[test]
    fn what_is_written_can_be_read() {
        let folder = temp_dir::TempDir::new().unwrap();
        let logs = folder.path().join("a/b");
        let mut writer = EventWriter::create(&logs).unwrap();
        let other = EventWriter::create(&logs).unwrap();
        assert_ne!(writer.path(), other.path());
        assert!(writer.path().file_name().unwrap().to_str().unwrap().starts_with("events.out.tfevents.1"));
        assert_eq!(events(other.path()).len(), 1);
        writer.scalar("loss", 300, -0.5).unwrap();
        writer.scalar("größe/1", u64::from(u32::MAX) + 5, f32::NAN).unwrap();
        writer.histogram("w", 7, &[1.0, -2.0, f32::NAN, 4.0, f32::INFINITY, 4.0]).unwrap();
        writer.flush().unwrap();
        let all = events(writer.path());
        assert_eq!(inner(&all[0], 3), b"brain.Event:2");
        assert!(all.iter().all(|e| matches!(e[0], (1, Field::Number(n)) if f64::from_bits(n) > 1.7e9)));
        let value = |i: usize| fields(&inner(&fields(&inner(&all[i], 5)), 1));
        assert_eq!(all[1][1], (2, Field::Number(300)));
        let scalar = |tag: &str, x: f32| vec![(1, Field::Bytes(tag.into())), (2, Field::Number(x.to_bits().into()))];
        assert_eq!(value(1), scalar("loss", -0.5));
        assert_eq!(all[2][1], (2, Field::Number((1 << 32) + 4)));
        assert_eq!(value(2), scalar("größe/1", f32::NAN));
        assert_eq!(inner(&value(3), 1), b"w");
        let histogram = fields(&inner(&value(3), 5));
        let numbers: Vec<f64> = (histogram.iter())
            .filter_map(|f| if let Field::Number(n) = f.1 { Some(f64::from_bits(n)) } else { None })
            .collect();
        assert_eq!(numbers, [-2.0, 4.0, 4.0, 7.0, 37.0]);
        let list = |field| -> Vec<f64> {
            inner(&histogram, field).chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
        };
        let (limits, buckets) = (list(6), list(7));
        assert!(limits.len() == BUCKETS && limits.windows(2).all(|w| w[0] < w[1]) && limits[BUCKETS - 1] == 4.0);
        let filled: Vec<_> = buckets.iter().enumerate().filter(|b| *b.1 > 0.0).map(|(i, n)| (i, *n)).collect();
        assert_eq!(filled, [(0, 1.0), (15, 1.0), (29, 2.0)]);
    }

    #[test]
    fn histograms_of_one_value_and_of_none() {
        let one = fields(&histogram(&[3.0, 3.0]).0);
        assert_eq!(inner(&one, 6), 3f64.to_le_bytes());
        assert_eq!(inner(&one, 7), 2f64.to_le_bytes());
        assert!(histogram(&[f32::NAN]).0.is_empty() && histogram(&[]).0.is_empty());
        let wide = fields(&histogram(&[f32::MIN, f32::MAX, f32::MIN_POSITIVE]).0);
        assert_eq!(inner(&wide, 7).len(), BUCKETS * 8);
    }

    #[test]
    fn what_cannot_be_written_is_an_error() {
        let folder = temp_dir::TempDir::new().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, b"").unwrap();
        let e = EventWriter::create(&file).unwrap_err();
        assert_eq!(e.file.as_deref(), Some(&*file));
    }
}
