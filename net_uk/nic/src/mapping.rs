//! Memory shared with the kernel.

use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use rustix::mm::{MapFlags, ProtFlags};

use crate::error::{Result, system};

/// A mapped descriptor. Offsets are checked; out of bounds is a broken invariant and panics.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    length_bytes: usize,
}

// SAFETY: the mapping lives as long as the value and is not bound to a thread.
unsafe impl Send for Mapping {}

impl Mapping {
    pub(crate) fn new(fd: impl AsFd, length_bytes: usize, offset: u64) -> Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address that the kernel picks overlaps nothing.
        let base = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), length_bytes, protection, MapFlags::SHARED, fd, offset)
        }
        .map_err(system("mmap"))?;
        let base = NonNull::new(base.cast::<u8>()).expect("mmap without MAP_FIXED never gives address 0");
        Ok(Self { base, length_bytes })
    }

    /// The shared word at `offset`, which must be a multiple of 4.
    pub(crate) fn u32(&self, offset: usize) -> &AtomicU32 {
        let pointer = self.pointer(offset, 4).cast::<AtomicU32>();
        assert!(pointer.is_aligned(), "offset {offset} is not a multiple of 4");
        // SAFETY: in bounds and aligned by the checks above; mapped as long as `self`; only ever used as an atomic.
        unsafe { pointer.as_ref() }
    }

    /// The shared word at `offset`, which must be a multiple of 8.
    pub(crate) fn u64(&self, offset: usize) -> &AtomicU64 {
        let pointer = self.pointer(offset, 8).cast::<AtomicU64>();
        assert!(pointer.is_aligned(), "offset {offset} is not a multiple of 8");
        // SAFETY: in bounds and aligned by the checks above; mapped as long as `self`; only ever used as an atomic.
        unsafe { pointer.as_ref() }
    }

    /// Where it lies in this process, and its length.
    pub(crate) fn place(&self) -> (u64, u64) {
        (self.base.addr().get() as u64, self.length_bytes as u64)
    }

    /// Bytes that nobody else writes.
    ///
    /// # Safety
    /// The kernel and all other processes must leave the range alone as long as the reference lives.
    pub(crate) unsafe fn bytes(&self, offset: usize, length_bytes: usize) -> &[u8] {
        let start = self.pointer(offset, length_bytes);
        // SAFETY: in bounds by the check above, mapped as long as `self`; unchanged by the caller's promise.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), length_bytes) }
    }

    /// Bytes that nobody else reads or writes.
    ///
    /// # Safety
    /// The kernel and all other processes must leave the range alone as long as the reference lives, and there must be no
    /// other reference to it.
    #[expect(
        clippy::mut_from_ref,
        reason = "the memory is not Rust's; the caller promises that it is unshared"
    )]
    pub(crate) unsafe fn bytes_mut(&self, offset: usize, length_bytes: usize) -> &mut [u8] {
        let start = self.pointer(offset, length_bytes);
        // SAFETY: in bounds by the check above, mapped as long as `self`; unshared by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), length_bytes) }
    }

    fn pointer(&self, offset: usize, length_bytes: usize) -> NonNull<u8> {
        let end = offset.checked_add(length_bytes);
        assert!(
            end.is_some_and(|end| end <= self.length_bytes),
            "{length_bytes} bytes at {offset} are outside {}",
            self.length_bytes
        );
        // SAFETY: the offset was just checked to lie inside the mapping.
        unsafe { self.base.add(offset) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this address and length, and nothing borrows it any more.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.length_bytes) };
        debug_assert!(unmapped.is_ok());
    }
}
