//! Members that share one committed log: a simple model of Raft, in which the world says who reaches whom.
//!
//! ```text
//!   proposal --> the member's leader has a majority? --yes--> committed; every member that the leader reaches applies it
//!                     |                     \--no leader--> refused
//!                     no: stranded --majority is back, same term--> committed
//!                                  \--another leader is elected--> dropped
//! ```
//!
//! A leader that loses its majority stays leader until another one is elected ([`Cluster::tick`]), as in Raft; it
//! answers nothing then, not even reads. Members keep their state when they are down, as on a disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::error::EtcdError;
use crate::limits::{MEMBERS_MAX, STRANDED_MAX};
use crate::state::{Answer, Op, State};
use crate::watch::Streams;

/// What a cluster is like.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Number of members, at most [`MEMBERS_MAX`].
    pub members: usize,
    /// How long a proposal takes: half of it before, half of it after it is committed.
    pub commit_us: u64,
    /// How long there is no leader before another is elected.
    pub election_ms: u64,
    /// How long a request waits for a majority.
    pub request_timeout_ms: u64,
    /// Bytes that the key space may take.
    pub quota_bytes: usize,
    /// The version that members say they have.
    pub version: String,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            members: 1,
            commit_us: 0,
            election_ms: 1000,
            request_timeout_ms: 7000,
            quota_bytes: 2 << 30,
            version: "3.6.9".to_owned(),
        }
    }
}

/// Names a proposal that waits for a majority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// What became of a proposal.
#[derive(Debug)]
pub(crate) enum Proposed {
    Answered(Result<Answer, EtcdError>),
    Stranded(Ticket),
}

#[derive(Default)]
pub(crate) struct MemberState {
    pub state: State,
    applied: u64,
    is_down: bool,
    is_slow: bool,
    pub streams: Streams,
}

pub(crate) struct Inner {
    pub options: ClusterOptions,
    pub members: Vec<MemberState>,
    log: VecDeque<Op>,
    /// Index of the last committed entry.
    committed: u64,
    cut: BTreeSet<(usize, usize)>,
    pub leader: usize,
    pub term: u64,
    leaderless_ms: u64,
    stranded: VecDeque<(Ticket, Op)>,
    settled: BTreeMap<Ticket, Result<Answer, EtcdError>>,
    tickets: u64,
}

/// A cluster, shared by its members and the world that holds it. Survives its members.
#[derive(Clone)]
pub struct Cluster {
    pub(crate) inner: Arc<Mutex<Inner>>,
    pub(crate) settled: Arc<tokio::sync::Notify>,
}

impl Cluster {
    /// A new cluster, all members up and connected, led by the first.
    ///
    /// # Panics
    /// If the number of members is 0 or over [`MEMBERS_MAX`].
    pub fn new(options: ClusterOptions) -> Self {
        assert!((1..=MEMBERS_MAX).contains(&options.members), "a cluster has members, and a bound on them");
        let inner = Inner {
            members: (0..options.members).map(|_| MemberState::default()).collect(),
            options,
            log: VecDeque::new(),
            committed: 0,
            cut: BTreeSet::new(),
            leader: 0,
            term: 2,
            leaderless_ms: 0,
            stranded: VecDeque::new(),
            settled: BTreeMap::new(),
            tickets: 0,
        };
        Self { inner: Arc::new(Mutex::new(inner)), settled: Arc::default() }
    }

    /// A member goes down (its watches end) or comes up again, with its state.
    pub fn set_up(&self, member: usize, up: bool) {
        self.change(|inner| {
            inner.members[member].is_down = !up;
            inner.members[member].streams.clear();
        });
    }

    /// A member does not run for a while (SIGSTOP): others do without it, its watches and connections stay.
    pub fn set_paused(&self, member: usize, paused: bool) {
        self.change(|inner| inner.members[member].is_down = paused);
    }

    /// A slow member applies entries only when it must for a request of its own.
    pub fn set_slow(&self, member: usize, slow: bool) {
        self.change(|inner| inner.members[member].is_slow = slow);
    }

    /// The link between two members breaks or is repaired.
    pub fn set_link(&self, a: usize, b: usize, up: bool) {
        self.change(|inner| {
            let link = (a.min(b), a.max(b));
            if up {
                inner.cut.remove(&link)
            } else {
                inner.cut.insert(link)
            };
        });
    }

    /// Time passes: a leader without majority is replaced after [`ClusterOptions::election_ms`] by the first member
    /// that knows all that is committed and reaches a majority.
    pub fn tick(&self, elapsed_ms: u64) {
        self.change(|inner| inner.pass(elapsed_ms));
    }

    /// The member that leads.
    pub fn leader(&self) -> usize {
        self.lock().leader
    }

    /// Grows with each election.
    pub fn term(&self) -> u64 {
        self.lock().term
    }

    /// A member's copy of the key space.
    pub fn state(&self, member: usize) -> State {
        self.lock().members[member].state.clone()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.lock();
        change(&mut inner);
        inner.commit_stranded();
        inner.replicate();
        drop(inner);
        self.settled.notify_waiters();
    }
}

impl Inner {
    /// Proposes at a member.
    pub fn propose(&mut self, member: usize, op: Op) -> Proposed {
        if self.members[member].is_down || !self.reaches(member, self.leader) {
            return Proposed::Answered(Err(EtcdError::NoLeader));
        }
        if self.has_majority(self.leader) {
            return Proposed::Answered(self.commit(member, &op));
        }
        if self.stranded.len() >= STRANDED_MAX {
            return Proposed::Answered(Err(EtcdError::TooManyRequests));
        }
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.stranded.push_back((ticket, op));
        Proposed::Stranded(ticket)
    }

    /// The outcome of a stranded proposal, once it is known.
    pub fn take_settled(&mut self, ticket: Ticket) -> Option<Result<Answer, EtcdError>> {
        self.settled.remove(&ticket)
    }

    fn commit(&mut self, member: usize, op: &Op) -> Result<Answer, EtcdError> {
        if !op.may_change() {
            self.apply_up_to(member, self.committed);
            return self.members[member].state.apply(op);
        }
        self.apply_up_to(member, self.committed);
        let over = self.members[member].state.used_bytes() + op.cost_bytes() > self.options.quota_bytes;
        if over && op.costs_space() {
            self.append(member, &Op::NoSpace(true))?;
            return Err(EtcdError::NoSpace);
        }
        let answer = self.append(member, op);
        self.replicate();
        answer
    }

    fn append(&mut self, member: usize, op: &Op) -> Result<Answer, EtcdError> {
        self.log.push_back(op.clone());
        self.committed += 1;
        let at = &mut self.members[member];
        let answer = at.state.apply(op);
        at.applied = self.committed;
        at.streams.pump(&at.state);
        answer
    }

    fn apply_up_to(&mut self, member: usize, index: u64) {
        let first = self.committed - self.log.len() as u64;
        let at = &mut self.members[member];
        while at.applied < index {
            let place = usize::try_from(at.applied - first).expect("an offset into a log in memory");
            // An entry that is refused is refused by every member alike.
            let _ = at.state.apply(&self.log[place]);
            at.applied += 1;
            at.streams.pump(&at.state);
        }
    }

    fn replicate(&mut self) {
        for member in 0..self.members.len() {
            if !self.members[member].is_slow && self.reaches(self.leader, member) {
                self.apply_up_to(member, self.committed);
            }
        }
        let first = self.committed - self.log.len() as u64;
        let least = self.members.iter().map(|member| member.applied).min().unwrap_or(0);
        self.log.drain(..usize::try_from(least - first).expect("an offset into a log in memory"));
    }

    fn commit_stranded(&mut self) {
        while self.has_majority(self.leader)
            && let Some((ticket, op)) = self.stranded.pop_front()
        {
            let answer = self.commit(self.leader, &op);
            self.settled.insert(ticket, answer);
        }
        while self.settled.len() > STRANDED_MAX {
            self.settled.pop_first();
        }
    }

    fn pass(&mut self, elapsed_ms: u64) {
        if self.has_majority(self.leader) {
            self.leaderless_ms = 0;
            return;
        }
        self.leaderless_ms += elapsed_ms;
        if self.leaderless_ms < self.options.election_ms {
            return;
        }
        let members = 0..self.members.len();
        let Some(elected) = members.into_iter().find(|member| self.has_majority(*member)) else { return };
        self.leader = elected;
        self.term += 1;
        self.leaderless_ms = 0;
        self.apply_up_to(elected, self.committed);
        for (ticket, _) in self.stranded.drain(..) {
            self.settled.insert(ticket, Err(EtcdError::Timeout));
        }
    }

    fn has_majority(&self, member: usize) -> bool {
        let reached = (0..self.members.len()).filter(|other| self.reaches(member, *other)).count();
        2 * reached > self.members.len()
    }

    /// Both are up, and the link between them is.
    fn reaches(&self, a: usize, b: usize) -> bool {
        let up = !self.members[a].is_down && !self.members[b].is_down;
        up && !self.cut.contains(&(a.min(b), a.max(b)))
    }
}

#[cfg(test)]
mod tests;
