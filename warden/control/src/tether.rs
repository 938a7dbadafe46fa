//! A service's side of the control link, which outlives the warden at its other end.
//!
//! ```text
//!            the warden is gone               connected: Hello               Adopted
//!   Linked --------------------> Seeking <----------------------> Greeted -----------> Linked
//!                                  ^  |            closed
//!                                  +--+ nobody listens: again after a pause that doubles
//! ```
//!
//! Link and pause are behind one descriptor of the tether's own, so a service polls that one alone and for ever, and
//! calls [`Tether::order`] when it is readable. Whatever the warden handed over is held here too: a new warden has
//! nothing but what its services give it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use crate::limits::{SEEK_FIRST_MS, SEEK_MAX_MS};
use crate::{
    Begin, FromService, Hello, LINK_ENV, Link, LinkError, Packet, Ready, Role, ToService,
    from_service::Report, names, to_service::Order,
};

/// Why a service has no link to begin with.
#[derive(Debug, thiserror::Error)]
pub enum TetherError {
    /// The environment does not name a link to a warden.
    #[error("no link to a warden: this role is started by the warden only")]
    NoWarden,
    /// The first order is another one than [`Begin`].
    #[error("the warden's first order is not Begin")]
    NoBegin,
    /// The link.
    #[error("warden: {0}")]
    Link(#[from] LinkError),
    /// A system call.
    #[error("{0}")]
    System(#[from] rustix::io::Errno),
}

#[derive(Debug)]
struct Lost {
    since: Instant,
    pause: Duration,
}

/// See the module's text.
#[derive(Debug)]
pub struct Tether {
    role: Role,
    link: Option<Link>,
    epoll: OwnedFd,
    timer: OwnedFd,
    lost: Option<Lost>,
    begin: Begin,
    held: BTreeMap<String, OwnedFd>,
    ready: Cell<Option<Ready>>,
    leads_epoch: Cell<u64>,
}

impl Tether {
    /// Takes the link that the warden left as standard input, and waits for its first order.
    ///
    /// # Errors
    /// [`TetherError`].
    pub fn start(role: Role) -> Result<Self, TetherError> {
        if std::env::var_os(LINK_ENV).is_none_or(|number| number != "0") {
            return Err(TetherError::NoWarden);
        }
        let stdin = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3)?;
        Self::begin(role, Link::from_fd(stdin))
    }

    fn begin(role: Role, link: Link) -> Result<Self, TetherError> {
        link.set_nonblocking(false)?;
        let packet = link.receive::<ToService>()?;
        let Some(Order::Begin(begin)) = packet.message.order else { return Err(TetherError::NoBegin) };
        link.set_nonblocking(true)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let mut tether = Self {
            role,
            link: None,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            timer: rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?,
            lost: None,
            held: begin.names.iter().cloned().zip(packet.descriptors).collect(),
            begin,
            ready: Cell::new(None),
            leads_epoch: Cell::new(0),
        };
        tether.watch(tether.timer.as_fd())?;
        tether.watch(link.as_fd())?;
        tether.link = Some(link);
        Ok(tether)
    }

    /// The first order, without the descriptors' names.
    pub fn first_order(&self) -> &Begin {
        &self.begin
    }

    /// Copies of all descriptors that are held, by name.
    ///
    /// # Errors
    /// What `dup` reports.
    pub fn copies(&self) -> Result<Vec<(String, OwnedFd)>, LinkError> {
        let copy =
            |(name, fd): (&String, &OwnedFd)| Ok((name.clone(), rustix::io::fcntl_dupfd_cloexec(fd, 3)?));
        self.held.iter().map(copy).collect()
    }

    /// The next order; none if there is none yet. What is about the tether alone is dealt with here, but a service sees
    /// [`Order::Adopted`].
    ///
    /// # Errors
    /// What came is no order of ours.
    pub fn order(&mut self) -> Result<Option<Packet<ToService>>, LinkError> {
        loop {
            if self.link.is_none() && !self.seek() {
                return Ok(None);
            }
            let Some(link) = &self.link else { return Ok(None) };
            let packet = match link.receive::<ToService>() {
                Ok(packet) => packet,
                Err(LinkError::WouldBlock) => return Ok(None),
                Err(LinkError::Closed) => {
                    self.lose();
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
            match packet.message.order {
                Some(Order::Hold(begin)) => self.hold(begin, packet.descriptors),
                Some(Order::Adopted(_)) => {
                    self.lost = None;
                    return Ok(Some(packet));
                }
                _ => return Ok(Some(packet)),
            }
        }
    }

    /// Sends a report. What a new warden must know in any case is remembered for [`Hello`].
    ///
    /// # Errors
    /// [`LinkError::Closed`] without a warden, [`LinkError::WouldBlock`] if it is too busy to read, else what is wrong.
    pub fn report(&self, report: Report, descriptors: &[BorrowedFd<'_>]) -> Result<(), LinkError> {
        match &report {
            Report::Ready(ready) => self.ready.set(Some(*ready)),
            Report::Leading(leading) => self.leads_epoch.set(leading.epoch),
            _ => {}
        }
        let link = self.link.as_ref().ok_or(LinkError::Closed)?;
        link.send(&FromService { report: Some(report) }, descriptors)
    }

    /// Has the warden keep descriptors under these names, and holds copies for the next warden.
    ///
    /// # Errors
    /// As [`Tether::report`], or what `dup` reports. They are held all the same without a warden.
    pub fn keep(&mut self, kept_names: &[String], descriptors: &[BorrowedFd<'_>]) -> Result<(), LinkError> {
        for (name, descriptor) in kept_names.iter().zip(descriptors) {
            self.held.insert(name.clone(), rustix::io::fcntl_dupfd_cloexec(descriptor, 3)?);
        }
        let keep = Begin { names: kept_names.to_vec(), ..Begin::default() };
        self.report(Report::Keep(keep), descriptors)
    }

    /// Whether a report can reach a warden at present.
    pub fn is_linked(&self) -> bool {
        self.link.is_some()
    }

    /// Waits for room to send: the tether's descriptor is readable when there is some.
    ///
    /// # Errors
    /// What `epoll_ctl` reports.
    pub fn watch_room(&self, wanted: bool) -> Result<(), LinkError> {
        let Some(link) = &self.link else { return Ok(()) };
        let mut flags = epoll::EventFlags::IN;
        flags.set(epoll::EventFlags::OUT, wanted);
        Ok(epoll::modify(&self.epoll, link, epoll::EventData::new_u64(0), flags)?)
    }

    fn watch(&self, descriptor: BorrowedFd<'_>) -> rustix::io::Result<()> {
        epoll::add(&self.epoll, descriptor, epoll::EventData::new_u64(0), epoll::EventFlags::IN)
    }

    fn hold(&mut self, begin: Begin, descriptors: Vec<OwnedFd>) {
        for name in [names::SNAPSHOT, names::SNAPSHOT_OLDER] {
            self.held.remove(name);
        }
        self.held.extend(begin.names.into_iter().zip(descriptors));
        (self.begin.snapshot, self.begin.snapshot_older) = (begin.snapshot, begin.snapshot_older);
    }

    fn lose(&mut self) {
        // Closing it takes it out of the poller.
        self.link = None;
        let first = Duration::from_millis(SEEK_FIRST_MS);
        let pause = match &mut self.lost {
            None => self.lost.insert(Lost { since: Instant::now(), pause: first }).pause,
            Some(lost) => longer(lost),
        };
        self.arm(pause);
    }

    fn arm(&self, pause: Duration) {
        if self.begin.adopt_path.is_empty() {
            return;
        }
        let value = Timespec { tv_sec: 0, tv_nsec: i64::from(pause.subsec_nanos()) };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        // The timer is our own and the time is in range.
        if let Err(error) = rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once) {
            tracing::error!(%error, "no further warden can be reached");
        }
    }

    /// True if a warden was reached.
    fn seek(&mut self) -> bool {
        let mut expirations = [0; 8];
        if self.lost.is_none() || rustix::io::read(&self.timer, &mut expirations).is_err() {
            return false;
        }
        match self.greet() {
            Ok(link) => {
                self.link = Some(link);
                true
            }
            Err(error) => {
                tracing::debug!(%error, "no warden yet");
                let pause = self.lost.as_mut().map_or(Duration::ZERO, longer);
                self.arm(pause);
                false
            }
        }
    }

    fn greet(&self) -> Result<Link, LinkError> {
        let link = Link::connect(Path::new(&self.begin.adopt_path))?;
        let (held_names, descriptors): (Vec<_>, Vec<_>) =
            self.held.iter().map(|(name, fd)| (name.clone(), fd.as_fd())).unzip();
        let since = self.lost.as_ref().map_or(Duration::ZERO, |lost| lost.since.elapsed());
        let hello = Hello {
            role: self.role.into(),
            kept: Some(Begin { names: held_names, ..self.begin.clone() }),
            pid: std::process::id(),
            ready: self.ready.get(),
            leads_epoch: self.leads_epoch.get(),
            orphaned_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        };
        link.send(&FromService { report: Some(Report::Hello(hello)) }, &descriptors)?;
        self.watch(link.as_fd())?;
        Ok(link)
    }
}

fn longer(lost: &mut Lost) -> Duration {
    let pause = lost.pause;
    lost.pause = (pause * 2).min(Duration::from_millis(SEEK_MAX_MS));
    pause
}

impl AsFd for Tether {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl AsRawFd for Tether {
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}

#[cfg(test)]
mod tests;
