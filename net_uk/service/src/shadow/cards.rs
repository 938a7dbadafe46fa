//! Towards network cards, which have lanes that can be full.

use net_switch::PortSet;
use smallvec::SmallVec;

use super::fabric::Fabric;
use super::frame::Facts;
use super::vif::QueueId;
use crate::error::Error;

impl Fabric {
    /// Stages a frame for all network cards that get it. False if one of them has no room: then none got it, for it comes
    /// again as a whole.
    pub(super) fn send_to_cards(
        &mut self,
        id: QueueId,
        frame: &mut [u8],
        facts: &Facts,
        targets: PortSet,
        replay: bool,
    ) -> Result<bool, Error> {
        let cards = targets.iter().filter_map(|port| self.card_at(port));
        // What is there already needs no room.
        let is_there = |number: &usize| replay && self.uplinks[*number].pushed.has(facts.label);
        let cards: SmallVec<[usize; 4]> = cards.filter(|number| !is_there(number)).collect();
        if !self.have_room(id, &cards, frame.len(), facts)? {
            return Ok(false);
        }
        for number in cards {
            self.work += self.uplinks[number].send(frame, facts, &mut self.segment)?;
        }
        Ok(true)
    }

    /// A frame for several cards stands in no queue, for those in front of it at one of them may stand behind it at another:
    /// three such frames once made way for each other without end. It goes when all have room.
    fn have_room(
        &mut self,
        id: QueueId,
        cards: &[usize],
        length_bytes: usize,
        facts: &Facts,
    ) -> Result<bool, Error> {
        if let [number] = cards {
            return self.uplinks[*number].has_room(id, length_bytes, facts);
        }
        self.uplinks.iter_mut().for_each(|uplink| uplink.waiters.leave(id));
        for number in cards {
            if !self.uplinks[*number].has_room_at_all(length_bytes, facts)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whoever was served lets others go first, and whoever wants no more does not wait. Whose turn it is then is told.
    pub(super) fn settle_turn(&mut self, id: QueueId, waits: bool, served: bool) {
        for waiters in self.uplinks.iter_mut().map(|uplink| &mut uplink.waiters) {
            let before = waiters.first();
            match (waits, served) {
                (false, _) => waiters.leave(id),
                (true, true) => waiters.step_back(id),
                (true, false) => {}
            }
            self.next.extend(waiters.first().filter(|first| Some(*first) != before));
        }
    }
}
