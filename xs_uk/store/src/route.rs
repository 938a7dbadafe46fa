//! Which requests need the log, and answering those that do not.

use xs_protocol::{DOMID_SELF, DomId, Header, MessageType as T, XsError, message, path, perms, request};

use crate::{
    ConnId, Damage, Store, connection::Connection, control, manage::introduce_args, ops, ops::Refusal,
};

/// How a request is to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// [`Store::read`] answers it.
    Read,
    /// It must be a log entry.
    Log,
    /// An INTRODUCE with valid arguments: the shell maps the page and binds the event channel first, then logs it
    /// with the verdict. See [`Store::introduce_args`].
    Introduce,
}

/// What a request type is.
enum Class {
    /// Reads nodes; recorded in a transaction.
    NodeRead,
    /// Changes nodes.
    NodeWrite,
    /// Reads something else.
    OtherRead,
    /// Changes something else.
    OtherWrite,
}

fn class(kind: T) -> Option<Class> {
    Some(match kind {
        T::READ | T::DIRECTORY | T::DIRECTORY_PART | T::GET_PERMS => Class::NodeRead,
        T::WRITE | T::MKDIR | T::RM | T::SET_PERMS => Class::NodeWrite,
        T::GET_DOMAIN_PATH | T::IS_DOMAIN_INTRODUCED | T::GET_FEATURE | T::GET_QUOTA => Class::OtherRead,
        T::CONTROL
        | T::WATCH
        | T::UNWATCH
        | T::TRANSACTION_START
        | T::TRANSACTION_END
        | T::INTRODUCE
        | T::RELEASE
        | T::RESUME
        | T::SET_TARGET
        | T::RESET_WATCHES
        | T::SET_FEATURE
        | T::SET_QUOTA => Class::OtherWrite,
        _ => return None,
    })
}

const fn privileged_only(kind: T) -> bool {
    matches!(
        kind,
        T::CONTROL
            | T::INTRODUCE
            | T::RELEASE
            | T::IS_DOMAIN_INTRODUCED
            | T::RESUME
            | T::SET_TARGET
            | T::SET_FEATURE
            | T::GET_QUOTA
            | T::SET_QUOTA
    )
}

/// The checks that come before all others. Returns the transaction, 0 for none.
pub(crate) fn admit(conn: &Connection, header: &Header) -> Result<u32, XsError> {
    if class(header.kind).is_none() {
        return Err(XsError::ENOSYS);
    }
    if privileged_only(header.kind) && !conn.actor.privileged {
        return Err(XsError::EACCES);
    }
    match header.tx_id {
        _ if matches!(header.kind, T::WATCH | T::UNWATCH) => Ok(0),
        0 => Ok(0),
        tx_id if conn.transactions.contains_key(&tx_id) => Ok(tx_id),
        _ => Err(XsError::ENOENT),
    }
}

impl Store {
    /// How a request is to be served now. A route is good until the next entry is applied.
    pub fn route(&self, conn: ConnId, header: &Header, payload: &[u8]) -> Route {
        let Some(state) = self.conns.get(&conn) else { return Route::Read };
        self.route_of(state, header, payload)
    }

    /// As [`Store::route`], for a client of the socket whose `Connect` is not in the log: what is no read needs it first.
    pub fn route_fresh(&self, header: &Header, payload: &[u8]) -> Route {
        self.route_of(&self.fresh_socket(ConnId(0)), header, payload)
    }

    fn route_of(&self, state: &Connection, header: &Header, payload: &[u8]) -> Route {
        let Ok(tx_id) = admit(state, header) else { return Route::Read };
        match (class(header.kind), header.kind) {
            (Some(Class::NodeRead), _) if tx_id == 0 => Route::Read,
            (Some(Class::OtherRead), _) => Route::Read,
            (_, T::TRANSACTION_START) if tx_id != 0 => Route::Read,
            (_, T::TRANSACTION_END) if tx_id == 0 => Route::Read,
            (_, T::CONTROL) if control::only_looks(payload) => Route::Read,
            (_, T::INTRODUCE) if introduce_args(&state.actor, payload).is_ok() => Route::Introduce,
            (_, T::INTRODUCE) => Route::Read,
            _ => Route::Log,
        }
    }

    /// Answers a request that [`Route::Read`] was found for: appends one wire-ready reply. All nodes that the answer
    /// depends on are verified.
    ///
    /// # Errors
    /// If one of them is damaged; then nothing is appended.
    pub fn read(
        &self,
        conn: ConnId,
        header: &Header,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Damage> {
        let verified = self.conns.get(&conn).ok_or_else(|| XsError::EIO.into()).and_then(|state| {
            self.verify_client(conn, state)?;
            Ok(state)
        });
        match verified {
            Ok(state) => self.read_as(state, header, payload, out),
            Err(refusal) => refuse(refusal, header, out),
        }
    }

    /// As [`Store::read`], for a client of the socket whose `Connect` is not in the log.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub fn read_fresh(&self, header: &Header, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Damage> {
        self.verify_config()?;
        self.read_as(&self.fresh_socket(ConnId(0)), header, payload, out)
    }

    fn read_as(
        &self,
        conn: &Connection,
        header: &Header,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Damage> {
        let start = out.len();
        let Err(refusal) = self.try_read(conn, header, payload, out) else { return Ok(()) };
        out.truncate(start);
        refuse(refusal, header, out)
    }

    fn try_read(
        &self,
        conn: &Connection,
        header: &Header,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let tx_id = admit(conn, header)?;
        match header.kind {
            T::READ | T::DIRECTORY | T::DIRECTORY_PART | T::GET_PERMS => {
                let quotas = self.quotas_of(&conn.actor);
                ops::answer_read(&self.tree, &conn.actor, quotas, header, payload, out).map(drop)
            }
            T::TRANSACTION_START if tx_id != 0 => Err(XsError::EBUSY.into()),
            T::TRANSACTION_END if tx_id == 0 => {
                transaction_end_args(payload)?;
                Err(XsError::ENOENT.into())
            }
            T::CONTROL => self.control_look(header, payload, out),
            T::INTRODUCE => {
                introduce_args(&conn.actor, payload)?;
                Err(XsError::EIO.into())
            }
            T::GET_DOMAIN_PATH => {
                let domid = request::domid(request::one(payload)?)?;
                message::push_reply_with(out, header, |out| {
                    out.extend_from_slice(path::domain_path(domid).as_bytes());
                    out.push(0);
                });
                Ok(())
            }
            T::IS_DOMAIN_INTRODUCED => {
                let domid = request::domid(request::one(payload)?)?;
                let introduced = domid == DOMID_SELF
                    || self.domains.checked(domid)?.is_some_and(|domain| domain.introduced);
                message::push_reply(out, header, if introduced { b"T\0" } else { b"F\0" });
                Ok(())
            }
            T::GET_FEATURE => self.get_feature(conn, header, payload, out),
            T::GET_QUOTA => self.get_quota(header, payload, out),
            _ => Err(XsError::EIO.into()),
        }
    }

    fn get_feature(
        &self,
        conn: &Connection,
        header: &Header,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let features = match request::vector::<1>(payload) {
            (0, _) => conn.actor.features,
            _ if !conn.actor.privileged => return Err(XsError::EACCES.into()),
            (1, [domid]) => self.known_domain(request::domid(domid)?)?.features,
            _ => return Err(XsError::EINVAL.into()),
        };
        push_number(out, header, features);
        Ok(())
    }

    fn get_quota(&self, header: &Header, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
        let (quotas, name) = match request::vector::<2>(payload) {
            (0, _) => {
                message::push_reply(out, header, format!("{}\0", control::quota_names()).as_bytes());
                return Ok(());
            }
            (1, [name, _]) => (self.config.quotas, name),
            (2, [domid, name]) => (self.known_domain(request::domid(domid)?)?.quotas, name),
            _ => return Err(XsError::EINVAL.into()),
        };
        let value = control::QuotaName::parse(name)?.get(&quotas);
        push_number(out, header, value);
        Ok(())
    }

    pub(crate) fn known_domain(&self, domid: DomId) -> Result<&crate::domain::Domain, Refusal> {
        Ok(self.domains.checked(domid)?.ok_or(XsError::ENOENT)?)
    }
}

/// A refusal as an answer, unless nothing may be answered.
fn refuse(refusal: Refusal, header: &Header, out: &mut Vec<u8>) -> Result<(), Damage> {
    if let Refusal::Damage(damage) = refusal {
        return Err(*damage);
    }
    message::push_error(out, header, refusal.error());
    Ok(())
}

/// Whether TRANSACTION_END commits.
pub(crate) fn transaction_end_args(payload: &[u8]) -> Result<bool, XsError> {
    match request::one(payload)? {
        b"T" => Ok(true),
        b"F" => Ok(false),
        _ => Err(XsError::EINVAL),
    }
}

fn push_number(out: &mut Vec<u8>, header: &Header, number: u32) {
    message::push_reply_with(out, header, |out| {
        perms::push_decimal(out, number.into());
        out.push(0);
    });
}
