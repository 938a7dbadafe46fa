//! TCP and UDP checksums (RFC 1071): completing one that a guest left blank, blanking, verifying.
//!
//! A frame is contiguous here: what a guest's fragments look like no longer matters. The pseudo header is always computed
//! anew; what the guest left in a blank field is not relied on.

use crate::layout::IPV6_BYTES;
use crate::{FrameFault, IpVersion, Layout, Transport};

/// A ones' complement sum. It is kept in the machine's byte order, which comes to the same.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes. Only the last ones that are added may be odd in number.
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks();
        // A frame has far less than 2^32 words, so nothing is carried out of the sum.
        let sum: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        Self(self.0 + sum + u64::from(u32::from_ne_bytes(last)))
    }

    /// Adds a number.
    #[must_use]
    pub fn number(self, number: u32) -> Self {
        self.bytes(&number.to_be_bytes())
    }

    /// The sum, as it stands in a header.
    pub fn folded(self) -> [u8; 2] {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        #[expect(clippy::cast_possible_truncation, reason = "the loop is over")]
        (sum as u16).to_ne_bytes()
    }

    /// The checksum: the complement of the sum.
    pub fn complement(self) -> [u8; 2] {
        self.folded().map(|byte| !byte)
    }
}

/// The sum of the header that TCP and UDP only imagine.
fn pseudo_header(frame: &[u8], layout: &Layout) -> Sum {
    let addresses = match layout.ip_version {
        IpVersion::V4 => layout.ip_offset + 12..layout.ip_offset + 20,
        IpVersion::V6 => layout.ip_offset + 8..layout.ip_offset + IPV6_BYTES,
    };
    #[expect(clippy::cast_possible_truncation, reason = "a frame is shorter")]
    let length = (layout.end - layout.transport_offset) as u32;
    Sum::default().bytes(&frame[addresses]).number(length).number(layout.transport.number().into())
}

fn set(frame: &mut [u8], layout: &Layout, value: [u8; 2]) {
    let at = layout.checksum_offset();
    frame[at..at + 2].copy_from_slice(&value);
}

/// Computes the TCP or UDP checksum of a frame and puts it where it belongs.
///
/// # Errors
/// [`FrameFault`] if there is no such checksum. The frame is unchanged then.
pub fn complete(frame: &mut [u8]) -> Result<(), FrameFault> {
    let layout = Layout::of(frame)?;
    complete_at(frame, &layout);
    Ok(())
}

/// As [`complete`], with the layout known. It must be that of the frame.
pub(crate) fn complete_at(frame: &mut [u8], layout: &Layout) {
    set(frame, layout, [0, 0]);
    let sum = pseudo_header(frame, layout).bytes(&frame[layout.transport_offset..layout.end]);
    let checksum = match (sum.complement(), layout.transport) {
        // Zero means no checksum with UDP; the other zero means zero.
        ([0, 0], Transport::Udp) => [0xff, 0xff],
        (checksum, _) => checksum,
    };
    set(frame, layout, checksum);
}

/// Makes the TCP or UDP checksum of a frame blank as one expects it to be who completes it: the sum of the pseudo header.
///
/// # Errors
/// [`FrameFault`] if there is no such checksum. The frame is unchanged then.
pub fn blank(frame: &mut [u8]) -> Result<(), FrameFault> {
    let layout = Layout::of(frame)?;
    let sum = pseudo_header(frame, &layout).folded();
    set(frame, &layout, sum);
    Ok(())
}

/// Is the TCP or UDP checksum of a frame right?
///
/// # Errors
/// [`FrameFault`] if there is no such checksum.
pub fn verify(frame: &[u8]) -> Result<bool, FrameFault> {
    let layout = Layout::of(frame)?;
    let at = layout.checksum_offset();
    if layout.transport == Transport::Udp && frame[at..at + 2] == [0, 0] {
        // It may be left out with IPv4 only (RFC 8200).
        return Ok(layout.ip_version == IpVersion::V4);
    }
    let sum = pseudo_header(frame, &layout).bytes(&frame[layout.transport_offset..layout.end]);
    Ok(sum.folded() == [0xff, 0xff])
}

#[cfg(test)]
#[path = "checksum_tests.rs"]
mod tests;
