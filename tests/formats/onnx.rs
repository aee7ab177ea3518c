//! Hostile ONNX files, and mutations of good ones.

use super::{Corpus, LARGEST, fuzz, within_budget};
use hubel::{
    Error,
    io::{Flaw, onnx},
    layers::*,
    nn::{OnnxExport, OnnxOptions},
    prelude::*,
};

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut n = bytes.len();
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    [&out, bytes].concat()
}

fn varint(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
}

/// A model of these parts of a graph, opset 17.
fn model(graph: &[Vec<u8>]) -> Vec<u8> {
    [varint(1, 8), field(7, &graph.concat()), field(8, &varint(2, 17))].concat()
}

fn node(op: &str, inputs: &[&str], output: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
    let inputs: Vec<u8> = inputs.iter().flat_map(|i| field(1, i.as_bytes())).collect();
    let attributes: Vec<u8> = attributes.iter().flat_map(|a| field(5, a)).collect();
    field(1, &[inputs, field(2, output.as_bytes()), field(4, op.as_bytes()), attributes].concat())
}

/// A value of floats with these extents, one digit each.
fn value(number: u8, name: &str, dims: &[u8]) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|&d| field(1, &varint(1, d))).collect();
    let tensor = [varint(1, 1), field(2, &dims)].concat();
    field(number, &[field(1, name.as_bytes()), field(2, &field(1, &tensor))].concat())
}

fn weights(name: &str, dims: &[u8], bytes: usize) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|&d| varint(1, d)).collect();
    field(5, &[dims, varint(2, 1), field(8, name.as_bytes()), field(9, &vec![0; bytes])].concat())
}

fn ints(name: &str, values: &[u8]) -> Vec<u8> {
    let values: Vec<u8> = values.iter().flat_map(|&v| varint(8, v)).collect();
    [field(1, name.as_bytes()), values, vec![0xa0, 0x01, 7]].concat()
}

fn read(bytes: &[u8]) -> Result<Model, Error> {
    within_budget("ONNX", bytes, || Model::from_onnx_bytes(bytes, &OnnxOptions::new()))
}

fn flaw(bytes: &[u8]) -> Flaw {
    match read(bytes) {
        Err(Error::Format(e)) => e.flaw,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("the file was read"),
    }
}

fn relu(input: &str) -> Vec<u8> {
    model(&[node("Relu", &[input], "y", &[]), value(11, "x", &[1, 3]), value(12, "y", &[1, 3])])
}

#[test]
fn hostile_onnx_files_give_exact_errors() {
    assert!(read(&relu("x")).is_ok());
    let convolution = |attributes: &[Vec<u8>]| {
        let conv = node("Conv", &["x", "w"], "y", attributes);
        model(&[conv, value(11, "x", &[1, 1, 4, 4]), value(12, "y", &[1, 1, 2, 2]), weights("w", &[1, 1, 3, 3], 36)])
    };
    assert!(read(&convolution(&[])).is_ok());
    let mut deep = relu("x");
    for _ in 0..40 {
        // A graph in an attribute of a node of a graph.
        let attribute = [field(1, b"then_branch"), field(6, &deep)].concat();
        deep = field(1, &field(5, &attribute));
    }
    let cases = [
        ("empty", vec![], Flaw::Empty),
        ("no graph", varint(1, 8), Flaw::Magic),
        ("a long number", [vec![8], vec![0xff; 10], vec![1]].concat(), Flaw::Syntax),
        ("a length over the rest", vec![0x3a, 0x7f, 0], Flaw::Truncated),
        ("a length of 2⁶³", [vec![0x3a], vec![0xff; 9], vec![1]].concat(), Flaw::Truncated),
        ("wire type 3", vec![0x0b], Flaw::Syntax),
        ("wire type 4", vec![0x0c], Flaw::Syntax),
        ("wire type 6", vec![0x0e], Flaw::Syntax),
        ("wire type 7", vec![0x0f], Flaw::Syntax),
        ("field 0", vec![0x00, 0], Flaw::Syntax),
        ("deep", [varint(1, 8), field(7, &deep)].concat(), Flaw::Syntax),
        ("a missing value", relu("z"), Flaw::Missing),
        ("a cycle", relu("y"), Flaw::Missing),
        ("no opset", [varint(1, 8), field(7, &[])].concat(), Flaw::Contradiction),
        ("an unknown opset", [varint(1, 8), field(7, &[]), field(8, &varint(2, 99))].concat(), Flaw::Contradiction),
        (
            "duplicate names",
            model(&[node("Relu", &["x"], "x", &[]), value(11, "x", &[1, 3]), value(12, "x", &[1, 3])]),
            Flaw::Duplicate,
        ),
        (
            "too few bytes",
            model(&[node("Add", &["x", "w"], "y", &[]), value(11, "x", &[1, 3]), weights("w", &[3], 8)]),
            Flaw::ByteCount,
        ),
    ];
    for (name, bytes, wanted) in cases {
        assert_eq!(flaw(&bytes), wanted, "{name}");
    }
    for (name, attribute) in [
        ("a kernel of 0", ints("kernel_shape", &[0, 3])),
        ("a stride of 0", ints("strides", &[0, 1])),
        ("a group of 0", [field(1, b"group"), varint(3, 0), vec![0xa0, 0x01, 2]].concat()),
        ("two strides too many", ints("strides", &[1, 1, 1, 1])),
        ("huge paddings", ints("pads", &[127, 127, 127, 127])),
    ] {
        let result = read(&convolution(&[attribute]));
        assert!(result.is_err() || name == "huge paddings", "{name}");
    }
}

#[test]
fn filters_stretched_over_a_whole_axis_take_what_the_file_allows() {
    let long = |mut n: u32| {
        let mut out = vec![];
        while n >= 0x80 {
            out.push(n as u8 | 0x80);
            n >>= 7;
        }
        [out, vec![n as u8]].concat()
    };
    let resized = |n: u32, scale: f32, mode: &[u8], antialias: u8| {
        let scales: Vec<u8> =
            [1.0, 1.0, 1.0, scale].iter().flat_map(|s: &f32| [&[0x3d], &s.to_le_bytes()[..]].concat()).collect();
        let scales = [field(1, b"scales"), scales, vec![0xa0, 0x01, 6]].concat();
        let mode = [field(1, b"mode"), field(4, mode), vec![0xa0, 0x01, 3]].concat();
        let antialias = [field(1, b"antialias"), varint(3, antialias), vec![0xa0, 0x01, 2]].concat();
        let node = node("Upsample", &["x"], "y", &[scales, mode, antialias]);
        let dims: Vec<u8> = [1, 1, 1, n].iter().flat_map(|&d| field(1, &[vec![8], long(d)].concat())).collect();
        let tensor = [varint(1, 1), field(2, &dims)].concat();
        let x = field(11, &[field(1, b"x"), field(2, &field(1, &tensor))].concat());
        model(&[node, x, value(12, "y", &[1, 1, 1, 1])])
    };
    assert!(read(&resized(64, 0.25, b"linear", 1)).is_ok());
    for mode in [&b"linear"[..], b"cubic"] {
        // The longest filter of an axis, whose weights fill what the matrix may have.
        assert!(read(&resized(1 << 16, 0.98e-3, mode, 1)).is_ok());
        for (n, scale) in [(65_535, 0.5), (u32::MAX, 0.5), (1 << 22, 4e-7), (64, 1e-30), (64, -1.0), (64, f32::NAN)] {
            let error = read(&resized(n, scale, mode, 1)).expect_err(&format!("{n} by {scale}")).to_string();
            assert!(error.contains("extents from 1") || error.contains("smaller axes"), "{error}");
        }
    }
}

#[test]
fn external_data_are_read_only_from_regular_files_of_the_folder() {
    let folder = temp_dir::TempDir::new().unwrap();
    let outside = temp_dir::TempDir::new().unwrap();
    std::fs::write(outside.path().join("secret"), [0; 12]).unwrap();
    std::fs::write(folder.path().join("weights"), [0; 12]).unwrap();
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(outside.path().join("secret"), folder.path().join("link")).unwrap();
        std::fs::hard_link(outside.path().join("secret"), folder.path().join("hard")).unwrap();
    }
    let file = |location: &str| {
        let entry = field(13, &[field(1, b"location"), field(2, location.as_bytes())].concat());
        let tensor = field(5, &[varint(1, 3), varint(2, 1), field(8, b"w"), entry, varint(14, 1)].concat());
        let bytes =
            model(&[node("Add", &["x", "w"], "y", &[]), value(11, "x", &[1, 3]), value(12, "y", &[1, 3]), tensor]);
        let path = folder.path().join("model.onnx");
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let allowed = OnnxOptions::new().external_data(true);
    assert!(Model::from_onnx(file("weights")).unwrap_err().to_string().contains("external_data"));
    assert!(Model::from_onnx_with(file("weights"), &allowed).is_ok());
    let absolute = outside.path().join("secret").to_str().unwrap().to_owned();
    let up = format!("../{}/secret", outside.path().file_name().unwrap().to_str().unwrap());
    for location in [up.as_str(), &absolute, "link", "hard", "", ".", "weights/../weights"] {
        assert!(Model::from_onnx_with(file(location), &allowed).is_err(), "{location}");
    }
}

#[test]
fn mutated_onnx_files_neither_panic_nor_take_memory() {
    let small =
        Sequential::new([6, 6, 2]).add(Conv2D::new(3, 3)).add(BatchNormalization::new()).add(MaxPooling2D::new(2));
    let small = small.add(Flatten::new()).add(Dense::new(2).activation(Softmax)).build().unwrap();
    let small = small.to_onnx_bytes(&OnnxExport::new()).unwrap();
    let tensor = [&[0x08, 2, 0x10, 1, 0x22, 8][..], &[0; 8]].concat();
    fn fits(bytes: &[u8], is_read: bool) -> bool {
        let largest = LARGEST.get();
        assert!(largest <= 2 * bytes.len() + (1 << 20), "{largest} bytes at once for a file of {}", bytes.len());
        is_read
    }
    let options = |b: &[u8]| fits(b, Model::from_onnx_bytes(b, &OnnxOptions::new()).is_ok());
    let corpora: [Corpus; 3] = [
        ("a tensor", tensor, |b| fits(b, onnx::tensor(b).is_ok()), 120_000),
        ("one node", relu("x"), options, 70_000),
        ("a network", small, options, 10_000),
    ];
    assert!(corpora.iter().all(|(_, good, read, _)| read(good)));
    fuzz(9, corpora);
}
