//! A simulated guest as a process: boots as Linux's xenbus does, then writes a little now and then.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use clap::Parser;
use hypervisor::DomId;
use hypervisor::local::Broker;
use signal_hook::consts::{SIGINT, SIGTERM};
use sim_guest::{Class, Frontends, Guest, Result, Toolstack, WatchEvent};

const SHUTDOWN_PATH: &str = "control/shutdown";
const SHUTDOWN_TOKEN: &str = "shutdown";
/// How long one look for the store takes.
const LOOK: Duration = Duration::from_secs(1);

/// A simulated guest of the local profile.
#[derive(Debug, Parser)]
struct Arguments {
    /// Socket of the broker.
    #[arg(long)]
    broker: PathBuf,
    /// Which domain to be.
    #[arg(long, required_unless_present = "create")]
    domid: Option<u16>,
    /// Make a new domain and introduce it, as a toolstack would, through the store's Unix socket given here.
    #[arg(long, value_name = "STORE", conflicts_with = "domid")]
    create: Option<PathBuf>,
    /// Classes of devices to drive.
    #[arg(long, value_delimiter = ',', default_value = "vif,vbd")]
    devices: Vec<Class>,
    /// How often to write `data/uptime`, in milliseconds; 0 is never.
    #[arg(long, default_value_t = 1000)]
    interval_ms: u64,
    /// How long a request may take, in milliseconds.
    #[arg(long, default_value_t = sim_guest::limits::REPLY_MS)]
    reply_timeout_ms: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    for signal in [SIGTERM, SIGINT] {
        let always = Arc::new(AtomicBool::new(true));
        if let Err(error) = signal_hook::flag::register_conditional_shutdown(signal, 0, always) {
            eprintln!("sim-guest: signals: {error}");
            return ExitCode::FAILURE;
        }
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sim-guest: failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let domid = domid(arguments)?;
    let mut guest = Guest::attach(&arguments.broker, domid)?;
    guest.set_reply_timeout(Duration::from_millis(arguments.reply_timeout_ms));
    say(domid, "attached");
    while !guest.wait_introduced(LOOK)? {}
    say(domid, &format!("introduced, features {:#x}", guest.server_features()));
    let mut frontends = Frontends::start(&mut guest, arguments.devices.clone())?;
    guest.watch(SHUTDOWN_PATH, SHUTDOWN_TOKEN)?;
    live(arguments, domid, &mut guest, &mut frontends)
}

fn domid(arguments: &Arguments) -> Result<DomId> {
    match (&arguments.create, arguments.domid) {
        (Some(store), _) => Toolstack::connect(store)?.create(&Broker::connect(&arguments.broker)?),
        (None, domid) => Ok(DomId(domid.unwrap_or_default())),
    }
}

fn live(arguments: &Arguments, domid: DomId, guest: &mut Guest, frontends: &mut Frontends) -> Result<()> {
    let start = Instant::now();
    let interval = match arguments.interval_ms {
        0 => Duration::MAX,
        interval_ms => Duration::from_millis(interval_ms),
    };
    let mut last = start;
    loop {
        let left = interval.saturating_sub(last.elapsed()).min(LOOK);
        if let Some(event) = guest.next_event(left)? {
            if event.token == SHUTDOWN_TOKEN {
                if shut_down(arguments, domid, guest, &event)? {
                    return Ok(());
                }
                continue;
            }
            for device in frontends.handle(guest, &event)? {
                say(domid, &device.to_string());
            }
        }
        if last.elapsed() >= interval {
            last = Instant::now();
            guest.write("data/uptime", start.elapsed().as_millis().to_string().as_bytes())?;
        }
    }
}

/// Acknowledges and follows the toolstack's wish, if there is one.
fn shut_down(arguments: &Arguments, domid: DomId, guest: &mut Guest, event: &WatchEvent) -> Result<bool> {
    let wish = guest.read(SHUTDOWN_PATH).unwrap_or_default();
    let reason = match wish.as_slice() {
        b"poweroff" | b"halt" => 0,
        b"reboot" => 1,
        b"suspend" => 2,
        _ => return Ok(false),
    };
    say(domid, &format!("{}: {}", event.path, String::from_utf8_lossy(&wish)));
    guest.write(SHUTDOWN_PATH, b"")?;
    Broker::connect(&arguments.broker)?.shutdown(domid, reason)?;
    Ok(true)
}

fn say(domid: DomId, stage: &str) {
    eprintln!("sim-guest[{domid}]: {stage}");
}
