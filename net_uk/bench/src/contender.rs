//! Who is measured.

use clap::ValueEnum;

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Contender {
    /// A guest, its shadow, a driver and their keeper.
    #[value(name = "net_uk")]
    NetUk,
    /// A guest, and one process that serves it and has the network card too.
    Plain,
    /// The same driver, with this process at the other end of its lane.
    Driver,
    /// A packet socket at both ends of the wire.
    Veth,
}

impl Contender {
    /// All, in the order of the first round.
    pub const ALL: [Self; 4] = [Self::NetUk, Self::Plain, Self::Driver, Self::Veth];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NetUk => "net_uk",
            Self::Plain => "plain",
            Self::Driver => "driver",
            Self::Veth => "veth",
        }
    }
}
