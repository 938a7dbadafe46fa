//! A thin layer over epoll: level-triggered, with a word of the caller's for each descriptor.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use crate::limits::POLL_EVENTS_MAX;

/// Waits for many descriptors.
pub struct Poller {
    epoll: OwnedFd,
    events: Vec<Event>,
}

/// What a descriptor is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    /// Something to receive, or the end.
    pub read: bool,
    /// Room to send.
    pub write: bool,
}

impl Interest {
    /// Receiving only.
    pub const READ: Self = Self { read: true, write: false };

    /// Nothing: not even a hang-up is told, so the descriptor is not with the poller at all.
    pub const NONE: Self = Self { read: false, write: false };

    fn flags(self) -> EventFlags {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, self.read);
        flags.set(EventFlags::OUT, self.write);
        flags
    }
}

impl Poller {
    pub fn new() -> rustix::io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, events: Vec::with_capacity(POLL_EVENTS_MAX) })
    }

    pub fn add(&self, fd: impl AsFd, word: u64, interest: Interest) -> rustix::io::Result<()> {
        epoll::add(&self.epoll, fd, EventData::new_u64(word), interest.flags())
    }

    /// Tells of each new event on the descriptor once, without anybody reading it.
    pub fn add_edge(&self, fd: impl AsFd, word: u64) -> rustix::io::Result<()> {
        epoll::add(&self.epoll, fd, EventData::new_u64(word), EventFlags::IN | EventFlags::ET)
    }

    pub fn modify(&self, fd: impl AsFd, word: u64, interest: Interest) -> rustix::io::Result<()> {
        epoll::modify(&self.epoll, fd, EventData::new_u64(word), interest.flags())
    }

    /// Watches a descriptor for something else than before, or not at all.
    pub fn change(
        &self,
        fd: impl AsFd,
        word: u64,
        before: Interest,
        wanted: Interest,
    ) -> rustix::io::Result<()> {
        match (before, wanted) {
            _ if before == wanted => Ok(()),
            (Interest::NONE, _) => self.add(fd, word, wanted),
            (_, Interest::NONE) => self.remove(fd),
            _ => self.modify(fd, word, wanted),
        }
    }

    pub fn remove(&self, fd: impl AsFd) -> rustix::io::Result<()> {
        epoll::delete(&self.epoll, fd)
    }

    /// Waits, at most for `timeout`, and puts the words of the ready descriptors into `words`.
    pub fn wait(&mut self, timeout: Duration, words: &mut Vec<u64>) -> rustix::io::Result<()> {
        words.clear();
        self.events.clear();
        let timeout = rustix::event::Timespec::try_from(timeout).ok();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) => words.extend(self.events.iter().map(|event| event.data.u64())),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
