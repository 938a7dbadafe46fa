//! The xenstore as a pure, replicated state machine.
//!
//! [`Store::apply`] feeds it log entries; with the same entries every replica reaches the same state and the
//! same outboxes. [`Store::read`] answers requests that change nothing. There is no I/O, clock or randomness here.
//!
//! Behaviour follows Xen's C xenstored; see `docs/misc/xenstore.txt` for the protocol.
#![forbid(unsafe_code)]

pub mod config;
mod effect;
pub mod entry;
mod error;
pub mod limits;

pub use config::{Config, Quota, Quotas};
pub use effect::Effect;
pub use entry::{ConnId, Entry, EntryRef, Peer};
pub use error::StoreError;
pub use xs_protocol::DomId;
