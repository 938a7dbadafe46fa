//! One call at a time on each line, with pauses that grow while it fails.

use std::time::Duration;

use crate::call::{CallId, Slot};
use crate::limits::{CALL_TIMEOUT_MAX, RETRY_MAX, RETRY_MIN};

#[derive(Clone, Copy, Debug, Default)]
struct Line {
    number: u64,
    busy: bool,
    attempt: u32,
    not_before: Duration,
}

/// All lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    lines: [Line; Slot::ALL.len()],
}

impl Lines {
    fn line(&mut self, slot: Slot) -> &mut Line {
        &mut self.lines[slot as usize]
    }

    /// When the next call may begin; `None` while one is under way.
    pub fn free_at(&self, slot: Slot) -> Option<Duration> {
        let line = &self.lines[slot as usize];
        (!line.busy).then_some(line.not_before)
    }

    pub fn begin(&mut self, slot: Slot) -> CallId {
        let line = self.line(slot);
        line.number += 1;
        line.busy = true;
        CallId { slot, number: line.number }
    }

    /// How long to wait for the answer of the call that begins.
    pub fn timeout(&self, slot: Slot, first: Duration) -> Duration {
        grown(first, self.lines[slot as usize].attempt, CALL_TIMEOUT_MAX)
    }

    /// Whether somebody waits for this answer.
    pub fn ended(&mut self, now: Duration, id: CallId, well: bool) -> bool {
        let line = self.line(id.slot);
        if !line.busy || line.number != id.number {
            return false;
        }
        line.busy = false;
        if well {
            (line.attempt, line.not_before) = (0, now);
        } else {
            line.not_before = now + grown(RETRY_MIN, line.attempt, RETRY_MAX);
            line.attempt = line.attempt.saturating_add(1);
        }
        true
    }

    /// An answer that is of no use yet: not again at once.
    pub fn pause(&mut self, now: Duration, slot: Slot) {
        let line = self.line(slot);
        line.not_before = line.not_before.max(now + grown(RETRY_MIN, 2, RETRY_MAX));
    }

    /// As if nothing had been asked.
    pub fn forget(&mut self, slot: Slot) {
        let line = self.line(slot);
        (line.busy, line.attempt, line.not_before) = (false, 0, Duration::ZERO);
    }
}

fn grown(first: Duration, attempt: u32, most: Duration) -> Duration {
    first.saturating_mul(1 << attempt.min(16)).min(most.max(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_end_with_success() {
        let mut lines = Lines::default();
        let mut pause = Duration::ZERO;
        for _ in 0..20 {
            let id = lines.begin(Slot::Read);
            assert_eq!(lines.free_at(Slot::Read), None);
            assert!(lines.ended(Duration::ZERO, id, false));
            let next = lines.free_at(Slot::Read).unwrap();
            assert!(next >= pause && next <= RETRY_MAX);
            pause = next;
        }
        assert_eq!(pause, RETRY_MAX);
        assert_eq!(lines.timeout(Slot::Read, Duration::from_millis(1)), CALL_TIMEOUT_MAX);
        let id = lines.begin(Slot::Read);
        assert!(lines.ended(Duration::from_secs(1), id, true));
        assert_eq!(lines.timeout(Slot::Read, RETRY_MIN), RETRY_MIN);
        assert_eq!(lines.free_at(Slot::Read), Some(Duration::from_secs(1)));
    }

    #[test]
    fn a_late_answer_is_ignored() {
        let mut lines = Lines::default();
        let old = lines.begin(Slot::Append);
        lines.forget(Slot::Append);
        assert!(!lines.ended(Duration::ZERO, old, true));
        let new = lines.begin(Slot::Append);
        assert!(!lines.ended(Duration::ZERO, old, true) && lines.ended(Duration::ZERO, new, true));
    }
}
