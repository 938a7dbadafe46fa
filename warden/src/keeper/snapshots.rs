//! The two newest snapshots with their memory: a fresh replica falls back to the older one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use control::{SnapshotKept, SnapshotTaken, names};

use crate::limits::SNAPSHOTS_KEPT;

type Snapshot = (SnapshotTaken, OwnedFd);

/// Newest first.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    kept: Vec<Snapshot>,
    offered: Option<Snapshot>,
}

impl Snapshots {
    /// Holds one until it is decided about.
    pub fn offer(&mut self, offered: Option<Snapshot>) {
        self.offered = offered;
    }

    /// Keeps the offered one as the newest.
    pub fn keep_offered(&mut self) {
        if let Some(offered) = self.offered.take() {
            self.kept.insert(0, offered);
            self.kept.truncate(SNAPSHOTS_KEPT);
        }
    }

    /// Keeps a service's copy if it is one of the newest. True if anything changed.
    pub fn found(&mut self, snapshot: Snapshot) -> bool {
        let index = snapshot.0.index;
        if self.kept.iter().any(|(kept, _)| kept.index == index) {
            return false;
        }
        self.kept.push(snapshot);
        self.kept.sort_by_key(|(kept, _)| std::cmp::Reverse(kept.index));
        self.kept.truncate(SNAPSHOTS_KEPT);
        self.kept.iter().any(|(kept, _)| kept.index == index)
    }

    /// Keeps the one at this index no longer.
    pub fn drop_one(&mut self, index: u64) {
        self.kept.retain(|(kept, _)| kept.index != index);
    }

    pub fn newest(&self) -> Option<&SnapshotTaken> {
        self.kept.first().map(|(taken, _)| taken)
    }

    pub fn older(&self) -> Option<&SnapshotTaken> {
        self.kept.get(1).map(|(taken, _)| taken)
    }

    /// Last log index of each, newest first.
    pub fn indices(&self) -> Vec<u64> {
        self.kept.iter().map(|(taken, _)| taken.index).collect()
    }

    /// Their memory by the names that services know.
    pub fn descriptors(&self) -> impl Iterator<Item = (String, BorrowedFd<'_>)> {
        let named = [names::SNAPSHOT, names::SNAPSHOT_OLDER].into_iter().zip(&self.kept);
        named.map(|(name, (_, memory))| (name.to_owned(), memory.as_fd()))
    }

    /// What the leader is to know. It lets the log go up to the older one only: a replica may be starting from that.
    pub fn to_tell(&self) -> Option<SnapshotKept> {
        let newest = self.newest()?;
        Some(SnapshotKept {
            newest_index: newest.index,
            older_index: self.older().map_or(0, |older| older.index),
            release_cursor: self.older().unwrap_or(newest).cursor.clone(),
            newest_length_bytes: newest.length_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(index: u64) -> Snapshot {
        let memory = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        (SnapshotTaken { index, cursor: index.to_le_bytes().to_vec(), ..SnapshotTaken::default() }, memory)
    }

    #[test]
    fn the_two_newest_are_kept_and_the_log_goes_up_to_the_older() {
        let mut snapshots = Snapshots::default();
        assert!(snapshots.to_tell().is_none());
        for index in [3, 5, 5, 9] {
            snapshots.offer(Some(snapshot(index)));
            snapshots.keep_offered();
        }
        assert_eq!(snapshots.indices(), [9, 5]);
        let told = snapshots.to_tell().unwrap();
        assert_eq!(
            (told.newest_index, told.older_index, told.release_cursor),
            (9, 5, 5_u64.to_le_bytes().to_vec())
        );
        assert_eq!(snapshots.descriptors().count(), SNAPSHOTS_KEPT);
        snapshots.drop_one(9);
        assert_eq!(snapshots.indices(), [5]);
    }

    #[test]
    fn copies_of_services_are_put_in_order() {
        let mut snapshots = Snapshots::default();
        assert!(snapshots.found(snapshot(4)));
        assert!(!snapshots.found(snapshot(4)), "another copy of the same");
        assert!(snapshots.found(snapshot(8)));
        assert!(!snapshots.found(snapshot(2)), "older than the two that are kept");
        assert!(snapshots.found(snapshot(6)));
        assert_eq!(snapshots.indices(), [8, 6]);
    }
}
