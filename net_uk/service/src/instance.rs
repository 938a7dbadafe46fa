//! One service for each run directory, whatever died of it.
//!
//! ```text
//! net_uk.lock    locked as long as a vault or a keeper lives: another start is refused
//! net_uk.parts   locked as long as shadow or driver lives too; holds a line "PID START" for each
//! ```
//! Shadow and drivers outlive everybody else, and a start that began beside them would serve the same rings twice. So it ends
//! what it finds. The kernel says when that is done: a lock lives as long as any copy of its descriptor.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use control::proc;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::process::Signal;

use crate::error::Error;
use crate::limits::{ORPHANS_BYTES_MAX, ORPHANS_LOOK, ORPHANS_WAIT, RUNNING_WAIT};

/// The locks of a service that begins.
#[derive(Debug)]
pub struct Instance {
    /// For vaults and keepers.
    pub watchers: OwnedFd,
    /// For all.
    pub parts: OwnedFd,
}

impl Instance {
    /// Takes a run directory, and ends processes that a former service left there.
    ///
    /// # Errors
    /// [`Error::Running`], [`Error::Orphans`], or what the system says.
    pub fn claim(rundir: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(rundir)?;
        let watchers = open(&rundir.join("net_uk.lock"))?;
        let began = Instant::now();
        // One that is about to end is waited for.
        while !lock(&watchers)? {
            if began.elapsed() > RUNNING_WAIT {
                return Err(Error::Running { rundir: rundir.to_owned() });
            }
            std::thread::sleep(ORPHANS_LOOK);
        }
        let parts = open(&rundir.join("net_uk.parts"))?;
        let began = Instant::now();
        while !lock(&parts)? {
            if began.elapsed() > ORPHANS_WAIT {
                return Err(Error::Orphans { rundir: rundir.to_owned() });
            }
            end_orphans(&parts)?;
            std::thread::sleep(ORPHANS_LOOK);
        }
        parts.set_len(0)?;
        Ok(Self { watchers: watchers.into(), parts: parts.into() })
    }
}

/// Writes down which processes live.
///
/// # Errors
/// What the system says.
pub fn note(parts: &File, processes: impl Iterator<Item = (u32, u64)>) -> Result<(), Error> {
    let text: String = processes.map(|(pid, start_ticks)| format!("{pid} {start_ticks}\n")).collect();
    parts.write_all_at(text.as_bytes(), 0)?;
    Ok(parts.set_len(text.len() as u64)?)
}

fn open(path: &Path) -> Result<File, Error> {
    Ok(File::options().read(true).write(true).create(true).truncate(false).open(path)?)
}

/// False if somebody has it.
fn lock(file: &File) -> Result<bool, Error> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(false),
        Err(source) => Err(Error::System { what: "flock", source }),
    }
}

fn end_orphans(parts: &File) -> Result<(), Error> {
    let mut bytes = vec![0; ORPHANS_BYTES_MAX];
    let length = parts.read_at(&mut bytes, 0)?;
    let text = String::from_utf8_lossy(&bytes[..length]);
    for line in text.lines() {
        let Some((pid, start_ticks)) = line.split_once(' ') else { continue };
        let (Ok(pid), Ok(start_ticks)) = (pid.parse(), start_ticks.parse()) else { continue };
        if let Some(pidfd) = proc::hold(pid, start_ticks) {
            tracing::warn!(pid, "a process that a former service left is ended");
            let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_second_service_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let first = Instance::claim(dir.path()).unwrap();
        assert!(matches!(Instance::claim(dir.path()), Err(Error::Running { .. })));
        drop(first);
        Instance::claim(dir.path()).unwrap();
    }

    #[test]
    fn what_a_former_service_left_is_ended_before_the_next_begins() {
        let dir = tempfile::tempdir().unwrap();
        let first = Instance::claim(dir.path()).unwrap();
        let parts = File::from(first.parts);
        // It has the lock as its standard input.
        let stdin = Stdio::from(OwnedFd::from(parts.try_clone().unwrap()));
        let mut orphan = Command::new("sleep").arg("60").stdin(stdin).spawn().unwrap();
        let start_ticks = proc::Stat::of(orphan.id()).unwrap().start_ticks;
        note(&parts, [(orphan.id(), start_ticks), (1, 0)].into_iter()).unwrap();
        drop((parts, first.watchers));
        Instance::claim(dir.path()).unwrap();
        assert!(!orphan.wait().unwrap().success());
    }

    #[test]
    fn one_that_is_not_known_is_waited_for_in_vain() {
        let dir = tempfile::tempdir().unwrap();
        let first = Instance::claim(dir.path()).unwrap();
        drop(first.watchers);
        assert!(matches!(Instance::claim(dir.path()), Err(Error::Orphans { .. })));
    }
}
