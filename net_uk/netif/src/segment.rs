//! Cutting a TCP frame into segments, as a network card would.

use crate::checksum::{Sum, complete_at};
use crate::layout::IPV6_BYTES;
use crate::limits::GSO_SIZE_MIN;
use crate::{FrameFault, Gso, GsoKind, IpVersion, Layout, Transport};

/// Flags in byte 13 of the TCP header.
mod tcp_flags {
    pub const FIN: u8 = 0x01;
    pub const PSH: u8 = 0x08;
    pub const CWR: u8 = 0x80;
}

/// Cuts one frame. Each segment is written into a buffer of the caller; nothing is allocated.
#[derive(Debug, Clone)]
pub struct Segmenter<'a> {
    frame: &'a [u8],
    layout: Layout,
    size_bytes: usize,
    count: usize,
    next: usize,
}

impl<'a> Segmenter<'a> {
    /// Begins to cut a contiguous frame into segments of at most `max_bytes` with headers. The frame's checksums do not
    /// matter.
    ///
    /// # Errors
    /// [`FrameFault`] if it is not what `gso` says, or a segment would be too short or too long.
    pub fn new(frame: &'a [u8], gso: Gso, max_bytes: usize) -> Result<Self, FrameFault> {
        let layout = Layout::of(frame)?;
        let version = match gso.kind {
            GsoKind::TcpV4 => IpVersion::V4,
            GsoKind::TcpV6 => IpVersion::V6,
        };
        if layout.transport != Transport::Tcp || layout.ip_version != version {
            return Err(FrameFault::NotThisGso);
        }
        if gso.size_bytes < GSO_SIZE_MIN {
            return Err(FrameFault::SegmentSize(gso.size_bytes));
        }
        let (size_bytes, payload_bytes) = (usize::from(gso.size_bytes), layout.end - layout.payload_offset);
        let segment_bytes = layout.payload_offset + size_bytes.min(payload_bytes);
        if segment_bytes > max_bytes {
            return Err(FrameFault::SegmentTooLong { segment_bytes, max_bytes });
        }
        let count = payload_bytes.div_ceil(size_bytes).max(1);
        Ok(Self { frame, layout, size_bytes, count, next: 0 })
    }

    /// How many segments the frame makes in all: 1 to [`crate::limits::SEGMENTS_MAX`].
    pub fn count(&self) -> usize {
        self.count
    }

    /// Writes the next segment to the beginning of `to`, complete with checksums. Returns its length, or `None` if there
    /// is none left.
    ///
    /// # Panics
    /// If `to` is shorter than the `max_bytes` of [`Segmenter::new`] allow, and too short.
    pub fn write_next(&mut self, to: &mut [u8]) -> Option<usize> {
        if self.next == self.count {
            return None;
        }
        let headers = self.layout.payload_offset;
        let start = headers + self.next * self.size_bytes;
        let payload = &self.frame[start..(start + self.size_bytes).min(self.layout.end)];
        let bytes = headers + payload.len();
        let segment = &mut to[..bytes];
        segment[..headers].copy_from_slice(&self.frame[..headers]);
        segment[headers..].copy_from_slice(payload);
        self.mend_ip(segment);
        self.mend_tcp(segment);
        complete_at(segment, &Layout { end: bytes, ..self.layout });
        self.next += 1;
        Some(bytes)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "a segment is no longer than the frame, nor counts more bytes"
    )]
    fn mend_ip(&self, segment: &mut [u8]) {
        let ip = &mut segment[self.layout.ip_offset..];
        let bytes = ip.len();
        match self.layout.ip_version {
            IpVersion::V4 => {
                ip[2..4].copy_from_slice(&(bytes as u16).to_be_bytes());
                let id = u16::from_be_bytes([ip[4], ip[5]]).wrapping_add(self.next as u16);
                ip[4..6].copy_from_slice(&id.to_be_bytes());
                ip[10..12].fill(0);
                let header = &ip[..self.layout.transport_offset - self.layout.ip_offset];
                let checksum = Sum::default().bytes(header).complement();
                ip[10..12].copy_from_slice(&checksum);
            }
            IpVersion::V6 => ip[4..6].copy_from_slice(&((bytes - IPV6_BYTES) as u16).to_be_bytes()),
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "an offset in the frame")]
    fn mend_tcp(&self, segment: &mut [u8]) {
        let tcp = &mut segment[self.layout.transport_offset..];
        let first = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
        let sequence = first.wrapping_add((self.next * self.size_bytes) as u32);
        tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
        if self.next > 0 {
            tcp[13] &= !tcp_flags::CWR;
        }
        if self.next + 1 < self.count {
            tcp[13] &= !(tcp_flags::FIN | tcp_flags::PSH);
        }
    }
}

#[cfg(test)]
#[path = "segment_tests.rs"]
mod tests;
