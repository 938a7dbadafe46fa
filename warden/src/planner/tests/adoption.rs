//! Plans that go on from those of earlier wardens.

use super::*;

fn found(service: ServiceId, pid: Option<u32>) -> Found {
    Found { service, incarnation: 4, pid, ready: true }
}

/// A gateway and three replicas of which these live; replica 0 was told to lead epoch 6.
fn adopted(living: &[ServiceId]) -> Rig {
    let all = [GATEWAY, replica(0), replica(1), replica(2)];
    let services = all.map(|id| found(id, living.contains(&id).then_some(100))).to_vec();
    let recorded = Recorded { epoch: 6, leader: Some(0), services };
    let planner = Planner::adopted(3, 0, &recorded, TimeUs(0));
    let mut rig = Rig { planner, now: TimeUs(0), actions: Vec::new(), events: Vec::new() };
    rig.step(Input::Tick);
    rig
}

fn hello(rig: &mut Rig, service: ServiceId, leads_epoch: u64) -> Vec<Action> {
    let incarnation = rig.incarnation(service);
    let said = Input::Hello { service, incarnation, ready: true, applied: 9, leads_epoch, orphaned_ms: 30 };
    rig.step(said).to_vec()
}

const ALL: [ServiceId; 4] = [GATEWAY, ServiceId::Replica(0), ServiceId::Replica(1), ServiceId::Replica(2)];

#[test]
fn what_lives_goes_on_and_gets_a_fresh_link() {
    let mut rig = adopted(&ALL);
    assert_eq!(rig.actions, []);
    assert_eq!(hello(&mut rig, replica(1), 0), []);
    assert_eq!(hello(&mut rig, GATEWAY, 0), [], "nobody is promoted while one may lead");
    assert_eq!(hello(&mut rig, replica(0), 6), [lead(0, 4, 6)]);
    assert!(rig.planner.is_serving());
    assert_eq!(hello(&mut rig, replica(2), 0), []);
    let told = rig.event(&Kind::Adopted);
    assert_eq!(
        told.detail,
        "replica/1, gateway, replica/0 (leads epoch 6), replica/2; nobody watched for 30 ms"
    );
    assert_eq!(hello(&mut rig, replica(2), 0), [], "once is enough");
    // A death from outside costs nothing: it was of use to the earlier warden.
    assert_eq!(rig.died_of(replica(2), Cause::Unseen), [spawn(replica(2), 5)]);
}

#[test]
fn what_is_missing_starts_as_soon_as_the_memory_is_there() {
    let mut rig = adopted(&[GATEWAY, replica(0)]);
    assert_eq!(rig.actions, [], "nobody has handed over the memory");
    assert_eq!(hello(&mut rig, GATEWAY, 0), [spawn(replica(1), 5), spawn(replica(2), 5)]);
    assert_eq!(hello(&mut rig, replica(0), 6), [lead(0, 4, 6)]);
}

#[test]
fn a_dead_leader_is_followed_by_a_higher_epoch() {
    let mut rig = adopted(&[GATEWAY, replica(1), replica(2)]);
    assert_eq!(hello(&mut rig, GATEWAY, 0), [spawn(replica(0), 5)]);
    assert_eq!(hello(&mut rig, replica(2), 0), [], "replica 1 may have been promoted meanwhile");
    assert_eq!(hello(&mut rig, replica(1), 0), [lead(1, 4, 7)]);
}

#[test]
fn an_order_to_lead_that_did_not_arrive_is_given_anew() {
    let mut rig = adopted(&ALL);
    hello(&mut rig, GATEWAY, 0);
    hello(&mut rig, replica(1), 0);
    hello(&mut rig, replica(2), 0);
    assert_eq!(hello(&mut rig, replica(0), 0), [lead(0, 4, 7)]);
}

#[test]
fn a_leader_of_which_nothing_was_written_down_counts_by_its_epoch() {
    let mut rig = adopted(&ALL);
    assert_eq!(hello(&mut rig, replica(2), 8), []);
    assert_eq!(hello(&mut rig, GATEWAY, 0), [lead(2, 4, 8)]);
    assert_eq!(hello(&mut rig, replica(0), 6), [kill(replica(0), 4)], "there is one leader");
    assert_eq!(rig.died(replica(0)), [spawn(replica(0), 5)]);
    assert_eq!(rig.planner.leader(), Some(2));
}

#[test]
fn who_says_no_hello_in_time_is_killed_and_replaced() {
    let mut rig = adopted(&ALL);
    hello(&mut rig, GATEWAY, 0);
    hello(&mut rig, replica(1), 0);
    hello(&mut rig, replica(2), 0);
    assert_eq!(rig.after_ms(HELLO_BOUND_MS), [kill(replica(0), 4)]);
    assert_eq!(rig.died_of(replica(0), Cause::Unseen), [lead(1, 4, 7)]);
}

#[test]
fn a_service_that_still_starts_is_waited_for() {
    let mut rig = adopted(&ALL);
    let said = Input::Hello {
        service: replica(1),
        incarnation: 4,
        ready: false,
        applied: 0,
        leads_epoch: 0,
        orphaned_ms: 1,
    };
    assert_eq!(rig.step(said), []);
    rig.ready(replica(1), 3);
    assert_eq!(rig.state(replica(1)), State::Ready);
}

#[test]
fn without_any_memory_the_group_begins_anew() {
    let mut rig = adopted(&[replica(1)]);
    assert_eq!(rig.after_ms(HELLO_BOUND_MS), [kill(replica(1), 4)]);
    let actions = rig.died_of(replica(1), Cause::Unseen).to_vec();
    assert_eq!(actions[0], Action::MakeMemory);
    assert_eq!(actions.len(), 5);
    rig.event(&Kind::StateLost);
}

#[test]
fn a_stop_ends_what_was_adopted_and_what_was_not() {
    let mut rig = adopted(&[GATEWAY, replica(0)]);
    hello(&mut rig, replica(0), 6);
    assert_eq!(rig.step(Input::StopRequested), [], "the gateway has no link yet");
    assert_eq!(hello(&mut rig, GATEWAY, 0), [Action::Stop { service: GATEWAY }]);
}

#[test]
fn a_process_is_written_down_before_it_is_told_anything() {
    let mut rig = Rig::new(1);
    let begun = Action::Begin { service: GATEWAY, incarnation: 1 };
    let spawned = Input::Spawned { service: GATEWAY, incarnation: 1, pid: 7 };
    assert_eq!(rig.step(spawned), std::slice::from_ref(&begun));
    assert!(begun.is_to_be_recorded() && lead(0, 1, 1).is_to_be_recorded());
    assert!(!kill(GATEWAY, 1).is_to_be_recorded());
}

#[test]
fn a_warden_that_slept_puts_everything_off() {
    let mut rig = Rig::serving(3);
    rig.died(replica(0));
    rig.step(Input::Halted { service: replica(2), incarnation: 1 });
    let asleep_ms = TAKEOVER_BOUND_MS * 5;
    rig.now = rig.now.plus_ms(asleep_ms);
    let slept = Input::Asleep { us: asleep_ms * 1_000 };
    let killed = |actions: &[Action]| actions.iter().any(|action| matches!(action, Action::Kill { .. }));
    assert!(!killed(rig.step(slept)));
    rig.leading(1, 2);
    assert!(killed(rig.after_ms(STOPPED_FOLLOWER_GRACE_MS)));
}

#[test]
fn members_start_first_end_last_and_never_lead() {
    let member = ServiceId::Member(0);
    let planner = Planner::with_members(1, 1, TimeUs(0));
    let mut rig = Rig { planner, now: TimeUs(0), actions: Vec::new(), events: Vec::new() };
    assert_eq!(rig.step(Input::Tick), [spawn(GATEWAY, 1), spawn(member, 1), spawn(replica(0), 1)]);
    rig.ready(GATEWAY, 0);
    assert_eq!(rig.ready(member, 0), []);
    assert_eq!(rig.ready(replica(0), 0), [lead(0, 1, 1)], "replicas wait for no member");
    rig.step(Input::Spawned { service: member, incarnation: 1, pid: 70 });
    rig.step(Input::FaultsFor { service: member, incarnation: 1, pid: 71 });
    assert_eq!(rig.planner.resolve("etcd-0".parse().unwrap()), Some((member, 71)));
    assert_eq!(rig.died(member), [spawn(member, 2)]);
    rig.ready(member, 0);
    rig.step(Input::StopRequested);
    rig.died_of(GATEWAY, Cause::Exited(0));
    assert_eq!(rig.died_of(replica(0), Cause::Exited(0)), [Action::Stop { service: member }]);
    assert_eq!(rig.died_of(member, Cause::Exited(0)), [Action::Finished { failed: None }]);
}
