//! This workspace's store in the local profile.

use std::path::{Path, PathBuf};
use std::process::Command;

use hypervisor::local::{Broker, NewDomain};
use hypervisor::{DomId, HostSpec};
use sim_guest::Guest;

use crate::error::{Error, Result, system};
use crate::process::Process;
use crate::{Daemon, DomainState};

/// The programs that make our store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    /// The store.
    pub xs_uk: PathBuf,
    /// The hypervisor's stand-in.
    pub broker: PathBuf,
}

impl Binaries {
    /// Those that [`beside_us`] finds.
    ///
    /// # Errors
    /// [`Error::NotBuilt`].
    pub fn beside_us() -> Result<Self> {
        Ok(Self { xs_uk: beside_us("xs_uk")?, broker: beside_us("ppvmm-hv")? })
    }
}

/// A program beside the running one, or one folder up from a test's.
///
/// # Errors
/// [`Error::NotBuilt`].
pub fn beside_us(name: &str) -> Result<PathBuf> {
    let mut path = std::env::current_exe().map_err(system("the program's own path"))?;
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    path.push(name);
    if path.exists() { Ok(path) } else { Err(Error::NotBuilt(path)) }
}

/// Our store with its broker; asked to end when dropped.
pub struct Ours {
    dir: PathBuf,
    hypervisor: Broker,
    // In the order of their end: the store before the hypervisor.
    store: Process,
    broker: Process,
}

impl Ours {
    /// Starts it with its files in `dir`, which is made if need be, and waits until it takes clients.
    ///
    /// # Errors
    /// If it does not begin to serve.
    pub fn start(binaries: &Binaries, dir: &Path, flags: &[&str]) -> Result<Self> {
        std::fs::create_dir_all(dir).map_err(system(dir.display().to_string()))?;
        let hv = dir.join(HostSpec::LOCAL_SOCKET_NAME);
        let mut command = Command::new(&binaries.broker);
        let mut broker = Process::spawn("ppvmm-hv", dir, command.arg("--socket").arg(&hv), true)?;
        broker.wait_until(|| Broker::connect(&hv).is_ok())?;
        let mut command = Command::new(&binaries.xs_uk);
        command.args(["-N", "--profile", "local", "--rundir"]).arg(dir).args(flags);
        command.env_remove("XENSTORED_PATH");
        let mut store = Process::spawn("xs_uk", dir, &mut command, true)?;
        store.wait_for_socket(&dir.join("socket"))?;
        Ok(Self { dir: dir.to_path_buf(), hypervisor: Broker::connect(&hv)?, store, broker })
    }

    /// The hypervisor's stand-in.
    pub fn hypervisor(&self) -> &Broker {
        &self.hypervisor
    }

    /// The directory of its files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Daemon for Ours {
    fn name(&self) -> &str {
        "xs_uk"
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("socket")
    }

    fn create_domain(&mut self, domid: DomId) -> Result<u32> {
        self.hypervisor.create_domain(NewDomain { domid: Some(domid), handle: None })?;
        Ok(self.hypervisor.store_port(domid)?.0)
    }

    fn attach(&self, domid: DomId) -> Result<Guest> {
        Ok(Guest::attach(&self.dir.join(HostSpec::LOCAL_SOCKET_NAME), domid)?)
    }

    fn set_state(&mut self, domid: DomId, state: DomainState) -> Result<()> {
        match state {
            DomainState::Running => self.hypervisor.resume(domid)?,
            DomainState::Shutdown => self.hypervisor.shutdown(domid, 0)?,
            DomainState::Dying => self.hypervisor.set_dying(domid)?,
            DomainState::Gone => self.hypervisor.destroy(domid)?,
        }
        Ok(())
    }

    fn pids(&self) -> Vec<u32> {
        family(self.store.id())
    }

    fn log(&self) -> String {
        format!("{}\n{}", self.store.log(), self.broker.log())
    }
}

/// A process and all its descendants.
fn family(root: u32) -> Vec<u32> {
    let mut pids = vec![root];
    let mut at = 0;
    while let Some(pid) = pids.get(at) {
        // Every thread may have children of its own.
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let children: Vec<u32> = tasks
            .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
            .flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
            .collect();
        pids.extend(children);
        at += 1;
    }
    pids
}
