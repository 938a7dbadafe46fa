//! Transactions: a private tree, and the list of what was asked and answered.
//!
//! At the commit the list is executed again on the current tree. If every answer is the same, nobody can tell
//! that the transaction did not happen just now, and the result becomes the tree.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};
use xs_protocol::MessageType;

use crate::{domain::Deltas, ops::Change, tree::Tree};

/// An answer, kept to be compared: itself if it is short, else its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub error: bool,
    pub len: u32,
    pub data: [u8; 32],
}

impl Mark {
    pub fn new(error: bool, answer: &[u8]) -> Mark {
        let mut data = [0; 32];
        match data.get_mut(..answer.len()) {
            Some(short) => short.copy_from_slice(answer),
            None => data = Sha256::digest(answer).into(),
        }
        Mark { error, len: u32::try_from(answer.len()).unwrap_or(u32::MAX), data }
    }
}

/// A request of a transaction with its answer.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// Log index of the request, and so the generation of what it changed.
    pub generation: u64,
    pub kind: MessageType,
    pub payload: Box<[u8]>,
    pub mark: Mark,
}

/// An open transaction.
pub(crate) struct Transaction {
    /// The store's version that `tree` started from.
    pub base_version: u64,
    pub tree: Tree,
    /// What it would change of the domains' use.
    pub deltas: Deltas,
    pub records: Vec<Record>,
    /// What it counts for its owner's quota `memory`.
    pub bytes: u64,
    /// Paths that it touched, for the quota `transaction-nodes`.
    pub touched: BTreeSet<Box<str>>,
    /// Reads since the last change: the same ones need not be recorded again.
    pub recent_reads: BTreeMap<(MessageType, Box<[u8]>), Mark>,
    /// What it changed, in order.
    pub changes: Vec<(Box<str>, Change)>,
    /// A quota was hit, so it cannot be committed.
    pub failed: bool,
    /// [`crate::Store::replaced_bytes`] when it got its tree.
    pub base_replaced_bytes: u64,
    /// It let its tree go; the next request brings another one.
    pub detached: bool,
    /// Where an answer was another one when it got another tree: it cannot be committed.
    pub conflict: Option<Box<str>>,
}

impl Transaction {
    pub fn new(tree: Tree, base_version: u64) -> Transaction {
        Transaction {
            base_version,
            tree,
            deltas: Deltas::default(),
            records: Vec::new(),
            bytes: 0,
            touched: BTreeSet::new(),
            recent_reads: BTreeMap::new(),
            changes: Vec::new(),
            failed: false,
            base_replaced_bytes: 0,
            detached: false,
            conflict: None,
        }
    }
}
