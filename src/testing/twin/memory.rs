//! Memory that knows who has written and read each word.

use super::error::FaultKind;

/// What memory holds that nobody has written, a quiet NaN.
const UNWRITTEN: u32 = 0x7fc0_dead;

/// The memory of a binding.
///
/// ```
/// use hubel::testing::twin::Buffer;
/// assert_eq!(Buffer::filled(&[1, 2, 3, 4]).bytes(), [1, 2, 3, 4]);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Buffer {
    pub(super) words: Vec<u32>,
    /// Whether somebody has written each word.
    pub(super) written: Vec<bool>,
    len: usize,
}

impl Buffer {
    /// Returns a buffer of so many bytes that nobody has written.
    pub fn unwritten(len: usize) -> Self {
        // Kernels may see it as an array of vec4.
        let words = len.next_multiple_of(16) / 4;
        Buffer { words: vec![UNWRITTEN; words], written: vec![false; words], len }
    }

    /// Returns a buffer of these bytes.
    pub fn filled(bytes: &[u8]) -> Self {
        let mut buffer = Buffer::unwritten(bytes.len());
        buffer.put(0, bytes);
        buffer
    }

    /// Returns the number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the bytes.
    pub fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }

    /// Writes bytes from a byte offset on, a multiple of 4; those that have no room are left out.
    pub fn put(&mut self, offset: usize, bytes: &[u8]) {
        let all: &mut [u8] = bytemuck::cast_slice_mut(&mut self.words);
        let end = all.len().min(offset + bytes.len());
        if offset < end {
            all[offset..end].copy_from_slice(&bytes[..end - offset]);
            self.written[offset / 4..end.div_ceil(4)].fill(true);
        }
    }

    /// Copies words with their marks from `from`, from word `start` on, to word `at` on.
    pub(super) fn copy(&mut self, at: usize, from: &Buffer, start: usize) {
        let n = (self.words.len() - at).min(from.words.len() - start);
        self.words[at..at + n].copy_from_slice(&from.words[start..start + n]);
        self.written[at..at + n].copy_from_slice(&from.written[start..start + n]);
    }

    /// Takes every word for written.
    pub(super) fn trust(&mut self) {
        self.written.fill(true);
    }

    /// Forgets what was written.
    pub(super) fn clear(&mut self) {
        self.words.fill(UNWRITTEN);
        self.written.fill(false);
    }
}

/// Who reaches a word.
#[derive(Debug, Clone, Copy)]
pub(super) struct Who {
    /// Number of the invocation in the launch, from 1.
    pub invocation: u32,
    /// Lanes of a workgroup.
    pub lanes: u32,
    /// Number of the time between two barriers.
    pub epoch: u32,
    /// Whether the word belongs to the workgroup alone.
    pub shared: bool,
}

impl Who {
    fn group(self, invocation: u32) -> u32 {
        (invocation - 1) / self.lanes
    }

    /// Returns the conflict with another invocation of the workgroup, or several.
    fn conflict(self, invocation: u32) -> FaultKind {
        FaultKind::Conflict { other: (invocation != MANY).then(|| (invocation - 1) % self.lanes) }
    }
}

/// In place of a number: several.
const MANY: u32 = u32::MAX;

/// Who wrote a word last and who has read it since the last barrier; 0 is nobody.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mark {
    writer: u32,
    write_epoch: u32,
    reader: u32,
    read_epoch: u32,
    /// The workgroup that has read it, from 1.
    reader_group: u32,
}

impl Mark {
    fn written_before(&self, who: Who) -> Option<FaultKind> {
        if self.writer == 0 || self.writer == who.invocation {
            return None;
        }
        if self.write_epoch == who.epoch {
            return Some(who.conflict(self.writer));
        }
        let group = who.group(self.writer);
        (!who.shared && group != who.group(who.invocation)).then_some(FaultKind::Groups { other: Some(group) })
    }

    /// Notes a read, and returns what it conflicts with.
    pub fn read(&mut self, who: Who) -> Option<FaultKind> {
        if self.read_epoch != who.epoch {
            (self.reader, self.read_epoch) = (who.invocation, who.epoch);
        } else if self.reader != who.invocation {
            self.reader = MANY;
        }
        if !who.shared {
            let group = who.group(who.invocation) + 1;
            self.reader_group = if [0, group].contains(&self.reader_group) { group } else { MANY };
        }
        self.written_before(who)
    }

    /// Notes a write, and returns what it conflicts with; `same` says that the word has these bits already.
    ///
    /// Of two lanes that write the same bits to a buffer neither is wrong: kernels repeat their last element in place of
    /// guards.
    pub fn write(&mut self, who: Who, same: bool) -> Written {
        let before = self.written_before(who);
        (self.writer, self.write_epoch) = (who.invocation, who.epoch);
        let group = who.group(who.invocation) + 1;
        if self.read_epoch == who.epoch && self.reader != who.invocation {
            return Written::Wrong(who.conflict(self.reader));
        }
        if !who.shared && ![0, group].contains(&self.reader_group) {
            let other = (self.reader_group != MANY).then(|| self.reader_group - 1);
            return Written::Wrong(FaultKind::Groups { other });
        }
        match before {
            None => Written::Alone,
            Some(_) if same && !who.shared => Written::Again,
            Some(kind) => Written::Wrong(kind),
        }
    }
}

/// What a write is.
pub(super) enum Written {
    Alone,
    /// Another lane wrote the same bits.
    Again,
    Wrong(FaultKind),
}
