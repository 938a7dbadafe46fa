//! A guest with an interface and its traffic, in one thread.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use serde::Serialize;

use super::driver::{NetDriver, Seen};
use super::echo::{Echo, EchoReport};
use super::hostile::Hostile;
use super::netfront::{NetOptions, NetStats};
use super::traffic::{Load, ReceiveReport, Receiver, SendReport, Sender, SenderOptions, now_ns};
use crate::{Class, Device, Error, Frontends, Guest, Result};

/// What a guest does with its interface.
#[derive(Debug, Clone)]
pub struct RunnerOptions {
    /// How to set the interface up.
    pub net: NetOptions,
    /// What to send, if anything.
    pub sender: Option<SenderOptions>,
    /// Everything that comes is sent back.
    pub echo: bool,
    /// How to misbehave, if at all.
    pub hostile: Option<Hostile>,
}

/// All that a run tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The guest.
    pub domid: u16,
    /// How long it ran, in milliseconds.
    pub ran_ms: u64,
    /// When this was so, by the clock that all processes of a machine share, in nanoseconds.
    pub at_ns: u64,
    /// It sends still.
    pub is_sending: bool,
    /// What was sent.
    pub sent: SendReport,
    /// What came.
    pub received: ReceiveReport,
    /// Rings and events, by the path of the interface.
    pub interfaces: BTreeMap<String, InterfaceReport>,
    /// Frames that were sent back, and those that were not because too many waited.
    pub echoed: EchoReport,
    /// How it misbehaved.
    pub hostile: Option<Hostile>,
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InterfaceReport {
    /// Rings and events.
    #[serde(flatten)]
    pub stats: NetStats,
    /// The backend's states.
    pub backend: Seen,
}

impl Report {
    /// Did the backend do what it must not?
    pub fn is_broken(&self) -> bool {
        self.interfaces.values().any(|interface| interface.stats.broken.is_some())
    }
}

/// The guest. Its first interface carries the traffic.
#[derive(Debug)]
pub struct Runner {
    options: RunnerOptions,
    guest: Guest,
    frontends: Frontends,
    driver: NetDriver,
    sender: Option<Sender>,
    is_sending: bool,
    receiver: Receiver,
    echo: Echo,
    random: fastrand::Rng,
    start_ns: u64,
}

impl Runner {
    /// Starts to watch for the interface. The guest must have been introduced.
    ///
    /// # Errors
    /// What the store answers.
    pub fn start(mut options: RunnerOptions, mut guest: Guest) -> Result<Self> {
        if let Some(hostile) = options.hostile {
            hostile.prepare(&mut options.net);
            options.sender = options.sender.filter(|_| hostile.allows_traffic());
        }
        let frontends = Frontends::start(&mut guest, vec![Class::Vif])?;
        Ok(Self {
            driver: NetDriver::new(options.net.clone()),
            random: fastrand::Rng::with_seed(options.net.seed),
            options,
            guest,
            frontends,
            sender: None,
            is_sending: false,
            receiver: Receiver::default(),
            echo: Echo::default(),
            start_ns: now_ns(),
        })
    }

    /// Is there a connected interface?
    pub fn is_connected(&mut self) -> bool {
        self.driver.first().is_some()
    }

    /// Sends from now on, or no more. The numbers go on where they stopped.
    pub fn set_sending(&mut self, sending: bool) {
        if sending && !self.is_sending {
            let next = self.sender.take().map(|sender| sender.report().clone()).unwrap_or_default();
            self.sender = self.options.sender.map(|options| Sender::resume(options, next));
        }
        self.is_sending = sending;
    }

    /// Sends so much from now on, if it sends.
    pub fn set_load(&mut self, load: Load) {
        if let Some(options) = &mut self.options.sender {
            options.load = load;
        }
        if let Some(sender) = &mut self.sender {
            sender.set_load(load);
        }
    }

    /// Does all that can be done at once, and gives the devices that changed. Is there more to do without an event?
    ///
    /// # Errors
    /// What the store answers; if grants are lacking, or the event channels do not work.
    pub fn step(&mut self) -> Result<(Vec<Device>, bool)> {
        let mut changed = vec![];
        while let Some(event) = self.guest.next_event(Duration::ZERO)? {
            changed.extend(self.frontends.handle_with(&mut self.guest, &event, &mut self.driver)?);
        }
        let busy = self.traffic()?;
        Ok((changed, busy))
    }

    /// Serves rings and sends. Is there more to do without an event?
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn traffic(&mut self) -> Result<bool> {
        let Self { driver, receiver, sender, echo, .. } = self;
        let Some(front) = driver.first() else { return Ok(false) };
        let sends_back = self.options.echo;
        front.handle_events(&mut |queue, frame| {
            receiver.take(frame.bytes, now_ns());
            if sends_back {
                echo.take(queue, frame.bytes);
            }
        })?;
        echo.send(front)?;
        let mut busy = false;
        if let Some(sender) = sender.as_mut().filter(|_| self.is_sending) {
            busy |= sender.step(front)?;
        }
        if let Some(hostile) = self.options.hostile {
            hostile.act(front, &mut self.random)?;
            busy |= hostile.is_busy();
        }
        Ok(busy)
    }

    /// Waits for events of store and interface, for the time of the next frame, for `control` to become readable, or
    /// until `timeout` is over. Is `control` readable, and did the store send something?
    ///
    /// # Errors
    /// [`Error::Poll`].
    pub fn wait(&mut self, control: Option<BorrowedFd<'_>>, timeout: Duration) -> Result<Woken> {
        let timeout = self.until_next_frame().map_or(timeout, |wait| wait.min(timeout));
        let timeout = timeout.try_into().map_err(|_| Error::Message("the wait is too long"))?;
        let mut polled = vec![PollFd::from_borrowed_fd(self.guest.wait_fd(), PollFlags::IN)];
        let front = self.driver.first();
        polled.extend(front.map(|front| PollFd::from_borrowed_fd(front.wait_fd(), PollFlags::IN)));
        let fixed = polled.len();
        polled.extend(control.map(|control| PollFd::from_borrowed_fd(control, PollFlags::IN)));
        match rustix::event::poll(&mut polled, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Error::Poll(error)),
        }
        let is_ready = |place: usize| polled.get(place).is_some_and(|polled| !polled.revents().is_empty());
        Ok(Woken { store: is_ready(0), control: is_ready(fixed) })
    }

    /// `None` if nothing is to be sent, or only the ring holds it up.
    fn until_next_frame(&mut self) -> Option<Duration> {
        let sender = self.sender.as_ref().filter(|_| self.is_sending)?;
        let front = self.driver.first().filter(|front| front.broken().is_none())?;
        let has_room = (0..front.queue_count()).any(|queue| front.has_room(queue));
        has_room.then(|| Duration::from_nanos(sender.wait_ns()))
    }

    /// Slots of requests without a response.
    pub fn in_flight(&mut self) -> u32 {
        self.driver.first().map_or(0, |front| front.stats().tx_in_flight)
    }

    /// All that there is to tell.
    pub fn report(&self) -> Report {
        let interface = |(path, stats, backend): (&str, NetStats, &Seen)| {
            (path.to_owned(), InterfaceReport { stats, backend: backend.clone() })
        };
        let sent = self.sender.as_ref().map(|sender| sender.report().clone());
        Report {
            domid: self.options.net.domid.0,
            ran_ms: now_ns().saturating_sub(self.start_ns) / 1_000_000,
            at_ns: now_ns(),
            is_sending: self.is_sending,
            sent: sent.unwrap_or_default(),
            received: self.receiver.report(),
            interfaces: self.driver.stats().map(interface).collect(),
            echoed: self.echo.report(),
            hostile: self.options.hostile,
        }
    }
}

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Woken {
    /// The store sent something.
    pub store: bool,
    /// The control descriptor is readable, or at its end.
    pub control: bool,
}
