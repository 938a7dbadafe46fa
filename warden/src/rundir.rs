//! The run directory of one warden.

use std::fs::File;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::error::Error;

const LOCK_NAME: &str = "ppvmm.lock";

/// Lines of `PID START`: the services, and when each began in clock ticks since boot, so that a pid that another
/// program got later is not taken for a service.
const PIDS_NAME: &str = "ppvmm.pids";

/// A run directory that this process alone has. To be taken before any socket in it is bound: binding takes the place
/// of another warden's socket.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    _lock: File,
}

impl RunDir {
    /// Makes the directory for its owner alone if it is not there, and locks it. The lock ends with the process.
    ///
    /// # Errors
    /// [`Error::AlreadyRunning`] if another warden has it; [`Error::LeftOver`] if services of a killed one live;
    /// [`Error::Path`] if it cannot be made or belongs to another
    /// user.
    pub fn take(path: &Path) -> Result<Self, Error> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(path).map_err(Error::path(path))?;
        check_owner(path)?;
        let lock_path = path.join(LOCK_NAME);
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(Error::path(&lock_path))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => refuse_left_over(path).map(|()| Self { path: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::AlreadyRunning { rundir: path.to_owned() }),
            Err(error) => Err(Error::path(lock_path)(error)),
        }
    }

    /// Writes down which services live, for the next warden in case this one is killed.
    ///
    /// # Errors
    /// [`Error::Path`].
    pub fn record(&self, pids: &[u32]) -> Result<(), Error> {
        let path = self.path.join(PIDS_NAME);
        let fresh = self.path.join(format!("{PIDS_NAME}.new"));
        let lines = pids.iter().filter_map(|pid| Some(format!("{pid} {}\n", start_of(*pid)?)));
        std::fs::write(&fresh, lines.collect::<String>()).map_err(Error::path(&fresh))?;
        std::fs::rename(&fresh, &path).map_err(Error::path(&path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn refuse_left_over(rundir: &Path) -> Result<(), Error> {
    let text = std::fs::read_to_string(rundir.join(PIDS_NAME)).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    let recorded = lines.filter_map(|(pid, start)| Some((pid.parse().ok()?, start.parse().ok()?)));
    let pids: Vec<u32> =
        recorded.filter(|&(pid, start)| start_of(pid) == Some(start)).map(|(pid, _)| pid).collect();
    match pids.is_empty() {
        true => Ok(()),
        false => Err(Error::LeftOver { rundir: rundir.to_owned(), pids }),
    }
}

/// When a live process began (proc_pid_stat(5): field 22; the name in field 2 may hold anything). None for a zombie.
fn start_of(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    (!matches!(state, "Z" | "X")).then(|| fields.nth(18)?.parse().ok()).flatten()
}

/// In a directory of somebody else, sockets and lock would be theirs to replace.
fn check_owner(path: &Path) -> Result<(), Error> {
    let owner = std::fs::symlink_metadata(path).map_err(Error::path(path))?.uid();
    if owner == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    let source =
        std::io::Error::new(std::io::ErrorKind::PermissionDenied, format!("belongs to user {owner}"));
    Err(Error::Path { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn one_process_at_a_time_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let first = RunDir::take(&path).unwrap();
        assert!(matches!(RunDir::take(&path), Err(Error::AlreadyRunning { .. })));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        drop(first);
        RunDir::take(&path).unwrap();
    }

    #[test]
    fn services_that_outlived_their_warden_are_not_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let killed = RunDir::take(dir.path()).unwrap();
        killed.record(&[child.id()]).unwrap();
        drop(killed);
        let refused = RunDir::take(dir.path());
        assert!(matches!(refused, Err(Error::LeftOver { pids, .. }) if pids == [child.id()]));
        child.kill().unwrap();
        child.wait().unwrap();
        RunDir::take(dir.path()).unwrap();
    }

    #[test]
    fn a_pid_of_another_program_is_no_left_over() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(PIDS_NAME), format!("{} 1\nrubbish\n1 x\n", std::process::id()))
            .unwrap();
        RunDir::take(dir.path()).unwrap();
    }
}
