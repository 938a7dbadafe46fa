//! What became of the frames: from counters at each tap of the way, and from numbers in the frames.
//!
//! ```text
//!   send:    guest -> shadow -> answered -> lane -> driver -> NIC -> peer
//!   receive: peer -> NIC -> driver -> lane -> shadow -> given -> guest
//! ```
//!
//! Between two taps nothing may vanish but what was counted as refused or dropped, and nothing may come to be. A frame lost
//! and one duplicated between the same taps hide each other in the counters; the numbers tell them apart.

mod checksum;
mod receive;
mod send;
mod sequence;
#[cfg(test)]
mod tests;

pub use receive::ReceiveTaps;
pub use send::SendTaps;
pub use sequence::{Numbers, PAYLOAD_BYTES_MIN, Seen, Sequence, number_of, seal};

/// A point that frames pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tap {
    /// The guest's frontend.
    Guest,
    /// The shadow took it.
    Shadow,
    /// The shadow answered it, or gave it to the guest.
    Answered,
    /// The frame ring between shadow and driver.
    Lane,
    /// The driver took it or sent it.
    Driver,
    /// The NIC's own counters.
    Nic,
    /// The other end of the wire.
    Peer,
}

/// Two taps between which the counts do not agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The tap before.
    pub from: Tap,
    /// The tap behind.
    pub to: Tap,
    /// Frames that passed the first and not the second.
    pub lost: u64,
    /// Frames that passed the second more often than the first.
    pub duplicated: u64,
}

/// What became of the frames of one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Frames that neither arrived nor were counted as refused or dropped.
    pub lost: u64,
    /// Frames that arrived again.
    pub duplicated: u64,
    /// Frames that arrived behind a later one.
    pub reordered: u64,
    /// Frames that arrived damaged.
    pub corrupt: u64,
    /// Frames that were refused or dropped, and counted.
    pub counted: u64,
    /// Where counts do not agree, in the order of the way.
    pub gaps: Vec<Gap>,
}

impl Balance {
    /// Whether each frame arrived once, whole and in order, or was counted.
    pub fn is_clean(&self) -> bool {
        let wrong = [self.lost, self.duplicated, self.reordered, self.corrupt];
        wrong == [0; 4] && self.gaps.is_empty()
    }

    /// What the ends know: `sent` frames in all, `counted` ones refused or dropped, and `pending` ones on their way.
    fn of_ends(sent: u64, counted: u64, pending: u64, numbers: &Numbers) -> Self {
        let known = numbers.unique.saturating_add(counted).saturating_add(pending);
        Self {
            lost: sent.saturating_sub(known),
            duplicated: numbers.duplicated,
            reordered: numbers.reordered,
            corrupt: numbers.corrupt,
            counted,
            gaps: Vec::new(),
        }
    }

    /// Compares two taps: what passed the first is at the second, counted in between, or on its way.
    fn compare(&mut self, (from, passed): (Tap, u64), (to, arrived): (Tap, u64), between: [u64; 2]) {
        let accounted = between.into_iter().fold(arrived, u64::saturating_add);
        let lost = passed.saturating_sub(accounted);
        let duplicated = accounted.saturating_sub(passed);
        if lost + duplicated > 0 {
            self.gaps.push(Gap { from, to, lost, duplicated });
        }
    }
}
