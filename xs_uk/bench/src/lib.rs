//! `xs_uk bench`: measures our store beside the stock daemons, in one run on one machine.
//!
//! Each line of the benchmark is measured in rounds, and in each round on every store in turn (A B C, B C A, …), so
//! that whatever else the machine does hits all alike. Each measurement has a store of its own, freshly started. The
//! client code is the same for all: blocking sockets, buffers that are there beforehand, one thread for each client.
//! What counts is the ratio of the medians to the better peer's.
#![forbid(unsafe_code)]

mod args;
mod bare;
mod client;
mod error;
pub mod limits;
mod lines;
mod report;
mod run;
mod stores;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use args::{Args, Output};

/// Runs the benchmark with the words after `bench`; gives the exit code: 0 done, 1 a line failed or is below the best
/// peer with `--require`, 2 usage.
pub fn main(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = Args::parse_from(std::iter::once("xs_uk bench".into()).chain(words));
    match measure(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            complain(&error);
            ExitCode::from(if error.is_usage() { 2 } else { 1 })
        }
    }
}

fn measure(args: &Args) -> error::Result<bool> {
    let lines = args.lines()?;
    if args.list {
        say(&report::list(&lines))?;
        return Ok(true);
    }
    let report = run::run(args, &lines)?;
    match args.output {
        Output::Table => say(&report.table())?,
        Output::Json => say(&format!("{}\n", report.json()))?,
    }
    for problem in report.problems(args.require) {
        complain(&problem);
    }
    Ok(report.problems(args.require).is_empty())
}

fn say(text: &str) -> error::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(error::system("write the report"))
}

fn complain(what: &dyn std::fmt::Display) {
    // Without a standard error there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "xs_uk bench: {what}");
}
