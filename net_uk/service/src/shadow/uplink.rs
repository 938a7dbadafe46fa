//! The shadow's end of a network card's lane.

use std::os::fd::OwnedFd;
use std::time::Duration;

use lane::limits::SLOT_BYTES;
use lane::{Consumer, Frame, FrameMeta, Lane, LaneError, Producer};
use net_switch::PortId;
use netif::Gso;
use netif::segment::Segmenter;
use rustix::event::EventfdFlags;

use super::frame::{Facts, finish};
use super::replay::Pushed;
use super::trust::{News, Trust};
use super::vif::QueueId;
use super::waiters::Waiters;
use crate::error::Error;
use crate::limits::{DAMAGED_MAX, LANE_SLOTS, UPLINK_FRAME_BYTES_MAX};

/// Sources of frames below this number are network cards.
pub const FIRST_QUEUE_SOURCE: u16 = 64;

/// So much room is worth waking up for.
pub const ROOM_SLOTS: u32 = LANE_SLOTS / 4;

/// What is there that one must not sleep over.
pub struct Ready {
    /// Frames from the wire.
    pub received: bool,
    /// Room towards it.
    pub room: bool,
}

/// One network card.
pub struct Uplink {
    /// Its number as a source.
    pub number: u16,
    /// Its port of the switch.
    pub port: PortId,
    /// Its kernel cuts segments.
    offload: bool,
    /// Towards the wire.
    pub tx: Producer,
    /// What a former shadow had put there last, by source.
    pub pushed: Pushed,
    /// From the wire.
    pub rx: Consumer,
    /// Frames before this number may have been delivered by a former shadow.
    pub replay_before: Option<u32>,
    /// Wakes the driver.
    pub wake_driver: OwnedFd,
    /// Wakes this shadow.
    pub wake_shadow: OwnedFd,
    /// Slots towards the wire that a guest waits for.
    pub wanted: u32,
    /// Which guests wait for them.
    pub waiters: Waiters,
    /// The driver's index was read for room since the last commit.
    looked: bool,
    lane: Lane,
    trust: Trust,
    /// Nothing is known of the driver's indices: they made no sense from the start.
    blind: bool,
    /// Frames of the present driver that were not what it wrote.
    damaged: u32,
    /// Which driver that is.
    epoch: u64,
    accused_epoch: u64,
}

impl Uplink {
    /// Attaches to a lane. One whose driver wrote nonsense into it is not used before that is mended.
    pub fn attach(number: u16, port: PortId, lane: Lane, wake_driver: OwnedFd, wake_shadow: OwnedFd) -> Self {
        let mut uplink = Self {
            number,
            port,
            offload: false,
            tx: lane.tx().producer_alone(),
            pushed: Pushed::default(),
            rx: lane.rx().consumer_alone(),
            replay_before: None,
            wake_driver,
            wake_shadow,
            wanted: 0,
            waiters: Waiters::default(),
            looked: false,
            trust: Trust::Full,
            blind: false,
            damaged: 0,
            epoch: lane.words().epoch(),
            accused_epoch: lane.words().epoch(),
            lane,
        };
        if uplink.lane.is_given_up() || !uplink.attach_ends() {
            uplink.blind = true;
            uplink.trust.doubt();
        }
        uplink.lane.set_doubted(!uplink.is_trusted());
        // A former shadow may have died before it could.
        uplink.wake();
        uplink
    }

    /// Says whether its kernel cuts segments.
    #[must_use]
    pub fn with_offload(self, offload: bool) -> Self {
        Self { offload, ..self }
    }

    /// Attaches to both rings. False if the driver's indices make no sense.
    fn attach_ends(&mut self) -> bool {
        let (Ok(tx), Ok(mut rx)) = (self.lane.tx().producer(), self.lane.rx().consumer()) else {
            return false;
        };
        let Ok(waiting) = rx.backlog_slots() else { return false };
        // Which frames of those a former shadow had begun with is not known: it moves a batch at a time.
        self.replay_before = (waiting > 0).then(|| rx.committed().frames.wrapping_add(LANE_SLOTS));
        (self.tx, self.rx) = (tx, rx);
        self.pushed = Pushed::of(&self.tx);
        true
    }

    /// How a frame is to be cut before it goes there.
    fn cuts(&self, facts: &Facts) -> Option<Gso> {
        facts.gso.filter(|_| !self.offload)
    }

    /// Is there room for a frame of this queue towards the wire, and is it its turn? If not, it waits, and the driver tells
    /// when.
    ///
    /// # Errors
    /// [`Error::Frame`] if there never will be, or [`Error::Lane`].
    pub fn has_room(&mut self, id: QueueId, length_bytes: usize, facts: &Facts) -> Result<bool, Error> {
        if self.waiters.may_go(id) && self.has_room_at_all(length_bytes, facts)? {
            return Ok(true);
        }
        self.waiters.wait(id);
        // Of one that waits behind another nothing else is known than that it is to be asked again.
        self.wanted = self.wanted.max(1);
        Ok(false)
    }

    /// The same whosever turn it is.
    ///
    /// # Errors
    /// As there.
    pub fn has_room_at_all(&mut self, length_bytes: usize, facts: &Facts) -> Result<bool, Error> {
        let slots = slots_needed(length_bytes, self.cuts(facts));
        if slots > self.tx.ring().slots() {
            return Err(netif::FrameFault::Length(length_bytes).into());
        }
        let has_room = self.room_slots(slots)? >= slots;
        if !has_room {
            self.wanted = self.wanted.max(slots);
        }
        Ok(has_room)
    }

    /// Slots that are free; the driver's index is read for it once a batch, and whenever there are fewer than `enough`.
    fn room_slots(&mut self, enough: u32) -> Result<u32, Error> {
        if !self.is_trusted() {
            return Ok(0);
        }
        if self.looked && self.tx.free_slots() >= enough {
            return Ok(self.tx.free_slots());
        }
        self.looked = true;
        match self.tx.room_slots() {
            Err(error) if error.is_nonsense() => {
                self.doubt(&error);
                Ok(0)
            }
            room_slots => Ok(room_slots?),
        }
    }

    /// Stages a frame for the wire, for which there is room; `segment` has room for one. Tells how many it is now.
    ///
    /// # Errors
    /// [`Error::Frame`] if it is not what its facts say, or [`Error::Lane`].
    pub fn send(&mut self, frame: &mut [u8], facts: &Facts, segment: &mut [u8]) -> Result<u32, Error> {
        if let (Some(gso), None) = (facts.gso, self.cuts(facts)) {
            // That it can be cut is looked at here: the guest is told if not.
            Segmenter::new(frame, gso, UPLINK_FRAME_BYTES_MAX)?;
            self.stage(frame, &facts.meta())?;
            return Ok(1);
        }
        let plain = facts.finished().meta();
        let (mut fault, mut frames) = (None, 0);
        finish(frame, facts, UPLINK_FRAME_BYTES_MAX, segment, |bytes| {
            frames += 1;
            fault = self.stage(bytes, &plain).err();
            fault.is_none()
        })?;
        fault.map_or(Ok(frames), Err)
    }

    fn stage(&mut self, bytes: &[u8], meta: &FrameMeta) -> Result<(), Error> {
        let reservation = self.tx.reserve(bytes.len())?.ok_or(Error::Full { what: "frame in a lane" })?;
        Ok(self.tx.stage_bytes(reservation, bytes, meta)?)
    }

    /// The next frame from the wire, copied to where there is room for one; none too if the driver's index makes no sense.
    ///
    /// # Errors
    /// [`Error::Lane`].
    pub fn next_frame(&mut self, room: &mut [u8]) -> Result<Option<Frame>, Error> {
        match self.rx.next_good_into(room) {
            Err(error) if error.is_nonsense() => {
                self.doubt(&error);
                Ok(None)
            }
            next => Ok(next?),
        }
    }

    /// Is something there that was not looked at yet?
    pub fn has_news(&self) -> bool {
        self.is_trusted() && self.rx.ring().produced() != self.rx.passed()
    }

    /// Can the lane be used?
    pub fn is_trusted(&self) -> bool {
        self.trust == Trust::Full
    }

    /// An index of the driver makes no sense. It is asked to write it again.
    pub fn doubt(&mut self, error: &LaneError) {
        tracing::debug!(nic = self.number, %error, "a lane makes no sense");
        if self.is_trusted() {
            self.accused_epoch = self.epoch();
        }
        self.trust.doubt();
        self.lane.set_doubted(true);
        self.wake();
    }

    /// Keeps what it wrote itself as it should be, and looks again at what made no sense.
    pub fn look_after(&mut self, now: Duration) -> Option<News> {
        if self.tx.reassert() | self.rx.reassert() {
            self.wake();
        }
        if self.trust == Trust::Full {
            return None;
        }
        let sensible = match self.blind {
            true => self.lane.tx().producer().is_ok() && self.lane.rx().consumer().is_ok(),
            false => self.tx.room_slots().is_ok() && self.rx.backlog_slots().is_ok(),
        };
        let news = self.trust.look(now, sensible, self.lane.is_given_up());
        match news {
            Some(News::Accuse) => self.lane.give_up(self.tx.seen_consumed()),
            Some(News::Healed | News::Mended) if self.blind || news == Some(News::Mended) => {
                self.blind = !self.attach_ends();
                if self.blind {
                    self.trust.doubt();
                    return None;
                }
                // A driver may yet publish again what its predecessor had published and a former shadow delivered.
                let next = self.rx.committed().frames;
                self.replay_before.get_or_insert_with(|| next.wrapping_add(LANE_SLOTS));
            }
            _ => {}
        }
        self.lane.set_doubted(!self.is_trusted());
        news
    }

    /// The driver whose index made no sense.
    pub fn accused_epoch(&self) -> u64 {
        self.accused_epoch
    }

    /// Tells the driver to wake us for what comes from now on, and for room if a guest waits for it. What is there
    /// already; none if the lane cannot be used.
    ///
    /// # Errors
    /// [`Error::Lane`], but for an index that makes no sense.
    pub fn prepare_sleep(&mut self) -> Result<Option<Ready>, Error> {
        if !self.is_trusted() {
            return Ok(None);
        }
        match self.try_prepare_sleep() {
            Err(error) if error.is_nonsense() => {
                self.doubt(&error);
                Ok(None)
            }
            ready => Ok(Some(ready?)),
        }
    }

    fn try_prepare_sleep(&mut self) -> Result<Ready, LaneError> {
        let received = !self.rx.prepare_sleep()?;
        let room = self.wanted > 0 && !self.tx.prepare_sleep(self.wanted.max(ROOM_SLOTS))?;
        if room {
            self.wanted = 0;
        }
        Ok(Ready { received, room })
    }

    /// Which driver serves the lane.
    pub fn epoch(&self) -> u64 {
        self.lane.words().epoch()
    }

    /// Counts frames from the wire that were not what the driver wrote, since this was asked last: how many, and whether
    /// there are so many that the driver rather than the memory is at fault.
    pub fn take_damaged(&mut self) -> Option<(u32, bool)> {
        let damaged = self.rx.take_damaged();
        if damaged == 0 {
            return None;
        }
        self.lane.add_rx_damaged(damaged.into());
        if std::mem::replace(&mut self.epoch, self.lane.words().epoch()) != self.epoch {
            self.damaged = 0;
        }
        self.damaged = self.damaged.saturating_add(damaged);
        Some((damaged, self.damaged > DAMAGED_MAX))
    }

    /// May a former shadow have delivered this frame?
    pub fn is_replay(&self, frame: &Frame) -> bool {
        self.replay_before.is_some_and(|end| end.wrapping_sub(frame.number()) <= LANE_SLOTS)
    }

    /// Shows the driver what was staged, and takes off what was passed; wakes it if it sleeps. True if there was
    /// something to show.
    pub fn commit(&mut self) -> bool {
        self.looked = false;
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

/// Slots of a lane that a frame takes at most, in segments if it is to be cut.
fn slots_needed(length_bytes: usize, cut: Option<Gso>) -> u32 {
    let frames = cut.map_or(1, |gso| length_bytes.div_ceil(usize::from(gso.size_bytes).max(1)));
    let each = if cut.is_some() { UPLINK_FRAME_BYTES_MAX } else { length_bytes };
    u32::try_from(frames * each.div_ceil(SLOT_BYTES)).unwrap_or(u32::MAX)
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
