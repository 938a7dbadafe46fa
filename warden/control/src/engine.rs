//! What the leading replica tells of the engine that keeps its log. Field numbers are never re-used.

use prost::{Enumeration, Message};

/// How the engine fares, as the replica that leads, or is about to, sees it.
#[derive(Clone, PartialEq, Message)]
pub struct Engine {
    /// Which engine it is.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Whether entries get through.
    #[prost(enumeration = "EngineHealth", tag = "2")]
    pub health: i32,
    /// For how long nothing got through although something waits, or nobody has answered, in milliseconds.
    #[prost(uint64, tag = "3")]
    pub waited_ms: u64,
    /// How long the last append took, in microseconds.
    #[prost(uint64, optional, tag = "4")]
    pub latency_us: Option<u64>,
    /// The newest version among the members; empty if there are none.
    #[prost(string, tag = "5")]
    pub version: String,
    /// The members of its cluster, if it has one.
    #[prost(message, repeated, tag = "6")]
    pub members: Vec<EngineMember>,
    /// What an operator should know.
    #[prost(message, repeated, tag = "7")]
    pub warnings: Vec<EngineWarning>,
    /// Acknowledged entries that it does not have yet; none if it has every entry first.
    #[prost(uint64, optional, tag = "8")]
    pub lag_entries: Option<u64>,
    /// For how long they have waited since it got something last, in milliseconds.
    #[prost(uint64, optional, tag = "9")]
    pub lag_ms: Option<u64>,
}

/// Whether entries get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum EngineHealth {
    /// Nothing waits longer than it should.
    Healthy = 0,
    /// It answers late, or not at all.
    Slow = 1,
    /// Too few members can be reached, or they have no leader.
    NoQuorum = 2,
    /// Its space quota is used up.
    NoSpace = 3,
}

/// A member of the engine's cluster.
#[derive(Clone, PartialEq, Message)]
pub struct EngineMember {
    /// How it is reached.
    #[prost(string, tag = "1")]
    pub endpoint: String,
    /// Whether it answered when it was last asked.
    #[prost(bool, tag = "2")]
    pub reachable: bool,
    /// Its version; empty if it never said.
    #[prost(string, tag = "3")]
    pub version: String,
    /// Whether it leads the others.
    #[prost(bool, tag = "4")]
    pub leads: bool,
    /// Size of its data file.
    #[prost(uint64, tag = "5")]
    pub db_bytes: u64,
    /// What of it is in use.
    #[prost(uint64, tag = "6")]
    pub db_used_bytes: u64,
}

/// Something that an operator should know.
#[derive(Clone, PartialEq, Message)]
pub struct EngineWarning {
    /// One of a fixed set of short names, such as `faulty_version`.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// For people.
    #[prost(string, tag = "2")]
    pub detail: String,
}
