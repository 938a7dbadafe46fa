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
        take_statuses(copies, &segments, outcome.is_ok());
        outcome.map(drop).map_err(|source| Error::Domain { what: "copy grants", domid, source })
    }
}

/// Linux says of each copy that it was done, asks the hypervisor for a few at a time, and corrects what it said. A call that
/// fails in between leaves copies said to be done that nobody asked for: then nothing of it counts.
fn take_statuses(copies: &mut [GrantCopy<'_>], segments: &[CopySegment], succeeded: bool) {
    for (copy, segment) in copies.iter_mut().zip(segments) {
        copy.status = if succeeded { GrantStatus(segment.status) } else { GrantStatus::GENERAL_ERROR };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PAGE_BYTES, Region};

    fn copy(region: &Region, direction: CopyDirection) -> GrantCopy<'_> {
        GrantCopy::new(GrantRef(0x0403_0201), region, 1514, direction).at_guest(0x0605).at_region(64)
    }

    /// `struct gntdev_grant_copy_segment`: an end is an address, or `ref` u32, `offset` u16 and `domid` u16.
    #[test]
    fn a_copy_is_told_as_linux_expects_it() {
        let region = Region::create("copies", PAGE_BYTES).unwrap();
        let ours = (region.pointer(64, 1514).as_ptr() as u64).to_ne_bytes();
        let theirs =
            if cfg!(target_endian = "little") { [1, 2, 3, 4, 5, 6, 7, 0] } else { [4, 3, 2, 1, 6, 5, 0, 7] };
        let from = segment(DomId(7), &copy(&region, CopyDirection::FromGuest));
        assert_eq!((from.source, from.destination, from.flags), (theirs, ours, 1));
        let to = segment(DomId(7), &copy(&region, CopyDirection::ToGuest));
        assert_eq!((to.source, to.destination, to.flags), (ours, theirs, 2));
        assert_eq!((to.length_bytes, to.status), (1514, -1));
    }

    #[test]
    fn a_call_that_failed_has_done_nothing_whatever_the_kernel_had_written() {
        let region = Region::create("copies", PAGE_BYTES).unwrap();
        let mut copies = [copy(&region, CopyDirection::ToGuest), copy(&region, CopyDirection::ToGuest)];
        let mut segments = copies.each_ref().map(|copy| segment(DomId(7), copy));
        segments[0].status = 0;
        take_statuses(&mut copies, &segments, true);
        assert_eq!(copies.each_ref().map(|copy| copy.status.is_ok()), [true, false]);
        take_statuses(&mut copies, &segments, false);
        assert_eq!(copies.each_ref().map(|copy| copy.status.is_ok()), [false, false]);
    }
}
