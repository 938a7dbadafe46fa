//! Memory of this process alone for copies from and to granted pages.

use std::sync::atomic::{Ordering, compiler_fence};

use rustix::fs::SealFlags;

use crate::{Region, RegionError};

/// Memory that granted pages are copied into and out of, and that is read and written in place in between: no other
/// process can write to it.
#[derive(Debug)]
pub struct Buffer(Region);

impl Buffer {
    /// Makes a zeroed buffer.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn create(name: &str, length_bytes: usize) -> Result<Self, RegionError> {
        let region = Region::create_sealable(name, length_bytes)?;
        // Whoever comes by the descriptor can neither map it to write nor write to it (F_ADD_SEALS in fcntl(2)); the
        // mapping that is there stays as it is.
        let seals = SealFlags::FUTURE_WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&region, seals)
            .map_err(|source| RegionError::System { call: "fcntl(F_ADD_SEALS)", source })?;
        Ok(Self(region))
    }

    /// One side of copies. While these are about nobody has a reference to the bytes.
    pub fn region(&mut self) -> &Region {
        &self.0
    }

    /// Bytes of it.
    ///
    /// # Panics
    /// If they lie outside.
    pub fn bytes_mut(&mut self, offset: usize, length_bytes: usize) -> &mut [u8] {
        let pointer = self.0.pointer(offset, length_bytes);
        // As in `Region::read`: the kernel or the hypervisor may have written here.
        compiler_fence(Ordering::SeqCst);
        // SAFETY: in bounds, and mapped as long as `self`. This process writes through `region` and this only, which borrow
        // the value exclusively; others cannot, see `create`.
        unsafe { std::slice::from_raw_parts_mut(pointer.as_ptr(), length_bytes) }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_is_copied_in_is_read_in_place() {
        let mut buffer = Buffer::create("test", 8192).unwrap();
        buffer.region().write(4090, b"copied");
        assert_eq!(buffer.bytes_mut(4090, 6), b"copied");
        buffer.bytes_mut(4090, 2).copy_from_slice(b"ab");
        let mut bytes = [0; 6];
        buffer.region().read(4090, &mut bytes);
        assert_eq!(&bytes, b"abpied");
    }

    #[test]
    fn nobody_else_can_write_to_it() {
        let mut buffer = Buffer::create("test", 4096).unwrap();
        let fd = buffer.region().as_fd().try_clone_to_owned().unwrap();
        assert!(rustix::io::pwrite(&fd, b"x", 0).is_err());
        assert!(matches!(Region::open(fd, 4096), Err(RegionError::System { call: "mmap", .. })));
    }

    #[test]
    #[should_panic(expected = "outside")]
    fn out_of_bounds_is_a_broken_invariant() {
        Buffer::create("test", 4096).unwrap().bytes_mut(4090, 7);
    }
}
