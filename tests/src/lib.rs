//! End-to-end, crash and bad-input tests over real processes.
//!
//! The library holds what the tests share: a [`Stand`] (broker and store in a directory of their own), a
//! [`RawClient`] that can say anything to the store, and a [`Killer`] that kills the leader again and again.
#![forbid(unsafe_code)]

mod killer;
pub mod limits;
mod network;
mod pairs;
mod processes;
mod raw;
mod stand;

pub use killer::{Killer, Kills};
pub use network::{in_own_network, may_make_interfaces};
pub use pairs::{PairKiller, Victim};
pub use raw::{Message, RawClient, message};
pub use stand::{Stand, binary, stock};
