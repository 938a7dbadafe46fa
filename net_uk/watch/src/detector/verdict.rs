//! What the detector says.

use super::sample::{DeviceReport, ExitStatus};
use crate::TimeNs;

/// The judgement on a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is wrong.
    Healthy,
    /// Something may be wrong.
    Suspect {
        /// Since when.
        since: TimeNs,
        /// What.
        why: Why,
    },
    /// It is of no use any more and stays so.
    Dead {
        /// Since when, as far as is known.
        since: TimeNs,
        /// Of what.
        cause: Cause,
    },
}

/// What makes a process suspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is stopped.
    Stopped,
    /// It does nothing though it could.
    StandsStill(Direction),
    /// It does little of what it could.
    Slow(Direction),
    /// Its heartbeat is missed.
    NoHeartbeat,
    /// It has trouble with its device: that is for the device to mend.
    Device(DeviceReport),
    /// It says of its device what is known to be wrong.
    Contradiction,
}

/// Which way frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the wire.
    Send,
    /// From the wire.
    Receive,
}

/// What a process died of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It is gone.
    Exited(ExitStatus),
    /// It was stopped for too long.
    Stopped,
    /// Neither work nor a heartbeat.
    Hung,
    /// A heartbeat, and no work.
    Livelocked,
    /// Hardly any work.
    SlowedDown,
    /// Its words cannot be true.
    Lying(Lie),
    /// Its device is gone, and another one of the same name is there. Not its fault: only that it has to begin anew.
    DeviceReplaced,
}

/// What cannot be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// A counter went back.
    CounterWentBack,
    /// More was done than there was to do.
    MoreThanOffered,
    /// The device is fine.
    DeviceIsFine,
    /// What it wrote into its lane.
    Lane,
}
