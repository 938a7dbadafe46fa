//! The local stand-in for a hypervisor.
//!
//! A broker process keeps domains, their pages and their event channels; see [`server`]. A handle is a lease (a
//! socket whose hang-up tells the broker that the last holder is gone), an event page ([`event_page`]) and an
//! eventfd. An event goes from page to page without the broker.
//!
//! It stands in for the behaviour of a hypervisor, not for its isolation: a process that can reach the broker's socket
//! can do everything.

mod client;
mod event_page;
mod events;
mod grants;
pub mod machine;
mod memory;
pub mod server;
mod wire;

use std::os::fd::OwnedFd;
use std::path::Path;

pub use client::{Broker, NewDomain};
pub use events::LocalEvents;
pub use memory::{Access, GuestMemory};

use crate::{DomId, DomainInfo, DomainState, Host, Page, Port, Result, StorePages};

/// Opens the host as domain `domid` sees it.
pub(crate) fn open(socket: &Path, domid: DomId) -> Result<Host> {
    host(socket, domid, LocalEvents::open(Broker::connect(socket)?, domid)?)
}

/// Opens the host with a handle that another process kept.
pub(crate) fn adopt(socket: &Path, handles: Vec<OwnedFd>) -> Result<Host> {
    let events = LocalEvents::adopt(Broker::connect(socket)?, handles)?;
    let domid = events.domid();
    host(socket, domid, events)
}

fn host(socket: &Path, domid: DomId, events: LocalEvents) -> Result<Host> {
    let pages = LocalPages { broker: Broker::connect(socket)?, domid };
    let domains = LocalDomains { broker: Broker::connect(socket)? };
    let grants = Box::new(grants::LocalGrants::new(Broker::connect(socket)?, domid));
    Ok(Host { events: Box::new(events), pages: Box::new(pages), grants, domains: Box::new(domains) })
}

struct LocalPages {
    broker: Broker,
    domid: DomId,
}

impl StorePages for LocalPages {
    fn map_guest(&self, domid: DomId, _gfn: u64) -> Result<Page> {
        self.broker.map_store_page(domid)
    }

    fn map_own(&self) -> Result<(Page, Port)> {
        let port = self.broker.store_port(self.domid)?;
        Ok((self.broker.map_store_page(self.domid)?, port))
    }
}

struct LocalDomains {
    broker: Broker,
}

impl DomainInfo for LocalDomains {
    fn get(&self, domid: DomId) -> Result<Option<DomainState>> {
        self.broker.get(domid)
    }

    fn list(&self) -> Result<Vec<DomainState>> {
        self.broker.list()
    }
}
