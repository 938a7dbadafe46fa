//! Errors.

use xs_protocol::XsError;
use xs_protocol::ring::RingError;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong for a guest.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store answered with an error.
    #[error("the store says {0}")]
    Store(#[from] XsError),
    /// The store answered with an error of an unknown name.
    #[error("the store says {0:?}, which is no error's name")]
    UnknownError(String),
    /// No answer in time. It may still come and is passed over then.
    #[error("no answer within {waited_ms} ms")]
    Timeout {
        /// How long it was.
        waited_ms: u128,
    },
    /// An index of the store is impossible.
    #[error("the store broke the ring: {0}")]
    Ring(#[from] RingError),
    /// The store set the page's error field.
    #[error("the store gave up the connection with error {0}")]
    GivenUp(u32),
    /// What came is not a reply or event.
    #[error("bad message of the store: {0}")]
    Message(&'static str),
    /// The request is over [`xs_protocol::PAYLOAD_MAX`], or too many wait already.
    #[error("the request is too long")]
    TooLong,
    /// [`crate::limits::EVENTS_MAX`] events wait.
    #[error("too many watch events wait")]
    TooManyEvents,
    /// A transaction met conflicts [`crate::limits::TRANSACTION_TRIES_MAX`] times.
    #[error("the transaction always met conflicts")]
    Conflicts,
    /// The host refused.
    #[error(transparent)]
    Host(#[from] hypervisor::Error),
    /// The store's Unix socket.
    #[error("the store's socket: {0}")]
    Socket(std::io::Error),
    /// The backend does not copy into the guest's pages; Linux gives up such an interface.
    #[error("the backend does not offer feature-rx-copy")]
    NoRxCopy,
    /// A node does not hold what it should.
    #[error("{path} holds no {kind}")]
    Node {
        /// Which.
        path: String,
        /// What it should hold.
        kind: &'static str,
    },
    /// The guest's memory is too small for another interface.
    #[error("no pages are left for {path}")]
    Pages {
        /// The device.
        path: String,
    },
    /// The kernel refused to wait.
    #[error("poll: {0}")]
    Poll(rustix::io::Errno),
}

impl Error {
    /// Did the store answer so?
    pub fn is(&self, error: XsError) -> bool {
        matches!(self, Self::Store(ours) if *ours == error)
    }
}
