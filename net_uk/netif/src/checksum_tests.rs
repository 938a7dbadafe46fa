use super::*;
use crate::frames::{Recipe, naive_sum};
use crate::limits::{EXTENSION_HEADERS_MAX, VLAN_TAGS_MAX};
use proptest::prelude::*;

fn recipes() -> impl Strategy<Value = Recipe> {
    let version = prop_oneof![Just(IpVersion::V4), Just(IpVersion::V6)];
    let transport = prop_oneof![Just(Transport::Tcp), Just(Transport::Udp)];
    let payload = proptest::collection::vec(any::<u8>(), 0..300);
    (0..=VLAN_TAGS_MAX, version, 0..=8usize, transport, 0..=10usize, payload, 0..20usize).prop_map(
        |(tags, version, extras, transport, options, payload, padding)| Recipe {
            tags,
            version,
            extras,
            transport,
            options,
            payload,
            padding,
        },
    )
}

/// The pseudo header of RFC 768, 793 and 8200, written out.
fn pseudo(frame: &[u8], layout: &Layout) -> Vec<u8> {
    let addresses = match layout.ip_version {
        IpVersion::V4 => &frame[layout.ip_offset + 12..][..8],
        IpVersion::V6 => &frame[layout.ip_offset + 8..][..32],
    };
    let length = u32::try_from(layout.end - layout.transport_offset).unwrap();
    [addresses, &length.to_be_bytes(), &[0, 0, 0, layout.transport.number()]].concat()
}

proptest! {
    #[test]
    fn sums_are_those_of_rfc_1071(bytes in proptest::collection::vec(any::<u8>(), 0..2000), at in 0..2000usize) {
        prop_assert_eq!(Sum::default().bytes(&bytes).folded(), naive_sum(&bytes).to_be_bytes());
        let (head, tail) = bytes.split_at(at.min(bytes.len()) & !1);
        prop_assert_eq!(Sum::default().bytes(head).bytes(tail).folded(), naive_sum(&bytes).to_be_bytes());
    }

    #[test]
    fn a_blank_checksum_is_completed(recipe in recipes()) {
        let mut frame = recipe.frame();
        prop_assert!(!verify(&frame).unwrap() || frame.is_empty());
        let before = frame.clone();
        complete(&mut frame).unwrap();
        prop_assert!(verify(&frame).unwrap());
        let layout = Layout::of(&frame).unwrap();
        let covered = [pseudo(&frame, &layout), frame[layout.transport_offset..layout.end].to_vec()].concat();
        prop_assert_eq!(naive_sum(&covered), 0xffff);
        // Nothing else changed, and what was in the field before does not matter.
        let at = layout.checksum_offset();
        prop_assert_eq!(&frame[..at], &before[..at]);
        prop_assert_eq!(&frame[at + 2..], &before[at + 2..]);
        let mut again = frame.clone();
        blank(&mut again).unwrap();
        prop_assert_eq!(u16::from_be_bytes([again[at], again[at + 1]]), naive_sum(&pseudo(&frame, &layout)));
        complete(&mut again).unwrap();
        prop_assert_eq!(again, frame);
    }

    #[test]
    fn a_flipped_bit_is_found(recipe in recipes(), bit in any::<usize>()) {
        let mut frame = recipe.frame();
        complete(&mut frame).unwrap();
        let layout = Layout::of(&frame).unwrap();
        // Behind the ports, but for UDP's length and TCP's, which make it another frame.
        let covered = layout.payload_offset..layout.end;
        prop_assume!(!covered.is_empty());
        let bit = bit % (8 * covered.len());
        frame[covered.start + bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!verify(&frame).unwrap());
    }

    #[test]
    fn any_bytes_are_read_or_refused(mut frame in proptest::collection::vec(any::<u8>(), 0..120)) {
        let _ = (verify(&frame), blank(&mut frame), complete(&mut frame));
    }

    /// Frames with something broken: errors leave them alone, and all offsets hold what they promise.
    #[test]
    fn any_damage_is_read_or_refused(recipe in recipes(), damage in proptest::collection::vec((0..90usize, any::<u8>()), 1..4), cut in 0..400usize) {
        let mut frame = recipe.frame();
        for (at, byte) in damage {
            if let Some(place) = frame.get_mut(at) {
                *place = byte;
            }
        }
        frame.truncate(cut.max(14));
        let before = frame.clone();
        match (Layout::of(&frame), complete(&mut frame)) {
            (Ok(layout), Ok(())) => {
                let Layout { ip_offset, transport_offset, payload_offset, end, .. } = layout;
                prop_assert!(ip_offset < transport_offset && transport_offset < payload_offset);
                prop_assert!(payload_offset <= end && end <= frame.len());
                prop_assert!(layout.checksum_offset() + 2 <= payload_offset);
                prop_assert!(verify(&frame).unwrap());
            }
            (Err(fault), Err(same)) => {
                prop_assert_eq!(fault, same);
                prop_assert_eq!(frame, before);
            }
            (layout, done) => prop_assert!(false, "{layout:?} {done:?}"),
        }
    }
}

/// The header of RFC 1071's most copied example.
#[test]
fn a_known_header_has_its_checksum() {
    let header = [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7];
    assert_eq!(Sum::default().bytes(&header).complement(), [0xb8, 0x61]);
}

#[test]
fn udp_has_two_zeros() {
    // Find the two bytes that make the sum come out as zero.
    let mut frame = Recipe::new(IpVersion::V4, Transport::Udp, vec![0, 0]).frame();
    complete(&mut frame).unwrap();
    let layout = Layout::of(&frame).unwrap();
    let at = layout.checksum_offset();
    let rest = [frame[at], frame[at + 1]];
    frame[layout.payload_offset..][..2].copy_from_slice(&rest);
    complete(&mut frame).unwrap();
    assert_eq!(frame[at..at + 2], [0xff, 0xff]);
    assert!(verify(&frame).unwrap());

    // None at all is allowed with IPv4 only.
    frame[at..at + 2].fill(0);
    assert!(verify(&frame).unwrap());
    let mut frame = Recipe::new(IpVersion::V6, Transport::Udp, vec![1, 2]).frame();
    let at = Layout::of(&frame).unwrap().checksum_offset();
    frame[at..at + 2].fill(0);
    assert!(!verify(&frame).unwrap());
}

fn refused(frame: &[u8]) -> FrameFault {
    let mut copy = frame.to_vec();
    let fault = complete(&mut copy).unwrap_err();
    assert_eq!(copy, frame);
    assert_eq!((verify(frame), blank(&mut copy)), (Err(fault), Err(fault)));
    fault
}

fn changed(version: IpVersion, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = Recipe::new(version, Transport::Tcp, vec![1, 2, 3]).frame();
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

#[test]
fn what_has_no_such_checksum_is_refused() {
    use IpVersion::{V4, V6};
    assert_eq!(refused(&[0; 13]), FrameFault::Length(13));
    assert_eq!(refused(&vec![0; 65_563]), FrameFault::Length(65_563));
    let arp = changed(V4, 12, &[0x08, 0x06]);
    assert_eq!(refused(&arp), FrameFault::Unsupported { ethertype: 0x0806, protocol: 0 });
    let icmp = changed(V4, 14 + 9, &[1]);
    assert_eq!(refused(&icmp), FrameFault::Unsupported { ethertype: 0x0800, protocol: 1 });
    for flags in [[0x20, 0], [0, 1], [0x1f, 0xff]] {
        assert_eq!(refused(&changed(V4, 14 + 6, &flags)), FrameFault::Fragment);
    }
    for (at, bytes) in [(0, [0x65, 0]), (0, [0x44, 0]), (0, [0x4f, 0]), (2, [0, 19]), (2, [0xff, 0xff])] {
        assert_eq!(refused(&changed(V4, 14 + at, &bytes)), FrameFault::BrokenHeader("IPv4"), "{at}");
    }
    for (at, bytes) in [(0, [0x40, 0]), (4, [0xff, 0xff])] {
        assert_eq!(refused(&changed(V6, 14 + at, &bytes)), FrameFault::BrokenHeader("IPv6"));
    }
    for words in [0x40, 0xf0] {
        assert_eq!(refused(&changed(V4, 14 + 20 + 12, &[words])), FrameFault::BrokenHeader("TCP"));
    }
    let mut udp = Recipe::new(V4, Transport::Udp, vec![]).frame();
    for length in [7, 9] {
        udp[14 + 20 + 5] = length;
        assert_eq!(refused(&udp), FrameFault::BrokenHeader("UDP"));
    }
    assert_eq!(refused(&changed(V4, 12, &[0x81, 0])[..15]), FrameFault::BrokenHeader("VLAN"));
}

#[test]
fn chains_of_headers_have_bounds() {
    let recipe = |tags, extras| Recipe { tags, extras, ..Recipe::new(IpVersion::V6, Transport::Tcp, vec![]) };
    assert!(Layout::of(&recipe(VLAN_TAGS_MAX, EXTENSION_HEADERS_MAX).frame()).is_ok());
    assert_eq!(refused(&recipe(VLAN_TAGS_MAX + 1, 0).frame()), FrameFault::TooMany("VLAN tags"));
    let fault = FrameFault::TooMany("IPv6 extension headers");
    assert_eq!(refused(&recipe(0, EXTENSION_HEADERS_MAX + 1).frame()), fault);
}

#[test]
fn extension_headers_that_change_the_meaning_are_refused() {
    let frame = |kind: u8, header: [u8; 8]| {
        let mut frame = Recipe { extras: 1, ..Recipe::new(IpVersion::V6, Transport::Tcp, vec![]) }.frame();
        frame[14 + 6] = kind;
        frame[14 + 40..][..8].copy_from_slice(&header);
        frame
    };
    assert_eq!(refused(&frame(43, [6, 1, 0, 1, 0, 0, 0, 0])), FrameFault::SourceRouted);
    assert_eq!(refused(&frame(44, [6, 0, 0, 1, 0, 0, 0, 0])), FrameFault::Fragment);
    assert_eq!(refused(&frame(44, [6, 0, 0, 8, 0, 0, 0, 0])), FrameFault::Fragment);
    assert_eq!(refused(&frame(0, [6, 200, 0, 0, 0, 0, 0, 0])), FrameFault::BrokenHeader("IPv6 extension"));
}
