//! The network backend as a process, and what it tells.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use crate::error::{Error, Result, system};
use crate::limits::{ANSWER_WAIT, EVENTS_MAX};

/// What to start.
#[derive(Clone, Copy, Debug)]
pub struct KeeperOptions<'a> {
    /// The program `net_uk`.
    pub program: &'a Path,
    /// The hypervisor's stand-in.
    pub hv_socket: &'a Path,
    /// The store.
    pub store: &'a Path,
    /// The network card, as `packet:eth0`; without one guests reach each other only.
    pub nic: Option<&'a str>,
    /// Where it logs.
    pub log: &'a Path,
    /// Drivers can be told to misbehave.
    pub injection: bool,
    /// Interfaces of domains up to this number are counted.
    pub guests: u16,
}

/// An event of the keeper.
#[derive(Clone, Debug, Deserialize)]
pub struct Told {
    /// Its number, from 1; keepers go on counting.
    pub number: u64,
    /// When, by `CLOCK_MONOTONIC`.
    pub at_monotonic_ns: u64,
    /// About whom.
    pub part: String,
    /// What.
    pub kind: String,
    /// More of it.
    pub detail: String,
    /// The process that it is about.
    pub pid: Option<u32>,
}

/// What the backend counted, summed over all queues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(pub BTreeMap<String, u64>);

impl Counts {
    /// A count by name.
    pub fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Frames towards the wire that the backend dropped.
    pub fn dropped_to_wire(&self) -> u64 {
        self.sum(["tx_errors", "tx_damaged"])
    }

    /// Frames from the wire that the backend dropped.
    pub fn dropped_from_wire(&self) -> u64 {
        self.sum(["rx_overflow", "rx_errors", "rx_damaged"])
    }

    /// Frames that the kernel refused, or had no room for.
    pub fn refused(&self) -> u64 {
        self.sum(["rx_dropped", "rx_refused", "tx_refused"])
    }

    fn sum<const N: usize>(&self, names: [&str; N]) -> u64 {
        names.map(|name| self.of(name)).iter().sum()
    }

    fn add(&mut self, detail: &str, wanted: impl Fn(&str) -> bool) {
        let pairs = detail.split_ascii_whitespace().filter_map(|word| word.split_once('='));
        for (name, value) in pairs.filter(|(name, _)| wanted(name)) {
            *self.0.entry(name.to_owned()).or_default() += value.parse().unwrap_or(0);
        }
    }
}

/// The first vault with all that it starts; told to end with the value.
pub struct Keeper {
    first: Child,
    /// Number of the last event.
    last: u64,
    missing: u64,
    commands: ChildStdin,
    news: Receiver<Told>,
    events: Vec<Told>,
    pids: BTreeMap<String, u32>,
    guests: u16,
}

impl Keeper {
    /// Starts it with one network card or none.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn start(options: KeeperOptions<'_>) -> Result<Self> {
        let log = std::fs::File::create(options.log).map_err(system("make the keeper's log"))?;
        let rundir = options.hv_socket.parent().unwrap_or_else(|| Path::new("."));
        let mut first = Command::new(options.program)
            .args(["keeper", "--profile", "local", "-o", "json"])
            .args(options.injection.then_some("--enable-injection"))
            .arg("--rundir")
            .arg(rundir)
            .arg("--hv-socket")
            .arg(options.hv_socket)
            .arg("--store")
            .arg(options.store)
            .args(options.nic.into_iter().flat_map(|nic| ["--nic", nic]))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(system("start net_uk"))?;
        let (Some(commands), Some(output)) = (first.stdin.take(), first.stdout.take()) else {
            return Err(Error::Keeper { what: "has no pipes", events: vec![] });
        };
        let (sender, news) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(std::result::Result::ok);
            for told in lines.filter_map(|line| serde_json::from_str(&line).ok()) {
                if sender.send(told).is_err() {
                    return;
                }
            }
        });
        let (events, pids) = (vec![], BTreeMap::new());
        Ok(Self { first, last: 0, missing: 0, commands, news, events, pids, guests: options.guests })
    }

    /// Takes what the keeper told meanwhile.
    ///
    /// # Errors
    /// [`Error::Keeper`] if it is gone.
    pub fn hear(&mut self) -> Result<()> {
        loop {
            match self.news.try_recv() {
                // A keeper that died may have written it out and not noted that.
                Ok(told) if told.number <= self.last => {}
                Ok(told) => self.note(told),
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(self.fault("is gone")),
            }
        }
    }

    fn note(&mut self, told: Told) {
        self.missing += told.number - self.last - 1;
        self.last = told.number;
        if matches!(told.kind.as_str(), "started" | "adopted")
            && let Some(pid) = told.pid
        {
            self.pids.insert(told.part.clone(), pid);
        }
        if self.events.len() >= EVENTS_MAX {
            self.events.drain(..EVENTS_MAX / 2);
        }
        self.events.push(told);
    }

    fn fault(&self, what: &'static str) -> Error {
        Error::Keeper { what, events: self.last_events() }
    }

    /// The last events, newest first, for a message.
    pub fn last_events(&self) -> Vec<String> {
        let last = self.events.iter().rev().take(12);
        last.map(|told| format!("{} {} {}", told.part, told.kind, told.detail)).collect()
    }

    /// The last events.
    pub fn events(&self) -> &[Told] {
        // Those of one fault are at the end.
        &self.events[self.events.len().saturating_sub(200)..]
    }

    /// Events that were never told.
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// The present keeper's process; before the first one the first vault's.
    pub fn pid(&self) -> u32 {
        self.pid_of("keeper").unwrap_or_else(|| self.first.id())
    }

    /// The present process of a part.
    pub fn pid_of(&self, part: &str) -> Option<u32> {
        self.pids.get(part).copied()
    }

    /// Gives it a command.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn command(&mut self, command: &str) -> Result<()> {
        writeln!(self.commands, "{command}").map_err(system("command the keeper"))
    }

    /// Is it about an interface of one of the first domains? What is counted of others is nobody's loss.
    fn is_counted(&self, detail: &str) -> bool {
        let domid = detail.strip_prefix("vif").and_then(|rest| rest.split('.').next()?.parse::<u16>().ok());
        domid.is_some_and(|domid| domid <= self.guests)
    }

    /// What was counted.
    ///
    /// # Errors
    /// [`Error::Keeper`] if it does not answer.
    pub fn counts(&mut self) -> Result<Counts> {
        self.hear()?;
        let asked_ns = sim_guest::net::traffic::now_ns();
        self.command("counts")?;
        let began = Instant::now();
        loop {
            self.hear()?;
            let told = || {
                self.events.iter().filter(|told| told.kind == "counts" && told.at_monotonic_ns >= asked_ns)
            };
            // Drivers come last.
            if told().any(|told| told.part == "driver.0") {
                let mut counts = Counts::default();
                let of_guests = |told: &&Told| told.part == "shadow" && self.is_counted(&told.detail);
                told().filter(of_guests).for_each(|told| counts.add(&told.detail, |_| true));
                let of_drivers = told().filter(|told| told.part != "shadow");
                of_drivers.for_each(|told| {
                    counts.add(&told.detail, |name| {
                        ["_damaged", "_dropped", "_refused"].iter().any(|end| name.ends_with(end))
                    })
                });
                return Ok(counts);
            }
            if began.elapsed() > ANSWER_WAIT {
                return Err(self.fault("does not answer"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Whichever of them lives stops all; before the first event there is the first vault alone.
        let watchers = self.pids.iter().filter(|(part, _)| part.starts_with("vault") || *part == "keeper");
        let watchers: Vec<u32> = watchers.map(|(_, pid)| *pid).chain([self.first.id()]).collect();
        watchers.into_iter().for_each(|pid| send(pid, Signal::TERM));
        let began = Instant::now();
        while self.hear().is_ok() && began.elapsed() < ANSWER_WAIT {
            std::thread::sleep(Duration::from_millis(1));
        }
        if self.hear().is_ok() {
            self.pids.values().for_each(|pid| send(*pid, Signal::KILL));
        }
        let _ = self.first.wait();
    }
}

fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended by itself.
        let _ = kill_process(pid, signal);
    }
}
