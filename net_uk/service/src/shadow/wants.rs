//! What a guest takes and wants, as kept in its record.

use netif::{Checksum, Gso, GsoKind};

/// Features of a connected frontend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wants {
    /// It takes frames of several slots.
    pub sg: bool,
    /// It takes TCP over IPv4 uncut.
    pub gso_v4: bool,
    /// It takes TCP over IPv6 uncut.
    pub gso_v6: bool,
    /// It takes blank checksums over IPv4.
    pub csum_v4: bool,
    /// It takes blank checksums over IPv6.
    pub csum_v6: bool,
    /// It sends an event when it posts slots.
    pub rx_notify: bool,
    /// It gets only the multicast groups that it asked for.
    pub multicast_control: bool,
}

impl Wants {
    /// As a number for the record.
    pub fn bits(self) -> u32 {
        let flags = [
            self.sg,
            self.gso_v4,
            self.gso_v6,
            self.csum_v4,
            self.csum_v6,
            self.rx_notify,
            self.multicast_control,
        ];
        flags.into_iter().enumerate().map(|(bit, set)| u32::from(set) << bit).sum()
    }

    /// Of the number in a record.
    pub fn from_bits(bits: u32) -> Self {
        let set = |bit: u32| bits & 1 << bit != 0;
        Self {
            sg: set(0),
            gso_v4: set(1),
            gso_v6: set(2),
            csum_v4: set(3),
            csum_v6: set(4),
            rx_notify: set(5),
            multicast_control: set(6),
        }
    }

    /// Does it take such a frame as it is?
    pub fn takes(self, length_bytes: usize, checksum: Checksum, gso: Option<Gso>) -> bool {
        let gso_fits = match gso.map(|gso| gso.kind) {
            None => true,
            Some(GsoKind::TcpV4) => self.gso_v4,
            Some(GsoKind::TcpV6) => self.gso_v6,
        };
        // Which version of IP a blank checksum belongs to is not looked up: both must be fine.
        let checksum_fits = checksum != Checksum::Blank || (self.csum_v4 && self.csum_v6);
        gso_fits && checksum_fits && (self.sg || length_bytes <= hypervisor::PAGE_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_back() {
        for bits in 0..1 << 7 {
            assert_eq!(Wants::from_bits(bits).bits(), bits);
        }
    }

    #[test]
    fn what_is_not_wanted_is_not_taken() {
        let gso = Some(Gso { kind: GsoKind::TcpV4, size_bytes: 1448 });
        let all = Wants::from_bits(0x7f);
        assert!(all.takes(60_000, Checksum::Blank, gso));
        assert!(!Wants { gso_v4: false, ..all }.takes(60_000, Checksum::Blank, gso));
        assert!(!Wants { csum_v6: false, ..all }.takes(100, Checksum::Blank, None));
        assert!(!Wants { sg: false, ..all }.takes(4097, Checksum::None, None));
        assert!(Wants::default().takes(1514, Checksum::Validated, None));
    }
}
