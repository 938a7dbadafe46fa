//! The order of the measurements.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::StartDriver;
use crate::args::Args;
use crate::contender::Contender;
use crate::error::{Result, system};
use crate::limits::{TIME, TIME_QUICK};
use crate::lines::{ALL, Line, Load, Way, names};
use crate::measure::{Values, measure};
use crate::report::{LineReport, Report};
use crate::setup::Order;

/// Measures every line on every contender.
pub fn run(args: &Args, lines: &[&'static Line], start_driver: StartDriver) -> Result<Report> {
    let temporary = tempfile::Builder::new().prefix("net-bench").tempdir();
    let temporary = temporary.map_err(system("make a temporary directory"))?;
    let mut bench = Bench { args, dir: temporary.path(), start_driver, rates: BTreeMap::new() };
    let progress = progress(lines.len() as u64 * u64::from(args.rounds) * args.contenders.len() as u64);
    let mut report = Report::new();
    for line in lines {
        let mut measured = LineReport::new(line);
        for round in 0..args.rounds {
            for contender in figures::in_turn(&args.contenders, round) {
                progress.set_message(format!("{} {}", line.name, contender.name()));
                let values = bench.measure(line, contender);
                if let Err(error) = &values {
                    let told = format!("{}, {}: {error}", line.name, contender.name());
                    progress.suspend(|| crate::complain(&told));
                }
                measured.add(contender, values);
                progress.inc(1);
            }
        }
        report.lines.push(measured);
    }
    progress.finish_and_clear();
    Ok(report)
}

struct Bench<'a> {
    args: &'a Args,
    dir: &'a Path,
    start_driver: StartDriver,
    /// Loads, by way and bytes.
    rates: BTreeMap<(Way, usize), u64>,
}

impl Bench<'_> {
    fn measure(&mut self, line: &'static Line, contender: Contender) -> Result<Values> {
        let rate = if line.load == Load::Fixed { self.rate_of(line)? } else { 0 };
        let time = if self.args.quick { TIME_QUICK } else { TIME };
        self.measure_at(line, contender, rate, time)
    }

    fn measure_at(&self, line: &Line, contender: Contender, rate: u64, time: Duration) -> Result<Values> {
        let dir = self.dir.join(contender.name());
        std::fs::create_dir_all(&dir).map_err(system("make a directory"))?;
        let values =
            measure(Order { line, contender, rate, dir: &dir, start_driver: self.start_driver }, time);
        std::fs::remove_dir_all(&dir).map_err(system("remove a directory"))?;
        values
    }

    /// The load of a line in frames a second: a part of what the driver alone reaches.
    fn rate_of(&mut self, line: &Line) -> Result<u64> {
        if let Some(rate) = self.args.rate {
            return Ok(rate);
        }
        let key = (line.way, line.bytes);
        if let Some(rate) = self.rates.get(&key) {
            return Ok(*rate);
        }
        let alike = |other: &&Line| (other.way, other.bytes) == key && other.load == Load::Saturating;
        let full = ALL.iter().find(alike).map_or(*line, |line| *line);
        let values = self.measure_at(&full, Contender::Driver, 0, TIME_QUICK)?;
        let reached = values.get(names::RATE).copied().unwrap_or_default() * 1e3;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "frames a second")]
        let rate = (reached * f64::from(self.args.load) / 100.0).max(1.0) as u64;
        self.rates.insert(key, rate);
        Ok(rate)
    }
}

/// Shown on a terminal only.
fn progress(total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {elapsed}  {msg}");
    ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
