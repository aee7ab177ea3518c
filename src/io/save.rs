//! Saving that survives a crash at any point: a path always leads to a whole file, the new one or the
//! one before.

use super::{Flaw, FormatError, read_file};
use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// The system calls of a save, so that a test can stop between any two.
trait Disk {
    fn create_new(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).open(path)
    }
    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }
    fn open(&self, path: &Path) -> io::Result<File> {
        File::open(path)
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        // Some file systems have no links.
        fs::hard_link(from, to).or_else(|_| {
            fs::copy(from, to)?;
            File::open(to)?.sync_all()
        })
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        // Only Unix lets a program open a folder.
        if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
    }
}

struct System;
impl Disk for System {}

/// Returns nothing once the bytes lie safely at `path`.
///
/// A temporary file in the same folder is written, synced, read back and compared, then takes the
/// path's place. With `keep_previous` the file that was there stays reachable at [`previous`].
pub fn save(path: impl AsRef<Path>, bytes: &[u8], keep_previous: bool) -> Result<(), FormatError> {
    save_on(&System, path.as_ref(), bytes, keep_previous)
}

/// Makes the folder that a file will lie in and tries to write there: what could not be saved after hours of work is an
/// error before them.
///
/// ```
/// use hubel::io::save;
/// let folder = tempfile::tempdir().expect("a folder");
/// save::prepare(folder.path().join("new/weights.safetensors"))?;
/// assert!(folder.path().join("new").is_dir());
/// assert!(save::prepare(folder.path()).is_err());
/// # Ok::<(), hubel::io::FormatError>(())
/// ```
pub fn prepare(path: impl AsRef<Path>) -> Result<(), FormatError> {
    let path = path.as_ref();
    if path.is_dir() {
        return Err(FormatError::new(Flaw::Io, "the file", "a path that a file can have", "a folder's").of(path));
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|e| FormatError::io(path, "its folder to be there or to be made", &e))?;
    let temporary = with_suffix(path, &format!(".{}.try", std::process::id()));
    let tried =
        OpenOptions::new().write(true).create_new(true).open(&temporary).and_then(|_| fs::remove_file(&temporary));
    tried.map_err(|e| FormatError::io(path, "a folder that files can be written to", &e))
}

/// Returns where [`save`] keeps the file before the last one: the same name and `.previous`.
pub fn previous(path: impl AsRef<Path>) -> PathBuf {
    with_suffix(path.as_ref(), ".previous")
}

/// Returns what `read` makes of the file at `path`, or of the previous one and the error that the
/// first gave; the first error alone where neither can be read.
pub fn load<T>(
    path: impl AsRef<Path>,
    cap_bytes: u64,
    read: impl Fn(&[u8]) -> Result<T, FormatError>,
) -> Result<(T, Option<FormatError>), FormatError> {
    let from = |path: &Path| read(&read_file(path, cap_bytes)?).map_err(|e| e.of(path));
    let path = path.as_ref();
    from(path).map(|t| (t, None)).or_else(|e| match from(&previous(path)) {
        Ok(t) => Ok((t, Some(e))),
        Err(_) => Err(e),
    })
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().map(OsString::from).unwrap_or_default();
    name.push(suffix);
    path.with_file_name(name)
}

fn save_on(disk: &impl Disk, path: &Path, bytes: &[u8], keep_previous: bool) -> Result<(), FormatError> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let unique = format!(".{}-{}.tmp", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let temporary = with_suffix(path, &unique);
    let result = steps(disk, path, &temporary, bytes, keep_previous);
    if result.is_err() {
        // The first error says more than a failed removal.
        let _ = disk.remove(&temporary);
        let _ = disk.remove(&with_suffix(&temporary, ".previous"));
    }
    result
}

fn steps(disk: &impl Disk, path: &Path, temporary: &Path, bytes: &[u8], keep: bool) -> Result<(), FormatError> {
    let failed = |wanted: &'static str| move |e: io::Error| FormatError::io(path, wanted, &e);
    let mut file = disk.create_new(temporary).map_err(failed("to create a temporary file beside it"))?;
    for piece in bytes.chunks(1 << 20) {
        disk.write(&mut file, piece).map_err(failed("to write it"))?;
    }
    disk.sync(&file).map_err(failed("to sync it"))?;
    drop(file);
    let mut file = disk.open(temporary).map_err(failed("to read it back"))?;
    if !holds(&mut file, bytes).map_err(failed("to read it back"))? {
        return Err(FormatError::new(Flaw::Checksum, "the file", "what was written", "other bytes").of(path));
    }
    drop(file);
    if keep && path.exists() {
        // A link cannot replace a file, a rename can: the previous file is never missing.
        let spare = with_suffix(temporary, ".previous");
        disk.link(path, &spare).map_err(failed("to keep the previous file"))?;
        disk.rename(&spare, &previous(path)).map_err(failed("to keep the previous file"))?;
    }
    disk.rename(temporary, path).map_err(failed("to put it in its place"))?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    disk.sync_folder(folder).map_err(failed("to sync its folder"))
}

fn holds(file: &mut File, bytes: &[u8]) -> io::Result<bool> {
    let mut buffer = vec![0; 1 << 16];
    let mut rest = bytes;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(rest.is_empty()),
            n if rest.len() >= n && rest[..n] == buffer[..n] => rest = &rest[n..],
            _ => return Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// Fails every call after the first `left`, as a killed process or a full disk does; a write
    /// that fails leaves its first bytes behind.
    struct Stopping {
        left: Cell<u32>,
    }

    impl Stopping {
        fn step(&self) -> io::Result<()> {
            match self.left.get() {
                0 => Err(io::ErrorKind::StorageFull.into()),
                n => {
                    self.left.set(n - 1);
                    Ok(())
                }
            }
        }
    }

    impl Disk for Stopping {
        fn create_new(&self, path: &Path) -> io::Result<File> {
            self.step().and_then(|()| System.create_new(path))
        }
        fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
            if let Err(e) = self.step() {
                file.write_all(&bytes[..bytes.len().min(4096)])?;
                return Err(e);
            }
            System.write(file, bytes)
        }
        fn sync(&self, file: &File) -> io::Result<()> {
            self.step().and_then(|()| System.sync(file))
        }
        fn open(&self, path: &Path) -> io::Result<File> {
            self.step().and_then(|()| System.open(path))
        }
        fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.step().and_then(|()| System.link(from, to))
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.step().and_then(|()| System.rename(from, to))
        }
        fn remove(&self, path: &Path) -> io::Result<()> {
            self.step().and_then(|()| System.remove(path))
        }
        fn sync_folder(&self, folder: &Path) -> io::Result<()> {
            self.step().and_then(|()| System.sync_folder(folder))
        }
    }

    #[test]
    fn whichever_call_fails_a_whole_file_can_be_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.safetensors");
        let version = |n: u8| vec![n; (1 << 20) + 5000];
        save(&path, &version(1), true).unwrap();
        save(&path, &version(2), true).unwrap();
        assert_eq!(fs::read(previous(&path)).unwrap(), version(1));
        let mut acknowledged = 2;
        let whole = |bytes: &[u8]| Ok(bytes.to_vec());
        for calls in 0.. {
            assert!(calls < 20);
            let next = acknowledged + 1;
            let done = save_on(&Stopping { left: Cell::new(calls) }, &path, &version(next), true);
            let (loaded, _) = load(&path, 1 << 30, whole).unwrap();
            assert!(
                loaded == version(next) || (done.is_err() && loaded == version(acknowledged)),
                "after {calls} calls"
            );
            acknowledged = loaded[0];
            if done.is_ok() {
                assert!(calls >= 9);
                break;
            }
        }
        assert!(fs::read(previous(&path)).unwrap().len() == version(0).len());
    }

    #[test]
    fn a_damaged_file_falls_back_to_the_previous_one_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w");
        save(&path, b"first", true).unwrap();
        save(&path, b"second", true).unwrap();
        let read = |bytes: &[u8]| match bytes {
            b"damaged" => Err(FormatError::new(Flaw::Checksum, "contents", "intact", "damaged")),
            good => Ok(good.to_vec()),
        };
        assert!(matches!(load(&path, 100, read), Ok((t, None)) if t == b"second"));
        fs::write(&path, b"damaged").unwrap();
        assert!(matches!(load(&path, 100, read), Ok((t, Some(e))) if t == b"first" && e.flaw == Flaw::Checksum));
        assert_eq!(load(&path, 3, read).unwrap_err().flaw, Flaw::TooLarge);
        assert_eq!(load(folder.path().join("none"), 3, read).unwrap_err().flaw, Flaw::Missing);
        let kept: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|f| f.unwrap().file_name()).collect();
        assert_eq!(kept.len(), 2, "{kept:?}");
    }
}
