//! Examples, one for each rule. Random faults are in `random`.

mod random;

use super::*;
use crate::detector::ExitStatus;
use crate::limits::*;

const NIC: NicId = NicId(0);
const DRIVER: Part = Part::Driver(NIC);
const OTHER: Part = Part::Driver(NicId(1));
const KILLED: Cause = Cause::Exited(ExitStatus::Signal(9));

/// A ladder with a clock, and the actions of the last step, reports apart.
struct Rig {
    ladder: Ladder,
    now: TimeNs,
    actions: Vec<Action>,
    reports: Vec<Report>,
}

impl Rig {
    fn new() -> Self {
        let ladder = Ladder::new(&[NIC, NicId(1)], TimeNs(0)).unwrap();
        let mut rig = Self { ladder, now: TimeNs(0), actions: Vec::new(), reports: Vec::new() };
        rig.step(Input::Tick);
        rig
    }

    /// All run and are proven.
    fn running() -> Self {
        let mut rig = Self::new();
        for part in [Part::Shadow, DRIVER, OTHER] {
            rig.ready(part);
        }
        rig.after(SUCCESS_NS);
        rig
    }

    fn step(&mut self, input: Input) -> Vec<Action> {
        let actions = self.ladder.step(self.now, input);
        let is_report = |action: &Action| matches!(action, Action::Report(_));
        let (reports, actions): (Vec<_>, _) = actions.into_iter().partition(is_report);
        let report = |action| if let Action::Report(report) = action { Some(report) } else { None };
        self.reports = reports.into_iter().filter_map(report).collect();
        assert!(self.ladder.next_deadline().is_none_or(|due| due > self.now), "a deadline was not kept");
        self.actions = actions;
        self.actions.clone()
    }

    fn after(&mut self, ns: u64) -> Vec<Action> {
        self.now = self.now.plus_ns(ns);
        self.step(Input::Tick)
    }

    fn view(&self, part: Part) -> PartView {
        self.ladder.view().into_iter().find(|view| view.part == part).unwrap()
    }

    fn ready(&mut self, part: Part) -> Vec<Action> {
        let incarnation = self.view(part).incarnation;
        self.step(Input::Ready { part, incarnation })
    }

    fn ended(&mut self, part: Part) -> Vec<Action> {
        let incarnation = self.view(part).incarnation;
        self.step(Input::Ended { part, incarnation, cause: KILLED })
    }

    fn condemned(&mut self, part: Part, cause: Cause) -> Vec<Action> {
        let incarnation = self.view(part).incarnation;
        self.step(Input::Condemned { part, incarnation, cause })
    }

    /// The part dies as soon as it is started, until something else than its start is done.
    fn dies_until_more_is_done(&mut self, part: Part) -> Vec<Action> {
        for _ in 0..100 {
            let mut actions = self.ended(part);
            while actions.is_empty() && self.view(part).state != State::GivenUp {
                let Some(due) = self.ladder.next_deadline() else { return actions };
                self.now = due;
                actions = self.step(Input::Tick);
            }
            if actions != [start(part, self.view(part).incarnation.0)] {
                return actions;
            }
        }
        panic!("it is started for ever");
    }

    fn told(&self, kind: ReportKind) -> bool {
        self.reports.iter().any(|report| report.kind == kind)
    }
}

fn start(part: Part, incarnation: u64) -> Action {
    Action::Start { part, incarnation: Incarnation(incarnation) }
}

fn kill(part: Part, incarnation: u64) -> Action {
    Action::Kill { part, incarnation: Incarnation(incarnation) }
}

fn reset(attempt: u64) -> Action {
    Action::Reset { nic: NIC, attempt: Attempt(attempt) }
}

#[test]
fn the_first_step_starts_everything() {
    assert_eq!(Rig::new().actions, [start(Part::Shadow, 1), start(DRIVER, 1), start(OTHER, 1)]);
}

#[test]
fn a_driver_that_ends_is_started_at_once() {
    let mut rig = Rig::running();
    assert_eq!(rig.ended(DRIVER), [start(DRIVER, 2)]);
    assert!(rig.told(ReportKind::Failed(KILLED)));
    rig.ready(DRIVER);
    rig.after(SUCCESS_NS);
    assert!(rig.told(ReportKind::Recovered));
}

#[test]
fn a_driver_that_hangs_is_fenced_first() {
    let mut rig = Rig::running();
    assert_eq!(rig.condemned(DRIVER, Cause::Hung), [kill(DRIVER, 1)]);
    assert_eq!(rig.condemned(DRIVER, Cause::Hung), []);
    assert_eq!(rig.after(KILL_AGAIN_NS), [kill(DRIVER, 1)]);
    assert_eq!(rig.ended(DRIVER), [start(DRIVER, 2)]);
}

#[test]
fn what_is_about_an_earlier_incarnation_is_of_no_effect() {
    let mut rig = Rig::running();
    rig.ended(DRIVER);
    for input in [
        Input::Ended { part: DRIVER, incarnation: Incarnation(1), cause: KILLED },
        Input::Condemned { part: DRIVER, incarnation: Incarnation(1), cause: Cause::Hung },
        Input::Ready { part: DRIVER, incarnation: Incarnation(1) },
        Input::ResetDone { nic: NIC, attempt: Attempt(0), succeeded: true },
    ] {
        assert_eq!(rig.step(input), []);
        assert_eq!(rig.view(DRIVER).state, State::Starting);
    }
}

#[test]
fn shadow_and_driver_may_die_together() {
    let mut rig = Rig::running();
    assert_eq!(rig.ended(DRIVER), [start(DRIVER, 2)]);
    assert_eq!(rig.ended(Part::Shadow), [start(Part::Shadow, 2)]);
}

#[test]
fn a_storm_of_kills_is_followed_by_starts_alone_while_each_one_works_for_a_while() {
    let mut rig = Rig::running();
    for n in 2..1_000 {
        assert_eq!(rig.ended(DRIVER), [start(DRIVER, n)]);
        rig.ready(DRIVER);
        rig.after(SUCCESS_NS);
    }
}

#[test]
fn a_driver_climbs_the_ladder_to_its_end_and_is_probed_then() {
    let mut rig = Rig::running();
    rig.now = rig.now.plus_ns(2 * RECENT_SUCCESS_NS);
    // It was proven until now.
    assert_eq!(rig.dies_until_more_is_done(DRIVER), [reset(1)]);
    let starts = rig.view(DRIVER).incarnation.0;
    assert_eq!(starts, 1 + u64::from(RESTART_STRIKES_MAX));
    rig.now = rig.now.plus_ns(RECENT_SUCCESS_NS);
    let done = |attempt| Input::ResetDone { nic: NIC, attempt: Attempt(attempt), succeeded: true };
    assert_eq!(rig.step(done(1)), [start(DRIVER, starts + 1)]);
    assert_eq!(rig.dies_until_more_is_done(DRIVER), [reset(2)]);
    assert_eq!(rig.step(done(2)), [start(DRIVER, starts + 2)]);
    let everybody = rig.dies_until_more_is_done(DRIVER);
    assert_eq!(everybody, [kill(Part::Shadow, 1), kill(OTHER, 1)]);
    assert_eq!(rig.ended(OTHER), []);
    let again = [start(Part::Shadow, 2), start(DRIVER, starts + 3), start(OTHER, 2)];
    assert_eq!(rig.ended(Part::Shadow), again);
    rig.ready(Part::Shadow);
    rig.ready(OTHER);
    assert_eq!(rig.dies_until_more_is_done(DRIVER), [kill(Part::Shadow, 2), kill(OTHER, 2)]);
    rig.ended(OTHER);
    rig.ended(Part::Shadow);
    rig.ready(Part::Shadow);
    rig.ready(OTHER);
    assert_eq!(rig.dies_until_more_is_done(DRIVER), []);
    assert_eq!(rig.view(DRIVER).state, State::GivenUp);
    let last = rig.view(DRIVER).incarnation.0;
    assert_eq!(rig.after(PROBE_FIRST_NS), [start(DRIVER, last + 1)]);
    assert!(rig.told(ReportKind::Probing));
    assert_eq!(rig.ended(DRIVER), []);
    assert!(rig.told(ReportKind::GaveUp));
    assert_eq!(rig.after(2 * PROBE_FIRST_NS), [start(DRIVER, last + 2)]);
    rig.ready(DRIVER);
    rig.after(SUCCESS_NS);
    assert!(rig.told(ReportKind::Recovered));
}

#[test]
fn nothing_is_given_up_soon_after_a_success() {
    let mut rig = Rig::running();
    let proven_at = rig.now;
    while rig.view(DRIVER).state != State::GivenUp {
        let done = Input::ResetDone { nic: NIC, attempt: rig.ladder.members[1].attempt, succeeded: true };
        rig.step(done);
        for part in [Part::Shadow, DRIVER, OTHER] {
            if part == DRIVER || rig.view(part).state == State::Fencing {
                rig.ended(part);
            }
            if part != DRIVER {
                rig.ready(part);
            }
        }
        rig.now = rig.ladder.next_deadline().unwrap_or(rig.now).min(rig.now.plus_ms(1_000)).max(rig.now);
        rig.step(Input::Tick);
    }
    assert!(rig.now.since_ns(proven_at) > RECENT_SUCCESS_NS);
}

#[test]
fn a_full_ring_that_lasts_climbs_and_is_given_up() {
    let mut rig = Rig::running();
    let mut seen = Vec::new();
    for _ in 0..2_000 {
        rig.step(Input::DeviceTrouble { nic: NIC, trouble: DeviceReport::RingFull });
        let mut actions = rig.after(10 * MS);
        while let Some(action) = actions.pop() {
            match action {
                Action::Kill { part, incarnation } => {
                    actions.extend(rig.step(Input::Ended { part, incarnation, cause: KILLED }));
                }
                Action::Start { part, incarnation } => {
                    actions.extend(rig.step(Input::Ready { part, incarnation }));
                }
                Action::Reset { nic, attempt } => {
                    actions.extend(rig.step(Input::ResetDone { nic, attempt, succeeded: true }));
                }
                Action::Report(_) => {}
            }
            if !matches!(action, Action::Start { .. }) {
                seen.push(action);
            }
        }
    }
    let resets = seen.iter().filter(|action| matches!(action, Action::Reset { .. })).count();
    let shadow_kills = seen.iter().filter(|a| matches!(a, Action::Kill { part: Part::Shadow, .. })).count();
    // Two on the ladder, and one or two probes.
    assert!((3..=4).contains(&resets) && shadow_kills == 1, "{resets} {shadow_kills}");
    assert_eq!(rig.view(DRIVER).state, State::Running);
    rig.step(Input::DeviceFine { nic: NIC });
    rig.after(SUCCESS_NS);
    assert!(rig.told(ReportKind::Recovered));
}

#[test]
fn a_link_that_is_down_disturbs_no_other_nic() {
    let mut rig = Rig::running();
    for attempt in 1..=2 {
        rig.step(Input::DeviceTrouble { nic: NIC, trouble: DeviceReport::LinkDown });
        assert!(rig.told(ReportKind::DeviceTrouble(DeviceReport::LinkDown)));
        assert_eq!(rig.after(LINK_DOWN_BOUND_NS).len(), 1);
        assert_eq!(rig.ended(DRIVER), [reset(attempt)]);
        rig.step(Input::ResetDone { nic: NIC, attempt: Attempt(attempt), succeeded: true });
        rig.ready(DRIVER);
    }
    rig.step(Input::DeviceTrouble { nic: NIC, trouble: DeviceReport::LinkDown });
    assert_eq!(rig.after(LINK_DOWN_BOUND_NS), []);
    assert!(rig.told(ReportKind::GaveUp));
}

#[test]
fn a_reset_that_never_ends_is_told_and_nothing_runs_meanwhile() {
    let mut rig = Rig::running();
    assert_eq!(rig.dies_until_more_is_done(DRIVER), [reset(1)]);
    assert_eq!(rig.after(RESET_BOUND_NS), []);
    assert!(rig.told(ReportKind::ResetStuck));
    assert_eq!(rig.after(1_000 * RESET_BOUND_NS), []);
    let late = Input::ResetDone { nic: NIC, attempt: Attempt(1), succeeded: false };
    assert!(matches!(rig.step(late)[..], [Action::Start { .. }]));
    assert!(rig.told(ReportKind::ResetFailed));
}

#[test]
fn a_process_that_does_not_end_is_told_once_and_holds_nobody_else_up() {
    let mut rig = Rig::running();
    rig.condemned(OTHER, Cause::Hung);
    let mut told = 0;
    for _ in 0..100 {
        rig.after(KILL_AGAIN_MAX_NS);
        told += usize::from(rig.told(ReportKind::DoesNotEnd));
    }
    assert_eq!(told, 1);
    let actions = rig.dies_until_more_is_done(Part::Shadow);
    assert!(actions.contains(&kill(DRIVER, 1)), "{actions:?}");
    rig.ended(DRIVER);
    let mut started = rig.actions.clone();
    started.extend(rig.after(ALL_FENCE_BOUND_NS));
    assert!(started.contains(&start(DRIVER, 2)), "{started:?}");
}

#[test]
fn a_successor_goes_on_with_what_runs_and_with_what_was_counted() {
    let new = Memory::of_new(DRIVER, TimeNs(0));
    let shadow = Memory { incarnation: Incarnation(4), stage: Stage::Proven(TimeNs(0)), ..new };
    let memories = [
        Memory { part: Part::Shadow, ..shadow },
        Memory { incarnation: Incarnation(7), strikes: RESTART_STRIKES_MAX, stage: Stage::Starting, ..new },
    ];
    let mut ladder = Ladder::resuming(&[NIC], &memories, TimeNs(0)).unwrap();
    assert_eq!(ladder.memories(), memories);
    assert_eq!(ladder.step(TimeNs(0), Input::Tick), []);
    // Eight failures have doubled the bound of its start up to the most.
    assert_eq!(ladder.next_deadline(), Some(TimeNs(READY_BOUND_MAX_NS)));
    // One more failure is one too many, whoever counted the others.
    let cause = Cause::Exited(ExitStatus::Unknown);
    let ended = Input::Ended { part: DRIVER, incarnation: Incarnation(7), cause };
    ladder.step(TimeNs(0), ended);
    assert_eq!(ladder.memories()[1].rung, Rung::ResetDevice);
    assert!(matches!(ladder.memories()[1].stage, Stage::Resetting(_)));
}

#[test]
fn a_successor_kills_again_what_was_condemned() {
    let new = Memory::of_new(DRIVER, TimeNs(0));
    let condemned = Memory { incarnation: Incarnation(3), stage: Stage::Fencing, ..new };
    let mut ladder = Ladder::resuming(&[NIC], &[condemned], TimeNs(5)).unwrap();
    assert!(ladder.step(TimeNs(5), Input::Tick).contains(&kill(DRIVER, 3)));
}

#[test]
fn nics_are_bounded_and_told_apart() {
    let nics: Vec<_> = (0..=u16::try_from(NICS_MAX).unwrap()).map(NicId).collect();
    assert!(matches!(Ladder::new(&nics, TimeNs(0)), Err(WatchError::TooManyNics { .. })));
    assert!(Ladder::new(&nics[1..], TimeNs(0)).is_ok());
    let twice = Ladder::new(&[NIC, NIC], TimeNs(0));
    assert!(matches!(twice, Err(WatchError::NicTwice(nic)) if nic == NIC));
}

/// On a starved machine every start took longer than the bound, and was cut short again and again.
#[test]
fn a_start_that_was_cut_short_is_given_twice_as_long_the_next_time() {
    let mut rig = Rig::running();
    let mut bounds = vec![];
    rig.step(Input::Ended { part: DRIVER, incarnation: rig.view(DRIVER).incarnation, cause: KILLED });
    for _ in 0..6 {
        assert_eq!(rig.view(DRIVER).state, State::Starting);
        let (began, incarnation) = (rig.now, rig.view(DRIVER).incarnation);
        while rig.view(DRIVER).state == State::Starting {
            rig.after(MS);
        }
        bounds.push(rig.now.since_ns(began) / MS);
        rig.step(Input::Ended { part: DRIVER, incarnation, cause: KILLED });
        while rig.view(DRIVER).state == State::Down {
            rig.after(MS);
        }
    }
    assert_eq!(bounds, [4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
}
