//! What the shell has to do or know after an entry was applied.

use xs_protocol::DomId;

use crate::{ConnId, Quota};

/// A consequence of an applied entry outside of the store. Every replica computes them, the leader acts on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The connection's outbox grew. At most once for each connection and entry.
    Output(ConnId),
    /// The connection is gone from the store; close it. Its outbox is gone too.
    Close(ConnId),
    /// The connection started anew: forget partly read and partly sent messages. Its outbox is empty.
    Reset(ConnId),
    /// The domain was released or is gone; unbind its event channel and unmap its page.
    Unmap(DomId),
    /// The domain was introduced, or introduced again with another event channel.
    Introduced(DomId),
    /// A request of the domain failed at a quota.
    QuotaHit {
        /// The domain.
        domid: DomId,
        /// The quota.
        quota: Quota,
    },
    /// The connection does not take its events: decide on `DiscardEvents` or `Disconnect`.
    Backlog {
        /// The connection.
        conn: ConnId,
        /// Bytes of events in its outbox of this replica.
        event_bytes: usize,
    },
    /// One entry caused more events for the connection than it may; the rest was dropped.
    EventsDropped(ConnId),
    /// A commit of a privileged client was refused with `EAGAIN`.
    Conflict {
        /// The client.
        conn: ConnId,
        /// Log index of the last change that its transaction saw: what came after it is to blame.
        since: u64,
        /// The path whose answer was another one at the commit.
        path: Box<str>,
    },
    /// A CONTROL command for the shell: `log`, `logfile`, `memreport` or `print` with its arguments.
    Control(Vec<String>),
    /// A fact worth a line in the log.
    Log(String),
}
