//! A lane: both directions between the shadow and one driver.
//!
//! ```text
//!    0  magic u64, version u32, slots of tx u32, slots of rx u32
//!  128  the driver's words: heartbeat u64, state u32, epoch u64 (at 144), looks at the card u64
//!  256  what drivers counted: frames and bytes towards the wire, frames and bytes from it, damaged frames,
//!       frames without room, refused ones from the wire and towards it; u64 each
//!  384  the network card's words, 16 of u64, three times
//! 1024  the shadow's words: given up u64, the driver's last index towards the wire that made sense u64, damaged frames
//!       from the wire u64, doubted u64
//! 1152  how often drivers mended the lane u64
//! 4096  the ring tx: from the shadow to the driver
//!    …  the ring rx: from the driver to the shadow
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hypervisor::Region;

use crate::cursor::Cursor;
use crate::error::LaneError;
use crate::limits::{LANE_HEADER_BYTES, VERSION};
use crate::ring::FrameRing;
use crate::words::DriverWords;

const MAGIC: u64 = u64::from_le_bytes(*b"ppvmlane");
const VERSION_AT: usize = 8;
const TX_SLOTS_AT: usize = 12;
const RX_SLOTS_AT: usize = 16;
/// The shadow's words.
const BROKEN_AT: usize = 1024;
const SEEN_CONSUMED_AT: usize = 1032;
const RX_DAMAGED_AT: usize = 1040;
const DOUBTED_AT: usize = 1048;
/// How often a driver mended the lane: the driver's word.
const MENDS_AT: usize = 1152;

/// Both directions between the shadow and one driver, and the driver's words.
#[derive(Debug, Clone)]
pub struct Lane {
    region: Arc<Region>,
    tx: FrameRing,
    rx: FrameRing,
}

impl Lane {
    /// Bytes of a lane whose rings have so many slots.
    pub const fn bytes(tx_slots: u32, rx_slots: u32) -> usize {
        LANE_HEADER_BYTES + FrameRing::bytes(tx_slots) + FrameRing::bytes(rx_slots)
    }

    /// Makes an empty lane in zeroed memory.
    ///
    /// # Errors
    /// [`LaneError::Slots`], [`LaneError::Bounds`].
    pub fn create(region: Arc<Region>, tx_slots: u32, rx_slots: u32) -> Result<Self, LaneError> {
        let tx = FrameRing::create(region.clone(), LANE_HEADER_BYTES, tx_slots)?;
        let rx = FrameRing::create(region.clone(), LANE_HEADER_BYTES + FrameRing::bytes(tx_slots), rx_slots)?;
        let lane = Self { region, tx, rx };
        lane.refresh();
        Ok(lane)
    }

    /// Writes again what never changes: whoever holds the lane does that before another process attaches to it.
    pub fn refresh(&self) {
        self.tx.refresh();
        self.rx.refresh();
        self.region.u32(VERSION_AT).store(VERSION, Ordering::Relaxed);
        self.region.u32(TX_SLOTS_AT).store(self.tx.slots(), Ordering::Relaxed);
        self.region.u32(RX_SLOTS_AT).store(self.rx.slots(), Ordering::Relaxed);
        self.region.u64(0).store(MAGIC, Ordering::Release);
    }

    /// The shadow gives the lane up until another driver has mended it: the driver's indices make no sense and stay so.
    /// `seen_consumed` is the driver's last one towards the wire that did.
    pub fn give_up(&self, seen_consumed: Cursor) {
        if !self.is_given_up() {
            self.word(SEEN_CONSUMED_AT).store(seen_consumed.word(), Ordering::Relaxed);
            self.word(BROKEN_AT).store(1, Ordering::Release);
        }
    }

    /// Whether the shadow waits for a driver that mends the lane.
    pub fn is_given_up(&self) -> bool {
        self.word(BROKEN_AT).load(Ordering::Acquire) != 0
    }

    /// The shadow says whether it leaves the lane alone, because something there makes no sense.
    pub fn set_doubted(&self, doubted: bool) {
        self.word(DOUBTED_AT).store(doubted.into(), Ordering::Release);
    }

    /// Whether the shadow leaves the lane alone.
    pub fn is_doubted(&self) -> bool {
        self.word(DOUBTED_AT).load(Ordering::Acquire) != 0 || self.is_given_up()
    }

    /// A new driver sets its predecessor's indices, if the shadow gave the lane up, and says whether that was so. The
    /// predecessor must be dead. `handed` says of each direction (towards the wire, from it) which frame comes next, if the
    /// network card's rings tell; else what the shadow knows must do.
    pub fn mend(&self, handed: [Option<u32>; 2]) -> bool {
        if !self.is_given_up() {
            return false;
        }
        let [tx, rx] = handed;
        let seen = Cursor::from_word(self.word(SEEN_CONSUMED_AT).load(Ordering::Relaxed));
        let sane =
            |produced, consumed, ring: &FrameRing| Cursor::used(produced, consumed, ring.slots()).is_ok();
        // A card that tells nothing: what makes sense stays.
        let consumed = tx.map_or_else(|| Some(self.tx.consumed()), |next| self.tx.before(next));
        let consumed = consumed.filter(|consumed| sane(self.tx.produced(), *consumed, &self.tx));
        self.tx.take_off(consumed.unwrap_or(seen));
        let produced = rx.map_or_else(|| Some(self.rx.produced()), |next| self.rx.before(next));
        let produced = produced.filter(|produced| sane(*produced, self.rx.consumed(), &self.rx));
        self.rx.publish(produced.unwrap_or_else(|| self.rx.consumed()));
        self.word(MENDS_AT).fetch_add(1, Ordering::Relaxed);
        self.word(BROKEN_AT).store(0, Ordering::Release);
        true
    }

    /// How often the lane was mended.
    pub fn mends(&self) -> u64 {
        self.word(MENDS_AT).load(Ordering::Relaxed)
    }

    /// The shadow counts frames from the wire that were not what the driver had written.
    pub fn add_rx_damaged(&self, frames: u64) {
        let word = self.word(RX_DAMAGED_AT);
        word.store(word.load(Ordering::Relaxed).wrapping_add(frames), Ordering::Relaxed);
    }

    /// How many there were.
    pub fn rx_damaged(&self) -> u64 {
        self.word(RX_DAMAGED_AT).load(Ordering::Relaxed)
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        self.region.u64(offset)
    }

    /// Finds the lane that another process made.
    ///
    /// # Errors
    /// [`LaneError::Magic`], [`LaneError::Version`], [`LaneError::Slots`], [`LaneError::Bounds`].
    pub fn attach(region: Arc<Region>) -> Result<Self, LaneError> {
        let have_bytes = region.length_bytes();
        if have_bytes < LANE_HEADER_BYTES {
            return Err(LaneError::Bounds { offset: 0, need_bytes: LANE_HEADER_BYTES, have_bytes });
        }
        let have = region.u64(0).load(Ordering::Acquire);
        if have != MAGIC {
            return Err(LaneError::Magic { have });
        }
        let have = region.u32(VERSION_AT).load(Ordering::Relaxed);
        if have != VERSION {
            return Err(LaneError::Version { have, need: VERSION });
        }
        let tx_slots = region.u32(TX_SLOTS_AT).load(Ordering::Relaxed);
        let rx_slots = region.u32(RX_SLOTS_AT).load(Ordering::Relaxed);
        let tx = FrameRing::attach(region.clone(), LANE_HEADER_BYTES)?;
        expect_slots(&tx, tx_slots)?;
        let rx = FrameRing::attach(region.clone(), LANE_HEADER_BYTES + FrameRing::bytes(tx_slots))?;
        expect_slots(&rx, rx_slots)?;
        Ok(Self { region, tx, rx })
    }

    /// The ring towards the wire: the shadow produces, the driver consumes.
    pub fn tx(&self) -> &FrameRing {
        &self.tx
    }

    /// The ring from the wire: the driver produces, the shadow consumes.
    pub fn rx(&self) -> &FrameRing {
        &self.rx
    }

    /// The driver's words.
    pub fn words(&self) -> DriverWords {
        DriverWords::new(self.region.clone())
    }

    /// The memory that it lies in.
    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }
}

fn expect_slots(ring: &FrameRing, slots: u32) -> Result<(), LaneError> {
    match ring.slots() == slots {
        true => Ok(()),
        false => Err(LaneError::Slots { slots, slot_bytes: 0 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::Damage;
    use crate::testing::label;

    fn memory(bytes: usize) -> Arc<Region> {
        Arc::new(Region::create("lane", bytes).unwrap())
    }

    #[test]
    fn a_second_process_finds_everything() {
        let memory = memory(Lane::bytes(64, 128));
        let lane = Lane::create(memory.clone(), 64, 128).unwrap();
        lane.tx().producer().unwrap().push(b"tx", &label(1, 1)).unwrap();
        lane.rx().producer().unwrap().push(b"rx", &label(2, 1)).unwrap();
        lane.words().set_nic(15, 9);
        let other = Lane::attach(memory).unwrap();
        for (ring, slots, bytes) in [(other.tx(), 64, b"tx"), (other.rx(), 128, b"rx")] {
            let mut consumer = ring.consumer().unwrap();
            let frame = consumer.peek().unwrap().unwrap();
            assert_eq!((ring.slots(), &consumer.bytes_of(&frame)[..]), (slots, &bytes[..]));
        }
        assert_eq!(other.words().nic(15), 9);
    }

    #[test]
    fn a_lane_that_was_given_up_is_mended_by_the_next_driver() {
        let lane = Lane::create(memory(Lane::bytes(64, 64)), 64, 64).unwrap();
        let (mut shadow_tx, mut shadow_rx) = (lane.tx().producer().unwrap(), lane.rx().consumer().unwrap());
        let (mut tx, mut rx) = (lane.tx().consumer().unwrap(), lane.rx().producer().unwrap());
        for seq in 0..3 {
            shadow_tx.push(b"tx", &label(1, seq)).unwrap();
            rx.push(b"rx", &label(2, seq)).unwrap();
        }
        let frame = tx.peek().unwrap().unwrap();
        tx.release(&frame);
        assert_eq!(shadow_tx.room_slots(), Ok(62));
        let frame = shadow_rx.peek().unwrap().unwrap();
        shadow_rx.release(&frame);
        lane.tx().damage(Damage::TakenTooMuch);
        lane.rx().damage(Damage::PublishedTooMuch);
        assert!(shadow_tx.room_slots().is_err() && lane.rx().consumer().is_err());
        assert!(!lane.mend([None; 2]));
        lane.give_up(shadow_tx.seen_consumed());
        // Another shadow, to which the same happens, knows less.
        lane.give_up(Cursor::default());
        assert!(lane.is_doubted() && lane.mend([None; 2]) && !lane.is_doubted());
        assert_eq!(lane.mends(), 1);
        let frame = lane.tx().consumer().unwrap().peek().unwrap().unwrap();
        assert_eq!(frame.meta().seq, 1);
        assert_eq!(lane.rx().producer().unwrap().published(), shadow_rx.committed());
    }

    #[test]
    fn a_lane_is_mended_to_where_the_network_card_says_that_it_is() {
        let lane = Lane::create(memory(Lane::bytes(64, 64)), 64, 64).unwrap();
        let mut shadow_tx = lane.tx().producer().unwrap();
        let mut rx = lane.rx().producer().unwrap();
        for seq in 0..5 {
            shadow_tx.push(&[1; 5000], &label(1, seq)).unwrap();
            rx.push(&[2; 3000], &label(2, seq)).unwrap();
        }
        lane.give_up(Cursor::default());
        lane.tx().damage(Damage::TakenTooMuch);
        lane.rx().damage(Damage::PublishedTooMuch);
        assert!(lane.mend([Some(2), Some(4)]));
        assert_eq!(lane.tx().consumed(), Cursor { frames: 2, slots: 6 });
        assert_eq!(lane.rx().produced(), Cursor { frames: 4, slots: 8 });
        // What the card says and the ring does not bear out does not count.
        lane.give_up(Cursor { frames: 2, slots: 6 });
        lane.rx().consumer().unwrap();
        assert!(lane.mend([Some(9), Some(77)]));
        assert_eq!(lane.tx().consumed(), Cursor { frames: 2, slots: 6 });
        assert_eq!(lane.rx().produced(), lane.rx().consumed());
    }

    #[test]
    fn what_never_changes_can_be_written_again() {
        let lane = Lane::create(memory(Lane::bytes(64, 128)), 64, 128).unwrap();
        for at in [0, 8, 16, 4096, 4096 + 8, 4096 + 16] {
            lane.region().u64(at).fetch_xor(1 << 9, Ordering::Relaxed);
            assert!(Lane::attach(lane.region().clone()).is_err());
            lane.refresh();
            assert!(Lane::attach(lane.region().clone()).is_ok());
        }
    }

    #[test]
    fn another_layout_is_refused() {
        let memory = memory(Lane::bytes(64, 64));
        let attach = || Lane::attach(memory.clone()).map(|_| ());
        assert_eq!(attach(), Err(LaneError::Magic { have: 0 }));
        Lane::create(memory.clone(), 64, 64).unwrap();
        assert_eq!(attach(), Ok(()));
        memory.u32(VERSION_AT).store(9, Ordering::Relaxed);
        assert_eq!(attach(), Err(LaneError::Version { have: 9, need: VERSION }));
        memory.u32(VERSION_AT).store(VERSION, Ordering::Relaxed);
        memory.u32(RX_SLOTS_AT).store(128, Ordering::Relaxed);
        assert!(matches!(attach(), Err(LaneError::Slots { slots: 128, .. })));
        memory.u32(TX_SLOTS_AT).store(128, Ordering::Relaxed);
        assert!(matches!(attach(), Err(LaneError::Slots { slots: 128, .. })));
    }

    #[test]
    fn too_little_memory_is_refused() {
        assert!(matches!(Lane::attach(memory(4095)), Err(LaneError::Bounds { .. })));
        assert!(matches!(
            Lane::create(memory(Lane::bytes(64, 64) - 1), 64, 64),
            Err(LaneError::Bounds { .. })
        ));
    }
}
