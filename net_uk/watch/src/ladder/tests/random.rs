//! Random faults in a world of processes that die late and tell late.
//!
//! Whatever happens: there are never two processes of one part, nor a reset under a driver; what is done in any second is
//! bounded; nothing is given up soon after a success; and when the faults end, all that was not given up runs, and what was
//! given up was told.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Fault {
    /// A process ends by itself or from outside.
    Dies(usize),
    /// A detector finds a process dead.
    Condemned(usize),
    /// Starts of this part fail so many times.
    StartsFail(usize, u32),
    /// Processes of this part take so long to end.
    DiesSlowly(usize, u64),
    /// The device has trouble, or has none any more.
    Trouble(usize, bool),
    /// Resets take so long, and fail or not.
    Resets(u64, bool),
    Wait(u64),
    /// The planner is replaced by one that adopts.
    KeeperDies,
}

fn fault() -> impl Strategy<Value = Fault> {
    let which = 0..3_usize;
    prop_oneof![
        4 => which.clone().prop_map(Fault::Dies),
        3 => which.clone().prop_map(Fault::Condemned),
        2 => (which.clone(), 1..40_u32).prop_map(|(part, times)| Fault::StartsFail(part, times)),
        1 => (which.clone(), 0..3_000_u64).prop_map(|(part, ms)| Fault::DiesSlowly(part, ms)),
        2 => (which, any::<bool>()).prop_map(|(nic, bad)| Fault::Trouble(nic, bad)),
        1 => (0..15_000_u64, any::<bool>()).prop_map(|(ms, succeeds)| Fault::Resets(ms, succeeds)),
        6 => prop_oneof![0..50_u64, 0..500_u64, 0..20_000_u64].prop_map(Fault::Wait),
        1 => Just(Fault::KeeperDies),
    ]
}

struct Process {
    part: Part,
    incarnation: Incarnation,
    ends_at: Option<TimeNs>,
    ready_at: Option<TimeNs>,
}

struct World {
    ladder: Ladder,
    now: TimeNs,
    parts: Vec<Part>,
    processes: Vec<Process>,
    incarnations: Vec<Incarnation>,
    starts_fail: [u32; 3],
    dies_slowly_ms: [u64; 3],
    trouble: [bool; 3],
    reset_ms: u64,
    reset_succeeds: bool,
    resets: Vec<(NicId, Attempt, TimeNs)>,
    last_success: [Option<TimeNs>; 3],
    given_up: [bool; 3],
    recent: VecDeque<TimeNs>,
}

/// In any second: each part may be a success ten times, with a climb of the whole ladder for each at worst.
const ACTIONS_PER_S_MAX: usize =
    3 * 10 * 3 * (RESTART_STRIKES_MAX + RESET_STRIKES_MAX + ALL_STRIKES_MAX) as usize;

impl World {
    fn new() -> Self {
        let mut world = Self {
            ladder: Ladder::new(&[NIC, NicId(1)], TimeNs(0)).unwrap(),
            now: TimeNs(0),
            parts: vec![Part::Shadow, DRIVER, OTHER],
            processes: Vec::new(),
            incarnations: vec![Incarnation(0); 3],
            starts_fail: [0; 3],
            dies_slowly_ms: [0; 3],
            trouble: [false; 3],
            reset_ms: 100,
            reset_succeeds: true,
            resets: Vec::new(),
            last_success: [None; 3],
            given_up: [false; 3],
            recent: VecDeque::new(),
        };
        world.step(Input::Tick);
        world
    }

    fn index(&self, part: Part) -> usize {
        self.parts.iter().position(|known| *known == part).unwrap()
    }

    fn step(&mut self, input: Input) {
        let actions = self.ladder.step(self.now, input);
        assert!(self.ladder.next_deadline().is_none_or(|due| due > self.now), "{input:?}");
        for action in actions {
            self.count(&action);
            self.act(action);
        }
    }

    fn count(&mut self, action: &Action) {
        if matches!(action, Action::Report(_)) {
            return;
        }
        self.recent.push_back(self.now);
        while self.recent.front().is_some_and(|at| self.now.since_ns(*at) >= 1_000 * MS) {
            self.recent.pop_front();
        }
        assert!(self.recent.len() <= ACTIONS_PER_S_MAX, "{} actions in a second", self.recent.len());
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Kill { part, incarnation } => {
                let at = self.now.plus_ms(self.dies_slowly_ms[self.index(part)]);
                let mut live = self.processes.iter_mut();
                let process = live.find(|p| p.part == part && p.incarnation == incarnation);
                let process = process.expect("only what lives is killed");
                process.ends_at = Some(process.ends_at.map_or(at, |ends_at| ends_at.min(at)));
            }
            Action::Start { part, incarnation } => self.start(part, incarnation),
            Action::Reset { nic, attempt } => {
                assert!(!self.resets.iter().any(|(other, ..)| *other == nic), "two resets");
                assert!(!self.processes.iter().any(|p| p.part == Part::Driver(nic)), "under a driver");
                self.resets.push((nic, attempt, self.now.plus_ms(self.reset_ms)));
            }
            Action::Report(report) => self.hear(report),
        }
    }

    fn start(&mut self, part: Part, incarnation: Incarnation) {
        let index = self.index(part);
        assert!(!self.processes.iter().any(|process| process.part == part), "two of {part:?}");
        assert!(!self.resets.iter().any(|(nic, ..)| part == Part::Driver(*nic)), "under a reset");
        assert!(incarnation > self.incarnations[index]);
        self.incarnations[index] = incarnation;
        let fails = self.starts_fail[index] > 0;
        self.starts_fail[index] = self.starts_fail[index].saturating_sub(1);
        let (ready_at, ends_at) = match fails {
            true => (None, Some(self.now)),
            false => (Some(self.now.plus_ms(3)), None),
        };
        self.processes.push(Process { part, incarnation, ends_at, ready_at });
    }

    fn hear(&mut self, report: Report) {
        let index = self.index(report.part);
        match report.kind {
            ReportKind::GaveUp => {
                self.given_up[index] = true;
                let state = self.ladder.view()[index].state;
                let recent =
                    self.last_success[index].is_some_and(|at| self.now.since_ns(at) < RECENT_SUCCESS_NS);
                // A probe that fails may follow a success of long ago only.
                assert!(!recent || state == State::Running, "given up soon after a success");
            }
            ReportKind::Recovered => {
                self.given_up[index] = false;
                self.last_success[index] = Some(self.now);
            }
            _ => {}
        }
    }

    /// What happens next in the world or in the plan.
    fn next(&self) -> Option<TimeNs> {
        let processes = self.processes.iter().flat_map(|process| [process.ends_at, process.ready_at]);
        let resets = self.resets.iter().map(|(.., at)| Some(*at));
        processes.chain(resets).chain([self.ladder.next_deadline()]).flatten().min()
    }

    fn run_until(&mut self, end: TimeNs) {
        while let Some(next) = self.next().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.happen();
        }
        self.now = end;
        self.step(Input::Tick);
    }

    fn happen(&mut self) {
        let now = self.now;
        if let Some(index) = self.processes.iter().position(|p| p.ends_at.is_some_and(|at| at <= now)) {
            let Process { part, incarnation, .. } = self.processes.remove(index);
            return self.step(Input::Ended { part, incarnation, cause: KILLED });
        }
        if let Some(process) = self.processes.iter_mut().find(|p| p.ready_at.is_some_and(|at| at <= now)) {
            process.ready_at = None;
            let (part, incarnation) = (process.part, process.incarnation);
            self.step(Input::Ready { part, incarnation });
            return self.tell_trouble(part);
        }
        if let Some(index) = self.resets.iter().position(|(.., at)| *at <= now) {
            let (nic, attempt, _) = self.resets.remove(index);
            let succeeded = self.reset_succeeds;
            return self.step(Input::ResetDone { nic, attempt, succeeded });
        }
        self.step(Input::Tick);
    }

    fn tell_trouble(&mut self, part: Part) {
        if let Some(nic) = part.nic()
            && self.trouble[self.index(part)]
        {
            self.step(Input::DeviceTrouble { nic, trouble: DeviceReport::RingFull });
        }
    }

    fn suffer(&mut self, fault: &Fault) {
        match *fault {
            Fault::Dies(index) => {
                let part = self.parts[index];
                if let Some(process) = self.processes.iter_mut().find(|process| process.part == part) {
                    process.ends_at = Some(self.now);
                }
            }
            Fault::Condemned(index) => {
                let (part, incarnation) = (self.parts[index], self.incarnations[index]);
                self.step(Input::Condemned { part, incarnation, cause: Cause::Livelocked });
            }
            Fault::StartsFail(index, times) => self.starts_fail[index] = times,
            Fault::DiesSlowly(index, ms) => self.dies_slowly_ms[index] = ms,
            Fault::Trouble(index, bad) => {
                self.trouble[index] = bad;
                self.tell_trouble(self.parts[index]);
                if let (Some(nic), false) = (self.parts[index].nic(), bad) {
                    self.step(Input::DeviceFine { nic });
                }
            }
            Fault::Resets(ms, succeeds) => (self.reset_ms, self.reset_succeeds) = (ms, succeeds),
            Fault::Wait(ms) => self.run_until(self.now.plus_ms(ms)),
            Fault::KeeperDies => self.adopt(),
        }
    }

    fn adopt(&mut self) {
        // A reset that was under way has come to its end before the next keeper begins.
        self.resets.clear();
        let memories = self.ladder.memories();
        self.ladder = Ladder::resuming(&[NIC, NicId(1)], &memories, self.now).unwrap();
        self.step(Input::Tick);
    }

    fn heal(&mut self) {
        self.starts_fail = [0; 3];
        self.dies_slowly_ms = [0; 3];
        for index in 1..3 {
            self.suffer(&Fault::Trouble(index, false));
        }
        (self.reset_ms, self.reset_succeeds) = (100, true);
        self.run_until(self.now.plus_ms(20_000));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_fault_leads_to_health_or_to_a_report(faults in prop::collection::vec(fault(), 0..150)) {
        let mut world = World::new();
        for fault in &faults {
            world.suffer(fault);
        }
        world.heal();
        for (index, view) in world.ladder.view().into_iter().enumerate() {
            let runs = view.state == State::Running && view.failing_since.is_none();
            prop_assert!(runs || world.given_up[index], "{:?}", view);
        }
        // Probes bring the rest back.
        world.run_until(world.now.plus_ns(2 * PROBE_MAX_NS));
        for view in world.ladder.view() {
            prop_assert_eq!(view.state, State::Running);
            prop_assert_eq!(view.failing_since, None);
        }
        prop_assert_eq!(world.processes.len(), 3);
    }

    #[test]
    fn a_crash_loop_of_everything_is_bounded_and_ends_in_reports(
        lives_ms in prop::array::uniform3(0..90_u64),
        keeper_too in any::<bool>(),
    ) {
        let mut world = World::new();
        let mut starts = 0;
        while world.given_up != [true; 3] && starts < 1_000 {
            for (index, ms) in lives_ms.iter().enumerate() {
                starts += 1;
                world.run_until(world.now.plus_ms(*ms + 4));
                world.suffer(&Fault::Dies(index));
                // Resets of keepers that die before they are done have no end.
                if keeper_too && world.resets.is_empty() {
                    world.suffer(&Fault::KeeperDies);
                }
            }
            world.run_until(world.now.plus_ms(1));
        }
        prop_assert!(starts < 1_000 || lives_ms.iter().sum::<u64>() > 80);
    }
}
