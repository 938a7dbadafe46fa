//! What a frame carries besides its bytes.

use crate::FrameFault;
use crate::limits::{FRAME_BYTES_MAX, FRAME_BYTES_MIN, GSO_SIZE_MIN};

/// What is known of a frame's TCP or UDP checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Checksum {
    /// Nothing: it is in the frame and may be wrong.
    #[default]
    None,
    /// It is not in the frame yet; what is there is the sum of the pseudo header.
    Blank,
    /// It was found right, or the frame never left this machine.
    Validated,
}

/// What is to be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GsoKind {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
}

impl GsoKind {
    /// The number on the wire (`XEN_NETIF_GSO_TYPE_*`).
    pub const fn number(self) -> u8 {
        match self {
            Self::TcpV4 => 1,
            Self::TcpV6 => 2,
        }
    }

    /// The kind of a number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::TcpV4),
            2 => Some(Self::TcpV6),
            _ => None,
        }
    }
}

/// A frame that is to be cut into segments before it goes onto a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Gso {
    /// What it is.
    pub kind: GsoKind,
    /// Payload bytes of each segment but the last.
    pub size_bytes: u16,
}

impl Gso {
    /// What the wire says, if it makes sense.
    pub const fn from_wire(kind: u8, size_bytes: u16) -> Option<Self> {
        match GsoKind::from_number(kind) {
            Some(kind) if size_bytes >= GSO_SIZE_MIN => Some(Self { kind, size_bytes }),
            _ => None,
        }
    }
}

/// A frame that is to go to a guest, without its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FrameMeta {
    length_bytes: u32,
    checksum: Checksum,
    gso: Option<Gso>,
}

impl FrameMeta {
    /// A frame of `length_bytes`. The guest must have asked for `gso` and for blank checksums if it is to get them.
    ///
    /// # Errors
    /// [`FrameFault::Length`] unless it is of [`FRAME_BYTES_MIN`] to [`FRAME_BYTES_MAX`].
    pub fn new(length_bytes: usize, checksum: Checksum, gso: Option<Gso>) -> Result<Self, FrameFault> {
        let length = u32::try_from(length_bytes).unwrap_or(u32::MAX);
        if !(FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(&length) {
            return Err(FrameFault::Length(length_bytes));
        }
        Ok(Self { length_bytes: length, checksum, gso })
    }

    /// Its length.
    pub const fn length_bytes(&self) -> u32 {
        self.length_bytes
    }

    /// What is known of its checksum.
    pub const fn checksum(&self) -> Checksum {
        self.checksum
    }

    /// How it is to be cut.
    pub const fn gso(&self) -> Option<Gso> {
        self.gso
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_their_numbers() {
        for kind in [GsoKind::TcpV4, GsoKind::TcpV6] {
            assert_eq!(GsoKind::from_number(kind.number()), Some(kind));
        }
        assert_eq!(GsoKind::from_number(0), None);
        assert_eq!(GsoKind::from_number(3), None);
    }

    #[test]
    fn segments_have_a_least_size() {
        assert_eq!(Gso::from_wire(1, GSO_SIZE_MIN - 1), None);
        assert!(Gso::from_wire(1, GSO_SIZE_MIN).is_some());
        assert_eq!(Gso::from_wire(0, 1448), None);
    }

    #[test]
    fn frames_have_bounds() {
        let frame = |bytes| FrameMeta::new(bytes, Checksum::None, None);
        assert_eq!(frame(13), Err(FrameFault::Length(13)));
        assert_eq!(frame(14).map(|meta| meta.length_bytes()), Ok(14));
        assert_eq!(frame(65_562).map(|meta| meta.length_bytes()), Ok(65_562));
        assert_eq!(frame(65_563), Err(FrameFault::Length(65_563)));
        assert!(frame(usize::MAX).is_err());
    }
}
