//! Nodes of the tree and their permissions.

use std::{cell::RefCell, sync::Arc};

use sanity::Digest;
use xs_protocol::{Access, DOMID_ANY, DomId, Perm};

use crate::{
    children::{Child, Children},
    damage::{Damage, Part},
    facts::Facts,
    frame::Frame,
    radix::Broken,
    weight::Weight,
};

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
    /// The digest of [`Facts::own`].
    pub own: Digest,
    /// The sums over this node and all below it.
    pub frame: Frame,
    /// The frame's checksum.
    pub seal: u64,
    children: Option<Box<Children>>,
}

impl Node {
    /// A node without children, to be sealed when they are there.
    pub fn new(value: Arc<[u8]>, acl: Acl, generation: u64) -> Node {
        Node {
            value,
            acl,
            generation,
            acl_generation: generation,
            own: Digest::ZERO,
            frame: Frame::default(),
            seal: 0,
            children: None,
        }
    }

    /// Computes all digests and sums from what is there. Those of the children must be right.
    pub fn seal(&mut self, path: &str) {
        let facts = self.facts();
        let own = facts.own(path);
        let mut frame = facts.frame(own);
        if let Some(children) = self.children() {
            children.for_each_node(|_, child| frame.add(&child.frame));
        }
        (self.own, self.frame, self.seal) = (own, frame, frame.seal());
    }

    /// What its digest covers, besides its path.
    pub fn facts(&self) -> Facts<'_> {
        Facts {
            value: &self.value,
            acl: &self.acl,
            generation: self.generation,
            acl_generation: self.acl_generation,
            listing: self.listing(),
        }
    }

    /// Whether value, permissions, generations, listing and path fit the digest.
    pub fn verify(&self, path: &str) -> Result<(), Damage> {
        if self.facts().own(path) == self.own { Ok(()) } else { Err(Damage::new(path, Part::Node)) }
    }

    /// Whether the sums fit their checksum.
    pub fn verify_seal(&self, path: &str) -> Result<(), Damage> {
        if self.frame.seal() == self.seal { Ok(()) } else { Err(Damage::new(path, Part::Sum)) }
    }

    /// The child of a name, or that there is none; either is sure, if the node was verified.
    pub fn verified_child(&self, path: &str, name: &str) -> Result<Option<&Child>, Damage> {
        let child = self.children().map_or(Ok(None), |children| children.verified(name));
        child.map_err(|Broken| Damage::new(path, Part::Listing))
    }

    /// What changes here and in every ancestor when the node gets other facts.
    pub fn rewrite(&self, path: &str, facts: &Facts<'_>) -> Rewrite {
        let own = facts.own(path);
        let mut shift = facts.frame(own);
        shift.sub(&self.facts().frame(self.own));
        Rewrite { own, shift }
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

    /// What its children's names weigh.
    pub fn listing(&self) -> Weight {
        self.children().map_or_else(Weight::default, Children::weight)
    }

    pub fn listing_bytes(&self) -> usize {
        usize::try_from(self.listing().bytes).unwrap_or(usize::MAX)
    }

    /// The bytes that the node counts for its owner.
    pub fn bytes(&self) -> usize {
        self.facts().bytes()
    }

    pub fn take_children(&mut self) -> Option<Children> {
        self.children.take().map(|children| *children)
    }
}

/// A change of a node, computed before it is made.
pub(crate) struct Rewrite {
    /// The node's digest after it.
    pub own: Digest,
    /// What is added to the frames of the node and of all its ancestors.
    pub shift: Frame,
}

/// The bit of [`Frame::domains_hint`] for a domain.
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
