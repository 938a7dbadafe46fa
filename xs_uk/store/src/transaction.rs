//! Transactions: a private tree, and the list of what was asked and answered.
//!
//! At the commit the list is executed again on the current tree. If every answer is the same, nobody can tell
//! that the transaction did not happen just now, and the result becomes the tree.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};
use xs_protocol::MessageType;

use crate::{Damage, Part, domain::Deltas, ops::Change, seal::Sealer, tree::Tree};

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
    /// A checksum of all of it.
    seal: u64,
}

impl Record {
    pub fn new(generation: u64, kind: MessageType, payload: Box<[u8]>, mark: Mark) -> Record {
        let mut record = Record { generation, kind, payload, mark, seal: 0 };
        record.seal = record.compute_seal();
        record
    }

    fn compute_seal(&self) -> u64 {
        let Mark { error, len, data } = &self.mark;
        let mut sealer = Sealer::default();
        let head = u64::from(self.kind.0) << 33 | u64::from(*error) << 32 | u64::from(*len);
        sealer.numbers([self.generation, head]);
        sealer.bytes(data);
        sealer.bytes(&self.payload);
        sealer.seal()
    }

    /// Whether it is what was recorded.
    pub fn verify(&self) -> Result<(), Damage> {
        if self.compute_seal() == self.seal { Ok(()) } else { Err(damage(&self.generation.to_string())) }
    }
}

fn damage(at: &str) -> Damage {
    Damage::new(at, Part::Transaction)
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
    /// A checksum of the paths of `changes`.
    change_paths: Sealer,
    /// A quota was hit, so it cannot be committed.
    pub failed: bool,
    /// [`crate::Store::replaced_bytes`] when it got its tree.
    pub base_replaced_bytes: u64,
    /// It let its tree go; the next request brings another one.
    pub detached: bool,
    /// Where an answer was another one when it got another tree: it cannot be committed.
    pub conflict: Option<Box<str>>,
    /// A checksum of the rest, without what has digests of its own: nodes and records.
    seal: u64,
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
            change_paths: Sealer::default(),
            failed: false,
            base_replaced_bytes: 0,
            detached: false,
            conflict: None,
            seal: 0,
        }
        .sealed()
    }

    /// With the checksum that fits it.
    pub fn sealed(mut self) -> Transaction {
        self.seal_again();
        self
    }

    /// To be called after each change, if it was sound before.
    pub fn seal_again(&mut self) {
        self.seal = self.compute_seal();
    }

    pub fn add_change(&mut self, path: Box<str>, change: Change) {
        self.change_paths.bytes(path.as_bytes());
        self.changes.push((path, change));
    }

    /// Takes what another one did for its own.
    pub fn adopt_changes(&mut self, other: Transaction) {
        (self.tree, self.deltas, self.changes) = (other.tree, other.deltas, other.changes);
        self.change_paths = other.change_paths;
    }

    /// Lets all go that its requests can bring about again. Gives it back.
    pub fn detach(&mut self, empty: Tree) -> (Tree, Vec<(Box<str>, Change)>) {
        self.detached = true;
        self.deltas = Deltas::default();
        self.change_paths = Sealer::default();
        (std::mem::replace(&mut self.tree, empty), std::mem::take(&mut self.changes))
    }

    /// Whether it would tell of the places that it changed.
    pub fn verify_changes(&self) -> Result<(), Damage> {
        let mut paths = Sealer::default();
        self.changes.iter().for_each(|(path, _)| paths.bytes(path.as_bytes()));
        if paths == self.change_paths { Ok(()) } else { Err(damage(&self.base_version.to_string())) }
    }

    pub fn is_sound(&self) -> bool {
        self.compute_seal() == self.seal
    }

    /// Whether it is what was kept, apart from its records and nodes.
    pub fn verify(&self) -> Result<(), Damage> {
        if self.is_sound() { Ok(()) } else { Err(damage(&self.base_version.to_string())) }
    }

    fn compute_seal(&self) -> u64 {
        let marks =
            u64::from(self.failed) | u64::from(self.detached) << 1 | u64::from(self.conflict.is_some()) << 2;
        let counts = [self.records.len(), self.touched.len(), self.recent_reads.len(), self.changes.len()];
        let [records, touched, recent_reads, changes] = counts.map(|count| count as u64);
        let mut sealer = Sealer::default();
        sealer.numbers([
            self.base_version,
            self.bytes,
            self.base_replaced_bytes,
            marks,
            records,
            touched,
            recent_reads,
            changes,
        ]);
        for (domid, delta) in self.deltas.iter() {
            sealer.numbers([domid.0.into(), delta.nodes.cast_unsigned(), delta.bytes.cast_unsigned()]);
        }
        sealer.seal()
    }
}
