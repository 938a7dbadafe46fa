//! Looking at what a request will consult, before it is logged.

use xs_protocol::{Header, MessageType as T, Path, path::Special, request};

use crate::{
    ConnId, Damage, Part, Store,
    connection::Connection,
    handle::{is_node_read, is_node_write},
    limits::{EXAMINED_RECORDS_MAX, NAMED_DOMAINS_MAX},
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
        self.verify_named(header.kind, payload)?;
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
        let domid = conn.actor.domid;
        if conn.actor.privileged {
            return Ok(());
        }
        // Without its record a guest would have no quota.
        self.domains.checked(domid)?.map(drop).ok_or_else(|| Damage::new(&domid.to_string(), Part::Domain))
    }

    /// Verifies what is known of the domains that a request names, for those that are about domains.
    pub(crate) fn verify_named(&self, kind: T, payload: &[u8]) -> Result<(), Damage> {
        let about_domains =
            [T::INTRODUCE, T::RELEASE, T::RESUME, T::SET_TARGET, T::SET_FEATURE, T::SET_QUOTA, T::CONTROL];
        if !about_domains.contains(&kind) {
            return Ok(());
        }
        let named = request::strings(payload).take(NAMED_DOMAINS_MAX);
        named
            .filter_map(|text| request::domid(text).ok())
            .try_for_each(|domid| self.domains.checked(domid).map(drop))
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
