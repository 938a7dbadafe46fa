//! The xenstore as a pure, replicated state machine.
//!
//! [`Store::apply`] feeds it log entries; with the same entries every replica reaches the same state and the
//! same outboxes. [`Store::read`] answers requests that change nothing. There is no I/O, clock or randomness here.
//!
//! Behaviour follows Xen's C xenstored; see `docs/misc/xenstore.txt` for the protocol.
#![forbid(unsafe_code)]

mod audit;
mod children;
pub mod config;
mod connection;
mod control;
mod damage;
mod domain;
mod effect;
pub mod entry;
mod error;
mod examine;
mod facts;
mod fairness;
mod frame;
mod garbage;
mod handle;
pub mod limits;
mod locate;
mod manage;
mod mend;
mod node;
mod ops;
mod outbox;
mod radix;
mod retain;
mod route;
mod scrub;
mod seal;
mod snapshot;
mod store;
mod strangers;
mod transact;
mod transaction;
mod tree;
mod twin;
mod watch;
mod weight;

pub use config::{Config, Quota, Quotas};
pub use damage::{Damage, Part};
pub use domain::{DomainInfo, Usage};
pub use effect::Effect;
pub use entry::{ConnId, Entry, EntryRef, Peer};
pub use error::StoreError;
pub use mend::NodeCopy;
pub use outbox::Kind;
pub use route::Route;
pub use scrub::{ScrubPlace, ScrubReport};
pub use store::Store;
pub use xs_protocol::DomId;

#[cfg(test)]
mod tests;
