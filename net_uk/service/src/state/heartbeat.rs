//! Where the shadow shows itself alive.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hypervisor::Region;

const BEATS: usize = 64;
const EPOCH: usize = 72;
const READY: usize = 80;

/// Words in the first page of the state, written by the shadow and read by the keeper.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    region: Arc<Region>,
}

impl Heartbeat {
    pub(super) fn new(region: Arc<Region>) -> Self {
        Self { region }
    }

    /// A shadow begins.
    pub fn begin(&self, epoch: u64) {
        self.set(READY, 0);
        self.set(EPOCH, epoch);
    }

    /// It serves.
    pub fn set_ready(&self) {
        self.set(READY, self.epoch());
    }

    /// The loop turned.
    pub fn beat(&self) {
        self.set(BEATS, self.beats().wrapping_add(1));
    }

    /// How often the loop turned.
    pub fn beats(&self) -> u64 {
        self.region.u64(BEATS).load(Ordering::Relaxed)
    }

    /// Which shadow it is.
    pub fn epoch(&self) -> u64 {
        self.region.u64(EPOCH).load(Ordering::Acquire)
    }

    /// Does that one serve?
    pub fn is_ready(&self) -> bool {
        let ready = self.region.u64(READY).load(Ordering::Acquire);
        ready != 0 && ready == self.epoch()
    }

    fn set(&self, at: usize, value: u64) {
        self.region.u64(at).store(value, Ordering::Release);
    }
}
