//! Saving that survives a crash at any point: a path always has a whole file, the new one or the previous one.

use super::{Flaw, FormatError, read_file};
use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
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
        // Some file systems do not support links.
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

/// Writes bytes durably to `path`.
///
/// A temporary file in the same folder is written, synced, read back, compared, and renamed to the path. With
/// `keep_previous` the old file is kept at [`previous`]. Temporary files that killed processes left for this path are
/// removed. A symbolic link is kept and its target written; a folder or a device is an error.
pub fn save(path: impl AsRef<Path>, bytes: &[u8], keep_previous: bool) -> Result<(), FormatError> {
    let path = target(path.as_ref())?;
    sweep(&path);
    save_on(&System, &path, bytes, keep_previous)
}

/// Creates the folder of a file and tries to write there, so that a failure to save is an error before hours of work.
///
/// ```
/// use hubel::io::save;
/// let folder = temp_dir::TempDir::new().expect("a folder");
/// save::prepare(folder.path().join("new/weights.safetensors"))?;
/// assert!(folder.path().join("new").is_dir());
/// assert!(save::prepare(folder.path()).is_err());
/// # Ok::<(), hubel::io::FormatError>(())
/// ```
pub fn prepare(path: impl AsRef<Path>) -> Result<(), FormatError> {
    let path = &target(path.as_ref())?;
    let (folder, temporary) = (folder(path), temporary(path));
    fs::create_dir_all(folder).map_err(|e| FormatError::io(path, "its folder to exist or be created", &e))?;
    let tried =
        OpenOptions::new().write(true).create_new(true).open(&temporary).and_then(|_| fs::remove_file(&temporary));
    tried.map_err(|e| FormatError::io(path, "a writable folder", &e))
}

/// Returns the path of the previous file that [`save`] keeps: the same name and `.previous`; for a symbolic link,
/// beside its target.
pub fn previous(path: impl AsRef<Path>) -> PathBuf {
    with_suffix(&followed(path.as_ref()), ".previous")
}

/// Returns the target of the symbolic links at a path, whether it exists or not.
fn followed(path: &Path) -> PathBuf {
    // Linux's limit.
    const MAX_LINKS: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&path) {
            Ok(to) => path = path.parent().unwrap_or(Path::new("")).join(to),
            Err(_) => break,
        }
    }
    path
}

/// Returns the file that a save to a path writes.
fn target(path: &Path) -> Result<PathBuf, FormatError> {
    let wanted = "a file, or an unused path";
    let error = |got: &str| FormatError::new(Flaw::Io, "the file", wanted, got).of(path);
    let file = followed(path);
    match file.symlink_metadata() {
        Ok(found) if found.is_file() => Ok(file),
        Ok(found) if found.is_dir() => Err(error("a folder").advise("name a file in it")),
        Ok(found) if found.is_symlink() => Err(error("too many links")),
        Ok(_) => Err(error("a device or a pipe").advise("name a file, and copy it there")),
        Err(e) if e.kind() == io::ErrorKind::NotFound && file.file_name().is_some() => Ok(file),
        Err(e) => Err(FormatError::io(path, wanted, &e)),
    }
}

/// The names of temporary files that this process is writing.
static WRITING: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Distinguishes processes of the same number: the machine since its start, and the container.
static MACHINE: LazyLock<u64> = LazyLock::new(|| {
    let boot = fs::read("/proc/sys/kernel/random/boot_id").ok();
    let container = fs::read_link("/proc/self/ns/pid").ok();
    let mut hasher = DefaultHasher::new();
    (boot, container).hash(&mut hasher);
    hasher.finish()
});

/// Returns a name for a temporary file of a path, which identifies its owner.
fn temporary(path: &Path) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    with_suffix(path, &format!(".{:016x}-{}-{count}.tmp", *MACHINE, std::process::id()))
}

/// Returns machine and process of a temporary file of `path`, or `None` for another name.
fn owner(path: &Path, name: &OsStr) -> Option<(u64, u32)> {
    let own = path.file_name()?.as_encoded_bytes();
    let rest = name.as_encoded_bytes().strip_prefix(own)?.strip_prefix(b".")?;
    let rest = std::str::from_utf8(rest).ok()?;
    let rest = rest.strip_suffix(".previous").unwrap_or(rest).strip_suffix(".tmp")?;
    let mut parts = rest.split('-');
    let machine = parts.next().filter(|m| m.len() == 16).and_then(|m| u64::from_str_radix(m, 16).ok())?;
    let process = parts.next()?.parse().ok()?;
    let count = parts.next()?.parse::<u32>();
    (count.is_ok() && parts.next().is_none()).then_some((machine, process))
}

/// Removes temporary files of a path whose writers have ended: those of ended processes of this machine, and those of
/// others after an hour. Failures are ignored.
fn sweep(path: &Path) {
    const OLD: Duration = Duration::from_secs(3600);
    let folder = folder(path);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Some((machine, process)) = owner(path, &entry.file_name()) else { continue };
        let writes = || WRITING.lock().unwrap_or_else(PoisonError::into_inner).contains(&entry.path());
        let abandoned = match machine == *MACHINE && Path::new("/proc/self").exists() {
            true if process == std::process::id() => !writes(),
            true => !Path::new(&format!("/proc/{process}")).exists(),
            false => entry.metadata().and_then(|m| m.modified()).is_ok_and(|t| t.elapsed().is_ok_and(|age| age > OLD)),
        };
        if abandoned {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Returns the result of `read` on the file at `path`; or else its result on the previous one, with the first error; or
/// else the first error. Temporary files of killed processes are removed, as [`save`] does.
pub fn load<T>(
    path: impl AsRef<Path>,
    cap_bytes: u64,
    read: impl Fn(&[u8]) -> Result<T, FormatError>,
) -> Result<(T, Option<FormatError>), FormatError> {
    let from = |path: &Path| read(&read_file(path, cap_bytes)?).map_err(|e| e.of(path));
    let path = &followed(path.as_ref());
    sweep(path);
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
    let temporary = temporary(path);
    let spare = with_suffix(&temporary, ".previous");
    // In the folder's order.
    let names = [&temporary, &spare].map(|name| folder(path).join(name.file_name().unwrap_or_default()));
    let writing = |change: fn(&mut BTreeSet<PathBuf>, PathBuf) -> bool| {
        let mut all = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
        names.iter().for_each(|name| _ = change(&mut all, name.clone()));
    };
    writing(BTreeSet::insert);
    let result = steps(disk, path, [&temporary, &spare], bytes, keep_previous);
    if result.is_err() {
        // The first error is more useful than a failed removal's.
        let _ = disk.remove(&temporary);
        let _ = disk.remove(&spare);
    }
    writing(|all, name| all.remove(&name));
    result
}

fn steps(
    disk: &impl Disk,
    path: &Path,
    [temporary, spare]: [&Path; 2],
    bytes: &[u8],
    keep: bool,
) -> Result<(), FormatError> {
    let failed = |wanted: &'static str| move |e: io::Error| FormatError::io(path, wanted, &e);
    let mut file = disk.create_new(temporary).map_err(failed("to create a temporary file beside it"))?;
    for piece in bytes.chunks(1 << 20) {
        disk.write(&mut file, piece).map_err(failed("to write it"))?;
    }
    disk.sync(&file).map_err(failed("to sync it"))?;
    drop(file);
    let mut file = disk.open(temporary).map_err(failed("to read it back"))?;
    if !holds(&mut file, bytes).map_err(failed("to read it back"))? {
        return Err(FormatError::new(Flaw::Checksum, "the file", "the bytes written", "other bytes").of(path));
    }
    drop(file);
    if keep && path.exists() {
        // A link cannot replace a file, but a rename can, so the previous file is never missing.
        disk.link(path, spare).map_err(failed("to keep the previous file"))?;
        disk.rename(spare, &previous(path)).map_err(failed("to keep the previous file"))?;
        // A rename onto another name of the same file does nothing, and an interrupted save leaves both.
        let _ = disk.remove(spare);
    }
    disk.rename(temporary, path).map_err(failed("to rename it to its path"))?;
    disk.sync_folder(folder(path)).map_err(failed("to sync its folder"))
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
        let folder = temp_dir::TempDir::new().unwrap();
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
        let folder = temp_dir::TempDir::new().unwrap();
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
