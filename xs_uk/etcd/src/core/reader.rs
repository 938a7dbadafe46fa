//! From batches to entries, in order, each once.

use std::collections::VecDeque;

use xs_consensus::{Cursor, Index, LogError};

use crate::batch::Batch;
use crate::limits::{READY_BYTES_MAX, USAGE_PIECE_BYTES};

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It goes on from where the reader was (or ends just there).
    Next,
    /// All of it was read before.
    Old,
    /// Something is missing before it.
    Gap,
}

/// Why nothing more can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    Overrun { index: u64 },
    Corrupt { index: u64, what: &'static str },
}

impl From<Broken> for LogError {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Overrun { index } => Self::Overrun { index },
            Broken::Corrupt { index, what } => Self::Corrupt { index, what },
        }
    }
}

/// The log as far as it was read.
#[derive(Debug)]
pub(super) struct Reader {
    /// Behind the last entry that was given out.
    pub cursor: Cursor,
    /// Behind the last entry that is ready.
    pub fetched: Cursor,
    /// Whether `fetched` was found to be a place of the log that etcd holds.
    pub anchored: bool,
    ready: VecDeque<(Vec<u8>, Cursor)>,
    ready_bytes: usize,
    usage: Usage,
}

impl Reader {
    pub fn new(from: Cursor) -> Self {
        Self {
            cursor: from,
            fetched: from,
            anchored: from.index.0 == 0,
            ready: VecDeque::new(),
            ready_bytes: 0,
            usage: Usage::default(),
        }
    }

    pub fn take(&mut self, batch: Batch, bytes: u64) -> Result<Taken, Broken> {
        let (before, at) = (batch.before.index, self.fetched.index);
        if batch.behind().index < at {
            return Ok(Taken::Old);
        }
        if before > at {
            return Ok(Taken::Gap);
        }
        let known = usize::try_from(at.0 - before.0).expect("inside a batch");
        let hash = known.checked_sub(1).map_or(batch.before.hash, |last| batch.entries[last].1.hash);
        if hash != self.fetched.hash {
            return Err(Broken::Corrupt { index: at.0, what: "hash chain" });
        }
        self.anchored = true;
        if batch.behind().index > at {
            self.usage.add(batch.behind().index.0, bytes);
        }
        for (entry, cursor) in batch.entries.into_iter().skip(known) {
            self.ready_bytes += entry.len();
            self.fetched = cursor;
            self.ready.push_back((entry, cursor));
        }
        Ok(Taken::Next)
    }

    pub fn give(&mut self, entry: &mut Vec<u8>) -> Option<Index> {
        let (bytes, cursor) = self.ready.pop_front()?;
        self.ready_bytes -= bytes.len();
        *entry = bytes;
        self.cursor = cursor;
        Some(cursor.index)
    }

    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    pub fn ready_bytes(&self) -> usize {
        self.ready_bytes
    }

    pub fn has_room(&self) -> bool {
        self.ready_bytes <= READY_BYTES_MAX
    }

    /// A snapshot covers all up to `index`.
    pub fn covered(&mut self, index: u64) {
        self.usage.forget(index);
    }

    pub fn used_bytes(&self) -> u64 {
        self.usage.bytes
    }
}

/// Bytes of the log that no snapshot covers, in pieces.
#[derive(Debug, Default)]
struct Usage {
    pieces: VecDeque<(u64, u64)>,
    bytes: u64,
}

impl Usage {
    fn add(&mut self, last: u64, bytes: u64) {
        self.bytes += bytes;
        match self.pieces.back_mut() {
            Some((to, piece)) if *piece < USAGE_PIECE_BYTES => (*to, *piece) = (last, *piece + bytes),
            _ => self.pieces.push_back((last, bytes)),
        }
    }

    fn forget(&mut self, index: u64) {
        while let Some((last, bytes)) = self.pieces.front().copied()
            && last <= index
        {
            self.bytes -= bytes;
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use xs_consensus::Epoch;

    use super::*;

    fn batch(before: Cursor, entries: &[&[u8]]) -> Batch {
        Batch::build(Epoch(1), before, entries.iter().map(|entry| entry.to_vec()))
    }

    #[test]
    fn a_reader_that_stands_inside_a_batch_takes_the_rest() {
        let whole = batch(Cursor::default(), &[b"a", b"b", b"c"]);
        let mut reader = Reader::new(whole.entries[1].1);
        assert_eq!(reader.take(whole.clone(), 9), Ok(Taken::Next));
        let mut entry = Vec::new();
        assert_eq!(reader.give(&mut entry), Some(Index(3)));
        assert_eq!(entry, b"c");
        assert_eq!(reader.give(&mut entry), None);
        assert_eq!(reader.take(whole.clone(), 9), Ok(Taken::Next), "it ends where the reader is");
        let more = batch(whole.behind(), &[b"d"]);
        let late = batch(more.behind(), &[b"e"]);
        assert_eq!(reader.take(late, 1), Ok(Taken::Gap));
        assert_eq!(reader.take(more, 1), Ok(Taken::Next));
        assert_eq!(reader.take(whole, 9), Ok(Taken::Old));
        assert_eq!(reader.used_bytes(), 10);
        reader.covered(4);
        assert_eq!(reader.used_bytes(), 0);
    }

    #[test]
    fn another_history_is_corrupt() {
        let ours = batch(Cursor::default(), &[b"a"]);
        let mut reader = Reader::new(ours.behind());
        let theirs = batch(Cursor::default(), &[b"A", b"b"]);
        assert_eq!(reader.take(theirs, 1), Err(Broken::Corrupt { index: 1, what: "hash chain" }));
    }
}
