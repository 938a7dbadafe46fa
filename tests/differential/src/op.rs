//! Operations.

use std::fmt;

use xs_protocol::MessageType as T;

/// Who does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Client {
    /// A client of the socket.
    Socket(usize),
    /// A domain, by its ring.
    Guest(u16),
}

impl Client {
    /// All that there are.
    pub const ALL: [Self; 5] =
        [Self::Socket(0), Self::Socket(1), Self::Guest(1), Self::Guest(2), Self::Guest(3)];

    /// Is it a domain?
    pub fn is_guest(self) -> bool {
        matches!(self, Self::Guest(_))
    }
}

/// In which transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxRef {
    /// None.
    No,
    /// The one that the client started as its n-th.
    Nth(usize),
    /// One that does not exist.
    Unknown,
}

/// What happens to a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    /// The hypervisor makes it.
    Create,
    /// It shuts down.
    Shutdown,
    /// It is being destroyed.
    Dying,
    /// It is gone.
    Gone,
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A request with any payload.
    Request(T, Vec<u8>),
    /// INTRODUCE with the port that the domain has.
    Introduce(u16),
    /// Something that the store hears of by VIRQ.
    Domain(u16, Lifecycle),
    /// The client's connection ends, and another begins.
    Reconnect,
}

/// An operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// Who does it; nobody in particular for a domain's life.
    pub client: Client,
    /// In which transaction.
    pub tx: TxRef,
    /// What.
    pub what: What,
}

impl Op {
    /// The type of the request; `INVALID` if it is none.
    pub fn kind(&self) -> T {
        match &self.what {
            What::Request(kind, _) => *kind,
            What::Introduce(_) => T::INTRODUCE,
            _ => T::INVALID,
        }
    }

    /// The request's payload; empty if it is none.
    pub fn payload(&self) -> &[u8] {
        match &self.what {
            What::Request(_, payload) => payload,
            _ => &[],
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ", self.client)?;
        match self.tx {
            TxRef::No => {}
            TxRef::Nth(nth) => write!(f, "[tx {nth}] ")?,
            TxRef::Unknown => write!(f, "[tx ?] ")?,
        }
        match &self.what {
            What::Request(kind, payload) => {
                let name = kind.name();
                write!(f, "{name}({}) ", kind.0)?;
                if payload.len() > 200 {
                    write!(f, "{}... {} bytes", payload[..60].escape_ascii(), payload.len())
                } else {
                    write!(f, "{}", payload.escape_ascii())
                }
            }
            other => write!(f, "{other:?}"),
        }
    }
}
