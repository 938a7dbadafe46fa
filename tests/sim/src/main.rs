//! Runs simulated worlds and says which seeds show a fault.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a command")]

use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use sim::{Engine, Mutant, Options, Report, run};

/// Runs the store in simulated worlds. Exit code: 0 if nothing was found, 1 if something was, 2 usage.
#[derive(Debug, Parser)]
#[command(name = "sim")]
struct Args {
    /// Number of seeds
    #[arg(long, value_name = "N", default_value_t = 100)]
    seeds: u64,
    /// The first seed
    #[arg(long, value_name = "S", default_value_t = 0)]
    from: u64,
    /// Which engine keeps the log
    #[arg(long, default_value = "embedded")]
    engine: Engine,
    /// Form of the result: one JSON object for each seed, or text
    #[arg(short, long, default_value = "text")]
    output: Output,
    /// Builds an error in, to see it found
    #[arg(long)]
    mutant: Option<Mutant>,
    /// Prints the trace of each seed
    #[arg(long)]
    trace: bool,
    /// Writes the clients' history of each seed with a finding to DIR/SEED.jsonl
    #[arg(long, value_name = "DIR")]
    histories: Option<std::path::PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Text,
    Json,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run_all(&args) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(error) => {
            eprintln!("sim: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Gives the number of seeds with a finding.
fn run_all(args: &Args) -> anyhow::Result<u64> {
    let progress = ProgressBar::new(args.seeds);
    progress.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} seeds, {msg} found, {eta} left")?);
    let (mut found, mut undecided) = (0, 0);
    progress.set_message("0");
    for seed in args.from..args.from + args.seeds {
        let mut options = Options::of_seed(seed, args.engine);
        options.mutant = args.mutant;
        let report = run(&options, args.trace)?;
        undecided += u64::from(report.undecided);
        found += u64::from(!report.findings.is_empty());
        progress.suspend(|| print(args, &report))?;
        progress.set_message(found.to_string());
        progress.inc(1);
    }
    progress.finish_and_clear();
    if args.output == Output::Text {
        println!("{} seeds from {}: {found} with findings, {undecided} undecided", args.seeds, args.from);
    }
    Ok(found)
}

fn print(args: &Args, report: &Report) -> anyhow::Result<()> {
    for line in &report.trace {
        println!("{line}");
    }
    if args.output == Output::Json {
        println!("{}", serde_json::to_string(report)?);
    } else if !report.findings.is_empty() {
        for finding in &report.findings {
            println!("seed {}: {}: {}", report.seed, finding.invariant, finding.what);
        }
        let engine = match args.engine {
            Engine::Embedded => "embedded",
            Engine::Etcd => "etcd",
            Engine::Copied => "copied",
        };
        println!("  again with: sim --seeds 1 --from {} --engine {engine} --trace", report.seed);
    }
    if let Some(dir) = args.histories.as_ref().filter(|_| !report.findings.is_empty()) {
        std::fs::create_dir_all(dir)?;
        let file = std::fs::File::create(dir.join(format!("{}.jsonl", report.seed)))?;
        report.history.write_jsonl(&mut std::io::BufWriter::new(file))?;
    }
    Ok(())
}
