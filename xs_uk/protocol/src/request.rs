//! Taking request payloads apart, with the checks of the reference daemon.

use crate::{DomId, XsError};

/// The nul-terminated strings of a payload, without their nuls. Bytes after the last nul are passed over.
pub fn strings(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = payload;
    std::iter::from_fn(move || {
        let (head, tail) = split_first(rest)?;
        rest = tail;
        Some(head)
    })
}

/// The first nul-terminated string and what follows its nul; `None` if there is no nul.
pub fn split_first(payload: &[u8]) -> Option<(&[u8], &[u8])> {
    let nul = payload.iter().position(|&byte| byte == 0)?;
    Some((&payload[..nul], &payload[nul + 1..]))
}

/// How many nul-terminated strings there are, and the first `N` of them (the others are empty).
pub fn vector<const N: usize>(payload: &[u8]) -> (usize, [&[u8]; N]) {
    let mut vector: [&[u8]; N] = [&[]; N];
    let mut count = 0;
    for string in strings(payload) {
        if let Some(slot) = vector.get_mut(count) {
            *slot = string;
        }
        count += 1;
    }
    (count, vector)
}

/// The only string of a payload that has exactly one nul, at its end.
///
/// # Errors
/// `EINVAL` if the payload has any other form.
pub fn one(payload: &[u8]) -> Result<&[u8], XsError> {
    match split_first(payload) {
        Some((string, [])) => Ok(string),
        _ => Err(XsError::EINVAL),
    }
}

/// A domain id: decimal digits, at most 65535.
///
/// # Errors
/// `EINVAL` for anything else.
pub fn domid(string: &[u8]) -> Result<DomId, XsError> {
    let digits = std::str::from_utf8(string).map_err(|_| XsError::EINVAL)?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(XsError::EINVAL);
    }
    digits.parse().map(DomId).map_err(|_| XsError::EINVAL)
}

/// What C's `atoi` makes of a string: leading blanks and a sign are allowed, digits count up to the first
/// other character, nothing is 0. Out of range wraps, as it does with glibc.
pub fn atoi(string: &[u8]) -> i32 {
    let string = string.trim_ascii_start();
    let (negative, digits) = match string {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let magnitude = digits
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .fold(0i64, |sum, byte| sum.saturating_mul(10).saturating_add(i64::from(byte - b'0')));
    let value = if negative { -magnitude } else { magnitude };
    #[allow(clippy::cast_possible_truncation, reason = "glibc narrows the same way")]
    let narrow = value as i32;
    narrow
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_pass_over_the_unterminated_tail() {
        assert_eq!(strings(b"a\0\0bc\0tail").collect::<Vec<_>>(), [&b"a"[..], b"", b"bc"]);
        assert_eq!(strings(b"").count(), 0);
        assert_eq!(vector::<2>(b"a\0b\0c\0"), (3, [&b"a"[..], b"b"]));
        assert_eq!(vector::<2>(b"a\0"), (1, [&b"a"[..], b""]));
    }

    #[test]
    fn one_wants_a_single_final_nul() {
        assert_eq!(one(b"a\0"), Ok(&b"a"[..]));
        assert_eq!(one(b"\0"), Ok(&b""[..]));
        for bad in [&b""[..], b"a", b"a\0b", b"a\0\0"] {
            assert_eq!(one(bad), Err(XsError::EINVAL));
        }
    }

    #[test]
    fn domids() {
        assert_eq!(domid(b"65535"), Ok(DomId(65535)));
        assert_eq!(domid(b"007"), Ok(DomId(7)));
        for bad in [&b""[..], b"65536", b"-1", b" 1", b"1x", b"\xff"] {
            assert_eq!(domid(bad), Err(XsError::EINVAL));
        }
    }

    #[test]
    fn atoi_is_as_lenient_as_in_c() {
        assert_eq!(atoi(b"12x"), 12);
        assert_eq!(atoi(b" -3"), -3);
        assert_eq!(atoi(b"+4"), 4);
        assert_eq!(atoi(b""), 0);
        assert_eq!(atoi(b"x"), 0);
        assert_eq!(atoi(b"4294967295"), -1);
        assert_eq!(atoi(&[b'9'; 100]), -1);
    }
}
