//! What the tests share.

use std::sync::Arc;

use hypervisor::Region;

use crate::frame::FrameMeta;
use crate::ring::FrameRing;

/// A ring in memory of its own.
pub(crate) fn ring(slots: u32) -> FrameRing {
    let region = Region::create("ring", FrameRing::bytes(slots)).unwrap();
    FrameRing::create(Arc::new(region), 0, slots).unwrap()
}

pub(crate) fn label(source: u16, seq: u32) -> FrameMeta {
    FrameMeta { source, seq, ..FrameMeta::default() }
}

/// Bytes that tell one frame from another at each place.
pub(crate) fn frame_of(seq: u32, length_bytes: usize) -> Vec<u8> {
    (0u32..)
        .take(length_bytes)
        .map(|at| seq.wrapping_mul(31).wrapping_add(at ^ at >> 8).to_le_bytes()[0])
        .collect()
}
