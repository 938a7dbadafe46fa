//! The revisioned map: a pure function of the operations applied to it.
//!
//! Every change has a revision (main, sub): main grows by one with each request that changes anything, sub counts the
//! changes of that request. A key's *versions* are kept until a compaction; so a read at an old revision, and a watch
//! from one, find what was there. See etcd's `server/storage/mvcc`.

use std::collections::BTreeMap;

use etcd_client::proto::{
    PbCompactionRequest, PbDeleteRequest, PbEvent, PbKeyValue, PbPutRequest, PbRangeRequest,
    PbResponseHeader, PbTxnRequest,
};
use etcd_client::proto::{
    PbCompactionResponse, PbDeleteResponse, PbPutResponse, PbRangeResponse, PbTxnResponse,
};

use crate::error::EtcdError;
use crate::limits::REQUEST_BYTES_MAX;
use crate::{range, txn};

/// A request that goes through the members' log.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Reads a range.
    Range(PbRangeRequest),
    /// Puts a key.
    Put(PbPutRequest),
    /// Deletes a range.
    Delete(PbDeleteRequest),
    /// Compares and does one of two lists of operations.
    Txn(PbTxnRequest),
    /// Forgets old revisions.
    Compact(PbCompactionRequest),
    /// Raises (true) or clears the alarm for want of space.
    NoSpace(bool),
}

impl Op {
    /// Whether it is refused when there is no space: a put, and a transaction with one in either branch.
    pub fn costs_space(&self) -> bool {
        match self {
            Self::Put(_) => true,
            Self::Txn(request) => txn::puts(request),
            _ => false,
        }
    }

    pub(crate) fn cost_bytes(&self) -> usize {
        match self {
            Self::Put(request) => VERSION_BYTES + request.key.len() + request.value.len(),
            Self::Txn(request) => txn::cost_bytes(request),
            _ => 0,
        }
    }

    /// False for what only reads: it needs no place in the log.
    pub(crate) fn may_change(&self) -> bool {
        match self {
            Self::Range(_) => false,
            Self::Txn(request) => txn::may_change(request),
            _ => true,
        }
    }
}

/// The answer to an [`Op`].
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To [`Op::Range`].
    Range(PbRangeResponse),
    /// To [`Op::Put`].
    Put(PbPutResponse),
    /// To [`Op::Delete`].
    Delete(PbDeleteResponse),
    /// To [`Op::Txn`].
    Txn(PbTxnResponse),
    /// To [`Op::Compact`].
    Compact(PbCompactionResponse),
    /// To [`Op::NoSpace`].
    NoSpace,
}

/// A main revision and the number of the change in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision {
    /// Grows by one with each request that changes anything.
    pub main: i64,
    /// Number of the change within the request.
    pub sub: i64,
}

/// What a key was from a revision on: a value, or deleted.
pub(crate) type Versions = BTreeMap<Revision, Option<PbKeyValue>>;

/// The state of etcd's key space.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    pub(crate) keys: BTreeMap<Vec<u8>, Versions>,
    changes: BTreeMap<Revision, Vec<u8>>,
    revision: i64,
    compacted: i64,
    no_space: bool,
    bytes: usize,
}

impl Default for State {
    fn default() -> Self {
        Self {
            keys: BTreeMap::new(),
            changes: BTreeMap::new(),
            revision: 1,
            compacted: -1,
            no_space: false,
            bytes: 0,
        }
    }
}

/// A request being applied: its changes get the revision after the current one.
pub(crate) struct Writer<'a> {
    pub state: &'a mut State,
    changes: i64,
}

impl State {
    /// The newest revision.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Revisions below this one were compacted; -1 if none was.
    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// Whether the alarm for want of space is raised.
    pub fn has_no_space(&self) -> bool {
        self.no_space
    }

    /// Bytes of keys and values that are kept, with a share for each version.
    pub fn used_bytes(&self) -> usize {
        self.bytes
    }

    /// Applies an operation.
    ///
    /// # Errors
    /// [`EtcdError`], as etcd would answer; nothing has changed then.
    pub fn apply(&mut self, op: &Op) -> Result<Answer, EtcdError> {
        check(op)?;
        if self.no_space && op.costs_space() {
            return Err(EtcdError::NoSpace);
        }
        let mut writer = Writer { state: self, changes: 0 };
        let mut answer = match op {
            Op::Range(request) => writer.range(request).map(Answer::Range),
            Op::Put(request) => writer.checked_put(request).map(Answer::Put),
            Op::Delete(request) => Ok(Answer::Delete(writer.delete(request))),
            Op::Txn(request) => txn::apply(&mut writer, request).map(Answer::Txn),
            Op::Compact(request) => writer.state.compact(request.revision).map(Answer::Compact),
            Op::NoSpace(raised) => {
                writer.state.no_space = *raised;
                Ok(Answer::NoSpace)
            }
        }?;
        if writer.changes > 0 {
            self.revision += 1;
        }
        if let Answer::Txn(response) = &mut answer {
            response.header = Some(self.header());
        }
        Ok(answer)
    }

    /// Reads without a change, as a member does for a serializable read.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn read(&self, request: &PbRangeRequest) -> Result<PbRangeResponse, EtcdError> {
        range::check(request)?;
        range::read(self, self.revision, request)
    }

    /// The changes from a revision on, in their order, with what was there before.
    pub fn changes_from(&self, main: i64) -> impl Iterator<Item = PbEvent> + '_ {
        let from = Revision { main, sub: 0 };
        self.changes.range(from..).map(|(revision, key)| self.event(*revision, key))
    }

    pub(crate) fn header(&self) -> PbResponseHeader {
        PbResponseHeader { revision: self.revision, ..PbResponseHeader::default() }
    }

    fn event(&self, at: Revision, key: &[u8]) -> PbEvent {
        let versions = &self.keys[key];
        let before = versions.range(..at).next_back().and_then(|(_, value)| value.clone());
        let deleted = PbKeyValue { key: key.to_vec(), mod_revision: at.main, ..PbKeyValue::default() };
        let now = versions[&at].clone();
        PbEvent { r#type: i32::from(now.is_none()), kv: Some(now.unwrap_or(deleted)), prev_kv: before }
    }

    /// Of each key stays what was current at `revision`, unless it was deleted by then.
    fn compact(&mut self, revision: i64) -> Result<PbCompactionResponse, EtcdError> {
        if revision <= self.compacted {
            return Err(EtcdError::Compacted);
        }
        if revision > self.revision {
            return Err(EtcdError::FutureRevision);
        }
        self.compacted = revision;
        let after = Revision { main: revision + 1, sub: 0 };
        let (changes, bytes) = (&mut self.changes, &mut self.bytes);
        self.keys.retain(|key, versions| {
            let kept = versions.range(..after).next_back().filter(|(_, value)| value.is_some());
            let kept = kept.map(|(at, _)| *at);
            let gone: Vec<Revision> =
                versions.range(..after).map(|(at, _)| *at).filter(|at| Some(*at) != kept).collect();
            for at in gone {
                let value = versions.remove(&at).flatten();
                changes.remove(&at);
                *bytes -= cost(key, value.as_ref());
            }
            !versions.is_empty()
        });
        Ok(PbCompactionResponse { header: Some(self.header()) })
    }
}

impl Writer<'_> {
    /// The revision that a read in this request sees.
    pub fn current(&self) -> i64 {
        self.state.revision + i64::from(self.changes > 0)
    }

    pub fn range(&self, request: &PbRangeRequest) -> Result<PbRangeResponse, EtcdError> {
        range::read(self.state, self.current(), request)
    }

    fn checked_put(&mut self, request: &PbPutRequest) -> Result<PbPutResponse, EtcdError> {
        self.check_put(request)?;
        Ok(self.put(request))
    }

    /// Whether a put can be done, so far as that depends on the state.
    pub fn check_put(&self, request: &PbPutRequest) -> Result<(), EtcdError> {
        let ignores = request.ignore_value || request.ignore_lease;
        if ignores && self.value(&request.key).is_none() {
            return Err(EtcdError::KeyNotFound);
        }
        if request.lease != 0 { Err(EtcdError::LeaseNotFound) } else { Ok(()) }
    }

    pub fn put(&mut self, request: &PbPutRequest) -> PbPutResponse {
        let before = self.value(&request.key).cloned();
        let at = self.next_revision();
        let value = match &before {
            Some(before) if request.ignore_value => before.value.clone(),
            _ => request.value.clone(),
        };
        let kv = PbKeyValue {
            key: request.key.clone(),
            create_revision: before.as_ref().map_or(at.main, |before| before.create_revision),
            mod_revision: at.main,
            version: before.as_ref().map_or(1, |before| before.version + 1),
            value,
            lease: 0,
        };
        self.store(at, &request.key, Some(kv));
        let header = PbResponseHeader { revision: at.main, ..PbResponseHeader::default() };
        PbPutResponse { header: Some(header), prev_kv: before.filter(|_| request.prev_kv) }
    }

    pub fn delete(&mut self, request: &PbDeleteRequest) -> PbDeleteResponse {
        let found: Vec<PbKeyValue> =
            range::current(self.state, self.current(), &request.key, &request.range_end).cloned().collect();
        for kv in &found {
            let at = self.next_revision();
            self.store(at, &kv.key, None);
        }
        let revision = self.current();
        PbDeleteResponse {
            header: Some(PbResponseHeader { revision, ..PbResponseHeader::default() }),
            deleted: i64::try_from(found.len()).unwrap_or(i64::MAX),
            prev_kvs: if request.prev_kv { found } else { Vec::new() },
        }
    }

    fn value(&self, key: &[u8]) -> Option<&PbKeyValue> {
        self.state.keys.get(key)?.last_key_value()?.1.as_ref()
    }

    fn next_revision(&mut self) -> Revision {
        let at = Revision { main: self.state.revision + 1, sub: self.changes };
        self.changes += 1;
        at
    }

    fn store(&mut self, at: Revision, key: &[u8], value: Option<PbKeyValue>) {
        self.state.bytes += cost(key, value.as_ref());
        self.state.keys.entry(key.to_vec()).or_default().insert(at, value);
        self.state.changes.insert(at, key.to_vec());
    }
}

/// What etcd's database keeps besides key and value is about this much.
const VERSION_BYTES: usize = 32;

fn cost(key: &[u8], value: Option<&PbKeyValue>) -> usize {
    VERSION_BYTES + key.len() + value.map_or(0, |kv| kv.value.len())
}

/// What is refused whatever the state.
fn check(op: &Op) -> Result<(), EtcdError> {
    match op {
        Op::Range(request) => range::check(request),
        Op::Put(request) => check_put(request),
        Op::Delete(request) if request.key.is_empty() => Err(EtcdError::EmptyKey),
        Op::Txn(request) => txn::check(request),
        Op::Delete(_) | Op::Compact(_) | Op::NoSpace(_) => Ok(()),
    }
}

pub(crate) fn check_put(request: &PbPutRequest) -> Result<(), EtcdError> {
    if request.key.is_empty() {
        return Err(EtcdError::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(EtcdError::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(EtcdError::LeaseProvided);
    }
    if request.key.len() + request.value.len() > REQUEST_BYTES_MAX {
        return Err(EtcdError::TooLarge);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
