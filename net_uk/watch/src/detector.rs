//! Judges one process, a NIC driver or the shadow, from samples.
//!
//! A process is dead when its end was seen, when it was stopped, when its words cannot be true, or when it stands still
//! though it could work. The length from which a standstill is a hang is learned from those that ended well. The time of
//! a standstill is the process's own: neither time in which it waited for a processor counts, nor time in which the
//! observer was not run.
//!
//! A guest is outside of all that: a standstill counts only while the process itself sees room for its results, and a
//! rate only while nothing that a guest made up was refused. All that is judged comes from words that no guest can write.

mod gaps;
mod pace;
mod rate;
mod sample;
mod stall;
#[cfg(test)]
mod tests;
mod verdict;

pub use sample::{DeviceReport, ExitStatus, Flow, ProcessState, ProcessorUse, Sample};
pub use verdict::{Cause, Direction, Lie, Verdict, Why};

use crate::TimeNs;
use crate::limits::{
    CONTRADICTION_MAX_NS, HEARTBEATS_MISSED_MAX, LATENESS_FACTOR, START_BOUND_NS, STILL_CEILING_NS,
    STILL_FLOOR_NS, STILL_PEAK_HALF_LIFE_NS, STOLEN_FACTOR, STOLEN_USUAL_NS, STOPPED_GRACE_NS,
};
use pace::{Interval, Pace};
use rate::Rate;
use stall::{Grade, Moved, Moves, Stall};

/// What a process promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// Longest time between two heartbeats when there is nothing to do, in nanoseconds.
    pub heartbeat_ns: u64,
}

/// What was learned, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Length of a hang in sending, in nanoseconds.
    pub send_ns: u64,
    /// Length of a hang in receiving, in nanoseconds.
    pub receive_ns: u64,
    /// Length of a missed heartbeat, in nanoseconds.
    pub heartbeat_ns: u64,
    /// Learned rate of sending, in units per second.
    pub send_per_s: u64,
    /// Learned rate of receiving, in units per second.
    pub receive_per_s: u64,
}

#[derive(Clone, Debug)]
struct Course {
    moves: Moves,
    stall: Stall,
    rate: Rate,
}

impl Course {
    fn new() -> Self {
        Self { moves: Moves::default(), stall: Stall::new(), rate: Rate::default() }
    }

    fn begin(&mut self) {
        self.stall.begin();
        (self.moves, self.rate) = (Moves::default(), Rate::default());
    }
}

/// Time that something lasted.
#[derive(Clone, Copy, Debug, Default)]
struct Lasting {
    ns: u64,
    since: TimeNs,
}

impl Lasting {
    fn step(&mut self, from: TimeNs, holds: bool, ns: u64) {
        match (holds, self.ns) {
            (false, _) => *self = Self::default(),
            (true, 0) => *self = Self { ns: ns.max(1), since: from },
            (true, so_far) => self.ns = so_far.saturating_add(ns),
        }
    }
}

/// The longest of some times, half forgotten after each [`STILL_PEAK_HALF_LIFE_NS`].
#[derive(Clone, Copy, Debug, Default)]
struct Peak {
    ns: u64,
    at: TimeNs,
}

impl Peak {
    fn note(&mut self, now: TimeNs, ns: u64) {
        if ns >= self.ns(now) {
            *self = Self { ns, at: now };
        }
    }

    fn ns(self, now: TimeNs) -> u64 {
        self.ns >> (now.since_ns(self.at) / STILL_PEAK_HALF_LIFE_NS).min(63)
    }
}

/// The judge of one process. Bounded memory, no allocation.
#[derive(Clone, Debug)]
pub struct Detector {
    promise: Promise,
    pace: Pace,
    send: Course,
    receive: Course,
    beats: Stall,
    heartbeat: Option<u64>,
    started: bool,
    begun_at: TimeNs,
    starting_ns: u64,
    stopped: Lasting,
    contradiction: Lasting,
    trouble: Lasting,
    /// Whether the process's waits for a processor are known.
    waits_known: bool,
    lateness: Peak,
    stolen: Peak,
    dead: Option<(TimeNs, Cause)>,
}

impl Detector {
    /// A judge of a process that begins.
    pub fn new(promise: Promise, now: TimeNs) -> Self {
        Self {
            promise,
            pace: Pace::new(now),
            send: Course::new(),
            receive: Course::new(),
            beats: Stall::new(),
            heartbeat: None,
            started: false,
            begun_at: now,
            starting_ns: 0,
            stopped: Lasting::default(),
            contradiction: Lasting::default(),
            trouble: Lasting::default(),
            waits_known: false,
            lateness: Peak::default(),
            stolen: Peak::default(),
            dead: None,
        }
    }

    /// The next incarnation begins. What was learned of standstills stays; rates are learned anew, as the device may have
    /// another one after its reset.
    pub fn begin(&mut self, now: TimeNs) {
        let (mut send, mut receive, mut beats) =
            (self.send.clone(), self.receive.clone(), self.beats.clone());
        send.begin();
        receive.begin();
        beats.begin();
        let (lateness, stolen) = (self.lateness, self.stolen);
        *self = Self { send, receive, beats, lateness, stolen, ..Self::new(self.promise, now) };
    }

    /// Takes a sample and judges. A death is told until [`Detector::begin`].
    pub fn judge(&mut self, sample: &Sample) -> Verdict {
        if self.dead.is_none() {
            self.dead = self.step(sample);
        }
        match self.dead {
            Some((since, cause)) => Verdict::Dead { since, cause },
            None => self.suspicion(sample),
        }
    }

    /// What was learned.
    pub fn bounds(&self, now: TimeNs) -> Bounds {
        let floor_ns = self.floor_ns(now);
        Bounds {
            send_ns: self.send.stall.bound_ns(now, floor_ns),
            receive_ns: self.receive.stall.bound_ns(now, floor_ns),
            heartbeat_ns: self.beats.bound_ns(now, self.beat_floor_ns(floor_ns)),
            send_per_s: self.send.rate.learned_per_s(),
            receive_per_s: self.receive.rate.learned_per_s(),
        }
    }

    fn step(&mut self, sample: &Sample) -> Option<(TimeNs, Cause)> {
        if let ProcessState::Exited(status) = sample.process {
            return Some((sample.now, Cause::Exited(status)));
        }
        let interval = self.pace.step(sample);
        self.waits_known = sample.processor.is_some();
        self.lateness.note(sample.now, sample.observer_gap_ns);
        // After a pause of an hour the machine is as before: what grows a bound beyond the ceiling is not remembered.
        let stolen_ns = sample.observer_stolen_ns.saturating_sub(STOLEN_USUAL_NS);
        self.stolen.note(sample.now, stolen_ns.min(STILL_CEILING_NS / STOLEN_FACTOR));
        if let Err(lie) = self.take(sample, &interval) {
            return Some((sample.now, Cause::Lying(lie)));
        }
        let stopped = sample.process == ProcessState::Stopped;
        self.stopped.step(interval.from, stopped, interval.watched_ns);
        let trouble = sample.device != DeviceReport::Fine;
        self.trouble.step(interval.from, trouble, interval.credit_ns);
        let fine = sample.device_fine_since.is_some_and(|since| since <= interval.from);
        self.contradiction.step(interval.from, trouble && fine, interval.credit_ns);
        self.verdict(sample)
    }

    /// Takes the counters, or tells what about them cannot be true.
    fn take(&mut self, sample: &Sample, interval: &Interval) -> Result<(), Lie> {
        let went_back = Lie::CounterWentBack;
        let sent = self.send.moves.step(interval, &sample.send).ok_or(went_back)?;
        let received = self.receive.moves.step(interval, &sample.receive).ok_or(went_back)?;
        let beats = sample.heartbeat.checked_sub(self.heartbeat.unwrap_or(sample.heartbeat));
        let beaten = beats.ok_or(went_back)? > 0;
        self.heartbeat = Some(sample.heartbeat);
        for flow in [&sample.send, &sample.receive] {
            if flow.offered.is_some_and(|offered| flow.taken > offered) {
                return Err(Lie::MoreThanOffered);
            }
        }
        self.note_beat(sample, interval, beaten || sent.units > 0 || received.units > 0);
        if self.started {
            self.note_work(sample, interval, sent, received);
        }
        Ok(())
    }

    fn note_beat(&mut self, sample: &Sample, interval: &Interval, beaten: bool) {
        if !self.started {
            self.starting_ns = self.starting_ns.saturating_add(interval.credit_ns);
        }
        self.started |= beaten;
        let expected_since = self.started.then_some(interval.from);
        self.beats.step(sample.now, interval, beaten, expected_since);
    }

    fn note_work(&mut self, sample: &Sample, interval: &Interval, sent: Moved, received: Moved) {
        // The device's trouble is no fault of a process that cannot send because of it.
        let trouble = sample.device != DeviceReport::Fine;
        let send_since = sample.send.busy_since().filter(|_| !trouble);
        let receive_since = sample.receive.busy_since();
        self.send.stall.step(sample.now, interval, sent.units > 0, send_since);
        self.receive.stall.step(sample.now, interval, received.units > 0, receive_since);
        self.send.rate.step(interval, Moved { busy_throughout: sent.busy_throughout && !trouble, ..sent });
        self.receive.rate.step(interval, received);
    }

    fn verdict(&self, sample: &Sample) -> Option<(TimeNs, Cause)> {
        if self.stopped.ns > STOPPED_GRACE_NS {
            return Some((self.stopped.since, Cause::Stopped));
        }
        if self.starting_ns > START_BOUND_NS {
            return Some((self.begun_at, Cause::Hung));
        }
        self.still(sample).or_else(|| self.slow()).or_else(|| {
            let contradicts = self.contradiction.ns > CONTRADICTION_MAX_NS;
            contradicts.then_some((self.contradiction.since, Cause::Lying(Lie::DeviceIsFine)))
        })
    }

    fn still(&self, sample: &Sample) -> Option<(TimeNs, Cause)> {
        let floor_ns = self.floor_ns(sample.now);
        for course in [&self.send, &self.receive] {
            if course.stall.grade(sample.now, floor_ns) == Grade::TooLong {
                // A heartbeat in the second half of the standstill: it runs in circles.
                let beats = self.beats.still_ns() < course.stall.still_ns() / 2;
                let cause = if beats { Cause::Livelocked } else { Cause::Hung };
                return Some((course.stall.since(), cause));
            }
        }
        let grade = self.beats.grade(sample.now, self.beat_floor_ns(floor_ns));
        (grade == Grade::TooLong).then(|| (self.beats.since(), Cause::Hung))
    }

    fn slow(&self) -> Option<(TimeNs, Cause)> {
        let mut rates = [&self.send.rate, &self.receive.rate].into_iter();
        let slow = rates.find(|rate| rate.is_slow())?;
        Some((slow.slow_since(), Cause::SlowedDown))
    }

    fn suspicion(&self, sample: &Sample) -> Verdict {
        let suspect = |since, why| Verdict::Suspect { since, why };
        let floor_ns = self.floor_ns(sample.now);
        if self.stopped.ns > 0 {
            return suspect(self.stopped.since, Why::Stopped);
        }
        for (course, direction) in [(&self.send, Direction::Send), (&self.receive, Direction::Receive)] {
            if course.stall.grade(sample.now, floor_ns) != Grade::Usual {
                return suspect(course.stall.since(), Why::StandsStill(direction));
            }
            if course.rate.is_suspect() {
                return suspect(course.rate.slow_since(), Why::Slow(direction));
            }
        }
        if self.beats.grade(sample.now, self.beat_floor_ns(floor_ns)) != Grade::Usual {
            return suspect(self.beats.since(), Why::NoHeartbeat);
        }
        if self.contradiction.ns > CONTRADICTION_MAX_NS / 2 {
            return suspect(self.contradiction.since, Why::Contradiction);
        }
        match self.trouble.ns {
            0 => Verdict::Healthy,
            _ => suspect(self.trouble.since, Why::Device(sample.device)),
        }
    }

    /// Where the process's waits are not known, the observer's own tell how long one waits for a processor here.
    fn floor_ns(&self, now: TimeNs) -> u64 {
        let waits_ns = match self.waits_known {
            true => self.stolen.ns(now).saturating_mul(STOLEN_FACTOR),
            false => self.lateness.ns(now).saturating_mul(LATENESS_FACTOR),
        };
        STILL_FLOOR_NS.saturating_add(waits_ns).min(STILL_CEILING_NS)
    }

    fn beat_floor_ns(&self, floor_ns: u64) -> u64 {
        floor_ns.max(self.promise.heartbeat_ns.saturating_mul(HEARTBEATS_MISSED_MAX))
    }
}
