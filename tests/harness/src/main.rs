//! `tests/crash xs`: faults under load, and what clients saw of them.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a command line tool prints")]

mod client;
mod control;
mod faults;
mod net;
mod report;
mod run;
mod timing;
mod worker;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

/// Injects faults under load and counts what clients lost, saw twice or saw wrong.
#[derive(Debug, Parser)]
#[command(
    name = "tests/crash",
    after_help = "Exit status: 0 nothing lost, repeated or wrong; 1 something was; 2 usage; 3 could not run"
)]
struct Cli {
    /// What is harmed.
    #[command(subcommand)]
    what: What,
}

/// What is harmed.
#[derive(Debug, Subcommand)]
enum What {
    /// The xenstore: gateway, leader, followers, warden, and the engine's members.
    Xs(XsArgs),
    /// The network backend: driver, shadow, keeper and vaults. Needs root, for a pair of virtual interfaces.
    Net(net::NetArgs),
}

/// A run against the xenstore.
#[derive(Clone, Debug, clap::Args)]
pub struct XsArgs {
    /// Faults to inject.
    #[arg(long, default_value_t = 100)]
    pub faults: u64,
    /// The engine that keeps the log.
    #[arg(long, default_value = "embedded")]
    pub engine: Engine,
    /// Seed of faults and load; drawn and shown if left out.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Clients by socket.
    #[arg(long, default_value_t = 8)]
    pub sockets: usize,
    /// Clients by a guest's ring.
    #[arg(long, default_value_t = 4)]
    pub rings: usize,
    /// How long each client pauses between two operations, in microseconds. Without a pause the clients and the store take all
    /// processors, and what is measured is how long everybody waits for one.
    #[arg(long, default_value_t = 0)]
    pub pause_us: u64,
    /// Which of leader, follower, gateway, warden, member are harmed; all that there are if left out.
    #[arg(long, value_delimiter = ',')]
    pub targets: Vec<TargetArg>,
    /// Of a hundred faults, so many come while the one before is still being mended: two at once, never three.
    #[arg(long, default_value_t = 20)]
    pub overlapping: u32,
    /// For people or for programs.
    #[arg(short, long, default_value = "table")]
    pub output: Output,
    /// Arguments for xs_uk.
    #[arg(last = true)]
    pub xs_uk_args: Vec<String>,
}

/// An engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// Shared memory kept by the warden.
    Embedded,
    /// A real etcd.
    Etcd,
}

/// A kind of process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TargetArg {
    /// Who serves.
    Leader,
    /// Who could.
    Follower,
    /// Who holds the endpoints.
    Gateway,
    /// Who keeps the others.
    Warden,
    /// A member of etcd.
    Member,
}

/// How to show the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

fn main() -> ExitCode {
    let (output, shown) = match Cli::parse().what {
        What::Xs(args) => {
            (args.output, run::run(&args).map(|report| Shown::of(&report, report.table(), report.passed)))
        }
        What::Net(args) => {
            (args.output, net::run(&args).map(|report| Shown::of(&report, report.table(), report.passed)))
        }
    };
    let shown = match shown {
        Ok(shown) => shown,
        Err(error) => {
            println!("tests/crash: {error:#}");
            return ExitCode::from(3);
        }
    };
    println!("{}", if output == Output::Table { shown.table } else { shown.json });
    if shown.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A report in both forms.
struct Shown {
    table: String,
    json: String,
    passed: bool,
}

impl Shown {
    fn of(report: &impl serde::Serialize, table: String, passed: bool) -> Self {
        Self { table, json: serde_json::to_string_pretty(report).unwrap_or_default(), passed }
    }
}
