//! Removed nodes, freed bit by bit so that a large removal stalls nobody.

use std::sync::Arc;

use crate::{
    children::Leftovers,
    limits::{FREED_PER_APPLY_MIN, FREED_SHARE, FREED_SMALL_SHARE, NODES_MAX, SMALL_REMOVAL_MAX},
    node::Node,
};

/// What is left to free. Nodes that a transaction still sees are only let go.
#[derive(Default)]
pub(crate) struct Garbage {
    nodes: Vec<Arc<Node>>,
    directories: Vec<Leftovers>,
    /// Nodes that were given to it, less those that are freed; those that others hold are in it until all is done.
    left: u64,
    /// Those of them that came in small numbers.
    small: u64,
}

impl Garbage {
    pub fn add(&mut self, node: Arc<Node>) {
        let nodes = node.frame.tally.nodes().min(NODES_MAX);
        self.left = self.left.saturating_add(nodes);
        if nodes <= SMALL_REMOVAL_MAX {
            self.small = self.small.saturating_add(nodes);
        }
        self.nodes.push(node);
    }

    /// How many nodes are to be freed with an entry.
    pub fn due(&self) -> usize {
        let share = self.left / FREED_SHARE + self.small / FREED_SMALL_SHARE;
        FREED_PER_APPLY_MIN + usize::try_from(share).unwrap_or(usize::MAX)
    }

    /// Frees up to so many nodes. Returns whether any are left.
    pub fn free(&mut self, nodes: usize) -> bool {
        for _ in 0..nodes {
            let Some(node) = self.next() else {
                (self.left, self.small) = (0, 0);
                return false;
            };
            self.left = self.left.saturating_sub(1);
            self.small = self.small.saturating_sub(1);
            if let Some(mut node) = Arc::into_inner(node)
                && let Some(children) = node.take_children()
            {
                self.directories.push(children.into_leftovers());
            }
        }
        !(self.nodes.is_empty() && self.directories.is_empty())
    }

    fn next(&mut self) -> Option<Arc<Node>> {
        while let Some(directory) = self.directories.last_mut() {
            match directory.next() {
                Some(node) => return Some(node),
                None => drop(self.directories.pop()),
            }
        }
        self.nodes.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::tests::leaf;

    /// A directory of `width` directories of as many nodes.
    fn square(width: usize) -> Arc<Node> {
        let mut top = Node::clone(&leaf());
        for number in 0..width {
            let mut middle = Node::clone(&leaf());
            for number in 0..width {
                middle.children_mut().push(number.to_string().as_str().into(), leaf());
            }
            top.children_mut().push(number.to_string().as_str().into(), Arc::new(middle));
        }
        Arc::new(top)
    }

    #[test]
    fn every_node_is_freed_once() {
        for width in [3, 40] {
            let mut garbage = Garbage::default();
            let top = square(width);
            let watched = Arc::downgrade(top.child("1").unwrap().child("2").unwrap());
            garbage.add(top);
            let nodes = 1 + width + width * width;
            assert!(garbage.free(nodes - 1));
            garbage.free(1);
            assert!(!garbage.free(1));
            assert_eq!(watched.strong_count(), 0);
        }
    }

    #[test]
    fn what_others_hold_stays() {
        let mut garbage = Garbage::default();
        let top = square(40);
        garbage.add(Arc::clone(&top));
        assert!(!garbage.free(2));
        assert_eq!(top.children().unwrap().len(), 40);
    }
}
