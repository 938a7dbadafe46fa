//! Ports.

use std::fmt;

use crate::addresses::Addresses;
use crate::counters::Counters;
use crate::limits::{NIC_ADDRESSES_MAX, PORTS_MAX, VIF_ADDRESSES_MAX};
use crate::{MacAddress, Result, SwitchError};

/// A port of a switch. Numbers are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(u16);

impl PortId {
    /// The port of this number, if there can be one.
    pub fn new(number: usize) -> Option<Self> {
        u16::try_from(number).ok().filter(|_| number < PORTS_MAX).map(Self)
    }

    /// Its number, below [`PORTS_MAX`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is behind a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortKind {
    /// A guest's interface.
    Vif,
    /// A network card.
    Nic,
}

/// How a port is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// What is behind it.
    pub kind: PortKind,
    /// The address that is always here, of a vif.
    pub mac: Option<MacAddress>,
    /// Frames from here must come from `mac`; others are dropped.
    pub checks_sender: bool,
    /// Frames to unknown stations go here too. They always go to NICs.
    pub wants_unknown: bool,
    /// Frames to groups go here only if the guest asked for the group (the frontend's `request-multicast-control`).
    pub filters_multicast: bool,
    /// A station that was learned at another port may show up here, and has moved then. If not, it must have aged first.
    pub takes_over: bool,
}

impl PortConfig {
    /// A guest's interface with this address.
    pub fn vif(mac: MacAddress) -> Self {
        Self {
            kind: PortKind::Vif,
            mac: Some(mac),
            checks_sender: false,
            wants_unknown: false,
            filters_multicast: false,
            takes_over: false,
        }
    }

    /// A network card.
    pub fn nic() -> Self {
        Self {
            kind: PortKind::Nic,
            mac: None,
            checks_sender: false,
            wants_unknown: true,
            filters_multicast: false,
            takes_over: true,
        }
    }

    /// Checks that it makes sense.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(mac) = self.mac.filter(|mac| !mac.is_station()) {
            return Err(SwitchError::NotAStation(mac));
        }
        let nic_as_vif = self.kind == PortKind::Nic
            && (self.mac.is_some() || self.filters_multicast || !self.wants_unknown);
        if nic_as_vif || (self.checks_sender && self.mac.is_none()) {
            return Err(SwitchError::Unfit);
        }
        Ok(())
    }

    pub(crate) fn addresses_max(&self) -> usize {
        match self.kind {
            PortKind::Vif => VIF_ADDRESSES_MAX,
            PortKind::Nic => NIC_ADDRESSES_MAX,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Port {
    pub config: PortConfig,
    pub learned: Addresses,
    pub groups: Vec<MacAddress>,
    pub counters: Counters,
}

impl Port {
    pub fn new(config: PortConfig) -> Self {
        let learned = Addresses::new(config.addresses_max());
        Self { config, learned, groups: Vec::new(), counters: Counters::default() }
    }
}
