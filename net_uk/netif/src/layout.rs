//! Where the headers of a frame are.

use crate::FrameFault;
use crate::limits::{EXTENSION_HEADERS_MAX, FRAME_BYTES_MAX, FRAME_BYTES_MIN, VLAN_TAGS_MAX};

const ETHERTYPE_OFFSET: usize = 12;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// Ethertypes of tags: customer's and provider's.
const TAGS: [u16; 2] = [0x8100, 0x88a8];
const TAG_BYTES: usize = 4;
const IPV4_BYTES: usize = 20;
pub(crate) const IPV6_BYTES: usize = 40;
const TCP_BYTES: usize = 20;
const UDP_BYTES: usize = 8;

/// Protocol numbers.
mod protocol {
    pub const HOP_BY_HOP: u8 = 0;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const DESTINATION: u8 = 60;
}

/// A version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are numbers")]
pub enum IpVersion {
    V4,
    V6,
}

/// A protocol over IP with a checksum that can be left to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are names")]
pub enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Tcp => protocol::TCP,
            Self::Udp => protocol::UDP,
        }
    }
}

/// Where the headers of a TCP or UDP frame are. All of it lies within the frame: `ip_offset < transport_offset <=
/// payload_offset <= end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The version of IP.
    pub ip_version: IpVersion,
    /// What is in it.
    pub transport: Transport,
    /// Offset of the IP header.
    pub ip_offset: usize,
    /// Offset of the TCP or UDP header.
    pub transport_offset: usize,
    /// Offset of the bytes after that header.
    pub payload_offset: usize,
    /// Offset behind the last of them; padding of the frame may follow.
    pub end: usize,
}

impl Layout {
    /// Reads the headers of a frame.
    ///
    /// # Errors
    /// What is wrong with them, or that they are of other protocols.
    pub fn of(frame: &[u8]) -> Result<Self, FrameFault> {
        if !(FRAME_BYTES_MIN as usize..=FRAME_BYTES_MAX as usize).contains(&frame.len()) {
            return Err(FrameFault::Length(frame.len()));
        }
        let (ethertype, ip_offset) = skip_tags(frame)?;
        let ip = match ethertype {
            IPV4 => ipv4(frame, ip_offset)?,
            IPV6 => ipv6(frame, ip_offset)?,
            _ => return Err(FrameFault::Unsupported { ethertype, protocol: 0 }),
        };
        let (transport, payload_offset, end) = match ip.protocol {
            protocol::TCP => tcp(frame, &ip)?,
            protocol::UDP => udp(frame, &ip)?,
            protocol => return Err(FrameFault::Unsupported { ethertype, protocol }),
        };
        let transport_offset = ip.payload_offset;
        let ip_version = ip.version;
        Ok(Self { ip_version, transport, ip_offset, transport_offset, payload_offset, end })
    }

    /// Offset of the TCP or UDP checksum.
    pub fn checksum_offset(&self) -> usize {
        self.transport_offset
            + match self.transport {
                Transport::Tcp => 16,
                Transport::Udp => 6,
            }
    }
}

/// An IP header.
struct Ip {
    version: IpVersion,
    protocol: u8,
    payload_offset: usize,
    end: usize,
}

fn be16(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().map(|field| u16::from_be_bytes(*field))
}

fn skip_tags(frame: &[u8]) -> Result<(u16, usize), FrameFault> {
    let mut offset = ETHERTYPE_OFFSET;
    for _ in 0..=VLAN_TAGS_MAX {
        let ethertype = be16(frame, offset).ok_or(FrameFault::BrokenHeader("VLAN"))?;
        if !TAGS.contains(&ethertype) {
            return Ok((ethertype, offset + 2));
        }
        offset += TAG_BYTES;
    }
    Err(FrameFault::TooMany("VLAN tags"))
}

fn ipv4(frame: &[u8], offset: usize) -> Result<Ip, FrameFault> {
    const BROKEN: FrameFault = FrameFault::BrokenHeader("IPv4");
    let packet = frame.get(offset..).unwrap_or_default();
    let header: &[u8; IPV4_BYTES] = packet.first_chunk().ok_or(BROKEN)?;
    let header_bytes = usize::from(header[0] & 15) * 4;
    let total_bytes = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let lengths_fit =
        IPV4_BYTES <= header_bytes && header_bytes <= total_bytes && total_bytes <= packet.len();
    if header[0] >> 4 != 4 || !lengths_fit {
        return Err(BROKEN);
    }
    // More fragments follow, or this is not the first.
    if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
        return Err(FrameFault::Fragment);
    }
    Ok(Ip {
        version: IpVersion::V4,
        protocol: header[9],
        payload_offset: offset + header_bytes,
        end: offset + total_bytes,
    })
}

fn ipv6(frame: &[u8], offset: usize) -> Result<Ip, FrameFault> {
    const BROKEN: FrameFault = FrameFault::BrokenHeader("IPv6");
    let packet = frame.get(offset..).unwrap_or_default();
    let header: &[u8; IPV6_BYTES] = packet.first_chunk().ok_or(BROKEN)?;
    let total_bytes = IPV6_BYTES + usize::from(u16::from_be_bytes([header[4], header[5]]));
    if header[0] >> 4 != 6 || total_bytes > packet.len() {
        return Err(BROKEN);
    }
    let (protocol, length) = skip_extensions(&packet[IPV6_BYTES..total_bytes], header[6])?;
    let payload_offset = offset + IPV6_BYTES + length;
    Ok(Ip { version: IpVersion::V6, protocol, payload_offset, end: offset + total_bytes })
}

/// The protocol behind the extension headers at the beginning of `payload`, and their length.
fn skip_extensions(payload: &[u8], first: u8) -> Result<(u8, usize), FrameFault> {
    let (mut protocol, mut offset) = (first, 0);
    for _ in 0..=EXTENSION_HEADERS_MAX {
        if !is_extension(protocol) {
            return Ok((protocol, offset));
        }
        let header = payload.get(offset..).unwrap_or_default();
        let [next, units, _, segments_left, ..] = *header else {
            return Err(FrameFault::BrokenHeader("IPv6 extension"));
        };
        let length = match protocol {
            protocol::FRAGMENT if be16(header, 2).is_none_or(|field| field & 0xfff9 != 0) => {
                return Err(FrameFault::Fragment);
            }
            protocol::FRAGMENT => 8,
            protocol::ROUTING if segments_left != 0 => return Err(FrameFault::SourceRouted),
            _ => 8 + 8 * usize::from(units),
        };
        if length > header.len() {
            return Err(FrameFault::BrokenHeader("IPv6 extension"));
        }
        (protocol, offset) = (next, offset + length);
    }
    Err(FrameFault::TooMany("IPv6 extension headers"))
}

fn is_extension(protocol: u8) -> bool {
    use protocol::{DESTINATION, FRAGMENT, HOP_BY_HOP, ROUTING};
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION)
}

fn tcp(frame: &[u8], ip: &Ip) -> Result<(Transport, usize, usize), FrameFault> {
    let segment = &frame[ip.payload_offset..ip.end];
    let header_bytes = segment.get(12).map_or(0, |byte| usize::from(byte >> 4) * 4);
    if header_bytes < TCP_BYTES || header_bytes > segment.len() {
        return Err(FrameFault::BrokenHeader("TCP"));
    }
    Ok((Transport::Tcp, ip.payload_offset + header_bytes, ip.end))
}

fn udp(frame: &[u8], ip: &Ip) -> Result<(Transport, usize, usize), FrameFault> {
    let datagram = &frame[ip.payload_offset..ip.end];
    let bytes = be16(datagram, 4).map_or(0, usize::from);
    if bytes < UDP_BYTES || bytes > datagram.len() {
        return Err(FrameFault::BrokenHeader("UDP"));
    }
    Ok((Transport::Udp, ip.payload_offset + UDP_BYTES, ip.payload_offset + bytes))
}
