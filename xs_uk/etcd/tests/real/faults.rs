//! Deaths and stops of members, and two that want to lead.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tonic::transport::{Channel, Endpoint};
use xs_consensus::{Consensus, Cursor, EngineHealth, EngineWarning, Epoch, LogError};
use xs_etcd::{Connector, EtcdError, EtcdLog, Tcp};

use crate::rig::{append, drain, drain_until, engine, lead, numbered, options, sleep_on, stand};

#[test]
fn entries_come_back_to_their_leader_and_to_followers() {
    let stand = stand(1);
    let options = options(&stand);
    let (mut leader, mut follower) = (engine(&options), engine(&options));
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    lead(&mut leader, 1, &mut ours);
    assert!(matches!(follower.append(b"x"), Err(LogError::NotLeading)));
    let wanted: Vec<_> = (0..2000).map(numbered).collect();
    for entry in &wanted {
        append(&mut leader, entry, &mut ours);
    }
    drain_until(&mut leader, &mut ours, |all| all.len() == wanted.len());
    drain_until(&mut follower, &mut theirs, |all| all.len() == wanted.len());
    assert!(ours == wanted && theirs == wanted);
    assert_eq!(leader.cursor(), follower.cursor());
    let began = Instant::now();
    while !leader.state().members[0].is_leader {
        assert!(began.elapsed() < crate::rig::PATIENCE, "{:?}", leader.state());
        sleep_on(&leader);
        drain(&mut leader, &mut ours).unwrap();
    }
    let state = leader.state();
    assert_eq!((state.health, state.in_flight, state.queued), (EngineHealth::Healthy, 0, 0));
    assert!(state.latency_us.is_some_and(|took| took > 0));
    assert!(state.members[0].reachable);
    let faulty = state.warnings.iter().any(|warning| matches!(warning, EngineWarning::FaultyVersion { .. }));
    assert_eq!(faulty, xs_etcd::repaired_in(&state.version.unwrap()).is_some());
    // A follower that waits is woken by the watch, long before it would look by itself.
    append(&mut leader, b"last", &mut ours);
    drain_until(&mut follower, &mut theirs, |all| all.last().is_some_and(|entry| entry == b"last"));
}

/// Counts the channels it makes, as a simulation's network would make its own.
#[derive(Default)]
struct Counting(AtomicUsize);

impl Connector for Counting {
    fn channel(&self, endpoint: &Endpoint) -> Result<Channel, EtcdError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Tcp.channel(endpoint)
    }
}

#[test]
fn the_asynchronous_half_runs_on_the_callers_runtime_and_network() {
    let stand = stand(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let connector = Arc::new(Counting::default());
    let made = EtcdLog::on_runtime(&options(&stand), Cursor::default(), connector.clone(), Some(1));
    let (mut engine, driver) = made.unwrap();
    let mut all = Vec::new();
    runtime.block_on(async {
        let driver = tokio::spawn(driver);
        engine.lead(Epoch(1)).unwrap();
        while !engine.is_leading().unwrap() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        engine.append(b"here").unwrap();
        while all.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
            drain(&mut engine, &mut all).unwrap();
        }
        // A driver that is gone is told, not waited for.
        driver.abort();
        assert!(driver.await.unwrap_err().is_cancelled());
    });
    // More than one if the member was still starting.
    assert!(connector.0.load(Ordering::Relaxed) > 0);
    assert_eq!(all, [b"here"]);
    assert!(matches!(engine.append(b"x"), Err(LogError::Engine { .. })));
}

#[test]
fn a_newer_epoch_fences_and_reads_all_that_the_older_one_wrote() {
    let stand = stand(1);
    let options = options(&stand);
    let (mut old, mut new) = (engine(&options), engine(&options));
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    lead(&mut old, 1, &mut ours);
    for i in 0..100 {
        append(&mut old, &numbered(i), &mut ours);
    }
    lead(&mut new, 2, &mut theirs);
    let began = Instant::now();
    // The old leader's batches that came after the claim are refused; it learns so without appending too.
    let fenced = loop {
        match drain(&mut old, &mut ours) {
            Err(LogError::Fenced { ours: 1, newer: 2 }) => break true,
            _ if began.elapsed() > crate::rig::PATIENCE => break false,
            _ => sleep_on(&old),
        }
    };
    assert!(fenced);
    assert!(matches!(old.append(b"x"), Err(LogError::Fenced { newer: 2, .. })));
    assert_eq!(ours, theirs, "the new leader read just what the old one was given back");
    assert!(matches!(old.lead(Epoch(2)), Err(LogError::Fenced { .. })));
    append(&mut new, b"after", &mut theirs);
    drain_until(&mut new, &mut theirs, |all| all.last().is_some_and(|entry| entry == b"after"));
    // It may come back with a newer epoch still.
    lead(&mut old, 3, &mut ours);
    assert_eq!(ours, theirs);
}

/// Two engines take the lead from each other while both append: each acknowledged entry is in the log once.
#[test]
fn competing_leaders_neither_lose_nor_double_entries() {
    let stand = stand(1);
    let options = options(&stand);
    let mut engines = [engine(&options), engine(&options)];
    let mut logs = [Vec::new(), Vec::new()];
    for epoch in 1..=30_u64 {
        let i = usize::from(epoch % 2 == 0);
        lead(&mut engines[i], epoch, &mut logs[i]);
        for n in 0..40 {
            append(&mut engines[i], format!("{epoch}.{n}").as_bytes(), &mut logs[i]);
        }
        if epoch % 3 == 0 {
            drain(&mut engines[i], &mut logs[i]).unwrap();
        }
    }
    let mut all = Vec::new();
    let mut last = engine(&options);
    lead(&mut last, 99, &mut all);
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "doubled");
    for log in &logs {
        assert_eq!(log[..], all[..log.len()], "lost or reordered");
    }
    for epoch in 1..=30_u64 {
        let numbers = all.iter().filter_map(|entry| {
            let text = String::from_utf8(entry.clone()).unwrap();
            text.strip_prefix(&format!("{epoch}.")).map(|n| n.parse::<usize>().unwrap())
        });
        assert!(numbers.enumerate().all(|(i, n)| i == n), "a gap in what epoch {epoch} appended");
    }
}

/// What happens to the members while a leader appends.
fn appended_under(members: usize, total: usize, mut hurt: impl FnMut(&mut etcd_stand::EtcdStand, usize)) {
    let mut stand = stand(members);
    let options = options(&stand);
    let (mut leader, mut follower) = (engine(&options), engine(&options));
    let (mut ours, mut theirs, mut fresh) = (Vec::new(), Vec::new(), Vec::new());
    lead(&mut leader, 1, &mut ours);
    for i in 0..total {
        hurt(&mut stand, i);
        append(&mut leader, &numbered(i), &mut ours);
        drain(&mut leader, &mut ours).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    drain_until(&mut leader, &mut ours, |all| all.len() >= total);
    drain_until(&mut follower, &mut theirs, |all| all.len() >= total);
    let mut last = engine(&options);
    lead(&mut last, 2, &mut fresh);
    let wanted: Vec<_> = (0..total).map(numbered).collect();
    assert!(ours == wanted, "the leader's own: {} of {total}", ours.len());
    assert!(theirs == wanted, "the follower's: {} of {total}", theirs.len());
    assert!(fresh == wanted, "a fresh reader's: {} of {total}", fresh.len());
}

#[test]
fn nothing_is_lost_or_doubled_while_members_are_killed_in_turn() {
    appended_under(3, 1500, |stand, i| match i % 300 {
        100 => stand.kill(i / 300 % 3),
        250 => stand.restart(i / 300 % 3).unwrap(),
        _ => {}
    });
}

#[test]
fn nothing_is_lost_or_doubled_while_members_are_stopped_in_turn() {
    appended_under(3, 1500, |stand, i| match i % 300 {
        50 => stand.stop(i / 300 % 3),
        250 => stand.cont(i / 300 % 3),
        _ => {}
    });
}

#[test]
fn a_single_member_may_die_and_come_back() {
    appended_under(1, 600, |stand, i| {
        if i % 200 == 150 {
            stand.kill(0);
            stand.restart(0).unwrap();
        }
    });
}

#[test]
fn without_a_quorum_appends_are_refused_and_the_state_says_so_until_it_is_back() {
    let mut stand = stand(3);
    let options = options(&stand);
    let mut leader = engine(&options);
    let mut ours = Vec::new();
    lead(&mut leader, 1, &mut ours);
    append(&mut leader, b"before", &mut ours);
    drain_until(&mut leader, &mut ours, |all| all.len() == 1);
    stand.kill(0);
    stand.kill(1);
    append(&mut leader, b"while", &mut ours);
    let began = Instant::now();
    let waited = loop {
        match leader.append(b"probe") {
            Err(LogError::Unavailable { waited_ms }) => break waited_ms,
            Ok(_) | Err(LogError::Busy { .. }) => assert!(began.elapsed() < crate::rig::PATIENCE),
            Err(error) => panic!("{error}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    assert!(waited >= options.unavailable_after_ms);
    while !matches!(leader.state().health, EngineHealth::LostQuorum { .. }) {
        assert!(began.elapsed() < crate::rig::PATIENCE, "{:?}", leader.state());
        std::thread::sleep(Duration::from_millis(100));
    }
    stand.restart(0).unwrap();
    append(&mut leader, b"after", &mut ours);
    drain_until(&mut leader, &mut ours, |all| all.last().is_some_and(|entry| entry == b"after"));
    assert_eq!(ours[..2], [b"before".to_vec(), b"while".to_vec()]);
    while leader.state().health != EngineHealth::Healthy {
        assert!(began.elapsed() < crate::rig::PATIENCE, "{:?}", leader.state());
        std::thread::sleep(Duration::from_millis(100));
    }
}
