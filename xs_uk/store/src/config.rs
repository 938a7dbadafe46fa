//! The store's configuration: quotas with the names and defaults of the reference daemon, and its domains.

use prost::Message;
use xs_protocol::{DomId, ring::feature};

use crate::seal::seal_of;

/// What a quota limits. The order is that of GET_QUOTA's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(usize)]
pub enum Quota {
    /// Nodes that a domain owns.
    Nodes,
    /// Watches of a domain.
    Watches,
    /// Requests whose replies or events the domain has not taken; the shell's to keep.
    Outstanding,
    /// Bytes of a domain's nodes, watches and transactions; the shell adds what waits for delivery.
    Memory,
    /// Open transactions.
    Transactions,
    /// Distinct nodes touched in one transaction.
    TransactionNodes,
    /// Permission entries of a node.
    NodePermissions,
    /// Length of a path, without a leading `/local/domain/<domid>/`.
    PathMax,
    /// Bytes of a node: header, permissions, value and names of children.
    NodeSize,
}

/// Number of quotas.
pub const QUOTAS: usize = 9;

impl Quota {
    /// All quotas in order.
    pub const ALL: [Quota; QUOTAS] = [
        Quota::Nodes,
        Quota::Watches,
        Quota::Outstanding,
        Quota::Memory,
        Quota::Transactions,
        Quota::TransactionNodes,
        Quota::NodePermissions,
        Quota::PathMax,
        Quota::NodeSize,
    ];

    /// The name in GET_QUOTA, SET_QUOTA, CONTROL and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Quota::Nodes => "nodes",
            Quota::Watches => "watches",
            Quota::Outstanding => "outstanding",
            Quota::Memory => "memory",
            Quota::Transactions => "transactions",
            Quota::TransactionNodes => "transaction-nodes",
            Quota::NodePermissions => "node-permissions",
            Quota::PathMax => "path-max",
            Quota::NodeSize => "node-size",
        }
    }

    /// A line for humans.
    pub const fn description(self) -> &'static str {
        match self {
            Quota::Nodes => "Nodes owned by a domain",
            Quota::Watches => "Watches set by a domain",
            Quota::Outstanding => "Requests a domain may leave unanswered",
            Quota::Memory => "Bytes held for a domain",
            Quota::Transactions => "Transactions a domain may have open",
            Quota::TransactionNodes => "Nodes touched in one transaction",
            Quota::NodePermissions => "Permission entries of a node",
            Quota::PathMax => "Length of a path",
            Quota::NodeSize => "Bytes of a node",
        }
    }

    /// The quota of a name.
    pub fn from_name(name: &[u8]) -> Option<Quota> {
        Self::ALL.into_iter().find(|quota| quota.name().as_bytes() == name)
    }
}

/// Quota values; 0 means unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quotas {
    hard: [u32; QUOTAS],
    /// Bytes of [`Quota::Memory`] above which the shell warns.
    pub soft_memory_bytes: u32,
}

impl Default for Quotas {
    fn default() -> Self {
        Quotas { hard: [1000, 128, 20, 2560 * 1024, 10, 1024, 5, 2048, 2048], soft_memory_bytes: 2048 * 1024 }
    }
}

impl Quotas {
    /// The limit; 0 is none.
    pub const fn get(&self, quota: Quota) -> u32 {
        self.hard[quota as usize]
    }

    /// Sets a limit; 0 is none.
    pub const fn set(&mut self, quota: Quota, value: u32) {
        self.hard[quota as usize] = value;
    }

    /// Whether `value` is over the limit. A value equal to the limit is allowed, as the names promise.
    pub const fn exceeded(&self, quota: Quota, value: u64) -> bool {
        let limit = self.get(quota);
        limit != 0 && value > limit as u64
    }

    pub(crate) fn to_wire(self) -> WireQuotas {
        WireQuotas { hard: self.hard.to_vec(), soft_memory_bytes: self.soft_memory_bytes }
    }

    pub(crate) fn from_wire(wire: &WireQuotas) -> Quotas {
        let mut quotas = Quotas { soft_memory_bytes: wire.soft_memory_bytes, ..Quotas::default() };
        for (slot, value) in quotas.hard.iter_mut().zip(&wire.hard) {
            *slot = *value;
        }
        quotas
    }
}

/// The configuration of a store. It is part of the log and of snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Quotas that new domains get.
    pub quotas: Quotas,
    /// Nodes of a dead domain stay and go to the privileged domain (`--keep-orphans`).
    pub keep_orphans: bool,
    /// Bits of `xs_protocol::ring::feature` that the daemon offers.
    pub features: u32,
    /// The domain that the daemon runs in: base of relative paths of socket clients.
    pub store_domid: DomId,
    /// The domain that is privileged besides domain 0.
    pub privileged_domid: DomId,
    /// Permissions name only domains that are known, see [`crate::EntryRef::DomainKnown`]; entries for others have no
    /// effect. False in logs and snapshots of older programs, where naming a domain made it known.
    pub only_known: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            quotas: Quotas::default(),
            keep_orphans: false,
            features: feature::ALL,
            store_domid: DomId(0),
            privileged_domid: DomId(0),
            only_known: true,
        }
    }
}

impl Config {
    /// Whether a domain may do everything.
    pub fn is_privileged(&self, domid: DomId) -> bool {
        domid == DomId(0) || domid == self.privileged_domid
    }

    /// A checksum of it.
    pub(crate) fn seal(&self) -> u64 {
        let ids = u64::from(self.store_domid.0) << 16 | u64::from(self.privileged_domid.0);
        let bits = u64::from(self.features) << 1 | u64::from(self.keep_orphans);
        let mut numbers = [0; 3 + QUOTAS];
        numbers[..3].copy_from_slice(&[ids, bits, self.quotas.soft_memory_bytes.into()]);
        for (slot, quota) in numbers[3..].iter_mut().zip(Quota::ALL) {
            *slot = self.quotas.get(quota).into();
        }
        seal_of(&numbers)
    }

    pub(crate) fn to_wire(&self) -> WireConfig {
        WireConfig {
            quotas: Some(self.quotas.to_wire()),
            keep_orphans: self.keep_orphans,
            features: self.features,
            store_domid: self.store_domid.0.into(),
            privileged_domid: self.privileged_domid.0.into(),
            only_known: self.only_known,
        }
    }

    /// `None` if a domain id is out of range.
    pub(crate) fn from_wire(wire: &WireConfig) -> Option<Config> {
        Some(Config {
            quotas: wire.quotas.as_ref().map_or_else(Quotas::default, Quotas::from_wire),
            keep_orphans: wire.keep_orphans,
            features: wire.features,
            store_domid: DomId(wire.store_domid.try_into().ok()?),
            privileged_domid: DomId(wire.privileged_domid.try_into().ok()?),
            only_known: wire.only_known,
        })
    }
}

/// Saved form of [`Quotas`].
#[derive(Clone, PartialEq, Message)]
pub(crate) struct WireQuotas {
    #[prost(uint32, repeated, tag = "1")]
    pub hard: Vec<u32>,
    #[prost(uint32, tag = "2")]
    pub soft_memory_bytes: u32,
}

/// Saved form of [`Config`].
#[derive(Clone, PartialEq, Message)]
pub(crate) struct WireConfig {
    #[prost(message, optional, tag = "1")]
    pub quotas: Option<WireQuotas>,
    #[prost(bool, tag = "2")]
    pub keep_orphans: bool,
    #[prost(uint32, tag = "3")]
    pub features: u32,
    #[prost(uint32, tag = "4")]
    pub store_domid: u32,
    #[prost(uint32, tag = "5")]
    pub privileged_domid: u32,
    #[prost(bool, tag = "6")]
    pub only_known: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_itself_is_allowed() {
        let mut quotas = Quotas::default();
        assert!(!quotas.exceeded(Quota::Watches, 128) && quotas.exceeded(Quota::Watches, 129));
        quotas.set(Quota::Watches, 0);
        assert!(!quotas.exceeded(Quota::Watches, u64::MAX));
    }

    #[test]
    fn names_round_trip() {
        for quota in Quota::ALL {
            assert_eq!(Quota::from_name(quota.name().as_bytes()), Some(quota));
        }
        assert_eq!(Quota::from_name(b"entries"), None);
    }

    #[test]
    fn wire_round_trip() {
        let mut config = Config { keep_orphans: true, store_domid: DomId(3), ..Config::default() };
        config.quotas.set(Quota::NodeSize, 7);
        assert_eq!(Config::from_wire(&config.to_wire()), Some(config));
    }
}
