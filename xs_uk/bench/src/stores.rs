//! The stores that are measured.

use std::path::Path;

use clap::ValueEnum;
use peers::{Binaries, Daemon, Kind, Ours, Peer};

use crate::args::Args;
use crate::error::Result;

/// A store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Store {
    /// This one.
    #[value(name = "xs_uk")]
    Ours,
    /// The C daemon.
    Xenstored,
    /// The OCaml daemon.
    Oxenstored,
}

impl Store {
    /// All, in the order of the first round.
    pub const ALL: [Self; 3] = [Self::Ours, Self::Xenstored, Self::Oxenstored];

    /// The program's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ours => "xs_uk",
            Self::Xenstored => "xenstored",
            Self::Oxenstored => "oxenstored",
        }
    }

    /// Starts it with nothing in it, with its files in `dir`.
    pub fn start(self, args: &Args, dir: &Path) -> Result<Box<dyn Daemon>> {
        Ok(match self {
            Self::Ours => Box::new(Ours::start(&Binaries::beside_us()?, dir, &our_flags(args))?),
            Self::Xenstored => Box::new(Peer::start(Kind::Xenstored, dir, &[])?),
            Self::Oxenstored => Box::new(Peer::start(Kind::Oxenstored, dir, &[])?),
        })
    }
}

fn our_flags(args: &Args) -> Vec<&str> {
    let engine = args.engine.as_deref().map(|engine| ["--engine", engine]);
    engine.into_iter().flatten().chain(args.flags.iter().map(String::as_str)).collect()
}
