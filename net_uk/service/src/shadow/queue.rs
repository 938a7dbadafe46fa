//! One queue of a guest's interface: both rings, the logs of what is published on them, and the backlog.
//!
//! What is promised when the shadow dies at any instruction:
//!
//! - *From the guest.* A request is answered after its frame is in the memory of whoever gets it. The successor takes
//!   requests from `rsp_prod` on, and passes over frames whose label is in that memory already.
//! - *To the guest.* Frames are taken off a lane or the backlog after `rsp_prod` was stored; the log that is written before
//!   tells the successor up to which frame that store covers.

use hypervisor::{CopyDirection, DomId, GrantCopy, GrantRef, Grants, Page, Port, Region};
use lane::limits::{FRAME_ROOM_BYTES, SLOT_BYTES};
use lane::{Consumer, Producer};
use netif::{FrameMeta, RxPlan, RxRing, RxStatus, TxRing};

use super::gather::Scratch;
use super::replay::Pushed;
use super::shares::Shares;
use crate::error::Error;
use crate::fate::{Fate, Step};
use crate::state::{Counts, Label, PublishLog, QueueMemory, QueueRecord};

/// Source of frames that wait in the queue's own backlog.
pub const BACKLOG_SOURCE: u16 = u16::MAX;

/// One queue.
pub struct Queue {
    /// The guest.
    pub domid: DomId,
    /// Its transmit ring.
    pub tx: TxRing<Page>,
    /// Its receive ring.
    pub rx: RxRing<Page>,
    /// Port for the transmit ring.
    pub tx_port: Port,
    /// Port for the receive ring.
    pub rx_port: Port,
    /// Its number as a source.
    pub source: u16,
    /// Frames that wait.
    pub backlog_in: Producer,
    /// What a former shadow had put there last, by source.
    pub pushed: Pushed,
    /// The same, from the other end.
    pub backlog_out: Consumer,
    /// Up to where a former shadow had delivered to this queue.
    pub delivered: Option<Label>,
    /// Requests before this index may be in their targets' memory already.
    pub replay_before: Option<netif::Index>,
    /// What was counted.
    pub counts: Counts,
    /// Requests may wait in the guest's ring.
    pub tx_pending: bool,
    /// A packet waits for room in a lane.
    pub waits_for_lane: bool,
    /// Frames may wait in the backlog, or slots were posted for them.
    pub rx_pending: bool,
    tx_log: PublishLog,
    rx_log: PublishLog,
    planned: Vec<Planned>,
    /// Frames are staged for the backlog.
    held: bool,
    shares: Shares,
}

/// A frame that is to be copied to the guest.
pub(super) struct Planned {
    /// Where to.
    pub(super) plan: RxPlan,
    /// Where it lies in the scratch memory.
    pub(super) offset: usize,
}

impl Queue {
    /// Attaches to the rings of a guest: a new one's (at index 0), or those of a former shadow, whose last publication is
    /// completed.
    ///
    /// # Errors
    /// What mapping reports, or a fault of the ring.
    pub fn attach(
        grants: &dyn Grants,
        domid: DomId,
        record: &QueueRecord,
        memory: QueueMemory,
    ) -> Result<Self, Error> {
        let mut tx = TxRing::attach(grants.map(domid, GrantRef(record.tx_gref))?)?;
        let mut rx = RxRing::attach(grants.map(domid, GrantRef(record.rx_gref))?)?;
        if let Some(entry) = memory.tx_log.read() {
            tx.redo(entry.first, &entry.responses)?;
        }
        let mut delivered = None;
        if let Some(entry) = memory.rx_log.read()
            && rx.redo(entry.first, &entry.responses)? != netif::Redo::Stale
        {
            delivered = entry.upto;
        }
        let backlog_in = memory.backlog.producer()?;
        let mut queue = Self {
            domid,
            tx,
            rx,
            tx_port: Port(record.tx_port),
            rx_port: Port(record.rx_port),
            source: record.source,
            pushed: Pushed::of(&backlog_in),
            backlog_in,
            backlog_out: memory.backlog.consumer()?,
            delivered,
            replay_before: None,
            counts: memory.counts,
            tx_pending: true,
            waits_for_lane: false,
            rx_pending: true,
            tx_log: memory.tx_log,
            rx_log: memory.rx_log,
            planned: vec![],
            held: false,
            shares: Shares::default(),
        };
        queue.drop_delivered_backlog()?;
        Ok(queue)
    }

    /// Takes off the backlog what a former shadow delivered and did not take off.
    fn drop_delivered_backlog(&mut self) -> Result<(), Error> {
        let slots = self.backlog_out.ring().slots();
        let mut room = vec![0; FRAME_ROOM_BYTES];
        while let Some(frame) = self.next_held(&mut room)? {
            let label = Label { source: BACKLOG_SOURCE, seq: frame.number() };
            if !is_covered(self.delivered, label, slots) {
                break;
            }
            self.backlog_out.release(&frame);
        }
        Ok(())
    }

    /// Had a former shadow delivered this frame of a lane with so many slots?
    pub fn was_delivered(&self, label: Label, slots: u32) -> bool {
        is_covered(self.delivered, label, slots)
    }

    /// Plans a frame whose bytes lie there in the scratch memory. False if the guest has no slots for it.
    ///
    /// # Errors
    /// A fault of the ring.
    pub fn plan(&mut self, meta: FrameMeta, offset: usize) -> Result<bool, Error> {
        let Some(plan) = self.rx.plan(meta)? else { return Ok(false) };
        self.planned.push(Planned { plan, offset });
        Ok(true)
    }

    /// The next frame of the backlog, copied to where there is room for one. Those that are not what was written are counted.
    ///
    /// # Errors
    /// [`Error::Lane`].
    pub fn next_held(&mut self, room: &mut [u8]) -> Result<Option<lane::Frame>, Error> {
        self.reassert();
        // The indices are right: the second look passes over what is wrong.
        let frame =
            self.backlog_out.next_good_into(room).or_else(|_| self.backlog_out.next_good_into(room))?;
        self.counts.rx_errors.add(self.backlog_out.take_damaged().into());
        if frame.is_none() {
            self.shares.clear();
            self.rx.nothing_waits();
        }
        Ok(frame)
    }

    /// Both indices of the backlog are ours.
    fn reassert(&self) {
        if self.backlog_in.reassert() | self.backlog_out.reassert() {
            tracing::warn!(domid = %self.domid, "an index of a backlog had been changed");
        }
    }

    /// Does anything wait before a frame that comes now?
    ///
    /// # Errors
    /// [`Error::Lane`].
    pub fn is_behind(&mut self) -> Result<bool, Error> {
        self.reassert();
        Ok(self.held || self.backlog_out.backlog_slots()? > 0)
    }

    /// Stages a frame for the backlog. False if there is no room, or no more for its source.
    ///
    /// # Errors
    /// [`Error::Lane`].
    pub fn hold(&mut self, frame: &[u8], meta: &lane::FrameMeta) -> Result<bool, Error> {
        self.reassert();
        let slots = u32::try_from(frame.len().div_ceil(SLOT_BYTES)).unwrap_or(u32::MAX);
        if !self.shares.allows(meta.source, slots, self.backlog_in.room_slots()?) {
            return Ok(false);
        }
        let Some(reservation) = self.backlog_in.reserve(frame.len())? else { return Ok(false) };
        self.held = true;
        self.shares.filled(meta.source, slots);
        self.backlog_in.stage_bytes(reservation, frame, meta)?;
        Ok(true)
    }

    /// Passes the frame that [`Self::next_held`] gave.
    pub fn pass_held(&mut self, frame: &lane::Frame) {
        self.backlog_out.advance(frame);
        self.shares.emptied(frame.meta().source, frame.slots());
    }

    /// Publishes what was staged for the backlog.
    pub fn publish_held(&mut self) {
        if std::mem::take(&mut self.held) {
            self.backlog_in.publish();
            self.rx_pending = true;
        }
    }

    /// Copies what is planned and publishes it; with it all frames up to `upto` are delivered. True if the guest is to be
    /// sent an event.
    ///
    /// # Errors
    /// Only what makes the interface useless: that a page of the guest cannot be written is told to the guest.
    pub fn deliver(
        &mut self,
        grants: &dyn Grants,
        scratch: &mut Scratch,
        upto: Label,
        fate: &mut Fate,
    ) -> Result<bool, Error> {
        let mut planned = std::mem::take(&mut self.planned);
        let failed = copy_out(grants, self.domid, scratch.region(), &planned);
        fate.done(Step::RxCopied);
        for (number, Planned { plan, .. }) in planned.drain(..).enumerate() {
            if failed.contains(&number) {
                self.counts.rx_errors.add(1);
                self.rx.answer(&plan, RxStatus::Failed);
            } else {
                self.counts.rx_frames.add(1);
                self.counts.rx_bytes.add(u64::from(plan.frame().length_bytes()));
                self.rx.answer(&plan, RxStatus::Delivered);
            }
        }
        self.planned = planned;
        let log = &self.rx_log;
        let notify = self.rx.publish_logged(|first, responses| {
            log.write(first, responses, Some(upto));
            fate.done(Step::RxLogged);
        });
        fate.done(Step::RxPublished);
        Ok(notify)
    }

    /// Publishes the answers to the guest's requests. True if it is to be sent an event.
    pub fn publish_tx(&mut self, fate: &mut Fate) -> bool {
        let log = &self.tx_log;
        self.tx.publish_logged(|first, responses| {
            log.write(first, responses, None);
            fate.done(Step::TxLogged);
        })
    }
}

/// Is `label` among those that `upto` covers, of which at most `slots` can be about?
fn is_covered(upto: Option<Label>, label: Label, slots: u32) -> bool {
    upto.is_some_and(|upto| upto.source == label.source && upto.seq.wrapping_sub(label.seq) < slots)
}

/// Copies frames into the guest's pages; gives the numbers of those that could not be.
pub(super) fn copy_out(
    grants: &dyn Grants,
    domid: DomId,
    region: &Region,
    planned: &[Planned],
) -> Vec<usize> {
    let mut copies = Vec::with_capacity(planned.len());
    let mut owners = Vec::with_capacity(planned.len());
    for (number, Planned { plan, offset }) in planned.iter().enumerate() {
        for part in plan.parts() {
            let length_bytes = u16::try_from(part.length_bytes).expect("at most a page");
            let copy = GrantCopy::new(part.gref, region, length_bytes, CopyDirection::ToGuest);
            copies.push(copy.at_region(offset + part.frame_offset));
            owners.push(number);
        }
    }
    let mut failed = vec![];
    for (copies, owners) in copies
        .chunks_mut(hypervisor::limits::GRANT_COPIES_MAX)
        .zip(owners.chunks(hypervisor::limits::GRANT_COPIES_MAX))
    {
        if let Err(error) = grants.copy(domid, copies) {
            tracing::debug!(%domid, %error, "no frame can be copied");
        }
        failed.extend(copies.iter().zip(owners).filter(|(copy, _)| !copy.status.is_ok()).map(|(_, n)| *n));
    }
    failed.dedup();
    failed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_covered_only_nearby_and_of_the_same_source() {
        let upto = Some(Label { source: 3, seq: 100 });
        let covered = |source, seq| is_covered(upto, Label { source, seq }, 64);
        assert!(covered(3, 100) && covered(3, 37));
        assert!(!covered(3, 101) && !covered(3, 36) && !covered(4, 100));
        let wrapped = Some(Label { source: 3, seq: 1 });
        assert!(is_covered(wrapped, Label { source: 3, seq: u32::MAX }, 64));
        assert!(!is_covered(None, Label { source: 3, seq: 1 }, 64));
    }
}
