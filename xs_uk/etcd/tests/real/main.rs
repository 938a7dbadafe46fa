//! The engine against real etcd members, with real faults.
//!
//! Goal: under kills, stops, restarts and competing leaders no entry is lost, doubled or reordered, and service comes
//! back by itself. Method: a leader appends numbered entries while members are hurt; then a fresh reader's log is
//! compared with what the leader was given back.

#![expect(clippy::unwrap_used, reason = "in a test, the panic is the report")]

mod copied;
mod faults;
mod rig;
mod secured;
mod snapshots;
mod space;
