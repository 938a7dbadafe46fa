//! A driver's side of a packet socket.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use lane::{Consumer, DriverWords, Frame, Producer};

use crate::error::{NicError, Result};
use crate::held::duplicate;
use crate::limits::BATCH_FRAMES;
use crate::nic::{
    COOKIE_WORD, Counters, Done, Kick, Link, Nic, RX_DROPPED_WORD, RX_PLACE_WORD, RX_REFUSED_WORD,
    TX_PLACE_WORD, TX_REFUSED_WORD, count, next_frame, next_frame_again, next_frame_in,
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
        let mut port = Self { socket, interface, rings, words, steps };
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

    /// The next frame to be sent, and whether it lies in its slot already, for one that is available has room.
    fn next(&self, lane: &mut Consumer) -> Result<Option<(Frame, bool)>> {
        let slot = self.rings.tx_slot(lane.passed().frames);
        if slot.status() != libc::TP_STATUS_AVAILABLE {
            return Ok(next_frame(lane, &self.words)?.map(|frame| (frame, false)));
        }
        // SAFETY: the slot is available, so the kernel leaves it alone until it is marked; there is one driver, and it drops the
        // reference here.
        let room = unsafe { self.rings.tx_data(slot) };
        next_frame_in(lane, &self.words, room)
    }

    /// Whether a driver has moved frames over this socket, as far as can be seen.
    fn has_served(&self, tx_lane: &Consumer, rx_lane: &Producer) -> bool {
        let (tx, rx) = (tx_lane.committed().frames, rx_lane.published().frames);
        let rx_marked = |back| self.rings.rx_slot(rx.wrapping_add(back)).mark() != 0;
        self.rings.tx_slot(tx).mark() != 0 || (0..self.rings.rx.slots()).any(rx_marked)
    }

    /// Frames that carry their number and are marked for sending were handed over: nobody can have kicked since.
    fn recover_tx(&mut self, lane: &mut Consumer) -> Result<()> {
        while let Some(frame) = next_frame_again(lane, &self.words)? {
            let slot = self.rings.tx_slot(frame.number());
            if slot.status() != libc::TP_STATUS_SEND_REQUEST || slot.mark() != mark_of(frame.number()) {
                break;
            }
            lane.advance(&frame);
        }
        if lane.commit() {
            self.steps.done(Step::TxRecovered);
        }
        Ok(())
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
        let mut done = Done::default();
        while done.taken() < BATCH_FRAMES {
            let Some((frame, there)) = self.next(lane)? else { break };
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
            count(&self.words, TX_REFUSED_WORD, done.refused);
        }
        Ok(done)
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
