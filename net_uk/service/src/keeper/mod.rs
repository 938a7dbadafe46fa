//! The keeper: holds all descriptors, starts shadow and drivers, watches them, and does what the recovery's plan says.
//!
//! It moves no frame and maps no guest's memory. While there is work it looks at everybody each millisecond; without any it
//! sleeps until a network card has a frame or the shadow says that a guest sent one.

mod child;
mod commands;
mod held;
mod look;
mod reset;

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hypervisor::HostSpec;
use net_watch::TimeNs;
use net_watch::detector::{Cause, DeviceReport, ExitStatus, Lie, Verdict};
use net_watch::ladder::{Action, Attempt, Incarnation, Input, Ladder, NicId, Part, Report, ReportKind};
use nic::NicSpec;

use crate::error::Error;
use crate::events::{Event, Events};
use crate::limits::{IDLE_AFTER, KEEPER_IDLE, LOOK_PAUSE, LOOK_PAUSE_MAX, LOOK_REST, NICS_MAX};
use crate::poller::{Interest, Poller};
use crate::wire::{Accused, Order, Said};
use child::{Child, Heard};
use commands::{Command, Commands};
use held::Kept;

/// Where the library that speaks with the store finds its socket.
const STORE_VARIABLE: &str = "XENSTORED_PATH";

const BUSY: u64 = 0;
const STOP: u64 = 1;
const COMMANDS: u64 = 2;
const NICS: u64 = 16;
const CHILDREN: u64 = 1 << 32;
const LINKS: u64 = 1 << 33;

/// What a keeper is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The network cards.
    pub nics: Vec<NicSpec>,
    /// The hypervisor.
    pub host: HostSpec,
    /// The store's socket, if it is not the usual one.
    pub store: Option<PathBuf>,
    /// Faults may be injected.
    pub injection: bool,
}

/// The keeper.
pub struct Keeper {
    options: Options,
    kept: Kept,
    ladder: Ladder,
    children: BTreeMap<Part, Child>,
    poller: Poller,
    events: Events,
    began: Instant,
    /// Inputs that came up while others were being taken.
    inputs: VecDeque<Input>,
    /// Since when nobody had anything to do.
    idle_since: Option<TimeNs>,
    looked_at: TimeNs,
    /// How long the last look took.
    look_took: Duration,
    stop: std::os::fd::OwnedFd,
    commands: Commands,
}

impl Keeper {
    /// Opens everything, and starts nothing yet. `stop`: readable when it is to end.
    ///
    /// # Errors
    /// What cannot be opened.
    pub fn new(options: Options, events: Events, stop: std::os::fd::OwnedFd) -> Result<Self, Error> {
        if options.nics.len() > NICS_MAX {
            return Err(Error::Full { what: "network card" });
        }
        let kept = Kept::open(&options)?;
        let poller = Poller::new()?;
        poller.add(&kept.busy, BUSY, Interest::READ)?;
        poller.add(&stop, STOP, Interest::READ)?;
        // A file or the null device cannot be waited for, and gives no commands.
        let _ = poller.add(std::io::stdin(), COMMANDS, Interest::READ);
        let ids: Vec<NicId> =
            (0..options.nics.len()).filter_map(|n| u16::try_from(n).ok().map(NicId)).collect();
        let ladder = Ladder::new(&ids, TimeNs(0))?;
        Ok(Self {
            options,
            kept,
            ladder,
            children: BTreeMap::new(),
            poller,
            events,
            began: Instant::now(),
            inputs: VecDeque::new(),
            idle_since: None,
            looked_at: TimeNs(0),
            look_took: Duration::ZERO,
            stop,
            commands: Commands::default(),
        })
    }

    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// What it cannot go on without.
    pub fn run(&mut self) -> Result<(), Error> {
        let mut ready = vec![];
        self.step(Input::Tick)?;
        loop {
            let pause = self.pause()?;
            let planned = self.now().plus_ns(nanos(pause));
            self.poller.wait(pause, &mut ready)?;
            let woken = !ready.is_empty();
            for word in &ready {
                match *word {
                    STOP => return self.end(),
                    BUSY => self.wake_up()?,
                    COMMANDS => self.obey()?,
                    word if word & LINKS != 0 => self.hear(part_of(word & !LINKS))?,
                    word if word & CHILDREN != 0 => self.bury(part_of(word & !CHILDREN))?,
                    _ => self.wake_up()?,
                }
            }
            let now = self.now();
            let gap_ns = if woken { 0 } else { now.since_ns(planned) };
            self.look(now, gap_ns)?;
            self.step(Input::Tick)?;
        }
    }

    fn now(&self) -> TimeNs {
        TimeNs(nanos(self.began.elapsed()))
    }

    /// How long to sleep; prepares to be woken up if nobody has anything to do.
    fn pause(&mut self) -> Result<Duration, Error> {
        let now = self.now();
        let due = self.ladder.next_deadline().map(|at| Duration::from_nanos(at.since_ns(now)));
        let idle = self.idle_since.is_some_and(|since| now.since_ns(since) > nanos(IDLE_AFTER));
        if idle {
            self.kept.fall_asleep(&mut self.poller, NICS)?;
        }
        // On a machine where a look takes long, it is not to take the processor from those that are looked at.
        let pause =
            if idle { KEEPER_IDLE } else { LOOK_PAUSE.max(self.look_took * LOOK_REST).min(LOOK_PAUSE_MAX) };
        Ok(due.map_or(pause, |due| due.min(pause)))
    }

    fn wake_up(&mut self) -> Result<(), Error> {
        self.idle_since = None;
        self.kept.wake_up(&mut self.poller)
    }

    /// Tells the plan something, and does what it says, until nothing more follows.
    fn step(&mut self, input: Input) -> Result<(), Error> {
        self.inputs.push_back(input);
        while let Some(input) = self.inputs.pop_front() {
            for action in self.ladder.step(self.now(), input) {
                self.act(action)?;
            }
        }
        Ok(())
    }

    fn act(&mut self, action: Action) -> Result<(), Error> {
        match action {
            Action::Kill { part, incarnation } => self.kill(part, incarnation),
            Action::Start { part, incarnation } => self.start(part, incarnation)?,
            Action::Reset { nic, attempt } => self.reset(nic, attempt),
            Action::Report(report) => self.report(&report),
        }
        Ok(())
    }

    fn kill(&mut self, part: Part, incarnation: Incarnation) {
        if let Some(child) = self.children.get(&part).filter(|child| child.incarnation == incarnation) {
            child.kill();
        }
    }

    fn start(&mut self, part: Part, incarnation: Incarnation) -> Result<(), Error> {
        let (begin, descriptors) = self.kept.begin(part, incarnation, self.options.injection);
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        let now = self.now();
        let store = self.options.store.iter().map(|store| (STORE_VARIABLE, store.clone().into()));
        let environment: Vec<_> = store.collect();
        let arguments = self.arguments(part);
        match Child::start(part, incarnation, &arguments, &environment, begin, &descriptors, now) {
            Ok(child) => {
                self.poller.add(&child.pidfd, CHILDREN | word_of(part), Interest::READ)?;
                self.poller.add(&child.link, LINKS | word_of(part), Interest::READ)?;
                self.events.tell(Event::of(part, "started", &child.pid.to_string()).with_pid(child.pid));
                self.children.insert(part, child);
            }
            Err(error) => {
                self.events.tell(Event::of(part, "not_started", &error.to_string()));
                let cause = Cause::Exited(ExitStatus::Unknown);
                self.inputs.push_back(Input::Ended { part, incarnation, cause });
            }
        }
        Ok(())
    }

    fn arguments(&self, part: Part) -> Vec<OsString> {
        let role = match part {
            Part::Shadow => "shadow",
            Part::Driver(_) => "driver",
        };
        let mut arguments = vec![OsString::from(role)];
        if part == Part::Shadow {
            let profile = match self.options.host.profile {
                hypervisor::Profile::Xen => "xen",
                hypervisor::Profile::Local => "local",
            };
            arguments.extend(["--profile".into(), profile.into(), "--hv-socket".into()]);
            arguments.push(self.options.host.local_socket.clone().into());
        }
        arguments
    }

    /// No driver of it runs. What goes wrong is told; it is tried again when the next driver finds its device gone.
    fn replace_card(&mut self, nic: NicId) {
        let event = match self.kept.replace(usize::from(nic.0), &mut self.poller) {
            Ok(frames) => ("replaced", format!("another device is there; {frames} frames waited for it")),
            Err(error) => ("not_replaced", error.to_string()),
        };
        self.events.tell(Event::of(Part::Driver(nic), event.0, &event.1));
    }

    fn reset(&mut self, nic: NicId, attempt: Attempt) {
        let succeeded = match reset::reset(&self.options.nics[usize::from(nic.0)]) {
            Ok(()) => true,
            Err(error) => {
                self.events.tell(Event::of(Part::Driver(nic), "reset_failed", &error.to_string()));
                false
            }
        };
        self.inputs.push_back(Input::ResetDone { nic, attempt, succeeded });
    }

    /// Reads what a child says.
    fn hear(&mut self, part: Part) -> Result<(), Error> {
        let Some(child) = self.children.get_mut(&part) else { return Ok(()) };
        let incarnation = child.incarnation;
        loop {
            let Some(child) = self.children.get_mut(&part) else { return Ok(()) };
            match child.hear() {
                Heard::Said(Said::Ready(_)) => {
                    self.events.tell(Event::of(part, "ready", ""));
                    self.step(Input::Ready { part, incarnation })?;
                }
                Heard::Said(Said::Noted(noted)) => {
                    self.events.tell(Event::of(part, &noted.kind, &noted.detail));
                }
                Heard::Said(Said::Accused(accused)) => self.condemn_accused(&accused)?,
                Heard::Nothing => return Ok(()),
                Heard::End => {
                    // Its process is about to end, or not worth listening to. It may have been told of before.
                    let _ = self.poller.remove(&child.link);
                    return Ok(());
                }
            }
        }
    }

    /// A child's pidfd says that it is gone.
    fn bury(&mut self, part: Part) -> Result<(), Error> {
        self.hear(part)?;
        let Some(child) = self.children.get_mut(&part) else { return Ok(()) };
        // What was heard may be about its predecessor: a descriptor lives on in a process that is just being started, and with
        // it what the poller knows. (The keeper waited for a living process, and nobody was watched any more.)
        let Some(status) = child.ended() else { return Ok(()) };
        let Some(child) = self.children.remove(&part) else { return Ok(()) };
        self.poller.remove(&child.pidfd)?;
        self.events.tell(Event::of(part, "ended", &format!("{status:?}")).with_pid(child.pid));
        if let Part::Driver(nic) = part
            && child.device_replaced
        {
            self.replace_card(nic);
        }
        self.step(Input::Ended { part, incarnation: child.incarnation, cause: Cause::Exited(status) })
    }

    /// Looks at everybody, and tells the plan of whoever is found dead.
    fn look(&mut self, now: TimeNs, gap_ns: u64) -> Result<(), Error> {
        let elapsed_ns = now.since_ns(self.looked_at);
        if elapsed_ns < nanos(LOOK_PAUSE) / 2 {
            return Ok(());
        }
        self.looked_at = now;
        let mut worked = false;
        let mut verdicts = vec![];
        for (part, child) in &mut self.children {
            let (sample, busy) = self.kept.sample(*part, child, now, gap_ns);
            worked |= busy;
            let mut verdict = child.detector.judge(&sample);
            if let (Part::Driver(nic), DeviceReport::LinkDown) = (*part, sample.device)
                && self.kept.is_replaced(usize::from(nic.0), now)
            {
                verdict = Verdict::Dead { since: now, cause: Cause::DeviceReplaced };
            }
            if let Part::Driver(nic) = *part {
                self.inputs.push_back(if sample.device == DeviceReport::Fine {
                    Input::DeviceFine { nic }
                } else {
                    Input::DeviceTrouble { nic, trouble: sample.device }
                });
            }
            if let Verdict::Dead { since, cause } = verdict
                && !child.condemned
                && !matches!(cause, Cause::Exited(_))
            {
                child.condemned = true;
                child.device_replaced = cause == Cause::DeviceReplaced;
                verdicts.push((*part, child.incarnation, since, cause));
            }
        }
        self.look_took = Duration::from_nanos(self.now().since_ns(now));
        self.idle_since = if worked { None } else { Some(self.idle_since.unwrap_or(now)) };
        for (part, incarnation, since, cause) in verdicts {
            let lasted_us = now.since_ns(since) / 1000;
            self.events.tell(Event::of(part, "condemned", &format!("{cause:?} after {lasted_us} us")));
            self.step(Input::Condemned { part, incarnation, cause })?;
        }
        Ok(())
    }

    /// The shadow found nonsense in a driver's lane.
    fn condemn_accused(&mut self, accused: &Accused) -> Result<(), Error> {
        let Ok(number) = u16::try_from(accused.nic) else { return Ok(()) };
        let part = Part::Driver(NicId(number));
        let incarnation = Incarnation(accused.epoch);
        let Some(child) = self.children.get_mut(&part) else { return Ok(()) };
        if child.incarnation != incarnation || std::mem::replace(&mut child.condemned, true) {
            return Ok(());
        }
        let cause = Cause::Lying(Lie::Lane);
        self.events.tell(Event::of(part, "condemned", &format!("{cause:?}: {}", accused.detail)));
        self.step(Input::Condemned { part, incarnation, cause })
    }

    fn obey(&mut self) -> Result<(), Error> {
        let Some(commands) = self.commands.read() else { return self.poller.remove(std::io::stdin()) };
        for command in commands {
            match command {
                Ok(Command::Counts) => self.tell_counts(),
                Ok(Command::Inject(part, fault)) if self.options.injection => {
                    if let Some(child) = self.children.get(&part) {
                        child.order(Order::Misbehave(crate::wire::Misbehave { fault }));
                    }
                }
                Ok(Command::Inject(..)) => tracing::warn!("faults were not allowed at the start"),
                Err(error) => tracing::warn!(%error, "not a command"),
            }
        }
        Ok(())
    }

    fn tell_counts(&mut self) {
        for (place, record) in self.kept.state.connected() {
            for queue in 0..record.queues.len() {
                let Ok(memory) = self.kept.state.queue(place, queue) else { continue };
                let detail = memory.counts.to_string();
                let name = format!("vif{}.{} queue {queue} {detail}", record.domid, record.handle);
                self.events.tell(Event::of(Part::Shadow, "counts", &name));
            }
        }
        for (number, card) in (0u16..).zip(&self.kept.cards) {
            let counts = card.lane.words().counts();
            let detail = format!(
                "tx_frames={} tx_bytes={} rx_frames={} rx_bytes={} tx_damaged={} rx_damaged={}",
                counts.tx_frames,
                counts.tx_bytes,
                counts.rx_frames,
                counts.rx_bytes,
                counts.tx_damaged,
                card.lane.rx_damaged()
            );
            self.events.tell(Event::of(Part::Driver(NicId(number)), "counts", &detail));
        }
    }

    fn report(&mut self, report: &Report) {
        let kind = match report.kind {
            ReportKind::Failed(_) => "failed",
            ReportKind::DeviceTrouble(_) => "device_trouble",
            ReportKind::Escalated => "escalated",
            ReportKind::Recovered => "recovered",
            ReportKind::GaveUp => "gave_up",
            ReportKind::Probing => "probing",
            ReportKind::DoesNotEnd => "does_not_end",
            ReportKind::ResetFailed => "reset_failed",
            ReportKind::ResetStuck => "reset_stuck",
        };
        let since = report.since.map_or(0, |since| report.at.since_ns(since) / 1000);
        let detail = format!("{:?} at rung {:?}, for {since} us", report.kind, report.rung);
        self.events.tell(Event::of(report.part, kind, &detail));
    }

    fn end(&mut self) -> Result<(), Error> {
        for child in self.children.values_mut() {
            child.order(Order::Stop(true));
        }
        for child in self.children.values_mut() {
            child.end();
        }
        let _ = rustix::io::read(&self.stop, &mut [0; 8]);
        Ok(())
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn word_of(part: Part) -> u64 {
    part.nic().map_or(0, |nic| u64::from(nic.0) + 1)
}

fn part_of(word: u64) -> Part {
    match word.checked_sub(1) {
        None => Part::Shadow,
        Some(number) => Part::Driver(NicId(u16::try_from(number).unwrap_or(u16::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_name_parts() {
        for part in [Part::Shadow, Part::Driver(NicId(0)), Part::Driver(NicId(7))] {
            assert_eq!(part_of(word_of(part)), part);
        }
    }
}
