//! The message header (`struct xsd_sockmsg`).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{XsError, limits::PAYLOAD_MAX};

/// Bytes of a [`Header`].
pub const HEADER_BYTES: usize = 16;

/// A message's type. Any number can come from a client, so this is no enum.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct MessageType(pub u32);

#[allow(missing_docs, reason = "the names are those of xenstore.txt")]
impl MessageType {
    pub const CONTROL: Self = Self(0);
    pub const DIRECTORY: Self = Self(1);
    pub const READ: Self = Self(2);
    pub const GET_PERMS: Self = Self(3);
    pub const WATCH: Self = Self(4);
    pub const UNWATCH: Self = Self(5);
    pub const TRANSACTION_START: Self = Self(6);
    pub const TRANSACTION_END: Self = Self(7);
    pub const INTRODUCE: Self = Self(8);
    pub const RELEASE: Self = Self(9);
    pub const GET_DOMAIN_PATH: Self = Self(10);
    pub const WRITE: Self = Self(11);
    pub const MKDIR: Self = Self(12);
    pub const RM: Self = Self(13);
    pub const SET_PERMS: Self = Self(14);
    pub const WATCH_EVENT: Self = Self(15);
    pub const ERROR: Self = Self(16);
    pub const IS_DOMAIN_INTRODUCED: Self = Self(17);
    pub const RESUME: Self = Self(18);
    pub const SET_TARGET: Self = Self(19);
    /// Removed from the protocol; the number stays invalid.
    pub const RESTRICT: Self = Self(20);
    pub const RESET_WATCHES: Self = Self(21);
    pub const DIRECTORY_PART: Self = Self(22);
    pub const GET_FEATURE: Self = Self(23);
    pub const SET_FEATURE: Self = Self(24);
    pub const GET_QUOTA: Self = Self(25);
    pub const SET_QUOTA: Self = Self(26);
    /// Guaranteed never to be valid.
    pub const INVALID: Self = Self(0xffff);
}

impl MessageType {
    /// The type's name, for logs.
    pub const fn name(self) -> &'static str {
        const NAMES: [&str; 27] = [
            "CONTROL",
            "DIRECTORY",
            "READ",
            "GET_PERMS",
            "WATCH",
            "UNWATCH",
            "TRANSACTION_START",
            "TRANSACTION_END",
            "INTRODUCE",
            "RELEASE",
            "GET_DOMAIN_PATH",
            "WRITE",
            "MKDIR",
            "RM",
            "SET_PERMS",
            "WATCH_EVENT",
            "ERROR",
            "IS_DOMAIN_INTRODUCED",
            "RESUME",
            "SET_TARGET",
            "RESTRICT",
            "RESET_WATCHES",
            "DIRECTORY_PART",
            "GET_FEATURE",
            "SET_FEATURE",
            "GET_QUOTA",
            "SET_QUOTA",
        ];
        if self.0 < 27 { NAMES[self.0 as usize] } else { "UNKNOWN" }
    }
}

/// A message's header: 16 bytes in the byte order of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// The message's type (`type` on the wire).
    pub kind: MessageType,
    /// Chosen by the client, copied to the reply.
    pub req_id: u32,
    /// The transaction, or 0.
    pub tx_id: u32,
    /// Bytes of payload that follow.
    pub len: u32,
}

impl Header {
    /// Reads a header from the first 16 bytes; `None` if there are fewer.
    pub fn parse(bytes: &[u8]) -> Option<Header> {
        Header::read_from_prefix(bytes).ok().map(|(header, _)| header)
    }

    /// The payload's length.
    ///
    /// # Errors
    /// `E2BIG` if it is over [`PAYLOAD_MAX`]: the connection must be dropped.
    pub fn payload_len(&self) -> Result<usize, XsError> {
        let len = self.len as usize;
        if len > PAYLOAD_MAX { Err(XsError::E2BIG) } else { Ok(len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_that_of_the_wire() {
        let header = Header { kind: MessageType::WRITE, req_id: 2, tx_id: 3, len: 4 };
        let mut wire = Vec::new();
        for word in [11u32, 2, 3, 4] {
            wire.extend_from_slice(&word.to_ne_bytes());
        }
        assert_eq!(header.as_bytes(), wire);
        assert_eq!(Header::parse(&wire), Some(header));
        assert_eq!(Header::parse(&wire[..15]), None);
        assert_eq!(size_of::<Header>(), HEADER_BYTES);
    }

    #[test]
    fn payload_is_bounded() {
        let header = |len| Header { kind: MessageType::READ, req_id: 0, tx_id: 0, len };
        assert_eq!(header(4096).payload_len(), Ok(4096));
        assert_eq!(header(4097).payload_len(), Err(XsError::E2BIG));
        assert_eq!(header(u32::MAX).payload_len(), Err(XsError::E2BIG));
    }

    #[test]
    fn names() {
        assert_eq!(MessageType::SET_QUOTA.name(), "SET_QUOTA");
        assert_eq!(MessageType(27).name(), "UNKNOWN");
        assert_eq!(MessageType::INVALID.name(), "UNKNOWN");
    }
}
