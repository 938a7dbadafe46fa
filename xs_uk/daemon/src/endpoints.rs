//! What the gateway and the leader say to each other. Protobuf; field numbers are never re-used.
//!
//! ```text
//!   gateway                                leader, after its death its heir
//!     Clients* EventChannels? Complete  ->        everything that the gateway holds
//!                                       <-  Clients*, EventChannels   what a new gateway lacks
//!                                       <-  Closed*, Complete         what it holds for nothing
//!                                       <-  Clients                   new clients that stayed
//!                                       <-  Closed                    of those, connections that ended
//!                                       <-  Clients                   from the heir: what the gateway lacked
//! ```
//!
//! A client from the heir without a connection id (0) was accepted and has no slot yet.

use prost::{Message, Oneof};

/// One message, in either direction.
#[derive(Clone, PartialEq, Message)]
pub struct Endpoints {
    /// What it says.
    #[prost(oneof = "Said", tags = "1, 2, 3, 4")]
    pub said: Option<Said>,
}

/// The kinds of messages.
#[derive(Clone, PartialEq, Oneof)]
pub enum Said {
    /// Client sockets. Descriptors: one for each connection id.
    #[prost(message, tag = "1")]
    Clients(Connections),
    /// The handles of the event-channel device. Descriptors: as many as its kind has.
    #[prost(bool, tag = "2")]
    EventChannels(bool),
    /// That was all.
    #[prost(bool, tag = "3")]
    Complete(bool),
    /// These connections ended; let their descriptors go.
    #[prost(message, tag = "4")]
    Closed(Connections),
}

/// Connections by their ids (see `xs_shm::Table`).
#[derive(Clone, PartialEq, Message)]
pub struct Connections {
    /// The ids.
    #[prost(uint64, repeated, tag = "1")]
    pub ids: Vec<u64>,
}

impl Endpoints {
    /// Wraps a kind.
    pub fn new(said: Said) -> Self {
        Self { said: Some(said) }
    }

    /// [`Said::Clients`].
    pub fn clients(ids: Vec<u64>) -> Self {
        Self::new(Said::Clients(Connections { ids }))
    }

    /// [`Said::Closed`].
    pub fn closed(ids: Vec<u64>) -> Self {
        Self::new(Said::Closed(Connections { ids }))
    }
}
