//! The words with which a driver tells how it is, and in which it keeps what its successor must know.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hypervisor::Region;

use crate::limits::NIC_WORDS;

const HEARTBEAT_AT: usize = 128;
const STATE_AT: usize = 136;
const EPOCH_AT: usize = 144;
const POLLS_AT: usize = 152;
const COUNTS_AT: usize = 256;
const REFUSALS_AT: usize = COUNTS_AT + 40;
const NIC_WORDS_AT: usize = 384;

/// What the driver says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriverState {
    /// No driver has run on this lane.
    Absent,
    /// It sets itself up.
    Starting,
    /// It moves frames.
    Running,
    /// It gave up and is about to end.
    Failed,
    /// Another value: a later version, or nonsense.
    Unknown(u32),
}

impl From<u32> for DriverState {
    fn from(word: u32) -> Self {
        match word {
            0 => Self::Absent,
            1 => Self::Starting,
            2 => Self::Running,
            3 => Self::Failed,
            other => Self::Unknown(other),
        }
    }
}

impl From<DriverState> for u32 {
    fn from(state: DriverState) -> Self {
        match state {
            DriverState::Absent => 0,
            DriverState::Starting => 1,
            DriverState::Running => 2,
            DriverState::Failed => 3,
            DriverState::Unknown(other) => other,
        }
    }
}

/// Frames and bytes that the drivers of a lane moved since it was made. Each is short by what a driver had moved and not
/// yet counted when it died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Frames towards the wire.
    pub tx_frames: u64,
    /// Bytes of them.
    pub tx_bytes: u64,
    /// Frames from the wire.
    pub rx_frames: u64,
    /// Bytes of them.
    pub rx_bytes: u64,
    /// Frames towards the wire that were not what the shadow had written.
    pub tx_damaged: u64,
    /// Frames that arrived and found no room in the kernel, as far as the last driver has told.
    pub rx_dropped: u64,
    /// Frames that arrived and could not be handed on.
    pub rx_refused: u64,
    /// Frames towards the wire that could not be sent.
    pub tx_refused: u64,
}

/// The words of the network card code lie there three times.
const COPY_BYTES: usize = NIC_WORDS * 8;

/// The words. All are the driver's to write, and anybody's to read.
#[derive(Debug, Clone)]
pub struct DriverWords {
    region: Arc<Region>,
}

impl DriverWords {
    pub(crate) fn new(region: Arc<Region>) -> Self {
        Self { region }
    }

    /// Says that the driver's loop turned.
    pub fn beat(&self) {
        self.add(HEARTBEAT_AT, 1);
    }

    /// How often the driver's loop turned.
    pub fn heartbeat(&self) -> u64 {
        self.word(HEARTBEAT_AT).load(Ordering::Relaxed)
    }

    /// Counts a look at the network card.
    pub fn count_poll(&self) {
        self.add(POLLS_AT, 1);
    }

    /// How often the driver looked at the network card.
    pub fn polls(&self) -> u64 {
        self.word(POLLS_AT).load(Ordering::Relaxed)
    }

    /// What the driver says of itself.
    pub fn state(&self) -> DriverState {
        self.region.u32(STATE_AT).load(Ordering::Acquire).into()
    }

    /// Says how the driver is.
    pub fn set_state(&self, state: DriverState) {
        self.region.u32(STATE_AT).store(state.into(), Ordering::Release);
    }

    /// Which driver of this lane it is; each successor has a higher number.
    pub fn epoch(&self) -> u64 {
        self.word(EPOCH_AT).load(Ordering::Acquire)
    }

    /// Sets the number of the driver.
    pub fn set_epoch(&self, epoch: u64) {
        self.word(EPOCH_AT).store(epoch, Ordering::Release);
    }

    /// Counts frames towards the wire.
    pub fn add_tx(&self, frames: u64, bytes: u64) {
        self.add(COUNTS_AT, frames);
        self.add(COUNTS_AT + 8, bytes);
    }

    /// Counts frames from the wire.
    pub fn add_rx(&self, frames: u64, bytes: u64) {
        self.add(COUNTS_AT + 16, frames);
        self.add(COUNTS_AT + 24, bytes);
    }

    /// Counts frames towards the wire that were not what the shadow had written.
    pub fn add_tx_damaged(&self, frames: u64) {
        self.add(COUNTS_AT + 32, frames);
    }

    /// Tells how many frames came to nothing since the lane was made: without room in the kernel, from the wire, towards it.
    pub fn set_refusals(&self, rx_dropped: u64, rx_refused: u64, tx_refused: u64) {
        for (number, count) in [rx_dropped, rx_refused, tx_refused].into_iter().enumerate() {
            self.word(REFUSALS_AT + number * 8).store(count, Ordering::Relaxed);
        }
    }

    /// What was moved.
    pub fn counts(&self) -> Counts {
        let [tx_frames, tx_bytes, rx_frames, rx_bytes, tx_damaged] =
            [0, 8, 16, 24, 32].map(|offset| self.word(COUNTS_AT + offset).load(Ordering::Relaxed));
        let [rx_dropped, rx_refused, tx_refused] =
            [0, 8, 16].map(|offset| self.word(REFUSALS_AT + offset).load(Ordering::Relaxed));
        Counts { tx_frames, tx_bytes, rx_frames, rx_bytes, tx_damaged, rx_dropped, rx_refused, tx_refused }
    }

    /// A word of the network card code, `index` below [`NIC_WORDS`]: what two of its three copies say, bit by bit. A
    /// successor depends on these words, and would not know a flipped bit.
    pub fn nic(&self, index: usize) -> u64 {
        let copy = |number| self.word(nic_word_at(index) + number * COPY_BYTES).load(Ordering::Acquire);
        let (a, b, c) = (copy(0), copy(1), copy(2));
        a & b | a & c | b & c
    }

    /// Sets a word of the network card code, `index` below [`NIC_WORDS`]. It counts from the second copy on.
    pub fn set_nic(&self, index: usize, value: u64) {
        for number in 0..3 {
            self.word(nic_word_at(index) + number * COPY_BYTES).store(value, Ordering::Release);
        }
    }

    /// There is one writer, so nothing needs to be atomic between the load and the store.
    fn add(&self, offset: usize, amount: u64) {
        let word = self.word(offset);
        word.store(word.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        self.region.u64(offset)
    }
}

fn nic_word_at(index: usize) -> usize {
    assert!(index < NIC_WORDS, "network card word {index}");
    NIC_WORDS_AT + index * 8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> DriverWords {
        DriverWords::new(Arc::new(Region::create("words", 4096).unwrap()))
    }

    #[test]
    fn words_keep_what_was_written() {
        let words = words();
        words.beat();
        words.beat();
        words.count_poll();
        words.set_epoch(7);
        words.set_state(DriverState::Running);
        words.add_tx(1, 60);
        words.add_rx(2, 3000);
        for index in 0..NIC_WORDS {
            words.set_nic(index, index as u64 + 100);
        }
        assert_eq!((words.heartbeat(), words.polls(), words.epoch()), (2, 1, 7));
        words.add_tx_damaged(4);
        words.set_refusals(5, 6, 7);
        let counts = Counts {
            tx_frames: 1,
            tx_bytes: 60,
            rx_frames: 2,
            rx_bytes: 3000,
            tx_damaged: 4,
            rx_dropped: 5,
            rx_refused: 6,
            tx_refused: 7,
        };
        assert_eq!(words.counts(), counts);
        assert!((0..NIC_WORDS).all(|index| words.nic(index) == index as u64 + 100));
    }

    #[test]
    fn states_survive_the_word() {
        let words = words();
        assert_eq!(words.state(), DriverState::Absent);
        for word in 0..6 {
            words.set_state(DriverState::from(word));
            assert_eq!(u32::from(words.state()), word);
        }
        assert_eq!(words.state(), DriverState::Unknown(5));
    }

    #[test]
    fn a_flipped_bit_in_a_copy_is_out_voted() {
        let words = words();
        words.set_nic(3, 0x1234_5678_9abc_def0);
        for (copy, bit) in [(0, 5), (1, 40), (2, 63)] {
            words.word(nic_word_at(3) + copy * COPY_BYTES).fetch_xor(1 << bit, Ordering::Relaxed);
        }
        assert_eq!(words.nic(3), 0x1234_5678_9abc_def0);
    }

    #[test]
    #[should_panic(expected = "network card word 16")]
    fn there_are_sixteen_network_card_words() {
        words().nic(NIC_WORDS);
    }
}
