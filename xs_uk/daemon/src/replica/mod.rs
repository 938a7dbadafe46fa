//! A replica: follows the log until it is told to lead, then serves.

mod arrivals;
mod backlog;
mod commands;
mod commit;
mod conn;
mod court;
mod domains;
mod engine_told;
pub mod heir;
mod holds;
mod leader;
mod machine;
mod repairs;
mod requests;
mod takeover;
mod unmapped;

use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use control::{LinkError, Role, Severity, SnapshotTaken, from_service, notes, to_service};
use sanity::pace::Pace;
use xs_consensus::{Cursor, LogError};
use xs_shm::limits::TABLE_BYTES;
use xs_shm::sched::Policy;
use xs_shm::{Board, Consult, Region, ReplicaStatus, ReplicaWords, Roots, Table};
use xs_store::{Config, Store};

use crate::engine::EngineArgs;
use crate::error::{Error, take, take_optional};
use crate::limits::{
    DISPUTE_PAUSE, FOLLOW_BATCH, FOLLOW_BATCH_BEHIND, FOLLOW_BEHIND, FOLLOW_BREATH, FOLLOW_IDLE,
    FOLLOW_STAGGER, HEARTBEAT_PROMISE_MS, SCRUBBED_PER_S_FOLLOWER,
};
use crate::poller::{Interest, Poller};
use crate::service::{Service, note_at, report, report_with};
use crate::snapshot;
use arrivals::Arrivals;
use court::Court;
use machine::Machine;

/// What a replica must know besides what the warden hands over.
pub struct ReplicaOptions {
    /// How to reach the hypervisor.
    pub host: hypervisor::HostSpec,
    /// Quotas and the like for a new store.
    pub config: Config,
    /// Serve dom0's own ring too.
    pub own_ring: bool,
    /// How long an unread watch event to a guest is kept; 0 is for ever.
    pub watch_event_timeout_s: u32,
    /// What keeps the log.
    pub engine: EngineArgs,
    /// Where an own etcd's sockets are.
    pub rundir: PathBuf,
    /// How many replicas there are.
    pub replicas: u32,
}

/// What ended following.
enum Promoted {
    Lead { epoch: u64, gateway: control::Link },
    Stop,
}

struct Follower {
    service: Service,
    machine: Machine,
    table: Table,
    arrivals: Arrivals,
    words: ReplicaWords,
    status: ReplicaStatus,
    kick: Option<OwnedFd>,
    pace: Pace,
    began: Instant,
    /// Entries applied since the end of the log was reached.
    in_a_row: usize,
}

const WARDEN: u64 = 0;
const KICK: u64 = 1;
const ENGINE: u64 = 2;
const HEIR: u64 = 3;

/// Runs the role until the warden says stop.
pub fn run(options: ReplicaOptions) -> Result<(), Error> {
    let mut service = Service::start(Role::Replica)?;
    let conns = take(&mut service.kept, control::names::CONNS)?;
    let table = Table::open(Region::open(conns, TABLE_BYTES)?);
    let arrivals = appoint_heir(&mut service, &table)?;
    let mut follower = Follower::start(service, table, arrivals, &options)?;
    loop {
        let (epoch, gateway) = match follower.follow()? {
            Promoted::Stop => return Ok(()),
            Promoted::Lead { epoch, gateway } => (epoch, gateway),
        };
        let began = Instant::now();
        set_policy(Policy::Normal);
        let held = match takeover::receive_endpoints(&gateway) {
            Ok(held) => held,
            // The gateway died, or only half of the order was given before the warden did: the order will come again.
            Err(error @ (Error::Link(LinkError::Closed) | Error::Handover { .. })) => {
                tracing::warn!(%error, epoch, "not taken over");
                continue;
            }
            Err(error) => return Err(error),
        };
        let Follower { service, machine, table, words, status, kick, arrivals, .. } = follower;
        let parts = takeover::Parts { service, machine, table, words, status, kick, arrivals, options };
        // Never dropped: what a leader closes is closed in its heir too, and clients that it has not handed over would see
        // their connections end. When the process has ended the heir is left with them.
        let mut leader = ManuallyDrop::new(takeover::take_over(parts, epoch, gateway, held, began)?);
        return leader.run();
    }
}

/// It serves either way.
fn set_policy(policy: Policy) {
    if let Err(error) = xs_shm::sched::set_policy(policy) {
        tracing::debug!(%error, ?policy, "scheduling policy");
    }
}

/// The heir has to come before anything else: a process is split while it has one thread and little memory.
fn appoint_heir(service: &mut Service, table: &Table) -> Result<Arrivals, Error> {
    let listener = take(&mut service.kept, control::names::LISTENER)?;
    rustix::io::ioctl_fionbio(&listener, true).map_err(Error::system("ioctl"))?;
    // Starts are counted by service.
    let leader = service.begin.incarnation << 8 | u64::from(service.begin.replica + 1);
    let heir = heir::appoint(&heir::Estate { table, listener: &listener, leader })?;
    Ok(Arrivals::new(listener, heir, leader))
}

/// Tells the warden of damage that ends us: of a log that cannot be read, so that it does not start us again before there
/// is a way around, and of a state that is not to be trusted.
fn told<T>(warden: &control::Tether, applied: u64, result: Result<T, Error>) -> Result<T, Error> {
    match &result {
        Err(Error::Log(LogError::Corrupt { index, what })) => {
            let detail = format!("entry {index}: {what}");
            note_at(warden, Severity::Error, notes::LOG_DAMAGED, *index, detail)?;
        }
        Err(error @ (Error::Damaged(_) | Error::OutVoted { .. })) => {
            let damaged = control::Damaged { index: applied, why: error.to_string() };
            report(warden, from_service::Report::Damaged(damaged))?;
        }
        _ => {}
    }
    result
}

impl Follower {
    fn start(
        mut service: Service,
        table: Table,
        arrivals: Arrivals,
        options: &ReplicaOptions,
    ) -> Result<Self, Error> {
        let board = Board::open(take(&mut service.kept, control::names::BOARD)?)?;
        let log = take(&mut service.kept, control::names::LOG)?;
        let (cursor, store) = load(&mut service, options)?;
        let kick = take_optional(&mut service.kept, control::names::KICK);
        let roots = Roots::open(take(&mut service.kept, control::names::ROOTS)?)?;
        let consult = Consult::open(take(&mut service.kept, control::names::CONSULT)?)?;
        let court = Court::new(roots, consult, service.begin.replica, options.replicas);
        // Nothing else of ours may stay open by mistake.
        service.kept.clear();
        let engine = options.engine.open(&options.rundir, Region::open(log, 1)?, cursor)?;
        let mut follower = Self {
            words: board.words(service.begin.replica),
            table,
            arrivals,
            machine: Machine::new(engine, store, court),
            status: ReplicaStatus::default(),
            service,
            kick,
            pace: Pace::new(SCRUBBED_PER_S_FOLLOWER),
            began: Instant::now(),
            in_a_row: 0,
        };
        loop {
            let more = follower.advance();
            if !told(&follower.service.warden, follower.machine.index(), more)? {
                break;
            }
        }
        follower.service.ready(follower.machine.index(), HEARTBEAT_PROMISE_MS)?;
        Ok(follower)
    }

    fn follow(&mut self) -> Result<Promoted, Error> {
        // A follower that wakes up must not take the processor from the leader in the middle of a request.
        set_policy(Policy::Batch);
        let mut poller = Poller::new().map_err(Error::system("epoll_create"))?;
        poller.add(&self.service.warden, WARDEN, Interest::READ).map_err(Error::system("epoll_ctl"))?;
        if let Some(kick) = &self.kick {
            poller.add_edge(kick, KICK).map_err(Error::system("epoll_ctl"))?;
        }
        if let Some(wake) = self.machine.wake_fd() {
            poller.add(wake, ENGINE, Interest::READ).map_err(Error::system("epoll_ctl"))?;
        }
        poller.add(&self.arrivals.heir, HEIR, Interest::READ).map_err(Error::system("epoll_ctl"))?;
        let (mut ready, mut pause) = (Vec::new(), Duration::ZERO);
        let stagger = FOLLOW_STAGGER * self.service.begin.replica;
        loop {
            if pause.is_zero() && !self.is_behind() {
                // The leader or a client may wait for this processor: nobody waits for what is applied here.
                std::thread::sleep(FOLLOW_BREATH);
            }
            poller.wait(pause, &mut ready).map_err(Error::system("epoll_wait"))?;
            if ready.contains(&HEIR) {
                return Err(Error::HeirGone);
            }
            if ready.contains(&WARDEN)
                && let Some(promoted) = self.take_orders()?
            {
                return Ok(promoted);
            }
            if ready.contains(&KICK) {
                self.machine.expect_more();
                // Not two at once; but the leader waits for answers.
                if pause > stagger && !self.machine.is_asked() {
                    pause = stagger;
                    continue;
                }
            }
            let more = self.advance().and_then(|more| self.look_after(more));
            pause = told(&self.service.warden, self.machine.index(), more)?;
        }
    }

    /// What a follower does between entries: answers the leader, compares, scrubs. Gives the time until the next look.
    fn look_after(&mut self, more: bool) -> Result<Duration, Error> {
        self.machine.answer_question();
        if more {
            return Ok(Duration::ZERO);
        }
        for replica in self.machine.out_voted() {
            let index = self.machine.index();
            if replica == self.service.begin.replica {
                return Err(Error::OutVoted { index });
            }
            let why = "its root is out-voted".to_owned();
            let mistrust = control::Mistrust { replica, index, why };
            report(&self.service.warden, from_service::Report::Mistrust(mistrust))?;
        }
        let now_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (checked, damage) = self.machine.scrub(self.pace.due(now_ms));
        self.status.scrubbed += checked as u64;
        if let Some(damage) = damage {
            self.status.damages += 1;
            return Err(damage.into());
        }
        Ok(if self.machine.is_disputed() { DISPUTE_PAUSE } else { FOLLOW_IDLE })
    }

    fn is_behind(&self) -> bool {
        self.in_a_row >= FOLLOW_BEHIND
    }

    /// Applies a batch. True if there may be more.
    fn advance(&mut self) -> Result<bool, Error> {
        let behind = self.is_behind();
        let batch = if behind { FOLLOW_BATCH_BEHIND } else { FOLLOW_BATCH };
        let more = self.machine.catch_up(batch)? == batch;
        self.in_a_row = if more { self.in_a_row + batch } else { 0 };
        if !more || behind {
            self.machine.trim_delivered(&self.table);
        }
        self.status.heartbeat += 1;
        self.status.applied = self.machine.index();
        self.words.publish(&self.status);
        Ok(more)
    }

    fn take_orders(&mut self) -> Result<Option<Promoted>, Error> {
        loop {
            let Some(packet) = self.service.warden.order()? else { return Ok(None) };
            match packet.message.order {
                Some(to_service::Order::Lead(lead)) => {
                    let gateway = packet.descriptors.into_iter().next();
                    let gateway = gateway.ok_or(Error::Missing { name: "link to the gateway" })?;
                    let gateway = control::Link::from_fd(gateway);
                    return Ok(Some(Promoted::Lead { epoch: lead.epoch, gateway }));
                }
                Some(to_service::Order::TakeSnapshot(_)) => {
                    send_snapshot(&self.service.warden, &self.machine)?;
                }
                Some(to_service::Order::Locate(question)) => {
                    report(&self.service.warden, self.machine.locate(&question))?;
                }
                Some(to_service::Order::Stop(_)) => return Ok(Some(Promoted::Stop)),
                _ => {}
            }
        }
    }
}

/// The newest snapshot that can be loaded, or an empty store without any.
fn load(service: &mut Service, options: &ReplicaOptions) -> Result<(Cursor, Store), Error> {
    let newest = take_optional(&mut service.kept, control::names::SNAPSHOT);
    let older = take_optional(&mut service.kept, control::names::SNAPSHOT_OLDER);
    let Some(newest) = newest else { return Ok((Cursor::default(), Store::new(options.config.clone()))) };
    let error = match snapshot::load(newest) {
        Ok(loaded) => return Ok(loaded),
        Err(error) => error,
    };
    let index = service.begin.snapshot.as_ref().map_or(0, |taken| taken.index);
    let (severity, detail) = (Severity::Error, error.to_string());
    note_at(&service.warden, severity, notes::SNAPSHOT_DAMAGED, index, detail)?;
    match older {
        Some(older) => snapshot::load(older),
        None => Err(error),
    }
}

/// Takes a snapshot of the machine's state and gives it to the warden to keep.
fn send_snapshot(warden: &control::Tether, machine: &Machine) -> Result<u64, Error> {
    use std::os::fd::AsFd;
    let cursor = machine.cursor();
    let (fd, length_bytes) = snapshot::save(&machine.store, &cursor)?;
    let taken = SnapshotTaken { index: cursor.index.0, length_bytes, cursor: cursor.encode().to_vec() };
    report_with(warden, from_service::Report::SnapshotTaken(taken), &[fd.as_fd()])?;
    Ok(length_bytes)
}
