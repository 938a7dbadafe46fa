//! The header with which the kernel and its users tell each other about checksums and segments.
//!
//! `struct virtio_net_hdr`, little-endian here: flags u8, kind of segments u8, header bytes u16, segment bytes u16, start
//! of the checksummed part u16, place of the checksum in it u16.

use lane::{FrameFlags, FrameMeta};

use crate::headers::Transport;

/// Its size.
pub(crate) const VNET_BYTES: usize = 10;

const NEEDS_CHECKSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const SEGMENTS_NONE: u8 = 0;
const SEGMENTS_TCP_V4: u8 = 1;
const SEGMENTS_TCP_V6: u8 = 4;
/// TCP with congestion notification; it changes nothing for who cuts by the book.
const SEGMENTS_ECN: u8 = 0x80;

/// The header for a frame to be sent. None if the frame is not what its flags say, or its segments are longer than
/// `packet_bytes_max` with their headers.
pub(crate) fn encode(meta: &FrameMeta, frame: &[u8], packet_bytes_max: usize) -> Option<[u8; VNET_BYTES]> {
    let segments = match meta.flags {
        flags if flags.contains(FrameFlags::GSO_V4) => SEGMENTS_TCP_V4,
        flags if flags.contains(FrameFlags::GSO_V6) => SEGMENTS_TCP_V6,
        _ => SEGMENTS_NONE,
    };
    let mut header = [0; VNET_BYTES];
    if segments == SEGMENTS_NONE && !meta.flags.contains(FrameFlags::CSUM_BLANK) {
        return Some(header);
    }
    let transport = Transport::find(frame)?;
    // Only TCP is ever cut, and its checksum is blank then.
    let segment_bytes = transport.payload + usize::from(meta.gso_bytes);
    if segments != SEGMENTS_NONE && (transport.checksum_offset != 16 || segment_bytes > packet_bytes_max) {
        return None;
    }
    header[0] = NEEDS_CHECKSUM;
    header[1] = segments;
    header[2..4].copy_from_slice(&u16::try_from(transport.payload).ok()?.to_le_bytes());
    header[4..6].copy_from_slice(&meta.gso_bytes.to_le_bytes());
    header[6..8].copy_from_slice(&u16::try_from(transport.start).ok()?.to_le_bytes());
    header[8..10].copy_from_slice(&u16::try_from(transport.checksum_offset).ok()?.to_le_bytes());
    Some(header)
}

/// Flags and segment bytes of a received frame. None if it is cut in a way that lanes do not know.
pub(crate) fn decode(header: &[u8]) -> Option<(FrameFlags, u16)> {
    let header: &[u8; VNET_BYTES] = header.try_into().ok()?;
    let mut flags = match header[0] {
        flags if flags & NEEDS_CHECKSUM != 0 => FrameFlags::CSUM_BLANK,
        flags if flags & DATA_VALID != 0 => FrameFlags::CSUM_VALID,
        _ => FrameFlags::NONE,
    };
    flags = match header[1] & !SEGMENTS_ECN {
        SEGMENTS_NONE => return Some((flags, 0)),
        SEGMENTS_TCP_V4 => flags | FrameFlags::GSO_V4,
        SEGMENTS_TCP_V6 => flags | FrameFlags::GSO_V6,
        _ => return None,
    };
    let segment_bytes = u16::from_le_bytes([header[4], header[5]]);
    (segment_bytes > 0).then_some((flags, segment_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp_v4() -> Vec<u8> {
        let mut frame = vec![0; 54];
        frame[12] = 8;
        frame[14] = 0x45;
        frame[23] = 6;
        frame[46] = 5 << 4;
        frame
    }

    #[test]
    fn what_is_encoded_decodes_to_the_same() {
        let blank = FrameFlags::CSUM_BLANK;
        for (flags, gso_bytes) in [
            (FrameFlags::NONE, 0),
            (blank, 0),
            (blank | FrameFlags::GSO_V4, 1448),
            (blank | FrameFlags::GSO_V6, 1),
        ] {
            let meta = FrameMeta { flags, gso_bytes, ..FrameMeta::default() };
            let header = encode(&meta, &tcp_v4(), 1518).unwrap();
            assert_eq!(decode(&header), Some((flags, gso_bytes)));
        }
        let meta = FrameMeta { flags: blank, ..FrameMeta::default() };
        assert_eq!(encode(&meta, &tcp_v4(), 1518).unwrap(), [1, 0, 54, 0, 0, 0, 34, 0, 16, 0]);
    }

    #[test]
    fn frames_that_are_not_what_they_claim_are_refused() {
        let blank = FrameMeta { flags: FrameFlags::CSUM_BLANK, ..FrameMeta::default() };
        assert_eq!(encode(&blank, &tcp_v4()[..53], 1518), None);
        let mut udp = tcp_v4();
        udp[23] = 17;
        assert!(encode(&blank, &udp, 1518).is_some());
        let cut = FrameMeta { flags: FrameFlags::GSO_V4, gso_bytes: 1000, ..FrameMeta::default() };
        assert_eq!(encode(&cut, &udp, 1518), None);
        assert!(encode(&cut, &tcp_v4(), 1054).is_some());
        assert_eq!(encode(&cut, &tcp_v4(), 1053), None);
    }

    #[test]
    fn unknown_segments_are_refused() {
        assert_eq!(
            decode(&[1, 0x81, 0, 0, 1, 0, 0, 0, 0, 0]),
            Some((FrameFlags::CSUM_BLANK | FrameFlags::GSO_V4, 1))
        );
        for bad in
            [[1, 5, 0, 0, 1, 0, 0, 0, 0, 0], [1, 3, 0, 0, 1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0, 0, 0]]
        {
            assert_eq!(decode(&bad), None);
        }
        assert_eq!(decode(&[0; 9]), None);
    }
}
