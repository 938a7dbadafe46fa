//! A learning Ethernet switch between guests' interfaces (vifs) and NICs. Pure: no clock and no I/O.
//!
//! - It does not look at VLAN tags, and never sends a frame back to the port that it came from.
//! - A guest cannot push out what was learned of others: each port has addresses of its own, up to a bound. Nor can it take
//!   an address from another port, unless its port is allowed to.
//! - Frames do not go from NIC to NIC, so two NICs in one network make no loop.
//! - Frames to the addresses that IEEE 802.1Q reserves for the link itself (pause frames among them) go nowhere.
//! - What is forwarded is decided without allocation.
#![forbid(unsafe_code)]

mod addresses;
mod counters;
mod error;
pub mod limits;
mod mac;
mod port;
mod ports;
mod switch;
#[cfg(test)]
mod tests;
mod time;

pub use counters::{Counters, DropReason};
pub use error::{Result, SwitchError};
pub use mac::MacAddress;
pub use port::{PortConfig, PortId, PortKind};
pub use ports::{PortSet, PortSetIter};
pub use switch::{Forward, Switch, is_for_group};
pub use time::TimeNs;
