//! What a scenario needs of a store daemon.

use std::path::PathBuf;

use hypervisor::DomId;
use sim_guest::Guest;

use crate::Result;

/// State of a domain as the hypervisor tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainState {
    /// It runs.
    Running,
    /// It shut down and waits for the toolstack.
    Shutdown,
    /// It is being destroyed: its page is still there.
    Dying,
    /// There is no such domain.
    Gone,
}

/// A running store daemon with a hypervisor that the scenario plays. It ends with the value.
pub trait Daemon: Send {
    /// Its name, for reports.
    fn name(&self) -> &str;

    /// The store's socket.
    fn socket(&self) -> PathBuf;

    /// Makes a domain with an empty store page. Gives the port for INTRODUCE, whose frame number is `1`.
    ///
    /// # Errors
    /// If there is such a domain, or the hypervisor's stand-in fails.
    fn create_domain(&mut self, domid: DomId) -> Result<u32>;

    /// The guest's end of the domain's ring.
    ///
    /// # Errors
    /// If there is no such domain.
    fn attach(&self, domid: DomId) -> Result<Guest>;

    /// Changes a domain's state and raises VIRQ_DOM_EXC. The daemon sees it before any request that is sent later.
    ///
    /// # Errors
    /// If there is no such domain.
    fn set_state(&mut self, domid: DomId, state: DomainState) -> Result<()>;

    /// All its processes.
    fn pids(&self) -> Vec<u32>;

    /// The end of its log, for a failure's report.
    fn log(&self) -> String;
}
