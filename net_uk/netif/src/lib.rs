//! The core of a backend for Xen's network interface (`xen/include/public/io/netif.h`). No I/O, no clock.
//!
//! - [`ring`]: layout of the shared pages; [`TxRing`] and [`RxRing`]: the backend's side of them;
//! - [`checksum`] and [`segment`]: what a frame needs that a guest left unfinished;
//! - [`features`]: the keys in the store; [`handshake`]: the states in the store;
//! - [`model`]: frontends that behave as Linux's, for tests.
//!
//! The guest is hostile: it can change its pages at any time and write anything into the store. Each slot is copied
//! once and only the copy is looked at. A fault is one of two kinds: [`PacketFault`] is about one packet, which is
//! answered with an error; [`RingFault`] is about the ring, and disables this interface of this guest and nothing else.
//!
//! # Crashes
//! A response lies in the slot of its request. So a backend that dies between writing responses and storing `rsp_prod`
//! would leave requests that nobody can read any more. [`TxRing::publish_logged`] and [`RxRing::publish_logged`] hand
//! the responses out before the page is touched, and `redo` of a successor completes what was begun; then `rsp_prod`
//! tells all there is to know.
#![forbid(unsafe_code)]

mod back;
pub mod checksum;
mod error;
pub mod features;
#[cfg(test)]
mod frames;
pub mod handshake;
mod index;
mod layout;
pub mod limits;
mod mac;
pub mod model;
mod offload;
pub mod ring;
mod rx;
pub mod segment;
mod stall;
mod tx;

pub use back::Redo;
pub use error::{FrameFault, PacketFault, RingFault};
pub use index::Index;
pub use layout::{IpVersion, Layout, Transport};
pub use mac::{MacAddr, MacError};
pub use offload::{Checksum, FrameMeta, Gso, GsoKind};
pub use rx::{RxPart, RxPlan, RxRing, RxStatus};
pub use stall::{StallChange, StallClock};
pub use tx::{Multicast, TxPacket, TxPart, TxRing, TxStatus};
