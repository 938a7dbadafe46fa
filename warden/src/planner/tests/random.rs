//! Random orders of events against a world that knows which processes really live.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// A process as it really is, which the planner learns late.
#[derive(Clone, Debug)]
struct Process {
    service: ServiceId,
    incarnation: u64,
    alive: bool,
    /// Killed, and still to die: a kill takes its time.
    condemned: bool,
    death_told: bool,
    ready_told: bool,
    lead_due: Option<u64>,
    ever_led: bool,
    /// The epoch that it serves.
    leads: u64,
    /// It has not met the present warden.
    orphan: bool,
    /// The warden wrote it down.
    recorded: bool,
}

struct World {
    replicas: u32,
    planner: Planner,
    now: TimeUs,
    processes: Vec<Process>,
    highest_epoch: u64,
    finished: bool,
    /// The warden dies behind so many actions of its next step.
    dies_after: Option<usize>,
    written: Option<(u64, Option<u32>, Vec<ServiceView>)>,
}

#[derive(Clone, Debug)]
enum Happening {
    Kill(usize),
    TellDeath(usize),
    TellReady(usize),
    TellLeading(usize),
    Halt(usize),
    Continue(usize),
    CloseLink(usize),
    WantSnapshot(usize),
    TakeSnapshot(usize, u64),
    Wait(u64),
    Hello(usize),
    Mistrust(usize, u32),
    /// The warden dies and another one begins; behind so many actions of its last step, if there were any.
    WardenDies(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    let which = any::<prop::sample::Index>().prop_map(|index| index.index(64));
    let which_again = which.clone();
    prop_oneof![
        2 => which.clone().prop_map(Happening::Kill),
        4 => which.clone().prop_map(Happening::TellDeath),
        4 => which.clone().prop_map(Happening::TellReady),
        4 => which.clone().prop_map(Happening::TellLeading),
        1 => which.clone().prop_map(Happening::Halt),
        1 => which.clone().prop_map(Happening::Continue),
        1 => which.clone().prop_map(Happening::CloseLink),
        1 => which.clone().prop_map(Happening::WantSnapshot),
        1 => (which, 0..50_u64).prop_map(|(which, index)| Happening::TakeSnapshot(which, index)),
        2 => (0..3_000_u64).prop_map(Happening::Wait),
        4 => which_again.clone().prop_map(Happening::Hello),
        1 => (which_again, 0..5_u32).prop_map(|(which, accused)| Happening::Mistrust(which, accused)),
        1 => (0..4_usize).prop_map(Happening::WardenDies),
    ]
}

impl World {
    fn new(replicas: u32) -> Self {
        let planner = Planner::new(replicas, TimeUs(0));
        let (processes, now) = (Vec::new(), TimeUs(0));
        let mut world = Self {
            replicas,
            planner,
            now,
            processes,
            highest_epoch: 0,
            finished: false,
            dies_after: None,
            written: None,
        };
        world.step(Input::Tick);
        world
    }

    fn step(&mut self, input: Input) {
        self.now = TimeUs(self.now.0 + 1);
        let actions = self.planner.step(self.now, input);
        assert!(self.planner.next_deadline().is_none_or(|due| due > self.now), "a deadline was not kept");
        for action in actions {
            if self.dies_after.is_some_and(|left| left == 0) {
                break;
            }
            self.dies_after = self.dies_after.map(|left| left - 1);
            if action.is_to_be_recorded() {
                self.record();
            }
            self.act(&action);
        }
        if self.dies_after.take().is_some() {
            return self.begin_anew();
        }
        self.record();
    }

    /// As the warden does: what it knows is what the next one will find.
    fn record(&mut self) {
        for view in self.planner.view() {
            for process in self.processes.iter_mut().filter(|p| p.service == view.service) {
                process.recorded |= process.incarnation == view.incarnation;
            }
        }
        self.written = Some((self.planner.epoch(), self.planner.leader(), self.planner.view()));
    }

    /// Another warden finds what was written down, and what of it lives.
    fn begin_anew(&mut self) {
        // A process that nobody wrote down was told nothing: it ends by itself.
        self.processes.retain(|process| process.recorded);
        let Some((epoch, leader, views)) = self.written.clone() else { return };
        let mut services = Vec::new();
        for view in &views {
            let incarnation = view.incarnation;
            let process =
                self.processes.iter_mut().find(|p| (p.service, p.incarnation) == (view.service, incarnation));
            // Killed ones that still live are found alive.
            let pid = process.filter(|process| !process.death_told).and_then(|process| {
                process.orphan = true;
                process.alive &= !process.condemned;
                process.death_told |= !process.alive;
                process.alive.then_some(1)
            });
            services.push(Found { service: view.service, incarnation, pid, ready: view.was_ready });
        }
        let recorded = Recorded { epoch, leader, services };
        self.planner = Planner::adopted(self.replicas, 0, &recorded, self.now);
        self.step(Input::Tick);
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Spawn { service, incarnation } => self.spawn(service, incarnation),
            Action::Lead { replica, incarnation, epoch } => self.lead(replica, incarnation, epoch),
            Action::Kill { service, incarnation } => {
                let killed =
                    self.processes.iter_mut().find(|p| (p.service, p.incarnation) == (service, incarnation));
                killed.unwrap().condemned = true;
            }
            Action::Stop { service } => {
                // An orderly service exits when told to.
                self.processes.iter_mut().filter(|p| p.service == service).for_each(|p| p.condemned = true);
            }
            Action::Finished { .. } => self.finished = true,
            _ => {}
        }
    }

    fn spawn(&mut self, service: ServiceId, incarnation: u64) {
        let earlier = self.processes.iter().filter(|p| p.service == service);
        assert!(earlier.clone().all(|p| !p.alive && p.death_told), "{service} started while it lives");
        // A warden that died between writing a start down and making it leaves a gap.
        assert!(earlier.map(|p| p.incarnation).max().unwrap_or(0) < incarnation, "incarnations grow");
        self.processes.push(Process {
            service,
            incarnation,
            alive: true,
            condemned: false,
            death_told: false,
            ready_told: false,
            lead_due: None,
            ever_led: false,
            leads: 0,
            orphan: false,
            recorded: false,
        });
    }

    fn lead(&mut self, number: u32, incarnation: u64, epoch: u64) {
        let chosen = (replica(number), incarnation);
        let others = self.processes.iter().filter(|p| (p.service, p.incarnation) != chosen);
        assert!(others.clone().all(|p| !(p.alive && p.ever_led)), "a second leader beside a live one");
        let process = self.processes.iter_mut().find(|p| (p.service, p.incarnation) == chosen).unwrap();
        if process.ever_led {
            assert_eq!(epoch, self.highest_epoch, "a new gateway brings no new epoch");
        } else {
            assert!(epoch > self.highest_epoch, "epochs grow");
        }
        assert!(process.ready_told, "only a ready replica leads");
        process.ever_led = true;
        process.lead_due = Some(epoch);
        self.highest_epoch = epoch;
    }

    fn happen(&mut self, happening: &Happening) {
        let count = self.processes.len();
        let pick = |which: usize| count - 1 - which % count.min(6);
        match *happening {
            Happening::Wait(ms) => {
                self.now = self.now.plus_ms(ms);
                self.step(Input::Tick);
            }
            Happening::Kill(which) => self.processes[pick(which)].alive = false,
            Happening::TellDeath(which) => self.tell_death(pick(which)),
            Happening::TellReady(which) => self.tell_ready(pick(which)),
            Happening::TellLeading(which) => self.tell_leading(pick(which)),
            Happening::Halt(which) => {
                let Process { service, incarnation, .. } = self.processes[pick(which)];
                self.step(Input::Halted { service, incarnation });
            }
            Happening::Continue(which) => {
                let Process { service, incarnation, .. } = self.processes[pick(which)];
                self.step(Input::Continued { service, incarnation });
            }
            Happening::CloseLink(which) => {
                let Process { service, incarnation, .. } = self.processes[pick(which)];
                self.step(Input::LinkClosed { service, incarnation });
            }
            Happening::WantSnapshot(which) => {
                let Process { service, incarnation, .. } = self.processes[pick(which)];
                self.step(Input::SnapshotWanted { service, incarnation });
            }
            Happening::Hello(which) => self.tell_hello(pick(which)),
            Happening::Mistrust(which, accused) => {
                let Process { service, incarnation, .. } = self.processes[pick(which)];
                let why = String::new();
                self.step(Input::Mistrust { service, incarnation, replica: accused, index: 1, why });
            }
            Happening::WardenDies(behind) => self.dies_after = Some(behind),
            Happening::TakeSnapshot(which, index) => {
                let Process { service, incarnation, .. } = self.processes[pick(which)];
                self.step(Input::SnapshotTaken { service, incarnation, index, length_bytes: 1 });
            }
        }
    }

    fn tell_death(&mut self, at: usize) {
        let process = &mut self.processes[at];
        process.alive &= !process.condemned;
        if process.alive || process.death_told {
            return;
        }
        process.death_told = true;
        // Deaths before Ready cost budget, and a group that used it up may rightly end; a service that could
        // not be blamed is what these runs are about, so it is ready before its death is told.
        let (service, incarnation, told) = (process.service, process.incarnation, process.ready_told);
        if !told {
            process.ready_told = true;
            self.step(Input::Ready { service, incarnation, applied: 0 });
        }
        self.step(Input::Died { service, incarnation, cause: Cause::Signalled(SIGKILL) });
    }

    /// A service that lost its warden reaches the next one.
    fn tell_hello(&mut self, at: usize) {
        let process = &mut self.processes[at];
        if !process.orphan || !process.alive || process.death_told {
            return;
        }
        process.orphan = false;
        // The order to lead, if one came, was obeyed before; one that was only half given was not.
        process.leads = process.lead_due.take().unwrap_or(process.leads);
        let Process { service, incarnation, ready_told: ready, leads: leads_epoch, .. } = *process;
        let applied = incarnation;
        self.step(Input::Hello { service, incarnation, ready, applied, leads_epoch, orphaned_ms: 1 });
    }

    fn tell_ready(&mut self, at: usize) {
        let process = &mut self.processes[at];
        if process.orphan {
            process.ready_told |= !process.death_told;
            return;
        }
        if !process.death_told && !process.ready_told {
            process.ready_told = true;
            let (service, incarnation) = (process.service, process.incarnation);
            self.step(Input::Ready { service, incarnation, applied: incarnation });
        }
    }

    fn tell_leading(&mut self, at: usize) {
        let process = &mut self.processes[at];
        if process.death_told || process.orphan {
            return;
        }
        if let Some(epoch) = process.lead_due.take() {
            process.leads = epoch;
            let (service, incarnation) = (process.service, process.incarnation);
            let detail = String::new();
            self.step(Input::Leading { service, incarnation, epoch, applied: 1, takeover_us: 1, detail });
        }
    }

    /// No more faults: everything that lives does what it is told.
    fn heal(&mut self) {
        for _ in 0..40 {
            for at in 0..self.processes.len() {
                self.tell_death(at);
            }
            for at in 0..self.processes.len() {
                if self.processes[at].alive {
                    self.tell_hello(at);
                    self.tell_ready(at);
                    self.tell_leading(at);
                    let Process { service, incarnation, .. } = self.processes[at];
                    self.step(Input::Continued { service, incarnation });
                }
            }
            self.now = self.now.plus_ms(500);
            self.step(Input::Tick);
        }
    }

    fn alive_by_service(&self) -> BTreeMap<ServiceId, usize> {
        let mut count = BTreeMap::new();
        for process in self.processes.iter().filter(|process| process.alive) {
            *count.entry(process.service).or_default() += 1;
        }
        count
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn there_is_never_a_second_leader_and_all_live_when_deaths_stop(
        replicas in 1..5_u32,
        happenings in prop::collection::vec(happening(), 0..300),
    ) {
        let mut world = World::new(replicas);
        for happening in &happenings {
            world.happen(happening);
        }
        world.heal();
        // Replicas that hang in takeover again and again are given up; nobody else is.
        let given_up = world.planner.view().iter().filter(|view| view.state == State::GivenUp).count();
        prop_assert_eq!(given_up, 0);
        prop_assert!(world.planner.is_serving());
        let alive = world.alive_by_service();
        prop_assert_eq!(alive.len(), replicas as usize + 1);
        prop_assert!(alive.values().all(|count| *count == 1));
    }

    #[test]
    fn a_stop_comes_to_its_end_in_any_state(
        replicas in 1..5_u32,
        happenings in prop::collection::vec(happening(), 0..100),
    ) {
        let mut world = World::new(replicas);
        for happening in &happenings {
            world.happen(happening);
        }
        // A warden that died of it would not have been told to stop.
        world.dies_after = None;
        world.step(Input::StopRequested);
        world.heal();
        prop_assert!(world.finished);
        prop_assert!(world.alive_by_service().is_empty());
        prop_assert_eq!(world.planner.next_deadline(), None);
    }
}
