//! Errors.

use crate::{MacAddress, PortId};

/// Result of this crate.
pub type Result<T, E = SwitchError> = std::result::Result<T, E>;

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SwitchError {
    /// All ports are in use.
    #[error("all {max} ports are in use")]
    PortsFull {
        /// The bound.
        max: usize,
    },
    /// There is no such port.
    #[error("there is no port {0}")]
    NoPort(PortId),
    /// Another port has this fixed address.
    #[error("{mac} is the fixed address of port {port}")]
    AddressTaken {
        /// The address.
        mac: MacAddress,
        /// Its port.
        port: PortId,
    },
    /// Not an address of one station.
    #[error("{0} is not the address of a station")]
    NotAStation(MacAddress),
    /// Only vifs have fixed addresses and multicast filters, and a port whose senders are checked needs an address.
    #[error("a port cannot be set up like this")]
    Unfit,
    /// Not a multicast address.
    #[error("{0} is not a multicast address")]
    NotMulticast(MacAddress),
    /// The port's multicast filter is full.
    #[error("the filter of port {port} holds {max} addresses already")]
    FilterFull {
        /// The port.
        port: PortId,
        /// The bound.
        max: usize,
    },
}
