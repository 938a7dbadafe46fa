//! A sequence on one daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use hypervisor::DomId;
use peers::{Binaries, Daemon, DomainState, Kind, Ours, Peer};
use sim_guest::{Guest, Tx};
use xs_protocol::{HEADER_BYTES, Header, MessageType as T, PAYLOAD_MAX};
use zerocopy::IntoBytes;

use crate::limits::{ANSWER_WAIT, DUMP_NODES_MAX};
use crate::op::{Client, Lifecycle, Op, TxRef, What};

/// What stops a comparison as a whole.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A daemon does not start, or its hypervisor fails.
    #[error(transparent)]
    Daemon(#[from] peers::Error),
    /// A client cannot connect.
    #[error("{0}: {1}")]
    Connect(String, std::io::Error),
    /// The system.
    #[error("make a temporary directory: {0}")]
    Directory(std::io::Error),
    /// A daemon's thread panicked.
    #[error("a daemon's thread failed")]
    Thread,
}

/// What came of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A payload.
    Ok(Vec<u8>),
    /// An error's name.
    Err(String),
    /// No answer: the connection ended, or nothing came.
    Lost(String),
    /// It was not done, because there is no such guest or transaction.
    Skipped,
}

/// An event: path and token.
pub type Event = (String, String);

/// An operation's outcome and the events after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// What the client was told.
    pub outcome: Outcome,
    /// What the clients got, each in its order.
    pub events: BTreeMap<Client, Vec<Event>>,
}

/// What [`Outcome::Lost`] says of a daemon that ended.
pub(crate) const DEAD: &str = "the daemon is dead";

/// Settings of the daemons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// As they are by default.
    Stock,
    /// With quotas that are soon reached.
    Tight,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alive {
    Yes,
    No,
}

/// A daemon with its clients.
pub struct Session {
    daemon: Box<dyn Daemon>,
    sockets: Vec<UnixStream>,
    guests: BTreeMap<u16, Guest>,
    /// Domains that the store was told of and that have not ended since.
    introduced: BTreeSet<u16>,
    ports: BTreeMap<u16, u32>,
    transactions: BTreeMap<Client, Vec<Option<u32>>>,
    events: BTreeMap<Client, Vec<Event>>,
}

/// The sequence on all three: ours, xenstored, oxenstored.
///
/// # Errors
/// If a daemon cannot be run.
pub fn run_all(ops: &[Op], profile: Profile) -> Result<[Vec<Observation>; 3], Error> {
    let dir = tempfile::tempdir().map_err(Error::Directory)?;
    let dir = dir.path();
    std::thread::scope(|scope| {
        let c = scope.spawn(move || Session::peer(Kind::Xenstored, dir, profile)?.run(ops));
        let ocaml = scope.spawn(move || Session::peer(Kind::Oxenstored, dir, profile)?.run(ops));
        let ours = Session::ours(dir, profile).and_then(|session| session.run(ops));
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join().map_err(|_| Error::Thread)?;
        let (c, ocaml) = (join(c), join(ocaml));
        Ok([ours?, c?, ocaml?])
    })
}

impl Session {
    fn ours(dir: &Path, profile: Profile) -> Result<Self, Error> {
        let flags: &[&str] = match profile {
            Profile::Stock => &["--replicas", "1"],
            Profile::Tight => &["--replicas", "1", "-E", "12", "-W", "4", "-t", "2", "-A", "3"],
        };
        Self::over(Box::new(Ours::start(&Binaries::beside_us()?, &dir.join("ours"), flags)?))
    }

    /// xenstored 4.17 allows one watch and one transaction more than its flags say, see docs/DIFFERENCES.md.
    fn peer(kind: Kind, dir: &Path, profile: Profile) -> Result<Self, Error> {
        let flags: &[&str] = match (kind, profile) {
            (Kind::Xenstored, Profile::Tight) => &["-E", "12", "-W", "3", "-t", "1", "-A", "3"],
            _ => &[],
        };
        Self::over(Box::new(Peer::start(kind, &dir.join(kind.name()), flags)?))
    }

    fn over(daemon: Box<dyn Daemon>) -> Result<Self, Error> {
        let mut session = Self {
            daemon,
            sockets: vec![],
            guests: BTreeMap::new(),
            introduced: BTreeSet::new(),
            ports: BTreeMap::new(),
            transactions: BTreeMap::new(),
            events: BTreeMap::new(),
        };
        for _ in 0..2 {
            let socket = session.connect()?;
            session.sockets.push(socket);
        }
        Ok(session)
    }

    fn connect(&self) -> Result<UnixStream, Error> {
        let fail = |error| Error::Connect(self.daemon.name().to_owned(), error);
        let stream = UnixStream::connect(self.daemon.socket()).map_err(fail)?;
        stream.set_read_timeout(Some(ANSWER_WAIT)).map_err(fail)?;
        Ok(stream)
    }

    /// Does all operations; the last observation is the whole tree.
    fn run(mut self, ops: &[Op]) -> Result<Vec<Observation>, Error> {
        let mut observations = Vec::with_capacity(ops.len() + 1);
        for op in ops {
            let mut outcome = self.execute(op)?;
            if self.take_events()? == Alive::No {
                outcome = Outcome::Lost(DEAD.into());
            }
            let dead = outcome == Outcome::Lost(DEAD.into());
            observations.push(Observation { outcome, events: std::mem::take(&mut self.events) });
            if dead {
                return Ok(observations);
            }
        }
        let dump = Outcome::Ok(self.dump()?.into_bytes());
        observations.push(Observation { outcome: dump, events: BTreeMap::new() });
        Ok(observations)
    }

    fn execute(&mut self, op: &Op) -> Result<Outcome, Error> {
        match &op.what {
            What::Request(kind, payload) => self.request(op.client, op.tx, *kind, payload),
            What::Introduce(domid) => self.introduce(op.client, *domid),
            What::Domain(domid, life) => Ok(self.live(*domid, *life)),
            What::Reconnect => self.reconnect(op.client),
        }
    }

    fn request(&mut self, client: Client, tx: TxRef, kind: T, payload: &[u8]) -> Result<Outcome, Error> {
        let started = self.transactions.entry(client).or_default();
        let tx_id = match tx {
            TxRef::No => 0,
            TxRef::Unknown => 0x7fff_0001,
            TxRef::Nth(nth) => match started.get(nth) {
                Some(Some(tx_id)) => *tx_id,
                _ => return Ok(Outcome::Skipped),
            },
        };
        let outcome = self.send(client, tx_id, kind, payload)?;
        if kind == T::TRANSACTION_START {
            let number = |text: &[u8]| std::str::from_utf8(text).ok()?.trim_end_matches('\0').parse().ok();
            let tx_id = if let Outcome::Ok(text) = &outcome { number(text) } else { None };
            self.transactions.entry(client).or_default().push(tx_id);
        }
        if kind == T::RELEASE && outcome == Outcome::Ok(b"OK\0".to_vec()) {
            let domid = String::from_utf8_lossy(payload).trim_end_matches('\0').parse().unwrap_or(0);
            self.forget_guest(domid);
            self.introduced.remove(&domid);
        }
        Ok(outcome)
    }

    fn send(&mut self, client: Client, tx_id: u32, kind: T, payload: &[u8]) -> Result<Outcome, Error> {
        match client {
            Client::Socket(number) => self.send_socket(number, tx_id, kind, payload),
            Client::Guest(domid) => Ok(self.send_ring(domid, tx_id, kind, payload)),
        }
    }

    fn send_socket(&mut self, number: usize, tx_id: u32, kind: T, payload: &[u8]) -> Result<Outcome, Error> {
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let header = Header { kind, req_id: 1, tx_id, len };
        let message = [header.as_bytes(), payload].concat();
        let outcome = match self.sockets[number].write_all(&message) {
            Ok(()) => self.receive(number),
            Err(error) => Err(error),
        };
        outcome.or_else(|error| {
            match self.connect() {
                Ok(stream) => self.sockets[number] = stream,
                Err(_) => return Ok(Outcome::Lost(DEAD.into())),
            }
            self.transactions.remove(&Client::Socket(number));
            let silent = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            Ok(Outcome::Lost(if silent { "silence" } else { "closed" }.into()))
        })
    }

    fn receive(&mut self, number: usize) -> std::io::Result<Outcome> {
        let mut stream = &self.sockets[number];
        loop {
            let mut bytes = [0; HEADER_BYTES];
            stream.read_exact(&mut bytes)?;
            let header = Header::parse(&bytes).ok_or(ErrorKind::InvalidData)?;
            let mut payload = vec![0; header.len as usize];
            stream.read_exact(&mut payload)?;
            match header.kind {
                T::WATCH_EVENT => {
                    let text = String::from_utf8_lossy(&payload).into_owned();
                    let (path, token) = text.trim_end_matches('\0').split_once('\0').unwrap_or((&text, ""));
                    let event = (path.trim_end_matches('\0').to_owned(), token.to_owned());
                    self.events.entry(Client::Socket(number)).or_default().push(event);
                }
                T::ERROR => {
                    let name = String::from_utf8_lossy(&payload);
                    return Ok(Outcome::Err(name.trim_end_matches('\0').to_owned()));
                }
                _ => return Ok(Outcome::Ok(payload)),
            }
        }
    }

    fn send_ring(&mut self, domid: u16, tx_id: u32, kind: T, payload: &[u8]) -> Outcome {
        let Some(guest) = self.guests.get_mut(&domid).filter(|_| payload.len() <= PAYLOAD_MAX) else {
            return Outcome::Skipped;
        };
        match guest.request(kind, Tx(tx_id), &[payload]) {
            Ok(payload) => Outcome::Ok(payload),
            Err(sim_guest::Error::Store(error)) => Outcome::Err(error.name().into()),
            Err(sim_guest::Error::UnknownError(name)) => Outcome::Err(name),
            Err(error) => {
                // It cannot be talked to any more until it is introduced again.
                self.forget_guest(domid);
                Outcome::Lost(error.to_string())
            }
        }
    }

    fn introduce(&mut self, client: Client, domid: u16) -> Result<Outcome, Error> {
        let port = self.ports.get(&domid).copied().unwrap_or(1);
        let payload = format!("{domid}\x001\x00{port}\0");
        let outcome = self.send(client, 0, T::INTRODUCE, payload.as_bytes())?;
        if matches!(outcome, Outcome::Ok(_)) && self.ports.contains_key(&domid) {
            self.forget_guest(domid);
            let mut guest = self.daemon.attach(DomId(domid))?;
            guest.set_reply_timeout(ANSWER_WAIT);
            self.guests.insert(domid, guest);
            self.introduced.insert(domid);
        }
        Ok(outcome)
    }

    /// The hypervisor's side: the same for all, whatever the daemon makes of it.
    fn live(&mut self, domid: u16, life: Lifecycle) -> Outcome {
        let done = match life {
            Lifecycle::Create if self.ports.contains_key(&domid) => return Outcome::Skipped,
            Lifecycle::Create => self.daemon.create_domain(DomId(domid)).map(|port| {
                self.ports.insert(domid, port);
            }),
            _ if !self.ports.contains_key(&domid) => return Outcome::Skipped,
            Lifecycle::Shutdown => self.daemon.set_state(DomId(domid), DomainState::Shutdown),
            // xenstored 4.17 does not clean up behind a dying domain that it was not told of.
            Lifecycle::Dying if !self.introduced.remove(&domid) => return Outcome::Skipped,
            Lifecycle::Dying => {
                self.forget_guest(domid);
                self.daemon.set_state(DomId(domid), DomainState::Dying)
            }
            Lifecycle::Gone => {
                self.forget_guest(domid);
                self.ports.remove(&domid);
                self.introduced.remove(&domid);
                self.daemon.set_state(DomId(domid), DomainState::Gone)
            }
        };
        match done {
            Ok(()) => Outcome::Ok(vec![]),
            Err(error) => Outcome::Lost(error.to_string()),
        }
    }

    fn reconnect(&mut self, client: Client) -> Result<Outcome, Error> {
        let Client::Socket(number) = client else { return Ok(Outcome::Skipped) };
        match self.connect() {
            Ok(stream) => self.sockets[number] = stream,
            Err(_) => return Ok(Outcome::Lost(DEAD.into())),
        }
        self.transactions.remove(&client);
        Ok(Outcome::Ok(vec![]))
    }

    fn forget_guest(&mut self, domid: u16) {
        self.guests.remove(&domid);
        self.transactions.remove(&Client::Guest(domid));
        self.events.remove(&Client::Guest(domid));
    }

    /// Whoever asks something after an operation gets the operation's events before the answer.
    fn take_events(&mut self) -> Result<Alive, Error> {
        for client in Client::ALL {
            if self.send(client, 0, T::GET_DOMAIN_PATH, b"0\0")? == Outcome::Lost(DEAD.into()) {
                return Ok(Alive::No);
            }
        }
        for (domid, guest) in &mut self.guests {
            while let Ok(Some(event)) = guest.next_event(Duration::ZERO) {
                self.events.entry(Client::Guest(*domid)).or_default().push((event.path, event.token));
            }
        }
        Ok(Alive::Yes)
    }

    /// The tree as a privileged client sees it.
    fn dump(&mut self) -> Result<String, Error> {
        let mut text = String::new();
        let mut todo = vec![String::new()];
        let mut nodes = 0;
        while let Some(path) = todo.pop() {
            nodes += 1;
            if nodes > DUMP_NODES_MAX {
                break;
            }
            let name = if path.is_empty() { "/" } else { &path };
            let payload = format!("{name}\0").into_bytes();
            let mut ask = |kind| self.send_socket(0, 0, kind, &payload);
            let (value, perms, children) = (ask(T::READ)?, ask(T::GET_PERMS)?, ask(T::DIRECTORY)?);
            text += &format!("{name} = {} ({})\n", shown(&value), shown(&perms));
            let Outcome::Ok(children) = children else { continue };
            let mut names: Vec<String> = children
                .split(|byte| *byte == 0)
                .filter(|name| !name.is_empty())
                .map(|name| format!("{path}/{}", String::from_utf8_lossy(name)))
                .collect();
            names.sort_unstable_by(|a, b| b.cmp(a));
            todo.append(&mut names);
        }
        Ok(text)
    }
}

fn shown(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Ok(bytes) => bytes.escape_ascii().to_string(),
        other => format!("{other:?}"),
    }
}
