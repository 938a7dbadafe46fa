//! What a former shadow had put into a ring of ours before it died.

use std::collections::BTreeMap;

use lane::Producer;

use crate::state::Label;

/// The last frame of each source in a ring, as its labels told when this shadow began: what it pushes itself may write over them
/// before the last frame is asked for.
#[derive(Debug, Default)]
pub struct Pushed(BTreeMap<u16, u32>);

impl Pushed {
    /// Of a ring to which nothing was added yet.
    pub fn of(ring: &Producer) -> Self {
        Self(ring.last_seqs())
    }

    /// Is a frame there, or was it, that a successor comes by again?
    pub fn has(&self, label: Label) -> bool {
        let last = self.0.get(&label.source);
        last.is_some_and(|last| last.wrapping_sub(label.seq) < netif::ring::RING_SLOTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_up_to_the_last_one_of_their_source_are_there() {
        let pushed = Pushed(BTreeMap::from([(3, 100), (4, 1)]));
        let has = |source, seq| pushed.has(Label { source, seq });
        assert!(has(3, 100) && has(3, 37) && has(4, u32::MAX));
        assert!(!has(3, 101) && !has(5, 100) && !has(4, 2));
    }
}
