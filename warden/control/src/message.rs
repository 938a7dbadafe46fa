//! The messages, as protobuf. Field numbers are never re-used.

use prost::{Enumeration, Message, Oneof};

/// An order of the warden to a service.
#[derive(Clone, PartialEq, Message)]
pub struct ToService {
    /// What to do.
    #[prost(oneof = "to_service::Order", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10")]
    pub order: Option<to_service::Order>,
}

/// The kinds of orders.
pub mod to_service {
    use super::*;

    /// One order.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Order {
        /// First order after the start.
        #[prost(message, tag = "1")]
        Begin(Begin),
        /// To a replica: become the leader. Descriptors: the link to the gateway.
        #[prost(message, tag = "2")]
        Lead(Lead),
        /// To the gateway: a new leader. Descriptors: the link to the leader.
        #[prost(message, tag = "3")]
        LeaderChanged(LeaderChanged),
        /// To a follower: take a snapshot of your state and send it.
        #[prost(bool, tag = "4")]
        TakeSnapshot(bool),
        /// Finish what is under way and exit with status 0.
        #[prost(bool, tag = "5")]
        Stop(bool),
        /// To the leader: a snapshot is kept; entries up to the older one may be overwritten.
        #[prost(message, tag = "6")]
        SnapshotKept(SnapshotKept),
        /// Answer to [`Hello`]: a new warden keeps the service from here on.
        #[prost(bool, tag = "7")]
        Adopted(bool),
        /// To every service: hold copies of these descriptors too, in place of those that have their names. A snapshot
        /// that is not told of is held no longer.
        #[prost(message, tag = "8")]
        Hold(Begin),
        /// To a gateway that starts: clients of the one before it. Descriptors: one for each id.
        #[prost(message, tag = "9")]
        Clients(Connections),
        /// To a replica: tell where a part of a live node lies in your memory, so that a fault can be injected there.
        #[prost(message, tag = "10")]
        Locate(Locate),
    }
}

/// First order: who the service is, and the descriptors that the warden keeps for it.
#[derive(Clone, PartialEq, Message)]
pub struct Begin {
    /// Number of the replica from 0; 0 for the gateway.
    #[prost(uint32, tag = "1")]
    pub replica: u32,
    /// Names of the descriptors that come with this packet, in their order.
    #[prost(string, repeated, tag = "2")]
    pub names: Vec<String>,
    /// How often this service was started, from 1.
    #[prost(uint64, tag = "3")]
    pub incarnation: u64,
    /// What is in the descriptor named [`crate::names::SNAPSHOT`], if there is one in this packet.
    #[prost(message, optional, tag = "4")]
    pub snapshot: Option<SnapshotTaken>,
    /// The socket at which a successor of this warden waits for services that it is to adopt; empty: there is none.
    #[prost(string, tag = "5")]
    pub adopt_path: String,
    /// What is in the descriptor named [`crate::names::SNAPSHOT_OLDER`], if there is one in this packet.
    #[prost(message, optional, tag = "6")]
    pub snapshot_older: Option<SnapshotTaken>,
}

/// Client connections by their ids (`xs_shm::Table`).
#[derive(Clone, PartialEq, Message)]
pub struct Connections {
    /// The ids.
    #[prost(uint64, repeated, tag = "1")]
    pub ids: Vec<u64>,
}

/// Become the leader of `epoch`. A leader that gets the epoch it leads has got a new gateway. Each `Lead` is
/// answered by a [`Leading`].
#[derive(Clone, PartialEq, Message)]
pub struct Lead {
    /// The fence: greater than every earlier epoch.
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
}

/// The leader of `epoch` waits at the other end of the descriptor in this packet.
#[derive(Clone, PartialEq, Message)]
pub struct LeaderChanged {
    /// The leader's epoch.
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
}

/// The warden keeps these snapshots.
#[derive(Clone, PartialEq, Message)]
pub struct SnapshotKept {
    /// Last applied log index in the newest one, which a fresh replica gets.
    #[prost(uint64, tag = "1")]
    pub newest_index: u64,
    /// Last applied log index in the one before it, 0 if there is none; some replica may be starting from it.
    #[prost(uint64, tag = "2")]
    pub older_index: u64,
    /// `cursor` of the older one as its [`SnapshotTaken`] had it, or of the newest if there is none before it; the
    /// leader lets the log below it go.
    #[prost(bytes = "vec", tag = "3")]
    pub release_cursor: Vec<u8>,
    /// Length of the newest one.
    #[prost(uint64, tag = "4")]
    pub newest_length_bytes: u64,
}

/// A report of a service to the warden.
#[derive(Clone, PartialEq, Message)]
pub struct FromService {
    /// What is reported.
    #[prost(oneof = "from_service::Report", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13")]
    pub report: Option<from_service::Report>,
}

/// The kinds of reports.
pub mod from_service {
    use super::*;

    /// One report.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Report {
        /// The service can take orders.
        #[prost(message, tag = "1")]
        Ready(Ready),
        /// The replica serves as the leader.
        #[prost(message, tag = "2")]
        Leading(Leading),
        /// A snapshot. Descriptors: its memfd.
        #[prost(message, tag = "3")]
        SnapshotTaken(SnapshotTaken),
        /// The leader asks for a snapshot by a follower: the log is half full.
        #[prost(bool, tag = "4")]
        SnapshotWanted(bool),
        /// Keep these descriptors under the names given, and hand them to the next incarnation in [`Begin`].
        #[prost(message, tag = "5")]
        Keep(Begin),
        /// Something to be seen in the event stream.
        #[prost(message, tag = "6")]
        Noted(Noted),
        /// First words to a new warden. Descriptors: those of `kept`.
        #[prost(message, tag = "7")]
        Hello(Hello),
        /// Of the gateway: keep these clients for the next gateway. Descriptors: one for each id.
        #[prost(message, tag = "8")]
        Clients(Connections),
        /// Of the gateway: these clients need not be kept any more.
        #[prost(message, tag = "9")]
        ClientsClosed(Connections),
        /// Of a replica: another one is wrong.
        #[prost(message, tag = "10")]
        Mistrust(Mistrust),
        /// Of a replica: its own state is damaged and cannot be mended in place.
        #[prost(message, tag = "11")]
        Damaged(Damaged),
        /// Answer to [`Locate`].
        #[prost(message, tag = "12")]
        Located(Located),
        /// Of the replica that leads, or is about to: how its engine fares. Told when it changes, and now and then.
        #[prost(message, tag = "13")]
        Engine(crate::Engine),
    }
}

/// Where does a part of a node lie?
#[derive(Clone, PartialEq, Message)]
pub struct Locate {
    /// Number of the question.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// The node's path.
    #[prost(string, tag = "2")]
    pub path: String,
    /// The part's name, as `xs_store::Part` has it.
    #[prost(string, tag = "3")]
    pub part: String,
}

/// Where a part of a node lies.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Located {
    /// Number of the question.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// Its address in the replica's memory; 0 if there is no such part.
    #[prost(uint64, tag = "2")]
    pub address: u64,
    /// Its length.
    #[prost(uint64, tag = "3")]
    pub length_bytes: u64,
}

/// What a service that lost its warden says to the next one.
#[derive(Clone, PartialEq, Message)]
pub struct Hello {
    /// What the service is.
    #[prost(enumeration = "Role", tag = "1")]
    pub role: i32,
    /// Its number, incarnation and kept descriptors, as a successor of it would get them.
    #[prost(message, optional, tag = "2")]
    pub kept: Option<Begin>,
    /// Its process.
    #[prost(uint32, tag = "3")]
    pub pid: u32,
    /// Its last [`Ready`]; none if it is still starting.
    #[prost(message, optional, tag = "4")]
    pub ready: Option<Ready>,
    /// The epoch that it serves as the leader; 0 if it does not lead.
    #[prost(uint64, tag = "5")]
    pub leads_epoch: u64,
    /// How long it has been without a warden, in milliseconds.
    #[prost(uint64, tag = "6")]
    pub orphaned_ms: u64,
}

/// What a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum Role {
    /// Owns the endpoints.
    Gateway = 0,
    /// Keeps the store.
    Replica = 1,
    /// A member of an engine's own cluster.
    Member = 2,
}

/// A replica found another one wrong.
#[derive(Clone, PartialEq, Message)]
pub struct Mistrust {
    /// The other one's number.
    #[prost(uint32, tag = "1")]
    pub replica: u32,
    /// The log index behind which their states differ.
    #[prost(uint64, tag = "2")]
    pub index: u64,
    /// For people.
    #[prost(string, tag = "3")]
    pub why: String,
}

/// A replica found itself wrong.
#[derive(Clone, PartialEq, Message)]
pub struct Damaged {
    /// Its last applied log index.
    #[prost(uint64, tag = "1")]
    pub index: u64,
    /// For people.
    #[prost(string, tag = "2")]
    pub why: String,
}

/// The service can take orders.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Ready {
    /// A replica's last applied log index; 0 for the gateway.
    #[prost(uint64, tag = "1")]
    pub applied: u64,
    /// A replica's promise to move its heartbeat on the board at least this often, in milliseconds, also when it is
    /// idle; then the warden ends it when it hangs. 0: no promise, not watched.
    #[prost(uint32, tag = "2")]
    pub heartbeat_ms: u32,
    /// The process that injected faults are for, if it is another one than the service's own. May be told again.
    #[prost(uint32, tag = "3")]
    pub pid: u32,
}

/// The replica took over and serves.
#[derive(Clone, PartialEq, Message)]
pub struct Leading {
    /// The epoch it leads.
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    /// Its last applied log index.
    #[prost(uint64, tag = "2")]
    pub applied: u64,
    /// Microseconds from the order to lead to the first moment of service.
    #[prost(uint64, tag = "3")]
    pub takeover_us: u64,
    /// Client connections taken over.
    #[prost(uint32, tag = "4")]
    pub connections: u32,
    /// Guest rings taken over.
    #[prost(uint32, tag = "5")]
    pub rings: u32,
}

/// A snapshot of the state at a log index.
#[derive(Clone, PartialEq, Message)]
pub struct SnapshotTaken {
    /// Last applied log index in it.
    #[prost(uint64, tag = "1")]
    pub index: u64,
    /// Its length in the memfd.
    #[prost(uint64, tag = "2")]
    pub length_bytes: u64,
    /// Its place in the log, as the engine encodes it; opaque to the warden.
    #[prost(bytes = "vec", tag = "3")]
    pub cursor: Vec<u8>,
}

/// Something to be seen in the event stream.
#[derive(Clone, PartialEq, Message)]
pub struct Noted {
    /// How bad it is.
    #[prost(enumeration = "Severity", tag = "1")]
    pub severity: i32,
    /// What happened, one of a fixed set of short names, such as `quota_hit`.
    #[prost(string, tag = "2")]
    pub kind: String,
    /// For people.
    #[prost(string, tag = "3")]
    pub detail: String,
    /// The log entry that [`crate::notes::LOG_DAMAGED`] or the snapshot that [`crate::notes::SNAPSHOT_DAMAGED`] is about.
    #[prost(uint64, tag = "4")]
    pub index: u64,
}

/// How bad an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum Severity {
    /// Part of normal work.
    Info = 0,
    /// Worth a look.
    Warning = 1,
    /// A fault.
    Error = 2,
}
