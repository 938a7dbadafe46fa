//! The broker's shell: sockets, memfds, eventfds around the [`Machine`].

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::{EventfdFlags, epoll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::event_page::{EventPage, Route};
use super::machine::{Effect, HandleId, Life, Machine, STORE_PORT};
use super::memory::{Memory, sealed};
use super::wire::{self, Answer, Call, Lifecycle, Request};
use crate::limits::{CLIENTS_MAX, EPOLL_EVENTS_MAX, MESSAGE_BYTES_MAX};
use crate::{DomId, DomainState, Error, GrantRef, PAGE_BYTES, Port, Refusal, Result, Virq};

const LISTENER: u64 = 0;
/// Set in the epoll data of leases, whose other bits are the handle; clients have it clear.
const LEASE: u64 = 1 << 63;
const BACKLOG: i32 = 512;

/// The broker.
#[derive(Debug)]
pub struct Server {
    listener: OwnedFd,
    epoll: OwnedFd,
    machine: Machine,
    store_pages: BTreeMap<DomId, OwnedFd>,
    memories: BTreeMap<DomId, Memory>,
    handles: BTreeMap<HandleId, Handle>,
    clients: BTreeMap<u64, OwnedFd>,
    next_client: u64,
    buffer: Vec<u8>,
    /// Given up to make room for a moment when descriptors run out.
    spare: Option<OwnedFd>,
}

/// What the broker keeps of a handle. Dropping it tells the holders by the lease's hang-up.
#[derive(Debug)]
struct Handle {
    page: EventPage,
    file: OwnedFd,
    wake: OwnedFd,
    _lease: OwnedFd,
}

/// What an answer carries besides its number.
#[derive(Default)]
struct Reply<'a> {
    value: u64,
    domains: Vec<wire::Domain>,
    descriptors: Vec<Descriptor<'a>>,
}

enum Descriptor<'a> {
    Kept(BorrowedFd<'a>),
    Given(OwnedFd),
}

impl Server {
    /// Listens on a socket at `path`. A dead broker's socket there is replaced.
    ///
    /// # Errors
    /// If a living broker listens there, or the kernel refuses.
    pub fn bind(path: &Path) -> Result<Self> {
        let listener = listen(path)?;
        let epoll =
            epoll::create(epoll::CreateFlags::CLOEXEC).map_err(Error::system("create an epoll set"))?;
        watch(&epoll, &listener, LISTENER, epoll::EventFlags::IN)?;
        let store_pages = BTreeMap::from([(DomId::DOM0, store_page()?)]);
        Ok(Self {
            listener,
            epoll,
            machine: Machine::new(),
            store_pages,
            memories: BTreeMap::new(),
            handles: BTreeMap::new(),
            clients: BTreeMap::new(),
            next_client: LISTENER + 1,
            buffer: vec![0; MESSAGE_BYTES_MAX],
            spare: spare(),
        })
    }

    /// Serves for ever.
    ///
    /// # Errors
    /// Only if the kernel refuses to wait.
    pub fn run(&mut self) -> Result<std::convert::Infallible> {
        loop {
            self.step()?;
        }
    }

    fn step(&mut self) -> Result<()> {
        let mut events = Vec::with_capacity(EPOLL_EVENTS_MAX);
        rustix::io::retry_on_intr(|| {
            epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None)
        })
        .map_err(Error::system("wait for events"))?;
        for event in events {
            match event.data.u64() {
                LISTENER => self.accept(),
                token if token & LEASE != 0 => self.close_handle(HandleId(token & !LEASE)),
                token => self.serve(token),
            }
        }
        Ok(())
    }

    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let client = match rustix::net::accept_with(&self.listener, flags) {
            Ok(client) => client,
            Err(Errno::MFILE | Errno::NFILE) => return self.turn_away(),
            // The client is gone already.
            Err(_) => return,
        };
        if self.clients.len() >= CLIENTS_MAX {
            return;
        }
        let token = self.next_client;
        self.next_client += 1;
        if watch(&self.epoll, &client, token, epoll::EventFlags::IN).is_ok() {
            self.clients.insert(token, client);
        }
    }

    /// Hangs up on one client that there is no descriptor for, which otherwise would be reported for ever.
    fn turn_away(&mut self) {
        self.spare = None;
        drop(rustix::net::accept(&self.listener));
        self.spare = spare();
    }

    /// Answers one request of a client, or drops a client that is gone, does not read or does not speak our language.
    fn serve(&mut self, token: u64) {
        let Some(client) = self.clients.remove(&token) else { return };
        let outcome = wire::receive::<Request>(&client, &mut self.buffer)
            .and_then(|(request, _)| self.answer(&client, request));
        let nothing_there =
            matches!(outcome, Err(Error::System { source: Errno::AGAIN, what: wire::RECEIVE }));
        if outcome.is_ok() || nothing_there {
            self.clients.insert(token, client);
        }
    }

    fn answer(&mut self, client: &OwnedFd, request: Request) -> Result<()> {
        let (answer, descriptors) = match self.call(request.call) {
            Ok(reply) => {
                let Reply { value, domains, descriptors } = reply;
                (Answer { number: request.number, refused: None, value, domains }, descriptors)
            }
            Err(refusal) => {
                let refused = Some(refusal.number());
                (Answer { number: request.number, refused, ..Answer::default() }, vec![])
            }
        };
        let borrowed: Vec<_> = descriptors.iter().map(Descriptor::as_fd).collect();
        wire::send(client, &answer, &borrowed)
    }

    fn call(&mut self, call: Option<Call>) -> Result<Reply<'_>, Refusal> {
        match call.ok_or(Refusal::Malformed)? {
            Call::OpenHandle(domid) => self.open_handle(domid_of(domid)?),
            Call::Peer(handle) => self.peer(HandleId(handle)),
            Call::MapGrant(grant) => self.map_grant(domid_of(grant.domid)?, GrantRef(grant.gref)),
            Call::Memory(domid) => self.memory(domid_of(domid)?),
            Call::Get(domid) => Ok(domains(self.machine.get(domid_of(domid)?))),
            Call::List(_) => Ok(domains(self.machine.list())),
            Call::StorePort(domid) => {
                self.machine.get(domid_of(domid)?).ok_or(Refusal::NoDomain)?;
                Ok(value(STORE_PORT.0))
            }
            call => self.change(call),
        }
    }

    /// Calls that change the machine and give a number.
    fn change(&mut self, call: Call) -> Result<Reply<'static>, Refusal> {
        let machine = &mut self.machine;
        let outcome = match call {
            Call::BindInterdomain(bind) => machine
                .bind_interdomain(HandleId(bind.handle), domid_of(bind.remote)?, Port(bind.remote_port))
                .map(|port| port.0),
            Call::BindUnbound(bind) => {
                machine.bind_unbound(HandleId(bind.handle), domid_of(bind.remote)?).map(|port| port.0)
            }
            Call::BindVirq(bind) => {
                let virq = Virq::from_number(bind.remote_port).ok_or(Refusal::Malformed)?;
                machine.bind_virq(HandleId(bind.handle), virq).map(|port| port.0)
            }
            Call::Claim(at) => machine.claim(HandleId(at.handle), Port(at.port)).map(|()| at.port),
            Call::Unbind(at) => machine.unbind(HandleId(at.handle), Port(at.port)).map(|()| at.port),
            Call::Create(create) => self.create(&create).map(|domid| u32::from(domid.0)),
            Call::Change(change) => self.change_life(change).map(|()| change.domid),
            _ => Err(Refusal::Malformed),
        };
        self.apply_effects();
        outcome.map(value)
    }

    fn create(&mut self, create: &wire::Create) -> Result<DomId, Refusal> {
        let wanted = create.domid.map(domid_of).transpose()?;
        let handle = match &create.handle {
            Some(bytes) => bytes.as_slice().try_into().map_err(|_| Refusal::Malformed)?,
            None => random_handle().map_err(|_| Refusal::Resources)?,
        };
        let page = store_page().map_err(|_| Refusal::Resources)?;
        let domid = self.machine.create(wanted, handle)?;
        self.store_pages.insert(domid, page);
        Ok(domid)
    }

    fn change_life(&mut self, change: wire::Change) -> Result<(), Refusal> {
        let domid = domid_of(change.domid)?;
        let life = match change.to.ok_or(Refusal::Malformed)? {
            Lifecycle::Shutdown(reason) => {
                Life::Shutdown(u8::try_from(reason).map_err(|_| Refusal::Malformed)?)
            }
            Lifecycle::Resume(_) => Life::Resume,
            Lifecycle::Dying(_) => Life::Dying,
            Lifecycle::Destroy(_) => Life::Gone,
        };
        self.machine.change(domid, life)?;
        if life == Life::Gone {
            self.store_pages.remove(&domid);
            // Those who mapped it see that it is nobody's any more.
            self.memories.remove(&domid);
        }
        Ok(())
    }

    fn open_handle(&mut self, domid: DomId) -> Result<Reply<'_>, Refusal> {
        let handle = self.machine.open(domid)?;
        let (kept, lease) = match self.make_handle(handle, domid) {
            Ok(made) => made,
            Err(_) => {
                self.machine.close(handle);
                return Err(Refusal::Resources);
            }
        };
        let kept = self.handles.entry(handle).or_insert(kept);
        let descriptors = vec![
            Descriptor::Given(lease),
            Descriptor::Kept(kept.file.as_fd()),
            Descriptor::Kept(kept.wake.as_fd()),
        ];
        Ok(Reply { value: handle.0, descriptors, ..Reply::default() })
    }

    fn make_handle(&self, handle: HandleId, domid: DomId) -> Result<(Handle, OwnedFd)> {
        let (page, file) = EventPage::create(handle, domid)?;
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(Error::system("eventfd"))?;
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .map_err(Error::system("make a lease"))?;
        // Hang-up is always reported.
        watch(&self.epoll, &ours, LEASE | handle.0, epoll::EventFlags::empty())?;
        Ok((Handle { page, file, wake, _lease: ours }, theirs))
    }

    fn close_handle(&mut self, handle: HandleId) {
        self.machine.close(handle);
        self.apply_effects();
        self.handles.remove(&handle);
    }

    fn peer(&self, handle: HandleId) -> Result<Reply<'_>, Refusal> {
        let kept = self.handles.get(&handle).ok_or(Refusal::NoHandle)?;
        let descriptors = vec![Descriptor::Kept(kept.file.as_fd()), Descriptor::Kept(kept.wake.as_fd())];
        Ok(Reply { value: handle.0, descriptors, ..Reply::default() })
    }

    fn map_grant(&self, domid: DomId, gref: GrantRef) -> Result<Reply<'_>, Refusal> {
        // As on Xen, a dying domain's page can still be mapped.
        self.machine.get(domid).ok_or(Refusal::NoDomain)?;
        if gref != GrantRef::XENSTORE {
            return Err(Refusal::NoGrant);
        }
        let page = self.store_pages.get(&domid).ok_or(Refusal::NoGrant)?;
        Ok(Reply { descriptors: vec![Descriptor::Kept(page.as_fd())], ..Reply::default() })
    }

    fn memory(&mut self, domid: DomId) -> Result<Reply<'_>, Refusal> {
        self.machine.get(domid).ok_or(Refusal::NoDomain)?;
        let memory = match self.memories.entry(domid) {
            Entry::Occupied(made) => made.into_mut(),
            Entry::Vacant(place) => place.insert(Memory::create().map_err(|_| Refusal::Resources)?),
        };
        let descriptors = memory.descriptors().map(Descriptor::Kept).into();
        Ok(Reply { value: u64::from(domid.0), descriptors, ..Reply::default() })
    }

    fn apply_effects(&mut self) {
        for effect in self.machine.take_effects() {
            self.apply(effect);
        }
        let machine = &self.machine;
        self.handles.retain(|handle, _| machine.is_open(*handle));
    }

    fn apply(&self, effect: Effect) {
        let (Effect::Route(handle, ..) | Effect::Raise(handle, _) | Effect::Close(handle, _)) = effect;
        let Some(kept) = self.handles.get(&handle) else { return };
        match effect {
            Effect::Route(_, port, Some((peer, peer_port))) => {
                kept.page.set_route(port, Route::To(peer, peer_port));
            }
            Effect::Route(_, port, None) => kept.page.set_route(port, Route::Idle),
            Effect::Close(_, port) => kept.page.reset(port),
            Effect::Raise(_, port) => {
                if kept.page.raise(port) {
                    wake(&kept.wake);
                }
            }
        }
    }
}

impl Descriptor<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Kept(fd) => *fd,
            Self::Given(fd) => fd.as_fd(),
        }
    }
}

/// Makes an eventfd readable.
pub(super) fn wake(eventfd: impl AsFd) {
    // A full counter is readable already, which is all that matters.
    let _ = rustix::io::write(eventfd, &1u64.to_ne_bytes());
}

fn value(number: u32) -> Reply<'static> {
    Reply { value: u64::from(number), ..Reply::default() }
}

fn domains(states: impl IntoIterator<Item = DomainState>) -> Reply<'static> {
    let domains = states.into_iter().map(wire::Domain::from).collect();
    Reply { domains, ..Reply::default() }
}

fn domid_of(number: u32) -> Result<DomId, Refusal> {
    u16::try_from(number).map(DomId).map_err(|_| Refusal::NoDomain)
}

fn spare() -> Option<OwnedFd> {
    rustix::event::eventfd(0, EventfdFlags::CLOEXEC).ok()
}

fn random_handle() -> Result<[u8; 16]> {
    let mut handle = [0; 16];
    rustix::rand::getrandom(&mut handle, rustix::rand::GetRandomFlags::empty())
        .map_err(Error::system("getrandom"))?;
    Ok(handle)
}

fn store_page() -> Result<OwnedFd> {
    sealed("ppvmm-store-page", PAGE_BYTES)
}

fn watch(set: &OwnedFd, fd: impl AsFd, token: u64, flags: epoll::EventFlags) -> Result<()> {
    epoll::add(set, fd, epoll::EventData::new_u64(token), flags).map_err(Error::system("watch a descriptor"))
}

fn listen(path: &Path) -> Result<OwnedFd> {
    let address = SocketAddrUnix::new(path).map_err(Error::system("broker's socket path"))?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .map_err(Error::system("make the broker's socket"))?;
    match rustix::net::bind(&socket, &address) {
        Err(Errno::ADDRINUSE) if !is_alive(&address)? => {
            rustix::fs::unlink(path).map_err(Error::system("remove a dead broker's socket"))?;
            rustix::net::bind(&socket, &address)
        }
        bound => bound,
    }
    .map_err(Error::system("bind the broker's socket"))?;
    rustix::net::listen(&socket, BACKLOG).map_err(Error::system("listen on the broker's socket"))?;
    Ok(socket)
}

fn is_alive(address: &SocketAddrUnix) -> Result<bool> {
    let probe =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(Error::system("make a socket"))?;
    Ok(rustix::net::connect(&probe, address) != Err(Errno::CONNREFUSED))
}
