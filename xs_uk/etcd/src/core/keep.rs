//! Writing a snapshot, and letting go what the snapshots cover.
//!
//! ```text
//!   Chunk(0) .. Chunk(n) -> Manifest -> Trim(..) .. -> Old -> Compact -> done
//! ```
//!
//! Each step but the last holds only under the fence. Only the manifest makes a snapshot count, and only what the
//! manifest's *previous* snapshot covers is deleted; so stopping anywhere leaves two ways to the present state.

use xs_consensus::Cursor;

use crate::call::{Op, Request};
use crate::keys::Keys;
use crate::limits::{CHUNK_BYTES, TRIM_ENTRIES_MAX};
use crate::manifest::{Manifest, Saved};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Chunk(usize),
    Manifest,
    /// Batches that end at this entry or later are still there.
    Trim(u64),
    Old,
    Compact,
}

/// A snapshot that is being written.
#[derive(Debug)]
pub(super) struct Keep {
    step: Step,
    bytes: Vec<u8>,
    manifest: Manifest,
    trimmed: u64,
}

/// What a step has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    More,
    /// The manifest names it.
    Counts,
    Done,
}

impl Keep {
    pub fn new(before: Option<&Manifest>, cursor: &Cursor, bytes: Vec<u8>) -> Self {
        let manifest = Manifest::next(before, Saved::of(cursor, &bytes));
        let step = if bytes.is_empty() { Step::Manifest } else { Step::Chunk(0) };
        Self { step, bytes, manifest, trimmed: before.map_or(0, Manifest::floor) }
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub fn request(&self, keys: &Keys, fence: i64, revision: i64) -> Request {
        let then = match self.step {
            Step::Chunk(chunk) => {
                let from = chunk * CHUNK_BYTES;
                let value = self.bytes[from..self.bytes.len().min(from + CHUNK_BYTES)].to_vec();
                vec![Op::Put { key: keys.chunk(self.manifest.newest.index, chunk), value }]
            }
            Step::Manifest => vec![Op::Put { key: keys.latest(), value: self.manifest.encode() }],
            Step::Trim(from) => {
                // What a former leader left undone goes with the first piece.
                let from = if from == self.trimmed { 0 } else { from };
                vec![Op::Delete { key: keys.log(from), end: keys.log(self.trim_end() + 1) }]
            }
            Step::Old => self.delete_old(keys),
            Step::Compact => return Request::Compact { revision, physical: false },
        };
        let otherwise = vec![Op::get(keys.leader())];
        Request::Txn { compare: vec![(keys.leader(), fence)], then, otherwise }
    }

    /// The step was done.
    pub fn advance(&mut self) -> Kept {
        let (next, kept) = match self.step {
            Step::Chunk(chunk) if chunk + 1 < self.manifest.newest.chunks() => {
                (Step::Chunk(chunk + 1), Kept::More)
            }
            Step::Chunk(_) => (Step::Manifest, Kept::More),
            Step::Manifest => (Step::Trim(self.trimmed), Kept::Counts),
            Step::Trim(_) if self.trim_end() < self.manifest.floor() => {
                (Step::Trim(self.trim_end() + 1), Kept::More)
            }
            Step::Trim(_) => (Step::Old, Kept::More),
            Step::Old => (Step::Compact, Kept::More),
            Step::Compact => (Step::Compact, Kept::Done),
        };
        if kept == Kept::Counts {
            self.bytes = Vec::new();
        }
        self.step = next;
        kept
    }

    fn trim_end(&self) -> u64 {
        let Step::Trim(from) = self.step else { return 0 };
        self.manifest.floor().min(from.saturating_add(TRIM_ENTRIES_MAX))
    }

    /// All pieces but those of the two snapshots that the manifest names.
    fn delete_old(&self, keys: &Keys) -> Vec<Op> {
        let newest = self.manifest.newest.index;
        let kept = self.manifest.previous.iter().map(|saved| saved.index).filter(|index| *index != newest);
        let mut from = keys.snapshots();
        let mut deletes = Vec::new();
        for index in kept.chain([newest]) {
            deletes.push(Op::Delete { key: from, end: keys.snapshot(index) });
            from = keys.snapshot_end(index);
        }
        deletes.push(Op::Delete { key: from, end: keys.latest() });
        deletes
    }
}
