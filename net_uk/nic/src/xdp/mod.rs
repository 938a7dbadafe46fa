//! Network cards reached over `AF_XDP`: rings shared with the kernel's driver of the device.
//!
//! What outlives a driver is held by others: the sockets (and with them the kernel's rings), the memory of the frames, the
//! map that says which queue's frames go to which socket, and the link that attaches the program which does so. There is one
//! socket for each queue to receive on, and one more on the first queue to send on. It is apart, so that whoever polls the
//! others sends nothing: the kernel sends from within `poll` too, and would drop what it sends without a carrier.
//!
//! Facts on which the recovery rests, each exercised by a test:
//!
//! - The four rings' indices lie in memory of the kernel's and stay. A successor maps them again (Linux 6.4 and later).
//! - Each frame's memory is always in one place: with the kernel, in the ring of received frames, or given back. So with
//!   `n` frames of memory, `produced of the fill ring == n + consumed of the receive ring` holds whenever nothing is left
//!   undone; between the two stores that give frames back it is off by that batch, which a successor finishes.
//! - The index of the ring towards the device says how much was handed over, even if the kernel took it off since. Its slot
//!   `i` always uses the same memory, so nothing needs to be found again but whether that memory's last frame was sent.
//! - What the lane's and the kernel's indices are to be after a batch is noted down in one word before
//!   the store that commits. So frames that come to nothing need no slot, and several queues can share a lane.
//!
//! The kernel hands over raw frames, without what else it knows of them: see [`XdpHeld::open`] for tags and joined segments,
//! and [`crate::headers::is_checksum_blank`] for checksums that are still to be completed.

mod book;
mod bpf;
mod carry;
mod handed;
mod held;
#[cfg(test)]
mod model_tests;
mod port;
mod ring;
mod rx;
mod system;
mod tx;

pub use held::XdpHeld;
pub use port::XdpPort;
