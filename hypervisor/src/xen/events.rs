//! Event channels by `/dev/xen/evtchn`.

use std::collections::VecDeque;
use std::ffi::c_ulong;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::sys::{self, BindInterdomain, ioctl};
use crate::limits::PORTS_PER_READ;
use crate::{DomId, Error, EventChannels, Port, Result, Virq};

const PORT_BYTES: usize = size_of::<u32>();

/// A handle: one open of the device.
#[derive(Debug)]
pub(super) struct XenEvents {
    device: OwnedFd,
    /// Read from the device, not yet given out. The kernel masks them already.
    taken: VecDeque<Port>,
    /// The last read left nothing, so that the next `None` needs no read.
    drained: bool,
}

impl XenEvents {
    pub(super) fn open() -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let device = rustix::fs::open(sys::EVTCHN_PATH, flags, Mode::empty())
            .map_err(Error::system("open /dev/xen/evtchn"))?;
        Ok(Self::of_device(device))
    }

    pub(super) fn adopt(handles: Vec<OwnedFd>) -> Result<Self> {
        let [device]: [OwnedFd; 1] =
            handles.try_into().map_err(|_| Error::Adopt("a handle has one descriptor"))?;
        let known =
            rustix::fs::stat(sys::EVTCHN_PATH).map_err(Error::system("stat /dev/xen/evtchn"))?.st_rdev;
        let given = rustix::fs::fstat(&device).map_err(Error::system("stat the event channel handle"))?;
        if given.st_rdev != known {
            return Err(Error::Adopt("the descriptor is not of /dev/xen/evtchn"));
        }
        Ok(Self::of_device(device))
    }

    fn of_device(device: OwnedFd) -> Self {
        Self { device, taken: VecDeque::with_capacity(PORTS_PER_READ), drained: false }
    }

    fn request<T>(&self, request: c_ulong, what: &'static str, argument: &mut T) -> Result<u32> {
        // SAFETY: all requests of this file are passed with the argument that `sys` computed their number from.
        unsafe { ioctl(&self.device, request, argument) }.map_err(Error::system(what))
    }

    fn refill(&mut self) -> Result<()> {
        let mut bytes = [0; PORTS_PER_READ * PORT_BYTES];
        let read = match rustix::io::retry_on_intr(|| rustix::io::read(&self.device, &mut bytes)) {
            Ok(read) => read,
            Err(Errno::AGAIN) => 0,
            Err(source) => return Err(Error::System { what: "read /dev/xen/evtchn", source }),
        };
        for chunk in bytes[..read].chunks_exact(PORT_BYTES) {
            let mut port = [0; PORT_BYTES];
            port.copy_from_slice(chunk);
            self.taken.push_back(Port(u32::from_ne_bytes(port)));
        }
        self.drained = read < bytes.len();
        Ok(())
    }
}

impl EventChannels for XenEvents {
    fn wait_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    fn handles(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.device.as_fd()]
    }

    fn bind_interdomain(&mut self, remote: DomId, remote_port: Port) -> Result<Port> {
        let mut bind = BindInterdomain { remote_domain: u32::from(remote.0), remote_port: remote_port.0 };
        // SAFETY: the request takes this struct.
        unsafe { ioctl(&self.device, sys::IOCTL_EVTCHN_BIND_INTERDOMAIN, &mut bind) }
            .map(Port)
            .map_err(|source| Error::Domain { what: "bind to an event channel", domid: remote, source })
    }

    fn bind_unbound(&mut self, remote: DomId) -> Result<Port> {
        let what = "allocate an event channel";
        self.request(sys::IOCTL_EVTCHN_BIND_UNBOUND_PORT, what, &mut u32::from(remote.0)).map(Port)
    }

    fn bind_virq(&mut self, virq: Virq) -> Result<Port> {
        self.request(sys::IOCTL_EVTCHN_BIND_VIRQ, "bind a virq", &mut virq.number()).map(Port)
    }

    fn unbind(&mut self, port: Port) -> Result<()> {
        self.request(sys::IOCTL_EVTCHN_UNBIND, "unbind an event channel", &mut port.0.clone())?;
        self.taken.retain(|taken| *taken != port);
        Ok(())
    }

    fn notify(&mut self, port: Port) -> Result<()> {
        self.request(sys::IOCTL_EVTCHN_NOTIFY, "notify an event channel", &mut port.0.clone()).map(drop)
    }

    fn pending(&mut self) -> Result<Option<Port>> {
        if self.taken.is_empty() && !self.drained {
            self.refill()?;
        }
        let port = self.taken.pop_front();
        if port.is_none() {
            self.drained = false;
        }
        Ok(port)
    }

    fn unmask(&mut self, port: Port) -> Result<()> {
        let bytes = port.0.to_ne_bytes();
        rustix::io::retry_on_intr(|| rustix::io::write(&self.device, &bytes))
            .map_err(Error::system("unmask an event channel"))?;
        Ok(())
    }
}
