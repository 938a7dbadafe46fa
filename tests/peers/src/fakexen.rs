//! The hypervisor's side of `fakexen.c`: domains, pages and event channels in a directory.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hypervisor::{DomId, PAGE_BYTES, Page};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use sim_guest::{Bell, Guest};

use crate::DomainState;
use crate::error::{Error, Result, system};
use crate::limits::NOTICE_WAIT;

/// Domids of real domains end here (`DOMID_FIRST_RESERVED`).
const DOMIDS: u16 = 0x7ff0;
const PORT_VIRQ: u32 = 1;
const PORT_FIRST: u32 = 100;

/// The directory that `fakexen.so` serves the daemon from.
pub(crate) struct FakeXen {
    dir: PathBuf,
    domains: File,
    events: File,
}

impl FakeXen {
    /// Makes the files, so that no domain is there but domain 0.
    pub(crate) fn create(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir).map_err(system(dir.display().to_string()))?;
        let path = dir.join("domains");
        let domains = File::create(&path).map_err(system(path.display().to_string()))?;
        domains.set_len(DOMIDS.into()).map_err(system("make room for the domains"))?;
        let events = fifo(&dir.join("events"))?;
        let fake = Self { dir: dir.to_path_buf(), domains, events };
        fake.make_endpoints(DomId::DOM0)?;
        Ok(fake)
    }

    pub(crate) fn create_domain(&self, domid: DomId) -> Result<u32> {
        if domid == DomId::DOM0 || domid.0 >= DOMIDS || self.exists(domid)? {
            return Err(Error::Domid(domid));
        }
        self.make_endpoints(domid)?;
        self.note(domid, DomainState::Running)?;
        Ok(PORT_FIRST + u32::from(domid.0))
    }

    pub(crate) fn set_state(&self, domid: DomId, state: DomainState) -> Result<()> {
        if domid == DomId::DOM0 || domid.0 >= DOMIDS || !self.exists(domid)? {
            return Err(Error::Domid(domid));
        }
        self.note(domid, state)?;
        notify(&self.events, PORT_VIRQ).map_err(system("raise the virq"))?;
        self.wait_until_taken();
        Ok(())
    }

    /// The daemon takes one notice a turn, so the virq may wait behind many. A daemon that is dead takes none.
    fn wait_until_taken(&self) {
        let began = Instant::now();
        while began.elapsed() < NOTICE_WAIT
            && rustix::io::ioctl_fionread(&self.events).is_ok_and(|left| left > 0)
        {
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// The guest's end of a domain's ring.
    pub(crate) fn attach(&self, domid: DomId) -> Result<Guest> {
        let ring = open(&self.ring(domid))?;
        let from_store = open(&self.bell(domid))?;
        let to_store = self.events.try_clone().map_err(system("duplicate the events' FIFO"))?;
        let bell = FifoBell { to_store, from_store, port: PORT_FIRST + u32::from(domid.0) };
        Ok(Guest::over(Page::of_file(&ring)?, Box::new(bell)))
    }

    /// A fresh page and bell: a new file, so that a former domain of this number keeps its own.
    fn make_endpoints(&self, domid: DomId) -> Result<()> {
        let path = self.ring(domid);
        // It is missing at first.
        let _ = std::fs::remove_file(&path);
        let ring = File::create(&path).map_err(system(path.display().to_string()))?;
        ring.set_len(PAGE_BYTES as u64).map_err(system("make a page"))?;
        fifo(&self.bell(domid)).map(drop)
    }

    fn exists(&self, domid: DomId) -> Result<bool> {
        let domains = open(&self.dir.join("domains"))?;
        let mut state = [0];
        domains.read_exact_at(&mut state, domid.0.into()).map_err(system("read a domain's state"))?;
        Ok(state != [0])
    }

    fn note(&self, domid: DomId, state: DomainState) -> Result<()> {
        let byte = match state {
            DomainState::Running => 1,
            DomainState::Shutdown => 1 | 2,
            DomainState::Dying => 1 | 4,
            DomainState::Gone => 0,
        };
        self.domains.write_all_at(&[byte], domid.0.into()).map_err(system("note a domain's state"))
    }

    fn ring(&self, domid: DomId) -> PathBuf {
        self.dir.join(format!("ring.{domid}"))
    }

    fn bell(&self, domid: DomId) -> PathBuf {
        self.dir.join(format!("bell.{domid}"))
    }
}

/// FIFOs both ways.
#[derive(Debug)]
struct FifoBell {
    to_store: File,
    from_store: File,
    port: u32,
}

impl Bell for FifoBell {
    fn ring(&mut self) -> hypervisor::Result<()> {
        notify(&self.to_store, self.port).map_err(|error| hypervisor::Error::System {
            what: "notify the daemon",
            source: rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO),
        })
    }

    fn wait_fd(&self) -> BorrowedFd<'_> {
        self.from_store.as_fd()
    }

    fn take(&mut self) -> hypervisor::Result<()> {
        let mut notices = [0; 4096];
        // Empty is what is wanted.
        while self.from_store.read(&mut notices).is_ok_and(|count| count == notices.len()) {}
        Ok(())
    }
}

/// Waits while the FIFO is full: unlike real event channels it counts its notices.
fn notify(mut fifo: &File, port: u32) -> std::io::Result<()> {
    let began = Instant::now();
    loop {
        match fifo.write_all(&port.to_ne_bytes()) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && began.elapsed() < NOTICE_WAIT => {
                std::thread::yield_now();
            }
            other => return other,
        }
    }
}

fn fifo(path: &Path) -> Result<File> {
    let _ = std::fs::remove_file(path);
    let mode = Mode::RUSR | Mode::WUSR;
    mknodat(CWD, path, FileType::Fifo, mode, 0).map_err(system(path.display().to_string()))?;
    open(path)
}

fn open(path: &Path) -> Result<File> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(flags);
    options.open(path).map_err(system(path.display().to_string()))
}
