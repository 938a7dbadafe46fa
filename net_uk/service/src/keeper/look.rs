//! What the keeper sees of a process.

use lane::Lane;
use net_watch::TimeNs;
use net_watch::detector::{DeviceReport, Flow, Sample};
use net_watch::ladder::Part;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::child::Child;
use super::held::{Card, Kept};
use crate::driver::device_report;
use crate::process::Late;

impl Kept {
    /// Looks at a process, and whether anybody has work for it.
    pub fn sample(&self, part: Part, child: &mut Child, now: TimeNs, late: Late) -> (Sample, bool) {
        let (process, processor) = child.process.look();
        child.note_mends(part.nic().map_or(0, |nic| self.cards[usize::from(nic.0)].lane.mends()), now);
        let (heartbeat, send, receive, device) = match part {
            Part::Shadow => self.of_shadow(child, now),
            Part::Driver(nic) => of_driver(&self.cards[usize::from(nic.0)], child, now),
        };
        let busy = send.work_since.is_some() || receive.work_since.is_some();
        let sample = Sample {
            now,
            observer_gap_ns: late.gap_ns,
            observer_stolen_ns: late.stolen_ns,
            process,
            heartbeat,
            send,
            receive,
            device,
            device_fine_since: None,
            processor,
        };
        (sample, busy)
    }

    /// What a shadow has to do is what drivers received. What guests send lies in memory of theirs: not looked at.
    fn of_shadow(&self, child: &mut Child, now: TimeNs) -> (u64, Flow, Flow, DeviceReport) {
        let (mut taken, mut work) = (0u32, false);
        for card in &self.cards {
            let (consumed, produced) = (card.lane.rx().consumed().slots, card.lane.rx().produced().slots);
            taken = taken.wrapping_add(consumed);
            // What it leaves alone is no work.
            work |= produced != consumed && !card.lane.is_doubted();
        }
        let work_since = child.receive_work.look(now, work, false);
        let taken = child.received.take(taken);
        let receive = Flow { taken, offered: None, refused: 0, work_since, room_since: Some(TimeNs(0)) };
        (self.state.heartbeat().beats(), Flow::default(), receive, DeviceReport::Fine)
    }
}

fn of_driver(card: &Card, child: &mut Child, now: TimeNs) -> (u64, Flow, Flow, DeviceReport) {
    let words = card.lane.words();
    (words.heartbeat(), sent(&card.lane, child, now), received(card, child, now), device_report(&words))
}

fn sent(lane: &Lane, child: &mut Child, now: TimeNs) -> Flow {
    // In this order: what is taken was offered before.
    let taken = lane.tx().consumed().slots;
    let offered = lane.tx().produced().slots;
    let work_since = child.send_work.look(now, taken != offered, false);
    let taken = child.sent.take(taken);
    Flow { taken, offered: None, refused: 0, work_since, room_since: Some(TimeNs(0)) }
}

fn received(card: &Card, child: &mut Child, now: TimeNs) -> Flow {
    let published = card.lane.rx().produced().slots;
    let waiting = published.wrapping_sub(card.lane.rx().consumed().slots);
    let has_room = waiting < card.lane.rx().slots();
    let readable = card.held.fds().first().is_some_and(is_readable);
    let work_since = child.receive_work.look(now, readable, false);
    let room_since = child.receive_room.look(now, has_room, false);
    let taken = child.received.take(published);
    Flow { taken, offered: None, refused: 0, work_since, room_since }
}

pub(super) fn is_readable(descriptor: &std::os::fd::BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(*descriptor, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut polled, Some(&now)), Ok(1)) && polled[0].revents().contains(PollFlags::IN)
}
