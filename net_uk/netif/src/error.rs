//! What can be wrong with a ring, a packet and a frame.

use crate::Index;
use crate::limits::{EXTRAS_MAX, FRAME_BYTES_MAX, FRAME_BYTES_MIN, TX_PARTS_MAX, TX_REQUESTS_MAX};

/// The ring cannot be followed any further. The interface is disabled, and no other is touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RingFault {
    /// The distance between the frontend's index and ours is more than a ring.
    #[error("request index {peer} of the frontend is impossible beside {own}")]
    ImpossibleIndex {
        /// The index that it is measured from.
        own: Index,
        /// The frontend's.
        peer: Index,
    },
    /// A packet of more than [`TX_REQUESTS_MAX`] requests.
    #[error("the packet at {index} has more than {TX_REQUESTS_MAX} requests")]
    TooManySlots {
        /// Its first request.
        index: Index,
    },
    /// A packet whose last slot was not pushed together with its first.
    #[error("the packet at {index} goes on behind the last request")]
    Incomplete {
        /// Its first request.
        index: Index,
    },
}

/// The packet is bad, but the next one is where it should be. All its slots are answered with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketFault {
    /// More than [`TX_PARTS_MAX`] requests.
    #[error("more than {TX_PARTS_MAX} requests")]
    TooManyParts,
    /// More than [`EXTRAS_MAX`] slots of extra information.
    #[error("more than {EXTRAS_MAX} slots of extra information")]
    TooManyExtras,
    /// The packet's size, in its first request, is less than what follows.
    #[error("{total_bytes} bytes in all, but {rest_bytes} behind the first request")]
    Size {
        /// What the first request says.
        total_bytes: u16,
        /// The sum of the others.
        rest_bytes: u32,
    },
    /// A request that reaches beyond its page.
    #[error("{length_bytes} bytes at {offset_bytes} cross the end of the page")]
    CrossesPage {
        /// Where in the page it begins.
        offset_bytes: u16,
        /// Its length.
        length_bytes: u16,
    },
    /// Less than an Ethernet header.
    #[error("{total_bytes} bytes are no frame")]
    TooShort {
        /// What the first request says.
        total_bytes: u16,
    },
    /// Extra information of no known kind.
    #[error("extra information of unknown type {0}")]
    UnknownExtra(u8),
    /// Segmentation of an unknown kind or to an absurd size.
    #[error("segmentation of type {kind} to {size_bytes} bytes")]
    BadGso {
        /// The type on the wire.
        kind: u8,
        /// Payload bytes of a segment.
        size_bytes: u16,
    },
    /// A change of the multicast list that carries data.
    #[error("a change of the multicast list with data")]
    MulticastWithData,
}

/// The bytes of a frame are not what they are said to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameFault {
    /// Less than a header or more than any frame.
    #[error("{0} bytes are no frame ({FRAME_BYTES_MIN} to {FRAME_BYTES_MAX})")]
    Length(usize),
    /// A header that does not fit, or whose lengths contradict each other.
    #[error("a broken {0} header")]
    BrokenHeader(&'static str),
    /// No protocol with a checksum that could be computed here.
    #[error("ethertype {ethertype:#06x}, protocol {protocol}: no known checksum")]
    Unsupported {
        /// The ethertype behind all tags.
        ethertype: u16,
        /// The IP protocol, or 0.
        protocol: u8,
    },
    /// A fragment of an IP packet: its checksum covers bytes that are elsewhere.
    #[error("a fragment of an IP packet")]
    Fragment,
    /// More tags or extension headers than are looked through.
    #[error("too many {0}")]
    TooMany(&'static str),
    /// A routing header with addresses ahead: the checksum is for another destination.
    #[error("a source-routed packet")]
    SourceRouted,
    /// The frame is not of the kind that is to be segmented.
    #[error("not TCP of the IP version to be segmented")]
    NotThisGso,
    /// Segments smaller than makes sense.
    #[error("segments of {0} bytes")]
    SegmentSize(u16),
    /// A segment would be longer than allowed.
    #[error("segments of {segment_bytes} bytes with headers, {max_bytes} are allowed")]
    SegmentTooLong {
        /// Headers and payload.
        segment_bytes: usize,
        /// What the caller allows.
        max_bytes: usize,
    },
}
