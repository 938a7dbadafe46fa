//! What the invariants judge: facts that the world writes down where processes cannot forget them.

use std::collections::{BTreeMap, BTreeSet};

use lin::History;
use sanity::Digest;

/// What a replica was like at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Final {
    /// Last applied log index.
    pub index: u64,
    /// The store's root.
    pub root: Digest,
    /// What its accounts do not agree on.
    pub faults: Vec<String>,
}

/// The facts of one run.
#[derive(Default)]
pub struct Facts {
    /// What clients asked and heard.
    pub history: History,
    /// By index: the entry's bytes as the first replica saw them.
    pub entries: BTreeMap<u64, Vec<u8>>,
    /// Replicas that saw other bytes: replica, index.
    pub other_entries: Vec<(u32, u64)>,
    /// By index: the root that the first replica came to.
    pub roots: BTreeMap<u64, Digest>,
    /// Replicas that came to another root: replica, index.
    pub other_roots: Vec<(u32, u64)>,
    /// By connection and sequence number: where in the log the request is.
    pub requests: BTreeMap<(u64, u64), Vec<u64>>,
    /// Who began to lead which epoch, in order.
    pub leaders: Vec<(u64, u32)>,
    /// Bytes that left a process of an older epoch after a newer one served: replica, its epoch, the newer one.
    pub late_sends: Vec<(u32, u64, u64)>,
    /// Names below /e whose writing was acknowledged.
    pub acknowledged: BTreeSet<String>,
    /// Names below /e whose writing had no certain outcome.
    pub uncertain: BTreeSet<String>,
    /// Names below /e that clients read at the end.
    pub listed: Vec<BTreeSet<String>>,
    /// By client: names below /e of the events that it got, in order.
    pub events: BTreeMap<u32, Vec<String>>,
    /// Answers that no client waited for, or of a wrong form.
    pub wrong_answers: Vec<String>,
    /// Processes that ended by themselves, and why.
    pub failures: Vec<String>,
    /// Replicas at the end.
    pub finals: BTreeMap<u32, Final>,
    /// Entries and words of the log that were mended.
    pub repairs: u64,
    /// Snapshots that were kept.
    pub snapshots: u64,
    /// How far etcd's copy of the log was read at the end, by a reader that knows nothing else.
    pub copy_read_to: u64,
    /// Entries of which it is another one there.
    pub other_copies: Vec<u64>,
    /// What was not reached in time.
    pub late: Vec<String>,
}

impl Facts {
    /// Another entry was read from the copy.
    pub fn note_copy(&mut self, index: u64, bytes: &[u8]) {
        self.copy_read_to = index;
        if self.entries.get(&index).is_none_or(|entry| entry != bytes) {
            self.other_copies.push(index);
        }
    }
}
