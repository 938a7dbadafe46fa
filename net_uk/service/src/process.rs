//! A process that is watched, whoever's child it is.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use control::Link;
use control::proc::{self, Files, Stat, Usage};
use net_watch::TimeNs;
use net_watch::detector::{
    Detector, DeviceReport, Flow, ProcessState, ProcessorUse, Promise, Sample, Verdict,
};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::error::Error;
use crate::events::nanos;
use crate::limits::BEAT;

/// Starts ourselves in another role, which `prepare` says, with a link as its standard input. Gives the process and our end.
///
/// # Errors
/// What the system says.
pub fn start_role(prepare: impl FnOnce(&mut Command) -> &mut Command) -> Result<(Child, Link), Error> {
    let (ours, theirs) = Link::pair()?;
    let mut command = Command::new("/proc/self/exe");
    let process = prepare(&mut command).stdin(Stdio::from(theirs.into_fd())).spawn()?;
    Ok((process, ours))
}

/// How late this process was run, which watches others.
#[derive(Debug, Clone, Copy, Default)]
pub struct Late {
    /// In nanoseconds.
    pub gap_ns: u64,
    /// What of that its waits for a processor do not explain.
    pub stolen_ns: u64,
}

/// Tells how late this process is.
#[derive(Default)]
pub struct Clock {
    files: Option<Files>,
    wait_ns: u64,
}

impl Clock {
    /// Of the calling process.
    pub fn new() -> Self {
        Self { files: Files::open(std::process::id()), wait_ns: 0 }
    }

    /// It came this much too late. To be asked after each sleep: waits before it explain nothing. Without an account of its
    /// waits everything may be one.
    pub fn late(&mut self, gap_ns: u64) -> Late {
        let Some(usage) = self.files.as_ref().and_then(Files::usage) else {
            return Late { gap_ns, stolen_ns: 0 };
        };
        let waited_ns = usage.wait_ns.saturating_sub(std::mem::replace(&mut self.wait_ns, usage.wait_ns));
        Late { gap_ns, stolen_ns: gap_ns.saturating_sub(waited_ns) }
    }
}

/// A process with its judge.
pub struct Watched {
    /// Its number in the system.
    pub pid: u32,
    /// When it began: with the pid it names a process for as long as the machine runs.
    pub start_ticks: u64,
    /// Its judge.
    pub detector: Detector,
    /// It was found dead, and killed.
    pub condemned: bool,
    pidfd: OwnedFd,
    /// None for one that is gone already.
    files: Option<Files>,
    usage: Option<Usage>,
}

impl Watched {
    /// A child that was just started.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn child(process: &Child, now: TimeNs) -> Result<Self, Error> {
        // Not waited for yet: the pid is its own.
        let pidfd = rustix::process::pidfd_open(Pid::from_child(process), PidfdFlags::empty())
            .map_err(Error::system("pidfd_open"))?;
        let start_ticks = Stat::of(process.id()).map_or(0, |stat| stat.start_ticks);
        Ok(Self::new(process.id(), start_ticks, pidfd, now))
    }

    /// A process that somebody else started, if it lives.
    pub fn other(pid: u32, start_ticks: u64, now: TimeNs) -> Option<Self> {
        Some(Self::new(pid, start_ticks, proc::hold(pid, start_ticks)?, now))
    }

    fn new(pid: u32, start_ticks: u64, pidfd: OwnedFd, now: TimeNs) -> Self {
        let files = Files::open(pid);
        Self { pid, start_ticks, detector: detector(now), condemned: false, pidfd, files, usage: None }
    }

    /// What was seen of it counts no more, but for what was learned.
    pub fn begin_anew(&mut self, now: TimeNs) {
        self.detector.begin(now);
    }

    /// Its judge knows what that of its predecessor had learned of the machine.
    pub fn learn_from(&mut self, mut predecessors: Detector, now: TimeNs) {
        predecessors.begin(now);
        self.detector = predecessors;
    }

    /// Whether it is that one.
    pub fn is(&self, pid: u32, start_ticks: u64) -> bool {
        (self.pid, self.start_ticks) == (pid, start_ticks)
    }

    /// Whether it is gone, asked of the descriptor itself.
    pub fn is_gone(&self) -> bool {
        proc::is_gone(&self.pidfd)
    }

    /// Kills it. Its end is told by the descriptor.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Sends it a signal, if it lives.
    pub fn signal(&self, signal: Signal) {
        let _ = rustix::process::pidfd_send_signal(self.pidfd.as_fd(), signal);
    }

    /// Waits for its end. False if it did not come in time.
    pub fn wait(&self, timeout: Duration) -> bool {
        let timeout = Timespec::try_from(timeout).ok();
        let mut polled = [PollFd::new(&self.pidfd, PollFlags::IN)];
        matches!(rustix::event::poll(&mut polled, timeout.as_ref()), Ok(1))
    }

    /// Whether it runs, and what it uses of the processors.
    pub fn look(&mut self) -> (ProcessState, Option<ProcessorUse>) {
        let usage = self.files.as_ref().and_then(Files::usage);
        // One that used a processor since the last look is not stopped, and its state says no more.
        let moved = usage != std::mem::replace(&mut self.usage, usage);
        let stat = if moved { None } else { self.files.as_ref().and_then(Files::stat) };
        let process = match stat {
            Some(stat) if stat.is_stopped() => ProcessState::Stopped,
            // Its end is told by the descriptor.
            _ => ProcessState::Alive,
        };
        let runnable = moved || stat.is_some_and(Stat::is_runnable);
        let processor = usage.map(|Usage { run_ns, wait_ns }| ProcessorUse { run_ns, wait_ns, runnable });
        (process, processor)
    }

    /// Judges one of which nothing but beats is known. The observer itself came too late.
    pub fn judge(&mut self, now: TimeNs, late: Late, beats: u64) -> Verdict {
        let (process, processor) = self.look();
        self.detector.judge(&Sample {
            now,
            observer_gap_ns: late.gap_ns,
            observer_stolen_ns: late.stolen_ns,
            process,
            heartbeat: beats,
            send: Flow::default(),
            receive: Flow::default(),
            device: DeviceReport::Fine,
            device_fine_since: None,
            processor,
        })
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// For a process that shows itself alive as all do.
fn detector(now: TimeNs) -> Detector {
    Detector::new(Promise { heartbeat_ns: nanos(BEAT) }, now)
}
