//! Descriptors that outlive the services that use them.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use control::names;
use rustix::fs::{MemfdFlags, SealFlags};

use crate::error::Error;
use crate::limits::{KEPT_MAX, KEPT_NAME_BYTES_MAX};
use crate::spec::RegionSpec;

/// The kept descriptors by name.
#[derive(Debug, Default)]
pub struct Kept {
    descriptors: BTreeMap<String, OwnedFd>,
}

impl Kept {
    /// Keeps a descriptor in place of the one that has the name.
    ///
    /// # Errors
    /// [`Error::Keep`] if the name is out of bounds, or if there are [`KEPT_MAX`] already.
    pub fn insert(&mut self, name: &str, descriptor: OwnedFd) -> Result<(), Error> {
        let refuse = |why| {
            let name = name.chars().take(KEPT_NAME_BYTES_MAX).collect();
            Err(Error::Keep { name, why })
        };
        if name.is_empty() || name.len() > KEPT_NAME_BYTES_MAX {
            return refuse("its name is empty or too long");
        }
        if self.descriptors.len() >= KEPT_MAX && !self.descriptors.contains_key(name) {
            return refuse("too many are kept");
        }
        self.descriptors.insert(name.to_owned(), descriptor);
        Ok(())
    }

    /// As [`Kept::insert`], but the group's own memory and the snapshot cannot be replaced, and the snapshot's
    /// place stays free.
    ///
    /// # Errors
    /// [`Error::Keep`].
    pub fn insert_from_service(&mut self, name: &str, descriptor: OwnedFd) -> Result<(), Error> {
        let reserved =
            [names::LOG, names::CONNS, names::BOARD, names::LISTENER, names::SNAPSHOT, names::SNAPSHOT_OLDER];
        if reserved.contains(&name) {
            return Err(Error::Keep { name: name.to_owned(), why: "its name is taken" });
        }
        let snapshots = [names::SNAPSHOT, names::SNAPSHOT_OLDER];
        let missing = snapshots.iter().filter(|name| !self.descriptors.contains_key(**name)).count();
        let room = KEPT_MAX - missing;
        if self.descriptors.len() >= room && !self.descriptors.contains_key(name) {
            return Err(Error::Keep { name: name.to_owned(), why: "too many are kept" });
        }
        self.insert(name, descriptor)
    }

    /// The descriptor of this name.
    pub fn get(&self, name: &str) -> Option<BorrowedFd<'_>> {
        self.descriptors.get(name).map(AsFd::as_fd)
    }

    /// All of them, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (String, BorrowedFd<'_>)> {
        self.descriptors.iter().map(|(name, descriptor)| (name.clone(), descriptor.as_fd()))
    }
}

/// Makes zeroed shared memory whose size nobody can change: a process that maps it cannot be hurt by another one's
/// truncation.
pub fn make_region(region: &RegionSpec) -> Result<OwnedFd, Error> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory =
        rustix::fs::memfd_create(region.name.as_str(), flags).map_err(Error::system("memfd_create"))?;
    rustix::fs::ftruncate(&memory, region.length_bytes).map_err(Error::system("ftruncate"))?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&memory, seals).map_err(Error::system("fcntl"))?;
    Ok(memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> OwnedFd {
        make_region(&RegionSpec { name: "test".into(), length_bytes: 4096 }).unwrap()
    }

    #[test]
    fn a_regions_size_is_final() {
        let memory = memory();
        assert_eq!(rustix::fs::fstat(&memory).unwrap().st_size, 4096);
        assert!(rustix::fs::ftruncate(&memory, 0).is_err());
        assert!(rustix::fs::ftruncate(&memory, 8192).is_err());
    }

    #[test]
    fn the_bound_on_kept_descriptors_is_reached_and_leaves_room_for_snapshots() {
        let mut kept = Kept::default();
        for number in 0..KEPT_MAX - 2 {
            kept.insert_from_service(&format!("evtchn.{number}"), memory()).unwrap();
        }
        assert!(matches!(kept.insert_from_service("one.more", memory()), Err(Error::Keep { .. })));
        kept.insert_from_service("evtchn.0", memory()).unwrap();
        kept.insert(names::SNAPSHOT, memory()).unwrap();
        kept.insert(names::SNAPSHOT_OLDER, memory()).unwrap();
        assert_eq!(kept.iter().count(), KEPT_MAX);
        assert!(kept.insert("one.more", memory()).is_err());
    }

    #[test]
    fn names_are_bounded_and_the_groups_own_are_taken() {
        let mut kept = Kept::default();
        let long = "x".repeat(KEPT_NAME_BYTES_MAX + 1);
        for bad in ["", names::LOG, names::SNAPSHOT, &long] {
            assert!(kept.insert_from_service(bad, memory()).is_err(), "{bad}");
        }
        kept.insert_from_service(&long[1..], memory()).unwrap();
    }
}
