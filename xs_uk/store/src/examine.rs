//! Looking at what a request will consult, before it is logged.

use xs_protocol::{Header, MessageType as T, Path, path::Special, request};

use crate::{
    ConnId, Damage, Store,
    connection::Connection,
    handle::{is_node_read, is_node_write},
    limits::EXAMINED_RECORDS_MAX,
    ops,
    route::admit,
    transaction::Transaction,
    tree::{INTRODUCE_DOMAIN, RELEASE_DOMAIN, Tree},
};

impl Store {
    /// Verifies the nodes that a request will consult which is about to be logged: its target, the parent or nearest ancestor,
    /// and the sums above. What is found damaged here can still be mended, or the request refused; once it is logged every
    /// replica has to apply it.
    ///
    /// # Errors
    /// The damage that was found.
    pub fn examine(&self, conn: ConnId, header: &Header, payload: &[u8]) -> Result<(), Damage> {
        let Some(state) = self.conns.get(&conn) else { return Ok(()) };
        self.verify_client(conn, state)?;
        let Ok(tx_id) = admit(state, header) else { return Ok(()) };
        match header.kind {
            kind if is_node_write(kind) || is_node_read(kind) => match verified(state, tx_id)? {
                Some(transaction) if transaction.detached => {
                    self.examine_records(state, transaction)?;
                    self.examine_node(&self.tree, state, payload)
                }
                Some(transaction) => self.examine_node(&transaction.tree, state, payload),
                None => self.examine_node(&self.tree, state, payload),
            },
            T::TRANSACTION_END => {
                verified(state, tx_id)?.map_or(Ok(()), |transaction| self.examine_commit(state, transaction))
            }
            T::INTRODUCE => examine_text(&self.tree, INTRODUCE_DOMAIN.as_bytes()),
            T::RELEASE => examine_text(&self.tree, RELEASE_DOMAIN.as_bytes()),
            _ => Ok(()),
        }
    }

    /// Verifies who asks: the connection, what is known of its domain, and the configuration.
    pub(crate) fn verify_client(&self, id: ConnId, conn: &Connection) -> Result<(), Damage> {
        conn.verify(id)?;
        self.verify_config()?;
        if conn.actor.privileged {
            return Ok(());
        }
        self.domains.get(conn.actor.domid).map_or(Ok(()), |domain| domain.verify(conn.actor.domid))
    }

    fn examine_node(&self, tree: &Tree, conn: &Connection, payload: &[u8]) -> Result<(), Damage> {
        let raw = request::strings(payload).next().unwrap_or(payload);
        match ops::resolve(raw, &conn.actor, None, Special::Allowed) {
            Ok(resolved) => tree.examine(resolved.path()),
            Err(_) => Ok(()),
        }
    }

    /// A commit executes the requests again if somebody else has changed anything.
    fn examine_commit(&self, conn: &Connection, transaction: &Transaction) -> Result<(), Damage> {
        transaction.verify_changes()?;
        if transaction.base_version == self.version && !transaction.detached {
            return Ok(());
        }
        self.examine_records(conn, transaction)
    }

    fn examine_records(&self, conn: &Connection, transaction: &Transaction) -> Result<(), Damage> {
        let mut records = transaction.records.iter().take(EXAMINED_RECORDS_MAX);
        records.try_for_each(|record| {
            record.verify()?;
            self.examine_node(&self.tree, conn, &record.payload)
        })
    }
}

fn verified(conn: &Connection, tx_id: u32) -> Result<Option<&Transaction>, Damage> {
    let transaction = conn.transactions.get(&tx_id);
    transaction.map(|transaction| transaction.verify().map(|()| &**transaction)).transpose()
}

fn examine_text(tree: &Tree, text: &[u8]) -> Result<(), Damage> {
    Path::parse(text).map_or(Ok(()), |path| tree.examine(path))
}
