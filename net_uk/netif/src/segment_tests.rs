use super::*;
use crate::checksum::verify;
use crate::frames::{Recipe, naive_sum};
use crate::limits::SEGMENTS_MAX;
use proptest::prelude::*;

fn gso(version: IpVersion, size_bytes: u16) -> Gso {
    let kind = match version {
        IpVersion::V4 => GsoKind::TcpV4,
        IpVersion::V6 => GsoKind::TcpV6,
    };
    Gso { kind, size_bytes }
}

fn cut(frame: &[u8], gso: Gso, max_bytes: usize) -> Result<Vec<Vec<u8>>, FrameFault> {
    let mut segmenter = Segmenter::new(frame, gso, max_bytes)?;
    let (mut segments, mut buffer) = (Vec::new(), vec![0xaa; max_bytes]);
    while let Some(bytes) = segmenter.write_next(&mut buffer) {
        segments.push(buffer[..bytes].to_vec());
    }
    assert_eq!(segments.len(), segmenter.count());
    assert_eq!(segmenter.write_next(&mut buffer), None);
    Ok(segments)
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(bytes[at..at + 2].try_into().unwrap())
}

/// Checks one segment's headers.
fn check(frame: &[u8], layout: &Layout, segment: &[u8], number: usize, count: usize, size: usize) {
    let own = Layout::of(segment).unwrap();
    assert_eq!(own, Layout { end: segment.len(), ..*layout });
    assert!(verify(segment).unwrap());
    let (ip, tcp) = (layout.ip_offset, layout.transport_offset);
    if layout.ip_version == IpVersion::V4 {
        assert_eq!(naive_sum(&segment[ip..tcp]), 0xffff, "the checksum of the IP header");
        let id = be16(frame, ip + 4).wrapping_add(u16::try_from(number).unwrap());
        assert_eq!(be16(segment, ip + 4), id);
    }
    let sequence = be32(frame, tcp + 4).wrapping_add(u32::try_from(number * size).unwrap());
    assert_eq!(be32(segment, tcp + 4), sequence);
    let mut flags = frame[tcp + 13];
    if number > 0 {
        flags &= !0x80;
    }
    if number + 1 < count {
        flags &= !0x09;
    }
    assert_eq!(segment[tcp + 13], flags);
    // What is left alone: addresses, ports, acknowledgement, window, options.
    assert_eq!(segment[..ip + 2], frame[..ip + 2]);
    assert_eq!(segment[tcp..tcp + 4], frame[tcp..tcp + 4]);
    assert_eq!(segment[tcp + 8..tcp + 13], frame[tcp + 8..tcp + 13]);
    assert_eq!(segment[tcp + 18..layout.payload_offset], frame[tcp + 18..layout.payload_offset]);
}

proptest! {
    #[test]
    fn segments_are_the_frame(
        v6: bool, tags in 0..3usize, extras in 0..4usize, options in 0..=10usize,
        payload in proptest::collection::vec(any::<u8>(), 0..6000), size_bytes in 8..2000u16, padding in 0..9usize,
    ) {
        let version = if v6 { IpVersion::V6 } else { IpVersion::V4 };
        let recipe = Recipe { tags, version, extras, transport: Transport::Tcp, options, payload, padding };
        let (frame, size) = (recipe.frame(), usize::from(size_bytes));
        let layout = Layout::of(&frame).unwrap();
        let segments = cut(&frame, gso(version, size_bytes), 9000).unwrap();
        prop_assert_eq!(segments.len(), recipe.payload.len().div_ceil(size).max(1));
        for (number, segment) in segments.iter().enumerate() {
            check(&frame, &layout, segment, number, segments.len(), size);
        }
        let (last, full) = segments.split_last().unwrap();
        prop_assert!(full.iter().all(|segment| segment.len() == layout.payload_offset + size));
        prop_assert!(last.len() <= layout.payload_offset + size);
        let payloads: Vec<_> = segments.iter().flat_map(|segment| &segment[layout.payload_offset..]).copied().collect();
        prop_assert_eq!(payloads, recipe.payload);
    }

    #[test]
    fn any_bytes_are_cut_or_refused(frame in proptest::collection::vec(any::<u8>(), 0..200), size: u16, v6: bool) {
        let version = if v6 { IpVersion::V6 } else { IpVersion::V4 };
        let _ = cut(&frame, gso(version, size), 1514);
    }

    #[test]
    fn any_damage_is_cut_or_refused(
        v6: bool, damage in proptest::collection::vec((0..80usize, any::<u8>()), 1..4),
        bytes in 0..400usize, length in 14..500usize, size in 0..100u16,
    ) {
        let version = if v6 { IpVersion::V6 } else { IpVersion::V4 };
        let mut frame = Recipe::new(version, Transport::Tcp, vec![7; bytes]).frame();
        for (at, byte) in damage {
            if let Some(place) = frame.get_mut(at) {
                *place = byte;
            }
        }
        frame.truncate(length);
        if let Ok(segments) = cut(&frame, gso(version, size), 600) {
            for segment in segments {
                prop_assert!(verify(&segment).unwrap());
            }
        }
    }
}

#[test]
fn the_longest_frame_makes_a_bounded_number_of_segments() {
    let payload = vec![1; 65_535 - 40];
    let frame = Recipe::new(IpVersion::V4, Transport::Tcp, payload.clone()).frame();
    let segments = cut(&frame, gso(IpVersion::V4, 8), 1514).unwrap();
    assert_eq!(segments.len(), payload.len().div_ceil(8));
    assert!(segments.len() <= SEGMENTS_MAX);
    assert_eq!(cut(&frame, gso(IpVersion::V4, 7), 1514), Err(FrameFault::SegmentSize(7)));
}

#[test]
fn a_segment_is_no_longer_than_allowed() {
    let frame = Recipe::new(IpVersion::V4, Transport::Tcp, vec![1; 3000]).frame();
    assert!(cut(&frame, gso(IpVersion::V4, 1460), 1514).is_ok());
    let fault = FrameFault::SegmentTooLong { segment_bytes: 1515, max_bytes: 1514 };
    assert_eq!(cut(&frame, gso(IpVersion::V4, 1461), 1514), Err(fault));
    // A frame that is one segment is as long as it is.
    let short = Recipe::new(IpVersion::V4, Transport::Tcp, vec![1; 100]).frame();
    assert_eq!(cut(&short, gso(IpVersion::V4, 9000), 1514).unwrap().len(), 1);
}

#[test]
fn another_protocol_is_refused() {
    let udp = Recipe::new(IpVersion::V4, Transport::Udp, vec![1; 100]).frame();
    assert_eq!(cut(&udp, gso(IpVersion::V4, 50), 1514), Err(FrameFault::NotThisGso));
    let v6 = Recipe::new(IpVersion::V6, Transport::Tcp, vec![1; 100]).frame();
    assert_eq!(cut(&v6, gso(IpVersion::V4, 50), 1514), Err(FrameFault::NotThisGso));
    assert!(cut(&v6, gso(IpVersion::V6, 50), 1514).is_ok());
}
