//! Which numbers of a flow came, in bounded memory.

use crate::limits::WINDOW_FRAMES;

/// How a number came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It is the newest so far.
    New,
    /// A newer one came before, and this one for the first time.
    Reordered,
    /// It came before.
    Duplicate,
    /// It is so old that nobody knows.
    TooOld,
}

/// The numbers of a flow, from 0 on.
#[derive(Debug)]
pub struct Window {
    seen: Vec<u64>,
    /// The newest number, plus one.
    next: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self { seen: vec![0; (WINDOW_FRAMES / 64) as usize], next: 0 }
    }
}

impl Window {
    /// The newest number so far, plus one.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Takes note of a number.
    pub fn note(&mut self, number: u64) -> Arrival {
        if number >= self.next {
            self.forget(number);
            self.set(number);
            self.next = number.saturating_add(1);
            return Arrival::New;
        }
        if self.next - number > WINDOW_FRAMES {
            return Arrival::TooOld;
        }
        if self.set(number) { Arrival::Duplicate } else { Arrival::Reordered }
    }

    /// Makes room for the numbers up to `number`.
    fn forget(&mut self, number: u64) {
        if number - self.next >= WINDOW_FRAMES {
            return self.seen.fill(0);
        }
        for number in self.next..=number {
            let (word, bit) = place(number);
            self.seen[word] &= !bit;
        }
    }

    /// Was it set before?
    fn set(&mut self, number: u64) -> bool {
        let (word, bit) = place(number);
        let before = self.seen[word] & bit != 0;
        self.seen[word] |= bit;
        before
    }
}

fn place(number: u64) -> (usize, u64) {
    let number = number % WINDOW_FRAMES;
    ((number / 64) as usize, 1 << (number % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Arrival::{Duplicate, New, Reordered, TooOld};

    #[test]
    fn numbers_are_told_apart() {
        let mut window = Window::default();
        let numbers = [0, 2, 1, 1, 2, 5, 0, 3];
        let arrivals = numbers.map(|number| window.note(number));
        assert_eq!(arrivals, [New, New, Reordered, Duplicate, Duplicate, New, Duplicate, Reordered]);
        assert_eq!(window.next(), 6);
    }

    #[test]
    fn the_bound_on_the_window_is_reached_and_kept() {
        let mut window = Window::default();
        window.note(0);
        window.note(WINDOW_FRAMES);
        assert_eq!(window.note(1), Reordered);
        assert_eq!(window.note(0), TooOld);
        window.note(WINDOW_FRAMES + 1);
        assert_eq!(window.note(1), TooOld);
        assert_eq!(window.note(2), Reordered);
        // A leap forgets all.
        window.note(5 * WINDOW_FRAMES + 7);
        assert_eq!(window.note(4 * WINDOW_FRAMES + 9), Reordered);
        assert_eq!(window.note(u64::MAX), New);
    }
}
