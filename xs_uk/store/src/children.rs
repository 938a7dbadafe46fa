//! A node's children: found by name, listed in the order of their creation, cheap to copy.

use std::sync::Arc;

use crate::{
    limits::SMALL_DIRECTORY_MAX,
    node::Node,
    radix::{self, Broken, Entry, Radix},
    weight::{Weight, name_key},
};

/// The children of a node. Few are a plain list; many are in two radix trees, by name and, for the order, by
/// creation number, so that a byte offset into the listing is found without walking it.
#[derive(Clone)]
pub(crate) struct Children {
    form: Form,
    weight: Weight,
}

#[derive(Clone)]
enum Form {
    Small(Vec<Child>),
    Large(Large),
}

#[derive(Clone)]
pub(crate) struct Child {
    pub name: Arc<str>,
    /// Orders siblings by their creation: higher than those of all siblings at that time.
    pub number: u64,
    pub node: Arc<Node>,
}

impl Child {
    fn weight(&self) -> Weight {
        Weight::of(&self.name, self.number)
    }
}

/// A child in a large directory.
#[derive(Clone)]
pub(crate) struct ByName {
    key: u64,
    child: Child,
}

impl Entry for ByName {
    fn key(&self) -> u64 {
        self.key
    }

    fn weight(&self) -> Weight {
        self.child.weight()
    }

    fn bytes(&self) -> u64 {
        self.child.name.len() as u64 + 1
    }
}

/// A name in a large directory.
#[derive(Clone)]
pub(crate) struct ByNumber {
    number: u64,
    name: Arc<str>,
}

impl Entry for ByNumber {
    fn key(&self) -> u64 {
        self.number
    }

    fn weight(&self) -> Weight {
        Weight::of(&self.name, self.number)
    }

    fn bytes(&self) -> u64 {
        self.name.len() as u64 + 1
    }
}

#[derive(Clone, Default)]
struct Large {
    by_name: Radix<ByName>,
    by_number: Radix<ByNumber>,
}

impl Children {
    pub fn new() -> Children {
        Children { form: Form::Small(Vec::new()), weight: Weight::default() }
    }

    pub fn len(&self) -> usize {
        match &self.form {
            Form::Small(list) => list.len(),
            Form::Large(_) => usize::try_from(self.weight.count).unwrap_or(usize::MAX),
        }
    }

    /// What all children weigh; part of what the node's digest covers.
    pub fn weight(&self) -> Weight {
        self.weight
    }

    pub fn child(&self, name: &str) -> Option<&Child> {
        match &self.form {
            Form::Small(list) => list.iter().find(|child| *child.name == *name),
            Form::Large(large) => large
                .by_name
                .get(name_key(name), |entry| *entry.child.name == *name)
                .map(|entry| &entry.child),
        }
    }

    pub fn get(&self, name: &str) -> Option<&Arc<Node>> {
        self.child(name).map(|child| &child.node)
    }

    pub fn get_mut(&mut self, name: &str) -> Option<&mut Arc<Node>> {
        match &mut self.form {
            Form::Small(list) => {
                list.iter_mut().find(|child| *child.name == *name).map(|child| &mut child.node)
            }
            Form::Large(large) => large
                .by_name
                .get_mut(name_key(name), |entry| *entry.child.name == *name)
                .map(|entry| &mut entry.child.node),
        }
    }

    /// The child of a name, or that there is none; either verified against the weight of all.
    pub fn verified(&self, name: &str) -> Result<Option<&Child>, Broken> {
        match &self.form {
            Form::Small(list) => {
                self.verify_small(list)?;
                Ok(list.iter().find(|child| *child.name == *name))
            }
            Form::Large(large) if large.by_name.weight() == self.weight => {
                let leaf = large.by_name.verified(name_key(name))?;
                Ok(leaf.iter().map(|entry| &entry.child).find(|child| *child.name == *name))
            }
            Form::Large(_) => Err(Broken),
        }
    }

    fn verify_small(&self, list: &[Child]) -> Result<(), Broken> {
        let fits = list.iter().map(Child::weight).sum::<Weight>() == self.weight
            && list.is_sorted_by(|one, two| one.number < two.number);
        if fits { Ok(()) } else { Err(Broken) }
    }

    /// Verifies names, numbers and both orders.
    pub fn verify(&self) -> Result<(), Broken> {
        match &self.form {
            Form::Small(list) => self.verify_small(list),
            Form::Large(large) => {
                if large.by_name.weight() != self.weight || large.by_number.weight() != self.weight {
                    return Err(Broken);
                }
                large.by_name.verify()?;
                large.by_number.verify()
            }
        }
    }

    /// The first child that was created after the one of a number, or the first of all.
    pub fn after(&self, number: Option<u64>) -> Option<(u64, &Child)> {
        let from = number.map_or(Some(0), |number| number.checked_add(1))?;
        match &self.form {
            Form::Small(list) => {
                list.iter().find(|child| child.number >= from).map(|child| (child.number, child))
            }
            Form::Large(large) => {
                let entry = large.by_number.first_from(from)?;
                Some((entry.number, self.child(&entry.name)?))
            }
        }
    }

    /// The number that the next child gets.
    pub fn next_number(&self) -> u64 {
        let last = match &self.form {
            Form::Small(list) => list.last().map(|child| child.number),
            Form::Large(large) => large.by_number.last().map(|entry| entry.number),
        };
        last.map_or(0, |last| last.wrapping_add(1))
    }

    /// Adds a child behind all others. There must be none of that name.
    pub fn push(&mut self, name: Arc<str>, node: Arc<Node>) {
        let number = self.next_number();
        self.push_as(name, number, node);
    }

    /// As [`Children::push`], with the number that the child had; it must be higher than those of all others.
    pub fn push_as(&mut self, name: Arc<str>, number: u64, node: Arc<Node>) {
        let child = Child { name, number, node };
        self.weight += child.weight();
        match &mut self.form {
            Form::Small(list) if list.len() < SMALL_DIRECTORY_MAX => list.push(child),
            Form::Small(list) => {
                let mut large = Large::default();
                for child in std::mem::take(list).into_iter().chain([child]) {
                    large.push(child);
                }
                self.form = Form::Large(large);
            }
            Form::Large(large) => large.push(child),
        }
    }

    pub fn remove(&mut self, name: &str) -> Option<Arc<Node>> {
        let child = match &mut self.form {
            Form::Small(list) => {
                let at = list.iter().position(|child| *child.name == *name)?;
                list.remove(at)
            }
            Form::Large(large) => large.remove(name)?,
        };
        self.weight -= child.weight();
        Some(child.node)
    }

    /// Gives `put` the names in the order of their creation, with the bytes of the listing in front of each, from the one
    /// that holds byte `offset` on, until it returns false. All that is given is verified.
    pub fn list_from(&self, offset: u64, mut put: impl FnMut(u64, &str) -> bool) -> Result<(), Broken> {
        match &self.form {
            Form::Small(list) => {
                self.verify_small(list)?;
                let mut before = 0;
                for child in list {
                    let end = before + child.name.len() as u64 + 1;
                    if end > offset && !put(before, &child.name) {
                        break;
                    }
                    before = end;
                }
                Ok(())
            }
            Form::Large(large) if large.by_number.weight() == self.weight => {
                large.by_number.visit_from(offset, |before, entry| {
                    before + (entry.name.len() as u64) < offset || put(before, &entry.name)
                })
            }
            Form::Large(_) => Err(Broken),
        }
    }

    /// Children in the order of creation, with their numbers. Use [`Children::for_each_node`] where the order does not matter.
    pub fn ordered(&self) -> Vec<&Child> {
        match &self.form {
            Form::Small(list) => list.iter().collect(),
            Form::Large(large) => {
                let mut list: Vec<&Child> = large.by_name.iter().map(|entry| &entry.child).collect();
                list.sort_unstable_by_key(|child| child.number);
                list
            }
        }
    }

    /// Visits the children in no particular order.
    pub fn for_each_node<'a>(&'a self, mut visit: impl FnMut(&'a Arc<str>, &'a Arc<Node>)) {
        match &self.form {
            Form::Small(list) => list.iter().for_each(|child| visit(&child.name, &child.node)),
            Form::Large(large) => {
                large.by_name.iter().for_each(|entry| visit(&entry.child.name, &entry.child.node));
            }
        }
    }

    /// The children one by one, in no particular order, each let go when it is taken.
    pub fn into_leftovers(self) -> Leftovers {
        match self.form {
            Form::Small(list) => Leftovers::Small(list.into_iter()),
            Form::Large(large) => {
                Leftovers::Large(large.by_name.into_leftovers(), large.by_number.into_leftovers())
            }
        }
    }

    /// Appends the part of the listing that starts at byte `offset`: whole names with their nuls, below
    /// `max_bytes`. An offset inside a name gives the rest of that name first. Returns the bytes appended.
    pub fn listing_part(&self, offset: usize, max_bytes: usize, out: &mut Vec<u8>) -> Result<usize, Broken> {
        let start = out.len();
        let offset = offset as u64;
        self.list_from(offset, |before, name| {
            let skip = usize::try_from(offset.saturating_sub(before)).unwrap_or(usize::MAX);
            let Some(rest) = name.as_bytes().get(skip..) else { return true };
            if out.len() - start + rest.len() >= max_bytes {
                return false;
            }
            out.extend_from_slice(rest);
            out.push(0);
            true
        })?;
        Ok(out.len() - start)
    }
}

/// What is left of the children of a removed node.
pub(crate) enum Leftovers {
    Small(std::vec::IntoIter<Child>),
    Large(radix::Leftovers<ByName>, radix::Leftovers<ByNumber>),
}

impl Leftovers {
    pub fn next(&mut self) -> Option<Arc<Node>> {
        match self {
            Leftovers::Small(list) => list.next().map(|child| child.node),
            Leftovers::Large(by_name, by_number) => {
                by_number.next();
                by_name.next().map(|entry| entry.child.node)
            }
        }
    }
}

impl Large {
    fn push(&mut self, child: Child) {
        self.by_number.insert(ByNumber { number: child.number, name: Arc::clone(&child.name) });
        self.by_name.insert(ByName { key: name_key(&child.name), child });
    }

    fn remove(&mut self, name: &str) -> Option<Child> {
        let entry = self.by_name.remove(name_key(name), |entry| *entry.child.name == *name)?;
        self.by_number.remove(entry.child.number, |other| other.number == entry.child.number);
        Some(entry.child)
    }
}

/// For tests: damage that no sum notices.
#[cfg(test)]
impl Children {
    pub fn child_to_damage(&mut self, name: &str) -> &mut Child {
        match &mut self.form {
            Form::Small(list) => list.iter_mut().find(|child| *child.name == *name).unwrap(),
            Form::Large(large) => {
                let entry = large.by_name.get_mut(name_key(name), |entry| *entry.child.name == *name);
                &mut entry.unwrap().child
            }
        }
    }

    pub fn weight_to_damage(&mut self) -> &mut Weight {
        &mut self.weight
    }

    /// Loses a child from the lookup, and with `order` from the listing.
    pub fn lose(&mut self, name: &str, order: bool) {
        match &mut self.form {
            Form::Small(list) => list.retain(|child| *child.name != *name),
            Form::Large(large) if order => {
                let number = large.by_number.iter().find(|entry| *entry.name == *name).unwrap().number;
                large.by_number.remove(number, |entry| entry.number == number);
            }
            Form::Large(large) => {
                large.by_name.remove(name_key(name), |entry| *entry.child.name == *name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::node::tests::leaf;

    fn listing(children: &Children) -> Vec<u8> {
        let mut out = Vec::new();
        let put = |before: u64, name: &str| {
            assert_eq!(before, out.len() as u64);
            out.extend_from_slice(name.as_bytes());
            out.push(0);
            true
        };
        children.list_from(0, put).unwrap();
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
            let ordered: Vec<String> = children.ordered().iter().map(|child| child.name.to_string()).collect();
            prop_assert_eq!(&ordered, &model);
            prop_assert_eq!(children.len(), model.len());
            let all = listing(&children);
            prop_assert_eq!(children.weight().bytes, all.len() as u64);
            prop_assert_eq!(children.verify(), Ok(()));
            for name in model.iter().map(String::as_str).chain(["none"]) {
                let found = children.verified(name).unwrap().map(|child| child.number);
                prop_assert_eq!(found, children.child(name).map(|child| child.number));
                prop_assert_eq!(found.is_some(), name != "none");
            }
            let mut walked = Vec::new();
            let mut next = children.after(None);
            while let Some((number, child)) = next {
                walked.push(child.name.to_string());
                next = children.after(Some(number));
            }
            prop_assert_eq!(&walked, &model);
            for offset in (0..all.len()).step_by(7) {
                let mut part = Vec::new();
                let bytes = children.listing_part(offset, 50, &mut part).unwrap();
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
            assert!(children.listing_part(offset, 4000, &mut read).unwrap() > 0);
        }
        assert_eq!(read, all);
        for number in (0..30_000).rev() {
            assert!(children.remove(&format!("child{number}")).is_some());
        }
        assert_eq!((children.len(), children.weight()), (0, Weight::default()));
    }
}
