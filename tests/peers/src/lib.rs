//! Runs the stock store daemons without a hypervisor, and ours, behind one face.
//!
//! [`Peer`] is an unmodified xenstored or oxenstored of Debian's Xen 4.17 over `fakexen.c`, which stands for the Xen
//! libraries; [`Ours`] is this workspace's store in the local profile with its broker. Both are a [`Daemon`]: a
//! socket, domains that come and go, and the guest's end of their rings. So one scenario drives all three.
//!
//! ```no_run
//! use peers::{Daemon, DomainState, Kind, Peer};
//! # fn main() -> peers::Result<()> {
//! let mut store = Peer::start(Kind::Xenstored, "/tmp/peer".as_ref(), &[])?;
//! let domid = hypervisor::DomId(1);
//! let port = store.create_domain(domid)?; // INTRODUCE <domid> 1 <port> through store.socket()
//! let guest = store.attach(domid)?;
//! store.set_state(domid, DomainState::Dying)?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod daemon;
mod error;
mod fakexen;
mod install;
pub mod limits;
mod ours;
mod peer;
mod process;

pub use daemon::{Daemon, DomainState};
pub use error::{Error, Result};
pub use install::Installation;
pub use ours::{Binaries, Ours, beside_us};
pub use peer::{Kind, Peer};
