//! Who is measured.

use clap::ValueEnum;

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Contender {
    /// A guest, its shadow, a driver and their keeper.
    #[value(name = "net_uk")]
    NetUk,
    /// The same driver, with this process at the other end of its lane.
    Driver,
    /// A packet socket at both ends of the wire.
    Veth,
}

impl Contender {
    /// All, in the order of the first round.
    pub const ALL: [Self; 3] = [Self::NetUk, Self::Driver, Self::Veth];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NetUk => "net_uk",
            Self::Driver => "driver",
            Self::Veth => "veth",
        }
    }

    /// Another one begins in every round.
    pub fn in_order(chosen: &[Self], round: u32) -> Vec<Self> {
        let mut order = chosen.to_vec();
        order.rotate_left(round as usize % chosen.len().max(1));
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_first_in_turn() {
        let firsts: Vec<_> = (0..4).map(|round| Contender::in_order(&Contender::ALL, round)[0]).collect();
        assert_eq!(firsts, [Contender::NetUk, Contender::Driver, Contender::Veth, Contender::NetUk]);
    }
}
