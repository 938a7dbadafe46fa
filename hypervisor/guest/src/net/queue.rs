//! A pair of rings with their event channels.

use hypervisor::local::{Access, LocalEvents};
use hypervisor::{DomId, EventChannels, GrantRef, Port};

use super::broken::Broken;
use super::pages::Pages;
use super::rx::{RxFrame, RxFront};
use super::split::Fragment;
use super::tx::{TxFrame, TxFront};
use crate::Result;
use crate::limits::RING_SLOTS;

/// Pages that a queue needs: two rings, and one for each of their slots.
pub const QUEUE_PAGES: u32 = 2 + 2 * RING_SLOTS;
const TX_RING: u32 = 0;
const RX_RING: u32 = 1;
const TX_DATA: u32 = 2;
const RX_DATA: u32 = TX_DATA + RING_SLOTS;

/// A queue.
#[derive(Debug)]
pub struct Queue {
    /// The sent ring.
    pub tx: TxFront,
    /// The received ring.
    pub rx: RxFront,
    pages: Pages,
    tx_ring: GrantRef,
    rx_ring: GrantRef,
    tx_port: Port,
    rx_port: Port,
}

impl Queue {
    /// Makes rings, grants them, and allocates one port, or two if `split`.
    ///
    /// # Errors
    /// If grants, ports or mappings are lacking.
    pub fn open(mut pages: Pages, events: &mut LocalEvents, backend: DomId, split: bool) -> Result<Self> {
        let tx = TxFront::new(pages.page(TX_RING)?, TX_DATA);
        let rx = RxFront::new(pages.page(RX_RING)?, RX_DATA);
        let tx_ring = pages.grant(TX_RING, Access::Write)?;
        let rx_ring = pages.grant(RX_RING, Access::Write)?;
        let tx_port = events.bind_unbound(backend)?;
        let rx_port = if split { events.bind_unbound(backend)? } else { tx_port };
        Ok(Self { tx, rx, pages, tx_ring, rx_ring, tx_port, rx_port })
    }

    /// The keys of this queue, as `xen-netfront` writes them.
    pub fn keys(&self) -> Vec<(&'static str, String)> {
        let mut keys =
            vec![("tx-ring-ref", self.tx_ring.to_string()), ("rx-ring-ref", self.rx_ring.to_string())];
        match self.tx_port == self.rx_port {
            true => keys.push(("event-channel", self.tx_port.to_string())),
            false => keys.extend([
                ("event-channel-tx", self.tx_port.to_string()),
                ("event-channel-rx", self.rx_port.to_string()),
            ]),
        }
        keys
    }

    /// Its ports: one or two.
    pub fn ports(&self) -> Vec<Port> {
        let mut ports = vec![self.tx_port, self.rx_port];
        ports.dedup();
        ports
    }

    /// Posts buffers and tells the backend.
    ///
    /// # Errors
    /// If grants are lacking, or the event channel does not work.
    pub fn fill(&mut self, events: &mut LocalEvents) -> Result<()> {
        if self.rx.fill(&mut self.pages)? {
            events.notify(self.rx_port)?;
        }
        Ok(())
    }

    /// Sends a frame, for which there must be room, and tells the backend.
    ///
    /// # Errors
    /// As [`Self::fill`].
    pub fn send(
        &mut self,
        events: &mut LocalEvents,
        frame: &TxFrame<'_>,
        fragments: &[Fragment],
    ) -> Result<()> {
        if self.tx.send(&mut self.pages, frame, fragments)? {
            events.notify(self.tx_port)?;
        }
        Ok(())
    }

    /// Takes responses of the sent ring if this is its port. Were there any?
    ///
    /// # Errors
    /// What the backend must not do.
    pub fn sent(&mut self, port: Port) -> Result<bool, Broken> {
        if port == self.tx_port { self.tx.collect(&self.pages) } else { Ok(false) }
    }

    /// Takes frames of the received ring if this is its port, and posts buffers in between. Were there any?
    ///
    /// # Errors
    /// The inner one is what the backend must not do; the outer is as for [`Self::fill`].
    pub fn receive(
        &mut self,
        port: Port,
        events: &mut LocalEvents,
        hand_on: &mut dyn FnMut(RxFrame<'_>),
    ) -> Result<Result<bool, Broken>> {
        if port != self.rx_port {
            return Ok(Ok(false));
        }
        let new = match self.rx.notice() {
            Ok(new) => new,
            Err(broken) => return Ok(Err(broken)),
        };
        loop {
            let more = match self.rx.take(&self.pages, hand_on) {
                Ok(more) => more,
                Err(broken) => return Ok(Err(broken)),
            };
            self.fill(events)?;
            if !more && !self.rx.sleep() {
                return Ok(Ok(new));
            }
        }
    }

    /// The pages and the sent ring, for what a well-behaved frontend would not do.
    pub(super) fn raw(&mut self) -> (&mut Pages, &mut TxFront) {
        (&mut self.pages, &mut self.tx)
    }

    /// Closes the ports and ends all grants.
    ///
    /// # Errors
    /// If the event channels do not work.
    pub fn close(mut self, events: &mut LocalEvents) -> Result<()> {
        for port in self.ports() {
            events.unbind(port)?;
        }
        self.tx.release(&self.pages);
        self.rx.release(&self.pages);
        for gref in [self.tx_ring, self.rx_ring] {
            self.pages.end(gref);
        }
        Ok(())
    }
}
