//! A process, its scheduler and an observer, in steps of a tenth of a millisecond.

use super::super::*;
use super::PROMISE;
use crate::{Since, limits::MS};

pub const STEP_NS: u64 = MS / 10;
/// The run time of a process that does not leave its processor moves with the tick alone.
const TICK_NS: u64 = 4 * MS;

/// A small generator, so that each case can be run again.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// There are free processors.
    Usual,
    /// Both the process and the observer wait for a processor often; it is known how long.
    Full,
    /// As full, and the process's waits are not known.
    FullUnknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Works,
    /// At a part of its rate.
    Slow(u64),
    /// Waits for ever.
    Asleep,
    /// Uses the processor for nothing.
    Spins,
    /// The same, with a heartbeat.
    Circles,
}

/// Whether it runs, and how the kernel tells of it.
#[derive(Clone, Debug)]
struct Scheduled {
    waits_until: TimeNs,
    wait_began: Option<TimeNs>,
    run_ns: u64,
    unaccounted_ns: u64,
    wait_ns: u64,
}

pub struct World {
    machine: Machine,
    pub mode: Mode,
    pub saturated: bool,
    per_ms: u64,
    steps: u64,
    random: Random,
    scheduled: Scheduled,
    observed_at: TimeNs,
    observe_late_ns: u64,
    offered: u64,
    taken: u64,
    heartbeat: u64,
    emptied: u64,
    emptied_seen: u64,
    work: Since,
    pub detector: Detector,
    pub dead: Option<(TimeNs, Cause)>,
}

impl World {
    pub fn new(machine: Machine, per_ms: u64, seed: u64) -> Self {
        Self {
            machine,
            mode: Mode::Works,
            saturated: false,
            per_ms,
            steps: 0,
            random: Random::new(seed + 1),
            scheduled: Scheduled {
                waits_until: TimeNs(0),
                wait_began: None,
                run_ns: 0,
                unaccounted_ns: 0,
                wait_ns: 0,
            },
            observed_at: TimeNs(0),
            observe_late_ns: 0,
            offered: 0,
            taken: 0,
            heartbeat: 0,
            emptied: 0,
            emptied_seen: 0,
            work: Since::default(),
            detector: Detector::new(PROMISE, TimeNs(0)),
            dead: None,
        }
    }

    pub fn now(&self) -> TimeNs {
        TimeNs(self.steps * STEP_NS)
    }

    pub fn run_ms(&mut self, ms: u64) {
        for _ in 0..ms * MS / STEP_NS {
            self.steps += 1;
            self.offer();
            if self.gets_processor() {
                self.run();
            }
            self.observe();
        }
    }

    fn offer(&mut self) {
        // Half of what it can do, in bursts; or always more than enough.
        let share = if self.saturated { 20 } else { 5 };
        let per_burst = self.per_ms * share / 10;
        if self.steps.is_multiple_of(10) {
            self.offered += per_burst.max(1);
        }
        if self.saturated {
            self.offered = self.offered.max(self.taken + 2 * self.per_ms);
        }
    }

    /// Whether the process runs in this step, and the kernel's accounts of it.
    fn gets_processor(&mut self) -> bool {
        let now = self.now();
        let wants = self.mode != Mode::Asleep;
        let full = self.machine != Machine::Usual;
        let scheduled = &mut self.scheduled;
        if wants && full && now >= scheduled.waits_until && self.random.below(40) == 0 {
            scheduled.waits_until = now.plus_ns((1 + self.random.below(12)) * MS);
        }
        if now < scheduled.waits_until {
            scheduled.wait_began.get_or_insert(now);
            return false;
        }
        if let Some(began) = scheduled.wait_began.take() {
            scheduled.wait_ns += now.since_ns(began);
        }
        if wants {
            scheduled.unaccounted_ns += STEP_NS;
        }
        let leaves = matches!(self.mode, Mode::Works | Mode::Slow(_));
        if leaves || now.0.is_multiple_of(TICK_NS) {
            scheduled.run_ns += std::mem::take(&mut scheduled.unaccounted_ns);
        }
        wants
    }

    fn run(&mut self) {
        let can = match self.mode {
            Mode::Works => self.per_ms.max(10) / 10,
            Mode::Slow(part) => {
                (self.steps * self.per_ms / 10 / part) - ((self.steps - 1) * self.per_ms / 10 / part)
            }
            Mode::Asleep | Mode::Spins | Mode::Circles => 0,
        };
        let works = !matches!(self.mode, Mode::Spins);
        self.heartbeat += u64::from(works);
        self.taken += can.min(self.offered - self.taken);
        self.emptied += u64::from(self.taken == self.offered);
    }

    fn observe(&mut self) {
        let due = self.observed_at.plus_ms(1);
        if self.now() < due.plus_ns(self.observe_late_ns) {
            return;
        }
        let sample = self.sample(due);
        self.observed_at = self.now();
        let full = self.machine != Machine::Usual;
        let late = full && self.random.below(10) == 0;
        self.observe_late_ns = if late { self.random.below(12) * MS } else { 0 };
        if let Verdict::Dead { cause, .. } = self.detector.judge(&sample) {
            let now = self.now();
            self.dead.get_or_insert((now, cause));
        }
    }

    fn sample(&mut self, due: TimeNs) -> Sample {
        let now = self.now();
        let emptied = std::mem::replace(&mut self.emptied_seen, self.emptied) != self.emptied;
        let work_since = self.work.look(now, self.offered > self.taken, emptied);
        let known = self.machine != Machine::FullUnknown;
        let runnable = now < self.scheduled.waits_until || self.mode != Mode::Asleep;
        Sample {
            now,
            observer_gap_ns: now.since_ns(due),
            observer_stolen_ns: 0,
            process: ProcessState::Alive,
            heartbeat: self.heartbeat,
            send: Flow {
                taken: self.taken,
                offered: Some(self.offered),
                work_since,
                room_since: Some(TimeNs(0)),
                ..Flow::default()
            },
            receive: Flow::default(),
            device: DeviceReport::Fine,
            device_fine_since: None,
            processor: known.then_some(ProcessorUse {
                run_ns: self.scheduled.run_ns,
                wait_ns: self.scheduled.wait_ns,
                runnable,
            }),
        }
    }
}
