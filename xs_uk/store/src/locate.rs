//! Where live data is in memory, for the injection of faults from outside the process.

use xs_protocol::Path;

use crate::{Part, Store, node::Grant, tree::Found};

impl Store {
    /// Address and length in bytes of a part of the live node at a path. `None` if there is no such node, it has no
    /// such part, the part is empty, or is none that lies in one piece.
    pub fn locate(&self, path: &str, part: Part) -> Option<(usize, usize)> {
        let path = Path::parse(path.as_bytes()).ok()?;
        let Found::Node { node, parent } = self.tree.find(path) else { return None };
        let entry = || parent?.children()?.child(path.leaf());
        let (address, length_bytes) = match part {
            Part::Value => (node.value.as_ptr().addr(), node.value.len()),
            Part::Perms => (node.acl.as_ptr().addr(), std::mem::size_of_val::<[Grant]>(&node.acl)),
            Part::Digest => (node.own.0.as_ptr().addr(), node.own.0.len()),
            Part::Generation => (std::ptr::from_ref(&node.generation).addr(), size_of_val(&node.generation)),
            Part::Name => entry().map(|child| (child.name.as_ptr().addr(), child.name.len()))?,
            Part::Pointer => {
                entry().map(|child| (std::ptr::from_ref(&child.node).addr(), size_of_val(&child.node)))?
            }
            Part::Sum => (std::ptr::from_ref(&node.frame.sum).addr(), size_of_val(&node.frame.sum)),
            Part::Node
            | Part::Listing
            | Part::Connection
            | Part::Domain
            | Part::Watch
            | Part::Transaction
            | Part::Outbox
            | Part::Config => return None,
        };
        (length_bytes > 0).then_some((address, length_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    #[test]
    fn parts_are_found_where_they_are() {
        let store = Store::new(Config::default());
        let node = store.tree.get(Path::parse(b"/tool").unwrap()).unwrap();
        let own = store.locate("/tool", Part::Digest).unwrap();
        assert_eq!(own, (std::ptr::from_ref(&node.own).addr(), 32));
        assert_eq!(store.locate("/tool", Part::Generation).unwrap().1, 8);
        assert_eq!(store.locate("/tool", Part::Name).unwrap().1, 4);
        assert_eq!(store.locate("/tool", Part::Pointer).unwrap().1, size_of::<usize>());
        assert_eq!(store.locate("/tool", Part::Sum).unwrap().1, 32);
        assert!(store.locate("/tool", Part::Perms).unwrap().1 > 0);
        assert_eq!(store.locate("/tool", Part::Value), None, "it is empty");
        assert_eq!(store.locate("/", Part::Name), None, "the root is in no list");
        assert_eq!(store.locate("/tool", Part::Listing), None);
        assert_eq!(store.locate("/none", Part::Digest), None);
        assert_eq!(store.locate("none", Part::Digest), None);
    }
}
