//! Small values kept twice.

/// A value and its copy. A flipped bit makes them differ, which no answer survives: the process ends, and another
/// replica goes on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Twin<T> {
    value: T,
    copy: T,
}

impl<T: Copy + PartialEq> Twin<T> {
    pub const fn new(value: T) -> Twin<T> {
        Twin { value, copy: value }
    }

    /// The value.
    ///
    /// # Panics
    /// If the two differ.
    pub fn get(&self) -> T {
        assert!(self.value == self.copy, "a value and its copy differ: memory is damaged");
        self.value
    }

    pub fn set(&mut self, value: T) {
        *self = Twin::new(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_is_there() {
        let mut twin = Twin::new(5);
        twin.set(twin.get() + 1);
        assert_eq!(twin.get(), 6);
    }

    #[test]
    #[should_panic = "memory is damaged"]
    fn a_flipped_bit_lets_nothing_out() {
        let mut twin = Twin::new(5);
        twin.value ^= 4;
        twin.get();
    }
}
