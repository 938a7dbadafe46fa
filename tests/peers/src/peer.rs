//! A stock daemon.

use std::path::{Path, PathBuf};
use std::process::Command;

use hypervisor::DomId;
use sim_guest::Guest;

use crate::error::{Result, system};
use crate::fakexen::FakeXen;
use crate::install::Installation;
use crate::process::Process;
use crate::{Daemon, DomainState};

/// Which stock daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The C daemon.
    Xenstored,
    /// The OCaml daemon.
    Oxenstored,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Xenstored, Self::Oxenstored];

    /// The program's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xenstored => "xenstored",
            Self::Oxenstored => "oxenstored",
        }
    }
}

/// A stock daemon of Debian's Xen 4.17 that runs without Xen; killed when dropped.
pub struct Peer {
    kind: Kind,
    dir: PathBuf,
    process: Process,
    fake: FakeXen,
}

impl Peer {
    /// Starts it with its files in `dir`, which is made if need be, and waits until it takes clients. `flags` are the
    /// daemon's own.
    ///
    /// # Errors
    /// If it is not installed, or does not begin to serve.
    pub fn start(kind: Kind, dir: &Path, flags: &[&str]) -> Result<Self> {
        std::fs::create_dir_all(dir).map_err(system(dir.display().to_string()))?;
        let dir = dir.canonicalize().map_err(system(dir.display().to_string()))?;
        let fake = FakeXen::create(&dir)?;
        let mut command = Self::command(kind, &dir, flags)?;
        let mut process = Process::spawn(kind.name(), &dir, &mut command, false)?;
        process.wait_for_socket(&dir.join("socket"))?;
        Ok(Self { kind, dir, process, fake })
    }

    /// The command that runs it in the foreground, once `dir` has what `fakexen.so` serves it from.
    fn command(kind: Kind, dir: &Path, flags: &[&str]) -> Result<Command> {
        let found = Installation::find()?;
        let mut command = Command::new(found.program(kind.name()));
        match kind {
            Kind::Xenstored => command.arg("-N"),
            Kind::Oxenstored => {
                let conf = dir.join("oxenstored.conf");
                std::fs::write(&conf, oxenstored_conf(&found, dir)).map_err(system("oxenstored.conf"))?;
                command.arg("--no-fork").arg("--config-file").arg(conf)
            }
        };
        command
            .args(flags)
            .env("LD_PRELOAD", found.fakexen()?)
            .env("LD_LIBRARY_PATH", found.libraries())
            .env("FAKEXEN_DIR", dir)
            .env("XENSTORED_RUNDIR", dir)
            .env("XENSTORED_ROOTDIR", dir)
            .env("XENSTORED_PATH", dir.join("socket"));
        Ok(command)
    }

    /// Which daemon it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The directory of its files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Daemon for Peer {
    fn name(&self) -> &str {
        self.kind.name()
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("socket")
    }

    fn create_domain(&mut self, domid: DomId) -> Result<u32> {
        self.fake.create_domain(domid)
    }

    fn attach(&self, domid: DomId) -> Result<Guest> {
        self.fake.attach(domid)
    }

    fn set_state(&mut self, domid: DomId, state: DomainState) -> Result<()> {
        self.fake.set_state(domid, state)
    }

    fn pids(&self) -> Vec<u32> {
        vec![self.process.id()]
    }

    fn log(&self) -> String {
        self.process.log()
    }
}

/// Stock settings; the last one counts. Without the access log, whose rotation would be measured too.
fn oxenstored_conf(found: &Installation, dir: &Path) -> String {
    let place = dir.display();
    format!(
        "{}\npid-file = {place}/pid\nxenstored-log-file = {place}/oxenstored-own.log\n\
         access-log-file = {place}/access.log\nactivate-access-log = false\n",
        found.oxenstored_conf()
    )
}
