//! A kernel with one change.

use std::{fmt, ops::Range};

/// How a kernel is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// A loop leaves its last iteration out.
    EndsEarly,
    /// A loop starts one later.
    StartsLate,
    /// An element behind is read.
    ReadsFurther,
    /// The first element is read.
    ReadsFirst,
    /// An element behind is written.
    WritesFurther,
    /// A value is not written.
    NoStore,
    /// Lanes do not wait for each other.
    NoBarrier,
    /// A condition always holds.
    Always,
    /// A condition never holds.
    Never,
    /// `<` for `<=`, `>` for `>=` and back.
    Boundary,
    /// The operands of `-`, `/` or `%` change places.
    Swapped,
    /// `%` for `/` and back: the other axis of a flat index.
    OtherAxis,
    /// A term of a sum is left out.
    TermLeftOut,
    /// `+` for `-` and back.
    OtherSign,
    /// `+` for `*`.
    SumForProduct,
    /// A number of floating-point arithmetic is one larger.
    OneMore,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Change::EndsEarly => "ends a loop early",
            Change::StartsLate => "starts a loop late",
            Change::ReadsFurther => "reads one further",
            Change::ReadsFirst => "reads the first",
            Change::WritesFurther => "writes one further",
            Change::NoStore => "does not write",
            Change::NoBarrier => "does not wait",
            Change::Always => "takes for true",
            Change::Never => "takes for false",
            Change::Boundary => "moves a boundary",
            Change::Swapped => "swaps operands",
            Change::OtherAxis => "takes the other axis",
            Change::TermLeftOut => "leaves a term out",
            Change::OtherSign => "takes the other sign",
            Change::SumForProduct => "adds for a product",
            Change::OneMore => "adds 1 to a constant",
        })
    }
}

/// A kernel's text with one change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutant {
    /// The kind of change.
    pub change: Change,
    /// The variable or buffer that it concerns.
    pub place: String,
    /// The bytes of the kernel's text that are replaced.
    pub range: Range<usize>,
    /// What stands there instead.
    pub text: String,
}

impl Mutant {
    /// Returns the kernel with the change made.
    ///
    /// ```
    /// use hubel::testing::mutate::{Change, mutants};
    /// let kernel = "@group(0) @binding(0) var<storage, read_write> y: array<u32>;
    ///     @compute @workgroup_size(4)
    ///     fn main(@builtin(local_invocation_index) lane: u32) { y[lane] = 7u - lane; }";
    /// let all = mutants(kernel)?;
    /// let swapped = all.iter().find(|m| m.change == Change::Swapped).expect("there is a difference");
    /// assert!(swapped.apply(kernel).contains("y[lane] = ((lane) - (7u));"));
    /// assert_eq!(swapped.name(), "swaps operands at y");
    /// # Ok::<(), hubel::testing::Failure>(())
    /// ```
    pub fn apply(&self, source: &str) -> String {
        let [before, after] = [0..self.range.start, self.range.end..source.len()].map(|r| &source[r]);
        format!("{before}{}{after}", self.text)
    }

    /// Returns the change and its place, without numbers of registers: what repeated statements have in common.
    pub fn name(&self) -> String {
        let stem: String = self.place.chars().filter(|c| !c.is_ascii_digit()).collect();
        format!("{} at {}", self.change, stem.trim_end_matches('_'))
    }
}
