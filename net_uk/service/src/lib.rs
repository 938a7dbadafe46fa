//! The network backend: a shadow that guests see, a driver for each network card, a keeper that replaces whoever
//! dies, and two vaults that hold all descriptors for the next keeper.
#![forbid(unsafe_code)]

pub mod bare;
pub mod desk;
pub mod driver;
mod error;
pub mod events;
pub mod fate;
mod instance;
pub mod keeper;
pub mod limits;
pub mod logging;
mod poller;
mod process;
mod rpc;
pub mod shadow;
pub mod state;
pub mod vault;
mod wire;

pub use error::Error;
