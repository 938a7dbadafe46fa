//! Comparing counters with what is there, and a digest of the whole state.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use sha2::{Digest, Sha256};
use xs_protocol::{DOMID_ANY, DomId, Path};

use crate::{
    Store, domain::Delta, handle::watch_bytes, scrub::scrub_node, snapshot, tree::for_each_with_path,
};

/// Faults that [`Store::check`] names at most.
const FAULTS_MAX: usize = 32;

impl Store {
    /// Counts again what each domain owns and holds, and checks that no permission outlived its domain.
    /// Returns a line for each fault; none is expected.
    pub fn check(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut counted: BTreeMap<DomId, Delta> = BTreeMap::new();
        for_each_with_path(&self.tree, |_, node| {
            let owner = counted.entry(node.owner()).or_default();
            owner.nodes += 1;
            owner.bytes += i64::try_from(node.bytes()).unwrap_or(i64::MAX);
            for grant in node.acl.iter().filter(|grant| !grant.ignored && grant.perm.domid != DOMID_ANY) {
                let valid = self
                    .domains
                    .get(grant.perm.domid)
                    .is_some_and(|domain| domain.generation <= node.acl_generation);
                if !valid {
                    faults.push(format!(
                        "a node of generation {} names the dead domain {}",
                        node.generation, grant.perm
                    ));
                }
            }
            true
        });
        self.check_digests(&mut faults);
        for (domid, domain) in self.domains.iter() {
            let real = counted.remove(&domid).unwrap_or_default();
            let kept = Delta { nodes: domain.nodes.cast_signed(), bytes: domain.node_bytes.cast_signed() };
            if real != kept {
                faults.push(format!("domain {domid} is charged for {kept:?} and has {real:?}"));
            }
            self.check_connection(domid, domain, &mut faults);
        }
        faults.extend(counted.keys().map(|domid| format!("unknown domain {domid} owns nodes")));
        self.check_totals(&mut faults);
        faults.truncate(FAULTS_MAX);
        faults
    }

    fn check_connection(&self, domid: DomId, domain: &crate::domain::Domain, faults: &mut Vec<String>) {
        let Some(conn) = domain.conn.and_then(|conn| self.conns.get(&conn)) else {
            if domain.introduced || domain.held_bytes != 0 {
                faults.push(format!("domain {domid} has no connection but holds {}", domain.held_bytes));
            }
            return;
        };
        let watch_bytes: u64 =
            conn.watches.keys().map(|(place, token)| self.watch_bytes_at(*place, token)).sum();
        let transaction_bytes: u64 = conn.transactions.values().map(|transaction| transaction.bytes).sum();
        if domain.held_bytes != watch_bytes + transaction_bytes {
            faults.push(format!(
                "domain {domid} is charged for {} held bytes and has {watch_bytes} + {transaction_bytes}",
                domain.held_bytes
            ));
        }
    }

    fn watch_bytes_at(&self, place: crate::watch::Place, token: &[u8]) -> u64 {
        let path = self.watches.path(place);
        Path::parse(path.as_bytes()).map_or(0, |path| watch_bytes(path, token))
    }

    /// Computes all digests and sums again, those of open transactions too.
    fn check_digests(&self, faults: &mut Vec<String>) {
        let transactions = self.conns.values().flat_map(|conn| conn.transactions.values());
        let records = self.verify_records().and_then(|()| self.verify_watches());
        if let Err(damage) = records {
            faults.push(damage.to_string());
        }
        let mut seen = HashSet::new();
        for tree in [&self.tree].into_iter().chain(transactions.map(|transaction| &transaction.tree)) {
            for_each_with_path(tree, |path, node| {
                let first = seen.insert(Arc::as_ptr(node));
                if first && let Err(damage) = scrub_node(path, node) {
                    faults.push(damage.to_string());
                }
                first
            });
        }
    }

    fn check_totals(&self, faults: &mut Vec<String>) {
        let nodes: u64 = self.domains.iter().map(|(_, domain)| domain.nodes).sum();
        let bytes: u64 = self.domains.iter().map(|(_, domain)| domain.node_bytes).sum();
        if (nodes, bytes) != (self.domains.nodes(), self.domains.node_bytes()) {
            faults.push(format!(
                "all domains are charged for {} nodes of {} bytes and have {nodes} of {bytes}",
                self.domains.nodes(),
                self.domains.node_bytes()
            ));
        }
    }

    /// SHA-256 over the whole state but the undelivered messages. Equal on equal replicas.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(snapshot::state_bytes(self));
        hasher.finalize().into()
    }
}
