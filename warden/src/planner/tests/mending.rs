//! Damaged snapshots and logs, and replicas that others find wrong.

use super::*;

fn mistrust(by: u32, accused: u32, index: u64) -> Input {
    let (service, incarnation) = (replica(by), 1);
    Input::Mistrust { service, incarnation, replica: accused, index, why: "roots differ".into() }
}

fn taken(by: u32, index: u64) -> Input {
    Input::SnapshotTaken { service: replica(by), incarnation: 1, index, length_bytes: 8 }
}

fn log_damaged(rig: &mut Rig, number: u32, index: u64) {
    let (service, incarnation) = (replica(number), rig.incarnation(replica(number)));
    rig.step(Input::LogDamaged { service, incarnation, index });
    rig.died_of(service, Cause::Exited(1));
}

#[test]
fn two_of_three_end_a_follower_and_tell_when_it_is_rebuilt() {
    let mut rig = Rig::serving(3);
    assert_eq!(rig.step(mistrust(0, 2, 40)), []);
    rig.event(&Kind::CorruptionDetected);
    assert_eq!(rig.step(mistrust(0, 2, 41)), [], "one replica has one vote");
    rig.now = TimeUs(500);
    assert_eq!(rig.step(mistrust(1, 2, 40)), [kill(replica(2), 1)]);
    rig.event(&Kind::ReplicaOutvoted);
    assert_eq!(rig.died(replica(2)), [spawn(replica(2), 2)]);
    rig.now = TimeUs(9_500);
    rig.ready(replica(2), 40);
    assert_eq!(rig.event(&Kind::ReplicaRebuilt).recover_us, Some(9_500));
    assert_eq!(rig.step(mistrust(1, 2, 50)), [], "what was held against it went with its process");
}

#[test]
fn a_leader_that_is_out_voted_is_fenced_before_a_clean_one_leads() {
    let mut rig = Rig::serving(3);
    rig.step(Input::Progress { replica: 1, incarnation: 1, applied: 90 });
    rig.step(mistrust(0, 1, 40));
    rig.step(mistrust(1, 0, 40));
    assert_eq!(rig.step(mistrust(2, 0, 40)), [kill(replica(0), 1)]);
    assert_eq!(rig.died(replica(0)), [lead(2, 1, 2)], "replica 1 is further, but somebody finds it wrong");
}

#[test]
fn a_replica_that_finds_itself_wrong_needs_no_vote() {
    let mut rig = Rig::serving(1);
    let why = "sum of /".to_owned();
    let damaged = Input::Damaged { service: replica(0), incarnation: 1, index: 7, why };
    assert_eq!(rig.step(damaged.clone()), [kill(replica(0), 1)]);
    assert_eq!(rig.step(damaged), [], "once");
}

#[test]
fn votes_that_make_no_sense_count_for_nothing() {
    let mut rig = Rig::serving(3);
    for (by, accused) in [(1, 1), (1, 9)] {
        assert_eq!(rig.step(mistrust(by, accused, 1)), []);
        rig.event(&Kind::ReportIgnored);
    }
    let gateway =
        Input::Mistrust { service: GATEWAY, incarnation: 1, replica: 0, index: 1, why: String::new() };
    assert_eq!(rig.step(gateway), []);
    assert_eq!(rig.step(mistrust(1, 0, 1)), []);
    let mut two = Rig::serving(2);
    assert_eq!(two.step(mistrust(1, 0, 1)), [], "one of two is not most of them");
}

#[test]
fn a_replica_that_is_wrong_again_and_again_backs_off() {
    let mut rig = Rig::serving(3);
    for start in 1..=u64::from(STRIKES_FREE) + 1 {
        let why = String::new();
        rig.step(Input::Damaged { service: replica(2), incarnation: start, index: 1, why });
        rig.died(replica(2));
        rig.ready(replica(2), 1);
    }
    assert_eq!(rig.state(replica(2)), State::Down);
}

#[test]
fn a_snapshot_of_a_replica_that_was_wrong_then_is_dropped() {
    let mut rig = Rig::serving(3);
    rig.step(taken(1, 10));
    rig.step(taken(2, 20));
    // It was found at entry 25; nobody knows since when it was wrong.
    rig.step(mistrust(0, 2, 25));
    let actions = rig.step(mistrust(1, 2, 25)).to_vec();
    assert_eq!(actions[0], Action::DropSnapshot { index: 20 });
    assert!(actions.contains(&Action::AskSnapshot { replica: 1 }), "{actions:?}");
    assert_eq!(rig.planner.snapshot_index(), 10);
}

#[test]
fn a_snapshot_that_cannot_be_loaded_is_dropped_and_asked_for_anew() {
    let mut rig = Rig::serving(3);
    rig.step(taken(1, 10));
    rig.step(taken(1, 20));
    let damaged = Input::SnapshotDamaged { service: replica(2), incarnation: 1, index: 20 };
    let asked = Action::AskSnapshot { replica: 2 };
    assert_eq!(rig.step(damaged.clone()), [Action::DropSnapshot { index: 20 }, asked]);
    assert_eq!(rig.step(damaged), [], "another replica saw it too");
}

#[test]
fn a_replica_that_cannot_read_the_log_waits_for_a_snapshot_behind_the_damage() {
    let mut rig = Rig::serving(3);
    rig.step(Input::Progress { replica: 0, incarnation: 1, applied: 60 });
    rig.step(Input::Progress { replica: 1, incarnation: 1, applied: 40 });
    let damaged = Input::LogDamaged { service: replica(2), incarnation: 1, index: 50 };
    assert_eq!(rig.step(damaged), [Action::AskSnapshot { replica: 0 }], "the follower is not behind it");
    assert_eq!(rig.died_of(replica(2), Cause::Exited(1)), []);
    rig.event(&Kind::RestartHeld);
    assert!(rig.planner.is_mending());
    assert_eq!(
        rig.step(taken(0, 49)),
        [
            Action::KeepSnapshot { index: 49 },
            Action::TellSnapshotKept { replica: 0 },
            Action::AskSnapshot { replica: 0 },
        ]
    );
    let actions = rig.step(taken(0, 60)).to_vec();
    assert_eq!(actions.last(), Some(&spawn(replica(2), 2)));
    assert!(!rig.planner.is_mending());
}

#[test]
fn a_damage_that_nobody_is_behind_is_given_up_with_a_reason() {
    let mut rig = Rig::serving(2);
    log_damaged(&mut rig, 1, 50);
    assert_eq!(rig.state(replica(1)), State::Down);
    log_damaged(&mut rig, 0, 50);
    assert_eq!((rig.state(replica(0)), rig.state(replica(1))), (State::GivenUp, State::GivenUp));
    assert!(rig.event(&Kind::ServiceGaveUp).detail.contains("damaged at entry 50"));
    rig.event(&Kind::GroupFailed);
}
