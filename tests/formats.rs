//! Hostile files, the memory and time of reading them, mutation fuzzing of all formats, and exchange with the
//! safetensors crate.
//!
//! `HUBEL_FUZZ=10` makes ten times as many mutations: 4.4 million.

#[path = "formats/hostile.rs"]
mod hostile;
#[path = "formats/keras.rs"]
mod keras;
#[path = "formats/onnx.rs"]
mod onnx;
#[path = "formats/saving.rs"]
mod saving;
#[path = "formats/trained.rs"]
mod trained;
#[path = "formats/weights.rs"]
mod weights;

use hubel::io::{Budget, Flaw, idx, safetensors as st, save};
use hubel::tensor::{HostTensor, Philox, Purpose};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    collections::BTreeMap,
};

thread_local! {
    static NOW: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

/// Counts the bytes allocated by this thread.
struct Counting;

// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.get().wrapping_add(layout.size());
        NOW.set(now);
        LARGEST.set(LARGEST.get().max(layout.size()));
        if now < usize::MAX / 2 {
            PEAK.set(PEAK.get().max(now));
        }
        // SAFETY: the caller keeps the contract of `GlobalAlloc`, which is also the system's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        NOW.set(NOW.get().wrapping_sub(layout.size()));
        // SAFETY: the caller keeps the contract of `GlobalAlloc`, which is also the system's.
        unsafe { System.dealloc(p, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Returns the result of `f` and its peak bytes.
fn held<T>(f: impl FnOnce() -> T) -> (T, usize) {
    NOW.set(0);
    PEAK.set(0);
    LARGEST.set(0);
    let result = f();
    (result, PEAK.get())
}

/// The time limit for reading any input, in seconds; longer without optimisation.
const MAX_SECONDS: u64 = if cfg!(debug_assertions) { 60 } else { 5 };

/// Returns the result of `f` on a file, and asserts that it kept the file's budget and the time limit.
fn within_budget<T>(name: &str, bytes: &[u8], f: impl FnOnce() -> T) -> T {
    let start = std::time::Instant::now();
    let (result, peak) = held(f);
    let (seconds, max) = (start.elapsed().as_secs_f64(), Budget::new(bytes.len() as u64).bytes());
    let shown = || {
        let path = std::env::temp_dir().join("hubel-input");
        format!("{} bytes, written to {path:?}: {:?}", bytes.len(), std::fs::write(&path, bytes))
    };
    assert!(peak as u64 <= max, "{name}: {peak} bytes held, {max} allowed; {}", shown());
    assert!(seconds < MAX_SECONDS as f64, "{name}: {seconds} s; {}", shown());
    if std::env::var_os("HUBEL_SHOW_COSTS").is_some() {
        eprintln!("{name}: {} bytes, {:.1} MiB held, {seconds:.3} s", bytes.len(), peak as f64 / 1048576.0);
    }
    result
}

/// A file, its reader, and the number of mutations to try.
type Corpus = (&'static str, Vec<u8>, fn(&[u8]) -> bool, usize);

/// Reads mutations of files within their budgets.
fn fuzz(seed: u64, corpora: impl IntoIterator<Item = Corpus>) {
    let times: usize = std::env::var("HUBEL_FUZZ").map_or(1, |n| n.parse().expect("a number"));
    for (stream, (name, good, read, n)) in (0..).zip(corpora) {
        let mut rng = Philox::new(seed, Purpose::Test, stream);
        let mut fine = 0;
        for _ in 0..n * times {
            let mut bytes = good.clone();
            if rng.below(2) == 0 {
                share(&mut rng, &mut bytes);
            }
            if rng.below(4) > 0 {
                mutate(&mut rng, &mut bytes);
            }
            fine += usize::from(within_budget(name, &bytes, || read(&bytes)));
        }
        if times > 1 {
            eprintln!("{name}: {} mutations, {fine} of them read", n * times);
        }
    }
}

fn golden(name: &str) -> std::path::PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "golden", "files", name].iter().collect()
}

fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

fn flaw(bytes: &[u8]) -> Flaw {
    let (result, peak) = held(|| st::read(bytes));
    assert!(peak <= 2 * bytes.len() + (1 << 20), "{peak} bytes held for a file of {}", bytes.len());
    let e = result.unwrap_err();
    assert!(e.to_string().len() < 1000, "{e}");
    e.flaw
}

fn entry(dtype: &str, shape: &str, range: &str) -> String {
    format!(r#"{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{range}]}}"#)
}

fn one(dtype: &str, shape: &str, range: &str) -> String {
    format!(r#"{{"a":{}}}"#, entry(dtype, shape, range))
}

fn two(first: &str, second: &str) -> String {
    format!(r#"{{"a":{},"b":{}}}"#, entry("U8", "2", first), entry("U8", "2", second))
}

#[test]
fn hostile_safetensors_give_exact_errors() {
    let cases: Vec<(&str, Vec<u8>, Flaw)> = vec![
        ("empty", vec![], Flaw::Truncated),
        ("seven bytes", vec![1; 7], Flaw::Truncated),
        ("length 0", file("", &[]), Flaw::Syntax),
        ("length 2^63", (1u64 << 63).to_le_bytes().to_vec(), Flaw::TooLarge),
        ("length over the cap", 100_000_001u64.to_le_bytes().to_vec(), Flaw::TooLarge),
        ("length over the file", 100u64.to_le_bytes().to_vec(), Flaw::Truncated),
        ("no brace", file("\"a\"", &[]), Flaw::Syntax),
        ("bad UTF-8", [&2u64.to_le_bytes()[..], &[b'{', 0xff]].concat(), Flaw::Utf8),
        ("lone surrogate", file(r#"{"\ud800":1}"#, &[]), Flaw::Syntax),
        ("control byte in a name", file("{\"a\nb\":1}", &[]), Flaw::Syntax),
        ("unfinished", file(r#"{"a":"#, &[]), Flaw::Syntax),
        ("after the end", file("{}{}", &[]), Flaw::Syntax),
        ("wrong bracket", file(&one("U8", "1", "0,1").replacen(']', "}", 1), &[0]), Flaw::Syntax),
        ("comma at the end", file(r#"{"__metadata__":{},}"#, &[]), Flaw::Syntax),
        ("duplicate name", file(&two("0,2", "2,4").replace("\"b\"", "\"a\""), &[0; 4]), Flaw::Duplicate),
        ("duplicate in disguise", file(&two("0,2", "2,4").replace("\"b\"", r#""\u0061""#), &[0; 4]), Flaw::Duplicate),
        ("duplicate field", file(r#"{"a":{"dtype":"U8","dtype":"U8"}}"#, &[]), Flaw::Duplicate),
        ("duplicate metadata", file(r#"{"__metadata__":{},"__metadata__":{}}"#, &[]), Flaw::Duplicate),
        ("duplicate key of metadata", file(r#"{"__metadata__":{"a":"","a":""}}"#, &[]), Flaw::Duplicate),
        ("number in metadata", file(r#"{"__metadata__":{"a":1}}"#, &[]), Flaw::Syntax),
        ("deep nesting", file(&"{\"a\":".repeat(100_000), &[]), Flaw::Syntax),
        ("deep brackets", file(&format!(r#"{{"a":{{"shape":{}"#, "[".repeat(100_000)), &[]), Flaw::Syntax),
        ("overlap", file(&two("0,2", "1,3"), &[0; 3]), Flaw::Overlap),
        ("the same bytes", file(&two("0,2", "0,2"), &[0; 2]), Flaw::Overlap),
        ("hole", file(&two("0,2", "3,5"), &[0; 5]), Flaw::Hole),
        ("hole in front", file(&one("U8", "2", "1,3"), &[0; 3]), Flaw::Hole),
        ("reversed", file(&one("U8", "2", "2,0"), &[0; 2]), Flaw::Reversed),
        ("over the data", file(&one("U8", "3", "0,3"), &[0; 2]), Flaw::Truncated),
        ("product overflow", file(&one("F32", "4294967296,4294967296", "0,0"), &[]), Flaw::Overflow),
        ("number overflow", file(&one("F32", "18446744073709551616", "0,0"), &[]), Flaw::Overflow),
        ("negative", file(&one("F32", "-1", "0,4"), &[0; 4]), Flaw::Syntax),
        ("fraction", file(&one("F32", "1.0", "0,4"), &[0; 4]), Flaw::Syntax),
        ("1e400", file(&one("F32", "1e400", "0,4"), &[0; 4]), Flaw::Syntax),
        ("wrong byte count", file(&one("F32", "1", "0,3"), &[0; 3]), Flaw::ByteCount),
        ("trailing bytes", file(&one("F32", "1", "0,4"), &[0; 5]), Flaw::Trailing),
        ("unknown dtype", file(&one("Q7", "1", "0,4"), &[0; 4]), Flaw::Type),
        ("unsupported dtype", file(&one("F64", "1", "0,8"), &[0; 8]), Flaw::Type),
        ("unknown field", file(r#"{"a":{"path":"x"}}"#, &[]), Flaw::Syntax),
        ("missing field", file(r#"{"a":{"dtype":"U8","shape":[]}}"#, &[0]), Flaw::Syntax),
        ("three offsets", file(&one("U8", "", "0,1,2"), &[0]), Flaw::Rank),
        ("nine axes", file(&one("U8", "1,1,1,1,1,1,1,1,1", "0,1"), &[0]), Flaw::Rank),
        ("endless axes", file(&one("U8", &"1,".repeat(1 << 20), "0,1"), &[0]), Flaw::Rank),
        ("endless name", file(&format!("{{\"{}\":1}}", "a".repeat(1 << 20)), &[0]), Flaw::Syntax),
    ];
    for (name, bytes, wanted) in cases {
        assert_eq!(flaw(&bytes), wanted, "{name}");
    }
    let many = |n: usize| -> String { (0..n).map(|i| format!(",\"{i}\":{}", entry("U8", "0", "0,0"))).collect() };
    assert_eq!(flaw(&file(&format!("{{{}}}", &many(8193)[1..]), &[])), Flaw::TooLarge);
    let largest = file(&format!("{{{}}}", &many(8192)[1..]), &[]);
    let (tensors, peak) = held(|| st::read(&largest).unwrap().len());
    assert!(tensors == 8192 && peak <= 2 * largest.len() + (1 << 20), "{peak} bytes held for {}", largest.len());
    let texts: String = (0..1025).map(|i| format!(",\"{i}\":\"\"")).collect();
    assert_eq!(flaw(&file(&format!("{{\"__metadata__\":{{{}}}}}", &texts[1..]), &[])), Flaw::TooLarge);
}

fn sample() -> (Vec<(String, HostTensor)>, BTreeMap<String, String>, Vec<u8>) {
    let tensors = vec![
        ("conv/kernel".to_string(), HostTensor::f32([2, 3], (0..6).map(|x| x as f32).collect()).unwrap()),
        ("a \"name\" \\ \u{1} ü 🦀".into(), HostTensor::u32([], vec![7]).unwrap()),
        ("steps".into(), HostTensor::i32([1], vec![-5]).unwrap()),
        ("half".into(), HostTensor::new([2], hubel::tensor::Data::F16(vec![half::f16::ONE; 2])).unwrap()),
        ("brain".into(), HostTensor::new([1], hubel::tensor::Data::BF16(vec![half::bf16::ONE])).unwrap()),
        ("bytes".into(), HostTensor::u8([3, 1], vec![1, 2, 3]).unwrap()),
        ("none".into(), HostTensor::u8([0, 4], vec![]).unwrap()),
    ];
    let metadata = BTreeMap::from([("step".to_string(), "12".to_string()), ("note\n".into(), "\"quoted\"".into())]);
    let bytes = st::write(tensors.iter().map(|(n, t)| (n.as_str(), t)), &metadata).unwrap();
    (tensors, metadata, bytes)
}

#[test]
fn what_is_written_is_read_back() {
    let (tensors, metadata, bytes) = sample();
    assert_eq!(st::read(&bytes).unwrap(), tensors);
    assert_eq!(st::metadata(&bytes).unwrap(), metadata);
    st::verify(&bytes).unwrap();
    let again = st::write(tensors.iter().map(|(n, t)| (n.as_str(), t)), &metadata).unwrap();
    assert_eq!(bytes, again);
    let (a, b) = (&tensors[0].1, &tensors[1].1);
    assert_eq!(st::write([("x", a), ("x", b)], &metadata).unwrap_err().flaw, Flaw::Duplicate);
}

#[test]
fn files_are_exchanged_with_the_safetensors_crate() {
    let (tensors, metadata, bytes) = sample();
    let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for (name, t) in &tensors {
        let view = theirs.tensor(name).unwrap();
        assert_eq!((view.shape(), view.data()), (t.shape(), t.bytes()), "{name}");
    }
    let info = metadata.clone().into_iter().collect();
    let bytes = safetensors::serialize(theirs.tensors(), Some(info)).unwrap();
    let mut ours = st::read(&bytes).unwrap();
    assert_eq!(st::metadata(&bytes).unwrap(), metadata);
    assert_eq!(st::verify(&bytes).unwrap_err().flaw, Flaw::Checksum);
    let mut wanted = tensors;
    ours.sort_by(|a, b| a.0.cmp(&b.0));
    wanted.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(ours, wanted);
}

#[test]
fn every_truncation_and_every_flipped_bit_is_noticed() {
    let (_, _, bytes) = sample();
    for n in 0..bytes.len() {
        assert!(matches!(flaw(&bytes[..n]), Flaw::Truncated | Flaw::Checksum), "{n} bytes");
    }
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(st::verify(&damaged).is_err(), "bit {bit}");
    }
}

#[test]
fn a_saved_file_is_loaded_and_a_rotten_one_falls_back() {
    let folder = temp_dir::TempDir::new().unwrap();
    let path = folder.path().join("cnn.safetensors");
    let (tensors, _, bytes) = sample();
    save::save(&path, &bytes, true).unwrap();
    save::save(&path, &bytes, true).unwrap();
    assert_eq!(st::open(&path).unwrap(), tensors);
    let mut damaged = bytes.clone();
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    let e = st::open(&path).unwrap_err();
    assert!(e.flaw == Flaw::Checksum && e.to_string().contains("cnn.safetensors"), "{e}");
    let (loaded, why) = save::load(&path, st::FILE_CAP_BYTES, st::read).unwrap();
    assert!(loaded == tensors && why == Some(e));
}

/// Damages a file in a way that its structure invites.
fn mutate(rng: &mut Philox, bytes: &mut Vec<u8>) {
    const TOKENS: [&[u8]; 14] = [
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b"\"",
        b"\\u",
        b"0",
        b"-1",
        b"18446744073709551615",
        b"1e400",
        b"\"F64\"",
        b"\xff",
        b"\"__metadata__\":{",
    ];
    for _ in 0..=rng.below(3) {
        let at = rng.below(bytes.len().max(1)).min(bytes.len());
        match rng.below(6) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            2 if at < bytes.len() => bytes[at] = rng.next_u32() as u8,
            3 => drop(bytes.splice(at..at, rng.pick(&TOKENS).iter().copied())),
            4 => {
                let end = (at + rng.below(40)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                let to = rng.below(bytes.len() + 1);
                drop(bytes.splice(to..to, piece));
            }
            _ => {
                let end = (at + rng.below(8)).min(bytes.len());
                drop(bytes.drain(at..end));
            }
        }
        if rng.below(2) == 0 && bytes.len() > 8 {
            let header = bytes.len() as u64 - 8 - 40u64.min(bytes.len() as u64 - 8);
            bytes[..8].copy_from_slice(&header.to_le_bytes());
        }
    }
}

/// Shares and repeats parts of a file: entries, references, elements of lists.
fn share(rng: &mut Philox, bytes: &mut Vec<u8>) {
    const MAX_BYTES: usize = 1 << 17;
    if bytes.len() < 16 {
        return;
    }
    let word = |bytes: &[u8], at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    let at = rng.below(bytes.len() - 8);
    let max = 1 << rng.below(10);
    let times = 1 + rng.below(max);
    match rng.below(5) {
        0 => {
            let piece = bytes[at..(at + 1 + rng.below(64)).min(bytes.len())].to_vec();
            let times = times.min(MAX_BYTES / piece.len());
            drop(bytes.splice(at..at, piece.repeat(times)));
        }
        // One reference becomes another: a number that can be an address overwrites the next such.
        1 | 2 => {
            let places = bytes.len() as u64;
            let address =
                |bytes: &[u8], from: usize| (from..bytes.len() - 7).find(|&at| (1..places).contains(&word(bytes, at)));
            if let Some(first) = address(bytes, at)
                && let Some(second) = address(bytes, (first + 8 + rng.below(64)).min(bytes.len() - 8))
            {
                bytes.copy_within(first..first + 8, second);
            }
        }
        // An element of a list of JSON.
        3 => {
            let open = |b: &u8| matches!(b, b'{' | b'[');
            if let Some(start) = bytes[at..].iter().position(open).map(|i| at + i) {
                let mut depth = 0;
                let end = bytes[start..].iter().position(|b| {
                    depth += i32::from(open(b)) - i32::from(matches!(b, b'}' | b']'));
                    depth == 0
                });
                if let Some(end) = end.map(|i| start + i + 1) {
                    let piece = [&bytes[start..end], b","].concat();
                    let times = times.min(MAX_BYTES / piece.len());
                    drop(bytes.splice(start..start, piece.repeat(times)));
                }
            }
        }
        // A count.
        _ => {
            if let Some(at) = (at..bytes.len() - 1).find(|&i| bytes[i] > 0 && bytes[i + 1] == 0) {
                let count = (usize::from(bytes[at]) * times).min(0xffff) as u16;
                bytes[at..at + 2].copy_from_slice(&count.to_le_bytes());
            }
        }
    }
}

#[test]
fn mutated_files_neither_panic_nor_take_memory() {
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;
    let plain: Vec<u8> = [0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4].into_iter().chain(0..24).collect();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&plain).unwrap();
    let packed = encoder.finish().unwrap();
    let image = hubel::io::image::png(&image::RgbImage::from_fn(9, 7, |x, y| image::Rgb([x as u8 * 9, y as u8, 3])));
    let corpora: [Corpus; 5] = [
        ("safetensors", sample().2, |b| st::read(b).is_ok(), 60_000),
        ("two tensors", file(&two("0,2", "2,4"), &[0; 4]), |b| st::read(b).is_ok(), 60_000),
        ("IDX", plain, |b| idx::read(b).is_ok(), 30_000),
        ("IDX, gzipped", packed, |b| idx::read(b).is_ok(), 30_000),
        ("PNG", image.unwrap(), |b| hubel::io::image::read(b).is_ok(), 20_000),
    ];
    assert!(corpora.iter().all(|(_, good, read, _)| read(good)));
    fuzz(1, corpora);
}

#[test]
fn the_mnist_files_are_the_database() {
    use sha2::{Digest, Sha256};
    use std::io::Read;
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/mnist");
    if !folder.exists() {
        eprintln!("skipped: the published package has no examples/data/mnist");
        return;
    }
    let readme = std::fs::read_to_string(folder.join("README.md")).unwrap();
    let rows = readme.lines().filter(|l| l.contains(".gz |")).map(|l| l.split('|').map(str::trim).collect::<Vec<_>>());
    let mut n = 0;
    for row in rows {
        let mut bytes = Vec::new();
        let file = std::fs::File::open(folder.join(row[1])).unwrap();
        flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
        let hash: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hash, row[3], "{}", row[1]);
        n += 1;
    }
    assert_eq!(n, 4);
    let mnist = hubel::data::mnist(&folder).unwrap();
    assert_eq!(
        (mnist.train.images.shape(), mnist.test.images.shape()),
        (&[60_000, 28, 28, 1][..], &[10_000, 28, 28, 1][..])
    );
    assert_eq!(mnist.test.labels.bytes()[..8], [7, 2, 1, 0, 4, 1, 4, 9]);
    let all: Vec<u32> = (0..10_000).collect();
    let values = mnist.train.rows(&all).unwrap().to_f32();
    let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / values.len() as f64;
    assert!((mean - 0.1307).abs() < 0.005, "{mean}");
}
