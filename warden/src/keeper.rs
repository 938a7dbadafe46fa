//! Processes and descriptors: does what the planner wants and reports what happens to the processes.
//!
//! A child gets its end of the link as its standard input, so that no descriptor has to be marked for inheritance.
//! It is in a process group of its own: a Ctrl-C at the terminal is for the warden alone.

mod adopt;
mod clients;
mod kept;
mod snapshots;
mod watch;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use control::{
    Begin, LINK_ENV, Lead, LeaderChanged, Link, LinkError, SnapshotTaken, ToService, to_service::Order,
};
use rustix::event::EventfdFlags;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

pub use adopt::welcome;
pub use kept::Kept;
pub use watch::{Greeting, Heard, News};

use crate::error::Error;
use crate::event::Cause;
use crate::ids::ServiceId;
use crate::planner::{Action, Fault, Input};
use crate::spec::{GroupSpec, ServiceSpec, bind_listener};
use clients::Clients;
use control::proc::Stat;
use snapshots::Snapshots;

struct Child {
    incarnation: u64,
    pid: u32,
    start_ticks: u64,
    pidfd: Arc<OwnedFd>,
    /// None before a service of an earlier warden has said hello.
    link: Option<Arc<AsyncFd<Link>>>,
    watcher: tokio::task::AbortHandle,
    /// Only a child's parent is told by signal when it is stopped; others are looked at.
    adopted: bool,
    stopped: bool,
    /// Injected faults are for this process.
    fault_pidfd: Option<OwnedFd>,
}

/// The processes of a group and what is kept for them.
pub struct Keeper {
    group: GroupSpec,
    children: BTreeMap<ServiceId, Child>,
    kept: Kept,
    snapshots: Snapshots,
    clients: Clients,
    adopt_path: String,
    news: mpsc::Sender<News>,
}

impl Keeper {
    /// News of the processes will come through `news`. Services are told to look for a successor at `adopt_path`.
    pub fn new(group: GroupSpec, adopt_path: String, news: mpsc::Sender<News>) -> Self {
        Self {
            group,
            children: BTreeMap::new(),
            kept: Kept::default(),
            snapshots: Snapshots::default(),
            clients: Clients::default(),
            adopt_path,
            news,
        }
    }

    /// Makes the group's memory, sockets and eventfds as far as they are not kept yet.
    ///
    /// # Errors
    /// [`Error::Keep`], [`Error::System`], [`Error::Path`].
    pub fn make_memory(&mut self) -> Result<(), Error> {
        for region in &self.group.regions {
            if self.kept.get(&region.name).is_none() {
                self.kept.insert(&region.name, kept::make_region(region)?)?;
            }
        }
        for (name, path) in &self.group.listeners {
            if self.kept.get(name).is_none() {
                self.kept.insert(name, bind_listener(path)?)?;
            }
        }
        for name in &self.group.eventfds {
            if self.kept.get(name).is_none() {
                let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
                let fd = rustix::event::eventfd(0, flags).map_err(Error::system("eventfd"))?;
                self.kept.insert(name, fd)?;
            }
        }
        Ok(())
    }

    /// When a service's process began, in clock ticks since boot; 0 if none lives.
    pub fn start_ticks(&self, service: ServiceId) -> u64 {
        self.children.get(&service).map_or(0, |child| child.start_ticks)
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

    /// The gateway's clients that are kept for the next one.
    pub fn clients(&mut self) -> &mut Clients {
        &mut self.clients
    }

    /// Keeps clients that a leader without a gateway has, and gives them to a gateway that has begun already.
    pub fn take_from_leader(&mut self, ids: &[u64], descriptors: Vec<OwnedFd>) {
        let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        // One that has not begun yet gets them when it does, one that takes no orders is told of when it must obey one.
        let _ = self.order(
            ServiceId::Gateway,
            Order::Clients(control::Connections { ids: ids.to_vec() }),
            &borrowed,
        );
        self.clients.keep(ids, descriptors);
    }

    /// Holds a snapshot that was handed in until the planner has decided about it.
    pub fn offer_snapshot(&mut self, offered: Option<(SnapshotTaken, OwnedFd)>) {
        self.snapshots.offer(offered);
    }

    /// Does one action; gives back what the planner must be told at once. `Emit` and `Finished` are not for the keeper.
    pub fn act(&mut self, action: &Action) -> Option<Input> {
        match *action {
            Action::Spawn { service, incarnation } => Some(self.spawn(service, incarnation)),
            Action::Lead { replica, epoch, .. } => self.lead(replica, epoch),
            Action::AskSnapshot { replica } => {
                self.order(ServiceId::Replica(replica), Order::TakeSnapshot(true), &[])
            }
            Action::Begin { service, .. } => self.begin(service),
            Action::MakeMemory => {
                if let Err(error) = self.make_memory() {
                    tracing::error!(%error, "the group's memory is incomplete");
                }
                None
            }
            Action::KeepSnapshot { .. } => {
                self.snapshots.keep_offered();
                self.spread_snapshots();
                None
            }
            Action::DropSnapshot { index } => {
                self.snapshots.drop_one(index);
                self.spread_snapshots();
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
                self.inject(service, incarnation, signal_of(fault));
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

    /// Injected faults are for this process from here on. Gives what the planner must know.
    pub fn aim_faults(&mut self, service: ServiceId, incarnation: u64, pid: u32) -> Option<Input> {
        let child = self.children.get_mut(&service).filter(|child| child.incarnation == incarnation)?;
        child.fault_pidfd = open_pidfd(pid).ok();
        Some(Input::FaultsFor { service, incarnation, pid })
    }

    /// Which processes were stopped or continued by signals since the last call.
    pub fn halted(&self) -> Vec<Input> {
        let options = WaitIdOptions::STOPPED | WaitIdOptions::CONTINUED | WaitIdOptions::NOHANG;
        let own = self.children.iter().filter(|(_, child)| !child.adopted);
        let changed = own.filter_map(|(&service, child)| {
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
        let link = Arc::new(watch::readable(ours)?);
        let spec = self.spec(service)?;
        let process = Command::new(&spec.program)
            .args(&spec.args)
            .envs(spec.env.iter().map(|(name, value)| (name, value)))
            .env(LINK_ENV, "0")
            .stdin(Stdio::from(theirs.into_fd()))
            .process_group(0)
            .spawn()
            .map_err(Error::path(&spec.program))?;
        let pid = process.id();
        let start_ticks = Stat::of(pid).map_or(0, |stat| stat.start_ticks);
        let process = watch::Process::new(process)?;
        let pidfd = process.pidfd();
        let link = Some(link);
        let watching = watch::watch(service, incarnation, process, link.clone(), self.news.clone());
        let child = Child {
            incarnation,
            pid,
            start_ticks,
            pidfd,
            link,
            watcher: tokio::spawn(watching).abort_handle(),
            adopted: false,
            stopped: false,
            fault_pidfd: None,
        };
        self.children.insert(service, child);
        Ok(pid)
    }

    fn spec(&self, service: ServiceId) -> Result<&ServiceSpec, Error> {
        let number = service.number() as usize;
        let spec = match service {
            ServiceId::Gateway => Some(&self.group.gateway),
            ServiceId::Member(_) => self.group.members.get(number),
            ServiceId::Replica(_) => self.group.replicas.get(number),
        };
        spec.ok_or_else(|| Error::system("no such service")(rustix::io::Errno::NOENT))
    }

    /// The first order, and to a gateway the clients of the one before it.
    fn begin(&self, service: ServiceId) -> Option<Input> {
        let incarnation = self.children.get(&service)?.incarnation;
        let snapshots = self.snapshots.descriptors();
        let (names, descriptors): (Vec<_>, Vec<_>) = self.kept.iter().chain(snapshots).unzip();
        let begin = Begin {
            replica: service.number(),
            names,
            incarnation,
            adopt_path: self.adopt_path.clone(),
            snapshot: self.snapshots.newest().cloned(),
            snapshot_older: self.snapshots.older().cloned(),
        };
        let begun = self.order(service, Order::Begin(begin), &descriptors);
        if service != ServiceId::Gateway || begun.is_some() {
            return begun;
        }
        self.clients.batches().find_map(|(ids, descriptors)| {
            self.order(service, Order::Clients(control::Connections { ids }), &descriptors)
        })
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

    /// Gives every service copies of the snapshots, so that no death loses the only one, before the leader is told that
    /// it may let the log go.
    fn spread_snapshots(&self) {
        let (names, descriptors): (Vec<_>, Vec<_>) = self.snapshots.descriptors().unzip();
        let hold = Begin {
            names,
            snapshot: self.snapshots.newest().cloned(),
            snapshot_older: self.snapshots.older().cloned(),
            ..Begin::default()
        };
        for service in self.children.keys() {
            // One that takes no orders is told of when it is given one that it must obey.
            let _ = self.order(*service, Order::Hold(hold.clone()), &descriptors);
        }
    }

    /// Sends an order. A process that is gone will be reported as dead; one that takes no orders is told of.
    /// Asks a replica where a part of a node lies. One that is gone does not answer.
    pub fn locate(&self, service: ServiceId, question: control::Locate) {
        let _ = self.order(service, Order::Locate(question), &[]);
    }

    fn order(&self, service: ServiceId, order: Order, descriptors: &[BorrowedFd<'_>]) -> Option<Input> {
        let link = self.children.get(&service)?.link.as_ref()?;
        match link.get_ref().send(&ToService { order: Some(order) }, descriptors) {
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
        if let Some(child) = child {
            send_signal(service, &child.pidfd, signal);
        }
    }

    /// As [`Keeper::signal`], for the process that the service wants harmed in its place.
    fn inject(&self, service: ServiceId, incarnation: u64, signal: Signal) {
        let child = self.children.get(&service).filter(|child| child.incarnation == incarnation);
        if let Some(child) = child {
            send_signal(service, child.fault_pidfd.as_ref().unwrap_or(&child.pidfd), signal);
        }
    }
}

fn send_signal(service: ServiceId, pidfd: &OwnedFd, signal: Signal) {
    let sent = rustix::process::pidfd_send_signal(pidfd, signal);
    if let Err(error) = sent
        && error != rustix::io::Errno::SRCH
    {
        tracing::error!(%service, ?signal, %error, "signal not sent");
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
