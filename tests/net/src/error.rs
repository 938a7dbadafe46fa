//! Errors.

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong on the stand.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command `ip` or `tc` refused.
    #[error("{program} {arguments}: {message}")]
    Ip {
        /// Which of them.
        program: &'static str,
        /// What was asked.
        arguments: String,
        /// What it said.
        message: String,
    },
    /// The system refused.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A network card's interface failed.
    #[error(transparent)]
    Nic(#[from] nic::NicError),
    /// A lane makes no sense.
    #[error(transparent)]
    Lane(#[from] lane::LaneError),
    /// Shared memory could not be made.
    #[error(transparent)]
    Region(#[from] hypervisor::RegionError),
    /// The keeper ended, or says nothing.
    #[error("the keeper {what}; its last events: {events:?}")]
    Keeper {
        /// What it does.
        what: &'static str,
        /// What it told before.
        events: Vec<String>,
    },
    /// A guest says nothing, or its backend broke its interface.
    #[error("a guest {what}: {text}")]
    Guest {
        /// What is wrong.
        what: &'static str,
        /// What it told.
        text: String,
    },
    /// An endpoint's thread panicked.
    #[error("an endpoint's thread failed")]
    Thread,
}

/// For `map_err`: names what was tried.
pub(crate) fn system<E: Into<std::io::Error>>(what: &'static str) -> impl FnOnce(E) -> Error {
    move |source| Error::System { what, source: source.into() }
}
