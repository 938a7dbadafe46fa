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
use sim_guest::{Class, Frontends, Guest, Result, WatchEvent};

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
    #[arg(long)]
    domid: u16,
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
            say(&arguments, &format!("failed: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let mut guest = Guest::attach(&arguments.broker, DomId(arguments.domid))?;
    guest.set_reply_timeout(Duration::from_millis(arguments.reply_timeout_ms));
    say(arguments, "attached");
    while !guest.wait_introduced(LOOK)? {}
    say(arguments, &format!("introduced, features {:#x}", guest.server_features()));
    let mut frontends = Frontends::start(&mut guest, arguments.devices.clone())?;
    guest.watch(SHUTDOWN_PATH, SHUTDOWN_TOKEN)?;
    live(arguments, &mut guest, &mut frontends)
}

fn live(arguments: &Arguments, guest: &mut Guest, frontends: &mut Frontends) -> Result<()> {
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
                if shut_down(arguments, guest, &event)? {
                    return Ok(());
                }
                continue;
            }
            for device in frontends.handle(guest, &event)? {
                say(arguments, &device.to_string());
            }
        }
        if last.elapsed() >= interval {
            last = Instant::now();
            guest.write("data/uptime", start.elapsed().as_millis().to_string().as_bytes())?;
        }
    }
}

/// Acknowledges and follows the toolstack's wish, if there is one.
fn shut_down(arguments: &Arguments, guest: &mut Guest, event: &WatchEvent) -> Result<bool> {
    let wish = guest.read(SHUTDOWN_PATH).unwrap_or_default();
    let reason = match wish.as_slice() {
        b"poweroff" | b"halt" => 0,
        b"reboot" => 1,
        b"suspend" => 2,
        _ => return Ok(false),
    };
    say(arguments, &format!("{}: {}", event.path, String::from_utf8_lossy(&wish)));
    guest.write(SHUTDOWN_PATH, b"")?;
    Broker::connect(&arguments.broker)?.shutdown(DomId(arguments.domid), reason)?;
    Ok(true)
}

fn say(arguments: &Arguments, stage: &str) {
    eprintln!("sim-guest[{}]: {stage}", arguments.domid);
}
