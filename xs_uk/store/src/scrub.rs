//! Verifying the whole tree bit by bit, while it changes.

use std::sync::Arc;

use crate::{
    Damage, Part, Store,
    limits::SCRUBBED_CHILDREN_PER_NODE,
    mend::verify_sums,
    node::Node,
    radix::Broken,
    tree::{INTRODUCE_DOMAIN, RELEASE_DOMAIN, join},
    watch::Place,
};

/// How far a scrubber has come. It outlives changes of the tree: what is moved past is seen in the next round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubPlace {
    /// From the root down: name and creation number of each child on the way to the node that was verified last.
    way: Vec<(Arc<str>, u64)>,
    /// A round is under way.
    begun: bool,
    /// All nodes are verified.
    past_nodes: bool,
    /// The next place in the trie of watches.
    watches: Place,
}

/// What a scrubber has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Nodes verified.
    pub checked: usize,
    /// The first damage found; the scrubber stopped behind it.
    pub damage: Option<Damage>,
    /// The whole tree has been seen once more.
    pub finished_round: bool,
}

impl Store {
    /// Verifies up to `nodes` nodes more: their digests, listings with both orders, and that the sums over them are right;
    /// behind them the watches, connections and domains. A large directory counts as more than one node.
    pub fn scrub(&self, place: &mut ScrubPlace, nodes: usize) -> ScrubReport {
        let mut report = ScrubReport::default();
        let mut effort = 0;
        while effort < nodes && report.damage.is_none() && !report.finished_round {
            let next = if place.past_nodes { None } else { self.next_to_scrub(place) };
            let checked = match next {
                Some((path, node)) => {
                    report.checked += 1;
                    effort +=
                        1 + node.children().map_or(0, |children| children.len() / SCRUBBED_CHILDREN_PER_NODE);
                    scrub_node(&path, node)
                }
                None if place.watches < self.watches.width() => {
                    effort += 1;
                    place.past_nodes = true;
                    place.watches += 1;
                    self.watches.verify(place.watches - 1)
                }
                None => {
                    report.finished_round = true;
                    *place = ScrubPlace::default();
                    self.scrub_records()
                }
            };
            report.damage = checked.err();
        }
        report
    }

    /// The node behind the place, parents before children; the place moves there.
    fn next_to_scrub(&self, place: &mut ScrubPlace) -> Option<(String, &Node)> {
        if !std::mem::replace(&mut place.begun, true) {
            return Some(("/".to_owned(), &self.tree.root));
        }
        // Down the way again, as far as it still exists.
        let mut chain: Vec<&Node> = vec![&self.tree.root];
        for (name, _) in &place.way {
            let Some(child) = chain.last().and_then(|node| node.child(name)) else { break };
            chain.push(child);
        }
        let mut after = place.way.get(chain.len() - 1).map(|(_, number)| *number);
        place.way.truncate(chain.len() - 1);
        while let Some(node) = chain.pop() {
            if let Some((number, child)) = node.children().and_then(|children| children.after(after)) {
                place.way.push((Arc::clone(&child.name), number));
                let path = place.way.iter().fold("/".to_owned(), |path, (name, _)| join(&path, name));
                return Some((path, &child.node));
            }
            after = place.way.pop().map(|(_, number)| number);
        }
        None
    }

    fn scrub_records(&self) -> Result<(), Damage> {
        scrub_node(INTRODUCE_DOMAIN, &self.tree.introduce_domain)?;
        scrub_node(RELEASE_DOMAIN, &self.tree.release_domain)?;
        self.verify_records()
    }

    /// Verifies all watches, and that connections and the trie have the same ones.
    pub(crate) fn verify_watches(&self) -> Result<(), Damage> {
        (0..self.watches.width()).try_for_each(|place| self.watches.verify(place))?;
        let mut count = 0;
        for (id, conn) in &self.conns {
            for ((place, token), watch) in &conn.watches {
                let found = self.watches.get(*place, *id, *watch);
                if found.is_none_or(|found| found.token != *token) {
                    return Err(Damage::new(&id.0.to_string(), Part::Watch));
                }
                count += 1;
            }
        }
        if count == self.watches.count() { Ok(()) } else { Err(Damage::new("all", Part::Watch)) }
    }

    /// Verifies the configuration, all connections with their transactions, and domains. Outboxes, which may be large, are
    /// verified when they are delivered or saved.
    pub(crate) fn verify_records(&self) -> Result<(), Damage> {
        self.verify_config()?;
        for (id, conn) in &self.conns {
            conn.verify(*id)?;
            conn.transactions.values().try_for_each(|transaction| transaction.verify())?;
        }
        self.domains.verify_keys()?;
        self.domains.iter().try_for_each(|(domid, domain)| domain.verify(domid))
    }
}

pub(crate) fn scrub_node(path: &str, node: &Node) -> Result<(), Damage> {
    node.verify(path)?;
    if let Some(children) = node.children() {
        children.verify().map_err(|Broken| Damage::new(path, Part::Listing))?;
    }
    verify_sums(node, path)
}
