use super::Dataset;
use crate::{
    io::{Flaw, FormatError, idx},
    tensor::HostTensor,
};
use std::path::Path;

const FILES: [&str; 4] =
    ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"];

/// Handwritten digits, or another data set in the same four files: images of bytes (n, h, w, 1), scaled to 0 to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Mnist {
    /// Samples to train on; 60,000 in MNIST.
    pub train: Dataset,
    /// Samples to test on; 10,000 in MNIST.
    pub test: Dataset,
}

/// Returns the MNIST database of LeCun, Cortes and Burges from the four IDX files in a folder, gzipped or not; an error
/// names the file.
pub fn mnist(dir: impl AsRef<Path>) -> Result<Mnist, FormatError> {
    let dir = dir.as_ref();
    let classes: Vec<String> = (0..10).map(|d| d.to_string()).collect();
    let part = |images: &str, labels: &str| {
        let (pixels, path) = open(dir, images)?;
        let (labels, labels_path) = open(dir, labels)?;
        let [n, h, w] = *pixels.shape() else {
            let got = format!("{} axes", pixels.shape().len());
            return Err(FormatError::new(Flaw::Contradiction, "the images", "3 axes (n, h, w)", got).of(&path));
        };
        if labels.shape() != [n] {
            let got = format!("labels of shape {:?} in {}", labels.shape(), labels_path.display());
            return Err(FormatError::new(Flaw::Contradiction, "the images", format!("{n} labels"), got).of(&path));
        }
        if let Some(&label) = labels.bytes().iter().find(|&&l| usize::from(l) >= classes.len()) {
            let error = FormatError::new(Flaw::Contradiction, "the labels", "classes 0 to 9", label);
            return Err(error.of(&labels_path));
        }
        let images = pixels.reshape([n, h, w, 1]).map_err(|e| {
            FormatError::new(Flaw::Contradiction, "the images", "as many values as their shape has", e).of(&path)
        })?;
        Ok(Dataset { scale: 1.0 / 255.0, classes: classes.clone(), ..Dataset::new(images, labels)? })
    };
    Ok(Mnist { train: part(FILES[0], FILES[1])?, test: part(FILES[2], FILES[3])? })
}

fn open(dir: &Path, name: &str) -> Result<(HostTensor, std::path::PathBuf), FormatError> {
    let packed = dir.join(format!("{name}.gz"));
    let path = if packed.exists() { packed } else { dir.join(name) };
    match idx::open(&path) {
        Ok(tensor) => Ok((tensor, path)),
        Err(e) if e.flaw == Flaw::Missing => {
            let what = format!("the folder {}", dir.display());
            let files = FILES.map(|f| format!("{f}.gz")).join(", ");
            Err(FormatError::new(Flaw::Missing, what, format!("{name}.gz"), "no such file").advise(format!(
                "the MNIST database (LeCun, Cortes, Burges) has four files, {files}, which lie in examples/data/mnist of \
                 Hubel's repository"
            )))
        }
        Err(e) => Err(e.advise(
            "the file is damaged or no MNIST file; take it again from the MNIST database or from \
                                examples/data/mnist of Hubel's repository",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn files(n_labels: u8) -> temp_dir::TempDir {
        let folder = temp_dir::TempDir::new().unwrap();
        for (i, name) in FILES.iter().enumerate() {
            let bytes = match i % 2 {
                0 => [&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3][..], &[0, 51, 255, 1, 2, 3]].concat(),
                _ => [&[0, 0, 8, 1, 0, 0, 0, n_labels][..], &vec![9; n_labels.into()]].concat(),
            };
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    #[test]
    fn images_and_labels_are_read_and_scaled() {
        let folder = files(2);
        let m = mnist(folder.path()).unwrap();
        assert_eq!((m.train.images.shape(), m.test.labels.bytes()), (&[2, 1, 3, 1][..], &[9, 9][..]));
        assert_eq!(m.test.rows(&[0]).unwrap().to_f32(), [0.0, 51.0 * (1.0 / 255.0), 1.0]);
    }

    #[test]
    fn an_error_is_one_sentence_that_names_the_file() {
        let folder = files(2);
        let labels = folder.path().join(FILES[3]);
        fs::write(&labels, [0, 0, 8, 1, 0, 0, 0, 2, 1]).unwrap();
        let e = mnist(folder.path()).unwrap_err();
        assert_eq!((e.flaw, e.file.as_deref()), (Flaw::Truncated, Some(&*labels)));
        fs::write(&labels, [0, 0, 8, 1, 0, 0, 0, 2, 1, 10]).unwrap();
        assert!(mnist(folder.path()).unwrap_err().to_string().contains(FILES[3]));
        fs::remove_file(&labels).unwrap();
        let text = mnist(folder.path()).unwrap_err().to_string();
        assert!(text.contains("t10k-labels-idx1-ubyte.gz") && text.contains("LeCun"), "{text}");
        assert!(text.contains(&folder.path().display().to_string()) && text.contains("examples/data/mnist"), "{text}");
        assert_eq!(mnist(files(1).path()).unwrap_err().flaw, Flaw::Contradiction);
    }
}
