//! A client: sends requests one by one, and writes down what it asked and heard.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use lin::{Operation, Outcome, Reply, Request, Step};
use xs_protocol::{HEADER_BYTES, Header, MessageType};

use crate::kernel::{Kernel, Shared};
use crate::limits::TICK_MS;

/// Objects of the histories.
const KEYS: usize = 3;
/// Writes of each client before the beginning.
const FILLERS: usize = 8;
/// Longest values that no history tells of.
const VALUE_BYTES_MAX: usize = 3500;
/// Steps of a transaction at most.
const STEPS_MAX: usize = 4;

/// What a request came to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Ok(Vec<u8>),
    Error(String),
}

struct Client {
    shared: Shared,
    number: u32,
    socket: UnixStream,
    received: Vec<u8>,
    req_id: u32,
    written: u32,
}

/// Runs to the end of its operations, then reads everything once more when faults have stopped.
pub async fn run(shared: Shared, number: u32) -> turmoil::Result {
    let (socket, served) = UnixStream::pair()?;
    socket.set_nonblocking(true)?;
    shared.borrow_mut().listening.push_back(served);
    let mut client = Client { shared, number, socket, received: Vec::new(), req_id: 0, written: 0 };
    client.prepare().await?;
    let operations = client.with(|kernel| kernel.options.operations);
    // The operations fill the time in which faults happen.
    let most_ms = client.with(|kernel| kernel.options.faults_ms) * 3 / 2 / operations.max(1) as u64;
    for _ in 0..operations {
        client.operate().await?;
        let pause_ms = client.with(|kernel| kernel.rng.u64(0..=most_ms));
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
    }
    // What is looked at has to be there by then, whoever wrote it.
    client.with(|kernel| kernel.done_clients += 1);
    while client.with(|kernel| kernel.faulty || kernel.done_clients < kernel.options.clients) {
        tokio::time::sleep(Duration::from_millis(TICK_MS)).await;
    }
    client.look_at_all().await?;
    Ok(())
}

impl Client {
    fn with<T>(&self, act: impl FnOnce(&mut Kernel) -> T) -> T {
        act(&mut self.shared.borrow_mut())
    }

    /// Folders and the watch; then all begin together, so that every watch is there before the first event.
    async fn prepare(&mut self) -> turmoil::Result {
        for path in ["/t", "/e"] {
            while self.ask(MessageType::MKDIR, 0, &[path.as_bytes(), b""]).await?
                != Answer::Ok(b"OK\0".to_vec())
            {}
        }
        loop {
            match self.ask(MessageType::WATCH, 0, &[b"/e", b"token", b""]).await? {
                Answer::Ok(_) => break,
                Answer::Error(error) if error == "EEXIST" => break,
                Answer::Error(_) => {}
            }
        }
        // The log is filled a little, so that it wraps around while faults happen.
        for _ in 0..FILLERS {
            self.ask(MessageType::WRITE, 0, &[b"/fill", &[b'f'; VALUE_BYTES_MAX]]).await?;
        }
        self.with(|kernel| kernel.ready_clients += 1);
        while self.with(|kernel| kernel.ready_clients < kernel.options.clients) {
            tokio::time::sleep(Duration::from_millis(TICK_MS)).await;
        }
        Ok(())
    }

    async fn operate(&mut self) -> turmoil::Result {
        match self.with(|kernel| kernel.rng.u32(0..10)) {
            0 | 1 => self.transact().await,
            2 | 3 => self.announce().await,
            _ => {
                let step = self.any_step();
                self.single(step).await
            }
        }
    }

    fn any_step(&mut self) -> Step {
        self.written += 1;
        let value = format!("{}-{}", self.number, self.written);
        let (key, below, kind) =
            self.with(|kernel| (kernel.rng.usize(0..KEYS), kernel.rng.u32(0..3), kernel.rng.u32(0..10)));
        let key = format!("/t/k{key}");
        let path = match below {
            0 => format!("{key}/a"),
            _ => key.clone(),
        };
        match kind {
            0..4 => Step::Write(path, value),
            4..7 => Step::Read(path),
            7 => Step::Rm(path),
            8 => Step::Mkdir(path),
            _ => Step::Directory(key),
        }
    }

    /// One request, with its place in the history.
    async fn single(&mut self, step: Step) -> turmoil::Result {
        let called = self.with(Kernel::tick_clock);
        let answer = self.step(&step, 0).await?;
        let reply = self.reply(&step, answer);
        let outcome = reply.map(|reply| Outcome(vec![reply]));
        self.note(called, Request(vec![step]), outcome);
        Ok(())
    }

    async fn transact(&mut self) -> turmoil::Result {
        let called = self.with(Kernel::tick_clock);
        let Answer::Ok(id) = self.ask(MessageType::TRANSACTION_START, 0, &[b"", b""]).await? else {
            return Ok(());
        };
        let id = std::str::from_utf8(id.split_last().map_or(&[], |(_, id)| id))?.parse::<u32>()?;
        let (mut steps, mut replies) = (Vec::new(), Vec::new());
        for _ in 0..self.with(|kernel| kernel.rng.usize(1..=STEPS_MAX)) {
            let step = self.any_step();
            let answer = self.step(&step, id).await?;
            // What had no certain outcome may be in the transaction: it must not be committed.
            let Some(reply) = self.reply(&step, answer) else {
                self.ask(MessageType::TRANSACTION_END, id, &[b"F", b""]).await?;
                return Ok(());
            };
            steps.push(step);
            replies.push(reply);
        }
        match self.ask(MessageType::TRANSACTION_END, id, &[b"T", b""]).await? {
            Answer::Ok(_) => self.note(called, Request(steps), Some(Outcome(replies))),
            Answer::Error(error) if error == "EIO" => self.note(called, Request(steps), None),
            Answer::Error(error) if error == "EAGAIN" => {}
            Answer::Error(error) => self.wrong(&format!("{error} to a commit")),
        }
        Ok(())
    }

    /// Writes a node that is never written again: all watchers must hear of it once.
    async fn announce(&mut self) -> turmoil::Result {
        self.written += 1;
        let name = format!("c{}-{}", self.number, self.written);
        let path = format!("/e/{name}");
        let value = vec![b'v'; self.with(|kernel| kernel.rng.usize(0..=VALUE_BYTES_MAX))];
        match self.ask(MessageType::WRITE, 0, &[path.as_bytes(), &value]).await? {
            Answer::Ok(_) => self.with(|kernel| kernel.facts.acknowledged.insert(name)),
            Answer::Error(error) if error == "EIO" => self.with(|kernel| kernel.facts.uncertain.insert(name)),
            Answer::Error(error) => {
                self.wrong(&format!("{error} to a write of {path}"));
                false
            }
        };
        Ok(())
    }

    /// At the end: reads all keys, lists what was announced, and waits for events that are still under way.
    async fn look_at_all(&mut self) -> turmoil::Result {
        for key in 0..KEYS {
            for step in [
                Step::Read(format!("/t/k{key}")),
                Step::Read(format!("/t/k{key}/a")),
                Step::Directory(format!("/t/k{key}")),
            ] {
                self.single(step).await?;
            }
        }
        loop {
            if let Answer::Ok(names) = self.ask(MessageType::DIRECTORY, 0, &[b"/e", b""]).await? {
                let names = words(&names).into_iter().collect::<BTreeSet<_>>();
                self.with(|kernel| kernel.facts.listed.push(names));
                break;
            }
        }
        for _ in 0..50 {
            tokio::time::sleep(Duration::from_millis(TICK_MS)).await;
            self.receive()?;
            while self.take_message().is_some() {}
        }
        Ok(())
    }

    async fn step(&mut self, step: &Step, tx_id: u32) -> turmoil::Result<Answer> {
        let path = step.path().as_bytes().to_vec();
        match step {
            Step::Read(_) => self.ask(MessageType::READ, tx_id, &[&path, b""]).await,
            Step::Write(_, value) => self.ask(MessageType::WRITE, tx_id, &[&path, value.as_bytes()]).await,
            Step::Mkdir(_) => self.ask(MessageType::MKDIR, tx_id, &[&path, b""]).await,
            Step::Rm(_) => self.ask(MessageType::RM, tx_id, &[&path, b""]).await,
            Step::Directory(_) | Step::Exists(_) => {
                self.ask(MessageType::DIRECTORY, tx_id, &[&path, b""]).await
            }
        }
    }

    /// The answer in the words of the history; `None` if the outcome is not certain.
    fn reply(&mut self, step: &Step, answer: Answer) -> Option<Reply> {
        match (step, answer) {
            (_, Answer::Error(error)) if error == "EIO" => None,
            (_, Answer::Error(error)) if error == "ENOENT" => Some(Reply::Missing),
            (Step::Read(_), Answer::Ok(value)) => {
                Some(Reply::Value(String::from_utf8_lossy(&value).into_owned()))
            }
            (Step::Directory(_), Answer::Ok(names)) => {
                Some(Reply::Names(words(&names).into_iter().collect()))
            }
            (Step::Write(..) | Step::Mkdir(_) | Step::Rm(_), Answer::Ok(ok)) if ok == b"OK\0" => {
                Some(Reply::Done)
            }
            (step, answer) => {
                self.wrong(&format!("{answer:?} to {step:?}"));
                None
            }
        }
    }

    fn note(&mut self, called: u64, request: Request, outcome: Option<Outcome>) {
        let client = self.number;
        self.with(|kernel| {
            let now = kernel.tick_clock();
            let returned = outcome.as_ref().map(|_| now);
            kernel.note(format_args!("client {client}"), format_args!("{called} {request:?} {outcome:?}"));
            let operation = Operation { client, called, returned, request, outcome };
            kernel.facts.history.operations.push(operation);
        });
    }

    fn wrong(&mut self, what: &str) {
        let number = self.number;
        self.with(|kernel| kernel.facts.wrong_answers.push(format!("client {number}: {what}")));
    }

    /// Sends a request and waits for its answer. The parts are joined by zero bytes.
    async fn ask(&mut self, kind: MessageType, tx_id: u32, parts: &[&[u8]]) -> turmoil::Result<Answer> {
        self.req_id += 1;
        let payload = parts.join(&0);
        let mut bytes = Vec::new();
        for word in [kind.0, self.req_id, tx_id, u32::try_from(payload.len())?] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        bytes.extend_from_slice(&payload);
        self.send(&bytes).await?;
        loop {
            self.receive()?;
            while let Some((header, payload)) = self.take_message() {
                if header.req_id != self.req_id || (header.kind != kind && header.kind != MessageType::ERROR)
                {
                    self.wrong(&format!("{header:?} while {kind:?} {} waits", self.req_id));
                } else if header.kind == MessageType::ERROR {
                    return Ok(Answer::Error(words(&payload).join(" ")));
                } else {
                    return Ok(Answer::Ok(payload));
                }
            }
            tokio::time::sleep(Duration::from_millis(TICK_MS)).await;
        }
    }

    async fn send(&mut self, mut bytes: &[u8]) -> turmoil::Result {
        while !bytes.is_empty() {
            match self.socket.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    tokio::time::sleep(Duration::from_millis(TICK_MS)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> turmoil::Result {
        let mut bytes = [0; 4096];
        loop {
            match self.socket.read(&mut bytes) {
                Ok(0) => return Err("the connection was closed".into()),
                Ok(count) => self.received.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The next message that is no event; events are noted.
    fn take_message(&mut self) -> Option<(Header, Vec<u8>)> {
        loop {
            let header = Header::parse(&self.received)?;
            let end = HEADER_BYTES + header.len as usize;
            if self.received.len() < end {
                return None;
            }
            let payload = self.received[HEADER_BYTES..end].to_vec();
            self.received.drain(..end);
            if header.kind != MessageType::WATCH_EVENT {
                return Some((header, payload));
            }
            if let Some(name) = words(&payload).first().and_then(|path| path.strip_prefix("/e/")) {
                let (number, name) = (self.number, name.to_owned());
                self.with(|kernel| kernel.facts.events.entry(number).or_default().push(name));
            }
        }
    }
}

/// Words that end with a zero byte each.
fn words(bytes: &[u8]) -> Vec<String> {
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}
