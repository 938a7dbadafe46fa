//! What happened, as the planner tells it: without number and wall-clock time, which the journal adds.

use std::fmt;

use crate::ids::ServiceId;
use crate::limits::DETAIL_BYTES_MAX;

pub use control::Severity;

/// What kind of event it is. The names are an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A process was started.
    ServiceStarted,
    /// It takes orders.
    ServiceReady,
    /// It ended.
    ServiceDied,
    /// It is suspected and was killed.
    ServiceKilled,
    /// Its start is put off.
    ServiceBackedOff,
    /// It is not started any more.
    ServiceGaveUp,
    /// It was stopped in order.
    ServiceStopped,
    /// A replica was told to lead.
    LeaderPromoted,
    /// The leader serves.
    LeaderServing,
    /// The leader was handed a new gateway.
    GatewayRejoined,
    /// A replica was asked for a snapshot.
    SnapshotAsked,
    /// A snapshot is kept.
    SnapshotTaken,
    /// A report that does not fit: passed over.
    ReportIgnored,
    /// A fault was injected.
    Injected,
    /// The warden was told to stop.
    Stopping,
    /// Everything has ended.
    Stopped,
    /// The group cannot go on.
    GroupFailed,
    /// A new warden keeps what an earlier one had started.
    Adopted,
    /// A service of an earlier warden said hello.
    ServiceAdopted,
    /// A process that is no service of this group said hello, and was ended.
    HelloRefused,
    /// No process was left that had the memory of the group: it begins empty.
    StateLost,
    /// A replica was found wrong, by another one or by itself.
    CorruptionDetected,
    /// A replica is ended because most replicas, or it itself, found it wrong.
    ReplicaOutvoted,
    /// A replica that was out-voted is of use again.
    ReplicaRebuilt,
    /// A snapshot is not kept any more: it cannot be loaded, or its author was out-voted.
    SnapshotDropped,
    /// A replica that cannot read the log waits for a snapshot behind the damage.
    RestartHeld,
    /// The engine that keeps the store's log fares otherwise than before.
    EngineChanged,
    /// A service reported it under this name.
    Noted(String),
}

impl Kind {
    /// Its name.
    pub fn as_str(&self) -> &str {
        match self {
            Self::ServiceStarted => "service_started",
            Self::ServiceReady => "service_ready",
            Self::ServiceDied => "service_died",
            Self::ServiceKilled => "service_killed",
            Self::ServiceBackedOff => "service_backed_off",
            Self::ServiceGaveUp => "service_gave_up",
            Self::ServiceStopped => "service_stopped",
            Self::LeaderPromoted => "leader_promoted",
            Self::LeaderServing => "leader_serving",
            Self::GatewayRejoined => "gateway_rejoined",
            Self::SnapshotAsked => "snapshot_asked",
            Self::SnapshotTaken => "snapshot_taken",
            Self::ReportIgnored => "report_ignored",
            Self::Injected => "injected",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::GroupFailed => "group_failed",
            Self::Adopted => "adopted",
            Self::ServiceAdopted => "service_adopted",
            Self::HelloRefused => "hello_refused",
            Self::StateLost => "state_lost",
            Self::CorruptionDetected => "corruption_detected",
            Self::ReplicaOutvoted => "replica_outvoted",
            Self::ReplicaRebuilt => "replica_rebuilt",
            Self::SnapshotDropped => "snapshot_dropped",
            Self::RestartHeld => "restart_held",
            Self::EngineChanged => "engine_changed",
            Self::Noted(name) => name,
        }
    }
}

/// What ended a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It exited with this status.
    Exited(i32),
    /// This signal ended it.
    Signalled(i32),
    /// It could not be started.
    NotStarted(String),
    /// Only the process that started it could have learned what ended it, and that one is gone too.
    Unseen,
}

/// Number of SIGKILL, the same on every Linux.
pub const SIGKILL: i32 = 9;

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "exit status {status}"),
            Self::Signalled(number) => match signal_name(*number) {
                Some(name) => write!(f, "signal {number} ({name})"),
                None => write!(f, "signal {number}"),
            },
            Self::NotStarted(why) => write!(f, "not started: {why}"),
            Self::Unseen => f.write_str("not known: an earlier warden started it"),
        }
    }
}

fn signal_name(number: i32) -> Option<&'static str> {
    Some(match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        SIGKILL => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        31 => "SIGSYS",
        _ => return None,
    })
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// How bad it is.
    pub severity: Severity,
    /// What happened.
    pub kind: Kind,
    /// Whom it is about; none for the warden itself.
    pub service: Option<ServiceId>,
    /// Which start of the service.
    pub incarnation: Option<u64>,
    /// Its process.
    pub pid: Option<u32>,
    /// What ended it.
    pub cause: Option<String>,
    /// The epoch it is about.
    pub epoch: Option<u64>,
    /// Microseconds from the injected fault to its detection.
    pub detect_us: Option<u64>,
    /// Microseconds from the detection of the old leader's fault to the new leader's service.
    pub recover_us: Option<u64>,
    /// Microseconds from the order to lead to service, as the leader measured them.
    pub takeover_us: Option<u64>,
    /// For people.
    pub detail: String,
}

impl Event {
    /// An event without particulars.
    pub fn new(severity: Severity, kind: Kind) -> Self {
        Self {
            severity,
            kind,
            service: None,
            incarnation: None,
            pid: None,
            cause: None,
            epoch: None,
            detect_us: None,
            recover_us: None,
            takeover_us: None,
            detail: String::new(),
        }
    }
}

/// A text of a report, short enough to be passed on.
pub(crate) fn cut(text: String) -> String {
    match text.char_indices().nth(DETAIL_BYTES_MAX) {
        None => text,
        Some((at, _)) => text[..at].to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_in_words() {
        assert_eq!(Cause::Signalled(9).to_string(), "signal 9 (SIGKILL)");
        assert_eq!(Cause::Signalled(40).to_string(), "signal 40");
        assert_eq!(Cause::Exited(3).to_string(), "exit status 3");
    }
}
