//! The way from the wire.

use super::{Balance, Numbers, Tap};

/// Counts of frames on the way from the wire to a guest. All count frames, not slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiveTaps {
    /// The peer sent it.
    pub peer_sent: u64,
    /// The NIC's own count of frames received.
    pub nic_received: u64,
    /// The NIC's or the kernel's own count of frames that found its rings full.
    pub nic_dropped: u64,
    /// The driver took it from the NIC.
    pub driver_taken: u64,
    /// The driver found no room on the lane and dropped it.
    pub driver_dropped: u64,
    /// The driver put it on the lane.
    pub lane_pushed: u64,
    /// The shadow took it from there.
    pub shadow_taken: u64,
    /// The guest gave no slots for it in time.
    pub dropped_no_slots: u64,
    /// The switch had no port for it.
    pub filtered: u64,
    /// The shadow gave it to the guest.
    pub given: u64,
    /// Frames that are on the NIC's ring.
    pub nic_pending: u64,
    /// Frames that are on the lane.
    pub lane_pending: u64,
    /// Frames that the shadow holds.
    pub shadow_pending: u64,
    /// What the guest saw.
    pub guest: Numbers,
}

impl ReceiveTaps {
    /// What became of the frames. The numbers must be those of one peer, and all for this guest.
    pub fn balance(&self) -> Balance {
        let dropped = self.dropped_no_slots.saturating_add(self.filtered);
        let counted = dropped.saturating_add(self.nic_dropped).saturating_add(self.driver_dropped);
        let pending = self.nic_pending.saturating_add(self.lane_pending).saturating_add(self.shadow_pending);
        let mut balance = Balance::of_ends(self.peer_sent, counted, pending, &self.guest);
        balance.compare((Tap::Peer, self.peer_sent), (Tap::Nic, self.nic_received), [self.nic_dropped, 0]);
        balance.compare(
            (Tap::Nic, self.nic_received),
            (Tap::Driver, self.driver_taken),
            [self.nic_pending, 0],
        );
        balance.compare(
            (Tap::Driver, self.driver_taken),
            (Tap::Lane, self.lane_pushed),
            [self.driver_dropped, 0],
        );
        balance.compare(
            (Tap::Lane, self.lane_pushed),
            (Tap::Shadow, self.shadow_taken),
            [self.lane_pending, 0],
        );
        balance.compare(
            (Tap::Shadow, self.shadow_taken),
            (Tap::Answered, self.given),
            [dropped, self.shadow_pending],
        );
        balance.compare((Tap::Answered, self.given), (Tap::Guest, self.guest.received()), [0, 0]);
        balance
    }
}
