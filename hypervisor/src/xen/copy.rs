//! Granted pages of guests by `/dev/xen/gntdev`.

use std::mem::size_of;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::grants::{map_grant, open_device};
use super::sys::{self, CopySegment, GrantCopies, ioctl};
use crate::limits::GRANT_COPIES_MAX;
use crate::{CopyDirection, DomId, Error, GrantCopy, GrantRef, GrantStatus, Grants, Page, Result};

/// The grant device. Mappings belong to this process and go with it; copies leave nothing behind.
#[derive(Debug)]
pub(super) struct XenGrants {
    device: Arc<OwnedFd>,
}

impl XenGrants {
    pub(super) fn open() -> Result<Self> {
        Ok(Self { device: Arc::new(open_device()?) })
    }
}

impl Grants for XenGrants {
    fn map(&self, domid: DomId, gref: GrantRef) -> Result<Page> {
        map_grant(&self.device, domid, gref, "map a grant")
    }

    fn copy(&self, domid: DomId, copies: &mut [GrantCopy<'_>]) -> Result<()> {
        assert!(copies.len() <= GRANT_COPIES_MAX, "callers keep the bound");
        if copies.is_empty() {
            return Ok(());
        }
        let mut segments: Vec<CopySegment> = copies.iter().map(|copy| segment(domid, copy)).collect();
        let count = u32::try_from(segments.len()).unwrap_or(u32::MAX);
        let mut request = GrantCopies { count, pad: 0, segments: segments.as_mut_ptr() as u64 };
        // SAFETY: the request takes this struct with `count` segments, whose addresses lie in regions that are borrowed
        // until the call returns, as `Region::pointer` checked for each length.
        let outcome = unsafe { ioctl(&self.device, sys::IOCTL_GNTDEV_GRANT_COPY, &mut request) };
        for (copy, segment) in copies.iter_mut().zip(&segments) {
            copy.status = GrantStatus(segment.status);
        }
        outcome.map(drop).map_err(|source| Error::Domain { what: "copy grants", domid, source })
    }
}

fn segment(domid: DomId, copy: &GrantCopy<'_>) -> CopySegment {
    let place = copy.region.pointer(copy.region_offset, usize::from(copy.length_bytes));
    let ours = (place.as_ptr() as u64).to_ne_bytes();
    let mut theirs = [0; size_of::<u64>()];
    theirs[..4].copy_from_slice(&copy.gref.0.to_ne_bytes());
    theirs[4..6].copy_from_slice(&copy.offset_bytes.to_ne_bytes());
    theirs[6..].copy_from_slice(&domid.0.to_ne_bytes());
    let (source, destination, flags) = match copy.direction {
        CopyDirection::FromGuest => (theirs, ours, sys::GNTCOPY_SOURCE_GREF),
        CopyDirection::ToGuest => (ours, theirs, sys::GNTCOPY_DEST_GREF),
    };
    let status = GrantStatus::GENERAL_ERROR.0;
    CopySegment { source, destination, length_bytes: copy.length_bytes, flags, status, pad: 0 }
}
