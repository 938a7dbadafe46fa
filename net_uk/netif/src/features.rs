//! The keys in the store: what the backend offers, and what the frontend answers.
//!
//! Source: `xen/include/public/io/netif.h`, and which of the keys Linux's netfront and netback read and write.

use hypervisor::{GrantRef, Port};

use crate::limits::{DIGITS_MAX, PORT_MAX, QUEUES_MAX};
use crate::{GsoKind, IpVersion, MacAddr};

/// What the backend can do. It is written to the backend's directory before InitWait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Packets of several slots.
    pub scatter_gather: bool,
    /// TCP over IPv4 that the backend cuts. Frontends want `scatter_gather` with it.
    pub gso_tcpv4: bool,
    /// TCP over IPv6 that the backend cuts.
    pub gso_tcpv6: bool,
    /// Blank TCP and UDP checksums over IPv6. (Those over IPv4 are always allowed.)
    pub ipv6_checksum: bool,
    /// A multicast list that the guest keeps up to date.
    pub multicast_control: bool,
    /// An event channel for each direction.
    pub split_event_channels: bool,
    /// How many queues a guest may use: 1 to [`QUEUES_MAX`]. A number beyond that is taken for the nearest.
    pub queues_max: u32,
}

impl Default for Offer {
    /// All of it, but one queue.
    fn default() -> Self {
        Self {
            scatter_gather: true,
            gso_tcpv4: true,
            gso_tcpv6: true,
            ipv6_checksum: true,
            multicast_control: true,
            split_event_channels: true,
            queues_max: 1,
        }
    }
}

impl Offer {
    /// How many queues are offered.
    pub fn queues(&self) -> u32 {
        self.queues_max.clamp(1, QUEUES_MAX)
    }

    /// The keys to write, with their values.
    pub fn keys(&self) -> Vec<(&'static str, String)> {
        let flags = [
            ("feature-rx-copy", true),
            ("feature-rx-flip", false),
            ("feature-sg", self.scatter_gather),
            ("feature-gso-tcpv4", self.gso_tcpv4),
            ("feature-gso-tcpv6", self.gso_tcpv6),
            ("feature-ipv6-csum-offload", self.ipv6_checksum),
            ("feature-multicast-control", self.multicast_control),
            ("feature-dynamic-multicast-control", self.multicast_control),
            ("feature-split-event-channels", self.split_event_channels),
        ];
        let flags = flags.into_iter().map(|(key, set)| (key, u8::from(set).to_string()));
        flags.chain([("multi-queue-max-queues", self.queues().to_string())]).collect()
    }
}

/// Event channels of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Events {
    /// One for both rings.
    Shared(Port),
    /// One for each.
    Split {
        /// The transmit ring's.
        tx: Port,
        /// The receive ring's.
        rx: Port,
    },
}

/// A queue of the frontend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueConfig {
    /// The transmit ring's page.
    pub tx_ring: GrantRef,
    /// The receive ring's page.
    pub rx_ring: GrantRef,
    /// Its event channels.
    pub events: Events,
}

/// What the frontend asks for and can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontendConfig {
    /// It sends events for receive slots that it posts. Else the backend has to look now and then, and a guest without
    /// slots does not count as stalled.
    pub rx_notify: bool,
    /// It takes frames of several slots.
    pub scatter_gather: bool,
    /// It takes TCP over IPv4 that is yet to be cut.
    pub gso_tcpv4: bool,
    /// It takes TCP over IPv6 that is yet to be cut.
    pub gso_tcpv6: bool,
    /// It takes blank TCP and UDP checksums over IPv4.
    pub ipv4_checksum: bool,
    /// It takes blank TCP and UDP checksums over IPv6.
    pub ipv6_checksum: bool,
    /// It keeps its multicast list up to date, and wants no frames to other groups.
    pub multicast_control: bool,
    /// The address in its directory, which the guest can change: not to be used to keep guests apart.
    pub mac: Option<MacAddr>,
    /// Its queues: one at least.
    pub queues: Vec<QueueConfig>,
}

impl FrontendConfig {
    /// Can a frame that is yet to be cut be given to the guest?
    pub fn accepts_gso(&self, kind: GsoKind) -> bool {
        self.scatter_gather
            && match kind {
                GsoKind::TcpV4 => self.gso_tcpv4,
                GsoKind::TcpV6 => self.gso_tcpv6,
            }
    }

    /// Can a frame with a blank checksum be given to the guest?
    pub fn accepts_blank(&self, version: IpVersion) -> bool {
        match version {
            IpVersion::V4 => self.ipv4_checksum,
            IpVersion::V6 => self.ipv6_checksum,
        }
    }
}

/// Why a frontend is not connected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A key that is needed is not there.
    #[error("key {0} is missing")]
    Missing(String),
    /// A value is not a number, or not one in range.
    #[error("the value of key {key} is not a number from {least} to {most}")]
    OutOfRange {
        /// The key.
        key: String,
        /// The least that is allowed.
        least: u32,
        /// The most that is allowed.
        most: u32,
    },
    /// The frontend wants pages to be flipped, which is long gone.
    #[error("the frontend does not ask for frames to be copied")]
    NoRxCopy,
    /// The address is none.
    #[error("key mac holds no hardware address")]
    Mac,
}

/// Reads the frontend's keys. `lookup` gives the value of a key below its directory.
///
/// # Errors
/// A [`Refusal`] to be written to the log; the device is to be closed then.
pub fn parse_frontend(
    lookup: impl Fn(&str) -> Option<Vec<u8>>,
    offer: &Offer,
) -> Result<FrontendConfig, Refusal> {
    let keys = Keys { lookup };
    if !keys.flag("request-rx-copy")? {
        return Err(Refusal::NoRxCopy);
    }
    Ok(FrontendConfig {
        rx_notify: keys.flag("feature-rx-notify")?,
        scatter_gather: keys.flag("feature-sg")?,
        gso_tcpv4: keys.flag("feature-gso-tcpv4")?,
        gso_tcpv6: keys.flag("feature-gso-tcpv6")?,
        ipv4_checksum: !keys.flag("feature-no-csum-offload")?,
        ipv6_checksum: keys.flag("feature-ipv6-csum-offload")?,
        multicast_control: offer.multicast_control && keys.flag("request-multicast-control")?,
        mac: keys.mac()?,
        queues: keys.queues(offer.queues())?,
    })
}

struct Keys<F> {
    lookup: F,
}

impl<F: Fn(&str) -> Option<Vec<u8>>> Keys<F> {
    fn optional(&self, key: &str, least: u32, most: u32) -> Result<Option<u32>, Refusal> {
        let Some(value) = (self.lookup)(key) else { return Ok(None) };
        match number(&value) {
            Some(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => Err(Refusal::OutOfRange { key: key.to_owned(), least, most }),
        }
    }

    fn required(&self, key: String, least: u32, most: u32) -> Result<u32, Refusal> {
        self.optional(&key, least, most)?.ok_or(Refusal::Missing(key))
    }

    fn flag(&self, key: &str) -> Result<bool, Refusal> {
        Ok(self.optional(key, 0, 1)? == Some(1))
    }

    fn mac(&self) -> Result<Option<MacAddr>, Refusal> {
        let Some(value) = (self.lookup)("mac") else { return Ok(None) };
        let text = str::from_utf8(&value).map_err(|_| Refusal::Mac)?;
        text.parse().map(Some).map_err(|_| Refusal::Mac)
    }

    /// A single queue's keys are in the frontend's directory itself.
    fn queues(&self, most: u32) -> Result<Vec<QueueConfig>, Refusal> {
        match self.optional("multi-queue-num-queues", 1, most)?.unwrap_or(1) {
            1 => Ok(vec![self.queue("")?]),
            queues => (0..queues).map(|number| self.queue(&format!("queue-{number}/"))).collect(),
        }
    }

    fn queue(&self, prefix: &str) -> Result<QueueConfig, Refusal> {
        let gref = |key| Ok(GrantRef(self.required(format!("{prefix}{key}"), 0, u32::MAX)?));
        Ok(QueueConfig {
            tx_ring: gref("tx-ring-ref")?,
            rx_ring: gref("rx-ring-ref")?,
            events: self.events(prefix)?,
        })
    }

    fn events(&self, prefix: &str) -> Result<Events, Refusal> {
        let port = |key| Ok(self.optional(&format!("{prefix}{key}"), 1, PORT_MAX)?.map(Port));
        if let (Some(tx), Some(rx)) = (port("event-channel-tx")?, port("event-channel-rx")?) {
            return Ok(Events::Split { tx, rx });
        }
        let shared = self.required(format!("{prefix}event-channel"), 1, PORT_MAX)?;
        Ok(Events::Shared(Port(shared)))
    }
}

/// A number in decimal digits and nothing else.
fn number(value: &[u8]) -> Option<u32> {
    let digits = (1..=DIGITS_MAX).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    digits.then(|| str::from_utf8(value).ok()?.parse().ok()).flatten()
}

#[cfg(test)]
#[path = "features_tests.rs"]
mod tests;
