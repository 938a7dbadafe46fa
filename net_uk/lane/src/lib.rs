//! Lanes: rings of Ethernet frames in shared memory, between the network shadow and the driver of one network card.
//!
//! Either process may die between any two stores. Nothing that matters is private to it: a successor attaches to the
//! same memory and goes on. One store publishes a batch of frames ([`Producer::publish`]), one store takes it off
//! ([`Consumer::commit`]); whatever came before that store and was not covered by it never happened.
//!
//! Each ring has one producer and one consumer. They do not trust each other: indices and descriptors of the other side
//! are read once into private memory and checked there.
//!
//! Sleeping: the one about to sleep calls `prepare_sleep` and sleeps only if that says so; the other one calls
//! `needs_wake` after its commit and signals if that says so. `needs_wake` takes the wish away, and the signal may never
//! come if its caller dies right then: a successor signals once, unasked, before anything else.

#![forbid(unsafe_code)]

mod consumer;
mod cursor;
mod descriptor;
mod error;
#[cfg(test)]
mod fate;
mod frame;
mod lane;
pub mod limits;
mod producer;
mod ring;
mod words;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod testing;

pub use consumer::Consumer;
pub use cursor::Cursor;
pub use error::{DescriptorFault, LaneError};
pub use frame::{Frame, FrameFlags, FrameMeta, Piece, Pieces};
pub use lane::Lane;
pub use producer::{Producer, Reservation};
pub use ring::{Damage, FrameRing};
pub use words::{Counts, DriverState, DriverWords};
