//! A connection of the leader; as the daemon's `conn.rs`.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use xs_protocol::{HEADER_BYTES, Header, MESSAGE_MAX, XsError, message};
use xs_shm::{Received, Sent, Slot};
use xs_store::ConnId;

/// What the other side did that ends it, or what it can not do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Moved,
    Idle,
    Blocked,
    Ended,
}

/// What a connection waits for, since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    Opening,
    Request { seq: u64, size: usize, since_ms: u64 },
}

pub struct Conn {
    pub id: ConnId,
    pub slot: Slot,
    pub socket: Rc<UnixStream>,
    pub waiting: Option<Wait>,
}

impl Conn {
    pub fn receive(&mut self) -> Flow {
        match self.slot.receive(self.socket.as_fd()) {
            Ok(Received::Bytes(_)) => Flow::Moved,
            Ok(Received::WouldBlock) => Flow::Idle,
            Ok(Received::Full) => Flow::Blocked,
            Ok(Received::End) | Err(_) => Flow::Ended,
        }
    }

    pub fn send(&mut self) -> Flow {
        if self.slot.sendable_bytes() == 0 {
            return Flow::Idle;
        }
        match self.slot.send(self.socket.as_fd()) {
            Ok(Sent::All) => Flow::Moved,
            Ok(Sent::WouldBlock) => Flow::Blocked,
            Err(_) => Flow::Ended,
        }
    }

    /// The first request received, if it is whole.
    pub fn request(&self) -> Option<(Header, Vec<u8>)> {
        if self.slot.readable_bytes() < HEADER_BYTES {
            return None;
        }
        let mut bytes = [0; HEADER_BYTES];
        self.slot.peek(0, &mut bytes);
        let header = Header::parse(&bytes)?;
        let mut payload = vec![0; header.payload_len().ok()?];
        if self.slot.readable_bytes() < HEADER_BYTES + payload.len() {
            return None;
        }
        self.slot.peek(HEADER_BYTES, &mut payload);
        Some((header, payload))
    }

    /// Answers EIO to the first request received, whose outcome is not known. False if there is no room.
    pub fn refuse(&mut self, size: usize) -> bool {
        if self.slot.stageable_bytes() < MESSAGE_MAX {
            return false;
        }
        self.stage_eio();
        self.slot.commit_refused(size);
        true
    }

    pub fn stage_eio(&mut self) {
        if let Some((header, _)) = self.request() {
            let mut answer = Vec::new();
            message::push_error(&mut answer, &header, XsError::EIO);
            self.slot.stage(&answer);
        }
    }
}
