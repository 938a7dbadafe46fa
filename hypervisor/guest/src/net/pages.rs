//! A part of the guest's memory, for one queue.

use hypervisor::local::{Access, GuestMemory};
use hypervisor::{DomId, GrantRef, PAGE_BYTES, Page};

use crate::Result;

/// Pages in a row and the grants on them.
#[derive(Debug)]
pub struct Pages {
    memory: GuestMemory,
    backend: DomId,
    first: u32,
}

impl Pages {
    /// Pages from frame `first` on, to be granted to `backend`.
    pub fn new(memory: GuestMemory, backend: DomId, first: u32) -> Self {
        Self { memory, backend, first }
    }

    /// Maps one of the pages.
    ///
    /// # Errors
    /// What `mmap` reports.
    pub fn page(&self, number: u32) -> Result<Page> {
        Ok(self.memory.page(self.first + number)?)
    }

    /// Grants one of the pages.
    ///
    /// # Errors
    /// If all grants are in use.
    pub fn grant(&mut self, number: u32, access: Access) -> Result<GrantRef> {
        Ok(self.memory.grant(self.backend, self.first + number, access)?)
    }

    /// Ends a grant, unless it is in use. Did it?
    pub fn end(&self, gref: GrantRef) -> bool {
        self.memory.try_end_grant(gref)
    }

    /// Writes to one of the pages.
    pub fn write(&self, number: u32, offset: u16, bytes: &[u8]) {
        self.memory.memory().write(self.place(number, offset), bytes);
    }

    /// Appends what is in one of the pages to `bytes`.
    pub fn read(&self, number: u32, offset: u16, length: usize, bytes: &mut Vec<u8>) {
        let start = bytes.len();
        bytes.resize(start + length, 0);
        self.memory.memory().read(self.place(number, offset), &mut bytes[start..]);
    }

    fn place(&self, number: u32, offset: u16) -> usize {
        (self.first + number) as usize * PAGE_BYTES + usize::from(offset)
    }
}
