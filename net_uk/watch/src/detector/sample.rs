//! What an observer sees of a process.

use crate::TimeNs;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this status.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It is gone and nobody knows why, or it could not be started.
    Unknown,
}

/// What the process's pidfd and its parent know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessState {
    /// It lives.
    Alive,
    /// It is stopped by a signal.
    Stopped,
    /// It is gone.
    Exited(ExitStatus),
}

/// What a process says about its device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceReport {
    /// No complaint.
    #[default]
    Fine,
    /// The NIC's ring takes no frame.
    RingFull,
    /// There is no link.
    LinkDown,
}

/// A process's use of processors, from `/proc/PID/schedstat` (first two fields) and the state in `/proc/PID/stat`.
///
/// Linux adds to the wait time only when the wait is over, and to the run time of a process that does not leave its
/// processor only with the timer tick. Hence the state is needed too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessorUse {
    /// Nanoseconds that it ran.
    pub run_ns: u64,
    /// Nanoseconds that it was runnable and waited for a processor.
    pub wait_ns: u64,
    /// Whether it is runnable (state R): it runs or waits for a processor.
    pub runnable: bool,
}

/// One direction of a process's work. Nothing in it may be read from memory that a guest can write: only from words of
/// the process itself and of the other processes of the service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Units of work that were done, ever, refused ones included. A unit is a slot of a frame ring, or something of like
    /// cost: within [`UNIT_COST_RATIO_MAX`](crate::limits::UNIT_COST_RATIO_MAX).
    pub taken: u64,
    /// Units that were ever there to be done, if that is known from a trusted producer. To be read after `taken`.
    pub offered: Option<u64>,
    /// Of `taken`, those that were refused because a guest made them up. They cost little, so while this moves the rate
    /// tells nothing.
    pub refused: u64,
    /// Since when without interruption there is something to do. Turns in which the process found nothing interrupt it: it
    /// counts them, and [`Since`](crate::Since) turns the counter into a time. Not the standstill rule needs that, but the
    /// rate.
    pub work_since: Option<TimeNs>,
    /// Since when without interruption there is room for the result: for frames to a guest, since when the process sees
    /// slots of the guest. A process that finds none tells so by a counter ([`Since`](crate::Since)).
    pub room_since: Option<TimeNs>,
}

impl Flow {
    /// Since when the process could do something.
    pub fn busy_since(&self) -> Option<TimeNs> {
        Some(self.work_since?.max(self.room_since?))
    }
}

/// One look at a process. Looks should follow one another each millisecond or two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When.
    pub now: TimeNs,
    /// How much later than it had planned the observer itself was run.
    pub observer_gap_ns: u64,
    /// What of that its waits for a processor do not explain, if these are known: time in which the machine itself stood still,
    /// as a virtual one does when its host gives it no processor. A process that runs is charged with such time.
    pub observer_stolen_ns: u64,
    /// Whether the process lives.
    pub process: ProcessState,
    /// Its heartbeat counter.
    pub heartbeat: u64,
    /// Frames towards the wire.
    pub send: Flow,
    /// Frames from the wire.
    pub receive: Flow,
    /// What it says about its device.
    pub device: DeviceReport,
    /// Since when the device is known to be fine from another source than the process, if it is.
    pub device_fine_since: Option<TimeNs>,
    /// Its use of processors, if that can be read.
    pub processor: Option<ProcessorUse>,
}
