//! What can be wrong with a lane.

use crate::cursor::Cursor;

/// What can be wrong with a lane or with the other side of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LaneError {
    /// The memory holds something else.
    #[error("no lane or ring here: it begins with {have:#x}")]
    Magic {
        /// What was found in the place of the magic number.
        have: u64,
    },
    /// The memory has another version of the layout.
    #[error("layout version {have}, this program knows version {need}")]
    Version {
        /// The version found.
        have: u32,
        /// The version known.
        need: u32,
    },
    /// The number of slots is no power of two within bounds, or the slots have another size.
    #[error("{slots} slots of {slot_bytes} bytes")]
    Slots {
        /// Slots of the ring.
        slots: u32,
        /// Bytes of each.
        slot_bytes: u32,
    },
    /// The region ends before the ring does, or the ring does not begin at a page.
    #[error("a ring of {need_bytes} bytes at {offset} in a region of {have_bytes} bytes")]
    Bounds {
        /// Where the ring begins.
        offset: usize,
        /// Its size.
        need_bytes: usize,
        /// Size of the region.
        have_bytes: usize,
    },
    /// The indices contradict each other: one side wrote nonsense.
    #[error("produced {produced}, consumed {consumed}, with {slots} slots")]
    Indices {
        /// The producer's index.
        produced: Cursor,
        /// The consumer's.
        consumed: Cursor,
        /// Slots of the ring.
        slots: u32,
    },
    /// A published descriptor makes no sense.
    #[error("descriptor {slot}: {fault}")]
    Descriptor {
        /// Its place in the ring.
        slot: u32,
        /// What is wrong.
        fault: DescriptorFault,
    },
    /// A frame to be written is empty or too long.
    #[error("a frame of {length_bytes} bytes")]
    Length {
        /// Its length.
        length_bytes: usize,
    },
    /// What is to be said of a frame contradicts itself.
    #[error("flags {flags:#06x} with segments of {gso_bytes} bytes")]
    Meta {
        /// The flags.
        flags: u16,
        /// Bytes of one segment.
        gso_bytes: u16,
    },
}

impl LaneError {
    /// Whether what the other side wrote makes no sense. It may have been changed by something else; an index is then written
    /// again by its owner.
    pub fn is_nonsense(&self) -> bool {
        matches!(self, Self::Indices { .. } | Self::Descriptor { .. })
    }
}

/// What is wrong with a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DescriptorFault {
    /// It was written for another position.
    #[error("written for another position")]
    Position,
    /// Descriptor or bytes are not those that were written: a bit flipped, or a writer lied.
    #[error("wrong sum")]
    Sum,
    /// It belongs to another frame than the indices say.
    #[error("another frame's number")]
    Number,
    /// The length is 0 or more than a slot holds.
    #[error("impossible length")]
    Length,
    /// A flag is unknown, or flags contradict each other.
    #[error("impossible flags")]
    Flags,
    /// A slot that is followed by another one of the same frame is not full.
    #[error("a gap within the frame")]
    Gap,
    /// The slots of one frame differ in what they say of it.
    #[error("slots of one frame differ")]
    Mixed,
    /// The last published slot says that the frame goes on.
    #[error("the frame goes on beyond what is published")]
    Unfinished,
    /// The frame is longer than any may be.
    #[error("too long")]
    TooLong,
}
