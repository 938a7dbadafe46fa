//! Memory and grant table of a simulated domain, in two memfds that the domain and its backends map.
//!
//! An entry of the table is that of version 1 (`struct grant_entry_v1` in `xen/include/public/grant_table.h`): flags
//! `u16`, domid `u16`, frame `u32`; the frame is the number of a page of the memory. The domain writes its entries itself,
//! the flags last. As on Xen, nothing keeps a page from being changed while a backend reads it.
//!
//! What differs from Xen: mappings do not set `GTF_reading` and `GTF_writing`, so a domain may end a grant under a
//! backend that has it mapped.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use rustix::fs::{MemfdFlags, SealFlags};

use crate::limits::{GRANTS_MAX, MEMORY_PAGES};
use crate::{DomId, Error, GrantRef, PAGE_BYTES, Page, Refusal, Region, Result};

const MEMORY_BYTES: usize = MEMORY_PAGES as usize * PAGE_BYTES;
const ENTRY_BYTES: usize = 8;
/// After the entries comes a word that is not zero once the domain is gone.
const GONE_OFFSET: usize = GRANTS_MAX as usize * ENTRY_BYTES;
const TABLE_BYTES: usize = GONE_OFFSET + PAGE_BYTES;
/// Grants that are reserved for the toolstack's use (`GNTTAB_NR_RESERVED_ENTRIES`).
const RESERVED: u32 = 8;
const GTF_PERMIT_ACCESS: u16 = 1;
const GTF_READONLY: u16 = 1 << 2;
/// Somebody has the page mapped, to read or to write (`GTF_reading`, `GTF_writing`).
const GTF_IN_USE: u16 = 1 << 3 | 1 << 4;

/// What a grant allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// To read.
    Read,
    /// To read and write.
    Write,
}

/// What the broker keeps of a domain's memory.
#[derive(Debug)]
pub(super) struct Memory {
    memory: OwnedFd,
    table: Region,
}

impl Memory {
    pub(super) fn create() -> Result<Self> {
        let table = Region::open(sealed("ppvmm-grants", TABLE_BYTES)?, TABLE_BYTES).map_err(Error::from)?;
        Ok(Self { memory: sealed("ppvmm-memory", MEMORY_BYTES)?, table })
    }

    pub(super) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.memory.as_fd(), self.table.as_fd()]
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.table.u32(GONE_OFFSET).store(1, Ordering::Release);
    }
}

/// A domain's memory as the domain sees it, with its grant table.
#[derive(Debug)]
pub struct GuestMemory {
    memory: Region,
    table: Region,
    next: u32,
}

impl GuestMemory {
    pub(super) fn open(memory: OwnedFd, table: OwnedFd) -> Result<Self> {
        let memory = Region::open(memory, MEMORY_BYTES).map_err(Error::from)?;
        let table = Region::open(table, TABLE_BYTES).map_err(Error::from)?;
        Ok(Self { memory, table, next: RESERVED })
    }

    /// All pages, one after the other.
    pub fn memory(&self) -> &Region {
        &self.memory
    }

    /// Maps one page besides, as rings are used.
    ///
    /// # Errors
    /// What `mmap` reports.
    pub fn page(&self, frame: u32) -> Result<Page> {
        page(&self.memory, frame)
    }

    /// Grants a page to a domain. Grants are given out in turn, so that one that was ended is not used again soon.
    ///
    /// # Errors
    /// [`Refusal::Limit`] if all are in use; [`Refusal::NoGrant`] if there is no such frame.
    pub fn grant(&mut self, to: DomId, frame: u32, access: Access) -> Result<GrantRef> {
        if frame >= MEMORY_PAGES {
            return Err(Refusal::NoGrant.into());
        }
        let free = (self.next..GRANTS_MAX).chain(RESERVED..self.next).map(GrantRef);
        let gref = free.into_iter().find(|gref| self.is_free(*gref)).ok_or(Refusal::Limit)?;
        self.next = if gref.0 + 1 < GRANTS_MAX { gref.0 + 1 } else { RESERVED };
        self.set(gref, to, frame, access);
        Ok(gref)
    }

    /// Writes an entry of the table, whatever was there.
    ///
    /// # Panics
    /// If there is no such entry in the table.
    pub fn set(&self, gref: GrantRef, to: DomId, frame: u32, access: Access) {
        let read_only = if access == Access::Read { GTF_READONLY } else { 0 };
        let flags = u64::from(GTF_PERMIT_ACCESS | read_only);
        let entry = u64::from(frame) << 32 | u64::from(to.0) << 16 | flags;
        self.table.u64(gref.0 as usize * ENTRY_BYTES).store(entry, Ordering::Release);
    }

    /// Ends a grant.
    ///
    /// # Panics
    /// If there is no such entry in the table.
    pub fn end_grant(&self, gref: GrantRef) {
        self.table.u64(gref.0 as usize * ENTRY_BYTES).store(0, Ordering::Release);
    }

    /// Ends a grant unless its flags say that somebody has the page mapped. Did it?
    ///
    /// # Panics
    /// If there is no such entry in the table.
    pub fn try_end_grant(&self, gref: GrantRef) -> bool {
        let idle = |entry: u64| (entry & u64::from(GTF_IN_USE) == 0).then_some(0);
        let word = self.table.u64(gref.0 as usize * ENTRY_BYTES);
        word.fetch_update(Ordering::AcqRel, Ordering::Acquire, idle).is_ok()
    }

    /// Sets the flags that Xen sets for a mapped page, which no mapping here does: for tests of what a guest does then.
    ///
    /// # Panics
    /// If there is no such entry in the table.
    pub fn mark_in_use(&self, gref: GrantRef) {
        let word = self.table.u64(gref.0 as usize * ENTRY_BYTES);
        word.fetch_or(u64::from(GTF_IN_USE), Ordering::AcqRel);
    }

    /// Has it no flags?
    fn is_free(&self, gref: GrantRef) -> bool {
        let entry = self.table.u64(gref.0 as usize * ENTRY_BYTES).load(Ordering::Acquire);
        entry & u64::from(u16::MAX) == 0
    }
}

/// A domain's memory as a backend sees it.
#[derive(Debug)]
pub(super) struct ForeignMemory {
    memory: Region,
    table: Region,
}

impl ForeignMemory {
    pub(super) fn open([memory, table]: [OwnedFd; 2]) -> Result<Self> {
        let memory = Region::open(memory, MEMORY_BYTES).map_err(Error::from)?;
        Ok(Self { memory, table: Region::open(table, TABLE_BYTES).map_err(Error::from)? })
    }

    pub(super) fn memory(&self) -> &Region {
        &self.memory
    }

    pub(super) fn is_gone(&self) -> bool {
        self.table.u32(GONE_OFFSET).load(Ordering::Acquire) != 0
    }

    /// The frame of a grant to `to` that allows `access`.
    pub(super) fn frame(&self, gref: GrantRef, to: DomId, access: Access) -> Result<u32, Refusal> {
        if gref.0 >= GRANTS_MAX {
            return Err(Refusal::NoGrant);
        }
        // One load: the domain may change the entry meanwhile.
        let entry = self.table.u64(gref.0 as usize * ENTRY_BYTES).load(Ordering::Acquire).to_ne_bytes();
        let flags = u16::from_ne_bytes([entry[0], entry[1]]);
        let domid = DomId(u16::from_ne_bytes([entry[2], entry[3]]));
        let frame = u32::from_ne_bytes([entry[4], entry[5], entry[6], entry[7]]);
        if flags & GTF_PERMIT_ACCESS == 0 || domid != to || frame >= MEMORY_PAGES {
            return Err(Refusal::NoGrant);
        }
        if access == Access::Write && flags & GTF_READONLY != 0 {
            return Err(Refusal::Denied);
        }
        Ok(frame)
    }

    pub(super) fn page(&self, frame: u32) -> Result<Page> {
        page(&self.memory, frame)
    }
}

fn page(memory: &Region, frame: u32) -> Result<Page> {
    Page::of_file_at(memory, u64::from(frame) * PAGE_BYTES as u64)
}

/// A new file of zeros that nobody can shrink under those who mapped it.
pub(super) fn sealed(name: &str, length_bytes: usize) -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create(name, flags).map_err(Error::system("memfd_create"))?;
    rustix::fs::ftruncate(&file, length_bytes as u64).map_err(Error::system("size a domain's memory"))?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
        .map_err(Error::system("seal a domain's memory"))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Memory, GuestMemory, ForeignMemory) {
        let kept = Memory::create().unwrap();
        let copies = || kept.descriptors().map(|fd| fd.try_clone_to_owned().unwrap());
        let [memory, table] = copies();
        let guest = GuestMemory::open(memory, table).unwrap();
        let foreign = ForeignMemory::open(copies()).unwrap();
        (kept, guest, foreign)
    }

    #[test]
    fn a_grant_holds_for_its_domain_and_what_it_allows() {
        let (_kept, mut guest, foreign) = pair();
        let read = guest.grant(DomId(0), 7, Access::Read).unwrap();
        let write = guest.grant(DomId(3), 8, Access::Write).unwrap();
        assert_eq!(foreign.frame(read, DomId(0), Access::Read), Ok(7));
        assert_eq!(foreign.frame(read, DomId(0), Access::Write), Err(Refusal::Denied));
        assert_eq!(foreign.frame(read, DomId(1), Access::Read), Err(Refusal::NoGrant));
        assert_eq!(foreign.frame(write, DomId(3), Access::Write), Ok(8));
        guest.end_grant(write);
        assert_eq!(foreign.frame(write, DomId(3), Access::Write), Err(Refusal::NoGrant));
    }

    #[test]
    fn a_grant_in_use_is_not_ended_if_asked_so() {
        let (_kept, mut guest, foreign) = pair();
        let gref = guest.grant(DomId(0), 7, Access::Read).unwrap();
        guest.mark_in_use(gref);
        assert!(!guest.try_end_grant(gref));
        assert_eq!(foreign.frame(gref, DomId(0), Access::Read), Ok(7));
        guest.set(gref, DomId(0), 7, Access::Read);
        assert!(guest.try_end_grant(gref));
        assert_eq!(foreign.frame(gref, DomId(0), Access::Read), Err(Refusal::NoGrant));
    }

    #[test]
    fn entries_that_point_nowhere_are_no_grants() {
        let (_kept, mut guest, foreign) = pair();
        guest.set(GrantRef(9), DomId(0), MEMORY_PAGES, Access::Write);
        assert_eq!(foreign.frame(GrantRef(9), DomId(0), Access::Read), Err(Refusal::NoGrant));
        for gref in [GRANTS_MAX, u32::MAX] {
            assert_eq!(foreign.frame(GrantRef(gref), DomId(0), Access::Read), Err(Refusal::NoGrant));
        }
        assert!(guest.grant(DomId(0), MEMORY_PAGES, Access::Read).is_err());
    }

    #[test]
    fn the_table_is_finite_and_grants_are_used_in_turn() {
        let (_kept, mut guest, _foreign) = pair();
        for n in RESERVED..GRANTS_MAX {
            assert_eq!(guest.grant(DomId(0), 1, Access::Read).unwrap(), GrantRef(n));
        }
        assert!(matches!(guest.grant(DomId(0), 1, Access::Read), Err(Error::Refused(Refusal::Limit))));
        guest.end_grant(GrantRef(100));
        assert_eq!(guest.grant(DomId(0), 1, Access::Read).unwrap(), GrantRef(100));
    }

    #[test]
    fn a_backend_sees_the_memory_and_its_end() {
        let (kept, guest, foreign) = pair();
        guest.page(5).unwrap().write(10, b"frame");
        let mut seen = [0; 5];
        foreign.memory().read(5 * PAGE_BYTES + 10, &mut seen);
        assert_eq!(&seen, b"frame");
        assert!(!foreign.is_gone());
        drop(kept);
        assert!(foreign.is_gone());
    }
}
