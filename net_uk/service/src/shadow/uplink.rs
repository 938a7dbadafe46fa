//! The shadow's end of a network card's lane.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use hypervisor::Region;
use lane::{Consumer, Frame, Lane, Producer};
use net_switch::PortId;
use rustix::event::EventfdFlags;

use crate::error::Error;
use crate::limits::LANE_SLOTS;

/// Sources of frames below this number are network cards.
pub const FIRST_QUEUE_SOURCE: u16 = 64;

/// So much room is worth waking up for.
pub const ROOM_SLOTS: u32 = LANE_SLOTS / 4;

/// One network card.
pub struct Uplink {
    /// Its number as a source.
    pub number: u16,
    /// Its port of the switch.
    pub port: PortId,
    /// Towards the wire.
    pub tx: Producer,
    /// From the wire.
    pub rx: Consumer,
    /// Frames before this number may have been delivered by a former shadow.
    pub replay_before: Option<u32>,
    /// Wakes the driver.
    pub wake_driver: OwnedFd,
    /// Wakes this shadow.
    pub wake_shadow: OwnedFd,
    /// A guest waits for room towards the wire.
    pub wanted: bool,
    lane: Lane,
}

impl Uplink {
    /// Attaches to a lane.
    ///
    /// # Errors
    /// [`Error::Lane`].
    pub fn attach(
        number: u16,
        port: PortId,
        lane: Lane,
        wake_driver: OwnedFd,
        wake_shadow: OwnedFd,
    ) -> Result<Self, Error> {
        let (tx, mut rx) = (lane.tx().producer()?, lane.rx().consumer()?);
        let waiting = rx.backlog_slots()? > 0;
        // Which frames of those a former shadow had begun with is not known: it moves a batch at a time.
        let replay_before = waiting.then(|| rx.committed().frames.wrapping_add(LANE_SLOTS));
        let uplink =
            Self { number, port, tx, rx, replay_before, wake_driver, wake_shadow, wanted: false, lane };
        // A former shadow may have died before it could.
        uplink.wake();
        Ok(uplink)
    }

    /// The memory of both directions.
    pub fn region(&self) -> &Arc<Region> {
        self.lane.region()
    }

    /// May a former shadow have delivered this frame?
    pub fn is_replay(&self, frame: &Frame) -> bool {
        self.replay_before.is_some_and(|end| end.wrapping_sub(frame.number()) <= LANE_SLOTS)
    }

    /// Shows the driver what was staged, and takes off what was passed; wakes it if it sleeps. True if there was
    /// something to show.
    pub fn commit(&mut self) -> bool {
        let published = self.tx.publish();
        let taken = self.rx.commit();
        if (published && self.tx.needs_wake()) | (taken && self.rx.needs_wake()) {
            self.wake();
        }
        published
    }

    /// Wakes the driver.
    pub fn wake(&self) {
        signal(&self.wake_driver);
    }
}

/// Makes an eventfd readable.
pub fn signal(eventfd: &OwnedFd) {
    // One that is full is readable.
    let _ = rustix::io::write(eventfd, &1u64.to_ne_bytes());
}

/// Empties an eventfd.
pub fn drain(eventfd: &OwnedFd) {
    let _ = rustix::io::read(eventfd, &mut [0u8; 8]);
}

/// A new eventfd.
///
/// # Errors
/// [`Error::System`].
pub fn eventfd() -> Result<OwnedFd, Error> {
    rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(Error::system("eventfd"))
}
