//! The network backend with simulated guests and a counted wire, for tests and measurements.
//!
//! ```text
//!  guest (process) --- rings --- keeper, shadow, driver --- veth A | veth B --- endpoint (a thread)
//! ```
//! Guests and endpoints number their frames and put a checksum over them, so whoever receives them knows what is missing,
//! came twice, late or changed. An [`Endpoint`] can also stand where the shadow is: at the other end of a driver's lane.
#![forbid(unsafe_code)]

mod endpoint;
mod error;
mod guest;
mod keeper;
pub mod limits;
mod usage;
mod veth;
mod wire;

pub use endpoint::{Endpoint, EndpointOptions, EndpointReport, Role, Seen};
pub use error::{Error, Result};
pub use guest::{Guest, GuestOptions, GuestReport, Received, Sent};
pub use keeper::{Counts, Keeper, KeeperOptions, Told};
pub use usage::{process_cpu_ns, thread_cpu_ns};
pub use veth::{Veth, in_own_network};
pub use wire::{LaneWire, Look, PacketWire, Wire};
