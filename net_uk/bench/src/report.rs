//! The report.

use std::collections::BTreeMap;
use std::fmt::Write;

use figures::{Figure, Machine, median, number};
use serde::Serialize;

use crate::contender::Contender;
use crate::error::Error;
use crate::lines::{Line, names};
use crate::measure::Values;

/// Version of this form.
const VERSION: u32 = 1;

/// All that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Of this form.
    pub version: u32,
    /// Where.
    pub machine: Machine,
    /// With which flags.
    pub arguments: Vec<String>,
    /// What.
    pub lines: Vec<LineReport>,
}

/// A line with its figures.
#[derive(Debug, Serialize)]
pub struct LineReport {
    name: &'static str,
    about: &'static str,
    /// Frames may be dropped there: more are sent than arrive.
    may_drop: bool,
    figures: Vec<FigureReport>,
    /// What went wrong, by contender.
    failures: BTreeMap<&'static str, Vec<String>>,
}

/// A figure with its values.
#[derive(Debug, Serialize)]
struct FigureReport {
    #[serde(flatten)]
    figure: Figure,
    /// One value for each round, by contender.
    values: BTreeMap<&'static str, Vec<f64>>,
    /// The medians of the values.
    medians: BTreeMap<&'static str, f64>,
    /// Over 1 if we are better than the driver alone.
    ratio: Option<f64>,
    /// Over 1 if we are better than a backend of one process.
    ratio_to_plain: Option<f64>,
    /// Over 1 if we are better than the bare wire.
    ratio_to_veth: Option<f64>,
}

impl Report {
    /// With nothing measured yet.
    pub fn new() -> Self {
        let arguments = std::env::args().skip(1).collect();
        Self { version: VERSION, machine: Machine::this(), arguments, lines: vec![] }
    }

    /// For programs.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self)
            .unwrap_or_else(|error| format!("{{\"error\": {:?}}}", error.to_string()))
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = format!("{}\n\n", self.machine);
        let mut row = |words: [&str; 10]| {
            let [line, figure, unit, ours, plain, driver, veth, to_plain, ratio, to_veth] = words;
            let _ = writeln!(
                text,
                "{line:<19} {figure:<14} {unit:<4} {ours:>8} {plain:>8} {driver:>8} {veth:>8} {to_plain:>9} {ratio:>9} {to_veth:>8}"
            );
        };
        row([
            "line",
            "figure",
            "unit",
            "net_uk",
            "plain",
            "driver",
            "veth",
            "to plain",
            "to driver",
            "to veth",
        ]);
        for line in &self.lines {
            for (at, figure) in line.figures.iter().enumerate() {
                let values = Contender::ALL.map(|who| figure.medians.get(who.name()).map(|v| number(*v)));
                let [ours, plain, driver, veth] = values.map(|value| value.unwrap_or_else(|| "-".into()));
                let told =
                    |ratio: Option<f64>| ratio.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}"));
                let name = if at == 0 { line.name } else { "" };
                let (to_plain, ratio) = (told(figure.ratio_to_plain), told(figure.ratio));
                let (to_veth, unit) = (told(figure.ratio_to_veth), figure.figure.unit);
                let figure = figure.figure.name;
                row([name, figure, unit, &ours, &plain, &driver, &veth, &to_plain, &ratio, &to_veth]);
            }
        }
        text.push_str(
            "\nMedians of the rounds. Ratios (to plain: a backend of one process; to the driver alone; to the bare wire) are over 1\n\
             where net_uk is better. CPU: processor time for each frame that arrived; what serves a guest from one process is\n\
             driver. Dropped: sent and did not arrive, where more is sent than the way takes.\n\
             Counted: frames that the backend, or the kernel for it, says that it dropped.\n",
        );
        text
    }

    /// Failures of ours, frames that it lost or doubled, and with `require` the main figures whose ratio is under it.
    pub fn problems(&self, require: Option<f64>) -> Vec<String> {
        let mut problems = Vec::new();
        for line in &self.lines {
            if let Some(failures) = line.failures.get(Contender::NetUk.name()) {
                problems.push(format!("{}: net_uk failed: {}", line.name, failures.join("; ")));
            }
            problems.extend(line.figures.iter().filter_map(|figure| line.fault(figure)));
            let Some(require) = require else { continue };
            for figure in line.figures.iter().filter(|figure| figure.figure.main) {
                let ratio = figure.ratio_to_plain.or(figure.ratio);
                if let Some(ratio) = ratio.filter(|ratio| *ratio < require) {
                    let name = figure.figure.name;
                    problems
                        .push(format!("{}, {name}: {ratio:.2} of what it is without a shadow", line.name));
                }
            }
        }
        problems
    }
}

impl LineReport {
    /// With nothing measured yet.
    pub fn new(line: &'static Line) -> Self {
        let figures = line.figures().iter().map(|figure| FigureReport::new(*figure)).collect();
        let may_drop = line.may_drop();
        Self { name: line.name, about: line.about, may_drop, figures, failures: BTreeMap::new() }
    }

    /// Adds a round of a contender.
    pub fn add(&mut self, contender: Contender, values: Result<Values, Error>) {
        match values {
            Ok(values) => {
                for figure in &mut self.figures {
                    if let Some(value) = values.get(figure.figure.name) {
                        figure.add(contender, *value);
                    }
                }
            }
            Err(error) => self.failures.entry(contender.name()).or_default().push(error.to_string()),
        }
    }

    /// Frames of ours that are not as they should be, in any round.
    fn fault(&self, figure: &FigureReport) -> Option<String> {
        let name = figure.figure.name;
        let counts =
            name == names::LOST && !self.may_drop || [names::DOUBLED, names::REORDERED].contains(&name);
        let worst = |figure: &FigureReport| {
            Some(figure.values.get(Contender::NetUk.name())?.iter().copied().fold(0.0, f64::max))
        };
        let frames = worst(figure)?;
        let counted = self.figures.iter().find(|figure| figure.figure.name == names::COUNTED).and_then(worst);
        let counted = counted.filter(|_| name == names::LOST).unwrap_or(0.0);
        let told = format!("{}: {frames} frames {name}, {counted} counted as dropped", self.name);
        (counts && frames > 0.0).then_some(told)
    }
}

impl FigureReport {
    fn new(figure: Figure) -> Self {
        let (values, medians) = (BTreeMap::new(), BTreeMap::new());
        Self { figure, values, medians, ratio: None, ratio_to_plain: None, ratio_to_veth: None }
    }

    fn add(&mut self, contender: Contender, value: f64) {
        let values = self.values.entry(contender.name()).or_default();
        values.push(value);
        if let Some(middle) = median(values) {
            self.medians.insert(contender.name(), middle);
        }
        self.ratio = self.ratio_to(Contender::Driver);
        self.ratio_to_plain = self.ratio_to(Contender::Plain);
        self.ratio_to_veth = self.ratio_to(Contender::Veth);
    }

    fn ratio_to(&self, other: Contender) -> Option<f64> {
        let ours = self.medians.get(Contender::NetUk.name())?;
        self.figure.better.ratio(*ours, *self.medians.get(other.name())?)
    }
}

/// The lines' names and what they do.
pub fn list(lines: &[&'static Line]) -> String {
    lines.iter().fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "{:<19} {}", line.name, line.about);
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::ALL;

    fn report(line: &str, ours: &[(&'static str, f64)], driver: &[(&'static str, f64)]) -> Report {
        let line = ALL.iter().find(|known| known.name == line).unwrap();
        let mut measured = LineReport::new(line);
        measured.add(Contender::NetUk, Ok(ours.iter().copied().collect()));
        measured.add(Contender::Driver, Ok(driver.iter().copied().collect()));
        Report { version: VERSION, machine: Machine::this(), arguments: vec![], lines: vec![measured] }
    }

    #[test]
    fn the_ratio_is_to_the_driver_alone() {
        let report = report("to-wire-64", &[(names::RATE, 80.0)], &[(names::RATE, 100.0)]);
        assert_eq!(report.lines[0].figures[0].ratio, Some(0.8));
        assert!(report.problems(None).is_empty());
        assert_eq!(report.problems(Some(0.97)).len(), 1);
        assert!(report.table().contains("0.80"));
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["lines"][0]["figures"][0]["ratio"], 0.8);
    }

    #[test]
    fn what_is_required_is_in_relation_to_a_backend_of_one_process_if_that_was_measured() {
        let mut report = report("rtt-64", &[(names::MEDIAN, 66.0)], &[(names::MEDIAN, 50.0)]);
        assert_eq!(report.problems(Some(0.97)).len(), 1);
        report.lines[0].add(Contender::Plain, Ok([(names::MEDIAN, 66.0)].into()));
        assert_eq!(report.lines[0].figures[0].ratio_to_plain, Some(1.0));
        assert!(report.problems(Some(0.97)).is_empty());
        assert_eq!(report.problems(Some(1.01)).len(), 1);
    }

    #[test]
    fn a_lost_or_doubled_frame_is_a_problem_but_not_where_more_is_sent_than_arrives() {
        let lost = report("load-to-wire-64", &[(names::LOST, 1.0)], &[(names::LOST, 7.0)]);
        assert_eq!(lost.problems(None), ["load-to-wire-64: 1 frames lost, 0 counted as dropped"]);
        let dropped = report("to-wire-64", &[(names::MISSING, 50.0)], &[]);
        assert!(dropped.problems(None).is_empty());
        let doubled = report("to-wire-64", &[(names::DOUBLED, 1.0)], &[]);
        assert_eq!(doubled.problems(None).len(), 1);
    }

    #[test]
    fn failures_of_ours_are_problems_and_those_of_others_are_not() {
        let mut report = report("rtt-64", &[(names::MEDIAN, 1.0)], &[(names::MEDIAN, 1.0)]);
        report.lines[0].add(Contender::Veth, Err(Error::Late("x")));
        assert!(report.problems(None).is_empty());
        report.lines[0].add(Contender::NetUk, Err(Error::Late("x")));
        assert_eq!(report.problems(None).len(), 1);
    }
}
