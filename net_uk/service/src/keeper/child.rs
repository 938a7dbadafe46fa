//! A process that the keeper started.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};

use control::{Link, LinkError};
use net_watch::detector::{Detector, ExitStatus, ProcessState, ProcessorUse, Promise};
use net_watch::ladder::{Incarnation, Part};
use net_watch::{Since, TimeNs, Widened};
use rustix::process::{PidfdFlags, Signal};

use crate::error::Error;
use crate::limits::{BEAT, STOP_WAIT};
use crate::wire::{Begin, FromChild, Order, Said, ToChild};

/// How often every process shows itself alive.
#[expect(clippy::cast_possible_truncation, reason = "a fraction of a second")]
const PROMISE: Promise = Promise { heartbeat_ns: BEAT.as_nanos() as u64 };

/// What came from a child.
pub enum Heard {
    /// This.
    Said(Said),
    /// Nothing more for now.
    Nothing,
    /// Nothing ever again.
    End,
}

/// A process that was started, with its judge.
pub struct Child {
    /// Which start of its part.
    pub incarnation: Incarnation,
    /// Its process.
    pub pid: u32,
    /// Readable when it is gone.
    pub pidfd: OwnedFd,
    /// The way to it.
    pub link: Link,
    /// Its judge.
    pub detector: Detector,
    /// It was found dead.
    pub condemned: bool,
    /// Its device is gone, and another one is there.
    pub device_replaced: bool,
    /// Since when there is work towards the wire, and from it, and room for the latter.
    pub send_work: Since,
    /// See [`Self::send_work`].
    pub receive_work: Since,
    /// See [`Self::send_work`].
    pub receive_room: Since,
    /// Slots that it took off towards the wire.
    pub sent: Widened,
    /// Slots that it filled from the wire, or of a shadow: took off.
    pub received: Widened,
    process: std::process::Child,
    mends: Option<u64>,
}

impl Child {
    /// Starts a process and gives it its first order.
    pub fn start(
        part: Part,
        incarnation: Incarnation,
        arguments: &[OsString],
        environment: &[(&str, OsString)],
        begin: Begin,
        descriptors: &[BorrowedFd<'_>],
        now: TimeNs,
    ) -> Result<Self, Error> {
        let (ours, theirs) = Link::pair()?;
        ours.set_nonblocking(true)?;
        let process = Command::new("/proc/self/exe")
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::from(theirs.into_fd()))
            // A signal to the keeper's group is not for the others: they end when they are told to.
            .process_group(0)
            .spawn()?;
        let pid = rustix::process::Pid::from_child(&process);
        let pidfd =
            rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(Error::system("pidfd_open"))?;
        ours.send(&ToChild { order: Some(Order::Begin(begin)) }, descriptors)?;
        tracing::debug!(?part, ?incarnation, pid = process.id(), "started");
        Ok(Self {
            incarnation,
            pid: process.id(),
            pidfd,
            link: ours,
            detector: Detector::new(PROMISE, now),
            condemned: false,
            device_replaced: false,
            send_work: Since::default(),
            receive_work: Since::default(),
            receive_room: Since::default(),
            sent: Widened::default(),
            received: Widened::default(),
            process,
            mends: None,
        })
    }

    /// The next thing that it says.
    pub fn hear(&mut self) -> Heard {
        match self.link.receive::<FromChild>() {
            Ok(packet) => packet.message.said.map_or(Heard::Nothing, Heard::Said),
            Err(LinkError::WouldBlock) => Heard::Nothing,
            Err(_) => Heard::End,
        }
    }

    /// Tells it something.
    pub fn order(&self, order: Order) {
        if let Err(error) = self.link.send(&ToChild { order: Some(order) }, &[]) {
            tracing::debug!(pid = self.pid, %error, "it takes no orders");
        }
    }

    /// Kills it. Its end is told by the pidfd.
    pub fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(self.pidfd.as_fd(), Signal::KILL);
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        match self.process.try_wait() {
            Ok(status) => status.map(exit_status),
            Err(_) => Some(ExitStatus::Unknown),
        }
    }

    /// Waits for the end of one that was told to stop, and kills it if it does not.
    pub fn end(&mut self) {
        let timeout = rustix::event::Timespec::try_from(STOP_WAIT).ok();
        let mut polled = [rustix::event::PollFd::new(&self.pidfd, rustix::event::PollFlags::IN)];
        if !matches!(rustix::event::poll(&mut polled, timeout.as_ref()), Ok(1)) {
            self.kill();
        }
        let _ = self.process.wait();
    }

    /// Indices of a lane that was mended may have gone back, and that is no lie.
    pub fn note_mends(&mut self, mends: u64, now: TimeNs) {
        if self.mends.replace(mends).is_some_and(|before| before != mends) {
            (self.sent, self.received) = (Widened::default(), Widened::default());
            self.detector = Detector::new(PROMISE, now);
        }
    }

    /// Whether it lives, and what it uses of the processors.
    pub fn look(&self) -> (ProcessState, Option<ProcessorUse>) {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        let process = match state {
            Some('T' | 't') => ProcessState::Stopped,
            // Its end is told by the pidfd, with its status.
            _ => ProcessState::Alive,
        };
        (process, self.processor_use(state == Some('R')))
    }

    fn processor_use(&self, runnable: bool) -> Option<ProcessorUse> {
        let text = std::fs::read_to_string(format!("/proc/{}/schedstat", self.pid)).ok()?;
        let mut fields = text.split_ascii_whitespace().map(str::parse);
        let (run_ns, wait_ns) = (fields.next()?.ok()?, fields.next()?.ok()?);
        Some(ProcessorUse { run_ns, wait_ns, runnable })
    }
}

fn exit_status(status: std::process::ExitStatus) -> ExitStatus {
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitStatus::Code(code),
        (None, Some(signal)) => ExitStatus::Signal(signal),
        (None, None) => ExitStatus::Unknown,
    }
}
