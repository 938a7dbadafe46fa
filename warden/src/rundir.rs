//! The run directory of one warden.

use std::fs::File;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::FlockOperation;

use crate::error::Error;
use crate::limits::{LOCK_RETRY_MS, LOCK_WAIT_MS};
use crate::state::{State, StateFile};

const LOCK_NAME: &str = "ppvmm.lock";

/// A run directory that this process alone has. To be taken before any socket in it is bound: binding takes the place
/// of another warden's socket.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    state: StateFile,
    found: Option<State>,
    _lock: File,
}

impl RunDir {
    /// Makes the directory for its owner alone if it is not there, and locks it. The lock ends with the process.
    ///
    /// # Errors
    /// [`Error::AlreadyRunning`] if another warden has it; [`Error::State`] if what an earlier one wrote down cannot be
    /// read; [`Error::Path`] if it cannot be made or belongs to another user.
    pub fn take(path: &Path) -> Result<Self, Error> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(path).map_err(Error::path(path))?;
        check_owner(path)?;
        // Services look for the next warden from wherever they run.
        let path = path.canonicalize().map_err(Error::path(path))?;
        let lock_path = path.join(LOCK_NAME);
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(Error::path(&lock_path))?;
        match lock_soon(&lock) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::AlreadyRunning { rundir: path }),
            Err(error) => return Err(Error::path(lock_path)(error)),
        }
        let state = StateFile::in_directory(&path);
        let found = state.read()?.filter(|found| found.services.iter().any(|service| service.lives()));
        Ok(Self { path, state, found, _lock: lock })
    }

    /// What an earlier warden wrote down, if any of its processes lives.
    pub fn found(&self) -> Option<&State> {
        self.found.as_ref()
    }

    /// The name of the group in an engine that outlives it: a new one for each group, kept while one is adopted.
    ///
    /// # Errors
    /// [`Error::Path`].
    pub fn group_id(&self) -> Result<String, Error> {
        let path = self.path.join("group.id");
        if self.found.is_some()
            && let Ok(id) = std::fs::read_to_string(&path)
        {
            return Ok(id.trim().to_owned());
        }
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let id = format!("{:x}-{:x}", since_1970.as_micros(), std::process::id());
        std::fs::write(&path, &id).map_err(Error::path(&path))?;
        Ok(id)
    }

    /// Where the state of the group is written down.
    pub fn state(&self) -> &StateFile {
        &self.state
    }

    /// Where it is, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A killed warden's child that has not become another program yet has the lock for a moment.
fn lock_soon(lock: &File) -> rustix::io::Result<()> {
    let end = Instant::now() + Duration::from_millis(LOCK_WAIT_MS);
    loop {
        match rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(LOCK_RETRY_MS));
            }
            result => return result,
        }
    }
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
    use crate::state::ServiceState;
    use control::proc::Stat;

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
    fn services_that_outlived_their_warden_are_found_and_dead_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let killed = RunDir::take(dir.path()).unwrap();
        let pid = child.id();
        let start_ticks = Stat::of(pid).unwrap().start_ticks;
        let service = ServiceState { pid, start_ticks, ..ServiceState::default() };
        killed.state().write(State { services: vec![service], ..State::default() }).unwrap();
        drop(killed);
        assert_eq!(RunDir::take(dir.path()).unwrap().found().unwrap().services[0].pid, pid);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(RunDir::take(dir.path()).unwrap().found().is_none());
    }

    #[test]
    fn a_state_that_cannot_be_read_is_not_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ppvmm.state"), "rubbish").unwrap();
        assert!(matches!(RunDir::take(dir.path()), Err(Error::State { .. })));
    }
}
