//! The log and the state machine that it feeds, together.

use std::collections::BTreeSet;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Instant;

use control::from_service;
use xs_consensus::{Appended, Consensus, Cursor, EngineState, Epoch, LogError};
use xs_protocol::Header;
use xs_shm::Table;
use xs_store::entry::EntryRef;
use xs_store::{ConnId, Damage, DomId, Effect, Part, ScrubPlace, Store};

use super::court::{Court, Mended};
use crate::error::Error;
use crate::limits::{DISPUTE_PAUSE, DISPUTE_WAIT, ENTRIES_PER_KICK};

/// What became of a proposed entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proposed {
    /// It is in the log and applied.
    Applied,
    /// The engine has it; it is applied when it comes back.
    Submitted,
}

/// An entry that came back from the engine and was applied: whom it concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// A request.
    Request {
        conn: ConnId,
        seq: u64,
        ring_conn: Option<ConnId>,
    },
    /// A connection's opening.
    Connect(ConnId),
    /// A ring that starts anew.
    Reset(ConnId),
    /// A domain's shutdown or end.
    Domain(DomId),
    /// A domain that was named became known.
    Known,
    Other,
}

/// A replica's copy of the store and its place in the log.
pub struct Machine {
    pub store: Store,
    engine: Box<dyn Consensus>,
    buffer: Vec<u8>,
    effects: Vec<Effect>,
    undelivered: BTreeSet<ConnId>,
    kick: Option<OwnedFd>,
    unkicked: u32,
    /// Own entries that the engine has not given back.
    in_flight: usize,
    court: Court,
    scrubbed: ScrubPlace,
}

/// Wakes the followers, who look by themselves too, only later.
fn kick(followers: Option<&OwnedFd>) {
    if let Some(kick) = followers {
        let _ = rustix::io::write(kick, &1_u64.to_ne_bytes());
    }
}

impl Machine {
    pub fn new(engine: Box<dyn Consensus>, store: Store, court: Court) -> Self {
        let undelivered = store.connections().map(|(conn, _)| conn).collect();
        Self {
            store,
            engine,
            buffer: Vec::new(),
            effects: Vec::new(),
            undelivered,
            kick: None,
            unkicked: 0,
            in_flight: 0,
            court,
            scrubbed: ScrubPlace::default(),
        }
    }

    /// Leader: the eventfd that wakes followers.
    pub fn set_kick(&mut self, kick: Option<OwnedFd>) {
        self.kick = kick;
    }

    /// Replicas whose state after the last applied entry is out-voted.
    pub fn out_voted(&mut self) -> Vec<u32> {
        self.court.out_voted(self.store.applied_index())
    }

    /// Whether replicas differ after the last applied entry, and it is open who is right.
    pub fn is_disputed(&self) -> bool {
        self.court.is_disputed(self.store.applied_index())
    }

    /// Leader: whether the state that it starts from is wrong, by what the others and the former leader have noted. Where
    /// two differ, the third is waited for.
    pub fn begins_wrong(&self) -> bool {
        let index = self.store.applied_index();
        let began = Instant::now();
        while self.court.is_disputed(index) && began.elapsed() < DISPUTE_WAIT {
            if self.court.is_out_voted(index) {
                return true;
            }
            kick(self.kick.as_ref());
            std::thread::sleep(DISPUTE_PAUSE);
        }
        self.court.is_out_voted(index)
    }

    /// Answers the leader's question about a node, if there is one.
    pub fn answer_question(&mut self) {
        self.court.answer(&self.store);
    }

    /// Whether the leader waits for an answer.
    pub fn is_asked(&self) -> bool {
        self.court.is_asked()
    }

    /// Leader: puts a damaged node right with the others' help.
    pub fn mend(&mut self, damage: &Damage) -> Mended {
        let others = self.kick.as_ref();
        self.court.mend(&mut self.store, damage, || kick(others))
    }

    /// Verifies up to `nodes` nodes more; gives how many it were, and what was found.
    pub fn scrub(&mut self, nodes: usize) -> (usize, Option<Damage>) {
        let report = self.store.scrub(&mut self.scrubbed, nodes);
        (report.checked, report.damage)
    }

    /// Where a part of a live node lies in memory, for a fault to be injected there.
    pub fn locate(&self, question: &control::Locate) -> from_service::Report {
        let part = Part::from_name(&question.part);
        let (address, length) =
            part.and_then(|part| self.store.locate(&question.path, part)).unwrap_or((0, 0));
        from_service::Report::Located(control::Located {
            number: question.number,
            address: address as u64,
            length_bytes: length as u64,
        })
    }

    /// Last applied log index.
    pub fn index(&self) -> u64 {
        self.engine.cursor().index.0
    }

    pub fn cursor(&self) -> Cursor {
        self.engine.cursor()
    }

    pub fn capacity_bytes(&self) -> u64 {
        self.engine.capacity_bytes()
    }

    pub fn used_bytes(&self) -> u64 {
        self.engine.used_bytes()
    }

    /// Whether the engine still keeps what was let go, for a while.
    pub fn retains(&self) -> bool {
        self.engine.retains()
    }

    /// The leader kicked: the log has grown.
    pub fn expect_more(&mut self) {
        self.engine.expect_more();
    }

    /// What to wait on for committed entries; none if the engine commits at once.
    pub fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        self.engine.wake_fd()
    }

    /// How the engine fares.
    pub fn engine_state(&self) -> EngineState {
        self.engine.state()
    }

    /// Own entries that are not committed yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Begins to fence older leaders.
    pub fn begin_lead(&mut self, epoch: u64) -> Result<(), Error> {
        Ok(self.engine.lead(Epoch(epoch))?)
    }

    /// Applies what older leaders left. True once they are fenced and nothing is left.
    pub fn finish_lead(&mut self) -> Result<bool, Error> {
        loop {
            let fenced = self.engine.is_leading()?;
            while self.catch_up(usize::MAX)? > 0 {}
            // What changed meanwhile has no wake-up of its own any more.
            if fenced == self.engine.is_leading()? {
                return Ok(fenced);
            }
        }
    }

    /// Applies up to `limit` committed entries; gives their number.
    pub fn catch_up(&mut self, limit: usize) -> Result<usize, Error> {
        let mut effects = std::mem::take(&mut self.effects);
        let mut applied = 0;
        while applied < limit && self.apply_next(&mut effects)?.is_some() {
            applied += 1;
            self.note_outputs(&mut effects);
        }
        self.effects = effects;
        Ok(applied)
    }

    /// Applies the next committed entry; none if there is none yet.
    pub fn apply_next(&mut self, effects: &mut Vec<Effect>) -> Result<Option<Applied>, Error> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let next = self.engine.next(&mut buffer);
        let applied = match next {
            Ok(Some(index)) => {
                let entry = EntryRef::decode(&buffer)
                    .map_err(|error| Error::Entry { index: index.0, what: error.to_string() })?;
                let concerns = concerns(&entry);
                self.store.apply(index.0, entry, effects);
                self.note_root()?;
                Some(concerns)
            }
            _ => None,
        };
        self.buffer = buffer;
        next?;
        Ok(applied)
    }

    /// Leader: as [`Self::apply_next`], for what it submitted itself.
    pub fn take_committed(&mut self, effects: &mut Vec<Effect>) -> Result<Option<Applied>, Error> {
        let applied = self.apply_next(effects)?;
        if applied.is_some() {
            self.in_flight = self.in_flight.saturating_sub(1);
            self.kick_followers();
        }
        Ok(applied)
    }

    /// Follower: forgets what the leader has queued for its clients.
    pub fn trim_delivered(&mut self, table: &Table) {
        let store = &mut self.store;
        self.undelivered.retain(|conn| {
            if let Some(ordinal) = table.delivered(conn.0) {
                store.trim(*conn, ordinal);
            }
            store.outbox(*conn).next().is_some()
        });
    }

    /// Leader: appends an entry and applies it. Its effects are added to `effects`. After damage they are not to be
    /// acted on, and no answer may leave.
    pub fn propose(&mut self, entry: &EntryRef<'_>, effects: &mut Vec<Effect>) -> Result<Proposed, Error> {
        self.buffer.clear();
        entry.encode(&mut self.buffer);
        match self.engine.append(&self.buffer)? {
            Appended::Committed(index) => {
                self.store.apply(index.0, entry.clone(), effects);
                self.kick_followers();
                self.note_root()?;
                Ok(Proposed::Applied)
            }
            Appended::Submitted(_) => {
                self.in_flight += 1;
                Ok(Proposed::Submitted)
            }
        }
    }

    /// A store that met damage while it applied an entry may be half changed: the process has to end. The root of one
    /// that did not is noted for the others.
    fn note_root(&self) -> Result<(), Error> {
        if let Some(damage) = self.store.damage() {
            return Err(Error::Damaged(damage.clone()));
        }
        self.court.note(self.store.applied_index(), &self.store.root());
        Ok(())
    }

    fn kick_followers(&mut self) {
        self.unkicked += 1;
        if self.unkicked >= ENTRIES_PER_KICK {
            self.unkicked = 0;
            kick(self.kick.as_ref());
        }
    }

    /// Leader: gives a snapshot to an engine that keeps them itself.
    pub fn save_snapshot(&mut self, cursor: &Cursor, bytes: Vec<u8>) -> Result<(), LogError> {
        self.engine.save_snapshot(cursor, bytes).map(drop)
    }

    /// Lets the log below a kept snapshot go.
    pub fn release(&mut self, cursor: &Cursor) -> Result<(), LogError> {
        self.engine.release(cursor)
    }

    fn note_outputs(&mut self, effects: &mut Vec<Effect>) {
        for effect in effects.drain(..) {
            if let Effect::Output(conn) = effect {
                self.undelivered.insert(conn);
            }
        }
    }
}

fn concerns(entry: &EntryRef<'_>) -> Applied {
    match entry {
        EntryRef::Request { conn, seq, ring_conn, .. } => {
            Applied::Request { conn: *conn, seq: *seq, ring_conn: *ring_conn }
        }
        EntryRef::Connect { conn, .. } => Applied::Connect(*conn),
        EntryRef::Reset { conn } => Applied::Reset(*conn),
        EntryRef::DomainShutdown { domid } | EntryRef::DomainGone { domid } => Applied::Domain(*domid),
        EntryRef::DomainKnown { .. } => Applied::Known,
        _ => Applied::Other,
    }
}

/// A client's request as a log entry.
pub fn request<'a>(
    conn: ConnId,
    seq: u64,
    header: Header,
    payload: &'a [u8],
    verdict: Option<xs_protocol::XsError>,
    ring_conn: Option<ConnId>,
) -> EntryRef<'a> {
    EntryRef::Request { conn, seq, header, payload, verdict, ring_conn }
}
