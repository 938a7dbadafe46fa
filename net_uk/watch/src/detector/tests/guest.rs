//! No guest makes a verdict: whatever one sends, takes or withholds, a process that does its part is not found dead.
//!
//! The process does its part: when it runs, its heartbeat moves and it does what it can. It is run as the scheduler likes
//! (with waits of up to half a second), the observer too. Everything else is the guest's choice, in each step of a tenth of
//! a millisecond: how much it offers, what a unit costs, whether it is refused, whether there is room for the result.

use proptest::prelude::*;

use super::super::*;
use super::PROMISE;
use super::world::STEP_NS;
use crate::Since;
use crate::limits::{MS, UNIT_COST_RATIO_MAX};

/// What the guest and the scheduler do for some steps.
#[derive(Clone, Copy, Debug)]
struct Phase {
    steps: u64,
    offers: u64,
    unit_cost: u64,
    malformed: bool,
    /// Of so many steps one has room; 0 if none has.
    room_each: u64,
    /// The guest shows room just when the observer looks, and takes it back before the process does.
    teases: bool,
    process_waits: bool,
    observer_waits: bool,
}

fn phase() -> impl Strategy<Value = Phase> {
    let guest = (prop_oneof![Just(0), 0..4_u64, 0..2_000_u64], 1..=UNIT_COST_RATIO_MAX, any::<bool>());
    let room = (prop_oneof![Just(0), Just(1), 1..400_u64], any::<bool>());
    let scheduler = (prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    (1..5_000_u64, guest, room, scheduler).prop_map(|(steps, guest, room, scheduler)| Phase {
        steps,
        offers: guest.0,
        unit_cost: guest.1,
        malformed: guest.2,
        room_each: room.0,
        teases: room.1,
        process_waits: scheduler.0,
        observer_waits: scheduler.1,
    })
}

/// A direction of the process and what it says of it.
#[derive(Default)]
struct Lane {
    offered: u64,
    taken: u64,
    refused: u64,
    emptied: u64,
    blocked: u64,
    has_room: bool,
    seen: (u64, u64),
    work: Since,
    room: Since,
}

impl Lane {
    fn run(&mut self, phase: &Phase, step: u64, has_room: bool) {
        self.has_room = has_room;
        if !has_room {
            self.blocked += 1;
            return;
        }
        // What is refused costs next to nothing. A unit may be larger than what is left of a step.
        let budget = UNIT_COST_RATIO_MAX * (1 + step % 3);
        let can = if phase.malformed { 1_000 } else { budget / phase.unit_cost };
        let done = can.min(self.offered - self.taken);
        self.taken += done;
        self.refused += if phase.malformed { done } else { 0 };
        self.emptied += u64::from(self.taken == self.offered);
    }

    fn flow(&mut self, now: TimeNs) -> Flow {
        let (emptied, blocked) = std::mem::replace(&mut self.seen, (self.emptied, self.blocked));
        Flow {
            taken: self.taken,
            offered: Some(self.offered),
            refused: self.refused,
            work_since: self.work.look(now, self.offered > self.taken, emptied != self.emptied),
            room_since: self.room.look(now, self.has_room, blocked != self.blocked),
        }
    }
}

struct Table {
    detector: Detector,
    step: u64,
    send: Lane,
    receive: Lane,
    heartbeat: u64,
    run_ns: u64,
    wait_ns: u64,
    open_wait_ns: u64,
    observed_at: TimeNs,
    worst: Verdict,
}

impl Table {
    fn new() -> Self {
        Self {
            detector: Detector::new(PROMISE, TimeNs(0)),
            step: 0,
            send: Lane::default(),
            receive: Lane::default(),
            heartbeat: 0,
            run_ns: 0,
            wait_ns: 0,
            open_wait_ns: 0,
            observed_at: TimeNs(0),
            worst: Verdict::Healthy,
        }
    }

    fn play(&mut self, phase: &Phase, know_waits: bool) {
        for _ in 0..phase.steps {
            self.step += 1;
            self.send.offered += phase.offers;
            self.receive.offered += phase.offers;
            if phase.process_waits && know_waits {
                self.open_wait_ns += STEP_NS;
            } else {
                self.run(phase);
            }
            if !phase.observer_waits {
                self.observe(phase, know_waits);
            }
        }
    }

    fn run(&mut self, phase: &Phase) {
        self.wait_ns += std::mem::take(&mut self.open_wait_ns);
        self.run_ns += STEP_NS;
        self.heartbeat += 1;
        let room = phase.room_each > 0 && self.step.is_multiple_of(phase.room_each);
        self.send.run(phase, self.step, room || !phase.teases);
        self.receive.run(phase, self.step, room);
    }

    fn observe(&mut self, phase: &Phase, know_waits: bool) {
        let now = TimeNs(self.step * STEP_NS);
        let due = self.observed_at.plus_ms(1);
        if now < due {
            return;
        }
        self.observed_at = now;
        let sample = Sample {
            now,
            observer_gap_ns: now.since_ns(due),
            observer_stolen_ns: 0,
            process: ProcessState::Alive,
            heartbeat: self.heartbeat,
            send: self.send.flow(now),
            receive: self.receive.flow(now),
            device: DeviceReport::Fine,
            device_fine_since: Some(TimeNs(0)),
            processor: know_waits.then_some(ProcessorUse {
                run_ns: self.run_ns,
                wait_ns: self.wait_ns,
                runnable: phase.process_waits || self.send.offered > self.send.taken,
            }),
        };
        let verdict = self.detector.judge(&sample);
        if matches!(verdict, Verdict::Dead { .. }) && self.worst == Verdict::Healthy {
            self.worst = verdict;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_guest_makes_no_verdict(phases in prop::collection::vec(phase(), 1..40), know_waits: bool) {
        let mut table = Table::new();
        for phase in &phases {
            table.play(phase, know_waits);
            prop_assert_eq!(table.worst, Verdict::Healthy, "at {} ms in {:?}", table.step / 10, phase);
        }
    }

    #[test]
    fn no_sample_makes_it_panic(words in prop::collection::vec(any::<[u64; 12]>(), 0..200)) {
        let mut detector = Detector::new(PROMISE, TimeNs(0));
        for [now, gap, heartbeat, taken, offered, refused, work, room, run, wait, state, device] in words {
            let flow = Flow {
                taken,
                offered: (offered % 2 == 0).then_some(offered),
                refused,
                work_since: (work % 3 > 0).then_some(TimeNs(work)),
                room_since: (room % 3 > 0).then_some(TimeNs(room)),
            };
            detector.judge(&Sample {
                now: TimeNs(if state % 5 == 0 { now } else { now % (1_000 * MS) }),
                observer_gap_ns: gap,
                observer_stolen_ns: 0,
                process: if state % 7 == 0 { ProcessState::Stopped } else { ProcessState::Alive },
                heartbeat: heartbeat % 1_000,
                send: flow,
                receive: flow,
                device: if device % 2 == 0 { DeviceReport::Fine } else { DeviceReport::LinkDown },
                device_fine_since: Some(TimeNs(device)),
                processor: (state % 2 == 0)
                    .then_some(ProcessorUse { run_ns: run, wait_ns: wait, runnable: state % 4 == 0 }),
            });
        }
    }
}
