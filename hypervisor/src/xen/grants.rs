//! Granted pages by `/dev/xen/gntdev`, store pages above all, and domain 0's own store page by `/proc/xen`.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use super::sys::{self, MapGrantRef, UnmapGrantRef, ioctl};
use crate::mapping::Mapping;
use crate::{DomId, Error, GrantRef, PAGE_BYTES, Page, Port, Result, StorePages};

/// The grant device. Mappings belong to this process and go with it.
#[derive(Debug)]
pub(super) struct XenPages {
    device: Arc<OwnedFd>,
}

impl XenPages {
    pub(super) fn open() -> Result<Self> {
        Ok(Self { device: Arc::new(open_device()?) })
    }
}

impl StorePages for XenPages {
    fn map_guest(&self, domid: DomId, _gfn: u64) -> Result<Page> {
        map_grant(&self.device, domid, GrantRef::XENSTORE, "map the store page")
    }

    fn map_own(&self) -> Result<(Page, Port)> {
        let port = own_port()?;
        let file = rustix::fs::open(sys::XSD_KVA_PATH, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(Error::system("open /proc/xen/xsd_kva"))?;
        let mapping = Mapping::of_file(file, 0, PAGE_BYTES, "map the own store page")?;
        Ok((Page::new(mapping, None), port))
    }
}

pub(super) fn open_device() -> Result<OwnedFd> {
    rustix::fs::open(sys::GNTDEV_PATH, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::system("open /dev/xen/gntdev"))
}

/// Maps one page that a domain granted; dropping it undoes the mapping.
pub(super) fn map_grant(
    device: &Arc<OwnedFd>,
    domid: DomId,
    gref: GrantRef,
    what: &'static str,
) -> Result<Page> {
    let mut map = MapGrantRef { count: 1, domid: u32::from(domid.0), gref: gref.0, ..MapGrantRef::default() };
    // SAFETY: the request takes this struct with one grant, as its count says.
    unsafe { ioctl(device, sys::IOCTL_GNTDEV_MAP_GRANT_REF, &mut map) }.map_err(|source| Error::Domain {
        what,
        domid,
        source,
    })?;
    match Mapping::of_file(device, map.index, PAGE_BYTES, what) {
        Ok(mapping) => {
            let device = Arc::clone(device);
            Ok(Page::new(mapping, Some(Box::new(move || forget_grant(&device, map.index)))))
        }
        Err(error) => {
            forget_grant(device, map.index);
            Err(match error {
                Error::System { what, source } => Error::Domain { what, domid, source },
                other => other,
            })
        }
    }
}

fn own_port() -> Result<Port> {
    let text = std::fs::read_to_string(sys::XSD_PORT_PATH).map_err(|error| {
        let source = rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO);
        Error::System { what: "read /proc/xen/xsd_port", source }
    })?;
    text.trim_end_matches(['\n', '\0'])
        .parse()
        .map(Port)
        .map_err(|_| Error::Contents { path: sys::XSD_PORT_PATH, expected: "a port" })
}

fn forget_grant(device: &OwnedFd, index: u64) {
    let mut unmap = UnmapGrantRef { index, count: 1, pad: 0 };
    // SAFETY: the request takes this struct.
    let outcome = unsafe { ioctl(device, sys::IOCTL_GNTDEV_UNMAP_GRANT_REF, &mut unmap) };
    debug_assert!(outcome.is_ok(), "the grant was mapped by us and is no longer in use");
}
