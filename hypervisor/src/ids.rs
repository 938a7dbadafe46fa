//! Names of domains, ports and grants.

use std::fmt;

/// A domain's number (`domid_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct DomId(pub u16);

impl DomId {
    /// The privileged domain.
    pub const DOM0: Self = Self(0);
    /// In a hypercall: the domain that calls (`DOMID_SELF`).
    pub const SELF: Self = Self(0x7ff0);
}

/// An event channel's number in its domain (`evtchn_port_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Port(pub u32);

/// A grant's number in the table of the domain that grants (`grant_ref_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct GrantRef(pub u32);

impl GrantRef {
    /// The xenstore page of a guest (`GNTTAB_RESERVED_XENSTORE` in `xen/include/public/grant_table.h`).
    pub const XENSTORE: Self = Self(1);
}

/// An interrupt that the hypervisor raises by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Virq {
    /// A domain shut down or died (`VIRQ_DOM_EXC`).
    DomExc,
}

impl Virq {
    /// The number in `xen/include/public/xen.h`.
    pub fn number(self) -> u32 {
        match self {
            Self::DomExc => 3,
        }
    }

    /// The virq of a number.
    pub fn from_number(number: u32) -> Option<Self> {
        (number == Self::DomExc.number()).then_some(Self::DomExc)
    }
}

macro_rules! display_number {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
display_number!(DomId, Port, GrantRef);
