//! Which snapshots are whole: the value of `snap/latest`, JSON.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use xs_consensus::{CURSOR_BYTES, Cursor};

use crate::limits::{CHUNK_BYTES, SNAPSHOT_BYTES_MAX};

const VERSION: u32 = 1;

/// One whole snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The entry up to which it goes.
    pub index: u64,
    /// Its [`Cursor`], hexadecimal.
    cursor: String,
    /// Its length.
    pub length_bytes: usize,
    /// SHA-256 over cursor and content, hexadecimal.
    sha256: String,
}

impl Saved {
    /// Describes a snapshot.
    pub fn of(cursor: &Cursor, bytes: &[u8]) -> Self {
        Self {
            index: cursor.index.0,
            cursor: to_hex(&cursor.encode()),
            length_bytes: bytes.len(),
            sha256: digest(cursor, bytes),
        }
    }

    /// In how many keys it lies.
    pub fn chunks(&self) -> usize {
        self.length_bytes.div_ceil(CHUNK_BYTES)
    }

    /// Its place, if `bytes` is its content.
    pub fn verify(&self, bytes: &[u8]) -> Option<Cursor> {
        let cursor = Cursor::decode(from_hex(&self.cursor)?.first_chunk::<CURSOR_BYTES>()?);
        let whole = bytes.len() == self.length_bytes && digest(&cursor, bytes) == self.sha256;
        (whole && cursor.index.0 == self.index).then_some(cursor)
    }
}

/// The value of `snap/latest`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    version: u32,
    /// The newest snapshot.
    pub newest: Saved,
    /// The one before it, should the newest be damaged. The log goes back to it.
    pub previous: Option<Saved>,
}

impl Manifest {
    /// After a snapshot was written.
    pub fn next(before: Option<&Self>, newest: Saved) -> Self {
        Self { version: VERSION, newest, previous: before.map(|manifest| manifest.newest.clone()) }
    }

    /// Entries up to here may be gone from the log.
    pub fn floor(&self) -> u64 {
        self.previous.as_ref().map_or(0, |previous| previous.index)
    }

    /// As a value.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers have a JSON form")
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let manifest: Self = serde_json::from_slice(bytes).ok()?;
        let sane = std::iter::once(&manifest.newest)
            .chain(&manifest.previous)
            .all(|saved| saved.length_bytes <= SNAPSHOT_BYTES_MAX);
        (manifest.version == VERSION && sane).then_some(manifest)
    }
}

fn digest(cursor: &Cursor, bytes: &[u8]) -> String {
    to_hex(&Sha256::new().chain_update(cursor.encode()).chain_update(bytes).finalize())
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use xs_consensus::Index;

    use super::*;

    #[test]
    fn a_snapshot_that_differs_is_found() {
        let cursor = Cursor { index: Index(8), position: 99, hash: [5; 32] };
        let saved = Saved::of(&cursor, b"content");
        assert_eq!(saved.verify(b"content"), Some(cursor));
        assert_eq!(saved.verify(b"contenT"), None);
        assert_eq!(Saved { index: 9, ..saved.clone() }.verify(b"content"), None);
        assert_eq!(Saved { cursor: "zz".to_owned(), ..saved }.verify(b"content"), None);
    }

    #[test]
    fn codec_round_trip_and_garbage() {
        let first = Manifest::next(None, Saved::of(&Cursor::default(), b""));
        let second = Manifest::next(Some(&first), Saved::of(&Cursor::default(), &[1; CHUNK_BYTES + 1]));
        assert_eq!(Manifest::decode(&second.encode()), Some(second.clone()));
        assert_eq!((second.newest.chunks(), first.newest.chunks(), first.floor()), (2, 0, 0));
        assert_eq!(Manifest::decode(b"{}"), None);
        assert_eq!(Manifest::decode(&Manifest { version: 2, ..first }.encode()), None);
    }
}
