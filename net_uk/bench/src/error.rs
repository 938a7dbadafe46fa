//! Errors.

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in a measurement.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No line has this name.
    #[error("no line {0:?}; --list names them")]
    UnknownLine(String),
    /// The stand.
    #[error(transparent)]
    Stand(#[from] net_stand::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] peers::Error),
    /// The network card's description.
    #[error(transparent)]
    Nic(#[from] nic::NicError),
    /// The driver alone.
    #[error("the driver: {0}")]
    Driver(String),
    /// Something did not happen in time.
    #[error("waited in vain: {0}")]
    Late(&'static str),
    /// The system.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Error {
    /// Is it the command line's fault?
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::UnknownLine(_))
    }
}

/// For `map_err`: names what was tried.
pub(crate) fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::System { what, source }
}
