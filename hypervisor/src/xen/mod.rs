//! Xen, through the devices of Linux.
//!
//! Sources: `include/uapi/xen/{evtchn,gntdev,privcmd}.h` of Linux, `xen/include/public/{domctl,sysctl}.h` of Xen.

mod copy;
mod events;
mod grants;
mod hypercall;
mod info;
mod sys;

use std::os::fd::OwnedFd;
use std::path::Path;

use crate::{BackendHost, DomainInfo, Host, Result};

/// Are the devices of a Xen host there?
pub fn devices_exist() -> bool {
    Path::new(sys::EVTCHN_PATH).exists() && Path::new(sys::PRIVCMD_PATH).exists()
}

pub(crate) fn open() -> Result<Host> {
    host(open_backend(None)?)
}

pub(crate) fn adopt(handles: Vec<OwnedFd>) -> Result<Host> {
    host(open_backend(Some(handles))?)
}

/// The part that needs no privileges, with a handle that another process kept or a fresh one.
pub(crate) fn open_backend(handles: Option<Vec<OwnedFd>>) -> Result<BackendHost> {
    let events = match handles {
        Some(handles) => events::XenEvents::adopt(handles)?,
        None => events::XenEvents::open()?,
    };
    Ok(BackendHost { events: Box::new(events), grants: Box::new(copy::XenGrants::open()?) })
}

fn host(backend: BackendHost) -> Result<Host> {
    let BackendHost { events, grants } = backend;
    let pages = Box::new(grants::XenPages::open()?);
    let domains: Box<dyn DomainInfo> = Box::new(info::XenDomains::open()?);
    Ok(Host { events, pages, grants, domains })
}
