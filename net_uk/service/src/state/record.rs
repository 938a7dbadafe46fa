//! The record of a connected interface.
//!
//! ```text
//!  0 stage u32   4 domid u32   8 handle u32   12 flags u32   16 queues u32   20 mac   32 checksum u64
//! 64 + 32 q: tx_gref, rx_gref, tx_port, rx_port, source (u32 each)
//! ```
//! It lies there twice, so that a flipped bit costs no guest its interface.

use std::sync::atomic::Ordering;

use hypervisor::Region;
use twox_hash::XxHash3_64;

use crate::limits::QUEUES_MAX;

const FREE: u32 = 0;
const CONNECTED: u32 = 1;
const CHECKSUM: usize = 32;
const QUEUES: usize = 64;
const QUEUE_BYTES: usize = 32;
const WORDS: usize = 5;
/// Where the second copy is.
const COPY: usize = 1024;

const _: () = assert!(QUEUES + QUEUES_MAX * QUEUE_BYTES <= COPY);

/// One queue of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueRecord {
    /// Grant of the transmit ring.
    pub tx_gref: u32,
    /// Grant of the receive ring.
    pub rx_gref: u32,
    /// Our port for the guest's transmissions.
    pub tx_port: u32,
    /// Our port for the guest's receive slots; the same one if the guest has no two.
    pub rx_port: u32,
    /// Number of this queue as a source of frames; never used twice while frames of the former user may be about.
    pub source: u16,
}

/// A connected interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VifRecord {
    /// The guest.
    pub domid: u16,
    /// Number of the interface in the guest.
    pub handle: u32,
    /// What the guest takes and wants (see `shadow::Wants`).
    pub flags: u32,
    /// The interface's address.
    pub mac: [u8; 6],
    /// Its queues, 1 to [`QUEUES_MAX`].
    pub queues: Vec<QueueRecord>,
}

impl VifRecord {
    pub(super) fn load(region: &Region, base: usize) -> Option<Self> {
        Self::load_copy(region, base).or_else(|| Self::load_copy(region, base + COPY))
    }

    fn load_copy(region: &Region, base: usize) -> Option<Self> {
        if region.u32(base).load(Ordering::Acquire) != CONNECTED {
            return None;
        }
        let word = |at: usize| region.u32(base + at).load(Ordering::Relaxed);
        let count = usize::try_from(word(16)).ok().filter(|count| (1..=QUEUES_MAX).contains(count))?;
        let queue = |number: usize| {
            let at = QUEUES + number * QUEUE_BYTES;
            let source = u16::try_from(word(at + 16)).ok()?;
            let (tx_gref, rx_gref) = (word(at), word(at + 4));
            Some(QueueRecord { tx_gref, rx_gref, tx_port: word(at + 8), rx_port: word(at + 12), source })
        };
        let mut mac = [0; 6];
        region.read(base + 20, &mut mac);
        let queues = (0..count).map(queue).collect::<Option<_>>()?;
        let record =
            Self { domid: u16::try_from(word(4)).ok()?, handle: word(8), flags: word(12), mac, queues };
        let sound = region.u64(base + CHECKSUM).load(Ordering::Relaxed) == record.checksum();
        sound.then_some(record)
    }

    pub(super) fn store(&self, region: &Region, base: usize) {
        self.store_copy(region, base);
        self.store_copy(region, base + COPY);
    }

    fn store_copy(&self, region: &Region, base: usize) {
        assert!((1..=QUEUES_MAX).contains(&self.queues.len()), "queues were counted before");
        let set = |at: usize, value: u32| region.u32(base + at).store(value, Ordering::Relaxed);
        for (at, value) in [(4, self.domid.into()), (8, self.handle), (12, self.flags)] {
            set(at, value);
        }
        set(16, u32::try_from(self.queues.len()).unwrap_or(0));
        region.write(base + 20, &self.mac);
        for (number, queue) in self.queues.iter().enumerate() {
            for (word, value) in queue.words().into_iter().enumerate() {
                set(QUEUES + number * QUEUE_BYTES + 4 * word, value);
            }
        }
        region.u64(base + CHECKSUM).store(self.checksum(), Ordering::Relaxed);
        region.u32(base).store(CONNECTED, Ordering::Release);
    }

    fn checksum(&self) -> u64 {
        let words = [u32::from(self.domid), self.handle, self.flags];
        let words = words.into_iter().chain(self.queues.iter().flat_map(QueueRecord::words));
        let bytes: Vec<u8> = words.flat_map(u32::to_ne_bytes).chain(self.mac).collect();
        XxHash3_64::oneshot(&bytes)
    }
}

impl QueueRecord {
    fn words(&self) -> [u32; WORDS] {
        [self.tx_gref, self.rx_gref, self.tx_port, self.rx_port, self.source.into()]
    }
}

pub(super) fn is_free(region: &Region, base: usize) -> bool {
    [base, base + COPY].into_iter().all(|copy| region.u32(copy).load(Ordering::Acquire) == FREE)
}

/// The first copy last: it is the one that was written first.
pub(super) fn set_free(region: &Region, base: usize) {
    for copy in [base + COPY, base] {
        region.u32(copy).store(FREE, Ordering::Release);
    }
}
