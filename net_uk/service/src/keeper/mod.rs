//! The keeper: opens everything, starts shadow and drivers, watches them, and does what the recovery's plan says.
//!
//! It moves no frame and maps no guest's memory. While there is work it looks at everybody each millisecond; without any it
//! sleeps until a network card has a frame or the shadow says that a guest sent one.
//!
//! It may die at any instruction. All that the next one needs is with the vaults ([`crate::vault`]) before it matters: a
//! process that was started does nothing until its first order, which it gets only once it is known to them.

mod act;
mod asks;
mod begin;
mod child;
mod commands;
mod held;
mod look;
mod reset;
mod vaults;

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use hypervisor::HostSpec;
use net_watch::TimeNs;
use net_watch::detector::{Cause, Detector, DeviceReport, Lie, Verdict};
use net_watch::ladder::{Incarnation, Input, Ladder, Memory, NicId, Part};
use nic::NicSpec;

use crate::desk::{Desk, KeeperLock};
use crate::error::Error;
use crate::events::{Event, Events, Format, nanos, now};
use crate::limits::{IDLE_AFTER, KEEPER_IDLE, LOOK_PAUSE, LOOK_PAUSE_MAX, LOOK_REST};
use crate::poller::{Interest, Poller};
use crate::process::{Clock, Late};
use crate::rpc;
use crate::vault::wire::{number_of, part_of};
use crate::wire::{Accused, Order, Said};
pub(crate) use asks::is_fault;
pub use begin::run;
use child::{Child, Heard};
use commands::Commands;
use held::Kept;
use reset::Resets;
use vaults::Vaults;

const BUSY: u64 = 0;
const STOP: u64 = 1;
const COMMANDS: u64 = 2;
const RESETS: u64 = 3;
const ASKS: u64 = 4;
const NICS: u64 = 16;
const CHILDREN: u64 = 1 << 32;
const LINKS: u64 = 1 << 33;
const VAULTS_GONE: u64 = 1 << 34;
const VAULT_LINKS: u64 = 1 << 35;
/// The number in a word.
const NUMBER: u64 = u32::MAX as u64;

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
    /// How events are told.
    pub format: Format,
    /// Where gRPC is served.
    pub listen: PathBuf,
    /// The arguments that say all that, for vaults.
    pub arguments: Vec<OsString>,
}

/// The keeper.
pub struct Keeper {
    options: Options,
    kept: Kept,
    ladder: Ladder,
    children: BTreeMap<Part, Child>,
    /// Judges of the last ones that are gone, for the next ones.
    judges: BTreeMap<Part, Detector>,
    clock: Clock,
    vaults: Vaults,
    /// What the vaults know of the plan.
    remembered: Vec<Memory>,
    resets: Resets,
    poller: Poller,
    events: Events,
    rpc: rpc::Window,
    /// Inputs that came up while others were being taken.
    inputs: VecDeque<Input>,
    /// Since when nobody had anything to do.
    idle_since: Option<TimeNs>,
    looked_at: TimeNs,
    /// How long the last look took.
    look_took: Duration,
    stop: OwnedFd,
    commands: Commands,
    desk: Desk,
    generation: u64,
    start_ticks: u64,
    /// The lock of vaults and keepers, for them.
    lock: OwnedFd,
    /// The lock of all, in which processes are noted.
    parts: File,
    _only: KeeperLock,
}

impl Keeper {
    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// What it cannot go on without: the next keeper may.
    fn serve(&mut self) -> Result<(), Error> {
        let mut ready = vec![];
        self.step(Input::Tick)?;
        loop {
            self.desk.beat_keeper();
            let pause = self.pause()?;
            let planned = now().plus_ns(nanos(pause));
            self.poller.wait(pause, &mut ready)?;
            let woken = !ready.is_empty();
            for word in &ready {
                if self.take(*word)? {
                    return self.end();
                }
            }
            let now = now();
            let late = self.clock.late(if woken { 0 } else { now.since_ns(planned) });
            self.look(now, late)?;
            self.look_at_vaults(now, late)?;
            self.step(Input::Tick)?;
            self.rpc.told(self.events.journal().last());
        }
    }

    /// True if all is to end.
    fn take(&mut self, word: u64) -> Result<bool, Error> {
        let number = u32::try_from(word & NUMBER).unwrap_or(u32::MAX);
        match word {
            STOP => return Ok(true),
            COMMANDS => self.obey()?,
            RESETS => self.resets_ended()?,
            ASKS => self.answer(),
            word if word & VAULT_LINKS != 0 => return Ok(self.vaults.hear_stop(number as usize)),
            word if word & VAULTS_GONE != 0 => self.replace_vault(number as usize)?,
            word if word & LINKS != 0 => self.hear(part_of(number))?,
            word if word & CHILDREN != 0 => self.bury(part_of(number))?,
            // BUSY, or a network card has a frame.
            _ => self.wake_up()?,
        }
        Ok(false)
    }

    /// How long to sleep; prepares to be woken up if nobody has anything to do.
    fn pause(&mut self) -> Result<Duration, Error> {
        let now = now();
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

    /// Tells the plan something, and does what it says, until nothing more follows. Then the vaults know of it.
    fn step(&mut self, input: Input) -> Result<(), Error> {
        self.inputs.push_back(input);
        while let Some(input) = self.inputs.pop_front() {
            for action in self.ladder.step(now(), input) {
                self.act(action)?;
            }
        }
        if self.ladder.memories() != self.remembered {
            self.deposit();
        }
        Ok(())
    }

    fn watch(&self, part: Part) -> Result<(), Error> {
        let Some(child) = self.children.get(&part) else { return Ok(()) };
        let number = u64::from(number_of(part));
        self.poller.add(&child.process, CHILDREN | number, Interest::READ)?;
        self.poller.add(&child.link, LINKS | number, Interest::READ)
    }

    /// Reads what a child says.
    fn hear(&mut self, part: Part) -> Result<(), Error> {
        let Some(child) = self.children.get_mut(&part) else { return Ok(()) };
        let incarnation = child.incarnation;
        loop {
            let Some(child) = self.children.get_mut(&part) else { return Ok(()) };
            match child.hear() {
                Heard::Said(Said::Ready(_)) => {
                    if !std::mem::replace(&mut child.ready, true) {
                        self.events.tell(Event::of(part, "ready", ""));
                    }
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
        self.poller.remove(&child.process)?;
        // The vaults have copies of it yet: closing it would not take it out.
        let _ = self.poller.remove(&child.link);
        self.events.tell(Event::of(part, "ended", &format!("{status:?}")).with_pid(child.process.pid));
        self.judges.insert(part, child.process.detector);
        if let Part::Driver(nic) = part
            && child.device_replaced
        {
            self.replace_card(nic);
        }
        self.step(Input::Ended { part, incarnation: child.incarnation, cause: Cause::Exited(status) })
    }

    /// Looks at everybody, and tells the plan of whoever is found dead.
    fn look(&mut self, now: TimeNs, late: Late) -> Result<(), Error> {
        let elapsed_ns = now.since_ns(self.looked_at);
        if elapsed_ns < nanos(LOOK_PAUSE) / 2 {
            return Ok(());
        }
        self.looked_at = now;
        let mut worked = false;
        let mut verdicts = vec![];
        for (part, child) in &mut self.children {
            let (sample, busy) = self.kept.sample(*part, child, now, late);
            worked |= busy;
            let mut verdict = child.process.detector.judge(&sample);
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
                && !matches!(cause, Cause::Exited(_))
                && !std::mem::replace(&mut child.process.condemned, true)
            {
                child.device_replaced = cause == Cause::DeviceReplaced;
                verdicts.push((*part, child.incarnation, since, cause));
            }
        }
        self.look_took = Duration::from_nanos(crate::events::now().since_ns(now));
        self.idle_since = if worked { None } else { Some(self.idle_since.unwrap_or(now)) };
        for (part, incarnation, since, cause) in verdicts {
            let lasted_us = now.since_ns(since) / 1000;
            self.events.tell(Event::of(
                part,
                "condemned",
                &format!("{cause:?} after {lasted_us} us{}", self.borne(part, now)),
            ));
            self.step(Input::Condemned { part, incarnation, cause })?;
        }
        self.bury_killed()
    }

    /// Whoever was killed is asked for its end: what the poller says is not relied on. (Once in some seven thousand faults the
    /// end of a killed driver had not come to be known after 20 s.)
    fn bury_killed(&mut self) -> Result<(), Error> {
        let killed = self.children.iter().filter(|(_, child)| child.killed).map(|(part, _)| *part);
        killed.collect::<Vec<_>>().into_iter().try_for_each(|part| self.bury(part))
    }

    /// What is borne of a part, for people.
    fn borne(&self, part: Part, now: TimeNs) -> String {
        let Some(child) = self.children.get(&part) else { return String::new() };
        let bounds = child.process.detector.bounds(now);
        format!(
            " (a standstill is borne for {} us in sending, {} us in receiving)",
            bounds.send_ns / 1000,
            bounds.receive_ns / 1000
        )
    }

    /// The shadow found nonsense in a driver's lane.
    fn condemn_accused(&mut self, accused: &Accused) -> Result<(), Error> {
        let Ok(number) = u16::try_from(accused.nic) else { return Ok(()) };
        let part = Part::Driver(NicId(number));
        let incarnation = Incarnation(accused.epoch);
        let Some(child) = self.children.get_mut(&part) else { return Ok(()) };
        if child.incarnation != incarnation || std::mem::replace(&mut child.process.condemned, true) {
            return Ok(());
        }
        let cause = Cause::Lying(Lie::Lane);
        self.events.tell(Event::of(part, "condemned", &format!("{cause:?}: {}", accused.detail)));
        self.step(Input::Condemned { part, incarnation, cause })
    }

    fn look_at_vaults(&mut self, now: TimeNs, late: Late) -> Result<(), Error> {
        for (number, why) in self.vaults.look(now, late, &self.desk) {
            self.events.tell(Event::about(&format!("vault.{number}"), "condemned", &why));
        }
        self.complete_vaults()
    }

    /// All end in order; no keeper follows.
    fn end(&mut self) -> Result<(), Error> {
        self.vaults.tell_stop();
        for child in self.children.values_mut() {
            child.order(Order::Stop(true));
        }
        for (part, child) in &mut self.children {
            child.end();
            self.desk.beat_keeper();
            self.events.tell(Event::of(*part, "stopped", "").with_pid(child.process.pid));
        }
        self.events.finish();
        self.desk.set_finished();
        Ok(())
    }
}
