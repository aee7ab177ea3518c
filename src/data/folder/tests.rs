use super::*;
use ::image::{ExtendedColorType as Colour, ImageFormat, write_buffer_with_format};
use std::io::Cursor;
use temp_dir::TempDir;

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
    let root = temp_dir::TempDir::new().unwrap();
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
    for (names, word) in
        [(&["b"][..], "no `a c`"), (&["b", "a c", "d"], "`d`, which has no folder"), (&["b", "b", "a c"], "`b` twice")]
    {
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
    let (root, other) = (two(), temp_dir::TempDir::new().unwrap());
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
fn streamed_images_are_those_that_are_loaded() {
    let root = two();
    put(&root, "b/broken.png", b"no image");
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
    // The cap applies to memory, and a missing file is named.
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
    assert_eq!(shuffled.train.labels.to_f32(), shuffled.train.images.bytes().iter().map(class).collect::<Vec<f32>>());
}

#[test]
fn bands_keep_the_aspect_of_a_whole_image() {
    let root = temp_dir::TempDir::new().unwrap();
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
    let root = temp_dir::TempDir::new().unwrap();
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
    let root = temp_dir::TempDir::new().unwrap();
    let ramp: Vec<u8> = (0..12).map(|i| i * 20).collect();
    put(&root, "a/1.png", &encode(&ramp, [2, 6], Colour::L8, ImageFormat::Png));
    let read = |size, crop| {
        let images = reader(&root).image_size(size).crop_to_aspect_ratio(crop).load().unwrap();
        images.train.images.bytes().to_vec()
    };
    assert_eq!(read([2, 6], false), ramp);
    assert_eq!(read([2, 6], true), ramp);
    // The centre of each third is one pixel; antialiasing would mix in its neighbours.
    assert_eq!(read([1, 2], false), [80, 140]);
    assert_eq!(read([1, 3], false), [70, 110, 150]);
    assert_eq!(read([4, 2], false), [20, 80, 50, 110, 110, 170, 140, 200]);
    assert_eq!(read([2, 2], true), [40, 60, 160, 180]);
    assert_eq!(read([1, 1], true), [110]);
    assert_eq!(read([3, 1], true), [40, 100, 160]);
    // The values that Keras 3.15 reads, rounded.
    let noise: Vec<u8> = (0..5 * 7 * 3).map(|i: u32| (i * i % 251) as u8).collect();
    put(&root, "a/1.png", &encode(&noise, [5, 7], Colour::Rgb8, ImageFormat::Png));
    let squeezed = [
        51, 68, 35, 100, 55, 74, 122, 160, 190, 95, 81, 132, 11, 98, 187, 51, 149, 217, 147, 36, 115, 143, 167, 131,
        75, 180, 141, 127, 190, 140, 151, 79, 113, 65, 149, 89,
    ];
    let cropped = [
        55, 72, 27, 82, 45, 73, 108, 143, 117, 154, 72, 117, 10, 96, 185, 38, 134, 231, 107, 149, 67, 217, 79, 195, 79,
        173, 143, 109, 211, 128, 137, 61, 195, 60, 180, 136,
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
    let outside = temp_dir::TempDir::new().unwrap();
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
    assert!(e.flaw == Flaw::Image && e.to_string().contains("`nobody`") && e.to_string().contains("got 2"), "{e}");
    put(&root, "nobody/3.png", &grey(9));
    assert_eq!(reader(&root).load().unwrap().skipped.len(), 2);
}

#[test]
fn damaged_images_never_panic() {
    let noise: Vec<u8> = (0..24 * 24 * 3).map(|i| (i * i % 251) as u8).collect();
    let mut rng = Philox::new(1, Purpose::Test, 0);
    for format in [ImageFormat::Jpeg, ImageFormat::Png] {
        let good = encode(&noise, [24, 24], Colour::Rgb8, format);
        let resizer = Resizer { size: [5, 7], mode: ColorMode::Rgb, fit: Fit::Crop };
        for _ in 0..2000 {
            let mut bad = good.clone();
            for _ in 0..1 + rng.below(4) {
                // Most damage is in the headers.
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
