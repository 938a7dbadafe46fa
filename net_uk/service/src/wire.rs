//! What the keeper and its processes say to each other, as protobuf over a [`control::Link`]. Field numbers are never
//! used again. The link is a child's standard input.

use std::os::fd::{AsFd, OwnedFd};

use control::{Link, LinkError, Packet};
use prost::{Message, Oneof};

use crate::error::Error;
use crate::poller::Poller;

/// Names of descriptors in a [`Begin`].
pub mod names {
    /// The shadow's state.
    pub const STATE: &str = "state";
    /// A lane; with the card's number behind it in a shadow's.
    pub const LANE: &str = "lane.";
    /// An eventfd that wakes a card's driver.
    pub const WAKE_DRIVER: &str = "wake-driver.";
    /// An eventfd that wakes the shadow.
    pub const WAKE_SHADOW: &str = "wake-shadow.";
    /// An eventfd that wakes the keeper when a guest sends after a pause.
    pub const BUSY: &str = "busy";
    /// The handles of the event-channel device.
    pub const EVTCHN: &str = "evtchn.";
    /// The descriptors of a network card.
    pub const NIC: &str = "nic.";
    /// What keeper and vaults share.
    pub const DESK: &str = "desk";
    /// Where the keeper's commands come from.
    pub const COMMANDS: &str = "commands";
    /// In a deposit: the lock of vaults and keepers.
    pub const LOCK: &str = "lock";
    /// The lock that all hold as long as they live.
    pub const PARTS: &str = "parts";
    /// In a deposit: the descriptors of a network card, with its number and a point behind it.
    pub const CARD: &str = "card.";
    /// In a deposit: the keeper's end of the link to a process, with the part's number behind it.
    pub const LINK: &str = "link.";
    /// In a deposit: the keeper's end of the link to a vault, with its number behind it.
    pub const VAULT: &str = "vault.";
}

/// From the keeper.
#[derive(Clone, PartialEq, Message)]
pub struct ToChild {
    /// What to do.
    #[prost(oneof = "Order", tags = "1, 2, 3")]
    pub order: Option<Order>,
}

/// The kinds of orders.
#[derive(Clone, PartialEq, Oneof)]
pub enum Order {
    /// The first one, with descriptors. Whoever has begun says again that it serves: a keeper that has just taken over knows
    /// neither whether it began nor whether it serves.
    #[prost(message, tag = "1")]
    Begin(Begin),
    /// Behave as a broken driver would: for tests, and refused unless faults were allowed at the start.
    #[prost(message, tag = "2")]
    Misbehave(Misbehave),
    /// End.
    #[prost(bool, tag = "3")]
    Stop(bool),
}

/// What a process needs to begin.
#[derive(Clone, PartialEq, Message)]
pub struct Begin {
    /// Which process of its kind it is, counted from 1.
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    /// Names of the descriptors, in their order.
    #[prost(string, repeated, tag = "2")]
    pub names: Vec<String>,
    /// The network cards: all of them for a shadow, its own for a driver.
    #[prost(message, repeated, tag = "3")]
    pub nics: Vec<Nic>,
    /// Faults may be injected.
    #[prost(bool, tag = "4")]
    pub injection: bool,
}

/// A network card.
#[derive(Clone, PartialEq, Message)]
pub struct Nic {
    /// Its number.
    #[prost(uint32, tag = "1")]
    pub number: u32,
    /// How it was opened ([`nic::NicSpec`] as text).
    #[prost(string, tag = "2")]
    pub spec: String,
}

/// How to misbehave.
#[derive(Clone, PartialEq, Message)]
pub struct Misbehave {
    /// A [`crate::driver::Fault`] by name.
    #[prost(string, tag = "1")]
    pub fault: String,
}

/// To the keeper.
#[derive(Clone, PartialEq, Message)]
pub struct FromChild {
    /// What is said.
    #[prost(oneof = "Said", tags = "1, 2, 3")]
    pub said: Option<Said>,
}

/// The kinds of reports.
#[derive(Clone, PartialEq, Oneof)]
pub enum Said {
    /// It serves.
    #[prost(bool, tag = "1")]
    Ready(bool),
    /// Something happened.
    #[prost(message, tag = "2")]
    Noted(Noted),
    /// A driver wrote nonsense into its lane.
    #[prost(message, tag = "3")]
    Accused(Accused),
}

/// A driver wrote nonsense into its lane.
#[derive(Clone, PartialEq, Message)]
pub struct Accused {
    /// The network card.
    #[prost(uint32, tag = "1")]
    pub nic: u32,
    /// Which driver of it.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// What it wrote.
    #[prost(string, tag = "3")]
    pub detail: String,
}

/// Something that happened.
#[derive(Clone, PartialEq, Message)]
pub struct Noted {
    /// What, in a word.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// More of it.
    #[prost(string, tag = "2")]
    pub detail: String,
}

/// A child's end of the link.
#[derive(Debug)]
pub struct Boss {
    link: Link,
    gone: bool,
    /// Held, and nothing else: so whoever starts the service again knows that we live.
    _alive: Option<OwnedFd>,
}

/// The first order with its descriptors.
#[derive(Debug)]
pub struct Begun {
    /// The order.
    pub begin: Begin,
    descriptors: Named,
}

/// Descriptors by name.
pub type Named = Vec<(String, OwnedFd)>;

/// Takes a descriptor by name.
///
/// # Errors
/// [`Error::Missing`].
pub fn take_named(named: &mut Named, name: &str, what: &'static str) -> Result<OwnedFd, Error> {
    let at = named.iter().position(|(known, _)| known == name).ok_or(Error::Missing { name: what })?;
    Ok(named.remove(at).1)
}

/// Takes all whose names begin so, in their order.
pub fn take_all_named(named: &mut Named, prefix: &str) -> Vec<OwnedFd> {
    let (taken, left) = named.drain(..).partition::<Vec<_>, _>(|(name, _)| name.starts_with(prefix));
    *named = left;
    taken.into_iter().map(|(_, fd)| fd).collect()
}

impl Boss {
    /// Takes the link that the keeper left as standard input, and waits for the first order.
    ///
    /// # Errors
    /// [`Error::Link`]; [`Error::Missing`] if something else comes first.
    pub fn meet() -> Result<(Self, Begun), Error> {
        let stdin = std::io::stdin().as_fd().try_clone_to_owned()?;
        let link = Link::from_fd(stdin);
        let Packet { message, descriptors } = link.receive::<ToChild>()?;
        let Some(Order::Begin(begin)) = message.order else {
            return Err(Error::Missing { name: "first order" });
        };
        link.set_nonblocking(true)?;
        let mut descriptors = begin.names.iter().cloned().zip(descriptors).collect();
        let alive = take_named(&mut descriptors, names::PARTS, "lock").ok();
        Ok((Self { link, gone: false, _alive: alive }, Begun { begin, descriptors }))
    }

    /// The next order, if one is there.
    ///
    /// # Errors
    /// [`Error::Link`].
    fn order(&self) -> Result<Option<Order>, Error> {
        match self.link.receive::<ToChild>() {
            Ok(packet) => Ok(packet.message.order),
            Err(LinkError::WouldBlock) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Says something. A keeper that is gone or busy is not waited for.
    pub fn say(&self, said: Said) {
        if let Err(error) = self.link.send(&FromChild { said: Some(said) }, &[]) {
            tracing::debug!(%error, "the keeper hears nothing");
        }
    }

    /// Says that something happened.
    pub fn note(&self, kind: &str, detail: String) {
        self.say(Said::Noted(Noted { kind: kind.to_owned(), detail }));
    }
}

impl AsFd for Boss {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.link.as_fd()
    }
}

/// The next order. When keeper and vaults are gone there is none, and nobody to listen to.
///
/// # Errors
/// [`Error::System`].
pub fn next_order(boss: &mut Boss, poller: &Poller) -> Result<Option<Order>, Error> {
    if boss.gone {
        return Ok(None);
    }
    match boss.order() {
        Ok(order) => Ok(order),
        Err(error) => {
            tracing::warn!(%error, "keeper and vaults are gone");
            poller.remove(&*boss)?;
            boss.gone = true;
            Ok(None)
        }
    }
}

impl Begun {
    /// Takes a descriptor by name.
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub fn take(&mut self, name: &str, what: &'static str) -> Result<OwnedFd, Error> {
        take_named(&mut self.descriptors, name, what)
    }

    /// Takes the first whose name begins so.
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub fn take_first(&mut self, prefix: &str, what: &'static str) -> Result<OwnedFd, Error> {
        let at = self.descriptors.iter().position(|(known, _)| known.starts_with(prefix));
        let at = at.ok_or(Error::Missing { name: what })?;
        Ok(self.descriptors.remove(at).1)
    }

    /// Takes all whose names begin so, in their order.
    pub fn take_all(&mut self, prefix: &str) -> Vec<OwnedFd> {
        take_all_named(&mut self.descriptors, prefix)
    }
}
