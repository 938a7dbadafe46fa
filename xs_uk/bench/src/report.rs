//! The report.

use std::collections::BTreeMap;
use std::fmt::Write;

use figures::{Better, Figure, Machine, median, number};
use serde::Serialize;

use crate::error::Error;
use crate::lines::Line;
use crate::stores::Store;

/// What bare puts are called among the stores.
const BARE: &str = "bare etcd";

/// All that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
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
    figures: Vec<FigureReport>,
    /// What went wrong, by store.
    failures: BTreeMap<&'static str, Vec<String>>,
}

/// A figure with its values.
#[derive(Debug, Serialize)]
struct FigureReport {
    #[serde(flatten)]
    figure: Figure,
    /// One value for each round, by store.
    values: BTreeMap<&'static str, Vec<f64>>,
    /// The medians of the values.
    medians: BTreeMap<&'static str, f64>,
    best_peer: Option<&'static str>,
    /// Over 1 if we are better than the best peer.
    ratio: Option<f64>,
    /// The same of bare puts to our store's etcd, if the engine is etcd and there is a like.
    #[serde(skip_serializing_if = "Option::is_none")]
    bare_etcd: Option<BareReport>,
}

/// What bare puts to etcd give.
#[derive(Debug, Default, Serialize)]
struct BareReport {
    values: Vec<f64>,
    median: f64,
    /// Over 1 if our store is better than bare puts.
    ratio: Option<f64>,
}

impl Report {
    /// With nothing measured yet.
    pub fn new() -> Self {
        let arguments = std::env::args().skip(1).collect();
        Self { machine: Machine::this(), arguments, lines: vec![] }
    }

    /// For programs.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self)
            .unwrap_or_else(|error| format!("{{\"error\": {:?}}}", error.to_string()))
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = format!("{}\n\n", self.machine);
        let figures = self.lines.iter().flat_map(|line| &line.figures);
        let with_bare = figures.clone().any(|figure| figure.bare_etcd.is_some());
        let mut row = |words: [&str; 9]| {
            let [line, figure, unit, ours, c, ocaml, ratio, bare, to_bare] = words;
            let row = format!("{line:<15} {figure:<19} {unit:<4} {ours:>11} {c:>11} {ocaml:>11}  {ratio:>7}");
            let _ = match with_bare {
                true => writeln!(text, "{row} {bare:>11}  {to_bare:>7}"),
                false => writeln!(text, "{row}"),
            };
        };
        row(["line", "figure", "unit", "xs_uk", "xenstored", "oxenstored", "ratio", "bare etcd", "ratio"]);
        for line in &self.lines {
            for (at, figure) in line.figures.iter().enumerate() {
                let values = Store::ALL.map(|store| figure.medians.get(store.name()).map(|v| number(*v)));
                let [ours, c, ocaml] = values.map(|value| value.unwrap_or_else(|| "-".into()));
                let told =
                    |ratio: Option<f64>| ratio.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}"));
                let (ratio, bare) = (told(figure.ratio), figure.bare_etcd.as_ref());
                let to_bare = told(bare.and_then(|bare| bare.ratio));
                let bare = bare.map_or_else(|| "-".into(), |bare| number(bare.median));
                let name = if at == 0 { line.name } else { "" };
                row([
                    name,
                    figure.figure.name,
                    figure.figure.unit,
                    &ours,
                    &c,
                    &ocaml,
                    &ratio,
                    &bare,
                    &to_bare,
                ]);
            }
        }
        text.push_str("\nMedians of the rounds. Ratio: to the best peer, over 1 where xs_uk is better.\n");
        if with_bare {
            text.push_str(
                "Bare etcd: puts of a plain client to the same etcd, as many under way as the line has requests.\n",
            );
        }
        text
    }

    /// Failures of ours, and with `require` the main figures whose ratio is under it.
    pub fn problems(&self, require: Option<f64>) -> Vec<String> {
        let mut problems = Vec::new();
        for line in &self.lines {
            for who in [Store::Ours.name(), BARE] {
                if let Some(failures) = line.failures.get(who) {
                    problems.push(format!("{}: {who} failed: {}", line.name, failures.join("; ")));
                }
            }
            let Some(require) = require else { continue };
            for figure in line.figures.iter().filter(|figure| figure.figure.main) {
                if let Some(ratio) = figure.ratio.filter(|ratio| *ratio < require) {
                    problems
                        .push(format!("{}, {}: {ratio:.2} of the best peer", line.name, figure.figure.name));
                }
            }
        }
        problems
    }
}

impl LineReport {
    /// With nothing measured yet.
    pub fn new(line: &'static Line) -> Self {
        let figures = line.figures.iter().map(|figure| FigureReport::new(*figure)).collect();
        Self { name: line.name, about: line.about, figures, failures: BTreeMap::new() }
    }

    /// Adds a round of a store.
    pub fn add(&mut self, store: Store, values: Result<Vec<f64>, Error>) {
        match values {
            Ok(values) => {
                for (figure, value) in self.figures.iter_mut().zip(values) {
                    figure.add(store, value);
                }
            }
            Err(error) => self.failures.entry(store.name()).or_default().push(error.to_string()),
        }
    }

    /// Adds what bare puts to our store's etcd gave in the same round.
    pub fn add_bare(&mut self, values: Option<Result<Vec<f64>, Error>>) {
        match values {
            Some(Ok(values)) => {
                for (figure, value) in self.figures.iter_mut().zip(values) {
                    figure.add_bare(value);
                }
            }
            Some(Err(error)) => self.failures.entry(BARE).or_default().push(error.to_string()),
            None => {}
        }
    }
}

impl FigureReport {
    fn new(figure: Figure) -> Self {
        let (values, medians) = (BTreeMap::new(), BTreeMap::new());
        Self { figure, values, medians, best_peer: None, ratio: None, bare_etcd: None }
    }

    fn add(&mut self, store: Store, value: f64) {
        let values = self.values.entry(store.name()).or_default();
        values.push(value);
        if let Some(middle) = median(values) {
            self.medians.insert(store.name(), middle);
        }
        self.compare();
    }

    fn compare(&mut self) {
        let peers = [Store::Xenstored, Store::Oxenstored].map(Store::name);
        let there = peers.into_iter().filter_map(|peer| Some((peer, *self.medians.get(peer)?)));
        let best = match self.figure.better {
            Better::Higher => there.max_by(|a, b| a.1.total_cmp(&b.1)),
            Better::Lower => there.min_by(|a, b| a.1.total_cmp(&b.1)),
        };
        self.best_peer = best.map(|(peer, _)| peer);
        self.ratio = best
            .zip(self.medians.get(Store::Ours.name()))
            .and_then(|((_, theirs), ours)| self.figure.better.ratio(*ours, theirs));
        let ours = self.medians.get(Store::Ours.name());
        if let (Some(bare), Some(ours)) = (&mut self.bare_etcd, ours) {
            bare.ratio = self.figure.better.ratio(*ours, bare.median);
        }
    }

    fn add_bare(&mut self, value: f64) {
        let bare = self.bare_etcd.get_or_insert_default();
        bare.values.push(value);
        bare.median = median(&bare.values).unwrap_or_default();
        self.compare();
    }
}

/// The lines' names and what they do.
pub fn list(lines: &[&'static Line]) -> String {
    lines.iter().fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "{:<15} {}", line.name, line.about);
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::ALL;

    fn report(ours: f64, c: f64, ocaml: f64) -> Report {
        let mut line = LineReport::new(&ALL[0]);
        for (store, value) in Store::ALL.into_iter().zip([ours, c, ocaml]) {
            line.add(store, Ok(vec![value, 1e6 / value, 2e6 / value]));
        }
        Report { machine: Machine::this(), arguments: vec![], lines: vec![line] }
    }

    #[test]
    fn the_ratio_is_to_the_better_peer_and_over_one_if_we_win() {
        let report = report(100.0, 50.0, 80.0);
        let figures = &report.lines[0].figures;
        assert_eq!((figures[0].best_peer, figures[0].ratio), (Some("oxenstored"), Some(1.25)));
        assert_eq!((figures[1].best_peer, figures[1].ratio), (Some("oxenstored"), Some(1.25)));
        assert!(report.problems(Some(1.0)).is_empty());
        assert_eq!(report.problems(Some(1.3)).len(), 1, "only the main figure counts");
    }

    #[test]
    fn failures_of_ours_are_problems_and_those_of_peers_are_not() {
        let mut report = report(1.0, 2.0, 3.0);
        assert!(report.problems(None).is_empty());
        report.lines[0].add(Store::Xenstored, Err(Error::Thread));
        assert!(report.problems(None).is_empty());
        report.lines[0].add(Store::Ours, Err(Error::Thread));
        assert_eq!(report.problems(None).len(), 1);
    }

    #[test]
    fn bare_puts_to_etcd_stand_beside_our_store() {
        let mut report = report(100.0, 50.0, 80.0);
        assert!(!report.table().contains("bare etcd"));
        report.lines[0].add_bare(None);
        report.lines[0].add_bare(Some(Ok(vec![40.0, 2e4, 4e4])));
        report.lines[0].add_bare(Some(Ok(vec![60.0, 2e4, 4e4])));
        let bare = report.lines[0].figures[0].bare_etcd.as_ref().unwrap();
        assert_eq!((bare.median, bare.ratio), (50.0, Some(2.0)));
        let bare = report.lines[0].figures[1].bare_etcd.as_ref().unwrap();
        assert_eq!(bare.ratio, Some(2.0), "lower is better");
        assert!(report.table().contains("bare etcd"));
        report.lines[0].add_bare(Some(Err(Error::Thread)));
        assert_eq!(report.problems(None).len(), 1);
    }

    #[test]
    fn table_and_json_have_all() {
        let report = report(100.0, 50.0, 80.0);
        assert!(report.table().contains("1.25"));
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["lines"][0]["figures"][0]["ratio"], 1.25);
        assert_eq!(json["lines"][0]["figures"][0]["better"], "higher");
    }
}
