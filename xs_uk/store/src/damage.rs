//! What does not fit its digest.

use std::fmt;

use sanity::plan::Harm;

/// A part of the state. The first ones are what verification can tell apart, the others are what
/// [`crate::Store::locate`] finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// A node's content or its stored digest; or a pointer led to another node.
    Node,
    /// The list of a node's children.
    Listing,
    /// The sums, counts and marks over a node and all below it.
    Sum,
    /// What is known of a connection: who it is.
    Connection,
    /// What is known of a domain: generation, privileges, quotas.
    Domain,
    /// The watches on a path and above it.
    Watch,
    /// An open transaction: its requests, their answers, and what it counts.
    Transaction,
    /// A reply or an event that waits for a client.
    Outbox,
    /// The configuration.
    Config,
    /// The value.
    Value,
    /// The name in the parent's list.
    Name,
    /// The permission entries.
    Perms,
    /// The stored digest.
    Digest,
    /// The pointer to the node in its parent's list.
    Pointer,
    /// The generation.
    Generation,
}

impl Part {
    /// All parts.
    pub const ALL: [Part; 15] = [
        Part::Node,
        Part::Listing,
        Part::Sum,
        Part::Connection,
        Part::Domain,
        Part::Watch,
        Part::Transaction,
        Part::Outbox,
        Part::Config,
        Part::Value,
        Part::Name,
        Part::Perms,
        Part::Digest,
        Part::Pointer,
        Part::Generation,
    ];

    /// The name for people and command lines.
    pub const fn name(self) -> &'static str {
        match self {
            Part::Node => "node",
            Part::Listing => "listing",
            Part::Sum => "sum",
            Part::Connection => "connection",
            Part::Domain => "domain",
            Part::Watch => "watch",
            Part::Transaction => "transaction",
            Part::Outbox => "outbox",
            Part::Config => "config",
            Part::Value => "value",
            Part::Name => "name",
            Part::Perms => "perms",
            Part::Digest => "digest",
            Part::Pointer => "pointer",
            Part::Generation => "generation",
        }
    }

    /// The part of a name.
    pub fn from_name(name: &str) -> Option<Part> {
        Self::ALL.into_iter().find(|part| part.name() == name)
    }

    /// Whether a copy of the node can put it right in place. A pointer to a wrong node is seen as [`Part::Node`]; mending
    /// then refuses.
    pub const fn harm(self) -> Harm {
        match self {
            Part::Node | Part::Value | Part::Perms | Part::Digest | Part::Generation => Harm::Content,
            Part::Listing
            | Part::Sum
            | Part::Name
            | Part::Pointer
            | Part::Connection
            | Part::Domain
            | Part::Watch
            | Part::Transaction
            | Part::Outbox
            | Part::Config => Harm::Structure,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Something that does not fit its digest. No answer that depends on it may be let out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("damaged {part} at {path}")]
pub struct Damage {
    /// Where: the path of the node as it was walked to; of a watch that of the event; a connection (with its
    /// outbox and transactions) or domain by its number.
    pub path: String,
    /// What.
    pub part: Part,
}

impl Damage {
    pub(crate) fn new(path: &str, part: Part) -> Damage {
        Damage { path: path.to_owned(), part }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for part in Part::ALL {
            assert_eq!(Part::from_name(part.name()), Some(part));
        }
        assert_eq!(Part::from_name("all"), None);
        let damage = Damage::new("/a", Part::Listing);
        assert_eq!(damage.to_string(), "damaged listing at /a");
    }
}
