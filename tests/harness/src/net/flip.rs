//! A bit flips in memory that a process shares with others.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use anyhow::Context;
use hypervisor::Region;

use super::args::NetTarget;
use super::faults::Fault;

/// The page of a lane before its rings, and the header of each of them.
const LANE_HEADER_BYTES: usize = lane::limits::LANE_HEADER_BYTES;
const RING_HEADER_BYTES: usize = lane::limits::RING_HEADER_BYTES;

/// Flips one: of a driver somewhere in its lane, of a shadow somewhere in its state.
pub fn flip(fault: Fault, pid: u32, rng: &mut fastrand::Rng) -> anyhow::Result<()> {
    let of_driver = fault.target == NetTarget::Driver;
    let name = if of_driver { "/memfd:net-lane" } else { "/memfd:net-state" };
    let region = Region::open(open_memory(pid, name)?, 1)?;
    let bytes = region.length_bytes();
    let at = if of_driver { in_lane(bytes, rng) } else { in_state(bytes, rng) };
    region.u64(at & !7).fetch_xor(1 << rng.u32(0..64), Ordering::SeqCst);
    Ok(())
}

fn open_memory(pid: u32, name: &str) -> anyhow::Result<OwnedFd> {
    let path = memory_of(pid, name)?.with_context(|| format!("process {pid} has no {name}"))?;
    Ok(File::options().read(true).write(true).open(path)?.into())
}

fn memory_of(pid: u32, name: &str) -> anyhow::Result<Option<PathBuf>> {
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        let path = entry?.path();
        if std::fs::read_link(&path).is_ok_and(|target| target.to_string_lossy().starts_with(name)) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// The words that everything hangs on are few: they are hit as often as all the rest.
fn in_lane(bytes: usize, rng: &mut fastrand::Rng) -> usize {
    let ring_bytes = (bytes - LANE_HEADER_BYTES) / 2;
    let ring = LANE_HEADER_BYTES + if rng.bool() { ring_bytes } else { 0 };
    match rng.u32(0..4) {
        0 => rng.usize(0..LANE_HEADER_BYTES),
        1 => ring + rng.usize(0..RING_HEADER_BYTES),
        // Descriptors and the buffers behind them.
        2 => ring + RING_HEADER_BYTES + rng.usize(0..64 * 1024),
        _ => ring + rng.usize(0..ring_bytes),
    }
}

/// The places of the first interfaces, which are in use.
fn in_state(bytes: usize, rng: &mut fastrand::Rng) -> usize {
    match rng.u32(0..3) {
        0 => rng.usize(0..4 * 4096),
        1 => rng.usize(0..256 * 1024),
        _ => rng.usize(0..bytes / 16),
    }
}
