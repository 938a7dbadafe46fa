//! Places where a shadow can be told to die, for tests: just before or after each store that commits something.

use std::str::FromStr;

use rustix::process::{Signal, getpid, kill_process};

/// What was just done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Packets of a guest are in private memory.
    TxCopied,
    /// They are staged for all that get them.
    TxStaged,
    /// Those for other guests are in their backlogs.
    HeldPublished,
    /// Those for network cards are in their lanes too.
    TargetsPublished,
    /// The answers are in the log.
    TxLogged,
    /// The guest can see them, and was not told.
    TxPublished,
    /// Slots of guests are taken for what came from the wire.
    RxPlanned,
    /// The frames are in guests' pages.
    RxCopied,
    /// The answers are in the log.
    RxLogged,
    /// The guest can see the frames, and was not told; they are still in the lane or the backlog.
    RxPublished,
    /// They are off the lane.
    LaneCommitted,
    /// They are off the backlog.
    BacklogCommitted,
    /// A guest's event channels are bound, and no record names them.
    Bound,
}

impl Step {
    /// Places that a shadow comes by while it moves frames, with their names.
    pub const MOVING: [(&'static str, Self); 12] = [
        ("tx-copied", Self::TxCopied),
        ("tx-staged", Self::TxStaged),
        ("held-published", Self::HeldPublished),
        ("targets-published", Self::TargetsPublished),
        ("tx-logged", Self::TxLogged),
        ("tx-published", Self::TxPublished),
        ("rx-planned", Self::RxPlanned),
        ("rx-copied", Self::RxCopied),
        ("rx-logged", Self::RxLogged),
        ("rx-published", Self::RxPublished),
        ("lane-committed", Self::LaneCommitted),
        ("backlog-committed", Self::BacklogCommitted),
    ];
    /// Places that it comes by when a guest is connected.
    pub const CONNECTING: [(&'static str, Self); 1] = [("bound", Self::Bound)];

    /// All places.
    pub fn all() -> impl Iterator<Item = (&'static str, Self)> {
        Self::MOVING.into_iter().chain(Self::CONNECTING)
    }
}

/// When the process is to die, if it is.
#[derive(Debug, Default)]
pub struct Fate {
    armed: Option<(Step, u32)>,
}

impl Fate {
    /// Dies at the place that `order` names: `die:STEP:COUNT`.
    ///
    /// # Errors
    /// If it is no such order.
    pub fn arm(&mut self, order: &str) -> Result<(), String> {
        self.armed = Some(order.parse::<Order>()?.0);
        Ok(())
    }

    /// The step was done.
    #[inline]
    pub fn done(&mut self, step: Step) {
        if self.armed.is_some() {
            self.count(step);
        }
    }

    fn count(&mut self, step: Step) {
        let Some((_, left)) = self.armed.as_mut().filter(|(at, _)| *at == step) else { return };
        *left -= 1;
        if *left == 0 {
            let _ = kill_process(getpid(), Signal::KILL);
        }
    }
}

struct Order((Step, u32));

impl FromStr for Order {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("not a place to die: {text}");
        let (name, count) =
            text.strip_prefix("die:").and_then(|rest| rest.split_once(':')).ok_or_else(bad)?;
        let step = Step::all().find(|(known, _)| *known == name).ok_or_else(bad)?.1;
        let count = count.parse().ok().filter(|count| *count > 0).ok_or_else(bad)?;
        Ok(Self((step, count)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_have_names_and_others_are_refused() {
        let mut fate = Fate::default();
        for (name, step) in Step::all() {
            fate.arm(&format!("die:{name}:7")).unwrap();
            assert_eq!(fate.armed, Some((step, 7)));
        }
        for bad in ["", "die", "die:tx-logged", "die:tx-logged:0", "die:nowhere:1", "die:tx-logged:x", "slow"]
        {
            assert!(fate.arm(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn other_steps_and_earlier_ones_are_survived() {
        let mut fate = Fate::default();
        fate.done(Step::TxCopied);
        fate.arm("die:tx-logged:2").unwrap();
        fate.done(Step::TxCopied);
        fate.done(Step::TxLogged);
        assert_eq!(fate.armed, Some((Step::TxLogged, 1)));
    }
}
