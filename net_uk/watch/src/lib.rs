//! What keeps the network service alive, as pure functions of state, input and time: no clock and no I/O.
//!
//! - [`detector`] judges one watched process (a NIC driver or the shadow) from samples.
//! - [`ladder`] plans the recovery from what the detectors say.
//! - [`ledger`] tells from counters and numbered frames what was lost, duplicated or reordered, and where.
#![forbid(unsafe_code)]

pub mod detector;
mod error;
pub mod ladder;
pub mod ledger;
pub mod limits;
mod since;
mod time;
mod widen;

pub use error::{Result, WatchError};
pub use since::Since;
pub use time::TimeNs;
pub use widen::Widened;
