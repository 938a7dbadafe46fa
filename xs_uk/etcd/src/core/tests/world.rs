//! Several cores, one etcd, and what goes wrong between them.

use std::time::Duration;

use proptest::sample::Index as Pick;
use xs_consensus::{Cursor, Epoch, Loaded, LogError};

use super::etcd::Etcd;
use crate::call::{CallError, CallId, Output, Request};
use crate::core::{Core, CoreConfig, WatchEvent};
use crate::keys::Keys;
use crate::limits::TEND_PAUSE;

/// What becomes of a call.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    None,
    /// It never arrives; its caller waits in vain.
    LostBefore,
    /// It is done, its answer is lost.
    LostAfter,
    /// It is done twice; the second answer arrives.
    Twice,
    /// Its caller gives up, and a member still holds it.
    Held,
    /// If it only reads, it is answered from a state so many changes ago.
    Stale(usize),
    /// Refused for want of space, if it writes.
    NoSpace,
}

#[derive(Clone, Debug)]
pub enum Step {
    Append { engine: usize, count: usize },
    Lead { engine: usize },
    Deliver { call: Pick, fault: Fault },
    Read { engine: usize },
    Save { engine: usize },
    LetGo { held: Pick },
    EndWatch { engine: usize },
    Restart { engine: usize, load: bool },
    Wait { ms: u64 },
}

struct Node {
    core: Core,
    /// All entries up to its cursor.
    log: Vec<Vec<u8>>,
    watch: Option<(u64, Vec<u8>, Vec<u8>, i64)>,
    loading: bool,
}

impl Node {
    fn new() -> Self {
        Self { core: Core::new(config(), Cursor::default()), log: Vec::new(), watch: None, loading: false }
    }
}

pub struct World {
    etcd: Etcd,
    nodes: Vec<Node>,
    calls: Vec<(usize, CallId, Request)>,
    held: Vec<Request>,
    now: Duration,
    epoch: u64,
    appended: u64,
}

const SEPARATOR: u8 = b'\n';

fn config() -> CoreConfig {
    CoreConfig {
        keys: Keys::new("/p/"),
        endpoints: vec!["http://a".to_owned(), "http://b".to_owned()],
        call_timeout: Duration::from_millis(100),
        poll_interval: Duration::from_millis(300),
        status_interval: Duration::from_secs(1),
        unavailable_after: Duration::from_secs(2),
        log_bytes_max: 1 << 20,
        watch: true,
    }
}

impl World {
    pub fn new(nodes: usize) -> Self {
        Self {
            etcd: Etcd::default(),
            nodes: (0..nodes).map(|_| Node::new()).collect(),
            calls: Vec::new(),
            held: Vec::new(),
            now: Duration::ZERO,
            epoch: 0,
            appended: 0,
        }
    }

    /// Two cores that have no watch.
    pub fn without_watch() -> Self {
        let mut world = Self::new(2);
        for node in &mut world.nodes {
            node.core = Core::new(CoreConfig { watch: false, ..config() }, Cursor::default());
        }
        world.step(&Step::Lead { engine: 0 });
        world.settle(|world| world.nodes[0].core.is_leading().unwrap());
        world
    }

    /// One core, which leads.
    pub fn leading(log_bytes_max: u64) -> Self {
        let mut world = Self::new(1);
        let config = CoreConfig { log_bytes_max, ..config() };
        world.nodes[0].core = Core::new(config, Cursor::default());
        world.step(&Step::Lead { engine: 0 });
        world.settle(|world| world.nodes[0].core.is_leading().unwrap());
        world
    }

    pub fn core(&mut self) -> &mut Core {
        &mut self.nodes[0].core
    }

    pub fn follower(&mut self) -> &mut Core {
        &mut self.nodes[1].core
    }

    /// Delivers all calls that can be made without waiting.
    pub fn deliver_all(&mut self) {
        self.run_outputs();
        while !self.calls.is_empty() {
            self.deliver(0, Fault::None);
            self.run_outputs();
        }
    }

    /// Has a fresh reader read to `cursor`.
    pub fn read_all(&mut self, cursor: Cursor) {
        self.nodes.push(Node::new());
        let last = self.nodes.len() - 1;
        self.settle(|world| world.nodes[last].core.cursor() == cursor);
        self.nodes.truncate(last);
    }

    /// The last entry of the first batch that etcd holds.
    pub fn first_key_index(&self) -> u64 {
        let keys = Keys::new("/p/");
        self.etcd.first(&keys.log(0)).and_then(|key| keys.log_index(&key)).unwrap()
    }

    pub fn step(&mut self, step: &Step) {
        match *step {
            Step::Append { engine, count } => (0..count).for_each(|_| self.append(engine)),
            Step::Lead { engine } if !self.nodes[engine].loading => {
                self.epoch += 1;
                self.nodes[engine].core.lead(Epoch(self.epoch), self.epoch ^ 0x55).unwrap();
            }
            Step::Deliver { call, fault } if !self.calls.is_empty() => {
                self.deliver(call.index(self.calls.len()), fault)
            }
            Step::Read { engine } => self.read(engine),
            Step::Save { engine } => self.save(engine),
            Step::LetGo { held } if !self.held.is_empty() => {
                let request = self.held.swap_remove(held.index(self.held.len()));
                let _ = self.etcd.call(&request);
            }
            Step::EndWatch { engine } => self.end_watch(engine),
            Step::Restart { engine, load } => self.restart(engine, load),
            Step::Wait { ms } => self.now += Duration::from_millis(ms),
            Step::Lead { .. } | Step::Deliver { .. } | Step::LetGo { .. } => {}
        }
        self.run_outputs();
    }

    fn append(&mut self, engine: usize) {
        let entry = format!("{engine}.{}", self.appended).into_bytes();
        match self.nodes[engine].core.append(&entry) {
            Ok(_) => self.appended += 1,
            Err(
                LogError::NotLeading
                | LogError::Fenced { .. }
                | LogError::Behind { .. }
                | LogError::Unavailable { .. }
                | LogError::Overrun { .. },
            ) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn deliver(&mut self, at: usize, fault: Fault) {
        let (engine, id, request) = self.calls.swap_remove(at);
        let lost = Err(CallError::Uncertain("lost".to_owned()));
        let writes = matches!(&request, Request::Txn { then, .. } if format!("{then:?}").contains("Put"));
        let outcome = match fault {
            Fault::LostBefore => lost,
            Fault::LostAfter => {
                let _ = self.etcd.call(&request);
                lost
            }
            Fault::Held => {
                self.held.push(request);
                lost
            }
            Fault::NoSpace if writes => Err(CallError::NoSpace),
            Fault::Twice => {
                let _ = self.etcd.call(&request);
                self.etcd.call(&request)
            }
            Fault::Stale(back) => self.etcd.stale_call(&request, back),
            Fault::None | Fault::NoSpace => self.etcd.call(&request),
        };
        self.nodes[engine].core.hear(self.now, id, outcome);
    }

    fn read(&mut self, engine: usize) {
        if self.nodes[engine].loading {
            self.load(engine);
        }
        let node = &mut self.nodes[engine];
        let mut entry = Vec::new();
        loop {
            match node.core.next(&mut entry) {
                Ok(Some(index)) => {
                    assert_eq!(index.0, node.log.len() as u64 + 1);
                    node.log.push(entry.clone());
                }
                Ok(None) => return,
                Err(LogError::Fenced { ours, newer }) => return assert!(newer > ours, "fenced by nobody"),
                Err(LogError::Overrun { .. }) => return self.load(engine),
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn load(&mut self, engine: usize) {
        let node = &mut self.nodes[engine];
        node.loading = false;
        match node.core.load_snapshot() {
            Ok(Loaded::Snapshot { cursor, bytes }) => {
                node.log = bytes.split(|byte| *byte == SEPARATOR).map(<[u8]>::to_vec).collect();
                assert_eq!(cursor.index.0, node.log.len() as u64);
            }
            Ok(Loaded::Pending) => node.loading = true,
            Ok(Loaded::Nothing) => {}
            // A leader that was overtaken before it had read to the end starts anew.
            Err(LogError::Engine { .. }) => self.restart(engine, true),
            Err(error) => panic!("{error}"),
        }
    }

    fn save(&mut self, engine: usize) {
        self.read(engine);
        let node = &mut self.nodes[engine];
        let cursor = node.core.cursor();
        if cursor.index.0 > 0 {
            let bytes = node.log.join(&SEPARATOR);
            match node.core.save_snapshot(&cursor, bytes) {
                Ok(()) | Err(LogError::NotLeading | LogError::Fenced { .. } | LogError::Busy { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn end_watch(&mut self, engine: usize) {
        if let Some((id, ..)) = self.nodes[engine].watch.take() {
            self.nodes[engine].core.hear_watch(self.now, id, WatchEvent::Ended);
        }
    }

    fn restart(&mut self, engine: usize, load: bool) {
        // What was under way may still be done.
        let (gone, calls) = std::mem::take(&mut self.calls).into_iter().partition(|call| call.0 == engine);
        self.calls = calls;
        self.held.extend(Vec::into_iter(gone).map(|call| call.2));
        let node = &mut self.nodes[engine];
        *node = Node::new();
        if load {
            self.load(engine);
        }
    }

    fn run_outputs(&mut self) {
        for (engine, node) in self.nodes.iter_mut().enumerate() {
            while let Some(output) = node.core.poll(self.now) {
                match output {
                    Output::Call { id, request, .. } => self.calls.push((engine, id, request)),
                    Output::Unwatch => node.watch = None,
                    Output::Watch { id, key, end, revision, .. } => {
                        node.watch = Some((id, key, end, revision))
                    }
                }
            }
            let Some((id, key, end, revision)) = &mut node.watch else { continue };
            let (id, event) = match self.etcd.watched(key, end, *revision) {
                Some(puts) if puts.is_empty() => continue,
                Some(puts) => (*id, WatchEvent::Put(puts)),
                None => (*id, WatchEvent::Ended),
            };
            *revision = self.etcd.revision() + 1;
            if event == WatchEvent::Ended {
                node.watch = None;
            }
            node.core.hear_watch(self.now, id, event);
        }
    }

    /// The network is kind again: one leads, everybody reads everything, and everything fits.
    pub fn heal_and_check(mut self) {
        self.settle(|world| !world.nodes[0].loading);
        self.epoch += 1;
        let epoch = Epoch(self.epoch);
        self.settle(|world| {
            let node = &mut world.nodes[0];
            // One that the log had left behind has started anew, and is told again.
            let told = node.loading || node.core.lead(epoch, 1).is_ok();
            told && node.core.is_leading().unwrap()
        });
        self.settle(|world| world.nodes[0].core.append(b"end").is_ok());
        self.settle(|world| {
            world.nodes.iter().all(|node| {
                let fenced = node.core.is_leading().is_err();
                fenced || node.log.last().is_some_and(|entry| entry == b"end")
            })
        });
        let all = self.truth();
        let mut sorted = all.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted.len(), all.len(), "doubled");
        for node in &self.nodes {
            assert_eq!(node.log[..], all[..node.log.len()], "lost or reordered");
        }
        self.check_order(&all);
    }

    /// What the longest log holds.
    fn truth(&self) -> Vec<Vec<u8>> {
        self.nodes[0].log.clone()
    }

    /// Entries of one node keep their order, and each was appended once.
    fn check_order(&self, all: &[Vec<u8>]) {
        let mut last = vec![None; self.nodes.len()];
        for entry in &all[..all.len() - 1] {
            let text = std::str::from_utf8(entry).unwrap();
            let (engine, number) = text.split_once('.').unwrap();
            let (engine, number) = (engine.parse::<usize>().unwrap(), number.parse::<u64>().unwrap());
            assert!(last[engine] < Some(number), "reordered at {text}");
            last[engine] = Some(number);
        }
    }

    fn settle(&mut self, done: impl Fn(&mut Self) -> bool) {
        for _ in 0..2000 {
            self.run_outputs();
            while !self.calls.is_empty() {
                self.deliver(0, Fault::None);
            }
            for engine in 0..self.nodes.len() {
                self.read(engine);
            }
            if done(self) {
                return;
            }
            self.now += TEND_PAUSE / 100;
        }
        panic!(
            "it does not go on: {:?}",
            self.nodes.iter().map(|node| node.core.state()).collect::<Vec<_>>()
        );
    }
}
