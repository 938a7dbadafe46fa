//! What the backend offers, and what the frontend writes.

use super::queue::Queue;
use crate::frontend::present;
use crate::limits::QUEUES_MAX;
use crate::{Device, Error, Guest, Result};

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl std::str::FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no hardware address");
        let parts = text.split(':').map(|part| u8::from_str_radix(part, 16).map_err(|_| bad()));
        parts.collect::<Result<Vec<_>, _>>()?.try_into().map(Self).map_err(|_| bad())
    }
}

/// What a backend offers (`feature-*` in its directory). What is missing is not offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the keys")]
pub struct Offered {
    pub sg: bool,
    pub gso_tcpv4: bool,
    pub gso_tcpv6: bool,
    pub split_event_channels: bool,
    /// `None` if there is no such key.
    pub multi_queue_max_queues: Option<u16>,
}

impl Offered {
    /// Reads it.
    ///
    /// # Errors
    /// [`Error::NoRxCopy`]; what the store answers.
    pub fn read(guest: &mut Guest, device: &Device) -> Result<Self> {
        let mut number = |key: &str| -> Result<Option<u16>> {
            let value = present(guest.read(&format!("{}/{key}", device.backend)))?;
            Ok(value.and_then(|value| String::from_utf8(value).ok()?.parse().ok()))
        };
        let mut flag = |key: &str| Ok::<_, Error>(number(key)?.unwrap_or(0) != 0);
        if !flag("feature-rx-copy")? {
            return Err(Error::NoRxCopy);
        }
        Ok(Self {
            sg: flag("feature-sg")?,
            gso_tcpv4: flag("feature-gso-tcpv4")?,
            gso_tcpv6: flag("feature-gso-tcpv6")?,
            split_event_channels: flag("feature-split-event-channels")?,
            multi_queue_max_queues: number("multi-queue-max-queues")?,
        })
    }

    /// How many queues to use if at most `wanted` are wished for. No queue at all is what Linux gives up at; we use one.
    pub fn queues(&self, wanted: u16) -> u16 {
        self.multi_queue_max_queues.unwrap_or(1).min(wanted).clamp(1, QUEUES_MAX)
    }
}

/// The node of a device that holds a value of this kind.
///
/// # Errors
/// [`Error::Node`], or what the store answers.
pub fn value<T: std::str::FromStr>(
    guest: &mut Guest,
    device: &Device,
    key: &str,
    kind: &'static str,
) -> Result<T> {
    let path = format!("{}/{key}", device.path);
    let value = guest.read(&path)?;
    let parsed = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
    parsed.ok_or(Error::Node { path, kind })
}

/// All keys of an interface in the order in which `xen-netfront` writes them.
pub fn all(queues: &[Queue], offered: &Offered) -> Vec<(String, String)> {
    let mut keys = vec![];
    if offered.multi_queue_max_queues.is_some() {
        keys.push(("multi-queue-num-queues".to_owned(), queues.len().to_string()));
    }
    for (number, queue) in queues.iter().enumerate() {
        let below = |key: &str| match queues.len() {
            1 => key.to_owned(),
            _ => format!("queue-{number}/{key}"),
        };
        keys.extend(queue.keys().into_iter().map(|(key, value)| (below(key), value)));
    }
    let features = [
        "request-rx-copy",
        "feature-rx-notify",
        "feature-sg",
        "feature-gso-tcpv4",
        "feature-gso-tcpv6",
        "feature-ipv6-csum-offload",
    ];
    keys.extend(features.map(|key| (key.to_owned(), "1".to_owned())));
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_are_read_and_shown() {
        let mac: Mac = "00:16:3e:0A:ff:1".parse().unwrap();
        assert_eq!(mac.to_string(), "00:16:3e:0a:ff:01");
        for bad in ["", "00:16:3e:00:00", "00:16:3e:00:00:00:00", "00:16:3e:00:00:100", "g0:16:3e:00:00:00"] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_backend_bounds_the_queues() {
        let offered = |max| Offered {
            sg: true,
            gso_tcpv4: true,
            gso_tcpv6: true,
            split_event_channels: true,
            multi_queue_max_queues: max,
        };
        assert_eq!(offered(None).queues(4), 1);
        assert_eq!(offered(Some(0)).queues(4), 1);
        assert_eq!(offered(Some(2)).queues(4), 2);
        assert_eq!(offered(Some(64)).queues(3), 3);
        assert_eq!(offered(Some(64)).queues(64), QUEUES_MAX);
    }
}
