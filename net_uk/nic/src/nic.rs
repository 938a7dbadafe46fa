//! What every network card can do.

use std::os::fd::BorrowedFd;

use lane::{Consumer, DriverWords, Frame, LaneError, Producer};

use crate::error::{NicError, Result};

/// Driver words: which sockets the others are about, where the rings of a packet socket stand, and what was counted.
pub(crate) const COOKIE_WORD: usize = 0;
pub(crate) const TX_PLACE_WORD: usize = 1;
pub(crate) const RX_PLACE_WORD: usize = 2;
pub(crate) const RX_DROPPED_WORD: usize = 3;
pub(crate) const RX_REFUSED_WORD: usize = 4;
pub(crate) const TX_REFUSED_WORD: usize = 5;
/// Driver words of TAP devices: what is about to be written, and what was before the next read.
pub(crate) const TAP_TX_WORD: usize = 1;
pub(crate) const TAP_RX_WORD: usize = 2;
pub(crate) const TAP_BYTES_WORD: usize = 6;

/// What a call of [`Nic::transmit`] or [`Nic::receive`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Done {
    /// Frames moved, refused ones not among them.
    pub frames: u32,
    /// Bytes of these frames.
    pub bytes: u64,
    /// Frames that came to nothing: void, malformed, or more than the device can take.
    pub refused: u32,
    /// Whether it stopped because the other side had no room: the device's queue (transmit) or the lane (receive).
    pub blocked: bool,
}

impl Done {
    /// Frames that left their queue.
    pub fn taken(&self) -> u32 {
        self.frames + self.refused
    }

    /// Counts a frame of this length, or a refused one.
    pub(crate) fn add(&mut self, length_bytes: Option<usize>) {
        match length_bytes {
            None => self.refused += 1,
            Some(length_bytes) => {
                self.frames += 1;
                self.bytes += length_bytes as u64;
            }
        }
    }
}

/// What became of a kick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kick {
    /// The device has everything.
    Clear,
    /// Some frames wait in the ring; kick again soon.
    Congested,
    /// The device is down or gone; the frames wait.
    Down,
}

/// State of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// It works.
    Up,
    /// It is switched off or has no carrier.
    Down,
    /// There is no such device any more: these descriptors will never work again.
    Gone,
}

/// What the kernel counted on behalf of this network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Frames that arrived and found no room.
    pub rx_dropped: u64,
    /// Frames that arrived and could not be handed on: truncated, or of an unknown kind of segmentation.
    pub rx_refused: u64,
    /// Frames from the lane that could not be sent.
    pub tx_refused: u64,
}

/// A network card, as its driver sees it.
pub trait Nic {
    /// Moves frames from the lane to the device, and commits. They go nowhere before [`Nic::kick`].
    ///
    /// # Errors
    /// A lane that makes no sense, or what the kernel reports.
    fn transmit(&mut self, lane: &mut Consumer) -> Result<Done>;

    /// Moves frames from the device to the lane, commits, and gives their room back.
    ///
    /// # Errors
    /// A lane that makes no sense, or what the kernel reports.
    fn receive(&mut self, lane: &mut Producer) -> Result<Done>;

    /// Has the kernel send what [`Nic::transmit`] handed to it.
    ///
    /// # Errors
    /// What the kernel reports.
    fn kick(&mut self) -> Result<Kick>;

    /// Readable when there may be something to receive; writable when a blocked [`Nic::transmit`] may go on.
    fn poll_fd(&self) -> BorrowedFd<'_>;

    /// State of the device.
    ///
    /// # Errors
    /// What the kernel reports.
    fn link(&mut self) -> Result<Link>;

    /// What was counted since the lane was made.
    ///
    /// # Errors
    /// What the kernel reports.
    fn counters(&mut self) -> Result<Counters>;
}

/// Adds to a driver word.
pub(crate) fn count(words: &DriverWords, word: usize, amount: u32) {
    if amount > 0 {
        words.set_nic(word, words.nic(word).wrapping_add(u64::from(amount)));
    }
}

/// As [`next_frame`], for a successor, whom nobody asks a second time: what makes no sense twice is passed over.
pub(crate) fn next_frame_again(lane: &mut Consumer, words: &DriverWords) -> Result<Option<Frame>> {
    // Each second look passes over a frame.
    for _ in 0..2 * lane.ring().slots() {
        match next_frame(lane, words) {
            Err(NicError::Lane(LaneError::Descriptor { .. })) => {}
            next => return next,
        }
    }
    Ok(None)
}

/// The next frame to be sent. Frames that are not what the shadow wrote are taken off and counted.
pub(crate) fn next_frame(lane: &mut Consumer, words: &DriverWords) -> Result<Option<Frame>> {
    let frame = lane.next_good();
    let damaged = lane.take_damaged();
    if damaged > 0 {
        // With all before them, which were handed over.
        lane.commit();
        words.add_tx_damaged(damaged.into());
    }
    Ok(frame?)
}
