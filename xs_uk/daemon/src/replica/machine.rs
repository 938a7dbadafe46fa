//! The log and the state machine that it feeds, together.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use xs_consensus::{Appended, Consensus, Cursor, Epoch, LogError};
use xs_protocol::Header;
use xs_shm::Table;
use xs_store::entry::{Entry, EntryRef};
use xs_store::{ConnId, Effect, Store};

use crate::error::Error;
use crate::limits::ENTRIES_PER_KICK;

/// A replica's copy of the store and its place in the log.
pub struct Machine {
    pub store: Store,
    engine: Box<dyn Consensus>,
    buffer: Vec<u8>,
    effects: Vec<Effect>,
    undelivered: BTreeSet<ConnId>,
    kick: Option<OwnedFd>,
    unkicked: u32,
}

impl Machine {
    pub fn new(engine: Box<dyn Consensus>, store: Store) -> Self {
        let undelivered = store.connections().map(|(conn, _)| conn).collect();
        Self { store, engine, buffer: Vec::new(), effects: Vec::new(), undelivered, kick: None, unkicked: 0 }
    }

    /// Leader: the eventfd that wakes followers.
    pub fn set_kick(&mut self, kick: Option<OwnedFd>) {
        self.kick = kick;
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

    /// Fences older leaders, then applies what they left.
    pub fn lead(&mut self, epoch: u64) -> Result<(), Error> {
        self.engine.lead(Epoch(epoch))?;
        while self.catch_up(usize::MAX)? > 0 {}
        Ok(())
    }

    /// Applies up to `limit` committed entries; gives their number.
    pub fn catch_up(&mut self, limit: usize) -> Result<usize, Error> {
        let mut applied = 0;
        while applied < limit {
            let mut buffer = std::mem::take(&mut self.buffer);
            let next = self.engine.next(&mut buffer);
            if let Ok(Some(index)) = next {
                let entry = EntryRef::decode(&buffer)
                    .map_err(|error| Error::Entry { index: index.0, what: error.to_string() })?;
                self.store.apply(index.0, entry, &mut self.effects);
                self.note_outputs();
            }
            self.buffer = buffer;
            if next?.is_none() {
                break;
            }
            applied += 1;
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

    /// Leader: appends an entry and applies it. Its effects are added to `effects`.
    pub fn propose(&mut self, entry: &EntryRef<'_>, effects: &mut Vec<Effect>) -> Result<(), LogError> {
        self.buffer.clear();
        entry.encode(&mut self.buffer);
        match self.engine.append(&self.buffer)? {
            Appended::Committed(index) => {
                self.store.apply(index.0, entry.clone(), effects);
                self.kick_followers();
                Ok(())
            }
            // The embedded engine commits at once; an engine that does not gives entries back by `next`.
            Appended::Submitted(_) => unreachable!("only the embedded engine is built in"),
        }
    }

    fn kick_followers(&mut self) {
        self.unkicked += 1;
        if let Some(kick) = &self.kick
            && self.unkicked >= ENTRIES_PER_KICK
        {
            self.unkicked = 0;
            // Followers look by themselves too, only later.
            let _ = rustix::io::write(kick, &1_u64.to_ne_bytes());
        }
    }

    /// As [`Self::propose`], for the entries that are not requests.
    pub fn propose_owned(&mut self, entry: &Entry, effects: &mut Vec<Effect>) -> Result<(), LogError> {
        self.propose(&entry.as_ref(), effects)
    }

    /// Lets the log below a kept snapshot go.
    pub fn release(&mut self, cursor: &Cursor) -> Result<(), LogError> {
        self.engine.release(cursor)
    }

    fn note_outputs(&mut self) {
        for effect in self.effects.drain(..) {
            if let Effect::Output(conn) = effect {
                self.undelivered.insert(conn);
            }
        }
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
