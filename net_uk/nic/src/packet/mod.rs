//! Network cards reached over the rings of a packet socket (`TPACKET_V2`).
//!
//! The rings belong to the socket, so they outlive the process that mapped them. Facts about them on which this rests,
//! each exercised by a test:
//!
//! - The kernel goes round each ring slot by slot, in step with the frames of the lane. It never skips a slot of the
//!   transmit ring that is to be sent, and with `PACKET_LOSS` a malformed one is passed by instead of blocking the ring.
//! - It sends only inside `send`, which no driver calls between marking a slot and committing. So a slot that carries the
//!   number of a frame and is marked for sending tells a successor that the frame was handed over.
//! - The padding in the header of a slot is free: the kernel never writes to it while sending, and zeroes it when it
//!   puts a received frame there. A driver keeps the frame's number in it (with the top bit set, so that it is never 0).
//!   A received slot that carries a number was read by someone before.
//! - A device that is up and has no carrier swallows frames; so nothing is sent then.
//! - A frame that the queueing discipline refuses stays in the ring, marked for sending.
//!
//! With offload, a `virtio_net_hdr` stands before each frame in both rings (`PACKET_VNET_HDR`, Linux 4.6 and later).

mod carry;
mod direct;
mod handed;
mod held;
mod port;
mod rings;
mod slots;

pub use direct::DirectPort;
pub use held::PacketHeld;
pub use port::PacketPort;
