//! Errors.

use rustix::io::Errno;

use crate::{DomId, Port, RegionError};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel, or through it the hypervisor, refused.
    #[error("{what}: {source}")]
    System {
        /// The call or file.
        what: &'static str,
        /// The reason.
        source: Errno,
    },
    /// Mapping or binding to a domain was refused by the kernel or the hypervisor.
    #[error("{what} of domain {domid}: {source}")]
    Domain {
        /// What was tried.
        what: &'static str,
        /// The domain.
        domid: DomId,
        /// The reason.
        source: Errno,
    },
    /// A port number that cannot exist.
    #[error("port {port} is out of range")]
    PortRange {
        /// The port.
        port: Port,
    },
    /// A file of the kernel holds something else than expected.
    #[error("{path} does not hold {expected}")]
    Contents {
        /// The file.
        path: &'static str,
        /// What it should hold.
        expected: &'static str,
    },
    /// The hypervisor speaks none of the interface versions that this build knows.
    #[error("unknown {call} interface of the hypervisor: tried versions {tried:#x?}")]
    UnknownInterface {
        /// `domctl` or `sysctl`.
        call: &'static str,
        /// All versions that were tried.
        tried: &'static [u32],
    },
    /// The descriptors to adopt are not those of a handle.
    #[error("cannot adopt these descriptors: {0}")]
    Adopt(&'static str),
    /// Shared memory could not be made or mapped.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The broker refused.
    #[error("the broker refused: {0}")]
    Refused(#[from] Refusal),
    /// The broker is gone.
    #[error("the broker closed the connection")]
    BrokerGone,
    /// What came is not an answer of the broker, or not the expected one.
    #[error("not a valid message of the broker: {0}")]
    Protocol(&'static str),
    /// What came cannot be decoded.
    #[error("undecodable message: {0}")]
    Decode(#[from] prost::DecodeError),
}

impl Error {
    pub(crate) fn system(what: &'static str) -> impl FnOnce(Errno) -> Self {
        move |source| Self::System { what, source }
    }

    /// Is the reason that the domain does not exist (any more)?
    pub fn is_no_domain(&self) -> bool {
        match self {
            Self::Domain { source, .. } => *source == Errno::SRCH,
            Self::Refused(refusal) => *refusal == Refusal::NoDomain,
            _ => false,
        }
    }
}

/// Why the broker refuses a request. The numbers are those of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such domain.
    #[error("no such domain")]
    NoDomain,
    /// No such handle.
    #[error("no such event channel handle")]
    NoHandle,
    /// The domain has no such port, or it is not this handle's.
    #[error("no such port")]
    NoPort,
    /// The port is not in the state that the request needs.
    #[error("the port is in another state")]
    PortState,
    /// The virq or the port is another handle's.
    #[error("taken by another handle")]
    Taken,
    /// The domain may not do this.
    #[error("denied")]
    Denied,
    /// No such grant.
    #[error("no such grant")]
    NoGrant,
    /// The domid is in use or reserved.
    #[error("the domid cannot be used")]
    BadDomid,
    /// A bound of [`crate::limits`] is reached.
    #[error("a bound of the broker is reached")]
    Limit,
    /// The broker does not know this request.
    #[error("unknown or malformed request")]
    Malformed,
    /// The broker's system calls failed.
    #[error("the broker lacks resources")]
    Resources,
    /// A refusal of a newer broker.
    #[error("refused for a reason that this build does not know")]
    Unknown,
}

const REFUSALS: [Refusal; 12] = [
    Refusal::Unknown,
    Refusal::NoDomain,
    Refusal::NoHandle,
    Refusal::NoPort,
    Refusal::PortState,
    Refusal::Taken,
    Refusal::Denied,
    Refusal::NoGrant,
    Refusal::BadDomid,
    Refusal::Limit,
    Refusal::Malformed,
    Refusal::Resources,
];

impl Refusal {
    /// Its number on the wire.
    pub(crate) fn number(self) -> u32 {
        (0u32..).zip(REFUSALS).find(|(_, refusal)| *refusal == self).map_or(0, |(number, _)| number)
    }

    /// The refusal of a number.
    pub(crate) fn from_number(number: u32) -> Self {
        REFUSALS.get(number as usize).copied().unwrap_or(Self::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_keeps_its_number() {
        for refusal in REFUSALS {
            assert_eq!(Refusal::from_number(refusal.number()), refusal);
        }
        assert_eq!(Refusal::from_number(999), Refusal::Unknown);
        assert_eq!(Refusal::Limit.number(), 9);
    }
}
