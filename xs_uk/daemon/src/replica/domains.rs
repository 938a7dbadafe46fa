//! Domains come and go: INTRODUCE, RELEASE, death, and rings that ask to be begun anew.

use hypervisor::{EventChannels, Port};
use rustix::io::Errno;
use xs_protocol::{DomId, Header, XsError, ring};
use xs_store::ConnId;
use xs_store::entry::{Entry, EntryRef, HANDLE_BYTES};

use super::commit::{Outcome, Wait, Waiting};
use super::conn::{Conn, Transport, ring_announce, ring_begin};
use super::leader::Leader;
use crate::error::Error;
use crate::poller::Interest;

/// What the store must know of the I/O that came before an INTRODUCE: its failure, or the ring's connection.
type Introduced = (Option<XsError>, Option<ConnId>);

impl Leader {
    /// Maps a domain's page and binds its event channel, before INTRODUCE is logged.
    ///
    /// Killed between this and the log, the successor finds a ring that the store knows nothing of and lets it go.
    pub(super) fn introduce(&mut self, conn: &Conn, payload: &[u8]) -> Result<Introduced, Error> {
        // A RELEASE of the same domain just before must have let its ring go.
        self.settle_effects()?;
        self.sweep_ports();
        let Ok((domid, gfn, remote)) = self.machine.store.introduce_args(conn.id, payload) else {
            // The store refuses it for the same reason when it applies it.
            return Ok((None, None));
        };
        let introduced = self.machine.store.domain(domid).filter(|domain| domain.introduced);
        if let Some(known) = introduced.and_then(|domain| domain.conn) {
            if conn.id == known {
                return Ok((Some(XsError::EINVAL), None));
            }
            return Ok(self.introduce_again(known, domid, remote));
        }
        match self.map_ring(domid, gfn, remote) {
            Ok(ring) => {
                let id = ring.id;
                self.conns.insert(id.0, ring);
                Ok((None, Some(id)))
            }
            Err(error) => {
                tracing::warn!(%domid, remote, %error, "cannot introduce");
                Ok((Some(XsError::EINVAL), None))
            }
        }
    }

    /// Makes the domains known that a request names and that exist, before it is logged.
    pub(super) fn make_known(
        &mut self,
        conn: ConnId,
        header: &Header,
        payload: &[u8],
    ) -> Result<Outcome, Error> {
        let mut outcome = Outcome::Applied;
        for domid in self.machine.store.strangers(conn, header, payload) {
            let Some(handle) = self.handle_of(domid) else { continue };
            outcome = self.propose(&EntryRef::DomainKnown { domid, handle })?;
            if !outcome.is_taken() {
                break;
            }
        }
        Ok(outcome)
    }

    /// Before a domain is introduced: what was given to another one of its number, whose death nobody has seen yet, is
    /// not for it.
    pub(super) fn forget_former(&mut self, conn: ConnId, payload: &[u8]) -> Result<Outcome, Error> {
        let Ok((domid, ..)) = self.machine.store.introduce_args(conn, payload) else {
            return Ok(Outcome::Applied);
        };
        let known = self.machine.store.domain(domid).filter(|known| !known.introduced);
        let Some((known, handle)) = known.and_then(|known| Some((known, self.handle_of(domid)?))) else {
            return Ok(Outcome::Applied);
        };
        if known.is_same(&handle) {
            return Ok(Outcome::Applied);
        }
        self.propose(&EntryRef::DomainKnown { domid, handle })
    }

    /// The handle of a domain that exists, be it about to die. One that cannot be asked for counts for nothing, which harms nobody.
    fn handle_of(&self, domid: DomId) -> Option<[u8; HANDLE_BYTES]> {
        match self.host.domains.get(hypervisor::DomId(domid.0)) {
            Ok(state) => state.map(|state| state.handle),
            Err(error) => {
                tracing::warn!(%domid, %error, "cannot ask whether the domain exists");
                None
            }
        }
    }

    fn map_ring(&mut self, domid: DomId, gfn: u64, remote: u32) -> Result<Conn, Error> {
        let hv_domid = hypervisor::DomId(domid.0);
        let page = self.host.pages.map_guest(hv_domid, gfn)?;
        self.table.set_binding(true);
        let bound = self.host.events.bind_interdomain(hv_domid, Port(remote));
        let slot_id =
            bound.as_ref().ok().and_then(|port| self.table.allocate_ring(domid.0, port.0, remote, gfn));
        self.table.set_binding(false);
        let port = bound?;
        let Some(slot_id) = slot_id else {
            self.host.events.unbind(port)?;
            return Err(Error::System { call: "allocate_ring", source: Errno::NOSPC });
        };
        let mut slot = self.table.slot(slot_id);
        ring_begin(&mut slot, &page, port, self.host.events.as_mut());
        let id = ConnId(self.table.conn_id(slot_id));
        self.by_port.insert(port.0, id);
        let transport = Transport::Ring { page, port, broken: false };
        Ok(Conn::new(id, slot_id, slot, transport))
    }

    /// A second INTRODUCE binds the event channel anew and begins the ring anew.
    fn introduce_again(&mut self, known: ConnId, domid: DomId, remote: u32) -> Introduced {
        let Some(ring) = self.conns.get_mut(&known.0) else { return (Some(XsError::EINVAL), None) };
        let Transport::Ring { page, port, broken } = &mut ring.transport else {
            return (Some(XsError::EINVAL), None);
        };
        unbind(self.host.events.as_mut(), *port);
        self.by_port.remove(&port.0);
        // From here on the old number may become another domain's.
        *port = Port(0);
        self.table.set_ports(ring.slot_id, 0, remote);
        self.table.set_binding(true);
        let outcome = match self.host.events.bind_interdomain(hypervisor::DomId(domid.0), Port(remote)) {
            Ok(fresh) => {
                *port = fresh;
                *broken = false;
                self.table.set_ports(ring.slot_id, fresh.0, remote);
                self.by_port.insert(fresh.0, known);
                ring_begin(&mut ring.slot, page, fresh, self.host.events.as_mut());
                (None, Some(known))
            }
            Err(error) => {
                tracing::warn!(%domid, remote, %error, "cannot bind again");
                *broken = true;
                (Some(XsError::EINVAL), None)
            }
        };
        self.table.set_binding(false);
        outcome
    }

    /// dom0's own page: there from the start, begun by its kernel.
    pub(super) fn open_own_ring(&mut self) -> Result<(), Error> {
        let (page, remote) = match self.host.pages.map_own() {
            Ok(own) => own,
            Err(error) => {
                tracing::warn!(%error, "no store page of our own domain");
                return Ok(());
            }
        };
        self.table.set_binding(true);
        let port = self.host.events.bind_interdomain(hypervisor::DomId(0), remote)?;
        let slot_id = self.table.allocate_ring(0, port.0, remote.0, 0);
        self.table.set_binding(false);
        let slot_id = slot_id.ok_or(Error::System { call: "allocate_ring", source: Errno::NOSPC })?;
        let mut slot = self.table.slot(slot_id);
        let indices = [ring::REQ_CONS_OFFSET, ring::RSP_PROD_OFFSET].map(|at| page.load_u32(at));
        slot.reset_ring(indices[0], indices[1]);
        ring_announce(&page, port, self.host.events.as_mut());
        let id = ConnId(self.table.conn_id(slot_id));
        self.by_port.insert(port.0, id);
        let transport = Transport::Ring { page, port, broken: false };
        let mut conn = Conn::new(id, slot_id, slot, transport);
        let peer = xs_store::Peer::Domain(DomId(0));
        self.propose_or_retry(&Entry::Connect { conn: id, peer })?;
        if !self.machine.store.is_connected(id) {
            conn.waiting = Some(Waiting::begin(Wait::Opening));
        }
        self.conns.insert(id.0, conn);
        Ok(())
    }

    /// A guest may ask for a fresh ring by the page's connection word: its watches and transactions end, bytes under
    /// way are dropped (`docs/misc/xenstore-ring.txt`). Killed anywhere in here, the word still asks.
    pub(super) fn reconnect_if_asked(&mut self, conn: &mut Conn) -> Result<(), Error> {
        let Transport::Ring { page, .. } = &conn.transport else { return Ok(()) };
        if page.load_u32(ring::CONNECTION_OFFSET) != ring::RECONNECT || conn.waiting.is_some() {
            return Ok(());
        }
        match self.propose(&EntryRef::Reset { conn: conn.id })? {
            Outcome::Applied => conn.begin_anew(self.host.events.as_mut()),
            Outcome::Submitted => conn.waiting = Some(Waiting::begin(Wait::Reset)),
            // The word still asks.
            Outcome::Full | Outcome::Unavailable => {}
        }
        Ok(())
    }

    /// VIRQ_DOM_EXC: some domain shut down or died; which, only a look at all of them tells.
    pub(super) fn look_at_domains(&mut self) -> Result<(), Error> {
        let known: Vec<_> = self.machine.store.domains().collect();
        for (domid, domain) in known {
            if domid.0 == 0 || self.ending.contains(&domid) {
                continue;
            }
            let state = match self.host.domains.get(hypervisor::DomId(domid.0)) {
                Ok(state) => state,
                Err(error) => {
                    tracing::warn!(%domid, %error, "cannot ask for the domain's state");
                    continue;
                }
            };
            let entry = match state {
                None => Some(Entry::DomainGone { domid }),
                Some(state) if state.dying && domain.introduced => Some(Entry::DomainGone { domid }),
                Some(state) if !domain.is_same(&state.handle) => Some(Entry::DomainGone { domid }),
                Some(state) if state.shutdown && domain.introduced && !domain.shutdown => {
                    Some(Entry::DomainShutdown { domid })
                }
                Some(_) => None,
            };
            if let Some(entry) = entry {
                // Until it is applied the store shows the domain as it was; told twice, the second could hit the next
                // domain of this id.
                self.ending.insert(domid);
                if self.propose_or_retry(&entry)? == Outcome::Applied {
                    self.ending.remove(&domid);
                }
            }
        }
        self.settle_effects()
    }

    /// As [`Leader::propose`]; what the log has no room for now is looked for again on the next beat.
    pub(super) fn propose_or_retry(&mut self, entry: &Entry) -> Result<Outcome, Error> {
        let outcome = if self.owed.is_empty() { self.propose(&entry.as_ref())? } else { Outcome::Full };
        if !outcome.is_taken() {
            self.owed.push_back(entry.clone());
        }
        Ok(outcome)
    }

    /// Appends what the log had no room for before. Each entry ends a connection or a domain, so there are at most as
    /// many as there are of those. Tells what became of the last one that was tried. The effects wait to be settled.
    pub(super) fn pay_owed(&mut self) -> Result<Outcome, Error> {
        let mut paid = Outcome::Applied;
        while let Some(entry) = self.owed.front().cloned() {
            paid = self.propose(&entry.as_ref())?;
            if !paid.is_taken() {
                break;
            }
            self.owed.pop_front();
            if let (Outcome::Applied, Entry::DomainGone { domid } | Entry::DomainShutdown { domid }) =
                (paid, &entry)
            {
                self.ending.remove(domid);
            }
        }
        Ok(paid)
    }

    /// Lets a domain's ring go: RELEASE, or its death.
    pub(super) fn unmap(&mut self, domid: DomId) -> Result<(), Error> {
        self.forget_unmapped(domid);
        let ring =
            self.conns.values().find(|conn| conn.is_ring() && self.table.domid(conn.slot_id) == domid.0);
        if let Some(id) = ring.map(|conn| conn.id) {
            self.close(id)?;
        }
        Ok(())
    }

    /// Ends a connection whose end the store knows already.
    pub(super) fn close(&mut self, id: ConnId) -> Result<(), Error> {
        if let Some(conn) = self.conns.remove(&id.0) {
            self.let_go(conn)?;
        }
        Ok(())
    }

    /// Ends a client's connection.
    pub(super) fn disconnect(&mut self, conn: Conn) -> Result<(), Error> {
        // One that only read is not in the log, unless its opening is under way.
        if conn.waiting.is_some() || self.machine.store.is_connected(conn.id) {
            self.propose_or_retry(&Entry::Disconnect { conn: conn.id })?;
        }
        self.let_go(conn)
    }

    fn let_go(&mut self, conn: Conn) -> Result<(), Error> {
        self.fairness.forget(conn.id.0);
        match conn.transport {
            Transport::Socket { fd, interest, handed } => {
                // What nobody else holds leaves the poller as it is closed.
                if handed {
                    self.poller
                        .change(&fd, conn.id.0, interest, Interest::NONE)
                        .map_err(Error::system("epoll_ctl"))?;
                }
                self.close_socket(conn.id.0, conn.slot_id, fd, handed)?;
            }
            Transport::Ring { page, port, .. } => {
                self.by_port.remove(&port.0);
                unbind(self.host.events.as_mut(), port);
                drop(page);
                self.table.free(conn.slot_id);
            }
        }
        Ok(())
    }
}

/// Port 0 is none: a ring whose event channel could not be bound.
fn unbind(events: &mut dyn EventChannels, port: Port) {
    if port.0 != 0
        && let Err(error) = events.unbind(port)
    {
        tracing::debug!(%port, %error, "unbind");
    }
}
