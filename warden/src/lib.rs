//! The warden: starts, watches, promotes and restarts the services.
//!
//! [`planner`] decides and does nothing; [`keeper`] does and decides nothing.
#![forbid(unsafe_code)]

pub mod event;
pub mod ids;
pub mod limits;
pub mod planner;
