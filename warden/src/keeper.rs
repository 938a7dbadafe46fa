//! Processes and descriptors: does what the planner wants and reports what happens to the processes.
//!
//! A child gets its end of the link as its standard input, so that no descriptor has to be marked for inheritance.
//! It is in a process group of its own: a Ctrl-C at the terminal is for the warden alone.

mod kept;
mod watch;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use control::{
    Begin, LINK_ENV, Lead, LeaderChanged, Link, LinkError, SnapshotKept, SnapshotTaken, ToService, names,
    to_service::Order,
};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

pub use kept::Kept;
pub use watch::{Heard, News};

use crate::error::Error;
use crate::event::Cause;
use crate::ids::ServiceId;
use crate::planner::{Action, Fault, Input};
use crate::spec::{GroupSpec, ServiceSpec};

struct Child {
    incarnation: u64,
    pidfd: Arc<OwnedFd>,
    link: Arc<AsyncFd<Link>>,
}

/// What is known of the snapshots. The memory of the older one is not kept: it only bounds how far the log may go,
/// because a replica may be starting from it.
#[derive(Default)]
struct Snapshots {
    newest: Option<SnapshotTaken>,
    older: Option<SnapshotTaken>,
    offered: Option<(SnapshotTaken, OwnedFd)>,
}

impl Snapshots {
    fn to_tell(&self) -> Option<SnapshotKept> {
        let newest = self.newest.as_ref()?;
        Some(SnapshotKept {
            newest_index: newest.index,
            older_index: self.older.as_ref().map_or(0, |older| older.index),
            release_cursor: self.older.as_ref().unwrap_or(newest).cursor.clone(),
            newest_length_bytes: newest.length_bytes,
        })
    }
}

/// The processes of a group and what is kept for them.
pub struct Keeper {
    specs: BTreeMap<ServiceId, ServiceSpec>,
    children: BTreeMap<ServiceId, Child>,
    kept: Kept,
    snapshots: Snapshots,
    news: mpsc::Sender<News>,
}

impl Keeper {
    /// Makes the group's memory. News of the processes will come through `news`.
    ///
    /// # Errors
    /// [`Error::Keep`], [`Error::System`].
    pub fn new(group: GroupSpec, news: mpsc::Sender<News>) -> Result<Self, Error> {
        let mut kept = Kept::default();
        for region in &group.regions {
            kept.insert(&region.name, kept::make_region(region)?)?;
        }
        for (name, descriptor) in group.descriptors {
            kept.insert(&name, descriptor)?;
        }
        let numbered = (0..).zip(group.replicas).map(|(number, spec)| (ServiceId::Replica(number), spec));
        let specs = std::iter::once((ServiceId::Gateway, group.gateway)).chain(numbered).collect();
        Ok(Self { specs, children: BTreeMap::new(), kept, snapshots: Snapshots::default(), news })
    }

    /// What is kept.
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Keeps what a service handed in.
    ///
    /// # Errors
    /// [`Error::Keep`] for a name or number out of bounds; the rest is kept.
    pub fn keep(&mut self, names: &[String], descriptors: Vec<OwnedFd>) -> Result<(), Error> {
        if names.len() != descriptors.len() {
            return Err(Error::Keep { name: String::new(), why: "as many names as descriptors are needed" });
        }
        let mut result = Ok(());
        for (name, descriptor) in names.iter().zip(descriptors) {
            let kept = self.kept.insert_from_service(name, descriptor);
            result = result.and(kept);
        }
        result
    }

    /// Holds a snapshot that was handed in until the planner has decided about it.
    pub fn offer_snapshot(&mut self, offered: Option<(SnapshotTaken, OwnedFd)>) {
        self.snapshots.offered = offered;
    }

    /// Does one action; gives back what the planner must be told at once. `Emit` and `Finished` are not for the keeper.
    pub fn act(&mut self, action: &Action) -> Option<Input> {
        match *action {
            Action::Spawn { service, incarnation } => Some(self.spawn(service, incarnation)),
            Action::Lead { replica, epoch, .. } => self.lead(replica, epoch),
            Action::AskSnapshot { replica } => {
                self.order(ServiceId::Replica(replica), Order::TakeSnapshot(true), &[])
            }
            Action::KeepSnapshot { .. } => {
                self.keep_snapshot();
                None
            }
            Action::TellSnapshotKept { replica } => {
                let kept = self.snapshots.to_tell()?;
                self.order(ServiceId::Replica(replica), Order::SnapshotKept(kept), &[])
            }
            Action::Kill { service, incarnation } => {
                self.signal(service, incarnation, Signal::KILL);
                None
            }
            Action::Signal { service, incarnation, fault } => {
                self.signal(service, incarnation, signal_of(fault));
                None
            }
            Action::Stop { service } => self.order(service, Order::Stop(true), &[]),
            Action::Emit(_) | Action::Finished { .. } => None,
        }
    }

    /// Passes a signal on to every service.
    pub fn signal_all(&self, signal: Signal) {
        for (service, child) in &self.children {
            self.signal(*service, child.incarnation, signal);
        }
    }

    /// Forgets a process whose death was reported.
    pub fn forget(&mut self, service: ServiceId, incarnation: u64) {
        if self.children.get(&service).is_some_and(|child| child.incarnation == incarnation) {
            self.children.remove(&service);
        }
    }

    /// Which processes were stopped or continued by signals since the last call.
    pub fn halted(&self) -> Vec<Input> {
        let options = WaitIdOptions::STOPPED | WaitIdOptions::CONTINUED | WaitIdOptions::NOHANG;
        let changed = self.children.iter().filter_map(|(&service, child)| {
            let incarnation = child.incarnation;
            let status = rustix::process::waitid(WaitId::PidFd(child.pidfd.as_fd()), options).ok()??;
            match (status.stopped(), status.continued()) {
                (true, _) => Some(Input::Halted { service, incarnation }),
                (_, true) => Some(Input::Continued { service, incarnation }),
                _ => None,
            }
        });
        changed.collect()
    }

    fn spawn(&mut self, service: ServiceId, incarnation: u64) -> Input {
        match self.try_spawn(service, incarnation) {
            Ok(pid) => Input::Spawned { service, incarnation, pid },
            Err(error) => Input::Died { service, incarnation, cause: Cause::NotStarted(error.to_string()) },
        }
    }

    fn try_spawn(&mut self, service: ServiceId, incarnation: u64) -> Result<u32, Error> {
        let (ours, theirs) = Link::pair().map_err(link_failed)?;
        ours.set_nonblocking(true).map_err(link_failed)?;
        self.send_begin(&ours, service, incarnation)?;
        let link = Arc::new(watch::readable(ours)?);
        let spec = &self.specs[&service];
        let process = Command::new(&spec.program)
            .args(&spec.args)
            .envs(spec.env.iter().map(|(name, value)| (name, value)))
            .env(LINK_ENV, "0")
            .stdin(Stdio::from(theirs.into_fd()))
            .process_group(0)
            .spawn()
            .map_err(Error::path(&spec.program))?;
        let pid = process.id();
        let process = watch::Process::new(process)?;
        let pidfd = process.pidfd();
        tokio::spawn(watch::watch(service, incarnation, process, link.clone(), self.news.clone()));
        self.children.insert(service, Child { incarnation, pidfd, link });
        Ok(pid)
    }

    fn send_begin(&self, link: &Link, service: ServiceId, incarnation: u64) -> Result<(), Error> {
        let (names, descriptors): (Vec<_>, Vec<_>) = self.kept.iter().unzip();
        let begin = Begin {
            replica: service.replica().unwrap_or(0),
            names,
            incarnation,
            snapshot: self.snapshots.newest.clone(),
        };
        link.send(&ToService { order: Some(Order::Begin(begin)) }, &descriptors).map_err(link_failed)
    }

    fn lead(&self, replica: u32, epoch: u64) -> Option<Input> {
        let (leaders, gateways) = match Link::pair() {
            Ok(pair) => pair,
            Err(error) => return self.unresponsive(ServiceId::Replica(replica), &error),
        };
        let leader = self.order(ServiceId::Replica(replica), Order::Lead(Lead { epoch }), &[leaders.as_fd()]);
        let changed = Order::LeaderChanged(LeaderChanged { epoch });
        let gateway = self.order(ServiceId::Gateway, changed, &[gateways.as_fd()]);
        leader.or(gateway)
    }

    fn keep_snapshot(&mut self) {
        let Some((taken, descriptor)) = self.snapshots.offered.take() else { return };
        match self.kept.insert(names::SNAPSHOT, descriptor) {
            Ok(()) => self.snapshots.older = self.snapshots.newest.replace(taken),
            Err(error) => tracing::error!(%error, "the snapshot is not kept"),
        }
    }

    /// Sends an order. A process that is gone will be reported as dead; one that takes no orders is told of.
    fn order(&self, service: ServiceId, order: Order, descriptors: &[BorrowedFd<'_>]) -> Option<Input> {
        let child = self.children.get(&service)?;
        match child.link.get_ref().send(&ToService { order: Some(order) }, descriptors) {
            Ok(()) | Err(LinkError::Closed) => None,
            Err(error) => self.unresponsive(service, &error),
        }
    }

    fn unresponsive(&self, service: ServiceId, error: &LinkError) -> Option<Input> {
        let incarnation = self.children.get(&service)?.incarnation;
        Some(Input::Unresponsive { service, incarnation, why: format!("takes no orders: {error}") })
    }

    fn signal(&self, service: ServiceId, incarnation: u64, signal: Signal) {
        let child = self.children.get(&service).filter(|child| child.incarnation == incarnation);
        let sent = child.map(|child| rustix::process::pidfd_send_signal(&*child.pidfd, signal));
        if let Some(Err(error)) = sent
            && error != rustix::io::Errno::SRCH
        {
            tracing::error!(%service, ?signal, %error, "signal not sent");
        }
    }
}

fn signal_of(fault: Fault) -> Signal {
    match fault {
        Fault::Kill => Signal::KILL,
        Fault::Stop => Signal::STOP,
        Fault::Cont => Signal::CONT,
    }
}

fn link_failed(error: LinkError) -> Error {
    let source = match error {
        LinkError::System(errno) => errno.into(),
        other => std::io::Error::other(other),
    };
    Error::System { call: "link", source }
}

fn open_pidfd(pid: u32) -> Result<OwnedFd, Error> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(rustix::io::Errno::SRCH).map_err(Error::system("pidfd_open"))?;
    rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK).map_err(Error::system("pidfd_open"))
}
