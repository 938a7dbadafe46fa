//! Examples, one for each rule. Random orders of events are in `random`.

mod adoption;
mod mending;
mod random;

use super::*;
use crate::event::{Cause, SIGKILL};
use crate::limits::*;

const GATEWAY: ServiceId = ServiceId::Gateway;

fn replica(number: u32) -> ServiceId {
    ServiceId::Replica(number)
}

/// A planner with a clock and the actions of the last step, events apart.
struct Rig {
    planner: Planner,
    now: TimeUs,
    actions: Vec<Action>,
    events: Vec<Event>,
}

impl Rig {
    fn new(replicas: u32) -> Self {
        let planner = Planner::new(replicas, TimeUs(0));
        let mut rig = Self { planner, now: TimeUs(0), actions: Vec::new(), events: Vec::new() };
        rig.step(Input::Tick);
        rig
    }

    /// Gateway ready, replica 0 serving epoch 1, all others ready.
    fn serving(replicas: u32) -> Self {
        let mut rig = Self::new(replicas);
        rig.ready(GATEWAY, 0);
        for number in 0..replicas {
            rig.ready(replica(number), 0);
        }
        rig.leading(0, 1);
        assert!(rig.planner.is_serving());
        rig
    }

    fn step(&mut self, input: Input) -> &[Action] {
        let actions = self.planner.step(self.now, input);
        (self.events, self.actions) = (Vec::new(), Vec::new());
        for action in actions {
            match action {
                Action::Emit(event) => self.events.push(*event),
                other => self.actions.push(other),
            }
        }
        assert!(self.planner.next_deadline().is_none_or(|due| due > self.now), "a deadline was not kept");
        &self.actions
    }

    fn after_ms(&mut self, ms: u64) -> &[Action] {
        self.now = self.now.plus_ms(ms);
        self.step(Input::Tick)
    }

    fn incarnation(&self, service: ServiceId) -> u64 {
        self.planner.view().into_iter().find(|view| view.service == service).unwrap().incarnation
    }

    fn state(&self, service: ServiceId) -> State {
        self.planner.view().into_iter().find(|view| view.service == service).unwrap().state
    }

    fn ready(&mut self, service: ServiceId, applied: u64) -> &[Action] {
        let incarnation = self.incarnation(service);
        self.step(Input::Ready { service, incarnation, applied })
    }

    fn leading(&mut self, number: u32, epoch: u64) -> &[Action] {
        let (service, incarnation) = (replica(number), self.incarnation(replica(number)));
        let detail = String::new();
        self.step(Input::Leading { service, incarnation, epoch, applied: 9, takeover_us: 5, detail })
    }

    fn died(&mut self, service: ServiceId) -> &[Action] {
        self.died_of(service, Cause::Signalled(SIGKILL))
    }

    fn died_of(&mut self, service: ServiceId, cause: Cause) -> &[Action] {
        let incarnation = self.incarnation(service);
        self.step(Input::Died { service, incarnation, cause })
    }

    fn event(&self, kind: &Kind) -> &Event {
        let found = self.events.iter().find(|event| event.kind == *kind);
        found.unwrap_or_else(|| panic!("no {kind:?} in {:?}", self.events))
    }
}

fn spawn(service: ServiceId, incarnation: u64) -> Action {
    Action::Spawn { service, incarnation }
}

fn lead(replica: u32, incarnation: u64, epoch: u64) -> Action {
    Action::Lead { replica, incarnation, epoch }
}

fn kill(service: ServiceId, incarnation: u64) -> Action {
    Action::Kill { service, incarnation }
}

#[test]
fn the_first_step_starts_everything() {
    let rig = Rig::new(2);
    assert_eq!(rig.actions, [spawn(GATEWAY, 1), spawn(replica(0), 1), spawn(replica(1), 1)]);
}

#[test]
fn the_first_leader_waits_for_the_gateway() {
    let mut rig = Rig::new(3);
    assert_eq!(rig.ready(replica(1), 0), []);
    assert_eq!(rig.ready(GATEWAY, 0), [lead(1, 1, 1)]);
    assert_eq!(rig.state(replica(1)), State::TakingOver);
    assert!(!rig.planner.is_serving());
    rig.leading(1, 1);
    assert!(rig.planner.is_serving());
    assert_eq!(rig.event(&Kind::LeaderServing).recover_us, None);
}

#[test]
fn the_follower_that_is_furthest_is_promoted_at_once_and_the_dead_leader_comes_back() {
    let mut rig = Rig::serving(3);
    rig.step(Input::Progress { replica: 2, incarnation: 1, applied: 40 });
    rig.step(Input::Progress { replica: 1, incarnation: 1, applied: 39 });
    assert_eq!(rig.died(replica(0)), [lead(2, 1, 2)]);
    assert!(!rig.planner.is_serving());
    rig.now = TimeUs(700);
    assert_eq!(rig.leading(2, 2), [spawn(replica(0), 2)]);
    assert_eq!(rig.event(&Kind::LeaderServing).recover_us, Some(700));
    assert_eq!(rig.ready(replica(0), 40), []);
    assert_eq!(rig.state(replica(0)), State::Ready);
}

#[test]
fn a_dead_leaders_restart_does_not_wait_long_for_the_takeover() {
    let mut rig = Rig::serving(3);
    rig.died(replica(0));
    assert_eq!(rig.after_ms(RESTART_DEFER_MS - 1), []);
    assert_eq!(rig.after_ms(1), [spawn(replica(0), 2)]);
}

#[test]
fn without_a_follower_the_first_restarted_replica_leads() {
    let mut rig = Rig::serving(1);
    assert_eq!(rig.died(replica(0)), [spawn(replica(0), 2)]);
    assert_eq!(rig.ready(replica(0), 0), [lead(0, 2, 2)]);
}

#[test]
fn a_leader_that_does_not_take_over_is_killed_and_waited_for() {
    let mut rig = Rig::serving(3);
    rig.died(replica(0));
    rig.after_ms(RESTART_DEFER_MS);
    assert_eq!(rig.after_ms(TAKEOVER_BOUND_MS - RESTART_DEFER_MS), [kill(replica(1), 1)]);
    assert_eq!(rig.state(replica(1)), State::Fencing);
    assert_eq!(rig.after_ms(KILL_AGAIN_MS), [kill(replica(1), 1)]);
    assert_eq!(rig.died(replica(1)), [lead(2, 1, 3)]);
    rig.leading(2, 3);
    let outage_ms = TAKEOVER_BOUND_MS + KILL_AGAIN_MS;
    assert_eq!(rig.event(&Kind::LeaderServing).recover_us, Some(outage_ms * 1_000));
}

#[test]
fn a_new_gateway_is_joined_to_the_leader_of_the_same_epoch() {
    let mut rig = Rig::serving(3);
    assert_eq!(rig.died(GATEWAY), [spawn(GATEWAY, 2)]);
    assert!(!rig.planner.is_serving());
    assert_eq!(rig.ready(GATEWAY, 0), [lead(0, 1, 1)]);
    assert!(rig.planner.is_serving());
    rig.leading(0, 1);
    assert_eq!(rig.event(&Kind::GatewayRejoined).epoch, Some(1));
}

#[test]
fn the_takeover_bound_stands_still_while_there_is_no_gateway() {
    let mut rig = Rig::new(2);
    rig.ready(replica(0), 0);
    rig.ready(GATEWAY, 0);
    rig.died(GATEWAY);
    assert_eq!(rig.after_ms(TAKEOVER_BOUND_MS * 2), []);
    assert_eq!(rig.ready(GATEWAY, 0), [lead(0, 1, 1)]);
    assert_eq!(rig.after_ms(TAKEOVER_BOUND_MS), [kill(replica(0), 1)]);
}

#[test]
fn a_leader_that_dies_with_the_gateway_is_replaced_when_the_gateway_is_back() {
    let mut rig = Rig::serving(3);
    rig.died(GATEWAY);
    rig.died(replica(0));
    assert_eq!(rig.ready(GATEWAY, 0), [lead(1, 1, 2)]);
}

#[test]
fn deaths_after_ready_cost_nothing() {
    let mut rig = Rig::serving(3);
    for restart in 1..200 {
        assert_eq!(rig.died(replica(2)), [spawn(replica(2), restart + 1)]);
        rig.ready(replica(2), 0);
    }
}

#[test]
fn deaths_before_ready_back_off_and_end_in_giving_up() {
    let mut rig = Rig::new(3);
    for strike in 1..STRIKES_MAX {
        rig.died_of(replica(1), Cause::Exited(1));
        let due = rig.planner.next_deadline().unwrap();
        if strike <= STRIKES_FREE {
            assert_eq!(rig.actions, [spawn(replica(1), u64::from(strike) + 1)]);
        } else {
            assert_eq!((rig.actions.len(), rig.state(replica(1))), (0, State::Down));
            rig.now = due;
            assert_eq!(rig.step(Input::Tick), [spawn(replica(1), u64::from(strike) + 1)]);
        }
    }
    assert_eq!(rig.died_of(replica(1), Cause::Exited(1)), []);
    assert_eq!(rig.state(replica(1)), State::GivenUp);
    rig.event(&Kind::ServiceGaveUp);
    rig.ready(GATEWAY, 0);
    assert_eq!(rig.ready(replica(0), 0), [lead(0, 1, 1)], "the others go on");
}

#[test]
fn a_replica_that_cannot_take_over_is_given_up_in_the_end() {
    let mut rig = Rig::serving(1);
    rig.died(replica(0));
    for _ in 0..STRIKES_MAX * 2 {
        if rig.state(replica(0)) == State::Down {
            rig.after_ms(BACKOFF_MAX_MS);
        }
        rig.ready(replica(0), 0);
        rig.died_of(replica(0), Cause::Signalled(11));
    }
    assert_eq!(rig.state(replica(0)), State::GivenUp);
}

#[test]
fn a_group_without_a_gateway_ends_as_failed() {
    let mut rig = Rig::serving(1);
    for _ in 0..STRIKES_MAX + 1 {
        rig.after_ms(BACKOFF_MAX_MS);
        rig.died_of(GATEWAY, Cause::NotStarted("no such file".into()));
        if rig.state(GATEWAY) == State::GivenUp {
            break;
        }
    }
    rig.event(&Kind::GroupFailed);
    assert_eq!(rig.state(replica(0)), State::Stopping);
    assert_eq!(rig.died_of(replica(0), Cause::Exited(0)), [Action::Finished { failed: Some(GATEWAY) }]);
}

#[test]
fn a_stopped_leader_is_killed_after_its_grace_and_a_continued_one_is_not() {
    let mut rig = Rig::serving(3);
    rig.step(Input::Halted { service: replica(0), incarnation: 1 });
    assert!(!rig.planner.is_serving());
    rig.step(Input::Continued { service: replica(0), incarnation: 1 });
    assert_eq!(rig.after_ms(STOPPED_GRACE_MS), []);
    rig.step(Input::Halted { service: replica(0), incarnation: 1 });
    assert_eq!(rig.after_ms(STOPPED_GRACE_MS), [kill(replica(0), 1)]);
    assert_eq!(rig.died(replica(0)), [lead(1, 1, 2)]);
    rig.leading(1, 2);
    assert_eq!(rig.event(&Kind::LeaderServing).recover_us, Some(STOPPED_GRACE_MS * 1_000));
}

#[test]
fn a_stopped_follower_is_not_promoted() {
    let mut rig = Rig::serving(3);
    rig.step(Input::Halted { service: replica(1), incarnation: 1 });
    assert_eq!(rig.died(replica(0)), [lead(2, 1, 2)]);
}

#[test]
fn a_service_without_a_link_or_a_pulse_is_killed() {
    let mut rig = Rig::serving(3);
    rig.step(Input::LinkClosed { service: replica(2), incarnation: 1 });
    assert_eq!(rig.after_ms(LINK_CLOSED_GRACE_MS), [kill(replica(2), 1)]);
    let why = "no heartbeat".to_owned();
    assert_eq!(
        rig.step(Input::Unresponsive { service: replica(0), incarnation: 1, why }),
        [kill(replica(0), 1)]
    );
}

#[test]
fn a_service_that_never_gets_ready_is_killed() {
    let mut rig = Rig::new(1);
    rig.ready(GATEWAY, 0);
    assert_eq!(rig.after_ms(START_BOUND_MS), [kill(replica(0), 1)]);
}

#[test]
fn an_injected_kill_is_timed_to_its_detection_and_recovery() {
    let mut rig = Rig::serving(3);
    let fault = Fault::Kill;
    let signal = Action::Signal { service: replica(0), incarnation: 1, fault };
    assert_eq!(rig.step(Input::Inject { service: replica(0), fault }), [signal]);
    rig.now = TimeUs(300);
    rig.died(replica(0));
    assert_eq!(rig.event(&Kind::ServiceDied).detect_us, Some(300));
    rig.now = TimeUs(1_000);
    rig.leading(1, 2);
    let event = rig.event(&Kind::LeaderServing);
    assert_eq!((event.detect_us, event.recover_us, event.takeover_us), (Some(300), Some(700), Some(5)));
}

#[test]
fn targets_mean_live_services() {
    let mut rig = Rig::serving(2);
    rig.step(Input::Spawned { service: replica(0), incarnation: 1, pid: 10 });
    rig.step(Input::Spawned { service: replica(1), incarnation: 1, pid: 11 });
    assert_eq!(rig.planner.resolve(Target::Leader), Some((replica(0), 10)));
    assert_eq!(rig.planner.resolve(Target::Follower), Some((replica(1), 11)));
    assert_eq!(rig.planner.resolve(Target::Service(replica(7))), None);
    rig.died(replica(1));
    assert_eq!(rig.planner.resolve(Target::Follower), None);
}

#[test]
fn a_snapshot_is_asked_of_a_follower_once() {
    let mut rig = Rig::serving(3);
    rig.step(Input::Progress { replica: 2, incarnation: 1, applied: 40 });
    let wanted = Input::SnapshotWanted { service: replica(0), incarnation: 1 };
    assert_eq!(rig.step(wanted.clone()), [Action::AskSnapshot { replica: 2 }]);
    assert_eq!(rig.step(wanted), []);
    assert_eq!(rig.after_ms(SNAPSHOT_BOUND_MS), [Action::AskSnapshot { replica: 2 }]);
    rig.died(replica(2));
    assert!(rig.actions.contains(&Action::AskSnapshot { replica: 1 }));
}

#[test]
fn the_leader_writes_the_snapshot_itself_if_it_is_alone() {
    let mut rig = Rig::serving(1);
    let wanted = Input::SnapshotWanted { service: replica(0), incarnation: 1 };
    assert_eq!(rig.step(wanted), [Action::AskSnapshot { replica: 0 }]);
}

#[test]
fn a_newer_snapshot_is_kept_and_each_leader_is_told() {
    let mut rig = Rig::serving(3);
    let taken = |index| Input::SnapshotTaken { service: replica(1), incarnation: 1, index, length_bytes: 8 };
    let tell = |replica| Action::TellSnapshotKept { replica };
    assert_eq!(rig.step(taken(10)), [Action::KeepSnapshot { index: 10 }, tell(0)]);
    assert_eq!(rig.step(taken(9)), [], "an old one is not kept");
    // A log that was full up to the newest snapshot stayed full for ever: each further one had the same index, was
    // passed over, and so was never its own forerunner, up to which the log is let go.
    assert_eq!(rig.step(taken(10)), [Action::KeepSnapshot { index: 10 }, tell(0)]);
    assert_eq!(rig.step(taken(20)), [Action::KeepSnapshot { index: 20 }, tell(0)]);
    assert_eq!(rig.planner.snapshot_index(), 20);
    assert_eq!(rig.died(replica(0)), [lead(1, 1, 2), tell(1)]);
}

#[test]
fn a_stop_ends_the_gateway_then_the_leader_then_the_followers() {
    let mut rig = Rig::serving(3);
    let stop = |service| Action::Stop { service };
    assert_eq!(rig.step(Input::StopRequested), [stop(GATEWAY)]);
    assert!(!rig.planner.is_serving());
    assert_eq!(rig.died_of(GATEWAY, Cause::Exited(0)), [stop(replica(0))]);
    rig.event(&Kind::ServiceStopped);
    assert_eq!(rig.after_ms(STOP_BOUND_MS), [kill(replica(0), 1)]);
    assert_eq!(rig.died(replica(0)), [stop(replica(1)), stop(replica(2))], "nobody is promoted");
    rig.died_of(replica(2), Cause::Exited(0));
    assert_eq!(rig.died_of(replica(1), Cause::Exited(0)), [Action::Finished { failed: None }]);
    assert_eq!(rig.planner.next_deadline(), None);
}

#[test]
fn a_stop_while_a_service_is_down_does_not_wait_for_it() {
    let mut rig = Rig::serving(1);
    for _ in 0..STRIKES_FREE + 2 {
        rig.died_of(GATEWAY, Cause::Exited(1));
    }
    assert_eq!(rig.state(GATEWAY), State::Down);
    assert_eq!(rig.step(Input::StopRequested), [Action::Stop { service: replica(0) }]);
}

#[test]
fn reports_of_earlier_incarnations_are_passed_over() {
    let mut rig = Rig::serving(3);
    rig.died(replica(1));
    let cause = Cause::Signalled(SIGKILL);
    assert_eq!(rig.step(Input::Died { service: replica(1), incarnation: 1, cause }), []);
    assert_eq!(rig.step(Input::Ready { service: replica(1), incarnation: 1, applied: 0 }), []);
    assert_eq!(rig.state(replica(1)), State::Starting);
}

#[test]
fn a_report_to_lead_an_old_epoch_is_ignored() {
    let mut rig = Rig::serving(3);
    rig.died(replica(0));
    rig.leading(1, 1);
    rig.event(&Kind::ReportIgnored);
    assert_eq!(rig.state(replica(1)), State::TakingOver);
}
