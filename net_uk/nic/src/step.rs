//! The places between two steps of a port, for tests that have it die there.

/// A place just after something that a successor could find done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A frame's bytes lie in the device's slot.
    TxFilled,
    /// What is about to be handed over was noted down, and then once more, that its memory is in use.
    TxNoted,
    /// A frame, or a batch of them, was handed to the device: the effect.
    TxMarked,
    /// The lane's frames were taken off: the commit.
    TxCommitted,
    /// The kernel was told.
    TxKicked,
    /// What the device has sent was taken note of.
    TxCompleted,
    /// A frame's bytes and descriptors lie in the lane.
    RxStaged,
    /// A frame's slot carries its number, or what is about to be published was noted down.
    RxMarked,
    /// The frames were published: the commit.
    RxPublished,
    /// One slot was given back, or a batch of them.
    RxGivenBack,
    /// The frames were taken off the device's ring.
    RxReleased,
    /// A successor found its place.
    Placed,
    /// A successor committed what its predecessor had handed to the device.
    TxRecovered,
    /// A successor gave back one slot.
    RxRecovered,
}

impl Step {
    /// All places. Not every kind of network card has each of them.
    pub const ALL: [Self; 14] = [
        Self::TxFilled,
        Self::TxNoted,
        Self::TxMarked,
        Self::TxCommitted,
        Self::TxKicked,
        Self::TxCompleted,
        Self::RxStaged,
        Self::RxMarked,
        Self::RxPublished,
        Self::RxGivenBack,
        Self::RxReleased,
        Self::Placed,
        Self::TxRecovered,
        Self::RxRecovered,
    ];

    /// The places of a packet socket.
    pub const PACKET: [Self; 11] = [
        Self::TxFilled,
        Self::TxMarked,
        Self::TxCommitted,
        Self::TxKicked,
        Self::RxStaged,
        Self::RxMarked,
        Self::RxPublished,
        Self::RxGivenBack,
        Self::Placed,
        Self::TxRecovered,
        Self::RxRecovered,
    ];
}

/// Told of each step.
pub trait Steps {
    /// `step` was just done.
    fn done(&mut self, step: Step);
}

/// Takes no notice.
#[derive(Debug, Clone, Copy, Default)]
pub struct Straight;

impl Steps for Straight {
    #[inline]
    fn done(&mut self, _step: Step) {}
}
