//! The lines of the benchmark.

use figures::{Better, Figure};

use crate::limits::WINDOW;

/// Which way frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// From the guest to the wire.
    ToWire,
    /// From the wire to the guest.
    FromWire,
    /// From the wire to the guest and back.
    RoundTrip,
}

/// How many frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// As many as the way takes.
    Saturating,
    /// A fixed number a second.
    Fixed,
    /// The next one when fewer than this are under way.
    Window(u64),
}

/// A line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its name.
    pub name: &'static str,
    /// What is done.
    pub about: &'static str,
    /// Which way frames go.
    pub way: Way,
    /// How many.
    pub load: Load,
    /// Bytes of a frame, without the four of a checksum that a real wire adds.
    pub bytes: usize,
    /// What the wire carries in Mbit/s; without it as much as the processors do.
    pub wire_mbits: Option<u32>,
}

impl Line {
    /// Its figures, in the order in which they are shown.
    pub fn figures(&self) -> &'static [Figure] {
        match self.load {
            Load::Saturating => SATURATED,
            Load::Fixed => FIXED,
            Load::Window(_) => TRIPS,
        }
    }

    /// May a frame be dropped? Whoever sends more than arrives does not ask.
    pub fn may_drop(&self) -> bool {
        self.load == Load::Saturating
    }
}

/// Names of figures.
pub mod names {
    #![allow(missing_docs, reason = "the names say all")]
    pub const RATE: &str = "rate";
    pub const BITS: &str = "bits";
    pub const OFFERED: &str = "offered";
    pub const MEDIAN: &str = "median";
    pub const P99: &str = "p99";
    pub const BACKEND: &str = "CPU backend";
    pub const SHADOW: &str = "CPU shadow";
    pub const DRIVER: &str = "CPU driver";
    pub const KEEPER: &str = "CPU keeper";
    pub const ENDS: &str = "CPU both ends";
    pub const MISSING: &str = "dropped";
    pub const LOST: &str = "lost";
    pub const COUNTED: &str = "counted";
    pub const DOUBLED: &str = "doubled";
    pub const REORDERED: &str = "reordered";
}

const fn low(name: &'static str, unit: &'static str) -> Figure {
    Figure::other(name, unit, Better::Lower)
}

const SATURATED: &[Figure] = &[
    Figure::main(names::RATE, "k/s", Better::Higher),
    Figure::other(names::BITS, "Mb/s", Better::Higher),
    low(names::BACKEND, "ns"),
    low(names::SHADOW, "ns"),
    low(names::DRIVER, "ns"),
    low(names::KEEPER, "ns"),
    low(names::ENDS, "ns"),
    low(names::MISSING, "%"),
    low(names::DOUBLED, ""),
    low(names::REORDERED, ""),
];

const FIXED: &[Figure] = &[
    Figure::main(names::RATE, "k/s", Better::Higher),
    Figure::other(names::OFFERED, "k/s", Better::Higher),
    low(names::BACKEND, "ns"),
    low(names::SHADOW, "ns"),
    low(names::DRIVER, "ns"),
    low(names::KEEPER, "ns"),
    low(names::ENDS, "ns"),
    low(names::LOST, ""),
    low(names::COUNTED, ""),
    low(names::DOUBLED, ""),
    low(names::REORDERED, ""),
];

const TRIPS: &[Figure] = &[
    Figure::main(names::MEDIAN, "us", Better::Lower),
    low(names::P99, "us"),
    Figure::other(names::RATE, "k/s", Better::Higher),
    low(names::BACKEND, "ns"),
    low(names::SHADOW, "ns"),
    low(names::DRIVER, "ns"),
    low(names::KEEPER, "ns"),
    low(names::LOST, ""),
    low(names::COUNTED, ""),
    low(names::DOUBLED, ""),
    low(names::REORDERED, ""),
];

const fn line(name: &'static str, way: Way, load: Load, bytes: usize, about: &'static str) -> Line {
    Line { name, about, way, load, bytes, wire_mbits: None }
}

const fn gigabit(name: &'static str, way: Way, load: Load, about: &'static str) -> Line {
    Line { name, about, way, load, bytes: 1514, wire_mbits: Some(1000) }
}

/// All lines in the order in which they are run.
#[rustfmt::skip]
pub const ALL: &[Line] = &[
    line("to-wire-64", Way::ToWire, Load::Saturating, 64, "the guest sends frames of 64 bytes, as many as it can"),
    line("to-wire-1514", Way::ToWire, Load::Saturating, 1514, "the guest sends frames of 1514 bytes, as many as it can"),
    line("from-wire-64", Way::FromWire, Load::Saturating, 64, "the guest is sent frames of 64 bytes, as many as the wire takes"),
    line("from-wire-1514", Way::FromWire, Load::Saturating, 1514, "the guest is sent frames of 1514 bytes, as many as the wire takes"),
    line("load-to-wire-64", Way::ToWire, Load::Fixed, 64, "the guest sends frames of 64 bytes at a fixed load"),
    line("load-to-wire-1514", Way::ToWire, Load::Fixed, 1514, "the guest sends frames of 1514 bytes at a fixed load"),
    line("load-from-wire-64", Way::FromWire, Load::Fixed, 64, "the guest is sent frames of 64 bytes at a fixed load"),
    line("load-from-wire-1514", Way::FromWire, Load::Fixed, 1514, "the guest is sent frames of 1514 bytes at a fixed load"),
    line("rtt-64", Way::RoundTrip, Load::Window(1), 64, "a frame of 64 bytes goes to the guest and back, one at a time"),
    line("rtt-1514", Way::RoundTrip, Load::Window(1), 1514, "a frame of 1514 bytes goes to the guest and back, one at a time"),
    line("rtt-64-many", Way::RoundTrip, Load::Window(WINDOW), 64, "the same with 32 frames of 64 bytes under way"),
    line("rtt-1514-many", Way::RoundTrip, Load::Window(WINDOW), 1514, "the same with 32 frames of 1514 bytes under way"),
    gigabit("gigabit-to-wire", Way::ToWire, Load::Saturating, "the guest sends frames of 1514 bytes to a wire of 1 Gbit/s, as many as it takes"),
    gigabit("gigabit-from-wire", Way::FromWire, Load::Saturating, "the guest is sent frames of 1514 bytes from such a wire"),
    gigabit("gigabit-rtt-many", Way::RoundTrip, Load::Window(WINDOW), "round trips of 32 frames of 1514 bytes under way over such a wire"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_different_and_every_line_has_a_main_figure() {
        let names: std::collections::BTreeSet<_> = ALL.iter().map(|line| line.name).collect();
        assert_eq!(names.len(), ALL.len());
        assert!(ALL.iter().all(|line| line.figures().iter().any(|figure| figure.main)));
    }
}
