//! Connections and domains: how they come, go and change.

use std::sync::Arc;

use xs_protocol::{Access, DomId, Path, Perm, XsError, request};

use crate::{
    ConnId, Damage, Effect, Peer, Store,
    connection::Connection,
    domain::{Deltas, Domain, DomainMut},
    entry::HANDLE_BYTES,
    facts::Facts,
    limits,
    node::{Actor, Grant},
    ops::{Change, Edit, Refusal},
    tree::{Found, INTRODUCE_DOMAIN, RELEASE_DOMAIN},
    watch::Watch,
};

/// Which watches a special event is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    /// Those without a depth, which get the bare name.
    Plain,
    /// Those with a depth, which get name and domain, and those of that domain alone.
    ByDomain,
}

impl Store {
    pub(crate) fn connect(&mut self, id: ConnId, peer: Peer, effects: &mut Vec<Effect>) {
        if self.conns.contains_key(&id) {
            return;
        }
        if self.conns.len() >= limits::CONNECTIONS_MAX {
            effects.push(Effect::Close(id));
            return;
        }
        match peer {
            Peer::Socket => drop(self.conns.insert(id, self.fresh_socket(id))),
            Peer::Domain(domid) if domid.is_real() => self.introduce_domain(domid, id, 0, 0, effects),
            Peer::Domain(_) => effects.push(Effect::Close(id)),
        }
    }

    /// A client of the socket that has done nothing yet.
    pub(crate) fn fresh_socket(&self, id: ConnId) -> Connection {
        let actor = Actor {
            domid: self.config.store_domid,
            privileged: true,
            generation: 0,
            target: None,
            features: self.config.features,
        };
        Connection::new(id, Peer::Socket, actor)
    }

    pub(crate) fn disconnect(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(&id) else { return };
        let socket = conn.peer == Peer::Socket;
        self.clear_connection(id);
        if socket {
            self.conns.remove(&id);
        } else if let Some(conn) = self.conns.get_mut(&id) {
            conn.ignored.set(true);
        }
    }

    pub(crate) fn reset(&mut self, id: ConnId, effects: &mut Vec<Effect>) {
        self.clear_connection(id);
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.ignored.set(false);
            effects.push(Effect::Reset(id));
        }
    }

    fn clear_connection(&mut self, id: ConnId) {
        self.forget_watches(id);
        self.forget_transactions(id);
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.outbox.clear();
        }
    }

    /// Checks an INTRODUCE for the shell: domain, frame number and event channel.
    ///
    /// # Errors
    /// What the client is to be told, `EACCES` if it is not privileged.
    pub fn introduce_args(&self, conn: ConnId, payload: &[u8]) -> Result<(DomId, u64, u32), XsError> {
        let actor = self.conns.get(&conn).map(|conn| &conn.actor);
        introduce_args(actor.ok_or(XsError::EACCES)?, payload)
    }

    pub(crate) fn introduce(
        &mut self,
        id: ConnId,
        payload: &[u8],
        verdict: Option<XsError>,
        ring_conn: Option<ConnId>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let (domid, gfn, port) = self.introduce_args(id, payload)?;
        if let Some(error) = verdict {
            return Err(error.into());
        }
        if let Some(conn) = self.move_introduced(domid, gfn, port) {
            if let Some(conn) = conn {
                self.reset(conn, effects);
            }
            effects.push(Effect::Introduced(domid));
            return Ok(());
        }
        let ring_conn = ring_conn.filter(|conn| !self.conns.contains_key(conn)).ok_or(XsError::EINVAL)?;
        if self.conns.len() >= limits::CONNECTIONS_MAX {
            return Err(XsError::ENOMEM.into());
        }
        self.introduce_domain(domid, ring_conn, gfn, port, effects);
        Ok(())
    }

    /// Notes the new page and port of a domain that is introduced already. `None` if it is not, else its connection.
    fn move_introduced(&mut self, domid: DomId, gfn: u64, port: u32) -> Option<Option<ConnId>> {
        let mut domain = self.domains.get_mut(domid).filter(|domain| domain.introduced)?;
        (domain.gfn, domain.port) = (gfn, port);
        Some(domain.conn)
    }

    fn introduce_domain(&mut self, domid: DomId, id: ConnId, gfn: u64, port: u32, effects: &mut Vec<Effect>) {
        let mut domain = self.domains.know(domid, &self.config, self.index);
        if domain.introduced {
            effects.push(Effect::Close(id));
            return;
        }
        domain.introduced = true;
        domain.shutdown = false;
        (domain.gfn, domain.port) = (gfn, port);
        domain.conn = Some(id);
        let actor = Actor {
            domid,
            privileged: domain.privileged,
            generation: domain.generation,
            target: None,
            features: domain.features,
        };
        drop(domain);
        self.conns.insert(id, Connection::new(id, Peer::Domain(domid), actor));
        self.version = self.index;
        effects.push(Effect::Introduced(domid));
        // The host starts with its privileged domains: nobody waits for them.
        if !actor.privileged {
            self.fire_special(INTRODUCE_DOMAIN, domid, Who::Plain, effects);
            self.fire_special(INTRODUCE_DOMAIN, domid, Who::ByDomain, effects);
        }
    }

    /// The only argument of RELEASE or RESUME: an introduced domain that is not the daemon's own or privileged.
    fn other_domain(&mut self, payload: &[u8]) -> Result<(DomId, DomainMut<'_>), XsError> {
        let domid = request::domid(request::one(payload)?)?;
        if self.config.is_privileged(domid) || domid == self.config.store_domid {
            return Err(XsError::EINVAL);
        }
        let domain = self.domains.get_mut(domid).filter(|domain| domain.introduced).ok_or(XsError::ENOENT)?;
        Ok((domid, domain))
    }

    pub(crate) fn release(&mut self, payload: &[u8], effects: &mut Vec<Effect>) -> Result<(), Refusal> {
        let domid = self.other_domain(payload)?.0;
        self.domain_gone(domid, effects);
        Ok(())
    }

    pub(crate) fn resume(&mut self, payload: &[u8]) -> Result<(), Refusal> {
        let (_, mut domain) = self.other_domain(payload)?;
        domain.shutdown = false;
        Ok(())
    }

    pub(crate) fn set_target(&mut self, payload: &[u8]) -> Result<(), Refusal> {
        let (count, [domid, target]) = request::vector::<2>(payload);
        if count < 2 {
            return Err(XsError::EINVAL.into());
        }
        let (domid, target) = (request::domid(domid)?, request::domid(target)?);
        let conn = self.connected(domid)?.conn.ok_or(XsError::EINVAL)?;
        let generation = self.connected(target)?.generation;
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.set_target(Some((target, generation)));
            self.version = self.index;
        }
        Ok(())
    }

    fn connected(&self, domid: DomId) -> Result<&Domain, Refusal> {
        Ok(self.domains.checked(domid)?.filter(|domain| domain.introduced).ok_or(XsError::ENOENT)?)
    }

    pub(crate) fn domain_shutdown(&mut self, domid: DomId, effects: &mut Vec<Effect>) {
        let Some(mut domain) = self.domains.get_mut(domid) else { return };
        if !domain.introduced || domain.shutdown {
            return;
        }
        domain.shutdown = true;
        drop(domain);
        self.fire_special(RELEASE_DOMAIN, domid, Who::ByDomain, effects);
        self.fire_special(RELEASE_DOMAIN, domid, Who::Plain, effects);
    }

    /// A domain exists that is about to be named. A former one of the number that was never introduced is gone.
    pub(crate) fn domain_known(
        &mut self,
        domid: DomId,
        handle: [u8; HANDLE_BYTES],
        effects: &mut Vec<Effect>,
    ) {
        if !domid.is_real() {
            return;
        }
        if self.domains.get(domid).is_some_and(|domain| domain.is_former(&handle)) {
            self.domain_gone(domid, effects);
        }
        let mut domain = self.domains.know(domid, &self.config, self.index);
        if domain.handle == [0; HANDLE_BYTES] {
            domain.handle = handle;
        }
    }

    /// A domain is gone or released: its connection, its nodes, its rights, then what is known of it.
    pub(crate) fn domain_gone(&mut self, domid: DomId, effects: &mut Vec<Effect>) {
        if self.config.is_privileged(domid) || domid == self.config.store_domid {
            return;
        }
        let Some(domain) = self.domains.get(domid) else { return };
        let introduced = domain.introduced;
        if let Some(conn) = domain.conn {
            self.clear_connection(conn);
            self.conns.remove(&conn);
            effects.push(Effect::Close(conn));
        }
        self.forget_target(domid);
        for path in self.tree.mentions(domid, self.config.keep_orphans) {
            if let Ok(path) = Path::parse(path.as_bytes()) {
                self.strip(domid, path, effects);
            }
        }
        self.domains.remove(domid);
        self.version = self.index;
        if introduced {
            effects.push(Effect::Unmap(domid));
            self.fire_special(RELEASE_DOMAIN, domid, Who::Plain, effects);
            self.fire_special(RELEASE_DOMAIN, domid, Who::ByDomain, effects);
        }
    }

    fn forget_target(&mut self, domid: DomId) {
        for conn in self.conns.values_mut() {
            if conn.actor.target.is_some_and(|(target, _)| target == domid) {
                conn.set_target(None);
            }
        }
    }

    /// Takes a node from a dead domain: removes the node if the domain owned it, else its entries.
    fn strip(&mut self, domid: DomId, path: Path<'_>, effects: &mut Vec<Effect>) {
        let node = match self.tree.look_with_parent(path) {
            Ok(Found::Node { node, .. }) => node,
            Ok(Found::Missing { .. }) => return,
            Err(damage) => return self.hurt(damage),
        };
        if node.owner() == domid && !self.config.keep_orphans && !path.is_root() && !path.is_special() {
            match self.remove_orphan(path) {
                Ok(Some(change)) => {
                    self.fire(path, &change, None, effects);
                    self.discard(change);
                }
                Ok(None) => {}
                Err(damage) => self.hurt(damage),
            }
            return;
        }
        let (old_owner, old_bytes) = (node.owner(), node.bytes());
        let mut grants: Vec<Grant> = node.acl.to_vec();
        if old_owner == domid {
            let heir = Perm { domid: self.config.privileged_domid, access: grants[0].perm.access };
            grants[0] = Grant { perm: heir, ignored: false };
        }
        let owner = grants.remove(0);
        grants.retain(|grant| grant.perm.domid != domid);
        grants.insert(0, owner);
        let facts = Facts { acl: &grants, ..node.facts() };
        let (rewrite, bytes) = (node.rewrite(path.as_str(), &facts), facts.bytes());
        match self.tree.change(path, &rewrite) {
            Ok(Some(node)) => node.acl = Arc::from(grants),
            Ok(None) => return,
            Err(damage) => return self.hurt(damage),
        }
        let mut deltas = Deltas::default();
        deltas.add(old_owner, -1, -i64::try_from(old_bytes).expect("sizes in memory fit"));
        deltas.add(owner.perm.domid, 1, i64::try_from(bytes).expect("sizes in memory fit"));
        self.domains.settle(&deltas);
        self.note_replaced(1, &deltas);
    }

    fn remove_orphan(&mut self, path: Path<'_>) -> Result<Option<Change>, Damage> {
        let nobody = Actor { domid: DomId(0), privileged: true, generation: 0, target: None, features: 0 };
        let mut deltas = Deltas::default();
        let change = Edit {
            tree: &mut self.tree,
            actor: &nobody,
            quotas: None,
            domains: &self.domains,
            deltas: &mut deltas,
            generation: self.index,
            replay: false,
        }
        .remove_node(path)?;
        self.domains.settle(&deltas);
        self.note_replaced(1, &deltas);
        Ok(change)
    }

    /// Fires a special event about a domain.
    fn fire_special(&mut self, name: &str, domid: DomId, who: Who, effects: &mut Vec<Effect>) {
        let node =
            if name == INTRODUCE_DOMAIN { &self.tree.introduce_domain } else { &self.tree.release_domain };
        let node = Arc::clone(node);
        if let Err(damage) = node.verify(name) {
            return self.hurt(damage);
        }
        let text = match who {
            Who::Plain => name.to_owned(),
            Who::ByDomain => format!("{name}/{domid}"),
        };
        let Ok(path) = Path::parse(text.as_bytes()) else { return };
        let mut hits: Vec<&Watch> = Vec::new();
        match who {
            Who::Plain => hits.extend(self.watches.exactly(path).filter(|watch| watch.depth.is_none())),
            Who::ByDomain => {
                let exact = self.watches.exactly(path).map(|watch| watch.id).collect::<Vec<_>>();
                if let Err(damage) = self.watches.matching(path, &mut hits) {
                    return self.hurt(damage);
                }
                hits.retain(|watch| exact.contains(&watch.id) || watch.depth.is_some_and(|depth| depth > 0));
            }
        }
        let mut events = Vec::new();
        for watch in hits {
            match self.recipient(watch) {
                Ok(conn) if conn.actor.bits(&node.acl, node.acl_generation) & Access::Read as u8 != 0 => {
                    if let Err(damage) = watch.verify_token() {
                        return self.hurt(damage);
                    }
                    events.push((watch.conn, Arc::clone(&watch.token)));
                }
                Ok(_) => {}
                Err(damage) => return self.hurt(damage),
            }
        }
        for (conn, token) in events {
            self.queue_event(conn, text.as_bytes(), &token, effects);
        }
    }
}

/// See [`Store::introduce_args`].
pub(crate) fn introduce_args(actor: &Actor, payload: &[u8]) -> Result<(DomId, u64, u32), XsError> {
    if !actor.privileged {
        return Err(XsError::EACCES);
    }
    let (count, [domid, gfn, port]) = request::vector::<3>(payload);
    if count < 3 {
        return Err(XsError::EINVAL);
    }
    let domid = request::domid(domid)?;
    let port = u32::try_from(request::atoi(port)).map_err(|_| XsError::EINVAL)?;
    if port == 0 || !domid.is_real() {
        return Err(XsError::EINVAL);
    }
    let gfn = std::str::from_utf8(gfn).ok().and_then(|gfn| gfn.trim().parse::<i64>().ok());
    Ok((domid, gfn.unwrap_or(0).cast_unsigned(), port))
}
