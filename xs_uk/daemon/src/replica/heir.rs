//! The heir of a replica: a process that shares the replica's table of descriptors and outlives it for a moment.
//!
//! The leader accepts clients itself, and only those that stay are given to the gateway: passing each one on would cost
//! a short-lived one more than its request does. Until then the heir is what keeps a client's connection: what the
//! leader accepts is open in the heir within the same system call. It sleeps until its replica is gone. If that one led,
//! it sends the gateway, through the leader's own link, each client that the gateway lacks, and ends. The end of that
//! link tells the gateway that nothing more will come; only then does the next leader get its clients.
//!
//! ```text
//!   leader:  accepting=1  accept  slot OPEN, number noted  accepting=0  serve ...  hand over  handed=1 ...  slot FREE  close
//!   heir if it dies there:  ----> sent without an id  ---> sent with its id ------------------> nothing to do
//! ```
//!
//! A heir reads the connection table and writes nothing to it, so that one that is late (stopped, say) does no harm.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use control::{Link, LinkError};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::sockopt;
use xs_shm::{Kind, Split, Table};

use crate::endpoints::Endpoints;
use crate::error::Error;
use crate::limits::{HANDOVER_BATCH, HEIR_SEND_WAIT};

/// What the gateway gives as the id of a client that has no slot yet.
pub const NO_ID: u64 = 0;

/// What a heir must know.
pub struct Estate<'a> {
    pub table: &'a Table,
    /// The listening socket: what is accepted from it has the same name.
    pub listener: &'a OwnedFd,
    /// How the replica calls itself as the leader (see [`Table::set_leader`]).
    pub leader: u64,
}

/// Makes the heir of this process, which must have one thread; gives a descriptor that is readable when the heir is
/// gone.
pub fn appoint(estate: &Estate<'_>) -> Result<OwnedFd, Error> {
    match xs_shm::split()? {
        Split::First(heir) => Ok(heir),
        // Ends without dropping anything: what is dropped here is closed there.
        Split::Second(replica) => match estate.wait_and_execute(&replica) {
            Ok(()) => std::process::exit(0),
            Err(error) => {
                tracing::warn!(%error, "not all clients could be left to the gateway");
                std::process::exit(1)
            }
        },
    }
}

impl Estate<'_> {
    fn wait_and_execute(&self, replica: &OwnedFd) -> Result<(), Error> {
        wait(replica.as_fd(), PollFlags::IN, None)?;
        if self.table.leader() != self.leader {
            return Ok(());
        }
        let Some(link) = self.table.leader_link() else { return Ok(()) };
        let link = Link::from_fd(xs_shm::duplicate(link).map_err(system("dup"))?);
        let clients = self.clients()?;
        for batch in clients.chunks(HANDOVER_BATCH) {
            send(&link, batch)?;
        }
        Ok(())
    }

    /// The clients that the gateway lacks.
    fn clients(&self) -> Result<Vec<(u64, OwnedFd)>, Error> {
        let sockets = self.table.used().filter(|(_, kind)| *kind == Kind::Socket);
        let noted: Vec<_> = sockets.filter_map(|(id, _)| Some((id, self.table.descriptor(id)?))).collect();
        let mut clients = Vec::new();
        for (id, (number, handed)) in &noted {
            if let Some(client) = (!handed).then(|| self.accepted(*number)).flatten() {
                clients.push((self.table.conn_id(*id), client));
            }
        }
        if self.table.is_accepting() {
            let known: Vec<RawFd> = noted.iter().map(|(_, (number, _))| *number).collect();
            let unknown = open_numbers()?.into_iter().filter(|number| !known.contains(number));
            clients.extend(unknown.filter_map(|number| Some((NO_ID, self.accepted(number)?))));
        }
        Ok(clients)
    }

    /// A descriptor under this number, if it was accepted from the listening socket.
    fn accepted(&self, number: RawFd) -> Option<OwnedFd> {
        let descriptor = xs_shm::duplicate(number).ok()?;
        let listens = sockopt::socket_acceptconn(&descriptor).ok()?;
        let name = rustix::net::getsockname(&descriptor).ok()?;
        (!listens && name == rustix::net::getsockname(self.listener).ok()?).then_some(descriptor)
    }
}

/// All numbers under which something is open.
fn open_numbers() -> Result<Vec<RawFd>, Error> {
    let numbers = std::fs::read_dir("/proc/self/fd").map_err(system("/proc/self/fd"))?;
    Ok(numbers.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

fn send(link: &Link, clients: &[(u64, OwnedFd)]) -> Result<(), Error> {
    let (ids, descriptors): (Vec<u64>, Vec<BorrowedFd<'_>>) =
        clients.iter().map(|(id, client)| (*id, client.as_fd())).unzip();
    loop {
        match link.send(&Endpoints::clients(ids.clone()), &descriptors) {
            Err(LinkError::WouldBlock) => wait(link.as_fd(), PollFlags::OUT, Some(HEIR_SEND_WAIT))?,
            other => return Ok(other?),
        }
    }
}

fn wait(
    descriptor: BorrowedFd<'_>,
    flags: PollFlags,
    most: Option<std::time::Duration>,
) -> Result<(), Error> {
    let most = most.and_then(|most| Timespec::try_from(most).ok());
    let mut polled = [PollFd::from_borrowed_fd(descriptor, flags)];
    match rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, most.as_ref())) {
        Ok(0) => Err(LinkError::WouldBlock.into()),
        Ok(_) => Ok(()),
        Err(error) => Err(Error::system("poll")(error)),
    }
}

fn system(call: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |error| {
        let source = rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::INVAL);
        Error::System { call, source }
    }
}
