//! A store client over the ring.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use hypervisor::{DomId, Page};
use xs_protocol::perms::{self, Perm};
use xs_protocol::{HEADER_BYTES, Header, MessageType, PAYLOAD_MAX, XsError};
use zerocopy::IntoBytes;

use crate::limits::{EVENTS_MAX, REPLY_MS, TRANSACTION_TRIES_MAX};
use crate::link::{Bell, Link};
use crate::{Error, Result};

/// A transaction's number; [`Tx::NONE`] is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tx(pub u32);

impl Tx {
    /// No transaction.
    pub const NONE: Self = Self(0);
}

/// A watch fired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchEvent {
    /// What changed.
    pub path: String,
    /// Which watch.
    pub token: String,
}

/// A guest with its connection to the store. Paths without a leading slash are below its own directory.
#[derive(Debug)]
pub struct Guest {
    link: Link,
    next_req_id: u32,
    events: VecDeque<WatchEvent>,
    reply_timeout: Duration,
}

impl Guest {
    /// Attaches to domain `domid` at the broker whose socket this is: its page and the guest's end of its channel.
    /// Needs no store yet.
    ///
    /// # Errors
    /// If there is no broker or no such domain, or another guest is attached to it.
    pub fn attach(socket: &Path, domid: DomId) -> Result<Self> {
        Ok(Self::of(Link::attach(socket, domid)?))
    }

    /// A guest over a page and an event channel that are not the broker's.
    pub fn over(page: Page, bell: Box<dyn Bell>) -> Self {
        Self::of(Link::over(page, bell))
    }

    fn of(link: Link) -> Self {
        let reply_timeout = Duration::from_millis(REPLY_MS);
        Self { link, next_req_id: 1, events: VecDeque::new(), reply_timeout }
    }

    /// Sets how long a request waits for its reply, [`REPLY_MS`] at first.
    pub fn set_reply_timeout(&mut self, timeout: Duration) {
        self.reply_timeout = timeout;
    }

    /// The page, for what a well-behaved guest would not do.
    pub fn page(&self) -> &Page {
        self.link.page()
    }

    /// Notifies the store.
    ///
    /// # Errors
    /// If the event channel does not work.
    pub fn kick(&mut self) -> Result<()> {
        self.link.kick()
    }

    /// Readable when [`Self::next_event`] may have something to do. To be waited on only after it gave `None`.
    pub fn wait_fd(&self) -> BorrowedFd<'_> {
        self.link.wait_fd()
    }

    /// The features that the store offers (`xs_protocol::ring::feature`).
    pub fn server_features(&self) -> u32 {
        self.link.features()
    }

    /// Has the store reset the ring, and forgets requests under way and waiting events. `false` if it did not.
    ///
    /// # Errors
    /// If the event channel does not work.
    pub fn reconnect(&mut self, timeout: Duration) -> Result<bool> {
        let done = self.link.reconnect(Instant::now() + timeout)?;
        if done {
            self.events.clear();
        }
        Ok(done)
    }

    /// Waits for the first sign of the store, an answer of any kind. `false` if there was none within `timeout`; the
    /// question stays asked.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn wait_introduced(&mut self, timeout: Duration) -> Result<bool> {
        let usual = std::mem::replace(&mut self.reply_timeout, timeout);
        let outcome = self.read("domid");
        self.reply_timeout = usual;
        match outcome {
            Ok(_) | Err(Error::Store(_)) => Ok(true),
            Err(Error::Timeout { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A node's value.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn read(&mut self, path: &str) -> Result<Vec<u8>> {
        self.read_in(Tx::NONE, path)
    }

    /// A node's value, within a transaction.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn read_in(&mut self, tx: Tx, path: &str) -> Result<Vec<u8>> {
        self.request(MessageType::READ, tx, &[path.as_bytes(), b"\0"])
    }

    /// Sets a node's value; makes the node if need be.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn write(&mut self, path: &str, value: &[u8]) -> Result<()> {
        self.write_in(Tx::NONE, path, value)
    }

    /// Sets a node's value within a transaction.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn write_in(&mut self, tx: Tx, path: &str, value: &[u8]) -> Result<()> {
        self.request(MessageType::WRITE, tx, &[path.as_bytes(), b"\0", value]).map(drop)
    }

    /// Makes a node; no error if it is there.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn mkdir(&mut self, path: &str) -> Result<()> {
        self.request(MessageType::MKDIR, Tx::NONE, &[path.as_bytes(), b"\0"]).map(drop)
    }

    /// Removes a node with all below.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn rm(&mut self, path: &str) -> Result<()> {
        self.request(MessageType::RM, Tx::NONE, &[path.as_bytes(), b"\0"]).map(drop)
    }

    /// Names of a node's children.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn directory(&mut self, path: &str) -> Result<Vec<String>> {
        let reply = self.request(MessageType::DIRECTORY, Tx::NONE, &[path.as_bytes(), b"\0"])?;
        Ok(strings(&reply))
    }

    /// A node's permissions.
    ///
    /// # Errors
    /// As [`Self::request`]; [`Error::Message`] if the answer is no list of permissions.
    pub fn get_perms(&mut self, path: &str) -> Result<Vec<Perm>> {
        let reply = self.request(MessageType::GET_PERMS, Tx::NONE, &[path.as_bytes(), b"\0"])?;
        perms::parse_list(&reply).map_err(|_| Error::Message("not a list of permissions"))
    }

    /// Sets a node's permissions.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn set_perms(&mut self, path: &str, perms: &[Perm]) -> Result<()> {
        let mut list = vec![];
        perms::push_list(&mut list, perms);
        self.request(MessageType::SET_PERMS, Tx::NONE, &[path.as_bytes(), b"\0", &list]).map(drop)
    }

    /// Sets a watch, which fires once at once.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn watch(&mut self, path: &str, token: &str) -> Result<()> {
        let parts = [path.as_bytes(), b"\0", token.as_bytes(), b"\0"];
        self.request(MessageType::WATCH, Tx::NONE, &parts).map(drop)
    }

    /// Removes a watch. Events of it that were under way may still come.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn unwatch(&mut self, path: &str, token: &str) -> Result<()> {
        let parts = [path.as_bytes(), b"\0", token.as_bytes(), b"\0"];
        self.request(MessageType::UNWATCH, Tx::NONE, &parts).map(drop)
    }

    /// Starts a transaction.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn transaction_start(&mut self) -> Result<Tx> {
        let reply = self.request(MessageType::TRANSACTION_START, Tx::NONE, &[b"\0"])?;
        let number = strings(&reply).first().and_then(|number| number.parse().ok());
        number.map(Tx).ok_or(Error::Message("not a transaction's number"))
    }

    /// Ends a transaction; `EAGAIN` if it met a conflict.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn transaction_end(&mut self, tx: Tx, commit: bool) -> Result<()> {
        let flag: &[u8] = if commit { b"T\0" } else { b"F\0" };
        self.request(MessageType::TRANSACTION_END, tx, &[flag]).map(drop)
    }

    /// Runs `body` in a transaction until it meets no conflict.
    ///
    /// # Errors
    /// What `body` reports (the transaction is ended then), or [`Error::Conflicts`].
    pub fn transaction<T>(&mut self, mut body: impl FnMut(&mut Self, Tx) -> Result<T>) -> Result<T> {
        for _ in 0..TRANSACTION_TRIES_MAX {
            let tx = self.transaction_start()?;
            let outcome = body(self, tx);
            let ended = self.transaction_end(tx, outcome.is_ok());
            match (outcome, ended) {
                (Ok(value), Ok(())) => return Ok(value),
                (Ok(_), Err(error)) if error.is(XsError::EAGAIN) => {}
                (Ok(_), Err(error)) | (Err(error), _) => return Err(error),
            }
        }
        Err(Error::Conflicts)
    }

    /// The next watch event, waiting at most `timeout` for it.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn next_event(&mut self, timeout: Duration) -> Result<Option<WatchEvent>> {
        let deadline = Instant::now() + timeout;
        loop {
            // Replies that come now were given up before.
            while self.next_reply()?.is_some() {}
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            if !self.link.step()? && !self.link.wait(deadline)? {
                return Ok(None);
            }
        }
    }

    /// Sends a request of any kind and waits for its reply. The payload is `parts` one after the other.
    ///
    /// # Errors
    /// [`Error::Store`] if the answer is an error, [`Error::Timeout`], or what breaks the connection.
    pub fn request(&mut self, kind: MessageType, tx: Tx, parts: &[&[u8]]) -> Result<Vec<u8>> {
        let req_id = self.send_request(kind, tx, parts)?;
        let start = Instant::now();
        let deadline = start + self.reply_timeout;
        loop {
            while let Some((header, payload)) = self.next_reply()? {
                // Another number is that of a request that was given up.
                if header.req_id == req_id {
                    return finish(kind, header, payload);
                }
            }
            if !self.link.step()? && !self.link.wait(deadline)? {
                return Err(Error::Timeout { waited_ms: start.elapsed().as_millis() });
            }
        }
    }

    /// Sends a request without waiting, and gives its number.
    ///
    /// # Errors
    /// [`Error::TooLong`], or what breaks the connection.
    pub fn send_request(&mut self, kind: MessageType, tx: Tx, parts: &[&[u8]]) -> Result<u32> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len > PAYLOAD_MAX {
            return Err(Error::TooLong);
        }
        let req_id = self.next_req_id;
        self.next_req_id = self.next_req_id.wrapping_add(1);
        let len = u32::try_from(len).map_err(|_| Error::TooLong)?;
        let header = Header { kind, req_id, tx_id: tx.0, len };
        let mut message = header.as_bytes().to_vec();
        message.extend(parts.iter().copied().flatten());
        self.link.send(&message)?;
        Ok(req_id)
    }

    /// Sends bytes as they are, for what a well-behaved guest would not do.
    ///
    /// # Errors
    /// [`Error::TooLong`], or what breaks the connection.
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.link.send(bytes)
    }

    /// The next reply that is there; events before it are queued.
    fn next_reply(&mut self) -> Result<Option<(Header, Vec<u8>)>> {
        while let Some((header, payload)) = take_message(&mut self.link.inbox)? {
            if header.kind != MessageType::WATCH_EVENT {
                return Ok(Some((header, payload)));
            }
            if self.events.len() >= EVENTS_MAX {
                return Err(Error::TooManyEvents);
            }
            let mut strings = strings(&payload).into_iter();
            let (Some(path), Some(token)) = (strings.next(), strings.next()) else {
                return Err(Error::Message("an event without path and token"));
            };
            self.events.push_back(WatchEvent { path, token });
        }
        Ok(None)
    }
}

fn take_message(inbox: &mut Vec<u8>) -> Result<Option<(Header, Vec<u8>)>> {
    let Some(header) = Header::parse(inbox) else { return Ok(None) };
    let len = header.payload_len().map_err(|_| Error::Message("it is too long"))?;
    if inbox.len() < HEADER_BYTES + len {
        return Ok(None);
    }
    let payload = inbox[HEADER_BYTES..HEADER_BYTES + len].to_vec();
    inbox.drain(..HEADER_BYTES + len);
    Ok(Some((header, payload)))
}

/// The payload of an answer to a request of type `kind`, or its error.
pub(crate) fn finish(kind: MessageType, header: Header, payload: Vec<u8>) -> Result<Vec<u8>> {
    if header.kind == MessageType::ERROR {
        let name = payload.strip_suffix(b"\0").unwrap_or(&payload);
        return Err(XsError::from_name(name)
            .map_or_else(|| Error::UnknownError(String::from_utf8_lossy(name).into_owned()), Error::Store));
    }
    if header.kind != kind {
        return Err(Error::Message("a reply of another type"));
    }
    Ok(payload)
}

fn strings(payload: &[u8]) -> Vec<String> {
    let payload = payload.strip_suffix(b"\0").unwrap_or(payload);
    if payload.is_empty() {
        return vec![];
    }
    payload.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: MessageType, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).unwrap();
        let mut bytes = Header { kind, req_id: 9, tx_id: 0, len }.as_bytes().to_vec();
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn messages_are_taken_whole() {
        let bytes = message(MessageType::READ, b"value");
        for cut in 0..bytes.len() {
            assert!(take_message(&mut bytes[..cut].to_vec()).unwrap().is_none(), "cut at {cut}");
        }
        let mut two = [bytes.clone(), bytes[..3].to_vec()].concat();
        assert_eq!(take_message(&mut two).unwrap().unwrap().1, b"value");
        assert_eq!(two, &bytes[..3]);
    }

    #[test]
    fn a_message_over_the_bound_is_an_error() {
        let header = Header { kind: MessageType::READ, req_id: 0, tx_id: 0, len: 4097 };
        assert!(matches!(take_message(&mut header.as_bytes().to_vec()), Err(Error::Message(_))));
    }

    #[test]
    fn answers_are_told_apart() {
        let header = |kind| Header { kind, req_id: 0, tx_id: 0, len: 0 };
        let error = finish(MessageType::READ, header(MessageType::ERROR), b"ENOENT\0".to_vec());
        assert!(error.unwrap_err().is(XsError::ENOENT));
        let unknown = finish(MessageType::READ, header(MessageType::ERROR), b"EQUOTA\0".to_vec());
        assert!(matches!(unknown, Err(Error::UnknownError(name)) if name == "EQUOTA"));
        let other = finish(MessageType::READ, header(MessageType::WRITE), vec![]);
        assert!(matches!(other, Err(Error::Message(_))));
    }

    #[test]
    fn lists_of_strings_are_split() {
        assert_eq!(strings(b""), Vec::<String>::new());
        assert_eq!(strings(b"a\0b\0"), ["a", "b"]);
        assert_eq!(strings(b"a\0\0"), ["a", ""]);
    }
}
