//! etcd's errors, with the codes and words of its gRPC interface (`api/v3rpc/rpctypes/error.go`).

use tonic::{Code, Status};

/// What etcd answers to a request that it refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EtcdError {
    /// A key is missing.
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    /// A value was given together with `ignore_value`.
    #[error("etcdserver: value is provided")]
    ValueProvided,
    /// A lease was given together with `ignore_lease`.
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    /// `ignore_value` or `ignore_lease` of a key that does not exist.
    #[error("etcdserver: key not found")]
    KeyNotFound,
    /// The request names a lease, and this etcd has none.
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    /// One key is put twice, or put and deleted, in one transaction.
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    /// More than [`crate::limits::TXN_OPS_MAX`] operations.
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    /// More than [`crate::limits::REQUEST_BYTES_MAX`].
    #[error("etcdserver: request is too large")]
    TooLarge,
    /// The revision was compacted.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    /// The revision is yet to come.
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    /// The alarm for want of space is raised.
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace,
    /// The member knows no leader.
    #[error("etcdserver: no leader")]
    NoLeader,
    /// The request got no majority in time; it may still get one.
    #[error("etcdserver: request timed out")]
    Timeout,
    /// More proposals wait than there is room for.
    #[error("etcdserver: too many requests")]
    TooManyRequests,
    /// A request that this etcd does not know, or of a form that no client sends.
    #[error("{0}")]
    Unsupported(&'static str),
}

impl EtcdError {
    /// The code that etcd sends with it.
    pub fn code(&self) -> Code {
        match self {
            Self::Compacted | Self::FutureRevision => Code::OutOfRange,
            Self::LeaseNotFound => Code::NotFound,
            Self::NoSpace | Self::TooManyRequests => Code::ResourceExhausted,
            Self::NoLeader | Self::Timeout => Code::Unavailable,
            Self::Unsupported(_) => Code::Unimplemented,
            _ => Code::InvalidArgument,
        }
    }
}

impl From<EtcdError> for Status {
    fn from(error: EtcdError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
