//! The run directory of one warden.

use std::fs::File;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::error::Error;

const LOCK_NAME: &str = "ppvmm.lock";

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
    /// [`Error::AlreadyRunning`] if another warden has it; [`Error::Path`] if it cannot be made or belongs to another
    /// user.
    pub fn take(path: &Path) -> Result<Self, Error> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(path).map_err(Error::path(path))?;
        check_owner(path)?;
        let lock_path = path.join(LOCK_NAME);
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(Error::path(&lock_path))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::AlreadyRunning { rundir: path.to_owned() }),
            Err(error) => Err(Error::path(lock_path)(error)),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
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
}
