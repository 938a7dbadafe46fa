//! The broker's messages, as protobuf, one to a packet. Field numbers are never re-used; version 1.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use prost::{Message, Oneof};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use crate::limits::{MESSAGE_BYTES_MAX, MESSAGE_FDS_MAX};
use crate::{DomId, DomainState, Error, Result};

/// The call that an error of [`receive`] names.
pub(crate) const RECEIVE: &str = "receive a message";

/// A request.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Request {
    /// Comes back in the answer.
    #[prost(uint64, tag = "1")]
    pub(crate) number: u64,
    #[prost(oneof = "Call", tags = "2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15")]
    pub(crate) call: Option<Call>,
}

/// What is asked.
#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Call {
    /// A new handle of a domain. Answer: `value` is its number; descriptors: lease, event page, eventfd.
    #[prost(uint32, tag = "2")]
    OpenHandle(u32),
    /// Answer: `value` is the local port.
    #[prost(message, tag = "3")]
    BindInterdomain(Bind),
    /// Answer: `value` is the local port. `remote_port` is unused.
    #[prost(message, tag = "4")]
    BindUnbound(Bind),
    /// Answer: `value` is the local port. `remote_port` is the virq's number, `remote` unused.
    #[prost(message, tag = "5")]
    BindVirq(Bind),
    /// Takes events of an existing port of one's own domain.
    #[prost(message, tag = "6")]
    Claim(HandlePort),
    #[prost(message, tag = "7")]
    Unbind(HandlePort),
    /// Event page and eventfd of another handle.
    #[prost(uint64, tag = "8")]
    Peer(u64),
    #[prost(message, tag = "9")]
    MapGrant(Grant),
    /// Answer: `value` is the port of the domain's store connection.
    #[prost(uint32, tag = "10")]
    StorePort(u32),
    /// Answer: `domains` holds it, or nothing.
    #[prost(uint32, tag = "11")]
    Get(u32),
    #[prost(bool, tag = "12")]
    List(bool),
    /// Answer: `value` is the domid.
    #[prost(message, tag = "13")]
    Create(Create),
    #[prost(message, tag = "14")]
    Change(Change),
    /// Answer: descriptors of the domain's memory and its grant table.
    #[prost(uint32, tag = "15")]
    Memory(u32),
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Bind {
    #[prost(uint64, tag = "1")]
    pub(crate) handle: u64,
    #[prost(uint32, tag = "2")]
    pub(crate) remote: u32,
    #[prost(uint32, tag = "3")]
    pub(crate) remote_port: u32,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct HandlePort {
    #[prost(uint64, tag = "1")]
    pub(crate) handle: u64,
    #[prost(uint32, tag = "2")]
    pub(crate) port: u32,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Grant {
    #[prost(uint32, tag = "1")]
    pub(crate) domid: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) gref: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Create {
    /// The domid to use; the next free one if absent.
    #[prost(uint32, optional, tag = "1")]
    pub(crate) domid: Option<u32>,
    /// The handle (uuid) to use; a random one if absent.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub(crate) handle: Option<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Change {
    #[prost(uint32, tag = "1")]
    pub(crate) domid: u32,
    #[prost(oneof = "Lifecycle", tags = "2, 3, 4, 5")]
    pub(crate) to: Option<Lifecycle>,
}

/// What happens to a domain.
#[derive(Clone, Copy, PartialEq, Oneof)]
pub(crate) enum Lifecycle {
    /// It shuts down for this reason.
    #[prost(uint32, tag = "2")]
    Shutdown(u32),
    /// It goes on after a shutdown.
    #[prost(bool, tag = "3")]
    Resume(bool),
    #[prost(bool, tag = "4")]
    Dying(bool),
    #[prost(bool, tag = "5")]
    Destroy(bool),
}

/// An answer.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Answer {
    #[prost(uint64, tag = "1")]
    pub(crate) number: u64,
    /// Number of a [`crate::Refusal`].
    #[prost(uint32, optional, tag = "2")]
    pub(crate) refused: Option<u32>,
    #[prost(uint64, tag = "3")]
    pub(crate) value: u64,
    #[prost(message, repeated, tag = "4")]
    pub(crate) domains: Vec<Domain>,
}

/// State of a domain.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Domain {
    #[prost(uint32, tag = "1")]
    pub(crate) domid: u32,
    #[prost(uint32, optional, tag = "2")]
    pub(crate) shutdown_reason: Option<u32>,
    #[prost(bool, tag = "3")]
    pub(crate) dying: bool,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) handle: Vec<u8>,
}

/// Sends one message without waiting for room.
pub(crate) fn send<M: Message>(socket: impl AsFd, message: &M, descriptors: &[BorrowedFd<'_>]) -> Result<()> {
    let bytes = message.encode_to_vec();
    assert!(bytes.len() <= MESSAGE_BYTES_MAX, "messages are sized by the limits");
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MESSAGE_FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        let pushed = control.push(SendAncillaryMessage::ScmRights(descriptors));
        assert!(pushed, "the buffer is sized for MESSAGE_FDS_MAX");
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::io::retry_on_intr(|| rustix::net::sendmsg(&socket, &[IoSlice::new(&bytes)], &mut control, flags))
        .map_err(gone_or("send a message"))?;
    Ok(())
}

/// Receives one message that is there. `buffer` is scratch space of [`MESSAGE_BYTES_MAX`].
///
/// # Errors
/// [`Error::BrokerGone`] at the end of the stream; [`Errno::AGAIN`] if nothing is there.
pub(crate) fn receive<M: Message + Default>(
    socket: impl AsFd,
    buffer: &mut [u8],
) -> Result<(M, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MESSAGE_FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(&socket, &mut [IoSliceMut::new(buffer)], &mut control, flags)
    })
    .map_err(gone_or(RECEIVE))?;
    let descriptors = control.drain().filter_map(rights).flatten().collect();
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(Error::Protocol("it is over the bounds"));
    }
    // The end of the stream and an empty packet look alike; no message of ours is empty.
    if received.bytes == 0 {
        return Err(Error::BrokerGone);
    }
    Ok((M::decode(&buffer[..received.bytes])?, descriptors))
}

fn rights(message: RecvAncillaryMessage<'_>) -> Option<impl Iterator<Item = OwnedFd>> {
    match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    }
}

fn gone_or(what: &'static str) -> impl FnOnce(Errno) -> Error {
    move |error| match error {
        Errno::PIPE | Errno::CONNRESET => Error::BrokerGone,
        source => Error::System { what, source },
    }
}

impl From<DomainState> for Domain {
    fn from(state: DomainState) -> Self {
        Self {
            domid: u32::from(state.domid.0),
            shutdown_reason: state.shutdown.then(|| u32::from(state.shutdown_reason.unwrap_or(u8::MAX))),
            dying: state.dying,
            handle: state.handle.to_vec(),
        }
    }
}

impl TryFrom<&Domain> for DomainState {
    type Error = Error;

    fn try_from(domain: &Domain) -> Result<Self> {
        let bad = || Error::Protocol("a domain's state is out of range");
        Ok(Self {
            domid: DomId(u16::try_from(domain.domid).map_err(|_| bad())?),
            shutdown: domain.shutdown_reason.is_some(),
            shutdown_reason: domain.shutdown_reason.map(u8::try_from).transpose().map_err(|_| bad())?,
            dying: domain.dying,
            handle: domain.handle.as_slice().try_into().map_err(|_| bad())?,
        })
    }
}
