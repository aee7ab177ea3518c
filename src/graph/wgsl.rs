use std::{
    fmt,
    ops::Deref,
    sync::{Arc, LazyLock},
};

/// WGSL of a launch. Of most candidates nobody reads it: it is written when it is read first.
///
/// ```
/// use hubel::graph::Wgsl;
/// let written = Wgsl::when_read(|| "const HALF = 0.5;".into());
/// assert!(written.contains("HALF"));
/// assert_eq!(written, Wgsl::from("const HALF = 0.5;"));
/// ```
#[derive(Clone)]
pub struct Wgsl(Arc<LazyLock<Arc<str>, Box<dyn FnOnce() -> Arc<str> + Send>>>);

impl Wgsl {
    /// Returns the text that `write` returns, which is called at most once.
    pub fn when_read(write: impl FnOnce() -> Arc<str> + Send + 'static) -> Self {
        Wgsl(Arc::new(LazyLock::new(Box::new(write))))
    }

    /// Returns the text.
    pub fn text(&self) -> &Arc<str> {
        &self.0
    }
}

impl<T: Into<Arc<str>>> From<T> for Wgsl {
    fn from(text: T) -> Self {
        let text = text.into();
        Wgsl::when_read(|| text)
    }
}

impl Deref for Wgsl {
    type Target = str;

    fn deref(&self) -> &str {
        self.text()
    }
}

impl PartialEq for Wgsl {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl fmt::Debug for Wgsl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.text(), f)
    }
}
