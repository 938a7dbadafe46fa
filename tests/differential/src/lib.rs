//! The same random requests to our store, to xenstored and to oxenstored, and a comparison of all that they answer.
//!
//! A seed makes a sequence of operations of two socket clients and three guests ([`generate`]). Each daemon, freshly
//! started, gets the sequence on its own; after every operation each client takes its events ([`Session`]). What our
//! store did otherwise than a stock one must be what a rule of [`rules`] names; `docs/DIFFERENCES.md` gives the
//! reason for each. Anything else is a finding: the sequence is shortened as far as it stays one.
#![forbid(unsafe_code)]

mod compare;
mod execute;
mod generate;
pub mod limits;
mod op;
mod random;
pub mod rules;
mod shrink;

pub use compare::{Difference, Verdict, compare};
pub use execute::{Error, Observation, Outcome, Profile, Session, run_all};
pub use generate::generate;
pub use op::{Client, Lifecycle, Op, TxRef, What};
pub use random::Random;
pub use shrink::shrink;
