//! `peers`: runs a stock store daemon, or ours, without a hypervisor, for people.
#![forbid(unsafe_code)]

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use peers::{Binaries, Daemon, Installation, Kind, Ours, Peer};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Runs a store daemon without Xen until it is interrupted.
///
/// Prints shell exports that point the stock clients (xenstore-ls, test-xenstore, xenstore-control) at it.
#[derive(Debug, Parser)]
#[command(name = "peers", version)]
#[command(after_help = "EXIT STATUS\n  0  ended as asked\n  1  failed\n  2  usage\n\n\
EXAMPLE\n  peers oxenstored /tmp/peer &\n  XENSTORED_PATH=/tmp/peer/socket xenstore-ls")]
struct Args {
    /// Which daemon.
    daemon: Which,
    /// Directory of its socket and files.
    dir: PathBuf,
    /// The daemon's own flags.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    flags: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Which {
    /// The C daemon.
    Xenstored,
    /// The OCaml daemon.
    Oxenstored,
    /// Ours, in the local profile.
    Ours,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without a standard error there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let flags: Vec<&str> = args.flags.iter().map(String::as_str).collect();
    let daemon: Box<dyn Daemon> = match args.daemon {
        Which::Xenstored => Box::new(Peer::start(Kind::Xenstored, &args.dir, &flags)?),
        Which::Oxenstored => Box::new(Peer::start(Kind::Oxenstored, &args.dir, &flags)?),
        Which::Ours => Box::new(Ours::start(&Binaries::beside_us()?, &args.dir, &flags)?),
    };
    tell(daemon.as_ref())?;
    signals.forever().next();
    Ok(())
}

fn tell(daemon: &dyn Daemon) -> std::io::Result<()> {
    let socket = daemon.socket();
    let mut out = std::io::stdout().lock();
    writeln!(out, "export XENSTORED_PATH={}", socket.display())?;
    writeln!(out, "export XENSTORED_RUNDIR={}", socket.with_file_name("").display())?;
    if let Ok(found) = Installation::find() {
        writeln!(out, "export LD_LIBRARY_PATH={}", found.libraries().display())?;
        writeln!(out, "export XEN_TOOLS={}", found.program("").display())?;
    }
    out.flush()
}
