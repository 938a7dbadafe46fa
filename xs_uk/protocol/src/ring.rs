//! The shared ring page of a domain: layout and index arithmetic. It touches no memory.
//!
//! Layout: `struct xenstore_domain_interface` in `xs_wire.h`; meaning: `docs/misc/xenstore-ring.txt`.
//! Indexes are free-running; the byte at index `i` lies at `i % 1024` of its buffer. The peer's index is
//! untrusted: ours never comes from the page once we are attached (XSA-38).

/// Bytes of each of the two buffers (`XENSTORE_RING_SIZE`).
pub const RING_BYTES: u32 = 1024;
/// Offset of the requests' buffer, which the guest writes.
pub const REQ_OFFSET: usize = 0;
/// Offset of the responses' buffer, which the daemon writes.
pub const RSP_OFFSET: usize = 1024;
/// Offset of `req_cons`, which the daemon writes.
pub const REQ_CONS_OFFSET: usize = 2048;
/// Offset of `req_prod`, which the guest writes.
pub const REQ_PROD_OFFSET: usize = 2052;
/// Offset of `rsp_cons`, which the guest writes.
pub const RSP_CONS_OFFSET: usize = 2056;
/// Offset of `rsp_prod`, which the daemon writes.
pub const RSP_PROD_OFFSET: usize = 2060;
/// Offset of the bits of [`feature`] that the daemon offers.
pub const SERVER_FEATURES_OFFSET: usize = 2064;
/// Offset of the connection's state: [`CONNECTED`] or [`RECONNECT`].
pub const CONNECTION_OFFSET: usize = 2068;
/// Offset of the connection's [`error`](ConnectionError).
pub const ERROR_OFFSET: usize = 2072;
/// Offset of the event channel that Xen fills in for domains without a toolstack; 0 if unused.
pub const EVTCHN_PORT_OFFSET: usize = 2076;

/// The connection is in use (`XENSTORE_CONNECTED`).
pub const CONNECTED: u32 = 0;
/// The guest asked for a reset of the ring (`XENSTORE_RECONNECT`).
pub const RECONNECT: u32 = 1;

/// Bits of the server's features.
pub mod feature {
    /// The guest can have the ring reset.
    pub const RECONNECTION: u32 = 1;
    /// The page's error field is used.
    pub const ERROR: u32 = 2;
    /// WATCH takes a depth.
    pub const WATCHDEPTH: u32 = 4;
    /// Permissions may name `DOMID_ANY`.
    pub const DOMID_ANY: u32 = 8;
    /// All of them.
    pub const ALL: u32 = RECONNECTION | ERROR | WATCHDEPTH | DOMID_ANY;
}

/// Why the daemon gave up a ring; the value goes into the page's error field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ConnectionError {
    /// No error.
    None = 0,
    /// The event channel or the page does not work.
    Comm = 1,
    /// An index of the guest is impossible.
    RingIdx = 2,
    /// A message of the guest is too long.
    Proto = 3,
}

/// What is wrong with a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// The peer's index cannot be: the distance to ours is over the buffer's size.
    #[error("ring index {peer:#x} of the peer is impossible beside ours {own:#x}")]
    ImpossibleIndex {
        /// Our own index.
        own: u32,
        /// The peer's.
        peer: u32,
    },
}

/// A piece of a buffer without wrap-around.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Offset in the buffer, 0..1024.
    pub offset: usize,
    /// Bytes; 0 if there is no such piece.
    pub len: usize,
}

/// The up to two pieces, in order, that can be copied now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chunks(pub [Chunk; 2]);

impl Chunks {
    /// Bytes of both pieces.
    pub const fn len(self) -> usize {
        self.0[0].len + self.0[1].len
    }

    /// Whether nothing can be copied.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The same, but at most `max_bytes` from the front.
    pub fn limit(self, max_bytes: usize) -> Chunks {
        let [mut first, mut second] = self.0;
        first.len = first.len.min(max_bytes);
        second.len = second.len.min(max_bytes - first.len);
        Chunks([first, second])
    }

    /// The pieces that are not empty.
    pub fn iter(self) -> impl Iterator<Item = Chunk> {
        self.0.into_iter().filter(|chunk| chunk.len > 0)
    }
}

/// What a consumer at `own_cons` can take from a producer at `peer_prod`.
///
/// # Errors
/// If the producer is more than the buffer's size ahead.
pub fn readable(own_cons: u32, peer_prod: u32) -> Result<Chunks, RingError> {
    let bytes = peer_prod.wrapping_sub(own_cons);
    if bytes > RING_BYTES {
        return Err(RingError::ImpossibleIndex { own: own_cons, peer: peer_prod });
    }
    Ok(chunks(own_cons, bytes))
}

/// Where a producer at `own_prod` can put bytes for a consumer at `peer_cons`.
///
/// # Errors
/// If the consumer is ahead of the producer or more than the buffer's size behind.
pub fn writable(own_prod: u32, peer_cons: u32) -> Result<Chunks, RingError> {
    let used = own_prod.wrapping_sub(peer_cons);
    if used > RING_BYTES {
        return Err(RingError::ImpossibleIndex { own: own_prod, peer: peer_cons });
    }
    Ok(chunks(own_prod, RING_BYTES - used))
}

fn chunks(index: u32, bytes: u32) -> Chunks {
    let offset = index % RING_BYTES;
    let first = bytes.min(RING_BYTES - offset);
    Chunks([
        Chunk { offset: offset as usize, len: first as usize },
        Chunk { offset: 0, len: (bytes - first) as usize },
    ])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wrap_around() {
        let pair = |a, b, c, d| Chunks([Chunk { offset: a, len: b }, Chunk { offset: c, len: d }]);
        assert_eq!(readable(0, 0), Ok(pair(0, 0, 0, 0)));
        assert_eq!(readable(1020, 1030), Ok(pair(1020, 4, 0, 6)));
        assert_eq!(readable(u32::MAX, 3), Ok(pair(1023, 1, 0, 3)));
        assert_eq!(writable(1020, 1020), Ok(pair(1020, 4, 0, 1020)));
        assert_eq!(writable(1024, 0).map(Chunks::is_empty), Ok(true));
        assert_eq!(readable(1020, 1030).unwrap().limit(5), pair(1020, 4, 0, 1));
        assert_eq!(readable(1020, 1030).unwrap().limit(0).iter().count(), 0);
    }

    #[test]
    fn impossible_indexes() {
        assert!(readable(0, 1024).is_ok());
        assert_eq!(readable(0, 1025), Err(RingError::ImpossibleIndex { own: 0, peer: 1025 }));
        assert!(readable(1, 0).is_err());
        assert!(writable(0, 1).is_err());
        assert!(writable(1025, 0).is_err());
    }

    proptest! {
        #[test]
        fn chunks_stay_in_the_buffer(own: u32, distance in 0u32..=1024) {
            let reads = readable(own, own.wrapping_add(distance)).unwrap();
            prop_assert_eq!(reads.len(), distance as usize);
            let writes = writable(own, own.wrapping_sub(distance)).unwrap();
            prop_assert_eq!(writes.len(), (RING_BYTES - distance) as usize);
            for chunk in reads.iter().chain(writes.iter()) {
                prop_assert!(chunk.offset + chunk.len <= RING_BYTES as usize);
            }
        }

        #[test]
        fn a_stream_comes_through(sizes in proptest::collection::vec((0usize..600, 0usize..600), 1..60), start: u32) {
            let (mut prod, mut cons) = (start, start);
            let mut buffer = [0u8; RING_BYTES as usize];
            let (mut sent, mut got) = (0u32, 0u32);
            for (put, take) in sizes {
                for chunk in writable(prod, cons).unwrap().limit(put).iter() {
                    for byte in &mut buffer[chunk.offset..chunk.offset + chunk.len] {
                        *byte = (sent % 251) as u8;
                        sent += 1;
                    }
                    prod = prod.wrapping_add(u32::try_from(chunk.len).unwrap());
                }
                for chunk in readable(cons, prod).unwrap().limit(take).iter() {
                    for byte in &buffer[chunk.offset..chunk.offset + chunk.len] {
                        prop_assert_eq!(*byte, (got % 251) as u8);
                        got += 1;
                    }
                    cons = cons.wrapping_add(u32::try_from(chunk.len).unwrap());
                }
            }
        }
    }
}
