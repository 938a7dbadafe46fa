//! Old nodes that open transactions keep alive are bounded, however many transactions there are.
//!
//! A transaction's tree shares its nodes with the store's, so what others replace stays in memory until it ends: a few
//! guests that open transactions at different times and rewrite all they have in between would keep many times their
//! quotas. So a transaction that began before the last [`RETAINED_BYTES_MAX`] were replaced lets its tree go. It keeps its
//! list of requests, which is all that its commit needs, and gets another tree when its client goes on with it. What
//! open transactions keep alive is thus replaced bytes of a window, once, and no more than the window's size.

use crate::{
    Store,
    domain::Deltas,
    limits::{CHANGE_REPLACES_BYTES, CREATED_OVERHEAD_BYTES, RETAINED_BYTES_MAX, RETAINED_STEP_BYTES},
    tree::Tree,
};

impl Store {
    /// Changes were made, with these consequences for the domains' use.
    pub(crate) fn note_replaced(&mut self, changes: u64, deltas: &Deltas) {
        let removed = deltas.iter().map(|(_, delta)| {
            let nodes = delta.nodes.min(0).unsigned_abs();
            delta.bytes.min(0).unsigned_abs() + nodes * CREATED_OVERHEAD_BYTES as u64
        });
        let before = self.replaced_bytes;
        self.replaced_bytes += changes * CHANGE_REPLACES_BYTES + removed.sum::<u64>();
        if before / RETAINED_STEP_BYTES != self.replaced_bytes / RETAINED_STEP_BYTES {
            self.detach_old_transactions();
        }
    }

    fn detach_old_transactions(&mut self) {
        let oldest = self.replaced_bytes.saturating_sub(RETAINED_BYTES_MAX - RETAINED_STEP_BYTES);
        let all = self.conns.values_mut().flat_map(|conn| conn.transactions.values_mut());
        for transaction in all.filter(|old| !old.detached && old.base_replaced_bytes < oldest) {
            let sound = transaction.is_sound();
            let (tree, changes) = transaction.detach(Tree::new(self.config.privileged_domid));
            if sound {
                transaction.seal_again();
            }
            self.garbage.add(tree.root);
            for (_, change) in changes {
                change.removed.into_iter().for_each(|node| self.garbage.add(node));
            }
        }
    }
}
