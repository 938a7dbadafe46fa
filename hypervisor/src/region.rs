//! A memfd mapped into several processes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence};

use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, ProtFlags};

/// What can go wrong with a region.
#[derive(Debug, thiserror::Error)]
pub enum RegionError {
    /// The kernel refused.
    #[error("{call}: {source}")]
    System {
        /// The call.
        call: &'static str,
        /// Its error.
        source: rustix::io::Errno,
    },
    /// The descriptor is smaller than its user needs.
    #[error("shared memory of {have_bytes} bytes, {need_bytes} are needed")]
    TooSmall {
        /// Its length.
        have_bytes: usize,
        /// The length needed.
        need_bytes: usize,
    },
}

/// A mapped, shared piece of memory. Offsets are checked; out of bounds is a broken invariant and panics.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    length_bytes: usize,
    fd: OwnedFd,
}

// SAFETY: the mapping lives as long as the value and is reached through atomics and raw copies only.
unsafe impl Send for Region {}
// SAFETY: as above; no reference to the plain bytes is ever given out.
unsafe impl Sync for Region {}

impl Region {
    /// Makes a zeroed region.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn create(name: &str, length_bytes: usize) -> Result<Self, RegionError> {
        Self::create_with(name, length_bytes, MemfdFlags::CLOEXEC)
    }

    /// Makes a zeroed region that can be sealed.
    pub(crate) fn create_sealable(name: &str, length_bytes: usize) -> Result<Self, RegionError> {
        Self::create_with(name, length_bytes, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
    }

    fn create_with(name: &str, length_bytes: usize, flags: MemfdFlags) -> Result<Self, RegionError> {
        let fd = rustix::fs::memfd_create(name, flags)
            .map_err(|source| RegionError::System { call: "memfd_create", source })?;
        rustix::fs::ftruncate(&fd, length_bytes as u64)
            .map_err(|source| RegionError::System { call: "ftruncate", source })?;
        Self::open(fd, length_bytes)
    }

    /// Maps a region that another process made.
    ///
    /// # Errors
    /// [`RegionError::TooSmall`] if it holds less than `need_bytes`.
    pub fn open(fd: OwnedFd, need_bytes: usize) -> Result<Self, RegionError> {
        let stat = rustix::fs::fstat(&fd).map_err(|source| RegionError::System { call: "fstat", source })?;
        let have_bytes = usize::try_from(stat.st_size).unwrap_or(0);
        if have_bytes < need_bytes || need_bytes == 0 {
            return Err(RegionError::TooSmall { have_bytes, need_bytes });
        }
        // SAFETY: a fresh mapping at an address that the kernel picks overlaps nothing.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                have_bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &fd,
                0,
            )
        }
        .map_err(|source| RegionError::System { call: "mmap", source })?;
        let base = NonNull::new(base.cast::<u8>()).expect("mmap without MAP_FIXED never gives address 0");
        Ok(Self { base, length_bytes: have_bytes, fd })
    }

    /// Its length.
    #[inline]
    pub fn length_bytes(&self) -> usize {
        self.length_bytes
    }

    /// The shared word at `offset`, which must be a multiple of 8.
    #[inline]
    pub fn u64(&self, offset: usize) -> &AtomicU64 {
        let pointer = self.pointer(offset, 8).cast::<AtomicU64>();
        assert!(pointer.is_aligned(), "offset {offset} is not a multiple of 8");
        // SAFETY: in bounds and aligned by the checks above; mapped as long as `self`; only ever used as an atomic.
        unsafe { pointer.as_ref() }
    }

    /// The shared word at `offset`, which must be a multiple of 4.
    #[inline]
    pub fn u32(&self, offset: usize) -> &AtomicU32 {
        let pointer = self.pointer(offset, 4).cast::<AtomicU32>();
        assert!(pointer.is_aligned(), "offset {offset} is not a multiple of 4");
        // SAFETY: in bounds and aligned by the checks above; mapped as long as `self`; only ever used as an atomic.
        unsafe { pointer.as_ref() }
    }

    /// Copies bytes out.
    #[inline]
    pub fn read(&self, offset: usize, bytes: &mut [u8]) {
        let from = self.pointer(offset, bytes.len());
        // Others write here: what this process wrote before must not be taken for what is there now. (It was, after a
        // system call that the compiler was told changes no memory.)
        compiler_fence(Ordering::SeqCst);
        // SAFETY: `from` has `bytes.len()` mapped bytes; `bytes` is private memory, so they do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), bytes.as_mut_ptr(), bytes.len()) }
    }

    /// Copies bytes in.
    #[inline]
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        let to = self.pointer(offset, bytes.len());
        // SAFETY: `to` has `bytes.len()` mapped bytes; `bytes` is private memory, so they do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.as_ptr(), bytes.len()) }
        compiler_fence(Ordering::SeqCst);
    }

    /// Copies bytes to another region, without a detour.
    ///
    /// # Panics
    /// If a range lies outside its region.
    pub fn copy_to(&self, offset: usize, to: &Self, to_offset: usize, length_bytes: usize) {
        let from = self.pointer(offset, length_bytes);
        let target = to.pointer(to_offset, length_bytes);
        compiler_fence(Ordering::SeqCst);
        // SAFETY: both have `length_bytes` mapped bytes; `copy` allows them to overlap.
        unsafe { std::ptr::copy(from.as_ptr(), target.as_ptr(), length_bytes) }
        compiler_fence(Ordering::SeqCst);
    }

    /// Gives the pages that lie wholly inside the range back to the kernel; they read as zero afterwards.
    ///
    /// # Errors
    /// What `fallocate` reports.
    pub fn release(&self, offset: usize, length_bytes: usize) -> Result<(), RegionError> {
        if length_bytes == 0 {
            return Ok(());
        }
        let mode = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.fd, mode, offset as u64, length_bytes as u64)
            .map_err(|source| RegionError::System { call: "fallocate", source })
    }

    /// Where `length_bytes` bytes at `offset` lie in this process, for system calls and hypercalls that fill them.
    #[inline]
    pub fn pointer(&self, offset: usize, length_bytes: usize) -> NonNull<u8> {
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

impl AsFd for Region {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `open` with this address and length, and nothing borrows it any more.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.length_bytes) };
        debug_assert!(unmapped.is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_mappings_show_the_same_memory() {
        let a = Region::create("test", 8192).unwrap();
        let b = Region::open(a.as_fd().try_clone_to_owned().unwrap(), 8192).unwrap();
        a.write(4095, b"xy");
        a.u64(16).store(7, Ordering::Release);
        let mut bytes = [0; 2];
        b.read(4095, &mut bytes);
        assert_eq!(&bytes, b"xy");
        assert_eq!(b.u64(16).load(Ordering::Acquire), 7);
    }

    #[test]
    fn released_pages_read_as_zero() {
        let region = Region::create("test", 8192).unwrap();
        region.write(0, &[9; 8192]);
        region.release(0, 4096).unwrap();
        let mut bytes = [1; 2];
        region.read(4095, &mut bytes);
        assert_eq!(bytes, [0, 9]);
    }

    #[test]
    fn a_region_that_is_too_small_is_refused() {
        let region = Region::create("test", 4096).unwrap();
        let fd = region.as_fd().try_clone_to_owned().unwrap();
        assert!(matches!(Region::open(fd, 4097), Err(RegionError::TooSmall { have_bytes: 4096, .. })));
    }

    #[test]
    #[should_panic(expected = "outside")]
    fn out_of_bounds_is_a_broken_invariant() {
        Region::create("test", 4096).unwrap().write(4090, &[0; 7]);
    }
}
