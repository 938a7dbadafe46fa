//! One turn of the shadow: who gets to move what, and who is looked at before it sleeps.

use super::Shadow;
use super::queue::Queue;
use super::vif::{QueueId, Vif};
use crate::error::Error;
use crate::limits::{BACKLOG_BATCHES, LANES_EVERY};

impl Shadow {
    /// Gives every side with work its turn. True if there may be more.
    pub(super) fn pump(&mut self) -> Result<bool, Error> {
        self.fabric.sent = false;
        let mut more = self.pump_lanes()?;
        for id in self.pending(|queue| std::mem::take(&mut queue.rx_pending)) {
            more |= self.pump_backlog(id)?;
            more |= self.pump_lanes_in_time()?;
        }
        let now = self.now();
        for id in self.pending(|queue| std::mem::take(&mut queue.tx_pending)) {
            if self.fabric.pump_tx(id, &mut self.scratch, now)? {
                more = true;
                self.set_tx_pending(id);
            }
            for next in std::mem::take(&mut self.fabric.next) {
                more = true;
                self.set_tx_pending(next);
            }
            more |= self.pump_lanes_in_time()?;
        }
        Ok(more)
    }

    fn pump_lanes(&mut self) -> Result<bool, Error> {
        self.lanes_looked = self.now();
        let mut more = false;
        for number in 0..self.lanes_pending.len() {
            if std::mem::take(&mut self.lanes_pending[number]) || self.fabric.uplinks[number].has_news() {
                let moved = self.fabric.pump_rx(number, &mut self.scratch, self.lanes_looked)?;
                self.lanes_pending[number] = moved;
                more |= moved;
            }
        }
        Ok(more)
    }

    /// A turn can be long, with many guests.
    fn pump_lanes_in_time(&mut self) -> Result<bool, Error> {
        if self.now().saturating_sub(self.lanes_looked) < LANES_EVERY {
            return Ok(false);
        }
        self.heartbeat.beat();
        self.pump_lanes()
    }

    /// All that the guest has slots for, up to a ring: others may fill the room again in this very turn.
    fn pump_backlog(&mut self, id: QueueId) -> Result<bool, Error> {
        for _ in 0..BACKLOG_BATCHES {
            if !self.fabric.pump_backlog(id, &mut self.scratch)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn pending(&mut self, mut wanted: impl FnMut(&mut Queue) -> bool) -> Vec<QueueId> {
        let vifs = self.fabric.vifs.iter_mut();
        let queues = vifs.flat_map(|(vif, at)| {
            at.queues.iter_mut().enumerate().map(move |(queue, at)| (QueueId { vif: *vif, queue }, at))
        });
        queues.filter_map(|(id, queue)| wanted(queue.as_mut()?).then_some(id)).collect()
    }

    fn set_tx_pending(&mut self, id: QueueId) {
        let vif = self.fabric.vifs.get_mut(&id.vif);
        if let Some(queue) = vif.and_then(|vif| vif.queues[id.queue].as_mut()) {
            queue.tx_pending = true;
        }
    }

    /// Tells everybody to send a signal for what comes from now on. False if something came meanwhile.
    pub(super) fn may_sleep(&mut self) -> Result<bool, Error> {
        let mut sleep = !self.events_pending;
        for queue in self.fabric.vifs.values_mut().flat_map(Vif::queues_mut) {
            // Requests that wait for room in a lane are not news.
            if !queue.waits_for_lane && queue.tx.final_check() {
                queue.tx_pending = true;
                sleep = false;
            }
            if queue.rx.final_check() {
                queue.rx_pending = true;
                sleep = false;
            }
            sleep &= !queue.rx_pending && !queue.tx_pending;
        }
        for (number, uplink) in self.fabric.uplinks.iter_mut().enumerate() {
            let Some(ready) = uplink.prepare_sleep()? else { continue };
            self.lanes_pending[number] |= ready.received;
            sleep &= !ready.received && !ready.room;
        }
        if !sleep {
            self.all_waiting_pending();
        }
        Ok(sleep)
    }

    pub(super) fn all_waiting_pending(&mut self) {
        for queue in self.fabric.vifs.values_mut().flat_map(Vif::queues_mut) {
            queue.tx_pending |= queue.waits_for_lane;
        }
    }
}
