//! What the twin finds.

use std::fmt;

/// Why the twin did not run a kernel to its end.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TwinError {
    /// naga refuses the kernel or its constants.
    #[error("{0}")]
    Source(String),
    /// The kernel says something that the twin does not know.
    #[error("line {line}: the twin does not know {what}")]
    Unsupported {
        /// What it is.
        what: String,
        /// The line, from 1; 0 where it has none.
        line: u32,
    },
    /// A buffer does not fit its binding.
    #[error("binding {binding}: wanted {wanted}, got {got}")]
    Binding {
        /// Number of the binding.
        binding: usize,
        /// What the kernel declares.
        wanted: String,
        /// What is bound.
        got: String,
    },
    /// The kernel does what it must not.
    #[error("{0}")]
    Fault(Box<Fault>),
}

/// What a kernel does that it must not, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What it is.
    pub kind: FaultKind,
    /// The variable, or the operation where there is none.
    pub variable: String,
    /// The line, from 1.
    pub line: u32,
    /// The text at that place.
    pub text: String,
    /// Number of the workgroup.
    pub group: u32,
    /// The lane of the workgroup; the first of several.
    pub lane: u32,
}

/// The kinds of [`Fault`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// An index outside its array; a negative one is large.
    Outside {
        /// The index.
        index: u32,
        /// How many elements there are.
        length: u32,
    },
    /// A read of memory that nobody has written.
    Unwritten,
    /// Two lanes of a workgroup reach the same memory without a barrier between them, and one of them writes.
    Conflict {
        /// The other lane, where it is one alone.
        other: Option<u32>,
    },
    /// Two workgroups reach the same memory, and one of them writes.
    Groups {
        /// The other workgroup, where it is one alone.
        other: Option<u32>,
    },
    /// A barrier that not all lanes of the workgroup reach together.
    Barrier,
    /// A subgroup operation that not all lanes of a subgroup reach together.
    Subgroup,
    /// A loop that does not end.
    Endless,
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FaultKind::Outside { index, length } => write!(f, "index {index} of {length} elements"),
            FaultKind::Unwritten => write!(f, "nobody has written what is read"),
            FaultKind::Conflict { other: Some(lane) } => {
                write!(f, "conflicts with lane {lane}: no barrier between them")
            }
            FaultKind::Conflict { other: None } => write!(f, "conflicts with several lanes: no barrier between them"),
            FaultKind::Groups { other: Some(group) } => write!(f, "conflicts with workgroup {group}"),
            FaultKind::Groups { other: None } => write!(f, "conflicts with several workgroups"),
            FaultKind::Barrier => write!(f, "not all lanes of the workgroup reach this barrier"),
            FaultKind::Subgroup => write!(f, "not all lanes of the subgroup reach this operation"),
            FaultKind::Endless => write!(f, "a loop does not end"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { kind, variable, line, text, group, lane } = self;
        write!(f, "`{variable}` in line {line}, `{text}`: {kind} (workgroup {group}, lane {lane})")
    }
}
