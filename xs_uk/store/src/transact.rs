//! Logged requests of clients: transactions.

use xs_protocol::{Header, MessageType as T, Path, XsError, message, path::Resolved, perms};

use crate::{
    ConnId, Damage, Effect, Quota, Store,
    domain::Deltas,
    handle::is_node_read,
    limits,
    node::Actor,
    ops::{self, Edit, Refusal},
    route::transaction_end_args,
    store::Sent,
    transaction::{Mark, Record, Transaction},
};

impl Store {
    pub(crate) fn transaction_start(
        &mut self,
        id: ConnId,
        tx_id: u32,
        header: &Header,
        effects: &mut Vec<Effect>,
    ) {
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
        let mut transaction = Transaction::new(self.tree.clone(), self.version);
        transaction.base_replaced_bytes = self.replaced_bytes;
        conn.transactions.insert(tx_id, Box::new(transaction.sealed()));
        self.domains.note(actor.domid, Quota::Transactions, count as u64);
        Ok(tx_id)
    }

    /// Takes a transaction out of its connection, if there is one.
    fn take_transaction(
        &mut self,
        id: ConnId,
        tx_id: u32,
    ) -> Result<Option<(Actor, Box<Transaction>)>, Damage> {
        let Some(conn) = self.conns.get_mut(&id) else { return Ok(None) };
        let Some(transaction) = conn.transactions.remove(&tx_id) else { return Ok(None) };
        transaction.verify()?;
        conn.transaction_bytes.set(conn.transaction_bytes.get() - transaction.bytes);
        let actor = conn.actor;
        self.update_held(id);
        Ok(Some((actor, transaction)))
    }

    pub(crate) fn in_transaction(
        &mut self,
        id: ConnId,
        tx_id: u32,
        header: &Header,
        payload: &[u8],
        effects: &mut Vec<Effect>,
    ) {
        let (actor, mut transaction) = match self.take_transaction(id, tx_id) {
            Ok(Some(taken)) => taken,
            Ok(None) => return,
            Err(damage) => return self.hurt(damage),
        };
        if header.kind == T::SET_PERMS {
            self.know_named_domains(&actor, payload);
        }
        if transaction.detached
            && let Err(damage) = self.attach(&actor, &mut transaction)
        {
            return self.hurt(damage);
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
            match refusal {
                Refusal::Damage(damage) => return self.hurt(*damage),
                Refusal::Quota(quota) => self.quota_hit(&actor, quota, effects),
                Refusal::Error(_) => {}
            }
        }
        self.put_transaction(id, tx_id, transaction);
        self.reply(id, effects, |out| out.extend_from_slice(&answer));
    }

    fn put_transaction(&mut self, id: ConnId, tx_id: u32, mut transaction: Box<Transaction>) {
        transaction.seal_again();
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.transaction_bytes.set(conn.transaction_bytes.get() + transaction.bytes);
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
            ops::answer_read(&transaction.tree, actor, quotas, header, payload, answer).map(|path| (path, 0))
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
    ) -> Result<(Resolved<'p>, usize), Refusal> {
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
            transaction.add_change(edited.path.path().as_str().into(), change);
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
        transaction.bytes += (created * limits::CREATED_OVERHEAD_BYTES) as u64;
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
        transaction.records.push(Record::new(self.index, header.kind, payload.into(), mark));
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

    pub(crate) fn transaction_end(
        &mut self,
        id: ConnId,
        tx_id: u32,
        payload: &[u8],
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let commit = transaction_end_args(payload)?;
        let (actor, transaction) = self.take_transaction(id, tx_id)?.ok_or(XsError::ENOENT)?;
        if !commit || transaction.failed {
            self.drop_transaction(*transaction);
            return if commit { Err(XsError::ENOMEM.into()) } else { Ok(()) };
        }
        let since = transaction.base_version;
        self.commit(&actor, *transaction, effects).map_err(|failure| {
            if let (true, Some(path)) = (actor.privileged, failure.conflict) {
                effects.push(Effect::Conflict { conn: id, since, path });
            }
            failure.refusal
        })
    }

    fn commit(
        &mut self,
        actor: &Actor,
        transaction: Transaction,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Failure> {
        if transaction.conflict.is_some() {
            return Err(Failure { refusal: XsError::EAGAIN.into(), conflict: transaction.conflict });
        }
        let fresh = !transaction.detached
            && transaction.base_version == self.version
            && self.still_fits(&transaction.deltas);
        transaction.verify_changes()?;
        let result = if fresh {
            transaction
        } else {
            let again = self.replay(actor, &transaction.records);
            self.drop_transaction(transaction);
            again?
        };
        if result.changes.is_empty() {
            return Ok(());
        }
        self.tree = result.tree;
        self.domains.settle(&result.deltas);
        self.version = self.index;
        self.note_replaced(result.changes.len() as u64, &result.deltas);
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
        let fits_all = self.domains.nodes().saturating_add_signed(total.nodes) <= limits::NODES_MAX
            && self.domains.node_bytes().saturating_add_signed(total.bytes) <= limits::NODE_BYTES_MAX;
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
    fn replay(&self, actor: &Actor, records: &[Record]) -> Result<Transaction, Failure> {
        let mut new = Transaction::new(self.tree.clone(), self.version);
        let mut answer = Vec::new();
        for record in records {
            record.verify()?;
            answer.clear();
            let header = Header { kind: record.kind, req_id: 0, tx_id: 0, len: 0 };
            self.replay_step(actor, &mut new, record, &header, &mut answer)?;
            if mark_of(&answer) != record.mark {
                let refusal = XsError::EAGAIN.into();
                return Err(Failure { refusal, conflict: Some(self.path_of(actor, record)) });
            }
        }
        Ok(new)
    }

    /// Gives a transaction that let its tree go another one, with its own changes in it. What it read may be different
    /// by now; then it goes on, as its client expects, and is refused at its commit.
    fn attach(&self, actor: &Actor, transaction: &mut Transaction) -> Result<(), Damage> {
        let mut new = Transaction::new(self.tree.clone(), self.version);
        let mut answer = Vec::new();
        for record in &transaction.records {
            record.verify()?;
            answer.clear();
            let header = Header { kind: record.kind, req_id: 0, tx_id: 0, len: 0 };
            let done = self.replay_step(actor, &mut new, record, &header, &mut answer);
            if let Err(Refusal::Damage(damage)) = done {
                return Err(*damage);
            }
            if (done.is_err() || mark_of(&answer) != record.mark) && transaction.conflict.is_none() {
                transaction.conflict = Some(self.path_of(actor, record));
            }
        }
        if transaction.conflict.is_none() {
            transaction.base_version = self.version;
        }
        transaction.adopt_changes(new);
        transaction.base_replaced_bytes = self.replaced_bytes;
        transaction.detached = false;
        Ok(())
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
            ops::answer_read(&new.tree, actor, quotas, header, &record.payload, answer).map(drop)
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
                    new.add_change(edited.path.path().as_str().into(), change);
                }
            })
        };
        match result {
            Ok(()) => Ok(()),
            Err(Refusal::Damage(damage)) => Err(Refusal::Damage(damage)),
            Err(Refusal::Quota(quota)) if !record.mark.error => Err(Refusal::Quota(quota)),
            Err(refusal) => {
                answer.clear();
                message::push_error(answer, header, refusal.error());
                Ok(())
            }
        }
    }
}

/// Why a commit was refused.
struct Failure {
    refusal: Refusal,
    /// Where the answer was another one.
    conflict: Option<Box<str>>,
}

impl<R: Into<Refusal>> From<R> for Failure {
    fn from(refusal: R) -> Failure {
        Failure { refusal: refusal.into(), conflict: None }
    }
}

/// The mark of a wire-ready answer. The ids in its header are the client's affair.
fn mark_of(answer: &[u8]) -> Mark {
    let error = Header::parse(answer).is_some_and(|header| header.kind == T::ERROR);
    Mark::new(error, answer.get(xs_protocol::HEADER_BYTES..).unwrap_or_default())
}
