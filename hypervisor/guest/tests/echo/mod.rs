//! A backend that sends every frame back, or answers whatever a test tells it to.

use std::path::Path;

use hypervisor::{CopyDirection, DomId, GrantCopy, GrantRef, Host, HostSpec, Page, Port, Profile, Region};
use sim_guest::net::ring::*;
use sim_guest::net::wire::{self, Gso, TxRequest};

const SLOTS: u32 = 256;

/// One queue of a backend with one port.
pub struct Echo {
    pub host: Host,
    pub tx: Page,
    pub rx: Page,
    port: Port,
    domid: DomId,
    tx_cons: u32,
    rx_cons: u32,
    /// Responses that are not shown yet: the guest must never see a part of a frame.
    hidden: u32,
    region: Region,
    /// Frames of the guest, with their segments.
    pub frames: Vec<(Vec<u8>, Option<Gso>)>,
    /// Frames for which there was no buffer.
    pub dropped: u64,
    /// Requests that made no sense.
    pub senseless: u64,
    /// Keep frames instead of sending them back.
    pub is_sink: bool,
}

impl Echo {
    pub fn connect(socket: &Path, domid: DomId, tx: GrantRef, rx: GrantRef, port: Port) -> Self {
        let spec = HostSpec { profile: Profile::Local, local_socket: socket.to_owned() };
        let mut host = Host::open(&spec).unwrap();
        let port = host.events.bind_interdomain(domid, port).unwrap();
        let (tx, rx) = (host.grants.map(domid, tx).unwrap(), host.grants.map(domid, rx).unwrap());
        let region = Region::create("echo", 4096).unwrap();
        let (tx_cons, rx_cons, hidden) = (0, 0, 0);
        let (frames, dropped, senseless, is_sink) = (vec![], 0, 0, false);
        Self {
            host,
            tx,
            rx,
            port,
            domid,
            tx_cons,
            rx_cons,
            hidden,
            region,
            frames,
            dropped,
            senseless,
            is_sink,
        }
    }

    pub fn notify(&mut self) {
        self.show();
        self.host.events.notify(self.port).unwrap();
    }

    /// Events since the last call.
    pub fn events(&mut self) -> u64 {
        let mut events = 0;
        while let Some(port) = self.host.events.pending().unwrap() {
            self.host.events.unmask(port).unwrap();
            events += 1;
        }
        events
    }

    /// Serves all that waits. Was there anything?
    pub fn step(&mut self) -> bool {
        self.events();
        let mut any = false;
        while self.waiting() != 0 {
            if self.waiting() > SLOTS || !self.frame() {
                self.senseless += 1;
                self.tx_cons = self.tx.load_u32(REQ_PROD_OFFSET);
                return any;
            }
            any = true;
        }
        self.tx.store_u32(REQ_EVENT_OFFSET, self.tx_cons.wrapping_add(1));
        if any {
            self.notify();
        }
        any
    }

    pub fn waiting(&self) -> u32 {
        self.tx.load_u32(REQ_PROD_OFFSET).wrapping_sub(self.tx_cons)
    }

    /// Buffers that wait.
    pub fn buffers(&self) -> u32 {
        self.rx.load_u32(REQ_PROD_OFFSET).wrapping_sub(self.rx_cons)
    }

    fn take(&mut self) -> [u8; 12] {
        let mut slot = [0; 12];
        self.tx.read(place(self.tx_cons, 12), &mut slot);
        self.tx_cons = self.tx_cons.wrapping_add(1);
        slot
    }

    /// Takes a frame. `false` if there is no whole and sensible one.
    fn frame(&mut self) -> bool {
        let mut request = TxRequest::decode(self.take());
        let (first, flags) = (request, request.flags);
        let mut ids = vec![Some(request.id)];
        let mut gso = None;
        if flags & wire::EXTRA_INFO != 0 {
            if self.waiting() == 0 {
                return false;
            }
            let extra = self.take();
            gso = Gso::decode(extra[..8].try_into().unwrap());
            ids.push(None);
        }
        let mut requests = vec![request];
        while request.flags & wire::MORE_DATA != 0 {
            if self.waiting() == 0 || requests.len() > 18 {
                return false;
            }
            request = TxRequest::decode(self.take());
            ids.push(Some(request.id));
            requests.push(request);
        }
        let others: usize = requests[1..].iter().map(|request| usize::from(request.size)).sum();
        let Some(size) = usize::from(first.size).checked_sub(others).filter(|size| *size <= 4096) else {
            return false;
        };
        requests[0].size = u16::try_from(size).unwrap();
        let mut bytes = vec![];
        for request in &requests {
            if !self.copy_in(request, &mut bytes) {
                return false;
            }
        }
        for id in ids {
            self.tx_response(id.unwrap_or(0), if id.is_some() { 0 } else { wire::STATUS_NULL });
        }
        if !self.is_sink {
            self.send(&bytes, gso, flags & (wire::CSUM_BLANK | wire::DATA_VALIDATED));
        }
        self.frames.push((bytes, gso));
        true
    }

    fn copy_in(&mut self, request: &TxRequest, bytes: &mut Vec<u8>) -> bool {
        let copy = GrantCopy::new(request.gref, &self.region, request.size, CopyDirection::FromGuest);
        let mut copies = [copy.at_guest(request.offset)];
        self.host.grants.copy(self.domid, &mut copies).unwrap();
        let start = bytes.len();
        bytes.resize(start + usize::from(request.size), 0);
        self.region.read(0, &mut bytes[start..]);
        copies[0].status.is_ok()
    }

    /// Sends a frame to the guest.
    pub fn send(&mut self, bytes: &[u8], gso: Option<Gso>, flags: u16) {
        let parts = bytes.chunks(4000);
        let slots = u32::try_from(parts.len()).unwrap() + u32::from(gso.is_some());
        if self.buffers() < slots {
            self.dropped += 1;
            return;
        }
        let last = parts.len() - 1;
        for (i, part) in parts.enumerate() {
            let more = if i < last { wire::MORE_DATA } else { 0 };
            let first = if i == 0 { flags | gso.map_or(0, |_| wire::EXTRA_INFO) } else { 0 };
            self.fill(part, 7, more | first);
            if let Some(gso) = gso.filter(|_| i == 0) {
                self.rx_raw(gso.encode());
            }
        }
        self.show();
    }

    fn show(&mut self) {
        let hidden = std::mem::take(&mut self.hidden);
        if hidden > 0 {
            self.rx.store_u32(RSP_PROD_OFFSET, self.rx.load_u32(RSP_PROD_OFFSET).wrapping_add(hidden));
        }
    }

    /// Fills the next buffer and answers for it.
    pub fn fill(&mut self, part: &[u8], offset: u16, flags: u16) {
        let mut slot = [0; 8];
        self.rx.read(place(self.rx_cons, 8), &mut slot);
        let gref = GrantRef(u32::from_ne_bytes(slot[4..].try_into().unwrap()));
        self.region.write(0, part);
        let length = u16::try_from(part.len()).unwrap();
        let copy = GrantCopy::new(gref, &self.region, length, CopyDirection::ToGuest).at_guest(offset);
        let mut copies = [copy];
        self.host.grants.copy(self.domid, &mut copies).unwrap();
        assert!(copies[0].status.is_ok(), "{:?}", copies[0].status);
        let id = u16::from_ne_bytes([slot[0], slot[1]]);
        self.rx_response(id, offset, flags, length.cast_signed());
    }

    /// Answers on the sent ring.
    pub fn tx_response(&self, id: u16, status: i16) {
        let [a, b] = id.to_ne_bytes();
        let [c, d] = status.to_ne_bytes();
        let number = self.tx.load_u32(RSP_PROD_OFFSET);
        self.tx.write(place(number, 12), &[a, b, c, d]);
        self.tx.store_u32(RSP_PROD_OFFSET, number.wrapping_add(1));
    }

    /// Answers on the received ring.
    pub fn rx_response(&mut self, id: u16, offset: u16, flags: u16, status: i16) {
        let mut slot = [0; 8];
        for (i, value) in [id, offset, flags, status.cast_unsigned()].iter().enumerate() {
            slot[2 * i..2 * i + 2].copy_from_slice(&value.to_ne_bytes());
        }
        self.rx_raw(slot);
    }

    /// Answers whatever it is on the received ring, unseen until [`Self::notify`].
    pub fn rx_raw(&mut self, slot: [u8; 8]) {
        let number = self.rx.load_u32(RSP_PROD_OFFSET).wrapping_add(self.hidden);
        self.rx.write(place(number, 8), &slot);
        self.rx_cons = self.rx_cons.wrapping_add(1);
        self.hidden += 1;
    }

    /// The number of the next buffer.
    pub fn next_id(&self) -> u16 {
        u16::try_from(self.rx_cons % SLOTS).unwrap()
    }
}

fn place(number: u32, slot_bytes: usize) -> usize {
    SLOTS_OFFSET + (number % SLOTS) as usize * slot_bytes
}
