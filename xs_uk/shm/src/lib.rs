//! Shared-memory regions, connection slots and the system calls that fill them.
//!
//! What one process writes here its successor reads, at whatever instruction the writer was killed. So each step ends in
//! one aligned store that makes it count, and whatever was written before that store is ignored without it.
//!
//! This crate holds the store's unsafe code: mapping, raw copies, `recvmmsg`, `sendmmsg`,
//! `sched_setscheduler` and [`split`].
#![allow(unsafe_code)]

mod board;
mod consult;
pub mod limits;
mod roots;
pub mod sched;
mod slot;
mod split;
mod table;

pub use board::{Board, GatewayStatus, ReplicaStatus, ReplicaWords};
pub use consult::{Consult, Question};
pub use hypervisor::{Region, RegionError};
pub use roots::{ROOT_BYTES, Roots};
pub use slot::{Kind, Received, Record, Sent, Slot, SlotError};
pub use split::{Split, SplitError, duplicate, split};
pub use table::{SlotId, SlotState, Table};
