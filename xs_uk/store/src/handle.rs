//! Logged requests of clients: nodes and watches.

use std::sync::Arc;

use xs_protocol::{
    Header, MessageType as T, Path, XsError, message, path::Special, perms, request, ring::feature,
};

use crate::{
    ConnId, Effect, Quota, Store,
    domain::Deltas,
    limits,
    node::Actor,
    ops::{Edit, Refusal, resolve},
    route::admit,
    watch::Watch,
};

impl Store {
    pub(crate) fn handle(
        &mut self,
        id: ConnId,
        header: &Header,
        payload: &[u8],
        verdict: Option<XsError>,
        ring_conn: Option<ConnId>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(conn) = self.conns.get(&id) else { return };
        let verified = self.verify_client(id, conn).and_then(|()| self.verify_named(header.kind, payload));
        if let Err(damage) = verified {
            return self.hurt(damage);
        }
        let actor = conn.actor;
        let result = match admit(conn, header) {
            Err(error) => Err(error.into()),
            Ok(0) if is_node_write(header.kind) => self.write_now(&actor, header, payload, effects),
            Ok(tx_id) if is_node_write(header.kind) || is_node_read(header.kind) && tx_id != 0 => {
                return self.in_transaction(id, tx_id, header, payload, effects);
            }
            Ok(tx_id) => match header.kind {
                T::WATCH => return self.watch(id, header, payload, effects),
                T::UNWATCH => self.unwatch(id, payload),
                T::TRANSACTION_START => return self.transaction_start(id, tx_id, header, effects),
                T::TRANSACTION_END => self.transaction_end(id, tx_id, payload, effects),
                T::RESET_WATCHES => {
                    self.forget_watches(id);
                    self.forget_transactions(id);
                    Ok(())
                }
                T::INTRODUCE => self.introduce(id, payload, verdict, ring_conn, effects),
                T::RELEASE => self.release(payload, effects),
                T::RESUME => self.resume(payload),
                T::SET_TARGET => self.set_target(payload),
                T::SET_FEATURE => self.set_feature(payload, verdict),
                T::SET_QUOTA => self.set_quota(payload, verdict),
                T::CONTROL => return self.control(id, header, payload, effects),
                _ => return self.reply_read(id, header, payload, effects),
            },
        };
        match result {
            Ok(()) => self.ack(id, header, effects),
            Err(refusal) => self.refuse(id, &actor, header, refusal, effects),
        }
    }

    pub(crate) fn refuse(
        &mut self,
        id: ConnId,
        actor: &Actor,
        header: &Header,
        refusal: Refusal,
        effects: &mut Vec<Effect>,
    ) {
        match refusal {
            Refusal::Damage(damage) => return self.hurt(*damage),
            Refusal::Quota(quota) => self.quota_hit(actor, quota, effects),
            Refusal::Error(_) => {}
        }
        self.reply(id, effects, |out| message::push_error(out, header, refusal.error()));
    }

    /// Answers a request that would not have needed the log.
    pub(crate) fn reply_read(
        &mut self,
        id: ConnId,
        header: &Header,
        payload: &[u8],
        effects: &mut Vec<Effect>,
    ) {
        let mut answer = Vec::new();
        match self.read(id, header, payload, &mut answer) {
            Ok(()) => self.reply(id, effects, |out| out.extend_from_slice(&answer)),
            Err(damage) => self.hurt(damage),
        }
    }

    fn write_now(
        &mut self,
        actor: &Actor,
        header: &Header,
        payload: &[u8],
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        if header.kind == T::SET_PERMS {
            self.know_named_domains(actor, payload);
        }
        let mut deltas = Deltas::default();
        let quotas = self.quotas_of(actor).copied();
        let mut edit = Edit {
            tree: &mut self.tree,
            actor,
            quotas: quotas.as_ref(),
            domains: &self.domains,
            deltas: &mut deltas,
            generation: self.index,
            replay: false,
        };
        let edited = edit.execute(header.kind, payload)?;
        self.domains.settle(&deltas);
        if let Some(change) = edited.change {
            self.version = self.index;
            self.note_replaced(1, &deltas);
            self.fire(edited.path.path(), &change, None, effects);
            self.discard(change);
        }
        Ok(())
    }

    /// The toolstack gives rights to domains before it introduces them. In logs of older programs such domains become
    /// known here; see [`crate::Config::only_known`].
    pub(crate) fn know_named_domains(&mut self, actor: &Actor, payload: &[u8]) {
        if self.config.only_known {
            return;
        }
        let Some((_, list)) = request::split_first(payload) else { return };
        let Ok(perms) = perms::parse_list(list) else { return };
        for perm in perms {
            if actor.privileged && perm.domid.is_real() {
                self.domains.know(perm.domid, &self.config, self.index);
            }
        }
    }

    fn watch(&mut self, id: ConnId, header: &Header, payload: &[u8], effects: &mut Vec<Effect>) {
        let Some(actor) = self.conns.get(&id).map(|conn| conn.actor) else { return };
        match self.add_watch(id, &actor, payload) {
            Err(refusal) => self.refuse(id, &actor, header, refusal, effects),
            Ok((path, token)) => {
                self.ack(id, header, effects);
                self.queue_event(id, path, token, effects);
            }
        }
    }

    /// Adds a watch. Returns path and token of its first event.
    fn add_watch<'p>(
        &mut self,
        id: ConnId,
        actor: &Actor,
        payload: &'p [u8],
    ) -> Result<(&'p [u8], &'p [u8]), Refusal> {
        let (count, [raw, token, depth]) = request::vector::<3>(payload);
        let depth = match count {
            2 => None,
            3 if actor.features & feature::WATCHDEPTH != 0 => {
                Some(u32::try_from(request::atoi(depth)).map_err(|_| XsError::EINVAL)?)
            }
            _ => return Err(XsError::EINVAL.into()),
        };
        let quotas = self.quotas_of(actor).copied();
        let resolved = resolve(raw, actor, quotas.as_ref(), Special::Allowed)?;
        let path = resolved.path();
        let conn = self.conns.get(&id).ok_or(XsError::EIO)?;
        let shared: Arc<[u8]> = Arc::from(token);
        if let Some(place) = self.watches.find(path)
            && conn.watches.contains_key(&(place, Arc::clone(&shared)))
        {
            return Err(XsError::EEXIST.into());
        }
        let count = conn.watches.len() + 1;
        let bytes = watch_bytes(path, token);
        match quotas {
            None if count > limits::PRIVILEGED_WATCHES_MAX => return Err(XsError::ENOSPC.into()),
            Some(quotas) if quotas.exceeded(Quota::Watches, count as u64) => {
                return Err(Refusal::Quota(Quota::Watches));
            }
            _ => self.check_memory(actor, bytes)?,
        }
        let watch = Watch::new(id, self.next_watch_id, Arc::clone(&shared), depth, resolved.prefix_len());
        let place = self.watches.add(path, watch);
        let conn = self.conns.get_mut(&id).ok_or(XsError::EIO)?;
        conn.watches.insert((place, shared), self.next_watch_id);
        conn.watch_bytes.set(conn.watch_bytes.get() + bytes);
        self.next_watch_id += 1;
        self.domains.note(actor.domid, Quota::Watches, count as u64);
        self.update_held(id);
        Ok((raw, token))
    }

    fn unwatch(&mut self, id: ConnId, payload: &[u8]) -> Result<(), Refusal> {
        let (2, [raw, token]) = request::vector::<2>(payload) else { return Err(XsError::EINVAL.into()) };
        let actor = self.conns.get(&id).ok_or(XsError::EIO)?.actor;
        let resolved = resolve(raw, &actor, self.quotas_of(&actor), Special::Allowed)?;
        let place = self.watches.find(resolved.path()).ok_or(XsError::ENOENT)?;
        let conn = self.conns.get_mut(&id).ok_or(XsError::EIO)?;
        let watch = conn.watches.remove(&(place, Arc::from(token))).ok_or(XsError::ENOENT)?;
        conn.watch_bytes.set(conn.watch_bytes.get() - watch_bytes(resolved.path(), token));
        self.watches.remove(place, id, watch);
        self.update_held(id);
        Ok(())
    }

    pub(crate) fn forget_watches(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.watch_bytes.set(0);
        for ((place, _), watch) in std::mem::take(&mut conn.watches) {
            self.watches.remove(place, id, watch);
        }
        self.update_held(id);
    }

    pub(crate) fn forget_transactions(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.transaction_bytes.set(0);
        for (_, transaction) in std::mem::take(&mut conn.transactions) {
            self.drop_transaction(*transaction);
        }
        self.update_held(id);
    }

    /// Whether somebody may hold so many bytes more.
    fn check_memory(&self, actor: &Actor, bytes: u64) -> Result<(), Refusal> {
        let Some(quotas) = self.quotas_of(actor) else { return Ok(()) };
        let used = self.domains.get(actor.domid).map_or(0, |domain| domain.memory_bytes());
        if quotas.exceeded(Quota::Memory, used + bytes) {
            return Err(Refusal::Quota(Quota::Memory));
        }
        Ok(())
    }

    /// Brings the domain's counter up to date after its connection holds more or less.
    pub(crate) fn update_held(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(&id) else { return };
        let domid = conn.actor.domid;
        self.domains.hold(domid, id, conn.held_bytes());
    }
}

/// What a watch counts for the quota `memory`. A path of a thousand one-letter names would make a thousand places in
/// the trie for two kilobytes.
pub(crate) fn watch_bytes(path: Path<'_>, token: &[u8]) -> u64 {
    let places = path.depth().saturating_sub(limits::WATCH_DEPTH_FREE);
    (path.as_str().len() + token.len() + places * limits::WATCH_PLACE_BYTES) as u64
}

pub(crate) fn is_node_read(kind: T) -> bool {
    matches!(kind, T::READ | T::DIRECTORY | T::DIRECTORY_PART | T::GET_PERMS)
}

pub(crate) fn is_node_write(kind: T) -> bool {
    matches!(kind, T::WRITE | T::MKDIR | T::RM | T::SET_PERMS)
}
