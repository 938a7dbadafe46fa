//! Whether a replica that promised a heartbeat still has one. Pure.
//!
//! ```text
//!   beating --stands still--> still --for the bound, and it slept or ran for half of it--> hung
//!      ^--------moved-----------'            (else it waits for a processor, and is to be pitied)
//! ```
//!
//! Wall time alone would blame a replica on a starved machine. One that has neither slept nor run has had no chance
//! to beat; one that ran, or sleeps although its timer is due, had.

use std::collections::BTreeMap;

use crate::ids::TimeUs;
use crate::limits::{
    HEARTBEAT_FOLLOWER_MS, HEARTBEAT_LEADER_MS, HEARTBEAT_MISSED_MAX, HEARTBEAT_NODES_PER_MS,
};

/// A look at a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Its count of turns.
    pub beat: u64,
    /// Nodes in its store: some requests walk all of them.
    pub nodes: u64,
    /// Whether it serves: then it has little patience to hope for.
    pub serves: bool,
    /// Time that its process has run so far, in microseconds.
    pub ran_us: u64,
    /// Whether its process sleeps.
    pub asleep: bool,
}

#[derive(Debug)]
struct Pulse {
    incarnation: u64,
    period_ms: u64,
    last_beat: u64,
    moved_at: TimeUs,
    /// `ran_us` when the heartbeat was last seen to move.
    ran_us: u64,
}

/// The pulses of all replicas that promised one.
#[derive(Debug, Default)]
pub struct Pulses {
    by_replica: BTreeMap<u32, Pulse>,
}

impl Pulses {
    /// A replica promises to move its heartbeat each `period_ms` while it follows; 0 is no promise. A serving one moves it
    /// at each turn, which its daemon bounds.
    pub fn promise(&mut self, now: TimeUs, replica: u32, incarnation: u64, period_ms: u32) {
        self.by_replica.remove(&replica);
        if period_ms > 0 {
            let period_ms = u64::from(period_ms);
            let pulse = Pulse { incarnation, period_ms, last_beat: 0, moved_at: now, ran_us: 0 };
            self.by_replica.insert(replica, pulse);
        }
    }

    /// Takes a look at a replica; tells for how many milliseconds its heartbeat has stood still if that is too long.
    pub fn observe(&mut self, now: TimeUs, replica: u32, incarnation: u64, look: Look) -> Option<u64> {
        let pulse = self.by_replica.get_mut(&replica).filter(|pulse| pulse.incarnation == incarnation)?;
        if pulse.last_beat != look.beat {
            (pulse.last_beat, pulse.moved_at, pulse.ran_us) = (look.beat, now, look.ran_us);
        }
        let bound_ms = bound_ms(pulse.period_ms, look);
        let silent_ms = now.since_us(pulse.moved_at) / 1_000;
        let ran_ms = look.ran_us.saturating_sub(pulse.ran_us) / 1_000;
        let had_a_chance = look.asleep || ran_ms >= bound_ms / 2;
        (silent_ms >= bound_ms && had_a_chance).then_some(silent_ms)
    }

    /// Time passed in which the warden itself did not run: no heartbeat can be blamed for it.
    pub fn forgive(&mut self, now: TimeUs) {
        for pulse in self.by_replica.values_mut() {
            pulse.moved_at = now;
        }
    }
}

fn bound_ms(period_ms: u64, look: Look) -> u64 {
    let least_ms = if look.serves {
        HEARTBEAT_LEADER_MS
    } else {
        HEARTBEAT_FOLLOWER_MS.max(period_ms.saturating_mul(HEARTBEAT_MISSED_MAX))
    };
    least_ms + look.nodes / HEARTBEAT_NODES_PER_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeping(beat: u64, serves: bool) -> Look {
        Look { beat, serves, asleep: true, ..Look::default() }
    }

    #[test]
    fn only_a_promised_heartbeat_is_missed() {
        let mut pulses = Pulses::default();
        let late = TimeUs(0).plus_ms(HEARTBEAT_LEADER_MS);
        assert_eq!(pulses.observe(late, 0, 1, sleeping(0, true)), None);
        pulses.promise(TimeUs(0), 0, 1, 100);
        assert_eq!(pulses.observe(late, 0, 1, sleeping(0, true)), Some(HEARTBEAT_LEADER_MS));
        assert_eq!(
            pulses.observe(late, 0, 2, sleeping(0, true)),
            None,
            "another incarnation promised nothing"
        );
        assert_eq!(pulses.observe(late, 0, 1, sleeping(0, false)), None, "followers have more time");
        assert_eq!(pulses.observe(late, 0, 1, sleeping(7, true)), None, "it moved");
        pulses.promise(late, 0, 2, 0);
        assert_eq!(pulses.observe(TimeUs(u64::MAX), 0, 2, sleeping(0, true)), None);
    }

    /// A serving replica was once given ten times what followers promise: a leader in an endless loop was found
    /// after 100 s.
    #[test]
    fn what_followers_promise_gives_a_leader_no_time() {
        let mut pulses = Pulses::default();
        pulses.promise(TimeUs(0), 0, 1, 10_000);
        let late = TimeUs(0).plus_ms(HEARTBEAT_LEADER_MS);
        assert!(pulses.observe(late, 0, 1, sleeping(0, true)).is_some());
    }

    #[test]
    fn a_loop_is_told_from_a_starved_process() {
        let mut pulses = Pulses::default();
        pulses.promise(TimeUs(0), 0, 1, 100);
        let ran = |ms: u64| Look { beat: 1, serves: true, ran_us: ms * 1_000, ..Look::default() };
        assert_eq!(pulses.observe(TimeUs(0), 0, 1, ran(5_000)), None);
        let at = |times: u64| TimeUs(0).plus_ms(times * HEARTBEAT_LEADER_MS);
        let half = HEARTBEAT_LEADER_MS / 2;
        assert_eq!(pulses.observe(at(20), 0, 1, ran(5_000 + half - 1)), None, "it hardly ran");
        assert_eq!(pulses.observe(at(20), 0, 1, ran(5_000 + half)), Some(20 * HEARTBEAT_LEADER_MS));
    }

    #[test]
    fn a_large_store_has_longer_turns() {
        let mut pulses = Pulses::default();
        pulses.promise(TimeUs(0), 0, 1, 100);
        let look = Look { nodes: 1_000_000, ..sleeping(0, true) };
        let extra = 1_000_000 / HEARTBEAT_NODES_PER_MS;
        assert_eq!(pulses.observe(TimeUs(0).plus_ms(HEARTBEAT_LEADER_MS + extra - 1), 0, 1, look), None);
        assert!(pulses.observe(TimeUs(0).plus_ms(HEARTBEAT_LEADER_MS + extra), 0, 1, look).is_some());
    }

    #[test]
    fn a_warden_that_was_stopped_blames_nobody() {
        let mut pulses = Pulses::default();
        pulses.promise(TimeUs(0), 0, 1, 100);
        let late = TimeUs(0).plus_ms(HEARTBEAT_LEADER_MS * 5);
        pulses.forgive(late);
        assert_eq!(pulses.observe(late, 0, 1, sleeping(0, true)), None);
    }
}
