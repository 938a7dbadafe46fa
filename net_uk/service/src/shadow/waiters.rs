//! Who waits for room towards a network card, in order.
//!
//! Room comes a few slots at a time. Were it given to whoever asks, a guest with large frames would wait for as long as one
//! with small frames sends.

use std::collections::VecDeque;

use super::vif::{QueueId, VifId};

/// Queues that wait, each once. While one does, nobody passes it.
#[derive(Debug, Default)]
pub struct Waiters(VecDeque<QueueId>);

impl Waiters {
    /// Whose turn it is, if anybody waits.
    pub fn first(&self) -> Option<QueueId> {
        self.0.front().copied()
    }

    /// Is it this one's turn?
    pub fn may_go(&self, id: QueueId) -> bool {
        self.0.front().is_none_or(|first| *first == id)
    }

    /// It waits, behind those that do already.
    pub fn wait(&mut self, id: QueueId) {
        if !self.0.contains(&id) {
            self.0.push_back(id);
        }
    }

    /// It was served and wants more: others come first.
    pub fn step_back(&mut self, id: QueueId) {
        if self.0.len() > 1 && self.0.front() == Some(&id) {
            self.0.rotate_left(1);
        }
    }

    /// It does not wait any more.
    pub fn leave(&mut self, id: QueueId) {
        self.0.retain(|waiting| *waiting != id);
    }

    /// An interface is gone.
    pub fn leave_all(&mut self, vif: VifId) {
        self.0.retain(|waiting| waiting.vif != vif);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(vif: u16) -> QueueId {
        QueueId { vif: VifId(vif), queue: 0 }
    }

    #[test]
    fn nobody_passes_who_waits() {
        let mut waiters = Waiters::default();
        assert!(waiters.may_go(queue(1)));
        waiters.wait(queue(2));
        assert!(!waiters.may_go(queue(1)) && waiters.may_go(queue(2)));
        waiters.wait(queue(1));
        waiters.wait(queue(2));
        waiters.step_back(queue(2));
        assert!(waiters.may_go(queue(1)) && !waiters.may_go(queue(2)));
        waiters.leave(queue(1));
        assert!(waiters.may_go(queue(2)));
        waiters.step_back(queue(2));
        assert!(waiters.may_go(queue(2)));
        waiters.leave_all(VifId(2));
        assert!(waiters.may_go(queue(3)));
    }
}
