//! Small files that describe endless memory or work: each function builds one, and the table has its outcome.

use super::within_budget;
use flate2::{Compression, write::ZlibEncoder};
use hubel::{
    graph::Graph,
    io::{Budget, Flaw, FormatError, hdf5, tfjs, weights},
    nn::{Dense, Mode, Model, Sequential},
    tensor::DType,
};
use std::io::Write;

fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

pub fn zip_of(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).expect("a file");
        zip.write_all(bytes).expect("in memory");
    }
    zip.finish().expect("in memory").into_inner()
}

/// Returns an archive whose directory has these names, all for the one entry of another archive.
pub fn shared_entry(of: &[u8], names: impl Iterator<Item = String>) -> Vec<u8> {
    let end = of.len() - 22;
    let start = u32::from_le_bytes(of[end + 16..end + 20].try_into().expect("four bytes")) as usize;
    let record = &of[start..];
    let tail = [30, 32].map(|at| usize::from(u16::from_le_bytes([record[at], record[at + 1]])));
    let own = usize::from(u16::from_le_bytes([record[28], record[29]]));
    let (mut out, mut n) = (of[..start].to_vec(), 0u16);
    for name in names {
        out.extend(&record[..28]);
        out.extend((name.len() as u16).to_le_bytes());
        out.extend(&record[30..46]);
        out.extend(name.as_bytes());
        out.extend(&record[46 + own..46 + own + tail[0] + tail[1]]);
        n += 1;
    }
    let size = (out.len() - start) as u32;
    out.extend(&of[end..end + 8]);
    out.extend([n, n].map(u16::to_le_bytes).concat());
    out.extend([size, start as u32].map(u32::to_le_bytes).concat());
    out.extend([0, 0]);
    out
}

fn pth(pickle: &[u8]) -> Vec<u8> {
    zip_of(&[("a/data.pkl", pickle)])
}

fn npy(n: usize) -> Vec<u8> {
    hubel::io::npy::write(&hubel::tensor::HostTensor::u8([n], vec![0; n]).expect("a tensor"))
}

fn unicode(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

const PARAMETER: &[u8] = b"ctorch._utils\n_rebuild_parameter\nq\x01";
const REBUILD: &[u8] = b"ctorch._utils\n_rebuild_tensor_v2\nq\x01";

/// A storage under a long key, kept at 2, and the arguments that make a tensor of it, kept at 3.
fn storage(key: usize) -> Vec<u8> {
    let key = unicode(&"k".repeat(key));
    let name = [&b"("[..], &unicode("storage"), b"ctorch\nFloatStorage\n", &key, b"NK\x01t"].concat();
    [&b"("[..], &name, b"Qq\x02K\x00K\x01\x85K\x01\x85tq\x03"].concat()
}

fn parameters_of_one_text() -> Vec<u8> {
    let text = [&unicode(&"t".repeat(100_000))[..], b"q\x00\x85q\x02"].concat();
    pth(&[b"\x80\x02", PARAMETER, &text, &b"h\x01h\x02R".repeat(60_000), b"."].concat())
}

fn tensors_of_one_storage() -> Vec<u8> {
    pth(&[b"\x80\x02", REBUILD, &storage(100_000), &b"h\x01h\x03R".repeat(60_000), b"."].concat())
}

fn entries_under_one_long_name() -> Vec<u8> {
    let name = [&unicode(&"n".repeat(100_000))[..], b"q\x04"].concat();
    let head = [b"\x80\x02", REBUILD, &storage(4), &name, b"}("].concat();
    pth(&[&head[..], &b"h\x04h\x01h\x03R".repeat(8000), b"u."].concat())
}

fn calls_of_a_long_tuple() -> Vec<u8> {
    let tuple = [&b"K\x01q\x00("[..], &b"h\x00".repeat(300_000), b"tq\x02"].concat();
    pth(&[b"\x80\x02", PARAMETER, &tuple, &b"h\x01h\x02R".repeat(300_000), b"."].concat())
}

fn lists_in_lists() -> Vec<u8> {
    let grow = [&b"]q\x00("[..], &b"K\x01".repeat(60_000), b"tq\x01"].concat();
    pth(&[b"\x80\x02", &grow[..], &b"](h\x01h\x01h\x01h\x01e".repeat(60_000), b"."].concat())
}

fn a_checkpoint_of_one_state() -> Vec<u8> {
    let state = [&b"}("[..], &b"K\x00N".repeat(60_000), b"uq\x05"].concat();
    let name = [&unicode("model")[..], b"q\x04"].concat();
    pth(&[&b"\x80\x02"[..], &name, &state, b"}(", &b"h\x04h\x05".repeat(60_000), b"u."].concat())
}

fn an_empty_tensor_of_endless_extents() -> Vec<u8> {
    let name = [&b"("[..], &unicode("storage"), b"ctorch\nFloatStorage\n", &unicode("0"), b"NK\x01tQ"].concat();
    let extent = [&b"\x8a\x08"[..], &(1u64 << 62).to_le_bytes()].concat();
    let shape = [b"K\x00", &extent[..], &extent, b"\x87"].concat();
    pth(&[b"\x80\x02}", &unicode("w")[..], REBUILD, b"(", &name, b"K\x00", &shape, &shape, b"tRs."].concat())
}

fn entries_of_one_entry() -> Vec<u8> {
    shared_entry(&zip_of(&[("a.npy", &npy(5 << 20))]), (0..1000).map(|i| format!("{i}.npy")))
}

fn a_directory_that_states_millions() -> Vec<u8> {
    let mut zip = zip_of(&[("a.npy", &vec![7; 1 << 20])]);
    let end = zip.len() - 22;
    let start = u32::from_le_bytes(zip[end + 16..end + 20].try_into().expect("four bytes"));
    let large = [44u64, 45 | 45 << 16, 0, 1 << 24, 1 << 24, 46 << 24, start.into()];
    let mut record = b"PK\x06\x06".to_vec();
    record.extend(large[0].to_le_bytes());
    record.extend((large[1] as u32).to_le_bytes());
    record.extend([0; 8]);
    large[3..].iter().for_each(|n| record.extend(n.to_le_bytes()));
    record.extend(b"PK\x06\x07\0\0\0\0");
    record.extend((end as u64).to_le_bytes());
    record.extend(1u32.to_le_bytes());
    zip[end + 8..end + 12].fill(0xff);
    zip[end + 12..end + 20].fill(0xff);
    drop(zip.splice(end..end, record));
    zip
}

/// Builds HDF5 files from the end: objects refer to earlier ones.
struct Hdf5(Vec<u8>);

impl Hdf5 {
    fn new() -> Self {
        Hdf5([hdf5::MAGIC, &[2, 8, 8, 0], &[0; 36]].concat())
    }

    fn put(&mut self, bytes: &[u8]) -> u64 {
        self.0.extend(bytes);
        (self.0.len() - bytes.len()) as u64
    }

    /// Puts an object of these messages.
    fn object(&mut self, messages: &[Vec<u8>]) -> u64 {
        let all = messages.concat();
        self.put(&[b"OHDR\x02\x02", &(all.len() as u32).to_le_bytes()[..], &all].concat())
    }

    fn finish(mut self, root: u64) -> Vec<u8> {
        self.0[36..44].copy_from_slice(&root.to_le_bytes());
        self.0
    }
}

fn message(kind: u8, contents: &[u8]) -> Vec<u8> {
    [&[kind][..], &(contents.len() as u16).to_le_bytes(), &[0], contents].concat()
}

fn link(name: &str, to: u64) -> Vec<u8> {
    message(6, &[&[1, 0, name.len() as u8][..], name.as_bytes(), &to.to_le_bytes()].concat())
}

/// An attribute that is a list of texts in a heap.
fn texts(name: &str, elements: &[[u8; 16]]) -> Vec<u8> {
    let space = [&[2, 1, 0, 1][..], &(elements.len() as u64).to_le_bytes()].concat();
    let sizes = [name.len() as u16, 8, space.len() as u16].map(u16::to_le_bytes).concat();
    let ty = [0x19, 1, 0, 0, 16, 0, 0, 0];
    message(12, &[&[3, 0][..], &sizes, &[0], name.as_bytes(), &ty, &space, &elements.concat()].concat())
}

/// Puts a heap of one text and returns a reference to it.
fn heap(file: &mut Hdf5, text: &[u8]) -> [u8; 16] {
    let padded = text.len().next_multiple_of(8);
    let mut bytes = [b"GCOL\x01\0\0\0", &(padded as u64 + 32).to_le_bytes()[..], &[1, 0, 0, 0, 0, 0, 0, 0]].concat();
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text);
    bytes.resize(32 + padded, 0);
    let at = file.put(&bytes);
    let element = [&(text.len() as u32).to_le_bytes()[..], &at.to_le_bytes(), &1u32.to_le_bytes()].concat();
    element.try_into().expect("sixteen bytes")
}

fn references_to_one_text() -> Vec<u8> {
    let mut file = Hdf5::new();
    let text = heap(&mut file, &vec![b'a'; 700_000]);
    let root = file.object(&[texts("layer_names", &[text; 4000])]);
    file.finish(root)
}

fn many_attributes() -> Vec<u8> {
    let all: Vec<Vec<u8>> = (0..60_000).map(|i| texts(&format!("layer_names{i}"), &[])).collect();
    let mut file = Hdf5::new();
    let root = file.object(&all);
    file.finish(root)
}

fn one_layer_many_times() -> Vec<u8> {
    let mut file = Hdf5::new();
    let name = heap(&mut file, b"a");
    let attributes: Vec<Vec<u8>> = (0..30_000).map(|i| texts(&i.to_string(), &[])).collect();
    let layer = file.object(&attributes);
    let lists: Vec<Vec<u8>> = (0..15).map(|i| texts(&format!("layer_names{i}"), &[name; 4000])).collect();
    let root = file.object(&[&[link("a", layer)], &lists[..]].concat());
    file.finish(root)
}

fn symbols_of_one_name() -> Vec<u8> {
    let mut file = Hdf5::new();
    let names = file.put(&[&vec![b'n'; 400_000][..], b"\0"].concat());
    let heap = [b"HEAP\0\0\0\0", &400_001u64.to_le_bytes()[..], &[0; 8], &names.to_le_bytes()].concat();
    let heap = file.put(&heap);
    let entry = |i: u64| [&0u64.to_le_bytes()[..], &i.to_le_bytes(), &[0; 24]].concat();
    let entries: Vec<u8> = (0..10_000).flat_map(entry).collect();
    let table = file.put(&[b"SNOD\x01\0", &10_000u16.to_le_bytes()[..], &entries].concat());
    let root = file.object(&[message(0x11, &[table.to_le_bytes(), heap.to_le_bytes()].concat())]);
    file.finish(root)
}

fn headers_of_one_block() -> Vec<u8> {
    let mut file = Hdf5::new();
    let block = [&b"OCHK"[..], &[0; 240_000], &[0; 4]].concat();
    let at = file.put(&block);
    let rest = message(0x10, &[at.to_le_bytes(), (block.len() as u64).to_le_bytes()].concat());
    let links: Vec<Vec<u8>> = (0..5000)
        .map(|i| {
            let object = file.object(std::slice::from_ref(&rest));
            link(&i.to_string(), object)
        })
        .collect();
    let root = file.object(&links);
    file.finish(root)
}

/// A data set of floats in chunks of `extent`, all of them the same one, `step` elements apart.
fn one_chunk(extent: u32, n: u16, step: u64) -> Vec<u8> {
    let mut file = Hdf5::new();
    let packed = deflated(&vec![0; 4 * extent as usize]);
    let chunk = file.put(&packed);
    let entry = |i: u64| {
        let head = [(packed.len() as u32).to_le_bytes(), [0; 4]].concat();
        [&head[..], &(i * step).to_le_bytes(), &[0; 8], &chunk.to_le_bytes()].concat()
    };
    let entries: Vec<u8> = (0..n.into()).flat_map(entry).collect();
    let tree = file.put(&[b"TREE\x01\0", &n.to_le_bytes()[..], &[0; 16], &entries].concat());
    let count = u64::from(extent) + step * u64::from(n - 1);
    let object = file.object(&[
        message(1, &[&[2, 1, 0, 1][..], &count.to_le_bytes()].concat()),
        message(3, &[0x11, 0, 0, 0, 4, 0, 0, 0]),
        message(8, &[&[3, 2, 2][..], &tree.to_le_bytes(), &extent.to_le_bytes(), &4u32.to_le_bytes()].concat()),
        message(11, &[2, 1, 1, 0, 0, 0, 0, 0]),
    ]);
    let root = file.object(&[link("w", object)]);
    file.finish(root)
}

fn one_chunk_in_one_place() -> Vec<u8> {
    one_chunk(1 << 16, 60_000, 0)
}

fn zeros_deflated_twice() -> Vec<u8> {
    zip_of(&[("config.json", b"{}"), ("model.weights.h5", &one_chunk(1 << 18, 2048, 1 << 18))])
}

fn one_dataset_many_times() -> Vec<u8> {
    let mut file = Hdf5::new();
    let [layer, weight] = [heap(&mut file, b"a"), heap(&mut file, b"w")];
    let object = file.object(&[
        message(1, &[&[2, 1, 0, 1][..], &4000u64.to_le_bytes()].concat()),
        message(3, &[0x11, 0, 0, 0, 4, 0, 0, 0]),
        message(8, &[&[3, 0, 0x80, 0x3e][..], &[0; 16_000]].concat()),
    ]);
    let lists: Vec<Vec<u8>> = (0..4).map(|i| texts(&format!("weight_names{i}"), &[weight; 4000])).collect();
    let group = file.object(&[&[link("w", object)], &lists[..]].concat());
    let root = file.object(&[link("a", group), texts("layer_names", &[layer; 10])]);
    file.finish(root)
}

fn one_shard_many_times() -> Vec<u8> {
    let paths = vec!["a.bin"; 4000];
    let weight = serde_json::json!({"name": "a", "shape": [4000, 1 << 18], "dtype": "float32"});
    serde_json::json!({"weightsManifest": [{"paths": paths, "weights": [weight]}]}).to_string().into_bytes()
}

fn many_small_maps() -> Vec<u8> {
    format!(r#"{{"modelTopology":[{}0]}}"#, r#"{"":0},"#.repeat(300_000)).into_bytes()
}

type Read = fn(&[u8]) -> Option<FormatError>;

fn of_weights(bytes: &[u8]) -> Option<FormatError> {
    weights::read(bytes).err()
}

fn of_tfjs(bytes: &[u8]) -> Option<FormatError> {
    tfjs::read(bytes, &Budget::new(bytes.len() as u64), |_, _| Ok(vec![0; 1 << 20])).err()
}

/// Each file by name: its builder, its reader, and the flaw found.
const FILES: [(&str, fn() -> Vec<u8>, Read, Option<Flaw>); 20] = [
    ("parameters of one text", parameters_of_one_text, of_weights, Some(Flaw::Type)),
    ("tensors of one storage", tensors_of_one_storage, of_weights, Some(Flaw::Type)),
    ("entries under one long name", entries_under_one_long_name, of_weights, Some(Flaw::TooLarge)),
    ("calls of a long tuple", calls_of_a_long_tuple, of_weights, Some(Flaw::Type)),
    ("lists in lists", lists_in_lists, of_weights, Some(Flaw::Type)),
    ("a checkpoint of one state", a_checkpoint_of_one_state, of_weights, Some(Flaw::TooLarge)),
    ("entries of one entry", entries_of_one_entry, of_weights, Some(Flaw::TooLarge)),
    ("a directory that states millions", a_directory_that_states_millions, of_weights, Some(Flaw::TooLarge)),
    ("references to one text", references_to_one_text, of_weights, Some(Flaw::TooLarge)),
    ("many attributes", many_attributes, of_weights, None),
    ("one layer many times", one_layer_many_times, of_weights, Some(Flaw::TooLarge)),
    ("symbols of one name", symbols_of_one_name, of_weights, Some(Flaw::TooLarge)),
    ("headers of one block", headers_of_one_block, of_weights, Some(Flaw::TooLarge)),
    ("one chunk in one place", one_chunk_in_one_place, of_weights, Some(Flaw::TooLarge)),
    ("zeros deflated twice", zeros_deflated_twice, of_weights, Some(Flaw::TooLarge)),
    ("one data set many times", one_dataset_many_times, of_weights, Some(Flaw::TooLarge)),
    ("one shard many times", one_shard_many_times, of_tfjs, Some(Flaw::Duplicate)),
    ("many small maps", many_small_maps, of_tfjs, Some(Flaw::TooLarge)),
    ("an empty tensor of endless extents", an_empty_tensor_of_endless_extents, of_weights, Some(Flaw::Overflow)),
    ("a pickle of none", || pth(b"\x80\x02}."), of_weights, Some(Flaw::Type)),
];

#[test]
fn files_that_describe_more_than_they_hold_take_what_their_size_allows() {
    for (name, build, read, flaw) in FILES {
        let bytes = build();
        let error = within_budget(name, &bytes, || read(&bytes));
        assert_eq!(error.as_ref().map(|e| e.flaw), flaw, "{name} ({} bytes): {error:?}", bytes.len());
    }
}

/// Returns a model of these layers as Keras 2 writes it, from the input `x` to the layer `y`.
fn functional(name: &str, layers: &str, y: &str) -> String {
    format!(
        r#"{{"class_name":"Functional","config":{{"name":"{name}","layers":[{{"class_name":"InputLayer","name":"x",
        "config":{{"batch_input_shape":[null,1],"name":"x"}},"inbound_nodes":[]}},{layers}],
        "input_layers":[["x",0,0]],"output_layers":[["{y}",0,0]]}}}}"#
    )
}

fn layer(class: &str, name: &str, config: &str, nodes: &str) -> String {
    format!(
        r#"{{"class_name":"{class}","name":"{name}","config":{{{config}"name":"{name}"}},"inbound_nodes":[{nodes}]}}"#
    )
}

fn chain(n: usize) -> Vec<String> {
    let before = |i: usize| if i == 0 { "x".to_owned() } else { format!("r{}", i - 1) };
    (0..n).map(|i| layer("ReLU", &format!("r{i}"), "", &format!(r#"[["{}",0,0]]"#, before(i)))).collect()
}

fn models_called_twice() -> String {
    let relu = layer("ReLU", "m", "", r#"[["x",0,0]],[["m",0,0]]"#);
    (0..38).fold(functional("m", &relu, "m"), |inner, _| {
        let object = inner.strip_suffix('}').expect("an object");
        functional("m", &format!(r#"{object},"name":"m","inbound_nodes":[[["x",0,0]],[["m",0,0]]]}}"#), "m")
    })
}

fn directions_of_directions() -> String {
    let wrap = |inner, _| format!(r#"{{"class_name":"Bidirectional","config":{{"layer":{inner}}}}}"#);
    let inner = (0..40).fold(r#"{"class_name":"LSTM","config":{"units":1}}"#.to_owned(), wrap);
    let input = r#"{"class_name":"InputLayer","config":{"batch_input_shape":[null,2,1],"name":"x"}}"#;
    format!(r#"{{"class_name":"Sequential","config":{{"name":"s","layers":[{input},{inner}]}}}}"#)
}

fn a_long_name_around_many_layers() -> String {
    let inner = functional(&"n".repeat(60_000), &chain(10_000).join(","), "r9999");
    let object = inner.strip_suffix('}').expect("an object");
    functional("m", &format!(r#"{object},"name":"i","inbound_nodes":[[["x",0,0]]]}}"#), "i")
}

fn a_sum_of_one_tensor() -> String {
    let inputs = vec![r#"["x",0,0]"#; 100_000].join(",");
    functional("m", &layer("Add", "y", "", &format!("[{inputs}]")), "y")
}

fn many_layers() -> String {
    functional("m", &chain(20_000).join(","), "r19999")
}

fn many_layers_last_first() -> String {
    let mut layers = chain(20_000);
    layers.reverse();
    functional("m", &layers.join(","), "r19999")
}

fn many_layers_with_weights() -> String {
    let model = (0..20_000).fold(Sequential::new([1]), |model, _| model.add(Dense::new(1)));
    model.build().expect("a model").to_json().expect("a file can describe it")
}

/// Returns 300 of one layer, one behind the other.
fn repeated(class: &str, shape: &str, config: &str) -> String {
    let layers: Vec<String> =
        (0..300).map(|i| format!(r#"{{"class_name":"{class}","config":{{"name":"l{i}",{config}}}}}"#)).collect();
    format!(
        r#"{{"class_name":"Sequential","config":{{"name":"s","layers":[{{"class_name":"InputLayer","config":
        {{"batch_shape":[null,{shape}],"name":"x"}}}},{}]}}}}"#,
        layers.join(",")
    )
}

fn many_steps_of_many_layers() -> String {
    repeated("ConvLSTM1D", "1024,4,1", r#""filters":1,"kernel_size":1,"return_sequences":true"#)
}

fn many_windows_of_many_layers() -> String {
    let inner = r#"{"class_name":"AdaptiveMaxPooling1D","config":{"name":"a","output_size":1023}},
        {"class_name":"ZeroPadding1D","config":{"name":"b","padding":[0,1]}}"#;
    let inner = format!(
        r#""layers":[{{"class_name":"InputLayer","config":{{"batch_shape":[null,1024,1],"name":"x"}}}},{inner}]"#
    );
    repeated("Sequential", "1024,1", &inner)
}

/// Each model by name: its writer, and whether it is small enough for its text.
const MODELS: [(&str, fn() -> String, bool); 9] = [
    ("many steps of many layers", many_steps_of_many_layers, false),
    ("many windows of many layers", many_windows_of_many_layers, false),
    ("models called twice", models_called_twice, false),
    ("directions of directions", directions_of_directions, false),
    ("a long name around many layers", a_long_name_around_many_layers, false),
    ("a sum of one tensor", a_sum_of_one_tensor, false),
    ("many layers", many_layers, true),
    ("many layers, last first", many_layers_last_first, true),
    ("many layers with weights", many_layers_with_weights, true),
];

#[test]
fn models_that_describe_more_than_they_hold_take_what_their_text_allows() {
    for (name, write, fits) in MODELS {
        let json = write();
        let model = within_budget(name, json.as_bytes(), || Model::from_json(&json));
        match model {
            Ok(_) => assert!(fits, "{name} ({} bytes)", json.len()),
            Err(e) => assert!(!fits && e.to_string().contains("io::Budget"), "{name} ({} bytes): {e}", json.len()),
        }
    }
}

/// A layer's class, the shape of its samples, and a configuration that asks for more than there can be.
const LAYERS: [(&str, &str, &str); 39] = [
    ("ConvLSTM1D", "2,4,1", r#""filters":4611686018427387904,"kernel_size":1"#),
    ("ConvLSTM1D", "2,4,1", r#""filters":1,"kernel_size":9223372036854775807,"padding":"same""#),
    ("ConvLSTM1D", "16777216,4,1", r#""filters":1,"kernel_size":1"#),
    ("ConvLSTM2D", "1000000,4,4,1", r#""filters":1,"kernel_size":1"#),
    ("ConvLSTM2D", "2,4,4,1", r#""filters":1,"kernel_size":[3,3],"dilation_rate":9223372036854775807"#),
    ("ConvLSTM2D", "2,4,4,1", r#""filters":0,"kernel_size":0,"strides":0"#),
    ("ConvLSTM3D", "2,4,4,4,1", r#""filters":1,"kernel_size":[4611686018427387904,2,2],"padding":"same""#),
    ("ConvLSTM3D", "2,4,4,4,1", r#""filters":4611686018427387904,"kernel_size":1"#),
    ("Conv3DTranspose", "2,2,2,1", r#""filters":4611686018427387904,"kernel_size":1"#),
    ("Conv3DTranspose", "2,2,2,1", r#""filters":1,"kernel_size":1,"strides":4611686018427387904"#),
    ("Conv3DTranspose", "2,2,2,1", r#""filters":1,"kernel_size":[9223372036854775807,1,1],"padding":"same""#),
    (
        "SpectralNormalization",
        "4",
        r#""power_iterations":4611686018427387904,"layer":{"class_name":"Dense","config":{"units":2}}"#,
    ),
    ("SpectralNormalization", "4", r#""layer":{"class_name":"Dense","config":{"units":4611686018427387904}}"#),
    ("SpectralNormalization", "4", r#""layer":{"class_name":"ReLU","config":{}}"#),
    ("RNN", "2,4", r#""cell":{"class_name":"StackedRNNCells","config":{"cells":[]}}"#),
    (
        "RNN",
        "2,4",
        r#""cell":{"class_name":"StackedRNNCells","config":{"cells":[{"class_name":"GRUCell","config":{"units":4611686018427387904}}]}}"#,
    ),
    (
        "RNN",
        "16777216,4",
        r#""cell":{"class_name":"StackedRNNCells","config":{"cells":[{"class_name":"LSTMCell","config":{"units":1}},{"class_name":"GRUCell","config":{"units":1,"recurrent_dropout":0.5}}]}}"#,
    ),
    ("LayerScale", "4", r#""init_values":1e400,"projection_dim":4"#),
    ("LayerScale", "4", r#""init_values":1e-6,"projection_dim":4611686018427387904"#),
    ("StochasticDepth", "4", r#""drop_path_rate":1.5"#),
    ("AdaptiveAveragePooling1D", "1000001,1", r#""output_size":1000000"#),
    ("AdaptiveMaxPooling2D", "4,4,1", r#""output_size":[4611686018427387904,2]"#),
    ("AdaptiveMaxPooling2D", "4,4,1", r#""output_size":0"#),
    ("AdaptiveAveragePooling3D", "1026,1026,1026,1", r#""output_size":1025"#),
    ("STFTSpectrogram", "64,1", r#""frame_length":9223372036854775807,"fft_length":9223372036854775807"#),
    ("STFTSpectrogram", "64,1", r#""frame_length":16,"fft_length":9223372036854775807"#),
    ("STFTSpectrogram", "64,1", r#""frame_length":18446744073709551615"#),
    ("STFTSpectrogram", "64,1", r#""frame_length":16,"frame_step":0"#),
    ("MelSpectrogram", "64", r#""fft_length":16,"num_mel_bins":4611686018427387904"#),
    ("MelSpectrogram", "64", r#""fft_length":9223372036854775807"#),
    ("MelSpectrogram", "64", r#""fft_length":16,"sequence_stride":0"#),
    ("IntegerLookup", "4", r#""vocabulary":[2147483647,-2147483648]"#),
    ("IntegerLookup", "4", r#""vocabulary":[1],"num_oov_indices":4611686018427387904"#),
    ("EinsumDense", "4", r#""equation":"ab,bc->ac","output_shape":[4611686018427387904]"#),
    ("EinsumDense", "4", r#""equation":"aaaaaaaaaaaaaaaaaaaaaaaaaaaa,a->a","output_shape":[1]"#),
    ("EinsumDense", "4", r#""equation":"ab,abc->c","output_shape":[1]"#),
    ("EinsumDense", "4", r#""equation":"ab,ab->","output_shape":[]"#),
    ("RandomGaussianBlur", "4,4,3", r#""kernel_size":4611686018427387904"#),
    ("RandomPosterization", "4,4,3", r#""factor":[1,4611686018427387904]"#),
];

#[test]
fn layers_of_endless_sizes_are_refused() {
    for (class, shape, config) in LAYERS {
        let json = format!(
            r#"{{"class_name":"Sequential","config":{{"name":"s","layers":[{{"class_name":"InputLayer","config":
            {{"batch_shape":[null,{shape}],"name":"x"}}}},{{"class_name":"{class}","config":{{"name":"l",{config}}}}}]}}}}"#
        );
        let trained = |json: &str| {
            let model = Model::from_json(json)?;
            let mut g = Graph::new();
            let x = g.input("x", model.input_shape(), DType::F32);
            model.assemble(&mut g, &[x], Mode::Training).map(|_| format!("{}", model.output_shape()))
        };
        let result = within_budget(class, json.as_bytes(), || trained(&json));
        let error = result.expect_err(&format!("{class} of {config}")).to_string();
        assert!(error.len() < 1000, "{class} of {config}: {error}");
    }
    let numbers: Vec<String> = (0..70_000).map(|i| i.to_string()).collect();
    let lookup = format!(
        r#"{{"class_name":"Sequential","config":{{"name":"s","layers":[{{"class_name":"InputLayer","config":
        {{"batch_shape":[null,70000],"name":"x"}}}},{{"class_name":"IntegerLookup","config":{{"vocabulary":[{}]}}}}]}}}}"#,
        numbers.join(",")
    );
    assert!(within_budget("a vocabulary", lookup.as_bytes(), || Model::from_json(&lookup)).is_err());
}

#[test]
fn json_that_is_no_model_is_refused() {
    for json in [
        "\"Functional\"",
        "[]",
        "3",
        "{}",
        r#"{"class_name":"Functional"}"#,
        r#"{"class_name":"Sequential","config":3}"#,
    ] {
        assert!(Model::from_json(json).is_err(), "{json}");
    }
}
