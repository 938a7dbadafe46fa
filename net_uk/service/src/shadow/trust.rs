//! Whether the other side of a lane can be believed.
//!
//! ```text
//!          an index makes no sense            for 20 ms
//!   Full ------------------------> Doubted ------------> GivenUp
//!    ^  <------------------------                            |
//!    |        it makes sense                                 |
//!    +-------------------------------------------------------+
//!                a new driver has mended the lane
//! ```
//! An index that something else changed is written again by its owner whenever its loop turns. One that stays is a lie.

use std::time::Duration;

use crate::limits::{LANE_LOOK, LANE_PATIENCE};

/// How far it is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Everything makes sense.
    Full,
    /// An index makes no sense.
    Doubted {
        /// Since when; not known before the next look.
        since: Option<Duration>,
    },
    /// Nothing more is expected before a new driver.
    GivenUp {
        /// When the driver was accused last.
        accused: Duration,
    },
}

/// What follows from a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// The index makes sense again.
    Healed,
    /// The driver is to be accused.
    Accuse,
    /// A new driver is there.
    Mended,
}

impl Trust {
    /// An index was found to make no sense.
    pub fn doubt(&mut self) {
        if *self == Self::Full {
            *self = Self::Doubted { since: None };
        }
    }

    /// A look at some time: do the indices make sense, and is the lane still given up?
    pub fn look(&mut self, now: Duration, sensible: bool, given_up: bool) -> Option<News> {
        let late = |since: Duration| now.saturating_sub(since) >= LANE_PATIENCE;
        match *self {
            Self::Full => None,
            Self::Doubted { since: None } => {
                *self = Self::Doubted { since: Some(now) };
                None
            }
            Self::Doubted { since: Some(since) } if sensible && !given_up => {
                let looked = now.saturating_sub(since) >= LANE_LOOK;
                looked.then(|| self.become_full(News::Healed))?
            }
            Self::Doubted { since: Some(since) } if late(since) => self.accuse(now),
            Self::GivenUp { .. } if !given_up => self.become_full(News::Mended),
            // Whoever was told may have died.
            Self::GivenUp { accused } if late(accused) => self.accuse(now),
            Self::Doubted { .. } | Self::GivenUp { .. } => None,
        }
    }

    fn accuse(&mut self, now: Duration) -> Option<News> {
        *self = Self::GivenUp { accused: now };
        Some(News::Accuse)
    }

    fn become_full(&mut self, news: News) -> Option<News> {
        *self = Self::Full;
        Some(news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_changed_index_heals_and_a_lie_is_told() {
        let mut trust = Trust::Full;
        assert_eq!(trust.look(at(0), true, false), None);
        trust.doubt();
        assert_eq!(trust.look(at(1), false, false), None);
        assert_eq!(trust.look(at(1), true, false), None, "its owner gets time to write it again");
        assert_eq!(trust.look(at(20), true, false), Some(News::Healed));
        trust.doubt();
        trust.doubt();
        assert_eq!(trust.look(at(100), false, false), None);
        assert_eq!(trust.look(at(119), false, false), None);
        assert_eq!(trust.look(at(120), false, false), Some(News::Accuse));
        assert_eq!(trust.look(at(130), true, true), None);
        assert_eq!(trust.look(at(140), true, true), Some(News::Accuse));
        assert_eq!(trust.look(at(141), true, false), Some(News::Mended));
        assert_eq!(trust, Trust::Full);
    }

    #[test]
    fn a_lane_that_was_given_up_is_not_trusted_because_it_makes_sense() {
        let mut trust = Trust::Full;
        trust.doubt();
        trust.look(at(0), true, true);
        assert_eq!(trust, Trust::Doubted { since: Some(at(0)) });
    }
}
