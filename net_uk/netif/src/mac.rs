//! Hardware addresses.

use std::fmt;
use std::str::FromStr;

/// The address of a network interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// All stations.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// A group of stations, or all of them.
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// All stations.
    pub const fn is_broadcast(self) -> bool {
        matches!(self.0, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff])
    }

    /// An address that one interface can have: of one station, and not all zero.
    pub const fn is_station(self) -> bool {
        !self.is_multicast() && !matches!(self.0, [0, 0, 0, 0, 0, 0])
    }

    /// To whom a frame goes; `None` if it is too short.
    pub fn destination(frame: &[u8]) -> Option<Self> {
        frame.first_chunk().copied().map(Self)
    }

    /// From whom a frame comes; `None` if it is too short.
    pub fn source(frame: &[u8]) -> Option<Self> {
        frame.get(6..).and_then(|rest| rest.first_chunk()).copied().map(Self)
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Not six pairs of hexadecimal digits with colons between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a hardware address")]
pub struct MacError;

impl FromStr for MacAddr {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let mut address = [0; 6];
        let mut pairs = text.split(':');
        for byte in &mut address {
            *byte = pairs.next().and_then(pair).ok_or(MacError)?;
        }
        pairs.next().is_none().then_some(Self(address)).ok_or(MacError)
    }
}

fn pair(text: &str) -> Option<u8> {
    let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u8::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_shown_is_read(bytes: [u8; 6]) {
            prop_assert_eq!(MacAddr(bytes).to_string().parse(), Ok(MacAddr(bytes)));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9a-fA-F:+ g]{0,20}") {
            if let Ok(address) = text.parse::<MacAddr>() {
                prop_assert_eq!(address.to_string(), text.to_lowercase());
            }
        }
    }

    #[test]
    fn only_the_usual_form_is_read() {
        assert_eq!("00:16:3E:0a:0b:0c".parse(), Ok(MacAddr([0, 0x16, 0x3e, 10, 11, 12])));
        for text in [
            "",
            "00:16:3e:0a:0b",
            "00:16:3e:0a:0b:0c:0d",
            "0:16:3e:0a:0b:0c",
            "+0:16:3e:0a:0b:0c",
            "00-16-3e-0a-0b-0c",
        ] {
            assert_eq!(text.parse::<MacAddr>(), Err(MacError), "{text}");
        }
    }

    #[test]
    fn groups_are_told_from_stations() {
        let station = MacAddr([0, 0x16, 0x3e, 1, 2, 3]);
        assert!(station.is_station() && !station.is_multicast());
        assert!(MacAddr([0x33, 0x33, 0, 0, 0, 1]).is_multicast());
        assert!(MacAddr::BROADCAST.is_broadcast() && MacAddr::BROADCAST.is_multicast());
        assert!(!MacAddr([0; 6]).is_station());
    }

    #[test]
    fn a_frame_begins_with_its_addresses() {
        let frame: Vec<u8> = (0..14).collect();
        assert_eq!(MacAddr::destination(&frame), Some(MacAddr([0, 1, 2, 3, 4, 5])));
        assert_eq!(MacAddr::source(&frame), Some(MacAddr([6, 7, 8, 9, 10, 11])));
        assert_eq!(MacAddr::source(&frame[..11]), None);
        assert_eq!(MacAddr::destination(&[]), None);
    }
}
