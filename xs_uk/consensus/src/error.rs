//! What can go wrong with the log.

/// What can go wrong with the log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Another process leads with a newer epoch. Whether the last entries that were submitted and did not come back got
    /// in is for that process to read.
    #[error("epoch {ours} is fenced by epoch {newer}")]
    Fenced {
        /// The epoch of the caller.
        ours: u64,
        /// The epoch that rules.
        newer: u64,
    },
    /// The caller does not lead.
    #[error("not the leader")]
    NotLeading,
    /// The caller has entries to read before it may append.
    #[error("entries after {cursor} are still to be read")]
    Behind {
        /// Where the caller stands.
        cursor: u64,
    },
    /// No room until a snapshot lets old entries go.
    #[error("log full: {used_bytes} of {capacity_bytes} bytes in use")]
    Full {
        /// Bytes in use.
        used_bytes: u64,
        /// All bytes.
        capacity_bytes: u64,
    },
    /// The engine's queue is full: later, when entries came back.
    #[error("{queued} entries wait for the engine already")]
    Busy {
        /// Entries that were submitted and did not come back yet.
        queued: usize,
    },
    /// Nothing was committed for longer than the bound, and entries wait: the engine has lost its quorum, or its room.
    #[error("nothing was committed for {waited_ms} ms")]
    Unavailable {
        /// Since when the oldest of them waits.
        waited_ms: u64,
    },
    /// An entry over the bound.
    #[error("entry of {bytes} bytes is over the bound")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// The reader was too slow: a newer snapshot must be loaded.
    #[error("entry {index} was let go")]
    Overrun {
        /// The entry wanted.
        index: u64,
    },
    /// The chain does not hold at this entry.
    #[error("entry {index} is corrupt: {what}")]
    Corrupt {
        /// The entry.
        index: u64,
        /// What does not fit.
        what: &'static str,
    },
    /// The engine cannot go on, or was used in a way that it cannot serve.
    #[error("engine: {what}")]
    Engine {
        /// Why.
        what: String,
    },
}
