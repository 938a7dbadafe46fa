//! A thin layer over epoll, with a word of the caller's for each descriptor.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

use crate::error::Error;
use crate::limits::POLL_EVENTS_MAX;

/// Waits for many descriptors.
pub struct Poller {
    epoll: OwnedFd,
    events: Vec<Event>,
}

/// What a descriptor is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    /// Something to read.
    pub read: bool,
    /// Room to write.
    pub write: bool,
    /// Told once for each time that it becomes so, rather than as long as it is: an eventfd need not be read then.
    pub edge: bool,
}

impl Interest {
    /// Something to read.
    pub const READ: Self = Self { read: true, write: false, edge: false };

    /// Somebody signals.
    pub const SIGNAL: Self = Self { read: true, write: false, edge: true };

    fn flags(self) -> EventFlags {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, self.read);
        flags.set(EventFlags::OUT, self.write);
        flags.set(EventFlags::ET, self.edge);
        flags
    }
}

impl Poller {
    /// With nothing to wait for yet.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn new() -> Result<Self, Error> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(Error::system("epoll_create"))?;
        Ok(Self { epoll, events: Vec::with_capacity(POLL_EVENTS_MAX) })
    }

    /// Watches a descriptor.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn add(&self, fd: impl AsFd, word: u64, interest: Interest) -> Result<(), Error> {
        epoll::add(&self.epoll, fd, EventData::new_u64(word), interest.flags())
            .map_err(Error::system("epoll_ctl"))
    }

    /// Watches it for something else.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn change(&self, fd: impl AsFd, word: u64, interest: Interest) -> Result<(), Error> {
        epoll::modify(&self.epoll, fd, EventData::new_u64(word), interest.flags())
            .map_err(Error::system("epoll_ctl"))
    }

    /// Watches it no longer.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn remove(&self, fd: impl AsFd) -> Result<(), Error> {
        epoll::delete(&self.epoll, fd).map_err(Error::system("epoll_ctl"))
    }

    /// Waits, at most for `timeout`, and puts the words of ready descriptors into `words`.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn wait(&mut self, timeout: Duration, words: &mut Vec<u64>) -> Result<(), Error> {
        words.clear();
        self.events.clear();
        let timeout = rustix::event::Timespec::try_from(timeout).ok();
        let space = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, space, timeout.as_ref()) {
            Ok(_) => words.extend(self.events.iter().map(|event| event.data.u64())),
            Err(Errno::INTR) => {}
            Err(source) => return Err(Error::System { what: "epoll_wait", source }),
        }
        Ok(())
    }
}
