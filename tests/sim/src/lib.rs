//! The store's processes in one simulated world: gateway, replicas, the warden's plan, clients and an in-memory etcd, all
//! chance from one seed.
//!
//! Real are the store, both engines, the slots and the log in shared memory, the protocol, the warden's planner and the
//! etcd client's driver. Simulated are the processes (a host of [`turmoil`] each, which loses its memory when it dies),
//! time, the network and etcd ([`sim_etcd`]). `replica` stands for the daemon's own loop, with a point between any two
//! steps at which a process can be stopped or killed.
//!
//! A run has two phases: while faults happen nothing wrong may be done; when they have stopped everything must
//! recover within a bound. Then each file in `invariants` judges the facts.
//!
//! The crate is a member of the workspace and is built without `--cfg tokio_unstable`: nothing that runs in a world
//! asks tokio for random numbers (each `select!` is biased, and no channel with several waiters is used), and the test
//! of equal traces would show it. So one `cargo test` runs this too, without a second build of everything.
#![forbid(unsafe_code)]

mod client;
mod engine;
mod facts;
mod faults;
mod gateway;
mod invariants;
mod kernel;
pub mod limits;
mod network;
mod options;
mod process;
mod replica;
mod trace;
mod warden_host;
mod world;

pub use invariants::Finding;
pub use options::{Engine, Faults, Mutant, Options};
pub use world::{Report, run};
