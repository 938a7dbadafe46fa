//! The replicated log in etcd.
//!
//! [`EtcdLog`] is the synchronous face that the store's replicas use. Behind it, the pure state machine `core::Core`
//! decides what to ask of etcd and what the answers mean, and a driver with a tokio runtime on a thread of its own (or
//! on the caller's runtime, [`EtcdLog::on_runtime`]) asks. Leases play no part: who is dead is for the warden to
//! find, etcd only fences.
#![forbid(unsafe_code)]

mod batch;
mod call;
mod channel;
mod convert;
mod core;
mod driver;
mod engine;
mod error;
mod keys;
mod leader;
pub mod limits;
mod manifest;
mod options;
mod version;

pub use channel::{Connector, Tcp, endpoints};
pub use engine::EtcdLog;
pub use error::EtcdError;
pub use options::EtcdOptions;
pub use version::repaired_in;
