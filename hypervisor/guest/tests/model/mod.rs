//! A store of one guest, just enough to test a client against: a map without transactions' isolation, watches that
//! fire below their path, no permissions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hypervisor::local::server::Server;
use hypervisor::local::{Broker, NewDomain};
use hypervisor::{DomId, Host, HostSpec, Page, Port, Profile};
use xs_protocol::ring::*;
use xs_protocol::{HEADER_BYTES, Header, MessageType, XsError, message, request};

pub const PATIENCE: Duration = Duration::from_secs(10);

/// A broker in a thread, for as long as the process lives, with one guest's domain.
pub struct Lab {
    pub socket: PathBuf,
    pub domid: DomId,
    _dir: tempfile::TempDir,
}

impl Lab {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = HostSpec::detect(Some(Profile::Local), dir.path()).local_socket;
        let mut server = Server::bind(&socket).unwrap();
        std::thread::spawn(move || server.run());
        let domid = Broker::connect(&socket).unwrap().create_domain(NewDomain::default()).unwrap();
        Self { socket, domid, _dir: dir }
    }

    pub fn sim_guest(&self, arguments: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_sim-guest"))
            .args(["--broker", self.socket.to_str().unwrap(), "--domid", &self.domid.to_string()])
            .args(arguments)
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    }
}

pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[derive(Default)]
struct State {
    nodes: BTreeMap<String, Vec<u8>>,
    watches: Vec<(String, String)>,
    out: Vec<u8>,
    /// Answers to TRANSACTION_END that are to be EAGAIN.
    conflicts: u32,
    last_tx: u32,
}

/// The store, served by a thread until dropped.
pub struct Store {
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Store {
    pub fn start(socket: &Path, domid: DomId) -> Self {
        let spec = HostSpec { profile: Profile::Local, local_socket: socket.to_owned() };
        let mut host = Host::open(&spec).unwrap();
        let page = host.pages.map_guest(domid, 0).unwrap();
        let port = host.events.bind_interdomain(domid, Port(1)).unwrap();
        page.store_u32(SERVER_FEATURES_OFFSET, feature::ALL);
        let state = Arc::new(Mutex::new(State::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (theirs, stopped) = (Arc::clone(&state), Arc::clone(&stop));
        let thread = std::thread::spawn(move || serve(&mut host, &page, port, &theirs, &stopped));
        Self { state, stop, thread: Some(thread) }
    }

    pub fn set(&self, path: &str, value: &[u8]) {
        self.state.lock().unwrap().set(path, value);
    }

    pub fn get(&self, path: &str) -> Option<Vec<u8>> {
        self.state.lock().unwrap().nodes.get(path).cloned()
    }

    pub fn set_conflicts(&self, conflicts: u32) {
        self.state.lock().unwrap().conflicts = conflicts;
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().ok();
    }
}

fn serve(host: &mut Host, page: &Page, port: Port, state: &Mutex<State>, stop: &AtomicBool) {
    let mut input = vec![];
    while !stop.load(Ordering::Relaxed) {
        while let Some(port) = host.events.pending().unwrap() {
            host.events.unmask(port).unwrap();
        }
        if page.load_u32(CONNECTION_OFFSET) == RECONNECT {
            for offset in [REQ_CONS_OFFSET, REQ_PROD_OFFSET, RSP_CONS_OFFSET, RSP_PROD_OFFSET] {
                page.store_u32(offset, 0);
            }
            input.clear();
            page.store_u32(CONNECTION_OFFSET, CONNECTED);
            host.events.notify(port).unwrap();
        }
        let mut state = state.lock().unwrap();
        let mut moved = take(page, &mut input);
        while let Some(header) =
            Header::parse(&input).filter(|h| input.len() >= HEADER_BYTES + h.len as usize)
        {
            let rest = input.split_off(HEADER_BYTES + header.len as usize);
            let payload = std::mem::replace(&mut input, rest).split_off(HEADER_BYTES);
            state.answer(&header, &payload);
        }
        moved |= give(page, &mut state.out);
        drop(state);
        if moved {
            host.events.notify(port).unwrap();
        } else {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

fn take(page: &Page, input: &mut Vec<u8>) -> bool {
    let cons = page.load_u32(REQ_CONS_OFFSET);
    let there = readable(cons, page.load_u32(REQ_PROD_OFFSET)).unwrap();
    for chunk in there.iter() {
        let mut bytes = vec![0; chunk.len];
        page.read(REQ_OFFSET + chunk.offset, &mut bytes);
        input.extend(bytes);
    }
    page.store_u32(REQ_CONS_OFFSET, cons.wrapping_add(u32::try_from(there.len()).unwrap()));
    !there.is_empty()
}

fn give(page: &Page, out: &mut Vec<u8>) -> bool {
    let prod = page.load_u32(RSP_PROD_OFFSET);
    let room = writable(prod, page.load_u32(RSP_CONS_OFFSET)).unwrap().limit(out.len());
    for chunk in room.iter() {
        let bytes: Vec<u8> = out.drain(..chunk.len).collect();
        page.write(RSP_OFFSET + chunk.offset, &bytes);
    }
    page.store_u32(RSP_PROD_OFFSET, prod.wrapping_add(u32::try_from(room.len()).unwrap()));
    !room.is_empty()
}

impl State {
    fn answer(&mut self, header: &Header, payload: &[u8]) {
        let mut strings = payload.split(|byte| *byte == 0).map(|s| String::from_utf8_lossy(s).into_owned());
        let path = strings.next().unwrap_or_default();
        match header.kind {
            MessageType::WRITE => {
                let (_, value) = request::split_first(payload).unwrap();
                message::push_ack(&mut self.out, header);
                return self.set(&path, value);
            }
            MessageType::READ | MessageType::GET_PERMS => {
                let perms = header.kind == MessageType::GET_PERMS;
                match self.nodes.get(&path) {
                    Some(_) if perms => message::push_reply(&mut self.out, header, b"n1\0r2\0"),
                    Some(value) => message::push_reply(&mut self.out, header, value),
                    None => message::push_error(&mut self.out, header, XsError::ENOENT),
                }
                return;
            }
            MessageType::DIRECTORY => return self.directory(header, &path),
            MessageType::RM => self.nodes.retain(|name, _| !below(name, &path)),
            MessageType::MKDIR => drop(self.nodes.entry(path).or_default()),
            MessageType::WATCH => {
                let token = strings.next().unwrap_or_default();
                message::push_ack(&mut self.out, header);
                message::push_event(&mut self.out, path.as_bytes(), token.as_bytes());
                self.watches.push((path, token));
                return;
            }
            MessageType::UNWATCH => self.watches.retain(|(watched, _)| *watched != path),
            MessageType::TRANSACTION_START => {
                self.last_tx += 1;
                let number = format!("{}\0", self.last_tx);
                return message::push_reply(&mut self.out, header, number.as_bytes());
            }
            MessageType::TRANSACTION_END if self.conflicts > 0 => {
                self.conflicts -= 1;
                return message::push_error(&mut self.out, header, XsError::EAGAIN);
            }
            MessageType::TRANSACTION_END => assert_eq!(header.tx_id, self.last_tx),
            _ => return message::push_error(&mut self.out, header, XsError::ENOSYS),
        }
        message::push_ack(&mut self.out, header);
    }

    fn directory(&mut self, header: &Header, path: &str) {
        let mut names = vec![];
        for name in self.nodes.keys() {
            let child = name.strip_prefix(path).and_then(|rest| rest.strip_prefix('/'));
            let child = child.and_then(|rest| rest.split('/').next()).map(str::to_owned);
            names.extend(child.filter(|child| !names.contains(child)));
        }
        match names.is_empty() && !self.nodes.contains_key(path) {
            true => message::push_error(&mut self.out, header, XsError::ENOENT),
            false => {
                let list: String = names.into_iter().map(|name| name + "\0").collect();
                message::push_reply(&mut self.out, header, list.as_bytes());
            }
        }
    }

    fn set(&mut self, path: &str, value: &[u8]) {
        self.nodes.insert(path.to_owned(), value.to_vec());
        for (watched, token) in &self.watches {
            if below(path, watched) {
                message::push_event(&mut self.out, path.as_bytes(), token.as_bytes());
            }
        }
    }
}

fn below(path: &str, top: &str) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
