//! Errors that end a role's process; the warden starts it again.

use std::os::fd::OwnedFd;

/// Why a gateway or replica can not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The warden gave no link or no first order.
    #[error(transparent)]
    Start(#[from] control::TetherError),
    /// A link broke the rules, or the other end of one between gateway and leader is gone.
    #[error("link: {0}")]
    Link(#[from] control::LinkError),
    /// A descriptor that the warden must hand over is missing.
    #[error("the warden handed over no {name}")]
    Missing {
        /// Its name.
        name: &'static str,
    },
    /// Shared memory.
    #[error("shared memory: {0}")]
    Region(#[from] xs_shm::RegionError),
    /// The log.
    #[error("log: {0}")]
    Log(#[from] xs_consensus::LogError),
    /// An entry of the log that this version cannot read.
    #[error("log entry {index}: {what}")]
    Entry {
        /// Its index.
        index: u64,
        /// What is wrong.
        what: String,
    },
    /// The store is damaged: nothing of it may be let out.
    #[error("store: {0}")]
    Damaged(#[from] xs_store::Damage),
    /// A snapshot that cannot be read.
    #[error("snapshot: {0}")]
    Snapshot(String),
    /// The engine cannot be started.
    #[error("engine: {0}")]
    Engine(String),
    /// A member of the store's own etcd.
    #[error("{0}")]
    Member(String),
    /// The other replicas agree on another state than ours.
    #[error("the state after entry {index} is out-voted")]
    OutVoted {
        /// The entry.
        index: u64,
    },
    /// The hypervisor.
    #[error("hypervisor: {0}")]
    Hypervisor(#[from] hypervisor::Error),
    /// The gateway did not hand over its descriptors in time.
    #[error("the gateway handed over nothing for {waited_ms} ms")]
    Handover {
        /// How long was waited.
        waited_ms: u128,
    },
    /// No second process to share the descriptors with.
    #[error("heir: {0}")]
    Split(#[from] xs_shm::SplitError),
    /// The process that keeps clients' descriptors if this one dies died first.
    #[error("the heir is gone: a replica with one has to lead")]
    HeirGone,
    /// A system call.
    #[error("{call}: {source}")]
    System {
        /// The call.
        call: &'static str,
        /// Its error.
        source: rustix::io::Errno,
    },
}

impl Error {
    /// Wraps a system call's error.
    pub fn system(call: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |source| Self::System { call, source }
    }
}

/// Takes a named descriptor out of those that came with [`control::Begin`].
pub fn take(kept: &mut Vec<(String, OwnedFd)>, name: &'static str) -> Result<OwnedFd, Error> {
    take_optional(kept, name).ok_or(Error::Missing { name })
}

/// As [`take`], for one that may be missing.
pub fn take_optional(kept: &mut Vec<(String, OwnedFd)>, name: &str) -> Option<OwnedFd> {
    let at = kept.iter().position(|(have, _)| have == name)?;
    Some(kept.swap_remove(at).1)
}
