//! The network backend: a shadow that guests see, a driver for each network card, and a keeper that holds all descriptors
//! and replaces whoever dies.
#![forbid(unsafe_code)]

pub mod bare;
pub mod driver;
mod error;
pub mod events;
pub mod fate;
pub mod keeper;
pub mod limits;
mod poller;
pub mod shadow;
pub mod state;
mod wire;

pub use error::Error;
