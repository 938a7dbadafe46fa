//! Orders and reports between the warden and the services it keeps, with descriptors.
//!
//! A [`Link`] is one end of a `SOCK_SEQPACKET` pair. Each packet is one protobuf message and the descriptors
//! that belong to it; unknown fields and unknown kinds are passed over, so an old and a new binary understand each other.
//!
//! A child finds its end of the pair at the descriptor number in the environment variable [`LINK_ENV`].
#![forbid(unsafe_code)]

pub mod limits;
mod link;
mod message;

pub use link::{Link, LinkError, Packet};
pub use message::{
    Begin, FromService, Lead, LeaderChanged, Leading, Noted, Ready, Severity, SnapshotKept, SnapshotTaken,
    ToService, from_service, to_service,
};

/// Environment variable that holds the descriptor number of a child's end of its link.
pub const LINK_ENV: &str = "PPVMM_LINK_FD";

/// Names of the descriptors that the warden keeps for the store. The order of descriptors in a packet is the
/// order of `names` in its message.
pub mod names {
    /// The replicated log's shared memory (memfd).
    pub const LOG: &str = "log";
    /// The connection table's shared memory (memfd).
    pub const CONNS: &str = "conns";
    /// The status board's shared memory (memfd).
    pub const BOARD: &str = "board";
    /// The listening Unix socket of the store.
    pub const LISTENER: &str = "listener";
    /// The newest snapshot of the store's state (memfd).
    pub const SNAPSHOT: &str = "snapshot";
    /// An eventfd that the leader writes to when followers should look at the log at once.
    pub const KICK: &str = "kick";
    /// Prefix of the handles of the event-channel device, numbered from 0: `evtchn.0`, `evtchn.1`, …
    pub const EVTCHN: &str = "evtchn.";
}
