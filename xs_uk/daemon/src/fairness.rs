//! Who must wait so that a privileged client gets its transaction through.
//!
//! ```text
//!   EAGAIN of client C because of a path ---> guests that changed something since C's transaction began, and may write
//!                                             there: held 50 ms; from the second refusal in a row on: all that changed
//!                                             something since then or within a second, and twice as long each time, up
//!                                             to 1 s. Who is held for C already stays so for as long
//!   commit of C ----------------------------> they go on
//!   the time is over -----------------------> they go on
//! ```
//!
//! A held guest's requests wait in its ring. Nobody is held who did nothing, and nobody for longer than C retries. So
//! C's second try meets only guests that did not write during the first, its third only those that did nothing for a
//! second: a flood of writes costs C two tries (XSA-206), and guests that take turns one try each. The rule is the
//! leader's alone: it changes when requests come into the log, not what they do.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::limits::{CONFLICT_HOLD_MAX, CONFLICT_HOLD_MIN, CONFLICT_RECENT, CONFLICT_ROW};

/// Refusals of a client in a row.
struct Refused {
    times: u32,
    last: Instant,
}

/// A guest's last change.
struct Change {
    index: u64,
    at: Instant,
}

/// A guest that waits.
struct Hold {
    until: Instant,
    client: u64,
}

/// The rule's state. Connections are named by their ids; there is at most one item for each.
#[derive(Default)]
pub struct Fairness {
    /// Guests that changed something.
    changed: HashMap<u64, Change>,
    refused: HashMap<u64, Refused>,
    held: HashMap<u64, Hold>,
}

impl Fairness {
    /// A guest's request was logged that may change something.
    pub fn changed(&mut self, guest: u64, index: u64, now: Instant) {
        self.changed.insert(guest, Change { index, at: now });
    }

    /// A privileged client's commit was refused; its transaction began behind the log index `since`. `may_write` tells
    /// who could have caused it. Gives the guests that are held now.
    pub fn refused(
        &mut self,
        client: u64,
        since: u64,
        may_write: impl Fn(u64) -> bool,
        now: Instant,
    ) -> Vec<u64> {
        let times = self.count(client, now);
        let until = now + hold(times);
        let is_suspect = |guest: u64, change: &Change| match times {
            1 => change.index > since && may_write(guest),
            // One that a busy machine did not run meanwhile would be the next to write.
            _ => change.index > since || now.saturating_duration_since(change.at) <= CONFLICT_RECENT,
        };
        let suspects = self.changed.iter().filter(|(guest, change)| is_suspect(**guest, change));
        let suspects: Vec<u64> = suspects.map(|(guest, _)| *guest).collect();
        for guest in &suspects {
            let hold = self.held.entry(*guest).or_insert(Hold { until, client });
            if hold.until <= until {
                *hold = Hold { until, client };
            }
        }
        // Who was held during this try is innocent of it, and would be the one to spoil the next.
        for hold in self.held.values_mut().filter(|hold| hold.client == client && hold.until > now) {
            hold.until = hold.until.max(until);
        }
        suspects
    }

    fn count(&mut self, client: u64, now: Instant) -> u32 {
        let refused = self.refused.entry(client).or_insert(Refused { times: 0, last: now });
        if now.saturating_duration_since(refused.last) > CONFLICT_ROW {
            refused.times = 0;
        }
        *refused = Refused { times: refused.times.saturating_add(1), last: now };
        refused.times
    }

    /// A client ended a transaction without a conflict. Gives the guests that need wait no longer.
    pub fn succeeded(&mut self, client: u64) -> Vec<u64> {
        if self.refused.remove(&client).is_none() {
            return Vec::new();
        }
        self.held.extract_if(|_, hold| hold.client == client).map(|(guest, _)| guest).collect()
    }

    /// Must this guest wait?
    pub fn is_held(&self, guest: u64, now: Instant) -> bool {
        self.held.get(&guest).is_some_and(|hold| hold.until > now)
    }

    /// Gives the guests whose time is over.
    pub fn expired(&mut self, now: Instant) -> Vec<u64> {
        self.held.extract_if(|_, hold| hold.until <= now).map(|(guest, _)| guest).collect()
    }

    /// How long until the next guest's time is over; `None` if nobody waits.
    pub fn next_expiry(&self, now: Instant) -> Option<Duration> {
        self.held.values().map(|hold| hold.until.saturating_duration_since(now)).min()
    }

    /// Does anybody wait?
    pub fn holds_any(&self) -> bool {
        !self.held.is_empty()
    }

    /// A connection is gone. Those that it had held go on when their time is over.
    pub fn forget(&mut self, conn: u64) {
        self.changed.remove(&conn);
        self.refused.remove(&conn);
        self.held.remove(&conn);
    }
}

fn hold(times: u32) -> Duration {
    let doublings = times.saturating_sub(1).min(16);
    (CONFLICT_HOLD_MIN * (1 << doublings)).min(CONFLICT_HOLD_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: u64 = 1;

    fn after(start: Instant, time: Duration) -> Instant {
        start + time
    }

    #[test]
    fn who_wrote_there_waits_until_the_commit() {
        let (mut fairness, now) = (Fairness::default(), Instant::now());
        for (guest, index) in [(10, 5), (11, 5), (12, 3)] {
            fairness.changed(guest, index, now);
        }
        assert_eq!(fairness.refused(CLIENT, 3, |guest| guest != 11, now), [10]);
        assert!(fairness.is_held(10, now) && !fairness.is_held(11, now) && !fairness.is_held(12, now));
        assert_eq!(fairness.next_expiry(now), Some(CONFLICT_HOLD_MIN));
        assert_eq!(fairness.succeeded(2), [0; 0], "another client's success frees nobody");
        assert_eq!(fairness.succeeded(CLIENT), [10]);
        assert!(!fairness.is_held(10, now) && !fairness.holds_any());
    }

    #[test]
    fn the_second_refusal_holds_all_that_changed_anything_of_late_and_longer() {
        let (mut fairness, began) = (Fairness::default(), Instant::now());
        fairness.changed(12, 4, began);
        let now = after(began, CONFLICT_RECENT + CONFLICT_HOLD_MIN);
        fairness.changed(10, 5, now);
        fairness.changed(11, 6, now);
        assert_eq!(fairness.refused(CLIENT, 4, |guest| guest == 10, now), [10]);
        assert_eq!(fairness.refused(CLIENT, 6, |_| false, now).len(), 2, "although they wrote nothing since");
        assert!([10, 11].iter().all(|guest| fairness.is_held(*guest, after(now, CONFLICT_HOLD_MIN))));
        assert!(!fairness.is_held(12, now), "too long ago");
        assert_eq!(fairness.expired(after(now, 2 * CONFLICT_HOLD_MIN)).len(), 2);
    }

    /// One whose hold ended in the middle of the third try, because the second had taken most of it, was the next to write.
    #[test]
    fn who_is_held_stays_so_until_the_client_is_through() {
        let (mut fairness, start) = (Fairness::default(), Instant::now());
        let mut now = start;
        fairness.changed(10, 5, now);
        for times in 0..30 {
            fairness.refused(CLIENT, 4, |_| times == 0, now);
            assert!(fairness.is_held(10, after(now, CONFLICT_HOLD_MIN * 9 / 10)), "refusal {times}");
            now += CONFLICT_HOLD_MIN * 9 / 10;
        }
        assert!(now > after(start, CONFLICT_RECENT));
        fairness.changed(11, 6, now);
        fairness.refused(2, 5, |guest| guest == 11, now);
        let late = after(now, CONFLICT_HOLD_MIN * 9 / 10);
        fairness.refused(3, 6, |_| true, late);
        assert!(!fairness.is_held(11, after(now, CONFLICT_HOLD_MIN)), "another client's business");
    }

    #[test]
    fn holds_are_bounded_and_a_row_ends() {
        let (mut fairness, mut now) = (Fairness::default(), Instant::now());
        fairness.changed(10, 5, now);
        for _ in 0..100 {
            fairness.refused(CLIENT, 4, |_| true, now);
            assert!(!fairness.is_held(10, after(now, CONFLICT_HOLD_MAX)));
            now += Duration::from_millis(1);
        }
        assert!(fairness.is_held(10, after(now, CONFLICT_HOLD_MAX / 2)));
        now += CONFLICT_ROW + CONFLICT_HOLD_MAX;
        assert_eq!(fairness.expired(now), [10]);
        fairness.refused(CLIENT, 4, |_| true, now);
        assert_eq!(fairness.next_expiry(now), Some(CONFLICT_HOLD_MIN));
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let (mut fairness, now) = (Fairness::default(), Instant::now());
        fairness.changed(10, 5, now);
        fairness.refused(CLIENT, 4, |_| true, now);
        fairness.forget(10);
        fairness.forget(CLIENT);
        assert!(!fairness.holds_any() && fairness.refused.is_empty() && fairness.changed.is_empty());
    }

    /// With `guests` that write whenever they may, a client whose transactions take less than the shortest hold gets
    /// through at its third try.
    #[test]
    fn a_flood_costs_two_tries() {
        let (mut fairness, mut now, mut index) = (Fairness::default(), Instant::now(), 0);
        for round in 0..50 {
            let mut tries = 0;
            loop {
                tries += 1;
                let since = index;
                let mut conflict = false;
                // Half of them write during the first try, the others during the second.
                for guest in (10..20).filter(|guest| tries > 1 || (guest + round) % 2 == 0) {
                    if !fairness.is_held(guest, now) {
                        index += 1;
                        fairness.changed(guest, index, now);
                        conflict = true;
                    }
                }
                now += CONFLICT_HOLD_MIN / 2;
                if !conflict {
                    break;
                }
                fairness.refused(CLIENT, since, |_| true, now);
            }
            fairness.succeeded(CLIENT);
            assert!(tries <= 3, "{tries} tries");
        }
    }
}
