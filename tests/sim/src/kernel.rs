//! What outlives processes: the operating system's side of the world, the shared memory and the facts.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use sanity::Digest;
use sim_etcd::{Cluster, ClusterOptions};
use warden::event::{Cause, SIGKILL};
use warden::ids::ServiceId;
use warden::planner::Input;
use xs_consensus::Cursor;
use xs_shm::limits::TABLE_BYTES;
use xs_shm::{Region, Table};
use xs_store::EntryRef;

use crate::facts::Facts;
use crate::limits::LOG_BYTES;
use crate::options::Options;
use crate::trace::Trace;

/// A process as the system knows it.
#[derive(Clone, Debug, Default)]
pub struct Proc {
    /// Which start of it.
    pub incarnation: u64,
    /// It has not ended.
    pub alive: bool,
    /// It is stopped until then.
    pub paused_until_ms: Option<u64>,
}

/// What the simulator has to do between two ticks, since no process can do it to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chore {
    /// Start the process anew.
    Start(ServiceId),
    /// Take the process's memory away.
    Drop(ServiceId),
}

/// What the warden tells a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Lead this epoch.
    Lead(u64),
    /// Take a snapshot.
    TakeSnapshot,
    /// Entries up to there are in snapshots that are kept.
    Release(Cursor),
}

/// A snapshot that the warden keeps.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its place in the log.
    pub cursor: Cursor,
    /// The state.
    pub bytes: Vec<u8>,
}

/// What only a leader has open, and its heir after its death: they share a table of descriptors. That heir and gateway
/// die within the same millisecond, which may close clients of that millisecond, does not happen here.
#[derive(Debug, Default)]
pub struct Estate {
    /// Replica and incarnation.
    pub leader: (u32, u64),
    /// Accepted, and without a slot yet.
    pub accepted: Option<UnixStream>,
    /// By connection id.
    pub unhanded: BTreeMap<u64, Rc<UnixStream>>,
}

/// The world's state.
pub struct Kernel {
    /// What the world is like.
    pub options: Options,
    /// All chance but the network's.
    pub rng: fastrand::Rng,
    /// What happened.
    pub trace: Trace,
    /// What the invariants judge.
    pub facts: Facts,
    /// Time.
    pub now_ms: u64,
    /// Event numbers for histories.
    pub clock: u64,
    /// Faults happen.
    pub faulty: bool,
    /// Replicas write down what they are like.
    pub examining: bool,
    /// Deaths that chance has brought.
    pub crashes: u32,
    /// All services.
    pub procs: BTreeMap<ServiceId, Proc>,
    /// For the simulator.
    pub chores: Vec<Chore>,
    /// For the warden.
    pub inputs: VecDeque<Input>,
    /// For replicas: incarnation and order.
    pub orders: BTreeMap<u32, VecDeque<(u64, Order)>>,
    /// Clients that nobody has accepted.
    pub listening: VecDeque<UnixStream>,
    /// Clients' sockets by connection id, as gateway and warden hold them together.
    pub held: BTreeMap<u64, Rc<UnixStream>>,
    /// Clients' sockets that the leader has not given away.
    pub estate: Estate,
    /// The snapshot last handed in.
    pub taken: Option<Snapshot>,
    /// Snapshots that are kept, newest first.
    pub snapshots: Vec<Snapshot>,
    /// Clients that are ready to begin.
    pub ready_clients: usize,
    /// Clients that have done all their operations.
    pub done_clients: usize,
    /// The connection table, as the system sees it.
    pub table: Table,
    /// The simulated etcd.
    pub cluster: Option<Cluster>,
    /// The newest epoch that served.
    serving_epoch: u64,
    log: Region,
    table_fd: OwnedFd,
    /// The copy of the log in which bits flip.
    flip_half: usize,
}

/// The kernel, as everybody in the world holds it.
pub type Shared = Rc<RefCell<Kernel>>;

impl Kernel {
    /// A world in which nothing runs.
    ///
    /// # Errors
    /// What the real kernel reports about shared memory.
    pub fn new(options: Options, keep_trace: bool) -> anyhow::Result<Self> {
        let mut rng = fastrand::Rng::with_seed(options.seed);
        let table = Region::create("sim-conns", TABLE_BYTES)?;
        let table_fd = table.as_fd().try_clone_to_owned()?;
        let members = options.members;
        let cluster = (members > 0)
            .then(|| Cluster::new(ClusterOptions { members, commit_us: 1000, ..ClusterOptions::default() }));
        Ok(Self {
            trace: Trace::new(keep_trace),
            facts: Facts::default(),
            now_ms: 0,
            clock: 0,
            faulty: false,
            examining: false,
            crashes: 0,
            procs: BTreeMap::new(),
            chores: Vec::new(),
            inputs: VecDeque::new(),
            orders: BTreeMap::new(),
            listening: VecDeque::new(),
            held: BTreeMap::new(),
            estate: Estate::default(),
            taken: None,
            snapshots: Vec::new(),
            ready_clients: 0,
            done_clients: 0,
            table: Table::open(table),
            cluster,
            serving_epoch: 0,
            log: Region::create("sim-log", LOG_BYTES)?,
            table_fd,
            flip_half: rng.usize(0..2),
            rng,
            options,
        })
    }

    /// The log's memory, for a process to attach to.
    ///
    /// # Errors
    /// What the real kernel reports.
    pub fn map_log(&self) -> anyhow::Result<Region> {
        Ok(Region::open(self.log.as_fd().try_clone_to_owned()?, LOG_BYTES)?)
    }

    /// The connection table, for a process to attach to.
    ///
    /// # Errors
    /// What the real kernel reports.
    pub fn map_table(&self) -> anyhow::Result<Table> {
        Ok(Table::open(Region::open(self.table_fd.try_clone()?, TABLE_BYTES)?))
    }

    /// Adds a line to the trace.
    pub fn note(&mut self, who: impl std::fmt::Display, what: impl std::fmt::Display) {
        let line = format!("{} {who} {what}", self.now_ms);
        self.trace.note(line);
    }

    /// The next event number.
    pub fn tick_clock(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// A chance in millionths, while faults happen.
    pub fn strikes(&mut self, ppm: u32) -> bool {
        self.faulty && ppm > 0 && self.rng.u32(0..1_000_000) < ppm
    }

    /// Ends a process at once.
    pub fn kill(&mut self, id: ServiceId) {
        self.end(id, Cause::Signalled(SIGKILL));
    }

    /// A process ends by itself.
    pub fn exit(&mut self, id: ServiceId, why: &str) {
        self.facts.failures.push(format!("{id}: {why}"));
        self.note(id, format_args!("exits: {why}"));
        self.end(id, Cause::Exited(1));
    }

    fn end(&mut self, id: ServiceId, cause: Cause) {
        let Some(proc) = self.procs.get_mut(&id).filter(|proc| proc.alive) else { return };
        proc.alive = false;
        proc.paused_until_ms = None;
        let incarnation = proc.incarnation;
        self.note(id, format_args!("ends: {cause}"));
        self.chores.push(Chore::Drop(id));
        self.inputs.push_back(Input::Died { service: id, incarnation, cause });
    }

    /// Stops a process for a while (SIGSTOP, SIGCONT).
    pub fn pause(&mut self, id: ServiceId, for_ms: u64) {
        let until = self.now_ms + for_ms;
        let Some(proc) = self.procs.get_mut(&id).filter(|proc| proc.alive && proc.paused_until_ms.is_none())
        else {
            return;
        };
        proc.paused_until_ms = Some(until);
        let incarnation = proc.incarnation;
        self.note(id, "is stopped");
        self.inputs.push_back(Input::Halted { service: id, incarnation });
    }

    /// Lets stopped processes go on whose time has come.
    pub fn resume_due(&mut self) {
        let now_ms = self.now_ms;
        for (id, proc) in &mut self.procs {
            if proc.paused_until_ms.is_some_and(|until| until <= now_ms) {
                proc.paused_until_ms = None;
                self.inputs.push_back(Input::Continued { service: *id, incarnation: proc.incarnation });
            }
        }
    }

    /// The gateway takes what a dead leader has left. True if there was something.
    pub fn hear_heir(&mut self) -> bool {
        let (replica, incarnation) = self.estate.leader;
        if incarnation == 0 || self.is_current(ServiceId::Replica(replica), incarnation) {
            return false;
        }
        let Estate { accepted, unhanded, .. } = std::mem::take(&mut self.estate);
        let some = accepted.is_some() || !unhanded.is_empty();
        self.held.extend(unhanded);
        if let Some(socket) = accepted
            && let Some(slot) = self.table.allocate_socket()
        {
            let id = self.table.conn_id(slot);
            self.held.insert(id, Rc::new(socket));
        }
        some
    }

    /// A leader that has heard all that the gateway holds is the one that accepts. False as long as there may be more.
    /// The gateway does not wait for ever for the end of a former leader that lives: with one that was not fenced, the
    /// next one is `late`, and begins.
    pub fn begin_to_accept(&mut self, replica: u32, incarnation: u64, late: bool) -> bool {
        let former = self.estate.leader;
        if former.1 != 0 && former != (replica, incarnation) {
            if !late || !self.is_current(ServiceId::Replica(former.0), former.1) {
                return false;
            }
            self.estate = Estate::default();
        }
        self.estate.leader = (replica, incarnation);
        true
    }

    /// Whether somebody runs under this name.
    pub fn is_alive(&self, id: ServiceId) -> bool {
        self.procs.get(&id).is_some_and(|proc| proc.alive)
    }

    /// Whether this incarnation runs.
    pub fn is_current(&self, id: ServiceId, incarnation: u64) -> bool {
        self.procs.get(&id).is_some_and(|proc| proc.alive && proc.incarnation == incarnation)
    }

    /// Flips a bit in one copy of the log: in its header or in what was written of its ring.
    pub fn flip_log_bit(&mut self) {
        let half = (LOG_BYTES / 2) & !4095;
        let offset = self.flip_half * half + self.rng.usize(0..half / 8) * 8;
        let bit = self.rng.u32(0..64);
        let word = self.log.u64(offset);
        let value = word.load(std::sync::atomic::Ordering::SeqCst);
        if value != 0 {
            word.store(value ^ (1 << bit), std::sync::atomic::Ordering::SeqCst);
            self.note("log", format_args!("bit {bit} flips at {offset}"));
        }
    }

    /// A replica has applied an entry.
    pub fn note_applied(&mut self, replica: u32, index: u64, bytes: &[u8], root: Digest) {
        let known = self.facts.entries.contains_key(&index);
        if !known {
            if let Ok(EntryRef::Request { conn, seq, .. }) = EntryRef::decode(bytes) {
                self.facts.requests.entry((conn.0, seq)).or_default().push(index);
            }
            self.facts.entries.insert(index, bytes.to_vec());
            self.facts.roots.insert(index, root);
            return;
        }
        if self.facts.entries[&index] != bytes {
            self.facts.other_entries.push((replica, index));
        }
        if self.facts.roots[&index] != root {
            self.facts.other_roots.push((replica, index));
        }
    }

    /// A replica begins to serve.
    pub fn note_serving(&mut self, replica: u32, epoch: u64) {
        self.note(ServiceId::Replica(replica), format_args!("serves epoch {epoch}"));
        self.serving_epoch = self.serving_epoch.max(epoch);
        self.facts.leaders.push((epoch, replica));
    }

    /// A leader is about to send bytes to a client.
    pub fn note_send(&mut self, replica: u32, epoch: u64) {
        if epoch < self.serving_epoch {
            self.facts.late_sends.push((replica, epoch, self.serving_epoch));
        }
    }
}
