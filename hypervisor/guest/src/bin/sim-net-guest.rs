//! A simulated guest as a process that sends and receives numbered frames.
//!
//! Standard input takes commands, one a line: `stop` and `start` sending, `report` for an account in between. At its end
//! the process tells its account and ends: with status 3 if the backend did what it must not.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "the report is its output")]

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use hypervisor::DomId;
use hypervisor::local::Broker;
use signal_hook::consts::{SIGINT, SIGTERM};
use sim_guest::limits::COMMAND_BYTES_MAX;
use sim_guest::net::traffic::{Load, SenderOptions};
use sim_guest::net::{Hostile, Mac, NetOptions, Report, Runner, RunnerOptions, Splits};
use sim_guest::{Device, Guest, Result, Toolstack, Vif, XenbusState};

/// How long one wait takes.
const LOOK: Duration = Duration::from_millis(100);
const BROKEN_STATUS: u8 = 3;

/// A simulated guest with a network interface.
#[derive(Debug, Parser)]
struct Arguments {
    /// Socket of the broker.
    #[arg(long)]
    hv_socket: PathBuf,
    /// Which domain to be.
    #[arg(long, required_unless_present = "create")]
    domid: Option<u16>,
    /// Make a new domain with an interface and introduce it, as a toolstack would, through the store's Unix socket given
    /// here.
    #[arg(long, value_name = "STORE", conflicts_with = "domid")]
    create: Option<PathBuf>,
    /// To whom to send; nothing is sent without it.
    #[arg(long)]
    peer_mac: Option<Mac>,
    /// From whom the frames are; the interface's own address if not given.
    #[arg(long)]
    mac: Option<Mac>,
    /// Frames a second; 0 is as many as the rings take.
    #[arg(long, default_value_t = 1000)]
    rate: u64,
    /// Bytes of the smallest frame.
    #[arg(long, default_value_t = 60)]
    size_min: usize,
    /// Bytes of the largest frame; above 1514 large ones are sent.
    #[arg(long, default_value_t = 1514)]
    size_max: usize,
    /// How long to send, in seconds; until told on standard input if not given.
    #[arg(long)]
    seconds: Option<f64>,
    /// Send only once told so on standard input.
    #[arg(long)]
    wait: bool,
    /// How long to go on after sending ended or standard input closed, for what is under way, in milliseconds.
    #[arg(long, default_value_t = 1000)]
    linger_ms: u64,
    /// Number of the first queue's flow; by default the domid times 2^32.
    #[arg(long)]
    flow: Option<u64>,
    /// Queues, if the backend has as many.
    #[arg(long, default_value_t = 1)]
    queues: u16,
    /// Use an event channel for each ring, if the backend does.
    #[arg(long)]
    split_event_channels: bool,
    /// How frames are spread over pages.
    #[arg(long, value_enum, default_value_t = Splits::Whole)]
    splits: Splits,
    /// Where chance begins.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Send everything that comes back to where it came from.
    #[arg(long)]
    echo: bool,
    /// How to misbehave.
    #[arg(long, value_enum)]
    hostile: Option<Hostile>,
    /// How to tell the account.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

impl Arguments {
    fn options(&self) -> RunnerOptions {
        let sender = self.peer_mac.map(|to| SenderOptions {
            to,
            from: self.mac,
            flow: self.flow.unwrap_or_else(|| u64::from(self.domid().0) << 32),
            load: Load { rate: self.rate, least_bytes: self.size_min, most_bytes: self.size_max },
            seed: self.seed,
        });
        let net = NetOptions {
            queues: self.queues,
            split_event_channels: self.split_event_channels,
            splits: self.splits,
            seed: self.seed,
            ..NetOptions::new(self.hv_socket.clone(), self.domid())
        };
        RunnerOptions { net, sender, echo: self.echo, hostile: self.hostile }
    }

    fn domid(&self) -> DomId {
        DomId(self.domid.unwrap_or_default())
    }

    fn say(&self, stage: &str) {
        eprintln!("sim-net-guest[{}]: {stage}", self.domid());
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    match create(&mut arguments).and_then(|()| run(&arguments)) {
        Ok(report) => {
            tell(&arguments, &report);
            if report.is_broken() { ExitCode::from(BROKEN_STATUS) } else { ExitCode::SUCCESS }
        }
        Err(error) => {
            arguments.say(&format!("failed: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Does what a toolstack does before, if asked to.
fn create(arguments: &mut Arguments) -> Result<()> {
    let Some(store) = &arguments.create else { return Ok(()) };
    let mut toolstack = Toolstack::connect(store)?;
    let domid = toolstack.create(&Broker::connect(&arguments.hv_socket)?)?;
    arguments.domid = Some(domid.0);
    let own = Vif::new(domid, 0);
    toolstack.add_vif(&Vif { mac: arguments.mac.unwrap_or(own.mac), ..own })
}

fn run(arguments: &Arguments) -> Result<Report> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(sim_guest::Error::Socket)?;
    }
    let mut guest = Guest::attach(&arguments.hv_socket, arguments.domid())?;
    arguments.say("attached");
    while !stop.load(Ordering::Relaxed) && !guest.wait_introduced(LOOK)? {}
    let mut life = Life {
        runner: Runner::start(arguments.options(), guest)?,
        arguments,
        is_wanted: !arguments.wait,
        is_open: true,
        connected: None,
        end: None,
        input: vec![],
    };
    while !stop.load(Ordering::Relaxed) && life.goes_on() {
        life.step()?;
    }
    Ok(life.runner.report())
}

/// What the process is at.
struct Life<'a> {
    arguments: &'a Arguments,
    runner: Runner,
    /// Sending is wished for.
    is_wanted: bool,
    /// Standard input is open.
    is_open: bool,
    connected: Option<Instant>,
    /// When sending ended and standard input is closed: when to end.
    end: Option<Instant>,
    input: Vec<u8>,
}

impl Life<'_> {
    fn goes_on(&self) -> bool {
        self.end.is_none_or(|end| Instant::now() < end)
    }

    fn step(&mut self) -> Result<()> {
        let (changed, mut busy) = self.runner.step()?;
        for device in changed {
            self.changed(&device);
        }
        self.control();
        loop {
            let timeout = if busy { Duration::ZERO } else { LOOK };
            let stdin = std::io::stdin();
            let control = self.is_open.then(|| stdin.as_fd());
            let woken = self.runner.wait(control, timeout)?;
            if woken.control {
                self.read_input();
            }
            if woken.store || woken.control || self.is_late() {
                return Ok(());
            }
            busy = self.runner.traffic()?;
        }
    }

    /// Is something other than traffic to be looked at?
    fn is_late(&self) -> bool {
        let ended = self.end.is_some_and(|end| Instant::now() >= end);
        ended || self.is_wanted && self.is_over()
    }

    /// Is the time for sending over?
    fn is_over(&self) -> bool {
        let Some(connected) = self.connected else { return false };
        self.arguments.seconds.is_some_and(|seconds| connected.elapsed().as_secs_f64() >= seconds)
    }

    fn changed(&mut self, device: &Device) {
        self.arguments.say(&device.to_string());
        if device.state == XenbusState::Connected {
            self.connected.get_or_insert_with(Instant::now);
        }
    }

    fn control(&mut self) {
        if self.is_over() {
            self.is_wanted = false;
        }
        if !self.is_open && self.arguments.seconds.is_none() {
            self.is_wanted = false;
        }
        self.runner.set_sending(self.is_wanted && self.connected.is_some());
        if !self.is_open && !self.is_wanted && self.end.is_none() {
            self.end = Some(Instant::now() + Duration::from_millis(self.arguments.linger_ms));
        }
    }

    fn read_input(&mut self) {
        let mut bytes = [0; COMMAND_BYTES_MAX];
        match rustix::io::read(std::io::stdin(), &mut bytes) {
            Ok(0) => self.is_open = false,
            Ok(length) => self.input.extend(&bytes[..length]),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => self.is_open = false,
        }
        while let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            self.obey(String::from_utf8_lossy(&line).trim());
        }
        if self.input.len() > COMMAND_BYTES_MAX {
            self.input.clear();
        }
    }

    fn obey(&mut self, command: &str) {
        match command {
            "start" => self.is_wanted = true,
            "stop" => self.is_wanted = false,
            "report" => tell(self.arguments, &self.runner.report()),
            "" => {}
            other if let Some(load) = load_of(other) => self.runner.set_load(load),
            other => self.arguments.say(&format!("no such command: {other}")),
        }
    }
}

/// Of `load RATE:LEAST-MOST`.
fn load_of(command: &str) -> Option<Load> {
    command.strip_prefix("load ")?.parse().ok()
}

fn tell(arguments: &Arguments, report: &Report) {
    match arguments.output {
        Output::Json => match serde_json::to_string(report) {
            Ok(json) => println!("{json}"),
            Err(error) => arguments.say(&format!("the report: {error}")),
        },
        Output::Text => tell_briefly(report),
    }
}

fn tell_briefly(report: &Report) {
    let (sent, received) = (&report.sent, &report.received);
    println!("sent {} frames, {} bytes", sent.frames, sent.bytes);
    println!(
        "received {} frames, lost {}, duplicated {}, reordered {}, corrupt {}, longest gap {} ms",
        received.received,
        received.lost,
        received.duplicated,
        received.reordered,
        received.corrupt,
        received.longest_gap_ns / 1_000_000
    );
    for (path, interface) in &report.interfaces {
        let changes = interface.backend.changes;
        println!("{path}: broken {:?}, {changes} changes of the backend's state", interface.stats.broken);
    }
}
