//! How much of a backlog each source may fill: no more than it leaves free. So one that sends without end takes half of it,
//! two of them a third each, and whoever comes next finds room (a dynamic threshold, Choudhury and Hahne 1998).

use std::collections::BTreeMap;

/// Slots of a backlog by the source of what is in them.
#[derive(Debug, Default)]
pub struct Shares(BTreeMap<u16, u32>);

impl Shares {
    /// May the source fill so many slots more, of those that are free?
    pub fn allows(&self, source: u16, slots: u32, free_slots: u32) -> bool {
        let own = self.0.get(&source).copied().unwrap_or(0);
        own + 2 * slots <= free_slots
    }

    /// It filled them.
    pub fn filled(&mut self, source: u16, slots: u32) {
        *self.0.entry(source).or_default() += slots;
    }

    /// They were taken off. Of those that a former shadow filled nothing is known.
    pub fn emptied(&mut self, source: u16, slots: u32) {
        if let Some(own) = self.0.get_mut(&source) {
            *own = own.saturating_sub(slots);
        }
    }

    /// Nothing is left, whatever was passed over on the way.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u32 = 2048;

    fn fill(shares: &mut Shares, source: u16, used: &mut u32) -> u32 {
        let before = *used;
        while shares.allows(source, 1, ALL - *used) {
            shares.filled(source, 1);
            *used += 1;
        }
        *used - before
    }

    #[test]
    fn one_source_takes_half_and_the_next_one_finds_room() {
        let (mut shares, mut used) = (Shares::default(), 0);
        assert_eq!(fill(&mut shares, 1, &mut used), ALL / 2);
        assert_eq!(fill(&mut shares, 2, &mut used), ALL / 4);
        assert!(fill(&mut shares, 3, &mut used) > 0);
        shares.emptied(1, 600);
        used -= 600;
        assert!(fill(&mut shares, 3, &mut used) > 100);
    }

    #[test]
    fn the_longest_frame_fits_into_an_empty_backlog() {
        let slots = u32::try_from(lane::limits::FRAME_SLOTS_MAX).unwrap();
        assert!(Shares::default().allows(1, slots, crate::limits::BACKLOG_SLOTS));
        assert!(!Shares::default().allows(1, 1, 1));
    }
}
