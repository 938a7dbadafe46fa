//! What keeper and vaults say to each other, and what a keeper leaves to the next one, as protobuf over a
//! [`control::Link`]. Field numbers are never used again.

use net_watch::TimeNs;
use net_watch::ladder::{Attempt, Follows, Incarnation, Memory, NicId, Part, Rung, Stage};
use prost::{Message, Oneof};

/// To a vault.
#[derive(Clone, PartialEq, Message)]
pub struct ToVault {
    /// What is said.
    #[prost(oneof = "Told", tags = "1, 2, 3")]
    pub told: Option<Told>,
}

/// The kinds of messages to a vault.
#[derive(Clone, PartialEq, Oneof)]
pub enum Told {
    /// No other keeper lives: whoever says so wants what is held.
    #[prost(bool, tag = "1")]
    Fenced(bool),
    /// Hold this instead of what was held before, with its descriptors.
    #[prost(message, tag = "2")]
    Deposit(Deposit),
    /// All is being stopped.
    #[prost(bool, tag = "3")]
    Stop(bool),
}

/// All that must outlive a keeper. The one that makes it is the keeper from then on.
#[derive(Clone, PartialEq, Message)]
pub struct Deposit {
    /// Grows with each one, whoever makes it: the keeper's number in the upper half. 0 before the first.
    #[prost(uint64, tag = "1")]
    pub sequence: u64,
    /// Which keeper it is from.
    #[prost(message, optional, tag = "2")]
    pub keeper: Option<Process>,
    /// The number of the vault that it is for.
    #[prost(uint32, tag = "3")]
    pub vault: u32,
    /// Names of the descriptors, in their order.
    #[prost(string, repeated, tag = "4")]
    pub names: Vec<String>,
    /// What the descriptors are about.
    #[prost(message, optional, tag = "5")]
    pub record: Option<Record>,
}

/// To a keeper.
#[derive(Clone, PartialEq, Message)]
pub struct ToKeeper {
    /// What is said.
    #[prost(oneof = "Bid", tags = "1, 2, 3")]
    pub bid: Option<Bid>,
}

/// The kinds of messages to a keeper.
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
#[derive(Clone, PartialEq, Oneof)]
pub enum Bid {
    /// Wait until no other keeper lives; with the desk's descriptor.
    #[prost(bool, tag = "1")]
    Fence(bool),
    /// Go on with what is held, with its descriptors.
    #[prost(message, tag = "2")]
    Begin(Succession),
    /// Stop all.
    #[prost(bool, tag = "3")]
    Stop(bool),
}

/// What a keeper begins with.
#[derive(Clone, PartialEq, Message)]
pub struct Succession {
    /// What is held.
    #[prost(message, optional, tag = "1")]
    pub deposit: Option<Deposit>,
    /// The vault that gives it.
    #[prost(message, optional, tag = "2")]
    pub vault: Option<Process>,
    /// How the keeper before was found to have ended, if there was one.
    #[prost(message, optional, tag = "3")]
    pub found: Option<Found>,
}

/// A process; its number among its kind.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Process {
    /// Of a vault from 0, of a keeper from 1.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// Its process.
    #[prost(uint32, tag = "2")]
    pub pid: u32,
    /// When that began, in clock ticks since boot.
    #[prost(uint64, tag = "3")]
    pub start_ticks: u64,
}

/// The end of a keeper.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Found {
    /// When it was noticed, by the monotonic clock.
    #[prost(uint64, tag = "1")]
    pub at_monotonic_ns: u64,
    /// `ended` or `condemned`.
    #[prost(string, tag = "2")]
    pub kind: String,
    /// More of it.
    #[prost(string, tag = "3")]
    pub detail: String,
    /// Its process.
    #[prost(uint32, tag = "4")]
    pub pid: u32,
}

/// What a keeper leaves to the next one.
#[derive(Clone, PartialEq, Message)]
pub struct Record {
    /// Shadow and drivers.
    #[prost(message, repeated, tag = "1")]
    pub parts: Vec<PartRecord>,
    /// The network cards, in the order of their numbers.
    #[prost(message, repeated, tag = "2")]
    pub nics: Vec<NicRecord>,
    /// The vaults.
    #[prost(message, repeated, tag = "3")]
    pub vaults: Vec<Process>,
}

/// A network card.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct NicRecord {
    /// How it was opened ([`nic::NicSpec`] as text).
    #[prost(string, tag = "1")]
    pub spec: String,
    /// The kernel's number of the interface; 0 if it had none.
    #[prost(uint32, tag = "2")]
    pub index: u32,
    /// The directory of the kernel's driver; empty if it had none.
    #[prost(string, tag = "3")]
    pub driver: String,
    /// Its name on the bus; empty if it had none.
    #[prost(string, tag = "4")]
    pub id: String,
}

/// A part with its process and its place on the ladder.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PartRecord {
    /// 0 for the shadow, a card's number plus 1 for its driver.
    #[prost(uint32, tag = "1")]
    pub part: u32,
    /// Its process; 0 if there is none.
    #[prost(uint32, tag = "2")]
    pub pid: u32,
    /// When that began, in clock ticks since boot.
    #[prost(uint64, tag = "3")]
    pub start_ticks: u64,
    /// Its last start.
    #[prost(uint64, tag = "4")]
    pub incarnation: u64,
    /// The last reset of its device.
    #[prost(uint64, tag = "5")]
    pub attempt: u64,
    /// 0 restart, 1 reset of the device, 2 all.
    #[prost(uint32, tag = "6")]
    pub rung: u32,
    /// Failures in a row.
    #[prost(uint32, tag = "7")]
    pub strikes: u32,
    /// Probes in a row that failed.
    #[prost(uint32, tag = "8")]
    pub probes: u32,
    /// Its present start is a probe.
    #[prost(bool, tag = "9")]
    pub probing: bool,
    /// Since when something is wrong.
    #[prost(uint64, optional, tag = "10")]
    pub failing_since_ns: Option<u64>,
    /// When it last had run for long enough.
    #[prost(uint64, optional, tag = "11")]
    pub last_success_ns: Option<u64>,
    /// 0 down, 1 its device is reset, 2 starting, 3 running, 4 for long enough, 5 fenced, 6 given up.
    #[prost(uint32, tag = "12")]
    pub stage: u32,
    /// The time that belongs to the stage.
    #[prost(uint64, tag = "13")]
    pub stage_at_ns: u64,
    /// What follows its end: 0 a start, 1 a reset, 2 an end of all, 3 nothing.
    #[prost(uint32, tag = "14")]
    pub follows: u32,
    /// When that follows.
    #[prost(uint64, tag = "15")]
    pub follows_at_ns: u64,
    /// It said that it serves.
    #[prost(bool, tag = "16")]
    pub ready: bool,
}

impl PartRecord {
    /// Of a part without a process.
    pub fn of(memory: &Memory) -> Self {
        let (stage, at) = match memory.stage {
            Stage::Down(at) => (0, at),
            Stage::Resetting(at) => (1, at),
            Stage::Starting => (2, TimeNs(0)),
            Stage::Running(at) => (3, at),
            Stage::Proven(at) => (4, at),
            Stage::Fencing => (5, TimeNs(0)),
            Stage::GivenUp(at) => (6, at),
        };
        Self {
            part: number_of(memory.part),
            pid: 0,
            start_ticks: 0,
            incarnation: memory.incarnation.0,
            attempt: memory.attempt.0,
            rung: match memory.rung {
                Rung::Restart => 0,
                Rung::ResetDevice => 1,
                Rung::RestartAll => 2,
            },
            strikes: memory.strikes,
            probes: memory.probes,
            probing: memory.probing,
            failing_since_ns: memory.failing_since.map(|at| at.0),
            last_success_ns: memory.last_success.map(|at| at.0),
            stage,
            stage_at_ns: at.0,
            follows: match memory.follows {
                Follows::Start => 0,
                Follows::Reset => 1,
                Follows::All => 2,
                Follows::GiveUp => 3,
            },
            follows_at_ns: memory.follows_at.0,
            ready: false,
        }
    }

    /// Its place on the ladder. What a newer keeper wrote and is not known here is the mildest that there is.
    pub fn memory(&self) -> Memory {
        let at = TimeNs(self.stage_at_ns);
        Memory {
            part: part_of(self.part),
            incarnation: Incarnation(self.incarnation),
            attempt: Attempt(self.attempt),
            rung: match self.rung {
                1 => Rung::ResetDevice,
                2 => Rung::RestartAll,
                _ => Rung::Restart,
            },
            strikes: self.strikes,
            probes: self.probes,
            probing: self.probing,
            failing_since: self.failing_since_ns.map(TimeNs),
            last_success: self.last_success_ns.map(TimeNs),
            stage: match self.stage {
                1 => Stage::Resetting(at),
                2 => Stage::Starting,
                3 => Stage::Running(at),
                4 => Stage::Proven(at),
                5 => Stage::Fencing,
                6 => Stage::GivenUp(at),
                _ => Stage::Down(at),
            },
            follows: match self.follows {
                1 => Follows::Reset,
                2 => Follows::All,
                3 => Follows::GiveUp,
                _ => Follows::Start,
            },
            follows_at: TimeNs(self.follows_at_ns),
        }
    }
}

/// A part's number: 0 for the shadow, a card's plus 1 for its driver.
pub fn number_of(part: Part) -> u32 {
    part.nic().map_or(0, |nic| u32::from(nic.0) + 1)
}

/// The part of a number.
pub fn part_of(number: u32) -> Part {
    match number.checked_sub(1) {
        None => Part::Shadow,
        Some(number) => Part::Driver(NicId(u16::try_from(number).unwrap_or(u16::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_name_parts() {
        for part in [Part::Shadow, Part::Driver(NicId(0)), Part::Driver(NicId(7))] {
            assert_eq!(part_of(number_of(part)), part);
        }
    }

    #[test]
    fn a_place_on_the_ladder_comes_back() {
        let at = TimeNs(77);
        let new = Memory::of_new(Part::Driver(NicId(3)), TimeNs(5));
        let stages = [
            Stage::Down(at),
            Stage::Resetting(at),
            Stage::Starting,
            Stage::Running(at),
            Stage::Proven(at),
            Stage::Fencing,
            Stage::GivenUp(at),
        ];
        for stage in stages {
            for (rung, follows) in [
                (Rung::Restart, Follows::Start),
                (Rung::ResetDevice, Follows::Reset),
                (Rung::RestartAll, Follows::All),
                (Rung::RestartAll, Follows::GiveUp),
            ] {
                let memory = Memory {
                    incarnation: Incarnation(9),
                    attempt: Attempt(2),
                    strikes: 3,
                    probes: 4,
                    probing: true,
                    failing_since: Some(at),
                    last_success: Some(TimeNs(1)),
                    rung,
                    stage,
                    follows,
                    ..new
                };
                let record = PartRecord::decode(&PartRecord::of(&memory).encode_to_vec()[..]).unwrap();
                assert_eq!(record.memory(), memory);
            }
        }
    }

    #[test]
    fn what_an_older_vault_does_not_know_is_passed_over() {
        // Field 99 is unknown here.
        let decoded = ToVault::decode(&[0x9a, 0x06, 0x01, b'x'][..]).unwrap();
        assert_eq!(decoded.told, None);
    }
}
