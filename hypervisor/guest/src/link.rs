//! The ring from the guest's side: bytes in and out, in order.

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Instant;

use hypervisor::local::{Broker, LocalEvents};
use hypervisor::{DomId, EventChannels, Page, Port};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use xs_protocol::ring::{
    self, CONNECTED, CONNECTION_OFFSET, ERROR_OFFSET, RECONNECT, REQ_CONS_OFFSET, REQ_OFFSET,
    REQ_PROD_OFFSET, RSP_CONS_OFFSET, RSP_OFFSET, RSP_PROD_OFFSET, SERVER_FEATURES_OFFSET,
};

use crate::limits::OUTBOX_BYTES_MAX;
use crate::{Error, Result};

/// The guest's end of the store's event channel.
pub trait Bell: fmt::Debug + Send {
    /// Notifies the store.
    ///
    /// # Errors
    /// If the event channel does not work.
    fn ring(&mut self) -> hypervisor::Result<()>;

    /// Readable once the store notified the guest after the last [`Self::take`].
    fn wait_fd(&self) -> BorrowedFd<'_>;

    /// Takes all notices that came.
    ///
    /// # Errors
    /// If the event channel does not work.
    fn take(&mut self) -> hypervisor::Result<()>;
}

/// An event channel of the broker.
#[derive(Debug)]
struct LocalBell {
    events: LocalEvents,
    port: Port,
}

impl Bell for LocalBell {
    fn ring(&mut self) -> hypervisor::Result<()> {
        self.events.notify(self.port)
    }

    fn wait_fd(&self) -> BorrowedFd<'_> {
        self.events.wait_fd()
    }

    fn take(&mut self) -> hypervisor::Result<()> {
        while let Some(port) = self.events.pending()? {
            self.events.unmask(port)?;
        }
        Ok(())
    }
}

/// The page and the event channel.
#[derive(Debug)]
pub(crate) struct Link {
    page: Page,
    bell: Box<dyn Bell>,
    /// What did not fit into the ring yet.
    outbox: VecDeque<u8>,
    /// What was taken from the ring and is not a whole message yet.
    pub(crate) inbox: Vec<u8>,
}

impl Link {
    pub(crate) fn attach(socket: &Path, domid: DomId) -> Result<Self> {
        let broker = Broker::connect(socket)?;
        let (page, port) = (broker.map_store_page(domid)?, broker.store_port(domid)?);
        let mut events = LocalEvents::open(broker, domid)?;
        events.claim(port)?;
        Ok(Self::over(page, Box::new(LocalBell { events, port })))
    }

    pub(crate) fn over(page: Page, bell: Box<dyn Bell>) -> Self {
        Self { page, bell, outbox: VecDeque::new(), inbox: vec![] }
    }

    pub(crate) fn page(&self) -> &Page {
        &self.page
    }

    pub(crate) fn kick(&mut self) -> Result<()> {
        Ok(self.bell.ring()?)
    }

    pub(crate) fn wait_fd(&self) -> BorrowedFd<'_> {
        self.bell.wait_fd()
    }

    pub(crate) fn features(&self) -> u32 {
        self.page.load_u32(SERVER_FEATURES_OFFSET)
    }

    /// Queues bytes and sends what fits.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        if self.outbox.len() + bytes.len() > OUTBOX_BYTES_MAX {
            return Err(Error::TooLong);
        }
        self.outbox.extend(bytes);
        self.step().map(drop)
    }

    /// Moves bytes both ways. Did any move?
    pub(crate) fn step(&mut self) -> Result<bool> {
        let error = self.page.load_u32(ERROR_OFFSET);
        if error != 0 {
            return Err(Error::GivenUp(error));
        }
        let moved = self.push()? | self.pull()?;
        if moved {
            self.kick()?;
        }
        Ok(moved)
    }

    fn push(&mut self) -> Result<bool> {
        let prod = self.page.load_u32(REQ_PROD_OFFSET);
        let room = ring::writable(prod, self.page.load_u32(REQ_CONS_OFFSET))?.limit(self.outbox.len());
        if room.is_empty() {
            return Ok(false);
        }
        for chunk in room.iter() {
            let bytes: Vec<u8> = self.outbox.drain(..chunk.len).collect();
            self.page.write(REQ_OFFSET + chunk.offset, &bytes);
        }
        self.page.store_u32(REQ_PROD_OFFSET, advance(prod, room.len()));
        Ok(true)
    }

    fn pull(&mut self) -> Result<bool> {
        let cons = self.page.load_u32(RSP_CONS_OFFSET);
        let there = ring::readable(cons, self.page.load_u32(RSP_PROD_OFFSET))?;
        if there.is_empty() {
            return Ok(false);
        }
        for chunk in there.iter() {
            let start = self.inbox.len();
            self.inbox.resize(start + chunk.len, 0);
            self.page.read(RSP_OFFSET + chunk.offset, &mut self.inbox[start..]);
        }
        self.page.store_u32(RSP_CONS_OFFSET, advance(cons, there.len()));
        Ok(true)
    }

    /// Waits for an event of the store until `deadline`. Did one come?
    pub(crate) fn wait(&mut self, deadline: Instant) -> Result<bool> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = left.try_into().map_err(|_| Error::Message("the wait is too long"))?;
        let mut polled = [PollFd::from_borrowed_fd(self.bell.wait_fd(), PollFlags::IN)];
        match rustix::event::poll(&mut polled, Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Error::Poll(error)),
        }
        self.bell.take()?;
        Ok(true)
    }

    /// Asks the store to reset the ring (feature bit 1), and forgets what was under way.
    pub(crate) fn reconnect(&mut self, deadline: Instant) -> Result<bool> {
        self.page.store_u32(CONNECTION_OFFSET, RECONNECT);
        self.kick()?;
        while self.page.load_u32(CONNECTION_OFFSET) != CONNECTED {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            self.wait(deadline)?;
        }
        self.outbox.clear();
        self.inbox.clear();
        Ok(true)
    }
}

fn advance(index: u32, bytes: usize) -> u32 {
    index.wrapping_add(u32::try_from(bytes).expect("a ring's chunk is at most 1024 bytes"))
}
