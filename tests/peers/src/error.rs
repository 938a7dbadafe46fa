//! Errors.

use std::path::PathBuf;

use hypervisor::DomId;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong with a daemon under test.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stock daemons are not there.
    #[error("{0} is nowhere: run `deploy/packages test` (looked in {1:?})")]
    Missing(&'static str, Vec<PathBuf>),
    /// A binary of this workspace is not there.
    #[error("{} is missing: build the workspace first", .0.display())]
    NotBuilt(PathBuf),
    /// gcc could not be started.
    #[error("gcc does not start ({0}): run `deploy/packages test`")]
    NoCompiler(std::io::Error),
    /// The stand-in for the Xen libraries does not build.
    #[error("fakexen.c does not compile:\n{0}")]
    Compile(String),
    /// A daemon ended or took no client in time.
    #[error("{name} {what}; its log:\n{log}")]
    NotServing {
        /// Which daemon.
        name: String,
        /// What it did.
        what: String,
        /// The end of its log.
        log: String,
    },
    /// A file, socket or process.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A domid out of the range of real domains, or domain 0.
    #[error("domain {0} cannot be made or changed")]
    Domid(DomId),
    /// The hypervisor's stand-in.
    #[error(transparent)]
    Host(#[from] hypervisor::Error),
    /// The guest's end of a ring.
    #[error(transparent)]
    Guest(#[from] sim_guest::Error),
}

/// For `map_err`: names what was tried.
pub(crate) fn system<E: Into<std::io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Error {
    let what = what.into();
    move |source| Error::System { what, source: source.into() }
}
