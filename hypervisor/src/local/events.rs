//! Event channels by event pages and eventfds.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::SocketType;

use super::client::Broker;
use super::event_page::{EventPage, Route};
use super::machine::HandleId;
use super::server::wake;
use crate::limits::{PEERS_CACHED_MAX, PORTS_MAX};
use crate::{DomId, Error, EventChannels, Port, Refusal, Result, Virq};

/// A handle at the broker.
#[derive(Debug)]
pub struct LocalEvents {
    broker: Broker,
    lease: OwnedFd,
    file: OwnedFd,
    wake: OwnedFd,
    page: EventPage,
    handle: HandleId,
    /// Where [`EventPage::take`] goes on, so that no port starves another.
    next: Port,
    peers: HashMap<HandleId, Peer>,
}

#[derive(Debug)]
struct Peer {
    page: EventPage,
    wake: OwnedFd,
}

impl LocalEvents {
    /// Opens a new handle of `domid`.
    ///
    /// # Errors
    /// [`Refusal::NoDomain`], [`Refusal::Limit`], or what fails on the way.
    pub fn open(broker: Broker, domid: DomId) -> Result<Self> {
        let descriptors = broker.open_handle(domid)?;
        Self::new(broker, descriptors)
    }

    /// Takes over the handle whose [`EventChannels::handles`] these are.
    ///
    /// # Errors
    /// [`Error::Adopt`] if they are not.
    pub fn adopt(broker: Broker, handles: Vec<OwnedFd>) -> Result<Self> {
        let descriptors: [OwnedFd; 3] =
            handles.try_into().map_err(|_| Error::Adopt("a handle has three descriptors"))?;
        if rustix::net::sockopt::socket_type(&descriptors[0]) != Ok(SocketType::SEQPACKET) {
            return Err(Error::Adopt("the first descriptor is not a lease"));
        }
        let events = Self::new(broker, descriptors)?;
        // What the former process took notice of, it may not have served.
        wake(&events.wake);
        Ok(events)
    }

    fn new(broker: Broker, [lease, file, wake]: [OwnedFd; 3]) -> Result<Self> {
        let page = EventPage::open(&file)?;
        let handle = page.handle();
        Ok(Self { broker, lease, file, wake, page, handle, next: Port(0), peers: HashMap::new() })
    }

    /// The domain of the handle.
    pub fn domid(&self) -> DomId {
        self.page.domid()
    }

    /// Takes the events of a port that the domain has already, as a guest does with its store port.
    ///
    /// # Errors
    /// [`Refusal::NoPort`]; [`Refusal::Taken`] if another handle has it; or what fails on the way.
    pub fn claim(&mut self, port: Port) -> Result<()> {
        self.broker.claim(self.handle, port)
    }

    /// The port, if it is one of this handle.
    fn own(&self, port: Port) -> Result<Route> {
        if port.0 >= PORTS_MAX {
            return Err(Error::PortRange { port });
        }
        match self.page.route(port) {
            Route::None => Err(Error::Refused(Refusal::NoPort)),
            route => Ok(route),
        }
    }

    fn peer(&mut self, handle: HandleId) -> Result<Option<&Peer>> {
        if !self.peers.contains_key(&handle) {
            let [file, wake] = match self.broker.peer(handle) {
                Ok(descriptors) => descriptors,
                // It closed in this moment.
                Err(Error::Refused(Refusal::NoHandle)) => return Ok(None),
                Err(error) => return Err(error),
            };
            keep_below(&mut self.peers, PEERS_CACHED_MAX);
            self.peers.insert(handle, Peer { page: EventPage::open(file)?, wake });
        }
        Ok(self.peers.get(&handle))
    }
}

impl EventChannels for LocalEvents {
    fn wait_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    fn handles(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.lease.as_fd(), self.file.as_fd(), self.wake.as_fd()]
    }

    fn bind_interdomain(&mut self, remote: DomId, remote_port: Port) -> Result<Port> {
        self.broker.bind_interdomain(self.handle, remote, remote_port)
    }

    fn bind_unbound(&mut self, remote: DomId) -> Result<Port> {
        self.broker.bind_unbound(self.handle, remote)
    }

    fn bind_virq(&mut self, virq: Virq) -> Result<Port> {
        self.broker.bind_virq(self.handle, virq)
    }

    fn unbind(&mut self, port: Port) -> Result<()> {
        self.broker.unbind(self.handle, port)
    }

    fn notify(&mut self, port: Port) -> Result<()> {
        let Route::To(handle, peer_port) = self.own(port)? else { return Ok(()) };
        if let Some(peer) = self.peer(handle)?
            && peer.page.raise(peer_port)
        {
            wake(&peer.wake);
        }
        Ok(())
    }

    fn pending(&mut self) -> Result<Option<Port>> {
        let mut taken = self.page.take(self.next);
        if taken.is_none() {
            // Clear the eventfd only when nothing was left, and look again: a peer sets the bit before it wakes.
            let cleared = rustix::io::read(&self.wake, &mut [0; 8]).is_ok();
            taken = self.page.take(self.next);
            if cleared && taken.is_some() {
                wake(&self.wake);
            }
        }
        if let Some(port) = taken {
            self.next = Port((port.0 + 1) % PORTS_MAX);
        }
        Ok(taken)
    }

    fn unmask(&mut self, port: Port) -> Result<()> {
        self.own(port)?;
        if self.page.unmask(port) {
            wake(&self.wake);
        }
        Ok(())
    }
}

/// Empties a cache that is full: what is still in use is fetched again.
fn keep_below<K, V>(cache: &mut HashMap<K, V>, max: usize) {
    if cache.len() >= max {
        cache.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_cache_is_emptied() {
        let mut cache: HashMap<usize, ()> = (0..PEERS_CACHED_MAX - 1).map(|key| (key, ())).collect();
        keep_below(&mut cache, PEERS_CACHED_MAX);
        assert_eq!(cache.len(), PEERS_CACHED_MAX - 1);
        cache.insert(PEERS_CACHED_MAX, ());
        keep_below(&mut cache, PEERS_CACHED_MAX);
        assert!(cache.is_empty());
    }
}
