//! Frames for the tests.

use crate::{IpVersion, Transport};

/// A frame to make. Its checksums are wrong.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    pub tags: usize,
    pub version: IpVersion,
    /// IPv4: words of options; IPv6: extension headers.
    pub extras: usize,
    pub transport: Transport,
    /// TCP: words of options.
    pub options: usize,
    pub payload: Vec<u8>,
    pub padding: usize,
}

impl Recipe {
    pub(crate) fn new(version: IpVersion, transport: Transport, payload: Vec<u8>) -> Self {
        Self { tags: 0, version, extras: 0, transport, options: 0, payload, padding: 0 }
    }

    pub(crate) fn frame(&self) -> Vec<u8> {
        let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
        (0..self.tags).for_each(|_| frame.extend([0x81, 0, 0, 5]));
        let transport = self.transport_header();
        let inner = transport.len() + self.payload.len();
        match self.version {
            IpVersion::V4 => self.ipv4(&mut frame, inner),
            IpVersion::V6 => self.ipv6(&mut frame, inner),
        }
        frame.extend(transport);
        frame.extend(&self.payload);
        frame.extend(vec![0xee; self.padding]);
        frame
    }

    fn transport_header(&self) -> Vec<u8> {
        let ports = [0x30, 0x39, 0x00, 0x50];
        match self.transport {
            Transport::Tcp => {
                let words = u8::try_from(5 + self.options).unwrap();
                let rest = [0xff, 0xff, 0xff, 0, 0, 0, 0, 9, words << 4, 0x99, 1, 0, 0xab, 0xcd, 0, 0];
                [&ports[..], &rest, &vec![1; 4 * self.options]].concat()
            }
            Transport::Udp => {
                let [high, low] = u16::try_from(8 + self.payload.len()).unwrap().to_be_bytes();
                [&ports[..], &[high, low, 0xab, 0xcd]].concat()
            }
        }
    }

    fn ipv4(&self, frame: &mut Vec<u8>, inner: usize) {
        let header = 20 + 4 * self.extras;
        let [high, low] = u16::try_from(header + inner).unwrap().to_be_bytes();
        let words = u8::try_from(header / 4).unwrap();
        frame.extend([0x08, 0, 0x40 | words, 0, high, low, 0xff, 0xff, 0x40, 0, 64, self.transport.number()]);
        frame.extend([0, 0, 10, 0, 0, 1, 192, 168, 255, 7]);
        frame.extend(vec![1; 4 * self.extras]);
    }

    fn ipv6(&self, frame: &mut Vec<u8>, inner: usize) {
        // Hop-by-hop options of 16 bytes, routing with nothing left, an only fragment, options for the destination.
        let kinds = [(0, 1), (43, 1), (44, 0), (60, 0)];
        let headers: Vec<_> = (0..self.extras).map(|number| kinds[number % 4]).collect();
        let bytes: usize = headers.iter().map(|(_, units)| 8 + 8 * usize::from(*units)).sum();
        let [high, low] = u16::try_from(bytes + inner).unwrap().to_be_bytes();
        let number =
            |place: usize| headers.get(place).map_or_else(|| self.transport.number(), |(kind, _)| *kind);
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, high, low, number(0), 64]);
        frame.extend([0x20; 16]);
        frame.extend([0xfe; 16]);
        for (place, (kind, units)) in headers.iter().enumerate() {
            // A fragment header has no length.
            frame.extend([number(place + 1), if *kind == 44 { 0 } else { *units }, 0, 0, 0, 0, 0, 0]);
            frame.extend(vec![0; 8 * usize::from(*units)]);
        }
    }
}

/// The ones' complement sum, as RFC 1071 puts it.
pub(crate) fn naive_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}
