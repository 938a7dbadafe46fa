//! One client's load, and the judgement of everything that it gets.
//!
//! A worker has a directory of its own, so it knows at each moment what must be there: after every answer the model
//! and the store agree, and each change gives its watch exactly one event, in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use xs_protocol::MessageType;

use crate::client::{Client, Trouble, is_conflict};
use crate::report::Tally;

/// Nodes of a worker's directory at most.
const NODES: u64 = 24;
/// Nodes that nobody changes.
pub const CONSTANTS: u64 = 64;
/// Longest value, in bytes.
const VALUE_BYTES_MAX: usize = 400;
/// Findings that are kept in words.
const FINDINGS_MAX: usize = 20;

/// The path of a node that nobody changes.
pub fn constant_path(number: u64) -> String {
    format!("/crash/constant/n{number}")
}

/// Its value.
pub fn constant_value(number: u64) -> String {
    format!("the value of constant {number} ").repeat(6)
}

/// What all workers share.
#[derive(Default)]
pub struct Shared {
    /// The load ends.
    pub stop: AtomicBool,
    /// Increments of the common counter that were acknowledged.
    pub increments: AtomicU64,
}

/// One client.
pub struct Worker {
    name: String,
    client: Client,
    home: String,
    model: BTreeMap<String, Vec<u8>>,
    rng: fastrand::Rng,
    shared: Arc<Shared>,
    /// Operations done; the harness sees by it that the store serves.
    pub progress: Arc<AtomicU64>,
    tally: Tally,
    counts_in_common: bool,
    /// Between two operations.
    pause: Duration,
}

impl Worker {
    /// Prepares a client whose directory `home` is there.
    pub fn new(
        name: String,
        client: Client,
        home: String,
        seed: u64,
        shared: Arc<Shared>,
        pause: Duration,
    ) -> Self {
        let counts_in_common = matches!(client, Client::Socket { .. });
        Self {
            name,
            client,
            home,
            model: BTreeMap::new(),
            rng: fastrand::Rng::with_seed(seed),
            shared,
            progress: Arc::default(),
            tally: Tally::default(),
            counts_in_common,
            pause,
        }
    }

    /// Works until it is told to stop; gives what it counted.
    pub fn run(mut self) -> Tally {
        let watched = self.home.clone();
        if let Err(trouble) = self.client.watch(&watched).and_then(|()| self.client.event().map(drop)) {
            self.find("watch", &trouble);
            return self.tally;
        }
        while !self.shared.stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            if let Err(trouble) = self.step() {
                self.find("step", &trouble);
                if !matches!(trouble, Trouble::Refused(_)) {
                    return self.tally;
                }
            }
            self.tally.latency(began.elapsed());
            self.progress.fetch_add(1, Ordering::Relaxed);
            if !self.pause.is_zero() {
                std::thread::sleep(self.pause);
            }
        }
        match self.client.surplus_events() {
            Ok(0) => {}
            Ok(count) => self.tally.repeated_events += count as u64,
            Err(trouble) => self.find("end", &trouble),
        }
        self.compare_all();
        self.tally
    }

    fn step(&mut self) -> Result<(), Trouble> {
        match self.rng.u32(0..100) {
            0..35 => self.write(),
            35..65 => self.read(),
            65..75 => self.list(),
            75..83 => self.remove(),
            83..90 => self.transaction(),
            90..96 => self.read_constant(),
            _ if self.counts_in_common => self.increment(),
            _ => self.read(),
        }
    }

    fn write(&mut self) -> Result<(), Trouble> {
        let path = self.any_path();
        let length = self.rng.usize(0..VALUE_BYTES_MAX);
        let value: Vec<u8> = (0..length).map(|_| self.rng.alphanumeric() as u8).collect();
        let payload = [path.as_bytes(), b"\0", &value].concat();
        match self.client.request(MessageType::WRITE, 0, &payload) {
            Ok(_) => {
                self.model.insert(path.clone(), value);
                self.expect_event(&path)
            }
            Err(trouble) => self.settle_unknown(trouble, &path),
        }
    }

    fn read(&mut self) -> Result<(), Trouble> {
        let path = self.any_path();
        let answer = self.client.request(MessageType::READ, 0, format!("{path}\0").as_bytes());
        let found = match answer {
            Ok(value) => Some(value),
            Err(Trouble::Refused(name)) if name == "ENOENT" => None,
            Err(trouble) => return self.count_refusal(trouble),
        };
        if found.as_ref() != self.model.get(&path) {
            self.wrong(&format!("{path} is {found:?}, must be {:?}", self.model.get(&path)));
        }
        Ok(())
    }

    /// A node that nobody changes: it is harmed in memory instead.
    fn read_constant(&mut self) -> Result<(), Trouble> {
        let number = self.rng.u64(0..CONSTANTS);
        let path = constant_path(number);
        match self.client.request(MessageType::READ, 0, format!("{path}\0").as_bytes()) {
            Ok(value) if value == constant_value(number).as_bytes() => Ok(()),
            Ok(value) => {
                self.wrong(&format!("{path} is {:?}", String::from_utf8_lossy(&value)));
                Ok(())
            }
            Err(trouble) => self.count_refusal(trouble),
        }
    }

    fn list(&mut self) -> Result<(), Trouble> {
        let home = format!("{}\0", self.home);
        let answer = match self.client.request(MessageType::DIRECTORY, 0, home.as_bytes()) {
            Ok(answer) => answer,
            Err(trouble) => return self.count_refusal(trouble),
        };
        let mut names: Vec<String> = answer
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
            .map(|name| format!("{}/{}", self.home, String::from_utf8_lossy(name)))
            .collect();
        names.sort();
        let known: Vec<&String> = self.model.keys().collect();
        if !names.iter().eq(known.iter().copied()) {
            self.wrong(&format!("{} lists {names:?}, must be {known:?}", self.home));
        }
        Ok(())
    }

    fn remove(&mut self) -> Result<(), Trouble> {
        let path = self.any_path();
        let present = self.model.contains_key(&path);
        match self.client.request(MessageType::RM, 0, format!("{path}\0").as_bytes()) {
            Ok(_) => {
                self.model.remove(&path);
                if present { self.expect_event(&path) } else { Ok(()) }
            }
            Err(trouble) => self.settle_unknown(trouble, &path),
        }
    }

    /// Two writes that must come to be together, with a read of the first inside.
    fn transaction(&mut self) -> Result<(), Trouble> {
        let (first, second) = (self.any_path(), self.any_path());
        let value = self.rng.u64(..).to_string().into_bytes();
        let tx = match self.begin() {
            Ok(tx) => tx,
            Err(trouble) => return self.count_refusal(trouble),
        };
        for path in [&first, &second] {
            let payload = [path.as_bytes(), b"\0", &value].concat();
            if let Err(trouble) = self.client.request(MessageType::WRITE, tx, &payload) {
                return self.count_refusal(trouble);
            }
        }
        match self.client.request(MessageType::READ, tx, format!("{first}\0").as_bytes()) {
            Ok(read) if read == value => {}
            Ok(read) => self.wrong(&format!("{first} in a transaction is {read:?}, must be {value:?}")),
            Err(trouble) => return self.count_refusal(trouble),
        }
        match self.client.request(MessageType::TRANSACTION_END, tx, b"T\0") {
            Ok(_) => {
                for path in [&first, &second] {
                    self.model.insert(path.clone(), value.clone());
                }
                self.expect_event(&first)?;
                if first == second { Ok(()) } else { self.expect_event(&second) }
            }
            Err(trouble) if is_conflict(&trouble) => {
                self.tally.conflicts += 1;
                Ok(())
            }
            Err(trouble) => {
                self.settle_unknown(trouble, &first)?;
                if first == second { Ok(()) } else { self.resynchronise(&second) }
            }
        }
    }

    /// Adds one to the counter that all socket clients share.
    fn increment(&mut self) -> Result<(), Trouble> {
        let tx = match self.begin() {
            Ok(tx) => tx,
            Err(trouble) => return self.count_refusal(trouble),
        };
        let value = match self.client.request(MessageType::READ, tx, b"/crash/counter\0") {
            Ok(value) => String::from_utf8_lossy(&value).parse::<u64>(),
            Err(trouble) => return self.count_refusal(trouble),
        };
        let Ok(value) = value else {
            self.wrong("the common counter is no number");
            return Ok(());
        };
        let payload = format!("/crash/counter\0{}", value + 1);
        if let Err(trouble) = self.client.request(MessageType::WRITE, tx, payload.as_bytes()) {
            return self.count_refusal(trouble);
        }
        match self.client.request(MessageType::TRANSACTION_END, tx, b"T\0") {
            Ok(_) => drop(self.shared.increments.fetch_add(1, Ordering::Relaxed)),
            Err(trouble) if is_conflict(&trouble) => self.tally.conflicts += 1,
            Err(trouble) => {
                self.tally.unknown_increments += 1;
                return self.count_refusal(trouble);
            }
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<u32, Trouble> {
        let answer = self.client.request(MessageType::TRANSACTION_START, 0, b"\0")?;
        let number = String::from_utf8_lossy(&answer).trim_end_matches('\0').parse();
        number.map_err(|_| Trouble::Nonsense("no transaction's number".to_owned()))
    }

    fn any_path(&mut self) -> String {
        format!("{}/n{}", self.home, self.rng.u64(0..NODES))
    }

    fn expect_event(&mut self, path: &str) -> Result<(), Trouble> {
        let relative = self.relative(path);
        match self.client.event() {
            Ok(seen) if seen == path || seen == relative => {
                self.tally.events += 1;
                Ok(())
            }
            Ok(seen) => {
                self.tally.wrong_events += 1;
                self.note(&format!("event {seen}, must be {path}"));
                Ok(())
            }
            Err(Trouble::Silent) => {
                self.tally.lost_events += 1;
                self.note(&format!("no event for {path}"));
                Ok(())
            }
            Err(trouble) => Err(trouble),
        }
    }

    fn relative(&self, path: &str) -> String {
        path.strip_prefix(&format!("{}/", self.home)).unwrap_or(path).to_owned()
    }

    /// EIO leaves open whether the change came to be; every other refusal of a client's own node is a wrong answer.
    fn settle_unknown(&mut self, trouble: Trouble, path: &str) -> Result<(), Trouble> {
        self.count_refusal(trouble)?;
        self.resynchronise(path)
    }

    /// Finds out what became of a change. A logged request behind it is answered only after it is done or never will be.
    fn resynchronise(&mut self, path: &str) -> Result<(), Trouble> {
        let mark = format!("{}/n0", self.home);
        loop {
            match self.client.request(MessageType::WRITE, 0, format!("{mark}\0sync").as_bytes()) {
                Ok(_) => break,
                Err(trouble) => self.count_refusal(trouble)?,
            }
        }
        self.model.insert(mark.clone(), b"sync".to_vec());
        // Events of changes that came to be after all, up to the mark's own.
        loop {
            let seen = self.client.event()?;
            if seen == mark || seen == self.relative(&mark) {
                break;
            }
        }
        match self.client.request(MessageType::READ, 0, format!("{path}\0").as_bytes()) {
            Ok(value) => drop(self.model.insert(path.to_owned(), value)),
            Err(Trouble::Refused(name)) if name == "ENOENT" => drop(self.model.remove(path)),
            Err(trouble) => return Err(trouble),
        }
        Ok(())
    }

    fn count_refusal(&mut self, trouble: Trouble) -> Result<(), Trouble> {
        match trouble {
            Trouble::Refused(name) if name == "EIO" => {
                self.tally.refused += 1;
                Ok(())
            }
            Trouble::Refused(name) => {
                self.wrong(&format!("{name} for a request of its own directory"));
                Ok(())
            }
            trouble => Err(trouble),
        }
    }

    fn compare_all(&mut self) {
        for (path, value) in std::mem::take(&mut self.model) {
            match self.client.request(MessageType::READ, 0, format!("{path}\0").as_bytes()) {
                Ok(found) if found == value => {}
                Ok(found) => self.lose(&format!("{path} is {found:?} at the end, must be {value:?}")),
                Err(trouble) => self.lose(&format!("{path} at the end: {trouble}")),
            }
        }
    }

    fn lose(&mut self, what: &str) {
        self.tally.lost += 1;
        self.note(what);
    }

    fn wrong(&mut self, what: &str) {
        self.tally.wrong += 1;
        self.note(what);
    }

    fn find(&mut self, at: &str, trouble: &Trouble) {
        match trouble {
            Trouble::Closed(_) => self.tally.closed += 1,
            Trouble::Silent => self.tally.silent += 1,
            Trouble::Nonsense(_) => self.tally.wrong += 1,
            Trouble::Refused(_) => self.tally.refused += 1,
        }
        self.note(&format!("{at}: {trouble}"));
    }

    fn note(&mut self, what: &str) {
        if self.tally.findings.len() < FINDINGS_MAX {
            self.tally.findings.push(format!("{}: {what}", self.name));
        }
    }
}
