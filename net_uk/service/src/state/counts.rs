//! Counts of a queue, which outlive a shadow.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hypervisor::Region;

/// One count, written by the shadow alone.
#[derive(Debug, Clone)]
pub struct Count {
    region: Arc<Region>,
    offset: usize,
}

impl Count {
    /// Adds to it.
    pub fn add(&self, more: u64) {
        let word = self.region.u64(self.offset);
        word.store(word.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.region.u64(self.offset).load(Ordering::Relaxed)
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            ("tx_frames", &self.tx_frames),
            ("tx_bytes", &self.tx_bytes),
            ("tx_errors", &self.tx_errors),
            ("rx_frames", &self.rx_frames),
            ("rx_bytes", &self.rx_bytes),
            ("rx_errors", &self.rx_errors),
            ("rx_overflow", &self.rx_overflow),
        ];
        for (number, (name, count)) in counts.into_iter().enumerate() {
            let space = if number == 0 { "" } else { " " };
            write!(f, "{space}{name}={}", count.get())?;
        }
        Ok(())
    }
}

/// What is counted of a queue.
#[derive(Debug, Clone)]
pub struct Counts {
    /// Frames taken from the guest.
    pub tx_frames: Count,
    /// Their bytes.
    pub tx_bytes: Count,
    /// Frames of the guest answered with an error.
    pub tx_errors: Count,
    /// Frames given to the guest.
    pub rx_frames: Count,
    /// Their bytes.
    pub rx_bytes: Count,
    /// Frames that came to nothing because the guest's pages could not be written.
    pub rx_errors: Count,
    /// Frames for the guest that were dropped because the backlog was full, or could not be finished.
    pub rx_overflow: Count,
}

impl Counts {
    pub(super) fn new(region: &Arc<Region>, base: usize) -> Self {
        let count = |number: usize| Count { region: Arc::clone(region), offset: base + 8 * number };
        Self {
            tx_frames: count(0),
            tx_bytes: count(1),
            tx_errors: count(2),
            rx_frames: count(3),
            rx_bytes: count(4),
            rx_errors: count(5),
            rx_overflow: count(6),
        }
    }
}
