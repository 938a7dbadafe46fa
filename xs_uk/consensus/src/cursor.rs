//! A place in the log. Saved in snapshots: the codec is versioned by the snapshot that holds it.

use crate::Index;

/// Bytes of an encoded [`Cursor`].
pub const CURSOR_BYTES: usize = 48;

/// A place behind an entry, with the hash chain's value there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The entry; 0 at the very beginning.
    pub index: Index,
    /// The engine's own address of the place behind it (embedded: byte position, etcd: revision).
    pub position: u64,
    /// SHA-256 over all entries up to here.
    pub hash: [u8; 32],
}

impl Cursor {
    /// Little-endian index, position, hash.
    pub fn encode(&self) -> [u8; CURSOR_BYTES] {
        let mut bytes = [0; CURSOR_BYTES];
        bytes[..8].copy_from_slice(&self.index.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.position.to_le_bytes());
        bytes[16..].copy_from_slice(&self.hash);
        bytes
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8; CURSOR_BYTES]) -> Self {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let mut hash = [0; 32];
        hash.copy_from_slice(&bytes[16..]);
        Self { index: Index(word(0)), position: word(8), hash }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codec_round_trip() {
        let cursor = Cursor { index: Index(0x0102_0304_0506_0708), position: u64::MAX - 3, hash: [7; 32] };
        assert_eq!(Cursor::decode(&cursor.encode()), cursor);
    }
}
