//! What a shell must know to slow those who make the transactions of others fail.

use xs_protocol::{Path, path::Special, request};

use crate::{
    ConnId, Store,
    node::{Actor, WRITE_BIT},
    ops::resolve,
    transaction::Record,
    tree::Found,
};

impl Store {
    /// Whether no quota limits a connection. False for an unknown one.
    pub fn is_privileged(&self, conn: ConnId) -> bool {
        self.conns.get(&conn).is_some_and(|conn| conn.actor.privileged)
    }

    /// Bytes of undelivered events of a connection, on this replica.
    pub fn event_bytes(&self, conn: ConnId) -> usize {
        self.conns.get(&conn).map_or(0, |conn| conn.outbox.event_bytes())
    }

    /// Whether a connection may change the node at an absolute path, or make it.
    pub fn may_write(&self, conn: ConnId, path: &str) -> bool {
        let (Some(conn), Ok(path)) = (self.conns.get(&conn), Path::parse(path.as_bytes())) else {
            return false;
        };
        let node = match self.tree.find(path) {
            Found::Node { node, .. } => node,
            Found::Missing { nearest, .. } => nearest,
        };
        conn.actor.bits(&node.acl, node.acl_generation) & WRITE_BIT != 0
    }

    /// The absolute path of a transaction's request; that of the root if it has none.
    pub(crate) fn path_of(&self, actor: &Actor, record: &Record) -> Box<str> {
        let raw = request::split_first(&record.payload).map_or(&*record.payload, |(raw, _)| raw);
        resolve(raw, actor, None, Special::Allowed)
            .map_or_else(|_| "/".into(), |resolved| resolved.path().as_str().into())
    }
}
