//! Why an engine cannot be made.

use std::path::PathBuf;

/// Why an engine cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    /// An option that makes no sense.
    #[error("etcd options: {what}")]
    Options {
        /// Which.
        what: String,
    },
    /// A file that an option names.
    #[error("{}: {source}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// What the system reports.
        source: std::io::Error,
    },
    /// Setting up the channels.
    #[error("etcd channel: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// Making the thread, its runtime or the eventfd.
    #[error("{call}: {source}")]
    System {
        /// What failed.
        call: &'static str,
        /// What the system reports.
        source: std::io::Error,
    },
}
