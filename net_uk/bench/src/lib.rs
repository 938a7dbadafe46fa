//! `net_uk bench`: measures the network backend beside one without a shadow, its driver alone and a bare wire, in one run
//! on one machine.
//!
//! ```text
//!  net_uk   guest (process) -- rings -- shadow -- lane -- driver -- veth A | veth B -- this process
//!  plain    guest (process) -- rings ---------- one process ---- veth A | veth B -- this process
//!  driver   this process ------------------------- lane -- driver -- veth A | veth B -- this process
//!  veth     this process ------------------------------------------- veth A | veth B -- this process
//! ```
//! Each line is measured in rounds, and in each round on every contender in turn (A B C, B C A, …), so that whatever else
//! the machine does hits all alike. The frames, and the code that makes and checks them, are the same for all. What
//! counts is the ratio of the medians: to the driver alone, to whose lane this process writes without a guest; and to a backend
//! that serves a guest from the process that has the network card, which is what a guest would have without a shadow.
//!
//! All of them share the machine's processors, ends included. Where these are fewer than the parties, the rate at
//! saturation says how much processor time a frame costs in all, not how fast one party is; so lines at a fixed load stand
//! beside it, with the time that each party takes for a frame.
#![forbid(unsafe_code)]

mod args;
mod contender;
mod error;
pub mod limits;
mod lines;
mod measure;
mod report;
mod run;
mod setup;

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use clap::Parser;
use lane::Lane;
use nic::NicSpec;

use args::{Args, Output};

/// A driver without a shadow, with the shadow's end of its lane.
pub struct LaneDriver {
    /// The lane.
    pub lane: Lane,
    /// Wakes the driver.
    pub wake_driver: OwnedFd,
    /// The driver wakes whoever is at the other end.
    pub wake_shadow: OwnedFd,
    /// Its process.
    pub pid: u32,
    /// It ends with this.
    pub life: Box<dyn Send>,
}

/// Starts a driver on a network card.
pub type StartDriver = fn(&NicSpec) -> Result<LaneDriver, String>;

/// Runs the benchmark with the words after `bench`; gives the exit code: 0 done, 1 a line failed, lost or doubled a frame
/// or is below `--require`, 2 usage.
pub fn main(words: impl IntoIterator<Item = OsString>, start_driver: StartDriver) -> ExitCode {
    let args = Args::parse_from(std::iter::once("net_uk bench".into()).chain(words));
    match run(&args, start_driver) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            complain(&error);
            ExitCode::from(if error.is_usage() { 2 } else { 1 })
        }
    }
}

fn run(args: &Args, start_driver: StartDriver) -> error::Result<bool> {
    let lines = args.lines()?;
    if args.list {
        say(&report::list(&lines))?;
        return Ok(true);
    }
    if !args.here {
        net_stand::in_own_network()?;
    }
    let report = run::run(args, &lines, start_driver)?;
    match args.output {
        Output::Table => say(&report.table())?,
        Output::Json => say(&format!("{}\n", report.json()))?,
    }
    let problems = report.problems(args.require);
    for problem in &problems {
        complain(problem);
    }
    Ok(problems.is_empty())
}

fn say(text: &str) -> error::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(error::system("write the report"))
}

fn complain(what: &dyn std::fmt::Display) {
    // Without a standard error there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "net_uk bench: {what}");
}
