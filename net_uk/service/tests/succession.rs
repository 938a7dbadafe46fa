//! Deaths of keeper and vaults as real processes: who runs on, who is followed by whom. Without a network card and guests;
//! what frames have of it is counted by `tests/crash net`.
#![allow(clippy::unwrap_used)]

mod common;

use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{PATIENCE, Service, keeper, rundir};
use control::proc::Stat;
use net_uk::limits::VAULT_AGAIN;
use rustix::process::Signal;

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
fn a_vault_that_dies_at_once_is_followed_by_the_next_one_after_a_pause() {
    let dir = rundir();
    let mut service = Service::start(dir.path());
    let deaths = 5;
    for _ in 0..deaths {
        service.signal("vault.1", Signal::KILL);
        service.await_all(&[("vault.1", "ended"), ("vault.1", "started"), ("vault.1", "ready")]);
    }
    let started = service.told.iter().filter(|told| told.part == "vault.1" && told.kind == "started");
    let at_ns: Vec<_> = started.map(|told| told.at_monotonic_ns).collect();
    let took = Duration::from_nanos(at_ns.last().unwrap() - at_ns[0]);
    // A start is told when it is done, so the first one may take away from the time of the first pause.
    assert!(at_ns.len() == 1 + deaths && took >= VAULT_AGAIN * 4, "{took:?}");
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
fn the_shadows_deaths_are_counted_whoever_is_the_keeper() {
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
