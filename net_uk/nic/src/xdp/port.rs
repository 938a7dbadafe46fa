//! A driver's side of a network card over `AF_XDP`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use lane::{Consumer, DriverWords, Producer};

use crate::error::{NicError, Result};
use crate::held::duplicate;
use crate::limits::{BATCH_FRAMES, LINK_HEADER_BYTES};
use crate::nic::{COOKIE_WORD, Counters, Done, Kick, Link, Nic, RX_REFUSED_WORD, TX_REFUSED_WORD, count};
use crate::step::{Step, Steps};
use crate::sys::{self, Interface};
use crate::xdp::book::Book;
use crate::xdp::held::XdpHeld;
use crate::xdp::rx::RxQueue;
use crate::xdp::tx::TxQueue;

/// A driver's side of a network card over `AF_XDP`.
#[derive(Debug)]
pub struct XdpPort<S> {
    poll: OwnedFd,
    control: OwnedFd,
    interface: Option<Interface>,
    book: Book,
    tx: TxQueue,
    rx: Vec<RxQueue>,
    /// The queue to begin with.
    next: usize,
    /// The last frame found no room.
    blocked: bool,
    words: DriverWords,
    steps: S,
}

impl<S: Steps> XdpPort<S> {
    /// Maps the rings, finishes what a predecessor left undone, and kicks; tells `steps` of each step. The predecessor must
    /// be dead.
    ///
    /// # Errors
    /// [`NicError::Used`], [`NicError::Lane`], or what the kernel reports.
    pub fn attach_with(
        held: &XdpHeld,
        tx_lane: &mut Consumer,
        rx_lane: &mut Producer,
        words: DriverWords,
        steps: S,
    ) -> Result<Self> {
        let (layout, memory) = (held.layout(), held.memory());
        let control = duplicate(held.control())?;
        let interface = Interface::bound(&control)?;
        let mtu_bytes = interface.map_or(Ok(0), |interface| interface.mtu_bytes(&control))?;
        let packet_bytes_max = mtu_bytes.min(held.spec().mtu_bytes as usize) + LINK_HEADER_BYTES;
        let owner = held.receivers().first().ok_or(NicError::Descriptors { have: 0, need: 1 })?.as_fd();
        let rx = held.receivers().iter().enumerate();
        let rx = rx.map(|(number, socket)| RxQueue::new(number, socket.as_fd(), memory, layout));
        let mut port = Self {
            poll: duplicate(held.poll())?,
            control,
            interface,
            book: Book::open(memory, layout.tx_slots, held.receivers().len())?,
            tx: TxQueue::new(held.sender(), owner, memory, layout, packet_bytes_max)?,
            rx: rx.collect::<Result<_>>()?,
            next: 0,
            blocked: false,
            words,
            steps,
        };
        port.find_place(owner, tx_lane)?;
        port.tx.recover(tx_lane, &port.book, &mut port.steps)?;
        for queue in &port.rx {
            queue.recover(&port.book, rx_lane.published().frames, &mut port.steps)?;
        }
        port.kick()?;
        Ok(port)
    }

    fn find_place(&mut self, owner: BorrowedFd<'_>, tx_lane: &Consumer) -> Result<()> {
        let cookie = sys::cookie_of(owner)?;
        if !self.book.served() {
            self.tx.begin(&self.book, tx_lane);
            self.words.set_nic(COOKIE_WORD, cookie);
            self.book.set_served();
        } else if self.words.nic(COOKIE_WORD) != cookie {
            return Err(NicError::Used);
        }
        self.steps.done(Step::Placed);
        Ok(())
    }
}

impl<S: Steps> Nic for XdpPort<S> {
    fn transmit(&mut self, lane: &mut Consumer) -> Result<Done> {
        if self.interface.is_none() {
            // What these rings took would be lost, or refused for want of a length to measure against; so frames wait for
            // its successor.
            return Ok(Done::default());
        }
        let (done, fault) = self.tx.transmit(lane, &self.book, &mut self.steps)?;
        self.words.add_tx_damaged(lane.take_damaged().into());
        count(&self.words, TX_REFUSED_WORD, done.refused);
        self.blocked = done.blocked;
        if let Some(fault) = fault {
            // What was handed over before is on its way, although it is not told.
            self.words.add_tx(done.frames.into(), done.bytes);
            self.kick()?;
            return Err(fault.into());
        }
        Ok(done)
    }

    /// The queues take turns in being the first.
    fn receive(&mut self, lane: &mut Producer) -> Result<Done> {
        let mut done = Done::default();
        for _ in 0..self.rx.len() {
            let queue = &self.rx[self.next];
            self.next = (self.next + 1) % self.rx.len();
            if !queue.receive(lane, &self.book, &mut done, &mut self.steps)? {
                done.blocked = true;
                break;
            }
            if done.taken() == BATCH_FRAMES {
                break;
            }
        }
        count(&self.words, RX_REFUSED_WORD, done.refused);
        Ok(done)
    }

    /// Without a carrier the kernel would drop the frames, so they wait here instead.
    fn kick(&mut self) -> Result<Kick> {
        if self.link()? != Link::Up {
            return Ok(Kick::Down);
        }
        let (kick, dropped) = self.tx.kick()?;
        count(&self.words, TX_REFUSED_WORD, dropped);
        self.steps.done(Step::TxKicked);
        // The memory of frames comes back some time after these were sent, and nothing can be waited for.
        Ok(if self.blocked && kick == Kick::Clear { Kick::Congested } else { kick })
    }

    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.poll.as_fd()
    }

    fn link(&mut self) -> Result<Link> {
        Interface::link_of(&mut self.interface, &self.control)
    }

    /// What found no room is counted by the sockets, so since these were opened.
    fn counters(&mut self) -> Result<Counters> {
        let mut rx_dropped = 0;
        for queue in &self.rx {
            rx_dropped += queue.dropped()?;
        }
        Ok(Counters {
            rx_dropped,
            rx_refused: self.words.nic(RX_REFUSED_WORD),
            tx_refused: self.words.nic(TX_REFUSED_WORD),
        })
    }
}
