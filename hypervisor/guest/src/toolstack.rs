//! What a toolstack does in the store for a new domain, as far as a simulated guest needs it: its home, its own
//! permissions there, and its introduction.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use hypervisor::DomId;
use hypervisor::local::{Broker, NewDomain};
use xs_protocol::{HEADER_BYTES, Header, MessageType, PAYLOAD_MAX, XsError};
use zerocopy::IntoBytes;

use crate::error::{Error, Result};
use crate::guest::{Tx, finish};
use crate::limits::{REPLY_MS, TRANSACTION_TRIES_MAX};

/// A connection to the store's Unix socket.
pub struct Toolstack {
    stream: UnixStream,
}

impl Toolstack {
    /// Connects.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn connect(store: &Path) -> Result<Self> {
        let stream = UnixStream::connect(store).map_err(Error::Socket)?;
        let wait = Some(Duration::from_millis(REPLY_MS));
        stream.set_read_timeout(wait).map_err(Error::Socket)?;
        stream.set_write_timeout(wait).map_err(Error::Socket)?;
        Ok(Self { stream })
    }

    /// Makes a domain, its home in the store, and introduces it.
    ///
    /// # Errors
    /// What broker or store refuse.
    pub fn create(&mut self, broker: &Broker) -> Result<DomId> {
        let domid = broker.create_domain(NewDomain::default())?;
        let home = format!("/local/domain/{domid}");
        self.write(&home, "")?;
        self.request(MessageType::SET_PERMS, format!("{home}\0n{domid}\0").as_bytes())?;
        self.write(&format!("{home}/domid"), &domid.to_string())?;
        self.introduce(broker, domid)?;
        Ok(domid)
    }

    /// Introduces a domain, or introduces it again.
    ///
    /// # Errors
    /// What broker or store refuse.
    pub fn introduce(&mut self, broker: &Broker, domid: DomId) -> Result<()> {
        let port = broker.store_port(domid)?;
        // The frame number is not used: the page is found by its grant.
        self.request(MessageType::INTRODUCE, format!("{domid}\01\0{port}\0").as_bytes()).map(drop)
    }

    fn write(&mut self, path: &str, value: &str) -> Result<()> {
        self.request(MessageType::WRITE, format!("{path}\0{value}").as_bytes()).map(drop)
    }

    /// Runs `body` in a transaction until it meets no conflict.
    pub(crate) fn transaction(&mut self, mut body: impl FnMut(&mut Self, Tx) -> Result<()>) -> Result<()> {
        for _ in 0..TRANSACTION_TRIES_MAX {
            let number = self.request(MessageType::TRANSACTION_START, b"\0")?;
            let number =
                std::str::from_utf8(&number).ok().and_then(|text| text.trim_end_matches('\0').parse().ok());
            let tx = Tx(number.ok_or(Error::Message("not a transaction's number"))?);
            let outcome = body(self, tx);
            let flag: &[u8] = if outcome.is_ok() { b"T\0" } else { b"F\0" };
            let ended = self.request_in(tx, MessageType::TRANSACTION_END, flag);
            match (outcome, ended) {
                (Ok(()), Ok(_)) => return Ok(()),
                (Ok(()), Err(error)) if error.is(XsError::EAGAIN) => {}
                (Ok(()), Err(error)) | (Err(error), _) => return Err(error),
            }
        }
        Err(Error::Conflicts)
    }

    fn request(&mut self, kind: MessageType, payload: &[u8]) -> Result<Vec<u8>> {
        self.request_in(Tx::NONE, kind, payload)
    }

    pub(crate) fn request_in(&mut self, tx: Tx, kind: MessageType, payload: &[u8]) -> Result<Vec<u8>> {
        if payload.len() > PAYLOAD_MAX {
            return Err(Error::TooLong);
        }
        let len = u32::try_from(payload.len()).map_err(|_| Error::TooLong)?;
        let header = Header { kind, req_id: 0, tx_id: tx.0, len };
        self.stream.write_all(&[header.as_bytes(), payload].concat()).map_err(Error::Socket)?;
        let mut bytes = [0; HEADER_BYTES];
        self.stream.read_exact(&mut bytes).map_err(Error::Socket)?;
        let reply = Header::parse(&bytes).ok_or(Error::Message("header"))?;
        let length = reply.payload_len().map_err(|_| Error::Message("length"))?;
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).map_err(Error::Socket)?;
        finish(kind, reply, payload)
    }
}
