//! The network backend as a process, and what it tells.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::Signal;
use serde::Deserialize;
use tests::{Stand, binary};

use super::faults::Fault;
use super::peer::Veth;
use crate::faults::send;

/// How long an answer of the keeper may take.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// An event of the keeper.
#[derive(Clone, Debug, Deserialize)]
pub struct Told {
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

    fn add(&mut self, detail: &str) {
        for (name, value) in detail.split_ascii_whitespace().filter_map(|word| word.split_once('=')) {
            *self.0.entry(name.to_owned()).or_default() += value.parse().unwrap_or(0);
        }
    }
}

/// The keeper with all that it starts.
pub struct Backend {
    keeper: Child,
    commands: ChildStdin,
    news: Receiver<Told>,
    events: Vec<Told>,
    pids: BTreeMap<String, u32>,
    guests: u16,
}

impl Backend {
    /// Starts it with one network card.
    pub fn start(stand: &Stand, veth: &Veth, guests: u16) -> anyhow::Result<Self> {
        let log = std::fs::File::create(stand.rundir().join("net_uk.log"))?;
        let mut keeper = Command::new(binary("net_uk"))
            .args(["keeper", "--profile", "local", "--enable-injection", "-o", "json"])
            .arg("--hv-socket")
            .arg(stand.rundir().join("ppvmm-hv.sock"))
            .arg("--store")
            .arg(stand.socket())
            .args(["--nic", &format!("packet:{}", veth.ours())])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("net_uk")?;
        let commands = keeper.stdin.take().context("its standard input")?;
        let output = keeper.stdout.take().context("its standard output")?;
        let (sender, news) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            for told in lines.filter_map(|line| serde_json::from_str(&line).ok()) {
                if sender.send(told).is_err() {
                    return;
                }
            }
        });
        Ok(Self { keeper, commands, news, events: vec![], pids: BTreeMap::new(), guests })
    }

    /// Takes what the keeper told meanwhile.
    pub fn hear(&mut self) -> anyhow::Result<()> {
        loop {
            match self.news.try_recv() {
                Ok(told) => {
                    if told.kind == "started"
                        && let Some(pid) = told.pid
                    {
                        self.pids.insert(told.part.clone(), pid);
                    }
                    self.events.push(told);
                }
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => bail!("the keeper is gone: {:?}", self.last_events()),
            }
        }
    }

    /// All events.
    pub fn events(&self) -> &[Told] {
        // Those of one fault are at the end.
        &self.events[self.events.len().saturating_sub(200)..]
    }

    /// For a message.
    pub fn last_events(&self) -> Vec<String> {
        let last = self.events.iter().rev().take(12);
        last.map(|told| format!("{} {} {}", told.part, told.kind, told.detail)).collect()
    }

    /// The present process of a part.
    pub fn pid_of(&self, part: &str) -> Option<u32> {
        self.pids.get(part).copied()
    }

    /// Does it.
    pub fn harm(&mut self, fault: Fault, pid: u32) -> anyhow::Result<()> {
        if let Some(signal) = fault.deed.signal() {
            send(pid, signal);
            return Ok(());
        }
        Ok(writeln!(self.commands, "inject {} {}", fault.part(), fault.order())?)
    }

    /// Is it about an interface of one of the first domains? What is counted of hostile guests is nobody's loss.
    fn is_counted(&self, detail: &str) -> bool {
        let domid = detail.strip_prefix("vif").and_then(|rest| rest.split('.').next()?.parse::<u16>().ok());
        domid.is_some_and(|domid| domid <= self.guests)
    }

    /// What was counted.
    pub fn counts(&mut self) -> anyhow::Result<Counts> {
        self.hear()?;
        let before = self.events.len();
        writeln!(self.commands, "counts")?;
        let began = Instant::now();
        loop {
            self.hear()?;
            let told = || self.events[before..].iter().filter(|told| told.kind == "counts");
            // Drivers come last.
            if told().any(|told| told.part == "driver.0") {
                let mut counts = Counts::default();
                let of_guests = |told: &&Told| told.part == "shadow" && self.is_counted(&told.detail);
                told().filter(of_guests).for_each(|told| counts.add(&told.detail));
                return Ok(counts);
            }
            ensure!(began.elapsed() < ANSWER_WAIT, "the keeper does not answer");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        send(self.keeper.id(), Signal::TERM);
        let _ = self.keeper.wait();
    }
}
