//! Which fault comes next, and how it is done.

use api::v1::{Role, ServiceStatus, State, StatusResponse};
use rustix::process::{Pid, Signal, kill_process};

/// Whom a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Leader,
    Follower,
    Gateway,
    Warden,
    Member,
}

/// What is done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, and SIGCONT after a while for those whom nobody replaces.
    Stop,
    /// A bit of a live node flips in a replica's memory.
    Flip,
}

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    pub target: Target,
    pub deed: Deed,
}

impl Fault {
    /// Its name in reports.
    pub fn name(self) -> String {
        let deed = match self.deed {
            Deed::Kill => "kill",
            Deed::Stop => "stop",
            Deed::Flip => "flip a bit in",
        };
        let target = match self.target {
            Target::Leader => "leader",
            Target::Follower => "follower",
            Target::Gateway => "gateway",
            Target::Warden => "warden",
            Target::Member => "etcd member",
        };
        format!("{deed} {target}")
    }

    /// Draws one: the leader more often than others, a member of etcd less often, for it takes a second to come back.
    pub fn draw(rng: &mut fastrand::Rng, allowed: &[Target]) -> Self {
        let weight = |target| match target {
            Target::Leader => 4,
            Target::Member => 1,
            Target::Follower | Target::Gateway | Target::Warden => 2,
        };
        let weighted: Vec<Target> =
            allowed.iter().flat_map(|target| std::iter::repeat_n(*target, weight(*target))).collect();
        let target = weighted[rng.usize(0..weighted.len())];
        let replica = matches!(target, Target::Leader | Target::Follower);
        let deed = match rng.u32(0..4) {
            0 => Deed::Stop,
            1 if replica => Deed::Flip,
            _ => Deed::Kill,
        };
        Self { target, deed }
    }

    /// The process that it hits at this moment.
    pub fn victim(self, status: &StatusResponse, rng: &mut fastrand::Rng) -> Option<u32> {
        if self.target == Target::Warden {
            return Some(status.warden_pid);
        }
        let meant = |service: &&ServiceStatus| {
            service.pid != 0
                && match self.target {
                    Target::Leader => service.role() == Role::Leader,
                    Target::Follower => service.role() == Role::Follower,
                    Target::Gateway => service.role() == Role::Gateway,
                    Target::Member => service.name.starts_with("etcd"),
                    Target::Warden => false,
                }
        };
        let victims: Vec<u32> = status.services.iter().filter(meant).map(|service| service.pid).collect();
        (!victims.is_empty()).then(|| victims[rng.usize(0..victims.len())])
    }

    /// Whether another process takes the place of the one that it hits.
    pub fn is_replaced(self) -> bool {
        match self.deed {
            Deed::Kill => self.target != Target::Warden,
            Deed::Stop => !matches!(self.target, Target::Warden | Target::Member),
            Deed::Flip => false,
        }
    }

    /// Does it. False if the process is gone already.
    pub fn inject(self, pid: u32) -> bool {
        let signal = match self.deed {
            Deed::Kill => Signal::KILL,
            Deed::Stop => Signal::STOP,
            Deed::Flip => return false,
        };
        send(pid, signal)
    }
}

/// Sends a signal; false if there is no such process.
pub fn send(pid: u32, signal: Signal) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
}

/// Whether everything runs and serves, and has its copies of all clients: the next fault is the only one.
pub fn is_whole(status: &StatusResponse) -> bool {
    let well = |service: &ServiceStatus| matches!(service.state(), State::Ready | State::Serving);
    status.serving && status.handed_over && status.services.iter().all(well)
}
