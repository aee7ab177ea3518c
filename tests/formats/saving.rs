//! The files that saving leaves, and where it may write.

use hubel::io::{Flaw, FormatError, save};
use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .expect("a folder")
        .map(|f| f.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    names
}

const TARGET: &str = "HUBEL_TEST_SAVE";

#[test]
fn what_a_killed_save_leaves_is_gone_after_the_next_save_or_load() {
    // As the child of itself it saves without end.
    while let Some(path) = std::env::var_os(TARGET) {
        save::save(&path, &vec![7; 4 << 20], true).expect("a file");
    }
    let name = std::thread::current().name().expect("the test's name").to_owned();
    let folder = temp_dir::TempDir::new().expect("a folder");
    let path = folder.path().join("w.safetensors");
    let mut left = 0;
    for kill in 0..30 {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args([&name, "--exact"])
            .env(TARGET, &path)
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("a process");
        while !path.exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(30_000 + 997 * kill % 10_000));
        child.kill().expect("a kill");
        child.wait().expect("an end");
        left += usize::from(names(folder.path()).iter().any(|n| n.contains(".tmp")));
        match kill % 2 {
            0 => save::save(&path, b"whole", true).expect("a file"),
            _ => drop(save::load(&path, 1 << 30, |bytes| Ok(bytes.len())).expect("a whole file")),
        }
        let rest = names(folder.path());
        assert!(rest.iter().all(|n| ["w.safetensors", "w.safetensors.previous"].contains(&&**n)), "{rest:?}");
    }
    assert!(left > 0, "no kill met a save");
}

#[test]
fn only_abandoned_temporary_files_of_the_path_are_removed() {
    let folder = temp_dir::TempDir::new().expect("a folder");
    let path = folder.path().join("w");
    let old = SystemTime::now() - Duration::from_secs(7200);
    let foreign = "0123456789abcdef";
    let gone = [format!("w.{foreign}-1-0.tmp"), format!("w.{foreign}-77-3.tmp.previous")];
    let kept = [
        format!("w.{foreign}-1-1.tmp"),
        format!("v.{foreign}-1-0.tmp"),
        format!("w.{foreign}-1.tmp"),
        "w.backup.tmp".into(),
        "w.previous".into(),
    ];
    for (i, name) in gone.iter().chain(&kept).enumerate() {
        let file = fs::File::create(folder.path().join(name)).expect("a file");
        // The first of those that are kept is young: another machine may be writing it.
        if i != gone.len() {
            file.set_modified(old).expect("a time");
        }
    }
    save::save(&path, b"new", false).expect("a file");
    let mut wanted: Vec<String> = kept.iter().cloned().chain(["w".into()]).collect();
    wanted.sort();
    assert_eq!(names(folder.path()), wanted);
}

#[cfg(unix)]
#[test]
fn a_link_stays_and_what_it_leads_to_is_written() {
    use std::os::unix::fs::symlink;
    let folder = temp_dir::TempDir::new().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("deep")).expect("a folder");
    symlink("deep/target", path("second")).expect("a link");
    symlink(path("second"), path("first")).expect("a link");
    for (contents, keep) in [(b"one", false), (b"two", true)] {
        save::save(path("first"), contents, keep).expect("a file");
        assert_eq!(fs::read(path("deep/target")).expect("the target"), contents);
        assert!(path("first").is_symlink() && path("second").is_symlink());
    }
    assert_eq!(names(folder.path()), ["deep", "first", "second"]);
    assert_eq!(names(&path("deep")), ["target", "target.previous"]);
    fs::write(path("deep/target"), b"rotten").expect("a file");
    let read = |bytes: &[u8]| match bytes {
        b"rotten" => Err(FormatError::new(Flaw::Checksum, "it", "whole", "rotten")),
        whole => Ok(whole.to_vec()),
    };
    assert_eq!(save::load(path("first"), 9, read).expect("the one before").0, b"one");
    assert_eq!(save::previous(path("first")), path("deep/target.previous"));

    symlink("loop", path("loop")).expect("a link");
    for (to, got) in [(path("deep"), "folder"), (path("loop"), "too many links"), ("/dev/null".into(), "device")] {
        let error = save::save(&to, b"x", true).expect_err("refused");
        assert!(error.flaw == Flaw::Io && error.to_string().contains(got), "{error}");
        assert_eq!(error.file.as_deref(), Some(&*to));
    }
    assert!(save::save("", b"x", false).is_err() && save::save("/", b"x", false).is_err());
}

#[cfg(unix)]
#[test]
fn a_path_that_is_no_utf_8_is_kept() {
    use std::os::unix::ffi::OsStrExt;
    let folder = temp_dir::TempDir::new().expect("a folder");
    let path = folder.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9.st"));
    for _ in 0..2 {
        save::save(&path, b"x", true).expect("a file");
    }
    let mut left: Vec<_> =
        fs::read_dir(folder.path()).expect("a folder").map(|f| f.expect("an entry").path()).collect();
    left.sort();
    assert_eq!(left, [path.clone(), save::previous(&path)]);
}

#[test]
fn an_extent_of_0_hides_no_others() {
    use hubel::io::{checked_bytes, npy};
    for dims in [[0, 1 << 62, 1 << 62], [1 << 62, 0, 1 << 62], [1 << 62, 1 << 62, 0]] {
        assert_eq!(checked_bytes("it", &dims, 4, 8).expect_err("refused").flaw, Flaw::Overflow);
        let header =
            format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {dims:?}, }}").replace(['[', ']'], "|");
        let header = header.replacen('|', "(", 1).replacen('|', ")", 1);
        let file = [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes()].concat();
        assert_eq!(npy::read(&file).expect_err("refused").flaw, Flaw::Overflow);
    }
    assert_eq!(checked_bytes("it", &[0, 1 << 40], 4, 8), Ok(0));
}
