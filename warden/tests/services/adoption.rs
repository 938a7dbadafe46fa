//! Wardens that die, and their successors.

use std::path::Path;
use std::time::Duration;

use api::v1::{Fault, StatusResponse};
use rustix::process::Signal;
use warden::{Error, Warden};

use crate::rig::{self, Rig, spec_in};

fn pids(status: &StatusResponse) -> Vec<u32> {
    status.services.iter().map(|service| service.pid).collect()
}

async fn successor(rundir: &Path, replicas: u32) -> Rig {
    Rig::run(spec_in(rundir, replicas, &[])).await
}

#[tokio::test]
async fn a_new_warden_keeps_what_it_finds() {
    let mut rig = Rig::start(3).await;
    rig.inject("leader", Fault::Kill).await.unwrap();
    rig.event("leader_serving").await;
    let before = rig.settled().await;
    let last_id = rig.replay(1).await[0].id;
    let rundir = rig.kill_warden();
    assert!(pids(&before).into_iter().all(rig::lives));

    let mut rig = successor(&rundir, 3).await;
    let adopted = rig.event("adopted").await;
    println!("{}", adopted.detail);
    assert!(adopted.id > last_id, "the numbers go on: {} after {last_id}", adopted.id);
    assert_eq!(adopted.epoch, Some(2));
    assert_eq!(rig.event("gateway_rejoined").await.epoch, Some(2), "half-sent orders are put right");
    let after = rig.settled().await;
    assert_eq!((pids(&after), after.epoch), (pids(&before), 2), "nobody was started or promoted");
    let told = |status: &StatusResponse| -> Vec<_> {
        status.services.iter().map(|s| (s.name.clone(), s.role(), s.incarnation, s.restarts)).collect()
    };
    assert_eq!(told(&after), told(&before));

    // What was adopted is kept alive like what was started.
    rig.inject("leader", Fault::Kill).await.unwrap();
    assert_eq!(rig.event("leader_serving").await.epoch, Some(3));
    rig.inject("gateway", Fault::Kill).await.unwrap();
    rig.settled().await;
    rig.down().await;
    assert!(pids(&after).into_iter().all(|pid| !rig::lives(pid) || rig::is_zombie(pid)), "some are left");
    assert!(!rundir.join("ppvmm.state").exists());
}

#[tokio::test]
async fn what_died_while_nobody_watched_is_replaced() {
    for victims in [vec![0], vec![1], vec![0, 1], vec![2], vec![1, 2, 3], vec![0, 1, 2]] {
        let mut rig = Rig::start(3).await;
        let before = rig.settled().await;
        let rundir = rig.kill_warden();
        for victim in &victims {
            rig::send(before.services[*victim].pid, Signal::KILL);
        }
        let mut rig = successor(&rundir, 3).await;
        let after = rig.settled().await;
        for (at, (old, new)) in before.services.iter().zip(&after.services).enumerate() {
            assert_eq!(old.pid != new.pid, victims.contains(&at), "{victims:?}: {after:#?}");
        }
        let led = victims.contains(&1);
        assert_eq!(after.epoch, if led { 2 } else { 1 }, "{victims:?}");
        rig.down().await;
    }
}

#[tokio::test]
async fn a_group_of_which_nothing_lives_begins_anew() {
    let mut rig = Rig::start(2).await;
    let before = rig.settled().await;
    let rundir = rig.kill_warden();
    pids(&before).into_iter().for_each(|pid| rig::send(pid, Signal::KILL));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut rig = successor(&rundir, 2).await;
    assert_eq!(rig.status().await.epoch, 1);
    rig.down().await;
}

#[tokio::test]
async fn a_service_that_says_no_hello_is_killed() {
    let mut rig = Rig::start(2).await;
    let before = rig.settled().await;
    let rundir = rig.kill_warden();
    rig::send(before.services[1].pid, Signal::STOP);
    let mut rig = successor(&rundir, 2).await;
    let killed = rig.event_of("service_killed", "replica/0").await;
    // Either is a reason, and a warden that is hardly run may come to the second one first.
    let reasons = ["stopped by a signal", "did not say hello in time"];
    assert!(reasons.contains(&killed.detail.as_str()), "{killed:?}");
    let serving = rig.event("leader_serving").await;
    assert_eq!((serving.service.as_str(), serving.epoch), ("replica/1", Some(2)));
    rig.down().await;
}

#[tokio::test]
async fn an_adopted_leader_that_stops_is_noticed_without_being_a_child() {
    let rig = Rig::start(2).await;
    let rundir = rig.kill_warden();
    let mut rig = successor(&rundir, 2).await;
    rig.settled().await;
    rig.inject("leader", Fault::Stop).await.unwrap();
    assert_eq!(rig.event("service_killed").await.detail, "stopped by a signal");
    assert_eq!(rig.event("leader_serving").await.epoch, Some(2));
    rig.down().await;
}

/// They were looked at as seldom as the board, each 200 ms: 100 ms on average.
#[tokio::test]
async fn stops_of_adopted_services_are_noticed_soon() {
    const BOUND_US: u64 = 80_000;
    let mut detected_us = Vec::new();
    for _ in 0..3 {
        let rundir = Rig::start(3).await.kill_warden();
        let mut rig = successor(&rundir, 3).await;
        rig.settled().await;
        // Who is started anew is a child again, so each of them is stopped once.
        for target in ["leader", "leader", "leader", "gateway"] {
            rig.inject(target, Fault::Stop).await.unwrap();
            detected_us.push(rig.event("service_killed").await.detect_us.unwrap());
            rig.settled().await;
        }
        rig.down().await;
    }
    let late = detected_us.iter().filter(|us| **us > BOUND_US).count();
    assert!(late <= detected_us.len() / 4, "{detected_us:?} us");
}

/// Deaths at any moment: in the middle of starts, promotions and adoptions.
#[tokio::test]
async fn wardens_that_die_again_and_again_lose_nothing_for_good() {
    let mut rig = Rig::start(3).await;
    let mut epoch = 1;
    let mut rundir = rig.rundir.clone();
    for round in 0..40_u64 {
        // The first ones die within their first steps.
        let life = Duration::from_micros(200 + (round * 7_919) % 40_000);
        if round % 3 == 0 {
            let target = ["leader", "gateway", "follower"][(round / 3) as usize % 3];
            // There may be none just then.
            let _ = rig.inject(target, Fault::Kill).await;
        }
        tokio::time::sleep(life).await;
        let now = rig.status().await.epoch;
        assert!(now >= epoch, "epochs grow: {now} after {epoch}");
        epoch = now;
        rundir = rig.kill_warden();
        rig = Rig::begin(spec_in(&rundir, 3, &[])).await;
    }
    let status = rig.settled().await;
    let leaders = status.services.iter().filter(|service| service.role() == api::v1::Role::Leader).count();
    assert_eq!(leaders, 1);
    // Nobody else is left: each process of this group has its directory in its environment.
    rig::alone(&rundir, &pids(&status)).await;
    rig.down().await;
}

#[tokio::test]
async fn a_group_of_another_shape_is_not_adopted() {
    let rig = Rig::start(2).await;
    let rundir = rig.kill_warden();
    let refused = Warden::new(spec_in(&rundir, 3, &[]));
    assert!(matches!(refused.map(drop), Err(Error::Shape { .. })));
    let mut other_log = spec_in(&rundir, 2, &[]);
    other_log.group.log = "somewhere else".to_owned();
    assert!(matches!(Warden::new(other_log).map(drop), Err(Error::Shape { .. })));
    let mut rig = successor(&rundir, 2).await;
    rig.settled().await;
    rig.down().await;
}

#[tokio::test]
async fn members_are_adopted_and_faults_hit_what_they_run() {
    let dir = tempfile::tempdir().unwrap().keep();
    let with_members = || rig::with_members(spec_in(&dir, 1, &[]), 2);
    let rig = Rig::run(with_members()).await;
    rig.kill_warden();
    let mut rig = Rig::run(with_members()).await;
    let status = rig.settled().await;
    let names: Vec<_> = status.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["gateway", "etcd-0", "etcd-1", "replica/0"]);
    assert_eq!(status.services[1].role(), api::v1::Role::Member);
    let hit = rig.inject("etcd-0", Fault::Kill).await.unwrap();
    assert_ne!(hit.pid, status.services[1].pid, "the wrapper's child");
    let died = rig.event_of("service_died", "etcd-0").await;
    assert_eq!(died.incarnation, Some(1));
    assert_eq!(rig.event_of("service_ready", "etcd-0").await.incarnation, Some(2));
    rig.settled().await;
    rig.down().await;
}

/// A stranger has no place in the group, whatever it says.
#[tokio::test]
async fn who_is_not_known_is_not_adopted() {
    let mut rig = Rig::start(1).await;
    let path = rig.rundir.join(control::ADOPT_SOCKET_NAME);
    // It says nothing: its link is closed after a while, and nobody waits for it.
    let silent = control::Link::connect(&path).unwrap();
    let link = control::Link::connect(&path).unwrap();
    let odd = control::FromService { report: Some(control::from_service::Report::SnapshotWanted(true)) };
    link.send(&odd, &[]).unwrap();
    link.set_nonblocking(false).unwrap();
    let closed = tokio::task::spawn_blocking(move || link.receive::<control::ToService>()).await.unwrap();
    assert!(matches!(closed, Err(control::LinkError::Closed)), "{closed:?}");
    silent.set_nonblocking(false).unwrap();
    let closed = tokio::task::spawn_blocking(move || silent.receive::<control::ToService>()).await.unwrap();
    assert!(matches!(closed, Err(control::LinkError::Closed)), "{closed:?}");
    assert!(rig.settled().await.serving);
    rig.down().await;
}
