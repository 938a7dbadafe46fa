//! An etcd in memory, for simulations: behind etcd's own gRPC interface, deterministic, with members that the world
//! may stop, slow down or cut off.
//!
//! - [`state::State`] is the key space: a pure function of the requests applied to it.
//! - [`Cluster`] is the log that several members share; the world tells it who is up and who reaches whom.
//! - [`Member`] serves one member on any transport (TCP, or a simulated network).
//!
//! `tests/differential.rs` compares it with a real etcd, request by request. What is left out (leases, users, locks,
//! hashes, snapshots) is refused with `Unimplemented`.
#![forbid(unsafe_code)]

mod cluster;
mod error;
pub mod limits;
mod member;
mod range;
pub mod state;
mod txn;
mod watch;

pub use cluster::{Cluster, ClusterOptions};
pub use error::EtcdError;
pub use member::Member;
