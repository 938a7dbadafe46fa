//! What the core asks of etcd, and what it hears: the vocabulary between core and driver.
//!
//! Every call may be repeated without harm, whatever became of the first: that is what the core relies on.

use std::time::Duration;

/// A line on which one call at a time is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Slot {
    /// The leader key.
    Claim,
    /// The log, and whether the fence still holds.
    Read,
    /// A batch.
    Append,
    /// Writing a snapshot, and letting go what it covers.
    Keep,
    /// Reading a snapshot.
    Load,
    /// Making room when the quota is used up.
    Tend,
    /// Each member's state.
    Health,
}

impl Slot {
    /// All of them, the urgent ones first.
    pub const ALL: [Self; 7] =
        [Self::Append, Self::Claim, Self::Read, Self::Load, Self::Keep, Self::Tend, Self::Health];
}

/// Names a call. An answer to one that nobody waits for any more is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId {
    /// Its line.
    pub slot: Slot,
    /// Its number.
    pub number: u64,
}

/// A call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// If all compared keys have these modification revisions (0: missing), the first operations, else the others.
    Txn {
        /// Keys and their modification revisions.
        compare: Vec<(Vec<u8>, i64)>,
        /// What is done then.
        then: Vec<Op>,
        /// What is done else.
        otherwise: Vec<Op>,
    },
    /// Where history is. Unlike a transaction, which etcd 3.4 refuses once its file has reached the quota even if it only
    /// reads, this is always answered.
    Revision {
        /// Some key.
        key: Vec<u8>,
    },
    /// Forgets history before a revision.
    Compact {
        /// The revision.
        revision: i64,
        /// Whether to wait until the pages of the member that answers are free.
        physical: bool,
    },
    /// A member's state.
    Status {
        /// Number of its endpoint.
        endpoint: usize,
    },
    /// Gives a member's free pages back to its file system.
    Defragment {
        /// Number of its endpoint.
        endpoint: usize,
    },
    /// Ends the NOSPACE alarms.
    Disarm,
}

/// An operation in a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Reads a key, or a range of keys in order.
    Get {
        /// The (first) key.
        key: Vec<u8>,
        /// Behind the last key.
        end: Option<Vec<u8>>,
        /// Most keys; 0 is all.
        limit: u32,
    },
    /// Writes a key.
    Put {
        /// The key.
        key: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
    },
    /// Deletes a range of keys.
    Delete {
        /// The first key.
        key: Vec<u8>,
        /// Behind the last key.
        end: Vec<u8>,
    },
}

impl Op {
    /// Reads one key.
    pub fn get(key: Vec<u8>) -> Self {
        Self::Get { key, end: None, limit: 0 }
    }
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
    /// The revision that wrote it.
    pub mod_revision: i64,
}

/// What the `Get`s of a transaction found, in order; other operations give nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The keys.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit cut some off.
    pub more: bool,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`Request::Txn`].
    Txn {
        /// Which etcd it is.
        cluster: u64,
        /// The store's revision.
        revision: i64,
        /// Whether the comparison held.
        held: bool,
        /// What was found.
        found: Vec<Found>,
    },
    /// To [`Request::Revision`].
    Revision(i64),
    /// To [`Request::Status`].
    Status(Status),
    /// To the others.
    Done,
}

/// A member's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Its version.
    pub version: String,
    /// Its id.
    pub member: u64,
    /// The leader's id; 0 if it knows none.
    pub leader: u64,
    /// Size of its data file.
    pub db_bytes: u64,
    /// What of it is in use.
    pub db_used_bytes: u64,
    /// Whether it lacks space.
    pub no_space: bool,
    /// Whether it found its data damaged.
    pub corrupt: bool,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It may have been done or not, or may be done later still.
    #[error("no answer: {0}")]
    Uncertain(String),
    /// The quota is used up; nothing was written.
    #[error("the space quota is used up")]
    NoSpace,
    /// History up to there is gone already.
    #[error("compacted already")]
    Compacted,
    /// etcd refuses: credentials, an unknown call.
    #[error("refused: {0}")]
    Refused(String),
}

/// What the driver is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Make a call and report its outcome within the time.
    Call {
        /// Its name.
        id: CallId,
        /// What to ask.
        request: Request,
        /// How long to wait for the answer.
        timeout: Duration,
    },
    /// Report what is put under `key..end` from `revision` on. Replaces the watch before.
    Watch {
        /// Its name.
        id: u64,
        /// The first key.
        key: Vec<u8>,
        /// Behind the last key.
        end: Vec<u8>,
        /// The first revision.
        revision: i64,
        /// How long it may take to begin.
        timeout: Duration,
    },
    /// End the watch.
    Unwatch,
}
