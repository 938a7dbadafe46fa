//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::error::{Error, Result};
use crate::limits::ROUNDS_MAX;
use crate::lines::{ALL, Line};
use crate::stores::Store;

/// How the report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Measures this store beside xenstored and oxenstored, side by side in one run.
///
/// The peers are Debian's of Xen 4.17, run without Xen: see deploy/packages. Progress goes to the standard error.
#[derive(Clone, Debug, Parser)]
#[command(name = "xs_uk bench", version)]
#[command(
    after_help = "EXIT STATUS\n  0  done\n  1  a line failed, or is below the best peer with --require\n  2  usage"
)]
pub struct Args {
    /// Names the lines and ends.
    #[arg(long)]
    pub list: bool,
    /// Only these lines; a name that ends with - is the beginning of several.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub lines: Vec<String>,
    /// Only these stores.
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Store::ALL)]
    pub stores: Vec<Store>,
    /// Rounds; heavy lines have fewer. In each round every store is measured once.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(ROUNDS_MAX)), default_value_t = 5)]
    pub rounds: u32,
    /// Short and small: shows that it works, and gross differences.
    #[arg(long)]
    pub quick: bool,
    /// Fail if a main figure's ratio to the best peer is under RATIO.
    #[arg(long, value_name = "RATIO", num_args = 0..=1, default_missing_value = "1.0")]
    pub require: Option<f64>,
    /// The consensus engine of our store.
    #[arg(long)]
    pub engine: Option<String>,
    /// A further flag of our store; can be given again.
    #[arg(long = "flag", value_name = "FLAG", allow_hyphen_values = true)]
    pub flags: Vec<String>,
    /// How the report is written.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,
    /// Where the stores' files go; a temporary directory if left out.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
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
        let chosen = parse(&["--lines", "watch-,sync-read-1"]).lines().unwrap();
        assert!(chosen.iter().all(|line| line.name.starts_with("watch-") || line.name == "sync-read-1"));
        assert!(chosen.len() > 2);
        assert!(matches!(parse(&["--lines", "nonsense"]).lines(), Err(Error::UnknownLine(_))));
    }

    #[test]
    fn require_has_a_default() {
        assert_eq!(parse(&["--require"]).require, Some(1.0));
        assert_eq!(parse(&["--require", "0.9", "--quick"]).require, Some(0.9));
        assert_eq!(parse(&[]).require, None);
    }
}
