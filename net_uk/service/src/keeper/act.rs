//! What the keeper does: actions of the plan, deposits, commands.

use std::ffi::OsString;
use std::os::fd::AsFd;

use net_watch::detector::{Cause, ExitStatus};
use net_watch::ladder::{Action, Attempt, Incarnation, Input, NicId, Part, Report, ReportKind};

use super::child::Child;
use super::commands::Command;
use super::{Keeper, VAULT_LINKS, VAULTS_GONE};
use crate::error::Error;
use crate::events::{Event, now};
use crate::instance;
use crate::poller::Interest;
use crate::vault::wire::{Deposit, PartRecord, Process, Record, number_of};
use crate::wire::{Misbehave, Order, names};

/// Where the library that speaks with the store finds its socket.
const STORE_VARIABLE: &str = "XENSTORED_PATH";

impl Keeper {
    pub(super) fn act(&mut self, action: Action) -> Result<(), Error> {
        match action {
            Action::Kill { part, incarnation } => self.kill(part, incarnation),
            Action::Start { part, incarnation } => self.start(part, incarnation)?,
            Action::Reset { nic, attempt } => self.reset(nic, attempt),
            Action::Report(report) => self.report(&report),
        }
        Ok(())
    }

    fn kill(&mut self, part: Part, incarnation: Incarnation) {
        let child = self.children.get_mut(&part).filter(|child| child.incarnation == incarnation);
        if let Some(child) = child {
            child.process.kill();
            child.killed = true;
        }
    }

    fn start(&mut self, part: Part, incarnation: Incarnation) -> Result<(), Error> {
        let store = self.options.store.iter().map(|store| (STORE_VARIABLE, store.clone().into()));
        let environment: Vec<_> = store.collect();
        match Child::start(part, incarnation, &self.arguments(part), &environment, now()) {
            Ok(mut child) => {
                if let Some(judge) = self.judges.remove(&part) {
                    child.process.learn_from(judge, now());
                }
                let pid = child.process.pid;
                self.children.insert(part, child);
                self.watch(part)?;
                self.events.tell(Event::of(part, "started", &pid.to_string()).with_pid(pid));
                // From here on it is watched, whoever dies; only now may it do anything.
                self.deposit();
                self.begin_child(part);
            }
            Err(error) => {
                self.events.tell(Event::of(part, "not_started", &error.to_string()));
                let cause = Cause::Exited(ExitStatus::Unknown);
                self.inputs.push_back(Input::Ended { part, incarnation, cause });
            }
        }
        Ok(())
    }

    /// Gives a child its first order, or asks one of an earlier keeper whether it serves.
    pub(super) fn begin_child(&self, part: Part) {
        let Some(child) = self.children.get(&part) else { return };
        let (mut begin, mut descriptors) = self.kept.begin(part, child.incarnation, self.options.injection);
        begin.names.push(names::PARTS.to_owned());
        descriptors.push(self.parts.as_fd());
        if let Err(error) = child.begin(begin, &descriptors) {
            // Its end is told by the pidfd; one that does not end is not ready in time.
            tracing::warn!(?part, %error, "it cannot begin");
        }
    }

    fn arguments(&self, part: Part) -> Vec<OsString> {
        let role = match part {
            Part::Shadow => "shadow",
            Part::Driver(_) => "driver",
        };
        let mut arguments = vec![OsString::from(role)];
        if part == Part::Shadow {
            let profile = self.options.host.profile.name();
            arguments.extend(["--profile".into(), profile.into(), "--hv-socket".into()]);
            arguments.push(self.options.host.local_socket.clone().into());
        }
        arguments
    }

    fn reset(&mut self, nic: NicId, attempt: Attempt) {
        let card = &self.kept.cards[usize::from(nic.0)];
        self.resets.begin(nic, attempt, card.held.spec().interface.clone(), card.bus.clone());
    }

    pub(super) fn resets_ended(&mut self) -> Result<(), Error> {
        for reset in self.resets.ended() {
            let (nic, attempt) = (reset.nic, reset.attempt);
            if let Err(error) = &reset.outcome {
                self.events.tell(Event::of(Part::Driver(nic), "reset_failed", &error.to_string()));
            }
            self.step(Input::ResetDone { nic, attempt, succeeded: reset.outcome.is_ok() })?;
        }
        Ok(())
    }

    /// No driver of it runs. What goes wrong is told; it is tried again when the next driver finds its device gone.
    pub(super) fn replace_card(&mut self, nic: NicId) {
        let event = match self.kept.replace(usize::from(nic.0), &mut self.poller) {
            Ok(frames) => ("replaced", format!("another device is there; {frames} frames waited for it")),
            Err(error) => ("not_replaced", error.to_string()),
        };
        self.events.tell(Event::of(Part::Driver(nic), event.0, &event.1));
        // A keeper that dies before leaves the old one, and what it was handed, to the next.
        self.deposit();
    }

    /// Has the vaults hold all that the next keeper needs.
    pub(super) fn deposit(&mut self) {
        let sequence = self.vaults.next_sequence();
        self.remembered = self.ladder.memories();
        let (mut names, mut descriptors) = (vec![], vec![]);
        let own = [
            (names::DESK, self.desk.as_fd()),
            (names::COMMANDS, self.commands.as_fd()),
            (names::LOCK, self.lock.as_fd()),
            (names::PARTS, self.parts.as_fd()),
        ];
        let own = own.into_iter().map(|(name, descriptor)| (name.to_owned(), descriptor));
        let links = self
            .children
            .iter()
            .map(|(part, child)| (format!("{}{}", names::LINK, number_of(*part)), child.link.as_fd()));
        let all = own.chain(self.kept.descriptors()).chain(links).chain(self.vaults.descriptors());
        for (name, descriptor) in all {
            names.push(name);
            descriptors.push(descriptor);
        }
        let keeper =
            Process { number: self.generation, pid: std::process::id(), start_ticks: self.start_ticks };
        let record = Some(self.record());
        let deposit = Deposit { sequence, keeper: Some(keeper), vault: 0, names, record };
        self.vaults.deposit(&deposit, &descriptors);
        self.vaults.set_given();
        self.desk.set_deposited(sequence);
        self.show();
        self.note_processes();
    }

    /// For a start after the end of everybody who could tell.
    fn note_processes(&self) {
        let processes = self.children.values().map(|child| &child.process);
        let processes = processes.map(|process| (process.pid, process.start_ticks));
        if let Err(error) = instance::note(&self.parts, processes) {
            tracing::warn!(%error, "processes are not noted");
        }
    }

    fn record(&self) -> Record {
        let part = |memory: &net_watch::ladder::Memory| {
            let record = PartRecord::of(memory);
            let child = self.children.get(&memory.part);
            match child.filter(|child| child.incarnation == memory.incarnation) {
                Some(child) => PartRecord {
                    pid: child.process.pid,
                    start_ticks: child.process.start_ticks,
                    ready: child.ready,
                    ..record
                },
                None => record,
            }
        };
        let parts = self.remembered.iter().map(part).collect();
        Record { parts, nics: self.kept.record(), vaults: self.vaults.record() }
    }

    /// Starts the vaults that are not there, and were not tried just now.
    pub(super) fn complete_vaults(&mut self) -> Result<(), Error> {
        for number in self.vaults.missing(now()) {
            let name = format!("vault.{number}");
            let word = number as u64;
            match self.vaults.start(number, &self.options.arguments, now()) {
                Ok(seat) => {
                    self.poller.add(&seat.process, VAULTS_GONE | word, Interest::READ)?;
                    self.poller.add(&seat.link, VAULT_LINKS | word, Interest::READ)?;
                    let pid = seat.process.pid;
                    self.events.tell(Event::about(&name, "started", &pid.to_string()).with_pid(pid));
                    self.deposit();
                    self.events.tell(Event::about(&name, "ready", ""));
                }
                Err(error) => self.events.tell(Event::about(&name, "not_started", &error.to_string())),
            }
        }
        Ok(())
    }

    pub(super) fn replace_vault(&mut self, number: usize) -> Result<(), Error> {
        if let Some(seat) = self.vaults.bury(number) {
            self.poller.remove(&seat.process)?;
            let _ = self.poller.remove(&seat.link);
            let event = Event::about(&format!("vault.{number}"), "ended", "");
            self.events.tell(event.with_pid(seat.process.pid));
            // There may be none in its place for a while.
            self.show();
        }
        self.complete_vaults()
    }

    pub(super) fn obey(&mut self) -> Result<(), Error> {
        let Some(commands) = self.commands.read() else { return self.poller.remove(&self.commands) };
        for command in commands {
            match command {
                Ok(Command::Counts) => self.tell_counts(),
                Ok(Command::Inject(part, fault)) if self.options.injection => {
                    if let Some(child) = self.children.get(&part) {
                        child.order(Order::Misbehave(Misbehave { fault }));
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
                "tx_frames={} tx_bytes={} rx_frames={} rx_bytes={} tx_damaged={} rx_damaged={} rx_dropped={} \
                 rx_refused={} tx_refused={}",
                counts.tx_frames,
                counts.tx_bytes,
                counts.rx_frames,
                counts.rx_bytes,
                counts.tx_damaged,
                card.lane.rx_damaged(),
                counts.rx_dropped,
                counts.rx_refused,
                counts.tx_refused
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
}
