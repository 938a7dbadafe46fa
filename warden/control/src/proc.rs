//! What `/proc` tells of a process (proc_pid_stat(5)), and processes that are not our children.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::PidfdFlags;

use crate::limits::{SCHEDSTAT_BYTES_MAX, STAT_BYTES_MAX};

/// A process as it was at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its state's letter.
    pub state: char,
    /// When it began, in clock ticks since boot: with the pid it names a process for as long as the machine runs.
    pub start_ticks: u64,
}

impl Stat {
    /// None if there is no such process, or only what is left of one.
    pub fn of(pid: u32) -> Option<Self> {
        Self::parse(read(&open(pid, "stat")?, &mut [0; STAT_BYTES_MAX])?)
    }

    fn parse(stat: &str) -> Option<Self> {
        // The name in field 2 may hold anything; the state is field 3, the start field 22.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let state = fields.next()?.chars().next()?;
        let start_ticks = fields.nth(18)?.parse().ok()?;
        (!matches!(state, 'Z' | 'X')).then_some(Self { state, start_ticks })
    }

    /// Whether a signal stopped it.
    pub fn is_stopped(self) -> bool {
        self.state == 'T'
    }

    /// Whether it runs or waits for a processor.
    pub fn is_runnable(self) -> bool {
        self.state == 'R'
    }
}

/// Holds on to a process that may be nobody's child of ours: one that lives and began when it is said to have begun. Where
/// it is gone, its pid may be another's.
pub fn hold(pid: u32, start_ticks: u64) -> Option<OwnedFd> {
    let raw = rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)?;
    let pidfd = rustix::process::pidfd_open(raw, PidfdFlags::empty()).ok()?;
    // Looked at while the descriptor holds the process: the pid is nobody else's.
    Stat::of(pid).is_some_and(|stat| stat.start_ticks == start_ticks).then_some(pidfd)
}

/// Whether the process behind a pidfd is gone. What a poller says of the descriptor may be about another one.
pub fn is_gone(pidfd: impl AsFd) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(rustix::event::poll(&mut polled, Some(&now)), Ok(1))
}

/// How a process has run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Time on a processor so far, in microseconds.
    pub ran_us: u64,
    /// It waits for something else than a processor.
    pub asleep: bool,
}

impl Run {
    /// None if there is no such process.
    pub fn of(pid: u32) -> Option<Self> {
        let asleep = Stat::of(pid)?.state != 'R';
        let usage = Usage::parse(read(&open(pid, "schedstat")?, &mut [0; SCHEDSTAT_BYTES_MAX])?)?;
        Some(Self { ran_us: usage.run_ns / 1_000, asleep })
    }
}

/// What a process's first thread had of the processors (Documentation/scheduler/sched-stats.rst).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Nanoseconds that it ran.
    pub run_ns: u64,
    /// Nanoseconds that it was runnable and waited for a processor.
    pub wait_ns: u64,
}

impl Usage {
    fn parse(schedstat: &str) -> Option<Self> {
        let mut fields = schedstat.split_ascii_whitespace().map(str::parse);
        Some(Self { run_ns: fields.next()?.ok()?, wait_ns: fields.next()?.ok()? })
    }
}

/// The files of a process that is looked at each millisecond: kept open, a look is one call for each of them.
pub struct Files {
    stat: File,
    /// None where the kernel keeps no such account.
    schedstat: Option<File>,
}

impl Files {
    /// None if there is no such process. They stay that process's, whoever has its pid later.
    pub fn open(pid: u32) -> Option<Self> {
        Some(Self { stat: open(pid, "stat")?, schedstat: open(pid, "schedstat") })
    }

    /// See [`Stat::of`].
    pub fn stat(&self) -> Option<Stat> {
        Stat::parse(read(&self.stat, &mut [0; STAT_BYTES_MAX])?)
    }

    /// None once the process is gone, or where the kernel keeps no such account.
    pub fn usage(&self) -> Option<Usage> {
        Usage::parse(read(self.schedstat.as_ref()?, &mut [0; SCHEDSTAT_BYTES_MAX])?)
    }
}

fn open(pid: u32, name: &str) -> Option<File> {
    File::open(format!("/proc/{pid}/{name}")).ok()
}

fn read<'a>(file: &File, bytes: &'a mut [u8]) -> Option<&'a str> {
    let length = file.read_at(bytes, 0).ok()?;
    let line = bytes.get(..length)?;
    // The name, which only `stat` has, need not be text.
    let name_end = line.iter().rposition(|byte| *byte == b')').unwrap_or(0);
    std::str::from_utf8(&line[name_end..]).ok()
}

/// Resident memory of a process, 0 if it cannot be told (`VmRSS` in proc_pid_status(5), in KiB).
pub fn rss_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

/// A text that differs after each start of the machine; empty if it cannot be told.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_apart_from_a_gone_one() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let (own, other) = (Stat::of(std::process::id()).unwrap(), Stat::of(child.id()).unwrap());
        assert!(own.start_ticks <= other.start_ticks && !other.is_stopped());
        let began = std::time::Instant::now();
        while !Run::of(child.id()).is_some_and(|run| run.asleep) {
            assert!(began.elapsed() < std::time::Duration::from_secs(10), "it sleeps");
        }
        assert!(Run::of(std::process::id()).unwrap().ran_us > 0);
        let files = Files::open(child.id()).unwrap();
        assert_eq!(files.stat(), Stat::of(child.id()));
        assert!(files.usage().unwrap().run_ns > 0);
        let stat = Stat::of(child.id()).unwrap();
        let pidfd = hold(child.id(), stat.start_ticks).unwrap();
        assert!(hold(child.id(), stat.start_ticks + 1).is_none() && !is_gone(&pidfd));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((Stat::of(child.id()), files.stat(), files.usage()), (None, None, None));
        assert!(is_gone(&pidfd) && hold(child.id(), stat.start_ticks).is_none());
        assert!(!boot_id().is_empty());
    }

    /// A name is any bytes, blanks and brackets among them.
    #[test]
    fn a_name_does_not_confuse() {
        let file = tempfile::tempfile().unwrap();
        let rest: String = (4..53).map(|field| format!(" {}", u64::MAX - field)).collect();
        file.write_all_at(b"7 (a) S \xff (b) R", 0).unwrap();
        file.write_all_at(rest.as_bytes(), 17).unwrap();
        let stat = Stat::parse(read(&file, &mut [0; STAT_BYTES_MAX]).unwrap()).unwrap();
        assert_eq!(stat, Stat { state: 'R', start_ticks: u64::MAX - 22 });
    }

    #[test]
    fn this_process_takes_memory_and_a_gone_one_none() {
        assert!(rss_bytes(std::process::id()) > 64 * 1024);
        assert_eq!(rss_bytes(u32::MAX), 0);
    }
}
