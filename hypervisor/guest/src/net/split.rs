//! How a frame is spread over pages.

use hypervisor::PAGE_BYTES;

use crate::limits::TX_DATA_SLOTS_MAX;

/// Bytes of an Ethernet header, which Linux keeps in the first fragment.
const ETHERNET_BYTES: usize = 14;
const TINY_BYTES: usize = 16;

/// A way to spread frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Splits {
    /// Page after page.
    #[default]
    Whole,
    /// At random, with the Ethernet header in the first.
    Random,
    /// Many fragments of a few bytes, all headers among them, and the rest.
    Tiny,
}

/// A fragment: where in its page, and how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// In bytes.
    pub offset: u16,
    /// In bytes, at least 1.
    pub length: u16,
}

impl Splits {
    /// Spreads a frame of at least 1 and at most [`crate::limits::TX_FRAME_BYTES_MAX`] bytes.
    pub fn fragments(self, frame_bytes: usize, random: &mut fastrand::Rng) -> Vec<Fragment> {
        let mut fragments = vec![];
        let mut rest = frame_bytes;
        while rest > 0 {
            let slots_after = TX_DATA_SLOTS_MAX - 1 - fragments.len();
            let least = rest.saturating_sub(slots_after * PAGE_BYTES).max(1);
            let least = if fragments.is_empty() { least.max(self.first_bytes().min(rest)) } else { least };
            let length = self.pick(least, rest.min(PAGE_BYTES), random);
            let offset = if self == Self::Whole { 0 } else { random.usize(0..=PAGE_BYTES - length) };
            fragments.push(Fragment { offset: narrow(offset), length: narrow(length) });
            rest -= length;
        }
        fragments
    }

    fn first_bytes(self) -> usize {
        if self == Self::Tiny { 1 } else { ETHERNET_BYTES }
    }

    fn pick(self, least: usize, most: usize, random: &mut fastrand::Rng) -> usize {
        match self {
            Self::Whole => most,
            // Half of them short: headers are split, and small frames take many slots.
            Self::Random if random.bool() => random.usize(least..=most.min(least + 100)),
            Self::Random => random.usize(least..=most),
            Self::Tiny => random.usize(least..=most.min(least + TINY_BYTES)),
        }
    }
}

fn narrow(bytes: usize) -> u16 {
    u16::try_from(bytes).expect("at most a page")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::TX_FRAME_BYTES_MAX;

    #[test]
    fn fragments_hold_the_frame_within_pages_and_slots() {
        let mut random = fastrand::Rng::with_seed(1);
        for splits in [Splits::Whole, Splits::Random, Splits::Tiny] {
            for round in 0..2000 {
                let bytes =
                    if round == 0 { TX_FRAME_BYTES_MAX } else { random.usize(1..=TX_FRAME_BYTES_MAX) };
                let fragments = splits.fragments(bytes, &mut random);
                assert!(fragments.len() <= TX_DATA_SLOTS_MAX);
                assert_eq!(fragments.iter().map(|part| usize::from(part.length)).sum::<usize>(), bytes);
                for part in fragments {
                    assert!(part.length > 0 && usize::from(part.offset + part.length) <= PAGE_BYTES);
                }
            }
        }
    }

    #[test]
    fn small_frames_can_take_all_slots() {
        let mut random = fastrand::Rng::with_seed(2);
        let most = (0..200).map(|_| Splits::Tiny.fragments(60, &mut random).len()).max();
        assert!(most > Some(8), "{most:?}");
        let first = (0..200).map(|_| Splits::Random.fragments(60, &mut random)[0].length).min();
        assert_eq!(first, Some(14));
        assert_eq!(Splits::Whole.fragments(1514, &mut random), [Fragment { offset: 0, length: 1514 }]);
    }
}
