//! Pictures in folders, one folder for each class, as Keras's `image_dataset_from_directory` reads them.

use super::{
    Dataset,
    files::{ColorMode, Files, Fit, Resizer},
};
use crate::io::{Flaw, FormatError, checked_bytes, image::MAX_SIDE};
use crate::tensor::{Data, HostTensor, Philox, Purpose};
use rayon::prelude::*;
use std::{
    collections::HashSet,
    ffi::OsStr,
    fmt::Display,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// The most bytes that the pictures of a data set take, where [`ImageFolder::cap_bytes`] says nothing else.
pub const DATASET_CAP_BYTES: u64 = 4 << 30;
const READ: [&str; 3] = ["png", "jpg", "jpeg"];
/// Pictures too, but of kinds that are not read: they are named rather than overlooked.
const OTHER: [&str; 9] = ["avif", "bmp", "gif", "heic", "heif", "jfif", "tif", "tiff", "webp"];

/// The parts of a data set that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subset {
    /// What is left for training; the other part stays empty.
    Training,
    /// The validation split; the other part stays empty.
    Validation,
    /// Both.
    Both,
}

/// Pictures read from folders.
#[derive(Debug, Clone, PartialEq)]
pub struct Images {
    /// Samples to train on: pictures u8 (n, h, w, c), labels u32 (n), the index of the class.
    pub train: Dataset,
    /// Samples to validate on; empty without a validation split.
    pub validation: Dataset,
    /// The files of `train`, in its order.
    pub train_files: Vec<PathBuf>,
    /// The files of `validation`, in its order.
    pub validation_files: Vec<PathBuf>,
    /// The pictures that were left out, each with its file and the reason.
    pub skipped: Vec<FormatError>,
    /// The pictures that were read although their files are damaged: JPEGs without their end marker.
    pub damaged: Vec<FormatError>,
}

/// Reads pictures from folders, one folder for each class, as Keras's `image_dataset_from_directory` does.
///
/// Classes are the sub-folders, sorted by name; a class's samples are all PNG and JPEG files below its folder, sorted.
/// Names that start with a dot are ignored, and so are files that are no pictures. A picture that cannot be used (it is
/// damaged or over the limits of [`crate::io::image`], of another kind, in no class's folder, or behind a link that
/// leads to a folder or out of this one) is left out and stands in [`Images::skipped`].
///
/// Values are 0 to 255, as in Keras: begin the network with `Rescaling`, or set [`Dataset::scale`]. They differ from
/// Keras's in being rounded to bytes, in what is transparent becoming white, and in the order that a seed gives.
/// EXIF's orientation is not applied, as in Keras.
///
/// ```
/// use hubel::{data::{ColorMode, ImageFolder}, io::image, prelude::*};
///
/// let folder = tempfile::tempdir().expect("a folder");
/// for (class, value) in [("cat", 40), ("dog", 200)] {
///     std::fs::create_dir(folder.path().join(class)).expect("a folder");
///     for i in 0..5 {
///         let picture = image::to_rgb(&HostTensor::u8([9, 12, 1], vec![value + i; 108])?)?;
///         image::save(&picture, folder.path().join(format!("{class}/{i}.png")))?;
///     }
/// }
///
/// let images = ImageFolder::new(folder.path())
///     .image_size([8, 8])
///     .color_mode(ColorMode::Rgb)
///     .validation_split(0.2)
///     .seed(1)
///     .load()?;
/// assert_eq!(images.train.classes, ["cat", "dog"]);
/// assert_eq!(images.train.images.shape(), [8, 8, 8, 3]);
/// assert_eq!((images.validation.len(), images.skipped.len()), (2, 0));
/// # Ok::<(), hubel::Error>(())
/// ```
pub struct ImageFolder<'a> {
    path: PathBuf,
    image_size: [usize; 2],
    color_mode: ColorMode,
    fit: Fit,
    shuffle: bool,
    seed: Option<u64>,
    validation_split: f64,
    subset: Subset,
    cap_bytes: u64,
    stream: bool,
    class_names: Option<Vec<String>>,
    follow_links: bool,
    progress: Box<dyn FnMut(usize, usize) + Send + 'a>,
}

impl<'a> ImageFolder<'a> {
    /// Returns a reader of the folder that holds the classes' folders: whole pictures of 256×256 in colour, shuffled.
    pub fn new(path: impl AsRef<Path>) -> Self {
        ImageFolder {
            path: path.as_ref().into(),
            image_size: [256, 256],
            color_mode: ColorMode::Rgb,
            fit: Fit::Squeeze,
            shuffle: true,
            seed: None,
            validation_split: 0.0,
            subset: Subset::Both,
            cap_bytes: DATASET_CAP_BYTES,
            stream: false,
            class_names: None,
            follow_links: false,
            progress: Box::new(|_, _| ()),
        }
    }

    /// Returns the reader with the height and width that pictures are resized to: bilinear, without smoothing.
    pub fn image_size(mut self, size: [usize; 2]) -> Self {
        self.image_size = size;
        self
    }

    /// Returns the reader with the channels that pictures get.
    pub fn color_mode(mut self, mode: ColorMode) -> Self {
        self.color_mode = mode;
        self
    }

    /// Returns the reader that keeps, where `crop`, the largest middle part of the wanted aspect instead of squeezing
    /// the whole picture.
    pub fn crop_to_aspect_ratio(mut self, crop: bool) -> Self {
        self.fit = if crop { Fit::Crop } else { Fit::Squeeze };
        self
    }

    /// Returns the reader that keeps the whole picture, with bands of this value where its aspect is not the wanted one.
    pub fn pad_to_aspect_ratio(mut self, fill_value: u8) -> Self {
        self.fit = Fit::Pad(fill_value);
        self
    }

    /// Returns the reader that shuffles the samples or leaves them sorted by class and name; a validation split of
    /// sorted samples has the last classes only.
    pub fn shuffle(mut self, shuffle: bool) -> Self {
        self.shuffle = shuffle;
        self
    }

    /// Returns the reader with the seed of the order; 0 where none is given.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Returns the reader that keeps the last `share` of the samples, as they are shuffled, for validation. Shuffled
    /// samples then need a seed, so that parts which are read one by one share none.
    pub fn validation_split(mut self, share: f64) -> Self {
        self.validation_split = share;
        self
    }

    /// Returns the reader of these parts of a split.
    pub fn subset(mut self, subset: Subset) -> Self {
        self.subset = subset;
        self
    }

    /// Returns the reader that takes at most so many bytes for all resized pictures ([`DATASET_CAP_BYTES`] by default).
    pub fn cap_bytes(mut self, cap_bytes: u64) -> Self {
        self.cap_bytes = cap_bytes;
        self
    }

    /// Returns the reader whose pictures are decoded, on all processors, when a training step takes them, while the device
    /// computes the step before it: for more pictures than fit in memory. [`ImageFolder::load`] then looks at each
    /// picture once, to leave out those that cannot be used.
    pub fn stream(mut self, stream: bool) -> Self {
        self.stream = stream;
        self
    }

    /// Returns the reader whose classes have this order instead of the alphabet's. There must be a folder of each name, and
    /// no other (Keras `class_names`).
    pub fn class_names(mut self, names: &[impl AsRef<str>]) -> Self {
        self.class_names = Some(names.iter().map(|name| name.as_ref().to_owned()).collect());
        self
    }

    /// Returns the reader that follows links to folders, and links out of the folder, or leaves out what lies behind them
    /// (Keras `follow_links`); it does not by default. A folder that links lead to twice is read once.
    pub fn follow_links(mut self, follow: bool) -> Self {
        self.follow_links = follow;
        self
    }

    /// Returns the reader that tells how many pictures are done, of how many; called from the threads that decode, one
    /// call at a time, with rising numbers.
    pub fn progress(mut self, progress: impl FnMut(usize, usize) + Send + 'a) -> Self {
        self.progress = Box::new(progress);
        self
    }

    /// Returns the pictures, decoded on all processors, or an error where an option is out of range, the folder is
    /// missing or has no classes, a class has no picture or none that can be read, or all together exceed the cap.
    pub fn load(self) -> Result<Images, FormatError> {
        self.check()?;
        let Listing { mut classes, mut samples, mut skipped } = list(&self.path, self.follow_links)?;
        if let Some(names) = &self.class_names {
            let places = places(&classes, names).map_err(|e| e.of(&self.path))?;
            samples.iter_mut().for_each(|(_, class)| *class = places[*class as usize]);
            samples.sort_by_key(|(_, class)| *class);
            classes.clone_from(names);
        }
        if self.shuffle {
            // A stream of its own: training shuffles by epoch, maybe with the same seed.
            let mut rng = Philox::new(self.seed.unwrap_or(0), Purpose::Shuffle, u32::MAX);
            samples = rng.permutation(samples.len()).iter().map(|&i| samples[i as usize].clone()).collect();
        }
        let held_out = (self.validation_split * samples.len() as f64) as usize;
        if self.validation_split > 0.0 && held_out == 0 {
            let got = format!("{} of {} pictures, which is none", self.validation_split, samples.len());
            return Err(FormatError::new(Flaw::Empty, "the validation split", "at least one picture", got)
                .of(&self.path)
                .advise("raise validation_split or add pictures"));
        }
        let (train, validation) = samples.split_at(samples.len() - held_out);
        let (train, validation) = match self.subset {
            Subset::Training => (train, &[][..]),
            Subset::Validation => (&[][..], validation),
            Subset::Both => (train, validation),
        };
        let ([h, w], c, total) = (self.image_size, self.color_mode.channels(), train.len() + validation.len());
        let kept = if self.stream { 0 } else { total };
        checked_bytes("all pictures together", &[kept, h, w, c].map(|d| d as u64), 1, self.cap_bytes).map_err(|e| {
            let fits = (self.cap_bytes as f64 / (total * c) as f64 / (h * w) as f64).sqrt();
            let [h, w] = [h, w].map(|d| ((d as f64 * fits) as usize).max(1));
            e.of(&self.path).advise(format!("a smaller image_size fits, [{h}, {w}] for one, or raise cap_bytes"))
        })?;
        let resizer = Resizer { size: self.image_size, mode: self.color_mode, fit: self.fit };
        let progress = Mutex::new((0, self.progress));
        let tell = || {
            let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
            progress.0 += 1;
            let done = progress.0;
            (progress.1)(done, total);
        };
        let (mut failed, mut damaged) = (Vec::new(), Vec::new());
        let mut part = |samples: &[Sample]| {
            self::part(&resizer, samples, &classes, self.stream, &tell, [&mut failed, &mut damaged])
        };
        let (train, train_files) = part(train)?;
        let (validation, validation_files) = part(validation)?;
        let mut readable = vec![false; classes.len()];
        for part in [&train, &validation] {
            if let Data::U32(labels) = part.labels.data() {
                labels.iter().for_each(|&class| readable[class as usize] = true);
            }
        }
        if let Some((class, first)) = failed.iter().find(|(class, _)| !readable[*class as usize]) {
            let name = &classes[*class as usize];
            let got = format!("{} that cannot; the first: {first}", failed.iter().filter(|f| f.0 == *class).count());
            return Err(FormatError::new(
                Flaw::Picture,
                format!("the class folder `{name}`"),
                "pictures that can be read",
                got,
            )
            .of(&self.path.join(name))
            .advise("replace them, or remove the folder"));
        }
        skipped.extend(failed.into_iter().map(|(_, e)| e));
        let damaged = damaged.into_iter().map(|(_, e)| e).collect();
        Ok(Images { train, validation, train_files, validation_files, skipped, damaged })
    }

    fn check(&self) -> Result<(), FormatError> {
        let wrong = |what: &str, wanted: &str, got: &dyn Display| {
            Err(FormatError::new(Flaw::Contradiction, what, wanted, got).of(&self.path))
        };
        let (size, share) = (self.image_size, self.validation_split);
        if size.iter().any(|&d| !(1..=MAX_SIDE as usize).contains(&d)) {
            return wrong("image_size", &format!("1 to {MAX_SIDE} pixels each"), &format!("{size:?}"));
        }
        if !(0.0..1.0).contains(&share) {
            return wrong("validation_split", "a share from 0 to below 1", &share);
        }
        if share == 0.0 && self.subset != Subset::Both {
            return wrong("validation_split", "a share above 0, since a subset is asked for", &share);
        }
        if share > 0.0 && self.shuffle && self.seed.is_none() {
            return wrong("seed", "one, since shuffled samples are split", &"none");
        }
        Ok(())
    }
}

/// Returns the place of each folder's name among these, or an error that tells the first that is not in both.
fn places(folders: &[String], names: &[String]) -> Result<Vec<u32>, FormatError> {
    let differ = |got: String| {
        let wanted = format!("one for each class's folder: {}", folders.join(", "));
        Err(FormatError::new(Flaw::Contradiction, "class_names", wanted, got))
    };
    if let Some((i, name)) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
        return differ(format!("`{name}` twice, at {i} again"));
    }
    if let Some(name) = names.iter().find(|name| !folders.contains(name)) {
        return differ(format!("`{name}`, which has no folder"));
    }
    let place = |folder: &String| names.iter().position(|name| name == folder).map(|place| place as u32);
    match folders.iter().find(|folder| place(folder).is_none()) {
        Some(folder) => differ(format!("no `{folder}`")),
        None => Ok(folders.iter().filter_map(place).collect()),
    }
}

/// A file and its class.
type Sample = (PathBuf, u32);

struct Listing {
    classes: Vec<String>,
    samples: Vec<Sample>,
    skipped: Vec<FormatError>,
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> FormatError {
    move |e| FormatError::io(path, "a readable folder", &e)
}

fn skip(path: &Path, wanted: &str, got: impl Display) -> FormatError {
    FormatError::new(Flaw::Picture, "the picture", wanted, got).of(path)
}

/// Returns what is in a folder, sorted, without hidden entries.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, FormatError> {
    let all = fs::read_dir(folder).map_err(unreadable(folder))?.collect::<Result<Vec<_>, _>>();
    let all = all.map_err(unreadable(folder))?.into_iter();
    let mut paths: Vec<_> =
        all.filter(|e| !e.file_name().as_encoded_bytes().starts_with(b".")).map(|e| e.path()).collect();
    paths.sort_unstable();
    Ok(paths)
}

fn list(root: &Path, follow: bool) -> Result<Listing, FormatError> {
    let real = fs::canonicalize(root)
        .map_err(|e| FormatError::io(root, "a folder with one folder of pictures for each class", &e))?;
    let mut listing = Listing { classes: Vec::new(), samples: Vec::new(), skipped: Vec::new() };
    for path in entries(root)? {
        let is_link = path.is_symlink() && !follow;
        if is_link || !path.is_dir() {
            if is_link && path.is_dir() {
                listing.skipped.push(skip(&path, "a folder", "a link to one"));
            } else if has_extension(&path, &[&READ[..], &OTHER].concat()) {
                listing.skipped.push(skip(&path, "pictures in a class's folder only", "one in no class's folder"));
            }
            continue;
        }
        let name = path.file_name().unwrap_or_default();
        let (Some(name), class) = (name.to_str(), listing.classes.len() as u32) else {
            let got = format!("{name:?}");
            return Err(FormatError::new(Flaw::Utf8, "a class folder's name", "UTF-8", got)
                .of(&path)
                .advise("rename the folder: the class has its name"));
        };
        let before = listing.skipped.len();
        let mut files = pictures(&path, (!follow).then_some(&real), &mut listing.skipped)?;
        if files.is_empty() {
            let got = match &listing.skipped[before..] {
                [] => "none".into(),
                [first, ..] => format!("none that can be read; the first: {first}"),
            };
            let what = format!("the class folder `{name}`");
            return Err(FormatError::new(Flaw::Empty, what, "at least one PNG or JPEG picture", got)
                .of(&path)
                .advise("add pictures or remove the folder"));
        }
        files.sort_by(|a, b| (a.parent(), a.file_name()).cmp(&(b.parent(), b.file_name())));
        listing.samples.extend(files.into_iter().map(|f| (f, class)));
        listing.classes.push(name.into());
    }
    if listing.classes.is_empty() {
        let got = match listing.skipped.len() {
            0 => "none".into(),
            n => format!("none, but {n} pictures or links beside"),
        };
        let advice = "make a folder for each class, named as the class, and put its pictures there";
        return Err(FormatError::new(Flaw::Empty, "the folder", "a folder for each class", got)
            .of(root)
            .advise(advice));
    }
    Ok(listing)
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let extension = path.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase);
    extension.is_some_and(|e| extensions.contains(&e.as_str()))
}

/// Returns the pictures below a folder; `root` is what links must not lead out of, and without it they are followed.
fn pictures(
    folder: &Path,
    root: Option<&PathBuf>,
    skipped: &mut Vec<FormatError>,
) -> Result<Vec<PathBuf>, FormatError> {
    let (mut found, mut folders, mut met) = (Vec::new(), vec![folder.to_owned()], HashSet::new());
    while let Some(folder) = folders.pop() {
        // Links may lead in circles.
        if root.is_none() && !met.insert(fs::canonicalize(&folder).map_err(unreadable(&folder))?) {
            continue;
        }
        for path in entries(&folder)? {
            let is_link = root.is_some() && path.is_symlink();
            let leads_out = || !fs::canonicalize(&path).is_ok_and(|p| root.is_none_or(|root| p.starts_with(root)));
            match (path.is_dir(), is_link) {
                (true, false) => folders.push(path),
                (true, true) => skipped.push(skip(&path, "a folder", "a link to one")),
                _ if has_extension(&path, &OTHER) => skipped.push(skip(&path, "PNG or JPEG", "another kind of file")),
                _ if !has_extension(&path, &READ) => {}
                (_, true) if leads_out() => {
                    skipped.push(skip(&path, "a file in the data set's folder", "a link out of it or to nothing"));
                }
                _ if path.is_file() => found.push(path),
                _ => skipped.push(skip(&path, "a file", "something else")),
            }
        }
    }
    Ok(found)
}

/// Returns the samples that can be read, and their files; `stream` leaves the pixels in their files.
fn part(
    resizer: &Resizer,
    samples: &[Sample],
    classes: &[String],
    stream: bool,
    tell: &(impl Fn() + Sync),
    [failed, damaged]: [&mut Vec<(u32, FormatError)>; 2],
) -> Result<(Dataset, Vec<PathBuf>), FormatError> {
    let ([h, w], c, picture) = (resizer.size, resizer.mode.channels(), resizer.bytes());
    let mut bytes = vec![0; if stream { 0 } else { samples.len() * picture }];
    let told = |result| {
        tell();
        result
    };
    let results: Vec<_> = if stream {
        let look = |(path, _): &Sample| told(resizer.read(path, &mut vec![0; picture]));
        samples.par_iter().map(look).collect()
    } else {
        let all = bytes.par_chunks_exact_mut(picture).zip(samples);
        all.map(|(out, (path, _))| told(resizer.read(path, out))).collect()
    };
    let (mut files, mut labels) = (Vec::new(), Vec::new());
    for (i, ((path, class), result)) in samples.iter().zip(results).enumerate() {
        match result {
            Ok(damage) => {
                damaged.extend(damage.map(|e| (*class, e)));
                if !stream {
                    bytes.copy_within(i * picture..(i + 1) * picture, files.len() * picture);
                }
                files.push(path.clone());
                labels.push(*class);
            }
            Err(e) => failed.push((*class, e)),
        }
    }
    let n = files.len();
    let rows = if stream { 0 } else { n };
    bytes.truncate(rows * picture);
    let contradiction = |e| FormatError::new(Flaw::Contradiction, "the pictures", "pixels as their shape says", e);
    let images = HostTensor::u8([rows, h, w, c], bytes).map_err(contradiction)?;
    let labels = HostTensor::u32([n], labels).map_err(contradiction)?;
    let of_files = stream.then(|| Files { paths: files.clone().into(), resizer: *resizer });
    let data = Dataset { classes: classes.to_vec(), files: of_files, ..Dataset::of(images, labels) };
    Ok((data, files))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::image::{ExtendedColorType as Colour, ImageFormat, write_buffer_with_format};
    use std::io::Cursor;
    use tempfile::TempDir;

    fn encode(pixels: &[u8], [h, w]: [u32; 2], colour: Colour, format: ImageFormat) -> Vec<u8> {
        let mut out = Vec::new();
        write_buffer_with_format(&mut Cursor::new(&mut out), pixels, w, h, colour, format).unwrap();
        out
    }

    fn grey(value: u8) -> Vec<u8> {
        encode(&[value; 6], [2, 3], Colour::L8, ImageFormat::Png)
    }

    fn put(root: &TempDir, name: &str, bytes: &[u8]) {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Returns a folder with two classes, `b` of 0 to 9 and `a c` of 100 to 109.
    fn two() -> TempDir {
        let root = tempfile::tempdir().unwrap();
        for i in 0..10 {
            put(&root, &format!("b/{i}.png"), &grey(i));
            put(&root, &format!("a c/{i}.PNG"), &grey(100 + i));
        }
        root
    }

    fn reader(root: &TempDir) -> ImageFolder<'static> {
        ImageFolder::new(root.path()).image_size([1, 1]).color_mode(ColorMode::Grayscale)
    }

    fn names(images: &Images) -> Vec<String> {
        images.skipped.iter().map(|e| e.file.as_ref().unwrap().file_name().unwrap().display().to_string()).collect()
    }

    #[test]
    fn class_names_fix_the_order_and_must_be_those_of_the_folders() {
        let root = two();
        let images = reader(&root).class_names(&["b", "a c"]).shuffle(false).load().unwrap();
        assert_eq!(images.train.classes, ["b", "a c"]);
        let labels = images.train.labels.to_f32();
        assert!(labels[..10].iter().all(|l| *l == 0.0) && labels[10..].iter().all(|l| *l == 1.0));
        assert_eq!(images.train.rows(&[0, 10]).unwrap().to_f32(), [0.0, 100.0]);
        for (names, word) in [
            (&["b"][..], "no `a c`"),
            (&["b", "a c", "d"], "`d`, which has no folder"),
            (&["b", "b", "a c"], "`b` twice"),
        ] {
            let error = reader(&root).class_names(names).load().unwrap_err().to_string();
            assert!(error.contains(word) && error.contains("class_names"), "{error}");
        }
    }

    #[test]
    fn a_jpeg_without_its_end_is_read_and_an_empty_file_is_called_empty() {
        let root = two();
        let jpeg = encode(&[9; 8 * 8 * 3], [8, 8], Colour::Rgb8, ImageFormat::Jpeg);
        put(&root, "b/cut.jpg", &jpeg[..jpeg.len() - 2]);
        put(&root, "b/none.png", b"");
        for stream in [false, true] {
            let images = reader(&root).stream(stream).load().unwrap();
            assert_eq!((images.train.len(), names(&images)), (21, vec!["none.png".to_owned()]));
            assert_eq!(images.skipped[0].flaw, Flaw::Empty);
            let [damage] = &images.damaged[..] else { panic!("{:?}", images.damaged) };
            assert!(damage.flaw == Flaw::Truncated && damage.file.as_ref().unwrap().ends_with("b/cut.jpg"), "{damage}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_where_that_is_asked_for() {
        use std::os::unix::fs::symlink;
        let (root, other) = (two(), tempfile::tempdir().unwrap());
        put(&other, "far/1.png", &grey(7));
        symlink(other.path().join("far"), root.path().join("c")).unwrap();
        symlink(other.path().join("far"), root.path().join("b/more")).unwrap();
        symlink(other.path().join("far/1.png"), root.path().join("b/one.png")).unwrap();
        symlink(root.path().join("b"), root.path().join("b/circle")).unwrap();
        symlink("nowhere", root.path().join("b/lost.png")).unwrap();
        let kept = reader(&root).load().unwrap();
        assert_eq!((kept.train.len(), names(&kept).len()), (20, 5));
        let followed = reader(&root).follow_links(true).load().unwrap();
        assert_eq!(followed.train.classes, ["a c", "b", "c"]);
        assert_eq!((followed.train.len(), names(&followed)), (23, vec!["lost.png".to_owned()]));
    }

    #[cfg(unix)]
    #[test]
    fn a_class_whose_name_is_no_utf_8_is_refused() {
        use std::os::unix::ffi::OsStrExt;
        let root = two();
        fs::create_dir(root.path().join(OsStr::from_bytes(b"caf\xe9"))).unwrap();
        assert_eq!(reader(&root).load().unwrap_err().flaw, Flaw::Utf8);
    }

    #[test]
    fn streamed_pictures_are_those_that_are_loaded() {
        let root = two();
        put(&root, "b/broken.png", b"no picture");
        let read = |stream| reader(&root).seed(2).validation_split(0.25).stream(stream).load().unwrap();
        let (loaded, streamed) = (read(false), read(true));
        assert_eq!((names(&streamed), &streamed.train_files), (names(&loaded), &loaded.train_files));
        for (a, b) in [(&streamed.train, &loaded.train), (&streamed.validation, &loaded.validation)] {
            assert_eq!((a.images.shape(), a.len(), &a.labels), (&[0, 1, 1, 1][..], b.len(), &b.labels));
            let all: Vec<u32> = (0..a.len() as u32).rev().collect();
            assert_eq!(a.select(&all).unwrap(), b.select(&all).unwrap());
            let second = |d: &Dataset| d.split(0.5).unwrap().1.rows(&[0]).unwrap();
            assert_eq!(second(a), second(b));
            assert!(a.rows(&[a.len() as u32]).is_err());
        }
        // The cap is for what is in memory, and a file that is gone is named.
        let streamed = reader(&root).stream(true).cap_bytes(1).load().unwrap().train;
        fs::remove_dir_all(root.path().join("b")).unwrap();
        let e = streamed.rows(&(0..streamed.len() as u32).collect::<Vec<_>>()).unwrap_err();
        assert!(e.file.unwrap().starts_with(root.path().join("b")));
    }

    #[test]
    fn labels_follow_sorted_folders_and_files_their_samples() {
        let root = two();
        put(&root, "b/deeper/x.png", &grey(10));
        let sorted = reader(&root).shuffle(false).load().unwrap();
        assert_eq!(sorted.train.classes, ["a c", "b"]);
        assert_eq!(sorted.train.labels, HostTensor::u32([21], [vec![0; 10], vec![1; 11]].concat()).unwrap());
        assert_eq!(sorted.train.images.bytes(), (100..110).chain(0..11).collect::<Vec<u8>>());
        assert!(sorted.validation.is_empty() && sorted.skipped.is_empty());
        let mut calls = Vec::new();
        let shuffled = reader(&root).seed(3).progress(|done, all| calls.push((done, all))).load().unwrap();
        assert_eq!(calls, (1..=21).map(|i| (i, 21)).collect::<Vec<_>>());
        let value = |f: &PathBuf| ::image::open(f).unwrap().to_luma8().as_raw()[0];
        assert_ne!(shuffled.train.images, sorted.train.images);
        assert_eq!(shuffled.train.images.bytes(), shuffled.train_files.iter().map(value).collect::<Vec<_>>());
        let class = |v: &u8| if *v < 100 { 1.0 } else { 0.0 };
        assert_eq!(
            shuffled.train.labels.to_f32(),
            shuffled.train.images.bytes().iter().map(class).collect::<Vec<f32>>()
        );
    }

    #[test]
    fn bands_keep_the_aspect_of_a_whole_picture() {
        let root = tempfile::tempdir().unwrap();
        put(&root, "a/wide.png", &encode(&[1, 2, 3, 4, 5, 6, 7, 8], [2, 4], Colour::L8, ImageFormat::Png));
        put(&root, "b/high.png", &encode(&[1, 2, 3, 4, 5, 6, 7, 8], [4, 2], Colour::L8, ImageFormat::Png));
        let images = reader(&root).image_size([4, 4]).pad_to_aspect_ratio(9).shuffle(false).load().unwrap();
        let [wide, high] =
            [[9, 9, 9, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9], [9, 1, 2, 9, 9, 3, 4, 9, 9, 5, 6, 9, 9, 7, 8, 9]];
        assert_eq!(images.train.images.bytes(), [wide, high].concat());
    }

    #[test]
    fn parts_are_disjoint_and_a_seed_gives_the_same_ones() {
        let root = two();
        let read = |seed| reader(&root).validation_split(0.29).seed(seed);
        let both = read(1).load().unwrap();
        assert_eq!((both.train.len(), both.validation.len()), (15, 5));
        let mut all = [both.train.images.bytes(), both.validation.images.bytes()].concat();
        assert_eq!(all, reader(&root).seed(1).load().unwrap().train.images.bytes());
        all.sort_unstable();
        assert_eq!(all, (0..10).chain(100..110).collect::<Vec<u8>>());
        assert_eq!(read(1).load().unwrap(), both);
        assert_ne!(read(2).load().unwrap().validation_files, both.validation_files);
        let training = read(1).subset(Subset::Training).load().unwrap();
        let validation = read(1).subset(Subset::Validation).load().unwrap();
        assert_eq!((&training.train, training.validation.len()), (&both.train, 0));
        assert_eq!((&validation.validation, validation.train.len()), (&both.validation, 0));
        let sorted = reader(&root).shuffle(false).validation_split(0.25).load().unwrap();
        assert_eq!(sorted.validation.images.bytes(), [5, 6, 7, 8, 9]);
    }

    #[test]
    fn channels_and_transparency_have_exact_numbers() {
        let root = tempfile::tempdir().unwrap();
        let rgba = [10, 20, 30, 0, 10, 20, 30, 255, 200, 0, 100, 51];
        put(&root, "a/1.png", &encode(&rgba, [1, 3], Colour::Rgba8, ImageFormat::Png));
        put(&root, "a/2.png", &encode(&[7, 8, 9], [1, 3], Colour::L8, ImageFormat::Png));
        put(&root, "a/3.png", &encode(&[7, 51, 9, 255, 0, 0], [1, 3], Colour::La8, ImageFormat::Png));
        let read = |mode| {
            let images = ImageFolder::new(root.path()).image_size([1, 3]).shuffle(false).color_mode(mode).load();
            images.unwrap().train.images
        };
        let rgb = read(ColorMode::Rgb);
        assert_eq!(rgb.shape(), [3, 1, 3, 3]);
        // 244 is 200 · 51/255 + 255 · 204/255.
        assert_eq!(rgb.bytes()[..9], [255, 255, 255, 10, 20, 30, 244, 204, 224]);
        assert_eq!(rgb.bytes()[9..18], [7, 7, 7, 8, 8, 8, 9, 9, 9]);
        assert_eq!(rgb.bytes()[18..], [205, 205, 205, 9, 9, 9, 255, 255, 255]);
        // 18.15 is .299 · 10 + .587 · 20 + .114 · 30; 218.24 likewise.
        assert_eq!(read(ColorMode::Grayscale).bytes(), [255, 18, 218, 7, 8, 9, 205, 9, 255]);
        let stored = [&rgba[..], &[7, 7, 7, 255, 8, 8, 8, 255, 9, 9, 9, 255, 7, 7, 7, 51, 9, 9, 9, 255, 0, 0, 0, 0]];
        assert_eq!(read(ColorMode::Rgba).bytes(), stored.concat());
    }

    #[test]
    fn sizes_change_as_in_tensorflow() {
        let root = tempfile::tempdir().unwrap();
        let ramp: Vec<u8> = (0..12).map(|i| i * 20).collect();
        put(&root, "a/1.png", &encode(&ramp, [2, 6], Colour::L8, ImageFormat::Png));
        let read = |size, crop| {
            let images = reader(&root).image_size(size).crop_to_aspect_ratio(crop).load().unwrap();
            images.train.images.bytes().to_vec()
        };
        assert_eq!(read([2, 6], false), ramp);
        assert_eq!(read([2, 6], true), ramp);
        // A third's middle is a pixel of its own; smoothing would mix its neighbours in.
        assert_eq!(read([1, 2], false), [80, 140]);
        assert_eq!(read([1, 3], false), [70, 110, 150]);
        assert_eq!(read([4, 2], false), [20, 80, 50, 110, 110, 170, 140, 200]);
        assert_eq!(read([2, 2], true), [40, 60, 160, 180]);
        assert_eq!(read([1, 1], true), [110]);
        assert_eq!(read([3, 1], true), [40, 100, 160]);
        // What Keras 3.15 reads, rounded.
        let noise: Vec<u8> = (0..5 * 7 * 3).map(|i: u32| (i * i % 251) as u8).collect();
        put(&root, "a/1.png", &encode(&noise, [5, 7], Colour::Rgb8, ImageFormat::Png));
        let squeezed = [
            51, 68, 35, 100, 55, 74, 122, 160, 190, 95, 81, 132, 11, 98, 187, 51, 149, 217, 147, 36, 115, 143, 167,
            131, 75, 180, 141, 127, 190, 140, 151, 79, 113, 65, 149, 89,
        ];
        let cropped = [
            55, 72, 27, 82, 45, 73, 108, 143, 117, 154, 72, 117, 10, 96, 185, 38, 134, 231, 107, 149, 67, 217, 79, 195,
            79, 173, 143, 109, 211, 128, 137, 61, 195, 60, 180, 136,
        ];
        for (crop, expected) in [(false, squeezed), (true, cropped)] {
            let reader = ImageFolder::new(root.path()).image_size([3, 4]).crop_to_aspect_ratio(crop);
            assert_eq!(reader.load().unwrap().train.images.bytes(), expected, "{crop}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_skipped_by_name() {
        let root = two();
        let jpeg = encode(&[90; 16 * 16], [16, 16], Colour::L8, ImageFormat::Jpeg);
        put(&root, "b/good.jpeg", &jpeg);
        put(&root, "b/cut.jpg", &jpeg[..jpeg.len() - 3]);
        put(&root, "b/empty.png", b"");
        put(&root, "b/no.png", b"<html>");
        put(&root, "b/of another kind.gif", b"GIF89a");
        put(&root, "b/notes.txt", b"ignored");
        put(&root, "b/.hidden.png", b"ignored");
        put(&root, ".git/x.png", b"ignored");
        put(&root, "a.png", &grey(1));
        fs::create_dir(root.path().join("b/a folder.png")).unwrap();
        let mut expected = vec!["a.png", "of another kind.gif", "cut.jpg", "empty.png", "no.png"];
        let outside = tempfile::tempdir().unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::symlink;
            put(&outside, "secret.png", &grey(77));
            let link = |to: &Path, name: &str| symlink(to, root.path().join(name)).unwrap();
            link(&outside.path().join("secret.png"), "b/out.png");
            link(outside.path(), "b/outside");
            link(root.path(), "b/round");
            link(outside.path(), "class");
            link(Path::new("nothing"), "b/dangling.png");
            link(Path::new("good.jpeg"), "b/inside.jpg");
            let read = reader(&root).shuffle(false).load().unwrap();
            assert_eq!(read.train.len(), 22);
            expected.splice(1..1, ["dangling.png"]);
            expected.splice(3..3, ["out.png", "outside", "round", "class"]);
            assert_eq!(names(&read), expected);
            fs::remove_file(root.path().join("b/inside.jpg")).unwrap();
        }
        let read = reader(&root).shuffle(false).load().unwrap();
        assert_eq!((read.train.len(), names(&read)), (21, expected.iter().map(|s| s.to_string()).collect()));
        assert_eq!(read.train.images.bytes()[10..], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 90]);
        let said = read.skipped.iter().map(|e| e.to_string()).find(|e| e.contains("cut.jpg")).unwrap();
        assert!(said.contains("end marker") && said.contains("the file's end"), "{said}");
    }

    #[test]
    fn mistakes_have_errors_that_name_them() {
        let root = two();
        let error = |folder: ImageFolder| folder.load().unwrap_err();
        assert_eq!(error(ImageFolder::new(root.path().join("none"))).flaw, Flaw::Missing);
        let e = error(ImageFolder::new(root.path().join("b")));
        assert!(e.flaw == Flaw::Empty && e.to_string().contains("a folder for each class"), "{e}");
        assert_eq!(error(ImageFolder::new(root.path().join("b/1.png"))).flaw, Flaw::Io);
        for wrong in [
            reader(&root).image_size([0, 4]),
            reader(&root).image_size([4, 8193]),
            reader(&root).validation_split(1.0).seed(1),
            reader(&root).validation_split(f64::NAN).seed(1),
            reader(&root).validation_split(0.5),
            reader(&root).subset(Subset::Training),
        ] {
            assert_eq!(error(wrong).flaw, Flaw::Contradiction);
        }
        assert_eq!(error(reader(&root).validation_split(0.04).seed(1)).flaw, Flaw::Empty);
        let e = error(reader(&root).image_size([10, 20]).cap_bytes(1000));
        assert!(e.flaw == Flaw::TooLarge && e.to_string().contains("a smaller image_size fits, [5, 10]"), "{e}");
        assert!(reader(&root).image_size([5, 10]).cap_bytes(1000).load().is_ok());
        put(&root, "nobody/readme.txt", b"");
        let e = error(reader(&root));
        assert!(e.flaw == Flaw::Empty && e.to_string().contains("`nobody`"), "{e}");
        put(&root, "nobody/1.png", b"damaged");
        put(&root, "nobody/2.png", &grey(1)[..40]);
        let e = error(reader(&root));
        assert!(
            e.flaw == Flaw::Picture && e.to_string().contains("`nobody`") && e.to_string().contains("got 2"),
            "{e}"
        );
        put(&root, "nobody/3.png", &grey(9));
        assert_eq!(reader(&root).load().unwrap().skipped.len(), 2);
    }

    #[test]
    fn damaged_pictures_never_panic() {
        let noise: Vec<u8> = (0..24 * 24 * 3).map(|i| (i * i % 251) as u8).collect();
        let mut rng = Philox::new(1, Purpose::Test, 0);
        for format in [ImageFormat::Jpeg, ImageFormat::Png] {
            let good = encode(&noise, [24, 24], Colour::Rgb8, format);
            let resizer = Resizer { size: [5, 7], mode: ColorMode::Rgb, fit: Fit::Crop };
            for _ in 0..2000 {
                let mut bad = good.clone();
                for _ in 0..1 + rng.below(4) {
                    // Most of what can go wrong is in the headers.
                    let end = if rng.below(2) == 0 { bad.len() } else { 200 };
                    let at = rng.below(end);
                    bad[at] = [0, 255, rng.below(256) as u8][rng.below(3)];
                }
                if let Ok((pixels, size, _)) = resizer.mode.decode(&bad) {
                    resizer.resize(&pixels, size, &mut [0; 5 * 7 * 3]);
                }
            }
        }
    }
}
