//! A simulated guest that speaks the xenstore ring protocol as a Linux frontend does.
//!
//! [`Guest`] is a small synchronous client over the ring; [`Frontends`] drives a guest's devices over it as Linux's
//! xenbus does. The binary `sim-guest` is both in a process. [`net`] is a network frontend with real rings, and
//! `sim-net-guest` sends and receives numbered frames over it.
#![forbid(unsafe_code)]

mod error;
mod frontend;
mod guest;
pub mod limits;
mod link;
pub mod net;
mod toolstack;
mod vif;

pub use error::{Error, Result};
pub use frontend::{Class, Device, Driver, Frontends, NoDriver, Step, XenbusState};
pub use guest::{Guest, Tx, WatchEvent};
pub use link::Bell;
pub use toolstack::Toolstack;
pub use vif::Vif;
