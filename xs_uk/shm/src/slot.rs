//! One connection's slot: what was received, consumed, queued and delivered, to the byte.
//!
//! ```text
//!   socket --recvmmsg--> rx ring --consume--> leader --stage+commit--> tx ring --sendmmsg--> socket
//!            rx_tail              rx_head                     tx_tail            tx_head
//! ```
//!
//! All positions are byte counts since the connection began. Three kinds of steps make them move:
//! - *receive* and *send* on a socket: the kernel itself stores the number of bytes in `msg_len` of a `mmsghdr` that
//!   lies in the slot, before the caller can be killed. Positions follow from `base + msg_len`.
//! - *commit*: a [`Record`] of all other positions is written to the one of two places that is not in use, then the
//!   version word is stored, which makes it count.
//! - on a guest's ring there is no system call: both directions are part of the record, with our own ring indices.
//!
//! So a successor calls [`Slot::open`] and goes on at the exact byte.
//!
//! # Flipped bits
//!
//! The owner keeps its positions twice and compares them before it uses them: a difference ends the process before a
//! wrong byte is sent or a wrong record stored. A record in shared memory carries a checksum, and a successor looks
//! whether all positions can be true. What cannot is no slot to go on with ([`Slot::is_sound`]): that one connection ends.

pub(crate) mod layout;
mod record;

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub use record::Record;
use record::{read_record, write_record};

use crate::limits::{RX_BYTES, SLOT_HEADER_BYTES, TX_BYTES};
use hypervisor::Region;

const _: () = assert!(layout::END <= SLOT_HEADER_BYTES);
const _: () = assert!(size_of::<libc::mmsghdr>() <= layout::RX_VECTOR - layout::RX_MESSAGE);
const _: () = assert!(2 * size_of::<libc::iovec>() <= layout::TX_MESSAGE - layout::RX_VECTOR);

/// What a system call on a slot's socket can report.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// The connection is broken.
    #[error("{call}: {source}")]
    System {
        /// The call.
        call: &'static str,
        /// Its error.
        source: std::io::Error,
    },
}

/// What a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A client of the Unix socket.
    Socket,
    /// A domain's ring page.
    Ring,
}

/// Outcome of [`Slot::receive`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// So many bytes came.
    Bytes(usize),
    /// The client closed its end.
    End,
    /// Nothing to receive now.
    WouldBlock,
    /// The receive ring is full: consume first.
    Full,
}

/// Outcome of [`Slot::send`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Nothing is left to send.
    All,
    /// The socket takes no more now.
    WouldBlock,
}

/// The serving side of a slot; one process at a time has it.
#[derive(Debug)]
pub struct Slot {
    region: Arc<Region>,
    base: usize,
    kind: Kind,
    at: Positions,
    at_copy: Positions,
    staged_bytes: usize,
    sound: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Positions {
    record: Record,
    version: u64,
    rx_tail: u64,
    tx_head: u64,
}

impl Positions {
    fn can_be_true(&self) -> bool {
        let within =
            |from: u64, to: u64, ring: usize| to.checked_sub(from).is_some_and(|bytes| bytes <= ring as u64);
        within(self.record.rx_head, self.rx_tail, RX_BYTES)
            && within(self.tx_head, self.record.tx_tail, TX_BYTES)
    }
}

impl Slot {
    /// Takes the slot over as its last owner left it.
    pub(crate) fn open(region: Arc<Region>, base: usize) -> Self {
        let version = region.u64(base + layout::VERSION).load(Ordering::Acquire);
        let (record, whole) = read_record(&region, base, version);
        let kind = if region.u32(base + layout::KIND).load(Ordering::Relaxed) == 1 {
            Kind::Ring
        } else {
            Kind::Socket
        };
        let at = Positions { record, version, ..Positions::default() };
        let mut slot = Self { region, base, kind, at, at_copy: at, staged_bytes: 0, sound: true };
        slot.recover_positions();
        if !whole || !slot.at.can_be_true() {
            // The version is kept, so that what is stored next counts.
            slot.learn(Positions { version, ..Positions::default() });
            slot.sound = false;
        }
        slot
    }

    /// Whether the slot was whole when it was taken over. One that was not is empty now, and its connection cannot go on.
    pub fn is_sound(&self) -> bool {
        self.sound
    }

    /// The positions.
    ///
    /// # Panics
    /// If a bit of them flipped in this process's memory.
    fn at(&self) -> &Positions {
        assert!(self.at == self.at_copy, "a connection's positions and their copy differ: memory is damaged");
        &self.at
    }

    fn learn(&mut self, at: Positions) {
        (self.at, self.at_copy) = (at, at);
    }

    /// What the connection is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The positions as last committed.
    pub fn record(&self) -> Record {
        self.at().record
    }

    /// Bytes received and not consumed.
    pub fn readable_bytes(&self) -> usize {
        let at = self.at();
        distance(at.record.rx_head, at.rx_tail)
    }

    /// Room in the receive ring.
    pub fn receivable_bytes(&self) -> usize {
        RX_BYTES - self.readable_bytes()
    }

    /// Bytes queued and not delivered, without what is only staged.
    pub fn sendable_bytes(&self) -> usize {
        let at = self.at();
        distance(at.tx_head, at.record.tx_tail)
    }

    /// Room in the send ring, less what is staged.
    pub fn stageable_bytes(&self) -> usize {
        TX_BYTES - self.sendable_bytes() - self.staged_bytes
    }

    /// Copies received bytes out without consuming them. `offset + bytes.len()` must not pass [`Self::readable_bytes`].
    pub fn peek(&self, offset: usize, bytes: &mut [u8]) {
        assert!(offset + bytes.len() <= self.readable_bytes(), "peek past what was received");
        self.read_ring(self.rx_offset(), RX_BYTES, self.at().record.rx_head + offset as u64, bytes);
    }

    /// Writes bytes behind what is queued; they count from the next [`Self::commit`] on.
    /// They must fit into [`Self::stageable_bytes`].
    pub fn stage(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.stageable_bytes(), "staged more than fits");
        let position = self.at().record.tx_tail + self.staged_bytes as u64;
        self.write_ring(self.tx_offset(), TX_BYTES, position, bytes);
        self.staged_bytes += bytes.len();
    }

    /// In one step: `consumed` received bytes are done with, as `requests` requests; what was staged is queued;
    /// outbox items up to `delivered` are queued.
    pub fn commit(&mut self, consumed: usize, requests: u64, delivered: Option<u64>) {
        assert!(consumed <= self.readable_bytes(), "consumed more than was received");
        self.commit_as(consumed, requests, delivered, self.record().refused);
    }

    fn commit_as(&mut self, consumed: usize, requests: u64, delivered: Option<u64>, refused: u64) {
        let mut record = Record { refused, ..self.record() };
        record.rx_head += consumed as u64;
        record.seq += requests;
        record.tx_tail += self.staged_bytes as u64;
        record.delivered = delivered.unwrap_or(record.delivered);
        self.staged_bytes = 0;
        self.store_record(record);
    }

    /// As [`Self::commit`] for one request that was answered with an error while its outcome is not known: if it comes
    /// to be done after all, its reply is not for the client any more.
    pub fn commit_refused(&mut self, consumed: usize) {
        assert!(consumed <= self.readable_bytes(), "consumed more than was received");
        self.commit_as(consumed, 1, None, self.record().seq + 1);
    }

    /// Receives what the socket has, up to the room there is. Never blocks.
    ///
    /// # Errors
    /// [`SlotError::System`] if the connection is broken.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> Result<Received, SlotError> {
        let room = self.receivable_bytes();
        if room == 0 {
            return Ok(Received::Full);
        }
        let at = *self.at();
        let parts = split(at.rx_tail, room, RX_BYTES);
        let begin = (self.rx_offset(), layout::RX_MESSAGE, layout::RX_VECTOR);
        self.arm(layout::RX_BASE, at.rx_tail, begin, parts);
        let message = self.message(layout::RX_MESSAGE);
        // SAFETY: `message` is a mmsghdr in mapped memory whose vectors point to free room of the receive ring; one
        // element, no time-out.
        let result = unsafe {
            libc::recvmmsg(socket.as_raw_fd(), message, 1, libc::MSG_DONTWAIT, std::ptr::null_mut())
        };
        match self.outcome("recvmmsg", result)? {
            None => Ok(Received::WouldBlock),
            Some(_) => {
                let count = self.message_length(layout::RX_MESSAGE) as usize;
                let rx_tail = at.rx_tail + count as u64;
                self.learn(Positions { rx_tail, ..at });
                self.word(layout::RX_TAIL).store(rx_tail, Ordering::Release);
                Ok(if count == 0 { Received::End } else { Received::Bytes(count) })
            }
        }
    }

    /// Sends what is queued, as much as the socket takes. Never blocks.
    ///
    /// # Errors
    /// [`SlotError::System`] if the connection is broken.
    pub fn send(&mut self, socket: BorrowedFd<'_>) -> Result<Sent, SlotError> {
        while self.sendable_bytes() > 0 {
            let at = *self.at();
            let parts = split(at.tx_head, self.sendable_bytes(), TX_BYTES);
            let begin = (self.tx_offset(), layout::TX_MESSAGE, layout::TX_VECTOR);
            self.arm(layout::TX_BASE, at.tx_head, begin, parts);
            let message = self.message(layout::TX_MESSAGE);
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            // SAFETY: `message` is a mmsghdr in mapped memory whose vectors point to queued bytes of the send ring.
            let result = unsafe { libc::sendmmsg(socket.as_raw_fd(), message, 1, flags) };
            if self.outcome("sendmmsg", result)?.is_none() {
                return Ok(Sent::WouldBlock);
            }
            let tx_head = at.tx_head + u64::from(self.message_length(layout::TX_MESSAGE));
            self.learn(Positions { tx_head, ..at });
            self.word(layout::TX_HEAD).store(tx_head, Ordering::Release);
        }
        Ok(Sent::All)
    }

    /// Ring: takes over bytes that were copied from the guest's request ring, and our index behind them, in one step.
    /// They must fit into [`Self::receivable_bytes`].
    pub fn commit_ring_receive(&mut self, bytes: &[u8], req_cons: u32) {
        assert!(self.kind == Kind::Ring && bytes.len() <= self.receivable_bytes());
        let at = *self.at();
        self.write_ring(self.rx_offset(), RX_BYTES, at.rx_tail, bytes);
        let rx_tail = at.rx_tail + bytes.len() as u64;
        self.learn(Positions { rx_tail, ..at });
        self.store_record(Record { rx_tail, req_cons, ..at.record });
    }

    /// Ring: copies queued bytes out, as many as there are up to `bytes.len()`; gives their number.
    pub fn peek_sendable(&self, bytes: &mut [u8]) -> usize {
        let count = bytes.len().min(self.sendable_bytes());
        self.read_ring(self.tx_offset(), TX_BYTES, self.at().tx_head, &mut bytes[..count]);
        count
    }

    /// Ring: `count` queued bytes were put on the guest's response ring, and our index behind them, in one step.
    pub fn commit_ring_send(&mut self, count: usize, rsp_prod: u32) {
        assert!(self.kind == Kind::Ring && count <= self.sendable_bytes());
        let at = *self.at();
        let tx_head = at.tx_head + count as u64;
        self.learn(Positions { tx_head, ..at });
        self.store_record(Record { tx_head, rsp_prod, ..at.record });
    }

    /// Ring: forgets all bytes under way and sets both indices, as a new INTRODUCE of the domain asks.
    pub fn reset_ring(&mut self, req_cons: u32, rsp_prod: u32) {
        assert!(self.kind == Kind::Ring);
        let at = *self.at();
        let (rx_head, rx_tail, tx_head) = (at.rx_tail, at.rx_tail, at.record.tx_tail);
        self.staged_bytes = 0;
        self.learn(Positions { tx_head, ..at });
        self.store_record(Record { rx_head, rx_tail, tx_head, req_cons, rsp_prod, ..at.record });
    }

    fn recover_positions(&mut self) {
        let record = self.at.record;
        let (rx_tail, tx_head) = if self.kind == Kind::Ring {
            (record.rx_tail, record.tx_head)
        } else {
            let rx_tail = self.recovered(layout::RX_BASE, layout::RX_TAIL, layout::RX_MESSAGE);
            (rx_tail, self.recovered(layout::TX_BASE, layout::TX_HEAD, layout::TX_MESSAGE))
        };
        self.learn(Positions { rx_tail, tx_head, ..self.at });
    }

    /// `arm` clears the kernel's count before it sets the base, so a count belongs to the base that stands there.
    fn recovered(&self, base: usize, position: usize, message: usize) -> u64 {
        let count = u64::from(self.message_length(message));
        if count == 0 {
            return self.word(position).load(Ordering::Acquire);
        }
        let position_now = self.word(base).load(Ordering::Acquire).wrapping_add(count);
        self.word(position).store(position_now, Ordering::Release);
        position_now
    }

    fn arm(
        &mut self,
        base_word: usize,
        position: u64,
        (ring, message, vector): (usize, usize, usize),
        parts: [(usize, usize); 2],
    ) {
        self.region
            .u32(self.base + message + std::mem::offset_of!(libc::mmsghdr, msg_len))
            .store(0, Ordering::Release);
        self.word(base_word).store(position, Ordering::Release);
        for (i, (offset, length)) in parts.into_iter().enumerate() {
            let start = self.region.pointer(ring + offset, length);
            let iov = libc::iovec { iov_base: start.as_ptr().cast(), iov_len: length };
            let place = self.vector(vector, i);
            // SAFETY: `place` points to room for an iovec (checked at compile time), aligned by the layout.
            unsafe { place.write(iov) };
        }
        let used = if parts[1].1 == 0 { 1 } else { 2 };
        // SAFETY: all-zero bytes are a valid mmsghdr.
        let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        header.msg_hdr.msg_iov = self.vector(vector, 0);
        header.msg_hdr.msg_iovlen = used;
        // SAFETY: `message` points to room for a mmsghdr (checked at compile time), aligned by the layout.
        unsafe { self.message(message).write(header) };
    }

    fn outcome(&self, call: &'static str, result: i32) -> Result<Option<()>, SlotError> {
        if result >= 0 {
            return Ok(Some(()));
        }
        let source = std::io::Error::last_os_error();
        match source.kind() {
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted => Ok(None),
            _ => Err(SlotError::System { call, source }),
        }
    }

    fn store_record(&mut self, record: Record) {
        let at = *self.at();
        let version = at.version + 1;
        write_record(&self.region, self.base, version, &record);
        self.word(layout::VERSION).store(version, Ordering::Release);
        self.learn(Positions { record, version, ..at });
    }

    fn message(&self, offset: usize) -> *mut libc::mmsghdr {
        self.region.pointer(self.base + offset, size_of::<libc::mmsghdr>()).cast().as_ptr()
    }

    fn vector(&self, offset: usize, i: usize) -> *mut libc::iovec {
        let size = size_of::<libc::iovec>();
        self.region.pointer(self.base + offset + i * size, size).cast().as_ptr()
    }

    fn message_length(&self, message: usize) -> u32 {
        self.region
            .u32(self.base + message + std::mem::offset_of!(libc::mmsghdr, msg_len))
            .load(Ordering::Acquire)
    }

    fn word(&self, offset: usize) -> &std::sync::atomic::AtomicU64 {
        self.region.u64(self.base + offset)
    }

    fn rx_offset(&self) -> usize {
        self.base + SLOT_HEADER_BYTES
    }

    fn tx_offset(&self) -> usize {
        self.base + SLOT_HEADER_BYTES + RX_BYTES
    }

    fn read_ring(&self, ring: usize, capacity: usize, position: u64, bytes: &mut [u8]) {
        let [(first, length), (second, _)] = split(position, bytes.len(), capacity);
        let (head, rest) = bytes.split_at_mut(length);
        self.region.read(ring + first, head);
        self.region.read(ring + second, rest);
    }

    fn write_ring(&self, ring: usize, capacity: usize, position: u64, bytes: &[u8]) {
        let [(first, length), (second, _)] = split(position, bytes.len(), capacity);
        let (head, rest) = bytes.split_at(length);
        self.region.write(ring + first, head);
        self.region.write(ring + second, rest);
    }
}

/// Where `length` bytes from `position` on lie in a ring: (offset, length) twice, the second may be empty.
fn split(position: u64, length: usize, capacity: usize) -> [(usize, usize); 2] {
    debug_assert!(length <= capacity);
    let offset = usize::try_from(position % capacity as u64).expect("less than the capacity");
    let first = length.min(capacity - offset);
    [(offset, first), (0, length - first)]
}

fn distance(from: u64, to: u64) -> usize {
    usize::try_from(to.checked_sub(from).expect("positions only grow")).expect("bounded by the ring")
}

#[cfg(test)]
mod tests;
