//! How the kernel is to schedule the calling thread (sched(7)).

use std::io;

/// When a thread that wakes up gets a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// As usual: it may take the processor from whoever runs.
    Normal,
    /// It waits until somebody else gives one up. Its share over time is the same.
    Batch,
}

/// Sets the policy of the calling thread. Needs no privilege.
///
/// # Errors
/// Of sched_setscheduler(2).
pub fn set_policy(policy: Policy) -> io::Result<()> {
    let policy = match policy {
        Policy::Normal => libc::SCHED_OTHER,
        Policy::Batch => libc::SCHED_BATCH,
    };
    let param = libc::sched_param { sched_priority: 0 };
    // SAFETY: `param` outlives the call, which only reads it.
    match unsafe { libc::sched_setscheduler(0, policy, &raw const param) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let stat = || std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        // Field 41, counted from field 3 behind the name (proc_pid_stat(5)).
        let current = || stat().rsplit_once(") ").unwrap().1.split(' ').nth(38).unwrap().to_owned();
        set_policy(Policy::Batch).unwrap();
        assert_eq!(current(), libc::SCHED_BATCH.to_string());
        set_policy(Policy::Normal).unwrap();
        assert_eq!(current(), libc::SCHED_OTHER.to_string());
    }
}
