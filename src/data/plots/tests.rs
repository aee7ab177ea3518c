use super::*;
use crate::tensor::{Philox, Purpose};
use std::sync::OnceLock;

/// Writes an image to the folder in `HUBEL_IMAGES`, if set, for inspection.
fn keep(name: &str, image: &RgbImage) {
    if let Some(folder) = std::env::var_os("HUBEL_IMAGES") {
        crate::io::image::save(image, std::path::Path::new(&folder).join(name)).unwrap();
    }
    let first = image.get_pixel(0, 0);
    assert!(image.pixels().filter(|p| *p != first).count() > 500, "{name} is blank");
}

fn noise(rng: &mut Philox, shape: &[usize]) -> HostTensor {
    let n = shape.iter().product();
    HostTensor::f32(shape, (0..n).map(|_| rng.normal() as f32).collect()).unwrap()
}

fn digit(i: usize) -> HostTensor {
    static DIGITS: OnceLock<Option<HostTensor>> = OnceLock::new();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/mnist/t10k-images-idx3-ubyte.gz");
    match DIGITS.get_or_init(|| crate::io::idx::open(file).ok()) {
        Some(m) => m.rows(i, 1).unwrap().reshape([28, 28, 1]).unwrap(),
        None => HostTensor::u8([28, 28, 1], (0..784).map(|x| (x * (i + 7)) as u8).collect()).unwrap(),
    }
}

fn names(n: usize) -> Vec<String> {
    (0..n).map(|i| i.to_string()).collect()
}

#[test]
fn curves_of_many_one_and_no_epochs() {
    let mut rng = Philox::new(1, Purpose::Test, 1);
    let falling: Vec<f64> = (0..5).map(|i| 0.4 * 0.5f64.powi(i) + 0.02 * rng.unit()).collect();
    let history = [
        ("loss".to_string(), falling.clone()),
        ("accuracy".into(), falling.iter().map(|x| 1.0 - x / 4.0).collect()),
        ("val_loss".into(), falling.iter().map(|x| x * 0.8 + 0.02).collect()),
        ("val_accuracy".into(), falling.iter().map(|x| 1.0 - x / 5.0).collect()),
        ("learning_rate".into(), vec![1e-3; 5]),
    ];
    keep("curves.png", &curves(&history).unwrap());
    let one: Vec<_> = history.iter().map(|(n, v)| (n.clone(), v[..1].to_vec())).collect();
    keep("curves_one.png", &curves(&one).unwrap());
    let many = [("loss".to_string(), (0..120).map(|i| 2.3 / (1.0 + f64::from(i) / 9.0)).collect())];
    keep("curves_many.png", &curves(&many).unwrap());
    curves(&[("loss".to_string(), vec![f64::NAN])]).unwrap();
    curves(&[]).unwrap();
}

#[test]
fn confusion_matrices_small_and_large() {
    let mut rng = Philox::new(1, Purpose::Test, 2);
    let mut count = |i: usize, j: usize| if i == j { 950 + rng.below(60) } else { rng.below(9).saturating_sub(4) };
    let m: Vec<Vec<u64>> = (0..10).map(|i| (0..10).map(|j| count(i, j) as u64).collect()).collect();
    keep("confusion.png", &confusion(&m, &names(10)).unwrap());
    let animals = ["cat", "dog", "a very long class name"].map(String::from);
    keep("confusion_names.png", &confusion(&[vec![9, 1, 2], vec![0, 5, 5], vec![4, 4, 1]], &animals).unwrap());
    confusion(&vec![vec![1; 300]; 300], &names(300)).unwrap();
    assert!(confusion(&[vec![1, 2]], &names(1)).is_err() && confusion(&[], &[]).is_err());
}

#[test]
fn mistakes_and_predictions_show_the_image() {
    let mistake = |i: usize| (digit(i), i % 10, i * 3 % 10, 0.5 + i as f32 / 60.0);
    keep("mistakes.png", &mistakes(&(0..25).map(mistake).collect::<Vec<_>>(), &names(10)).unwrap());
    mistakes(&[], &[]).unwrap();
    let p = [0.001, 0.0, 0.02, 0.012, 0.0, 0.0, 0.0, 0.96, 0.002, 0.005];
    keep("prediction.png", &prediction(&digit(0), &names(10), &p).unwrap());
    assert!(prediction(&digit(0), &names(3), &p).is_err());
    assert!(prediction(&HostTensor::u8([4], vec![0; 4]).unwrap(), &names(10), &p).is_err());
}

#[test]
fn heat_lies_over_images_of_its_size_only() {
    let ramp = HostTensor::f32([1, 28, 28], (0..784).map(|i| i as f32).collect()).unwrap();
    keep("heats.png", &heats(&digit(0), &[("a ramp".into(), ramp.clone())]).unwrap());
    let black = HostTensor::u8([28, 28, 3], vec![0; 28 * 28 * 3]).unwrap();
    let lit = heat(&black, &ramp).unwrap();
    assert_eq!((lit.get_pixel(0, 0).0, lit.get_pixel(27, 27).0), ([34, 1, 42], [127, 116, 19]));
    let none = HostTensor::f32([28, 28], vec![0.0; 784]).unwrap();
    assert_eq!(heat(&black, &none).unwrap().get_pixel(27, 27).0, [34, 1, 42]);
    assert!(heat(&black, &HostTensor::f32([7, 7], vec![0.0; 49]).unwrap()).is_err());
}

#[test]
fn feature_maps_and_filters_of_any_layer() {
    let mut rng = Philox::new(1, Purpose::Test, 3);
    let mut layer = |name: &str, shape: &[usize]| (name.to_string(), noise(&mut rng, shape));
    let layers = [
        layer("conv2d", &[1, 28, 28, 6]),
        layer("max_pooling2d", &[1, 14, 14, 6]),
        layer("conv2d_1", &[1, 10, 10, 16]),
        layer("wide", &[1, 7, 7, 100]),
        layer("dense", &[1, 84]),
        layer("softmax", &[1, 10]),
    ];
    keep("feature_maps.png", &feature_maps(&digit(0), &layers).unwrap());
    let kernels = [
        layer("conv2d", &[5, 5, 1, 6]),
        layer("conv2d_1", &[5, 5, 6, 16]),
        layer("colour", &[7, 7, 3, 64]),
        layer("large", &[3, 3, 64, 128]),
    ];
    keep("filters.png", &filters(&kernels).unwrap());
    assert!(feature_maps(&digit(0), &[layer("x", &[1, 2, 3])]).is_err());
    assert!(filters(&[layer("x", &[3, 3])]).is_err());
}
