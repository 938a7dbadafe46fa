//! TAP devices: interfaces of this host whose frames a driver reads and writes.
//!
//! A read takes the frame out of the kernel, and a write delivers it, both before the lane's commit. Whether they came about
//! a successor learns from what the kernel counted of the device ([`notes`]): a frame that was read lies in the lane's memory
//! already, but for its length. Only where those counts cannot be had, because the device was moved to another network
//! namespace, does a death between the two lose a frame (from the device) or double one (towards it).
//!
//! What waits in the kernel stays there as long as someone holds the descriptor.

mod counts;
mod held;
mod notes;
mod port;

pub use held::TapHeld;
pub use port::TapPort;
