//! The messages of a snapshot.

use prost::Message;

use crate::config::{WireConfig, WireQuotas};

#[derive(Clone, PartialEq, Message)]
pub(super) struct WireStore {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    #[prost(uint64, tag = "2")]
    pub index: u64,
    #[prost(message, optional, tag = "3")]
    pub config: Option<WireConfig>,
    #[prost(message, repeated, tag = "4")]
    pub acls: Vec<WireAcl>,
    #[prost(message, repeated, tag = "5")]
    pub nodes: Vec<WireNode>,
    #[prost(message, optional, tag = "6")]
    pub tree: Option<WireTree>,
    #[prost(message, repeated, tag = "7")]
    pub domains: Vec<WireDomain>,
    #[prost(message, repeated, tag = "8")]
    pub connections: Vec<WireConnection>,
    #[prost(uint64, tag = "9")]
    pub next_watch_id: u64,
    #[prost(uint64, tag = "10")]
    pub changed_index: u64,
    #[prost(uint32, tag = "11")]
    pub log_switches: u32,
    #[prost(uint64, repeated, tag = "12")]
    pub max: Vec<u64>,
    #[prost(uint64, tag = "13")]
    pub replaced_bytes: u64,
    /// The sum over all messages that were ever queued; missing in snapshots of older programs.
    #[prost(bytes = "vec", tag = "14")]
    pub outputs: Vec<u8>,
    /// The root; missing in snapshots of older programs.
    #[prost(bytes = "vec", tag = "15")]
    pub root: Vec<u8>,
}

/// Permission entries: domain id, access in bits 16 and 17, ignored in bit 18.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub(super) struct WireAcl {
    #[prost(uint32, repeated, tag = "1")]
    pub grants: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct WireNode {
    #[prost(bytes = "vec", tag = "1")]
    pub value: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub acl: u32,
    #[prost(uint64, tag = "3")]
    pub generation: u64,
    #[prost(uint64, tag = "4")]
    pub acl_generation: u64,
    #[prost(string, repeated, tag = "5")]
    pub names: Vec<String>,
    #[prost(uint64, repeated, tag = "6")]
    pub children: Vec<u64>,
    /// The children's creation numbers; missing in snapshots of older programs.
    #[prost(uint64, repeated, tag = "7")]
    pub numbers: Vec<u64>,
}

/// Places in the table of nodes.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct WireTree {
    #[prost(uint64, tag = "1")]
    pub root: u64,
    #[prost(uint64, tag = "2")]
    pub introduce_domain: u64,
    #[prost(uint64, tag = "3")]
    pub release_domain: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct WireDomain {
    #[prost(uint32, tag = "1")]
    pub domid: u32,
    #[prost(uint64, tag = "2")]
    pub generation: u64,
    #[prost(bool, tag = "3")]
    pub introduced: bool,
    #[prost(bool, tag = "4")]
    pub shutdown: bool,
    #[prost(uint64, tag = "5")]
    pub gfn: u64,
    #[prost(uint32, tag = "6")]
    pub port: u32,
    #[prost(uint64, optional, tag = "7")]
    pub conn: Option<u64>,
    #[prost(uint32, tag = "8")]
    pub features: u32,
    #[prost(message, optional, tag = "9")]
    pub quotas: Option<WireQuotas>,
    #[prost(uint64, tag = "10")]
    pub nodes: u64,
    #[prost(uint64, tag = "11")]
    pub node_bytes: u64,
    #[prost(uint64, repeated, tag = "12")]
    pub max: Vec<u64>,
    /// The hypervisor's handle; missing in snapshots of older programs.
    #[prost(bytes = "vec", tag = "13")]
    pub handle: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct WireConnection {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// The domain; none for a socket.
    #[prost(uint32, optional, tag = "2")]
    pub peer: Option<u32>,
    #[prost(uint32, tag = "3")]
    pub domid: u32,
    #[prost(bool, tag = "4")]
    pub privileged: bool,
    #[prost(uint64, tag = "5")]
    pub generation: u64,
    #[prost(uint32, optional, tag = "6")]
    pub target: Option<u32>,
    #[prost(uint64, tag = "7")]
    pub target_generation: u64,
    #[prost(uint32, tag = "8")]
    pub features: u32,
    #[prost(uint64, tag = "9")]
    pub last_seq: u64,
    #[prost(uint32, tag = "10")]
    pub next_tx_id: u32,
    #[prost(bool, tag = "11")]
    pub ignored: bool,
    #[prost(message, repeated, tag = "12")]
    pub watches: Vec<WireWatch>,
    #[prost(message, repeated, tag = "13")]
    pub transactions: Vec<WireTransaction>,
    #[prost(uint64, tag = "14")]
    pub last_ordinal: u64,
    #[prost(message, repeated, tag = "15")]
    pub outbox: Vec<WireMessage>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct WireWatch {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(string, tag = "2")]
    pub path: String,
    #[prost(bytes = "vec", tag = "3")]
    pub token: Vec<u8>,
    #[prost(uint32, optional, tag = "4")]
    pub depth: Option<u32>,
    #[prost(uint64, tag = "5")]
    pub prefix_len: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct WireMessage {
    #[prost(uint64, tag = "1")]
    pub ordinal: u64,
    #[prost(bool, tag = "2")]
    pub event: bool,
    #[prost(bytes = "vec", tag = "3")]
    pub bytes: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct WireTransaction {
    #[prost(uint32, tag = "1")]
    pub id: u32,
    #[prost(uint64, tag = "2")]
    pub base_version: u64,
    #[prost(message, optional, tag = "3")]
    pub tree: Option<WireTree>,
    #[prost(message, repeated, tag = "4")]
    pub deltas: Vec<WireDelta>,
    #[prost(message, repeated, tag = "5")]
    pub records: Vec<WireRecord>,
    #[prost(uint64, tag = "6")]
    pub bytes: u64,
    #[prost(string, repeated, tag = "7")]
    pub touched: Vec<String>,
    #[prost(message, repeated, tag = "8")]
    pub recent_reads: Vec<WireRecord>,
    #[prost(message, repeated, tag = "9")]
    pub changes: Vec<WireChange>,
    #[prost(bool, tag = "10")]
    pub failed: bool,
    #[prost(uint64, tag = "11")]
    pub base_replaced_bytes: u64,
    #[prost(bool, tag = "12")]
    pub detached: bool,
    #[prost(string, optional, tag = "13")]
    pub conflict: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct WireDelta {
    #[prost(uint32, tag = "1")]
    pub domid: u32,
    #[prost(sint64, tag = "2")]
    pub nodes: i64,
    #[prost(sint64, tag = "3")]
    pub bytes: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct WireRecord {
    #[prost(uint64, tag = "1")]
    pub generation: u64,
    #[prost(uint32, tag = "2")]
    pub kind: u32,
    #[prost(bytes = "vec", tag = "3")]
    pub payload: Vec<u8>,
    #[prost(bool, tag = "4")]
    pub error: bool,
    #[prost(uint32, tag = "5")]
    pub len: u32,
    #[prost(bytes = "vec", tag = "6")]
    pub data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct WireChange {
    #[prost(string, tag = "1")]
    pub path: String,
    #[prost(message, optional, tag = "2")]
    pub before: Option<WireView>,
    #[prost(message, optional, tag = "3")]
    pub after: Option<WireView>,
    #[prost(message, optional, tag = "4")]
    pub parent: Option<WireView>,
    #[prost(uint64, optional, tag = "5")]
    pub removed: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct WireView {
    #[prost(uint32, tag = "1")]
    pub acl: u32,
    #[prost(uint64, tag = "2")]
    pub acl_generation: u64,
}
