//! The learned addresses of one port.

use crate::MacAddress;

/// Addresses in the order in which they were learned, up to a bound; then the oldest place is used again. Memory is taken
/// when the port is made.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    places: Vec<Option<MacAddress>>,
    max: usize,
    hand: usize,
}

impl Addresses {
    pub fn new(max: usize) -> Self {
        Self { places: Vec::with_capacity(max), max, hand: 0 }
    }

    /// Takes an address in. Tells its place, and the address that had to make room.
    pub fn insert(&mut self, mac: MacAddress) -> (usize, Option<MacAddress>) {
        if self.places.len() < self.max {
            self.places.push(Some(mac));
            return (self.places.len() - 1, None);
        }
        let place = self.hand;
        self.hand = (self.hand + 1) % self.max;
        (place, self.places[place].replace(mac))
    }

    /// Leaves a place empty, until its turn comes.
    pub fn clear(&mut self, place: usize) {
        self.places[place] = None;
    }

    pub fn iter(&self) -> impl Iterator<Item = MacAddress> {
        self.places.iter().flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room() {
        let mac = |last| MacAddress([2, 0, 0, 0, 0, last]);
        let mut addresses = Addresses::new(2);
        assert_eq!(addresses.insert(mac(1)), (0, None));
        assert_eq!(addresses.insert(mac(2)), (1, None));
        assert_eq!(addresses.insert(mac(3)), (0, Some(mac(1))));
        addresses.clear(1);
        assert_eq!(addresses.insert(mac(4)), (1, None));
        assert_eq!(addresses.insert(mac(5)), (0, Some(mac(3))));
        assert_eq!(addresses.iter().collect::<Vec<_>>(), [mac(5), mac(4)]);
    }
}
