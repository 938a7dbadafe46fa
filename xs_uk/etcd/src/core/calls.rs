//! What each line asks, and what its answers mean.

use std::time::Duration;

use xs_consensus::{Index, Loaded};

use super::keep::Kept;
use super::load;
use super::reader::{Broken, Reader};
use super::{Core, Role, appender};
use crate::call::{Answer, CallError, Found, Op, Request, Slot};
use crate::keys::Keys;
use crate::leader::Leader;
use crate::limits::{PAGE_BATCHES_MAX, TEND_TIMEOUT};

impl Core {
    /// When a line has something to ask, the pause after a failure aside.
    pub(super) fn due(&self, slot: Slot) -> Option<Duration> {
        let now = Some(Duration::ZERO);
        match slot {
            Slot::Claim => matches!(self.role, Role::Claiming { .. }).then_some(Duration::ZERO),
            Slot::Append => match self.role {
                Role::Leading { .. } if !self.appender.is_idle() => now,
                _ => None,
            },
            Slot::Read => self.read_due(),
            Slot::Keep => self.fence().and(self.keep.as_ref()).and(now),
            Slot::Load => self.load.as_ref().and(now),
            Slot::Tend => match self.role {
                Role::Following | Role::Fenced { .. } => None,
                _ => self.health.tend_at(),
            },
            Slot::Health => Some(self.health.next_at),
        }
    }

    fn read_due(&self) -> Option<Duration> {
        if self.broken.is_some() || self.load.is_some() {
            return None;
        }
        match self.role {
            Role::Following | Role::CatchingUp { .. } if !self.reader.has_room() => None,
            Role::CatchingUp { .. } => Some(Duration::ZERO),
            Role::Following if self.behind => Some(Duration::ZERO),
            Role::Following | Role::Leading { .. } => Some(self.next_poll),
            Role::Claiming { .. } | Role::Fenced { .. } => None,
        }
    }

    /// The revision of the leader key that makes us leader.
    pub(super) fn fence(&self) -> Option<i64> {
        match self.role {
            Role::Leading { fence, .. } => Some(fence),
            _ => None,
        }
    }

    /// The call that a line which is due makes.
    pub(super) fn request(&mut self, slot: Slot) -> Request {
        match slot {
            Slot::Claim => self.claim(),
            Slot::Read => {
                self.expecting = false;
                self.read()
            }
            Slot::Append => {
                let Role::Leading { fence, .. } = self.role else {
                    unreachable!("only a leader's line is due")
                };
                let flight = self.appender.flight(self.now, self.reader.fetched);
                appender::request(&self.config.keys, fence, flight)
            }
            Slot::Keep => {
                let keep = self.keep.as_ref().expect("only then its line is due");
                keep.request(&self.config.keys, self.fence().unwrap_or(0), self.revision)
            }
            Slot::Load => self.load.get_or_insert_default().request(&self.config.keys),
            Slot::Tend => self.health.tend(&self.config.keys, self.revision),
            Slot::Health => Request::Status { endpoint: self.health.next },
        }
    }

    pub(super) fn timeout(&self, slot: Slot, request: &Request) -> Duration {
        match request {
            Request::Defragment { .. } | Request::Compact { physical: true, .. } => TEND_TIMEOUT,
            _ => self.lines.timeout(slot, self.config.call_timeout),
        }
    }

    fn claim(&self) -> Request {
        let key = self.config.keys.leader();
        let read = vec![Op::get(key.clone())];
        match self.role {
            Role::Claiming { me, seen: Some(seen) } => Request::Txn {
                compare: vec![(key.clone(), seen)],
                then: vec![Op::Put { key, value: me.encode() }],
                otherwise: read,
            },
            _ => Request::Txn { compare: Vec::new(), then: read, otherwise: Vec::new() },
        }
    }

    fn read(&self) -> Request {
        let keys = &self.config.keys;
        if let (Role::CatchingUp { me, fence }, true) = (self.role, self.anew) {
            return delete_all(keys, me, fence);
        }
        if let Some(fence) = self.fence() {
            let read = vec![Op::get(keys.leader())];
            return Request::Txn {
                compare: vec![(keys.leader(), fence)],
                then: read.clone(),
                otherwise: read,
            };
        }
        // A place that was not found in the log yet is read again, to see whether it is of this history.
        let at = self.reader.fetched.index.0;
        let from = if self.reader.anchored { at.saturating_add(1) } else { at };
        let page = Op::Get { key: keys.log(from), end: Some(keys.log_end()), limit: PAGE_BATCHES_MAX };
        Request::Txn { compare: Vec::new(), then: vec![page, Op::get(keys.latest())], otherwise: Vec::new() }
    }

    pub(super) fn hear_answer(&mut self, slot: Slot, answer: Answer) {
        match (slot, answer) {
            (Slot::Health, Answer::Status(status)) => self.hear_status(Some(status)),
            (Slot::Tend, answer) => {
                if let Answer::Revision(revision) = answer {
                    self.revision = self.revision.max(revision);
                }
                self.health.tended(self.now);
                self.wake = true;
            }
            (Slot::Keep, Answer::Done) => self.kept(),
            (_, Answer::Txn { cluster, revision, held, found }) => {
                if *self.cluster.get_or_insert(cluster) != cluster {
                    return self
                        .set_broken(Broken::Corrupt { index: 0, what: "another etcd cluster answers" });
                }
                self.health.answered(self.now);
                self.revision = self.revision.max(revision);
                self.hear_txn(slot, revision, held, &found);
            }
            _ => {}
        }
    }

    fn hear_txn(&mut self, slot: Slot, revision: i64, held: bool, found: &[Found]) {
        match slot {
            Slot::Claim => self.hear_claim(revision, held, found),
            Slot::Append => self.hear_append(revision, held, found),
            Slot::Read => match self.role {
                Role::Leading { fence, .. } => self.hear_probe(held, revision < fence, found),
                Role::CatchingUp { me, .. } if self.anew => self.hear_deleted(me, revision, held, found),
                _ => self.hear_page(revision, found),
            },
            Slot::Keep if held => self.kept(),
            Slot::Keep => {
                // As with a read: an append under way is to be heard first.
                if self.appender.in_flight.is_none() {
                    self.fenced(found.first());
                }
            }
            Slot::Load => self.hear_load(found),
            Slot::Tend | Slot::Health => {}
        }
    }

    fn hear_probe(&mut self, held: bool, stale: bool, found: &[Found]) {
        // A state from before our claim says nothing. And the answer to an append that is under way tells more:
        // whether it got in, and the fence.
        if held || stale || self.appender.in_flight.is_some() {
            self.next_poll = self.now + self.config.poll_interval;
        } else {
            self.fenced(found.first());
        }
    }

    pub(super) fn hear_error(&mut self, slot: Slot, error: &CallError) {
        if *error == CallError::NoSpace {
            self.health.no_space_at(self.now);
            self.wake = true;
        }
        match slot {
            Slot::Health => self.hear_status(None),
            // It may have been done: what rules is read first.
            Slot::Claim => self.forget_seen(),
            Slot::Keep if *error == CallError::Compacted => self.kept(),
            Slot::Tend if *error == CallError::Compacted => self.health.tended(self.now),
            Slot::Tend => self.health.tend_failed(self.now, error),
            _ => {}
        }
        if !matches!(slot, Slot::Tend | Slot::Health) && *error != CallError::Compacted {
            self.health.failing = Some(error.to_string());
        }
    }

    fn hear_status(&mut self, status: Option<crate::call::Status>) {
        self.wake |= self.health.hear(self.now, status, &self.config);
    }

    fn forget_seen(&mut self) {
        if let Role::Claiming { seen, .. } = &mut self.role {
            *seen = None;
        }
    }

    fn hear_claim(&mut self, revision: i64, held: bool, found: &[Found]) {
        let Role::Claiming { me, seen } = self.role else { return };
        if seen.is_some() && held {
            return self.claimed(me, revision);
        }
        let Some(kv) = found.first().and_then(|found| found.kvs.first()) else {
            self.role = Role::Claiming { me, seen: Some(0) };
            return;
        };
        match Leader::decode(&kv.value) {
            Some(leader) if leader == me => self.claimed(me, kv.mod_revision),
            Some(leader) if leader.epoch >= me.epoch => self.fenced(found.first()),
            Some(_) => self.role = Role::Claiming { me, seen: Some(kv.mod_revision) },
            None => self.set_broken(Broken::Corrupt { index: 0, what: "leader key" }),
        }
    }

    fn claimed(&mut self, me: Leader, fence: i64) {
        self.behind = true;
        self.set_role(Role::CatchingUp { me, fence });
    }

    fn hear_deleted(&mut self, me: Leader, revision: i64, held: bool, found: &[Found]) {
        // If not: it was done before, and the answer was lost; or somebody else leads.
        let ours = found.first().and_then(|found| found.kvs.first());
        let ours = ours.filter(|kv| Leader::decode(&kv.value) == Some(me)).map(|kv| kv.mod_revision);
        match if held { Some(revision) } else { ours } {
            Some(fence) => {
                (self.anew, self.behind, self.manifest) = (false, false, None);
                self.end = self.reader.fetched.index;
                self.set_role(Role::Leading { me, fence });
            }
            None => self.fenced(found.first()),
        }
    }

    fn hear_append(&mut self, revision: i64, held: bool, found: &[Found]) {
        let Some(flight) = &self.appender.in_flight else { return };
        if held {
            return self.committed(revision);
        }
        let of = |i: usize| found.get(i).and_then(|found: &Found| found.kvs.first());
        let got_in = of(1).map(|kv| (kv.value == flight.value, kv.mod_revision));
        let fenced = of(0).map(|kv| kv.mod_revision) != self.fence();
        match got_in {
            Some((true, revision)) => self.committed(revision),
            Some((false, _)) if !fenced => {
                let index = flight.batch.before.index.0 + 1;
                self.set_broken(Broken::Corrupt { index, what: "another batch under our fence" });
            }
            _ => {}
        }
        if fenced {
            self.fenced(found.first());
        }
    }

    fn committed(&mut self, revision: i64) {
        let Some(mut flight) = self.appender.in_flight.take() else { return };
        self.appender.waiting_since = None;
        self.health.latency = Some(self.now.saturating_sub(flight.since));
        flight.batch.set_position(revision.unsigned_abs());
        let taken = self.reader.take(flight.batch, flight.value.len() as u64);
        assert_eq!(taken, Ok(super::reader::Taken::Next), "our own batch goes on from where we were");
        self.wake = true;
    }

    fn kept(&mut self) {
        let Some(keep) = &mut self.keep else { return };
        match keep.advance() {
            Kept::More => {}
            Kept::Counts => {
                self.manifest = Some(keep.manifest().clone());
                self.reader.covered(keep.manifest().newest.index);
                self.wake = true;
            }
            Kept::Done => {
                self.keep = None;
                self.wake = true;
            }
        }
    }

    fn hear_load(&mut self, found: &[Found]) {
        let Some(load) = &mut self.load else { return };
        let loaded = match load.hear(found) {
            load::Step::More => return,
            load::Step::Nothing => Ok(Loaded::Nothing),
            load::Step::Damaged => Err(Broken::Corrupt { index: 0, what: "snapshots" }),
            load::Step::Whole(cursor, bytes) => {
                self.begin_at(cursor);
                Ok(Loaded::Snapshot { cursor, bytes })
            }
        };
        self.load = None;
        self.loaded = Some(loaded);
        self.wake = true;
    }

    fn begin_at(&mut self, cursor: xs_consensus::Cursor) {
        self.stop_watching();
        self.lines.forget(Slot::Read);
        (self.reader, self.broken, self.behind, self.end) = (Reader::new(cursor), None, true, Index(0));
    }
}

/// Deletes all that a leader has written. It writes its own key anew, so that whatever it sent before and is still on its
/// way finds another fence.
fn delete_all(keys: &Keys, me: Leader, fence: i64) -> Request {
    let then = vec![
        Op::Put { key: keys.leader(), value: me.encode() },
        Op::Delete { key: keys.log(0), end: keys.log_end() },
        Op::Delete { key: keys.snapshots(), end: keys.snapshots_end() },
    ];
    let otherwise = vec![Op::get(keys.leader())];
    Request::Txn { compare: vec![(keys.leader(), fence)], then, otherwise }
}
