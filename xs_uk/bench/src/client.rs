//! A client of the store's socket that costs as little as it can.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use xs_protocol::{HEADER_BYTES, Header, MESSAGE_MAX, MessageType as T};
use zerocopy::IntoBytes;

use crate::error::{Error, Result, system};
use crate::limits::{ANSWER_WAIT, FILL_WAIT, INBOX_BYTES, TRIES_MAX};

/// A blocking connection with its buffers.
pub struct Client {
    stream: UnixStream,
    outbox: Vec<u8>,
    inbox: Box<[u8; INBOX_BYTES]>,
    /// The part of the inbox that is not consumed.
    unread: std::ops::Range<usize>,
    next_req_id: u32,
    /// Watch events that came between the answers.
    pub events: u64,
}

impl Client {
    /// Connects.
    pub fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).map_err(system("connect"))?;
        stream.set_read_timeout(Some(ANSWER_WAIT)).map_err(system("set a time-out"))?;
        Ok(Self {
            stream,
            outbox: Vec::with_capacity(64 * MESSAGE_MAX),
            inbox: Box::new([0; INBOX_BYTES]),
            unread: 0..0,
            next_req_id: 1,
            events: 0,
        })
    }

    /// Adds a request to what [`Self::flush`] sends. The payload is `parts` one after the other.
    pub fn queue(&mut self, kind: T, tx_id: u32, parts: &[&[u8]]) {
        let len = parts.iter().map(|part| part.len()).sum::<usize>();
        let len = u32::try_from(len).expect("our own requests are short");
        let header = Header { kind, req_id: self.next_req_id, tx_id, len };
        self.next_req_id = self.next_req_id.wrapping_add(1);
        self.outbox.extend_from_slice(header.as_bytes());
        for part in parts {
            self.outbox.extend_from_slice(part);
        }
    }

    /// Sends what is queued.
    pub fn flush(&mut self) -> Result<()> {
        let sent = self.stream.write_all(&self.outbox).map_err(system("send"));
        self.outbox.clear();
        sent
    }

    /// The payload of the next answer, which must be one of type `kind`.
    pub fn answer(&mut self, kind: T) -> Result<&[u8]> {
        loop {
            let (header, payload) = self.message()?;
            match header.kind {
                T::WATCH_EVENT => self.events += 1,
                T::ERROR => {
                    let name = String::from_utf8_lossy(&self.inbox[payload]);
                    let name = name.trim_end_matches('\0').to_owned();
                    return Err(Error::Refused { request: kind, name });
                }
                other if other == kind => return Ok(&self.inbox[payload]),
                _ => return Err(Error::Protocol("an answer of another type")),
            }
        }
    }

    /// Sends a request and waits for its answer.
    pub fn call(&mut self, kind: T, tx_id: u32, parts: &[&[u8]]) -> Result<&[u8]> {
        self.queue(kind, tx_id, parts);
        self.flush()?;
        self.answer(kind)
    }

    fn message(&mut self) -> Result<(Header, std::ops::Range<usize>)> {
        loop {
            let bytes = &self.inbox[self.unread.clone()];
            if let Some(header) = Header::parse(bytes) {
                let len = header.len as usize;
                // Some stock daemons go past the protocol's bound.
                if HEADER_BYTES + len > INBOX_BYTES {
                    return Err(Error::Protocol("an answer that is too long"));
                }
                if bytes.len() >= HEADER_BYTES + len {
                    let start = self.unread.start + HEADER_BYTES;
                    self.unread.start = start + len;
                    return Ok((header, start..start + len));
                }
            }
            self.receive()?;
        }
    }

    fn receive(&mut self) -> Result<()> {
        if self.unread.is_empty() {
            self.unread = 0..0;
        } else if self.unread.end == INBOX_BYTES {
            self.inbox.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        match self.stream.read(&mut self.inbox[self.unread.end..]).map_err(system("receive"))? {
            0 => Err(Error::Protocol("the store closed the connection")),
            count => {
                self.unread.end += count;
                Ok(())
            }
        }
    }

    /// Sets a value.
    pub fn write(&mut self, tx_id: u32, path: &str, value: &[u8]) -> Result<()> {
        self.call(T::WRITE, tx_id, &[path.as_bytes(), b"\0", value]).map(drop)
    }

    /// Asks for a value.
    pub fn read(&mut self, tx_id: u32, path: &str) -> Result<&[u8]> {
        self.call(T::READ, tx_id, &[path.as_bytes(), b"\0"])
    }

    /// Removes a node with all below.
    pub fn rm(&mut self, path: &str) -> Result<()> {
        self.call(T::RM, 0, &[path.as_bytes(), b"\0"]).map(drop)
    }

    /// Starts a transaction.
    pub fn begin(&mut self) -> Result<u32> {
        let payload = self.call(T::TRANSACTION_START, 0, &[b"\0"])?;
        let text = std::str::from_utf8(payload).unwrap_or_default().trim_end_matches('\0');
        text.parse().map_err(|_| Error::Protocol("not a transaction's number"))
    }

    /// Commits a transaction. False if it met a conflict.
    pub fn commit(&mut self, tx_id: u32) -> Result<bool> {
        match self.call(T::TRANSACTION_END, tx_id, &[b"T\0"]) {
            Ok(_) => Ok(true),
            Err(error) if error.is_refusal("EAGAIN") => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Does `body` in a transaction until it meets no conflict. Gives the number of conflicts.
    pub fn transaction(&mut self, mut body: impl FnMut(&mut Self, u32) -> Result<()>) -> Result<u32> {
        for conflicts in 0..TRIES_MAX {
            let tx_id = self.begin()?;
            body(self, tx_id)?;
            if self.commit(tx_id)? {
                return Ok(conflicts);
            }
        }
        Err(Error::Protocol("a transaction met conflicts for ever"))
    }

    /// Sends many requests with up to `depth` of them under way, and demands an answer to each, all within
    /// [`FILL_WAIT`].
    pub fn stream<'a>(
        &mut self,
        kind: T,
        depth: usize,
        payloads: impl Iterator<Item = Vec<u8>> + 'a,
    ) -> Result<usize> {
        let (mut queued, mut total, began) = (0, 0, Instant::now());
        for payload in payloads {
            self.queue(kind, 0, &[&payload]);
            queued += 1;
            total += 1;
            if queued == depth {
                self.settle(kind, &mut queued)?;
                if began.elapsed() > FILL_WAIT {
                    return Err(Error::TooSlow { done: total, seconds: began.elapsed().as_secs() });
                }
            }
        }
        self.settle(kind, &mut queued)?;
        Ok(total)
    }

    fn settle(&mut self, kind: T, queued: &mut usize) -> Result<()> {
        self.flush()?;
        for _ in 0..std::mem::take(queued) {
            self.answer(kind)?;
        }
        Ok(())
    }
}
