//! A persistent radix tree: entries in the order of a 64-bit key, cheap to copy, with the weight of what is below in
//! every branch, so that an entry, its absence or a run of entries is verified by the few twigs that lead there.

use std::{cmp::Ordering, sync::Arc};

use crate::weight::Weight;

/// Entries up to which a twig is a leaf, unless all have the same key.
const LEAF_MAX: usize = 16;
/// Bits of the key that a branch tells apart.
const BITS: u32 = 4;

/// What a radix tree holds.
pub(crate) trait Entry: Clone {
    fn key(&self) -> u64;
    /// Computed from the entry, not stored with it.
    fn weight(&self) -> Weight;
    /// The bytes of the weight, cheaper.
    fn bytes(&self) -> u64;
}

/// Something in a tree does not fit the weights above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

#[derive(Clone)]
pub(crate) struct Radix<E> {
    top: Limb<E>,
}

/// A twig and what it weighs.
#[derive(Clone)]
struct Limb<E> {
    weight: Weight,
    twig: Arc<Twig<E>>,
}

#[derive(Clone)]
enum Twig<E> {
    /// Entries in the order of their keys.
    Leaf(Vec<E>),
    Branch(Branch<E>),
}

#[derive(Clone)]
struct Branch<E> {
    frame: Frame,
    /// The frame's checksum.
    seal: u64,
    limbs: Vec<Limb<E>>,
}

/// Which keys are below a branch, and where.
#[derive(Clone, Copy)]
struct Frame {
    /// The lowest bit of the key that the branch tells apart; a multiple of [`BITS`].
    shift: u32,
    /// The bits above those, which all keys below have in common.
    prefix: u64,
    /// A bit for each value that has a limb.
    present: u16,
}

impl Frame {
    fn seal(self) -> u64 {
        (self.prefix ^ u64::from(self.shift) << 16 ^ u64::from(self.present))
            .wrapping_add(0x9e37_79b9_7f4a_7c15)
            .wrapping_mul(0xd6e8_feb8_6659_fd93)
    }

    /// How many limbs have only keys below this one.
    fn limbs_below(self, key: u64) -> usize {
        match above(key, self.shift).cmp(&self.prefix) {
            Ordering::Less => 0,
            Ordering::Greater => usize::MAX,
            Ordering::Equal => {
                let bit = 1_u16 << (key >> self.shift & 15);
                (self.present & (bit - 1)).count_ones() as usize
            }
        }
    }

    /// Where the limb of a key is or would be. `None` if the key belongs elsewhere.
    fn place(self, key: u64) -> Option<Result<usize, usize>> {
        if above(key, self.shift) != self.prefix {
            return None;
        }
        let bit = 1_u16 << (key >> self.shift & 15);
        let at = (self.present & (bit - 1)).count_ones() as usize;
        Some(if self.present & bit != 0 { Ok(at) } else { Err(at) })
    }
}

/// The bits of a key above those that a branch at `shift` tells apart.
fn above(key: u64, shift: u32) -> u64 {
    key.checked_shr(shift + BITS).unwrap_or(0)
}

/// The shift of the branch that tells two different keys apart.
fn parting(one: u64, two: u64) -> u32 {
    (63 - (one ^ two).leading_zeros()) / BITS * BITS
}

impl<E> Default for Radix<E> {
    fn default() -> Self {
        Radix { top: Limb { weight: Weight::default(), twig: Arc::new(Twig::Leaf(Vec::new())) } }
    }
}

impl<E: Entry> Limb<E> {
    fn leaf(entry: E) -> Limb<E> {
        Limb { weight: entry.weight(), twig: Arc::new(Twig::Leaf(vec![entry])) }
    }

    /// Adds an entry, which must not be there.
    fn insert(&mut self, entry: E) {
        let weight = entry.weight();
        let key = entry.key();
        match Arc::make_mut(&mut self.twig) {
            Twig::Leaf(list) if list.len() < LEAF_MAX || list.iter().all(|other| other.key() == key) => {
                let at = list.partition_point(|other| other.key() <= key);
                list.insert(at, entry);
            }
            Twig::Leaf(list) => self.twig = Arc::new(Twig::Branch(split(std::mem::take(list), entry))),
            Twig::Branch(branch) => match branch.frame.place(key) {
                Some(Ok(at)) => branch.limbs[at].insert(entry),
                Some(Err(at)) => branch.put(at, key, Limb::leaf(entry)),
                None => {
                    let below = branch.frame.prefix << BITS << branch.frame.shift;
                    let mut parent = Branch::new(parting(key, below), key);
                    let old = Limb { weight: self.weight, twig: Arc::clone(&self.twig) };
                    parent.add(below, old);
                    parent.add(key, Limb::leaf(entry));
                    self.twig = Arc::new(Twig::Branch(parent));
                }
            },
        }
        self.weight += weight;
    }

    /// Takes out an entry that is there.
    fn remove(&mut self, key: u64, is: &impl Fn(&E) -> bool) -> Option<E> {
        let removed = match Arc::make_mut(&mut self.twig) {
            Twig::Leaf(list) => {
                let at = list.iter().position(is)?;
                list.remove(at)
            }
            Twig::Branch(branch) => {
                let Some(Ok(at)) = branch.frame.place(key) else { return None };
                let removed = branch.limbs[at].remove(key, is)?;
                if branch.limbs[at].is_empty() {
                    branch.take(at, key);
                }
                removed
            }
        };
        self.weight -= removed.weight();
        Some(removed)
    }
}

impl<E> Limb<E> {
    fn is_empty(&self) -> bool {
        match &*self.twig {
            Twig::Leaf(list) => list.is_empty(),
            Twig::Branch(branch) => branch.limbs.is_empty(),
        }
    }
}

fn split<E: Entry>(list: Vec<E>, entry: E) -> Branch<E> {
    let key = entry.key();
    let shift = list
        .iter()
        .map(|other| other.key())
        .filter(|other| *other != key)
        .map(|other| parting(key, other))
        .max();
    let mut branch = Branch::new(shift.expect("not all keys are equal"), key);
    for entry in list.into_iter().chain([entry]) {
        let key = entry.key();
        match branch.frame.place(key) {
            Some(Ok(at)) => branch.limbs[at].insert(entry),
            Some(Err(at)) => branch.put(at, key, Limb::leaf(entry)),
            None => unreachable!("the bits above the highest that differ are the same"),
        }
    }
    branch
}

impl<E> Branch<E> {
    fn new(shift: u32, key: u64) -> Branch<E> {
        let frame = Frame { shift, prefix: above(key, shift), present: 0 };
        Branch { frame, seal: frame.seal(), limbs: Vec::new() }
    }

    /// Puts in a limb for keys that have none and belong here.
    fn add(&mut self, key: u64, limb: Limb<E>) {
        let Some(Err(at)) = self.frame.place(key) else { unreachable!("the key parts from the others here") };
        self.put(at, key, limb);
    }

    fn put(&mut self, at: usize, key: u64, limb: Limb<E>) {
        self.limbs.insert(at, limb);
        self.flip(key);
    }

    fn take(&mut self, at: usize, key: u64) {
        self.limbs.remove(at);
        self.flip(key);
    }

    fn flip(&mut self, key: u64) {
        self.frame.present ^= 1 << (key >> self.frame.shift & 15);
        self.seal = self.frame.seal();
    }

    /// Whether the branch fits its weight, so that its limbs' weights can be relied on.
    fn verify(&self, weight: Weight) -> Result<(), Broken> {
        let fits = self.seal == self.frame.seal()
            && self.frame.present.count_ones() as usize == self.limbs.len()
            && self.limbs.iter().map(|limb| limb.weight).sum::<Weight>() == weight;
        if fits { Ok(()) } else { Err(Broken) }
    }
}

fn verify_leaf<E: Entry>(list: &[E], weight: Weight) -> Result<(), Broken> {
    if list.iter().map(E::weight).sum::<Weight>() == weight { Ok(()) } else { Err(Broken) }
}

impl<E: Entry> Radix<E> {
    pub fn weight(&self) -> Weight {
        self.top.weight
    }

    /// Adds an entry, which must not be there.
    pub fn insert(&mut self, entry: E) {
        self.top.insert(entry);
    }

    /// Takes out the entry with this key that `is` accepts.
    pub fn remove(&mut self, key: u64, is: impl Fn(&E) -> bool) -> Option<E> {
        // So that nothing is copied in vain.
        self.get(key, &is)?;
        self.top.remove(key, &is)
    }

    pub fn get(&self, key: u64, is: impl Fn(&E) -> bool) -> Option<&E> {
        let mut twig = &*self.top.twig;
        loop {
            match twig {
                Twig::Leaf(list) => return list.iter().find(|entry| is(entry)),
                Twig::Branch(branch) => match branch.frame.place(key) {
                    Some(Ok(at)) => twig = &*branch.limbs.get(at)?.twig,
                    _ => return None,
                },
            }
        }
    }

    /// For changes that alter neither key nor weight.
    pub fn get_mut(&mut self, key: u64, is: impl Fn(&E) -> bool) -> Option<&mut E> {
        self.get(key, &is)?;
        let mut twig = Arc::make_mut(&mut self.top.twig);
        loop {
            match twig {
                Twig::Leaf(list) => return list.iter_mut().find(|entry| is(entry)),
                Twig::Branch(branch) => match branch.frame.place(key) {
                    Some(Ok(at)) => twig = Arc::make_mut(&mut branch.limbs.get_mut(at)?.twig),
                    _ => return None,
                },
            }
        }
    }

    /// The entries among which one with this key is if it is there at all, verified.
    pub fn verified(&self, key: u64) -> Result<&[E], Broken> {
        let mut limb = &self.top;
        loop {
            match &*limb.twig {
                Twig::Leaf(list) => return verify_leaf(list, limb.weight).map(|()| &list[..]),
                Twig::Branch(branch) => {
                    branch.verify(limb.weight)?;
                    match branch.frame.place(key) {
                        Some(Ok(at)) => limb = &branch.limbs[at],
                        _ => return Ok(&[]),
                    }
                }
            }
        }
    }

    pub fn last(&self) -> Option<&E> {
        let mut twig = &*self.top.twig;
        loop {
            match twig {
                Twig::Leaf(list) => return list.last(),
                Twig::Branch(branch) => twig = &*branch.limbs.last()?.twig,
            }
        }
    }

    /// The entry with the lowest key that is not below this one.
    pub fn first_from(&self, key: u64) -> Option<&E> {
        let mut stack = vec![&self.top];
        while let Some(limb) = stack.pop() {
            match &*limb.twig {
                Twig::Leaf(list) => {
                    if let Some(entry) = list.iter().find(|entry| entry.key() >= key) {
                        return Some(entry);
                    }
                }
                Twig::Branch(branch) => {
                    let lower = branch.frame.limbs_below(key);
                    stack.extend(branch.limbs.iter().skip(lower).rev());
                }
            }
        }
        None
    }

    pub fn iter(&self) -> impl Iterator<Item = &E> {
        Iter { stack: vec![&self.top], leaf: [].iter() }
    }

    /// Gives `put` the verified entries from a byte offset of the listing on, with the bytes in front of each, until it
    /// returns false.
    pub fn visit_from<'a>(
        &'a self,
        offset: u64,
        mut put: impl FnMut(u64, &'a E) -> bool,
    ) -> Result<(), Broken> {
        let mut before = 0;
        let mut stack = vec![&self.top];
        while let Some(limb) = stack.pop() {
            if before + limb.weight.bytes <= offset {
                before += limb.weight.bytes;
                continue;
            }
            match &*limb.twig {
                Twig::Branch(branch) => {
                    branch.verify(limb.weight)?;
                    stack.extend(branch.limbs.iter().rev());
                }
                Twig::Leaf(list) => {
                    verify_leaf(list, limb.weight)?;
                    for entry in list {
                        if !put(before, entry) {
                            return Ok(());
                        }
                        before += entry.bytes();
                    }
                }
            }
        }
        Ok(())
    }

    /// Verifies everything.
    pub fn verify(&self) -> Result<(), Broken> {
        self.visit_from(0, |_, _| true)
    }

    /// The entries, each let go when it is taken. What others share is left out.
    pub fn into_leftovers(self) -> Leftovers<E> {
        Leftovers { twigs: vec![self.top.twig], leaf: Vec::new().into_iter() }
    }
}

struct Iter<'a, E> {
    stack: Vec<&'a Limb<E>>,
    leaf: std::slice::Iter<'a, E>,
}

impl<'a, E> Iterator for Iter<'a, E> {
    type Item = &'a E;

    fn next(&mut self) -> Option<&'a E> {
        loop {
            if let Some(entry) = self.leaf.next() {
                return Some(entry);
            }
            match &*self.stack.pop()?.twig {
                Twig::Leaf(list) => self.leaf = list.iter(),
                Twig::Branch(branch) => self.stack.extend(branch.limbs.iter().rev()),
            }
        }
    }
}

/// What is left of a tree that is being freed.
pub(crate) struct Leftovers<E> {
    twigs: Vec<Arc<Twig<E>>>,
    leaf: std::vec::IntoIter<E>,
}

impl<E> Iterator for Leftovers<E> {
    type Item = E;

    fn next(&mut self) -> Option<E> {
        loop {
            if let Some(entry) = self.leaf.next() {
                return Some(entry);
            }
            match Arc::into_inner(self.twigs.pop()?) {
                Some(Twig::Leaf(list)) => self.leaf = list.into_iter(),
                Some(Twig::Branch(branch)) => {
                    self.twigs.extend(branch.limbs.into_iter().map(|limb| limb.twig));
                }
                None => {}
            }
        }
    }
}

#[cfg(test)]
impl<E: Entry> Radix<E> {
    /// Loses the leaf in which a key is, and with `quietly` its weight in the branch above too.
    pub fn lose(&mut self, key: u64, quietly: bool) {
        let Twig::Branch(branch) = Arc::make_mut(&mut self.top.twig) else { panic!("a tree with branches") };
        let Some(Ok(at)) = branch.frame.place(key) else { panic!("a key that is there") };
        if quietly {
            branch.take(at, key);
        } else {
            branch.limbs[at].twig = Arc::new(Twig::Leaf(Vec::new()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Item(u64, Arc<str>);

    impl Entry for Item {
        fn key(&self) -> u64 {
            self.0
        }

        fn weight(&self) -> Weight {
            Weight::of(&self.1, self.0)
        }

        fn bytes(&self) -> u64 {
            self.1.len() as u64 + 1
        }
    }

    fn item(key: u64) -> Item {
        Item(key, format!("n{key}").as_str().into())
    }

    fn any_key() -> impl Strategy<Value = u64> {
        prop_oneof![0u64..100, any::<u64>(), (0u64..16).prop_map(|top| top << 60), Just(u64::MAX)]
    }

    proptest! {
        #[test]
        fn behaves_as_a_map(ops in proptest::collection::vec((any::<bool>(), any_key()), 0..300)) {
            let mut radix = Radix::default();
            let mut model = BTreeMap::new();
            let mut copies = Vec::new();
            for (add, key) in ops {
                let present = model.contains_key(&key);
                prop_assert_eq!(radix.get(key, |item: &Item| item.0 == key).is_some(), present);
                let leaf = radix.verified(key).unwrap();
                prop_assert_eq!(leaf.iter().any(|item| item.0 == key), present);
                if add && !present {
                    radix.insert(item(key));
                    model.insert(key, item(key));
                } else if !add {
                    prop_assert_eq!(radix.remove(key, |item| item.0 == key).is_some(), present);
                    model.remove(&key);
                }
                if copies.len() < 9 {
                    copies.push((radix.clone(), model.clone()));
                }
            }
            copies.push((radix, model));
            for (radix, model) in copies {
                prop_assert!(radix.iter().eq(model.values()));
                prop_assert_eq!(radix.last(), model.values().last());
                prop_assert_eq!(radix.weight(), model.values().map(Item::weight).sum::<Weight>());
                prop_assert_eq!(radix.verify(), Ok(()));
                for key in model.keys().flat_map(|key| [key.wrapping_sub(1), *key, key.wrapping_add(1)]) {
                    prop_assert_eq!(radix.first_from(key), model.range(key..).next().map(|(_, item)| item));
                }
            }
        }
    }

    #[test]
    fn equal_keys_share_a_leaf() {
        let mut radix = Radix::default();
        for number in 0..100 {
            radix.insert(Item(7, format!("{number}").as_str().into()));
        }
        radix.insert(item(8));
        assert!(radix.get(7, |item| &*item.1 == "63").is_some() && radix.get(8, |_| true).is_some());
        assert!(radix.remove(7, |item| &*item.1 == "63").is_some());
        assert_eq!((radix.weight().count, radix.verify()), (100, Ok(())));
    }

    #[test]
    fn a_lost_or_changed_entry_is_seen() {
        let mut radix = Radix::default();
        for number in 0..1000u64 {
            radix.insert(item(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        }
        let first = radix.iter().next().unwrap().0;
        let last = radix.last().unwrap().0;
        let mut changed = radix.clone();
        changed.get_mut(first, |item| item.0 == first).unwrap().1 = "x".into();
        for quietly in [false, true] {
            let mut lost = radix.clone();
            lost.lose(first, quietly);
            assert_eq!(lost.verified(first), Err(Broken));
            assert_eq!(lost.verified(last).is_err(), quietly);
        }
        assert_eq!(changed.verified(first), Err(Broken));
        assert_eq!((changed.verified(last).is_ok(), changed.verify()), (true, Err(Broken)));
        assert_eq!(radix.verify(), Ok(()));
    }

    #[test]
    fn what_is_shared_is_not_freed() {
        let mut radix = Radix::default();
        (0..1000).for_each(|key| radix.insert(item(key)));
        let copy = radix.clone();
        assert_eq!(radix.into_leftovers().count(), 0);
        assert_eq!(copy.into_leftovers().count(), 1000);
    }
}
