//! How a kernel is cut: its core, tile, lanes, unrolling, split-K, vectors and staging, as data that prints and parses.

use std::{fmt, str::FromStr};

macro_rules! cores {
    ($($name:ident $what:literal,)*) => {
        /// What computes, and who.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Core {
            $(#[doc = $what] $name,)*
        }

        const CORES: &[Core] = &[$(Core::$name),*];
    };
}

cores! {
    Elements "A lane for each element, or vector of them.",
    Lane "A lane for each row.",
    Group "A workgroup for each row.",
    Gather "A lane for each result, which looks for what belongs to it.",
    Cells "A lane for each window of a pooling.",
    Chains "A lane for each row of a table, along a list of those that name it.",
    Registers "A product in registers.",
    Shared "A product in workgroup memory.",
    Rows "A direct convolution along rows.",
    Channels "A direct convolution, channels in lanes.",
    Strided "A gradient to images, all phases of the strides at once.",
    Filter "A gradient to the weights of a convolution.",
    Window "A window over each channel alone.",
    Recurrent "A recurrent cell.",
}

impl Core {
    pub(crate) fn word(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

/// An axis of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Axis {
    /// Rows.
    M,
    /// Columns.
    N,
}

/// How a kernel is cut. `registers.m64n8.lanesN.k4.split2.pairsAB` says: a product in registers, whose lanes have 64 rows and 8
/// columns each and lie along the columns, 4 terms unrolled, split-K 2, neighbours of both operands read as pairs.
///
/// Words stand in this order and are left out where they say 1 or nothing; `FromStr` takes any order, and `·` or `-` for `.`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Schedule {
    /// What computes.
    pub core: Core,
    /// Rows of the tile of a lane, or, with `smem`, of a workgroup.
    pub m: usize,
    /// Its columns.
    pub n: usize,
    /// Such tiles side by side: rows of taps of a lane, blocks of a workgroup.
    pub tiles: usize,
    /// The axis along which lanes lie.
    pub lanes: Option<Axis>,
    /// Terms of the reduction that are unrolled.
    pub k: usize,
    /// Shares of each chunk of terms that the lanes of a workgroup multiply side by side.
    pub slices: usize,
    /// Parts into which the reduction is cut.
    pub split: usize,
    /// Elements of a vector.
    pub width: usize,
    /// Whether neighbours in memory are read as pairs, of each operand.
    pub pairs: [bool; 2],
    /// Whether an operand is staged in workgroup memory.
    pub smem: [bool; 2],
    /// Whether an operand is read as a uniform buffer.
    pub uniform: [bool; 2],
    /// Images of each launch, 0 where there is one for all.
    pub images: usize,
}

impl Schedule {
    /// Returns the schedule of a core whose lanes have `m` × `n` results.
    pub const fn new(core: Core, [m, n]: [usize; 2]) -> Self {
        let none = [false; 2];
        let [tiles, k, slices, split, width] = [1; 5];
        Schedule {
            core,
            m,
            n,
            tiles,
            lanes: None,
            k,
            slices,
            split,
            width,
            pairs: none,
            smem: none,
            uniform: none,
            images: 0,
        }
    }

    /// Returns the schedule of a core that takes vectors of `width`.
    pub const fn of_width(core: Core, width: usize) -> Self {
        Schedule { width, ..Schedule::new(core, [1; 2]) }
    }

    /// Sets what a word says.
    fn set(&mut self, word: &str) -> Option<()> {
        let number = |text: &str| text.parse().ok().filter(|&n: &usize| n > 0);
        let sides = |text: &str| match text {
            "A" => Some([true, false]),
            "B" => Some([false, true]),
            "AB" => Some([true; 2]),
            _ => None,
        };
        match word.split_at(word.find(|c: char| c.is_ascii_digit() || c.is_ascii_uppercase())?) {
            ("m", tile) => {
                let (m, n) = tile.split_once('n')?;
                let (n, tiles) = n.split_once('x').unwrap_or((n, "1"));
                (self.m, self.n, self.tiles) = (number(m)?, number(n)?, number(tiles)?);
            }
            ("lanes", "M") => self.lanes = Some(Axis::M),
            ("lanes", "N") => self.lanes = Some(Axis::N),
            ("k", text) => self.k = number(text)?,
            ("slices", text) => self.slices = number(text)?,
            ("split", text) => self.split = number(text)?,
            ("width", text) => self.width = number(text)?,
            ("pairs", text) => self.pairs = sides(text)?,
            ("smem", text) => self.smem = sides(text)?,
            ("uniform", text) => self.uniform = sides(text)?,
            ("images", text) => self.images = number(text)?,
            _ => return None,
        }
        Some(())
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.core.word())?;
        if [self.m, self.n, self.tiles] != [1; 3] {
            write!(f, ".m{}n{}", self.m, self.n)?;
        }
        if self.tiles > 1 {
            write!(f, "x{}", self.tiles)?;
        }
        self.lanes.map_or(Ok(()), |axis| write!(f, ".lanes{axis:?}"))?;
        let mut number = |name, n| if n > 1 { write!(f, ".{name}{n}") } else { Ok(()) };
        number("k", self.k)?;
        number("slices", self.slices)?;
        number("split", self.split)?;
        number("width", self.width)?;
        for (name, sides) in [("pairs", self.pairs), ("smem", self.smem), ("uniform", self.uniform)] {
            if sides != [false; 2] {
                write!(f, ".{name}{}{}", if sides[0] { "A" } else { "" }, if sides[1] { "B" } else { "" })?;
            }
        }
        if self.images > 0 { write!(f, ".images{}", self.images) } else { Ok(()) }
    }
}

impl From<Schedule> for String {
    fn from(schedule: Schedule) -> String {
        schedule.to_string()
    }
}

/// A text is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}`: wanted a core and words like m64n8, lanesN, k4, split2, width4, pairsAB, got `{word}`; correct this word"
)]
pub struct ScheduleError {
    /// The text.
    pub text: String,
    /// The word that says nothing.
    pub word: String,
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let (first, rest) = text.split_once(['.', '·', '-']).map_or((text, None), |(first, rest)| (first, Some(rest)));
        let error = |word: &str| ScheduleError { text: text.to_owned(), word: word.to_owned() };
        let core = CORES.iter().find(|core| core.word() == first).ok_or_else(|| error(first))?;
        let mut schedule = Schedule::new(*core, [1; 2]);
        for word in rest.into_iter().flat_map(|rest| rest.split(['.', '·', '-'])) {
            schedule.set(word).ok_or_else(|| error(word))?;
        }
        Ok(schedule)
    }
}
