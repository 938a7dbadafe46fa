//! A second process with the same table of descriptors: what either opens is open in both, and stays so until both are
//! gone.
//!
//! A socket that `accept` gives is in that table before the call returns, so the death of one process at any instant
//! takes no descriptor with it. Nothing else has this property: a duplicate has to be made after the fact.

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use rustix::process::{Pid, PidfdFlags};

/// Why there is no second process.
#[derive(Debug, thiserror::Error)]
pub enum SplitError {
    /// The copy of a process with several threads has locks that nobody will ever release.
    #[error("{threads} threads run: only a process with one can be split")]
    Threads {
        /// Their number.
        threads: usize,
    },
    /// The list of threads.
    #[error("/proc/self/task: {0}")]
    Tasks(std::io::Error),
    /// The kernel refused.
    #[error("{call}: {source}")]
    System {
        /// The call.
        call: &'static str,
        /// Its error.
        source: std::io::Error,
    },
}

/// Which of the two processes this is.
#[derive(Debug)]
pub enum Split {
    /// The one that was there before, with a pidfd of the other.
    First(OwnedFd),
    /// The copy, with a pidfd of the one that was there before. Whatever it drops is closed in both.
    Second(OwnedFd),
}

/// Splits the process. Memory is copied as by `fork`; the table of descriptors is shared.
///
/// # Errors
/// [`SplitError`].
pub fn split() -> Result<Split, SplitError> {
    let threads = std::fs::read_dir("/proc/self/task").map_err(SplitError::Tasks)?.count();
    if threads != 1 {
        return Err(SplitError::Threads { threads });
    }
    let first = pidfd(rustix::process::getpid())?;
    let flags = libc::CLONE_FILES | libc::SIGCHLD;
    // SAFETY: without a stack of its own and without CLONE_VM this is `fork`: the copy goes on here in its own copy of
    // the memory. There is one thread, so the copy is of a consistent state.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(flags), 0, 0, 0, 0) };
    if pid < 0 {
        return Err(SplitError::System { call: "clone", source: std::io::Error::last_os_error() });
    }
    match i32::try_from(pid).ok().and_then(Pid::from_raw) {
        None => Ok(Split::Second(first)),
        // `first` stays open: it is the other's too.
        Some(second) => {
            std::mem::forget(first);
            Ok(Split::First(pidfd(second)?))
        }
    }
}

fn pidfd(pid: Pid) -> Result<OwnedFd, SplitError> {
    rustix::process::pidfd_open(pid, PidfdFlags::empty())
        .map_err(|source| SplitError::System { call: "pidfd_open", source: source.into() })
}

/// Another descriptor for what the number stands for, whoever opened it.
///
/// # Errors
/// What `fcntl` reports, above all that nothing is open under the number.
pub fn duplicate(number: RawFd) -> std::io::Result<OwnedFd> {
    if number < 0 {
        return Err(std::io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: not -1, and used for this one call only, which gives an error for a number that stands for nothing.
    unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_process_with_threads_is_not_split() {
        // The test harness runs this in a thread beside its own.
        assert!(matches!(split(), Err(SplitError::Threads { threads: 2.. })));
    }

    #[test]
    fn a_duplicate_is_another_descriptor_of_the_same() {
        let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
        let other = duplicate(a.as_raw_fd()).unwrap();
        drop(a);
        rustix::io::write(&other, b"x").unwrap();
        let mut byte = [0];
        rustix::io::read(&b, &mut byte).unwrap();
        assert_eq!(&byte, b"x");
        assert!(duplicate(-1).is_err() && duplicate(RawFd::MAX).is_err());
    }
}
