//! Logged requests of clients: nodes, watches, transactions.

use std::sync::Arc;

use xs_protocol::{
    DomId, Header, MessageType as T, Path, XsError, message, path::Special, perms, request, ring::feature,
};

use crate::{
    ConnId, Effect, Quota, Store,
    domain::Deltas,
    limits,
    node::Actor,
    ops::{self, Edit, Refusal, resolve},
    route::{admit, transaction_end_args},
    store::Sent,
    transaction::{Mark, Record, Transaction},
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

    fn refuse(
        &mut self,
        id: ConnId,
        actor: &Actor,
        header: &Header,
        refusal: Refusal,
        effects: &mut Vec<Effect>,
    ) {
        if let Refusal::Quota(quota) = refusal {
            self.quota_hit(actor, quota, effects);
        }
        self.reply(id, effects, |out| message::push_error(out, header, refusal.error()));
    }

    /// Answers a request that would not have needed the log.
    fn reply_read(&mut self, id: ConnId, header: &Header, payload: &[u8], effects: &mut Vec<Effect>) {
        let mut answer = Vec::new();
        self.read(id, header, payload, &mut answer);
        self.reply(id, effects, |out| out.extend_from_slice(&answer));
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
            self.fire(edited.path.path(), &change, None, effects);
            self.discard(change);
        }
        Ok(())
    }

    /// The toolstack gives rights to domains before it introduces them; such domains become known here.
    fn know_named_domains(&mut self, actor: &Actor, payload: &[u8]) {
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
        let bytes = (path.as_str().len() + token.len()) as u64;
        match quotas {
            None if count > limits::PRIVILEGED_WATCHES_MAX => return Err(XsError::ENOSPC.into()),
            Some(quotas) if quotas.exceeded(Quota::Watches, count as u64) => {
                return Err(Refusal::Quota(Quota::Watches));
            }
            _ => self.check_memory(actor, bytes)?,
        }
        let watch = Watch {
            conn: id,
            id: self.next_watch_id,
            token: Arc::clone(&shared),
            depth,
            prefix_len: resolved.prefix_len(),
        };
        let place = self.watches.add(path, watch);
        let conn = self.conns.get_mut(&id).ok_or(XsError::EIO)?;
        conn.watches.insert((place, shared), self.next_watch_id);
        conn.watch_bytes += bytes;
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
        conn.watch_bytes -= (resolved.path().as_str().len() + token.len()) as u64;
        self.watches.remove(place, id, watch);
        self.update_held(id);
        Ok(())
    }

    pub(crate) fn forget_watches(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.watch_bytes = 0;
        for ((place, _), watch) in std::mem::take(&mut conn.watches) {
            self.watches.remove(place, id, watch);
        }
        self.update_held(id);
    }

    pub(crate) fn forget_transactions(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.transactions.clear();
        conn.transaction_bytes = 0;
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
    fn update_held(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(&id) else { return };
        let domid = conn.actor.domid;
        if let Some(domain) = self.domains.get_mut(domid)
            && domain.conn == Some(id)
        {
            domain.held_bytes = conn.held_bytes();
            let memory = domain.memory_bytes();
            self.domains.note(domid, Quota::Memory, memory);
        }
    }

    fn transaction_start(&mut self, id: ConnId, tx_id: u32, header: &Header, effects: &mut Vec<Effect>) {
        let Some(actor) = self.conns.get(&id).map(|conn| conn.actor) else { return };
        match self.open_transaction(id, &actor, tx_id) {
            Err(refusal) => self.refuse(id, &actor, header, refusal, effects),
            Ok(tx_id) => self.reply(id, effects, |out| {
                message::push_reply_with(out, header, |out| {
                    perms::push_decimal(out, tx_id.into());
                    out.push(0);
                });
            }),
        }
    }

    fn open_transaction(&mut self, id: ConnId, actor: &Actor, within: u32) -> Result<u32, Refusal> {
        if within != 0 {
            return Err(XsError::EBUSY.into());
        }
        let quotas = self.quotas_of(actor).copied();
        let conn = self.conns.get_mut(&id).ok_or(XsError::EIO)?;
        let count = conn.transactions.len() + 1;
        match quotas {
            None if count > limits::PRIVILEGED_TRANSACTIONS_MAX => return Err(XsError::ENOSPC.into()),
            Some(quotas) if quotas.exceeded(Quota::Transactions, count as u64) => {
                return Err(Refusal::Quota(Quota::Transactions));
            }
            _ => {}
        }
        while conn.next_tx_id == 0 || conn.transactions.contains_key(&conn.next_tx_id) {
            conn.next_tx_id = conn.next_tx_id.wrapping_add(1);
        }
        let tx_id = conn.next_tx_id;
        conn.next_tx_id = tx_id.wrapping_add(1);
        let transaction = Transaction::new(self.tree.clone(), self.version);
        conn.transactions.insert(tx_id, Box::new(transaction));
        self.domains.note(actor.domid, Quota::Transactions, count as u64);
        Ok(tx_id)
    }

    /// Takes a transaction out of its connection.
    fn take_transaction(&mut self, id: ConnId, tx_id: u32) -> Option<(Actor, Box<Transaction>)> {
        let conn = self.conns.get_mut(&id)?;
        let transaction = conn.transactions.remove(&tx_id)?;
        conn.transaction_bytes -= transaction.bytes;
        let actor = conn.actor;
        self.update_held(id);
        Some((actor, transaction))
    }

    fn in_transaction(
        &mut self,
        id: ConnId,
        tx_id: u32,
        header: &Header,
        payload: &[u8],
        effects: &mut Vec<Effect>,
    ) {
        let Some((actor, mut transaction)) = self.take_transaction(id, tx_id) else { return };
        if header.kind == T::SET_PERMS {
            self.know_named_domains(&actor, payload);
        }
        let mut answer = Vec::new();
        let mut done = self.step(&actor, &mut transaction, header, payload, &mut answer);
        if done.is_ok() {
            done = self.record(&actor, &mut transaction, header, payload, &answer);
        }
        if let Err(refusal) = done {
            transaction.failed = true;
            answer.clear();
            message::push_error(&mut answer, header, refusal.error());
            if let Refusal::Quota(quota) = refusal {
                self.quota_hit(&actor, quota, effects);
            }
        }
        self.put_transaction(id, tx_id, transaction);
        self.reply(id, effects, |out| out.extend_from_slice(&answer));
    }

    fn put_transaction(&mut self, id: ConnId, tx_id: u32, transaction: Box<Transaction>) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.transaction_bytes += transaction.bytes;
            conn.transactions.insert(tx_id, transaction);
        }
        self.update_held(id);
    }

    /// Executes a request in a transaction's tree. An error is an answer too; only quotas refuse.
    fn step(
        &self,
        actor: &Actor,
        transaction: &mut Transaction,
        header: &Header,
        payload: &[u8],
        answer: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let quotas = self.quotas_of(actor);
        let touched = if is_node_read(header.kind) {
            ops::answer_read(&transaction.tree, actor, quotas, header, payload, answer)
                .map(|path| (path, 0))
                .map_err(Refusal::from)
        } else if transaction.failed {
            Err(Refusal::Error(XsError::ENOSPC))
        } else {
            self.step_write(actor, transaction, header, payload)
        };
        match touched {
            Ok((path, created)) => {
                if !is_node_read(header.kind) {
                    message::push_ack(answer, header);
                }
                self.touch(actor, transaction, path.path(), created)
            }
            Err(Refusal::Error(error)) => {
                answer.clear();
                message::push_error(answer, header, error);
                Ok(())
            }
            // As in the reference daemon this one is found before anything was tried.
            Err(Refusal::Quota(Quota::NodePermissions)) => {
                message::push_error(answer, header, XsError::ENOSPC);
                Ok(())
            }
            Err(refusal) => Err(refusal),
        }
    }

    fn step_write<'p>(
        &self,
        actor: &Actor,
        transaction: &mut Transaction,
        header: &Header,
        payload: &'p [u8],
    ) -> Result<(xs_protocol::path::Resolved<'p>, usize), Refusal> {
        let mut edit = Edit {
            tree: &mut transaction.tree,
            actor,
            quotas: self.quotas_of(actor),
            domains: &self.domains,
            deltas: &mut transaction.deltas,
            generation: self.index,
            replay: false,
        };
        let edited = edit.execute(header.kind, payload)?;
        if let Some(change) = edited.change {
            transaction.changes.push((edited.path.path().as_str().into(), change));
        }
        Ok((edited.path, edited.created))
    }

    /// Counts the nodes that a request touched: its own, those it created and the one above them.
    fn touch(
        &self,
        actor: &Actor,
        transaction: &mut Transaction,
        path: Path<'_>,
        created: usize,
    ) -> Result<(), Refusal> {
        let mut next = Some(path);
        for _ in 0..=created {
            let Some(path) = next else { break };
            if !transaction.touched.contains(path.as_str()) {
                transaction.touched.insert(path.as_str().into());
                transaction.bytes += (path.as_str().len() + limits::TOUCHED_OVERHEAD_BYTES) as u64;
            }
            next = path.parent();
        }
        let count = transaction.touched.len();
        match self.quotas_of(actor) {
            None if count > limits::PRIVILEGED_TRANSACTION_NODES_MAX => Err(XsError::ENOSPC.into()),
            Some(quotas) if quotas.exceeded(Quota::TransactionNodes, count as u64) => {
                Err(Refusal::Quota(Quota::TransactionNodes))
            }
            _ => Ok(()),
        }
    }

    /// Notes a request and its answer for the commit.
    fn record(
        &mut self,
        actor: &Actor,
        transaction: &mut Transaction,
        header: &Header,
        payload: &[u8],
        answer: &[u8],
    ) -> Result<(), Refusal> {
        if transaction.failed {
            return Ok(());
        }
        let mark = mark_of(answer);
        let reads = is_node_read(header.kind);
        if reads {
            let key = (header.kind, Box::from(payload));
            if transaction.recent_reads.get(&key) == Some(&mark) {
                return Ok(());
            }
            transaction.recent_reads.insert(key, mark.clone());
        } else {
            transaction.recent_reads.clear();
        }
        let copies = if reads { 2 } else { 1 };
        transaction.bytes += (copies * (payload.len() + limits::RECORD_OVERHEAD_BYTES)) as u64;
        transaction.records.push(Record {
            generation: self.index,
            kind: header.kind,
            payload: payload.into(),
            mark,
        });
        self.domains.note(actor.domid, Quota::TransactionNodes, transaction.touched.len() as u64);
        self.check_transaction(actor, transaction)
    }

    fn check_transaction(&self, actor: &Actor, transaction: &Transaction) -> Result<(), Refusal> {
        let (requests, bytes) = (transaction.records.len(), transaction.bytes);
        if !actor.privileged {
            if requests > limits::GUEST_TRANSACTION_REQUESTS_MAX {
                return Err(XsError::ENOSPC.into());
            }
            // The transaction is out of its connection, so the domain's counter is without it.
            let growth = transaction.deltas.total().bytes.max(0).unsigned_abs();
            let others = self.domains.get(actor.domid).map_or(0, |domain| domain.memory_bytes());
            let quotas = self.quotas_of(actor);
            if quotas.is_some_and(|quotas| quotas.exceeded(Quota::Memory, others + bytes + growth)) {
                return Err(Refusal::Quota(Quota::Memory));
            }
        } else if requests > limits::PRIVILEGED_TRANSACTION_REQUESTS_MAX
            || bytes > limits::PRIVILEGED_TRANSACTION_BYTES_MAX as u64
        {
            return Err(XsError::ENOSPC.into());
        }
        Ok(())
    }

    fn transaction_end(
        &mut self,
        id: ConnId,
        tx_id: u32,
        payload: &[u8],
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let commit = transaction_end_args(payload)?;
        let (actor, transaction) = self.take_transaction(id, tx_id).ok_or(XsError::ENOENT)?;
        if !commit {
            return Ok(());
        }
        if transaction.failed {
            return Err(XsError::ENOMEM.into());
        }
        self.commit(&actor, *transaction, effects)
    }

    fn commit(
        &mut self,
        actor: &Actor,
        transaction: Transaction,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let fresh = transaction.base_version == self.version && self.still_fits(&transaction.deltas);
        let result = if fresh { transaction } else { self.replay(actor, transaction)? };
        if result.changes.is_empty() {
            return Ok(());
        }
        self.tree = result.tree;
        self.domains.settle(&result.deltas);
        self.version = self.index;
        let mut sent = Sent::new();
        for (path, change) in result.changes {
            let path = Path::parse(path.as_bytes()).map_err(|_| XsError::EIO)?;
            self.fire(path, &change, Some(&mut sent), effects);
            self.discard(change);
        }
        Ok(())
    }

    /// Whether no quota can be in the way of changes that were checked when they were made.
    fn still_fits(&self, deltas: &Deltas) -> bool {
        let total = deltas.total();
        let fits_all = self.domains.nodes.saturating_add_signed(total.nodes) <= limits::NODES_MAX
            && self.domains.node_bytes.saturating_add_signed(total.bytes) <= limits::NODE_BYTES_MAX;
        fits_all
            && deltas.iter().all(|(domid, delta)| {
                self.domains.get(domid).is_some_and(|domain| {
                    let nodes = domain.nodes.saturating_add_signed(delta.nodes);
                    let bytes = domain.memory_bytes().saturating_add_signed(delta.bytes);
                    domain.privileged
                        || (delta.nodes <= 0 || !domain.quotas.exceeded(Quota::Nodes, nodes))
                            && (delta.bytes <= 0 || !domain.quotas.exceeded(Quota::Memory, bytes))
                })
            })
    }

    /// Executes a transaction's requests on the current tree, and demands the answers that were given.
    fn replay(&self, actor: &Actor, old: Transaction) -> Result<Transaction, Refusal> {
        let mut new = Transaction::new(self.tree.clone(), self.version);
        let mut answer = Vec::new();
        for record in &old.records {
            answer.clear();
            let header = Header { kind: record.kind, req_id: 0, tx_id: 0, len: 0 };
            self.replay_step(actor, &mut new, record, &header, &mut answer)?;
            if mark_of(&answer) != record.mark {
                return Err(XsError::EAGAIN.into());
            }
        }
        Ok(new)
    }

    fn replay_step(
        &self,
        actor: &Actor,
        new: &mut Transaction,
        record: &Record,
        header: &Header,
        answer: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let quotas = self.quotas_of(actor);
        let result = if is_node_read(record.kind) {
            ops::answer_read(&new.tree, actor, quotas, header, &record.payload, answer)
                .map(drop)
                .map_err(Refusal::from)
        } else {
            let mut edit = Edit {
                tree: &mut new.tree,
                actor,
                quotas,
                domains: &self.domains,
                deltas: &mut new.deltas,
                generation: record.generation,
                replay: true,
            };
            edit.execute(record.kind, &record.payload).map(|edited| {
                message::push_ack(answer, header);
                if let Some(change) = edited.change {
                    new.changes.push((edited.path.path().as_str().into(), change));
                }
            })
        };
        match result {
            Ok(()) => Ok(()),
            Err(Refusal::Quota(quota)) if !record.mark.error => Err(Refusal::Quota(quota)),
            Err(refusal) => {
                answer.clear();
                message::push_error(answer, header, refusal.error());
                Ok(())
            }
        }
    }
}

/// The mark of a wire-ready answer. The ids in its header are the client's affair.
fn mark_of(answer: &[u8]) -> Mark {
    let error = Header::parse(answer).is_some_and(|header| header.kind == T::ERROR);
    Mark::new(error, answer.get(xs_protocol::HEADER_BYTES..).unwrap_or_default())
}

fn is_node_read(kind: T) -> bool {
    matches!(kind, T::READ | T::DIRECTORY | T::DIRECTORY_PART | T::GET_PERMS)
}

fn is_node_write(kind: T) -> bool {
    matches!(kind, T::WRITE | T::MKDIR | T::RM | T::SET_PERMS)
}
