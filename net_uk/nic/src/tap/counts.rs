//! What the kernel counted of a TAP device.

use std::os::fd::AsFd;

use rustix::fs::Stat;

use crate::error::{NicError, Result, system};
use crate::sys::{self, Interface};

const OWN_NAMESPACE: &str = "/proc/thread-self/ns/net";
const COUNTS: &str = "/proc/thread-self/net/dev";

/// Frames over a TAP device since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Written to it, modulo 2^32.
    pub(crate) written: u32,
    /// Read from it, modulo 2^32.
    pub(crate) read: u32,
    /// Bytes of these.
    pub(crate) read_bytes: u64,
}

impl Counts {
    /// None if they cannot be had: the device is gone, or lies in another namespace than this thread.
    ///
    /// # Errors
    /// What else the kernel reports.
    pub(crate) fn of(tap: impl AsFd) -> Result<Option<Self>> {
        let Some(interface) = Interface::of_tap(&tap)? else { return Ok(None) };
        let Some(there) = namespace_of(tap)? else { return Ok(None) };
        let here = rustix::fs::stat(OWN_NAMESPACE).map_err(system("stat"))?;
        if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino) {
            return Ok(None);
        }
        let text = std::fs::read_to_string(COUNTS)
            .map_err(|source| NicError::System { call: "read /proc/net/dev", source })?;
        Ok(Self::parse(&text, &interface.name()))
    }

    /// Of a line of `/proc/net/dev`. What the kernel receives is what was written.
    fn parse(text: &str, name: &str) -> Option<Self> {
        let of = |line: &str| {
            let (first, rest) = line.split_once(':')?;
            let numbers: Vec<u64> = rest.split_whitespace().map_while(|word| word.parse().ok()).collect();
            (first.trim() == name).then_some(numbers)
        };
        let numbers = text.lines().find_map(of)?;
        #[expect(clippy::cast_possible_truncation, reason = "modulo 2^32")]
        let frames = |at: usize| numbers.get(at).map(|count| *count as u32);
        Some(Self { written: frames(1)?, read: frames(9)?, read_bytes: *numbers.get(8)? })
    }
}

/// None if this kernel, or one without the right to ask it, does not tell.
fn namespace_of(tap: impl AsFd) -> Result<Option<Stat>> {
    match sys::tap_namespace(tap) {
        Ok(namespace) => Ok(Some(rustix::fs::fstat(namespace).map_err(system("fstat"))?)),
        Err(NicError::System { source, .. })
            if matches!(source.raw_os_error(), Some(libc::EPERM | libc::EINVAL | libc::ENOTTY)) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let text = "Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0
  tap0: 1200 4294967298 0 0 0 0 0 0 77777777777 11 0 5 0 0 0 0
 tap00: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
";
        let counts = Counts { written: 2, read: 11, read_bytes: 77_777_777_777 };
        assert_eq!(Counts::parse(text, "tap0"), Some(counts));
        assert_eq!(Counts::parse(text, "tap"), None);
        assert_eq!(Counts::parse("tap: 1 2 3", "tap"), None);
    }
}
