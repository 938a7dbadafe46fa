//! A packet socket that carries protobuf messages and descriptors.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use prost::Message;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use crate::limits::{DESCRIPTORS_MAX, MESSAGE_BYTES_MAX};

/// What can go wrong on a link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The other end is gone.
    #[error("the other end of the link is closed")]
    Closed,
    /// Nothing to receive, or no room to send, on a link that does not block.
    #[error("the link would block")]
    WouldBlock,
    /// A message over the bound.
    #[error("message of {bytes} bytes with {descriptors} descriptors is over the bound")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// Its descriptors.
        descriptors: usize,
    },
    /// Not a message.
    #[error("undecodable message: {0}")]
    Decode(#[from] prost::DecodeError),
    /// The other end belongs to another user.
    #[error("the other end belongs to user {user}")]
    NotOurs {
        /// That user.
        user: u32,
    },
    /// The kernel refused.
    #[error("link: {0}")]
    System(#[from] rustix::io::Errno),
}

/// A received message with its descriptors.
#[derive(Debug)]
pub struct Packet<M> {
    /// The message.
    pub message: M,
    /// Its descriptors, in the order in which they were sent.
    pub descriptors: Vec<OwnedFd>,
}

/// One end of a link.
#[derive(Debug)]
pub struct Link {
    socket: OwnedFd,
}

impl Link {
    /// Makes a pair of ends, both blocking and close-on-exec.
    ///
    /// # Errors
    /// What `socketpair` reports.
    pub fn pair() -> Result<(Self, Self), LinkError> {
        let (a, b) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self { socket: a }, Self { socket: b }))
    }

    /// Reaches a socket of the same user at `path`. The end does not block.
    ///
    /// # Errors
    /// [`LinkError::NotOurs`] if another user listens there, else what the kernel reports.
    pub fn connect(path: &Path) -> Result<Self, LinkError> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        let link = Self { socket };
        link.peer()?;
        Ok(link)
    }

    /// The process at the other end of an accepted or connected link.
    ///
    /// # Errors
    /// [`LinkError::NotOurs`] if it belongs to another user.
    pub fn peer(&self) -> Result<u32, LinkError> {
        let peer = rustix::net::sockopt::socket_peercred(&self.socket)?;
        if peer.uid != rustix::process::geteuid() {
            return Err(LinkError::NotOurs { user: peer.uid.as_raw() });
        }
        Ok(peer.pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// Wraps a descriptor that is one end of a pair.
    pub fn from_fd(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Gives the descriptor away.
    pub fn into_fd(self) -> OwnedFd {
        self.socket
    }

    /// Makes calls return [`LinkError::WouldBlock`] instead of waiting, or wait again.
    ///
    /// # Errors
    /// What `ioctl` reports.
    pub fn set_nonblocking(&self, nonblocking: bool) -> Result<(), LinkError> {
        Ok(rustix::io::ioctl_fionbio(&self.socket, nonblocking)?)
    }

    /// Sends a message with descriptors.
    ///
    /// # Errors
    /// [`LinkError::TooLarge`] over the bounds, [`LinkError::Closed`] if the other end is gone,
    /// [`LinkError::WouldBlock`] on a link that does not block and is full.
    pub fn send<M: Message>(&self, message: &M, descriptors: &[BorrowedFd<'_>]) -> Result<(), LinkError> {
        let bytes = message.encode_to_vec();
        if bytes.len() > MESSAGE_BYTES_MAX || descriptors.len() > DESCRIPTORS_MAX {
            return Err(LinkError::TooLarge { bytes: bytes.len(), descriptors: descriptors.len() });
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            let pushed = control.push(SendAncillaryMessage::ScmRights(descriptors));
            assert!(pushed, "the buffer is sized for DESCRIPTORS_MAX");
        }
        rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)
        })
        .map_err(closed_or)?;
        Ok(())
    }

    /// Receives a message with its descriptors (close-on-exec).
    ///
    /// # Errors
    /// [`LinkError::Closed`] if the other end is gone, [`LinkError::WouldBlock`] on a link that does not block,
    /// [`LinkError::Decode`] and [`LinkError::TooLarge`] for what is not a message of ours.
    pub fn receive<M: Message + Default>(&self) -> Result<Packet<M>, LinkError> {
        let mut bytes = vec![0; MESSAGE_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut receive = || {
            let into = &mut [IoSliceMut::new(&mut bytes)];
            rustix::net::recvmsg(&self.socket, into, &mut control, RecvFlags::CMSG_CLOEXEC)
        };
        let received = loop {
            match receive() {
                // Told once, and first, of a peer that left something unread; what it sent comes all the same.
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => {}
                received => break received.map_err(closed_or)?,
            }
        };
        let descriptors = drain(&mut control);
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(LinkError::TooLarge { bytes: received.bytes, descriptors: descriptors.len() });
        }
        // An end of file and an empty message look alike; no message of ours is empty.
        if received.bytes == 0 {
            return Err(LinkError::Closed);
        }
        Ok(Packet { message: M::decode(&bytes[..received.bytes])?, descriptors })
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Link {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn drain(control: &mut RecvAncillaryBuffer<'_>) -> Vec<OwnedFd> {
    control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect()
}

fn closed_or(error: rustix::io::Errno) -> LinkError {
    match error {
        rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET => LinkError::Closed,
        rustix::io::Errno::AGAIN => LinkError::WouldBlock,
        other => LinkError::System(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Lead, ToService, to_service::Order};

    fn lead(epoch: u64) -> ToService {
        ToService { order: Some(Order::Lead(Lead { epoch })) }
    }

    #[test]
    fn a_message_arrives_with_its_descriptors_in_order() {
        let (a, b) = Link::pair().unwrap();
        let (left, right) = rustix::pipe::pipe().unwrap();
        a.send(&lead(7), &[left.as_fd(), right.as_fd()]).unwrap();
        let packet = b.receive::<ToService>().unwrap();
        assert_eq!(packet.message, lead(7));
        assert_eq!(packet.descriptors.len(), 2);
        rustix::io::write(&packet.descriptors[1], b"x").unwrap();
        let mut byte = [0];
        rustix::io::read(&packet.descriptors[0], &mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }

    #[test]
    fn the_bound_on_descriptors_is_reached_and_kept() {
        let (a, b) = Link::pair().unwrap();
        let descriptors = vec![a.as_fd(); DESCRIPTORS_MAX];
        a.send(&lead(1), &descriptors).unwrap();
        assert_eq!(b.receive::<ToService>().unwrap().descriptors.len(), DESCRIPTORS_MAX);
        let one_more = vec![a.as_fd(); DESCRIPTORS_MAX + 1];
        assert!(matches!(a.send(&lead(1), &one_more), Err(LinkError::TooLarge { descriptors: 129, .. })));
    }

    #[test]
    fn the_bound_on_bytes_is_kept() {
        let (a, _b) = Link::pair().unwrap();
        let noted = crate::Noted { detail: "x".repeat(MESSAGE_BYTES_MAX), ..Default::default() };
        assert!(matches!(a.send(&noted, &[]), Err(LinkError::TooLarge { .. })));
    }

    #[test]
    fn a_gone_peer_is_closed_and_an_empty_link_would_block() {
        let (a, b) = Link::pair().unwrap();
        b.set_nonblocking(true).unwrap();
        assert!(matches!(b.receive::<ToService>(), Err(LinkError::WouldBlock)));
        drop(a);
        assert!(matches!(b.receive::<ToService>(), Err(LinkError::Closed)));
        assert!(matches!(b.send(&lead(1), &[]), Err(LinkError::Closed)));
    }

    #[test]
    fn what_a_gone_peer_sent_is_received_whatever_it_left_unread() {
        let (a, b) = Link::pair().unwrap();
        b.send(&lead(1), &[]).unwrap();
        a.send(&lead(2), &[]).unwrap();
        drop(a);
        assert_eq!(b.receive::<ToService>().unwrap().message, lead(2));
        assert!(matches!(b.receive::<ToService>(), Err(LinkError::Closed)));
    }

    #[test]
    fn an_order_of_a_newer_warden_is_passed_over() {
        // Field 99 is unknown here: it decodes to a message without an order.
        let decoded = ToService::decode(&[0x9a, 0x06, 0x01, b'x'][..]).unwrap();
        assert_eq!(decoded.order, None);
    }
}
