//! The memory that a handle shares with its peers: pending and mask bits, and where each port's events go.
//!
//! Layout, version 1, all in the machine's byte order:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | magic and version |
//! | 8 | 8 | the handle's number |
//! | 16 | 8 | its domid |
//! | 64 | `PORTS_MAX` / 8 | pending bits, set by peers |
//! | … | `PORTS_MAX` / 8 | mask bits, of the holder alone |
//! | … | `PORTS_MAX` × 8 | routes: of each port of the handle, the peer's handle and port, written by the broker |

use std::mem::size_of;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, SealFlags};

use super::machine::HandleId;
use crate::limits::PORTS_MAX;
use crate::mapping::Mapping;
use crate::{DomId, Error, Port, Result};

const MAGIC: u64 = u64::from_be_bytes(*b"PpHvEv\0\x01");
const WORD_BITS: u32 = u64::BITS;
const WORDS: usize = (PORTS_MAX / WORD_BITS) as usize;
const HANDLE_WORD: usize = 1;
const DOMID_WORD: usize = 2;
const PENDING_WORD: usize = 8;
const MASK_WORD: usize = PENDING_WORD + WORDS;
const ROUTE_WORD: usize = MASK_WORD + WORDS;
const BYTES: usize = (ROUTE_WORD + PORTS_MAX as usize) * size_of::<u64>();

/// A route is `BOUND | handle << PORT_BITS | port`; 0 is a port without a peer that listens.
const PORT_BITS: u32 = PORTS_MAX.trailing_zeros();
/// The port is one of this handle, whether or not anybody is at the other end.
const BOUND: u64 = 1 << 63;
const ROUTED: u64 = 1 << 62;

/// Where events of a port go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// The port is not this handle's.
    None,
    /// Nobody listens at the other end.
    Idle,
    /// To this port of this handle.
    To(HandleId, Port),
}

/// A mapped event page.
#[derive(Debug)]
pub(crate) struct EventPage {
    mapping: Mapping,
}

impl EventPage {
    /// Makes the page of a new handle, with its memfd.
    pub(crate) fn create(handle: HandleId, domid: DomId) -> Result<(Self, OwnedFd)> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("ppvmm-events", flags).map_err(Error::system("memfd_create"))?;
        rustix::fs::ftruncate(&file, BYTES as u64).map_err(Error::system("size an event page"))?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
            .map_err(Error::system("seal an event page"))?;
        let page = Self { mapping: Mapping::of_file(&file, 0, BYTES, "map an event page")? };
        page.word(HANDLE_WORD).store(handle.0, Ordering::Relaxed);
        page.word(DOMID_WORD).store(u64::from(domid.0), Ordering::Relaxed);
        page.word(0).store(MAGIC, Ordering::Release);
        Ok((page, file))
    }

    /// Maps a page that was made by [`Self::create`].
    pub(crate) fn open(file: impl AsFd) -> Result<Self> {
        let size = rustix::fs::fstat(&file).map_err(Error::system("stat an event page"))?.st_size;
        if u64::try_from(size).ok() != Some(BYTES as u64) {
            return Err(Error::Adopt("the event page has another size"));
        }
        let page = Self { mapping: Mapping::of_file(file, 0, BYTES, "map an event page")? };
        if page.word(0).load(Ordering::Acquire) != MAGIC {
            return Err(Error::Adopt("the event page has another magic or version"));
        }
        Ok(page)
    }

    /// Its handle.
    pub(crate) fn handle(&self) -> HandleId {
        HandleId(self.word(HANDLE_WORD).load(Ordering::Relaxed))
    }

    /// The domain of its handle.
    pub(crate) fn domid(&self) -> DomId {
        DomId(u16::try_from(self.word(DOMID_WORD).load(Ordering::Relaxed)).unwrap_or(u16::MAX))
    }

    /// Sets a pending bit. Is the port not masked, so that its holder must be woken? Even if the bit was set before:
    /// who set it may have been killed before it woke the holder.
    pub(crate) fn raise(&self, port: Port) -> bool {
        let (word, bit) = place(port);
        self.word(PENDING_WORD + word).fetch_or(bit, Ordering::SeqCst);
        self.word(MASK_WORD + word).load(Ordering::SeqCst) & bit == 0
    }

    /// Takes the first pending port that is not masked, from `start` on in a circle, and masks it.
    pub(crate) fn take(&self, start: Port) -> Option<Port> {
        let (first, _) = place(start);
        let low = u64::MAX << (start.0 % WORD_BITS);
        let tail = (first + 1..WORDS).chain(0..first).map(|word| (word, u64::MAX));
        [(first, low)]
            .into_iter()
            .chain(tail)
            .chain([(first, !low)])
            .find_map(|(word, among)| self.take_in(word, among))
    }

    fn take_in(&self, word: usize, among: u64) -> Option<Port> {
        let mask = self.word(MASK_WORD + word);
        let ready =
            self.word(PENDING_WORD + word).load(Ordering::SeqCst) & !mask.load(Ordering::SeqCst) & among;
        if ready == 0 {
            return None;
        }
        let number = ready.trailing_zeros();
        mask.fetch_or(1 << number, Ordering::SeqCst);
        self.word(PENDING_WORD + word).fetch_and(!(1 << number), Ordering::SeqCst);
        Some(Port(u32::try_from(word).unwrap_or(u32::MAX) * WORD_BITS + number))
    }

    /// Clears a mask bit. Is the port pending, so that its holder must be woken?
    pub(crate) fn unmask(&self, port: Port) -> bool {
        let (word, bit) = place(port);
        self.word(MASK_WORD + word).fetch_and(!bit, Ordering::SeqCst);
        self.word(PENDING_WORD + word).load(Ordering::SeqCst) & bit != 0
    }

    /// Makes the port as new.
    pub(crate) fn reset(&self, port: Port) {
        let (word, bit) = place(port);
        self.set_route(port, Route::None);
        self.word(PENDING_WORD + word).fetch_and(!bit, Ordering::SeqCst);
        self.word(MASK_WORD + word).fetch_and(!bit, Ordering::SeqCst);
    }

    /// Where events of the port go.
    pub(crate) fn route(&self, port: Port) -> Route {
        let value = self.word(ROUTE_WORD + port.0 as usize).load(Ordering::SeqCst);
        if value & BOUND == 0 {
            Route::None
        } else if value & ROUTED == 0 {
            Route::Idle
        } else {
            let number = value & (u64::from(PORTS_MAX) - 1);
            let handle = (value & !(BOUND | ROUTED)) >> PORT_BITS;
            Route::To(HandleId(handle), Port(u32::try_from(number).unwrap_or(0)))
        }
    }

    /// Sets where events of the port go.
    pub(crate) fn set_route(&self, port: Port, route: Route) {
        let value = match route {
            Route::None => 0,
            Route::Idle => BOUND,
            Route::To(handle, peer) => BOUND | ROUTED | handle.0 << PORT_BITS | u64::from(peer.0),
        };
        self.word(ROUTE_WORD + port.0 as usize).store(value, Ordering::SeqCst);
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < BYTES / size_of::<u64>(), "word {index} is out of the event page");
        let place = self.mapping.start().cast::<u64>().wrapping_add(index);
        // SAFETY: in range and aligned, for the mapping starts at a page; lives as long as `self`; only ever an atomic.
        unsafe { AtomicU64::from_ptr(place) }
    }
}

fn place(port: Port) -> (usize, u64) {
    assert!(port.0 < PORTS_MAX, "ports are checked where they come in");
    ((port.0 / WORD_BITS) as usize, 1 << (port.0 % WORD_BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> EventPage {
        EventPage::create(HandleId(7), DomId(3)).unwrap().0
    }

    #[test]
    fn a_second_mapping_sees_the_same() {
        let (page, file) = EventPage::create(HandleId(7), DomId(3)).unwrap();
        let other = EventPage::open(&file).unwrap();
        assert_eq!((other.handle(), other.domid()), (HandleId(7), DomId(3)));
        assert!(page.raise(Port(4095)));
        assert_eq!(other.take(Port(0)), Some(Port(4095)));
    }

    #[test]
    fn another_file_is_no_event_page() {
        let file = rustix::fs::memfd_create("x", MemfdFlags::CLOEXEC).unwrap();
        assert!(matches!(EventPage::open(&file), Err(Error::Adopt(_))));
        rustix::fs::ftruncate(&file, BYTES as u64).unwrap();
        assert!(matches!(EventPage::open(&file), Err(Error::Adopt(_))));
    }

    #[test]
    fn a_taken_port_is_masked_until_unmasked() {
        let page = page();
        assert!(page.raise(Port(65)));
        assert!(page.raise(Port(65)), "the first to raise it may be dead");
        assert_eq!(page.take(Port(0)), Some(Port(65)));
        assert!(!page.raise(Port(65)), "masked: no wake");
        assert_eq!(page.take(Port(0)), None);
        assert!(page.unmask(Port(65)), "it was notified meanwhile");
        assert_eq!(page.take(Port(0)), Some(Port(65)));
        assert!(!page.unmask(Port(65)));
    }

    #[test]
    fn ports_are_taken_in_a_circle() {
        let page = page();
        for port in [1, 5, 64, 4000] {
            page.raise(Port(port));
        }
        let mut start = Port(5);
        let mut order = vec![];
        while let Some(port) = page.take(start) {
            order.push(port.0);
            start = Port((port.0 + 1) % PORTS_MAX);
        }
        assert_eq!(order, [5, 64, 4000, 1]);
    }

    #[test]
    fn routes_come_back_as_set() {
        let page = page();
        assert_eq!(page.route(Port(4095)), Route::None);
        for route in [Route::Idle, Route::To(HandleId(u64::from(u32::MAX)), Port(4095)), Route::None] {
            page.set_route(Port(4095), route);
            assert_eq!(page.route(Port(4095)), route);
        }
    }
}
