//! The engine without input and output: what to ask of etcd next, and what its answers mean.
//!
//! ```text
//!                  lead              put leader key             read to the end
//!   Following -----------> Claiming ---------------> CatchingUp ----------------> Leading
//!                              |  a newer epoch            |  the leader key changed  |
//!                              +----------> Fenced <-------+--------------------------+
//! ```
//!
//! # Why nothing is lost, doubled or reordered
//!
//! - *Fence.* A leader knows the modification revision that its claim gave the leader key. Every batch is a transaction
//!   that compares it, and raft orders transactions: after a newer claim no older batch gets in.
//! - *End of the log.* A leader goes on only from a page that is at least as new as its claim, so a member that answers
//!   from a stale state (etcd issue 20418) cannot hide a batch from it.
//! - *Unknown outcome.* The transaction also compares that the batch's key is missing, and else reads it. It is repeated
//!   unchanged until an answer comes; if the key holds our bytes, an earlier attempt got in. A copy that a member
//!   held back and lets go after the batch was trimmed writes a key below the floor: readers skip it as old, the next
//!   trimming deletes it.
//! - *Order.* One batch is under way at a time; each carries the chain's value before and behind it.
//!
//! Deleting below a snapshot and compacting history take nothing from a reader that is within the log: pages read
//! current keys only, and a watch that fell behind the compaction is replaced by a page. A gap that the manifest's floor
//! explains is an overrun; any other is damage.

use std::time::Duration;

use xs_consensus::limits::ENTRY_BYTES_MAX;
use xs_consensus::{Cursor, EngineState, Epoch, Index, Loaded, LogError};

use crate::call::{Answer, CallError, CallId, Found, KeyValue, Output, Slot};
use crate::keys::Keys;
use crate::leader::Leader;
use crate::limits::{QUEUE_BYTES_MAX, QUEUE_ENTRIES_MAX, SNAPSHOT_BYTES_MAX};
use crate::manifest::Manifest;
use appender::{Appender, Queued};
use health::Health;
use keep::Keep;
use lines::Lines;
use load::Load;
use reader::{Broken, Reader};

mod appender;
mod calls;
mod health;
mod keep;
mod lines;
mod load;
mod log;
mod reader;
#[cfg(test)]
mod tests;

/// What the core must know.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// Names of the keys.
    pub keys: Keys,
    /// The members.
    pub endpoints: Vec<String>,
    /// First wait for an answer; doubles with each attempt.
    pub call_timeout: Duration,
    /// How often a follower looks by itself, and a leader whether its fence holds.
    pub poll_interval: Duration,
    /// How often a member is asked for its state.
    pub status_interval: Duration,
    /// Without a commit for so long, while entries wait, appends are refused.
    pub unavailable_after: Duration,
    /// Most bytes of the log that no snapshot covers.
    pub log_bytes_max: u64,
    /// Whether a follower is told of each batch by a watch. Else it looks when it is to expect more, and when it polls.
    pub watch: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Following,
    /// `seen` is the leader key's revision when it was read.
    Claiming {
        me: Leader,
        seen: Option<i64>,
    },
    CatchingUp {
        me: Leader,
        fence: i64,
    },
    Leading {
        me: Leader,
        fence: i64,
    },
    Fenced {
        ours: Epoch,
        newer: Epoch,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    None,
    Open {
        id: u64,
    },
    /// To be ended.
    Stale,
}

/// What a watch reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// Keys that were put, in order.
    Put(Vec<KeyValue>),
    /// It ended, by itself or by an error.
    Ended,
}

/// The engine's state machine. All times are since an origin that the driver picks.
#[derive(Debug)]
pub struct Core {
    config: CoreConfig,
    now: Duration,
    role: Role,
    /// Last entry that others appended before we led.
    end: Index,
    reader: Reader,
    broken: Option<Broken>,
    /// The log may hold more than was read.
    behind: bool,
    /// It may have grown behind the page that is being read.
    expecting: bool,
    next_poll: Duration,
    /// The newest revision that was seen.
    revision: i64,
    /// Where a watch goes on from the last page.
    watch_from: i64,
    cluster: Option<u64>,
    watch: Watch,
    watches: u64,
    watch_not_before: Duration,
    appender: Appender,
    manifest: Option<Manifest>,
    keep: Option<Keep>,
    load: Option<Load>,
    loaded: Option<Result<Loaded, Broken>>,
    lines: Lines,
    health: Health,
    wake: bool,
    /// What etcd holds is to be deleted first.
    anew: bool,
}

impl Core {
    /// An engine that reads on from `from`.
    pub fn new(config: CoreConfig, from: Cursor) -> Self {
        Self {
            health: Health::new(&config.endpoints),
            config,
            now: Duration::ZERO,
            role: Role::Following,
            end: Index(0),
            reader: Reader::new(from),
            broken: None,
            behind: true,
            expecting: false,
            next_poll: Duration::ZERO,
            revision: 0,
            watch_from: 0,
            cluster: None,
            watch: Watch::None,
            watches: 0,
            watch_not_before: Duration::ZERO,
            appender: Appender::default(),
            manifest: None,
            keep: None,
            load: None,
            loaded: None,
            lines: Lines::default(),
            wake: false,
            anew: false,
        }
    }

    /// See [`xs_consensus::Consensus::lead`]. `nonce` is a random number.
    ///
    /// # Errors
    /// [`LogError::Fenced`]; [`LogError::Engine`] while a snapshot is being loaded.
    pub fn lead(&mut self, epoch: Epoch, nonce: u64) -> Result<(), LogError> {
        if self.is_loading() {
            return Err(LogError::Engine { what: "a snapshot is being loaded".to_owned() });
        }
        match self.role {
            Role::Fenced { newer, .. } if newer >= epoch => {
                return Err(LogError::Fenced { ours: epoch.0, newer: newer.0 });
            }
            Role::Claiming { me, .. } | Role::CatchingUp { me, .. } | Role::Leading { me, .. }
                if me.epoch >= epoch =>
            {
                let newer = me.epoch.0;
                return if me.epoch == epoch {
                    Ok(())
                } else {
                    Err(LogError::Fenced { ours: epoch.0, newer })
                };
            }
            _ => {}
        }
        // What of the entries under way got in comes back by reading.
        self.appender = Appender::default();
        self.keep = None;
        for slot in [Slot::Append, Slot::Claim, Slot::Keep, Slot::Read] {
            self.lines.forget(slot);
        }
        self.stop_watching();
        self.role = Role::Claiming { me: Leader { epoch, nonce }, seen: None };
        Ok(())
    }

    /// As [`Self::lead`], for a log that is copied from elsewhere: what etcd holds of it is deleted first, and the copy
    /// goes on from where this engine reads.
    ///
    /// # Errors
    /// As there.
    pub fn lead_anew(&mut self, epoch: Epoch, nonce: u64) -> Result<(), LogError> {
        self.lead(epoch, nonce)?;
        (self.anew, self.reader.anchored) = (true, true);
        Ok(())
    }

    /// See [`xs_consensus::Consensus::is_leading`].
    ///
    /// # Errors
    /// [`LogError::Fenced`].
    pub fn is_leading(&self) -> Result<bool, LogError> {
        match self.role {
            Role::Leading { .. } => Ok(true),
            Role::Fenced { ours, newer } => Err(LogError::Fenced { ours: ours.0, newer: newer.0 }),
            _ => Ok(false),
        }
    }

    /// See [`xs_consensus::Consensus::append`].
    ///
    /// # Errors
    /// As there.
    pub fn append(&mut self, entry: &[u8]) -> Result<Index, LogError> {
        self.append_of(entry, self.epoch(), None)
    }

    /// As [`Self::append`], for an entry that a leader, perhaps of an older epoch, has made elsewhere, where `hash` is the
    /// chain's value behind it.
    ///
    /// # Errors
    /// As there.
    pub fn append_of(
        &mut self,
        entry: &[u8],
        epoch: Epoch,
        hash: Option<[u8; 32]>,
    ) -> Result<Index, LogError> {
        if !self.is_leading()? {
            return Err(LogError::NotLeading);
        }
        self.check_broken()?;
        if entry.len() > ENTRY_BYTES_MAX {
            return Err(LogError::TooLarge { bytes: entry.len() });
        }
        if self.reader.cursor.index < self.end {
            return Err(LogError::Behind { cursor: self.reader.cursor.index.0 });
        }
        self.check_flow()?;
        self.appender.push(Queued { entry: entry.to_vec(), epoch, hash });
        Ok(Index(self.reader.fetched.index.0 + (self.appender.in_flight() + self.appender.queued()) as u64))
    }

    fn epoch(&self) -> Epoch {
        match self.role {
            Role::Claiming { me, .. } | Role::CatchingUp { me, .. } | Role::Leading { me, .. } => me.epoch,
            Role::Following | Role::Fenced { .. } => Epoch(0),
        }
    }

    fn check_flow(&self) -> Result<(), LogError> {
        let waited =
            self.appender.waiting_since.map_or(Duration::ZERO, |since| self.now.saturating_sub(since));
        if waited >= self.config.unavailable_after {
            return Err(LogError::Unavailable { waited_ms: millis(waited) });
        }
        let used_bytes = self.used_bytes();
        if used_bytes >= self.config.log_bytes_max {
            return Err(LogError::Full { used_bytes, capacity_bytes: self.config.log_bytes_max });
        }
        let queued = self.appender.queued() + self.appender.in_flight() + self.reader.ready();
        let bytes = self.appender.bytes() + self.reader.ready_bytes();
        if queued >= QUEUE_ENTRIES_MAX || bytes >= QUEUE_BYTES_MAX {
            return Err(LogError::Busy { queued });
        }
        Ok(())
    }

    /// See [`xs_consensus::Consensus::next`].
    ///
    /// # Errors
    /// As there.
    pub fn next(&mut self, entry: &mut Vec<u8>) -> Result<Option<Index>, LogError> {
        if self.is_loading() {
            return Ok(None);
        }
        if let Some(index) = self.reader.give(entry) {
            return Ok(Some(index));
        }
        self.check_broken()?;
        self.is_leading()?;
        Ok(None)
    }

    fn check_broken(&self) -> Result<(), LogError> {
        self.broken.map_or(Ok(()), |broken| Err(broken.into()))
    }

    /// See [`xs_consensus::Consensus::save_snapshot`].
    ///
    /// # Errors
    /// As there.
    pub fn save_snapshot(&mut self, cursor: &Cursor, bytes: Vec<u8>) -> Result<(), LogError> {
        if !self.is_leading()? {
            return Err(LogError::NotLeading);
        }
        if bytes.len() > SNAPSHOT_BYTES_MAX {
            return Err(LogError::TooLarge { bytes: bytes.len() });
        }
        if cursor.index > self.reader.cursor.index {
            return Err(LogError::Engine {
                what: format!("no snapshot can be of entry {} yet", cursor.index.0),
            });
        }
        if self.keep.is_some() {
            return Err(LogError::Busy { queued: 1 });
        }
        if self.manifest.as_ref().is_none_or(|manifest| manifest.newest.index < cursor.index.0) {
            self.keep = Some(Keep::new(self.manifest.as_ref(), cursor, bytes));
        }
        Ok(())
    }

    /// See [`xs_consensus::Consensus::load_snapshot`].
    ///
    /// # Errors
    /// As there.
    pub fn load_snapshot(&mut self) -> Result<Loaded, LogError> {
        if !matches!(self.role, Role::Following | Role::Fenced { .. }) {
            return Err(LogError::Engine { what: "a leader loads no snapshot".to_owned() });
        }
        match self.loaded.take() {
            Some(loaded) => Ok(loaded?),
            None => {
                self.load.get_or_insert_default();
                Ok(Loaded::Pending)
            }
        }
    }

    fn is_loading(&self) -> bool {
        self.load.is_some() || self.loaded.is_some()
    }

    /// See [`xs_consensus::Consensus::expect_more`].
    pub fn expect_more(&mut self) {
        (self.behind, self.expecting) = (true, true);
    }

    /// Behind the last entry given out.
    pub fn cursor(&self) -> Cursor {
        self.reader.cursor
    }

    /// Bytes of the log that no snapshot covers, as far as this engine has read it.
    pub fn used_bytes(&self) -> u64 {
        self.reader.used_bytes() + self.appender.bytes() as u64
    }

    /// See [`xs_consensus::Consensus::state`].
    pub fn state(&self) -> EngineState {
        EngineState {
            health: self.health.verdict(self.now, self.waited(), &self.config),
            in_flight: self.appender.in_flight(),
            queued: self.appender.queued(),
            members: self.health.members(),
            version: self.health.version(),
            warnings: self.health.warnings(),
            latency_us: self.health.latency.map(|took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX)),
            snapshot: self.manifest.as_ref().map(|manifest| Index(manifest.newest.index)),
            saving_snapshot: self.keep.is_some(),
            copy_lag: None,
        }
    }

    /// Whether a snapshot is being written, and whether one is kept.
    pub fn snapshots(&self) -> (bool, bool) {
        (self.keep.is_some(), self.manifest.is_some())
    }

    fn waited(&self) -> Duration {
        self.appender.waiting_since.map_or(Duration::ZERO, |since| self.now.saturating_sub(since))
    }

    /// Whether something changed that the owner may want to look at, since the last time this was asked.
    pub fn take_wake(&mut self) -> bool {
        std::mem::take(&mut self.wake)
    }

    /// What to do next; to be called until it gives nothing.
    pub fn poll(&mut self, now: Duration) -> Option<Output> {
        self.now = now;
        if self.appender.is_idle() {
            self.appender.waiting_since = None;
        } else {
            self.appender.waiting_since.get_or_insert(now);
        }
        self.wake |= self.health.settle(now);
        self.wake |= self.health.changed(now, self.waited(), &self.config);
        for slot in Slot::ALL {
            if self.begins_at(slot).is_some_and(|at| at <= now) {
                let request = self.request(slot);
                let timeout = self.timeout(slot, &request);
                return Some(Output::Call { id: self.lines.begin(slot), request, timeout });
            }
        }
        self.poll_watch()
    }

    /// When to poll again although nothing was heard.
    pub fn deadline(&self) -> Option<Duration> {
        let begins = Slot::ALL.into_iter().filter_map(|slot| self.begins_at(slot)).min();
        let unavailable = self.appender.waiting_since.map(|since| since + self.config.unavailable_after);
        let turns = self.health.turns_at(self.appender.waiting_since, &self.config);
        let waits = unavailable.into_iter().chain([turns]).filter(|at| *at > self.now);
        begins.into_iter().chain(waits).chain(self.watch_at()).chain(self.health.settles_at()).min()
    }

    /// When the next call on a line is to begin.
    fn begins_at(&self, slot: Slot) -> Option<Duration> {
        Some(self.lines.free_at(slot)?.max(self.due(slot)?))
    }

    /// A call ended.
    pub fn hear(&mut self, now: Duration, id: CallId, outcome: Result<Answer, CallError>) {
        self.now = now;
        if !self.lines.ended(now, id, outcome.is_ok()) {
            return;
        }
        match outcome {
            Ok(answer) => self.hear_answer(id.slot, answer),
            Err(error) => self.hear_error(id.slot, &error),
        }
    }

    /// The watch reports.
    pub fn hear_watch(&mut self, now: Duration, id: u64, event: WatchEvent) {
        self.now = now;
        if self.watch != (Watch::Open { id }) {
            return;
        }
        match event {
            WatchEvent::Put(kvs) => self.take_watched(kvs),
            WatchEvent::Ended => self.watch_ended(),
        }
    }

    /// Whether pages are taken.
    pub fn has_room(&self) -> bool {
        self.reader.has_room()
    }

    fn set_role(&mut self, role: Role) {
        self.role = role;
        self.wake = true;
    }

    fn set_broken(&mut self, broken: Broken) {
        self.broken = Some(broken);
        self.stop_watching();
        self.wake = true;
    }

    /// Somebody else holds the leader key.
    fn fenced(&mut self, found: Option<&Found>) {
        let newer = found.and_then(|found| found.kvs.first()).and_then(|kv| Leader::decode(&kv.value));
        let (Role::Claiming { me, .. } | Role::CatchingUp { me, .. } | Role::Leading { me, .. }) = self.role
        else {
            return;
        };
        // A key that is gone or not readable is no leader of ours either.
        let newer = newer.map_or(me.epoch, |leader| leader.epoch);
        self.appender = Appender::default();
        self.keep = None;
        self.set_role(Role::Fenced { ours: me.epoch, newer });
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
