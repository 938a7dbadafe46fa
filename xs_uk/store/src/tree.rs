//! The tree of nodes. Cloning it is a snapshot; it shares what does not change.

use std::sync::Arc;

use xs_protocol::{Access, DOMID_ANY, DomId, Path, Perm};

use crate::node::{Acl, Grant, Node, acl_hint, domain_hint};

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

impl Tree {
    /// The initial nodes: `/`, `/tool`, `/tool/xenstored` and the special nodes, owned by `owner`.
    pub fn new(owner: DomId) -> Tree {
        let grant = |domid, access| Grant { perm: Perm { domid, access }, ignored: false };
        let private: Acl = Arc::new([grant(owner, Access::None)]);
        let public: Acl = Arc::new([grant(owner, Access::None), grant(DOMID_ANY, Access::Read)]);
        let node = |acl: &Acl| Node::new(Arc::default(), Arc::clone(acl), 0);
        let mut tool = node(&private);
        tool.children_mut().push("xenstored".into(), Arc::new(node(&private)));
        let mut root = node(&private);
        root.children_mut().push("tool".into(), Arc::new(tool));
        Tree {
            root: Arc::new(root),
            introduce_domain: Arc::new(node(&private)),
            release_domain: Arc::new(node(&public)),
        }
    }

    fn special(&self, name: &str) -> Option<&Arc<Node>> {
        match name {
            INTRODUCE_DOMAIN => Some(&self.introduce_domain),
            RELEASE_DOMAIN => Some(&self.release_domain),
            _ => None,
        }
    }

    pub fn find(&self, path: Path<'_>) -> Found<'_> {
        if path.is_special() {
            return self.find_special(path);
        }
        let mut node = &self.root;
        let mut parent = None;
        let mut components = path.components();
        while let Some(name) = components.next() {
            match node.child(name) {
                Some(child) => {
                    parent = Some(node);
                    node = child;
                }
                None => return Found::Missing { nearest: node, missing: 1 + components.count() },
            }
        }
        Found::Node { node, parent }
    }

    fn find_special(&self, path: Path<'_>) -> Found<'_> {
        let depth = path.depth();
        let head = path.components().next().and_then(|name| self.special(name));
        match head {
            Some(node) if depth == 1 => Found::Node { node, parent: None },
            Some(nearest) => Found::Missing { nearest, missing: depth - 1 },
            None => Found::Missing { nearest: &self.root, missing: depth },
        }
    }

    pub fn get(&self, path: Path<'_>) -> Option<&Arc<Node>> {
        match self.find(path) {
            Found::Node { node, .. } => Some(node),
            Found::Missing { .. } => None,
        }
    }

    /// The node at a path for a change in place. Every ancestor gets `hint` added.
    pub fn get_mut(&mut self, path: Path<'_>, hint: u64) -> Option<&mut Node> {
        if path.is_special() {
            let node = match path.as_str() {
                INTRODUCE_DOMAIN => &mut self.introduce_domain,
                RELEASE_DOMAIN => &mut self.release_domain,
                _ => return None,
            };
            return Some(Arc::make_mut(node));
        }
        let mut node = Arc::make_mut(&mut self.root);
        node.domains_hint |= hint;
        for name in path.components() {
            node = Arc::make_mut(node.child_mut(name)?);
            node.domains_hint |= hint;
        }
        Some(node)
    }

    /// Creates the node at `path`, of which the last `missing` components do not exist, with the permissions
    /// `acl` for every new node and the value for the last.
    pub fn create(&mut self, path: Path<'_>, missing: usize, acl: &Acl, value: &[u8], generation: u64) {
        let hint = acl_hint(acl);
        let existing = path.depth() - missing;
        let mut components = path.components();
        let mut node = Arc::make_mut(&mut self.root);
        node.domains_hint |= hint;
        for name in components.by_ref().take(existing) {
            node = Arc::make_mut(node.child_mut(name).expect("found by the caller"));
            node.domains_hint |= hint;
        }
        node.generation = generation;
        let acl_generation = node.acl_generation.max(generation);
        let mut below: Option<Node> = None;
        let mut name_below = "";
        // From the last component up, so that no node has to be found again.
        for name in components.rev() {
            let value = if below.is_none() { Arc::from(value) } else { Arc::default() };
            let mut new = Node::new(value, Arc::clone(acl), generation);
            new.acl_generation = acl_generation;
            if let Some(below) = below.take() {
                new.children_mut().push(name_below.into(), Arc::new(below));
            }
            below = Some(new);
            name_below = name;
        }
        if let Some(top) = below {
            node.children_mut().push(name_below.into(), Arc::new(top));
        }
    }

    /// Takes the node at `path` out of its parent. `None` for the root or if there is none.
    pub fn remove(&mut self, path: Path<'_>, generation: u64) -> Option<Arc<Node>> {
        let parent = self.get_mut(path.parent()?, 0)?;
        let removed = parent.remove_child(path.leaf())?;
        parent.generation = generation;
        Some(removed)
    }

    /// Paths of the nodes whose permissions name a domain, in tree order; below a node that the domain owns
    /// the walk goes on only if `into_owned`. The root always stays.
    pub fn mentions(&self, domid: DomId, into_owned: bool) -> Vec<String> {
        let hint = domain_hint(domid);
        let mut found = Vec::new();
        let mut stack = vec![(String::from("/"), &self.root)];
        while let Some((path, node)) = stack.pop() {
            if node.domains_hint & hint == 0 {
                continue;
            }
            let goes = node.owner() == domid && !into_owned && path.len() > 1;
            let children = if goes { None } else { node.children() };
            for (name, child) in
                children.map(|children| children.ordered()).unwrap_or_default().into_iter().rev()
            {
                if child.domains_hint & hint != 0 {
                    let slash = if path.len() > 1 { "/" } else { "" };
                    stack.push((format!("{path}{slash}{name}"), child));
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

    /// Visits every node, special ones too, in no particular order.
    pub fn for_each<'a>(&'a self, mut visit: impl FnMut(&'a Node)) {
        let mut stack = vec![&self.root, &self.introduce_domain, &self.release_domain];
        while let Some(node) = stack.pop() {
            visit(node);
            if let Some(children) = node.children() {
                children.for_each_node(|_, child| stack.push(child));
            }
        }
    }
}

/// Visits a node and all below it, in no particular order.
pub(crate) fn for_each_below<'a>(top: &'a Arc<Node>, mut visit: impl FnMut(&'a Node)) {
    let mut stack = vec![top];
    while let Some(node) = stack.pop() {
        visit(node);
        if let Some(children) = node.children() {
            children.for_each_node(|_, child| stack.push(child));
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
        tree.create(path("/a/b/c"), 3, &acl(1), b"v", 7);
        let snapshot = tree.clone();
        tree.create(path("/a/d"), 1, &acl(2), b"", 8);
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
        assert!(tree.remove(path("/a/b"), 9).is_some());
        assert!(tree.remove(path("/a/b"), 9).is_none() && tree.remove(Path::ROOT, 9).is_none());
        assert!(tree.get(path("/a/b/c")).is_none() && snapshot.get(path("/a/b/c")).is_some());
    }

    #[test]
    fn mentions_are_in_tree_order() {
        let mut tree = Tree::new(DomId(0));
        tree.create(path("/z/own"), 2, &acl(5), b"", 1);
        let shared: Acl = Arc::new([grant(0, Access::None), grant(5, Access::Read)]);
        tree.create(path("/a"), 1, &shared, b"", 1);
        tree.create(path("/other"), 1, &acl(69), b"", 1);
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
