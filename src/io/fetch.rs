//! Published weights, downloaded once into a cache and checked.

use super::{Flaw, FormatError, save};
use md5::{Digest, Md5};
use std::{
    env, fs,
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

/// A published file of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published<'a> {
    /// Its URL.
    pub url: &'a str,
    /// Its MD5 sum in hexadecimal digits, as Keras publishes it.
    pub md5: &'a str,
}

/// The maximum bytes of a download.
pub const CAP_BYTES: u64 = 2 << 30;
const KERAS: &str = "https://storage.googleapis.com/";

/// The path of a file that contains its network's name twice.
macro_rules! tf {
    ($path:literal) => {
        concat!("tensorflow/keras-applications/", $path, "_weights_tf_dim_ordering_tf_kernels")
    };
}

/// Name, path in Keras's repository without suffix, sums with and without classifier.
const TABLE: [(&str, &str, [&str; 2]); 19] = [
    ("VGG16", tf!("vgg16/vgg16"), ["64373286793e3c8b2b4e3219cbf3544b", "6d6bbae143d832006294945121d1f1fc"]),
    ("VGG19", tf!("vgg19/vgg19"), ["cbe5617147190e668d6c5d5026f83318", "253f8cb515780f3b799900260a226db6"]),
    ("ResNet50", tf!("resnet/resnet50"), ["2cb95161c43110f7111970584f804107", "4d473c1dd8becc155b73f8504c6f6626"]),
    ("ResNet101", tf!("resnet/resnet101"), ["f1aeb4b969a6efcfb50fad2f0c20cfc5", "88cf7a10940856eca736dc7b7e228a21"]),
    ("ResNet152", tf!("resnet/resnet152"), ["100835be76be38e30d865e96f2aaae62", "ee4c566cf9a93f14d82f913c2dc6dd0c"]),
    (
        "InceptionV3",
        tf!("inception_v3/inception_v3"),
        ["9a0d58056eeedaa3f26cb7ebd46da564", "bcbd6486424b2319ff4ef7d526e38f63"],
    ),
    (
        "InceptionResNetV2",
        tf!("inception_resnet_v2/inception_resnet_v2"),
        ["e693bd0210a403b3192acc6073ad2e96", "d19885ff4a710c122648d3b5c3b684e4"],
    ),
    ("Xception", tf!("xception/xception"), ["0a58e3b7378bc2990ea3b43d5981f1f6", "b0042744bf5b25fce3cb969f33bebb97"]),
    (
        "DenseNet121",
        tf!("densenet/densenet121"),
        ["9d60b8095a5708f2dcce2bca79d332c7", "30ee3e1110167f948a6b9946edeeb738"],
    ),
    (
        "DenseNet169",
        tf!("densenet/densenet169"),
        ["d699b8f76981ab1b30698df4c175e90b", "b8c4d4c20dd625c148057b9ff1c1176b"],
    ),
    (
        "DenseNet201",
        tf!("densenet/densenet201"),
        ["1ceb130c1ea1b78c3bf6114dbdfd8807", "c13680b51ded0fb44dff2d8f86ac8bb1"],
    ),
    (
        "EfficientNetB0",
        "keras-applications/efficientnetb0",
        ["902e53a9f72be733fc0bcb005b3ebbac", "50bc09e76180e00e4465e1a485ddc09d"],
    ),
    (
        "EfficientNetB1",
        "keras-applications/efficientnetb1",
        ["1d254153d4ab51201f1646940f018540", "74c4e6b3e1f6a1eea24c589628592432"],
    ),
    (
        "EfficientNetB2",
        "keras-applications/efficientnetb2",
        ["b15cce36ff4dcbd00b6dd88e7857a6ad", "111f8e2ac8aa800a7a99e3239f7bfb39"],
    ),
    (
        "EfficientNetB3",
        "keras-applications/efficientnetb3",
        ["ffd1fdc53d0ce67064dc6a9c7960ede0", "af6d107764bb5b1abb91932881670226"],
    ),
    (
        "EfficientNetB4",
        "keras-applications/efficientnetb4",
        ["18c95ad55216b8f92d7e70b3a046e2fc", "ebc24e6d6c33eaebbd558eafbeedf1ba"],
    ),
    (
        "EfficientNetB5",
        "keras-applications/efficientnetb5",
        ["ace28f2a6363774853a83a0b21b9421a", "38879255a25d3c92d5e44e04ae6cec6f"],
    ),
    (
        "EfficientNetB6",
        "keras-applications/efficientnetb6",
        ["165f6e37dce68623721b423839de8be5", "9ecce42647a20130c1f39a5d4cb75743"],
    ),
    (
        "EfficientNetB7",
        "keras-applications/efficientnetb7",
        ["8c03f828fec3ef71311cd463b6759d99", "cbcfe4450ddf6f3ad90b1b398090fe4a"],
    ),
];

/// Returns the names of the networks whose ImageNet weights Keras publishes with a checksum.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|row| row.0)
}

/// Returns the URL of Keras's ImageNet weights of a network, with or without classifier, and their checksum.
///
/// Networks are named as in `hubel::nn::models`; `None` for one whose weights have no published checksum.
pub fn imagenet(name: &str, include_top: bool) -> Option<(String, &'static str)> {
    let (_, path, sums) = TABLE.iter().find(|row| row.0.eq_ignore_ascii_case(name))?;
    let end = if include_top { "" } else { "_notop" };
    Some((format!("{KERAS}{path}{end}.h5"), sums[usize::from(!include_top)]))
}

/// Returns the folder of downloads: `HUBEL_CACHE`, or `hubel` in the system's cache folder.
pub fn cache_folder() -> PathBuf {
    let set = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = || set("HOME").unwrap_or_else(env::temp_dir);
    set("HUBEL_CACHE").unwrap_or_else(|| {
        let system = match () {
            () if cfg!(windows) => set("LOCALAPPDATA").unwrap_or_else(env::temp_dir),
            () if cfg!(target_os = "macos") => home().join("Library/Caches"),
            () => set("XDG_CACHE_HOME").unwrap_or_else(|| home().join(".cache")),
        };
        system.join("hubel")
    })
}

fn sum(bytes: &[u8]) -> String {
    Md5::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// Returns the path of a published file in a folder, downloaded if it is not there yet.
///
/// Only HTTPS is used, except to this machine. A download must have the file's checksum before it gets its name.
/// `progress` gets the bytes so far and their total, if the server states it. Without a connection, the error says
/// which file to put where.
pub fn fetch(
    file: Published,
    folder: &Path,
    mut progress: impl FnMut(u64, Option<u64>),
) -> Result<PathBuf, FormatError> {
    let name = file.url.rsplit('/').next().filter(|n| !n.is_empty() && !n.starts_with('.') && !n.contains('\\'));
    let name =
        name.ok_or_else(|| FormatError::new(Flaw::Syntax, "the address", "a URL that ends in a file", file.url))?;
    let local = ["http://127.0.0.1:", "http://[::1]:", "http://localhost:"].iter().any(|l| file.url.starts_with(l));
    if !file.url.starts_with("https://") && !local {
        return Err(FormatError::new(Flaw::Syntax, "the address", "https://", file.url));
    }
    let path = folder.join(name);
    if let Ok(bytes) = super::read_file(&path, CAP_BYTES) {
        if sum(&bytes) == file.md5 {
            return Ok(path);
        }
        log::warn!("{} does not have the published checksum; downloading it again", path.display());
    }
    let by_hand = format!("download {} yourself and put it at {}", file.url, path.display());
    let failed = |e: &dyn std::fmt::Display| {
        FormatError::new(Flaw::Io, "the download", "an answer of the server", e).of(&path).advise(by_hand.clone())
    };
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_connect(Some(Duration::from_secs(20)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .build()
        .into();
    let mut response = agent.get(file.url).call().map_err(|e| failed(&e))?;
    let length = response.body().content_length();
    if length.is_some_and(|n| n > CAP_BYTES) {
        let (wanted, got) = (format!("at most {CAP_BYTES} bytes"), format!("{} bytes", length.unwrap_or(0)));
        return Err(FormatError::new(Flaw::TooLarge, "the download", wanted, got).of(&path));
    }
    let mut reader = response.body_mut().with_config().limit(CAP_BYTES).reader();
    let (mut bytes, mut piece) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        let n = reader.read(&mut piece).map_err(|e| failed(&e))?;
        if n == 0 {
            break;
        }
        bytes.extend_from_slice(&piece[..n]);
        progress(bytes.len() as u64, length);
    }
    let got = sum(&bytes);
    if got != file.md5 {
        let error = FormatError::new(Flaw::Checksum, "the download", format!("the MD5 sum {}", file.md5), got);
        return Err(error.of(&path).advise(by_hand));
    }
    fs::create_dir_all(folder).map_err(|e| FormatError::io(folder, "a folder that can be created", &e))?;
    save::save(&path, &bytes, false)?;
    Ok(path)
}
