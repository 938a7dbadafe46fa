//! Since when something holds.

use crate::TimeNs;

/// Since when a condition holds without interruption, for one who looks at it now and then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Since(Option<TimeNs>);

impl Since {
    /// Takes a look at `now`: whether it `holds`, and whether it was `interrupted` after the last look (a counter of
    /// interruptions moved). Tells since when it holds.
    pub fn look(&mut self, now: TimeNs, holds: bool, interrupted: bool) -> Option<TimeNs> {
        self.0 = match (holds, self.0) {
            (true, Some(since)) if !interrupted => Some(since),
            (true, _) => Some(now),
            (false, _) => None,
        };
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interruption_starts_anew() {
        let mut since = Since::default();
        assert_eq!(since.look(TimeNs(1), true, false), Some(TimeNs(1)));
        assert_eq!(since.look(TimeNs(2), true, false), Some(TimeNs(1)));
        assert_eq!(since.look(TimeNs(3), true, true), Some(TimeNs(3)));
        assert_eq!(since.look(TimeNs(4), false, false), None);
    }
}
