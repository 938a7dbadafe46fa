//! Whether a replica that promised a heartbeat still has one. Pure.

use std::collections::BTreeMap;

use crate::ids::TimeUs;
use crate::limits::{HEARTBEAT_FOLLOWER_MS, HEARTBEAT_LEADER_MS, HEARTBEAT_MISSED_MAX};

#[derive(Debug)]
struct Pulse {
    incarnation: u64,
    period_ms: u64,
    last_beat: u64,
    moved_at: TimeUs,
}

/// The pulses of all replicas that promised one.
#[derive(Debug, Default)]
pub struct Pulses {
    by_replica: BTreeMap<u32, Pulse>,
}

impl Pulses {
    /// A replica promises to move its heartbeat each `period_ms`; 0 is no promise.
    pub fn promise(&mut self, now: TimeUs, replica: u32, incarnation: u64, period_ms: u32) {
        self.by_replica.remove(&replica);
        if period_ms > 0 {
            let period_ms = u64::from(period_ms);
            self.by_replica.insert(replica, Pulse { incarnation, period_ms, last_beat: 0, moved_at: now });
        }
    }

    /// Takes a look at a heartbeat; tells for how many milliseconds it has stood still if that is too long.
    pub fn observe(
        &mut self,
        now: TimeUs,
        replica: u32,
        incarnation: u64,
        beat: u64,
        leads: bool,
    ) -> Option<u64> {
        let pulse = self.by_replica.get_mut(&replica).filter(|pulse| pulse.incarnation == incarnation)?;
        if pulse.last_beat != beat {
            (pulse.last_beat, pulse.moved_at) = (beat, now);
        }
        let least_ms = if leads { HEARTBEAT_LEADER_MS } else { HEARTBEAT_FOLLOWER_MS };
        let bound_ms = least_ms.max(pulse.period_ms.saturating_mul(HEARTBEAT_MISSED_MAX));
        let silent_ms = now.since_us(pulse.moved_at) / 1_000;
        (silent_ms >= bound_ms).then_some(silent_ms)
    }

    /// Time passed in which the warden itself did not run: no heartbeat can be blamed for it.
    pub fn forgive(&mut self, now: TimeUs) {
        for pulse in self.by_replica.values_mut() {
            pulse.moved_at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_promised_heartbeat_is_missed() {
        let mut pulses = Pulses::default();
        let late = TimeUs(0).plus_ms(HEARTBEAT_LEADER_MS);
        assert_eq!(pulses.observe(late, 0, 1, 0, true), None);
        pulses.promise(TimeUs(0), 0, 1, 100);
        assert_eq!(pulses.observe(late, 0, 1, 0, true), Some(HEARTBEAT_LEADER_MS));
        assert_eq!(pulses.observe(late, 0, 2, 0, true), None, "another incarnation promised nothing");
        assert_eq!(pulses.observe(late, 0, 1, 0, false), None, "followers have more time");
        assert_eq!(pulses.observe(late, 0, 1, 7, true), None, "it moved");
        pulses.promise(late, 0, 2, 0);
        assert_eq!(pulses.observe(TimeUs(u64::MAX), 0, 2, 0, true), None);
    }

    #[test]
    fn a_warden_that_was_stopped_blames_nobody() {
        let mut pulses = Pulses::default();
        pulses.promise(TimeUs(0), 0, 1, 100);
        let late = TimeUs(0).plus_ms(HEARTBEAT_LEADER_MS * 5);
        pulses.forgive(late);
        assert_eq!(pulses.observe(late, 0, 1, 0, true), None);
    }
}
