//! Putting a damaged node right from another replica's copy.

use std::sync::Arc;

use sanity::{
    Digest,
    vote::{Claim, Claims},
};
use xs_protocol::{Access, DomId, Path, Perm};

use crate::{
    Damage, Part, Store, StoreError,
    facts::Facts,
    frame::Frame,
    limits::{COPY_GRANTS_MAX, COPY_VALUE_BYTES_MAX},
    node::{Grant, Node},
    tree::{Found, Tree, join},
    weight::{WEIGHT_BYTES, Weight},
};

const VERSION: u8 = 1;
const MISSING: u8 = 0;
const DAMAGED: u8 = 1;
const NODE: u8 = 2;
/// Bytes of a permission entry: domain id, access with the ignored mark in bit 7.
const GRANT_BYTES: usize = 3;

/// What a replica has at a path, verified and self-contained.
///
/// Layout, version 1, numbers little-endian: version `u8`, kind `u8` (0 missing, 1 damaged, 2 a node); of a node its
/// digest, the two generations `u64`, the listing's weight (32 bytes), the number of permission entries `u16`, the
/// entries (domain id `u16`, access `u8` with the ignored mark in bit 7), and the value to the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCopy(Content);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Missing,
    Damaged,
    Node(Box<Saved>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Saved {
    own: Digest,
    generation: u64,
    acl_generation: u64,
    listing: Weight,
    acl: Vec<Grant>,
    value: Vec<u8>,
}

impl Saved {
    fn facts(&self) -> Facts<'_> {
        Facts {
            value: &self.value,
            acl: &self.acl,
            generation: self.generation,
            acl_generation: self.acl_generation,
            listing: self.listing,
        }
    }
}

impl NodeCopy {
    /// What the copy says in a vote.
    pub fn claim(&self) -> Claim {
        match &self.0 {
            Content::Missing => Claim::Missing,
            Content::Damaged => Claim::Damaged,
            Content::Node(saved) => Claim::Digest(saved.own),
        }
    }

    /// The copy's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let saved = match &self.0 {
            Content::Missing => return vec![VERSION, MISSING],
            Content::Damaged => return vec![VERSION, DAMAGED],
            Content::Node(saved) => saved,
        };
        let mut bytes = vec![VERSION, NODE];
        bytes.extend_from_slice(&saved.own.0);
        bytes.extend_from_slice(&saved.generation.to_le_bytes());
        bytes.extend_from_slice(&saved.acl_generation.to_le_bytes());
        bytes.extend_from_slice(&saved.listing.to_bytes());
        bytes.extend_from_slice(&u16::try_from(saved.acl.len()).unwrap_or(u16::MAX).to_le_bytes());
        for grant in &saved.acl {
            bytes.extend_from_slice(&grant.perm.domid.0.to_le_bytes());
            bytes.push(grant.perm.access as u8 | u8::from(grant.ignored) << 7);
        }
        bytes.extend_from_slice(&saved.value);
        bytes
    }

    /// Reads a copy that fills `bytes`.
    ///
    /// # Errors
    /// If the bytes are malformed, of another version, or over the bounds.
    pub fn decode(bytes: &[u8]) -> Result<NodeCopy, StoreError> {
        Self::parse(bytes).map_err(|what| StoreError::MalformedCopy { bytes: bytes.len(), what })
    }

    fn parse(bytes: &[u8]) -> Result<NodeCopy, &'static str> {
        let mut rest = bytes;
        let [version, kind] = array(&mut rest)?;
        match (version, kind) {
            (VERSION, MISSING) if rest.is_empty() => return Ok(NodeCopy(Content::Missing)),
            (VERSION, DAMAGED) if rest.is_empty() => return Ok(NodeCopy(Content::Damaged)),
            (VERSION, NODE) => {}
            _ => return Err("version or kind"),
        }
        let own = Digest(array(&mut rest)?);
        let generation = u64::from_le_bytes(array(&mut rest)?);
        let acl_generation = u64::from_le_bytes(array(&mut rest)?);
        let listing = Weight::from_bytes(&array::<WEIGHT_BYTES>(&mut rest)?);
        let grants = usize::from(u16::from_le_bytes(array(&mut rest)?));
        if grants == 0 || grants > COPY_GRANTS_MAX {
            return Err("number of permission entries");
        }
        let acl = (0..grants).map(|_| grant(array(&mut rest)?)).collect::<Result<_, _>>()?;
        if rest.len() > COPY_VALUE_BYTES_MAX {
            return Err("value");
        }
        let saved = Saved { own, generation, acl_generation, listing, acl, value: rest.to_vec() };
        Ok(NodeCopy(Content::Node(Box::new(saved))))
    }
}

fn array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], &'static str> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or("length")?;
    *rest = tail;
    Ok(*head)
}

fn grant([low, high, bits]: [u8; GRANT_BYTES]) -> Result<Grant, &'static str> {
    let access = Access::from_bits(bits & 0x7f).ok_or("access")?;
    let perm = Perm { domid: DomId(u16::from_le_bytes([low, high])), access };
    Ok(Grant { perm, ignored: bits & 0x80 != 0 })
}

impl Store {
    /// What this replica says of the node at a path, for a vote: the digest it has stored, and the one that follows from
    /// what is there. A path that is none, and a node that cannot be found for sure, is [`Claim::Damaged`].
    pub fn claims(&self, path: &str) -> Claims {
        let Ok(path) = Path::parse(path.as_bytes()) else { return Claim::Damaged.into() };
        match self.tree.find(path) {
            Found::Missing { .. } if self.tree.look(path).is_ok() => Claim::Missing.into(),
            Found::Missing { .. } => Claim::Damaged.into(),
            Found::Node { node, .. } => {
                let listed = node.children().is_none_or(|children| children.verify().is_ok());
                let own = Claim::Digest(node.facts().own(path.as_str()));
                Claims {
                    stored: Claim::Digest(node.own),
                    recomputed: if listed { own } else { Claim::Damaged },
                }
            }
        }
    }

    /// A verified copy of what this replica has at a path.
    pub fn copy_of(&self, path: &str) -> NodeCopy {
        let found = Path::parse(path.as_bytes()).ok().and_then(|path| self.tree.look(path).ok());
        NodeCopy(match found {
            Some(Found::Missing { .. }) => Content::Missing,
            Some(Found::Node { node, .. })
                if node.children().is_none_or(|children| children.verify().is_ok()) =>
            {
                Content::Node(Box::new(Saved {
                    own: node.own,
                    generation: node.generation,
                    acl_generation: node.acl_generation,
                    listing: node.listing(),
                    acl: node.acl.to_vec(),
                    value: node.value.to_vec(),
                }))
            }
            _ => Content::Damaged,
        })
    }

    /// Puts value, permissions, generations and digest of the node at a path right from a copy, which must be the
    /// majority's; in open transactions too that see the same node.
    ///
    /// # Errors
    /// [`StoreError::Unmendable`] if the copy does not fit the path, or more is damaged than a copy can put right: the
    /// node's place, its listing or the sums. Then nothing has changed.
    pub fn mend(&mut self, path: &str, copy: &NodeCopy) -> Result<(), StoreError> {
        let unmendable = |what| StoreError::Unmendable { path: path.to_owned(), what };
        let Content::Node(saved) = &copy.0 else { return Err(unmendable("the copy is of no node")) };
        let at = Path::parse(path.as_bytes()).map_err(|_| unmendable("no path"))?;
        if saved.facts().own(path) != saved.own {
            return Err(unmendable("the copy does not fit its digest and path"));
        }
        let damaged = self.tree.get(at).cloned().ok_or_else(|| unmendable("there is no such node"))?;
        check_around(&damaged, saved).map_err(unmendable)?;
        let transactions = self.conns.values_mut().flat_map(|conn| conn.transactions.values_mut());
        let trees = transactions.map(|transaction| &mut transaction.tree).chain([&mut self.tree]);
        for tree in trees {
            if tree.get(at).is_some_and(|node| Arc::ptr_eq(node, &damaged))
                && let Some(node) = node_mut(tree, at)
            {
                (node.own, node.generation, node.acl_generation) =
                    (saved.own, saved.generation, saved.acl_generation);
                node.value = Arc::from(&saved.value[..]);
                node.acl = Arc::from(&saved.acl[..]);
            }
        }
        self.tree.look(at).map(drop).map_err(|_| unmendable("it does not fit afterwards"))
    }
}

/// Whether all that a copy cannot put right fits it.
fn check_around(node: &Node, saved: &Saved) -> Result<(), &'static str> {
    if node.listing() != saved.listing {
        return Err("the listing is another");
    }
    if node.children().is_some_and(|children| children.verify().is_err()) {
        return Err("the listing is damaged");
    }
    if node.frame.seal() != node.seal || sums_below(node, saved.own, &saved.facts()) != node.frame {
        return Err("the sums are damaged, or are another node's");
    }
    Ok(())
}

/// What the sums over a node with these facts and over its children are to be, but for hints that nothing has any more.
fn sums_below(node: &Node, own: Digest, facts: &Facts<'_>) -> Frame {
    let mut frame = facts.frame(own);
    if let Some(children) = node.children() {
        children.for_each_node(|_, child| frame.add(&child.frame));
    }
    frame.domains_hint |= node.frame.domains_hint;
    frame
}

/// Whether the sums over a node fit it and its children.
pub(crate) fn verify_sums(node: &Node, path: &str) -> Result<(), Damage> {
    node.verify_seal(path)?;
    let mut frame = node.facts().frame(node.own);
    let mut sealed = Ok(());
    if let Some(children) = node.children() {
        children.for_each_node(|name, child| {
            if child.frame.seal() != child.seal && sealed.is_ok() {
                sealed = Err(Damage::new(&join(path, name), Part::Sum));
            }
            frame.add(&child.frame);
        });
    }
    sealed?;
    let covered = frame.domains_hint & !node.frame.domains_hint == 0;
    let fits = frame.sum == node.frame.sum && frame.tally == node.frame.tally && covered;
    if fits { Ok(()) } else { Err(Damage::new(path, Part::Sum)) }
}

/// The node at a path, for a change that no sum is to notice.
pub(crate) fn node_mut<'t>(tree: &'t mut Tree, path: Path<'_>) -> Option<&'t mut Node> {
    if path.is_special() {
        return tree.special_mut(path.as_str()).map(Arc::make_mut);
    }
    let mut node = &mut tree.root;
    for name in path.components() {
        node = Arc::make_mut(node).child_mut(name)?;
    }
    Some(Arc::make_mut(node))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_safe(mut bytes in proptest::collection::vec(any::<u8>(), 0..120), node: bool) {
            if let (true, [version, kind, ..]) = (node, &mut bytes[..]) {
                (*version, *kind) = (VERSION, NODE);
            }
            if let Ok(copy) = NodeCopy::decode(&bytes) {
                prop_assert_eq!(copy.encode(), bytes);
            }
        }
    }

    #[test]
    fn copies_are_bounded() {
        let saved = |grants: usize, bytes: usize| {
            let perm = Perm { domid: DomId(1), access: Access::Both };
            let acl = vec![Grant { perm, ignored: true }; grants];
            let listing = Weight::of("a", 1);
            let value = vec![0; bytes];
            let saved = Saved { own: Digest::of(b""), generation: 7, acl_generation: 5, listing, acl, value };
            NodeCopy(Content::Node(Box::new(saved)))
        };
        let largest = saved(COPY_GRANTS_MAX, COPY_VALUE_BYTES_MAX);
        assert_eq!(NodeCopy::decode(&largest.encode()), Ok(largest.clone()));
        assert!(largest.encode().len() <= crate::limits::COPY_BYTES_MAX);
        for over in [saved(COPY_GRANTS_MAX + 1, 0), saved(1, COPY_VALUE_BYTES_MAX + 1), saved(0, 0)] {
            assert!(matches!(NodeCopy::decode(&over.encode()), Err(StoreError::MalformedCopy { .. })));
        }
    }
}
