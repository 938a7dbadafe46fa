//! Deaths of keeper and vaults as real processes: who runs on, who is followed by whom. Without a network card and guests;
//! what frames have of it is counted by `tests/crash net`.
#![allow(clippy::unwrap_used)]

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

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Debug, Deserialize)]
struct Told {
    number: u64,
    part: String,
    kind: String,
    pid: Option<u32>,
}

struct Service {
    first: Child,
    news: Receiver<Told>,
    /// Of each part the process that was told last.
    pids: BTreeMap<String, u32>,
    told: Vec<Told>,
}

/// A run directory with a broker, which lives as long as the test's process.
fn rundir() -> tempfile::TempDir {
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

fn keeper(rundir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_net_uk"));
    command.args(["keeper", "--profile", "local", "-o", "json", "--rundir"]).arg(rundir);
    // Nobody is there: the shadow serves whom it knows, and asks again.
    command.arg("--store").arg(rundir.join("no-store"));
    command
}

impl Service {
    fn start(rundir: &Path) -> Self {
        let mut first = keeper(rundir).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
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
    fn await_all(&mut self, wanted: &[(&str, &str)]) {
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
    fn await_end(&mut self) {
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

    fn pid(&self, part: &str) -> u32 {
        self.pids[part]
    }

    fn signal(&self, part: &str, signal: Signal) {
        send(self.pid(part), signal);
    }

    /// Kills all of them before any can see that another one is gone.
    fn kill(&self, parts: &[&str]) {
        for signal in [Signal::STOP, Signal::KILL] {
            parts.iter().for_each(|part| self.signal(part, signal));
        }
    }

    fn count(&self, part: &str, kind: &str) -> usize {
        self.told.iter().filter(|told| told.part == part && told.kind == kind).count()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Before any can replace another one.
        for signal in [Signal::STOP, Signal::KILL] {
            self.pids.values().for_each(|pid| send(*pid, signal));
        }
        let _ = self.first.kill();
        let _ = self.first.wait();
    }
}

fn send(pid: u32, signal: Signal) {
    // One that a keeper had started when it was killed ends by itself, if it had not begun.
    let _ = kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal);
}

const NEXT_KEEPER: [(&str, &str); 2] = [("keeper", "started"), ("keeper", "ready")];

#[test]
fn keepers_follow_one_another_and_the_shadow_runs_on() {
    let dir = rundir();
    let mut service = Service::start(dir.path());
    let shadow = service.pid("shadow");
    for round in 1..=10 {
        let keeper = service.pid("keeper");
        service.signal("keeper", Signal::KILL);
        service.await_all(&[("keeper", "ended"), ("shadow", "adopted")]);
        service.await_all(&NEXT_KEEPER[1..]);
        assert_ne!(service.pid("keeper"), keeper, "round {round}");
        assert_eq!(service.pid("shadow"), shadow);
    }
    assert_eq!((service.count("shadow", "failed"), service.count("shadow", "started")), (0, 1));
    assert_eq!(service.count("vault.0", "started") + service.count("vault.0", "ended"), 0);
}

#[test]
fn a_keeper_that_hangs_is_replaced() {
    let dir = rundir();
    let mut service = Service::start(dir.path());
    let shadow = service.pid("shadow");
    service.signal("keeper", Signal::STOP);
    service.await_all(&[("keeper", "condemned")]);
    service.await_all(&NEXT_KEEPER);
    assert_eq!((service.pid("shadow"), service.count("shadow", "failed")), (shadow, 0));
}

#[test]
fn vaults_that_die_or_hang_are_replaced() {
    let dir = rundir();
    let mut service = Service::start(dir.path());
    let keeper = service.pid("keeper");
    for (vault, signal) in [
        ("vault.1", Signal::KILL),
        ("vault.0", Signal::KILL),
        ("vault.1", Signal::STOP),
        ("vault.0", Signal::STOP),
    ] {
        service.signal(vault, signal);
        service.await_all(&[(vault, "ended"), (vault, "started"), (vault, "ready")]);
    }
    assert_eq!((service.pid("keeper"), service.count("keeper", "started")), (keeper, 1));
}

#[test]
fn a_keeper_may_die_together_with_a_vault() {
    let dir = rundir();
    let mut service = Service::start(dir.path());
    let shadow = service.pid("shadow");
    for vault in ["vault.0", "vault.1", "vault.0"] {
        service.kill(&["keeper", vault]);
        service.await_all(&[("keeper", "ready"), (vault, "ready")]);
        assert_eq!(service.pid("shadow"), shadow);
    }
    assert_eq!((service.count("shadow", "failed"), service.count("shadow", "started")), (0, 1));
}

#[test]
fn a_shadow_that_dies_together_with_the_keeper_has_a_successor() {
    let dir = rundir();
    let mut service = Service::start(dir.path());
    for _ in 0..3 {
        let shadow = service.pid("shadow");
        service.kill(&["keeper", "shadow"]);
        service.await_all(&[("keeper", "ready"), ("shadow", "ended"), ("shadow", "ready")]);
        assert_ne!(service.pid("shadow"), shadow);
    }
}

#[test]
fn deaths_of_the_keeper_do_not_fill_the_shadows_budget() {
    let dir = rundir();
    let mut service = Service::start(dir.path());
    // Eight deaths in a row within 100 ms of a start each are one too many, whoever counted them.
    let began = Instant::now();
    while service.count("shadow", "escalated") == 0 {
        assert!(began.elapsed() < PATIENCE, "{:?}", service.told);
        service.kill(&["keeper", "shadow"]);
        service.await_all(&[("keeper", "ready"), ("shadow", "started")]);
    }
}

#[test]
fn all_end_in_order_whoever_is_told() {
    let dir = rundir();
    for part in ["vault.0", "keeper", "vault.1"] {
        let mut service = Service::start(dir.path());
        service.signal(part, Signal::TERM);
        service.await_end();
        assert_eq!(service.first.wait().unwrap().code(), Some(0), "{part}");
        assert_eq!(service.count("shadow", "stopped"), 1);
    }
}

#[test]
fn a_vault_that_came_later_stops_all_too() {
    let dir = rundir();
    let mut service = Service::start(dir.path());
    service.signal("vault.0", Signal::KILL);
    service.await_all(&[("vault.0", "ready")]);
    service.signal("keeper", Signal::KILL);
    service.await_all(&[("keeper", "ended"), ("keeper", "ready")]);
    service.signal("vault.0", Signal::TERM);
    service.await_end();
}

#[test]
fn a_second_service_in_the_same_directory_is_refused() {
    let dir = rundir();
    let _service = Service::start(dir.path());
    let second = keeper(dir.path()).stdin(Stdio::null()).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("another net_uk runs"), "{said}");
}

#[test]
fn a_start_after_the_end_of_all_who_watch_ends_the_old_shadow_first() {
    let dir = rundir();
    let old = Service::start(dir.path());
    let shadow = old.pid("shadow");
    old.kill(&["keeper", "vault.0", "vault.1"]);
    // It serves on, for as long as nobody begins anew.
    std::thread::sleep(Duration::from_millis(300));
    assert!(Stat::of(shadow).is_some());
    let next = Service::start(dir.path());
    assert!(Stat::of(shadow).is_none(), "two shadows would serve the same rings");
    assert!(Stat::of(next.pid("shadow")).is_some());
    // Its pid may be another's by now.
    std::mem::forget(old);
}

#[test]
fn what_cannot_begin_at_all_is_told_by_the_exit_status() {
    let dir = rundir();
    let mut command = keeper(dir.path());
    let ended = command.args(["--nic", "packet:no-such-link"]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{}", String::from_utf8_lossy(&ended.stderr));
}
