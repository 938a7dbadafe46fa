//! The broker's client: for hosts, simulated guests, tests and the command line.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::machine::HandleId;
use super::memory::GuestMemory;
use super::wire::{self, Answer, Call, Lifecycle, Request};
use crate::limits::{BROKER_ANSWER_MS, MESSAGE_BYTES_MAX, STALE_ANSWERS_MAX};
use crate::mapping::Mapping;
use crate::{DomId, DomainState, Error, GrantRef, PAGE_BYTES, Page, Port, Refusal, Result, Virq};

/// A connection to the broker. Every call waits for the answer, at most [`BROKER_ANSWER_MS`].
#[derive(Debug)]
pub struct Broker {
    connection: Mutex<Connection>,
}

#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    next_number: u64,
    buffer: Vec<u8>,
    patience: Duration,
}

/// What to make a domain with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NewDomain {
    /// The domid; the next free one if `None`.
    pub domid: Option<DomId>,
    /// The toolstack's handle; a random one if `None`.
    pub handle: Option<[u8; 16]>,
}

/// What came back.
pub(super) struct Answered {
    pub(super) value: u64,
    pub(super) domains: Vec<wire::Domain>,
    pub(super) descriptors: Vec<OwnedFd>,
}

impl Broker {
    /// Connects to the broker's socket.
    ///
    /// # Errors
    /// What the kernel reports; no broker is `ECONNREFUSED` or `ENOENT`.
    pub fn connect(socket: &Path) -> Result<Self> {
        let address = SocketAddrUnix::new(socket).map_err(Error::system("broker's socket path"))?;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(Error::system("make a socket"))?;
        rustix::io::retry_on_intr(|| rustix::net::connect(&socket, &address))
            .map_err(Error::system("connect to the broker"))?;
        Ok(Self { connection: Mutex::new(Connection::new(socket)) })
    }

    /// Makes a domain with a store page of zeros and a store port that waits for domain 0.
    ///
    /// # Errors
    /// [`Refusal::BadDomid`], [`Refusal::Limit`], or what fails on the way.
    pub fn create_domain(&self, new: NewDomain) -> Result<DomId> {
        let create = wire::Create {
            domid: new.domid.map(|domid| u32::from(domid.0)),
            handle: new.handle.map(|handle| handle.to_vec()),
        };
        let value = self.call(Call::Create(create))?.value;
        Ok(DomId(u16::try_from(value).map_err(|_| Error::Protocol("the domid is out of range"))?))
    }

    /// The domain shuts down for a reason (`SHUTDOWN_*`: 0 poweroff, 1 reboot, 2 suspend, 3 crash).
    ///
    /// # Errors
    /// [`Refusal::NoDomain`], [`Refusal::Denied`] for domain 0, or what fails on the way.
    pub fn shutdown(&self, domid: DomId, reason: u8) -> Result<()> {
        self.change(domid, Lifecycle::Shutdown(u32::from(reason)))
    }

    /// The domain goes on after a shutdown.
    ///
    /// # Errors
    /// As [`Self::shutdown`].
    pub fn resume(&self, domid: DomId) -> Result<()> {
        self.change(domid, Lifecycle::Resume(true))
    }

    /// The domain is being destroyed: its ports close, while its page stays.
    ///
    /// # Errors
    /// As [`Self::shutdown`].
    pub fn set_dying(&self, domid: DomId) -> Result<()> {
        self.change(domid, Lifecycle::Dying(true))
    }

    /// The domain is gone at once.
    ///
    /// # Errors
    /// As [`Self::shutdown`].
    pub fn destroy(&self, domid: DomId) -> Result<()> {
        self.change(domid, Lifecycle::Destroy(true))
    }

    /// A domain's state.
    ///
    /// # Errors
    /// What fails on the way.
    pub fn get(&self, domid: DomId) -> Result<Option<DomainState>> {
        self.call(Call::Get(u32::from(domid.0)))?.domains.first().map(DomainState::try_from).transpose()
    }

    /// All domains, domain 0 included.
    ///
    /// # Errors
    /// What fails on the way.
    pub fn list(&self) -> Result<Vec<DomainState>> {
        self.call(Call::List(true))?.domains.iter().map(DomainState::try_from).collect()
    }

    /// Maps the store page of a domain.
    ///
    /// # Errors
    /// [`Refusal::NoDomain`], or what fails on the way.
    pub fn map_store_page(&self, domid: DomId) -> Result<Page> {
        let grant = wire::Grant { domid: u32::from(domid.0), gref: GrantRef::XENSTORE.0 };
        let [file] = self.call(Call::MapGrant(grant))?.take_descriptors()?;
        Ok(Page::new(Mapping::of_file(file, 0, PAGE_BYTES, "map a store page")?, None))
    }

    /// Memory and grant table of a domain, as the domain itself sees them.
    ///
    /// # Errors
    /// [`Refusal::NoDomain`], or what fails on the way.
    pub fn guest_memory(&self, domid: DomId) -> Result<GuestMemory> {
        let [memory, table] = self.memory(domid)?;
        GuestMemory::open(memory, table)
    }

    /// Descriptors of a domain's memory and grant table.
    pub(super) fn memory(&self, domid: DomId) -> Result<[OwnedFd; 2]> {
        self.call(Call::Memory(u32::from(domid.0)))?.take_descriptors()
    }

    /// The port in `domid` that its store connection uses.
    ///
    /// # Errors
    /// [`Refusal::NoDomain`], or what fails on the way.
    pub fn store_port(&self, domid: DomId) -> Result<Port> {
        port(self.call(Call::StorePort(u32::from(domid.0)))?.value)
    }

    /// New handle: its number, and lease, event page, eventfd.
    pub(super) fn open_handle(&self, domid: DomId) -> Result<[OwnedFd; 3]> {
        self.call(Call::OpenHandle(u32::from(domid.0)))?.take_descriptors()
    }

    /// Event page and eventfd of another handle.
    pub(super) fn peer(&self, handle: HandleId) -> Result<[OwnedFd; 2]> {
        self.call(Call::Peer(handle.0))?.take_descriptors()
    }

    pub(super) fn bind_interdomain(
        &self,
        handle: HandleId,
        remote: DomId,
        remote_port: Port,
    ) -> Result<Port> {
        let bind = wire::Bind { handle: handle.0, remote: u32::from(remote.0), remote_port: remote_port.0 };
        port(self.call(Call::BindInterdomain(bind))?.value)
    }

    pub(super) fn bind_unbound(&self, handle: HandleId, remote: DomId) -> Result<Port> {
        let bind = wire::Bind { handle: handle.0, remote: u32::from(remote.0), remote_port: 0 };
        port(self.call(Call::BindUnbound(bind))?.value)
    }

    pub(super) fn bind_virq(&self, handle: HandleId, virq: Virq) -> Result<Port> {
        let bind = wire::Bind { handle: handle.0, remote: 0, remote_port: virq.number() };
        port(self.call(Call::BindVirq(bind))?.value)
    }

    pub(super) fn claim(&self, handle: HandleId, port: Port) -> Result<()> {
        self.call(Call::Claim(wire::HandlePort { handle: handle.0, port: port.0 })).map(drop)
    }

    pub(super) fn unbind(&self, handle: HandleId, port: Port) -> Result<()> {
        self.call(Call::Unbind(wire::HandlePort { handle: handle.0, port: port.0 })).map(drop)
    }

    fn change(&self, domid: DomId, to: Lifecycle) -> Result<()> {
        self.call(Call::Change(wire::Change { domid: u32::from(domid.0), to: Some(to) })).map(drop)
    }

    fn call(&self, call: Call) -> Result<Answered> {
        self.connection().call(call)
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A panic in another thread leaves at worst an answer to pass over.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    fn new(socket: OwnedFd) -> Self {
        let patience = Duration::from_millis(BROKER_ANSWER_MS);
        Self { socket, next_number: 1, buffer: vec![0; MESSAGE_BYTES_MAX], patience }
    }

    fn call(&mut self, call: Call) -> Result<Answered> {
        let number = self.next_number;
        self.next_number += 1;
        wire::send(&self.socket, &Request { number, call: Some(call) }, &[])?;
        let deadline = Instant::now() + self.patience;
        for _ in 0..STALE_ANSWERS_MAX {
            self.wait(deadline)?;
            let (answer, descriptors) = wire::receive::<Answer>(&self.socket, &mut self.buffer)?;
            // An older number answers a call that was given up.
            if answer.number == number {
                return Answered::new(answer, descriptors);
            }
        }
        Err(Error::Protocol("its number is not that of the request"))
    }

    fn wait(&self, deadline: Instant) -> Result<()> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = left.try_into().map_err(|_| Error::Protocol("the wait is too long"))?;
            let mut polled = [PollFd::new(&self.socket, PollFlags::IN)];
            match rustix::event::poll(&mut polled, Some(&timeout)) {
                Ok(0) => return Err(Error::System { what: "wait for the broker", source: Errno::TIMEDOUT }),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(source) => return Err(Error::System { what: "wait for the broker", source }),
            }
        }
    }
}

impl Answered {
    fn new(answer: Answer, descriptors: Vec<OwnedFd>) -> Result<Self> {
        match answer.refused {
            Some(number) => Err(Error::Refused(Refusal::from_number(number))),
            None => Ok(Self { value: answer.value, domains: answer.domains, descriptors }),
        }
    }

    fn take_descriptors<const N: usize>(self) -> Result<[OwnedFd; N]> {
        self.descriptors.try_into().map_err(|_| Error::Protocol("it has another number of descriptors"))
    }
}

fn port(value: u64) -> Result<Port> {
    Ok(Port(u32::try_from(value).map_err(|_| Error::Protocol("the port is out of range"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Connection, OwnedFd) {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        let mut connection = Connection::new(ours);
        connection.patience = Duration::from_millis(20);
        (connection, theirs)
    }

    fn answer(broker: &OwnedFd, number: u64) {
        wire::send(broker, &Answer { number, value: number, ..Answer::default() }, &[]).unwrap();
    }

    #[test]
    fn answers_to_calls_that_were_given_up_are_passed_over() {
        let (mut connection, broker) = pair();
        let waited = connection.call(Call::List(true)).err().unwrap();
        assert!(matches!(waited, Error::System { source: Errno::TIMEDOUT, .. }));
        answer(&broker, 1);
        answer(&broker, 2);
        assert_eq!(connection.call(Call::List(true)).ok().unwrap().value, 2);
    }

    #[test]
    fn the_bound_on_stale_answers_is_reached_and_kept() {
        let (mut connection, broker) = pair();
        (0..STALE_ANSWERS_MAX).for_each(|_| answer(&broker, 77));
        assert!(matches!(connection.call(Call::List(true)), Err(Error::Protocol(_))));
    }

    #[test]
    fn a_broker_that_hangs_up_is_gone() {
        let (mut connection, broker) = pair();
        drop(broker);
        assert!(matches!(connection.call(Call::List(true)), Err(Error::BrokerGone)));
    }

    #[test]
    fn descriptors_are_counted() {
        let (mut connection, broker) = pair();
        answer(&broker, 1);
        let answered = connection.call(Call::Peer(1)).ok().unwrap();
        assert!(matches!(answered.take_descriptors::<2>(), Err(Error::Protocol(_))));
    }
}
