//! Removed nodes, freed bit by bit so that a large removal stalls nobody.

use std::sync::Arc;

use crate::{children::Leftovers, node::Node};

/// What is left to free. Nodes that a transaction still sees are only let go.
#[derive(Default)]
pub(crate) struct Garbage {
    nodes: Vec<Arc<Node>>,
    directories: Vec<Leftovers>,
}

impl Garbage {
    pub fn add(&mut self, node: Arc<Node>) {
        self.nodes.push(node);
    }

    /// Frees up to so many nodes. Returns whether any are left.
    pub fn free(&mut self, nodes: usize) -> bool {
        for _ in 0..nodes {
            let Some(node) = self.next() else { return false };
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
