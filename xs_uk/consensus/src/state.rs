//! What an engine says about itself, for health reports.

/// Whether entries get through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineHealth {
    /// Nothing waits longer than it should.
    #[default]
    Healthy,
    /// The engine answers late or not at all; entries may wait.
    Waiting {
        /// For how long.
        waited_ms: u64,
    },
    /// Too few members can be reached, or they have no leader.
    LostQuorum {
        /// For how long.
        waited_ms: u64,
    },
}

/// One of the processes that an engine is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineMember {
    /// How it is reached.
    pub endpoint: String,
    /// Whether it answered when it was last asked.
    pub reachable: bool,
    /// What it calls its version; empty if it never said.
    pub version: String,
    /// Whether it leads the others.
    pub is_leader: bool,
    /// Size of its data file.
    pub db_bytes: u64,
    /// What of it is in use.
    pub db_used_bytes: u64,
}

/// Something that an operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EngineWarning {
    /// A version with known faults that matter here.
    FaultyVersion {
        /// Who runs it.
        endpoint: String,
        /// The version.
        version: String,
        /// The first version of its line without them; empty if the line gets no repairs any more.
        repaired_in: &'static str,
    },
    /// The engine's space quota is used up: nothing can be appended until there is room.
    NoSpace,
    /// A member found its own data damaged.
    MemberCorrupt,
    /// Calls get no answer, or are refused.
    Failing {
        /// What the last one met.
        what: String,
    },
    /// The copy of the log was not the log's, or could not be gone on with; it is begun anew.
    CopyAnew {
        /// Why.
        what: String,
    },
    /// Making room failed.
    Maintenance {
        /// Why.
        what: String,
    },
}

impl std::fmt::Display for EngineWarning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::FaultyVersion { endpoint, version, repaired_in: "" } => {
                write!(f, "{endpoint} runs {version}, of a line that gets no repairs")
            }
            Self::FaultyVersion { endpoint, version, repaired_in } => {
                write!(f, "{endpoint} runs {version}, which has known faults; use {repaired_in} or later")
            }
            Self::NoSpace => f.write_str("the space quota is used up"),
            Self::MemberCorrupt => f.write_str("a member found its data damaged"),
            Self::Failing { what } => write!(f, "calls fail: {what}"),
            Self::CopyAnew { what } => write!(f, "the copy of the log is made anew: {what}"),
            Self::Maintenance { what } => write!(f, "making room failed: {what}"),
        }
    }
}

/// What a copy of the log lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyLag {
    /// Entries.
    pub entries: u64,
    /// Bytes that they take in the log.
    pub bytes: u64,
    /// For how long they have waited since the copy got something last.
    pub waited_ms: u64,
}

/// What an engine says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineState {
    /// Whether entries get through.
    pub health: EngineHealth,
    /// Entries handed to the members whose outcome is not known yet.
    pub in_flight: usize,
    /// Entries that wait for those.
    pub queued: usize,
    /// The members, as far as the engine has any.
    pub members: Vec<EngineMember>,
    /// The newest version seen among them.
    pub version: Option<String>,
    /// What an operator should know.
    pub warnings: Vec<EngineWarning>,
    /// How long the last committed append took, from handing it over to its answer.
    pub latency_us: Option<u64>,
    /// The newest snapshot that the engine keeps.
    pub snapshot: Option<crate::Index>,
    /// Whether one is being written.
    pub saving_snapshot: bool,
    /// What the engine lacks of a log that it follows, if it follows one.
    pub copy_lag: Option<CopyLag>,
}

/// What a reader mended since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repairs {
    /// Entries of which one copy was damaged.
    pub entries: u64,
    /// Header words of which one copy was damaged.
    pub words: u64,
}

/// What became of [`crate::Consensus::load_snapshot`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// The engine keeps none.
    Nothing,
    /// It is on its way: ask again when the engine wakes you.
    Pending,
    /// Here it is; the engine's cursor is now behind it.
    Snapshot {
        /// The place that it stands for.
        cursor: crate::Cursor,
        /// What was saved.
        bytes: Vec<u8>,
    },
}
