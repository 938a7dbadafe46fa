//! The model: what the xenstore's nodes do (`docs/misc/xenstore.txt` in Xen), one operation at a time.
//!
//! A transaction that was committed is one operation of several steps. One that was refused with `EAGAIN` did nothing
//! and is no operation. Values, names and errors are text: histories are made by tests, which write text.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// One step on one path, as `/a/b`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Reads the value.
    Read(String),
    /// Writes the value, with nodes above it that are missing.
    Write(String, String),
    /// Makes an empty node, if there is none, with nodes above it that are missing.
    Mkdir(String),
    /// Removes the node with all below it. Nothing to remove is as good, if there is a parent.
    Rm(String),
    /// Whether there is such a node.
    Exists(String),
    /// The names below the node.
    Directory(String),
}

/// What a step gave.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// Done.
    Done,
    /// The value.
    Value(String),
    /// The answer to [`Step::Exists`].
    Present(bool),
    /// Names, whatever their order.
    Names(BTreeSet<String>),
    /// There is no such node.
    Missing,
}

/// An operation: one step, or the steps of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Request(pub Vec<Step>);

/// The replies to a request's steps.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Outcome(pub Vec<Reply>);

/// The nodes: path and value. `/` and the nodes below it are there always: histories are made in folders that exist, so
/// that what happens in one object does not depend on whether another one has made their common parent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Nodes(BTreeMap<String, String>);

impl Nodes {
    /// Does all steps; gives their replies.
    pub fn apply(&mut self, request: &Request) -> Outcome {
        Outcome(request.0.iter().map(|step| self.step(step)).collect())
    }

    fn step(&mut self, step: &Step) -> Reply {
        match step {
            Step::Read(path) => self.0.get(path).map_or(Reply::Missing, |value| Reply::Value(value.clone())),
            Step::Write(path, value) => {
                self.make_parents(path);
                self.0.insert(path.clone(), value.clone());
                Reply::Done
            }
            Step::Mkdir(path) => {
                self.make_parents(path);
                self.0.entry(path.clone()).or_default();
                Reply::Done
            }
            Step::Rm(path) => self.remove(path),
            Step::Exists(path) => Reply::Present(self.has(path)),
            Step::Directory(path) => self.names(path),
        }
    }

    fn has(&self, path: &str) -> bool {
        path.matches('/').count() < 2 || self.0.contains_key(path)
    }

    fn make_parents(&mut self, path: &str) {
        for (at, _) in path.match_indices('/').skip(1) {
            self.0.entry(path[..at].to_owned()).or_default();
        }
    }

    fn remove(&mut self, path: &str) -> Reply {
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        if !self.has(parent) {
            return Reply::Missing;
        }
        let below = format!("{path}/");
        self.0.retain(|node, _| node != path && !node.starts_with(&below));
        Reply::Done
    }

    fn names(&self, path: &str) -> Reply {
        if !self.has(path) {
            return Reply::Missing;
        }
        let below = if path == "/" { path.to_owned() } else { format!("{path}/") };
        let names = self.0.keys().filter_map(|node| node.strip_prefix(&below));
        Reply::Names(names.filter(|name| !name.contains('/')).map(str::to_owned).collect())
    }
}

impl Step {
    /// Its path.
    pub fn path(&self) -> &str {
        match self {
            Self::Read(path)
            | Self::Write(path, _)
            | Self::Mkdir(path)
            | Self::Rm(path)
            | Self::Exists(path)
            | Self::Directory(path) => path,
        }
    }

    /// Whether it can change anything.
    pub fn is_change(&self) -> bool {
        matches!(self, Self::Write(..) | Self::Mkdir(_) | Self::Rm(_))
    }
}
