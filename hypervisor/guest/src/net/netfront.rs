//! A network interface, as Linux's `xen-netfront` drives one.
//!
//! Rings are looked at only after an event of their port, so a backend that forgets to notify stalls this frontend as
//! it would Linux's.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use hypervisor::local::{Broker, LocalEvents};
use hypervisor::{DomId, EventChannels, Port};
use serde::Serialize;

use super::broken::Broken;
use super::keys::{self, Mac, Offered};
use super::pages::Pages;
use super::queue::{QUEUE_PAGES, Queue};
use super::rx::{RxFrame, RxStats};
use super::split::Splits;
use super::tx::{TxFrame, TxStats};
use crate::frontend::write_keys;
use crate::{Device, Guest, Result};

/// How to set up an interface.
#[derive(Debug, Clone)]
pub struct NetOptions {
    /// Socket of the broker.
    pub broker: PathBuf,
    /// The guest's own domain.
    pub domid: DomId,
    /// Queues to use if the backend has as many.
    pub queues: u16,
    /// Two event channels for each queue if the backend knows of them.
    pub split_event_channels: bool,
    /// How frames are spread over pages if the backend takes more than one.
    pub splits: Splits,
    /// Where chance begins.
    pub seed: u64,
    /// Buffers are posted to receive.
    pub post: bool,
    /// Responses are taken.
    pub take: bool,
}

impl NetOptions {
    /// One queue with one event channel, and nothing odd.
    pub fn new(broker: PathBuf, domid: DomId) -> Self {
        let (queues, split_event_channels, splits, seed) = (1, false, Splits::Whole, 1);
        Self { broker, domid, queues, split_event_channels, splits, seed, post: true, take: true }
    }
}

/// What became of a frame to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It is on the ring.
    Queued,
    /// The ring is full: wait for events.
    Full,
    /// The interface is out of use, or the backend takes no such frame; Linux drops it.
    Dropped,
}

/// Counters of an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct NetStats {
    /// Its address.
    pub mac: String,
    /// Why it is out of use, if it is: a failed test of the backend.
    pub broken: Option<Broken>,
    /// Sent, summed over its queues.
    pub tx: TxStats,
    /// Slots of requests without a response.
    pub tx_in_flight: u32,
    /// Frames not sent because of [`Sent::Dropped`].
    pub tx_refused: u64,
    /// Received, summed over its queues.
    pub rx: RxStats,
    /// Buffers that the backend may fill.
    pub rx_posted: u32,
    /// Events.
    pub events: u64,
    /// Events with nothing to do, for which Linux would slow the backend down.
    pub spurious_events: u64,
}

/// A connected interface.
#[derive(Debug)]
pub struct Netfront {
    options: NetOptions,
    mac: Mac,
    offered: Offered,
    events: LocalEvents,
    queues: Vec<Queue>,
    random: fastrand::Rng,
    stats: NetStats,
}

impl Netfront {
    /// Sets up rings in the guest's pages from frame `first` on and writes the keys: what Linux does when the backend is
    /// in state `InitWait`.
    ///
    /// # Errors
    /// [`crate::Error::NoRxCopy`], [`crate::Error::Node`]; what store and broker answer.
    pub fn offer(options: NetOptions, guest: &mut Guest, device: &Device, first: u32) -> Result<Self> {
        let offered = Offered::read(guest, device)?;
        let mac: Mac = keys::value(guest, device, "mac", "hardware address")?;
        let backend = DomId(keys::value(guest, device, "backend-id", "domid")?);
        let mut events = LocalEvents::open(Broker::connect(&options.broker)?, options.domid)?;
        let split = options.split_event_channels && offered.split_event_channels;
        let mut queues = vec![];
        for number in 0..offered.queues(options.queues) {
            let memory = Broker::connect(&options.broker)?.guest_memory(options.domid)?;
            let pages = Pages::new(memory, backend, first + u32::from(number) * QUEUE_PAGES);
            queues.push(Queue::open(pages, &mut events, backend, split)?);
        }
        write_keys(guest, device, &keys::all(&queues, &offered))?;
        let random = fastrand::Rng::with_seed(options.seed);
        let stats = NetStats { mac: mac.to_string(), ..NetStats::default() };
        let mut front = Self { options, mac, offered, events, queues, random, stats };
        front.connected()?;
        Ok(front)
    }

    /// Tells the backend of all queues and posts buffers, as Linux does right before it switches to `Connected`.
    fn connected(&mut self) -> Result<()> {
        for queue in &mut self.queues {
            for port in queue.ports() {
                self.events.notify(port)?;
            }
            if self.options.post {
                queue.fill(&mut self.events)?;
            }
        }
        Ok(())
    }

    /// Its address.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// What the backend offered.
    pub fn offered(&self) -> Offered {
        self.offered
    }

    /// How many queues it has.
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// Why it is out of use, if it is.
    pub fn broken(&self) -> Option<Broken> {
        self.stats.broken
    }

    /// Readable when [`Self::handle_events`] may have something to do.
    pub fn wait_fd(&self) -> BorrowedFd<'_> {
        self.events.wait_fd()
    }

    /// Can this queue take a frame?
    pub fn has_room(&self, queue: usize) -> bool {
        self.queues[queue].tx.has_room()
    }

    /// Sends a frame of at least one byte on a queue.
    ///
    /// # Errors
    /// If grants are lacking, or the event channel does not work.
    pub fn send(&mut self, queue: usize, frame: &TxFrame<'_>) -> Result<Sent> {
        if self.stats.broken.is_some() || !self.takes(frame) {
            self.stats.tx_refused += 1;
            return Ok(Sent::Dropped);
        }
        let splits = if self.offered.sg { self.options.splits } else { Splits::Whole };
        let queue = &mut self.queues[queue];
        if !queue.tx.has_room() {
            return Ok(Sent::Full);
        }
        let fragments = splits.fragments(frame.bytes.len(), &mut self.random);
        queue.send(&mut self.events, frame, &fragments)?;
        Ok(Sent::Queued)
    }

    fn takes(&self, frame: &TxFrame<'_>) -> bool {
        use super::wire::GsoKind::{TcpV4, TcpV6};
        let kind = match frame.gso.map(|gso| gso.kind) {
            None => true,
            Some(TcpV4) => self.offered.gso_tcpv4,
            Some(TcpV6) => self.offered.gso_tcpv6,
        };
        let fits = frame.bytes.len() <= crate::limits::TX_FRAME_BYTES_MAX;
        kind && fits && (self.offered.sg || frame.bytes.len() <= hypervisor::PAGE_BYTES)
    }

    /// Serves all ports with an event; received frames go to `hand_on` with their queue's number.
    ///
    /// # Errors
    /// If grants are lacking, or the event channel does not work. What a backend must not do is no error, but
    /// [`Self::broken`].
    pub fn handle_events(&mut self, hand_on: &mut dyn FnMut(usize, RxFrame<'_>)) -> Result<()> {
        // At most once each: others wait for their turn.
        for _ in 0..2 * self.queues.len() {
            let Some(port) = self.events.pending()? else { return Ok(()) };
            self.stats.events += 1;
            if self.options.take && self.stats.broken.is_none() {
                self.serve(port, hand_on)?;
            }
            self.events.unmask(port)?;
        }
        Ok(())
    }

    fn serve(&mut self, port: Port, hand_on: &mut dyn FnMut(usize, RxFrame<'_>)) -> Result<()> {
        let Some(number) = self.queues.iter().position(|queue| queue.ports().contains(&port)) else {
            return Ok(());
        };
        let queue = &mut self.queues[number];
        let outcome = match queue.sent(port) {
            Err(broken) => Err(broken),
            Ok(sent) => {
                let received = queue.receive(port, &mut self.events, &mut |frame| hand_on(number, frame))?;
                received.map(|received| sent || received)
            }
        };
        match outcome {
            Ok(true) => {}
            Ok(false) => self.stats.spurious_events += 1,
            Err(broken) => self.stats.broken = Some(broken),
        }
        Ok(())
    }

    /// What happened so far.
    pub fn stats(&self) -> NetStats {
        let mut stats = self.stats.clone();
        for queue in &self.queues {
            stats.tx.add(queue.tx.stats());
            stats.tx_in_flight += queue.tx.in_flight();
            stats.rx.add(queue.rx.stats());
            stats.rx_posted += queue.rx.posted();
        }
        stats
    }

    /// Queues and events, for what a well-behaved frontend would not do.
    pub(super) fn raw(&mut self) -> (&mut [Queue], &mut LocalEvents) {
        (&mut self.queues, &mut self.events)
    }

    /// Closes it: ports are closed, grants end.
    ///
    /// # Errors
    /// If the event channels do not work.
    pub fn close(mut self) -> Result<NetStats> {
        let stats = self.stats();
        for queue in self.queues.drain(..) {
            queue.close(&mut self.events)?;
        }
        Ok(stats)
    }
}
