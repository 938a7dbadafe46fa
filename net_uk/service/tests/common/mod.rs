//! The service as processes.
#![allow(dead_code, reason = "each test uses some of it")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use control::proc::Stat;
use hypervisor::local::server::Server;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

pub const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Debug, Deserialize)]
pub struct Told {
    pub number: u64,
    pub at_monotonic_ns: u64,
    pub part: String,
    pub kind: String,
    pub pid: Option<u32>,
}

pub struct Service {
    pub first: Child,
    pub news: Receiver<Told>,
    /// Of each part the process that was told last.
    pub pids: BTreeMap<String, u32>,
    pub told: Vec<Told>,
}

/// A run directory with a broker, which lives as long as the test's process.
pub fn rundir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("ppvmm-hv.sock");
    let (bound, is_bound) = channel();
    std::thread::spawn(move || {
        let mut server = Server::bind(&socket).unwrap();
        bound.send(()).unwrap();
        let _ = server.run();
    });
    is_bound.recv_timeout(PATIENCE).unwrap();
    dir
}

pub fn keeper(rundir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_net_uk"));
    command.args(["keeper", "--profile", "local", "-o", "json", "--rundir"]).arg(rundir);
    // Nobody is there: the shadow serves whom it knows, and asks again.
    command.arg("--store").arg(rundir.join("no-store"));
    command
}

impl Service {
    pub fn start(rundir: &Path) -> Self {
        Self::start_by(keeper(rundir))
    }

    pub fn start_by(mut command: Command) -> Self {
        let mut first = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(first.stdout.take().unwrap());
        let (sender, news) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(serde_json::from_str(&line).unwrap()).is_err() {
                    return;
                }
            }
        });
        let mut service = Self { first, news, pids: BTreeMap::new(), told: vec![] };
        service.await_all(&[("keeper", "ready"), ("vault.1", "ready"), ("shadow", "ready")]);
        service
    }

    /// Waits until all of these were told, whatever their order.
    pub fn await_all(&mut self, wanted: &[(&str, &str)]) {
        let mut wanted = wanted.to_vec();
        let began = Instant::now();
        while !wanted.is_empty() {
            let told = match self.news.recv_timeout(PATIENCE.saturating_sub(began.elapsed())) {
                Ok(told) => told,
                Err(error) => panic!("{error}: {wanted:?} after {:?}", self.told),
            };
            if self.told.last().is_some_and(|last| last.number == told.number) {
                // A keeper died between writing it out and noting that.
                continue;
            }
            wanted.retain(|(part, kind)| (*part, *kind) != (told.part.as_str(), told.kind.as_str()));
            self.note(told);
        }
    }

    fn note(&mut self, told: Told) {
        let last = self.told.last().map_or(0, |told| told.number);
        assert_eq!(told.number, last + 1, "{told:?} after {last}");
        if matches!(told.kind.as_str(), "started" | "adopted")
            && let Some(pid) = told.pid
        {
            self.pids.insert(told.part.clone(), pid);
        }
        self.told.push(told);
    }

    /// All have ended and told all.
    pub fn await_end(&mut self) {
        let began = Instant::now();
        loop {
            match self.news.recv_timeout(PATIENCE.saturating_sub(began.elapsed())) {
                Ok(told) if self.told.last().is_some_and(|last| last.number == told.number) => {}
                Ok(told) => self.note(told),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("somebody lives: {:?}", self.told),
            }
        }
        // Descriptors are closed a moment before the end.
        while self.pids.values().any(|pid| Stat::of(*pid).is_some()) {
            assert!(began.elapsed() < PATIENCE, "somebody lives: {:?}", self.pids);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn pid(&self, part: &str) -> u32 {
        self.pids[part]
    }

    pub fn signal(&self, part: &str, signal: Signal) {
        send(self.pid(part), signal);
    }

    /// Kills all of them before any can see that another one is gone.
    pub fn kill(&self, parts: &[&str]) {
        for signal in [Signal::STOP, Signal::KILL] {
            parts.iter().for_each(|part| self.signal(part, signal));
        }
    }

    pub fn count(&self, part: &str, kind: &str) -> usize {
        self.told.iter().filter(|told| told.part == part && told.kind == kind).count()
    }
}

/// Kills whoever is told of, until nobody is left who could tell: those that watch replace each other.
impl Drop for Service {
    fn drop(&mut self) {
        let began = Instant::now();
        self.pids.insert("first".to_owned(), self.first.id());
        while began.elapsed() < PATIENCE {
            for signal in [Signal::STOP, Signal::KILL] {
                for pid in self.pids.values().filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?)) {
                    let _ = kill_process(pid, signal);
                }
            }
            let _ = self.first.wait();
            match self.news.recv_timeout(Duration::from_millis(50)) {
                Ok(told) => self.pids.extend(told.pid.map(|pid| (told.part, pid))),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

pub fn send(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}
