//! Errors.

use xs_protocol::MessageType;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in a measurement.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No line has this name.
    #[error("no line {0:?}; --list names them")]
    UnknownLine(String),
    /// The store answered with an error.
    #[error("{} is answered with {name}", .request.name())]
    Refused {
        /// What was asked.
        request: MessageType,
        /// The error's name.
        name: String,
    },
    /// An answer that fits no request.
    #[error("{0}")]
    Protocol(&'static str),
    /// [`crate::limits::FILL_WAIT`] is over.
    #[error("{done} requests after {seconds} s: given up")]
    TooSlow {
        /// How many were answered.
        done: usize,
        /// How long it took.
        seconds: u64,
    },
    /// A client's thread panicked.
    #[error("a client's thread failed")]
    Thread,
    /// The system.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A daemon.
    #[error(transparent)]
    Daemon(#[from] peers::Error),
    /// etcd, asked by a plain client.
    #[error("etcd: {0}")]
    Etcd(#[from] etcd_client::Error),
    /// The channel to etcd.
    #[error(transparent)]
    EtcdChannel(#[from] xs_etcd::EtcdError),
    /// A guest's ring.
    #[error(transparent)]
    Guest(#[from] sim_guest::Error),
}

impl Error {
    /// Is it the command line's fault?
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::UnknownLine(_))
    }

    /// Did the store answer with this error?
    pub fn is_refusal(&self, wanted: &str) -> bool {
        matches!(self, Self::Refused { name, .. } if name == wanted)
    }
}

/// For `map_err`: names what was tried.
pub(crate) fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::System { what, source }
}
