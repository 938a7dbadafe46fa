//! Where the nodes of a snapshot's table belong: their paths, which their digests cover.

use super::{decode::Decoded, wire::*};
use crate::tree::{INTRODUCE_DOMAIN, RELEASE_DOMAIN, join};

/// For each node, how to find its path.
pub(super) struct Homes(Vec<Home>);

#[derive(Clone)]
enum Home {
    Nowhere,
    /// At the top of a tree.
    Top(String),
    /// Below the node at a place, with a name.
    Child(usize, String),
}

impl Homes {
    pub fn new(wire: &WireStore) -> Decoded<Homes> {
        let mut homes = Homes(vec![Home::Nowhere; wire.nodes.len()]);
        for (place, node) in wire.nodes.iter().enumerate() {
            for (child, name) in node.children.iter().zip(&node.names) {
                let child = usize::try_from(*child).map_err(|_| "place out of range")?;
                if child >= place {
                    return Err("a node is missing or above its parent");
                }
                homes.0[child] = Home::Child(place, name.clone());
            }
        }
        homes.tops(wire)?;
        Ok(homes)
    }

    fn tops(&mut self, wire: &WireStore) -> Decoded<()> {
        let transactions = || wire.connections.iter().flat_map(|conn| &conn.transactions);
        let trees = transactions().filter_map(|transaction| transaction.tree).chain(wire.tree);
        for tree in trees {
            self.top(tree.root, "/")?;
            self.top(tree.introduce_domain, INTRODUCE_DOMAIN)?;
            self.top(tree.release_domain, RELEASE_DOMAIN)?;
        }
        for change in transactions().flat_map(|transaction| &transaction.changes) {
            if let Some(removed) = change.removed {
                self.top(removed, &change.path)?;
            }
        }
        Ok(())
    }

    fn top(&mut self, place: u64, path: &str) -> Decoded<()> {
        let home = usize::try_from(place).ok().and_then(|place| self.0.get_mut(place));
        *home.ok_or("a node is missing or above its parent")? = Home::Top(path.to_owned());
        Ok(())
    }

    /// The path of the node at a place; `None` if it is in no tree.
    pub fn path(&self, place: usize) -> Option<String> {
        let mut names: Vec<&str> = Vec::new();
        let mut at = place;
        // Parents have higher places than children, so this ends.
        loop {
            match self.0.get(at)? {
                Home::Nowhere => return None,
                Home::Top(path) => {
                    return Some(names.iter().rev().fold(path.clone(), |path, name| join(&path, name)));
                }
                Home::Child(parent, name) => {
                    names.push(name.as_str());
                    at = *parent;
                }
            }
        }
    }
}
