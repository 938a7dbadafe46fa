//! A client that can say anything to the store, sense or nonsense.

use std::collections::VecDeque;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use xs_protocol::{HEADER_BYTES, Header, MessageType};

use crate::limits::ANSWER_WAIT;

/// A message from the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its type.
    pub kind: MessageType,
    /// The request that it answers.
    pub req_id: u32,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// A synchronous client of the store's socket.
pub struct RawClient {
    stream: UnixStream,
    next_req_id: u32,
    events: VecDeque<Message>,
}

impl RawClient {
    /// Connects.
    ///
    /// # Errors
    /// What the system reports.
    pub fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(ANSWER_WAIT))?;
        stream.set_write_timeout(Some(ANSWER_WAIT))?;
        Ok(Self { stream, next_req_id: 1, events: VecDeque::new() })
    }

    /// How long an answer may take.
    ///
    /// # Errors
    /// What the system reports.
    pub fn set_read_timeout(&self, timeout: std::time::Duration) -> Result<()> {
        self.stream.set_read_timeout(Some(timeout))
    }

    /// How long a send may wait.
    ///
    /// # Errors
    /// What the system reports.
    pub fn set_write_timeout(&self, timeout: std::time::Duration) -> Result<()> {
        self.stream.set_write_timeout(Some(timeout))
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// What the system reports.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a message; gives its request id.
    ///
    /// # Errors
    /// What the system reports.
    pub fn send(&mut self, kind: MessageType, tx_id: u32, payload: &[u8]) -> Result<u32> {
        let req_id = self.next_req_id;
        self.next_req_id = req_id.wrapping_add(1);
        let len = u32::try_from(payload.len()).map_err(Error::other)?;
        self.send_bytes(&message(kind, req_id, tx_id, len, payload))?;
        Ok(req_id)
    }

    /// Receives the next message, of whatever type.
    ///
    /// # Errors
    /// `UnexpectedEof` if the store closed the connection; a time-out.
    pub fn receive(&mut self) -> Result<Message> {
        let mut bytes = [0; HEADER_BYTES];
        self.stream.read_exact(&mut bytes)?;
        let header = Header::parse(&bytes).ok_or(ErrorKind::InvalidData)?;
        if header.len as usize > xs_protocol::PAYLOAD_MAX {
            return Err(Error::new(ErrorKind::InvalidData, format!("{} bytes of payload", header.len)));
        }
        let mut payload = vec![0; header.len as usize];
        self.stream.read_exact(&mut payload)?;
        Ok(Message { kind: header.kind, req_id: header.req_id, payload })
    }

    /// Sends a request and waits for its answer; events that come before are kept.
    ///
    /// # Errors
    /// `Other` with the protocol's error name; what the system reports; an answer to another request.
    pub fn request(&mut self, kind: MessageType, tx_id: u32, payload: &[u8]) -> Result<Vec<u8>> {
        let req_id = self.send(kind, tx_id, payload)?;
        let answer = self.answer()?;
        if answer.req_id != req_id {
            let text = format!("answer to {} instead of {req_id}", answer.req_id);
            return Err(Error::new(ErrorKind::InvalidData, text));
        }
        if answer.kind == MessageType::ERROR {
            let name = String::from_utf8_lossy(&answer.payload);
            return Err(Error::other(name.trim_end_matches('\0').to_owned()));
        }
        if answer.kind != kind {
            return Err(Error::new(ErrorKind::InvalidData, format!("{:?} answers {kind:?}", answer.kind)));
        }
        Ok(answer.payload)
    }

    /// The next answer; events that come before are kept.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub fn answer(&mut self) -> Result<Message> {
        loop {
            let message = self.receive()?;
            if message.kind != MessageType::WATCH_EVENT {
                return Ok(message);
            }
            self.events.push_back(message);
        }
    }

    /// The next event, kept or new.
    ///
    /// # Errors
    /// As [`Self::receive`]; `InvalidData` if an answer comes instead.
    pub fn event(&mut self) -> Result<Message> {
        if let Some(event) = self.events.pop_front() {
            return Ok(event);
        }
        let message = self.receive()?;
        if message.kind == MessageType::WATCH_EVENT {
            Ok(message)
        } else {
            Err(Error::new(ErrorKind::InvalidData, "an answer that nothing asked for"))
        }
    }

    /// Events received so far and not taken.
    pub fn kept_events(&self) -> usize {
        self.events.len()
    }

    /// Writes a node.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn write(&mut self, path: &str, value: &str) -> Result<()> {
        self.request(MessageType::WRITE, 0, format!("{path}\0{value}").as_bytes()).map(drop)
    }

    /// Reads a node.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn read(&mut self, path: &str) -> Result<String> {
        let value = self.request(MessageType::READ, 0, format!("{path}\0").as_bytes())?;
        String::from_utf8(value).map_err(Error::other)
    }
}

/// A message's bytes, with any length in its header.
pub fn message(kind: MessageType, req_id: u32, tx_id: u32, len: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    for word in [kind.0, req_id, tx_id, len] {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes.extend_from_slice(payload);
    bytes
}
