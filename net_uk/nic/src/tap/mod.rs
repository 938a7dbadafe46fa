//! TAP devices: interfaces of this host whose frames a driver reads and writes.
//!
//! A read takes the frame out of the kernel, and a write delivers it, both before the lane's commit, and nothing in the
//! kernel tells a successor which came about. So a death between the two loses a frame (from the device) or doubles one
//! (towards it), one at most each. The frame goes straight into the lane's memory, so only the store of its length is
//! missing. Where that is too much, connect the host by a pair of virtual interfaces (veth) and a packet socket.
//!
//! What waits in the kernel stays there as long as someone holds the descriptor.

mod held;
mod port;

pub use held::TapHeld;
pub use port::TapPort;
