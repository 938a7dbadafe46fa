//! Ways of a driver to be broken, for tests.

use std::str::FromStr;

use lane::Damage;

/// What a broken driver does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It loops and does nothing, not even show itself alive.
    Loop,
    /// It shows itself alive and moves nothing.
    Livelock,
    /// It moves a frame now and then.
    Slow,
    /// It writes nonsense into its lane in each turn.
    Nonsense(Ring, Damage),
    /// It ends with an error.
    Exit,
    /// It panics.
    Panic,
}

/// One of a lane's rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ring {
    /// Towards the wire.
    Tx,
    /// From the wire.
    Rx,
}

impl Fault {
    const NAMES: [(&'static str, Self); 8] = [
        ("loop", Self::Loop),
        ("livelock", Self::Livelock),
        ("slow", Self::Slow),
        ("taken", Self::Nonsense(Ring::Tx, Damage::TakenTooMuch)),
        ("published", Self::Nonsense(Ring::Rx, Damage::PublishedTooMuch)),
        ("garbage", Self::Nonsense(Ring::Rx, Damage::Garbage)),
        ("exit", Self::Exit),
        ("panic", Self::Panic),
    ];
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::NAMES.into_iter().find(|(known, _)| *known == name);
        found.map(|(_, fault)| fault).ok_or_else(|| format!("no such fault: {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_have_names() {
        for (name, fault) in Fault::NAMES {
            assert_eq!(name.parse(), Ok(fault));
        }
        assert!("none".parse::<Fault>().is_err());
    }
}
