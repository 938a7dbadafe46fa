//! The warden: starts, watches, promotes and restarts the services.
//!
//! [`planner`] decides and does nothing; [`keeper`] does and decides nothing; [`Warden`] joins them and serves gRPC.
//!
//! ```no_run
//! # async fn example(spec: warden::WardenSpec) -> Result<(), warden::Error> {
//! let warden = warden::Warden::new(spec)?;
//! let mut handle = warden.handle();
//! tokio::spawn(async move {
//!     if handle.wait_serving().await {
//!         // Tell systemd, write the pid file, release the parent.
//!     }
//! });
//! warden.run().await
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod engine;
mod error;
pub mod event;
pub mod flip;
mod http;
pub mod ids;
pub mod journal;
mod keeper;
pub mod limits;
pub mod logging;
pub mod metrics;
pub mod planner;
pub mod pulse;
mod rate;
pub mod respawn;
mod rundir;
pub mod server;
mod spec;
pub mod state;
pub mod status;
mod warden;

pub use error::Error;
pub use rundir::RunDir;
pub use spec::{GroupSpec, RegionSpec, ServiceSpec, WardenSpec, bind_listener, store_group};
pub use warden::{Handle, Warden};

/// Each client that is kept for the gateway takes a descriptor, also while it is on its way.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of descriptors stays");
    }
}
