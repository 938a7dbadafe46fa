//! Moves frames: from guests' transmit rings, lanes and backlogs to lanes, guests' receive rings and backlogs.
//!
//! Each pump moves a batch in the same order: copy, stage at the targets, publish at the targets, commit at the source.

use std::collections::BTreeMap;
use std::time::Duration;

use hypervisor::{EventChannels, Grants};
use lane::Frame;
use net_switch::{Forward, MacAddress, PortId, PortSet, Switch, TimeNs};
use netif::{Multicast, TxPacket, TxStatus};

use super::frame::{Facts, finish, segments_of};
use super::gather::{Copied, Scratch, after};
use super::queue::{BACKLOG_SOURCE, Queue};
use super::uplink::Uplink;
use super::vif::{QueueId, Vif, VifId};
use crate::error::Error;
use crate::fate::{Fate, Step};
use crate::limits::{BATCH, UPLINK_FRAME_BYTES_MAX, WORK_MAX};
use crate::state::Label;

/// What is behind a port of the switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// A network card, by its place among the uplinks.
    Nic(usize),
    /// A guest's interface.
    Guest(VifId),
}

/// What moves frames.
pub struct Fabric {
    /// Guests' pages.
    pub grants: Box<dyn Grants>,
    /// Event channels.
    pub events: Box<dyn EventChannels>,
    /// Network cards.
    pub uplinks: Vec<Uplink>,
    /// Guests' interfaces.
    pub vifs: BTreeMap<VifId, Vif>,
    /// Who is where.
    pub switch: Switch,
    /// What is behind the switch's ports.
    pub sides: BTreeMap<PortId, Side>,
    /// Interfaces whose guests broke their rings, with the reason.
    pub broken: Vec<(VifId, Error)>,
    /// Where it is to die, in tests.
    pub fate: Fate,
    /// Something was published towards a wire.
    pub sent: bool,
    /// Queues whose turn it is to send over a lane now.
    pub next: Vec<QueueId>,
    pub(super) segment: Vec<u8>,
    /// Frames and segments that were given out in this batch.
    pub(super) work: u32,
}

/// A frame from a ring, as it was when it was checked, and where it lies in the scratch memory.
struct Held<'a> {
    bytes: &'a mut [u8],
    offset: usize,
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Forwarded {
    /// It is with all that get it, or was dropped and counted.
    Taken,
    /// A lane is full: it has to wait.
    NoRoom,
    /// It is not what its guest says.
    Bad,
}

impl Fabric {
    /// No interfaces yet.
    pub fn new(
        grants: Box<dyn Grants>,
        events: Box<dyn EventChannels>,
        uplinks: Vec<Uplink>,
        switch: Switch,
    ) -> Self {
        let nics = uplinks.iter().enumerate();
        let sides = nics.map(|(number, uplink)| (uplink.port, Side::Nic(number))).collect();
        Self {
            grants,
            events,
            uplinks,
            vifs: BTreeMap::new(),
            switch,
            sides,
            broken: vec![],
            fate: Fate::default(),
            sent: false,
            next: vec![],
            segment: vec![0; UPLINK_FRAME_BYTES_MAX],
            work: 0,
        }
    }

    /// Moves what a guest sent. True if there may be more.
    ///
    /// # Errors
    /// What is no guest's fault.
    pub fn pump_tx(&mut self, id: QueueId, scratch: &mut Scratch, now: Duration) -> Result<bool, Error> {
        let Some(mut queue) = self.take_queue(id) else { return Ok(false) };
        let moved = self.move_tx(id, &mut queue, scratch, now);
        self.settle(id, queue, moved)
    }

    /// Moves what waits in a queue's backlog. True if there may be more.
    ///
    /// # Errors
    /// What is no guest's fault.
    pub fn pump_backlog(&mut self, id: QueueId, scratch: &mut Scratch) -> Result<bool, Error> {
        let Some(mut queue) = self.take_queue(id) else { return Ok(false) };
        let moved = self.move_backlog(&mut queue, scratch);
        self.settle(id, queue, moved)
    }

    fn take_queue(&mut self, id: QueueId) -> Option<Queue> {
        self.vifs.get_mut(&id.vif)?.queues.get_mut(id.queue)?.take()
    }

    /// Puts the queue back; a guest that broke its ring loses its interface and harms nobody else.
    fn settle(&mut self, id: QueueId, queue: Queue, moved: Result<bool, Error>) -> Result<bool, Error> {
        if let Some(place) = self.vifs.get_mut(&id.vif).and_then(|vif| vif.queues.get_mut(id.queue)) {
            *place = Some(queue);
        }
        match moved {
            Err(error @ Error::Ring(_)) => {
                self.broken.push((id.vif, error));
                Ok(false)
            }
            moved => moved,
        }
    }

    fn move_tx(
        &mut self,
        id: QueueId,
        queue: &mut Queue,
        scratch: &mut Scratch,
        now: Duration,
    ) -> Result<bool, Error> {
        let (copied, more) = scratch.gather(self.grants.as_ref(), queue.domid, &mut queue.tx)?;
        self.fate.done(Step::TxCopied);
        let mut done = 0;
        self.work = 0;
        queue.waits_for_lane = false;
        for Copied { packet, offset, failed } in &copied {
            if self.work >= WORK_MAX {
                break;
            }
            let status = match packet.multicast() {
                Some(change) => self.change_multicast(id, change),
                None if packet.fault().is_some() || *failed => TxStatus::Error,
                None => match self.forward_copied(
                    id,
                    queue,
                    packet,
                    scratch.frame(*offset, packet.length_bytes()),
                    now,
                )? {
                    Forwarded::Taken => TxStatus::Okay,
                    Forwarded::Bad => TxStatus::Error,
                    Forwarded::NoRoom => {
                        queue.waits_for_lane = true;
                        break;
                    }
                },
            };
            count_tx(queue, packet, status);
            queue.tx.answer(packet, status);
            done += 1;
        }
        for Copied { packet, .. } in copied[done..].iter().rev() {
            queue.tx.untake(packet);
        }
        self.fate.done(Step::TxStaged);
        self.publish_targets();
        self.fate.done(Step::TargetsPublished);
        let notify = queue.publish_tx(&mut self.fate);
        self.fate.done(Step::TxPublished);
        if notify {
            self.events.notify(queue.tx_port)?;
        }
        self.settle_turn(id, queue.waits_for_lane, done > 0);
        let cut = !queue.waits_for_lane && done < copied.len();
        Ok(cut || (more && done == copied.len()))
    }

    fn change_multicast(&mut self, id: QueueId, change: Multicast) -> TxStatus {
        let Some(vif) = self.vifs.get(&id.vif) else { return TxStatus::Error };
        let changed = match change {
            Multicast::Add(group) => self.switch.add_group(vif.port, MacAddress(group.0)),
            Multicast::Del(group) => self.switch.remove_group(vif.port, MacAddress(group.0)),
        };
        if changed.is_ok() { TxStatus::Okay } else { TxStatus::Error }
    }

    /// Gives a packet that lies in the scratch memory to all that get it.
    fn forward_copied(
        &mut self,
        id: QueueId,
        queue: &Queue,
        packet: &TxPacket,
        frame: &mut [u8],
        now: Duration,
    ) -> Result<Forwarded, Error> {
        let label = Label { source: queue.source, seq: packet.index().0 };
        let facts = Facts { checksum: packet.checksum(), gso: packet.gso(), label };
        let from = self.vifs.get(&id.vif).map(|vif| vif.port);
        let targets = self.targets(from, frame, now);
        let replay =
            queue.replay_before.is_some_and(|end| end.since(packet.index()) <= netif::ring::RING_SLOTS);
        self.forward(id, frame, &facts, targets, replay)
    }

    fn targets(&mut self, from: Option<PortId>, frame: &[u8], now: Duration) -> PortSet {
        let now = TimeNs(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX));
        let forward = from.map(|from| self.switch.forward(now, from, frame, frame.len() as u64));
        match forward {
            Some(Ok(Forward::To(targets))) => targets,
            _ => PortSet::EMPTY,
        }
    }

    /// The guest at a port.
    fn guest_at(&self, port: PortId) -> Option<VifId> {
        match self.sides.get(&port) {
            Some(Side::Guest(vif)) => Some(*vif),
            _ => None,
        }
    }

    /// The network card at a port.
    pub(super) fn card_at(&self, port: PortId) -> Option<usize> {
        match self.sides.get(&port) {
            Some(Side::Nic(number)) => Some(*number),
            _ => None,
        }
    }

    /// Gives a frame that lies in private memory to all that get it: network cards first, for they can refuse.
    fn forward(
        &mut self,
        id: QueueId,
        frame: &mut [u8],
        facts: &Facts,
        targets: PortSet,
        replay: bool,
    ) -> Result<Forwarded, Error> {
        if facts.gso.is_some() && net_switch::is_for_group(frame) {
            // No TCP is, and its segments for each of many guests would be a turn too long.
            return Ok(Forwarded::Bad);
        }
        match self.send_to_cards(id, frame, facts, targets, replay) {
            Ok(true) => {}
            Ok(false) => return Ok(Forwarded::NoRoom),
            Err(Error::Frame(_)) => return Ok(Forwarded::Bad),
            Err(error) => return Err(error),
        }
        for port in targets {
            if let Some(vif) = self.guest_at(port) {
                self.hold_back(vif, frame, facts, replay)?;
            }
        }
        Ok(Forwarded::Taken)
    }

    /// Stages a frame for the backlog of a guest; one without room there is dropped and counted. It is published after all
    /// that goes straight to the guest, which came before it: so a label in a backlog tells that every frame before it is
    /// with the guest or there.
    fn hold_back(&mut self, id: VifId, frame: &mut [u8], facts: &Facts, replay: bool) -> Result<(), Error> {
        let Some(vif) = self.vifs.get_mut(&id) else { return Ok(()) };
        let wants = vif.wants;
        let Some(queue) = vif.queue_for(frame) else { return Ok(()) };
        if replay && queue.pushed.has(facts.label) {
            return Ok(());
        }
        if wants.takes(frame.len(), facts.checksum, facts.gso) {
            self.work += 1;
            let held = queue.hold(frame, &facts.meta())?;
            queue.counts.rx_overflow.add(u64::from(!held));
            return Ok(());
        }
        let plain = facts.finished().meta();
        let mut left = segments_of(frame, facts);
        let mut fault = None;
        // Once there is no room the rest is not cut at all: that would cost as much as to give it on.
        let _ = finish(frame, facts, UPLINK_FRAME_BYTES_MAX, &mut self.segment, |segment| {
            self.work += 1;
            match queue.hold(segment, &plain) {
                Ok(true) => left -= 1,
                Ok(false) => return false,
                Err(error) => fault = Some(error),
            }
            fault.is_none()
        });
        queue.counts.rx_overflow.add(left);
        fault.map_or(Ok(()), Err)
    }

    /// Moves what came from the wire. True if there may be more.
    ///
    /// # Errors
    /// What is not the driver's fault.
    pub fn pump_rx(&mut self, number: usize, scratch: &mut Scratch, now: Duration) -> Result<bool, Error> {
        if !self.uplinks[number].is_trusted() {
            return Ok(false);
        }
        let mut touched: Vec<(QueueId, Label)> = vec![];
        let mut more = true;
        let mut end = 0;
        self.work = 0;
        for _ in 0..BATCH {
            let Some(room) = scratch.room(end) else { break };
            let Some(frame) = self.uplinks[number].next_frame(room)? else {
                more = false;
                break;
            };
            // What a former shadow may have delivered is gone through as it did: its note covers no less than a batch.
            if self.work >= WORK_MAX && !self.uplinks[number].is_replay(&frame) {
                break;
            }
            if !frame.is_void() {
                let bytes = &mut room[..frame.length_bytes()];
                self.receive(number, &frame, Held { bytes, offset: end }, now, &mut touched)?;
                end = after(end, frame.length_bytes());
            }
            self.uplinks[number].rx.advance(&frame);
        }
        self.fate.done(Step::RxPlanned);
        for (id, upto) in touched {
            self.deliver(id, scratch, upto)?;
        }
        self.publish_targets();
        self.fate.done(Step::LaneCommitted);
        Ok(more)
    }

    fn receive(
        &mut self,
        number: usize,
        frame: &Frame,
        mut copy: Held<'_>,
        now: Duration,
        touched: &mut Vec<(QueueId, Label)>,
    ) -> Result<(), Error> {
        let uplink = &self.uplinks[number];
        let label = Label { source: uplink.number, seq: frame.number() };
        let facts = Facts { label, ..Facts::of(frame.meta()) };
        let replay = uplink.is_replay(frame);
        let port = uplink.port;
        let targets = self.targets(Some(port), copy.bytes, now);
        for port in targets {
            if let Some(vif) = self.guest_at(port) {
                let given = self.give(vif, &mut copy, &facts, replay)?;
                note(touched, given, label);
            }
        }
        Ok(())
    }

    /// Plans a frame of a lane straight into the guest's pages if nothing waits before it; else it waits behind.
    fn give(
        &mut self,
        id: VifId,
        Held { bytes, offset }: &mut Held<'_>,
        facts: &Facts,
        replay: bool,
    ) -> Result<Option<QueueId>, Error> {
        let Some(vif) = self.vifs.get_mut(&id) else { return Ok(None) };
        let takes = vif.wants.takes(bytes.len(), facts.checksum, facts.gso);
        let Some(index) = vif.queue_index_for(bytes) else { return Ok(None) };
        let Some(queue) = vif.queues[index].as_mut() else { return Ok(None) };
        if replay && queue.was_delivered(facts.label, crate::limits::LANE_SLOTS) {
            return Ok(None);
        }
        if takes && !queue.is_behind()? {
            let meta = netif::FrameMeta::new(bytes.len(), facts.checksum, facts.gso)?;
            match queue.plan(meta, *offset) {
                Ok(true) => return Ok(Some(QueueId { vif: id, queue: index })),
                Ok(false) => {}
                Err(error) => {
                    self.broken.push((id, error));
                    return Ok(None);
                }
            }
        }
        self.hold_back(id, bytes, facts, replay)?;
        Ok(None)
    }

    fn deliver(&mut self, id: QueueId, scratch: &mut Scratch, upto: Label) -> Result<(), Error> {
        let Some(mut queue) = self.take_queue(id) else { return Ok(()) };
        let delivered = queue.deliver(self.grants.as_ref(), scratch, upto, &mut self.fate);
        let delivered = delivered.and_then(|notify| self.notify_rx(&queue, notify));
        self.settle(id, queue, delivered.map(|()| false)).map(drop)
    }

    fn notify_rx(&mut self, queue: &Queue, notify: bool) -> Result<(), Error> {
        if notify { Ok(self.events.notify(queue.rx_port)?) } else { Ok(()) }
    }

    fn move_backlog(&mut self, queue: &mut Queue, scratch: &mut Scratch) -> Result<bool, Error> {
        let mut last = None;
        let mut more = true;
        let mut end = 0;
        for _ in 0..BATCH {
            let Some(room) = scratch.room(end) else { break };
            let Some(frame) = queue.next_held(room)? else {
                more = false;
                break;
            };
            let facts = Facts::of(frame.meta());
            let meta = netif::FrameMeta::new(frame.length_bytes(), facts.checksum, facts.gso)?;
            if !queue.plan(meta, end)? {
                // It waits for slots, of which the guest tells.
                more = false;
                break;
            }
            queue.pass_held(&frame);
            end = after(end, frame.length_bytes());
            last = Some(Label { source: BACKLOG_SOURCE, seq: frame.number() });
        }
        queue.rx_pending = more;
        let Some(upto) = last else {
            // Whatever was passed over is damaged, and takes no room any more.
            queue.backlog_out.commit();
            return Ok(false);
        };
        let notify = queue.deliver(self.grants.as_ref(), scratch, upto, &mut self.fate)?;
        queue.backlog_out.commit();
        self.fate.done(Step::BacklogCommitted);
        self.notify_rx(queue, notify)?;
        Ok(more)
    }

    fn publish_targets(&mut self) {
        for queue in self.vifs.values_mut().flat_map(Vif::queues_mut) {
            queue.publish_held();
        }
        self.fate.done(Step::HeldPublished);
        for uplink in &mut self.uplinks {
            self.sent |= uplink.commit();
        }
    }
}

fn count_tx(queue: &Queue, packet: &TxPacket, status: TxStatus) {
    if packet.multicast().is_some() {
        return;
    }
    match status {
        TxStatus::Okay => {
            queue.counts.tx_frames.add(1);
            queue.counts.tx_bytes.add(packet.length_bytes() as u64);
        }
        TxStatus::Dropped | TxStatus::Error => queue.counts.tx_errors.add(1),
    }
}

/// Remembers that a queue has something planned, up to this frame.
fn note(touched: &mut Vec<(QueueId, Label)>, given: Option<QueueId>, label: Label) {
    let Some(id) = given else { return };
    match touched.iter_mut().find(|(known, _)| *known == id) {
        Some((_, upto)) => *upto = label,
        None => touched.push((id, label)),
    }
}
