//! Ways of a driver to be broken, for tests.

use std::str::FromStr;

use lane::{FrameFlags, FrameMeta, Producer};

/// What a broken driver does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It loops and does nothing, not even show itself alive.
    Loop,
    /// It shows itself alive and moves nothing.
    Livelock,
    /// It moves a frame now and then.
    Slow,
    /// It gives out frames that do not exist.
    Lie,
    /// It ends with an error.
    Exit,
    /// It panics.
    Panic,
}

impl Fault {
    const NAMES: [(&'static str, Self); 6] = [
        ("loop", Self::Loop),
        ("livelock", Self::Livelock),
        ("slow", Self::Slow),
        ("lie", Self::Lie),
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

/// A frame that never came: what a lying driver gives out.
pub fn invent(lane: &mut Producer) -> Result<bool, lane::LaneError> {
    let meta = FrameMeta { flags: FrameFlags::CSUM_VALID, ..FrameMeta::default() };
    lane.push(&[0xff; 60], &meta)
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
