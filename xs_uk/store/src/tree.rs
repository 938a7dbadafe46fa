//! The tree of nodes. Cloning it is a snapshot; it shares what does not change.

use std::sync::Arc;

use sanity::Sum;
use xs_protocol::{Access, DOMID_ANY, DomId, Path, Perm};

use crate::{
    children::{Child, Children},
    damage::{Damage, Part},
    facts::Facts,
    frame::Frame,
    node::{Acl, Grant, Node, Rewrite, domain_hint},
    weight::Weight,
};

/// Special node: occurs when a domain is introduced.
pub(crate) const INTRODUCE_DOMAIN: &str = "@introduceDomain";
/// Special node: occurs when a domain shuts down or is gone.
pub(crate) const RELEASE_DOMAIN: &str = "@releaseDomain";

/// The whole tree and the two special nodes.
#[derive(Clone)]
pub(crate) struct Tree {
    pub root: Arc<Node>,
    pub introduce_domain: Arc<Node>,
    pub release_domain: Arc<Node>,
}

/// What is at a path.
pub(crate) enum Found<'a> {
    /// A node, and its parent unless it is the root or special.
    Node {
        /// The node.
        node: &'a Arc<Node>,
        /// Its parent.
        parent: Option<&'a Arc<Node>>,
    },
    /// No node.
    Missing {
        /// The nearest existing ancestor.
        nearest: &'a Arc<Node>,
        /// How many components of the path do not exist.
        missing: usize,
    },
}

/// Where a path leads.
struct Walk<'t, 'p> {
    /// The node at the path, or the nearest ancestor.
    node: &'t Arc<Node>,
    /// The node's own path.
    at: &'p str,
    parent: Option<(&'t Arc<Node>, &'p str)>,
    /// How many components of the path do not exist.
    missing: usize,
    /// The first of them, if the node could have such a child.
    absent: Option<&'p str>,
}

impl<'t> Walk<'t, '_> {
    fn found(&self) -> Found<'t> {
        match self.missing {
            0 => Found::Node { node: self.node, parent: self.parent.map(|(parent, _)| parent) },
            missing => Found::Missing { nearest: self.node, missing },
        }
    }

    /// Verifies the node, or the nearest one and the absence of the next.
    fn verify(&self) -> Result<(), Damage> {
        self.node.verify(self.at)?;
        match self.absent {
            // A lookup did not find it: with a listing that fits it is not there.
            Some(name) if self.node.verified_child(self.at, name)?.is_some() => {
                Err(Damage::new(self.at, Part::Listing))
            }
            _ => Ok(()),
        }
    }

    fn verify_parent(&self) -> Result<(), Damage> {
        self.parent.map_or(Ok(()), |(parent, at)| parent.verify(at))
    }
}

impl Tree {
    /// The initial nodes: `/`, `/tool`, `/tool/xenstored` and the special nodes, owned by `owner`.
    pub fn new(owner: DomId) -> Tree {
        let grant = |domid, access| Grant { perm: Perm { domid, access }, ignored: false };
        let private: Acl = Arc::new([grant(owner, Access::None)]);
        let public: Acl = Arc::new([grant(owner, Access::None), grant(DOMID_ANY, Access::Read)]);
        let sealed = |path: &str, acl: &Acl, child: Option<(&str, Arc<Node>)>| {
            let mut node = Node::new(Arc::default(), Arc::clone(acl), 0);
            if let Some((name, child)) = child {
                node.children_mut().push(name.into(), child);
            }
            node.seal(path);
            Arc::new(node)
        };
        let xenstored = sealed("/tool/xenstored", &private, None);
        let tool = sealed("/tool", &private, Some(("xenstored", xenstored)));
        Tree {
            root: sealed("/", &private, Some(("tool", tool))),
            introduce_domain: sealed(INTRODUCE_DOMAIN, &private, None),
            release_domain: sealed(RELEASE_DOMAIN, &public, None),
        }
    }

    /// The sums over all nodes, special ones apart. Equal trees have equal ones.
    pub fn sums(&self) -> [Sum; 3] {
        [&self.root, &self.introduce_domain, &self.release_domain].map(|node| node.frame.sum)
    }

    fn special(&self, name: &str) -> Option<&Arc<Node>> {
        match name {
            INTRODUCE_DOMAIN => Some(&self.introduce_domain),
            RELEASE_DOMAIN => Some(&self.release_domain),
            _ => None,
        }
    }

    pub fn special_mut(&mut self, name: &str) -> Option<&mut Arc<Node>> {
        match name {
            INTRODUCE_DOMAIN => Some(&mut self.introduce_domain),
            RELEASE_DOMAIN => Some(&mut self.release_domain),
            _ => None,
        }
    }

    fn walk<'p>(&self, path: Path<'p>) -> Walk<'_, 'p> {
        if path.is_special() {
            return self.walk_special(path);
        }
        let text = path.as_str();
        let mut walk = Walk { node: &self.root, at: "/", parent: None, missing: 0, absent: None };
        let mut end = 0;
        let mut components = path.components();
        while let Some(name) = components.next() {
            let Some(child) = walk.node.child(name) else {
                walk.missing = 1 + components.count();
                walk.absent = Some(name);
                break;
            };
            end += 1 + name.len();
            walk.parent = Some((walk.node, walk.at));
            (walk.node, walk.at) = (child, &text[..end]);
        }
        walk
    }

    fn walk_special<'p>(&self, path: Path<'p>) -> Walk<'_, 'p> {
        let depth = path.depth();
        let head = path.components().next().unwrap_or_default();
        let (node, at, missing) = match self.special(head) {
            Some(node) => (node, head, depth - 1),
            None => (&self.root, "/", depth),
        };
        Walk { node, at, parent: None, missing, absent: None }
    }

    /// What is at a path, not verified.
    pub fn find(&self, path: Path<'_>) -> Found<'_> {
        self.walk(path).found()
    }

    /// What is at a path, verified: the node, or its nearest ancestor and that there is no more of the path.
    pub fn look(&self, path: Path<'_>) -> Result<Found<'_>, Damage> {
        let walk = self.walk(path);
        walk.verify()?;
        Ok(walk.found())
    }

    /// As [`Tree::look`], with the parent of the node verified too.
    pub fn look_with_parent(&self, path: Path<'_>) -> Result<Found<'_>, Damage> {
        let walk = self.walk(path);
        walk.verify()?;
        walk.verify_parent()?;
        Ok(walk.found())
    }

    /// Verifies all that a change at a path consults: the node or the nearest one, the parent, and the sums of all above.
    pub fn examine(&self, path: Path<'_>) -> Result<(), Damage> {
        self.look_with_parent(path)?;
        if path.is_special() {
            return self.special(path.as_str()).map_or(Ok(()), |node| node.verify_seal(path.as_str()));
        }
        let mut node = &self.root;
        let mut end = 0;
        node.verify_seal("/")?;
        for name in path.components() {
            let Some(child) = node.child(name) else { break };
            node = child;
            end += 1 + name.len();
            node.verify_seal(&path.as_str()[..end])?;
        }
        Ok(())
    }

    pub fn get(&self, path: Path<'_>) -> Option<&Arc<Node>> {
        match self.find(path) {
            Found::Node { node, .. } => Some(node),
            Found::Missing { .. } => None,
        }
    }

    /// The node at a path, to be changed in place as `rewrite` says. It and every ancestor get the new sums.
    /// `None` if there is none.
    pub fn change(&mut self, path: Path<'_>, rewrite: &Rewrite) -> Result<Option<&mut Node>, Damage> {
        if path.is_special() {
            let Some(node) = self.special_mut(path.as_str()) else { return Ok(None) };
            let node = shifted(node, path.as_str(), &rewrite.shift)?;
            node.own = rewrite.own;
            return Ok(Some(node));
        }
        let mut node = shifted(&mut self.root, "/", &rewrite.shift)?;
        let mut end = 0;
        for name in path.components() {
            let Some(child) = node.child_mut(name) else { return Ok(None) };
            end += 1 + name.len();
            node = shifted(child, &path.as_str()[..end], &rewrite.shift)?;
        }
        node.own = rewrite.own;
        Ok(Some(node))
    }

    /// Creates the node at `path`, of which the last `missing` components do not exist, with the permissions
    /// `acl` for every new node and the value for the last.
    pub fn create(
        &mut self,
        path: Path<'_>,
        missing: usize,
        acl: &Acl,
        value: &[u8],
        generation: u64,
    ) -> Result<(), Damage> {
        let mut at = path;
        let mut below: Option<(&str, Node)> = None;
        let Found::Missing { nearest, .. } = self.find(path) else { return Ok(()) };
        let acl_generation = nearest.acl_generation.max(generation);
        // From the last component up, so that each is sealed when all below it is there.
        for _ in 0..missing {
            let value = if below.is_none() { Arc::from(value) } else { Arc::default() };
            let mut new = Node::new(value, Arc::clone(acl), generation);
            new.acl_generation = acl_generation;
            if let Some((name, node)) = below.take() {
                new.children_mut().push(name.into(), Arc::new(node));
            }
            new.seal(at.as_str());
            below = Some((at.leaf(), new));
            at = at.parent().unwrap_or(Path::ROOT);
        }
        let Some((name, top)) = below else { return Ok(()) };
        let number = nearest.children().map_or(0, Children::next_number);
        let listing = nearest.listing() + Weight::of(name, number);
        let mut rewrite = nearest.rewrite(at.as_str(), &Facts { generation, listing, ..nearest.facts() });
        rewrite.shift.add(&top.frame);
        if let Some(nearest) = self.change(at, &rewrite)? {
            nearest.generation = generation;
            nearest.children_mut().push(name.into(), Arc::new(top));
        }
        Ok(())
    }

    /// Takes the node at `path` out of its parent. `None` for the root or if there is none.
    pub fn remove(&mut self, path: Path<'_>, generation: u64) -> Result<Option<Arc<Node>>, Damage> {
        let (name, above) = (path.leaf(), path.parent());
        let Some((at, parent)) = above.and_then(|at| Some((at, self.get(at)?))) else { return Ok(None) };
        let Some(Child { number, node, .. }) = parent.verified_child(at.as_str(), name)? else {
            return Ok(None);
        };
        node.verify_seal(path.as_str())?;
        let listing = parent.listing() - Weight::of(name, *number);
        let mut rewrite = parent.rewrite(at.as_str(), &Facts { generation, listing, ..parent.facts() });
        rewrite.shift.sub(&node.frame);
        let Some(parent) = self.change(at, &rewrite)? else { return Ok(None) };
        parent.generation = generation;
        Ok(parent.remove_child(name))
    }

    /// Paths of the nodes whose permissions name a domain, in tree order; below a node that the domain owns
    /// the walk goes on only if `into_owned`. The root always stays.
    pub fn mentions(&self, domid: DomId, into_owned: bool) -> Vec<String> {
        let hint = domain_hint(domid);
        let mut found = Vec::new();
        let mut stack = vec![(String::from("/"), &self.root)];
        while let Some((path, node)) = stack.pop() {
            if node.frame.domains_hint & hint == 0 {
                continue;
            }
            let goes = node.owner() == domid && !into_owned && path.len() > 1;
            let children = if goes { None } else { node.children() };
            for child in children.map(|children| children.ordered()).unwrap_or_default().into_iter().rev() {
                if child.node.frame.domains_hint & hint != 0 {
                    stack.push((join(&path, &child.name), &child.node));
                }
            }
            if node.acl.iter().any(|grant| grant.perm.domid == domid) {
                found.push(path);
            }
        }
        for (name, node) in
            [(RELEASE_DOMAIN, &self.release_domain), (INTRODUCE_DOMAIN, &self.introduce_domain)]
        {
            if node.acl.iter().any(|grant| grant.perm.domid == domid) {
                found.push(name.to_owned());
            }
        }
        found
    }
}

/// A node to be changed, with its sums changed.
fn shifted<'n>(node: &'n mut Arc<Node>, path: &str, shift: &Frame) -> Result<&'n mut Node, Damage> {
    let node = Arc::make_mut(node);
    node.verify_seal(path)?;
    node.frame.add(shift);
    node.seal = node.frame.seal();
    Ok(node)
}

/// The path of a child.
pub(crate) fn join(path: &str, name: &str) -> String {
    let slash = if path == "/" { "" } else { "/" };
    format!("{path}{slash}{name}")
}

/// Visits nodes with their paths, special ones too, parents before children, until `visit` does not want the children.
pub(crate) fn for_each_with_path<'a>(tree: &'a Tree, mut visit: impl FnMut(&str, &'a Arc<Node>) -> bool) {
    let mut stack = vec![
        (String::from("/"), &tree.root),
        (INTRODUCE_DOMAIN.to_owned(), &tree.introduce_domain),
        (RELEASE_DOMAIN.to_owned(), &tree.release_domain),
    ];
    while let Some((path, node)) = stack.pop() {
        if visit(&path, node)
            && let Some(children) = node.children()
        {
            children.for_each_node(|name, child| stack.push((join(&path, name), child)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::tests::grant;

    fn path(text: &str) -> Path<'_> {
        Path::parse(text.as_bytes()).unwrap()
    }

    fn acl(domid: u16) -> Acl {
        Arc::new([grant(domid, Access::None)])
    }

    #[test]
    fn create_find_remove() {
        let mut tree = Tree::new(DomId(0));
        tree.create(path("/a/b/c"), 3, &acl(1), b"v", 7).unwrap();
        let snapshot = tree.clone();
        tree.create(path("/a/d"), 1, &acl(2), b"", 8).unwrap();
        assert_eq!(&*tree.get(path("/a/b/c")).unwrap().value, b"v");
        assert_eq!(tree.get(path("/a/b")).unwrap().value.len(), 0);
        assert_eq!(tree.get(path("/a")).unwrap().generation, 8);
        assert!(snapshot.get(path("/a/d")).is_none());
        assert_eq!(snapshot.get(path("/a")).unwrap().generation, 7);
        match tree.find(path("/a/x/y")) {
            Found::Missing { missing, nearest } => {
                assert_eq!((missing, nearest.generation), (2, 8));
            }
            Found::Node { .. } => panic!("there is no such node"),
        }
        assert!(tree.remove(path("/a/b"), 9).unwrap().is_some());
        for gone in [path("/a/b"), Path::ROOT] {
            assert!(tree.remove(gone, 9).unwrap().is_none());
        }
        assert!(tree.get(path("/a/b/c")).is_none() && snapshot.get(path("/a/b/c")).is_some());
    }

    #[test]
    fn mentions_are_in_tree_order() {
        let mut tree = Tree::new(DomId(0));
        tree.create(path("/z/own"), 2, &acl(5), b"", 1).unwrap();
        let shared: Acl = Arc::new([grant(0, Access::None), grant(5, Access::Read)]);
        tree.create(path("/a"), 1, &shared, b"", 1).unwrap();
        tree.create(path("/other"), 1, &acl(69), b"", 1).unwrap();
        assert_eq!(tree.mentions(DomId(5), false), ["/z", "/a"]);
        assert_eq!(tree.mentions(DomId(5), true), ["/z", "/z/own", "/a"]);
        assert_eq!(tree.mentions(DomId(6), true), Vec::<String>::new());
        assert_eq!(tree.mentions(DOMID_ANY, false), [RELEASE_DOMAIN]);
    }

    #[test]
    fn special_nodes() {
        let tree = Tree::new(DomId(0));
        assert!(tree.get(path("@releaseDomain")).is_some());
        assert!(matches!(tree.find(path("@releaseDomain/5")), Found::Missing { missing: 1, .. }));
        assert!(matches!(tree.find(path("@else")), Found::Missing { missing: 1, .. }));
        assert!(tree.get(path("/@releaseDomain")).is_none());
    }
}
