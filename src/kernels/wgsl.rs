//! Kernels from files: what they share, vectors of neighbouring elements, the epilogue, and the launch made of them.

use super::language::{self, Expr, Finish, Kernel, Stored, Type};
use crate::graph::{DeviceProfile, Dispatch, Epilogue, Grid, Slot, Wgsl};
use std::{borrow::Cow, collections::HashSet, sync::Arc};

/// Returns the text of a file of `shaders/`: the copy in the binary or, with feature `live-shaders`, the file itself.
#[cfg(not(feature = "live-shaders"))]
macro_rules! shader {
    ($file:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $file))
    };
}
#[cfg(feature = "live-shaders")]
macro_rules! shader {
    ($file:literal) => {{
        static TEXT: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $file);
            std::fs::read_to_string(path).unwrap_or_else(|error| format!("cannot read {path}: {error}"))
        });
        TEXT.as_str()
    }};
}
pub(crate) use shader;

/// Returns the WGSL that kernels share: the step record and functions.
pub fn common() -> &'static str {
    shader!("shared/common.wgsl")
}

/// Returns the WGSL of vectors of `width`, 1, 2 or 4: V, I and U, and functions over them.
pub(super) fn vectors(width: usize) -> &'static str {
    match width {
        2 => shader!("shared/vector2.wgsl"),
        4 => shader!("shared/vector4.wgsl"),
        _ => shader!("shared/vector1.wgsl"),
    }
}

/// Returns how many of `c` neighbouring channels a lane takes at once: 1, 2 or 4.
pub fn width(c: usize, profile: &DeviceProfile) -> usize {
    match c % 4 {
        0 => 4,
        2 if profile.u64_loads => 2,
        _ => 1,
    }
}

/// WGSL of a kernel without the declarations that it shares with others, and the vectors that it is written over.
#[derive(Debug, Clone)]
pub struct Source<'a> {
    text: Cow<'a, str>,
    stored: Stored,
    /// More shared declarations.
    libraries: Vec<Cow<'a, str>>,
    extents: &'a [(&'static str, u64)],
}

impl<'a, T: Into<Cow<'a, str>>> From<T> for Source<'a> {
    fn from(text: T) -> Self {
        Source::stored(text, 1, false)
    }
}

impl<'a> Source<'a> {
    /// Returns a kernel written over vectors V of `width`, 1, 2 or 4, stored as S, which `unpack` and `pack` turn into V and back:
    /// 64-bit words where the device has them. `WIDTH` is the width; it stores through `epilogue(value, i * WIDTH)`.
    pub fn over_vectors(text: impl Into<Cow<'a, str>>, width: usize, profile: &DeviceProfile) -> Self {
        Source::stored(text, width, width > 1 && profile.u64_loads)
    }

    /// Returns a kernel written over vectors V of `width`, 1, 2 or 4, stored as they are.
    pub fn of_width(text: impl Into<Cow<'a, str>>, width: usize) -> Self {
        Source::stored(text, width, false)
    }

    fn stored(text: impl Into<Cow<'a, str>>, width: usize, words: bool) -> Self {
        let stored = Stored { width, words, columns: 0 };
        Source { text: text.into(), stored, libraries: Vec::new(), extents: &[] }
    }

    /// Adds declarations that the kernel may name.
    pub fn with(mut self, library: impl Into<Cow<'a, str>>) -> Self {
        self.libraries.push(library.into());
        self
    }

    /// Gives the kernel numbers that it reads as `extents.name`, so that launches that differ in them share it.
    pub fn extents(self, extents: &'a [(&'static str, u64)]) -> Self {
        Source { extents, ..self }
    }

    /// Adds a constant of the kernel, a u32: for sizes of arrays, which no `override` can give.
    pub fn constant(self, name: &str, value: usize) -> Self {
        self.with(format!("const {name} = {value}u;\n"))
    }

    /// Returns the shared declarations that the kernel may name.
    fn libraries(&self) -> Vec<&str> {
        let Stored { width, words, .. } = self.stored;
        let storage = match (words, width) {
            (true, 2) => shader!("shared/words2.wgsl"),
            (true, 4) => shader!("shared/words4.wgsl"),
            _ => shader!("shared/floats.wgsl"),
        };
        [common(), vectors(width), storage].into_iter().chain(self.libraries.iter().map(AsRef::as_ref)).collect()
    }
}

/// Returns a launch of a kernel from its file.
///
/// It declares bindings 1, 2, … in the order of `slots`. It may call `epilogue(value, flat_index)` on what it stores in output
/// 0; what the epilogue reads is bound behind `slots`. A kernel that declares `var<private> input0: V;` sets it to its input 0 at
/// the flat index before it calls the epilogue, which then need not read that input again; likewise the others.
///
/// Of `constants`, those that shared declarations have for other kernels are left out.
pub fn dispatch<'a>(
    kernel: impl Into<String>,
    source: impl Into<Source<'a>>,
    constants: &[(&'static str, f64)],
    grid: Grid,
    mut slots: Vec<Slot>,
    epilogue: Option<&Epilogue>,
) -> Dispatch {
    let source = source.into();
    let width = source.stored.width;
    let declared: HashSet<&str> = language::identifiers(&source.text).collect();
    let kept = |n: usize| {
        let name = format!("input{n}");
        declared.contains(name.as_str()).then(|| Expr::name(name, Type::F32.vector(width)))
    };
    let mut k = Kernel::behind(slots.len(), source.extents);
    if epilogue.is_some() || declared.contains("epilogue") {
        Finish::declare(&mut k, epilogue, source.stored, &kept);
    }
    let text = k.declarations() + &source.text;
    slots.extend(k.slots());
    let libraries = source.libraries();
    let linked = language::link(&text, &libraries);
    // What nothing declares stays, for the device to refuse.
    let (shared, declared) = (language::declared(&libraries), language::declared(&[&linked]));
    let taken = |(name, _): &&(&'static str, f64)| declared.contains(name) || !shared.contains(name);
    let constants = constants.iter().filter(taken).copied().collect();
    Dispatch { kernel: kernel.into(), source: linked.into(), constants, extents: extents(&k), grid, slots }
}

fn extents(k: &Kernel) -> Vec<(String, u32)> {
    k.extents().into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

impl Kernel {
    /// Returns the launch of the kernel, in which the vectors V of shared functions are the widest that it binds.
    pub fn launch(self, grid: Grid) -> Dispatch {
        Dispatch {
            grid,
            slots: self.slots().collect(),
            extents: extents(&self),
            constants: self.constants.iter().map(|(name, _, value)| (*name, *value)).collect(),
            kernel: self.name.clone(),
            source: Wgsl::when_read(move || {
                Arc::from(language::link(&self.wgsl(), &[common(), vectors(self.width())]))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_that_shared_declarations_have_for_others_are_left_out_and_misspelt_ones_stay() {
        let kernel = "// C.\nfn f() -> u32 {\n    return ROWS;\n}\n";
        let source = Source::from(kernel).with("override ROWS: u32;\noverride C: u32;\n");
        let constants = [("ROWS", 3.0), ("C", 4.0), ("LINES", 5.0)];
        let launch = dispatch("f", source, &constants, Grid::fixed(1), Vec::new(), None);
        assert_eq!(launch.constants, [("ROWS", 3.0), ("LINES", 5.0)]);
    }
}
