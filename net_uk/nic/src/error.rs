//! What can go wrong with a network card.

use lane::LaneError;

/// What can go wrong with a network card.
#[derive(Debug, thiserror::Error)]
pub enum NicError {
    /// The kernel refused.
    #[error("{call}: {source}")]
    System {
        /// The call.
        call: &'static str,
        /// Its error.
        source: std::io::Error,
    },
    /// The kernel has no `AF_XDP`, or does not let this process use it for this device.
    #[error("AF_XDP cannot be used here: {what} ({call}: {source})")]
    Xdp {
        /// What is missing.
        what: &'static str,
        /// The call.
        call: &'static str,
        /// Its error.
        source: std::io::Error,
    },
    /// A specification is out of bounds or contradicts itself.
    #[error("network card {text:?}: {reason}")]
    Spec {
        /// The specification.
        text: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// There are not as many descriptors as this kind of network card has.
    #[error("{have} descriptors for a network card that has {need}")]
    Descriptors {
        /// Descriptors given.
        have: usize,
        /// Descriptors needed.
        need: usize,
    },
    /// The rings of this socket have served another lane; their position is unknown.
    #[error("the socket has served another lane")]
    Used,
    /// The other side of the lane wrote nonsense.
    #[error(transparent)]
    Lane(#[from] LaneError),
}

/// The result of everything here.
pub type Result<T> = std::result::Result<T, NicError>;

pub(crate) fn last_error(call: &'static str) -> NicError {
    NicError::System { call, source: std::io::Error::last_os_error() }
}

pub(crate) fn system(call: &'static str) -> impl Fn(rustix::io::Errno) -> NicError {
    move |errno| NicError::System { call, source: errno.into() }
}
