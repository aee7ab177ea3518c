//! File names with the epoch and its values, in Keras's format.

use super::{Progress, TrainError};
use std::path::{Path, PathBuf};

/// The possible fields of a name.
const FORMS: &str = "{epoch}, {epoch:02d} and the like, or an epoch's value as {val_loss} or {val_loss:.2f}";

/// A path with fields in braces.
#[derive(Debug, Clone)]
pub(super) struct Template {
    path: PathBuf,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Text(String),
    Field { name: String, zeros: bool, width: usize, digits: Option<usize> },
}

impl Template {
    /// Returns the template of a path, or an error if it cannot be filled in with these values.
    pub fn new(path: &Path, names: &[String]) -> Result<Self, TrainError> {
        let refused =
            |got: String| TrainError::Template { path: path.display().to_string(), wanted: FORMS.into(), got };
        let Some(text) = path.to_str() else {
            // Such a path is used unchanged.
            return match path.as_os_str().as_encoded_bytes().iter().any(|b| b"{}".contains(b)) {
                true => Err(refused("fields in a path that is not UTF-8".into())),
                false => Ok(Template { path: path.into(), pieces: Vec::new() }),
            };
        };
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                '{' | '}' if rest.peek() == Some(&c) => plain.extend(rest.next()),
                '{' => {
                    let mut closed = false;
                    let open = |c: &char| {
                        closed = *c == '}';
                        !closed
                    };
                    let field: String = rest.by_ref().take_while(open).collect();
                    let piece = field_of(&field, names).filter(|_| closed);
                    pieces.push(Piece::Text(std::mem::take(&mut plain)));
                    pieces.push(piece.ok_or_else(|| refused(format!("`{{{field}}}`")))?);
                }
                '}' => return Err(refused("a `}` without a `{`".into())),
                _ => plain.push(c),
            }
        }
        pieces.push(Piece::Text(plain));
        Ok(Template { path: path.into(), pieces })
    }

    /// Returns the path of a file in the innermost folder that is the same in each epoch.
    pub fn fixed(&self) -> PathBuf {
        let (mut fixed, mut last) = (PathBuf::new(), PathBuf::new());
        for part in self.path.iter() {
            fixed.push(std::mem::replace(&mut last, part.into()));
            if part.as_encoded_bytes().contains(&b'{') {
                break;
            }
        }
        fixed.join(last)
    }

    /// Returns the path of an epoch.
    pub fn at(&self, at: &Progress) -> PathBuf {
        if self.pieces.is_empty() {
            return self.path.clone();
        }
        let text = self.pieces.iter().map(|piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Field { name, zeros, width, digits } => {
                let value = match (name.as_str(), digits) {
                    ("epoch", _) => (at.epoch + 1).to_string(),
                    (name, None) => at.get(name).unwrap_or(f64::NAN).to_string(),
                    (name, Some(digits)) => format!("{:.digits$}", at.get(name).unwrap_or(f64::NAN)),
                };
                let value = value.to_lowercase();
                if *zeros { format!("{value:0>width$}") } else { format!("{value:>width$}") }
            }
        });
        text.collect::<String>().into()
    }
}

/// Returns the text between braces filled in, or `None` if it is not a field of an epoch with these values.
fn field_of(field: &str, names: &[String]) -> Option<Piece> {
    let (name, form) = field.split_once(':').unwrap_or((field, ""));
    let number = |digits: &str| match digits {
        "" => Some(None),
        digits if digits.len() <= 2 => digits.parse::<usize>().ok().map(Some),
        _ => None,
    };
    let zeros = form.starts_with('0');
    if name == "epoch" {
        let width = number(form.strip_suffix('d').unwrap_or(form))?.unwrap_or(0);
        return Some(Piece::Field { name: name.into(), zeros, width, digits: None });
    }
    let (width, digits) = match form.strip_suffix('f') {
        None if form.is_empty() => (0, None),
        None => return None,
        Some(form) => {
            let (width, digits) = form.split_once('.').unwrap_or((form, "6"));
            (number(width)?.unwrap_or(0), Some(number(digits)??))
        }
    };
    names.iter().any(|n| n == name).then(|| Piece::Field { name: name.into(), zeros, width, digits })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &str) -> Result<String, TrainError> {
        let values = vec![("loss".to_owned(), 0.12345), ("val_loss".to_owned(), f64::NAN)];
        let names: Vec<String> = values.iter().map(|v| v.0.clone()).collect();
        let progress = Progress { epoch: 4, values, ..Progress::default() };
        Ok(Template::new(Path::new(path), &names)?.at(&progress).to_string_lossy().into_owned())
    }

    #[test]
    fn fields_are_filled_in_as_keras_fills_them_in() {
        for (path, wanted) in [
            ("w.st", "w.st"),
            ("w{epoch}.st", "w5.st"),
            ("a/{epoch:03d}/w.{epoch:02d}-{loss:.2f}.st", "a/005/w.05-0.12.st"),
            ("{loss}", "0.12345"),
            ("{loss:f}", "0.123450"),
            ("{loss:08.3f}|{loss:7.1f}", "0000.123|    0.1"),
            ("{val_loss:.2f}", "nan"),
            ("{{epoch}}", "{epoch}"),
        ] {
            assert_eq!(at(path), Ok(wanted.to_owned()), "{path}");
        }
    }

    #[test]
    fn what_cannot_be_filled_in_is_refused() {
        for path in [
            "{",
            "}",
            "{}",
            "{epoch",
            "{epoch:.2f}",
            "{epoch:x}",
            "{epoch:0999d}",
            "{accuracy}",
            "{loss:d}",
            "{loss:.}",
            "{loss:.999f}",
            "{loss:e}",
            "{loss!r}",
            "{Epoch}",
        ] {
            assert!(matches!(at(path), Err(TrainError::Template { .. })), "{path}: {:?}", at(path));
        }
    }

    #[test]
    fn the_folder_of_all_epochs_is_known() {
        let fixed = |path: &str| Template { path: path.into(), pieces: Vec::new() }.fixed();
        for (path, wanted) in [
            ("w", "w"),
            ("a/b/w", "a/b/w"),
            ("/a/w{epoch}", "/a/w{epoch}"),
            ("a/{epoch}/b/w", "a/{epoch}"),
            ("a{epoch}/w", "a{epoch}"),
        ] {
            assert_eq!(fixed(path), Path::new(wanted));
        }
    }
}
