//! The gateway's clients, kept for the next gateway: so that its death together with the leader's closes none.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use control::limits::CLIENTS_BATCH;

use crate::limits::CLIENTS_MAX;

/// Client sockets by connection id.
#[derive(Debug)]
pub struct Clients {
    by_id: BTreeMap<u64, OwnedFd>,
    most: usize,
}

impl Default for Clients {
    fn default() -> Self {
        Self { by_id: BTreeMap::new(), most: CLIENTS_MAX }
    }
}

impl Clients {
    /// Keeps these. Beyond [`CLIENTS_MAX`] none is kept: the connection table has no more slots either, so what
    /// exceeds it is not of a client that lives.
    pub fn keep(&mut self, ids: &[u64], descriptors: Vec<OwnedFd>) {
        for (id, descriptor) in ids.iter().zip(descriptors) {
            if self.by_id.len() < self.most || self.by_id.contains_key(id) {
                self.by_id.insert(*id, descriptor);
            }
        }
    }

    /// Lets these go.
    pub fn close(&mut self, ids: &[u64]) {
        for id in ids {
            self.by_id.remove(id);
        }
    }

    /// How many are kept.
    pub fn count(&self) -> usize {
        self.by_id.len()
    }

    /// All of them, in packets.
    pub fn batches(&self) -> impl Iterator<Item = (Vec<u64>, Vec<BorrowedFd<'_>>)> {
        let mut rest = self.by_id.iter();
        std::iter::from_fn(move || {
            let batch: (Vec<_>, Vec<_>) =
                rest.by_ref().take(CLIENTS_BATCH).map(|(id, descriptor)| (*id, descriptor.as_fd())).unzip();
            (!batch.0.is_empty()).then_some(batch)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptors(count: usize) -> Vec<OwnedFd> {
        let one = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        (0..count).map(|_| one.try_clone().unwrap()).collect()
    }

    #[test]
    fn clients_are_handed_on_in_batches_until_they_are_closed() {
        let mut clients = Clients::default();
        let ids: Vec<u64> = (0..250).collect();
        clients.keep(&ids, descriptors(250));
        clients.close(&ids[..40]);
        assert_eq!(clients.count(), 210);
        let sizes: Vec<_> =
            clients.batches().map(|(ids, descriptors)| (ids.len(), descriptors.len())).collect();
        assert_eq!(sizes, [(100, 100), (100, 100), (10, 10)]);
    }

    #[test]
    fn the_bound_is_reached_and_kept() {
        let mut clients = Clients { by_id: BTreeMap::new(), most: 3 };
        clients.keep(&[1, 2, 3, 4], descriptors(4));
        clients.keep(&[1], descriptors(1));
        assert_eq!(clients.by_id.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
    }
}
