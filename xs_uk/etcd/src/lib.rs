//! The replicated log in etcd.
//!
//! [`EtcdLog`] is the synchronous face that the store's replicas use. Behind it, the pure state machine `core::Core`
//! decides what to ask of etcd and what the answers mean, and a driver with a tokio runtime on a thread of its own (or
//! on the caller's runtime, [`EtcdLog::on_runtime`]) asks. Leases play no part: who is dead is for the warden to
//! find, etcd only fences.
//!
//! [`CopiedLog`] keeps the log in shared memory, where an append is committed at once, and copies it to etcd within bounds.
#![forbid(unsafe_code)]

mod batch;
mod call;
mod channel;
mod convert;
mod copied;
mod copier;
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
pub use copied::{CopiedLog, CopyOptions};
pub use engine::EtcdLog;
pub use error::EtcdError;
pub use options::EtcdOptions;
pub use version::repaired_in;
