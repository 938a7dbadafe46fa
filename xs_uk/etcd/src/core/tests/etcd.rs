//! A model of etcd: one linear store with revisions.

use std::collections::BTreeMap;

use crate::call::{Answer, CallError, Found, KeyValue, Op, Request, Status};

/// The store, and every put that a watch may ask for.
#[derive(Debug, Default)]
pub struct Etcd {
    keys: Keys,
    revision: i64,
    compacted: i64,
    puts: Vec<KeyValue>,
    past: Vec<(Keys, i64)>,
}

type Keys = BTreeMap<Vec<u8>, (Vec<u8>, i64)>;

impl Etcd {
    pub fn call(&mut self, request: &Request) -> Result<Answer, CallError> {
        match request {
            Request::Txn { compare, then, otherwise } => {
                let at = |key: &Vec<u8>| self.keys.get(key).map_or(0, |(_, revision)| *revision);
                let held = compare.iter().all(|(key, revision)| at(key) == *revision);
                let found = self.ops(if held { then } else { otherwise });
                Ok(Answer::Txn { cluster: 7, revision: self.revision, held, found })
            }
            Request::Revision { .. } => Ok(Answer::Revision(self.revision)),
            Request::Compact { revision, .. } if *revision <= self.compacted => Err(CallError::Compacted),
            Request::Compact { revision, .. } => {
                assert!(*revision <= self.revision);
                self.compacted = *revision;
                Ok(Answer::Done)
            }
            Request::Status { .. } => {
                Ok(Answer::Status(Status { member: 1, leader: 1, ..Status::default() }))
            }
            Request::Defragment { .. } | Request::Disarm => Ok(Answer::Done),
        }
    }

    /// As a member that was paused may answer a read (etcd issue 20418): from a former state. Writes go through raft.
    pub fn stale_call(&mut self, request: &Request, back: usize) -> Result<Answer, CallError> {
        let reads = |ops: &[Op]| ops.iter().all(|op| matches!(op, Op::Get { .. }));
        match request {
            Request::Txn { then, otherwise, .. }
                if reads(then) && reads(otherwise) && !self.past.is_empty() =>
            {
                let (keys, revision) = self.past[self.past.len().saturating_sub(back)..][0].clone();
                Self { keys, revision, ..Self::default() }.call(request)
            }
            _ => self.call(request),
        }
    }

    /// Puts under the range from a revision on; `None` if they are compacted.
    pub fn watched(&self, key: &[u8], end: &[u8], revision: i64) -> Option<Vec<KeyValue>> {
        let puts =
            self.puts.iter().filter(|kv| kv.mod_revision >= revision && *kv.key >= *key && *kv.key < *end);
        (revision > self.compacted).then(|| puts.cloned().collect())
    }

    /// The first key from `from` on.
    pub fn first(&self, from: &[u8]) -> Option<Vec<u8>> {
        self.keys.range(from.to_vec()..).next().map(|(key, _)| key.clone())
    }

    pub fn revision(&self) -> i64 {
        self.revision
    }

    fn ops(&mut self, ops: &[Op]) -> Vec<Found> {
        if ops.iter().any(|op| !matches!(op, Op::Get { .. })) {
            // Few, for long logs are not what stale answers are tested with.
            if self.past.len() < 300 {
                self.past.push((self.keys.clone(), self.revision));
            }
            self.revision += 1;
        }
        ops.iter().filter_map(|op| self.op(op)).collect()
    }

    fn op(&mut self, op: &Op) -> Option<Found> {
        match op {
            Op::Get { key, end, limit } => {
                let end = end.clone().unwrap_or_else(|| [key.as_slice(), &[0]].concat());
                let mut kvs: Vec<_> = self.keys.range(key.clone()..end).map(of).collect();
                let limit = if *limit == 0 { usize::MAX } else { *limit as usize };
                let more = kvs.len() > limit;
                kvs.truncate(limit);
                Some(Found { kvs, more })
            }
            Op::Put { key, value } => {
                self.keys.insert(key.clone(), (value.clone(), self.revision));
                let mod_revision = self.revision;
                self.puts.push(KeyValue { key: key.clone(), value: value.clone(), mod_revision });
                None
            }
            Op::Delete { key, end } => {
                self.keys.retain(|have, _| have < key || have >= end);
                None
            }
        }
    }
}

fn of((key, (value, mod_revision)): (&Vec<u8>, &(Vec<u8>, i64))) -> KeyValue {
    KeyValue { key: key.clone(), value: value.clone(), mod_revision: *mod_revision }
}
