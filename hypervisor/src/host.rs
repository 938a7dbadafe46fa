//! The traits that hide which hypervisor there is.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::{DomId, Grants, Page, Port, Result, Virq, local, xen};

/// Which hypervisor there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Xen, through the kernel's devices.
    Xen,
    /// The broker `ppvmm-hv` with simulated guests.
    Local,
}

impl Profile {
    /// As options call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Xen => "xen",
            Self::Local => "local",
        }
    }
}

/// How to reach the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSpec {
    /// Which hypervisor.
    pub profile: Profile,
    /// Socket of the broker; unused on Xen.
    pub local_socket: PathBuf,
}

impl HostSpec {
    /// Name of the broker's socket in the run directory.
    pub const LOCAL_SOCKET_NAME: &str = "ppvmm-hv.sock";

    /// Takes the explicit profile, else Xen if its devices are there, else the local one. The broker's socket is
    /// [`Self::LOCAL_SOCKET_NAME`] in `rundir`.
    pub fn detect(explicit: Option<Profile>, rundir: &Path) -> Self {
        // Linux creates these devices only when it runs on Xen.
        let found = if xen::devices_exist() { Profile::Xen } else { Profile::Local };
        let profile = explicit.unwrap_or(found);
        Self { profile, local_socket: rundir.join(Self::LOCAL_SOCKET_NAME) }
    }
}

/// All that a service needs of the hypervisor. The parts are independent and may go to different threads.
pub struct Host {
    /// One event channel handle.
    pub events: Box<dyn EventChannels>,
    /// Store pages of guests.
    pub pages: Box<dyn StorePages>,
    /// Granted pages of guests.
    pub grants: Box<dyn Grants>,
    /// States of domains.
    pub domains: Box<dyn DomainInfo>,
}

impl Host {
    /// Opens the host with a fresh event channel handle.
    ///
    /// # Errors
    /// If a device or the broker cannot be opened, or the hypervisor's interface is unknown.
    pub fn open(spec: &HostSpec) -> Result<Self> {
        match spec.profile {
            Profile::Xen => xen::open(),
            Profile::Local => local::open(&spec.local_socket, DomId::DOM0),
        }
    }

    /// Opens the host, taking over the handle whose descriptors ([`EventChannels::handles`]) another process kept:
    /// all its ports stay bound.
    ///
    /// A port that the other process had taken from [`EventChannels::pending`] is still masked: call
    /// [`EventChannels::unmask`] for every known port and look at every ring once.
    ///
    /// # Errors
    /// As [`Self::open`]; [`crate::Error::Adopt`] if the descriptors are not a handle's.
    pub fn adopt(spec: &HostSpec, handles: Vec<OwnedFd>) -> Result<Self> {
        match spec.profile {
            Profile::Xen => xen::adopt(handles),
            Profile::Local => local::adopt(&spec.local_socket, handles),
        }
    }
}

/// What a backend needs of the hypervisor, and may have in a domain without privileges too.
pub struct BackendHost {
    /// One event channel handle.
    pub events: Box<dyn EventChannels>,
    /// Granted pages of guests.
    pub grants: Box<dyn Grants>,
}

impl BackendHost {
    /// Opens it with a fresh event channel handle.
    ///
    /// # Errors
    /// If a device or the broker cannot be opened.
    pub fn open(spec: &HostSpec) -> Result<Self> {
        match spec.profile {
            Profile::Xen => xen::open_backend(None),
            Profile::Local => Host::open(spec).map(Self::from),
        }
    }

    /// Opens it with a handle that another process kept; see [`Host::adopt`].
    ///
    /// # Errors
    /// As [`Self::open`]; [`crate::Error::Adopt`] if the descriptors are not a handle's.
    pub fn adopt(spec: &HostSpec, handles: Vec<OwnedFd>) -> Result<Self> {
        match spec.profile {
            Profile::Xen => xen::open_backend(Some(handles)),
            Profile::Local => Host::adopt(spec, handles).map(Self::from),
        }
    }
}

impl From<Host> for BackendHost {
    fn from(host: Host) -> Self {
        Self { events: host.events, grants: host.grants }
    }
}

/// One event channel handle: a set of bound ports with their pending events.
///
/// A port is pending after its peer notified it, and right after it was bound (an earlier event may have been lost).
/// [`Self::pending`] gives it out once and masks it; events from then on are kept until [`Self::unmask`].
/// When the last holder of a handle closes it, its ports are closed and their peers can be bound to again.
pub trait EventChannels: Send {
    /// Readable, by level, when a port is pending; may be readable for nothing. To be waited on only after
    /// [`Self::pending`] returned `None`.
    fn wait_fd(&self) -> BorrowedFd<'_>;

    /// The descriptors that another process may adopt with [`Host::adopt`], in this order. A duplicate of all keeps
    /// the ports bound. Two processes may hold a handle, but only one may call its methods at a time.
    fn handles(&self) -> Vec<BorrowedFd<'_>>;

    /// Binds a new local port to a port that domain `remote` allocated for us.
    ///
    /// # Errors
    /// If there is no such domain, or its port is not waiting for us.
    fn bind_interdomain(&mut self, remote: DomId, remote_port: Port) -> Result<Port>;

    /// Allocates a port that `remote` can bind to.
    ///
    /// # Errors
    /// If there is no such domain, or no port is left.
    fn bind_unbound(&mut self, remote: DomId) -> Result<Port>;

    /// Binds a new local port to a virq.
    ///
    /// # Errors
    /// If another handle has it, or this domain may not have it.
    fn bind_virq(&mut self, virq: Virq) -> Result<Port>;

    /// Closes a port of this handle. Its peer can be bound to again.
    ///
    /// # Errors
    /// If the port is not this handle's.
    fn unbind(&mut self, port: Port) -> Result<()>;

    /// Makes the peer's port pending. Does nothing if the peer closed its port.
    ///
    /// # Errors
    /// If the port is not this handle's.
    fn notify(&mut self, port: Port) -> Result<()>;

    /// The next pending port, which is masked from now on, or `None`. Never blocks.
    ///
    /// # Errors
    /// If the descriptor cannot be read.
    fn pending(&mut self) -> Result<Option<Port>>;

    /// Lets the port become pending again; at once if it was notified meanwhile.
    ///
    /// # Errors
    /// If the port is not this handle's; Xen passes over such a port.
    fn unmask(&mut self, port: Port) -> Result<()>;
}

/// Access to store pages.
pub trait StorePages: Send {
    /// Maps a guest's store page by the grant reserved for it ([`crate::GrantRef::XENSTORE`]). `gfn` is the page's
    /// frame number as the toolstack gave it, unused as long as grants work.
    ///
    /// # Errors
    /// If there is no such domain, or it has not granted the page to us. Xen tells neither from the other (`EINVAL`).
    fn map_guest(&self, domid: DomId, gfn: u64) -> Result<Page>;

    /// Maps our own domain's store page, and gives the port to bind to with
    /// [`EventChannels::bind_interdomain`] ([`DomId::DOM0`]).
    ///
    /// # Errors
    /// If this domain has no store page.
    fn map_own(&self) -> Result<(Page, Port)>;
}

/// Access to the states of domains.
pub trait DomainInfo: Send {
    /// A domain's state, or `None` if there is no such domain.
    ///
    /// # Errors
    /// If the question could not be asked or was not understood.
    fn get(&self, domid: DomId) -> Result<Option<DomainState>>;

    /// The states of all domains by rising domid, at most [`crate::limits::DOMAINS_MAX`].
    ///
    /// # Errors
    /// As [`Self::get`].
    fn list(&self) -> Result<Vec<DomainState>>;
}

/// State of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DomainState {
    /// The domain.
    pub domid: DomId,
    /// It shut down (or crashed, or suspended) and waits for the toolstack.
    pub shutdown: bool,
    /// Why it shut down (`SHUTDOWN_*` in `xen/include/public/sched.h`), if it did.
    pub shutdown_reason: Option<u8>,
    /// It is being destroyed.
    pub dying: bool,
    /// The toolstack's handle (uuid): differs when the domid is used by another domain. All zero for domain 0.
    pub handle: [u8; 16],
}
