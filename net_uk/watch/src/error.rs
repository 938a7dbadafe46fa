//! Errors.

use crate::ladder::NicId;

/// Result of this crate.
pub type Result<T, E = WatchError> = std::result::Result<T, E>;

/// What can go wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// More NICs than a ladder takes.
    #[error("{nics} NICs are more than {max}")]
    TooManyNics {
        /// As many as were asked for.
        nics: usize,
        /// The bound.
        max: usize,
    },
    /// The same NIC twice.
    #[error("NIC {0} is listed twice")]
    NicTwice(NicId),
    /// A frame's payload that is too short for a sequence number and a checksum.
    #[error("a payload of {length_bytes} bytes has no room for the {min} bytes of a number and a checksum")]
    PayloadTooShort {
        /// Its length.
        length_bytes: usize,
        /// The least length.
        min: usize,
    },
    /// A window that cannot be kept.
    #[error("a window of {window} numbers is not within 64..={max}")]
    WindowRange {
        /// Its size.
        window: u64,
        /// The bound.
        max: u64,
    },
}
