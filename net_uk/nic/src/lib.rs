//! Network cards whose state in the kernel outlives their driver.
//!
//! What must outlive the driver is split from what may die with it. [`Held`] is a set of descriptors: a process that does
//! nothing else opens them and keeps them, so that the kernel's queues stay. A *port* ([`packet::PacketPort`], …) is what
//! a driver builds on (duplicates of) them: it maps the kernel's rings, finds out where the driver before it died,
//! finishes or repeats that step, and goes on. There is one driver at a time: a successor starts after its predecessor
//! was waited for.
//!
//! A frame is handed over by one store or one system call. The order is always: effect, commit, consequences. A port
//! finds after a death between effect and commit that the effect took place, and commits then.

#![allow(unsafe_code)]

mod error;
pub mod headers;
mod held;
pub mod limits;
mod mapping;
mod nic;
pub mod packet;
mod place;
mod spec;
mod step;
mod sys;
pub mod tap;
mod vnet;
pub mod xdp;

pub use error::{NicError, Result};
pub use held::Held;
pub use nic::{Counters, Done, Kick, Link, Nic};
pub use spec::{NicKind, NicSpec, XdpMode, XdpOptions, ZeroCopy};
pub use step::{Step, Steps, Straight};
