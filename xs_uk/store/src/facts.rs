//! What a node's own digest covers, and its encoding.

use sanity::Digest;
use sha2::{Digest as _, Sha256};

use crate::{
    frame::{Frame, Tally},
    node::{Grant, domain_hint},
    weight::{WEIGHT_BYTES, Weight},
};

/// Bytes that a node counts besides permissions, value and names of children.
const NODE_HEADER_BYTES: usize = 16;
/// Bytes that a permission entry counts.
const PERM_BYTES: usize = 8;
/// Version of the encoding that is digested.
const VERSION: u8 = 1;
/// Bytes in front of the parts of variable length: version, three lengths, two generations, the listing's weight.
const HEAD_BYTES: usize = 1 + 3 * 4 + 2 * 8 + WEIGHT_BYTES;
/// Bytes of a permission entry: domain id, access with the ignored mark in bit 7.
const GRANT_BYTES: usize = 3;
/// Encodings up to this length are put together before they are digested.
const SHORT_BYTES: usize = 256;

/// A node besides its path and the nodes below it.
#[derive(Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub value: &'a [u8],
    pub acl: &'a [Grant],
    pub generation: u64,
    pub acl_generation: u64,
    /// What the names of its children weigh.
    pub listing: Weight,
}

impl Facts<'_> {
    /// The bytes that the node counts for its owner.
    pub fn bytes(&self) -> usize {
        node_bytes(
            self.acl.len(),
            self.value.len(),
            usize::try_from(self.listing.bytes).unwrap_or(usize::MAX),
        )
    }

    /// What the node alone adds to the frames above it.
    pub fn frame(&self, own: Digest) -> Frame {
        Frame {
            sum: own.into(),
            tally: Tally::of(self.acl[0].perm.domid, self.bytes()),
            domains_hint: acl_hint(self.acl),
        }
    }

    /// The digest of the facts and the path.
    pub fn own(&self, path: &str) -> Digest {
        let length = HEAD_BYTES + path.len() + self.value.len() + GRANT_BYTES * self.acl.len();
        if length <= SHORT_BYTES {
            let mut bytes = [0; SHORT_BYTES];
            let mut rest = &mut bytes[..];
            self.encode(path, |part| {
                let (head, tail) = std::mem::take(&mut rest).split_at_mut(part.len());
                head.copy_from_slice(part);
                rest = tail;
            });
            return Digest(Sha256::digest(&bytes[..length]).into());
        }
        let mut hasher = Sha256::new();
        self.encode(path, |part| hasher.update(part));
        Digest(hasher.finalize().into())
    }

    /// The encoding: the lengths come first, so that no two states have the same.
    fn encode(&self, path: &str, mut put: impl FnMut(&[u8])) {
        let mut head = [0; HEAD_BYTES];
        head[0] = VERSION;
        for (slot, length) in
            head[1..13].as_chunks_mut::<4>().0.iter_mut().zip([path.len(), self.value.len(), self.acl.len()])
        {
            *slot = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
        }
        head[13..21].copy_from_slice(&self.generation.to_le_bytes());
        head[21..29].copy_from_slice(&self.acl_generation.to_le_bytes());
        head[29..].copy_from_slice(&self.listing.to_bytes());
        put(&head);
        put(path.as_bytes());
        put(self.value);
        for grant in self.acl {
            let [low, high] = grant.perm.domid.0.to_le_bytes();
            put(&[low, high, grant.perm.access as u8 | u8::from(grant.ignored) << 7]);
        }
    }
}

/// The bytes that a node with so many permissions, value bytes and bytes of names of children counts.
pub(crate) fn node_bytes(perms: usize, value: usize, listing: usize) -> usize {
    NODE_HEADER_BYTES + perms * PERM_BYTES + value + listing
}

/// The bits of [`Frame::domains_hint`] for permissions.
pub(crate) fn acl_hint(acl: &[Grant]) -> u64 {
    acl.iter().fold(0, |hint, grant| hint | domain_hint(grant.perm.domid))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use xs_protocol::{Access, DOMID_ANY};

    use super::*;
    use crate::node::tests::grant;

    #[test]
    fn short_and_long_encodings_are_digested_alike() {
        let acl = [grant(1, Access::Read), Grant { ignored: true, ..grant(DOMID_ANY.0, Access::Both) }];
        let value = [7; 300];
        for length in 0..value.len() {
            let listing = Weight::of("child", 4);
            let facts =
                Facts { value: &value[..length], acl: &acl, generation: 8, acl_generation: 5, listing };
            let mut bytes = Vec::new();
            facts.encode("/a/b", |part| bytes.extend_from_slice(part));
            assert_eq!(facts.own("/a/b"), Digest::of(&bytes));
        }
    }

    proptest! {
        #[test]
        fn every_part_counts(
            value in proptest::collection::vec(any::<u8>(), 0..9), generation: u64, acl_generation: u64, change in 0u8..9,
        ) {
            let acl = [grant(1, Access::Read), grant(2, Access::None)];
            let facts = Facts { value: &value, acl: &acl, generation, acl_generation, listing: Weight::default() };
            let own = facts.own("/a");
            let mut longer = value.clone();
            longer.push(b'b');
            let ignored = [acl[0], Grant { ignored: true, ..acl[1] }];
            let other = match change {
                0 => Facts { value: &longer, ..facts }.own("/a"),
                1 => facts.own("/ab"),
                2 => Facts { acl: &acl[..1], ..facts }.own("/a"),
                3 => Facts { acl: &ignored, ..facts }.own("/a"),
                4 => Facts { generation: generation ^ 1, ..facts }.own("/a"),
                5 => Facts { acl_generation: acl_generation ^ 1, ..facts }.own("/a"),
                6 => Facts { listing: Weight { sum: 1, ..facts.listing }, ..facts }.own("/a"),
                7 => Facts { listing: Weight { bytes: 1, ..facts.listing }, ..facts }.own("/a"),
                _ => Facts { listing: Weight { count: 1, ..facts.listing }, ..facts }.own("/a"),
            };
            prop_assert_ne!(own, other);
        }
    }
}
