//! Domains, event channels, store pages and domain information, on Xen and on a local stand-in.
//!
//! A service opens a [`Host`] by a [`HostSpec`] and never asks which of the two it got:
//!
//! - `xen`: `/dev/xen/evtchn`, `/dev/xen/gntdev`, `/dev/xen/privcmd`, `/proc/xen/xsd_*`;
//! - `local`: the broker process `ppvmm-hv`, which keeps pages in memfds and event channels in shared pages and
//!   eventfds, for simulated guests.
//!
//! Nothing here blocks for long and nothing needs a runtime: all waiting is done by the caller on
//! [`EventChannels::wait_fd`].
#![allow(unsafe_code)]

mod buffer;
mod error;
mod grant;
mod host;
mod ids;
pub mod limits;
pub mod local;
mod mapping;
mod page;
mod region;
pub mod xen;

pub use buffer::Buffer;
pub use error::{Error, Refusal, Result};
pub use grant::{CopyDirection, GrantCopy, GrantStatus, Grants};
pub use host::{BackendHost, DomainInfo, DomainState, EventChannels, Host, HostSpec, Profile, StorePages};
pub use ids::{DomId, GrantRef, Port, Virq};
pub use page::{PAGE_BYTES, Page};
pub use region::{Region, RegionError};
