//! What is counted for each port.

/// Why a frame from a port goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// It has no whole header.
    TooShort,
    /// Its sender is no station.
    BadSender,
    /// Its sender is not the one of this port, or the fixed one of another port.
    Spoofed,
    /// It is for the link itself.
    OfTheLink,
    /// Nobody else is there to take it.
    NoTarget,
}

/// Counts of one port. They wrap at no value that can be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames that came in, dropped ones included.
    pub in_frames: u64,
    /// Their bytes.
    pub in_bytes: u64,
    /// Frames that were sent out here. Whether there was room for them is counted elsewhere.
    pub out_frames: u64,
    /// Their bytes.
    pub out_bytes: u64,
    /// Frames that came in for an unknown station.
    pub flooded: u64,
    /// Came in without a whole header.
    pub too_short: u64,
    /// Came in from no station.
    pub bad_sender: u64,
    /// Came in with a sender that is not theirs.
    pub spoofed: u64,
    /// Came in for the link itself.
    pub of_the_link: u64,
    /// Came in and nobody else was there to take it.
    pub no_target: u64,
    /// Addresses that were learned here.
    pub learned: u64,
    /// Addresses that made room for others of this port.
    pub displaced: u64,
    /// Addresses that came from another port.
    pub moved_in: u64,
    /// Times that an address of another port was not taken over.
    pub refused_moves: u64,
}

impl Counters {
    pub(crate) fn count(&mut self, drop: DropReason) {
        let counter = match drop {
            DropReason::TooShort => &mut self.too_short,
            DropReason::BadSender => &mut self.bad_sender,
            DropReason::Spoofed => &mut self.spoofed,
            DropReason::OfTheLink => &mut self.of_the_link,
            DropReason::NoTarget => &mut self.no_target,
        };
        *counter += 1;
    }
}
