//! The backend's side of the guest's transmit ring.

use std::borrow::Borrow;

use hypervisor::{GrantRef, PAGE_BYTES, Page};
use smallvec::{SmallVec, smallvec};

use crate::back::BackRing;
use crate::limits::{EXTRAS_MAX, FRAME_BYTES_MIN, TX_PARTS_MAX, TX_REQUESTS_MAX};
use crate::ring::{
    Extra, ExtraInfo, TX_RESPONSE_BYTES, TX_SLOT_BYTES, TxRequest, TxResponse, status, tx_flags,
};
use crate::{Checksum, Gso, Index, MacAddr, PacketFault, Redo, RingFault};

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxStatus {
    /// It was taken.
    Okay,
    /// It was dropped on purpose.
    Dropped,
    /// It is bad, or its pages could not be read.
    Error,
}

impl TxStatus {
    const fn number(self) -> i16 {
        match self {
            Self::Okay => status::OKAY,
            Self::Dropped => status::DROPPED,
            Self::Error => status::ERROR,
        }
    }
}

/// A change of the guest's multicast list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Multicast {
    /// Frames to this group are wanted.
    Add(MacAddr),
    /// They are no longer.
    Del(MacAddr),
}

/// Bytes of a packet in a page of the guest. They lie within the page and are not none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TxPart {
    /// The page.
    pub gref: GrantRef,
    /// Where in the page they begin.
    pub offset_bytes: u16,
    /// How many.
    pub length_bytes: u16,
}

/// A packet of the guest, or a change of its multicast list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxPacket {
    index: Index,
    extras: u32,
    /// Of all requests. Most packets have one or two, and are moved a few times on their way.
    ids: SmallVec<[u16; 4]>,
    /// Of requests with data; the first is as long as the others leave of the packet.
    parts: SmallVec<[TxPart; 2]>,
    rest_bytes: u32,
    length_bytes: u16,
    checksum: Checksum,
    gso: Option<Gso>,
    multicast: Option<Multicast>,
    fault: Option<PacketFault>,
}

impl TxPacket {
    fn new(index: Index, first: &TxRequest) -> Self {
        let part = TxPart { gref: first.gref, offset_bytes: first.offset_bytes, length_bytes: 0 };
        Self {
            index,
            extras: 0,
            ids: smallvec![first.id],
            parts: smallvec![part],
            rest_bytes: 0,
            length_bytes: first.size_bytes,
            checksum: checksum(first),
            gso: None,
            multicast: None,
            fault: None,
        }
    }

    /// The index of its first request: with the queue, its name.
    pub fn index(&self) -> Index {
        self.index
    }

    /// Slots that it fills.
    #[expect(clippy::cast_possible_truncation, reason = "at most TX_REQUESTS_MAX")]
    pub fn slots(&self) -> u32 {
        self.ids.len() as u32 + self.extras
    }

    /// What is wrong with it. Then it has no parts, and is answered with [`TxStatus::Error`].
    pub fn fault(&self) -> Option<PacketFault> {
        self.fault
    }

    /// Where its bytes are, in order: at most [`TX_PARTS_MAX`] pieces of [`TxPacket::length_bytes`] in all. They may be
    /// cut anywhere, also within headers.
    pub fn parts(&self) -> &[TxPart] {
        if self.fault.is_some() || self.multicast.is_some() {
            return &[];
        }
        let empty_first = usize::from(self.parts[0].length_bytes == 0);
        &self.parts[empty_first..]
    }

    /// Its length. (A bad packet's is what it claims.)
    pub fn length_bytes(&self) -> usize {
        usize::from(self.length_bytes)
    }

    /// What the guest says of its checksum. A frame to be cut that is not said to be blank must be made so
    /// ([`crate::checksum::blank`]) if it goes to another guest whole.
    pub fn checksum(&self) -> Checksum {
        self.checksum
    }

    /// How it is to be cut.
    pub fn gso(&self) -> Option<Gso> {
        self.gso
    }

    /// If it is no packet: the change of the multicast list.
    pub fn multicast(&self) -> Option<Multicast> {
        self.multicast
    }

    fn blame(&mut self, fault: PacketFault) {
        self.fault.get_or_insert(fault);
    }

    fn add_extra(&mut self, extra: Extra) {
        self.extras += 1;
        if self.extras as usize > EXTRAS_MAX {
            self.blame(PacketFault::TooManyExtras);
        }
        match extra {
            Extra::Gso { size_bytes, kind, .. } => {
                self.gso = Gso::from_wire(kind, size_bytes);
                if self.gso.is_none() {
                    self.blame(PacketFault::BadGso { kind, size_bytes });
                }
            }
            Extra::MulticastAdd(address) => self.multicast = Some(Multicast::Add(address)),
            Extra::MulticastDel(address) => self.multicast = Some(Multicast::Del(address)),
            // Hints that nobody asked for.
            Extra::Hash { .. } | Extra::Xdp { .. } => {}
            Extra::Unknown(kind) => self.blame(PacketFault::UnknownExtra(kind)),
        }
    }

    /// Adds a request after the first. There must be less than [`TX_REQUESTS_MAX`] so far.
    fn add_request(&mut self, request: &TxRequest) {
        self.ids.push(request.id);
        self.rest_bytes += u32::from(request.size_bytes);
        let part = TxPart {
            gref: request.gref,
            offset_bytes: request.offset_bytes,
            length_bytes: request.size_bytes,
        };
        self.check_bounds(part);
        if self.ids.len() > TX_PARTS_MAX {
            self.blame(PacketFault::TooManyParts);
        } else if part.length_bytes > 0 {
            // Guests may waste a slot on nothing (XSA-448); nobody behind this is to see that.
            self.parts.push(part);
        }
    }

    fn check_bounds(&mut self, part: TxPart) {
        let TxPart { offset_bytes, length_bytes, .. } = part;
        if usize::from(offset_bytes) + usize::from(length_bytes) > PAGE_BYTES {
            self.blame(PacketFault::CrossesPage { offset_bytes, length_bytes });
        }
    }

    fn finish(&mut self) {
        if self.multicast.is_some() {
            if self.ids.len() > 1 {
                self.blame(PacketFault::MulticastWithData);
            }
            return;
        }
        let (total_bytes, rest_bytes) = (self.length_bytes, self.rest_bytes);
        match u32::from(total_bytes).checked_sub(rest_bytes).map(u16::try_from) {
            Some(Ok(first_bytes)) => {
                self.parts[0].length_bytes = first_bytes;
                self.check_bounds(self.parts[0]);
            }
            _ => self.blame(PacketFault::Size { total_bytes, rest_bytes }),
        }
        if u32::from(total_bytes) < FRAME_BYTES_MIN {
            self.blame(PacketFault::TooShort { total_bytes });
        }
    }
}

fn checksum(first: &TxRequest) -> Checksum {
    if first.has(tx_flags::CSUM_BLANK) {
        Checksum::Blank
    } else if first.has(tx_flags::DATA_VALIDATED) {
        Checksum::Validated
    } else {
        Checksum::None
    }
}

/// The backend's side of a guest's transmit ring. Packets are taken and answered in order.
///
/// What is wrong with a single packet is told in it. A packet whose slots were not all pushed at once is a fault of the
/// ring, as with Linux's backend: frontends push whole packets, and a half one could be left lying for ever in a ring
/// that looks as if there were work.
#[derive(Debug)]
pub struct TxRing<P: Borrow<Page> = Page> {
    ring: BackRing<P, TX_SLOT_BYTES, TX_RESPONSE_BYTES>,
}

impl<P: Borrow<Page>> TxRing<P> {
    /// Goes on where the page says that responses end: at 0 with a new guest. The guest is to be sent an event
    /// afterwards, once, for a former backend may have died before it could.
    ///
    /// # Errors
    /// [`RingFault::ImpossibleIndex`].
    pub fn attach(page: P) -> Result<Self, RingFault> {
        Ok(Self { ring: BackRing::attach(page)? })
    }

    /// The page.
    pub fn page(&self) -> &Page {
        self.ring.page()
    }

    /// Completes the last [`TxRing::publish_logged`] of a former backend, if it was cut short. To be called right after
    /// [`TxRing::attach`], with what was logged. The log must be emptied when a guest is connected anew: indexes say
    /// nothing about another ring.
    ///
    /// # Errors
    /// A fault of the ring.
    ///
    /// # Panics
    /// If a packet was taken before.
    pub fn redo(&mut self, first: Index, responses: &[u8]) -> Result<Redo, RingFault> {
        self.ring.redo(first, responses)
    }

    /// Takes the next packet, if there is one.
    ///
    /// # Errors
    /// A fault of the ring; from then on always the same.
    pub fn take(&mut self) -> Result<Option<TxPacket>, RingFault> {
        self.ring.check()?;
        if self.ring.untaken_seen() == 0 && self.ring.refresh()? == 0 {
            return Ok(None);
        }
        let packet = self.gather().map_err(|fault| self.ring.fail(fault))?;
        self.ring.take_to(packet.index.plus(packet.slots()));
        Ok(Some(packet))
    }

    /// Copies each slot of the next packet once.
    fn gather(&mut self) -> Result<TxPacket, RingFault> {
        let first = TxRequest::decode(&self.slot(0)?);
        let mut packet = TxPacket::new(self.ring.taken(), &first);
        let mut more = first.has(tx_flags::EXTRA_INFO);
        while more {
            let [info @ .., _, _, _, _] = self.slot(packet.slots())?;
            let info = ExtraInfo::decode(&info);
            packet.add_extra(info.extra);
            more = info.more;
        }
        more = first.has(tx_flags::MORE_DATA);
        while more {
            if packet.ids.len() == TX_REQUESTS_MAX {
                return Err(RingFault::TooManySlots { index: packet.index });
            }
            let request = TxRequest::decode(&self.slot(packet.slots())?);
            packet.add_request(&request);
            more = request.has(tx_flags::MORE_DATA);
        }
        packet.finish();
        Ok(packet)
    }

    /// The slot that is so many behind the next packet's first.
    fn slot(&mut self, number: u32) -> Result<[u8; TX_SLOT_BYTES], RingFault> {
        let index = self.ring.taken();
        if number >= self.ring.untaken_seen() && number >= self.ring.refresh()? {
            return Err(RingFault::Incomplete { index });
        }
        Ok(self.ring.request(index.plus(number)))
    }

    /// Puts back the packet that was taken last, to be taken again.
    ///
    /// # Panics
    /// If another was taken since, or it was answered.
    pub fn untake(&mut self, packet: &TxPacket) {
        self.ring.give_back(packet.index, packet.slots());
    }

    /// Answers all slots of the oldest packet without an answer. A bad one is always answered with an error. The guest
    /// sees it after [`TxRing::publish_logged`].
    ///
    /// # Panics
    /// If it is another packet's turn.
    pub fn answer(&mut self, packet: &TxPacket, status: TxStatus) {
        self.ring.check_turn(packet.index, packet.slots());
        let status = if packet.fault.is_some() { TxStatus::Error } else { status }.number();
        let (first, rest) = (packet.ids[0], &packet.ids[1..]);
        self.ring.stage(TxResponse { id: first, status }.encode());
        for _ in 0..packet.extras {
            self.ring.stage(TxResponse { id: 0, status: status::NULL }.encode());
        }
        for id in rest {
            self.ring.stage(TxResponse { id: *id, status }.encode());
        }
    }

    /// Makes the answers visible, with nothing written down before: see [`TxRing::publish_logged`].
    pub fn publish(&mut self) -> bool {
        self.publish_logged(|_, _| {})
    }

    /// Makes the answers visible; returns whether the guest is to be sent an event.
    ///
    /// First `log` is given the index of the first response and all of them, [`TX_RESPONSE_BYTES`] each and at most 256,
    /// to be kept where a successor finds them for [`TxRing::redo`]. What was kept before may be overwritten, but a half
    /// written entry must be recognisable. It is not called if there is nothing to publish.
    pub fn publish_logged(&mut self, log: impl FnOnce(Index, &[u8])) -> bool {
        self.ring.publish(log)
    }

    /// To be called before sleeping: asks the guest for an event at its next request, and looks again. If there is more
    /// to take (or the ring is at fault), there will be no event, and the answer is true.
    pub fn final_check(&mut self) -> bool {
        self.ring.final_check(1)
    }

    /// Slots of packets that were taken and not answered.
    pub fn unanswered(&self) -> u32 {
        self.ring.unanswered()
    }

    /// Slots of packets that were answered without the guest's seeing it.
    pub fn unpublished(&self) -> u32 {
        self.ring.staged_slots()
    }

    /// Behind the last response that the guest can see: `rsp_prod`.
    pub fn published(&self) -> Index {
        self.ring.published()
    }

    /// Where the next packet begins.
    pub fn next_index(&self) -> Index {
        self.ring.taken()
    }

    /// The fault that stopped the ring.
    pub fn fault(&self) -> Option<RingFault> {
        self.ring.check().err()
    }
}
