//! Bounds.

/// Domains that the broker keeps at once, domain 0 included, and the most that [`crate::DomainInfo::list`] returns.
pub const DOMAINS_MAX: usize = 1024;
/// Ports per domain; also the first port number that does not exist. As Xen's 2-level event channels on 64 bits.
pub const PORTS_MAX: u32 = 4096;
/// Event channel handles open at the broker at once.
pub const HANDLES_MAX: usize = 4096;
/// Connections to the broker at once.
pub const CLIENTS_MAX: usize = 2048;
/// First domid that is not a domain's (`DOMID_FIRST_RESERVED` in `xen/include/public/xen.h`).
pub const DOMID_FIRST_RESERVED: u16 = 0x7ff0;
/// Bytes of one message to or from the broker. A full domain list must fit.
pub const MESSAGE_BYTES_MAX: usize = 128 * 1024;
/// Descriptors in one message to or from the broker.
pub const MESSAGE_FDS_MAX: usize = 4;
/// How long a client waits for the broker's answer, in milliseconds.
pub const BROKER_ANSWER_MS: u64 = 5_000;
/// Answers with an unknown number that a client passes over before it gives up on its connection.
pub const STALE_ANSWERS_MAX: usize = 16;
/// Ports taken from `/dev/xen/evtchn` by one read.
pub const PORTS_PER_READ: usize = 64;
/// Peers whose event pages one handle keeps mapped; past it all are dropped and fetched again when needed.
pub const PEERS_CACHED_MAX: usize = 2048;
/// Events that the broker takes from epoll at once.
pub const EPOLL_EVENTS_MAX: usize = 64;
/// Copies of granted pages in one call.
pub const GRANT_COPIES_MAX: usize = 256;
/// Pages of memory of a simulated domain: 16 MiB, of which only what is used takes room.
pub const MEMORY_PAGES: u32 = 4096;
/// Entries of a simulated domain's grant table: 16 pages of them, as a table of version 1.
pub const GRANTS_MAX: u32 = 8192;
/// Domains whose memory a backend keeps mapped; past it all are dropped and fetched again when needed.
pub const MEMORIES_CACHED_MAX: usize = 256;
