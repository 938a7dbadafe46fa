//! The replicated log: the trait and the embedded engine.
//!
//! The store's replicas are deterministic state machines fed by one log. An engine gives that log: one leader per epoch
//! appends, everybody reads in order, an append with an old epoch is refused. [`Embedded`] keeps the log in
//! shared memory that outlives every process which uses it.
//!
//! ```text
//!               lead(epoch)                is_leading() == true, next() == None
//!   following --------------> campaigning -------------------------------------> leading: append
//!                 Fenced: a newer epoch rules             Fenced: for good
//! ```
#![forbid(unsafe_code)]

use std::os::fd::BorrowedFd;

mod chain;
mod cursor;
mod embedded;
mod error;
pub mod limits;
mod state;

pub use chain::link;
pub use cursor::{CURSOR_BYTES, Cursor};
pub use embedded::{CopiedTo, Embedded};
pub use error::LogError;
pub use state::{CopyLag, EngineHealth, EngineMember, EngineState, EngineWarning, Loaded, Repairs};

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
    /// It was handed to the engine; it counts when [`Consensus::next`] gives it back under this index.
    Submitted(Index),
}

/// An engine that keeps the log. No call blocks on another process.
pub trait Consensus: Send {
    /// Begins to fence all older epochs. [`Self::is_leading`] tells when that is done; the caller then reads up to the
    /// end with [`Self::next`] before it appends.
    ///
    /// # Errors
    /// [`LogError::Fenced`] if a newer epoch is known to rule already.
    fn lead(&mut self, epoch: Epoch) -> Result<(), LogError>;

    /// Whether the fence is in place and the end of the log at that moment is known: once [`Self::next`] gives `None`
    /// after this was true, [`Self::append`] may be called.
    ///
    /// # Errors
    /// [`LogError::Fenced`] if a newer epoch rules.
    fn is_leading(&mut self) -> Result<bool, LogError>;

    /// Appends an entry.
    ///
    /// # Errors
    /// [`LogError::Fenced`], [`LogError::NotLeading`], [`LogError::Behind`], [`LogError::Full`],
    /// [`LogError::Busy`], [`LogError::Unavailable`], [`LogError::TooLarge`], [`LogError::Corrupt`].
    fn append(&mut self, entry: &[u8]) -> Result<Appended, LogError>;

    /// Reads the next committed entry into `entry` (replacing what is there); `None` if there is none yet. Gives back
    /// the caller's own submitted entries too, in their order.
    ///
    /// # Errors
    /// [`LogError::Overrun`], [`LogError::Corrupt`], [`LogError::Fenced`] (after the last entry that got in),
    /// [`LogError::Engine`].
    fn next(&mut self, entry: &mut Vec<u8>) -> Result<Option<Index>, LogError>;

    /// Becomes readable when [`Self::next`], [`Self::is_leading`], [`Self::load_snapshot`] or [`Self::state`] may have
    /// something new to say. Level-triggered: readable until `next` finds nothing more. `None` for an engine that
    /// must be looked at.
    fn wake_fd(&self) -> Option<BorrowedFd<'_>>;

    /// What the engine says about itself.
    fn state(&self) -> EngineState;

    /// Begins to keep `snapshot`, the state at `cursor`, where it outlives this machine; [`EngineState::snapshot`] says
    /// when it is kept. The engine lets the log go that its snapshots cover. False if the engine keeps none. Leader only.
    ///
    /// # Errors
    /// [`LogError::NotLeading`], [`LogError::Fenced`], [`LogError::Busy`] while another is being written,
    /// [`LogError::TooLarge`].
    fn save_snapshot(&mut self, cursor: &Cursor, snapshot: Vec<u8>) -> Result<bool, LogError>;

    /// Gets the newest snapshot that the engine keeps. To be called until it does not say [`Loaded::Pending`].
    ///
    /// # Errors
    /// [`LogError::Corrupt`] if none of those kept is whole, [`LogError::Engine`].
    fn load_snapshot(&mut self) -> Result<Loaded, LogError>;

    /// Behind the last entry that was read, or appended and committed.
    fn cursor(&self) -> Cursor;

    /// Entries up to `cursor` are in a snapshot that is kept: their room may be used again. Leader only. An engine
    /// that keeps snapshots itself goes by those and takes no notice.
    ///
    /// # Errors
    /// [`LogError::NotLeading`], [`LogError::Fenced`].
    fn release(&mut self, cursor: &Cursor) -> Result<(), LogError>;

    /// Bytes that entries take which were not released.
    fn used_bytes(&self) -> u64;

    /// Bytes that entries may take.
    fn capacity_bytes(&self) -> u64;

    /// Whether entries that were released still take room for a reason of the engine's own, which will pass.
    fn retains(&self) -> bool {
        false
    }

    /// The caller has reason to think that the log has grown. An engine that is not told of each entry at once looks.
    fn expect_more(&mut self) {}

    /// What reading has mended since the last call.
    fn take_repairs(&mut self) -> Repairs {
        Repairs::default()
    }
}
