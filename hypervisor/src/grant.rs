//! Access to pages that other domains grant.

use crate::{DomId, GrantRef, Page, Region, Result};

/// Granted pages of other domains.
pub trait Grants: Send {
    /// Maps one page that `domid` granted to us, to read and write.
    ///
    /// # Errors
    /// If there is no such domain or no such grant, or it is granted to read alone. Xen tells none from the other.
    fn map(&self, domid: DomId, gref: GrantRef) -> Result<Page>;

    /// Copies between granted pages of `domid` and regions of ours, each as far as it can be done: look at every status.
    /// At most [`crate::limits::GRANT_COPIES_MAX`] at once.
    ///
    /// # Errors
    /// If nothing could be asked at all; then every status is an error too.
    fn copy(&self, domid: DomId, copies: &mut [GrantCopy<'_>]) -> Result<()>;
}

/// Which way a copy goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyDirection {
    /// From the granted page to our region.
    FromGuest,
    /// From our region to the granted page.
    ToGuest,
}

/// What became of a copy (`GNTST_*` in `xen/include/public/grant_table.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrantStatus(pub i16);

impl GrantStatus {
    /// It was done.
    pub const OKAY: Self = Self(0);
    /// Not done, or not known to be done.
    pub const GENERAL_ERROR: Self = Self(-1);
    /// There is no such domain.
    pub const BAD_DOMAIN: Self = Self(-2);
    /// There is no such grant, or it is not ours.
    pub const BAD_GREF: Self = Self(-3);
    /// The grant does not allow this direction.
    pub const PERMISSION_DENIED: Self = Self(-8);
    /// The range does not lie in the page.
    pub const BAD_COPY_ARG: Self = Self(-10);

    /// Was it done?
    pub fn is_ok(self) -> bool {
        self == Self::OKAY
    }
}

/// One copy between a granted page and a region.
#[derive(Debug)]
pub struct GrantCopy<'a> {
    /// The page.
    pub gref: GrantRef,
    /// Where in the page, in bytes.
    pub offset_bytes: u16,
    /// Our side.
    pub region: &'a Region,
    /// Where in the region, in bytes.
    pub region_offset: usize,
    /// How much; the range must lie within one page of the guest.
    pub length_bytes: u16,
    /// Which way.
    pub direction: CopyDirection,
    /// What became of it. [`GrantStatus::GENERAL_ERROR`] until it was done: a call can succeed and leave some undone.
    pub status: GrantStatus,
}

impl<'a> GrantCopy<'a> {
    /// A copy that is still to be done, of `length_bytes` bytes at the start of both sides.
    pub fn new(gref: GrantRef, region: &'a Region, length_bytes: u16, direction: CopyDirection) -> Self {
        let status = GrantStatus::GENERAL_ERROR;
        Self { gref, offset_bytes: 0, region, region_offset: 0, length_bytes, direction, status }
    }

    /// Moves the place in the page.
    #[must_use]
    pub fn at_guest(self, offset_bytes: u16) -> Self {
        Self { offset_bytes, ..self }
    }

    /// Moves the place in the region.
    #[must_use]
    pub fn at_region(self, region_offset: usize) -> Self {
        Self { region_offset, ..self }
    }
}
