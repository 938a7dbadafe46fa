//! Where the checksum of a frame lies, and its completion.
//!
//! Frames may come with a checksum that covers the pseudo header only. Someone must find it and finish it: the kernel, if
//! it is told where the checksum lies, or [`complete_checksum`].

use crate::limits::EXTENSION_HEADERS_MAX;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPES_VLAN: [u16; 2] = [0x8100, 0x88a8];
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;

/// The header of TCP or UDP within a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transport {
    /// Where it begins, from the start of the frame.
    pub start: usize,
    /// Where its checksum lies, from its start.
    pub checksum_offset: usize,
    /// Where its payload begins, from the start of the frame.
    pub payload: usize,
}

impl Transport {
    /// Finds it. None if the frame is no TCP or UDP, is a fragment other than the first, or ends too early.
    pub fn find(frame: &[u8]) -> Option<Self> {
        let (ethertype, ip) = network(frame)?;
        let (protocol, start) = match ethertype {
            ETHERTYPE_IPV4 => transport_of_v4(frame, ip)?,
            ETHERTYPE_IPV6 => transport_of_v6(frame, ip)?,
            _ => return None,
        };
        let (checksum_offset, header_bytes) = match protocol {
            PROTOCOL_TCP => (16, usize::from(frame.get(start + 12)? >> 4) * 4),
            PROTOCOL_UDP => (6, 8),
            _ => return None,
        };
        let least = if protocol == PROTOCOL_TCP { 20 } else { 8 };
        let payload = start + header_bytes;
        (header_bytes >= least && payload <= frame.len()).then_some(Self { start, checksum_offset, payload })
    }
}

/// Completes a checksum that holds the sum of the pseudo header. False if there is none to complete.
pub fn complete_checksum(frame: &mut [u8]) -> bool {
    let Some(transport) = Transport::find(frame) else { return false };
    let sum = fold(sum(&frame[transport.start..]));
    // UDP means "no checksum" by 0; the other representation of the same sum is sent instead.
    let checksum = if sum == 0xffff && transport.checksum_offset == 6 { 0xffff } else { !sum };
    let at = transport.start + transport.checksum_offset;
    frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    true
}

/// Whether the checksum of a frame holds the sum of the pseudo header and is still to be completed: such frames come from
/// neighbours that are no wire, such as the other end of a pair of virtual interfaces, over a way that does not say so.
///
/// The field must be equal to that sum and the frame must not add up as it is. A frame from a wire that was damaged and not
/// noticed by the device is taken for one with a probability of 2^-16.
pub fn is_checksum_blank(frame: &[u8]) -> bool {
    blank_checksum(frame).unwrap_or(false)
}

fn blank_checksum(frame: &[u8]) -> Option<bool> {
    let transport = Transport::find(frame)?;
    let (ethertype, ip) = network(frame)?;
    // The packet may be padded to the least length of a frame.
    let (end, addresses) = match ethertype {
        // A fragment has a part of what the checksum covers.
        ETHERTYPE_IPV4 if be16(frame, ip + 6)? & 0x2000 != 0 => return None,
        ETHERTYPE_IPV4 => (ip + usize::from(be16(frame, ip + 2)?), ip + 12..ip + 20),
        _ => (ip + 40 + usize::from(be16(frame, ip + 4)?), ip + 8..ip + 40),
    };
    let segment = frame.get(transport.start..end)?;
    let protocol = if transport.checksum_offset == 6 { PROTOCOL_UDP } else { PROTOCOL_TCP };
    let pseudo = sum(frame.get(addresses)?) + u64::from(protocol) + segment.len() as u64;
    let field = be16(segment, transport.checksum_offset)?;
    Some(field == fold(pseudo) && fold(pseudo + sum(segment)) != 0xffff)
}

fn network(frame: &[u8]) -> Option<(u16, usize)> {
    let mut at = 12;
    // Two tags at most.
    for _ in 0..3 {
        let ethertype = be16(frame, at)?;
        at += 2;
        if !ETHERTYPES_VLAN.contains(&ethertype) {
            return Some((ethertype, at));
        }
        at += 2;
    }
    None
}

fn transport_of_v4(frame: &[u8], ip: usize) -> Option<(u8, usize)> {
    let header_bytes = usize::from(frame.get(ip)? & 0xf) * 4;
    let fragment_offset = be16(frame, ip + 6)? & 0x1fff;
    let protocol = *frame.get(ip + 9)?;
    (header_bytes >= 20 && fragment_offset == 0).then_some((protocol, ip + header_bytes))
}

fn transport_of_v6(frame: &[u8], ip: usize) -> Option<(u8, usize)> {
    let mut next = *frame.get(ip + 6)?;
    let mut at = ip + 40;
    for _ in 0..=EXTENSION_HEADERS_MAX {
        match next {
            // Hop-by-hop options, routing, destination options: the length counts units of 8 bytes after the first.
            0 | 43 | 60 => {
                next = *frame.get(at)?;
                at += 8 + usize::from(*frame.get(at + 1)?) * 8;
            }
            PROTOCOL_TCP | PROTOCOL_UDP => return Some((next, at)),
            _ => return None,
        }
    }
    None
}

fn sum(bytes: &[u8]) -> u64 {
    let pairs = bytes.chunks_exact(2);
    let odd = pairs.remainder().first().map_or(0, |last| u64::from(*last) << 8);
    pairs.map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u64>() + odd
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    #[expect(clippy::cast_possible_truncation, reason = "at most 0xffff by now")]
    {
        sum as u16
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ethernet(ethertypes: &[u16], rest: &[u8]) -> Vec<u8> {
        let mut frame = vec![2; 12];
        for (at, ethertype) in ethertypes.iter().enumerate() {
            frame.extend(ethertype.to_be_bytes());
            if at + 1 < ethertypes.len() {
                frame.extend([0, 5]);
            }
        }
        frame.extend(rest);
        frame
    }

    /// IPv4 from 10.0.0.1 to 10.0.0.2 with the sum of the pseudo header in its checksum.
    fn udp_v4(payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(8 + payload.len()).unwrap();
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, PROTOCOL_UDP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let pseudo = fold(sum(&packet[12..20]) + u64::from(PROTOCOL_UDP) + u64::from(length));
        packet.extend([0, 1, 0, 2]);
        packet.extend(length.to_be_bytes());
        packet.extend(pseudo.to_be_bytes());
        packet.extend(payload);
        packet
    }

    #[test]
    fn a_completed_checksum_sums_up() {
        for payload in [&b""[..], b"odd", b"even", &[0xff; 1400]] {
            let mut frame = ethernet(&[ETHERTYPE_IPV4], &udp_v4(payload));
            assert!(complete_checksum(&mut frame));
            let ip = &frame[14..];
            let pseudo = sum(&ip[12..20]) + u64::from(PROTOCOL_UDP) + sum(&ip[24..26]);
            assert_eq!(fold(pseudo + sum(&ip[20..])), 0xffff);
        }
    }

    #[test]
    fn a_blank_checksum_is_told_from_a_complete_one() {
        for payload in [&b"x"[..], b"four", &[0xff; 1400]] {
            let mut frame = ethernet(&[0x8100, ETHERTYPE_IPV4], &udp_v4(payload));
            let total = u16::try_from(28 + payload.len()).unwrap();
            frame[20..22].copy_from_slice(&total.to_be_bytes());
            // What pads it does not matter.
            frame.extend([7; 3]);
            assert!(is_checksum_blank(&frame), "{} bytes", payload.len());
            let mut fragment = frame.clone();
            fragment[24] = 0x20;
            assert!(!is_checksum_blank(&fragment));
            let mut other = frame.clone();
            other[44] ^= 1;
            assert!(!is_checksum_blank(&other));
            frame.truncate(frame.len() - 3);
            assert!(complete_checksum(&mut frame));
            assert!(!is_checksum_blank(&frame));
            for length in 0..frame.len() {
                assert!(!is_checksum_blank(&frame[..length]));
            }
        }
    }

    #[test]
    fn udp_never_carries_zero() {
        // Payload that makes the sum 0xffff.
        let mut frame = ethernet(&[ETHERTYPE_IPV4], &udp_v4(&[0, 0]));
        let missing = 0xffff - fold(sum(&frame[34..]));
        frame[42..44].copy_from_slice(&missing.to_be_bytes());
        assert!(complete_checksum(&mut frame));
        assert_eq!(frame[40..42], [0xff, 0xff]);
    }

    #[test]
    fn tags_and_extension_headers_are_skipped() {
        let frame = ethernet(&[0x88a8, 0x8100, ETHERTYPE_IPV4], &udp_v4(b"x"));
        assert_eq!(Transport::find(&frame), Some(Transport { start: 42, checksum_offset: 6, payload: 50 }));
        let mut packet = vec![0; 40];
        packet[6] = 60;
        packet.extend([0, 0, 0, 0, 0, 0, 0, 0].map(|_| 0));
        packet[40] = PROTOCOL_TCP;
        packet.extend([0; 20]);
        packet[48 + 12] = 5 << 4;
        let frame = ethernet(&[ETHERTYPE_IPV6], &packet);
        assert_eq!(Transport::find(&frame), Some(Transport { start: 62, checksum_offset: 16, payload: 82 }));
    }

    #[test]
    fn what_is_no_transport_is_told() {
        let whole = ethernet(&[ETHERTYPE_IPV4], &udp_v4(b""));
        for length in 0..whole.len() {
            assert_eq!(Transport::find(&whole[..length]), None, "{length}");
        }
        let mut fragment = whole.clone();
        fragment[21] = 1;
        assert_eq!(Transport::find(&fragment), None);
        assert_eq!(Transport::find(&ethernet(&[0x8100; 4], &udp_v4(b""))), None);
        let mut endless = vec![0; 40];
        for _ in 0..=EXTENSION_HEADERS_MAX {
            endless.extend([0; 8]);
        }
        endless.extend([0; 64]);
        assert_eq!(Transport::find(&ethernet(&[ETHERTYPE_IPV6], &endless)), None);
    }
}
