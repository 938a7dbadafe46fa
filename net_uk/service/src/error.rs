//! Errors.

use std::path::PathBuf;

use control::LinkError;

/// What can go wrong in the service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The hypervisor refused.
    #[error(transparent)]
    Hypervisor(#[from] hypervisor::Error),
    /// Shared memory could not be made or mapped.
    #[error(transparent)]
    Region(#[from] hypervisor::RegionError),
    /// A lane or a backlog makes no sense.
    #[error(transparent)]
    Lane(#[from] lane::LaneError),
    /// A network card's interface failed.
    #[error(transparent)]
    Nic(#[from] nic::NicError),
    /// A guest's ring makes no sense: its interface is disabled.
    #[error(transparent)]
    Ring(#[from] netif::RingFault),
    /// A frame is not what it claims to be.
    #[error(transparent)]
    Frame(#[from] netif::FrameFault),
    /// The switch refused.
    #[error(transparent)]
    Switch(#[from] net_switch::SwitchError),
    /// The recovery's plan cannot be made.
    #[error(transparent)]
    Watch(#[from] net_watch::WatchError),
    /// The keeper cannot be reached.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The kept state is of another version.
    #[error("the state's mark is {magic:#x} and its version {version}")]
    StateVersion {
        /// The mark.
        magic: u64,
        /// The version.
        version: u32,
    },
    /// Another vault holds more: a keeper that began with less would start processes that run already.
    #[error("deposit {have} is held, and {newest} is the newest")]
    Stale {
        /// The number of what is held.
        have: u64,
        /// The number of the newest.
        newest: u64,
    },
    /// Another service has the run directory.
    #[error("another net_uk runs in {}", rundir.display())]
    Running {
        /// The run directory.
        rundir: PathBuf,
    },
    /// Processes of a former service do not end.
    #[error("processes of a former net_uk in {} do not end", rundir.display())]
    Orphans {
        /// The run directory.
        rundir: PathBuf,
    },
    /// A bound is reached.
    #[error("no room for another {what}")]
    Full {
        /// What there are too many of.
        what: &'static str,
    },
    /// Something that the keeper should have given is missing.
    #[error("the keeper gave no {name}")]
    Missing {
        /// Its name.
        name: &'static str,
    },
    /// A network card cannot be reset.
    #[error("ip link set {interface} {state} failed")]
    Reset {
        /// Its interface.
        interface: String,
        /// What it was to become.
        state: &'static str,
    },
    /// The kernel refused.
    #[error("{what}: {source}")]
    System {
        /// The call.
        what: &'static str,
        /// The reason.
        source: rustix::io::Errno,
    },
    /// gRPC cannot be served.
    #[error("gRPC: {0}")]
    Rpc(String),
    /// The store refused or cannot be reached.
    #[error("the store: {0}")]
    Store(#[from] std::io::Error),
}

impl Error {
    pub(crate) fn system(what: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |source| Self::System { what, source }
    }
}
