//! Zip archives, read from memory and never unpacked to a folder.

use super::{Budget, Flaw, FormatError};
use std::io::{Cursor, Read};

/// The maximum number of entries of an archive.
pub const MAX_ENTRIES: usize = 1 << 16;
/// The maximum unpacked bytes of an entry.
pub const ENTRY_CAP_BYTES: u64 = 8 << 30;
/// Memory of a directory entry besides its texts.
const DIRECTORY_ENTRY_BYTES: u64 = 1024;
/// The maximum ratio of an entry's unpacked to packed size: deflate reaches 1032.
const MAX_EXPANSION: u64 = 1040;

/// A zip archive in memory.
pub struct Archive<'a> {
    zip: zip::ZipArchive<Cursor<&'a [u8]>>,
    file_bytes: u64,
    budget: &'a Budget,
}

fn broken(what: &str, error: impl std::fmt::Display) -> FormatError {
    FormatError::new(Flaw::Syntax, what, "an intact zip archive", error)
}

impl<'a> Archive<'a> {
    /// Returns whether the bytes begin like a zip archive.
    pub fn is(bytes: &[u8]) -> bool {
        bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06")
    }

    /// Returns the archive, whose entries draw on the file's budget, or an error if its directory is broken.
    pub fn new(bytes: &'a [u8], budget: &'a Budget) -> Result<Self, FormatError> {
        let (what, file_bytes) = ("the archive", bytes.len() as u64);
        let (mut listed, mut stated) = (0, 0);
        for (at, signature) in bytes.windows(4).enumerate().filter(|(_, s)| s.starts_with(b"PK")) {
            let number = |from: usize, n: usize| {
                let digits = bytes.get(at + from..at + from + n).unwrap_or_default();
                digits.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b))
            };
            match signature {
                b"PK\x01\x02" => listed += 1,
                b"PK\x05\x06" => stated = number(10, 2).max(stated),
                b"PK\x06\x06" => stated = number(32, 8).max(stated),
                _ => {}
            }
        }
        let too_many = |n: &dyn std::fmt::Display| {
            FormatError::new(Flaw::TooLarge, what, format!("at most {MAX_ENTRIES} entries"), n)
        };
        if stated > MAX_ENTRIES as u64 {
            return Err(too_many(&stated));
        }
        // The reader allocates for the stated number.
        budget.take(what, stated.max(listed) * DIRECTORY_ENTRY_BYTES)?;
        // The reader keeps names (twice), comments and extra fields.
        budget.take(what, 3 * file_bytes)?;
        let zip = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|e| broken(what, e))?;
        let directory = file_bytes.saturating_sub(zip.central_directory_start());
        budget.give(3 * (file_bytes - directory));
        if zip.len() > MAX_ENTRIES {
            return Err(too_many(&zip.len()));
        }
        Ok(Archive { zip, file_bytes, budget })
    }

    /// Returns the names of the entries in the order of the directory; [`Archive::new`] has drawn their bytes.
    pub fn names(&self) -> Vec<String> {
        self.zip.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect()
    }

    /// Returns an entry unpacked, or `None` if there is none of that name.
    ///
    /// It may be at most 1040 times as large as packed, and at most [`ENTRY_CAP_BYTES`]. Its bytes stay drawn on the
    /// budget until they are returned to it.
    pub fn read(&mut self, name: &str) -> Result<Option<Vec<u8>>, FormatError> {
        let entry = match self.zip.by_name(name) {
            Err(zip::result::ZipError::FileNotFound) => return Ok(None),
            entry => entry.map_err(|e| broken(&format!("`{name}` in the archive"), e))?,
        };
        // The sizes in the directory may be false.
        let packed = entry.compressed_size().min(self.file_bytes);
        let max = ENTRY_CAP_BYTES.min(packed.saturating_mul(MAX_EXPANSION));
        let size = entry.size();
        if size > max {
            let (wanted, got) = (format!("at most {max} bytes"), format!("{size} bytes"));
            return Err(FormatError::new(Flaw::TooLarge, format!("`{name}` in the archive"), wanted, got));
        }
        self.budget.take("the archive's entries", size)?;
        self.budget.work("the archive's entries", packed)?;
        let mut bytes = Vec::with_capacity(size as usize);
        let end = entry.take(size + 1).read_to_end(&mut bytes);
        end.map_err(|e| FormatError::new(Flaw::Compression, format!("`{name}` in the archive"), "intact contents", e))?;
        if bytes.len() as u64 != size {
            let (wanted, got) = (format!("{size} bytes"), format!("{} or more", bytes.len()));
            return Err(FormatError::new(Flaw::ByteCount, format!("`{name}` in the archive"), wanted, got));
        }
        Ok(Some(bytes))
    }
}

/// Returns an archive of these entries, unpacked, as Keras writes it.
pub fn write<'e>(entries: impl Iterator<Item = (&'e str, &'e [u8])>) -> Result<Vec<u8>, FormatError> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let failed = |e: &dyn std::fmt::Display| FormatError::new(Flaw::Io, "the archive", "room for it", e);
    for (name, bytes) in entries {
        zip.start_file(name, options).map_err(|e| failed(&e))?;
        std::io::Write::write_all(&mut zip, bytes).map_err(|e| failed(&e))?;
    }
    Ok(zip.finish().map_err(|e| failed(&e))?.into_inner())
}
