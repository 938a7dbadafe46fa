//! A node's children: found by name, listed in the order of their creation, cheap to copy.

use std::sync::Arc;

use imbl::{OrdMap, ordmap::ConsumingIter, shared_ptr::DefaultSharedPtr};

use crate::{limits::SMALL_DIRECTORY_MAX, node::Node};

/// Names of a large directory are kept in buckets of this many consecutive creation numbers.
const BUCKET: u64 = 64;

/// The children of a node. Few are a plain list; many are in a map by name and, for the order, in buckets
/// that know their length in bytes, so that a byte offset into the listing is found without walking it.
#[derive(Clone)]
pub(crate) struct Children {
    form: Form,
    /// Bytes of all names, each with a nul: the length of the listing.
    listing_bytes: usize,
}

#[derive(Clone)]
enum Form {
    Small(Vec<Child>),
    Large(Large),
}

#[derive(Clone)]
pub(crate) struct Child {
    name: Arc<str>,
    node: Arc<Node>,
}

#[derive(Clone, Default)]
struct Large {
    by_name: OrdMap<Arc<str>, Slot>,
    buckets: OrdMap<u64, Bucket>,
    next_number: u64,
}

#[derive(Clone)]
pub(crate) struct Slot {
    number: u64,
    node: Arc<Node>,
}

#[derive(Clone, Default)]
pub(crate) struct Bucket {
    listing_bytes: usize,
    names: Vec<(u64, Arc<str>)>,
}

impl Children {
    pub fn new() -> Children {
        Children { form: Form::Small(Vec::new()), listing_bytes: 0 }
    }

    pub fn len(&self) -> usize {
        match &self.form {
            Form::Small(list) => list.len(),
            Form::Large(large) => large.by_name.len(),
        }
    }

    pub fn listing_bytes(&self) -> usize {
        self.listing_bytes
    }

    pub fn get(&self, name: &str) -> Option<&Arc<Node>> {
        match &self.form {
            Form::Small(list) => list.iter().find(|child| *child.name == *name).map(|child| &child.node),
            Form::Large(large) => large.by_name.get(name).map(|slot| &slot.node),
        }
    }

    pub fn get_mut(&mut self, name: &str) -> Option<&mut Arc<Node>> {
        match &mut self.form {
            Form::Small(list) => {
                list.iter_mut().find(|child| *child.name == *name).map(|child| &mut child.node)
            }
            Form::Large(large) => large.by_name.get_mut(name).map(|slot| &mut slot.node),
        }
    }

    /// A number that orders this child among its siblings by creation.
    pub fn creation_number(&self, name: &str) -> Option<u64> {
        match &self.form {
            Form::Small(list) => list.iter().position(|child| *child.name == *name).map(|at| at as u64),
            Form::Large(large) => large.by_name.get(name).map(|slot| slot.number),
        }
    }

    /// Adds a child behind all others. There must be none of that name.
    pub fn push(&mut self, name: Arc<str>, node: Arc<Node>) {
        self.listing_bytes += name.len() + 1;
        match &mut self.form {
            Form::Small(list) if list.len() < SMALL_DIRECTORY_MAX => list.push(Child { name, node }),
            Form::Small(list) => {
                let mut large = Large::default();
                for child in std::mem::take(list) {
                    large.push(child.name, child.node);
                }
                large.push(name, node);
                self.form = Form::Large(large);
            }
            Form::Large(large) => large.push(name, node),
        }
    }

    pub fn remove(&mut self, name: &str) -> Option<Arc<Node>> {
        let node = match &mut self.form {
            Form::Small(list) => {
                let at = list.iter().position(|child| *child.name == *name)?;
                list.remove(at).node
            }
            Form::Large(large) => large.remove(name)?,
        };
        self.listing_bytes -= name.len() + 1;
        Some(node)
    }

    /// Names in the order of creation.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        let (small, large) = match &self.form {
            Form::Small(list) => (Some(list.iter().map(|child| &child.name)), None),
            Form::Large(large) => (None, Some(large.names())),
        };
        small.into_iter().flatten().chain(large.into_iter().flatten())
    }

    /// Children in the order of creation. Use [`Children::for_each_node`] where the order does not matter.
    pub fn ordered(&self) -> Vec<(&Arc<str>, &Arc<Node>)> {
        match &self.form {
            Form::Small(list) => list.iter().map(|child| (&child.name, &child.node)).collect(),
            Form::Large(large) => large
                .names()
                .filter_map(|name| large.by_name.get(name).map(|slot| (name, &slot.node)))
                .collect(),
        }
    }

    /// Visits the children in no particular order.
    pub fn for_each_node<'a>(&'a self, mut visit: impl FnMut(&'a Arc<str>, &'a Arc<Node>)) {
        match &self.form {
            Form::Small(list) => list.iter().for_each(|child| visit(&child.name, &child.node)),
            Form::Large(large) => large.by_name.iter().for_each(|(name, slot)| visit(name, &slot.node)),
        }
    }

    /// The children one by one, in no particular order, each let go when it is taken.
    pub fn into_leftovers(self) -> Leftovers {
        match self.form {
            Form::Small(list) => Leftovers::Small(list.into_iter()),
            Form::Large(large) => Leftovers::Large(large.by_name.into_iter(), large.buckets.into_iter()),
        }
    }

    /// Appends the part of the listing that starts at byte `offset`: whole names with their nuls, below
    /// `max_bytes`. An offset inside a name gives the rest of that name first. Returns the bytes appended.
    pub fn listing_part(&self, offset: usize, max_bytes: usize, out: &mut Vec<u8>) -> usize {
        let start = out.len();
        let mut put = |skip: usize, name: &str| {
            let rest = &name.as_bytes()[skip..];
            if out.len() - start + rest.len() >= max_bytes {
                return false;
            }
            out.extend_from_slice(rest);
            out.push(0);
            true
        };
        match &self.form {
            Form::Small(list) => {
                let names = list.iter().map(|child| &*child.name);
                list_names(names, offset, &mut put);
            }
            Form::Large(large) => {
                let (key, skipped) = large.bucket_at(offset);
                let names = large.buckets.range(key..).flat_map(|(_, bucket)| &bucket.names);
                list_names(names.map(|(_, name)| &**name), offset - skipped, &mut put);
            }
        }
        out.len() - start
    }
}

/// What is left of the children of a removed node.
pub(crate) enum Leftovers {
    Small(std::vec::IntoIter<Child>),
    Large(ConsumingIter<Arc<str>, Slot, DefaultSharedPtr>, ConsumingIter<u64, Bucket, DefaultSharedPtr>),
}

impl Leftovers {
    pub fn next(&mut self) -> Option<Arc<Node>> {
        match self {
            Leftovers::Small(list) => list.next().map(|child| child.node),
            Leftovers::Large(by_name, buckets) => {
                buckets.next();
                by_name.next().map(|(_, slot)| slot.node)
            }
        }
    }
}

/// Gives `put` the names from a byte offset into their listing on, until it refuses one.
fn list_names<'a>(
    names: impl Iterator<Item = &'a str>,
    offset: usize,
    put: &mut impl FnMut(usize, &str) -> bool,
) {
    let mut before = 0;
    for name in names {
        let end = before + name.len() + 1;
        if end > offset && !put(offset.saturating_sub(before), name) {
            return;
        }
        before = end;
    }
}

impl Large {
    fn push(&mut self, name: Arc<str>, node: Arc<Node>) {
        let number = self.next_number;
        self.next_number += 1;
        let bucket = self.buckets.entry(number / BUCKET).or_default();
        bucket.listing_bytes += name.len() + 1;
        bucket.names.push((number, Arc::clone(&name)));
        self.by_name.insert(name, Slot { number, node });
    }

    fn remove(&mut self, name: &str) -> Option<Arc<Node>> {
        let slot = self.by_name.remove(name)?;
        let key = slot.number / BUCKET;
        if let Some(bucket) = self.buckets.get_mut(&key) {
            bucket.names.retain(|(number, _)| *number != slot.number);
            bucket.listing_bytes -= name.len() + 1;
            if bucket.names.is_empty() {
                self.buckets.remove(&key);
            }
        }
        Some(slot.node)
    }

    fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.buckets.iter().flat_map(|(_, bucket)| bucket.names.iter().map(|(_, name)| name))
    }

    /// The bucket that holds the byte `offset` of the listing, and the bytes in front of that bucket.
    fn bucket_at(&self, offset: usize) -> (u64, usize) {
        let mut before = 0;
        for (key, bucket) in &self.buckets {
            if before + bucket.listing_bytes > offset {
                return (*key, before);
            }
            before += bucket.listing_bytes;
        }
        (u64::MAX, before.min(offset))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::node::tests::leaf;

    fn listing(children: &Children) -> Vec<u8> {
        let mut out = Vec::new();
        for name in children.names() {
            out.extend_from_slice(name.as_bytes());
            out.push(0);
        }
        out
    }

    proptest! {
        #[test]
        fn behaves_as_a_list(ops in proptest::collection::vec((any::<bool>(), 0u16..200), 0..400)) {
            let mut children = Children::new();
            let mut model: Vec<String> = Vec::new();
            for (add, number) in ops {
                let name = format!("n{number}");
                let present = model.contains(&name);
                prop_assert_eq!(children.get(&name).is_some(), present);
                if add && !present {
                    children.push(name.as_str().into(), leaf());
                    model.push(name);
                } else if !add {
                    prop_assert_eq!(children.remove(&name).is_some(), present);
                    model.retain(|other| *other != name);
                }
            }
            let names: Vec<String> = children.names().map(|name| name.to_string()).collect();
            prop_assert_eq!(&names, &model);
            let ordered: Vec<String> = children.ordered().iter().map(|(name, _)| name.to_string()).collect();
            prop_assert_eq!(&ordered, &model);
            prop_assert_eq!(children.len(), model.len());
            let all = listing(&children);
            prop_assert_eq!(children.listing_bytes(), all.len());
            for offset in (0..all.len()).step_by(7) {
                let mut part = Vec::new();
                let bytes = children.listing_part(offset, 50, &mut part);
                prop_assert_eq!(bytes, part.len());
                prop_assert_eq!(&part[..], &all[offset..offset + bytes]);
            }
        }
    }

    #[test]
    fn a_wide_directory_is_read_in_parts() {
        let mut children = Children::new();
        for number in 0..30_000 {
            children.push(format!("child{number}").as_str().into(), leaf());
        }
        let all = listing(&children);
        let mut read = Vec::new();
        while read.len() < all.len() {
            let offset = read.len();
            assert!(children.listing_part(offset, 4000, &mut read) > 0);
        }
        assert_eq!(read, all);
        for number in (0..30_000).rev() {
            assert!(children.remove(&format!("child{number}")).is_some());
        }
        assert_eq!((children.len(), children.listing_bytes()), (0, 0));
    }
}
