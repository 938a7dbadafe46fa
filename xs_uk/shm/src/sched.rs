//! How the kernel is to schedule the calling thread (sched(7)).

use std::io;
use std::time::Duration;

/// When a thread that wakes up gets a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// As usual: it may take the processor from whoever runs.
    Normal,
    /// It waits until somebody else gives one up. Its share over time is the same, in shorter slices.
    Batch,
}

/// The slice of [`Policy::Batch`]: what a thread loses that yields while others wait, and roughly how long they wait for
/// one that does not. The kernel's smallest; one before 6.12 has only slices of its own choice.
const SLICE: Duration = Duration::from_micros(100);

/// Sets the policy of the calling thread. Needs no privilege.
///
/// # Errors
/// Of sched_setattr(2).
pub fn set_policy(policy: Policy) -> io::Result<()> {
    // It is part of what is set.
    let nice = rustix::process::getpriority_process(None)?;
    let (number, slice) = match policy {
        Policy::Normal => (libc::SCHED_OTHER, Duration::ZERO),
        Policy::Batch => (libc::SCHED_BATCH, SLICE),
    };
    let attributes = libc::sched_attr {
        size: u32::try_from(size_of::<libc::sched_attr>()).expect("a small record"),
        sched_policy: number.cast_unsigned(),
        sched_flags: 0,
        sched_nice: nice,
        sched_priority: 0,
        sched_runtime: u64::try_from(slice.as_nanos()).expect("a short time"),
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: `attributes` has the size that it tells and outlives the call, which only reads it.
    match unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) } {
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
