//! A backend without a shadow: one process serves a guest and has the network card itself. It goes about the guest's rings as
//! the shadow does and about the card's as a driver does, keeps nothing for a successor, and nobody watches it. For
//! measurements of what the division into processes costs.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use hypervisor::{BackendHost, DomId, HostSpec, Page, Port};
use net_switch::limits::AGEING_DEFAULT_NS;
use net_switch::{Forward, MacAddress, PortConfig, PortId, Switch, TimeNs};
use netif::features::FrontendConfig;
use netif::{FrameMeta, RxRing, RxStatus, TxRing, TxStatus};
use nic::packet::DirectPort;
use nic::{Kick, NicSpec};

use super::connect::bind;
use super::frame::{Facts, finish};
use super::gather::{Scratch, after};
use super::queue::{Planned, copy_out};
use super::uplink::{drain, eventfd};
use super::xenbus::{self, Command};
use crate::error::Error;
use crate::limits::{BATCH, BEAT, BUSY_TURNS, CONGESTED_PAUSE, UPLINK_FRAME_BYTES_MAX};
use crate::poller::{Interest, Poller};
use crate::state::Label;

const EVENTS: u64 = 0;
const COMMANDS: u64 = 1;
const CARD: u64 = 2;

/// The interface of its one guest, with one queue.
struct Vif {
    domid: DomId,
    tx: TxRing<Page>,
    rx: RxRing<Page>,
    tx_port: Port,
    rx_port: Port,
    /// Of the switch.
    port: PortId,
}

struct Plain {
    host: BackendHost,
    card: DirectPort,
    /// The card's port of the switch.
    card_port: PortId,
    switch: Switch,
    vif: Option<Vif>,
    scratch: Scratch,
    planned: Vec<Planned>,
    segment: Vec<u8>,
    poller: Poller,
    commands: Receiver<Command>,
    commands_wake: Arc<OwnedFd>,
    began: Instant,
    kick: Kick,
    /// The card had no room.
    full: bool,
    /// The guest has no slots.
    starved: bool,
    /// Requests may wait in the guest's ring.
    tx_pending: bool,
    interest: Interest,
}

/// Serves one guest until it is killed.
///
/// # Errors
/// What makes it useless.
pub fn run(host: &HostSpec, nic: &NicSpec) -> Result<(), Error> {
    let mut plain = Plain::begin(BackendHost::open(host)?, DirectPort::open(nic)?)?;
    let mut ready = vec![];
    let mut busy_turns = 0;
    loop {
        let moved = plain.turn()?;
        if moved && busy_turns < BUSY_TURNS {
            busy_turns += 1;
            continue;
        }
        busy_turns = 0;
        let pause = if moved || !plain.may_sleep() { Duration::ZERO } else { plain.longest_pause() };
        plain.watch_card()?;
        plain.poller.wait(pause, &mut ready)?;
        if ready.contains(&EVENTS) {
            plain.take_events()?;
        }
        if ready.contains(&COMMANDS) {
            plain.obey()?;
        }
    }
}

impl Plain {
    fn begin(host: BackendHost, card: DirectPort) -> Result<Self, Error> {
        let mut switch = Switch::new(AGEING_DEFAULT_NS);
        let card_port = switch.add_port(PortConfig::nic())?;
        let poller = Poller::new()?;
        let commands_wake = Arc::new(eventfd()?);
        poller.add(host.events.wait_fd(), EVENTS, Interest::READ)?;
        poller.add(&*commands_wake, COMMANDS, Interest::READ)?;
        poller.add(card.poll_fd(), CARD, Interest::READ)?;
        let (sender, commands) = channel();
        let (_, lost) = tokio::sync::mpsc::unbounded_channel();
        xenbus::start(xenbus::Commands { sender, wake: commands_wake.clone(), lost }, [].into())?;
        Ok(Self {
            host,
            card,
            card_port,
            switch,
            vif: None,
            scratch: Scratch::new()?,
            planned: vec![],
            segment: vec![0; UPLINK_FRAME_BYTES_MAX],
            poller,
            commands,
            commands_wake,
            began: Instant::now(),
            kick: Kick::Clear,
            full: false,
            starved: false,
            tx_pending: true,
            interest: Interest::READ,
        })
    }

    /// True if something was moved.
    fn turn(&mut self) -> Result<bool, Error> {
        let Some(mut vif) = self.vif.take() else { return Ok(false) };
        let now = TimeNs(u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX));
        let received = self.pump_rx(&mut vif, now);
        let sent = if self.tx_pending { self.pump_tx(&mut vif, now) } else { Ok(false) };
        self.vif = Some(vif);
        Ok(received? | sent?)
    }

    fn pump_tx(&mut self, vif: &mut Vif, now: TimeNs) -> Result<bool, Error> {
        let (copied, more) = self.scratch.gather(self.host.grants.as_ref(), vif.domid, &mut vif.tx)?;
        let mut done = 0;
        self.full = false;
        for copied in &copied {
            let packet = &copied.packet;
            let frame = self.scratch.frame(copied.offset, packet.length_bytes());
            let label = Label { source: 0, seq: packet.index().0 };
            let facts = Facts { checksum: packet.checksum(), gso: packet.gso(), label };
            let to = self.switch.forward(now, vif.port, frame, frame.len() as u64);
            let mut status = TxStatus::Okay;
            if packet.fault().is_some() || copied.failed {
                status = TxStatus::Error;
            } else if matches!(to, Ok(Forward::To(ports)) if ports.contains(self.card_port)) {
                let card = &mut self.card;
                let send = |bytes: &[u8]| card.send(bytes);
                match finish(frame, &facts, UPLINK_FRAME_BYTES_MAX, &mut self.segment, send) {
                    Ok(true) => {}
                    Ok(false) => {
                        self.full = true;
                        break;
                    }
                    Err(_) => status = TxStatus::Error,
                }
            }
            vif.tx.answer(packet, status);
            done += 1;
        }
        for copied in copied[done..].iter().rev() {
            vif.tx.untake(&copied.packet);
        }
        self.tx_pending = more || self.full;
        if done > 0 || self.full || self.kick != Kick::Clear {
            self.kick = self.card.kick()?;
        }
        if vif.tx.publish() {
            self.host.events.notify(vif.tx_port)?;
        }
        Ok(done > 0)
    }

    fn pump_rx(&mut self, vif: &mut Vif, now: TimeNs) -> Result<bool, Error> {
        let (mut end, mut taken) = (0, 0);
        self.starved = false;
        for _ in 0..BATCH {
            let Some(room) = self.scratch.room(end) else { break };
            let Some((bytes, flags)) = self.card.peek() else { break };
            let room = &mut room[..bytes.len()];
            room.copy_from_slice(bytes);
            let to = self.switch.forward(now, self.card_port, room, room.len() as u64);
            if matches!(to, Ok(Forward::To(ports)) if ports.contains(vif.port)) {
                let facts = Facts::of(&lane::FrameMeta { flags, ..lane::FrameMeta::default() });
                let meta = FrameMeta::new(room.len(), facts.checksum, None)?;
                // One that the guest has no slots for stays in the kernel's ring.
                let Some(plan) = vif.rx.plan(meta)? else {
                    self.starved = true;
                    break;
                };
                self.planned.push(Planned { plan, offset: end });
            }
            end = after(end, room.len());
            taken += 1;
            self.card.take_off();
        }
        if !self.planned.is_empty() {
            self.deliver(vif)?;
        }
        Ok(taken > 0)
    }

    fn deliver(&mut self, vif: &mut Vif) -> Result<(), Error> {
        let failed = copy_out(self.host.grants.as_ref(), vif.domid, self.scratch.region(), &self.planned);
        for (number, Planned { plan, .. }) in self.planned.drain(..).enumerate() {
            let status = if failed.contains(&number) { RxStatus::Failed } else { RxStatus::Delivered };
            vif.rx.answer(&plan, status);
        }
        if vif.rx.publish() {
            self.host.events.notify(vif.rx_port)?;
        }
        Ok(())
    }

    fn may_sleep(&mut self) -> bool {
        let full = self.full;
        let Some(vif) = &mut self.vif else { return true };
        self.tx_pending |= !full && vif.tx.final_check();
        !vif.rx.final_check() && (full || !self.tx_pending)
    }

    fn longest_pause(&self) -> Duration {
        if self.kick == Kick::Clear { BEAT } else { CONGESTED_PAUSE }
    }

    fn watch_card(&mut self) -> Result<(), Error> {
        // What the guest has no slots for is not waited for, but the slots are.
        let wanted = Interest { read: !self.starved && self.vif.is_some(), write: self.full, edge: false };
        if wanted != self.interest {
            self.poller.change(self.card.poll_fd(), CARD, wanted)?;
            self.interest = wanted;
        }
        Ok(())
    }

    fn take_events(&mut self) -> Result<(), Error> {
        self.tx_pending = true;
        while let Some(port) = self.host.events.pending()? {
            self.host.events.unmask(port)?;
        }
        Ok(())
    }

    fn obey(&mut self) -> Result<(), Error> {
        drain(&self.commands_wake);
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Connect { key, config, mac, answer } => {
                    self.vif = Some(self.connect(key.domid, &config, mac)?);
                    self.tx_pending = true;
                    let _ = answer.send(true);
                }
                Command::Disconnect { answer, .. } => {
                    self.vif = None;
                    let _ = answer.send(true);
                }
            }
        }
        Ok(())
    }

    fn connect(&mut self, domid: DomId, config: &FrontendConfig, mac: [u8; 6]) -> Result<Vif, Error> {
        let queue = config.queues.first().ok_or(Error::Missing { name: "queue" })?;
        let events = self.host.events.as_mut();
        let (tx_port, rx_port) = bind(events, domid, queue.events)?;
        let map = |gref| self.host.grants.map(domid, gref);
        let (tx, rx) = (TxRing::attach(map(queue.tx_ring)?)?, RxRing::attach(map(queue.rx_ring)?)?);
        for port in [tx_port, rx_port] {
            events.unmask(port)?;
            events.notify(port)?;
        }
        let port = self.switch.add_port(PortConfig::vif(MacAddress(mac)))?;
        Ok(Vif { domid, tx, rx, tx_port, rx_port, port })
    }
}
