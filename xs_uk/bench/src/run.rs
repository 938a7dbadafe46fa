//! The order of the measurements.

use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};

use crate::args::Args;
use crate::bare;
use crate::client::Client;
use crate::error::{Result, system};
use crate::lines::{Line, Scale};
use crate::report::{LineReport, Report};
use crate::stores::Store;

/// Measures every line on every store.
pub fn run(args: &Args, lines: &[&'static Line]) -> Result<Report> {
    let temporary = tempfile::Builder::new().prefix("xs-bench").tempdir();
    let temporary = temporary.map_err(system("make a temporary directory"))?;
    let dir = args.dir.as_deref().unwrap_or_else(|| temporary.path());
    let rounds = |line: &Line| args.rounds.min(line.rounds_max);
    let total: u64 = lines.iter().map(|line| u64::from(rounds(line)) * args.stores.len() as u64).sum();
    let progress = progress(total);
    let mut report = Report::new();
    for line in lines {
        let mut measured = LineReport::new(line);
        for round in 0..rounds(line) {
            for store in figures::in_turn(&args.stores, round) {
                progress.set_message(format!("{} {}", line.name, store.name()));
                let values = measure(args, line, store, dir);
                if let Err(error) = &values {
                    progress.suspend(|| {
                        crate::complain(&format_args!("{}, {}: {error}", line.name, store.name()))
                    });
                }
                match values {
                    Ok(values) => {
                        measured.add(store, Ok(values.ours));
                        measured.add_bare(values.bare);
                    }
                    Err(error) => measured.add(store, Err(error)),
                }
                progress.inc(1);
            }
        }
        report.lines.push(measured);
    }
    progress.finish_and_clear();
    Ok(report)
}

/// What a measurement gives.
struct Values {
    ours: Vec<f64>,
    /// Of bare puts to the etcd of our store, if there is one and the line has its like.
    bare: Option<Result<Vec<f64>>>,
}

fn measure(args: &Args, line: &Line, store: Store, dir: &Path) -> Result<Values> {
    let dir = dir.join(store.name());
    let scale = if args.quick { Scale::QUICK } else { Scale::FULL };
    let mut daemon = store.start(args, &dir)?;
    // It takes clients before it serves, and the start is not what is measured.
    Client::connect(&daemon.socket())?.read(0, "/")?;
    let values = (line.measure)(daemon.as_mut(), scale).map(|ours| {
        let etcd = (store == Store::Ours).then(|| bare::endpoint(args, &dir)).flatten();
        Values { ours, bare: etcd.zip(line.bare).map(|(etcd, bare)| bare::measure(&etcd, bare, scale)) }
    });
    drop(daemon);
    std::fs::remove_dir_all(&dir).map_err(system("remove a store's files"))?;
    values
}

/// Shown on a terminal only.
fn progress(total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {elapsed}  {msg}");
    ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
