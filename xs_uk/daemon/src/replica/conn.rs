//! A connection of the leader: its slot, and the socket or ring behind it.

use std::os::fd::{AsFd, OwnedFd};

use hypervisor::{EventChannels, Page, Port};
use xs_protocol::ring;
use xs_shm::{Received, Sent, Slot, SlotId};
use xs_store::ConnId;

use super::commit::Waiting;
use crate::poller::Interest;

/// What the other side of a connection did that ends it, or what it can not do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Something moved.
    Moved,
    /// Nothing to receive, or nothing to send.
    Idle,
    /// The peer takes no more now.
    Blocked,
    /// The peer is gone or broke the protocol.
    Ended,
}

/// The way to a client.
pub enum Transport {
    /// A client of the Unix socket.
    Socket {
        /// Its descriptor.
        fd: OwnedFd,
        /// What the poller watches it for.
        interest: Interest,
        /// The gateway holds another; before that the heir alone does.
        handed: bool,
    },
    /// A domain's ring.
    Ring {
        /// The shared page.
        page: Page,
        /// Our end of the event channel.
        port: Port,
        /// It broke the protocol: ignored until its domain is gone or introduced again.
        broken: bool,
    },
}

/// One connection.
pub struct Conn {
    pub id: ConnId,
    pub slot_id: SlotId,
    pub slot: Slot,
    pub transport: Transport,
    /// It waits in the list of connections that have work left.
    pub queued: bool,
    /// The last receive took all there was room for: there may be more.
    pub more: bool,
    /// What the engine has of it.
    pub waiting: Option<Waiting>,
    /// It is not heard while it waits.
    pub deaf: bool,
}

impl Conn {
    /// A connection that is ready to be served.
    pub fn new(id: ConnId, slot_id: SlotId, slot: Slot, transport: Transport) -> Self {
        Self { id, slot_id, slot, transport, queued: false, more: false, waiting: None, deaf: false }
    }

    /// Moves what came from the client into the slot.
    pub fn receive(&mut self, events: &mut dyn EventChannels) -> Flow {
        let room = self.slot.receivable_bytes();
        self.more = self.is_ring();
        match &self.transport {
            Transport::Socket { fd, .. } => match self.slot.receive(fd.as_fd()) {
                Ok(Received::Bytes(count)) => {
                    self.more = count == room;
                    Flow::Moved
                }
                Ok(Received::WouldBlock) => Flow::Idle,
                Ok(Received::Full) => {
                    self.more = true;
                    Flow::Blocked
                }
                Ok(Received::End) | Err(_) => Flow::Ended,
            },
            Transport::Ring { broken: true, .. } => Flow::Idle,
            Transport::Ring { page, port, .. } => ring_receive(&mut self.slot, page, *port, events),
        }
    }

    /// Moves what is queued in the slot to the client.
    pub fn send(&mut self, events: &mut dyn EventChannels) -> Flow {
        if self.slot.sendable_bytes() == 0 {
            return Flow::Idle;
        }
        match &self.transport {
            Transport::Socket { fd, .. } => match self.slot.send(fd.as_fd()) {
                Ok(Sent::All) => Flow::Moved,
                Ok(Sent::WouldBlock) => Flow::Blocked,
                Err(_) => Flow::Ended,
            },
            Transport::Ring { broken: true, .. } => Flow::Blocked,
            Transport::Ring { page, port, .. } => ring_send(&mut self.slot, page, *port, events),
        }
    }

    /// Is it a ring that broke the protocol?
    pub fn is_broken(&self) -> bool {
        matches!(self.transport, Transport::Ring { broken: true, .. })
    }

    /// Is it a domain's ring?
    pub fn is_ring(&self) -> bool {
        matches!(self.transport, Transport::Ring { .. })
    }

    /// Tells a ring's owner why it is ignored from now on (`error` in `xs_wire.h`).
    pub fn mark_broken(&mut self, error: u32, events: &mut dyn EventChannels) {
        if let Transport::Ring { page, port, broken } = &mut self.transport {
            *broken = true;
            page.store_u32(ring::ERROR_OFFSET, error);
            notify(events, *port);
        }
    }

    /// After a change of leader: our indices, as committed, count; the page shows them again.
    pub fn publish_indices(&self, events: &mut dyn EventChannels) {
        if let Transport::Ring { page, port, .. } = &self.transport {
            let record = self.slot.record();
            page.store_u32(ring::REQ_CONS_OFFSET, record.req_cons);
            page.store_u32(ring::RSP_PROD_OFFSET, record.rsp_prod);
            // Not the connection word: the guest may be asking for a new beginning just now.
            page.store_u32(ring::SERVER_FEATURES_OFFSET, ring::feature::ALL);
            notify(events, *port);
        }
    }
}

/// Begins a ring as INTRODUCE does: all indices zero, our features shown, connected.
pub fn ring_begin(slot: &mut Slot, page: &Page, port: Port, events: &mut dyn EventChannels) {
    slot.reset_ring(0, 0);
    for index in [ring::REQ_CONS_OFFSET, ring::REQ_PROD_OFFSET, ring::RSP_CONS_OFFSET, ring::RSP_PROD_OFFSET]
    {
        page.store_u32(index, 0);
    }
    page.store_u32(ring::ERROR_OFFSET, 0);
    ring_announce(page, port, events);
}

/// Shows our features and that the ring is served.
pub fn ring_announce(page: &Page, port: Port, events: &mut dyn EventChannels) {
    page.store_u32(ring::SERVER_FEATURES_OFFSET, ring::feature::ALL);
    page.store_u32(ring::CONNECTION_OFFSET, ring::CONNECTED);
    notify(events, port);
}

fn ring_receive(slot: &mut Slot, page: &Page, port: Port, events: &mut dyn EventChannels) -> Flow {
    let req_cons = slot.record().req_cons;
    let req_prod = page.load_u32(ring::REQ_PROD_OFFSET);
    let Ok(readable) = ring::readable(req_cons, req_prod) else { return Flow::Ended };
    if readable.is_empty() {
        return Flow::Idle;
    }
    let chunks = readable.limit(slot.receivable_bytes());
    if chunks.is_empty() {
        return Flow::Blocked;
    }
    let mut bytes = [0; ring::RING_BYTES as usize];
    let mut count = 0;
    for chunk in chunks.iter() {
        page.read(ring::REQ_OFFSET + chunk.offset, &mut bytes[count..count + chunk.len]);
        count += chunk.len;
    }
    let next = req_cons.wrapping_add(u32::try_from(count).expect("bounded by the ring"));
    slot.commit_ring_receive(&bytes[..count], next);
    page.store_u32(ring::REQ_CONS_OFFSET, next);
    notify(events, port);
    Flow::Moved
}

fn ring_send(slot: &mut Slot, page: &Page, port: Port, events: &mut dyn EventChannels) -> Flow {
    let mut moved = false;
    loop {
        if slot.sendable_bytes() == 0 {
            return if moved { Flow::Moved } else { Flow::Idle };
        }
        let rsp_prod = slot.record().rsp_prod;
        let rsp_cons = page.load_u32(ring::RSP_CONS_OFFSET);
        let Ok(writable) = ring::writable(rsp_prod, rsp_cons) else { return Flow::Ended };
        let mut bytes = [0; ring::RING_BYTES as usize];
        let count = slot.peek_sendable(&mut bytes[..writable.len()]);
        if count == 0 {
            return Flow::Blocked;
        }
        let mut done = 0;
        for chunk in writable.limit(count).iter() {
            page.write(ring::RSP_OFFSET + chunk.offset, &bytes[done..done + chunk.len]);
            done += chunk.len;
        }
        let next = rsp_prod.wrapping_add(u32::try_from(count).expect("bounded by the ring"));
        slot.commit_ring_send(count, next);
        page.store_u32(ring::RSP_PROD_OFFSET, next);
        notify(events, port);
        moved = true;
    }
}

/// A peer that is gone needs no notice; that it is gone comes by VIRQ_DOM_EXC.
fn notify(events: &mut dyn EventChannels, port: Port) {
    if port.0 != 0
        && let Err(error) = events.notify(port)
    {
        tracing::debug!(%port, %error, "event channel takes no notice");
    }
}
