//! The command line.

use clap::{Parser, ValueEnum};

use crate::contender::Contender;
use crate::error::{Error, Result};
use crate::limits::ROUNDS_MAX;
use crate::lines::{ALL, Line};

/// How the report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Measures the network backend beside one without a shadow, its driver alone and a bare wire, side by side in one run.
///
/// The wire is a pair of virtual interfaces in a network namespace of its own. The guest is a simulated one, a process
/// that fills and empties its rings as Linux does. Every frame is numbered and checksummed, and counted at both ends.
/// Progress goes to the standard error.
#[derive(Clone, Debug, Parser)]
#[command(name = "net_uk bench", version)]
#[command(
    after_help = "EXIT STATUS\n  0  done\n  1  a line failed, lost frames at a fixed load, doubled or reordered one, or is below --require\n  2  usage"
)]
pub struct Args {
    /// Names the lines and ends.
    #[arg(long)]
    pub list: bool,
    /// Only these lines; a name that ends with - is the beginning of several.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub lines: Vec<String>,
    /// Only these contenders.
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Contender::ALL)]
    pub contenders: Vec<Contender>,
    /// Rounds. In each round every contender is measured once.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(ROUNDS_MAX)), default_value_t = 5)]
    pub rounds: u32,
    /// Short: shows that it works, and gross differences.
    #[arg(long)]
    pub quick: bool,
    /// The load of the lines at a fixed one, in percent of what the driver alone reaches.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=100), default_value_t = 25)]
    pub load: u32,
    /// The load of these lines in frames a second, instead.
    #[arg(long, value_name = "RATE", value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: Option<u64>,
    /// Fail if a main figure's ratio to what it is without a shadow is under RATIO: with a backend of one process, or, if that is
    /// not among the contenders, with the driver alone.
    #[arg(long, value_name = "RATIO", num_args = 0..=1, default_missing_value = "0.97")]
    pub require: Option<f64>,
    /// In the network namespace of the caller, not in one of its own.
    #[arg(long)]
    pub here: bool,
    /// How the report is written.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,
}

impl Args {
    /// The lines that are asked for, in the usual order.
    ///
    /// # Errors
    /// [`Error::UnknownLine`].
    pub fn lines(&self) -> Result<Vec<&'static Line>> {
        let chosen = figures::chosen(ALL, |line| line.name, &self.lines);
        chosen.map_err(|name| Error::UnknownLine(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Args {
        Args::try_parse_from(std::iter::once(&"bench").chain(words)).unwrap()
    }

    #[test]
    fn lines_are_chosen_by_the_beginning_of_their_names() {
        assert_eq!(parse(&[]).lines().unwrap().len(), ALL.len());
        let chosen = parse(&["--lines", "rtt-,to-wire-64"]).lines().unwrap();
        assert!(chosen.iter().all(|line| line.name.starts_with("rtt-") || line.name == "to-wire-64"));
        assert!(chosen.len() > 2);
        assert!(matches!(parse(&["--lines", "nonsense"]).lines(), Err(Error::UnknownLine(_))));
    }

    #[test]
    fn require_has_a_default() {
        assert_eq!(parse(&["--require"]).require, Some(0.97));
        assert_eq!(parse(&["--require", "0.5", "--quick"]).require, Some(0.5));
        assert_eq!(parse(&[]).require, None);
    }
}
