//! What the planner is told and what it wants done.

use crate::event::{Cause, Event};
use crate::ids::{ServiceId, TimeUs};

/// Something the planner is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// The process of an [`Action::Spawn`] runs.
    Spawned {
        /// Which service.
        service: ServiceId,
        /// Which start of it.
        incarnation: u64,
        /// Its process.
        pid: u32,
    },
    /// The service takes orders.
    Ready {
        /// Which service.
        service: ServiceId,
        /// Which start of it.
        incarnation: u64,
        /// A replica's last applied log index.
        applied: u64,
    },
    /// The replica serves as the leader of `epoch`.
    Leading {
        /// Which service.
        service: ServiceId,
        /// Which start of it.
        incarnation: u64,
        /// The epoch it leads.
        epoch: u64,
        /// Its last applied log index.
        applied: u64,
        /// Microseconds from the order to service, as it measured them.
        takeover_us: u64,
        /// What it took over, for people.
        detail: String,
    },
    /// How far a replica is, from the board.
    Progress {
        /// Its number.
        replica: u32,
        /// Which start of it.
        incarnation: u64,
        /// Its last applied log index.
        applied: u64,
    },
    /// The process is gone: its pidfd says so, or it could not be started.
    Died {
        /// Which service.
        service: ServiceId,
        /// Which start of it.
        incarnation: u64,
        /// What ended it.
        cause: Cause,
    },
    /// The process was stopped by a signal.
    Halted {
        /// Which service.
        service: ServiceId,
        /// Which start of it.
        incarnation: u64,
    },
    /// The stopped process goes on.
    Continued {
        /// Which service.
        service: ServiceId,
        /// Which start of it.
        incarnation: u64,
    },
    /// The process lives but closed its link.
    LinkClosed {
        /// Which service.
        service: ServiceId,
        /// Which start of it.
        incarnation: u64,
    },
    /// The process lives but is of no use: its heartbeat stands still, or it takes no orders.
    Unresponsive {
        /// Which service.
        service: ServiceId,
        /// Which start of it.
        incarnation: u64,
        /// What was seen.
        why: String,
    },
    /// The leader asks for a snapshot.
    SnapshotWanted {
        /// Which service.
        service: ServiceId,
        /// Which start of it.
        incarnation: u64,
    },
    /// A replica hands in a snapshot.
    SnapshotTaken {
        /// Which service.
        service: ServiceId,
        /// Which start of it.
        incarnation: u64,
        /// Last applied log index in it.
        index: u64,
        /// Its length.
        length_bytes: u64,
    },
    /// A service of an earlier warden was reached.
    Hello {
        /// Which service.
        service: ServiceId,
        /// Which start of it.
        incarnation: u64,
        /// Whether it takes orders.
        ready: bool,
        /// A replica's last applied log index.
        applied: u64,
        /// The epoch it serves as the leader, 0 if it does not.
        leads_epoch: u64,
        /// How long it was without a warden, in milliseconds.
        orphaned_ms: u64,
    },
    /// The kept snapshots, newest first, after a service of an earlier warden handed in its copies.
    SnapshotsFound {
        /// Last applied log index in each.
        indices: Vec<u64>,
    },
    /// The warden itself was not run for so long: nobody can be blamed for what seems late.
    Asleep {
        /// Microseconds.
        us: u64,
    },
    /// A replica could not load this snapshot.
    SnapshotDamaged {
        /// Which service.
        service: ServiceId,
        /// Which start of it.
        incarnation: u64,
        /// Last applied log index in it.
        index: u64,
    },
    /// A replica that was told to lead waits for the engine: its time to take over does not run meanwhile.
    EngineWaits {
        /// Which service.
        service: ServiceId,
        /// Which start of it.
        incarnation: u64,
    },
    /// A replica cannot read the log at this entry and ends.
    LogDamaged {
        /// Which service.
        service: ServiceId,
        /// Which start of it.
        incarnation: u64,
        /// The entry.
        index: u64,
    },
    /// A replica found another one wrong.
    Mistrust {
        /// Who reports.
        service: ServiceId,
        /// Which start of it.
        incarnation: u64,
        /// The number of the replica that it finds wrong.
        replica: u32,
        /// The log index behind which they differ.
        index: u64,
        /// For people.
        why: String,
    },
    /// A replica found itself wrong.
    Damaged {
        /// Which service.
        service: ServiceId,
        /// Which start of it.
        incarnation: u64,
        /// Its last applied log index.
        index: u64,
        /// For people.
        why: String,
    },
    /// Injected faults are for this process in place of the service's own.
    FaultsFor {
        /// Which service.
        service: ServiceId,
        /// Which start of it.
        incarnation: u64,
        /// The process.
        pid: u32,
    },
    /// A fault is to be injected into this service.
    Inject {
        /// Which service.
        service: ServiceId,
        /// What to do to it.
        fault: Fault,
    },
    /// Everything is to end in order.
    StopRequested,
}

/// A fault that can be injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL.
    Kill,
    /// SIGSTOP.
    Stop,
    /// SIGCONT.
    Cont,
}

/// Something the planner wants done. Each is safe to do for a process that has died meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a process. It does nothing before `Begin`.
    Spawn {
        /// Which service.
        service: ServiceId,
        /// Which start of it, from 1.
        incarnation: u64,
    },
    /// Send `Begin` with all kept descriptors; the process has to be written down before, so that the next warden finds
    /// it.
    Begin {
        /// Which service.
        service: ServiceId,
        /// Which start of it.
        incarnation: u64,
    },
    /// Nobody has the group's memory: make it.
    MakeMemory,
    /// Keep this snapshot no longer.
    DropSnapshot {
        /// Last applied log index in it.
        index: u64,
    },
    /// Make a fresh link; send one end to the replica in `Lead`, the other one to the gateway in `LeaderChanged`. Who
    /// leads which epoch has to be written down before.
    Lead {
        /// The leader's number.
        replica: u32,
        /// Which start of it.
        incarnation: u64,
        /// Its epoch: a new one for a new leader, the same one for a new gateway.
        epoch: u64,
    },
    /// Ask for a snapshot.
    AskSnapshot {
        /// The replica's number.
        replica: u32,
    },
    /// Keep the snapshot that came with the input as the newest one.
    KeepSnapshot {
        /// Last applied log index in it.
        index: u64,
    },
    /// Tell the leader which snapshots are kept.
    TellSnapshotKept {
        /// The leader's number.
        replica: u32,
    },
    /// Send SIGKILL.
    Kill {
        /// Which service.
        service: ServiceId,
        /// Which start of it.
        incarnation: u64,
    },
    /// Send the signal of an injected fault.
    Signal {
        /// Which service.
        service: ServiceId,
        /// Which start of it.
        incarnation: u64,
        /// The fault.
        fault: Fault,
    },
    /// Order it to stop.
    Stop {
        /// Which service.
        service: ServiceId,
    },
    /// Tell the world.
    Emit(Box<Event>),
    /// Nothing runs any more.
    Finished {
        /// The service that was given up, if that is why.
        failed: Option<ServiceId>,
    },
}

impl Action {
    /// Whether the next warden would be misled if this one died behind the action and had not written down its state.
    pub fn is_to_be_recorded(&self) -> bool {
        matches!(self, Self::Begin { .. } | Self::Lead { .. })
    }
}

/// Where a service is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Does not run and waits for its start.
    Down,
    /// Runs, has not reported to be ready.
    Starting,
    /// Takes orders.
    Ready,
    /// Was told to lead, does not serve yet.
    TakingOver,
    /// Leads and serves.
    Serving,
    /// Was told to stop.
    Stopping,
    /// Was killed by the warden, its end has not been seen.
    Fencing,
    /// Is not started any more.
    GivenUp,
}

/// A service as the planner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceView {
    /// Which service.
    pub service: ServiceId,
    /// Whether it is the leader.
    pub leader: bool,
    /// Where it is in its life.
    pub state: State,
    /// Its process.
    pub pid: Option<u32>,
    /// Whether this incarnation ever took orders.
    pub was_ready: bool,
    /// Starts so far.
    pub incarnation: u64,
    /// Starts after a death.
    pub restarts: u64,
    /// A replica's last applied log index, as far as known.
    pub applied: u64,
    /// Last change of state.
    pub since: TimeUs,
    /// What ended the last incarnation.
    pub last_death: Option<String>,
}
