//! Orders and reports between the warden and the services it keeps, with descriptors.
//!
//! A [`Link`] is one end of a `SOCK_SEQPACKET` pair. Each packet is one protobuf message and the descriptors
//! that belong to it; unknown fields and unknown kinds are passed over, so an old and a new binary understand each other.
//!
//! A child finds its end of the pair at the descriptor number in the environment variable [`LINK_ENV`].
#![forbid(unsafe_code)]

mod engine;
pub mod limits;
mod link;
pub mod listen;
mod message;
pub mod proc;
mod tether;

pub use engine::{Engine, EngineHealth, EngineMember, EngineWarning};
pub use link::{Link, LinkError, Packet};
pub use message::{
    Begin, Connections, Damaged, FromService, Hello, Lead, LeaderChanged, Leading, Locate, Located, Mistrust,
    Noted, Ready, Role, Severity, SnapshotKept, SnapshotTaken, ToService, from_service, to_service,
};
pub use tether::{Tether, TetherError};

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
    /// The roots that replicas noted after each entry (memfd).
    pub const ROOTS: &str = "roots";
    /// Where replicas ask each other for copies of nodes (memfd).
    pub const CONSULT: &str = "consult";
    /// The listening Unix socket of the store.
    pub const LISTENER: &str = "listener";
    /// The newest snapshot of the store's state (memfd).
    pub const SNAPSHOT: &str = "snapshot";
    /// The snapshot before the newest one (memfd).
    pub const SNAPSHOT_OLDER: &str = "snapshot.older";
    /// An eventfd that the leader writes to when followers should look at the log at once.
    pub const KICK: &str = "kick";
    /// Prefix of the handles of the event-channel device, numbered from 0: `evtchn.0`, `evtchn.1`, …
    pub const EVTCHN: &str = "evtchn.";
}

/// Kinds of [`Noted`] that the warden acts upon.
pub mod notes {
    /// A replica started from the older snapshot because the newest one cannot be loaded.
    pub const SNAPSHOT_DAMAGED: &str = "snapshot_damaged";
    /// A replica cannot go on because the log is damaged; it ends.
    pub const LOG_DAMAGED: &str = "log_damaged";
    /// A replica that is to lead waits for the engine, which cannot fence the leaders before it yet.
    pub const ENGINE_WAITS: &str = "engine_waits";
}

/// Name of the socket in the run directory at which a warden adopts services.
pub const ADOPT_SOCKET_NAME: &str = "warden.adopt";
