//! The warden: starts, watches, promotes and restarts the services.
#![forbid(unsafe_code)]
