//! A linearizability checker for the xenstore: [`check`](check()) takes a [`History`] of what clients asked and heard.
//!
//! Operations whose outcome is not known (the client got no answer) may have taken effect at any time after their call,
//! or never. Histories are kept as JSON lines, so that another checker can give a second opinion.
#![forbid(unsafe_code)]

mod check;
mod history;
pub mod limits;
mod xenstore;

pub use check::{Finding, Verdict, check, check_bounded};
pub use history::{History, HistoryError, Operation};
pub use xenstore::{Nodes, Outcome, Reply, Request, Step};
