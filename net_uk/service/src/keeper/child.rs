//! A process that a keeper started: this one, or one before it.

use std::ffi::OsString;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};

use control::{Link, LinkError};
use net_watch::detector::ExitStatus;
use net_watch::ladder::{Incarnation, Part};
use net_watch::{Since, TimeNs, Widened};

use crate::error::Error;
use crate::limits::STOP_WAIT;
use crate::process::{Watched, start_role};
use crate::vault::wire::PartRecord;
use crate::wire::{Begin, FromChild, Order, Said, ToChild};

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
    /// The process.
    pub process: Watched,
    /// The way to it.
    pub link: Link,
    /// It said that it serves.
    pub ready: bool,
    /// It was killed: its end is to come.
    pub killed: bool,
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
    /// None for one that an earlier keeper started: nobody tells us how it ended.
    own: Option<std::process::Child>,
    mends: Option<u64>,
}

impl Child {
    /// Starts a process, which does nothing before its first order, and ends if its link ends before that.
    pub fn start(
        part: Part,
        incarnation: Incarnation,
        arguments: &[OsString],
        environment: &[(&str, OsString)],
        now: TimeNs,
    ) -> Result<Self, Error> {
        let (process, ours) = start_role(|command| {
            command
                .args(arguments)
                .envs(environment.iter().map(|(name, value)| (name, value)))
                // A signal to the keeper's group is not for the others: they end when they are told to.
                .process_group(0)
        })?;
        ours.set_nonblocking(true)?;
        tracing::debug!(?part, ?incarnation, pid = process.id(), "started");
        Ok(Self::new(incarnation, Watched::child(&process, now)?, ours, Some(process)))
    }

    /// One that an earlier keeper started, if it lives.
    pub fn adopt(incarnation: Incarnation, known: &PartRecord, link: OwnedFd, now: TimeNs) -> Option<Self> {
        let process = Watched::other(known.pid, known.start_ticks, now)?;
        let child = Self::new(incarnation, process, Link::from_fd(link), None);
        Some(Self { ready: known.ready, ..child })
    }

    fn new(incarnation: Incarnation, process: Watched, link: Link, own: Option<std::process::Child>) -> Self {
        Self {
            incarnation,
            process,
            link,
            ready: false,
            killed: false,
            device_replaced: false,
            send_work: Since::default(),
            receive_work: Since::default(),
            receive_room: Since::default(),
            sent: Widened::default(),
            received: Widened::default(),
            own,
            mends: None,
        }
    }

    /// Gives it its first order. One that had it before says again whether it serves.
    ///
    /// # Errors
    /// [`Error::Link`].
    pub fn begin(&self, begin: Begin, descriptors: &[BorrowedFd<'_>]) -> Result<(), Error> {
        Ok(self.link.send(&ToChild { order: Some(Order::Begin(begin)) }, descriptors)?)
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
            tracing::debug!(pid = self.process.pid, %error, "it takes no orders");
        }
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        match &mut self.own {
            Some(own) => match own.try_wait() {
                Ok(status) => status.map(exit_status),
                Err(_) => Some(ExitStatus::Unknown),
            },
            None => self.process.is_gone().then_some(ExitStatus::Unknown),
        }
    }

    /// Waits for the end of one that was told to stop, and kills it if it does not.
    pub fn end(&mut self) {
        if !self.process.wait(STOP_WAIT) {
            self.process.kill();
            self.process.wait(STOP_WAIT);
        }
        let _ = self.ended();
    }

    /// Indices of a lane that was mended may have gone back, and that is no lie.
    pub fn note_mends(&mut self, mends: u64, now: TimeNs) {
        if self.mends.replace(mends).is_some_and(|before| before != mends) {
            (self.sent, self.received) = (Widened::default(), Widened::default());
            self.process.begin_anew(now);
        }
    }
}

fn exit_status(status: std::process::ExitStatus) -> ExitStatus {
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitStatus::Code(code),
        (None, Some(signal)) => ExitStatus::Signal(signal),
        (None, None) => ExitStatus::Unknown,
    }
}
