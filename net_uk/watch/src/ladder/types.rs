//! What the ladder is told and what it wants done.

use std::fmt;

use crate::TimeNs;
use crate::detector::{Cause, DeviceReport};

/// A NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NicId(pub u16);

impl fmt::Display for NicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A process of the network service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The shadow, which serves the guests.
    Shadow,
    /// The driver of a NIC.
    Driver(NicId),
}

impl Part {
    /// The NIC of a driver.
    pub fn nic(self) -> Option<NicId> {
        match self {
            Self::Shadow => None,
            Self::Driver(nic) => Some(nic),
        }
    }
}

/// Which start of a part, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

/// Which reset of a device, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(pub u64);

/// Something the ladder is told. What is not about the present incarnation or attempt is of no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// It is attached and works.
    Ready {
        /// Which part.
        part: Part,
        /// Which start of it.
        incarnation: Incarnation,
    },
    /// Its detector found it dead, though its process may be there.
    Condemned {
        /// Which part.
        part: Part,
        /// Which start of it.
        incarnation: Incarnation,
        /// Of what.
        cause: Cause,
    },
    /// Its process is gone: its end was waited for, or it could not be started. This is the fence.
    Ended {
        /// Which part.
        part: Part,
        /// Which start of it.
        incarnation: Incarnation,
        /// Of what.
        cause: Cause,
    },
    /// A driver has trouble with its device, told once or again and again.
    DeviceTrouble {
        /// Which NIC.
        nic: NicId,
        /// What.
        trouble: DeviceReport,
    },
    /// The trouble is over.
    DeviceFine {
        /// Which NIC.
        nic: NicId,
    },
    /// A reset of the device came to its end.
    ResetDone {
        /// Which NIC.
        nic: NicId,
        /// Which reset.
        attempt: Attempt,
        /// Whether every step of it went well.
        succeeded: bool,
    },
}

/// Something to be done, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Kill the process (SIGKILL) and tell its end.
    Kill {
        /// Which part.
        part: Part,
        /// Which start of it.
        incarnation: Incarnation,
    },
    /// Start a process. None of this part is left.
    Start {
        /// Which part.
        part: Part,
        /// Which start of it.
        incarnation: Incarnation,
    },
    /// Reset the device: unbind and bind the kernel's driver, link down and up, rings made anew. No driver of ours runs.
    Reset {
        /// Which NIC.
        nic: NicId,
        /// Which reset.
        attempt: Attempt,
    },
    /// Something for people.
    Report(Report),
}

/// How much is done, from little to much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// The process is started again.
    Restart,
    /// The device is reset first.
    ResetDevice,
    /// Shadow and drivers are all ended, then started.
    RestartAll,
}

/// Something for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// When.
    pub at: TimeNs,
    /// About whom.
    pub part: Part,
    /// Which start of it.
    pub incarnation: Incarnation,
    /// Where on the ladder it is.
    pub rung: Rung,
    /// What.
    pub kind: ReportKind,
    /// Since when something is wrong, if it is.
    pub since: Option<TimeNs>,
}

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportKind {
    /// It failed.
    Failed(Cause),
    /// Its device has trouble.
    DeviceTrouble(DeviceReport),
    /// More is done from here on.
    Escalated,
    /// All is well again.
    Recovered,
    /// Nothing helped. It is tried again now and then.
    GaveUp,
    /// It is tried again.
    Probing,
    /// It does not end though it was killed.
    DoesNotEnd,
    /// A reset of the device failed.
    ResetFailed,
    /// A reset of the device has no end.
    ResetStuck,
}
