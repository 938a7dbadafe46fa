//! Domain ids.

use std::fmt;

/// Stands for every domain in a permission entry (`DOMID_ANY`, feature bit 8).
pub const DOMID_ANY: DomId = DomId(0x7ff5);
/// Stands for the calling domain (`DOMID_SELF`).
pub const DOMID_SELF: DomId = DomId(0x7ff0);
/// First id that is no real domain (`DOMID_FIRST_RESERVED`).
const FIRST_RESERVED: u16 = 0x7ff0;

/// A domain's id, as in `xen.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomId(pub u16);

impl DomId {
    /// Whether a domain can have this id: it is below `DOMID_FIRST_RESERVED`.
    pub const fn is_real(self) -> bool {
        self.0 < FIRST_RESERVED
    }
}

impl fmt::Display for DomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
