//! Watches in a trie by path component: finding those that match costs the depth of the path and the matches.

use std::{collections::BTreeMap, sync::Arc};

use twox_hash::{XxHash3_64, XxHash3_128};
use xs_protocol::Path;

use crate::{
    ConnId, Damage, Part,
    node::Node,
    radix::{Broken, Entry, Radix},
    weight::{Weight, name_key},
};

/// A place in the trie.
pub(crate) type Place = u32;

const ABSOLUTE: Place = 0;
const SPECIAL: Place = 1;

/// A watch of a client.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    pub conn: ConnId,
    /// Increases with every watch of the store.
    pub id: u64,
    pub token: Arc<[u8]>,
    /// Most levels below the watched path; `None` for all.
    pub depth: Option<u32>,
    /// Bytes in front of event paths that are not sent, because the watch is relative.
    pub prefix_len: usize,
    /// A hash of `token`.
    token_hash: u64,
}

impl Watch {
    pub fn new(conn: ConnId, id: u64, token: Arc<[u8]>, depth: Option<u32>, prefix_len: usize) -> Watch {
        let token_hash = XxHash3_64::oneshot(&token);
        Watch { conn, id, token, depth, prefix_len, token_hash }
    }

    /// A hash of everything. Of the token it has only the hash: every change at or below a place looks at all watches of
    /// that place, and a guest may have many with long tokens.
    fn mark(&self) -> u128 {
        let depth = self.depth.map_or(u64::MAX, u64::from);
        let numbers = [self.conn.0, self.id, depth, self.prefix_len as u64, self.token_hash];
        let mut fixed = [0; 40];
        for (slot, number) in fixed.as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
            *slot = number.to_le_bytes();
        }
        XxHash3_128::oneshot(&fixed)
    }

    /// Whether the token is what it was: to be asked before it is sent.
    pub fn verify_token(&self) -> Result<(), Damage> {
        let sound = XxHash3_64::oneshot(&self.token) == self.token_hash;
        if sound { Ok(()) } else { Err(Damage::new(&self.conn.0.to_string(), Part::Watch)) }
    }
}

/// A place below another.
#[derive(Clone)]
struct Below {
    name: Arc<str>,
    place: Place,
}

impl Entry for Below {
    fn key(&self) -> u64 {
        name_key(&self.name)
    }

    fn weight(&self) -> Weight {
        Weight::of(&self.name, self.place.into())
    }

    fn bytes(&self) -> u64 {
        self.name.len() as u64 + 1
    }
}

#[derive(Default)]
struct TrieNode {
    name: Arc<str>,
    parent: Place,
    children: Radix<Below>,
    /// What the children weigh.
    weight: Weight,
    watches: BTreeMap<(ConnId, u64), Watch>,
    /// The sum of the watches' marks.
    marks: u128,
}

impl TrieNode {
    fn child(&self, name: &str) -> Option<Place> {
        self.children.get(name_key(name), |below| *below.name == *name).map(|below| below.place)
    }

    /// Whether no watch is lost or changed.
    fn verify_watches(&self) -> Result<(), Broken> {
        let marks = self.watches.values().fold(0_u128, |sum, watch| sum.wrapping_add(watch.mark()));
        if marks == self.marks { Ok(()) } else { Err(Broken) }
    }

    /// Whether no place below is lost or changed.
    fn verify_children(&self) -> Result<(), Broken> {
        if self.children.weight() == self.weight { self.children.verify() } else { Err(Broken) }
    }

    /// Whether it is sure that there is nothing of this name.
    fn verify_absence(&self, name: &str) -> Result<(), Broken> {
        let leaf = self.children.verified(name_key(name))?;
        let absent = self.children.weight() == self.weight && leaf.iter().all(|below| *below.name != *name);
        if absent { Ok(()) } else { Err(Broken) }
    }
}

/// All watches of all clients. The trie's nodes lie in one list, so that no operation recurses.
pub(crate) struct Watches {
    nodes: Vec<TrieNode>,
    free: Vec<Place>,
}

impl Default for Watches {
    fn default() -> Self {
        Watches { nodes: vec![TrieNode::default(), TrieNode::default()], free: Vec::new() }
    }
}

fn top(path: Path<'_>) -> Place {
    if path.is_special() { SPECIAL } else { ABSOLUTE }
}

impl Watches {
    fn node(&self, place: Place) -> &TrieNode {
        &self.nodes[place as usize]
    }

    fn node_mut(&mut self, place: Place) -> &mut TrieNode {
        &mut self.nodes[place as usize]
    }

    pub fn find(&self, path: Path<'_>) -> Option<Place> {
        path.components().try_fold(top(path), |place, name| self.node(place).child(name))
    }

    /// Adds a watch and returns its place, by which it is removed.
    pub fn add(&mut self, path: Path<'_>, watch: Watch) -> Place {
        let mut place = top(path);
        for name in path.components() {
            place = match self.node(place).child(name) {
                Some(child) => child,
                None => self.add_node(place, name.into()),
            };
        }
        let node = self.node_mut(place);
        node.marks = node.marks.wrapping_add(watch.mark());
        node.watches.insert((watch.conn, watch.id), watch);
        place
    }

    fn add_node(&mut self, parent: Place, name: Arc<str>) -> Place {
        let node = TrieNode { name: Arc::clone(&name), parent, ..TrieNode::default() };
        let place = match self.free.pop() {
            Some(place) => {
                *self.node_mut(place) = node;
                place
            }
            None => {
                self.nodes.push(node);
                Place::try_from(self.nodes.len() - 1).expect("watches and depths are bounded")
            }
        };
        let below = Below { name, place };
        let parent = self.node_mut(parent);
        parent.weight += below.weight();
        parent.children.insert(below);
        place
    }

    /// Removes a watch and the places that nothing needs any more.
    pub fn remove(&mut self, place: Place, conn: ConnId, id: u64) -> Option<Watch> {
        let node = self.node_mut(place);
        let watch = node.watches.remove(&(conn, id))?;
        node.marks = node.marks.wrapping_sub(watch.mark());
        let mut place = place;
        while place > SPECIAL && self.node(place).watches.is_empty() && self.node(place).weight.count == 0 {
            let node = std::mem::take(self.node_mut(place));
            let parent = self.node_mut(node.parent);
            if let Some(below) = parent.children.remove(name_key(&node.name), |below| below.place == place) {
                parent.weight -= below.weight();
            }
            self.free.push(place);
            place = node.parent;
        }
        Some(watch)
    }

    pub fn get(&self, place: Place, conn: ConnId, id: u64) -> Option<&Watch> {
        self.nodes.get(place as usize)?.watches.get(&(conn, id))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.nodes.iter().map(|node| node.watches.len()).sum()
    }

    /// The path of a place.
    pub fn path(&self, place: Place) -> String {
        let mut names = Vec::new();
        let mut at = place;
        while at > SPECIAL {
            names.push(&*self.node(at).name);
            at = self.node(at).parent;
        }
        names.reverse();
        let slash = if at == ABSOLUTE { "/" } else { "" };
        format!("{slash}{}", names.join("/"))
    }

    /// The watches that an event at `path` matches: on it or above it, as far as their depth allows. All of them are
    /// verified, and that there are no more.
    pub fn matching<'a>(&'a self, path: Path<'_>, hits: &mut Vec<&'a Watch>) -> Result<(), Damage> {
        self.collect(path, hits).map_err(|Broken| Damage::new(path.as_str(), Part::Watch))
    }

    fn collect<'a>(&'a self, path: Path<'_>, hits: &mut Vec<&'a Watch>) -> Result<(), Broken> {
        let mut levels_below = path.depth();
        let mut place = top(path);
        let mut components = path.components();
        loop {
            let node = self.node(place);
            let reaches = |watch: &&Watch| watch.depth.is_none_or(|depth| levels_below <= depth as usize);
            node.verify_watches()?;
            hits.extend(node.watches.values().filter(reaches));
            let Some(name) = components.next() else { break };
            let Some(below) = node.child(name) else {
                node.verify_absence(name)?;
                break;
            };
            let child = self.nodes.get(below as usize).ok_or(Broken)?;
            if *child.name != *name || child.parent != place {
                return Err(Broken);
            }
            place = below;
            levels_below -= 1;
        }
        hits.sort_unstable_by_key(|watch| (watch.conn, watch.id));
        Ok(())
    }

    /// The watches on exactly this path.
    pub fn exactly(&self, path: Path<'_>) -> impl Iterator<Item = &Watch> {
        self.find(path).into_iter().flat_map(|place| self.node(place).watches.values())
    }

    /// Visits the watches on nodes below `path`, where `removed` was: children before parents, siblings in the
    /// order of their creation. `visit` gets the path, the node, its parent and the watch.
    pub fn below<'a>(
        &'a self,
        path: Path<'_>,
        removed: &'a Node,
        mut visit: impl FnMut(&str, &'a Node, &'a Node, &'a Watch),
    ) -> Result<(), Damage> {
        struct Level<'a> {
            place: Place,
            node: &'a Node,
            path_len: usize,
            todo: Vec<(Place, &'a Node)>,
        }
        let Some(place) = self.find(path) else { return Ok(()) };
        let mut text = if path.is_root() { String::new() } else { path.as_str().to_owned() };
        let todo = self.known(place, path.as_str(), removed)?;
        let mut levels = vec![Level { place, node: removed, path_len: text.len(), todo }];
        while let Some(level) = levels.last_mut() {
            if let Some((place, node)) = level.todo.pop() {
                text.truncate(level.path_len);
                text.push('/');
                text.push_str(&self.node(place).name);
                let todo = self.known(place, &text, node)?;
                levels.push(Level { place, node, path_len: text.len(), todo });
                continue;
            }
            let Level { place, node, path_len, .. } = levels.pop().expect("there is a level");
            if let Some(parent) = levels.last() {
                text.truncate(path_len);
                self.node(place).verify_watches().map_err(|Broken| Damage::new(&text, Part::Watch))?;
                for watch in self.node(place).watches.values() {
                    visit(&text, node, parent.node, watch);
                }
            }
        }
        Ok(())
    }

    /// The children of a place that exist as children of a node, last created first. The node and what it says of its
    /// children is verified.
    fn known<'a>(&self, place: Place, path: &str, node: &'a Node) -> Result<Vec<(Place, &'a Node)>, Damage> {
        node.verify(path)?;
        let watched = self.node(place);
        let Some(children) = node.children() else { return Ok(Vec::new()) };
        let mut known = Vec::new();
        if watched.weight.count <= children.weight().count {
            watched.verify_children().map_err(|Broken| Damage::new(path, Part::Watch))?;
            for below in watched.children.iter() {
                if let Some(child) = node.verified_child(path, &below.name)? {
                    known.push((child.number, below.place, &*child.node));
                }
            }
        } else {
            children.verify().map_err(|Broken| Damage::new(path, Part::Listing))?;
            known.extend(
                children
                    .ordered()
                    .into_iter()
                    .filter_map(|child| Some((child.number, watched.child(&child.name)?, &*child.node))),
            );
        }
        known.sort_unstable_by_key(|(number, ..)| std::cmp::Reverse(*number));
        Ok(known.into_iter().map(|(_, place, node)| (place, node)).collect())
    }

    /// Verifies the watches and places at a place, of which there are [`Watches::width`].
    pub fn verify(&self, place: Place) -> Result<(), Damage> {
        let Some(node) = self.nodes.get(place as usize) else { return Ok(()) };
        let tokens = || node.watches.values().try_for_each(|watch| watch.verify_token().map_err(|_| Broken));
        let fits = node.verify_watches().and_then(|()| tokens()).and_then(|()| node.verify_children());
        fits.map_err(|Broken| Damage::new(&self.path(place), Part::Watch))
    }

    /// How many places there are, unused ones too.
    pub fn width(&self) -> Place {
        Place::try_from(self.nodes.len()).unwrap_or(Place::MAX)
    }

    /// For tests: the watches at a path, to be damaged.
    #[cfg(test)]
    pub fn at_mut(&mut self, path: Path<'_>) -> &mut BTreeMap<(ConnId, u64), Watch> {
        let place = self.find(path).unwrap();
        &mut self.node_mut(place).watches
    }

    /// For tests: loses a place from the list of the one above it.
    #[cfg(test)]
    pub fn lose(&mut self, path: Path<'_>) {
        let place = self.find(path).unwrap();
        let parent = self.node(place).parent;
        self.node_mut(parent).children.remove(name_key(path.leaf()), |below| below.place == place);
    }

    /// How many places there are besides the two tops.
    #[cfg(test)]
    pub fn places(&self) -> usize {
        self.nodes.len() - self.free.len() - 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{node::tests::grant, tree::Tree};
    use xs_protocol::{Access, DomId};

    fn path(text: &str) -> Path<'_> {
        Path::parse(text.as_bytes()).unwrap()
    }

    fn watch(id: u64, depth: Option<u32>) -> Watch {
        Watch::new(ConnId(id % 3), id, Arc::from(&b"t"[..]), depth, 0)
    }

    fn hits(watches: &Watches, at: &str) -> Vec<u64> {
        let mut hits = Vec::new();
        watches.matching(path(at), &mut hits).unwrap();
        let mut ids: Vec<u64> = hits.iter().map(|watch| watch.id).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn depth_limits_matches() {
        let mut watches = Watches::default();
        watches.add(path("/a"), watch(1, None));
        watches.add(path("/a"), watch(2, Some(0)));
        watches.add(path("/a"), watch(3, Some(1)));
        watches.add(path("/"), watch(4, Some(1)));
        watches.add(path("/ab"), watch(5, None));
        watches.add(path("@releaseDomain"), watch(6, None));
        assert_eq!(hits(&watches, "/a"), [1, 2, 3, 4]);
        assert_eq!(hits(&watches, "/a/b"), [1, 3]);
        assert_eq!(hits(&watches, "/a/b/c"), [1]);
        assert_eq!(hits(&watches, "/"), [4]);
        assert_eq!(hits(&watches, "/@releaseDomain"), [4]);
        assert_eq!(hits(&watches, "@releaseDomain"), [6]);
    }

    #[test]
    fn what_is_lost_or_changed_is_seen() {
        let filled = || {
            let mut watches = Watches::default();
            for number in 0..100 {
                watches.add(path(&format!("/a/{number}")), watch(number, None));
            }
            watches.add(path("/a"), watch(200, Some(3)));
            watches
        };
        let damage = |watches: &Watches, at: &str| watches.matching(path(at), &mut Vec::new()).is_err();
        let sound = filled();
        let verify = |watches: &Watches| (0..watches.width()).all(|place| watches.verify(place).is_ok());
        assert!(verify(&sound) && !damage(&sound, "/a/7/x") && !damage(&sound, "/none"));
        let changes: [fn(&mut Watches); 4] = [
            |watches| watches.at_mut(path("/a/7")).clear(),
            |watches| watches.lose(path("/a/7")),
            |watches| watches.at_mut(path("/a/7")).first_entry().unwrap().get_mut().depth = Some(1),
            |watches| watches.at_mut(path("/a/7")).first_entry().unwrap().get_mut().token_hash ^= 1,
        ];
        for change in changes {
            let mut watches = filled();
            change(&mut watches);
            assert!(damage(&watches, "/a/7") && damage(&watches, "/a/7/x"));
            assert!(!damage(&watches, "/a/8") && !damage(&watches, "/b"));
            assert!(!verify(&watches));
        }
        let mut token = filled();
        token.at_mut(path("/a/7")).first_entry().unwrap().get_mut().token = Arc::default();
        assert!(
            token.at_mut(path("/a/7")).values().next().unwrap().verify_token().is_err() && !verify(&token)
        );
        let mut above = filled();
        above.at_mut(path("/a")).first_entry().unwrap().get_mut().prefix_len = 1;
        assert!(damage(&above, "/a/7") && damage(&above, "/a") && !damage(&above, "/b"));
    }

    #[test]
    fn places_are_given_back() {
        let mut watches = Watches::default();
        let deep = format!("/{}", vec!["x"; 1500].join("/"));
        let place = watches.add(path(&deep), watch(1, None));
        assert_eq!(watches.path(place), deep);
        let shallow = watches.add(path("/x"), watch(2, None));
        assert!(watches.remove(place, ConnId(1), 1).is_some());
        assert!(watches.remove(place, ConnId(1), 1).is_none());
        assert_eq!(watches.places(), 1);
        assert!(watches.remove(shallow, ConnId(2), 2).is_some());
        assert_eq!(watches.places(), 0);
    }

    #[test]
    fn removal_reports_children_first_in_creation_order() {
        let mut tree = Tree::new(DomId(0));
        let acl: crate::node::Acl = Arc::new([grant(0, Access::None)]);
        for (text, missing) in [("/a/z", 2), ("/a/z/q", 1), ("/a/b", 1), ("/a/b/c", 1)] {
            tree.create(path(text), missing, &acl, b"", 1).unwrap();
        }
        let mut watches = Watches::default();
        for (id, text) in ["/a", "/a/b", "/a/b/c", "/a/z", "/a/none"].into_iter().enumerate() {
            watches.add(path(text), watch(id as u64, None));
        }
        let removed = tree.remove(path("/a"), 2).unwrap().unwrap();
        let mut seen = Vec::new();
        watches
            .below(path("/a"), &removed, |text, _, _, watch| seen.push((text.to_owned(), watch.id)))
            .unwrap();
        let expected = [("/a/z", 3), ("/a/b/c", 2), ("/a/b", 1)];
        assert_eq!(seen, expected.map(|(text, id)| (text.to_owned(), id)));
    }
}
