//! Images in folders, one folder for each class, as Keras's `image_dataset_from_directory` reads them.

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

/// The default of [`ImageFolder::cap_bytes`], the maximum bytes of a data set's images.
pub const DATASET_CAP_BYTES: u64 = 4 << 30;
const READ: [&str; 3] = ["png", "jpg", "jpeg"];
/// Images of unsupported formats, which are reported instead of ignored.
const OTHER: [&str; 9] = ["avif", "bmp", "gif", "heic", "heif", "jfif", "tif", "tiff", "webp"];

/// The subsets of a data set to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subset {
    /// The training split; the other stays empty.
    Training,
    /// The validation split; the other stays empty.
    Validation,
    /// Both.
    Both,
}

/// Images read from folders.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Images {
    /// Samples to train on: images u8 (n, h, w, c), labels u32 (n), the index of the class.
    pub train: Dataset,
    /// Samples to validate on; empty without a validation split.
    pub validation: Dataset,
    /// The files of `train`, in its order.
    pub train_files: Vec<PathBuf>,
    /// The files of `validation`, in its order.
    pub validation_files: Vec<PathBuf>,
    /// The images that were skipped, each with its file and the reason.
    pub skipped: Vec<FormatError>,
    /// The images that were read although their files are damaged: JPEGs without their end marker.
    pub damaged: Vec<FormatError>,
}

/// Reads images from folders, one folder for each class, as Keras's `image_dataset_from_directory` does.
///
/// Classes are the sub-folders, sorted by name; a class's samples are all PNG and JPEG files below its folder, sorted.
/// Names that start with a dot are ignored, as are files that are not images. An image that cannot be used (damaged,
/// over the limits of [`crate::io::image`], in another format, outside the classes' folders, or behind a link to a
/// folder or out of this one) is skipped and listed in [`Images::skipped`].
///
/// Values are 0 to 255, as in Keras: begin the network with `Rescaling`, or set [`Dataset::scale`]. Unlike Keras's,
/// they are rounded to bytes, transparent pixels become white, and a seed gives another order. EXIF's orientation is
/// not applied, as in Keras.
///
/// ```
/// use hubel::{data::{ColorMode, ImageFolder}, io::image, prelude::*};
///
/// let folder = temp_dir::TempDir::new().expect("a folder");
/// for (class, value) in [("cat", 40), ("dog", 200)] {
///     std::fs::create_dir(folder.path().join(class)).expect("a folder");
///     for i in 0..5 {
///         let image = image::to_rgb(&HostTensor::u8([9, 12, 1], vec![value + i; 108])?)?;
///         image::save(&image, folder.path().join(format!("{class}/{i}.png")))?;
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
    /// Returns a reader of the folder that contains the classes' folders. By default images are resized to 256×256, in
    /// colour, and shuffled.
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

    /// Sets the height and width that images are resized to, bilinearly without antialiasing; 256×256 by default.
    pub fn image_size(mut self, size: [usize; 2]) -> Self {
        self.image_size = size;
        self
    }

    /// Sets the channels of images; [`ColorMode::Rgb`] by default.
    pub fn color_mode(mut self, mode: ColorMode) -> Self {
        self.color_mode = mode;
        self
    }

    /// Crops images to the largest central part of the target aspect ratio, instead of stretching them; false by
    /// default.
    pub fn crop_to_aspect_ratio(mut self, crop: bool) -> Self {
        self.fit = if crop { Fit::Crop } else { Fit::Squeeze };
        self
    }

    /// Keeps the aspect ratio of images by adding bands of this value, instead of stretching them.
    pub fn pad_to_aspect_ratio(mut self, fill_value: u8) -> Self {
        self.fit = Fit::Pad(fill_value);
        self
    }

    /// Sets whether samples are shuffled, or sorted by class and name; true by default. A validation split of sorted
    /// samples has only the last classes.
    pub fn shuffle(mut self, shuffle: bool) -> Self {
        self.shuffle = shuffle;
        self
    }

    /// Sets the seed of the order; 0 by default.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Reserves the last `share` of the shuffled samples for validation; none by default. Shuffled samples then need a
    /// seed, so that subsets that are read separately do not overlap.
    pub fn validation_split(mut self, share: f64) -> Self {
        self.validation_split = share;
        self
    }

    /// Sets which subsets of a split are read; both by default.
    pub fn subset(mut self, subset: Subset) -> Self {
        self.subset = subset;
        self
    }

    /// Sets the maximum bytes of all resized images; [`DATASET_CAP_BYTES`] by default.
    pub fn cap_bytes(mut self, cap_bytes: u64) -> Self {
        self.cap_bytes = cap_bytes;
        self
    }

    /// Sets whether images are decoded on demand, on all processors, while the device computes the step before: for
    /// more images than fit in memory. [`ImageFolder::load`] then only checks each image, to skip those that cannot be
    /// used. False by default.
    pub fn stream(mut self, stream: bool) -> Self {
        self.stream = stream;
        self
    }

    /// Sets the order of classes (Keras `class_names`); alphabetical by default. There must be a folder for each name,
    /// and no other.
    pub fn class_names(mut self, names: &[impl AsRef<str>]) -> Self {
        self.class_names = Some(names.iter().map(|name| name.as_ref().to_owned()).collect());
        self
    }

    /// Sets whether links to folders, and links out of the folder, are followed (Keras `follow_links`); false by
    /// default. A folder that several links lead to is read once.
    pub fn follow_links(mut self, follow: bool) -> Self {
        self.follow_links = follow;
        self
    }

    /// Sets a callback for progress, which gets the number of images done and their total. It is called from the
    /// decoding threads, one call at a time, with increasing numbers.
    pub fn progress(mut self, progress: impl FnMut(usize, usize) + Send + 'a) -> Self {
        self.progress = Box::new(progress);
        self
    }

    /// Returns the images, decoded on all processors. It is an error if an option is out of range, if the folder is
    /// missing or has no classes, if a class has no readable image, or if all images together exceed the cap.
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
            // A separate random stream: training shuffles by epoch, perhaps with the same seed.
            let mut rng = Philox::new(self.seed.unwrap_or(0), Purpose::Shuffle, u32::MAX);
            samples = rng.permutation(samples.len()).iter().map(|&i| samples[i as usize].clone()).collect();
        }
        let held_out = (self.validation_split * samples.len() as f64) as usize;
        if self.validation_split > 0.0 && held_out == 0 {
            let got = format!("{} of {} images, which rounds to none", self.validation_split, samples.len());
            return Err(FormatError::new(Flaw::Empty, "the validation split", "at least one image", got)
                .of(&self.path)
                .advise("raise validation_split or add images"));
        }
        let (train, validation) = samples.split_at(samples.len() - held_out);
        let (train, validation) = match self.subset {
            Subset::Training => (train, &[][..]),
            Subset::Validation => (&[][..], validation),
            Subset::Both => (train, validation),
        };
        let ([h, w], c, total) = (self.image_size, self.color_mode.channels(), train.len() + validation.len());
        let kept = if self.stream { 0 } else { total };
        checked_bytes("all images together", &[kept, h, w, c].map(|d| d as u64), 1, self.cap_bytes).map_err(|e| {
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
            let got =
                format!("{} unreadable ones; the first: {first}", failed.iter().filter(|f| f.0 == *class).count());
            return Err(FormatError::new(Flaw::Image, format!("the class folder `{name}`"), "readable images", got)
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
            return wrong("validation_split", "a share above 0, since a subset is selected", &share);
        }
        if share > 0.0 && self.shuffle && self.seed.is_none() {
            return wrong("seed", "one, since shuffled samples are split", &"none");
        }
        Ok(())
    }
}

/// Returns the index of each folder's name among these, or an error with the first that is not in both.
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
    FormatError::new(Flaw::Image, "the image", wanted, got).of(path)
}

/// Returns a folder's entries, sorted, without hidden ones.
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
        .map_err(|e| FormatError::io(root, "a folder with one folder of images for each class", &e))?;
    let mut listing = Listing { classes: Vec::new(), samples: Vec::new(), skipped: Vec::new() };
    for path in entries(root)? {
        let is_link = path.is_symlink() && !follow;
        if is_link || !path.is_dir() {
            if is_link && path.is_dir() {
                listing.skipped.push(skip(&path, "a folder", "a link to one"));
            } else if has_extension(&path, &[&READ[..], &OTHER].concat()) {
                listing.skipped.push(skip(
                    &path,
                    "images only in a class's folder",
                    "one outside the classes' folders",
                ));
            }
            continue;
        }
        let name = path.file_name().unwrap_or_default();
        let (Some(name), class) = (name.to_str(), listing.classes.len() as u32) else {
            let got = format!("{name:?}");
            return Err(FormatError::new(Flaw::Utf8, "a class folder's name", "UTF-8", got)
                .of(&path)
                .advise("rename the folder, which names the class"));
        };
        let before = listing.skipped.len();
        let mut files = images(&path, (!follow).then_some(&real), &mut listing.skipped)?;
        if files.is_empty() {
            let got = match &listing.skipped[before..] {
                [] => "none".into(),
                [first, ..] => format!("no readable one; the first error: {first}"),
            };
            let what = format!("the class folder `{name}`");
            return Err(FormatError::new(Flaw::Empty, what, "at least one PNG or JPEG image", got)
                .of(&path)
                .advise("add images or remove the folder"));
        }
        files.sort_by(|a, b| (a.parent(), a.file_name()).cmp(&(b.parent(), b.file_name())));
        listing.samples.extend(files.into_iter().map(|f| (f, class)));
        listing.classes.push(name.into());
    }
    if listing.classes.is_empty() {
        let got = match listing.skipped.len() {
            0 => "none".into(),
            n => format!("none, but {n} images or links beside them"),
        };
        let advice = "create a folder for each class, with the class's name, and put its images there";
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

/// Returns the images below a folder. Links must not lead out of `root`; without it they are followed.
fn images(folder: &Path, root: Option<&PathBuf>, skipped: &mut Vec<FormatError>) -> Result<Vec<PathBuf>, FormatError> {
    let (mut found, mut folders, mut met) = (Vec::new(), vec![folder.to_owned()], HashSet::new());
    while let Some(folder) = folders.pop() {
        // Links may form cycles.
        if root.is_none() && !met.insert(fs::canonicalize(&folder).map_err(unreadable(&folder))?) {
            continue;
        }
        for path in entries(&folder)? {
            let is_link = root.is_some() && path.is_symlink();
            let leads_out = || !fs::canonicalize(&path).is_ok_and(|p| root.is_none_or(|root| p.starts_with(root)));
            match (path.is_dir(), is_link) {
                (true, false) => folders.push(path),
                (true, true) => skipped.push(skip(&path, "a folder", "a link to one")),
                _ if has_extension(&path, &OTHER) => {
                    skipped.push(skip(&path, "PNG or JPEG", "a file in another format"))
                }
                _ if !has_extension(&path, &READ) => {}
                (_, true) if leads_out() => {
                    skipped.push(skip(&path, "a file in the data set's folder", "a link out of it, or a broken one"));
                }
                _ if path.is_file() => found.push(path),
                _ => skipped.push(skip(&path, "a file", "something else")),
            }
        }
    }
    Ok(found)
}

/// Returns the readable samples and their files; `stream` leaves the pixels in the files.
fn part(
    resizer: &Resizer,
    samples: &[Sample],
    classes: &[String],
    stream: bool,
    tell: &(impl Fn() + Sync),
    [failed, damaged]: [&mut Vec<(u32, FormatError)>; 2],
) -> Result<(Dataset, Vec<PathBuf>), FormatError> {
    let ([h, w], c, image) = (resizer.size, resizer.mode.channels(), resizer.bytes());
    let mut bytes = vec![0; if stream { 0 } else { samples.len() * image }];
    let told = |result| {
        tell();
        result
    };
    let results: Vec<_> = if stream {
        let look = |(path, _): &Sample| told(resizer.read(path, &mut vec![0; image]));
        samples.par_iter().map(look).collect()
    } else {
        let all = bytes.par_chunks_exact_mut(image).zip(samples);
        all.map(|(out, (path, _))| told(resizer.read(path, out))).collect()
    };
    let (mut files, mut labels) = (Vec::new(), Vec::new());
    for (i, ((path, class), result)) in samples.iter().zip(results).enumerate() {
        match result {
            Ok(damage) => {
                damaged.extend(damage.map(|e| (*class, e)));
                if !stream {
                    bytes.copy_within(i * image..(i + 1) * image, files.len() * image);
                }
                files.push(path.clone());
                labels.push(*class);
            }
            Err(e) => failed.push((*class, e)),
        }
    }
    let n = files.len();
    let rows = if stream { 0 } else { n };
    bytes.truncate(rows * image);
    let contradiction = |e| FormatError::new(Flaw::Contradiction, "the images", "pixels as their shape says", e);
    let images = HostTensor::u8([rows, h, w, c], bytes).map_err(contradiction)?;
    let labels = HostTensor::u32([n], labels).map_err(contradiction)?;
    let of_files = stream.then(|| Files { paths: files.clone().into(), resizer: *resizer });
    let data = Dataset { classes: classes.to_vec(), files: of_files, ..Dataset::of(images, labels) };
    Ok((data, files))
}

#[cfg(test)]
mod tests;
