//! A frame on its way through the shadow, and what has to be done to it for who gets it.

use lane::{FrameFlags, FrameMeta};
use netif::segment::Segmenter;
use netif::{Checksum, FrameFault, Gso, GsoKind, checksum};

use crate::state::Label;

/// What is known of a frame besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// What is known of its checksum.
    pub checksum: Checksum,
    /// How it is to be cut.
    pub gso: Option<Gso>,
    /// Where it came from.
    pub label: Label,
}

impl Facts {
    /// Of a frame in a ring of ours.
    pub fn of(meta: &FrameMeta) -> Self {
        let has = |flag| meta.flags.contains(flag);
        let checksum = match (has(FrameFlags::CSUM_BLANK), has(FrameFlags::CSUM_VALID)) {
            (true, _) => Checksum::Blank,
            (false, true) => Checksum::Validated,
            (false, false) => Checksum::None,
        };
        let kind = match (has(FrameFlags::GSO_V4), has(FrameFlags::GSO_V6)) {
            (true, _) => Some(GsoKind::TcpV4),
            (false, true) => Some(GsoKind::TcpV6),
            (false, false) => None,
        };
        let gso = kind.map(|kind| Gso { kind, size_bytes: meta.gso_bytes });
        Self { checksum, gso, label: Label { source: meta.source, seq: meta.seq } }
    }

    /// The same once nothing is left to do.
    #[must_use]
    pub fn finished(&self) -> Self {
        let checksum = if self.checksum == Checksum::Blank { Checksum::Validated } else { self.checksum };
        Self { checksum, gso: None, label: self.label }
    }

    /// For a ring of ours.
    pub fn meta(&self) -> FrameMeta {
        let checksum = match self.checksum {
            Checksum::None => FrameFlags::NONE,
            Checksum::Blank => FrameFlags::CSUM_BLANK,
            Checksum::Validated => FrameFlags::CSUM_VALID,
        };
        let gso = match self.gso.map(|gso| gso.kind) {
            None => FrameFlags::NONE,
            Some(GsoKind::TcpV4) => FrameFlags::GSO_V4,
            Some(GsoKind::TcpV6) => FrameFlags::GSO_V6,
        };
        FrameMeta {
            flags: checksum | gso,
            gso_bytes: self.gso.map_or(0, |gso| gso.size_bytes),
            source: self.label.source,
            seq: self.label.seq,
            stamp: 0,
        }
    }
}

/// How many frames [`finish`] makes of it; 1 if it is not what the facts say.
pub fn segments_of(frame: &[u8], facts: &Facts) -> u64 {
    let segments = facts.gso.and_then(|gso| Segmenter::new(frame, gso, usize::MAX).ok());
    segments.map_or(1, |segments| segments.count() as u64)
}

/// Gives `each` the frame as it can go where nothing is done to it any more: checksums filled in, in segments of at most
/// `max_bytes`. Afterwards the frame is what its facts say, as before, for the next one who gets it.
///
/// # Errors
/// [`FrameFault`] if the frame is not what the facts say. Nothing was given out then, or `each` said that it cannot go on.
pub fn finish(
    frame: &mut [u8],
    facts: &Facts,
    max_bytes: usize,
    segment: &mut [u8],
    mut each: impl FnMut(&[u8]) -> bool,
) -> Result<bool, FrameFault> {
    let Some(gso) = facts.gso else {
        if facts.checksum != Checksum::Blank {
            return Ok(each(frame));
        }
        checksum::complete(frame)?;
        let goes_on = each(frame);
        checksum::blank(frame)?;
        return Ok(goes_on);
    };
    let mut segments = Segmenter::new(frame, gso, max_bytes)?;
    while let Some(length_bytes) = segments.write_next(segment) {
        if !each(&segment[..length_bytes]) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A broadcast goes to the network card and to guests. The first one who could not take a blank checksum had it filled in
    /// for all, so a second one got it filled in twice, and one who takes blank ones got a full one that was called blank.
    #[test]
    fn a_frame_for_several_is_the_same_for_each() {
        // UDP over IPv4, ports 68 and 67, 4 bytes of payload; the checksum is the last but one field of its header.
        let mut frame = vec![0xff; 12];
        frame.extend([0x08, 0x00, 0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 255, 255, 255, 255]);
        frame.extend([0, 68, 0, 67, 0, 12, 0, 0, 1, 2, 3, 4]);
        checksum::blank(&mut frame).unwrap();
        let mut full = frame.clone();
        checksum::complete(&mut full).unwrap();
        let before = frame.clone();
        let label = Label { source: 9, seq: 77 };
        let facts = Facts { checksum: Checksum::Blank, gso: None, label };
        for _ in 0..3 {
            let mut given = vec![];
            let each = |bytes: &[u8]| {
                given.push(bytes.to_vec());
                true
            };
            assert_eq!(finish(&mut frame, &facts, 1518, &mut [0; 1518], each), Ok(true));
            assert_eq!(given, [full.as_slice()]);
            assert_eq!(frame, before);
        }
        assert!(checksum::verify(&full).unwrap() && full != frame);
    }

    #[test]
    fn facts_pass_through_a_ring() {
        let label = Label { source: 9, seq: 77 };
        let gsos = [
            None,
            Some(Gso { kind: GsoKind::TcpV4, size_bytes: 1448 }),
            Some(Gso { kind: GsoKind::TcpV6, size_bytes: 1428 }),
        ];
        for checksum in [Checksum::None, Checksum::Blank, Checksum::Validated] {
            for gso in gsos {
                let facts = Facts { checksum, gso, label };
                assert_eq!(Facts::of(&facts.meta()), facts);
                facts.meta().check().unwrap();
            }
        }
    }
}
