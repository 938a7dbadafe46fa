//! What the store knows of domains, and what they use.

use std::{
    collections::BTreeMap,
    ops::{Deref, DerefMut},
};

use xs_protocol::DomId;

use crate::{
    Config, ConnId, Damage, Part, Quota, Quotas, config::QUOTAS, entry::HANDLE_BYTES, seal::seal_of,
    twin::Twin,
};

/// A domain. It is known from its introduction, or from the first time that somebody names it in permissions or sets
/// its quota while it exists, as the toolstack does before it introduces a domain.
#[derive(Clone, Debug)]
pub(crate) struct Domain {
    /// Log index at which it became known. Permissions set before that grant it nothing.
    pub generation: u64,
    /// The hypervisor's handle of it; all zero if it has none or it was not asked for.
    pub handle: [u8; HANDLE_BYTES],
    /// No quota limits it.
    pub privileged: bool,
    pub introduced: bool,
    /// Its shutdown was reported, and no RESUME came since.
    pub shutdown: bool,
    pub gfn: u64,
    pub port: u32,
    pub conn: Option<ConnId>,
    pub features: u32,
    pub quotas: Quotas,
    pub nodes: u64,
    pub node_bytes: u64,
    /// Bytes of its connection's watches and transactions.
    pub held_bytes: u64,
    /// The most seen of each quota.
    pub max: [u64; QUOTAS],
    /// Its number, which its key in the map has to be.
    pub domid: DomId,
    /// A checksum of what decides what it may do. `max`, which is only told, is not covered.
    pub seal: u64,
}

/// What the shell may know of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainInfo {
    /// It was introduced.
    pub introduced: bool,
    /// Its shutdown was reported.
    pub shutdown: bool,
    /// Its connection is ignored until it is gone or introduced again.
    pub ignored: bool,
    /// Frame number from INTRODUCE.
    pub gfn: u64,
    /// Event channel of the domain, from INTRODUCE.
    pub port: u32,
    /// Its connection.
    pub conn: Option<ConnId>,
    /// Feature bits that its page shows.
    pub features: u32,
    /// Log index since when this domain is known.
    pub generation: u64,
    /// The hypervisor's handle of it; all zero if it has none or it was not asked for.
    pub handle: [u8; HANDLE_BYTES],
}

impl DomainInfo {
    /// Whether the hypervisor's domain of this number and `handle` is this one. After the introduction it always is:
    /// toolstacks rename running domains.
    pub fn is_same(&self, handle: &[u8; HANDLE_BYTES]) -> bool {
        self.introduced || same_handle(&self.handle, handle)
    }
}

/// Unknown handles tell nothing apart.
fn same_handle(one: &[u8; HANDLE_BYTES], other: &[u8; HANDLE_BYTES]) -> bool {
    let unknown = [0; HANDLE_BYTES];
    one == other || *one == unknown || *other == unknown
}

/// What a domain uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Nodes that it owns.
    pub nodes: u64,
    /// Watches of its connection.
    pub watches: u64,
    /// Open transactions of its connection.
    pub transactions: u64,
    /// Bytes of its nodes, watches and transactions.
    pub memory_bytes: u64,
    /// Bytes that wait in the outbox of its connection, on this replica.
    pub outbox_bytes: u64,
}

impl Domain {
    pub fn new(domid: DomId, config: &Config, generation: u64) -> Domain {
        Domain {
            generation,
            handle: [0; HANDLE_BYTES],
            privileged: config.is_privileged(domid),
            introduced: false,
            shutdown: false,
            gfn: 0,
            port: 0,
            conn: None,
            features: config.features,
            quotas: config.quotas,
            nodes: 0,
            node_bytes: 0,
            held_bytes: 0,
            max: [0; QUOTAS],
            domid,
            seal: 0,
        }
        .sealed()
    }

    /// With the checksum that fits it.
    pub fn sealed(mut self) -> Domain {
        self.seal = self.compute_seal();
        self
    }

    fn compute_seal(&self) -> u64 {
        let marks =
            u64::from(self.privileged) | u64::from(self.introduced) << 1 | u64::from(self.shutdown) << 2;
        let marks = marks | u64::from(self.domid.0) << 16;
        let conn = self.conn.map_or(u64::MAX, |conn| conn.0);
        let features = u64::from(self.features) << 32 | u64::from(self.port);
        let soft = u64::from(self.quotas.soft_memory_bytes);
        let [high, low] = halves(&self.handle);
        let counters = [self.nodes, self.node_bytes, self.held_bytes];
        let record = [self.generation, marks, conn, features, self.gfn, soft, high, low];
        let mut numbers = [0; 11 + QUOTAS];
        numbers[..3].copy_from_slice(&counters);
        numbers[3..11].copy_from_slice(&record);
        for (slot, quota) in numbers[11..].iter_mut().zip(Quota::ALL) {
            *slot = self.quotas.get(quota).into();
        }
        seal_of(&numbers)
    }

    /// Whether generation, privileges, connection, features, quotas and counters are what they were.
    pub fn verify(&self, domid: DomId) -> Result<(), Damage> {
        if self.compute_seal() == self.seal && self.domid == domid {
            Ok(())
        } else {
            Err(Damage::new(&domid.to_string(), Part::Domain))
        }
    }

    /// Whether this is another domain than the one that the hypervisor has under the number and `handle`.
    pub fn is_former(&self, handle: &[u8; HANDLE_BYTES]) -> bool {
        !self.introduced && !same_handle(&self.handle, handle)
    }

    pub fn memory_bytes(&self) -> u64 {
        self.node_bytes + self.held_bytes
    }

    pub fn note(&mut self, quota: Quota, value: u64) {
        let max = &mut self.max[quota as usize];
        *max = value.max(*max);
    }
}

fn halves(handle: &[u8; HANDLE_BYTES]) -> [u64; 2] {
    let (low, high) = handle.split_at(HANDLE_BYTES / 2);
    [high, low].map(|half| half.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// A change of what a domain uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Delta {
    pub nodes: i64,
    pub bytes: i64,
}

/// Changes of what domains use, not yet in their counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deltas(Vec<(DomId, Delta)>);

impl Deltas {
    pub fn get(&self, domid: DomId) -> Delta {
        self.0.iter().find(|(other, _)| *other == domid).map_or_else(Delta::default, |(_, delta)| *delta)
    }

    pub fn add(&mut self, domid: DomId, nodes: i64, bytes: i64) {
        match self.0.iter_mut().find(|(other, _)| *other == domid) {
            Some((_, delta)) => {
                delta.nodes += nodes;
                delta.bytes += bytes;
            }
            None => self.0.push((domid, Delta { nodes, bytes })),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (DomId, Delta)> {
        self.0.iter().copied()
    }

    pub fn total(&self) -> Delta {
        self.0.iter().fold(Delta::default(), |sum, (_, delta)| Delta {
            nodes: sum.nodes + delta.nodes,
            bytes: sum.bytes + delta.bytes,
        })
    }
}

/// All domains.
#[derive(Clone, Debug, Default)]
pub(crate) struct Domains {
    map: BTreeMap<DomId, Domain>,
    /// The sum over the keys of `map`: none is missed because its key is damaged.
    keys: Twin<u64>,
    /// What all domains use together.
    nodes: Twin<u64>,
    /// What all domains use together.
    node_bytes: Twin<u64>,
    /// The most that any unprivileged domain used of each quota.
    pub max: [u64; QUOTAS],
}

/// A domain that is being changed: sealed again afterwards, unless it was damaged before.
pub(crate) struct DomainMut<'a> {
    domain: &'a mut Domain,
    sound: bool,
}

impl<'a> DomainMut<'a> {
    fn new(domain: &'a mut Domain) -> DomainMut<'a> {
        let sound = domain.compute_seal() == domain.seal;
        DomainMut { domain, sound }
    }
}

impl Deref for DomainMut<'_> {
    type Target = Domain;

    fn deref(&self) -> &Domain {
        self.domain
    }
}

impl DerefMut for DomainMut<'_> {
    fn deref_mut(&mut self) -> &mut Domain {
        self.domain
    }
}

impl Drop for DomainMut<'_> {
    fn drop(&mut self) {
        if self.sound {
            self.domain.seal = self.domain.compute_seal();
        }
    }
}

impl Domains {
    pub fn get(&self, domid: DomId) -> Option<&Domain> {
        self.map.get(&domid)
    }

    /// As [`Self::get`], verified, and so is that there is none.
    pub fn checked(&self, domid: DomId) -> Result<Option<&Domain>, Damage> {
        match self.map.get(&domid) {
            Some(domain) => domain.verify(domid).map(|()| Some(domain)),
            None => self.verify_keys().map(|()| None),
        }
    }

    /// Whether no key is changed.
    pub fn verify_keys(&self) -> Result<(), Damage> {
        let sum = self.map.keys().fold(0, |sum: u64, domid| sum.wrapping_add(key_mark(*domid)));
        if sum == self.keys.get() { Ok(()) } else { Err(Damage::new("all", Part::Domain)) }
    }

    /// Nodes of all domains.
    pub fn nodes(&self) -> u64 {
        self.nodes.get()
    }

    /// Bytes of the nodes of all domains.
    pub fn node_bytes(&self) -> u64 {
        self.node_bytes.get()
    }

    pub fn get_mut(&mut self, domid: DomId) -> Option<DomainMut<'_>> {
        self.map.get_mut(&domid).map(DomainMut::new)
    }

    /// Notes what the connection of a domain holds.
    pub fn hold(&mut self, domid: DomId, conn: ConnId, bytes: u64) {
        // Looked at first: one that is taken to be changed is verified and sealed anew.
        if self.get(domid).is_none_or(|domain| domain.conn != Some(conn)) {
            return;
        }
        let Some(mut domain) = self.get_mut(domid) else { return };
        domain.held_bytes = bytes;
        let memory = domain.memory_bytes();
        drop(domain);
        self.note(domid, Quota::Memory, memory);
    }

    /// For tests: so many nodes and bytes are counted.
    #[cfg(test)]
    pub fn count(&mut self, nodes: u64, node_bytes: u64) {
        (self.nodes, self.node_bytes) = (Twin::new(nodes), Twin::new(node_bytes));
    }

    /// For tests: a domain is found under another number.
    #[cfg(test)]
    pub fn rekey(&mut self, from: DomId, to: DomId) {
        let domain = self.map.remove(&from).unwrap();
        self.map.insert(to, domain);
    }

    /// For tests: a domain to be damaged.
    #[cfg(test)]
    pub fn raw(&mut self, domid: DomId) -> &mut Domain {
        self.map.get_mut(&domid).unwrap()
    }

    pub fn insert(&mut self, domid: DomId, domain: Domain) {
        self.nodes.set(self.nodes() + domain.nodes);
        self.node_bytes.set(self.node_bytes() + domain.node_bytes);
        self.keys.set(self.keys.get().wrapping_add(key_mark(domid)));
        self.map.insert(domid, domain);
    }

    /// Forgets a domain, which owns nothing any more.
    pub fn remove(&mut self, domid: DomId) {
        if let Some(domain) = self.map.remove(&domid) {
            self.keys.set(self.keys.get().wrapping_sub(key_mark(domid)));
            assert!(domain.nodes == 0, "the nodes of a removed domain have gone before it");
        }
    }

    /// The domain, made known if it was not.
    pub fn know(&mut self, domid: DomId, config: &Config, index: u64) -> DomainMut<'_> {
        let keys = &mut self.keys;
        DomainMut::new(self.map.entry(domid).or_insert_with(|| {
            keys.set(keys.get().wrapping_add(key_mark(domid)));
            Domain::new(domid, config, index)
        }))
    }

    pub fn iter(&self) -> impl Iterator<Item = (DomId, &Domain)> {
        self.map.iter().map(|(domid, domain)| (*domid, domain))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (DomId, DomainMut<'_>)> {
        self.map.iter_mut().map(|(domid, domain)| (*domid, DomainMut::new(domain)))
    }

    /// Puts changes into the counters.
    pub fn settle(&mut self, deltas: &Deltas) {
        for (domid, delta) in deltas.iter() {
            let Some(mut domain) = self.get_mut(domid) else {
                debug_assert!(false, "every owner is known: {domid}");
                continue;
            };
            domain.nodes = moved(domain.nodes, delta.nodes);
            domain.node_bytes = moved(domain.node_bytes, delta.bytes);
            let (nodes, memory) = (domain.nodes, domain.memory_bytes());
            drop(domain);
            self.nodes.set(moved(self.nodes(), delta.nodes));
            self.node_bytes.set(moved(self.node_bytes(), delta.bytes));
            self.note(domid, Quota::Nodes, nodes);
            self.note(domid, Quota::Memory, memory);
        }
    }

    /// Remembers the most seen of a quota.
    pub fn note(&mut self, domid: DomId, quota: Quota, value: u64) {
        let Some(domain) = self.map.get_mut(&domid) else { return };
        domain.note(quota, value);
        if !domain.privileged {
            let max = &mut self.max[quota as usize];
            *max = value.max(*max);
        }
    }
}

fn key_mark(domid: DomId) -> u64 {
    seal_of(&[domid.0.into()])
}

/// A counter after a change. It cannot wrap, or the accounting is broken.
fn moved(counter: u64, change: i64) -> u64 {
    counter.checked_add_signed(change).expect("nobody gives back what he does not have")
}
