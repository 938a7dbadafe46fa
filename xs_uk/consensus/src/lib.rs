//! The replicated log: the trait and the embedded engine.
//!
//! The store's replicas are deterministic state machines fed by one log. An engine gives that log: one leader per epoch
//! appends, everybody reads in order, an append with an old epoch is refused. [`Embedded`] keeps the log in
//! shared memory that outlives every process which uses it.
#![forbid(unsafe_code)]

mod chain;
mod cursor;
mod embedded;
pub mod limits;

pub use cursor::{CURSOR_BYTES, Cursor};
pub use embedded::Embedded;

/// Leadership number. Grows with each promotion; the fence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// Number of a log entry, from 1 without gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index(pub u64);

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is in the log for good; the appender's cursor moved past it.
    Committed(Index),
    /// It was handed to the engine; it counts when [`Consensus::next`] gives it back.
    Submitted(Index),
}

/// What can go wrong with the log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Another process leads with a newer epoch.
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
}

/// An engine that keeps the log.
pub trait Consensus: Send {
    /// Fences all older epochs. The caller must then read up to the end with [`Self::next`] before it appends.
    ///
    /// # Errors
    /// [`LogError::Fenced`] if a newer epoch rules already.
    fn lead(&mut self, epoch: Epoch) -> Result<(), LogError>;

    /// Appends an entry.
    ///
    /// # Errors
    /// [`LogError::Fenced`], [`LogError::NotLeading`], [`LogError::Behind`], [`LogError::Full`], [`LogError::TooLarge`].
    fn append(&mut self, entry: &[u8]) -> Result<Appended, LogError>;

    /// Reads the next committed entry into `entry` (replacing what is there); `None` if there is none yet.
    ///
    /// # Errors
    /// [`LogError::Overrun`], [`LogError::Corrupt`].
    fn next(&mut self, entry: &mut Vec<u8>) -> Result<Option<Index>, LogError>;

    /// Behind the last entry that was read or appended.
    fn cursor(&self) -> Cursor;

    /// Entries up to `cursor` are in a snapshot that is kept: their room may be used again. Leader only.
    ///
    /// # Errors
    /// [`LogError::NotLeading`].
    fn release(&mut self, cursor: &Cursor) -> Result<(), LogError>;

    /// Bytes that entries take which were not released.
    fn used_bytes(&self) -> u64;

    /// Bytes that entries may take.
    fn capacity_bytes(&self) -> u64;
}
