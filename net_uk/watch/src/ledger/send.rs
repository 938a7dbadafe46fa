//! The way to the wire.

use super::{Balance, Numbers, Tap};

/// Counts of frames on the way from a guest to the wire. All count frames, not slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendTaps {
    /// The guest put it on its ring.
    pub guest_sent: u64,
    /// The shadow took it from there.
    pub shadow_taken: u64,
    /// The shadow answered: sent.
    pub answered_ok: u64,
    /// The shadow answered: malformed.
    pub answered_error: u64,
    /// The shadow answered: dropped.
    pub answered_dropped: u64,
    /// Of those answered as sent, frames that were for other guests alone.
    pub elsewhere: u64,
    /// The shadow put it on the lane.
    pub lane_pushed: u64,
    /// The driver gave it to the NIC.
    pub driver_sent: u64,
    /// The NIC's own count of frames sent.
    pub nic_sent: u64,
    /// The NIC's own count of frames not sent.
    pub nic_dropped: u64,
    /// Frames that are on the guest's ring and not taken.
    pub guest_pending: u64,
    /// Frames that were taken and not answered.
    pub shadow_pending: u64,
    /// Frames that are on the lane.
    pub lane_pending: u64,
    /// Frames that are on the NIC's ring.
    pub nic_pending: u64,
    /// What the peer saw.
    pub peer: Numbers,
}

impl SendTaps {
    /// What became of the frames. The peer's numbers must be those of this guest alone.
    pub fn balance(&self) -> Balance {
        let refused = self.answered_error.saturating_add(self.answered_dropped);
        let counted = refused.saturating_add(self.elsewhere).saturating_add(self.nic_dropped);
        let pending = [self.guest_pending, self.shadow_pending, self.lane_pending, self.nic_pending];
        let pending = pending.into_iter().fold(0, u64::saturating_add);
        let mut balance = Balance::of_ends(self.guest_sent, counted, pending, &self.peer);
        let answered = self.answered_ok.saturating_add(refused);
        balance.compare(
            (Tap::Guest, self.guest_sent),
            (Tap::Shadow, self.shadow_taken),
            [self.guest_pending, 0],
        );
        balance.compare(
            (Tap::Shadow, self.shadow_taken),
            (Tap::Answered, answered),
            [self.shadow_pending, 0],
        );
        balance.compare(
            (Tap::Answered, self.answered_ok),
            (Tap::Lane, self.lane_pushed),
            [self.elsewhere, 0],
        );
        balance.compare(
            (Tap::Lane, self.lane_pushed),
            (Tap::Driver, self.driver_sent),
            [self.lane_pending, 0],
        );
        balance.compare(
            (Tap::Driver, self.driver_sent),
            (Tap::Nic, self.nic_sent),
            [self.nic_dropped, self.nic_pending],
        );
        balance.compare((Tap::Nic, self.nic_sent), (Tap::Peer, self.peer.received()), [0, 0]);
        balance
    }
}
