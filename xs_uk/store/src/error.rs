//! Errors of the codecs.

/// Why bytes could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A log entry is too short or has fields out of range.
    #[error("malformed log entry of {bytes} bytes: {what}")]
    MalformedEntry {
        /// The entry's length.
        bytes: usize,
        /// The field.
        what: &'static str,
    },
    /// A log entry has a version or kind of a newer program.
    #[error("log entry of unknown version {version} or kind {kind}")]
    UnknownEntry {
        /// The version byte.
        version: u8,
        /// The kind byte.
        kind: u8,
    },
    /// A snapshot is of a newer version.
    #[error("snapshot of unknown version {version}")]
    UnknownSnapshot {
        /// The snapshot's version.
        version: u32,
    },
    /// A snapshot is no valid message.
    #[error("snapshot does not decode: {0}")]
    Snapshot(#[from] prost::DecodeError),
    /// Bytes that are no [`crate::NodeCopy`].
    #[error("malformed copy of a node in {bytes} bytes: {what}")]
    MalformedCopy {
        /// Their number.
        bytes: usize,
        /// The field.
        what: &'static str,
    },
    /// A node cannot be put right in place.
    #[error("{path} cannot be mended: {what}")]
    Unmendable {
        /// The node.
        path: String,
        /// Why.
        what: &'static str,
    },
    /// The store is damaged.
    #[error(transparent)]
    Damaged(#[from] crate::Damage),
    /// A snapshot contradicts itself.
    #[error("snapshot is inconsistent: {what}")]
    InconsistentSnapshot {
        /// What is wrong.
        what: &'static str,
    },
}
