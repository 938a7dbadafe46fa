//! A driver's side of a packet socket.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use lane::{Consumer, DriverWords, Frame, LaneError, Producer};

use crate::error::{NicError, Result};
use crate::held::duplicate;
use crate::limits::BATCH_FRAMES;
use crate::nic::{
    COOKIE_WORD, Counters, Done, Kick, Link, Nic, RX_DROPPED_WORD, RX_PLACE_WORD, RX_REFUSED_WORD,
    TX_PLACE_WORD, TX_REFUSED_WORD, count,
};
use crate::packet::held::PacketHeld;
use crate::packet::rings::{Rings, mark_of};
use crate::place::Place;
use crate::step::{Step, Steps};
use crate::sys::{self, Interface};

/// A driver's side of a packet socket.
#[derive(Debug)]
pub struct PacketPort<S> {
    socket: OwnedFd,
    interface: Option<Interface>,
    rings: Rings,
    words: DriverWords,
    steps: S,
    /// Frames that were passed over, whose slots are not filled yet.
    holes: Option<Holes>,
    /// What made no sense after a part of a batch was moved.
    fault: Option<NicError>,
}

/// Frames that were not what the shadow wrote. The kernel goes round its ring slot by slot and stops at one that is not marked,
/// so their slots are filled as well, with nothing, before the frames are taken off the lane. (They were not: from a damaged
/// frame on nothing left any more until the ring had been filled once round.)
#[derive(Debug, Clone, Copy)]
struct Holes {
    next: u32,
    end: u32,
    damaged: u32,
}

impl<S: Steps> PacketPort<S> {
    /// Maps the rings, finishes what a predecessor left undone, and kicks; tells `steps` of each step. The predecessor must
    /// be dead.
    ///
    /// # Errors
    /// [`NicError::Used`], [`NicError::Lane`], or what the kernel reports.
    pub fn attach_with(
        held: &PacketHeld,
        tx_lane: &mut Consumer,
        rx_lane: &mut Producer,
        words: DriverWords,
        steps: S,
    ) -> Result<Self> {
        let socket = duplicate(held.as_fd())?;
        let interface = Interface::bound(&socket)?;
        let mtu_bytes = interface.map_or(Ok(0), |interface| interface.mtu_bytes(&socket))?;
        let rings = Rings::new(&socket, held.spec(), mtu_bytes)?;
        let mut port = Self { socket, interface, rings, words, steps, holes: None, fault: None };
        port.find_place(tx_lane, rx_lane)?;
        port.recover_tx(tx_lane)?;
        port.recover_rx(rx_lane);
        port.kick()?;
        Ok(port)
    }

    fn find_place(&mut self, tx_lane: &Consumer, rx_lane: &Producer) -> Result<()> {
        let cookie = sys::cookie_of(&self.socket)?;
        if self.words.nic(COOKIE_WORD) == cookie {
            self.rings.find(&self.words)?;
        } else {
            self.rings.rx_place = Place::new(rx_lane.published().frames, 0, self.rings.rx.slots());
            self.rings.tx_place = Place::new(tx_lane.committed().frames, 0, self.rings.tx.slots());
            if self.has_served(tx_lane, rx_lane) {
                return Err(NicError::Used);
            }
            self.rings.note(&self.words, cookie);
        }
        self.steps.done(Step::Placed);
        Ok(())
    }

    /// Whether a driver has moved frames over this socket, as far as can be seen.
    fn has_served(&self, tx_lane: &Consumer, rx_lane: &Producer) -> bool {
        let (tx, rx) = (tx_lane.committed().frames, rx_lane.published().frames);
        let rx_marked = |back| self.rings.rx_slot(rx.wrapping_add(back)).mark() != 0;
        self.rings.tx_slot(tx).mark() != 0 || (0..self.rings.rx.slots()).any(rx_marked)
    }

    /// Frames that carry their number and are marked for sending were handed over: nobody can have kicked since.
    fn recover_tx(&mut self, lane: &mut Consumer) -> Result<()> {
        // Nobody asks a successor a second time: what makes no sense twice is passed over, so each second look gets further.
        for _ in 0..2 * lane.ring().slots() {
            let looked = self.look(lane);
            if !self.fill_holes(lane) {
                return Ok(());
            }
            let frame = match looked {
                Ok(Some((frame, _))) => frame,
                Err(LaneError::Descriptor { .. }) => continue,
                Ok(None) => break,
                Err(error) => return Err(error.into()),
            };
            if !self.is_handed_over(frame.number()) {
                break;
            }
            lane.advance(&frame);
        }
        if lane.commit() {
            self.steps.done(Step::TxRecovered);
        }
        Ok(())
    }

    fn is_handed_over(&self, number: u32) -> bool {
        let slot = self.rings.tx_slot(number);
        slot.status() == libc::TP_STATUS_SEND_REQUEST && slot.mark() == mark_of(number)
    }

    /// The next frame to be sent, and whether it lies in its slot already, for one that is available has room. Those that are
    /// passed over leave holes.
    fn look(&mut self, lane: &mut Consumer) -> std::result::Result<Option<(Frame, bool)>, LaneError> {
        let next = lane.passed().frames;
        let slot = self.rings.tx_slot(next);
        let looked = if slot.status() == libc::TP_STATUS_AVAILABLE {
            // SAFETY: the slot is available, so the kernel leaves it alone until it is marked; there is one driver, and it
            // drops the reference here.
            lane.next_good_in(unsafe { self.rings.tx_data(slot) })
        } else {
            lane.next_good_in(&mut [])
        };
        let damaged = lane.take_damaged();
        if damaged > 0 {
            self.holes = Some(Holes { next, end: lane.passed().frames, damaged });
        }
        looked
    }

    /// Fills the slots of frames that were passed over, and takes those off the lane with all before them, which were handed
    /// over. False if there is no room yet. A predecessor may have filled some.
    fn fill_holes(&mut self, lane: &mut Consumer) -> bool {
        let Some(mut holes) = self.holes else { return true };
        while holes.next != holes.end {
            if !self.is_handed_over(holes.next) {
                let slot = self.rings.tx_slot(holes.next);
                if slot.status() != libc::TP_STATUS_AVAILABLE {
                    self.holes = Some(holes);
                    return false;
                }
                slot.set_length(0);
                slot.set_mark(mark_of(holes.next));
                slot.set_status(libc::TP_STATUS_SEND_REQUEST);
            }
            holes.next = holes.next.wrapping_add(1);
        }
        self.holes = None;
        lane.commit();
        self.words.add_tx_damaged(holes.damaged.into());
        true
    }

    /// Slots are given back in order, so those that were published and not given back come last.
    fn recover_rx(&mut self, lane: &Producer) {
        let next = lane.published().frames;
        let kept = |back: &u32| {
            let number = next.wrapping_sub(*back);
            let slot = self.rings.rx_slot(number);
            slot.status() & libc::TP_STATUS_USER != 0 && slot.mark() == mark_of(number)
        };
        let oldest = (1..=self.rings.rx.slots()).take_while(kept).last().unwrap_or(0);
        for back in (1..=oldest).rev() {
            self.rings.rx_slot(next.wrapping_sub(back)).set_status(libc::TP_STATUS_KERNEL);
            self.steps.done(Step::RxRecovered);
        }
    }
}

impl<S: Steps> Nic for PacketPort<S> {
    fn transmit(&mut self, lane: &mut Consumer) -> Result<Done> {
        if self.interface.is_none() {
            // It takes none, whatever it is; they wait for its successor.
            return Ok(Done::default());
        }
        if let Some(place) = self.rings.tx_place.renewed(lane.committed().frames) {
            self.rings.tx_place = place;
            self.words.set_nic(TX_PLACE_WORD, place.word());
        }
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        if !self.fill_holes(lane) {
            return Ok(Done { blocked: true, ..Done::default() });
        }
        let mut done = Done::default();
        while done.taken() < BATCH_FRAMES {
            let looked = self.look(lane);
            if !self.fill_holes(lane) {
                done.blocked = true;
                break;
            }
            let (frame, there) = match looked {
                Ok(Some(next)) => next,
                Ok(None) => break,
                Err(fault) => {
                    self.fault = Some(fault.into());
                    break;
                }
            };
            let slot = self.rings.tx_slot(frame.number());
            if slot.status() != libc::TP_STATUS_AVAILABLE {
                done.blocked = true;
                break;
            }
            let good = self.rings.fill(lane, &frame, there);
            self.steps.done(Step::TxFilled);
            slot.set_status(libc::TP_STATUS_SEND_REQUEST);
            self.steps.done(Step::TxMarked);
            lane.advance(&frame);
            done.add(good.then_some(frame.length_bytes()));
        }
        if lane.commit() {
            self.steps.done(Step::TxCommitted);
        }
        count(&self.words, TX_REFUSED_WORD, done.refused);
        // What was moved before is told first.
        match self.fault.take_if(|_| done.taken() == 0) {
            Some(fault) => Err(fault),
            None => Ok(done),
        }
    }

    fn receive(&mut self, lane: &mut Producer) -> Result<Done> {
        let first = lane.published().frames;
        if let Some(place) = self.rings.rx_place.renewed(first) {
            self.rings.rx_place = place;
            self.words.set_nic(RX_PLACE_WORD, place.word());
        }
        let mut done = Done::default();
        while done.taken() < BATCH_FRAMES {
            let number = first.wrapping_add(done.taken());
            let slot = self.rings.rx_slot(number);
            // A slot with the number of another frame was read in this very call, a whole ring before.
            let unread = [0, mark_of(number)].contains(&slot.mark());
            if slot.status() & libc::TP_STATUS_USER == 0 || !unread {
                break;
            }
            let Some(length_bytes) = self.rings.stage(lane, number)? else {
                done.blocked = true;
                break;
            };
            self.steps.done(Step::RxStaged);
            slot.set_mark(mark_of(number));
            self.steps.done(Step::RxMarked);
            done.add(length_bytes);
        }
        if lane.publish() {
            self.steps.done(Step::RxPublished);
            count(&self.words, RX_REFUSED_WORD, done.refused);
        }
        for number in 0..done.taken() {
            self.rings.rx_slot(first.wrapping_add(number)).set_status(libc::TP_STATUS_KERNEL);
            self.steps.done(Step::RxGivenBack);
        }
        Ok(done)
    }

    /// Without a carrier the kernel would drop the frames and call that a success, so they wait here instead.
    fn kick(&mut self) -> Result<Kick> {
        if self.link()? != Link::Up {
            // The kernel keeps an error for who asks, and as long as nobody does, nobody can wait for the socket.
            sys::get_option(&self.socket, libc::SOL_SOCKET, libc::SO_ERROR, 0)?;
            return Ok(Kick::Down);
        }
        let kick = send_ring(&self.socket)?;
        self.steps.done(Step::TxKicked);
        Ok(kick)
    }

    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn link(&mut self) -> Result<Link> {
        Interface::link_of(&mut self.interface, &self.socket)
    }

    /// The kernel forgets its count when it is read: a death right after that loses a part of `rx_dropped`.
    fn counters(&mut self) -> Result<Counters> {
        let none = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let stats = sys::get_option(&self.socket, libc::SOL_PACKET, libc::PACKET_STATISTICS, none)?;
        count(&self.words, RX_DROPPED_WORD, stats.tp_drops);
        Ok(Counters {
            rx_dropped: self.words.nic(RX_DROPPED_WORD),
            rx_refused: self.words.nic(RX_REFUSED_WORD),
            tx_refused: self.words.nic(TX_REFUSED_WORD),
        })
    }
}

/// Has the kernel send what its ring holds.
pub(super) fn send_ring(socket: impl AsFd) -> Result<Kick> {
    match sys::send_ring(socket) {
        Ok(()) => Ok(Kick::Clear),
        Err(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::EINTR) => Ok(Kick::Congested),
        Err(libc::ENETDOWN | libc::ENXIO | libc::ENODEV) => Ok(Kick::Down),
        Err(errno) => Err(sys::numbered("send", errno)),
    }
}
