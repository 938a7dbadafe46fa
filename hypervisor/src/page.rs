//! One shared page.

use std::fmt;
use std::mem::size_of;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::Result;
use crate::mapping::Mapping;

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;

/// Undoes what a mapping needed besides `munmap`, after it.
pub(crate) type Release = Box<dyn FnOnce() + Send + Sync>;

/// One mapped page that is shared with a peer which may be hostile: it can change at any time.
///
/// Bulk accessors copy with volatile accesses, so each call reads the peer's memory once and what was read stays
/// the same afterwards. Indexes of rings go by [`Page::load_u32`] and [`Page::store_u32`], which order the copies
/// around them. Dropping the page unmaps it.
pub struct Page {
    // Dropped in `Drop`, before `release`.
    mapping: Option<Mapping>,
    release: Option<Release>,
}

impl Page {
    pub(crate) fn new(mapping: Mapping, release: Option<Release>) -> Self {
        assert_eq!(mapping.bytes(), PAGE_BYTES, "a page is mapped whole");
        Self { mapping: Some(mapping), release }
    }

    /// The first page of a file that others map too, for a peer that stands for a daemon or a guest.
    ///
    /// # Errors
    /// What `mmap` reports.
    pub fn of_file(file: impl AsFd) -> Result<Self> {
        Ok(Self::new(Mapping::of_file(file, 0, PAGE_BYTES, "map a file's page")?, None))
    }

    /// The page of a file from `offset_bytes` on, which is a multiple of [`PAGE_BYTES`].
    ///
    /// # Errors
    /// What `mmap` reports.
    pub fn of_file_at(file: impl AsFd, offset_bytes: u64) -> Result<Self> {
        Ok(Self::new(Mapping::of_file(file, offset_bytes, PAGE_BYTES, "map a file's page")?, None))
    }

    /// A page of this process alone, for tests of ring code.
    ///
    /// # Errors
    /// What `mmap` reports.
    pub fn anonymous() -> Result<Self> {
        Ok(Self::new(Mapping::anonymous(PAGE_BYTES)?, None))
    }

    /// Copies from the page at `offset` to `to`.
    ///
    /// # Panics
    /// If the range does not lie within the page.
    #[inline]
    pub fn read(&self, offset: usize, to: &mut [u8]) {
        let from = self.at(offset, to.len());
        let head = (from.align_offset(size_of::<u64>())).min(to.len());
        let (first, rest) = to.split_at_mut(head);
        read_bytes(from, first);
        let mut words = rest.chunks_exact_mut(size_of::<u64>());
        let mut place = from.wrapping_add(head);
        for word in &mut words {
            // SAFETY: `at` checked the range; `place` is aligned to 8 because of `head`.
            let value = unsafe { place.cast::<u64>().read_volatile() };
            word.copy_from_slice(&value.to_ne_bytes());
            place = place.wrapping_add(size_of::<u64>());
        }
        read_bytes(place, words.into_remainder());
    }

    /// Copies `from` to the page at `offset`.
    ///
    /// # Panics
    /// If the range does not lie within the page.
    #[inline]
    pub fn write(&self, offset: usize, from: &[u8]) {
        let to = self.at(offset, from.len());
        let head = (to.align_offset(size_of::<u64>())).min(from.len());
        let (first, rest) = from.split_at(head);
        write_bytes(to, first);
        let words = rest.chunks_exact(size_of::<u64>());
        let tail = words.remainder();
        let mut place = to.wrapping_add(head);
        for word in words {
            let mut value = [0; size_of::<u64>()];
            value.copy_from_slice(word);
            // SAFETY: `at` checked the range; `place` is aligned to 8 because of `head`.
            unsafe { place.cast::<u64>().write_volatile(u64::from_ne_bytes(value)) };
            place = place.wrapping_add(size_of::<u64>());
        }
        write_bytes(place, tail);
    }

    /// Loads the number at `offset` with acquire order: later reads of the page see at least what the peer wrote
    /// before it stored this number with release order.
    ///
    /// # Panics
    /// If `offset` is not a multiple of 4 within the page.
    #[inline]
    pub fn load_u32(&self, offset: usize) -> u32 {
        self.u32_at(offset).load(Ordering::Acquire)
    }

    /// Stores the number at `offset` with release order: a peer that sees it sees all that was written before.
    ///
    /// # Panics
    /// If `offset` is not a multiple of 4 within the page.
    #[inline]
    pub fn store_u32(&self, offset: usize, value: u32) {
        self.u32_at(offset).store(value, Ordering::Release);
    }

    fn u32_at(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(size_of::<u32>()), "offset {offset} is not aligned");
        let place = self.at(offset, size_of::<u32>());
        // SAFETY: in range and aligned; lives as long as `self`; only ever reached as an atomic or by volatile copies.
        unsafe { AtomicU32::from_ptr(place.cast()) }
    }

    fn at(&self, offset: usize, bytes: usize) -> *mut u8 {
        assert!(
            offset <= PAGE_BYTES && bytes <= PAGE_BYTES - offset,
            "{bytes} bytes at {offset} are out of the page"
        );
        let mapping = self.mapping.as_ref().expect("is there until dropped");
        mapping.start().wrapping_add(offset)
    }
}

fn read_bytes(from: *const u8, to: &mut [u8]) {
    for (i, byte) in to.iter_mut().enumerate() {
        // SAFETY: the caller checked that `to.len()` bytes at `from` lie within the page.
        *byte = unsafe { from.wrapping_add(i).read_volatile() };
    }
}

fn write_bytes(to: *mut u8, from: &[u8]) {
    for (i, byte) in from.iter().enumerate() {
        // SAFETY: the caller checked that `from.len()` bytes at `to` lie within the page.
        unsafe { to.wrapping_add(i).write_volatile(*byte) };
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        drop(self.mapping.take());
        if let Some(release) = self.release.take() {
            release();
        }
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_and_nothing_else_changes(
            offset in 0..PAGE_BYTES, data in proptest::collection::vec(any::<u8>(), 0..200)
        ) {
            let data = &data[..data.len().min(PAGE_BYTES - offset)];
            let page = Page::anonymous().unwrap();
            page.write(0, &[0xaa; PAGE_BYTES]);
            page.write(offset, data);
            let mut back = vec![0; data.len()];
            page.read(offset, &mut back);
            prop_assert_eq!(&back, data);
            let mut all = vec![0; PAGE_BYTES];
            page.read(0, &mut all);
            let mut model = vec![0xaa; PAGE_BYTES];
            model[offset..offset + data.len()].copy_from_slice(data);
            prop_assert_eq!(all, model);
        }
    }

    #[test]
    fn numbers_are_in_the_machine_byte_order() {
        let page = Page::anonymous().unwrap();
        page.store_u32(4092, 0x0102_0304);
        assert_eq!(page.load_u32(4092), 0x0102_0304);
        let mut bytes = [0; 4];
        page.read(4092, &mut bytes);
        assert_eq!(bytes, 0x0102_0304u32.to_ne_bytes());
    }

    #[test]
    #[should_panic(expected = "out of the page")]
    fn a_range_past_the_end_is_a_broken_invariant() {
        Page::anonymous().unwrap().write(4095, &[0; 2]);
    }

    #[test]
    #[should_panic(expected = "not aligned")]
    fn an_odd_number_is_a_broken_invariant() {
        let _ = Page::anonymous().unwrap().load_u32(2);
    }
}
