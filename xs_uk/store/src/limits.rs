//! Bounds of the state machine. Guests are bounded by their quotas as well; these hold for everybody.

/// Most connections at a time; a further one is closed at once.
pub const CONNECTIONS_MAX: usize = 40_000;
/// Most watches of a privileged connection (guests: quota `watches`).
pub const PRIVILEGED_WATCHES_MAX: usize = 1 << 17;
/// Most open transactions of a privileged connection (guests: quota `transactions`).
pub const PRIVILEGED_TRANSACTIONS_MAX: usize = 1024;
/// Most distinct nodes that a transaction of a privileged connection may touch (guests: quota `transaction-nodes`).
pub const PRIVILEGED_TRANSACTION_NODES_MAX: usize = 1 << 18;
/// Most requests recorded in one transaction of a guest.
pub const GUEST_TRANSACTION_REQUESTS_MAX: usize = 4096;
/// Most requests recorded in one transaction of a privileged connection. A commit executes all of them again at once: at a
/// few us each, everybody else waits for so long, and the warden takes half a second for a hang.
pub const PRIVILEGED_TRANSACTION_REQUESTS_MAX: usize = 1 << 15;
/// Most bytes of requests recorded in one transaction of a privileged connection (guests: quota `memory`).
pub const PRIVILEGED_TRANSACTION_BYTES_MAX: usize = 256 << 20;
/// Bytes that a recorded request counts besides its payload.
pub const RECORD_OVERHEAD_BYTES: usize = 112;
/// Bytes that a node touched in a transaction counts besides its path: its private copy.
pub const TOUCHED_OVERHEAD_BYTES: usize = 128;
/// Bytes that a node counts which a request in a transaction created, each time: an earlier one may be kept for the events.
pub const CREATED_OVERHEAD_BYTES: usize = 320;
/// Levels of a watch's path that count no more than their bytes. Common watches have fewer.
pub const WATCH_DEPTH_FREE: usize = 16;
/// Bytes that each further level counts: its place in the trie, which may be this watch's alone.
pub const WATCH_PLACE_BYTES: usize = 400;
/// Bytes of replaced and removed nodes that open transactions may keep alive, all together. A transaction that began
/// before that much was replaced lets its tree go, and gets another one with its next request.
pub const RETAINED_BYTES_MAX: u64 = 64 << 20;
/// How often the store looks for such transactions, in bytes that were replaced.
pub const RETAINED_STEP_BYTES: u64 = 8 << 20;
/// Bytes that a change counts as replaced, besides what it removed: the old value, and copies of the nodes above.
pub const CHANGE_REPLACES_BYTES: u64 = 8 << 10;
/// Most nodes of the whole store.
pub const NODES_MAX: u64 = 1 << 22;
/// Most bytes (as the quota `memory` counts them) of all nodes together.
pub const NODE_BYTES_MAX: u64 = 1 << 30;
/// Domains that the host is asked for because a guest's request names them. A guest's permissions are fewer, unless its
/// quota was raised or taken away; what it names beyond has no effect.
pub const GUEST_STRANGERS_MAX: usize = 16;
/// Undelivered event bytes of a connection above which [`crate::Effect::Backlog`] tells the shell.
pub const BACKLOG_BYTES: usize = 1 << 20;
/// Undelivered event bytes of a privileged connection above which [`crate::Effect::Backlog`] tells the shell.
pub const PRIVILEGED_BACKLOG_BYTES: usize = 64 << 20;
/// Undelivered event bytes of a guest above which the shell drops them at once, whatever they are: a guest that reads
/// nothing, and another one that causes events for it, cannot use more.
pub const GUEST_BACKLOG_BYTES_MAX: usize = 4 << 20;
/// Undelivered event bytes of a connection above which identical events become one.
pub const COALESCE_BYTES: usize = 64 << 10;
/// Most event bytes that one log entry may queue for a guest; further events of that entry are dropped for it.
pub const ENTRY_EVENT_BYTES_MAX: usize = 1 << 20;
/// Most event bytes that one log entry may queue for a privileged connection.
pub const PRIVILEGED_ENTRY_EVENT_BYTES_MAX: usize = 64 << 20;
/// Removed nodes that one call of `apply` frees at least, so that a large removal stalls nobody.
pub const FREED_PER_APPLY_MIN: usize = 64;
/// The share of all removed nodes that one call of `apply` frees besides: one of so many.
pub const FREED_SHARE: u64 = 1024;
/// Nodes up to which a removal is small: more than one request can create. Small ones are freed about as fast as they can come.
pub const SMALL_REMOVAL_MAX: u64 = 2048;
/// The share of the nodes of small removals that one call of `apply` frees besides: one of so many.
pub const FREED_SMALL_SHARE: u64 = 4;
/// Requests of a transaction whose nodes [`crate::Store::examine`] verifies before a commit that executes them again.
pub const EXAMINED_RECORDS_MAX: usize = 256;
/// Children of a directory that cost a scrubber as much as a node.
pub const SCRUBBED_CHILDREN_PER_NODE: usize = 16;
/// Most permission entries of a [`crate::NodeCopy`].
pub const COPY_GRANTS_MAX: usize = xs_protocol::limits::PERMS_MAX + 1;
/// Most bytes of the value of a [`crate::NodeCopy`].
pub const COPY_VALUE_BYTES_MAX: usize = xs_protocol::PAYLOAD_MAX;
/// Most bytes of an encoded [`crate::NodeCopy`].
pub const COPY_BYTES_MAX: usize = 84 + 3 * COPY_GRANTS_MAX + COPY_VALUE_BYTES_MAX;
/// Children up to which a directory is a plain list.
pub const SMALL_DIRECTORY_MAX: usize = 16;
/// Most bytes of a log entry: a request with its framing, or a configuration.
pub const ENTRY_BYTES_MAX: usize = xs_protocol::MESSAGE_MAX + 64;

/// Domains that a request about domains can name.
pub const NAMED_DOMAINS_MAX: usize = 3;
