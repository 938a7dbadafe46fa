//! Copies the log in shared memory to etcd, without input and output of its own: a turn moves what can be moved.
//!
//! ```text
//!   shared memory   ......|===== submitted =====|..... unread .....|
//!                       `to`                  `log`               tail
//!   etcd            ......|
//! ```
//!
//! The hash chain of the copy is that of the log: batches keep the epochs of their entries. So what comes back from etcd,
//! a former leader's batches too, is compared with the log entry by entry, by one hash.
//!
//! A new leader begins at the place that its predecessor noted (`xs_consensus::CopiedTo`), reads etcd to its end from
//! there, and goes on behind it. The log lets nothing go that is not noted, so what is missing in etcd is in the log.
//!
//! A copy that differs, or cannot be read, is deleted and begun anew from the noted place: the log is what counts. Until a
//! snapshot is there, a copy that does not begin with the first entry tells that it lacks one.

use std::collections::VecDeque;
use std::time::Duration;

use xs_consensus::{
    Consensus, CopiedTo, Cursor, Embedded, EngineHealth, EngineState, EngineWarning, Epoch, Index, LogError,
};

use crate::engine::EtcdLog;
use crate::limits::{COPIED_AT_ONCE_BYTES, COPIED_PER_TURN_MAX, COPIER_PAUSE_MAX};

/// An entry that etcd did not take yet.
#[derive(Debug)]
struct Unsent {
    entry: Vec<u8>,
    epoch: Epoch,
    behind: Cursor,
}

/// How far a copier is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Whether etcd knows this leader.
    pub leads: bool,
    /// How far the copy goes.
    pub to: CopiedTo,
    /// For how long something has waited since etcd took something last.
    pub waited: Duration,
    /// Bytes of the log that etcd lacks.
    pub lag_bytes: u64,
    /// Bytes in etcd that no snapshot covers.
    pub used_bytes: u64,
    /// A newer leader, if etcd knows one.
    pub newer: Option<Epoch>,
    /// The copy lacks a snapshot that it could be read from.
    pub wants_snapshot: bool,
    /// A snapshot is on its way to etcd.
    pub saving: bool,
    /// Nothing goes on with this copier.
    pub failed: bool,
    /// When to take the next turn unless something is heard; none if there is nothing to do.
    pub pause: Option<Duration>,
}

/// The copier of one leader.
#[derive(Debug)]
pub(crate) struct Copier {
    log: Embedded,
    etcd: EtcdLog,
    epoch: Epoch,
    linger: Duration,
    /// Twice: a wrong one, noted, would mislead all successors.
    to: CopiedTo,
    to_copy: CopiedTo,
    noted: Option<CopiedTo>,
    submitted: VecDeque<Cursor>,
    unsent: Option<Unsent>,
    /// Since when something unread lies in the log.
    unread_since: Option<Duration>,
    waiting_since: Option<Duration>,
    /// Why the copy was begun anew, until it has a snapshot.
    anew: Option<String>,
    snapshot: Option<(Cursor, Vec<u8>)>,
    leads: bool,
    failed: Option<LogError>,
    buffer: Vec<u8>,
}

impl Copier {
    /// Begins at `to`, of which `log` and `etcd` are views. `etcd` was told to lead.
    pub fn new(log: Embedded, etcd: EtcdLog, to: CopiedTo, epoch: Epoch, linger: Duration) -> Self {
        Self {
            log,
            etcd,
            epoch,
            linger,
            to,
            to_copy: to,
            noted: None,
            submitted: VecDeque::new(),
            unsent: None,
            unread_since: None,
            waiting_since: None,
            anew: None,
            snapshot: None,
            leads: false,
            failed: None,
            buffer: Vec::new(),
        }
    }

    /// How far the copy goes.
    pub fn place(&self) -> Cursor {
        self.to.place
    }

    /// Takes the place of one that could not go on, whose copy this one begins anew.
    pub fn instead_of(self, failed: &Self) -> Self {
        let why = failed.failed.as_ref().map(ToString::to_string);
        Self { anew: Some(why.unwrap_or_default()), waiting_since: failed.waiting_since, ..self }
    }

    /// Returns when etcd may have answered.
    pub fn raised(&self) -> impl Future<Output = ()> + Send + 'static {
        self.etcd.raised()
    }

    /// Whether the log has grown behind what was read of it.
    pub fn has_unread(&self) -> bool {
        self.unread_bytes() > 0 || self.snapshot.is_some()
    }

    /// Moves what can be moved.
    pub fn turn(&mut self, now: Duration) -> Progress {
        let before = self.to;
        let more = match &self.failed {
            None => self.copy(now),
            Some(_) => Ok(false),
        };
        let more = more.unwrap_or_else(|error| {
            tracing::error!(%error, "the log is not copied to etcd any more");
            self.failed = Some(error);
            false
        });
        // A log that cannot be read says so when it is read.
        let lag_bytes = self.log.bytes_behind(self.to.place.position).unwrap_or(0);
        let behind = lag_bytes > 0;
        if !behind {
            self.waiting_since = None;
        } else if self.to != before {
            self.waiting_since = Some(now);
        }
        let since = if behind { *self.waiting_since.get_or_insert(now) } else { now };
        Progress {
            leads: self.leads,
            to: self.to,
            waited: now.saturating_sub(since),
            lag_bytes,
            used_bytes: self.etcd.used_bytes(),
            newer: match self.failed {
                Some(LogError::Fenced { newer, .. }) => Some(Epoch(newer)),
                _ => None,
            },
            wants_snapshot: self.wants_snapshot(),
            saving: self.snapshot.is_some() || self.etcd.snapshots().0,
            failed: self.failed.is_some(),
            pause: self.pause(now, more, behind),
        }
    }

    fn pause(&self, now: Duration, more: bool, behind: bool) -> Option<Duration> {
        if self.failed.is_some() {
            return Some(COPIER_PAUSE_MAX);
        }
        if more {
            return Some(Duration::ZERO);
        }
        let lingers = self.unread_since.filter(|_| self.leads && self.unsent.is_none());
        let due = lingers.map(|since| (since + self.linger).saturating_sub(now));
        let waits = behind || self.snapshot.is_some();
        waits.then(|| due.unwrap_or(COPIER_PAUSE_MAX).min(COPIER_PAUSE_MAX))
    }

    /// True if there is more to do at once.
    fn copy(&mut self, now: Duration) -> Result<bool, LogError> {
        let mut more = self.take_back()?;
        if !more && self.etcd.is_leading()? {
            self.leads = true;
            more = self.feed(now)?;
        }
        if self.leads && self.noted != Some(self.to) {
            assert!(self.to == self.to_copy, "how far the copy goes and its copy differ: memory is damaged");
            self.log.note_copied(self.epoch, &self.to)?;
            self.noted = Some(self.to);
        }
        self.hand_snapshot()?;
        Ok(more)
    }

    /// Takes what etcd has committed, and compares.
    fn take_back(&mut self) -> Result<bool, LogError> {
        for _ in 0..COPIED_PER_TURN_MAX {
            let mut buffer = std::mem::take(&mut self.buffer);
            let next = self.etcd.next(&mut buffer);
            self.buffer = buffer;
            let Some(index) = next? else { return Ok(false) };
            let place = self.place_of(index)?;
            let copied = self.etcd.cursor();
            if place.index != copied.index || place.hash != copied.hash {
                return Err(LogError::Corrupt { index: index.0, what: "etcd's copy differs from the log" });
            }
            self.go_to(CopiedTo { place, revision: copied.position });
        }
        Ok(true)
    }

    fn go_to(&mut self, to: CopiedTo) {
        (self.to, self.to_copy) = (to, to);
    }

    /// The place in the log of an entry that etcd gave.
    fn place_of(&mut self, index: Index) -> Result<Cursor, LogError> {
        if let Some(place) = self.submitted.pop_front() {
            return Ok(place);
        }
        // A former leader's.
        let mut buffer = std::mem::take(&mut self.buffer);
        let read = self.log.next(&mut buffer);
        self.buffer = buffer;
        match read? {
            Some(_) => Ok(self.log.cursor()),
            None => Err(LogError::Corrupt { index: index.0, what: "etcd has more than the log" }),
        }
    }

    /// Gives etcd what the log has more.
    fn feed(&mut self, now: Duration) -> Result<bool, LogError> {
        if self.unsent.is_none() && !self.is_due(now) {
            return Ok(false);
        }
        for _ in 0..COPIED_PER_TURN_MAX {
            let Some(unsent) = self.next_unsent()? else {
                self.unread_since = None;
                return Ok(false);
            };
            match self.etcd.append_of(&unsent.entry, unsent.epoch, unsent.behind.hash) {
                Ok(_) => self.submitted.push_back(unsent.behind),
                Err(LogError::Busy { .. } | LogError::Unavailable { .. } | LogError::Full { .. }) => {
                    self.unsent = Some(unsent);
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Whether it is worth a batch: many bytes, or some that have lingered.
    fn is_due(&mut self, now: Duration) -> bool {
        let bytes = self.unread_bytes();
        if bytes == 0 {
            self.unread_since = None;
            return false;
        }
        let since = *self.unread_since.get_or_insert(now);
        bytes >= COPIED_AT_ONCE_BYTES || now.saturating_sub(since) >= self.linger
    }

    fn unread_bytes(&self) -> u64 {
        self.log.bytes_behind(self.log.cursor().position).unwrap_or(0)
    }

    fn next_unsent(&mut self) -> Result<Option<Unsent>, LogError> {
        if let Some(unsent) = self.unsent.take() {
            return Ok(Some(unsent));
        }
        let mut entry = Vec::new();
        let read = self.log.next(&mut entry)?;
        Ok(read.map(|_| Unsent { entry, epoch: self.log.entry_epoch(), behind: self.log.cursor() }))
    }

    /// Has a snapshot kept in etcd once the copy has reached it. False if another one waits for that.
    pub fn keep(&mut self, cursor: Cursor, bytes: Vec<u8>) -> bool {
        let free = self.snapshot.is_none();
        if free {
            self.snapshot = Some((cursor, bytes));
        }
        free
    }

    /// Whether the copy cannot be read without the log: it does not begin with the first entry, nor with a snapshot.
    fn wants_snapshot(&self) -> bool {
        let begins_late = self.log.floor_position().is_ok_and(|floor| floor > 0);
        self.leads && begins_late && self.snapshot.is_none() && self.etcd.snapshots() == (false, false)
    }

    fn hand_snapshot(&mut self) -> Result<(), LogError> {
        let reached = |(cursor, _): &mut (Cursor, Vec<u8>)| cursor.index <= self.to.place.index;
        if !self.leads || self.snapshot.is_none() || self.etcd.snapshots().0 {
            return Ok(());
        }
        let Some((cursor, bytes)) = self.snapshot.take_if(reached) else { return Ok(()) };
        // Its own address in etcd is before this one: what is as new as this is new enough for it.
        self.etcd.save_snapshot(&Cursor { position: self.to.revision, ..cursor }, bytes).map(drop)
    }

    /// What etcd's engine says, and what keeps the copier from going on.
    pub fn state(&self) -> EngineState {
        let mut state = self.etcd.state();
        let failed = self.failed.as_ref().map(ToString::to_string);
        if failed.is_some() && state.health == EngineHealth::Healthy {
            state.health = EngineHealth::Waiting { waited_ms: 0 };
        }
        let anew = self.anew.clone().filter(|_| self.wants_snapshot());
        state.warnings.extend(failed.or(anew).map(|what| EngineWarning::CopyAnew { what }));
        state
    }
}
