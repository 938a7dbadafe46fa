//! `differential`: compares our store with the stock ones for as long as it is told to.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use differential::{Difference, Error, Op, Profile, compare, generate, rules, run_all, shrink};
use peers::Kind;

/// Compares our store with xenstored and oxenstored by random sequences of operations.
#[derive(Debug, Parser)]
#[command(name = "differential", version)]
#[command(
    after_help = "EXIT STATUS\n  0  no difference but those of docs/DIFFERENCES.md\n  1  a difference\n  2  usage"
)]
struct Args {
    /// The first seed; the sequences after it have the numbers after it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many sequences.
    #[arg(long, default_value_t = 20)]
    sequences: u64,
    /// Begin no sequence after so many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// Operations in a sequence.
    #[arg(long, default_value_t = 120)]
    length: usize,
    /// Go on after a difference.
    #[arg(long)]
    keep_going: bool,
    /// Compare with the C daemon alone.
    #[arg(long)]
    only_c: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("differential: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

/// Gives the number of sequences with a difference.
fn run(args: &Args) -> Result<usize, Error> {
    let began = Instant::now();
    let (mut findings, mut sequences, mut compared) = (0, 0, 0);
    let mut needed = BTreeMap::<&str, usize>::new();
    for seed in args.seed..args.seed.saturating_add(args.sequences) {
        if args.seconds.is_some_and(|seconds| began.elapsed() >= Duration::from_secs(seconds)) {
            break;
        }
        let ops = generate(seed, args.length);
        let profile = profile(seed);
        let (found, verdicts) = check(args, &ops, profile)?;
        sequences += 1;
        for verdict in verdicts {
            compared += verdict.compared;
            verdict.rules.into_iter().for_each(|(rule, times)| *needed.entry(rule).or_default() += times);
        }
        if let Some(found) = found {
            findings += 1;
            explain(args, seed, profile, &ops, &found)?;
            if !args.keep_going {
                break;
            }
        }
    }
    let unused = rules::ALL.iter().filter(|rule| !needed.contains_key(rule.name)).map(|rule| rule.name);
    say(&format!(
        "{sequences} sequences, {compared} operations compared, {findings} with a difference\nrules: \
         {needed:?}\nunused: {:?}\n",
        unused.collect::<Vec<_>>()
    ));
    Ok(findings)
}

/// Every third sequence has quotas that are soon reached.
fn profile(seed: u64) -> Profile {
    if seed.is_multiple_of(3) { Profile::Tight } else { Profile::Stock }
}

fn check(
    args: &Args,
    ops: &[Op],
    profile: Profile,
) -> Result<(Option<Difference>, Vec<differential::Verdict>), Error> {
    let [ours, c, ocaml] = run_all(ops, profile)?;
    let mut verdicts = vec![compare(Kind::Xenstored, ops, &ours, &c)];
    // Its quotas have other meanings: docs/DIFFERENCES.md.
    if profile == Profile::Stock && !args.only_c {
        verdicts.push(compare(Kind::Oxenstored, ops, &ours, &ocaml));
    }
    Ok((verdicts.iter().find_map(|verdict| verdict.finding.clone()), verdicts))
}

fn explain(args: &Args, seed: u64, profile: Profile, ops: &[Op], found: &Difference) -> Result<(), Error> {
    say(&format!("seed {seed}: {found}shortening ...\n"));
    // Operations after the finding cannot matter.
    let ops = &ops[..ops.len().min(found.at + 1)];
    let same = |ops: &[Op]| {
        let outcome = check(args, ops, profile).ok().and_then(|(finding, _)| finding);
        outcome.is_some_and(|other| other.peer == found.peer && other.op == found.op)
    };
    let shrunk = shrink(ops, same);
    let text: String = shrunk.iter().map(|op| format!("    {op}\n")).collect();
    let found = check(args, &shrunk, profile)?.0.map_or_else(String::new, |found| found.to_string());
    say(&format!("seed {seed}, {profile:?}, {} operations:\n{text}{found}\n", shrunk.len()));
    Ok(())
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    // Without a standard output there is nobody to tell.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
