//! Nodes of the tree and their permissions.

use std::{cell::RefCell, sync::Arc};

use xs_protocol::{Access, DOMID_ANY, DomId, Perm};

use crate::children::Children;

/// Bytes that a node counts besides permissions, value and names of children.
pub(crate) const NODE_HEADER_BYTES: usize = 16;
/// Bytes that a permission entry counts.
pub(crate) const PERM_BYTES: usize = 8;

/// A permission entry of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub perm: Perm,
    /// The entry is shown but has no effect: its domain did not exist, or might not use `DOMID_ANY`.
    pub ignored: bool,
}

/// A node's permissions; never empty. Children share what they inherit.
pub(crate) type Acl = Arc<[Grant]>;

/// Access bits besides [`Access`]: what an owner may do.
pub(crate) const OWNER_BIT: u8 = 4;
pub(crate) const READ_BIT: u8 = Access::Read as u8;
pub(crate) const WRITE_BIT: u8 = Access::Write as u8;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Actor {
    pub domid: DomId,
    pub privileged: bool,
    /// The log index since which the domain with this id is this domain. Older permissions grant it nothing (XSA-322, XSA-417).
    pub generation: u64,
    /// A domain whose rights it has too (SET_TARGET), with that domain's generation.
    pub target: Option<(DomId, u64)>,
    pub features: u32,
}

impl Actor {
    /// The access bits that permissions give, which were set at log index `acl_generation`.
    pub fn bits(&self, acl: &[Grant], acl_generation: u64) -> u8 {
        let (owner, others) = acl.split_first().expect("a node has an owner");
        if self.privileged || self.is(owner.perm.domid, acl_generation) {
            return READ_BIT | WRITE_BIT | OWNER_BIT;
        }
        let entry = others
            .iter()
            .find(|grant| {
                !grant.ignored && (grant.perm.domid == DOMID_ANY || self.is(grant.perm.domid, acl_generation))
            })
            .unwrap_or(owner);
        entry.perm.access as u8
    }

    fn is(&self, domid: DomId, acl_generation: u64) -> bool {
        (domid == self.domid && self.generation <= acl_generation)
            || self.target.is_some_and(|(target, since)| domid == target && since <= acl_generation)
    }
}

/// A node: value, permissions and children.
#[derive(Clone)]
pub(crate) struct Node {
    pub value: Arc<[u8]>,
    pub acl: Acl,
    /// Log index of the last change of value, permissions or list of children. Changes of a transaction keep the
    /// index of their request, so it may go down; but no two states of a node ever have the same.
    pub generation: u64,
    /// Log index at which the permissions were set or inherited.
    pub acl_generation: u64,
    /// Includes bit `domid % 64` for every domain in the permissions of this node or one below.
    pub domains_hint: u64,
    children: Option<Box<Children>>,
}

impl Node {
    pub fn new(value: Arc<[u8]>, acl: Acl, generation: u64) -> Node {
        let domains_hint = acl_hint(&acl);
        Node { value, acl, generation, acl_generation: generation, domains_hint, children: None }
    }

    pub fn owner(&self) -> DomId {
        self.acl[0].perm.domid
    }

    pub fn children(&self) -> Option<&Children> {
        self.children.as_deref()
    }

    pub fn children_mut(&mut self) -> &mut Children {
        self.children.get_or_insert_with(|| Box::new(Children::new()))
    }

    pub fn child(&self, name: &str) -> Option<&Arc<Node>> {
        self.children.as_ref()?.get(name)
    }

    pub fn child_mut(&mut self, name: &str) -> Option<&mut Arc<Node>> {
        self.children.as_mut()?.get_mut(name)
    }

    pub fn remove_child(&mut self, name: &str) -> Option<Arc<Node>> {
        let children = self.children.as_mut()?;
        let child = children.remove(name);
        if children.len() == 0 {
            self.children = None;
        }
        child
    }

    pub fn listing_bytes(&self) -> usize {
        self.children().map_or(0, Children::listing_bytes)
    }

    /// The bytes that the node counts for its owner.
    pub fn bytes(&self) -> usize {
        node_bytes(self.acl.len(), self.value.len(), self.listing_bytes())
    }

    pub fn take_children(&mut self) -> Option<Children> {
        self.children.take().map(|children| *children)
    }
}

/// The bytes that a node with so many permissions, value bytes and bytes of names of children counts.
pub(crate) fn node_bytes(perms: usize, value: usize, listing: usize) -> usize {
    NODE_HEADER_BYTES + perms * PERM_BYTES + value + listing
}

/// The bits of [`Node::domains_hint`] for permissions.
pub(crate) fn acl_hint(acl: &[Grant]) -> u64 {
    acl.iter().fold(0, |hint, grant| hint | domain_hint(grant.perm.domid))
}

/// The bit of [`Node::domains_hint`] for a domain.
pub(crate) fn domain_hint(domid: DomId) -> u64 {
    1 << (domid.0 % 64)
}

thread_local! {
    /// Children of nodes that are being dropped; `None` while no drop is under way.
    static DROPPING: RefCell<Option<Vec<Children>>> = const { RefCell::new(None) };
}

impl Drop for Node {
    /// Drops what is below without recursion, however deep it is (XSA-418).
    fn drop(&mut self) {
        let Some(children) = self.children.take() else { return };
        let outermost = DROPPING.with_borrow_mut(|pending| match pending {
            Some(list) => {
                list.push(*children);
                None
            }
            None => {
                *pending = Some(Vec::new());
                Some(*children)
            }
        });
        let mut next = outermost;
        if next.is_none() {
            return;
        }
        while let Some(children) = next {
            drop(children);
            next = DROPPING.with_borrow_mut(|pending| pending.as_mut().and_then(Vec::pop));
        }
        DROPPING.with_borrow_mut(|pending| *pending = None);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub fn grant(domid: u16, access: Access) -> Grant {
        Grant { perm: Perm { domid: DomId(domid), access }, ignored: false }
    }

    pub fn leaf() -> Arc<Node> {
        Arc::new(Node::new(Arc::default(), Arc::new([grant(0, Access::None)]), 1))
    }

    fn guest(domid: u16, generation: u64) -> Actor {
        Actor { domid: DomId(domid), privileged: false, generation, target: None, features: 0 }
    }

    #[test]
    fn permissions() {
        let acl = [grant(1, Access::Read), grant(2, Access::Both), grant(2, Access::None)];
        assert_eq!(guest(1, 5).bits(&acl, 5), READ_BIT | WRITE_BIT | OWNER_BIT);
        assert_eq!(guest(2, 5).bits(&acl, 5), READ_BIT | WRITE_BIT);
        assert_eq!(guest(3, 5).bits(&acl, 5), READ_BIT);
        assert_eq!(guest(1, 6).bits(&acl, 5), READ_BIT, "younger than the node");
        assert_eq!(guest(2, 6).bits(&acl, 5), READ_BIT, "younger than the node");
        let heir = Actor { target: Some((DomId(1), 3)), ..guest(9, 5) };
        assert_eq!(heir.bits(&acl, 5), READ_BIT | WRITE_BIT | OWNER_BIT);
        let any = [grant(0, Access::None), grant(DOMID_ANY.0, Access::Write)];
        assert_eq!(guest(9, 9).bits(&any, 1), WRITE_BIT);
        let mut ignored = any;
        ignored[1].ignored = true;
        assert_eq!(guest(9, 9).bits(&ignored, 1), 0);
    }

    #[test]
    fn a_deep_and_wide_tree_drops_without_recursion() {
        let handle = std::thread::Builder::new().stack_size(64 << 10).spawn(|| {
            let mut node = leaf();
            for _ in 0..20_000 {
                let mut parent = Node::clone(&leaf());
                for sibling in 0..17 {
                    parent.children_mut().push(format!("s{sibling}").as_str().into(), leaf());
                }
                parent.children_mut().push("down".into(), node);
                node = Arc::new(parent);
            }
            drop(node);
        });
        handle.unwrap().join().unwrap();
    }
}
