//! A snapshot as the warden keeps it: a memfd with a header, the place in the log, and the store's own bytes.
//!
//! Layout, version 2: `"XSUKSNAP"`, version u32, zero u32, cursor (48 bytes), length u64, SHA-256 of the store bytes,
//! store bytes. Version 1 has no digest, and is read too.

use std::os::fd::{AsFd, OwnedFd};

use sanity::Digest;
use xs_consensus::{CURSOR_BYTES, Cursor};
use xs_store::Store;

use crate::error::Error;
use crate::limits::SNAPSHOT_BYTES_MAX;

const MAGIC: &[u8; 8] = b"XSUKSNAP";
const VERSION: u32 = 2;
const DIGEST_BYTES: usize = 32;
const HEADER_BYTES: usize = 16 + CURSOR_BYTES + 8 + DIGEST_BYTES;

/// Writes the store's state at `cursor` to a fresh memfd. Gives it with its length.
pub fn save(store: &Store, cursor: &Cursor) -> Result<(OwnedFd, u64), Error> {
    let body = store.snapshot(cursor.index.0)?;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&0_u32.to_le_bytes());
    bytes.extend_from_slice(&cursor.encode());
    bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&Digest::of(&body).0);
    bytes.extend_from_slice(&body);
    let fd = rustix::fs::memfd_create("snapshot", rustix::fs::MemfdFlags::CLOEXEC)
        .map_err(Error::system("memfd_create"))?;
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let count =
            rustix::io::retry_on_intr(|| rustix::io::write(&fd, rest)).map_err(Error::system("write"))?;
        rest = &rest[count..];
    }
    Ok((fd, bytes.len() as u64))
}

/// Reads what [`save`] wrote.
pub fn load(fd: impl AsFd) -> Result<(Cursor, Store), Error> {
    parse(&bytes_of(fd)?)
}

fn bytes_of(fd: impl AsFd) -> Result<Vec<u8>, Error> {
    let length = rustix::fs::fstat(&fd).map_err(Error::system("fstat"))?.st_size;
    let length = u64::try_from(length).unwrap_or(0);
    if length > SNAPSHOT_BYTES_MAX {
        return Err(Error::Snapshot(format!("{length} bytes are over the bound of {SNAPSHOT_BYTES_MAX}")));
    }
    read_all(&fd, usize::try_from(length).unwrap_or(usize::MAX))
}

/// A snapshot's bytes as [`save`] wrote them, with its place in the log.
pub fn raw(fd: impl AsFd) -> Result<(Cursor, Vec<u8>), Error> {
    let bytes = bytes_of(fd)?;
    let cursor = bytes.get(16..).and_then(|rest| rest.first_chunk::<CURSOR_BYTES>());
    let cursor = Cursor::decode(cursor.ok_or_else(|| Error::Snapshot("cut off".into()))?);
    Ok((cursor, bytes))
}

fn read_all(fd: impl AsFd, length: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; length];
    let mut done = 0;
    while done < length {
        let count = rustix::io::retry_on_intr(|| rustix::io::pread(&fd, &mut bytes[done..], done as u64))
            .map_err(Error::system("pread"))?;
        if count == 0 {
            return Err(Error::Snapshot("shorter than it was".into()));
        }
        done += count;
    }
    Ok(bytes)
}

fn parse(bytes: &[u8]) -> Result<(Cursor, Store), Error> {
    let bad = |what: &str| Error::Snapshot(what.into());
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| bad("not a snapshot"))?;
    let (version, rest) = rest.split_first_chunk::<4>().ok_or_else(|| bad("cut off"))?;
    let version = u32::from_le_bytes(*version);
    if !(1..=VERSION).contains(&version) {
        return Err(Error::Snapshot(format!("version {version} is unknown")));
    }
    let rest = rest.get(4..).ok_or_else(|| bad("cut off"))?;
    let (cursor, rest) = rest.split_first_chunk::<CURSOR_BYTES>().ok_or_else(|| bad("cut off"))?;
    let (length, mut body) = rest.split_first_chunk::<8>().ok_or_else(|| bad("cut off"))?;
    if version >= 2 {
        let (digest, rest) = body.split_first_chunk::<DIGEST_BYTES>().ok_or_else(|| bad("cut off"))?;
        if Digest::of(rest) != Digest(*digest) {
            return Err(bad("damaged: its digest is another"));
        }
        body = rest;
    }
    if u64::from_le_bytes(*length) != body.len() as u64 {
        return Err(bad("length"));
    }
    let cursor = Cursor::decode(cursor);
    let (index, store) = Store::from_snapshot(body).map_err(|error| Error::Snapshot(error.to_string()))?;
    if index != cursor.index.0 {
        return Err(bad("its index is not its place in the log"));
    }
    Ok((cursor, store))
}

#[cfg(test)]
mod tests {
    use xs_consensus::Index;
    use xs_store::Config;

    use super::*;

    #[test]
    fn a_snapshot_loads_as_it_was_saved() {
        let cursor = Cursor { index: Index(7), position: 99, hash: [3; 32] };
        let mut store = Store::new(Config::default());
        store.apply(cursor.index.0, xs_store::EntryRef::Noop, &mut Vec::new());
        let (fd, length) = save(&store, &cursor).unwrap();
        let (back, loaded) = load(&fd).unwrap();
        assert_eq!(back, cursor);
        assert_eq!(loaded.digest(), store.digest());
        assert_eq!(rustix::fs::fstat(&fd).unwrap().st_size, i64::try_from(length).unwrap());
    }

    #[test]
    fn a_snapshot_without_a_digest_loads() {
        let cursor = Cursor { index: Index(1), position: 99, hash: [3; 32] };
        let mut store = Store::new(Config::default());
        store.apply(1, xs_store::EntryRef::Noop, &mut Vec::new());
        let (fd, length) = save(&store, &cursor).unwrap();
        let mut bytes = read_all(&fd, usize::try_from(length).unwrap()).unwrap();
        bytes[8] = 1;
        bytes.drain(HEADER_BYTES - DIGEST_BYTES..HEADER_BYTES);
        let (back, loaded) = parse(&bytes).unwrap();
        assert_eq!((back, loaded.root()), (cursor, store.root()));
    }

    #[test]
    fn anything_else_is_refused() {
        let cursor = Cursor { index: Index(7), position: 99, hash: [3; 32] };
        let (fd, length) = save(&Store::new(Config::default()), &cursor).unwrap();
        let bytes = read_all(&fd, usize::try_from(length).unwrap()).unwrap();
        for cut in 0..bytes.len() {
            assert!(parse(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        for at in HEADER_BYTES..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 16;
            assert!(matches!(parse(&flipped), Err(Error::Snapshot(text)) if text.contains("damaged")));
        }
        let mut newer = bytes.clone();
        newer[8] = 3;
        assert!(matches!(parse(&newer), Err(Error::Snapshot(text)) if text.contains("version 3")));
    }
}
