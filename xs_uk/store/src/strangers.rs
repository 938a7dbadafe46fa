//! Domains that a request names and that the store does not know: the toolstack gives rights to a domain, and sets its
//! quotas, before it introduces it.
//!
//! Whether such a domain exists only the host can tell, and a number may be another domain's tomorrow. So the shell
//! asks the host and logs [`crate::EntryRef::DomainKnown`] for those that exist, before the request. From then on the
//! number stands for that domain, until its death is logged. All others are unknown when the request is applied: as
//! owner they are refused, and any other entry is kept without effect, for ever.

use std::collections::BTreeSet;

use xs_protocol::{DomId, Header, MessageType as T, perms, request};

use crate::{ConnId, Quota, Store, limits, node::Actor, route::admit};

impl Store {
    /// The domains to ask the host for before a request is logged. Empty if it will be refused whatever they are; a
    /// guest cannot make it long.
    pub fn strangers(&self, conn: ConnId, header: &Header, payload: &[u8]) -> Vec<DomId> {
        let Some(state) = self.conns.get(&conn).filter(|_| self.config.only_known) else { return Vec::new() };
        if admit(state, header).is_err() {
            return Vec::new();
        }
        let mut named = match header.kind {
            T::SET_PERMS => self.named_in_perms(&state.actor, payload),
            T::SET_FEATURE | T::SET_QUOTA => {
                let first = request::strings(payload).next();
                first.and_then(|domid| request::domid(domid).ok()).into_iter().collect()
            }
            _ => BTreeSet::new(),
        };
        named.retain(|domid| domid.is_real() && self.domains.get(*domid).is_none());
        let most = if state.actor.privileged { usize::MAX } else { limits::GUEST_STRANGERS_MAX };
        named.into_iter().take(most).collect()
    }

    fn named_in_perms(&self, actor: &Actor, payload: &[u8]) -> BTreeSet<DomId> {
        let list = request::split_first(payload).map_or(&[][..], |(_, list)| list);
        let perms = perms::parse_list(list).unwrap_or_default();
        let quota = self.quotas_of(actor);
        if quota.is_some_and(|quotas| quotas.exceeded(Quota::NodePermissions, perms.len() as u64)) {
            return BTreeSet::new();
        }
        perms.into_iter().map(|perm| perm.domid).collect()
    }
}
