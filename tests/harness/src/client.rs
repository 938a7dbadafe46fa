//! A client of the store, whether it comes by the socket or by a guest's ring.

use std::io::ErrorKind;
use std::time::Duration;

use sim_guest::{Guest, Tx};
use tests::RawClient;
use xs_protocol::{MessageType, XsError};

/// How long an answer or an event may take, with faults going on.
pub const WAIT: Duration = tests::limits::ANSWER_WAIT;

/// What a client got instead of an answer.
#[derive(Debug)]
pub enum Trouble {
    /// The store answered with an error.
    Refused(String),
    /// The connection is gone.
    Closed(String),
    /// Nothing came in time.
    Silent,
    /// What came is no answer to what was asked.
    Nonsense(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(name) => write!(f, "refused with {name}"),
            Self::Closed(why) => write!(f, "connection closed: {why}"),
            Self::Silent => write!(f, "nothing for {} s", WAIT.as_secs()),
            Self::Nonsense(what) => write!(f, "nonsense: {what}"),
        }
    }
}

/// The way to the store.
pub enum Client {
    /// By the Unix socket, with a second connection for events.
    Socket { writer: RawClient, watcher: RawClient },
    /// By a ring, which carries both.
    Ring(Box<Guest>),
}

impl Client {
    /// Sends a request and waits for its answer.
    pub fn request(&mut self, kind: MessageType, tx: u32, payload: &[u8]) -> Result<Vec<u8>, Trouble> {
        match self {
            Self::Socket { writer, .. } => {
                writer.request(kind, tx, payload).map_err(|error| socket_trouble(&error))
            }
            Self::Ring(guest) => {
                guest.request(kind, Tx(tx), &[payload]).map_err(|error| ring_trouble(&error))
            }
        }
    }

    /// Watches everything below a path.
    pub fn watch(&mut self, path: &str) -> Result<(), Trouble> {
        let payload = format!("{path}\0t\0");
        match self {
            Self::Socket { watcher, .. } => watcher
                .request(MessageType::WATCH, 0, payload.as_bytes())
                .map(drop)
                .map_err(|error| socket_trouble(&error)),
            Self::Ring(guest) => guest.watch(path, "t").map_err(|error| ring_trouble(&error)),
        }
    }

    /// The path of the next event.
    pub fn event(&mut self) -> Result<String, Trouble> {
        match self {
            Self::Socket { watcher, .. } => {
                let event = watcher.event().map_err(|error| socket_trouble(&error))?;
                let path = event.payload.split(|byte| *byte == 0).next().unwrap_or_default();
                Ok(String::from_utf8_lossy(path).into_owned())
            }
            Self::Ring(guest) => match guest.next_event(WAIT).map_err(|error| ring_trouble(&error))? {
                Some(event) => Ok(event.path),
                None => Err(Trouble::Silent),
            },
        }
    }

    /// Asks something on the connection of the events. Events that nobody expected have come by the time of the answer;
    /// gives their number.
    pub fn surplus_events(&mut self) -> Result<usize, Trouble> {
        match self {
            Self::Socket { watcher, .. } => {
                watcher.request(MessageType::READ, 0, b"/\0").map_err(|error| socket_trouble(&error))?;
                Ok(watcher.kept_events())
            }
            Self::Ring(guest) => {
                guest.read("domid").map_err(|error| ring_trouble(&error))?;
                let mut count = 0;
                while guest.next_event(Duration::ZERO).map_err(|error| ring_trouble(&error))?.is_some() {
                    count += 1;
                }
                Ok(count)
            }
        }
    }
}

fn socket_trouble(error: &std::io::Error) -> Trouble {
    match error.kind() {
        ErrorKind::Other => Trouble::Refused(error.to_string()),
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Trouble::Silent,
        ErrorKind::InvalidData => Trouble::Nonsense(error.to_string()),
        _ => Trouble::Closed(error.to_string()),
    }
}

fn ring_trouble(error: &sim_guest::Error) -> Trouble {
    match error {
        sim_guest::Error::Store(name) => Trouble::Refused(name.name().to_owned()),
        sim_guest::Error::UnknownError(name) => Trouble::Refused(name.clone()),
        sim_guest::Error::Timeout { .. } => Trouble::Silent,
        sim_guest::Error::Message(_) | sim_guest::Error::Ring(_) => Trouble::Nonsense(error.to_string()),
        other => Trouble::Closed(other.to_string()),
    }
}

/// Whether an answer is a transaction's conflict.
pub fn is_conflict(trouble: &Trouble) -> bool {
    matches!(trouble, Trouble::Refused(name) if name == XsError::EAGAIN.name())
}
