//! The log and the state machine that it feeds, together; as the daemon's `machine.rs`.

use std::collections::BTreeSet;
use std::time::Duration;

use warden::planner::Input;
use xs_consensus::{Appended, Consensus, Cursor, Epoch, Loaded, LogError};
use xs_shm::Table;
use xs_store::{ConnId, Effect, Entry, EntryRef, Store};

use crate::facts::Final;
use crate::options::{Engine, Mutant};
use crate::process::{End, Env};

/// An entry that came back and was applied: whom it concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    Request { conn: ConnId, seq: u64 },
    Connect(ConnId),
    Other,
}

/// What became of a proposed entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Applied,
    Submitted,
    Full,
    Unavailable,
}

pub struct Machine {
    pub store: Store,
    env: Env,
    engine: Box<dyn Consensus>,
    buffer: Vec<u8>,
    undelivered: BTreeSet<ConnId>,
    pub in_flight: usize,
    examined: Option<u64>,
    copy_examined: bool,
    /// Bytes in use when the last snapshot was kept.
    base_bytes: u64,
    /// The log's end then, and how many were kept there, two at most.
    kept_at: u64,
    kept_there: u32,
    /// The log was full since.
    is_full: bool,
}

impl Machine {
    pub fn new(env: Env, engine: Box<dyn Consensus>, store: Store) -> Self {
        let undelivered = store.connections().map(|(conn, _)| conn).collect();
        Self {
            store,
            env,
            engine,
            buffer: Vec::new(),
            undelivered,
            in_flight: 0,
            examined: None,
            copy_examined: false,
            base_bytes: 0,
            kept_at: 0,
            kept_there: 0,
            is_full: false,
        }
    }

    pub fn index(&self) -> u64 {
        self.engine.cursor().index.0
    }

    pub fn cursor(&self) -> Cursor {
        self.engine.cursor()
    }

    /// Whether the log needs a snapshot soon; as the daemon's, more than those in use when the last one was kept counts.
    pub fn is_filling(&mut self) -> bool {
        let used = self.engine.used_bytes();
        self.base_bytes = if self.engine.retains() { self.base_bytes.min(used) } else { 0 };
        let filling = self.is_full || used > self.base_bytes + self.engine.capacity_bytes() / 3;
        filling && (self.kept_at, 2) != (self.index(), self.kept_there)
    }

    pub fn begin_lead(&mut self, epoch: u64) -> Result<(), End> {
        self.engine.lead(Epoch(epoch)).map_err(|error| failed(&error))
    }

    /// True once older leaders are fenced and nothing that they left is to be read.
    pub async fn finish_lead(&mut self) -> Result<bool, End> {
        let fenced = self.engine.is_leading().map_err(|error| failed(&error))?;
        while self.catch_up(usize::MAX).await? > 0 {}
        Ok(fenced)
    }

    pub fn release(&mut self, cursor: &Cursor) -> Result<(), End> {
        self.engine.release(cursor).map_err(|error| failed(&error))?;
        (self.base_bytes, self.is_full) = (self.engine.used_bytes(), false);
        let before = if self.kept_at == self.index() { self.kept_there } else { 0 };
        (self.kept_at, self.kept_there) = (self.index(), (before + 1).min(2));
        Ok(())
    }

    /// Leader of a log that is copied: a snapshot goes to etcd too. Of what is in it nothing here depends.
    pub fn keep_snapshot(&mut self, cursor: &Cursor) -> Result<(), End> {
        if self.env.with(|kernel| kernel.options.engine) != Engine::Copied {
            return Ok(());
        }
        match self.engine.save_snapshot(cursor, cursor.encode().to_vec()) {
            Ok(_) | Err(LogError::Busy { .. }) => Ok(()),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Applies up to `limit` committed entries; gives their number.
    pub async fn catch_up(&mut self, limit: usize) -> Result<usize, End> {
        let (mut applied, mut effects) = (0, Vec::new());
        while applied < limit && self.apply_next(&mut effects).await?.is_some() {
            applied += 1;
            let outputs = effects.drain(..).filter_map(|effect| match effect {
                Effect::Output(conn) => Some(conn),
                _ => None,
            });
            self.undelivered.extend(outputs);
        }
        Ok(applied)
    }

    /// Applies the next committed entry; none if there is none yet.
    pub async fn apply_next(&mut self, effects: &mut Vec<Effect>) -> Result<Option<Applied>, End> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let Some(index) = self.engine.next(&mut buffer).map_err(|error| failed(&error))? else {
            self.buffer = buffer;
            return Ok(None);
        };
        let entry = EntryRef::decode(&buffer).map_err(|error| End::Failed(error.to_string()))?;
        let concerns = concerns(&entry);
        self.apply(index.0, &entry, &buffer, effects)?;
        self.buffer = buffer;
        self.env.point("applied").await?;
        Ok(Some(concerns))
    }

    /// Leader: as [`Self::apply_next`], for what it submitted itself.
    pub async fn take_committed(&mut self, effects: &mut Vec<Effect>) -> Result<Option<Applied>, End> {
        let applied = self.apply_next(effects).await?;
        if applied.is_some() {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        Ok(applied)
    }

    /// Leader: appends an entry and, if that committed it, applies it.
    pub async fn propose(&mut self, entry: &Entry, effects: &mut Vec<Effect>) -> Result<Outcome, End> {
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        let appended = match self.engine.append(&bytes) {
            Ok(appended) => appended,
            Err(LogError::Full { .. }) => {
                self.is_full = true;
                return Ok(Outcome::Full);
            }
            Err(LogError::Busy { .. }) => return Ok(Outcome::Full),
            Err(LogError::Unavailable { .. }) => return Ok(Outcome::Unavailable),
            Err(error) => return Err(failed(&error)),
        };
        self.env.point("appended").await?;
        match appended {
            Appended::Committed(index) => {
                self.apply(index.0, &entry.as_ref(), &bytes, effects)?;
                self.env.point("applied").await?;
                Ok(Outcome::Applied)
            }
            Appended::Submitted(_) => {
                self.in_flight += 1;
                Ok(Outcome::Submitted)
            }
        }
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

    /// Tells the warden how far it is and, at the end of a run, the invariants what it is like.
    pub fn report(&mut self) {
        let (index, replica) = (self.index(), self.env.replica());
        let incarnation = self.env.incarnation;
        let examine = self.env.with(|kernel| {
            kernel.inputs.push_back(Input::Progress { replica, incarnation, applied: index });
            kernel.examining
        });
        if examine && self.examined != Some(index) {
            self.examined = Some(index);
            let is = Final { index, root: self.store.root(), faults: self.store.check() };
            self.env.with(|kernel| kernel.facts.finals.insert(replica, is));
        }
    }

    /// At the end of a run: has etcd's copy read by somebody who knows nothing of the log in memory.
    pub fn examine_copy(&mut self) {
        let examine = self.env.with(|kernel| kernel.examining && kernel.options.engine == Engine::Copied);
        if !examine || std::mem::replace(&mut self.copy_examined, true) {
            return;
        }
        let env = self.env.clone();
        tokio::task::spawn_local(async move {
            // One that was overtaken begins again.
            while let Err(LogError::Overrun { .. }) = read_copy(&env).await {}
        });
    }

    fn apply(
        &mut self,
        index: u64,
        entry: &EntryRef<'_>,
        bytes: &[u8],
        effects: &mut Vec<Effect>,
    ) -> Result<(), End> {
        let skips = self.env.replica() == 2
            && index.is_multiple_of(16)
            && self.env.with(|kernel| kernel.options.mutant) == Some(Mutant::OwnRoot);
        let entry = if skips { EntryRef::Noop } else { entry.clone() };
        self.store.apply(index, entry, effects);
        if let Some(damage) = self.store.damage() {
            return Err(End::Failed(format!("damage: {damage:?}")));
        }
        let (replica, root) = (self.env.replica(), self.store.root());
        let repairs = self.engine.take_repairs();
        self.env.with(|kernel| {
            kernel.facts.repairs += repairs.entries + repairs.words;
            kernel.note_applied(replica, index, bytes, root);
        });
        Ok(())
    }
}

/// Reads etcd's copy from its newest snapshot on, until something is wrong with it.
async fn read_copy(env: &Env) -> Result<(), LogError> {
    let engine = |error: End| LogError::Engine { what: format!("{error:?}") };
    let mut copy = crate::engine::etcd(env, Cursor::default()).map_err(engine)?;
    let mut bytes = Vec::new();
    let read: Result<(), LogError> = async {
        loop {
            match copy.load_snapshot()? {
                Loaded::Pending => tokio::time::sleep(Duration::from_millis(1)).await,
                Loaded::Snapshot { cursor, .. } => {
                    env.with(|kernel| kernel.facts.copy_read_to = cursor.index.0);
                    break;
                }
                Loaded::Nothing => break,
            }
        }
        loop {
            match copy.next(&mut bytes)? {
                Some(index) => env.with(|kernel| kernel.facts.note_copy(index.0, &bytes)),
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    }
    .await;
    if let Err(error) = &read {
        env.with(|kernel| kernel.note("the copy", error));
    }
    read
}

fn concerns(entry: &EntryRef<'_>) -> Applied {
    match entry {
        EntryRef::Request { conn, seq, .. } => Applied::Request { conn: *conn, seq: *seq },
        EntryRef::Connect { conn, .. } => Applied::Connect(*conn),
        _ => Applied::Other,
    }
}

fn failed(error: &LogError) -> End {
    End::Failed(error.to_string())
}
