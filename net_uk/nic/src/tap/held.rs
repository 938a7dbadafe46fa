//! The descriptors of a TAP device.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use lane::Lane;
use rustix::fs::{Mode, OFlags};

use crate::error::{NicError, Result, system};
use crate::nic::COOKIE_WORD;
use crate::spec::NicSpec;
use crate::sys::{self, Interface};
use crate::tap::counts::Counts;
use crate::tap::notes::Notes;

/// A TAP device, and a socket in the network namespace of its interface.
#[derive(Debug)]
pub struct TapHeld {
    tap: OwnedFd,
    socket: OwnedFd,
    spec: NicSpec,
}

impl TapHeld {
    /// Opens a TAP device, and makes it if there is none of this name. The kernel keeps `rx_slots` frames for the driver.
    ///
    /// # Errors
    /// [`NicError::Spec`], or what the kernel reports.
    pub fn open(spec: &NicSpec) -> Result<Self> {
        spec.check()?;
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let tap =
            rustix::fs::open("/dev/net/tun", flags, Mode::empty()).map_err(system("open /dev/net/tun"))?;
        sys::make_tap(&tap, &spec.interface, spec.offload)?;
        if spec.offload {
            sys::set_tap_offload(&tap)?;
        }
        let socket = sys::packet_socket()?;
        if let Some(interface) = Interface::of_tap(&tap)? {
            interface.set_queue_frames(&socket, spec.rx_slots)?;
        }
        Ok(Self { tap, socket, spec: spec.clone() })
    }

    /// Takes over the descriptors.
    ///
    /// # Errors
    /// [`NicError::Spec`], [`NicError::Descriptors`].
    pub fn from_fds(spec: &NicSpec, fds: Vec<OwnedFd>) -> Result<Self> {
        spec.check()?;
        let [tap, socket] =
            <[_; 2]>::try_from(fds).map_err(|fds| NicError::Descriptors { have: fds.len(), need: 2 })?;
        Ok(Self { tap, socket, spec: spec.clone() })
    }

    /// The descriptors: of the device, and of the socket.
    pub fn fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.tap.as_fd(), self.socket.as_fd()]
    }

    /// Towards the wire and from it: the number of the frame that comes next. None where nothing tells.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn handed(&self, lane: &Lane) -> Result<[Option<u32>; 2]> {
        let words = lane.words();
        match Counts::of(&self.tap)? {
            Some(counts) if words.nic(COOKIE_WORD) == sys::cookie_of(&self.socket)? => {
                Ok(Notes::handed(&words, counts, lane.rx().consumed().frames))
            }
            _ => Ok([None; 2]),
        }
    }

    /// What it was opened with.
    pub fn spec(&self) -> &NicSpec {
        &self.spec
    }
}
