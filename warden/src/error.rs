//! What can go wrong in the warden.

use std::path::PathBuf;

use crate::ids::ServiceId;

/// Why the warden could not begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another warden has the run directory.
    #[error("another warden runs in {}", rundir.display())]
    AlreadyRunning {
        /// The run directory.
        rundir: PathBuf,
    },
    /// What an earlier warden wrote down cannot be read: its services may live and serve, and a second group beside them
    /// would serve the same guests.
    #[error("{}: {why}; end the services of the earlier warden, then remove the file", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The services that live belong to a group of another shape.
    #[error("a group of {found} runs; it cannot be adopted as one of {asked}")]
    Shape {
        /// What an earlier warden started.
        found: String,
        /// What is asked for.
        asked: String,
    },
    /// A file or socket could not be made.
    #[error("{}: {source}", path.display())]
    Path {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A call failed.
    #[error("{call}: {source}")]
    System {
        /// The call.
        call: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// The group cannot be: the number of replicas is out of bounds.
    #[error("{count} replicas; from 1 to {max} are possible")]
    Replicas {
        /// Those asked for.
        count: usize,
        /// The bound.
        max: u32,
    },
    /// The group cannot be: too many members.
    #[error("{count} members of an engine; at most {max} are possible")]
    Members {
        /// Those asked for.
        count: usize,
        /// The bound.
        max: u32,
    },
    /// A descriptor cannot be kept.
    #[error("cannot keep the descriptor {name:?}: {why}")]
    Keep {
        /// Its name, cut.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The gRPC address is not of this machine alone.
    #[error("gRPC is not served on {0}: only a loopback address is possible")]
    NotLoopback(std::net::SocketAddr),
    /// The board cannot be read.
    #[error("board: {0}")]
    Board(#[from] xs_shm::RegionError),
    /// The reflection service could not be built.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The group ended because this service died too often before it was of use.
    #[error("{0} died too often before it was of use; the group was stopped")]
    GaveUp(ServiceId),
}

impl Error {
    pub(crate) fn system<E: Into<std::io::Error>>(call: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System { call, source: source.into() }
    }

    pub(crate) fn path<E: Into<std::io::Error>>(path: impl Into<PathBuf>) -> impl FnOnce(E) -> Self {
        move |source| Self::Path { path: path.into(), source: source.into() }
    }
}
