//! Permission entries: `w`, `r`, `b` or `n`, then a domain id.

use std::fmt;

use crate::{DomId, XsError, limits::PERMS_MAX};

/// The access that a permission entry grants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Access {
    /// No access (`n`).
    #[default]
    None = 0,
    /// Read only (`r`).
    Read = 1,
    /// Write only (`w`).
    Write = 2,
    /// Read and write (`b`).
    Both = 3,
}

impl Access {
    /// The letter on the wire.
    pub const fn letter(self) -> u8 {
        match self {
            Access::None => b'n',
            Access::Read => b'r',
            Access::Write => b'w',
            Access::Both => b'b',
        }
    }

    /// The access of a letter.
    pub const fn from_letter(letter: u8) -> Option<Access> {
        match letter {
            b'n' => Some(Access::None),
            b'r' => Some(Access::Read),
            b'w' => Some(Access::Write),
            b'b' => Some(Access::Both),
            _ => None,
        }
    }

    /// The access of a number as made by `as u8`.
    pub const fn from_bits(bits: u8) -> Option<Access> {
        match bits {
            0 => Some(Access::None),
            1 => Some(Access::Read),
            2 => Some(Access::Write),
            3 => Some(Access::Both),
            _ => None,
        }
    }

    /// Whether this access includes all of `wanted`.
    pub const fn includes(self, wanted: Access) -> bool {
        self as u8 & wanted as u8 == wanted as u8
    }
}

/// One entry of a node's permissions. The first entry names the owner and the access of all other domains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Perm {
    /// The domain that the entry is about.
    pub domid: DomId,
    /// What it grants.
    pub access: Access,
}

impl Perm {
    /// Parses one entry, without its nul. As with C's `strtol` a number may also be octal (`0…`) or hexadecimal (`0x…`).
    ///
    /// # Errors
    /// `EINVAL` for an unknown letter or anything that is no number up to 65535.
    pub fn parse(string: &[u8]) -> Result<Perm, XsError> {
        let (letter, number) = string.split_first().ok_or(XsError::EINVAL)?;
        let access = Access::from_letter(*letter).ok_or(XsError::EINVAL)?;
        Ok(Perm { domid: parse_number(number).ok_or(XsError::EINVAL)?, access })
    }

    /// Appends the entry and its nul.
    pub fn push(self, out: &mut Vec<u8>) {
        out.push(self.access.letter());
        push_decimal(out, u64::from(self.domid.0));
        out.push(0);
    }
}

impl fmt::Display for Perm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", char::from(self.access.letter()), self.domid)
    }
}

/// Parses a list of entries, each with its nul.
///
/// # Errors
/// `EINVAL` for an empty list, more than [`PERMS_MAX`] entries or a bad entry.
pub fn parse_list(payload: &[u8]) -> Result<Vec<Perm>, XsError> {
    let mut perms = Vec::new();
    for string in crate::request::strings(payload) {
        if perms.len() == PERMS_MAX {
            return Err(XsError::EINVAL);
        }
        perms.push(Perm::parse(string)?);
    }
    if perms.is_empty() { Err(XsError::EINVAL) } else { Ok(perms) }
}

/// Appends a list of entries, each with its nul.
pub fn push_list(out: &mut Vec<u8>, perms: &[Perm]) {
    for perm in perms {
        perm.push(out);
    }
}

/// Appends a decimal number.
pub fn push_decimal(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b"0123456789"[(value % 10) as usize];
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn parse_number(number: &[u8]) -> Option<DomId> {
    let number = std::str::from_utf8(number).ok()?;
    let (digits, radix) = match number.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&number[2..], 16),
        [b'0', _, ..] => (&number[1..], 8),
        _ => (number, 10),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    u16::from_str_radix(digits, radix).ok().map(DomId)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn forms() {
        let perm = |domid, access| Ok(Perm { domid: DomId(domid), access });
        assert_eq!(Perm::parse(b"n0"), perm(0, Access::None));
        assert_eq!(Perm::parse(b"b65535"), perm(65535, Access::Both));
        assert_eq!(Perm::parse(b"r0x7ff5"), perm(0x7ff5, Access::Read));
        assert_eq!(Perm::parse(b"w010"), perm(8, Access::Write));
        for bad in
            [&b""[..], b"r", b"x1", b"r-1", b"r 1", b"r1x", b"r65536", b"r0x", b"r09", b"r+1", b"r\xff"]
        {
            assert_eq!(Perm::parse(bad), Err(XsError::EINVAL), "{bad:?}");
        }
    }

    #[test]
    fn lists_are_bounded() {
        assert_eq!(parse_list(b""), Err(XsError::EINVAL));
        assert_eq!(parse_list(&b"r0\0".repeat(PERMS_MAX)).map(|perms| perms.len()), Ok(PERMS_MAX));
        assert_eq!(parse_list(&b"r0\0".repeat(PERMS_MAX + 1)), Err(XsError::EINVAL));
    }

    #[test]
    fn access_bits() {
        assert!(Access::Both.includes(Access::Read) && Access::Both.includes(Access::Write));
        assert!(!Access::Read.includes(Access::Both) && Access::None.includes(Access::None));
        for bits in 0..4 {
            assert_eq!(Access::from_bits(bits).unwrap() as u8, bits);
        }
        assert_eq!(Access::from_bits(4), None);
    }

    proptest! {
        #[test]
        fn round_trip(entries in proptest::collection::vec((any::<u16>(), 0u8..4), 1..20)) {
            let perms: Vec<Perm> = entries
                .iter()
                .map(|&(domid, bits)| Perm { domid: DomId(domid), access: Access::from_bits(bits).unwrap() })
                .collect();
            let mut out = Vec::new();
            push_list(&mut out, &perms);
            prop_assert_eq!(parse_list(&out).unwrap(), perms);
        }

        #[test]
        fn any_bytes_are_safe(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse_list(&bytes);
        }
    }
}
